# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""image_search against a registry and an Engine that are stubs: tags, the catalogue, Docker Hub."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from engine_stub import EngineStub
from registry_stub import RegistryStub

pytest.importorskip("requests")
pytest.importorskip("docker")
pytest.importorskip("ansible")

from ansible_collections.fleet.images.plugins.module_utils import _listing, _retry
from ansible_collections.fleet.images.plugins.modules import image_search

Json = dict[str, Any]
Call = Callable[..., Json]
LOGIN = ("shop", "s3cret-for-tests")


@pytest.fixture(name="stub")
def registry() -> Iterator[RegistryStub]:
    with RegistryStub() as running:
        yield running


@pytest.fixture
def call(
    run_main: Callable[..., Json], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, no_pack: None
) -> Call:
    """`call(option=…)` runs the module."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    retrier = _retry.Retrier
    monkeypatch.setattr(
        _retry, "Retrier", lambda retries: retrier(retries, sleep=lambda _time: None)
    )

    def run(*, check: bool = False, **options: Any) -> Json:
        result = run_main(image_search, {**options, "_ansible_check_mode": check})
        assert not result.get("changed")
        return result

    return run


def tags(result: Json) -> list[str]:
    (repository,) = result["repositories"]
    return [one["tag"] for one in repository["tags"]]


def test_tags_are_ordered_filtered_and_limited(stub: RegistryStub, call: Call) -> None:
    for tag in ("1.9", "latest", "1.10", "1.10-alpine", "2.0.0-rc1", "2.0.0"):
        stub.add_image(f"shop/web:{tag}", [tag])
    name = f"{stub.name}/shop/web"
    for check in (False, True):
        whole = call(repository=name, check=check)
        assert tags(whole) == ["2.0.0", "2.0.0-rc1", "1.10", "1.10-alpine", "1.9", "latest"]
    (repository,) = whole["repositories"]
    assert repository["total"] == 6 and repository["name"] == name
    assert repository["tags"][1] == {
        "tag": "2.0.0-rc1",
        "name": f"{name}:2.0.0-rc1",
        "kind": "prerelease",
    }
    some = call(repositories=[name], match=r"^1\.\d+", limit=2)
    assert tags(some) == ["1.10", "1.10-alpine"] and some["repositories"][0]["total"] == 6
    assert tags(call(repository=name, match="nothing")) == []
    assert not stub.asked("manifests")


def test_details_of_the_newest(stub: RegistryStub, call: Call) -> None:
    digest = stub.add_index("web:2", {"linux/amd64": ["a", "b"], "linux/arm64": ["c"]})["digest"]
    stub.add_image("web:1", ["a"], oci=False)
    stub.add_image("web:0", ["a"])
    found = call(repository=f"{stub.name}/web", details=2)["repositories"][0]["tags"]
    assert found[0]["digest"] == digest
    assert [one["platform"] for one in found[0]["platforms"]] == ["linux/amd64", "linux/arm64"]
    sizes = [one["bytes"] for one in found[0]["platforms"]]
    assert sizes[0] > 6000 > sizes[1] > 3000
    assert found[1]["platforms"][0]["platform"] == "linux/amd64"
    assert "digest" not in found[2]


def test_what_is_no_image_is_said_and_no_failure(stub: RegistryStub, call: Call) -> None:
    stub.add_image("web:1", ["a"])
    stub.add_manifest("web:chart", {"mediaType": "text/plain"}, "text/plain")
    result = call(repository=f"{stub.name}/web", details=5)
    image, chart = result["repositories"][0]["tags"]
    assert not result.get("failed") and image["digest"]
    assert "it is no image" in chart["reason"] and "digest" not in chart
    stub.fault("/v2/web/manifests/1", status=503, times=9)
    down = call(repository=f"{stub.name}/web", details=5, retries=0)
    assert down["failed"] and "503" in down["repositories"][0]["reason"]
    assert len(down["repositories"][0]["tags"]) == 2


@pytest.mark.parametrize("page", [1, 2, 5, 1000])
def test_all_pages_are_read(stub: RegistryStub, call: Call, page: int) -> None:
    for number in range(5):
        stub.add_image(f"web:{number}", ["a"])
        stub.add_image(f"more-{number}:1", ["a"])
    stub.page = page
    assert tags(call(repository=f"{stub.name}/web")) == ["4", "3", "2", "1", "0"]
    found = call(registry=stub.name, term="MORE")["repositories"]
    assert [one["name"] for one in found] == [f"{stub.name}/more-{one}" for one in range(5)]
    assert len(call(registry=stub.name, limit=2)["repositories"]) == 2


def test_a_registry_may_give_smaller_pages_only(stub: RegistryStub, call: Call) -> None:
    for number in range(5):
        stub.add_image(f"web:{number}", ["a"])
    stub.page = stub.most = 2
    assert len(tags(call(repository=f"{stub.name}/web"))) == 5


def test_pages_without_end(stub: RegistryStub, call: Call) -> None:
    stub.add_image("web:1", ["a"])
    body = json.dumps({"name": "web", "tags": ["1"]}).encode()
    link = {"Link": '</v2/web/tags/list?n=1000>; rel="next"'}
    stub.fault("tags/list", status=200, body=body, headers=link, times=99)
    result = call(repository=f"{stub.name}/web")
    assert result["failed"] and "wanted an end of its pages, after 1 of them" in result["msg"]


@pytest.mark.parametrize(
    ("link", "query"),
    [
        ('</v2/_catalog?last=b&n=2>; rel="next"', "last=b&n=2"),
        ("<https://inside:5000/v2/_catalog?last=b>; rel=next", "last=b"),
        ('<?a=1>; rel="prev", <?last=c>; title="x, y"; rel="next"', "last=c"),
        ('<?last=d>;rel="start next"', "last=d"),
        ('<?last=e>; REL="NEXT"', "last=e"),
        ('<?a=1>; rel="nextday"', None),
        ('<?a=1>; rel="prev"', None),
        ("nonsense", None),
        ("", None),
    ],
)
def test_link_headers(link: str, query: str | None) -> None:
    assert _listing.next_query(link) == query


def test_one_repository_that_fails_hides_no_other(stub: RegistryStub, call: Call) -> None:
    stub.add_image("web:1", ["a"])
    result = call(repositories=[f"{stub.name}/none", f"{stub.name}/web"])
    assert result["failed"] and "NAME_UNKNOWN" in result["msg"]
    assert [len(one["tags"]) for one in result["repositories"]] == [0, 1]
    assert "NAME_UNKNOWN" in result["repositories"][0]["reason"]


@pytest.mark.parametrize("body", [b"null", b"[]", b"<html>", b'{"tags": [1]}', b'{"tags": "x"}'])
def test_an_answer_that_is_no_list(stub: RegistryStub, call: Call, body: bytes) -> None:
    stub.fault("tags/list", status=200, body=body)
    result = call(repository=f"{stub.name}/web")
    assert result["failed"] and "wanted a list of tags" in result["msg"]


def test_a_repository_may_have_no_tags(stub: RegistryStub, call: Call) -> None:
    stub.fault("tags/list", status=200, body=b'{"name": "web", "tags": null}')
    assert tags(call(repository=f"{stub.name}/web")) == []


@pytest.mark.parametrize("status", [401, 403, 404, 405])
def test_a_catalogue_that_nobody_gets(stub: RegistryStub, call: Call, status: int) -> None:
    body = b'{"errors": [{"code": "UNSUPPORTED", "message": "not for you"}]}'
    stub.fault("_catalog", status=status, body=body, times=2)
    result = call(registry=stub.name)
    assert result["failed"] and "UNSUPPORTED: not for you" in result["msg"]
    assert result["msg"].endswith("name its repositories yourself (repositories)")


@pytest.mark.parametrize("scheme", ["basic", "bearer"])
def test_logins(call: Call, scheme: str) -> None:
    with RegistryStub(login=LOGIN, scheme=scheme) as stub:
        stub.add_image("web:1", ["a"])
        login: Json = {"registry_username": LOGIN[0], "registry_password": LOGIN[1]}
        assert tags(call(repository=f"{stub.name}/web", **login)) == ["1"]
        found = call(registry=stub.name, **login)
        assert [one["name"] for one in found["repositories"]] == [f"{stub.name}/web"]
        refused = call(repository=f"{stub.name}/web", **{**login, "registry_password": "wr0ng"})
    assert refused["failed"] and "refused access" in refused["msg"]
    assert LOGIN[1] not in json.dumps(found) and "wr0ng" not in json.dumps(refused)


def test_docker_hub_is_asked_by_the_engine(stub: RegistryStub, call: Call) -> None:
    with EngineStub() as engine:
        engine.found = [
            {"name": "nginx", "description": "web", "star_count": 9, "is_official": True},
            {"name": "someone/nginx", "description": None, "star_count": 0},
        ]
        found = call(term="nginx", limit=7, docker_host=engine.url)["repositories"]
        assert len(engine.asked("GET /images/search")) == 1
        engine.fault(where="images/search", status=500)
        failed = call(term="nginx", docker_host=engine.url)
    assert found[0] == {
        "name": "docker.io/library/nginx",
        "description": "web",
        "stars": 9,
        "official": True,
    }
    assert found[1]["name"] == "docker.io/someone/nginx" and found[1]["description"] == ""
    assert failed["failed"] and "give it a way there, or name another registry" in failed["msg"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "one of the following is required: repositories, registry, term"),
        ({"repository": "web:1"}, "leave that out, or look for it with match"),
        ({"repository": f"web@sha256:{'0' * 64}"}, "there is a tag or digest"),
        ({"repository": "WEB"}, "is no image reference"),
        ({"repository": "web", "match": "("}, "is no regular expression"),
        ({"repository": "web", "term": "x"}, "mutually exclusive"),
        ({"registry": "docker.io"}, "give it a term"),
        ({"registry": "no registry"}, "wanted host or host:port"),
        ({"registry": "shop"}, "wanted host or host:port"),
        ({"registry": "h.example/path"}, "wanted host or host:port"),
    ],
)
def test_unusable_options_are_told(call: Call, options: Json, message: str) -> None:
    result = call(**options)
    assert result["failed"] and message in result["msg"]
