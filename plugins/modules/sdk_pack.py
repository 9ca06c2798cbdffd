#!/usr/bin/python
# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: sdk_pack
short_description: Install the pack of Python packages that this collection needs on a host
version_added: 0.1.0
author:
  - The fleet.images authors (@fleet)
description:
  - A I(pack) holds the Docker SDK for Python, jmespath and what they need, as pure Python, so that
    a host with neither pip nor a network can run the modules of this collection.
  - Unpacks a pack that is on the host into a directory of its own version, byte-compiles it for the
    Python that runs this module, and points the link C(current) at it. Until then, the version
    before stays in use.
  - Without O(src) the module tells whether the host has the pack, and mends what it can without it,
    which is the link, the byte-code and leftovers.
  - With O(pack), the controller makes the pack and sends it to hosts that lack it.
  - The role P(fleet.images.docker_sdk#role) does that. Use the role.
options:
  state:
    description:
      - V(present) has the pack O(key) unpacked and in use, and no other version beside it.
      - V(absent) has no pack at all in O(dest), so that the host's own Python packages are used.
    type: str
    choices:
      - present
      - absent
    default: present
  key:
    description:
      - The version of the pack, 16 hexadecimal digits.
      - Required if O(state=present).
    type: str
  src:
    description:
      - The pack, a C(.tar.gz) file on the host.
      - Read only if the host lacks the version O(key). In check mode it need not be there.
    type: path
  sha256:
    description:
      - SHA-256 of the file O(src), 64 hexadecimal digits.
      - Required if O(src) is given.
    type: str
  pack:
    description:
      - Path of a prepared pack on the controller, which is sent to a host that lacks it.
      - If empty, the pack is taken from O(cache_dir), or made there with pip.
      - If not given, nothing is sent.
    type: path
  cache_dir:
    description:
      - Directory on the controller for packs that are made.
      - Defaults to C(fleet-images/sdk) in E(XDG_CACHE_HOME), or in C(~/.cache) if that is not set.
    type: path
  ask:
    description:
      - Whether the host is asked first if it has the pack. V(false) sends O(pack) at once, for a host
        of which it is known that it has none.
    type: bool
    default: true
  dest:
    description:
      - The directory for the versions, their link and, while it is installed, the file of a pack.
      - Names that this module or its role make there belong to the module, which removes old
        versions, unfinished directories and files of packs. All other names are left alone.
      - Defaults to E(FLEET_IMAGES_SDK) if that is set, else to C(/usr/local/lib/fleet-images/sdk) for
        root and to C(~/.local/share/fleet-images/sdk) for other users. The collection looks for packs
        there and nowhere else.
      - Nobody but root and the user who runs the module may be able to write there or above.
    type: path
extends_documentation_fragment:
  - fleet.images.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
    details:
      - Shows the version in use before and after.
  idempotent:
    support: full
"""

EXAMPLES = r"""
# make_pack.py of the role docker_sdk tells the key and the SHA-256 of the pack that it makes.
- name: Ask whether the host has this version of the pack
  fleet.images.sdk_pack:
    key: "{{ pack_key }}"
  register: state

- name: Send the pack to a host that lacks it
  fleet.images.sdk_pack:
    key: "{{ pack_key }}"
    pack: /media/stick/fleet-images-sdk-{{ pack_key }}.tar.gz

- name: Install a pack that is on the host already
  fleet.images.sdk_pack:
    key: "{{ pack_key }}"
    src: /var/tmp/fleet-images-sdk-{{ pack_key }}.tar.gz
    sha256: "{{ pack_sha256 }}"

- name: Use the SDK of the host's own packages
  fleet.images.sdk_pack:
    state: absent
"""

RETURN = r"""
dest:
  description: The directory that holds the versions of the pack.
  returned: success
  type: str
  sample: /usr/local/lib/fleet-images/sdk
installed:
  description: Whether the pack is in use after this task. In check mode, whether it would be.
  returned: success
  type: bool
  sample: true
path:
  description: The directory of the pack that is, or would be, in use. Empty if there is none.
  returned: success
  type: str
  sample: /usr/local/lib/fleet-images/sdk/0123456789abcdef
previous:
  description: The version that was in use before this task. Empty if there was none.
  returned: success
  type: str
  sample: ""
system:
  description:
    - Versions that the host's own Python imports without a pack, by name of the package.
    - Empty for a package that it cannot import.
  returned: success and O(state=absent)
  type: dict
  sample:
    docker: 5.0.3
    jmespath: 1.0.1
    requests: 2.28.1
"""

import os
import re
import typing as t
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.fleet.images.plugins.module_utils import _sdk


def run(module: AnsibleModule) -> dict[str, t.Any]:
    """Look, apply unless in check mode, and return the module's result.

    Raises SdkError, OSError.
    """
    state, src = module.params["state"], module.params["src"]
    home = Path(module.params["dest"] or _sdk.pack_home())
    store = _sdk.Store(home, module.params["key"] if state == "present" else "")
    before = store.current
    unable = store.missing and not src
    changed = not store.done and not unable
    if changed and not module.check_mode:
        changed = store.apply(src, module.params["sha256"])
    if not unable and not store.missing:
        store.check()
    after = before if unable else store.key
    result = {
        "changed": changed,
        "dest": str(home),
        "installed": state == "present" and not unable,
        "path": str(home / after) if after else "",
        "previous": before,
        "diff": {"before": f"{before}\n", "after": f"{after}\n"},
    }
    if state == "absent":
        result["system"] = _sdk.system_versions()
    return result


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "key": {"type": "str", "no_log": False},
            "src": {"type": "path"},
            "sha256": {"type": "str"},
            "pack": {"type": "path"},
            "cache_dir": {"type": "path"},
            "ask": {"type": "bool", "default": True},
            "dest": {"type": "path"},
        },
        required_if=[("state", "present", ["key"])],
        required_by={"src": ["sha256"]},
        mutually_exclusive=[("src", "pack")],
        supports_check_mode=True,
    )
    key = module.params["key"]
    if key is not None and not re.fullmatch(_sdk.KEY, key):
        module.fail_json(
            msg=f"The key {key!r} should be 16 hexadecimal digits;"
            " use the role fleet.images.docker_sdk, which knows it."
        )
    # Whatever the session's umask: all users of the host may read a pack, only its owner may write.
    os.umask(0o022)
    try:
        module.exit_json(**run(module))
    except _sdk.SdkError as exc:
        module.fail_json(msg=str(exc))
    except OSError as exc:
        module.fail_json(
            msg=f"The SDK pack should be {module.params['state']} in"
            f" {module.params['dest'] or _sdk.pack_home()}, but: {exc}; mend this and try again."
        )


if __name__ == "__main__":
    main()
