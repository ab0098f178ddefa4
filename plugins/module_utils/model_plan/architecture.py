# Copyright (c) 2026, The sovereign.dify maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What ``config.json`` says of a model: its shape, as far as memory and parallelism depend on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ansible_collections.sovereign.dify.plugins.module_utils.model_plan import quantization
from ansible_collections.sovereign.dify.plugins.module_utils.model_plan.errors import PlanError
from ansible_collections.sovereign.dify.plugins.module_utils.model_plan.quantization import Quantization

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
"""Bytes of a value, by the types that vLLM computes in."""

LLAMA_LIKE = frozenset(
    {"arcee", "cohere", "cohere2", "deepseek_v2", "deepseek_v3", "exaone4", "gemma", "gemma2", "gemma3", "gemma3_text", "glm4", "gpt_oss", "granite"}
    | {"kimi_k2", "llama", "llama4_text", "ministral3", "mistral", "mixtral", "olmo2", "phi3", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe", "smollm3"}
)
"""Model types whose tensors are known one by one; any other is taken to be like Llama where its files are not there to be looked at."""
NO_FLOAT16 = frozenset({"gemma2", "gemma3", "gemma3_text", "glm4"})
"""Model types that vLLM refuses to run in float16, as they are unstable in it."""
SCALED_ALREADY = frozenset({"su", "longrope", "llama3", "yarn", "deepseek_yarn", "deepseek_llama_scaling"})
"""Ways to stretch positions whose configurations name the stretched context."""
TOKENIZER_LIMIT = "tokenizer_model_max_length"
"""Key under which the limit of ``tokenizer_config.json`` is handed over: vLLM goes by the smaller one."""
STATE_LAYERS = frozenset({"linear_attention", "mamba", "mamba2", "recurrent", "conv"})
"""Layers that keep a state instead of keys and values."""


@dataclass(frozen=True)
class Latent:
    """Multi-head latent attention: one compressed vector a token in place of keys and values of each head.

    Attributes:
        kv_rank: Values of the compressed vector.
        q_rank: Values that queries are compressed to; 0 where they are not.
        rope: Values of a head that carry the position.
        nope: Values of a head that do not.
        value: Values of a head's answer.
    """

    kv_rank: int
    q_rank: int
    rope: int
    nope: int
    value: int


@dataclass(frozen=True)
class Experts:
    """Mixture of experts.

    Attributes:
        count: Experts of a layer.
        chosen: Experts that a token is sent to.
        intermediate: Inner width of an expert.
        shared: Inner width of what every token is sent to as well; 0 if nothing is.
        layers: Layers that have them.
    """

    count: int
    chosen: int
    intermediate: int
    shared: int
    layers: frozenset[int]


@dataclass(frozen=True)
class Architecture:
    """A model's shape.

    Attributes:
        name: Class of the model, as in ``architectures``.
        model_type: As in ``model_type``.
        dtype: Type that the configuration names.
        hidden: Width of the hidden states.
        intermediate: Inner width of the dense layers.
        heads: Attention heads.
        kv_heads: Heads of keys and values.
        head: Values of a head.
        vocabulary: Tokens that are known.
        positions: Longest context in tokens that the model was made for.
        usual: Longest context that vLLM gives it if it is not told to.
        windows: Of each layer, how many tokens it looks back; 0 for all of them.
        chunk: Tokens of a chunk where layers with a window look at their own chunk only, as Llama 4 does; 0 otherwise.
        tied: Whether the output layer is the embedding.
        latent: Latent attention, if it is that.
        experts: Mixture of experts, if it is one.
        biased: Which of ``qkv``, ``o`` and ``mlp`` have biases.
        norms: Norms of hidden width in a layer.
        head_norm: Whether queries and keys are normed head by head.
        rotary: Values of a head that are rotated.
        quantization: How linear layers are quantised, if they are.
        multimodal: Whether it has a tower for images or sound beside the language model.
        known: Whether the model type is one whose tensors are known.
    """

    name: str
    model_type: str
    dtype: str
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head: int
    vocabulary: int
    positions: int
    usual: int
    windows: tuple[int, ...]
    chunk: int = 0
    tied: bool = False
    latent: Latent | None = None
    experts: Experts | None = None
    biased: frozenset[str] = field(default=frozenset())
    norms: int = 2
    head_norm: bool = False
    rotary: int = 0
    quantization: Quantization | None = None
    multimodal: bool = False
    known: bool = True

    @property
    def layers(self) -> int:
        """Layers of the language model."""
        return len(self.windows)

    def served_as(self, dtype: str, capability: tuple[int, int] | None) -> str:
        """Give the type that vLLM computes in.

        Args:
            dtype: Type that it is told to use; ``auto`` for the model's own.
            capability: Compute capability of the GPUs; None on a CPU.

        Returns:
            ``bfloat16``, ``float16`` or ``float32``. PlanError where GPUs or model cannot.
        """
        no_bfloat16 = capability is not None and capability < (8, 0)
        wanted = {"half": "float16", "float": "float32"}.get(dtype, dtype)
        if wanted in ("", "auto"):
            # vLLM halves 32-bit models by itself, and falls back where a GPU has no bfloat16.
            wanted = "bfloat16" if self.dtype == "float32" else self.dtype
            if no_bfloat16 and wanted == "bfloat16":
                wanted = "float32" if self.model_type in NO_FLOAT16 else "float16"
        if wanted not in BYTES:
            raise PlanError(f"dtype is {dtype!r}; give auto, bfloat16, float16 or float32")
        if wanted == "bfloat16" and capability is not None and no_bfloat16:
            raise PlanError(
                f"bfloat16 needs compute capability 8.0 (Ampere), these GPUs have {capability[0]}.{capability[1]}: set dtype float16 or auto"
            )
        if wanted == "float16" and self.model_type in NO_FLOAT16:
            raise PlanError(f"vLLM refuses {self.model_type} in float16 (numerically unstable): set dtype bfloat16 or float32")
        return wanted

    def with_quantization(self, other: Quantization | None) -> Architecture:
        """Give the same model, quantised otherwise."""
        return replace(self, quantization=other)


def read(config: Mapping[str, Any], wanted_quantization: str = "") -> Architecture:
    """Read a configuration.

    Args:
        config: ``config.json``.
        wanted_quantization: Method of quantisation that vLLM is told to use; empty if it shall find out.

    Returns:
        The shape. PlanError where the configuration lacks something, or is of a kind that nobody can plan with.
    """
    text: Mapping[str, Any] = next((config[key] for key in ("text_config", "llm_config", "language_config") if config.get(key)), config)
    model_type = str(text.get("model_type") or config.get("model_type") or "")
    layers = _number(text, "num_hidden_layers", "n_layer", "n_layers")
    hidden = _number(text, "hidden_size", "n_embd", "d_model")
    heads = _number(text, "num_attention_heads", "n_head")
    vocabulary = _number(text, "vocab_size")
    latent = _latent(text)
    kv_heads = int(text.get("num_key_value_heads") or text.get("num_kv_heads") or (1 if text.get("multi_query") else heads))
    head = int(text.get("head_dim") or 0) or hidden // heads
    if latent:
        head = latent.nope + latent.rope
    windows, chunk = _windows(text, model_type, layers)
    partial = float(text.get("partial_rotary_factor") or 1.0)
    positions, usual = _positions(config, text, model_type)
    return Architecture(
        name=next(iter(config.get("architectures") or text.get("architectures") or ()), model_type),
        model_type=model_type,
        dtype=_dtype(text, config),
        hidden=hidden,
        intermediate=int(text.get("intermediate_size") or text.get("n_inner") or 4 * hidden),
        heads=heads,
        kv_heads=kv_heads,
        head=head,
        vocabulary=vocabulary,
        positions=positions,
        usual=usual,
        windows=windows,
        chunk=chunk,
        tied=_tied(config, text, model_type),
        latent=latent,
        experts=_experts(text, model_type, layers),
        biased=_biases(text, model_type),
        norms=4 if model_type in ("gemma2", "gemma3", "gemma3_text", "glm4") else 1 if model_type in ("cohere", "cohere2") else 2,
        head_norm=model_type in ("qwen3", "qwen3_moe", "gemma3", "gemma3_text"),
        rotary=latent.rope if latent else int(head * partial),
        quantization=quantization.read(config, wanted_quantization),
        multimodal=any(key in config for key in ("vision_config", "audio_config")),
        known=model_type in LLAMA_LIKE,
    )


def _number(text: Mapping[str, Any], *keys: str) -> int:
    """Give the first of some keys; PlanError where there is none."""
    for key in keys:
        if text.get(key):
            return int(text[key])
    raise PlanError(f"config.json has no {keys[0]}: it is not of a language model, or not complete")


def _positions(config: Mapping[str, Any], text: Mapping[str, Any], model_type: str) -> tuple[int, int]:
    """Give the longest context, and that which vLLM takes if it is not told (config/model.py: ``_get_and_verify_max_len``)."""
    positions = int(text.get("max_position_embeddings") or text.get("n_positions") or text.get("max_seq_len") or 0)
    if not positions:
        raise PlanError("config.json has no max_position_embeddings: it is not of a language model, or not complete")
    positions = min(positions, int(config.get(TOKENIZER_LIMIT) or positions))
    rope = text.get("rope_parameters") or text.get("rope_scaling") or {}
    # Newer configurations have one for each kind of layers.
    kinds = [one for one in (rope.values() if any(isinstance(one, dict) for one in rope.values()) else [rope]) if isinstance(one, dict)]
    types = {str(one.get("rope_type") or one.get("type") or "default") for one in kinds}
    if "gemma3" not in model_type and not types & SCALED_ALREADY:
        factor = next((float(one["factor"]) for one in kinds if one.get("factor")), 1.0)
        positions = int(positions * factor)
    original = int(text.get("original_max_position_embeddings") or 0)
    return positions, original if "longrope" in types and original else positions


def _dtype(text: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    """Give the type of the weights without ``torch.``; float32 where the configuration does not say, as vLLM takes it."""
    named = text.get("dtype") or text.get("torch_dtype") or config.get("dtype") or config.get("torch_dtype") or "float32"
    return str(named).removeprefix("torch.")


def _tied(config: Mapping[str, Any], text: Mapping[str, Any], model_type: str) -> bool:
    """Tell whether embedding and output layer are one; Gemma's and Cohere's are where the configuration is silent."""
    said = text.get("tie_word_embeddings", config.get("tie_word_embeddings"))
    return bool(said) if said is not None else model_type.startswith(("gemma", "cohere"))


def _latent(text: Mapping[str, Any]) -> Latent | None:
    """Read latent attention."""
    if not text.get("kv_lora_rank"):
        return None
    if text.get("compress_ratios") or text.get("index_topk"):
        raise PlanError(
            f"{text.get('model_type')}: sparse attention keeps caches of several kinds, which this planner does not count; see vLLM's log"
        )
    return Latent(
        kv_rank=int(text["kv_lora_rank"]),
        q_rank=int(text.get("q_lora_rank") or 0),
        rope=_number(text, "qk_rope_head_dim"),
        nope=_number(text, "qk_nope_head_dim"),
        value=_number(text, "v_head_dim"),
    )


def _windows(text: Mapping[str, Any], model_type: str, layers: int) -> tuple[tuple[int, ...], int]:
    """Give how far back each layer looks (0: to the beginning), and the size of chunks; as transformers fills in what is missing."""
    types = text.get("layer_types") or text.get("layers_block_type")
    if states := sorted(STATE_LAYERS & {str(one) for one in types or ()}):
        raise PlanError(f"{model_type}: layers of the kind {', '.join(states)} keep a state, which this planner does not count; see vLLM's log")
    if any(key in text for key in ("ssm_cfg", "mamba_d_state", "hybrid_override_pattern")):
        raise PlanError(f"{model_type}: state space layers keep a state, which this planner does not count; see vLLM's log")
    if model_type == "llama4_text":
        chunk = int(text.get("attention_chunk_size") or 0)
        whole = text.get("no_rope_layers") or [0 if (layer + 1) % 4 == 0 else 1 for layer in range(layers)]
        return tuple(chunk if rotated else 0 for rotated in whole), chunk
    window = int(text.get("sliding_window") or 0)
    if text.get("use_sliding_window") is False or (not window and not model_type.startswith(("gemma2", "gemma3", "cohere2", "gpt_oss"))):
        return (0,) * layers, 0
    window = window or (128 if model_type == "gpt_oss" else 4096)
    if types:
        return tuple(window if one == "sliding_attention" else 0 for one in types), 0
    if model_type in ("gemma2", "gpt_oss"):
        return tuple(window if layer % 2 == 0 else 0 for layer in range(layers)), 0
    if model_type.startswith(("gemma3", "cohere2")):
        pattern = int(text.get("sliding_window_pattern") or (4 if model_type == "cohere2" else 6))
        return tuple(window if (layer + 1) % pattern else 0 for layer in range(layers)), 0
    if model_type.startswith(("qwen2", "qwen3")):
        if not text.get("use_sliding_window"):
            return (0,) * layers, 0
        first = int(text.get("max_window_layers") or 28)
        return tuple(window if layer >= first else 0 for layer in range(layers)), 0
    return (window,) * layers, 0


def _experts(text: Mapping[str, Any], model_type: str, layers: int) -> Experts | None:
    """Read a mixture of experts."""
    count = int(text.get("n_routed_experts") or text.get("num_local_experts") or text.get("num_experts") or text.get("moe_num_experts") or 0)
    if count < 2:
        return None
    width = int(text.get("moe_intermediate_size") or text.get("intermediate_size") or 0)
    shared = int(text.get("shared_expert_intermediate_size") or 0) or width * int(text.get("n_shared_experts") or 0)
    if model_type == "llama4_text":
        shared = width
    step = int(text.get("decoder_sparse_step") or text.get("moe_layer_freq") or text.get("interleave_moe_layer_step") or 1)
    first = int(text.get("first_k_dense_replace") or 0)
    dense = set(text.get("mlp_only_layers") or ())
    phase = 1 if "decoder_sparse_step" in text or model_type == "llama4_text" else 0
    have = frozenset(layer for layer in range(layers) if layer >= first and layer not in dense and (layer + phase) % step == 0)
    return Experts(count, int(text.get("num_experts_per_tok") or text.get("moe_top_k") or 1), width, shared, have)


def _biases(text: Mapping[str, Any], model_type: str) -> frozenset[str]:
    """Tell which linear layers have biases."""
    biased = set()
    if text.get("attention_bias") or model_type.startswith("qwen2") or text.get("qkv_bias"):
        biased.add("qkv")
    if text.get("attention_bias") and not model_type.startswith(("qwen", "glm4")):
        biased.add("o")
    if text.get("mlp_bias"):
        biased.add("mlp")
    return frozenset(biased)
