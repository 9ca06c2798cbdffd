# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Archives: what is damaged, cut or evil is refused, with one sentence and nothing touched."""

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
from images import AMD64, ARM64, INDEX, Store, descriptor, digest, digest_of, renamed

from ansible_collections.fleet.images.plugins.module_utils import _bundle, _docker_archive, _tar
from ansible_collections.fleet.images.plugins.module_utils._archive import Archive, read
from ansible_collections.fleet.images.plugins.module_utils._bundle import BundleError, blob_name
from ansible_collections.fleet.images.plugins.module_utils._lock import LockedImage

Members = "list[tuple[tarfile.TarInfo, bytes]]"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.at(tmp_path / "store")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of two images, and its directory for whatever a test makes of it."""
    store = Store.at(tmp_path_factory.mktemp("whole") / "store")
    images = store.image("app:1", "a", "b"), store.index("site.example/two:2", amd64=["a", "c"])
    return store.bundle(store.layout.root.parent / "b.tar", *images)


def streamed(archive: Archive) -> dict[str, bytes]:
    """What a load of all images sends, verified on its way."""
    images = [(image, AMD64) for image in archive.images.values()]
    content = b"".join(_bundle.stream(archive.nameless(images)))
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        return {info.name: tar.extractfile(info).read() for info in tar}  # type: ignore[union-attr]


def taken_apart(path: Path) -> Any:
    with tarfile.open(path) as tar:
        return [(info, tar.extractfile(info).read()) for info in tar]  # type: ignore[union-attr]


def put_together(path: Path, members: Any, form: int = tarfile.GNU_FORMAT) -> Path:
    with tarfile.open(path, "w", format=form) as tar:
        for info, content in members:
            tar.addfile(info, io.BytesIO(content))
    return path


def member(name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE) -> Any:
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname = kind, len(content), "/etc/passwd"
    return info, content


# what is inside


def test_a_bundle_offers_what_was_put_in(store: Store, tmp_path: Path) -> None:
    one = store.image("app:1", "a", "b")
    two = store.index("site.example/two:2", amd64=["a", "c"], arm64=["z"])
    archive = read([store.bundle(tmp_path / "b.tar", one, two)])
    only_amd64 = replace(two, platforms={AMD64: two.on(AMD64)})
    assert archive.images == {one.name: one, two.name: only_amd64}
    for blob in (*one.blobs(AMD64), *two.blobs(AMD64)):
        assert archive.has(blob.digest)
    assert not archive.has(two.on(ARM64).manifest.digest)


def test_schema_2_is_kept_as_it_is(store: Store, tmp_path: Path) -> None:
    store.docker = True
    image = store.image("app:1", "a")
    (found,) = read([store.bundle(tmp_path / "b.tar", image)]).images.values()
    assert found == image
    assert found.target.media_type.endswith("docker.distribution.manifest.v2+json")


def test_names_are_those_of_the_destination(store: Store, tmp_path: Path) -> None:
    image = store.image("app:1", "a", as_="site.example/app:2")
    assert list(read([store.bundle(tmp_path / "b.tar", image)]).images) == ["site.example/app:2"]


def test_both_names_of_one_image(store: Store, tmp_path: Path) -> None:
    image = store.image("app:1", "a")
    path = store.bundle(tmp_path / "b.tar", image, renamed(image, "also:1"))
    assert set(read([path]).images) == {"docker.io/library/app:1", "docker.io/library/also:1"}


def test_a_thin_bundle_names_what_it_leaves_out(store: Store, tmp_path: Path) -> None:
    image = store.image("app:1", "a", "b")
    low, high = image.on(AMD64).layers
    archive = read([store.bundle(tmp_path / "b.tar", image, without=[low.digest])])
    assert archive.images == {image.name: image}
    assert (archive.has(low.digest), archive.has(high.digest)) == (False, True)
    assert set(streamed(archive)) & {blob_name(low.digest), blob_name(high.digest)} == {
        blob_name(high.digest)
    }


def test_what_docker_save_writes_is_read(whole: Path, tmp_path: Path) -> None:
    """Engine 25 and newer: directories, a file `repositories`, another order, pax headers."""
    members = taken_apart(whole)
    first = [member("blobs/", kind=tarfile.DIRTYPE), member("./blobs/sha256", kind=tarfile.DIRTYPE)]
    for info, _content in members:
        info.pax_headers = {"mtime": "1700000000.123456789"}
    last = [member("repositories", b"{}")]
    made = put_together(tmp_path / "s.tar", first + members[::-1] + last, tarfile.PAX_FORMAT)
    assert read([made]).images == read([whole]).images
    assert streamed(read([made])) == streamed(read([whole]))


def test_an_image_without_name_gets_one_from_its_id(store: Store, tmp_path: Path) -> None:
    image = store.image("app:1", "a")
    members = taken_apart(store.bundle(tmp_path / "b.tar", image))
    made = _with(tmp_path, members, "manifest.json", lambda found: found[0].update(RepoTags=None))
    (name,) = read([made]).images
    assert image.on(AMD64).config.digest[7:19] in name


def test_layers_are_not_read(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    real = _docker_archive.read_region
    monkeypatch.setattr(_docker_archive, "read_region", lambda one: asked.append(one) or real(one))
    archive = read([whole])
    layers = {
        archive.regions[blob_name(layer.digest)]
        for image in archive.images.values()
        for layer in image.on(AMD64).layers
    }
    assert asked and not layers & set(asked)


# without names


def test_nameless_members_are_the_bundle_without_its_names(whole: Path) -> None:
    archive = read([whole])
    sent = streamed(archive)
    before = {info.name: content for info, content in taken_apart(whole)}
    assert set(sent) == set(before)
    changed = {name for name in sent if sent[name] != before[name]}
    assert changed == {"manifest.json", "index.json"}
    was, now = (json.loads(one["manifest.json"]) for one in (before, sent))
    assert [{**entry, "RepoTags": None} for entry in was] == now
    was, now = (json.loads(one["index.json"]) for one in (before, sent))
    assert [entry.pop("annotations") for entry in was["manifests"]]
    assert was == now


def test_what_is_held_and_other_images_are_not_sent(whole: Path) -> None:
    archive = read([whole])
    one = archive.images["docker.io/library/app:1"]
    low, high = one.on(AMD64).layers
    found = archive.nameless([(one, AMD64)], frozenset([low.digest]))
    wanted = (one.target, one.on(AMD64).config, high)
    assert {m.digest for m in found if m.digest} == {blob.digest for blob in wanted}
    (entry,) = json.loads(found[2].content)  # type: ignore[arg-type]
    assert entry["Layers"] == [blob_name(low.digest), blob_name(high.digest)]


# many parts


@settings(max_examples=25)
@given(cuts=st.lists(st.integers(0, 1 << 16), max_size=6))
def test_many_parts_are_one_file(whole: Path, cuts: list[int]) -> None:
    content = whole.read_bytes()
    places = sorted(min(cut, len(content)) for cut in cuts)
    parts = []
    for number, (start, stop) in enumerate(zip([0, *places], [*places, len(content)])):
        parts.append(whole.with_name(f"{number}.part"))
        parts[-1].write_bytes(content[start:stop])
    archive = read(parts)
    assert archive.images == read([whole]).images
    assert streamed(archive) == streamed(read([whole]))


# damage


def outcome(path: Path) -> dict[str, bytes]:
    """What a load of the whole archive would send; BundleError is the only way to fail."""
    return streamed(read([path]))


@given(data=st.data())
def test_a_cut_archive_is_noticed_wherever_it_ends(whole: Path, data: st.DataObject) -> None:
    content = whole.read_bytes()
    border = st.integers(0, len(content) // 512).map(lambda block: block * 512)
    length = data.draw(border | st.integers(0, len(content) - 1))
    cut = whole.with_name("cut.tar")
    cut.write_bytes(content[:length])
    if length >= len(content) - 512:  # one block of zeros is left: nothing is missing
        assert outcome(cut) == outcome(whole)
        return
    with pytest.raises(BundleError, match=r"cut.tar: .* make it anew"):
        read([cut])


@settings(max_examples=300)
@given(data=st.data())
def test_a_flipped_byte_is_noticed_or_does_not_matter(whole: Path, data: st.DataObject) -> None:
    content = bytearray(whole.read_bytes())
    blocks = len(content) // 512
    headers = [n * 512 for n in range(blocks) if content[n * 512 + 257 : n * 512 + 262] == b"ustar"]
    in_header = st.builds(lambda at, by: at + by, st.sampled_from(headers), st.integers(0, 511))
    place = data.draw(in_header | st.integers(0, len(content) - 1))
    content[place] ^= data.draw(st.integers(1, 255))
    flipped = whole.with_name("flipped.tar")
    flipped.write_bytes(content)
    try:
        sent = outcome(flipped)
    except BundleError:
        return
    assert {n for n in sent if n.startswith("blobs/")} <= set(outcome(whole))
    for name, blob in sent.items():
        assert not name.startswith("blobs/") or digest_of(blob) == "sha256:" + name[13:]


@settings(max_examples=200)
@given(st.lists(st.binary(max_size=600) | st.just(bytes(512)), max_size=4), st.booleans())
def test_any_file_is_read_or_refused(whole: Path, chunks: list[bytes], behind: bool) -> None:
    path = whole.with_name("any.tar")
    path.write_bytes(whole.read_bytes()[:2048] * behind + b"".join(chunks))
    with pytest.raises(BundleError, match=r"any.tar"):
        read([path])


def _all_flips(info: tarfile.TarInfo) -> list[int]:
    return [info.offset_data + place for place in range(info.size)]


def test_a_flipped_byte_in_a_manifest_or_config_is_found_on_reading(whole: Path) -> None:
    content = whole.read_bytes()
    image = read([whole]).images["docker.io/library/app:1"]
    small = {blob_name(image.target.digest), blob_name(image.on(AMD64).config.digest)}
    with tarfile.open(whole) as tar:
        places = [place for info in tar if info.name in small for place in _all_flips(info)]
    for place in places[::7]:
        flipped = bytearray(content)
        flipped[place] ^= 1
        path = whole.with_name("small.tar")
        path.write_bytes(flipped)
        with pytest.raises(BundleError, match="the archive holds other content under it"):
            read([path])


def test_a_flipped_byte_in_a_layer_is_found_on_its_way(whole: Path) -> None:
    archive = read([whole])
    image = archive.images["docker.io/library/app:1"]
    layer = image.on(AMD64).layers[1].digest
    flipped = bytearray(whole.read_bytes())
    flipped[archive.regions[blob_name(layer)].offset + 15] ^= 1
    path = whole.with_name("layer.tar")
    path.write_bytes(flipped)
    members = read([path]).nameless([(image, AMD64)])
    with pytest.raises(BundleError, match=rf"blob {layer}: {path} holds other content"):
        list(_bundle.stream(members))


# what has no place in an archive

SHA = digest("some blob")[7:]
EVIL = {
    "climbs": member("../evil", b"x"),
    "climbs among blobs": member("blobs/sha256/../../../evil", b"x"),
    "absolute": member("/etc/evil", b"x"),
    "absolute blob": member(f"/blobs/sha256/{SHA}", b"x"),
    "unknown": member("evil", b"x"),
    "no digest": member("blobs/sha256/evil", b"x"),
    "digest and more": member(f"blobs/sha256/{SHA}/x", b"x"),
    "digest in capitals": member(f"blobs/sha256/{SHA.upper()}", b"x"),
    "newline": member(f"blobs/sha256/{SHA}\n", b"x"),
    "symlink": member(f"blobs/sha256/{SHA}", kind=tarfile.SYMTYPE),
    "hard link": member(f"blobs/sha256/{SHA}", kind=tarfile.LNKTYPE),
    "character device": member(f"blobs/sha256/{SHA}", kind=tarfile.CHRTYPE),
    "block device": member(f"blobs/sha256/{SHA}", kind=tarfile.BLKTYPE),
    "pipe": member(f"blobs/sha256/{SHA}", kind=tarfile.FIFOTYPE),
    "sparse": member(f"blobs/sha256/{SHA}", kind=tarfile.GNUTYPE_SPARSE),
    "unknown type": member(f"blobs/sha256/{SHA}", kind=b"Z"),
    "directory": member("evil", kind=tarfile.DIRTYPE),
    "directory that climbs": member("blobs/..", kind=tarfile.DIRTYPE),
    "symlink for a directory": member("blobs", kind=tarfile.SYMTYPE),
    "index twice": member("index.json", b"{}"),
    "index twice, spelled otherwise": member("./index.json", b"{}"),
    "large small member": member("repositories", bytes(_tar.SMALL + 1)),
}


@pytest.mark.parametrize("evil", EVIL.values(), ids=EVIL.keys())
@pytest.mark.parametrize("first", [True, False])
def test_evil_members_are_refused(whole: Path, tmp_path: Path, evil: Any, first: bool) -> None:
    members = taken_apart(whole)
    members = [evil, *members] if first else [*members, evil]
    path = put_together(tmp_path / "evil.tar", members)
    before = path.read_bytes()
    with pytest.raises(BundleError, match=r"evil.tar: its member .* nothing was touched"):
        read([path])
    assert path.read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == ["evil.tar"]


def test_a_sparse_member_in_pax_is_refused(whole: Path, tmp_path: Path) -> None:
    info, content = member(f"blobs/sha256/{SHA}", b"1\n0\n5\n" + bytes(506) + b"12345")
    info.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.size": "5"}
    members = [*taken_apart(whole), (info, content)]
    with pytest.raises(BundleError):
        read([put_together(tmp_path / "evil.tar", members, tarfile.PAX_FORMAT)])


def test_sparse_numbers_that_are_none(whole: Path, tmp_path: Path) -> None:
    info, content = member(f"blobs/sha256/{SHA}", b"many\n" + bytes(507))
    info.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}
    members = [*taken_apart(whole), (info, content)]
    with pytest.raises(BundleError):
        read([put_together(tmp_path / "evil.tar", members, tarfile.PAX_FORMAT)])


@pytest.mark.parametrize("size", [-1, -512, -5000, -(1 << 60)])
@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME])
def test_negative_sizes_are_refused(whole: Path, tmp_path: Path, size: int, kind: bytes) -> None:
    """In older Pythons tarfile goes back and reads the same header for ever."""
    info = tarfile.TarInfo(f"blobs/sha256/{SHA}")
    info.size, info.type = size, kind
    header = info.tobuf(tarfile.GNU_FORMAT)
    path = tmp_path / "evil.tar"
    path.write_bytes(whole.read_bytes()[:-1024] + header + bytes(1024))
    with pytest.raises(BundleError):
        read([path])


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME])
def test_a_header_of_gigabytes_is_not_read(whole: Path, tmp_path: Path, kind: bytes) -> None:
    info = tarfile.TarInfo("header")
    info.size, info.type = 3 << 30, kind
    path = tmp_path / "evil.tar"
    with path.open("wb") as file:
        file.write(info.tobuf(tarfile.GNU_FORMAT))
        file.truncate(info.size + 4096)
    with pytest.raises(BundleError, match=rf"evil.tar: .*a header of {info.size} bytes"):
        read([path])


def test_too_many_members_are_refused(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = len(taken_apart(whole))
    monkeypatch.setattr(_tar, "MOST_MEMBERS", count)
    read([whole])
    monkeypatch.setattr(_tar, "MOST_MEMBERS", count - 1)
    with pytest.raises(BundleError, match=rf"is beyond {count - 1} members"):
        read([whole])


# an index that is not whole


def _with(tmp_path: Path, members: Any, name: str, change: Callable[[Any], Any]) -> Path:
    """The archive with one JSON member changed."""
    made = []
    for info, before in members:
        content = before
        if info.name == name:
            document = json.loads(before)
            changed = change(document)
            content = changed if isinstance(changed, bytes) else json.dumps(document).encode()
            info.size = len(content)
        made.append((info, content))
    return put_together(tmp_path / "changed.tar", made)


def _set(**values: Any) -> Callable[[Any], None]:
    return lambda document: document[0].update(values)


CHANGES: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "no JSON": ("manifest.json", lambda _old: b"{"),
    "endless nesting": ("manifest.json", lambda _old: b"[" * 100_000),
    "a number": ("manifest.json", lambda _old: b"5"),
    "null": ("manifest.json", lambda _old: b"null"),
    "not UTF-8": ("manifest.json", lambda _old: b'["\xff"]'),
    "no config": ("manifest.json", lambda old: old[0].pop("Config") and None),
    "unknown config": ("manifest.json", _set(Config=blob_name(digest("x")))),
    "config that climbs": ("manifest.json", _set(Config="../../etc/passwd")),
    "config is a number": ("manifest.json", _set(Config=5)),
    "no name": ("manifest.json", _set(RepoTags=["No Name"])),
    "name is a number": ("manifest.json", _set(RepoTags=[5])),
    "names are a number": ("manifest.json", _set(RepoTags=5)),
    "index is a list": ("index.json", lambda _old: b"[]"),
    "index without manifests": ("index.json", lambda old: old.pop("manifests") and None),
    "index of nothing": ("index.json", lambda old: old.update(manifests=[])),
    "index of null": ("index.json", lambda old: old.update(manifests=None)),
    "index of numbers": ("index.json", lambda old: old.update(manifests=[5])),
    "entry without size": ("index.json", lambda old: old["manifests"][0].pop("size") and None),
    "endless size": ("index.json", lambda old: old["manifests"][0].update(size=float("inf"))),
    "no digest": ("index.json", lambda old: old["manifests"][0].update(digest="index.json")),
    "digest is a list": ("index.json", lambda old: old["manifests"][0].update(digest=[])),
    "digest of a layer": ("index.json", lambda _old: None),
}


@pytest.mark.parametrize(("name", "change"), CHANGES.values(), ids=CHANGES.keys())
def test_an_index_that_is_not_whole(
    store: Store, tmp_path: Path, name: str, change: Callable[[Any], Any]
) -> None:
    image = store.image("app:1", "a")
    members = taken_apart(store.bundle(tmp_path / "b.tar", image))
    if change is CHANGES["digest of a layer"][1]:

        def change(old: Any) -> Any:
            return old["manifests"][0].update(digest=image.on(AMD64).layers[0].digest)

    path = _with(tmp_path, members, name, change)
    with pytest.raises(BundleError):
        read([path])


@pytest.mark.parametrize("gone", ["index.json", "manifest.json"])
def test_a_bundle_without_one_index_is_read_by_the_other(
    whole: Path, tmp_path: Path, gone: str
) -> None:
    members = [(info, content) for info, content in taken_apart(whole) if info.name != gone]
    archive = read([put_together(tmp_path / "b.tar", members)])
    assert set(archive.images) == set(read([whole]).images)
    streamed(archive)


def test_a_config_that_names_fewer_layers_than_its_manifest(store: Store, tmp_path: Path) -> None:
    image = store.image("app:1", "a", "b")
    other = store.image_of(image.on(AMD64).layers[:1])
    content = json.loads(store.layout.read(image.target.digest))
    content["config"] = descriptor(other.config)
    target = store.put(json.dumps(content).encode(), image.target.media_type)
    odd = replace(image.on(AMD64), manifest=target, config=other.config)
    wrong = LockedImage(image.name, target, {AMD64: odd})
    with pytest.raises(BundleError, match=r"names 1 layers, its manifest 2"):
        read([store.bundle(tmp_path / "b.tar", wrong)])


def test_a_blob_that_is_too_large_for_a_manifest(store: Store, tmp_path: Path) -> None:
    image = store.image("app:1", "a")
    large = store.put(b'{"config":' + b" " * _tar.SMALL + b"1}", INDEX)
    wrong = replace(image, target=large)
    with pytest.raises(BundleError, match="at most"):
        read([store.bundle(tmp_path / "b.tar", wrong)])


@pytest.mark.parametrize("content", [b"", b"x", bytes(512), bytes(10240), b"\x1f\x8b" + bytes(600)])
def test_what_is_no_archive(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "b.tar"
    path.write_bytes(content)
    with pytest.raises(BundleError, match=r"b.tar: wanted"):
        read([path])


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read([tmp_path / "b.tar"])
