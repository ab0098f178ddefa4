"""What is loaded once in Ansible's own process, and not in that of each task."""

from __future__ import annotations

import re
from pathlib import Path

import yaml
from ansible_collections.sovereign.dify.plugins.plugin_utils.preload import COLLECTION, OTHERS, OURS, preload

PROJECT = Path(__file__).resolve().parents[2]


def test_every_plugin_is_there() -> None:
    ours = {f"{COLLECTION}.{path.stem}" for kind in OURS for path in (PROJECT / "plugins" / kind).glob("*.py")}
    assert set(preload()) == ours | {name for names in OTHERS.values() for name in names}


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
