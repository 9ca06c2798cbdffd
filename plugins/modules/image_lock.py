#!/usr/bin/python
# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: image_lock
short_description: Lock images to digests without pulling them, and tell what has drifted
version_added: 0.2.0
author:
  - The fleet.images authors (@fleet)
description:
  - Asks registries what tags name, and returns it as a I(lock), with the digest of each image and, for every platform,
    its manifest, config and layers with their sizes.
  - Reads the small manifests and configs only. No layer is pulled, no Engine and no store is needed, so it runs on any
    host that reaches the registries, the controller included.
  - A lock that is given pins. Its images are not asked again, unless O(update) or O(fail_on_drift) say so.
  - The lock is one for M(fleet.images.image_fetch), M(fleet.images.image_plan) and M(fleet.images.image_load).
  - An image that cannot be resolved does not hold up the others. The task fails when all others are done.
options:
  images:
    description:
      - The images, each a reference such as V(nginx:1.27), or a dictionary.
      - The keys of a dictionary are C(name) (required, a reference), C(digest) (pins the image), C(platforms) (a list, in
        place of O(platforms)) and C(as) (the name that the image gets at its destination).
      - With O(lock) or O(lock_path), selects from the lock. Images that the lock lacks are resolved and added.
      - Defaults to all images of the lock.
    type: list
    elements: raw
  lock:
    description:
      - A lock, as RV(lock) returns it. It pins.
    type: dict
  lock_path:
    description:
      - File of a lock, on the host that runs this task. It pins if it is there.
      - It has to be there if O(images) is not given, and with O(fail_on_drift).
    type: path
  dest:
    description:
      - The file to write the lock to, on the host that runs this task. It may be the one of O(lock_path).
      - It gets the images of the lock that was given, and over them those of this task, in an order that makes small
        differences in version control. Only a lock is ever replaced, as a whole, and only if its content changes.
      - It is not written if an image failed or drifted.
    type: path
  platforms:
    description:
      - The platforms for images that name none, such as V(linux/arm64).
      - Defaults to those that the lock has for the image, and for a new image to all platforms of Linux that its index
        has, so that one lock serves every host.
      - V(all) means all platforms of Linux that the index has, for images of the lock as well.
      - M(fleet.images.image_fetch) fetches all platforms of its lock, unless its own options name fewer.
    type: list
    elements: str
  update:
    description:
      - Whether to ask tags anew in place of the digests of the lock. A digest in O(images) still pins.
    type: bool
    default: false
  fail_on_drift:
    description:
      - Whether to ask the registries for the tags of all images, and to fail if one of them names something else than
        the lock does. Nothing is written then.
      - Not to be combined with O(update).
    type: bool
    default: false
  parallel:
    description:
      - How many images to ask for at a time.
    type: int
    default: 4
  retries:
    description:
      - How often to try again when a registry does not answer, answers with an error of its own or a limit, or breaks
        the connection. Waits longer each time, and as long as the registry asks for.
    type: int
    default: 3
extends_documentation_fragment:
  - fleet.images.registry
  - fleet.images.attributes
attributes:
  check_mode:
    support: full
    description: Asks the registries as usual, returns the same, and writes nothing.
  diff_mode:
    support: full
    description: Shows the digest of each image in O(dest), before and after.
  idempotent:
    support: full
    description: A tag that has moved in the registry is a change, unless a lock or a digest pins it.
  platform:
    support: full
    description: Needs Python 3.9 or newer and C(requests), and for logins of the Docker configuration file the Docker SDK.
requirements:
  - Python >= 3.9
  - requests
  - docker (the Docker SDK for Python), for a registry that asks for a login where no O(registry_username) is given
notes:
  - To a host without these packages they travel along with the task, as the role P(fleet.images.docker_sdk#role) would
    bring them.
seealso:
  - module: fleet.images.image_fetch
  - module: fleet.images.image_plan
  - module: fleet.images.image_search
"""

EXAMPLES = r"""
- name: Lock what the fleet is to run, and keep what is locked already
  fleet.images.image_lock:
    images:
      - nginx:1.27-alpine
      - name: registry.example/shop/api:4.2
        platforms: [linux/amd64, linux/arm64]
    lock_path: "{{ playbook_dir }}/images.lock.json"
    dest: "{{ playbook_dir }}/images.lock.json"
  delegate_to: localhost
  run_once: true

- name: Fail if a tag of the lock has moved in its registry
  fleet.images.image_lock:
    lock_path: "{{ playbook_dir }}/images.lock.json"
    fail_on_drift: true
  delegate_to: localhost
  run_once: true

- name: Ask all tags of the lock anew
  fleet.images.image_lock:
    lock_path: "{{ playbook_dir }}/images.lock.json"
    dest: "{{ playbook_dir }}/images.lock.json"
    update: true
  delegate_to: localhost
  run_once: true
  register: locked

- name: Tell what has moved
  ansible.builtin.debug:
    msg: "{{ item.name }} was {{ item.locked_digest }} and is now {{ item.digest }}"
  loop: "{{ locked.drift }}"
  run_once: true
"""

RETURN = r"""
lock:
  description: The images of this task, resolved. Images that failed are not in it, drifted ones as they were locked.
  returned: when the options can be used
  type: dict
  sample:
    version: 1
    images:
      docker.io/library/nginx:1.27-alpine:
        digest: sha256:6f6d0a7b2cd0f4f3f0c9d7a3fbb9ab4ce7cf5c1d0f0ae6a5c2f2a3f0c9d7a3fb
        media_type: application/vnd.oci.image.index.v1+json
        size: 1609
        platforms: {}
images:
  description: What became of each image.
  returned: when the options can be used
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
      description: Digest of its index or manifest; of one that drifted, what the registry serves.
      type: str
    locked_digest:
      description: The digest that the lock, or else the file O(dest), had before. Empty if it had none.
      type: str
    platforms:
      description: The platforms that RV(lock) has of it.
      type: list
      elements: str
    action:
      description:
        - V(none) (the lock has it so), V(locked) (new in the lock), V(updated) (another digest, platform or destination
          than before), V(drifted) (only with O(fail_on_drift)) or V(failed).
      type: str
    reason:
      description: Why, in words.
      type: str
    seconds:
      description: Time spent on it.
      type: float
    attempts:
      description: V(1), and one more for each request that had to be repeated.
      type: int
drift:
  description: The images whose tags name something else than the lock had, as far as registries were asked.
  returned: when the options can be used
  type: list
  elements: dict
  contains:
    name:
      description: The image's full name.
      type: str
    locked_digest:
      description: What the lock had.
      type: str
    digest:
      description: What the registry serves.
      type: str
seconds:
  description: Time that all of it took.
  returned: when the options can be used
  type: float
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.fleet.images.plugins.module_utils import (
    _lock,
    _pinning,
    _reference,
    _registry,
    _registry_options,
    _retry,
    _sdk,
)
from ansible_collections.fleet.images.plugins.module_utils._arguments import registry_arguments

ARGUMENTS = {
    "images": {"type": "list", "elements": "raw"},
    "lock": {"type": "dict"},
    "lock_path": {"type": "path"},
    "dest": {"type": "path"},
    "platforms": {"type": "list", "elements": "str"},
    "update": {"type": "bool", "default": False},
    "fail_on_drift": {"type": "bool", "default": False},
    "parallel": {"type": "int", "default": 4},
    "retries": {"type": "int", "default": 3},
    **registry_arguments(),
}


def task_from(module: AnsibleModule) -> _pinning.Task:
    """What the module was called with; raises InvalidReference, LockError, OSError."""
    params = module.params
    lock = _lock.load(params["lock"]) if params["lock"] else {}
    if params["lock_path"]:
        needed = not params["images"] or params["fail_on_drift"]
        lock = _pinning.read_pins(params["lock_path"], needed)
    platforms = params["platforms"] or []
    everything = platforms == ["all"]
    return _pinning.Task(
        specs=_reference.parse_images(params["images"] or []),
        lock=lock,
        platforms=() if everything else tuple(map(_reference.parse_platform, platforms)),
        everything=everything,
        update=params["update"],
        fail_on_drift=params["fail_on_drift"],
        dest=params["dest"],
        parallel=max(1, params["parallel"]),
        dry_run=module.check_mode,
    )


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(
        argument_spec=ARGUMENTS,
        required_one_of=[("images", "lock", "lock_path")],
        mutually_exclusive=[("lock", "lock_path")],
        supports_check_mode=True,
    )
    if module.params["update"] and module.params["fail_on_drift"]:
        module.fail_json(msg="update takes what has drifted and fail_on_drift refuses it; give one")
    try:
        retrier = _retry.Retrier(retries=max(0, module.params["retries"]))
        with _registry.Registry(_registry_options.options_from(module.params), retrier) as registry:
            result = _pinning.run(task_from(module), registry)
    except (
        _lock.LockError,
        _reference.InvalidReference,
        _registry.RegistryError,
        _sdk.SdkError,
    ) as error:
        module.fail_json(msg=str(error), sdk_missing=isinstance(error, _sdk.SdkMissing))
    except OSError as error:
        module.fail_json(msg=f"the lock file cannot be used ({error}); check its path and owner")
    if not module._diff:
        del result["diff"]
    if result.get("failed"):
        module.fail_json(**result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
