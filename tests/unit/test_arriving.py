# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Parts that are still being sent: waited for, checked, and given up where nothing comes."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ansible_collections.fleet.images.plugins.module_utils import _arriving
from ansible_collections.fleet.images.plugins.module_utils._arriving import STOP, Arriving
from ansible_collections.fleet.images.plugins.module_utils._parts import Concatenated, PartError

CONTENTS = [b"a" * 1000, b"b" * 1000, b"c" * 10]


def parts(here: Path, patience: int = 10) -> list[Arriving]:
    return [
        Arriving(
            here / f"{number}.part", len(content), hashlib.sha256(content).hexdigest(), patience
        )
        for number, content in enumerate(CONTENTS)
    ]


@pytest.fixture
def later() -> Callable[[Callable[[], object]], None]:
    """Does something while the test waits."""

    def start(work: Callable[[], object]) -> None:
        threading.Timer(0.1, work).start()

    return start


def test_who_reads_waits_for_what_comes(
    tmp_path: Path, later: Callable[[Callable[[], object]], None]
) -> None:
    def bring() -> None:
        for number in (2, 0, 1):
            path = tmp_path / f"{number}.part"
            half = len(CONTENTS[number]) // 2
            path.write_bytes(CONTENTS[number][:half])
            time.sleep(0.05)
            path.write_bytes(CONTENTS[number])

    with Concatenated(parts(tmp_path)) as file:
        assert file.size == 2010
        later(bring)
        assert file.read() == b"".join(CONTENTS)
        file.seek(995)
        assert file.read(10) == b"a" * 5
        assert file.read(5) == b"b" * 5


def test_only_what_is_read_is_waited_for(tmp_path: Path) -> None:
    (tmp_path / "1.part").write_bytes(CONTENTS[1])
    with Concatenated(parts(tmp_path)) as file:
        file.seek(1500)
        assert file.read(500) == b"b" * 500


def test_a_part_is_read_and_compared_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many blobs lie in one part, and several streams read at once."""
    (tmp_path / "0.part").write_bytes(CONTENTS[0])
    part = parts(tmp_path)[0]
    part.wait()
    monkeypatch.setattr(_arriving, "sha256_of", None)
    with part.open() as file:
        assert file.read() == CONTENTS[0]


def test_a_part_that_stays_another_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "0.part"
    path.write_bytes(b"x" * 1000)
    os.utime(path, (1, 1))
    with pytest.raises(PartError, match=r"wanted SHA-256 .*, found .*; it is damaged"):
        parts(tmp_path)[0].open()


def test_without_a_checksum_the_size_tells(tmp_path: Path) -> None:
    (tmp_path / "0.part").write_bytes(b"x" * 999)
    part = Arriving(tmp_path / "0.part", 1000, "", 0)
    with pytest.raises(PartError, match="1000 bytes are wanted, nothing came"):
        part.open()
    (tmp_path / "0.part").write_bytes(b"x" * 1000)
    assert part.open().read() == b"x" * 1000


def test_a_part_that_is_being_written_over_is_waited_for(
    tmp_path: Path, later: Callable[[Callable[[], object]], None]
) -> None:
    path = tmp_path / "0.part"
    path.write_bytes(b"x" * 1000)
    later(lambda: path.write_bytes(CONTENTS[0]))
    assert parts(tmp_path)[0].wait().read_bytes() == CONTENTS[0]


def test_a_sender_that_gives_up_ends_the_wait(
    tmp_path: Path, later: Callable[[Callable[[], object]], None]
) -> None:
    later((tmp_path / STOP).touch)
    with pytest.raises(PartError, match="1000 bytes are wanted, the transfer broke off"):
        parts(tmp_path)[0].open()


def test_what_came_before_the_sender_gave_up_is_read(tmp_path: Path) -> None:
    (tmp_path / "0.part").write_bytes(CONTENTS[0])
    (tmp_path / STOP).touch()
    assert parts(tmp_path)[0].open().read() == CONTENTS[0]


@pytest.mark.parametrize("there", [True, False])
def test_patience_ends_where_nothing_comes(tmp_path: Path, there: bool) -> None:
    here = tmp_path if there else tmp_path / "missing"
    with pytest.raises(PartError, match="nothing came for 0 seconds; run it again"):
        parts(here, patience=0)[0].open()


def test_patience_begins_anew_with_every_byte(
    tmp_path: Path, later: Callable[[Callable[[], object]], None]
) -> None:
    """Another part that grows is a sign of life, too."""

    def bring() -> None:
        for size in range(0, 1001, 100):
            (tmp_path / "1.part").write_bytes(CONTENTS[1][:size])
            time.sleep(0.15)
        (tmp_path / "0.part").write_bytes(CONTENTS[0])

    later(bring)
    began = time.monotonic()
    parts(tmp_path, patience=1)[0].wait()
    assert time.monotonic() - began > 1.2
