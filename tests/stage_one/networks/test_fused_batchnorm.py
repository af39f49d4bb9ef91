"""The compiled batch normalisation + ReLU: near the exact result, used only where it is torch's, and said."""

import copy
import os
import shutil
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import forward_ad

from longtail.errors import UserError
from longtail.stage_one.networks import extension, resnet_cifar
from longtail.stage_one.networks.batchnorm import BatchNorm
from longtail.stage_one.networks.fused_batchnorm import FusableBatchNorm, bn_relu, fuse
from tests.stand_in import stand_in

CPU = torch.device("cpu")
NAMES = ("y", "x", "weight", "bias", "running_mean", "running_var", "shortcut")


def layer(channels: int = 16) -> FusableBatchNorm:
    made = FusableBatchNorm(channels)
    generator = torch.Generator().manual_seed(1)
    for tensor, mean in ((made.weight, 1.0), (made.bias, 0.0)):
        nn.init.normal_(tensor, mean, 0.3, generator=generator)
    return made


def fused(channels: int = 16) -> FusableBatchNorm:
    made = layer(channels)
    assert fuse([made], CPU, "bf16") == f"fused {extension.digest()[:8]}"
    return made


def maps(*shape: int, mean: float = 0.0, seed: int = 0) -> Tensor:
    """Normal numbers of deviation 2 in bfloat16, channels_last."""
    drawn = torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * 2 + mean
    return drawn.bfloat16().contiguous(memory_format=torch.channels_last)


def through(bn: nn.BatchNorm2d, x: Tensor, shortcut: Tensor | None, dy: Tensor) -> dict[str, Tensor]:
    """Output, gradients and statistics of a layer."""
    x = x.clone().requires_grad_()
    shortcut = None if shortcut is None else shortcut.clone().requires_grad_()
    y = bn_relu(bn, x, shortcut)
    y.backward(dy)
    found = [y.detach(), x.grad, bn.weight.grad, bn.bias.grad, bn.running_mean, bn.running_var]
    return dict(zip(NAMES, [*found, None if shortcut is None else shortcut.grad], strict=True))


def exact(bn: nn.BatchNorm2d, x: Tensor, shortcut: Tensor | None, dy: Tensor) -> dict[str, Tensor]:
    """The same by the definition, step by step in float64."""
    x, dy = x.double(), dy.double()
    of = (1, -1, 1, 1)
    rows = x.numel() // x.shape[1]
    mean, variance = x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0)
    centred, std = x - mean.view(of), (variance + bn.eps).sqrt()
    normal = centred / std.view(of)
    before = normal * bn.weight.double().view(of) + bn.bias.double().view(of)
    before = before if shortcut is None else before + shortcut.double()
    g = dy * (before > 0)
    bias, weight = g.sum((0, 2, 3)), (g * normal).sum((0, 2, 3))
    inner = g - bias.view(of) / rows - normal * weight.view(of) / rows
    return {
        "y": before.clamp_min(0),
        "x": inner * (bn.weight.double() / std).view(of),
        "weight": weight,
        "bias": bias,
        "running_mean": 0.9 * bn.running_mean.double() + 0.1 * mean,
        "running_var": 0.9 * bn.running_var.double() + 0.1 * variance * rows / (rows - 1),
        "shortcut": g,
    }


def error(found: Tensor, right: Tensor) -> float:
    return float(((found.double() - right).norm() / right.norm()).detach())


class Normalised(nn.Module):
    """The layer and ReLU as a module, whose parameters can be put in place by a call."""

    def __init__(self, bn: nn.BatchNorm2d) -> None:
        super().__init__()
        self.bn = bn

    def forward(self, x: Tensor) -> Tensor:
        return bn_relu(self.bn, x)


def is_fused(y: Tensor) -> bool:
    return "Fused" in type(y.grad_fn).__name__


@pytest.mark.parametrize("channels", [16, 32, 64])
@pytest.mark.parametrize("with_shortcut", [False, True])
@pytest.mark.parametrize("mean", [0.0, 100.0])
def test_it_is_nearer_to_the_exact_result_than_bfloat16_can_be(use_extension, channels, with_shortcut, mean):
    x = maps(24, channels, 8, 8, mean=mean)
    shortcut = maps(*x.shape, seed=1) if with_shortcut else None
    dy, bn = maps(*x.shape, seed=2), fused(channels)
    right = exact(bn, x, shortcut, dy)
    found = through(bn, x, shortcut, dy)
    for name in ("y", "x"):  # a rounding to eight bits of mantissa is 2^-9 at most
        assert error(found[name], right[name]) < 2.0e-3, name
    for name in ("weight", "bias"):
        assert error(found[name], right[name]) < 2.0e-3, name  # ReLU's edge is that of the rounded output
    for name in ("running_mean", "running_var"):
        assert error(found[name], right[name]) < 1e-6, name
    if with_shortcut:
        assert error(found["shortcut"], right["shortcut"]) < 2.0e-3


def test_its_gradients_at_a_shortcut_are_nearer_than_torchs(use_extension):
    """torch rounds to bfloat16 before it adds the shortcut, and ReLU's edge moves."""
    x, shortcut, dy = maps(24, 16, 8, 8), maps(24, 16, 8, 8, seed=1), maps(24, 16, 8, 8, seed=2)
    right = exact(layer(), x, shortcut, dy)
    ours, torchs = through(fused(), x, shortcut, dy), through(layer(), x, shortcut, dy)
    assert 3 * error(ours["x"], right["x"]) < error(torchs["x"], right["x"])


@pytest.mark.parametrize("batch", [1, 2, 3, 5, 7, 257])
@pytest.mark.parametrize("channels", [1, 4, 16, 64])
def test_batches_of_any_size(use_extension, batch, channels):
    """The last batch of an epoch, and blocks of sums that are not full."""
    x, shortcut, dy = (maps(batch, channels, 8, 8, seed=seed) for seed in range(3))
    bn = fused(channels)
    right, found = exact(bn, x, shortcut, dy), through(bn, x, shortcut, dy)
    for name in NAMES:
        assert error(found[name], right[name]) < 5e-3, name


def test_two_passes_give_the_same_bits(use_extension):
    inputs = maps(24, 16, 8, 8), maps(24, 16, 8, 8, seed=1), maps(24, 16, 8, 8, seed=2)
    first, second = through(fused(), *inputs), through(fused(), *inputs)
    assert all(torch.equal(first[name], second[name]) for name in NAMES)


def test_gradients_can_be_taken_twice_from_one_pass(use_extension):
    """As the observer of gradients takes them, by parts."""
    x, dy = maps(6, 16, 8, 8).requires_grad_(), maps(6, 16, 8, 8, seed=2)
    bn = fused()
    y = bn_relu(bn, x, maps(6, 16, 8, 8, seed=1))
    first, second = (torch.autograd.grad(y, [x, bn.weight], dy, retain_graph=True) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("place", ["x", "first of x", "shortcut"])
def test_what_is_no_number_stays_so_and_in_its_channel(use_extension, value, place):
    x, shortcut, dy = (maps(4, 16, 4, 4, seed=seed) for seed in range(3))
    if place == "shortcut":
        shortcut[2, 3, 1, 1] = value
    else:
        x[(0, 3, 0, 0) if place == "first of x" else (2, 3, 1, 1)] = value
    ours, torchs = through(fused(), x, shortcut, dy), through(layer(), x, shortcut, dy)
    for name in ("y", "x", "weight", "shortcut", "running_var"):
        assert torch.equal(ours[name].isnan(), torchs[name].isnan()), name
    assert torch.equal(ours["y"].isinf(), torchs["y"].isinf())
    lost = torchs["y"].isnan()
    assert torch.equal(ours["shortcut"][lost], torchs["shortcut"][lost])
    others = [channel for channel in range(16) if channel != 3]
    assert ours["y"][:, others].isfinite().all()
    assert ours["x"][:, others].isfinite().all()


def hooked(bn: nn.Module) -> None:
    bn.register_forward_hook(lambda *_: None)


def counting(bn: nn.BatchNorm2d) -> None:
    bn.num_batches_tracked = torch.zeros((), dtype=torch.int64)


CHANGES = {
    "evaluation": lambda bn: bn.eval(),
    "a hook": hooked,
    "a hook before": lambda bn: bn.register_forward_pre_hook(lambda *_: None),
    "momentum by count": lambda bn: setattr(bn, "momentum", None) or counting(bn),
    "a count": counting,
    "weights in bfloat16": lambda bn: bn.bfloat16(),
    "frozen": lambda bn: bn.requires_grad_(False),
}
INPUTS = {
    "float32": lambda x: x.float(),
    "another order in memory": lambda x: x.contiguous(),
    "values that are no whole periods": lambda x: maps(3, 16, 1, 1),
}


@pytest.mark.parametrize("change", CHANGES)
def test_torch_computes_what_the_extension_does_not_know(use_extension, change):
    ours, torchs = fused(), layer()
    for bn in (ours, torchs):
        CHANGES[change](bn)
    x = maps(4, 16, 8, 8)
    y = bn_relu(ours, x)
    assert not is_fused(y)
    assert torch.equal(y, F.relu(torchs(x)))
    assert all(torch.equal(a, b) for a, b in zip(ours.buffers(), torchs.buffers(), strict=True))


@pytest.mark.parametrize("change", INPUTS)
def test_torch_computes_inputs_that_the_extension_does_not_know(use_extension, change):
    x = INPUTS[change](maps(4, 16, 8, 8))
    y = bn_relu(fused(), x)
    assert not is_fused(y)
    assert torch.equal(y, F.relu(layer()(x)))


def test_torch_adds_shortcuts_of_other_types(use_extension):
    x = maps(4, 16, 8, 8)
    y = bn_relu(fused(), x, x.float())
    assert not is_fused(y)
    assert torch.equal(y, F.relu(layer()(x).add_(x.float())))


def test_torch_says_that_one_value_a_channel_is_too_few(use_extension):
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        bn_relu(fused(64), maps(1, 64, 1, 1))


def test_nothing_is_fused_without_gradients(use_extension):
    x = maps(4, 16, 8, 8)
    with torch.no_grad():
        assert torch.equal(bn_relu(fused(), x), F.relu(layer()(x)))


def test_shortcuts_in_another_order_in_memory_are_taken(use_extension):
    x, shortcut, dy = maps(4, 16, 8, 8), maps(4, 16, 8, 8, seed=1), maps(4, 16, 8, 8, seed=2)
    one = through(fused(), x, shortcut, dy)
    other = through(fused(), x, shortcut.contiguous(memory_format=torch.contiguous_format), dy.contiguous())
    assert all(torch.equal(one[name], other[name]) for name in NAMES)


def test_a_second_derivative_is_an_error_that_says_so(use_extension):
    x = maps(4, 16, 8, 8).requires_grad_()
    (slope,) = torch.autograd.grad(bn_relu(fused(), x).float().pow(2).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        slope.float().sum().backward()


def test_function_transforms_and_forward_mode_are_torchs(use_extension):
    x, along = maps(4, 16, 8, 8), maps(4, 16, 8, 8, seed=1)
    weight = torch.linspace(0.5, 1.5, 16)

    def total(bn: nn.BatchNorm2d, weight: Tensor) -> Tensor:
        state = {"bn.weight": weight, "bn.running_mean": torch.zeros(16), "bn.running_var": torch.ones(16)}
        return torch.func.functional_call(Normalised(bn), state, (x,)).float().sum()

    ours, torchs = (torch.func.grad(lambda w, bn=bn: total(bn, w))(weight) for bn in (fused(), layer()))
    assert torch.equal(ours, torchs)
    tangents = []
    for bn in (fused(), layer()):
        with forward_ad.dual_level():
            y = bn_relu(bn, forward_ad.make_dual(x, along))
            tangents.append(forward_ad.unpack_dual(y).tangent)
    assert torch.equal(*tangents)


def test_parameters_that_are_put_in_its_place_get_the_gradient(use_extension):
    """As MetaSAug's step puts moved ones and copies of statistics there."""
    bn, x = fused(), maps(4, 16, 8, 8)
    moved = (bn.weight.detach() * 2).requires_grad_()
    statistics = torch.zeros(16)
    state = {"bn.weight": moved, "bn.running_mean": statistics}
    y = torch.func.functional_call(Normalised(bn), state, (x,))
    assert is_fused(y)
    y.float().sum().backward()
    assert moved.grad.abs().sum() > 0
    assert bn.weight.grad is None
    assert statistics.abs().sum() > 0
    assert bn.running_mean.abs().sum() == 0


def test_a_copied_network_is_fused_too_and_its_state_is_that_of_any(use_extension):
    network = resnet_cifar.build(resnet_cifar.Settings(depth=8), 3, 10)
    names = set(network.state_dict())
    assert fuse([network], CPU, "bf16")
    other = copy.deepcopy(network)
    assert set(network.state_dict()) == set(other.state_dict()) == names
    with torch.autocast("cpu", torch.bfloat16):
        for each in (network, other):
            assert is_fused(each.maps(torch.randn(2, 3, 8, 8), 3))


@pytest.mark.parametrize(
    ("device", "precision"), [(CPU, "float32"), (torch.device("cuda", 0), "bf16"), (CPU, "bf16")]
)
def test_only_bf16_on_one_thread_of_a_processor_is_fused(use_extension, device, precision):
    torch.set_num_threads(2 if (device, precision) == (CPU, "bf16") else 1)
    try:
        network = resnet_cifar.build(resnet_cifar.Settings(depth=8), 3, 10)
        assert fuse([network], device, precision) is None
    finally:
        torch.set_num_threads(1)
    assert all(part.extension is None for part in network.modules() if isinstance(part, FusableBatchNorm))


def test_what_does_not_learn_and_what_does_not_fit_is_not_fused(use_extension):
    network = resnet_cifar.build(resnet_cifar.Settings(depth=8), 3, 10)
    assert fuse([network.head], CPU, "bf16") is None
    assert fuse([network.last_block], CPU, "bf16")
    assert network.bn.extension is None
    assert fuse([resnet_cifar.build(resnet_cifar.Settings(depth=8, width=48), 3, 10)], CPU, "bf16") is None
    assert fuse([BatchNorm(16)], CPU, "bf16") is None


def test_on_a_device_it_is_torchs_operation(use_extension):
    with stand_in() as gpu:
        bn, x = fused().to("cuda"), maps(4, 16, 8, 8).to("cuda")
        bn_relu(bn, x, x).float().sum().backward()
    assert any("batch_norm" in name for name in gpu.operations)


def test_what_was_not_built_or_is_turned_off_is_silently_torchs(monkeypatch, tmp_path, capsys):
    for value in (str(tmp_path), "off"):
        monkeypatch.setenv(extension.VARIABLE, value)
        assert fuse([layer()], CPU, "bf16") is None
    assert capsys.readouterr() == ("", "")


def others_may_write(folder: Path) -> None:
    folder.chmod(0o777)


def group_may_write(folder: Path) -> None:
    (folder / extension.LIBRARY).chmod(0o664)


def cut_short(folder: Path) -> None:
    file = folder / extension.LIBRARY
    file.write_bytes(file.read_bytes()[:-100])


def without_checksum(folder: Path) -> None:
    (folder / extension.CHECKSUM).unlink()


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (others_may_write, "may be written by other users"),
        (group_may_write, "may be written by other users"),
        (cut_short, "is damaged"),
        (without_checksum, "is not complete"),
    ],
)
def test_a_library_that_is_not_to_be_trusted_is_not_loaded(built, monkeypatch, tmp_path, capsys, harm, words):
    shutil.copytree(built, tmp_path / "base")
    (folder,) = (tmp_path / "base").iterdir()
    harm(folder)
    monkeypatch.setenv(extension.VARIABLE, str(tmp_path / "base"))
    for _ in range(2):
        assert fuse([layer()], CPU, "bf16") is None
    (line,) = capsys.readouterr().err.splitlines()  # once a process
    assert line.startswith(str(folder))
    assert words in line


@pytest.mark.parametrize("of", ["folder", "library"])
def test_a_library_of_another_user_is_not_loaded(built, monkeypatch, tmp_path, capsys, of):
    shutil.copytree(built, tmp_path / "base")
    (folder,) = (tmp_path / "base").iterdir()
    if os.getuid() == 0:
        os.chown(folder if of == "folder" else folder / extension.LIBRARY, 12345, -1)
    else:
        monkeypatch.setattr(os, "getuid", lambda: 12345)
    monkeypatch.setenv(extension.VARIABLE, str(tmp_path / "base"))
    assert fuse([layer()], CPU, "bf16") is None
    assert "belongs to another user" in capsys.readouterr().err


def test_another_source_is_another_library(built, monkeypatch, tmp_path):
    monkeypatch.setenv(extension.VARIABLE, str(built))
    monkeypatch.setattr(extension, "digest", lambda: "0" * 64)
    assert extension.extension() is None


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"CXX": "no-such-compiler"}, "CXX: no-such-compiler: cannot be started"),
        ({"CXX": "false"}, "false cannot compile fused_batchnorm.cpp"),
        ({"CXX": "", "PATH": ""}, "no C\\+\\+ compiler"),
        ({extension.VARIABLE: "off"}, "LONGTAIL_EXTENSION is off"),
        ({extension.VARIABLE: "/dev/null/here", "CXX": "false"}, "cannot be written"),
    ],
)
def test_what_keeps_it_from_being_built_is_one_line(monkeypatch, tmp_path, variables, words):
    monkeypatch.setenv(extension.VARIABLE, str(tmp_path))
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=words) as found:
        extension.build()
    assert "\n" not in str(found.value)
    assert not list(tmp_path.iterdir())  # nothing half made
