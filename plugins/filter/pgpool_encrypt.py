# Copyright (c) 2026, The sovereign.dify maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filter: a password as Pgpool-II keeps it in its file of passwords."""

from __future__ import annotations

DOCUMENTATION = r"""
name: pgpool_encrypt
short_description: A password as Pgpool-II keeps it
version_added: 0.1.0
author: The sovereign.dify maintainers (@sovereign-dify)
description:
  - Encrypts a password as C(pg_enc) does, for a line C(user:AES...) of C(pool_passwd). The same password and key always give the same text.
  - The key must be long and by chance, since Pgpool-II derives nothing from it that would be costly to try.
positional: key
options:
  _input: {description: The password., type: str, required: true}
  key: {description: The key in Pgpool-II's key file; it must not be empty., type: str, required: true}
"""

EXAMPLES = r"""
- name: A line of pool_passwd
  ansible.builtin.set_fact:
    line: "app:AES{{ password | sovereign.dify.pgpool_encrypt(key) }}"
  no_log: true
"""

RETURN = r"""
_value: {description: The encrypted password in base64., type: str}
"""

import base64
import hashlib
from collections.abc import Callable
from typing import Any

from ansible.errors import AnsibleFilterError

try:
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
    from cryptography.hazmat.primitives.padding import PKCS7

    CRYPTOGRAPHY_ERROR: Exception | None = None
except ImportError as error:
    CRYPTOGRAPHY_ERROR = error


def pgpool_encrypt(password: str, key: str) -> str:
    """Encrypt a password with AES-256-CBC, key and initialisation vector by OpenSSL's EVP_BytesToKey (SHA-1, no salt, once).

    Args:
        password: The password.
        key: The key.

    Raises:
        AnsibleFilterError: the key is empty, or the Python package ``cryptography`` is missing.
    """
    if CRYPTOGRAPHY_ERROR:
        msg = "sovereign.dify.pgpool_encrypt needs the Python package cryptography on the controller."
        raise AnsibleFilterError(msg) from CRYPTOGRAPHY_ERROR
    if not key:
        msg = "sovereign.dify.pgpool_encrypt: the key is empty."
        raise AnsibleFilterError(msg)
    material = block = b""
    while len(material) < 48:
        block = hashlib.sha1(block + str(key).encode()).digest()  # noqa: S324 - Pgpool-II's choice
        material += block
    padding = PKCS7(128).padder()
    encryption = Cipher(algorithms.AES(material[:32]), modes.CBC(material[32:48])).encryptor()
    padded = padding.update(str(password).encode()) + padding.finalize()
    return base64.b64encode(encryption.update(padded) + encryption.finalize()).decode()


class FilterModule:
    """Registers the filter with Ansible."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Names and functions."""
        return {"pgpool_encrypt": pgpool_encrypt}
