# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a killed Engine leaves is found; what may be in use or in flight is not touched."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from laid_out import DAY, LaidOut, du, ingest, put, sha

from ansible_collections.fleet.images.plugins.module_utils import (
    _daemon,
    _leaks,
    _leaks_classic,
    _leaks_containerd,
)
from ansible_collections.fleet.images.plugins.module_utils._engine import Engine
from ansible_collections.fleet.images.plugins.module_utils._leaks import Found, Leak

BUILD = "k3p2x9q7w1m5n8b4v6c0z2y7t"  # as BuildKit names its snapshots
BOOTED, TICKS = 1_000_000, os.sysconf("SC_CLK_TCK")


class Proc:
    """A process file system with one dockerd, which has its list of volumes open."""

    def __init__(self, place: Path, root: Path) -> None:
        self.place = place
        put(root / "volumes" / "metadata.db", "x")
        put(place / "stat", f"cpu 1 2 3\nbtime {BOOTED}\n")
        put(place / "self", "no process")
        self.process(77, "dockerd", 0, [root / "engine-id"])
        self.process(78, "python3", 0, [root / "volumes" / "metadata.db"])
        self.process(79, "dockerd", 0, [root / "engine-id", root / "volumes" / "metadata.db"])
        self.started(time.time() + DAY)

    def process(self, pid: int, name: str, ticks: int, files: list[Path]) -> None:
        put(self.place / str(pid) / "comm", f"{name}\n")
        put(self.place / str(pid) / "mountinfo", "1 2 3:4 / / rw - ext4 /dev/x rw\n")
        self.stat(pid, name, ticks)
        for number, file in enumerate(files):
            (self.place / str(pid) / "fd").mkdir(exist_ok=True)
            (self.place / str(pid) / "fd" / str(number)).symlink_to(file)

    def stat(self, pid: int, name: str, ticks: int) -> None:
        fields = " ".join(["S", *["0"] * 18, str(ticks), "0"])
        (self.place / str(pid) / "stat").write_text(f"{pid} ({name} :) x) {fields}")

    def started(self, when: float) -> None:
        self.stat(79, "dockerd", round((when - BOOTED) * TICKS))

    def mount(self, text: str) -> None:
        (self.place / "79" / "mountinfo").write_text(f"1 2 0:5 / {text} rw - overlay overlay rw\n")


@pytest.fixture
def proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Proc:
    (tmp_path / "root").mkdir()
    monkeypatch.setattr(_daemon, "_PROC", tmp_path / "proc")
    return Proc(tmp_path / "proc", tmp_path / "root")


@pytest.fixture
def classic(proc: Proc, tmp_path: Path) -> Iterator[LaidOut]:
    with LaidOut("classic", tmp_path / "root") as stub:
        stub.stock("app:1", layers={"base": 50_000, "app": 9_000})
        stub.lay_out()
        younger(stub)
        yield stub


@pytest.fixture
def containerd(proc: Proc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LaidOut]:
    """With a client that notes what it is asked for."""
    program = tmp_path / "bin" / "ctr"
    put(program, f'#!/bin/sh\necho "$@" >>{tmp_path}/asked\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    with LaidOut("containerd", tmp_path / "root") as stub:
        stub.stock("app:1", layers={"base": 50_000, "app": 9_000})
        stub.lay_out()
        younger(stub)
        yield stub


def younger(stub: LaidOut) -> None:
    """The socket is made when the daemon starts: here, after all else."""
    os.utime(stub.socket, (time.time() + DAY,) * 2)


def find(stub: LaidOut) -> Found:
    return _leaks.find(Engine({"docker_host": stub.url}))


def remove(stub: LaidOut, *leaks: Leak) -> list[_leaks.Outcome]:
    return _leaks.remove(Engine({"docker_host": stub.url}), leaks)


def left(stub: LaidOut, name: str = sha("left")[7:]) -> Path:
    return stub.directory(name, 30_000)


def test_directories_that_nothing_names(classic: LaidOut) -> None:
    assert find(classic) == Found()
    path = left(classic)
    unfinished = classic.layerdb / "tmp" / "write-set-1"
    put(unfinished / "tar-split.json.gz", "z" * 5000)
    found = find(classic)
    assert [(leak.kind, leak.id) for leak in found.leaks] == [
        ("directory", str(path)),
        ("unfinished", str(unfinished)),
    ]
    before = du(classic.root)
    assert [one.gone for one in remove(classic, *found.leaks)] == [True, True]
    assert found.bytes == before - du(classic.root)
    assert find(classic) == Found()
    # The link into the directory is gone with it, the others are there.
    links = list((classic.root / "overlay2" / "l").iterdir())
    assert len(links) == 2 and all(link.exists() for link in links)


def test_what_is_in_use(classic: LaidOut, proc: Proc) -> None:
    path = left(classic)
    short = (path / "link").read_text()
    proc.mount(f"/var/lib/docker/overlay2/{path.name}/merged")
    assert find(classic) == Found()
    proc.mount(f"/somewhere lowerdir=l/{short}")
    assert find(classic) == Found()
    proc.mount("/elsewhere")
    assert len(find(classic).leaks) == 1
    # A layer stands upon it.
    chain = next(iter(classic.shelf.values())).chains[-1]
    put(classic.layer(chain, "", 0) / "lower", f"l/{sha('x')[7:33].upper()}:l/{short}")
    assert find(classic) == Found()


def test_what_others_name(classic: LaidOut) -> None:
    chain = next(iter(classic.shelf.values())).chains[-1]
    classic.mount("c0ffee", chain)
    left(classic, BUILD)
    assert [leak.id.rpartition("/")[2] for leak in find(classic).leaks] == [BUILD]
    classic.cache({BUILD: {"parent": ""}}, [])
    assert find(classic) == Found()
    classic.cache({"other": {"committed": BUILD}}, [])
    assert find(classic) == Found()
    # Names that the Engine does not give.
    for name in ("backup", "l", "0" * 63, sha("a link")[7:]):
        place = classic.root / "overlay2" / name
        if name.startswith("0") or name == "backup":
            place.mkdir()
        elif name != "l":
            place.symlink_to("/")
    assert find(classic) == Found()


@pytest.mark.parametrize("what", ["", "diff", "diff/content"])
def test_what_is_in_flight(classic: LaidOut, proc: Proc, what: str) -> None:
    """A load writes into a directory that the running daemon has made, or takes up again."""
    path = left(classic)
    now = time.time()
    proc.started(now + 100)
    assert len(find(classic).leaks) == 1
    os.utime(path / what, (now + 200,) * 2)
    # What lies deeper is younger than what it lies in, and that is younger than the daemon.
    os.utime(path, (now + 200,) * 2)
    assert find(classic) == Found()


def test_the_clock_was_set(classic: LaidOut, proc: Proc) -> None:
    """The socket is dated with the clock that the directories are dated with."""
    left(classic)
    os.utime(classic.socket, (BOOTED, BOOTED))
    assert find(classic) == Found()


def test_each_is_looked_at_again(classic: LaidOut, proc: Proc) -> None:
    path = left(classic)
    (leak,) = find(classic).leaks
    proc.mount(str(path))
    outcome = remove(classic, leak)[0]
    assert not outcome.gone and "no leak any more" in outcome.reason
    assert path.exists()
    other = Leak("directory", str(classic.root / "engine-id"), 1, "made up", True)
    assert not remove(classic, other)[0].gone and (classic.root / "engine-id").exists()


def test_a_link_that_leads_elsewhere_stays(classic: LaidOut) -> None:
    path = left(classic)
    chain = next(iter(classic.shelf.values())).chains[-1]
    short = (classic.layer(chain, "", 0) / "link").read_text()
    (path / "link").write_text(short)
    # It says that it is the layer's, so in doubt it is left; without the layer's mention it goes.
    (leak,) = find(classic).leaks
    assert remove(classic, leak)[0].gone
    assert (classic.root / "overlay2" / "l" / short).exists()


def test_layers_without_an_image(classic: LaidOut) -> None:
    """The daemon knows of them, so they are told and not touched."""
    below = classic.layer(sha("one"), "", 10_000)
    classic.layer(sha("two"), sha("one"), 10_000)
    found = find(classic)
    assert {(leak.kind, leak.id) for leak in found.leaks} == {
        ("layer", sha("one")),
        ("layer", sha("two")),
    }
    assert found.leaks[0].bytes > 10_000
    outcomes = remove(classic, *found.leaks)
    assert not any(one.gone for one in outcomes) and below.exists()
    classic.cache({"x": {"chainid": sha("two")}}, ["x"])
    assert find(classic) == Found()
    put(classic.root / "buildkit" / "snapshots.db", "")
    (classic.root / "buildkit" / "containerdmeta.db").unlink()
    assert find(classic) == Found(), "build cache may have them"


def test_who_cannot_look(classic: LaidOut, proc: Proc) -> None:
    left(classic)
    (proc.place / "79" / "fd" / "1").unlink()
    assert "process could not be seen" in find(classic).blind
    (classic.root / "engine-id").write_text("another")
    assert "only root on its host can" in find(classic).blind
    classic.driver = "btrfs"
    assert "the storage driver btrfs" in find(classic).blind
    leak = Leak("directory", "/", 1, "", True)
    assert not remove(classic, leak)[0].gone


def test_a_lease_of_someone_who_is_gone(containerd: LaidOut, proc: Proc, tmp_path: Path) -> None:
    assert find(containerd) == Found()
    now = time.time()
    later = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now + DAY))
    base = next(iter(containerd.shelf.values())).chains[0]
    path = containerd.snapshot("extract-1 x", base, None)
    blob = containerd.blob(sha("half"), 9_000)
    containerd.meta["content"]["ingests"]["coming"] = {"ref": "moby/9/coming"}
    coming = containerd.data / ingest("moby/9/coming")
    put(coming / "data", "d" * 5000)
    held = {"snapshots": {"overlayfs": {"extract-1 x": "", base: ""}}, "content": {blob: ""}}
    held["ingests"] = {"coming": ""}
    containerd.lease("left", held, now, expire=later)
    containerd.lease("same", {"content": {blob: ""}}, now, expire=later)
    containerd.lease("image", {"snapshots": {"overlayfs": {base: ""}}}, now, expire=later)
    containerd.lease("container", {"snapshots": {"overlayfs": {base: ""}}}, now)
    containerd.note()
    found = find(containerd)
    # Blobs go with the last lease that holds them.
    assert sorted(leak.id for leak in found.leaks) == ["left", "same"]
    content = containerd.data / "io.containerd.content.v1.content" / "blobs" / "sha256" / blob[7:]
    assert found.bytes == du(path) + du(content) + du(coming)
    outcomes = remove(containerd, *found.leaks)
    assert all(one.gone for one in outcomes), "ctr said so"
    asked = (tmp_path / "asked").read_text().splitlines()
    words = "--address /run/docker/containerd/containerd.sock --namespace moby leases rm --sync"
    assert sorted(asked) == [f"{words} left", f"{words} same"]
    proc.started(now - 10)
    assert find(containerd) == Found(), "whoever took it may still run"


def test_no_client(containerd: LaidOut, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    later = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now + DAY))
    containerd.lease("left", {"content": {containerd.blob(sha("x"), 10): ""}}, now, expire=later)
    containerd.note()
    (leak,) = find(containerd).leaks
    assert leak.removable
    with monkeypatch.context() as patch:
        patch.setattr(_leaks_containerd, "client", lambda: None)
        (blind,) = find(containerd).leaks
        assert not blind.removable and "ctr" in blind.reason
        assert not remove(containerd, leak)[0].gone
        assert not remove(containerd, blind)[0].gone
    monkeypatch.setattr(_leaks_containerd, "client", lambda: "/bin/false")
    outcome = remove(containerd, leak)[0]
    assert not outcome.gone and outcome.reason == "ctr failed"


def test_garbage_goes_by_itself(containerd: LaidOut) -> None:
    blob = containerd.blob(sha("x"), 10_000)
    containerd.note()
    (leak,) = find(containerd).leaks
    assert (leak.kind, leak.id, leak.removable) == ("garbage", blob, False)
    containerd.blob(blob, 10_000, {"gc.bref.image": "x"})
    containerd.note()
    assert find(containerd) == Found(), "a label that is not understood"


def test_a_directory_that_vanishes(classic: LaidOut, monkeypatch: pytest.MonkeyPatch) -> None:
    left(classic)
    (leak,) = find(classic).leaks

    def fails(*_unused: object) -> None:
        raise PermissionError(1, "no")

    monkeypatch.setattr(_leaks_classic, "remove", fails)
    assert "no" in remove(classic, leak)[0].reason
