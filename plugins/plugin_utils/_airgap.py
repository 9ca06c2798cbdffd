# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the role airgap makes of its steps' results: what to fetch, what each host got.

Pure: functions from registered results to values. A step's result is missing where the step was
skipped, and tells `failed` or `unreachable` where it went wrong.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ansible_collections.fleet.images.plugins.module_utils._reference import (
    ImageSpec,
    InvalidReference,
    parse_images,
    parse_platform,
)

Result = Mapping[str, Any]
RELAYED = ("network", "tunnel")
# What ansible-core 2.19 puts before a module's own message.
_PREFIX = re.compile(r"^(?:(?:Task|Module|Action) failed: )+")


def wanted(hosts: Iterable[Result]) -> dict[str, list[dict[str, Any]]]:
    """What each bastion has to fetch: the union of what its hosts want, each image once.

    `hosts`: dicts of `bastion`, `images` and `machine`, what `uname -m` says ('' where nobody
    does). An image that names no platforms is wanted for those of the hosts. Of two hosts that pin
    one name to different digests the first one counts; `select_lock` leaves the other one without.
    A list that cannot be read is that host's own trouble, and tells there.
    """
    found: dict[str, dict[str, list[tuple[ImageSpec, str]]]] = {}
    for host in hosts:
        try:
            specs = parse_images(host["images"])
        except InvalidReference:
            continue
        for spec in specs:
            users = found.setdefault(host["bastion"], {}).setdefault(spec.key, [])
            users.append((spec, _platform(host["machine"])))
    return {
        bastion: [_union(users) for users in images.values()] for bastion, images in found.items()
    }


def _platform(machine: str) -> str:
    try:
        return parse_platform(machine) if machine.strip() else ""
    except InvalidReference:
        return ""


def _union(users: Sequence[tuple[ImageSpec, str]]) -> dict[str, Any]:
    """One image for all the hosts that want it; `as` only where they agree."""
    digests = [spec.reference.digest for spec, _platform in users if spec.reference.digest]
    platforms = {
        one
        for spec, platform in users
        for one in spec.platforms or ((platform,) if platform else ())
    }
    names = {spec.as_ for spec, _platform in users}
    image: dict[str, Any] = {"name": users[0][0].key}
    if digests and not image["name"].endswith(digests[0]):
        image["digest"] = digests[0]
    if platforms:
        image["platforms"] = sorted(platforms)
    if len(names) == 1 and None not in names:
        image["as"] = str(names.pop())
    return image


def select_lock(lock: Result, images: Sequence[Any], strict: bool = True) -> dict[str, Any]:
    """The lock's content for these images only, under the names that they are to get.

    Left out are those that the lock lacks, or has with another digest than the one wanted. Not
    `strict`: the latter stay, and a list that cannot be read chooses nothing, so that the module
    that gets both tells of it.
    """
    there = lock.get("images") or {}
    chosen = {}
    for spec in _specs(images, strict):
        entry = there.get(spec.key)
        if entry and (not strict or spec.reference.digest in (None, entry["digest"])):
            chosen[spec.key] = {**entry, "as": str(spec.as_)} if spec.as_ else entry
    return {"version": lock.get("version", 1), "images": chosen}


def _specs(images: Sequence[Any], strict: bool) -> list[ImageSpec]:
    try:
        return parse_images(images)
    except InvalidReference:
        if strict:
            raise
        return []


def select_known(known: Iterable[Result], lock: Result) -> list[Result]:
    """The blob lists that matter for a lock: manifests that share a layer with it."""
    needed = {
        layer["digest"]
        for image in (lock.get("images") or {}).values()
        for one in image["platforms"].values()
        for layer in one["layers"]
    }
    chosen: list[Result] = []
    for entry in known:
        blobs = [blob for blob in entry["blobs"] if blob in needed]
        if blobs:
            chosen.append({**entry, "blobs": blobs})
    return chosen


def trouble(result: Result | None, what: str) -> str:
    """Why a step went wrong, one sentence; '' where it did not."""
    result = result or {}
    message = _PREFIX.sub("", " ".join(str(result.get("msg", "")).split())) or "no reason given"
    if result.get("unreachable"):
        return f"{what} is unreachable ({message}); see that it is up, then run again"
    return message if result.get("failed") else ""


def outcome(host: str, steps: Mapping[str, Any]) -> dict[str, Any]:
    """What one host got: the fact `airgap_result`, and a row of the report.

    `steps`: `images` (wanted), `bastion`, `transport`, `path` (of this host's bundle, '' where it
    needs none), and the results `look`, `fetch`, `plan`, `relay`, `pull`, `archive`, `load`, each
    of them possibly missing. In check mode (`check_mode`) the plan is the outcome. `before`: the
    outcome of an earlier round of this run, whose bundle did not fit.
    """
    plan, load = steps.get("plan") or {}, steps.get("load") or {}
    pull, way = pulled(steps), _way(steps)
    if way in RELAYED:
        load = pull
    before = steps.get("before") or {}
    bundle = _bundle(steps)
    count = len(parse_images(steps["images"]))
    predicted = bool(steps.get("check_mode"))
    images = _with_sources(_images(plan, load, predicted), plan, steps.get("fetch") or {})
    counts = _counts(images, count)
    reason = _reason(steps)
    if not reason and counts["present"] + counts["loaded"] < count:
        reason = "not all steps ran; look at the messages above"
    engine = plan.get("engine") or {}
    sent = load.get("bytes_sent", 0)
    if predicted:
        sent = plan.get("bytes", 0) if way in RELAYED else bundle.get("bytes", 0)
    return {
        "host": host,
        "done": not reason,
        "changed": bool(load.get("changed") or pull.get("changed") or before.get("changed")),
        "reason": reason,
        "engine": engine.get("version", ""),
        "store": engine.get("store", ""),
        "platform": engine.get("platform", ""),
        "source": ", ".join(sorted({one["source"] for one in images if one.get("source")})),
        "transport": way,
        "fallback": "" if way in RELAYED else _relay_trouble(steps),
        "bundle": ", ".join(kind for kind in (before.get("bundle"), _kind(bundle)) if kind),
        **counts,
        "bytes_sent": sent + before.get("bytes_sent", 0),
        "bytes_saved_plainly": plan.get("save_bytes", 0),
        "seconds": round(load.get("seconds", 0.0) + before.get("seconds", 0.0), 3),
        "images": images,
    }


def pulled(steps: Mapping[str, Any]) -> dict[str, Any]:
    """What came through a relay, told as a load is; empty where nothing was tried."""
    pull = dict(steps.get("pull") or {})
    actions = {"pulled": "loaded"}
    images = [
        {**one, "name": one["destination"], "action": actions.get(one["action"], one["action"])}
        for one in pull.get("images") or []
    ]
    return {**pull, "images": images, "bytes_sent": pull.get("bytes") or 0} if pull else {}


def _way(steps: Mapping[str, Any]) -> str:
    """How this host got, or would get, its images; '' where it needed none."""
    wanted_way = str(steps.get("transport") or "bundle")
    if not (steps.get("plan") or {}).get("plan_id"):
        return ""
    if wanted_way == "auto":
        pull = steps.get("pull") or {}
        done = "images" in pull and not trouble(pull, "the host")
        return "tunnel" if done or steps.get("check_mode") else "bundle"
    return wanted_way


def _relay_trouble(steps: Mapping[str, Any]) -> str:
    """Why nothing came through the relay; '' where it did, or was not meant to."""
    found = trouble(steps.get("relay"), f"bastion {steps['bastion']}")
    return found or trouble(steps.get("pull"), "the host")


def _reason(steps: Mapping[str, Any]) -> str:
    """Why the host is not done: the first step that went wrong; '' where none did."""
    bastion = f"bastion {steps['bastion']}"
    reasons = (
        trouble(steps.get("look"), "the host"),
        _unreachable(steps.get("plan")),
        _fetch_trouble(steps, bastion),
        _relay_trouble(steps) if _way(steps) in RELAYED else "",
        _archive_trouble(steps, bastion),
        trouble(steps.get("load"), "the host"),
        trouble(steps.get("plan"), "the host"),
    )
    return next((text for text in reasons if text), "")


def _unreachable(plan: Result | None) -> str:
    """A plan that fails for one image goes on for the others: it counts last, unless it is none."""
    return "" if plan and plan.get("plan_id") is not None else trouble(plan, "the host")


def _bundle(steps: Mapping[str, Any]) -> Result:
    """The entry of this host's bundle among those of its bastion; empty where there is none."""
    written = (steps.get("archive") or {}).get("bundles") or []
    path = steps.get("path")
    return next((one for one in written if path and one["path"] == path), {})


def _kind(bundle: Result) -> str:
    if not bundle:
        return ""
    return "thin" if bundle.get("left_out") else "full"


def _fetch_trouble(steps: Mapping[str, Any], bastion: str) -> str:
    """Why images of this host are not in the store; what other hosts wanted does not matter."""
    fetch = steps.get("fetch") or {}
    lock = fetch.get("lock") or {}
    there = select_lock(lock, steps["images"])["images"]
    specs = {spec.key: spec for spec in parse_images(steps["images"])}
    lacking = [key for key in specs if key not in there]
    if not lacking:
        return ""
    told = {one.get("name"): one.get("reason") for one in fetch.get("images") or []}
    reasons = []
    for key in lacking:
        if key in (lock.get("images") or {}):
            found = lock["images"][key]["digest"]
            reasons.append(
                f"{key}: wanted {specs[key].reference.digest}, {bastion} fetched {found} for other"
                " hosts of this run; give one of them another tag, or run them apart"
            )
        elif told.get(key):
            reasons.append(str(told[key]))
    return "; ".join(dict.fromkeys(reasons)) or trouble(fetch, bastion)


def _images(plan: Result, load: Result, predicted: bool) -> list[dict[str, Any]]:
    """What became of each image that was planned; without its load, one that lacked has failed."""
    done = {one["name"]: dict(one) for one in load.get("images") or []}
    for one in plan.get("images") or []:
        failed = {} if predicted or one["action"] == "none" else {"action": "failed"}
        done.setdefault(one["name"], {**one, **failed})
    return list(done.values())


def _with_sources(
    images: Iterable[dict[str, Any]], plan: Result, fetch: Result
) -> list[dict[str, Any]]:
    """The images with where the bastion has each from, where it tells."""
    sources = {one.get("name"): one.get("source") for one in fetch.get("images") or []}
    keys = {one["name"]: one.get("lock_name") for one in plan.get("images") or []}
    return [
        {**one, "source": source} if (source := sources.get(keys.get(one["name"]))) else one
        for one in images
    ]


def _archive_trouble(steps: Mapping[str, Any], bastion: str) -> str:
    """Why this host's bundle is not there; what became of other hosts' bundles does not matter."""
    archive, path = steps.get("archive") or {}, steps.get("path")
    if not path or _bundle(steps):
        return ""
    told = [one for one in archive.get("failed_bundles") or [] if one["path"] == path]
    return str(told[0]["reason"]) if told else trouble(archive, bastion)


def _counts(images: Iterable[Result], count: int) -> dict[str, int]:
    actions = [str(one["action"]) for one in images]
    present, loaded = actions.count("none"), actions.count("loaded")
    return {"present": present, "loaded": loaded, "failed": max(0, count - present - loaded)}
