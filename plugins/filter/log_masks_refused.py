# Copyright (c) 2026, The sovereign.dify maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filter: what is wrong with the masks of logs."""

from __future__ import annotations

DOCUMENTATION = r"""
name: log_masks_refused
short_description: What is wrong with the masks of logs
version_added: 0.1.0
author: The sovereign.dify maintainers (@sovereign-dify)
description:
  - Tells what is wrong with the names of masks, and with patterns of one's own, that the role P(sovereign.dify.log_shipper#role) is given.
positional: own
options:
  _input:
    description: Names of masks.
    type: list
    elements: str
    required: true
  own:
    description: Patterns of one's own, by name.
    type: dict
    default: {}
"""

EXAMPLES = r"""
- name: Refuse masks that could not work
  ansible.builtin.fail:
    msg: "{{ log_shipper_masks | sovereign.dify.log_masks_refused(log_shipper_own_masks) }}"
  when: log_shipper_masks | sovereign.dify.log_masks_refused(log_shipper_own_masks) | length > 0
"""

RETURN = r"""
_value:
  description: What is wrong, or an empty text.
  type: str
"""

from collections.abc import Callable, Mapping, Sequence

from ansible_collections.sovereign.dify.plugins.module_utils.log_sources import masks_refused


class FilterModule:
    """The filter."""

    def filters(self) -> dict[str, Callable[[Sequence[object], Mapping[str, object]], str]]:
        """Name the filter."""
        return {"log_masks_refused": masks_refused}
