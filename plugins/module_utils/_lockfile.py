# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The lock that a module was given: as a value or as a file, and the images chosen from it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible_collections.fleet.images.plugins.module_utils._lock import (
    Lock,
    LockedImage,
    LockError,
    load,
    loads,
    select,
)
from ansible_collections.fleet.images.plugins.module_utils._reference import parse_images


def read(path: str) -> dict[str, LockedImage]:
    """The lock in a file; raises OSError, and LockError with the path for what is no lock."""
    content = Path(path).read_bytes()
    try:
        return loads(content)
    except LockError as error:
        raise LockError(f"{path}: {error}") from error


def given(params: Mapping[str, Any], otherwise: Lock | None = None) -> Lock:
    """The lock of the parameters `lock` (a dict) or `lock_path`, `otherwise` where both are empty.

    Raises LockError, also where there is none at all; OSError.
    """
    if params["lock_path"]:
        return read(params["lock_path"])
    if params["lock"] is None and otherwise is not None:
        return otherwise
    return load(params["lock"])


def chosen(params: Mapping[str, Any], otherwise: Lock | None = None) -> Lock:
    """The images of the given lock that the parameter `images` names; all without `images`.

    Raises as `given` does, and InvalidReference for a list in which something names no image.
    """
    lock = given(params, otherwise)
    if params["images"] is None:
        return lock
    return select(lock, [spec.key for spec in parse_images(params["images"])])
