# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The store stays small and whole: what is cleared away and what never is, and damaged blobs."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fetching
import pytest
from fetching import Fetch, Json, check_store, files, one
from images import AMD64, LAYER, Store
from registry_stub import RegistryStub, digest_of, layer_of

from ansible_collections.fleet.images.plugins.module_utils import (
    _export,
    _local,
    _lock,
    _relay_config,
    _sweep,
)
from ansible_collections.fleet.images.plugins.module_utils._layout import Layout, LayoutError
from ansible_collections.fleet.images.plugins.module_utils._lock import (
    Layer,
    LockedImage,
    LockError,
)

pytest.importorskip("requests")
pytest.importorskip("docker")


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))


@pytest.fixture
def stub() -> Iterator[RegistryStub]:
    with RegistryStub() as running:
        yield running


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def fetch(store: Path) -> Fetch:
    return fetching.into(store)


def layer(seed: str) -> str:
    return digest_of(layer_of(seed)[0])


def has(store: Path, *seeds: str) -> str:
    """Those of the layers that the store has."""
    return "".join(seed for seed in seeds if Layout(store).has(layer(seed)))


def removed(result: Json) -> tuple[int, int]:
    return result["removed_blobs"], result["removed_bytes"]


# What goes, and what stays


def test_an_update_leaves_nothing_behind_but_small_documents(
    stub: RegistryStub, fetch: Fetch, store: Path
) -> None:
    """The former manifests stay, since they tell what Engines out there have."""
    stub.add_index("web:1", {"linux/amd64": ["a", "b"]})
    name = f"{stub.name}/web:1"
    (old,) = fetch(name)["lock"]["images"][name]["platforms"].values()
    stub.add_index("web:1", {"linux/amd64": ["a", "c"]})
    before = files(store)
    planned = fetch(name, keep=[], check=True)
    assert files(store) == before
    done = fetch(name, keep=[])
    gone = [old["config"]["digest"], layer("b")]
    sizes = sum(len(before[f"blobs/sha256/{digest[7:]}"]) for digest in gone)
    assert removed(planned) == removed(done) == (2, sizes)
    assert planned["changed"] and planned["diff"] == done["diff"]
    assert done["diff"]["before"]["blobs that nobody needs"] == f"2 ({sizes} bytes)"
    assert ", blobs to be removed: 2 (" in planned["msg"]
    assert ", blobs removed: 2 (" in done["msg"]
    assert has(store, "a", "b", "c") == "ac"
    assert [one["digest"] for one in done["known"]].count(old["manifest"]["digest"]) == 1
    check_store(store)
    for check in (True, False):
        again = fetch(name, keep=[], check=check)
        assert not again["changed"] and removed(again) == (0, 0)
    assert again["known"] == done["known"]


def test_names_of_images_that_are_gone_go(stub: RegistryStub, fetch: Fetch, store: Path) -> None:
    for name in ("a:1", "b:1"):
        stub.add_image(name, ["base", name[0]])
    names = [f"{stub.name}/a:1", f"{stub.name}/b:1"]
    old = fetch(*names)["lock"]["images"][names[0]]
    planned, done = fetch(names[1], keep=[], check=True), fetch(names[1], keep=[])
    assert planned["diff"] == done["diff"]
    assert done["changed"] and done["diff"]["before"][names[0]] == old["digest"]
    assert names[0] not in done["diff"]["after"]
    entries = {entry["digest"]: entry.get("annotations") for entry in Layout(store).names()}
    assert entries[old["digest"]] is None and len(entries) == 2
    # Its config stays: without an index only that tells its platform.
    assert has(store, "a", "b") == "b" and old["digest"] in str(done["known"])


def test_relays_that_runs_have_left_go(stub: RegistryStub, fetch: Fetch, store: Path) -> None:
    """Not those that were started without a lease, which somebody wants to stay."""
    stub.add_image("a:1", ["a"])
    fetch(f"{stub.name}/a:1")
    for name, lease in (("left", "run"), ("kept", "")):
        directory = store / ".relay" / name
        directory.mkdir(parents=True)
        _relay_config.mark(directory, {"lease": lease, "pid": 0})
    for check in (True, False):
        result = fetch(f"{stub.name}/a:1", keep=[], check=check)
        assert result["changed"] and result["removed_relays"] == ["left"]
        assert result["diff"]["before"]["relays of runs that are over"] == "left"
        assert (store / ".relay" / "left").exists() is check
    assert fetch(f"{stub.name}/a:1", keep=[])["removed_relays"] == []
    assert (store / ".relay" / "kept").exists()


def test_nothing_goes_unless_it_is_asked_for(stub: RegistryStub, fetch: Fetch, store: Path) -> None:
    stub.add_image("a:1", ["a"])
    stub.add_image("b:1", ["b"])
    fetch(f"{stub.name}/a:1")
    assert "removed_blobs" not in fetch(f"{stub.name}/b:1")
    assert has(store, "a", "b") == "ab"


def test_blobs_of_other_locks_stay(
    stub: RegistryStub, fetch: Fetch, store: Path, tmp_path: Path
) -> None:
    for seed in "abcde":
        stub.add_image(f"{seed}:1", [seed])
    path, own = tmp_path / "other.json", tmp_path / "own.json"
    path.write_text(json.dumps(fetch(f"{stub.name}/a:1")["lock"]))
    content = fetch(f"{stub.name}/b:1")["lock"]
    fetch(f"{stub.name}/c:1", lock_path=str(own))
    fetch(f"{stub.name}/e:1")
    keep = [str(path), content]
    fetch(f"{stub.name}/d:1", lock_path=str(own), keep=keep)
    assert has(store, *"abcde") == "abcd", "the rest of the run's own lock stays too"
    assert removed(fetch(f"{stub.name}/d:1", lock_path=str(own), keep=keep)) == (0, 0)


def test_a_lock_that_is_not_there_removes_nothing(
    stub: RegistryStub, fetch: Fetch, store: Path, tmp_path: Path
) -> None:
    with pytest.raises(LockError, match=r"wanted the lock file .*none\.json, there is none"):
        fetch(f"{stub.name}/a:1", keep=[str(tmp_path / "none.json")])
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(LockError, match=r"bad\.json: the lock: wanted version 1"):
        fetch(f"{stub.name}/a:1", keep=[str(tmp_path / "bad.json")])


def test_a_failed_image_removes_nothing(stub: RegistryStub, fetch: Fetch, store: Path) -> None:
    stub.add_image("a:1", ["a"])
    fetch(f"{stub.name}/a:1")
    for check in (True, False):
        result = fetch(f"{stub.name}/none:1", keep=[], check=check)
        assert result["failed"] and removed(result) == (0, 0)
    assert has(store, "a") == "a"


def test_what_is_half_there_goes_where_nobody_wants_it(
    stub: RegistryStub, fetch: Fetch, store: Path
) -> None:
    stub.add_image("a:1", ["a"])
    layout = Layout(store)
    layout.create()
    blobs = store / "blobs" / "sha256"
    (blobs / f".{layer('z')[7:]}.part").write_bytes(b"half")
    (blobs / f".{layer('a')[7:]}.part").write_bytes(layer_of("a")[0][:1000])
    (blobs / f".{layer('y')[7:]}.77.88.tmp").write_bytes(b"document")
    (blobs / "README").write_bytes(b"somebody's")
    planned, done = (fetch(f"{stub.name}/a:1", keep=[], check=check) for check in (True, False))
    assert removed(planned) == removed(done) == (2, 12)
    assert stub.asked(layer("a"))[0].headers["Range"] == "bytes=1000-"
    left = {path.name for path in blobs.iterdir()}
    assert len(left) == 4 and "README" in left


def test_notes_of_layers_that_are_gone_go(stub: RegistryStub, fetch: Fetch, store: Path) -> None:
    for seed in "ab":
        stub.add_image(f"{seed}:1", [seed])
        fetch(f"{stub.name}/{seed}:1")
    notes = store / "diff-ids" / "sha256"
    assert {path.name for path in notes.iterdir()} == {layer_of(one)[1][7:] for one in "ab"}
    fetch(f"{stub.name}/b:1", keep=[])
    assert {path.name for path in notes.iterdir()} == {layer_of("b")[1][7:]}


# Others who use the store


def test_nothing_goes_while_another_run_uses_the_store(
    stub: RegistryStub, fetch: Fetch, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_sweep, "PATIENCE", 0.2)
    for seed in "ab":
        stub.add_image(f"{seed}:1", [seed])
    fetch(f"{stub.name}/a:1")
    with Layout(store).using():
        result = fetch(f"{stub.name}/b:1", keep=[])
    assert not result.get("failed") and removed(result) == (0, 0)
    assert result["msg"].endswith("nothing removed: another run uses the store")
    assert has(store, "a", "b") == "ab"
    assert removed(fetch(f"{stub.name}/b:1", keep=[]))[0] > 0


def test_it_waits_a_little_for_the_other_run(stub: RegistryStub, fetch: Fetch, store: Path) -> None:
    for seed in "ab":
        stub.add_image(f"{seed}:1", [seed])
    fetch(f"{stub.name}/a:1")
    there, leave = threading.Event(), threading.Event()

    def use() -> None:
        with Layout(store).using():
            there.set()
            leave.wait(10)

    other = threading.Thread(target=use)
    other.start()
    there.wait(10)
    threading.Timer(0.3, leave.set).start()
    assert removed(fetch(f"{stub.name}/b:1", keep=[]))[0] > 0
    other.join()


def test_two_may_use_the_store_and_none_is_alone_meanwhile(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    with layout.using(), layout.using(), layout.alone(0) as alone:
        assert not alone
    with layout.alone(0) as alone, layout.alone(0) as another:
        assert alone and not another
    with Layout(tmp_path / "none").using(), Layout(tmp_path / "none").alone(0) as alone:
        assert alone, "what is not there is in nobody's way"


def test_a_lease_keeps_blobs_between_the_tasks_of_a_run(
    stub: RegistryStub, fetch: Fetch, store: Path
) -> None:
    for seed in "ab":
        stub.add_image(f"{seed}:1", [seed])
    fetch(f"{stub.name}/a:1", lease="run-7", check=True)
    assert not store.exists()
    fetch(f"{stub.name}/a:1", lease="run-7")
    for check in (True, False):
        assert removed(fetch(f"{stub.name}/b:1", keep=[], check=check)) == (0, 0)
    (store / ".leases" / "run-7").unlink()
    assert removed(fetch(f"{stub.name}/b:1", keep=[]))[0] > 0
    assert has(store, "a", "b") == "b"


def test_an_old_lease_keeps_nothing(stub: RegistryStub, fetch: Fetch, store: Path) -> None:
    for seed in "ab":
        stub.add_image(f"{seed}:1", [seed])
    fetch(f"{stub.name}/a:1", lease="broken")
    path = store / ".leases" / "broken"
    (path.parent / "no json").write_text("?")
    yesterday = time.time() - _sweep.LEASE - 60
    os.utime(path, (yesterday, yesterday))
    assert removed(fetch(f"{stub.name}/b:1", keep=[]))[0] > 0
    assert has(store, "a", "b") == "b" and not path.exists()


@pytest.mark.parametrize("name", ["../x", "a/b", ".", "..", "", "x" * 200])
def test_a_lease_is_a_plain_file(tmp_path: Path, name: str) -> None:
    with pytest.raises(LayoutError, match="choose another name"):
        _sweep.lease(Layout(tmp_path), name, [])


# Damaged blobs


def spoil(store: Path, digest: str, cut: bool = False) -> None:
    path = Layout(store).path(digest)
    path.write_bytes(bytes(path.stat().st_size - cut))


def test_a_damaged_layer_is_found_and_fetched_anew(
    stub: RegistryStub, fetch: Fetch, store: Path
) -> None:
    stub.add_image("a:1", ["a", "b"])
    stub.add_image("b:1", ["b", "c"])
    names = [f"{stub.name}/a:1", f"{stub.name}/b:1"]
    locked = fetch(*names)["lock"]
    good = files(store)
    spoil(store, layer("b"))
    assert not fetch(lock=locked)["changed"], "not read unless that is asked for"
    bad = files(store)
    planned = fetch(lock=locked, verify=True, check=True)
    assert files(store) == bad
    mended = fetch(lock=locked, verify=True)
    for result in (planned, mended):
        assert result["changed"] and result["bytes_fetched"] == len(layer_of("b")[0])
        for image in result["images"]:
            assert image["action"] == "fetched"
            assert image["reason"] == f"damaged in the store: {layer('b')}"
    assert files(store) == good
    assert not fetch(lock=locked, verify=True)["changed"]


def test_a_layer_of_another_size_is_always_fetched_anew(
    stub: RegistryStub, fetch: Fetch, store: Path
) -> None:
    stub.add_image("a:1", ["a"])
    locked = fetch(f"{stub.name}/a:1")["lock"]
    spoil(store, layer("a"), cut=True)
    for check in (True, False):
        result = fetch(lock=locked, check=check)
        assert one(result)["reason"] == f"damaged in the store: {layer('a')}"
        assert result["bytes_fetched"] == len(layer_of("a")[0])
    check_store(store)


def test_a_damaged_blob_that_cannot_be_fetched_is_told(
    stub: RegistryStub, fetch: Fetch, store: Path
) -> None:
    stub.add_image("a:1", ["a"])
    locked = fetch(f"{stub.name}/a:1")["lock"]
    spoil(store, layer("a"))
    stub.fault(layer("a"), status=404, times=9)
    result = fetch(lock=locked, verify=True)
    assert result["failed"] and layer("a") in result["msg"]
    assert has(store, "a") == "", "what is damaged is nobody's"


# Images of the local Engine


class FakeExport:
    """In place of `_export.take`: images that were made beforehand, put into the store."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, store: Path, beside: Path) -> None:
        self.made = Store.at(beside)
        self.layout = Layout(store)
        self.images: dict[str, LockedImage] = {}
        self.asked: list[_export.Wanted] = []
        monkeypatch.setattr(_local._export, "take", self.take)

    def add(self, name: str, *seeds: str) -> LockedImage:
        image = self.made.image(name, *seeds)
        self.images[image.name] = image
        return image

    def take(self, engine: Any, layout: Layout, wanted: Any, dry_run: bool = False) -> Any:
        self.asked += wanted
        return {one.key: self._take(one.key, dry_run) for one in wanted}

    def _take(self, key: str, dry_run: bool) -> _export.Taken:
        image = self.images.get(key)
        if image is None:
            return _export.Taken(problem=f"{key}: wanted from the Engine, which has no such image")
        blobs = [blob for blob in image.all_blobs.values() if not self.layout.has(blob.digest)]
        if not dry_run:
            for blob in blobs:
                self.layout.put(self.made.layout.read(blob.digest))
        return _export.Taken(image, bool(blobs), sum(blob.size for blob in blobs))


@pytest.fixture
def export(monkeypatch: pytest.MonkeyPatch, store: Path, tmp_path: Path) -> FakeExport:
    return FakeExport(monkeypatch, store, tmp_path / "made")


def engine() -> Any:
    return object()


def test_an_image_of_the_engine(
    stub: RegistryStub, fetch: Fetch, store: Path, export: FakeExport
) -> None:
    image = export.add(f"{stub.name}/app:1", "a", "b")
    planned = fetch(image.name, source="daemon", connect=engine, check=True)
    assert not store.exists()
    done = fetch(image.name, source="daemon", connect=engine)
    for result in (planned, done):
        assert result["changed"] and one(result)["action"] == "fetched"
        assert one(result)["source"] == "daemon"
        assert result["bytes_fetched"] == sum(blob.size for blob in image.blobs(AMD64))
    assert planned["lock"] == done["lock"] and done["bytes_reused"] == 0
    assert _lock.load(done["lock"]) == {image.name: image}
    assert export.asked[0].platforms == (), "the Engine's own platform"
    again = fetch(image.name, source="daemon", connect=engine)
    assert not again["changed"] and again["bytes_reused"] == done["bytes_fetched"]
    assert stub.seen == [], "no registry is asked"


def test_a_pinned_image_that_the_store_has_needs_no_engine(
    stub: RegistryStub, fetch: Fetch, export: FakeExport
) -> None:
    image = export.add("app:1", "a")
    locked = fetch(image.name, source="daemon", connect=engine)["lock"]
    for source in ("daemon", "auto"):
        again = fetch(lock=locked, source=source)
        assert not again["changed"] and again["lock"] == locked
    assert "nowhere" in fetch(lock=locked, source="daemon", update=True)["msg"]
    assert "nowhere" in fetch(lock=locked, source="daemon", platform="linux/arm64")["msg"]


def test_a_pin_holds_for_the_engine_too(fetch: Fetch, export: FakeExport) -> None:
    old = export.add("app:1", "a")
    locked = fetch(old.name, source="daemon", connect=engine)["lock"]
    new = export.add("app:1", "b")
    export.layout.discard(old.on(AMD64).layers[0].digest)
    refused = fetch(lock=locked, source="daemon", connect=engine)
    reason = one(refused)["reason"]
    assert refused["failed"] and refused["lock"]["images"] == {}
    wanted, found = old.target.digest, new.target.digest
    assert f"wanted {wanted}, the Engine's image is {found} in the store" in reason
    taken = fetch(lock=locked, source="daemon", connect=engine, update=True)
    assert one(taken)["digest"] == new.target.digest


def test_auto_takes_the_registry_where_it_answers(
    stub: RegistryStub, fetch: Fetch, export: FakeExport
) -> None:
    stub.add_image("web:1", ["w"])
    app = export.add(f"{stub.name}/app:1", "a")
    export.add(f"{stub.name}/web:1", "x")
    names = [f"{stub.name}/web:1", app.name, f"{stub.name}/none:1"]
    planned = fetch(*names, source="auto", connect=engine, check=True)
    done = fetch(*names, source="auto", connect=engine)
    for result in (planned, done):
        told = {image["name"]: (image["source"], image["action"]) for image in result["images"]}
        assert told[names[0]] == ("registry", "fetched")
        assert told[names[1]] == ("daemon", "fetched")
        assert told[names[2]] == ("daemon", "failed")
        reason = result["images"][2]["reason"]
        assert "is not there" in reason and "which has no such image" in reason
    assert planned["bytes_fetched"] == done["bytes_fetched"]
    assert planned["lock"] == done["lock"]


def test_a_layer_that_comes_from_the_engine_is_not_fetched_as_well(
    stub: RegistryStub, fetch: Fetch, export: FakeExport
) -> None:
    stub.add_image("web:1", ["w"])
    content, diff_id = layer_of("w")
    blob = export.made.put(content, LAYER)
    made = export.made.image_of((Layer(blob.digest, blob.size, LAYER, diff_id),))
    app = LockedImage(f"{stub.name}/app:1", made.manifest, {AMD64: made})
    export.images[app.name] = app
    names = (f"{stub.name}/web:1", app.name)
    planned = fetch(*names, source="auto", connect=engine, check=True)
    done = fetch(*names, source="auto", connect=engine)
    assert planned["bytes_fetched"] == done["bytes_fetched"]
    assert stub.asked(layer("w")) == []


def test_without_an_engine_both_reasons_are_told(stub: RegistryStub, fetch: Fetch) -> None:
    reason = one(fetch(f"{stub.name}/none:1", source="auto"))["reason"]
    assert "is not there" in reason and "the Engine at nowhere" in reason


def test_a_damaged_layer_of_the_engines_image_is_taken_anew(
    fetch: Fetch, store: Path, export: FakeExport
) -> None:
    image = export.add("app:1", "a")
    fetch(image.name, source="daemon", connect=engine)
    bad = image.on(AMD64).layers[0].digest
    spoil(store, bad)
    for check in (True, False):
        result = fetch(image.name, source="daemon", connect=engine, verify=True, check=check)
        assert result["changed"] and one(result)["reason"] == f"damaged in the store: {bad}"
    check_store(store)
