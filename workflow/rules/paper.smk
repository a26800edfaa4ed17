"""figures, tables, numbers and the typeset paper: from records alone."""

for kind in sorted({item.kind for item in FIGURES.values()}):

    rule:
        name:
            f"figure_{kind}"
        input:
            code=code(f"analysis.figures.{kind}"),
            records=lambda w: records_of(FIGURES, w),
        output:
            pdf=report(
                "results/{run}/figures/{stem}.pdf",
                caption=f"../report/{kind}.rst",
                category="Figures",
                labels={"figure": "{stem}", "format": "PDF"},
            ),
            png=report(
                "results/{run}/figures/{stem}.png",
                caption=f"../report/{kind}.rst",
                category="Figures",
                labels={"figure": "{stem}", "format": "PNG"},
            ),
        log:
            "results/{run}/logs/figures/{stem}.log",
        wildcard_constraints:
            run=PAPER_RUNS,
            stem=stems(FIGURES, kind),
        localrule: True
        conda:
            "../envs/blockwise.yaml"
        params:
            options=lambda w: options_of(FIGURES, w),
            stem=lambda w, output: Path(output.pdf).with_suffix(""),
            module=f"analysis.figures.{kind}",
        shell:
            "python -m {params.module} {input.records} --out {params.stem} {params.options} 2>&1 | tee {log}"


for kind in sorted({item.kind for item in TABLES.values()}):

    rule:
        name:
            f"table_{kind}"
        input:
            code=code(f"analysis.tables.{kind}"),
            records=lambda w: records_of(TABLES, w),
        output:
            tex="results/{run}/tables/{stem}.tex",
            csv="results/{run}/tables/{stem}.csv",
            markdown="results/{run}/tables/{stem}.md",
        log:
            "results/{run}/logs/tables/{stem}.log",
        wildcard_constraints:
            run=PAPER_RUNS,
            stem=stems(TABLES, kind),
        localrule: True
        conda:
            "../envs/blockwise.yaml"
        params:
            options=lambda w: options_of(TABLES, w),
            stem=lambda w, output: Path(output.tex).with_suffix(""),
            module=f"analysis.tables.{kind}",
        shell:
            "python -m {params.module} {input.records} --out {params.stem} {params.options} 2>&1 | tee {log}"


rule numbers:
    """Every number that a text may quote, as a LaTeX macro with its records beside it."""
    input:
        code=code("analysis.numbers"),
        records=lambda w: raw_records(run_of(w)),
    output:
        tex="results/{run}/numbers.tex",
        records="results/{run}/numbers.json",
    log:
        "results/{run}/logs/numbers.log",
    wildcard_constraints:
        run=PAPER_RUNS,
    localrule: True
    conda:
        "../envs/blockwise.yaml"
    params:
        run=lambda w: run_of(w).folder,
    shell:
        "python -m analysis.numbers --run {params.run} --out {output.tex} 2>&1 | tee {log}"


rule report_pdf:
    """Typeset the report of a run: what it has, and no claims."""
    input:
        code=code("analysis.report"),
        skeleton=["paper/report.tex", "paper/blockwise.sty", "paper/refs.bib"],
        captions=sorted(str(path) for path in Path("workflow/report").glob("*.rst")),
        figures=lambda w: made(FIGURES, run_of(w), "figures", "pdf"),
        tables=lambda w: made(TABLES, run_of(w), "tables", "tex"),
        numbers="results/{run}/numbers.tex",
    output:
        "results/{run}/report.pdf",
    log:
        "results/{run}/logs/report.log",
    wildcard_constraints:
        run=PAPER_RUNS,
    localrule: True
    conda:
        "../envs/blockwise.yaml"
    params:
        run=lambda w: run_of(w).folder,
    shell:
        "python -m analysis.report --run {params.run} --figures {input.figures} --tables {input.tables}"
        " --numbers {input.numbers} --out {output} 2>&1 | tee {log}"
