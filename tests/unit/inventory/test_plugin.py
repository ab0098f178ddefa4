"""The plugin inside Ansible: groups, variables, earlier hosts, and refusals on the command line."""

# Of Ansible's own classes:
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
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

# Ansible's own defaults: a source that cannot be parsed is a warning.
LENIENT = f"[defaults]\ncollections_path = {PROJECT}/collections\n[inventory]\nenable_plugins = host_list, script, auto, yaml, ini, toml\n"


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


@pytest.mark.parametrize("name", ["clusters.yml", "bank.yaml"])
def test_it_takes_cluster_files_by_their_first_key(tmp_path: Path, name: str) -> None:
    assert InventoryModule().verify_file(str(written(tmp_path, EXAMPLE, name)))
    assert not InventoryModule().verify_file(str(written(tmp_path, EXAMPLE.replace("sovereign.dify.cluster", "constructed"), name)))


@pytest.mark.parametrize("name", ["old-cluster.yml", "cluster-2.yaml", "bank.yml"])
def test_only_one_name_is_read(tmp_path: Path, name: str) -> None:
    with pytest.raises(AnsibleParserError) as refused:
        parse(written(tmp_path, EXAMPLE, name))
    assert f"Only cluster.yml or cluster.yaml is read. Rename {name}" in str(refused.value._help_text)


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
def test_a_refused_file_leaves_the_inventory_as_it_was(tmp_path: Path, path: Path) -> None:
    inventory = InventoryData()
    broken = written(tmp_path, path.read_text(encoding="utf-8"))
    with pytest.raises(AnsibleParserError) as refused:
        InventoryModule().parse(inventory, DataLoader(), str(broken))
    assert (set(inventory.groups), inventory.hosts, inventory.groups["all"].vars) == ({"all", "ungrouped"}, {}, {})
    wanted = expected(path)
    assert str(refused.value) == f"{broken}: {len(wanted)} mistake{'s' if len(wanted) != 1 else ''}; nothing was loaded"
    assert str(refused.value._help_text).splitlines() == [f"  cluster.yml:{mistake}" for mistake in wanted]


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
    written(tmp_path, edited(("faq: {", "faq: {extra_args: {seed: '{{ 3 + 4 }}'}, ")), "cluster.yml")
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
    written(tmp_path, EXAMPLE)
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


@pytest.mark.parametrize("name", ["many.yml", "file_tab.yml"])
@pytest.mark.parametrize("given", ["directory", "file"])
def test_mistakes_are_all_that_is_shown_with_the_projects_own_settings(tmp_path: Path, name: str, given: str) -> None:
    source = HERE / "broken" / name
    path = written(tmp_path, source.read_text(encoding="utf-8"))
    written(tmp_path, "another-host\n", "20-others.ini")
    before = sorted(tmp_path.iterdir())
    done = command("-i", str(path if given == "file" else tmp_path), "--list")
    assert done.returncode != 0
    assert done.stdout.strip() == ""
    wanted = expected(source)
    headline = f"[ERROR]: {path}: {len(wanted)} mistake{'s' if len(wanted) != 1 else ''}; nothing was loaded"
    assert done.stderr.strip().splitlines() == [headline, "", *(f"  cluster.yml:{mistake}" for mistake in wanted)]
    assert sorted(tmp_path.iterdir()) == before, "nothing is written"


def test_mistakes_are_the_last_thing_that_ansible_runner_shows(tmp_path: Path) -> None:
    source = HERE / "broken/many.yml"
    (tmp_path / "inventory").mkdir()
    path = written(tmp_path / "inventory", source.read_text(encoding="utf-8"))
    runner = [str(Path(sys.executable).with_name("ansible-runner")), "run", str(tmp_path), "--playbook", str(PROJECT / "playbooks/preflight.yml")]
    environment = {**os.environ, "ANSIBLE_CONFIG": str(PROJECT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1", "COLUMNS": "200"}
    done = subprocess.run(runner, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    wanted = expected(source)
    shown = done.stdout.strip().splitlines()
    assert shown[-len(wanted) - 2 :] == [
        f"[ERROR]: {path}: {len(wanted)} mistakes; nothing was loaded",
        "",
        *(f"  cluster.yml:{mistake}" for mistake in wanted),
    ]


def test_where_a_refused_source_is_no_error_the_run_goes_on_and_has_been_told_once(tmp_path: Path) -> None:
    source = HERE / "broken/many.yml"
    path = written(tmp_path, source.read_text(encoding="utf-8"))
    done = command("-i", str(path), "-i", "another-host,", "--list", config=written(tmp_path, LENIENT, "ansible.cfg"))
    assert json.loads(done.stdout)["ungrouped"] == {"hosts": ["another-host"]}, done.stderr
    for mistake in expected(source):
        assert done.stderr.splitlines().count(f"  cluster.yml:{mistake}") == 1, done.stderr


def two_platforms(directory: Path) -> tuple[Path, Path]:
    """Write two platforms that share the names of their hosts."""
    for name in ("one", "two"):
        (directory / name).mkdir()
    one = written(directory / "one", EXAMPLE)
    return one, written(directory / "two", edited(("name: lab\n", "name: other\n"), ("198.18.1.31", "198.18.1.32")))


@pytest.mark.parametrize(
    ("sources", "lenient"),
    [(("one", "two"), True), (("one/cluster.yml", "two/cluster.yml"), False), ((".",), False)],
    ids=["directories, Ansible's defaults", "files", "the directory above"],
)
def test_two_platforms_in_one_run_are_refused(tmp_path: Path, sources: tuple[str, ...], lenient: bool) -> None:
    one, two = two_platforms(tmp_path)
    arguments = [argument for source in sources for argument in ("-i", str(tmp_path / source))]
    done = command(*arguments, "--list", config=written(tmp_path, LENIENT, "ansible.cfg") if lenient else None)
    assert f"{two}: refused; nothing was loaded" in done.stderr
    assert f"  {one} is loaded already, and one run is for one platform." in done.stderr
    if lenient:
        assert json.loads(done.stdout)["_meta"]["hostvars"] == {}, "not even the first platform's hosts"
    else:
        assert done.returncode != 0
        assert done.stdout.strip() == ""


@pytest.mark.parametrize("name", ["old-cluster.yml", "archive/cluster.yml"])
def test_a_copy_beside_the_cluster_file_is_refused(tmp_path: Path, name: str) -> None:
    written(tmp_path, EXAMPLE)
    (tmp_path / name).parent.mkdir(exist_ok=True)
    written(tmp_path, edited(("name: lab\n", "name: old\n")), name)
    done = command("-i", str(tmp_path), "--list")
    assert done.returncode != 0
    assert str(tmp_path / name) in done.stderr
    assert "cluster.yml" in done.stderr


def test_one_file_given_twice_is_one_platform(tmp_path: Path) -> None:
    path = written(tmp_path, EXAMPLE)
    done = command("-i", str(tmp_path), "-i", str(path), "--host", "hq-gw1")
    assert json.loads(done.stdout)["cluster"]["file"] == str(path), done.stderr


def test_a_platform_in_a_subdirectory_must_not_lose_its_group_vars(tmp_path: Path) -> None:
    platform = tmp_path / "bank"
    (platform / "group_vars").mkdir(parents=True)
    written(platform, EXAMPLE)
    written(platform / "group_vars", "nginx_rate: 7\n", "all.yml")
    assert json.loads(command("-i", str(platform), "--host", "hq-gw1").stdout)["nginx_rate"] == 7
    done = command("-i", str(tmp_path), "--list")
    assert done.returncode != 0
    assert f"Ansible would not read group_vars beside it. Give -i {platform}." in done.stderr


def test_a_program_that_prints_hosts_is_read_beside_the_cluster_file_with_our_settings(tmp_path: Path) -> None:
    hosts = {
        "gateways": {"hosts": ["hq-gw1"]},
        "gpu_servers": {"hosts": ["hq-gpu1", "hq-gpu2"], "vars": {"cooling": "water"}},
        "observed": {"hosts": ["hq-gpu2"]},
        "_meta": {
            "hostvars": {
                "hq-gw1": {"lan": "198.18.1.11", "wan": "198.18.9.11", "tunnel": "198.19.0.11"},
                "hq-gpu1": {"ansible_host": "198.18.1.31"},
                "hq-gpu2": {"ansible_host": "198.18.1.32"},
            }
        },
    }
    written(tmp_path, f"#!/bin/sh\nexec cat <<'EOF'\n{json.dumps(hosts)}\nEOF\n", "10-machines").chmod(0o755)
    written(tmp_path, (HERE / "good/hosts_from/cluster.yml").read_text(encoding="utf-8"))
    found = json.loads(command("-i", str(tmp_path), "--host", "hq-gpu2").stdout)
    assert (found["cooling"], found["node"]["address"], found["site"]["name"]) == ("water", "198.18.1.32", "hq")


def test_an_inventory_that_awx_hands_on_as_a_program_holds_the_whole_contract(tmp_path: Path) -> None:
    exported = command("-i", str(HERE / "good/example"), "--list", "--export").stdout
    program = written(tmp_path, f"#!/bin/sh\nexec cat <<'EOF'\n{exported}\nEOF\n", "hosts")
    program.chmod(0o755)
    ours = json.loads(command("-i", str(HERE / "good/example"), "--host", "edge-gw1").stdout)
    assert json.loads(command("-i", str(program), "--host", "edge-gw1").stdout) == ours


def test_a_limited_run_from_another_directory_and_a_path_with_spaces_finds_everything(tmp_path: Path) -> None:
    clone = tmp_path / "a path with spaces"
    clone.symlink_to(PROJECT)
    arguments = ["-i", str(clone / "inventories/lab"), str(clone / "playbooks/site.yml"), "--limit=hq-db1", "--tags=redis", "--forks=1"]
    done = subprocess.run(
        [str(Path(sys.executable).with_name("ansible-playbook")), *arguments, "--list-tasks", "--list-hosts"],
        cwd="/",
        env={**os.environ, "ANSIBLE_CONFIG": str(clone / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"Data - Redis.*\n(?:.*\n)*? +hq-db1\n(?:.*\n)*? +sovereign\.dify\.redis : ", done.stdout), done.stdout
    # No tag passes it by.
    assert done.stdout.count("Compare the state directory with what the hosts carry") == 6
