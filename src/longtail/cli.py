"""Long-tailed image recognition: check pictures, plan and compute runs, export models."""

import argparse
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TextIO, cast

from longtail.device import COMPUTING
from longtail.errors import UserError, foreseen
from longtail.runs.steps import PUBLISHED, STEPS

COMMANDS = tuple(step.replace("_", "-") for step in STEPS)  # one per step
WORDS = {
    "tables": "write one of the planned tables",
    "figures": "draw one of the planned figures",
    "models": "export one of the planned models",
    "label_issues": "write label_issues.csv, the pictures whose label is likely wrong",
    "frame": "write runs.csv, all results as one table",
    "page": "write index.html, all results on one page",
    "report": "write report.html, Snakemake's report of tables and figures",
}


def main(argv: Sequence[str] | None = None) -> None:
    """Run a sub-command; a user's mistake ends with one line and exit code 2."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    options = parser().parse_args(arguments)
    if argv is None:
        _restart_in_order(options.command, arguments)
    log = None
    try:
        with foreseen():
            log = _open_log(getattr(options, "log", None))
            options.run(options)
    except UserError as error:
        print(error, file=sys.stderr)
        if log is not None and error.__cause__ is not None:  # of which fault of the machine it is the line
            log.note(error.__cause__)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from the last checkpoint", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # `longtail plan | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except Exception:
        if log is None:
            raise
        traceback.print_exc()
        sys.exit(1)


def _restart_in_order(command: str, arguments: list[str]) -> None:
    """Start again, once, with the project's own source first and, to compute, with the environment for it."""
    environment = dict(os.environ)
    source = Path("src")
    here = Path(__file__).resolve().parent
    if (source / "longtail").is_dir() and (source / "longtail").resolve() != here:
        rest = environment.get("PYTHONPATH", "")
        environment["PYTHONPATH"] = str(source.resolve()) + (os.pathsep + rest if rest else "")
    if command in COMMANDS:
        environment = {**COMPUTING, **environment}
    if environment != dict(os.environ):
        os.execve(sys.executable, [sys.executable, "-m", "longtail", *arguments], environment)


class _Copy:
    """Standard error that also goes into a log, progress bars excepted."""

    def __init__(self, terminal: TextIO, log: TextIO) -> None:
        self.terminal, self.log = terminal, log

    def write(self, text: str) -> int:
        written = self.terminal.write(text)
        if "\r" not in text:
            with suppress(OSError):  # a full disk: what is said still reaches the terminal
                self.log.write(text)
                self.log.flush()
        return written

    def note(self, error: BaseException) -> None:
        """Write an exception with its stack trace into the log alone."""
        with suppress(OSError):
            traceback.print_exception(error, file=self.log)
            self.log.flush()

    def __getattr__(self, name: str) -> object:
        return getattr(self.terminal, name)


def _open_log(path: str | None) -> _Copy | None:
    if path is None:
        return None
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    log = Path(path).open("w", encoding="utf-8")  # noqa: SIM115 - open until the process ends
    copy = _Copy(sys.stderr, log)
    sys.stderr = cast(TextIO, copy)
    return copy


def parser() -> argparse.ArgumentParser:
    """All sub-commands."""
    main = argparse.ArgumentParser(prog="longtail", description=__doc__)
    commands = main.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, help: str, run: Callable[[argparse.Namespace], None]) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=help, description=help)
        sub.set_defaults(run=run)
        return sub

    for step in COMMANDS:
        sub = command(step, f"compute one planned run of {step.replace('-', ' ')}", _execute)
        sub.add_argument("name", metavar="RUN", help="its name, as `longtail plan --all` lists it")
        sub.add_argument("--into", metavar="FOLDER", help="folder of the results (default: as last planned)")
        sub.add_argument("--log", metavar="FILE", help="also write the output to this file")
    for kind, words in WORDS.items():
        sub = command(kind.replace("_", "-"), words, _publish)
        sub.add_argument("name", metavar="NAME", help="file name without its suffix")
        sub.add_argument("--identity", required=True, help="its identity in the plan, or the beginning of it")
        sub.add_argument("--log", metavar="FILE", help="also write the output to this file")
    sub = command("check", "verify a layer's artifacts against their identity and hashes", _check)
    sub.add_argument("layer", metavar="LAYER", help="e.g. stage_one or tables")
    sub.add_argument("--plan", required=True, help="digest of the plan, as the Snakefile names it")
    sub.add_argument("--log", metavar="FILE", help="also write the output to this file")
    sub = command("init", "check a folder of pictures and write settings that suit it", _init)
    sub.add_argument(
        "path",
        metavar="PATH",
        help="a folder of class folders, or of train, val and test folders of them; or a CSV file",
    )
    sub.add_argument("--name", metavar="NAME", help="name of the dataset (default: the folder's or file's)")
    sub.add_argument(
        "--root",
        metavar="FOLDER",
        help="folder to which the paths of a CSV file are relative (default: its own)",
    )
    sub.add_argument(
        "--untested", action="store_true", help="train on classes of one picture, which cannot be tested"
    )
    sub.add_argument("--to", metavar="FILE", help="the settings file to write (default: NAME.yaml)")
    sub.add_argument(
        "--minutes",
        type=float,
        metavar="N",
        help="time for init and the workflow on this machine (default: 3; without published weights 12)",
    )
    sub.add_argument(
        "--weights",
        metavar="WHICH",
        help="published weights to start from: efficientnet_lite0, torchvision, a name of timm's such as "
        "resnet50.a1_in1k, or ARCHITECTURE=FILE (default: look for some)",
    )
    sub.add_argument("--from-scratch", action="store_true", help="start from random weights")
    sub = command(
        "check-data", "read every picture of a dataset of files and report what is wrong", _check_data
    )
    _params_option(sub)
    sub = command("plan", "show finished and missing runs, with the estimated cost", _plan)
    _params_option(sub)
    sub.add_argument("--all", action="store_true", help="list every run, finished ones too")
    command(
        "build-extension",
        "compile batch normalisation + ReLU for this machine; trainings in bf16 then use it",
        _build_extension,
    )
    sub = command("pipeline", "write the stages of DVC for a settings file other than params.yaml", _pipeline)
    sub.add_argument("--params", required=True, metavar="FILE", help="settings file other than params.yaml")
    sub = command("prune", "delete finished runs that no settings file needs, after showing them", _prune)
    _params_option(sub)
    sub.add_argument(
        "--also", action="append", default=[], metavar="FILE", help="keep what this file needs too"
    )
    sub.add_argument("--yes", action="store_true", help="do not ask")
    sub = command("adopt", "record that a code change does not affect results", _adopt)
    _params_option(sub)
    sub.add_argument(
        "--reason", required=True, help="why the results are the same; kept in workflow/adopted.csv"
    )
    sub.add_argument(
        "--since", metavar="COMMIT", help="compare all planned runs with the code of this commit"
    )
    sub.add_argument(
        "--also", action="append", default=[], metavar="FILE", help="also this settings file (with --since)"
    )
    sub.add_argument("steps", nargs="*", metavar="STEP", help="only these steps (default: all)")
    sub = command("export", "export a finished run of stage two as a stand-alone model", _export)
    sub.add_argument("name", metavar="RUN", help="name of a run, or an unambiguous beginning of it")
    sub.add_argument("--to", metavar="FOLDER", help="folder to write (default: exported/RUN)")
    sub.add_argument(
        "--params",
        metavar="FILE",
        help="settings with the groups of the card (default: many > 100, few < 20)",
    )
    sub.add_argument(
        "--license", metavar="ID", help="license of the model, for its card, e.g. cc-by-4.0 (default: none)"
    )
    sub = command("log", "write finished runs of stage two to a tracker of experiments", _log)
    sub.add_argument(
        "names", nargs="+", metavar="RUN", help="names, or unambiguous beginnings of them; folders"
    )
    sub.add_argument("--to", required=True, choices=("tensorboard", "mlflow", "wandb", "trackio"))
    sub.add_argument(
        "--at", metavar="PLACE", help="a folder, for mlflow also a URI (default: tracked/TRACKER)"
    )
    sub.add_argument(
        "--table", action="append", default=[], metavar="FILE", help="a published table to log with the runs"
    )
    sub.add_argument(
        "--params",
        metavar="FILE",
        help="settings with the groups of the metrics (default: many > 100, few < 20)",
    )
    sub = command(
        "suspects", "list pictures whose labels are likely wrong, from a finished run of features", _suspects
    )
    sub.add_argument("name", metavar="RUN", help="name of a run, or an unambiguous beginning of it")
    sub.add_argument("--to", metavar="FOLDER", help="folder to write (default: suspects/RUN)")
    sub = command("predict", "print the classes of pictures by an exported model", _predict)
    sub.add_argument("model", metavar="MODEL", help="an exported folder, its model.safetensors or model.onnx")
    sub.add_argument("images", nargs="+", metavar="IMAGES", help="files, folders, patterns")
    sub.add_argument("--top", type=int, default=3, metavar="N", help="classes per picture (default: 3)")
    sub.add_argument("--format", choices=("table", "csv", "json"), default="table")
    sub.add_argument("--device", default="cpu", metavar="DEVICE", help="cpu, cuda, cuda:N (default: cpu)")
    return main


def _params_option(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--params", default="params.yaml", metavar="FILE", help="settings (default: params.yaml)"
    )


def _execute(options: argparse.Namespace) -> None:
    from longtail.orchestration.execute import execute

    execute(options.command.replace("-", "_"), options.name, options.into)


def _publish(options: argparse.Namespace) -> None:
    from longtail.orchestration.publishing import execute

    execute(options.command.replace("-", "_"), options.name, options.identity)


def _check(options: argparse.Namespace) -> None:
    if options.layer in PUBLISHED:
        from longtail.publish.published_record import check
    else:
        from longtail.orchestration.execute import check
    check(options.layer, options.plan)


def _init(options: argparse.Namespace) -> None:
    from longtail.own_pictures.init import init

    init(
        options.path,
        options.name,
        options.to,
        options.minutes,
        options.root,
        options.untested,
        options.weights,
        options.from_scratch,
    )


def _check_data(options: argparse.Namespace) -> None:
    from longtail.own_pictures.check import check_data

    check_data(options.params)


def _plan(options: argparse.Namespace) -> None:
    from longtail.orchestration.listing import show

    show(options.params, options.all)


def _build_extension(_options: argparse.Namespace) -> None:
    from longtail.stage_one.networks.extension import build

    build()


def _pipeline(options: argparse.Namespace) -> None:
    from longtail.orchestration.pipeline import write_pipeline

    write_pipeline(options.params)


def _prune(options: argparse.Namespace) -> None:
    from longtail.orchestration.prune import prune

    prune([options.params, *options.also], yes=options.yes)


def _adopt(options: argparse.Namespace) -> None:
    from longtail.orchestration.adopt import adopt, adopt_since

    steps = [step.replace("-", "_") for step in options.steps]
    if options.since:
        adopt_since(options.since, [options.params, *options.also], options.reason, steps)
        return
    if options.also:
        raise UserError("--also names settings files for --since; without it type the command for each file")
    adopt(options.params, options.reason, steps)


def _export(options: argparse.Namespace) -> None:
    from longtail.export.write import export

    export(options.name, options.to, options.params, options.license)


def _log(options: argparse.Namespace) -> None:
    from longtail.tracking.log import log

    log(options.names, options.to, options.at, options.table, options.params)


def _suspects(options: argparse.Namespace) -> None:
    from longtail.publish.suspects import by_hand

    by_hand(options.name, options.to)


def _predict(options: argparse.Namespace) -> None:
    from longtail.export.predict import predict

    predict(options.model, options.images, options.top, options.format, options.device)
