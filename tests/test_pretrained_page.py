"""docs/how-to/pretrained.md: its settings are read and planned as they stand there."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from longtail.orchestration.planner import plan
from longtail.own_pictures.check import check_data
from longtail.settings.params import Params
from longtail.settings.reading import parse
from tests.odd_pictures import class_folders

PAGE = Path(__file__).parents[1] / "docs/how-to/pretrained.md"


@pytest.fixture(scope="module")
def blocks(tmp_path_factory) -> Iterator[list[str]]:
    """The page's settings, in a folder that has such pictures."""
    folder = tmp_path_factory.mktemp("page")
    class_folders(folder / "data/photos", {"cat": 30, "dog": 22, "eel": 12})
    found = re.findall(r"```yaml\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        Path("photos.yaml").write_text(found[0])
        check_data("photos.yaml")
        yield found


def test_the_settings_plan_one_trunk_one_features_run_and_all_heads_and_classifiers(blocks):
    found = plan(Params.load("photos.yaml"), "photos.yaml")
    assert len(found.stage_one) == len(found.features) == 1
    assert len([name for name in found.stage_two if "-head-" in name]) == 3 * 3
    assert len(found.stage_two) == 3 * (3 + 9)
    assert list(found.models) == ["best"]
    [features] = found.features.values()
    assert features.settings.images.resolved() == {
        "size": 224,
        "center": 0.875,
        "interpolation": "bicubic",
        "channels": 3,
        "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5],
    }


def test_the_recipe_of_lift_stands_beside_them(blocks):
    settings, lift = (parse(text) for text in blocks)
    settings["stage_one"] |= lift["stage_one"]
    settings["tables"]["comparison"]["rows"].append(
        {"section": "Adapters", "label": "LIFT", "stage_one": "lift", "stage_two": "joint"}
    )
    found = plan(Params.read(settings), "photos.yaml")
    [lift_run] = [run for name, run in found.stage_one.items() if "lift-seed0" in name]
    recipe = lift_run.settings.recipe
    assert (recipe.freeze, recipe.head_start, recipe.network.options.scale) == (
        "all_but_adapters",
        "class_means",
        25,
    )
    assert lift_run.settings.images.mean == pytest.approx([0.48145466, 0.4578275, 0.40821073])
    assert len(found.features) == 1 + 3  # of the fine-tuned trunk a seed has its own
