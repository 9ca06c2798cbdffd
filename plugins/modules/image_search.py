#!/usr/bin/python
# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: image_search
short_description: List what a registry offers, so that a concrete tag can be chosen
version_added: 0.2.0
author:
  - The fleet.images authors (@fleet)
description:
  - Lists the tags of repositories, newest version first, with digest, platforms and sizes of the newest few if that is
    wanted.
  - Lists the repositories of a registry that has a catalogue, or what Docker Hub's search finds, which the Engine on
    the host asks.
  - Changes nothing.
options:
  repositories:
    description:
      - The repositories whose tags are listed, such as V(nginx) or V(registry.example/shop/api), without a tag.
      - Exactly one of O(repositories), and O(registry) or O(term), is wanted.
    type: list
    elements: str
    aliases: [repository]
  registry:
    description:
      - The registry whose repositories are listed, as C(host) or C(host:port).
      - Many public registries have no catalogue. V(docker.io), which is the default with O(term), has a search instead.
    type: str
  term:
    description:
      - Only repositories with this text in their name, in upper or lower case. Docker Hub looks in descriptions as well.
      - Required for V(docker.io).
    type: str
  match:
    description:
      - Only tags in which this regular expression (Python's) is found. C(^) and C($) stand for the ends of the tag.
    type: str
  limit:
    description:
      - How many tags of each repository, newest first, or how many repositories to return. V(0) is all of them.
      - Docker Hub gives V(100) at most.
    type: int
    default: 0
  details:
    description:
      - Of how many tags of each repository, newest first, to read the manifests too. No layer is read.
    type: int
    default: 0
  parallel:
    description:
      - How many repositories or tags to ask for at a time.
    type: int
    default: 4
  retries:
    description:
      - How often to try again when a registry does not answer, answers with an error of its own or a limit, or breaks
        the connection. Waits longer each time, and as long as the registry asks for.
    type: int
    default: 3
extends_documentation_fragment:
  - fleet.images.engine
  - fleet.images.registry
  - fleet.images.attributes
attributes:
  check_mode:
    support: full
    description: The module only reads.
  diff_mode:
    support: none
    description: Nothing ever differs, since the module only reads.
  idempotent:
    support: full
  platform:
    support: full
    description: Needs Python 3.9 or newer and C(requests); the Engine is asked only for Docker Hub's search.
requirements:
  - Python >= 3.9
  - requests
  - docker (the Docker SDK for Python), for Docker Hub's search, and for a registry that asks for a login where no
    O(registry_username) is given
notes:
  - Tags follow no standard. Those that begin with a number, perhaps after a C(v), count as versions, higher ones first,
    C(1.10) before C(1.9). A release stands before its variants, such as C(16.2-alpine), and before its pre-releases,
    such as C(2.0.0-rc1). Tags that are no versions, such as C(latest) or dates, come last.
seealso:
  - module: fleet.images.image_lock
"""

EXAMPLES = r"""
- name: List the five newest releases of one series, with digests and platforms
  fleet.images.image_search:
    repository: postgres
    match: '^16(\.\d+)*-alpine$'
    limit: 5
    details: 5
  register: found

- name: Tell the newest
  ansible.builtin.debug:
    msg: "{{ found.repositories[0].tags[0].name }} is {{ found.repositories[0].tags[0].digest }}"

- name: List what a registry of one's own has about a shop
  fleet.images.image_search:
    registry: registry.example:5000
    term: shop

- name: Search Docker Hub, as docker search does
  fleet.images.image_search:
    term: nginx
    limit: 10
"""

RETURN = r"""
repositories:
  description:
    - The repositories, those of O(repositories) in the order given, those of a catalogue sorted, those of Docker Hub as
      it orders them.
  returned: when the options can be used
  type: list
  elements: dict
  contains:
    name:
      description: The repository's full name.
      type: str
    tags:
      description: Its tags, newest version first.
      returned: with O(repositories)
      type: list
      elements: dict
      contains:
        tag:
          description: The tag.
          type: str
        name:
          description: The image's full name, repository and tag.
          type: str
        kind:
          description: V(release), V(prerelease), or V(other) for a tag that is no version.
          type: str
        digest:
          description: Digest of its index or manifest.
          returned: for the first O(details) tags
          type: str
        platforms:
          description: What it has for each platform of Linux.
          returned: for the first O(details) tags
          type: list
          elements: dict
          contains:
            platform:
              description: The platform.
              type: str
            id:
              description: Digest of the config.
              type: str
            digest:
              description: Digest of the manifest.
              type: str
            bytes:
              description: Bytes of the image for this platform in the registry, compressed as they are there.
              type: int
        reason:
          description: Why there are no details, for one that is no image, for example.
          returned: for those of the first O(details) tags that could not be read
          type: str
    total:
      description: How many tags the repository has, before O(match) and O(limit).
      returned: with O(repositories)
      type: int
    reason:
      description: Why its tags, or details of them, could not be read.
      returned: where they could not
      type: str
    description:
      description: What Docker Hub says about it.
      returned: from Docker Hub
      type: str
    stars:
      description: How many users of Docker Hub marked it.
      returned: from Docker Hub
      type: int
    official:
      description: Whether it is one of Docker's official images.
      returned: from Docker Hub
      type: bool
  sample:
    - name: docker.io/library/postgres
      total: 3217
      tags:
        - tag: 16.4-alpine
          name: docker.io/library/postgres:16.4-alpine
          kind: release
"""

import functools
import re
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.fleet.images.plugins.module_utils import (
    _engine,
    _reference,
    _registry,
    _registry_options,
    _retry,
    _sdk,
    _search,
)
from ansible_collections.fleet.images.plugins.module_utils._arguments import (
    engine_arguments,
    registry_arguments,
)

ARGUMENTS = {
    "repositories": {"type": "list", "elements": "str", "aliases": ["repository"]},
    "registry": {"type": "str"},
    "term": {"type": "str"},
    "match": {"type": "str"},
    "limit": {"type": "int", "default": 0},
    "details": {"type": "int", "default": 0},
    "parallel": {"type": "int", "default": 4},
    "retries": {"type": "int", "default": 3},
    **registry_arguments(),
    **engine_arguments(),
}


def task_from(params: dict[str, Any]) -> _search.Task:
    """What the module was called with; raises InvalidReference, ValueError for what is unusable."""
    host = params["registry"] or _reference.DEFAULT_REGISTRY
    repositories = [_search.parse_repository(one) for one in params["repositories"] or []]
    if not repositories:
        host = _search.parse_registry(host)
    if not repositories and host == _reference.DEFAULT_REGISTRY and not params["term"]:
        raise ValueError("registry: docker.io has no catalogue, but a search; give it a term")
    try:
        match = re.compile(params["match"]) if params["match"] else None
    except re.error as error:
        raise ValueError(
            f"match: {params['match']!r} is no regular expression ({error}); mend it"
        ) from error
    return _search.Task(
        repositories=repositories,
        registry=host,
        term=params["term"] or "",
        match=match,
        limit=max(0, params["limit"]),
        details=max(0, params["details"]),
        parallel=max(1, params["parallel"]),
    )


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(
        argument_spec=ARGUMENTS,
        required_one_of=[("repositories", "registry", "term")],
        mutually_exclusive=[("repositories", "registry"), ("repositories", "term")],
        supports_check_mode=True,
    )
    try:
        retrier = _retry.Retrier(retries=max(0, module.params["retries"]))
        with _registry.Registry(_registry_options.options_from(module.params), retrier) as registry:
            connect = functools.partial(_engine.Engine, module.params)
            result = _search.run(task_from(module.params), registry, connect)
    except (
        _engine.EngineError,
        _registry.RegistryError,
        _sdk.SdkError,
        ValueError,  # InvalidReference is one
    ) as error:
        module.fail_json(msg=str(error), sdk_missing=isinstance(error, _sdk.SdkMissing))
    if result.get("failed"):
        module.fail_json(**result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
