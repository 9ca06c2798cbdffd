# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What an Engine says when a pull fails: whether it may pass, and what to do about it.

An Engine tells of a registry's answer in words only, which differ by its age and image store; the
words of the registry itself are in them.
"""

from __future__ import annotations

import re

# These never pass, whatever else the words say (a refusal may name a URL with "timeout" in it).
_LASTING = re.compile(
    r"unauthorized|authentication required|no basic auth|denied|: 40[134]\b|forbidden"
    r"|manifest unknown|not found|no matching manifest|no match for platform|does not provide"
    r"|x509|certificate|no space left|server gave http response|invalid reference",
    re.IGNORECASE,
)
_PASSING = re.compile(
    r"too ?many ?requests|: 429\b|unexpected http status: 5\d\d|: 5\d\d\b|timeout|timed out"
    r"|deadline exceeded|connection (?:refused|reset|closed|aborted)|broken pipe|\bEOF\b"
    r"|no route to host|network is unreachable|temporary failure|no such host|server misbehaving"
    r"|failed size validation|http2: |internal server error|service unavailable|bad gateway"
    r"|remote (?:end closed|error)|short read|unavailable|rate limit"
    # An Engine that ends, or whose containerd does.
    r"|context canceled|client connection is closing"
    r"|error from registry:",
    re.IGNORECASE,
)
_LIMITED = re.compile(r"too ?many ?requests|: 429\b|rate limit", re.IGNORECASE)
# Engine 28 with the containerd store tells of a blob that was refused with this and the registry's
# own words: no status, be it 401, 403, 429 or 5xx.
_BARE = re.compile(r"error from registry:", re.IGNORECASE)
# References and URLs: an image may be called "certificate" or "timeout".
_NAMES = re.compile(r"""\S*/\S*?(?=["':,;]*(?:\s|$))""")
# Some registries put into the text what the header Retry-After is for (a duration of Go).
_AFTER = re.compile(r"retry-after: (\d+(?:\.\d+)?)(ms|µs|us|ns|s|m)\b", re.IGNORECASE)
_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0}

_STEPS = (
    (
        r"too ?many ?requests|: 429\b|rate limit",
        "pull later, fewer images at once (parallel), or through a mirror (via)",
    ),
    (
        r"unauthorized|authentication required|no basic auth|denied|forbidden|: 40[13]\b",
        "give registry_username and registry_password, or run docker login {registry} on the host",
    ),
    (
        r"x509|certificate|server gave http response",
        "have the Engine trust it (/etc/docker/certs.d/{registry}/ca.crt)",
    ),
    (r"no space left", "free some of the disk of the Engine (docker image prune)"),
    (
        r"no matching manifest|no match for platform|does not provide",
        "choose an image that has this platform",
    ),
    (
        r"verification failed|unexpected commit digest",
        "have the registry mended: what it serves is not what that digest names",
    ),
    (r"unknown blob", "the registry lacks a part of the image; push it anew"),
    (r"manifest unknown|not found|: 404\b", "check its name, tag and digest"),
)


def is_passing(words: str) -> bool:
    """Whether the same pull may succeed later: 429, 5xx and what happens to connections.

    Never a refusal, an unknown name, a certificate or a full disk.
    """
    words = _NAMES.sub("", words)
    return bool(_PASSING.search(words)) and not _LASTING.search(words)


def is_limited(words: str) -> bool:
    """Whether the registry asks for fewer requests (429, RFC 6585, section 4)."""
    return bool(_LIMITED.search(_NAMES.sub("", words)))


def keeps_status(words: str) -> bool:
    """Whether only the registry itself can tell if that may pass."""
    words = _NAMES.sub("", words)
    rest = _BARE.sub("", words)
    return rest != words and not _LASTING.search(words) and not _PASSING.search(rest)


def told_wait(words: str) -> float | None:
    """The seconds to wait that the words tell of; None where they do not."""
    found = _AFTER.search(words)
    return float(found[1]) * _UNITS[found[2].lower()] if found else None


def next_step(words: str, registry: str) -> str:
    """What a user does about it, the end of a sentence; `registry`: its host and port."""
    words = _NAMES.sub("", words)
    for pattern, step in _STEPS:
        if re.search(pattern, words, re.IGNORECASE):
            return step.format(registry=registry)
    return "run it again, layers that came are kept"
