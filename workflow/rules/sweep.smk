"""sweep and tune: every block configuration on a device, in shards; and the fastest of each problem."""


rule sweep_shard:
    """Measure every block configuration of some of an experiment's problems on one device; resumes from the experiment's journal."""
    input:
        code=code("kernels.sweep"),
        operator=lambda w: operator_code(named("sweep", w.experiment).operator.name),
        validated=lambda w: validated(named("sweep", w.experiment), w.device),
        compiled=lambda w: compiled(named("sweep", w.experiment), w.device),
        caches=lambda w: caches(named("sweep", w.experiment), w.device),
        again=lambda w: again_input("sweep", w.experiment),
    output:
        f"{RUN.folder}/sweep/shards/{{experiment}}.{{device}}.{{shard}}.parquet",
    log:
        f"{RUN.folder}/logs/sweep/{{experiment}}.{{device}}.{{shard}}.log",
    wildcard_constraints:
        shard="[0-9]+",
    conda:
        "../envs/blockwise.yaml"
    threads: measuring_threads()
    resources:
        mem_mb=lambda w: planner().memory_mb("sweep", w.experiment, w.device, w.shard),
        runtime=lambda w: minutes(w.device, planner().minutes("sweep", w.experiment, w.device, w.shard)),
        gpu=lambda w: resource(w.device, "gpu", 0),
        gpu_model=lambda w: resource(w.device, "gpu_model", ""),
        slurm_partition=lambda w: resource(w.device, "slurm_partition", ""),
        slurm_account=lambda w: resource(w.device, "slurm_account", ""),
        constraint=lambda w: resource(w.device, "constraint", ""),
    params:
        config=RUN.folder / "config.yaml",
        plan=planner().file,
        spec=lambda w: spec_of("sweep", w.experiment, planner().problems("sweep", w.experiment, w.device, w.shard)),
        journal=lambda w: RUN.folder / "sweep" / "journal" / f"{w.experiment}.{w.device}",
        attempt=lambda w: attempt("sweep", w.experiment),
        compiled=lambda w, input: options("--compiled", input.compiled),
        cache=lambda w, input: options("--cache", input.caches),
        previous=lambda w: options("--previous", previous("sweep", f"{w.experiment}.{w.device}.parquet")),
    shell:
        "python -m kernels.sweep --config {params.config} --experiment {wildcards.experiment} --device {wildcards.device}"
        " --plan {params.plan} --shard {wildcards.shard} --journal {params.journal} --out {output} --attempt {params.attempt}"
        " {params.compiled} {params.cache} {params.previous} 2>&1 | tee {log}"


rule sweep:
    """Join the shards of an experiment on one device into its record file."""
    input:
        code=code("kernels.join"),
        shards=lambda w: cut_for("sweep", w, shards(w.experiment, w.device)),
    output:
        f"{RUN.folder}/sweep/{{experiment}}.{{device}}.parquet",
    log:
        f"{RUN.folder}/logs/sweep/{{experiment}}.{{device}}.log",
    localrule: True
    conda:
        "../envs/blockwise.yaml"
    shell:
        "python -m kernels.join {input.shards} --out {output} 2>&1 | tee {log}"


rule tune:
    """Derive the tuned table of a sweep: the block that is surely faster than the default, or the default."""
    input:
        code=code("kernels.tune"),
        records=f"{RUN.folder}/sweep/{{experiment}}.{{device}}.parquet",
    output:
        f"{RUN.folder}/tune/{{experiment}}.{{device}}.json",
    log:
        f"{RUN.folder}/logs/tune/{{experiment}}.{{device}}.log",
    localrule: True
    conda:
        "../envs/blockwise.yaml"
    shell:
        "python -m kernels.tune {input.records} --out {output} 2>&1 | tee {log}"
