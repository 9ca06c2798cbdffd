# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Bytes that the removal of images gives back, by counting who holds each part. Pure: no I/O.

A part is anything on the disk that one or more images hold: on the classic store a layer (by chain
ID) and an image's own record, on the containerd store a snapshot and a blob. It goes with the last
image that holds it, unless something else does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ansible_collections.fleet.images.plugins.module_utils import _removal
from ansible_collections.fleet.images.plugins.module_utils._holdings import CLASSIC
from ansible_collections.fleet.images.plugins.module_utils._inventory import Image


@dataclass(frozen=True)
class Range:
    """Bytes, at least and at most; `most` is None where nobody can tell."""

    least: int = 0
    most: int | None = 0

    def __add__(self, other: Range) -> Range:
        known = self.most is not None and other.most is not None
        most = (self.most or 0) + (other.most or 0) if known else None
        return Range(self.least + other.least, most)

    @property
    def exact(self) -> bool:
        """Whether it is one number."""
        return self.least == self.most

    def holds(self, measured: int, tolerance: int = 0) -> bool:
        """Whether a number lies in it, or no more than `tolerance` bytes beside it."""
        above = self.most is not None and measured > self.most + tolerance
        return measured >= self.least - tolerance and not above


UNKNOWN = Range(0, None)


@dataclass(frozen=True)
class Stock:
    """What the images of one Engine hold.

    `parts`: image ID -> the keys of what it holds, for every image, those that stay included.
    `sizes`: key -> bytes allocated; asked only for what goes, so it may find them out then. `held`:
    keys that something else holds for certain. `maybe`: keys that something else may hold, such as
    build cache; None where that may be any of them.
    """

    parts: Mapping[str, Sequence[str]]
    sizes: Mapping[str, Range]
    held: frozenset[str] = frozenset()
    maybe: frozenset[str] | None = field(default=frozenset())

    def bytes_of(self, key: str) -> Range:
        """What a part gives back once no image holds it any more."""
        if key in self.held:
            return Range()
        size = self.sizes.get(key, UNKNOWN)
        if self.maybe is None or key in self.maybe:
            return Range(0, size.most)
        return size


class Reclaim:
    """Images that go one after the other, and the bytes that go with each."""

    def __init__(self, stock: Stock) -> None:
        self._stock = stock
        self._holders = Counter(key for keys in stock.parts.values() for key in set(keys))
        self._gone: set[str] = set()
        self.total = Range()

    def would(self, *image_ids: str) -> Range:
        """Bytes that would go with these images, all of them, if they were the next to go."""
        return total(map(self._stock.bytes_of, self._last(self._fresh(image_ids))))

    def remove(self, *image_ids: str) -> Range:
        """Counts these images as gone, and returns the bytes that go with them.

        An image that is gone already gives back nothing, one that the stock does not know an
        unknown number of bytes.
        """
        ids = self._fresh(image_ids)
        freed = self.would(*ids)
        self._holders.subtract(self._counted(ids))
        self._gone.update(ids)
        self.total += freed
        return freed

    def _fresh(self, image_ids: Iterable[str]) -> list[str]:
        return [one for one in dict.fromkeys(image_ids) if one not in self._gone]

    def _counted(self, ids: Sequence[str]) -> Counter[str]:
        return Counter(key for one in ids for key in set(self._stock.parts.get(one, ())))

    def _last(self, ids: Sequence[str]) -> list[str]:
        """The keys that nobody holds after these images; one that no size has for an unknown."""
        unknown = [one for one in ids if one not in self._stock.parts]
        there = self._counted(ids).items()
        return [*unknown, *(key for key, count in there if count == self._holders[key])]


def freed(stock: Stock, order: Iterable[Sequence[str]]) -> list[Range]:
    """The bytes that go with each group of images, in this order of removal.

    A group is an image, and what goes along with it (`along`). Linear in the number of parts.
    """
    reclaim = Reclaim(stock)
    return [reclaim.remove(*group) for group in order]


def total(ranges: Iterable[Range]) -> Range:
    """The sum; a `most` that is not known makes that of the sum unknown."""
    return sum(ranges, Range())


def along(
    order: Iterable[str], images: Sequence[Image], store: str = CLASSIC
) -> list[tuple[str, ...]]:
    """For each image, in this order of removal: itself, and the nameless ones that go along.

    An Engine removes what an image was built upon with it, unless it is asked not to (`noprune`):
    a classic store what has no name, no container and no other child. A containerd store does not
    ask for other children, and removes nothing if the lowest of them is not there any more, such
    as after the removal of another child (daemon/containerd/image_children.go of moby).
    """
    below = {image.id: image for image in images}
    groups: list[tuple[str, ...]] = []
    gone: set[str] = set()
    for id_ in order:
        gone.add(id_)
        if id_ not in below:
            pruned: Sequence[str] = ()
        elif store == CLASSIC:
            pruned = sorted(_removal.pruned(below[id_], below, gone))
        else:
            pruned = _ancestors(below[id_], below, gone)
        gone.update(pruned)
        groups.append((id_, *pruned))
    return groups


def _ancestors(image: Image, below: Mapping[str, Image], gone: Collection[str]) -> list[str]:
    """The nameless images that go along on a containerd store, nearest first."""
    chain: list[Image] = []
    while image.parent:
        if image.parent in gone or image.parent not in below:
            return []
        image = below[image.parent]
        chain.append(image)
    kept = (at for at, one in enumerate(chain) if _removal.names(one) or one.containers)
    return [one.id for one in chain[: next(kept, len(chain))]]
