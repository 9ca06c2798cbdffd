"""Where things lie: the cache outlives fleets, the state belongs to one fleet."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

from .console import say

FLEET_DIR = Path(__file__).resolve().parent.parent
REPOSITORY = FLEET_DIR.parent.parent
HOST_FILES = FLEET_DIR / "hostfiles"
UNUSED_SECONDS = 7 * 24 * 3600
RUN_DIR = Path("/run/fleet-images")


def cache_dir(*parts: str) -> Path:
    """A directory of the cache; it holds nothing that cannot be made again."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    path = base.joinpath("fleet-images", *parts)
    path.mkdir(parents=True, exist_ok=True)
    return path


def state_dir(name: str) -> Path:
    """The state of one fleet: keys, inventory, ssh configuration."""
    return REPOSITORY / ".fleet" / name


def key_of(*parts: object) -> str:
    """A short name for content: the same recipe gives the same key, on every machine."""
    return sha256(repr(parts).encode()).hexdigest()[:16]


def forget_unused(directory: Path, current: set[Path]) -> None:
    """Recipes change and leave their old results: drop what no run has asked for in a while."""
    for path in current:
        if path.exists():
            os.utime(path)
    for path in directory.iterdir():
        if path not in current and time.time() - path.stat().st_mtime > UNUSED_SECONDS:
            path.unlink()


@contextmanager
def locked(name: str) -> Iterator[None]:
    """Let only one run at a time make what `name` stands for; a killed run frees it."""
    with open(cache_dir("locks") / name, "w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for another fleet command that holds the lock '{name}'")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
