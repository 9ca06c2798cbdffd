# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Engine's stream: every text that tells of an error is heard, wherever the pieces are cut."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from images import digest

from ansible_collections.fleet.images.plugins.module_utils._stream import messages, read

ID = digest("image")


def lines(*found: Any, end: str = "\r\n") -> bytes:
    return "".join(json.dumps(one, ensure_ascii=False) + end for one in found).encode()


def progress(current: int) -> dict[str, Any]:
    detail = {"current": current, "total": 100}
    return {"status": "Loading layer", "progressDetail": detail, "progress": "[=>]", "id": "abc"}


LOADED = {"stream": f"Loaded image ID: {ID}\n"}
PARTS = st.sampled_from(
    [LOADED, progress(5), {"stream": "Loaded image: app:1\n"}, {"stream": "ünïcode ✓ \\n }{\n"}]
    + [{"errorDetail": {"message": "no space"}, "error": "no space"}, {}, {"aux": {"ID": ID}}]
)


@given(
    found=st.lists(PARTS, max_size=5),
    end=st.sampled_from(["\n", "\r\n", "", " "]),
    cuts=st.lists(st.integers(0, 600), max_size=6).map(sorted),
)
def test_pieces_may_be_cut_anywhere(found: list[Any], end: str, cuts: list[int]) -> None:
    content = lines(*found, end=end)
    places = [0, *cuts, len(content)]
    chunks = [content[start:stop] for start, stop in zip(places, places[1:])]
    assert list(messages(chunks)) == found
    assert read(chunks) == read([content])


@given(st.binary(max_size=80) | st.text('[]{}":,\n a1', max_size=40).map(str.encode))
def test_any_stream_is_read_to_its_end(content: bytes) -> None:
    assert list(messages([content])) == list(
        messages([content[i : i + 1] for i in range(len(content))])
    )
    assert isinstance(read([content]).error, str)


def test_what_a_good_load_tells() -> None:
    told = read([lines(progress(1), progress(100), LOADED, {"stream": "Loaded image: app:1\n"})])
    assert (told.ids, told.names, told.error) == ([ID], ["app:1"], "")


def test_progress_alone_is_no_error() -> None:
    assert read([]).error == ""
    assert read([lines(progress(1), {"status": "The image app:1 already exists"})]).error == ""


@pytest.mark.parametrize(
    ("message", "error"),
    [
        ({"error": "no space left", "errorDetail": {"message": "no space left"}}, "no space left"),
        ({"error": "no space left"}, "no space left"),
        ({"errorDetail": {"code": 5, "message": "no space left"}}, "no space left"),
        ({"errorDetail": {"message": "no space left"}, "error": ""}, "no space left"),
        (
            {"stream": "Error unpacking image app:1: apply layer error\n"},
            "Error unpacking image app:1: apply layer error",
        ),
        ({"status": "Error unpacking image"}, "Error unpacking image"),
        ({"stream": "failed to extract layer: unexpected EOF"}, "failed to extract layer:"),
        ({"status": "ERROR: something"}, "ERROR: something"),
    ],
)
@pytest.mark.parametrize("after", [[], [LOADED]])
def test_errors_are_heard(message: Any, error: str, after: list[Any]) -> None:
    """Before or after `Loaded image`: some Engines say that first, and then what went wrong."""
    told = read([lines(LOADED, message, *after)])
    assert told.error.startswith(error)


def test_errors_are_told_once_and_all() -> None:
    told = read([lines({"error": "one"}, {"error": "two"}, {"error": "one"})])
    assert told.error == "one; two"


def test_a_very_long_error_is_cut() -> None:
    assert len(read([lines({"error": "x" * 100_000})]).error) == 2000


def test_objects_without_newline_between() -> None:
    told = read([lines(progress(1), LOADED, {"error": "bad"}, end="")])
    assert (told.ids, told.error) == ([ID], "bad")


@pytest.mark.parametrize(
    "junk",
    [b"<html>502</html>", b"{", b'{"stream": "cut', b"5", b"null", b'"x"', b"\xff\xfe", b"[]"],
)
def test_junk_is_an_error(junk: bytes) -> None:
    assert read([lines(LOADED), junk]).error
    assert read([lines(LOADED), junk + b"\n", lines(LOADED)]).ids == [ID, ID]


def test_nesting_without_end_is_an_error() -> None:
    assert "no JSON" in read([b"[" * 100_000]).error


@pytest.mark.parametrize("detail", [None, [], "text", 5, {}, {"message": None}])
def test_odd_details_do_no_harm(detail: Any) -> None:
    assert read([lines({"errorDetail": detail, "stream": "fine"})]).error == ""


def test_names_of_images_are_no_errors() -> None:
    assert read([lines({"stream": "Loaded image: registry.example.com/error/app:1\n"})]).error == ""


def test_a_line_without_an_end_does_not_fill_the_memory() -> None:
    endless = (b" " * (1 << 20) for _chunk in range(1 << 20))
    assert "a line of more than" in read(endless).error
