# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a Dockerfile builds on, in every way that it can be written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.fleet.images.plugins.module_utils._dockerfile import (
    InvalidDockerfile,
    Outside,
    fill,
    parse,
)

SHA = "a" * 40


@pytest.mark.parametrize(
    ("text", "images"),
    [
        ("FROM alpine:3.20", ["alpine:3.20"]),
        ("from alpine:3.20 as Base\nFrom base", ["alpine:3.20"]),
        ("\ufeffFROM\talpine \r\nRUN true\r\n", ["alpine"]),
        ("# a comment\n\n  FROM alpine\n", ["alpine"]),
        ("FROM --platform=$BUILDPLATFORM alpine AS a\nFROM scratch\nCOPY --from=a / /", ["alpine"]),
        ("FROM scratch", []),
        ("FROM a AS x\nFROM b AS y", ["b"]),
        ("FROM a AS x\nFROM b AS y\nFROM x", ["a"]),
        # A stage may have the name of the image that it builds on.
        ("FROM alpine AS alpine\nRUN true", ["alpine"]),
        ("FROM nginx AS nginx\nFROM nginx", ["nginx"]),
        ("FROM a AS x\nFROM x AS x\nFROM x", ["a"]),
        # A name of a later stage is no stage for FROM.
        ("FROM x AS y\nFROM y AS x", ["x"]),
        # COPY and RUN take from stages, by name or number, and from images.
        ("FROM a AS x\nFROM b\nCOPY --from=x /f /f", ["a", "b"]),
        ("FROM a AS x\nFROM b\nCOPY --from=X /f /f", ["a", "b"]),
        ("FROM a\nFROM b\nFROM c\nCOPY --from=0 /f /f", ["a", "c"]),
        ("FROM a\nFROM b\nCOPY --chown=1:1 --link --from=tool:1 /f /f", ["b", "tool:1"]),
        ("FROM b\nCOPY --from=0 /f /f\nCOPY --from=7 /f /f", ["b", "7"]),
        ("FROM b\nCOPY . --from=no", ["b"]),
        ("FROM a AS x\nFROM b\nRUN --mount=type=bind,from=x,target=/x ls", ["a", "b"]),
        ("FROM b\nRUN --mount=from=tool --mount=target=/c,from=1:2 ls", ["b", "tool", "1:2"]),
        ('FROM b\nRUN --network=none --mount=source="a b",from=tool ls', ["b", "tool"]),
        ("FROM b\nRUN echo --mount=from=no", ["b"]),
        ("FROM b\nCOPY --from=late / /\nFROM c AS late", ["c"]),
        ("FROM b AS b\nCOPY --from=late / /\nFROM c AS late\nFROM b", ["b", "c"]),
        ("FROM b\nONBUILD COPY --from=tool / /", ["b"]),
        # Continued lines, with comments and empty lines between.
        ("FROM \\\n  alpine", ["alpine"]),
        ("FR\\\nOM alp\\\nine", ["alpine"]),
        ("FROM b\nCOPY \\\n# why\n\n  --from=tool \\\n  / /\nRUN x", ["b", "tool"]),
        ("FROM b\nRUN echo \\ \t\n  a\nCOPY --from=tool / /", ["b", "tool"]),
        ("FROM b\nRUN echo \\\\\nCOPY --from=tool / /", ["b", "tool"]),
        ("FROM b\nRUN x \\", ["b"]),
        ("FROM b\n\\", ["b"]),
        ("# escape=`\nFROM `\nb\nRUN dir c:\\\nCOPY --from=tool / /", ["b", "tool"]),
        # Here-documents hold no instructions.
        ("FROM b\nRUN <<EOF\nFROM no\nEOF\nCOPY --from=tool / /", ["b", "tool"]),
        ("FROM b\nRUN <<-'EOF' cat\n\tFROM no\n\tEOF\nCOPY --from=tool / /", ["b", "tool"]),
        ('FROM b\nRUN <<"A B"\nFROM no\nA B\nCOPY --from=tool / /', ["b", "tool"]),
        ("FROM b\nCOPY <<END-OF-FILE /f\nFROM no\nEND\nEND-OF-FILE\nFROM c", ["c"]),
        ("FROM b\nCOPY <<a.txt <<b.txt /d/\nFROM no\na.txt\nFROM no\nb.txt\nFROM c", ["c"]),
        ("FROM b\nRUN 3<<EOF cat\nFROM no\nEOF\nFROM c", ["c"]),
        ("FROM b\nADD <<EOF /f\nFROM no\n EOF\nEOF\nFROM c", ["c"]),
        ("FROM b\nONBUILD RUN <<EOF\nFROM no\nEOF\nFROM c", ["c"]),
        # What only looks like one.
        ('FROM b\nRUN echo "a <<EOF"\nFROM c', ["c"]),
        ("FROM b\nRUN cat <<<EOF\nFROM c", ["c"]),
        ("FROM b\nRUN echo $((1 <<two))\nFROM c", ["c"]),
        ("FROM b\nLABEL a=<<EOF\nFROM c", ["c"]),
        ("FROM b\nRUN a; b <<x | c\nFROM c", ["c"]),
        # Separators of lines other than the newline are none here.
        ("FROM b\nRUN echo a\x0cFROM no\u2028FROM no", ["b"]),
    ],
)  # fmt: skip
def test_what_it_builds_on(text: str, images: list[str]) -> None:
    assert sorted(parse(text).bases()) == sorted(images)


@pytest.mark.parametrize(
    ("head", "given", "images"),
    [
        ("ARG V=3.20\nFROM alpine:$V", {}, ["alpine:3.20"]),
        ("ARG V=3.20\nFROM alpine:${V}", {"V": "3.21"}, ["alpine:3.21"]),
        ("ARG V\nFROM alpine:${V:-1}", {}, ["alpine:1"]),
        ("ARG V=\nFROM alpine:${V:-1}", {}, ["alpine:1"]),
        ("ARG V=\nFROM alpine${V-:1}", {}, ["alpine"]),
        ("ARG V\nFROM alpine${V-:1}", {}, ["alpine:1"]),
        ("ARG V=x\nFROM alpine${V:+-slim}", {}, ["alpine-slim"]),
        ("ARG V\nFROM alpine${V:+-slim}", {}, ["alpine"]),
        ("ARG V=\nFROM alpine${V+-slim}", {}, ["alpine-slim"]),
        ("ARG A=1 B=\"2\" C='3'\nFROM x:$A-$B-$C", {}, ["x:1-2-3"]),
        ("ARG A=1\nARG B=$A.2\nFROM x:$B", {"A": "5"}, ["x:5.2"]),
        ("ARG V=1\nFROM ${BASE:-x:${V}}", {}, ["x:1"]),
        ("ARG V=1\nARG BASE\nFROM ${BASE:-x:${V:-${W}}}", {"BASE": "y"}, ["y"]),
        # Only what stands before the first FROM counts there.
        ("FROM b AS one\nARG V=2\nFROM x:$V", {"V": "3"}, ["x:"]),
        ("FROM x${V}", {"V": "3"}, ["x"]),
        ("ARG A=${A}x\nFROM b:$A", {"A": "${A}"}, ["b:${A}"]),
        ("ARG STAGE=two\nFROM a AS one\nFROM b AS two\nFROM ${STAGE}", {"STAGE": "one"}, ["a"]),
    ],
)
def test_variables(head: str, given: dict[str, str], images: list[str]) -> None:
    assert parse(head).bases(given) == images


@pytest.mark.parametrize(
    ("head", "images"),
    [
        ("FROM x-$TARGETARCH", ["x-amd64", "x-arm"]),
        ("FROM x:$TARGETOS-${TARGETARCH}$TARGETVARIANT", ["x:linux-amd64", "x:linux-armv7"]),
        ("FROM x:$BUILDARCH", ["x:arm64"]),
        ("ARG TARGETARCH\nFROM x-$TARGETARCH", ["x-amd64", "x-arm"]),
        ("ARG BASE=x-$TARGETARCH\nFROM $BASE", ["x-amd64", "x-arm"]),
        ("FROM a AS base-amd64\nFROM b AS base-arm\nFROM base-$TARGETARCH", ["a", "b"]),
        ("FROM a AS base-amd64\nFROM b AS base-s390x\nFROM base-$TARGETARCH", ["a", "base-arm"]),
    ],
)
def test_variables_of_platforms(head: str, images: list[str]) -> None:
    platforms = ["linux/amd64", "linux/arm/v7"]
    assert parse(head).outside("", {}, platforms, "linux/arm64").images == images


def test_without_platforms_the_builders_own_counts() -> None:
    assert parse("FROM x-$TARGETARCH").outside(native="linux/arm64").images == ["x-arm64"]


STAGES = "FROM a AS one\nFROM b AS Two\nFROM one AS three\nCOPY --from=Two / /\nFROM c"


@pytest.mark.parametrize(
    ("target", "images"),
    [
        ("", ["c"]),
        ("one", ["a"]),
        ("ONE", ["a"]),
        ("two", ["b"]),
        ("three", ["a", "b"]),
        ("0", ["a"]),
        ("3", ["c"]),
    ],
)
def test_only_what_the_target_needs(target: str, images: list[str]) -> None:
    assert parse(STAGES).bases(target=target) == images


@pytest.mark.parametrize("target", ["four", "4", "-1", "\u00b2"])
def test_a_target_that_is_none(target: str) -> None:
    with pytest.raises(InvalidDockerfile, match=r"which has one, two, three; choose one"):
        parse(STAGES).outside(target)


@pytest.mark.parametrize("text", ["", "# nothing\n", "RUN true\n", "ARG A=1\n"])
def test_without_a_from(text: str) -> None:
    with pytest.raises(InvalidDockerfile, match="wanted a FROM"):
        parse(text).outside()


@pytest.mark.parametrize(
    ("text", "syntax"),
    [
        ("# syntax=docker/dockerfile:1\nFROM b", "docker/dockerfile:1"),
        ("#syntax = docker/dockerfile:1 more \nFROM b", "docker/dockerfile:1"),
        ("# escape=`\n# Syntax=x:1\nFROM b", "x:1"),
        ("# check=skip=all\n# syntax=x:1\nFROM b", "x:1"),
        ("# a comment\n# syntax=x:1\nFROM b", ""),
        ("\n# syntax=x:1\nFROM b", ""),
        ("# unknown=1\n# syntax=x:1\nFROM b", ""),
        ("FROM b\n# syntax=x:1", ""),
    ],
)
def test_the_frontend(text: str, syntax: str) -> None:
    assert parse(text).syntax == syntax
    assert parse(text).bases() == (["b", syntax] if syntax else ["b"])


def test_an_argument_names_another_frontend() -> None:
    found = parse("# syntax=x:1\nFROM b").bases({"BUILDKIT_SYNTAX": "y:2 more"})
    assert found == ["b", "y:2"]


@pytest.mark.parametrize(
    ("contexts", "images"),
    [
        ([], ["alpine", "docker.io/library/nginx:latest", "tool:1"]),
        (["alpine"], ["docker.io/library/nginx:latest", "tool:1"]),
        (["nginx"], ["alpine", "tool:1"]),
        (["docker.io/library/alpine:latest"], ["docker.io/library/nginx:latest", "tool:1"]),
        (["tool"], ["alpine", "docker.io/library/nginx:latest", "tool:1"]),
        (["tool:1"], ["alpine", "docker.io/library/nginx:latest"]),
        # One may stand for a stage, which is not built then.
        (["Base"], ["docker.io/library/nginx:latest", "tool:1"]),
    ],
)
def test_build_contexts_are_no_images(contexts: list[str], images: list[str]) -> None:
    text = (
        "FROM alpine AS base\nFROM docker.io/library/nginx:latest\nCOPY --from=base / /\n"
        "RUN --mount=from=tool:1 ls"
    )
    assert parse(text).outside(contexts=contexts).images == images


@pytest.mark.parametrize(
    ("lines", "remotes"),
    [
        ("ADD https://h/x /x", ["https://h/x"]),
        ("ADD --chmod=1 a http://h/x git@h:x.git ssh://h/x git://h/x /d/",
         ["http://h/x", "git@h:x.git", "ssh://h/x", "git://h/x"]),
        ('ADD ["https://h/x", "https://h/y", "/d/"]', ["https://h/x", "https://h/y"]),
        (f"ADD --checksum=sha256:{'b' * 64} https://h/x /x", []),
        (f"ADD https://h/x.git#{SHA} /x", []),
        (f"ADD https://h/x.git#{SHA}:dir /x", []),
        ("ADD https://h/x.git#main /x", ["https://h/x.git#main"]),
        ("ADD a.tar /x", []),
        ("ADD a https://h/x", []),
        ("COPY https://h/x /x", []),
        # Where a variable has the address.
        ("ARG URL=https://h/x\nADD $URL /x", ["https://h/x"]),
        ("ARG URL\nADD $URL /x", []),
        ("ARG GIVEN=a\nADD ${GIVEN}/f /x", ["https://given/f"]),
        ("ARG GIVEN\nADD ${GIVEN}/f /x", ["https://given/f"]),
        ("ARG TOP\nADD $TOP /x", ["https://top"]),
        ("ENV HOST=https://h DIR=d\nENV URL=$HOST/$DIR\nADD $URL /x", ["https://h/d"]),
        ("ENV DIR d\nADD $DIR/a /x", []),
    ],
)  # fmt: skip
def test_what_is_fetched_without_a_checksum(lines: str, remotes: list[str]) -> None:
    text = f"ARG TOP=https://top\nFROM b AS unused\nADD https://no /x\nFROM b\n{lines}"
    found = parse(text).outside("", {"GIVEN": "https://given"})
    assert found == Outside(["b"], remotes)


@given(st.text("FROMAS RUNCOPY<<E-\"'\\$#={}:/\n\t", max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    found = parse(f"FROM b\n{text}")
    assert all(isinstance(one, str) for one in found.bases())


@given(
    st.text("${}ab:-+", max_size=20),
    st.dictionaries(st.sampled_from("ab"), st.text("ab$", max_size=3)),
)
def test_filling_comes_to_an_end(text: str, known: dict[str, str]) -> None:
    assert isinstance(fill(text, known), str)
