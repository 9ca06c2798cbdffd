#!/usr/bin/python
# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: image_fetch
short_description: Fetch images from registries or the local Engine into a store, and lock them
version_added: 0.1.0
author:
  - The fleet.images authors (@fleet)
description:
  - Fetches images from registries into a I(store), an OCI image layout directory that keeps every blob once. All blobs
    stay byte for byte what the registry has, so digests and image IDs stay the same.
  - Takes images from the local Engine as well, if that is wanted with O(source).
  - Returns the I(lock), which is the list of images resolved to digests, and writes it to a file if wanted. A lock
    that is given pins, which means that its digests are fetched and tags are not asked again.
  - Blobs that the store has are not fetched again, and an interrupted transfer goes on where it stopped.
  - An image that cannot be fetched does not hold up the others. The task fails when all others are done.
  - Needs a Docker Engine only for images that are to come from it.
  - Removes nothing from the store unless O(keep) is given.
options:
  images:
    description:
      - The images, each a reference such as V(nginx:1.27), or a dictionary.
      - The keys of a dictionary are C(name) (required, a reference), C(digest) (pins the image), C(platforms) (a list, in
        place of O(platform)) and C(as) (the name that the image gets at its destination).
      - With O(lock) or O(lock_path), selects from the lock. Images that the lock lacks are resolved and added.
      - Defaults to all images of the lock.
    type: list
    elements: raw
  store:
    description:
      - Directory of the store. It is created if it is not there.
    type: path
    required: true
  lock:
    description:
      - A lock, as RV(lock) returns it. It pins. Takes precedence over the file O(lock_path).
    type: dict
  lock_path:
    description:
      - File of the lock, on the host that runs this task. It pins if it is there.
      - It is written with the images that were fetched, only if that changes its content. Other images in it stay.
    type: path
  update:
    description:
      - Whether to ask tags anew in place of the digests of the lock. A digest in O(images) still pins.
    type: bool
    default: false
  platform:
    description:
      - The platform for images that name none, such as V(linux/arm64).
      - Defaults to the platforms that the lock has for the image, and to the platform of the host for a new one.
    type: str
  source:
    description:
      - Where the images come from. V(registry) is each image's registry, and V(daemon) the Engine on this host.
      - V(auto) is the registry where it answers for the image, else the Engine.
      - From an Engine with the classic image store an image keeps its ID, but not its digest, since such an Engine does
        not have its layers as the registry does. A lock pins such an image only as it was taken from the Engine.
    type: str
    choices: [registry, daemon, auto]
    default: registry
  attestations:
    description:
      - Whether to fetch what an index has about the wanted platforms, such as provenance and a list of contents.
      - The lock then has it, and Engines with the containerd store get it with the image. Engines with the classic
        store have no place for it.
      - From an Engine none are taken.
    type: bool
    default: false
  verify:
    description:
      - Whether to read the wanted blobs that the store has, and to fetch anew those that are damaged.
      - Manifests and configs, and the sizes of all blobs, are looked at in any case.
    type: bool
    default: false
  keep:
    description:
      - Locks whose blobs stay in the store, besides those of this task. The lock of this task is O(lock) and the file
        O(lock_path), with what this run changed in them.
      - Each is a lock's content, or the path of a lock file on this host.
      - If it is given, even as an empty list, everything else is removed once all images are fetched, except what a
        O(lease) keeps. Layers, configs and half-fetched blobs go, and names of images that are gone. Small manifests of
        former images stay, since they tell which layers Engines with the containerd store have.
      - Relays of M(fleet.images.image_relay) go too if they were started with a C(lease) that is over.
      - Nothing is removed while another task uses the store, or if an image failed.
    type: list
    elements: raw
  lease:
    description:
      - A name, under which the blobs of this task are kept from other tasks' O(keep), until the file
        C(.leases/<name>) in the store is removed, or for a day.
    type: str
  parallel:
    description:
      - How many blobs to fetch at a time.
    type: int
    default: 4
  retries:
    description:
      - How often to try again when a registry does not answer, answers with an error of its own or a limit, or breaks
        the connection. Waits longer each time, and as long as the registry asks for.
      - A try that brought a transfer forward does not count.
    type: int
    default: 3
extends_documentation_fragment:
  - fleet.images.engine
  - fleet.images.registry
  - fleet.images.attributes
attributes:
  check_mode:
    support: full
    description: Reads the small manifests from the registries, writes nothing, and returns the whole lock.
  diff_mode:
    support: full
    description: Shows the digest of each image in the store, before and after.
  idempotent:
    support: full
    description: A tag that has moved in the registry is a change, unless a lock or a digest pins it.
  platform:
    support: full
    description: Needs Python 3.9 or newer, C(requests) and the Docker SDK for Python, which reads logins.
requirements:
  - Python >= 3.9
  - requests
  - docker (the Docker SDK for Python)
notes:
  - The role P(fleet.images.docker_sdk#role) gives a host the packages that this module needs.
"""

EXAMPLES = r"""
- name: Fetch two images and lock them
  fleet.images.image_fetch:
    store: /var/lib/fleet-images/store
    lock_path: /var/lib/fleet-images/images.lock.json
    images:
      - nginx:1.27-alpine
      - name: registry.example/shop/api:4.2
        platforms: [linux/amd64, linux/arm64]

- name: Fetch exactly what the lock says
  fleet.images.image_fetch:
    store: /var/lib/fleet-images/store
    lock: "{{ lookup('ansible.builtin.file', 'images.lock.json') | from_json }}"

- name: Ask all tags of the lock anew, through a mirror
  fleet.images.image_fetch:
    store: /var/lib/fleet-images/store
    lock_path: /var/lib/fleet-images/images.lock.json
    update: true
    registry_mirrors:
      docker.io: [https://mirror.example]

- name: Take an image that was built here, and clear away what no lock wants any more
  fleet.images.image_fetch:
    store: /var/lib/fleet-images/store
    lock_path: /var/lib/fleet-images/images.lock.json
    images: [registry.example/shop/api:4.3]
    source: daemon
    keep: [/var/lib/fleet-images/other.lock.json]
"""

RETURN = r"""
lock:
  description:
    - The images of this task, resolved, for the platforms that were wanted. Images that failed are not in it.
  returned: always
  type: dict
  sample:
    version: 1
    images:
      docker.io/library/nginx:1.27-alpine:
        digest: sha256:6f6d0a7b2cd0f4f3f0c9d7a3fbb9ab4ce7cf5c1d0f0ae6a5c2f2a3f0c9d7a3fb
        media_type: application/vnd.oci.image.index.v1+json
        size: 1609
        platforms: {}
known:
  description:
    - Which layers of RV(lock) the manifests in the store have, those that a tag named formerly included.
    - The modules that work out what a host lacks take it, since an Engine can only tell which manifests it has.
  returned: always
  type: list
  elements: dict
  contains:
    digest:
      description: Digest of the manifest.
      type: str
    indexes:
      description: Digests of the indexes in the store that name it.
      type: list
      elements: str
    platform:
      description: Its platform.
      type: str
    blobs:
      description: Digests of its layers, as far as RV(lock) has them too.
      type: list
      elements: str
images:
  description: What became of each image.
  returned: always
  type: list
  elements: dict
  contains:
    name:
      description: The image's full name.
      type: str
    id:
      description: Digest of its config, of the first platform in alphabetical order. Empty if it is not known.
      type: str
    digest:
      description: Digest of its index or manifest. Empty if it is not known.
      type: str
    action:
      description: V(none), V(fetched) or V(failed).
      type: str
    source:
      description: V(registry) or V(daemon).
      type: str
    reason:
      description: Why, in words.
      type: str
    bytes:
      description: Bytes received for it, or to be received in check mode. A shared blob counts for one image only.
      type: int
    seconds:
      description: Time spent on it. Blobs that were fetched side by side add up.
      type: float
    attempts:
      description: V(1), and one more for each request that had to be repeated.
      type: int
bytes_fetched:
  description: Bytes that came into the store, or that would come in check mode.
  returned: always
  type: int
bytes_reused:
  description: Bytes of the images that the store had already.
  returned: always
  type: int
removed_blobs:
  description: How many blobs were removed, whole and half-fetched ones, or would be removed in check mode.
  returned: when O(keep) is given
  type: int
removed_relays:
  description: Names of relays that runs have left behind (see O(keep)) and that were ended and removed.
  returned: when O(keep) is given
  type: list
  elements: str
removed_bytes:
  description: Bytes of these blobs.
  returned: when O(keep) is given
  type: int
seconds:
  description: Time that all of it took.
  returned: always
  type: float
"""

import functools
import platform

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.fleet.images.plugins.module_utils import (
    _engine,
    _fetch,
    _job,
    _layout,
    _lock,
    _reference,
    _registry,
    _registry_options,
    _retry,
    _sdk,
    _sweep,
)
from ansible_collections.fleet.images.plugins.module_utils._arguments import (
    engine_arguments,
    registry_arguments,
)

ARGUMENTS = {
    "images": {"type": "list", "elements": "raw"},
    "store": {"type": "path", "required": True},
    "lock": {"type": "dict"},
    "lock_path": {"type": "path"},
    "update": {"type": "bool", "default": False},
    "platform": {"type": "str"},
    "source": {
        "type": "str",
        "choices": ["registry", "daemon", "auto"],
        "default": "registry",
    },
    "attestations": {"type": "bool", "default": False},
    "verify": {"type": "bool", "default": False},
    "keep": {"type": "list", "elements": "raw"},
    "lease": {"type": "str"},
    "parallel": {"type": "int", "default": 4},
    "retries": {"type": "int", "default": 3},
    **registry_arguments(),
    **engine_arguments(),
}


def task_from(module: AnsibleModule) -> _job.Task:
    """What the module was called with; raises InvalidReference, LockError, LayoutError, OSError."""
    params = module.params
    wanted = params["platform"]
    if params["lease"]:
        _sweep.check_lease_name(params["lease"])
    return _job.Task(
        store=params["store"],
        own_platform=_reference.parse_platform(platform.machine()),
        specs=_reference.parse_images(params["images"] or []),
        lock=_lock.load(params["lock"]) if params["lock"] else {},
        lock_path=params["lock_path"],
        update=params["update"],
        platform=_reference.parse_platform(wanted) if wanted else None,
        source=params["source"],
        attestations=params["attestations"],
        verify=params["verify"],
        keep=None if params["keep"] is None else _job.read_keep(params["keep"]),
        lease=params["lease"] or "",
        parallel=max(1, params["parallel"]),
        dry_run=module.check_mode,
    )


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(
        argument_spec=ARGUMENTS,
        required_one_of=[("images", "lock", "lock_path")],
        supports_check_mode=True,
    )
    try:
        retrier = _retry.Retrier(retries=max(0, module.params["retries"]))
        with _registry.Registry(_registry_options.options_from(module.params), retrier) as registry:
            connect = functools.partial(_engine.Engine, module.params)
            result = _fetch.run(task_from(module), registry, connect)
    except (
        _layout.LayoutError,
        _lock.LockError,
        _reference.InvalidReference,
        _registry.RegistryError,
        _sdk.SdkError,
    ) as error:
        module.fail_json(msg=str(error), sdk_missing=isinstance(error, _sdk.SdkMissing))
    except OSError as error:
        module.fail_json(
            msg=f"the store {module.params['store']} or its lock file cannot be used ({error});"
            " check its space and its owner"
        )
    if not module._diff:
        del result["diff"]
    if result.get("failed"):
        module.fail_json(**result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
