#!/usr/bin/python
# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: image_prune
short_description: Clean up images by policy, with a plan and exact bytes
version_added: 0.3.0
description:
  - Decides for every image of an Engine whether it may go, and says why it goes or stays. Then it removes what may go, image by
    image and never by force, and looks again.
  - An image goes as a whole, with all its names, or stays as it is. What a container uses stays, whether it runs or not, whatever
    the policy says. An image of a stopped container counts as used.
  - All conditions that are given have to hold for an image to go. What an Engine does not know keeps an image.
  - Right before an image goes it is looked at once more. One that got another name or a user meanwhile is left alone.
author: The fleet.images authors (@fleet-images)
extends_documentation_fragment:
  - fleet.images.engine
  - fleet.images.attributes
attributes:
  check_mode:
    support: full
    details:
      - Names the images and the bytes of the run. Of O(build_cache) it tells the most that may go.
  diff_mode:
    support: full
    details: Tells of every image whether it goes or stays, why, and the bytes that this frees.
  idempotent:
    support: full
  platform:
    platforms: linux
options:
  scope:
    description:
      - V(dangling) is what C(docker image prune) takes, images without a tag that none is built upon. As with Docker, an image that
        was pulled by digest alone counts as such on the classic store, which cannot tell it from one that lost its tag.
      - V(unused) is what C(docker image prune --all) takes, images that no container uses.
    type: str
    choices: [dangling, unused]
    default: dangling
  repositories:
    description:
      - Globs over the names of images, such as V(registry.example/shop/*). Only images all of whose names match one of them may go.
    type: list
    elements: str
    default: []
  built_before:
    description:
      - The least age of an image since it was built, such as V(14d); units are C(s), C(m), C(h), C(d) and C(w).
      - A reproducible image says that it was built in 1970, and stays.
    type: str
  tagged_before:
    description:
      - The least time since an image was last tagged, pulled or loaded on this host.
      - An Engine with the classic store knows this only of images that C(docker tag), M(fleet.images.image_pull) or
        M(fleet.images.image_load) gave a name. Others stay.
    type: str
  unused_for:
    description:
      - The least time since a container used the image. Where none was seen, the time since this host has it, as far as that is known.
      - Witnesses are the containers that are there, and O(ledger_path), which remembers those that are gone. It begins with the first
        run, and so an image that no container used stays until the ledger is old enough.
    type: str
  keep_last:
    description:
      - How many images of each repository stay at least, the newest ones. Images count, not tags, those in use as well.
    type: int
  keep_last_by:
    description:
      - What newest means. V(version) compares tags as versions, V(time) when they were tagged here, else built.
    type: str
    choices: [version, time]
    default: version
  protect:
    description:
      - Globs over names. An image stays where one of its names matches, as it is written out or as Docker prints it.
    type: list
    elements: str
    default: []
  protect_labels:
    description:
      - Labels, V(key) or V(key=value). An image that has one of them stays.
    type: list
    elements: str
    default: []
  protect_query:
    description:
      - A JMESPath expression over the images as M(fleet.images.image_info) returns them, which gives a list of images, IDs or names.
        They stay.
    type: str
  lock:
    description:
      - The content of a lock. Its images stay, by digest.
    type: dict
  lock_path:
    description:
      - A lock file on the host.
    type: path
  keep_bases:
    description:
      - Whether images stay that hold layers which the images of the lock need, where no other image that stays has them. So the next
        bundle of M(fleet.images.image_archive) may leave these layers out. Wants a lock.
    type: bool
    default: false
  compose_files:
    description:
      - Compose files on the host, or globs of them. The images that they name stay. A variable without a value, here or in C(.env)
        beside the file, stands for anything.
    type: list
    elements: str
    default: []
  protect_services:
    description:
      - Whether images of swarm services stay, those that a service would be rolled back to as well. A manager of the swarm knows them.
    type: bool
    default: true
  last_copies:
    description:
      - IDs of images of which this host has the last copy in the fleet. One of them goes only where its registry, asked by this
        Engine, still serves it.
    type: list
    elements: str
    default: []
  free_target:
    description:
      - How much is to be free on the disk that holds the images, in bytes with a unit, V(20GB), or as a part of the disk, V(25%). As
        soon as it is reached, the rest stays.
      - First go images without a name, then those that a registry can serve again, then others; of these the longest unused first.
    type: str
  max_images:
    description:
      - The most images that one run may remove. Where the plan has more, nothing is removed and the task fails.
    type: int
  max_bytes:
    description:
      - The most bytes that one run may free, with a unit, V(50GB). Where the plan frees more, nothing is removed and the task fails.
    type: str
  min_images_left:
    description:
      - How many images with a tag have to be left. A policy that would remove all of them is refused, unless V(0) says outright that
        it is meant so.
    type: int
    default: 1
  build_cache:
    description:
      - Prunes the build cache of the Engine too, down to these limits. Without them, all of it that is not in use.
    type: dict
    suboptions:
      reserved: {description: "Bytes that are always left to the cache, V(5GB).", type: str}
      max_used: {description: Bytes that the cache may have; API 1.48 and newer., type: str}
      min_free: {description: Bytes that are to be free on its disk; API 1.48 and newer., type: str}
      older_than: {description: "Only what was not used for so long, V(7d).", type: str}
  leaks:
    description:
      - What to do about data that an Engine which was killed left behind, and that no image, container or build cache shows.
        Looking for it reads the Engine's directories, and wants root.
      - V(ignore) does not look, V(report) tells of it, V(remove) removes what is certain to be a leak and tells of the rest.
    type: str
    choices: [ignore, report, remove]
    default: ignore
  plan_path:
    description:
      - A file on the host. The plan is written into it, and nothing is removed.
    type: path
  apply:
    description:
      - A file that O(plan_path) wrote on this host. Only its images are removed, and of these only what is still as it was planned.
      - Scope, repositories, ages and counts were the plan's; what protects images, and the budgets, count again.
    type: path
  ledger_path:
    description:
      - The file that remembers when containers used images. It is read and written where O(unused_for) or O(free_target) want it.
    type: path
    default: /var/lib/fleet-images/ledger.json
  log_path:
    description:
      - A file on the host that gets a line of JSON for each image that was removed.
    type: path
  lock_timeout:
    description:
      - Seconds to wait for another run that writes images into this Engine.
    type: int
    default: 600
  registry_username:
    description:
      - User name for the registries that O(last_copies) asks. Without it, the Docker configuration of the user who runs this counts.
    type: str
  registry_password:
    description:
      - Password, or access token, that belongs to O(registry_username).
    type: str
seealso:
  - module: fleet.images.image_info
  - module: fleet.images.image_remove
"""

EXAMPLES = r"""
- name: Remove dangling images, as docker image prune does
  fleet.images.image_prune:

- name: Remove what nobody used for two weeks, and keep the newest two images of each repository
  fleet.images.image_prune:
    scope: unused
    unused_for: 14d
    keep_last: 2
    protect: ["registry.example/base/*"]

- name: Get 10 GB of the disk free, but never remove more than 20 images at once
  fleet.images.image_prune:
    scope: unused
    free_target: 10GB
    max_images: 20

- name: Only make a plan, to be looked at
  fleet.images.image_prune:
    scope: unused
    plan_path: /var/tmp/prune-plan.json

- name: Do what was planned, where it still holds
  fleet.images.image_prune:
    apply: /var/tmp/prune-plan.json
"""

RETURN = r"""
plan:
  description: The images that go, in the order of their removal.
  returned: when the Engine can be read
  type: list
  elements: dict
  contains:
    name: {description: "Its first reference, else its first digest, else its ID.", type: str, returned: always}
    id: {description: Its ID., type: str, returned: always}
    references: {description: Its names with tags., type: list, elements: str, returned: always}
    digests: {description: Its names with digests., type: list, elements: str, returned: always}
    reason: {description: Why it may go., type: str, returned: always}
    bytes:
      description:
        - The least that goes from the disk with it, after those before it. A layer counts with the last image that holds it.
      type: int
      returned: always
    bytes_max: {description: "The most, null where that cannot be told.", type: int, returned: always}
kept:
  description: The images that stay, with C(name), C(id), C(references), C(digests) and the C(reason).
  returned: when the Engine can be read
  type: list
  elements: dict
images:
  description:
    - What became of each image of the plan. C(action) is V(removed), V(none) (it was gone), V(kept) (it has changed meanwhile) or V(failed).
    - Empty where the plan is refused, or only written (O(plan_path)).
  returned: when the Engine can be read
  type: list
  elements: dict
  sample:
    - name: registry.example/shop/api:1.4.0
      id: sha256:9f2bc0f7b1b4f1a2f5d1ad63f2bd4f58e3a0c1b0a4c5d6e7f8091a2b3c4d5e6f
      digest: ""
      action: removed
      reason: no container uses it
      bytes: 18878464
reclaimed:
  description: The bytes that this frees.
  returned: when the Engine can be read
  type: dict
  contains:
    predicted_min: {description: The least that the plan frees., type: int, returned: always}
    predicted_max: {description: "The most; null where that cannot be told.", type: int, returned: always}
    reported: {description: "What the Engine says it released; null in check mode.", type: int, returned: always}
    measured:
      description:
        - Free space on the disk of the images, after less before. Whatever else was written meanwhile is part of it. Null in check mode
          and where the disk is not this host's.
      type: int
      returned: always
build_cache:
  description: "The bytes of build cache that go at most (C(foreseen)) and that the Engine says it released (C(reported))."
  returned: with O(build_cache)
  type: dict
leaks:
  description: "What was found, each with C(path), C(bytes), C(reason) and C(action), which is V(none) or V(removed)."
  returned: with O(leaks)
  type: list
  elements: dict
left:
  description: How many images the Engine has before, and after the task.
  returned: when the Engine can be read
  type: dict
  sample: {before: 12, after: 9}
bytes:
  description: The least that the plan frees, RV(reclaimed.predicted_min).
  returned: when the Engine can be read
  type: int
engine:
  description: The Engine's facts, as M(fleet.images.image_plan) returns them.
  returned: when the Engine can be read
  type: dict
seconds:
  description: How long it took.
  returned: always
  type: float
"""

import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.fleet.images.plugins.module_utils import _prune
from ansible_collections.fleet.images.plugins.module_utils._amounts import PolicyError
from ansible_collections.fleet.images.plugins.module_utils._arguments import engine_arguments
from ansible_collections.fleet.images.plugins.module_utils._engine import EngineError
from ansible_collections.fleet.images.plugins.module_utils._hostlock import LockTimeout
from ansible_collections.fleet.images.plugins.module_utils._info import QueryError
from ansible_collections.fleet.images.plugins.module_utils._lock import LockError
from ansible_collections.fleet.images.plugins.module_utils._sdk import SdkError, SdkMissing

ERRORS = (
    EngineError, SdkError, LockError, LockTimeout, QueryError, PolicyError, OSError,
)  # fmt: skip


def options() -> dict[str, Any]:
    """The argument spec."""
    strings = {"type": "list", "elements": "str", "default": []}
    text, path, number = {"type": "str"}, {"type": "path"}, {"type": "int"}
    limits = ("reserved", "max_used", "min_free", "older_than")
    return {
        **engine_arguments(),
        "scope": {"type": "str", "choices": ["dangling", "unused"], "default": "dangling"},
        **dict.fromkeys(("repositories", "protect", "protect_labels"), strings),
        **dict.fromkeys(("compose_files", "last_copies"), strings),
        **dict.fromkeys(("built_before", "tagged_before", "unused_for"), text),
        **dict.fromkeys(("protect_query", "free_target", "max_bytes"), text),
        **dict.fromkeys(("keep_last", "max_images"), number),
        **dict.fromkeys(("lock_path", "plan_path", "apply", "log_path"), path),
        "keep_last_by": {"type": "str", "choices": ["version", "time"], "default": "version"},
        "lock": {"type": "dict"},
        "keep_bases": {"type": "bool", "default": False},
        "protect_services": {"type": "bool", "default": True},
        "min_images_left": {"type": "int", "default": 1},
        "build_cache": {"type": "dict", "options": dict.fromkeys(limits, text)},
        "leaks": {"type": "str", "choices": ["ignore", "report", "remove"], "default": "ignore"},
        "ledger_path": {"type": "path", "default": "/var/lib/fleet-images/ledger.json"},
        "lock_timeout": {"type": "int", "default": 600},
        "registry_username": text,
        "registry_password": {"type": "str", "no_log": True},
    }


def main() -> None:
    """Runs the module."""
    module = AnsibleModule(
        argument_spec=options(),
        mutually_exclusive=[("lock", "lock_path"), ("plan_path", "apply")],
        required_together=[("registry_username", "registry_password")],
        supports_check_mode=True,
    )
    started = time.monotonic()
    try:
        result = _prune.prune(module.params, module.check_mode)
    except ERRORS as error:
        missing = isinstance(error, SdkMissing)
        module.fail_json(msg=str(error), changed=False, sdk_missing=missing, seconds=0.0)
    for warning in result.pop("warnings"):
        module.warn(warning)
    result["seconds"] = round(time.monotonic() - started, 3)
    errors = result.pop("errors")
    if errors:
        result["msg"] = "; ".join(errors)
        module.fail_json(**result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
