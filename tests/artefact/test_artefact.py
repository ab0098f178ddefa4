"""The built artefact holds what it should and runs from where it was installed."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from lab.testing import PROJECT


def run(environment: dict[str, str], cwd: Path, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, env=environment, cwd=cwd, capture_output=True, text=True, check=False, timeout=120)


def test_it_holds_the_collection_and_nothing_of_the_workshop(content: Path) -> None:
    for wanted in ("playbooks/site.yml", "roles/baseline/tasks/main.yml", "plugins/inventory/cluster.py", "meta/runtime.yml", "README.md", "LICENSE"):
        assert (content / wanted).exists(), wanted
    for unwanted in (".git", ".venv", ".cache", ".ci", "collections", "inventories/lab/.state"):
        assert not (content / unwanted).exists(), unwanted


def test_its_playbooks_resolve_by_their_full_names(installed: dict[str, str], tmp_path: Path) -> None:
    listed = run(installed, tmp_path, "ansible-playbook", "sovereign.dify.site", "--list-tasks", "-i", str(PROJECT / "inventories/bank/cluster.yml"))
    assert listed.returncode == 0, listed.stderr
    for role in ("baseline", "pki", "firewall", "wireguard", "vllm", "model_gateway", "nginx"):
        assert f"sovereign.dify.{role} : " in listed.stdout, role


def test_its_plugins_are_documented(installed: dict[str, str], tmp_path: Path) -> None:
    documented = run(installed, tmp_path, "ansible-doc", "--json", "-t", "inventory", "sovereign.dify.cluster")
    assert documented.returncode == 0, documented.stderr
    assert "sovereign.dify.cluster" in json.loads(documented.stdout)


def test_a_refused_inventory_stops_the_run_even_without_this_trees_configuration(installed: dict[str, str], tmp_path: Path) -> None:
    broken = tmp_path / "cluster.yml"
    broken.write_text("plugin: sovereign.dify.cluster\nname: broken\nsites: {}\n")
    refused = run(installed, tmp_path, "ansible-playbook", "sovereign.dify.site", "-i", str(broken))
    assert refused.returncode != 0
    assert "domain" in refused.stdout + refused.stderr
