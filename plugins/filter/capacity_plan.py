# Copyright (c) 2026, The sovereign.dify maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filter: how much Dify carries on given hosts, and with which settings."""

from __future__ import annotations

DOCUMENTATION = r"""
name: capacity_plan
short_description: How much Dify carries on given hosts, with which settings
version_added: 0.1.0
author: The sovereign.dify maintainers (@sovereign-dify)
description:
  - Plans Dify's processes, connections and pools for what is wanted, or what hosts and PostgreSQL allow of it, and says what to add.
  - With O(declared) it checks those settings instead, and fails if they may ask for more than PostgreSQL admits, take more requests than their
    pools or Dify's own limits can serve, or need more memory than a host has; with the sums, and what would be right.
  - Changes nothing, in check mode or outside it.
positional: wanted, declared
options:
  _input:
    description: The hosts. One that runs both kinds shares its cores and memory between them.
    type: list
    elements: dict
    required: true
    suboptions:
      name: {description: Its name., type: str, required: true}
      cores: {description: Its cores., type: float, required: true}
      memory_mb: {description: Its memory in MB., type: int, required: true}
      runs: {description: What it runs., type: list, elements: str, choices: [api, worker], required: true}
      reserved_cores: {description: Cores for anything else on it., type: float, default: 0.0}
      reserved_mb: {description: Memory in MB for anything else on it., type: int, default: 1024}
  wanted:
    description: What Dify shall carry, and what the site gives it.
    type: dict
    required: true
    suboptions:
      streams: {description: Chat answers that are written at the same time., type: int, required: true}
      answer_seconds: {description: Seconds from the first to the last chunk of an answer., type: float, required: true}
      answer_chunks: {description: Chunks of an answer; about its tokens., type: int, required: true}
      naming: {description: 'Whether new conversations are given a name, by a second call of a model.', type: bool, default: true}
      workflows_per_second: {description: Streaming workflows that begin in a second., type: float, default: 0.0}
      workflow_seconds: {description: Seconds that one takes., type: float, default: 0.0}
      max_connections: {description: What PostgreSQL admits; without it the plan says what it needs. Not used with O(declared)., type: int}
      administration: {description: Connections to PostgreSQL for anybody but Dify., type: int, default: 10}
      plugin_daemon_connections: {description: Those of the plugin daemon., type: int, default: 30}
      knowledge_bases:
        description:
          - Knowledge bases that an answer or a workflow searches at a time, with their vectors in the same PostgreSQL.
          - 0 where there are none, or vectors are kept elsewhere.
        type: int
        default: 1
      websocket: {description: Whether each api host has an api_websocket process., type: bool, default: true}
  declared:
    description:
      - Settings to check, in the form of RV(_value.settings). Without C(workers), C(api_websocket) or C(beat) there are none of these.
      - A Celery process under C(gevent) is counted with a pool of at least 5 and an overflow of at least 10, which it may take whatever is set.
    type: dict
"""

EXAMPLES = r"""
- name: Plan Dify for 100 answers at the same time
  ansible.builtin.set_fact:
    plan: "{{ hosts | sovereign.dify.capacity_plan(wanted) }}"
  vars:
    hosts:
      - {name: app1, cores: 8, memory_mb: 16384, runs: [api, worker]}
      - {name: app2, cores: 8, memory_mb: 16384, runs: [api, worker]}
    wanted: {streams: 100, answer_seconds: 10, answer_chunks: 300, workflows_per_second: 2, workflow_seconds: 5, max_connections: 600}

- name: Show it
  ansible.builtin.debug:
    msg: "{{ plan.table | sovereign.dify.text_table(['what', 'value', 'why']) }}"

- name: Refuse settings of one's own that are not safe
  ansible.builtin.debug:
    msg: "{{ (hosts | sovereign.dify.capacity_plan(wanted, declared)).table | sovereign.dify.text_table(['what', 'value', 'why']) }}"
  vars:
    declared:
      api: {processes: {app1: 2, app2: 2}, connections: 30, pool_size: 60, max_overflow: 30}
      workers: {workflow: {processes: {app1: 1, app2: 1}, concurrency: 10, pool_size: 5, max_overflow: 10}}
      max_connections: 600
"""

RETURN = r"""
_value:
  description: The plan.
  type: dict
  contains:
    settings:
      description:
        - What was planned or declared. C(api) has C(processes) by host, C(connections) (E(SERVER_WORKER_CONNECTIONS)), C(spare_connections) of them
          that the host's proxy leaves free, and C(pool_size) and C(max_overflow) of each process.
        - C(api_websocket) and each of C(workers) (by name, with C(queues), C(celery_pool) and C(concurrency)) have the same of theirs.
        - C(beat) has its pool. C(plugin_daemon_connections), C(administration), C(pooler_size) and C(max_connections) are of the site.
      type: dict
    supports: {description: 'C(streams), C(requests_per_second) of chats and C(workflows_per_second).', type: dict}
    enough: {description: Whether that is what is wanted., type: bool}
    limits: {description: 'Streams that each limit by itself would allow with these settings, the lowest first.', type: dict}
    first_limit: {description: 'Limit that comes first: of declared settings, or of any plan on these hosts.', type: str}
    ceiling: {description: Streams at which it comes., type: int}
    steps:
      description: What to add or change to reach what is wanted, all of it together; each with C(text), C(path) and C(value).
      type: list
      elements: dict
    connections: {description: 'What PostgreSQL may be asked for: its C(terms), and their C(sum) written out.', type: dict}
    pooler: {description: 'C(size) of a transaction pooler, C(needed_if_there_was_one), and the C(reason).', type: dict}
    hosts: {description: 'Of each host its processes, its streams, and the memory it needs and has.', type: list, elements: dict}
    postgresql_cores: {description: Cores that PostgreSQL needs for the chats., type: float}
    table: {description: 'The plan as rows with C(what), C(value) and C(why).', type: list, elements: dict}
"""

from collections.abc import Callable
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.sovereign.dify.plugins.module_utils.dify_capacity.reading import CapacityError, one_of
from ansible_collections.sovereign.dify.plugins.module_utils.dify_capacity.report import report
from ansible_collections.sovereign.dify.plugins.module_utils.dify_capacity.settings import Settings, Wanted, hosts_of


def capacity_plan(hosts: object, wanted: object, declared: object = None) -> dict[str, Any]:
    """Plan Dify on hosts, or check declared settings.

    Args:
        hosts: The hosts, as dictionaries.
        wanted: What is wanted, as a dictionary.
        declared: Settings to check, as a dictionary; None to plan some.

    Raises:
        AnsibleFilterError: with every reason why that cannot be, a line each: where it lies, what is wrong, what would be right.
    """
    try:
        settings = None if declared is None else one_of(Settings, declared, "declared")
        return report(hosts_of(hosts), one_of(Wanted, wanted, "wanted"), settings)
    except CapacityError as error:
        raise AnsibleFilterError(f"sovereign.dify.capacity_plan:\n{error}") from error


class FilterModule:
    """Registers the filter with Ansible."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Names and functions."""
        return {"capacity_plan": capacity_plan}
