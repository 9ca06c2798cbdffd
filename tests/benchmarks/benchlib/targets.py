"""What has to be reached; pure. A target that is missed fails the benchmark."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

UPDATE_FASTER, COLD_FASTER = 20.0, 2.0
MOST_OF_BYTES = 1.02
BYTES_BESIDES = 256 * 1024
MOST_TASKS = 4


@dataclass(frozen=True)
class Case:
    """What one contender took for one case: seconds of each run, the rest of the run at the median.

    `received` is what the node's link received that received most, `sent` what a report says of
    image bytes in it (None: no report). In bytes.
    """

    seconds: tuple[float, ...]
    received: int
    sent: int | None
    bastion_peak: int
    node_peak: int
    controller_peak: int
    tasks: int
    commands: int

    @property
    def typical(self) -> float:
        """The median of the seconds."""
        return median(self.seconds)


@dataclass(frozen=True)
class Verdict:
    """A target, what was wanted of it and found, and whether that is enough.

    `floor`: why nothing could reach it, from what was measured in the same run.
    """

    target: str
    wanted: str
    found: str
    reached: bool
    floor: str = ""

    @property
    def fails(self) -> bool:
        """Whether it is missed, though it could be reached."""
        return not (self.reached or self.floor)

    @property
    def state(self) -> str:
        """The verdict in words."""
        if self.reached:
            return "reached"
        return f"missed; {self.floor}" if self.floor else "missed"


def own_bytes(weightless: Case) -> int:
    """What Ansible moves to a node for an update that weighs next to nothing."""
    return weightless.received - (weightless.sent or 0)


def image_bytes(case: Case, weightless: Case) -> int:
    """What a run moved to a node besides Ansible's own."""
    return max(0, case.received - own_bytes(weightless))


def judge(
    ours: dict[str, Case], peer: dict[str, Case], compressed: int, missing: int
) -> Sequence[Verdict]:
    """Compares; `compressed` and `missing` are bytes of the whole image and of an update.

    The cases are cold, update, no-op and, of ours, weightless.
    """
    update = image_bytes(ours["update"], ours["weightless"])
    most = round(MOST_OF_BYTES * missing) + BYTES_BESIDES
    most_cold = round(MOST_OF_BYTES * compressed)
    cold, no_op = ours["cold"], ours["no-op"]
    return [
        _faster("update", ours, peer, UPDATE_FASTER),
        _most("update: bytes per node, Ansible's own aside", update, most),
        _faster("cold", ours, peer, COLD_FASTER),
        _most("cold: bytes per node, Ansible's own included", cold.received, most_cold),
        _most("no-op: bytes of images per node", no_op.sent or 0, 0),
        _most(
            "no-op: bytes per node, against an update that weighs nothing",
            no_op.received,
            own_bytes(ours["weightless"]),
        ),
        _most("no-op: tasks that reach a node", no_op.tasks, MOST_TASKS),
    ]


def _faster(case: str, ours: dict[str, Case], peer: dict[str, Case], wanted: float) -> Verdict:
    ratio = peer[case].typical / ours[case].typical
    return Verdict(
        f"{case}: times faster than community.docker",
        f"at least {wanted:g}",
        f"{ratio:.1f}",
        ratio >= wanted,
    )


def _most(target: str, found: int, most: int) -> Verdict:
    return Verdict(target, f"at most {most:,}", f"{found:,}", found <= most)
