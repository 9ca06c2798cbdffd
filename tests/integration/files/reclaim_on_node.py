# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Predicts, removes and measures on a node; prints JSON.

`reclaim_on_node.py remove NAME...` (references, IDs, or `dangling`), `plan NAME...`, `build BASE
TAG` (with BuildKit, which needs no buildx this way), `heavy`, `kill FILE` (in the middle of a
load), `leaks`, `clear`.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import os
import random
import socket
import subprocess
import sys
import tarfile
import time

from ansible_collections.fleet.images.plugins.module_utils import (
    _info,
    _leaks,
    _places,
    _reclaim,
    _removal,
    _stock,
)
from ansible_collections.fleet.images.plugins.module_utils._engine import Engine
from ansible_collections.fleet.images.plugins.module_utils._reference import parse

SOCKET = "/var/run/docker.sock"
TAG = "reclaim/heavy:1"
STORES = (
    "/var/lib/docker/image",
    "/var/lib/docker/overlay2",
    "/var/lib/containerd/io.containerd.content.v1.content",
    "/var/lib/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots",
)


def allocated() -> int:
    """Bytes on the disk of all that the Engine keeps of images; others write to that disk too."""
    places = [place for place in STORES if os.path.isdir(place)]
    told = subprocess.run(["du", "-sxB1", *places], check=True, stdout=subprocess.PIPE).stdout
    return sum(int(line.split()[0]) for line in told.splitlines())


def full(name):
    """A reference in full."""
    return "" if name.startswith("sha256:") else str(parse(name))


def chosen(images, names):
    """IDs of the images that are named, in this order."""
    found = []
    for name in names:
        for image in images:
            wanted = name == image.id or (name != "dangling" and full(name) in image.references)
            lost = image.dangling and not image.children and not image.containers
            if wanted or (name == "dangling" and lost):
                found.append(image.id)
    return list(dict.fromkeys(found))


def told(ranges):
    """Least and most."""
    return [[one.least, one.most] for one in ranges]


def plan(engine, names, remove):
    """What goes with each image: read from the directories, and asked of the API alone."""
    images = _info.inventory(engine, True)
    ids = chosen(images, names)
    groups = _reclaim.along(ids, images, engine.facts.store)
    spent = time.process_time()
    stock = _stock.read(engine, images, ids)
    predicted = _reclaim.freed(stock, groups)
    spent = time.process_time() - spent
    there = _places.classic, _places.containerd
    _places.classic = _places.containerd = lambda *_unused: None
    asked = _reclaim.freed(_stock.read(engine, images, ids), groups)
    _places.classic, _places.containerd = there
    measured = []
    if remove:
        by_id = {image.id: image for image in images}
        for id_ in ids:
            before = allocated()
            for name in _removal.names(by_id[id_]) or [id_]:
                engine.delete("/images/{0}", name)
            measured.append(before - allocated())
    return {
        "ids": ids,
        "groups": groups,
        "predicted": told(predicted),
        "asked": told([_reclaim.total(asked)]),
        "measured": measured,
        "seconds": spent,
    }


def build(base, tag):
    """An image of BuildKit: POST /build wants no session for a context that comes with it."""
    steps = f"FROM {base}\nCOPY top /top\nWORKDIR /here\n"
    if base != "scratch":
        steps += "RUN head -c 700000 /dev/urandom >/own\n"
    context = io.BytesIO()
    with tarfile.open(fileobj=context, mode="w") as tar:
        for name, content in (("Dockerfile", steps.encode()), ("top", os.urandom(900_000))):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    connection = http.client.HTTPConnection("engine")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(SOCKET)
    headers = {"Content-Type": "application/x-tar"}
    path = f"/build?version=2&networkmode=none&t={tag}"
    with contextlib.suppress(BrokenPipeError):  # It may have answered before it read all.
        connection.request("POST", path, context.getvalue(), headers)
    answer = connection.getresponse().read().decode()
    return {"built": "errorDetail" not in answer, "answer": answer[-500:]}


def heavy():
    """An image whose layer takes a while to unpack, as an archive; the Engine keeps nothing."""
    buffer = io.BytesIO()
    content = random.Random(7).randbytes(30_000_000)
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for number in range(1500):
            info = tarfile.TarInfo(f"files/{number}")
            info.size = 20_000
            tar.addfile(info, io.BytesIO(content[number * 20_000 : (number + 1) * 20_000]))
    subprocess.run(
        ["docker", "import", "-", TAG], input=buffer.getvalue(), check=True, stdout=subprocess.PIPE
    )
    archive = "/tmp/reclaim-heavy.tar"
    subprocess.run(["docker", "save", "-o", archive, TAG], check=True)
    subprocess.run(["docker", "rmi", TAG], check=True, stdout=subprocess.PIPE)
    return {"archive": archive}


def unpacking():
    """Whether a layer is being unpacked right now: many of its files are there."""
    for place, inner in ((STORES[1], "diff/files"), (STORES[3], "fs/files")):
        for name in os.listdir(place) if os.path.isdir(place) else ():
            path = os.path.join(place, name, inner)
            if os.path.isdir(path) and 100 < len(os.listdir(path)) < 1400:
                return True
    return False


def kill(archive):
    """SIGKILL for dockerd in the middle of a load, and a new one."""
    for _try in range(5):
        load = subprocess.Popen(
            ["docker", "load", "-i", archive], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        while load.poll() is None and not unpacking():
            time.sleep(0.002)
        if load.poll() is None:
            break
        # It was over too soon to be seen.
        subprocess.run(["docker", "rmi", TAG], check=True, stdout=subprocess.PIPE)
    subprocess.run(["pkill", "-KILL", "-x", "dockerd"], check=True)
    load.wait()
    time.sleep(1.2)  # What is as old as the next daemon, to the second, would be left.
    subprocess.run(["engine-start"], check=True)
    return {"killed": load.returncode != 0}


def leaks(engine, remove):
    """The leaks, and what their removal gave back."""
    found = _leaks.find(engine)
    before = allocated()
    gone = [one.gone for one in _leaks.remove(engine, found.leaks)] if remove else []
    return {
        "blind": found.blind,
        "leaks": [[leak.kind, leak.id, leak.bytes, leak.removable] for leak in found.leaks],
        "bytes": found.bytes,
        "gone": gone,
        "measured": before - allocated(),
    }


def main(verb, *names):
    """Does one verb."""
    if verb == "build":
        return build(*names)
    if verb == "heavy":
        return heavy()
    if verb == "kill":
        return kill(*names)
    engine = Engine({"docker_host": f"unix://{SOCKET}"})
    if verb in ("leaks", "clear"):
        return leaks(engine, verb == "clear")
    return plan(engine, names, verb == "remove")


print(json.dumps(main(*sys.argv[1:])))
