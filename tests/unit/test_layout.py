# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The store: what stands under a digest is that content, whoever wrote it and however often."""

from __future__ import annotations

import json
import multiprocessing
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from images import Store, digest, digest_of, locked, renamed

from ansible_collections.fleet.images.plugins.module_utils._layout import (
    IMAGE_NAME,
    REF_NAME,
    Layout,
    LayoutError,
    write_atomically,
)
from ansible_collections.fleet.images.plugins.module_utils._lock import Blob

CONTENT = bytes(range(256)) * 40
BLOB = Blob(digest_of(CONTENT), len(CONTENT), "application/octet-stream")


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    made = Layout(tmp_path / "store")
    made.create()
    return made


def files(layout: Layout) -> set[str]:
    return {str(path.relative_to(layout.root)) for path in layout.root.rglob("*") if path.is_file()}


def fill(layout: Layout, *chunks: bytes, blob: Blob = BLOB) -> int:
    """Writes a blob; returns how much of it was there before."""
    with layout.writing(blob) as out:
        offset = out.offset
        for chunk in chunks:
            out.write(chunk)
    return offset


def test_a_new_store_is_an_image_layout(layout: Layout) -> None:
    before = (layout.root / "oci-layout").stat().st_mtime_ns
    layout.create()
    assert json.loads((layout.root / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}
    assert (layout.root / "oci-layout").stat().st_mtime_ns == before
    assert layout.names() == []


def test_a_small_blob_is_kept_once(layout: Layout) -> None:
    found = layout.put(b"{}")
    inode = layout.path(found).stat().st_ino
    assert layout.put(b"{}") == found == digest_of(b"{}")
    assert layout.path(found).stat().st_ino == inode
    assert layout.read(found) == b"{}"
    assert layout.has(found) and layout.has(found, 2) and not layout.has(found, 3)
    assert files(layout) == {"oci-layout", f"blobs/sha256/{found[7:]}"}


def test_a_blob_that_is_not_there(layout: Layout) -> None:
    assert not layout.has(digest("x"))
    with pytest.raises(LayoutError, match=r"not there; run image_fetch"):
        layout.read(digest("x"))


@pytest.mark.parametrize("spoiled", [b"", b"{", b"[]", b"{} and more"])
def test_a_damaged_blob_is_not_read(layout: Layout, spoiled: bytes) -> None:
    found = layout.put(b"{}")
    layout.path(found).write_bytes(spoiled)
    with pytest.raises(LayoutError, match="holds other content"):
        layout.read(found)


def test_a_blob_over_the_limit_is_not_read(layout: Layout) -> None:
    found = layout.put(b"12345")
    assert layout.read(found, limit=5) == b"12345"
    with pytest.raises(LayoutError, match="holds other content"):
        layout.read(found, limit=4)


def test_a_blob_is_written_in_pieces(layout: Layout) -> None:
    assert fill(layout, CONTENT[:100], b"", CONTENT[100:]) == 0
    assert layout.path(BLOB.digest).read_bytes() == CONTENT
    assert files(layout) == {"oci-layout", f"blobs/sha256/{BLOB.digest[7:]}"}


@given(st.lists(st.integers(0, len(CONTENT)), max_size=4).map(sorted))
def test_a_broken_transfer_goes_on_where_it_stopped(
    tmp_path_factory: pytest.TempPathFactory, stops: list[int]
) -> None:
    layout = Layout(tmp_path_factory.mktemp("store"))
    layout.create()
    there = 0
    for stop in stops:
        with pytest.raises(ZeroDivisionError), layout.writing(BLOB) as out:
            assert out.offset == there
            out.write(CONTENT[out.offset : stop])
            raise ZeroDivisionError
        assert not layout.has(BLOB.digest)
        there = stop
    assert fill(layout, CONTENT[there:]) == there
    assert layout.path(BLOB.digest).read_bytes() == CONTENT


def test_a_transfer_that_ends_early_is_kept_for_the_next(layout: Layout) -> None:
    with pytest.raises(LayoutError, match=rf"wanted {len(CONTENT)} bytes, .* ended after 100"):
        fill(layout, CONTENT[:100])
    assert not layout.has(BLOB.digest)
    assert fill(layout, CONTENT[100:]) == 100
    assert layout.has(BLOB.digest, len(CONTENT))


def test_wrong_content_leaves_nothing(layout: Layout) -> None:
    wrong = bytes(len(CONTENT))
    with pytest.raises(LayoutError, match=rf"the source sent {digest_of(wrong)}; nothing was kept"):
        fill(layout, wrong)
    assert not layout.has(BLOB.digest)
    assert fill(layout, CONTENT) == 0
    assert layout.path(BLOB.digest).read_bytes() == CONTENT


def test_a_wrong_beginning_is_noticed_in_the_end(layout: Layout) -> None:
    with pytest.raises(LayoutError):
        fill(layout, b"x" * 100)
    with pytest.raises(LayoutError, match="nothing was kept"):
        fill(layout, CONTENT[100:])
    assert fill(layout, CONTENT) == 0


def test_too_many_bytes_are_refused_at_once(layout: Layout) -> None:
    taken = 0
    with pytest.raises(LayoutError, match="bytes and more"), layout.writing(BLOB) as out:
        for _again in range(1000):
            out.write(CONTENT)
            taken += 1
    assert taken == 1
    assert not layout.has(BLOB.digest)
    assert fill(layout, CONTENT) == 0


def test_what_is_left_of_a_longer_file_is_not_taken_up(layout: Layout) -> None:
    (layout.path(BLOB.digest).with_name(f".{BLOB.digest[7:]}.part")).write_bytes(CONTENT * 2)
    assert fill(layout, CONTENT) == 0
    assert layout.path(BLOB.digest).read_bytes() == CONTENT


def test_the_source_may_start_anew(layout: Layout) -> None:
    with pytest.raises(LayoutError):
        fill(layout, CONTENT[:100])
    with layout.writing(BLOB) as out:
        out.restart()
        out.write(CONTENT)
    assert layout.path(BLOB.digest).read_bytes() == CONTENT


def test_a_blob_that_is_there_is_not_written_again(layout: Layout) -> None:
    fill(layout, CONTENT)
    inode = layout.path(BLOB.digest).stat().st_ino
    assert fill(layout) == len(CONTENT)
    assert layout.path(BLOB.digest).stat().st_ino == inode
    assert files(layout) == {"oci-layout", f"blobs/sha256/{BLOB.digest[7:]}"}


def test_an_empty_blob(layout: Layout) -> None:
    fill(layout, blob=Blob(digest_of(b""), 0, "t"))
    assert layout.read(digest_of(b"")) == b""


def _write_slowly(root: str) -> int:
    """One of several writers of the same blob; returns how many bytes it wrote itself."""
    with Layout(root).writing(BLOB) as out:
        left = CONTENT[out.offset :]
        for start in range(0, len(left), 1000):
            out.write(left[start : start + 1000])
    return len(left)


def test_threads_that_want_one_blob_write_it_once(layout: Layout) -> None:
    with ThreadPoolExecutor(8) as pool:
        written = list(pool.map(_write_slowly, [str(layout.root)] * 8))
    assert sorted(written) == [0] * 7 + [len(CONTENT)]
    assert layout.path(BLOB.digest).read_bytes() == CONTENT
    assert files(layout) == {"oci-layout", f"blobs/sha256/{BLOB.digest[7:]}"}


def test_processes_that_want_one_blob_write_it_once(layout: Layout) -> None:
    with multiprocessing.get_context("fork").Pool(4) as pool:
        written = pool.map(_write_slowly, [str(layout.root)] * 8, chunksize=1)
    assert sorted(written) == [0] * 7 + [len(CONTENT)]
    assert layout.path(BLOB.digest).read_bytes() == CONTENT


def test_a_second_writer_waits_for_the_first(layout: Layout) -> None:
    started, offsets = threading.Event(), []

    def second() -> None:
        started.set()
        offsets.append(fill(layout))

    with layout.writing(BLOB) as out:
        thread = threading.Thread(target=second)
        thread.start()
        started.wait()
        out.write(CONTENT)
        thread.join(0.05)
        assert offsets == []
    thread.join()
    assert offsets == [len(CONTENT)]


def test_threads_that_keep_the_same_small_blob(layout: Layout) -> None:
    contents = [bytes([number % 5]) * 100 for number in range(200)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(layout.put, contents))
    assert all(layout.read(one) == content for one, content in zip(found, contents))
    assert len(files(layout)) == 1 + 5


def test_a_write_that_fails_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "index.json"
    path.write_bytes(b"old")

    def full(*_unused: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, b"new")
    assert [one.name for one in tmp_path.iterdir()] == ["index.json"]
    assert path.read_bytes() == b"old"


# index.json


def test_names_are_recorded_once(layout: Layout) -> None:
    one, two = locked("one:1", ["a"]), locked("two:1", ["a"])
    assert layout.record([two, one])
    before = (layout.root / "index.json").stat()
    assert not layout.record([one])
    assert not layout.record([one, two])
    after = (layout.root / "index.json").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    first, second = layout.names()
    assert first == {
        "mediaType": one.target.media_type,
        "digest": one.target.digest,
        "size": one.target.size,
        "annotations": {IMAGE_NAME: "docker.io/library/one:1", REF_NAME: "1"},
    }
    assert second["digest"] == two.target.digest


def test_a_name_that_moves_leaves_its_former_target_without_name(layout: Layout) -> None:
    """Engines out there may have it: its blob list tells what they hold."""
    old, new = locked("app:1", ["a"]), locked("app:1", ["a", "b"])
    layout.record([old])
    assert layout.record([new])
    assert not layout.record([new])
    found = {entry["digest"]: entry.get("annotations", {}) for entry in layout.names()}
    assert list(found[old.target.digest]) == []
    assert found[new.target.digest][IMAGE_NAME] == "docker.io/library/app:1"
    assert layout.record([old])
    assert {entry["digest"] for entry in layout.names()} == set(found)


def test_a_former_target_with_another_name_needs_no_second_entry(layout: Layout) -> None:
    old, new = locked("app:1", ["a"]), locked("app:1", ["b"])
    layout.record([old, renamed(old, "latest:1")])
    layout.record([new])
    assert sorted(entry["digest"] for entry in layout.names()) == sorted(
        [old.target.digest, new.target.digest]
    )


def test_several_record_at_once_and_none_is_lost(layout: Layout) -> None:
    images = [locked(f"app:{number}", ["a"]) for number in range(30)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda image: layout.record([image]), images))
    assert len(layout.names()) == 30


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "5", "null", "{}", '{"manifests": 5}', '{"manifests": [5]}']
)
def test_an_index_that_is_none_is_refused(layout: Layout, content: str) -> None:
    (layout.root / "index.json").write_text(content)
    with pytest.raises(LayoutError, match="wanted an image index"):
        layout.names()


def test_images_of_a_store_are_whole(tmp_path: Path) -> None:
    """The builders that the other tests rely on."""
    store = Store.at(tmp_path)
    image = store.index("app:1", amd64=["a", "b"], arm64=["c"])
    for platform in image.platforms:
        for blob in image.blobs(platform):
            assert digest_of(store.layout.read(blob.digest)) == blob.digest
            assert store.layout.has(blob.digest, blob.size)
