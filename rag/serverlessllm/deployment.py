"""What ServerlessLLM is told about a model, and whether its store has it in the form that it can load."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from analysis.cli import BadInput

BACKENDS = ("transformers", "vllm")
CONVERT = "python -m rag.serverlessllm.convert"


@dataclass(frozen=True)
class Scaling:
    """Its autoscaler: an instance for every `target` requests at once (it takes no more), between the fewest and the most;
    one beyond the fewest stays for `keep_alive` seconds without a request."""

    target: int = 1
    min_instances: int = 0
    max_instances: int = 1
    keep_alive: int = 60


@dataclass(frozen=True)
class Deployment:
    """A model under its name in the store: STORE/BACKEND/NAME holds it (see `rag.serverlessllm.convert`)."""

    name: str
    backend: str = "transformers"
    dtype: str = "float16"
    gpus: int = 1
    model_class: str = "AutoModelForCausalLM"
    scaling: Scaling = field(default_factory=Scaling)

    def folder(self, store: Path) -> Path:
        return store / self.backend / self.name

    def body(self) -> dict[str, Any]:
        """The JSON of `POST /register`."""
        return {
            "model": self.name,
            "backend": self.backend,
            "num_gpus": self.gpus,
            "auto_scaling_config": {"metric": "concurrency", **asdict(self.scaling)},
            "backend_config": {
                "pretrained_model_name_or_path": self.name,
                "device_map": "auto",
                "torch_dtype": self.dtype,
                "hf_model_class": self.model_class,
            },
        }

    def check(self, store: Path, stand_in: bool) -> None:
        """BadInput where this cannot be deployed from `store`: by the store itself, or by its stand-in."""
        where = f"model {self.name!r}"
        if self.backend not in BACKENDS:
            raise BadInput(f"{where}: unknown backend {self.backend!r}; one of {', '.join(BACKENDS)}")
        if self.backend == "vllm" and stand_in:
            raise BadInput(f"{where}: backend vllm needs a GPU and the real store; take transformers")
        if not 0 <= self.scaling.min_instances <= self.scaling.max_instances or self.scaling.max_instances < 1 or self.scaling.target < 1:
            raise BadInput(f"{where}: {self.scaling}: 0 ≤ min_instances ≤ max_instances, 1 ≤ max_instances and 1 ≤ target are needed")
        folder = self.folder(store)
        if not folder.is_dir():
            raise BadInput(f"{where}: no folder {folder}; make it: {CONVERT} --name {self.name} --store {store}")
        wanted, kind = ("*.safetensors", "stand-in's") if stand_in else ("**/tensor_index.json", "store's")
        if not any(folder.glob(wanted)):
            how = f"{CONVERT}{' --stand-in' if stand_in else ''} --name {self.name} --store {store}"
            raise BadInput(f"{where}: {folder} is not in the {kind} format (no {wanted.rpartition('/')[2]} in it); convert it anew: {how}")
