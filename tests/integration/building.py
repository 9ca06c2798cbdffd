# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What tests of builds need: contexts on hosts, rounds of the module, and programs of arm64."""

from __future__ import annotations

import io
import os
import tarfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from fleetlib.hosts import BUILDERS
from rig import REGISTRY, Json, Rig

BUILDER = BUILDERS[0].name
CONTEXT = "/var/tmp/build-context"
# Of this run alone: the registry outlives it.
PROJECT = f"lab{os.getpid()}"
LAB = f"{REGISTRY}/{PROJECT}"
SHOP = f"{REGISTRY}/shop"
NATIVE = "linux/amd64"
_HANDLERS = "/proc/sys/fs/binfmt_misc"
_PACKAGED = "/usr/lib/binfmt.d/qemu-aarch64.conf"


def built(name: str, options: Mapping[str, Any], check: bool = False) -> Json:
    """A task that builds; nothing of the fleet's registry is asked over TLS."""
    args = {"registry_validate_certs": False, **options}
    return {"name": name, "fleet.images.buildx_build": args, "check_mode": check, "diff": True}


class Site:
    """The build host, and others that have buildx."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self._hosts = {BUILDER}

    def write(self, files: Mapping[str, str], hosts: Iterable[str] = (BUILDER,)) -> None:
        """Writes files of the context; a Dockerfile among them begins a new one."""
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            for name, text in files.items():
                info = tarfile.TarInfo(f"{CONTEXT[1:]}/{name}")
                info.size, info.mode = len(text.encode()), 0o644
                tar.addfile(info, io.BytesIO(text.encode()))
        for host in hosts:
            self._hosts.add(host)
            if "Dockerfile" in files:
                self.rig.inside(host, "rm", "-rf", CONTEXT)
            self.rig.put(host, archive.getvalue(), "/")

    def keep(self, path: str, text: str, mode: int = 0o644) -> None:
        """Writes one file of the build host, by no command line."""
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            info = tarfile.TarInfo(path.lstrip("/"))
            info.size, info.mode, info.mtime = len(text.encode()), mode, time.time()
            tar.addfile(info, io.BytesIO(text.encode()))
        self.rig.put(BUILDER, archive.getvalue(), "/")

    def run(self, *command: str) -> str:
        """A command on the build host."""
        return self.rig.inside(BUILDER, *command)

    def shell(self, line: str) -> str:
        """A line of shell on the build host."""
        return self.run("sh", "-c", line)

    def build(self, options: Mapping[str, Any], check: bool = False) -> Json:
        """What one task on the build host gives, failed or not."""
        found = self.rig.results(BUILDER, [built("build", options, check)])
        return dict(found["build"][BUILDER])

    def round(self, options: Mapping[str, Any]) -> Json:
        """What a build gives, as foreseen; after it nothing is left to do."""
        return dict(self.rounds(options, BUILDER)[BUILDER])

    def rounds(
        self, options: Mapping[str, Any], hosts: str, kind: str = "settled"
    ) -> dict[str, Json]:
        """Host -> what a build gives. Settled: as foreseen, and after it nothing is left to do."""
        names = ("foreseen", "done", "again foreseen", "again")
        tasks = [built(name, options, "foreseen" in name) for name in names]
        found = self.rig.results(hosts, tasks if kind == "settled" else tasks[1:2])
        for host, done in found["done"].items():
            assert not done.get("failed"), done
            if kind == "settled":
                foreseen = found["foreseen"][host]
                assert foreseen["changed"] == done["changed"], (foreseen, done)
                assert foreseen["fingerprint"] == done["fingerprint"]
                assert foreseen["diff"]["before"] == done["diff"]["before"]
                for name in names[2:]:
                    assert not found[name][host]["changed"], found[name][host]
                    assert found[name][host]["diff"]["after"] == done["diff"]["after"]
        return dict(found["done"])

    def served(self, repository: str, tag: str) -> str:
        """The digest that the registry serves under a tag; '' for none."""
        try:
            return self.rig.manifest(repository, tag)[0]
        except urllib.error.HTTPError as error:
            assert error.code == 404
            return ""

    def forget(self, repository: str, tag: str) -> None:
        """Takes an image from the registry, with all its tags."""
        url = self.rig.manifest_url(repository, self.served(repository, tag))
        with urllib.request.urlopen(urllib.request.Request(url, method="DELETE"), timeout=30):
            pass

    def clean(self) -> None:
        """Takes away what builds left on the hosts."""
        images = "docker images -q | sort -u | xargs -r docker rmi -f"
        lines = f"rm -rf {CONTEXT} /var/tmp/build-*; {images}; docker builder prune -af; true"
        for host in self._hosts:
            self.rig.inside(host, "sh", "-c", f"({lines}) >/dev/null 2>&1")


@contextmanager
def handler(rig: Rig) -> Iterator[None]:
    """The kernel runs programs of arm64 meanwhile, by the package's own line under a name of ours.

    Handlers are the whole machine's; fleets side by side have one each.
    """
    name = f"fleet-{rig.fleet.name}"
    mount = f"mountpoint -q {_HANDLERS} || mount -t binfmt_misc binfmt_misc {_HANDLERS}"
    forget = f"[ ! -e {_HANDLERS}/{name} ] || echo -1 >{_HANDLERS}/{name}"
    give = f"sed 's/^:qemu-aarch64:/:{name}:/' {_PACKAGED} >{_HANDLERS}/register"
    rig.inside(BUILDER, "sh", "-c", f"{mount}; {forget}; {give}")
    try:
        yield
    finally:
        rig.inside(BUILDER, "sh", "-c", forget)
