# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the role image_cleanup makes of its steps: outcomes, and the fleet's last copies. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ansible_collections.fleet.images.plugins.plugin_utils._airgap import trouble

Result = Mapping[str, Any]


def outcome(host: str, steps: Mapping[str, Any]) -> dict[str, Any]:
    """What became of one host: the fact `image_cleanup_result`, and a row of the report.

    `steps`: `left_alone` (why nothing was tried, '' where it was), and the result `prune`, of which
    a skipped or failed task has parts at most. In check mode the plan is the outcome.
    """
    prune = steps.get("prune") or {}
    left_alone = str(steps.get("left_alone") or "")
    images = [dict(one) for one in prune.get("images") or []]
    acted = [str(one["action"]) for one in images]
    left, reclaimed = prune.get("left") or {}, prune.get("reclaimed") or {}
    engine = prune.get("engine") or {}
    reason = left_alone or trouble(prune, "the host")
    if not reason and not engine:
        reason = "not all steps ran; look at the messages above"
    return {
        "host": host,
        "done": not reason,
        "changed": bool(prune.get("changed")),
        "left_alone": bool(left_alone),
        "reason": reason,
        "engine": engine.get("version", ""),
        "store": engine.get("store", ""),
        "before": left.get("before"),
        "removed": acted.count("removed"),
        "failed": acted.count("failed"),
        "after": left.get("after"),
        "predicted": reclaimed.get("predicted_min"),
        "predicted_max": reclaimed.get("predicted_max"),
        "measured": reclaimed.get("measured"),
        "seconds": float(prune.get("seconds") or 0.0),
        "images": images,
    }


def last_copies(hosts: Iterable[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Host -> IDs of the images that it is to keep for the fleet, though its policy lets them go.

    `hosts`: variables of all hosts, with the registered result `image_cleanup_pruned` of a plan,
    whose `plan` and `kept` have `id` and `digests`. What one host knows by its config's digest,
    another knows by its manifest's: two images are the same if any of these agree. The first host
    that has an image that every host lets go keeps it. A host that did not answer keeps nothing.
    """
    answers = [(str(one["inventory_hostname"]), _answer(one)) for one in hosts]
    groups = _Groups()
    for _host, answer in answers:
        for image in (*(answer.get("plan") or ()), *(answer.get("kept") or ())):
            groups.join(_keys(image))
    kept = {groups.of(image["id"]) for _host, told in answers for image in told.get("kept") or ()}
    found: dict[str, list[str]] = {}
    taken: set[str] = set(kept)
    for host, answer in answers:
        for image in answer.get("plan") or ():
            group = groups.of(image["id"])
            if group not in taken:
                taken.add(group)
                found.setdefault(host, []).append(image["id"])
    return found


def _answer(variables: Mapping[str, Any]) -> Result:
    found: Result = variables.get("image_cleanup_pruned") or {}
    return found


def _keys(image: Mapping[str, Any]) -> Sequence[str]:
    return [image["id"], *(str(text).rpartition("@")[2] for text in image.get("digests") or ())]


class _Groups:
    """Digests that name one image, whatever each host calls it."""

    def __init__(self) -> None:
        self._above: dict[str, str] = {}

    def of(self, key: str) -> str:
        """The one that stands for all of its group."""
        while self._above.setdefault(key, key) != key:
            self._above[key] = key = self._above[self._above[key]]
        return key

    def join(self, keys: Sequence[str]) -> None:
        """Makes them one group."""
        for key in keys[1:]:
            self._above[self.of(key)] = self.of(keys[0])
