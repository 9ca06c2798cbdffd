"""The part of docs/benchmarks.md on image_prune, from what was measured; pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .page import told
from .targets import Verdict

# Of the bytes measured, and beside that in bytes.
PART, BESIDES = 0.001, 10**6
MOST_CPU, MOST_MEMORY, AT = 2.0, 100 * 10**6, 500
# Time over images: how much more each image may cost where there are more of them.
GROWTH = 1.25
TEMPLATE = Path(__file__).with_name("prune.md")


@dataclass(frozen=True)
class Freed:
    """Bytes of one Engine's clean-up; `reclaimable` and `said` are Docker's own words for them."""

    host: str
    predicted: int
    predicted_max: int | None
    measured: int
    reported: int | None
    reclaimable: str
    said: str
    after_docker: int


@dataclass(frozen=True)
class Planned:
    """A plan over `images`, of which `goes` go: seconds of processor time, bytes of memory."""

    images: int
    goes: int
    cpu: float
    peak: int


def judge(freed: Sequence[Freed], planned: Sequence[Planned]) -> list[Verdict]:
    """Whether bytes are as predicted, and plans cheap enough."""
    verdicts = [_as_predicted(one) for one in freed]
    by_count = {one.images: one for one in planned}
    one, most = by_count[AT], max(planned, key=lambda plan: plan.images)
    base = min(planned, key=lambda plan: plan.images).cpu
    growth = (most.cpu - base) / most.images / ((one.cpu - base) / one.images)
    return [
        *verdicts,
        Verdict(
            f"a plan over {AT} images: seconds of processor time",
            f"at most {MOST_CPU:g}",
            f"{one.cpu:.2f}",
            one.cpu <= MOST_CPU,
        ),
        Verdict(
            f"a plan over {AT} images: bytes of memory",
            f"at most {MOST_MEMORY:,}",
            f"{one.peak:,}",
            one.peak <= MOST_MEMORY,
        ),
        Verdict(
            f"time for an image of {most.images:,}, against one of {AT}",
            f"at most {GROWTH:g} x",
            f"{growth:.2f} x",
            growth <= GROWTH,
        ),
    ]


def _as_predicted(one: Freed) -> Verdict:
    most = round(one.measured * PART) + BESIDES
    apart = abs(one.measured - one.predicted)
    exact = one.predicted == one.predicted_max
    return Verdict(
        f"{one.host}: bytes between predicted and measured",
        f"at most {most:,}",
        f"{apart:,}",
        exact and apart <= most,
    )


def section(
    freed: Sequence[Freed], planned: Sequence[Planned], layers: int, verdicts: Sequence[Verdict]
) -> str:
    """The part of the page; `layers`: of each image."""
    head = "| host | predicted | measured | reported | system df | image prune says | and frees |\n"
    lines = [
        f"| {one.host} | {one.predicted:,} | {one.measured:,} | {_count(one.reported)} |"
        f" {one.reclaimable} | {one.said} | {one.after_docker:,} |\n"
        for one in freed
    ]
    plans = [
        f"| {one.images:,} | {one.goes:,} | {one.cpu:.2f} | {one.peak / 10**6:.0f} MB |\n"
        for one in planned
    ]
    return TEMPLATE.read_text(encoding="utf-8").format(
        hosts=len(freed),
        table=head + "| --- " * 7 + "|\n" + "".join(lines),
        layers=layers,
        alone=f"{planned[0].cpu:.2f} s",
        plans="| images | go | seconds | memory |\n| --- | --- | --- | --- |\n" + "".join(plans),
        verdicts=told(verdicts),
    )


def _count(number: int | None) -> str:
    return "-" if number is None else f"{number:,}"
