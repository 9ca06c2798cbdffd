# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the role image_build makes of its inventory and of its steps. Pure."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError

from ansible_collections.fleet.images.plugins.module_utils import _dockerfile, _lock
from ansible_collections.fleet.images.plugins.module_utils._build_command import texts
from ansible_collections.fleet.images.plugins.module_utils._reference import (
    canonical,
    parse_platform,
)
from ansible_collections.fleet.images.plugins.plugin_utils._airgap import trouble

Json = Mapping[str, Any]

_IMAGE = "docker-image://"
# What QEMU calls the architectures of OCI (https://go.dev/doc/install/source#environment).
_QEMU = {
    "amd64": "x86_64", "386": "i386", "arm64": "aarch64", "arm": "arm", "ppc64le": "ppc64le",
    "s390x": "s390x", "riscv64": "riscv64", "mips64le": "mips64el", "loong64": "loongarch64",
}  # fmt: skip
# A machine that runs the programs of another architecture by itself.
_ALSO = {"amd64": ("386",)}


def order(builds: Sequence[Json], dockerfiles: Mapping[str, str]) -> list[dict[str, Any]]:
    """In which order to build: `number` in the list, `path`, `tags`, and of tags in full those that
    it `makes` and those of the builds that it comes `after`. Else the user's order; no secret.

    `dockerfiles`: path -> text, of those that could be read. A build builds on another one whose
    tag its Dockerfile, its build contexts or its own `needs` name. Raises AnsibleFilterError for
    builds that need each other, and for a tag that two builds have.
    """
    made: dict[str, int] = {}
    for number, build in enumerate(builds):
        for tag in build.get("tags") or ():
            if made.setdefault(canonical(str(tag)), number) != number:
                raise AnsibleFilterError(f"builds: two of them make {tag}; give each its own tags")
    needs = [
        {made[name] for name in map(canonical, _names(build, dockerfiles)) if name in made}
        - {number}
        for number, build in enumerate(builds)
    ]
    done: list[int] = []
    while len(done) < len(builds):
        free = [n for n in range(len(builds)) if n not in done and needs[n] <= set(done)]
        if not free:
            left = [_shown(builds[n]) for n in range(len(builds)) if n not in done]
            raise AnsibleFilterError(f"builds: {', '.join(left)} need each other; break the circle")
        done.append(free[0])
    tags = [[canonical(str(tag)) for tag in build.get("tags") or ()] for build in builds]
    return [
        {
            "number": n,
            "path": str(builds[n].get("path")),
            "tags": list(builds[n].get("tags") or ()),
            "makes": tags[n],
            "after": sorted(tag for need in needs[n] for tag in tags[need]),
        }
        for n in done
    ]


def _names(build: Json, dockerfiles: Mapping[str, str]) -> list[str]:
    """The images that a build names."""
    contexts = texts(build.get("build_contexts"))
    found = [*(build.get("needs") or ()), *_named_images(contexts.values())]
    text = build.get("dockerfile_inline") or dockerfiles.get(dockerfile_of(build))
    if text:
        try:
            outside = _dockerfile.parse(str(text)).outside(
                str(build.get("target") or ""),
                texts(build.get("args")),
                platforms=build.get("platforms") or (),
                contexts=tuple(contexts),
            )
            found += outside.images
        except _dockerfile.InvalidDockerfile:
            pass  # The build itself tells.
    return found


def _named_images(contexts: Iterable[str]) -> list[str]:
    """Of build contexts, the images that they name."""
    return [one[len(_IMAGE) :] for one in contexts if one.startswith(_IMAGE)]


def dockerfile_of(build: Json) -> str:
    """The path of a build's Dockerfile, if its context is a directory."""
    name = str(build.get("dockerfile") or "Dockerfile")
    return name if name.startswith("/") else f"{str(build.get('path')).rstrip('/')}/{name}"


def dockerfiles(builds: Iterable[Json]) -> list[str]:
    """The paths of the Dockerfiles that can be read on the build host."""
    paths = [dockerfile_of(one) for one in builds if not one.get("dockerfile_inline")]
    return list(dict.fromkeys(path for path in paths if path.startswith("/")))


def read_files(results: Iterable[Json]) -> dict[str, str]:
    """Path -> text, from the results of a loop of ansible.builtin.slurp, failed ones left out."""
    found = {}
    for one in results:
        if one.get("content"):
            content = base64.b64decode(one["content"]).decode("utf-8", "replace")
            found[str(one["item"])] = content
    return found


def handlers(told: str, wanted: Iterable[str], pinned: Iterable[str] = ()) -> list[str]:
    """What QEMU calls the architectures that a host is to run and cannot: `aarch64` and so on.

    `told`: `uname -m`, and then what `grep .` says of the kernel's handlers, file by file.
    `wanted`: platforms. `pinned`: those that other nodes build. A handler counts that is enabled
    and holds its program open (flag F), since steps have a file system of their own.
    """
    machine, _newline, files = told.partition("\n")
    own = parse_platform(machine).split("/")[1]
    there = {own, *_ALSO.get(own, ())} | _emulated(files)
    elsewhere = {parse_platform(one) for one in pinned}
    lacking = []
    for platform in map(parse_platform, wanted):
        architecture = platform.split("/")[1]
        if architecture not in there and platform not in elsewhere:
            lacking.append(_QEMU.get(architecture, architecture))
    return sorted(set(lacking))


def _emulated(files: str) -> set[str]:
    """The architectures whose programs the kernel hands to QEMU."""
    facts: dict[str, dict[str, str]] = {}
    for line in files.splitlines():
        path, _colon, text = line.partition(":")
        key, _blank, value = text.partition(" ")
        facts.setdefault(path, {})[key.rstrip(":")] = value
    names = {f"qemu-{name}": architecture for architecture, name in _QEMU.items()}
    found = set()
    for one in facts.values():
        program = one.get("interpreter", "").rpartition("/")[2].removesuffix("-static")
        if "enabled" in one and "F" in one.get("flags", "") and program in names:
            found.add(names[program])
    return found


def nodes(hosts: Iterable[Json]) -> list[dict[str, Any]]:
    """Each of these hosts as a node of a builder, reached by ssh. `hosts`: their variables."""
    found = []
    for host in hosts:
        user = host.get("ansible_user") or "root"
        port = f":{host['ansible_port']}" if host.get("ansible_port") else ""
        address = host.get("ansible_host") or host["inventory_hostname"]
        node: dict[str, Any] = {
            "name": _node_name(str(host["inventory_hostname"])),
            "endpoint": f"ssh://{user}@{address}{port}",
        }
        if host.get("image_build_node_platforms"):
            node["platforms"] = list(host["image_build_node_platforms"])
        found.append(node)
    return found


def _node_name(host: str) -> str:
    """buildx takes letters, digits and a few signs, and makes a container's name of it."""
    return "".join(one if one.isalnum() or one in "-_" else "-" for one in host)


def outcome(host: str, steps: Json) -> dict[str, Any]:
    """What became of one host: the fact `image_build_result`.

    `steps`: the results `order`, `emulation` and `builder`, and `builds`, a list of `build`, its
    `result`, and `refused`, why it was not tried.
    """
    trouble_before = _trouble_before(steps)
    builds = [_row(host, one) for one in steps.get("builds") or ()]
    reasons = [trouble_before, *(row["reason"] for row in builds)]
    reason = "; ".join(dict.fromkeys(one for one in reasons if one))
    lock: dict[str, Any] = {}
    for one in steps.get("builds") or ():
        lock.update(((one["result"].get("lock") or {}).get("images")) or {})
    return {
        "host": host,
        "done": not reason,
        "reason": reason,
        "changed": any(row["changed"] == "yes" for row in builds),
        "builds": builds,
        "lock": {"version": _lock.VERSION, "images": lock} if lock else None,
    }


def _trouble_before(steps: Json) -> str:
    for name in ("order", "emulation", "builder"):
        found = trouble(steps.get(name) or {}, "the host")
        if found:
            return found
    return ""


def _row(host: str, one: Json) -> dict[str, Any]:
    build, result = one["build"], one.get("result") or {}
    refused = str(one.get("refused") or "")
    reason = refused or trouble(result, "the host")
    platforms = sorted(result.get("platforms") or build.get("platforms") or ())
    digest = str(result.get("digest") or "")
    sizes = [int(one["size"]) for one in (result.get("platforms") or {}).values()]
    return {
        "host": host,
        "done": not reason,
        "reason": reason,
        "image": _shown(build),
        "tags": list(build.get("tags") or ()),
        "platforms": ", ".join(platforms),
        "digest": digest.partition(":")[2][:12],
        "full_digest": digest,
        "bytes": sum(sizes) if sizes else None,
        "changed": "" if reason else ("yes" if result.get("changed") else "no"),
        "cached": f"{result.get('cached_steps', 0)}/{result['steps']}"
        if result.get("steps")
        else "",
        "seconds": float(result.get("seconds") or 0.0),
        "why": "" if reason else str(result.get("msg") or ""),
    }


def rows(hosts: Iterable[Json]) -> list[dict[str, Any]]:
    """A row for each build of each host; one for a host that has none. `hosts`: their variables."""
    found: list[dict[str, Any]] = []
    for variables in hosts:
        host = str(variables["inventory_hostname"])
        missing: dict[str, Any] = {
            "done": False,
            "reason": "the run ended for it before the report",
            "builds": [],
        }
        result: Json = variables.get("image_build_result") or missing
        own = [dict(row) for row in result["builds"]]
        if not own or (not result["done"] and all(row["done"] for row in own)):
            own.append({"host": host, "done": result["done"], "reason": result["reason"]})
        found += own
    return found


def locks(hosts: Iterable[Json]) -> dict[str, Any] | None:
    """The locks of what all hosts built as one; None where there is none."""
    images: dict[str, Any] = {}
    for variables in hosts:
        result = variables.get("image_build_result") or {}
        images.update((result.get("lock") or {}).get("images") or {})
    return {"version": _lock.VERSION, "images": images} if images else None


def _shown(build: Json) -> str:
    tags = build.get("tags") or ()
    return str(tags[0] if tags else build.get("path"))
