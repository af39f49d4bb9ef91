"""A finished run of the workflow as a model to take home, by the command line."""

import json

import pytest
from PIL import Image
from safetensors.numpy import load_file

pytestmark = pytest.mark.workflow


def test_a_finished_run_is_exported_and_predicts_its_own_test_images(project):
    [run] = [
        folder.name for folder in project.path.glob("results/stage_two/*-afg-*") if "_k" not in folder.name
    ][:1]
    before = project.stored()
    assert "exported to" in project.run("longtail", "export", run[:-4])
    assert project.git("status", "--porcelain") == ""  # git ignores exported/
    assert project.stored() == before

    raw = load_file(project.path / "data/raw/digits/test.safetensors")
    (project.path / "pictures").mkdir()
    for number in range(20):
        Image.fromarray(raw["images"][number, 0]).save(project.path / f"pictures/{number:02}.png")
    (project.path / "pictures/notes.txt").write_text("no picture")
    code, out = project.status("longtail", "predict", f"exported/{run}", "pictures", "--top", "1")
    assert code == 1
    assert "pictures/notes.txt: is no picture of a known format; left out" in out

    (project.path / "pictures/notes.txt").unlink()
    for file in ("", "/model.onnx"):
        out = project.run("longtail", "predict", f"exported/{run}{file}", "pictures", "--format", "json")
        logits = load_file(project.path / f"results/stage_two/{run}/predictions.safetensors")["logits"][:20]
        said = [one["classes"][0]["label"] for one in json.loads(out)]
        assert said == logits.argmax(1).tolist()

    damaged = project.path / f"results/stage_two/{run}/classifier.safetensors"
    damaged.chmod(0o644)
    damaged.unlink()
    code, out = project.status("longtail", "export", run)
    assert code == 2
    assert "dvc checkout" in out
    assert len(out.splitlines()) == 1
