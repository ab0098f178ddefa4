#!/usr/bin/python
# Copyright (c) 2026, The sovereign.dify maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Module: a service's configuration files, as a whole."""

from __future__ import annotations

DOCUMENTATION = r"""
module: config_files
short_description: Configuration files of a service, written as a whole
version_added: 0.1.0
author: The sovereign.dify maintainers (@sovereign-dify)
description:
  - Brings a list of files and directories to their wanted state in one call, where M(ansible.builtin.template), M(ansible.builtin.copy) and
    M(ansible.builtin.file) would take a connection each.
  - All or nothing. Where a file's O(files[].validate) refuses it, the files before it are put back.
  - Each file is written beside its place, gets its owner and mode, is checked, and is then put in place at one stroke.
extends_documentation_fragment: [ansible.builtin.action_common_attributes, ansible.builtin.action_common_attributes.flow]
attributes:
  check_mode: {support: full, details: "An owner who does not exist yet is taken for one whom an earlier task would have made; nothing is validated."}
  diff_mode: {support: full, details: "Content of files that are O(files[].sensitive) is hidden."}
  platform: {platforms: posix}
  action: {support: full}
  async: {support: none}
  bypass_host_loop: {support: none}
options:
  files:
    description: What shall be, in the order in which it is made. Missing parent directories are made, with mode 0755.
    type: list
    elements: dict
    required: true
    suboptions:
      dest:
        description: Absolute path on the host.
        type: path
        required: true
      state:
        description: What it shall be. A directory that shall be V(absent) goes with everything in it; list it last, as nothing brings it back.
        type: str
        choices: [file, directory, absent]
        default: file
      only:
        description: Names that a directory may hold. Whatever else is in it goes, after the files have been put in place.
        type: list
        elements: str
      src:
        description: Template on the controller, looked up like that of M(ansible.builtin.template).
        type: str
      vars:
        description: Variables for this template alone.
        type: dict
        default: {}
      copy:
        description: File on the controller that is taken as it is, looked up like that of M(ansible.builtin.copy).
        type: str
      content:
        description: What the file holds. One of O(files[].src), O(files[].copy) and O(files[].content) is needed for a file.
        type: str
      followed_by:
        description: Files on the host whose contents follow, in this order, such as a key that never leaves it.
        type: list
        elements: path
        default: []
      owner:
        description: Owner; O(owner) where it is not given.
        type: str
      group:
        description: Group; O(group) where it is not given.
        type: str
      mode:
        description: Permissions in octal digits, quoted. O(mode) where it is not given, and V(0755) for a directory.
        type: str
      validate:
        description: Command line (no shell) that checks a draft of the file; C(%s) stands for its path. Files before this one are in place by then.
        type: str
        default: ""
      sensitive:
        description: Whether the content is kept out of differences.
        type: bool
        default: false
  owner:
    description: Owner of whatever does not say.
    type: str
    default: root
  group:
    description: Group of whatever does not say.
    type: str
    default: root
  mode:
    description: Permissions of files that do not say.
    type: str
    default: "0644"
  payload:
    description: The files' contents, as the action plugin hands them over. Not for use.
    type: str
"""

EXAMPLES = r"""
- name: Write the configuration
  sovereign.dify.config_files:
    files:
      - {src: clients.conf.j2, dest: /etc/nginx/clients.conf, mode: "0600", sensitive: true}
      - {src: nginx.conf.j2, dest: /etc/nginx/nginx.conf, validate: nginx -t -q -c %s}
  register: __nginx_files
  notify: Reload nginx
"""

RETURN = r"""
changed_files:
  description: Paths that were not as wanted.
  returned: always
  type: list
  elements: str
"""

import base64
import json
import shlex
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.sovereign.dify.plugins.module_utils.config_files import ConfigFilesError, Wanted, apply, changes, extras

FILE_OPTIONS: dict[str, Any] = {
    "dest": {"type": "path", "required": True},
    "state": {"type": "str", "choices": ["file", "directory", "absent"], "default": "file"},
    "only": {"type": "list", "elements": "str"},
    "src": {"type": "str"},
    "vars": {"type": "dict", "default": {}},
    "copy": {"type": "str"},
    "content": {"type": "str"},
    "followed_by": {"type": "list", "elements": "path", "default": []},
    "owner": {"type": "str"},
    "group": {"type": "str"},
    "mode": {"type": "str"},
    "validate": {"type": "str", "default": ""},
    "sensitive": {"type": "bool", "default": False},
}


def main() -> None:
    """Compare, check, write, report."""
    module = AnsibleModule(
        argument_spec={
            "files": {"type": "list", "elements": "dict", "required": True, "options": FILE_OPTIONS},
            "owner": {"type": "str", "default": "root"},
            "group": {"type": "str", "default": "root"},
            "mode": {"type": "str", "default": "0644"},
            "payload": {"type": "str", "no_log": True},
        },
        supports_check_mode=True,
    )

    def check(command: str) -> str:
        rc, out, err = module.run_command(shlex.split(command))
        return (err.strip() or out.strip() or f"exit code {rc} from {command}") if rc else ""

    contents = json.loads(module.params["payload"] or "{}")
    try:
        wanted = [want(module, item, contents) for item in module.params["files"]]
        wanted += [extra for item in module.params["files"] if item["only"] is not None for extra in extras(Path(item["dest"]), item["only"])]
        pending = changes(wanted, module.check_mode)
        if not module.check_mode:
            apply(pending, check)
    except ConfigFilesError as error:
        module.fail_json(msg=str(error), changed_files=[])
    module.exit_json(
        changed=bool(pending),
        changed_files=[str(change.wanted.path) for change in pending],
        diff=[change.difference() for change in pending],
    )


def following(paths: list[str]) -> bytes:
    """Read what follows a file's content."""
    try:
        return b"".join(Path(path).read_bytes() for path in paths)
    except OSError as error:
        raise ConfigFilesError(f"{error.filename}: {error.strerror}; nothing has been changed") from None


def want(module: AnsibleModule, item: dict[str, Any], contents: dict[str, str]) -> Wanted:
    """Read one of the wanted files."""
    directory = item["state"] == "directory"
    if item["state"] == "file" and item["dest"] not in contents:
        raise ConfigFilesError(f"{item['dest']} has no content: this module runs through its action plugin only")
    mode = item["mode"] or ("0755" if directory else module.params["mode"])
    try:
        bits = int(mode, 8)
    except ValueError:
        raise ConfigFilesError(f"{item['dest']}: {mode!r} is no mode; write it in octal digits and quoted, such as '0644'") from None
    return Wanted(
        path=Path(item["dest"]),
        state=item["state"],
        content=base64.b64decode(contents.get(item["dest"], "")) + following(item["followed_by"]),
        owner=item["owner"] or module.params["owner"],
        group=item["group"] or module.params["group"],
        mode=bits,
        validate=item["validate"],
        sensitive=item["sensitive"],
    )


if __name__ == "__main__":
    main()
