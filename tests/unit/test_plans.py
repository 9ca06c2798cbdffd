# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which bundles are written for many hosts: one per plan, and united where there are too many."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from images import AMD64, ARM64, as_lock, blob, locked

from ansible_collections.fleet.images.plugins.module_utils import _lock
from ansible_collections.fleet.images.plugins.plugin_utils._plans import Group, bundles, unite

APP, WEB = "docker.io/library/app:1", "docker.io/library/web:1"
IMAGES = as_lock(locked("app:1", ["a", "b"]), locked("web:1", ["a", "c"]))
LOCK = _lock.dump(IMAGES)


def plan_of(plan_id: str, *names: str, blobs: list[str]) -> dict[str, Any]:
    images = [{"name": f"as/{name}", "lock_name": name, "action": "loaded"} for name in names]
    images.append({"name": "as/there:1", "lock_name": "there:1", "action": "none"})
    images.append({"name": "as/other:1", "lock_name": "other:1", "action": "failed"})
    return {"plan_id": plan_id, "images": images, "blobs": blobs, "engine": {"platform": AMD64}}


def test_one_bundle_per_bastion_and_plan() -> None:
    one, two = plan_of("1", APP, blobs=["x"]), plan_of("2", APP, WEB, blobs=["y", "x"])
    hosts = [
        {"bastion": "b2", "plan": one},
        {"bastion": "b1", "plan": two},
        {"bastion": "b1", "plan": one},
        {"bastion": "b1", "plan": dict(one)},
        {"bastion": "b1", "plan": {"plan_id": ""}},
        {"bastion": "b1", "plan": {"unreachable": True, "msg": "gone"}},
        {"bastion": "b1", "plan": None},
        {"bastion": "b3", "plan": {}},
        {"bastion": "dead", "plan": one},
    ]
    first = {"path": "/b/1.tar", "images": [APP], "blobs": ["x"], "platform": AMD64}
    second = {**first, "path": "/b/2.tar", "images": [APP, WEB], "blobs": ["x", "y"]}
    assert bundles(hosts, "/b/", {"b1": LOCK, "b2": LOCK, "b3": LOCK}) == {
        "b1": {"bundles": [first, second], "paths": {"1": "/b/1.tar", "2": "/b/2.tar"}},
        "b2": {"bundles": [first], "paths": {"1": "/b/1.tar"}},
    }
    assert bundles([], "/b", {}) == {}


def test_a_full_bundle_leaves_nothing_out() -> None:
    hosts = [{"bastion": "b", "plan": plan_of("1", APP, blobs=[])}]
    found = bundles(hosts, "/b", {"b": LOCK}, full=True)["b"]
    assert found["paths"] == {"1": "/b/1-full.tar"}
    assert found["bundles"][0]["blobs"] == sorted(blob.digest for blob in IMAGES[APP].blobs(AMD64))


@pytest.mark.parametrize("store", ["containerd", "classic"])
def test_a_full_bundle_carries_attestations_where_there_is_a_place_for_them(store: str) -> None:
    statement = blob("statement", 7)
    here = replace(IMAGES[APP].on(AMD64), attestations=(statement,))
    lock = _lock.dump(as_lock(replace(IMAGES[APP], platforms={AMD64: here})))
    plan = plan_of("1", APP, blobs=[])
    plan["engine"]["store"] = store
    found = bundles([{"bastion": "b", "plan": plan}], "/b", {"b": lock}, full=True)["b"]
    carried = set(found["bundles"][0]["blobs"])
    layers = {one.digest for one in here.layers}
    assert carried >= layers
    assert (statement.digest in carried) == (store == "containerd")


def test_attestations_count_where_plans_are_united() -> None:
    """The smallest pair is the one without the large statement."""
    statement = blob("statement", 9999)
    here = replace(IMAGES[APP].on(AMD64), attestations=(statement,))
    lock = _lock.dump({**IMAGES, APP: replace(IMAGES[APP], platforms={AMD64: here})})
    one, two = (layer.digest for layer in here.layers)
    plans = [
        plan_of("1", APP, blobs=[statement.digest]),
        plan_of("2", APP, blobs=[one]),
        plan_of("3", APP, blobs=[two]),
    ]
    hosts = [{"bastion": "b", "plan": plan} for plan in plans]
    paths = bundles(hosts, "/b", {"b": lock}, most=2)["b"]["paths"]
    assert paths["2"] == paths["3"] != paths["1"]


def group(plan: str, blobs: str, hosts: int = 1, platform: str = AMD64) -> Group:
    return Group(platform, frozenset({plan}), frozenset(blobs), frozenset({plan}), hosts)


SIZES = {"a": 1, "b": 10, "c": 100, "d": 1000}


def united(groups: list[Group], most: int) -> set[str]:
    return {"".join(sorted(one.plans)) for one in unite(groups, SIZES, most)}


def test_the_cheapest_union_comes_first() -> None:
    groups = [group("1", "a"), group("2", "ab"), group("3", "cd")]
    assert united(groups, 3) == {"1", "2", "3"}
    assert united(groups, 2) == {"12", "3"}
    assert united(groups, 1) == {"123"}
    assert united(groups, 0) == {"123"}


def test_the_cost_counts_every_host_that_receives_more() -> None:
    # 1 and 2 differ by 10 bytes for 50 hosts, 3 and 4 by 100 bytes for one.
    groups = [group("1", "d", 50), group("2", "bd"), group("3", "a"), group("4", "ac")]
    assert united(groups, 3) == {"1", "2", "34"}


def test_platforms_stay_apart() -> None:
    groups = [group("1", "a"), group("2", "b"), group("3", "c", platform=ARM64)]
    assert united(groups, 1) == {"12", "3"}


def test_a_united_bundle_serves_every_plan_in_it() -> None:
    plans = [plan_of("1", APP, blobs=["x"]), plan_of("2", WEB, blobs=["y"])]
    hosts = [{"bastion": "b", "plan": plan} for plan in plans]
    found = bundles(hosts, "/b", {"b": LOCK}, most=1)["b"]
    (bundle,) = found["bundles"]
    assert (bundle["images"], bundle["blobs"]) == ([APP, WEB], ["x", "y"])
    assert found["paths"] == {"1": bundle["path"], "2": bundle["path"]}
    assert bundle["path"] not in ("/b/1.tar", "/b/2.tar")


@given(st.lists(st.tuples(st.sets(st.sampled_from("abcd")), st.integers(1, 9)), max_size=12))
def test_uniting_loses_nothing(drawn: list[tuple[set[str], int]]) -> None:
    groups = [group(str(n), "".join(blobs), hosts) for n, (blobs, hosts) in enumerate(drawn)]
    found = unite(groups, SIZES, 4)
    assert len(found) == min(4, len(groups))
    assert sum(one.hosts for one in found) == sum(one.hosts for one in groups)
    for one in groups:
        (home,) = [other for other in found if one.plans <= other.plans]
        assert one.blobs <= home.blobs
