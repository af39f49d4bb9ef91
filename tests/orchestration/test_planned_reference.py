"""The run on balanced data that a figure of gradients asks for."""

import pytest

from longtail.errors import UserError
from longtail.orchestration.planner import plan
from longtail.runs.steps import STEPS
from longtail.settings.params import Params
from longtail.settings.reading import read_file

FILE = "workflow/settings/demo-asynchronous.yaml"


@pytest.fixture(scope="module")
def block(root):
    return read_file(root / FILE)


def planned(root, block, **balanced):
    figure = {"table": "asynchronous", **({"balanced": balanced} if balanced else {})}
    return plan(Params.read(block | {"figures": {"gradient_distortion": figure}}), FILE, root)


def test_it_is_the_recipe_on_balanced_data_with_another_border_and_nothing_else(root, block):
    without = planned(root, block)
    found = planned(root, block, method="CE", per_class=40, rich_share=0.4)
    new = {step: set(found.runs(step)) - set(without.runs(step)) for step in STEPS}
    assert {step: len(runs) for step, runs in new.items()} == {
        "acquire": 0, "split": 1, "stage_one": 1, "features": 0, "stage_two": 0
    }  # fmt: skip
    [split], [name] = new["split"], new["stage_one"]
    imbalance = found.split[split].settings.imbalance
    assert (imbalance.largest, imbalance.smallest, imbalance.label) == (40, 40, "balanced40")
    run = found.stage_one[name]
    assert name.startswith("digits-balanced40-ce-seed0-")
    assert run.inputs[-1].name == split
    reference = next(
        run for name, run in found.stage_one.items() if name.startswith("digits-exp25-ce-seed0-")
    )
    own, other = (run.settings.resolved() for run in (run, reference))
    assert own["recipe"]["observers"][0].pop("rich") == {"above": None, "share": 0.4}
    assert other["recipe"]["observers"][0].pop("rich") == {"above": 40, "share": None}
    assert own == other
    assert [cell.method for cell in found.figures["gradient_distortion"].cells][-1] == "CE, balanced"
    assert set(found.figures["gradient_distortion"].runs) == {"stage_one"}


def test_without_a_number_of_images_it_has_all_that_every_class_has(root, block):
    found = planned(root, block, method="CE", rich_share=0.4)
    assert any(name.startswith("digits-exp1-unused-") for name in found.split)


def test_recipes_without_gradients_or_with_phases_of_their_own_are_one_line(root, block):
    with pytest.raises(UserError, match=r"balanced\.method: 'LA' is not an entry of methods: CE,"):
        planned(root, block, method="LA", rich_share=0.4)
    with pytest.raises(UserError, match=r"stage_one\.asynchronous sees data-rich or data-poor classes alone"):
        planned(root, block, method="Two phases", rich_share=0.4)
    recipe = block["stage_one"]["ce"] | {"observers": []}
    unmeasured = block | {"stage_one": block["stage_one"] | {"ce": recipe}}
    with pytest.raises(UserError, match=r"the gradients of 'CE' are not measured; give stage_one\.ce"):
        planned(root, unmeasured, method="CE", rich_share=0.4)


@pytest.mark.parametrize("share", [0, 1, "half"])
def test_a_share_is_between_0_and_1(root, block, share):
    with pytest.raises(UserError, match=r"balanced\.rich_share"):
        planned(root, block, method="CE", rich_share=share)
