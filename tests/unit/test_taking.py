# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files that come to the controller while the host still writes them."""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path

import pytest

pytest.importorskip("ansible.errors")

from ansible_collections.fleet.images.plugins.module_utils._parts import (
    PartError,
    part_name,
    sha256_of,
)
from ansible_collections.fleet.images.plugins.plugin_utils import _taking
from ansible_collections.fleet.images.plugins.plugin_utils._taking import Taking


class Host:
    """A host that is a directory here."""

    def __init__(self, directory: Path) -> None:
        self.here, self.there = directory / "the controller", directory / "a host's"
        self.here.mkdir()
        self.there.mkdir()
        self.fetched: list[str] = []

    def run(self, line: str) -> str:
        done = subprocess.run(["/bin/sh", "-c", line], check=False, capture_output=True, text=True)
        assert not done.stderr
        return done.stdout

    def fetch(self, path: str, local: str) -> None:
        shutil.copy(path, local)
        self.fetched.append(Path(path).name)  # last: `wait_for` tells that the copy was made

    def taking(self, *names: str) -> Taking:
        paths = [str(self.there / name) for name in names]
        return Taking(self.run, self.fetch, paths, self.here)

    def write(self, name: str, number: int, content: str) -> str:
        """Appears whole, as the parts of a bundle do: a look may come at any moment."""
        part = part_name(self.there / name, number)
        beside = self.there / "beside"
        beside.write_text(content)
        beside.replace(part)
        return str(part)

    def wait_for(self, count: int) -> None:
        deadline = time.monotonic() + 10
        while len(self.fetched) < count:
            assert time.monotonic() < deadline, self.fetched
            time.sleep(0.01)


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    monkeypatch.setattr(_taking, "_BEFORE", 0.0)
    return Host(tmp_path)


def test_parts_come_while_the_next_ones_are_written(host: Host) -> None:
    """One bundle after the other, whose number of parts nobody knows before."""
    taking = host.taking("a.tar", "b.tar")
    taking.start()
    written = []
    for name, number in (("a.tar", 1), ("a.tar", 2), ("b.tar", 1)):
        written.append(host.write(name, number, f"{name} {number}"))
        host.wait_for(len(written))
    written.append(host.write("b.tar", 2, "b.tar 2"))
    taking.end()
    taken = [taking.take(path, sha256_of(Path(path))) for path in written]
    assert [path.read_text() for path in taken] == ["a.tar 1", "a.tar 2", "b.tar 1", "b.tar 2"]
    assert host.fetched == [Path(path).name for path in written]
    assert sorted(host.here.iterdir()) == sorted(taken)


def test_what_is_there_in_the_end_is_taken_then(host: Host) -> None:
    taking = host.taking("a.tar")
    path = host.write("a.tar", 1, "content")
    taking.end()
    assert taking.take(path, sha256_of(Path(path))).read_text() == "content"


def test_a_quick_task_is_not_asked(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_taking, "_BEFORE", 60.0)
    taking = host.taking("a.tar")
    host.run = None  # type: ignore[assignment, method-assign]
    taking.start()
    taking.end()
    assert host.fetched == []


def test_a_part_of_an_older_bundle_is_taken_again(host: Host) -> None:
    path = host.write("a.tar", 1, "old")
    taking = host.taking("a.tar")
    taking.start()
    host.wait_for(1)
    host.write("a.tar", 1, "new")
    taking.end()
    assert taking.take(path, sha256_of(Path(path))).read_text() == "new"
    assert host.fetched == ["a.tar.part001"] * 2


def test_a_part_that_stays_another_is_refused(host: Host) -> None:
    path = host.write("a.tar", 1, "content")
    taking = host.taking("a.tar")
    with pytest.raises(PartError, match=r"a.tar.part001: wanted SHA-256 00, found \w{64} after"):
        taking.take(path, "00")
    assert list(host.here.iterdir()) == []


def test_a_connection_that_breaks_is_tried_once_more(host: Host) -> None:
    """What goes wrong beside the task is told only if it goes wrong after it, too."""
    broken = [True]

    def fetch(path: str, local: str) -> None:
        Path(local).write_text("half")
        if broken:
            broken.clear()
            raise ConnectionError("the line is dead")
        host_fetch(path, local)

    host_fetch, host.fetch = host.fetch, fetch  # type: ignore[method-assign]
    path = host.write("a.tar", 1, "content")
    taking = host.taking("a.tar")
    taking.start()
    taking._thread.join()
    taking.end()
    assert list(host.here.iterdir()) == []
    assert taking.take(path, sha256_of(Path(path))).read_text() == "content"
