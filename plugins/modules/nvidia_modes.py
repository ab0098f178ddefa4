#!/usr/bin/python
# Copyright (c) 2026, The sovereign.dify maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Module: error correction and MIG instances of GPUs, as declared."""

from __future__ import annotations

DOCUMENTATION = r"""
module: nvidia_modes
short_description: Set error correction and MIG instances of GPUs
version_added: 0.1.0
author: The sovereign.dify maintainers (@sovereign-dify)
description:
  - Compares the modes of the GPUs with what is declared, and changes what differs, by nvidia-smi.
  - Resets no GPU and restarts nothing. Which GPUs take a mode up only then is returned.
  - A GPU on which somebody computes keeps its modes; the module fails then.
extends_documentation_fragment: [ansible.builtin.action_common_attributes]
attributes:
  check_mode: {support: full}
  diff_mode: {support: full}
  platform: {platforms: posix}
options:
  ecc:
    description: Whether errors in the GPUs' memory are corrected. Every GPU keeps what it has where this is not given.
    type: bool
  mig:
    description:
      - Profiles of MIG instances by a GPU's number, or by C(all) for those without an entry of their own. No profile means that MIG is off.
      - A GPU without an entry keeps what it has.
    type: dict
    default: {}
"""

EXAMPLES = r"""
- name: Divide the first GPU in two, and correct errors on all
  sovereign.dify.nvidia_modes:
    ecc: true
    mig:
      "0": [3g.40gb, 3g.40gb]
"""

RETURN = r"""
commands: {description: What was run., returned: success, type: list, elements: str}
pending:
  description: Numbers of the GPUs that take their modes up with the next reset, or the next restart of the host.
  returned: success
  type: list
  elements: int
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.sovereign.dify.plugins.module_utils.nvidia_modes import ModesError, Wanted, apply, run


def main() -> None:
    """Compare, change, report."""
    module = AnsibleModule(argument_spec={"ecc": {"type": "bool"}, "mig": {"type": "dict", "default": {}}}, supports_check_mode=True)
    mig = {str(index): [str(profile) for profile in profiles] for index, profiles in module.params["mig"].items()}
    try:
        outcome = apply(run, Wanted(module.params["ecc"], mig), pretend=module.check_mode)
    except ModesError as error:
        module.fail_json(msg=str(error))
    module.exit_json(
        changed=bool(outcome.commands),
        commands=[" ".join(command) for command in outcome.commands],
        pending=list(outcome.pending),
        diff={"before": "".join(f"{gpu}\n" for gpu in outcome.before), "after": "".join(f"{gpu}\n" for gpu in outcome.after)},
    )


if __name__ == "__main__":
    main()
