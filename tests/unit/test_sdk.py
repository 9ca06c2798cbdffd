# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A pack on a host: unpacked whole or not at all, trusted or refused, and first on sys.path."""

from __future__ import annotations

import gzip
import hashlib
import io
import itertools
import os
import stat
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from ansible_collections.fleet.images.plugins.module_utils import _sdk

REQUIREMENTS = b"parrot==1.0\n"
KEY = hashlib.sha256(REQUIREMENTS).hexdigest()[:16]
NOBODY = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


def _member(name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.size, member.linkname = kind, len(content), "/etc/passwd"
    # What an archive says about owners and modes must not matter.
    member.mode, member.uid = 0o4777, NOBODY
    return member


def _pack(*extra: tarfile.TarInfo, requirements: bytes = REQUIREMENTS) -> bytes:
    """A pack with the package ``parrot``, and ``extra`` members."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        code = b"__version__ = '1.0'\n"
        tar.addfile(_member("parrot/__init__.py", code), io.BytesIO(code))
        tar.addfile(_member(_sdk.MANIFEST, requirements), io.BytesIO(requirements))
        for member in extra:
            tar.addfile(member, io.BytesIO(b"\0" * member.size))
    return gzip.compress(buffer.getvalue(), mtime=0)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty directory for packs, where _sdk looks for them; sys.path is restored after."""
    path = tmp_path / "sdk"
    path.mkdir(mode=0o755)
    monkeypatch.setenv(_sdk.ENVIRONMENT, str(path))
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "parrot", raising=False)
    return path


@pytest.fixture
def pack(home: Path) -> Path:
    """A pack that is installed in ``home``."""
    source, content = home.parent / "sent.tar.gz", _pack()
    source.write_bytes(content)
    old = os.umask(0o022)
    try:
        _sdk.Store(home, KEY).apply(str(source), hashlib.sha256(content).hexdigest())
    finally:
        os.umask(old)
    return home / KEY


def test_store_installs_and_switches(home: Path, pack: Path) -> None:
    assert os.readlink(home / "current") == KEY
    assert _sdk.Store(home, KEY).done
    assert stat.S_IMODE((pack / "parrot/__init__.py").stat().st_mode) == 0o644
    assert (pack / "parrot/__init__.py").stat().st_uid == os.geteuid()
    tag = sys.implementation.cache_tag
    assert [p.name for p in (pack / "parrot/__pycache__").iterdir()] == [f"__init__.{tag}.pyc"]


def test_store_mends_link_bytecode_and_leftovers(home: Path, pack: Path) -> None:
    (home / "current").unlink()
    (home / f".{KEY}.tmpabc").mkdir()
    (home / "0123456789abcdef").mkdir()
    (home / f"fleet-images-sdk-{KEY}.tar.gz").touch()
    (home / "not-ours").touch()
    for compiled in (pack / "parrot/__pycache__").iterdir():
        compiled.unlink()
    store = _sdk.Store(home, KEY)
    assert not store.done and not store.missing
    assert store.apply("", "")
    assert store.done and store.apply("", "") is False
    assert sorted(os.listdir(home)) == sorted([".lock", KEY, "current", "not-ours"])
    assert list((pack / "parrot/__pycache__").iterdir())


def test_store_removes_all_that_is_its_own(home: Path, pack: Path) -> None:
    (home / "not-ours").touch()
    assert _sdk.Store(home, "").apply("", "")
    assert os.listdir(home) == ["not-ours"]
    (home / "not-ours").unlink()
    (home / "0123456789abcdef").mkdir()
    assert _sdk.Store(home, "").apply("", "")
    assert not home.exists()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (_pack(_member("../evil.py")), "leaves the directory"),
        (_pack(_member("/evil.py")), "leaves the directory"),
        (_pack(_member("parrot/../../evil.py")), "leaves the directory"),
        (_pack(_member(".")), "leaves the directory"),
        (_pack(_member("evil.py", kind=tarfile.SYMTYPE)), "is no regular file"),
        (_pack(_member("evil.py", kind=tarfile.LNKTYPE)), "is no regular file"),
        (_pack(_member("evil", kind=tarfile.CHRTYPE)), "is no regular file"),
        (_pack(_member("evil", kind=tarfile.FIFOTYPE)), "is no regular file"),
        (_pack(_member("evil", kind=tarfile.DIRTYPE)), "is no regular file"),
        (_pack(_member("parrot/__init__.py")), "is there twice"),
        (_pack(_member("big", b"\0" * (_sdk.MAX_BYTES + 1))), "exceeds the"),
        (_pack(requirements=b"other"), f"should have the key {KEY}"),
        (_pack()[:-30], "is damaged"),
        (_pack()[:40] + b"\0\0\0\0" + _pack()[44:], "is damaged"),
        (gzip.compress(b"no archive" * 100, mtime=0), "is damaged"),
        (b"no archive", "is damaged"),
    ],
    ids=(f"evil{number}" for number in itertools.count()),  # not the bytes: they hold the time
)
def test_evil_packs_are_refused(home: Path, content: bytes, said: str) -> None:
    source = home.parent / "sent.tar.gz"
    source.write_bytes(content)
    with pytest.raises(_sdk.SdkError, match=said):
        _sdk.Store(home, KEY).apply(str(source), hashlib.sha256(content).hexdigest())
    assert os.listdir(home) == [".lock"]
    assert sorted(os.listdir(home.parent)) == ["sdk", "sent.tar.gz"]


def test_a_wrong_checksum_is_refused_and_the_old_version_stays(home: Path, pack: Path) -> None:
    source = home.parent / "sent.tar.gz"
    with pytest.raises(_sdk.SdkError, match="should have the SHA-256 00"):
        _sdk.Store(home, "0123456789abcdef").apply(str(source), "00")
    assert _sdk.find_pack() == pack


def test_add_pack_is_first_and_once(pack: Path) -> None:
    before = list(sys.path)
    assert _sdk.add_pack() == pack
    assert _sdk.add_pack() == pack
    assert sys.path == [str(pack), *before]
    assert _sdk._import("parrot", "the parrot", "python3-parrot").__file__ == str(
        pack / "parrot/__init__.py"
    )


def test_without_a_pack(home: Path) -> None:
    before = list(sys.path)
    assert _sdk.add_pack() is None
    assert sys.path == before
    with pytest.raises(_sdk.SdkError, match=r"no pack .* role fleet\.images\.docker_sdk"):
        _sdk._import("parrot_that_is_no_more", "the parrot", "python3-parrot")


def test_where_packs_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv(_sdk.ENVIRONMENT, raising=False)
    system, user = Path(_sdk.SYSTEM_HOME), tmp_path / ".local/share/fleet-images/sdk"
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert _sdk.pack_home() == system
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert _sdk.pack_home() == user
    monkeypatch.setenv(_sdk.ENVIRONMENT, "~/other")
    assert _sdk.pack_home() == tmp_path / "other"


def test_the_users_pack_comes_before_the_systems(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As seen by a user: `check_trusted` has tests of its own."""
    system, user = tmp_path / "system", tmp_path / "user"
    monkeypatch.delenv(_sdk.ENVIRONMENT, raising=False)
    monkeypatch.setattr(_sdk, "SYSTEM_HOME", str(system))
    monkeypatch.setattr(_sdk, "USER_HOME", str(user))
    monkeypatch.setattr(_sdk, "check_trusted", lambda pack: None)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert _sdk.find_pack() is None
    for home in (system, user):
        (home / KEY).mkdir(parents=True)
        (home / "current").symlink_to(KEY)
        assert _sdk.find_pack() == home / KEY
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert _sdk.find_pack() == system / KEY


@pytest.mark.parametrize(
    ("target", "said"), [("0123456789abcdef", "no directory"), ("..", "elsewhere")]
)
def test_a_link_that_leads_astray(home: Path, target: str, said: str) -> None:
    (home / "current").symlink_to(target)
    with pytest.raises(_sdk.SdkError, match=said):
        _sdk.add_pack()


@pytest.mark.parametrize("where", [".", "..", "parrot", _sdk.MANIFEST])
def test_writable_by_all_is_refused(pack: Path, where: str) -> None:
    path = pack / where
    path.chmod(path.stat().st_mode | 0o002)
    before = list(sys.path)
    with pytest.raises(_sdk.SdkError, match=r"is writable by all users .* run `chmod o-w"):
        _sdk.add_pack()
    assert sys.path == before


def test_a_new_entry_that_is_a_link_is_refused(pack: Path) -> None:
    (pack / "docker").symlink_to("/tmp")
    with pytest.raises(_sdk.SdkError, match="is a link"):
        _sdk.add_pack()


def test_sticky_is_fine_above_but_not_for_the_pack(home: Path, pack: Path) -> None:
    home.chmod(0o1777)
    assert _sdk.find_pack() == pack
    home.chmod(0o755)
    pack.chmod(0o1777)
    with pytest.raises(_sdk.SdkError, match="is writable by all users"):
        _sdk.find_pack()


@as_root
@pytest.mark.parametrize("where", [".", "..", "parrot", _sdk.MANIFEST])
def test_what_belongs_to_another_user_is_refused(pack: Path, where: str) -> None:
    os.chown(pack / where, NOBODY, -1)
    with pytest.raises(_sdk.SdkError, match="belongs to the user"):
        _sdk.add_pack()


@as_root
def test_sticky_does_not_excuse_another_owner(home: Path, pack: Path) -> None:
    os.chown(home, NOBODY, -1)
    home.chmod(0o1777)
    with pytest.raises(_sdk.SdkError, match="belongs to the user"):
        _sdk.find_pack()


@as_root
def test_nothing_is_unpacked_into_a_directory_of_another_user(home: Path) -> None:
    os.chown(home, NOBODY, -1)
    with pytest.raises(_sdk.SdkError, match="belongs to the user"):
        _sdk.Store(home, KEY).apply("/nowhere", "00")
    assert os.listdir(home) == []


@as_root
@pytest.mark.parametrize("gid", [NOBODY, 60123], ids=["of others", "unknown"])
def test_writable_by_a_group_of_others_is_refused(pack: Path, gid: int) -> None:
    os.chown(pack / "parrot", -1, gid)
    (pack / "parrot").chmod(0o775)
    with pytest.raises(_sdk.SdkError, match=r"is writable by the group .* run `chmod g-w"):
        _sdk.add_pack()


@as_root
def test_writable_by_ones_own_group_is_fine_without_an_access_list(
    pack: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (pack / "parrot").chmod(0o775)
    assert _sdk.add_pack() == pack
    if hasattr(os, "listxattr"):
        monkeypatch.setattr(os, "listxattr", lambda path: ["system.posix_acl_access"])
        with pytest.raises(_sdk.SdkError, match="is writable by the group"):
            _sdk.add_pack()


def test_a_pack_that_came_with_the_task_goes_with_the_process(tmp_path: Path) -> None:
    content, source, place = _pack(), tmp_path / "sent.tar.gz", tmp_path / "place"
    source.write_bytes(content)
    place.mkdir()
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import _sdk; _sdk.add_pack();"
        "print(_sdk._import('parrot', 'the parrot', 'python3-parrot').__file__)"
    )
    sums = {"right": hashlib.sha256(content).hexdigest(), "wrong": "00"}
    done = {
        name: subprocess.run(
            [sys.executable, "-c", code, str(Path(_sdk.__file__).parent)],
            env={"TMPDIR": str(place), _sdk.CARRIED: f"{sha256}:{source}"},
            capture_output=True,
            text=True,
            check=False,
        )
        for name, sha256 in sums.items()
    }
    assert done["right"].stdout.startswith(f"{place}/fleet-images-sdk-"), done["right"].stderr
    assert "should have the SHA-256 00" in done["wrong"].stderr
    assert not done["wrong"].stdout
    assert os.listdir(place) == []


def test_importing_it_imports_neither_ansible_nor_docker() -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import _sdk;"
        "print([m for m in sys.modules if m.split('.')[0] in ('ansible', 'docker', 'requests')])"
    )
    folder = str(Path(_sdk.__file__).parent)
    done = subprocess.run(
        [sys.executable, "-c", code, folder], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
