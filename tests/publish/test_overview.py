"""The figure of the plan shows every planned run once, and who is built on whom."""

import itertools
from collections import Counter

import pytest
import yaml
from matplotlib.patches import FancyBboxPatch, PathPatch

from longtail.errors import UserError
from longtail.orchestration.planned_overview import COLUMNS
from longtail.orchestration.planner import plan
from longtail.publish.job import job_of
from longtail.runs.steps import STEPS
from longtail.settings.methods import method_module, settings_of
from longtail.settings.params import Params
from longtail.settings.reading import read_file
from tests.tiny import TINY

FILE = "workflow/settings/demo-asynchronous.yaml"
REFERENCE = {
    "table": "asynchronous",
    "balanced": {"method": "CE", "per_class": 40, "rich_share": 0.4},
}
TWO_PHASES = ("asynchronous", "asynchronous_without_bank", "asynchronous_without_retention")
SWEEPS = {"b": {"method": "GraLoss", "grid": {"stage_one.loss.gamma.b": [1, 2, 4]}}}


@pytest.fixture(scope="module")
def planned(root):
    """A plan of two-phase recipes, a sweep, and a figure with a run of its own."""
    block = read_file(root / FILE)
    figures = {"overview": {}, "gradient_distortion": REFERENCE, "gamma": {}}
    params = Params.read(block | {"figures": figures, "sweeps": SWEEPS, "seeds": [0, 1]})
    return plan(params, FILE, root)


@pytest.fixture(scope="module")
def shown(planned):
    return planned.figures["overview"].planned["context"]["overview"]


def nodes(shown, column):
    return {node["name"]: node["runs"] for node in shown["columns"][COLUMNS.index(column)]["nodes"]}


def joined(shown):
    """Names of nodes with the number of pairs of runs between them."""
    names = [[node["name"] for node in column["nodes"]] for column in shown["columns"]]
    return {
        (*(names[column][node] for column, node in (edge["from"], edge["to"])),): edge["runs"]
        for edge in shown["edges"]
    }


@pytest.mark.parametrize("step", STEPS)
def test_every_planned_run_is_in_one_node(planned, shown, step):
    column = shown["columns"][COLUMNS.index(step)]
    assert column["runs"] == sum(node["runs"] for node in column["nodes"]) == len(planned.runs(step))


@pytest.mark.parametrize("step", STEPS[1:])
def test_edges_are_what_runs_are_built_on(planned, shown, step):
    """Of a run of stage one the phase before it, of others the run of the step before."""
    into = COLUMNS.index(step)
    found = sum(edge["runs"] for edge in shown["edges"] if edge["to"][0] == into)
    assert found == len(planned.runs(step))
    phases = sum(edge["runs"] for edge in shown["edges"] if edge["to"][0] == edge["from"][0] == into)
    literal = Counter(any(other.step == step for other in run.inputs) for run in planned.runs(step).values())
    assert phases == literal[True]


def test_shared_phases_and_what_only_a_sweep_or_a_figure_adds_are_nodes(shown):
    found = nodes(shown, "stage_one")
    assert found["asynchronous.train"] == found["asynchronous"] == found["asynchronous_without_bank"] == 2
    assert found["sweeps/b"] == 4  # b = 2 is graloss already
    assert found["CE, balanced"] == 2
    edges = joined(shown)
    assert edges["asynchronous.train", "asynchronous_without_retention"] == 2
    assert edges["CE, balanced", "gradient_distortion"] == 2
    assert edges["balanced40", "CE, balanced"] == 2
    assert edges["asynchronous", "gradient_distortion"] == 1  # of its table
    assert edges["graloss", "10 views"] == 2
    assert set(nodes(shown, "tables")) == {"asynchronous", "sweeps/b"}
    assert set(nodes(shown, "figures")) == {"gamma", "gradient_distortion", "sweep_b"}


def test_the_figure_has_a_box_an_entry_and_a_curve_an_edge(planned, shown, tmp_path):
    item = planned.figures["overview"]
    assert not item.cells
    job = job_of(item.planned, settings_of("figures", "overview").model_validate({}), tmp_path)
    figure = method_module("figures", "overview").draw(job)
    [axis] = figure.axes
    boxes = [patch for patch in axis.patches if isinstance(patch, FancyBboxPatch)]
    curves = [patch for patch in axis.patches if isinstance(patch, PathPatch)]
    assert len(boxes) == sum(len(column["nodes"]) for column in shown["columns"])
    assert len(curves) == len(shown["edges"])
    texts = [text.get_text() for text in axis.texts]
    assert {"asynchronous.train (2)", "sweeps/b (4)", "gradient_distortion", "stage one, phase 2"} <= set(
        texts
    )
    second = sum(nodes(shown, "stage_one")[name] for name in nodes(shown, "stage_one") if name in TWO_PHASES)
    assert f"trained networks: {second} runs" in texts
    # boxes of a column stand one above the other, apart, and no text is wider than its box
    figure.draw_without_rendering()
    for one, other in itertools.combinations(boxes, 2):
        assert not one.get_window_extent().overlaps(other.get_window_extent())
    widths = {box.get_window_extent().y0: [] for box in boxes}
    for box in boxes:
        widths[box.get_window_extent().y0].append(box.get_window_extent())
    for text in axis.texts:
        extent = text.get_window_extent()
        inside = [
            box for boxes in widths.values() for box in boxes if box.contains(*extent.get_points().mean(0))
        ]
        assert all(box.x0 <= extent.x0 and extent.x1 <= box.x1 for box in inside)
    # every curve runs from left to right
    for curve in curves:
        points = curve.get_path().vertices
        assert points[0, 0] < points[-1, 0]


def test_teachers_and_their_classifiers_feed_what_is_trained_by_them():
    block = yaml.safe_load(TINY) | {"figures": {"overview": {}}, "sweeps": {}, "seeds": [0, 1]}
    loss = block["stage_one"]["ce"]["loss"]
    for name, teacher in (
        ("student", "graloss"),
        ("pupil", {"stage_one": "ce", "stage_two": "crt", "seeds": "all"}),
    ):
        block["stage_one"][name] = {"loss": loss, "step": {"name": "distillation", "teacher": teacher}}
    row = {"section": "End to end", "label": ["Student", "Pupil"], "stage_one": ["student", "pupil"]}
    block["tables"]["table2"]["rows"] = [row | {"stage_two": "joint"}]
    found = plan(Params.read(block))
    shown = found.figures["overview"].planned["context"]["overview"]
    for step in STEPS:
        assert shown["columns"][COLUMNS.index(step)]["runs"] == len(found.runs(step))
    edges = joined(shown)
    assert edges["graloss", "student"] == 2
    assert edges["crt", "pupil"] == 4  # two teachers of each of two pupils
    assert edges["ce", "2 views"] == edges["exp10", "ce"] == edges["exp10", "graloss"] == 2
    assert edges["2 views", "crt"] == 2


def test_the_figure_changes_with_the_plan_and_not_with_a_caption(root):
    block = read_file(root / "workflow/settings/demo.yaml") | {"figures": {"overview": {}}}

    def identity(**changes):
        params = Params.read(block | changes)
        return plan(params, "workflow/settings/demo.yaml", root).figures["overview"].identity

    table = block["tables"]["table2"]
    fewer = {"table2": table | {"rows": table["rows"][1:]}}
    assert identity() == identity(tables={"table2": table | {"caption": "Another"}})
    assert len({identity(), identity(seeds=[0]), identity(tables=fewer)}) == 3


def test_a_plan_without_a_run_is_one_line(root, tmp_path):
    block = read_file(root / "workflow/settings/demo.yaml")
    table = {"caption": "Printed alone", "printed": "table2"}
    rows = [{"section": "End-to-end training", "label": "Focal loss"}]
    params = Params.read(block | {"figures": {"overview": {}}, "tables": {"table2": table | {"rows": rows}}})
    item = plan(params, "workflow/settings/demo.yaml", root).figures["overview"]
    job = job_of(item.planned, settings_of("figures", "overview").model_validate({}), tmp_path)
    with pytest.raises(UserError, match=r"figures\.overview: no table has a row with a method"):
        method_module("figures", "overview").draw(job)
