"""bench: tuned kernels against peers, on the same data in the same job."""


rule bench:
    """Measure an experiment's tuned backends and peers against each other on one device; resumes from its journal."""
    input:
        code=code("kernels.bench"),
        operator=lambda w: operator_code(named("bench", w.experiment).operator.name),
        validated=lambda w: validated(named("bench", w.experiment), w.device),
        caches=lambda w: caches(named("bench", w.experiment), w.device),
        tuned=lambda w: cut_for("bench", w, tuned(named("bench", w.experiment), w.device)),
        again=lambda w: again_input("bench", w.experiment),
    output:
        f"{RUN.folder}/bench/{{experiment}}.{{device}}.parquet",
    log:
        f"{RUN.folder}/logs/bench/{{experiment}}.{{device}}.log",
    conda:
        "../envs/blockwise.yaml"
    threads: measuring_threads()
    resources:
        mem_mb=lambda w: planner().memory_mb("bench", w.experiment, w.device, WHOLE),
        runtime=lambda w: minutes(w.device, max(60, planner().minutes("bench", w.experiment, w.device, WHOLE))),
        gpu=lambda w: resource(w.device, "gpu", 0),
        gpu_model=lambda w: resource(w.device, "gpu_model", ""),
        slurm_partition=lambda w: resource(w.device, "slurm_partition", ""),
        slurm_account=lambda w: resource(w.device, "slurm_account", ""),
        constraint=lambda w: resource(w.device, "constraint", ""),
    params:
        config=RUN.folder / "config.yaml",
        plan=planner().file,
        shard=WHOLE,
        spec=lambda w: spec_of("bench", w.experiment),
        journal=lambda w: RUN.folder / "bench" / "journal" / f"{w.experiment}.{w.device}",
        attempt=lambda w: attempt("bench", w.experiment),
        tuned=lambda w, input: options("--tuned", input.tuned),
        cache=lambda w, input: options("--cache", input.caches),
        previous=lambda w: options("--previous", previous("bench", f"{w.experiment}.{w.device}.parquet")),
    shell:
        "python -m kernels.bench --config {params.config} --experiment {wildcards.experiment} --device {wildcards.device}"
        " --plan {params.plan} --shard {params.shard} --journal {params.journal} --out {output} --attempt {params.attempt}"
        " {params.tuned} {params.cache} {params.previous} 2>&1 | tee {log}"
