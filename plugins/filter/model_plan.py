# Copyright (c) 2026, The sovereign.dify maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filter: whether a model fits some GPUs, from its configuration alone."""

from __future__ import annotations

DOCUMENTATION = r"""
name: model_plan
short_description: Whether a model fits some GPUs, from its configuration alone
version_added: 0.1.0
author: The sovereign.dify maintainers (@sovereign-dify)
description:
  - Does the sums of the module M(sovereign.dify.model_plan) on the controller, before there is a host or a file of the model, for instance to choose
    what to buy. A tower for images or sound is not counted then, as its size is known from the files alone.
positional: nodes, asked
options:
  _input: {description: 'The content of the model''s C(config.json).', type: dict, required: true}
  nodes:
    description:
      - Hosts, each with its C(name), and C(gpus) and C(nvlink_groups) as M(sovereign.dify.gpu_info) returns them.
      - Of a GPU, C(index), C(memory_mib) and C(compute_capability) are needed; C(name), C(numa_node) and C(mig_instances) are used.
    type: list
    elements: dict
    required: true
  asked:
    description:
      - What is wanted, by the names of the module's options, that is C(max_model_len), C(concurrent_sequences), C(sequence_tokens),
        C(tensor_parallel), C(pipeline_parallel), C(quantization), C(dtype), C(kv_cache_dtype) and C(gpu_memory_utilization), and
        C(max_num_seqs), C(max_num_batched_tokens) and C(enforce_eager) of vLLM.
    type: dict
"""

EXAMPLES = r"""
- name: Would it fit two such GPUs?
  ansible.builtin.debug:
    msg: "{{ (lookup('ansible.builtin.file', 'config.json') | from_json | sovereign.dify.model_plan(nodes, wanted)).reasons }}"
  vars:
    wanted: {max_model_len: 32768, concurrent_sequences: 8}
    nodes:
      - name: gpu1
        gpus:
          - {index: 0, name: NVIDIA L40S, memory_mib: 46068, compute_capability: "8.9", numa_node: 0}
          - {index: 1, name: NVIDIA L40S, memory_mib: 46068, compute_capability: "8.9", numa_node: 0}
"""

RETURN = r"""
_value: {description: 'The plan, as an entry of C(plans) that the module M(sovereign.dify.model_plan) returns, without a name.', type: dict}
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.sovereign.dify.plugins.module_utils.model_plan.errors import PlanError
from ansible_collections.sovereign.dify.plugins.module_utils.model_plan.report import plan


def model_plan(config: Mapping[str, Any], nodes: Sequence[Mapping[str, Any]], asked: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Plan a model.

    Args:
        config: ``config.json``.
        nodes: The hosts.
        asked: What is wanted.

    Raises:
        AnsibleFilterError: nobody can plan with what was given, and why.
    """
    try:
        return plan(config, nodes, asked)
    except PlanError as error:
        raise AnsibleFilterError(f"sovereign.dify.model_plan: {error}") from error


class FilterModule:
    """Registers the filter with Ansible."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Names and functions."""
        return {"model_plan": model_plan}
