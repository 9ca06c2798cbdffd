# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The process of a relay: its start, whether it answers as it is wanted, its end.

It is known by its id and by its command line, which ends with our configuration, be it a program of
the host (`_relay_program`) or one in a container (`_relay_container`).
"""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from ansible_collections.fleet.images.plugins.module_utils import _relay_config as files
from ansible_collections.fleet.images.plugins.module_utils import _relay_container
from ansible_collections.fleet.images.plugins.module_utils._relay_config import Json, Wanted
from ansible_collections.fleet.images.plugins.module_utils._relay_program import Program
from ansible_collections.fleet.images.plugins.module_utils._relay_tree import RelayError

# Seconds that a certificate must still hold to be kept.
DAY = 24 * 3600
# Seconds to wait for the end of a process, and for one answer.
_PATIENCE = 10.0
_LOOK = 0.05
_SILENT = "it wrote nothing"
_TAKEN = "address already in use"


@dataclass(frozen=True)
class Running:
    """A relay that answers; in check mode the one that would, with the port and id 0 for unknown.

    `certificate`: PEM, '' without TLS.
    """

    pid: int
    port: int
    certificate: str
    changed: bool


class Runner(Protocol):
    """What runs Distribution. `what`: for messages, after `find`."""

    what: str

    def find(self) -> None:
        """Raises RelayError where it is not there."""

    def is_noted(self, note: Json) -> bool:
        """Whether what was noted is a process of this one."""

    def begin(self, directory: Path) -> Json:
        """Starts it; what to note of it, `pid` among it."""

    def ended(self) -> str:
        """What it ended with; '' while it runs."""

    def words(self) -> str:
        """The end of what it wrote, on one line; '' for nothing."""

    def end(self) -> None:
        """Ends it at once."""


def pid_of(directory: Path) -> int:
    """The id of the directory's process, 0 where none runs."""
    pid = files.note_of(directory).get("pid")
    return pid if isinstance(pid, int) and pid > 0 and _is_ours(directory, pid) else 0


def _is_ours(directory: Path, pid: int) -> bool:
    """Whether this process serves our configuration; one that has ended has no command line."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return words[-3:] == [b"serve", os.fsencode(directory / files.CONFIG), b""]


def start(directory: Path, wanted: Wanted, dry_run: bool) -> Running:
    """Starts the relay, unless it runs and answers as it is wanted; waits until it answers.

    Raises RelayError, with the process' own last words where it has some; OSError.
    """
    files.check(wanted)
    former, pid = files.read(directory / files.CONFIG), pid_of(directory)
    if pid and wanted.made:
        wanted = _keeping(directory, former, wanted)
    config = files.config_of(directory, former, wanted)
    runner: Runner = _relay_container.Container(wanted) if wanted.image else Program(wanted)
    if pid and _runs_so(directory, config, wanted, runner):
        return Running(pid, files.port_of(config), wanted.certificate, False)
    runner.find()
    files.check_pair(wanted)
    if not pid or files.place_of(config) != files.place_of(former):
        config["http"]["addr"] = _free(wanted, files.port_of(config))
    if dry_run:
        return Running(0, wanted.port, "" if wanted.made else wanted.certificate, True)
    stop(directory)
    for last in (False, False, True):
        try:
            return _begin(directory, config, wanted, runner)
        except RelayError:
            if last or wanted.port or _TAKEN not in runner.words().lower():
                raise
            # Somebody else has taken the port since it was tried.
            config["http"]["addr"] = _free(wanted, 0)
    raise AssertionError("the last try returns or raises")


def _begin(directory: Path, config: Json, wanted: Wanted, runner: Runner) -> Running:
    """Starts it with this configuration, and waits until it answers; ends it where it does not."""
    files.write_all(directory, config, wanted)
    try:
        note = runner.begin(directory)
        state = files.state_of(config, wanted)
        files.mark(directory, {**note, "state": state, "lease": wanted.lease})
        _wait(runner, config, wanted)
    except BaseException:
        runner.end()
        raise
    return Running(note["pid"], files.port_of(config), wanted.certificate, True)


def stop(directory: Path) -> bool:
    """Ends the directory's process; whether there was one.

    Raises RelayError, OSError; EngineError and SdkError where it is a container.
    """
    note, pid = files.note_of(directory), pid_of(directory)
    if "container" in note:
        engine = _relay_container.connect(str(note.get("docker_host")))
        return _relay_container.discard(engine, str(note["container"]))
    if not pid:
        return False
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
        deadline = time.monotonic() + _PATIENCE
        while time.monotonic() < deadline:
            if not _is_ours(directory, pid):
                return True
            time.sleep(_LOOK)
    raise RelayError(f"the relay's process {pid} does not end; look at it on the host")


def _runs_so(directory: Path, config: Json, wanted: Wanted, runner: Runner) -> bool:
    """Whether the running process was started with this configuration, and answers."""
    note = files.note_of(directory)
    if note.get("state") != files.state_of(config, wanted) or not runner.is_noted(note):
        return False
    try:
        _ask(config, wanted, _unverified())
    except (OSError, http.client.HTTPException):
        return False
    return True


def _keeping(directory: Path, former: Json, wanted: Wanted) -> Wanted:
    """With the certificate of the running relay, where it holds for the names, and a day more."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    try:
        context.load_verify_locations(directory / files.CERTIFICATE)
        shown = _ask(former, wanted, context)
        texts = [
            (directory / name).read_text(encoding="ascii")
            for name in (files.CERTIFICATE, files.KEY)
        ]
    except (OSError, ValueError, http.client.HTTPException):
        return wanted
    held = {files.plain(str(value)) for _kind, value in shown.get("subjectAltName", ())}
    left = ssl.cert_time_to_seconds(shown["notAfter"]) - time.time()
    if held != set(files.names_of(wanted.address, wanted.names)) or left < DAY:
        return wanted
    return replace(wanted, certificate=texts[0], private_key=texts[1])


def _unverified() -> ssl.SSLContext:
    """For one's own process: the header tells who it is, and nothing secret is sent."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _ask(config: Json, wanted: Wanted, context: ssl.SSLContext) -> Mapping[str, Any]:
    """The certificate that our relay shows (empty without TLS), after it answered GET /v2/.

    Raises OSError and HTTPException where nobody answers, or somebody else.
    """
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(wanted.address, wanted.address)
    place, wait = (host, files.port_of(config)), min(wanted.timeout, _PATIENCE)
    plain = "tls" not in (config.get("http") or {})
    connection = (
        http.client.HTTPConnection(*place, timeout=wait)
        if plain
        else http.client.HTTPSConnection(*place, timeout=wait, context=context)
    )
    with contextlib.closing(connection):
        connection.connect()
        peer = connection.sock
        shown = peer.getpeercert() if isinstance(peer, ssl.SSLSocket) else None
        connection.request("GET", "/v2/")
        answer = connection.getresponse()
        if (
            answer.getheader(files.HEADER)
            not in (config.get("http") or {})["headers"][files.HEADER]
        ):
            raise ConnectionError(f"{place}: another process answers")
        if answer.status not in (200, 401):
            raise ConnectionError(f"{place}: status {answer.status}")
    return shown or {}


def _free(wanted: Wanted, port: int) -> str:
    """The address to listen on, tried; another port where any will do and this one is taken."""
    reason: OSError | None = None
    for one in [port] if wanted.port else [port, 0]:
        try:
            found = socket.getaddrinfo(
                wanted.address, one, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            with socket.socket(found[0], found[1]) as trial:
                trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                trial.bind(found[4])
                trial.listen(1)
                return files.joined(wanted.address, int(trial.getsockname()[1]))
        except OSError as error:
            reason = error
    raise RelayError(
        f"{files.joined(wanted.address, port)}: wanted free for the relay, it cannot be listened on"
        f" ({reason}); choose another port or address, or end what listens there"
    ) from reason


def _wait(runner: Runner, config: Json, wanted: Wanted) -> None:
    deadline = time.monotonic() + wanted.timeout
    here = f"the relay at {files.place_of(config)}"
    while True:
        reason = runner.ended()
        if reason:
            raise RelayError(
                f"{here}: {runner.what} ended at once with {reason}:"
                f" {runner.words() or _SILENT}; mend that, or set command"
            )
        try:
            _ask(config, wanted, _unverified())
            return
        except (OSError, http.client.HTTPException) as error:
            if time.monotonic() > deadline:
                raise RelayError(
                    f"{here}: wanted an answer within {wanted.timeout:g} seconds, found none"
                    f" ({error}): {runner.words() or _SILENT}; raise start_timeout"
                ) from error
        time.sleep(_LOOK)
