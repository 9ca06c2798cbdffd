# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""image_archive straight from an Engine: made once, changed with it, nothing left behind."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from engine_stub import EngineStub
from exports import exporting, old_shape, originals
from images import AMD64, ARM64, Store

from ansible_collections.fleet.images.plugins.module_utils import _archive
from ansible_collections.fleet.images.plugins.module_utils._bundle_files import Form
from ansible_collections.fleet.images.plugins.module_utils._engine import Engine
from ansible_collections.fleet.images.plugins.module_utils._lock import LockedImage
from ansible_collections.fleet.images.plugins.module_utils._parts import split_parts
from ansible_collections.fleet.images.plugins.module_utils._save import Outcome, Saver, task

pytest.importorskip("docker")
pytestmark = pytest.mark.usefixtures("no_pack")

EXPORTS = "GET /images/get"
APP, WEB = "docker.io/library/app:1", "docker.io/library/web:1"


@pytest.fixture
def registry(tmp_path: Path) -> Store:
    return Store.at(tmp_path / "registry")


@pytest.fixture
def images(registry: Store) -> list[LockedImage]:
    return [registry.image("app:1", "a", "b"), registry.image("web:1", "a", "c")]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out" / "my-images.tar"


def save(
    stub: EngineStub,
    path: Path,
    *names: Any,
    store: Path | None = None,
    form: Form | None = None,
    dry_run: bool = False,
    **options: Any,
) -> Outcome:
    nothing = {"path": str(path), "images": list(names), "blobs": None, "platform": None}
    saver = Saver(form or Form(), dry_run)
    connect = partial(Engine, {"docker_host": stub.url})
    found = saver.from_engine(connect, store and str(store), [task({**nothing, **options})])
    assert len(found) == 1
    assert (found[0].written is None) == bool(found[0].reason)
    return found[0]


def held(path: Path) -> list[str]:
    return sorted(one.name for one in path.parent.iterdir())


def read(path: Path) -> dict[str, LockedImage]:
    return dict(_archive.read(split_parts(path)).images)


def test_two_images_in_one_archive(
    stub: EngineStub, registry: Store, images: Any, out: Path
) -> None:
    exporting(stub, registry, *images)
    foreseen = save(stub, out, "app:1", "web:1", dry_run=True)
    assert not out.parent.exists()
    first = save(stub, out, "app:1", "web:1")
    assert first.written is not None
    assert held(out) == ["my-images.tar"]
    assert set(read(out)) == {APP, WEB}
    for image in images:
        one = read(out)[image.name].on(AMD64)
        assert one.config.digest == image.on(AMD64).config.digest
    assert first.written.bytes == out.stat().st_size
    assert foreseen.written == replace(first.written, sha256="", sums=())
    assert foreseen.image_results() == first.image_results()


@pytest.mark.parametrize("form", [Form(), Form(2000, checksum=True)], ids=str)
def test_archive_that_stands_is_left_alone(
    stub: EngineStub, registry: Store, images: Any, out: Path, form: Form
) -> None:
    exporting(stub, registry, *images)
    first = save(stub, out, "app:1", "web:1", form=form)
    exports = len(stub.asked(EXPORTS))
    before = {path.name: path.stat().st_ino for path in out.parent.iterdir()}
    for dry_run in (True, False):
        again = save(stub, out, "app:1", "web:1", form=form, dry_run=dry_run)
        assert again.written == replace(first.written, changed=False)  # type: ignore[type-var]
        assert {one["action"] for one in again.image_results()} == {"none"}
    assert len(stub.asked(EXPORTS)) == exports
    assert {path.name: path.stat().st_ino for path in out.parent.iterdir()} == before


@pytest.mark.parametrize("how", ["another image", "fewer", "damaged", "another name", "split"])
def test_archive_that_does_not_fit_is_made_anew(
    stub: EngineStub, registry: Store, images: Any, out: Path, how: str
) -> None:
    exporting(stub, registry, *images)
    save(stub, out, "app:1", "web:1")
    names: list[Any] = ["app:1", "web:1"]
    form = None
    if how == "another image":
        newer = registry.image("app:1", "a", "x")
        stub.hold(newer)
        made = [*images, newer]
        stub.export = old_shape(registry, made) if stub.classic else originals(registry, made)
    elif how == "fewer":
        names = ["web:1"]
    elif how == "damaged":
        content = bytearray(out.read_bytes())
        content[-3000] ^= 1
        out.write_bytes(content)
    elif how == "another name":
        names = [{"name": "app:1", "as": "site.example/app:7"}, "web:1"]
    else:
        form = Form(2000)
    again = save(stub, out, *names, form=form)
    assert again.written is not None
    assert again.written.changed
    wanted = "site.example/app:7" if how == "another name" else APP
    assert set(read(out)) == ({WEB} if how == "fewer" else {wanted, WEB})
    assert not save(stub, out, *names, form=form).written.changed  # type: ignore[union-attr]
    assert [name for name in held(out) if name.startswith(".")] == []


def test_store_keeps_the_layers(
    stub: EngineStub, registry: Store, images: Any, out: Path, tmp_path: Path
) -> None:
    exporting(stub, registry, *images)
    one = save(stub, out, "app:1", "web:1", store=tmp_path / "store")
    other = save(stub, out.with_name("other.tar"), "web:1", store=tmp_path / "store")
    assert one.written and other.written
    assert len(stub.asked(EXPORTS)) == 1
    assert held(out) == ["my-images.tar", "other.tar"]
    assert (tmp_path / "store" / "diff-ids").is_dir()


@pytest.mark.parametrize("there", [False, True])
def test_image_that_is_not_there(
    stub: EngineStub, registry: Store, images: Any, out: Path, there: bool
) -> None:
    """The archive would lack it: its path keeps what it had, and nothing lies beside."""
    exporting(stub, registry, *images)
    if there:
        save(stub, out, "app:1")
    before = out.read_bytes() if there else b""
    failed = save(stub, out, "app:1", "gone:1")
    assert "docker.io/library/gone:1: wanted from the Engine at" in failed.reason
    assert failed.images == ()
    assert (held(out) if out.parent.exists() else []) == (["my-images.tar"] if there else [])
    assert not there or out.read_bytes() == before


def test_nothing_is_left_of_an_export_that_breaks(
    stub: EngineStub, registry: Store, images: Any, out: Path
) -> None:
    exporting(stub, registry, *images)
    stub.export = lambda _ids: b""
    assert save(stub, out, "app:1").reason
    assert held(out) == []


def test_another_platform(stub: EngineStub, registry: Store, out: Path) -> None:
    web = registry.index("web:1", amd64=["a"], arm64=["b"])
    exporting(stub, registry, web, platform=ARM64)
    if not stub.classic:
        stub.hold(web)
    done = save(stub, out, "web:1", platform="arm64")
    assert done.written
    assert list(read(out)[WEB].platforms) == [ARM64]
    if stub.classic:
        assert "the Engine has it for linux/arm64" in save(stub, out, "web:1").reason


def test_several_archives_from_one_engine(
    stub: EngineStub, registry: Store, images: Any, tmp_path: Path
) -> None:
    exporting(stub, registry, *images)
    nothing = {"blobs": None, "platform": None}
    wanted = [
        {**nothing, "path": str(tmp_path / "1.tar"), "images": ["app:1"]},
        {**nothing, "path": str(tmp_path / "2.tar"), "images": ["Not A Name"]},
        {**nothing, "path": str(tmp_path / "3.tar"), "images": None},
        {**nothing, "path": str(tmp_path / "4.tar"), "images": ["web:1", "app:1"]},
    ]
    saver = Saver(Form(), dry_run=False)
    connect = partial(Engine, {"docker_host": stub.url})
    found = saver.from_engine(connect, None, [task(one) for one in wanted])
    assert [one.task.path.name for one in found] == ["1.tar", "2.tar", "3.tar", "4.tar"]
    assert [bool(one.written) for one in found] == [True, False, False, True]
    assert "is no image reference" in found[1].reason
    assert "no image is named; name them in images" in found[2].reason
    assert len(stub.asked(EXPORTS)) == 1
    assert set(read(tmp_path / "4.tar")) == {APP, WEB}
    assert json.dumps([one.as_failure() for one in found[1:3]])
