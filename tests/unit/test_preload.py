"""What is loaded once in Ansible's own process, and not in that of each task."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import yaml
from ansible_collections.sovereign.dify.plugins.plugin_utils.preload import COLLECTION, OTHERS, OURS, preload

PROJECT = Path(__file__).resolve().parents[2]


def test_every_plugin_is_there() -> None:
    ours = {f"{COLLECTION}.{path.stem}" for kind in OURS for path in (PROJECT / "plugins" / kind).glob("*.py")}
    assert set(preload()) == ours | {name for names in OTHERS.values() for name in names}


def test_the_garbage_collector_of_a_task_leaves_alone_what_it_has_inherited() -> None:
    """In a program of its own: what is registered for forks cannot be taken back."""
    program = """
import gc, os
from ansible_collections.sovereign.dify.plugins.plugin_utils.preload import preload
preload(), preload()
child = os.fork()
if not child:
    os._exit(gc.get_freeze_count() > 10_000)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), gc.get_freeze_count())
"""
    environment = {**os.environ, "PYTHONPATH": "collections"}
    run = subprocess.run([sys.executable, "-c", program], cwd=PROJECT, env=environment, capture_output=True, check=True)
    assert run.stdout.decode().split()[-2:] == ["1", "0"]


def test_what_others_have_written_and_roles_use_is_among_them() -> None:
    texts = [
        path.read_text(encoding="utf-8")
        for pattern in ("roles/*/*/*.yml", "roles/*/templates/*", "playbooks/**/*.yml")
        for path in PROJECT.glob(pattern)
    ]
    collections = list(yaml.safe_load((PROJECT / "galaxy.yml").read_text(encoding="utf-8"))["dependencies"])
    used = {name for text in texts for name in re.findall(rf"(?:\||\bis|\bis not) +((?:{'|'.join(map(re.escape, collections))})\.\w+)", text)}
    assert used
    assert used <= {name for names in OTHERS.values() for name in names}
