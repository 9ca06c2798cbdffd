"""The outer Engine that carries the fleet: a running one, or one that is started here."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from . import prerequisites, traces
from .console import FleetError, run, say, step, wait_until
from .places import RUN_DIR, cache_dir

OWN_SOCKET = RUN_DIR / "docker.sock"
OWN_PID = RUN_DIR / "docker.pid"
BEFORE = RUN_DIR / "network-before.json"
START_SECONDS = 60
STOP_SECONDS = 40


class Engine:
    """A Docker Engine, by its command line client."""

    def __init__(self, address: str) -> None:
        self.address = address

    def docker(
        self,
        *args: str | Path,
        timeout: float = 120,
        check: bool = True,
        stdin: IO[bytes] | bytes | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run the client against this Engine, whatever the environment says."""
        command = ["docker", "-H", self.address, *args]
        env = {k: v for k, v in os.environ.items() if k not in ("DOCKER_CONTEXT", "DOCKER_HOST")}
        return run(command, timeout=timeout, check=check, stdin=stdin, env=env)

    def stream(self, args: Sequence[str], out: IO[bytes], timeout: float = 300) -> None:
        """Run a client command whose output is data, straight into a file."""
        try:
            subprocess.run(
                ["docker", "-H", self.address, *args], stdout=out, timeout=timeout, check=True
            )
        except subprocess.SubprocessError as error:
            raise FleetError(f"docker {' '.join(args)}: {error}") from error

    def answers(self) -> bool:
        """Whether an Engine is there at all."""
        return self.docker("version", timeout=20, check=False).returncode == 0

    def has_image(self, reference: str) -> bool:
        """Whether the image is there already."""
        return self.docker("image", "inspect", reference, check=False).returncode == 0

    def lines(self, *args: str) -> list[str]:
        """The lines that a listing command prints."""
        return self.docker(*args).stdout.split()


def find() -> Engine | None:
    """A running Engine: the user's, the one started here before, or this machine's."""
    addresses = [os.environ.get("DOCKER_HOST", "")]
    addresses += [f"unix://{path}" for path in (OWN_SOCKET, "/var/run/docker.sock")]
    for address in filter(None, addresses):
        if address.startswith("unix://") and not Path(address[7:]).is_socket():
            continue
        prerequisites.ensure(prerequisites.CLIENT)
        if (engine := Engine(address)).answers():
            return engine
    return None


def ensure() -> Engine:
    """A running Engine; starts one in the background where none runs."""
    if engine := find():
        return engine
    prerequisites.ensure(prerequisites.ENGINE)
    if engine := find():  # the package may have started its own
        return engine
    with step("started the outer Engine"):
        return _start()


def own_pid() -> int | None:
    """The process of the Engine that was started here, if it still is that process."""
    try:
        pid = int(OWN_PID.read_text())
        command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (OSError, ValueError):
        return None
    return pid if str(OWN_PID).encode() in command else None


def stop() -> bool:
    """End the Engine that was started here, and no other process; take away what it left."""
    pid = own_pid()
    if pid is not None:
        os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + STOP_SECONDS
        while _alive(pid):  # the pidfile goes before the process does
            if time.monotonic() > deadline:
                raise FleetError(f"The outer Engine (process {pid}) does not end; see {_log()}.")
            time.sleep(0.2)
    traces.remove(BEFORE)
    traces.remove_handlers()
    for mount in (RUN_DIR / "exec" / "netns").glob("*"):
        run(["umount", mount], check=False)
    shutil.rmtree(RUN_DIR, ignore_errors=True)
    return pid is not None


def _start() -> Engine:
    RUN_DIR.mkdir(parents=True, exist_ok=True)
    OWN_PID.unlink(missing_ok=True)
    traces.remember(BEFORE)
    command = [
        *("dockerd", "--host", f"unix://{OWN_SOCKET}", "--pidfile", str(OWN_PID)),
        *("--exec-root", str(RUN_DIR / "exec"), "--data-root", str(cache_dir("engine", "data"))),
    ]
    with open(_log(), "ab") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    engine = Engine(f"unix://{OWN_SOCKET}")

    def ready() -> bool:
        if process.poll() is not None:
            raise FleetError(f"The outer Engine ended at once; its log is {_log()}.")
        return OWN_SOCKET.is_socket() and engine.answers()

    wait_until(f"The outer Engine (log: {_log()})", ready, START_SECONDS)
    say(f"  the outer Engine is process {process.pid}; its log is {_log()}")
    return engine


def _log() -> Path:
    return cache_dir("engine") / "dockerd.log"


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"
