"""rag: the services of an experiment under the same offered load."""


rule rag:
    """Measure every arm of a RAG experiment under every offered load; resumes from its journal."""
    input:
        code=code("rag.experiment"),
        retrieval=operator_code("knn") + operator_code("ivf"),
        again=lambda w: again_input("rag", w.experiment),
    output:
        f"{RUN.folder}/rag/{{experiment}}.parquet",
    log:
        f"{RUN.folder}/logs/rag/{{experiment}}.log",
    conda:
        "../envs/blockwise.yaml"
    threads: measuring_threads()
    resources:
        mem_mb=lambda w: cost.memory_mb(serving(w.experiment)),
        runtime=lambda w: minutes(RUN.devices[0], max(30, cost.minutes(serving(w.experiment)))),
        gpu=lambda w: gpus_of(w.experiment),
        gpu_model=resource(RUN.devices[0], "gpu_model", ""),
        slurm_partition=resource(RUN.devices[0], "slurm_partition", ""),
        slurm_account=resource(RUN.devices[0], "slurm_account", ""),
        constraint=resource(RUN.devices[0], "constraint", ""),
    params:
        config=RUN.folder / "config.yaml",
        spec=lambda w: spec_of("rag", w.experiment),
        journal=lambda w: RUN.folder / "rag" / "journal" / w.experiment,
        attempt=lambda w: attempt("rag", w.experiment),
        device="cpu" if RUN.devices[0] == "cpu" else "cuda",  # of several devices RAG is measured on the first
        previous=lambda w: options("--from", previous("rag", f"{w.experiment}.parquet")),
    shell:
        "python -m rag.experiment --config {params.config} --name {wildcards.experiment} --out {output}"
        " --journal {params.journal} --device {params.device} --attempt {params.attempt} {params.previous} 2>&1 | tee {log}"
