"""Tables: our numbers with seeds and spread, beside the printed ones, as .csv, .md, .tex and .html.

A table holds nothing that changes from one making to the next, such as a date or a duration: the same
runs give the same bytes.
"""

from longtail.publish.job import PublishedJob
from longtail.publish.tables.frame import tidy
from longtail.publish.tables.rows import rows


def compute(job: PublishedJob) -> None:
    """Write NAME.csv, NAME.md, NAME.tex and NAME.html.

    Raises:
        UserError: as `check` does.
    """
    from longtail.publish.tables.pages import rendered  # imports this module

    lines = rows(job)
    stem = job.name.rpartition("/")[2]
    (job.folder / f"{stem}.csv").write_text(tidy(lines, job.validation), "utf-8", newline="\n")
    for suffix, text in rendered(job, lines).items():
        (job.folder / f"{stem}.{suffix}").write_text(text, "utf-8", newline="\n")
