"""A target for each experiment, sealing, promoting, and Snakemake's own report."""

for stage, name in EXPERIMENTS:
    if RUN.sealed:

        rule:
            name:
                f"{stage}_{name}"
            log:
                f"{RUN.folder}/logs/{stage}_{name}.log",
            localrule: True
            conda:
                "../envs/blockwise.yaml"
            params:
                refusal=f"error: run {RUN.name} is sealed and never changes; measure into a run of your own:"
                f" snakemake {stage}_{name} --config run=NAME from={RUN.name}",
            shell:
                "echo {params.refusal:q} | tee {log}; exit 1"

    else:

        rule:
            name:
                f"{stage}_{name}"
            input:
                lambda w, its=(stage, name): announced(target_files(*its)),

    workflow.get_rule(f"{stage}_{name}").docstring = describe(stage, name)


if not RUN.sealed:

    rule seal:
        """Seal the run (--config run=NAME): a manifest of every raw record; after it the run never changes."""
        input:
            raw_records(RUN),
        output:
            str(RUN.manifest),
        log:
            f"{RUN.folder}/logs/seal.log",
        localrule: True
        conda:
            "../envs/blockwise.yaml"
        params:
            run=RUN.folder,
        shell:
            "python -m analysis.sealing seal {params.run} 2>&1 | tee {log}"

else:

    rule promote:
        """Copy the tuned tables of a sealed run into kernels/tuned/, where the operators look."""
        input:
            sorted(str(path) for path in RUN.folder.glob("tune/*.json")),
        log:
            f"{RUN.folder}/logs/promote.log",
        localrule: True
        conda:
            "../envs/blockwise.yaml"
        shell:
            "python -m kernels.tune --promote {input} 2>&1 | tee {log}"


rule fetch_models:
    """Fetch the models that the config's RAG experiments name, on this machine; where there is no network afterwards they run from the cache."""
    log:
        f"{RUN.folder}/logs/fetch_models.log",
    localrule: True
    conda:
        "../envs/blockwise.yaml"
    params:
        config=RUN.folder / "config.yaml",
    shell:
        "python -m rag.fetch --config {params.config} 2>&1 | tee {log}"


rule report_html:
    """Snakemake's report of the run, one HTML file with every figure and its caption."""
    input:
        made(FIGURES, RUN, "figures", "png"),
    output:
        f"results/{RUN.name}/report.html",
    log:
        f"results/{RUN.name}/logs/report_html.log",
    localrule: True
    conda:
        "../envs/blockwise.yaml"
    params:
        run=RUN.name,
        config=options(
            "--configfile",
            [str(Path(path)) for path in workflow.overwrite_configfiles],
        ),
    shell:
        "python -m snakemake --nolock --quiet all --report {output} {params.config} --config run={params.run} -- {input} > {log} 2>&1"
