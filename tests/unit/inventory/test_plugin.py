"""The plugin inside Ansible: groups, variables, earlier hosts, and refusals on the command line."""

# Of Ansible's own classes:
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleParserError
from ansible.inventory.data import InventoryData
from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from ansible.parsing.vault import EncryptedString, VaultLib, VaultSecret
from ansible.template import Templar
from ansible.vars.manager import VariableManager
from ansible_collections.sovereign.dify.plugins.inventory.cluster import InventoryModule
from ansible_collections.sovereign.dify.plugins.module_utils.cluster import addresses
from ansible_collections.sovereign.dify.plugins.module_utils.cluster.groups import GROUPS

from tests.unit.inventory.cases import BROKEN, EXAMPLE, HERE, PROJECT, edited, expected

# With Ansible's own list of plugins, `auto` reads the file first, and `yaml` and `ini` try it after a refusal, each with a complaint of its own.
ALONE = "[inventory]\nenable_plugins = sovereign.dify.cluster, host_list\nany_unparsed_is_failed = true\n"


def parse(path: Path) -> InventoryData:
    inventory = InventoryData()
    InventoryModule().parse(inventory, DataLoader(), str(path))
    return inventory


def written(directory: Path, text: str, name: str = "cluster.yml") -> Path:
    path = directory / name
    path.write_text(text, encoding="utf-8")
    return path


def variables(manager: InventoryManager, loader: DataLoader, host: str) -> dict[str, Any]:
    raw = VariableManager(loader=loader, inventory=manager).get_vars(host=manager.get_host(host))
    return {key: Templar(loader=loader, variables=raw).template(raw[key]) for key in raw if key not in ("groups", "hostvars")}


def command(*arguments: str, config: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "ANSIBLE_CONFIG": str(config or PROJECT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1", "COLUMNS": "80"}
    return subprocess.run(["ansible-inventory", *arguments], cwd=PROJECT, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("name", "accepted"),
    [("cluster.yml", True), ("20-cluster.yaml", True), ("clusters.yml", False), ("cluster.ini", False), ("cluster.yml.orig", False)],
)
def test_it_takes_cluster_files_by_name(tmp_path: Path, name: str, accepted: bool) -> None:
    assert InventoryModule().verify_file(str(written(tmp_path, "no: [yaml", name))) is accepted


def test_a_file_that_is_not_there_is_not_taken(tmp_path: Path) -> None:
    assert not InventoryModule().verify_file(str(tmp_path / "cluster.yml"))


def test_every_role_has_a_group_and_every_site_too(tmp_path: Path) -> None:
    inventory = parse(written(tmp_path, edited((", nginx, vllm]", ", vllm]"), (", nginx]", "]"))))
    assert set(inventory.groups) == {"all", "ungrouped", *GROUPS, "site_hq", "site_edge"}
    assert inventory.groups["nginx"].hosts == []
    assert [host.name for host in inventory.groups["vllm"].hosts] == ["hq-gpu1", "edge-gw1"]
    assert [host.name for host in inventory.groups["site_hq"].hosts] == ["hq-gw1", "hq-gpu1"]


def test_what_many_hosts_share_is_set_once(tmp_path: Path) -> None:
    inventory = parse(written(tmp_path, EXAMPLE))
    assert set(inventory.groups["all"].vars) == {"cluster"}
    assert set(inventory.groups["site_hq"].vars) == {"site"}
    own = {key for key in inventory.hosts["hq-gpu1"].vars if key not in ("inventory_file", "inventory_dir")}
    assert own == {"ansible_host", "node"}


@pytest.mark.parametrize("path", BROKEN, ids=lambda path: path.stem)
def test_a_refused_file_leaves_the_inventory_as_it_was(path: Path) -> None:
    inventory = InventoryData()
    with pytest.raises(AnsibleParserError) as refused:
        InventoryModule().parse(inventory, DataLoader(), str(path))
    assert (set(inventory.groups), inventory.hosts, inventory.groups["all"].vars) == ({"all", "ungrouped"}, {}, {})
    wanted = expected(path)
    assert str(refused.value) == f"{path}: {len(wanted)} mistake{'s' if len(wanted) != 1 else ''}; nothing was loaded"
    assert str(refused.value._help_text).splitlines() == [f"  {path.name}:{mistake}" for mistake in wanted]


def test_without_netaddr_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ansible_collections.sovereign.dify.plugins.inventory.cluster.HAS_NETADDR", False)
    with pytest.raises(AnsibleParserError, match="pip install netaddr"):
        parse(written(tmp_path, EXAMPLE))
    assert addresses.HAS_NETADDR


def test_host_variables_may_be_templates_and_vaulted(tmp_path: Path) -> None:
    password = VaultSecret(b"open sesame")
    ciphertext = VaultLib([("default", password)]).encrypt("hidden", password).decode()
    vaulted = ciphertext.replace("\n", "\n            ")
    own = f"""
      hq-gpu1:
        address: 198.18.1.31
        groups: [vllm]
        vars:
          ansible_host: 203.0.113.9
          greeting: "hello from {{{{ node.name }}}} at {{{{ site.name }}}}"
          token: !vault |
            {vaulted}
          literal: !unsafe "{{{{ node.name }}}}"
"""
    path = written(tmp_path, edited(("      hq-gpu1: {address: 198.18.1.31, groups: [vllm]}\n", own.lstrip("\n"))))
    loader = DataLoader()
    manager = InventoryManager(loader, [str(path)])
    token = manager.hosts["hq-gpu1"].vars.pop("token")
    assert isinstance(token, EncryptedString), "it stays encrypted until it is used"
    assert token._ciphertext.split() == ciphertext.split()
    found = variables(manager, loader, "hq-gpu1")
    assert found["greeting"] == "hello from hq-gpu1 at hq"
    assert found["literal"] == "{{ node.name }}"
    assert found["ansible_host"] == "203.0.113.9"
    assert found["node"]["address"] == "198.18.1.31"


def test_free_values_of_models_may_be_templates(tmp_path: Path) -> None:
    # A source before the cluster file must not change what is trusted.
    written(tmp_path, "other-host\n", "10-other.ini")
    written(tmp_path, edited(("faq: {", "faq: {extra_args: {seed: '{{ 3 + 4 }}'}, ")), "20-cluster.yml")
    loader = DataLoader()
    assert variables(InventoryManager(loader, [str(tmp_path)]), loader, "edge-gw1")["node"]["models"][0]["extra_args"] == {"seed": 7}


def test_group_vars_beside_the_file_override_the_contract(tmp_path: Path) -> None:
    written(tmp_path, EXAMPLE)
    (tmp_path / "group_vars").mkdir()
    written(tmp_path / "group_vars", "site: {name: overridden}\n", "site_edge.yml")
    loader = DataLoader()
    manager = InventoryManager(loader, [str(tmp_path)])
    assert variables(manager, loader, "edge-gw1")["site"] == {"name": "overridden"}
    assert variables(manager, loader, "hq-gw1")["site"]["name"] == "hq"


def test_hosts_of_earlier_sources_join_and_keep_their_variables() -> None:
    loader = DataLoader()
    manager = InventoryManager(loader, [str(HERE / "good/hosts_from")])
    gateway = variables(manager, loader, "hq-gw1")
    assert gateway["rack"] == "a1"
    assert gateway["ansible_host"] == "198.18.1.11"
    assert gateway["node"]["vpn_address"] == "198.19.0.11"
    assert gateway["node"]["vpn_peers"][0]["name"] == "edge-gw1"
    gpu = variables(manager, loader, "hq-gpu2")
    assert (gpu["cooling"], gpu["rack"], gpu["node"]["address"]) == ("water", "b7", "198.18.1.32")
    assert gpu["node"]["groups"] == ["baseline", "firewall", "nginx", "pki", "vllm"]
    assert {group.name for group in manager.hosts["hq-gpu2"].groups} >= {"gpu_servers", "observed", "vllm", "nginx", "site_hq"}
    assert [server["name"] for server in gpu["site"]["models"]["assistant"]["servers"]] == ["hq-gpu1", "hq-gpu2"]


def test_the_address_with_which_an_earlier_source_connects_stays(tmp_path: Path) -> None:
    written(tmp_path, "hq-gpu1 ansible_host=203.0.113.77\n", "10-other.ini")
    written(tmp_path, EXAMPLE, "20-cluster.yml")
    loader = DataLoader()
    found = variables(InventoryManager(loader, [str(tmp_path)]), loader, "hq-gpu1")
    assert (found["ansible_host"], found["node"]["address"]) == ("203.0.113.77", "198.18.1.31")


def test_the_command_line_lists_plain_values() -> None:
    done = command("-i", str(HERE / "good/example"), "--list")
    assert done.returncode == 0, done.stderr
    listed = json.loads(done.stdout)
    assert listed["site_edge"] == {"hosts": ["edge-gw1"]}
    assert listed["_meta"]["hostvars"]["edge-gw1"]["node"]["models"][0]["port"] == 8848
    assert "__ansible_unsafe" not in done.stdout


def test_the_command_line_refuses_a_broken_file_with_the_projects_own_settings(tmp_path: Path) -> None:
    source = HERE / "broken/many.yml"
    path = written(tmp_path, source.read_text(encoding="utf-8"))
    done = command("-i", str(path), "--list")
    assert done.returncode != 0
    assert done.stdout.strip() == ""
    for mistake in expected(source):
        assert done.stderr.splitlines().count(f"  cluster.yml:{mistake}") == 1, done.stderr
    assert list(tmp_path.iterdir()) == [path], "nothing is written"


def test_where_no_other_plugin_tries_the_file_only_our_mistakes_are_shown(tmp_path: Path) -> None:
    config = written(tmp_path, f"[defaults]\ncollections_path = {PROJECT}/collections\n{ALONE}", "ansible.cfg")
    source = HERE / "broken/file_tab.yml"
    path = written(tmp_path, source.read_text(encoding="utf-8"))
    done = command("-i", str(path), "--list", config=config)
    assert done.returncode != 0
    assert f"  cluster.yml:{expected(source)[0]}" in done.stderr.splitlines()
    assert done.stderr.count("[WARNING]") == 1, done.stderr
    assert done.stderr.count("[ERROR]") == 1, done.stderr
