#!/usr/bin/python
# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: image_info
short_description: Tell which images an Engine has, and who uses them
version_added: 0.2.0
description:
  - Tells of all images of an Engine, or of some, what names they have, how large they are, and which containers use
    them. It changes nothing.
  - One list of images and one of containers are asked of the Engine, however many there are. What takes a call for
    each image is told on request (O(details)).
  - A name that finds nothing is no error; RV(missing) says so.
author: The fleet.images authors (@fleet-images)
extends_documentation_fragment:
  - fleet.images.engine
  - fleet.images.attributes
attributes:
  check_mode:
    support: full
    details: The module only reads.
  diff_mode:
    support: N/A
    details: The module changes nothing.
  idempotent:
    support: full
  platform:
    platforms: linux
options:
  images:
    description:
      - The images to tell of, all by default. Each is one of the following.
      - A reference such as V(nginx:1.27) or V(nginx@sha256:…); without tag and digest it means all tags.
      - A glob over the names, written out or as Docker prints them, such as V(registry.example/shop/*), V(nginx:1.*) or V(*/api).
        An asterisk matches slashes and colons too. Images without a name match no glob.
      - An image's ID, of which 12 digits are enough. Where a reference of that spelling is there, that is meant.
    type: list
    elements: str
    default: []
  details:
    description:
      - Whether to tell what costs the Engine more, which is a call for each image, some at once, and on the classic store
        its disk usage.
      - That is RV(images[].last_tagged), RV(disk.layers_bytes), RV(images[].platform) where the list of the Engine does not
        have it (the classic store, and the containerd store before API 1.47), and RV(images[].shared_bytes) before API
        1.42 (Engine 20.10). Before API 1.42, the disk usage includes all containers and volumes, which can take minutes.
      - Without it, these are null. A O(query) that names C(last_tagged), C(platform) or C(platforms) asks for it by itself.
    type: bool
    default: false
  intermediates:
    description:
      - Whether to tell also of the nameless images that others of this Engine were built upon, as C(docker images --all) does.
      - They then count as images of their own in RV(images[].shared_bytes).
    type: bool
    default: false
  query:
    description:
      - A JMESPath expression over RV(images). What it gives is returned as RV(result).
    type: str
seealso:
  - module: fleet.images.image_remove
  - name: JMESPath
    description: The query language.
    link: https://jmespath.org
"""

EXAMPLES = r"""
- name: Tell of all images
  fleet.images.image_info:
  register: found

- name: Say how many there are
  ansible.builtin.debug:
    msg: "{{ found.images | length }} images, {{ found.disk.free }} bytes free"

- name: Look for the shop's images and for one tag, which may be missing
  fleet.images.image_info:
    images:
      - registry.example/shop/*
      - docker.io/library/postgres:16-alpine
  register: shop

- name: Name what nobody uses, largest first
  fleet.images.image_info:
    query: "reverse(sort_by([?!containers], &size))[].{name: name, size: size}"
  register: unused

- name: Name the five that were tagged longest ago
  fleet.images.image_info:
    query: "sort_by([?last_tagged], &last_tagged)[].{name: name, when: last_tagged} | [0:5]"
  register: oldest
"""

RETURN = r"""
images:
  description: One entry per image, by name, those without a name last.
  returned: success
  type: list
  elements: dict
  contains:
    name: {description: "Its first reference, else its first digest, else its ID.", type: str, returned: always}
    id: {description: The ID that the Engine lists it under., type: str, returned: always}
    references: {description: "Its names with tags, fully spelled.", type: list, elements: str, returned: always}
    digests:
      description:
        - Its names with digests. On the classic store an image has one only where it came from a registry.
      type: list
      elements: str
      returned: always
    platform:
      description: Its platform; of several, the one that this machine runs. Null without O(details) where the list does not tell.
      type: str
      returned: always
    platforms:
      description: The platforms of it that are there whole; null as RV(images[].platform).
      type: list
      elements: str
      returned: always
    created: {description: "When it was built, in UTC; null where its maker did not say.", type: str, returned: always}
    last_tagged:
      description:
        - When it last got a tag on this Engine, in UTC. Null without O(details).
        - The classic store notes only C(docker tag) and its like, so it is null after a pull or load there.
      type: str
      returned: always
    size:
      description: Bytes of its layers; on the containerd store unpacked and, beside that, as blobs.
      type: int
      returned: always
    shared_bytes:
      description:
        - Bytes of its unpacked layers that other images use too; null where the Engine does not tell (see O(details)).
      type: int
      returned: always
    unique_bytes:
      description:
        - Bytes that only this image uses, which is what its removal frees once no container uses it and no build cache
          holds them; null where RV(images[].shared_bytes) is.
        - On the containerd store always null, since no API tells which blobs images share.
      type: int
      returned: always
    containers:
      description: The containers that use it, running or not.
      type: list
      elements: dict
      returned: always
      contains:
        id: {description: The container's ID., type: str, returned: always}
        name: {description: Its name., type: str, returned: always}
        state: {description: "As the Engine says it, such as V(running), V(exited) or V(created).", type: str, returned: always}
        running: {description: Whether it has a process; a paused one has., type: bool, returned: always}
    labels: {description: Its labels., type: dict, returned: always}
    dangling:
      description:
        - Whether C(docker image prune) would take it, were no container using it.
        - "On the classic store: it has no tag, and no image that is told of is built upon it; a digest does not keep it."
        - "On the containerd store: it has no name at all; a name by digest is one."
      type: bool
      returned: always
  sample:
    - name: docker.io/library/postgres:16-alpine
      id: sha256:9f2bc0f7b1b4f1a2f5d1ad63f2bd4f58e3a0c1b0a4c5d6e7f8091a2b3c4d5e6f
      references: [docker.io/library/postgres:16-alpine]
      digests: [docker.io/library/postgres@sha256:1b2c3d4e5f60718293a4b5c6d7e8f9011b2c3d4e5f60718293a4b5c6d7e8f901]
      platform: null
      platforms: null
      created: "2026-05-12T09:30:00Z"
      last_tagged: null
      size: 251658240
      shared_bytes: 8388608
      unique_bytes: 243269632
      containers: [{id: 5f0c0c3b0a1d, name: db, state: running, running: true}]
      labels: {}
      dangling: false
missing:
  description: What of O(images) found nothing, as it was written.
  returned: success
  type: list
  elements: str
result:
  description: What O(query) gives.
  returned: when O(query) is given
  type: raw
engine:
  description: The Engine's facts.
  returned: success
  type: dict
  contains:
    version: {description: The Engine's version., type: str, returned: always}
    api_version: {description: The API's version., type: str, returned: always}
    store: {description: "The image store, V(classic) or V(containerd).", type: str, returned: always}
    driver: {description: The storage driver or snapshotter., type: str, returned: always}
    platform: {description: The Engine's platform., type: str, returned: always}
    data_path: {description: The directory that holds the images., type: str, returned: always}
    free: {description: Bytes free there., type: int, returned: always}
disk:
  description: Where the images lie.
  returned: success
  type: dict
  contains:
    path: {description: The directory that holds them., type: str, returned: always}
    free: {description: "Bytes free there, null where that cannot be seen from here.", type: int, returned: always}
    layers_bytes:
      description:
        - Bytes of all layers, shared ones once, as the Engine counts them. Null without O(details), and on the containerd
          store, where counting them takes as long as the whole list.
      type: int
      returned: always
bytes:
  description: The sum of RV(images[].size), in which a shared layer counts for each image.
  returned: success
  type: int
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.fleet.images.plugins.module_utils._arguments import engine_arguments
from ansible_collections.fleet.images.plugins.module_utils._engine import Engine, EngineError
from ansible_collections.fleet.images.plugins.module_utils._info import Query, QueryError, look
from ansible_collections.fleet.images.plugins.module_utils._reference import InvalidReference
from ansible_collections.fleet.images.plugins.module_utils._sdk import SdkError, SdkMissing


def tell(params: dict[str, Any]) -> dict[str, Any]:
    """The module's result; a query that is no expression is refused before the Engine is asked."""
    query = Query(params["query"]) if params["query"] else None
    details = params["details"] or (query is not None and query.costly)
    result = look(Engine(params), params["images"], details, params["intermediates"])
    if query is not None:
        result["result"] = query.of(result["images"])
    return result


def main() -> None:
    """Runs the module."""
    module = AnsibleModule(
        argument_spec={
            **engine_arguments(),
            "images": {"type": "list", "elements": "str", "default": []},
            "details": {"type": "bool", "default": False},
            "intermediates": {"type": "bool", "default": False},
            "query": {"type": "str"},
        },
        supports_check_mode=True,
    )
    try:
        result = tell(module.params)
    except (EngineError, SdkError, InvalidReference, QueryError, OSError) as error:
        missing = isinstance(error, SdkMissing)
        module.fail_json(msg=str(error), changed=False, sdk_missing=missing)
    said = [f"{len(result['images'])} images, {result['bytes']} bytes"]
    if result["missing"]:
        said.append("not there: " + ", ".join(result["missing"]))
    module.exit_json(changed=False, msg="; ".join(said), **result)


if __name__ == "__main__":
    main()
