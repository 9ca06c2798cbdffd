# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What `docker buildx` keeps of builders in files, which is exact where its commands are not.

Read only, but for a builder that a command left half changed.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ansible_collections.fleet.images.plugins.module_utils._builder_plan import Kept
from ansible_collections.fleet.images.plugins.module_utils._builder_words import (
    SettingError,
    Settings,
)
from ansible_collections.fleet.images.plugins.module_utils._reference import (
    InvalidReference,
    parse_platform,
    platform_of,
)

DEFAULT_CONFIG = "buildkitd.default.toml"
"""The configuration that buildx takes where it is given none."""


class Store:
    """The files of a directory of buildx."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def _path(self, name: str) -> Path:
        return self.directory / "instances" / name

    def read(self, name: str) -> bytes | None:
        """The file of a builder; None where there is none. Raises OSError."""
        try:
            return self._path(name).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def builder(self, name: str) -> Kept | None:
        """A builder; None where there is none. Raises SettingError for a file that is damaged."""
        content = self.read(name)
        if content is None:
            return None
        try:
            return parse(content)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise SettingError(
                f"{self._path(name)}: wanted a builder as JSON, found something else ({error});"
                " remove the file"
            ) from error

    def restore(self, name: str, content: bytes | None) -> bool:
        """Gives a builder the file that it had; whether it had another. Raises OSError."""
        if self.read(name) == content:
            return False
        with self._locked():
            path = self._path(name)
            if content is None:
                path.unlink(missing_ok=True)
                return True
            # buildx takes every file beside it for a builder.
            part = self.directory / f".tmp-{name}"
            part.touch(mode=0o600)
            part.write_bytes(content)
            part.replace(path)
        return True

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """The lock that every command of buildx takes."""
        with open(self.directory / ".lock", "a", encoding="ascii") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def parse(content: bytes) -> Kept:
    """A builder's file; raises ValueError, TypeError, KeyError, AttributeError where it is none."""
    told = json.loads(content)
    return Kept(told["Name"], told["Driver"], tuple(map(_node, told["Nodes"] or ())))


def _node(told: Mapping[str, Any]) -> Settings:
    files = {name: base64.b64decode(text or "") for name, text in (told["Files"] or {}).items()}
    return Settings(
        name=told["Name"],
        endpoint=told["Endpoint"],
        platforms=tuple(_platform(one) for one in told["Platforms"] or ()),
        driver_opts=dict(told["DriverOpts"] or {}),
        flags=tuple(told["Flags"] or ()),
        files=files,
    )


def _platform(told: Mapping[str, Any]) -> str:
    text = platform_of(told)
    try:
        return parse_platform(text)
    except InvalidReference:
        return "/".join(str(told.get(key) or "") for key in ("os", "architecture"))
