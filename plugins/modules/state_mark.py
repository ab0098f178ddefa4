#!/usr/bin/python
# Copyright (c) 2026, The sovereign.dify maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Module: the identity of the state directory that a host is configured from, as a local fact."""

from __future__ import annotations

DOCUMENTATION = r"""
module: state_mark
short_description: Mark a host with the identity of its state directory
version_added: 0.2.0
author: The sovereign.dify maintainers (@sovereign-dify)
description:
  - Writes the identity of the controller's state directory to the host, as a local fact (C(ansible_local.sovereign.state)).
  - A mark that another controller has written is not replaced unless O(adopt) says so, so that of two controllers that begin at once one fails.
extends_documentation_fragment: [ansible.builtin.action_common_attributes]
attributes:
  check_mode: {support: full}
  diff_mode: {support: full}
  platform: {platforms: posix}
options:
  id:
    description: Identity of the state directory, as M(sovereign.dify.cluster_state) returns it.
    type: str
    required: true
  adopt:
    description: Replace another identity.
    type: bool
    default: false
  directory:
    description: Directory of local facts.
    type: path
    default: /etc/ansible/facts.d
"""

EXAMPLES = r"""
- name: Mark the host
  sovereign.dify.state_mark:
    id: "{{ compared.id }}"
"""

RETURN = r"""
former: {description: Identity that the host carried before; empty if none., returned: always, type: str}
"""

import json
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.sovereign.dify.plugins.module_utils.state_directory import FACT, REMEDY, mark


def main() -> None:
    """Compare, write, report."""
    module = AnsibleModule(
        argument_spec={
            "id": {"type": "str", "required": True},
            "adopt": {"type": "bool", "default": False},
            "directory": {"type": "path", "default": "/etc/ansible/facts.d"},
        },
        supports_check_mode=True,
    )
    path = Path(module.params["directory"]) / f"{FACT}.fact"
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    after = json.dumps({"state": module.params["id"]}) + "\n"
    try:
        former = mark({"ansible_local": {FACT: json.loads(before or "{}")}}) or ""
    except ValueError:
        former = ""
    if former not in ("", module.params["id"]) and not module.params["adopt"]:
        reason = REMEDY.format(directory="the state directory")
        module.fail_json(msg=f"The host carries the identity {former} of another state directory, not {module.params['id']}. {reason}", former=former)
    changed = before != after
    if changed and not module.check_mode:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name}.draft")
        draft.write_text(after, encoding="utf-8")
        draft.chmod(0o644)
        draft.replace(path)
    module.exit_json(changed=changed, former=former, diff={"before": before, "after": after, "before_header": str(path), "after_header": str(path)})


if __name__ == "__main__":
    main()
