#!/usr/bin/python
# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: buildx_builder
short_description: Builders of docker buildx as declared state
version_added: 0.4.0
description:
  - Makes, changes, boots, stops or removes a builder of C(docker buildx), so that it is as it is declared.
  - C(docker buildx create) makes a second builder, or only warns, where one with other settings is there. This module
    compares what is wanted with what buildx keeps, and changes just what differs. A setting that is not given is not
    compared, and stays; to have none, give an empty one.
  - New nodes, nodes that leave, and pinned platforms are mended in place. A node with another endpoint, option, flag or
    configuration is made anew where its BuildKit has been started already, since it keeps the settings of that time; its
    build cache stays, and so do other nodes. For another driver, or where no node stays as it is, the builder is made anew.
    RV(actions) says what is done, why, and what becomes of the cache.
  - The BuildKit of a node that leaves is removed, which C(docker buildx create --leave) does not do.
  - After a failure the builder has the settings that it had before; one that was not there is not there. A BuildKit that was
    removed until then is started again by the next build.
  - Builders belong to the user who runs the task, in E(BUILDX_CONFIG) or C(~/.docker/buildx) there.
author: The fleet.images authors (@fleet-images)
extends_documentation_fragment:
  - fleet.images.engine
  - fleet.images.attributes
attributes:
  check_mode:
    support: full
    details: The commands are rehearsed in a directory of their own, so that settings which buildx refuses are told.
  diff_mode:
    support: full
    details: Shows the settings before and after. Values of C(env.) options are hidden.
  idempotent:
    support: full
  platform:
    platforms: linux
options:
  name:
    description:
      - Name of the builder. V(default), and the name of a docker context, is the one that comes with an Engine, with driver
        V(docker); it can be used, but neither be changed nor removed.
    type: str
    required: true
  state:
    description:
      - V(present) has these settings, whether it runs or not. V(booted) also runs, all of its nodes, and V(stopped) does not.
        A BuildKit of driver V(remote) is not started, it has to answer.
      - V(absent) is not there. Without O(keep_state) its build cache goes with it.
    type: str
    choices: [present, absent, booted, stopped]
    default: present
  driver:
    description:
      - V(docker-container) is a BuildKit in a container, V(remote) one that runs already, V(kubernetes) one in pods.
      - V(docker) is the Engine's own. There is one for each docker context, and no other can be made.
      - If it is not given, a builder keeps its driver, and a new one has V(docker-container).
    type: str
    choices: [docker, docker-container, remote, kubernetes]
  nodes:
    description:
      - All nodes. If there are none given, a builder keeps its nodes, which get the settings below, and a new one has one
        node, of the Engine at O(docker_host).
    type: list
    elements: dict
    suboptions:
      name:
        description: Name of the node. If it is not given, that of the builder and its place in the list, from 0.
        type: str
      endpoint:
        description:
          - The address of an Engine, as V(ssh://root@arm1.example), or the name of a docker context for
            V(docker-container); without one, the Engine at O(docker_host). For an Engine that asks for TLS, only a context
            holds the certificates.
          - The address of a BuildKit for V(remote), as V(tcp://builder.example:1234).
        type: str
      platforms:
        description: The platforms that the node is pinned to, in place of O(platforms).
        type: list
        elements: str
      driver_opts:
        description: Options of the driver, upon O(driver_opts).
        type: dict
      buildkitd_flags:
        description: Flags of BuildKit, in place of O(buildkitd_flags).
        type: list
        elements: str
  platforms:
    description:
      - The platforms that each node is pinned to. Of several nodes, just one can be pinned to a platform.
    type: list
    elements: str
  driver_opts:
    description:
      - Options of the driver for each node, such as C(image), the image of BuildKit. Where no registry is reached, name an
        image that the Engine has. buildx tries to pull it all the same, and takes the one that is there when the
        registry does not answer; a registry on the loopback, as in V(127.0.0.1:9/buildkit:v0.25), refuses at once.
    type: dict
  buildkitd_flags:
    description:
      - Flags of BuildKit for each node. That which buildx adds by itself is left out of account.
    type: list
    elements: str
  buildkitd_config:
    description:
      - The content of C(buildkitd.toml) for each node, for mirrors and for the certificates of registries. buildx reads the
        files that it names on this host.
    type: str
  use:
    description:
      - Whether it is the current builder for the Engine at O(docker_host), which builds that name none are made with. Without
        it, the current one stays.
    type: bool
    default: false
  keep_state:
    description:
      - Whether the build cache outlives O(state=absent), for a builder with nodes of the same names to come. A builder
        that is made anew keeps it anyway, as far as buildx can.
    type: bool
    default: false
  boot_timeout:
    description:
      - Seconds for the nodes to boot, with the pull of the image of BuildKit, or to stop.
    type: int
    default: 120
requirements:
  - docker buildx >= 0.13
notes:
  - It works by the docker command alone, without the Docker SDK. O(tls_hostname) and O(api_version) have no meaning here.
  - Tests of this collection boot V(remote), by TCP, and V(docker-container), on this host and by SSH, for real, with a
    stand-in for the image of BuildKit that hands on to the Engine's own. V(kubernetes) is tried up to the command that
    would reach a cluster, and no further.
seealso:
  - module: fleet.images.buildx_build
  - plugin: fleet.images.builder_nodes
    plugin_type: filter
"""

EXAMPLES = r"""
- name: Make a builder in a container, and build with it from now on
  fleet.images.buildx_builder:
    name: universal
    use: true

- name: Make one whose image of BuildKit is on the host, where no registry can be reached
  fleet.images.buildx_builder:
    name: offline
    driver_opts:
      image: 127.0.0.1:9/moby/buildkit:v0.25
    buildkitd_config: |
      [registry."site.example"]
        http = true

- name: Make every host of a group a node of one builder, for the platforms in its image_build_node_platforms
  fleet.images.buildx_builder:
    name: natives
    nodes: "{{ groups['buildnodes'] | map('extract', hostvars) | fleet.images.builder_nodes }}"
    driver_opts:
      image: 127.0.0.1:9/moby/buildkit:v0.25

- name: Use a BuildKit that runs somewhere
  fleet.images.buildx_builder:
    name: far
    driver: remote
    nodes:
      - endpoint: tcp://127.0.0.1:1234

- name: Remove it
  fleet.images.buildx_builder:
    name: far
    state: absent

- name: Build with the Engine's own again
  fleet.images.buildx_builder:
    name: default
    use: true
"""

RETURN = r"""
builder:
  description: The builder as it is, in check mode as it would be; null with O(state=absent).
  returned: success
  type: dict
  contains:
    name: {description: Its name., type: str, returned: always}
    driver: {description: Its driver., type: str, returned: always}
    current: {description: Whether it is the current one for the Engine at O(docker_host)., type: bool, returned: always}
    nodes:
      description: Its nodes, in the order of their names.
      type: list
      elements: dict
      returned: always
      contains:
        name: {description: Name of the node., type: str, returned: always}
        endpoint: {description: Where it is., type: str, returned: always}
        platforms: {description: "What it builds; those that it is pinned to where it does not run.", type: list, returned: always}
        pinned: {description: The platforms that it is pinned to., type: list, returned: when it can be set}
        driver_opts: {description: Options of its driver., type: dict, returned: when it can be set}
        buildkitd_flags: {description: "Flags of its BuildKit, with those that buildx adds.", type: list, returned: when it can be set}
        status: {description: "V(running), V(stopped), or V(inactive) where it has not been started.", type: str, returned: always}
        error: {description: "Why it cannot be reached, empty where it can.", type: str, returned: always}
actions:
  description: What was done, or is to be done, in its order.
  returned: success
  type: list
  elements: dict
  contains:
    action:
      description:
        - Of a node, V(created) (the first), V(added), V(changed), V(remade), V(left), V(booted) or V(stopped). Of the
          builder, V(removed) or V(used).
      type: str
      returned: always
    node: {description: "The node, empty for the builder.", type: str, returned: always}
    reason: {description: "Why, with what was wanted and what was found.", type: str, returned: always}
    cache: {description: "V(kept) or V(lost), what becomes of its build cache, empty where it is not touched.", type: str, returned: always}
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.fleet.images.plugins.module_utils import _builders
from ansible_collections.fleet.images.plugins.module_utils._arguments import engine_arguments
from ansible_collections.fleet.images.plugins.module_utils._builder_commands import BuilderError
from ansible_collections.fleet.images.plugins.module_utils._builder_words import SettingError
from ansible_collections.fleet.images.plugins.module_utils._buildx import BuildxError


def options() -> dict[str, Any]:
    """The argument spec."""
    strings: dict[str, Any] = {"type": "list", "elements": "str"}
    of_nodes: dict[str, Any] = {
        "platforms": strings,
        "driver_opts": {"type": "dict"},
        "buildkitd_flags": strings,
    }
    node = {"name": {"type": "str"}, "endpoint": {"type": "str"}, **of_nodes}
    return {
        **engine_arguments(),
        **of_nodes,
        "name": {"type": "str", "required": True},
        "state": {"type": "str", "choices": list(_builders.STATES), "default": "present"},
        "driver": {"type": "str", "choices": list(_builders.DRIVERS)},
        "nodes": {"type": "list", "elements": "dict", "options": node},
        "buildkitd_config": {"type": "str"},
        "use": {"type": "bool", "default": False},
        "keep_state": {"type": "bool", "default": False},
        "boot_timeout": {"type": "int", "default": 120},
    }


def main() -> None:
    """Runs the module."""
    module = AnsibleModule(argument_spec=options(), supports_check_mode=True)
    try:
        result = _builders.settle(module.params, module.check_mode, module.tmpdir)
    except BuilderError as error:
        module.fail_json(msg=str(error), changed=error.changed)
    except (BuildxError, SettingError, OSError) as error:
        module.fail_json(msg=str(error), changed=False)
    for warning in result.pop("warnings"):
        module.warn(warning)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
