# Copyright (c) 2026, The sovereign.dify maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filter: a time to ask about, as RFC 3339 or as how long ago, in one form; or why it is none."""

from __future__ import annotations

DOCUMENTATION = r"""
name: time_window
short_description: Two times as one form, or why they are none
version_added: 0.1.0
author: The sovereign.dify maintainers (@sovereign-dify)
description:
  - Reads the start and the end of a time that is asked about.
positional: until, now
options:
  _input:
    description: 'Its start: RFC 3339 with a zone (V(2026-12-01T08:00:00Z)), or how long before now (V(90s), V(30m), V(1h), V(2d)).'
    type: str
    required: true
  until: {description: 'Its end, likewise. Empty is now.', type: str, default: ''}
  now: {description: The present in seconds since 1970. That of the controller if it is not given., type: float}
"""

EXAMPLES = r"""
- name: Refuse times that are none
  ansible.builtin.assert:
    that: wanted.fault == ''
    fail_msg: "{{ wanted.fault }}"
  vars:
    wanted: "{{ since | sovereign.dify.time_window(until) }}"
"""

RETURN = r"""
_value:
  description:
    - C(since) and C(until) as RFC 3339 in UTC, with milliseconds.
    - C(began), likewise, is when a request that ended in between may have begun, which is two hours before C(since).
    - C(fault) is empty, or says in a sentence what is wrong with which of them.
  type: dict
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from ansible_collections.sovereign.dify.plugins.module_utils.slow_requests import WindowError, window


def time_window(since: object, until: object = "", now: float | None = None) -> dict[str, str]:
    """Read two times.

    Args:
        since: The start.
        until: The end; empty for now.
        now: The present, in seconds since 1970.

    Returns:
        ``since``, ``until``, ``began`` and ``fault``.
    """
    try:
        found = window(str(since), str(until), datetime.now(UTC) if now is None else datetime.fromtimestamp(now, UTC))
    except WindowError as error:
        return {"since": "", "until": "", "began": "", "fault": str(error)}
    return found | {"fault": ""}


class FilterModule:
    """Registers the filter with Ansible."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Names and functions."""
        return {"time_window": time_window}
