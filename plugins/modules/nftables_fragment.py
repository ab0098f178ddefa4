#!/usr/bin/python
# Copyright (c) 2026, The sovereign.dify maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Module: a part of the table that nftables_table applies."""

from __future__ import annotations

DOCUMENTATION = r"""
module: nftables_fragment
short_description: Write a part of a table, and tell whether it is in force
version_added: 0.1.0
author: The sovereign.dify maintainers (@sovereign-dify)
description:
  - Writes a file that M(sovereign.dify.nftables_table) joins into a table.
  - Reports a change as well where the file is as wanted, but the ruleset confirmed last does not hold it. A handler that applies the table is then
    notified again after a run that ended between writing and applying.
extends_documentation_fragment: [ansible.builtin.action_common_attributes]
attributes:
  check_mode: {support: full}
  diff_mode: {support: full}
  platform: {platforms: posix}
options:
  dest:
    description: The file.
    type: path
    required: true
  content:
    description: What it holds.
    type: str
    required: true
  ruleset:
    description: The file of the ruleset confirmed last, O(sovereign.dify.nftables_table#module:dest).
    type: path
    required: true
"""

EXAMPLES = r"""
- name: Write the rules of nginx
  sovereign.dify.nftables_fragment:
    dest: /etc/sovereign/firewall/rules.d/nginx.nft
    content: "{{ rules | sovereign.dify.firewall_fragment('nginx') }}"
    ruleset: /etc/sovereign/firewall/ruleset.nft
  notify: Apply the firewall's rules
"""

RETURN = r"""
written:
  description: Whether the file was not as wanted.
  type: bool
  returned: always
applied:
  description: Whether the ruleset confirmed last holds the wanted content.
  type: bool
  returned: always
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.sovereign.dify.plugins.module_utils.nftables.source import holds
from ansible_collections.sovereign.dify.plugins.module_utils.private_file import write_private


def main() -> None:
    """Compare, write, report."""
    module = AnsibleModule(
        argument_spec={
            "dest": {"type": "path", "required": True},
            "content": {"type": "str", "required": True},
            "ruleset": {"type": "path", "required": True},
        },
        supports_check_mode=True,
    )
    dest, ruleset, content = Path(module.params["dest"]), Path(module.params["ruleset"]), module.params["content"]
    before = dest.read_text(encoding="utf-8") if dest.is_file() else ""
    written = before != content
    applied = ruleset.is_file() and holds(ruleset.read_text(encoding="utf-8"), dest, content)
    if written and not module.check_mode:
        if not dest.parent.is_dir():
            module.fail_json(msg=f"{dest.parent} is missing on the host: run the firewall role before the roles that declare rules")
        write_private(dest, content)
    diff = {"before": before, "after": content, "before_header": str(dest), "after_header": str(dest)}
    module.exit_json(changed=written or not applied, written=written, applied=applied, diff=diff)


if __name__ == "__main__":
    main()
