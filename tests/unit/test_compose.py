# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The images of a compose file: rather too many than too few."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.fleet.images.plugins.module_utils._compose import compose_images
from ansible_collections.fleet.images.plugins.module_utils._patterns import pattern

yaml = pytest.importorskip("yaml")  # which hosts lack, and here tells what is right

NGINX = "docker.io/library/nginx:1"
DIGEST = f"sha256:{'ab' * 32}"
KNOWN = {"TAG": "7", "EMPTY": "", "REGISTRY": "registry.example"}

COMPOSE = """\
# image: commented:1
x-base: &base
  image: &proxy "nginx:1"
services:
  web:
    <<: *base
  db:
    image: postgres:16-alpine   # image: other:1
    command: [sh, -c, "echo it's #1"]
  cache: {image: redis, ports: ["6379:6379"]}
  again:
    image: *proxy
  "job":
    'image': 'registry.example/shop/job:2'
    environment:
      my-image: not:1
      image_name: not:2
      IMAGE: not:3
    build: .
  list:
    - image: busybox:1
    -   image: >-
          alpine:3
    - image:
        debian
"""


def test_a_compose_file() -> None:
    assert compose_images(COMPOSE) == [
        NGINX,
        "docker.io/library/postgres:16-alpine",
        "docker.io/library/redis:latest",
        "registry.example/shop/job:2",
        "docker.io/library/busybox:1",
        "docker.io/library/alpine:3",
        "docker.io/library/debian:latest",
    ]
    assert compose_images(COMPOSE.replace("\n", "\r\n")) == compose_images(COMPOSE)


def test_json() -> None:
    found: Any = {
        "services": {"web": {"image": "nginx:1"}, "a": [{"image": "redis:$TAG"}], "image": 7}
    }
    for text in (json.dumps(found), json.dumps(found, indent=2)):
        assert compose_images(text, KNOWN) == [NGINX, "docker.io/library/redis:7"]
    # With what JSON has not, it is read line by line.
    del found["services"]["image"]
    assert compose_images(f"{json.dumps(found)} # comment") == [NGINX, "redis:*"]


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("nginx", "docker.io/library/nginx:latest"),
        ("nginx:1", NGINX),
        ('"nginx:1"', NGINX),
        ("'nginx:1'", NGINX),
        ("'nginx:1' # why", NGINX),
        ("nginx:1\t# why", NGINX),
        ("!!str nginx:1", NGINX),
        ("&it nginx:1", NGINX),
        ("registry.example:5000/app", "registry.example:5000/app:latest"),
        (f"nginx@{DIGEST}", f"docker.io/library/nginx@{DIGEST}"),
        (f"nginx:1@{DIGEST}", f"{NGINX}@{DIGEST}"),
        (DIGEST, DIGEST),
        ("0123456789ab", "0123456789ab"),
        ("*unknown", "*"),
        # variables
        ("app:${TAG}", "docker.io/library/app:7"),
        ("app:$TAG", "docker.io/library/app:7"),
        ("app:$TAG-alpine", "docker.io/library/app:7-alpine"),
        ("app:${TAG:-1}", "docker.io/library/app:7"),
        ("app:${TAG-1}", "docker.io/library/app:7"),
        ("app:${TAG:?no tag}", "docker.io/library/app:7"),
        ('"app:${TAG:?no tag}"', "docker.io/library/app:7"),
        ("app:${TAG:+x}", "docker.io/library/app:x"),
        ("app:${NONE}", "app:*"),
        ("app:$NONE", "app:*"),
        ("app:${NONE:-1}", "docker.io/library/app:1"),
        ("app:${NONE-1}", "docker.io/library/app:1"),
        ("app:${NONE:-${TAG}}", "docker.io/library/app:7"),
        ("app:${NONE:-${ALSO:-2}}-x", "docker.io/library/app:2-x"),
        ("{image: 'app:1'}", None),
        ("app${NONE:-}", "docker.io/library/app:latest"),
        ("app:${NONE:?no tag}", "app:*"),
        ("app:${NONE?no}", "app:*"),
        ("app:${NONE:+x}", "app:*"),
        ("app:${NONE+x}", "app:*"),
        ("app:${EMPTY}", "app:*"),
        ("app:$EMPTY", "app:*"),
        ("app:${EMPTY:-1}", "docker.io/library/app:1"),
        ("app:${EMPTY-1}", "app:*"),
        ("app:${9}", "app:*"),
        ("app:${TAG/7/8}", "app:*"),
        ("app:${TAG", "docker.io/library/app:7"),
        ("app:$", "app:*"),
        ("app:$-1", "app:*-1"),
        ("${REGISTRY}/app:1", "registry.example/app:1"),
        ("${NONE}/app:1", "*/app:1"),
        ("${NONE}/app", "*/app:latest"),
        ("${NONE}app:1", "*app:1"),
        ("app${NONE}", "app*"),
        ("${NONE}", "*"),
        (f"${{NONE}}/app@{DIGEST}", f"*/app@{DIGEST}"),
        # no images
        ("Not Good", None),
        ("App", None),
        ("$$TAG", None),
        ("", None),
        ("{name: nginx}", None),
        ("[nginx]", None),
    ],
)
def test_values(value: str, found: str | None) -> None:
    expected = [] if found is None else [found]
    if value == "{image: 'app:1'}":
        expected = ["docker.io/library/app:1"]
    assert compose_images(f"services:\n  a:\n    image: {value}\n", KNOWN) == expected
    assert compose_images(f"- image: {value}", KNOWN) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "image:\n",
        "image:\nname: nginx",
        "a:\n  image:\n    name: nginx",
        "a:\n  image:\n    - nginx",
        "a:\n  image:\n  nginx",
        "# image: nginx",
        "a: b # image: nginx",
        "a: 'b' # {image: nginx}",
        "a: it's # {image: nginx}",
        "images: nginx",
        "my-image: nginx",
        "a image: nginx",
        "[]",
        "7",
        '"image"',
    ],
)
def test_nothing(text: str) -> None:
    assert compose_images(text) == []


def test_between_braces() -> None:
    text = "{a: {image: app:${NONE:-1}}, b: {x: 1,'image': \"app:2\" }, c: {image: app:3, d: e}}"
    assert compose_images(text) == [f"docker.io/library/app:{tag}" for tag in "123"]
    assert compose_images("{a: {image: app:$NONE, b: c}, d: e}") == ["app:*"]
    assert compose_images("{a: 'b # c', image: app:4}") == ["docker.io/library/app:4"]
    assert compose_images('a: {"image":"app:4"}') == ["docker.io/library/app:4"]


def test_an_alias_before_its_anchor_is_found_and_a_mapping_is_not() -> None:
    assert compose_images("a:\n  image: *it\nb: &it nginx:1") == [NGINX]
    assert compose_images("a: {image: *it, b: c}\nb: &it 'nginx:1'") == [NGINX]
    assert compose_images("b: &it\n  c: d\na:\n  image: *it") == ["*"]


NAMES = st.from_regex(r"[a-z]{1,5}(/[a-z]{1,5})?:[0-9]{1,3}", fullmatch=True)


@given(st.lists(NAMES, max_size=5), st.booleans())
def test_what_a_yaml_library_writes(names: list[str], flow: bool) -> None:
    services = {f"service{number}": {"image": name} for number, name in enumerate(names)}
    text = yaml.safe_dump({"services": services}, default_flow_style=flow)
    expected = [str(pattern(name).wanted.reference) for name in names]
    assert compose_images(text) == list(dict.fromkeys(expected))


@given(st.text() | st.text("image: ${}'\"&*#|>-\n[],"))
def test_whatever_the_text_the_patterns_are_patterns(text: str) -> None:
    for content in (text, f"image: {text}", f"image:\n  {text}"):
        for found in compose_images(content, KNOWN):
            pattern(found)
