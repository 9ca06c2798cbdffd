#!/usr/bin/python
# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: buildx_build
short_description: Build an image for one or many platforms, and tell truthfully whether it changed
version_added: 0.4.0
description:
  - Builds an image with C(docker buildx), for one or many platforms, and pushes it, keeps it in the Engine, or puts it
    into a I(store).
  - Before a build, everything that goes in is looked at, which is the files of the context as C(.dockerignore) leaves
    them (paths, modes, contents), the Dockerfile, the arguments, and what the tags of base images name now. The digest of
    that, the I(fingerprint), is a label of the image. Where the image under all tags has the same one, nothing is built.
  - After a build, the manifests of the platforms are compared with what the tags named before. Attestations do not count,
    since they name the time of the build. Only a difference is a change.
  - Whatever fails, a tag in a registry names what it named before, or the whole new image.
author: The fleet.images authors (@fleet-images)
extends_documentation_fragment:
  - fleet.images.engine
  - fleet.images.registry
  - fleet.images.attributes
attributes:
  check_mode:
    support: full
    details:
      - Looks at all that goes in and at what is under the tags, and tells whether it would build, and why. Builds nothing.
      - What only a build can tell counts as a change. That is a context behind a URL, C(ADD) of a URL without a checksum,
        the Dockerfile of a git repository, and a base image whose registry does not answer.
  diff_mode:
    support: full
    details:
      - Shows the fingerprint of each tag and the digest of each platform, before and after. In check mode the digests
        after it are not known yet.
  idempotent:
    support: full
    details:
      - What O(outputs) names is written anew each time.
      - What a step fetches by itself, as a package, is not seen. O(rebuild=always) with O(no_cache) takes the newest.
  platform:
    platforms: linux
options:
  path:
    description:
      - What is built, on the host that runs this task. A directory, a tar archive, or the URL of an archive or of a git
        repository, such as V(https://git.example/shop/app.git#main:docker).
      - A branch or tag of a git repository is resolved to its commit, which needs C(git) on the host.
    type: path
    required: true
  dockerfile:
    description:
      - The Dockerfile, below O(path) or with a whole path of its own. V(Dockerfile) by default.
    type: str
  dockerfile_inline:
    description:
      - The text of the Dockerfile.
    type: str
  tags:
    description:
      - The names of the image, each with a tag. All name the same afterwards.
    type: list
    elements: str
  platforms:
    description:
      - The platforms to build for, such as V(linux/amd64) and V(linux/arm64). The builder's own by default.
    type: list
    elements: str
  builder:
    description:
      - The builder, as M(fleet.images.buildx_builder) makes it. The one in use by default.
    type: str
  push:
    description:
      - Whether to push to the registry that each tag names.
    type: bool
    default: false
  load:
    description:
      - Whether to keep the image in the Engine. The default is to do so where none of O(push), O(store) and O(outputs) is
        given.
      - An Engine with the classic image store takes an image of one platform only.
      - A builder with the driver V(docker) keeps what it pushes as well.
    type: bool
  store:
    description:
      - Directory of a store, as M(fleet.images.image_fetch) fills it. The image is put into it, and RV(lock) pins it
        there, so that the role P(fleet.images.airgap#role) or M(fleet.images.image_archive) can carry it.
      - Needs an Engine with the containerd image store, or a builder with another driver than V(docker).
    type: path
  outputs:
    description:
      - Further places for the result, as C(--output) of C(docker buildx build) takes them, such as
        V(type=local,dest=/srv/out).
      - They are written by each run, which counts as a change.
    type: list
    elements: str
  target:
    description:
      - The stage to build, the last one by default.
    type: str
  args:
    description:
      - Build arguments. They can be read in the image's history, so they are no place for a secret.
    type: dict
    default: {}
  labels:
    description:
      - Labels of the image.
    type: dict
    default: {}
  annotations:
    description:
      - Annotations of the manifests. A key may begin with V(index:) or another level that buildx knows.
    type: dict
    default: {}
  build_contexts:
    description:
      - Further contexts by their name. A directory, an image (V(docker-image://alpine:3.20)), an image layout
        (V(oci-layout://)), or a URL.
    type: dict
    default: {}
  cache_from:
    description:
      - Where cached steps may come from, as C(--cache-from) takes it.
    type: list
    elements: str
  cache_to:
    description:
      - Where to keep cached steps, as C(--cache-to) takes it.
    type: list
    elements: str
  secrets:
    description:
      - What steps read with C(RUN --mount=type=secret). Their contents are in no argument, log, result or image, and not
        part of the fingerprint. A V(value) reaches the builder without a file on a disk.
      - Exactly one of V(src), V(env) and V(value) is wanted for each.
    type: list
    elements: dict
    suboptions:
      id:
        description: The name by which steps know it.
        type: str
        required: true
      src:
        description: A file on the host that runs this task.
        type: path
      env:
        description:
          - A variable of the environment on that host.
          - Ansible puts what the keyword C(environment) of a task sets on a command line, which other users of the host
            can read. Set it on the host, or use V(value).
        type: str
      value:
        description: The content itself.
        type: str
  ssh:
    description:
      - Agents or keys that steps reach with C(RUN --mount=type=ssh), as C(--ssh) takes them, such as V(default).
    type: list
    elements: str
  network:
    description:
      - The network of the steps, V(default), V(none) or V(host).
    type: str
  shm_size:
    description:
      - Size of C(/dev/shm) for the steps, such as V(128m).
    type: str
  ulimits:
    description:
      - Limits for the steps, such as V(nofile=1024:2048).
    type: list
    elements: str
  add_hosts:
    description:
      - Further host names for the steps, with the address of each.
    type: dict
    default: {}
  pull:
    description:
      - Whether to ask registries for base images that the Engine has. Only an Engine's own builder takes these.
    type: bool
    default: false
  no_cache:
    description:
      - Whether to run all steps anew, when it builds.
    type: bool
    default: false
  no_cache_filter:
    description:
      - The stages whose steps are run anew, when it builds.
    type: list
    elements: str
  provenance:
    description:
      - What is attested about the build, V(true), V(false) or as C(--provenance) takes it, such as V(mode=max).
    type: str
  sbom:
    description:
      - Whether to attest what the image contains, V(true), V(false) or as C(--sbom) takes it.
    type: str
  source_date_epoch:
    description:
      - The time of the image in seconds since 1970, so that two builds of the same give the same.
      - With another driver than V(docker), it is also the latest time of files in the layers.
    type: int
  lint:
    description:
      - Whether to have the Dockerfile checked before (C(--call check)). V(warn) warns of what is found, V(refuse) fails.
      - Needs buildx 0.15.
    type: str
    choices: [skip, warn, refuse]
    default: skip
  rebuild:
    description:
      - V(auto) builds where something that goes in has changed, or a tag is not there.
      - V(always) builds in any case. Where the result is what was there, nothing is pushed, and nothing has changed.
      - V(never) builds only where a tag is not there.
    type: str
    choices: [auto, always, never]
    default: auto
  verify_reproducible:
    description:
      - Whether to build twice without the cache first, when it builds, and to fail where the results differ, with the
        layer that does. Then nothing is pushed or kept.
    type: bool
    default: false
  will_change:
    description:
      - Images that the same play builds before this one. Check mode, where they are not built, counts a build upon one of
        them as a change.
    type: list
    elements: str
  stall_timeout:
    description:
      - Seconds of silence after which a build is ended. A step that writes nothing is silence too. V(0) is no limit.
    type: int
    default: 3600
  lock_timeout:
    description:
      - Seconds to wait for another run that writes images into the same Engine.
    type: int
    default: 600
requirements:
  - docker buildx >= 0.13
  - docker (the Docker SDK for Python)
notes:
  - O(registry_username) and O(registry_password) are for the registries that O(tags) name, for the build as well. Other
    logins are those of C(docker login) on the host.
  - O(registry_validate_certs), O(registry_ca_path), O(registry_mirrors) and O(registry_proxy) count where this module asks
    a registry. How the builder reaches it is the builder's own configuration.
  - To a host without the packages that this module needs they travel along with the task, as the role
    P(fleet.images.docker_sdk#role) would bring them.
seealso:
  - module: fleet.images.buildx_builder
  - module: fleet.images.image_pull
"""

EXAMPLES = r"""
- name: A simple build with a tag, into the Engine
  fleet.images.buildx_build:
    path: /srv/app
    tags: [my-app:v1]

- name: One tag that works on both platforms, pushed
  fleet.images.buildx_build:
    path: /srv/app
    tags: [registry.example.com/shop/app:universal]
    platforms: [linux/amd64, linux/arm64]
    push: true

- name: With an argument, and a secret that stays one
  fleet.images.buildx_build:
    path: /srv/app
    tags: [registry.example.com/shop/app:2]
    push: true
    args:
      VERSION: 2
    secrets:
      - id: token
        value: "{{ app_token }}"
    registry_username: robot
    registry_password: "{{ registry_password }}"

- name: Into a store, from which it can be carried to hosts behind an air gap
  fleet.images.buildx_build:
    path: /srv/app
    tags: [shop/app:2]
    platforms: [linux/amd64, linux/arm64]
    store: /var/lib/fleet-images/store
  register: built

- name: An image that anybody can build again, bit by bit
  fleet.images.buildx_build:
    path: /srv/app
    dockerfile_inline: |
      FROM scratch
      COPY . /app
    tags: [shop/files:1]
    source_date_epoch: 0
    provenance: "false"
    verify_reproducible: true
"""

RETURN = r"""
images:
  description: What became of each tag.
  returned: when it was possible to look
  type: list
  elements: dict
  contains:
    name:
      description: The whole name.
      type: str
    id:
      description: Digest of the config, of the first platform in alphabetical order, or the Engine's ID.
      type: str
    digest:
      description: Digest of the index or manifest, empty where an Engine does not tell.
      type: str
    action:
      description: V(none), V(built) or V(pushed).
      type: str
    reason:
      description: Why, in words.
      type: str
digest:
  description: Digest of the index or manifest that the tags name.
  returned: when it was possible to look
  type: str
platforms:
  description:
    - For each platform the C(digest) of its manifest and its C(size) in bytes. The classic image store has no manifests;
      there the C(digest) is the ID, and an Engine 26 with the containerd store tells neither.
  returned: when it was possible to look
  type: dict
fingerprint:
  description: The digest of all that goes in, as the label C(fleet.images.fingerprint) has it.
  returned: when it was possible to look
  type: str
bases:
  description: The images that it builds on, with the digest of each, empty where that is not known.
  returned: when it was possible to look
  type: dict
lock:
  description: The lock of what the tags name, by which it can be pulled or carried. Null where only an Engine has it.
  returned: when it was possible to look
  type: dict
context:
  description: How many files go in, and their bytes.
  returned: when it was possible to look
  type: dict
reproducible:
  description: For each platform, whether two builds gave the same.
  returned: with O(verify_reproducible), when it was built
  type: dict
steps:
  description: How many steps of the Dockerfile there were, over all platforms.
  returned: when it was possible to look
  type: int
cached_steps:
  description: How many of them did not have to run.
  returned: when it was possible to look
  type: int
failed_step:
  description: The C(name) of the step that failed, its C(platform), and the last C(lines) that it wrote.
  returned: when a step failed
  type: dict
lint_findings:
  description: What the check of the Dockerfile found.
  returned: when it was possible to look
  type: list
  elements: str
seconds_to_decide:
  description: Seconds that it took to know whether to build.
  returned: when it was possible to look
  type: float
seconds:
  description: Seconds that all of it took.
  returned: when it was possible to look
  type: float
"""

from contextlib import nullcontext
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.fleet.images.plugins.module_utils._arguments import (
    engine_arguments,
    registry_arguments,
)
from ansible_collections.fleet.images.plugins.module_utils._build import Build
from ansible_collections.fleet.images.plugins.module_utils._build_doors import Doors
from ansible_collections.fleet.images.plugins.module_utils._build_run import BuildFailed
from ansible_collections.fleet.images.plugins.module_utils._buildx import BuildxError
from ansible_collections.fleet.images.plugins.module_utils._context import ContextError
from ansible_collections.fleet.images.plugins.module_utils._dockerfile import InvalidDockerfile
from ansible_collections.fleet.images.plugins.module_utils._engine import EngineError
from ansible_collections.fleet.images.plugins.module_utils._hostlock import HostLock, LockTimeout
from ansible_collections.fleet.images.plugins.module_utils._layout import LayoutError
from ansible_collections.fleet.images.plugins.module_utils._reference import InvalidReference
from ansible_collections.fleet.images.plugins.module_utils._registry import RegistryError
from ansible_collections.fleet.images.plugins.module_utils._sdk import SdkError, SdkMissing

ERRORS = (
    BuildFailed, BuildxError, ContextError, InvalidDockerfile, InvalidReference, EngineError,
    RegistryError, LayoutError, LockTimeout, SdkError, OSError,
)  # fmt: skip
STRINGS = (
    "tags", "platforms", "outputs", "cache_from", "cache_to", "ssh", "ulimits", "no_cache_filter",
    "will_change",
)  # fmt: skip
TEXTS = (
    "dockerfile", "dockerfile_inline", "builder", "target", "network", "shm_size", "provenance",
    "sbom",
)  # fmt: skip


def options() -> dict[str, Any]:
    """The argument spec."""
    secret = {
        "id": {"type": "str", "required": True},
        "src": {"type": "path"},
        "env": {"type": "str"},
        "value": {"type": "str", "no_log": True},
    }
    sources = ["src", "env", "value"]
    return {
        **engine_arguments(),
        **registry_arguments(),
        "path": {"type": "path", "required": True},
        **{name: {"type": "str"} for name in TEXTS},
        **{name: {"type": "list", "elements": "str"} for name in STRINGS},
        **{
            name: {"type": "dict", "default": {}}
            for name in ("args", "labels", "annotations", "build_contexts", "add_hosts")
        },
        **{
            name: {"type": "bool", "default": False}
            for name in ("push", "pull", "no_cache", "verify_reproducible")
        },
        "load": {"type": "bool"},
        "store": {"type": "path"},
        "secrets": {
            "type": "list",
            "elements": "dict",
            "options": secret,
            "mutually_exclusive": [sources],
            "required_one_of": [sources],
            "no_log": False,
        },
        "source_date_epoch": {"type": "int"},
        "lint": {"type": "str", "choices": ["skip", "warn", "refuse"], "default": "skip"},
        "rebuild": {"type": "str", "choices": ["auto", "always", "never"], "default": "auto"},
        "stall_timeout": {"type": "int", "default": 3600},
        "lock_timeout": {"type": "int", "default": 600},
    }


def build(module: AnsibleModule) -> dict[str, Any]:
    """The module's result; raises one of ERRORS."""
    params = module.params
    with Doors(params, module.tmpdir, module.check_mode) as doors:
        alone = doors.writes_engine and not module.check_mode
        waiting = (params["docker_host"], "buildx_build", params["lock_timeout"])
        with HostLock(*waiting) if alone else nullcontext():
            return Build(params, doors, module.check_mode).run()


def main() -> None:
    """Runs the module."""
    module = AnsibleModule(
        argument_spec=options(),
        mutually_exclusive=[("dockerfile", "dockerfile_inline")],
        required_one_of=[("tags", "outputs")],
        required_by={"store": "tags"},
        required_if=[("push", True, ["tags"]), ("load", True, ["tags"])],
        required_together=[("registry_username", "registry_password")],
        supports_check_mode=True,
    )
    try:
        result = build(module)
    except ERRORS as error:
        step = error.step.as_result() if isinstance(error, BuildFailed) and error.step else None
        module.fail_json(
            msg=str(error),
            changed=isinstance(error, BuildFailed) and error.changed,
            sdk_missing=isinstance(error, SdkMissing),
            **({"failed_step": step} if step else {}),
        )
    for finding in result["lint_findings"]:
        module.warn(f"the Dockerfile: {finding}")
    if not module._diff:
        del result["diff"]
    module.exit_json(**result)


if __name__ == "__main__":
    main()
