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
    parts, whole = cut([path], part_size)
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
    assert [part.size for part in cut([path])[0]] == [_parts.PART_SIZE, 5]
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


# archives that were split for a stick


def parts_of(directory: Path, *numbers: int, name: str = "my.tar") -> list[Path]:
    """Split parts with one byte each: the number."""
    made = [_parts.part_name(directory / name, number) for number in numbers]
    for number, path in zip(numbers, made):
        path.write_bytes(bytes([number % 256]))
    return made


def sums_of(*files: Path, mode: str = " ", directory: str = "") -> str:
    return "".join(f"{sha256_of(file)} {mode}{directory}{file.name}\n" for file in files)


def test_a_part_has_the_number_behind_the_name(tmp_path: Path) -> None:
    names = [_parts.part_name(tmp_path / "my.tar", number).name for number in (1, 20, 1000)]
    assert names == ["my.tar.part001", "my.tar.part020", "my.tar.part1000"]


def test_parts_are_found_by_the_name_of_the_whole_or_the_first(tmp_path: Path) -> None:
    made = parts_of(tmp_path, *range(1, 1002))
    parts_of(tmp_path, 1, 2, name="other.tar")
    assert _parts.split_parts(tmp_path / "my.tar") == made
    assert _parts.split_parts(made[0]) == made


def test_a_whole_archive_is_itself(tmp_path: Path) -> None:
    path = tmp_path / "my.tar"
    path.write_bytes(b"whole")
    assert _parts.split_parts(path) == [path]
    parts_of(tmp_path, 1, 2)
    assert _parts.split_parts(path) == [path]


@pytest.mark.parametrize("gone", [1, 2, 3])
def test_a_missing_part_is_refused(tmp_path: Path, gone: int) -> None:
    made = parts_of(tmp_path, 1, 2, 3, 4)
    made[gone - 1].unlink()
    with pytest.raises(PartError, match=rf"my.tar.part00{gone}: this part .* is not there; copy"):
        _parts.split_parts(tmp_path / "my.tar")


def test_an_archive_that_is_not_there(tmp_path: Path) -> None:
    for name in ("my.tar", "my.tar.part001"):
        with pytest.raises(FileNotFoundError, match=name):
            _parts.split_parts(tmp_path / name)


@pytest.mark.parametrize("mode", [" ", "*"], ids=["text", "binary"])
@pytest.mark.parametrize("directory", ["", "./", "/media/stick/"], ids=["bare", "here", "path"])
def test_checksums_of_parts_and_of_the_whole(tmp_path: Path, mode: str, directory: str) -> None:
    path = tmp_path / "my.tar"
    made = parts_of(tmp_path, 1, 2)
    _parts.check_sums(path, made)  # nothing to compare with
    sums = _parts.checksum_name(path)
    assert sums.name == "my.tar.sha256"
    sums.write_text(sums_of(*made, mode=mode, directory=directory))
    _parts.check_sums(path, made)
    _parts.check_sums(made[0], made)
    path.write_bytes(b"whole")
    sums.write_text(sums_of(path, mode=mode, directory=directory))
    _parts.check_sums(path, [path])


def test_what_the_checksums_do_not_confirm_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "my.tar"
    made = parts_of(tmp_path, 1, 2, 3)
    sums = _parts.checksum_name(path)
    sums.write_text(sums_of(*made))
    made[1].write_bytes(b"other")
    with pytest.raises(PartError, match=r"my.tar.part002: wanted SHA-256"):
        _parts.check_sums(path, made)
    made[2].unlink()  # no gap shows that the last is missing
    with pytest.raises(PartError, match=r"my.tar.part003: this part .* is not there"):
        _parts.check_sums(path, _parts.split_parts(path))
    sums.write_text(sums_of(made[0]))
    with pytest.raises(PartError, match=r"my.tar.sha256: wanted a line for my.tar.part002"):
        _parts.check_sums(path, made[:2])
    sums.write_bytes(b"\xff\x00 nothing of use")
    with pytest.raises(PartError, match=r"my.tar.sha256: wanted a line for my.tar.part001"):
        _parts.check_sums(path, made[:2])
