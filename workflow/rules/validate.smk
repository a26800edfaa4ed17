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
        runtime=lambda w: minutes(w.device, 60),
        gpu=lambda w: resource(w.device, "gpu", 0),
        gpu_model=lambda w: resource(w.device, "gpu_model", ""),
        slurm_partition=lambda w: resource(w.device, "slurm_partition", ""),
        slurm_account=lambda w: resource(w.device, "slurm_account", ""),
        constraint=lambda w: resource(w.device, "constraint", ""),
    params:
        config=RUN.folder / "config.yaml",
        spec=lambda w: [RUN.config["seed"], spec_of_operator(w.operator, ["sweep"], ["blocks"])],
    shell:
        "python -m kernels.validate --config {params.config} --operator {wildcards.operator}"
        " --backend {wildcards.backend} --device {wildcards.device} --out {output} 2>&1 | tee {log}"
