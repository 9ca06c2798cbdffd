# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether to build, how buildx is told to, what it tells, and what came of it: the pure rooms."""

from __future__ import annotations

import base64
import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.fleet.images.plugins.module_utils import (
    _build_command,
    _build_plan,
    _built,
    _fingerprint,
    _gzip,
    _oci_stream,
    _reproducible,
)
from ansible_collections.fleet.images.plugins.module_utils._build_plan import Decision, There
from ansible_collections.fleet.images.plugins.module_utils._layout import Layout, digest_of, to_json
from ansible_collections.fleet.images.plugins.module_utils._progress import Progress
from ansible_collections.fleet.images.plugins.module_utils._shelf import Shelf, place

SEEN = _fingerprint.Fingerprint({"context": 1, "args": {}})
NOW = _fingerprint.Fingerprint({"context": 2, "args": {}})
UNSEEN = _fingerprint.Fingerprint({"context": 1, "args": {}}, ("x may change",))
BOTH = {"linux/amd64": "sha256:a", "linux/arm64": "sha256:b"}


def there(labels: Mapping[str, str], platforms: Mapping[str, str] | None = None) -> There:
    return There(labels, BOTH if platforms is None else platforms)


@pytest.mark.parametrize(
    ("rebuild", "fingerprint", "found", "more", "told"),
    [
        ("auto", SEEN, {"a": None}, {}, (True, "not there yet: a", False)),
        ("never", SEEN, {"a": None}, {}, (True, "not there yet: a", False)),
        ("auto", SEEN, {"a": there(SEEN.labels())}, {}, (False, "nothing that goes in", False)),
        ("auto", NOW, {"a": there(SEEN.labels())}, {}, (True, "it was built: context", False)),
        ("never", NOW, {"a": there(SEEN.labels())}, {}, (False, "rebuild is never", False)),
        ("auto", SEEN, {"a": there({})}, {}, (True, "does not say what", False)),
        ("always", SEEN, {"a": there(SEEN.labels())}, {}, (True, "always", True)),
        ("auto", UNSEEN, {"a": there(SEEN.labels())}, {}, (True, "x may change", True)),
        (
            "auto", SEEN, {"a": there(SEEN.labels())}, {"platforms": ["linux/amd64"]},
            (True, "has linux/amd64, linux/arm64 only", False),
        ),
        (
            "auto", SEEN, {"a": there(SEEN.labels())}, {"platforms": [*BOTH][::-1]},
            (False, "nothing", False),
        ),
        (
            "auto", SEEN, {"a": there(SEEN.labels()), "b": there(SEEN.labels(), {})}, {},
            (True, "not the same image in all places", True),
        ),
        (
            "auto", SEEN, {"a": there(SEEN.labels())}, {"moving": ["base:1"]},
            (True, "builds on what changes: base:1", False),
        ),
    ],
)  # fmt: skip
def test_whether_to_build(
    rebuild: str,
    fingerprint: _fingerprint.Fingerprint,
    found: Mapping[str, There | None],
    more: Mapping[str, Any],
    told: tuple[bool, str, bool],
) -> None:
    decision = _build_plan.decide(rebuild, fingerprint, found, **more)
    assert (decision.build, decision.same) == (told[0], told[2])
    assert told[1] in decision.reason
    assert isinstance(decision, Decision)


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"tags": ["a:1", "b:2"]}, "--tag a:1 --tag b:2"),
        ({"args": {"A": True, "B": 2}}, "--build-arg A=true --build-arg B=2"),
        (
            {"dockerfile": "/x/D", "target": "t", "builder": "b"},
            "--builder b --file /x/D --target t",
        ),
        ({"network": "none", "shm_size": "1m"}, "--network none --shm-size 1m"),
        ({"platforms": ["linux/amd64", "linux/arm64"]}, "--platform linux/amd64,linux/arm64"),
        ({"labels": {"a": "b"}}, "--label a=b --label f=1"),
        ({"annotations": {"index:a": "b"}}, "--annotation index:a=b"),
        ({"build_contexts": {"x": "/y"}}, "--build-context x=/y"),
        ({"cache_from": ["x"], "cache_to": ["y"]}, "--cache-from x --cache-to y"),
        ({"ssh": ["default"], "ulimits": ["nofile=1"]}, "--ssh default --ulimit nofile=1"),
        (
            {"no_cache_filter": ["s"], "add_hosts": {"h": "::1"}},
            "--no-cache-filter s --add-host h:::1",
        ),
        ({"pull": True, "no_cache": True}, "--pull --no-cache"),
        ({"provenance": "False", "sbom": "true"}, "--provenance=false --sbom=true"),
        ({}, ""),
    ],
)
def test_how_buildx_is_told(params: dict[str, Any], words: str) -> None:
    labels = {"f": "1"} if "labels" in params else {}
    assert " ".join(_build_command.arguments(params, labels)) == words


@pytest.mark.parametrize(
    ("params", "driver", "outputs"),
    [
        ({}, "docker", ["type=docker"]),
        ({"push": True}, "docker", ["type=image,push=true"]),
        ({"push": True, "load": True}, "docker", ["type=image,push=true"]),
        ({"push": True, "load": True}, "remote", ["type=image,push=true", "type=docker"]),
        ({"store": "/s"}, "docker", []),
        ({"outputs": ["type=local,dest=x"]}, "docker", ["type=local,dest=x"]),
        (
            {"push": True, "source_date_epoch": 0}, "remote",
            ["type=image,push=true,rewrite-timestamp=true"],
        ),
        ({"push": True, "source_date_epoch": 0}, "docker", ["type=image,push=true"]),
        ({"load": False, "push": True}, "remote", ["type=image,push=true"]),
    ],
)  # fmt: skip
def test_where_the_result_goes(params: dict[str, Any], driver: str, outputs: list[str]) -> None:
    assert _build_command.outputs(params, driver)[1::2] == outputs


def test_csv() -> None:
    assert _build_command.csv({"id": "a", "src": "/x"}) == "id=a,src=/x"
    assert _build_command.csv({"src": '/x,"y'}) == '"src=/x,""y"'


def vertex(name: str, digest: str = "", **more: Any) -> dict[str, Any]:
    return {"digest": digest or name, "name": name, **more}


def fed(*documents: Mapping[str, Any] | str) -> Progress:
    progress = Progress()
    for one in documents:
        text = one if isinstance(one, str) else json.dumps(one)
        progress.feed(text.encode() + b"\n")
    return progress


def log(digest: str, text: str) -> dict[str, Any]:
    data = base64.b64encode(text.encode()).decode()
    return {"logs": [{"vertex": digest, "stream": 1, "data": data}]}


def test_a_step_that_failed_on_one_platform() -> None:
    progress = fed(
        {"vertexes": [vertex("[internal] load build context")]},
        {"vertexes": [vertex("[linux/amd64 one 1/2] FROM a", cached=True, started="t")]},
        {"vertexes": [vertex("[linux/amd64 one 2/2] RUN x", "r1", started="t")]},
        {"vertexes": [vertex("[linux/arm64 one 2/2] RUN x", "r2", started="t")]},
        log("r2", "first li"),
        log("r2", "ne\nsecond"),
        {"vertexes": [vertex("", "r1", error="context canceled", completed="t")]},
        {"vertexes": [vertex("", "r2", error="exit code: 7", completed="t")]},
        log("unknown", "x"),
        {"logs": [{"vertex": "r2", "data": "abcde"}]},
        "Dockerfile:4",
        "{no json",
        "ERROR: failed to build: failed to solve: exit code: 7",
    )
    failed = progress.failed
    assert failed and failed.as_result() == {
        "name": "RUN x", "platform": "linux/arm64", "lines": ["first line", "second"],
    }  # fmt: skip
    assert (len(progress.instructions), progress.cached) == (3, 1)
    assert progress.error == "exit code: 7"
    assert progress.running == ["FROM a"]


def test_progress_needs_constant_memory() -> None:
    progress = fed({"vertexes": [vertex("[1/1] RUN x", "r")]})
    for number in range(500):
        progress.feed(json.dumps(log("r", f"line {number}\n" + "x" * 5000)).encode())
        progress.feed(b"words " + b"y" * 5000)
    (step,) = progress.instructions
    assert step.platform == "" and len(step.lines) == 20
    assert max(map(len, step.lines)) <= 2000 and len(progress.words) == 40
    assert Progress().error == "" and Progress().failed is None


def document(content: Any) -> tuple[str, bytes]:
    text = to_json(content)
    return digest_of(text), text


def oci(platform: str = "amd64", diff: str = "1", created: str = "now") -> dict[str, bytes]:
    """An image's documents and layer by digest; the manifest comes last."""
    layer = f"layer {diff}".encode()
    history = [{"created_by": f"RUN {diff}"}, {"created_by": "CMD", "empty_layer": True}]
    config = document(
        {
            "architecture": platform, "os": "linux", "created": created, "history": history,
            "config": {"Labels": {"a": "b"}},
            "rootfs": {"type": "layers", "diff_ids": [digest_of(layer)]},
        }
    )  # fmt: skip
    kinds = {"config": "application/vnd.oci.image.config.v1+json", "layer": "application/x"}
    manifest = document(
        {
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {"mediaType": kinds["config"], "digest": config[0], "size": len(config[1])},
            "layers": [
                {"mediaType": kinds["layer"], "digest": digest_of(layer), "size": len(layer)}
            ],
        }
    )  # fmt: skip
    return {digest_of(layer): layer, config[0]: config[1], manifest[0]: manifest[1]}


def index(*images: Mapping[str, bytes]) -> dict[str, bytes]:
    """An index of images, with an attestation; it comes last."""
    entries = []
    for image in images:
        digest, manifest = [*image.items()][-1]
        config = json.loads(image[json.loads(manifest)["config"]["digest"]])
        entries.append(
            {
                "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest,
                "size": len(manifest),
                "platform": {"os": "linux", "architecture": config["architecture"]},
            }
        )  # fmt: skip
    attestation = {
        **entries[0], "platform": {"os": "unknown", "architecture": "unknown"},
        "annotations": {"vnd.docker.reference.type": "attestation-manifest"},
    }  # fmt: skip
    digest, text = document({"schemaVersion": 2, "manifests": [*entries, attestation]})
    return {**{key: value for image in images for key, value in image.items()}, digest: text}


def tar_of(image: Mapping[str, bytes]) -> bytes:
    digest, content = [*image.items()][-1]
    listing = {"manifests": [{"digest": digest, "size": len(content)}] * 2}
    files = {f"blobs/sha256/{one[7:]}": text for one, text in image.items()}
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name, text in {**files, "index.json": json.dumps(listing).encode()}.items():
            info = tarfile.TarInfo(name)
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text))
    return archive.getvalue()


def test_a_result_is_read_as_it_comes(tmp_path: Path) -> None:
    image = index(oci("amd64"), oci("arm64", "2"))
    layout = Layout(tmp_path)
    with place(layout, False) as beside, _gzip.pool() as threads:
        shelf = Shelf(layout, beside, threads)
        digest = _oci_stream.receive(io.BytesIO(tar_of(image)), shelf)
        found = _built.of_documents("a:1", digest, shelf.document)
        assert found.image
        shelf.settle(found.image.all_blobs.values())
    assert digest == [*image][-1] == found.digest
    assert set(found.platforms) == set(found.sizes) == {"linux/amd64", "linux/arm64"}
    assert found.labels == {"a": "b"}
    layout.record([found.image])
    stored = _built.InStore(layout)
    reference = _built.ImageSpec(_parse("a:1")).reference
    assert stored.look(reference) is None  # the store names images in full
    full = _built.of_documents("docker.io/library/a:1", digest, layout.read).image
    assert full
    layout.record([full])
    again = stored.look(reference)
    assert again and again.platforms == found.platforms
    layout.discard(full.platforms["linux/arm64"].layers[0].digest)
    assert stored.look(reference) is None


def _parse(text: str) -> Any:
    from ansible_collections.fleet.images.plugins.module_utils._reference import parse

    return parse(text)


@pytest.mark.parametrize("cut", [0, 700, 2500])
def test_a_result_that_is_cut(tmp_path: Path, cut: int) -> None:
    content = tar_of(oci())[:cut]
    with _gzip.pool() as threads, pytest.raises(_oci_stream.NoResult):
        _oci_stream.receive(io.BytesIO(content), Shelf(Layout(tmp_path), None, threads))


def test_two_builds_that_differ() -> None:
    def contents(image: Mapping[str, bytes]) -> dict[str, _reproducible.Content]:
        return _reproducible.contents([*image][-1], image.__getitem__)

    one = contents(index(oci(), oci("arm64")))
    same = _reproducible.compare(one, contents(index(oci(), oci("arm64"))))
    assert _reproducible.sentence(same) == ""
    layer = _reproducible.compare(one, contents(index(oci(), oci("arm64", "2"))))
    assert layer["linux/amd64"]["reproducible"]
    assert _reproducible.sentence(layer) == "linux/arm64: layer 0 (RUN 1)"
    times = _reproducible.compare(one, contents(index(oci(), oci("arm64", created="then"))))
    assert "its config" in _reproducible.sentence(times)
    fewer = _reproducible.compare(contents(oci()), contents(oci("arm64")))
    assert not any(told["reproducible"] for told in fewer.values())
