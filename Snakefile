"""Blockwise: from GPU kernels and a RAG service to a paper.

snakemake                           everything, by config/smoke.yaml
snakemake --profile cluster         everything, by config/paper.yaml, on the cluster
snakemake --profile cluster TARGET  one experiment; snakemake --list-target-rules names them
snakemake paper                     the paper again, from the shipped run; measures nothing
"""

import sys

from snakemake.utils import min_version

min_version("9.0")
sys.path.insert(0, workflow.basedir)  # no other distribution's `kernels` shadows ours


include: "workflow/rules/common.smk"
include: "workflow/rules/attempts.smk"


if not RUN.sealed:

    include: "workflow/rules/compile.smk"
    include: "workflow/rules/validate.smk"
    include: "workflow/rules/sweep.smk"
    include: "workflow/rules/bench.smk"
    include: "workflow/rules/rag.smk"
    include: "workflow/rules/serverlessllm.smk"


include: "workflow/rules/paper.smk"
include: "workflow/rules/targets.smk"
include: "workflow/rules/plan.smk"


report: "workflow/report/workflow.rst"


rule all:
    """Everything: compile, validate, sweep, tune, bench, rag, figures, tables, numbers and, where there is TeX, the PDF."""
    default_target: True
    input:
        made(FIGURES, RUN, "figures", "pdf"),
        made(TABLES, RUN, "tables", "tex"),
        lambda w: announced(raw_records(RUN)),
        f"results/{RUN.name}/numbers.tex",
        f"results/{RUN.name}/report.pdf" if HAS_TEX else [],


rule paper:
    """The paper again: figures, tables, numbers and the PDF. From a sealed run (the shipped one by default) it measures nothing."""
    input:
        made(FIGURES, PAPER, "figures", "pdf"),
        made(TABLES, PAPER, "tables", "tex"),
        f"results/{PAPER.name}/numbers.tex",
        f"results/{PAPER.name}/report.pdf",


rule figures:
    """All figures of the shipped run, or of the one named by --config run=NAME."""
    input:
        made(FIGURES, PAPER, "figures", "pdf"),


rule tables:
    """All tables of the shipped run, or of the one named by --config run=NAME."""
    input:
        made(TABLES, PAPER, "tables", "tex"),


onstart:
    keep_config(RUN)
    keep_plan()
    say_bill(whole=False)
    from analysis import progress

    progress.follow_beside(RUN.folder, needed())


onsuccess:
    say_left_out()
    if not HAS_TEX:
        print(
            "no PDF: there is no TeX here (README.md names the packages); all else is complete",
            file=sys.stderr,
        )


onerror:
    say_left_out()
