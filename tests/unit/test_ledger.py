# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The ledger of last uses: it remembers, forgets what is gone, and never invents."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ansible_collections.fleet.images.plugins.module_utils import _ledger
from ansible_collections.fleet.images.plugins.module_utils._ledger import Ledger, Seen

A, B = "sha256:a", "sha256:b"


def test_what_was_seen_is_remembered(tmp_path: Path) -> None:
    path = tmp_path / "new" / "ledger.json"
    first = Ledger()
    first.note([A, B], {A: 90}, 100)
    assert first.images == {A: Seen(100, 90), B: Seen(100)}
    _ledger.write(path, first)
    second = _ledger.read(path)
    assert second == first
    second.note([A, B], {B: 150}, 200)
    assert second.images == {A: Seen(100, 90), B: Seen(100, 150)}


def test_an_earlier_use_than_known_changes_nothing() -> None:
    ledger = Ledger({A: Seen(10, 500)})
    ledger.note([A], {A: 400}, 600)
    assert ledger.images == {A: Seen(10, 500)}


def test_what_is_gone_is_forgotten_and_begins_anew() -> None:
    ledger = Ledger({A: Seen(10, 20)})
    ledger.note([B], {}, 100)
    ledger.note([A], {}, 200)
    assert ledger.images == {A: Seen(200)}


def test_no_ledger_yet(tmp_path: Path) -> None:
    assert _ledger.read(tmp_path / "none") == Ledger()


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "null",
        '"text"',
        '{"images": {}}',
        '{"version": 2, "images": {}}',
        '{"version": 1}',
        '{"version": 1, "images": []}',
        '{"version": 1, "images": {"a": 5}}',
        '{"version": 1, "images": {"a": {}}}',
        '{"version": 1, "images": {"a": {"since": "yesterday"}}}',
        '{"version": 1, "images": {"a": {"since": -1}}}',
        '{"version": 1, "images": {"a": {"since": 1, "used": 1.5}}}',
        "\x00\x01",
    ],
)
def test_a_damaged_one_knows_nothing_and_says_so(tmp_path: Path, content: str) -> None:
    path = tmp_path / "ledger.json"
    path.write_text(content)
    found = _ledger.read(path)
    assert found.images == {}
    assert found.trouble.startswith(f"{path}: a ledger of last uses was wanted")
    assert path.read_text() == content


def test_a_directory_in_its_place(tmp_path: Path) -> None:
    assert "cannot be read" in _ledger.read(tmp_path).trouble


def test_it_is_written_whole(tmp_path: Path) -> None:
    path = tmp_path / "ledger.json"
    _ledger.write(path, Ledger({B: Seen(2), A: Seen(1, 3)}))
    assert json.loads(path.read_bytes()) == {
        "version": 1,
        "images": {A: {"since": 1, "used": 3}, B: {"since": 2}},
    }
    assert [one.name for one in tmp_path.iterdir()] == ["ledger.json"]
