# Copyright (c) 2026, The sovereign.dify maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a GPU holds of a model's tensors when vLLM has loaded it and split it."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from ansible_collections.sovereign.dify.plugins.module_utils.model_plan.architecture import BYTES, Architecture
from ansible_collections.sovereign.dify.plugins.module_utils.model_plan.figures import VOCABULARY_MULTIPLE
from ansible_collections.sovereign.dify.plugins.module_utils.model_plan.quantization import Form
from ansible_collections.sovereign.dify.plugins.module_utils.model_plan.tensors import BITS, FLOATS, Tensor, expected

FIRST, LAST, EVERYWHERE = -1, -2, -3
"""Places beside the numbers of layers: the first and the last stage of a pipeline, and all of them."""

COLUMNS = frozenset(
    {
        "c_fc", "dense_h_to_4h", "fc1", "fc_in", "gate_proj", "gate_up_proj", "gate_up_proj_bias", "gate_up_proj_blocks",
        "gate_up_proj_scales", "kv_b_proj", "q_b_proj", "q_proj", "sinks", "up_proj", "w1", "w3", "wi_0", "wi_1",
    }
)  # fmt: skip
ROWS = frozenset(
    {
        "dense", "dense_4h_to_h", "down_proj", "down_proj_blocks", "down_proj_scales", "fc2", "fc_out", "o_proj", "out_proj", "w2", "wo",
    }
)  # fmt: skip
KEYS = frozenset({"k_proj", "v_proj"})
MERGED = frozenset({"qkv_proj", "Wqkv", "c_attn", "query_key_value"})
EMBEDDINGS = frozenset({"embed_tokens", "wte", "word_embeddings", "tok_embeddings", "embed_in"})
OUTPUTS = frozenset({"lm_head", "embed_out"})
TOWERS = re.compile(r"(^|\.)(vision|visual|vit|image|audio|speech|multi_modal|mm_)\w*\.")
NUMBERED = re.compile(r"\blayers\.(\d+)\b")
LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks)\.(\d+)\.")
PARTS = frozenset(
    {
        "absmax", "bias", "g_idx", "input_scale", "k_scale", "nested_absmax", "quant_map", "quant_state", "qweight", "qzeros", "scales",
        "v_scale", "weight", "weight_g_idx", "weight_packed", "weight_scale", "weight_scale_2", "weight_scale_inv", "weight_shape",
        "weight_zero_point",
    }
)  # fmt: skip
PACKED = frozenset({"qweight", "weight_packed"})


class Split(Enum):
    """How a tensor is divided among the GPUs that share a layer."""

    VOCABULARY = "by tokens"
    EVEN = "evenly"
    KEYS = "by heads of keys and values"
    MERGED = "queries by heads, keys and values by theirs"
    WHOLE = "not at all"


@dataclass(frozen=True)
class Portion:
    """Tensors that lie in one place and are divided in one way.

    Attributes:
        place: Number of their layer, or one of ``FIRST``, ``LAST`` and ``EVERYWHERE``.
        split: How they are divided.
        linear: Whether they are matrices of linear layers, which quantisation makes smaller.
        size: Bytes as vLLM holds them.
        parameters: Parameters that they stand for.
    """

    place: int
    split: Split
    linear: bool
    size: float
    parameters: int


Sums = defaultdict[tuple[int, Split, bool], list[float]]


@dataclass(frozen=True)
class Weights:
    """A model's tensors, added up.

    Attributes:
        shape: The model.
        portions: What there is.
    """

    shape: Architecture
    portions: tuple[Portion, ...]

    @property
    def parameters(self) -> int:
        """Parameters of the model."""
        return sum(portion.parameters for portion in self.portions)

    @property
    def size(self) -> float:
        """Bytes on one GPU that holds all of it."""
        return self.on_gpu(0, self.shape.layers, 1)

    def on_gpu(self, first: int, end: int, tensor_parallel: int) -> float:
        """Give the bytes on one of the GPUs that share some layers.

        Args:
            first: First layer of their stage of the pipeline.
            end: Layer after its last.
            tensor_parallel: GPUs that share them.
        """
        layers = self.shape.layers
        total = 0.0
        for portion in self.portions:
            here = first <= portion.place < end if portion.place >= 0 else portion.place == EVERYWHERE
            here = here or (portion.place == FIRST and first == 0) or (portion.place == LAST and end == layers)
            # A tied output layer is a second copy where the embedding lies in another stage.
            if portion.place == FIRST and self.shape.tied and first > 0 and end == layers:
                here = True
            if here:
                total += portion.size * fraction(self.shape, portion.split, tensor_parallel)
        return total


def fraction(shape: Architecture, split: Split, tensor_parallel: int) -> float:
    """Give the share of a tensor that one of the GPUs holds: keys and values are copied where there are fewer heads than GPUs."""
    keys = max(1, shape.kv_heads // tensor_parallel) / shape.kv_heads
    if split is Split.VOCABULARY:
        return padded(shape.vocabulary) / shape.vocabulary / tensor_parallel
    if split is Split.EVEN:
        return 1 / tensor_parallel
    if split is Split.KEYS:
        return keys
    if split is Split.MERGED:
        return (shape.heads / tensor_parallel + 2 * shape.kv_heads * keys) / (shape.heads + 2 * shape.kv_heads)
    return 1.0


def padded(vocabulary: int) -> int:
    """Give the vocabulary as vLLM pads it."""
    return -(-vocabulary // VOCABULARY_MULTIPLE) * VOCABULARY_MULTIPLE


def gather(shape: Architecture, tensors: Iterable[Tensor], dtype: str) -> Weights:
    """Add up the tensors of a model as vLLM holds them.

    Args:
        shape: The model.
        tensors: Its tensors, from its files or as they are expected.
        dtype: Type that vLLM computes in: weights that are not quantised are turned into it.
    """
    return _complete(shape, _sums(shape, tensors, dtype), dtype)


def foresee(shape: Architecture, dtype: str) -> Weights:
    """Add up the tensors that a model is expected to have; layers that are alike are looked at once, as there may be a hundred thousand tensors."""
    skipped = shape.quantization.skipped if shape.quantization else ()
    numbered = {int(number) for entry in skipped for number in NUMBERED.findall(entry)}
    # An expression may tell layers apart in any way.
    any_way = any(entry.startswith("re:") and re.search(r"\d", entry) for entry in skipped)
    looks: dict[object, int] = {}
    like = {}
    for layer in range(shape.layers):
        mixture = bool(shape.experts and layer in shape.experts.layers)
        like[layer] = looks.setdefault(layer if any_way or layer in numbered else mixture, layer)
    sums = _sums(shape, expected(shape, set(looks.values())), dtype)
    for (place, split, linear), entry in list(sums.items()):
        for layer, other in like.items():
            if other == place != layer:
                sums[layer, split, linear] = list(entry)
    return _complete(shape, sums, dtype)


def _sums(shape: Architecture, tensors: Iterable[Tensor], dtype: str) -> Sums:
    """Add up bytes and parameters by place, split and whether quantisation makes them smaller."""
    sums: Sums = defaultdict(lambda: [0.0, 0])
    for tensor in tensors:
        where = _place(shape, tensor)
        if where is None:
            continue
        size, parameters = _loaded(shape, tensor, dtype, linear=where[2])
        entry = sums[where]
        entry[0] += size
        entry[1] += parameters
    return sums


def _complete(shape: Architecture, sums: Sums, dtype: str) -> Weights:
    """Add what vLLM makes itself when it loads a model."""
    if shape.latent:
        # What latent vectors are multiplied with is kept a second time, by heads and not quantised (mla_attention.py: W_UK_T, W_UV).
        copy = shape.heads * (shape.latent.nope + shape.latent.value) * shape.latent.kv_rank * BYTES[dtype]
        for layer in range(shape.layers):
            sums[layer, Split.EVEN, False][0] += copy
    sums[EVERYWHERE, Split.WHOLE, False][0] += shape.positions * shape.rotary * BYTES[dtype]
    return Weights(shape, tuple(Portion(*key, size, int(parameters)) for key, (size, parameters) in sums.items()))


def _place(shape: Architecture, tensor: Tensor) -> tuple[int, Split, bool] | None:
    """Tell where a tensor lies and how it is divided; None where vLLM does not load it."""
    if TOWERS.search(tensor.name):
        return FIRST, Split.WHOLE, False
    words = tensor.name.split(".")
    while len(words) > 1 and words[-1] in PARTS:
        words.pop()
    module, part = words[-1], tensor.name.split(".")[-1]
    if module in EMBEDDINGS:
        return FIRST, Split.VOCABULARY, False
    if module in OUTPUTS or tensor.name.startswith("output."):
        return None if shape.tied else (LAST, Split.VOCABULARY, False)
    layer = LAYER.search(tensor.name)
    if not layer:
        return LAST, Split.WHOLE, False
    number = int(layer[1])
    if number >= shape.layers:  # layers that predict further tokens, which vLLM loads only when it is told to
        return None
    return number, *_division(module, part, tensor, words)


def _division(module: str, part: str, tensor: Tensor, words: list[str]) -> tuple[Split, bool]:
    """Tell how a layer's tensor is divided among GPUs, and whether it is a matrix of a linear layer."""
    matrix = part in PACKED or (part in ("weight", "absmax") and len(tensor.shape) > 1) or module.endswith(("_blocks", "gate_up_proj", "down_proj"))
    single = not tensor.shape or tensor.values <= 2
    if module in KEYS:
        return (Split.WHOLE if part == "g_idx" or single else Split.KEYS), matrix
    if module in MERGED:
        return (Split.WHOLE if part == "g_idx" or single else Split.MERGED), matrix
    if module in COLUMNS:
        return (Split.WHOLE if part == "g_idx" or single else Split.EVEN), matrix
    if module in ROWS or module == "down_proj":
        # What belongs to an output of a layer that is divided by its inputs is the same on every GPU.
        whole = part == "bias" or single or (part == "weight_scale" and tensor.shape[-1] == 1)
        return (Split.WHOLE if whole else Split.EVEN), matrix
    if "experts" in words:
        return Split.EVEN, matrix
    return Split.WHOLE, False


def _loaded(shape: Architecture, tensor: Tensor, dtype: str, *, linear: bool) -> tuple[float, int]:
    """Give the bytes that vLLM needs for a tensor, and the parameters that it stands for."""
    part = tensor.name.split(".")[-1]
    quantization = shape.quantization
    if part in PACKED and quantization:
        return tensor.size, tensor.values * BITS[tensor.dtype] // quantization.bits
    if part == "g_idx" and quantization and not quantization.act_order:
        return 0.0, 0  # in order: not needed
    if part not in ("weight", "bias") and not tensor.name.endswith(("_proj", "_blocks", "_bias")):
        return tensor.size, 0
    if tensor.dtype in FLOATS:
        if linear and quantization and quantization.in_flight:
            return tensor.values * quantization.effective_bits() / 8, tensor.values
        return tensor.values * BYTES[dtype], tensor.values
    values = tensor.values
    if tensor.dtype in ("U8", "I8") and quantization and quantization.form in (Form.FP4, Form.NF4):
        values = values * 8 // quantization.bits
    return tensor.size, values
