# Copyright (c) 2026, The sovereign.dify maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""How a model's weights are quantised: what its configuration says, how many bits that takes, and what it demands of GPUs."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from ansible_collections.sovereign.dify.plugins.module_utils.model_plan.errors import PlanError

Capability = tuple[int, int]


class Form(Enum):
    """How a quantised matrix is stored."""

    AWQ = "AWQ"
    GPTQ = "GPTQ"
    PACKED = "compressed-tensors, packed integers"
    INT8 = "8-bit integers"
    FP8 = "FP8"
    FP8_BLOCKS = "FP8 in blocks"
    FP4 = "4-bit floats"
    NF4 = "bitsandbytes"


@dataclass(frozen=True)
class Quantization:
    """Quantisation of a model's linear layers.

    Attributes:
        method: vLLM's name for it, for instance ``awq`` or ``compressed-tensors``.
        form: How matrices are stored.
        bits: Bits of a weight.
        group: Weights in a row that share a scale; 0 where a scale is of a whole channel or tensor.
        block: Rows and columns of a block with a scale of its own; (0, 0) without blocks.
        symmetric: Whether there are no zero points.
        act_order: Whether GPTQ has ordered the columns by their activations (``desc_act``).
        activations: Bits that activations have in the multiplications; 16 where only weights are quantised.
        skipped: Modules that are not quantised, as the configuration names them.
        in_flight: Whether vLLM quantises while it loads: the files hold 16 bits.
    """

    method: str
    form: Form
    bits: int
    group: int = 0
    block: tuple[int, int] = (0, 0)
    symmetric: bool = True
    act_order: bool = False
    activations: int = 16
    skipped: tuple[str, ...] = field(default=())
    in_flight: bool = False

    def keeps(self, module: str) -> bool:
        """Tell whether a module of that name keeps its 16 bits."""
        return any(_names_it(entry, module) for entry in self.skipped)

    def effective_bits(self) -> float:
        """Bits a weight takes with its share of scales and zero points."""
        if self.form is Form.NF4:
            return self.bits + 32 / 64  # a 32-bit maximum for each block of 64
        if self.form is Form.FP4:
            return self.bits + 8 / (self.group or 32)
        if not self.group:
            return float(self.bits)
        return self.bits + (16 + (0 if self.symmetric and self.form is not Form.GPTQ else self.bits)) / self.group

    def title(self) -> str:
        """Say it in a few words."""
        group = f", groups of {self.group}" if self.group else f", blocks of {self.block[0]}x{self.block[1]}" if self.block[0] else ""
        return f"{self.method}, {self.bits} bits{group}"


IN_FLIGHT = {
    "fp8": Quantization("fp8", Form.FP8, 8, activations=8, in_flight=True),
    "bitsandbytes": Quantization("bitsandbytes", Form.NF4, 4, in_flight=True),
}
"""What vLLM can make of 16-bit files while it loads them."""

ALIASES = {"awq_marlin": "awq", "auto_awq": "awq", "gptq_marlin": "gptq", "auto_gptq": "gptq", "compressed_tensors": "compressed-tensors"}


def read(config: Mapping[str, Any], wanted: str = "") -> Quantization | None:
    """Read the quantisation out of a model's configuration.

    Args:
        config: ``config.json``.
        wanted: Method that vLLM is told to use (``--quantization``); empty if it shall find out.

    Returns:
        The quantisation, or None for 16 or 32 bits. PlanError where the two contradict each other, or where nobody knows what it is.
    """
    wanted = ALIASES.get(wanted, wanted)
    text = config.get("text_config") or {}
    declared = config.get("quantization_config") or config.get("compression_config") or text.get("quantization_config")
    if not declared:
        if not wanted:
            return None
        if wanted not in IN_FLIGHT:
            raise PlanError(
                f"quantization is {wanted!r}, but config.json has no quantization_config: the files are not quantised. "
                f"Take a quantised checkpoint, or one of {', '.join(IN_FLIGHT)}, which vLLM can make while it loads"
            )
        return IN_FLIGHT[wanted]
    method = str(declared.get("quant_method", "")).lower()
    method = ALIASES.get(method, method)
    if (not method and "quantization" in declared) or str(declared.get("producer", {})).find("modelopt") >= 0:
        method = "modelopt"
    if wanted and wanted != method and not (wanted.startswith("modelopt") and method.startswith("modelopt")):
        raise PlanError(f"quantization is {wanted!r}, but config.json says {method!r}: leave it out, vLLM finds out by itself")
    readers = {
        "awq": _awq,
        "gptq": _gptq,
        "compressed-tensors": _compressed_tensors,
        "fp8": _fp8,
        "fbgemm_fp8": _fp8,
        "modelopt": _modelopt,
        "modelopt_fp4": _modelopt,
        "mxfp4": _mxfp4,
        "bitsandbytes": _bitsandbytes,
    }
    if method not in readers:
        raise PlanError(f"quant_method is {method!r} in config.json, which this planner does not know; it knows {', '.join(sorted(readers))}")
    return readers[method](method, declared)


def _awq(method: str, declared: Mapping[str, Any]) -> Quantization:
    bits = int(declared.get("bits", declared.get("w_bit", 4)))
    group = max(0, int(declared.get("group_size", declared.get("q_group_size", 128))))
    return Quantization(
        method, Form.AWQ, bits, group, symmetric=not declared.get("zero_point", True), skipped=_names(declared, "modules_to_not_convert")
    )


def _gptq(method: str, declared: Mapping[str, Any]) -> Quantization:
    bits, group = int(declared.get("bits", 4)), max(0, int(declared.get("group_size", 128)))
    return Quantization(
        method, Form.GPTQ, bits, group, symmetric=bool(declared.get("sym", True)), act_order=bool(declared.get("desc_act")),
        skipped=_names(declared, "modules_to_not_convert"),
    )  # fmt: skip


def _compressed_tensors(method: str, declared: Mapping[str, Any]) -> Quantization:
    groups: Mapping[str, Any] = declared.get("config_groups") or {}
    if not groups:
        raise PlanError("quantization_config of compressed-tensors has no config_groups")
    first = next(iter(groups.values()))
    weights, inputs = first.get("weights") or {}, first.get("input_activations") or {}
    layout = str(declared.get("format") or first.get("format") or "")
    bits, kind = int(weights.get("num_bits", 8)), str(weights.get("type", "int"))
    group = int(weights.get("group_size") or 0)
    group = max(0, group)
    blocks = weights.get("block_structure")
    activations = int(inputs.get("num_bits", 16)) if inputs else 16
    skipped = _names(declared, "ignore")
    if kind == "float" and bits == 4:
        return Quantization(method, Form.FP4, 4, group or 16, activations=activations, skipped=skipped)
    if kind == "float":
        if blocks:
            return Quantization(method, Form.FP8_BLOCKS, bits, block=(int(blocks[0]), int(blocks[1])), activations=activations, skipped=skipped)
        return Quantization(method, Form.FP8, bits, activations=activations, skipped=skipped)
    form = Form.PACKED if layout.startswith("pack") or bits == 4 else Form.INT8
    return Quantization(method, form, bits, group, symmetric=bool(weights.get("symmetric", True)), activations=activations, skipped=skipped)


def _fp8(method: str, declared: Mapping[str, Any]) -> Quantization:
    size = declared.get("weight_block_size")
    form, block = (Form.FP8_BLOCKS, (int(size[0]), int(size[1]))) if size else (Form.FP8, (0, 0))
    skipped = (*_names(declared, "modules_to_not_convert"), *_names(declared, "ignored_layers"))
    return Quantization(method, form, 8, block=block, activations=8, skipped=skipped)


def _modelopt(method: str, declared: Mapping[str, Any]) -> Quantization:
    inner = declared.get("quantization") or declared
    algorithm = str(inner.get("quant_algo", "FP8")).upper()
    skipped = (*_names(inner, "exclude_modules"), *_names(inner, "ignore"))
    if "NVFP4" in algorithm or method == "modelopt_fp4":
        return Quantization("modelopt_fp4", Form.FP4, 4, int(inner.get("group_size") or 16), activations=4, skipped=skipped)
    return Quantization("modelopt", Form.FP8, 8, activations=8, skipped=skipped)


def _mxfp4(method: str, declared: Mapping[str, Any]) -> Quantization:
    return Quantization(method, Form.FP4, 4, 32, skipped=_names(declared, "modules_to_not_convert") or ("self_attn", "router", "lm_head"))


def _bitsandbytes(method: str, declared: Mapping[str, Any]) -> Quantization:
    bits = 4 if declared.get("load_in_4bit") else 8
    return Quantization(method, Form.NF4, bits, skipped=_names(declared, "llm_int8_skip_modules"))


def _names(declared: Mapping[str, Any], key: str) -> tuple[str, ...]:
    """Give the modules that a configuration names under a key."""
    names: Sequence[str] = declared.get(key) or ()
    return tuple(names)


def _names_it(entry: str, module: str) -> bool:
    """Tell whether an entry (a regular expression after ``re:``, a pattern with stars, or part of a dotted name) is of a module."""
    if entry.startswith("re:"):
        return bool(re.match(entry.removeprefix("re:"), module))
    if "*" in entry:
        return fnmatch.fnmatchcase(module, entry) or fnmatch.fnmatchcase(module, f"{entry}.*")
    return f".{entry}." in f".{module}."


def lowest_capability(quantization: Quantization) -> tuple[Capability, str]:
    """Give the compute capability below which vLLM refuses it, and what it takes at that.

    From ``get_min_capability`` of vLLM 0.32's quantization classes and compressed-tensors schemes.
    """
    form = quantization.form
    if form is Form.FP8_BLOCKS or form is Form.FP8:
        return (7, 5), "FP8 weights by Marlin, below 8.9 as a way to store them only"
    if form is Form.FP4:
        return ((8, 0), "MXFP4 by Marlin") if quantization.method == "mxfp4" else ((7, 5), "NVFP4 by Marlin, below 10.0 as a way to store it only")
    if form is Form.INT8:
        return (7, 5), "8-bit integer multiplications"
    return (7, 5), "the Marlin kernels"


def native_capability(quantization: Quantization) -> tuple[Capability, str] | None:
    """Give the compute capability from which activations are multiplied in the quantised type, too; None where they never are."""
    if quantization.form in (Form.FP8, Form.FP8_BLOCKS) and quantization.activations == 8:
        return (8, 9), "FP8"
    if quantization.form is Form.FP4 and quantization.activations == 4:
        return (10, 0), "FP4"
    return None
