# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Parts: cut on the controller, checked and read as one file on the host."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from images import digest

from ansible_collections.fleet.images.plugins.module_utils import _parts
from ansible_collections.fleet.images.plugins.module_utils._parts import (
    Concatenated,
    PartError,
    check_sha256,
    cut,
    pieces,
    sha256_of,
)


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@given(content=st.binary(max_size=200), part_size=st.integers(1, 250))
def test_parts_are_the_file(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, part_size: int
) -> None:
    path = tmp_path_factory.mktemp("parts") / "file"
    path.write_bytes(content)
    parts, whole = cut(path, part_size)
    assert whole == sha(content)
    found = b""
    for number, part in enumerate(parts):
        piece = content[part.offset : part.offset + part.size]
        assert (part.name, part.offset) == (f"{number:05d}.part", len(found))
        assert part.sha256 == sha(piece)
        assert 0 < len(piece) <= part_size
        found += piece
    assert found == content


def test_parts_are_large_and_read_in_small_pieces(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with path.open("wb") as file:
        file.truncate(_parts.PART_SIZE + 5)
    assert [part.size for part in cut(path)[0]] == [_parts.PART_SIZE, 5]
    with path.open("rb") as file:
        sizes = {len(piece) for piece in pieces(file, _parts.PART_SIZE)}
    assert sizes == {_parts.CHUNK}


def test_pieces_stop_where_the_file_does() -> None:
    assert b"".join(pieces(io.BytesIO(b"abc"), 10)) == b"abc"
    assert b"".join(pieces(io.BytesIO(b"abc"), 2)) == b"ab"
    assert list(pieces(io.BytesIO(b"abc"), 0)) == []


def test_a_checksum_is_compared(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"content")
    assert sha256_of(path) == sha(b"content")
    check_sha256(path, sha(b"content"))
    check_sha256(path, sha(b"content").upper())
    with pytest.raises(PartError, match=rf"wanted SHA-256 00, found {sha(b'content')}; it is dam"):
        check_sha256(path, "00")
    with pytest.raises(FileNotFoundError):
        check_sha256(tmp_path / "nothing", "00")


@given(
    contents=st.lists(st.binary(max_size=12), max_size=5),
    steps=st.lists(st.tuples(st.sampled_from("rst"), st.integers(0, 40)), max_size=8),
)
def test_several_files_read_as_one(
    tmp_path_factory: pytest.TempPathFactory, contents: list[bytes], steps: list[tuple[str, int]]
) -> None:
    """Like the file that holds them all, whatever is read and wherever one seeks."""
    directory = tmp_path_factory.mktemp("parts")
    paths = []
    for number, content in enumerate(contents):
        paths.append(directory / str(number))
        paths[-1].write_bytes(content)
    model = io.BytesIO(b"".join(contents))
    with Concatenated(paths) as raw:
        assert raw.size == len(model.getvalue())
        file = io.BufferedReader(raw, 4)
        for step, number in steps:
            if step == "r":
                assert file.read(number) == model.read(number)
            elif step == "s":
                assert file.seek(number) == model.seek(number)
            else:
                assert file.seek(-min(number, raw.size), 2) == model.seek(-min(number, raw.size), 2)
            assert file.tell() == model.tell()
        file.seek(0)
        assert file.read() == model.getvalue()


def test_a_part_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Concatenated([tmp_path / digest("nothing")[7:]])
