# Copyright (c) 2026, The sovereign.dify maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The tensors that a checkpoint of a given shape has, by the names that its files use."""

from __future__ import annotations

import math
from collections.abc import Container, Iterator
from dataclasses import dataclass

from ansible_collections.sovereign.dify.plugins.module_utils.model_plan.architecture import Architecture, Experts, Latent
from ansible_collections.sovereign.dify.plugins.module_utils.model_plan.quantization import Form, Quantization

BITS = {
    "F64": 64, "F32": 32, "F16": 16, "BF16": 16, "I64": 64, "I32": 32, "I16": 16, "I8": 8, "U64": 64, "U32": 32, "U16": 16, "U8": 8, "BOOL": 8,
    "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F6_E2M3": 6, "F6_E3M2": 6, "F4": 4,
}  # fmt: skip
"""Bits of a value, by the types of safetensors."""
FLOATS = frozenset({"F64", "F32", "F16", "BF16"})
OF_DTYPE = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}


@dataclass(frozen=True)
class Tensor:
    """A tensor in a file.

    Attributes:
        name: Its name.
        dtype: Type of its values, as safetensors names it.
        shape: Its size in each dimension.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def values(self) -> int:
        """How many values it has."""
        return math.prod(self.shape)

    @property
    def size(self) -> int:
        """Bytes in the file."""
        return -(-self.values * BITS[self.dtype] // 8)


def expected(shape: Architecture, layers: Container[int] | None = None) -> Iterator[Tensor]:
    """List the tensors of a model.

    Args:
        shape: The model. Of a type that is not known, it is taken to be like Llama.
        layers: Layers whose tensors are listed; None for all.

    Yields:
        Each tensor of the language model, as Hugging Face's checkpoints name it.
    """
    dtype = OF_DTYPE.get(shape.dtype, "BF16")
    yield Tensor("model.embed_tokens.weight", dtype, (shape.vocabulary, shape.hidden))
    for layer in range(shape.layers) if layers is None else (one for one in range(shape.layers) if one in layers):
        yield from _layer(shape, f"model.layers.{layer}", layer, dtype)
    yield Tensor("model.norm.weight", dtype, (shape.hidden,))
    if not shape.tied:
        yield Tensor("lm_head.weight", dtype, (shape.vocabulary, shape.hidden))


def _layer(shape: Architecture, prefix: str, layer: int, dtype: str) -> Iterator[Tensor]:
    """List the tensors of one layer."""
    names = {
        1: ("input_layernorm",),
        2: ("input_layernorm", "post_attention_layernorm"),
        4: ("input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm"),
    }[shape.norms]
    for name in names:
        yield Tensor(f"{prefix}.{name}.weight", dtype, (shape.hidden,))
    yield from (
        _latent_attention(shape, shape.latent, f"{prefix}.self_attn", dtype) if shape.latent else _attention(shape, f"{prefix}.self_attn", dtype)
    )
    if shape.experts and layer in shape.experts.layers:
        yield from _experts(shape, shape.experts, prefix, dtype)
    else:
        yield from _mlp(shape, f"{prefix}.mlp", shape.intermediate, dtype)


def _attention(shape: Architecture, prefix: str, dtype: str) -> Iterator[Tensor]:
    queries, keys = shape.heads * shape.head, shape.kv_heads * shape.head
    if shape.model_type == "phi3":
        yield from _linear(shape, f"{prefix}.qkv_proj", queries + 2 * keys, shape.hidden, dtype)
    else:
        for name, width in (("q_proj", queries), ("k_proj", keys), ("v_proj", keys)):
            yield from _linear(shape, f"{prefix}.{name}", width, shape.hidden, dtype, bias="qkv" in shape.biased)
    yield from _linear(shape, f"{prefix}.o_proj", shape.hidden, queries, dtype, bias="o" in shape.biased)
    if shape.head_norm:
        for name in ("q_norm", "k_norm"):
            yield Tensor(f"{prefix}.{name}.weight", dtype, (shape.head,))
    if shape.model_type == "gpt_oss":
        yield Tensor(f"{prefix}.sinks", dtype, (shape.heads,))


def _latent_attention(shape: Architecture, latent: Latent, prefix: str, dtype: str) -> Iterator[Tensor]:
    queries = shape.heads * (latent.nope + latent.rope)
    if latent.q_rank:
        yield from _linear(shape, f"{prefix}.q_a_proj", latent.q_rank, shape.hidden, dtype)
        yield Tensor(f"{prefix}.q_a_layernorm.weight", dtype, (latent.q_rank,))
        yield from _linear(shape, f"{prefix}.q_b_proj", queries, latent.q_rank, dtype)
    else:
        yield from _linear(shape, f"{prefix}.q_proj", queries, shape.hidden, dtype)
    yield from _linear(shape, f"{prefix}.kv_a_proj_with_mqa", latent.kv_rank + latent.rope, shape.hidden, dtype)
    yield Tensor(f"{prefix}.kv_a_layernorm.weight", dtype, (latent.kv_rank,))
    yield from _linear(shape, f"{prefix}.kv_b_proj", shape.heads * (latent.nope + latent.value), latent.kv_rank, dtype)
    yield from _linear(shape, f"{prefix}.o_proj", shape.hidden, shape.heads * latent.value, dtype)


def _mlp(shape: Architecture, prefix: str, width: int, dtype: str) -> Iterator[Tensor]:
    bias = "mlp" in shape.biased
    if shape.model_type == "phi3":
        yield from _linear(shape, f"{prefix}.gate_up_proj", 2 * width, shape.hidden, dtype)
    else:
        yield from _linear(shape, f"{prefix}.gate_proj", width, shape.hidden, dtype, bias=bias)
        yield from _linear(shape, f"{prefix}.up_proj", width, shape.hidden, dtype, bias=bias)
    yield from _linear(shape, f"{prefix}.down_proj", shape.hidden, width, dtype, bias=bias)


def _experts(shape: Architecture, experts: Experts, prefix: str, dtype: str) -> Iterator[Tensor]:
    mixtral = shape.model_type == "mixtral"
    block = f"{prefix}.block_sparse_moe" if mixtral else f"{prefix}.mlp"
    router = "router" if shape.model_type == "gpt_oss" else "gate"
    yield Tensor(f"{block}.{router}.weight", dtype, (experts.count, shape.hidden))
    if shape.model_type in ("deepseek_v3", "kimi_k2"):
        yield Tensor(f"{block}.gate.e_score_correction_bias", "F32", (experts.count,))
    if shape.model_type == "gpt_oss":
        yield from _fused_experts(shape, experts, block, dtype)
        return
    gate, up, down = ("w1", "w3", "w2") if mixtral else ("gate_proj", "up_proj", "down_proj")
    for expert in range(experts.count):
        yield from _linear(shape, f"{block}.experts.{expert}.{gate}", experts.intermediate, shape.hidden, dtype)
        yield from _linear(shape, f"{block}.experts.{expert}.{up}", experts.intermediate, shape.hidden, dtype)
        yield from _linear(shape, f"{block}.experts.{expert}.{down}", shape.hidden, experts.intermediate, dtype)
    if experts.shared:
        name = "shared_expert" if shape.model_type.startswith(("qwen", "llama4")) else "shared_experts"
        yield from _mlp(shape, f"{block}.{name}", experts.shared, dtype)
        if shape.model_type == "qwen2_moe":
            yield Tensor(f"{block}.shared_expert_gate.weight", dtype, (1, shape.hidden))


def _fused_experts(shape: Architecture, experts: Experts, block: str, dtype: str) -> Iterator[Tensor]:
    """List gpt-oss's experts: in one tensor each, four bits a weight with a scale for each 32 of them."""
    for name, rows, columns in (("gate_up_proj", 2 * experts.intermediate, shape.hidden), ("down_proj", shape.hidden, experts.intermediate)):
        if shape.quantization and shape.quantization.form is Form.FP4:
            yield Tensor(f"{block}.experts.{name}_blocks", "U8", (experts.count, rows, columns // 32, 16))
            yield Tensor(f"{block}.experts.{name}_scales", "U8", (experts.count, rows, columns // 32))
        else:
            yield Tensor(f"{block}.experts.{name}", dtype, (experts.count, columns, rows))
        yield Tensor(f"{block}.experts.{name}_bias", dtype, (experts.count, rows))


def _linear(shape: Architecture, name: str, rows: int, columns: int, dtype: str, *, bias: bool = False) -> Iterator[Tensor]:
    """List the tensors of a linear layer that makes ``rows`` values of ``columns``."""
    quantization = shape.quantization
    if bias:
        yield Tensor(f"{name}.bias", dtype, (rows,))
    if quantization is None or quantization.in_flight or quantization.keeps(name):
        yield Tensor(f"{name}.weight", dtype, (rows, columns))
    else:
        yield from _quantized(quantization, name, rows, columns, dtype)


def _quantized(quantization: Quantization, name: str, rows: int, columns: int, dtype: str) -> Iterator[Tensor]:
    """List the tensors of a quantised linear layer."""
    bits, group = quantization.bits, quantization.group or columns
    groups = -(-columns // group)
    form = quantization.form
    if form is Form.AWQ:
        yield Tensor(f"{name}.qweight", "I32", (columns, rows * bits // 32))
        yield Tensor(f"{name}.qzeros", "I32", (groups, rows * bits // 32))
        yield Tensor(f"{name}.scales", "F16", (groups, rows))
    elif form is Form.GPTQ:
        yield Tensor(f"{name}.qweight", "I32", (columns * bits // 32, rows))
        yield Tensor(f"{name}.qzeros", "I32", (groups, rows * bits // 32))
        yield Tensor(f"{name}.scales", "F16", (groups, rows))
        yield Tensor(f"{name}.g_idx", "I32", (columns,))
    elif form is Form.PACKED:
        yield Tensor(f"{name}.weight_packed", "I32", (rows, columns * bits // 32))
        yield Tensor(f"{name}.weight_scale", dtype, (rows, groups))
        if not quantization.symmetric:
            yield Tensor(f"{name}.weight_zero_point", "I32", (rows * bits // 32, groups))
        yield Tensor(f"{name}.weight_shape", "I64", (2,))
    elif form is Form.INT8:
        yield Tensor(f"{name}.weight", "I8", (rows, columns))
        yield Tensor(f"{name}.weight_scale", dtype, (rows, 1))
    elif form is Form.FP8:
        yield Tensor(f"{name}.weight", "F8_E4M3", (rows, columns))
        yield Tensor(f"{name}.weight_scale", dtype, (rows, 1))
    elif form is Form.FP8_BLOCKS:
        down, across = quantization.block
        yield Tensor(f"{name}.weight", "F8_E4M3", (rows, columns))
        yield Tensor(f"{name}.weight_scale_inv", "F32", (-(-rows // down), -(-columns // across)))
    elif form is Form.FP4:
        yield Tensor(f"{name}.weight", "U8", (rows, columns // 2))
        yield Tensor(f"{name}.weight_scale", "F8_E4M3", (rows, groups))
    else:
        yield Tensor(f"{name}.weight", "U8", (rows * columns * bits // 8, 1))
        yield Tensor(f"{name}.weight.absmax", "F32", (-(-rows * columns // 64),))
