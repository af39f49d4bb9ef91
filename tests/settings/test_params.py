"""params.yaml: what is wrong is said in one line with the key's path, before anything runs."""

from copy import deepcopy
from typing import Any

import pytest

from longtail.errors import UserError
from longtail.settings.methods import method_module, method_names, settings_of
from longtail.settings.params import Params
from longtail.settings.reading import parse

KINDS = ("networks", "losses", "samplers", "transforms", "stage_two", "figures")
THEN = {
    "name": "b",
    "sampler": "class_balanced",
    "schedule": {"epochs": 30},
    "learning_rate": {"peak": 0.01},
}
RETAINED = {"classes": "poor", "bank": {}, "retention": "graph_matching"}


@pytest.fixture
def settings(root) -> dict[str, Any]:
    return parse((root / "params.yaml").read_text())


def set_key(settings: dict[str, Any], path: str, value: Any) -> None:
    *parents, last = path.split("/")
    for parent in parents:
        settings = settings[int(parent)] if isinstance(settings, list) else settings[parent]
    settings[last] = value


def test_the_projects_own_settings_are_valid(root):
    params = Params.load(root / "params.yaml")
    assert [row.label for row in params.tables["table2"].rows if row.method is not None]
    for file in (root / "workflow" / "settings").glob("*.yaml"):
        Params.load(file)


@pytest.mark.parametrize(
    ("path", "value", "line"),
    [
        ("sedes", [1], "sedes: unknown key"),
        ("dataset", "cifar1000", "dataset: 'cifar1000' is unknown; there are cifar10, cifar100"),
        (
            "imbalance",
            {"ratios": [100, 0.5]},
            "imbalance.ratios[1]: 0.5 is below 1; a ratio is largest class",
        ),
        ("imbalance", {"profile": "natural", "ratios": [10]}, "ratios does not go with profile natural"),
        ("imbalance", {"ratios": [100, 50, 100]}, "ratios 100, 50, 100 name a ratio twice"),
        ("imbalance", {"profile": "exponential"}, "profile exponential needs ratios"),
        (
            "validation",
            "train",
            "validation.source: 'train': should be 'unused', 'holdout', 'official' or 'test'",
        ),
        ("seeds", [], "seeds"),
        ("seeds", [1, 1], "seeds: [1, 1] names a seed twice"),
        ("seeds", [-1], "seeds[0]: -1 is below 0"),
        ("precision", "fp8", "precision: 'fp8': should be 'auto', 'bf16' or 'float32'"),
        ("training/batch_size", 0, "training.batch_size: 0 is below 2"),
        ("training/schedule", {"epochs": 3, "iterations": 4}, "give epochs or iterations, one of the two"),
        ("training/network", {"name": "resnet999"}, "training.network: there is no 'resnet999'; there are"),
        ("training/network", {"name": "resnet_cifar", "depth": 33}, "training.network.depth"),
        ("stage_one/ce/loss", {"name": "logit_adjusted", "gama": 1}, "stage_one.ce.loss.gama: unknown key"),
        ("stage_one/ce/los", 1, "stage_one.ce.los: unknown key"),
        (
            "stage_one/graloss/loss",
            {"name": "logit_adjusted", "gamma": {"b": -2}},
            "stage_one.graloss.loss.gamma.b: -2 must be above 0",
        ),
        (
            "stage_one/ce/loss",
            "hinge",
            "stage_one.ce.loss: there is no 'hinge'; there are class_balanced, difficulty_margin",
        ),
        ("stage_one/ce/loss", {"name": "focal", "gamma": -1}, "stage_one.ce.loss.gamma: -1 is below 0"),
        (
            "stage_one/ce/loss",
            {"name": "class_balanced", "beta": 1},
            "stage_one.ce.loss.beta: 1 is too large, less than 1",
        ),
        (
            "stage_one/ce/loss",
            {"name": "class_balanced", "start": 1.0},
            "stage_one.ce.loss.start: 1.0 is too large",
        ),
        (
            "stage_one/ce/loss",
            {"name": "ldam", "reweight": {"beta": -0.1}},
            "stage_one.ce.loss.reweight.beta: -0.1 is below 0",
        ),
        (
            "stage_one/ce/loss",
            "ldam",
            "stage_one.ce: loss ldam with scale 30 needs a network with head: cosine, scale: 30",
        ),
        (
            "stage_one/ce/network",
            {"name": "resnet_cifar", "head": "arc"},
            "stage_one.ce.network.head: 'arc': should be 'linear' or 'cosine'",
        ),
        (
            "training/sampler",
            "oversampling",
            "training.sampler: there is no 'oversampling'; there are class_aware",
        ),
        (
            "training/sampler",
            {"name": "class_aware", "samples_per_class": 0},
            "training.sampler.samples_per_class: 0 is below 1",
        ),
        (
            "training/transforms",
            ["cutmix"],
            "training.transforms[0]: there is no 'cutmix'; there are minority_cutmix",
        ),
        (
            "stage_one/ce/transforms",
            [{"name": "remix", "kappa": 0.5}],
            "stage_one.ce.transforms[0].kappa: 0.5 is below 1",
        ),
        (
            "training/transforms",
            ["mixup", "remix"],
            "training.transforms: ['mixup', 'remix']: List should have at most 1 item",
        ),
        ("stage_one/ce/then", [{"name": "b"}], "stage_one.ce.then[0].sampler: is missing"),
        (
            "stage_one/ce/then",
            [THEN, THEN],
            "stage_one.ce: two phases are named b; the first phase's name is train",
        ),
        ("stage_one/ce/freeze", "head", "stage_one.ce.freeze: 'head': should be 'none', 'trunk',"),
        (
            "stage_one/ce/frozen_batchnorm",
            "train",
            "stage_one.ce: frozen_batchnorm: train has no use where nothing is frozen",
        ),
        ("stage_one/ce/optimiser", {"trunk_rate": 0}, "stage_one.ce.optimiser.trunk_rate: 0 must be above 0"),
        ("stage_one/ce/then", [THEN | {"name": "train"}], "stage_one.ce: two phases are named train"),
        (
            "stage_one/ce/then",
            [THEN | {"freeze": "head"}],
            "stage_one.ce.then[0].freeze: 'head': should be 'none', 'trunk', 'all_but_last_block', ",
        ),
        (
            "stage_one/ce/then",
            [THEN | {"loss": "hinge"}],
            "stage_one.ce.then[0].loss: there is no 'hinge'; there are",
        ),
        (
            "stage_one/ce/then",
            [THEN | {"loss": "ldam"}],
            "stage_one.ce: loss ldam with scale 30 needs a network",
        ),
        (
            "stage_one/ce/then",
            [THEN | {"bank": {"per_class": 3}}],
            "stage_one.ce.then[0]: a bank is for the classes that a phase leaves out",
        ),
        (
            "stage_one/ce/then",
            [THEN | {"classes": "poor", "retention": "graph_matching"}],
            "stage_one.ce.then[0]: retention needs a bank",
        ),
        (
            "stage_one/ce/then",
            [THEN | RETAINED | {"transforms": ["mixup"]}],
            "stage_one.ce.then[0]: retention and transforms exclude each other",
        ),
        (
            "stage_one/ce",
            {"loss": "focal", "transforms": ["mixup"], "then": [THEN | RETAINED]},
            "stage_one.ce: a phase with retention takes no transforms",
        ),
        (
            "stage_one/ce/then",
            [THEN | RETAINED | {"bank": {"choice": "best"}}],
            "stage_one.ce.then[0].bank.choice: there is no 'best'; there are herding",
        ),
        ("stage_one/ce/classes", "rich", "stage_one.ce: no phase sees the images of data-poor classes"),
        (
            "stage_one/ce",
            {"loss": "focal", "classes": "rich", "then": [THEN | {"classes": "rich", "bank": {}}]},
            "stage_one.ce: the bank of phase b is of classes that no phase before it has seen",
        ),
        (
            "stage_one/ce/then",
            [THEN | RETAINED | {"freeze": "trunk"}],
            "stage_one.ce.then[0]: retention has nothing to hold where freeze: trunk",
        ),
        (
            "stage_one/ce/observers",
            ["gradients", {"name": "gradients", "batches": 2}],
            "stage_one.ce: observers name gradients twice",
        ),
        ("stage_one/ce/rich", {}, "stage_one.ce.rich: give above or share, one of the two"),
        (
            "stage_one/ce/observers",
            ["loss"],
            "stage_one.ce.observers[0]: there is no 'loss'; there are gradients",
        ),
        ("stage_two/afg", {"kk": 2}, "stage_two.afg.kk: unknown key"),
        ("stage_two/afg", {"alpha": -1}, "stage_two.afg.alpha: -1 is below 0"),
        ("stage_two/magic", {}, "stage_two.magic: there is no 'magic'; there are"),
        (
            "methods/GLAG",
            {"stage_one": "grass", "stage_two": "afg"},
            "methods.GLAG.stage_one: 'grass' is not an",
        ),
        ("figures/gamma", {"colour": "red"}, "figures.gamma.colour: unknown key"),
        (
            "figures/tsne/ratio",
            33,
            "figures.tsne.ratio: 33 is not among the ratios of table7: 100",
        ),
        ("figures/tsne/ratio", 49.99999999, "figures.tsne.ratio: 49.99999999 is not among"),
        ("figures/tsne/methods", ["typo"], "figures.tsne.methods: 'typo' is not in table7, which has CE,"),
        ("figures/tsne/classes", [0, 100], "figures.tsne.classes: there is no class 100; 0 to 99"),
        ("figures/tsne/classes", [-1, 5], "figures.tsne.classes: there is no class -1; 0 to 99"),
        ("figures/tsne/classes", [7, 7], "figures.tsne.classes: needs two classes or more"),
        ("groups", {"many_above": 10, "few_below": 20}, "groups: few_below must not exceed"),
        ("features", {"views": -1}, "features.views: -1 is below 0"),
        ("subset_seed", [0, 0], "subset_seed: [0, 0] names a seed twice"),
        ("subset_seed", -1, "subset_seed[0]: -1 is below 0"),
        ("tables/table2/ratios", [20], "tables.table2.ratios: 20 is not one of imbalance.ratios: 200, 100,"),
        ("tables/table2/ratios", [49.99999999], "tables.table2.ratios: 49.99999999 is not one of"),
        ("tables/table2/columns", ["all"], "tables.table2.columns[0]: 'all': should be 'accuracy',"),
        (
            "tables/table2/rows",
            [{"section": "s", "label": "l", "linear": "CE"}],
            "tables.table2: rows[0].linear needs the column linear",
        ),
    ],
)
def test_a_wrong_setting_is_one_line_that_names_the_key(settings, path, value, line):
    settings = deepcopy(settings)
    set_key(settings, path, value)
    with pytest.raises(UserError) as caught:
        Params.read(settings)
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_recipes_of_the_documentation_are_valid(settings, root):
    text = (root / "docs/explanation/recipes.md").read_text()
    (block,) = (part.split("```")[0] for part in text.split("```yaml\n")[1:])
    settings["stage_one"] |= parse(block)["stage_one"]
    recipes = Params.read(settings).stage_one
    assert recipes["ldam_drw"].network.options.head == "cosine"
    assert recipes["remix_drw"].schedule.epochs == 300
    assert [phase.name for phase in recipes["ce_fine_tuned"].phases] == ["train", "fine_tune"]


def test_a_phase_has_what_it_does_not_name_from_its_recipe(settings):
    phase = {
        "name": "fine_tune",
        "sampler": "class_balanced",
        "schedule": {"epochs": 30},
        "learning_rate": {"peak": 0.01},
    }
    settings["stage_one"]["ce"]["transforms"] = ["mixup"]
    settings["stage_one"]["ce"]["then"] = [phase, {**phase, "name": "b", "loss": "focal", "transforms": []}]
    recipe = Params.read(settings).stage_one["ce"]
    assert [phase.name for phase in recipe.phases] == ["train", "fine_tune", "b"]
    assert [phase.loss.name for phase in recipe.phases] == ["logit_adjusted", "logit_adjusted", "focal"]
    assert [len(phase.transforms) for phase in recipe.phases] == [1, 1, 0]
    assert recipe.phases[0].schedule.epochs == 200
    assert type(recipe).model_validate(recipe.resolved()) == recipe


def test_a_recipe_of_one_phase_is_who_it_was_before_there_were_more(settings):
    recipe = Params.read(settings).stage_one["ce"]
    assert recipe.resolved()["then"] == []
    assert "then" not in recipe.resolved(hashed=True)


def test_a_recipe_without_transforms_is_who_it_was_before_there_were_any(settings):
    recipe = Params.read(settings).stage_one["ce"]
    assert recipe.resolved()["transforms"] == []
    assert "transforms" not in recipe.resolved(hashed=True)
    settings["stage_one"]["ce"]["transforms"] = ["mixup"]
    mixed = Params.read(settings).stage_one["ce"].resolved(hashed=True)
    assert mixed["transforms"] == [{"name": "mixup", "alpha": 1.0}]


def test_a_key_given_twice_is_an_error(tmp_path):
    file = tmp_path / "params.yaml"
    file.write_text("dataset: digits\ndataset: cifar100\n")
    with pytest.raises(UserError, match=r"line 2: .dataset. given twice"):
        Params.load(file)


def test_a_recipe_is_the_shared_training_with_its_own_blocks_in_place(settings):
    settings["stage_one"]["ce"]["schedule"] = {"iterations": 13000}
    params = Params.read(settings)
    assert params.stage_one["ce"].schedule.iterations == 13000
    assert params.stage_one["ce"].schedule.epochs is None
    assert params.stage_one["graloss"].schedule.epochs == 200


@pytest.mark.parametrize("kind", KINDS)
def test_settings_read_without_importing_the_method_are_the_methods_settings(kind):
    assert method_names(kind), f"no method of kind {kind}"
    for name in method_names(kind):
        light, real = settings_of(kind, name), method_module(kind, name).Settings
        assert light.model_json_schema() == real.model_json_schema()


def test_reading_settings_and_planning_import_no_torch(root):
    import subprocess
    import sys

    code = (
        "import sys; from longtail.settings.params import Params;"
        "from longtail.orchestration.planner import plan;"
        f"plan(Params.load({str(root / 'params.yaml')!r}));"
        "heavy = {'torch', 'torchvision', 'matplotlib', 'pandas', 'sklearn'} & set(sys.modules);"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root)
    assert done.returncode == 0, done.stderr


def test_settings_are_yaml_1_2_as_dvc_reads_them():
    text = (
        "kd: {on: all}\nrate: 5e-4\nsmall: -.5\nhash: 5e4f\nwhole: 12\nflag: true\nword: no\nnothing: null\n"
    )
    assert parse(text) == {
        "kd": {"on": "all"},
        "rate": 5e-4,
        "small": -0.5,
        "hash": "5e4f",
        "whole": 12,
        "flag": True,
        "word": "no",
        "nothing": None,
    }


def test_a_file_like_another_has_its_own_settings_in_place(tmp_path, root):
    text = """
like: {base}
seeds: [7]
stage_one:
  graloss: {{loss: {{gamma: {{b: 3.0}}}}}}
  ce: {{loss: {{name: focal}}}}
stage_two:
  posthoc: {{tau: null}}
"""
    base = tmp_path / "base.yaml"
    base.write_text((root / "params.yaml").read_text())
    (tmp_path / "below").mkdir()
    variant = tmp_path / "below" / "variant.yaml"
    variant.write_text(text.format(base="../base.yaml"))
    plain, own = Params.load(base), Params.load(variant)
    assert (own.seeds, own.dataset) == ([7], plain.dataset)
    assert own.stage_one["graloss"].loss.options.gamma.resolved() == {"form": "power", "a": 1.0, "b": 3.0}
    assert own.stage_one["ce"].loss.name == "focal"  # another loss: nothing of the old one stays
    assert own.stage_two["posthoc"].method.options.tau is None
    assert own.tables == plain.tables


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("like: nowhere.yaml", "nowhere.yaml: cannot be read"),
        ("like: [a]", r"file\.yaml: like: \['a'\] is not the path of a settings file"),
        ("like: file.yaml", "goes round in a circle"),
    ],
)
def test_a_file_like_nothing_is_one_line(tmp_path, text, line):
    (tmp_path / "file.yaml").write_text(text)
    with pytest.raises(UserError, match=line):
        Params.load(tmp_path / "file.yaml")


def test_every_settings_file_of_the_project_is_valid(root):
    for file in sorted((root / "workflow/settings").rglob("*.yaml")):
        assert Params.load(file).tables


@pytest.mark.parametrize(
    ("tables", "method", "said"),
    [(True, "CEE", "'CEE' is not one of CE"), (False, "CE", "'CE' stands in no table")],
)
def test_label_issues_are_of_a_method_that_a_table_shows(tables, method, said):
    rows = [{"section": "s", "label": "CE", "method": "CE"}]
    given = {
        "dataset": "digits",
        "imbalance": {"profile": "natural"},
        "validation": "holdout",
        "stage_one": {"ce": {"loss": {"name": "logit_adjusted", "gamma": {"form": "constant", "a": 0.0}}}},
        "stage_two": {"joint": {}},
        "methods": {"CE": {"stage_one": "ce", "stage_two": "joint"}},
        "tables": {"one": {"caption": "c", "rows": rows}} if tables else {},
        "label_issues": {"method": method},
    }
    with pytest.raises(UserError, match=f"label_issues.method: {said}"):
        Params.read(given)
