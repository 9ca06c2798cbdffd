# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What Engines say when a pull fails, as those of the test fleet said it."""

from __future__ import annotations

import pytest

from ansible_collections.fleet.images.plugins.module_utils import _pull_words

RESOLVE = 'failed to resolve reference "reg.example:5000/shop/tool:1": '
URL = "reg.example:5000/v2/shop/tool/manifests/1"
HEAD = f"{RESOLVE}unexpected status from HEAD request to http://{URL}: "
DO = f'{RESOLVE}failed to do request: Head "https://{URL}": '
GET = 'Get "https://reg.example:5000/v2/": '
CONFIG = "error pulling image configuration: download failed after attempts=6: "
BLOB = (
    "failed to copy: httpReadSeeker: failed open: unexpected status code"
    " https://reg.example:5000/v2/shop/tool/blobs/sha256:db23: "
)
DNS = "lookup reg.example on 127.0.0.11:53: read udp 127.0.0.1:34805->127.0.0.11:53: i/o timeout"

PASSING = [
    # classic store, Engines 20.10 to 28.5
    "toomanyrequests: slow down",
    "received unexpected HTTP status: 500 Internal Server Error",
    "received unexpected HTTP status: 502 Bad Gateway",
    "received unexpected HTTP status: 503 Service Unavailable",
    "received unexpected HTTP status: 520 ",
    "unexpected EOF",
    f"{CONFIG}toomanyrequests: slow down",
    f"{CONFIG}received unexpected HTTP status: 500 Internal Server Error",
    f"{CONFIG}unexpected EOF",
    f"{GET}dial tcp 10.0.0.1:5000: connect: connection refused",
    f"{GET}dial tcp: {DNS}",
    f"{GET}dial tcp 10.0.0.1:5000: connect: network is unreachable",
    # containerd store, Engines 26.1 and 28.5
    f"{HEAD}429 Too Many Requests",
    f"unknown: {HEAD}429 Too Many Requests",
    f"{HEAD}500 Internal Server Error",
    f"{HEAD}503 Service Unavailable",
    f"{HEAD}520 ",
    f"{DO}EOF",
    f"{DO}dial tcp 10.0.0.1:5000: connect: connection refused",
    f"{DO}dial tcp: {DNS}",
    f"{BLOB}429 Too Many Requests - Server message: toomanyrequests: slow down",
    f"{BLOB}500 Internal Server Error - Server message: unknown: oh",
    "failed to read expected number of bytes: unexpected EOF",
    "short read: expected 1609 bytes but got 804: unexpected EOF",
    "failed to extract layer: Canceled: grpc: the client connection is closing: context canceled",
    "error from registry: slow down",
    "error from registry: You have reached your unauthenticated pull rate limit.",
]
DENIED = (
    "pull access denied for reg.example:5000/shop/tool, repository does not exist or may"
    " require 'docker login': denied: no"
)
NO_MATCH = (
    "no matching manifest for linux/amd64 in the manifest list entries: no match for platform"
    " in manifest: not found"
)
LASTING = [
    ("unauthorized: authentication required", "registry_username"),
    (f"{GET}no basic auth credentials", "docker login reg.example:5000"),
    (DENIED, "registry_username"),
    (f"{CONFIG}denied: no", "registry_username"),
    (
        "manifest for reg.example:5000/shop/tool:1 not found: manifest unknown: manifest unknown",
        "check its name",
    ),
    ("no matching manifest for linux/s390x in the manifest list entries", "this platform"),
    (f"{GET}x509: certificate signed by unknown authority", "certs.d/reg.example:5000/ca.crt"),
    (
        f"{GET}tls: failed to verify certificate: x509: certificate signed by unknown authority",
        "certs.d/reg.example:5000/ca.crt",
    ),
    (f"{GET}http: server gave HTTP response to HTTPS client", "certs.d"),
    (f"{HEAD}401 Unauthorized", "registry_username"),
    (f"unknown: {HEAD}403 Forbidden", "registry_username"),
    (f"{RESOLVE}reg.example:5000/shop/tool:1: not found", "check its name"),
    (f"{BLOB}403 Forbidden - Server message: denied: no", "registry_username"),
    ("no match for platform in manifest: not found", "this platform"),
    (NO_MATCH, "this platform"),
    (f"{DO}http: server gave HTTP response to HTTPS client", "certs.d"),
    (f"{CONFIG}unknown blob", "push it anew"),
    (
        "error pulling image configuration: image config verification failed for digest sha256:e1",
        "is not what that digest names",
    ),
    (
        'failed commit on ref "layer-sha256:e1": commit failed: unexpected commit digest sha256:2e',
        "is not what that digest names",
    ),
    ("error from registry: no, and the registry answers: 401", "registry_username"),
    ("error from registry: no, and the registry answers: 403", "registry_username"),
    ("error from registry: no, and the registry answers: 404", "check its name"),
    ("write /var/lib/docker/tmp/GetImageBlob1: no space left on device", "docker image prune"),
]


@pytest.mark.parametrize("words", PASSING)
def test_what_may_pass_is_tried_again(words: str) -> None:
    assert _pull_words.is_passing(words)


@pytest.mark.parametrize(("words", "step"), LASTING)
def test_what_lasts_is_not_and_names_the_next_step(words: str, step: str) -> None:
    assert not _pull_words.is_passing(words)
    assert step in _pull_words.next_step(words, "reg.example:5000")


@pytest.mark.parametrize("name", ["certificate", "denied", "x509", "unauthorized"])
def test_an_image_may_be_called_like_an_error(name: str) -> None:
    words = f"{HEAD}500 Internal Server Error".replace("tool", name)
    assert _pull_words.is_passing(words)
    assert _pull_words.next_step(words, "r") == _pull_words.next_step("500", "r")
    assert not _pull_words.is_passing(f"{RESOLVE}reg.example/timeout:1: not found")
    assert not _pull_words.is_limited("cannot pull reg.example/toomanyrequests:1: not found")


def test_too_many_requests_are_told_from_other_troubles() -> None:
    limited = [words for words in PASSING if _pull_words.is_limited(words)]
    assert len(limited) == 6
    assert all("mirror (via)" in _pull_words.next_step(words, "r") for words in limited)


@pytest.mark.parametrize(
    ("words", "seconds"),
    [
        ("toomanyrequests: retry-after: 444.53ms, allowed: 50/s", 0.44453),
        ("toomanyrequests: Retry-After: 2s", 2.0),
        ("toomanyrequests: retry-after: 3m", 180.0),
        ("toomanyrequests: slow down", None),
    ],
)
def test_a_wait_in_the_words_is_read(words: str, seconds: float | None) -> None:
    assert _pull_words.told_wait(words) == (seconds and pytest.approx(seconds))


@pytest.mark.parametrize(
    ("words", "kept"),
    [
        ("error from registry: slow down", True),
        ("error from registry: no entry for reg.example/denied:1", True),
        ("error from registry: requested access to the resource is denied", False),
        ("error from registry: You have reached your unauthenticated pull rate limit.", False),
        ("error from registry: no, and the registry answers: 503", False),
        ("unexpected EOF", False),
    ],
)
def test_where_only_the_registry_knows_the_status(words: str, kept: bool) -> None:
    assert _pull_words.keeps_status(words) is kept
