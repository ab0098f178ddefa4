# Copyright (c) 2026, The sovereign.dify maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filter: the SHA-512 crypt hash of a password."""

from __future__ import annotations

DOCUMENTATION = r"""
name: sha512_crypt
short_description: The SHA-512 crypt hash of a password
version_added: 0.1.0
author: The sovereign.dify maintainers (@sovereign-dify)
description:
  - Gives the hash that C(crypt(3)) and C(openssl passwd -6) give (C($6$…), 5000 rounds). The same password and salt always give the same hash.
  - P(ansible.builtin.password_hash#filter) gives it, too, where the controller has passlib, or a Python older than 3.13.
positional: salt
options:
  _input: {description: The password., type: str, required: true}
  salt: {description: 'Up to 16 letters, digits, C(.) and C(/).', type: str, required: true}
"""

EXAMPLES = r"""
- name: A line of HAProxy's list of users
  ansible.builtin.set_fact:
    line: "user operator password {{ password | sovereign.dify.sha512_crypt(salt) }}"
  no_log: true
"""

RETURN = r"""
_value: {description: The hash., type: str}
"""

import hashlib
import re
from collections.abc import Callable
from typing import Any

from ansible.errors import AnsibleFilterError

ALPHABET = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
ROUNDS = 5000
LENGTH = 64


def sha512_crypt(password: str, salt: str) -> str:
    """Hash a password, by https://www.akkadia.org/drepper/SHA-crypt.txt.

    Args:
        password: The password.
        salt: Up to 16 letters, digits, ``.`` and ``/``.

    Raises:
        AnsibleFilterError: the password is empty, or the salt is none.
    """
    if not password:
        msg = "sovereign.dify.sha512_crypt: the password is empty; anybody could log in."
        raise AnsibleFilterError(msg)
    if not re.fullmatch(r"[./0-9A-Za-z]{1,16}", str(salt)):
        msg = f"sovereign.dify.sha512_crypt: the salt {salt!r} must be up to 16 letters, digits, '.' and '/'."
        raise AnsibleFilterError(msg)
    key, grain = str(password).encode(), str(salt).encode()
    mixed = hashlib.sha512(key + grain + key).digest()
    first = hashlib.sha512(key + grain + _repeated(mixed, len(key)))
    bits = len(key)
    while bits:
        first.update(mixed if bits & 1 else key)
        bits >>= 1
    digest = first.digest()
    keys = _repeated(hashlib.sha512(key * len(key)).digest(), len(key))
    grains = _repeated(hashlib.sha512(grain * (16 + digest[0])).digest(), len(grain))
    for number in range(ROUNDS):
        odd = number % 2
        digest = hashlib.sha512(
            (keys if odd else digest) + (grains if number % 3 else b"") + (keys if number % 7 else b"") + (digest if odd else keys)
        ).digest()
    return f"$6${salt}${_encoded(digest)}"


def _repeated(block: bytes, length: int) -> bytes:
    return (block * (length // LENGTH + 1))[:length]


def _encoded(digest: bytes) -> str:
    """Write it in the order and the alphabet of crypt(3): three bytes as four characters, the lowest bits first."""
    text, places = "", (0, 21, 42)
    for dummy in range(21):
        value = digest[places[0]] << 16 | digest[places[1]] << 8 | digest[places[2]]
        text += "".join(ALPHABET[value >> shift & 63] for shift in (0, 6, 12, 18))
        places = (places[1] + 1, places[2] + 1, places[0] + 1)
    return text + "".join(ALPHABET[digest[63] >> shift & 63] for shift in (0, 6))


class FilterModule:
    """Registers the filter with Ansible."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Names and functions."""
        return {"sha512_crypt": sha512_crypt}
