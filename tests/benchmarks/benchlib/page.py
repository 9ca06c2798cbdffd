"""docs/benchmarks.md, from what was measured."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .targets import Case, Verdict, image_bytes, own_bytes

CASES = ("cold", "update", "no-op")
if TYPE_CHECKING:
    from .image import Heavy

HEAD, TEMPLATE = (Path(__file__).with_name(name) for name in ("head.md", "side_by_side.md"))
# How the heading of each part begins, in the order of the page.
PARTS = {
    "side": "## One image ",
    "pulls": "## Pulling ",
    "info": "## Telling of ",
    "prune": "## Cleaning up",
    "builds": "## Building for ",
    "many": "## Planning ",
}


@dataclass(frozen=True)
class Facts:
    """What the page tells of the circumstances; all text is ready to print."""

    date: str
    commit: str
    machine: str
    versions: str
    settings: str


def page(facts: Facts, before: str, part: str, text: str) -> str:
    """The page `before` with another text of one of PARTS, which may be measured one by one."""
    heading, _line, body = text.strip().partition("\n")
    stamped = f"{heading}\n\nMeasured {facts.date}, commit {facts.commit}.\n\n{body.strip()}\n"
    kept = {
        name: f"{one.strip()}\n"
        for one in re.split(r"^(?=## )", before, flags=re.MULTILINE)
        for name, begin in PARTS.items()
        if one.startswith(begin)
    }
    parts = {**kept, part: stamped}
    head = HEAD.read_text(encoding="utf-8").format(**asdict(facts))
    return head + "\n".join(parts[name] for name in PARTS if name in parts)


def side_by_side(
    heavy: Heavy,
    measured: Mapping[str, Mapping[str, Case]],
    verdicts: Sequence[Verdict],
) -> str:
    """The part on all contenders; `measured` has contender -> case -> what it took, ours first."""
    ours = next(iter(measured.values()))
    weightless = ours["weightless"]
    return TEMPLATE.read_text(encoding="utf-8").format(
        size=_bytes(heavy.size),
        compressed=_bytes(heavy.compressed),
        missing=_bytes(heavy.missing),
        tables="\n".join(_tables(measured)),
        own=_bytes(own_bytes(weightless)),
        moved=_bytes(image_bytes(ours["update"], weightless)),
        verdicts=told(verdicts),
    )


def _tables(measured: Mapping[str, Mapping[str, Case]]) -> Sequence[str]:
    columns = {
        "Seconds": _seconds,
        "Bytes on a node's link": lambda case: _bytes(case.received),
        "Peak memory: bastion, node, controller": _peaks,
        "Tasks that reach a node, and their round trips": _tasks,
    }
    return [
        f"**{title}**\n\n"
        + _table(
            ["", *CASES],
            [
                [name, *(cell(cases[case]) if case in cases else "" for case in CASES)]
                for name, cases in measured.items()
            ],
        )
        for title, cell in columns.items()
    ]


def _seconds(case: Case) -> str:
    runs = ", ".join(f"{one:.1f}" for one in case.seconds)
    return runs if len(case.seconds) == 1 else f"{case.typical:.1f} ({runs})"


def _peaks(case: Case) -> str:
    peaks = (case.bastion_peak, case.node_peak, case.controller_peak)
    return ", ".join(_bytes(peak) if peak else "-" for peak in peaks)


def _tasks(case: Case) -> str:
    return f"{case.tasks}, {case.commands}" if case.tasks else "-"


def told(verdicts: Sequence[Verdict]) -> str:
    """The table of targets."""
    rows = [
        [one.target, one.wanted, one.found, one.state.replace("missed", "**missed**", 1)]
        for one in verdicts
    ]
    return _table(["target", "wanted", "found", ""], rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def _bytes(count: int) -> str:
    """Decimal units, as registries and disks count."""
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            return f"{count / size:.{2 if unit == 'GB' else 1}f} {unit}"
    return f"{count} B"
