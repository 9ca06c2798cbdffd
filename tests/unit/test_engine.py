# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The door to Docker, against Engines of three kinds that keep images in memory."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from engine_stub import KINDS, EngineStub, complaints
from images import AMD64, Store, digest

from ansible_collections.fleet.images.plugins.module_utils import _bundle, _engine
from ansible_collections.fleet.images.plugins.module_utils._archive import read
from ansible_collections.fleet.images.plugins.module_utils._engine import Engine, EngineError
from ansible_collections.fleet.images.plugins.module_utils._reference import parse

pytest.importorskip("docker")
pytestmark = pytest.mark.usefixtures("no_pack")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.at(tmp_path / "store")


def connect(stub: EngineStub, **options: Any) -> Engine:
    return Engine({"docker_host": stub.url, **options})


def test_facts(stub: EngineStub) -> None:
    engine = connect(stub)
    version, api, driver = KINDS[stub.kind]
    facts = engine.facts.as_dict()
    free = facts.pop("free")
    assert free is None or free > 0
    assert facts == {
        "version": version,
        "api_version": api,
        "store": "classic" if stub.classic else "containerd",
        "driver": driver,
        "platform": AMD64,
        "data_path": "/var/lib/docker" if stub.classic else facts["data_path"],
    }
    assert engine.tells_manifests == (stub.kind == "containerd")


@pytest.mark.parametrize(
    ("architecture", "platform"),
    [("aarch64", "linux/arm64"), ("armv7l", "linux/arm/v7"), ("s390x", "linux/s390x")],
)
def test_platforms(classic: EngineStub, architecture: str, platform: str) -> None:
    classic.architecture = architecture
    assert connect(classic).facts.platform == platform


@pytest.mark.parametrize(
    ("info", "path"),
    [
        ({"Containerd": {"Address": "/run/containerd/containerd.sock"}}, "/var/lib/containerd"),
        (
            {"Containerd": {"Address": "/var/run/docker/containerd/containerd.sock"}},
            "/data/containerd/daemon",
        ),
        ({"Containerd": None}, "/var/lib/containerd"),
        ({}, "/var/lib/containerd"),
    ],
)
def test_where_containerd_keeps_its_content(info: dict[str, Any], path: str) -> None:
    assert _engine._containerd_root({"DockerRootDir": "/data", **info}) == path


def test_free_space_is_that_of_the_nearest_directory(tmp_path: Path) -> None:
    free = _engine._free(str(tmp_path / "not" / "yet" / "there"))
    assert free is not None
    assert free > 0


def test_what_an_engine_holds(stub: EngineStub, store: Store) -> None:
    """The same answers from all kinds, each in its own terms."""
    named, nameless = store.image("app:1", "a", "b"), store.image("old:1", "a", "c")
    stub.hold(named)
    stub.hold(nameless, tag=None)
    held = connect(stub).holdings(store.known(named, nameless))
    assert held.tags == {"docker.io/library/app:1": held.identity(named)}
    assert held.ids == held.whole == {held.identity(named), held.identity(nameless)}
    assert held.lacking(named) == held.lacking(nameless) == []
    more = store.image("app:2", "a", "b", "d")
    layers = {layer.digest for layer in more.on(AMD64).layers}
    lacking = {blob.digest for blob in held.lacking(more)}
    assert lacking & layers == {more.on(AMD64).layers[2].digest}
    calls = stub.asked("GET /images/")
    assert len(calls) == (1 if stub.kind == "containerd" else 3)


def test_images_that_are_not_whole(containerd: EngineStub, store: Store) -> None:
    packed, torn = store.image("packed:1", "a"), store.image("torn:1", "b")
    containerd.hold(packed).unpacked = False
    containerd.hold(torn)
    containerd.content.discard(torn.on(AMD64).layers[0].digest)
    held = connect(containerd).holdings(store.known(packed, torn))
    assert held.whole == set()
    assert held.layers == {packed.on(AMD64).layers[0].digest}


def test_an_older_api_that_is_asked_for_tells_no_manifests(
    containerd: EngineStub, store: Store
) -> None:
    """`api_version` decides what is told, whatever the Engine could tell."""
    image = store.image("app:1", "a")
    containerd.hold(image)
    engine = connect(containerd, api_version="1.45")
    assert not engine.tells_manifests
    assert engine.holdings(store.known(image)).whole == {image.target.digest}


def test_an_image_that_is_gone_between_two_questions(classic: EngineStub, store: Store) -> None:
    classic.hold(store.image("app:1", "a"))
    classic.fault(where="GET /images/sha256.*/json", status=404, words="No such image")
    held = connect(classic).holdings()
    assert held.layers == set()


def test_inspection(stub: EngineStub, store: Store) -> None:
    image = store.image("app:1", "a")
    engine = connect(stub)
    identity = stub.hold(image).id
    found = engine.inspect(identity)
    assert found is not None
    assert found["RootFS"]["Layers"] == list(image.on(AMD64).diff_ids)
    assert engine.inspect(digest("nothing")) is None


def test_tags_and_removal(stub: EngineStub, store: Store) -> None:
    image = store.image("app:1", "a")
    engine, identity = connect(stub), stub.hold(image, tag=None).id
    engine.tag(identity, parse("registry.example.com:5000/app:1"))
    assert stub.tags == {"registry.example.com:5000/app:1": identity}
    engine.remove(identity)
    assert stub.images == {}


@pytest.mark.parametrize(
    ("where", "act"),
    [
        ("GET /images/json", lambda engine: engine.holdings()),
        ("GET /images/sha256", lambda engine: engine.inspect(digest("x"))),
        ("POST .*/tag", lambda engine: engine.tag(digest("x"), parse("app:1"))),
        ("DELETE", lambda engine: engine.remove(digest("x"))),
        ("POST /images/load", lambda engine: engine.load([b"tar"], 5)),
    ],
)
@pytest.mark.parametrize("status", [400, 409, 500])
def test_the_daemons_own_words(classic: EngineStub, where: str, act: Any, status: int) -> None:
    engine = connect(classic)
    classic.fault(where=where, status=status, words="layer\ndoes not exist")
    with pytest.raises(EngineError, match=rf"{classic.url}: .* said: layer does not exist"):
        act(engine)


@pytest.mark.parametrize("where", ["GET /version", "GET /info"])
def test_an_engine_that_answers_with_an_error(classic: EngineStub, where: str) -> None:
    classic.fault(where=where, status=500, words="daemon is shutting down", times=3)
    with pytest.raises(EngineError, match="daemon is shutting down"):
        connect(classic)


def test_no_engine(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"no.sock: wanted an answer, .* set docker_host"):
        Engine({"docker_host": f"unix://{tmp_path}/no.sock"})


def test_an_engine_that_went_away(stub: EngineStub) -> None:
    engine = connect(stub)
    stub.stop()
    with pytest.raises(EngineError, match=stub.url):
        engine.holdings()


# loads


def test_a_load_sends_all_and_tells_what_came_back(
    stub: EngineStub, store: Store, tmp_path: Path
) -> None:
    image = store.image("app:1", "a")
    archive = read([store.bundle(tmp_path / "b.tar", image)])
    members = archive.nameless([(image, AMD64)])
    told = connect(stub).load(_bundle.stream(members), 5)
    identity = image.on(AMD64).config.digest if stub.classic else image.target.digest
    assert (told.ids, told.error) == ([identity], "")
    (upload,) = stub.uploads
    assert complaints(upload) == []
    assert set(upload.small) == {member.name for member in members}
    assert stub.nameless == {identity}


def test_plain_docker_load_takes_names_and_all(
    stub: EngineStub, store: Store, tmp_path: Path
) -> None:
    """What `image_archive` writes, sent as it is."""
    path = store.bundle(tmp_path / "b.tar", store.image("app:1", "a"))
    connect(stub).load([path.read_bytes()], 5)
    assert set(stub.tags) == {"docker.io/library/app:1"}
    assert len(complaints(stub.uploads.pop())) == 2


def test_silence_has_a_limit(classic: EngineStub, store: Store, tmp_path: Path) -> None:
    path = store.bundle(tmp_path / "b.tar", store.image("app:1", "a"))
    engine = connect(classic)
    classic.fault("stall")
    started = time.monotonic()
    with pytest.raises(EngineError, match=r"a load was wanted, it said: .*timed out"):
        engine.load([path.read_bytes()], 1)
    assert time.monotonic() - started < 10


def test_what_the_source_raises_passes(classic: EngineStub) -> None:
    def source() -> Iterator[bytes]:
        yield bytes(1 << 20)
        raise _bundle.BundleError("blob sha256:00 holds other content")

    engine = connect(classic)
    with pytest.raises(_bundle.BundleError, match="other content"):
        engine.load(source(), 5)
    assert classic.images == {}
    assert engine.holdings().ids == set()
