# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Images of an Engine, into the store: both shapes of its export, whole or not at all."""

from __future__ import annotations

import gzip
import itertools
import json
import os
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from engine_stub import EngineStub
from exports import exporting, new_shape, old_shape, originals, plain, tar_of
from hypothesis import given
from hypothesis import strategies as st
from images import AMD64, ARM64, Store, digest, digest_of

from ansible_collections.fleet.images.plugins.module_utils import _diff_ids, _export, _gzip
from ansible_collections.fleet.images.plugins.module_utils._engine import Engine
from ansible_collections.fleet.images.plugins.module_utils._export import Taken, Wanted, take
from ansible_collections.fleet.images.plugins.module_utils._layout import Layout
from ansible_collections.fleet.images.plugins.module_utils._lock import LockedImage
from ansible_collections.fleet.images.plugins.module_utils._reference import parse

pytest.importorskip("docker")
pytestmark = pytest.mark.usefixtures("no_pack")

GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
EXPORTS = "GET /images/get"


@pytest.fixture
def registry(tmp_path: Path) -> Store:
    """Where the Engine's images come from; `take` knows nothing of it."""
    return Store.at(tmp_path / "registry")


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "store")


def run(
    stub: EngineStub, layout: Layout, *images: str | Wanted, dry_run: bool = False
) -> dict[str, Taken]:
    wanted = [
        one if isinstance(one, Wanted) else Wanted(str(parse(one)), parse(one)) for one in images
    ]
    found = take(Engine({"docker_host": stub.url}), layout, wanted, dry_run)
    assert list(found) == [one.key for one in wanted]
    for one in found.values():
        assert (one.image is None) == bool(one.problem)
    return {key.rpartition("/")[2]: one for key, one in found.items()}


def files(layout: Layout) -> dict[str, str]:
    """Every file of the store, by its digest."""
    found = (path for path in layout.root.rglob("*") if path.is_file())
    return {str(path.relative_to(layout.root)): digest_of(path.read_bytes()) for path in found}


def check(layout: Layout, taken: Taken) -> LockedImage:
    """The image, each of whose blobs is whole in the store and is what it says."""
    image = taken.image
    assert image is not None
    for platform, one in image.platforms.items():
        for blob in image.blobs(platform):
            content = layout.path(blob.digest).read_bytes()
            assert (digest_of(content), len(content)) == (blob.digest, blob.size)
        for layer in one.layers:
            tar = gzip.decompress(layout.path(layer.digest).read_bytes())
            assert digest_of(tar) == layer.diff_id
        manifest = json.loads(layout.read(one.manifest.digest))
        assert manifest["config"]["digest"] == one.config.digest
        assert [each["digest"] for each in manifest["layers"]] == [x.digest for x in one.layers]
    return image


def spoil(layout: Layout, digest: str) -> None:
    path = layout.path(digest)
    path.write_bytes(bytes(path.stat().st_size))


# the three kinds of Engine


def test_images_come_whole_and_each_blob_once(
    stub: EngineStub, registry: Store, layout: Layout
) -> None:
    app, web = registry.image("app:1", "a", "b", "a"), registry.image("web:1", "a", "c")
    exporting(stub, registry, app, web)
    taken = run(stub, layout, "app:1", "web:1")
    found = [check(layout, taken["app:1"]), check(layout, taken["web:1"])]
    for image, source in zip(found, (app, web)):
        assert image.name == source.name
        assert image.on(AMD64).config.digest == source.on(AMD64).config.digest
        assert image.on(AMD64).diff_ids == source.on(AMD64).diff_ids
        if not stub.classic:
            assert image.target.digest == source.target.digest
    blobs = {name for name in files(layout) if name.startswith("blobs/")}
    assert len(blobs) == 3 + 2 + 2  # layers, configs, manifests
    sizes = [(layout.root / name).stat().st_size for name in blobs]
    assert sum(one.bytes for one in taken.values()) == sum(sizes)
    assert all(one.lacked and one.seconds > 0 for one in taken.values())
    assert len(stub.asked(EXPORTS)) == 1


def test_nothing_is_exported_again(stub: EngineStub, registry: Store, layout: Layout) -> None:
    app, web = registry.image("app:1", "a", "b"), registry.image("web:1", "a", "c")
    exporting(stub, registry, app, web)
    first = run(stub, layout, "app:1", "web:1")
    before = files(layout)
    again = run(stub, layout, "app:1", "web:1")
    assert len(stub.asked(EXPORTS)) == 1
    assert [(one.lacked, one.bytes) for one in again.values()] == [(False, 0)] * 2
    assert [one.image for one in again.values()] == [one.image for one in first.values()]
    assert files(layout) == before


def test_only_what_is_lacking_is_exported(
    stub: EngineStub, registry: Store, layout: Layout
) -> None:
    app, web = registry.image("app:1", "a", "b"), registry.image("web:1", "a", "c")
    exporting(stub, registry, app, web)
    run(stub, layout, "app:1")
    taken = run(stub, layout, "app:1", "web:1")
    assert [one.lacked for one in taken.values()] == [False, True]
    id_ = web.on(AMD64).config.digest if stub.classic else web.target.digest
    assert stub.asked(EXPORTS)[1] == f"{EXPORTS}?names=sha256%3A{id_[7:]}"
    check(layout, taken["web:1"])


def test_dry_run_tells_the_same_and_leaves_nothing(
    stub: EngineStub, registry: Store, layout: Layout
) -> None:
    app, web = registry.image("app:1", "a", "b"), registry.image("web:1", "a", "c")
    exporting(stub, registry, app, web)
    foreseen = run(stub, layout, "app:1", "web:1", dry_run=True)
    assert not layout.root.exists()
    done = run(stub, layout, "app:1", "web:1")
    timeless = [
        {key: replace(one, seconds=0) for key, one in found.items()} for found in (foreseen, done)
    ]
    assert timeless[0] == timeless[1]


def test_what_is_not_there_holds_back_no_other(
    stub: EngineStub, registry: Store, layout: Layout
) -> None:
    exporting(stub, registry, registry.image("app:1", "a"))
    taken = run(stub, layout, "gone:1", "app:1")
    check(layout, taken["app:1"])
    assert taken["gone:1"].problem.startswith(
        f"docker.io/library/gone:1: wanted from the Engine at {stub.url}, which has no such image"
    )


def test_image_of_another_platform(stub: EngineStub, registry: Store, layout: Layout) -> None:
    web = registry.index("web:1", amd64=["a"], arm64=["b"])
    exporting(stub, registry, replace(web, platforms={AMD64: web.on(AMD64)}))
    wanted = Wanted("web", parse("web:1"), (ARM64,))
    taken = run(stub, layout, wanted)["web"]
    assert taken.problem.startswith("web: wanted for linux/arm64, the Engine")
    if stub.kind != "containerd-old":  # which does not tell beforehand
        assert "has it for linux/amd64; choose one of these" in taken.problem
        assert stub.asked(EXPORTS) == []
    check(layout, run(stub, layout, "web:1")["web:1"])


@pytest.mark.parametrize("by", ["the right digest", "another digest"])
def test_image_with_a_digest(stub: EngineStub, registry: Store, layout: Layout, by: str) -> None:
    app = registry.image("app:1", "a")
    exporting(stub, registry, app)
    image = next(iter(stub.images.values()))
    image.repo_digests = [f"docker.io/library/app@{app.target.digest}"]
    right = by == "the right digest"
    pinned = parse("app:1").pinned(app.target.digest if right else digest("other"))
    taken = run(stub, layout, Wanted("app:1", pinned))["app:1"]
    assert bool(taken.image) == right
    assert right or f"wanted with digest {digest('other')}, the Engine has it" in taken.problem


def test_two_names_of_one_image(stub: EngineStub, registry: Store, layout: Layout) -> None:
    app = registry.image("app:1", "a")
    exporting(stub, registry, app)
    stub.tag(next(iter(stub.images)), "docker.io/library/app:1")
    next(iter(stub.images.values())).tags.add("docker.io/library/same:1")
    taken = run(stub, layout, "app:1", Wanted("same", parse("same:1"), as_=parse("mine:2")))
    assert check(layout, taken["app:1"]).target == check(layout, taken["same"]).target
    assert taken["same"].image is not None
    assert taken["same"].image.destination == parse("mine:2")
    assert taken["same"].bytes == 0


# classic stores: layers are compressed, once


def test_both_shapes_give_the_same(classic: EngineStub, registry: Store, tmp_path: Path) -> None:
    app = registry.image("app:1", "a", "b", "a")
    classic.hold(app)
    found = []
    for name, shape in (("old", old_shape), ("new", new_shape)):
        classic.export = shape(registry, [app])
        layout = Layout(tmp_path / name)
        found.append(check(layout, run(classic, layout, "app:1")["app:1"]))
    assert found[0] == found[1]
    assert found[0].target.media_type == "application/vnd.oci.image.manifest.v1+json"
    assert {layer.media_type for layer in found[0].on(AMD64).layers} == {GZIP}


def test_layers_of_a_registry_are_not_compressed_again(
    classic: EngineStub, registry: Store, layout: Layout
) -> None:
    """`note` tells which; Docker's own media type means the same bytes."""
    known = replace(Store(layout), docker=True)
    layout.create()
    fetched = known.image("old:1", "a", "b")
    _export.note(layout, fetched)
    app = registry.image("app:1", "a", "b", "c")
    exporting(classic, registry, app)
    found = check(layout, run(classic, layout, "app:1")["app:1"])
    assert found.on(AMD64).layers[0].digest == fetched.on(AMD64).layers[0].digest
    assert {layer.media_type for layer in found.on(AMD64).layers} == {GZIP}
    layers = [one for one in files(layout) if one.startswith("diff-ids/")]
    assert len(layers) == 3


def test_image_that_a_registry_brought_keeps_its_digest(
    classic: EngineStub, registry: Store, layout: Layout
) -> None:
    layout.create()
    fetched = Store(layout).index("app:1", amd64=["a"], arm64=["z"])
    exporting(classic, registry, registry.index("app:1", amd64=["a"], arm64=["z"]))
    next(iter(classic.images.values())).repo_digests = [f"app@{fetched.target.digest}"]
    taken = run(classic, layout, "app:1")["app:1"]
    assert check(layout, taken).target == fetched.target
    assert (taken.lacked, taken.bytes, classic.asked(EXPORTS)) == (False, 0, [])


@pytest.mark.parametrize("stale", ["gone", "of another size", "no JSON"])
def test_stale_entry_of_the_index_does_not_count(
    classic: EngineStub, registry: Store, layout: Layout, stale: str
) -> None:
    app = registry.image("app:1", "a", "b")
    exporting(classic, registry, app)
    first = check(layout, run(classic, layout, "app:1")["app:1"])
    blob = layout.path(first.on(AMD64).layers[0].digest)
    if stale == "gone":
        blob.unlink()
    elif stale == "of another size":
        blob.write_bytes(b"x")
    else:
        entry = layout.root / "diff-ids" / first.on(AMD64).layers[0].diff_id.replace(":", "/")
        entry.write_bytes(b"x")
    taken = run(classic, layout, "app:1")["app:1"]
    assert taken.lacked
    assert check(layout, taken) == first


@pytest.mark.parametrize("shape", [old_shape, new_shape])
def test_layer_that_is_known_is_not_compressed(
    classic: EngineStub,
    registry: Store,
    layout: Layout,
    shape: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    app, web = registry.image("app:1", "a", "b"), registry.image("web:1", "a", "c")
    for image in (app, web):
        classic.hold(image)
    classic.export = shape(registry, [app, web])
    run(classic, layout, "app:1")
    blocks: list[bytes] = []
    real = _gzip._deflate
    monkeypatch.setattr(_gzip, "_deflate", lambda block: blocks.append(block) or real(block))
    check(layout, run(classic, layout, "web:1")["web:1"])
    assert blocks == plain(registry, web.on(AMD64))[1:]


def test_layers_of_an_export_that_broke_are_not_compressed_again(
    classic: EngineStub, registry: Store, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = registry.image("app:1", "a", "b", "c")
    classic.hold(app)
    whole = new_shape(registry, [app])
    last = max(app.on(AMD64).diff_ids)[7:].encode()
    classic.export = lambda ids: whole(ids).partition(b"blobs/sha256/" + last)[0]
    assert run(classic, layout, "app:1")["app:1"].problem
    classic.export = whole
    blocks: list[bytes] = []
    real = _gzip._deflate
    monkeypatch.setattr(_gzip, "_deflate", lambda block: blocks.append(block) or real(block))
    check(layout, run(classic, layout, "app:1")["app:1"])
    assert [digest_of(block) for block in blocks] == [max(app.on(AMD64).diff_ids)]


def test_layers_of_a_containerd_store_count_as_well(
    containerd: EngineStub, registry: Store, layout: Layout
) -> None:
    exporting(containerd, registry, registry.image("app:1", "a"))
    found = check(layout, run(containerd, layout, "app:1")["app:1"])
    layer = found.on(AMD64).layers[0]
    assert _diff_ids.find(layout, layer.diff_id) == layer


# what goes wrong


def test_engine_that_refuses(stub: EngineStub, registry: Store, layout: Layout) -> None:
    exporting(stub, registry, registry.image("app:1", "a"))
    stub.fault(where=EXPORTS, status=500, words="no space left on its disk")
    taken = run(stub, layout, "app:1")["app:1"]
    assert "no space left on its disk" in taken.problem
    assert not [name for name in files(layout) if name.startswith("blobs/")]


def test_engine_that_falls_silent(stub: EngineStub, registry: Store, layout: Layout) -> None:
    exporting(stub, registry, registry.image("app:1", "a"))
    engine = Engine({"docker_host": stub.url})
    stub.fault(where="GET /", status=500, words="it is ill", times=99)
    taken = take(engine, layout, [Wanted("app", parse("app:1"))])["app"]
    assert "it is ill" in taken.problem
    assert (taken.image, taken.lacked) == (None, False)


def test_error_in_the_middle(stub: EngineStub, registry: Store, layout: Layout) -> None:
    """What an Engine writes when it fails after it has begun."""
    app = registry.image("app:1", "a", "b")
    exporting(stub, registry, app)
    whole, error = stub.export, b'{"errorDetail":{"message":"it broke"},"error":"it broke"}\r\n'
    stub.export = lambda ids: whole(ids)[:700] + error
    taken = run(stub, layout, "app:1")["app:1"]
    assert "the Engine's export broke (it broke) before" in taken.problem
    assert not (layout.root / ".export").exists()
    stub.export = whole
    check(layout, run(stub, layout, "app:1")["app:1"])


@pytest.mark.parametrize("hangs_up", [True, False])
def test_stream_that_is_cut_anywhere(
    stub: EngineStub, registry: Store, tmp_path: Path, hangs_up: bool
) -> None:
    """Whole, or a problem; and nothing stands under a name that is not its own."""
    app = registry.image("app:1", "a", "b")
    exporting(stub, registry, app)
    whole, outcomes = stub.export, set()
    stub.export_breaks = hangs_up
    size = len(whole(list(stub.images)))
    for number, at in enumerate(range(0, size, size // 12)):
        stub.export = lambda ids, at=at: whole(ids)[:at]  # type: ignore[misc]
        layout = Layout(tmp_path / str(number))
        taken = run(stub, layout, "app:1")["app:1"]
        outcomes.add(bool(taken.image))
        if taken.image:
            check(layout, taken)
        for path in (layout.root / "blobs" / "sha256").iterdir():
            assert digest_of(path.read_bytes()) == f"sha256:{path.name}"
    assert False in outcomes


def test_export_without_its_layers(containerd: EngineStub, registry: Store, layout: Layout) -> None:
    """As Engine 28.5 answers where the layers are there in another compression only."""
    app, web = registry.image("app:1", "a", "b"), registry.image("web:1", "c")
    exporting(containerd, registry, app, web)
    lost = app.on(AMD64).layers[1]
    containerd.export = originals(registry, [app, web], without=[lost.digest])
    taken = run(containerd, layout, "app:1", "web:1")
    assert f"the Engine's export lacks blob {lost.digest}" in taken["app:1"].problem
    check(layout, taken["web:1"])
    assert not layout.has(app.on(AMD64).layers[0].digest)


@pytest.mark.parametrize("what", ["layer", "config"])
@pytest.mark.parametrize("shape", ["classic", "classic since 25", "containerd"])
def test_blob_with_other_content(shape: str, what: str, registry: Store, layout: Layout) -> None:
    app = registry.image("app:1", "a", "b")
    one = app.on(AMD64)
    blob = one.layers[1] if what == "layer" else one.config
    right = registry.layout.path(blob.digest).read_bytes()
    with EngineStub(shape.split(maxsplit=1)[0]) as stub:
        exporting(stub, registry, app)
        whole = new_shape(registry, [app]) if "25" in shape else stub.export
        if what == "layer" and stub.classic:
            right = plain(registry, one)[1]
        wrong = right[:-2] + bytes([right[-2] ^ 1]) + right[-1:]
        stub.export = lambda ids: whole(ids).replace(right, wrong)
        taken = run(stub, layout, "app:1")["app:1"]
    named = one.layers[1].diff_id if what == "layer" and stub.classic else blob.digest
    assert "the Engine's export lacks" in taken.problem
    assert named in taken.problem
    assert not layout.has(blob.digest)
    for path in (layout.root / "blobs" / "sha256").iterdir():
        assert digest_of(path.read_bytes()) == f"sha256:{path.name}"


def test_document_that_is_damaged_in_the_store(
    stub: EngineStub, registry: Store, layout: Layout
) -> None:
    app = registry.image("app:1", "a")
    exporting(stub, registry, app)
    spoil(layout, check(layout, run(stub, layout, "app:1")["app:1"]).on(AMD64).config.digest)
    taken = run(stub, layout, "app:1")["app:1"]
    assert taken.lacked
    check(layout, taken)


def test_config_that_does_not_fit_its_manifest(
    containerd: EngineStub, registry: Store, layout: Layout
) -> None:
    one = registry.platform_image(["a", "b"])
    short = {
        "schemaVersion": 2,
        "config": {"mediaType": "x", "digest": one.config.digest, "size": one.config.size},
        "layers": [],
    }
    target = registry.put(json.dumps(short).encode(), one.manifest.media_type)
    wrong = replace(one, manifest=target)
    exporting(containerd, registry, LockedImage("docker.io/library/app:1", target, {AMD64: wrong}))
    taken = run(containerd, layout, "app:1")["app:1"]
    assert "its config names 2 layers, its manifest 0" in taken.problem


def test_rubbish_in_an_export_stays_outside(
    classic: EngineStub, registry: Store, layout: Layout
) -> None:
    app = registry.image("app:1", "a")
    exporting(classic, registry, app)
    rubbish = tar_of(
        [("../../escape", b"x"), ("blobs/sha256/" + "0" * 64, b"x" * 600), ("0/layer.tar", b"x")]
    )
    whole = classic.export
    classic.export = lambda ids: rubbish.rstrip(b"\0").ljust(512 * 7, b"\0") + whole(ids)
    before = set(layout.root.parent.iterdir())
    check(layout, run(classic, layout, "app:1")["app:1"])
    assert set(layout.root.parent.iterdir()) - before == {layout.root}
    assert len([name for name in files(layout) if name.startswith("blobs/")]) == 3


def test_what_a_killed_run_left_goes(stub: EngineStub, registry: Store, layout: Layout) -> None:
    exporting(stub, registry, registry.image("app:1", "a"))
    (layout.root / ".export").mkdir(parents=True)
    (layout.root / ".export" / "7").write_bytes(b"half")
    check(layout, run(stub, layout, "app:1")["app:1"])
    assert not (layout.root / ".export").exists()


# gzip


@given(st.lists(st.binary(max_size=300), max_size=20))
def test_gzip_is_what_it_was(blocks: list[bytes]) -> None:
    with _gzip.pool() as threads:
        packed = b"".join(_gzip.compress(blocks, threads))
    assert gzip.decompress(packed) == b"".join(blocks)


def test_gzip_is_the_same_on_every_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    content = random.Random(1).randbytes(3 << 20)
    blocks = [content[at : at + (1 << 20)] for at in range(0, len(content), 1 << 20)]
    found = set()
    for cores in (1, 2, 64):
        monkeypatch.setattr(os, "cpu_count", lambda cores=cores: cores)
        with _gzip.pool() as threads:
            found.add(digest_of(b"".join(_gzip.compress(blocks, threads))))
    assert len(found) == 1


def test_gzip_holds_few_blocks_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    asked = itertools.count()
    blocks = (bytes(10) for number in asked if number < 10_000)
    with _gzip.pool() as threads:
        stream = _gzip.compress(blocks, threads)
        for _piece in itertools.islice(stream, 3):
            pass
        assert next(asked) < 12
        stream.close()
