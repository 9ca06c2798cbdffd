# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Images of a bastion's store into registries with a login, by TLS and without, and back again."""

from __future__ import annotations

import json
import secrets

import pytest
from fleetlib.hosts import REGISTRY_CA, TLS_REGISTRY
from rig import JUMP_HOST, LOCKED_REGISTRY, REGISTRY, Json, Rig

PASSWORD = "s3cret-for-tests"
LOGIN = {"registry_username": "shop", "registry_password": PASSWORD}
OLD_TOOL = f"{REGISTRY}/shop/tool:1"
TOOL, POSTGRES = f"{REGISTRY}/shop/tool:2", f"{REGISTRY}/shop/postgres:2"
PLACE = "/var/tmp/test-push"
BOTH = ["linux/amd64", "linux/arm64"]
# Registries keep what was pushed: each run has repositories of its own.
OURS = f"push-{secrets.token_hex(4)}"


def task(module: str, name: str, **options: object) -> Json:
    options = {"registry_validate_certs": False, "store": f"{PLACE}/store", **options}
    return {"name": name, f"fleet.images.{module}": options, "diff": True}


def push_task(name: str, **options: object) -> Json:
    lock = "{{ result_of_fetch.lock }}"
    to = f"{LOCKED_REGISTRY}/{OURS}/first"
    return task("image_push", name, **{"lock": lock, "to": to, **LOGIN, **options})


@pytest.fixture(scope="module")
def pushed(rig: Rig) -> Json:
    """Task -> its result on the bastion."""
    rig.inside(JUMP_HOST, "rm", "-rf", PLACE)
    cut: Json = {"store": f"{PLACE}/cut", "lock": "{{ result_of_fetch_cut.lock }}"}
    by_tls = {"registry_validate_certs": True, "registry_ca_path": REGISTRY_CA}
    back = f"{TLS_REGISTRY}/{OURS}/second/shop"
    both = {"name": TOOL, "platforms": BOTH}
    old: Json = {"store": f"{PLACE}/old", "lock": "{{ result_of_fetch_old.lock }}", "to": None}
    old["images"] = [{"name": OLD_TOOL, "as": f"{LOCKED_REGISTRY}/{OURS}:v2"}]
    fetched = {"images": [{"name": OLD_TOOL, "platforms": BOTH}], "attestations": True}
    tasks = [
        task("image_fetch", "fetch", images=[both, POSTGRES], attestations=True),
        {**push_task("foresee"), "check_mode": True},
        push_task("push"),
        {**push_task("foresee again"), "check_mode": True},
        push_task("again"),
        push_task("second", to=f"{TLS_REGISTRY}/{OURS}/second", **by_tls),
        push_task("second again", to=f"{TLS_REGISTRY}/{OURS}/second", **by_tls),
        task("image_fetch", "fetch cut", store=f"{PLACE}/cut", images=[TOOL]),
        push_task("cut", to=f"{LOCKED_REGISTRY}/{OURS}/cut", **cut),
        push_task("cut onto whole", **cut),
        push_task("wrong", to=f"{LOCKED_REGISTRY}/{OURS}/wrong", registry_password="wr0ng"),
        push_task("one", images=[{"name": TOOL, "as": f"{LOCKED_REGISTRY}/{OURS}:v2"}], to=None),
        task("image_fetch", "fetch old", store=f"{PLACE}/old", **fetched),
        {**push_task("foresee change", **old), "check_mode": True},
        push_task("change", **old),
        push_task("change again", **old),
        task(
            "image_fetch",
            "back",
            store=f"{PLACE}/back",
            images=[{"name": f"{back}/tool:2", "platforms": BOTH}, f"{back}/postgres:2"],
            attestations=True,
            **{**LOGIN, **by_tls},
        ),
    ]
    results = rig.results(JUMP_HOST, tasks)
    rig.inside(JUMP_HOST, "rm", "-rf", PLACE)
    return {name: on[JUMP_HOST] for name, on in results.items()}


def digests(result: Json) -> dict[str, str]:
    """Repository and tag, without what stands before, to digest."""
    images = result["lock"]["images"]
    return {name.rpartition("/")[2]: one["digest"] for name, one in images.items()}


def told(result: Json, key: str) -> list[str]:
    return [image[key] for image in result["images"]]


def test_it_is_pushed_once(pushed: Json) -> None:
    first, foreseen = pushed["push"], pushed["foresee"]
    assert not first.get("failed"), first
    assert told(first, "action") == ["pushed", "pushed"]
    assert first["changed"] and foreseen["changed"]
    assert first["bytes_sent"] == foreseen["bytes_sent"] > 80_000_000
    assert first["diff"]["before"] == {} and len(first["diff"]["after"]) == 2
    for again in (pushed["again"], pushed["foresee again"]):
        assert told(again, "action") == ["none", "none"] and not again["changed"]
        assert again["bytes_sent"] == 0


def test_another_place_gets_all_of_it(pushed: Json) -> None:
    """Blobs are taken over from repositories of the same run only."""
    assert told(pushed["second"], "action") == ["pushed", "pushed"]
    assert pushed["second"]["bytes_sent"] == pushed["push"]["bytes_sent"]
    assert not pushed["second again"]["changed"]
    assert told(pushed["one"], "action") == ["pushed"]
    assert told(pushed["one"], "to") == [f"{LOCKED_REGISTRY}/{OURS}:v2"]


def test_a_tag_that_names_another_image_is_moved(pushed: Json) -> None:
    for name in ("foresee change", "change"):
        assert pushed[name]["changed"] and told(pushed[name], "action") == ["pushed"], pushed[name]
        (before,), (after,) = (pushed[name]["diff"][key].values() for key in ("before", "after"))
        assert before == digests(pushed["fetch"])["tool:2"]
        assert after == digests(pushed["fetch old"])["tool:1"]
    assert pushed["change"]["bytes_sent"] == pushed["foresee change"]["bytes_sent"]
    assert not pushed["change again"]["changed"]


def test_what_comes_back_is_the_same(pushed: Json) -> None:
    back = pushed["back"]
    assert not back.get("failed"), back
    assert digests(back) == digests(pushed["fetch"])
    for name, image in back["lock"]["images"].items():
        former = pushed["fetch"]["lock"]["images"][TOOL if name.endswith("tool:2") else POSTGRES]
        assert image == former


def test_a_cut_index_is_refused_with_the_next_step(pushed: Json) -> None:
    cut = pushed["cut"]
    assert cut["failed"] and not cut["changed"] and cut["bytes_sent"] == 0
    assert (
        "run image_fetch with platforms: [linux/amd64, linux/arm64] and attestations: true"
        in (cut["msg"])
    )
    assert told(pushed["cut onto whole"], "action") == ["none"]


def test_a_wrong_login(pushed: Json) -> None:
    wrong = pushed["wrong"]
    assert wrong["failed"] and not wrong["changed"]
    assert told(wrong, "action") == ["failed", "failed"]
    assert "refused access" in wrong["msg"] and "for the user 'shop'" in wrong["msg"]
    assert PASSWORD not in json.dumps(pushed) and "wr0ng" not in json.dumps(pushed)


def test_shared_layers_are_sent_once(rig: Rig) -> None:
    """nginx and postgres stand on one base: the second repository mounts it."""
    images = [f"{REGISTRY}/shop/nginx:2", POSTGRES]
    wanted: list[Json | str] = [{"name": images[0], "platforms": BOTH}, images[1]]
    to = f"{LOCKED_REGISTRY}/{OURS}/shared"
    tasks = [
        task("image_fetch", "fetch", images=wanted),
        {**push_task("foresee", to=to), "check_mode": True},
        push_task("push", to=to),
    ]
    done = {name: on[JUMP_HOST] for name, on in rig.results(JUMP_HOST, tasks).items()}
    rig.inside(JUMP_HOST, "rm", "-rf", PLACE)
    assert not done["push"].get("failed"), done["push"]
    assert done["push"]["bytes_sent"] == done["foresee"]["bytes_sent"]
    blobs: list[Json] = []
    for image in done["fetch"]["lock"]["images"].values():
        blobs.append(image)
        for one in image["platforms"].values():
            blobs += [one["manifest"], one["config"], *one["layers"]]
    each = {blob["digest"]: blob["size"] for blob in blobs}
    assert done["push"]["bytes_sent"] == sum(each.values())
    assert sum(blob["size"] for blob in blobs) - sum(each.values()) > 30_000_000
