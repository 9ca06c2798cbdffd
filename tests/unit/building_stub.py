# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Stands for the command docker with buildx: makes small images of what it is told, and pushes.

`BUILDX_STUB` is its directory: `calls` gets a line of JSON for each call, `behaviour` (JSON) says
what it does otherwise. `version`: of buildx. `findings`: of a check. `tells`: lines on its standard
error. `fails`: its last words, with status 1. `noise`: another layer each time. `plain`: no labels.
`cuts`: bytes after which its standard output ends.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import os
import sys
import tarfile
import time
import urllib.request
from pathlib import Path
from typing import Any

ROOT = Path(os.environ["BUILDX_STUB"])
OCI = "application/vnd.oci.image."
SINGLE = {"--pull", "--no-cache", "--tls", "--tlsverify"}


def main() -> None:
    """Does what is asked for."""
    words = sys.argv[1:]
    behaviour = json.loads((ROOT / "behaviour").read_text())
    if "version" in words[:4]:
        note(words)
        print(f"github.com/docker/buildx {behaviour.get('version', 'v0.13.1')} abc")
        return
    if words[:2] == ["buildx", "inspect"]:
        print(
            "Name: fleet\nDriver: docker-container\n\nNodes:\nName: fleet0\nPlatforms: linux/amd64"
        )
        return
    options, context = parsed(words[words.index("build") + 1 :])
    note(words, options)
    for line in behaviour.get("tells", ()):
        sys.stderr.write(line + "\n")
    if behaviour.get("fails"):
        sys.exit(f"ERROR: {behaviour['fails']}")
    if "--call" in options:
        print(json.dumps(behaviour.get("findings", {})))
        return
    build(options, context, behaviour)


def parsed(words: list[str]) -> tuple[dict[str, list[str]], str]:
    options: dict[str, list[str]] = {}
    rest = iter(words[:-1])
    for word in rest:
        name, equals, value = word.partition("=")
        if word in SINGLE:
            value = "true"
        elif not equals or not word.startswith("--"):
            name, value = word, next(rest)
        options.setdefault(name, []).append(value)
    return options, words[-1]


def note(words: list[str], options: dict[str, list[str]] | None = None) -> None:
    """What it was called with, and what it can read of secrets, logins and its input."""
    read = {}
    for field in (options or {}).get("--secret", ()):
        told = dict(part.split("=", 1) for part in field.split(","))
        content = Path(told["src"]).read_text() if "src" in told else os.environ[told["env"]]
        read[told["id"]] = content
    names = ("DOCKER_HOST", "DOCKER_CONFIG", "BUILDX_CONFIG", "SOURCE_DATE_EPOCH")
    line = {
        "words": words,
        "environment": {name: os.environ[name] for name in names if name in os.environ},
        "secrets": read,
        "input": sys.stdin.read() if options and "-" in options.get("--file", ()) else "",
    }
    with (ROOT / "calls").open("a") as file:
        file.write(json.dumps(line) + "\n")


def build(options: dict[str, list[str]], context: str, behaviour: dict[str, Any]) -> None:
    blobs: dict[str, tuple[bytes, str]] = {}
    platforms = options.get("--platform", ["linux/amd64"])[0].split(",")
    entries = [image(platform, options, context, behaviour, blobs) for platform in platforms]
    target = entries[0]
    if options.get("--provenance") != ["false"]:
        entries.append(attestation(blobs))
    if len(entries) > 1:
        index = {"schemaVersion": 2, "mediaType": f"{OCI}index.v1+json", "manifests": entries}
        target = put(blobs, index, f"{OCI}index.v1+json")
    for output in options.get("--output", ()):
        if "push=true" in output:
            for tag in options["--tag"]:
                push(tag, target["digest"], blobs)
        elif output.startswith("type=oci,dest=-"):
            sys.stdout.buffer.write(tar(target, blobs)[: behaviour.get("cuts")])
    metadata = {"containerimage.digest": target["digest"]}
    Path(options["--metadata-file"][0]).write_text(json.dumps(metadata))
    sys.stderr.write("View build details: x\n")


def image(
    platform: str,
    options: dict[str, list[str]],
    context: str,
    behaviour: dict[str, Any],
    blobs: dict[str, tuple[bytes, str]],
) -> dict[str, Any]:
    files = sorted(path for path in Path(context).rglob("*") if path.is_file())
    content = b"\n".join(path.read_bytes() for path in files) + platform.encode()
    content += repr(options.get("--build-arg")).encode()
    if behaviour.get("noise"):
        content += str(time.time_ns()).encode()
    layer = put(blobs, gzip.compress(content, mtime=0), f"{OCI}layer.v1.tar+gzip")
    labels = dict(one.split("=", 1) for one in options.get("--label", ()))
    os_name, architecture = platform.split("/")
    settings = {
        "os": os_name,
        "architecture": architecture,
        "config": {"Labels": {} if behaviour.get("plain") else labels},
        "history": [{"created_by": "COPY . ."}],
        "rootfs": {"type": "layers", "diff_ids": [digest(content)]},
    }
    config = put(blobs, settings, f"{OCI}config.v1+json")
    kind = f"{OCI}manifest.v1+json"
    manifest = {"schemaVersion": 2, "mediaType": kind, "config": config, "layers": [layer]}
    stated = {"os": os_name, "architecture": architecture}
    return {**put(blobs, manifest, kind), "platform": stated}


def attestation(blobs: dict[str, tuple[bytes, str]]) -> dict[str, Any]:
    """It names the time of the build, as real ones do."""
    config = put(blobs, {"time": time.time_ns()}, f"{OCI}config.v1+json")
    kind = f"{OCI}manifest.v1+json"
    manifest = {"schemaVersion": 2, "mediaType": kind, "config": config, "layers": []}
    nothing = {"os": "unknown", "architecture": "unknown"}
    return {**put(blobs, manifest, kind), "platform": nothing}


def put(blobs: dict[str, tuple[bytes, str]], content: Any, kind: str) -> dict[str, Any]:
    data = content if isinstance(content, bytes) else json.dumps(content).encode()
    blobs[digest(data)] = data, kind
    return {"mediaType": kind, "digest": digest(data), "size": len(data)}


def digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def push(tag: str, target: str, blobs: dict[str, tuple[bytes, str]]) -> None:
    """To a registry that is a stub, which wants each manifest after what it names."""
    registry, _slash, rest = tag.partition("/")
    repository, _colon, name = rest.rpartition(":")
    headers = login(registry)
    base = f"http://{registry}/v2/{repository}"
    for one, (content, kind) in blobs.items():
        if "manifest" in kind or "index" in kind:
            what = name if one == target else one
            send("PUT", f"{base}/manifests/{what}", content, {**headers, "Content-Type": kind})
        else:
            place = send("POST", f"{base}/blobs/uploads/", b"", headers)
            length = {**headers, "Content-Length": str(len(content))}
            send("PATCH", f"http://{registry}{place}", content, length)
            send("PUT", f"http://{registry}{place}&digest={one}", b"", headers)


def login(registry: str) -> dict[str, str]:
    """What the configuration has for it, as docker/cli looks."""
    place = os.environ.get("DOCKER_CONFIG")
    config = json.loads(Path(place, "config.json").read_text()) if place else {}
    helper = config.get("credHelpers", {}).get(registry, config.get("credsStore"))
    auth = config.get("auths", {}).get(registry, {}).get("auth") if not helper else None
    if auth:
        base64.b64decode(auth, validate=True)
    return {"Authorization": f"Basic {auth}"} if auth else {}


def send(method: str, url: str, content: bytes, headers: dict[str, str]) -> str:
    request = urllib.request.Request(url, content, headers, method=method)
    with urllib.request.urlopen(request, timeout=20) as answer:
        return str(answer.headers.get("Location", ""))


def tar(target: dict[str, Any], blobs: dict[str, tuple[bytes, str]]) -> bytes:
    files = {f"blobs/sha256/{one[7:]}": content for one, (content, _kind) in blobs.items()}
    files["index.json"] = json.dumps({"manifests": [target]}).encode()
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return made.getvalue()


main()
