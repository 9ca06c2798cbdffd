# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a command reads as a file and nobody else sees: contents that never stand on a disk.

Each is an anonymous file in memory (memfd_create(2)), whose path below /proc only this user can
open, and which is gone with this process however that ends. Neither arguments nor the environment
of a command have it.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from ansible_collections.fleet.images.plugins.module_utils._buildx import (
    BuildxError,
    docker_directory,
    read_object,
)
from ansible_collections.fleet.images.plugins.module_utils._buildx import (
    directory as buildx_directory,
)

HUB = "docker.io"
_HUB_KEY = "https://index.docker.io/v1/"
_MASK = "********"
# Shorter ones stand in any text by chance.
_SHORTEST = 4
# What a Docker configuration directory has beside its file, and a command looks for.
_BESIDE = ("contexts", "cli-plugins")


class Hidden:
    """The hidden files of one run; `with Hidden() as hidden: … hidden.path(content)`."""

    def __init__(self) -> None:
        self._files: list[int] = []
        self._values: set[str] = set()

    def __enter__(self) -> Hidden:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _value: object, _trace: TracebackType | None
    ) -> None:
        for file in self._files:
            os.close(file)

    def path(self, content: bytes) -> str:
        """A path from which this user's processes can read the content; raises OSError."""
        file = os.memfd_create("fleet-images")
        self._files.append(file)
        os.write(file, content)
        return f"/proc/{os.getpid()}/fd/{file}"

    def remember(self, value: str) -> None:
        """A text that `mask` takes out, and each of its lines."""
        found = (value, *value.splitlines())
        self._values.update(one.strip() for one in found if len(one.strip()) >= _SHORTEST)

    def mask(self, text: str) -> str:
        """The text without what was remembered, also at its end, where it may have been cut."""
        values = sorted(self._values, key=len, reverse=True)
        for value in values:
            text = text.replace(value, _MASK)
        for value in values:
            for length in range(len(value) - 1, _SHORTEST - 1, -1):
                if text.endswith(value[:length]):
                    return text[:-length] + _MASK
        return text


def secrets(items: Sequence[Mapping[str, Any]], hidden: Hidden) -> list[dict[str, str]]:
    """The fields of `--secret` for each secret of a task (`id`, and `src`, `env` or `value`).

    Raises BuildxError for one that is not there.
    """
    fields = []
    for item in items:
        name = str(item["id"])
        if item.get("value") is not None:
            content = str(item["value"])
            fields.append({"id": name, "src": hidden.path(content.encode())})
        elif item.get("env"):
            content = _variable(name, str(item["env"]))
            fields.append({"id": name, "env": str(item["env"])})
        else:
            content = _file(name, str(item.get("src") or ""))
            fields.append({"id": name, "src": str(item["src"])})
        hidden.remember(content)
    return fields


def _variable(name: str, variable: str) -> str:
    if variable not in os.environ:
        raise BuildxError(
            f"secret {name}: wanted from the environment variable {variable}, which is not set on"
            " this host; set it with the task's environment, or give src or value"
        )
    return os.environ[variable]


def _file(name: str, path: str) -> str:
    try:
        return Path(path).read_bytes().decode("utf-8", "replace")
    except OSError as error:
        raise BuildxError(
            f"secret {name}: wanted from the file {path or '(none is given)'} on this host, which"
            f" cannot be read ({error.strerror}); correct src, or give env or value"
        ) from error


@contextlib.contextmanager
def login(
    registries: Sequence[str], username: str, password: str, hidden: Hidden, place: str
) -> Iterator[dict[str, str]]:
    """The environment in which a docker command logs in to these registries.

    The user's own configuration counts for all else. `place`: a directory for temporary files,
    where a link to the hidden file stands meanwhile. Without a user name: nothing.
    """
    if not username:
        yield {}
        return
    hidden.remember(password)
    usual = docker_directory()
    config = read_object(usual / "config.json")
    token = base64.b64encode(f"{username}:{password}".encode()).decode()
    hidden.remember(token)
    for registry in registries:
        key = _HUB_KEY if registry == HUB else registry
        config["auths"] = {**(config.get("auths") or {}), key: {"auth": token}}
        # Without a name of its own, a helper or store would be asked for this registry instead;
        # they are for the others (getConfiguredCredentialStore of docker/cli).
        config["credHelpers"] = {**(config.get("credHelpers") or {}), key: ""}
    directory = Path(tempfile.mkdtemp(prefix="fleet-images-login-", dir=place))
    try:
        (directory / "config.json").symlink_to(hidden.path(json.dumps(config).encode()))
        for name in _BESIDE:
            if (usual / name).exists():
                (directory / name).symlink_to((usual / name).resolve())
        yield {"DOCKER_CONFIG": str(directory), "BUILDX_CONFIG": str(buildx_directory())}
    finally:
        shutil.rmtree(directory, ignore_errors=True)
