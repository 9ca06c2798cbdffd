# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""image_info: what an Engine has, in few calls, whatever its age and store."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

pytest.importorskip("ansible.module_utils.basic")
pytest.importorskip("docker")
pytest.importorskip("jmespath")

from engine_stub import KINDS
from stocked import NEVER, StockedEngine, sha

from ansible_collections.fleet.images.plugins.module_utils import _info, _inventory, _sdk
from ansible_collections.fleet.images.plugins.module_utils._reference import InvalidReference
from ansible_collections.fleet.images.plugins.modules import image_info

APP, WEB = "registry.example/shop/app", "registry.example/shop/web"
Info = Callable[..., "dict[str, Any]"]


@pytest.fixture(params=list(KINDS))
def engine(request: pytest.FixtureRequest) -> Iterator[StockedEngine]:
    with StockedEngine(request.param) as running:
        yield running


@pytest.fixture
def info(
    no_pack: None, engine: StockedEngine, run_main: Info, monkeypatch: pytest.MonkeyPatch
) -> Info:
    """Runs the module and returns its result; it asks nothing but GET."""
    for name in ("HOST", "TLS", "TLS_VERIFY", "TLS_HOSTNAME", "API_VERSION", "TIMEOUT"):
        monkeypatch.delenv(f"DOCKER_{name}", raising=False)

    def run(**arguments: Any) -> dict[str, Any]:
        result = run_main(image_info, {"docker_host": engine.url, **arguments})
        assert not result["changed"]
        assert bool(result["rc"]) == bool(result.get("failed"))
        assert all(line.startswith("GET ") for line in engine.seen)
        return result

    return run


def test_an_image_with_all_that_is_known(engine: StockedEngine, info: Info) -> None:
    base = engine.stock(f"{APP}:base", layers={"base": 4000})
    app = engine.stock(
        f"{APP}:2", f"{APP}:1", layers={"app": 500}, parent=base, labels={"who": "me"},
        last_tagged="2026-02-03T05:04:05.123456789+01:00",
    )  # fmt: skip
    user = engine.use("db", app, "running")
    result = info(details=True, images=[f"{APP}:1"])
    classic = engine.classic
    assert result["images"] == [
        {
            "name": f"{APP}:1",
            "id": app,
            "references": [f"{APP}:1", f"{APP}:2"],
            "digests": [] if classic else [f"{APP}@{app}"],
            "platform": "linux/amd64",
            "platforms": ["linux/amd64"],
            "created": "2026-01-01T00:00:00Z",
            "last_tagged": "2026-02-03T04:04:05Z",
            "size": 4500 if classic else 9000,
            "shared_bytes": 4000,
            "unique_bytes": 500 if classic else None,
            "containers": [{"id": user, "name": "db", "state": "running", "running": True}],
            "labels": {"who": "me"},
            "dangling": False,
        }
    ]
    assert result["bytes"] == result["images"][0]["size"]
    assert result["engine"]["version"] == engine.version
    disk = result["disk"]
    assert disk["path"] == result["engine"]["data_path"]
    assert disk["layers_bytes"] == (4500 if classic else None)
    assert result["missing"] == []


def test_few_calls_however_many_images(engine: StockedEngine, info: Info) -> None:
    for number in range(30):
        engine.stock(f"{APP}:{number}", layers={str(number): 1})
    images = info()["images"]
    assert len(images) == 30
    assert {one["last_tagged"] for one in images} == {None}
    told = engine.kind == "containerd"
    assert {one["platform"] for one in images} == {"linux/amd64" if told else None}
    assert {one["shared_bytes"] for one in images} == {None if engine.api == "1.41" else 0}
    assert len(engine.asked("GET /images")) == len(engine.asked("GET /containers")) == 1
    assert engine.asked("GET /system") == []
    info(details=True)
    assert len(engine.asked("GET /images")) == 2 + 30


def test_a_query_asks_for_what_it_names(engine: StockedEngine, info: Info) -> None:
    engine.stock(f"{APP}:1", layers={"a": 7}, last_tagged="2026-02-03T04:05:06Z")
    engine.stock(f"{WEB}:1", layers={"b": 9})
    assert info(query="max_by(@, &size).name")["result"] == f"{WEB}:1"
    assert engine.asked("GET /images/.*/json") == []
    result = info(query="[?last_tagged].{name: name, on: platform}")
    assert result["result"] == [{"name": f"{APP}:1", "on": "linux/amd64"}]
    assert len(engine.asked("GET /images/.*/json")) == 2
    assert "result" not in info()
    assert info(query="[?size > `100`]")["result"] == []


@pytest.mark.parametrize(
    ("query", "said"),
    [("[?", "Incomplete expression"), ("no_such(@)", "no_such"), ("sort(`1`)", "invalid type")],
)
def test_a_query_that_is_none(engine: StockedEngine, info: Info, query: str, said: str) -> None:
    result = info(query=query)
    assert result["failed"]
    assert result["msg"].startswith(f"query {query!r}: a JMESPath expression")
    assert said in result["msg"]
    assert len(result["msg"].splitlines()) == 1


def test_without_jmespath(info: Info, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise _sdk.SdkMissing("the query language jmespath is not here.")

    monkeypatch.setattr(_info, "import_jmespath", missing)
    result = info(query="[]")
    assert result["failed"] and result["sdk_missing"]
    assert "jmespath" in result["msg"]
    assert "failed" not in info()


def test_what_is_missing_is_said(engine: StockedEngine, info: Info) -> None:
    engine.stock(f"{APP}:1", layers={"a": 1})
    wanted = [f"{APP}:1", f"{APP}:2", "registry.example/db/*", "0123456789ab"]
    result = info(images=wanted)
    assert [one["name"] for one in result["images"]] == [f"{APP}:1"]
    assert result["missing"] == wanted[1:]
    assert result["msg"].endswith(f"; not there: {', '.join(wanted[1:])}")


@pytest.mark.parametrize("text", ["No Name", "shop:a:b", "sha256:12", "app@sha256:1", ""])
def test_what_can_be_no_image(engine: StockedEngine, info: Info, text: str) -> None:
    result = info(images=[text])
    assert result["failed"]
    assert repr(text) in result["msg"]
    assert "ID of 12 to 64 hex digits" in result["msg"] and "\n" not in result["msg"]
    assert engine.asked("GET /images") == []


def test_nameless_images(engine: StockedEngine, info: Info) -> None:
    """One that is forgotten, and one that another was built upon, which only all images show."""
    step = engine.stock(layers={"step": 30})
    app = engine.stock(f"{APP}:1", layers={"app": 5}, parent=step)
    lost = engine.stock(layers={"lost": 7})
    found = {one["id"]: one for one in info()["images"]}
    assert set(found) == {app, lost}
    assert found[lost]["dangling"] and not found[app]["dangling"]
    assert (found[lost]["references"], found[lost]["digests"]) == ([], [])
    assert found[lost]["name"] == lost
    shown = {one["id"]: one for one in info(intermediates=True)["images"]}
    assert set(shown) == {app, lost, step}
    # As the prune of each store has it: a containerd store keeps nothing for what is built upon it.
    assert shown[step]["dangling"] is not engine.classic
    if engine.kind == "classic":  # 20.10: no shared bytes without details
        found = {one["id"]: one for one in info(details=True)["images"]}
        assert found[lost]["unique_bytes"] == 7


def test_a_digest_keeps_an_image_on_containerd_only(engine: StockedEngine, info: Info) -> None:
    """As after `docker pull web@sha256:...`, which gives no tag."""
    digests = [f"{WEB}@{sha('pulled')}"] if engine.classic else []
    web = engine.stock(layers={"a": 1}, digests=digests)
    if not engine.classic:
        engine.shelf[web].tags.append(f"{WEB}@{web}")
    (found,) = info()["images"]
    assert (found["references"], len(found["digests"])) == ([], 1)
    assert found["dangling"] is engine.classic


def test_digests_of_several_repositories(engine: StockedEngine, info: Info) -> None:
    """A containerd store lists one of them, and one without a tag among the tags."""
    digest = sha("pulled")
    digests = [f"{WEB}@{digest}"] if engine.classic else []
    app = engine.stock(f"{APP}:1", f"{WEB}:1", layers={"a": 1}, digests=digests)
    if not engine.classic:
        engine.shelf[app].tags.append(f"registry.example/db@{app}")
    (found,) = info()["images"]
    assert found["references"] == [f"{APP}:1", f"{WEB}:1"]
    kept = [f"{APP}@{app}", f"registry.example/db@{app}", f"{WEB}@{app}"]
    assert found["digests"] == (digests if engine.classic else sorted(kept))


def test_times_that_were_never_set(engine: StockedEngine, info: Info) -> None:
    engine.stock(f"{APP}:1", layers={"a": 1}, created=-62135596800, last_tagged=NEVER)
    engine.stock(f"{WEB}:1", layers={"b": 1}, created=0)
    app, web = info(details=True)["images"]
    assert (app["created"], app["last_tagged"]) == (None, None)
    assert web["created"] == "1970-01-01T00:00:00Z"


def test_an_image_that_goes_meanwhile(engine: StockedEngine, info: Info) -> None:
    engine.stock(f"{APP}:1", layers={"a": 1}, last_tagged="2026-02-03T04:05:06Z")
    engine.fault(where="GET /images/sha256.*/json", status=404, words="No such image")
    (app,) = info(details=True)["images"]
    assert app["last_tagged"] is None


def test_an_engine_that_refuses(engine: StockedEngine, info: Info) -> None:
    engine.fault(where="GET /containers/json", status=500, words="the disk is on fire")
    result = info()
    assert result["failed"]
    assert "GET /containers/json was wanted" in result["msg"]
    assert result["msg"].endswith("the disk is on fire")


@pytest.mark.parametrize(
    ("state", "running"),
    [("running", True), ("paused", True), ("restarting", True), ("exited", False),
     ("created", False), ("dead", False)],
)  # fmt: skip
def test_who_runs(state: str, running: bool) -> None:
    assert _inventory.Container("a", "a", state, "b").running is running


# which images a text asks for

ID = sha("one")
ONE = _inventory.Image(
    ID, ("docker.io/library/nginx:1.27", f"{APP}:1"), (f"{WEB}@{sha('pulled')}",), "", None, 1, 0,
    {}, None,
)  # fmt: skip


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("nginx", True),
        ("nginx:1.27", True),
        ("docker.io/library/nginx:1.27", True),
        ("nginx:1", False),
        ("nginx:latest", False),
        (APP, True),
        (f"{APP}:2", False),
        (WEB, True),
        (f"{WEB}@{sha('pulled')}", True),
        (f"{APP}@{sha('pulled')}", False),
        (f"{APP}:1@{ID}", True),
        (f"{APP}:1@{sha('pulled')}", False),
        ("registry.example/shop/*", True),
        ("registry.example/*", True),
        ("*/app", True),
        ("ngin?:1.[0-9]*", True),
        ("library/*", False),
        ("docker.io/library/*", True),
        (f"*@{sha('pulled')}", True),
        ("*/shop", False),
        (ID, True),
        (ID[7:], True),
        (ID[7:19], True),
        (ID[:19], True),
        (sha("pulled"), True),
        (sha("pulled")[7:19], False),
        ("0" * 12, False),
    ],
)
def test_what_a_text_asks_for(text: str, found: bool) -> None:
    chosen, missing = _inventory.select([_inventory.wanted(text)], [ONE])
    assert chosen == ([ONE] if found else [])
    assert missing == ([] if found else [text])


def test_a_name_comes_before_an_id() -> None:
    digits = ID[7:19]
    named = _inventory.Image(
        sha("n"), (f"docker.io/library/{digits}:1",), (), "", None, 1, 0, {}, None
    )
    asked = [_inventory.wanted(digits)]
    assert _inventory.select(asked, [ONE, named])[0] == [named]
    assert _inventory.select(asked, [ONE])[0] == [ONE]


def test_no_glob_where_none_is_allowed() -> None:
    with pytest.raises(InvalidReference, match="is no image reference"):
        _inventory.wanted("shop/*", globs=False)
