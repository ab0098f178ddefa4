# Copyright (c) 2026, The sovereign.dify maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The door: a configuration, a wish and GPUs in, a plan that says why out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from ansible_collections.sovereign.dify.plugins.module_utils.model_plan import architecture, cache, main_memory, reasons
from ansible_collections.sovereign.dify.plugins.module_utils.model_plan.advice import Advice, advise
from ansible_collections.sovereign.dify.plugins.module_utils.model_plan.architecture import Architecture
from ansible_collections.sovereign.dify.plugins.module_utils.model_plan.errors import PlanError
from ansible_collections.sovereign.dify.plugins.module_utils.model_plan.figures import UTILIZATION
from ansible_collections.sovereign.dify.plugins.module_utils.model_plan.hardware import read_host
from ansible_collections.sovereign.dify.plugins.module_utils.model_plan.planner import (
    MIB,
    Outcome,
    Planner,
    Wish,
)
from ansible_collections.sovereign.dify.plugins.module_utils.model_plan.tensors import Tensor


def plan(
    config: Mapping[str, Any],
    nodes: Sequence[Mapping[str, Any]],
    asked: Mapping[str, Any] | None = None,
    tensors: Sequence[Tensor] | None = None,
) -> dict[str, Any]:
    """Plan a model.

    Args:
        config: ``config.json``.
        nodes: Hosts as ``gpu_info`` returns them: ``name``, ``gpus``, ``nvlink_groups``; ``use`` names the GPUs to use.
        asked: Options of the module ``model_plan``; what is missing has its default.
        tensors: What the model's files hold; None to go by the configuration alone.

    Returns:
        The plan, as the module returns it. PlanError where nobody can plan with what was given.
    """
    asked = asked or {}
    shape = architecture.read(config, str(asked.get("quantization") or ""))
    planner = Planner(shape, wish_of(asked), tensors)
    if asked.get("cpu"):
        said, advice, differing = main_memory.plan(planner, asked["cpu"])
        return _answer(planner, None, said, advice) | differing
    hosts = [read_host(node, node.get("use") or ()) for node in nodes]
    if not any(host.gpus for host in hosts):
        notes = [note for host in hosts for note in host.notes]
        raise PlanError("; ".join(notes) or f"no GPU is given for {', '.join(host.name for host in hosts) or 'any host'}")
    best = planner.best(hosts)
    said = reasons.reasons(planner, hosts, best)
    advice = [] if best and best.fits else advise(planner, hosts, best)
    return _answer(planner, best, said, advice)


ARGUMENTS = {
    "max-model-len": "max_model_len",
    "tensor-parallel-size": "tensor_parallel",
    "pipeline-parallel-size": "pipeline_parallel",
    "dtype": "dtype",
    "quantization": "quantization",
    "kv-cache-dtype": "kv_cache_dtype",
    "kv-cache-memory-bytes": "kv_cache_memory_bytes",
    "block-size": "block_size",
    "gpu-memory-utilization": "gpu_memory_utilization",
    "max-num-seqs": "max_num_seqs",
    "max-num-batched-tokens": "max_num_batched_tokens",
    "enforce-eager": "enforce_eager",
}
"""Arguments of ``vllm serve`` that a plan depends on, and the options that they are."""


def arguments(given: Mapping[str, Any]) -> dict[str, Any]:
    """Turn arguments of ``vllm serve``, with dashes or underscores, into options; those that a plan does not depend on are left out."""
    named = {key.replace("_", "-"): value for key, value in given.items()}
    return {option: named[argument] for argument, option in ARGUMENTS.items() if named.get(argument) is not None}


def deal(model: Mapping[str, Any], params: Mapping[str, Any], earlier: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Give the hosts that a model may use, without the GPUs that models before it have taken.

    Args:
        model: The model: ``gpus`` that it shall use, ``nodes`` that it is spread over.
        params: ``gpu_info`` and name of this ``host``; further ``nodes``.
        earlier: Plans of the models before it.

    Returns:
        Hosts, as ``plan`` takes them. PlanError where a GPU that it shall use is taken.
    """
    taken = {(gpu["host"], gpu["gpu"]): other.get("name", "another model") for other in earlier for gpu in other.get("gpus") or ()}
    own = str(params.get("host") or "this host")
    if claims := [f"GPU {label} of {own} ({taken[own, label]})" for label in map(str, model.get("gpus") or ()) if (own, label) in taken]:
        raise PlanError(f"another model has {', '.join(claims)} already: give each model GPUs of its own")
    found = params.get("gpu_info") or {}
    if found.get("reason") and not found.get("gpus"):
        raise PlanError(f"{own} has no GPU that can be used: {found['reason']}")
    hosts = [{**params["gpu_info"], "name": own, "use": list(model.get("gpus") or ())}] if params.get("gpu_info") else []
    spread = model.get("nodes") or 1
    count = len(spread) if isinstance(spread, (list, tuple)) else int(spread)
    hosts += [{**hosts[0], "name": f"{own}, node {number}"} for number in range(2, count + 1)] if hosts else []
    hosts += [dict(node) for node in params.get("nodes") or ()]
    for host in hosts:
        if not host.get("use"):
            labels = [gpu.label for gpu in read_host(host).gpus]
            host["use"] = [label for label in labels if (host["name"], label) not in taken]
            if labels and not host["use"]:
                host["gpus"] = []
    return hosts


def row(host: str, one: Mapping[str, Any]) -> dict[str, Any]:
    """Lay a plan out as a row of a table, sizes in GiB."""
    share, tensor, pipeline = one.get("per_gpu") or {}, one.get("tensor_parallel"), one.get("pipeline_parallel")

    def gib(name: str) -> str:
        return f"{share[name] / 1024:.1f}" if share else ""

    return {
        "host": host,
        "model": one["name"],
        "parameters": f"{one['parameters'] / 1e9:.3g} B" if one.get("parameters") else "",
        "split": f"TP {tensor} x PP {pipeline}" if tensor else "",
        "gpus": ", ".join(gpu["gpu"] if gpu["host"] == host else f"{gpu['host']}/{gpu['gpu']}" for gpu in one["gpus"]),
        "weights": gib("weights_mib"),
        "activations": gib("activations_mib"),
        "overhead": gib("overhead_mib"),
        "cache": gib("kv_cache_mib"),
        "needed": gib("kv_needed_mib"),
        "of": gib("available_mib"),
        "tokens": one.get("kv_tokens"),
        "fits": one["fits"],
    }


def summary(one: Mapping[str, Any]) -> str:
    """Say why a model does not fit, and what would, in one line."""
    would = "; ".join(alternative["text"] for alternative in one.get("alternatives") or ())
    return f"Model {one['name']}: {'; '.join(one['reasons'])}.{f' What would fit: {would}.' if would else ''}"


def wish_of(asked: Mapping[str, Any]) -> Wish:
    """Read the module's options."""
    return Wish(
        max_model_len=int(asked.get("max_model_len") or 0),
        sequences=int(asked.get("concurrent_sequences") or 1),
        sequence_tokens=int(asked.get("sequence_tokens") or 0),
        dtype=str(asked.get("dtype") or "auto"),
        kv_cache_dtype=str(asked.get("kv_cache_dtype") or "auto"),
        tensor_parallel=int(asked.get("tensor_parallel") or 0),
        pipeline_parallel=int(asked.get("pipeline_parallel") or 0),
        utilization=float(asked.get("gpu_memory_utilization") or UTILIZATION),
        batched_tokens=int(asked.get("max_num_batched_tokens") or 0),
        batched_sequences=int(asked.get("max_num_seqs") or 0),
        eager=bool(asked.get("enforce_eager")),
        cache_bytes=int(asked.get("kv_cache_memory_bytes") or 0),
        block_tokens=int(asked.get("block_size") or 0),
    )


def _answer(planner: Planner, best: Outcome | None, said: list[str], advice: list[Advice]) -> dict[str, Any]:
    """Put a plan together."""
    shape, wish = planner.shape, planner.wish
    dtype = best.dtype if best else shape.served_as("auto", None)
    answer: dict[str, Any] = {
        "fits": bool(best and best.fits),
        "reasons": said,
        "alternatives": [asdict(one) for one in advice],
        "architecture": shape.name,
        "parameters": planner.weights(dtype).parameters,
        "quantization": shape.quantization.title() if shape.quantization else "",
        "dtype": dtype,
        "max_model_len": wish.max_model_len,
        "concurrent_sequences": wish.sequences,
        "weights_mib": round(planner.weights(dtype).size / MIB),
        "kv_bytes_per_token": _token_bytes(shape, wish, dtype),
        "tensor_parallel": None,
        "pipeline_parallel": None,
        "gpus": [],
        "per_gpu": None,
        "kv_tokens": 0,
        "max_concurrency": 0.0,
    }
    if best:
        share, kept = best.tightest, best.cache
        concurrency = best.blocks / kept.blocks_of(wish.max_model_len)
        answer |= {
            "tensor_parallel": best.layout.tensor_parallel,
            "pipeline_parallel": best.layout.pipeline_parallel,
            "gpus": [{"host": gpu.host, "gpu": gpu.label, "stage": number} for number, stage in enumerate(best.layout.stages) for gpu in stage],
            "per_gpu": {
                "gpu": f"{share.gpu.host}/{share.gpu.label}",
                "weights_mib": round(share.weights / MIB),
                "kv_cache_mib": round(best.blocks * share.block / MIB),
                "activations_mib": round(share.activations / MIB),
                "overhead_mib": round(share.overhead / MIB),
                "total_mib": round((share.budget - share.room + best.blocks * share.block) / MIB),
                "available_mib": round(share.budget / MIB),
                "memory_mib": share.gpu.memory_mib,
                "kv_needed_mib": round(best.needed * share.block / MIB),
            },
            "kv_tokens": int(concurrency * wish.max_model_len),
            "max_concurrency": round(concurrency, 2),
        }
    return answer


def _token_bytes(shape: Architecture, wish: Wish, dtype: str) -> int:
    """Give the bytes of a token in the KV cache of the whole model, in layers that keep all tokens, or in all where none does."""
    whole = sum(1 for window in shape.windows if not window or shape.chunk) or shape.layers
    return whole * cache.layer_bytes(shape, 1, cache.value_bytes(wish.kv_cache_dtype, dtype))
