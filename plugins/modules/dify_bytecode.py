#!/usr/bin/python
# Copyright (c) 2026, The sovereign.dify maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Module: the byte code of what Dify's api imports."""

from __future__ import annotations

DOCUMENTATION = r"""
module: dify_bytecode
short_description: Compile what Dify's api imports, once for each image
version_added: 0.1.0
author: The sovereign.dify maintainers (@sovereign-dify)
description:
  - Dify's images bring no byte code, and containers that cannot write into their image keep none. Each process compiles all that it imports whenever
    it starts, which takes as long again as all else that it does until it answers.
  - Runs the image once, in a container without a network that imports what Dify's processes import, and writes what it compiles into a directory
    that theirs then read.
  - What cannot be imported without a network is left out, and compiled by each process as before. Directories of former images are removed when
    another image is compiled, unless a unit still names them.
extends_documentation_fragment: [ansible.builtin.action_common_attributes]
attributes:
  check_mode: {support: full}
  diff_mode: {support: full}
  platform: {platforms: posix}
requirements: [podman]
options:
  image:
    description: Image of the api, by digest or checksum.
    type: str
    required: true
  path:
    description: Directory on the host for this image's byte code; its parent is for all images'.
    type: path
    required: true
  user:
    description: Numbers of user and group that it runs by, with a colon between, to whom the directory then belongs.
    type: str
    required: true
  environment_file:
    description: File on the host with an environment that the image's modules can be imported in.
    type: path
    required: true
  modules:
    description: What Dify's processes start from.
    type: list
    elements: str
    default: [app, celery_entrypoint]
  units:
    description: Directory of the units, in which a former image's directory may still be named.
    type: path
    default: /etc/containers/systemd
  timeout:
    description: Longest that this may take, in seconds.
    type: int
    default: 600
notes:
  - Measured with Dify 1.16.0 on a core without AVX-512 - 25 s of CPU once, 80 MB; each process then starts with 10 to 12 s of CPU in place of 23.6.
"""

EXAMPLES = r"""
- name: Compile what the api imports
  sovereign.dify.dify_bytecode:
    image: docker.io/langgenius/dify-api@sha256:0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f0
    path: /var/cache/dify/0f1e2d3c4b5a6978
    user: "990:990"
    environment_file: /etc/dify/migration.env
"""

RETURN = r"""
removed: {description: Directories of former images that were removed., returned: success, type: list, elements: str}
"""

import os
import shutil
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.sovereign.dify.plugins.module_utils.container_once import once

PREFIX = "/var/cache/bytecode"
"""Where this container sees the directory; others may see it elsewhere, since what lies in there names no place of its own."""
COMPLETE = "complete"
IMPORT = """
import importlib, sys
for name in sys.argv[1:]:
    try:
        importlib.import_module(name)
    except BaseException as error:
        print(f"{name}: {type(error).__name__}: {error}")
"""


def superseded(path: Path, units: Path) -> list[Path]:
    """Find the directories of other images that no unit names.

    Args:
        path: This image's.
        units: Directory of the units.
    """
    named = "".join(unit.read_text(encoding="utf-8") for unit in sorted(units.glob("*.container")))
    return [other for other in sorted(path.parent.glob("*")) if other.is_dir() and other != path and str(other) not in named]


def main() -> None:
    """Look, compile, report."""
    module = AnsibleModule(
        argument_spec={
            "image": {"type": "str", "required": True},
            "path": {"type": "path", "required": True},
            "user": {"type": "str", "required": True},
            "environment_file": {"type": "path", "required": True},
            "modules": {"type": "list", "elements": "str", "default": ["app", "celery_entrypoint"]},
            "units": {"type": "path", "default": "/etc/containers/systemd"},
            "timeout": {"type": "int", "default": 600},
        },
        supports_check_mode=True,
    )
    given = module.params
    path = Path(given["path"])
    due = not (path / COMPLETE).is_file()
    removed = superseded(path, Path(given["units"])) if due else []
    done = due
    if due and not module.check_mode:
        # Left by a run that was cut, and then given to root by the units that name it.
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(mode=0o755, parents=True, exist_ok=True)
        user, group = (int(number) for number in given["user"].split(":"))
        os.chown(path, user, group)
        command = once(
            "dify_bytecode",
            given["image"],
            user=given["user"],
            environment_file=given["environment_file"],
            volumes=[f"{path}:{PREFIX}"],
            network="none",
            timeout=given["timeout"],
            options=["--read-only", f"--env=PYTHONPYCACHEPREFIX={PREFIX}"],
            command=["python3", "-c", IMPORT, *given["modules"]],
        )
        code, dummy, complaint = module.run_command(command)
        if code == 0:
            (path / COMPLETE).write_text(f"{given['image']}\n", encoding="utf-8")
            for other in removed:
                shutil.rmtree(other)
        else:
            # Processes start all the same, and slowly; the next run tries again, and is not called a change for it.
            done, removed = False, []
            module.warn(f"{given['image']} could not be compiled: {complaint.strip()[-500:]}")
    shown = f"{path}: {given['image']}\n"
    before, after = ("" if due else shown), (shown if done or not due else "")
    module.exit_json(changed=done, removed=[str(other) for other in removed], diff={"before": before, "after": after})


if __name__ == "__main__":
    main()
