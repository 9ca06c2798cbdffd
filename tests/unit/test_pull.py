# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""image_pull against Engines that keep images as real ones do, and registries that misbehave."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ansible.module_utils.basic")
pytest.importorskip("docker")

from engine_stub import EngineStub
from images import Store, as_lock
from registry_stub import RegistryStub

from ansible_collections.fleet.images.plugins.module_utils import (
    _engine,
    _lock,
    _pull_run,
    _retry,
)
from ansible_collections.fleet.images.plugins.module_utils._lock import LockedImage
from ansible_collections.fleet.images.plugins.modules import image_pull

HUB = "docker.io/library/"
APP, WEB, DB = f"{HUB}app:1", f"{HUB}web:1", f"{HUB}db:1"
MIRROR = "mirror.example:5000/hub"
SECRET = "s3cret-of-pulls"
Call = Callable[..., "dict[str, Any]"]


class Clock:
    """Waits that take no time, and are noted."""

    def __init__(self) -> None:
        self.waited: list[float] = []


@pytest.fixture(autouse=True)
def clock(no_pack: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Clock:
    for name in ("HOST", "TLS", "TLS_VERIFY", "TLS_HOSTNAME", "API_VERSION", "TIMEOUT"):
        monkeypatch.delenv(f"DOCKER_{name}", raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "no config"))
    clock = Clock()

    def retrier(retries: int = 3, base: float = 1.0) -> _retry.Retrier:
        return _retry.Retrier(retries, base, sleep=clock.waited.append, jitter=lambda: 1.0)

    monkeypatch.setattr(_pull_run, "Retrier", retrier)
    return clock


@pytest.fixture
def call(run_main: Call, tmp_path: Path) -> Call:
    """Runs image_pull's main() and returns its result, `rc` among it."""

    def run(stub: EngineStub, check: bool = False, **arguments: Any) -> dict[str, Any]:
        own = {"_ansible_check_mode": check, "_ansible_remote_tmp": str(tmp_path)}
        arguments = {"docker_host": stub.url, "tag_policy": "allow", **arguments}
        result = run_main(image_pull, {**own, **arguments})
        assert result["msg"]
        assert bool(result["rc"]) == bool(result.get("failed"))
        assert SECRET not in json.dumps(result)
        return result

    return run


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.at(tmp_path / "store")


def changes(stub: EngineStub) -> list[str]:
    return [line for line in stub.seen if not line.startswith("GET ")]


def pulls(stub: EngineStub) -> list[str]:
    return stub.asked("^POST /images/create")


def brief(result: dict[str, Any]) -> list[tuple[str, str]]:
    return [(one["name"], one["action"]) for one in result["images"]]


def id_of(stub: EngineStub, image: LockedImage) -> str:
    return image.on("linux/amd64").config.digest if stub.classic else image.target.digest


def names(stub: EngineStub) -> set[str]:
    """Every name that the Engine has."""
    return {*stub.tags, *stub.digests}


# create, repeat, change


def test_create_and_repeat(call: Call, stub: EngineStub, store: Store) -> None:
    app, web = store.image("app:1", "a", "b"), store.image("web:1", "a", "c")
    stub.serve(app)
    stub.serve(web)
    foreseen = call(stub, check=True, images=["app:1", "web:1"])
    assert changes(stub) == []
    assert stub.tags == {}
    done = call(stub, images=["app:1", "web:1"])
    assert foreseen["changed"] and done["changed"]
    assert brief(foreseen) == brief(done) == [(APP, "pulled"), (WEB, "pulled")]
    assert stub.tags == {APP: id_of(stub, app), WEB: id_of(stub, web)}
    for image, one in zip((app, web), done["images"]):
        assert one["digest"] == image.target.digest
        assert one["id"] == id_of(stub, image)
        assert one["bytes"] == sum(layer.size for layer in image.on("linux/amd64").layers)
        assert (one["attempts"], one["state"]) == (1, "missing")
    assert [one["digest"] for one in foreseen["images"]] == [
        one["digest"] for one in done["images"]
    ]
    assert foreseen["bytes"] is None
    stub.seen.clear()
    for check in (True, False):
        again = call(stub, check=check, images=["app:1", "web:1"])
        assert not again["changed"]
        assert brief(again) == [(APP, "none"), (WEB, "none")]
        assert again["diff"] == {"before": "", "after": ""}
    assert changes(stub) == []
    assert stub.asked("/distribution/") == []


@pytest.mark.parametrize("policy", ["missing", "always"])
def test_a_tag_that_moved(call: Call, stub: EngineStub, store: Store, policy: str) -> None:
    old, new = store.image("app:1", "a"), store.image("app:1", "b")
    stub.serve(old)
    call(stub, images=["app:1"])
    former = set(names(stub))
    stub.serve(new)
    if policy == "missing":
        result = call(stub, images=["app:1"], policy=policy)
        assert not result["changed"]
        assert stub.tags == {APP: id_of(stub, old)}
        return
    foreseen = call(stub, check=True, images=["app:1"], policy=policy)
    assert stub.tags == {APP: id_of(stub, old)}
    done = call(stub, images=["app:1"], policy=policy)
    assert foreseen["changed"] and done["changed"]
    assert (done["images"][0]["state"], brief(done)) == ("stale", [(APP, "pulled")])
    assert done["diff"]["before"] == f"{APP}: {id_of(stub, old)}\n"
    assert done["diff"]["after"] == f"{APP}: {id_of(stub, new)}\n"
    assert stub.tags == {APP: id_of(stub, new)}
    if not stub.classic:
        assert names(stub) - former == set()
    stub.seen.clear()
    again = call(stub, images=["app:1"], policy=policy)
    assert not again["changed"]
    assert changes(stub) == []
    assert len(stub.asked("/distribution/")) == 1


def test_name_tag_and_digest_end_with_the_tag(call: Call, stub: EngineStub, store: Store) -> None:
    app = store.image("app:1", "a")
    stub.serve(app)
    wanted = [f"app:1@{app.target.digest}"]
    assert call(stub, images=wanted)["changed"]
    assert stub.tags == {APP: id_of(stub, app)}
    assert not call(stub, images=wanted)["changed"]
    assert not call(stub, images=wanted, policy="always")["changed"]
    stub.untag(APP)
    assert names(stub) == set(), "the image goes with its tag"


def test_other_names_of_the_same_image_stay(call: Call, stub: EngineStub, store: Store) -> None:
    """The containerd store would take them away together with name@digest."""
    app = store.image("app:1", "a")
    stub.serve(app)
    stub.serve(app, f"{HUB}app:2")
    call(stub, images=["app:2"])
    call(stub, images=[f"app:1@{app.target.digest}", "app:3@" + app.target.digest])
    assert set(stub.tags) == {APP, f"{HUB}app:2", f"{HUB}app:3"}


def test_as_and_digest_alone(call: Call, stub: EngineStub, store: Store) -> None:
    app = store.image("app:1", "a")
    stub.serve(app)
    site = "site.example/app:stable"
    images = [{"name": "app:1", "as": site}]
    for changed in (True, False):
        result = call(stub, images=images)
        assert result["changed"] is changed
        assert set(stub.tags) == {site}
        assert names(stub) == {site}
    by_digest = f"{HUB}app@{app.target.digest}"
    for changed in (True, False):
        result = call(stub, images=[by_digest])
        assert result["changed"] is changed, result
    assert by_digest in names(stub)


# via


@pytest.mark.parametrize("pinned", [False, True])
def test_via(call: Call, stub: EngineStub, store: Store, pinned: bool) -> None:
    app = store.image("app:1", "a")
    stub.serve(app, f"{MIRROR}/library/app:1")
    options: dict[str, Any] = {"images": ["app:1"], "via": MIRROR}
    if pinned:
        options = {"lock": _lock.dump(as_lock(app)), "via": MIRROR}
    options.update(registry_username="robot", registry_password=SECRET)
    for check in (True, False):
        result = call(stub, check=check, **options)
        assert brief(result) == [(APP, "pulled")]
    assert names(stub) == {APP}
    assert not call(stub, **options)["changed"]
    assert not call(stub, policy="always", **options)["changed"]
    assert names(stub) == {APP}
    assert {login["serveraddress"] for login in stub.logins} == {"mirror.example:5000"}
    assert {login["password"] for login in stub.logins} == {SECRET}


def test_names_below_the_prefix_that_were_there_stay(
    call: Call, stub: EngineStub, store: Store
) -> None:
    app = store.image("app:1", "a")
    mine = f"{MIRROR}/library/app:mine"
    stub.serve(app, f"{MIRROR}/library/app:1")
    stub.serve(app, mine)
    call(stub, images=[mine])
    call(stub, lock=_lock.dump(as_lock(app)), via=MIRROR)
    call(stub, images=["app:1"], via=MIRROR)
    assert {mine, APP} <= set(stub.tags)
    assert f"{MIRROR}/library/app:1" not in stub.tags


# locks


def test_lock_pins(call: Call, stub: EngineStub, store: Store) -> None:
    old, new = store.image("app:1", "a"), store.image("app:1", "b")
    web = store.image("web:1", "c")
    for image in (old, new, web):
        stub.serve(image)
    call(stub, images=["app:1"])
    lock = _lock.dump(as_lock(old, web))
    foreseen = call(stub, check=True, lock=lock)
    assert changes(stub)[1:] == []
    done = call(stub, lock=lock)
    assert brief(foreseen) == brief(done) == [(APP, "pulled"), (WEB, "pulled")]
    assert foreseen["bytes"] == done["bytes"] > 0
    assert stub.tags == {APP: id_of(stub, old), WEB: id_of(stub, web)}
    assert not call(stub, lock=lock)["changed"]
    assert not call(stub, lock=lock, policy="always")["changed"]
    assert brief(call(stub, lock=lock, images=["web:1"])) == [(WEB, "none")]


def test_a_digest_against_the_lock_is_refused(call: Call, stub: EngineStub, store: Store) -> None:
    app, other, web = store.image("app:1", "a"), store.image("app:1", "b"), store.image("web:1")
    for image in (app, other, web):
        stub.serve(image)
    lock = _lock.dump(as_lock(app, web))
    result = call(stub, lock=lock, images=[f"app:1@{other.target.digest}", "web:1"])
    assert result["failed"] and result["changed"]
    assert f"{APP}: wanted {other.target.digest}, the lock has {app.target.digest}" in result["msg"]
    assert brief(result) == [(APP, "failed"), (WEB, "pulled")]
    assert set(stub.tags) == {WEB}


@pytest.mark.parametrize("check", [True, False])
def test_an_image_that_the_lock_lacks_fails_alone(
    call: Call, stub: EngineStub, store: Store, check: bool
) -> None:
    web = store.image("web:1", "a")
    stub.serve(store.image("app:1", "b"))
    stub.serve(web)
    result = call(stub, check, lock=_lock.dump(as_lock(web)), images=["app:1", "web:1"])
    assert result["failed"] and result["changed"]
    assert result["msg"] == f"{APP} is not in the lock; run image_fetch with update: true"
    assert brief(result) == [(APP, "failed"), (WEB, "pulled")]
    assert [one["attempts"] for one in result["images"]] == [0, 0 if check else 1]
    assert set(stub.tags) == (set() if check else {WEB})


@pytest.mark.parametrize("what", ["pull pretend", "pull other"])
def test_what_comes_is_verified(call: Call, stub: EngineStub, store: Store, what: str) -> None:
    old, new, web = store.image("app:1", "a"), store.image("app:1", "b"), store.image("web:1", "c")
    for image in (old, web):
        stub.serve(image)
    call(stub, images=["app:1"])
    stub.serve(new)
    before = {APP: id_of(stub, old)}
    stub.fault(what, image="app@", words=WEB)
    result = call(stub, lock=_lock.dump(as_lock(new)))
    assert result["failed"] and not result["changed"]
    wanted = "does not have" if what == "pull pretend" else f"wanted {id_of(stub, new)} after"
    assert wanted in result["msg"]
    assert stub.tags == before


# what goes wrong


def test_all_are_tried_and_all_failures_told(call: Call, stub: EngineStub, store: Store) -> None:
    stub.serve(store.image("app:1", "a"))
    stub.serve(store.image("db:1", "c"))
    for check in (True, False):
        result = call(stub, check=check, images=["app:1", "web:1", "db:1", "none.example/x:1"])
        assert result["failed"] and result["changed"]
        assert [action for _name, action in brief(result)] == [
            "pulled", "failed", "pulled", "failed",
        ]  # fmt: skip
        assert result["msg"].count("the Engine said: ") == 2
        assert result["msg"].count("check its name, tag and digest") == 2
        assert [one["attempts"] for one in result["images"]][1::2] == [1, 1]
    assert set(stub.tags) == {APP, DB}


@pytest.mark.parametrize(
    "words",
    [
        "toomanyrequests: slow down",
        "received unexpected HTTP status: 503 Service Unavailable",
        "error pulling image configuration: download failed after attempts=6: unexpected EOF",
    ],
)
@pytest.mark.parametrize("told", ["message", "status"])
def test_what_may_pass_is_tried_again(
    call: Call, stub: EngineStub, store: Store, clock: Clock, words: str, told: str
) -> None:
    stub.serve(store.image("app:1", "a"))
    if told == "message":
        stub.fault("pull told", words=words, times=2)
    else:
        stub.fault(where="^POST /images/create", status=500, words=words, times=2)
    result = call(stub, images=["app:1"], retry_delay=4)
    assert result["images"][0]["attempts"] == 3
    assert clock.waited == [4.0, 8.0]
    assert set(stub.tags) == {APP}


@pytest.mark.parametrize(
    "words",
    [
        "unauthorized: authentication required",
        "denied: requested access to the resource is denied",
        "manifest unknown: manifest unknown",
        "x509: certificate signed by unknown authority",
        "write /var/lib/docker/tmp/GetImageBlob1: no space left on device",
        "no matching manifest for linux/amd64 in the manifest list entries",
    ],
)
def test_what_lasts_is_not_tried_again(
    call: Call, stub: EngineStub, store: Store, clock: Clock, words: str
) -> None:
    old = store.image("app:1", "a")
    stub.serve(old)
    call(stub, images=["app:1"])
    new = store.image("app:1", "b")
    stub.serve(new)
    stub.fault("pull told", words=words, times=9)
    result = call(stub, images=[f"app:1@{new.target.digest}"])
    assert result["failed"] and not result["changed"]
    assert words in result["msg"]
    assert result["images"][0]["attempts"] == 1
    assert len(pulls(stub)) == 2
    assert clock.waited == []
    assert stub.tags == {APP: id_of(stub, old)}


def test_retries_end(call: Call, stub: EngineStub, store: Store, clock: Clock) -> None:
    stub.serve(store.image("app:1", "a"))
    stub.fault("pull told", words="toomanyrequests: retry-after: 5s", times=9)
    result = call(stub, images=["app:1"], retries=2)
    assert result["failed"]
    assert result["images"][0]["attempts"] == 3
    assert len(pulls(stub)) == 3
    assert min(clock.waited) >= 5.0
    assert stub.tags == {}


def test_a_cut_stream_is_no_success(call: Call, stub: EngineStub, store: Store) -> None:
    stub.serve(store.image("app:1", "a"))
    stub.fault("pull cut")
    result = call(stub, images=["app:1"])
    assert (result["images"][0]["attempts"], set(stub.tags)) == (2, {APP})


def test_a_stall_counts_as_lost(call: Call, stub: EngineStub, store: Store) -> None:
    stub.serve(store.image("app:1", "a"))
    fault = stub.fault("pull stall")
    result = call(stub, images=["app:1"], stall_timeout=1)
    fault.release.set()
    assert (result["images"][0]["attempts"], set(stub.tags)) == (2, {APP})


def test_the_registry_itself_is_asked_how_long_to_wait(
    call: Call, stub: EngineStub, store: Store, clock: Clock
) -> None:
    """Engines keep Retry-After to themselves."""
    with RegistryStub() as registry:
        name = f"{registry.name}/app:1"
        stub.serve(store.image("app:1", "a"), name)
        registry.fault("/v2/app/manifests/1", status=429, headers={"Retry-After": "7"})
        stub.fault("pull told", words="toomanyrequests: slow down")
        result = call(stub, images=[name])
        assert result["images"][0]["attempts"] == 2
        assert len(registry.asked("/v2/app/manifests/1")) == 1
    assert len(clock.waited) == 1
    assert 7.0 <= clock.waited[0] < 9.0


@pytest.mark.parametrize(
    ("status", "attempts", "said"),
    [
        (401, 1, "registry_username"),
        (403, 1, "registry_username"),
        (404, 1, "check its name"),
        (429, 3, "fewer images at once"),
        (503, 3, "run it again"),
        (None, 3, "run it again"),
    ],
)
def test_a_status_that_the_engine_keeps_to_itself_decides(
    call: Call, stub: EngineStub, store: Store, status: int | None, attempts: int, said: str
) -> None:
    """Engine 28 with the containerd store says nothing but the registry's words of a blob."""
    with RegistryStub() as registry:
        name = f"{registry.name}/app:1"
        registry.add_index("app:1", {"linux/amd64": ["a", "b"], "linux/arm64": ["c"]})
        if status:
            registry.fault("/blobs/", status=status, times=9)
        stub.serve(store.image("app:1", "a"), name)
        stub.fault("pull told", words="error from registry: no", times=9)
        result = call(stub, images=[name], retries=2)
        assert len(registry.asked("/blobs/")) == (attempts if status else 3 * attempts)
    assert result["failed"] and result["images"][0]["attempts"] == attempts
    told = f", and the registry answers: {status}; " if status else "error from registry: no; "
    assert told in result["msg"] and said in result["msg"]


def test_a_wait_that_is_too_long_ends_it(
    call: Call, stub: EngineStub, store: Store, clock: Clock
) -> None:
    stub.serve(store.image("app:1", "a"))
    stub.fault("pull told", words="toomanyrequests: retry-after: 60m", times=9)
    result = call(stub, images=["app:1"])
    assert result["failed"]
    assert (len(pulls(stub)), clock.waited) == (1, [])
    assert "pull later" in result["msg"]


def test_several_at_once_but_no_more(call: Call, stub: EngineStub, store: Store) -> None:
    wanted = [f"app:{number}" for number in range(6)]
    for name in wanted:
        stub.serve(store.image(name, name))
    fault = stub.fault("pull stall", times=2)
    call(stub, images=wanted, parallel=2, stall_timeout=1)
    fault.release.set()
    assert len(stub.tags) == 6
    assert stub.most_in_flight <= 4  # two that were given up on, and two at work


# options


def test_tag_policy(call: Call, stub: EngineStub, store: Store) -> None:
    stub.serve(store.image("app:latest", "a"))
    stub.serve(store.image("web:1", "b"))
    advice = f"{HUB}app:latest: a concrete tag or a digest is wanted"
    refused = call(stub, images=["app", "web:1"], tag_policy="refuse")
    assert refused["failed"]
    assert advice in refused["msg"]
    assert brief(refused) == [(f"{HUB}app:latest", "failed"), (WEB, "pulled")]
    allowed = call(stub, images=["app", "web:1"], tag_policy="allow")
    assert advice not in str(allowed.get("warnings"))
    told = call(stub, images=["app", "web:1"], tag_policy="warn")["warnings"]
    assert sum(advice in text for text in told) == 1


def test_logins(call: Call, stub: EngineStub, store: Store) -> None:
    stub.serve(store.image("app:1", "a"))
    call(stub, images=["app:1"], registry_username="robot", registry_password=SECRET)
    assert {(one["username"], one["password"]) for one in stub.logins} == {("robot", SECRET)}
    result = call(stub, images=["app:1"], registry_password=SECRET)
    assert result["failed"]


def test_bad_arguments(call: Call, stub: EngineStub) -> None:
    assert "no image reference" in call(stub, images=["UP/x y"])["msg"]
    assert "via_ca" in call(stub, images=["app:1"], via_ca="x")["msg"]
    assert "one of the following" in call(stub)["msg"]
    assert changes(stub) == []


def test_what_surely_does_not_fit_is_refused(
    call: Call, stub: EngineStub, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    app, web = store.image("app:1", "a"), store.image("web:1", "a", "b")
    for image in (app, web):
        stub.serve(image)
    lock = _lock.dump(as_lock(app, web))
    blobs = {one.digest: one.size for image in (app, web) for one in image.blobs("linux/amd64")}
    need = sum(blobs.values()) * (1 if stub.classic else 2)
    monkeypatch.setattr(_engine, "_free", lambda _path: need - 1)
    for check in (True, False):
        result = call(stub, check=check, lock=lock)
        assert result["failed"]
        assert not result["changed"]
        assert (
            f"at least {need} bytes are wanted free for the pull, {need - 1} are" in result["msg"]
        )
    assert pulls(stub) == []
    monkeypatch.setattr(_engine, "_free", lambda _path: need)
    assert call(stub, lock=lock)["changed"]


def test_a_store_that_may_share_layers_is_not_refused(
    call: Call, containerd: EngineStub, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody knows which layers a containerd store has; with `known` it can be told."""
    app, web = store.image("app:1", "a"), store.image("web:1", "a", "b")
    for image in (app, web):
        containerd.serve(image)
    call(containerd, images=["app:1"])
    monkeypatch.setattr(_engine, "_free", lambda _path: 1)
    lock = _lock.dump(as_lock(web))
    assert call(containerd, check=True, lock=lock)["changed"]
    assert call(containerd, check=True, lock=lock, known=store.known(app, web))["failed"]


def test_jitter_waits_before_a_pull_only(
    call: Call, classic: EngineStub, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []
    monkeypatch.setattr(_pull_run.time, "sleep", waited.append)
    classic.serve(store.image("app:1", "a"))
    call(classic, check=True, images=["app:1"], jitter=60)
    assert waited == []
    call(classic, images=["app:1"], jitter=60)
    assert len(waited) == 1
    assert 0 <= waited[0] <= 60
    call(classic, images=["app:1"], jitter=60)
    assert len(waited) == 1
