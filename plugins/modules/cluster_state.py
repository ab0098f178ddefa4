#!/usr/bin/python
# Copyright (c) 2026, The sovereign.dify maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Documentation of the action of the same name, which runs on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: cluster_state
short_description: Refuse a state directory that the hosts were not configured from
version_added: 0.2.0
author: The sovereign.dify maintainers (@sovereign-dify)
description:
  - Compares the identity of the controller's state directory with the marks that hosts carry (M(sovereign.dify.state_mark)), and fails if a host of
    the play was configured from another one, or if the directory is new and the marks of some of O(hosts) are not known.
  - Reads the hosts' facts (C(ansible_local)), which have to be gathered before, and connects to no host. One call serves all hosts of a play
    (C(run_once)).
  - Gives a new state directory its identity, the file C(id) in it. It is no secret.
extends_documentation_fragment: [ansible.builtin.action_common_attributes]
attributes:
  check_mode: {support: full}
  diff_mode: {support: none}
  platform: {platforms: posix}
options:
  state_dir:
    description: The state directory on the controller.
    type: path
    required: true
  hosts:
    description: All hosts of the platform, also those that are not in the play.
    type: list
    elements: str
    default: []
  adopt:
    description: Accept the state directory whatever the hosts carry.
    type: raw
    default: false
"""

EXAMPLES = r"""
- name: Compare the state directory with what the hosts carry
  sovereign.dify.cluster_state:
    state_dir: "{{ cluster.state_dir }}"
    hosts: "{{ query('inventory_hostnames', 'site_*') }}"
  run_once: true
  register: compared
"""

RETURN = r"""
id: {description: Identity of the state directory; empty in check mode while it has none., returned: success, type: str}
unmarked: {description: Hosts of the play that do not carry it., returned: success, type: list, elements: str}
"""
