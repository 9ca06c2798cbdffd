#!/usr/bin/python
# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: image_plan
short_description: Tell what an Engine lacks of a lock
version_added: 0.1.0
description:
  - Compares a lock with what an Engine has, on the classic and on the containerd image store, and changes nothing.
  - The answer names the blobs that a bundle has to bring, and a C(plan_id) that is the same on Engines that
    lack the same, so that one bundle serves them all.
  - An image that cannot be planned does not hold up the others. The task fails at its end, and returns the plan of the
    others all the same.
author: The fleet.images authors (@fleet-images)
extends_documentation_fragment:
  - fleet.images.engine
  - fleet.images.attributes
attributes:
  check_mode:
    support: full
    details: The module only reads.
  diff_mode:
    support: full
  idempotent:
    support: full
  platform:
    platforms: linux
options:
  lock:
    description:
      - The lock's content, as M(fleet.images.image_fetch) returns it.
      - Exactly one of O(lock) and O(lock_path) is wanted.
    type: dict
  lock_path:
    description:
      - A lock file on the host.
    type: path
  images:
    description:
      - The images of the lock to look at, all by default.
      - A string, or a dict of C(name), C(digest), C(platforms) and C(as), of which the name selects.
    type: list
    elements: raw
  known:
    description:
      - What the bastion's store knows of manifests and their layers, as M(fleet.images.image_fetch) returns it.
      - The API of an Engine with the containerd store names no layers. Without this list every layer of an
        image that is not whole counts as lacking there.
    type: list
    elements: dict
    default: []
seealso:
  - module: fleet.images.image_fetch
  - module: fleet.images.image_archive
  - module: fleet.images.image_load
"""

EXAMPLES = r"""
- name: Resolve what is wanted on the bastion
  fleet.images.image_fetch:
    images:
      - docker.io/library/postgres:16-alpine
    store: /var/lib/fleet-images/store
  delegate_to: "{{ groups['bastion'] | first }}"
  run_once: true
  register: fetched

- name: Tell what this host lacks
  fleet.images.image_plan:
    lock: "{{ fetched.lock }}"
    known: "{{ fetched.known }}"
  register: planned

- name: Say it
  ansible.builtin.debug:
    msg: "{{ inventory_hostname }} lacks {{ planned.bytes }} bytes in {{ planned.blobs | length }} blobs"
"""

RETURN = r"""
images:
  description: One entry per image of the lock.
  returned: when the lock and the Engine can be read
  type: list
  elements: dict
  contains:
    name: {description: "The name that the image gets on the host.", type: str, returned: always}
    lock_name: {description: The image's name in the lock., type: str, returned: always}
    id: {description: The ID that this Engine lists it under., type: str, returned: always}
    digest: {description: The digest that the tag named in the registry., type: str, returned: always}
    state:
      description: V(present), V(missing) or V(stale) (another image has the tag). Empty if the image cannot be planned.
      type: str
      returned: always
    action:
      description:
        - What a load would do, V(none) or V(loaded).
        - V(failed) if the image cannot be planned, since the lock does not have it for this platform, or its name has
          no tag.
      type: str
      returned: always
    reason: {description: Why., type: str, returned: always}
    bytes: {description: Bytes of the blobs that it lacks., type: int, returned: always}
  sample:
    - name: docker.io/library/postgres:16-alpine
      lock_name: docker.io/library/postgres:16-alpine
      id: sha256:9f2bc0f7b1b4f1a2f5d1ad63f2bd4f58e3a0c1b0a4c5d6e7f8091a2b3c4d5e6f
      digest: sha256:1b2c3d4e5f60718293a4b5c6d7e8f9011b2c3d4e5f60718293a4b5c6d7e8f901
      state: missing
      action: loaded
      reason: no image has the tag docker.io/library/postgres:16-alpine
      bytes: 109051904
blobs:
  description: Digests of the blobs that a bundle has to bring, sorted, each once.
  returned: when the lock and the Engine can be read
  type: list
  elements: str
plan_id:
  description: Equal on Engines that lack the same; empty where nothing is to be done.
  returned: when the lock and the Engine can be read
  type: str
  sample: 0a1b2c3d4e5f6071
bytes:
  description: Bytes of these blobs.
  returned: when the lock and the Engine can be read
  type: int
save_bytes:
  description:
    - Bytes of a tar of all the lock's images for this platform, whole, shared blobs once.
    - The least that a plain C(docker save) of them weighs. An Engine with the classic store saves layers
      uncompressed, which is several times as much.
  returned: when the lock and the Engine can be read
  type: int
free:
  description: Bytes free where the Engine keeps its images, null where that cannot be seen from here.
  returned: when the lock and the Engine can be read
  type: int
engine:
  description: The Engine's facts.
  returned: when the lock and the Engine can be read
  type: dict
  contains:
    version: {description: The Engine's version., type: str, returned: always}
    api_version: {description: The API's version., type: str, returned: always}
    store: {description: "The image store, V(classic) or V(containerd).", type: str, returned: always}
    driver: {description: The storage driver or snapshotter., type: str, returned: always}
    platform: {description: The Engine's platform., type: str, returned: always}
    data_path: {description: The directory that holds the images., type: str, returned: always}
    free: {description: Bytes free there., type: int, returned: always}
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.fleet.images.plugins.module_utils import _holdings, _lock, _lockfile
from ansible_collections.fleet.images.plugins.module_utils._arguments import engine_arguments
from ansible_collections.fleet.images.plugins.module_utils._engine import Engine, EngineError
from ansible_collections.fleet.images.plugins.module_utils._reference import InvalidReference
from ansible_collections.fleet.images.plugins.module_utils._sdk import SdkError, SdkMissing


def make_plan(params: dict[str, Any]) -> dict[str, Any]:
    """The module's result: lock less holdings, and the Engine's facts."""
    lock = _lockfile.chosen(params)
    engine = Engine(params)
    plan = _holdings.plan(lock, engine.holdings(params["known"]))
    return {
        "images": [_entry(image) for image in plan.images],
        "blobs": sorted(plan.blobs),
        "plan_id": plan.plan_id,
        "bytes": plan.bytes,
        "save_bytes": _holdings.save_bytes(lock, plan.platform),
        "free": engine.facts.free,
        "engine": engine.facts.as_dict(),
        "diff": _diff(plan),
    }


def _entry(plan: _holdings.ImagePlan) -> dict[str, Any]:
    return {
        "name": plan.name,
        "lock_name": plan.image.name,
        "id": plan.identity,
        "digest": plan.image.target.digest,
        "state": plan.state,
        "action": plan.action if plan.action in ("none", "failed") else "loaded",
        "reason": plan.reason,
        "bytes": plan.bytes,
    }


def _diff(plan: _holdings.Plan) -> dict[str, str]:
    before = [f"{one.image.destination.tagged}: {one.state}\n" for one in plan.todo]
    after = [f"{one.image.destination.tagged}: {one.identity}\n" for one in plan.todo]
    return {"before": "".join(before), "after": "".join(after)}


def main() -> None:
    """Runs the module."""
    module = AnsibleModule(
        argument_spec={
            **engine_arguments(),
            "lock": {"type": "dict"},
            "lock_path": {"type": "path"},
            "images": {"type": "list", "elements": "raw"},
            "known": {"type": "list", "elements": "dict", "default": []},
        },
        required_one_of=[("lock", "lock_path")],
        mutually_exclusive=[("lock", "lock_path")],
        supports_check_mode=True,
    )
    try:
        result = make_plan(module.params)
    except (EngineError, SdkError, _lock.LockError, InvalidReference, OSError) as error:
        module.fail_json(msg=str(error), sdk_missing=isinstance(error, SdkMissing))
    failed = [image["reason"] for image in result["images"] if image["action"] == "failed"]
    if failed:
        module.fail_json(msg="; ".join(failed), changed=False, **result)
    lacking = sum(image["action"] == "loaded" for image in result["images"])
    msg = f"{lacking} of {len(result['images'])} images to load, {result['bytes']} bytes lacking"
    module.exit_json(changed=False, msg=msg, **result)


if __name__ == "__main__":
    main()
