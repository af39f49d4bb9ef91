"""What a measurement says: rows, as a table on the screen and as latest.json."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any, Literal

LATEST = Path(__file__).parent / "latest.json"
PAGE = Path(__file__).parents[1] / "docs" / "explanation" / "performance.md"
BEGIN, END = "<!-- figures of benchmarks/latest.json -->", "<!-- end of figures -->"
SIDES = ("ours", "peers")


@dataclass(frozen=True)
class Goal:
    """What a row has to reach: at least `floor`, better `aim`, of the ratio or of our own figure."""

    of: Literal["ratio", "ours"]
    floor: float
    aim: float

    @property
    def words(self) -> str:
        """As the table has it."""
        sign = ">=" if self.aim >= self.floor else "<="
        return f"{sign} {self.floor:,g}{'x' if self.of == 'ratio' else ''} ({self.aim:,g})"

    def verdict(self, value: float) -> str:
        """What a value amounts to."""
        turn = 1 if self.aim >= self.floor else -1
        return (
            "aim"
            if turn * value >= turn * self.aim
            else "met"
            if turn * value >= turn * self.floor
            else "missed"
        )


@dataclass(frozen=True)
class Row:
    """One figure, the peers' beside it where they have one.

    Attributes:
        part, name: where it was measured, and what.
        unit: of `ours` and `peers`.
        ours, peers: medians; None where not measured, as `note` then says.
        ratio: how many times better ours is, the median of paired ratios; None without a peer.
        spread: the smallest and the largest of these.
        goal: what it has to reach, if that was set.
        clock: "cpu" seconds or "wall" seconds.
        note: how to read it.
        runs: every single measurement.
        load: median load average while it was measured, the benchmark's own share included.
        peak_mb: memory of our side.
    """

    part: str
    name: str
    unit: str
    ours: float | None = None
    peers: float | None = None
    ratio: float | None = None
    spread: tuple[float, float] | None = None
    goal: Goal | None = None
    clock: str = "cpu"
    note: str = ""
    runs: dict[str, list[float]] = field(default_factory=dict)
    load: float | None = None
    peak_mb: float | None = None

    @property
    def verdict(self) -> str:
        """Whether the goal is reached; empty without one or without a figure."""
        value = self.ratio if self.goal and self.goal.of == "ratio" else self.ours
        return self.goal.verdict(value) if self.goal and value is not None else ""

    @property
    def record(self) -> dict[str, Any]:
        """As JSON data; figures to four digits."""
        goal = self.goal
        said = {key: value for key, value in asdict(self).items() if key != "goal"}
        return {
            **{key: _short(value) for key, value in said.items()},
            "floor": goal and goal.floor,
            "aim": goal and goal.aim,
            "floor_of": goal and goal.of,
            "verdict": self.verdict,
        }


def compared(
    row: Row, ours: Sequence[float], peers: Sequence[float] = (), *, higher_is_better: bool = False
) -> Row:
    """The row with medians of paired measurements, and the median of their ratios."""
    runs = {"ours": list(ours)}
    if not peers:
        return replace(row, ours=median(ours), runs=runs)
    ratios = [(a / b if higher_is_better else b / a) for a, b in zip(ours, peers, strict=True)]
    return replace(
        row,
        ours=median(ours),
        peers=median(peers),
        ratio=median(ratios),
        spread=(min(ratios), max(ratios)),
        runs=runs | {"peers": list(peers)},
    )


def table(rows: Sequence[Row]) -> str:
    """The rows as aligned text."""
    lines = [["", "ours", "peers", "unit", "ratio (range)", "floor (aim)", "", "load"]]
    for row in rows:
        ratio = ""
        if row.ratio is not None:
            low, high = row.spread or (row.ratio, row.ratio)
            ratio = f"{_figure(row.ratio)}x ({_figure(low)}-{_figure(high)})"
        lines.append(
            [
                f"{row.part}: {row.name}",
                _figure(row.ours) + _range(row.ours, row.runs) if row.ours is not None else row.note,
                _figure(row.peers),
                row.unit if row.ours is not None else "",
                ratio,
                row.goal.words if row.goal else "",
                row.verdict,
                _figure(row.load),
            ]
        )
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    text = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines]
    return "\n".join(line.rstrip() for line in text)


def write(path: Path, hardware: dict[str, Any], rows: Sequence[Row], commit: str | None) -> None:
    """Put the rows of whole parts into a file, with the hardware and the commit.

    Parts that were not measured now stay, of whatever machine. So does a part that one with a GPU measured
    where this machine, without one, has no figure of it.
    """
    parts: dict[str, dict[str, Any]] = {}
    if path.is_file():
        parts = json.loads(path.read_text("utf-8"))["parts"]
    for name in dict.fromkeys(row.part for row in rows):
        own = [row.record for row in rows if row.part == name]
        if _measured(own) or not _measured(parts.get(name, {"rows": []})["rows"]):
            parts[name] = {"commit": commit, "hardware": hardware, "rows": own}
    found = {"parts": parts}
    path.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    if path == LATEST:
        document(PAGE, found)


def document(path: Path, latest: dict[str, Any]) -> None:
    """Put the figures of latest.json into a page, between its two marks, and what they were measured on."""
    head, _, rest = path.read_text("utf-8").partition(BEGIN)
    _, _, tail = rest.partition(END)
    lines = ["| | ours | peers | ratio (range) | floor (aim) | | load |", "|:--|--:|--:|--:|--:|:--|--:|"]
    rows = [row for part in latest["parts"].values() for row in part["rows"]]
    for row in rows:
        figures = [_figure(row[side]) + f" {row['unit']}" if row[side] is not None else "" for side in SIDES]
        figures[0] = figures[0] + _range(row["ours"], row["runs"]) or row["note"]
        low, high = row["spread"] or (None, None)
        ratio = (
            f"{_figure(row['ratio'])}x ({_figure(low)}-{_figure(high)})" if row["ratio"] is not None else ""
        )
        goal = Goal(row["floor_of"], row["floor"], row["aim"]).words if row["floor"] is not None else ""
        cells = [f"{row['part']}: {row['name']}", *figures, ratio, goal, row["verdict"], _figure(row["load"])]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "| parts | machine | commit |", "|:--|:--|:--|", *_origins(latest["parts"])]
    path.write_text("\n".join([f"{head}{BEGIN}", *lines, f"{END}{tail}"]), "utf-8")


def _origins(parts: dict[str, dict[str, Any]]) -> list[str]:
    """A line for each machine and commit: which parts are of them."""
    of: dict[tuple[str, str], list[str]] = {}
    for name, part in parts.items():
        of.setdefault((_machine(part["hardware"]), part["commit"] or "unknown"), []).append(name)
    return [
        f"| {', '.join(names) if len(of) > 1 else 'all'} | {machine} | {commit} |"
        for (machine, commit), names in of.items()
    ]


def _machine(facts: dict[str, Any]) -> str:
    flags = f" ({', '.join(facts['cpu_flags'])})" if facts["cpu_flags"] else ""
    size = f"{facts['cores']} cores, {facts['memory_gb']} GB, GPU: {facts['gpu'] or 'none'}"
    return f"{facts['cpu']}{flags}, {size}; {facts['precision']}, torch {facts['torch']}"


def _measured(rows: Sequence[dict[str, Any]]) -> bool:
    return any(row["ours"] is not None for row in rows)


def _range(ours: float | None, runs: dict[str, list[float]]) -> str:
    """The smallest and the largest of several measurements that no peer stands beside."""
    own = runs.get("ours", [])
    if ours is None or "peers" in runs or len(own) < 2:
        return ""
    return f" ({_figure(min(own))}-{_figure(max(own))})"


def _figure(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _short(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, dict):
        return {key: _short(item) for key, item in value.items()}
    return [_short(item) for item in value] if isinstance(value, list | tuple) else value
