# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bundles on disk: in one file or in parts, with checksums, and from one form to another."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from images import AMD64, Store

from ansible_collections.fleet.images.plugins.module_utils import _archive, _bundle_files
from ansible_collections.fleet.images.plugins.module_utils._bundle import (
    BundleError,
    DamagedBlob,
    Member,
    members,
    size_of,
    stream,
)
from ansible_collections.fleet.images.plugins.module_utils._bundle_files import (
    Form,
    Written,
    damaged,
    write,
)
from ansible_collections.fleet.images.plugins.module_utils._parts import (
    check_sums,
    sha256_of,
    split_parts,
)

PART = 1000
FORMS = [
    Form(),
    Form(checksum=True),
    Form(PART),
    Form(PART, checksum=True),
    Form(2 * PART),
    Form(PART, passing=True),
]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.at(tmp_path / "store")


@pytest.fixture
def parts(store: Store) -> list[Member]:
    image = store.index("app:1", amd64=["a", "b"], arm64=["c"])
    return members(store.layout, [(image, AMD64)], None)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / "b.tar"


def expected(parts: Sequence[Member], form: Form) -> set[str]:
    """The names of the files that a form makes, and no other."""
    count = -(-size_of(parts) // form.split_size) if form.split_size else 0
    names = {f"b.tar.part{number:03d}" for number in range(1, count + 1)} or {"b.tar"}
    return names | ({"b.tar.sha256"} if form.checksum else set())


def stands(out: Path, parts: Sequence[Member], form: Form, written: Written) -> None:
    """What is in the directory is just the bundle in this form, as plain tools read it."""
    assert {path.name for path in out.parent.iterdir()} == expected(parts, form)
    files = split_parts(out)
    assert files == list(written.files)
    assert b"".join(path.read_bytes() for path in files) == b"".join(stream(parts))
    assert {path.stat().st_size for path in files[:-1]} <= {form.split_size}
    shown = sum(path.stat().st_size for path in files)
    assert (written.bytes, len(written.sha256)) == (shown, 64)
    assert list(written.sums) == [sha256_of(path) for path in files]
    if form.checksum:
        check_sums(out, files)
        subprocess.run(
            ["sha256sum", "--check", "--strict", "b.tar.sha256"], cwd=out.parent, check=True
        )
        assert len((out.parent / "b.tar.sha256").read_text().splitlines()) == len(files)


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_a_form_is_written_once(out: Path, parts: Any, form: Form) -> None:
    foreseen = write(out, parts, dry_run=True, form=form)
    assert (foreseen.changed, list(out.parent.iterdir())) == (True, [])
    written = write(out, parts, form=form)
    stands(out, parts, form, written)
    assert (written.bytes, written.files) == (foreseen.bytes, foreseen.files)
    inodes = [path.stat().st_ino for path in written.files]
    for dry_run in (False, True):
        again = write(out, parts, dry_run, form)
        assert again == replace(written, changed=False)
    assert [path.stat().st_ino for path in written.files] == inodes


@pytest.mark.parametrize("after", FORMS, ids=str)
@pytest.mark.parametrize("before", FORMS, ids=str)
def test_from_one_form_to_another(out: Path, parts: Any, before: Form, after: Form) -> None:
    first = write(out, parts, form=before)
    second = write(out, parts, form=after)
    assert first.sha256 == second.sha256
    if before.split_size == after.split_size and before.checksum and not after.checksum:
        # The file of checksums still tells the truth, and may be the user's own.
        assert not second.changed
        stands(out, parts, before, second)
    else:
        assert second.changed == (before != replace(after, passing=before.passing))
        stands(out, parts, after, second)


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_another_bundle_leaves_nothing_of_the_former(
    out: Path, store: Store, parts: Any, form: Form
) -> None:
    """A longer one, a shorter one, and no checksums that are not its own."""
    larger = members(store.layout, [(store.image("app:2", *"defgh"), AMD64)], None)
    for content in (parts, larger, parts):
        stands(out, content, form, write(out, content, form=form))
    checked = Form(form.split_size, checksum=True)
    write(out, larger, form=checked)
    plain = Form(form.split_size)
    stands(out, parts, plain, write(out, parts, form=plain))


@pytest.mark.parametrize("name", ["b.tar.part002", "b.tar.part003", "b.tar.sha256"])
@pytest.mark.parametrize("how", ["gone", "cut", "other", "longer"])
def test_a_file_that_is_not_right_is_made_anew(out: Path, parts: Any, name: str, how: str) -> None:
    form = Form(PART, checksum=True)
    write(out, parts, form=form)
    path = out.with_name(name)
    content = path.read_bytes()
    path.unlink()
    if how != "gone":
        new = {"cut": content[:-1], "other": b"\0" + content[1:], "longer": content + b"\n"}
        path.write_bytes(new[how] if new[how] != content else b"\1" + content[1:])
    assert write(out, parts, dry_run=True, form=form).changed
    written = write(out, parts, form=form)
    assert written.changed
    stands(out, parts, form, written)


def test_parts_that_are_cut_elsewhere_are_made_anew(out: Path, parts: Any) -> None:
    """Together they are the same, but no file system that wants the size would hold them."""
    form = Form(PART)
    write(out, parts, form=form)
    second, third = out.with_name("b.tar.part002"), out.with_name("b.tar.part003")
    content = second.read_bytes()
    second.write_bytes(content[:-1])
    third.write_bytes(content[-1:] + third.read_bytes())
    written = write(out, parts, form=form)
    assert written.changed
    stands(out, parts, form, written)


def test_too_many_parts(out: Path, parts: Any) -> None:
    """`cat b.tar.part*` would put part1000 before part999."""
    with pytest.raises(BundleError, match=r"999 of them hold less than its .*larger split_size"):
        write(out, parts, form=Form(1))
    assert list(out.parent.iterdir()) == []


def test_a_split_that_breaks_leaves_the_old_one(
    out: Path, store: Store, parts: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    form = Form(PART, checksum=True)
    written = write(out, parts, form=form)
    larger = members(store.layout, [(store.image("app:2", *"defgh"), AMD64)], None)
    synced: list[int] = []

    def full(descriptor: int) -> None:
        synced.append(descriptor)
        if len(synced) == 3:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write(out, larger, form=form)
    stands(out, parts, form, written)


def test_a_passing_part_is_there_before_the_next_one(
    out: Path, parts: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whole, and without waiting for the disk."""
    seen: list[list[str]] = []

    def noted(*_arguments: object) -> None:
        seen.append(sorted(path.name for path in out.parent.iterdir() if path.name[0] != "."))

    taken = _bundle_files._Taken.take

    def take(self: Any, length: int) -> Any:
        noted()
        return taken(self, length)

    monkeypatch.setattr(_bundle_files._Taken, "take", take)
    monkeypatch.setattr(os, "fsync", None)
    written = write(out, parts, form=Form(PART, passing=True))
    names = [path.name for path in written.files]
    assert seen[: len(names)] == [names[:number] for number in range(len(names))]


def test_passing_parts_of_a_bundle_that_breaks_go(out: Path, store: Store, parts: Any) -> None:
    """Nobody shall take the new first part and the old second one for a bundle."""
    write(out, parts, form=Form(PART))
    image = store.image("app:2", *"defgh")
    larger = members(store.layout, [(image, AMD64)], None)
    blob = store.layout.path(image.on(AMD64).layers[-1].digest)
    blob.write_bytes(b"x" * blob.stat().st_size)
    with pytest.raises(DamagedBlob):
        write(out, larger, form=Form(PART, passing=True))
    assert list(out.parent.iterdir()) == []


def test_a_split_bundle_is_an_archive(out: Path, parts: Any) -> None:
    write(out, parts, form=Form(PART))
    assert set(_archive.read(split_parts(out)).images) == {"docker.io/library/app:1"}


def test_every_damaged_blob_is_named(store: Store) -> None:
    image = store.image("app:1", "a", "b", "c")
    layers = image.on(AMD64).layers
    for layer in (layers[0], layers[2]):
        path = store.layout.path(layer.digest)
        path.write_bytes(bytes(path.stat().st_size))
    assert damaged(members(store.layout, [(image, AMD64)], None)) == [
        layers[0].digest,
        layers[2].digest,
    ]
