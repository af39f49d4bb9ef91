"""The page: index.html, everything that a person looks at first, in one file that needs no network.

The same runs give the same bytes: it holds no date, and pictures are written anew at one size. A page that is
made where the picture files are not says so, and has no thumbnails.
"""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from hashlib import sha256
from itertools import chain
from pathlib import Path
from statistics import fmean
from typing import Any

from markupsafe import Markup
from PIL import Image

from longtail.data.held_out import validation_words
from longtail.groups import group_sizes
from longtail.publish.bootstrap import RESAMPLES
from longtail.publish.job import Cell, PublishedJob, cells_of
from longtail.publish.page.answers import answers, interval, pooled
from longtail.publish.page.card import model_card
from longtail.publish.page.choice import ChosenMethod, choices
from longtail.publish.page.errors import WORST, errors, worst
from longtail.publish.page.pictures import SIDE, Gallery
from longtail.publish.page.provenance import provenance
from longtail.publish.page.scores import PRINTED, score_tables
from longtail.publish.page.shown import named_rows, share
from longtail.publish.page.suspects import label_issues, near_duplicates
from longtail.publish.thumbnails import data_uri
from longtail.rendering import environment
from longtail.settings.published import Groups, Table
from longtail.settings.recipe import Recipe
from longtail.settings.split import Validation

TEMPLATES = "publish/page/templates"


def compute(planned: Mapping[str, Any], folder: Path) -> None:
    """Write index.html.

    Args:
        planned: what the plan says of the page.
        folder: where it is written.

    Raises:
        UserError: if a run, a model or a figure is missing or damaged, or a CSV file of suspects is not one.
    """
    content = rendered(view(planned, cells_of(dict(planned)), folder))
    (folder / Path(planned["outputs"][0]).name).write_bytes(content)


def view(planned: Mapping[str, Any], cells: Sequence[Cell], folder: Path) -> dict[str, Any]:
    """The parts of the page.

    Args:
        planned: what the plan says of the page.
        cells: the runs that it reads, in the order in which `parts` of the plan count them.
        folder: where it is written.
    """
    context = planned["context"]
    parts = [_jobs(part, cells[slice(*part["cells"])], folder) for part in context["parts"]]
    jobs = list(chain(*parts))
    main = next(job for job in jobs if job.cells)
    # without tables of its own that show a run, a settings file has those of its sweeps
    own = parts[0] if any(job.cells for job in parts[0]) else jobs
    found = choices(context["models"], own, cells[slice(*context["parts"][0]["cells"])])
    marked = _marked(found)
    tables = [score_tables(job, marked.get(job.name, {})) for job in jobs if job.cells]
    gallery = Gallery(cells[0].runs["acquire"])
    shown: dict[str, Any] = {
        "title": Path(planned["folder"]).name if planned["folder"] != "results" else "results",
        "source": planned["settings"]["source"],
        "identity": planned["identity"],
        "summary": _summary(main, cells),
        "tables": tables,
        "printed": any(PRINTED in part["heads"] for table in tables for part in table["at"]),
        "reference": any(job.settings.against for job in jobs),
        "resamples": f"{RESAMPLES:,}",
        "validation": main.validation,
        "chosen": [_chosen(main, one) for one in found],
        "errors": [_errors(main, one, gallery) for one in found],
        "gallery": gallery,
        "side": SIDE,
        "issues": None,
        "pairs": None,
        "suspects": context["suspects"],
        "figures": [_figure(figure) for figure in context["figures"]],
        "provenance": provenance(cells),
    }
    for part, read in (("issues", label_issues), ("pairs", near_duplicates)):
        if file := context["suspects"].get(part):
            shown[part] = read(Path(file), gallery)
    return shown


def rendered(parts: Mapping[str, Any]) -> bytes:
    """The page of its parts. Whatever is not ours, such as names of classes and files, is escaped.

    Nothing but the page's own style and script may act in it, and nothing is loaded: a policy says so to the
    browser, by their hashes.
    """
    pages = environment(TEMPLATES, escaping=True)
    style, script = (pages.get_template(name).render().strip() for name in ("page.css", "page.js"))
    policy = (
        f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src {_hash(script)}; "
        "base-uri 'none'; form-action 'none'"
    )
    text = pages.get_template("index.html").render(
        parts, style=Markup(style), script=Markup(script), policy=Markup(policy)
    )
    # names of files may hold bytes that are no text
    return (text.strip() + "\n").encode("utf-8", "backslashreplace")


def _hash(text: str) -> str:
    return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"


def _jobs(part: Mapping[str, Any], cells: Sequence[Cell], folder: Path) -> list[PublishedJob]:
    """The tables of the settings file, or of a sweep, with their runs."""
    jobs = []
    for name, block in part["tables"].items():
        table = Table.model_validate(block)
        shown = [
            cell
            for method in table.methods
            for cell in cells
            if cell.method == method and table.shows(cell.ratio)
        ]
        jobs.append(
            PublishedJob(
                name=name,
                kind="table",
                settings=table,
                dataset=part["dataset"],
                groups=Groups.model_validate(part["groups"]),
                validation=validation_words(Validation.model_validate(part["validation"])),
                cells=shown,
                recipes={key: Recipe.model_validate(recipe) for key, recipe in part["recipes"].items()},
                methods=part["methods"],
                folder=folder,
            )
        )
    return jobs


def _marked(found: Sequence[ChosenMethod]) -> dict[str, dict[str, str]]:
    """The methods that validation images chose: by table, and by the imbalance in words."""
    marked: dict[str, dict[str, str]] = {}
    for one in found:
        if one.by_validation:
            marked.setdefault(one.table, {})[one.cells[0].imbalance_words] = one.method
    return marked


def _summary(job: PublishedJob, cells: Sequence[Cell]) -> list[tuple[str, str]]:
    """What was compared, in a few numbers; of several imbalances those of the first one."""
    first = cells[0]
    counts = first.frame("split", "counts.csv")
    sizes = group_sizes(counts["train"], **job.groups.resolved())
    imbalances = list(dict.fromkeys(cell.imbalance_words for cell in cells))
    seeds = sorted({cell.seed for cell in cells})
    subsets = sorted({cell.subset_seed for cell in cells})
    groups = ", ".join(f"{words}: {sizes[name]:,}" for name, words in job.group_words().items())
    rows = [
        ("dataset", job.dataset),
        ("imbalance", ", ".join(imbalances)),
        ("classes", f"{len(counts):,}"),
        ("training images", f"{counts['train'].sum():,}, {counts['train'].max():,} to "
                            f"{counts['train'].min():,} a class"),
        ("test images", f"{counts['test'].sum():,}"),
        ("validation images", f"{counts['validation'].sum():,}; {job.validation}"),
        ("groups of classes", groups),
        ("methods", f"{len({cell.method for cell in cells}):,}"),
        ("training seeds", ", ".join(map(str, seeds))),
    ]  # fmt: skip
    if len(subsets) > 1:
        rows.append(("subsets", ", ".join(map(str, subsets))))
    return rows


def _chosen(job: PublishedJob, chosen: ChosenMethod) -> dict[str, Any]:
    right = [answers(cell).right.mean() for cell in chosen.cells]
    bounds = interval(chosen.cells)
    return {
        "is": chosen,
        "place": _place(chosen),
        "accuracy": share(fmean(right)),
        "interval": f"{share(bounds[0]).text} to {share(bounds[1]).text}" if bounds else "",
        "runs": len(right),
        "card": model_card(job, chosen) if chosen.folder else None,
    }


def _errors(job: PublishedJob, chosen: ChosenMethod, gallery: Gallery) -> dict[str, Any]:
    answered = pooled(chosen.cells)
    found = errors(job, chosen, answered)
    names = found["names"]
    images = [
        {
            "name": gallery.name(row.sample),
            "image": gallery.tested(row.sample),
            "given": names[row.label],
            "answer": names[row.predicted],
            "confidence": share(row.confidence),
            "wrong": row.wrong,
            "runs": row.runs,
        }
        for row in named_rows(worst(answered).head(WORST))
    ]
    left = max(0, found["wrong_images"] - len(images))
    return {"is": chosen, "place": _place(chosen), "worst": images, "worst_left": left, **found}


def _place(chosen: ChosenMethod) -> str:
    seeds = [cell.seed for cell in chosen.cells]
    first = chosen.cells[0]
    imbalance = first.imbalance_words if first.ratio is not None else f"{first.imbalance} imbalance"
    return f"{imbalance}, seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"


def _figure(figure: Mapping[str, str]) -> dict[str, Any]:
    """A figure inside the page, at the size at which its letters have theirs."""
    file = Path(figure["file"])
    with Image.open(file, formats=["PNG"]) as picture:
        width, height = picture.size
    caption = " ".join(figure["caption"].replace("``", "").split())
    title = figure["name"].replace("_", " ")
    return {
        "title": title[0].upper() + title[1:],
        "uri": data_uri(file.read_bytes(), "image/png"),
        "width": round(width * 0.64),  # 150 dots an inch, a pixel of a page is 1/96 inch
        "height": round(height * 0.64),
        "caption": caption,
        "alt": f"{title[0].upper() + title[1:]}: {caption.partition('. ')[0]}" if caption else title,
    }
