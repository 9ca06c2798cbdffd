# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lock: what is written is read again, and what is damaged is refused with its name."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from images import AMD64, ARM64, as_lock, blob, layer, locked

from ansible_collections.fleet.images.plugins.module_utils import _lock
from ansible_collections.fleet.images.plugins.module_utils._lock import (
    Blob,
    LockedImage,
    LockError,
    PlatformImage,
)
from ansible_collections.fleet.images.plugins.module_utils._reference import parse

NAME = "docker.io/library/app:1"
SEEDS = st.text("abc", min_size=1, max_size=3)


@st.composite
def images(draw: st.DrawFn) -> LockedImage:
    name = draw(st.from_regex(r"[a-z]{1,4}(/[a-z]{1,4})?:[0-9]", fullmatch=True))
    platforms = {}
    for platform in draw(st.sets(st.sampled_from([AMD64, ARM64, "linux/arm/v7"]), min_size=1)):
        seeds = draw(st.lists(SEEDS, max_size=4))
        manifest, config = (blob(f"{kind} {name} {platform}") for kind in ("m", "c"))
        layers = tuple(layer(seed) for seed in seeds)
        platforms[platform] = PlatformImage(platform, manifest, config, layers)
    as_ = draw(st.none() | st.just(parse("site.example/x:1")))
    return LockedImage(str(parse(name)), blob(f"target of {name}"), platforms, as_)


LOCKS = st.lists(images(), max_size=4).map(lambda found: as_lock(*found))


@given(LOCKS)
def test_written_and_read_again(lock: dict[str, LockedImage]) -> None:
    assert _lock.load(_lock.dump(lock)) == lock
    assert _lock.loads(_lock.dumps(lock)) == lock


@given(LOCKS)
def test_equal_locks_are_equal_texts(lock: dict[str, LockedImage]) -> None:
    turned = dict(reversed(lock.items()))
    assert _lock.dumps(turned) == _lock.dumps(lock)
    assert _lock.dumps(lock).endswith("}\n")


@given(LOCKS, st.data())
def test_selection_keeps_the_named_in_their_order(lock: Any, data: st.DataObject) -> None:
    names = data.draw(st.lists(st.sampled_from(sorted(lock)), unique=True)) if lock else []
    chosen = _lock.select(lock, names)
    assert list(chosen) == names
    assert all(chosen[name] is lock[name] for name in names)


def test_selection_of_what_is_not_there() -> None:
    with pytest.raises(LockError, match=r"other:1 is not in the lock; run image_fetch"):
        _lock.select({}, ["other:1"])


def test_images_of_a_lock() -> None:
    image = locked("app:1", ["a", "b", "a"])
    assert not image.is_index
    assert str(image.destination) == NAME
    assert str(replace(image, as_=parse("site/app:2")).destination) == "docker.io/site/app:2"
    kinds = [image.target, image.on(AMD64).config, *image.on(AMD64).layers[:2]]
    assert image.blobs(AMD64) == kinds
    around = locked("app:1", ["a"], index="index")
    assert around.is_index
    assert around.blobs(AMD64)[0] == around.target
    assert len(around.blobs(AMD64)) == 4


def test_attestations_are_kept_only_where_there_are_any() -> None:
    image = locked("app:1", ["a"])
    assert "attestations" not in json.dumps(image.as_dict())
    here = replace(image.on(AMD64), attestations=(blob("attestation"), blob("statement")))
    attested = replace(image, platforms={AMD64: here})
    assert _lock.load(_lock.dump(as_lock(attested))) == as_lock(attested)
    wanted = {*image.all_blobs, blob("attestation").digest, blob("statement").digest}
    assert set(attested.all_blobs) == wanted


def test_a_platform_that_the_lock_lacks() -> None:
    with pytest.raises(LockError, match=r"app:1: wanted for linux/arm64, the lock has linux/amd64"):
        locked("app:1", ["a"]).on(ARM64)


def test_the_best_platform_that_a_machine_runs() -> None:
    image = locked("app:1", ["a"])
    (one,) = image.platforms.values()
    arm = {f"linux/arm/{v}": replace(one, platform=f"linux/arm/{v}") for v in ("v5", "v6", "v7")}
    best = replace(image, platforms=arm)
    assert best.on("linux/arm/v7").platform == "linux/arm/v7"
    assert best.on("linux/arm/v6").platform == "linux/arm/v6"
    older = replace(image, platforms={"linux/arm/v5": arm["linux/arm/v5"]})
    assert older.on("linux/arm/v7").platform == "linux/arm/v5"
    assert older.runs_on("linux/arm/v6") and not older.runs_on("linux/arm64")
    with pytest.raises(LockError, match="wanted for linux/arm64, the lock has linux/arm/v5; fetch"):
        older.on("linux/arm64")


def test_platforms_are_read_in_one_spelling() -> None:
    document = _lock.dump(as_lock(locked("app:1", ["a"])))
    platforms = document["images"][NAME]["platforms"]
    platforms["linux/x86_64"] = platforms.pop(AMD64)
    assert _lock.load(document)[NAME].on(AMD64).platform == AMD64


def _spoil(*path: Any, value: Any = None, remove: bool = False) -> Callable[[Any], None]:
    def act(document: Any) -> None:
        here = document["images"][NAME]
        for step in path[:-1]:
            here = here[step]
        if remove:
            del here[path[-1]]
        else:
            here[path[-1]] = value

    return act


PLACE = ("platforms", AMD64)
DAMAGE = {
    **{f"no {name}": _spoil(name, remove=True) for name in ("digest", "size", "platforms")},
    **{f"no {name}": _spoil(*PLACE, name, remove=True) for name in ("manifest", "config")},
    "no media type": _spoil("media_type", remove=True),
    "no diff ID": _spoil(*PLACE, "layers", 0, "diff_id", remove=True),
    "digest of another kind": _spoil("digest", value="md5:00"),
    "digest that climbs": _spoil("digest", value="sha256:../../../etc/passwd"),
    "digest that is a number": _spoil("digest", value=5),
    "wrong layer digest": _spoil(*PLACE, "layers", 0, "digest", value="sha256:00"),
    "wrong diff ID": _spoil(*PLACE, "layers", 0, "diff_id", value="x"),
    "size is a word": _spoil("size", value="much"),
    "size is null": _spoil("size", value=None),
    "size is endless": _spoil("size", value=float("inf")),
    "size is negative": _spoil("size", value=-1),
    "platforms are a list": _spoil("platforms", value=[]),
    "platform is none": _spoil("platforms", value={"": {}}),
    "platform is null": _spoil(*PLACE, value=None),
    "layers are null": _spoil(*PLACE, "layers", value=None),
    "layers are words": _spoil(*PLACE, "layers", value=["a"]),
    "as is wrong": _spoil("as", value="No Image"),
    "as is a number": _spoil("as", value=5),
}


@pytest.mark.parametrize("spoil", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_entry_is_refused_by_name(spoil: Callable[[Any], None]) -> None:
    document = copy.deepcopy(_lock.dump(as_lock(locked("app:1", ["a"]))))
    _lock.load(document)
    spoil(document)
    with pytest.raises(LockError, match=rf"its entry for {NAME} is not whole .* make it anew"):
        _lock.load(document)


def test_a_name_that_is_none_is_refused() -> None:
    document = _lock.dump(as_lock(locked("app:1", ["a"])))
    document["images"]["No Name"] = document["images"].pop(NAME)
    with pytest.raises(LockError, match="its entry for No Name"):
        _lock.load(document)


@pytest.mark.parametrize(
    "text",
    ["", "{", "null", "[]", "5", "{}", '{"version": 1}', '{"version": 2, "images": {}}']
    + ['{"version": 1, "images": []}', '{"version": 1, "images": {"a:1": null}}', "[" * 100_000],
)
def test_what_is_no_lock_is_refused(text: str) -> None:
    with pytest.raises(LockError, match=r"^the lock.* make it anew with image_fetch"):
        _lock.loads(text)


@given(st.recursive(st.none() | st.integers() | st.text(max_size=5), st.lists))
def test_any_json_is_read_or_refused(value: Any) -> None:
    document = {"version": 1, "images": {NAME: {"platforms": value, "digest": value}}}
    with pytest.raises(LockError):
        _lock.loads(json.dumps(document))


def test_a_blob_as_a_lock_keeps_it() -> None:
    assert Blob("d", 1, "t").as_dict() == {"digest": "d", "size": 1, "media_type": "t"}
    assert set(layer("a").as_dict()) == {"digest", "size", "media_type", "diff_id"}
