# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lock of an Engine: one writer at a time, and a dead one holds nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from ansible_collections.fleet.images.plugins.module_utils import _hostlock
from ansible_collections.fleet.images.plugins.module_utils._hostlock import HostLock, LockTimeout

ENGINE = "unix:///var/run/docker.sock"
NOBODY = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
# Holds the lock until it is killed.
HOLDER = """
import sys, time
from pathlib import Path
from ansible_collections.fleet.images.plugins.module_utils._hostlock import HostLock
with HostLock({engine!r}, "image_load", 0, (Path({place!r}),)):
    print("held", flush=True)
    time.sleep(100)
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    path = tmp_path / "run" / "lock"
    path.mkdir(parents=True)
    path.chmod(0o1777)
    return path


def lock(place: Path, timeout: int = 0, engine: str = ENGINE) -> HostLock:
    return HostLock(engine, "image_pull", timeout, (place,))


def other_process(place: Path) -> subprocess.Popen[str]:
    script = HOLDER.format(engine=ENGINE, place=str(place))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    child = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env=environment
    )
    assert child.stdout is not None and child.stdout.readline() == "held\n"
    return child


def test_one_after_the_other(place: Path) -> None:
    with lock(place) as held:
        assert held.path.stat().st_size > 0
    assert held.path.read_bytes() == b""
    with lock(place):
        pass


def test_who_holds_it_is_told(place: Path) -> None:
    child = other_process(place)
    with pytest.raises(LockTimeout) as caught, lock(place):
        pass
    message = str(caught.value)
    child.kill()
    child.wait()
    assert f"image_load of {_hostlock._user()} (process {child.pid}, since " in message
    assert "image_pull wanted to write images for 0 seconds" in message
    assert "set lock_timeout" in message and len(message.splitlines()) == 1


def test_a_dead_process_holds_nothing(place: Path) -> None:
    child = other_process(place)
    child.kill()
    child.wait()
    with lock(place) as held:
        assert f'"pid": {os.getpid()}' in held.path.read_text()


def test_it_is_waited_for(place: Path) -> None:
    child = other_process(place)
    threading.Timer(0.3, child.kill).start()
    began = time.monotonic()
    with lock(place, timeout=20):
        assert 0.2 < time.monotonic() - began < 10
    child.wait()


def test_what_breaks_inside_gives_it_back(place: Path) -> None:
    with pytest.raises(RuntimeError), lock(place):
        raise RuntimeError
    with lock(place):
        pass


@pytest.mark.parametrize("content", [b"", b"no JSON", b"[1]", b'{"at": "x"}', b'{"at": 1e400}'])
def test_a_holder_that_says_nothing(place: Path, content: bytes) -> None:
    child = other_process(place)
    lock(place).path.write_bytes(content)
    with pytest.raises(LockTimeout, match="but another process does so"), lock(place):
        pass
    child.kill()
    child.wait()


def test_engines_have_locks_of_their_own(place: Path, tmp_path: Path) -> None:
    with lock(place), lock(place, engine="ssh://root@other"):
        pass
    (tmp_path / "docker.sock").touch()
    (tmp_path / "link").symlink_to(tmp_path)
    paths = {
        lock(place, engine=f"unix://{tmp_path}/{name}").path
        for name in ("docker.sock", "link/docker.sock", "./docker.sock")
    }
    assert len(paths) == 1


def test_all_users_take_the_same_place(tmp_path: Path, place: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o755)
    places = (tmp_path / "missing", closed, place)
    assert HostLock(ENGINE, "image_pull", 0, places).path.parent == place


@as_root
def test_another_users_file_is_locked_all_the_same(place: Path, tmp_path: Path) -> None:
    """And nobody is led elsewhere by a link."""
    path = lock(place).path
    path.write_text('{"what": "image_load", "user": "nobody", "pid": 1, "at": 0}')
    os.chown(path, NOBODY, NOBODY)
    with lock(place), pytest.raises(LockTimeout), lock(place):
        pass
    path.unlink()
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match=r"symbolic|levels"), lock(place):
        pass
    assert not (tmp_path / "elsewhere").exists()


def as_nobody(place: Path) -> str:
    """How another user fares with the lock."""
    child = os.fork()
    if not child:
        code = 9
        try:
            os.setuid(NOBODY)
            with lock(place):
                code = 1
        except LockTimeout as error:
            code = 2 if "image_pull of " in str(error) else 3
        finally:
            os._exit(code)
    outcomes = {1: "held it", 2: "was told who has it", 3: "was told something", 9: "broke"}
    return outcomes[os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])]


@as_root
def test_a_user_who_may_not_write_the_file_still_waits() -> None:
    with tempfile.TemporaryDirectory() as root:
        Path(root).chmod(0o755)
        place = Path(root) / "lock"
        place.mkdir()
        place.chmod(0o1777)
        with lock(place):
            assert as_nobody(place) == "was told who has it"
        assert as_nobody(place) == "held it"
