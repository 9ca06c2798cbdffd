# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an Engine holds, and what it lacks: against a model that knows how the stores think."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from images import AMD64, ARM64, as_lock, blob, digest, layer, locked

from ansible_collections.fleet.images.plugins.module_utils._holdings import (
    CLASSIC,
    CONTAINERD,
    Holdings,
    chain_ids,
    plan,
    read_classic,
    read_containerd,
    read_old_containerd,
    save_bytes,
)
from ansible_collections.fleet.images.plugins.module_utils._lock import LockedImage
from ansible_collections.fleet.images.plugins.module_utils._reference import parse

Seeds = "list[str]"
SEEDS = st.lists(st.sampled_from("abcd"), min_size=1, max_size=5)


# chain IDs


def chain_of(diff_ids: list[str]) -> str:
    """The chain ID of a stack of layers, straight from the definition: by recursion."""
    if len(diff_ids) == 1:
        return diff_ids[0]
    below = chain_of(diff_ids[:-1])
    return "sha256:" + hashlib.sha256(f"{below} {diff_ids[-1]}".encode()).hexdigest()


@given(st.lists(st.sampled_from("abc").map(digest), max_size=6))
def test_chain_ids_are_those_of_the_definition(diff_ids: list[str]) -> None:
    wanted = [chain_of(diff_ids[: number + 1]) for number in range(len(diff_ids))]
    assert chain_ids(diff_ids) == wanted


def test_chain_ids_as_docker_computes_them() -> None:
    """Worked out with `printf '%s %s' … | sha256sum`."""
    one = "sha256:" + "0" * 64
    two = "sha256:" + "1" * 64
    assert chain_ids([one]) == [one]
    assert chain_ids([one, two])[1] == (
        "sha256:f94b891e05f6e37c90d87edfd5bb98a02d618a437c35f3a94b3b00e48e894631"
    )


# what has to travel


def classic(*images: LockedImage, names: bool = True) -> Holdings:
    """A classic Engine that holds these images."""
    listed, inspected = [], []
    for image in images:
        config = image.on(AMD64).config.digest
        tags = [image.destination.tagged] if names else None
        listed.append({"Id": config, "RepoTags": tags})
        inspected.append({"Id": config, "RootFS": {"Layers": list(image.on(AMD64).diff_ids)}})
    return read_classic(AMD64, listed, inspected)


def containerd(*images: LockedImage, names: bool = True) -> Holdings:
    """A containerd Engine of API 1.47 or newer that holds these images."""
    listed = []
    for image in images:
        tags = [image.destination.tagged] if names else []
        manifest = {
            "ID": image.on(AMD64).manifest.digest,
            "Kind": "image",
            "Available": True,
            "ImageData": {
                "Platform": {"os": "linux", "architecture": "amd64"},
                "Size": {"Unpacked": 1000},
            },
        }
        listed.append({"Id": image.target.digest, "RepoTags": tags, "Manifests": [manifest]})
    return read_containerd(AMD64, listed, known_of(*images))


def known_of(*images: LockedImage) -> list[dict[str, Any]]:
    return [
        {
            "digest": image.on(AMD64).manifest.digest,
            "indexes": [image.target.digest] if image.is_index else [],
            "platform": AMD64,
            "blobs": [one.digest for one in image.on(AMD64).layers],
        }
        for image in images
    ]


def sent_layers(holdings: Holdings, image: LockedImage) -> set[str]:
    layers = {one.digest for one in image.on(holdings.platform).layers}
    return {one.digest for one in holdings.lacking(image)} & layers


def rebuilds(held_stacks: list[list[str]], image: LockedImage, sent: set[str]) -> bool:
    """Whether a classic Engine can put the image together, layer by layer from the lowest.

    Each layer is either known by the whole stack up to it, or comes out of the archive.
    """
    stacks = {tuple(stack[: n + 1]) for stack in held_stacks for n in range(len(stack))}
    layers = image.on(AMD64).layers
    for number, one in enumerate(layers):
        stack = tuple(layer.diff_id for layer in layers[: number + 1])
        if stack not in stacks and one.digest not in sent:
            return False
    return True


@given(st.lists(SEEDS, max_size=4), SEEDS, st.integers(0, 1))
def test_classic_rebuilds_the_image_from_what_is_sent(
    held: list[list[str]], wanted: list[str], compression: int
) -> None:
    """Whatever is held, and however the wanted layers are compressed."""
    image = locked("app:1", wanted, compression)
    others = [locked(f"other:{n}", seeds) for n, seeds in enumerate(held)]
    stacks = [list(other.on(AMD64).diff_ids) for other in others]
    sent = sent_layers(classic(*others), image)
    if wanted not in held:
        assert rebuilds(stacks, image, sent)
        for one in sent:  # and nothing was sent that it could do without
            assert not rebuilds(stacks, image, sent - {one})


def test_classic_knows_a_layer_by_all_that_is_below_it() -> None:
    held = classic(locked("base:1", ["a", "b"]))
    assert sent_layers(held, locked("app:1", ["a", "b", "c"])) == {layer("c").digest}
    assert sent_layers(held, locked("app:1", ["b", "a"])) == {layer("a").digest, layer("b").digest}
    assert sent_layers(held, locked("app:1", ["c", "b"])) == {layer("c").digest, layer("b").digest}


def test_classic_does_not_look_at_compression() -> None:
    held = classic(locked("base:1", ["a"], compression=0))
    image = locked("app:1", ["a", "c"], compression=1)
    assert sent_layers(held, image) == {layer("c", compression=1).digest}


def test_classic_a_digest_that_occurs_again_above_the_prefix_is_sent() -> None:
    """As with the empty layer, which many images have several times."""
    held = classic(locked("base:1", ["a", "empty"]))
    image = locked("app:1", ["a", "empty", "b", "empty"])
    assert sent_layers(held, image) == {layer("b").digest, layer("empty").digest}


def test_containerd_knows_a_layer_by_its_blob() -> None:
    held = containerd(locked("base:1", ["a", "b"]))
    assert sent_layers(held, locked("app:1", ["b", "c"])) == {layer("c").digest}
    other = locked("app:1", ["a", "c"], compression=1)
    assert sent_layers(held, other) == {one.digest for one in other.on(AMD64).layers}


@pytest.mark.parametrize("hold", [classic, containerd])
def test_metadata_always_travels(hold: Any) -> None:
    image = locked("app:1", ["a"], index="index")
    here = replace(image.on(AMD64), config=blob("another config"))
    lacking = hold(image).lacking(
        replace(image, target=blob("another index"), platforms={AMD64: here})
    )
    image = replace(image, target=blob("another index"))
    assert lacking == [image.target, here.manifest, here.config]


IMAGES = st.builds(
    locked,
    st.sampled_from(["app:1", "app:2", "base:1"]),
    SEEDS,
    st.integers(0, 1),
    st.sampled_from(["", "index one", "index two"]),
)


@pytest.mark.parametrize("hold", [classic, containerd])
@given(images=st.lists(IMAGES, max_size=4))
def test_an_engine_that_holds_everything_lacks_nothing(
    hold: Any, images: list[LockedImage]
) -> None:
    lock = as_lock(*images)
    found = plan(lock, hold(*lock.values()))
    assert (found.plan_id, found.bytes, found.todo) == ("", 0, ())
    assert {image.state for image in found.images} <= {"present"}


@pytest.mark.parametrize("hold", [classic, containerd])
@given(held=st.lists(IMAGES, max_size=3), more=IMAGES, wanted=IMAGES)
def test_who_holds_more_lacks_no_more(
    hold: Any, held: list[LockedImage], more: LockedImage, wanted: LockedImage
) -> None:
    few, many = hold(*held, names=False), hold(*held, more, names=False)
    assert set(many.lacking(wanted)) <= set(few.lacking(wanted))
    assert plan(as_lock(wanted), many).bytes <= plan(as_lock(wanted), few).bytes


def test_attestations_travel_with_an_image_to_a_containerd_store() -> None:
    plain = locked("app:1", ["a"])
    here = replace(plain.on(AMD64), attestations=(blob("attestation"),))
    image = replace(plain, platforms={AMD64: here})
    assert blob("attestation") in containerd().lacking(image)
    assert containerd(image).lacking(image) == [], "an image that is there needs no load for them"
    assert classic().lacking(image) == classic().lacking(plain)


def test_an_image_that_cannot_be_planned_holds_back_no_other() -> None:
    other = locked("other:1", ["a"])
    other = replace(other, platforms={ARM64: replace(other.on(AMD64), platform=ARM64)})
    nameless = replace(locked("app:1", ["a"]), name=f"docker.io/library/app@{digest('app')}")
    well = locked("well:1", ["b"])
    lock = as_lock(other, nameless, well)
    found = plan(lock, classic())
    assert [one.image.name for one in found.todo] == [well.name]
    reasons = {one.image.name: one.reason for one in found.failed}
    assert "wanted for linux/amd64, the lock has linux/arm64" in reasons[other.name]
    assert "a tag is wanted" in reasons[nameless.name]
    assert {one.name for one in found.failed} == {other.name, nameless.name}
    alone = plan(as_lock(well), classic())
    assert (found.plan_id, found.bytes) == (alone.plan_id, alone.bytes)
    assert save_bytes(as_lock(other, well), AMD64) == save_bytes(as_lock(well), AMD64)


# states and plan IDs


@pytest.mark.parametrize("hold", [classic, containerd])
def test_states_of_images(hold: Any) -> None:
    there, moved = locked("there:1", ["a"]), locked("moved:1", ["a", "b"])
    former = locked("moved:1", ["z"])
    nameless = locked("nameless:1", ["a", "c"])
    gone = locked("gone:1", ["a", "d"])
    held = hold(there, former)
    nobody = hold(nameless, names=False)
    held = replace(
        held, ids=held.ids | nobody.ids, whole=held.whole | nobody.whole,
        layers=held.layers | nobody.layers,
    )  # fmt: skip
    found = plan(as_lock(there, moved, nameless, gone), held)
    states = {one.image.name.rpartition("/")[2]: (one.state, one.action) for one in found.images}
    assert states == {
        "there:1": ("present", "none"),
        "moved:1": ("stale", "load"),
        "nameless:1": ("missing", "tag"),
        "gone:1": ("missing", "load"),
    }
    reasons = {one.image.name.rpartition("/")[2]: one.reason for one in found.images}
    assert held.identity(moved) in reasons["moved:1"]
    assert held.identity(former) in reasons["moved:1"]
    assert "itself is there" in reasons["nameless:1"]
    assert [one.image.name for one in found.todo] == sorted(one.image.name for one in found.todo)


def test_a_stale_tag_whose_wanted_image_is_there_is_only_moved() -> None:
    new, old = locked("app:1", ["a", "b"]), locked("app:1", ["a"])
    other = replace(new, name="docker.io/library/other:1")
    (found,) = plan(as_lock(new), classic(old, other)).images
    assert (found.state, found.action, found.bytes) == ("stale", "tag", 0)


def test_a_tag_on_an_image_that_is_not_whole() -> None:
    image = locked("app:1", ["a"])
    held = replace(containerd(image), whole=frozenset())
    (found,) = plan(as_lock(image), held).images
    assert (found.state, found.action) == ("missing", "load")
    assert "not whole" in found.reason
    assert found.lacking == (image.target, image.on(AMD64).config)  # its layers are available


def test_the_destination_is_what_counts() -> None:
    image = replace(locked("app:1", ["a"]), as_=parse("site/app:1"))
    (found,) = plan(as_lock(image), classic(locked("app:1", ["a"]))).images
    assert (found.state, found.action) == ("missing", "tag")


@pytest.mark.parametrize("hold", [classic, containerd])
@given(
    lock=st.lists(IMAGES, min_size=1, max_size=3),
    one=st.lists(IMAGES, max_size=3),
    two=st.lists(IMAGES, max_size=3),
)
def test_plan_ids_are_equal_where_the_lack_is(
    hold: Any, lock: list[LockedImage], one: list[LockedImage], two: list[LockedImage]
) -> None:
    here, there = (plan(as_lock(*lock), hold(*held)) for held in (one, two))
    lack = [
        ({image.image.name for image in found.todo}, set(found.blobs)) for found in (here, there)
    ]
    assert (here.plan_id == there.plan_id) == (lack[0] == lack[1])
    assert (here.plan_id == "") == (not here.todo)


def test_plan_ids_tell_platforms_and_targets_apart() -> None:
    image = locked("app:1", ["a"])
    other = replace(image, target=blob("an index"))
    arm = replace(image, platforms={ARM64: replace(image.on(AMD64), platform=ARM64)})
    found = {
        plan(as_lock(image), Holdings(CLASSIC, AMD64)).plan_id,
        plan(as_lock(other), Holdings(CLASSIC, AMD64)).plan_id,
        plan(as_lock(arm), Holdings(CLASSIC, ARM64)).plan_id,
    }
    assert len(found) == 3


def test_shared_blobs_count_once() -> None:
    one, two = locked("one:1", ["a", "b"]), locked("two:1", ["a", "c"])
    found = plan(as_lock(one, two), classic())
    metadata = 2 * (30 + 20)
    assert found.bytes == metadata + 3 * 100
    assert [image.bytes for image in found.images] == [50 + 200, 50 + 200]
    assert save_bytes(as_lock(one, two), AMD64) == 7 * (512 + 512) + 8 * 512


# the Engine's own JSON


def test_classic_of_20_10() -> None:
    """It lists a nameless image as `<none>:<none>`, and digests that it does not know as null."""
    config = digest("config")
    images = [
        {"Id": config, "RepoTags": ["<none>:<none>"], "RepoDigests": None},
        {"Id": digest("named"), "RepoTags": ["app:1", "localhost:5000/app:1"], "RepoDigests": []},
        {"Id": digest("old"), "RepoTags": None, "RepoDigests": ["app@<none>"]},
    ]
    inspected = [
        {"RootFS": {"Type": "layers", "Layers": [digest("a"), digest("b")]}},
        {"RootFS": {"Type": "layers"}},
        {"RootFS": None},
    ]
    held = read_classic(AMD64, images, inspected)
    assert held.tags == {
        "docker.io/library/app:1": digest("named"),
        "localhost:5000/app:1": digest("named"),
    }
    assert held.ids == held.whole == {config, digest("named"), digest("old")}
    assert held.layers == set(chain_ids([digest("a"), digest("b")]))


def manifest_of(seed: str, **changes: Any) -> dict[str, Any]:
    """An entry of `Manifests` as Engine 28.5 gives it."""
    platform = {"os": "linux", "architecture": "amd64", **changes.pop("platform", {})}
    unpacked = changes.pop("unpacked", 4096)
    return {
        "ID": digest(seed),
        "Descriptor": {"digest": digest(seed)},
        "Available": True,
        "Kind": "image",
        "ImageData": {"Platform": platform, "Containers": [], "Size": {"Unpacked": unpacked}},
        **changes,
    }


@pytest.mark.parametrize(
    ("manifest", "whole", "layers"),
    [
        (manifest_of("m"), True, {"a", "b"}),
        (manifest_of("m", Available=False), False, set()),
        (manifest_of("m", unpacked=0), False, {"a", "b"}),
        (manifest_of("m", platform={"architecture": "arm64"}), False, {"a", "b"}),
        (manifest_of("m", platform={"variant": "v3"}), False, {"a", "b"}),
        (manifest_of("m", Kind="attestation", ImageData=None), False, set()),
        (manifest_of("m", Kind="unknown", ImageData=None), False, set()),
        (manifest_of("m", ImageData=None), False, {"a", "b"}),
        (manifest_of("m", ImageData={"Platform": None, "Size": None}), False, {"a", "b"}),
        (manifest_of("other"), True, set()),
    ],
)
def test_containerd_by_manifests(
    manifest: Mapping[str, Any], whole: bool, layers: set[str]
) -> None:
    known = [{"digest": digest("m"), "indexes": [], "platform": AMD64, "blobs": ["a", "b"]}]
    attestation = manifest_of("z", Kind="attestation", unpacked=0)
    image = {"Id": digest("i"), "RepoTags": ["app:1"], "Manifests": [attestation, manifest]}
    held = read_containerd(AMD64, [image], known)
    assert held.store == CONTAINERD
    assert held.whole == ({digest("i")} if whole else set())
    assert (held.ids, held.layers) == ({digest("i")}, layers)
    assert held.tags == {"docker.io/library/app:1": digest("i")}


@pytest.mark.parametrize(("variant", "whole"), [("v7", True), ("v6", True), ("v8", False)])
def test_containerd_with_a_lower_variant(variant: str, whole: bool) -> None:
    """What an Engine of arm/v7 has for v6 runs there; what is for v8 does not."""
    manifest = manifest_of("m", platform={"architecture": "arm", "variant": variant})
    image = {"Id": digest("i"), "RepoTags": ["app:1"], "Manifests": [manifest]}
    assert bool(read_containerd("linux/arm/v7", [image], []).whole) == whole
    inspected = {digest("i"): {"Os": "linux", "Architecture": "arm", "Variant": variant}}
    known = [
        {"digest": digest(one), "indexes": [digest("i")], "platform": f"linux/arm/{one}",
         "blobs": [one]}
        for one in ("v6", "v7", "v8")
    ]  # fmt: skip
    held = read_old_containerd("linux/arm/v7", [image], inspected, known)
    assert bool(held.whole) == whole
    assert held.layers == ({variant} if whole else set()), "just what that one variant has"


def test_containerd_without_manifests() -> None:
    images = [{"Id": digest("i"), "RepoTags": None}, {"Id": digest("j"), "Manifests": None}]
    held = read_containerd(AMD64, images, [])
    assert (held.whole, held.layers, held.tags) == (set(), set(), {})
    assert held.ids == {digest("i"), digest("j")}


def test_old_containerd_by_inspection() -> None:
    images = [{"Id": digest(seed), "RepoTags": [f"{seed}:1"]} for seed in "abcde"]
    amd64, arm64 = (
        {"Os": "linux", "Architecture": "amd64"},
        {"Os": "linux", "Architecture": "arm64"},
    )
    inspected = {digest("a"): amd64, digest("b"): arm64, digest("c"): {"Os": "linux"}}
    inspected[digest("e")] = {"Os": "linux", "Architecture": "no architecture"}
    known = [
        {"digest": digest("a"), "indexes": [], "platform": AMD64, "blobs": ["of a"]},
        {"digest": digest("x"), "indexes": [digest("a")], "platform": AMD64, "blobs": ["of x"]},
        {"digest": digest("y"), "indexes": [digest("a")], "platform": ARM64, "blobs": ["of y"]},
        {"digest": digest("b"), "indexes": [], "platform": AMD64, "blobs": ["of b"]},
        {"digest": digest("z"), "indexes": [], "platform": AMD64, "blobs": ["of z"]},
    ]
    held = read_old_containerd(AMD64, images, inspected, known)
    assert held.whole == {digest("a")}
    assert held.layers == {"of a", "of x"}
    assert len(held.ids) == len(held.tags) == 5
