# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The daemon that works in a directory: which process it is, and since when."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

# dockerd has the list of volumes open as long as it runs (volume/service/store.go of moby).
_OPEN = "volumes/metadata.db"
_PROC = Path("/proc")
# In /proc/PID/stat, counted from behind the command's name (proc(5)).
_START_TIME = 19


@dataclass(frozen=True)
class Daemon:
    """A running dockerd. `started` in seconds since 1970, rather too early than too late."""

    pid: int
    started: float

    def mounts(self) -> str:
        """All that is mounted as the daemon sees it, as text; raises OSError."""
        return (_PROC / str(self.pid) / "mountinfo").read_text(encoding="utf-8", errors="replace")


def find(engine_root: Path, socket: str) -> Daemon | None:
    """The dockerd of this DockerRootDir; None where it is not seen, as by others than root.

    `socket`: the path of its socket. It is as old as the daemon or older, by the clock that files
    are dated with, which may have been set since.
    """
    try:
        wanted = os.stat(engine_root / _OPEN)
        made = os.stat(socket).st_mtime
        booted = _booted()
    except OSError:
        return None
    for process in _PROC.iterdir():
        if process.name.isdigit() and _has_open(process, wanted):
            try:
                return Daemon(int(process.name), min(made, booted + _seconds(process)))
            except OSError:
                continue
    return None


def _has_open(process: Path, wanted: os.stat_result) -> bool:
    try:
        if (process / "comm").read_text(encoding="utf-8") != "dockerd\n":
            return False
        return any(_same(file, wanted) for file in (process / "fd").iterdir())
    except OSError:
        return False


def _same(file: Path, wanted: os.stat_result) -> bool:
    try:
        return os.path.samestat(os.stat(file), wanted)
    except OSError:
        return False


def _booted() -> float:
    """When the machine started, in seconds since 1970; raises OSError."""
    for line in (_PROC / "stat").read_text(encoding="ascii").splitlines():
        if line.startswith("btime "):
            return float(line.split()[1])
    raise OSError("/proc/stat has no btime")


def _seconds(process: Path) -> float:
    """How long after the machine a process started; raises OSError."""
    fields = (process / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return int(fields[_START_TIME]) / os.sysconf("SC_CLK_TCK")
