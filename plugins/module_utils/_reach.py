# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What reaches what in containerd's metadata, as its garbage collector sees it. Pure: no I/O.

The rules are those of core/metadata/gc.go of containerd: images and leases are roots, so are
containers and what is labelled a root; labels name what an object refers to, a snapshot refers to
its parent. What no root reaches is removed. The buckets are those of core/metadata/buckets.go.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

Tree = Mapping[bytes, Any]

_LABEL = b"containerd.io/gc."
_EXPIRE, _FLAT, _ROOT = _LABEL + b"expire", _LABEL + b"flat", _LABEL + b"root"
_CONTENT, _SNAPSHOT = _LABEL + b"ref.content", _LABEL + b"ref.snapshot."
_IMAGE, INGEST = "image ", "ingest "
# Go's binary form of a time: version, seconds since the year 1, nanoseconds.
_TIME = struct.Struct(">BqI")
_YEAR_1970 = 62_135_596_800


@dataclass(frozen=True)
class Lease:
    """What keeps objects without an image, such as a pull in flight, a container, build cache.

    Times in seconds since 1970, None where there is none. `keys`: what it holds; `flat`: not also
    what these refer to.
    """

    id: str
    created: float | None
    expires: float | None
    flat: bool
    keys: tuple[str, ...]


@dataclass
class Metadata:
    """One namespace of containerd, and what others share with it.

    Keys: a blob is its digest, a snapshot `SNAPSHOTTER/KEY`, a blob that is not there whole
    `ingest REF`, a record of an image `image NAME`. `targets`: record -> the digest that it names,
    which is the image ID at the Engine. `backend`: snapshot or ingest -> its name where its bytes
    are. `roots`: held by neither image nor lease; `timed`: the same until a time. `shared`: blobs
    that another namespace has as well. `unsure`: labels that are not understood, so anything may
    be held.
    """

    targets: dict[str, str] = field(default_factory=dict)
    links: dict[str, list[str]] = field(default_factory=dict)
    backend: dict[str, str] = field(default_factory=dict)
    leases: list[Lease] = field(default_factory=list)
    roots: set[str] = field(default_factory=set)
    timed: dict[str, float] = field(default_factory=dict)
    shared: set[str] = field(default_factory=set)
    unsure: bool = False

    def reach(self, keys: Iterable[str], flat: bool = False) -> set[str]:
        """The parts that are there among these and all that they refer to.

        `flat`: only these, and the parents of snapshots.
        """
        found: set[str] = set()
        todo = list(keys)
        while todo:
            key = todo.pop()
            links = self.links.get(key)
            if links is None or key in found:
                continue
            found.add(key)
            todo += _nearest(key, links) if flat else links
        return {key for key in found if not key.startswith(_IMAGE)}

    def images(self) -> dict[str, set[str]]:
        """Image ID -> the blobs and snapshots that its records reach."""
        found: dict[str, set[str]] = {}
        for record, target in self.targets.items():
            # Records that only name the same target reach the same.
            if target not in found or len(self.links[record]) > 1:
                found.setdefault(target, set()).update(self.reach([record]))
        return found

    def held(self, now: float, without: Collection[str] = ()) -> set[str]:
        """The parts that are kept whatever images there are, at this time.

        `without`: IDs of leases that do not count.
        """
        timed = (key for key, until in self.timed.items() if until > now)
        found = self.reach([*self.roots, *timed]) | self.shared
        for lease in self.leases:
            if lease.id not in without and (lease.expires is None or lease.expires > now):
                found |= self.reach(lease.keys, lease.flat)
        return found


def read(root: Tree, namespace: str) -> Metadata | None:
    """The metadata of one namespace; None where there is no such one."""
    spaces: Tree = root.get(b"v1") or {}
    space = spaces.get(namespace.encode())
    if not isinstance(space, Mapping):
        return None
    found = Metadata()
    for name, bucket in _buckets(space, b"content", b"blob"):
        found.links[name] = _labelled(found, name, bucket)
    for name, bucket in _buckets(space, b"content", b"ingests"):
        _read_ingest(found, f"{INGEST}{name}", bucket)
    for snapshotter, bucket in _buckets(space, b"snapshots"):
        for name, snapshot in _buckets(bucket):
            _read_snapshot(found, f"{snapshotter}/{name}", snapshotter, snapshot)
    for name, bucket in _buckets(space, b"images"):
        _read_image(found, f"{_IMAGE}{name}", bucket)
    for name, bucket in _buckets(space, b"containers"):
        _read_container(found, f"container {name}", bucket)
    for _name, bucket in _buckets(space, b"sandboxes"):
        found.roots.update(_labelled(found, "", bucket))
    found.leases = [_lease(name, bucket) for name, bucket in _buckets(space, b"leases")]
    for other, bucket in _buckets(spaces):
        if other != namespace:
            there = {digest for digest, _blob in _buckets(bucket, b"content", b"blob")}
            found.shared |= there & set(found.links)
    return found


def _nearest(key: str, links: list[str]) -> list[str]:
    """What a key refers to without its labels: a snapshot's parent, an image's target."""
    return links[:1] if key.startswith(_IMAGE) or is_snapshot(key) else []


def is_snapshot(key: str) -> bool:
    """Whether the key is a snapshot's."""
    return "/" in key and not key.startswith((_IMAGE, INGEST))


def _buckets(root: Tree, *path: bytes) -> Iterator[tuple[str, Tree]]:
    """Names and contents of the buckets within the bucket at this path."""
    for name in path:
        root = root.get(name) or {}
    for key, value in root.items():
        if isinstance(value, Mapping):
            yield key.decode(), value


def _labelled(found: Metadata, key: str, bucket: Tree) -> list[str]:
    """What the labels of an object refer to."""
    links = []
    for label, value in (bucket.get(b"labels") or {}).items():
        if not label.startswith(_LABEL):
            continue
        if label == _CONTENT or label.startswith((_CONTENT + b".", _CONTENT + b"/")):
            links.append(value.decode())
        elif label.startswith(_SNAPSHOT):
            snapshotter = label[len(_SNAPSHOT) :].partition(b"/")[0]
            links.append(f"{snapshotter.decode()}/{value.decode()}")
        elif label.startswith(_ROOT):
            found.roots.add(key)
        else:
            found.unsure = True
    return links


def _read_ingest(found: Metadata, key: str, bucket: Tree) -> None:
    found.links[key] = [(bucket.get(b"expected") or b"").decode()]
    found.backend[key] = (bucket.get(b"ref") or b"").decode()
    until = binary_time(bucket.get(b"expireat") or b"")
    if until is not None:
        found.timed[key] = until


def _read_snapshot(found: Metadata, key: str, snapshotter: str, bucket: Tree) -> None:
    parent = bucket.get(b"parent") or b""
    below = [f"{snapshotter}/{parent.decode()}"] if parent else [""]
    found.links[key] = [*below, *_labelled(found, key, bucket)]
    found.backend[key] = (bucket.get(b"name") or b"").decode()


def _read_image(found: Metadata, key: str, bucket: Tree) -> None:
    labels: Tree = bucket.get(b"labels") or {}
    if _EXPIRE in labels:  # A root until then, by newer versions only.
        found.unsure = True
        bucket = {**bucket, b"labels": {k: v for k, v in labels.items() if k != _EXPIRE}}
    target = ((bucket.get(b"target") or {}).get(b"digest") or b"").decode()
    found.links[key] = [target, *_labelled(found, key, bucket)]
    found.targets[key] = target


def _read_container(found: Metadata, key: str, bucket: Tree) -> None:
    snapshotter = (bucket.get(b"snapshotter") or b"").decode()
    snapshot = (bucket.get(b"snapshotKey") or b"").decode()
    found.roots.add(f"{snapshotter}/{snapshot}")
    found.roots.update(_labelled(found, key, bucket))


def _lease(id_: str, bucket: Tree) -> Lease:
    labels: Tree = bucket.get(b"labels") or {}
    keys = [key.decode() for key in bucket.get(b"content") or {}]
    for snapshotter, snapshots in _buckets(bucket, b"snapshots"):
        keys += [f"{snapshotter}/{key.decode()}" for key in snapshots]
    keys += [f"{INGEST}{key.decode()}" for key in bucket.get(b"ingests") or {}]
    keys += [f"{_IMAGE}{key.decode()}" for key in bucket.get(b"images") or {}]
    return Lease(
        id=id_,
        created=binary_time(bucket.get(b"createdat") or b""),
        expires=_text_time(labels.get(_EXPIRE)),
        flat=_FLAT in labels,
        keys=tuple(keys),
    )


def binary_time(content: bytes) -> float | None:
    """Seconds since 1970 of Go's binary form of a time (time.Time.MarshalBinary)."""
    if len(content) < _TIME.size:
        return None
    _version, seconds, nanoseconds = _TIME.unpack_from(content)
    return float(seconds - _YEAR_1970 + nanoseconds / 1e9)


def _text_time(text: bytes | None) -> float | None:
    """Seconds since 1970 of RFC 3339; None for a time that cannot be read, which never comes."""
    try:
        when = datetime.fromisoformat((text or b"").decode().replace("Z", "+00:00"))
    except ValueError:
        return None
    return when.timestamp()
