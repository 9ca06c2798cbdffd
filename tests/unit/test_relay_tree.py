# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tree that a relay serves: just what the lock names, as Distribution lays it out."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path

import pytest
from images import Store, as_lock, digest_of, renamed

from ansible_collections.fleet.images.plugins.module_utils import _relay_tree
from ansible_collections.fleet.images.plugins.module_utils._lock import LockedImage
from ansible_collections.fleet.images.plugins.module_utils._reference import parse
from ansible_collections.fleet.images.plugins.module_utils._relay_tree import RelayError

BASE = Path("docker", "registry", "v2")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.at(tmp_path / "store")


def lay(store: Store, root: Path, *images: LockedImage) -> _relay_tree.Difference:
    tree = _relay_tree.tree_of(images)
    difference = _relay_tree.look(store.layout, root, tree)
    _relay_tree.apply(store.layout, root, tree, difference)
    assert not _relay_tree.look(store.layout, root, tree)
    assert _relay_tree.served(root) == _relay_tree.told(tree.links)
    return difference


def files(root: Path) -> dict[str, Path]:
    found = [path for path in (root / BASE).rglob("*") if path.is_file()]
    return {str(path.relative_to(root / BASE)): path for path in found}


def test_an_index_cut_to_one_platform_is_laid_out_as_distribution_does(
    store: Store, tmp_path: Path
) -> None:
    image = store.index("reg.example:5000/shop/web:1", amd64=["base", "web"])
    lay(store, tmp_path / "tree", image)
    here = "repositories/shop/web"
    own = image.platforms["linux/amd64"]
    manifests = [image.target.digest, own.manifest.digest]
    layers = [own.config.digest, *(layer.digest for layer in own.layers)]
    index = image.target.digest
    wanted = {
        f"{here}/_manifests/tags/1/current/link": index,
        f"{here}/_manifests/tags/1/index/sha256/{index[7:]}/link": index,
        **{f"{here}/_manifests/revisions/sha256/{one[7:]}/link": one for one in manifests},
        **{f"{here}/_layers/sha256/{one[7:]}/link": one for one in layers},
    }
    blobs = {f"blobs/sha256/{one[7:9]}/{one[7:]}/data": one for one in (*manifests, *layers)}
    found = files(tmp_path / "tree")
    assert {
        name: path.read_text() for name, path in found.items() if name.endswith("link")
    } == wanted
    assert set(found) == {*wanted, *blobs}
    for name, digest in blobs.items():
        assert found[name].samefile(store.layout.path(digest))
        assert digest_of(found[name].read_bytes()) == digest


def test_manifests_of_attestations_are_manifests_and_their_statements_are_layers(
    store: Store, tmp_path: Path
) -> None:
    image = store.attested(store.index("shop/web:1", amd64=["web"]))
    manifest, config, statement = image.platforms["linux/amd64"].attestations
    lay(store, tmp_path / "tree", image)
    found = files(tmp_path / "tree")
    kinds = {
        digest: {name.split("/")[3] for name, path in found.items() if path.parent.name in digest}
        for digest in (manifest.digest, config.digest, statement.digest)
    }
    assert [sorted(kind & {"_manifests", "_layers"}) for kind in kinds.values()] == [
        ["_manifests"],
        ["_layers"],
        ["_layers"],
    ]


def test_the_name_at_the_destination_is_there_too(store: Store, tmp_path: Path) -> None:
    lay(store, tmp_path, store.image("web:1", "a", as_="site.example/our/web:stable"))
    told = [line.split()[0] for line in _relay_tree.served(tmp_path) if "@" not in line]
    assert told == ["library/web:1", "our/web:stable"]


def test_two_registries_share_a_repository_and_no_tag_lies(store: Store, tmp_path: Path) -> None:
    first, second = store.image("one.example/web:1", "a"), store.image("two.example/web:1", "b")
    same = renamed(first, "three.example/web:2")
    lay(store, tmp_path, first, second, same)
    assert _relay_tree.served(tmp_path) == sorted(
        [
            f"web@{first.target.digest}",
            f"web@{second.target.digest}",
            f"web:2 {first.target.digest}",
        ]
    )


def test_an_image_without_tag_is_there_by_digest(store: Store, tmp_path: Path) -> None:
    image = store.image("shop/web:1", "a")
    named = replace(image, name=str(parse(f"shop/web@{image.target.digest}")))
    lay(store, tmp_path, named)
    assert _relay_tree.served(tmp_path) == [f"shop/web@{image.target.digest}"]


def test_what_is_not_named_leaves_and_the_store_keeps_it(store: Store, tmp_path: Path) -> None:
    old, new = store.image("shop/web:1", "base", "a"), store.image("shop/web:1", "base", "b")
    other = store.image("other:1", "base", "c")
    lay(store, tmp_path / "tree", old, other)
    (tmp_path / "tree" / BASE / "repositories" / "stranger").mkdir()
    (tmp_path / "tree" / BASE / "repositories" / "stranger" / "link").write_text("x")
    lay(store, tmp_path / "tree", new)
    assert set(_relay_tree.served(tmp_path / "tree")) == {
        f"shop/web:1 {new.target.digest}",
        f"shop/web@{new.target.digest}",
    }
    served = {path.parent.name for path in (tmp_path / "tree").rglob("data")}
    assert served == {digest[7:] for digest in new.all_blobs}
    repositories = tmp_path / "tree" / BASE / "repositories"
    assert [path.name for path in repositories.iterdir()] == ["shop"]
    assert all(store.layout.has(digest) for digest in (*old.all_blobs, *other.all_blobs))


def test_a_second_time_nothing_is_put_and_what_changed_is_put_anew(
    store: Store, tmp_path: Path
) -> None:
    image = store.image("shop/web:1", "a")
    assert lay(store, tmp_path, image).put
    assert not lay(store, tmp_path, image)
    blob = image.platforms["linux/amd64"].layers[0]
    content = store.layout.path(blob.digest).read_bytes()
    store.layout.put(content, anew=True)
    link = next(tmp_path.rglob("current")) / "link"
    link.write_text("sha256:half")
    assert {Path(path).name for path in lay(store, tmp_path, image).put} == {"data", "link"}
    assert store.layout.path(blob.digest).stat().st_nlink == 2


@pytest.mark.parametrize("damage", ["missing", "short"])
def test_an_image_that_is_not_whole_is_told_with_the_next_step(store: Store, damage: str) -> None:
    good, bad = store.image("good:1", "a"), store.image("bad:1", "b", "c")
    digest = bad.platforms["linux/amd64"].layers[1].digest
    if damage == "missing":
        store.layout.discard(digest)
    else:
        store.layout.path(digest).write_bytes(b"x")
    images, reasons = _relay_tree.whole(store.layout, as_lock(good, bad))
    assert list(images) == [good.name]
    assert list(reasons) == [bad.name]
    assert f"its blob {digest}" in reasons[bad.name]
    assert ("not there" if damage == "missing" else "another size") in reasons[bad.name]
    assert reasons[bad.name].endswith("; run image_fetch")


@pytest.mark.parametrize(
    ("code", "told"), [(errno.EXDEV, "on the file system of the store"), (errno.EPERM, "hard link")]
)
def test_a_place_without_links_is_told(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, told: str
) -> None:
    def refuse(*_unused: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(RelayError, match=told):
        lay(store, tmp_path / "tree", store.image("web:1", "a"))


def test_a_blob_that_cannot_be_read_is_told(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda *_unused: False)
    with pytest.raises(RelayError, match="wanted readable for the relay"):
        lay(store, tmp_path / "tree", store.image("web:1", "a"))
    assert files(tmp_path / "tree") == {}


def test_without_a_store_the_next_step_is_told(tmp_path: Path) -> None:
    with pytest.raises(RelayError, match="run image_fetch first"):
        _relay_tree.whole(Store(_relay_tree.Layout(tmp_path / "none")).layout, {})
