#!/usr/bin/python
# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: image_relay
short_description: Serve images of a store to other hosts, read-only
version_added: 0.3.0
author:
  - The fleet.images authors (@fleet)
description:
  - Starts a CNCF Distribution registry on the bastion, the I(relay), which serves what the store has of a lock, and
    nothing else. Hosts pull from it by digest, over an SSH tunnel or over the network.
  - The relay's files are hard links to the blobs of the store. It is filled at once, takes no room of its own, and an
    index of which the store has some platforms only keeps its digest.
  - The registry of an image's name is left out, so V(registry.example.com/shop/web:1) is C(shop/web:1) of the relay.
    With C(as) in the lock, it is there under that name as well. Where two images come to the same repository and tag,
    both are there by digest only.
  - An image that the store does not have whole does not hold up the others. The task fails when all others are served.
  - Nothing can be pushed to the relay or deleted from it.
  - The process does not come back by itself after the host was started anew. Run the task again.
  - Relays that killed runs have left in the store are ended and removed, see O(lease).
options:
  state:
    description:
      - V(started) serves the lock. A relay that runs so already stays as it is.
      - V(stopped) ends the process and removes its directory.
    type: str
    choices: [started, stopped]
    default: started
  name:
    description:
      - Name of the relay. Several may run side by side.
    type: str
    default: relay
  store:
    description:
      - Directory of the store, as M(fleet.images.image_fetch) fills it.
      - Required to start a relay, and to stop one without O(dir).
    type: path
  lock:
    description:
      - The lock's content, as M(fleet.images.image_fetch) returns it.
      - Exactly one of O(lock) and O(lock_path) is wanted to start a relay.
    type: dict
  lock_path:
    description:
      - A lock file on the host.
    type: path
  images:
    description:
      - The images of the lock to serve, all by default.
      - A string, or a dict of C(name), C(digest), C(platforms) and C(as), of which the name selects.
    type: list
    elements: raw
  dir:
    description:
      - Directory of the relay, on the file system of the store. It is created with mode C(0700), and holds the tree of
        links, the configuration, the id of the process and its log.
      - Has to be empty at first.
      - By default, C(.relay/<name>) in the store.
    type: path
  address:
    description:
      - The IP address or name of the host on which the relay listens. V(0.0.0.0) and V(::) stand for all.
    type: str
    default: 127.0.0.1
  port:
    description:
      - The port on which it listens. V(0) takes one that is free, and keeps it while the relay runs.
    type: int
    default: 0
  tls:
    description:
      - Whether to serve with TLS. Without O(certificate), a self-signed one is made on the controller, which is valid
        for 30 days, and RV(ca) is what hosts have to trust.
      - While a relay runs, its certificate stays until the last day, as long as it holds for the same names.
    type: bool
    default: false
  names:
    description:
      - IP addresses and DNS names for which the certificate holds, besides O(address). These are the names under which
        hosts reach the relay.
      - Wanted for O(tls) without O(certificate) if O(address) stands for all addresses.
    type: list
    elements: str
    default: []
  certificate:
    description:
      - A certificate of your own, PEM, with the certificates of its authorities behind it. The relay serves with TLS.
    type: str
  private_key:
    description:
      - Its private key, PEM, without a password.
    type: str
  htpasswd:
    description:
      - Content of a file as C(htpasswd -B) makes it, with bcrypt hashes. The relay wants a login of these users then.
    type: str
  command:
    description:
      - The program, Distribution 2.8 or newer, by name or path.
      - The first of C(docker-registry) and C(registry) on the path, in C(/usr/bin) and in C(/usr/local/bin) by default.
    type: str
  image:
    description:
      - A registry image, of CNCF Distribution 2.8 or newer as C(docker.io/library/registry:2), that this host's Engine
        has already. The relay runs as a container of it then, with the directory of the relay read-only and in the
        network of the host, without any restart by the Engine. Nothing is pulled.
      - With O(command), the program in the image, where it is not the image's own entry point.
      - Wants the Docker SDK for Python, which is sent along where the host has none, and an Engine that is not rootless.
    type: str
    version_added: 0.3.0
  docker_host:
    description:
      - The socket of this host's Engine, for O(image).
    type: str
    default: unix:///var/run/docker.sock
    version_added: 0.3.0
  lease:
    description:
      - Name of a lease of the store, as the O(fleet.images.image_fetch#module:lease) of M(fleet.images.image_fetch), to
        which the relay belongs. It is made if it is not there.
      - Such a relay is that of one run. Once the file C(.leases/<name>) is gone, or a day old, and nobody is connected to
        the relay, the next M(fleet.images.image_relay) on the same store, or M(fleet.images.image_fetch) with C(keep),
        ends and removes it. If its process has ended already, this does not wait for the lease.
      - A relay without a lease stays until it is stopped.
    type: str
    version_added: 0.3.0
  start_timeout:
    description:
      - Seconds to wait until the relay answers.
    type: int
    default: 15
extends_documentation_fragment:
  - fleet.images.attributes
attributes:
  check_mode:
    support: full
    details: A relay that does not run yet has no port and no certificate, unless they are given.
  diff_mode:
    support: full
    description: Shows what the relay serves, and whether it runs as wanted.
  idempotent:
    support: full
  platform:
    support: full
    platforms: linux
requirements:
  - Python >= 3.9
  - CNCF Distribution, which is the package C(docker-registry) of Debian and Ubuntu, or an O(image) of it
notes:
  - Without O(image), needs neither a Docker Engine nor the Docker SDK for Python.
  - Blobs that O(store) no longer has take room until the relay is told a lock without them.
seealso:
  - module: fleet.images.image_fetch
  - module: fleet.images.image_pull
"""

EXAMPLES = r"""
- name: Fetch an image on the bastion
  fleet.images.image_fetch:
    images:
      - docker.io/library/postgres:16-alpine
    store: /var/lib/fleet-images/store
  register: fetched

- name: Serve it on the bastion's loopback, for hosts that come through an SSH tunnel
  fleet.images.image_relay:
    store: /var/lib/fleet-images/store
    lock: "{{ fetched.lock }}"
  register: relay

- name: Serve it on the network
  fleet.images.image_relay:
    name: site
    store: /var/lib/fleet-images/store
    lock: "{{ fetched.lock }}"
    address: 0.0.0.0
    port: 5443
    tls: true
    names: ["{{ inventory_hostname }}"]
  register: site_relay

- name: End both
  fleet.images.image_relay:
    name: "{{ item }}"
    store: /var/lib/fleet-images/store
    state: stopped
  loop: [relay, site]
"""

RETURN = r"""
url:
  description: Where the relay is reached.
  returned: when O(state=started)
  type: str
  sample: http://127.0.0.1:40123
address:
  description: The address on which it listens.
  returned: when O(state=started)
  type: str
port:
  description: The port on which it listens. V(0) in check mode if it is not chosen yet.
  returned: when O(state=started)
  type: int
pid:
  description: The id of its process. V(0) in check mode if it is to be started.
  returned: when O(state=started)
  type: int
swept:
  description: Names of other relays of the store that runs have left behind, and that were ended, or would be.
  returned: always
  type: list
  elements: str
ca:
  description: The certificate that hosts have to trust, PEM. Empty unless one was made, see O(tls).
  returned: when O(state=started)
  type: str
bytes:
  description: Bytes of all blobs that it serves, each counted once.
  returned: when O(state=started)
  type: int
images:
  description: One entry per image of the lock.
  returned: when O(state=started)
  type: list
  elements: dict
  contains:
    name: {description: The image's name in the lock., type: str, returned: always}
    id: {description: "Digest of its config, of the first platform in alphabetical order.", type: str, returned: always}
    digest: {description: Digest of its index or manifest., type: str, returned: always}
    repository: {description: Its repository in the relay., type: str, returned: always}
    action: {description: "V(none), V(served) or V(failed).", type: str, returned: always}
    reason: {description: Why., type: str, returned: always}
    bytes: {description: "Bytes of its blobs, shared ones included.", type: int, returned: always}
"""

import os
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.fleet.images.plugins.module_utils import (
    _lock,
    _lockfile,
    _reference,
    _relay,
    _relay_sweep,
    _sweep,
)
from ansible_collections.fleet.images.plugins.module_utils._engine import DEFAULT_HOST, EngineError
from ansible_collections.fleet.images.plugins.module_utils._layout import LayoutError
from ansible_collections.fleet.images.plugins.module_utils._relay_config import Wanted
from ansible_collections.fleet.images.plugins.module_utils._relay_tree import RelayError
from ansible_collections.fleet.images.plugins.module_utils._sdk import SdkError, SdkMissing

ERRORS = (
    RelayError, _lock.LockError, _reference.InvalidReference, LayoutError, EngineError, SdkError,
)  # fmt: skip
ARGUMENTS = {
    "state": {"type": "str", "choices": ["started", "stopped"], "default": "started"},
    "name": {"type": "str", "default": "relay"},
    "store": {"type": "path"},
    "lock": {"type": "dict"},
    "lock_path": {"type": "path"},
    "images": {"type": "list", "elements": "raw"},
    "dir": {"type": "path"},
    "address": {"type": "str", "default": "127.0.0.1"},
    "port": {"type": "int", "default": 0},
    "tls": {"type": "bool", "default": False},
    "names": {"type": "list", "elements": "str", "default": []},
    "certificate": {"type": "str"},
    "private_key": {"type": "str", "no_log": True},
    "htpasswd": {"type": "str", "no_log": True},
    "command": {"type": "str"},
    "image": {"type": "str"},
    "docker_host": {"type": "str", "default": DEFAULT_HOST},
    "lease": {"type": "str"},
    "start_timeout": {"type": "int", "default": 15},
}


def sweep(params: dict[str, Any], dry_run: bool) -> list[str]:
    """The relays that went, which killed runs have left: one may hold the port. Raises OSError."""
    if not params["store"]:
        return []
    own = _relay.directory_of(params["name"], params["store"], params["dir"])
    return _relay_sweep.sweep(Path(os.path.abspath(params["store"])), own, dry_run)


def run(params: dict[str, Any], dry_run: bool) -> dict[str, Any]:
    """The module's result.

    Raises RelayError, LockError, InvalidReference, EngineError, SdkError, OSError.
    """
    directory = _relay.directory_of(params["name"], params["store"], params["dir"])
    if params["state"] == "stopped":
        return _relay.stopped(directory, dry_run)
    lock = _lockfile.chosen(params)
    return _relay.started(params["store"], lock, directory, wanted_of(params), dry_run)


def wanted_of(params: dict[str, Any]) -> Wanted:
    """How the relay is to run."""
    return Wanted(
        address=params["address"],
        port=params["port"],
        command=params["command"] or "",
        certificate=params["certificate"] or "",
        private_key=params["private_key"] or "",
        htpasswd=params["htpasswd"] or "",
        # The action says so of a pair that it made, and only of such a one.
        made=params["tls"],
        names=tuple(params["names"]),
        timeout=params["start_timeout"],
        image=params["image"] or "",
        docker_host=params["docker_host"],
        lease=params["lease"] or "",
    )


def main() -> None:
    """Runs the module."""
    module = AnsibleModule(
        argument_spec=ARGUMENTS,
        required_if=[
            ("state", "started", ("store",)),
            ("state", "started", ("lock", "lock_path"), True),
            ("state", "stopped", ("store", "dir"), True),
        ],
        required_together=[("certificate", "private_key")],
        mutually_exclusive=[("lock", "lock_path")],
        supports_check_mode=True,
    )
    params, swept = module.params, []
    try:
        if params["lease"]:
            _sweep.check_lease_name(params["lease"])
        swept = sweep(params, module.check_mode)
        result = run(params, module.check_mode)
    except ERRORS as error:
        missing = isinstance(error, SdkMissing)
        changed = bool(swept) or getattr(error, "changed", False)
        module.fail_json(msg=str(error), changed=changed, swept=swept, sdk_missing=missing)
    except OSError as error:
        module.fail_json(
            msg=f"the relay {params['name']} cannot use a file ({error}); check the owner and the"
            " space of its directory and of the store",
            changed=bool(swept),
            swept=swept,
        )
    result["swept"] = swept
    result["changed"] = result["changed"] or bool(swept)
    if not module._diff:
        del result["diff"]
    if result.pop("failed", False):
        module.fail_json(**result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
