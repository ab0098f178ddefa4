"""Runs of the scenario's playbook over an edited cluster.yml: what an operator does to add, move or remove a model."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from gateway_load import SCENARIO

from lab.testing import PROJECT, host_variables, rerun


def run_with(directory: Path, edits: dict[str, str], *options: str, playbook: str = "converge.yml") -> subprocess.CompletedProcess[str]:
    """Run the playbook over a copy of the inventory in which texts are replaced.

    Args:
        directory: Where the copy lies.
        edits: What is replaced in cluster.yml, by what.
        *options: For ``ansible-playbook``.
        playbook: Its name in the scenario's directory, or its path.
    """
    inventory = directory / "inventory"
    shutil.rmtree(inventory, ignore_errors=True)
    shutil.copytree(SCENARIO / "inventory", inventory, ignore=shutil.ignore_patterns(".state"))
    text = (inventory / "cluster.yml").read_text()
    for old, new in edits.items():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    # The same CA, keys and secrets.
    (inventory / "cluster.yml").write_text(f"{text}state_dir: {SCENARIO}/inventory/.state\n")
    return rerun(*options, playbook=playbook, sources=(inventory, PROJECT / "molecule/shared/substrate.yml"))


def instances(host: str) -> dict[str, int]:
    """Models of a host in the scenario's own inventory, with their ports."""
    return {model["name"]: model["port"] for model in host_variables()[host]["node"]["models"]}
