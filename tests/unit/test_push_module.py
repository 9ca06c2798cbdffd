# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""image_push into a registry that is a stub: create, repeat, change, and all that can go wrong."""

from __future__ import annotations

import json
import os
import random
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from images import AMD64, ARM64, Store, as_lock
from registry_stub import RegistryStub, basic
from registry_uploads import Uploads

pytest.importorskip("requests")
pytest.importorskip("docker")
pytest.importorskip("ansible")

from ansible_collections.fleet.images.plugins.module_utils import _lock, _registry_push, _retry
from ansible_collections.fleet.images.plugins.modules import image_push

Json = dict[str, Any]
Call = Callable[..., Json]
NOT_GIVEN = object()
LOGIN = ("shop", "s3cret-for-tests")
WEB, API = "site.example/shop/web:1", "site.example/shop/api:1"


@pytest.fixture
def stub() -> Iterator[RegistryStub]:
    with RegistryStub() as running:
        yield running


@pytest.fixture
def taken(stub: RegistryStub) -> Uploads:
    return Uploads(stub)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.at(tmp_path / "store")


@pytest.fixture
def call(
    run_main: Callable[..., Json],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    store: Store,
    no_pack: None,
) -> Call:
    """`call(image, …, option=…)` runs the module with a lock of these images."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    retrier = _retry.Retrier
    monkeypatch.setattr(_retry, "Retrier", lambda **how: retrier(**how, sleep=lambda _time: None))

    def run(*images: Any, check: bool = False, diff: bool = False, **options: Any) -> Json:
        arguments = {
            "store": str(store.layout.root),
            "lock": _lock.dump(as_lock(*images)),
            "_ansible_check_mode": check,
            "_ansible_diff": diff,
            **options,
        }
        given = {key: value for key, value in arguments.items() if value is not NOT_GIVEN}
        return run_main(image_push, given)

    return run


def told(result: Json, key: str) -> list[Any]:
    return [image[key] for image in result["images"]]


def writes(stub: RegistryStub) -> list[str]:
    return [seen.line for seen in stub.seen if not seen.line.startswith(("HEAD", "GET"))]


def whole(store: Store, name: str, **platforms: list[str]) -> Any:
    """An index with nothing but images in it, since its attestation would have to be there too."""
    image = store.index(name, **platforms)
    content = json.loads(store.layout.read(image.target.digest))
    content["manifests"] = [one for one in content["manifests"] if "unknown" not in str(one)]
    target = store.put(json.dumps(content).encode(), image.target.media_type)
    return _lock.LockedImage(image.name, target, image.platforms)


def test_create_repeat_change(stub: RegistryStub, taken: Uploads, store: Store, call: Call) -> None:
    image = whole(store, WEB, amd64=["base", "a"], arm64=["b"])
    to = f"{stub.name}/mirror"
    name = f"{to}/shop/web:1"
    foreseen = call(image, to=to, check=True)
    assert foreseen["changed"] and writes(stub) == [] and "diff" not in foreseen
    made = call(image, to=to, diff=True)
    assert made["changed"] and told(made, "action") == ["pushed"] and told(made, "to") == [name]
    assert made["diff"] == {"before": {}, "after": {name: image.target.digest}}
    assert (
        made["bytes_sent"]
        == foreseen["bytes_sent"]
        == sum(blob.size for blob in image.all_blobs.values())
    )
    assert taken.kept["mirror/shop/web"] == set(image.all_blobs)
    assert stub.tags["mirror/shop/web:1"] == image.target.digest
    assert all(
        stub.content[digest] == store.layout.path(digest).read_bytes() for digest in image.all_blobs
    )
    assert writes(stub)[-1] == "PUT /v2/mirror/shop/web/manifests/1"
    before = len(stub.seen)
    for check in (True, False):
        again = call(image, to=to, check=check)
        assert not again["changed"] and again["bytes_sent"] == 0
        assert told(again, "action") == ["none"]
    lines = [seen.line for seen in stub.seen[before:]]
    assert len(lines) == 6 and all(line.startswith("HEAD") for line in lines)
    newer = whole(store, WEB, amd64=["base", "newer"], arm64=["b"])
    for check in (True, False):
        moved = call(newer, to=to, check=check, diff=True)
        assert moved["changed"] and moved["diff"]["before"] == {name: image.target.digest}
        assert moved["diff"]["after"] == {name: newer.target.digest}
        assert told(moved, "reason") == [
            f"the destination has this name with {image.target.digest}"
        ]
        new = newer.platforms[AMD64]
        parts = (newer.target, new.manifest, new.config, new.layers[1])
        assert moved["bytes_sent"] == sum(blob.size for blob in parts)


def test_an_image_of_one_platform(
    stub: RegistryStub, taken: Uploads, store: Store, call: Call
) -> None:
    store.docker = True
    image = store.image(WEB, "base", "a", as_=f"{stub.name}/other/name:v1")
    result = call(image)
    assert told(result, "to") == [f"{stub.name}/other/name:v1"]
    assert stub.types[image.target.digest] == image.target.media_type
    assert stub.tags["other/name:v1"] == image.target.digest
    assert call(image)["bytes_sent"] == 0
    retagged = call(image, images=[{"name": WEB, "as": f"{stub.name}/other/name:v2"}])
    assert retagged["changed"] and retagged["bytes_sent"] == image.target.size
    assert stub.tags["other/name:v2"] == image.target.digest


def test_blobs_are_taken_over_from_other_repositories(
    stub: RegistryStub, taken: Uploads, store: Store, call: Call
) -> None:
    web, api = store.image(WEB, "base", "a"), store.image(API, "base", "b")
    shared = web.platforms[AMD64].layers[0]
    foreseen = call(web, api, to=stub.name, check=True)
    made = call(web, api, to=stub.name)
    assert made["bytes_sent"] == foreseen["bytes_sent"]
    assert (
        len([line for line in writes(stub) if f"mount={shared.digest}" in line.replace("%3A", ":")])
        == 1
    )
    own = {**web.all_blobs, **api.all_blobs}
    assert made["bytes_sent"] == sum(blob.size for blob in own.values())
    third = store.image("site.example/third:1", "base", "c")
    later = call(web, third, to=stub.name)
    assert sorted(told(later, "action")) == ["none", "pushed"]
    assert later["bytes_sent"] == sum(
        blob.size for digest, blob in third.all_blobs.items() if digest != shared.digest
    )


def test_a_registry_that_mounts_nothing(
    stub: RegistryStub, taken: Uploads, store: Store, call: Call
) -> None:
    taken.mounts = False
    web, api = store.image(WEB, "base", "a"), store.image(API, "base", "b")
    made = call(web, api, to=stub.name)
    assert told(made, "action") == ["pushed", "pushed"]
    assert made["bytes_sent"] == sum(
        blob.size for one in (web, api) for blob in one.all_blobs.values()
    )
    stub.fault("mount=", status=403, times=9)
    third = store.image("site.example/third:1", "base", "c")
    assert told(call(web, third, to=stub.name), "action").count("pushed") == 1


def test_an_index_is_refused_before_anything_is_sent(
    stub: RegistryStub, taken: Uploads, store: Store, call: Call
) -> None:
    image = store.index(WEB, amd64=["a"], arm64=["b"])
    store.layout.discard(image.platforms[ARM64].manifest.digest)
    cut = _lock.LockedImage(image.name, image.target, {AMD64: image.platforms[AMD64]})
    good = store.image(API, "c")
    for check in (True, False):
        result = call(cut, good, to=stub.name, check=check)
        assert result["failed"] and told(result, "action") == ["pushed", "failed"]
        assert (
            "has those of linux/arm64, 1 attestations or the like; run image_fetch with platforms:"
            " [linux/amd64, linux/arm64] and attestations: true first" in result["msg"]
        )
    assert result["changed"] and not [line for line in writes(stub) if "/shop/web/" in line]
    content = json.loads(store.layout.read(image.target.digest))
    taken.hold("shop/web", *(one["digest"] for one in content["manifests"][1:]))
    for entry in content["manifests"][1:]:
        stub.content[entry["digest"]] = b"{}"
    there = call(cut, to=stub.name)
    assert told(there, "action") == ["pushed"], "the destination has the others"


def test_attestations_go_along(
    stub: RegistryStub, taken: Uploads, store: Store, call: Call
) -> None:
    bare = store.image(WEB, "a")
    attested = store.attested(bare)
    manifest = attested.platforms[AMD64].attestations[0]
    entries = [
        {"digest": one.digest, "size": one.size, "mediaType": one.media_type}
        for one in (bare.target, manifest)
    ]
    content = {"schemaVersion": 2, "manifests": entries}
    index = store.put(json.dumps(content).encode(), "application/vnd.oci.image.index.v1+json")
    image = _lock.LockedImage(bare.name, index, attested.platforms)
    result = call(image, to=stub.name)
    assert told(result, "action") == ["pushed"], result
    assert taken.kept["shop/web"] == set(image.all_blobs)


def test_what_the_store_lacks_or_has_damaged(
    stub: RegistryStub, taken: Uploads, store: Store, call: Call
) -> None:
    web, api = store.image(WEB, "base", "a"), store.image(API, "b")
    lost = web.platforms[AMD64].layers[1]
    path = store.layout.path(lost.digest)
    kept = path.read_bytes()
    path.unlink()
    result = call(web, api, to=stub.name)
    assert sorted(told(result, "action")) == ["failed", "pushed"] and result["changed"]
    assert f"lacks 1 of its 4 blobs, as {lost.digest}; run image_fetch" in result["msg"]
    path.write_bytes(b"x" + kept[1:])
    spoilt = call(web, to=stub.name, retries=1)
    assert spoilt["failed"] and "run image_fetch with verify: true" in spoilt["msg"]
    assert "shop/web:1" not in stub.tags and lost.digest not in taken.kept.get("shop/web", ())
    path.write_bytes(kept)
    assert told(call(web, to=stub.name), "action") == ["pushed"]


def big(store: Store, name: str, mebibytes: int) -> Any:
    """An image with one layer of this size that does not compress."""
    content = random.Random(name).randbytes(mebibytes << 20)
    layer = store.put(content, "application/vnd.oci.image.layer.v1.tar")
    one = _lock.Layer(layer.digest, layer.size, layer.media_type, layer.digest)
    made = store.image_of((one,))
    return _lock.LockedImage(name, made.manifest, {AMD64: made})


def test_a_cut_upload_goes_on(stub: RegistryStub, taken: Uploads, store: Store, call: Call) -> None:
    image = big(store, WEB, 6)
    layer = image.platforms[AMD64].layers[0]
    stub.fault("PATCH", cut_after=(2 << 20) + 1)
    stub.fault("PATCH", cut_after=1 << 20)
    result = call(image, to=stub.name, parallel=1)
    assert told(result, "action") == ["pushed"] and told(result, "attempts") == [3]
    assert stub.content[layer.digest] == store.layout.path(layer.digest).read_bytes()
    # The second and third try began where the registry stood.
    ranges = [seen.headers.get("Content-Range") for seen in stub.asked("PATCH")]
    first = (2 << 20) + 1
    assert f"{first}-{layer.size - 1}" in ranges
    assert f"{first + (1 << 20)}-{layer.size - 1}" in ranges


def test_cuts_that_bring_it_forward_use_up_no_try(
    stub: RegistryStub, taken: Uploads, store: Store, call: Call
) -> None:
    image = big(store, WEB, 6)
    stub.fault("PATCH", cut_after=1 << 20, times=5)
    result = call(image, to=stub.name, retries=1, parallel=1)
    assert told(result, "action") == ["pushed"] and told(result, "attempts") == [6]


def test_an_upload_that_is_forgotten_begins_anew(
    stub: RegistryStub, taken: Uploads, store: Store, call: Call
) -> None:
    image = big(store, WEB, 2)
    taken.remembers = False
    stub.fault("PATCH", cut_after=1 << 20, times=2)
    assert told(call(image, to=stub.name, parallel=1), "action") == ["pushed"]
    stub.fault("PATCH", cut_after=1 << 20, times=99)
    other = call(big(store, API, 2), to=stub.name, retries=2, parallel=1)
    assert other["failed"] and told(other, "action") == ["failed"]
    assert len(stub.asked("PATCH")) < 12, "it does not go on for ever"


@pytest.mark.parametrize("where", ["HEAD", "POST", "PATCH", "PUT /v2/shop/web/b", "manifests/1"])
@pytest.mark.parametrize("status", [429, 500])
def test_limits_and_errors_of_its_own_are_waited_for(
    stub: RegistryStub, taken: Uploads, store: Store, call: Call, where: str, status: int
) -> None:
    stub.fault(where, status=status, headers={"Retry-After": "0"}, times=2)
    image = store.image(WEB, "a")
    result = call(image, to=stub.name, parallel=1)
    assert told(result, "action") == ["pushed"] and told(result, "attempts") == [3]
    assert stub.tags["shop/web:1"] == image.target.digest


@pytest.mark.parametrize("status", [403, 405, 413])
def test_a_refusal_is_told_and_tags_stay(
    stub: RegistryStub, taken: Uploads, store: Store, call: Call, status: int
) -> None:
    body = b'{"errors": [{"code": "DENIED", "message": "the quota is used up"}]}'
    stub.fault("PUT /v2/shop/web/manifests", status=status, body=body, times=9)
    result = call(store.image(WEB, "a"), store.image(API, "b"), to=stub.name)
    assert result["failed"] and result["changed"]
    assert sorted(told(result, "action")) == ["failed", "pushed"]
    assert "DENIED: the quota is used up" in result["msg"]
    assert list(stub.tags) == ["shop/api:1"]
    assert told(result, "attempts") == [1, 1]


def test_another_digest_after_the_push(
    stub: RegistryStub, taken: Uploads, store: Store, call: Call
) -> None:
    taken.tells_digest = False
    lied = call(store.image(WEB, "a"), to=stub.name)
    assert lied["failed"] and f"says sha256:{'0' * 64}" in lied["msg"]
    taken.tells_digest = True
    image = store.image(API, "b")
    taken.hold("shop/api", "sha256:" + "1" * 64)

    def move(handler: Any) -> None:
        taken.put_manifest(handler, "shop/api", "1")
        stub.tags["shop/api:1"] = lied["images"][0]["digest"]
        taken.hold("shop/api", lied["images"][0]["digest"])

    stub.fault("PUT /v2/shop/api/manifests/1", act=move)
    raced = call(image, to=stub.name)
    assert raced["failed"] and raced["changed"]
    assert "see whether something else pushes to this tag" in raced["msg"]


@pytest.mark.parametrize("scheme", ["basic", "bearer"])
def test_logins(store: Store, call: Call, scheme: str) -> None:
    with RegistryStub(login=LOGIN, scheme=scheme) as stub:
        taken = Uploads(stub)
        login: Json = {"registry_username": LOGIN[0], "registry_password": LOGIN[1]}
        web, api = store.image(WEB, "base", "a"), store.image(API, "base", "b")
        made = call(web, api, to=stub.name, **login)
        assert told(made, "action") == ["pushed", "pushed"]
        assert made["bytes_sent"] == sum(
            blob.size for blob in {**web.all_blobs, **api.all_blobs}.values()
        ), "the token lets it mount"
        assert all(taken.logins_at_uploads)
        scopes = {scope for given in stub.scopes.values() for scope in given}
        if scheme == "bearer":
            assert {"repository:shop/web:pull,push", "repository:shop/api:pull,push"} <= scopes
        refused = call(web, to=stub.name, **{**login, "registry_password": "wr0ng-9876"})
        assert refused["failed"] and "refused access" in refused["msg"]
    text = json.dumps([made, refused])
    for secret in (LOGIN[1], "wr0ng-9876", basic(*LOGIN)[6:], "token-0"):
        assert secret not in text


def test_a_login_stays_with_its_registry(store: Store, call: Call) -> None:
    """A registry may send uploads elsewhere; what it was told in confidence does not go along."""
    login: Json = {"registry_username": LOGIN[0], "registry_password": LOGIN[1]}
    with RegistryStub(login=LOGIN, scheme="basic") as stub, RegistryStub() as other:
        taken, elsewhere = Uploads(stub), Uploads(other)
        taken.location = elsewhere.location = other.url
        elsewhere.open = taken.open
        elsewhere.kept = taken.kept
        other.content = stub.content
        result = call(store.image(WEB, "a"), to=stub.name, **login)
        assert told(result, "action") == ["pushed"], result
        assert len(other.asked("PATCH")) == 2 and not stub.asked("PATCH")
        assert not any(seen.login for seen in other.seen)


def test_a_redirect_takes_the_content_along(
    stub: RegistryStub, taken: Uploads, store: Store, call: Call
) -> None:
    def redirect(handler: Any) -> None:
        handler.drain()
        handler.answer(307, b"", {"Location": handler.path})

    stub.fault("PATCH", act=redirect, times=2)
    result = call(store.image(WEB, "a"), to=stub.name)
    assert told(result, "action") == ["pushed"] and told(result, "attempts") == [1]


def test_two_images_cannot_have_one_tag(
    stub: RegistryStub, taken: Uploads, store: Store, call: Call
) -> None:
    one, two = store.image("a.example/web:1", "a"), store.image("b.example/web:1", "b")
    result = call(one, two, store.image(API, "c"), to=stub.name)
    assert sorted(told(result, "action")) == ["failed", "failed", "pushed"]
    assert "give each a name of its own with as" in result["msg"]
    assert not [seen for seen in stub.seen if "/v2/web/" in seen.line]


def test_a_registry_that_is_down(store: Store, call: Call) -> None:
    with RegistryStub() as stub:
        name = stub.name
    result = call(store.image(WEB, "a"), to=name, retries=1)
    assert result["failed"] and not result["changed"] and "Connection refused" in result["msg"]
    assert told(result, "attempts") == [2]


def test_only_the_named_images(
    stub: RegistryStub, taken: Uploads, store: Store, call: Call
) -> None:
    web, api = store.image(WEB, "a"), store.image(API, "b")
    result = call(web, api, to=stub.name, images=[API])
    assert told(result, "name") == [API] and list(stub.tags) == ["shop/api:1"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"to": "mirror"}, "wanted host or host:port, perhaps with a path"),
        ({"to": "h.example/UPPER"}, "wanted host or host:port, perhaps with a path"),
        ({"to": "https://h.example"}, "wanted host or host:port, perhaps with a path"),
        ({}, "give to, or as for this image"),
        ({"to": "h.example", "images": ["none:1"]}, "is not in the lock"),
        ({"to": "h.example", "lock": {"version": 1, "images": {}}}, "no image is wanted"),
        (
            {"to": "h.example", "lock": NOT_GIVEN},
            "one of the following is required: lock, lock_path",
        ),
        ({"to": "h.example", "lock": NOT_GIVEN, "lock_path": "/nowhere"}, "cannot be used"),
    ],
)
def test_unusable_options_are_told(store: Store, call: Call, options: Json, message: str) -> None:
    result = call(store.image(WEB, "a"), **options)
    assert result["failed"] and message in result["msg"]


def test_memory_does_not_grow_with_the_image(
    stub: RegistryStub, taken: Uploads, store: Store, call: Call
) -> None:
    path = store.layout.root / "large"
    with path.open("wb") as file:
        for _index in range(96):
            file.write(os.urandom(1 << 20))
    content_digest = _digest_of_file(path)
    path.rename(store.layout.path(content_digest))
    size = 96 << 20
    layer = _lock.Layer(
        content_digest, size, "application/vnd.oci.image.layer.v1.tar", content_digest
    )
    made = store.image_of((layer,))
    image = _lock.LockedImage(WEB, made.manifest, {AMD64: made})
    taken.swallow = True
    call(store.image(API, "a"), to=stub.name)
    tracemalloc.start()
    result = call(image, to=stub.name)
    _now, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert told(result, "action") == ["pushed"] and result["bytes_sent"] > size
    # A part of it is what the stub reads at a time, and the room for a manifest.
    assert peak < 32 << 20


def _digest_of_file(path: Path) -> str:
    import hashlib

    whole = hashlib.sha256()
    with path.open("rb") as file:
        for chunk in iter(lambda: file.read(1 << 20), b""):
            whole.update(chunk)
    return f"sha256:{whole.hexdigest()}"


@pytest.mark.parametrize(
    ("asked", "location", "url"),
    [
        ("https://r:1/v2/a/blobs/uploads/", "/v2/a/x?s=1", "https://r:1/v2/a/x?s=1"),
        ("https://r:1/v2/a/blobs/uploads/", "http://r:1/v2/a/x", "https://r:1/v2/a/x"),
        ("https://r:1/v2/a/blobs/uploads/", "http://other/v2/a/x", "http://other/v2/a/x"),
        ("http://r:1/v2/a/blobs/uploads/", "http://r:1/x", "http://r:1/x"),
    ],
)
def test_where_an_upload_goes_on(asked: str, location: str, url: str) -> None:
    assert _registry_push._follow(asked, location) == url
