"""Every classifier of the package on data that a long tail brings, found by itself: a new one is covered.

A classifier either fits and gives finite logits, or says in one line what is wrong.
"""

import inspect
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from pydantic import ValidationError

from longtail.settings.methods import method_module, method_names, settings_of
from longtail.stage_two.classifier import FeatureData, Fitted

from .test_afg import mixture, silent

torch.set_num_threads(1)
METHODS = method_names("stage_two")
SHORT = {"epochs": 2, "generation_epochs": 2, "iterations": 5}
LOSS = {"name": "logit_adjusted", "gamma": {"form": "constant", "a": 1.0}}  # of a method that needs one


def quick(method: str, **keys):
    """A method's settings, as short as they go; keys that it does not have are left out."""
    kind = settings_of("stage_two", method)
    known = {key: value for key, value in {**SHORT, "loss": LOSS, **keys}.items() if key in kind.model_fields}
    return kind.model_validate(known)


def fit(method: str, data: FeatureData, **keys) -> Fitted:
    return method_module("stage_two", method).fit(data, quick(method, **keys), 0, silent)


def outcome(method: str, data: FeatureData) -> tuple[Fitted | None, str | None]:
    """What is fitted, or what the error says."""
    try:
        return fit(method, data), None
    except ValueError as error:
        return None, str(error)


def with_whole(data: FeatureData) -> FeatureData:
    return replace(data, whole=data.validation, whole_labels=data.validation_labels)


def finite(fitted: Fitted, data: FeatureData) -> bool:
    return bool(fitted.logits(torch.cat([data.clean, data.validation])).isfinite().all())


@pytest.fixture(scope="module")
def usual():
    return with_whole(mixture()[0])


def test_the_package_has_classifiers_and_each_has_the_one_interface():
    assert {"joint", "crt", "afg", "ncm", "lws"} <= set(METHODS)
    for method in METHODS:
        names = list(inspect.signature(method_module("stage_two", method).fit).parameters)
        assert names == ["data", "settings", "seed", "progress"], method


@pytest.mark.parametrize("method", METHODS)
def test_equal_seeds_give_equal_classifiers_that_predict_from_what_is_stored(method, usual):
    one, two = fit(method, usual), fit(method, usual)
    assert one.history == two.history
    state = one.state()
    torch.testing.assert_close(state, two.state(), rtol=0, atol=0, equal_nan=True)
    inputs = usual.validation ** float(state["tukey"])
    if "center" in state:
        inputs = inputs - state["center"]
    if "normalise" in state:
        inputs = inputs / inputs.norm(dim=1, keepdim=True)
    expected = inputs @ state["weight"].T + state["bias"]
    torch.testing.assert_close(one.logits(usual.validation), expected)
    assert all(set(row) == set(one.history[0]) for row in one.history)


@pytest.mark.parametrize("method", METHODS)
def test_inputs_stay_as_they_are(method, usual):
    before = deepcopy(vars(usual))
    fit(method, usual)
    torch.testing.assert_close(vars(usual), before, rtol=0, atol=0)


@pytest.mark.parametrize("method", METHODS)
def test_a_class_of_one_image(method):
    data = with_whole(mixture(counts=(40, 12, 5, 1, 1, 1))[0])
    assert finite(fit(method, data), data)


@pytest.mark.parametrize("method", METHODS)
def test_more_neighbours_than_there_are_classes(method, usual):
    assert finite(fit(method, usual, k=50), usual)


@pytest.mark.parametrize("method", METHODS)
def test_a_class_without_a_training_image(method, usual):
    """Its images are taken out, as if the split had given it none."""
    kept = usual.labels != 2
    counts = usual.class_counts.clone()
    counts[2] = 0
    data = replace(
        usual,
        views=usual.views[:, kept],
        view_logits=usual.view_logits[:, kept],
        labels=usual.labels[kept],
        class_counts=counts,
        clean=usual.clean[kept],
    )
    fitted, error = outcome(method, data)
    if error is None:
        assert finite(fitted, data)
    else:
        assert error == "classes [2] have no training image: remove them or merge them"


@pytest.mark.parametrize("power", [0, 0.5, 1])
@pytest.mark.parametrize("method", METHODS)
def test_features_of_zeros_under_every_power(method, power, usual):
    """An image whose features are all 0, and one feature that is 0 in every image."""
    views, clean, validation = usual.views.clone(), usual.clean.clone(), usual.validation.clone()
    for features in (views, clean, validation):
        features[..., 3] = 0
        features[..., 0, :] = 0
        features[..., -1, :] = 0
    data = replace(usual, views=views, clean=clean, validation=validation, whole=validation)
    keys = {"tukey": {"lambda": power}}
    if power != 1 and method == "afg":  # stage one saw untransformed features
        keys |= {"init": "random", "kd": {"on": "real"}}
    try:
        settings = quick(method, **keys)
    except ValidationError as error:
        [line] = error.errors()
        assert line["loc"] == ("tukey", "lambda")
        assert power == 0
        return
    fitted = method_module("stage_two", method).fit(data, settings, 0, silent)
    assert finite(fitted, data)


@pytest.mark.parametrize("method", METHODS)
def test_without_a_validation_image(method, usual):
    data = replace(usual, validation=usual.validation[:0], validation_labels=usual.validation_labels[:0])
    fitted, error = outcome(method, data)
    if error is None:
        assert finite(fitted, data)
    else:
        assert error == f"no validation image to choose {quick(method).selects} by: fix tau, e.g. tau: 1.0"


@pytest.mark.parametrize("method", METHODS)
def test_equal_class_counts(method):
    data = with_whole(mixture(counts=(8, 8, 8, 8))[0])
    assert finite(fit(method, data), data)


STILL = {"peak": 1e-12}


@pytest.mark.parametrize(
    ("method", "keys"),
    [
        ("crt", {"init": "stage_one", "learning_rate": STILL}),
        ("lws", {"learning_rate": STILL}),
        ("los", {"learning_rate": STILL}),
        ("mislas", {"learning_rate": STILL}),
        ("whole", {"init": "stage_one", "learning_rate": STILL}),
        ("tau_normalisation", {"tau": 0}),
        ("posthoc", {"tau": 0}),
    ],
)
def test_what_starts_from_a_cosine_head_sees_features_as_it_does(method, keys, usual):
    views = torch.nn.functional.normalize(usual.views, dim=2)
    data = replace(
        usual,
        head_normalises=True,
        head_bias=torch.zeros(6),
        view_logits=views @ usual.head_weight.T,
    )
    expected = fit("joint", data).logits(data.validation)
    torch.testing.assert_close(fit(method, data, **keys).logits(data.validation), expected)
