# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Loads are all or nothing: whatever goes wrong, tags and images are what they were before."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from engine_stub import KINDS, EngineStub, Fault
from hypothesis import given
from hypothesis import strategies as st
from images import AMD64, Store, as_lock, locked

from ansible_collections.fleet.images.plugins.module_utils._archive import read
from ansible_collections.fleet.images.plugins.module_utils._engine import Engine
from ansible_collections.fleet.images.plugins.module_utils._holdings import (
    CLASSIC,
    Holdings,
    plan,
)
from ansible_collections.fleet.images.plugins.module_utils._load import (
    Loader,
    LoadError,
    Outcome,
    check_space,
    grouped,
    report,
)
from ansible_collections.fleet.images.plugins.module_utils._lock import Layer, LockedImage

pytest.importorskip("docker")
pytestmark = pytest.mark.usefixtures("no_pack")

APP, WEB = "docker.io/library/app:1", "docker.io/library/web:1"
EVERY_KIND = list(KINDS)
TELLS = "containerd"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.at(tmp_path / "store")


class Run:
    """One run as image_load does it: look, plan, load; keeps what it saw."""

    def __init__(
        self, stub: EngineStub, bundle: Path, *images: LockedImage, **options: Any
    ) -> None:
        known = options.pop("known", ())
        engine = Engine({"docker_host": stub.url})
        archive = read([bundle])
        self.before = engine.holdings(known)
        self.plan = plan(as_lock(*images), self.before)
        self.asked_before = len(stub.seen)
        self.stub = stub
        self.loader = Loader(engine, archive, known, **{"parallel": 1, **options})
        self.outcomes = self.loader.run(self.plan, self.before)

    @property
    def errors(self) -> dict[str, str]:
        return {one.plan.image.name: one.error for one in self.outcomes if one.error}

    @property
    def requests(self) -> list[str]:
        return [
            line.split("?")[0].split("sha256")[0] for line in self.stub.seen[self.asked_before :]
        ]


def sent_blobs(stub: EngineStub) -> set[str]:
    return {digest for upload in stub.uploads for digest in upload.blobs}


def layers_of(image: LockedImage) -> list[str]:
    return [layer.digest for layer in image.on(AMD64).layers]


def identity(stub: EngineStub, image: LockedImage) -> str:
    return image.on(AMD64).config.digest if stub.classic else image.target.digest


# what goes right


def test_images_are_loaded_verified_and_only_then_tagged(
    stub: EngineStub, store: Store, tmp_path: Path
) -> None:
    app, web = store.image("app:1", "a", "b"), store.index("web:1", amd64=["c"], arm64=["z"])
    run = Run(stub, store.bundle(tmp_path / "b.tar", app, web), app, web)
    assert run.errors == {}
    assert stub.tags == {APP: identity(stub, app), WEB: identity(stub, web)}
    assert stub.nameless == set()
    requests = run.requests
    last_load = max(n for n, line in enumerate(requests) if line == "POST /images/load")
    first_tag = requests.index("POST /images/")
    assert requests.count("POST /images/load") == 2
    assert "GET /images/json" in requests[last_load:first_tag]  # looked at by state, in between
    assert "GET /images/json" in requests[first_tag:]
    assert stub.asked("DELETE") == []
    assert [one.as_dict()["action"] for one in run.outcomes] == ["loaded", "loaded"]
    assert all(one.seconds > 0 and one.bytes == one.plan.bytes for one in run.outcomes)


def test_nothing_is_uploaded_where_everything_is_there(
    stub: EngineStub, store: Store, tmp_path: Path
) -> None:
    app = store.image("app:1", "a")
    bundle = store.bundle(tmp_path / "b.tar", app)
    assert Run(stub, bundle, app, known=store.known(app)).errors == {}
    run = Run(stub, bundle, app, known=store.known(app))
    assert len(stub.uploads) == 1
    assert [line for line in run.requests if not line.startswith("GET ")] == []
    assert [one.as_dict()["action"] for one in run.outcomes] == ["none"]
    assert not report(run.outcomes, run.before)["changed"]


def test_what_is_held_is_not_streamed(stub: EngineStub, store: Store, tmp_path: Path) -> None:
    """Also from a bundle that is not thin."""
    old, new = store.image("app:1", "a", "b"), store.image("app:1", "a", "b", "c")
    former = stub.hold(old).id
    bundle = store.bundle(tmp_path / "b.tar", new)
    run = Run(stub, bundle, new, known=store.known(old, new))
    assert run.errors == {}
    assert sent_blobs(stub) & set(layers_of(new)) == {layers_of(new)[2]}
    assert stub.tags == {APP: identity(stub, new)}
    assert stub.nameless == {former}  # it was there before: nobody asked for its removal


def test_a_thin_bundle_loads_over_what_is_held(
    stub: EngineStub, store: Store, tmp_path: Path
) -> None:
    old, new = store.image("app:1", "a", "b"), store.image("app:2", "a", "b", "c")
    stub.hold(old)
    bundle = store.bundle(tmp_path / "b.tar", new, without=layers_of(old))
    assert Run(stub, bundle, new, known=store.known(old, new)).errors == {}
    assert set(stub.tags) == {APP, "docker.io/library/app:2"}


def test_an_image_that_is_there_only_gets_its_tag(
    stub: EngineStub, store: Store, tmp_path: Path
) -> None:
    app = store.image("app:1", "a")
    stub.hold(app, tag=None)
    run = Run(stub, store.bundle(tmp_path / "b.tar", app), app)
    assert (run.errors, stub.uploads) == ({}, [])
    assert stub.tags == {APP: identity(stub, app)}
    assert report(run.outcomes, run.before)["changed"]


def test_the_name_at_the_destination(stub: EngineStub, store: Store, tmp_path: Path) -> None:
    app = store.image("app:1", "a", as_="site.example/app:9")
    assert Run(stub, store.bundle(tmp_path / "b.tar", app), app).errors == {}
    assert set(stub.tags) == {"site.example/app:9"}


def test_images_that_share_a_missing_layer_go_in_one_stream(
    stub: EngineStub, store: Store, tmp_path: Path
) -> None:
    app, web, db = (
        store.image("app:1", "a", "b"),
        store.image("web:1", "a"),
        store.image("db:1", "d"),
    )
    run = Run(stub, store.bundle(tmp_path / "b.tar", app, web, db), app, web, db, parallel=2)
    assert run.errors == {}
    together = sorted(len(upload.json("manifest.json")) for upload in stub.uploads)
    assert together == [1, 2]
    assert len(stub.tags) == 3


def test_groups_are_loaded_at_once(stub: EngineStub, store: Store, tmp_path: Path) -> None:
    """Each load of the stub waits here until there is a second one."""
    stub.fault("meet", times=2)
    app, web = store.image("app:1", "a"), store.image("web:1", "b")
    run = Run(stub, store.bundle(tmp_path / "b.tar", app, web), app, web, parallel=2)
    assert (run.errors, stub.most_in_flight) == ({}, 2)


def test_no_more_loads_at_once_than_asked_for(
    containerd: EngineStub, store: Store, tmp_path: Path
) -> None:
    images = [store.image(f"app:{number}", f"layer {number}") for number in range(5)]
    run = Run(containerd, store.bundle(tmp_path / "b.tar", *images), *images, parallel=1)
    assert (run.errors, containerd.most_in_flight, len(containerd.uploads)) == ({}, 1, 5)


def test_a_bundle_in_parts(stub: EngineStub, store: Store, tmp_path: Path) -> None:
    app = store.image("app:1", "a", "b")
    content = store.bundle(tmp_path / "b.tar", app).read_bytes()
    parts = []
    for number in range(0, len(content), 700):
        parts.append(tmp_path / f"{number:05d}.part")
        parts[-1].write_bytes(content[number : number + 700])
    engine = Engine({"docker_host": stub.url})
    before = engine.holdings()
    outcomes = Loader(engine, read(parts)).run(plan(as_lock(app), before), before)
    assert [one.error for one in outcomes] == [""]
    assert set(stub.tags) == {APP}


# what goes wrong with a load

WORDS = "write /layer.tar: no space left on device"
FAULTS: dict[str, tuple[list[str], dict[str, Any], str]] = {
    "error after Loaded image": (EVERY_KIND, {"what": "told"}, WORDS),
    "Error unpacking": (EVERY_KIND, {"what": "unpack"}, f"Error unpacking image .*{WORDS}"),
    "not unpacked, and silent": ([TELLS], {"what": "silent-unpack"}, "it is there but not whole"),
    "says done, keeps nothing": (EVERY_KIND, {"what": "pretend"}, "it is not there"),
    "silence": (EVERY_KIND, {"what": "stall"}, "timed out"),
    "connection cut": (EVERY_KIND, {"what": "cut"}, "a load was wanted, it said"),
    "conflict": (EVERY_KIND, {"where": "POST /images/load", "status": 409}, WORDS),
    "server error": (EVERY_KIND, {"where": "POST /images/load", "status": 500}, WORDS),
    "tag refused": (EVERY_KIND, {"where": "POST .*/tag", "status": 500}, WORDS),
    "tag that is not set": (EVERY_KIND, {"where": "POST .*/tag", "status": 201}, "after tagging"),
}
CASES = [
    pytest.param(kind, how, said, id=f"{name}, {kind}")
    for name, (kinds, how, said) in FAULTS.items()
    for kind in kinds
]


@pytest.mark.parametrize(("kind", "how", "said"), CASES)
def test_a_load_that_goes_wrong_leaves_nothing_behind(
    store: Store, tmp_path: Path, kind: str, how: dict[str, Any], said: str
) -> None:
    """The first of two loads fails; the second is none of its business."""
    former, app = store.image("app:1", "a"), store.image("app:1", "a", "b")
    nameless, web = store.image("other:1", "x"), store.image("web:1", "y")
    bundle = store.bundle(tmp_path / "b.tar", app, web)
    with EngineStub(kind) as stub:
        tagged, untagged = stub.hold(former).id, stub.hold(nameless, tag=None).id
        stub.fault(**how, words=WORDS)
        known = store.known(former, app, web)
        run = Run(stub, bundle, app, web, known=known, stall_timeout=1)
        assert list(run.errors) == [APP]
        (told,) = stub_words(run.errors.values())
        assert told.startswith((APP, "the Engine at"))
        assert re.search(said, told), told
        assert stub.tags == {APP: tagged, WEB: identity(stub, web)}
        assert set(stub.images) == {tagged, untagged, identity(stub, web)}
        result = report(run.outcomes, run.before)
        assert result["changed"]
        assert [one["action"] for one in result["images"]] == ["failed", "loaded"]
        assert result["images"][0]["reason"] == result["errors"][0] == run.errors[APP]
        assert result["bytes"] == run.outcomes[1].bytes
        assert APP not in result["diff"]["after"]


def stub_words(errors: Any) -> list[str]:
    return [" ".join(error.split()) for error in errors]


def test_a_flipped_byte_in_a_layer(stub: EngineStub, store: Store, tmp_path: Path) -> None:
    app, web = store.image("app:1", "a"), store.image("web:1", "b")
    bundle = store.bundle(tmp_path / "b.tar", app, web)
    region = read([bundle]).regions["blobs/sha256/" + layers_of(app)[0][7:]]
    content = bytearray(bundle.read_bytes())
    content[region.offset + 15] ^= 1
    bundle.write_bytes(content)
    run = Run(stub, bundle, app, web)
    assert list(run.errors) == [APP]
    assert f"blob {layers_of(app)[0]}: {bundle} holds other content" in run.errors[APP]
    assert "the Engine said" not in run.errors[APP]
    assert (set(stub.tags), stub.nameless) == ({WEB}, set())
    assert stub.asked("broken upload")  # the Engine never got the end of it


def test_only_what_is_new_is_removed(containerd: EngineStub, store: Store, tmp_path: Path) -> None:
    """An image that was there half, before, stays as it was."""
    app = store.image("app:1", "a")
    half = containerd.hold(app, tag=None)
    half.unpacked = False
    containerd.fault("told")
    run = Run(containerd, store.bundle(tmp_path / "b.tar", app), app)
    assert list(run.errors) == [APP]
    assert set(containerd.images) == {half.id}
    assert containerd.asked("DELETE") == []


def _after_load(stub: EngineStub, act: Callable[[], None]) -> None:
    """Something else happens on the host just after a load."""
    real = stub.take

    def take(upload: Any, fault: Fault) -> Iterator[Any]:
        yield from real(upload, fault)
        act()

    stub.take = take  # type: ignore[method-assign]


def test_what_somebody_has_named_meanwhile_is_not_removed(
    stub: EngineStub, store: Store, tmp_path: Path
) -> None:
    app = store.image("app:1", "a")
    stub.fault("told")
    _after_load(stub, lambda: stub.tag(identity(stub, app), "somebody.example/else:1"))
    run = Run(stub, store.bundle(tmp_path / "b.tar", app), app)
    assert list(run.errors) == [APP]
    assert stub.tags == {"somebody.example/else:1": identity(stub, app)}
    assert stub.asked("DELETE") == []


def test_what_cannot_be_removed_is_told(stub: EngineStub, store: Store, tmp_path: Path) -> None:
    app = store.image("app:1", "a")
    stub.fault("told", words=WORDS)
    stub.fault(where="DELETE", status=409, words="image is being used by stopped container 1a2b")
    run = Run(stub, store.bundle(tmp_path / "b.tar", app), app)
    left = identity(stub, app)
    assert WORDS in run.errors[APP]
    assert f"{left} is left behind" in run.errors[APP]
    assert "used by stopped container 1a2b" in run.errors[APP]


def test_an_image_with_other_layers_than_the_locks_is_refused(
    stub: EngineStub, store: Store, tmp_path: Path
) -> None:
    app = store.image("app:1", "a", "b")

    def lose() -> None:
        stub.images[identity(stub, app)].diff_ids.pop()

    _after_load(stub, lose)
    run = Run(stub, store.bundle(tmp_path / "b.tar", app), app)
    assert "it is there but not whole" in run.errors[APP]
    assert (stub.tags, stub.images) == ({}, {})


def test_a_layer_that_is_gone_after_the_load(
    containerd: EngineStub, store: Store, tmp_path: Path
) -> None:
    """The trap of another compression: no error anywhere, and the image is not whole."""
    app = store.image("app:1", "a", "b")
    _after_load(containerd, lambda: containerd.content.discard(layers_of(app)[0]))
    run = Run(containerd, store.bundle(tmp_path / "b.tar", app), app)
    assert "it is there but not whole" in run.errors[APP]
    assert (containerd.tags, containerd.images) == ({}, {})


def test_an_engine_that_cannot_describe_one_image(
    containerd: EngineStub, store: Store, tmp_path: Path
) -> None:
    """The others are verified and tagged all the same."""
    app, web = store.image("app:1", "a"), store.image("web:1", "b")
    bundle = store.bundle(tmp_path / "b.tar", app, web)
    containerd.fault(where="GET /images/sha256.*/json", status=500, words=WORDS)
    run = Run(containerd, bundle, app, web)
    assert list(run.errors) == [APP]
    assert WORDS in run.errors[APP]
    assert (set(containerd.tags), containerd.nameless) == ({WEB}, set())


def test_an_engine_that_is_gone_after_the_load(
    stub: EngineStub, store: Store, tmp_path: Path
) -> None:
    app = store.image("app:1", "a")
    bundle = store.bundle(tmp_path / "b.tar", app)
    stub.fault("gone")
    run = Run(stub, bundle, app)
    assert run.errors[APP].startswith(f"{APP}: the Engine at {stub.url}")
    assert not report(run.outcomes, run.before)["changed"]
    assert stub.tags == {}


# bundles that do not fit


def test_a_bundle_without_the_image(stub: EngineStub, store: Store, tmp_path: Path) -> None:
    app, web = store.image("app:1", "a"), store.image("web:1", "b")
    run = Run(stub, store.bundle(tmp_path / "b.tar", web), app, web)
    assert list(run.errors) == [APP]
    assert f"wanted {app.target.digest}, the bundle" in run.errors[APP]
    assert "does not hold this image" in run.errors[APP]
    assert (set(stub.tags), len(stub.uploads)) == ({WEB}, 1)


def test_a_thin_bundle_for_another_host(stub: EngineStub, store: Store, tmp_path: Path) -> None:
    """Nothing is sent where it is known beforehand; the message names the layer."""
    app = store.image("app:1", "a", "b")
    bundle = store.bundle(tmp_path / "b.tar", app, without=layers_of(app)[:1])
    run = Run(stub, bundle, app, known=store.known(app))
    assert f"{APP}: layer {layers_of(app)[0]} is missing" in run.errors[APP]
    assert (stub.uploads, stub.images) == ([], {})
    assert [line for line in run.requests if not line.startswith("GET ")] == []
    assert not report(run.outcomes, run.before)["changed"]


@pytest.mark.parametrize("carried", [True, False])
def test_attestations_go_where_there_is_a_place_for_them(
    stub: EngineStub, store: Store, tmp_path: Path, carried: bool
) -> None:
    web = store.attested(store.index("web:1", amd64=["c"], arm64=["z"]))
    attestations = {blob.digest for blob in web.on(AMD64).attestations}
    without = () if carried else tuple(attestations)
    bundle = store.bundle(tmp_path / "b.tar", web, without=without)
    assert {one for one in attestations if read([bundle]).has(one)} == attestations - set(without)
    run = Run(stub, bundle, web, known=store.known(web))
    assert run.errors == {}
    wanted = attestations if carried and not stub.classic else set()
    assert sent_blobs(stub) & attestations == wanted


def test_attestations_are_never_missing(stub: EngineStub, store: Store, tmp_path: Path) -> None:
    """A load that fails for another reason: a full bundle would not help."""
    web = store.attested(store.index("web:1", amd64=["c"], arm64=["z"]))
    attestations = [blob.digest for blob in web.on(AMD64).attestations]
    bundle = store.bundle(tmp_path / "b.tar", web, without=attestations)
    stub.fault("pretend")
    run = Run(stub, bundle, web, known=store.known(web))
    assert list(run.errors) == [WEB]
    assert report(run.outcomes, run.before)["missing_layers"] == []
    bundle = store.bundle(bundle, web, without=[*attestations, *layers_of(web)])
    run = Run(stub, bundle, web, known=store.known(web))
    assert report(run.outcomes, run.before)["missing_layers"] == layers_of(web)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "classic"])
@pytest.mark.parametrize("silent", [True, False])
def test_a_thin_bundle_is_tried_where_nothing_is_known(
    store: Store, tmp_path: Path, kind: str, silent: bool
) -> None:
    app = store.image("app:1", "a", "b")
    bundle = store.bundle(tmp_path / "b.tar", app, without=layers_of(app)[:1])
    with EngineStub(kind) as stub:
        if silent:
            stub.fault("silent-unpack")
        run = Run(stub, bundle, app)
        assert list(run.errors) == [APP]
        assert len(stub.uploads) == 1
        assert (stub.tags, stub.images) == ({}, {})
        if silent and kind == TELLS:
            assert f"the bundle leaves out layer {layers_of(app)[0]}" in run.errors[APP]


def test_check_mode_foresees_and_touches_nothing(
    stub: EngineStub, store: Store, tmp_path: Path
) -> None:
    app, web = store.image("app:1", "a"), store.image("web:1", "b")
    engine = Engine({"docker_host": stub.url})
    before = engine.holdings()
    loader = Loader(engine, read([store.bundle(tmp_path / "b.tar", app)]))
    one, two = loader.foresee(plan(as_lock(app, web), before), before)
    assert (one.error, one.bytes) == ("", one.plan.bytes)
    assert "does not hold this image" in two.error
    assert [line for line in stub.seen if not line.startswith("GET ")] == []


# pure parts


@given(st.lists(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=4), max_size=8))
def test_groups_share_no_missing_blob_and_are_as_small_as_can_be(stacks: list[list[str]]) -> None:
    images = [locked(f"app:{number}", seeds) for number, seeds in enumerate(stacks)]
    loads = [Outcome(one) for one in plan(as_lock(*images), Holdings(CLASSIC, AMD64)).images]
    groups = grouped(loads)
    assert sorted(id(one) for group in groups for one in group) == sorted(map(id, loads))

    def blobs(outcome: Outcome) -> set[str]:
        return {blob.digest for blob in outcome.plan.lacking}

    sets = [set().union(*map(blobs, group)) for group in groups]
    assert sum(map(len, sets)) == len(set().union(*sets))
    for group in groups:  # from any one of a group every other can be reached over shared blobs
        reached, rest = blobs(group[0]), group[1:]
        while any(blobs(one) & reached for one in rest):
            reached |= set().union(*(blobs(one) for one in rest if blobs(one) & reached))
            rest = [one for one in rest if not blobs(one) <= reached]
        assert rest == []


def test_space_is_looked_at_before() -> None:
    found = plan(as_lock(locked("app:1", ["a", "b"])), Holdings(CLASSIC, AMD64))
    check_space(found, None, "/var/lib/docker")
    check_space(found, 2 * found.bytes, "/var/lib/docker")
    with pytest.raises(
        LoadError, match=rf"/data: at least {2 * found.bytes} bytes are wanted free"
    ):
        check_space(found, 2 * found.bytes - 1, "/data")


def test_a_report_counts_shared_blobs_once() -> None:
    images = locked("app:1", ["a", "b"]), locked("web:1", ["a", "c"])
    before = Holdings(CLASSIC, AMD64, tags={APP: "sha256:old"})
    outcomes = [Outcome(one, bytes=one.bytes) for one in plan(as_lock(*images), before).images]
    result = report(outcomes, before)
    assert result["bytes"] == 2 * (30 + 20) + 3 * 100
    assert result["errors"] == []
    assert result["diff"]["before"] == f"{APP}: sha256:old\n"
    assert result["diff"]["after"].splitlines() == [
        f"{one.name}: {one.on(AMD64).config.digest}" for one in images
    ]


# memory

GROWTH = """
import json, sys
from pathlib import Path
from ansible_collections.fleet.images.plugins.module_utils import _archive, _holdings, _load, _lock
from ansible_collections.fleet.images.plugins.module_utils._engine import Engine

def peak():
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0])

url, bundle = sys.argv[1:]
engine = Engine({"docker_host": url})
before = engine.holdings()
start = peak()
archive = _archive.read([Path(bundle)])
plan = _holdings.plan(archive.images, before)
(outcome,) = _load.Loader(engine, archive).run(plan, before)
print(json.dumps([outcome.error, outcome.bytes, peak() - start]))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc")
def test_memory_stays_small_whatever_the_image(
    containerd: EngineStub, store: Store, tmp_path: Path
) -> None:
    size = 320 << 20
    layer = store.layout.root / "large"
    with layer.open("wb") as file:
        file.truncate(size)
    sha = hashlib.sha256()
    for _mebibyte in range(size >> 20):
        sha.update(bytes(1 << 20))
    digest = f"sha256:{sha.hexdigest()}"
    layer.rename(store.layout.path(digest))
    kind = "application/vnd.oci.image.layer.v1.tar"
    one = store.image_of((Layer(digest, size, kind, digest),))
    image = LockedImage(APP, one.manifest, {AMD64: one})
    bundle = store.bundle(tmp_path / "b.tar", image)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", GROWTH, containerd.url, str(bundle)],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )
    bundle.unlink()
    error, sent, growth = json.loads(done.stdout)
    assert error == ""
    assert sent > size
    assert set(containerd.tags) == {APP}
    assert growth < 64 << 10  # kB
