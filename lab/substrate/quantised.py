"""The tiny checkpoint's quantised forms, in the layouts that the usual tools write and vLLM reads.

Only the decoder's projections are quantised, each value to the nearest step; embedding, norms and output layer stay as
they are. So a quantised form answers much like the model, and wrongly packed bits show in what it says.
"""

import bisect
import itertools
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .tensors import Matrix, Stored, store

# Divides what one of two GPUs holds of any projection's inputs (128 and 256), with more than one group to each.
GROUP = 64
# AWQ's kernels want the eight outputs of a word in this order, lowest bits first.
AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)

# What each of the 127 numbers of the 8-bit float E4M3 from zero up is worth, and where the next one is nearer.
FP8_VALUES = [(code & 7) * 2.0**-9 if code < 8 else (8 + (code & 7)) * 2.0 ** ((code >> 3) - 10) for code in range(127)]
FP8_BOUNDS = [(low + high) / 2 for low, high in itertools.pairwise(FP8_VALUES)]


@dataclass(frozen=True)
class Form:
    """One way to quantise: what config.json says of it, and the tensors that replace a projection's weight.

    `dtype` is what vLLM calculates in, where nothing else is asked for.
    """

    dtype: str
    configuration: dict[str, Any]
    quantise: Callable[[Matrix], dict[str, Stored]]


def quantise(weights: Mapping[str, Matrix], form: Form) -> dict[str, Stored]:
    """Return the tensors of the checkpoint in this form."""
    tensors: dict[str, Stored] = {}
    for name, matrix in weights.items():
        if name.endswith("_proj.weight"):
            layer = name.removesuffix("weight")
            tensors |= {f"{layer}{part}": tensor for part, tensor in form.quantise(matrix).items()}
        else:
            tensors[name] = store("F32", matrix.shape, matrix.values)
    return tensors


def awq(matrix: Matrix) -> dict[str, Stored]:
    """Return 4-bit codes from 0 to 15 with a scale and a zero for each group of inputs: (code - zero) · scale."""
    outputs, inputs = matrix.shape
    codes, zeros, scales = [], [], []
    for row in matrix.rows():
        row_codes, row_zeros, row_scales = bytearray(), bytearray(), []
        for group in groups(row):
            low, high = min(0.0, *group), max(0.0, *group)
            scale = half((high - low) / 15) or 1.0
            zero = round(-low / scale)
            row_codes += bytes(clamp(round(value / scale) + zero, 0, 15) for value in group)
            row_zeros.append(zero)
            row_scales.append(scale)
        codes.append(row_codes)
        zeros.append(row_zeros)
        scales.append(row_scales)
    return {
        "qweight": store("I32", (inputs, outputs // 8), words_across(codes)),
        "qzeros": store("I32", (inputs // GROUP, outputs // 8), words_across(zeros)),
        "scales": store("F16", (inputs // GROUP, outputs), transposed(scales)),
    }


def gptq(matrix: Matrix) -> dict[str, Stored]:
    """Return 4-bit codes from 0 to 15 with a scale for each group of inputs: (code - 8) · scale."""
    outputs, inputs = matrix.shape
    words = [0] * (inputs // 8 * outputs)
    scales = []
    for output, row in enumerate(matrix.rows()):
        codes, row_scales = bytearray(), []
        for group in groups(row):
            scale = half(largest(group) * 2 / 15) or 1.0
            codes += bytes(clamp(round(value / scale) + 8, 0, 15) for value in group)
            row_scales.append(scale)
        words[output::outputs] = packed([codes[first::8] for first in range(8)])
        scales.append(row_scales)
    zeros = [0x77777777] * (inputs // GROUP * outputs // 8)  # the format stores one less than the zero, which is 8
    return {
        "qweight": store("I32", (inputs // 8, outputs), words),
        "qzeros": store("I32", (inputs // GROUP, outputs // 8), zeros),
        "scales": store("F16", (inputs // GROUP, outputs), transposed(scales)),
        "g_idx": store("I32", (inputs,), [index // GROUP for index in range(inputs)]),
    }


def int8(matrix: Matrix) -> dict[str, Stored]:
    """Return whole numbers from -127 to 127 with a scale for each output: code · scale."""
    codes, scales = [], []
    for row in matrix.rows():
        scale = largest(row) / 127 or 1.0
        codes += [round(value / scale) for value in row]
        scales.append(scale)
    return {"weight": store("I8", matrix.shape, codes), "weight_scale": store("F32", (len(scales), 1), scales)}


def fp8(matrix: Matrix) -> dict[str, Stored]:
    """Return 8-bit floats E4M3 with a scale for each output: float · scale.

    This is the layout of FP8 that vLLM's CPU build serves on any CPU, though at a token a second: without instructions for
    FP8, oneDNN multiplies number by number. One scale a tensor fails there, and 128 × 128 blocks need AMX.
    """
    codes, scales = [], []
    for row in matrix.rows():
        scale = largest(row) / FP8_VALUES[-1] or 1.0
        codes += [bisect.bisect_left(FP8_BOUNDS, abs(value) / scale) | (0x80 if value < 0 else 0) for value in row]
        scales.append(scale)
    return {"weight": store("F8_E4M3", matrix.shape, codes), "weight_scale": store("F32", (len(scales), 1), scales)}


def groups(row: Sequence[float]) -> list[Sequence[float]]:
    """Return the row in pieces of GROUP inputs."""
    return [row[first : first + GROUP] for first in range(0, len(row), GROUP)]


def largest(values: Iterable[float]) -> float:
    """Return the greatest magnitude."""
    return max(map(abs, values))


def half(value: float) -> float:
    """Return the value as half precision holds it: codes must fit the scale that is stored."""
    (rounded,) = struct.unpack("<e", struct.pack("<e", value))
    return float(rounded)


def clamp(value: int, low: int, high: int) -> int:
    """Return the nearest whole number from `low` to `high`."""
    return min(high, max(low, value))


def packed(eight: Sequence[Sequence[int]]) -> list[int]:
    """Return a word of 32 bits for each place of the eight rows of 4-bit codes, the first row in the lowest bits."""
    return [a | b << 4 | c << 8 | d << 12 | e << 16 | f << 20 | g << 24 | h << 28 for a, b, c, d, e, f, g, h in zip(*eight, strict=True)]


def words_across(rows: Sequence[Sequence[int]]) -> list[int]:
    """Return AWQ's words of codes that come a row an output: each word holds eight outputs, each row of words one input."""
    width = len(rows) // 8
    words = [0] * (width * len(rows[0]))
    for block in range(width):
        words[block::width] = packed([rows[8 * block + place] for place in AWQ_ORDER])
    return words


def transposed(rows: Iterable[Iterable[float]]) -> list[float]:
    """Return the values column by column."""
    return list(itertools.chain.from_iterable(zip(*rows, strict=True)))


def compressed_tensors(layout: str, kind: str) -> dict[str, Any]:
    """Return the configuration of 8-bit weights with a scale an output, and of activations quantised a token as they come."""
    common = {"num_bits": 8, "type": kind, "symmetric": True}
    return {
        "quant_method": "compressed-tensors",
        "format": layout,
        "quantization_status": "compressed",
        "ignore": ["lm_head"],
        "kv_cache_scheme": None,
        "config_groups": {
            "group_0": {
                "targets": ["Linear"],
                "weights": common | {"strategy": "channel", "dynamic": False},
                "input_activations": common | {"strategy": "token", "dynamic": True},
                "output_activations": None,
            }
        },
    }


# vLLM takes 4-bit weights with 16-bit types only, and its kernel for INT8 on CPUs with AMX dies of float16.
FORMS = {
    "awq": Form("float16", {"quant_method": "awq", "bits": 4, "group_size": GROUP, "zero_point": True, "version": "gemm"}, awq),
    "gptq": Form("float16", {"quant_method": "gptq", "bits": 4, "group_size": GROUP, "sym": True, "desc_act": False}, gptq),
    "w8a8": Form("bfloat16", compressed_tensors("int-quantized", "int"), int8),
    "fp8": Form("bfloat16", compressed_tensors("float-quantized", "float"), fp8),
}
