# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Manifests as JSON and as the lock's values: the same there and back, and nothing unchecked."""

from __future__ import annotations

from typing import Any

import pytest
from images import AMD64, ARM64, blob, digest, locked

from ansible_collections.fleet.images.plugins.module_utils._manifest import (
    blob_of,
    descriptor,
    manifest_of,
    platform_image,
)

IMAGE = locked("app:1", ["a", "b"]).on(AMD64)
CONTENT = manifest_of(IMAGE.config, IMAGE.layers)
SETTINGS: dict[str, Any] = {
    "os": "linux",
    "architecture": "amd64",
    "rootfs": {"diff_ids": list(IMAGE.diff_ids)},
}


def test_there_and_back() -> None:
    assert blob_of(descriptor(blob("x", 7))) == blob("x", 7)
    assert platform_image(IMAGE.manifest, CONTENT, SETTINGS) == IMAGE
    assert platform_image(IMAGE.manifest, CONTENT, SETTINGS, ARM64).platform == ARM64


@pytest.mark.parametrize("rootfs", [None, {}, {"diff_ids": None}])
def test_an_image_without_layers(rootfs: Any) -> None:
    content = manifest_of(IMAGE.config, [])
    assert platform_image(IMAGE.manifest, content, {**SETTINGS, "rootfs": rootfs}).layers == ()


@pytest.mark.parametrize(
    ("content", "settings", "said"),
    [
        ({"layers": CONTENT["layers"][:1]}, {}, "its config names 2 layers, its manifest 1"),
        ({"config": {**CONTENT["config"], "digest": "../../x"}}, {}, "is no digest"),
        ({"layers": [{**CONTENT["config"], "digest": "sha256:x"}] * 2}, {}, "is no digest"),
        ({}, {"rootfs": {"diff_ids": [digest("a"), "../x"]}}, "is no digest"),
    ],
)
def test_what_does_not_fit(content: Any, settings: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        platform_image(IMAGE.manifest, {**CONTENT, **content}, {**SETTINGS, **settings})
