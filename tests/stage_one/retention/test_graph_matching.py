"""The memory-retentive loss by graph matching."""

from itertools import product

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from longtail.settings.methods import method_names, settings_of
from longtail.stage_one.retention.graph_matching import Settings, build, sinkhorn

NOW = torch.tensor(0.5)
MATCHINGS = ["aligned", "sinkhorn"]
NODES = ["cosine", "squared"]
matchings = pytest.mark.parametrize("matching", MATCHINGS)
nodes = pytest.mark.parametrize("node", NODES)


def graphs(
    images: int = 6, dimensions: int = 5, seed: int = 0, dtype=torch.float64
) -> tuple[Tensor, Tensor, Tensor]:
    """Features before and now, and which images are exemplars: all but two."""
    generator = torch.Generator().manual_seed(seed)
    before = torch.randn(images, dimensions, generator=generator, dtype=dtype)
    now = before + 0.5 * torch.randn(images, dimensions, generator=generator, dtype=dtype)
    exemplars = torch.ones(images, dtype=torch.bool)
    exemplars[[1, images - 1]] = False
    return before, now, exemplars


def value(before: Tensor, now: Tensor, exemplars: Tensor, progress: Tensor = NOW, **settings) -> Tensor:
    """The loss at weight 1, where nothing else is asked for."""
    return build(Settings(**{"weight": {"a": 1.0}} | settings))(before, now, exemplars, progress)


def everything(features: Tensor) -> Tensor:
    return torch.ones(len(features), dtype=torch.bool)


def discrepancies(before: Tensor, now: Tensor, node: str) -> Tensor:
    """C as its definition has it."""
    rows = [
        [1 - F.cosine_similarity(b, n, dim=0) if node == "cosine" else ((b - n) ** 2).mean() for n in now]
        for b in before
    ]
    return torch.stack([torch.stack(row) for row in rows])


def literal(
    before: Tensor, now: Tensor, coupling: Tensor, node: str, node_weight: float, edge_weight: float
) -> Tensor:
    """Every sum a loop."""
    cost = discrepancies(before, now, node)
    first, second = (1 - discrepancies(x, x, "cosine") for x in (before, now))
    every = range(len(before))
    nodes = sum(coupling[i, j] * cost[i, j] for i, j in product(every, every))
    edges = sum(
        coupling[i, j] * coupling[k, m] * (first[i, k] - second[j, m]) ** 2
        for i, j, k, m in product(every, every, every, every)
    )
    return node_weight * nodes + edge_weight * edges


@given(seed=st.integers(0, 1000), weights=st.sampled_from([(1.0, 1.0), (0.0, 2.0), (3.0, 0.0), (0.5, 1.5)]))
@nodes
@matchings
def test_value_is_the_four_fold_sum_over_the_exemplars(matching, node, seed, weights):
    before, now, exemplars = graphs(5, 3, seed)
    alone, now_alone = before[exemplars], now[exemplars]
    mass = torch.full((len(alone),), 1 / len(alone), dtype=torch.float64)
    coupling = (
        mass.diag()
        if matching == "aligned"
        else sinkhorn(discrepancies(alone, now_alone, node), mass, mass, 0.1, 20)
    )
    torch.testing.assert_close(
        value(
            before,
            now,
            exemplars,
            matching=matching,
            node=node,
            node_weight=weights[0],
            edge_weight=weights[1],
        ),
        literal(alone, now_alone, coupling, node, *weights),
    )


@nodes
@matchings
def test_gradient_is_that_of_the_value(matching, node):
    before, now, exemplars = graphs(5, 3)
    loss = build(Settings(matching=matching, node=node))
    assert torch.autograd.gradcheck(
        lambda *features: loss(*features, exemplars, NOW), (before.requires_grad_(), now.requires_grad_())
    )


@nodes
def test_unchanged_features_have_no_loss_and_no_gradient_when_nodes_are_aligned(node):
    before, _, exemplars = graphs(dtype=torch.float32)
    now = before.clone().requires_grad_()
    loss = value(before, now, exemplars, node=node)
    assert loss == 0
    assert torch.equal(torch.autograd.grad(loss, now)[0], torch.zeros_like(before))


def test_edges_of_aligned_nodes_do_not_see_a_rotation():
    before, now, exemplars = graphs()
    generator = torch.Generator().manual_seed(1)
    turn = torch.linalg.qr(torch.randn(5, 5, dtype=torch.float64, generator=generator)).Q
    torch.testing.assert_close(
        value(before, now @ turn, exemplars, node_weight=0), value(before, now, exemplars, node_weight=0)
    )
    assert value(before, before @ turn, exemplars, node_weight=0) < 1e-20
    assert value(before, before @ turn, exemplars, edge_weight=0) > 0.1  # but nodes do


@matchings
@nodes
def test_images_that_are_no_exemplars_change_nothing(matching, node):
    before, now, exemplars = graphs()
    expected = value(before[exemplars], now[exemplars], exemplars[exemplars], matching=matching, node=node)
    for other in (0.0, 1e6, float("inf"), float("nan")):
        first, second = (x.masked_fill(~exemplars[:, None], other) for x in (before, now))
        second.requires_grad_()
        loss = value(first, second, exemplars, matching=matching, node=node)
        torch.testing.assert_close(loss, expected)
        (gradient,) = torch.autograd.grad(loss, second)
        assert torch.equal(gradient[~exemplars], torch.zeros_like(gradient[~exemplars]))
        assert gradient.isfinite().all()


@nodes
@matchings
def test_the_order_of_the_batch_changes_nothing(matching, node):
    before, now, exemplars = graphs()
    order = torch.tensor([3, 5, 0, 1, 4, 2])
    torch.testing.assert_close(
        value(before[order], now[order], exemplars[order], matching=matching, node=node),
        value(before, now, exemplars, matching=matching, node=node),
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@nodes
@matchings
def test_a_batch_without_exemplars_has_no_loss_and_no_gradient(matching, node, dtype):
    before, now, exemplars = graphs(dtype=dtype)
    loss = value(before, now.requires_grad_(), torch.zeros_like(exemplars), matching=matching, node=node)
    assert loss == 0
    assert torch.equal(torch.autograd.grad(loss, now)[0], torch.zeros_like(now))


@nodes
@matchings
def test_one_exemplar_is_coupled_with_itself(matching, node):
    before, now, exemplars = graphs()
    one = torch.zeros_like(exemplars)
    one[2] = True
    torch.testing.assert_close(
        value(before, now, one, matching=matching, node=node), discrepancies(before, now, node)[2, 2]
    )


@nodes
@matchings
def test_features_of_length_zero_give_finite_and_no_huge_gradients(matching, node):
    before, now, exemplars = graphs(dtype=torch.float32)
    before[0], now[0], now[2], before[3] = 0, 0, 0, 0
    loss = value(before, now.requires_grad_(), exemplars, matching=matching, node=node)
    (gradient,) = torch.autograd.grad(loss, now)
    assert loss.isfinite()
    assert gradient.abs().max() < 10


@matchings
def test_the_strength_follows_its_schedule(matching):
    before, now, exemplars = graphs()
    schedule = {"form": "power", "a": 3.0, "b": 2.0}
    torch.testing.assert_close(
        value(before, now, exemplars, torch.tensor(0.5), matching=matching, weight=schedule),
        3 * 0.25 * value(before, now, exemplars, matching=matching),
    )
    assert value(before, now, exemplars, torch.tensor(0.0), matching=matching, weight=schedule) == 0


@nodes
@matchings
def test_under_autocast_it_is_computed_in_float32(matching, node):
    before, now, exemplars = graphs(dtype=torch.bfloat16)
    now.requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = value(before, now, exemplars, matching=matching, node=node)
    assert loss.dtype == torch.float32
    assert loss.shape == ()
    assert torch.equal(loss, value(before.float(), now.float(), exemplars, matching=matching, node=node))
    assert torch.autograd.grad(loss, now)[0].isfinite().all()


@nodes
@matchings
def test_no_shape_and_no_branch_depends_on_a_value(matching, node):
    """A fake tensor has a shape and no values; what a CUDA graph could not capture is an error there."""
    with FakeTensorMode():
        before, now = torch.empty(6, 5), torch.empty(6, 5, requires_grad=True)
        loss = value(
            before, now, torch.empty(6, dtype=torch.bool), torch.empty(()), matching=matching, node=node
        )
        loss.backward()
        assert loss.shape == ()


@st.composite
def transports(draw) -> tuple[Tensor, Tensor, Tensor]:
    """A cost between 0 and 1, and two marginals of sum 1, which may have zeros."""
    shape = draw(st.tuples(st.integers(1, 6), st.integers(1, 6)))
    cost = torch.rand(
        shape, generator=torch.Generator().manual_seed(draw(st.integers(0, 999))), dtype=torch.float64
    )
    masses = []
    for size in shape:
        parts = torch.tensor(draw(st.lists(st.integers(0, 5), min_size=size, max_size=size).filter(any)))
        masses.append(parts.double() / parts.sum())
    return cost, *masses


@given(transport=transports(), iterations=st.integers(1, 3))
def test_columns_of_a_transport_are_exact_after_any_round_and_no_mass_comes_from_nothing(
    transport, iterations
):
    cost, rows, columns = transport
    moved = sinkhorn(cost, rows, columns, 0.1, iterations)
    torch.testing.assert_close(moved.sum(0), columns)
    assert (moved >= 0).all()
    assert (moved[rows == 0] == 0).all()
    assert (moved[:, columns == 0] == 0).all()


@given(transport=transports())
def test_rows_of_a_transport_hold_after_enough_rounds(transport):
    cost, rows, columns = transport
    moved = sinkhorn(cost, rows, columns, 0.5, 300)
    torch.testing.assert_close(moved.sum(1), rows, atol=1e-6, rtol=0)


def test_with_much_entropy_everything_goes_everywhere():
    rows, columns = torch.tensor([0.25, 0.75]), torch.tensor([0.5, 0.25, 0.25])
    torch.testing.assert_close(sinkhorn(torch.rand(2, 3), rows, columns, 1e6, 5), rows[:, None] * columns)


def test_marginals_with_zeros_have_a_gradient():
    cost, rows, columns = (
        torch.rand(2, 3, requires_grad=True),
        torch.tensor([0.0, 1.0]),
        torch.tensor([0.5, 0, 0.5]),
    )
    rows.requires_grad_()
    for gradient in torch.autograd.grad((sinkhorn(cost, rows, columns, 0.1, 5) * cost).sum(), (cost, rows)):
        assert gradient.isfinite().all()


def test_with_little_entropy_the_true_matching_of_shuffled_nodes_is_found():
    before = torch.randn(12, 64, generator=torch.Generator().manual_seed(0))
    order = torch.randperm(12, generator=torch.Generator().manual_seed(1))
    mass = torch.full((12,), 1 / 12)
    moved = sinkhorn(1 - F.normalize(before) @ F.normalize(before[order]).T, mass, mass, 0.01, 20)
    torch.testing.assert_close(moved, F.one_hot(order, 12).T / 12)
    every = everything(before)
    assert value(before, before[order], every, matching="sinkhorn", epsilon=0.01).abs() < 1e-5
    assert value(before, before[order], every, matching="aligned") > 0.5


def test_transport_does_not_know_which_node_is_which():
    before, now, _ = graphs()
    order = torch.tensor([3, 5, 0, 1, 4, 2])
    torch.testing.assert_close(
        value(before, now[order], everything(now), matching="sinkhorn"),
        value(before, now, everything(now), matching="sinkhorn"),
    )


def test_a_loss_that_retains_nothing_is_refused():
    with pytest.raises(ValidationError, match="set one"):
        Settings(node_weight=0, edge_weight=0)


def test_settings_are_found_without_importing_torch():
    assert method_names("retention") == ["graph_matching"]
    found = settings_of("retention", "graph_matching")
    assert found().resolved() == Settings().resolved()
    with pytest.raises(ValidationError, match="set one"):
        found(node_weight=0, edge_weight=0)
