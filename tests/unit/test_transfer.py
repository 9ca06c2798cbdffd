# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Parts on their way: a broken transfer goes on, and only into a directory of one's own."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import subprocess
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ansible.errors")

from ansible.errors import AnsibleActionFail

from ansible_collections.fleet.images.plugins.module_utils._parts import Part, cut
from ansible_collections.fleet.images.plugins.plugin_utils import _transfer
from ansible_collections.fleet.images.plugins.plugin_utils._transfer import (
    Bringing,
    Staging,
    cut_once,
)

NOBODY = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
CONTENT = bytes(range(256)) * 10
PART = 1000


class Host:
    """A host that is a directory here: `run` is a local shell, `put` copies."""

    def __init__(self, directory: Path) -> None:
        self.base = directory / "a base" / "fleet-images"
        self.put_files: list[str] = []
        self.lines: list[str] = []
        self.breaks_at: str | None = None
        self.path = os.environ["PATH"]

    def run(self, line: str) -> tuple[int, str, str]:
        self.lines.append(line)
        command, environment = ["/bin/sh", "-c", line], {"PATH": self.path}
        done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
        return done.returncode, done.stdout, done.stderr

    def put(self, local: str, remote: str) -> None:
        name = Path(remote).name
        content = Path(local).read_bytes()
        if name == self.breaks_at:
            Path(remote).write_bytes(content[: len(content) // 2])
            raise ConnectionError("the line is dead")
        self.put_files.append(name)
        Path(remote).write_bytes(content)

    def staging(self, name: str = "0123456789abcdef") -> Staging:
        return Staging(self.run, self.put, str(self.base), name)

    def there(self) -> bytes:
        files = sorted((self.base / "0123456789abcdef").glob("*.part"))
        return b"".join(path.read_bytes() for path in files)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "bundle.tar"
    path.write_bytes(CONTENT)
    return path


@dataclass(frozen=True)
class Sent:
    """What a transfer did: paths on the host in order, bytes sent, bytes that were there."""

    paths: list[str]
    sent: int
    resumed: int


def send(host: Host, file: Path, part_size: int = PART, name: str = "0123456789abcdef") -> Sent:
    staging, parts = host.staging(name), cut([file], part_size)[0]
    lacking = staging.begin(parts)
    bringing = Bringing(staging, [file], lacking)
    bringing.run()
    there = len(CONTENT) - sum(part.size for part in lacking)
    return Sent([staging.place(part) for part in parts], bringing.sent, there)


def test_all_parts_arrive(host: Host, file: Path) -> None:
    sent = send(host, file)
    assert (sent.sent, sent.resumed) == (len(CONTENT), 0)
    assert b"".join(Path(path).read_bytes() for path in sent.paths) == CONTENT == host.there()
    for path in (host.base, host.base / "0123456789abcdef"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700


def test_one_part_is_the_file_itself(host: Host, file: Path) -> None:
    assert send(host, file, 1 << 20).paths == [str(host.base / "0123456789abcdef/00000.part")]
    assert host.there() == CONTENT


def test_what_is_there_is_not_sent_again(host: Host, file: Path) -> None:
    send(host, file)
    host.put_files.clear()
    sent = send(host, file)
    assert (sent.sent, sent.resumed, host.put_files) == (0, len(CONTENT), [])
    assert len(sent.paths) == 3


def test_a_broken_transfer_goes_on_where_it_stopped(host: Host, file: Path) -> None:
    host.breaks_at = "00001.part"
    with pytest.raises(ConnectionError):
        send(host, file)
    host.breaks_at = None
    host.put_files.clear()
    sent = send(host, file)
    assert (sent.sent, sent.resumed) == (len(CONTENT) - PART, PART)
    assert host.put_files == ["00001.part", "00002.part"]
    assert host.there() == CONTENT


def test_a_part_with_other_content_is_sent_again(host: Host, file: Path) -> None:
    sent = send(host, file)
    Path(sent.paths[2]).write_bytes(b"x" * 560)
    host.put_files.clear()
    assert send(host, file).sent == len(CONTENT) - 2 * PART
    assert host.there() == CONTENT
    assert host.put_files == ["00002.part"]


def test_leftovers_of_another_file_do_no_harm(host: Host, file: Path) -> None:
    sent = send(host, file)
    here = Path(sent.paths[0]).parent
    (here / "00009.part").write_bytes(b"old")
    (here / "a directory.part").mkdir()
    assert send(host, file).paths == sent.paths


def test_removal_leaves_what_others_have_there(host: Host, file: Path) -> None:
    send(host, file)
    other = host.staging("fedcba9876543210")
    send(host, file, name="fedcba9876543210")
    host.staging().remove()
    assert [path.name for path in host.base.iterdir()] == ["fedcba9876543210"]
    other.remove()
    assert not host.base.exists()
    host.staging().remove()


def refused(host: Host, file: Path) -> str:
    with pytest.raises(AnsibleActionFail, match="set staging_dir") as caught:
        send(host, file)
    assert host.put_files == []
    return str(caught.value)


@as_root
def test_a_directory_of_another_user_is_refused(host: Host, file: Path) -> None:
    host.base.mkdir(parents=True)
    os.chown(host.base, NOBODY, -1)
    assert "wanted a directory of the login user's own" in refused(host, file)
    (host.base / "0123456789abcdef").mkdir()
    assert "wanted a directory of the login user's own" in refused(host, file)


def test_a_link_is_refused(host: Host, file: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    host.base.parent.mkdir()
    host.base.symlink_to(elsewhere)
    assert "wanted a directory of the login user's own" in refused(host, file)
    assert list(elsewhere.iterdir()) == []


def test_what_others_could_write_to_is_closed(host: Host, file: Path) -> None:
    host.base.mkdir(parents=True)
    host.base.chmod(0o777)
    send(host, file)
    assert stat.S_IMODE(host.base.stat().st_mode) == 0o700


def test_a_directory_that_cannot_be_made(host: Host, file: Path) -> None:
    host.base.parent.write_text("a file")
    message = refused(host, file)
    assert "could not make one (" in message
    assert "a base" in message


@pytest.mark.parametrize("free", [0, 1, 2])
def test_space_is_looked_at_before(host: Host, file: Path, tmp_path: Path, free: int) -> None:
    """As `df -Pk` says it, in blocks of 1024 bytes; what is there already needs none."""
    tools = tmp_path / "tools"
    tools.mkdir()
    fake = tools / "df"
    fake.write_text(
        "#!/bin/sh\necho Filesystem 1024-blocks Used Available Capacity Mounted on\n"
        f"echo /dev/vda1 100 98 {free} 98% /\n"
    )
    fake.chmod(0o755)
    real, host.path = host.path, f"{tools}:{host.path}"
    message = refused(host, file)
    assert f"{len(CONTENT)} bytes are wanted free for the bundle, {free * 1024} are" in message
    host.path = real
    sent = send(host, file)
    Path(sent.paths[0]).unlink()
    host.path = f"{tools}:{host.path}"
    host.put_files.clear()
    if free * 1024 < PART:
        refused(host, file)
    else:
        assert send(host, file).sent == PART


@pytest.mark.skipif(not shutil.which("dash"), reason="no dash")
def test_the_shell_need_not_be_bash(host: Host, file: Path, monkeypatch: Any) -> None:
    real = subprocess.run

    def run(command: list[str], check: bool = False, **how: Any) -> Any:
        return real(["dash", *command[1:]], check=check, **how)

    monkeypatch.setattr(subprocess, "run", run)
    assert send(host, file).sent == len(CONTENT)
    assert send(host, file).resumed == len(CONTENT)


def test_names_that_a_shell_would_read(host: Host, file: Path, tmp_path: Path) -> None:
    host.base = tmp_path / "$(touch evil); 'x' & y"
    sent = send(host, file)
    assert host.there() == CONTENT
    assert sent.paths[0].startswith(str(host.base))
    host.staging().remove()
    assert not host.base.exists()
    assert not (tmp_path / "evil").exists() and not Path("evil").exists()


def test_a_part_is_described_by_its_checksum(file: Path) -> None:
    parts, _whole = cut([file], PART)
    assert parts[0] == Part("00000.part", 0, PART, hashlib.sha256(CONTENT[:PART]).hexdigest())


def piped(host: Host, file: Path) -> str:
    def run(line: str, content: bytes) -> tuple[int, str, str]:
        done = subprocess.run(["sh", "-c", line], input=content, check=False, capture_output=True)
        return done.returncode, done.stdout.decode(), done.stderr.decode()

    staging, (part,) = host.staging(), cut([file])[0]
    staging.pipe(run, file, part)
    return staging.place(part)


def test_a_small_file_goes_through_a_shell(host: Host, file: Path) -> None:
    assert piped(host, file) == str(host.base / "0123456789abcdef/00000.part")
    assert host.there() == CONTENT
    for path in (host.base, host.base / "0123456789abcdef"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    host.staging().remove()
    assert not host.base.exists()


@as_root
def test_a_small_file_goes_to_no_strangers_directory(host: Host, file: Path) -> None:
    (host.base / "0123456789abcdef").mkdir(parents=True)
    os.chown(host.base, NOBODY, NOBODY)
    with pytest.raises(AnsibleActionFail, match="of the login user's own"):
        piped(host, file)
    assert host.there() == b""


def test_files_are_read_once_for_all_hosts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, notes = tmp_path / "bundle", tmp_path / "run"
    notes.mkdir()
    file.write_bytes(CONTENT)
    expected = cut([file])
    assert cut_once([file], notes) == expected
    monkeypatch.setattr(_transfer, "cut", None)
    assert cut_once([file], notes) == expected
    monkeypatch.undo()
    file.write_bytes(CONTENT + b"more")
    assert cut_once([file], notes) == cut([file]) != expected


def test_a_note_that_was_cut_short_is_made_anew(tmp_path: Path) -> None:
    file, notes = tmp_path / "bundle", tmp_path / "run"
    notes.mkdir()
    file.write_bytes(CONTENT)
    cut_once([file], notes)
    (note,) = notes.iterdir()
    note.write_text(note.read_text()[:20])
    assert cut_once([file], notes) == cut([file])
    assert cut_once([file], notes) == cut([file])


def background(host: Host, file: Path) -> Bringing:
    staging, parts = host.staging(), cut([file], PART)[0]
    return Bringing(staging, [file], staging.begin(parts))


def test_parts_are_sent_beside_what_goes_on(host: Host, file: Path) -> None:
    """What is on its way when enough has come is sent whole, and nothing after it."""
    first, go_on, put = threading.Event(), threading.Event(), host.put

    def slow(local: str, remote: str) -> None:
        first.set()
        assert go_on.wait(10)
        put(local, remote)

    host.put = slow  # type: ignore[method-assign]
    bringing = background(host, file)
    bringing.start()
    assert first.wait(10)
    threading.Timer(0.2, go_on.set).start()
    bringing.end()
    assert (bringing.sent, bringing.error, host.put_files) == (PART, None, ["00000.part"])


def test_the_host_is_told_that_a_transfer_broke_off(host: Host, file: Path) -> None:
    host.breaks_at = "00001.part"
    bringing = background(host, file)
    bringing.start()
    bringing._thread.join()
    bringing.end()
    assert isinstance(bringing.error, ConnectionError)
    assert bringing.sent == PART
    stop = host.base / "0123456789abcdef" / "stop"
    assert stop.read_bytes() == b""
    host.breaks_at = None
    background(host, file)
    assert not stop.exists()


def test_a_transfer_that_never_began_is_stopped(host: Host, file: Path) -> None:
    bringing = background(host, file)
    bringing.end()
    assert (bringing.sent, bringing.error) == (0, None)


def test_a_broken_part_goes_before_anybody_waits_for_it(host: Host, file: Path) -> None:
    sent = send(host, file)
    Path(sent.paths[1]).write_bytes(b"x" * PART)
    staging, parts = host.staging(), cut([file], PART)[0]
    assert staging.begin(parts) == [parts[1]]
    assert [Path(path).exists() for path in sent.paths] == [True, False, True]
