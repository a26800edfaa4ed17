"""The catalogue of GPU models: what is true of each wherever it stands, and the names by which GRES types and node features call it.

To add a model, add a line; what is true of one site alone belongs in `partitions.yaml`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

FAMILIES = {
    "maxwell": ("sm_52",), "pascal": ("sm_60", "sm_61"), "volta": ("sm_70",), "turing": ("sm_75",), "ampere": ("sm_80", "sm_86"),
    "ada": ("sm_89",), "hopper": ("sm_90",), "blackwell": ("sm_100", "sm_120"),
}  # fmt: skip
"""Architectures by the names that node features give them."""


@dataclass(frozen=True)
class Model:
    """A GPU model, or a MIG slice of one.

    model: the short name that a config's `devices` uses. name: as NVML and nvidia-smi report it. memory_gb: of one GPU or slice.
    aliases: what sites call it, apart from those two; several models may share one (`a100` has 40 or 80 GB).
    """

    model: str
    name: str
    architecture: str
    memory_gb: float
    aliases: tuple[str, ...] = ()

    @property
    def install(self) -> Literal["cuda13", "cuda126"]:
        return install_group(self.architecture)

    def __str__(self) -> str:
        return f"{self.name}, {self.architecture}, {self.memory_gb:g} GB, {self.install}"


def install_group(architecture: str) -> Literal["cuda13", "cuda126"]:
    """The install group whose wheels run on an architecture such as "sm_80": CUDA 13 dropped everything below sm_75."""
    return "cuda13" if int(architecture.removeprefix("sm_")) >= 75 else "cuda126"


# Of models that share a name the commonest comes first.
CATALOGUE = {
    entry.model: entry
    for entry in (
        Model("m40", "Tesla M40 24GB", "sm_52", 24),
        Model("gtx980ti", "NVIDIA GeForce GTX 980 Ti", "sm_52", 6),
        Model("titanx-maxwell", "NVIDIA GeForce GTX TITAN X", "sm_52", 12, ("titanx",)),
        Model("p100", "Tesla P100-PCIE-16GB", "sm_60", 16, ("Tesla P100-SXM2-16GB", "p100_16gb")),
        Model("p40", "Tesla P40", "sm_61", 24),
        Model("p4", "Tesla P4", "sm_61", 8),
        Model("titanx", "NVIDIA TITAN X (Pascal)", "sm_61", 12),
        Model("titanxp", "NVIDIA TITAN Xp", "sm_61", 12),
        Model("gtx1060", "NVIDIA GeForce GTX 1060 6GB", "sm_61", 6),
        Model("gtx1070", "NVIDIA GeForce GTX 1070", "sm_61", 8),
        Model("gtx1080", "NVIDIA GeForce GTX 1080", "sm_61", 8),
        Model("gtx1080ti", "NVIDIA GeForce GTX 1080 Ti", "sm_61", 11),
        Model("v100", "Tesla V100-SXM2-32GB", "sm_70", 32, ("v100_32gb", "v100_sxm2")),
        Model("v100-16gb", "Tesla V100-SXM2-16GB", "sm_70", 16, ("v100", "v100_sxm2")),
        Model("v100-pcie", "Tesla V100-PCIE-32GB", "sm_70", 32, ("v100", "v100_32gb")),
        Model("v100-pcie-16gb", "Tesla V100-PCIE-16GB", "sm_70", 16, ("v100", "v100_16gb", "v100_pcie")),
        Model("v100s", "Tesla V100S-PCIE-32GB", "sm_70", 32),
        Model("titanv", "NVIDIA TITAN V", "sm_70", 12),
        Model("rtx2080", "NVIDIA GeForce RTX 2080", "sm_75", 8),
        Model("rtx2080ti", "NVIDIA GeForce RTX 2080 Ti", "sm_75", 11),
        Model("titanrtx", "NVIDIA TITAN RTX", "sm_75", 24),
        Model("rtx6000", "Quadro RTX 6000", "sm_75", 24),
        Model("rtx8000", "Quadro RTX 8000", "sm_75", 48),
        Model("t4", "Tesla T4", "sm_75", 16),
        Model("a100", "NVIDIA A100-SXM4-80GB", "sm_80", 80, ("a100_80gb", "a100_sxm4", "a100_sxm")),
        Model("a100-40gb", "NVIDIA A100-SXM4-40GB", "sm_80", 40, ("a100", "a100_sxm4", "a100_sxm")),
        Model("a100-pcie", "NVIDIA A100 80GB PCIe", "sm_80", 80, ("a100", "a100_80gb", "a100_pcie_80gb")),
        Model("a100-pcie-40gb", "NVIDIA A100-PCIE-40GB", "sm_80", 40, ("a100", "a100_40gb", "a100_pcie")),
        Model("a30", "NVIDIA A30", "sm_80", 24),
        Model("a2", "NVIDIA A2", "sm_86", 16),
        Model("a10", "NVIDIA A10", "sm_86", 24),
        Model("a10g", "NVIDIA A10G", "sm_86", 24),
        Model("a16", "NVIDIA A16", "sm_86", 16),
        Model("a40", "NVIDIA A40", "sm_86", 48),
        Model("a4000", "NVIDIA RTX A4000", "sm_86", 16),
        Model("a5000", "NVIDIA RTX A5000", "sm_86", 24),
        Model("a6000", "NVIDIA RTX A6000", "sm_86", 48),
        Model("rtx3080", "NVIDIA GeForce RTX 3080", "sm_86", 10),
        Model("rtx3090", "NVIDIA GeForce RTX 3090", "sm_86", 24),
        Model("l4", "NVIDIA L4", "sm_89", 24),
        Model("l40", "NVIDIA L40", "sm_89", 48),
        Model("l40s", "NVIDIA L40S", "sm_89", 48),
        Model("rtx4090", "NVIDIA GeForce RTX 4090", "sm_89", 24),
        Model("rtx6000-ada", "NVIDIA RTX 6000 Ada Generation", "sm_89", 48, ("rtx6000",)),
        Model("h100", "NVIDIA H100 80GB HBM3", "sm_90", 80, ("h100_80gb", "h100_sxm5", "h100_sxm")),
        Model("h100-pcie", "NVIDIA H100 PCIe", "sm_90", 80, ("h100", "h100_80gb")),
        Model("h100-nvl", "NVIDIA H100 NVL", "sm_90", 94, ("h100", "h100_94gb")),
        Model("h200", "NVIDIA H200", "sm_90", 141, ("h200_141gb", "h200_sxm5", "h200_sxm")),
        Model("h200-nvl", "NVIDIA H200 NVL", "sm_90", 141, ("h200_141gb",)),
        Model("gh200", "NVIDIA GH200 480GB", "sm_90", 96),
        Model("b200", "NVIDIA B200", "sm_100", 180),
        Model("rtx5090", "NVIDIA GeForce RTX 5090", "sm_120", 32),
        Model("rtxpro6000", "NVIDIA RTX PRO 6000 Blackwell Server Edition", "sm_120", 96),
    )
}

_PROFILE = re.compile(r"(?:(?P<host>.+?)[-_ .])?(?P<profile>(?P<g>\d+)g\.(?P<gb>\d+)gb(?:\+\w+)?)", re.IGNORECASE)
_PARTS = {1: (8, 4), 2: (4, 2), 3: (2,), 4: (2, 1), 7: (1,)}  # of the memory of a GPU: what a slice of so many compute slices may have
_CUT = {"sm_80", "sm_90", "sm_100"}  # the architectures of GPUs that are usually cut into slices
_MAKER = {"nvidia", "tesla", "geforce", "gpu", "sku", "model"}


def get(model: str) -> Model | None:
    """The model of a short name, such as "a100"; of a MIG slice such as "h200-mig-1g.18gb", as its host's entry gives it."""
    host, _, profile = model.partition("-mig-")
    if profile:
        found = _PROFILE.fullmatch(profile)
        return _slice(CATALOGUE[host], profile) if host in CATALOGUE and found and not found["host"] else None
    return CATALOGUE.get(model)


def named(name: str) -> Model | None:
    """The model that NVML reports as `name`, of a slice "GPU MIG profile"; None for one that the catalogue does not know."""
    whole, _, profile = name.partition(" MIG ")
    found = next((entry for entry in CATALOGUE.values() if same(entry.name, whole)), None)
    return _slice(found, profile) if found and profile else found


def same(one: str, other: str) -> bool:
    """Whether two names that NVML reports are of one model: drivers before 2021 leave out the leading "NVIDIA "."""
    return one.removeprefix("NVIDIA ").casefold() == other.removeprefix("NVIDIA ").casefold()


def matching(word: str) -> list[Model]:
    """The models that a GRES type or node feature may mean, the likeliest first; none for a word that the catalogue does not know.

    A MIG profile without the name of its GPU, `1g.18gb`, may be a slice of every GPU of that memory.
    """
    if found := _PROFILE.fullmatch(word):
        host = re.sub(r"(^|[-_ .])mig$", "", found["host"] or "", flags=re.IGNORECASE)
        hosts = matching(host) if host else [entry for entry in CATALOGUE.values() if entry.architecture in _CUT]
        return [_slice(entry, found["profile"]) for entry in hosts if int(found["gb"]) in _sizes(entry, int(found["g"]))]
    bare = _bare(word)
    return [entry for entry in CATALOGUE.values() if bare in _keys(entry)]


def narrowed(candidates: list[Model], word: str) -> list[Model]:
    """Those of `candidates` that a node feature also means, by model or family; all of them where it means none."""
    family = FAMILIES.get(word.lower(), ())
    meant = {entry.name for entry in matching(word)}
    kept = [entry for entry in candidates if entry.architecture in family or entry.name.partition(" MIG ")[0] in meant]
    return kept or candidates


def _slice(host: Model, profile: str) -> Model:
    """A slice has up to a ninth less memory than its profile's name says."""
    found = _PROFILE.fullmatch(profile)
    memory = round(0.9 * int(found["gb"])) if found else host.memory_gb
    return Model(f"{host.model}-mig-{profile}", f"{host.name} MIG {profile}", host.architecture, memory)


def _sizes(host: Model, compute: int) -> set[int]:
    """The sizes in GB that slices with `compute` compute slices are named by."""
    return {math.floor(host.memory_gb / parts + 0.5) for parts in _PARTS.get(compute, ())}


def _keys(entry: Model) -> set[str]:
    return {key for word in (entry.model, entry.name, *entry.aliases) for key in _variants(_bare(word))}


def _variants(bare: str) -> Iterable[str]:
    """Sites write rtx2080ti and 2080ti, rtx_a6000 and a6000."""
    return (bare, re.sub(r"^[gr]tx", "", bare))


def _bare(word: str) -> str:
    """`word` without the maker's names, punctuation and case: GPU_SKU:A100_SXM and a100-sxm are the same."""
    words = re.split(r"[^a-z0-9]+", word.lower())
    return re.sub(r"(\d)g$", r"\1gb", "".join(part for part in words if part not in _MAKER))
