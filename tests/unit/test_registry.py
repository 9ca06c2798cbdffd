# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The door to registries, against a stub that misbehaves on demand."""

from __future__ import annotations

import base64
import json
import os
import shutil
import socket
import ssl
import stat
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from registry_stub import DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST, RegistryStub, Synthetic, basic

from ansible_collections.fleet.images.plugins.module_utils._arguments import registry_arguments
from ansible_collections.fleet.images.plugins.module_utils._lock import Blob
from ansible_collections.fleet.images.plugins.module_utils._reference import parse
from ansible_collections.fleet.images.plugins.module_utils._registry import (
    NotFound,
    Refused,
    Registry,
    RegistryError,
    Unavailable,
    media_type_of,
)
from ansible_collections.fleet.images.plugins.module_utils._registry_auth import challenges
from ansible_collections.fleet.images.plugins.module_utils._registry_http import clean
from ansible_collections.fleet.images.plugins.module_utils._registry_options import (
    Options,
    options_from,
)
from ansible_collections.fleet.images.plugins.module_utils._retry import Retrier

pytest.importorskip("requests")
pytest.importorskip("docker")

LOGIN = ("shop", "s3cret-for-tests")


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No login, proxy or pack of whoever runs the tests."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("DOCKER_CONFIG", str(home / ".docker"))
    for name in ("http_proxy", "https_proxy", "no_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def stub() -> Iterator[RegistryStub]:
    with RegistryStub() as running:
        yield running


@pytest.fixture
def waits() -> list[float]:
    return []


@pytest.fixture
def connect(waits: list[float]) -> Iterator[Callable[..., Registry]]:
    made: list[Registry] = []

    def new(retries: int = 3, **options: Any) -> Registry:
        retrier = Retrier(retries=retries, sleep=waits.append, jitter=lambda: 0.0)
        made.append(Registry(Options(**options), retrier))
        return made[-1]

    yield new
    for registry in made:
        registry.__exit__()


def write_docker_config(content: Any) -> None:
    directory = Path(os.environ["DOCKER_CONFIG"])
    directory.mkdir(exist_ok=True)
    (directory / "config.json").write_text(json.dumps(content))


def auth(username: str, password: str) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{username}:{password}".encode()).decode()}


class Buffer:
    """A sink in memory."""

    def __init__(self, start: bytes = b"") -> None:
        self.content = bytearray(start)
        self.restarts = 0

    @property
    def offset(self) -> int:
        return len(self.content)

    def restart(self) -> None:
        self.content.clear()
        self.restarts += 1

    def write(self, chunk: bytes) -> None:
        self.content += chunk


# Names to digests


@pytest.mark.parametrize("oci", [True, False])
def test_resolve_asks_head_and_never_get(
    stub: RegistryStub, connect: Callable[..., Registry], oci: bool
) -> None:
    image = stub.add_image("shop/web:1", ["base"], oci=oci)
    found = connect().resolve(parse(f"{stub.name}/shop/web:1"))
    assert found.as_dict() == {
        "digest": image["digest"],
        "size": image["size"],
        "media_type": OCI_MANIFEST if oci else DOCKER_MANIFEST,
    }
    assert stub.asked("GET") == []
    accepted = stub.asked("HEAD")[-1].headers["Accept"]
    assert OCI_INDEX in accepted and DOCKER_MANIFEST in accepted
    assert stub.asked("HEAD")[-1].headers["User-Agent"] == "fleet.images"


@pytest.mark.parametrize("missing", ["digest_header", "serves_head"])
def test_resolve_falls_back_to_get(
    stub: RegistryStub, connect: Callable[..., Registry], missing: str
) -> None:
    image = stub.add_image("web:1", ["base"])
    setattr(stub, missing, False)
    assert connect().resolve(parse(f"{stub.name}/web:1")).digest == image["digest"]


def test_manifest_is_byte_for_byte(stub: RegistryStub, connect: Callable[..., Registry]) -> None:
    index = stub.add_index("web:1", {"linux/amd64": ["a"], "linux/arm64": ["b"]})
    content = connect().manifest(parse(f"{stub.name}/web:1"), index["digest"])
    assert content == stub.content[index["digest"]]


def test_unknown_tag_keeps_the_registrys_words(
    stub: RegistryStub, connect: Callable[..., Registry], waits: list[float]
) -> None:
    with pytest.raises(NotFound) as caught:
        connect().resolve(parse(f"{stub.name}/web:none"))
    text = str(caught.value)
    assert f"{stub.name}/web:none is not there" in text
    assert "MANIFEST_UNKNOWN: not known here" in text and "check the spelling" in text
    assert waits == []


def test_wrong_bytes_of_a_manifest_are_refused(
    stub: RegistryStub, connect: Callable[..., Registry]
) -> None:
    image = stub.add_image("web:1", ["base"])
    stub.fault("GET", spoil=True)
    with pytest.raises(RegistryError, match=f"wanted content of {image['digest']}"):
        connect().manifest(parse(f"{stub.name}/web:1"), image["digest"])


def test_a_manifest_without_end_is_refused(
    stub: RegistryStub, connect: Callable[..., Registry]
) -> None:
    blob = Synthetic(bytes(1 << 20), 64)
    stub.content[blob.digest()] = blob
    with pytest.raises(RegistryError, match="more than the 4194304 bytes"):
        connect().manifest(parse(f"{stub.name}/web:1"), blob.digest())


def test_schema_1_is_told(stub: RegistryStub, connect: Callable[..., Registry]) -> None:
    old = "application/vnd.docker.distribution.manifest.v1+prettyjws"
    stub.add_manifest("old:1", {"schemaVersion": 1, "fsLayers": []}, old)
    with pytest.raises(RegistryError, match="only a schema 1 manifest"):
        connect().resolve(parse(f"{stub.name}/old:1"))


@pytest.mark.parametrize(
    ("document", "header", "wanted"),
    [
        ({"mediaType": OCI_INDEX, "manifests": []}, "", OCI_INDEX),
        ({"manifests": []}, "text/plain", OCI_INDEX),
        ({"layers": []}, "", OCI_MANIFEST),
        ({"layers": []}, DOCKER_MANIFEST, DOCKER_MANIFEST),
        ({"mediaType": "application/x-chart", "layers": []}, OCI_MANIFEST, None),
        ({}, "", None),
        ([], "", None),
        ({"schemaVersion": 1}, "", None),
    ],
)
def test_media_type_of(document: Any, header: str, wanted: str | None) -> None:
    content = json.dumps(document).encode()
    if wanted:
        assert media_type_of("web:1", content, header) == wanted
    else:
        with pytest.raises(RegistryError, match="web:1"):
            media_type_of("web:1", content, header)


# Blobs


@pytest.fixture
def blob(stub: RegistryStub) -> Blob:
    """Three MiB, in a registry that is open to all."""
    content = Synthetic(os.urandom(1 << 20), 3)
    stub.content[content.digest()] = content
    return Blob(content.digest(), content.size, "")


def content_of(stub: RegistryStub, blob: Blob) -> bytes:
    content = stub.content[blob.digest]
    return b"".join(content.read(0)) if isinstance(content, Synthetic) else content


def test_blob_is_copied(stub: RegistryStub, connect: Callable[..., Registry], blob: Blob) -> None:
    sink = Buffer()
    assert connect().copy_blob(parse(f"{stub.name}/web:1"), blob, sink) == blob.size
    assert sink.content == content_of(stub, blob)
    seen = stub.asked("GET")[-1].headers
    assert seen["Accept-Encoding"] == "identity" and "Range" not in seen


@pytest.mark.parametrize("cut", [0, 1, 700_000, (2 << 20) + 5])
def test_a_cut_blob_goes_on_from_there(
    stub: RegistryStub, connect: Callable[..., Registry], blob: Blob, cut: int
) -> None:
    stub.fault("blobs", cut_after=cut)
    sink, registry = Buffer(), connect()
    registry.copy_blob(parse(f"{stub.name}/web:1"), blob, sink)
    assert sink.content == content_of(stub, blob) and sink.restarts == 0
    asked = [seen.headers.get("Range") for seen in stub.asked("blobs")]
    # What the kernel held when the connection was reset may be lost.
    start = int(asked[1][6:-1]) if asked[1] else 0
    assert asked[0] is None and start <= cut and len(asked) == 2
    assert registry.repeats == 1


def test_an_orderly_end_that_comes_too_early_is_a_cut(
    stub: RegistryStub, connect: Callable[..., Registry], blob: Blob
) -> None:
    part = content_of(stub, blob)[:1000]
    stub.fault("blobs", status=200, body=part)
    sink = Buffer()
    connect().copy_blob(parse(f"{stub.name}/web:1"), blob, sink)
    assert sink.content == content_of(stub, blob)
    assert stub.asked("blobs")[1].headers["Range"] == "bytes=1000-"


def test_resumes_what_the_sink_has(
    stub: RegistryStub, connect: Callable[..., Registry], blob: Blob
) -> None:
    whole = content_of(stub, blob)
    sink = Buffer(whole[: 2 << 20])
    assert connect().copy_blob(parse(f"{stub.name}/web:1"), blob, sink) == 1 << 20
    assert sink.content == whole and sink.restarts == 0


def test_starts_anew_where_the_registry_knows_no_ranges(
    stub: RegistryStub, connect: Callable[..., Registry], blob: Blob
) -> None:
    stub.ranges = False
    whole = content_of(stub, blob)
    sink, registry = Buffer(whole[:5000]), connect()
    assert registry.copy_blob(parse(f"{stub.name}/web:1"), blob, sink) == blob.size
    assert sink.content == whole and sink.restarts == 1 and registry.repeats == 0


@pytest.mark.parametrize(
    "how",
    [
        {"status": 416},
        {"status": 206, "body": b"other", "headers": {"Content-Range": "bytes 7-11/99"}},
        {"status": 206, "body": b"other"},
    ],
)
def test_a_range_that_does_not_fit_starts_anew(
    stub: RegistryStub, connect: Callable[..., Registry], blob: Blob, how: dict[str, Any]
) -> None:
    stub.fault("blobs", **how)
    sink = Buffer(b"x" * 5000)
    connect().copy_blob(parse(f"{stub.name}/web:1"), blob, sink)
    assert sink.content == content_of(stub, blob) and sink.restarts == 1


def test_nothing_is_asked_for_a_blob_that_is_there(
    stub: RegistryStub, connect: Callable[..., Registry], blob: Blob
) -> None:
    assert connect().copy_blob(parse(f"{stub.name}/web:1"), blob, Buffer(bytes(blob.size))) == 0
    assert stub.seen == []


def test_silence_ends(stub: RegistryStub, connect: Callable[..., Registry], blob: Blob) -> None:
    stub.fault("blobs", cut_after=10, stall=2.0, times=9)
    with pytest.raises(Unavailable, match=r"sent nothing for 0\.2 s"):
        connect(retries=0, stall_timeout=0.2).copy_blob(parse(f"{stub.name}/web:1"), blob, Buffer())


def test_a_small_blob_is_verified(stub: RegistryStub, connect: Callable[..., Registry]) -> None:
    entry = stub.add_blob(b"{}", "application/json")
    wanted = Blob(entry["digest"], 2, "")
    reference = parse(f"{stub.name}/web:1")
    assert connect().read_blob(reference, wanted) == b"{}"
    stub.fault("blobs", spoil=True)
    with pytest.raises(RegistryError, match="wanted content of"):
        connect().read_blob(reference, wanted)
    with pytest.raises(RegistryError, match="more than the 1 bytes"):
        connect().read_blob(reference, Blob(entry["digest"], 1, ""))


# Another try


def test_limits_and_errors_are_tried_again(
    stub: RegistryStub, connect: Callable[..., Registry], waits: list[float]
) -> None:
    image = stub.add_image("web:1", ["base"])
    stub.fault("HEAD", status=429, headers={"Retry-After": "7"})
    stub.fault("HEAD", status=500)
    registry = connect()
    assert registry.resolve(parse(f"{stub.name}/web:1")).digest == image["digest"]
    assert waits == [7.0, 1.0] and registry.repeats == 2


def test_gives_up_after_the_retries(
    stub: RegistryStub, connect: Callable[..., Registry], waits: list[float]
) -> None:
    stub.fault("HEAD", status=503, times=9, headers={"Retry-After": "2"})
    with pytest.raises(Unavailable, match=r"503.*asks to wait 2 s") as caught:
        connect(retries=2).resolve(parse(f"{stub.name}/web:1"))
    assert (caught.value.attempts, len(waits), caught.value.status) == (3, 2, 503)


def test_a_dead_registry_is_told(connect: Callable[..., Registry], waits: list[float]) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        name = f"127.0.0.1:{unused.getsockname()[1]}"
    with pytest.raises(Unavailable) as caught:
        connect(retries=1).resolve(parse(f"{name}/web:1"))
    assert f"the connection to {name} failed (Connection refused)" in str(caught.value)
    assert len(waits) == 1


def test_a_name_that_does_not_resolve_is_told(connect: Callable[..., Registry]) -> None:
    with pytest.raises(RegistryError, match=r"name of registry\.invalid does not resolve"):
        connect(retries=0).resolve(parse("registry.invalid/web:1"))


# Logins


def test_token_is_asked_for_once_per_repository(connect: Callable[..., Registry]) -> None:
    with RegistryStub(login=("", "")) as stub:
        stub.login = ("", "")
        image = stub.add_image("shop/web:1", ["base"])
        registry, reference = connect(), parse(f"{stub.name}/shop/web:1")
        for _time in range(3):
            assert registry.resolve(reference).digest == image["digest"]
        asked = stub.asked("/token")
        assert len(asked) == 1 and asked[0].login == ""
        assert "scope=repository%3Ashop%2Fweb%3Apull" in asked[0].line
        assert "service=stub" in asked[0].line


def test_one_token_for_many_threads(connect: Callable[..., Registry]) -> None:
    with RegistryStub(login=LOGIN) as stub:
        stub.add_image("shop/web:1", ["base"])
        registry = connect(username=LOGIN[0], password=LOGIN[1])
        barrier = threading.Barrier(8)

        def work(_number: int) -> str:
            barrier.wait()
            return registry.resolve(parse(f"{stub.name}/shop/web:1")).digest

        with ThreadPoolExecutor(8) as pool:
            assert len(set(pool.map(work, range(8)))) == 1
        assert len(stub.asked("/token")) == 1


def test_an_expired_token_is_renewed_once(connect: Callable[..., Registry]) -> None:
    with RegistryStub(login=LOGIN) as stub:
        stub.add_image("web:1", ["base"])
        registry, reference = (
            connect(username=LOGIN[0], password=LOGIN[1]),
            parse(stub.name + "/w/web:1"),
        )
        stub.tags["w/web:1"] = stub.tags["web:1"]
        registry.resolve(reference)
        stub.tokens.clear()
        registry.resolve(reference)
        assert len(stub.asked("/token")) == 2


def test_a_token_that_is_never_enough_ends(connect: Callable[..., Registry]) -> None:
    with RegistryStub(login=LOGIN) as stub:
        challenge = {"WWW-Authenticate": f'Bearer realm="{stub.url}/token"'}
        stub.fault("/v2/", status=401, headers=challenge, times=99, body=b'{"message": "no way"}')
        with pytest.raises(Refused, match=r"no way.*for the user 'shop'"):
            connect(username=LOGIN[0], password=LOGIN[1]).resolve(parse(f"{stub.name}/web:1"))
        assert len(stub.asked("/token")) <= 2


@pytest.mark.parametrize("scheme", ["basic", "bearer"])
def test_given_login(connect: Callable[..., Registry], scheme: str) -> None:
    with RegistryStub(login=LOGIN, scheme=scheme) as stub:
        image = stub.add_image("web:1", ["base"])
        registry = connect(username=LOGIN[0], password=LOGIN[1])
        assert registry.resolve(parse(f"{stub.name}/web:1")).digest == image["digest"]
        assert stub.seen[0].login == "", "a login is sent only when it is asked for"


@pytest.mark.parametrize("scheme", ["basic", "bearer"])
def test_a_wrong_login_is_told_without_the_password(
    connect: Callable[..., Registry], waits: list[float], scheme: str
) -> None:
    with RegistryStub(login=LOGIN, scheme=scheme) as stub:
        with pytest.raises(Refused) as caught:
            connect(username="shop", password="not-it-987").resolve(parse(f"{stub.name}/web:1"))
        text = str(caught.value)
        assert "refused access" in text and "for the user 'shop'; check" in text
        assert "not-it-987" not in text and basic("shop", "not-it-987")[6:] not in text
        if scheme == "bearer":
            assert "incorrect username or password" in text
        else:
            # No more than needed: some servers lock an account after a few failures.
            logins = [seen.login for seen in stub.seen]
            assert logins == ["", *[basic("shop", "not-it-987")] * 2]
        assert waits == []


def test_no_login_is_told(connect: Callable[..., Registry]) -> None:
    with RegistryStub(login=LOGIN, scheme="basic") as stub, pytest.raises(Refused) as caught:
        connect().resolve(parse(f"{stub.name}/web:1"))
    assert "without a login (the Docker config file has none for it)" in str(caught.value)
    assert f"docker login {stub.name}" in str(caught.value)
    assert "UNAUTHORIZED: authentication required" in str(caught.value)
    assert [seen.line.split()[0] for seen in stub.seen] == ["HEAD", "GET"]


@pytest.mark.parametrize("scheme", ["basic", "bearer"])
def test_login_of_the_docker_config(connect: Callable[..., Registry], scheme: str) -> None:
    with RegistryStub(login=LOGIN, scheme=scheme) as stub:
        stub.add_image("web:1", ["base"])
        write_docker_config({"auths": {stub.name: auth(*LOGIN)}})
        connect().resolve(parse(f"{stub.name}/web:1"))


def test_identity_token_of_the_docker_config(connect: Callable[..., Registry]) -> None:
    with RegistryStub(login=LOGIN) as stub:
        stub.add_image("web:1", ["base"])
        stub.identity_token = "identity-4711"
        write_docker_config({"auths": {stub.name: {"auth": "", "identitytoken": "identity-4711"}}})
        connect().resolve(parse(f"{stub.name}/web:1"))
        assert stub.asked("POST /token") and not any("4711" in seen.line for seen in stub.seen)


@pytest.mark.parametrize("key", ["credsStore", "credHelpers"])
def test_login_of_a_credential_helper(
    connect: Callable[..., Registry], key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with RegistryStub(login=LOGIN) as stub:
        stub.add_image("web:1", ["base"])
        helper = tmp_path / "docker-credential-made-up"
        answer = json.dumps({"Username": LOGIN[0], "Secret": LOGIN[1], "ServerURL": stub.name})
        helper.write_text(f"#!/bin/sh\ncat > {tmp_path}/asked\necho '{answer}'\n")
        helper.chmod(helper.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        write_docker_config({key: "made-up" if key == "credsStore" else {stub.name: "made-up"}})
        connect().resolve(parse(f"{stub.name}/web:1"))
        assert (tmp_path / "asked").read_text() == stub.name


@pytest.mark.parametrize(
    "content",
    [
        {"credHelpers": 7},
        {"auths": {"x": {"auth": "?"}}},
        {"auths": {"x": {"auth": 7}}},
        {"auths": [7]},
        [7],
    ],
)
def test_an_unusable_docker_config_is_told(connect: Callable[..., Registry], content: Any) -> None:
    with RegistryStub(login=LOGIN, scheme="basic") as stub:
        write_docker_config(content)
        with pytest.raises(Refused, match="the Docker config file cannot be used"):
            connect().resolve(parse(f"{stub.name}/web:1"))


@pytest.mark.filterwarnings("ignore:docker-credential-made-up")
@pytest.mark.parametrize(
    ("script", "told"),
    [(None, "made-up is not installed"), ("echo s3cret; exit 1", r"made-up failed\)")],
    ids=["absent", "broken"],
)
def test_an_unusable_credential_helper_is_told(
    connect: Callable[..., Registry],
    script: str | None,
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if script:
        helper = tmp_path / "docker-credential-made-up"
        helper.write_text(f"#!/bin/sh\n{script}\n")
        helper.chmod(helper.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with RegistryStub(login=LOGIN, scheme="basic") as stub:
        write_docker_config({"credsStore": "made-up"})
        with pytest.raises(
            Refused, match=f"the credential helper docker-credential-{told}"
        ) as info:
            connect().resolve(parse(f"{stub.name}/web:1"))
        assert "s3cret" not in str(info.value)


def test_netrc_does_not_replace_a_token(connect: Callable[..., Registry]) -> None:
    with RegistryStub(login=LOGIN) as stub:
        stub.add_image("web:1", ["base"])
        netrc = Path(os.environ["HOME"]) / ".netrc"
        netrc.write_text("machine 127.0.0.1 login someone password else\n")
        netrc.chmod(0o600)
        registry = connect(username=LOGIN[0], password=LOGIN[1])
        registry.resolve(parse(f"{stub.name}/web:1"))
        assert basic("someone", "else") not in {seen.login for seen in stub.seen}


def test_a_login_does_not_follow_a_redirect(
    stub: RegistryStub, connect: Callable[..., Registry], blob: Blob
) -> None:
    with RegistryStub(login=LOGIN, scheme="basic") as front:
        target = f"{stub.url}/v2/web/blobs/{blob.digest}?signature=1"
        welcome = {"Location": target}
        front.fault("blobs", status=307, headers=welcome, times=9)
        front.add_image("web:1", ["base"])
        registry = connect(username=LOGIN[0], password=LOGIN[1])
        registry.resolve(parse(f"{front.name}/web:1"))
        sink = Buffer(content_of(stub, blob)[:100])
        registry.copy_blob(parse(f"{front.name}/web:1"), blob, sink)
        assert sink.content == content_of(stub, blob)
        assert front.asked("blobs")[-1].login == basic(*LOGIN)
        assert [seen.login for seen in stub.seen] == [""]
        assert stub.seen[0].headers["Range"] == "bytes=100-"


@pytest.mark.parametrize("scheme", ["basic", "bearer"])
def test_a_redirects_target_gets_no_login_even_if_it_asks(
    connect: Callable[..., Registry], blob: Blob, scheme: str
) -> None:
    with RegistryStub(login=LOGIN, scheme=scheme) as thief, RegistryStub() as front:
        front.fault("blobs", status=302, headers={"Location": f"{thief.url}/v2/x"}, times=9)
        registry = connect(username=LOGIN[0], password=LOGIN[1])
        with pytest.raises(RegistryError):
            registry.copy_blob(parse(f"{front.name}/web:1"), blob, Buffer())
        assert thief.seen and {seen.login for seen in thief.seen} == {""}


def test_a_failure_behind_a_redirect_names_its_target(
    stub: RegistryStub, connect: Callable[..., Registry], blob: Blob
) -> None:
    with RegistryStub() as front:
        front.fault("blobs", status=307, headers={"Location": f"{stub.url}/x"}, times=9)
        with pytest.raises(NotFound, match=f"{stub.name} answered: status 404"):
            connect().copy_blob(parse(f"{front.name}/web:1"), blob, Buffer())


def test_redirects_in_a_circle_end(connect: Callable[..., Registry], blob: Blob) -> None:
    with RegistryStub() as front:
        front.fault("blobs", status=307, headers={"Location": "/v2/web/blobs/x"}, times=99)
        with pytest.raises(RegistryError, match="redirects in a circle"):
            connect().copy_blob(parse(f"{front.name}/web:1"), blob, Buffer())
        assert len(front.seen) < 20


# Mirrors and proxies


def mirrored(stub: RegistryStub, *urls: str) -> dict[str, Any]:
    return {"mirrors": {stub.name: list(urls)}}


def test_the_mirror_comes_first(stub: RegistryStub, connect: Callable[..., Registry]) -> None:
    with RegistryStub() as mirror:
        image = mirror.add_image("web:1", ["base"])
        registry = connect(**mirrored(stub, mirror.url))
        assert registry.resolve(parse(f"{stub.name}/web:1")).digest == image["digest"]
        assert stub.seen == []


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("", "/v2/web"),
        ("/", "/v2/web"),
        ("/v2", "/v2/web"),
        ("/some/prefix", "/some/prefix/v2/web"),
        ("/prefix/", "/prefix/v2/web"),
        ("/v2/project", "/v2/project/web"),
    ],
)
def test_a_mirror_may_have_a_path(
    stub: RegistryStub, connect: Callable[..., Registry], path: str, asked: str
) -> None:
    with RegistryStub() as mirror:
        mirror.prefix = asked.removesuffix("/v2/web") if "prefix" in path else ""
        image = mirror.add_image(f"{'project/' if 'project' in path else ''}web:1", ["base"])
        registry = connect(**mirrored(stub, mirror.url + path))
        assert registry.resolve(parse(f"{stub.name}/web:1")).digest == image["digest"]
        assert [seen.line for seen in mirror.seen] == [f"HEAD {asked}/manifests/1"]


@pytest.mark.parametrize("status", [404, 401, 403, 429, 500])
def test_the_registry_is_asked_where_the_mirror_fails(
    stub: RegistryStub, connect: Callable[..., Registry], waits: list[float], status: int
) -> None:
    image = stub.add_image("web:1", ["base"])
    with RegistryStub() as mirror:
        mirror.fault("/v2/", status=status, times=9)
        registry = connect(**mirrored(stub, mirror.url))
        assert registry.resolve(parse(f"{stub.name}/web:1")).digest == image["digest"]
        assert waits == []


def test_a_dead_mirror_is_asked_once(stub: RegistryStub, connect: Callable[..., Registry]) -> None:
    image = stub.add_image("web:1", ["base"])
    with RegistryStub() as mirror:
        mirror.fault("/v2/", act=lambda handler: handler.cut(), times=99)
        registry = connect(**mirrored(stub, mirror.url))
        for _time in range(3):
            assert registry.resolve(parse(f"{stub.name}/web:1")).digest == image["digest"]
        assert len(mirror.seen) == 1


def test_only_the_mirror_counts_where_the_registry_is_out_of_reach(
    connect: Callable[..., Registry], waits: list[float]
) -> None:
    with RegistryStub() as mirror:
        image = mirror.add_image("web:1", ["base"])
        mirror.fault("/v2/", act=lambda handler: handler.cut())
        registry = connect(mirrors={"registry.invalid": [mirror.url]})
        assert registry.resolve(parse("registry.invalid/web:1")).digest == image["digest"]
        assert len(waits) == 1
        with pytest.raises(NotFound, match=r"besides, .*registry.invalid does not resolve"):
            registry.resolve(parse("registry.invalid/web:2"))


def test_what_a_mirror_said_comes_before_what_is_out_of_reach(
    connect: Callable[..., Registry], waits: list[float]
) -> None:
    with RegistryStub(login=LOGIN, scheme="basic") as mirror, RegistryStub() as gone:
        registry = connect(mirrors={gone.name: [mirror.url]})
        gone.fault("/v2/", act=lambda handler: handler.cut(), times=99)
        with pytest.raises(Unavailable) as info:
            registry.resolve(parse(f"{gone.name}/web:1"))
    assert str(info.value).startswith(f"{gone.name}/web:1: {mirror.name} refused access")
    assert f"; besides, {gone.name}/web:1: the connection to {gone.name} failed" in str(info.value)
    assert len(waits) == 3


def test_a_mirror_of_another_name_gets_no_given_login(
    stub: RegistryStub, connect: Callable[..., Registry]
) -> None:
    stub.add_image("web:1", ["base"])
    with RegistryStub(login=LOGIN, scheme="basic") as mirror:
        registry = connect(username=LOGIN[0], password=LOGIN[1], **mirrored(stub, mirror.url))
        registry.resolve(parse(f"{stub.name}/web:1"))
        assert mirror.seen and {seen.login for seen in mirror.seen} == {""}


def test_a_mirror_gets_its_own_login_of_the_docker_config(
    stub: RegistryStub, connect: Callable[..., Registry]
) -> None:
    with RegistryStub(login=LOGIN, scheme="basic") as mirror:
        image = mirror.add_image("web:1", ["base"])
        write_docker_config({"auths": {mirror.name: auth(*LOGIN)}})
        registry = connect(username="other", password="x", **mirrored(stub, mirror.url))
        assert registry.resolve(parse(f"{stub.name}/web:1")).digest == image["digest"]


def test_the_proxy_is_used(stub: RegistryStub, connect: Callable[..., Registry]) -> None:
    image = stub.add_image("web:1", ["base"])

    with RegistryStub() as proxy:
        proxy.fault("http://registry.example", status=200, times=9, body=b"")
        headers = {"Docker-Content-Digest": image["digest"], "Content-Length": "5"}
        proxy.faults[0].headers = {**headers, "Content-Type": OCI_MANIFEST}
        registry = connect(
            proxy=f"http://someone:proxy-secret@{proxy.name}",
            mirrors={"registry.example": ["http://registry.example"]},
        )
        found = registry.resolve(parse("registry.example/web:1"))
        assert found.digest == image["digest"]
        assert proxy.seen[0].line == "HEAD http://registry.example/v2/web/manifests/1"
        # A registry on the loopback interface is not asked through a proxy.
        registry.resolve(parse(f"{stub.name}/web:1"))
        assert len(proxy.seen) == 1


def test_a_dead_proxy_is_told_without_its_password(connect: Callable[..., Registry]) -> None:
    registry = connect(retries=0, proxy="http://someone:proxy-secret@127.0.0.1:1")
    with pytest.raises(Unavailable, match=r"the proxy for registry.example") as caught:
        registry.resolve(parse("registry.example/web:1"))
    assert "proxy-secret" not in str(caught.value)


def test_no_proxy_is_respected(
    connect: Callable[..., Registry], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "registry.invalid")
    registry = connect(retries=0, proxy="http://127.0.0.1:1")
    with pytest.raises(RegistryError, match=r"the name of registry.invalid does not resolve"):
        registry.resolve(parse("registry.invalid/web:1"))


# TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ssl.SSLContext]:
    """An authority of its own for the name registry.test, and a server's context."""
    if not shutil.which("openssl"):
        pytest.skip("needs openssl to make a certificate")
    directory = tmp_path_factory.mktemp("tls")
    files = ["-keyout", str(directory / "key"), "-out", str(directory / "ca.crt")]
    names = ["-subj", "/CN=registry.test", "-addext", "subjectAltName=DNS:registry.test"]
    subprocess.run(
        [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "3650",
            *files,
            *names,
        ],
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / "ca.crt", directory / "key")
    return directory / "ca.crt", context


@pytest.fixture
def tls_stub(
    certificate: tuple[Path, ssl.SSLContext], monkeypatch: pytest.MonkeyPatch
) -> Iterator[RegistryStub]:
    """A TLS registry that the name registry.test leads to."""
    real = socket.getaddrinfo

    def look_up(host: Any, *rest: Any, **more: Any) -> Any:
        return real("127.0.0.1" if host == "registry.test" else host, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    with RegistryStub(tls=certificate[1]) as running:
        running.add_image("web:1", ["base"])
        yield running


def test_an_unknown_authority_is_refused(
    tls_stub: RegistryStub, connect: Callable[..., Registry], waits: list[float]
) -> None:
    with pytest.raises(RegistryError, match=r"is not trusted \(.*registry_ca_path"):
        connect().resolve(parse(f"registry.test:{tls_stub.port}/web:1"))
    assert tls_stub.seen == [] and waits == []


@pytest.mark.parametrize("directory", [False, True])
def test_the_given_authority_is_trusted(
    tls_stub: RegistryStub,
    connect: Callable[..., Registry],
    certificate: tuple[Path, ssl.SSLContext],
    directory: bool,
) -> None:
    path = certificate[0].parent if directory else certificate[0]
    registry = connect(ca_path=str(path))
    assert registry.resolve(parse(f"registry.test:{tls_stub.port}/web:1")).size > 0


def test_an_unusable_authority_is_told(
    tls_stub: RegistryStub, connect: Callable[..., Registry], tmp_path: Path
) -> None:
    reference = parse(f"registry.test:{tls_stub.port}/web:1")
    (tmp_path / "ca.pem").write_text("no certificate")
    for path in (tmp_path / "ca.pem", tmp_path / "none", tmp_path / "home"):
        with pytest.raises(RegistryError, match="registry_ca_path: wanted"):
            connect(ca_path=str(path)).resolve(reference)


def test_without_verification_tls_is_still_used(
    tls_stub: RegistryStub, connect: Callable[..., Registry]
) -> None:
    registry = connect(validate_certs=False)
    assert registry.resolve(parse(f"registry.test:{tls_stub.port}/web:1")).size > 0


def test_plain_http_needs_to_be_allowed(
    stub: RegistryStub, connect: Callable[..., Registry], monkeypatch: pytest.MonkeyPatch
) -> None:
    stub.add_image("web:1", ["base"])
    real = socket.getaddrinfo
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda host, *rest, **more: real("127.0.0.1", *rest, **more)
    )
    reference = parse(f"registry.test:{stub.port}/web:1")
    with pytest.raises(
        RegistryError, match=r"no TLS connection with.*registry_validate_certs: false"
    ):
        connect(retries=0).resolve(reference)
    assert stub.seen == []
    assert connect(validate_certs=False).resolve(reference).size > 0


def test_plain_http_is_found_out_once(stub: RegistryStub, connect: Callable[..., Registry]) -> None:
    stub.add_image("web:1", ["base"])
    registry = connect()
    for _time in range(3):
        registry.resolve(parse(f"{stub.name}/web:1"))
    # One for TLS in vain, and one for all that is asked.
    assert stub.connections == 2


def test_a_tls_registry_is_never_asked_in_plain(
    certificate: tuple[Path, ssl.SSLContext], connect: Callable[..., Registry]
) -> None:
    """A server that breaks TLS off after it began is no reason to send anything in plain."""
    refusing = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    refusing.load_cert_chain(certificate[0], certificate[0].parent / "key")
    refusing.minimum_version = refusing.maximum_version = ssl.TLSVersion.TLSv1_2
    # The key is RSA: no cipher is left, which the server tells in TLS.
    refusing.set_ciphers("ECDHE-ECDSA-AES128-GCM-SHA256")
    with RegistryStub(tls=refusing) as old, pytest.raises(RegistryError, match="no TLS connection"):
        connect(retries=0, validate_certs=False).resolve(parse(f"{old.name}/web:1"))


def test_a_token_server_in_plain_is_refused(
    tls_stub: RegistryStub, connect: Callable[..., Registry], certificate: tuple[Path, Any]
) -> None:
    with RegistryStub(login=LOGIN) as plain:
        tls_stub.login = LOGIN
        tls_stub.realm_host = f"http://plain.test:{plain.port}"
        registry = connect(ca_path=str(certificate[0]), username=LOGIN[0], password=LOGIN[1])
        with pytest.raises(RegistryError, match="wanted an https address"):
            registry.resolve(parse(f"registry.test:{tls_stub.port}/web:1"))


# Options and texts


def params(**changes: Any) -> dict[str, Any]:
    names = {name: spec.get("default") for name, spec in registry_arguments().items()}
    return {**names, **changes}


def test_options_of_a_module() -> None:
    options = options_from(
        params(registry_username="u", registry_password="p", registry_mirrors={"a": "https://m"})
    )
    assert (options.username, options.validate_certs) == ("u", True)
    assert options.mirrors == {"a": ["https://m"]}
    assert "p'" not in repr(options)


@pytest.mark.parametrize(
    "changes",
    [
        {"registry_mirrors": {"docker.io": ["mirror.example"]}},
        {"registry_mirrors": {"docker.io": ["ftp://mirror.example"]}},
        {"registry_mirrors": {"docker.io": [7]}},
        {"registry_mirrors": {"docker.io": ["https://me:secret@mirror.example"]}},
        {"registry_proxy": "proxy.example:3128"},
        {"registry_proxy": "socks5://me:secret@proxy.example"},
        {"registry_password": "secret"},
    ],
)
def test_unusable_options_are_told(changes: dict[str, Any]) -> None:
    with pytest.raises(RegistryError) as caught:
        options_from(params(**changes))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("header", "wanted"),
    [
        ("", {}),
        ("Basic", {"basic": {}}),
        ('Basic realm="a, b"', {"basic": {"realm": "a, b"}}),
        (
            'Bearer realm="https://t/x",service="s",scope="repository:a/b:pull,push"',
            {
                "bearer": {
                    "realm": "https://t/x",
                    "service": "s",
                    "scope": "repository:a/b:pull,push",
                }
            },
        ),
        (
            'Negotiate, Basic realm=x , BEARER Realm = "say \\"y\\"", error=z',
            {
                "negotiate": {},
                "basic": {"realm": "x"},
                "bearer": {"realm": 'say "y"', "error": "z"},
            },
        ),
    ],
)
def test_challenges(header: str, wanted: dict[str, dict[str, str]]) -> None:
    assert challenges(header) == wanted


@given(st.text(max_size=80))
def test_challenges_take_any_text(header: str) -> None:
    assert all(scheme == scheme.lower() for scheme in challenges(header))


@given(st.text())
def test_clean_is_one_printable_line(text: str) -> None:
    assert clean(text).isprintable() and len(clean(text)) <= 301


def test_clean_strips_logins() -> None:
    assert clean("at http://me:pw@host/x and //u@h") == "at http://host/x and //h"
