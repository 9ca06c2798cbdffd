# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs of image_fetch on a machine of linux/amd64, and what a store is to look like afterwards."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from registry_stub import digest_of

from ansible_collections.fleet.images.plugins.module_utils import _fetch, _job, _lock
from ansible_collections.fleet.images.plugins.module_utils._engine import EngineError
from ansible_collections.fleet.images.plugins.module_utils._reference import parse_images
from ansible_collections.fleet.images.plugins.module_utils._registry import Registry
from ansible_collections.fleet.images.plugins.module_utils._registry_options import Options
from ansible_collections.fleet.images.plugins.module_utils._retry import Retrier

Json = dict[str, Any]
Fetch = Callable[..., Json]


def no_engine() -> Any:
    raise EngineError("the Engine at nowhere: wanted an answer, found none")


def into(store: Path) -> Fetch:
    """`fetch("name", …, option=…)` is one task."""

    def run(
        *images: Any, check: bool = False, retries: int = 3, connect: Any = no_engine, **task: Any
    ) -> Json:
        given_lock = _lock.load(task.pop("lock")) if task.get("lock") else {}
        if task.get("keep") is not None:
            task["keep"] = _job.read_keep(task["keep"])
        wanted = _job.Task(
            store=str(store),
            own_platform="linux/amd64",
            specs=parse_images(images),
            lock=given_lock,
            dry_run=check,
            **task,
        )
        with Registry(Options(), Retrier(retries=retries, sleep=lambda _time: None)) as registry:
            result = _fetch.run(wanted, registry, connect)
        json.dumps(result)
        return result

    return run


def one(result: Json) -> Json:
    (image,) = result["images"]
    return image


def files(store: Path) -> dict[str, bytes]:
    found = sorted(path for path in store.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(store)): path.read_bytes() for path in found}


def check_store(store: Path) -> None:
    """Every blob is what its name says, and what lies beside one is empty."""
    for name, content in files(store).items():
        if name.endswith(".part"):
            assert content == b""
        elif name.startswith("blobs/"):
            assert digest_of(content) == name.replace("blobs/", "").replace("/", ":")
