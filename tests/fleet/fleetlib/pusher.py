"""Push layers and manifests into a registry, exactly in the format that is asked for.

skopeo and `docker push` choose formats themselves; tests need both formats, an index, and blobs
that are byte for byte shared between repositories.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from .console import FleetError
from .layers import Layer

DOCKER = "application/vnd.docker.distribution.manifest.v2+json"
OCI = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
_PARTS = {
    DOCKER: (
        "application/vnd.docker.container.image.v1+json",
        "application/vnd.docker.image.rootfs.diff.tar.gzip",
    ),
    OCI: (
        "application/vnd.oci.image.config.v1+json",
        "application/vnd.oci.image.layer.v1.tar+gzip",
    ),
}


@dataclass(frozen=True)
class Image:
    """One platform's image, before it has a manifest."""

    layers: Sequence[Layer]
    created: str
    config: dict[str, Any] = field(default_factory=dict)
    architecture: str = "amd64"
    variant: str = ""

    @property
    def platform(self) -> dict[str, str]:
        """As an index and the configuration name it."""
        variant = {"variant": self.variant} if self.variant else {}
        return {"architecture": self.architecture, "os": "linux", **variant}

    def config_blob(self) -> bytes:
        """The image configuration; its digest is the image ID on a classic store."""
        history = [
            {"created": self.created, "created_by": "fleet-images"} for _layer in self.layers
        ]
        return _json(
            {
                **self.platform,
                "created": self.created,
                "config": self.config,
                "rootfs": {"type": "layers", "diff_ids": [x.diff_id for x in self.layers]},
                "history": history,
            }
        )


class Pusher:
    """Writes to one registry over plain HTTP."""

    def __init__(self, address: str) -> None:
        self.base = f"http://{address}/v2"

    def image(self, repository: str, image: Image, media_type: str) -> dict[str, Any]:
        """Push blobs and manifest (without a tag); answers with the descriptor."""
        config_type, layer_type = _PARTS[media_type]
        config = image.config_blob()
        self._blob(repository, _digest(config), config)
        for layer in image.layers:
            self._blob(repository, layer.digest, layer.path)
        manifest = {
            "schemaVersion": 2,
            "mediaType": media_type,
            "config": _descriptor(config_type, config),
            "layers": [
                {"mediaType": layer_type, "size": x.size, "digest": x.digest} for x in image.layers
            ],
        }
        descriptor = self._manifest(repository, _json(manifest), media_type)
        return {**descriptor, "platform": image.platform}

    def tag(self, repository: str, tag: str, descriptor: dict[str, Any]) -> None:
        """Give a manifest that is already there a tag."""
        address = f"{self.base}/{repository}/manifests/"
        kind = descriptor["mediaType"]
        body = self._send("GET", address + descriptor["digest"], headers={"Accept": kind}).read()
        self._send("PUT", address + tag, body, {"Content-Type": kind})

    def index(self, repository: str, manifests: list[dict[str, Any]]) -> dict[str, Any]:
        """Push an OCI index over manifests that are already there."""
        body = _json({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests})
        return self._manifest(repository, body, OCI_INDEX)

    def _manifest(self, repository: str, body: bytes, kind: str) -> dict[str, Any]:
        address = f"{self.base}/{repository}/manifests/{_digest(body)}"
        self._send("PUT", address, body, {"Content-Type": kind})
        return _descriptor(kind, body)

    def _blob(self, repository: str, digest: str, content: bytes | Path) -> None:
        try:
            self._send("HEAD", f"{self.base}/{repository}/blobs/{digest}")
            return
        except urllib.error.HTTPError as error:
            if error.code != 404:
                raise
        start = self._send("POST", f"{self.base}/{repository}/blobs/uploads/", b"")
        place = start.headers["Location"]
        target = f"{place}{'&' if '?' in place else '?'}digest={digest}"
        headers = {"Content-Type": "application/octet-stream"}
        if isinstance(content, bytes):
            self._send("PUT", target, content, headers)
            return
        headers["Content-Length"] = str(content.stat().st_size)
        with open(content, "rb") as stream:
            self._send("PUT", target, stream, headers)

    def _send(self, method: str, url: str, data: Any = None, headers: Any = None) -> Any:
        request = urllib.request.Request(url, data, headers or {}, method=method)
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            return direct.open(request, timeout=300)
        except urllib.error.HTTPError as error:
            if error.code == 404:
                raise
            text = error.read().decode(errors="replace")[:300]
            raise FleetError(f"The registry refused {method} {url}: {text}") from error


def _json(value: object) -> bytes:
    return json.dumps(value, indent=2, sort_keys=True).encode()


def _digest(content: bytes) -> str:
    return f"sha256:{sha256(content).hexdigest()}"


def _descriptor(kind: str, content: bytes) -> dict[str, Any]:
    return {"mediaType": kind, "size": len(content), "digest": _digest(content)}
