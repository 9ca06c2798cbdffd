# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A way for a host to a port of another one: reverse SSH forwarding, as long as a task lasts.

Both ends are SSH connections from the controller, with processes of their own beside those of
Ansible: one brings the port of the relay's host to a socket here, the other offers the socket on
the loopback interface of the task's host. Each runs `cat` on the far side, which ends with its
input, so that no tunnel outlives this process, however it ends.
"""

from __future__ import annotations

import contextlib
import re
import shlex
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase

from ansible_collections.fleet.images.plugins.plugin_utils._connections import connection_to

Vars = dict[str, Any]

# Seconds for a connection to come up, its jump hosts included.
PATIENCE = 60.0
_ALLOCATED = re.compile(r"Allocated port (\d+) for remote forward")
_READY = "fleet-images-tunnel-is-open"
# Tries to connect: an sshd with many connections at once turns some away (MaxStartups).
_TRIES = 3
_OTHER_WAY = "let airgap_transport be bundle or network, or bring the images with the role airgap"


class TunnelError(Exception):
    """There is no tunnel; the message says between which hosts, why, and the other way."""


@dataclass(frozen=True)
class _Way:
    """One ssh that is connected, what it said so far, and between which hosts."""

    process: subprocess.Popen[bytes]
    said: list[str]
    what: str


@dataclass(frozen=True)
class Tunnel:
    """An open tunnel: the address on the task's host, `127.0.0.1:PORT`, and its ends."""

    address: str
    ways: Sequence[_Way]

    @property
    def broken(self) -> str:
        """Why it is open no more, in a sentence; empty while it is."""
        for way in self.ways:
            if way.process.poll() is not None:
                said = " ".join("".join(way.said[-3:]).split())
                return (
                    f"the tunnel {way.what} was wanted to the end, but its ssh ended meanwhile"
                    f" with exit code {way.process.returncode} after saying: {said or 'nothing'};"
                    f" run again, or {_OTHER_WAY}"
                )
        return ""


@contextlib.contextmanager
def opened(action: ActionBase, tunnel: Vars, task_vars: Vars) -> Iterator[Tunnel]:
    """While the tunnel is open: the tunnel.

    `tunnel`: `host` (an inventory name) and `port`, where the relay listens. Raises TunnelError.
    """
    try:
        relay, port = str(tunnel["host"]), int(tunnel["port"])
    except (KeyError, TypeError, ValueError):
        raise TunnelError("tunnel: wanted a dict of host and port") from None
    name = str(task_vars.get("inventory_hostname", "this host"))
    node = _ssh_words(action._connection, name)
    other = connection_to(relay, action, task_vars)
    with contextlib.ExitStack() as open_:
        target, jobs = f"127.0.0.1:{port}", []
        if other.transport != "local":
            # Sockets have short names: the temporary directory of a run may be deep.
            place = open_.enter_context(tempfile.TemporaryDirectory(prefix="fi-", dir="/tmp"))
            socket = str(Path(place) / "s")
            words = [*_ssh_words(other, relay), "-L", f"{socket}:{target}"]
            jobs, target = [(words, other, relay)], socket
        jobs.append(([*node, "-R", f"127.0.0.1:0:{target}"], action._connection, name))
        ways = _connected_all(jobs, open_)
        found = _ALLOCATED.search("".join(ways[-1].said))
        yield Tunnel(f"127.0.0.1:{found[1] if found else 0}", ways)


def _connected_all(
    jobs: Sequence[tuple[Sequence[str], Any, str]], open_: contextlib.ExitStack
) -> list[_Way]:
    """Each ssh, all connected at once; they end with `open_`. Raises TunnelError."""
    ways, failures = [], []
    with ThreadPoolExecutor(len(jobs)) as pool:
        futures = [
            pool.submit(_connected, words, str(connection.get_option("host")), f"to {name}")
            for words, connection, name in jobs
        ]
    for future in futures:
        try:
            way = future.result()
        except TunnelError as error:
            failures.append(error)
        else:
            open_.callback(_end, way.process)
            ways.append(way)
    if failures:
        raise failures[0]
    return ways


def _ssh_words(connection: Any, name: str) -> list[str]:
    """The ssh command for a host, as Ansible reaches it, but for shared connections."""
    if connection.transport != "ssh":
        raise TunnelError(
            f"{name}: the connection plugin ssh is wanted for a tunnel, this host has"
            f" {connection.transport}; {_OTHER_WAY}"
        )
    if connection.get_option("password"):
        raise TunnelError(
            f"{name}: a key is wanted for a tunnel, this host has a password; {_OTHER_WAY}"
        )
    own = ["ControlMaster=no", "ControlPath=none", "ExitOnForwardFailure=yes", "BatchMode=yes"]
    own += ["ServerAliveInterval=15", "LogLevel=INFO", "RequestTTY=no"]
    words = [str(connection.get_option("ssh_executable"))]
    for option in own:
        words += ["-o", option]
    for option in ("ssh_args", "ssh_common_args", "ssh_extra_args"):
        given = shlex.split(connection.get_option(option) or "")
        words += [word for word in given if word != "-C"]  # Layers are compressed already.
    for flag, option in (("-p", "port"), ("-l", "remote_user"), ("-i", "private_key_file")):
        if connection.get_option(option):
            words += [flag, str(connection.get_option(option))]
    if connection.get_option("host_key_checking") is False:
        words += ["-o", "StrictHostKeyChecking=no"]
    return words


def _connected(words: Sequence[str], host: str, what: str) -> _Way:
    said: list[str] = []
    for attempt in range(_TRIES):
        time.sleep(attempt)
        command = [*words, host, f"echo {_READY}; exec cat"]
        # It has to run on after this function.
        process = subprocess.Popen(  # pylint: disable=consider-using-with
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        ready, said = _wait(process, _ALLOCATED if "-R" in words else None)
        if ready:
            return _Way(process, said, what)
        _end(process)
        if any("forwarding failed" in line or "prohibited" in line for line in said):
            break
    words_told = " ".join("".join(said).split()) or "nothing within a minute"
    raise TunnelError(
        f"a tunnel {what}: wanted forwarding by ssh, ssh said: {words_told}; {_OTHER_WAY}"
    )


def _wait(
    process: subprocess.Popen[bytes], wanted: re.Pattern[str] | None
) -> tuple[bool, list[str]]:
    """Whether it is ready and has said what is wanted, and what it says on standard error.

    The list grows as long as the process speaks.
    """
    said: list[str] = []
    ready = threading.Event()

    def listen() -> None:
        for line in process.stderr or ():
            said.append(line.decode("utf-8", "replace"))

    def look() -> None:
        for line in process.stdout or ():
            if line.decode("utf-8", "replace").strip() == _READY:
                ready.set()

    threads = [threading.Thread(target=work, daemon=True) for work in (listen, look)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + PATIENCE
    # Two streams: what is said on one may be read after what came later on the other.
    while not (ready.is_set() and (not wanted or wanted.search("".join(said)))):
        if process.poll() is not None or time.monotonic() > deadline:
            threads[0].join(1)
            return False, said
        time.sleep(0.02)
    return True, said


def _end(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(OSError):
        if process.stdin:
            process.stdin.close()
    process.terminate()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
