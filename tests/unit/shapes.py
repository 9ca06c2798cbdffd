# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Archives as other tools write them, made from the seeds of layers."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from images import CONFIG, INDEX, MANIFEST, Store, digest, digest_of, layer_bytes

TAR = "application/vnd.oci.image.layer.v1.tar"
Files = dict[str, "bytes | str"]  # a member's content, or where a link leads


def plain_layer(seed: str) -> bytes:
    """A layer as a classic store saves it."""
    return gzip.decompress(layer_bytes(seed)[0])


def config_of(seeds: Sequence[str]) -> bytes:
    diff_ids = [digest_of(plain_layer(seed)) for seed in seeds]
    rootfs = {"type": "layers", "diff_ids": diff_ids}
    return json.dumps({"os": "linux", "architecture": "amd64", "rootfs": rootfs}).encode()


def hex_of(content: bytes) -> str:
    return digest_of(content)[7:]


def docker_save_before_25(*images: tuple[Sequence[str] | None, Sequence[str]]) -> Files:
    """`<id>/layer.tar`; a repeated layer is a link to the first."""
    files: Files = {}
    first: dict[str, str] = {}
    entries = []
    for number, (names, seeds) in enumerate(images):
        layers = []
        for place, seed in enumerate(seeds):
            one = digest(f"layer {number} {place}")[7:]
            files[f"{one}/"] = b""
            files[f"{one}/VERSION"] = b"1.0"
            files[f"{one}/json"] = b"{}"
            link = f"../{first[seed]}/layer.tar" if seed in first else ""
            files[f"{one}/layer.tar"] = link or plain_layer(seed)
            first.setdefault(seed, one)
            layers.append(f"{one}/layer.tar")
        config = config_of(seeds)
        files[f"{hex_of(config)}.json"] = config
        entries.append({"Config": f"{hex_of(config)}.json", "RepoTags": names, "Layers": layers})
    files["manifest.json"] = json.dumps(entries).encode()
    files["repositories"] = b"{}"
    return files


def skopeo(names: Sequence[str], seeds: Sequence[str]) -> Files:
    """`docker-archive:` of skopeo and podman: `<hex>.tar`, and links in the old shape to them."""
    files: Files = {}
    layers = []
    for place, seed in enumerate(seeds):
        content = plain_layer(seed)
        layers.append(f"{hex_of(content)}.tar")
        files[layers[-1]] = content
        one = digest(f"{place}")[7:]
        files[f"{one}/layer.tar"] = f"../{layers[-1]}"
        files[f"{one}/VERSION"] = b"1.0"
        files[f"{one}/json"] = b"{}"
    config = config_of(seeds)
    files[f"{hex_of(config)}.json"] = config
    files["repositories"] = b"{}"
    entry = {"Config": f"{hex_of(config)}.json", "RepoTags": names, "Layers": layers}
    return {**files, "manifest.json": json.dumps([entry]).encode()}


def compressed(
    names: Sequence[str], seeds: Sequence[str], config_name: str, layer_name: str
) -> Files:
    """Compressed layers beside `manifest.json`: kaniko, jib and Bazel's rules."""
    config = config_of(seeds)
    files: Files = {config_name.format(hex_of(config)): config}
    layers = []
    for seed in seeds:
        content = layer_bytes(seed)[0]
        layers.append(layer_name.format(hex_of(content)))
        files[layers[-1]] = content
    entry = {"Config": next(iter(files)), "RepoTags": names, "Layers": layers}
    return {**files, "manifest.json": json.dumps([entry]).encode()}


def docker_save_since_25(*images: tuple[Sequence[str], Sequence[str]]) -> Files:
    """Of a classic store: an OCI layout with uncompressed layers, and `manifest.json`."""
    files: Files = {"blobs/": b"", "blobs/sha256/": b"", "repositories": b"{}"}
    index, entries = [], []
    for names, seeds in images:
        layers = [_put(files, plain_layer(seed), TAR) for seed in seeds]
        config = _put(files, config_of(seeds), CONFIG)
        manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers}
        # The Engine's own spelling of a manifest.
        found = _put(files, json.dumps(manifest, separators=(",", ":")).encode(), MANIFEST)
        for name in names:
            notes = {
                "io.containerd.image.name": name,
                "org.opencontainers.image.ref.name": name.rpartition(":")[2],
            }
            index.append({**found, "annotations": notes})
        paths = [f"blobs/sha256/{one['digest'][7:]}" for one in layers]
        path = f"blobs/sha256/{config['digest'][7:]}"
        entries.append({"Config": path, "RepoTags": names, "Layers": paths})
    files["index.json"] = _index(index)
    files["manifest.json"] = json.dumps(entries).encode()
    files["oci-layout"] = b'{"imageLayoutVersion": "1.0.0"}'
    return files


def oci_layout(store: Store, *entries: Mapping[str, Any]) -> Files:
    """A store as a tar with this index, without docker's `manifest.json`."""
    blobs = store.layout.root / "blobs" / "sha256"
    files: Files = {f"blobs/sha256/{path.name}": path.read_bytes() for path in blobs.iterdir()}
    return {**files, "index.json": _index(entries), "oci-layout": b"{}"}


def _index(entries: Sequence[Mapping[str, Any]]) -> bytes:
    return json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}).encode()


def _put(files: Files, content: bytes, media_type: str) -> dict[str, Any]:
    files[f"blobs/sha256/{hex_of(content)}"] = content
    return {"mediaType": media_type, "digest": digest_of(content), "size": len(content)}


def tar(path: Path, files: Files, hard_links: bool = False) -> Path:
    """The tar of these members; links are symbolic ones by default."""
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as made:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            if isinstance(content, str):
                info.type = tarfile.LNKTYPE if hard_links else tarfile.SYMTYPE
                info.linkname = content.replace("../", "") if hard_links else content
                made.addfile(info)
            elif name.endswith("/"):
                info.type = tarfile.DIRTYPE
                made.addfile(info)
            else:
                info.size = len(content)
                made.addfile(info, io.BytesIO(content))
    return path
