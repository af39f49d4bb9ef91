"""Snakemake and DVC agree in every order of clone, edit, undo and switch; only what an edit touches runs."""

import json
import re
import shutil

import pytest
import yaml

from longtail.settings.reading import parse
from tests.edits import add_a_neutral_key
from tests.workflow.conftest import ROOT, Project, shuffle_times


def new_runs(before: dict[str, int], after: dict[str, int]) -> set[str]:
    """STEP/RUN of what was computed between two looks at the store."""
    return {run for run, inode in after.items() if before.get(run) != inode}


def steps(runs: set[str]) -> list[str]:
    return sorted(run.split("/")[0] for run in runs)


def test_one_repro_makes_everything_and_a_second_one_nothing(project):
    assert (project.path / "results/table2.csv").is_file()
    before = project.stored()
    assert project.nothing_to_do()
    out = project.run("dvc", "repro")
    assert "Running stage" not in out, out
    assert project.stored() == before
    assert project.run("dvc", "status").strip().endswith("up to date.")


@pytest.mark.workflow
def test_a_fresh_clone_after_dvc_pull_has_nothing_to_do(clone):
    assert not (clone.path / ".snakemake").exists()
    assert clone.nothing_to_do()
    shuffle_times(clone.path)
    out = clone.run("dvc", "repro")
    assert clone.stored() == {}, out
    assert clone.git("status", "--porcelain") == ""


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("alpha: 0.0", "alpha: 0.1", ["stage_two"]),
        pytest.param(
            *("b: 2.0", "b: 3.0", ["features", "stage_one", "stage_two", "stage_two"]),
            marks=pytest.mark.workflow,
        ),
    ],
)
def test_in_a_fresh_clone_an_edit_computes_exactly_the_runs_that_it_touches(clone, built, old, new, expected):
    clone.edit("params.yaml", old, new)
    clone.run("dvc", "repro")
    assert steps(set(clone.stored())) == expected
    assert all("graloss" in run for run in clone.stored())
    assert clone.nothing_to_do()
    edited = clone.table()
    assert edited != built.table()
    # and undone: nothing trains, and the table is the old one again
    before = clone.stored()
    clone.edit("params.yaml", new, old)
    clone.run("dvc", "repro")
    assert clone.stored() == before
    assert clone.table() == built.table()


def the_pages_loss() -> str:
    """The file that docs/how-to/add-a-method.md shows first."""
    return (ROOT / "docs/how-to/add-a-method.md").read_text().split("```python\n")[1].split("```")[0]


@pytest.mark.workflow
def test_a_loss_is_one_file_and_an_edit_of_it_computes_exactly_the_runs_that_use_it(project):
    before = project.stored()
    loss = "src/longtail/stage_one/losses/poly.py"
    (project.path / loss).write_text(the_pages_loss())
    settings = parse(params(project))
    settings["stage_one"]["poly"] = {"loss": {"name": "poly", "epsilon": 2.0}}
    settings["methods"]["Poly-1"] = {"stage_one": "poly", "stage_two": "joint"}
    row = {"section": "End to end", "label": "Poly-1", "method": "Poly-1"}
    settings["tables"]["table2"]["rows"].append(row)
    (project.path / "params.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
    project.run("dvc", "repro")
    added = project.stored()
    assert steps(new_runs(before, added)) == ["features", "stage_one", "stage_two"]
    assert "Poly-1" in project.table()

    project.edit(loss, "+ self.epsilon *", "+ 2 * self.epsilon *")
    project.run("dvc", "repro")
    edited = project.stored()
    assert steps(new_runs(added, edited)) == ["features", "stage_one", "stage_two"]
    assert all("-poly-" in run for run in new_runs(added, edited))

    # comments, docstrings, formatting: nothing
    project.edit(loss, "Leng et al. 2022, eq. 6:", "Equation 6 of Leng et al. 2022:")
    project.edit(loss, "    def forward", "    # a comment\n    def forward")
    assert project.nothing_to_do()
    # a rule's shell string: the report alone, which shows it
    project.edit("workflow/rules/stage_one.smk", '"longtail stage-one {', '"longtail  stage-one {')
    jobs = dict(re.findall(r"^(\w+) +(\d+)$", project.run("snakemake", "-n"), re.MULTILINE))
    assert jobs == {"all": "1", "report": "1", "total": "2"}
    project.run("dvc", "repro")
    assert project.stored() == edited


@pytest.mark.workflow
def test_a_new_key_with_a_neutral_value_invalidates_nothing(project):
    before = project.stored()
    add_a_neutral_key(project.path)
    assert project.nothing_to_do()
    project.run("dvc", "repro")
    assert project.stored() == before


@pytest.mark.workflow
def test_an_edit_of_a_later_phase_leaves_the_first_one_alone(project):
    settings = parse(params(project))
    then = {
        "name": "poor",
        "classes": "poor",
        "sampler": "class_balanced",
        "schedule": {"epochs": 2},
        "learning_rate": {"peak": 0.05},
        "bank": {"per_class": 3},
        "retention": "graph_matching",
    }
    recipe = {**settings["stage_one"]["ce"], "classes": "rich", "rich": {"above": 50}, "then": [then]}
    settings["stage_one"]["asynchronous"] = {
        **recipe,
        "observers": [{"name": "gradients", "rich": {"above": 50}}],
    }
    settings["methods"]["Two phases"] = {"stage_one": "asynchronous", "stage_two": "joint"}
    table = {"caption": "Two phases", "columns": ["accuracy", "forgetting"], "against": "CE", "rows": [
        {"section": "One", "label": "CE", "method": "CE"},
        {"section": "Two", "label": "Two phases", "method": "Two phases"},
    ]}  # fmt: skip
    settings["tables"]["asynchronous"] = table
    settings["figures"]["gradient_distortion"] = {"table": "asynchronous"}
    (project.path / "params.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
    before = project.stored()
    project.run("snakemake")
    two = project.stored()
    assert steps(new_runs(before, two)) == ["features", "stage_one", "stage_one", "stage_two"]
    (first,) = (run for run in two if "asynchronous.train" in run)
    assert (project.path / "results/figures/gradient_distortion.png").stat().st_size > 10000
    (bank,) = project.path.glob("results/stage_one/*/bank.csv")
    assert bank.read_text().startswith("label,rank,sample\n0,1,")
    assert "forgetting" in (project.path / "results/asynchronous.csv").read_text().splitlines()[0]

    project.edit("params.yaml", "per_class: 3", "per_class: 4")
    project.run("snakemake")
    edited = project.stored()
    assert steps(new_runs(two, edited)) == ["features", "stage_one", "stage_two"]
    assert edited[first] == two[first]
    assert project.nothing_to_do()


@pytest.mark.workflow
def test_adopt_lets_new_code_stand_for_finished_runs(project):
    before = project.stored()
    project.edit(
        "src/longtail/stage_one/losses/logit_adjusted.py", "def build(", "UNUSED = 1\n\n\ndef build("
    )
    assert not project.nothing_to_do()
    project.run("longtail", "adopt", "--reason", "an unused name was added")
    assert "an unused name was added" in (project.path / "workflow/adopted.csv").read_text()
    assert project.nothing_to_do()
    project.run("dvc", "repro")
    assert project.stored() == before


@pytest.mark.workflow
@pytest.mark.parametrize("kind", ["hardlink", "symlink"])
def test_the_same_holds_with_links_into_the_cache(clone, built, kind):
    clone.run("dvc", "config", "--local", "cache.type", kind)
    clone.run("dvc", "checkout", "--relink", "-q")
    assert clone.nothing_to_do()
    clone.edit("params.yaml", "alpha: 0.0", "alpha: 0.1")
    clone.run("dvc", "repro")
    assert steps(set(clone.stored())) == ["stage_two"]
    before = clone.stored()
    clone.edit("params.yaml", "alpha: 0.1", "alpha: 0.0")
    clone.run("dvc", "repro")
    assert clone.stored() == before
    assert clone.table() == built.table()
    clone.run("longtail", "check", "stage_two", "--plan", plan_digest(clone))


def plan_digest(project: Project) -> str:
    newest = max(
        (project.path / ".longtail/plan/layers").glob("*.json"), key=lambda file: file.stat().st_mtime
    )
    return newest.stem


@pytest.mark.workflow
def test_a_switch_of_branches_is_clean_both_ways(project, built):
    project.git("checkout", "-q", "-b", "other")
    project.edit("params.yaml", "alpha: 0.0", "alpha: 0.1")
    project.run("dvc", "repro")
    project.commit("another alpha")
    other = project.table()
    before = project.stored()
    for branch, table in (("main", built.table()), ("other", other)):
        project.git("checkout", "-q", branch)
        project.run("dvc", "checkout", "-q")
        assert project.table() == table
        assert project.nothing_to_do()
        assert "up to date" in project.run("dvc", "status")
        assert project.git("status", "--porcelain") == ""
    assert project.stored() == before


@pytest.mark.workflow
def test_runs_that_were_never_committed_survive_dvc_checkout_and_exp_apply(project):
    def back() -> None:
        project.git("checkout", "-q", "--", ".")
        project.run("dvc", "checkout", "-f", "-q")

    project.edit("params.yaml", "alpha: 0.0", "alpha: 0.1")
    project.run("snakemake")
    edited, stored = project.table(), project.stored()
    project.run("dvc", "checkout", "-f", "-q")
    project.run("snakemake")
    assert project.table() == edited
    assert project.stored() == stored  # nothing was computed again

    back()
    project.run("dvc", "exp", "run", "-n", "wider", "-S", "stage_two.afg.k=3")
    back()
    project.edit("params.yaml", "alpha: 0.0", "alpha: 0.1")
    project.run("snakemake")
    assert project.table() == edited
    stored = project.stored()
    project.run("dvc", "exp", "apply", "wider")  # deletes uncommitted runs without asking
    assert parse(params(project))["stage_two"]["afg"]["k"] == 3
    project.run("snakemake")
    back()
    project.edit("params.yaml", "alpha: 0.0", "alpha: 0.1")
    project.run("snakemake")
    assert project.table() == edited
    assert project.stored() == stored


def params(project: Project) -> str:
    return (project.path / "params.yaml").read_text()


def test_a_hand_edited_artifact_is_refused_by_name_and_never_printed_or_locked(project):
    run = next((project.path / "results/stage_two").glob("*-afg-*"))
    metrics = run / "metrics.json"
    lock, table = (project.path / "dvc.lock").read_text(), project.table()
    data = json.loads(metrics.read_text())
    data["test"]["accuracy"] = 0.999
    metrics.unlink()
    metrics.write_text(json.dumps(data))
    out = project.run("dvc", "repro", ok=False)
    name = str(metrics.relative_to(project.path))
    assert f"{name}: is not what run.json says" in out
    assert "dvc checkout" in out
    assert (project.path / "dvc.lock").read_text() == lock
    (project.path / "results/table2.csv").unlink()
    out = project.run("snakemake", "--", "results/table2.csv", ok=False)
    assert name in out
    assert not (project.path / "results/table2.csv").exists()
    # the way out that the line names
    project.run("dvc", "checkout", "-f", name)
    project.run("snakemake", "--", "results/table2.csv")
    assert project.table() == table


@pytest.mark.workflow
def test_a_hand_edited_table_is_made_again_and_the_edit_kept_aside(project):
    table = project.table()
    edited = table.replace("CE", "Ours")
    (project.path / "results/table2.csv").write_text(edited)
    assert not project.nothing_to_do()
    out = project.run("snakemake", "--", "results/table2.csv")
    assert project.table() == table
    assert (project.path / "results/table2.csv.edited").read_text() == edited
    assert "Finished" in out
    (project.path / "results/table2.html").unlink()
    project.run("snakemake")
    assert (project.path / "results/table2.html").is_file()
    assert project.nothing_to_do()


@pytest.mark.workflow
def test_settings_or_code_edited_while_jobs_wait_cannot_mislabel_a_result(project):
    before = project.stored()
    project.edit("params.yaml", "alpha: 0.0", "alpha: 0.1")
    project.run("longtail", "plan")
    name = next(
        file.stem
        for file in (project.path / ".longtail/plan/stage_two").glob("*-afg-*")
        if f"stage_two/{file.stem}" not in before
    )
    # the settings change while the job waits: the job computes what it was named for
    project.edit("params.yaml", "alpha: 0.1", "alpha: 0.7")
    # the code changes while the job waits: the job refuses
    afg = project.path / "src/longtail/stage_two/afg.py"
    code = afg.read_text()
    afg.write_text(code + "\nCHANGED = True\n")
    out = project.run("longtail", "stage-two", name, ok=False)
    assert "the code has changed since this was planned" in out
    assert project.stored() == before
    afg.write_text(code)
    project.run("longtail", "stage-two", name)
    record = json.loads((project.path / ".longtail/store/stage_two" / name / "run.json").read_text())
    assert record["settings"]["method"]["alpha"] == 0.1


@pytest.mark.workflow
def test_experiments_in_place_in_a_temporary_copy_and_from_the_queue_reuse_the_store(project, built):
    before = project.stored()
    project.run("dvc", "exp", "run", "-q", "-S", "stage_two.afg.alpha=0.2")
    in_place = project.table()
    first = project.stored()
    assert steps(new_runs(before, first)) == ["stage_two"]
    project.git("checkout", "-q", "--", ".")
    project.run("dvc", "checkout", "-f", "-q")

    project.run("dvc", "exp", "run", "-q", "--temp", "-n", "temporary", "-S", "stage_two.afg.alpha=0.2")
    assert project.stored() == first  # the same runs: linked, not computed
    project.run("dvc", "exp", "run", "-q", "--queue", "-n", "queued", "-S", "stage_two.afg.alpha=0.3")
    project.run("dvc", "exp", "run", "-q", "--run-all")
    assert steps(new_runs(first, project.stored())) == ["stage_two"]
    for name, alpha in (("temporary", 0.2), ("queued", 0.3)):
        project.run("dvc", "exp", "apply", "-q", name)
        assert parse(params(project))["stage_two"]["afg"]["alpha"] == alpha
        assert (project.table() == in_place) == (name == "temporary")
        assert project.table() != built.table()
        assert project.nothing_to_do()
        project.git("checkout", "-q", "--", ".")
        project.run("dvc", "checkout", "-f", "-q")


@pytest.mark.workflow
def test_dvc_lock_never_claims_what_an_artifact_is_not(project):
    """Every run folder that the lock's directory hashes cover is a verified run."""
    project.edit("params.yaml", "b: 2.0", "b: 1.0")
    project.run("dvc", "repro")
    plan = plan_digest(project)
    for layer in ("split", "stage_one", "features", "stage_two", "tables", "figures"):
        project.run("longtail", "check", layer, "--plan", plan)
    locked = parse((project.path / "dvc.lock").read_text())["stages"]
    assert locked["stage_one"]["params"]["params.yaml"]["stage_one"]["graloss"]["loss"]["gamma"]["b"] == 1.0


def test_the_verbatim_command_of_the_readme(project):
    shutil.rmtree(project.path / "results/stage_two")
    project.run("snakemake", "--cores", "8", "--resources", "gpu=2", "results/table2.csv")
    (project.path / "results/table2.csv").unlink()
    out = project.run("snakemake", "--cores", "8", "--resources", "gpu=2", "results/table2.csv")
    assert "results/table2.csv" in out
    assert (project.path / "results/table2.csv").is_file()


def stages_of_dvc(project: Project) -> dict[str, dict]:
    """The stages of dvc.yaml, one for each table and sweep of params.yaml."""
    settings = parse(params(project))
    stages = {}
    for name, stage in parse((project.path / "dvc.yaml").read_text())["stages"].items():
        for key in settings[name] if "foreach" in stage else [""]:
            text = json.dumps(stage.get("do", stage)).replace("${key}", key)
            stages[f"{name}@{key}"] = json.loads(text)
    return stages


@pytest.mark.workflow
def test_dvc_yaml_names_every_file_that_a_layer_makes(project):
    stages = stages_of_dvc(project)
    declared = [
        out
        for stage in stages.values()
        for kind in ("outs", "metrics", "plots")
        for out in stage.get(kind, [])
    ]
    outs = {next(iter(out)).replace("${dataset}", "digits") for out in declared}
    layers = json.loads((project.path / ".longtail/plan/layers" / f"{plan_digest(project)}.json").read_text())
    made = [
        run["folder"]
        for step in ("acquire", "split", "stage_one", "features", "stage_two")
        for run in layers[step]
    ]
    made += [
        file
        for kind in ("tables", "figures", "frame", "page", "report")
        for item in layers[kind]
        for file in [item["record"], *item["outputs"]]
    ]
    for path in made:
        assert any(path == out or path.startswith(f"{out}/") for out in outs), (
            f"{path} is in no stage of dvc.yaml"
        )
    targets = project.run("snakemake", "--list-target-rules")
    for stage in stages.values():
        target = stage["cmd"].rpartition(" ")[2]
        assert target in targets.split() or (project.path / target).is_file()
    assert all(next(iter(out.values()))["persist"] for out in declared)
