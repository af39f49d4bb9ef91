"""How tables, figures, models, label issues and the report are planned."""

from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longtail.data.manifest import file_of
from longtail.errors import UserError
from longtail.orchestration.plan import Plan
from longtail.orchestration.published import PlannedCell, Published, digest_at_hand
from longtail.publish.tables.check import check
from longtail.runs.identity import PACKAGE
from longtail.runs.steps import STEPS
from longtail.settings.method_blocks import Figure
from longtail.settings.methods import module_name
from longtail.settings.params import Params
from longtail.settings.published import LabelIssuesBlock, Model, Table
from longtail.settings.reading import table_names

if TYPE_CHECKING:
    from longtail.orchestration.planner import Planner

TAKEN = {  # what no table may be called
    "report": "results/report.html is the workflow's report",
    "index": "results/index.html is the page on all results",
    "runs": "results/runs.csv has the results of all runs",
    "curves": "results/curves.csv has the curves of all trainings",
    "label_issues": "results/label_issues.csv has likely wrong labels",
    "label_issues_by_class": "results/label_issues_by_class.csv counts likely wrong labels",
    "data_problems": "results/data_problems.html shows likely wrong labels",
}


def context_of(params: Params) -> dict[str, Any]:
    """What tables and figures know of the settings."""
    return {
        "dataset": params.dataset,
        "groups": params.groups,
        "validation": params.validation,
        "recipes": params.stage_one,
        "methods": params.methods,
    }


def draws_plan(figure: Figure) -> bool:
    """Whether a figure shows the plan itself, so that it is planned last."""
    return bool(getattr(figure.options, "draws_plan", False))


def plan_table(
    planner: "Planner", entry: str, table: Table, cells: dict[str, list[PlannedCell]], context: dict[str, Any]
) -> Published:
    """A table over the cells of its methods."""
    check(entry, table)
    modules = ("longtail.publish.tables.make",)
    files = (*_printed(table), *sorted((PACKAGE / "publish/templates").glob("*")))
    return Published(
        kind="tables",
        name=entry,
        folder=planner.plan.tables_in,
        settings=table,
        modules=modules,
        code=planner.code(modules),
        cells=_shown(table, cells),
        reads=("split", "stage_one", "features", "stage_two"),
        context={**context, "data": files_digest(files)},
        suffixes=("csv", "md", "tex", "html"),
        files=files,
    )


def _shown(table: Table, cells: dict[str, list[PlannedCell]]) -> tuple[PlannedCell, ...]:
    return tuple(cell for method in table.methods for cell in cells[method] if table.shows(cell.ratio))


def _printed(table: Table) -> list[Path]:
    return [PACKAGE / "publish/printed" / f"{table.printed}.csv"] if table.printed else []


def files_digest(files: Iterable[Path]) -> str:
    """SHA-256 over the contents of files, in the order given; one that is not there counts as nothing."""
    result = sha256()
    for file in files:
        if file.is_file():
            result.update(file.read_bytes())
    return result.hexdigest()


def plan_figure(
    planner: "Planner",
    entry: str,
    figure: Figure,
    params: Params,
    cells: dict[str, list[PlannedCell]],
    context: dict[str, Any],
    beside: tuple[PlannedCell, ...] = (),
) -> Published:
    """A figure over the cells of its table's methods, and over those that it alone asks for.

    Its settings may say `table`; `reads`, the steps whose runs it reads; `built_in`, lists of counts, and
    `files`, other files that it reads where they are at hand; `balanced`, a run of its own
    (`planned_reference`); and `draws_plan`.
    """
    table = getattr(figure.options, "table", None)
    built_in = (f"longtail.data:counts/{name}.csv" for name in getattr(figure.options, "built_in", ()))
    modules = ("longtail.publish.figures.drawing", module_name("figures", figure.name), *built_in)
    files = {file: digest_at_hand(Path(file)) for file in getattr(figure.options, "files", ())}
    return Published(
        kind="figures",
        name=entry,
        folder=f"{planner.plan.results}/figures",
        settings=figure,
        modules=modules,
        code=planner.code(modules),
        cells=(*(_shown(params.tables[table], cells) if table else ()), *beside),
        reads=getattr(figure.options, "reads", ()),
        context={**context, **({"files": files} if files else {})},
        suffixes=("png", "svg", "pdf"),
        files=tuple(map(Path, files)),
    )


def plan_model(
    planner: "Planner",
    entry: str,
    model: Model,
    params: Params,
    cells: dict[str, list[PlannedCell]],
    context: dict[str, Any],
) -> Published:
    """A model to take home: of one method, or of a table's best."""
    if model.table:
        methods, shown = params.tables[model.table].methods, _shown(params.tables[model.table], cells)
    else:
        methods = [str(model.method)]
        shown = tuple(cells[methods[0]])
    modules = ("longtail.publish.best_model",)
    files = tuple(sorted((PACKAGE / "export" / "templates").glob("*")))
    return Published(
        kind="models",
        name=entry,
        folder=f"{planner.plan.results}/models/{entry}",
        settings=model,
        modules=modules,
        code=planner.code(modules),
        cells=shown,
        reads=STEPS,
        context={
            **context,
            "among": methods,
            "card": files_digest(files),
        },
        suffixes=(),
        files=files,
        names=("model.safetensors", "model.onnx", "model.json", "README.md", "choice.csv"),
    )


def plan_label_issues(
    planner: "Planner", block: LabelIssuesBlock, dataset: str, cells: dict[str, list[PlannedCell]]
) -> Published:
    """Likely wrong labels by the features of a method's first run, and a page with thumbnails."""
    modules = ("longtail.publish.suspects",)
    near = planner.root / file_of(dataset).with_name("near_duplicates.csv")
    files = (*sorted((PACKAGE / "publish" / "pages").glob("data_problems.*")), near)
    return Published(
        kind="label_issues",
        name="label_issues",
        folder=planner.plan.results,
        settings=block,
        modules=modules,
        code=planner.code(modules),
        cells=tuple(cells[block.method][:1]),
        reads=("acquire", "split", "features"),
        context={"dataset": dataset, "page": files_digest(files)},
        suffixes=(),
        files=files,
        names=("label_issues.csv", "label_issues_by_class.csv", "data_problems.html"),
    )


def plan_report(planner: "Planner", result: Plan) -> Published:
    """Snakemake's report of the page, tables and figures, which shows the code of the rules."""
    shown = (*result.page.values(), *result.tables.values(), *result.figures.values())
    places = ("workflow/report/*.rst", "Snakefile", "workflow/rules/*.smk")
    files = tuple(file for place in places for file in sorted(planner.root.glob(place)))
    return Published(
        kind="report",
        name="report",
        folder=result.results,
        settings={"source": result.source},
        modules=("longtail.publish.make",),
        code="",
        cells=(),
        reads=(),
        context={
            "texts": files_digest(files),
            "targets": [item.outputs[0] for item in shown],
        },
        suffixes=("html",),
        built_on=shown,
        files=files,
    )


def refuse_tables_of(main: Path, result: Plan) -> None:
    """Refuse a table of another settings file that would stand in the place of one of params.yaml."""
    taken = table_names(main) & set(result.tables) if main.is_file() else set()
    if taken:
        raise UserError(
            f"{result.source}: tables_in: {result.tables_in}: {', '.join(sorted(taken))} is a table of "
            f"{main.name} too; rename it, or leave tables_in out to publish in {result.results}/"
        )
