#!/usr/bin/python
# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: image_load
short_description: Load a bundle into an Engine, verified
version_added: 0.1.0
description:
  - Brings the images of a bundle into an Engine. What is there already is neither sent nor loaded.
  - The bundle is loaded without names, each image is compared with the lock, and only then gets its tag. On any
    mismatch the tags are what they were, and nothing nameless is left behind.
  - Without O(remote_src) the bundle lies on the controller. It travels in parts with a checksum each, over the
    connection that the host has, and a transfer that broke goes on where it stopped.
author: The fleet.images authors (@fleet-images)
extends_documentation_fragment:
  - fleet.images.engine
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
  src:
    description:
      - The archive, a bundle of M(fleet.images.image_archive), or what C(docker save) of any Engine has written, or
        what skopeo, podman, buildx, kaniko, jib and the like write in these formats. Also an OCI image layout in a tar;
        of an index of several platforms the Engine's own is loaded.
      - An image that has no name in its archive is loaded as C(<first 12 digits of its ID>:loaded).
      - It may be compressed with gzip, bzip2 or xz, or with zstd where Python has it (3.14) or the command C(zstd) is
        there.
      - Where it was split, its parts lie beside each other as C(<src>.part001), C(<src>.part002) and so on; O(src) is
        the name of the whole, which need not be there, or of the first part.
      - Where C(<src>.sha256) lies beside it, in the format of C(sha256sum), the archive or each of its parts has to be
        what that file says, or it is refused before anything is touched.
      - A path on the controller, or on the host where O(remote_src=true).
    type: path
    required: true
  remote_src:
    description:
      - Whether the bundle lies on the host already.
    type: bool
    default: false
  sha256:
    description:
      - The SHA-256 of the archive as it lies there, in hex; of one that was split, that of the whole. A file that
        differs is refused before anything is touched.
    type: str
  lock:
    description:
      - The lock's content, as M(fleet.images.image_fetch) returns it; what is loaded has to be what it names.
      - Without a lock the bundle's own list of images is taken.
    type: dict
  lock_path:
    description:
      - A lock file on the host.
    type: path
  images:
    description:
      - The images of the lock, or of the bundle, to load; all by default.
      - A string, or a dict of C(name), C(digest), C(platforms) and C(as), of which the name selects.
    type: list
    elements: raw
  known:
    description:
      - What the bastion's store knows of manifests and their layers, as M(fleet.images.image_fetch) returns it.
      - With it, an Engine with the containerd store tells before the load which layer is missing.
    type: list
    elements: dict
    default: []
  parallel:
    description:
      - How many loads run at once. Images that share a missing layer go in one.
    type: int
    default: 2
  stall_timeout:
    description:
      - Seconds of silence after which a load counts as dead. The whole has no limit.
    type: int
    default: 600
  lock_timeout:
    description:
      - Seconds to wait for another run that writes images into the same Engine by a module of this collection.
    type: int
    default: 600
  staging_dir:
    description:
      - Directory on the host for the parts of a bundle that the controller sends; it belongs to the login user.
      - The parts of a bundle are removed after the load, whatever came of it. Those that came before a transfer broke
        stay for the next time.
      - A compressed archive is unpacked on its file system too, into a file without a name. On the controller that is
        the file system of Ansible's C(local_tmp).
    type: path
    default: /var/tmp/fleet-images
  planned:
    description:
      - Whether M(fleet.images.image_plan) has just said that this host lacks something, as in the role P(fleet.images.airgap#role).
      - The bundle is then sent at once. Otherwise the host is looked at first, and nothing is sent to one that lacks nothing.
    type: bool
    default: false
  content:
    description:
      - A small bundle itself, in base64, which stands for O(src). The action plugin sets this; playbooks do not.
    type: str
  parts:
    description:
      - The parts that are being sent, which stand for O(src). The action plugin sets this; playbooks do not.
    type: list
    elements: dict
    suboptions:
      path:
        description: The part on the host.
        type: path
        required: true
      size:
        description: Its size in bytes.
        type: int
        required: true
      sha256:
        description: Its SHA-256 in hex. With O(members) there is none, since the digest of every blob is compared.
        type: str
        default: ""
  members:
    description:
      - Where each member lies in the archive, so that it can be loaded while it arrives. The action plugin sets this; playbooks do not.
    type: list
    elements: dict
    suboptions:
      name:
        description: The member's name.
        type: str
        required: true
      offset:
        description: Where its content begins, in bytes.
        type: int
        required: true
      size:
        description: How long that is, in bytes.
        type: int
        required: true
seealso:
  - module: fleet.images.image_archive
  - module: fleet.images.image_plan
"""

EXAMPLES = r"""
- name: Load what a colleague brought on a stick
  fleet.images.image_load:
    src: /media/stick/my-images.tar

- name: Load what docker save wrote on another host, compressed and in parts, with a file of checksums beside it
  fleet.images.image_load:
    src: /media/stick/my-images.tar.gz

- name: Load a bundle that lies on the host already, and only if it is the one that was meant
  fleet.images.image_load:
    src: /var/tmp/my-images.tar
    remote_src: true
    sha256: "{{ lookup('ansible.builtin.file', 'my-images.tar.sha256') | split | first }}"
"""

RETURN = r"""
images:
  description: One entry per image, those that failed included.
  returned: always
  type: list
  elements: dict
  contains:
    name: {description: The image's name on the host., type: str, returned: always}
    id: {description: The ID that the Engine lists it under., type: str, returned: always}
    digest: {description: The digest that the tag named in the registry., type: str, returned: always}
    action: {description: "V(none), V(loaded) or V(failed).", type: str, returned: always}
    reason: {description: Why., type: str, returned: always}
    bytes: {description: Bytes of the blobs that went into the Engine for it., type: int, returned: always}
    seconds: {description: How long its load took., type: float, returned: always}
bytes:
  description: Bytes of the blobs that went into the Engine, shared ones once.
  returned: always
  type: int
missing_layers:
  description:
    - Digests of blobs that an image failed for, because the bundle leaves them out and the Engine does not have them.
    - A bundle that holds them loads; the role P(fleet.images.airgap#role) makes one in the same run.
  returned: always
  type: list
  elements: str
bytes_sent:
  description: Bytes of the bundle that the controller sent to the host.
  returned: when O(remote_src=false)
  type: int
bytes_resumed:
  description: Bytes of the bundle that an earlier, broken transfer had left on the host.
  returned: when O(remote_src=false)
  type: int
seconds:
  description: How long it took, with the transfer.
  returned: always
  type: float
"""

import base64
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.fleet.images.plugins.module_utils import (
    _archive,
    _arriving,
    _holdings,
    _load,
    _lock,
    _lockfile,
)
from ansible_collections.fleet.images.plugins.module_utils._arguments import engine_arguments
from ansible_collections.fleet.images.plugins.module_utils._bundle import BundleError
from ansible_collections.fleet.images.plugins.module_utils._engine import Engine, EngineError
from ansible_collections.fleet.images.plugins.module_utils._hostlock import HostLock, LockTimeout
from ansible_collections.fleet.images.plugins.module_utils._parts import (
    PartError,
    Source,
    check_sha256,
    check_sums,
    split_parts,
)
from ansible_collections.fleet.images.plugins.module_utils._reference import InvalidReference
from ansible_collections.fleet.images.plugins.module_utils._sdk import SdkError, SdkMissing

ERRORS = (
    BundleError,
    EngineError,
    InvalidReference,
    OSError,
    PartError,
    SdkError,
    LockTimeout,
    _load.LoadError,
    _lock.LockError,
)


def sources(params: Mapping[str, Any]) -> Sequence[Path | Source]:
    """The archive's files, their checksums compared; raises PartError, OSError.

    Parts may be on their way still: each one is compared when it is read.
    """
    if params["parts"]:
        return _arriving.parts(params["parts"], params["stall_timeout"])
    files = split_parts(Path(params["src"]))
    check_sums(Path(params["src"]), files)
    if params["sha256"]:
        check_sha256(files[0], params["sha256"], *files[1:])
    return files


def unpack(module: AnsibleModule) -> None:
    """Puts a bundle that came as an argument into the task's own directory; raises OSError."""
    path = Path(module.tmpdir) / "bundle.tar"
    size = path.write_bytes(base64.b64decode(module.params["content"]))
    module.params["parts"] = [{"path": str(path), "size": size, "sha256": module.params["sha256"]}]


def load(params: Mapping[str, Any], dry_run: bool) -> dict[str, Any]:
    """Reads, looks, plans, loads and verifies; raises one of ERRORS where it cannot begin."""
    engine = Engine(params)
    paths, spool = sources(params), Path(params["staging_dir"])
    with _archive.opened(paths, spool, _arriving.listed(params["members"], paths)) as archive:
        if dry_run:
            return load_archive(engine, archive, params, dry_run)
        with HostLock(params["docker_host"], "image_load", params["lock_timeout"]):
            return load_archive(engine, archive, params, dry_run)


def load_archive(
    engine: Engine, archive: _archive.Archive, params: Mapping[str, Any], dry_run: bool
) -> dict[str, Any]:
    """The module's result and its `errors`, once the archive is open; raises as `load` does."""
    lock = _lockfile.chosen(params, otherwise=archive.images)
    before = engine.holdings(params["known"])
    plan = _holdings.plan(lock, before)
    _load.check_space(plan, engine.facts.free, engine.facts.data_path)
    loader = _load.Loader(
        engine, archive, params["known"], params["parallel"], params["stall_timeout"]
    )
    outcomes = loader.foresee(plan, before) if dry_run else loader.run(plan, before)
    return _load.report(outcomes, before)


def refused(error: Exception) -> dict[str, Any]:
    """The result of a load that could not begin."""
    nothing = {"changed": False, "images": [], "bytes": 0, "missing_layers": []}
    return {**nothing, "errors": [str(error)], "sdk_missing": isinstance(error, SdkMissing)}


def main() -> None:
    """Runs the module."""
    module = AnsibleModule(
        argument_spec={
            **engine_arguments(),
            "src": {"type": "path", "required": True},
            "remote_src": {"type": "bool", "default": False},
            "sha256": {"type": "str"},
            "lock": {"type": "dict"},
            "lock_path": {"type": "path"},
            "images": {"type": "list", "elements": "raw"},
            "known": {"type": "list", "elements": "dict", "default": []},
            "parallel": {"type": "int", "default": 2},
            "stall_timeout": {"type": "int", "default": 600},
            "lock_timeout": {"type": "int", "default": 600},
            "staging_dir": {"type": "path", "default": "/var/tmp/fleet-images"},
            "planned": {"type": "bool", "default": False},
            "content": {"type": "str", "no_log": True},
            "parts": {"type": "list", "elements": "dict", "options": _arriving.PART},
            "members": {"type": "list", "elements": "dict", "options": _arriving.MEMBER},
        },
        mutually_exclusive=[("lock", "lock_path")],
        supports_check_mode=True,
    )
    started = time.monotonic()
    try:
        if module.params["content"]:
            unpack(module)
        result = load(module.params, module.check_mode)
    except ERRORS as error:
        result = refused(error)
    result["seconds"] = round(time.monotonic() - started, 3)
    errors = result.pop("errors")
    if errors:
        module.fail_json(msg="; ".join(errors), **result)
    done = sum(image["action"] == "loaded" for image in result["images"])
    msg = f"{done} of {len(result['images'])} images loaded, {result['bytes']} bytes"
    module.exit_json(msg=msg, **result)


if __name__ == "__main__":
    main()
