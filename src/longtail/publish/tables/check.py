"""What is checked of a table's settings before anything runs."""

from longtail.errors import UserError
from longtail.publish.printed import numbers
from longtail.publish.printed.numbers import Printed
from longtail.settings.published import Row, Table


def check(name: str, table: Table) -> None:
    """Check that no row stands twice, that every row has something to show, and that `against` is a row.

    Raises:
        UserError: naming the row, and the labels that the paper has.
    """
    known = {(line.section, line.label) for line in printed_numbers(table)}
    named = [(row.section, row.label) for row in table.rows]
    for index, (row, place) in enumerate(zip(table.rows, named, strict=True)):
        if place in named[:index]:
            raise UserError(f"tables.{name}.rows[{index}]: {': '.join(place)} is already in the table")
        if row.method is None and row.linear is None and not (row.printed and place in known):
            labels = ", ".join(sorted(": ".join(pair) for pair in known)) or "no label"
            raise UserError(
                f"tables.{name}.rows[{index}]: {': '.join(place)} has no method and is not printed in "
                f"{table.printed or 'a paper'}, which has {labels}"
            )
    if table.against_previous:
        return
    if table.against is not None and table.against not in (row.label for row in table.rows):
        labels = ", ".join(dict.fromkeys(row.label for row in table.rows))
        raise UserError(
            f"tables.{name}.against: {table.against!r} is not the label of a row: {labels}; or previous"
        )
    for section in dict.fromkeys(row.section for row in table.rows):
        reference = reference_row(name, table, section)
        if reference is not None and compared_method(table, reference) is None:
            what = "linear" if main_quantity(table) == "linear" else "method"
            raise UserError(
                f"tables.{name}.against: {reference.label!r} is a row without {what}, to compare with"
            )


def reference_row(name: str, table: Table, section: str) -> Row | None:
    """The row that `against` means in a section: its own of that label, else the only one of the table."""
    found = [row for row in table.rows if row.label == table.against]
    own = [row for row in found if row.section == section]
    if len(own or found) > 1:
        sections = ", ".join(row.section for row in found)
        raise UserError(f"tables.{name}.against: {table.against!r} stands in {sections}, not in {section}")
    return next(iter(own or found), None)


def main_quantity(table: Table) -> str:
    """What the differences to another row are of: accuracy, or linear in a table of nothing else."""
    return "linear" if table.columns and set(table.columns) == {"linear"} else "accuracy"


def compared_method(table: Table, row: Row) -> str | None:
    """The method by which a row is compared; None for a row that has none."""
    return row.linear if main_quantity(table) == "linear" else row.method


def printed_numbers(table: Table) -> list[Printed]:
    """What the paper prints in a table; nothing for a table of ours alone."""
    return numbers.read(table.printed) if table.printed else []
