#!/usr/bin/python
# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: image_archive
short_description: Write images of a store into bundles that every Engine loads
version_added: 0.1.0
description:
  - Writes one or several bundles from the store that M(fleet.images.image_fetch) fills. A bundle is one tar that plain
    C(docker load -i) takes on every Engine from 20.10 on, with either image store.
  - Layers are the registry's own bytes, shared ones stand in it once, and the same input gives the same bytes.
  - Layers that the target has already may be left out, see O(blobs).
  - A bundle is written beside its place, flushed to disk and renamed, so the path never holds half a file.
author: The fleet.images authors (@fleet-images)
extends_documentation_fragment:
  - fleet.images.attributes
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
  store:
    description:
      - The directory of the store, an OCI image layout.
    type: path
    required: true
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
      - The images of the lock that go into the bundle at O(path), all by default.
      - A string, or a dict of C(name), C(digest), C(platforms) and C(as), of which the name selects.
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
      - The platform of the images, as C(linux/arm64); the host's own by default.
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
images:
  description: One entry per image of each bundle.
  returned: success
  type: list
  elements: dict
  contains:
    name: {description: The image's name on the target., type: str, returned: always}
    id: {description: The digest of its config., type: str, returned: always}
    digest: {description: The digest that its tag named in the registry., type: str, returned: always}
    action: {description: "V(archived), or V(none) where the bundle stood there already.", type: str, returned: always}
    path: {description: The bundle that holds it., type: str, returned: always}
"""

import platform as machine
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.fleet.images.plugins.module_utils import _bundle, _bundle_files, _lock
from ansible_collections.fleet.images.plugins.module_utils._layout import Layout, LayoutError
from ansible_collections.fleet.images.plugins.module_utils._reference import (
    InvalidReference,
    parse_images,
    parse_platform,
)

ERRORS = (LayoutError, _bundle.BundleError, _lock.LockError, InvalidReference, OSError)


def write_bundle(
    layout: Layout, lock: _lock.Lock, wanted: Mapping[str, Any], dry_run: bool
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Writes one bundle; returns its entry and those of its images. Raises one of ERRORS."""
    if wanted["images"] is not None:
        lock = _lock.select(lock, [spec.key for spec in parse_images(wanted["images"])])
    on = parse_platform(wanted["platform"] or machine.machine())
    images = [(image, on) for _name, image in sorted(lock.items())]
    include = None if wanted["blobs"] is None else frozenset(wanted["blobs"])
    parts = _bundle.members(layout, images, include, foreseen=dry_run)
    written = _bundle_files.write(Path(wanted["path"]), parts, dry_run)
    layers = {layer.digest: layer.size for image, _on in images for layer in image.on(on).layers}
    bundle = {
        "path": wanted["path"],
        "changed": written.changed,
        "bytes": written.bytes,
        "sha256": written.sha256,
        "images": [image.destination.tagged for image, _on in images],
        "left_out": 0 if include is None else sum(layers[one] for one in layers.keys() - include),
    }
    return bundle, [_entry(image, on, bundle) for image, _on in images]


def _entry(image: _lock.LockedImage, on: str, bundle: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": image.destination.tagged,
        "id": image.on(on).config.digest,
        "digest": image.target.digest,
        "action": "archived" if bundle["changed"] else "none",
        "path": bundle["path"],
    }


def archive(params: Mapping[str, Any], dry_run: bool) -> dict[str, Any]:
    """Writes the bundles that the parameters ask for; one that fails holds back no other.

    Raises one of ERRORS where there is no lock to begin with.
    """
    if params["lock_path"]:
        lock = _lock.loads(Path(params["lock_path"]).read_bytes())
    else:
        lock = _lock.load(params["lock"])
    layout = Layout(params["store"])
    results, errors = [], []
    for wanted in [params] if params["bundles"] is None else params["bundles"]:
        try:
            results.append(write_bundle(layout, lock, wanted, dry_run))
        except ERRORS as error:
            errors.append({"path": wanted["path"], "reason": str(error)})
    bundles = [bundle for bundle, _images in results]
    new = [bundle for bundle in bundles if bundle["changed"]]
    return {
        "changed": bool(new),
        "bundles": bundles,
        "images": [image for _bundle, images in results for image in images],
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
            **one,
            "store": {"type": "path", "required": True},
            "lock": {"type": "dict"},
            "lock_path": {"type": "path"},
            "path": {"type": "path"},
            "controller_dir": {"type": "path"},
            "bundles": {"type": "list", "elements": "dict", "options": bundle},
        },
        required_one_of=[("lock", "lock_path"), ("path", "bundles")],
        mutually_exclusive=[("lock", "lock_path"), ("path", "bundles")],
        supports_check_mode=True,
    )
    try:
        result = archive(module.params, module.check_mode)
    except ERRORS as error:
        module.fail_json(msg=str(error))
    if result["failed_bundles"]:
        module.fail_json(**result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
