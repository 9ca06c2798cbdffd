#!/usr/bin/python
# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: image_archive
short_description: Write images of a store or of the Engine into bundles that every Engine loads
version_added: 0.1.0
description:
  - Writes one or several bundles from the store that M(fleet.images.image_fetch) fills, or straight from the Engine.
    A bundle is one tar that plain C(docker load -i) takes on every Engine from 20.10 on, with either image store.
  - Layers are the registry's own bytes, shared ones stand in it once, and the same input gives the same bytes.
  - An Engine with the classic image store has layers uncompressed; these are compressed with gzip, on all cores.
  - Layers that the target has already may be left out, see O(blobs).
  - A bundle is written beside its place, flushed to disk and renamed, so the path never holds half a file.
author: The fleet.images authors (@fleet-images)
extends_documentation_fragment:
  - fleet.images.attributes
  - fleet.images.engine
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
  platform:
    platforms: linux
options:
  source:
    description:
      - Where the images come from. V(store) wants O(store), and O(lock) or O(lock_path).
      - V(daemon) takes O(images) from the Engine of this host, as C(docker save) does. What is not there for the platform
        fails the bundle, and its path keeps what it held.
      - By default V(store) where a lock is given, and V(daemon) where none is.
    type: str
    choices: [store, daemon]
  store:
    description:
      - The directory of the store, an OCI image layout.
      - With O(source=daemon), blobs are kept there, so that a layer is compressed once and never again. Without it they
        lie beside the bundle until that is written, which takes its room twice.
    type: path
  lock:
    description:
      - The lock's content, as M(fleet.images.image_fetch) returns it.
      - At most one of O(lock) and O(lock_path) is wanted.
    type: dict
  lock_path:
    description:
      - A lock file on the host.
    type: path
  images:
    description:
      - The images of the lock that go into the bundle at O(path), all by default.
      - With O(source=daemon), images of the Engine; they have to be named.
      - A string, or a dict of C(name), C(digest), C(platforms) and C(as). The name selects, and C(as) is the name that the
        image gets on the target. The platform is that of O(platform).
    type: list
    elements: raw
  path:
    description:
      - Where the bundle is to stand. Its directory is made if it is not there.
      - Exactly one of O(path) and O(bundles) is wanted.
    type: path
  blobs:
    description:
      - Digests of the layers that go in, as RV(fleet.images.image_plan#module:blobs) names them; all layers by default.
      - Indexes, manifests and configs always go in.
    type: list
    elements: str
  platform:
    description:
      - The platform of the images, as C(linux/arm64); the host's or the Engine's own by default.
    type: str
  checksum:
    description:
      - Whether to write a file with the bundle's SHA-256 beside it, under its name with C(.sha256).
      - C(sha256sum -c) reads it, and M(fleet.images.image_load) compares with it.
      - A bundle that is written without it loses the file of its predecessor.
    type: bool
    default: false
  split_size:
    description:
      - Writes the bundle in parts of this size, C(.part001), C(.part002) and so on after its name, instead of one file.
        C(cat) of them all is the bundle, and M(fleet.images.image_load) takes them as they are.
      - Bytes, or a number with a unit of 1024, as V(4000MB). A disk with FAT32 takes files of less than V(4GB).
    type: str
  bundles:
    description:
      - Several bundles in one task.
    type: list
    elements: dict
    suboptions:
      path:
        description: As O(path).
        type: path
        required: true
      images:
        description: As O(images).
        type: list
        elements: raw
      blobs:
        description: As O(blobs).
        type: list
        elements: str
      platform:
        description: As O(platform).
        type: str
  controller_dir:
    description:
      - A directory on the controller that gets the bundles, which do not stay on the host then.
      - With O(split_size), parts come over while those after them are being written.
      - A host that is the controller itself keeps them where they are.
    type: path
seealso:
  - module: fleet.images.image_fetch
  - module: fleet.images.image_plan
  - module: fleet.images.image_load
"""

EXAMPLES = r"""
- name: Fetch two images
  fleet.images.image_fetch:
    images:
      - docker.io/library/nginx:1.27-alpine
      - docker.io/library/postgres:16-alpine
    store: /var/lib/fleet-images/store
    lock_path: /var/lib/fleet-images/images.lock.json

- name: Write both into one file, as docker save would, to be carried by hand
  fleet.images.image_archive:
    store: /var/lib/fleet-images/store
    lock_path: /var/lib/fleet-images/images.lock.json
    path: /var/tmp/my-images.tar

- name: Write what the Engine of this host has into one file
  fleet.images.image_archive:
    images:
      - nginx:alpine
      - postgres:16
    path: /var/tmp/my-images.tar

- name: Write it in parts for a stick with FAT32, and keep the compressed layers for the next time
  fleet.images.image_archive:
    images:
      - nginx:alpine
      - postgres:16
    path: /mnt/stick/my-images.tar
    store: /var/lib/fleet-images/store
    split_size: 4000MB
    checksum: true
"""

RETURN = r"""
bundles:
  description: One entry per bundle, in the order in which they were asked for.
  returned: success
  type: list
  elements: dict
  contains:
    path: {description: Where it stands., type: str, returned: always}
    changed: {description: Whether it was written now., type: bool, returned: always}
    local_path: {description: Where it stands on the controller., type: str, returned: with O(controller_dir) outside of check mode}
    bytes: {description: Its size in bytes., type: int, returned: always}
    sha256: {description: "Its SHA-256 in hex, empty in check mode where it would be written.", type: str, returned: always}
    files: {description: "The files that hold it, one or its parts.", type: list, elements: str, returned: always}
    file_sha256:
      description: The SHA-256 of each of them in hex; none in check mode where they would be written.
      type: list
      elements: str
      returned: always
    local_files: {description: Its files on the controller., type: list, elements: str, returned: with O(controller_dir) outside of check mode}
    images: {description: The names of its images., type: list, elements: str, returned: always}
    left_out: {description: Bytes of the layers that were left out., type: int, returned: always}
failed_bundles:
  description: One entry per bundle that could not be written.
  returned: always
  type: list
  elements: dict
  contains:
    path: {description: Where it was to stand., type: str, returned: always}
    reason: {description: Why it does not., type: str, returned: always}
    damaged:
      description: Digests of blobs that had other content in the store and were removed, so that they are fetched anew.
      type: list
      elements: str
      returned: always
images:
  description: One entry per image of each bundle.
  returned: success
  type: list
  elements: dict
  contains:
    name: {description: The image's name on the target., type: str, returned: always}
    id: {description: The digest of its config., type: str, returned: always}
    digest: {description: The digest of the index or manifest that it is loaded with., type: str, returned: always}
    action: {description: "V(archived), or V(none) where the bundle stood there already.", type: str, returned: always}
    path: {description: The bundle that holds it., type: str, returned: always}
"""

import platform as machine
from collections.abc import Mapping
from functools import partial
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.common.text.formatters import human_to_bytes

from ansible_collections.fleet.images.plugins.module_utils import _lockfile, _save
from ansible_collections.fleet.images.plugins.module_utils._arguments import engine_arguments
from ansible_collections.fleet.images.plugins.module_utils._bundle_files import Form
from ansible_collections.fleet.images.plugins.module_utils._engine import Engine, EngineError
from ansible_collections.fleet.images.plugins.module_utils._layout import Layout
from ansible_collections.fleet.images.plugins.module_utils._reference import parse_platform
from ansible_collections.fleet.images.plugins.module_utils._sdk import SdkError, SdkMissing

ERRORS = (EngineError, SdkError, ValueError, OSError)


def save(params: Mapping[str, Any], dry_run: bool) -> list[_save.Outcome]:
    """Writes the bundles that the parameters ask for. Raises one of ERRORS, LockError among it."""
    wanted = [params] if params["bundles"] is None else params["bundles"]
    tasks = [_save.task(one) for one in wanted]
    passing = params["controller_dir"] is not None
    form = Form(split_size_of(params["split_size"]), params["checksum"], passing)
    saver = _save.Saver(form, dry_run)
    given = params["lock"] is not None or params["lock_path"] is not None
    if params["source"] == "daemon" or (params["source"] is None and not given):
        if given:
            raise ValueError("a lock selects from a store: leave it out, or set source: store")
        return saver.from_engine(partial(Engine, params), params["store"], tasks)
    if not given or params["store"] is None:
        raise ValueError("source: store wants a store, and a lock or lock_path; set them")
    lock = _lockfile.given(params)
    own = parse_platform(machine.machine())
    return saver.from_store(Layout(params["store"]), lock, tasks, own)


def split_size_of(text: str | None) -> int:
    """Bytes of each part; 0 for none. Raises ValueError."""
    if text is None:
        return 0
    size = int(human_to_bytes(text))
    if size < 1:
        raise ValueError(f"split_size: wanted at least 1 byte, found {text!r}")
    return size


def report(outcomes: list[_save.Outcome]) -> dict[str, Any]:
    """The module's result."""
    errors = [one.as_failure() for one in outcomes if one.written is None]
    bundles = [one.as_result() for one in outcomes if one.written is not None]
    new = [bundle for bundle in bundles if bundle["changed"]]
    return {
        "changed": bool(new),
        "bundles": bundles,
        "images": [image for one in outcomes for image in one.image_results()],
        "diff": {"before": "", "after": "".join(f"{b['path']}: {b['bytes']} bytes\n" for b in new)},
        "failed_bundles": errors,
        "msg": "; ".join(f"{error['path']}: {error['reason']}" for error in errors)
        or f"{len(new)} of {len(bundles)} bundles written, {sum(b['bytes'] for b in new)} bytes",
    }


def main() -> None:
    """Runs the module."""
    one = {
        "images": {"type": "list", "elements": "raw"},
        "blobs": {"type": "list", "elements": "str"},
        "platform": {"type": "str"},
    }
    bundle = {**one, "path": {"type": "path", "required": True}}
    module = AnsibleModule(
        argument_spec={
            **engine_arguments(),
            **one,
            "source": {"type": "str", "choices": ["store", "daemon"]},
            "store": {"type": "path"},
            "lock": {"type": "dict"},
            "lock_path": {"type": "path"},
            "path": {"type": "path"},
            "checksum": {"type": "bool", "default": False},
            "split_size": {"type": "str"},
            "controller_dir": {"type": "path"},
            "bundles": {"type": "list", "elements": "dict", "options": bundle},
        },
        required_one_of=[("path", "bundles")],
        mutually_exclusive=[
            ("lock", "lock_path"),
            ("path", "bundles"),
            ("controller_dir", "checksum"),
        ],
        supports_check_mode=True,
    )
    try:
        result = report(save(module.params, module.check_mode))
    except ERRORS as error:
        module.fail_json(msg=str(error), sdk_missing=isinstance(error, SdkMissing))
    if result["failed_bundles"]:
        module.fail_json(**result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
