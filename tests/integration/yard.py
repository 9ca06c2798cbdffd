# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Images and containers of every sort on the nodes, for tests of clean-ups."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile

from rig import NODES, SEED, Rig, on_each

TEAM = "prune.example/team"
# Images, by the last part of their names, that no container uses, and that containers do use.
UNUSED = {"app:1.0", "app:1.1", "app:1.2", "composed:7", "labelled:1", "asked:1", "old:1970"}
UNUSED |= {"foreign:1"}
KEPT = {"run:1", "run:2", "other/run:1", "stop:1", "stop:2"}
TOP = 300_000  # bytes of the layer that an image adds

# Images upon one base that is theirs alone, as `docker commit` makes them. The last two of dev:1
# take the name from those before, as rebuilds do.
_FILL = f"""
set -e
export DOCKER_BUILDKIT=0
team={TEAM}
there() {{ docker image inspect "$1" >/dev/null 2>&1; }}
add() {{ # name, and an instruction
    there "$team/$1" && [ "$1" != dev:1 ] && return
    docker create --name make "$team/base:1" true >/dev/null
    head -c {TOP} /dev/urandom >/tmp/top
    docker cp /tmp/top make:/top >/dev/null
    docker commit --change "${{2:-LABEL team=shop}}" make "$team/$1" >/dev/null
    docker rm make >/dev/null
}}
docker rm -f make >/dev/null 2>&1 || true
rm -f /var/tmp/fleet-images.log /var/tmp/plan.json
if ! there "$team/base:1"; then
    docker create --name make {SEED[0]} true >/dev/null
    head -c {TOP} /dev/urandom >/tmp/top
    docker cp /tmp/top make:/base >/dev/null
    docker commit make "$team/base:1" >/dev/null
    docker rm make >/dev/null
fi
for name in app:1.0 app:1.1 app:1.2 app:1.10 composed:7 asked:1 run:1 stop:1; do add $name; done
add labelled:1 "LABEL keep=yes"
docker tag "$team/app:1.10" "$team/app:latest"
docker tag "$team/run:1" "$team/run:2"
docker tag "$team/run:1" "$team/other/run:1"
docker tag "$team/stop:1" "$team/stop:2"
there "$team/old:1970" || docker load -q -i /var/tmp/old.tar >/dev/null
if ! there "$team/foreign:1"; then
    mkdir -p /tmp/foreign && date >/tmp/foreign/date
    tar -C /tmp/foreign -c . | docker import --platform linux/arm64 - "$team/foreign:1" >/dev/null
fi
docker ps -a --format '{{{{.Names}}}}' | grep -qx running ||
    docker run -d --name running --network none --entrypoint sleep "$team/run:1" 6000 >/dev/null
docker ps -a --format '{{{{.Names}}}}' | grep -qx stopped ||
    docker create --name stopped --network none --entrypoint true "$team/stop:1" >/dev/null
missing=$((2 - $(docker images -q --filter dangling=true --filter label=team=rebuilt | wc -l)))
while [ "$missing" -gt -1 ]; do
    add dev:1 "LABEL team=rebuilt"
    missing=$((missing - 1))
done
docker rmi "$team/dev:1" >/dev/null
rm -f /tmp/top
"""
_CLEAR = f"""
docker rm -f running stopped make late >/dev/null 2>&1
docker images -a --format '{{{{.Repository}}}}:{{{{.Tag}}}}' | grep ^{TEAM} |
    xargs -r docker rmi -f >/dev/null
docker images -q --filter dangling=true | xargs -r docker rmi -f >/dev/null
rm -rf /var/tmp/old.tar /srv/app /tmp/foreign /var/tmp/fleet-images.log /var/tmp/plan.json
"""


def fill(rig: Rig) -> None:
    """Has every node hold all of the images, and the containers."""
    old = _old_archive()

    def one(node: str) -> None:
        rig.put(node, old, "/var/tmp")
        rig.inside(node, "sh", "-c", _FILL)

    on_each(one, NODES)


def clear(rig: Rig) -> None:
    """Takes all of it away again."""
    on_each(lambda node: rig.inside(node, "sh", "-c", _CLEAR, check=False), NODES)


def names_of(rig: Rig, host: str) -> set[str]:
    """The names of a host's images; one that begins with <none> has none."""
    line = "docker images --format '{{.Repository}}:{{.Tag}}'"
    return set(rig.inside(host, "sh", "-c", line).split())


def starts(rig: Rig, host: str) -> None:
    """The running container runs, and the stopped one starts."""
    line = "docker inspect -f '{{.State.Running}}' running && docker start -a stopped && echo fine"
    assert rig.inside(host, "sh", "-c", line).split() == ["true", "fine"]


def _old_archive() -> bytes:
    """A tar with the archive of an image that says it was built in 1970; the same every time."""
    layer = _tar({"file": b"old" * 50_000})
    config = json.dumps(
        {
            "created": "1970-01-01T00:00:00Z",
            "architecture": "amd64",
            "os": "linux",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": [_digest(layer)]},
            "history": [{"created": "1970-01-01T00:00:00Z"}],
        }
    ).encode()
    name = f"{_digest(config)[7:]}.json"
    manifest = [{"Config": name, "RepoTags": [f"{TEAM}/old:1970"], "Layers": ["layer.tar"]}]
    files = {name: config, "layer.tar": layer, "manifest.json": json.dumps(manifest).encode()}
    return _tar({"old.tar": _tar(files)})


def _tar(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"
