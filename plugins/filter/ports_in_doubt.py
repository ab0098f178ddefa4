# Copyright (c) 2026, The sovereign.dify maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filter: ports that a role is about to take and that may be somebody else's."""

from __future__ import annotations

DOCUMENTATION = r"""
name: ports_in_doubt
short_description: Ports that a role is about to take and that may be somebody else's
version_added: 0.1.0
author: The sovereign.dify maintainers (@sovereign-dify)
description:
  - Compares what is to listen with what M(sovereign.dify.host_info) has found earlier in the same run, so that M(sovereign.dify.port_owners) need not
    look again where it would refuse nothing.
  - Where nobody has looked, all are in doubt.
positional: host, units
options:
  _input:
    description: What the role is about to listen at, as the option O(sovereign.dify.port_owners#module:listen).
    type: list
    elements: dict
    required: true
  host:
    description: What M(sovereign.dify.host_info) returned; an empty dictionary where nobody has looked.
    type: dict
    required: true
  units:
    description: The role's own units, as the option O(sovereign.dify.port_owners#module:units).
    type: list
    elements: str
    required: true
"""

EXAMPLES = r"""
- name: Refuse ports that something else listens on
  sovereign.dify.port_owners:
    listen: "{{ redis_listen }}"
    units: [redis-server.service]
  when: redis_listen | sovereign.dify.ports_in_doubt(sovereign_host | default({}), ['redis-server.service']) | length > 0
"""

RETURN = r"""
_value: {description: What is in the way; each address where nobody has looked., type: list, elements: str}
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible_collections.sovereign.dify.plugins.module_utils.port_owners import Listener, foreign


def ports_in_doubt(listen: Sequence[Mapping[str, Any]], host: Mapping[str, Any], units: Sequence[str]) -> list[str]:
    """Name what may be in a role's way.

    Args:
        listen: ``address`` and ``ports`` of what is to listen.
        host: What ``host_info`` returned; empty where nobody has looked.
        units: Patterns of the role's own units.

    Returns:
        Sockets of others; the wanted addresses where nobody has looked.
    """
    if host.get("listening") is None:
        return [str(place["address"]) for place in listen]
    places = [{**place, "ports": [int(port) for port in place["ports"]]} for place in listen]
    return [str(listener) for listener in foreign([Listener(**fields) for fields in host["listening"]], places, units)]


class FilterModule:
    """Registers the filter with Ansible."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Give it by name."""
        return {"ports_in_doubt": ports_in_doubt}
