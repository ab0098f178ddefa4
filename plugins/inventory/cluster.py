# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Inventory from one cluster file. Thin on purpose: reads, reports, hands over to Ansible."""

from __future__ import annotations

DOCUMENTATION = r"""
name: cluster
short_description: Inventory and contract from one cluster file
author: The sovereign.dify maintainers (@sovereign-dify)
version_added: 0.1.0
description:
  - Reads a file C(cluster.yml) or C(cluster.yaml) that describes a platform of several sites.
  - One run is for one platform. A second cluster file, in another inventory source or in a subdirectory, is refused, and so is a cluster file of
    another name, such as a copy C(old-cluster.yml).
  - Refuses a file with mistakes and lists all of them at once, each with its line, what is wrong and what would be right.
  - Makes one group for each role, even where it is empty, and one group C(site_NAME) for each site.
  - Sets the variables C(cluster) (on all hosts), C(site) (on the hosts of a site) and C(node) (on each host), which the roles read.
  - Hosts of inventory sources loaded earlier can join a site and keep their variables.
requirements:
  - netaddr (on the controller)
extends_documentation_fragment:
  - sovereign.dify.cluster
"""

EXAMPLES = r"""
# inventories/lab/cluster.yml
plugin: sovereign.dify.cluster
name: lab
domain: lab.internal
vpn: {cidr: 198.19.0.0/24}
sites:
  hq:
    clearance: restricted
    networks: [198.18.1.0/24]
    admin_networks: [198.18.1.0/24]
    hosts:
      hq-gw1: {address: 198.18.1.11, wan_address: 198.18.9.11, vpn_address: 198.19.0.11, groups: [wireguard, model_gateway, nginx]}
      hq-gpu1: {address: 198.18.1.31, gpus: 4, groups: [vllm]}
  edge:
    clearance: public
    networks: [198.18.2.0/24]
    hosts:
      edge-gw1: {address: 198.18.2.11, wan_address: 198.18.9.21, vpn_address: 198.19.0.21, groups: [wireguard, model_gateway, nginx]}
models:
  # May be placed on, and called from, restricted sites only.
  risk-scoring: {classification: restricted, source: /srv/models/risk, tensor_parallel: 2, hosts: [hq-gpu1]}
  # May also be called from the edge, over the VPN.
  assistant: {classification: public, source: /srv/models/assistant, hosts: [hq-gpu1]}
clients:
  core-banking: {sites: [hq], models: [risk-scoring, assistant], tier: vip}
  web-chat: {sites: [edge], models: [assistant]}
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible import constants, context
from ansible.errors import AnsibleParserError
from ansible.inventory.data import InventoryData
from ansible.inventory.helpers import get_group_vars
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.inventory import BaseInventoryPlugin
from ansible.template import trust_as_template
from ansible.utils.vars import combine_vars
from ansible_collections.sovereign.dify.plugins.module_utils.cluster.addresses import HAS_NETADDR
from ansible_collections.sovereign.dify.plugins.module_utils.cluster.contract import Contract, site_group
from ansible_collections.sovereign.dify.plugins.module_utils.cluster.hosts import Earlier
from ansible_collections.sovereign.dify.plugins.module_utils.cluster.load import load
from ansible_collections.sovereign.dify.plugins.module_utils.cluster.report import RefusedError
from ansible_collections.sovereign.dify.plugins.plugin_utils.preload import preload

NAMES = ("cluster.yml", "cluster.yaml")
VARIABLE_DIRECTORIES = ("group_vars", "host_vars")

_REFUSED: set[str] = set()
"""Files that were refused, and explained, by this process."""


class LastWordError(AnsibleParserError):
    """A refusal that ends the run at once, so that it is the last thing on the screen.

    Where a source that no plugin can parse is an error, Ansible still offers a refused file to the other plugins first, and shows what each of them
    has to say of a file that is not for it. Before it notes an error of a plugin and goes on to the next, it asks the error where it comes from: this
    one answers that question with itself, as a plain error, which nobody catches before the command line does. Were it not asked, all would be shown.
    """

    @property
    def obj(self) -> None:
        """End the run."""
        raise AnsibleParserError(self._message, help_text=self._help_text) from None

    @obj.setter
    def obj(self, value: object) -> None:
        """Have no place in a file: the details name them all."""

    @property
    def _formatted_source_context(self) -> None:
        """Whoever prints this error asks for that place, too, and is to get the text."""


class InventoryModule(BaseInventoryPlugin):
    """Inventory from one cluster file."""

    NAME = "sovereign.dify.cluster"

    def verify_file(self, path: str) -> bool:
        """Accept cluster files, also broken and misnamed ones, so that they are refused here, with an explanation, and not passed on."""
        if not path.endswith((".yml", ".yaml")) or not super().verify_file(path):  # type: ignore[no-untyped-call]
            return False
        return path.endswith(NAMES) or _names_this_plugin(Path(path))

    def parse(self, inventory: InventoryData, loader: DataLoader, path: str, cache: bool = True) -> None:
        """Read the file and fill the inventory; nothing is added when the file holds a mistake."""
        super().parse(inventory, loader, path, cache)
        if not HAS_NETADDR:
            raise self._refused(path, "sovereign.dify.cluster needs the Python library netaddr on the controller: pip install netaddr")
        if problem := _misplaced(path) or self._second(inventory, path):
            raise self._refused(path, f"{path}: refused; nothing was loaded", f"  {problem}")
        try:
            contract = load(loader.get_text_file_contents(path), path, self._earlier(inventory))
        except RefusedError as refused:
            raise self._refused(path, refused.report.headline(), refused.report.details()) from None
        self._fill(inventory, contract, loader, path)
        # Here, because this runs in Ansible's own process, whatever started it and whatever its configuration.
        preload()

    def _refused(self, path: str, headline: str, details: str = "") -> AnsibleParserError:
        """Explain once, and last where the run ends with it."""
        # As help text the details are shown once; as part of the message Ansible would print them twice. It joins texts of one line to one line.
        help_text = f"{details}\n" if details else None
        if constants.config.get_config_value("INVENTORY_ANY_UNPARSED_IS_FAILED"):
            return LastWordError(headline, help_text=help_text)
        # Ansible offers a refused file to the plugin `auto` next, which comes back here.
        if path in _REFUSED:
            return AnsibleParserError(f"{path}: refused, for the reasons above")
        _REFUSED.add(path)
        return AnsibleParserError(headline, help_text=help_text)

    def _second(self, inventory: InventoryData, path: str) -> str:
        """Say what is wrong if the inventory holds a platform of another source already; then nothing of either stays in it.

        Merged, one platform's hosts would get the other's CA, secrets and members. Where Ansible's settings let a run go on after a refused source,
        it must not go on with one of two platforms, either.
        """
        present = inventory.groups["all"].vars.get("cluster")
        if not isinstance(present, Mapping):
            return ""
        first = str(present.get("file", "another inventory source"))
        if Path(first).exists() and Path(first).samefile(path):
            return ""
        for host in [host for host in inventory.hosts.values() if "node" in host.vars]:
            inventory.remove_host(host)
        return f"{first} is loaded already, and one run is for one platform. Give only one of them by -i, or move the other out of the directory."

    def _earlier(self, inventory: InventoryData) -> Earlier:
        """Offer the hosts of inventory sources that were loaded before this one."""

        def members(group: str) -> Mapping[str, Mapping[str, Any]]:
            hosts = inventory.groups[group].get_hosts()
            return {host.name: combine_vars(get_group_vars(host.get_groups()), host.vars) for host in hosts}

        return Earlier(tuple(inventory.groups), members)

    def _fill(self, inventory: InventoryData, contract: Contract, loader: DataLoader, path: str) -> None:
        """Set groups and variables. What is the same for many hosts is set once, on their group."""
        for group in contract.groups:
            inventory.add_group(group)
        inventory.set_variable("all", "cluster", _trusted(contract.cluster))
        for name, site in contract.sites.items():
            group = inventory.add_group(site_group(name))
            inventory.set_variable(group, "site", _trusted(site))
        free = _free_variables(contract, loader, path)
        for host in contract.hosts:
            before = inventory.hosts.get(host.name)
            known = before.vars if before else {}
            inventory.add_host(host.name, group=site_group(host.site))
            for group in sorted(host.groups):
                inventory.add_child(group, host.name)
            if "ansible_host" not in known:
                inventory.set_variable(host.name, "ansible_host", _trusted(str(host.address)))
            for key, value in free.get(host.name, {}).items():
                inventory.set_variable(host.name, key, value)
            inventory.set_variable(host.name, "node", _trusted(contract.nodes[host.name]))


def _names_this_plugin(path: Path) -> bool:
    """Tell whether a file says that it is read by this plugin, whatever its name."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return False
    return bool(re.search(rf"^plugin:\s*[\"']?{re.escape(InventoryModule.NAME)}\b", text, re.MULTILINE))


def _misplaced(path: str) -> str:
    """Say what is wrong with the name or the place of a cluster file."""
    file = Path(path)
    if file.name not in NAMES:
        return f"Only {' or '.join(NAMES)} is read. Rename {file.name}, or move it out of the inventory's directory if it is a copy."
    given = [Path(source) for source in context.CLIARGS.get("inventory") or () if "," not in source]
    beside = [name for name in VARIABLE_DIRECTORIES if (file.parent / name).is_dir()]
    # Ansible reads these beside what -i names, not in its subdirectories.
    if beside and given and file not in given and file.parent not in given:
        return f"Ansible would not read {' and '.join(beside)} beside it. Give -i {file.parent}."
    return ""


def _free_variables(contract: Contract, loader: DataLoader, path: str) -> Mapping[str, Mapping[str, object]]:
    """Read the hosts' own variables with Ansible's loader, which knows vault values and marks templates as trusted."""
    if not any(host.vars for host in contract.hosts):
        return {}
    sites = loader.load_from_file(path, cache="none", trusted_as_template=True)["sites"]
    return {host.name: sites[host.site]["hosts"][host.name]["vars"] for host in contract.hosts if host.vars}


def _trusted(value: object) -> object:
    """Let templates in free values, such as a model's extra_args, be rendered: who writes cluster.yml writes playbooks too.

    Ansible's own ``trusted_by_default`` does not do: in a directory of sources the first plugin decides for all (core 2.19 caches it with the data).

    Keys are sorted: ``ansible-inventory --export`` sorts them, and what is made of an inventory that was exported must be the same, to the last byte.
    """
    if isinstance(value, str):
        return trust_as_template(value)
    if isinstance(value, Mapping):
        return {key: _trusted(value[key]) for key in sorted(value, key=str)}
    if isinstance(value, list):
        return [_trusted(item) for item in value]
    return value
