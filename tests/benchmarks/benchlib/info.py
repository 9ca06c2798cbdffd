"""image_info beside docker_image_info of community.docker, over the same Engines, in one run."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fleetlib.layers import Member, pack_into

from . import peer
from .contenders import HERE, OURS, PEER, ROOT, SETTINGS
from .info_page import ALL, EMPTY, LIST, NAMED, Row, judge, section
from .stage import PYTHON, REGISTRY, Stage, each
from .targets import Verdict

IMAGES, TAGS, SHARED_LAYERS, RUNS = 200, 4, 9, 5
# One of each store. Fresh Engines have the containerd store.
HOSTS = ("engine28-containerd", "engine26-classic")

Json = dict[str, Any]
# An Engine that was kept up to date holds some tags of each repository.
NAMES = [f"{REGISTRY}/bench/many-{n // TAGS}:{n % TAGS}" for n in range(IMAGES)]
TASKS: dict[str, Json] = {
    EMPTY: {"ansible.builtin.ping": {}},
    f"{OURS}, {NAMED}": {"fleet.images.image_info": {"images": NAMES}},
    f"{PEER}, {NAMED}": {"community.docker.docker_image_info": {"name": NAMES}},
    f"{OURS}, {ALL}": {"fleet.images.image_info": {}},
    f"{OURS}, {ALL}, details": {"fleet.images.image_info": {"details": True}},
    f"{PEER}, {ALL}": {"community.docker.docker_image_info": {}},
}
# The Engine's list, as cheap as it can be had: seconds, one run a line.
_LIST = f"""
import socket, time
for _ in range({RUNS}):
    began = time.monotonic()
    with socket.socket(socket.AF_UNIX) as engine:
        engine.connect("/var/run/docker.sock")
        engine.sendall(b"GET /images/json HTTP/1.0\\r\\nHost: engine\\r\\n\\r\\n")
        while engine.recv(65536):
            pass
    print(time.monotonic() - began)
"""


def measure(stage: Stage, collections: Path, tree: Path, work: Path) -> list[Row]:
    """Fills the Engines of HOSTS and asks each in turns; `work` is an empty directory."""
    stage.empty(tree)
    archive = images(NAMES, SHARED_LAYERS)
    each(lambda host: stage.feed(host, archive, "docker", "load", "--quiet"), HOSTS)
    rows = _run(work, stage.state / "inventory.yml", collections)
    listed = [stage.inside(host, "python3", "-c", _LIST).split() for host in HOSTS]
    stage.empty(None)
    wrong = [row for row in rows if row["task"] != EMPTY and row["images"] != IMAGES]
    if wrong:
        raise SystemExit(f"{IMAGES} images were to be told of: {wrong[0]}")
    found = [
        Row(host, task, tuple(r["seconds"] for r in rows if (r["host"], r["task"]) == (host, task)))
        for host in HOSTS
        for task in TASKS
    ]
    lists = [Row(host, LIST, tuple(map(float, took))) for host, took in zip(HOSTS, listed)]
    return found + lists


def _run(work: Path, inventory: Path, collections: Path) -> list[Json]:
    # Before anything counts, each kind of task has run once: Ansible has packed its module then.
    tasks = [{"name": name, **task} for name, task in TASKS.items()]
    warm = [{**task, "name": "warm"} for task in tasks]
    variables = {"ansible_python_interpreter": PYTHON}
    roles = [{"role": "fleet.images.docker_sdk"}]
    plays = [
        {"hosts": host, "gather_facts": False, "vars": variables, "roles": roles, "tasks": warm}
        for host in HOSTS
    ]
    plays += [
        {"hosts": host, "gather_facts": False, "vars": variables, "tasks": tasks * RUNS}
        for host in HOSTS
    ]
    (work / "play.json").write_text(json.dumps(plays))
    environment = {
        **os.environ,
        **SETTINGS,
        "ANSIBLE_COLLECTIONS_PATH": f"{collections}:{ROOT / '.venv' / 'collections'}",
        "ANSIBLE_CALLBACK_PLUGINS": str(HERE / "callback_plugins"),
        "ANSIBLE_CALLBACKS_ENABLED": "bench_seconds",
        "ANSIBLE_NOCOLOR": "1",
        "BENCH_SECONDS": str(work / "seconds"),
    }
    command = [str(Path(sys.executable).with_name("ansible-playbook")), "play.json"]
    command += ["-i", str(inventory)]
    with open(work / "output", "wb") as output:
        done = subprocess.run(
            command, env=environment, cwd=work, check=False, stdout=output, stderr=output,
            timeout=1200,
        )  # fmt: skip
    if done.returncode != 0:
        raise SystemExit(f"the run failed, see {work}/output")
    rows = [json.loads(line) for line in (work / "seconds").read_text().splitlines()]
    return [row for row in rows if row["task"] in TASKS]


def images(names: Sequence[str], shared: int) -> bytes:
    """An archive of small images of these names, each of one layer upon the same others."""
    members: dict[str, bytes] = {}
    below = [_layer(f"base-{number}") for number in range(shared)]
    index, manifest = [], []
    for number, name in enumerate(names):
        layers = [*below, _layer(f"top-{number}")]
        config = _put(members, _config(number, [diff_id for diff_id, _blob in layers]))
        blobs = [_put(members, blob) for _diff_id, blob in layers]
        kind = "application/vnd.oci.image"
        described = {
            "schemaVersion": 2,
            "mediaType": f"{kind}.manifest.v1+json",
            "config": {"mediaType": f"{kind}.config.v1+json", **config},
            "layers": [{"mediaType": f"{kind}.layer.v1.tar+gzip", **blob} for blob in blobs],
        }
        one = _put(members, json.dumps(described).encode())
        named = {"io.containerd.image.name": name}
        index.append({"mediaType": f"{kind}.manifest.v1+json", "annotations": named, **one})
        paths = [f"blobs/sha256/{blob['digest'][7:]}" for blob in (config, *blobs)]
        manifest.append({"Config": paths[0], "RepoTags": [name], "Layers": paths[1:]})
    members["oci-layout"] = b'{"imageLayoutVersion":"1.0.0"}'
    members["index.json"] = json.dumps({"schemaVersion": 2, "manifests": index}).encode()
    members["manifest.json"] = json.dumps(manifest).encode()
    return _tar(members)


def _layer(name: str) -> tuple[str, bytes]:
    """Diff ID and blob of a layer with one file."""
    tar = _tar({name: name.encode() * 50})
    return f"sha256:{hashlib.sha256(tar).hexdigest()}", gzip.compress(tar, mtime=0)


def _config(number: int, diff_ids: Sequence[str]) -> bytes:
    when = "2026-01-01T00:00:00Z"
    steps = [{"created": when, "created_by": f"RUN step {n}"} for n in range(len(diff_ids))]
    config = {
        "architecture": "amd64",
        "os": "linux",
        "created": when,
        "config": {
            "Env": [f"SETTING_{n}=value {number}" for n in range(12)],
            "Labels": {f"label.{n}": str(number) for n in range(6)},
        },
        "rootfs": {"type": "layers", "diff_ids": list(diff_ids)},
        "history": steps,
    }
    return json.dumps(config).encode()


def _put(members: dict[str, bytes], blob: bytes) -> Json:
    digest = hashlib.sha256(blob).hexdigest()
    members[f"blobs/sha256/{digest}"] = blob
    return {"digest": f"sha256:{digest}", "size": len(blob)}


def _tar(members: Mapping[str, bytes]) -> bytes:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        pack_into(tar, {name: Member(content, 0o644) for name, content in members.items()})
    return archive.getvalue()


def bench(stage: Stage, cache: Path) -> tuple[str, list[Verdict]]:
    """Measures; the part of the page and its verdicts."""
    work = cache / "info"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    rows = measure(stage, peer.collections(cache), peer.needs(cache), work)
    verdicts = judge(rows, IMAGES)
    return section(rows, verdicts, IMAGES, TAGS, SHARED_LAYERS + 1), verdicts
