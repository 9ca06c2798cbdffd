# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bytes that go with images: as a set model says, whatever is shared, in whatever order."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from stocked import StockedEngine

from ansible_collections.fleet.images.plugins.module_utils import _inventory
from ansible_collections.fleet.images.plugins.module_utils._holdings import chain_ids
from ansible_collections.fleet.images.plugins.module_utils._reclaim import (
    UNKNOWN,
    Range,
    Reclaim,
    Stock,
    along,
    freed,
    total,
)

SIZES = st.integers(0, 10**12)
# Few layers in many images, so that most are shared, and by prefixes as real ones are.
LAYERS = st.lists(st.sampled_from("abcdef"), max_size=6)
IMAGES = st.lists(LAYERS, max_size=8)


def stock_of(images: list[list[str]], classic: bool, size: int) -> Stock:
    """Chain IDs and a record each on the classic store; snapshots and blobs on containerd."""
    parts = {}
    for number, layers in enumerate(images):
        chains = chain_ids([f"sha256:{layer}" for layer in layers])
        if classic:
            keys = [*chains, f"record of image {number}"]
        else:
            keys = [f"overlayfs/{chain}" for chain in chains]
            # The same blob may stand twice in an image.
            keys += [*(f"blob of {layer}" for layer in layers), f"manifest {number}"]
        parts[f"image {number}"] = keys
    every = sorted({key for keys in parts.values() for key in keys})
    sizes = {key: Range(size + at, size + at) for at, key in enumerate(every)}
    return Stock(parts, sizes)


def used(stock: Stock, gone: Collection[str]) -> set[str]:
    """The keys on the disk once these images are gone."""
    images = (keys for image, keys in stock.parts.items() if image not in gone)
    every = {key for keys in stock.parts.values() for key in keys}
    return {key for keys in images for key in keys} | (stock.held & every)


def measured(stock: Stock, gone: Collection[str], sizes: Mapping[str, Range]) -> int:
    return sum(sizes[key].least for key in used(stock, ()) - used(stock, gone))


@st.composite
def cases(draw: st.DrawFn) -> tuple[Stock, list[str], list[str]]:
    """A stock, and the same images in two orders."""
    stock = stock_of(draw(IMAGES), draw(st.booleans()), draw(SIZES))
    every = sorted({key for keys in stock.parts.values() for key in keys})
    held = frozenset(draw(st.sets(st.sampled_from(every)))) if every else frozenset()
    gone = draw(st.lists(st.sampled_from(sorted(stock.parts)), unique=True)) if every else []
    return replace(stock, held=held), gone, draw(st.permutations(gone))


@given(cases())
def test_as_the_set_model(case: tuple[Stock, list[str], list[str]]) -> None:
    stock, gone, order = case
    one_by_one = freed(stock, [[image] for image in gone])
    for number, told in enumerate(one_by_one):
        less = measured(stock, gone[: number + 1], stock.sizes)
        less -= measured(stock, gone[:number], stock.sizes)
        assert told == Range(less, less)
    assert total(one_by_one) == total(freed(stock, [[image] for image in order]))
    assert total(one_by_one) == Reclaim(stock).would(*gone)


@given(cases(), st.data())
def test_what_may_be_held_is_a_range(
    case: tuple[Stock, list[str], list[str]], data: st.DataObject
) -> None:
    """Whatever build cache really holds of what it may hold."""
    stock, gone, _order = case
    every = sorted({key for keys in stock.parts.values() for key in keys})
    subset = st.sets(st.sampled_from(every)) if every else st.just(set())
    maybe = data.draw(subset)
    told = total(freed(replace(stock, maybe=frozenset(maybe)), [[image] for image in gone]))
    really = {key for key in maybe if data.draw(st.booleans())}
    truth = measured(replace(stock, held=stock.held | really), gone, stock.sizes)
    assert told.least <= truth <= (told.most or 0)
    assert told.holds(truth)
    anything = total(freed(replace(stock, maybe=None), [[image] for image in gone]))
    assert anything == Range(0, told.most)


def test_what_nobody_knows() -> None:
    stock = Stock({"a": ["x", "y"], "b": ["y"]}, {"x": Range(5, None)})
    reclaim = Reclaim(stock)
    assert reclaim.would("a") == Range(5, None)
    assert reclaim.remove("a") == Range(5, None)
    assert reclaim.remove("a") == Range(), "it is gone already"
    assert reclaim.remove("b") == UNKNOWN, "y has no size"
    assert reclaim.remove("c") == UNKNOWN, "no such image is known"
    assert reclaim.total == Range(5, None)
    assert not reclaim.total.exact and reclaim.total.holds(10**9) and not reclaim.total.holds(4)
    assert reclaim.total.holds(4, tolerance=1)


def test_asking_changes_nothing() -> None:
    stock = Stock({"a": ["x"], "b": ["x"]}, {"x": Range(7, 7)})
    reclaim = Reclaim(stock)
    assert reclaim.would("a") == Range() and reclaim.would("a", "b") == Range(7, 7)
    assert reclaim.total == Range()
    assert reclaim.remove("b") == Range() and reclaim.would("a") == Range(7, 7)


def test_sizes_are_asked_for_what_goes_only() -> None:
    asked = []

    class Sizes(Mapping[str, Range]):
        def __getitem__(self, key: str) -> Range:
            asked.append(key)
            return Range(1, 1)

        def __iter__(self) -> Iterator[str]:
            return iter(())

        def __len__(self) -> int:
            return 0

    stock = Stock({"a": ["x", "y"], "b": ["y"], "c": ["z"]}, Sizes(), frozenset("z"))
    assert freed(stock, [["a"], ["c"]]) == [Range(1, 1), Range()]
    assert asked == ["x"]


def test_time_grows_in_proportion() -> None:
    """500, 1,000, 2,000 images, half of whose ten layers are shared."""

    def seconds(images: int) -> float:
        shares = [20] * 5 + [1] * 5
        keys = [[f"{n // by}-{at}" for at, by in enumerate(shares)] for n in range(images)]
        stock = Stock({str(n): one for n, one in enumerate(keys)}, {"0-0": Range(1, 1)})
        best = float("inf")
        for _try in range(3):
            start = time.thread_time()
            assert len(freed(stock, [[id_] for id_ in stock.parts])) == images
            best = min(best, time.thread_time() - start)
        return best

    seconds(100)
    few = seconds(500)
    assert few < 0.5
    assert seconds(1000) < 4 * few and seconds(2000) < 8 * few


def inventory(engine: StockedEngine) -> list[_inventory.Image]:
    listed, users = engine.list_images({"all": "1"})[1], engine.list_containers({"all": "1"})[1]
    return _inventory.read("classic" if engine.classic else "containerd", listed, users)


def test_what_goes_along() -> None:
    """A nameless base goes with the last image that was built upon it."""
    engine = StockedEngine("classic")
    base = engine.stock(layers={"base": 100})
    one = engine.stock("a:1", layers={"one": 10}, parent=base)
    two = engine.stock("b:1", layers={"two": 1}, parent=base)
    images = inventory(engine)
    assert along([one], images) == [(one,)]
    groups = along([two, one, "unknown"], images)
    assert groups == [(two,), (one, base), ("unknown",)]
    parts = {id_: engine.shelf[id_].chains for id_ in engine.shelf}
    sizes = {
        chain: Range(size, size)
        for stock in engine.shelf.values()
        for chain, (_layer, size) in zip(stock.chains, stock.layers)
    }
    assert freed(Stock(parts, sizes), groups) == [Range(1, 1), Range(110, 110), UNKNOWN]


def test_what_goes_along_on_containerd() -> None:
    """As Engines 26.1 and 28.5 were seen to do: other children do not matter, gone ones do."""
    engine = StockedEngine("containerd")
    named = engine.stock("base:1", layers={"base": 100})
    low = engine.stock(layers={"low": 10}, parent=named)
    middle = engine.stock(layers={"middle": 10}, parent=low)
    one = engine.stock("a:1", layers={"one": 1}, parent=middle)
    two = engine.stock("b:1", layers={"two": 1}, parent=middle)
    lower = engine.stock("c:1", layers={"three": 1}, parent=low)
    images = inventory(engine)
    groups = along([one, two, lower, named], images, "containerd")
    assert groups == [(one, middle, low), (two,), (lower,), (named,)]
    assert along([lower, one], images, "containerd") == [(lower, low), (one,)]
    engine.use("user", low)
    assert along([one], inventory(engine), "containerd") == [(one, middle)]
