# Copyright (c) 2026, The sovereign.dify maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Models in main memory: vLLM's CPU build, whose processes have a KV cache of a given size each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.sovereign.dify.plugins.module_utils.model_plan import activations, cache
from ansible_collections.sovereign.dify.plugins.module_utils.model_plan.advice import Advice
from ansible_collections.sovereign.dify.plugins.module_utils.model_plan.architecture import BYTES
from ansible_collections.sovereign.dify.plugins.module_utils.model_plan.errors import PlanError
from ansible_collections.sovereign.dify.plugins.module_utils.model_plan.figures import CPU_BLOCK_TOKENS, CPU_PROCESS_MIB
from ansible_collections.sovereign.dify.plugins.module_utils.model_plan.layouts import faults
from ansible_collections.sovereign.dify.plugins.module_utils.model_plan.planner import GIB, MIB, Planner, possible


def plan(planner: Planner, cpu: Mapping[str, Any]) -> tuple[list[str], list[Advice], dict[str, Any]]:
    """Plan a model in main memory.

    Args:
        planner: The model and the wish.
        cpu: ``memory_mib`` of the host (0 if it is not to be looked at), ``kv_cache_mib`` of each process.

    Returns:
        Why it is so, what would fit, and what differs from a plan without GPUs.
    """
    shape, wish = planner.shape, planner.wish
    tensor = wish.tensor_parallel or 1
    if found := faults(shape, tensor):
        return [*found, f"tensor parallel can be {', '.join(map(str, possible(shape, max(8, tensor))))}"], [], {}
    dtype = shape.served_as(wish.dtype, None)
    weights = planner.weights(dtype).on_gpu(0, shape.layers, tensor)
    block_tokens = wish.block_tokens or CPU_BLOCK_TOKENS
    batch = activations.Batch(wish.batched_tokens or 2048 * tensor, wish.batched_sequences or 128 * tensor)
    kept = cache.plan(
        shape, range(shape.layers), tensor_parallel=tensor, bytes_per_value=cache.value_bytes(wish.kv_cache_dtype, dtype),
        block_tokens=block_tokens, in_flight=batch.tokens,
    )  # fmt: skip
    step = activations.peak(shape, tensor_parallel=tensor, batched_tokens=batch.tokens, rows=batch.sequences, bytes_per_value=BYTES[dtype])
    room, memory = wish.cache_bytes or int(cpu.get("kv_cache_mib") or 0) * MIB, int(cpu.get("memory_mib") or 0) * MIB
    if not room and memory:
        # What vLLM takes by itself (cpu_worker.py: determine_available_memory).
        room = int(memory * wish.utilization - weights - CPU_PROCESS_MIB * MIB)
    if room <= 0:
        raise PlanError("main memory leaves nothing for a KV cache, or none is given: set kv_cache_mib, or kv_cache_memory_bytes of the model")
    blocks = room // kept.block_bytes
    concurrency = blocks / kept.blocks_of(wish.max_model_len)
    needed = 1 + max(kept.blocks_of(wish.max_model_len), wish.sequences * kept.blocks_of(wish.sequence_tokens))
    total = tensor * (weights + step + room + CPU_PROCESS_MIB * MIB)
    reasons: list[str] = []
    alternatives: list[Advice] = []
    wanted = f"{wish.sequences} sequence{'s' if wish.sequences > 1 else ''} of {wish.sequence_tokens} tokens"
    if blocks < needed:
        gib = -(-needed * kept.block_bytes // GIB)
        longest = kept.longest(blocks, wish.sequences, wish.max_model_len)
        reasons.append(f"does not fit: a KV cache of {room / GIB:.1f} GiB has {blocks} blocks; {wanted} need {needed}")
        alternatives.append(Advice("kv_cache_mib", gib * 1024, f"give the KV cache {gib} GiB"))
        if longest:
            alternatives.append(Advice("max_model_len", longest, f"shorten the context to {longest} tokens, for {wish.sequences} sequences"))
    if memory and total > memory:
        reasons.append(
            f"does not fit: {tensor} processes of {weights / GIB:.1f} GiB of weights and {room / GIB:.1f} GiB of KV cache "
            f"each need {total / GIB:.1f} GiB of main memory; there are {memory / GIB:.1f} GiB"
        )
    fits = not reasons
    if fits:
        reasons.append(f"fits main memory: {total / GIB:.1f} GiB; {blocks} blocks of KV cache, {wanted} need {needed}")
    return (
        reasons,
        alternatives,
        {
            "fits": fits,
            "dtype": dtype,
            "tensor_parallel": tensor,
            "pipeline_parallel": 1,
            "per_gpu": {
                "gpu": "cpu",
                "weights_mib": round(weights / MIB),
                "kv_cache_mib": round(blocks * kept.block_bytes / MIB),
                "activations_mib": round(step / MIB),
                "overhead_mib": CPU_PROCESS_MIB,
                "total_mib": round(total / tensor / MIB),
                "available_mib": round(memory / tensor / MIB),
                "memory_mib": round(memory / MIB),
                "kv_needed_mib": round(needed * kept.block_bytes / MIB),
            },
            "kv_tokens": int(concurrency * wish.max_model_len),
            "max_concurrency": round(concurrency, 2),
        },
    )
