# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""image_prune: what may go goes, what somebody needs stays, and both are said beforehand."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ansible.module_utils.basic")
pytest.importorskip("docker")

from engine_stub import KINDS
from stocked import StockedEngine, sha

from ansible_collections.fleet.images.plugins.module_utils import _hostlock, _leaks
from ansible_collections.fleet.images.plugins.modules import image_prune

APP, WEB = "registry.example/shop/app", "registry.example/shop/web"
Call = Callable[..., "dict[str, Any]"]
DAY = 86400


@pytest.fixture(params=list(KINDS))
def engine(request: pytest.FixtureRequest) -> Iterator[StockedEngine]:
    with StockedEngine(request.param) as running:
        yield running


@pytest.fixture
def once(
    no_pack: None,
    engine: StockedEngine,
    run_main: Call,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> Call:
    """Runs the module once, with the options given."""
    for name in ("HOST", "TLS", "TLS_VERIFY", "TLS_HOSTNAME", "API_VERSION", "TIMEOUT"):
        monkeypatch.delenv(f"DOCKER_{name}", raising=False)

    def run(check: bool = False, **options: Any) -> dict[str, Any]:
        arguments = {
            "docker_host": engine.url,
            "ledger_path": str(tmp_path / "ledger.json"),
            "log_path": str(tmp_path / "log"),
            **options,
        }
        engine.seen.clear()
        result = run_main(image_prune, {**arguments, "_ansible_check_mode": check})
        assert bool(result["rc"]) == bool(result.get("failed"))
        if check:
            assert [line for line in engine.seen if not line.startswith("GET ")] == []
        return result

    return run


@pytest.fixture
def prune(once: Call, tmp_path: Path) -> Call:
    """Runs it foreseen first, which changes nothing and names what the run then does."""

    def run(**options: Any) -> dict[str, Any]:
        files = sorted(tmp_path.iterdir())
        foreseen = once(check=True, **options)
        assert sorted(tmp_path.iterdir()) == files
        result = once(**options)
        for key in ("changed", "plan", "kept", "images", "bytes", "diff", "msg"):
            assert foreseen[key] == result[key], key
        return result

    return run


def goes(result: dict[str, Any]) -> list[str]:
    return [one["name"] for one in result["plan"]]


def why(result: dict[str, Any]) -> dict[str, str]:
    return {one["name"]: one["reason"] for one in result["kept"]}


def ago(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S.5Z", time.gmtime(time.time() - seconds))


def test_dangling(engine: StockedEngine, prune: Call) -> None:
    app = engine.stock(f"{APP}:1", layers={"base": 4000, "app": 500})
    lost = engine.stock(layers={"base": 4000, "lost": 70})
    result = prune()
    assert [one["id"] for one in result["plan"]] == [lost]
    assert [(one["id"], one["action"]) for one in result["images"]] == [(lost, "removed")]
    assert result["changed"] and result["left"] == {"before": 2, "after": 1}
    assert result["bytes"] == result["reclaimed"]["predicted_min"] == 70
    assert result["msg"] == "1 of 2 images removed, 70 bytes"
    assert why(result)[f"{APP}:1"]
    assert set(engine.shelf) == {app}
    again = prune()
    assert not again["changed"] and again["plan"] == [] and again["bytes"] == 0


def test_nothing_is_asked_twice(engine: StockedEngine, once: Call) -> None:
    """Where nothing may go, the lists are all that is read."""
    engine.stock(f"{APP}:1", layers={"a": 1})
    once()
    lines = [line.partition("?")[0] for line in engine.seen]
    assert lines.count("GET /images/json") == lines.count("GET /containers/json") == 1
    assert not [line for line in lines if line.startswith("GET /images/sha256")]


def test_unused_with_several_names(engine: StockedEngine, prune: Call) -> None:
    engine.stock(f"{APP}:1", f"{APP}:2", f"{WEB}:9", layers={"a": 100})
    run = engine.stock(f"{WEB}:1", f"{WEB}:2", layers={"b": 10})
    stopped = engine.stock(f"{WEB}:3", layers={"c": 10})
    engine.use("running", run, "running")
    engine.use("stopped", stopped, "exited")
    result = prune(scope="unused")
    assert goes(result) == [f"{APP}:1"]
    assert set(engine.shelf) == {run, stopped}
    assert engine.shelf[run].tags == [f"{WEB}:1", f"{WEB}:2"]
    assert "running" in why(result)[f"{WEB}:1"] and "stopped" in why(result)[f"{WEB}:3"]


def test_diff_tells_of_every_image(engine: StockedEngine, prune: Call) -> None:
    app = engine.stock(f"{APP}:1", layers={"a": 100})
    web = engine.stock(f"{WEB}:1", layers={"b": 10})
    engine.use("running", web, "running")
    lines = prune(scope="unused")["diff"]["prepared"].splitlines()
    assert lines[0].startswith(f"- {APP}:1 ({app[7:19]}), 100 ")
    assert lines[1].startswith(f"  {WEB}:1 ({web[7:19]}) stays: used by the container running")


def test_what_others_are_built_upon_goes_along(engine: StockedEngine, prune: Call) -> None:
    base = engine.stock(layers={"base": 50})
    engine.stock(f"{APP}:1", layers={"app": 7}, parent=base)
    result = prune(scope="unused", min_images_left=0)
    assert f"{APP}:1" in goes(result)
    assert engine.shelf == {}
    assert result["bytes"] == 57


def test_all_would_go(engine: StockedEngine, once: Call) -> None:
    engine.stock(f"{APP}:1", layers={"a": 100})
    for check in (True, False):
        result = once(check=check, scope="unused")
        assert result["failed"] and not result["changed"]
        assert "min_images_left" in result["msg"]
        assert goes(result) == [f"{APP}:1"] and result["images"] == []
        assert "build_cache" not in once(check=check, scope="unused", build_cache={})
    assert len(engine.shelf) == 1
    assert once(scope="unused", min_images_left=0)["changed"]
    assert engine.shelf == {}


def test_a_lock_protects_by_digest(engine: StockedEngine, once: Call) -> None:
    config, target = sha("config"), sha("manifest")
    id_ = config if engine.classic else target
    layers = [{"digest": sha("blob"), "diff_id": sha("a"), "size": 9, "media_type": "x"}]
    lock = json.loads(_lock(f"{APP}:1", target, config, layers))
    engine.stock(f"{APP}:1", layers={"b": 5})
    mine = engine.stock(f"{APP}:old", layers={"a": 9})
    engine.shelf[id_] = engine.shelf.pop(mine)
    engine.shelf[id_].id = id_
    result = once(scope="unused", lock=lock)
    assert goes(result) == [f"{APP}:1"], "its tag names another image by now"
    assert why(result)[f"{APP}:old"] == f"the lock has it as {APP}:1"


def _lock(name: str, target: str, config: str, layers: list[dict[str, Any]]) -> str:
    blob = {"size": 10, "media_type": "application/vnd.oci.image.manifest.v1+json"}
    platform = {
        "manifest": {**blob, "digest": target},
        "config": {**blob, "digest": config},
        "layers": layers,
    }
    image = {**blob, "digest": target, "platforms": {"linux/amd64": platform}}
    return json.dumps({"version": 1, "images": {name: image}})


def test_compose_files_and_services(engine: StockedEngine, once: Call, tmp_path: Path) -> None:
    for name in ("web:1", "db:2", "cache:3", "worker:4", "loose:5"):
        engine.stock(f"registry.example/{name}", layers={name: 5})
    (tmp_path / "compose.yml").write_text(
        "services:\n  a:\n    image: registry.example/web:${TAG}\n"
        "  b:\n    image: registry.example/db:${DB-9}\n"
    )
    (tmp_path / ".env").write_text("# versions\nexport DB='2'\n")
    service = {"TaskTemplate": {"ContainerSpec": {"Image": f"registry.example/cache:3@{sha('x')}"}}}
    before = {"TaskTemplate": {"ContainerSpec": {"Image": "registry.example/worker:4"}}}
    engine.services = [{"Spec": {"Name": "front", **service}, "PreviousSpec": before}]
    files = {"scope": "unused", "compose_files": [str(tmp_path / "*.yml")]}
    assert "registry.example/cache:3" in goes(once(check=True, **files))
    engine.more_info = {"Swarm": {"ControlAvailable": True}}
    result = once(check=True, **files)
    assert goes(result) == ["registry.example/loose:5"]
    told = why(result)
    assert "compose.yml names it" in told["registry.example/web:1"]
    assert told["registry.example/worker:4"] == "the service front runs it"
    assert len(goes(once(check=True, **files, protect_services=False))) == 3


@pytest.mark.parametrize(
    "query, words",
    [
        ("[?", "JMESPath"),
        ("length(@)", "it gives int"),
        ("[].dangling", "it gives False among others"),
        ("nothing.at.all", "it gives nothing"),
    ],
)
def test_a_query_that_is_none(engine: StockedEngine, once: Call, query: str, words: str) -> None:
    engine.stock(f"{APP}:1", layers={"a": 5}, labels={"count": "x"})
    result = once(scope="unused", protect_query=query, min_images_left=0)
    assert result["failed"] and words in result["msg"], result["msg"]
    assert len(engine.shelf) == 1


@pytest.mark.parametrize(
    "query",
    ["[?labels.keep]", "[?labels.keep].id", "[?labels.keep].references[0]", "[?labels.keep].name"],
)
def test_a_query_protects(engine: StockedEngine, once: Call, query: str) -> None:
    engine.stock(f"{APP}:1", layers={"a": 5}, labels={"keep": "yes"})
    engine.stock(f"{WEB}:1", layers={"b": 5})
    result = once(scope="unused", protect_query=query)
    assert goes(result) == [f"{WEB}:1"]
    assert "protect_query" in why(result)[f"{APP}:1"]


@pytest.mark.parametrize(
    "options, words",
    [
        ({"unused_for": "14"}, "has no unit"),
        ({"free_target": "10 gallons"}, "unknown unit"),
        ({"max_bytes": "much"}, "no amount"),
        ({"repositories": [" "]}, "repositories"),
        ({"protect": ["a{b,c}"]}, "protect"),
        ({"protect_labels": ["=x"]}, "protect_labels"),
        ({"keep_last": -1}, "keep_last"),
        ({"keep_bases": True}, "keep_bases"),
        ({"build_cache": {"older_than": "old"}}, "duration"),
        ({"compose_files": ["/no/such/compose.yml"]}, "/no/such/compose.yml"),
        ({"apply": "/no/such/plan.json"}, "/no/such/plan.json"),
    ],
)
def test_what_is_no_policy(
    engine: StockedEngine, once: Call, options: dict[str, Any], words: str
) -> None:
    engine.stock(f"{APP}:1", layers={"a": 5})
    engine.stock(f"{WEB}:1", layers={"b": 5})
    result = once(scope="unused", **options)
    assert result["failed"] and words in result["msg"], result["msg"]
    assert len(engine.shelf) == 2


def test_budgets(engine: StockedEngine, once: Call) -> None:
    for number in range(4):
        engine.stock(f"{APP}:{number}", layers={f"{number}": 1000})
    keep = {"scope": "unused", "protect": [f"{APP}:0"]}
    for options in ({"max_images": 2}, {"max_bytes": "1kB"}, {"min_images_left": 2}):
        result = once(**keep, **options)
        assert result["failed"] and next(iter(options)) in result["msg"]
        assert len(result["plan"]) == 3 and len(engine.shelf) == 4
    assert once(**keep, max_images=3)["changed"]


def test_last_uses_are_remembered(engine: StockedEngine, once: Call, tmp_path: Path) -> None:
    old = engine.stock(f"{APP}:1", layers={"a": 5})
    engine.stock(f"{WEB}:1", layers={"b": 5})
    used = engine.use("job", old, "exited", ended=ago(3 * DAY))
    assert once(scope="unused", unused_for="2d")["plan"] == []
    ledger = json.loads((tmp_path / "ledger.json").read_text())["images"]
    assert abs(ledger[old]["used"] - (time.time() - 3 * DAY)) < 60
    # The container goes, and what it showed stays known; the other image is known since today.
    del engine.users[used]
    for entry in ledger.values():
        entry["since"] -= 2 * DAY + 100 if "used" not in entry else 9 * DAY
    (tmp_path / "ledger.json").write_text(json.dumps({"version": 1, "images": ledger}))
    assert goes(once(check=True, scope="unused", unused_for="4d", min_images_left=0)) == []
    both = once(check=True, scope="unused", unused_for="2d", min_images_left=0)
    assert set(goes(both)) == {f"{APP}:1", f"{WEB}:1"}


def test_a_plan_that_is_only_written_begins_the_ledger(
    engine: StockedEngine, once: Call, tmp_path: Path
) -> None:
    id_ = engine.stock(f"{APP}:1", layers={"a": 5})
    once(scope="unused", unused_for="2d", plan_path=str(tmp_path / "plan"))
    assert set(json.loads((tmp_path / "ledger.json").read_text())["images"]) == {id_}


def test_a_damaged_ledger_keeps_images(engine: StockedEngine, once: Call, tmp_path: Path) -> None:
    engine.stock(f"{APP}:1", layers={"a": 5})
    engine.stock(f"{WEB}:1", layers={"b": 5})
    (tmp_path / "ledger.json").write_text("{ broken")
    result = once(scope="unused", unused_for="1s")
    assert result["plan"] == [] and len(engine.shelf) == 2
    assert "a ledger of last uses was wanted" in str(result["warnings"])
    assert set(json.loads((tmp_path / "ledger.json").read_text())["images"]) == set(engine.shelf)


def test_log(engine: StockedEngine, once: Call, tmp_path: Path) -> None:
    lost = engine.stock(layers={"a": 5})
    once(check=True)
    assert not (tmp_path / "log").exists()
    once()
    (line,) = map(json.loads, (tmp_path / "log").read_text().splitlines())
    assert (line["id"], line["what"], line["bytes"]) == (lost, "image_prune", 5)
    engine.stock(layers={"b": 5})
    result = once(log_path=str(tmp_path / "no" / "directory" / "log"))
    assert result["changed"] and "could not be noted" in str(result["warnings"])


def test_plan_and_apply(engine: StockedEngine, once: Call, tmp_path: Path) -> None:
    ids = {name: engine.stock(f"{APP}:{name}", layers={name: 10}) for name in "abcde"}
    path = tmp_path / "plan.json"
    options = {"scope": "unused", "protect": [f"{APP}:e"], "plan_path": str(path)}
    foreseen = once(check=True, **options)
    assert foreseen["changed"] and not path.exists()
    made = once(**options)
    assert made["changed"] and len(engine.shelf) == 5
    assert made["images"] == [] and made["left"] == {"before": 5, "after": 5}
    assert len(made["plan"]) == 4 and "nothing was removed" in made["msg"]
    assert not once(**options)["changed"], "the same plan again"
    assert not engine.asked("DELETE")
    engine.use("late", ids["a"], "running")
    engine.shelf[ids["b"]].tags.append(f"{WEB}:1")
    del engine.shelf[ids["c"]]
    new = engine.stock(f"{APP}:f", layers={"f": 10})
    for check in (True, False):
        result = once(check=check, apply=str(path))
        found = {one["name"]: (one["action"], one["reason"]) for one in result["images"]}
        assert found[f"{APP}:a"][0] == "kept" and "late" in found[f"{APP}:a"][1]
        assert found[f"{APP}:b"][0] == "kept" and f"{WEB}:1" in found[f"{APP}:b"][1]
        assert found[f"{APP}:c"] == ("none", "it is gone already")
        assert found[f"{APP}:d"][0] == "removed"
        assert result["changed"]
    assert set(engine.shelf) == {ids["a"], ids["b"], ids["e"], new}
    assert not once(apply=str(path))["changed"]


def test_apply_keeps_to_protection(engine: StockedEngine, once: Call, tmp_path: Path) -> None:
    engine.stock(f"{APP}:1", layers={"a": 10})
    engine.stock(f"{WEB}:1", layers={"b": 10})
    path = str(tmp_path / "plan.json")
    once(scope="unused", min_images_left=0, plan_path=path)
    result = once(apply=path, protect=[f"{APP}:1"])
    assert goes(result) == [f"{WEB}:1"]
    assert "protect" in {one["name"]: one["reason"] for one in result["images"]}[f"{APP}:1"]


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"version": 1, "engine": "", "plan": [{}]}'])
def test_a_file_that_is_no_plan(
    engine: StockedEngine, once: Call, tmp_path: Path, content: str
) -> None:
    engine.stock(f"{APP}:1", layers={"a": 10})
    path = tmp_path / "plan.json"
    path.write_text(content)
    result = once(apply=str(path))
    assert result["failed"] and "a plan of image_prune was wanted" in result["msg"]


def test_a_plan_of_another_engine(engine: StockedEngine, once: Call, tmp_path: Path) -> None:
    engine.stock(f"{APP}:1", layers={"a": 10})
    path = str(tmp_path / "plan.json")
    engine.more_info = {"ID": "one"}
    once(scope="unused", min_images_left=0, plan_path=path)
    engine.more_info = {"ID": "other"}
    result = once(apply=path, min_images_left=0)
    assert result["failed"] and "the Engine other was wanted" in result["msg"]
    assert len(engine.shelf) == 1


def test_what_changes_in_the_middle_is_left_alone(engine: StockedEngine, once: Call) -> None:
    """A second look right before each image goes."""
    first = engine.stock(f"{APP}:1", layers={"a": 10})
    second = engine.stock(f"{APP}:2", layers={"b": 10})
    third = engine.stock(f"{APP}:3", layers={"c": 10})
    looks = len(_asked_before(engine, once))
    engine.before_look = {
        engine._looks + looks + 1: lambda: engine.use("late", first, "running") and None,
        engine._looks + looks + 2: lambda: engine.shelf[second].tags.append(f"{WEB}:1"),
    }
    result = once(scope="unused", min_images_left=0)
    acted = {one["id"]: one["action"] for one in result["images"]}
    assert acted == {first: "kept", second: "kept", third: "removed"}
    assert not result.get("failed") and result["changed"]
    assert set(engine.shelf) == {first, second}


def _asked_before(engine: StockedEngine, once: Call) -> list[str]:
    """The looks at single images that a plan takes."""
    once(check=True, scope="unused", min_images_left=0)
    return engine.asked(r"GET /images/sha256:[^/]+/json")


def test_a_use_that_begins_in_the_very_moment(engine: StockedEngine, once: Call) -> None:
    """The Engine refuses; the names that are gone already come back."""
    app = engine.stock(f"{APP}:1", f"{APP}:2", f"{WEB}:1", layers={"a": 10})
    engine.late = [("late", app)]
    result = once(scope="unused", min_images_left=0)
    assert [one["action"] for one in result["images"]] == ["kept"]
    assert "conflict" in result["images"][0]["reason"]
    assert not result["changed"] and not result.get("failed")
    assert set(engine.shelf[app].tags) == {f"{APP}:1", f"{APP}:2", f"{WEB}:1"}


def test_an_engine_that_dies_half_way(engine: StockedEngine, once: Call) -> None:
    for number in range(4):
        engine.stock(f"{APP}:{number}", layers={f"{number}": 10})
    looks = len(_asked_before(engine, once))
    engine.before_look = {engine._looks + looks + 3: engine.stop}
    result = once(scope="unused", min_images_left=0, build_cache={}, leaks="report")
    acted = [one["action"] for one in result["images"]]
    assert result["failed"] and acted.count("failed") >= 2
    assert "not removed" in result["msg"] or "not verified" in result["msg"]
    assert len(engine.shelf) == 2


def test_what_stays_though_it_is_said_to_be_gone(engine: StockedEngine, once: Call) -> None:
    app = engine.stock(f"{APP}:1", layers={"a": 10})
    engine.keeps = app
    result = once(scope="unused", min_images_left=0)
    assert result["failed"] and not result["changed"]
    assert "the Engine still has it" in result["msg"]


def test_two_runs_at_once(engine: StockedEngine, once: Call) -> None:
    engine.stock(layers={"a": 10})
    with _hostlock.HostLock(engine.url, "image_pull", 0):
        assert once(check=True)["plan"]
        result = once(lock_timeout=0)
        assert result["failed"] and "image_pull" in result["msg"]
        assert len(engine.shelf) == 1
    assert once()["changed"]


def test_build_cache(engine: StockedEngine, once: Call) -> None:
    engine.stock(f"{APP}:1", layers={"a": 10})
    used = {"Size": 500, "LastUsedAt": ago(10 * DAY), "InUse": False, "Shared": False}
    engine.build_cache = [used]
    assert once(build_cache={"older_than": "11d"})["build_cache"] == {"foreseen": 0, "reported": 0}
    foreseen = once(check=True, build_cache={})
    assert foreseen["build_cache"] == {"foreseen": 500, "reported": None}
    assert foreseen["changed"] and engine.build_cache
    done = once(build_cache={"reserved": "100", "older_than": "2d"})
    assert done["build_cache"] == {"foreseen": 400, "reported": 500} and done["changed"]
    (line,) = engine.asked("POST /build/prune")
    new = engine.kind == "containerd"
    assert ("reserved-space=100" if new else "keep-storage=100") in line
    assert "172800s" in line
    assert not once(build_cache={})["changed"]
    if not new:
        result = once(build_cache={"max_used": "5GB"})
        assert result["failed"] and "max_used" in result["msg"]


def test_last_copies_are_asked_for(engine: StockedEngine, once: Call) -> None:
    gone = engine.stock(f"{APP}:1", layers={"a": 10}, digests=[f"{APP}@{sha('gone')}"])
    there = engine.stock(f"{WEB}:1", layers={"b": 10}, digests=[f"{WEB}@{sha('there')}"])
    local = engine.stock("local/only:1", layers={"c": 10})
    other = engine.stock("local/other:1", layers={"d": 10})

    class Served:
        class target:
            digest = sha("there") if engine.classic else there

    engine.served[f"{WEB}@{Served.target.digest}"] = Served
    result = once(check=True, scope="unused", last_copies=[gone, there, local])
    assert {one["id"] for one in result["plan"]} == {there, other}
    told = why(result)
    assert "the last copy in the fleet" in told[f"{APP}:1"]
    assert "manifest unknown" in told[f"{APP}:1"]
    if engine.classic:
        assert "no registry is known" in told["docker.io/local/only:1"]


def test_a_target(engine: StockedEngine, once: Call, tmp_path: Path) -> None:
    """What is free already is enough; nameless ones go first, and then no more than is wanted."""
    (tmp_path / "root" / "containerd" / "daemon").mkdir(parents=True)
    engine.more_info = {"DockerRootDir": str(tmp_path / "root")}
    engine.stock(f"{APP}:1", layers={"a": 10})
    engine.stock(f"{WEB}:1", layers={"b": 10})
    lost = engine.stock(layers={"c": 10})
    keep = {"scope": "unused", "check": True, "min_images_left": 0}
    assert once(free_target="1B", **keep)["plan"] == []
    whole = once(free_target="100%", **keep)
    assert len(whole["plan"]) == 3 and whole["plan"][0]["id"] == lost
    free = whole["engine"]["free"]
    # Others write to this disk meanwhile, but not that much.
    some = once(free_target=str(free + 10**12), **keep)
    assert len(some["plan"]) == 3


def test_a_target_on_a_disk_out_of_reach(engine: StockedEngine, once: Call) -> None:
    engine.more_info = {"DockerRootDir": "/no/such/directory"}
    engine.stock(f"{APP}:1", layers={"a": 10})
    if engine.classic:
        result = once(scope="unused", free_target="20%")
        assert result["failed"] and "run this on the Engine's own host" in result["msg"]


def test_bases_of_the_next_bundle(engine: StockedEngine, once: Call) -> None:
    """The layers that a lock's images need stay, with the newest image that has them."""
    engine.stock(f"{APP}:1", layers={"base": 50, "app-1": 5})
    engine.stock(f"{APP}:2", layers={"base": 50, "lib": 20, "app-2": 5})
    engine.stock(f"{WEB}:1", layers={"other": 7})
    wanted = [
        {"digest": sha(f"blob {name}"), "diff_id": sha(name), "size": 9, "media_type": "x"}
        for name in ("base", "lib", "app-3")
    ]
    lock = json.loads(_lock(f"{APP}:3", sha("new manifest"), sha("new config"), wanted))
    keep = {"scope": "unused", "lock": lock, "check": True, "min_images_left": 0}
    assert set(goes(once(**keep))) == {f"{APP}:1", f"{APP}:2", f"{WEB}:1"}
    result = once(**keep, keep_bases=True)
    assert set(goes(result)) == {f"{APP}:1", f"{WEB}:1"}
    assert why(result)[f"{APP}:2"] == "the next thin bundle builds on its layers"


LEAK = _leaks.Leak("directory", "/data/overlay2/abc", 4096, "nothing has it", True)
HELD = _leaks.Leak("layer", "sha256:abc", 100, "no image has it", False)


@pytest.mark.parametrize("wish", ["ignore", "report", "remove"])
def test_leaks(
    engine: StockedEngine, once: Call, monkeypatch: pytest.MonkeyPatch, wish: str
) -> None:
    asked: list[str] = []

    def find(_engine: Any) -> _leaks.Found:
        asked.append("find")
        return _leaks.Found((LEAK, HELD))

    def remove(_engine: Any, leaks: Any) -> list[_leaks.Outcome]:
        asked.append("remove")
        return [_leaks.Outcome(LEAK, True), _leaks.Outcome(HELD, False, "left alone")]

    monkeypatch.setattr(_leaks, "find", find)
    monkeypatch.setattr(_leaks, "remove", remove)
    foreseen = once(check=True, leaks=wish)
    assert "remove" not in asked
    done = once(leaks=wish)
    assert (
        asked == {"ignore": [], "report": ["find"] * 2, "remove": ["find", "find", "remove"]}[wish]
    )
    assert foreseen["changed"] == done["changed"] == (wish == "remove")
    if wish == "ignore":
        assert "leaks" not in done
        return
    removed = "removed" if wish == "remove" else "none"
    for result in (foreseen, done):
        assert [one["action"] for one in result["leaks"]] == [removed, "none"]
        assert result["leaks"][0]["id"] == LEAK.id and result["leaks"][0]["bytes"] == 4096


def test_leaks_that_nobody_can_see(engine: StockedEngine, once: Call) -> None:
    result = once(leaks="remove")
    assert result["leaks"] == [] and not result["changed"]
    assert "leaks: " in str(result["warnings"])
