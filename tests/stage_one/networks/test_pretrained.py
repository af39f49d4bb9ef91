"""Weights to begin with: every published form of file, and one line for whatever does not fit."""

import pickle
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision import models

from longtail.errors import UserError
from longtail.settings.weight_file import WeightFile
from longtail.stage_one.networks import pretrained, resnet
from longtail.stage_one.networks.resnet import ResNet, Settings, build

State = dict[str, Tensor]


@pytest.fixture
def theirs() -> nn.Module:
    """torchvision's ResNet-18 with 11 classes; its batch statistics have counted a batch."""
    torch.manual_seed(7)
    model = models.resnet18(num_classes=11)
    model(torch.randn(2, 3, 32, 32))
    return model


def network(file: Path | str, classes: int = 4, channels: int = 3, **given: Any) -> ResNet:
    torch.manual_seed(0)
    settings = Settings.model_validate({"architecture": "resnet18", "pretrained": str(file), **given})
    return build(settings, channels, classes)


def trunk(state: State) -> State:
    left_out = ("fc.", "head.")
    return {k: v for k, v in state.items() if not k.startswith(left_out) and "num_batches" not in k}


def same(one: State, other: State) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def moco(state: State) -> dict[str, Any]:
    """As SSP's self-supervised checkpoints: two encoders and a queue, of several devices."""
    query = {f"module.encoder_q.{name}": tensor for name, tensor in state.items() if "fc." not in name}
    key = {f"module.encoder_k.{name}": tensor + 1 for name, tensor in state.items() if "fc." not in name}
    head = {"module.encoder_q.fc.0.weight": torch.zeros(2, 2), "module.encoder_q.fc.2.bias": torch.zeros(2)}
    rest = {"module.queue": torch.zeros(128, 8), "module.queue_ptr": torch.zeros(1, dtype=torch.int64)}
    return {"epoch": 200, "arch": "resnet18", "state_dict": {**query, **key, **head, **rest}, "optimizer": {}}


FORMS = {
    "official": lambda state: state,
    "SSP": lambda state: {
        "epoch": 90,
        "arch": "resnet18",
        "state_dict": {f"module.{name}": tensor for name, tensor in state.items()},
    },
    "MoCo": moco,
    "Decoupling": lambda state: {
        "state_dict_best": {
            "feat_model": {f"module.{k}": v for k, v in state.items() if not k.startswith("fc.")},
            "classifier": {"module.fc.weight": torch.zeros(3, 3)},
        },
        "best_acc": 0.5,
    },
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("classes", [4, 11])
def test_the_trunk_is_the_files_and_the_head_is_always_new(theirs, tmp_path, form, classes):
    file = tmp_path / "weights.pth.tar"
    torch.save(FORMS[form](theirs.state_dict()), file)
    ours, fresh = network(file, classes), network(file, classes)
    said = ours.load_pretrained()
    assert said is not None
    assert str(file) in said
    assert same(trunk(ours.state_dict()), trunk(theirs.state_dict()))
    assert torch.equal(ours.head.weight, fresh.head.weight)
    assert not same(trunk(fresh.state_dict()), trunk(theirs.state_dict()))


def test_safetensors_and_our_own_models_are_read_too(theirs, tmp_path):
    file = tmp_path / "weights.safetensors"
    save_file(trunk(theirs.state_dict()), file)
    first = network(file)
    first.load_pretrained()
    own = tmp_path / "model.safetensors"
    save_file(first.state_dict(), own)
    second = network(own, classes=9)
    second.load_pretrained()
    assert same(trunk(second.state_dict()), trunk(theirs.state_dict()))


def test_null_is_a_fresh_network():
    model = build(Settings(architecture="resnet10"), 3, 4)
    assert model.load_pretrained() is None


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda s: {k: v for k, v in s.items() if k != "layer2.0.conv1.weight"}, "it lacks layer2.0.conv1"),
        (lambda s: {**s, "layer5.0.weight": torch.zeros(1)}, "the network has no layer5.0.weight"),
        (
            lambda s: {**s, "conv1.weight": torch.zeros(64, 3, 3, 3)},
            "it has conv1.weight 64 x 3 x 3 x 3 instead of 64 x 3 x 7 x 7",
        ),
        (lambda s: {}, "has no weights, nor a state_dict of them"),
        (lambda s: {"state_dict": {"epoch": 3}}, "has no weights, nor a state_dict of them"),
        (lambda s: {1: torch.zeros(1)}, "has no weights, nor a state_dict of them"),
        (lambda s: torch.zeros(3), "has no weights, nor a state_dict of them"),
    ],
)
def test_what_does_not_fit_is_one_line(theirs, tmp_path, change, line):
    file = tmp_path / "weights.pth"
    torch.save(change(theirs.state_dict()), file)
    with pytest.raises(UserError) as error:
        network(file).load_pretrained()
    assert line in str(error.value)
    assert str(file) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_deeper_network_names_some_of_what_is_missing_and_how_much_more(theirs, tmp_path):
    file = tmp_path / "weights.pth"
    torch.save(theirs.state_dict(), file)
    with pytest.raises(UserError, match=r"it lacks layer1\.2\.\S+, \S+, \S+ and \d+ more"):
        network(file, architecture="resnet34").load_pretrained()


def test_grey_images_cannot_begin_with_weights_of_coloured_ones(theirs, tmp_path):
    file = tmp_path / "weights.pth"
    torch.save(theirs.state_dict(), file)
    with pytest.raises(UserError, match=r"conv1\.weight 64 x 3 x 7 x 7 instead of 64 x 1 x 7 x 7"):
        network(file, channels=1).load_pretrained()


class Surprise:
    """What an unpickler would run."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("ran"),))


@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
@pytest.mark.parametrize("content", [b"", b"no weights", pickle.dumps(Surprise(), 2), b"PK\x03\x04 broken"])
def test_a_file_of_something_else_is_one_line_and_nothing_of_it_runs(tmp_path, monkeypatch, name, content):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / name
    file.write_bytes(content)
    with pytest.raises(UserError, match="cannot be read as weights") as error:
        network(file).load_pretrained()
    assert "\n" not in str(error.value)
    assert not (tmp_path / "ran").exists()


def test_a_missing_file_is_one_line(tmp_path):
    with pytest.raises(UserError, match=r"none\.pth: cannot be read \(No such file or directory\)"):
        network(tmp_path / "none.pth").load_pretrained()


def test_a_file_that_is_not_the_planned_one_is_refused_before_it_is_parsed(theirs, tmp_path):
    file = tmp_path / "weights.pth"
    torch.save(theirs.state_dict(), file)
    digest = sha256(file.read_bytes()).hexdigest()
    assert pretrained.read(WeightFile(file=str(file), sha256=digest))
    file.write_bytes(b"another")
    with pytest.raises(UserError, match=r"is not the file that was planned .* plan anew"):
        pretrained.read(WeightFile(file=str(file), sha256=digest))


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """torch's own cache, in a place of the test's."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    folder = tmp_path / "hub/checkpoints"
    folder.mkdir(parents=True)
    return folder


def offline(*_: object, **__: object) -> None:
    raise URLError("[Errno -2] Name or service not known")


def test_torchvisions_weights_come_from_its_cache_without_a_network(theirs, cache, monkeypatch):
    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    torch.save(theirs.state_dict(), cache / "other.pth")
    digits = sha256((cache / "other.pth").read_bytes()).hexdigest()[:8]
    monkeypatch.setitem(resnet.DEFAULT_WEIGHTS, "resnet18", f"resnet18-{digits}.pth")
    (cache / "other.pth").rename(cache / f"resnet18-{digits}.pth")
    ours = network("torchvision")
    assert ours.load_pretrained() == f"torchvision's resnet18-{digits}.pth"
    assert same(trunk(ours.state_dict()), trunk(theirs.state_dict()))


def test_torchvisions_weights_are_downloaded_where_they_are_not_there(theirs, cache, monkeypatch, tmp_path):
    torch.save(theirs.state_dict(), tmp_path / "remote")
    digits = sha256((tmp_path / "remote").read_bytes()).hexdigest()[:8]
    monkeypatch.setitem(resnet.DEFAULT_WEIGHTS, "resnet18", f"resnet18-{digits}.pth")
    asked = []

    def download(url: str, to: str, progress: bool) -> None:
        asked.append(url)
        Path(to).write_bytes((tmp_path / "remote").read_bytes())

    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    for _ in range(2):
        network("torchvision").load_pretrained()
    assert asked == [f"https://download.pytorch.org/models/resnet18-{digits}.pth"]


def test_neither_cached_nor_to_be_had_is_one_line_that_names_both_ways_out(cache, monkeypatch):
    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    with pytest.raises(UserError) as error:
        network("torchvision").load_pretrained()
    line = str(error.value)
    assert str(cache / "resnet18-f37072fd.pth") in line
    assert "put https://download.pytorch.org/models/resnet18-f37072fd.pth there, or" in line
    assert "pretrained: PATH" in line
    assert "\n" not in line


def test_a_damaged_cache_is_not_taken_for_torchvisions_weights(cache):
    (cache / "resnet18-f37072fd.pth").write_bytes(b"half of it")
    with pytest.raises(UserError, match="its SHA-256 does not begin with f37072fd; delete it"):
        network("torchvision").load_pretrained()


def test_the_digest_of_tensors_is_of_names_and_values():
    one, other = nn.Linear(2, 3), nn.Linear(2, 3)
    other.load_state_dict(one.state_dict())
    assert pretrained.digest(one) == pretrained.digest(other)
    with torch.no_grad():
        other.bias[0] += 1
    assert pretrained.digest(one) != pretrained.digest(other)


def test_a_digest_is_of_every_tensor_single_numbers_too():
    one, other = nn.Module(), nn.Module()
    for module, value in ((one, 1.0), (other, 2.0)):
        module.register_buffer("gain", torch.tensor(value))  # as NFNets have
    assert pretrained.digest(one) != pretrained.digest(other)
