# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The process of a relay: its start, whether it answers as it is wanted, its end.

It is known by its id and by its command line, which ends with our configuration.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import shutil
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ansible_collections.fleet.images.plugins.module_utils import _relay_config as files
from ansible_collections.fleet.images.plugins.module_utils._relay_config import Json, Wanted
from ansible_collections.fleet.images.plugins.module_utils._relay_tree import RelayError

COMMANDS = ("docker-registry", "registry")
PLACES = ("/usr/bin", "/usr/local/bin")
# Seconds that a certificate must still hold to be kept.
DAY = 24 * 3600
# Seconds to wait for the end of a process, and for one answer.
_PATIENCE = 10.0
_LOOK = 0.05
_MOST_LOG = 2000


@dataclass(frozen=True)
class Running:
    """A relay that answers; in check mode the one that would, with the port and id 0 for unknown.

    `certificate`: PEM, '' without TLS.
    """

    pid: int
    port: int
    certificate: str
    changed: bool


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
    if pid and _runs_so(directory, config, wanted):
        return Running(pid, files.port_of(config), wanted.certificate, False)
    command = find_command(wanted.command)
    files.check_pair(wanted)
    if not pid or files.place_of(config) != files.place_of(former):
        config["http"]["addr"] = _free(wanted, files.port_of(config))
    if dry_run:
        return Running(0, wanted.port, "" if wanted.made else wanted.certificate, True)
    stop(directory)
    files.write_all(directory, config, wanted)
    files.write(directory / files.LOG, "")
    with (directory / files.LOG).open("ab") as log:
        process = _spawn([command, "serve", str(directory / files.CONFIG)], log)
    try:
        note = {"pid": process.pid, "command": command, "state": files.state_of(config, wanted)}
        files.mark(directory, note)
        _wait(process, directory, config, wanted)
    except BaseException:
        process.kill()
        process.wait()
        raise
    return Running(process.pid, files.port_of(config), wanted.certificate, True)


def stop(directory: Path) -> bool:
    """Ends the directory's process; whether there was one. Raises RelayError, OSError."""
    pid = pid_of(directory)
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


def find_command(given: str) -> str:
    """The path of Distribution's program; raises RelayError where there is none."""
    path = os.pathsep.join([os.environ.get("PATH", ""), *PLACES])
    for name in [given] if given else COMMANDS:
        found = shutil.which(name, path=path)
        if found:
            return os.path.abspath(found)
    raise RelayError(
        f"a relay on {socket.gethostname()}: wanted the program {given or ' or '.join(COMMANDS)},"
        " found none; install the distribution's package docker-registry there, or set command, or"
        " carry bundles with the role airgap"
    )


def _runs_so(directory: Path, config: Json, wanted: Wanted) -> bool:
    """Whether the running process was started with this configuration, and answers."""
    note = files.note_of(directory)
    if note.get("state") != files.state_of(config, wanted):
        return False
    if wanted.command and find_command(wanted.command) != note.get("command"):
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


def _spawn(command: list[str], log: Any) -> subprocess.Popen[bytes]:
    """A process that outlives this one. Variables REGISTRY_* would overrule the configuration."""
    env = {key: value for key, value in os.environ.items() if not key.startswith("REGISTRY_")}
    # The module has to end while this goes on.
    return subprocess.Popen(  # pylint: disable=ansible-bad-function
        command,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        env=env,
        cwd="/",
        start_new_session=True,
    )


def _wait(process: subprocess.Popen[bytes], directory: Path, config: Json, wanted: Wanted) -> None:
    deadline = time.monotonic() + wanted.timeout
    here = f"the relay at {files.place_of(config)}"
    while True:
        code = process.poll()
        if code is not None:
            command = files.note_of(directory)["command"]
            raise RelayError(
                f"{here}: {command} ended at once with exit code {code}: {_last_words(directory)};"
                " mend that, or set command"
            )
        try:
            _ask(config, wanted, _unverified())
            return
        except (OSError, http.client.HTTPException) as error:
            if time.monotonic() > deadline:
                raise RelayError(
                    f"{here}: wanted an answer within {wanted.timeout:g} seconds, found none"
                    f" ({error}): {_last_words(directory)}; raise start_timeout"
                ) from error
        time.sleep(_LOOK)


def _last_words(directory: Path) -> str:
    """The end of the log, on one line."""
    try:
        content = (directory / files.LOG).read_bytes()[-_MOST_LOG:]
    except OSError:
        content = b""
    found = content.decode("utf-8", "replace").strip().splitlines()[-5:]
    return " | ".join(line.strip() for line in found) or "it wrote nothing"
