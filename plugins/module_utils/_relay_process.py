# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The process of a relay: its configuration, its start, whether it answers, its end.

Everything lies in one directory, which only its owner may enter. The configuration is that of
https://github.com/distribution/distribution/blob/v2.8.2/docs/configuration.md, as JSON, which is
YAML too. A process is known by its id and by its command line, which ends with our configuration.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import ipaddress
import json
import os
import re
import secrets
import shutil
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ansible_collections.fleet.images.plugins.module_utils._relay_tree import RelayError

COMMANDS = ("docker-registry", "registry")
PLACES = ("/usr/bin", "/usr/local/bin")
ANYWHERE = ("0.0.0.0", "::")
CONFIG, NOTE, LOG = "config.yml", "relay.json", "log"
CERTIFICATE, KEY, HTPASSWD = "tls.crt", "tls.key", "htpasswd"
# Tells our relay from whatever else may answer at the address.
HEADER = "Fleet-Relay"
# Seconds that a certificate must still hold to be kept.
DAY = 24 * 3600
_PATIENCE = 10.0
_LOOK = 0.05
_MOST_LOG = 2000
_BCRYPT = re.compile(r"[^:\s]+:\$2[aby]?\$\d\d\$[./A-Za-z0-9]{53}\Z")

Json = dict[str, Any]


@dataclass(frozen=True)
class Wanted:
    """How a relay is to run. Texts are '' for none, `port` 0 for any, `timeout` in seconds.

    `made`: the certificate was made for this task, so that one which still holds is kept. It is to
    hold for the address and `names`.
    """

    address: str
    port: int = 0
    command: str = ""
    certificate: str = ""
    private_key: str = ""
    htpasswd: str = ""
    made: bool = False
    names: tuple[str, ...] = ()
    timeout: float = 15.0


@dataclass(frozen=True)
class Running:
    """A relay that answers; in check mode the one that would, with the port and id 0 for unknown.

    `certificate`: PEM, '' without TLS.
    """

    pid: int
    port: int
    certificate: str
    changed: bool


def names_of(address: str, names: tuple[str, ...]) -> list[str]:
    """The names that a relay's certificate holds for: IP addresses or DNS names, each once."""
    own = () if address in ANYWHERE else (address,)
    return list(dict.fromkeys(_plain(name) for name in (*own, *names)))


def _plain(name: str) -> str:
    """One spelling of an IP address or a DNS name."""
    try:
        return str(ipaddress.ip_address(name.strip()))
    except ValueError:
        return name.strip().lower()


def check(wanted: Wanted) -> None:
    """Raises RelayError for a login file that Distribution could not use, before it starts."""
    for number, line in enumerate(wanted.htpasswd.splitlines(), 1):
        # https://github.com/distribution/distribution/blob/v2.8.2/registry/auth/htpasswd/htpasswd.go
        if line.strip() and not line.startswith("#") and not _BCRYPT.match(line.strip()):
            raise RelayError(
                f"htpasswd: wanted a user, a colon and a bcrypt hash, line {number} is something"
                " else; make it with htpasswd -B"
            )


def pid_of(directory: Path) -> int:
    """The id of the directory's process, 0 where none runs."""
    pid = note_of(directory).get("pid")
    return pid if isinstance(pid, int) and pid > 0 and _is_ours(directory, pid) else 0


def _is_ours(directory: Path, pid: int) -> bool:
    """Whether this process serves our configuration; one that has ended has no command line."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return words[-3:] == [b"serve", os.fsencode(directory / CONFIG), b""]


def note_of(directory: Path) -> Json:
    """What the last start noted: `pid`, `command`, `state`; empty where there was none."""
    return _json(directory / NOTE)


def start(directory: Path, wanted: Wanted, dry_run: bool) -> Running:
    """Starts the relay, unless it runs and answers as it is wanted; waits until it answers.

    Raises RelayError, with the process' own last words where it has some; OSError.
    """
    check(wanted)
    former, pid = _json(directory / CONFIG), pid_of(directory)
    if pid and wanted.made:
        wanted = _keeping(directory, former, wanted)
    config = _config(directory, former, wanted)
    if pid and _runs_so(directory, config, wanted):
        return Running(pid, _port(config), wanted.certificate, False)
    command = find_command(wanted.command)
    _check_pair(wanted, directory, dry_run)
    if not pid or _place(config) != _place(former):
        config["http"]["addr"] = _free(wanted, _port(config))
    if dry_run:
        return Running(0, wanted.port, "" if wanted.made else wanted.certificate, True)
    stop(directory)
    _write_all(directory, config, wanted)
    with (directory / LOG).open("wb") as log:
        process = _spawn([command, "serve", str(directory / CONFIG)], log)
    try:
        note = {"pid": process.pid, "command": command, "state": _state(config, wanted)}
        mark(directory, note)
        _wait(process, directory, config, wanted)
    except BaseException:
        process.kill()
        process.wait()
        raise
    return Running(process.pid, _port(config), wanted.certificate, True)


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


def mark(directory: Path, note: Json) -> None:
    """Notes what is known of the process; the file says whose the directory is, too."""
    _write(directory / NOTE, json.dumps({"by": "fleet.images.image_relay", **note}))


def is_marked(directory: Path) -> bool:
    """Whether the directory is one of a relay."""
    return note_of(directory).get("by") == "fleet.images.image_relay"


def url_of(wanted: Wanted, port: int) -> str:
    """Where the relay is reached."""
    host = wanted.address
    if host in ANYWHERE:
        host = wanted.names[0] if wanted.names else "localhost"
    scheme = "https" if wanted.certificate else "http"
    return f"{scheme}://{_joined(host, port)}"


def _joined(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _config(directory: Path, former: Json, wanted: Wanted) -> Json:
    """The configuration; port, secret and header stay what they were where nothing else is said."""
    http_before = former.get("http") or {}
    held = (http_before.get("headers") or {}).get(HEADER) or [secrets.token_hex(8)]
    port = wanted.port or _port(former)
    section: Json = {
        "addr": _joined(wanted.address, port),
        "secret": http_before.get("secret") or secrets.token_hex(32),
        "headers": {HEADER: held},
    }
    if wanted.certificate:
        pair = {"certificate": str(directory / CERTIFICATE), "key": str(directory / KEY)}
        section["tls"] = pair
    config: Json = {
        "version": "0.1",
        "log": {"level": "warn", "accesslog": {"disabled": True}},
        "storage": {
            "filesystem": {"rootdirectory": str(directory)},
            "delete": {"enabled": False},
            "maintenance": {"readonly": {"enabled": True}, "uploadpurging": {"enabled": False}},
        },
        "http": section,
    }
    if wanted.htpasswd:
        login = {"realm": "fleet.images", "path": str(directory / HTPASSWD)}
        config["auth"] = {"htpasswd": login}
    return config


def _place(config: Json) -> str:
    return str((config.get("http") or {}).get("addr", ""))


def _port(config: Json) -> int:
    port = _place(config).rpartition(":")[2]
    return int(port) if port.isdigit() else 0


def _state(config: Json, wanted: Wanted) -> str:
    """Equal for relays that run alike. The secret in it keeps guesses at the rest away."""
    texts = [config, wanted.certificate, wanted.private_key, wanted.htpasswd]
    return hashlib.sha256(json.dumps(texts, sort_keys=True).encode()).hexdigest()


def _runs_so(directory: Path, config: Json, wanted: Wanted) -> bool:
    """Whether the running process was started with this configuration, and answers."""
    note = note_of(directory)
    if note.get("state") != _state(config, wanted):
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
        context.load_verify_locations(directory / CERTIFICATE)
        shown = _ask(former, wanted, context)
        texts = [(directory / name).read_text(encoding="ascii") for name in (CERTIFICATE, KEY)]
    except (OSError, ValueError, http.client.HTTPException):
        return wanted
    held = {_plain(str(value)) for _kind, value in shown.get("subjectAltName", ())}
    left = ssl.cert_time_to_seconds(shown["notAfter"]) - time.time()
    if held != set(names_of(wanted.address, wanted.names)) or left < DAY:
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
    place, wait = (host, _port(config)), min(wanted.timeout, _PATIENCE)
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
        if answer.getheader(HEADER) not in (config.get("http") or {})["headers"][HEADER]:
            raise ConnectionError(f"{place}: another process answers")
        if answer.status not in (200, 401):
            raise ConnectionError(f"{place}: status {answer.status}")
    return shown or {}


def _check_pair(wanted: Wanted, directory: Path, dry_run: bool) -> None:
    """Raises RelayError for a certificate and a key that do not belong together."""
    if not wanted.certificate or dry_run:
        return
    with _beside(directory, wanted) as (certificate, key):
        try:
            # Without a password: a relay has nobody to ask for one.
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate, key, password=lambda: "")
        except (OSError, ValueError) as error:
            raise RelayError(
                "certificate and private_key: wanted a certificate and its key without a password,"
                f" both PEM, found something else ({error}); give both"
            ) from error


@contextlib.contextmanager
def _beside(directory: Path, wanted: Wanted) -> Iterator[tuple[Path, Path]]:
    """Certificate and key in files, since ssl reads only these."""
    paths = (directory / f".{CERTIFICATE}.try", directory / f".{KEY}.try")
    try:
        for path, content in zip(paths, (wanted.certificate, wanted.private_key)):
            _write(path, content)
        yield paths
    finally:
        for path in paths:
            path.unlink(missing_ok=True)


def _free(wanted: Wanted, port: int) -> str:
    """The address to listen on, tried; another port where any will do and this one is taken."""
    for one in [port] if wanted.port else [port, 0]:
        try:
            found = socket.getaddrinfo(
                wanted.address, one, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            with socket.socket(found[0], found[1]) as trial:
                trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                trial.bind(found[4])
                trial.listen(1)
                return _joined(wanted.address, int(trial.getsockname()[1]))
        except OSError as error:
            reason = error
    raise RelayError(
        f"{_joined(wanted.address, port)}: wanted free for the relay, it cannot be listened on"
        f" ({reason}); choose another port or address, or end what listens there"
    ) from reason


def _write_all(directory: Path, config: Json, wanted: Wanted) -> None:
    """All files of the process; those that this relay does not use go."""
    contents = {
        CERTIFICATE: wanted.certificate,
        KEY: wanted.private_key,
        HTPASSWD: wanted.htpasswd,
        CONFIG: json.dumps(config, indent=2, sort_keys=True) + "\n",
    }
    for name, content in contents.items():
        if content:
            _write(directory / name, content)
        else:
            (directory / name).unlink(missing_ok=True)
    (directory / LOG).unlink(missing_ok=True)


def _write(path: Path, content: str) -> None:
    """A file that only its owner may read, never half of it."""
    beside = path.with_name(f".{path.name}.tmp")
    beside.unlink(missing_ok=True)
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(content)
    os.replace(beside, path)


def _spawn(command: list[str], log: Any) -> subprocess.Popen[bytes]:
    """A process that outlives this one. Variables REGISTRY_* would overrule the configuration."""
    env = {key: value for key, value in os.environ.items() if not key.startswith("REGISTRY_")}
    return subprocess.Popen(
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
    while True:
        code = process.poll()
        if code is not None:
            raise RelayError(
                f"the relay at {_place(config)}: {note_of(directory)['command']} ended at once with"
                f" exit code {code}: {_last_words(directory)}; mend that, or set command"
            )
        try:
            _ask(config, wanted, _unverified())
            return
        except (OSError, http.client.HTTPException) as error:
            if time.monotonic() > deadline:
                raise RelayError(
                    f"the relay at {_place(config)}: wanted an answer within {wanted.timeout:g}"
                    f" seconds, found none ({error}): {_last_words(directory)}; raise start_timeout"
                ) from error
        time.sleep(_LOOK)


def _last_words(directory: Path) -> str:
    """The end of the log, on one line."""
    try:
        content = (directory / LOG).read_bytes()[-_MOST_LOG:]
    except OSError:
        content = b""
    found = content.decode("utf-8", "replace").strip().splitlines()[-5:]
    return " | ".join(line.strip() for line in found) or "it wrote nothing"


def _json(path: Path) -> Json:
    """A JSON object; empty where there is none."""
    try:
        found = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
