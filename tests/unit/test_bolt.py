# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Databases of containerd and BuildKit, read beside who writes them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import bolt_files
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.fleet.images.plugins.module_utils import _bolt

KEYS = st.binary(min_size=1, max_size=40)
TREES = st.recursive(
    st.binary(max_size=200), lambda inner: st.dictionaries(KEYS, inner, max_size=40), max_leaves=80
)


def plain(bucket: Mapping[bytes, Any]) -> dict[bytes, Any]:
    return {k: plain(v) if isinstance(v, _bolt.Bucket) else bytes(v) for k, v in bucket.items()}


@given(tree=st.dictionaries(KEYS, TREES, max_size=40))
def test_what_was_written_is_read(tmp_path_factory: pytest.TempPathFactory, tree: Any) -> None:
    path = bolt_files.write(tmp_path_factory.mktemp("bolt") / "db", tree)
    assert _bolt.view(path, plain) == tree


def test_many_keys_stand_on_many_pages(tmp_path: Path) -> None:
    tree = {b"%04d" % number: {b"value": b"x" * 30, b"n": b"1"} for number in range(2000)}
    path = bolt_files.write(tmp_path / "db", {b"many": tree})
    assert _bolt.view(path, plain) == {b"many": tree}
    found = _bolt.view(path, lambda root: (len(root[b"many"]), root[b"many"][b"1999"][b"n"]))
    assert found == (2000, b"1")
    assert _bolt.view(path, lambda root: root[b"many"].get(b"none")) is None


@pytest.mark.parametrize("change", [4, 5])
def test_the_newer_meta_page_counts(tmp_path: Path, change: int) -> None:
    path = bolt_files.write(tmp_path / "db", {b"a": b"1"}, change)
    assert _bolt.view(path, plain) == {b"a": b"1"}
    # A change that was cut short: its checksum is wrong, and the one before it counts.
    content = bytearray(path.read_bytes())
    content[change % 2 * bolt_files.PAGE + 70] ^= 1
    path.write_bytes(content)
    assert _bolt.view(path, plain) == {}


def test_a_change_while_it_is_read(tmp_path: Path) -> None:
    path = bolt_files.write(tmp_path / "db", {b"a": b"old"}, 4)
    seen = []

    def work(root: _bolt.Bucket) -> Any:
        if not seen:
            # In place, as the daemon writes: the mapped pages change.
            newer = bolt_files.write(tmp_path / "newer", {b"a": b"new"}, 5).read_bytes()
            with path.open("r+b") as file:
                file.write(newer)
        seen.append(root[b"a"])
        return seen[-1]

    assert _bolt.view(path, work) == b"new"
    assert len(seen) == 2


def test_one_that_never_rests(tmp_path: Path) -> None:
    path = bolt_files.write(tmp_path / "db", {b"a": b"0"}, 4)
    changes = iter(range(5, 100))

    def work(_root: _bolt.Bucket) -> None:
        newer = bolt_files.write(tmp_path / "newer", {b"a": b"1"}, next(changes)).read_bytes()
        with path.open("r+b") as file:
            file.write(newer)

    with pytest.raises(_bolt.BoltError, match="faster than it can be read"):
        _bolt.view(path, work)


@pytest.mark.parametrize("content", [b"", b"too short", bytes(20_000)])
def test_no_database(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "db").write_bytes(content)
    with pytest.raises(_bolt.BoltError, match="database was wanted"):
        _bolt.view(tmp_path / "db", plain)


def test_a_damaged_page(tmp_path: Path) -> None:
    path = bolt_files.write(tmp_path / "db", {b"a": b"1"})
    content = bytearray(path.read_bytes())
    content[3 * bolt_files.PAGE :] = bytes(len(content) - 3 * bolt_files.PAGE)
    path.write_bytes(content)
    with pytest.raises(_bolt.BoltError, match="could not be read"):
        _bolt.view(path, plain)
