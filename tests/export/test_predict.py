"""Pictures of every kind are predicted or named and left out; a model that was tampered with is not used."""

import csv
import io
import json
import os
import warnings
from hashlib import sha256
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from safetensors.torch import save

from longtail import cli
from longtail.data.decode import pixels
from longtail.export import onnx_session as onnx_model
from longtail.export import write as export
from longtail.export.folder import Description
from longtail.export.module import Exported, assembled, load_exported
from longtail.runs import store

CLASSES = ["cat", "dog", "line\nbreak", "émeu"]


def written(folder: Path, channels: int, with_onnx: bool = False) -> Path:
    """An exported model of random weights."""
    description = Description(
        name="run",
        identity="0" * 64,
        network={"name": "resnet_cifar", "depth": 8, "width": 4},
        classes=CLASSES,
        channels=channels,  # type: ignore[arg-type]
        size=(8, 10),
        mean=[0.4] * channels,
        std=[0.2] * channels,
        dimensions=16,
        temperature=0.7,
        sha256={},
        origin={},
    )
    torch.manual_seed(0)
    tensors = {name: tensor.clone() for name, tensor in Exported(description).state_dict().items()}
    tensors["weight"] = torch.randn(4, 16)
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(save(tensors))
    if with_onnx:
        images = torch.zeros(2, channels, 8, 10, dtype=torch.uint8)
        graph = export.to_onnx(assembled(description, tensors), images, description)
        (folder / "model.onnx").write_bytes(graph)
    return described(folder, description)


def described(folder: Path, description: Description) -> Path:
    """Write model.json for the files that are there, as somebody who made the folder would."""
    digests = {file.name: sha256(file.read_bytes()).hexdigest() for file in folder.glob("model.[so]*")}
    data = description.model_copy(update={"sha256": digests}).resolved()
    store.write_json(folder / "model.json", data)
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """A model of RGB pictures, with its ONNX file."""
    return written(tmp_path_factory.mktemp("models") / "rgb", 3, with_onnx=True)


@pytest.fixture
def copy(model, tmp_path) -> Path:
    """A copy of the model that a test may damage."""
    (tmp_path / "copy").mkdir()
    for file in model.iterdir():
        (tmp_path / "copy" / file.name).write_bytes(file.read_bytes())
    return tmp_path / "copy"


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def run(capsys, *words: object) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of `longtail predict`."""
    try:
        cli.main(["predict", *map(str, words)])
        code = 0
    except SystemExit as end:
        code = int(end.code or 0)
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    return code, out, err


def noise(seed: int = 0, size: tuple[int, int] = (8, 10), channels: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, channels), dtype=np.uint8)


def picture(file: str, seed: int = 0, **options: object) -> str:
    Image.fromarray(noise(seed)).save(file, **options)
    return file


def as_json(capsys, *words: object) -> list[dict]:
    code, out, _ = run(capsys, *words, "--format", "json")
    assert code == 0
    return json.loads(out)


def test_predictions_are_the_modules_own_in_the_order_given(model, capsys):
    files = [picture(f"{name}.png", seed) for seed, name in enumerate("cab")]
    found = as_json(capsys, model, *files, files[0], "--top", 4)
    module, _ = load_exported(model)
    images = torch.from_numpy(np.stack([noise(seed).transpose(2, 0, 1) for seed in (0, 1, 2, 0)]))
    expected = module(images)[0]
    assert [one["image"] for one in found] == ["c.png", "a.png", "b.png", "c.png"]
    for one, row in zip(found, expected, strict=True):
        shares = [entry["probability"] for entry in one["classes"]]
        assert shares == sorted(shares, reverse=True)
        assert sum(shares) == pytest.approx(1, abs=1e-5)
        assert all(entry["class"] == CLASSES[entry["label"]] for entry in one["classes"])
        assert one["classes"][0]["label"] == int(row.argmax())
        assert one["classes"][0]["probability"] == pytest.approx(float(row.max()), abs=1e-5)


def test_onnxruntime_and_torch_print_the_same(model, capsys):
    files = [picture(f"{seed}.png", seed) for seed in range(5)]
    torch_says = as_json(capsys, model / "model.safetensors", *files)
    onnx_says = as_json(capsys, model / "model.onnx", *files)
    for one, other in zip(torch_says, onnx_says, strict=True):
        assert [entry["label"] for entry in one["classes"]] == [entry["label"] for entry in other["classes"]]
        for entry, twin in zip(one["classes"], other["classes"], strict=True):
            assert entry["probability"] == pytest.approx(twin["probability"], abs=1e-5)


def test_onnx_needs_no_torch(model, tmp_path):
    import subprocess
    import sys

    code = (
        "import sys\nfrom longtail.cli import main\n"
        f"main(['predict', {str(model / 'model.onnx')!r}, {picture('a.png')!r}])\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""  # no progress bar where there is no terminal


def test_table_and_csv_say_the_same_as_json(model, capsys):
    files = [picture("a.png", 3), picture("with space, and comma.png", 4)]
    found = as_json(capsys, model, *files, "--top", 2)
    _, table, _ = run(capsys, model, *files, "--top", 2)
    assert len(table.splitlines()) == 2  # the class with a line break in its name too
    _, text, _ = run(capsys, model, *files, "--top", 2, "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["image"] for row in rows] == [files[0]] * 2 + [files[1]] * 2
    entries = [entry for one in found for entry in one["classes"]]
    for row, entry in zip(rows, entries, strict=True):
        assert (row["class"], int(row["label"])) == (entry["class"], entry["label"])
        assert float(row["probability"]) == pytest.approx(entry["probability"], abs=1e-6)
    assert [row["rank"] for row in rows] == ["1", "2", "1", "2"]


def test_a_name_that_is_not_utf8_goes_through(model, capsys):
    name = os.fsdecode(b"caf\xe9.png")
    picture(name)
    assert as_json(capsys, model, name)[0]["image"] == name
    code, out, _ = run(capsys, model, name)
    assert code == 0
    assert out.startswith("caf\\udce9.png")


def test_the_same_command_prints_the_same(model, capsys):
    files = [picture(f"{seed}.png", seed) for seed in range(3)]
    assert run(capsys, model, *files) == run(capsys, model, *files)


def test_folders_and_patterns_come_sorted_and_links_to_folders_are_not_followed(model, capsys):
    Path("d/sub").mkdir(parents=True)
    for name in ("d/b.png", "d/a.png", "d/sub/c.png", "d/.hidden.png", "z2.png", "z1.png"):
        picture(name)
    Path("d/loop").symlink_to("..")
    found = as_json(capsys, model, "z?.png", "d")
    assert [one["image"] for one in found] == ["z1.png", "z2.png", "d/a.png", "d/b.png", "d/sub/c.png"]
    found = as_json(capsys, model, "d/**/*.png")
    assert [one["image"] for one in found] == ["d/a.png", "d/b.png", "d/sub/c.png"]


GREY = np.arange(80, dtype=np.uint8).reshape(8, 10) * 3


@pytest.mark.parametrize(
    ("made", "suffix"),
    [
        (Image.fromarray(GREY), "png"),
        (Image.fromarray(GREY.astype(np.uint16) * 257), "png"),
        (Image.fromarray(GREY.astype(np.uint16) * 257), "tiff"),
        (Image.fromarray(GREY.astype(np.int32) * 257), "tiff"),
        (Image.fromarray(GREY).convert("RGBA"), "png"),
        (Image.fromarray(GREY).convert("LA"), "png"),
        (Image.fromarray(GREY).convert("P"), "png"),
        (Image.fromarray(GREY).convert("P"), "gif"),
        (Image.fromarray(255 - np.stack([GREY] * 3 + [255 + 0 * GREY], 2), "CMYK"), "tiff"),
    ],
    ids=["grey", "16 bit", "16 bit tiff", "32 bit", "RGBA", "LA", "palette", "gif", "CMYK"],
)
def test_kinds_of_pictures_of_the_same_content_have_the_same_pixels(made, suffix):
    made.save(f"x.{suffix}")
    assert np.array_equal(pixels(f"x.{suffix}", 1, (8, 10))[0], GREY)
    assert np.array_equal(pixels(f"x.{suffix}", 3, (8, 10)), np.stack([GREY] * 3))


def test_black_and_white_is_0_and_255():
    Image.fromarray(GREY > 100).save("x.png")
    assert set(np.unique(pixels("x.png", 1, (8, 10)))) == {0, 255}


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_is_white(mode):
    if mode == "P":
        Image.new("L", (10, 8), 3).convert("P").save("x.png", transparency=3)
    else:
        Image.new(mode, (10, 8), 0).save("x.png")
    assert (pixels("x.png", 3, (8, 10)) == 255).all()


def test_pictures_are_turned_as_their_exif_says():
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rows are columns
    Image.fromarray(np.rot90(GREY)).save("x.png", exif=exif)
    assert np.array_equal(pixels("x.png", 1, (8, 10))[0], GREY)


def test_a_picture_of_another_size_is_resized_as_a_whole():
    Image.fromarray(np.kron(GREY, np.ones((5, 3), np.uint8))).save("x.png")
    found = pixels("x.png", 1, (8, 10))[0].astype(int)
    assert found.shape == (8, 10)
    assert abs(found - GREY)[1:-1, 1:-1].mean() < 4
    Image.new("L", (1, 1), 77).save("dot.png")
    assert (pixels("dot.png", 3, (8, 10)) == 77).all()


def test_of_several_frames_the_first_counts():
    frames = [Image.fromarray(GREY), Image.new("L", (10, 8), 7)]
    frames[0].save("x.tiff", save_all=True, append_images=frames[1:])
    assert np.array_equal(pixels("x.tiff", 1, (8, 10))[0], GREY)


def bad(kind: str, monkeypatch) -> str:
    """A file that is no picture; its name."""
    file = Path(f"bad.{kind}")
    if kind == "missing":
        pass
    elif kind == "empty":
        file.touch()
    elif kind == "text":
        file.write_text("not a picture\n" * 50)
    elif kind == "truncated":
        picture("whole.png")
        file.write_bytes(Path("whole.png").read_bytes()[:-60])
    elif kind == "flipped":
        picture("whole.jpg")
        content = bytearray(Path("whole.jpg").read_bytes())
        content[160:200] = b"\xff" * 40
        file.write_bytes(content)
    elif kind == "bomb":
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 79)
        picture(str(file) + ".png")
        return str(file) + ".png"
    elif kind == "pipe":
        os.mkfifo(file)
    elif kind == "dangling":
        file.symlink_to("nowhere")
    elif kind == "folder":
        file.mkdir()
    elif kind == "float":
        Image.fromarray(GREY.astype(np.float32)).save("bad.float.tiff")
        return "bad.float.tiff"
    elif kind == "wide":
        Image.fromarray(GREY.astype(np.int32) * 70000).save("bad.wide.tiff")
        return "bad.wide.tiff"
    elif kind == "postscript":  # Pillow would start another program for it
        file.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n")
    elif kind == "name":
        file = Path("bad\nname\x1b[31m")
        file.write_text("x")
    elif kind == "pattern":
        return "bad*.nothing"
    return str(file)


BAD = [
    *("missing", "empty", "text", "truncated", "flipped", "pipe", "dangling"),
    *("folder", "float", "wide", "postscript", "name", "pattern", "bomb"),
]


# pytest puts its own filters in place of the process's, which pictures.py sets
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("kind", BAD)
def test_what_is_no_picture_is_named_and_left_out_and_the_rest_predicted(model, kind, capsys, monkeypatch):
    monkeypatch.setattr(warnings, "showwarning", lambda *_: pytest.fail("a warning"))
    Image.fromarray(noise(1, (5, 5))).save("good.png")
    name = bad(kind, monkeypatch)
    code, out, err = run(capsys, model, name, "good.png")
    assert code == 1
    assert [line.split()[0] for line in out.splitlines()] == ["good.png"]
    reason, summary = err.splitlines()
    assert "bad" in reason
    assert reason.endswith("; left out")
    assert "\x1b" not in err
    assert summary == "1 left out, 1 predicted"


def test_nothing_but_bad_files_prints_an_empty_list(model, capsys):
    code, out, _ = run(capsys, model, "nothing.png", "--format", "json")
    assert (code, json.loads(out)) == (1, [])
    assert run(capsys, model, "nothing.png")[:2] == (1, "")


def refused(capsys, *words: object) -> str:
    """The one line with which a command ends that cannot be carried out."""
    code, out, err = run(capsys, *words)
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1, err
    return err


@pytest.mark.parametrize("file", ["model.safetensors", "model.onnx"])
def test_one_flipped_byte_is_found(copy, file, capsys):
    content = bytearray((copy / file).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / file).write_bytes(content)
    assert "is damaged" in refused(capsys, copy / file, picture("a.png"))


@pytest.mark.parametrize("file", ["model.safetensors", "model.onnx"])
@pytest.mark.parametrize("content", [b"", b"\x80\x04cos\nsystem\n.", b"\xff" * 100])
def test_a_file_that_is_no_model_is_one_line_though_its_hash_is_right(copy, file, content, capsys):
    (copy / file).write_bytes(content)
    described(copy, Description.model_validate(json.loads((copy / "model.json").read_text())))
    assert "cannot" in refused(capsys, copy / file, picture("a.png"))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("network", {"name": "resnet_cifar", "depth": 8, "width": 100_000}),
        ("network", {"name": "resnet_cifar", "depth": 9}),
        ("network", {"name": "../losses/ldam"}),
        ("network", {"name": "os"}),
        ("network", {}),
        ("classes", ["a"]),
        ("classes", []),
        ("temperature", 0),
        ("temperature", float("nan")),
        ("mean", [0.5]),
        ("size", [0, 10]),
        ("size", [10**9, 10**9]),
        ("dimensions", 10**12),
        ("format", "another"),
        ("center", True),
        ("more", 1),
    ],
)
def test_a_description_that_does_not_fit_is_one_line(copy, key, value, capsys):
    data = json.loads((copy / "model.json").read_text())
    (copy / "model.json").write_text(json.dumps({**data, key: value}))
    refused(capsys, copy, picture("a.png"))


@pytest.mark.parametrize("content", ["", "{", "[]", "null", "[" * 100_000])
def test_a_damaged_description_is_one_line(copy, content, capsys):
    (copy / "model.json").write_text(content)
    assert "model.json" in refused(capsys, copy, picture("a.png"))


def test_no_file_outside_the_folder_is_read(copy, model, capsys):
    (copy / "model.safetensors").unlink()
    (copy / "model.safetensors").symlink_to(model / "model.safetensors")
    assert "link out of its folder" in refused(capsys, copy, picture("a.png"))


def test_an_onnx_model_with_tensors_in_other_files_is_refused(copy, capsys):
    graph = onnx.load(copy / "model.onnx")
    Path("outside.bin").write_bytes(b"\0" * 4096)
    tensor = graph.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "../outside.bin"
    (copy / "model.onnx").write_bytes(graph.SerializeToString())
    described(copy, Description.model_validate(json.loads((copy / "model.json").read_text())))
    assert "in other files" in refused(capsys, copy / "model.onnx", picture("a.png"))


@pytest.mark.parametrize("given", ["nowhere", ".", "a.png", ""])
def test_what_is_no_exported_model_is_one_line(given, capsys):
    picture("a.png")
    assert "is not an exported model" in refused(capsys, given, "a.png")


@pytest.mark.parametrize(
    "words", [["--top", "0"], ["--device", "tpu"], ["--device", "cuda:99"], ["--device", ""]]
)
def test_an_impossible_option_is_one_line(model, words, capsys):
    assert words[0] in refused(capsys, model, picture("a.png"), *words)


def test_onnx_on_a_device_it_has_not_is_one_line(model, capsys):
    assert "--device cuda:1" in refused(capsys, model / "model.onnx", picture("a.png"), "--device", "cuda:1")


def test_more_classes_than_there_are_is_all_of_them(model, capsys):
    assert len(as_json(capsys, model, picture("a.png"), "--top", 99)[0]["classes"]) == 4


def test_missing_onnxruntime_is_one_line(model, capsys, monkeypatch):
    monkeypatch.setattr(onnx_model.importlib.util, "find_spec", lambda name: None)
    assert "onnxruntime: not installed" in refused(capsys, model / "model.onnx", picture("a.png"))


def test_a_model_of_grey_pictures_takes_coloured_ones(tmp_path, capsys):
    grey = written(tmp_path / "grey", 1)
    assert len(as_json(capsys, grey, picture("a.png"))) == 1
