# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""image_plan, image_archive and image_load as modules: make, repeat, change, foresee, fail."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytest.importorskip("ansible.module_utils.basic")
pytest.importorskip("docker")

from engine_stub import EngineStub
from images import AMD64, Store, as_lock, layer

from ansible_collections.fleet.images.plugins.module_utils import _lock
from ansible_collections.fleet.images.plugins.module_utils._lock import LockedImage
from ansible_collections.fleet.images.plugins.modules import image_archive, image_load, image_plan

APP, WEB = "docker.io/library/app:1", "docker.io/library/web:1"
Call = Callable[..., "dict[str, Any]"]


@pytest.fixture(autouse=True)
def _own_home(no_pack: None, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOST", "TLS", "TLS_VERIFY", "TLS_HOSTNAME", "API_VERSION", "TIMEOUT"):
        monkeypatch.delenv(f"DOCKER_{name}", raising=False)


@pytest.fixture
def call(run_main: Call, tmp_path: Path) -> Call:
    """Runs a module's main() and returns its result, `rc` among it."""

    def run(module: ModuleType, check: bool = False, **arguments: Any) -> dict[str, Any]:
        own = {"_ansible_check_mode": check, "_ansible_remote_tmp": str(tmp_path)}
        result = run_main(module, {**own, **arguments})
        assert result["msg"]
        assert bool(result["rc"]) == bool(result.get("failed"))
        return result

    return run


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.at(tmp_path / "store")


def lock_of(*images: LockedImage) -> dict[str, Any]:
    return _lock.dump(as_lock(*images))


def layers_of(image: LockedImage) -> list[str]:
    return [one.digest for one in image.on(AMD64).layers]


def changes(stub: EngineStub) -> list[str]:
    return [line for line in stub.seen if not line.startswith("GET ")]


# image_plan


def plan(call: Call, stub: EngineStub, *images: LockedImage, **options: Any) -> dict[str, Any]:
    return call(image_plan, docker_host=stub.url, lock=lock_of(*images), **options)


@pytest.mark.parametrize("check", [True, False])
def test_plan_tells_what_is_lacking(
    call: Call, stub: EngineStub, store: Store, check: bool
) -> None:
    app, web = store.image("app:1", "a", "b"), store.image("web:1", "a", "c")
    former = store.image("app:1", "a")
    stub.hold(former)
    known = store.known(former, app, web)
    result = plan(call, stub, app, web, known=known, check=check)
    assert not result["changed"]
    assert result["msg"].startswith("2 of 2 images to load, ")
    assert [(one["name"], one["state"]) for one in result["images"]] == [
        (APP, "stale"),
        (WEB, "missing"),
    ]
    lacking = [one for image in (app, web) for one in image.blobs(AMD64)]
    wanted = {blob.digest: blob.size for blob in lacking if blob.digest != layers_of(app)[0]}
    assert result["blobs"] == sorted(wanted)
    assert result["bytes"] == sum(wanted.values())
    assert len(result["plan_id"]) == 16
    assert result["engine"]["version"] == stub.version
    assert result["diff"]["after"].count("\n") == 2
    assert changes(stub) == []


def test_plan_goes_on_and_then_fails(call: Call, stub: EngineStub, store: Store) -> None:
    arm, web = store.index("app:1", arm64=["a"]), store.image("web:1", "b")
    result = plan(call, stub, arm, web)
    assert result["failed"]
    assert result["msg"] == (
        f"{APP}: wanted for linux/amd64, the lock has linux/arm64; fetch it with"
        " platforms: [linux/amd64]"
    )
    assert [(one["name"], one["action"]) for one in result["images"]] == [
        (APP, "failed"),
        (WEB, "loaded"),
    ]
    alone = plan(call, stub, web)
    for found in (result, alone):
        found["engine"].pop("free")  # of a disk that others write to
    for key in ("plan_id", "blobs", "bytes", "save_bytes", "engine", "diff"):
        assert result[key] == alone[key]


def test_plan_of_what_is_there(call: Call, stub: EngineStub, store: Store) -> None:
    app = store.image("app:1", "a")
    stub.hold(app)
    result = plan(call, stub, app)
    assert [one["action"] for one in result["images"]] == ["none"]
    assert (result["plan_id"], result["blobs"], result["bytes"]) == ("", [], 0)
    assert result["save_bytes"] > 0
    assert result["diff"] == {"before": "", "after": ""}


def test_plan_of_some_images_and_a_lock_file(
    call: Call, stub: EngineStub, store: Store, tmp_path: Path
) -> None:
    app, web = store.image("app:1", "a"), store.image("web:1", "b")
    path = tmp_path / "images.lock.json"
    path.write_text(_lock.dumps(as_lock(app, web)))
    result = call(image_plan, docker_host=stub.url, lock_path=str(path), images=["web:1"])
    assert [one["lock_name"] for one in result["images"]] == [WEB]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"lock": {"version": 2}}, "the lock: wanted version 1"),
        ({"lock": {"version": 1, "images": {}}, "images": ["app:1"]}, "is not in the lock"),
        ({"lock": {"version": 1, "images": {}}, "images": ["No Image"]}, "is no image reference"),
        ({"lock": {"version": 1, "images": {}}, "images": [5]}, "is no image"),
        ({"lock_path": "/nowhere/images.lock.json"}, "No such file"),
        ({}, "lock, lock_path"),
        ({"lock": {}, "lock_path": "x"}, "mutually exclusive"),
    ],
)
def test_plan_says_what_is_wrong(
    call: Call, stub: EngineStub, options: dict[str, Any], said: str
) -> None:
    assert said in call(image_plan, docker_host=stub.url, **options)["msg"]


@pytest.mark.parametrize("content", [b"", b"\xff\xfe{", b"[" * 100_000, b"{}"])
def test_a_lock_file_that_is_none(
    call: Call, stub: EngineStub, tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "images.lock.json"
    path.write_bytes(content)
    result = call(image_plan, docker_host=stub.url, lock_path=str(path))
    assert result["msg"].startswith(f"{path}: the lock")


@pytest.mark.parametrize("module", [image_plan, image_load], ids=["image_plan", "image_load"])
def test_an_engine_that_is_down(call: Call, tmp_path: Path, module: ModuleType) -> None:
    src = {"src": str(tmp_path / "b.tar")} if module is image_load else {}
    result = call(module, docker_host=f"unix://{tmp_path}/no.sock", lock=lock_of(), **src)
    assert "no.sock: wanted an answer" in result["msg"]


# image_archive


def archive(call: Call, store: Store, *images: LockedImage, **options: Any) -> dict[str, Any]:
    where = {"store": str(store.layout.root), "lock": lock_of(*images), "platform": AMD64}
    return call(image_archive, **{**where, **options})


def test_archive_is_written_once(call: Call, store: Store, tmp_path: Path) -> None:
    app, web = store.image("app:1", "a", "b"), store.image("web:1", "a")
    path = tmp_path / "new" / "b.tar"
    first = archive(call, store, app, web, path=str(path))
    content = path.read_bytes()
    assert first["changed"]
    assert first["bundles"] == [
        {
            "path": str(path),
            "changed": True,
            "bytes": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
            "files": [str(path)],
            "file_sha256": [hashlib.sha256(content).hexdigest()],
            "images": [APP, WEB],
            "left_out": 0,
        }
    ]
    assert [(one["name"], one["action"]) for one in first["images"]] == [
        (APP, "archived"),
        (WEB, "archived"),
    ]
    assert first["diff"]["after"] == f"{path}: {len(content)} bytes\n"
    inode = path.stat().st_ino
    again = archive(call, store, app, web, path=str(path))
    assert (again["changed"], path.stat().st_ino) == (False, inode)
    assert again["bundles"] == [{**first["bundles"][0], "changed": False}]
    assert {one["action"] for one in again["images"]} == {"none"}
    assert again["diff"]["after"] == ""
    other = archive(call, store, app, path=str(path))
    assert other["changed"]
    assert path.read_bytes() != content


def test_archive_in_check_mode_writes_nothing(call: Call, store: Store, tmp_path: Path) -> None:
    app = store.image("app:1", "a")
    path = tmp_path / "new" / "b.tar"
    foreseen = archive(call, store, app, path=str(path), check=True)
    assert foreseen["changed"]
    assert not path.parent.exists()
    assert foreseen["bundles"][0]["sha256"] == ""
    done = archive(call, store, app, path=str(path))
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    assert done["bundles"] == [{**foreseen["bundles"][0], "sha256": found, "file_sha256": [found]}]
    assert done["diff"] == foreseen["diff"]
    assert not archive(call, store, app, path=str(path), check=True)["changed"]


def test_archive_is_foreseen_from_the_lock_alone(call: Call, store: Store, tmp_path: Path) -> None:
    """As after a fetch in check mode, which fetched nothing."""
    app = store.image("app:1", "a", "b")
    web = store.index("web:1", amd64=["a", "c"], arm64=["d"])
    bundles = [
        {"path": str(tmp_path / "1.tar"), "platform": AMD64},
        {"path": str(tmp_path / "2.tar"), "blobs": layers_of(web)[1:], "platform": AMD64},
    ]
    nothing = str(tmp_path / "no store")
    options = {"store": nothing, "lock": lock_of(app, web), "bundles": bundles}
    foreseen = call(image_archive, check=True, **options)
    done = archive(call, store, app, web, bundles=bundles)
    assert foreseen["bundles"] == [
        {**one, "sha256": "", "file_sha256": []} for one in done["bundles"]
    ]
    assert foreseen["diff"] == done["diff"]
    assert [Path(one["path"]).stat().st_size for one in bundles] == [
        one["bytes"] for one in foreseen["bundles"]
    ]
    assert not (tmp_path / "no store").exists()


@pytest.mark.parametrize("kept", [0, 1, 2])
def test_archive_leaves_out_what_is_not_asked_for(
    call: Call, store: Store, tmp_path: Path, kept: int
) -> None:
    app = store.image("app:1", "a", "b")
    blobs = layers_of(app)[:kept]
    result = archive(call, store, app, path=str(tmp_path / "b.tar"), blobs=blobs)
    left_out = sum(one.size for one in app.on(AMD64).layers[kept:])
    assert result["bundles"][0]["left_out"] == left_out
    content = (tmp_path / "b.tar").read_bytes()
    assert [content.count(f"blobs/sha256/{one[7:]}\0".encode()) for one in layers_of(app)] == [
        1 if one in blobs else 0 for one in layers_of(app)
    ]


def test_several_archives_and_one_that_cannot_be_written(
    call: Call, store: Store, tmp_path: Path
) -> None:
    app, web = store.image("app:1", "a"), store.image("web:1", "b")
    store.layout.path(layers_of(web)[0]).unlink()
    bundles: list[dict[str, Any]] = [
        {"path": str(tmp_path / "1.tar"), "images": ["web:1"], "platform": AMD64},
        {"path": str(tmp_path / "2.tar"), "images": ["app:1"], "platform": "x86_64"},
        {"path": str(tmp_path / "3.tar"), "images": ["app:1"], "platform": "linux/arm64"},
    ]
    result = archive(call, store, app, web, platform=None, bundles=bundles)
    assert result["failed"]
    assert result["changed"]  # true to what was done
    assert [one["path"] for one in result["bundles"]] == [str(tmp_path / "2.tar")]
    assert [one["path"] for one in result["failed_bundles"]] == [
        str(tmp_path / name) for name in ("1.tar", "3.tar")
    ]
    assert f"1.tar: blob {layers_of(web)[0]}: wanted" in result["msg"]
    assert f"{APP}: wanted for linux/arm64, the lock has linux/amd64" in result["msg"]
    assert sorted(path.name for path in tmp_path.glob("*.tar")) == ["2.tar"]


def test_no_bundles_are_no_work(call: Call, store: Store) -> None:
    result = archive(call, store, store.image("app:1", "a"), bundles=[])
    assert (result["changed"], result["bundles"], result["images"]) == (False, [], [])


def test_archive_of_a_damaged_store(call: Call, store: Store, tmp_path: Path) -> None:
    app = store.image("app:1", "a")
    blob = store.layout.path(layers_of(app)[0])
    content = bytearray(blob.read_bytes())
    content[-1] ^= 1
    blob.write_bytes(content)
    result = archive(call, store, app, path=str(tmp_path / "b.tar"))
    assert f"{blob} holds other content" in result["msg"]
    assert result["failed_bundles"][0]["damaged"] == layers_of(app)[:1]
    assert not blob.exists()
    assert not result["changed"]
    assert list(tmp_path.glob("*.tar")) == list(tmp_path.glob(".*.tmp")) == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "one of the following is required: path, bundles"),
        ({"path": "x", "bundles": []}, "mutually exclusive: path|bundles"),
        ({"path": "x", "lock": None, "source": "store"}, "wants a store, and a lock or lock_path"),
        ({"path": "x", "source": "daemon"}, "a lock selects from a store: leave it out"),
        ({"path": "x", "lock": None}, "no image is named; name them in images"),
        ({"path": "x", "split_size": "0"}, "split_size: wanted at least 1 byte, found '0'"),
        ({"path": "x", "checksum": True, "controller_dir": "x"}, "mutually exclusive: controller"),
    ],
)
def test_archive_wants_a_path_and_a_lock(
    call: Call, store: Store, options: dict[str, Any], said: str
) -> None:
    assert said in archive(call, store, **options)["msg"]


# image_load


def load(call: Call, stub: EngineStub, src: Path, **options: Any) -> dict[str, Any]:
    return call(image_load, docker_host=stub.url, src=str(src), remote_src=True, **options)


def test_load_and_again_and_the_next_version(
    call: Call, stub: EngineStub, store: Store, tmp_path: Path
) -> None:
    one, two = store.image("app:1", "a", "b"), store.image("app:1", "a", "c")
    known = store.known(one, two)
    bundle = store.bundle(tmp_path / "1.tar", one)
    first = load(call, stub, bundle, lock=lock_of(one), known=known)
    assert (first["changed"], first["images"][0]["action"]) == (True, "loaded")
    assert first["msg"].startswith("1 of 1 images loaded, ")
    assert first["diff"]["before"] == ""
    former = stub.tags[APP]
    assert first["images"][0]["id"] == former
    again = load(call, stub, bundle, lock=lock_of(one), known=known)
    assert (again["changed"], again["images"][0]["action"], again["bytes"]) == (False, "none", 0)
    assert len(stub.uploads) == 1
    thin = store.bundle(tmp_path / "2.tar", two, without=layers_of(one))
    third = load(call, stub, thin, lock=lock_of(two), known=known)
    assert third["changed"]
    assert third["diff"] == {"before": f"{APP}: {former}\n", "after": f"{APP}: {stub.tags[APP]}\n"}
    assert 0 < third["bytes"] < first["bytes"]


def test_load_in_check_mode(call: Call, stub: EngineStub, store: Store, tmp_path: Path) -> None:
    app = store.image("app:1", "a")
    bundle = store.bundle(tmp_path / "b.tar", app)
    foreseen = load(call, stub, bundle, lock=lock_of(app), check=True)
    assert foreseen["changed"]
    assert changes(stub) == []
    done = load(call, stub, bundle, lock=lock_of(app))
    assert {**done, "seconds": 0, "images": 0} == {**foreseen, "seconds": 0, "images": 0}
    assert not load(call, stub, bundle, lock=lock_of(app), check=True)["changed"]


def test_load_without_a_lock_takes_the_bundles_own(
    call: Call, stub: EngineStub, store: Store, tmp_path: Path
) -> None:
    app, web = store.image("app:1", "a"), store.index("web:1", amd64=["b"], arm64=["c"])
    bundle = store.bundle(tmp_path / "b.tar", app, web)
    assert load(call, stub, bundle)["changed"]
    assert set(stub.tags) == {APP, WEB}


def test_load_of_some_images(call: Call, stub: EngineStub, store: Store, tmp_path: Path) -> None:
    app, web = store.image("app:1", "a"), store.image("web:1", "b")
    bundle = store.bundle(tmp_path / "b.tar", app, web)
    load(call, stub, bundle, images=["web:1"])
    assert set(stub.tags) == {WEB}
    path = tmp_path / "images.lock.json"
    path.write_text(_lock.dumps(as_lock(app, web)))
    result = load(call, stub, bundle, lock_path=str(path))
    assert [one["action"] for one in result["images"]] == ["loaded", "none"]


def test_load_of_parts(call: Call, stub: EngineStub, store: Store, tmp_path: Path) -> None:
    app = store.image("app:1", "a")
    content = store.bundle(tmp_path / "b.tar", app).read_bytes()
    parts = []
    for number in range(0, len(content), 3000):
        path = tmp_path / f"{number:06d}.part"
        path.write_bytes(content[number : number + 3000])
        os.utime(path, (1, 1))
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        parts.append({"path": str(path), "size": path.stat().st_size, "sha256": sha256})
    gone = tmp_path / "gone.tar"  # what `src` names lies on the controller
    assert load(call, stub, gone, parts=parts)["changed"]
    assert set(stub.tags) == {APP}
    wrong = [parts[0], {**parts[1], "sha256": "00"}, *parts[2:]]
    assert "wanted SHA-256 00, found" in load(call, stub, gone, parts=wrong)["msg"]


def _damage(path: Path, how: str) -> None:
    content = bytearray(path.read_bytes())
    if how == "flipped":
        content[content.index(b"\x1f\x8b") + 15] ^= 1
    elif how == "cut":
        del content[-2048:]
    path.write_bytes(b"no archive at all" if how == "junk" else content)


@pytest.mark.parametrize(
    ("how", "options", "said"),
    [
        ("flipped", {}, "holds other content"),
        ("cut", {}, "found a damaged or cut one"),
        ("junk", {}, "found a damaged or cut one"),
        ("", {"sha256": "00"}, "wanted SHA-256 00, found"),
        ("", {"images": ["other:1"]}, "docker.io/library/other:1 is not in the lock"),
        ("", {"lock": lock_of(LockedImage(WEB, layer("t"), {}))}, "wanted for linux/amd64"),
        ("", {"src": "/nowhere/b.tar"}, "No such file"),
    ],
)
def test_a_bundle_that_is_not_right_changes_nothing(
    call: Call, stub: EngineStub, store: Store, tmp_path: Path, how: str, options: Any, said: str
) -> None:
    former, app = store.image("app:1", "x"), store.image("app:1", "a")
    tagged = stub.hold(former).id
    bundle = store.bundle(tmp_path / "b.tar", app)
    _damage(bundle, how)
    options = {"docker_host": stub.url, "src": str(bundle), "remote_src": True, **options}
    result = call(image_load, **options)
    assert said in result["msg"]
    assert not result["changed"]
    assert (stub.tags, set(stub.images)) == ({APP: tagged}, {tagged})


def test_a_bundle_for_another_platform(
    call: Call, stub: EngineStub, store: Store, tmp_path: Path
) -> None:
    image = store.index("app:1", arm64=["a"])
    bundle = store.bundle(tmp_path / "b.tar", image, platform="linux/arm64")
    result = load(call, stub, bundle)
    assert f"{APP}: wanted for linux/amd64, the lock has linux/arm64" in result["msg"]
    assert changes(stub) == []


@pytest.mark.parametrize("check", [True, False])
def test_an_image_for_another_platform_does_not_hide_the_other(
    call: Call, stub: EngineStub, store: Store, tmp_path: Path, check: bool
) -> None:
    arm, web = store.index("app:1", arm64=["a"]), store.image("web:1", "b")
    bundle = store.bundle(tmp_path / "b.tar", web)
    result = load(call, stub, bundle, lock=lock_of(arm, web), check=check)
    assert result["failed"] and result["changed"]
    assert [one["action"] for one in result["images"]] == ["failed", "loaded"]
    assert result["msg"].startswith(f"{APP}: wanted for linux/amd64")
    assert set(stub.tags) == (set() if check else {WEB})


def test_one_failed_image_does_not_hide_the_other(
    call: Call, stub: EngineStub, store: Store, tmp_path: Path
) -> None:
    app, web = store.image("app:1", "a"), store.image("web:1", "b")
    stub.fault("told", words="no space left on device")
    result = load(call, stub, store.bundle(tmp_path / "b.tar", app, web), parallel=1)
    assert result["failed"] and result["changed"]
    assert "no space left on device" in result["msg"]
    assert [one["action"] for one in result["images"]] == ["failed", "loaded"]
    assert (set(stub.tags), stub.nameless) == ({WEB}, set())


def test_no_space(
    call: Call, stub: EngineStub, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ansible_collections.fleet.images.plugins.module_utils import _engine

    monkeypatch.setattr(_engine, "_free", lambda path: 100)
    result = load(call, stub, store.bundle(tmp_path / "b.tar", store.image("app:1", "a")))
    assert "bytes are wanted free for the load, 100 are" in result["msg"]
    assert changes(stub) == []


def test_where_the_engine_is_comes_from_the_environment(
    call: Call, stub: EngineStub, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", stub.url)
    result = call(image_plan, lock=lock_of(store.image("app:1", "a")))
    assert result["engine"]["version"] == stub.version
