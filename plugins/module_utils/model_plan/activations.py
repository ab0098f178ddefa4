# Copyright (c) 2026, The sovereign.dify maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a step of vLLM needs beside weights and KV cache, for the largest batch that it profiles with when it starts."""

from __future__ import annotations

from dataclasses import dataclass

from ansible_collections.sovereign.dify.plugins.module_utils.model_plan.architecture import Architecture
from ansible_collections.sovereign.dify.plugins.module_utils.model_plan.figures import (
    FLASHINFER_MIB,
    GRAPH_LARGEST,
    GRAPH_LARGEST_BLACKWELL,
    GRAPH_LAYER_KIB,
    LARGE_GPU_MIB,
    LARGEST_GPU_MIB,
    LIBRARIES_MIB,
)
from ansible_collections.sovereign.dify.plugins.module_utils.model_plan.weights import padded

MIB = 2**20
# Room for biases, allowed tokens and stop tokens of a request (v1/worker/gpu/sample/logit_bias.py), 32 bits each.
BIASES = 3 * 1024 + 128


@dataclass(frozen=True)
class Batch:
    """The largest step.

    Attributes:
        tokens: Tokens of all sequences in a step (``max_num_batched_tokens``).
        sequences: Sequences in a step (``max_num_seqs``).
    """

    tokens: int
    sequences: int


def default_batch(memory_mib: int, name: str, max_model_len: int, *, tokens: int = 0, sequences: int = 0) -> Batch:
    """Give the largest step as ``vllm serve`` chooses it.

    Args:
        memory_mib: Memory of the GPU.
        name: Its name: an A100 gets smaller steps than its memory would allow.
        max_model_len: Longest context.
        tokens: What ``max_num_batched_tokens`` is set to; 0 if it is not.
        sequences: What ``max_num_seqs`` is set to; 0 if it is not.
    """
    if memory_mib >= LARGEST_GPU_MIB:
        default = Batch(16384, 1024)
    elif memory_mib >= LARGE_GPU_MIB and "a100" not in name.lower():
        default = Batch(8192, 1024)
    else:
        default = Batch(2048, 256)
    rows = sequences or default.sequences
    step = tokens or min(default.tokens, rows * max_model_len)
    return Batch(step, sequences or min(rows, step))


def peak(shape: Architecture, *, tensor_parallel: int, batched_tokens: int, rows: int, bytes_per_value: int = 2, last: bool = True) -> int:
    """Give the bytes of the largest step at its peak.

    Args:
        shape: The model.
        tensor_parallel: GPUs that share each layer.
        batched_tokens: Tokens of the step.
        rows: Sequences of the step, for each of which a token is sampled.
        bytes_per_value: Bytes of a value.
        last: Whether this is the last stage, which samples.
    """
    states = batched_tokens * shape.hidden * bytes_per_value
    queries, keys = shape.heads * shape.head / tensor_parallel, max(1, shape.kv_heads // tensor_parallel) * shape.head
    # Hidden states go in and come out, and the residual stays; between them lies the widest of what a layer makes.
    if shape.latent:
        latent = shape.latent
        attention = (latent.q_rank + latent.kv_rank + latent.rope) + queries + shape.heads * (latent.nope + 2 * latent.value) / tensor_parallel
    else:
        attention = 2 * queries + 2 * keys
    widest = max(attention, 3 * shape.intermediate / tensor_parallel)
    if shape.experts:
        # Each token is there once for each expert that it is sent to, before and after (fused_moe: workspace_shapes).
        inner = shape.experts.intermediate / tensor_parallel
        routed = shape.experts.chosen * (max(inner, shape.hidden) + max(2 * inner, shape.hidden)) + 3 * shape.experts.shared / tensor_parallel
        dense = 3 * shape.intermediate / tensor_parallel if len(shape.experts.layers) < shape.layers else 0
        widest = max(attention, routed, dense)
    layers = 3 * states + batched_tokens * widest * bytes_per_value
    if not last:
        return int(layers)
    # Every rank gets all logits, and samples from them in 32 bits.
    logits = rows * padded(shape.vocabulary) * (bytes_per_value + 4)
    return int(max(layers, states + rows * shape.hidden * bytes_per_value + logits))


def standing(shape: Architecture, batch: Batch, max_model_len: int, *, groups: int, block_tokens: int, last: bool = True) -> int:
    """Give the bytes that vLLM's model runner keeps for as long as it runs.

    Args:
        shape: The model.
        batch: The largest step.
        max_model_len: Longest context.
        groups: Groups of layers that have a block table each.
        block_tokens: Tokens of a block.
        last: Whether this is the last stage, which samples.
    """
    tables = 2 * groups * batch.sequences * -(-max_model_len // block_tokens) * 4
    inputs = batch.tokens * (4 + 8 + 1 + 8 * groups)
    # How often each token was written so far, of each sequence (v1/worker/gpu/sample/penalties.py).
    counts = batch.sequences * (shape.vocabulary * 4 + -(-shape.vocabulary // 32) * 4 + BIASES * 4) if last else 0
    return tables + inputs + counts


def graphs(shape: Architecture, batch: Batch, layers: int, *, tensor_parallel: int, blackwell: bool, eager: bool) -> float:
    """Give the bytes of CUDA graphs: of whole steps, and of the parts between attentions, for each size of a step that is captured.

    Args:
        shape: The model.
        batch: The largest step.
        layers: Layers on the GPU.
        tensor_parallel: GPUs that share each of them.
        blackwell: Whether the GPUs have compute capability 10.
        eager: Whether there are no graphs.
    """
    if eager:
        return 0.0
    largest = min(GRAPH_LARGEST_BLACKWELL if blackwell else GRAPH_LARGEST, 2 * batch.sequences, batch.tokens)
    sizes = len({size for size in (1, 2, 4) if size <= largest} | set(range(8, min(largest + 1, 256), 8)) | set(range(256, largest + 1, 16)))
    # Graphs of one kind share the memory of the largest.
    shared = peak(shape, tensor_parallel=tensor_parallel, batched_tokens=largest, rows=0, last=False)
    return 2 * (sizes * layers * GRAPH_LAYER_KIB * 1024 + shared)


def libraries(*, flashinfer: bool) -> float:
    """Give the bytes that libraries take on their first use, with FlashInfer's workspace if it computes the attention."""
    return (LIBRARIES_MIB + (FLASHINFER_MIB if flashinfer else 0)) * MIB
