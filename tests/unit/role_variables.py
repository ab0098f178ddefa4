"""A role's variables on a host of an example, as Ansible's own engine renders them; what the tests of several roles share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from ansible_collections.sovereign.dify.plugins.module_utils.cluster.load import load

PROJECT = Path(__file__).resolve().parents[2]


def trusted(value: Any) -> Any:
    """Have the engine take texts for templates, as it takes those of a role's files."""
    if isinstance(value, str):
        return trust_as_template(value)
    if isinstance(value, dict):
        return {key: trusted(item) for key, item in value.items()}
    return [trusted(item) for item in value] if isinstance(value, list) else value


def role_variables(role: str, cluster: str, host: str, path: str = "/somewhere/cluster.yml") -> dict[str, Any]:
    """Give the contract of a host, and a role's own variables.

    Args:
        role: The role's name.
        cluster: Text of a cluster file.
        host: One of its hosts.
        path: Where that file is said to be; its state is kept beside it.
    """
    contract = load(cluster, path)
    node = contract.nodes[host]
    return own_variables(role) | {"cluster": contract.cluster, "site": contract.sites[node["site"]], "node": node}


def own_variables(role: str) -> dict[str, Any]:
    """Give what a role has where nothing is set: its defaults and its own variables.

    Args:
        role: The role's name.
    """
    directory = PROJECT / "roles" / role
    variables: dict[str, Any] = {"role_path": str(directory), "role_name": role}
    for source in ("defaults", "vars"):
        variables |= trusted(yaml.safe_load((directory / source / "main.yml").read_text(encoding="utf-8")))
    return variables


def rendered(value: Any, variables: dict[str, Any]) -> Any:
    """Template a text, or all texts of a value."""
    return Templar(loader=DataLoader(), variables=variables).template(trusted(value))


def template(role: str, name: str, variables: dict[str, Any]) -> str:
    """Render a role's template, as a file of a host.

    Args:
        role: The role's name.
        name: The template's, without its suffix.
        variables: What it is rendered with.
    """
    text = (PROJECT / f"roles/{role}/templates/{name}.j2").read_text()
    # The engine leaves out line ends behind blocks where a file is rendered, not where a text is.
    return str(rendered(f"#jinja2: trim_blocks: True\n{text}", variables))


def faults(role: str, kind: str, variables: dict[str, Any]) -> list[str]:
    """Give the sentences of a role's list of faults.

    Args:
        role: The role's name.
        kind: What the list is called behind the role's name, such as ``secret_faults``.
        variables: All of the role's variables.
    """
    return list(rendered(f"{{{{ __{role}_{kind} }}}}", variables))
