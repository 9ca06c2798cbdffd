# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A command `docker` that keeps builders as buildx does, with the faults of the real one.

Its arguments are those of `docker`. Beside the command lie `log`, what it was told, and `daemons`,
a directory with a file for each BuildKit: its settings and `running` or `stopped`. An endpoint that
has `dead` in it does not answer; an image `none` cannot be pulled.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import os
import shlex
import sys
from pathlib import Path
from typing import Any

Json = dict[str, Any]
PLACE = Path(sys.argv[0]).resolve().parent
DAEMONS = PLACE / "daemons"
STORE = Path(os.environ["BUILDX_CONFIG"])


class Refused(Exception):
    """What the command says on its standard error."""


def main() -> None:
    words = sys.argv[1:]
    words = words[words.index("buildx") + 1 :]
    where = "real" if STORE == PLACE / "buildx" else "aside"
    with open(PLACE / "log", "a", encoding="utf-8") as log:
        log.write(f"{where} {' '.join(words)}\n")
    verbs = {"create": create, "rm": remove, "inspect": inspect, "stop": stop, "use": use}
    if words[0] == "version":
        print("github.com/docker/buildx v0.29.1 x")
        return
    try:
        verbs[words[0]](words[1:])
    except Refused as error:
        sys.exit(f"ERROR: {error}")


def path(name: str) -> Path:
    return STORE / "instances" / name


def read(name: str) -> Json:
    if not path(name).exists():
        raise Refused(f'no builder "{name}" found')
    found: Json = json.loads(path(name).read_bytes())
    return found


def save(builder: Json) -> None:
    path(builder["Name"]).parent.mkdir(parents=True, exist_ok=True)
    path(builder["Name"]).write_text(json.dumps(builder))


def daemon(node: Json) -> Path:
    key = hashlib.sha256(f"{node['Name']} {node['Endpoint']}".encode()).hexdigest()[:8]
    return DAEMONS / f"{node['Name']}-{key}"


def create(words: list[str]) -> None:
    parser = argparse.ArgumentParser()
    for name in ("name", "driver", "node", "buildkitd-flags", "buildkitd-config"):
        parser.add_argument(f"--{name}")
    for name in ("platform", "driver-opt"):
        parser.add_argument(f"--{name}", action="append", default=[])
    for name in ("append", "leave"):
        parser.add_argument(f"--{name}", action="store_true")
    parser.add_argument("endpoint", nargs="?")
    # The value of a flag may begin with dashes.
    number = words.index("--buildkitd-flags") if "--buildkitd-flags" in words else len(words)
    joined = ["=".join(words[number : number + 2])] if number < len(words) else []
    given = parser.parse_args([*words[:number], *joined, *words[number + 2 :]])
    there = path(given.name).exists()
    builder = (
        read(given.name) if there else {"Name": given.name, "Driver": given.driver, "Nodes": []}
    )
    nodes = builder["Nodes"]
    if given.leave:
        builder["Nodes"] = [one for one in nodes if one["Name"] != given.node]
        if not builder["Nodes"]:
            raise Refused("can not leave last node, do you want to rm instance instead?")
        save(builder)
        return
    node = next((one for one in nodes if one["Name"] == given.node), None)
    if node is None and nodes and not given.append:
        raise Refused(f"node {given.node} not found, did you mean to append?")
    if node is None:
        node = {"Name": given.node, "Endpoint": os.environ["DOCKER_HOST"], "Platforms": None}
        node.update({"DriverOpts": None, "Flags": None, "Files": None})
        nodes.append(node)
    change(node, given)
    if "dead" in node["Endpoint"]:
        # As NodeGroup.Copy of buildx has it: what it gives back is empty.
        if len(nodes) > 1:
            kept = [one for one in nodes if one is not node]
            for one in kept:
                one.update({"Platforms": [], "Flags": [], "Files": {"buildkitd.toml": ""}})
            save({**builder, "Nodes": kept})
        raise Refused(f"failed to initialize builder {given.name} ({given.node}): no answer")
    save(builder)


def change(node: Json, given: argparse.Namespace) -> None:
    """What `create` does to a node: it takes what is not empty."""
    node["Endpoint"] = given.endpoint or node["Endpoint"]
    if given.platform:
        parts = (dict(zip(("os", "architecture"), one.split("/"))) for one in given.platform)
        node["Platforms"] = list(parts)
    if given.driver_opt:
        node["DriverOpts"] = dict(one.split("=", 1) for one in given.driver_opt)
    if given.driver == "docker-container":
        flags = shlex.split(given.buildkitd_flags or "")
        implied = "--allow-insecure-entitlement=network.host"
        node["Flags"] = flags if implied in flags else [*flags, implied]
    if given.buildkitd_config:
        # Written anew, in another form.
        lines = Path(given.buildkitd_config).read_text(encoding="utf-8").splitlines()
        text = "".join(f"{line.strip()}\n" for line in lines if not line.startswith("#"))
        files = node["Files"] or {}
        node["Files"] = {**files, "buildkitd.toml": base64.b64encode(text.encode()).decode()}


def remove(words: list[str]) -> None:
    builder = read(words[-1])
    path(words[-1]).unlink()
    for node in builder["Nodes"] if "--keep-daemon" not in words else ():
        daemon(node).unlink(missing_ok=True)
    if any("dead" in node["Endpoint"] for node in builder["Nodes"]):
        raise Refused("failed to remove one or more builders")


def inspect(words: list[str]) -> None:
    if words == ["default"]:
        print("Name: default\nDriver: docker\n\nNodes:\nName: default\nStatus: running")
        return
    builder = read(words[-1])
    if "--bootstrap" in words:
        for node in builder["Nodes"]:
            if "none" in (node["DriverOpts"] or {}).get("image", ""):
                raise Refused("failed to resolve reference none")
            if builder["Driver"] == "docker-container":
                daemon(node).write_text("running")
    print(f"Name: {builder['Name']}\nDriver: {builder['Driver']}\n\nNodes:")
    for node in builder["Nodes"]:
        state = daemon(node).read_text() if daemon(node).exists() else "inactive"
        state = "running" if builder["Driver"] == "remote" else state
        told = "Error: no answer" if "dead" in node["Endpoint"] else f"Status: {state}"
        print(f"Name: {node['Name']}\nEndpoint: {node['Endpoint']}\n{told}\n")


def stop(words: list[str]) -> None:
    for node in read(words[-1])["Nodes"]:
        if daemon(node).exists():
            daemon(node).write_text("stopped")


def use(words: list[str]) -> None:
    name = "" if words[0] == "default" else read(words[0])["Name"]
    key = os.environ["DOCKER_HOST"]
    (STORE / "current").write_text(json.dumps({"Key": key, "Name": name, "Global": False}))


if __name__ == "__main__":
    main()
