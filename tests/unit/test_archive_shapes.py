# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Archives of every shape offer the same images, and bad ones are refused alike."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from images import AMD64, ARM64, LAYER, Store, blob, descriptor, digest, digest_of, layer_bytes
from shapes import (
    TAR,
    Files,
    compressed,
    config_of,
    docker_save_before_25,
    docker_save_since_25,
    hex_of,
    oci_layout,
    plain_layer,
    skopeo,
    tar,
)

from ansible_collections.fleet.images.plugins.module_utils import _bundle, _docker_archive
from ansible_collections.fleet.images.plugins.module_utils._archive import Archive, read
from ansible_collections.fleet.images.plugins.module_utils._bundle import BundleError, blob_name
from ansible_collections.fleet.images.plugins.module_utils._lock import LockedImage

APP, WEB = "docker.io/library/app:1", "site.example/web:2"
SEEDS = ["a", "b"]
UNCOMPRESSED: dict[str, Callable[[], Files]] = {
    "docker save before 25": lambda: docker_save_before_25(([APP], SEEDS)),
    "docker save since 25": lambda: docker_save_since_25(([APP], SEEDS)),
    "skopeo": lambda: skopeo([APP], SEEDS),
}
COMPRESSED: dict[str, Callable[[], Files]] = {
    "kaniko": lambda: compressed([APP], SEEDS, "sha256:{}", "{}.tar.gz"),
    "jib": lambda: compressed([APP], SEEDS, "config.json", "{}.tar.gz"),
    "Bazel": lambda: compressed([APP], SEEDS, "blobs/sha256/{}", "blobs/sha256/{}.tar.gz"),
    "gzip behind a plain name": lambda: compressed([APP], SEEDS, "{}.json", "{}/layer.tar"),
}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.at(tmp_path / "store")


def streamed(archive: Archive, platform: str = AMD64) -> dict[str, bytes]:
    """What a load of all images sends, verified on its way."""
    images = [(image, platform) for image in archive.images.values()]
    content = b"".join(_bundle.stream(archive.nameless(images)))
    with tarfile.open(fileobj=io.BytesIO(content)) as sent:
        return {info.name: sent.extractfile(info).read() for info in sent}  # type: ignore[union-attr]


def check_sent(archive: Archive, *images: LockedImage) -> None:
    """What is sent is an OCI layout and a docker archive, whole and without names."""
    sent = streamed(archive)
    for name, content in sent.items():
        assert not name.startswith("blobs/") or digest_of(content) == "sha256:" + name[13:]
    docker = {entry["Config"]: entry for entry in json.loads(sent["manifest.json"])}
    for image in images:
        here = image.on(AMD64)
        manifest = json.loads(sent[blob_name(here.manifest.digest)])
        assert manifest["config"] == descriptor(here.config)
        assert manifest["layers"] == [descriptor(layer) for layer in here.layers]
        entry = docker[blob_name(here.config.digest)]
        assert entry["RepoTags"] is None
        assert entry["Layers"] == [blob_name(layer.digest) for layer in here.layers]
        assert all(blob_name(layer.digest) in sent for layer in here.layers)
        assert sent[blob_name(here.config.digest)] == config_of(SEEDS)


@pytest.mark.parametrize("make", UNCOMPRESSED.values(), ids=UNCOMPRESSED.keys())
def test_uncompressed_layers_are_known_by_their_diff_ids(
    make: Callable[[], Files], tmp_path: Path
) -> None:
    archive = read([tar(tmp_path / "a.tar", make())])
    (image,) = archive.images.values()
    here = image.on(AMD64)
    assert (image.name, image.target, list(image.platforms)) == (APP, here.manifest, [AMD64])
    assert here.config.digest == digest_of(config_of(SEEDS))
    contents = [plain_layer(seed) for seed in SEEDS]
    found = [(one.digest, one.diff_id, one.size, one.media_type) for one in here.layers]
    assert found == [(digest_of(one), digest_of(one), len(one), TAR) for one in contents]
    check_sent(archive, image)


def test_the_same_image_whichever_engine_saved_it(tmp_path: Path) -> None:
    made = [tar(tmp_path / f"{n}.tar", make()) for n, make in enumerate(UNCOMPRESSED.values())]
    first, *others = [read([path]).images for path in made]
    assert others == [first, first]


@pytest.mark.parametrize("make", COMPRESSED.values(), ids=COMPRESSED.keys())
def test_compressed_layers_are_known_by_what_they_are(
    make: Callable[[], Files], tmp_path: Path
) -> None:
    archive = read([tar(tmp_path / "a.tar", make())])
    (image,) = archive.images.values()
    contents = [layer_bytes(seed) for seed in SEEDS]
    found = [(one.digest, one.diff_id, one.size) for one in image.on(AMD64).layers]
    assert found == [(digest_of(one), diff_id, len(one)) for one, diff_id in contents]
    assert {one.media_type for one in image.on(AMD64).layers} == {LAYER}
    check_sent(archive, image)


def test_layers_with_zstd_are_named_so(tmp_path: Path) -> None:
    files = compressed([APP], ["a"], "{}.json", "{}.tar")
    layer = next(name for name in files if name.endswith(".tar"))
    files[layer] = b"\x28\xb5\x2f\xfd and more"
    (image,) = read([tar(tmp_path / "a.tar", files)]).images.values()
    assert [one.media_type for one in image.on(AMD64).layers] == [f"{TAR}+zstd"]


def test_uncompressed_layers_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """But for their first bytes."""
    asked = []
    real = _docker_archive.read_region

    def counted(region: _bundle.Region) -> Any:
        for chunk in real(region):
            asked.append((region, len(chunk)))
            yield chunk

    monkeypatch.setattr(_docker_archive, "read_region", counted)
    monkeypatch.setattr("ansible_collections.fleet.images.plugins.module_utils._parts.CHUNK", 16)
    archive = read([tar(tmp_path / "a.tar", docker_save_before_25(([APP], SEEDS)))])
    layers = [one.digest for image in archive.images.values() for one in image.on(AMD64).layers]
    regions = [archive.regions[blob_name(one)] for one in layers]
    assert [size for region, size in asked if region in regions] == [16, 16]


@pytest.mark.parametrize("hard_links", [False, True], ids=["symbolic", "hard"])
def test_several_images_with_shared_and_repeated_layers(tmp_path: Path, hard_links: bool) -> None:
    images = ([APP, "also:1"], ["a", "b", "a"]), ([WEB], ["a", "c"]), (None, ["b"])
    files = docker_save_before_25(*images)
    assert sum(isinstance(content, str) for content in files.values()) == 3
    archive = read([tar(tmp_path / "a.tar", files, hard_links)])
    nameless = f"docker.io/library/{digest_of(config_of(['b']))[7:19]}:loaded"
    assert set(archive.images) == {APP, "docker.io/library/also:1", WEB, nameless}
    a, b, c = (digest_of(plain_layer(seed)) for seed in "abc")
    assert [one.digest for one in archive.images[APP].on(AMD64).layers] == [a, b, a]
    assert [one.digest for one in archive.images[WEB].on(AMD64).layers] == [a, c]
    sent = streamed(archive)
    assert {blob_name(one) for one in (a, b, c)} <= set(sent)


def test_an_image_without_layers(tmp_path: Path) -> None:
    files = docker_save_before_25(([APP], []))
    entry = json.loads(files["manifest.json"])  # type: ignore[arg-type]
    entry[0]["Layers"] = None
    files["manifest.json"] = json.dumps(entry).encode()
    (image,) = read([tar(tmp_path / "a.tar", files)]).images.values()
    assert image.on(AMD64).layers == ()


# OCI layouts without manifest.json


def named(name: str) -> dict[str, Any]:
    """As docker and buildx name an image in an index."""
    tag = name.rpartition(":")[2]
    notes = {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": tag}
    return {"annotations": notes}


def test_an_oci_archive_of_several_platforms(store: Store, tmp_path: Path) -> None:
    app = store.index(APP, amd64=["a", "b"], arm64=["z"])
    web = store.image(WEB, "a", "c")
    noted = {"annotations": {"org.opencontainers.image.ref.name": WEB}}  # as skopeo
    entries = {**descriptor(app.target), **named(APP)}, {**descriptor(web.target), **noted}
    archive = read([tar(tmp_path / "a.tar", oci_layout(store, *entries))])
    assert archive.images == {APP: app, WEB: web}
    sent = streamed(replace(archive, images={APP: app}), ARM64)
    assert blob_name(app.on(ARM64).layers[0].digest) in sent
    assert blob_name(app.on(AMD64).layers[0].digest) not in sent


@pytest.mark.parametrize("note", [{}, {"org.opencontainers.image.ref.name": "latest"}])
def test_a_bare_tag_is_no_name(store: Store, tmp_path: Path, note: dict[str, str]) -> None:
    app = store.index(APP, amd64=["a"], arm64=["z"])
    files = oci_layout(store, {**descriptor(app.target), "annotations": note})
    (image,) = read([tar(tmp_path / "a.tar", files)]).images.values()
    assert image.name == f"docker.io/library/{app.target.digest[7:19]}:loaded"
    assert set(image.platforms) == {AMD64, ARM64}


def test_two_images_of_one_name_are_not_mixed(store: Store, tmp_path: Path) -> None:
    old, new = store.index(APP, amd64=["a"], arm64=["z"]), store.image(APP, "b")
    entries = [{**descriptor(one.target), **named(APP)} for one in (old, new)]
    assert read([tar(tmp_path / "a.tar", oci_layout(store, *entries))]).images == {APP: new}


def attested(store: Store) -> tuple[LockedImage, dict[str, Any]]:
    """An image, and an index of it with an attestation that is inside, as BuildKit writes it."""
    app = store.image(APP, "a")
    rootfs = {"type": "layers", "diff_ids": [digest("statement")]}
    nothing = {"os": "unknown", "architecture": "unknown", "rootfs": rootfs}
    config = store.put(json.dumps(nothing).encode(), "application/vnd.oci.image.config.v1+json")
    statement = store.put(b"{}", "application/vnd.in-toto+json")
    layers = [descriptor(statement)]
    content = {"schemaVersion": 2, "config": descriptor(config), "layers": layers}
    manifest = store.put(json.dumps(content).encode(), app.target.media_type)
    helm = store.put(b'{"name": "chart"}', "application/vnd.cncf.helm.config.v1+json")
    content = {"schemaVersion": 2, "config": descriptor(helm), "layers": []}
    chart = store.put(json.dumps(content).encode(), app.target.media_type)
    children = [descriptor(one) for one in (manifest, app.target, chart, blob("not inside"))]
    media_type = "application/vnd.oci.image.index.v1+json"
    index = json.dumps({"schemaVersion": 2, "manifests": children}).encode()
    return app, descriptor(store.put(index, media_type))


@pytest.mark.parametrize("docker", [True, False], ids=["with manifest.json", "without"])
def test_attestations_and_artifacts_are_no_images(
    store: Store, tmp_path: Path, docker: bool
) -> None:
    app, index = attested(store)
    files = oci_layout(store, {**index, **named(APP)})
    if docker:
        entry = {"Config": blob_name(app.on(AMD64).config.digest), "RepoTags": [APP], "Layers": []}
        files["manifest.json"] = json.dumps([entry]).encode()
    (image,) = read([tar(tmp_path / "a.tar", files)]).images.values()
    assert (image.name, image.target.digest) == (APP, index["digest"])
    assert image.platforms == app.platforms


def test_a_layout_of_artifacts_only_is_refused(store: Store, tmp_path: Path) -> None:
    entry = descriptor(store.put(b'{"config": {"digest": "sha256:0"}}', "application/json"))
    with pytest.raises(BundleError, match="it names no container image"):
        read([tar(tmp_path / "a.tar", oci_layout(store, entry))])


# what is wrong


def old_shape(change: Callable[[Files, list[Any]], None]) -> Files:
    """The old shape, changed: its files, and the entries of manifest.json."""
    files = docker_save_before_25(([APP], ["a", "b", "a"]))
    entries = json.loads(files["manifest.json"])  # type: ignore[arg-type]
    change(files, entries)
    if "manifest.json" in files:
        files["manifest.json"] = json.dumps(entries).encode()
    return files


def _other_config(files: Files, entries: list[Any]) -> None:
    files[entries[0]["Config"]] = config_of(["a", "b", "c"])


def _no_config(files: Files, entries: list[Any]) -> None:
    del files[entries[0]["Config"]]


def _no_layer(files: Files, entries: list[Any]) -> None:
    del files[entries[0]["Layers"][1]]


def _one_layer_less(_files: Files, entries: list[Any]) -> None:
    entries[0]["Layers"].pop()


def _wrong_diff_id(files: Files, entries: list[Any]) -> None:
    config = json.loads(config_of(["a"]))
    config["rootfs"]["diff_ids"] = ["../../etc"]
    files["config.json"] = json.dumps(config).encode()
    entries[0].update(Config="config.json", Layers=entries[0]["Layers"][:1])


def _climbing(_files: Files, entries: list[Any]) -> None:
    entries[0]["Layers"][0] = "../../etc/passwd"


def _numbers(_files: Files, entries: list[Any]) -> None:
    entries[0].update(Config=5, Layers=[1, 2, 3])


def _no_index(files: Files, _entries: list[Any]) -> None:
    del files["manifest.json"]


def _nothing(_files: Files, entries: list[Any]) -> None:
    entries.clear()


BAD = {
    "other config": (_other_config, r"the archive holds other content under it; make it anew"),
    "no config": (_no_config, r"a.tar: wanted \w+.json, which its manifest.json names, found none"),
    "no layer": (_no_layer, r"a.tar: wanted \w+/layer.tar, which its manifest.json names, found"),
    "one layer less": (_one_layer_less, r"names 3 layers, manifest.json 2"),
    "wrong diff ID": (_wrong_diff_id, r"its index is not whole"),
    "climbing": (_climbing, r"a.tar: wanted ../../etc/passwd, which its manifest.json names"),
    "numbers": (_numbers, r"a.tar: "),
    "no index": (_no_index, r"wanted an archive with index.json or manifest.json, found none"),
    "nothing": (_nothing, r"it names no container image"),
}


@pytest.mark.parametrize(("change", "told"), BAD.values(), ids=BAD.keys())
def test_docker_archives_that_are_not_whole(
    tmp_path: Path, change: Callable[[Files, list[Any]], None], told: str
) -> None:
    with pytest.raises(BundleError, match=told):
        read([tar(tmp_path / "a.tar", old_shape(change))])


def test_a_layer_that_is_not_that_of_its_diff_id(tmp_path: Path) -> None:
    files = docker_save_before_25(([APP], SEEDS))
    layer = next(name for name in files if name.endswith("layer.tar"))
    files[layer] = plain_layer("c")
    archive = read([tar(tmp_path / "a.tar", files)])
    with pytest.raises(
        BundleError, match=rf"blob {digest_of(plain_layer('a'))}: .*a.tar holds oth"
    ):
        streamed(archive)


SOME = digest("some layer")[7:]
LINKS = {
    "to the system": (f"{SOME}/layer.tar", "/etc/passwd"),
    "out of the archive": (f"{SOME}/layer.tar", "../../layer.tar"),
    "to nothing": (f"{SOME}/layer.tar", f"../{SOME[::-1]}/layer.tar"),
    "to itself": (f"{SOME}/layer.tar", "layer.tar"),
    "to a directory": (f"{SOME}/layer.tar", "."),
    "to a config": (f"{SOME}/layer.tar", f"../{hex_of(config_of(SEEDS))}.json"),
    "for the index": ("index.json", "manifest.json"),
    "for a config": (f"{SOME}.json", f"{hex_of(config_of(SEEDS))}.json"),
}


@pytest.mark.parametrize("hard_links", [False, True], ids=["symbolic", "hard"])
@pytest.mark.parametrize(("name", "target"), LINKS.values(), ids=LINKS.keys())
def test_links_elsewhere_are_refused(
    tmp_path: Path, name: str, target: str, hard_links: bool
) -> None:
    files = docker_save_before_25(([APP], SEEDS))
    read([tar(tmp_path / "a.tar", files)])
    files[name] = target
    with pytest.raises(BundleError, match=r"a.tar: its member .* nothing was touched"):
        read([tar(tmp_path / "a.tar", files, hard_links)])


def test_a_link_and_a_file_of_one_name(tmp_path: Path) -> None:
    path = tar(tmp_path / "a.tar", docker_save_before_25(([APP], ["a", "a"])))
    with tarfile.open(path, "a") as made:
        (link,) = [info for info in made if info.issym()]
        link.type, link.linkname = tarfile.REGTYPE, ""
        made.addfile(link)
    with pytest.raises(BundleError, match="stands twice in it"):
        read([path])


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("old") / "a.tar"
    return tar(path, docker_save_before_25(([APP], ["a", "b", "a"]), ([WEB], ["b"]))).read_bytes()


@settings(max_examples=300)
@given(data=st.data())
def test_a_flipped_byte_is_noticed_or_does_not_matter(
    old: bytes, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    content = bytearray(old)
    headers = [n for n in range(0, len(old), 512) if old[n + 257 : n + 262] == b"ustar"]
    in_header = st.builds(lambda at, by: at + by, st.sampled_from(headers), st.integers(0, 511))
    place = data.draw(in_header | st.integers(0, len(content) - 1))
    content[place] ^= data.draw(st.integers(1, 255))
    flipped = tmp_path_factory.getbasetemp() / "flipped.tar"
    flipped.write_bytes(content)
    try:
        sent = streamed(read([flipped]))
    except BundleError:
        return
    for name, one in sent.items():
        assert not name.startswith("blobs/") or digest_of(one) == "sha256:" + name[13:]


@given(length=st.integers(0, 1 << 20))
def test_a_cut_docker_archive_is_noticed(
    old: bytes, tmp_path_factory: pytest.TempPathFactory, length: int
) -> None:
    cut = tmp_path_factory.getbasetemp() / "cut.tar"
    cut.write_bytes(old[: length % (len(old) - 10240)])
    with pytest.raises(BundleError, match=r"cut.tar: "):
        read([cut])
