# Copyright (c) 2026, The sovereign.dify maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What vLLM's CPU build wants of a processor for a model."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ansible_collections.sovereign.dify.plugins.module_utils.model_plan import quantization
from ansible_collections.sovereign.dify.plugins.module_utils.model_plan.quantization import Form

AVX512 = frozenset({"avx512f", "avx512cd", "avx512bw", "avx512dq", "avx512vl"})
"""Flags of the processors for which vLLM takes its library with AVX-512 (torch 2.13, ``torch.cpu._is_avx512_supported``)."""


def flags(cpuinfo: Path = Path("/proc/cpuinfo")) -> set[str]:
    """Read what this host's processor can do; nothing where it is no x86, whose line has another name."""
    line = re.search(r"^flags\s*:(.*)$", cpuinfo.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return set(line[1].split()) if line else set()


def lacks(config: Mapping[str, Any], asked: Mapping[str, Any], known: Iterable[str]) -> list[str]:
    """Say what a model wants of the processor that it has not.

    vLLM 0.32 brings two libraries for x86. The one without AVX-512 has no ``cpu_gemm_wna16``: the model loads, and the engine dies of its first
    question. The attention asks for AVX-512 itself where the KV cache is of FP8.

    Args:
        config: The model's ``config.json``.
        asked: ``quantization`` and ``kv_cache_dtype``, as vLLM is given them.
        known: Flags of the processor; nothing where they are not known, or it is no x86.
    """
    has = set(known)
    if not has or has >= AVX512:
        return []
    found, form = [], quantization.read(config, str(asked.get("quantization") or ""))
    if form and form.bits == 4 and form.form in (Form.AWQ, Form.GPTQ, Form.PACKED):
        found.append(
            f"{form.title()}: vLLM has no kernel for it on a processor without AVX-512; "
            "take a model of 16 bits or of 8-bit integers (W8A8), or another host"
        )
    if str(asked.get("kv_cache_dtype") or "").startswith("fp8"):
        found.append("a KV cache of FP8 needs a processor with AVX-512: leave kv_cache_dtype out, or take another host")
    return found
