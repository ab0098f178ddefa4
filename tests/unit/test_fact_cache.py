"""Facts are kept for each inventory by itself."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from ansible_collections.sovereign.dify.plugins.cache.inventory_jsonfile import directory_of

from lab.testing import PROJECT

PLAYBOOK = """
- hosts: all
  gather_facts: false
  tasks:
    - ansible.builtin.set_fact: {cacheable: true, machine: "{{ given }}"}
      when: given is defined
    - ansible.builtin.debug: {msg: "known as {{ ansible_facts.machine | default('nobody') }}"}
"""


def inventory(directory: Path) -> Path:
    directory.mkdir(parents=True)
    (directory / "hosts.ini").write_text("gateway ansible_connection=local\n")
    return directory


def play(directory: Path, *arguments: str, **environment: str) -> str:
    (directory / "play.yml").write_text(PLAYBOOK)
    variables = {
        **os.environ,
        "ANSIBLE_CONFIG": str(PROJECT / "ansible.cfg"),
        "ANSIBLE_CACHE_PLUGIN_CONNECTION": str(directory / "facts"),
        "ANSIBLE_NOCOLOR": "1",
        **environment,
    }
    command = [str(Path(sys.executable).with_name("ansible-playbook")), "play.yml", *arguments]
    done = subprocess.run(command, cwd=directory, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stderr
    return done.stdout


def test_hosts_of_one_name_in_two_inventories_do_not_share_facts(tmp_path: Path) -> None:
    one, two = inventory(tmp_path / "one/bank"), inventory(tmp_path / "two/bank")
    assert "known as first" in play(tmp_path, f"--inventory={one}", "--extra-vars=given=first")
    assert "known as nobody" in play(tmp_path, f"--inventory={two}")
    assert "known as first" in play(tmp_path, "--inventory=one/bank"), "the same, by another way to write its path"
    assert "known as first" in play(tmp_path, ANSIBLE_INVENTORY=str(one)), "the same, where it is not given but configured"
    # Since 2.21, Ansible keeps an empty set of facts of a host that has none.
    kept = [path for path in (tmp_path / "facts").glob("*/*") if "machine" in path.read_text()]
    assert [path.parent.name.rpartition("-")[0] for path in kept] == ["bank"]


def test_flushing_the_cache_of_one_leaves_that_of_the_other(tmp_path: Path) -> None:
    one, two = inventory(tmp_path / "one"), inventory(tmp_path / "two")
    for path in (one, two):
        play(tmp_path, f"--inventory={path}", f"--extra-vars=given={path.name}")
    assert "known as nobody" in play(tmp_path, f"--inventory={one}", "--flush-cache")
    assert "known as two" in play(tmp_path, f"--inventory={two}")


@pytest.mark.parametrize(
    ("sources", "name"),
    [
        (["{}/bank"], "bank"),
        (["{}/bank/cluster.yml"], "bank"),
        (["{}/bank", "{}/more"], "bank"),
        (["{}/a bank/of (mine)"], "of_mine_"),
        (["gateway,"], "gateway_"),
        ([], "none"),
    ],
)
def test_a_directory_is_named_after_the_inventory(tmp_path: Path, sources: list[str], name: str) -> None:
    (tmp_path / "bank").mkdir()
    (tmp_path / "bank/cluster.yml").touch()
    given = [source.format(tmp_path) for source in sources]
    directory = directory_of(given)
    assert directory.rpartition("-")[0] == name
    assert directory == directory_of(given)
    assert directory != directory_of([*given, "another,"])


def test_a_link_to_an_inventory_is_the_inventory(tmp_path: Path) -> None:
    (tmp_path / "bank").mkdir()
    (tmp_path / "link").symlink_to("bank")
    assert directory_of([str(tmp_path / "link")]) == directory_of([str(tmp_path / "bank")])
