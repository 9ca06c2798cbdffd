#!/usr/bin/python
# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: image_remove
short_description: Remove named images, and say what holds the others
version_added: 0.2.0
description:
  - Removes images of a list from an Engine, or names from images that have others. What is not there is fine.
  - An image that a container uses stays as it is, with all its names, unless O(in_use) says what to do about the
    container. All images are tried; then the task fails with all that failed.
  - The Engine is never told to use force, since that would take the record of an image in use and leave its layers on the disk.
    Afterwards the Engine is looked at again. What it says it removed, and still has, is an error.
author: The fleet.images authors (@fleet-images)
extends_documentation_fragment:
  - fleet.images.engine
  - fleet.images.attributes
attributes:
  check_mode:
    support: full
    details: Names the images and containers of the run. The bytes are null, since only the removal proves them.
  diff_mode:
    support: full
  idempotent:
    support: full
  platform:
    platforms: linux
options:
  images:
    description:
      - The images to remove. Each is one of the following.
      - A reference with a tag, V(nginx:1.27); without a tag it means C(latest). Only this name is taken from the image, which
        goes with its last name.
      - A reference with tag and digest, V(nginx:1.27@sha256:…). The tag is taken only from the image that has this digest. On
        the classic store, an image that was loaded has none, and its ID counts.
      - A reference with a digest, V(nginx@sha256:…), or an ID, of which 12 digits are enough. The image goes with its name, and
        with all of several where O(force=true). A name of that spelling comes before an ID.
    type: list
    elements: str
    required: true
  in_use:
    description:
      - What to do about an image that would lose its last name while containers use it.
      - V(fail) touches nothing of that image, names the containers and whether they run, and fails.
      - V(skip) touches nothing of it either, and goes on.
      - V(remove_stopped) removes containers that do not run, with their own data but not their volumes, and then the image. Where
        one runs, nothing is touched, and it fails.
      - V(remove_containers) stops and removes all of them. Mind that O(timeout) is longer than they take to stop.
    type: str
    choices: [fail, skip, remove_stopped, remove_containers]
    default: fail
  force:
    description:
      - Whether an image that is given by ID or digest may go with several names. It does nothing about images in use.
    type: bool
    default: false
  prune_parents:
    description:
      - Whether nameless images go too that only a removed one was built upon, by the classic builder or C(docker commit) here.
    type: bool
    default: true
  lock_timeout:
    description:
      - Seconds to wait for another run that writes images into the same Engine by a module of this collection.
    type: int
    default: 600
seealso:
  - module: fleet.images.image_info
"""

EXAMPLES = r"""
- name: Remove two images that nobody uses
  fleet.images.image_remove:
    images:
      - python:3.9-slim
      - registry.example/shop/api:1.4.1

- name: Remove an old version with the stopped containers that still hold it
  fleet.images.image_remove:
    images:
      - registry.example/shop/api:1.4.0
    in_use: remove_stopped

- name: Look for images that have no name
  fleet.images.image_info:
    query: "[?dangling].id"
  register: nameless

- name: Remove those of them that nobody uses
  fleet.images.image_remove:
    images: "{{ nameless.result }}"
    in_use: skip
"""

RETURN = r"""
images:
  description: One entry per image of the list, those that failed included.
  returned: when the Engine can be read
  type: list
  elements: dict
  contains:
    name: {description: As the list has it., type: str, returned: always}
    id: {description: "The image's ID, empty where there is none.", type: str, returned: always}
    digest: {description: "The first of its digests, empty without one.", type: str, returned: always}
    action:
      description:
        - V(removed), V(untagged) (a name is gone and the image stays), V(none) (it is not there), V(kept) (it is in use, and
          O(in_use=skip)) or V(failed).
      type: str
      returned: always
    reason: {description: "Why, with the containers that use it where these matter.", type: str, returned: always}
    bytes:
      description:
        - Bytes that the removal freed, as far as the Engine's own answers prove them; null in check mode where the image goes.
        - On the classic store the answer names the layers that were released. Their bytes are those of the image's history,
          which are content without what the file system adds. Where an image has layers of no bytes and some of its layers
          stay, only bytes count that cannot belong to one that stays.
        - On the containerd store it is the Engine's disk usage before less after, and at most what the image weighed. Engine 26
          counts there unpacked layers only, without the blobs. What others write meanwhile makes it less.
        - Layers of removed containers do not count.
      type: int
      returned: always
    containers:
      description: The containers that were removed for it.
      type: list
      elements: dict
      returned: always
      contains:
        id: {description: The container's ID., type: str, returned: always}
        name: {description: Its name., type: str, returned: always}
        state: {description: The state that it was in., type: str, returned: always}
        running: {description: Whether it ran., type: bool, returned: always}
  sample:
    - name: registry.example/shop/api:1.4.0
      id: sha256:9f2bc0f7b1b4f1a2f5d1ad63f2bd4f58e3a0c1b0a4c5d6e7f8091a2b3c4d5e6f
      digest: sha256:1b2c3d4e5f60718293a4b5c6d7e8f9011b2c3d4e5f60718293a4b5c6d7e8f901
      action: removed
      reason: no container uses it
      bytes: 18874368
      containers: []
bytes:
  description: The sum of RV(images[].bytes); null where one of them is.
  returned: when the Engine can be read
  type: int
seconds:
  description: How long it took.
  returned: always
  type: float
"""

import time

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.fleet.images.plugins.module_utils import _removal, _remove
from ansible_collections.fleet.images.plugins.module_utils._arguments import engine_arguments
from ansible_collections.fleet.images.plugins.module_utils._engine import EngineError
from ansible_collections.fleet.images.plugins.module_utils._hostlock import LockTimeout
from ansible_collections.fleet.images.plugins.module_utils._sdk import SdkError, SdkMissing


def main() -> None:
    """Runs the module."""
    module = AnsibleModule(
        argument_spec={
            **engine_arguments(),
            "images": {"type": "list", "elements": "str", "required": True},
            "in_use": {
                "type": "str",
                "choices": list(_removal.IN_USE),
                "default": _removal.FAIL,
            },
            "force": {"type": "bool", "default": False},
            "prune_parents": {"type": "bool", "default": True},
            "lock_timeout": {"type": "int", "default": 600},
        },
        supports_check_mode=True,
    )
    started = time.monotonic()
    try:
        result = _remove.remove(module.params, module.check_mode)
    except (EngineError, SdkError, LockTimeout, OSError) as error:
        missing = isinstance(error, SdkMissing)
        module.fail_json(msg=str(error), changed=False, sdk_missing=missing, seconds=0.0)
    result["seconds"] = round(time.monotonic() - started, 3)
    errors = result.pop("errors")
    if errors:
        module.fail_json(msg="; ".join(errors), **result)
    gone = sum(image["action"] == "removed" for image in result["images"])
    size = "" if result["bytes"] is None else f", {result['bytes']} bytes freed"
    module.exit_json(msg=f"{gone} of {len(result['images'])} images removed{size}", **result)


if __name__ == "__main__":
    main()
