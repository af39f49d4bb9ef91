"""Make one table, figure, model, frame, page or report as planned."""

import subprocess
import sys
from pathlib import Path
from typing import Any

from longtail.errors import UserError
from longtail.publish.job import cells_of, job_of
from longtail.publish.published_record import is_current
from longtail.settings.methods import settings_of
from longtail.settings.published import Groups, Table


def make(planned: dict[str, Any], folder: Path) -> None:
    """Write the files of one table, figure, model, frame, page or report.

    Args:
        planned: what the plan says of it.
        folder: an empty folder.

    Raises:
        UserError: if a run that it reads is missing or damaged.
    """
    MAKERS[planned["kind"]](planned, folder)


def _table(planned: dict[str, Any], folder: Path) -> None:
    from longtail.publish.tables import make

    make.compute(job_of(planned, Table.model_validate(planned["settings"]), folder))


def _figure(planned: dict[str, Any], folder: Path) -> None:
    from longtail.publish.figures import drawing

    options = {key: value for key, value in planned["settings"].items() if key != "name"}
    settings = settings_of("figures", planned["settings"]["name"]).model_validate(options)
    drawing.compute(job_of(planned, settings, folder))


def _model(planned: dict[str, Any], folder: Path) -> None:
    from longtail.publish import best_model

    context = planned["context"]
    groups = Groups.model_validate(context["groups"])
    licence = planned["settings"].get("license")
    best_model.compute(planned["name"], context["among"], cells_of(planned), folder, groups, licence)


def _label_issues(planned: dict[str, Any], folder: Path) -> None:
    from longtail.publish import suspects

    suspects.compute(planned["context"]["dataset"], cells_of(planned)[0].runs, folder)


def _frame(planned: dict[str, Any], folder: Path) -> None:
    from longtail.publish import frame

    context = planned["context"]
    frame.compute(job_of(planned, None, folder), context["recipes"], context["classifiers"])


def _page(planned: dict[str, Any], folder: Path) -> None:
    from longtail.publish.page import make

    _check_inputs(planned)
    make.compute(planned, folder)


def _report(planned: dict[str, Any], folder: Path) -> None:
    """`snakemake --report`: the figures and tables with captions, and the code of every rule, in one page."""
    output = folder / Path(planned["outputs"][0]).name
    _check_inputs(planned)
    command = [sys.executable, "-m", "snakemake", "--cores", "1", "--nolock", "--quiet"]
    command += ["--config", f"params={planned['settings']['source']}", "--report", str(output)]
    done = subprocess.run(
        [*command, "--", *planned["context"]["targets"]], capture_output=True, text=True, check=False
    )
    if done.returncode != 0 or not output.is_file():
        raise UserError(f"snakemake --report failed: {' '.join(done.stderr.split())[-2000:]}")
    _check_inputs(planned)


def _check_inputs(planned: dict[str, Any]) -> None:
    if wrong := [item["outputs"][0] for item in planned["built_on"] if not is_current(**item)]:
        raise UserError(f"{', '.join(wrong)}: changed since this was planned; type the command again")


MAKERS = {
    "tables": _table,
    "figures": _figure,
    "models": _model,
    "label_issues": _label_issues,
    "frame": _frame,
    "page": _page,
    "report": _report,
}
