"""The stages of DVC for a settings file other than params.yaml: dvc.yaml as it is, in a folder of its own.

    longtail pipeline --params photos.yaml    writes pipelines/photos/dvc.yaml

DVC knows pipelines by files of that one name. The stages are those of the project's dvc.yaml; settings,
results and splits are the file's own.
"""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from longtail.data.manifest import file_of as file_of_manifest
from longtail.errors import UserError
from longtail.orchestration.plan import Plan
from longtail.orchestration.planner import plan
from longtail.runs.store import write_text
from longtail.settings.data import CsvData, ListData
from longtail.settings.params import Params
from longtail.settings.reading import parse, read_file, read_text, table_names
from longtail.settings.weight_file import WeightFile

FOLDER = Path("pipelines")
MAIN = Path("dvc.yaml")
BLOCKS = ("tables", "sweeps", "models")  # of which each entry has a stage
MADE_FOR = re.compile(rf"# {re.escape(str(MAIN))} for (.+)\. Made by ")  # the first line of such a file
LONGEST = 4096  # characters of a line of YAML, so that none is broken


def file_of(name: str) -> Path:
    """Where the stages of a settings file are, by the name under which it publishes."""
    return FOLDER / name / MAIN


def write_pipeline(settings: str) -> Path:
    """Write the stages of a settings file, and say how to call them; the file.

    Raises:
        UserError: if the settings are wrong, are params.yaml, or lie outside the project.
    """
    params = Params.load(settings)
    planned = plan(params, settings)
    text = pipeline(params, planned)
    file = file_of(planned.name)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_text(file, text)
    print(f"{file}: the stages of {settings}. {how_to(file, settings)}", file=sys.stderr)
    return file


def under_dvc(settings: Path) -> str:
    """Write the stages of new settings where that is possible; a line that says what to type, or why not."""
    if not MAIN.is_file():
        return f"DVC: there is no {MAIN} here, so it was given no stages"
    try:
        params = Params.load(settings)
        planned = plan(params, settings)
        text = pipeline(params, planned)
    except UserError as error:
        return f"DVC: {error}"
    file = file_of(planned.name)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_text(file, text)
    return f"DVC: {file} has the stages. {how_to(file, settings)}"


def how_to(file: Path, settings: str | Path) -> str:
    """What to type to have DVC make the stages, or what is missing for it."""
    lacking = what_dvc_lacks()
    command = f"`dvc repro {shlex.quote(str(file))}` makes them"
    files = " ".join(shlex.quote(str(one)) for one in (settings, file.parent))
    return f"{lacking}; then {command}" if lacking else f"{command}; put both into git: `git add {files}`"


def what_dvc_lacks(root: Path = Path()) -> str:
    """What to type before DVC works in a folder: it needs git, and `dvc init`. Empty where nothing is."""
    missing = [] if _in_git(root) else ["git init"]
    if not (root / ".dvc").is_dir():
        missing.append("dvc init")
    return f"DVC needs a repository: type `{' && '.join(missing)}` here first" if missing else ""


def _in_git(root: Path) -> bool:
    git = ["git", "-C", str(root), "rev-parse", "--is-inside-work-tree"]
    try:
        return subprocess.run(git, capture_output=True, check=True).stdout.strip() == b"true"
    except (OSError, subprocess.CalledProcessError):
        return False


def remind(params: Params, planned: Plan) -> None:
    """Say so where a settings file's stages are not those that it asks for, as after a block was added.

    Stops nothing: that they cannot be compared is a line too.
    """
    file = file_of(planned.name)
    if not planned.name or not file.is_file():
        return
    try:
        if file.read_text("utf-8", "replace") != pipeline(params, planned):
            command = f"longtail pipeline --params {shlex.quote(planned.source)}"
            print(f"{file}: is not of these settings any more; `{command}` writes it anew", file=sys.stderr)
    except (UserError, OSError) as error:
        print(f"{file}: whether it is of these settings cannot be said ({error})", file=sys.stderr)


def pipeline(params: Params, planned: Plan, root: Path = Path()) -> str:
    """The stages of a settings file as text.

    Args:
        params: the settings.
        planned: of them.
        root: the project's folder.

    Raises:
        UserError: if the settings are params.yaml, or lie outside the project.
    """
    chain = [_below(file, root) for file in _like(Path(planned.source))]
    if not planned.name:
        raise UserError(f"{planned.source}: has its stages in {MAIN}; this is for other settings files")
    if not planned.stage_two:
        raise UserError(f"{planned.source}: has no table, and so nothing for DVC to make")
    _refuse_clashes(planned, root)
    own = _stages(root / MAIN)
    keys = {str(file): list(read_raw(root / file)) for file in chain}
    alone = len(chain) == 1
    there = {name: getattr(params, name) for name in BLOCKS}
    change = _Change(params, planned, keys, _acquired_elsewhere(params, planned, root), root)
    stages = {}
    for name, stage in own.items():
        if name in change.empty():
            continue
        inner = stage.get("do", stage)
        wanted = {"cmd": str, "deps": list, "params": list}
        if not isinstance(inner, dict) or any(not isinstance(inner.get(key), wanted[key]) for key in wanted):
            raise UserError(f"{root / MAIN}: stages.{name} needs cmd, deps and params; mend it")
        inner = change.stage(name, inner)
        # of one file DVC reads the entries itself; of one that is like another they are listed here
        entries = f"${{{name}}}" if alone else {entry: {} for entry in there.get(name, ())}
        stages[name] = {"foreach": entries, "do": inner} if "foreach" in stage else inner
    command = f"longtail pipeline --params {shlex.quote(planned.source)}"
    data: dict[str, Any] = {"vars": [os.path.join("..", "..", chain[0])]} if alone else {}
    head = f"# {MAIN} for {planned.source}. Made by `{command}`, which writes it anew."
    text = yaml.dump({**data, "stages": stages}, Dumper=_Plainly, sort_keys=False, width=LONGEST)
    return f"{head}\n{text}"


class _Change:
    """From a stage of dvc.yaml to the same stage of another settings file."""

    def __init__(
        self, params: Params, planned: Plan, keys: Mapping[str, list[str]], acquired: bool, root: Path
    ) -> None:
        self.params, self.planned, self.keys, self.acquired = params, planned, keys, acquired
        self.settings = next(iter(keys))
        self.checked = f"data/checked/{params.dataset}"
        self.manifest = (root / file_of_manifest(params.dataset)).is_file()
        self.named = {
            stage: [_from(root, file) for file in files] for stage, files in _named(planned).items()
        }

    def empty(self) -> set[str]:
        """Stages that would make nothing."""
        blocks = {name for name in (*BLOCKS, "figures") if not getattr(self.params, name)}
        return blocks | ({"acquire"} if self.acquired else set())

    def stage(self, name: str, stage: Mapping[str, Any]) -> dict[str, Any]:
        """A stage, from a folder two levels below the project's."""
        changed = {
            "wdir": os.path.join("..", ".."),
            **{key: self._value(item) for key, item in stage.items()},
        }
        changed["cmd"] = changed["cmd"].replace(
            "snakemake -- ", f"snakemake --config {shlex.quote(f'params={self.settings}')} -- "
        )
        if "models" in stage["params"]:  # of what is published: all of the file, later keys too
            changed["params"] = [{file: None} for file in self.keys]
        else:
            changed["params"] = [
                {file: known}
                for file, keys in self.keys.items()
                if (known := [key for key in stage["params"] if key in keys])
            ]
        dependencies = [item for item in changed["deps"] if self._is_there(item)]
        return {**changed, "deps": [*dependencies, *self.named.get(name, ())]}

    def _is_there(self, dependency: str) -> bool:
        figures = f"{self.planned.results}/figures"
        return not (dependency == self.checked and not self.manifest) and not (
            dependency == figures and not self.params.figures
        )

    def _value(self, value: Any) -> Any:
        """Text with the file's own folders in the place of those of params.yaml."""
        if isinstance(value, Mapping):
            return {self._value(key): self._value(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self._value(item) for item in value]
        if not isinstance(value, str):
            return value
        places = {
            "results/${key}.": f"{self.planned.tables_in}/${{key}}.",
            "results/sweeps/": f"{self.planned.tables_in}/sweeps/",
            "results/": f"{self.planned.results}/",
            "data/splits": self.planned.splits,
            "data/checked": self.checked,
            "${dataset}": self.params.dataset,
        }
        return re.sub("|".join(map(re.escape, places)), lambda found: places[found[0]], value)


def _named(planned: Plan) -> dict[str, list[str]]:
    """Files that settings name by path and runs read, by the stage that reads them."""
    found: dict[str, list[str]] = {"acquire": [], "stage_one": []}
    read: Any
    for read in (run.settings for run in planned.acquire.values()):
        data = read.files
        if isinstance(data, CsvData):
            found["acquire"].append(data.file)
        if isinstance(data, ListData):
            found["acquire"] += [
                file for file in (data.train, data.validation, data.test, data.names) if file
            ]
    for read in (run.settings for run in planned.stage_one.values()):
        source = getattr(read.recipe.network.options, "pretrained", None)
        if isinstance(source, WeightFile):
            found["stage_one"].append(source.file)
    files = (figure.context.get("files", {}) for figure in planned.figures.values())
    found["figures"] = [file for known in files for file, digest in known.items() if digest]
    return {stage: list(dict.fromkeys(files)) for stage, files in found.items()}


def _from(root: Path, file: str) -> str:
    """A file by its path from the project's folder; one outside by its whole path, which DVC follows too."""
    path = (root / Path(file).expanduser()).absolute()
    return str(path.relative_to(root.absolute()) if path.is_relative_to(root.absolute()) else path)


def _refuse_clashes(planned: Plan, root: Path) -> None:
    """Refuse stages whose outputs those of another settings file have: DVC gives each one stage.

    Raises:
        UserError: naming the other settings file.
    """
    for file in sorted((root / FOLDER).glob(f"*/{MAIN}")):
        head = MADE_FOR.match(file.read_text("utf-8", "replace"))
        if head is None or not (other := root / head[1]).is_file():
            continue
        if other.resolve() == (root / planned.source).resolve():
            continue
        if file == root / file_of(planned.name):
            raise UserError(f"{file}: has the stages of {head[1]}; rename {planned.source}, or that file")
        if both := sorted(set(planned.tables) & _tables_in(other, planned.tables_in)):
            where = f"{planned.source}: {both[0]} in {planned.tables_in}"
            raise UserError(f"{where} is a table of {head[1]} too; rename one of them")


def _tables_in(settings: Path, folder: str) -> set[str]:
    """Tables that other settings publish in a folder; none where they cannot be read."""
    with suppress(UserError):
        found = read_file(settings)
        if isinstance(found, dict) and found.get("tables_in") == folder:
            return table_names(settings)
    return set()


def _below(file: Path, root: Path) -> Path:
    """A file by its path from the project's folder."""
    try:
        return file.resolve().relative_to(root.resolve())
    except ValueError:
        raise UserError(
            f"{file}: lies outside {root.resolve()}, where DVC follows no file; copy it there"
        ) from None


def _like(file: Path) -> Iterator[Path]:
    """A settings file and those that it is like, in that order."""
    read_file(file)  # says what is wrong, a circle for instance
    while True:
        yield file
        like = read_raw(file).get("like")
        if not isinstance(like, str):
            return
        file = file.parent / like


def read_raw(file: Path) -> dict[str, Any]:
    """What stands in a settings file itself."""
    return dict(parse(read_text(file)))


def _acquired_elsewhere(params: Params, planned: Plan, root: Path) -> bool:
    """Whether another pipeline makes the dataset, which may be an output of one stage alone."""
    main = root / "params.yaml"
    data = read_file(main) if main.is_file() else None
    if isinstance(data, dict) and data.get("dataset") == params.dataset:
        return True
    out = f"data/raw/{params.dataset}"
    for file in sorted((root / FOLDER).glob(f"*/{MAIN}")):
        if file != root / file_of(planned.name):
            outs = _stages(file).get("acquire", {}).get("outs")
            if isinstance(outs, list) and any(
                out == one or (isinstance(one, dict) and out in one) for one in outs
            ):
                return True
    return False


def _stages(file: Path) -> dict[str, dict[str, Any]]:
    """The stages of a file of DVC's.

    Raises:
        UserError: if it cannot be read, or is no such file.
    """
    try:
        data = yaml.safe_load(read_text(file))
    except (yaml.YAMLError, RecursionError) as error:
        mark, problem = (getattr(error, name, None) for name in ("problem_mark", "problem"))
        where = f"line {mark.line + 1}: " if mark else ""
        raise UserError(f"{file}: not valid YAML: {where}{problem or error}; mend it") from None
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise UserError(f"{file}: {error}") from None
    found = data.get("stages") if isinstance(data, dict) else None
    if not isinstance(found, dict) or not all(isinstance(stage, dict) for stage in found.values()):
        raise UserError(f"{file}: has no stages as DVC has them; mend it")
    return found


class _Plainly(yaml.SafeDumper):
    """Writes what stands in several places in each of them."""

    def ignore_aliases(self, data: Any) -> bool:
        return True
