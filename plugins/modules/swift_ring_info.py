#!/usr/bin/python
# Copyright (c) 2026, The sovereign.dify maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Module: what a member of an object storage has of its rings."""

from __future__ import annotations

DOCUMENTATION = r"""
module: swift_ring_info
short_description: Tell what a member of an object storage has of its rings
version_added: 0.1.0
author: The sovereign.dify maintainers (@sovereign-dify)
description:
  - Reads the rings of OpenStack Swift and the files that they are made from, and what the member declares to have
    (C(/etc/swift/sovereign-devices.json), which the role P(sovereign.dify.object_storage#role) writes). Nothing is reported of what is not there.
extends_documentation_fragment: [ansible.builtin.action_common_attributes]
attributes:
  check_mode: {support: full}
  diff_mode: {support: none}
  platform: {platforms: debian}
options: {}
"""

EXAMPLES = r"""
- name: Ask the member
  sovereign.dify.swift_ring_info:
  register: __object_storage_report
"""

RETURN = r"""
report:
  description: Address, devices and rings of the member, for M(sovereign.dify.swift_ring_plan).
  returned: always
  type: dict
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.sovereign.dify.plugins.module_utils.swift_ring import report


def main() -> None:
    """Read, report."""
    module = AnsibleModule(argument_spec={}, supports_check_mode=True)
    module.exit_json(changed=False, report=report(Path("/etc/swift")))


if __name__ == "__main__":
    main()
