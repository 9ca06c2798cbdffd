#!/usr/bin/python
# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: image_push
short_description: Push images of a store into a registry, only what it lacks
version_added: 0.2.0
author:
  - The fleet.images authors (@fleet)
description:
  - Pushes images of a I(store), which M(fleet.images.image_fetch) filled, into any registry. All blobs stay byte for byte
    what they are, so digests and image IDs stay the same.
  - Sends only the blobs that the destination lacks, each once. One that the registry has in another repository of this
    task is taken over from there, where the registry allows that.
  - The tag is put last, and looked at afterwards. Until then it names what it named before.
  - An image that cannot be pushed does not hold up the others. The task fails when all others are done.
options:
  store:
    description:
      - Directory of the store.
    type: path
    required: true
  lock:
    description:
      - The lock's content, as M(fleet.images.image_fetch) returns it.
      - Exactly one of O(lock) and O(lock_path) is wanted.
    type: dict
  lock_path:
    description:
      - File of the lock, on the host that runs this task.
    type: path
  images:
    description:
      - The images of the lock to push, all by default.
      - A string, or a dict of C(name), C(digest), C(platforms) and C(as), of which the name selects, and C(as) is the
        name at the destination in place of the lock's.
    type: list
    elements: raw
  to:
    description:
      - The registry to push to, perhaps with a path, such as V(harbor.example:443/mirror).
      - The images go there with the repository and tag of their C(as), else of their name. V(docker.io/library/nginx:1.27)
        becomes V(harbor.example:443/mirror/library/nginx:1.27).
      - Without it, C(as) is the whole destination, and every image needs one.
    type: str
  parallel:
    description:
      - How many blobs to push at a time.
    type: int
    default: 4
  retries:
    description:
      - How often to try again when the registry does not answer, answers with an error of its own or a limit, or breaks
        the connection. An upload goes on where the registry says that it stopped.
      - A try that brought an upload forward does not count.
    type: int
    default: 3
  retry_delay:
    description:
      - Seconds to wait before trying again, doubled each time, a half of it at random. The registry may ask for more.
    type: float
    default: 1.0
extends_documentation_fragment:
  - fleet.images.registry
  - fleet.images.attributes
attributes:
  check_mode:
    support: full
    description:
      - Asks the registry what it has and tells what would be sent, in bytes. Blobs that it may take over from another
        repository count nothing, although a registry can refuse that.
  diff_mode:
    support: full
    description: Shows the digest of each tag at the destination, before and after.
  idempotent:
    support: full
    description: An image that is at the destination is not sent again, nor are its blobs.
  platform:
    support: full
    description: Needs Python 3.9 or newer and C(requests), and for logins of the Docker configuration file the Docker SDK.
requirements:
  - Python >= 3.9
  - requests
  - docker (the Docker SDK for Python), for a registry that asks for a login where no O(registry_username) is given
notes:
  - Registries take an index only if they have all manifests that it names. An image of several platforms has to be
    fetched with all of them, and with its attestations if it has any. What is lacking is told before anything is sent.
  - Nothing is ever pushed to a mirror, so O(registry_mirrors) has no effect.
  - To a host without the packages that this module needs they travel along with the task, as the role
    P(fleet.images.docker_sdk#role) would bring them.
seealso:
  - module: fleet.images.image_fetch
"""

EXAMPLES = r"""
- name: Fetch an image with all its platforms
  fleet.images.image_fetch:
    store: /var/lib/fleet-images/store
    images:
      - name: nginx:1.27-alpine
        platforms: [linux/amd64, linux/arm64]
    attestations: true
  register: fetched

- name: Feed the site's own registry
  fleet.images.image_push:
    store: /var/lib/fleet-images/store
    lock: "{{ fetched.lock }}"
    to: harbor.example:443/mirror
    registry_username: robot
    registry_password: "{{ harbor_password }}"

- name: Push one image of a lock file under another name
  fleet.images.image_push:
    store: /var/lib/fleet-images/store
    lock_path: /var/lib/fleet-images/images.lock.json
    images:
      - name: registry.example/shop/api:4.2
        as: site.example:5000/api:stable
"""

RETURN = r"""
images:
  description: What became of each image.
  returned: when the options can be used
  type: list
  elements: dict
  contains:
    name:
      description: The image's name in the lock.
      type: str
    to:
      description: Its full name at the destination.
      type: str
    id:
      description: Digest of its config, of the first platform in alphabetical order.
      type: str
    digest:
      description: Digest of its index or manifest.
      type: str
    action:
      description: V(none), V(pushed) or V(failed).
      type: str
    reason:
      description: Why, in words.
      type: str
    bytes:
      description: Bytes sent for it, or to be sent in check mode. A shared blob counts for one image only.
      type: int
    seconds:
      description: Time spent on it. Blobs that were pushed side by side add up.
      type: float
    attempts:
      description: V(1), and one more for each request that had to be repeated.
      type: int
bytes_sent:
  description: Bytes of blobs and manifests that were sent, or that would be in check mode.
  returned: when the options can be used
  type: int
seconds:
  description: Time that all of it took.
  returned: when the options can be used
  type: float
"""

from dataclasses import replace
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.fleet.images.plugins.module_utils import (
    _layout,
    _lock,
    _lockfile,
    _push,
    _reference,
    _registry,
    _registry_options,
    _retry,
    _sdk,
    _shipment,
)
from ansible_collections.fleet.images.plugins.module_utils._arguments import registry_arguments

ARGUMENTS = {
    "store": {"type": "path", "required": True},
    "lock": {"type": "dict"},
    "lock_path": {"type": "path"},
    "images": {"type": "list", "elements": "raw"},
    "to": {"type": "str"},
    "parallel": {"type": "int", "default": 4},
    "retries": {"type": "int", "default": 3},
    "retry_delay": {"type": "float", "default": 1.0},
    **registry_arguments(),
}


def push(params: dict[str, Any], dry_run: bool) -> dict[str, Any]:
    """The module's result; raises what the module tells as a failure."""
    prefix = _shipment.check_prefix(params["to"]) if params["to"] else None
    specs = _reference.parse_images(params["images"] or [])
    wanted = _shipment.shipments(_lockfile.given(params), specs, prefix)
    retrier = _retry.Retrier(
        retries=max(0, params["retries"]), base=max(0.0, params["retry_delay"])
    )
    options = replace(_registry_options.options_from(params), mirrors={})
    with _registry.Registry(options, retrier, "pull,push") as registry:
        layout = _layout.Layout(params["store"])
        return _push.run(layout, registry, wanted, max(1, params["parallel"]), dry_run)


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(
        argument_spec=ARGUMENTS,
        required_one_of=[("lock", "lock_path")],
        mutually_exclusive=[("lock", "lock_path")],
        supports_check_mode=True,
    )
    try:
        result = push(module.params, module.check_mode)
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
            msg=f"the store {module.params['store']} or the lock file cannot be used ({error});"
            " check its path and its owner"
        )
    if not module._diff:
        del result["diff"]
    if result.get("failed"):
        module.fail_json(**result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
