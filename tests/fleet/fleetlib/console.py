"""Run commands and tell the user what goes on; every failure is one clear sentence."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any


class FleetError(Exception):
    """Something that the user can understand and act on; shown without a traceback."""


def say(text: str) -> None:
    """Progress goes to stderr, so that stdout stays free for answers such as JSON."""
    print(text, file=sys.stderr, flush=True)


@contextmanager
def step(title: str) -> Iterator[None]:
    """Announce the end of a step with its seconds: slow mirrors show at once."""
    start = time.monotonic()
    try:
        yield
    except BaseException:
        say(f"  FAILED {title} after {time.monotonic() - start:.1f} s")
        raise
    say(f"  {time.monotonic() - start:6.1f} s  {title}")


def run(
    args: Sequence[str | Path],
    *,
    timeout: float = 120,
    check: bool = True,
    stdin: IO[bytes] | bytes | None = None,
    env: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end and keep what it printed, within a limit of time."""
    command = [str(a) for a in args]
    feed: dict[str, Any] = {"stdin": stdin or subprocess.DEVNULL}
    if isinstance(stdin, bytes):
        feed = {"input": stdin}
    try:
        done: subprocess.CompletedProcess[bytes] = subprocess.run(
            command, check=False, capture_output=True, timeout=timeout, env=env, **feed
        )
    except subprocess.TimeoutExpired as late:
        raise FleetError(f"{_short(command)} did not end within {timeout:.0f} s.") from late
    except FileNotFoundError as gone:
        raise FleetError(f"The program {command[0]} is not installed.") from gone
    out = done.stdout.decode(errors="replace")
    err = done.stderr.decode(errors="replace")
    if check and done.returncode != 0:
        last = (err.strip() or out.strip() or "no output").splitlines()[-4:]
        raise FleetError(f"{_short(command)} ended with {done.returncode}: {' | '.join(last)}")
    return subprocess.CompletedProcess(command, done.returncode, out, err)


def wait_until(what: str, ready: Callable[[], bool], seconds: float) -> None:
    """Ask again until it is so; say what is missing when it never comes."""
    deadline = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > deadline:
            raise FleetError(f"{what} did not become ready within {seconds:.0f} s.")
        time.sleep(0.2)


def _short(command: Sequence[str]) -> str:
    text = " ".join(command)
    return text if len(text) <= 160 else text[:157] + "..."
