#!/usr/bin/python
# Copyright (c) 2026, The sovereign.dify maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Module: whether models fit the GPUs of a host, and how they are best split over them."""

from __future__ import annotations

DOCUMENTATION = r"""
module: model_plan
short_description: Whether models fit a host's GPUs, and how they are best split over them
version_added: 0.1.0
author: The sovereign.dify maintainers (@sovereign-dify)
description:
  - Reads C(config.json) and the headers of the safetensors files of each model where they are, and does the sums that vLLM 0.32 does when it starts,
    that is weights, KV cache, activations and overhead of each GPU, before anything is started.
  - Chooses how many GPUs share each layer (tensor parallel) and how many stages a pipeline has, or checks what is given. Tensor parallel stays where
    NVLink reaches, or the plan says that it does not. A MIG instance is a GPU of its size that shares with nobody. Of GPUs of several sizes the
    smallest decides.
  - Refuses what does not fit, and says what would, with numbers. Changes nothing.
  - Models are planned one after another; what one takes is not there for the next.
extends_documentation_fragment: [ansible.builtin.action_common_attributes]
attributes:
  check_mode: {support: full, description: It changes nothing anyway.}
  diff_mode: {support: none}
  platform: {platforms: posix}
options:
  models:
    description: The models.
    type: list
    elements: dict
    required: true
    suboptions:
      name: {description: Name that it is served under., type: str, required: true}
      source: {description: Directory with its files on the managed host., type: path, required: true}
      max_model_len: {description: Longest context in tokens. The model's own if not given., type: int}
      concurrent_sequences: {description: Sequences that shall be served at the same time; O(concurrent_sequences) if not given., type: int}
      sequence_tokens:
        description: Tokens that each of them has. The longest context if not given, which is more than most sites ever see.
        type: int
      tensor_parallel: {description: GPUs that share each layer. Chosen if not given., type: int}
      pipeline_parallel: {description: Stages of the pipeline. Chosen if not given., type: int}
      nodes:
        description:
          - Hosts that it is spread over. The others are taken to have the same GPUs as this one.
          - A number, or a list of that many of anything.
        type: raw
        default: 1
      gpus:
        description: GPUs that it may use on this host, by index; MIG instances as V(0:1). Any that are left if not given.
        type: list
        elements: str
        default: []
      quantization: {description: 'Method of quantisation, as C(--quantization). Found out if not given.', type: str}
      dtype: {description: 'Type to compute in, as C(--dtype).', type: str, default: auto}
      kv_cache_dtype: {description: 'Type of the KV cache, as C(--kv-cache-dtype).', type: str, default: auto}
      extra_args:
        description:
          - Arguments of C(vllm serve), with dashes or underscores. They win over the options.
          - Of interest are C(max-model-len), C(tensor-parallel-size), C(pipeline-parallel-size), C(dtype), C(quantization), C(kv-cache-dtype),
            C(gpu-memory-utilization), C(kv-cache-memory-bytes), C(block-size), C(max-num-seqs), C(max-num-batched-tokens) and C(enforce-eager).
        type: dict
        default: {}
  gpu_info:
    description:
      - The host's GPUs as M(sovereign.dify.gpu_info) returns them. Of a GPU, C(index), C(memory_mib) and C(compute_capability) are needed;
        C(name), C(numa_node) and C(mig_instances), and C(nvlink_groups) beside C(gpus), are used.
    type: dict
  nodes:
    description: Further hosts, each with its C(name), and C(gpus) and C(nvlink_groups) as in O(gpu_info).
    type: list
    elements: dict
    default: []
  cpu:
    description: The host's main memory, for the CPU build, which needs no GPU. Its processor is looked at, too.
    type: dict
    suboptions:
      memory_mib: {description: Memory in MiB., type: int, required: true}
      kv_cache_mib:
        description:
          - KV cache of each process in MiB; 0 where each model has C(kv-cache-memory-bytes).
          - Without either, vLLM takes O(gpu_memory_utilization) of the memory.
        type: int
        default: 0
  host:
    description: Name of the host, for what is said about it.
    type: str
    default: this host
  concurrent_sequences:
    description: Sequences that each model shall serve at the same time.
    type: int
    default: 1
  gpu_memory_utilization:
    description: Share of a GPU's memory that vLLM takes.
    type: float
    default: 0.92
  missing:
    description: Whether a model whose directory is not there counts as one that does not fit, or is passed over.
    type: str
    choices: [refused, ignored]
    default: refused
  fail:
    description: Whether to fail where a model does not fit.
    type: bool
    default: true
"""

EXAMPLES = r"""
- name: Look at the GPUs
  sovereign.dify.gpu_info:
  register: gpus

- name: Refuse models that do not fit
  sovereign.dify.model_plan:
    host: "{{ inventory_hostname }}"
    gpu_info: "{{ gpus }}"
    concurrent_sequences: 8
    models:
      - name: assistant
        source: /srv/models/llama-3.3-70b-awq
        max_model_len: 32768
        tensor_parallel: 2
"""

RETURN = r"""
plans:
  description: The plan of each model.
  returned: always
  type: list
  elements: dict
  contains:
    name: {description: Name of the model., type: str}
    fits: {description: Whether vLLM would start and serve what is wanted., type: bool}
    reasons: {description: 'Why, and what else is worth knowing; the verdict with its numbers among them.', type: list, elements: str}
    alternatives:
      description: What would fit, each by itself; C(what) to change, C(value) to change it to, and C(text).
      type: list
      elements: dict
    architecture: {description: Class of the model., type: str}
    parameters: {description: Parameters that vLLM loads., type: int}
    quantization: {description: Quantisation of its weights; empty without., type: str}
    dtype: {description: Type that is computed in., type: str}
    max_model_len: {description: Longest context in tokens., type: int}
    concurrent_sequences: {description: Sequences that are wanted at the same time., type: int}
    weights_mib: {description: Weights of the whole model in MiB., type: int}
    kv_bytes_per_token: {description: 'KV cache of a token in bytes, of the whole model, in layers that keep all tokens.', type: int}
    tensor_parallel: {description: GPUs that share each layer., type: int}
    pipeline_parallel: {description: Stages of the pipeline., type: int}
    gpus: {description: 'GPUs to use, with C(host), C(gpu) and C(stage).', type: list, elements: dict}
    per_gpu:
      description:
        - What the GPU with least room holds, in MiB. C(weights_mib), C(activations_mib), C(overhead_mib) and C(kv_cache_mib) make up C(total_mib), of
          C(available_mib) that vLLM may take of C(memory_mib). C(kv_needed_mib) is what the wanted sequences need.
      type: dict
    kv_tokens: {description: Tokens that the KV cache has room for., type: int}
    max_concurrency: {description: Sequences of the longest context that have room., type: float}
table:
  description:
    - The plans as rows; sizes in GiB, of the GPU with least room. C(needed) is the KV cache that the wanted sequences need, C(of) what vLLM may take.
  returned: always
  type: list
  elements: dict
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.sovereign.dify.plugins.module_utils.model_plan import checkpoint, processor
from ansible_collections.sovereign.dify.plugins.module_utils.model_plan.errors import PlanError
from ansible_collections.sovereign.dify.plugins.module_utils.model_plan.report import arguments, deal, plan, row, summary

MODEL = {
    "name": {"type": "str", "required": True},
    "source": {"type": "path", "required": True},
    "max_model_len": {"type": "int"},
    "concurrent_sequences": {"type": "int"},
    "sequence_tokens": {"type": "int", "no_log": False},
    "tensor_parallel": {"type": "int"},
    "pipeline_parallel": {"type": "int"},
    "nodes": {"type": "raw", "default": 1},
    "gpus": {"type": "list", "elements": "str", "default": []},
    "quantization": {"type": "str"},
    "dtype": {"type": "str", "default": "auto"},
    "kv_cache_dtype": {"type": "str", "default": "auto"},
    "extra_args": {"type": "dict", "default": {}},
}


def main() -> None:
    """Read the parameters, plan, report."""
    module = AnsibleModule(
        argument_spec={
            "models": {"type": "list", "elements": "dict", "required": True, "options": MODEL},
            "gpu_info": {"type": "dict"},
            "nodes": {"type": "list", "elements": "dict", "default": []},
            "cpu": {"type": "dict", "options": {"memory_mib": {"type": "int", "required": True}, "kv_cache_mib": {"type": "int", "default": 0}}},
            "host": {"type": "str", "default": "this host"},
            "concurrent_sequences": {"type": "int", "default": 1},
            "gpu_memory_utilization": {"type": "float", "default": 0.92},
            "missing": {"type": "str", "choices": ["refused", "ignored"], "default": "refused"},
            "fail": {"type": "bool", "default": True},
        },
        required_one_of=[("gpu_info", "nodes", "cpu")],
        supports_check_mode=True,
    )
    plans: list[dict[str, Any]] = []
    for model in module.params["models"]:
        if module.params["missing"] == "ignored" and not Path(model["source"]).is_dir():
            continue
        plans.append({"name": model["name"], **_plan(model, module.params, plans)})
    table = [row(module.params["host"], one) for one in plans]
    refused = [one for one in plans if not one["fits"]]
    if refused and module.params["fail"]:
        module.fail_json(msg=" ".join(summary(one) for one in refused), plans=plans, table=table)
    module.exit_json(changed=False, plans=plans, table=table)


def _plan(model: Mapping[str, Any], params: Mapping[str, Any], earlier: list[dict[str, Any]]) -> dict[str, Any]:
    """Plan one model; what cannot be planned with does not fit either."""
    asked = {**params, **{key: value for key, value in model.items() if value is not None}, **arguments(model["extra_args"])}
    try:
        directory = Path(model["source"])
        config, tensors = checkpoint.configuration(directory), checkpoint.tensors(directory)
        if params["cpu"]:
            if reasons := processor.lacks(config, asked, processor.flags()):
                raise PlanError("; ".join(reasons))
            taken = sum(one["per_gpu"]["total_mib"] * one["tensor_parallel"] for one in earlier if one["per_gpu"])
            memory = max(1, params["cpu"]["memory_mib"] - taken)
            return plan(config, [], {**asked, "cpu": {**params["cpu"], "memory_mib": memory}}, tensors)
        return plan(config, deal(model, params, earlier), asked, tensors)
    except PlanError as error:
        return {"fits": False, "reasons": [str(error)], "alternatives": [], "gpus": [], "per_gpu": None}


if __name__ == "__main__":
    main()
