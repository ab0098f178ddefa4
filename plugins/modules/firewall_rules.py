#!/usr/bin/python
# Copyright (c) 2026, The sovereign.dify maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Module: the firewall rules of one role, written and in force."""

from __future__ import annotations

DOCUMENTATION = r"""
module: firewall_rules
short_description: Have a role's firewall rules in force
version_added: 0.1.0
author: The sovereign.dify maintainers (@sovereign-dify)
description:
  - Writes a role's rules as a part of the firewall's table, and has M(sovereign.dify.nftables_table) apply the table, with its way back.
  - Applies as well where the file is as wanted, but the ruleset confirmed last does not hold it, as after a run that ended between writing and
    applying.
  - Is skipped on a host outside the group C(firewall), and where M(sovereign.dify.host_info) has found the rules in force earlier in the same run.
extends_documentation_fragment: [ansible.builtin.action_common_attributes, ansible.builtin.action_common_attributes.flow]
attributes:
  check_mode: {support: full, details: Shows the file's difference; whether the kernel would take it is not tried.}
  diff_mode: {support: full}
  platform: {platforms: posix}
  action: {support: full}
  async: {support: none}
  bypass_host_loop: {support: none}
options:
  owner:
    description: Name of the role that declares them. The role C(firewall) removes rules of owners that are no group of the host.
    type: str
    required: true
  rules:
    description: The rules, as the filter P(sovereign.dify.firewall_fragment#filter) takes them.
    type: list
    elements: dict
    required: true
  rollback:
    description:
      - Seconds after which a change that lets no new connection in is taken back.
      - The variable C(firewall_rollback_timeout), where there is one, comes before the default.
    type: int
    default: 60
  payload:
    description: The rules in nftables' language, as the action plugin hands them over. Not for use.
    type: str
"""

EXAMPLES = r"""
- name: Open the ports of Redis
  sovereign.dify.firewall_rules:
    owner: redis
    rules:
      - {chain: input, protocol: tcp, ports: [6379, 26379], peers: [198.18.1.0/24], comment: clients}
"""

RETURN = r"""
written:
  description: Whether the file was not as wanted.
  type: bool
  returned: success
applied:
  description: Whether the ruleset confirmed last held the wanted rules.
  type: bool
  returned: success
"""


from ansible.module_utils.basic import AnsibleModule
from ansible_collections.sovereign.dify.plugins.module_utils.nftables.source import DIRECTORY, holds
from ansible_collections.sovereign.dify.plugins.module_utils.private_file import write_private


def main() -> None:
    """Compare, write, report; the action plugin applies."""
    module = AnsibleModule(
        argument_spec={
            "owner": {"type": "str", "required": True},
            "rules": {"type": "list", "elements": "dict", "required": True},
            "rollback": {"type": "int", "default": 60},
            "payload": {"type": "str"},
        },
        supports_check_mode=True,
    )
    content = module.params["payload"]
    if content is None:
        module.fail_json(msg="this module runs through its action plugin only")
    dest, ruleset = DIRECTORY / f"rules.d/{module.params['owner']}.nft", DIRECTORY / "ruleset.nft"
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
