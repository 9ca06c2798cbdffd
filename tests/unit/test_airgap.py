# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the role airgap makes of its steps: from results as Ansible registers them."""

from __future__ import annotations

from typing import Any

import pytest
from images import AMD64, as_lock, digest, layer, locked

from ansible_collections.fleet.images.plugins.module_utils import _lock
from ansible_collections.fleet.images.plugins.plugin_utils._airgap import (
    bundles,
    outcome,
    rows,
    select_known,
    select_lock,
    trouble,
)

APP, WEB = "docker.io/library/app:1", "docker.io/library/web:1"
LOCK = _lock.dump(as_lock(locked("app:1", ["a", "b"]), locked("web:1", ["a", "c"])))

# Results as `register` gives them, for a host that wants both images.

FETCH = {"changed": True, "lock": LOCK, "images": [{"name": APP, "reason": ""}, {"name": WEB}]}
PLAN = {
    "changed": False,
    "plan_id": "0123456789abcdef",
    "blobs": [digest("x"), digest("y")],
    "bytes": 1000,
    "save_bytes": 90_000,
    "engine": {"version": "28.5.2", "store": "containerd", "platform": AMD64},
    "images": [
        {"name": APP, "lock_name": APP, "state": "present", "action": "none", "reason": "there"},
        {"name": WEB, "lock_name": WEB, "state": "missing", "action": "loaded", "reason": "no tag"},
    ],
}
NOTHING = {
    **PLAN,
    "plan_id": "",
    "blobs": [],
    "bytes": 0,
    "images": [{**one, "action": "none"} for one in PLAN["images"]],  # type: ignore[attr-defined]
}
ARCHIVE = {"changed": True, "bundles": [{"path": "/b/0123456789abcdef.tar"}]}
LOAD = {
    "changed": True,
    "bytes_sent": 5000,
    "seconds": 1.5,
    "images": [
        {"name": APP, "action": "none", "reason": "there"},
        {"name": WEB, "action": "loaded", "reason": "no tag"},
    ],
}
UNREACHABLE = {"unreachable": True, "msg": "Failed to connect:\n  timed out"}
SKIPPED = {"changed": False, "skipped": True, "skip_reason": "Conditional result was False"}


def steps(**results: Any) -> dict[str, Any]:
    whole = {"fetch": FETCH, "plan": PLAN, "archive": ARCHIVE, "collect": {}, "load": LOAD}
    return {"images": ["app:1", "web:1"], "bastion": "b1", **whole, **results}


def counts(result: dict[str, Any]) -> tuple[int, int, int]:
    return result["present"], result["loaded"], result["failed"]


def actions(result: dict[str, Any]) -> dict[str, str]:
    return {one["name"]: one["action"] for one in result["images"]}


def test_a_host_that_got_what_it_lacked() -> None:
    assert outcome("n1", steps()) == {
        "host": "n1",
        "done": True,
        "changed": True,
        "reason": "",
        "engine": "28.5.2",
        "store": "containerd",
        "platform": AMD64,
        "present": 1,
        "loaded": 1,
        "failed": 0,
        "bytes_sent": 5000,
        "bytes_saved_plainly": 90_000,
        "seconds": 1.5,
        "images": LOAD["images"],
    }


def test_a_host_that_lacked_nothing() -> None:
    found = outcome("n1", steps(plan=NOTHING, archive=SKIPPED, load=SKIPPED))
    assert (found["done"], found["changed"], counts(found)) == (True, False, (2, 0, 0))
    assert (found["bytes_sent"], found["seconds"]) == (0, 0.0)


def test_a_host_that_wants_nothing() -> None:
    found = outcome("n1", {"images": [], "bastion": "b1"})
    assert (found["done"], counts(found)) == (True, (0, 0, 0))


def test_in_check_mode_the_plan_is_the_outcome() -> None:
    found = outcome("n1", steps(archive=SKIPPED, load=SKIPPED, check_mode=True))
    assert (found["done"], counts(found), found["bytes_sent"]) == (True, (1, 1, 0), 1000)
    assert actions(found) == {APP: "none", WEB: "loaded"}


FAILED_LOAD = {
    **LOAD,
    "failed": True,
    "changed": False,
    "msg": f"{WEB}: not loaded, the Engine said: no space",
    "images": [LOAD["images"][0], {"name": WEB, "action": "failed", "reason": "no space"}],  # type: ignore[index]
}


@pytest.mark.parametrize(
    ("results", "reason", "counted"),
    [
        (
            {"plan": UNREACHABLE, "archive": SKIPPED, "load": SKIPPED},
            "the host is unreachable",
            (0, 0, 2),
        ),
        (
            {"plan": {"failed": True, "msg": "the Engine at x: …"}, "load": SKIPPED},
            "the Engine at x: …",
            (0, 0, 2),
        ),
        (
            {"fetch": UNREACHABLE, "plan": {**NOTHING, "images": []}, "load": SKIPPED},
            "bastion b1 is unreachable",
            (0, 0, 2),
        ),
        ({"archive": UNREACHABLE, "load": SKIPPED}, "bastion b1 is unreachable", (1, 0, 1)),
        (
            {"archive": {"failed": True, "msg": "/b: no space left"}, "load": SKIPPED},
            "/b: no space left",
            (1, 0, 1),
        ),
        (
            {
                "archive": {
                    "failed": True,
                    "msg": "both bundles",
                    "bundles": [],
                    "failed_bundles": [
                        {"path": "/b/feedfeedfeedfeed.tar", "reason": "another host's bundle"},
                        {"path": "/b/0123456789abcdef.tar", "reason": "a damaged blob"},
                    ],
                },
                "load": SKIPPED,
            },
            "a damaged blob",
            (1, 0, 1),
        ),
        (
            {"sdk": UNREACHABLE, "plan": SKIPPED, "archive": SKIPPED, "load": SKIPPED},
            "the host is unreachable",
            (0, 0, 2),
        ),
        (
            {"collect": {"failed": True, "msg": "cannot read"}, "load": SKIPPED},
            "cannot read",
            (1, 0, 1),
        ),
        ({"load": UNREACHABLE}, "the host is unreachable", (1, 0, 1)),
        ({"load": FAILED_LOAD}, f"{WEB}: not loaded, the Engine said: no space", (1, 0, 1)),
        (
            {"load": {"failed": True, "msg": "b.tar: a cut one", "images": [], "bytes": 0}},
            "b.tar: a cut one",
            (1, 0, 1),
        ),
        ({"load": {"failed": True, "msg": "MODULE FAILURE"}}, "MODULE FAILURE", (1, 0, 1)),
        ({"load": SKIPPED}, "not all steps ran", (1, 0, 1)),
        ({"plan": None, "archive": None, "load": None}, "not all steps ran", (0, 0, 2)),
    ],
)
def test_why_a_host_is_not_done(
    results: dict[str, Any], reason: str, counted: tuple[int, int, int]
) -> None:
    found = outcome("n1", steps(**results))
    assert not found["done"]
    assert not found["changed"]
    assert found["reason"].startswith(reason)
    assert "\n" not in found["reason"]
    assert counts(found) == counted
    assert "loaded" not in actions(found).values()


def test_an_image_that_could_not_be_fetched() -> None:
    """The other one is loaded all the same, and the reason is that of the image."""
    lock = {**LOCK, "images": {APP: LOCK["images"][APP]}}
    told = [
        {"name": APP, "reason": "fetched"},
        {"name": WEB, "reason": "web:1: not in the registry"},
    ]
    fetch = {"failed": True, "msg": "2 images failed", "lock": lock, "images": told}
    plan = {**PLAN, "images": PLAN["images"][:1]}  # type: ignore[index]
    found = outcome("n1", steps(fetch=fetch, plan=plan, load=SKIPPED))
    assert (found["reason"], counts(found)) == ("web:1: not in the registry", (1, 0, 1))
    other = outcome("n2", {**steps(fetch=fetch, plan=plan, load=SKIPPED), "images": ["app:1"]})
    assert (other["done"], other["reason"], counts(other)) == (True, "", (1, 0, 0))


def test_a_half_done_load_is_told_as_it_is() -> None:
    load = {**FAILED_LOAD, "changed": True}
    load["images"] = [
        {"name": APP, "action": "loaded", "reason": ""},
        {"name": WEB, "action": "failed", "reason": "no space"},
    ]
    found = outcome("n1", steps(load=load))
    assert (found["done"], found["changed"], counts(found)) == (False, True, (0, 1, 1))


def test_trouble() -> None:
    assert (
        trouble(None, "x") == trouble({}, "x") == trouble({"changed": True, "msg": "ok"}, "x") == ""
    )
    assert trouble({"failed": True}, "x") == "no reason given"
    assert trouble({"failed": True, "msg": " a\n b "}, "x") == "a b"
    assert trouble({"unreachable": True, "msg": "gone"}, "x").startswith("x is unreachable")


def test_every_host_has_a_row() -> None:
    done = outcome("n1", steps())
    first, second = rows({"n1": done, "n2": None})
    assert first == done
    assert (second["host"], second["done"]) == ("n2", False)
    assert second["reason"]


# what goes where


def plan_of(plan_id: str, *names: str, blobs: list[str]) -> dict[str, Any]:
    images = [{"name": f"as/{name}", "lock_name": name, "action": "loaded"} for name in names]
    images.append({"name": "as/there:1", "lock_name": "there:1", "action": "none"})
    return {"plan_id": plan_id, "images": images, "blobs": blobs, "engine": {"platform": AMD64}}


def test_one_bundle_per_bastion_and_plan() -> None:
    one = plan_of("1", "app:1", blobs=["x"])
    two = plan_of("2", "app:1", "web:1", blobs=["x", "y"])
    hosts = [
        {"bastion": "b2", "plan": one},
        {"bastion": "b1", "plan": two},
        {"bastion": "b1", "plan": one},
        {"bastion": "b1", "plan": dict(one)},
        {"bastion": "b1", "plan": NOTHING},
        {"bastion": "b1", "plan": UNREACHABLE},
        {"bastion": "b1", "plan": None},
        {"bastion": "b3", "plan": {}},
    ]
    first = {"path": "/b/1.tar", "images": ["app:1"], "blobs": ["x"], "platform": AMD64}
    second = {**first, "path": "/b/2.tar", "images": ["app:1", "web:1"], "blobs": ["x", "y"]}
    assert bundles(hosts, "/b/") == {"b1": [first, second], "b2": [first]}
    assert bundles([], "/b") == {}


def test_a_host_gets_its_own_part_of_the_lock() -> None:
    assert select_lock(LOCK, ["app:1"]) == {"version": 1, "images": {APP: LOCK["images"][APP]}}
    assert list(select_lock(LOCK, ["other:1", {"name": "web:1", "as": "x:1"}])["images"]) == [WEB]
    assert select_lock({}, ["app:1"]) == {"version": 1, "images": {}}
    assert _lock.load(select_lock(LOCK, ["app:1", "web:1"])).keys() == {APP, WEB}


def test_a_host_gets_the_blob_lists_that_matter_to_it() -> None:
    a, b, other = layer("a").digest, layer("b").digest, layer("other").digest
    known = [
        {"digest": "m1", "indexes": [], "platform": AMD64, "blobs": [a, other]},
        {"digest": "m2", "indexes": ["i"], "platform": AMD64, "blobs": [other]},
        {"digest": "m3", "indexes": [], "platform": AMD64, "blobs": []},
        {"digest": "m4", "indexes": ["i"], "platform": AMD64, "blobs": [b]},
    ]
    found = select_known(known, LOCK)
    assert found == [{**known[0], "blobs": [a]}, known[3]]
    assert select_known(known, {}) == []
