"""A state directory is told from another one, and a secret is kept where the file system knows no hard links."""

# Of Ansible's own classes:
# mypy: disable-error-code="no-untyped-call, list-item"

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.errors import AnsibleLookupError
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import lookup_loader
from ansible.template import Templar
from ansible_collections.sovereign.dify.plugins.module_utils.state_directory import identity, keep, make_identity, mark, problem

PROJECT = Path(__file__).parents[2]
HOSTS = ["db1", "db2", "db3"]


def looked_up(state: Path, facts: dict[str, Any], **variables: object) -> str:
    """Look a secret up as a role's defaults do, for a host with these facts."""
    loader = DataLoader()
    known = {"cluster": {"state_dir": str(state)}, "inventory_hostname": "db1", "ansible_facts": facts, **variables}
    plugin = lookup_loader.get("sovereign.dify.secret", loader=loader, templar=Templar(loader=loader, variables=known))
    return str(plugin.run(["redis/admin"], known)[0])


def marked(with_identity: str) -> dict[str, Any]:
    return {"ansible_local": {"sovereign": {"state": with_identity}}}


def test_an_identity_is_made_once(tmp_path: Path) -> None:
    assert identity(tmp_path / "state") == ""
    first = make_identity(tmp_path / "state")
    assert first == make_identity(tmp_path / "state") == identity(tmp_path / "state")
    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    ("facts", "found"),
    [
        ({}, None),
        ({"hostname": "db1"}, None),
        ({"ansible_local": {}}, ""),
        ({"ansible_local": {"other": {"state": "x"}}}, ""),
        ({"ansible_local": {"sovereign": "error loading facts"}}, ""),
        (marked("x"), "x"),
    ],
)
def test_a_mark_is_read_from_local_facts(facts: dict[str, Any], found: str | None) -> None:
    assert mark(facts) == found


def test_a_new_platform_and_one_from_before_there_were_marks_go_on(tmp_path: Path) -> None:
    assert problem(tmp_path, dict.fromkeys(HOSTS, ""), HOSTS) == ""
    (tmp_path / "secrets").mkdir()
    assert problem(tmp_path, {"db1": ""}, HOSTS) == ""


def test_hosts_of_this_state_and_new_ones_go_on(tmp_path: Path) -> None:
    own = make_identity(tmp_path)
    assert problem(tmp_path, {"db1": own, "db2": ""}, HOSTS) == ""


@pytest.mark.parametrize("used", [False, True])
def test_hosts_of_another_state_are_named_with_what_to_do(tmp_path: Path, used: bool) -> None:
    own = make_identity(tmp_path) if used else ""
    said = problem(tmp_path, {"db1": "abc", "db2": own}, HOSTS)
    assert said.startswith("Nothing has been changed. These hosts were configured from another state directory: db1 (abc).")
    assert (f"is another one ({own})" if used else "has no identity yet") in said
    assert f"restore {tmp_path} from its backup" in said
    assert "-e cluster_adopt_state=true" in said


def test_a_new_state_is_not_begun_beside_hosts_that_were_not_asked(tmp_path: Path) -> None:
    said = problem(tmp_path, {"db1": "", "db2": None}, HOSTS)
    assert "has never been used, and this run does not see" in said
    assert ": db2, db3. If the platform is new, run once without a limit" in said


def test_a_host_of_another_state_gets_no_secret_of_this_one(tmp_path: Path) -> None:
    with pytest.raises(AnsibleLookupError, match="These hosts were configured from another state directory: db1"):
        looked_up(tmp_path, marked("abc"))
    assert list(tmp_path.iterdir()) == []
    own = make_identity(tmp_path)
    with pytest.raises(AnsibleLookupError, match="another state directory"):
        looked_up(tmp_path, marked("abc"))
    first = looked_up(tmp_path, marked(own))
    assert first == looked_up(tmp_path, {"ansible_local": {}}) == looked_up(tmp_path, {})
    assert first == looked_up(tmp_path, marked("abc"), cluster_adopt_state="true")


def test_a_new_state_is_not_begun_for_a_host_of_which_nothing_is_known(tmp_path: Path) -> None:
    with pytest.raises(AnsibleLookupError, match=r"never been used, and the facts of db1 are not known.*sovereign\.dify\.state"):
        looked_up(tmp_path, {}, site={"name": "hq"})
    assert list(tmp_path.iterdir()) == []
    assert looked_up(tmp_path, {"ansible_local": {}}, site={"name": "hq"}) == looked_up(tmp_path, {}, site={"name": "hq"})


def test_a_role_by_itself_begins_a_state(tmp_path: Path) -> None:
    """Its default for what the inventory sets is a template."""
    assert looked_up(tmp_path, {}, site="{{ undef() }}")


@pytest.mark.parametrize("layer", sorted((PROJECT / "playbooks/layers").glob("*.yml")), ids=lambda path: path.stem)
def test_every_layer_compares_the_state_of_all_its_hosts_first(layer: Path) -> None:
    first, *plays = yaml.safe_load(layer.read_text())
    assert first["ansible.builtin.import_playbook"] == "../state.yml"
    groups = {group for play in plays if not play["hosts"].startswith("localhost") for group in play["hosts"].split(":")}
    assert set(first["vars"]["state_hosts"].split(":")) == groups


def test_no_tag_passes_the_comparison_by() -> None:
    for play in yaml.safe_load((PROJECT / "playbooks/state.yml").read_text()):
        assert play["tags"] == ["always"]
        assert play["any_errors_fatal"]
    preflight = yaml.safe_load((PROJECT / "playbooks/preflight.yml").read_text())
    assert "state.yml" in [play.get("ansible.builtin.import_playbook") for play in preflight]


MARKING = """
- hosts: localhost
  connection: local
  gather_facts: false
  vars: {ansible_python_interpreter: "{{ ansible_playbook_python }}", facts: "{{ playbook_dir }}/facts.d"}
  tasks:
    - {sovereign.dify.state_mark: {id: one, directory: "{{ facts }}"}, register: checked, check_mode: true}
    - {sovereign.dify.state_mark: {id: one, directory: "{{ facts }}"}, register: first}
    - {sovereign.dify.state_mark: {id: one, directory: "{{ facts }}"}, register: again}
    - {sovereign.dify.state_mark: {id: two, directory: "{{ facts }}"}, register: other, ignore_errors: true}
    - {ansible.builtin.setup: {gather_subset: ["!all", "!min", local], fact_path: "{{ facts }}"}}
    - {sovereign.dify.state_mark: {id: two, directory: "{{ facts }}", adopt: true}, register: adopted}
    - ansible.builtin.copy:
        dest: "{{ playbook_dir }}/found.json"
        content: >-
          {{ {'changed': [checked, first, again, adopted] | map(attribute='changed'), 'refused': other.msg, 'former': adopted.former,
              'fact': ansible_facts['ansible_local']} | to_json }}
"""


def test_a_mark_is_a_local_fact_that_only_an_operator_replaces(tmp_path: Path) -> None:
    (tmp_path / "marking.yml").write_text(MARKING)
    done = subprocess.run(
        [str(Path(sys.executable).with_name("ansible-playbook")), "-i", "localhost,", str(tmp_path / "marking.yml")],
        env={**os.environ, "ANSIBLE_CONFIG": str(PROJECT / "ansible.cfg"), "ANSIBLE_CACHE_PLUGIN": "memory"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["changed"] == [True, True, False, True]
    assert found["refused"].startswith("The host carries the identity one of another state directory, not two.")
    assert found["fact"] == {"sovereign": {"state": "one"}}
    assert found["former"] == "one"
    assert json.loads((tmp_path / "facts.d/sovereign.fact").read_text()) == {"state": "two"}


def no_links(*_: object, **__: object) -> None:
    """Answer as the kernel does for vFAT."""
    raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))


@pytest.fixture
def without_hard_links(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", no_links)


@pytest.mark.usefixtures("without_hard_links")
def test_without_hard_links_processes_that_race_keep_one(tmp_path: Path) -> None:
    path = tmp_path / "secrets/raced"
    # Forked, so that the children know no links either.
    with ProcessPoolExecutor(8, mp_context=get_context("fork")) as pool:
        list(pool.map(keep, [path] * 64, map(str, range(64))))
    first = path.read_text()
    assert first.strip() in set(map(str, range(64)))
    keep(path, "later")
    assert path.read_text() == first
    assert path.stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in path.parent.iterdir()] == ["raced"]


CONFIGURE_NOTHING = {
    "backup": "the hosts' own configuration is used",
    "bench_models": "asks what runs",
    "plan_models": "asks nobody",
    "remove_member": "stops what runs on a host that may be gone, and asks the others for what they know of it",
    "restart_models": "restarts what lies on the hosts",
    "restore": "the hosts' own configuration is used",
    "rolling_restart": "restarts what lies on the hosts",
    "rolling_upgrade": "installs packages; what lies on the hosts is started again",
    "service_level": "asks what Prometheus knows",
    "slow_requests": "asks what the log stores know",
    "switchover": "asks the services",
}


@pytest.mark.parametrize("playbook", sorted((PROJECT / "playbooks").glob("ops/*.yml")), ids=lambda path: path.stem)
def test_what_writes_configuration_by_the_state_directory_compares_it_first(playbook: Path) -> None:
    imported = [play.get("ansible.builtin.import_playbook") for play in yaml.safe_load(playbook.read_text())]
    hosts = [play.get("hosts") for play in yaml.safe_load(playbook.read_text())]
    # Nothing of a host is touched before: what asks the controller alone may come earlier.
    guard = next((number for number, name in enumerate(imported) if name and name.startswith(("../state.yml", "../layers/"))), None)
    if playbook.stem in CONFIGURE_NOTHING:
        assert guard is None, "take it out of the list"
    else:
        assert guard is not None
        assert set(hosts[:guard]) <= {"localhost"}
