# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What buildx tells while it builds: lines of `--progress rawjson`, and its own words."""

from __future__ import annotations

import base64
import json
import tracemalloc
from typing import Any

import pytest
from images import digest

from ansible_collections.fleet.images.plugins.module_utils._progress import Progress

BEGUN, ENDED = "2026-01-01T00:00:00.1Z", "2026-01-01T00:00:01.1Z"


def line(**status: Any) -> bytes:
    """A SolveStatus as `docker buildx build --progress rawjson` writes it."""
    return json.dumps(status).encode() + b"\n"


def vertex(name: str, **more: Any) -> dict[str, Any]:
    return {"digest": digest(name), "name": name, "started": BEGUN, **more}


def log(name: str, text: str | bytes) -> dict[str, Any]:
    content = text.encode() if isinstance(text, str) else text
    data = base64.b64encode(content).decode()
    return {"vertex": digest(name), "stream": 1, "data": data, "timestamp": BEGUN}


def heard(*lines: bytes | str) -> Progress:
    progress = Progress()
    for one in lines:
        progress.feed(one if isinstance(one, bytes) else one.encode())
    return progress


@pytest.mark.parametrize(
    ("name", "platform", "what"),
    [
        ("[1/2] FROM docker.io/library/alpine:3.20", "", "FROM docker.io/library/alpine:3.20"),
        ("[2/2] RUN make", "", "RUN make"),
        ("[builder 2/5] RUN make", "", "RUN make"),
        ("[my-stage.1 2/5] RUN make", "", "RUN make"),
        ("[stage-1 2/5] RUN echo [3/4] x", "", "RUN echo [3/4] x"),
        # Numbers below ten stand under those above.
        ("[ 2/10] RUN make", "", "RUN make"),
        ("[builder  2/10] RUN make", "", "RUN make"),
        ("[linux/amd64  2/10] RUN make", "linux/amd64", "RUN make"),
        ("[linux/arm64 builder  9/12] COPY . .", "linux/arm64", "COPY . ."),
        ("[linux/arm64 2/5] RUN make", "linux/arm64", "RUN make"),
        ("[linux/arm/v7 builder 2/5] RUN make", "linux/arm/v7", "RUN make"),
        ("[linux/s390x 2/5] RUN make", "linux/s390x", "RUN make"),
        # One that runs on the builder's platform for another.
        ("[linux/amd64->arm64 builder 2/5] RUN make", "linux/arm64", "RUN make"),
        ("[linux/amd64->arm/v7 2/5] RUN make", "linux/arm/v7", "RUN make"),
        ("[linux/amd64->windows/amd64 2/5] RUN make", "windows/amd64", "RUN make"),
        ("[linux/amd64 2/5] RUN <<EOF (a...)\nb\nEOF", "linux/amd64", "RUN <<EOF (a...)\nb\nEOF"),
    ],
)
def test_steps_of_the_dockerfile(name: str, platform: str, what: str) -> None:
    progress = heard(line(vertexes=[vertex(name)]))
    (step,) = progress.instructions
    assert (step.platform, step.name, step.is_cached) == (platform, what, False)


@pytest.mark.parametrize(
    "name",
    [
        "[internal] load build definition from Dockerfile",
        "[linux/arm64 internal] load metadata for docker.io/library/alpine:3.20",
        "[internal] load build context",
        "[auth] library/alpine:pull token for registry-1.docker.io",
        "[context app] load from client",
        "[context 1/2] load from client",
        "exporting to image",
        "resolve image config for docker-image://docker.io/docker/dockerfile:1",
        "",
    ],
)
def test_steps_of_buildx_itself(name: str) -> None:
    progress = heard(line(vertexes=[vertex(name, cached=True)]))
    if name != "[context 1/2] load from client":
        assert progress.instructions == [] and progress.cached == 0


def test_cached_steps() -> None:
    progress = heard(
        line(vertexes=[vertex("[1/3] FROM a"), vertex("[2/3] RUN b")]),
        line(vertexes=[vertex("[1/3] FROM a", completed=ENDED, cached=True)]),
        line(vertexes=[vertex("[2/3] RUN b", completed=ENDED, cached=True)]),
        line(vertexes=[vertex("[2/3] RUN b", completed=ENDED)]),
        line(vertexes=[vertex("[3/3] RUN c", completed=ENDED)]),
    )
    assert len(progress.instructions) == 3 and progress.cached == 2
    assert progress.failed is None and progress.running == []


def test_what_is_running() -> None:
    progress = heard(
        line(vertexes=[vertex("[1/2] FROM a"), vertex("exporting"), vertex("[2/2] RUN b")]),
        line(vertexes=[vertex("[1/2] FROM a", completed=ENDED)]),
        line(vertexes=[{"digest": digest("later"), "name": "later"}]),
    )
    assert progress.running == ["exporting", "RUN b"]


FAILED = 'process "/bin/sh -c make" did not complete successfully: exit code: 2'
AMD64, ARM64 = "[linux/amd64 2/3] RUN make", "[linux/arm64 2/3] RUN make"


@pytest.mark.parametrize("canceled", ["context canceled", "Canceled: context canceled: context"])
@pytest.mark.parametrize("first", [True, False])
def test_a_step_that_fails_on_one_platform(canceled: str, first: bool) -> None:
    ends = [
        vertex(AMD64, completed=ENDED, error=canceled),
        vertex("[internal] load build context", completed=ENDED, error=canceled),
        vertex(ARM64, completed=ENDED, error=FAILED),
    ]
    progress = heard(
        line(vertexes=[vertex(AMD64), vertex(ARM64)]),
        line(logs=[log(AMD64, "all is well\n"), log(ARM64, "make: *** no rule\n")]),
        *(line(vertexes=[one]) for one in (ends if first else reversed(ends))),
    )
    step = progress.failed
    assert step is not None and step.error == FAILED and step.is_instruction
    assert step.as_result() == {
        "name": "RUN make",
        "platform": "linux/arm64",
        "lines": ["make: *** no rule"],
    }


def test_a_build_that_was_called_off_has_no_step_that_failed() -> None:
    assert heard(line(vertexes=[vertex(AMD64, error="context canceled")])).failed is None


def test_a_failure_of_buildx_itself() -> None:
    name = "[internal] load metadata for docker.io/library/none:1"
    step = heard(line(vertexes=[vertex(name, error="none:1: not found")])).failed
    assert step is not None and not step.is_instruction and step.name == name


# lines of steps


def lines_of(*texts: str | bytes) -> list[str]:
    progress = heard(
        line(vertexes=[vertex(AMD64)]),
        *(line(logs=[log(AMD64, text)]) for text in texts),
        line(vertexes=[vertex(AMD64, error=FAILED)]),
    )
    assert progress.failed is not None
    assert progress.failed.as_result() == progress.failed.as_result()
    return list(progress.failed.lines)


@pytest.mark.parametrize(
    ("texts", "lines"),
    [
        (["a\nb\n"], ["a", "b"]),
        (["a", "b\nc", "\n"], ["ab", "c"]),
        (["a\r\nb\r\n"], ["a", "b"]),
        (["a\n", "the last one has no end"], ["a", "the last one has no end"]),
        (["a\n\n", "b\n"], ["a", "", "b"]),
        ([], []),
        (["gr\u00fc\u00dfe\n"], ["gr\u00fc\u00dfe"]),
        ([b"\xff\xfe\n"], ["\ufffd\ufffd"]),
        # A character that two messages share.
        (["gr\u00fc".encode()[:3], "\u00fc".encode()[1:] + b"n\n"], ["gr\u00fcn"]),
        ([f"{number}\n" for number in range(30)], [str(number) for number in range(10, 30)]),
        (["x" * 3000 + "\n"], ["x" * 1000]),
        (["x" * 3000, "y" * 3000], ["x" * 1000]),
    ],
)
def test_lines_of_a_step(texts: list[str | bytes], lines: list[str]) -> None:
    assert lines_of(*texts) == lines


def test_steps_do_not_mix_their_lines() -> None:
    progress = heard(
        line(vertexes=[vertex(AMD64), vertex(ARM64)]),
        line(logs=[log(AMD64, "a"), log(ARM64, "b"), log(AMD64, "a\n"), log(ARM64, "b\n")]),
        line(vertexes=[vertex(ARM64, error=FAILED)]),
    )
    assert progress.failed is not None and list(progress.failed.lines) == ["bb"]


def test_lines_of_a_step_that_nobody_knows() -> None:
    broken = {"vertex": digest(AMD64), "data": "no base64!"}
    progress = heard(
        line(logs=[log("x", "y\n")]), line(vertexes=[vertex(AMD64)]), line(logs=[broken])
    )
    assert [list(step.lines) for step in progress.instructions] == [[]]


# its own words


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ([], ""),
        (["ERROR: failed to build: failed to solve: x: not found"], "x: not found"),
        (["ERROR: failed to solve: x"], "x"),
        (["ERROR: no builder \"b\" found"], 'no builder "b" found'),
        (["WARNING: old", "ERROR: x", "", "View build details: docker-desktop://x"], "x"),
        (["Dockerfile:2", "----", "   2 | >>> RUN x", "----", "ERROR: failed to build: y"], "y"),
        (["something else\r\n"], "something else"),
        (["ERROR: first", "ERROR: second"], "second"),
        (["{ no json", "[1]"], "[1]"),
        (["{}"], ""),
        (["x" * 3000], "x" * 1000),
    ],
)  # fmt: skip
def test_the_words_of_buildx(words: list[str], error: str) -> None:
    steps = line(vertexes=[vertex(AMD64, error=FAILED)])
    assert heard(steps, *words).error == error


@pytest.mark.parametrize(
    "odd",
    [
        b"\xff\xfe\n", b"null\n", b"{}\n", b"7\n", b"\n", b'{"vertexes": null, "logs": null}\n',
        b'{"vertexes": [{}], "logs": [{}]}\n', b'{"statuses": [{"id": "x"}], "warnings": []}\n',
    ],
)  # fmt: skip
def test_odd_lines_are_no_steps_of_the_dockerfile(odd: bytes) -> None:
    progress = heard(odd)
    assert progress.instructions == [] and progress.failed is None


def test_memory_does_not_grow_with_what_is_told() -> None:
    progress = heard(line(vertexes=[vertex(AMD64)]))
    some = line(logs=[log(AMD64, "x" * 60_000)])
    tracemalloc.start()
    for _time in range(200):
        progress.feed(some)
        progress.feed(b"words\n")
    _now, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2 << 20
