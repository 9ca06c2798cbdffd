# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the role airgap makes of its steps' results: which bundles to write, what each host got.

Pure: functions from registered results to values. A step's result is missing where the step was
skipped, and tells `failed` or `unreachable` where it went wrong.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ansible_collections.fleet.images.plugins.module_utils._reference import parse_images

Result = Mapping[str, Any]
# What ansible-core 2.19 puts before a module's own message.
_PREFIX = re.compile(r"^(?:(?:Task|Module|Action) failed: )+")


def select_lock(lock: Result, images: Sequence[Any]) -> dict[str, Any]:
    """The lock's content for these images only; those that it lacks are left out."""
    keys = [spec.key for spec in parse_images(images)]
    there = lock.get("images") or {}
    return {"version": lock.get("version", 1), "images": {k: there[k] for k in keys if k in there}}


def select_known(known: Iterable[Result], lock: Result) -> list[Result]:
    """The blob lists that matter for a lock: manifests that share a layer with it."""
    wanted = {
        layer["digest"]
        for image in (lock.get("images") or {}).values()
        for one in image["platforms"].values()
        for layer in one["layers"]
    }
    chosen: list[Result] = []
    for entry in known:
        blobs = [blob for blob in entry["blobs"] if blob in wanted]
        if blobs:
            chosen.append({**entry, "blobs": blobs})
    return chosen


def bundles(hosts: Iterable[Result], directory: str) -> dict[str, list[dict[str, Any]]]:
    """The bundles to write on each bastion: one per distinct plan.

    `hosts`: dicts of `bastion` and `plan` (the result of image_plan). Returns bastion -> entries
    for image_archive's `bundles`.
    """
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for host in hosts:
        plan = host.get("plan") or {}
        if not plan.get("plan_id"):
            continue
        todo = [one["lock_name"] for one in plan["images"] if one["action"] != "none"]
        found[(host["bastion"], plan["plan_id"])] = {
            "path": f"{directory.rstrip('/')}/{plan['plan_id']}.tar",
            "images": todo,
            "blobs": plan["blobs"],
            "platform": plan["engine"]["platform"],
        }
    grouped: dict[str, list[dict[str, Any]]] = {}
    for (bastion, _plan_id), bundle in sorted(found.items()):
        grouped.setdefault(bastion, []).append(bundle)
    return grouped


def trouble(result: Result | None, what: str) -> str:
    """Why a step went wrong, one sentence; '' where it did not."""
    result = result or {}
    message = _PREFIX.sub("", " ".join(str(result.get("msg", "")).split())) or "no reason given"
    if result.get("unreachable"):
        return f"{what} is unreachable ({message}); see that it is up, then run again"
    return message if result.get("failed") else ""


def outcome(host: str, steps: Mapping[str, Any]) -> dict[str, Any]:
    """What one host got: the fact `airgap_result`, and a row of the report.

    `steps`: `images` (wanted), `bastion`, and the results `sdk`, `fetch`, `plan`, `archive`,
    `collect`, `load`, each of them possibly missing. In check mode (`check_mode`) the plan is the
    outcome.
    """
    bastion = f"bastion {steps['bastion']}"
    plan, load = steps.get("plan") or {}, steps.get("load") or {}
    reasons = [
        trouble(steps.get("sdk"), "the host"),
        trouble(steps.get("plan"), "the host"),
        _fetch_trouble(steps, bastion),
        _archive_trouble(steps, bastion),
        trouble(steps.get("collect"), bastion),
        trouble(steps.get("load"), "the host"),
    ]
    reason = next((text for text in reasons if text), "")
    wanted = len(parse_images(steps["images"]))
    predicted = bool(steps.get("check_mode"))
    images = _images(plan, load, predicted)
    counts = _counts(images, wanted)
    if not reason and counts["present"] + counts["loaded"] < wanted:
        reason = "not all steps ran; look at the messages above"
    engine = plan.get("engine") or {}
    return {
        "host": host,
        "done": not reason,
        "changed": bool(load.get("changed")),
        "reason": reason,
        "engine": engine.get("version", ""),
        "store": engine.get("store", ""),
        "platform": engine.get("platform", ""),
        **counts,
        "bytes_sent": plan.get("bytes", 0) if predicted else load.get("bytes_sent", 0),
        "bytes_saved_plainly": plan.get("save_bytes", 0),
        "seconds": load.get("seconds", 0.0),
        "images": images,
    }


def _fetch_trouble(steps: Mapping[str, Any], bastion: str) -> str:
    """Why images of this host are not in the store; what other hosts wanted does not matter."""
    fetch = steps.get("fetch") or {}
    there = (fetch.get("lock") or {}).get("images") or {}
    lacking = [spec.key for spec in parse_images(steps["images"]) if spec.key not in there]
    if not lacking:
        return ""
    told = {one.get("name"): one.get("reason") for one in fetch.get("images") or []}
    reasons = [str(told[name]) for name in lacking if told.get(name)]
    return "; ".join(dict.fromkeys(reasons)) or trouble(fetch, bastion)


def _images(plan: Result, load: Result, predicted: bool) -> list[dict[str, Any]]:
    """What became of each image that was planned; without its load, one that lacked has failed."""
    done = {one["name"]: dict(one) for one in load.get("images") or []}
    for one in plan.get("images") or []:
        failed = {} if predicted or one["action"] == "none" else {"action": "failed"}
        done.setdefault(one["name"], {**one, **failed})
    return list(done.values())


def _archive_trouble(steps: Mapping[str, Any], bastion: str) -> str:
    """Why this host's bundle is not there; what became of other hosts' bundles does not matter."""
    archive = steps.get("archive") or {}
    plan_id = (steps.get("plan") or {}).get("plan_id")
    if not plan_id:
        return ""
    own = f"/{plan_id}.tar"
    if any(one["path"].endswith(own) for one in archive.get("bundles") or []):
        return ""
    told = [one for one in archive.get("failed_bundles") or [] if one["path"].endswith(own)]
    return str(told[0]["reason"]) if told else trouble(archive, bastion)


def _counts(images: Iterable[Result], wanted: int) -> dict[str, int]:
    actions = [str(one["action"]) for one in images]
    present, loaded = actions.count("none"), actions.count("loaded")
    return {"present": present, "loaded": loaded, "failed": max(0, wanted - present - loaded)}


def rows(hosts: Mapping[str, Result | None]) -> list[dict[str, Any]]:
    """A report's rows: host -> its result fact, or a row that says that there is none."""
    found = []
    for host, result in hosts.items():
        missing = {"host": host, "done": False, "reason": "the run ended for it before the report"}
        found.append(dict(result) if result else missing)
    return found
