# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the role preseed makes of the pull on one host. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.fleet.images.plugins.module_utils._reference import (
    InvalidReference,
    parse_images,
)
from ansible_collections.fleet.images.plugins.plugin_utils._airgap import trouble

Result = Mapping[str, Any]


def outcome(host: str, steps: Mapping[str, Any]) -> dict[str, Any]:
    """What one host got: the fact `preseed_result`, and a row of the report.

    `steps`: `images` (wanted; empty for the whole lock), `lock` (its content, {} for none),
    `left_alone` (why nothing was tried, '' where it was), and the result `pull`, of which a skipped
    or failed task has parts at most.
    """
    pull = steps.get("pull") or {}
    images = [dict(one) for one in pull.get("images") or []]
    acted = [str(one["action"]) for one in images]
    present, pulled = acted.count("none"), acted.count("pulled")
    count = _count(steps)
    reason = str(steps.get("left_alone") or "") or trouble(pull, "the host")
    if not reason and present + pulled < count:
        reason = "not all steps ran; look at the messages above"
    engine = pull.get("engine") or {}
    return {
        "host": host,
        "done": not reason,
        "changed": bool(pull.get("changed")),
        "left_alone": bool(steps.get("left_alone")),
        "reason": reason,
        "engine": engine.get("version", ""),
        "store": engine.get("store", ""),
        "present": present,
        "pulled": pulled,
        "failed": 0 if steps.get("left_alone") else max(0, count - present - pulled),
        "bytes": pull.get("bytes"),
        "seconds": float(pull.get("seconds") or 0.0),
        "images": images,
    }


def _count(steps: Mapping[str, Any]) -> int:
    """How many images are wanted; a list that cannot be read counts as it stands."""
    if not steps["images"]:
        return len((steps.get("lock") or {}).get("images") or {})
    try:
        return len(parse_images(steps["images"]))
    except InvalidReference:
        return len(steps["images"])
