# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The one door to `docker buildx`: its command, its version, and what it says of a builder."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import signal
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

OLDEST = (0, 13, 0)
"""The first buildx that tells its progress as JSON (`--progress rawjson`)."""

GRACE = 5
"""Seconds for a command that is told to end."""

Version = tuple[int, ...]


class BuildxError(Exception):
    """buildx is not there, is too old or refuses; the message keeps its own words (`words`)."""

    def __init__(self, message: str, words: str = "") -> None:
        super().__init__(message)
        self.words = words or message


@dataclass(frozen=True)
class Node:
    """One node of a builder, as `docker buildx inspect` tells of it.

    `platforms`: those that it builds, an asterisk of buildx (pinned by the user) taken off.
    `status`: `running`, `inactive`, `stopped` and others; `error`: why it cannot be reached.
    """

    name: str
    endpoint: str = ""
    status: str = ""
    platforms: tuple[str, ...] = ()
    error: str = ""


@dataclass(frozen=True)
class Builder:
    """A builder, as `docker buildx inspect` tells of it; `error`: why nothing can be told of it."""

    name: str
    driver: str
    nodes: tuple[Node, ...] = ()
    error: str = ""

    @property
    def platforms(self) -> tuple[str, ...]:
        """All platforms of all nodes, in the order in which buildx names them."""
        return tuple(dict.fromkeys(one for node in self.nodes for one in node.platforms))


class Buildx:
    """The command `docker buildx`, speaking to the Engine that the options name.

    `options`: the module options of the engine fragment. `environment`: variables beside those of
    this process. Raises BuildxError where there is no buildx, or one older than OLDEST.
    """

    def __init__(
        self, options: Mapping[str, Any], environment: Mapping[str, str] | None = None
    ) -> None:
        host = str(options.get("docker_host") or "")
        self._command = ["docker", *_connection(options), "buildx"]
        # Without DOCKER_HOST the command would follow the user's context to another Engine.
        self.environment = {**os.environ, **({"DOCKER_HOST": host} if host else {})}
        self.environment.update(environment or {})
        self.version = self._read_version()

    def _read_version(self) -> Version:
        done = self.run("version", check=False)
        found = re.search(r"buildx v?(\d+)\.(\d+)\.(\d+)", done.stdout)
        if done.returncode or not found:
            raise BuildxError(
                "docker buildx: wanted on this host, found none"
                f" ({_last_line(done.stderr or done.stdout)}); install the package docker-buildx"
                " or docker-buildx-plugin",
                done.stderr,
            )
        version = tuple(map(int, found.groups()))
        _need(version, "this module", OLDEST)
        return version

    def need(self, option: str, version: Version) -> None:
        """Raises BuildxError where an option of the module wants a newer buildx than this one."""
        _need(self.version, option, version)

    def command(self, *arguments: str) -> list[str]:
        """The whole command line."""
        return [*self._command, *arguments]

    def run(
        self, *arguments: str, check: bool = True, timeout: float | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Runs a short command to its end; raises BuildxError where it fails and `check` is set.

        `timeout`: seconds after which it is ended, which is a BuildxError too.
        """
        try:
            process = subprocess.Popen(
                self.command(*arguments),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                encoding="utf-8",
                errors="replace",
                env=self.environment,
                # Without a terminal ssh asks for nothing; and its group ends with the command.
                start_new_session=True,
            )
        except OSError as error:
            raise BuildxError(
                f"the command docker: wanted on this host, cannot be run ({error.strerror});"
                " install the package docker-cli or docker-ce-cli"
            ) from error
        try:
            stdout, stderr = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired as error:
            _end(process)
            # What it says of its end tells less.
            words = _last_line(_text(error.stderr)).lstrip("#0123456789 ")
            raise BuildxError(
                f"docker buildx {arguments[0]}: no end within {timeout:g} s; it said last: {words}",
                words,
            ) from error
        done = subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)
        if check and done.returncode:
            words = _last_line(done.stderr)
            raise BuildxError(f"docker buildx {' '.join(arguments)}: it said: {words}", words)
        return done

    def start(self, *arguments: str, **options: Any) -> subprocess.Popen[bytes]:
        """Starts a long command; `options`: those of subprocess.Popen, its environment aside."""
        usual = {"stdin": subprocess.DEVNULL, "env": self.environment}
        return subprocess.Popen(self.command(*arguments), **{**usual, **options})

    def inspect(self, name: str = "", timeout: float | None = None) -> Builder | None:
        """A builder, the current one without a name; None where there is none of this name.

        Asks its nodes, where they run, and starts none; `timeout`: seconds for all of that (buildx
        itself gives up after 20). Raises BuildxError.
        """
        done = self.run("inspect", *([name] if name else []), check=False, timeout=timeout)
        if done.returncode:
            words = _last_line(done.stderr)
            if "no builder" in words:
                return None
            raise BuildxError(f"builder {name or 'in use'}: buildx said: {words}", words)
        return parse_inspect(done.stdout)


@dataclass
class _Lines:
    """The fields of one paragraph of `docker buildx inspect`."""

    fields: dict[str, str] = field(default_factory=dict)

    def node(self) -> Node:
        told = self.fields
        platforms = (one.strip().rstrip("*") for one in told.get("Platforms", "").split(","))
        return Node(
            name=told.get("Name", ""),
            endpoint=told.get("Endpoint", ""),
            status=told.get("Status", ""),
            platforms=tuple(one for one in platforms if one),
            error=told.get("Error", ""),
        )


def parse_inspect(text: str) -> Builder:
    """What `docker buildx inspect` prints: the builder's fields, `Nodes:`, a paragraph per node."""
    head, _nodes, rest = text.partition("\nNodes:\n")
    paragraphs: list[_Lines] = []
    for line in rest.splitlines():
        name, colon, value = line.partition(":")
        if colon and name == "Name":
            paragraphs.append(_Lines())
        if colon and paragraphs and not line.startswith((" ", "\t")):
            paragraphs[-1].fields.setdefault(name, value.strip())
    told = dict(line.partition(":")[::2] for line in head.splitlines())
    return Builder(
        told.get("Name", "").strip(),
        told.get("Driver", "").strip(),
        tuple(one.node() for one in paragraphs),
        told.get("Error", "").strip(),
    )


def driver_of(builder: str, docker_host: str) -> str:
    """The driver of a builder, of the one in use without a name, as buildx keeps it in its files.

    `docker` for a builder that stands in none: each Engine has one of its own. Starts no command:
    buildx takes a good part of a second for the same answer.
    """
    name = builder or os.environ.get("BUILDX_BUILDER") or current_builder(docker_host)
    return str(instance(name).get("Driver") or "docker")


def current_builder(docker_host: str) -> str:
    """The name of the builder in use for this Engine, '' for the Engine's own.

    One that was removed while it was in use is not; then, and where another Engine's is noted, the
    default for this Engine counts (`docker buildx use --default`).
    """
    current = read_object(directory() / "current")
    name = str(current.get("Name") or "")
    same = current.get("Key") == docker_host
    if name and (same or (current.get("Global") and instance(name))):
        return name if instance(name) else ""
    key = hashlib.sha256(docker_host.encode()).hexdigest()[:20]
    with contextlib.suppress(OSError, UnicodeDecodeError):
        name = (directory() / "defaults" / key).read_text(encoding="utf-8")
        return name if instance(name) else ""
    return ""


def instance(name: str) -> dict[str, Any]:
    """A builder's settings as buildx keeps them: Driver, and Nodes; {} where there is none."""
    return read_object(directory() / "instances" / name.lower()) if name else {}


def directory() -> Path:
    """Where buildx keeps the builders of this user."""
    return Path(os.environ.get("BUILDX_CONFIG") or docker_directory() / "buildx")


def docker_directory() -> Path:
    """Where the docker command keeps this user's configuration."""
    # A user without a home, as in some containers, is no error here.
    return Path(os.path.expanduser(os.environ.get("DOCKER_CONFIG") or "~/.docker"))


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file; {} where there is none."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _connection(options: Mapping[str, Any]) -> list[str]:
    """The flags of the docker command for a TLS connection; paths of files, no secrets."""
    flags = {
        "--tlscacert": options.get("ca_path"),
        "--tlscert": options.get("client_cert"),
        "--tlskey": options.get("client_key"),
    }
    given = [word for flag, value in flags.items() if value for word in (flag, str(value))]
    if options.get("validate_certs"):
        return ["--tlsverify", *given]
    return ["--tls", *given] if options.get("tls") else given


def _need(found: Version, option: str, wanted: Version) -> None:
    if found < wanted:
        raise BuildxError(
            f"docker buildx {_dotted(found)}: {option} needs {_dotted(wanted)} or newer; install a"
            " newer docker-buildx"
        )


def _dotted(version: Version) -> str:
    return ".".join(map(str, version))


def _end(process: subprocess.Popen[str]) -> None:
    """Ends a command with all that it started."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=GRACE)
            return


def _text(partial: Any) -> str:
    """What was read of a command until then, bytes whatever was asked for."""
    return partial.decode("utf-8", "replace") if isinstance(partial, bytes) else str(partial or "")


def _last_line(text: str) -> str:
    """What a command said at its end, without the word ERROR in front."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1].removeprefix("ERROR: ") if lines else "nothing"
