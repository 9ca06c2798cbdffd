"""The part of docs/benchmarks.md on image_info, from what was measured; pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from .page import told
from .targets import Verdict

MOST_OF_TIME = 0.25
OURS, PEER = "fleet.images", "community.docker"
EMPTY, NAMED, ALL, LIST = "empty", "by name", "all", "the Engine's list"
TEMPLATE = Path(__file__).with_name("info.md")


@dataclass(frozen=True)
class Row:
    """Seconds of one kind of task on one host, of every run."""

    host: str
    task: str
    seconds: tuple[float, ...]

    @property
    def typical(self) -> float:
        """The median."""
        return median(self.seconds)


def judge(rows: Sequence[Row], images: int) -> list[Verdict]:
    """How our time compares to that of community.docker, whole tasks, on each Engine.

    Of all images, no task can be faster than an empty one and the Engine's list together: where
    that alone is more than is wanted, the verdict says so instead of being missed by the tool.
    """
    took = {(row.host, row.task): row.typical for row in rows}
    verdicts = []
    for host in _once(row.host for row in rows):
        least = took[host, EMPTY] + took[host, LIST]
        for way in (NAMED, ALL):
            peer = took[host, f"{PEER}, {way}"]
            part = took[host, f"{OURS}, {way}"] / peer
            floor = (
                f"no task can be below {least / peer:.2f}" if least / peer > MOST_OF_TIME else ""
            )
            verdicts.append(
                Verdict(
                    f"{images} images of {host}, {way}: part of community.docker's time",
                    f"at most {MOST_OF_TIME:g}",
                    f"{part:.2f}",
                    part <= MOST_OF_TIME,
                    floor,
                )
            )
    return verdicts


def section(
    rows: Sequence[Row], verdicts: Sequence[Verdict], images: int, tags: int, layers: int
) -> str:
    """The part of the page; `tags`: of each repository, `layers`: of each image."""
    took = {(row.host, row.task): row for row in rows}
    hosts = _once(row.host for row in rows)
    lines = [["", *hosts], ["---"] * (len(hosts) + 1)]
    for task in _once(row.task for row in rows):
        cells = [took[host, task] for host in hosts]
        lines.append([task, *(f"{c.typical:.2f} ({_range(c)})" for c in cells)])
    return TEMPLATE.read_text(encoding="utf-8").format(
        images=images,
        tags=tags,
        layers=layers,
        runs=len(rows[0].seconds),
        table=_table(lines),
        verdicts=told(verdicts),
    )


def _once(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))


def _range(row: Row) -> str:
    return f"{min(row.seconds):.2f} to {max(row.seconds):.2f}"


def _table(lines: Sequence[Sequence[str]]) -> str:
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)
