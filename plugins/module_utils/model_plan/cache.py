# Copyright (c) 2026, The sovereign.dify maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""KV cache in blocks, counted as vLLM 0.32 counts them (v1/core/kv_cache_utils.py, v1/kv_cache_interface.py).

Layers with the same reach share a block table. Where there are two kinds, each kind is divided into groups of as many layers, and a block is of one
group: its bytes are those of the layers of a group, and a sequence takes blocks of every group.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ansible_collections.sovereign.dify.plugins.module_utils.model_plan.architecture import Architecture
from ansible_collections.sovereign.dify.plugins.module_utils.model_plan.errors import PlanError

KV_BYTES = {"fp8": 1, "fp8_e4m3": 1, "fp8_e5m2": 1, "bfloat16": 2, "float16": 2, "float32": 4}
"""Bytes of a value in the cache, by vLLM's ``kv-cache-dtype``."""


@dataclass(frozen=True)
class Group:
    """Layers that share a block table.

    Attributes:
        layers: Their numbers.
        window: How many tokens they look back; 0 for all of them.
    """

    layers: tuple[int, ...]
    window: int


@dataclass(frozen=True)
class Cache:
    """The KV cache of one GPU.

    Attributes:
        groups: The groups of layers of the whole model.
        block_tokens: Tokens of a block.
        block_bytes: Bytes of a block on this GPU.
        in_flight: Tokens that a step may have under way, for which layers with a window keep blocks, too.
    """

    groups: tuple[Group, ...]
    block_tokens: int
    block_bytes: int
    in_flight: int

    def blocks_of(self, tokens: int) -> int:
        """Give the blocks that a sequence of so many tokens takes."""
        total = 0
        for group in self.groups:
            if group.window:
                total += math.ceil(min(group.window - 1 + self.in_flight, tokens) / self.block_tokens) + 1
            else:
                total += math.ceil(tokens / self.block_tokens)
        return total

    def longest(self, blocks: int, sequences: int, limit: int) -> int:
        """Give the longest context, up to a limit, that so many sequences can have in so many blocks; 0 where there is none."""
        low, high = 0, limit
        while low < high:
            middle = (low + high + 1) // 2
            if sequences * self.blocks_of(middle) <= blocks - 1:
                low = middle
            else:
                high = middle - 1
        return low


def groups_of(shape: Architecture) -> tuple[Group, ...]:
    """Divide a model's layers into groups.

    Layers that look at their own chunk (Llama 4) are kept in full, as vLLM switches the division off for them.
    """
    everywhere = tuple(range(shape.layers))
    kinds: dict[int, list[int]] = {}
    for layer, window in enumerate(shape.windows):
        kinds.setdefault(0 if shape.chunk else window, []).append(layer)
    if len(kinds) == 1:
        return (Group(everywhere, next(iter(kinds))),)
    fewest, most = min(map(len, kinds.values())), max(map(len, kinds.values()))
    size = most if most < fewest * 1.5 else fewest
    groups = []
    for window, layers in kinds.items():
        count = math.ceil(len(layers) / size)
        groups += [Group(tuple(layers[number::count]), window) for number in range(count)]
    return tuple(groups)


def value_bytes(kv_cache_dtype: str, dtype: str) -> int:
    """Give the bytes of a value in the cache.

    Args:
        kv_cache_dtype: As in ``--kv-cache-dtype``; ``auto`` for the type that vLLM computes in.
        dtype: That type.
    """
    name = dtype if kv_cache_dtype in ("", "auto") else kv_cache_dtype
    if name not in KV_BYTES:
        raise PlanError(f"kv_cache_dtype is {kv_cache_dtype!r}; this planner knows auto, {', '.join(sorted(KV_BYTES))}")
    return KV_BYTES[name]


def layer_bytes(shape: Architecture, tensor_parallel: int, bytes_per_value: int) -> int:
    """Give the bytes of a token in one layer on one of the GPUs that share it: at least one head of keys and values, or the whole latent vector."""
    if shape.latent:
        return (shape.latent.kv_rank + shape.latent.rope) * bytes_per_value
    return 2 * max(1, shape.kv_heads // tensor_parallel) * shape.head * bytes_per_value


def plan(shape: Architecture, stage: Sequence[int], *, tensor_parallel: int, bytes_per_value: int, block_tokens: int, in_flight: int) -> Cache:
    """Lay out the cache of one GPU.

    Args:
        shape: The model.
        stage: Layers of the GPU's stage of the pipeline.
        tensor_parallel: GPUs that share each layer.
        bytes_per_value: Bytes of a value in the cache.
        block_tokens: Tokens of a block.
        in_flight: Tokens that may be under way.
    """
    here = set(stage)
    groups = groups_of(shape)
    page = block_tokens * layer_bytes(shape, tensor_parallel, bytes_per_value)
    # Of a model of two kinds, every group has as many pages; a stage of a pipeline has what it has of the widest.
    width = max(sum(layer in here for layer in group.layers) for group in groups)
    return Cache(groups, block_tokens, width * page, in_flight)
