#!/usr/bin/python
# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: image_pull
short_description: Pull a list of images, by digest where one is agreed
version_added: 0.2.0
description:
  - Brings the images of a list, or of a lock, from a registry into an Engine, several at once, and verifies each.
  - What is there already costs no request to the registry. Every image is tried; then the task fails with all that
    failed, and tells how far it came.
  - A pull that fails for a reason that may pass is tried again, with growing pauses and jitter, so that the hosts of a
    fleet do not come back all at once.
  - Whatever fails, every tag names what it named before.
author: The fleet.images authors (@fleet-images)
extends_documentation_fragment:
  - fleet.images.engine
  - fleet.images.attributes
attributes:
  check_mode:
    support: full
    details:
      - Asks the registry, through the Engine, for the digest of every image that would be pulled, so that an unknown
        tag or a refused login shows.
      - An Engine with the classic store forgets the digest of what came through O(via) without a lock. There, check
        mode says V(pulled) where the run then finds that the image is the same.
  diff_mode:
    support: full
  idempotent:
    support: full
  platform:
    platforms: linux
options:
  images:
    description:
      - The images to pull. A string such as V(nginx:1.27) or V(nginx:1.27@sha256:…), or a dict of C(name), C(digest),
        C(platforms) and C(as) (the name that the image gets on the host).
      - With a lock, it selects from it; without it, the whole lock is pulled. An image that the lock lacks, or has
        with another digest than the list, fails; the others are pulled.
      - Of C(platforms), the Engine takes its own; a single other one is pulled as it stands.
    type: list
    elements: raw
  lock:
    description:
      - The content of a lock, as M(fleet.images.image_fetch) returns it. Its digests are pulled, whatever the tags
        name now.
    type: dict
  lock_path:
    description:
      - A lock file on the host.
    type: path
  policy:
    description:
      - V(missing) pulls what is not there.
      - V(always) asks the registry what each tag names now, and pulls only where that differs. Images with a digest,
        or of a lock, are not asked for.
    type: str
    choices: [missing, always]
    default: missing
  tag_policy:
    description:
      - What to do about an image with the tag C(latest), or without a tag, and without a digest. Nobody knows which one
        a host gets.
    type: str
    choices: [allow, warn, refuse]
    default: warn
  via:
    description:
      - A registry, or a prefix in one such as V(mirror.example:5000/hub), that serves all images of the list in the
        place of their own registries. The images get their own names, and the other names go.
      - Credentials are those of this registry then.
    type: str
  via_ca:
    description:
      - Certificate of the authority of O(via), in PEM format. The Engine trusts it while this task pulls, by a file
        below C(/etc/docker/certs.d), which only root may write. The daemon is not restarted.
    type: str
  tunnel:
    description:
      - Goes to a relay that listens on the loopback interface of another host of the inventory, through the SSH
        connections that Ansible has to that host and to this one. O(via) is set to the tunnel's end on this host. It
        lasts as long as the task.
      - Wants the connection plugin P(ansible.builtin.ssh#connection) with a key, an sshd that permits forwarding, and
        an Engine in the host's own network namespace (not a rootless one).
    type: dict
    suboptions:
      host:
        description: The inventory name of the host where the relay listens; C(localhost) is the controller.
        type: str
        required: true
      port:
        description: The port that it listens on there, on 127.0.0.1.
        type: int
        required: true
  parallel:
    description:
      - How many images are pulled at once.
    type: int
    default: 3
  retries:
    description:
      - How often a pull is tried again after a 429, a 5xx, or a failure of the network or of the Engine. A refused
        login and an unknown image are not tried again.
    type: int
    default: 3
  retry_delay:
    description:
      - Seconds before the first of these tries. The pause doubles with each; half of it is random. A registry's
        C(Retry-After) is kept to, up to two minutes.
    type: float
    default: 1.0
  jitter:
    description:
      - Seconds. Where something is to be pulled, a random part of them passes first, so that the hosts of a fleet do
        not ask a registry all at once.
    type: float
    default: 0.0
  stall_timeout:
    description:
      - Seconds without a sign of progress from the Engine, after which a try counts as lost. There is no limit on the
        whole.
    type: int
    default: 600
  lock_timeout:
    description:
      - Seconds to wait for another run that writes images into this Engine.
    type: int
    default: 600
  known:
    description:
      - What a bastion's store knows of manifests and their layers, as M(fleet.images.image_fetch) returns it. With it
        the bytes that a lock still lacks are exact on an Engine with the containerd store.
    type: list
    elements: dict
    default: []
  registry_username:
    description:
      - User name for the registries of the images. Without it, the Docker configuration file of the user who runs this
        task counts, with its C(credsStore) and C(credHelpers).
    type: str
  registry_password:
    description:
      - Password, or access token, that belongs to O(registry_username).
    type: str
seealso:
  - module: fleet.images.image_fetch
  - module: fleet.images.image_load
"""

EXAMPLES = r"""
- name: Have these images before they are needed
  fleet.images.image_pull:
    images:
      - nginx:1.27-alpine
      - postgres:16-alpine

- name: The same, exactly as a lock pins them
  fleet.images.image_pull:
    lock: "{{ lookup('ansible.builtin.file', 'images.lock.json') | from_json }}"

- name: See whether the registry has something newer under a tag, and take it
  fleet.images.image_pull:
    images: ["registry.example:5000/shop/app:stable"]
    policy: always
    registry_username: robot
    registry_password: "{{ vault_registry_password }}"

- name: Pull through the site's own mirror of Docker Hub, under the usual name
  fleet.images.image_pull:
    images: ["nginx:1.27-alpine"]
    via: harbor.example/hub
"""

RETURN = r"""
images:
  description: One entry per image.
  returned: when the Engine answers
  type: list
  elements: dict
  contains:
    name: {description: The image as the list or the lock has it., type: str, returned: always}
    destination: {description: The name that it gets on the host., type: str, returned: always}
    id: {description: "Its ID on this Engine, empty where only the pull tells.", type: str, returned: always}
    digest: {description: "Its digest in the registry, as far as it is known.", type: str, returned: always}
    state: {description: "Before the task: V(present), V(missing) or V(stale).", type: str, returned: always}
    action: {description: "V(none), V(pulled) or V(failed).", type: str, returned: always}
    reason: {description: Why., type: str, returned: always}
    bytes:
      description:
        - Bytes of compressed layers that came, as the Engine tells; with a lock, bytes of the blobs that were lacking.
        - Null in check mode without a lock.
      type: int
      returned: always
    seconds: {description: Seconds of the pull., type: float, returned: always}
    attempts: {description: "How many tries it took, 0 where none was needed.", type: int, returned: always}
  sample:
    - name: docker.io/library/nginx:1.27-alpine
      destination: docker.io/library/nginx:1.27-alpine
      id: sha256:9f2bc0f7b1b4f1a2f5d1ad63f2bd4f58e3a0c1b0a4c5d6e7f8091a2b3c4d5e6f
      digest: sha256:1b2c3d4e5f60718293a4b5c6d7e8f9011b2c3d4e5f60718293a4b5c6d7e8f901
      state: missing
      action: pulled
      reason: no image has the name docker.io/library/nginx:1.27-alpine
      bytes: 20461216
      seconds: 2.1
      attempts: 1
bytes:
  description: Bytes of all images that were pulled, null where only the pulls tell.
  returned: when the Engine answers
  type: int
seconds:
  description: Seconds of the whole module.
  returned: always
  type: float
engine:
  description: The Engine's facts, as M(fleet.images.image_plan) returns them.
  returned: when the Engine answers
  type: dict
tunnel_failed:
  description: Whether there was no way to the relay, so that images have to come in another one.
  returned: when O(tunnel) could not be opened, or ended during the pull
  type: bool
"""

import time
from collections.abc import Mapping
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.fleet.images.plugins.module_utils import _lockfile, _pull_run
from ansible_collections.fleet.images.plugins.module_utils._arguments import engine_arguments
from ansible_collections.fleet.images.plugins.module_utils._engine import EngineError
from ansible_collections.fleet.images.plugins.module_utils._hostlock import LockTimeout
from ansible_collections.fleet.images.plugins.module_utils._lock import LockError
from ansible_collections.fleet.images.plugins.module_utils._reference import InvalidReference
from ansible_collections.fleet.images.plugins.module_utils._sdk import SdkError, SdkMissing
from ansible_collections.fleet.images.plugins.module_utils._trust import TrustError

ERRORS = (
    EngineError, SdkError, LockError, InvalidReference, LockTimeout, TrustError, OSError,
)  # fmt: skip


def has_lock(params: Mapping[str, Any]) -> bool:
    """Whether a lock was given."""
    return params["lock"] is not None or bool(params["lock_path"])


def options() -> dict[str, Any]:
    """The argument spec."""
    return {
        **engine_arguments(),
        "images": {"type": "list", "elements": "raw"},
        "lock": {"type": "dict"},
        "lock_path": {"type": "path"},
        "policy": {"type": "str", "choices": ["missing", "always"], "default": "missing"},
        "tag_policy": {
            "type": "str",
            "choices": ["allow", "warn", "refuse"],
            "default": "warn",
        },
        "via": {"type": "str"},
        "via_ca": {"type": "str"},
        "tunnel": {
            "type": "dict",
            "options": {
                "host": {"type": "str", "required": True},
                "port": {"type": "int", "required": True},
            },
        },
        "parallel": {"type": "int", "default": 3},
        "retries": {"type": "int", "default": 3},
        "retry_delay": {"type": "float", "default": 1.0},
        "jitter": {"type": "float", "default": 0.0},
        "stall_timeout": {"type": "int", "default": 600},
        "lock_timeout": {"type": "int", "default": 600},
        "known": {"type": "list", "elements": "dict", "default": []},
        "registry_username": {"type": "str"},
        "registry_password": {"type": "str", "no_log": True},
    }


def main() -> None:
    """Runs the module."""
    module = AnsibleModule(
        argument_spec=options(),
        required_one_of=[("images", "lock", "lock_path")],
        mutually_exclusive=[("lock", "lock_path"), ("via", "tunnel")],
        required_together=[("registry_username", "registry_password")],
        required_by={"via_ca": "via"},
        supports_check_mode=True,
    )
    started, params = time.monotonic(), module.params
    try:
        lock = _lockfile.given(params) if has_lock(params) else None
        result = _pull_run.pull(params, lock, module.check_mode)
    except ERRORS as error:
        missing = isinstance(error, SdkMissing)
        module.fail_json(msg=str(error), changed=False, images=[], sdk_missing=missing)
    for warning in result.pop("warnings"):
        module.warn(warning)
    result["seconds"] = round(time.monotonic() - started, 3)
    errors = result.pop("errors")
    if errors:
        module.fail_json(msg="; ".join(errors), **result)
    done = sum(image["action"] == "pulled" for image in result["images"])
    size = "" if result["bytes"] is None else f", {result['bytes']} bytes"
    module.exit_json(msg=f"{done} of {len(result['images'])} images pulled{size}", **result)


if __name__ == "__main__":
    main()
