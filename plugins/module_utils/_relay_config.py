# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The directory of a relay, which only its owner may enter: its configuration and its files.

The configuration is that of
https://github.com/distribution/distribution/blob/v2.8.2/docs/configuration.md, as JSON, which is
YAML too.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import os
import re
import secrets
import ssl
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible_collections.fleet.images.plugins.module_utils._relay_tree import RelayError

ANYWHERE = ("0.0.0.0", "::")
CONFIG, NOTE, LOG = "config.yml", "relay.json", "log"
CERTIFICATE, KEY, HTPASSWD = "tls.crt", "tls.key", "htpasswd"
# Tells our relay from whatever else may answer at the address.
HEADER = "Fleet-Relay"
_BY = "fleet.images.image_relay"
_BCRYPT = re.compile(r"[^:\s]+:\$2[aby]?\$\d\d\$[./A-Za-z0-9]{53}\Z")

Json = dict[str, Any]


@dataclass(frozen=True)
class Wanted:
    """How a relay is to run. Texts are '' for none, `port` 0 for any, `timeout` in seconds.

    `made`: the certificate was made for this task, so that one which still holds is kept. It is to
    hold for the address and `names`. `image`: of a container of the Engine at `docker_host`, '' for
    a program of the host. `lease`: the one of the store that the relay ends with, '' for none.
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
    image: str = ""
    docker_host: str = ""
    lease: str = ""


def names_of(address: str, names: tuple[str, ...]) -> list[str]:
    """The names that a relay's certificate holds for: IP addresses or DNS names, each once."""
    own = () if address in ANYWHERE else (address,)
    return list(dict.fromkeys(plain(name) for name in (*own, *names)))


def plain(name: str) -> str:
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


def note_of(directory: Path) -> Json:
    """What the last start noted: `pid`, `command`, `state`; empty where there was none."""
    return read(directory / NOTE)


def mark(directory: Path, note: Json) -> None:
    """Notes what is known of the process; the file says whose the directory is, too."""
    write(directory / NOTE, json.dumps({"by": "fleet.images.image_relay", **note}))


def is_marked(directory: Path) -> bool:
    """Whether the directory is one of a relay."""
    return note_of(directory).get("by") == "fleet.images.image_relay"


def url_of(wanted: Wanted, port: int) -> str:
    """Where the relay is reached."""
    host = wanted.address
    if host in ANYWHERE:
        host = wanted.names[0] if wanted.names else "localhost"
    scheme = "https" if wanted.certificate else "http"
    return f"{scheme}://{joined(host, port)}"


def joined(host: str, port: int) -> str:
    """Host and port in one, as a URL has them."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def config_of(directory: Path, former: Json, wanted: Wanted) -> Json:
    """The configuration; port, secret and header stay what they were where nothing else is said."""
    http_before = former.get("http") or {}
    held = (http_before.get("headers") or {}).get(HEADER) or [secrets.token_hex(8)]
    port = wanted.port or port_of(former)
    section: Json = {
        "addr": joined(wanted.address, port),
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


def place_of(config: Json) -> str:
    """Where a configuration listens, host and port; '' for none."""
    return str((config.get("http") or {}).get("addr", ""))


def port_of(config: Json) -> int:
    """Its port, 0 for none."""
    port = place_of(config).rpartition(":")[2]
    return int(port) if port.isdigit() else 0


def state_of(config: Json, wanted: Wanted) -> str:
    """Equal for relays that run alike. The secret in it keeps guesses at the rest away."""
    texts = [config, wanted.certificate, wanted.private_key, wanted.htpasswd]
    return hashlib.sha256(json.dumps(texts, sort_keys=True).encode()).hexdigest()


def check_pair(wanted: Wanted) -> None:
    """Raises RelayError for a certificate and a key that do not belong together."""
    if not wanted.certificate:
        return
    # Python's ssl reads them from files only. Of this directory, others see nothing.
    with tempfile.TemporaryDirectory() as place:
        certificate, key = Path(place, CERTIFICATE), Path(place, KEY)
        write(certificate, wanted.certificate)
        write(key, wanted.private_key)
        try:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            # Without a password: a relay has nobody to ask for one.
            context.load_cert_chain(certificate, key, password=lambda: "")
        except (OSError, ValueError) as error:
            raise RelayError(
                "certificate and private_key: wanted a certificate and its key without a password,"
                f" both PEM, found something else ({error}); give both"
            ) from error


def write_all(directory: Path, config: Json, wanted: Wanted) -> None:
    """All files of the process; those that this relay does not use go."""
    contents = {
        CERTIFICATE: wanted.certificate,
        KEY: wanted.private_key,
        HTPASSWD: wanted.htpasswd,
        CONFIG: json.dumps(config, indent=2, sort_keys=True) + "\n",
    }
    for name, content in contents.items():
        if content:
            write(directory / name, content)
        else:
            (directory / name).unlink(missing_ok=True)


def write(path: Path, content: str) -> None:
    """A file that only its owner may read, never half of it."""
    beside = path.with_name(f".{path.name}.tmp")
    beside.unlink(missing_ok=True)
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(content)
    os.replace(beside, path)


def read(path: Path) -> Json:
    """A JSON object; empty where there is none."""
    try:
        found = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def last_lines(content: bytes) -> str:
    """The end of what a process wrote, on one line."""
    found = content.decode("utf-8", "replace").strip().splitlines()[-5:]
    return " | ".join(line.strip() for line in found)
