# Copyright (c) 2026, The sovereign.dify maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Lookup: a secret that is generated once and kept."""

from __future__ import annotations

DOCUMENTATION = r"""
name: secret
short_description: A secret that is generated once and kept
version_added: 0.1.0
author: The sovereign.dify maintainers (@sovereign-dify)
description:
  - Reads a secret from a file on the controller. Where there is none, generates it, keeps it, and never changes it again.
  - Files may be encrypted with C(ansible-vault encrypt); they are then read with the vault's password.
  - In check mode a missing secret is generated and not kept.
  - A host that was configured from another state directory (M(sovereign.dify.state_mark)) gets no secret of this one, unless the variable
    C(cluster_adopt_state) is true. A new state directory is not begun for a host of a platform whose facts are not known.
  - A secret is replaced by renaming its file to C(<name>.retiring); the next look generates another. For as long as the former is there, whoever
    can accept two of them asks for both with O(retiring).
options:
  _terms:
    description: Names of secrets, as relative paths, for instance C(model_gateway/web-chat).
    required: true
    type: list
    elements: str
  state_dir:
    description: Directory on the controller that holds C(secrets/). From C(cluster.state_dir) if not given.
    type: path
  length:
    description: Characters to generate, beside the prefix; with O(encoding=base64) the number of random bytes.
    type: int
    default: 43
  encoding:
    description: V(urlsafe) gives letters, digits, C(-) and C(_); V(base64) gives standard base64 of O(length) random bytes, as WireGuard wants.
    type: str
    choices: [urlsafe, base64]
    default: urlsafe
  retiring:
    description: Give the former secret, too, after the one to use from now on, where one is being replaced.
    type: bool
    default: false
  prefix:
    description: Text to begin a generated secret with. It is part of what is kept. C({name}) in it stands for the last part of the secret's name.
    type: str
    default: ""
  by_name:
    description:
      - Give one dictionary, from the last part of each name to the secret; with O(retiring) to a list of those that are valid. A loop that fills a
        dictionary with look-ups would swallow the failure of one of them.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: The key of an API client
  ansible.builtin.set_fact:
    key: "{{ lookup('sovereign.dify.secret', 'model_gateway/web-chat', prefix='sk-web-chat-') }}"
  no_log: true

- name: The keys of several clients, by client
  ansible.builtin.set_fact:
    keys: "{{ lookup('sovereign.dify.secret', 'model_gateway/web-chat', 'model_gateway/core-banking', by_name=true, prefix='sk-{name}-') }}"
  no_log: true

- name: A preshared key of WireGuard
  ansible.builtin.set_fact:
    preshared: "{{ lookup('sovereign.dify.secret', 'wireguard/edge-gw1--hq-gw1', encoding='base64', length=32) }}"
  no_log: true
"""

RETURN = r"""
_raw:
  description: The secrets, in the order of their names; or one dictionary, see O(by_name).
  type: list
  elements: raw
"""

import base64
import secrets
import string
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from ansible.errors import AnsibleLookupError
from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.lookup import LookupBase
from ansible_collections.sovereign.dify.plugins.module_utils.state_directory import ADOPT, REMEDY, in_use, keep, mark, problem

RETIRING = ".retiring"
ALPHABET = string.ascii_letters + string.digits + "-_"


def generate(length: int, encoding: str, prefix: str) -> str:
    """Generate a secret.

    Args:
        length: Characters, or random bytes for ``base64``.
        encoding: ``urlsafe`` or ``base64``.
        prefix: Text to begin with.

    Returns:
        The secret, on one line.
    """
    if encoding == "base64":
        return prefix + base64.b64encode(secrets.token_bytes(length)).decode()
    return prefix + "".join(secrets.choice(ALPHABET) for dummy in range(length))


class LookupModule(LookupBase):
    """Finds or makes each secret."""

    def run(self, terms: list[str], variables: dict[str, Any] | None = None, **kwargs: Any) -> list[Any]:  # noqa: ANN401 - Ansible's signature
        """Give the secrets of the names in ``terms``.

        Raises:
            AnsibleLookupError: a name leaves the directory, or the directory is not known.
        """
        variables = variables or {}
        self.set_options(var_options=variables, direct=kwargs)  # type: ignore[no-untyped-call]
        root = self._root(variables)
        if not self._option("state_dir"):
            self._refuse_a_wrong_state(root.parent, variables)
        check_mode = bool(variables.get("ansible_check_mode", False))
        retiring = self._option("retiring")
        found: dict[str, list[str]] = {}
        for term in terms:
            valid = found.setdefault(term, [self._secret(root, term, check_mode)])
            former = root / f"{term}{RETIRING}"
            if retiring and former.exists():
                valid.append(str(self._loader.get_text_file_contents(str(former))).strip())  # type: ignore[union-attr]
        if self._option("by_name"):
            return [{PurePosixPath(term).name: valid if retiring else valid[0] for term, valid in found.items()}]
        return [secret for term in terms for secret in found[term]]

    def _option(self, name: str) -> Any:  # noqa: ANN401 - as typed as the option
        return self.get_option(name)  # type: ignore[no-untyped-call]

    def _root(self, variables: dict[str, Any]) -> Path:
        state_dir = self._option("state_dir")
        if not state_dir:
            try:
                state_dir = self._templar.template(variables["cluster"])["state_dir"]  # type: ignore[union-attr]
            except (KeyError, TypeError) as error:
                msg = "sovereign.dify.secret: where are secrets kept? Give state_dir=..., or an inventory that sets cluster.state_dir."
                raise AnsibleLookupError(msg) from error
        return Path(state_dir).expanduser() / "secrets"

    @staticmethod
    def _refuse_a_wrong_state(directory: Path, variables: dict[str, Any]) -> None:
        """Refuse to configure a host from a state directory that is not its own, in whichever playbook, with whatever tags and limit.

        Raises:
            AnsibleLookupError: the host carries another identity.
        """
        if boolean(variables.get(ADOPT, False)):
            return
        facts = variables.get("ansible_facts")
        found = mark(facts) if isinstance(facts, Mapping) else None
        host = str(variables.get("inventory_hostname", "this host"))
        if found and (reason := problem(directory, {host: found}, [])):
            raise AnsibleLookupError(f"sovereign.dify.secret: {reason}")
        # The inventory sets "site" on hosts of a platform alone; a role by itself has a template there.
        if found is None and isinstance(variables.get("site"), Mapping) and not in_use(directory):
            msg = (
                f"sovereign.dify.secret: {directory} has never been used, and the facts of {host} are not known, so that it may have been "
                f"configured from another state directory. Import the playbook sovereign.dify.state first. {REMEDY.format(directory=directory)}"
            )
            raise AnsibleLookupError(msg)

    def _secret(self, root: Path, term: str, check_mode: bool) -> str:
        name = PurePosixPath(term)
        if not term or name.is_absolute() or ".." in name.parts or name.name.startswith(".") or name.name.endswith(RETIRING):
            msg = f"sovereign.dify.secret: {term!r} is no name of a secret; it has to be a relative path such as 'model_gateway/web-chat'."
            raise AnsibleLookupError(msg)
        path = root / name
        if not path.exists():
            secret = generate(self._option("length"), self._option("encoding"), self._option("prefix").replace("{name}", name.name))
            if check_mode:
                return secret
            keep(path, secret)
        if not path.resolve().is_relative_to(root.resolve()):
            msg = f"sovereign.dify.secret: {term!r} leads out of {root} by a symbolic link."
            raise AnsibleLookupError(msg)
        # Through the loader, which decrypts vaulted files in memory. Read back even what was just made: another process may have been first.
        secret = str(self._loader.get_text_file_contents(str(path))).strip()  # type: ignore[union-attr]
        if not secret:
            msg = f"sovereign.dify.secret: {path} is empty; put the secret into it, or remove it to have one generated."
            raise AnsibleLookupError(msg)
        return secret
