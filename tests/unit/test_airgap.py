# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the role airgap makes of its steps: from results as Ansible registers them."""

from __future__ import annotations

from typing import Any

import pytest
from images import AMD64, ARM64, as_lock, digest, layer, locked

from ansible_collections.fleet.images.plugins.module_utils import _lock
from ansible_collections.fleet.images.plugins.module_utils._reference import InvalidReference
from ansible_collections.fleet.images.plugins.plugin_utils._airgap import (
    outcome,
    select_known,
    select_lock,
    trouble,
    wanted,
)

APP, WEB = "docker.io/library/app:1", "docker.io/library/web:1"
LOCK = _lock.dump(as_lock(locked("app:1", ["a", "b"]), locked("web:1", ["a", "c"])))

# Results as `register` gives them, for a host that wants both images.

FETCH = {
    "changed": True,
    "lock": LOCK,
    "images": [
        {"name": APP, "reason": "", "source": "registry"},
        {"name": WEB, "source": "registry"},
    ],
}
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
PATH = "/b/0123456789abcdef.tar"
ARCHIVE = {"changed": True, "bundles": [{"path": PATH, "bytes": 2048, "left_out": 7}]}
LOAD = {
    "changed": True,
    "bytes_sent": 5000,
    "seconds": 1.5,
    "images": [
        {"name": APP, "action": "none", "reason": "there"},
        {"name": WEB, "action": "loaded", "reason": "no tag"},
    ],
}
PULL = {
    "changed": True,
    "bytes": 1000,
    "seconds": 2.5,
    "images": [{"name": "x", "destination": WEB, "action": "pulled", "reason": "no tag"}],
}
REFUSED = {"failed": True, "msg": "no tunnel", "images": [], "tunnel_failed": True}
UNREACHABLE = {"unreachable": True, "msg": "Failed to connect:\n  timed out"}
SKIPPED = {"changed": False, "skipped": True, "skip_reason": "Conditional result was False"}


def steps(**results: Any) -> dict[str, Any]:
    whole = {"fetch": FETCH, "plan": PLAN, "archive": ARCHIVE, "load": LOAD}
    return {"images": ["app:1", "web:1"], "bastion": "b1", "path": PATH, **whole, **results}


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
        "source": "registry",
        "transport": "bundle",
        "fallback": "",
        "bundle": "thin",
        "present": 1,
        "loaded": 1,
        "failed": 0,
        "bytes_sent": 5000,
        "bytes_saved_plainly": 90_000,
        "seconds": 1.5,
        "images": [{**one, "source": "registry"} for one in LOAD["images"]],  # type: ignore[attr-defined]
    }


def test_a_host_that_pulled_through_a_relay() -> None:
    found = outcome("n1", steps(transport="network", pull=PULL, archive={}, load={}, path=""))
    assert (found["done"], found["changed"], counts(found)) == (True, True, (1, 1, 0))
    assert (found["transport"], found["bundle"], found["bytes_sent"]) == ("network", "", 1000)
    assert found["seconds"] == 2.5
    assert actions(found) == {APP: "none", WEB: "loaded"}


@pytest.mark.parametrize("way", ["network", "tunnel"])
@pytest.mark.parametrize(
    "results",
    [{"relay": {"failed": True, "msg": "no registry"}}, {"pull": REFUSED}, {"pull": UNREACHABLE}],
)
def test_a_relay_that_does_not_serve_is_the_reason(way: str, results: dict[str, Any]) -> None:
    found = outcome("n1", steps(transport=way, archive={}, load={}, path="", **results))
    assert (found["done"], found["transport"], counts(found)) == (False, way, (1, 0, 1))
    told = next(iter(results.values()))
    assert " ".join(told["msg"].split()) in found["reason"]


def test_auto_tells_the_way_that_was_taken() -> None:
    pulled = outcome("n1", steps(transport="auto", pull=PULL, archive={}, load={}, path=""))
    assert (pulled["done"], pulled["transport"], pulled["fallback"]) == (True, "tunnel", "")
    loaded = outcome("n1", steps(transport="auto", pull=REFUSED))
    assert (loaded["done"], loaded["transport"], loaded["bundle"]) == (True, "bundle", "thin")
    assert loaded["fallback"] == "no tunnel"
    nothing = outcome("n1", steps(transport="auto", plan=NOTHING, archive={}, load={}, path=""))
    assert (nothing["done"], nothing["transport"]) == (True, "")


def test_a_relay_in_check_mode_is_taken_to_work() -> None:
    without = {"archive": {}, "load": {}, "path": "", "check_mode": True}
    for way, told in (("auto", "tunnel"), ("network", "network")):
        found = outcome("n1", steps(transport=way, **without))
        assert (found["done"], found["transport"], found["bytes_sent"]) == (True, told, 1000)


def test_a_host_that_lacked_nothing() -> None:
    found = outcome("n1", steps(plan=NOTHING, archive=SKIPPED, load=SKIPPED, path=""))
    assert (found["done"], found["changed"], counts(found)) == (True, False, (2, 0, 0))
    assert (found["bundle"], found["source"]) == ("", "registry")
    assert (found["bytes_sent"], found["seconds"]) == (0, 0.0)


def test_a_host_that_wants_nothing() -> None:
    found = outcome("n1", {"images": [], "bastion": "b1"})
    assert (found["done"], counts(found)) == (True, (0, 0, 0))


def test_in_check_mode_the_plan_is_the_outcome() -> None:
    found = outcome("n1", steps(load=SKIPPED, check_mode=True))
    assert (found["done"], counts(found), found["bytes_sent"]) == (True, (1, 1, 0), 2048)
    assert actions(found) == {APP: "none", WEB: "loaded"}


def test_a_full_bundle_after_a_thin_one_that_did_not_fit() -> None:
    gone = {"failed": True, "msg": "layer x is missing", "bytes_sent": 5000, "seconds": 0.5}
    first = outcome("n1", steps(load=gone))
    assert (first["done"], first["bundle"]) == (False, "thin")
    full = {"bundles": [{"path": "/b/full.tar", "bytes": 9, "left_out": 0}]}
    second = outcome("n1", steps(archive=full, path="/b/full.tar", before=first))
    assert (second["done"], second["bundle"]) == (True, "thin, full")
    assert (second["bytes_sent"], second["seconds"]) == (10_000, 2.0)


def test_an_image_that_could_not_be_planned() -> None:
    """The others are loaded, and the reason stands there; another step's failure comes first."""
    images = [PLAN["images"][0], {**PLAN["images"][1], "action": "failed", "reason": "no arm64"}]  # type: ignore[index]
    plan = {**PLAN, "failed": True, "msg": f"{WEB}: no arm64", "images": images}
    load = {**LOAD, "images": LOAD["images"][:1]}  # type: ignore[index]
    found = outcome("n1", steps(plan=plan, load=load))
    assert (found["done"], found["reason"], counts(found)) == (False, f"{WEB}: no arm64", (1, 0, 1))
    assert actions(found) == {APP: "none", WEB: "failed"}
    stalled = outcome("n1", steps(plan=plan, load={"failed": True, "msg": "stalled"}))
    assert stalled["reason"] == "stalled"


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
            {"fetch": UNREACHABLE, "plan": {**NOTHING, "images": []}, "load": SKIPPED, "path": ""},
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
            {"look": UNREACHABLE, "plan": SKIPPED, "archive": SKIPPED, "load": SKIPPED, "path": ""},
            "the host is unreachable",
            (0, 0, 2),
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
        ({"plan": None, "archive": None, "load": None, "path": ""}, "not all steps ran", (0, 0, 2)),
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


# what goes where


def host(bastion: str, *images: Any, machine: str = "x86_64\r\n") -> dict[str, Any]:
    return {"bastion": bastion, "images": list(images), "machine": machine}


def test_a_bastion_fetches_the_union_of_what_its_hosts_want() -> None:
    hosts = [
        host("b1", "app:1", "web:1"),
        host("b1", "web:1", machine="aarch64"),
        host("b2", "app:1"),
        host("b2", "No Image"),
    ]
    assert wanted(hosts) == {
        "b1": [
            {"name": APP, "platforms": [AMD64]},
            {"name": WEB, "platforms": [AMD64, ARM64]},
        ],
        "b2": [{"name": APP, "platforms": [AMD64]}],
    }
    assert wanted([]) == {}


@pytest.mark.parametrize(
    ("hosts", "expected"),
    [
        ([host("b", "app:1", machine="")], {}),
        ([host("b", "app:1", machine="Welcome, a banner: no/ma/chine/")], {}),
        ([host("b", "app:1", machine=""), host("b", "app:1")], {"platforms": [AMD64]}),
        (
            [host("b", {"name": "app:1", "platforms": [ARM64]})],
            {"platforms": [ARM64]},
        ),
        (
            [host("b", {"name": "app:1", "digest": digest("d")}, machine="")],
            {"digest": digest("d")},
        ),
        (
            [
                host("b", f"app:1@{digest('d')}", machine=""),
                host("b", f"app:1@{digest('e')}", machine=""),
                host("b", "app:1", machine=""),
            ],
            {"digest": digest("d")},
        ),
        (
            [host("b", {"name": "app:1", "as": "x/y:2"}, machine="")] * 2,
            {"as": "docker.io/x/y:2"},
        ),
        (
            [
                host("b", {"name": "app:1", "as": "x/y:2"}, machine=""),
                host("b", "app:1", machine=""),
            ],
            {},
        ),
    ],
    ids=["unknown", "banner", "one-unknown", "stated", "pinned", "two-pins", "as", "as-differs"],
)
def test_what_one_image_is_wanted_as(hosts: list[dict[str, Any]], expected: dict[str, Any]) -> None:
    assert wanted(hosts) == {"b": [{"name": APP, **expected}]}


def test_a_pin_that_another_host_contradicts_is_not_passed_over() -> None:
    found = select_lock(LOCK, [f"app:1@{digest('other')}", "web:1"])
    assert list(found["images"]) == [WEB]
    told = outcome("n1", {**steps(), "images": [f"app:1@{digest('other')}"]})
    assert told["reason"].startswith(f"{APP}: wanted {digest('other')}, bastion b1 fetched sha256:")


def test_what_a_module_is_to_tell_stays() -> None:
    """With a pin that contradicts the lock, and with a list that names no images."""
    wanted_otherwise = [f"app:1@{digest('other')}", "other:1"]
    assert list(select_lock(LOCK, wanted_otherwise, strict=False)["images"]) == [APP]
    nothing = {"version": 1, "images": {}}
    assert select_lock(LOCK, ["app:1", "No Image"], strict=False) == nothing
    with pytest.raises(InvalidReference):
        select_lock(LOCK, ["app:1", "No Image"])


def test_every_host_gets_its_own_name_of_an_image() -> None:
    found = select_lock(LOCK, [{"name": "app:1", "as": "site.example/app:1"}, "web:1"])
    assert found["images"][APP]["as"] == "site.example/app:1"
    assert "as" not in found["images"][WEB]
    assert "as" not in LOCK["images"][APP]


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
