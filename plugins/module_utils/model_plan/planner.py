# Copyright (c) 2026, The sovereign.dify maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Chooses how to split a model over GPUs, and says whether it fits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ansible_collections.sovereign.dify.plugins.module_utils.model_plan import activations, cache
from ansible_collections.sovereign.dify.plugins.module_utils.model_plan.architecture import BYTES, Architecture
from ansible_collections.sovereign.dify.plugins.module_utils.model_plan.errors import PlanError
from ansible_collections.sovereign.dify.plugins.module_utils.model_plan.figures import (
    BLOCK_TOKENS,
    COMMUNICATOR_MIB,
    CONTEXT_MIB,
    LATENT_BLOCK_TOKENS,
    SLACK_SHARE,
    UTILIZATION,
)
from ansible_collections.sovereign.dify.plugins.module_utils.model_plan.hardware import LOWEST_CAPABILITY, Gpu, Host
from ansible_collections.sovereign.dify.plugins.module_utils.model_plan.layouts import Layout, faults, layers_of, layouts
from ansible_collections.sovereign.dify.plugins.module_utils.model_plan.quantization import lowest_capability
from ansible_collections.sovereign.dify.plugins.module_utils.model_plan.tensors import Tensor
from ansible_collections.sovereign.dify.plugins.module_utils.model_plan.weights import Weights, foresee, gather

MIB, GIB = 2**20, 2**30
BLACKWELL = (10, 0)
FP8_CACHE_CAPABILITY = (8, 0)
"""Below it no attention of vLLM reads a cache in fp8."""
NATIVE_FP8_CAPABILITY = (8, 9)
"""Below it FlashInfer alone does (flash_attn.py, triton_attn.py)."""


@dataclass(frozen=True)
class Wish:
    """What is wanted of a model.

    Attributes:
        max_model_len: Longest context in tokens; 0 for the model's own.
        sequences: Sequences that shall be served at the same time.
        sequence_tokens: Tokens that each of them has; 0 for the longest context.
        dtype: Type to compute in; ``auto`` for the model's own.
        kv_cache_dtype: Type of the cache; ``auto`` for the same.
        tensor_parallel: GPUs that shall share each layer; 0 to choose.
        pipeline_parallel: Stages that the pipeline shall have; 0 to choose.
        utilization: Share of a GPU's memory that vLLM takes.
        batched_tokens: ``max_num_batched_tokens``; 0 for vLLM's default.
        batched_sequences: ``max_num_seqs``; 0 for vLLM's default.
        eager: Whether CUDA graphs are switched off.
        cache_bytes: KV cache of a GPU, if vLLM is given one (``kv_cache_memory_bytes``); 0 for what is left.
        block_tokens: Tokens of a block of it; 0 for vLLM's default.
    """

    max_model_len: int = 0
    sequences: int = 1
    sequence_tokens: int = 0
    dtype: str = "auto"
    kv_cache_dtype: str = "auto"
    tensor_parallel: int = 0
    pipeline_parallel: int = 0
    utilization: float = UTILIZATION
    batched_tokens: int = 0
    batched_sequences: int = 0
    eager: bool = False
    cache_bytes: int = 0
    block_tokens: int = 0

    def of(self, shape: Architecture) -> Wish:
        """Fill in what is left to the model; PlanError where it is too much for it."""
        longest = self.max_model_len or shape.usual
        if longest > shape.positions:
            raise PlanError(
                f"max_model_len is {longest}, but config.json allows {shape.positions} (max_position_embeddings): "
                f"give at most {shape.positions}, or scale the positions (rope_scaling) as the model's card says"
            )
        each = min(self.sequence_tokens or longest, longest)
        if self.sequences < 1 or not 0 < self.utilization <= 1:
            raise PlanError(
                f"concurrent_sequences ({self.sequences}) must be 1 or more, gpu_memory_utilization ({self.utilization}) above 0 and at most 1"
            )
        return replace(self, max_model_len=longest, sequence_tokens=each)


@dataclass(frozen=True)
class Share:
    """What the smallest GPU of a stage holds, in bytes.

    Attributes:
        gpu: That GPU.
        weights: Weights.
        activations: The largest step at its peak.
        overhead: What vLLM's runner keeps, CUDA graphs, libraries and what the allocator cannot hand back.
        budget: What vLLM may take (``gpu_memory_utilization``).
        outside: What lies outside of that: context and communicators.
        block: A block of the KV cache.
    """

    gpu: Gpu
    weights: float
    activations: float
    overhead: float
    budget: float
    outside: float
    block: int

    @property
    def room(self) -> float:
        """What is left for the KV cache."""
        return self.budget - self.weights - self.activations - self.overhead

    @property
    def blocks(self) -> int:
        """Blocks that have room."""
        return max(0, int(self.room // self.block))


@dataclass(frozen=True)
class Outcome:
    """How a layout turns out.

    Attributes:
        layout: The layout.
        shares: What a GPU of each stage holds.
        cache: The KV cache of a GPU of the first stage.
        blocks: Blocks of the KV cache: those of the GPU that has fewest.
        needed: Blocks that the wish takes.
        dtype: Type that is computed in.
        batch: The largest step.
        problem: Why it cannot start, whatever the cache; empty if it can.
    """

    layout: Layout
    shares: tuple[Share, ...]
    cache: cache.Cache
    blocks: int
    needed: int
    dtype: str
    batch: activations.Batch
    problem: str = ""

    @property
    def fits(self) -> bool:
        """Whether vLLM would start and serve what is wanted."""
        return not self.problem and self.blocks >= self.needed

    @property
    def tightest(self) -> Share:
        """The stage with fewest blocks."""
        return min(self.shares, key=lambda share: (share.blocks, share.room))


class Planner:
    """Plans one model for one wish; the sums over its tensors are done once."""

    def __init__(self, shape: Architecture, wish: Wish, tensors: Sequence[Tensor] | None = None) -> None:
        """Take the model and what is wanted.

        Args:
            shape: The model.
            wish: What is wanted.
            tensors: What its files hold; None for what such a model is expected to have.
        """
        self.shape = shape
        self.wish = wish.of(shape)
        self.tensors = tensors
        self._weights: dict[str, Weights] = {}

    def weights(self, dtype: str) -> Weights:
        """Give the weights as they are held when a type is computed in."""
        if dtype not in self._weights:
            self._weights[dtype] = foresee(self.shape, dtype) if self.tensors is None else gather(self.shape, self.tensors, dtype)
        return self._weights[dtype]

    def candidates(self, hosts: Sequence[Host]) -> list[Outcome]:
        """Work out every layout, the best first."""
        wish = self.wish
        found = layouts(self.shape, hosts, tensor_parallel=wish.tensor_parallel, pipeline_parallel=wish.pipeline_parallel)
        return [self.outcome(layout) for layout in found if not incapable(self.shape, layout.gpus, wish)]

    def best(self, hosts: Sequence[Host]) -> Outcome | None:
        """Give the best layout that fits, or the one that comes closest; None where none is possible at all."""
        outcomes = self.candidates(hosts)
        fitting = next((outcome for outcome in outcomes if outcome.fits), None)
        return fitting or max(outcomes, key=lambda one: (one.blocks / one.needed, min(share.room for share in one.shares)), default=None)

    def outcome(self, layout: Layout) -> Outcome:
        """Work out a layout."""
        shape, wish = self.shape, self.wish
        smallest = min(layout.gpus, key=lambda gpu: gpu.memory_mib)
        dtype = shape.served_as(wish.dtype, min(gpu.capability for gpu in layout.gpus))
        bytes_per_value = cache.value_bytes(wish.kv_cache_dtype, dtype)
        batch = activations.default_batch(
            smallest.usable_mib, smallest.name, wish.max_model_len, tokens=wish.batched_tokens, sequences=wish.batched_sequences
        )
        block_tokens = wish.block_tokens or (LATENT_BLOCK_TOKENS if shape.latent else BLOCK_TOKENS)
        # Asynchronous scheduling has one step more under way than there are stages (config/vllm.py: max_concurrent_batches).
        in_flight = (layout.pipeline_parallel + 1) * batch.tokens
        shares, caches = [], []
        for layers, gpus in zip(layers_of(shape.layers, layout.pipeline_parallel), layout.stages, strict=True):
            kept = cache.plan(
                shape, layers, tensor_parallel=layout.tensor_parallel, bytes_per_value=bytes_per_value, block_tokens=block_tokens, in_flight=in_flight
            )
            caches.append(kept)
            shares.append(self._share(layout, layers, min(gpus, key=lambda gpu: gpu.memory_mib), dtype, batch, kept))
        kept = caches[0]
        needed = 1 + max(kept.blocks_of(wish.max_model_len), wish.sequences * kept.blocks_of(wish.sequence_tokens))
        return Outcome(layout, tuple(shares), kept, min(share.blocks for share in shares), needed, dtype, batch, _problem(shares, wish))

    def _share(self, layout: Layout, layers: range, gpu: Gpu, dtype: str, batch: activations.Batch, kept: cache.Cache) -> Share:
        """Work out what a GPU of a stage holds."""
        shape, size = self.shape, BYTES[dtype]
        last = layers.stop == shape.layers
        weights = self.weights(dtype).on_gpu(layers.start, layers.stop, layout.tensor_parallel)
        step = activations.peak(
            shape, tensor_parallel=layout.tensor_parallel, batched_tokens=batch.tokens, rows=batch.sequences, bytes_per_value=size, last=last
        )
        overhead = (
            activations.standing(shape, batch, self.wish.max_model_len, groups=len(kept.groups), block_tokens=kept.block_tokens, last=last)
            + activations.graphs(
                shape, batch, len(layers), tensor_parallel=layout.tensor_parallel, blackwell=gpu.capability[0] == BLACKWELL[0], eager=self.wish.eager
            )
            + activations.libraries(flashinfer=uses_flashinfer(layout.gpus, self.wish))
            + SLACK_SHARE * (weights + step)
        )
        outside = (CONTEXT_MIB + (COMMUNICATOR_MIB if len(layout.gpus) > 1 else 0)) * MIB
        given = self.wish.cache_bytes
        budget = weights + step + overhead + given if given else gpu.usable_mib * MIB * self.wish.utilization
        return Share(gpu, weights, step, overhead, budget, outside, kept.block_bytes)


def _problem(shares: Sequence[Share], wish: Wish) -> str:
    """Tell why vLLM would not even begin: what it may take must be free beside context and communicators (``request_memory``)."""
    for share in shares:
        free = share.gpu.usable_mib * MIB - share.outside
        if free < share.budget and wish.cache_bytes:
            return (
                f"{share.gpu.title()}: weights, activations, overhead and kv_cache_memory_bytes need {share.budget / GIB:.1f} GiB, "
                f"{free / GIB:.1f} GiB are free beside the CUDA context and communicators"
            )
        if free < share.budget:
            most = int(100 * free / (share.gpu.usable_mib * MIB)) / 100
            return (
                f"{share.gpu.title()}: beside the CUDA context and communicators, {share.outside / GIB:.1f} GiB, less is free than "
                f"gpu_memory_utilization {wish.utilization} asks for; set it to {most:.2f} at most"
            )
    return ""


def uses_flashinfer(gpus: Sequence[Gpu], wish: Wish) -> bool:
    """Tell whether vLLM computes attention with FlashInfer: on Blackwell, and where nothing else reads a cache in fp8."""
    lowest = min(gpu.capability for gpu in gpus)
    return lowest >= BLACKWELL or (wish.kv_cache_dtype.startswith("fp8") and lowest < NATIVE_FP8_CAPABILITY)


def incapable(shape: Architecture, gpus: Sequence[Gpu], wish: Wish) -> str:
    """Tell why GPUs cannot compute what a model needs, however much memory they have; empty if they can."""
    lowest = min(gpus, key=lambda gpu: gpu.capability)
    have = f"{lowest.title()} has compute capability {lowest.capability[0]}.{lowest.capability[1]}"
    if lowest.capability < LOWEST_CAPABILITY:
        return f"{have}, vLLM needs 7.5 (Turing) or more"
    if shape.quantization:
        needed, why = lowest_capability(shape.quantization)
        if lowest.capability < needed:
            return f"{have}, but {shape.quantization.method} needs {needed[0]}.{needed[1]} or more: {why}"
    if wish.kv_cache_dtype.startswith("fp8") and lowest.capability < FP8_CACHE_CAPABILITY:
        return f"{have}, but a KV cache in fp8 needs 8.0 or more: set kv_cache_dtype auto"
    try:
        shape.served_as(wish.dtype, lowest.capability)
    except PlanError as error:
        return str(error)
    return ""


def possible(shape: Architecture, most: int) -> list[int]:
    """List the sizes of tensor parallelism, up to a number, that a model allows."""
    return [size for size in range(1, most + 1) if not faults(shape, size)]
