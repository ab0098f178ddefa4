# SPDX-License-Identifier: GPL-3.0-or-later
"""The reference of cluster files, written from the declarations in ``spec``: a page, a JSON Schema, and the options of the inventory plugin."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

try:
    import yaml
except ImportError:  # comes with ansible-core; only a bare Python that merely imports this module lacks it
    yaml = None  # type: ignore[assignment]

from ansible_collections.sovereign.dify.plugins.module_utils.cluster.engine_arguments import EFFECTS, REFUSED
from ansible_collections.sovereign.dify.plugins.module_utils.cluster.groups import GROUPS
from ansible_collections.sovereign.dify.plugins.module_utils.cluster.kinds import Free, Kind, ListOf, MapOf
from ansible_collections.sovereign.dify.plugins.module_utils.cluster.load import load
from ansible_collections.sovereign.dify.plugins.module_utils.cluster.report import RefusedError, listing
from ansible_collections.sovereign.dify.plugins.module_utils.cluster.sections import Key, Section, keys
from ansible_collections.sovereign.dify.plugins.module_utils.cluster.spec import CLUSTER

_INTRO = """\
# The cluster file

<!-- Generated from plugins/module_utils/cluster/spec.py by docs/generate.py; change it there. -->

One file, `inventories/<name>/cluster.yml`, says everything that is particular to a platform: its sites, hosts, models and clients. The inventory
plugin `sovereign.dify.cluster` turns it into Ansible groups and into the [contract](design.md#the-contract) that roles read. What can be derived
from it is derived: nobody writes down a peer, a route or a port twice.

```yaml
{example}```

An editor that knows [cluster.schema.json](cluster.schema.json) completes keys while you type; with the YAML language server, start the file with
`# yaml-language-server: $schema=<path>/docs/cluster.schema.json`. The schema knows the form of each value, the plugin also whether they fit together.

## Mistakes

A file with mistakes is refused as a whole, and all of them are listed, each with its line, what is wrong, and what would be right:

```text
{mistakes}
```

## Keys

"""

EXAMPLE = """\
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

_ARGUMENTS = """\
## Arguments of vllm serve

A model's `extra_args`, and `vllm_extra_args` for all models of a host, take these arguments of `vllm serve`, with dashes or underscores and without
the leading dashes (a switch is turned off by `false`, or by `no-` before its name). Everything else is refused: vLLM has arguments that load code,
read files, open ports or serve further models, and gets new ones with each release. Parts of an argument are given as a mapping, never by dots.

| changes | arguments |
| --- | --- |
"""

_DERIVED = """\
## What is derived

| what | how |
| --- | --- |
| groups | one for each role, empty or not; `site_<name>` for each site, `-` written as `_` |
| full name of a host | `<host>.<domain>` |
| port of a model | `port`, or else 8100 + crc32(name) % 800, past the ports of the model gateway (8405, 8443, 8444) |
| GPUs of a model on a host | the next `tensor_parallel` ones in file order, where the host gives `gpus` |
| VPN peers | gateways of a hub with all gateways of all other sites; spokes never meet, and gateways of one site do not peer |
| callers of a model | sites of enough clearance (or of `callable_from`) that host it, or whose gateways share the VPN with those that do |
| way to a model | the site's own instances, or else the gateways of the peered sites that host it |

## One run, one platform

Only `cluster.yml` or `cluster.yaml` is read. A run that finds a second cluster file is refused, and loads neither of the two: another `-i`, a copy
beside the first under another name (`old-cluster.yml`), or a file in a subdirectory. Merged, one platform's hosts would get the other's CA, secrets
and members. Give the directory of the platform itself by `-i`: from the directory above, Ansible would find the file, but not the `group_vars` and
`host_vars` beside it, so that this is refused, too.

## The state directory

`state_dir` holds what the platform's secrets come from: the authority (`pki/`), passwords and keys (`secrets/`), public keys of the VPN, and its
identity (`id`, no secret). The first run makes it. It belongs to the platform, not to a checkout, and every run needs it: keep it in a place that all
who run playbooks share, let `state_dir` name that place, and back it up. A job of AWX starts from a fresh checkout, so `state_dir` has to be a
directory that is mounted into the job. The file system need not know hard links.

Each host carries the identity of the directory that it was configured from, as a local fact (`/etc/ansible/facts.d/sovereign.fact`). A run whose
directory is another one, or a new one beside hosts that carry an identity, stops before it changes anything, with any tags, limit or layer, and names
the hosts. A new directory is not begun either while a limit leaves out hosts that may carry one. Playbooks of your own get the same by importing
`sovereign.dify.state` first; without it, the look-up of a secret refuses a host that carries another identity.

| what has happened | what to do |
| --- | --- |
| the directory is missing or another one | restore it from its backup, or correct `state_dir`; run again |
| a new platform, and the first run has a limit | `-e cluster_adopt_state=true`, once |
| a host moves here from another platform | `-e cluster_adopt_state=true`, limited to that host |
| hosts were configured from a wrong directory | run `site.yml` with the right one and `-e cluster_adopt_state=true` |

Where it has to, such a run restarts members of Redis that know none of the right passwords.

## Hosts from other inventory sources

`hosts_from` takes hosts over that a source loaded earlier has declared: files of one directory are loaded in the order of their names
(`10-machines.ini` comes before `cluster.yml`), several `-i` in the order given. The hosts keep their variables. A variable is read as it stands,
before `group_vars` and `host_vars` and without templating; a host that lacks it is a mistake, and so is a group without hosts.

## Variables

`vars` of a host may hold templates, `!vault` and `!unsafe` values. All that the plugin sets has the lowest precedence of an inventory, so files in
`group_vars` and `host_vars` beside the cluster file override it. Only `vars` and `node` are set on the host itself.
"""


def _nested(kind: Kind, path: str) -> Iterator[tuple[str, Section]]:
    """Find the sections in a kind, each with its path in the file."""
    if isinstance(kind, Section):
        yield path, kind
        for name, declared in keys(kind.cls).items():
            yield from _nested(declared.kind, f"{path}.{name}".lstrip("."))
    elif isinstance(kind, MapOf):
        yield from _nested(kind.value, f"{path}.<{kind.name.what.removesuffix(' name')}>")
    elif isinstance(kind, ListOf):
        yield from _nested(kind.item, f"{path}[]")


def _default(declared: Key) -> str:
    """Write the default of a key, in words where it is computed."""
    if declared.required:
        return "**required**"
    if declared.shown:
        return declared.shown
    if declared.initial is None:
        return "–"
    initial = list(declared.initial) if isinstance(declared.initial, tuple) else declared.initial
    return f"`{json.dumps(initial).replace(chr(34), '')}`" if initial != "" else "–"


def _anchor(title: str) -> str:
    """Anchor that GitHub gives a heading."""
    return "#" + re.sub(r"[^a-z0-9_ -]", "", title.lower()).replace(" ", "-")


def _mistakes() -> str:
    """Load the example with mistakes in it, and show what comes back."""
    broken = EXAMPLE.replace("groups: [vllm]", "groups: [vlm]").replace("assistant: {classification: public", "assistant: {classification: publik")
    try:
        load(broken.replace("tier: vip", "tier: gold").replace("198.19.0.21", "198.20.0.21"), "inventories/lab/cluster.yml")
    except RefusedError as refused:
        return str(refused)
    raise AssertionError("the broken example loads")


def page() -> str:
    """Write docs/cluster.md."""
    parts = [_INTRO.format(example=EXAMPLE, mistakes=_mistakes())]
    sections = list(_nested(CLUSTER, ""))
    for path, section in sections:
        title = f"`{path}`" if path else "The top"
        parts.append(f"### {title}\n\n{(section.cls.__doc__ or '').strip()}\n\n| key | value | default | meaning |\n| --- | --- | --- | --- |\n")
        for name, declared in keys(section.cls).items():
            inner = next((inner for inner, dummy in _nested(declared.kind, f"{path}.{name}".lstrip("."))), None)
            value = declared.kind.describe() + (f" ([keys]({_anchor(inner)}))" if inner else "")
            parts.append(f"| `{name}` | {value} | {_default(declared)} | {declared.meaning} |\n")
        for where, removed in _removed(section):
            parts.append(f"\nNot {where}:\n\n| name | instead | why |\n| --- | --- | --- |\n")
            parts.extend(f"| `{name}` | {f'`{use}`' if use else '–'} | {why} |\n" for name, (use, why) in removed.items())
        parts.append("\n")
    parts.append(_arguments())
    parts.append("## Groups\n\nGroup name = role name = feature switch.\n\n| group | layer | a member needs | its site needs | members |\n")
    parts.append("| --- | --- | --- | --- | --- |\n")
    for name, group in GROUPS.items():
        own = [f"`{word}`" for word in group.host_keys] + ([f"the group `{group.within}`"] if group.within else [])
        needs = [listing(words) if words else "–" for words in (own, [f"`{word}`" for word in group.needs])]
        parts.append(f"| `{name}` | {group.layer} | {' | '.join(needs)} | {'an odd number' if group.quorum else 'any number'} |\n")
    return "".join([*parts, "\n", _DERIVED])


def _arguments() -> str:
    """List the arguments of vLLM that may be given, and those that people try."""
    lines = [_ARGUMENTS]
    for effect, group in EFFECTS.items():
        shown = []
        for name, allowed in sorted(group.items()):
            limits = [f"only {listing([f'`{value}`' for value in allowed.values])}"] if allowed.values else []
            limits += [f"a mapping of {', '.join(f'`{key}`' for key in allowed.keys)}"] if allowed.keys else []
            shown.append(f"`{name}`{f' ({limits[0]})' if limits else ''}")
        lines.append(f"| {effect} | {', '.join(shown)} |\n")
    lines.append("\nSome of those refused:\n\n| argument | instead | why |\n| --- | --- | --- |\n")
    reasons: dict[tuple[str | None, str], list[str]] = {}
    for name, reason in REFUSED.items():
        reasons.setdefault(reason, []).append(f"`{name}`")
    lines += [f"| {', '.join(names)} | {f'`{use}`' if use else '–'} | {why} |\n" for (use, why), names in reasons.items()]
    return "".join([*lines, "\n"])


def _removed(section: Section) -> Iterator[tuple[str, Any]]:
    """List the tables of refused names of a section: its own and those of its free mappings."""
    if section.removed:
        yield "keys here", section.removed
    for name, declared in keys(section.cls).items():
        if isinstance(declared.kind, Free) and declared.kind.removed:
            yield f"in `{name}`", declared.kind.removed


def schema() -> str:
    """Write docs/cluster.schema.json."""
    document = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$comment": "Generated from plugins/module_utils/cluster/spec.py by docs/generate.py; change it there.",
        "title": "Cluster file of the collection sovereign.dify",
        **CLUSTER.schema(),
    }
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


_TYPES = {"string": "str", "integer": "int", "array": "list", "object": "dict"}


def _option(declared: Key) -> dict[str, Any]:
    """Describe a key as an option of an Ansible plugin."""
    form = declared.kind.schema()
    option: dict[str, Any] = {"description": [_markup(declared.meaning)], "type": _TYPES.get(form.get("type", "string"), "str")}
    if "enum" in form:
        option["choices"] = form["enum"]
    if option["type"] == "list":
        option["elements"] = _TYPES.get(form["items"].get("type", "string"), "str")
    if declared.required:
        option["required"] = True
    elif declared.shown:
        option["description"].append(_markup(f"Default: {declared.shown}."))
    elif declared.initial not in (None, ""):
        option["default"] = list(declared.initial) if isinstance(declared.initial, tuple) else declared.initial
    inner = next((section for dummy, section in _nested(declared.kind, "")), None)
    if inner:
        if isinstance(declared.kind, MapOf):
            option["description"].append(f"A mapping from {declared.kind.name.what}s to these keys.")
        option["suboptions"] = {name: _option(child) for name, child in keys(inner.cls).items()}
    return option


def _markup(text: str) -> str:
    """Turn Markdown's code marks into those of Ansible's documentation."""
    return re.sub(r"`([^`]*)`", r"C(\1)", text)


def fragment() -> str:
    """Write plugins/doc_fragments/cluster.py."""
    options = {name: _option(declared) for name, declared in keys(CLUSTER.cls).items()}
    text = yaml.safe_dump({"options": options}, sort_keys=False, width=140, allow_unicode=True)
    return f'''# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Generated from plugins/module_utils/cluster/spec.py by docs/generate.py; change it there.
"""Options of the inventory plugin."""

from __future__ import annotations


class ModuleDocFragment:
    """Keys of a cluster file."""

    DOCUMENTATION = r"""
{text}"""
'''


FILES = {"docs/cluster.md": page, "docs/cluster.schema.json": schema, "plugins/doc_fragments/cluster.py": fragment}
"""What is generated, by path in the repository."""
