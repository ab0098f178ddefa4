# Copyright (c) 2026, The sovereign.dify maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filter: the TLS settings of an HAProxy."""

from __future__ import annotations

DOCUMENTATION = r"""
name: haproxy_tls
short_description: The TLS versions and cipher suites of an HAProxy
version_added: 0.1.0
author: The sovereign.dify maintainers (@sovereign-dify)
description:
  - Gives the lines of the section C(global) that hold whatever listens, and whatever connects to a server, to the same versions and cipher suites.
options:
  _input:
    description: C(versions) as OpenSSL writes them, the oldest first; C(ciphers) of TLS 1.2; C(ciphersuites) of TLS 1.3.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Show them
  ansible.builtin.debug:
    msg: "{{ cluster.tls | sovereign.dify.haproxy_tls }}"
"""

RETURN = r"""
_value: {description: The lines., type: str}
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any


def haproxy_tls(tls: Mapping[str, Sequence[str]]) -> str:
    """Write the lines.

    Args:
        tls: ``versions``, ``ciphers`` and ``ciphersuites``, as in the contract (``cluster.tls``).
    """
    versions = f"ssl-min-ver {tls['versions'][0]} ssl-max-ver {tls['versions'][-1]}"
    lines = []
    for side in ("bind", "server"):
        lines.append(f"ssl-default-{side}-options {versions}")
        lines += [f"ssl-default-{side}-{kind} {':'.join(tls[kind])}" for kind in ("ciphers", "ciphersuites")]
    return "\n".join(lines)


class FilterModule:
    """Registers the filter with Ansible."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Names and functions."""
        return {"haproxy_tls": haproxy_tls}
