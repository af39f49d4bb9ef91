"""Tables: our numbers with seeds and spread, beside the printed ones, as .csv, .md, .tex and .html.

A table holds nothing that changes from one making to the next, such as a date or a duration: the same
runs give the same bytes. The results of its runs are one frame; grouped by method and imbalance, and joined
with what the paper prints, it becomes the rows of the table; these become CSV, and by `pivot` the pages.
"""

from longtail.publish.job import PublishedJob
from longtail.publish.tables.pages import rendered
from longtail.publish.tables.rows import shown_results, table_rows
from longtail.publish.tables.tidy import tidy


def compute(job: PublishedJob) -> None:
    """Write NAME.csv, NAME.md, NAME.tex and NAME.html.

    Raises:
        UserError: as `check` does, and if of a method no test image was measured.
    """
    results = shown_results(job)
    rows = table_rows(job, results)
    stem = job.name.rpartition("/")[2]
    texts = {"csv": tidy(rows, job.validation), **rendered(job, rows, results)}
    for suffix, text in texts.items():
        (job.folder / f"{stem}.{suffix}").write_text(text, "utf-8", newline="\n")
