"""The catalogue of GPU models: what sites call them, and what those words do not mean."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster import models


@pytest.mark.parametrize(
    ("word", "model"),
    [
        ("a100_80gb", "a100"),
        ("nvidia_a100-sxm4-80gb", "a100"),
        ("NVIDIA-A100-SXM4-80GB", "a100"),
        ("nvidia_a100_80gb_pcie", "a100-pcie"),
        ("tesla_v100-sxm2-32gb", "v100"),
        ("v100-16g", "v100-16gb"),
        ("geforce_rtx_2080_ti", "rtx2080ti"),
        ("rtx2080ti", "rtx2080ti"),
        ("2080ti", "rtx2080ti"),
        ("GPU_SKU:RTX_2080Ti", "rtx2080ti"),
        ("rtx_a6000", "a6000"),
        ("a6000", "a6000"),
        ("gtx1060", "gtx1060"),
        ("nvidia_geforce_gtx_1060_6gb", "gtx1060"),
        ("nvidia_geforce_gtx_titan_x", "titanx-maxwell"),
        ("nvidia_titan_x_(pascal)", "titanx"),
        ("h200", "h200"),
        ("nvidia_h200", "h200"),
        ("h100", "h100"),
        ("h100_80gb_hbm3", "h100"),
        ("l40s", "l40s"),
        ("h200_1g.18gb", "h200-mig-1g.18gb"),
        ("nvidia_h200_1g.18gb", "h200-mig-1g.18gb"),
        ("a100_1g.5gb", "a100-40gb-mig-1g.5gb"),
        ("a100.mig.3g.40gb", "a100-mig-3g.40gb"),
        ("nvidia_a100_80gb_pcie_1g.10gb", "a100-pcie-mig-1g.10gb"),
    ],
)
def test_the_names_that_sites_give_are_known(word, model):
    assert models.matching(word)[0].model == model


@pytest.mark.parametrize("word", ["voodoo3", "gpu", "rtx", "", "k80", "rack7", "1g", "1g.17gb", "mig", "h300_1g.18gb"])
def test_other_words_name_no_model(word):
    assert models.matching(word) == []


@pytest.mark.parametrize("word", ["titanx", "titan_x"])
def test_a_name_of_two_models_is_both(word):
    assert {model.model for model in models.matching(word)} == {"titanx-maxwell", "titanx"}


def test_every_model_of_the_catalogue_is_found_by_its_own_names():
    for entry in models.CATALOGUE.values():
        assert entry in models.matching(entry.model) and models.matching(entry.name) == [entry] and models.named(entry.name) == entry
        assert any(entry.architecture in family for family in models.FAMILIES.values())


@given(st.sampled_from(list(models.CATALOGUE.values())), st.sampled_from(["nvidia_", "NVIDIA-", ""]), st.sampled_from("_-"))
def test_what_autodetect_makes_of_an_nvml_name_is_that_model(entry, maker, joint):
    name = entry.name.removeprefix("NVIDIA ").lower()
    assert models.matching(maker + joint.join(name.split())) == [entry]
