# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the role image_cleanup makes of its steps, and which hosts keep last copies."""

from __future__ import annotations

import random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.fleet.images.plugins.plugin_utils._cleanup import last_copies, outcome

ENGINE = {"version": "28.5.2", "store": "classic"}


def pruned(**more: Any) -> dict[str, Any]:
    images = [
        {"name": "a", "id": "sha256:a", "action": "removed"},
        {"name": "b", "id": "sha256:b", "action": "kept"},
    ]
    return {
        "changed": True,
        "engine": ENGINE,
        "images": images,
        "left": {"before": 5, "after": 4},
        "reclaimed": {"predicted_min": 10, "predicted_max": 20, "reported": 11, "measured": 12},
        "seconds": 1.5,
        **more,
    }


def test_done() -> None:
    row = outcome("web1", {"left_alone": "", "prune": pruned()})
    images = row.pop("images")
    assert [one["action"] for one in images] == ["removed", "kept"]
    assert row == {
        "host": "web1",
        "done": True,
        "changed": True,
        "left_alone": False,
        "reason": "",
        "engine": "28.5.2",
        "store": "classic",
        "before": 5,
        "removed": 1,
        "failed": 0,
        "after": 4,
        "predicted": 10,
        "predicted_max": 20,
        "measured": 12,
        "seconds": 1.5,
    }


def test_what_went_wrong_is_told() -> None:
    failed = pruned(failed=True, msg="Task failed: Module failed: it is too much; set max_images")
    row = outcome("web1", {"left_alone": "", "prune": failed})
    assert (row["done"], row["reason"]) == (False, "it is too much; set max_images")
    row = outcome("web1", {"left_alone": "", "prune": {"unreachable": True, "msg": "no route"}})
    assert not row["done"] and "unreachable (no route)" in row["reason"]
    row = outcome("web1", {"left_alone": "", "prune": {"skipped": True}})
    assert not row["done"] and row["reason"] == "not all steps ran; look at the messages above"
    row = outcome("web1", {"left_alone": "too many", "prune": {}})
    assert (row["done"], row["left_alone"], row["reason"]) == (False, True, "too many")


def host(name: str, plan: str = "", kept: str = "", digests: str = "") -> dict[str, Any]:
    """Images by letters; `digests`: pairs of a letter and a digest that this host knows it by."""
    known: dict[str, list[str]] = {}
    for pair in digests.split():
        known.setdefault(pair[0], []).append(f"registry.example/x@sha256:{pair[1]}")

    def image(letter: str) -> dict[str, Any]:
        return {"id": f"sha256:{letter}", "digests": known.get(letter, [])}

    told = {"plan": [image(one) for one in plan], "kept": [image(one) for one in kept]}
    return {"inventory_hostname": name, "image_cleanup_pruned": told}


def test_the_first_host_keeps_the_last_copy() -> None:
    found = last_copies([host("h1", "ab"), host("h2", "abc"), host("h3", "c", "b")])
    assert found == {"h1": ["sha256:a"], "h2": ["sha256:c"]}


def test_a_copy_that_stays_somewhere_is_enough() -> None:
    assert last_copies([host("h1", "a"), host("h2", "", "a")]) == {}


def test_stores_call_one_image_by_different_ids() -> None:
    """A classic store knows a config's digest, and what it was pulled as; containerd the latter."""
    classic = host("h1", "c", digests="cD")
    containerd = host("h2", "", "D")
    assert last_copies([classic, containerd]) == {}
    assert last_copies([classic, host("h2", "D")]) == {"h1": ["sha256:c"]}
    assert last_copies([host("h2", "D"), classic]) == {"h2": ["sha256:D"]}


def test_groups_join_late() -> None:
    """Two names of one image meet by a third host only."""
    hosts = [host("h1", "a", digests="aX"), host("h2", "b", digests="bY")]
    hosts.append(host("h3", "c", digests="cX cY"))
    assert last_copies(hosts) == {"h1": ["sha256:a"]}


def test_hosts_that_did_not_answer() -> None:
    hosts = [{"inventory_hostname": "h1"}, host("h2", "a")]
    hosts.append({"inventory_hostname": "h3", "image_cleanup_pruned": {"unreachable": True}})
    assert last_copies(hosts) == {"h2": ["sha256:a"]}


PLANS = st.lists(st.tuples(st.sets(st.sampled_from("abcdef")), st.sets(st.sampled_from("abcdef"))))


@given(PLANS)
def test_nothing_leaves_the_fleet(plans: list[tuple[set[str], set[str]]]) -> None:
    """Every image that somebody had stays somewhere, once for all that would let it go."""
    hosts = [
        host(f"h{n}", "".join(sorted(goes - stays)), "".join(sorted(stays)))
        for n, (goes, stays) in enumerate(plans)
    ]
    found = last_copies(hosts)
    kept = [id_ for ids in found.values() for id_ in ids]
    assert len(kept) == len(set(kept))
    stays = {f"sha256:{one}" for _goes, names in plans for one in names}
    goes = {f"sha256:{one}" for names, held in plans for one in names - held}
    assert set(kept) == goes - stays
    for name, ids in found.items():
        mine = next(one for one in hosts if one["inventory_hostname"] == name)
        assert set(ids) <= {one["id"] for one in mine["image_cleanup_pruned"]["plan"]}
    shuffled = random.Random(7).sample(hosts, len(hosts))
    assert {id_ for ids in last_copies(shuffled).values() for id_ in ids} == set(kept)
