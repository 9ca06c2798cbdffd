# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""image_remove: names and images go, what is in use stays, and nothing is said that is not so."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

pytest.importorskip("ansible.module_utils.basic")
pytest.importorskip("docker")

import stocked
from engine_stub import KINDS, chain_of
from stocked import StockedEngine, sha

from ansible_collections.fleet.images.plugins.module_utils import _hostlock, _removal, _remove
from ansible_collections.fleet.images.plugins.modules import image_remove

APP, WEB = "registry.example/shop/app", "registry.example/shop/web"
Call = Callable[..., "dict[str, Any]"]


@pytest.fixture(params=list(KINDS))
def engine(request: pytest.FixtureRequest) -> Iterator[StockedEngine]:
    with StockedEngine(request.param) as running:
        yield running


@pytest.fixture
def remove(
    no_pack: None, engine: StockedEngine, run_main: Call, monkeypatch: pytest.MonkeyPatch
) -> Call:
    """Runs the module: foreseen first, which changes nothing and names what the run then does."""
    for name in ("HOST", "TLS", "TLS_VERIFY", "TLS_HOSTNAME", "API_VERSION", "TIMEOUT"):
        monkeypatch.delenv(f"DOCKER_{name}", raising=False)

    def run(*images: str, as_foreseen: bool = True, **options: Any) -> dict[str, Any]:
        arguments = {"docker_host": engine.url, "images": list(images), **options}
        engine.seen.clear()
        foreseen = run_main(image_remove, {**arguments, "_ansible_check_mode": True})
        assert [line for line in engine.seen if not line.startswith("GET ")] == []
        result = run_main(image_remove, arguments)
        assert bool(result["rc"]) == bool(result.get("failed"))
        if as_foreseen:
            assert plain(foreseen) == plain(result)
            assert (foreseen["changed"], foreseen["msg"] if result["rc"] else 0) == (
                result["changed"],
                result["msg"] if result["rc"] else 0,
            )
            assert foreseen["diff"] == result["diff"]
        return result

    return run


def plain(result: dict[str, Any]) -> list[Any]:
    keys = ("name", "id", "digest", "action", "reason", "containers")
    return [[one[key] for key in keys] for one in result["images"]]


def actions(result: dict[str, Any]) -> list[str]:
    return [one["action"] for one in result["images"]]


def weight(engine: StockedEngine, size: int) -> int:
    """Bytes that an Engine gives back for layers of this size."""
    return size * 2 if engine.kind == "containerd" else size


def test_an_image_goes_with_its_layers(engine: StockedEngine, remove: Call) -> None:
    app = engine.stock(f"{APP}:1", layers={"base": 4000, "app": 500})
    web = engine.stock(f"{WEB}:1", layers={"base": 4000, "web": 70})
    result = remove(f"{APP}:1")
    (entry,) = result["images"]
    assert (entry["action"], entry["id"], entry["bytes"]) == ("removed", app, weight(engine, 500))
    assert result["changed"] and result["bytes"] == entry["bytes"]
    assert result["msg"] == f"1 of 1 images removed, {entry['bytes']} bytes freed"
    assert result["diff"] == {"before": f"image {APP}:1: {app}\n", "after": ""}
    assert set(engine.shelf) == {web}
    again = remove(f"{APP}:1", f"{WEB}:1")
    assert actions(again) == ["none", "removed"]
    assert again["bytes"] == weight(engine, 4070)
    assert engine.shelf == {}


def test_what_is_not_there(engine: StockedEngine, remove: Call) -> None:
    engine.stock(f"{APP}:1", layers={"a": 1})
    result = remove(f"{APP}:2", sha("nothing"), "0123456789ab", f"{APP}:1@{sha('other')}")
    assert not result["changed"] and "failed" not in result
    assert actions(result) == ["none"] * 4
    assert result["bytes"] == 0
    last = result["images"][3]["reason"]
    assert last.startswith(f"{APP}:1 is sha256:") and last.endswith(f", not {sha('other')}")


def test_a_name_of_several(engine: StockedEngine, remove: Call) -> None:
    app = engine.stock(f"{APP}:1", f"{APP}:2", f"{WEB}:1", layers={"a": 100})
    engine.use("db", app, "running")
    result = remove(f"{APP}:1")
    assert actions(result) == ["untagged"]
    assert result["bytes"] == 0
    assert engine.shelf[app].tags == [f"{APP}:2", f"{WEB}:1"]
    assert set(engine.users) != set()


def test_all_names_one_by_one(engine: StockedEngine, remove: Call) -> None:
    engine.stock(f"{APP}:1", f"{APP}:2", f"{WEB}:1", layers={"a": 100})
    result = remove(f"{WEB}:1", f"{APP}:2", f"{APP}:1")
    assert actions(result) == ["untagged", "untagged", "removed"]
    assert [one["bytes"] for one in result["images"]] == [0, 0, weight(engine, 100)]
    assert engine.shelf == {}


def test_by_id(engine: StockedEngine, remove: Call) -> None:
    app = engine.stock(f"{APP}:1", layers={"a": 100})
    lost = engine.stock(layers={"b": 7})
    result = remove(app[7:19], lost)
    assert actions(result) == ["removed", "removed"]
    assert engine.shelf == {}


def test_an_id_with_several_names(engine: StockedEngine, remove: Call) -> None:
    app = engine.stock(f"{APP}:1", f"{WEB}:1", layers={"a": 100})
    result = remove(app)
    assert result["failed"] and not result["changed"]
    assert result["msg"] == (
        f"{app} has the names {APP}:1, {WEB}:1; give these, or set force to remove it with all of"
        " them"
    )
    assert set(engine.shelf) == {app}
    result = remove(app, force=True)
    assert actions(result) == ["removed"]
    assert result["bytes"] == weight(engine, 100)
    assert engine.shelf == {}


def test_an_id_whose_names_are_given_too(engine: StockedEngine, remove: Call) -> None:
    app = engine.stock(f"{APP}:1", f"{WEB}:1", layers={"a": 100})
    result = remove(app, f"{WEB}:1", app[:19], f"{APP}:1", f"{APP}:1@{app}")
    assert actions(result) == ["removed", "untagged", "none", "untagged", "none"]
    assert result["images"][2]["reason"] == f"the same as {app}"
    assert engine.shelf == {}


def test_by_digest(remove: Call, engine: StockedEngine) -> None:
    digests = [f"{APP}@{sha('pulled')}"] if engine.classic else []
    app = engine.stock(f"{APP}:1", layers={"a": 1}, digests=digests)
    digest = sha("pulled") if engine.classic else app
    assert actions(remove(f"{WEB}@{digest}")) == ["none"]
    result = remove(f"{APP}@{digest}")
    assert actions(result) == ["removed"]
    assert result["images"][0]["digest"] == digest
    assert engine.shelf == {}


def test_a_digest_of_another_repository_keeps_it(classic_engine: StockedEngine,
                                                 classic_remove: Call) -> None:  # fmt: skip
    digests = [f"{APP}@{sha('p')}", f"{WEB}@{sha('p')}"]
    app = classic_engine.stock(f"{APP}:1", layers={"a": 1}, digests=digests)
    result = classic_remove(f"{APP}:1")
    assert actions(result) == ["untagged"]
    assert result["images"][0]["reason"] == f"the image stays as {WEB}@{sha('p')}"
    assert classic_engine.shelf[app].digests == digests[1:]
    assert actions(classic_remove(app)) == ["removed"]


@pytest.fixture
def classic_engine() -> Iterator[StockedEngine]:
    with StockedEngine("classic") as running:
        yield running


@pytest.fixture
def classic_remove(
    classic_engine: StockedEngine, run_main: Call, no_pack: None
) -> Callable[..., dict[str, Any]]:
    def run(*images: str, **options: Any) -> dict[str, Any]:
        arguments = {"docker_host": classic_engine.url, "images": list(images), **options}
        foreseen = run_main(image_remove, {**arguments, "_ansible_check_mode": True})
        result = run_main(image_remove, arguments)
        assert plain(foreseen) == plain(result)
        return result

    return run


# images in use


def test_in_use_is_touched_by_nobody(engine: StockedEngine, remove: Call) -> None:
    """All of its names are asked for; and the other images go all the same."""
    app = engine.stock(f"{APP}:1", f"{APP}:2", layers={"a": 100})
    engine.stock(f"{WEB}:1", layers={"b": 9})
    engine.use("db", app, "running")
    engine.use("job", app, "exited")
    result = remove(f"{APP}:1", f"{WEB}:1", f"{APP}:2")
    assert result["failed"] and result["changed"]
    assert actions(result) == ["failed", "removed", "failed"]
    assert result["images"][0]["reason"] == (
        f"{APP}:1 is used by the containers db (running), job (not running, exited); remove these"
        " containers, or set in_use"
    )
    assert result["images"][2]["reason"] in result["msg"]
    assert engine.shelf[app].tags == [f"{APP}:1", f"{APP}:2"]
    assert len(engine.users) == 2
    assert result["bytes"] == weight(engine, 9)


def test_in_use_is_skipped(engine: StockedEngine, remove: Call) -> None:
    app = engine.stock(f"{APP}:1", layers={"a": 100})
    engine.use("db", app, "created")
    result = remove(f"{APP}:1", in_use="skip")
    assert not result["changed"] and "failed" not in result
    assert actions(result) == ["kept"]
    assert result["images"][0]["reason"] == "used by the container db (not running, created)"
    assert set(engine.shelf) == {app}


def test_stopped_containers_go_first(engine: StockedEngine, remove: Call) -> None:
    app = engine.stock(f"{APP}:1", layers={"a": 100})
    web = engine.stock(f"{WEB}:1", layers={"b": 100})
    old, job, db = (
        engine.use("old", app, "exited"),
        engine.use("job", web, "created"),
        engine.use("db", web, "paused"),
    )
    result = remove(f"{APP}:1", f"{WEB}:1", in_use="remove_stopped")
    assert actions(result) == ["removed", "failed"]
    assert result["images"][0]["containers"] == [
        {"id": old, "name": "old", "state": "exited", "running": False}
    ]
    assert "db (running, paused), job (not running, created); stop what runs" in result["msg"]
    assert set(engine.users) == {job, db}
    assert set(engine.shelf) == {web}
    assert "container old: exited\n" in result["diff"]["before"]
    assert engine.asked("POST /containers") == []
    (gone,) = [number for number, line in enumerate(engine.seen) if "DELETE /containers" in line]
    assert gone < next(n for n, line in enumerate(engine.seen) if "DELETE /images" in line)


def test_all_containers_go_first(engine: StockedEngine, remove: Call) -> None:
    app = engine.stock(f"{APP}:1", f"{APP}:2", layers={"a": 100})
    for state in ("running", "paused", "exited"):
        engine.use(state, app, state)
    result = remove(app, in_use="remove_containers", force=True)
    assert actions(result) == ["removed"]
    assert [one["name"] for one in result["images"][0]["containers"]] == [
        "exited", "paused", "running",
    ]  # fmt: skip
    assert (engine.users, engine.shelf) == ({}, {})
    assert len(engine.asked("POST /containers/.*/stop")) == 2


def test_a_container_that_removes_itself(
    engine: StockedEngine, remove: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was started with --rm: by the time that it is to be removed, it is gone."""
    app = engine.stock(f"{APP}:1", layers={"a": 100})
    engine.use("db", app, "running")

    def stop(self: StockedEngine, id_: str, query: dict[str, str]) -> tuple[int, Any]:
        del self.users[id_]
        return 204, None

    route = (r"POST /containers/([^/]+)/stop", stop)
    monkeypatch.setattr(stocked, "ROUTES", (route, *stocked.ROUTES))
    result = remove(f"{APP}:1", in_use="remove_containers")
    assert actions(result) == ["removed"]


def test_a_container_that_will_not_go(
    engine: StockedEngine, remove: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_remove, "_PATIENCE", 0.0)
    app = engine.stock(f"{APP}:1", layers={"a": 100})
    engine.use("a", app, "exited")
    engine.use("b", app, "exited")
    engine.fault(where=f"DELETE /containers/{sha('b')[7:]}", status=409, words="it clings")
    result = remove(f"{APP}:1", in_use="remove_stopped", as_foreseen=False)
    (entry,) = result["images"]
    assert result["failed"] and result["changed"]
    assert entry["reason"].startswith(f"{APP}:1: ") and entry["reason"].endswith("it clings")
    assert [one["name"] for one in entry["containers"]] == ["a"]
    assert entry["bytes"] == 0
    assert set(engine.shelf) == {app}


def test_who_comes_while_it_goes(engine: StockedEngine, remove: Call) -> None:
    """A container that begins to use it is noticed by the Engine, since nothing is forced."""
    app = engine.stock(f"{APP}:1", f"{APP}:2", layers={"a": 100})
    engine.late = [("new", app)]
    result = remove(f"{APP}:1", f"{APP}:2", as_foreseen=False)
    assert actions(result) == ["untagged", "failed"]
    assert result["failed"] and result["changed"]
    assert "is using it" in result["msg"]
    assert engine.shelf[app].tags == [f"{APP}:2"]


# what images were built upon


def test_a_parent_loses_its_name_only(engine: StockedEngine, remove: Call) -> None:
    base = engine.stock(f"{APP}:base", layers={"base": 100})
    app = engine.stock(f"{APP}:1", layers={"app": 5}, parent=base)
    result = remove(f"{APP}:base")
    assert actions(result) == ["untagged"]
    assert result["images"][0]["reason"] == (
        f"the image stays without a name: {app} is built upon it"
    )
    assert set(engine.shelf) == {base, app}
    by_id = remove(base)
    assert actions(by_id) == (["failed"] if engine.classic else ["removed"])


@pytest.mark.parametrize("prune", [True, False])
def test_nameless_parents(engine: StockedEngine, remove: Call, prune: bool) -> None:
    base = engine.stock(f"{APP}:base", layers={"base": 100})
    step = engine.stock(layers={"step": 20}, parent=base)
    engine.stock(f"{APP}:1", layers={"app": 5}, parent=step)
    result = remove(f"{APP}:1", prune_parents=prune)
    assert actions(result) == ["removed"]
    assert result["bytes"] == weight(engine, 25 if prune else 5)
    assert set(engine.shelf) == ({base} if prune else {base, step})


def test_children_go_before_parents(engine: StockedEngine, remove: Call) -> None:
    base = engine.stock(f"{APP}:base", layers={"base": 100})
    step = engine.stock(layers={"step": 20}, parent=base)
    engine.stock(f"{APP}:1", layers={"app": 5}, parent=step)
    result = remove(f"{APP}:base", step, f"{APP}:1")
    assert actions(result) == ["removed"] * 3
    assert result["bytes"] == weight(engine, 125)
    assert engine.shelf == {}


# errors


def test_bad_names_hold_back_no_others(engine: StockedEngine, remove: Call) -> None:
    engine.stock(f"{APP}:1", layers={"a": 1})
    result = remove("No Name", f"{APP}:1", "shop/*", "sha256:1")
    assert result["failed"] and result["changed"]
    assert actions(result) == ["failed", "removed", "failed", "failed"]
    for words in ("'No Name' is no image reference", "'shop/*' is no", "'sha256:1' is no ID"):
        assert words in result["msg"]
    assert "\n" not in result["msg"]


def test_digits_that_fit_two_images() -> None:
    from ansible_collections.fleet.images.plugins.module_utils._inventory import Image

    ids = [f"sha256:{'ab' * 6}{end * 52}" for end in "12"]
    images = [Image(id_, (), (), "", None, 1, 0, {}, None) for id_ in ids]
    (entry,) = _removal.plan(["ab" * 6], images, _removal.Rules("classic")).entries
    assert entry.action == "failed"
    assert entry.reason == (
        f"{'ab' * 6}: one image was wanted, {ids[0]}, {ids[1]} fit; write more digits"
    )


def test_what_the_engine_says_is_no_proof(engine: StockedEngine, remove: Call) -> None:
    app = engine.stock(f"{APP}:1", layers={"a": 100})
    engine.keeps = app
    result = remove(f"{APP}:1", as_foreseen=False)
    assert actions(result) == ["failed"]
    assert result["msg"] == f"{APP}:1: its removal was answered, the Engine still has it"
    assert result["bytes"] == 0


def test_what_cannot_be_looked_at(engine: StockedEngine, remove: Call) -> None:
    engine.stock(f"{APP}:1", layers={"a": 100})
    first = engine.fault(where="GET /images/json", status=500, words="gone mad", times=0)
    calls = iter(range(9))

    def also(method: str, path: str, query: dict[str, str]) -> Any:
        if (method, path) == ("GET", "/images/json") and next(calls) == 2:
            return 500, {"message": first.words}
        return StockedEngine.also(engine, method, path, query)

    engine.also = also  # type: ignore[method-assign]
    result = remove(f"{APP}:1", as_foreseen=False)
    assert actions(result) == ["failed"]
    assert "is not verified" in result["msg"] and "gone mad" in result["msg"]


def test_without_disk_usage_nothing_is_proved(engine: StockedEngine, remove: Call) -> None:
    engine.stock(f"{APP}:1", layers={"a": 100})
    engine.fault(where="GET /system/df", status=409, words="already running", times=9)
    engine.fault(where="GET /images/.*/history", status=500, words="no", times=9)
    result = remove(f"{APP}:1")
    assert actions(result) == ["removed"]
    assert result["bytes"] == 0


def test_another_writer_is_waited_for(engine: StockedEngine, run_main: Call) -> None:
    """Check mode, which only reads, waits for nobody."""
    app = engine.stock(f"{APP}:1", layers={"a": 100})
    arguments = {"docker_host": engine.url, "images": [app], "lock_timeout": 0}
    with _hostlock.HostLock(engine.url, "image_load", 0):
        foreseen = run_main(image_remove, {**arguments, "_ansible_check_mode": True})
        assert actions(foreseen) == ["removed"] and foreseen["bytes"] is None
        result = run_main(image_remove, arguments)
    assert result["failed"] and "image_remove wanted to write images" in result["msg"]
    assert set(engine.shelf) == {app}


# bytes

DIFF_IDS = [sha(name) for name in "abcd"]
CHAINS = [chain_of(DIFF_IDS[: n + 1]) for n in range(4)]


@pytest.mark.parametrize(
    ("deleted", "sizes", "proved"),
    [
        (CHAINS, [4, 0, 3, 2, 1], 10),
        (CHAINS[2:], [4, 0, 3, 2, 1], 7),
        ([], [4, 3, 2, 1], 0),
        # Two of four layers weigh nothing, nobody knows which: 3 may belong to one that stays.
        (CHAINS[2:], [4, 0, 0, 3], 0),
        (CHAINS[1:], [4, 0, 0, 3], 4),
        (CHAINS, [4, 0, 0, 3], 7),
        (CHAINS, [], 0),
    ],
)
def test_bytes_are_never_more_than_proved(
    deleted: list[str], sizes: list[int], proved: int
) -> None:
    assert _removal.released(deleted, DIFF_IDS, sizes) == proved
