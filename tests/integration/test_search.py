# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the fleet's registry offers: openly, behind a login, and behind an authority of its own."""

from __future__ import annotations

import json

import pytest
from fleetlib.hosts import REGISTRY_CA, TLS_REGISTRY
from rig import JUMP_HOST, LOCKED_REGISTRY, NODES, REGISTRY, Json, Rig

PASSWORD = "s3cret-for-tests"
LOGIN = {"registry_username": "shop", "registry_password": PASSWORD}
TAGS = ["v1.9.0", "v1.10.0", "v1.10.0-rc1"]


def search_task(name: str, **options: object) -> Json:
    options = {"registry_validate_certs": False, **options}
    return {"name": name, "fleet.images.image_search": options}


@pytest.fixture(scope="module")
def found(rig: Rig) -> Json:
    """Task -> its result on the bastion."""
    for tag in TAGS:
        rig.move_tag("shop/nginx", tag, to="1")
    secure = {**LOGIN, "registry_validate_certs": True, "registry_ca_path": REGISTRY_CA}
    tasks = [
        search_task("tags", repository=f"{REGISTRY}/shop/nginx", details=1),
        search_task("match", repository=f"{REGISTRY}/shop/nginx", match="^v1", limit=2),
        search_task("catalogue", registry=REGISTRY, term="shop"),
        search_task("login", registry=LOCKED_REGISTRY, **LOGIN),
        search_task("secure", repositories=[f"{TLS_REGISTRY}/shop/arm"], details=1, **secure),
        search_task("refused", registry=LOCKED_REGISTRY),
        search_task("none", repositories=[f"{REGISTRY}/shop/none", f"{REGISTRY}/shop/arm"]),
    ]
    results = rig.results(JUMP_HOST, [{**tasks[0], "name": "check", "check_mode": True}, *tasks])
    return {name: on[JUMP_HOST] for name, on in results.items()}


def tags(result: Json) -> list[str]:
    return [tag["tag"] for tag in result["repositories"][0]["tags"]]


def test_tags_newest_first(found: Json) -> None:
    assert tags(found["tags"]) == ["2", "v1.10.0", "v1.10.0-rc1", "v1.9.0", "1"]
    assert tags(found["match"]) == ["v1.10.0", "v1.10.0-rc1"]
    assert found["check"]["repositories"] == found["tags"]["repositories"]
    newest = found["tags"]["repositories"][0]["tags"][0]
    assert [one["platform"] for one in newest["platforms"]] == ["linux/amd64", "linux/arm64"]
    assert newest["platforms"][0]["bytes"] > 40_000_000


def test_repositories_of_a_registry(found: Json) -> None:
    names = {one["name"].partition("/")[2] for one in found["catalogue"]["repositories"]}
    assert {"shop/arm", "shop/big", "shop/nginx", "shop/postgres", "shop/tool"} <= names
    assert len(found["login"]["repositories"]) >= len(names)


def test_logins_and_authorities(found: Json) -> None:
    (arm,) = found["secure"]["repositories"]
    platforms = [one["platform"] for one in arm["tags"][0]["platforms"]]
    assert platforms == ["linux/arm/v6", "linux/arm/v7", "linux/arm64"]
    refused = found["refused"]
    assert refused["failed"] and "refused access" in refused["msg"]
    assert "name its repositories yourself" in refused["msg"]
    assert PASSWORD not in json.dumps(found)


def test_one_that_is_not_there_hides_no_other(found: Json) -> None:
    none = found["none"]
    assert none["failed"] and "NAME_UNKNOWN" in none["msg"]
    assert [len(one["tags"]) for one in none["repositories"]] == [0, 1]


def test_an_engine_without_a_way_to_docker_hub_says_so(rig: Rig) -> None:
    task = {"name": "hub", "fleet.images.image_search": {"term": "nginx"}}
    result = rig.results(NODES[-1], [task])["hub"][NODES[-1]]
    assert result["failed"] and "give it a way there, or name another registry" in result["msg"]
