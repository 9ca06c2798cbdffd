# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the examples of the documentation need around them, and what is to come of them.

Every example has a place here: tasks of a module in MODULES, YAML blocks of README files in
BLOCKS, playbooks in PLAYBOOKS. Images that they name are in STOCK, registries in `market.py`.
They run as they stand: what is prepared is prepared around them.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from market import LOGINS, PASSWORD, USER
from rig import JUMP_HOST, ROOT, Json
from stage import ALIASES, BUILDER, CONTAINERD, ENGINES, PREPARED

CHANGES, STAYS = "changed", "ok"
FETCHED = "/var/lib/fleet-images"
API, NGINX, POSTGRES = "registry.example/shop/api", "nginx:1.27-alpine", "postgres:16-alpine"

# What all registries have: repository -> tags.
STOCK = {
    "library/nginx": ("1.27-alpine", "alpine"),
    "library/postgres": ("15-alpine", "16", "16-alpine", "16.3-alpine", "16.4-alpine"),
    "library/python": ("3.9-slim",),
    "hub/library/nginx": ("1.27-alpine",),
    "shop/api": ("1.4.0", "1.4.1", "1.4.2", "4.2", "4.3"),
    "shop/app": ("stable",),
}


@dataclass(frozen=True)
class Scene:
    """One run of ansible-playbook.

    `before`, `after`: plays around the examples, in the same run.
    `holds`: the names of all images that the nodes then have; None where that tells nothing.
    """

    before: Sequence[Json] = ()
    after: Sequence[Json] = ()
    variables: Json = field(default_factory=dict)
    holds: frozenset[str] | None = None


@dataclass(frozen=True)
class Module(Scene):
    """`examples`: name -> what the task is to tell. `between`: tasks right before an example."""

    examples: Mapping[str, str] = field(default_factory=dict)
    hosts: str = "nodes"
    between: Mapping[str, Sequence[Json]] = field(default_factory=dict)


@dataclass(frozen=True)
class Block(Scene):
    """A block of YAML, or a playbook.

    `changes`: the hosts where it changes something. `hosts`: where tasks run.
    `using`: what is run with variables or an inventory, the name of a playbook or of another block.
    """

    changes: Sequence[str] = ENGINES
    hosts: str = "nodes"
    using: str = ""


def play(hosts: str, *tasks: Json, **more: Any) -> Json:
    """A play."""
    name = f"{PREPARED}a play for {hosts}"
    return {"name": name, "hosts": hosts, "gather_facts": False, "tasks": [*tasks], **more}


def task(what: str, module: str, arguments: Any, **more: Any) -> Json:
    """A task that no example is."""
    return {"name": f"{PREPARED}{what}", module: arguments, **more}


def shell(line: str) -> Json:
    """A command on the host."""
    return task(line.partition("\n")[0], "ansible.builtin.shell", line)


def pulled(*images: str) -> Json:
    """The Engine has these images."""
    return shell(f"printf '%s\\n' {' '.join(images)} | xargs -P 4 -n 1 docker pull --quiet")


def published(version: int, *images: str) -> Json:
    """All registries have another version of images from here on."""
    program = Path(__file__).with_name("market.py")
    words = [sys.executable, str(program), "{{ market_address }}", str(version), *images]
    return local("publish images", "ansible.builtin.command", {"argv": words})


def local(what: str, module: str, arguments: Any) -> Json:
    """A task on the controller, once."""
    return task(what, module, arguments, delegate_to="localhost", run_once=True)


def locked(*images: str) -> Json:
    """A lock file beside the play."""
    arguments = {"images": [*images], "dest": "{{ playbook_dir }}/images.lock.json"}
    return local("lock", "fleet.images.image_lock", arguments)


def fetched(**arguments: Any) -> Json:
    """The store has images, all that they are."""
    known = {"store": f"{FETCHED}/store", "attestations": True, **arguments}
    return task("fetch", "fleet.images.image_fetch", known)


def logged_in(registry: str) -> Json:
    """The login of a registry, as `docker login` leaves it."""
    auth = "{{ '" + f"{USER}:{PASSWORD}" + "' | b64encode }}"
    line = f'mkdir -p ~/.docker && echo \'{{"auths": {{"{registry}": {{"auth": "{auth}"}}}}}}\''
    return shell(f"{line} > ~/.docker/config.json")


def served(repository: str, tag: str) -> Json:
    """Fails where the registries do not have this."""
    url = "http://{{ market_address }}/v2/" + f"{repository}/manifests/{tag}"
    headers = {"Accept": "application/vnd.oci.image.index.v1+json"}
    return local(f"see {repository}:{tag}", "ansible.builtin.uri", {"url": url, "headers": headers})


def asserted(*claims: str) -> Json:
    """Fails where one of these is not so."""
    return task("look", "ansible.builtin.assert", {"that": [*claims]})


# Something to build, that needs no image and runs no program.
SOURCES = shell(
    "mkdir -p /srv/app && date > /srv/app/made &&"
    " printf 'FROM scratch\\nARG VERSION\\nCOPY . /app\\n' > /srv/app/Dockerfile"
)

# The build host reaches the nodes by their names, with the key that the controller has.
SSH_FROM_BUILDER = [
    local("read the key", "ansible.builtin.command", "cat {{ fleet_key }}") | {"register": "key"},
    shell("install -d -m 700 ~/.ssh && install -m 600 /dev/null ~/.ssh/id_ed25519"),
    task(
        "keep it",
        "ansible.builtin.copy",
        {"content": "{{ key.stdout }}\n", "dest": "~/.ssh/id_ed25519", "mode": "0600"},
    ),
    task(
        "know the names",
        "ansible.builtin.copy",
        {"content": "{{ fleet_names }}", "dest": "~/.ssh/config", "mode": "0600"},
    ),
]

# The pack on the controller's stick, and what is known of it as variables of the nodes.
PACK = [
    {
        **local(
            "make the pack, or find it in the cache",
            "ansible.builtin.shell",
            f"{sys.executable} {ROOT}/roles/docker_sdk/files/make_pack.py"
            ' --cache-dir "${XDG_CACHE_HOME:-$HOME/.cache}/fleet-images/sdk"',
        ),
        "register": "made",
    },
    task(
        "note it",
        "ansible.builtin.set_fact",
        {
            "pack_path": "{{ (made.stdout | from_json).path }}",
            "pack_key": "{{ (made.stdout | from_json).key }}",
            "pack_sha256": "{{ (made.stdout | from_json).sha256 }}",
        },
    ),
    local(
        "bring it",
        "ansible.builtin.shell",
        "rm -f /media/*/*.gz; cp {{ pack_path }} /media/stick; cp {{ pack_path }} /media/usb",
    ),
]
SDK = "/usr/local/lib/fleet-images/sdk"
NO_SDK = play("nodes", shell(f"rm -rf {SDK}.kept && mv {SDK} {SDK}.kept"))
SDK_KEPT = play("nodes", shell(f"rm -rf {SDK}.kept && cp -a {SDK} {SDK}.kept"))
SDK_BACK = play("nodes", shell(f"rm -rf {SDK} && mv {SDK}.kept {SDK}"))


def saved(image: str, command: str, *files: str) -> list[Json]:
    """Files that a shell command makes of what `docker save` writes, on the controller's stick."""
    return [
        pulled(image),
        shell(f"cd /var/tmp && docker save {image} | {command} && docker rmi {image}"),
        *(
            task(
                f"fetch {file}",
                "ansible.builtin.fetch",
                {"src": f"/var/tmp/{file}", "dest": "/media/stick/", "flat": True},
            )
            for file in files
        ),
    ]


PARTS = [f"my-images.tar.gz.part00{number}" for number in (1, 2)]

MODULES = {
    "buildx_build": Module(
        hosts="builders",
        before=[play("builders", SOURCES)],
        variables={"app_token": "a-token-for-tests", "registry_password": PASSWORD},
        examples={
            "A simple build with a tag, into the Engine": CHANGES,
            "One tag that works on both platforms, pushed": CHANGES,
            "With an argument, and a secret that stays one": CHANGES,
            "Into a store, from which it can be carried to hosts behind an air gap": CHANGES,
            "An image that anybody can build again, bit by bit": CHANGES,
        },
        after=[
            play(
                "builders",
                shell("docker image inspect my-app:v1 shop/files:1"),
                served("shop/app", "universal"),
                served("shop/app", "2"),
                asserted("built.lock.images | length == 1"),
            )
        ],
    ),
    "buildx_builder": Module(
        hosts="builders",
        before=[
            play(
                "nodes",
                task("group", "ansible.builtin.group_by", {"key": "buildnodes"}),
                task(
                    "pin",
                    "ansible.builtin.set_fact",
                    {
                        "image_build_node_platforms": [
                            "linux/{{ 'amd64' if inventory_hostname == '"
                            + CONTAINERD
                            + "' else 'arm64' }}"
                        ]
                    },
                ),
            ),
            play("builders", *SSH_FROM_BUILDER),
        ],
        examples={
            "Make a builder in a container, and build with it from now on": CHANGES,
            "Make one whose image of BuildKit is on the host, where no registry can be"
            " reached": CHANGES,
            "Make every host of a group a node of one builder, for the platforms in its"
            " image_build_node_platforms": CHANGES,
            "Use a BuildKit that runs somewhere": CHANGES,
            "Remove it": CHANGES,
            "Build with the Engine's own again": CHANGES,
        },
        after=[
            play(
                "builders",
                shell("docker buildx ls | grep -E 'ssh://root@.*linux/arm64'"),
                shell("docker buildx rm --force universal offline natives; rm -r ~/.ssh"),
            )
        ],
    ),
    "image_archive": Module(
        before=[play("nodes", pulled("nginx:alpine", "postgres:16"))],
        examples={
            "Fetch two images": CHANGES,
            "Write both into one file, as docker save would, to be carried by hand": CHANGES,
            "Write what the Engine of this host has into one file": CHANGES,
            "Write it in parts for a stick with FAT32, and keep the compressed layers for the next"
            " time": CHANGES,
        },
        after=[
            play(
                "nodes",
                shell("docker rmi nginx:alpine && docker load --input /var/tmp/my-images.tar"),
                shell("cd /mnt/stick && sha256sum -c my-images.tar.sha256"),
            )
        ],
        holds=frozenset({"nginx:alpine", "postgres:16"}),
    ),
    "image_fetch": Module(
        before=[
            play("nodes", pulled(f"{API}:4.3"), locked(POSTGRES)),
            play("nodes", fetched(images=["nginx:alpine"], lock_path=f"{FETCHED}/other.lock.json")),
        ],
        examples={
            "Fetch two images and lock them": CHANGES,
            "Fetch exactly what the lock says": CHANGES,
            "Ask all tags of the lock anew, through a mirror": CHANGES,
            "Take an image that was built here, and clear away what no lock wants any"
            " more": CHANGES,
        },
        between={
            "Ask all tags of the lock anew, through a mirror": [
                published(2, "library/nginx:1.27-alpine")
            ]
        },
        holds=frozenset({f"{API}:4.3"}),
    ),
    "image_info": Module(
        before=[
            play("nodes", pulled(f"{API}:4.2", f"{API}:4.3", POSTGRES)),
            play("nodes", shell(f"docker tag {API}:4.3 {API}:stable")),
        ],
        examples={
            "Tell of all images": STAYS,
            "Say how many there are": STAYS,
            "Look for the shop's images and for one tag, which may be missing": STAYS,
            "Name what nobody uses, largest first": STAYS,
            "Name the five that were tagged longest ago": STAYS,
        },
        after=[
            play(
                "nodes",
                asserted(
                    "found.images | length == 3",
                    "found.disk.free > 0",
                    "shop.images | length == 3",
                    "unused.result | length == 3",
                    "oldest.result | length > 0",
                ),
            )
        ],
        holds=frozenset({f"{API}:4.2", f"{API}:4.3", f"{API}:stable", POSTGRES}),
    ),
    "image_load": Module(
        before=[
            play(
                CONTAINERD,
                *saved(f"{API}:4.2", "cat > api.tar", "api.tar"),
                *saved(NGINX, "cat > my-images.tar", "my-images.tar"),
                *saved(
                    POSTGRES,
                    "gzip > my-images.tar.gz"
                    " && split -n 2 --numeric-suffixes=1 -a 3"
                    " my-images.tar.gz my-images.tar.gz.part"
                    " && sha256sum my-images.tar.gz.part* > my-images.tar.gz.sha256",
                    *(*PARTS, "my-images.tar.gz.sha256"),
                ),
            ),
            play(
                "nodes",
                task(
                    "copy",
                    "ansible.builtin.copy",
                    {
                        "src": "/media/stick/api.tar",
                        "dest": "/var/tmp/my-images.tar",
                        "mode": "0600",
                    },
                ),
                local(
                    "note its checksum",
                    "ansible.builtin.shell",
                    "sha256sum /media/stick/api.tar > {{ playbook_dir }}/my-images.tar.sha256",
                ),
            ),
        ],
        examples={
            "Load what a colleague brought on a stick": CHANGES,
            "Load what docker save wrote on another host, compressed and in parts, with a file of"
            " checksums beside it": CHANGES,
            "Load a bundle that lies on the host already, and only if it is the one that was"
            " meant": CHANGES,
        },
        holds=frozenset({NGINX, POSTGRES, f"{API}:4.2"}),
    ),
    "image_lock": Module(
        before=[play("nodes", locked(NGINX))],
        examples={
            "Lock what the fleet is to run, and keep what is locked already": CHANGES,
            "Fail if a tag of the lock has moved in its registry": STAYS,
            "Ask all tags of the lock anew": CHANGES,
            "Tell what has moved": STAYS,
        },
        between={"Ask all tags of the lock anew": [published(3, "library/nginx:1.27-alpine")]},
        after=[play("nodes", asserted("locked.drift | length == 1"))],
    ),
    "image_plan": Module(
        examples={
            "Resolve what is wanted on the bastion": CHANGES,
            "Tell what this host lacks": STAYS,
            "Say it": STAYS,
        },
        after=[play("nodes", asserted("planned.bytes > 100000"))],
        holds=frozenset(),
    ),
    "image_prune": Module(
        before=[
            play(
                "nodes",
                pulled(f"{API}:1.4.0", f"{API}:1.4.1", f"{API}:4.2", f"{API}:4.3"),
                shell(f"docker create {API}:4.3; rm -f /var/tmp/prune-plan.json"),
                shell("tar -C /etc -c hostname | docker import -"),
            )
        ],
        examples={
            "Remove dangling images, as docker image prune does": CHANGES,
            "Remove what nobody used for two weeks, and keep the newest two images of each"
            " repository": STAYS,
            "Get 10 GB of the disk free, but never remove more than 20 images at once": STAYS,
            "Only make a plan, to be looked at": CHANGES,
            "Do what was planned, where it still holds": CHANGES,
        },
        holds=frozenset({f"{API}:4.3"}),
    ),
    "image_pull": Module(
        variables={"vault_registry_password": PASSWORD},
        before=[
            play(
                "nodes",
                locked(f"{API}:4.2"),
                logged_in(LOGINS[0]),
                pulled(f"{LOGINS[0]}/shop/app:stable"),
                published(2, "shop/app:stable", "shop/api:4.2"),
                logged_in(LOGINS[1]),
            )
        ],
        examples={
            "Have these images before they are needed": CHANGES,
            "The same, exactly as a lock pins them": CHANGES,
            "See whether the registry has something newer under a tag, and take it": CHANGES,
            "Pull through the site's own mirror of Docker Hub, under the usual name": CHANGES,
        },
        between={
            "Pull through the site's own mirror of Docker Hub, under the usual name": [
                shell(f"docker rmi {NGINX}")
            ]
        },
    ),
    "image_push": Module(
        hosts="bastion",
        variables={"harbor_password": PASSWORD},
        before=[
            play(
                "bastion",
                fetched(
                    images=[{"name": f"{API}:4.2", "platforms": ["linux/amd64", "linux/arm64"]}],
                    lock_path=f"{FETCHED}/images.lock.json",
                ),
            )
        ],
        examples={
            "Fetch an image with all its platforms": CHANGES,
            "Feed the site's own registry": CHANGES,
            "Push one image of a lock file under another name": CHANGES,
        },
        after=[
            play("bastion", served("mirror/library/nginx", "1.27-alpine"), served("api", "stable"))
        ],
    ),
    "image_relay": Module(
        hosts="bastion",
        examples={
            "Fetch an image on the bastion": CHANGES,
            "Serve it on the bastion's loopback, for hosts that come through an SSH"
            " tunnel": CHANGES,
            "Serve it on the network": CHANGES,
            "End both": CHANGES,
        },
    ),
    "image_remove": Module(
        before=[
            play(
                "nodes",
                pulled("python:3.9-slim", f"{API}:1.4.0", f"{API}:1.4.1", f"{API}:4.3"),
                shell(f"docker create {API}:1.4.0"),
                shell("tar -C /etc -c hostname | docker import -"),
            )
        ],
        examples={
            "Remove two images that nobody uses": CHANGES,
            "Remove an old version with the stopped containers that still hold it": CHANGES,
            "Look for images that have no name": STAYS,
            "Remove those of them that nobody uses": CHANGES,
        },
        holds=frozenset({f"{API}:4.3"}),
    ),
    "image_report": Module(examples={"Print a table of two hosts": STAYS}),
    "image_search": Module(
        before=[play("nodes", logged_in(LOGINS[0]))],
        examples={
            "List the five newest releases of one series, with digests and platforms": STAYS,
            "Tell the newest": STAYS,
            "List what a registry of one's own has about a shop": STAYS,
            "Search Docker Hub, as docker search does": STAYS,
        },
        after=[
            play(
                "nodes",
                asserted(
                    "found.repositories[0].tags | map(attribute='tag')"
                    " == ['16.4-alpine', '16.3-alpine', '16-alpine']",
                ),
            )
        ],
    ),
    "sdk_pack": Module(
        before=[
            NO_SDK,
            play(
                "nodes",
                *PACK,
                task(
                    "bring the pack",
                    "ansible.builtin.copy",
                    {"src": "{{ pack_path }}", "dest": "/var/tmp/", "mode": "0600"},
                ),
            ),
        ],
        examples={
            "Ask whether the host has this version of the pack": STAYS,
            "Send the pack to a host that lacks it": CHANGES,
            "Install a pack that is on the host already": CHANGES,
            "Use the SDK of the host's own packages": CHANGES,
        },
        between={"Install a pack that is on the host already": [shell(f"rm -r {SDK}")]},
        after=[play("nodes", shell("rm /var/tmp/fleet-images-sdk-*")), SDK_BACK],
    ),
}

SHOP = frozenset({POSTGRES, "registry.example.com/shop/api:1.4.2"})
WANTED = frozenset({NGINX, f"{API}:4.2"})

PLAYBOOKS = {
    "airgap": Block(using="README.md: bastion", holds=SHOP, changes=tuple(ALIASES)[1:]),
    "preseed": Block(using="README.md: bastion", holds=SHOP, changes=tuple(ALIASES)[1:]),
    # Of the hosts in that inventory one has an Engine that builds.
    "build": Block(
        using="README.md: bastion",
        before=[play("shop2.example.com", SOURCES)],
        variables={
            "fleet_builders": "shop2.example.com",
            "fleet_builds": [{"path": "/srv/app", "tags": ["registry.example.com/shop/build:1"]}],
        },
        changes=("shop2.example.com",),
    ),
    "cleanup": Block(
        using="README.md: bastion",
        before=[play("nodes", shell("tar -C /etc -c hostname | docker import -"))],
        holds=frozenset(),
        changes=tuple(ALIASES)[1:],
    ),
}

BLOCKS = {
    # Each playbook is run with this inventory.
    "README.md: bastion": Block(),
    "README.md: Save two images, as docker save would": Block(
        changes=[JUMP_HOST],
        after=[play("bastion", shell("tar -xOf /var/tmp/my-images.tar manifest.json"))],
    ),
    "roles/airgap/README.md: Bring images across the air gap": Block(holds=WANTED),
    "roles/airgap/README.md: fleet_images": Block(
        using="roles/airgap/README.md: Bring images across the air gap",
        holds=frozenset({POSTGRES, "registry.site.example/web/nginx:1.27"}),
    ),
    "roles/docker_sdk/README.md: Give the nodes the Docker SDK": Block(
        before=[NO_SDK], after=[SDK_BACK]
    ),
    "roles/docker_sdk/README.md: docker_sdk_pack": Block(
        before=[NO_SDK, play("nodes", *PACK)],
        after=[SDK_BACK],
        using="roles/docker_sdk/README.md: Give the nodes the Docker SDK",
        variables={"docker_sdk_cache_dir": "{{ playbook_dir }}/packs"},
    ),
    "roles/docker_sdk/README.md: Remove the pack": Block(before=[SDK_KEPT], after=[SDK_BACK]),
    "roles/image_build/README.md: Build images, and push them": Block(
        before=[play("builders", SOURCES)],
        changes=(BUILDER,),
        after=[play("builders", served("shop/app", "universal"), served("shop/web", "1"))],
    ),
    "roles/image_cleanup/README.md: Clean up images by policy": Block(
        before=[
            play("nodes", pulled(*(f"{API}:{tag}" for tag in ("1.4.0", "1.4.1", "4.2", "4.3"))))
        ],
        holds=frozenset({f"{API}:4.2", f"{API}:4.3"}),
    ),
    "roles/image_relay/README.md: Offer the images of the site on its bastion": Block(holds=WANTED),
    "roles/preseed/README.md: Pull images before they are needed": Block(holds=WANTED),
}
