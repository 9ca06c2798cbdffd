# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""References and platforms: read as Docker reads them, written in one spelling."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from images import digest

from ansible_collections.fleet.images.plugins.module_utils._reference import (
    InvalidReference,
    Reference,
    check_digest,
    parse,
    parse_images,
    parse_platform,
    platform_of,
    runnable,
)

SHA = digest("an image")

WORDS = st.from_regex(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+){0,2}", fullmatch=True)
HOSTS = st.sampled_from(
    ["docker.io", "index.docker.io", "localhost", "registry.example.com", "h:5000", "[::1]:5000"]
    + ["10.0.0.1", "Registry", "a-b.c"]
)
TAGS = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}", fullmatch=True)


@st.composite
def texts(draw: st.DrawFn) -> str:
    """Texts that mean an image, in any of Docker's spellings."""
    host = draw(st.none() | HOSTS)
    # Without a registry in front, a first word with a dot is one.
    first = (
        WORDS if host and "docker.io" not in host else WORDS.filter(lambda word: "." not in word)
    )
    path = "/".join([draw(first), *draw(st.lists(WORDS, max_size=2))])
    tag, digest = draw(st.none() | TAGS), draw(st.none() | st.just(SHA))
    return "".join(
        (f"{host}/" if host else "", path, f":{tag}" if tag else "", f"@{digest}" if digest else "")
    )


@given(texts())
def test_canonical_spelling_stays(text: str) -> None:
    reference = parse(text)
    assert parse(str(reference)) == reference
    assert str(parse(str(reference))) == str(reference)


@given(texts())
def test_short_form_means_the_same(text: str) -> None:
    assert parse(parse(text).familiar) == parse(text)


@given(st.text(max_size=60) | st.text("ab:/@.-_ [A1", max_size=30))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        reference = parse(text)
    except InvalidReference as error:
        assert repr(text) in str(error)
    else:
        assert parse(str(reference)) == reference


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("nginx", "docker.io/library/nginx:latest"),
        (" nginx\n", "docker.io/library/nginx:latest"),
        ("nginx:1.27", "docker.io/library/nginx:1.27"),
        ("library/nginx", "docker.io/library/nginx:latest"),
        ("docker.io/nginx", "docker.io/library/nginx:latest"),
        ("index.docker.io/nginx", "docker.io/library/nginx:latest"),
        ("index.docker.io/me/nginx", "docker.io/me/nginx:latest"),
        ("me/app", "docker.io/me/app:latest"),
        ("me/app/part", "docker.io/me/app/part:latest"),
        ("localhost/app", "localhost/app:latest"),
        ("localhost:5000", "docker.io/library/localhost:5000"),
        ("localhost:5000/app", "localhost:5000/app:latest"),
        ("host:5000/app:v1", "host:5000/app:v1"),
        ("127.0.0.1:5000/a/b:v1", "127.0.0.1:5000/a/b:v1"),
        ("[2001:db8::1]:5000/app", "[2001:db8::1]:5000/app:latest"),
        ("[::1]/app", "[::1]/app:latest"),
        ("Host/app", "Host/app:latest"),
        ("a__b/c--d.e:_x.-Y", "docker.io/a__b/c--d.e:_x.-Y"),
        (f"nginx@{SHA}", f"docker.io/library/nginx@{SHA}"),
        (f"nginx:1@{SHA}", f"docker.io/library/nginx:1@{SHA}"),
        ("nginx:" + "t" * 128, "docker.io/library/nginx:" + "t" * 128),
    ],
)
def test_spellings_of_docker(text: str, canonical: str) -> None:
    assert str(parse(text)) == canonical


@pytest.mark.parametrize(
    "text",
    ["", " ", "/", ":", "@", ":tag", f"@{SHA}", "/nginx", "nginx/", "a//b", "nginx:", "nginx:-x"]
    + ["Nginx", "me/App", "nginx:a b", "nginx:1:2", "nginx latest", "ngi\nnx", "nginx\x00"]
    + ["a..b", "a___b", "_a", "a_", "-a", "a-", ".a", "a/.", "a/../b", "http://host/app"]
    + ["nginx@", "nginx@sha256:", f"nginx@{SHA}0", f"nginx@{SHA.upper()}", f"nginx@@{SHA}"]
    + [f"nginx@sha512:{'0' * 128}", "nginx@md5:00", "-host.x/app", "host.:5000/app"]
    + ["host:port/app", "[::1/app", "nginx:" + "t" * 129, "ngïnx", "docker.io/", "0123456789" * 26]
    + [SHA[7:]],
)
def test_what_names_no_image_is_refused(text: str) -> None:
    with pytest.raises(InvalidReference, match="wanted"):
        parse(text)


def test_parts_of_a_reference() -> None:
    reference = parse(f"me/app:1@{SHA}")
    assert (reference.name, reference.tagged) == ("docker.io/me/app", "docker.io/me/app:1")
    assert reference.familiar == f"me/app:1@{SHA}"
    assert parse("host:1/library/app").familiar == "host:1/library/app:latest"
    assert parse("library/a/b").familiar == "library/a/b:latest"
    assert parse("docker.io/a.b/c").familiar == "docker.io/a.b/c:latest"
    assert parse("app:1").pinned(SHA) == Reference("docker.io", "library/app", "1", SHA)


def test_a_digest_alone_has_no_tagged_name() -> None:
    with pytest.raises(InvalidReference, match="a tag is wanted"):
        print(parse(f"app@{SHA}").tagged)


@pytest.mark.parametrize("digest", ["", "sha256:0", SHA[:-1], SHA + "\n", SHA[7:], SHA.upper()])
def test_what_is_no_digest(digest: str) -> None:
    with pytest.raises(InvalidReference, match="no digest"):
        check_digest(digest)
    with pytest.raises(InvalidReference, match="no digest"):
        parse("app").pinned(digest)


@pytest.mark.parametrize(
    ("text", "platform"),
    [
        ("linux/amd64", "linux/amd64"),
        (" Linux/AMD64 ", "linux/amd64"),
        ("x86_64", "linux/amd64"),
        ("x86-64", "linux/amd64"),
        ("linux/x86_64", "linux/amd64"),
        ("aarch64", "linux/arm64"),
        ("linux/arm64/v8", "linux/arm64"),
        ("arm", "linux/arm/v7"),
        ("linux/arm", "linux/arm/v7"),
        ("armhf", "linux/arm/v7"),
        ("armv7l", "linux/arm/v7"),
        ("linux/arm/v6", "linux/arm/v6"),
        ("armel", "linux/arm/v6"),
        ("i686", "linux/386"),
        ("linux/amd64/v1", "linux/amd64"),
        ("s390x", "linux/s390x"),
        ("windows/amd64", "windows/amd64"),
    ],
)
def test_platforms(text: str, platform: str) -> None:
    assert parse_platform(text) == platform
    assert parse_platform(platform) == platform


@pytest.mark.parametrize("text", ["", "/", "linux/", "a/b/c/d", "linux/armhf/v6", "li nux/amd64"])
def test_what_is_no_platform(text: str) -> None:
    with pytest.raises(InvalidReference, match="no platform"):
        parse_platform(text)


@given(st.text("abv6478/_. x-", max_size=20))
def test_platforms_have_one_spelling(text: str) -> None:
    try:
        platform = parse_platform(text)
    except InvalidReference:
        return
    assert parse_platform(platform) == platform


@pytest.mark.parametrize(
    ("entry", "platform"),
    [
        ({"os": "linux", "architecture": "amd64"}, "linux/amd64"),
        ({"os": "linux", "architecture": "arm64", "variant": "v8"}, "linux/arm64"),
        ({"os": "linux", "architecture": "arm", "variant": "v6"}, "linux/arm/v6"),
        ({"os": "linux", "architecture": "arm", "variant": None}, "linux/arm/v7"),
        ({"os": "unknown", "architecture": "unknown"}, ""),
        ({"os": "linux"}, ""),
        ({"os": "", "architecture": "amd64"}, ""),
        ({}, ""),
    ],
)
def test_platform_of_an_entry(entry: dict[str, Any], platform: str) -> None:
    assert platform_of(entry) == platform


@pytest.mark.parametrize(
    ("platform", "runs"),
    [
        ("linux/arm/v7", ["linux/arm/v7", "linux/arm/v6", "linux/arm/v5"]),
        ("linux/arm/v5", ["linux/arm/v5"]),
        ("linux/arm/v4", ["linux/arm/v4"]),
        ("linux/amd64", ["linux/amd64"]),
        ("linux/amd64/v3", ["linux/amd64/v3", "linux/amd64/v2", "linux/amd64"]),
        ("linux/arm64", ["linux/arm64"]),
        ("linux/arm64/v9", ["linux/arm64/v9", "linux/arm64"]),
        ("linux/riscv64", ["linux/riscv64"]),
        ("linux/amd64/v99999999999", ["linux/amd64/v99999999999"]),
        ("", [""]),
    ],
)
def test_what_a_machine_runs_best_first(platform: str, runs: list[str]) -> None:
    """As containerd's platformVector has it, within one architecture."""
    assert list(runnable(platform)) == runs


def test_images_are_strings_or_dicts() -> None:
    plain, full = parse_images(
        ["nginx:1", {"name": "app:2", "digest": SHA, "platforms": "arm64", "as": "site/app:2"}]
    )
    assert (plain.key, plain.platforms) == ("docker.io/library/nginx:1", ())
    assert str(plain.destination) == plain.key
    assert full.key == "docker.io/library/app:2"
    assert str(full.reference) == f"docker.io/library/app:2@{SHA}"
    assert full.platforms == ("linux/arm64",)
    assert str(full.destination) == "docker.io/site/app:2"


def test_the_key_of_a_digest_alone_is_the_digest() -> None:
    assert parse_images([f"app@{SHA}"])[0].key == f"docker.io/library/app@{SHA}"


def test_images_keep_their_order_and_stand_once() -> None:
    specs = parse_images(["b:1", "a:1", "docker.io/library/b:1", {"name": "b:1"}])
    assert [spec.key for spec in specs] == ["docker.io/library/b:1", "docker.io/library/a:1"]


def test_platforms_of_the_same_image_are_united() -> None:
    amd64 = {"name": "a:1", "platforms": ["amd64", "x86_64"]}
    arm64 = {"name": "a:1", "platforms": ["arm64"]}
    (spec,) = parse_images([amd64, arm64, amd64])
    assert spec.platforms == ("linux/amd64", "linux/arm64")
    (spec,) = parse_images([amd64, "a:1"])
    assert spec.platforms == ()  # no platforms named: whatever the default is


def test_one_name_with_two_meanings_is_refused() -> None:
    with pytest.raises(InvalidReference, match="twice"):
        parse_images(["a:1", {"name": "a:1", "as": "b:1"}])
    with pytest.raises(InvalidReference, match="twice"):
        parse_images([f"a:1@{SHA}", "a:1"])


@pytest.mark.parametrize(
    "item",
    [None, 5, 1.27, True, [], ["a"], {}, {"nginx": 1.27}, {"name": None}, {"name": 5}]
    + [{"name": "a:1", "tag": "2"}, {"name": "a:1", "digest": "1"}, {"name": "a:1", "digest": 5}]
    + [{"name": "a:1", "platforms": "?"}, {"name": "a:1", "platforms": [5]}]
    + [{"name": "a:1", "platforms": 5}, {"name": "a:1", "as": "B"}, {"name": "a:1", "as": 5}],
)
def test_what_is_no_image_is_refused(item: Any) -> None:
    with pytest.raises(InvalidReference):
        parse_images([item])
