"""serverlessllm: its own environment, built on demand."""

from rag.serverlessllm import environment as serverlessllm

SERVERLESSLLM = "cpu" if RUN.devices[0] == "cpu" else "cuda"  # with the store's stand-in, or with the real one


rule serverlessllm_environment:
    """Build ServerlessLLM's own environment under BLOCKWISE_SCRATCH (1.7 GB, for GPUs 5.8); one built from the same lock is kept."""
    input:
        lock=os.path.relpath(serverlessllm.VARIANTS[SERVERLESSLLM].lock),
        code=code("rag.serverlessllm.environment"),
    output:
        touch(f"{serverlessllm.default(SERVERLESSLLM)}.built"),
    log:
        f"{RUN.folder}/logs/serverlessllm_environment.log",
    localrule: True
    conda:
        "../envs/blockwise.yaml"
    params:
        variant=SERVERLESSLLM,
        folder=serverlessllm.default(SERVERLESSLLM),
    shell:
        "python -m rag.serverlessllm.environment --variant {params.variant} --out {params.folder} 2>&1 | tee {log}"
