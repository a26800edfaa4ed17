# make            set everything up and run the main job on the embedded default (config/smoke.yaml)
# make test       set everything up and pass the tests; REQUIRE=slurm,tex turns what cannot be tested into a failure
# make setup      only set up; GROUP=paper, cpu, cuda13 or cuda126 is the install group (default: the one installed, else cpu)
# make serverlessllm  build ServerlessLLM's own environment (1.7 GB), which its tests and runs with it need
# make locks      resolve the lock files anew from pyproject.toml
# make clean      remove the environment

VENV ?= .venv
GROUPS := paper cpu cuda13 cuda126
# The group that is installed already, else cpu.
GROUP ?= $(or $(patsubst $(VENV)/.%,%,$(firstword $(wildcard $(addprefix $(VENV)/.,$(GROUPS))))),cpu)
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do command -v $$p && break; done)
BIN := $(VENV)/bin
# PyPI's torch for Linux is the CUDA build, several GB; the CPU build is on PyTorch's own index, used where it answers.
TORCH_INDEX ?= https://download.pytorch.org/whl/$(if $(filter cuda126,$(GROUP)),cu126,cpu)
PLUGIN := cluster/snakemake-executor-plugin-submitit
CORES ?= $(shell nproc 2>/dev/null || sysctl -n hw.ncpu)

.PHONY: all setup test check serverlessllm locks clean

all: setup
	@$(BIN)/snakemake --cores $(CORES) --quiet rules -- all report_html
	@$(BIN)/python -m analysis.made results/smoke
	@echo "activate the environment: . $(BIN)/activate"

setup: $(VENV)/.$(GROUP)

$(VENV)/.%: locks/%.txt pyproject.toml $(PLUGIN)/pyproject.toml
	@test -n "$(PYTHON)" || { echo "error: no python3 on PATH; Blockwise needs Python 3.11 to 3.13"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing locks/$*.txt into $(VENV) (a few minutes)"
	@index=""; if [ $* = cpu ] || [ $* = cuda126 ]; then \
	  $(BIN)/python -c "import urllib.request as u; u.urlopen('$(TORCH_INDEX)/torch/', timeout=3)" 2>/dev/null \
	    && index="--extra-index-url $(TORCH_INDEX)"; fi; \
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $$index -r $<
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e . $(if $(filter paper,$*),,-e $(PLUGIN))
	@rm -f $(if $(filter dev,$*),,$(addprefix $(VENV)/.,$(GROUPS)))
	@touch $@

test: setup $(VENV)/.dev
	@$(MAKE) --no-print-directory check
	@$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

check: setup $(VENV)/.dev
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@cd $(PLUGIN) && $(abspath $(BIN))/mypy --ignore-missing-imports snakemake_executor_plugin_submitit
	@$(BIN)/snakefmt --check Snakefile workflow
	@$(BIN)/snakemake --lint >/dev/null

serverlessllm: setup
	@$(BIN)/python -m rag.serverlessllm.environment

# The CPU group leaves out what only torch's CUDA build needs.
CUDA_ONLY := cuda-bindings cuda-toolkit $(addprefix nvidia-,cublas cuda-cupti cuda-runtime cudnn-cu13 cufft cufile curand \
  cusolver cusparse cusparselt-cu13 nccl-cu13 nvjitlink nvshmem-cu13 nvtx)
LOCK = $(BIN)/uv pip compile --quiet --universal --no-annotate --python-version 3.11 pyproject.toml -o locks/$(1).txt

locks: $(VENV)/.dev
	@$(call LOCK,cpu) --extra cpu $(addprefix --no-emit-package ,$(CUDA_ONLY))
	@$(call LOCK,cuda13) --extra cuda13
	@$(call LOCK,cuda126) --extra cuda126
	@$(call LOCK,paper) --constraints locks/cpu.txt
	@$(call LOCK,dev) --extra dev --constraints locks/cpu.txt
	@$(BIN)/uv pip compile --quiet --universal --no-annotate --python-version 3.11 locks/serverlessllm.in -o locks/serverlessllm.txt \
	  --no-emit-package serverless-llm-store --no-emit-package triton $(addprefix --no-emit-package ,$(CUDA_ONLY) nvidia-cuda-nvrtc)
	@$(BIN)/uv pip compile --quiet --no-annotate --python-version 3.10 --python-platform x86_64-manylinux_2_28 \
	  --only-binary serverless-llm-store locks/serverlessllm-cuda.in -o locks/serverlessllm-cuda.txt

clean:
	rm -rf $(VENV)
