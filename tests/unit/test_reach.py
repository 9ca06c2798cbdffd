# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What containerd's garbage collector would keep, by the rules that its source tells."""

from __future__ import annotations

from typing import Any

from laid_out import encoded, moment

from ansible_collections.fleet.images.plugins.module_utils import _reach

LABEL = "containerd.io/gc."


def labels(**named: str) -> dict[str, Any]:
    return {"labels": {f"{LABEL}{name}": value for name, value in named.items()}}


def read(**space: Any) -> _reach.Metadata:
    found = _reach.read(encoded({"v1": {"moby": space}}), "moby")
    assert found is not None
    return found


def linked(*digests: str) -> dict[str, Any]:
    return labels(**{f"ref.content.{number}": digest for number, digest in enumerate(digests)})


IMAGES = {"a:1": {"target": {"digest": "index"}}, "a:2": {"target": {"digest": "index"}}}
BLOBS = {
    "index": linked("manifest", "not there"),
    "manifest": linked("config", "layer"),
    "config": labels(**{"ref.snapshot.overlayfs": "top"}),
    "layer": {},
    "alone": {},
}
SNAPSHOTS = {"overlayfs": {"top": {"parent": "base"}, "base": {}, "lost": {}}}
OWN = {"index", "manifest", "config", "layer", "overlayfs/top", "overlayfs/base"}


def test_from_an_image_down() -> None:
    found = read(images=IMAGES, content={"blob": BLOBS}, snapshots=SNAPSHOTS)
    assert found.images() == {"index": OWN}
    assert found.held(0) == set()
    assert not found.unsure
    assert _reach.read(encoded({"v1": {}}), "moby") is None


def test_a_label_of_the_record_holds_as_well() -> None:
    record = {"target": {"digest": "layer"}, **linked("alone")}
    found = read(images={"x": record}, content={"blob": BLOBS})
    assert found.images() == {"layer": {"layer", "alone"}}


def test_what_is_held_without_an_image() -> None:
    containers = {"c": {"snapshotter": "overlayfs", "snapshotKey": "top", **linked("alone")}}
    blobs = {**BLOBS, "layer": labels(root="now")}
    found = read(content={"blob": blobs}, snapshots=SNAPSHOTS, containers=containers)
    assert found.held(0) == {"overlayfs/top", "overlayfs/base", "alone", "layer"}
    sandboxes = {"s": linked("config")}
    found = read(content={"blob": BLOBS}, snapshots=SNAPSHOTS, sandboxes=sandboxes)
    assert found.held(0) == {"config", "overlayfs/top", "overlayfs/base"}


def test_leases() -> None:
    held = {"content": {"manifest": ""}, "snapshots": {"overlayfs": {"lost": ""}}}
    leases = {
        "deep": {"createdat": moment(50.5), **held},
        "flat": {"content": {"config": ""}, "snapshots": {"overlayfs": {"top": ""}}},
        "image": {"images": {"a:1": ""}, **labels(flat="", expire="1970-01-01T00:01:40Z")},
    }
    leases["flat"].update(labels(flat="2026"))
    space = {"images": IMAGES, "content": {"blob": BLOBS}, "snapshots": SNAPSHOTS}
    found = read(leases=leases, **space)
    by_id = {lease.id: lease for lease in found.leases}
    assert by_id["deep"].created == 50.5 and by_id["deep"].expires is None
    assert by_id["image"].expires == 100
    deep = {"manifest", "config", "layer", "overlayfs/top", "overlayfs/base", "overlayfs/lost"}
    flat = {"config", "overlayfs/top", "overlayfs/base"}
    assert found.held(99) == deep | flat | {"index"}
    assert found.held(101) == deep | flat
    assert found.held(101, without=["deep"]) == flat


def test_blobs_on_their_way() -> None:
    ingests = {
        "one": {"ref": "moby/1/one", "expireat": moment(100), "expected": "alone"},
        "two": {"ref": "moby/2/two"},
    }
    leases = {"l": {"ingests": {"two": ""}}}
    found = read(content={"blob": BLOBS, "ingests": ingests}, leases=leases)
    assert found.held(99) == {"ingest one", "ingest two", "alone"}
    assert found.held(101) == {"ingest two"}
    assert found.backend["ingest two"] == "moby/2/two"


def test_what_is_not_understood_is_not_guessed() -> None:
    for label in ("bref.image", "cond.snapshot", "ref.image", "something.new"):
        blobs = {"index": labels(**{label: "x"})}
        assert read(content={"blob": blobs}).unsure, label
    expiring = {"a": {"target": {"digest": "index"}, **labels(expire="2026-01-01T00:00:00Z")}}
    found = read(images=expiring, content={"blob": {"index": {}}})
    assert found.unsure and found.images() == {"index": {"index"}}
    assert not read(content={"blob": {"index": {"labels": {"maintainer": "x"}}}}).unsure


def test_namespaces() -> None:
    spaces = {
        "moby": {"content": {"blob": {"a": {}, "b": {}}}},
        "k8s.io": {"content": {"blob": {"b": {}, "c": {}}}},
    }
    found = _reach.read(encoded({"v1": spaces, "version": "x"}), "moby")
    assert found is not None and found.shared == {"b"}


def test_times() -> None:
    assert _reach.binary_time(b"") is None
    assert _reach.binary_time(moment(1.5)) == 1.5
