# Copyright (c) 2026, The sovereign.dify maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filter: the keyed hash of a text."""

from __future__ import annotations

DOCUMENTATION = r"""
name: hmac_hash
short_description: The keyed hash (HMAC) of a text
version_added: 0.1.0
author: The sovereign.dify maintainers (@sovereign-dify)
description:
  - Gives the HMAC (RFC 2104) of a text in UTF-8 under a secret, by which a host can recognise the text without holding it.
positional: secret, algorithm, encoding
options:
  _input: {description: The text., type: str, required: true}
  secret: {description: The secret; it must not be empty., type: str, required: true}
  algorithm: {description: The hash., type: str, choices: [sha256, sha384, sha512], default: sha256}
  encoding: {description: How the result is written., type: str, choices: [base64, hex], default: base64}
"""

EXAMPLES = r"""
- name: What a host keeps of an API key
  ansible.builtin.set_fact:
    fingerprint: "{{ key | sovereign.dify.hmac_hash(pepper) }}"
  no_log: true
"""

RETURN = r"""
_value: {description: The HMAC., type: str}
"""

import base64
import hmac
from collections.abc import Callable
from typing import Any

from ansible.errors import AnsibleFilterError

ALGORITHMS = ("sha256", "sha384", "sha512")


def hmac_hash(text: str, secret: str, algorithm: str = "sha256", encoding: str = "base64") -> str:
    """Hash a text under a secret.

    Args:
        text: The text.
        secret: The secret.
        algorithm: One of `ALGORITHMS`.
        encoding: ``base64`` (standard alphabet, padded) or ``hex``.

    Raises:
        AnsibleFilterError: the secret is empty, or algorithm or encoding is not known.
    """
    if not secret:
        msg = "sovereign.dify.hmac_hash: the secret is empty; without one, anybody could compute the hash."
        raise AnsibleFilterError(msg)
    if algorithm not in ALGORITHMS:
        msg = f"sovereign.dify.hmac_hash: algorithm {algorithm!r} is none of {', '.join(ALGORITHMS)}."
        raise AnsibleFilterError(msg)
    digest = hmac.digest(str(secret).encode(), str(text).encode(), algorithm)
    if encoding == "hex":
        return digest.hex()
    if encoding == "base64":
        return base64.b64encode(digest).decode()
    msg = f"sovereign.dify.hmac_hash: encoding {encoding!r} is neither base64 nor hex."
    raise AnsibleFilterError(msg)


class FilterModule:
    """Registers the filter with Ansible."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Names and functions."""
        return {"hmac_hash": hmac_hash}
