"""compile: every GPU kernel for every architecture, on a CPU."""


rule compile:
    """Compile an operator's GPU kernels for one architecture; the cache is what GPU jobs hit."""
    input:
        code=code("kernels.compile"),
        operator=lambda w: operator_code(w.operator),
    output:
        table=f"{RUN.folder}/compile/{{operator}}.{{architecture}}.parquet",
        cache=directory(f"{RUN.folder}/compile/{{operator}}.{{architecture}}.cache"),
    log:
        f"{RUN.folder}/logs/compile/{{operator}}.{{architecture}}.log",
    conda:
        "../envs/blockwise.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=60,
    params:
        config=RUN.folder / "config.yaml",
        spec=lambda w: spec_of_operator(
            w.operator,
            compiled_stages(w.architecture),
            ["problems", "backends", "blocks"],
        ),
        stages=lambda w: compiled_stages(w.architecture),
    shell:
        "python -m kernels.compile --config {params.config} --operator {wildcards.operator}"
        " --architecture {wildcards.architecture} --stages {params.stages} --out {output.table} --cache {output.cache} 2>&1 | tee {log}"
