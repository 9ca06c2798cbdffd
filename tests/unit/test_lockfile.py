# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lock that a module was given, as a value or as a file, and the images chosen from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from images import as_lock, locked

from ansible_collections.fleet.images.plugins.module_utils import _lock, _lockfile

APP, WEB = "docker.io/library/app:1", "docker.io/library/web:1"
LOCK = as_lock(locked("app:1", ["a"]), locked("web:1", ["b"]))
NOTHING: dict[str, Any] = {"lock": None, "lock_path": None, "images": None}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "images.lock.json"
    path.write_text(_lock.dumps(LOCK))
    return path


def test_a_value_and_a_file_are_the_same_lock(path: Path) -> None:
    for how in ({"lock": _lock.dump(LOCK)}, {"lock_path": str(path)}):
        assert _lockfile.given({**NOTHING, **how}) == LOCK
        assert _lockfile.chosen({**NOTHING, **how}) == LOCK
        assert list(_lockfile.chosen({**NOTHING, **how, "images": ["web:1"]})) == [WEB]
        assert _lockfile.chosen({**NOTHING, **how, "images": []}, otherwise=LOCK) == {}


@pytest.mark.parametrize("lock_path", [None, ""])
def test_without_a_lock_the_other_one_counts(lock_path: str | None) -> None:
    params = {**NOTHING, "lock_path": lock_path}
    assert _lockfile.chosen(params, otherwise=LOCK) == LOCK
    assert list(_lockfile.chosen({**params, "images": ["app:1"]}, otherwise=LOCK)) == [APP]
    assert _lockfile.given(params, otherwise={}) == {}
    with pytest.raises(_lock.LockError, match="the lock: wanted a JSON object"):
        _lockfile.chosen(params)


@pytest.mark.parametrize("content", [b"", b"\xff", b"[]", b'{"version": 2, "images": {}}'])
def test_errors_name_the_file(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(_lock.LockError) as told:
        _lockfile.read(str(path))
    assert str(told.value).startswith(f"{path}: the lock")
    assert str(told.value).endswith("make it anew with image_fetch")


def test_an_image_that_the_lock_lacks(path: Path) -> None:
    with pytest.raises(_lock.LockError, match="other:1 is not in the lock"):
        _lockfile.chosen({**NOTHING, "lock_path": str(path), "images": ["other:1"]})
