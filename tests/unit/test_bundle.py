# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bundles: the same input gives the same bytes, whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from images import AMD64, ARM64, Store, as_lock, digest_of, renamed

from ansible_collections.fleet.images.plugins.module_utils._bundle import (
    BundleError,
    Member,
    Region,
    blob_name,
    docker_manifest,
    head,
    members,
    oci_index,
    size_of,
    stream,
)
from ansible_collections.fleet.images.plugins.module_utils._bundle_files import write
from ansible_collections.fleet.images.plugins.module_utils._holdings import save_bytes
from ansible_collections.fleet.images.plugins.module_utils._layout import (
    IMAGE_NAME,
    REF_NAME,
    LayoutError,
)
from ansible_collections.fleet.images.plugins.module_utils._lock import LockedImage
from ansible_collections.fleet.images.plugins.module_utils._reference import parse


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.at(tmp_path / "store")


@pytest.fixture
def images(store: Store) -> list[tuple[LockedImage, str]]:
    """Two images that share a layer, one of them behind an index."""
    one = store.image("one:1", "a", "b", "a")
    two = store.index("site.example/two:2", amd64=["a", "c"], arm64=["z"])
    return [(one, AMD64), (two, AMD64)]


def content(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as tar:
        found = {}
        for info in tar:
            assert info.isreg() and (info.mode, info.mtime, info.uid) == (0o644, 0, 0)
            assert info.name not in found
            file = tar.extractfile(info)
            assert file is not None
            found[info.name] = file.read()
        return found


def names(path: Path) -> list[str]:
    return [one.name for one in path.iterdir()]


def test_a_bundle_holds_every_blob_once(store: Store, images: Any, tmp_path: Path) -> None:
    path = tmp_path / "new directory" / "b.tar"
    written = write(path, members(store.layout, images, None))
    found = content(path)
    wanted = {blob.digest for image, platform in images for blob in image.blobs(platform)}
    assert set(found) == {"oci-layout", "index.json", "manifest.json", *map(blob_name, wanted)}
    for name, blob in found.items():
        if name.startswith("blobs/"):
            assert digest_of(blob) == "sha256:" + name[13:]
    assert written.changed
    assert written.bytes == path.stat().st_size == size_of(members(store.layout, images, None))
    assert written.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert path.stat().st_size % 512 == 0


def test_metadata_stands_before_the_layers(store: Store, images: Any, tmp_path: Path) -> None:
    """So that a reader of a stream has the small ones first."""
    write(tmp_path / "b.tar", members(store.layout, images, None))
    order = list(content(tmp_path / "b.tar"))
    layers = {blob_name(one.digest) for image, on in images for one in image.on(on).layers}
    assert order[:3] == ["oci-layout", "index.json", "manifest.json"]
    assert set(order[-len(layers) :]) == layers


def test_the_small_members(images: Any) -> None:
    one, two = (image for image, _on in images)
    assert docker_manifest(images) == [
        {
            "Config": blob_name(image.on(AMD64).config.digest),
            "RepoTags": [image.name],
            "Layers": [blob_name(layer.digest) for layer in image.on(AMD64).layers],
        }
        for image in (one, two)
    ]
    entries: Any = oci_index(images)["manifests"]
    assert [entry["digest"] for entry in entries] == [one.target.digest, two.target.digest]
    assert [entry["mediaType"] for entry in entries] == [
        one.target.media_type,
        two.target.media_type,
    ]
    assert entries[1]["annotations"] == {IMAGE_NAME: "site.example/two:2", REF_NAME: "2"}


def test_without_names_nothing_names_an_image(images: Any) -> None:
    assert [entry["RepoTags"] for entry in docker_manifest(images, with_names=False)] == [None] * 2
    entries: Any = oci_index(images, with_names=False)["manifests"]
    assert [entry.get("annotations") for entry in entries] == [None, None]
    text = b"".join(member.content for member in head(images, False))  # type: ignore[misc]
    assert b"one" not in text and b"two" not in text


def test_two_names_of_one_image_are_one_entry(store: Store) -> None:
    one = store.image("one:1", "a")
    both = [(one, AMD64), (renamed(one, "also:1"), AMD64)]
    (entry,) = docker_manifest(both)
    assert entry["RepoTags"] == ["docker.io/library/also:1", "docker.io/library/one:1"]
    assert len(oci_index(both)["manifests"]) == 2  # type: ignore[arg-type]
    assert len(oci_index(both, with_names=False)["manifests"]) == 1  # type: ignore[arg-type]


def test_the_name_at_the_destination_counts(store: Store) -> None:
    image = store.image("one:1", "a", as_="site.example/one:9")
    assert docker_manifest([(image, AMD64)])[0]["RepoTags"] == ["site.example/one:9"]
    (entry,) = oci_index([(image, AMD64)])["manifests"]  # type: ignore[misc]
    assert entry["annotations"] == {IMAGE_NAME: "site.example/one:9", REF_NAME: "9"}


def test_of_an_index_one_platform_travels(store: Store, tmp_path: Path) -> None:
    image = store.index("app:1", amd64=["a"], arm64=["z"])
    write(tmp_path / "b.tar", members(store.layout, [(image, ARM64)], None))
    found = content(tmp_path / "b.tar")
    assert found[blob_name(image.target.digest)] == store.layout.read(image.target.digest)
    assert blob_name(image.on(ARM64).layers[0].digest) in found
    assert blob_name(image.on(AMD64).manifest.digest) not in found
    assert json.loads(found["manifest.json"])[0]["Layers"] == [
        blob_name(image.on(ARM64).layers[0].digest)
    ]


def test_a_thin_bundle_goes_on_naming_what_it_leaves_out(store: Store, tmp_path: Path) -> None:
    image = store.image("app:1", "a", "b")
    low, high = image.on(AMD64).layers
    path = store.bundle(tmp_path / "b.tar", image, without=[low.digest])
    found = content(path)
    assert blob_name(high.digest) in found and blob_name(low.digest) not in found
    (entry,) = json.loads(found["manifest.json"])
    assert entry["Layers"] == [blob_name(low.digest), blob_name(high.digest)]
    nothing = members(store.layout, [(image, AMD64)], frozenset())
    assert len(nothing) == 3 + 2


def test_what_is_left_out_need_not_be_in_the_store(store: Store) -> None:
    image = store.image("app:1", "a", "b")
    low, high = image.on(AMD64).layers
    store.layout.path(low.digest).unlink()
    assert members(store.layout, [(image, AMD64)], frozenset([high.digest]))
    with pytest.raises(LayoutError, match=rf"blob {low.digest}: wanted .* run image_fetch first"):
        members(store.layout, [(image, AMD64)], None)


def test_a_blob_of_another_size_is_not_there(store: Store) -> None:
    image = store.image("app:1", "a")
    store.layout.path(image.on(AMD64).layers[0].digest).write_bytes(b"short")
    with pytest.raises(LayoutError, match="run image_fetch first"):
        members(store.layout, [(image, AMD64)], None)


def test_other_programs_read_it(store: Store, images: Any, tmp_path: Path) -> None:
    path = tmp_path / "b.tar"
    write(path, members(store.layout, images, None))
    if not shutil.which("tar"):
        pytest.skip("no tar")
    listed = subprocess.run(["tar", "-tf", str(path)], capture_output=True, text=True, check=True)
    assert listed.stdout.split() == list(content(path))
    assert listed.stderr == ""


def test_what_a_whole_docker_save_weighs(store: Store, images: Any) -> None:
    """The estimate is a lower bound, and close."""
    size = size_of(members(store.layout, images, None))
    lock = as_lock(*(image for image, _on in images))
    assert size - 1024 <= save_bytes(lock, AMD64) <= size


# same bytes, and only once


def test_the_same_bytes_wherever_and_whenever(store: Store, images: Any, tmp_path: Path) -> None:
    other = Store.at(tmp_path / "other store")
    again = [
        (other.image("one:1", "a", "b", "a"), AMD64),
        (other.index("site.example/two:2", amd64=["a", "c"], arm64=["z"]), AMD64),
    ]
    one = write(tmp_path / "1.tar", members(store.layout, images, None))
    two = write(tmp_path / "2.tar", members(other.layout, again, None))
    assert one.sha256 == two.sha256
    assert (tmp_path / "1.tar").read_bytes() == (tmp_path / "2.tar").read_bytes()


def test_an_unchanged_bundle_is_left_alone(store: Store, images: Any, tmp_path: Path) -> None:
    path = tmp_path / "b.tar"
    first = write(path, members(store.layout, images, None))
    before = path.stat()
    second = write(path, members(store.layout, images, None))
    after = path.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert second == replace(first, changed=False)
    assert write(path, members(store.layout, images, None), dry_run=True) == second


@pytest.mark.parametrize("place", ["header", "small", "blob", "padding", "end", "longer", "cut"])
def test_a_bundle_that_differs_anywhere_is_written_anew(
    store: Store, images: Any, tmp_path: Path, place: str
) -> None:
    path = tmp_path / "b.tar"
    first = write(path, members(store.layout, images, None))
    whole = bytearray(path.read_bytes())
    offset = {"header": 0, "small": 512, "blob": whole.rindex(b"\x1f\x8b") + 12}.get(place, -1)
    offset = 512 + 500 if place == "padding" else offset
    whole[offset] ^= 1
    if place in ("longer", "cut"):
        whole = whole[:-512] if place == "cut" else whole + bytes(512)
    path.write_bytes(whole)
    assert write(path, members(store.layout, images, None)) == first
    assert hashlib.sha256(path.read_bytes()).hexdigest() == first.sha256


def test_other_images_make_another_bundle(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "b.tar"
    one, two = store.image("app:1", "a"), store.image("app:1", "b")
    assert write(path, members(store.layout, [(one, AMD64)], None)).changed
    assert write(path, members(store.layout, [(two, AMD64)], None)).changed
    other = replace(two, as_=parse("app:2"))
    assert write(path, members(store.layout, [(other, AMD64)], None)).changed


def test_a_dry_run_writes_nothing(store: Store, images: Any, tmp_path: Path) -> None:
    path = tmp_path / "not yet" / "b.tar"
    written = write(path, members(store.layout, images, None), dry_run=True)
    assert (written.changed, written.sha256) == (True, "")
    assert written.bytes == size_of(members(store.layout, images, None))
    assert not path.parent.exists()


# what goes wrong


@pytest.mark.parametrize("there", [None, b"the old bundle"])
def test_a_damaged_blob_is_noticed(store: Store, tmp_path: Path, there: bytes | None) -> None:
    image = store.image("app:1", "a")
    path = store.layout.path(image.on(AMD64).layers[0].digest)
    spoiled = bytearray(path.read_bytes())
    spoiled[20] ^= 1
    path.write_bytes(spoiled)
    target = tmp_path / "out" / "b.tar"
    target.parent.mkdir()
    if there:
        target.write_bytes(there)
    with pytest.raises(BundleError, match=rf"{path} holds other content \({digest_of(spoiled)}\)"):
        write(target, members(store.layout, [(image, AMD64)], None))
    assert names(target.parent) == (["b.tar"] if there else [])
    assert not there or target.read_bytes() == there


def test_a_blob_that_shrinks_while_it_is_read(store: Store, tmp_path: Path) -> None:
    image = store.image("app:1", "a")
    parts = members(store.layout, [(image, AMD64)], None)
    path = store.layout.path(image.on(AMD64).layers[0].digest)
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(BundleError, match=rf"{path}: wanted .* it ends 3 bytes early"):
        write(tmp_path / "b.tar", parts)
    assert names(tmp_path) == ["store"]


@pytest.mark.parametrize("name", ["replace", "fsync"])
def test_a_write_that_breaks_leaves_the_old_file(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    target = tmp_path / "out" / "b.tar"
    target.parent.mkdir()
    target.write_bytes(b"old")

    def full(*_unused: Any) -> None:
        raise OSError(28, "No space left on device")

    parts = members(store.layout, [(store.image("app:1", "a"), AMD64)], None)
    monkeypatch.setattr(os, name, full)
    with pytest.raises(OSError, match="No space left"):
        write(target, parts)
    assert names(target.parent) == ["b.tar"]
    assert target.read_bytes() == b"old"


def test_the_path_is_old_or_new_and_never_half(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rename is the only thing that touches it, and comes after the flush to disk."""
    target, calls = tmp_path / "b.tar", []
    real_sync, real_replace = os.fsync, os.replace

    def sync(descriptor: int) -> None:
        calls.append("sync")
        real_sync(descriptor)

    def rename(source: Path, path: Path) -> None:
        calls.append("replace")
        assert not target.exists() and Path(source).parent == target.parent
        real_replace(source, path)

    parts = members(store.layout, [(store.image("app:1", "a"), AMD64)], None)
    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(os, "replace", rename)
    write(target, parts)
    assert calls == ["sync", "replace", "sync"]


def test_pieces_are_small(tmp_path: Path) -> None:
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(5 << 20)
    chunks = list(stream([Member("large", Region((path,), 0, 5 << 20))]))
    assert max(map(len, chunks)) == 1 << 20
    assert sum(map(len, chunks)) == size_of([Member("large", Region((path,), 0, 5 << 20))])


# memory

GROWTH = """
import sys
from pathlib import Path
from ansible_collections.fleet.images.plugins.module_utils import _bundle, _bundle_files

def peak():
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0])

blob, digest, target = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
size = blob.stat().st_size
parts = [_bundle.Member("oci-layout", b"{}"),
         _bundle.Member(_bundle.blob_name(digest), _bundle.Region((blob,), 0, size), digest)]
before = peak()
assert _bundle_files.write(target, parts).changed
assert not _bundle_files.write(target, parts).changed
print(peak() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc")
def test_memory_stays_small_whatever_the_blob(tmp_path: Path) -> None:
    size = 320 << 20
    blob = tmp_path / "blob"
    with blob.open("wb") as file:
        file.truncate(size)
    sha = hashlib.sha256()
    for _mebibyte in range(size >> 20):
        sha.update(bytes(1 << 20))
    command = [sys.executable, "-c", GROWTH, str(blob), f"sha256:{sha.hexdigest()}"]
    target = tmp_path / "b.tar"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [*command, str(target)], capture_output=True, text=True, check=True, env=environment
    )
    assert target.stat().st_size > size
    target.unlink()
    assert int(done.stdout) < 64 << 10  # kB
