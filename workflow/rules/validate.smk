"""validate: every variant against the oracle."""


rule validate:
    """Compare every variant of a backend with the float64 oracle, on problems that are awkward on purpose."""
    input:
        code=code("kernels.validate"),
        operator=lambda w: operator_code(w.operator),
    output:
        f"{RUN.folder}/validate/{{operator}}.{{backend}}.{{device}}.parquet",
    log:
        f"{RUN.folder}/logs/validate/{{operator}}.{{backend}}.{{device}}.log",
    conda:
        "../envs/blockwise.yaml"
    threads: 1
    resources:
        mem_mb=8000,
        runtime=60,
        gpu=lambda w: resources_of(w.device).get("gpu", 0),
        gpu_model=lambda w: resources_of(w.device).get("gpu_model", ""),
        slurm_partition=lambda w: resources_of(w.device).get("slurm_partition", ""),
    params:
        config=RUN.folder / "config.yaml",
        spec=lambda w: spec_of_operator(w.operator, ["sweep"], ["blocks"]),
    shell:
        "python -m kernels.validate --config {params.config} --operator {wildcards.operator}"
        " --backend {wildcards.backend} --device {wildcards.device} --out {output} 2>&1 | tee {log}"
