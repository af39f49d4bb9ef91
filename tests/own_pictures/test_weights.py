"""Which weights `longtail init` takes: those asked for, else the best that are here and fit into the time."""

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longtail.errors import UserError
from longtail.own_pictures import time_estimate, weights
from longtail.own_pictures.choices import METHODS, choose_heads, passes
from longtail.own_pictures.time_estimate import Machine
from longtail.own_pictures.weights import CACHED, Weights, choose_weights

CPU = Machine("CPU", gpu=False, cores=2, gmacs=40.0, decoding=0.003)
GPU = Machine("a GPU", gpu=True, cores=16, gmacs=60_000.0, decoding=0.004)
LITE0 = {"name": "timm_model", "architecture": "tf_efficientnet_lite0", "pretrained": "efficientnet_lite0"}


@pytest.fixture(autouse=True)
def nothing_cached(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(weights, "_is_cached", lambda name: False)


def seconds_of(network: dict[str, Any], size: int) -> float:
    """A transformer takes a second, all others ten milliseconds."""
    return 1.0 if str(network["architecture"]).startswith("vit") else 0.01


def chosen(asked: str | None = None, seconds: float = 180, passes: float = 3_000) -> Weights | None:
    return choose_weights(asked, seconds_of, seconds, passes)


def test_the_weights_of_the_environment_are_taken_where_nothing_is_cached():
    found = chosen()
    assert found is not None
    assert found.network == LITE0
    assert (found.licence, found.size) == ("Apache-2.0", 224)
    assert "no network is needed" in found.why


def test_the_best_of_the_cache_that_fits_is_taken_and_what_does_not_fit_is_named(monkeypatch):
    here = {"vit_small_patch14_dinov2.lvd142m", "resnet50.a1_in1k", "tf_efficientnet_lite0.in1k"}
    monkeypatch.setattr(weights, "_is_cached", lambda name: name in here)
    quick = chosen()
    slow = chosen(seconds=3_600)
    assert quick is not None
    assert quick.network == {"name": "timm_model", "architecture": "resnet50.a1_in1k", "pretrained": True}
    assert slow is not None
    assert slow.network["architecture"] == "vit_small_patch14_dinov2.lvd142m"
    assert (slow.licence, slow.is_transformer) == ("apache-2.0", True)
    monkeypatch.setattr(weights, "_is_cached", lambda name: name.startswith("vit_small"))
    found = chosen()
    assert found is not None
    assert found.network == LITE0
    assert "vit_small_patch14_dinov2.lvd142m in the cache would take longer" in found.why


def test_without_any_a_network_is_asked_and_without_one_there_are_none(monkeypatch):
    monkeypatch.setattr(weights, "_is_embedded", lambda: False)
    monkeypatch.setattr(weights, "_hub_answers", lambda: True)
    found = chosen()
    assert found is not None
    assert found.network["architecture"] == "tf_efficientnet_lite0.in1k"
    assert "to be downloaded once" in found.why
    monkeypatch.setattr(weights, "_hub_answers", lambda: False)
    assert chosen() is None


def test_a_hub_that_does_not_answer_is_no_error(monkeypatch):
    def cut(*_args: Any) -> None:
        raise OSError("Network is unreachable")

    monkeypatch.setattr(weights.socket, "create_connection", cut)
    assert not weights._hub_answers()


@pytest.mark.parametrize(
    ("asked", "network"),
    [
        ("efficientnet_lite0", LITE0),
        ("torchvision", {"name": "resnet", "architecture": "resnet50", "pretrained": "torchvision"}),
        ("resnet50.a1_in1k", {"name": "timm_model", "architecture": "resnet50.a1_in1k", "pretrained": True}),
        ("resnet18=w.pth", {"name": "resnet", "architecture": "resnet18", "pretrained": "w.pth"}),
        (
            "convnext_tiny=w.pth",
            {"name": "timm_model", "architecture": "convnext_tiny", "pretrained": "w.pth"},
        ),
    ],
)
def test_what_is_asked_for_is_taken_whatever_it_costs(asked, network):
    Path("w.pth").touch()
    found = chosen(asked, seconds=0)
    assert found is not None
    assert found.network == network
    assert found.why == "as asked for"


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (
            "w.pth",
            "--weights 'w.pth': should be efficientnet_lite0, torchvision, a name of timm's with the tag",
        ),
        ("resnet50", "--weights 'resnet50': should be"),
        ("resnet50=gone.pth", "--weights 'resnet50=gone.pth': should be"),
        ("", "--weights"),
        ("a/b.c", "--weights 'a/b.c': should be"),
        ("resnet19=w.pth", "--weights: Input should be 'resnet10', 'resnet18'"),
    ],
)
def test_what_cannot_be_had_is_one_line(asked, said):
    Path("w.pth").touch()
    with pytest.raises(UserError, match=f"^{re.escape(said)}") as caught:
        chosen(asked)
    assert "\n" not in str(caught.value)


def test_every_name_of_the_list_is_one_of_timms():
    timm = pytest.importorskip("timm")
    assert set(CACHED) <= set(timm.list_pretrained())


def test_a_forward_pass_is_measured():
    pytest.importorskip("timm")
    small = time_estimate.forward_seconds({"name": "resnet", "architecture": "resnet10"}, 32)
    large = time_estimate.forward_seconds(LITE0, 224)
    assert 0 < small < large < 10


@given(st.integers(20, 10**6), st.floats(0.5, 600), st.sampled_from([CPU, GPU]), st.floats(1e-4, 2))
def test_heads_fit_into_the_time_or_are_the_least(pictures, minutes, machine, seconds):
    found = choose_heads(
        machine, Weights(LITE0, "", "", "", 224, seconds), pictures, pictures // 5, METHODS, minutes
    )
    assert found.views in (0, 1, 2)
    if not machine.gpu:
        assert found.seconds <= 60 * minutes or (found.views, found.tuned) == (0, False)
        assert not (found.tuned and found.views == 0 and found.seconds > 60 * minutes)


def test_passes_count_views_cores_and_the_parts_that_are_not_trained_on():
    assert passes(100, 20, 1, GPU) == 220
    assert passes(100, 20, 1, CPU) == pytest.approx(220 / 2 * CPU.crowded)
