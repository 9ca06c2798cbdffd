# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A store on the controller, and bundles made from it: good ones, and every kind of bad one."""

from __future__ import annotations

import io
import sys
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rig import NEW_NGINX, REGISTRY, SEED, Rig

BIG = f"{REGISTRY}/shop/big:2"
AMD64, ARM64 = "linux/amd64", "linux/arm64"
LOCAL = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
Json = dict[str, Any]


@dataclass(frozen=True)
class Workshop:
    """The store, what it was filled with, and the memory that the filling took (bytes, by task)."""

    store: Path
    lock: Json
    known: list[Json]
    peaks: dict[str, int]

    def lock_of(self, image: str) -> Json:
        """The lock of one image."""
        return {"version": 1, "images": {image: self.lock["images"][image]}}

    def layers(self, image: str, platform: str = AMD64) -> list[str]:
        """The digests of an image's layers, lowest first."""
        layers = self.lock["images"][image]["platforms"][platform]["layers"]
        return [layer["digest"] for layer in layers]

    def archive_task(self, name: str, bundles: list[Json]) -> Json:
        """A task that writes bundles."""
        args = {"store": str(self.store), "lock": self.lock, "bundles": bundles}
        return {"name": name, "fleet.images.image_archive": args}


def fetch_task(rig: Rig, name: str, store: Path, images: list[str | Json]) -> Json:
    """A task that fetches images on the controller, which knows the registry by address only."""
    return {
        "name": name,
        "fleet.images.image_fetch": {
            "images": images,
            "store": str(store),
            "registry_mirrors": {REGISTRY: [f"http://{rig.registry_address}"]},
            "registry_validate_certs": False,
        },
    }


def fill(rig: Rig, store: Path) -> Workshop:
    """A store with nginx in two versions, the second for two platforms, and the heavy image.

    The heavy one is fetched by itself, and how much memory that took is noted.
    """
    both = {"name": NEW_NGINX, "platforms": [AMD64, ARM64]}
    tasks = [
        measured(fetch_task(rig, "small", store, [both, SEED[0]]), rig.work / "python"),
        measured(fetch_task(rig, "big", store, [BIG]), rig.work / "python"),
    ]
    wrap_python(rig.work / "python")
    done = rig.results("localhost", tasks, LOCAL)
    found = [done[task["name"]]["localhost"] for task in tasks]
    assert not any(result.get("failed") for result in found), found
    images = {name: one for result in found for name, one in result["lock"]["images"].items()}
    known = [entry for result in found for entry in result["known"]]
    return Workshop(store, {"version": 1, "images": images}, known, peaks(rig.work / "python"))


WRAPPER = """#!{python}
# Runs Python, and notes the most memory that it took, in bytes, under the task's name.
import os, resource, subprocess, sys
code = subprocess.run(["{python}", *sys.argv[1:]]).returncode
with open(__file__ + "." + os.environ.get("MEASURED_AS", "other"), "a") as file:
    print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024, file=file)
sys.exit(code)
"""


def wrap_python(path: Path) -> None:
    """An interpreter for modules that measures."""
    path.write_text(WRAPPER.format(python=sys.executable))
    path.chmod(0o700)


def measured(task: Json, python: Path | str) -> Json:
    """The task, run by that interpreter."""
    return {
        **task,
        "vars": {"ansible_python_interpreter": str(python)},
        "environment": {"MEASURED_AS": task["name"]},
    }


def peaks(python: Path) -> dict[str, int]:
    """Task name -> the most bytes of memory that one of its modules took."""
    notes = python.parent.glob(f"{python.name}.*")
    return {note.suffix[1:]: max(map(int, note.read_text().split())) for note in notes}


def peaks_on(rig: Rig, host: str, python: str) -> dict[str, int]:
    """The same of a host."""
    place, name = python.rsplit("/", 1)
    found: dict[str, int] = {}
    for line in rig.inside(host, "sh", "-c", f"cd {place} && grep -H . {name}.*").splitlines():
        note, _colon, count = line.rpartition(":")
        task = note.rpartition(".")[2]
        found[task] = max(found.get(task, 0), int(count))
    return found


def packed(files: Mapping[str, bytes]) -> bytes:
    """A tar of files that only root may read and run."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(content), 0o700
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def regions(bundle: Path) -> dict[str, tuple[int, int]]:
    """Where each member's content lies: name -> first byte, bytes."""
    with tarfile.open(bundle) as tar:
        return {member.name: (member.offset_data, member.size) for member in tar}


def member(digest: str) -> str:
    """The name of a blob in a bundle."""
    return "blobs/sha256/" + digest.partition(":")[2]


def flipped(bundle: Path, name: str, at: int | None = None) -> bytes:
    """The bundle with one bit of one member turned over, in its middle or `at` a place."""
    content = bytearray(bundle.read_bytes())
    first, size = regions(bundle)[name]
    content[first + (size // 2 if at is None else at)] ^= 1
    return bytes(content)


def cut(bundle: Path, name: str, whole: bool = False) -> bytes:
    """The bundle up to the middle of a member, or (`whole`) to the end of the one before it."""
    first, size = regions(bundle)[name]
    return bundle.read_bytes()[: first - tarfile.BLOCKSIZE if whole else first + size // 2]
