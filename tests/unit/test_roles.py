"""The rules that every role keeps, counted rather than hoped for."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.errors import AnsibleError

from tests.unit.inventory.cases import contract
from tests.unit.role_variables import own_variables, rendered

PROJECT = Path(__file__).resolve().parents[2]
ROLES = sorted(path for path in (PROJECT / "roles").iterdir() if path.is_dir())
CONTRACT = ("cluster", "site", "node")
VERBS = {"main", "preflight", "install", "configure", "service", "verify", "upgrade", "restart", "drain", "remove"}

role = pytest.mark.parametrize("role", ROLES, ids=lambda path: path.name)


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text()) if path.exists() else None


def options(role: Path) -> dict[str, Any]:
    return dict(load(role / "meta/argument_specs.yml")["argument_specs"]["main"]["options"])


def task_files(role: Path) -> list[Path]:
    return sorted((role / "tasks").glob("*.yml"))


@role
def test_the_specification_and_the_defaults_have_the_same_keys(role: Path) -> None:
    assert set(options(role)) == set(load(role / "defaults/main.yml")) - set(CONTRACT)


@role
def test_every_option_is_typed_described_and_prefixed_and_has_its_default_in_one_place(role: Path) -> None:
    for name, option in options(role).items():
        assert name.startswith(f"{role.name}_"), name
        assert option.get("type"), name
        assert option.get("description"), name
        assert "default" not in option, f"{name}: the default belongs in defaults/main.yml alone"


@role
def test_a_role_has_few_knobs(role: Path) -> None:
    defaults = load(role / "defaults/main.yml")
    # What the contract answers for everybody is an interface, and nothing that somebody has to think about.
    knobs = [name for name in options(role) if not re.search(r"\b(?:site|node)\.", str(defaults.get(name)))]
    assert len(knobs) <= 25, knobs


def results(role: Path) -> set[str]:
    """Names that a role sets for the playbooks that call it: those of its README's section "Results"."""
    _, _, section = (role / "README.md").read_text().partition("\n## Results\n")
    return set(re.findall(r"^- `(\w+)`", section.partition("\n## ")[0], flags=re.MULTILINE))


@role
def test_internal_names_are_marked(role: Path) -> None:
    for path in (role / "vars").glob("*.yml"):
        for name in load(path) or {}:
            assert name.startswith(f"__{role.name}_") or name in results(role), (path.name, name)
    for path in task_files(role):
        for name in re.findall(r"register: (\S+)", path.read_text()):
            assert name.startswith(f"__{role.name}_") or name in results(role), (path.name, name)


def texts(value: Any) -> Iterator[str]:
    """Every string in a value of YAML."""
    if isinstance(value, str):
        yield value
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from texts(part)


@role
def test_patterns_are_escaped_as_they_are_read(role: Path) -> None:
    # In a question ({{ }}) Ansible takes a backslash as it is; in a statement ({% %}) Jinja takes two for one. Two in a question are one that is
    # looked for: [^/\\s] leaves out every s.
    for path in sorted(role.glob("[vd]*/*.yml")):
        asked = [part for text in texts(load(path)) for part in re.findall(r"\{\{.*?\}\}", text, flags=re.DOTALL)]
        assert not [part for part in asked if re.search(r"\\\\[sSdDwWb.(+*?\[]", part)], path


@role
def test_playbooks_read_what_a_role_says_it_gives_and_nothing_internal(role: Path) -> None:
    texts = {path.name: path.read_text() for path in (PROJECT / "playbooks").rglob("*.yml")}
    assert [name for name, text in texts.items() if f"__{role.name}_" in text] == []
    assert [name for name in results(role) if not any(re.search(rf"\b{name}\b", text) for text in texts.values())] == []


@role
def test_the_table_of_contents_is_short_and_task_files_are_too(role: Path) -> None:
    assert len((role / "tasks/main.yml").read_text().splitlines()) <= 60
    for path in task_files(role):
        assert len(path.read_text().splitlines()) <= 120, path.name


@role
def test_main_names_the_verbs_and_tags_each(role: Path) -> None:
    imported = [(task["ansible.builtin.import_tasks"], task["tags"]) for task in load(role / "tasks/main.yml")]
    assert {"preflight.yml", "install.yml", "configure.yml", "service.yml", "verify.yml"} <= {name for name, _ in imported}
    for name, tags in imported:
        assert role.name in tags or "never" in tags, name
        verb = name.removesuffix(".yml")
        if verb in {"install", "configure", "service"}:
            assert f"{role.name}_{verb}" in tags
        if verb in {"preflight", "verify"}:
            assert verb in tags


@role
def test_no_topology_no_silent_defaults_no_short_cuts(role: Path) -> None:
    for path in [*role.rglob("*.yml"), *role.rglob("*.j2")]:
        text = path.read_text()
        for forbidden in (r"groups\[", r"hostvars\[", r"ignore_errors:", r"state: latest", r"\bansible_(?:distribution|default_ipv4|hostname)\b"):
            assert not re.search(forbidden, text), (path, forbidden)


@role
def test_of_other_hosts_a_role_reads_what_it_has_found_out_there_itself(role: Path) -> None:
    for path in [*role.rglob("*.yml"), *role.rglob("*.j2")]:
        for part in re.findall(r"\bhostvars\b(.{0,160})", path.read_text(), flags=re.DOTALL):
            assert re.search(rf"(?:'|host\.)_{{0,2}}{role.name}_|ansible_facts", part), (path, part)


@role
def test_deployed_files_carry_the_managed_header(role: Path) -> None:
    texts = {path: path.read_text() for path in (role / "templates").rglob("*.j2")}
    # What others include is no file of its own.
    parts = {name for text in texts.values() for name in re.findall(r"{%-? include '([^']+)'", text)}
    for path, text in texts.items():
        assert ("ansible_managed" in text.splitlines()[0]) != (path.name in parts), path


@role
def test_a_role_is_documented_and_has_a_scenario(role: Path) -> None:
    readme = (role / "README.md").read_text()
    for name in options(role):
        assert f"`{name}`" in readme, name
    scenario = PROJECT / "molecule" / role.name
    assert list((scenario / "tests").glob("test_*.py"))
    assert (scenario / "molecule.yml").exists()


def test_every_known_group_is_a_role() -> None:
    from ansible_collections.sovereign.dify.plugins.module_utils.cluster.groups import GROUPS

    assert {path.name for path in ROLES} == set(GROUPS)


def test_scenarios_that_run_beside_each_other_share_no_address() -> None:
    first: dict[str, str] = {}
    for path in sorted((PROJECT / "molecule").glob("*/inventory/cluster.yml")):
        for network in set(re.findall(r"\b198\.18\.\d+\.", path.read_text())):
            owner = first.setdefault(network, path.parts[-3])
            assert owner == path.parts[-3], f"{network}0/24 belongs to the scenario {owner}"


@role
def test_what_a_role_declares_to_another_is_what_that_one_takes(role: Path) -> None:
    """Checked here, once, rather than by a task on each host in each run."""
    for path in task_files(role):
        for task in load(path) or []:
            call = task.get("ansible.builtin.import_role", {})
            if not call.get("rolespec_validate", True):
                other = call["name"].rpartition(".")[2]
                taken = load(PROJECT / f"roles/{other}/meta/argument_specs.yml")["argument_specs"][call["tasks_from"]]["options"]
                assert set(task["vars"]) == set(taken), (path, task["name"])


def refused(name: str, variables: dict[str, Any]) -> str:
    """Give what Ansible says where a variable cannot be read; nothing where it can."""
    try:
        rendered(f"{{{{ {name} }}}}", variables)
    except AnsibleError as error:
        return str(error)
    return ""


@role
def test_whoever_has_no_inventory_of_ours_is_told_all_that_a_role_needs_at_once(role: Path) -> None:
    """Whatever a role reads of the inventory plugin's variables, the first of it names all."""
    listed = re.search(r"^Without the inventory plugin, give (.*)", (role / "README.md").read_text(), re.MULTILINE)
    alone = {name: value for name, value in load(role / "defaults/main.yml").items() if name in CONTRACT}
    if not listed:
        assert not alone
        return
    assert set(alone) == set(CONTRACT)
    needed = re.findall(r"`([\w.]+)`", listed[1])
    refusals = [refusal for name in needed if (refusal := refused(name, own_variables(role.name)))]
    assert refusals
    for refusal in refusals:
        assert set(needed) <= set(re.findall(r"[\w.]+\w", refusal)), refusal
        assert str(role / "README.md") in refusal


def test_what_may_be_missing_is_asked_of_nobody() -> None:
    variables = own_variables("nginx")
    assert rendered("{{ site is defined }} {{ site.members.nginx | default('none') }}", variables) == "False none"


PLACES = [
    path
    for pattern in ("roles/*/defaults/*.yml", "roles/*/vars/*.yml", "roles/*/tasks/*.yml", "roles/*/templates/*", "playbooks/**/*.yml")
    for path in sorted(PROJECT.glob(pattern))
]


def _numbers(found: dict[str, Any]) -> Iterator[int]:
    for value in found.values():
        if isinstance(value, dict):
            yield from _numbers(value)
        else:
            yield value


@pytest.mark.parametrize("path", PLACES, ids=lambda path: str(path.relative_to(PROJECT)))
def test_ports_and_paths_that_several_roles_know_stand_in_the_contract_alone(path: Path) -> None:
    cluster = contract().cluster
    text = "\n".join(line for line in path.read_text(encoding="utf-8").splitlines() if not line.lstrip().startswith("#"))
    literals = [cluster["pki"]["directory"], *(str(number) for number in _numbers(cluster["ports"]))]
    # Not where it is part of something longer, such as a number of bytes.
    found = [literal for literal in literals if re.search(rf"(?<![\w.-]){re.escape(literal)}(?![\w.-])", text)]
    assert not found, f"{path.relative_to(PROJECT)} has {found}: read cluster.ports or cluster.pki"


def _own(tasks: Any) -> Iterator[dict[str, Any]]:
    """Give the tasks that run on the controller."""
    for task in tasks or []:
        for part in ("block", "rescue", "always"):
            yield from _own(task.get(part))
        if task.get("delegate_to") == "localhost":
            yield task


def test_who_logs_in_as_a_user_with_sudo_needs_none_on_the_controller() -> None:
    # The keyword loses against the variable ansible_become, which users set for all; a variable of the task or the play wins.
    wrong = []
    for path in sorted([*PROJECT.glob("roles/*/tasks/*.yml"), *PROJECT.glob("playbooks/**/*.yml")]):
        for item in load(path) or []:
            tasks = item.get("tasks") if "hosts" in item else [item]
            own = [item] if item.get("hosts") == "localhost" else list(_own(tasks))
            wrong += [
                f"{path.relative_to(PROJECT)}: {task.get('name')}" for task in own if (task.get("vars") or {}).get("ansible_become") is not False
            ]
    assert not wrong, wrong


def test_nothing_depends_on_a_notification_that_dies_with_the_run() -> None:
    assert list(PROJECT.glob("roles/*/handlers/*")) == []
    texts = {path: path.read_text(encoding="utf-8") for path in (*PROJECT.glob("roles/*/tasks/*.yml"), *PROJECT.glob("playbooks/**/*.yml"))}
    assert [path for path, text in texts.items() if re.search(r"^ *(notify|handlers): *|flush_handlers", text, re.MULTILINE)] == []


def test_programs_that_users_get_have_no_name_that_ansibles_own_tests_refuse() -> None:
    """Those tests need minutes to say so."""
    roots = ("plugins", "roles", "playbooks")
    named = {
        f"{path.relative_to(PROJECT)}:{node.lineno}"
        for root in roots
        for path in (PROJECT / root).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node.id == "_"
    }
    assert sorted(named) == []
