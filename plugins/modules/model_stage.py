#!/usr/bin/python
# Copyright (c) 2026, The sovereign.dify maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Module: stage model directories, proved by a SHA-256 manifest."""

from __future__ import annotations

DOCUMENTATION = r"""
module: model_stage
short_description: Stage model directories, proved by a SHA-256 manifest
version_added: 0.1.0
author: The sovereign.dify maintainers (@sovereign-dify)
description:
  - Looks at the directory of each model, refuses what could run code when it is loaded, hashes every file, compares with what is demanded, and copies
    the directory to where a server reads it. A copy is complete, or not there.
  - Refuses everything but safetensors weights and plain data, that is pickles (C(*.bin), C(*.pt), C(*.ckpt) ...), Python files, C(auto_map) and
    C(custom_pipelines) in a C(*config.json), links out of the directory, damaged or renamed safetensors, and shards that the index names but that are
    missing. Hidden files are left out.
  - If the source holds C(SHA256SUMS) or C(manifest.sha256), every file must be listed there and agree with it.
  - A changed model gets a directory of its own, named by its manifest, so that the files of a running server never change under it.
  - Hashes are remembered together with inode, size and times of each file, so that a rerun reads no file that has not changed.
extends_documentation_fragment: [ansible.builtin.action_common_attributes]
attributes:
  check_mode: {support: full, description: Reads at most 1 GiB per model to tell what would change.}
  diff_mode: {support: full, description: Shows the lines of the manifest that change.}
  platform: {platforms: posix}
options:
  models:
    description: Models to stage. What is staged of other models is reported, and left.
    type: list
    elements: dict
    required: true
    suboptions:
      name: {description: Name of the model., type: str, required: true}
      source: {description: Directory with its files on the managed host., type: path, required: true}
      manifest_sha256:
        description: SHA-256 that the model's manifest must have. A manifest is what C(sha256sum) prints for all files, sorted by path.
        type: str
  root:
    description: Directory of the copies.
    type: path
    required: true
  method:
    description: Whether to serve a copy, or the source as it is. Manifest and refusals are the same.
    type: str
    choices: [copy, in_place]
    default: copy
  exclude:
    description: Patterns of files that are left out of the copies, for instance C(original/*). With O(method=in_place) nothing can be left out.
    type: list
    elements: str
    default: []
  group:
    description: Group that may read the copies. Others may not.
    type: str
  workers:
    description: Files that are read at the same time.
    type: int
    default: 4
"""

EXAMPLES = r"""
- name: Stage the models
  sovereign.dify.model_stage:
    root: /var/lib/vllm/models
    group: vllm
    models:
      - name: assistant
        source: /srv/models/llama-3.3-70b-awq
        manifest_sha256: 5d1ae5b4e4e2a3b2a6d5f2d5d8a5c9b1e1f6c7b0a9d8e7f6a5b4c3d2e1f0a9b8
  register: staged
"""

RETURN = r"""
models:
  description: What is staged, by the name of the model.
  returned: success
  type: dict
  contains:
    path: {description: Directory to serve., type: str}
    manifest: {description: 'Its files with their SHA-256, as C(sha256sum) writes them; empty in check mode if it is not known yet.', type: str}
    manifest_sha256: {description: SHA-256 of the manifest; empty in check mode if it is not known yet., type: str}
    bytes: {description: Size of the model., type: int}
    changed: {description: Whether anything had to be done., type: bool}
obsolete:
  description: Older copies of these models; to be removed once nobody serves them.
  returned: success
  type: list
  elements: str
undeclared:
  description: Directories of models that are not among these.
  returned: success
  type: list
  elements: str
"""

import grp
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.sovereign.dify.plugins.module_utils.model_store import Model, ModelError, Staged, Store


def main() -> None:
    """Read the parameters, stage, report."""
    module = AnsibleModule(
        argument_spec={
            "models": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "name": {"type": "str", "required": True},
                    "source": {"type": "path", "required": True},
                    "manifest_sha256": {"type": "str"},
                },
            },
            "root": {"type": "path", "required": True},
            "method": {"type": "str", "choices": ["copy", "in_place"], "default": "copy"},
            "exclude": {"type": "list", "elements": "str", "default": []},
            "group": {"type": "str"},
            "workers": {"type": "int", "default": 4},
        },
        supports_check_mode=True,
    )
    in_place = module.params["method"] == "in_place"
    if in_place and module.params["exclude"]:
        module.fail_json(msg="exclude needs method=copy: what is served in place is served whole")
    store = Store(Path(module.params["root"]), gid_of(module.params["group"]), module.params["workers"])
    staged: dict[str, Staged] = {}
    refused = []
    for wanted in module.params["models"]:
        model = Model(wanted["name"], Path(wanted["source"]), wanted["manifest_sha256"] or "", tuple(module.params["exclude"]), in_place)
        try:
            staged[model.name] = store.stage(model, dry_run=module.check_mode)
        except ModelError as error:
            refused.append(str(error))
    if refused:
        module.fail_json(msg="\n".join(refused))
    for name, result in staged.items():
        if result.replaced:
            module.warn(f"The copy of model {name!r} was not what its manifest says; it is made anew from its source.")
    module.exit_json(
        changed=any(result.changed for result in staged.values()),
        models={
            name: {
                "path": str(result.path),
                "manifest": result.manifest,
                "manifest_sha256": result.digest if result.manifest else "",
                "bytes": result.size,
                "changed": result.changed,
            }
            for name, result in staged.items()
        },
        obsolete=[str(path) for result in staged.values() for path in result.obsolete],
        undeclared=[str(path) for path in store.undeclared(staged)],
        diff=[
            {"before": result.before, "after": result.manifest, "before_header": f"{name} (before)", "after_header": f"{name} (after)"}
            for name, result in staged.items()
            if result.changed
        ],
    )


def gid_of(group: str | None) -> int:
    """Look up a group; in check mode on a fresh host it may not exist yet.

    Returns:
        Its number, or -1, which leaves a file's group alone.
    """
    try:
        return grp.getgrnam(group).gr_gid if group else -1
    except KeyError:
        return -1


if __name__ == "__main__":
    main()
