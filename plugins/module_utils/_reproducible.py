# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether two builds of the same gave the same, and which layers differ. Pure: no I/O."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ansible_collections.fleet.images.plugins.module_utils._reference import platform_of


@dataclass(frozen=True)
class Content:
    """One platform's image: its manifest, and for each layer its diff ID and what made it."""

    manifest: str
    layers: tuple[tuple[str, str], ...]


def contents(digest: str, read: Callable[[str], bytes]) -> dict[str, Content]:
    """The images by platform behind an index or manifest; `read` gives documents by digest."""
    document = json.loads(read(digest))
    manifests = [
        str(one["digest"])
        for one in document.get("manifests", ())
        if platform_of(one.get("platform") or {})
    ]
    found = {}
    for manifest in manifests or [digest]:
        config = json.loads(read(json.loads(read(manifest))["config"]["digest"]))
        made = [
            one.get("created_by", "") for one in config["history"] if not one.get("empty_layer")
        ]
        diff_ids = [str(one) for one in config["rootfs"]["diff_ids"]]
        made += [""] * (len(diff_ids) - len(made))
        found[platform_of(config)] = Content(manifest, tuple(zip(diff_ids, made)))
    return found


def compare(
    first: Mapping[str, Content], second: Mapping[str, Content]
) -> dict[str, dict[str, Any]]:
    """Per platform: `reproducible`, and the `layers` that differ, with what made them.

    Layers are counted from 0, the lowest. Where all layers are the same and the manifests are not,
    it is the config that differs, most often by its times.
    """
    told = {}
    for platform in sorted({*first, *second}):
        one, other = first.get(platform), second.get(platform)
        if one is None or other is None:
            told[platform] = {"reproducible": False, "layers": []}
            continue
        # Of two builds, one may have more layers than the other.
        pairs = enumerate(itertools.zip_longest(one.layers, other.layers, fillvalue=("", "")))
        layers = [
            {"number": number, "created_by": mine[1] or its[1], "diff_ids": [mine[0], its[0]]}
            for number, (mine, its) in pairs
            if mine[0] != its[0]
        ]
        told[platform] = {"reproducible": one.manifest == other.manifest, "layers": layers}
    return told


def sentence(told: Mapping[str, Mapping[str, Any]]) -> str:
    """What differs, in words; '' where nothing does."""
    parts = []
    for platform, one in told.items():
        if one["reproducible"]:
            continue
        layers = [f"layer {layer['number']} ({layer['created_by']})" for layer in one["layers"]]
        what = ", ".join(layers) or "its config, as its times (set source_date_epoch)"
        parts.append(f"{platform}: {what}")
    return "; ".join(parts)
