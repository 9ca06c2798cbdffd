# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Images from registries into the store: create, repeat, change, update, and what goes wrong."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fetching
import pytest
from fetching import Fetch, Json, check_store, files, one
from hypothesis import given
from hypothesis import strategies as st
from registry_stub import OCI_INDEX, OCI_MANIFEST, RegistryStub, digest_of, layer_of

from ansible_collections.fleet.images.plugins.module_utils import _documents, _fetch, _lock
from ansible_collections.fleet.images.plugins.module_utils._layout import (
    Layout,
    LayoutError,
    write_atomically,
)
from ansible_collections.fleet.images.plugins.module_utils._registry import (
    RegistryError,
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
    return tmp_path / "deep" / "store"


@pytest.fixture
def fetch(store: Path) -> Fetch:
    return fetching.into(store)


# Create, repeat, change


@pytest.mark.parametrize("oci", [True, False])
@pytest.mark.parametrize("is_index", [True, False])
def test_create_repeat_change(
    stub: RegistryStub, fetch: Fetch, store: Path, oci: bool, is_index: bool
) -> None:
    name = f"{stub.name}/shop/web:1"

    def publish(layers: list[str]) -> Json:
        if is_index:
            images = {"linux/amd64": layers, "linux/arm64": ["other"]}
            return stub.add_index("shop/web:1", images, oci)
        return stub.add_image("shop/web:1", layers, oci=oci)

    old = publish(["base", "app"])
    planned = fetch(name, check=True)
    assert not store.exists()
    created = fetch(name)
    check_store(store)
    assert created["changed"] and planned["changed"]
    assert planned["lock"] == created["lock"] and planned["known"] == created["known"]
    assert planned["bytes_fetched"] == created["bytes_fetched"] > 0
    assert one(created)["action"] == one(planned)["action"] == "fetched"
    assert one(created)["digest"] == old["digest"]
    assert Layout(store).read(old["digest"]) == stub.content[old["digest"]]

    before = files(store)
    stub.seen.clear()
    for check in (True, False):
        repeated = fetch(name, check=check)
        assert not repeated["changed"] and one(repeated)["action"] == "none"
        assert repeated["bytes_fetched"] == 0
        assert repeated["bytes_reused"] == created["bytes_fetched"]
        assert repeated["lock"] == created["lock"]
    assert [seen.line for seen in stub.seen if not seen.line.startswith("HEAD")] == []
    assert files(store) == before

    new = publish(["base", "newer app"])
    assert fetch(name, check=True)["changed"] and files(store) == before
    stub.seen.clear()
    changed = fetch(name)
    check_store(store)
    assert changed["changed"] and one(changed)["digest"] == new["digest"]
    assert old["digest"] in one(changed)["reason"]
    assert changed["diff"] == {"before": {name: old["digest"]}, "after": {name: new["digest"]}}
    base = digest_of(layer_of("base")[0])
    assert stub.asked(base) == [], "a layer that is there is not fetched again"
    # What Engines out there may still have: the former manifest, which shares the base.
    assert [entry["blobs"] for entry in changed["known"]].count([base]) == 1


def test_the_lock_is_whole(stub: RegistryStub, fetch: Fetch) -> None:
    index = stub.add_index("web:1", {"linux/amd64": ["a", "b"], "linux/arm64": ["c"]})
    name = f"{stub.name}/web:1"
    image = fetch(name)["lock"]["images"][name]
    assert (image["digest"], image["size"]) == (index["digest"], index["size"])
    assert image["media_type"] == OCI_INDEX
    assert list(image["platforms"]) == ["linux/amd64"]
    layers = image["platforms"]["linux/amd64"]["layers"]
    assert [layer["diff_id"] for layer in layers] == [layer_of("a")[1], layer_of("b")[1]]
    assert [layer["digest"] for layer in layers] == [digest_of(layer_of(one)[0]) for one in "ab"]


def test_only_the_wanted_platforms_are_fetched(
    stub: RegistryStub, fetch: Fetch, store: Path
) -> None:
    stub.add_index("web:1", {"linux/amd64": ["a"], "linux/arm/v7": ["b"], "linux/arm64": ["c"]})
    name = f"{stub.name}/web:1"
    result = fetch(
        {"name": name, "platforms": ["linux/arm64", "linux/arm/v7"]}, platform="linux/386"
    )
    assert sorted(result["lock"]["images"][name]["platforms"]) == ["linux/arm/v7", "linux/arm64"]
    layout = Layout(store)
    found = {seed: layout.has(digest_of(layer_of(seed)[0])) for seed in "abc"}
    assert found == {"a": False, "b": True, "c": True}


def test_a_lower_variant_where_there_is_no_better_one(stub: RegistryStub, fetch: Fetch) -> None:
    stub.add_index("web:1", {"linux/arm/v5": ["5"], "linux/arm/v6": ["6"], "linux/arm64": ["64"]})
    stub.add_image("one:1", ["6"], "linux/arm/v6")
    names = [f"{stub.name}/one:1", f"{stub.name}/web:1"]
    found = fetch(*names, platform="linux/arm/v7")["lock"]["images"]
    for name in names:
        assert list(found[name]["platforms"]) == ["linux/arm/v6"]
    both = [{"name": names[1], "platforms": ["linux/arm/v7", "linux/arm/v6"]}]
    assert list(fetch(*both)["lock"]["images"][names[1]]["platforms"]) == ["linux/arm/v6"]
    refused = fetch(names[1], platform="linux/amd64")
    assert "wanted for linux/amd64, the registry has it for linux/arm/v5" in refused["msg"]


@pytest.mark.parametrize("wanted", [True, False])
def test_attestations_come_along_where_they_are_wanted(
    stub: RegistryStub, fetch: Fetch, store: Path, wanted: bool
) -> None:
    stub.add_index("web:1", {"linux/amd64": ["a"], "linux/arm64": ["b"]})
    name = f"{stub.name}/web:1"
    planned = fetch(name, check=True, attestations=wanted)
    created = fetch(name, attestations=wanted)
    assert (planned["lock"], planned["bytes_fetched"]) == (
        created["lock"],
        created["bytes_fetched"],
    )
    (locked,) = created["lock"]["images"][name]["platforms"].values()
    index = json.loads(stub.content[created["lock"]["images"][name]["digest"]])
    (about,) = [
        entry["digest"]
        for entry in index["manifests"]
        if entry.get("annotations", {}).get("vnd.docker.reference.digest")
        == locked["manifest"]["digest"]
    ]
    if not wanted:
        assert "attestations" not in locked and not Layout(store).has(about)
        return
    manifest = json.loads(stub.content[about])
    blobs = [about, manifest["config"]["digest"], *(one["digest"] for one in manifest["layers"])]
    assert [blob["digest"] for blob in locked["attestations"]] == blobs
    assert all(Layout(store).has(blob["digest"], blob["size"]) for blob in locked["attestations"])
    again = fetch(name, attestations=True)
    assert not again["changed"] and again["bytes_reused"] == created["bytes_fetched"]
    Layout(store).path(blobs[-1]).unlink()
    assert one(fetch(name, attestations=True))["reason"] == "not whole in the store"
    check_store(store)


def test_an_image_without_attestations(stub: RegistryStub, fetch: Fetch) -> None:
    stub.add_image("web:1", ["a"])
    name = f"{stub.name}/web:1"
    assert fetch(name, attestations=True)["lock"] == fetch(name)["lock"]


def test_a_damaged_document_is_fetched_anew(stub: RegistryStub, fetch: Fetch, store: Path) -> None:
    index = stub.add_index("web:1", {"linux/amd64": ["a"]})
    name = f"{stub.name}/web:1"
    locked = fetch(name)["lock"]
    config = locked["images"][name]["platforms"]["linux/amd64"]["config"]["digest"]
    before = files(store)
    for digest in (index["digest"], config):
        path = Layout(store).path(digest)
        path.write_bytes(bytes(path.stat().st_size))
        damaged = files(store)
        planned = fetch(lock=locked, check=True)
        assert planned["changed"] and files(store) == damaged
        mended = fetch(lock=locked)
        assert one(planned)["reason"] == one(mended)["reason"] == f"damaged in the store: {digest}"
        assert planned["bytes_fetched"] == mended["bytes_fetched"] == path.stat().st_size
        assert files(store) == before


def test_the_store_may_be_taken_for_any_oci_layout(
    stub: RegistryStub, fetch: Fetch, store: Path
) -> None:
    image = stub.add_image("web:1", ["a"])
    fetch(f"{stub.name}/web:1")
    assert json.loads((store / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}
    (entry,) = json.loads((store / "index.json").read_text())["manifests"]
    assert (entry["digest"], entry["mediaType"]) == (image["digest"], OCI_MANIFEST)


def test_a_shared_layer_travels_once(stub: RegistryStub, fetch: Fetch) -> None:
    for number in range(5):
        stub.add_image(f"app{number}:1", ["base", f"app {number}"])
    result = fetch(*(f"{stub.name}/app{number}:1" for number in range(5)))
    assert len(stub.asked(digest_of(layer_of("base")[0]))) == 1
    assert {image["action"] for image in result["images"]} == {"fetched"}
    assert result["bytes_fetched"] == sum(image["bytes"] for image in result["images"])


def test_two_names_of_one_image(stub: RegistryStub, fetch: Fetch) -> None:
    stub.add_index("web:1", {"linux/amd64": ["a"]})
    stub.tags["web:2"] = stub.tags["web:1"]
    first = fetch(f"{stub.name}/web:1")
    second = fetch(f"{stub.name}/web:2")
    assert second["changed"] and second["bytes_fetched"] == 0
    assert second["bytes_reused"] == first["bytes_fetched"]
    assert not fetch(f"{stub.name}/web:2", f"{stub.name}/web:1")["changed"]


def test_the_message_counts(stub: RegistryStub, fetch: Fetch) -> None:
    for name in ("a:1", "b:1", "c:1"):
        stub.add_image(name, [name])
    fetch(f"{stub.name}/a:1")
    names = [f"{stub.name}/{name}" for name in ("a:1", "b:1", "c:1")]
    planned, done = fetch(*names, check=True)["msg"], fetch(*names)["msg"]
    assert planned == "images to be fetched: 2 (0.0 MiB), already in the store: 1"
    assert done == "images fetched: 2 (0.0 MiB), already in the store: 1"


def test_the_largest_layer_starts_first(stub: RegistryStub, fetch: Fetch) -> None:
    layers = ["a", "b"]
    image = stub.add_image("web:1", layers)
    manifest = json.loads(stub.content[image["digest"]])
    big = stub.add_blob(os.urandom(9000), "application/vnd.oci.image.layer.v1.tar")
    config = json.loads(stub.content[manifest["config"]["digest"]])
    config["rootfs"]["diff_ids"].append(big["digest"])
    manifest["layers"].append(big)
    manifest["config"] = stub.add_blob(json.dumps(config).encode(), "")
    stub.add_manifest("web:2", manifest, OCI_MANIFEST)
    fetch(f"{stub.name}/web:2", parallel=1)
    asked = [
        seen.line for seen in stub.asked("blobs") if manifest["config"]["digest"] not in seen.line
    ]
    assert asked[0].endswith(big["digest"])


def test_layers_travel_side_by_side(stub: RegistryStub, fetch: Fetch) -> None:
    """Each of three layers waits until all three are asked for."""
    stub.add_image("web:1", ["a", "b", "c"])
    barrier = threading.Barrier(3, timeout=10)

    def wait(handler: Any) -> None:
        barrier.wait()
        handler.serve(None)

    for seed in "abc":
        stub.fault(digest_of(layer_of(seed)[0]), act=wait)
    assert one(fetch(f"{stub.name}/web:1", parallel=3))["attempts"] == 1


# Locks


def test_a_lock_pins_until_update(stub: RegistryStub, fetch: Fetch, store: Path) -> None:
    name = f"{stub.name}/web:1"
    old = stub.add_image("web:1", ["a"])
    locked = fetch(name)["lock"]
    new = stub.add_image("web:1", ["a", "b"])
    stub.seen.clear()
    for images in ([], [name]):
        for check in (True, False):
            pinned = fetch(*images, lock=locked, check=check)
            assert one(pinned)["digest"] == old["digest"] and not pinned["changed"]
    assert stub.seen == [], "what is pinned and there needs no registry"
    for images in ([], [name]):
        assert one(fetch(*images, lock=locked, update=True, check=True))["digest"] == new["digest"]
    assert one(fetch(lock=locked, update=True))["digest"] == new["digest"]
    # Back to the lock: the store has it all, but its name has to move back.
    assert fetch(lock=locked)["changed"] and not fetch(lock=locked)["changed"]


def test_a_pin_is_fetched_by_digest(stub: RegistryStub, fetch: Fetch) -> None:
    name = f"{stub.name}/web:1"
    old = stub.add_image("web:1", ["a"])
    locked = fetch(name, check=True)["lock"]
    stub.add_image("web:1", ["b"])
    stub.seen.clear()
    assert one(fetch(lock=locked))["digest"] == old["digest"]
    assert stub.asked("HEAD") == [] and stub.asked("manifests/1") == []


def test_a_digest_in_the_list_pins_even_with_update(stub: RegistryStub, fetch: Fetch) -> None:
    old = stub.add_image("web:1", ["a"])
    stub.add_image("web:1", ["b"])
    name = f"{stub.name}/web:1"
    for wanted in (f"{name}@{old['digest']}", {"name": name, "digest": old["digest"]}):
        result = fetch(wanted, update=True)
        assert one(result)["digest"] == old["digest"] and one(result)["name"] == name
    locked = fetch(name, check=True)["lock"]
    assert one(fetch(f"{name}@{old['digest']}", lock=locked))["digest"] == old["digest"]


def test_images_select_from_the_lock_and_add_to_it(stub: RegistryStub, fetch: Fetch) -> None:
    for name in ("a:1", "b:1", "c:1"):
        stub.add_image(name, [name])
    locked = fetch(f"{stub.name}/a:1", f"{stub.name}/b:1")["lock"]
    stub.add_image("a:1", ["moved"])
    result = fetch(f"{stub.name}/a:1", f"{stub.name}/c:1", lock=locked)
    images = result["lock"]["images"]
    assert sorted(images) == [f"{stub.name}/a:1", f"{stub.name}/c:1"]
    assert images[f"{stub.name}/a:1"] == locked["images"][f"{stub.name}/a:1"]


def test_lock_file(stub: RegistryStub, fetch: Fetch, store: Path, tmp_path: Path) -> None:
    for name in ("a:1", "b:1"):
        stub.add_image(name, [name])
    path = tmp_path / "images.lock.json"
    options = {"lock_path": str(path)}
    assert fetch(f"{stub.name}/a:1", check=True, **options)["changed"] and not path.exists()
    assert fetch(f"{stub.name}/a:1", **options)["changed"]
    stat = path.stat()
    assert not fetch(f"{stub.name}/a:1", **options)["changed"]
    assert path.stat().st_mtime_ns == stat.st_mtime_ns and path.stat().st_ino == stat.st_ino
    assert fetch(f"{stub.name}/b:1", **options)["changed"]
    assert sorted(_lock.loads(path.read_text())) == [f"{stub.name}/a:1", f"{stub.name}/b:1"]
    assert len(fetch(**options)["images"]) == 2
    path.unlink()
    again = fetch(f"{stub.name}/a:1", **options)
    assert again["changed"] and again["bytes_fetched"] == 0 and path.exists()


def test_lock_file_keeps_link_and_other_platforms(
    stub: RegistryStub, fetch: Fetch, tmp_path: Path
) -> None:
    stub.add_index("a:1", {"linux/amd64": ["a"], "linux/arm64": ["b"]})
    name, path, real = f"{stub.name}/a:1", tmp_path / "lock.json", tmp_path / "real.json"
    path.symlink_to(real)
    for platform in ("linux/amd64", "linux/arm64"):
        result = fetch(name, lock_path=str(path), platform=platform)
        assert result["changed"]
        assert list(result["lock"]["images"][name]["platforms"]) == [platform]
    assert path.is_symlink()
    assert sorted(_lock.loads(real.read_text())[name].platforms) == ["linux/amd64", "linux/arm64"]
    for platform in ("linux/amd64", "linux/arm64"):
        assert not fetch(name, lock_path=str(path), platform=platform)["changed"]
    assert not fetch(lock_path=str(path))["changed"]
    # The platforms of another index have nothing to do with those of this one.
    stub.add_index("a:1", {"linux/amd64": ["new"], "linux/arm64": ["b"]})
    fetch(name, lock_path=str(path), platform="linux/amd64", update=True)
    assert list(_lock.loads(real.read_text())[name].platforms) == ["linux/amd64"]


def test_a_failed_image_stays_in_the_lock_file(
    stub: RegistryStub, fetch: Fetch, tmp_path: Path
) -> None:
    stub.add_image("a:1", ["a"])
    stub.add_image("b:1", ["b"])
    path = tmp_path / "lock.json"
    names = (f"{stub.name}/a:1", f"{stub.name}/b:1")
    fetch(*names, lock_path=str(path))
    before = _lock.loads(path.read_text())
    del stub.tags["a:1"]
    new = stub.add_image("b:1", ["b", "c"])
    result = fetch(*names, lock_path=str(path), update=True)
    assert result["failed"] and result["changed"]
    after = _lock.loads(path.read_text())
    assert after[names[0]] == before[names[0]]
    assert after[names[1]].target.digest == new["digest"]


def test_as_is_kept(stub: RegistryStub, fetch: Fetch) -> None:
    stub.add_image("a:1", ["a"])
    name = f"{stub.name}/a:1"
    locked = fetch({"name": name, "as": "site.example/a:1"})["lock"]
    assert locked["images"][name]["as"] == "site.example/a:1"
    for result in (fetch(lock=locked), fetch(name, lock=locked), fetch(lock=locked, update=True)):
        assert result["lock"] == locked


@pytest.mark.parametrize("text", ["", "{}", "[]", "\xff", '{"version": 2, "images": {}}'])
def test_an_unusable_lock_file_is_told(fetch: Fetch, tmp_path: Path, text: str) -> None:
    path = tmp_path / "lock.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(_lock.LockError, match=r"lock\.json"):
        fetch("web:1", lock_path=str(path))
    assert path.read_bytes() == text.encode("latin-1")


def test_nothing_wanted_is_told(fetch: Fetch, tmp_path: Path) -> None:
    with pytest.raises(_lock.LockError, match="no image is wanted"):
        fetch(lock_path=str(tmp_path / "none.json"))


# What goes wrong


def test_one_failed_image_does_not_hide_the_others(
    stub: RegistryStub, fetch: Fetch, store: Path
) -> None:
    for name in ("a:1", "b:1", "c:1"):
        stub.add_image(name, ["base", name])
    stub.fault(digest_of(layer_of("b:1")[0]), spoil=True, times=9)
    names = [f"{stub.name}/{name}" for name in ("a:1", "none:1", "b:1", "c:1")]
    result = fetch(*names)
    assert result["failed"] and result["changed"]
    actions = [image["action"] for image in result["images"]]
    assert actions == ["fetched", "failed", "failed", "fetched"]
    assert "2 of 4 images could not be fetched" in result["msg"]
    assert f"{names[1]} is not there" in result["msg"]
    assert f"{names[2]}: blob {digest_of(layer_of('b:1')[0])}" in result["msg"]
    assert "the source sent sha256:" in result["images"][2]["reason"]
    assert sorted(result["lock"]["images"]) == [names[0], names[3]]
    recorded = {entry["annotations"]["io.containerd.image.name"] for entry in Layout(store).names()}
    assert recorded == {names[0], names[3]}
    check_store(store)


def test_a_cut_goes_on_in_the_same_run(stub: RegistryStub, fetch: Fetch, store: Path) -> None:
    stub.add_image("a:1", ["a"])
    stub.fault("blobs", cut_after=100)
    stub.fault("manifests", status=500)
    result = fetch(f"{stub.name}/a:1")
    assert result["changed"] and one(result)["attempts"] == 3
    check_store(store)


def test_a_cut_goes_on_in_the_next_run(stub: RegistryStub, fetch: Fetch, store: Path) -> None:
    stub.add_image("a:1", ["a"])
    layer = layer_of("a")[0]
    part = {"status": 200, "body": layer[:2000], "times": 1}
    stub.fault(digest_of(layer), **part)
    first = fetch(f"{stub.name}/a:1", retries=0)
    assert first["failed"] and "ended the transfer after 2000 of" in first["msg"]
    assert Layout(store).names() == [] and not Layout(store).has(digest_of(layer))
    second = fetch(f"{stub.name}/a:1")
    assert stub.seen[-1].headers["Range"] == "bytes=2000-"
    assert second["bytes_fetched"] == len(layer) - 2000
    check_store(store)


def test_a_damaged_leftover_is_forgotten(stub: RegistryStub, fetch: Fetch, store: Path) -> None:
    stub.add_image("a:1", ["a"])
    layer = layer_of("a")[0]
    layout = Layout(store)
    layout.create()
    place = layout.path(digest_of(layer))
    place.with_name(f".{place.name}.part").write_bytes(bytes(2000))
    assert one(fetch(f"{stub.name}/a:1"))["action"] == "fetched"
    check_store(store)


def test_another_repository_may_have_the_layer(stub: RegistryStub, fetch: Fetch) -> None:
    stub.add_image("a:1", ["base"])
    stub.add_image("b:1", ["base"])
    stub.fault(f"/a/blobs/{digest_of(layer_of('base')[0])}", status=404, times=9)
    result = fetch(f"{stub.name}/a:1", f"{stub.name}/b:1")
    assert [image["action"] for image in result["images"]] == ["fetched", "fetched"]


def test_a_full_disk_is_told(
    stub: RegistryStub,
    fetch: Fetch,
    store: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stub.add_image("a:1", ["a"])
    Layout(store).create()

    def full(*_unused: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    result = fetch(f"{stub.name}/a:1")
    assert result["failed"] and "cannot be used (No space left on device)" in result["msg"]


def changed_manifest(stub: RegistryStub, **changes: Any) -> None:
    image = stub.add_image("a:0", ["a", "b"])
    document = {**json.loads(stub.content[image["digest"]]), **changes}
    stub.add_manifest("a:1", document, document.get("mediaType", ""))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layers": []}, "diff IDs of 0 layers, it has 2"),
        ({"layers": None}, "wanted a list of layers"),
        ({"layers": [7]}, "wanted a list of layers"),
        ({"layers": [{"digest": "sha256:../../x", "size": 1}]}, "is no digest"),
        ({"layers": [{"digest": f"sha512:{'0' * 128}", "size": 1}]}, "is no digest"),
        ({"layers": [{"digest": f"sha256:{'0' * 64}", "size": -1}]}, "descriptor with a size"),
        ({"config": None}, "descriptor with a size"),
        ({"config": {"digest": f"sha256:{'0' * 64}", "size": 99 << 20}}, "wanted 16777216 at most"),
        ({"mediaType": "application/vnd.cncf.helm"}, "it is no image"),
        ({"schemaVersion": 1}, "schema 1"),
    ],
)
def test_unusable_manifests_are_told(
    stub: RegistryStub, fetch: Fetch, changes: Json, message: str
) -> None:
    changed_manifest(stub, **changes)
    result = fetch(f"{stub.name}/a:1", retries=0)
    assert result["failed"] and message in result["msg"] and f"{stub.name}/a:1" in result["msg"]


def test_foreign_layers_are_told(stub: RegistryStub, fetch: Fetch) -> None:
    image = stub.add_image("a:0", ["a"])
    document = json.loads(stub.content[image["digest"]])
    document["layers"][0]["urls"] = ["https://elsewhere.example/layer"]
    stub.add_manifest("a:1", document, OCI_MANIFEST)
    assert "lies outside of the registry" in fetch(f"{stub.name}/a:1")["msg"]


def test_a_config_that_is_none_is_told(stub: RegistryStub, fetch: Fetch) -> None:
    for content in (b"{}", b"[]", b"no json", b'{"rootfs": 7}', b'{"rootfs": {"diff_ids": ["x"]}}'):
        layer = stub.add_blob(b"layer", "")
        config = stub.add_blob(content, "")
        document = {"schemaVersion": 2, "config": config, "layers": [layer]}
        stub.add_manifest("a:1", document, OCI_MANIFEST)
        result = fetch(f"{stub.name}/a:1")
        assert result["failed"] and result["msg"].count(f"{stub.name}/a:1") == 1


@pytest.mark.parametrize("is_index", [True, False])
def test_a_platform_that_is_not_there_is_told(
    stub: RegistryStub, fetch: Fetch, is_index: bool
) -> None:
    if is_index:
        stub.add_index("a:1", {"linux/amd64": ["a"], "linux/arm/v6": ["b"]})
    else:
        stub.add_image("a:1", ["a"])
    result = fetch(f"{stub.name}/a:1", platform="linux/arm64")
    there = "linux/amd64, linux/arm/v6" if is_index else "linux/amd64"
    assert f"wanted for linux/arm64, the registry has it for {there};" in result["msg"]
    assert one(result)["action"] == "failed" and result["lock"]["images"] == {}


# Pure parts


def entry(platform: Json | None, digit: str = "a", **more: Any) -> Json:
    return {"digest": f"sha256:{digit * 64}", "size": 7, "platform": platform, **more}


def test_choose_takes_exact_platforms_and_no_attestations() -> None:
    attestation = {"vnd.docker.reference.type": "attestation-manifest"}
    index = {
        "manifests": [
            entry({"os": "linux", "architecture": "amd64"}, "1", annotations=attestation),
            entry({"os": "unknown", "architecture": "unknown"}, "2"),
            entry(None, "3"),
            entry({"os": "linux", "architecture": "arm", "variant": "v6"}, "4"),
            entry({"os": "linux", "architecture": "amd64"}, "5"),
            entry({"os": "linux", "architecture": "amd64"}, "6"),
            entry({"os": "linux", "architecture": "arm", "variant": "v7"}, "7"),
            entry({"os": "!", "architecture": "?"}, "8"),
        ]
    }
    chosen = _documents.choose("a:1", index, ["linux/amd64", "linux/arm/v7"])
    assert {name: blob.digest[7] for name, blob in chosen.items()} == {
        "linux/amd64": "5",
        "linux/arm/v7": "7",
    }
    with pytest.raises(RegistryError, match="wanted for linux/386, the registry has it for l"):
        _documents.choose("a:1", index, ["linux/386"])


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["manifests", "layers", "digest", "size", "platform", "os", "architecture"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(values)
def test_any_document_is_taken_or_told(document: Any) -> None:
    index = document if isinstance(document, dict) else {"manifests": document, "layers": document}
    for work in (
        lambda: _documents.choose("a:1", index, ["linux/amd64"]),
        lambda: _documents.read_layers("a:1", index),
    ):
        try:
            work()
        except (RegistryError, ValueError) as error:
            assert "a:1" in str(error)


def test_known_tells_of_former_targets_and_only_of_shared_layers(
    stub: RegistryStub, fetch: Fetch, store: Path
) -> None:
    both = {"linux/amd64": ["base", "one"], "linux/arm64": ["else"]}
    old = stub.add_index("a:1", both)
    old_manifest = stub.add_image(None, ["base", "one"])["digest"]
    fetch(f"{stub.name}/a:1")
    # The same manifest under its own name, and in another index.
    stub.add_image("same:1", ["base", "one"])
    fetch(f"{stub.name}/same:1")
    unrelated = stub.add_image("unrelated:1", ["nothing in common"])
    fetch(f"{stub.name}/unrelated:1")
    new = stub.add_index("a:1", {"linux/amd64": ["base", "two"]})
    new_manifest = stub.add_image(None, ["base", "two"])["digest"]
    result = fetch(f"{stub.name}/a:1")
    base, two = (digest_of(layer_of(seed)[0]) for seed in ("base", "two"))
    known = {item["digest"]: item for item in result["known"]}
    assert sorted(known) == sorted([old_manifest, new_manifest])
    assert unrelated["digest"] not in known
    assert known[old_manifest] == {
        "digest": old_manifest,
        "indexes": [old["digest"]],
        "platform": "linux/amd64",
        "blobs": [base],
    }
    assert known[new_manifest]["indexes"] == [new["digest"]]
    assert known[new_manifest]["blobs"] == sorted([base, two])


def test_known_does_without_what_it_cannot_read(
    stub: RegistryStub, fetch: Fetch, store: Path
) -> None:
    old = stub.add_image("a:1", ["base", "one"])
    fetch(f"{stub.name}/a:1")
    stub.add_image("a:1", ["base", "two"])
    locked = fetch(f"{stub.name}/a:1")["lock"]
    layout = Layout(store)
    assert len(_fetch.known(layout, _lock.load(locked))) == 2
    layout.path(old["digest"]).write_bytes(b"damaged")
    assert len(_fetch.known(layout, _lock.load(locked))) == 1
    layout.path(old["digest"]).unlink()
    assert len(_fetch.known(layout, _lock.load(locked))) == 1
    assert _fetch.known(layout, {}) == []


# The store's own rules that this room found


def test_two_threads_may_put_one_blob(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    barrier, real, failures = threading.Barrier(2, timeout=10), os.fsync, []

    def slow(handle: int) -> None:
        barrier.wait()
        real(handle)

    monkeypatch.setattr("os.fsync", slow)

    def work() -> None:
        try:
            write_atomically(tmp_path / "blob", b"content")
        except OSError as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == [] and os.listdir(tmp_path) == ["blob"]


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"manifests": 7}', '{"manifests": [{}]}'])
def test_a_broken_index_of_the_store_is_told(tmp_path: Path, content: str) -> None:
    (tmp_path / "index.json").write_text(content)
    with pytest.raises(LayoutError, match=r"index\.json: wanted an image index"):
        Layout(tmp_path).names()
