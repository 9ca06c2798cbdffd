"""One run of one contender, and what it took."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .contenders import Contender
from .stage import BASTION, NODES, Stage

LIMIT = 600  # seconds


@dataclass(frozen=True)
class Took:
    """What a run took: seconds, bytes that each node's link received, peaks of memory (bytes).

    `tasks` is how many tasks reached the node that most tasks reached, `commands` how many round
    trips they took; both 0 without Ansible.
    """

    seconds: float
    received: dict[str, int]
    bastion_peak: int
    node_peak: int
    controller_peak: int
    tasks: int
    commands: int

    @property
    def most_received(self) -> int:
        """The bytes of the node that received most."""
        return max(self.received.values())


def run(stage: Stage, contender: Contender, image: str, place: Path) -> Took:
    """Runs it once; `place` keeps what it printed. Raises SystemExit where it fails."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    os.sync()
    stage.peaks()
    before = stage.received()
    environment = {**contender.environment(place), "BENCH_PROFILE": str(place / "profile")}
    began = time.monotonic()
    code, peak = _measured(contender.command(image), environment, place)
    seconds = time.monotonic() - began
    if code != 0:
        last = "\n".join((place / "output").read_text().splitlines()[-30:])
        raise SystemExit(f"{contender.name} ended with {code}:\n{last}")
    after, peaks = stage.received(), stage.peaks()
    tasks, commands = _reached(place / "profile", stage.addresses())
    return Took(
        seconds,
        {node: after[node] - before[node] for node in NODES},
        peaks[BASTION],
        max(peaks[node] for node in NODES),
        peak,
        tasks,
        commands,
    )


def _measured(command: list[str], environment: Mapping[str, str], place: Path) -> tuple[int, int]:
    """Exit code, and the most memory (bytes) that one of its processes took on this machine."""
    with open(place / "output", "wb") as output:
        child = subprocess.Popen(
            command,
            env=dict(environment),
            cwd=place,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        deadline = time.monotonic() + LIMIT
        usage = _waited(child, deadline)
    return child.returncode, usage.ru_maxrss * 1024


def _waited(child: subprocess.Popen[bytes], deadline: float) -> resource.struct_rusage:
    while True:
        pid, status, usage = os.wait4(child.pid, os.WNOHANG)
        if pid:
            child.returncode = os.waitstatus_to_exitcode(status)
            return usage
        if time.monotonic() > deadline:
            child.terminate()
            deadline += 10
        time.sleep(0.01)


def _reached(profile: Path, addresses: Mapping[str, str]) -> tuple[int, int]:
    """Tasks and round trips on the node that most tasks reached."""
    if not profile.exists():
        return 0, 0
    tasks: dict[str, list[str]] = {addresses[node]: [] for node in NODES}
    for line in profile.read_text().splitlines():
        row = json.loads(line)
        if row["event"] == "command" and row["address"] in tasks:
            tasks[row["address"]].append(row["id"])
    return max((len(set(ids)), len(ids)) for ids in tasks.values())
