# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A build's result: as it comes from buildx, as it is in each place, and what is told of it."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from engine_stub import EngineStub
from images import AMD64, ARM64, CONFIG, Store, descriptor, digest, locked, to_json
from registry_stub import RegistryStub
from shapes import oci_layout

from ansible_collections.fleet.images.plugins.module_utils import _gzip
from ansible_collections.fleet.images.plugins.module_utils._build_inputs import Inputs
from ansible_collections.fleet.images.plugins.module_utils._build_plan import Decision
from ansible_collections.fleet.images.plugins.module_utils._build_result import Outcome
from ansible_collections.fleet.images.plugins.module_utils._built import (
    Found,
    InEngine,
    InRegistry,
    InStore,
    of_documents,
)
from ansible_collections.fleet.images.plugins.module_utils._context import Tree
from ansible_collections.fleet.images.plugins.module_utils._layout import Layout, LayoutError
from ansible_collections.fleet.images.plugins.module_utils._oci_stream import NoResult, receive
from ansible_collections.fleet.images.plugins.module_utils._reference import parse
from ansible_collections.fleet.images.plugins.module_utils._shelf import Shelf, place

NAME = "site.example/shop/app:1"


@pytest.fixture
def made(tmp_path: Path) -> Store:
    """Where images of these tests are made."""
    return Store.at(tmp_path / "made")


def labeled(store: Store, labels: dict[str, str], platform: str = AMD64) -> Any:
    """An image of one platform with labels."""
    image = store.platform_image(["base"], platform)
    settings = json.loads(store.layout.read(image.config.digest))
    config = store.put(to_json({**settings, "config": {"Labels": labels}}), CONFIG)
    manifest = json.loads(store.layout.read(image.manifest.digest))
    content = to_json({**manifest, "config": descriptor(config)})
    return replace(image, manifest=store.put(content, image.manifest.media_type), config=config)


# the stream


def tarred(files: dict[str, bytes], prefix: str = "") -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(prefix + name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return content.getvalue()


def exported(store: Store, target: str, tags: int = 1) -> dict[str, bytes]:
    """As `--output type=oci,dest=-` writes it: an entry of index.json per tag."""
    files = oci_layout(store, *([{"digest": target, "mediaType": CONFIG}] * tags))
    return {name: content for name, content in files.items() if isinstance(content, bytes)}


@pytest.fixture
def nowhere() -> Iterator[Shelf]:
    """A shelf that keeps documents in memory and nothing else."""
    with _gzip.pool() as threads:
        yield Shelf(Layout("/nonexistent"), None, threads)


class Stream(io.BytesIO):
    """A pipe: no seeking, a few bytes at a time."""

    def seekable(self) -> bool:
        return False

    def seek(self, *_unused: Any) -> int:
        raise io.UnsupportedOperation

    def read(self, size: int | None = -1) -> bytes:
        return super().read(min(size, 700) if size and size > 0 else size)


@pytest.mark.parametrize("prefix", ["", "./"])
@pytest.mark.parametrize("tags", [1, 2])
def test_a_result_is_taken(made: Store, nowhere: Shelf, prefix: str, tags: int) -> None:
    image = made.index(NAME, amd64=["base", "a"], arm64=["b"])
    stream = Stream(tarred(exported(made, image.target.digest, tags), prefix))
    assert receive(stream, nowhere) == image.target.digest
    assert stream.read() == b"", "all of it is read"
    found = of_documents(NAME, image.target.digest, nowhere.document)
    assert found.platforms == {
        AMD64: image.platforms[AMD64].manifest.digest,
        ARM64: image.platforms[ARM64].manifest.digest,
    }


def test_it_comes_into_the_store_when_it_is_wanted(made: Store, tmp_path: Path) -> None:
    image = made.image(NAME, "base", "a")
    layout = Layout(tmp_path / "store")
    with place(layout, False) as beside, _gzip.pool() as threads:
        shelf = Shelf(layout, beside, threads)
        receive(Stream(tarred(exported(made, image.target.digest))), shelf)
        assert not any(layout.has(one) for one in image.all_blobs)
        shelf.settle(image.all_blobs.values())
    assert all(layout.has(blob.digest, blob.size) for blob in image.all_blobs.values())
    assert not (layout.root / ".export").exists()


def test_a_blob_that_is_not_what_its_name_says_is_not_taken(made: Store, nowhere: Shelf) -> None:
    image = made.image(NAME, "base")
    files = exported(made, image.target.digest)
    config = image.platforms[AMD64].config
    files[f"blobs/sha256/{config.digest[7:]}"] = b"x" * config.size
    receive(Stream(tarred(files)), nowhere)
    assert nowhere.has(image.target.digest) and not nowhere.has(config.digest)


@pytest.mark.parametrize("length", [0, 100, 512, 700, 2000, 3000])
def test_a_stream_that_is_cut(made: Store, nowhere: Shelf, length: int) -> None:
    image = made.image(NAME, "base")
    content = tarred(exported(made, image.target.digest))
    with pytest.raises(NoResult):
        receive(Stream(content[:length]), nowhere)


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"oci-layout": b"{}"},
        {"index.json": b""},
        {"index.json": b"{"},
        {"index.json": b"[]"},
        {"index.json": b"null"},
        {"index.json": b"{}"},
        {"index.json": b'{"manifests": []}'},
        {"index.json": b'{"manifests": [{}]}'},
        {"deeper/index.json": b'{"manifests": [{"digest": "x"}]}'},
    ],
)
def test_a_stream_without_an_index(nowhere: Shelf, files: dict[str, bytes]) -> None:
    with pytest.raises(NoResult):
        receive(Stream(tarred(files)), nowhere)


def test_no_tar_at_all(nowhere: Shelf) -> None:
    with pytest.raises(NoResult):
        receive(Stream(b"something else " * 200), nowhere)


# documents


def test_of_an_index(made: Store) -> None:
    """Attestations do not count; labels and config are those of the first platform."""
    image = made.index(NAME, arm64=["b"], amd64=["base", "a"])
    found = of_documents(NAME, image.target.digest, made.layout.read)
    assert found.image is not None and found.image.target == image.target
    assert (found.digest, found.id) == (image.target.digest, image.platforms[AMD64].config.digest)
    assert found.labels == {} and list(found.platforms) == [AMD64, ARM64]
    assert found.sizes[AMD64] == sum(
        blob.size
        for one in (image.platforms[AMD64],)
        for blob in (one.manifest, one.config, *one.layers)
    )


def test_of_a_manifest(made: Store) -> None:
    image = labeled(made, {"a": "b"}, ARM64)
    found = of_documents(NAME, image.manifest.digest, made.layout.read)
    assert found.labels == {"a": "b"} and found.platforms == {ARM64: image.manifest.digest}
    assert found.digest == image.manifest.digest and found.id == image.config.digest


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"null", b"[]", b"7", b"{}", b'{"manifests": null}', b'{"manifests": [7]}']
    + [b'{"config": {}}', b'{"config": {"digest": "x"}}', b'{"config": null}'],
)
def test_of_what_is_no_document(made: Store, content: bytes) -> None:
    wrong = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, LayoutError)
    with pytest.raises(wrong):
        of_documents(NAME, made.layout.put(content), made.layout.read)


# places


def test_in_a_store(made: Store) -> None:
    image, other = made.image(NAME, "base", "a"), made.image("site.example/other:1", "b")
    made.layout.record([image, other])
    store = InStore(made.layout)
    found = store.look(parse(NAME))
    assert found is not None and found.digest == image.target.digest
    assert store.look(parse("site.example/shop/app:2")) is None


@pytest.mark.parametrize("which", ["manifest", "config", "layer"])
@pytest.mark.parametrize("how", ["gone", "cut", "other"])
def test_a_store_that_lacks_a_part_has_not_got_it(made: Store, which: str, how: str) -> None:
    image = made.image(NAME, "base")
    made.layout.record([image])
    one = image.platforms[AMD64]
    blobs = {"manifest": one.manifest, "config": one.config, "layer": one.layers[0]}
    path = made.layout.path(blobs[which].digest)
    content = path.read_bytes()
    path.unlink()
    if how != "gone":
        path.write_bytes(content[:-1] if how == "cut" else b"[" + content[1:])
    found = InStore(made.layout).look(parse(NAME))
    # A layer's content is not read for a look.
    assert (found is None) is not (which == "layer" and how == "other")


def test_in_a_store_that_is_not_there(tmp_path: Path) -> None:
    assert InStore(Layout(tmp_path / "none")).look(parse(NAME)) is None


@pytest.fixture
def registry(no_pack: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    pytest.importorskip("requests")
    from ansible_collections.fleet.images.plugins.module_utils._registry import Registry
    from ansible_collections.fleet.images.plugins.module_utils._registry_options import Options

    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with Registry(Options()) as running:
        yield running


def test_in_a_registry(registry: Any) -> None:
    with RegistryStub() as stub:
        index = stub.add_index("shop/app:1", {AMD64: ["base", "a"], ARM64: ["b"]})
        found = InRegistry(registry).look(parse(f"{stub.name}/shop/app:1"))
        assert found is not None and found.digest == index["digest"]
        assert sorted(found.platforms) == [AMD64, ARM64] and found.labels == {}
        assert InRegistry(registry).look(parse(f"{stub.name}/shop/app:2")) is None


def test_what_a_registry_told_is_kept(registry: Any, tmp_path: Path) -> None:
    with RegistryStub() as stub:
        stub.add_index("shop/app:1", {AMD64: ["a"]})
        reference = parse(f"{stub.name}/shop/app:1")
        first = InRegistry(registry).look(reference)
        assert not (tmp_path / "cache").exists()
        InRegistry(registry, True).look(reference)
        before = len(stub.asked("GET /v2/shop"))
        assert InRegistry(registry, True).look(reference) == first
        assert len(stub.asked("GET /v2/shop")) == before, "only the tag is asked for"
        stub.add_index("shop/app:1", {AMD64: ["b"]})
        assert InRegistry(registry, True).look(reference) != first


class Labeled(EngineStub):
    """An Engine that describes images in full: labels, and the manifests that it has."""

    created = "2026-01-01T00:00:00Z"
    manifests: tuple[dict[str, Any], ...] = ()
    vanishes = False

    def also(self, method: str, path: str, query: dict[str, str]) -> tuple[int, Any] | None:
        name = path[len("/images/") : -len("/json")]
        id_ = {**self.tags, **{one: one for one in self.images}}.get(name)
        if id_ is None or method != "GET" or not path.endswith("/json"):
            return None
        described = {
            **(self.inspected(id_) or {}),
            "Size": 1000,
            "Created": self.created,
            "Config": {"Labels": {"a": "b"}},
        }
        if query.get("manifests") == "1":
            if self.vanishes:
                return 404, {"message": "no such image"}
            described["Manifests"] = list(self.manifests)
        return 200, described


def manifest_of(platform: str, name: str, **more: Any) -> dict[str, Any]:
    os_name, architecture = platform.split("/")
    return {
        "Kind": "image",
        "Available": True,
        "Descriptor": {"digest": digest(name)},
        "ImageData": {"Platform": {"os": os_name, "architecture": architecture}},
        "Size": {"Content": 400, "Total": 900},
        **more,
    }


MANIFESTS = (
    manifest_of(AMD64, "amd64"),
    manifest_of(ARM64, "arm64"),
    manifest_of("linux/s390x", "s390x", Available=False),
    {"Kind": "attestation", "Available": True, "Descriptor": {"digest": digest("attestation")}},
)


def look_in(stub: EngineStub, name: str = NAME) -> Found | None:
    from ansible_collections.fleet.images.plugins.module_utils._engine import Engine

    return InEngine(Engine({"docker_host": stub.url, "timeout": 20})).look(parse(name))


@pytest.fixture
def describing(no_pack: None) -> Iterator[Callable[[str], Labeled]]:
    """`describing(kind)`: an Engine that has the image."""
    pytest.importorskip("docker")
    running: list[Labeled] = []

    def start(kind: str) -> Labeled:
        stub = Labeled(kind)
        running.append(stub)
        stub.__enter__()
        stub.hold(locked(NAME, ["base"]), NAME)
        return stub

    yield start
    for one in running:
        one.__exit__()


def test_in_an_engine_with_the_classic_store(describing: Callable[[str], Labeled]) -> None:
    stub = describing("classic")
    image = locked(NAME, ["base"])
    config = image.platforms[AMD64].config.digest
    found = look_in(stub)
    assert found == Found("", config, {AMD64: config}, {AMD64: 1000}, {"a": "b"})
    assert look_in(stub, "site.example/none:1") is None


def test_in_an_older_engine_with_the_containerd_store(
    describing: Callable[[str], Labeled],
) -> None:
    stub = describing("containerd-old")
    target = locked(NAME, ["base"]).target.digest
    found = look_in(stub)
    assert found is not None and (found.digest, found.id) == (target, target)
    assert found.labels == {"a": "b"} and found.platforms[AMD64].startswith("content:")
    assert look_in(stub) == found
    stub.created = "2026-01-02T00:00:00Z"
    other = look_in(stub)
    assert other is not None and other.platforms != found.platforms


def test_in_an_engine_that_tells_manifests(describing: Callable[[str], Labeled]) -> None:
    stub = describing("containerd")
    stub.manifests = MANIFESTS
    target = locked(NAME, ["base"]).target.digest
    platforms = {AMD64: digest("amd64"), ARM64: digest("arm64")}
    sizes = {AMD64: 400, ARM64: 400}
    assert look_in(stub) == Found(target, target, platforms, sizes, {"a": "b"})
    stub.vanishes = True
    assert look_in(stub) is None


# what is told

TAG, TAG2 = parse(NAME), parse("site.example/shop/app:2")
PARAMS = {"path": "/app", "outputs": None, "push": False}
OLD = Found(digest("old"), digest("id"), {AMD64: digest("a")}, {AMD64: 5})
NEW = Found(digest("new"), digest("id2"), {AMD64: digest("b"), ARM64: digest("c")}, {AMD64: 7})
SAME = replace(OLD, digest=digest("another index, with another attestation"))
BUILD = Decision(True, "why")
INPUTS = Inputs("directory", {"alpine": digest("x")}, [], {"context": "y"}, Tree("y", 3, 9, 9))
STAY = Decision(False, "same")
KEY, KEY2 = ("engine", TAG), ("engine", TAG2)


def outcome(before: Any, after: Any, decision: Decision = BUILD, **how: Any) -> Outcome:
    params = {**PARAMS, **how.pop("params", {})}
    return Outcome(params, [TAG], INPUTS, decision, {KEY: before}, {KEY: after}, **how)


@pytest.mark.parametrize(
    ("one", "changed", "action", "digest_told", "msg"),
    [
        (outcome(OLD, OLD, STAY), False, "none", OLD.digest, "nothing to build, same"),
        (outcome(None, NEW), True, "built", NEW.digest, "built, why"),
        (outcome(OLD, NEW), True, "built", NEW.digest, "built, why"),
        (outcome(OLD, NEW, params={"push": True}), True, "pushed", NEW.digest,
         "built and pushed, why"),
        # Only what the platforms are counts, not the attestations around them.
        (outcome(OLD, SAME), False, "none", SAME.digest, "built (why), and the same as before"),
        (outcome(OLD, OLD, dry_run=True), True, "built", "", "to be built, why"),
        (outcome(OLD, OLD, STAY, dry_run=True), False, "none", OLD.digest,
         "nothing to build, same"),
        # What outputs name is written in any case.
        (outcome(OLD, OLD, params={"outputs": ["x"]}), True, "none", OLD.digest, "built, why"),
    ],
)  # fmt: skip
def test_what_is_told(one: Outcome, changed: bool, action: str, digest_told: str, msg: str) -> None:
    result = one.as_result()
    assert (result["changed"], result["digest"]) == (changed, digest_told)
    assert result["msg"] == f"{NAME}: {msg}"
    (image,) = result["images"]
    assert (image["name"], image["action"], image["reason"]) == (NAME, action, one.decision.reason)
    assert image["digest"] == digest_told
    assert result["fingerprint"] == INPUTS.fingerprint.digest
    assert result["context"] == {"files": 3, "bytes": 9} and result["bases"] == INPUTS.bases
    assert result["lock"] is None, "an Engine does not tell enough for one"


def test_platforms_and_sizes() -> None:
    assert outcome(OLD, NEW).as_result()["platforms"] == {
        AMD64: {"digest": digest("b"), "size": 7},
        ARM64: {"digest": digest("c"), "size": 0},
    }
    assert outcome(None, None, dry_run=True).as_result()["platforms"] == {}


def test_the_difference() -> None:
    word = f"{NAME} in the engine"
    assert outcome(OLD, NEW).as_result()["diff"] == {
        "before": {word: {"fingerprint": "", AMD64: digest("a")}},
        "after": {word: {"fingerprint": "", AMD64: digest("b"), ARM64: digest("c")}},
    }
    foreseen = outcome(None, None, dry_run=True).as_result()["diff"]
    made = {"fingerprint": INPUTS.fingerprint.digest}
    assert foreseen == {"before": {word: {}}, "after": {word: made}}


def test_each_tag_is_told_by_itself() -> None:
    before, after = {KEY: OLD, KEY2: None}, {KEY: SAME, KEY2: SAME}
    result = Outcome(PARAMS, [TAG, TAG2], INPUTS, BUILD, before, after).as_result()
    assert [image["action"] for image in result["images"]] == ["none", "built"]
    assert result["changed"]


def test_the_lock_has_what_a_registry_or_store_has(made: Store) -> None:
    image = made.image(NAME, "base")
    found = of_documents(NAME, image.target.digest, made.layout.read)
    keys = {("registry", TAG): found, KEY: OLD}
    result = Outcome(PARAMS, [TAG], INPUTS, BUILD, dict.fromkeys(keys), keys).as_result()
    assert list(result["lock"]["images"]) == [NAME]


def test_without_tags(made: Store) -> None:
    params = {**PARAMS, "outputs": ["type=local,dest=/x"]}
    result = Outcome(params, [], INPUTS, BUILD, {}, {}, told={"steps": 4}).as_result()
    assert (result["changed"], result["images"], result["msg"]) == (True, [], "/app: built, why")
    assert (result["digest"], result["platforms"], result["steps"]) == ("", {}, 4)
