"""partitions.yaml from what Slurm says: recorded outputs of several versions and kinds of site, made-up ones, and a real Slurm."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.cli import BadInput
from cluster import discover, sinfo, site

ROOT = Path(__file__).parents[2]
NOBODY = sinfo.User()

# Real: Slurm 22.05.8, typed GRES, one feature a node.
TYPED = """\
gpu*|up|1-00:00:00|1|idle|gpu:a100:4|ampere
gpu*|up|1-00:00:00|2|idle|gpu:rtx2080ti:2|turing
spare|up|1-00:00:00|1|idle|gpu:a100:4|ampere
spare|up|1-00:00:00|2|idle|gpu:rtx2080ti:2|turing
"""
# AutoDetect=nvml with socket suffixes, shards, MIG slices, and a partition of CPUs as the default.
DETECTED = """\
cpu*|up|infinite|40|mixed|(null)|avx2
a100|up|2-00:00:00|2|mixed|gpu:nvidia_a100-sxm4-80gb:8(S:0-1),shard:32(S:0-1)|avx512
mig|up|08:00:00|1|idle|gpu:nvidia_h200:4(S:0),gpu:nvidia_h200_1g.18gb:28(S:1)|(null)
mig|up|08:00:00|1|idle|gpu:1g.18gb:7(S:0,2)|(null)
short|up|30:00|2|allocated|gpu:nvidia_a100-sxm4-80gb:8(S:0-1),shard:32(S:0-1)|avx512
"""
# Untyped GRES, where a feature may name the model; old cards; a partition and nodes that are down.
UNTYPED = """\
all*|up|7-00:00:00|4|idle|gpu:4|intel,GPU_SKU:RTX_2080Ti
all*|up|7-00:00:00|1|idle*|gpu:4|intel,GPU_SKU:RTX_2080Ti
all*|up|7-00:00:00|2|idle|gpu:2|intel,rack7
all*|up|7-00:00:00|3|drained|gpu:titan_x:2|(null)
all*|up|7-00:00:00|3|idle|gpu:titanx:2|pascal
broken|down|infinite|1|idle|gpu:l40s:4|(null)
gone|up|n/a|0|n/a|(null)|(null)
all*|up|7-00:00:00|1|idle|gpu:voodoo3:2(S:0)|(null)
"""


def cluster(nodes: str, partitions: str = "", user: sinfo.User = NOBODY) -> sinfo.Cluster:
    return sinfo.parse("slurm 20.11.9", nodes, partitions, user)


def loaded(text: str) -> site.Site:
    with tempfile.TemporaryDirectory() as folder:  # of a new name each time: site.load remembers
        return site.load(discover.write(text, Path(folder, "partitions.yaml"), force=False))


def comments(text: str) -> str:
    return "\n".join(line for line in text.partition("\ngpus:")[2].splitlines() if line.strip().startswith("#"))


def test_typed_gpus_become_entries_in_the_default_partition():
    text = discover.compose(cluster(TYPED), "2026-11-24")
    found = loaded(text)
    assert found.resources("a100") == {"gpu": 1, "gpu_model": "a100", "slurm_partition": "gpu"}
    assert found.gpu("rtx2080ti").architecture == "sm_75" and found.minutes("rtx2080ti", 5000) == 1440
    assert list(found.gpus) == ["a100", "rtx2080ti"], "the most capable first"
    assert "2 nodes in gpu with 2 each; also in spare" in text and "may also be a100-40gb" in text
    assert "any_gpu" not in text.partition("\ngpus:")[2], "the default partition is right"


def test_autodetected_gpus_and_slices_become_entries_in_the_partition_with_the_longest_limit():
    text = discover.compose(cluster(DETECTED), "2026-11-24")
    found = loaded(text)
    assert found.resources("a100") == {"gpu": 1, "gpu_model": "nvidia_a100-sxm4-80gb", "slurm_partition": "a100"}
    assert found.resources("h200-mig-1g.18gb")["gpu_model"] == "nvidia_h200_1g.18gb"
    assert found.resources("gpu") == {"gpu": 1, "slurm_partition": "a100"}, "the default partition has no GPUs"
    assert (found.partitions["mig"].max_minutes, found.partitions["short"].max_minutes, found.partitions["cpu"].max_minutes) == (
        480,
        30,
        None,
    )
    assert "GRES type 1g.18gb does not say of which GPU it is a slice" in text and "also in short" in text


def test_the_default_partition_is_taken_though_another_has_a_longer_limit():
    limits = {"long": "infinite", "short*": "30:00", "longer": "9-00:00:00"}
    nodes = "".join(f"{name}|up|{limit}|1|idle|gpu:a100:4|(null)\n" for name, limit in limits.items())
    found, without = cluster(nodes), cluster(nodes.replace("*", ""))
    assert discover.best(found, list(found.partitions)) == ("short", ["long", "longer"])
    assert discover.best(without, list(found.partitions)) == ("long", ["longer", "short"])


def test_untyped_gpus_are_asked_for_by_the_feature_that_names_them():
    found = loaded(discover.compose(cluster(UNTYPED), "2026-11-24"))
    assert found.resources("rtx2080ti") == {"gpu": 1, "slurm_partition": "all", "constraint": "GPU_SKU:RTX_2080Ti"}


def test_what_slurm_does_not_tell_is_left_to_the_user():
    text = discover.compose(cluster(UNTYPED), "2026-11-24")
    assert set(loaded(text).gpus) == {"rtx2080ti", "titanx"}, "a feature, pascal, tells one titanx from the other"
    said = comments(text)
    assert "no GRES type, and no feature of its nodes (intel, rack7) names a model" in said
    assert "GRES type voodoo3: it is none that cluster/models.py knows" in said
    assert "GRES type titan_x may be each of these" in said and "# titanx-maxwell: {gres: titan_x, partition: all}" in said
    assert "GRES type l40s: its partitions take no job of yours: broken (down)" in said
    assert "5 nodes in all with 4 each, 1 of them down" in said and "3 nodes in all with 2 each, 3 of them down" in said


def test_two_types_never_become_the_same_model():
    nodes = "gpu*|up|infinite|1|idle|gpu:a100:4|(null)\ngpu*|up|infinite|1|idle|gpu:a100_80gb:4|(null)\n"
    found = loaded(discover.compose(cluster(nodes), "2026-11-24"))
    assert {gpu.model: gpu.gres for gpu in found.gpus.values()} == {"a100": "a100_80gb", "a100-40gb": "a100"}


def test_one_type_of_two_models_is_told_apart_by_the_features():
    nodes = "gpu*|up|infinite|1|idle|gpu:titanx:4|old,maxwell\ngpu*|up|infinite|1|idle|gpu:titanx:4|pascal\n"
    found = loaded(discover.compose(cluster(nodes), "2026-11-24"))
    assert {gpu.model: gpu.constraint for gpu in found.gpus.values()} == {"titanx-maxwell": "maxwell", "titanx": "pascal"}


RIGHTS = """\
PartitionName=gpu AllowGroups=ALL AllowAccounts=physics,chemistry AllowQos=ALL Default=YES MaxTime=1-00:00:00 RootOnly=NO State=UP
PartitionName=spare AllowGroups=ALL AllowAccounts=ALL DenyAccounts=lab Default=NO MaxTime=1-00:00:00 RootOnly=NO State=UP
"""


@pytest.mark.parametrize(
    ("rights", "user", "partition", "account", "barred"),
    [
        (RIGHTS, sinfo.User(("users",), ("mine",)), "spare", None, {"gpu": "AllowAccounts=physics,chemistry", "spare": ""}),
        (RIGHTS, sinfo.User(("users",), ("lab", "chemistry")), "gpu", "chemistry", {"gpu": "", "spare": ""}),
        (RIGHTS, sinfo.User(("users",), ()), "gpu", None, {"gpu": "", "spare": ""}),
        (RIGHTS, sinfo.User(("users",), ("lab",)), None, None, {"gpu": "AllowAccounts=physics,chemistry", "spare": "DenyAccounts=lab"}),
        (
            "PartitionName=gpu AllowGroups=staff,wheel",
            sinfo.User(("users",), ()),
            "spare",
            None,
            {"gpu": "AllowGroups=staff,wheel", "spare": ""},
        ),
        ("PartitionName=gpu RootOnly=YES", sinfo.User(("users",), ()), "spare", None, {"gpu": "RootOnly=YES", "spare": ""}),
    ],
    ids=["no account of gpu", "a second account", "accounts unknown", "no account of either", "no group of gpu", "root only"],
)
def test_partitions_that_the_user_may_not_use_are_said_so_and_not_chosen(rights, user, partition, account, barred):
    found = cluster(TYPED, rights, user)
    assert {name: each.barred for name, each in found.partitions.items()} == barred
    text = discover.compose(found, "2026-11-24")
    facts = loaded(text)
    assert (facts.gpus["a100"].partition if facts.gpus else None) == partition
    assert (facts.resources("a100").get("slurm_account") if facts.gpus else None) == account
    assert all(reason in text for reason in barred.values())


WORDS = [
    "a100",
    "h200",
    "nvidia_h200_1g.18gb",
    "1g.18gb",
    "titanx",
    "titan_x",
    "rtx_2080_ti",
    "2080ti",
    "voodoo3",
    "80",
    "yes",
    "1e3",
    "x-1",
]
GRES = ["gpu:4", "gpu", "shard:8", *(f"gpu:{word}:2(S:0-1)" for word in WORDS)]
FEATURES = ["a100", "maxwell", "pascal", "GPU_SKU:H200", "rack #7", "true"]


def comma_lists(words: list[str]) -> st.SearchStrategy[str]:
    return st.lists(st.sampled_from(words), max_size=3).map(lambda them: ",".join(them) or "(null)")


NODES = st.tuples(
    st.sampled_from(["gpu*", "long", "7", "no"]),
    st.sampled_from(["up", "up", "down", "inact"]),
    st.sampled_from(["infinite", "1-00:00:00", "30:00"]),
    st.integers(0, 5).map(str),
    st.sampled_from(["idle", "mixed", "down*", "drained", "idle~"]),
    comma_lists(GRES),
    comma_lists(FEATURES),
)


@settings(deadline=None)
@given(st.lists(NODES.map("|".join), max_size=8))
def test_whatever_slurm_says_the_file_loads_and_asks_only_for_what_there_is(lines):
    found = cluster("\n".join(lines))
    text = discover.compose(found, "2026-11-24")
    facts = loaded(text)
    for gpu in facts.gpus.values():
        assert gpu.gres in found.types(gpu.partition) and found.partitions[gpu.partition].up
        assert gpu.constraint is None or gpu.constraint in found.features(gpu.partition)
        assert gpu.gres or gpu.constraint, "an untyped GPU of a known model needs a constraint"
    for gres in {gpu.type for nodes in found.nodes for gpu in nodes.gpus if gpu.type}:
        assert gres in text
    assert facts.partitions.keys() == found.partitions.keys()


@pytest.mark.parametrize(("feature", "known"), [("ampere", []), ("h100", ["h100-mig-1g.10gb"]), ("(null)", [])])
def test_a_bare_slice_needs_a_feature_that_names_its_gpu(feature, known):
    text = discover.compose(cluster(f"gpu*|up|infinite|1|idle|gpu:1g.10gb:7|{feature}\n"), "2026-11-24")
    assert list(loaded(text).gpus) == known
    assert known or "does not say of which GPU it is a slice" in text


def test_a_site_without_gpus_has_a_file_that_says_so():
    text = discover.compose(cluster("cpu*|up|infinite|4|idle|(null)|(null)\n"), "2026-11-24")
    assert loaded(text).gpus == {} and "no GPU on the nodes of any partition" in text


def test_an_existing_file_stays_unless_forced(tmp_path):
    out = tmp_path / "partitions.yaml"
    text = discover.compose(cluster(TYPED), "2026-11-24")
    out.write_text("mine")
    assert discover.write(text, out, force=False) == tmp_path / "partitions.discovered.yaml"
    assert out.read_text() == "mine" and (tmp_path / "partitions.discovered.yaml").read_text() == text
    assert discover.write(text, out, force=True) == out and out.read_text() == text
    assert len(list(tmp_path.iterdir())) == 2


def test_a_text_that_would_not_load_replaces_nothing(tmp_path):
    out = tmp_path / "partitions.yaml"
    out.write_text("mine")
    with pytest.raises(BadInput, match="gpus"):
        discover.write("gpus: 3", out, force=True)
    assert out.read_text() == "mine" and list(tmp_path.iterdir()) == [out]


def test_the_file_that_ships_explains_the_same_keys():
    assert discover.HEADER in site.FILE.read_text()


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cluster.discover", *arguments]
    return subprocess.run(command, cwd=ROOT, env=os.environ | variables, capture_output=True, text=True, check=False, timeout=120)


def test_without_slurm_it_says_so_in_one_line(tmp_path):
    done = run("--out", str(tmp_path / "p.yaml"), PATH=str(tmp_path))
    assert done.returncode == 2 and done.stderr.startswith("error: no Slurm here: ") and done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_real_slurm_is_written_down_and_asked_by_it(slurm, tmp_path):
    out = tmp_path / "partitions.yaml"
    done = run("--out", str(out), **slurm)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"wrote {out}: GPU models a100, rtx2080ti; partitions gpu, spare\n"
    facts = site.load(out)
    assert facts.resources("rtx2080ti") == {"gpu": 1, "gpu_model": "rtx2080ti", "slurm_partition": "gpu"}
    assert facts.minutes("a100", 10_000) == 1440
    again = run("--out", str(out), **slurm)
    assert again.returncode == 0 and f"{out} exists and was left as it is" in again.stdout
    assert yaml.safe_load(run("--dry-run", **slurm).stdout) == yaml.safe_load(out.read_text())
