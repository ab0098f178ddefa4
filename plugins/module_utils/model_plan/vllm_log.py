# Copyright (c) 2026, The sovereign.dify maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What vLLM 0.32 writes into its log about memory when it starts, and a plan beside it.

Model loading took 32.93 GiB memory and 41.2 seconds              a GPU's weights (gpu_model_runner.py, gpu/model_runner.py); not on a CPU
Available KV cache memory: 37.1 GiB                               what is left for its KV cache (gpu_worker.py); not on a CPU
Explicitly set (4.00/18.84) GiB for KV cache on node 0.           the same where it is given (cpu_worker.py)
GPU KV cache size: 121,536 tokens, Maximum concurrency for 32,768 tokens per request: 3.71x      (kv_cache_utils.py; ``CPU`` with the CPU build)
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# Both model runners, and releases that write the second half of the last line as a line of its own (seen with 0.24).
LOADED = re.compile(r"Model loading took ([\d.]+) GiB ")
ROOM = re.compile(r"Available KV cache memory: ([\d.]+) GiB|Explicitly set \(([\d.]+)/[\d.]+\) GiB for KV cache")
CACHE = re.compile(r"KV cache size: ([\d,]+) tokens(?:, |\n.*?)Maximum concurrency for ([\d,]+) tokens per request: ([\d.]+)x")


@dataclass(frozen=True)
class Counted:
    """What vLLM has counted when it last started; None where its log does not say.

    Attributes:
        weights_gib: Weights of the GPU that holds most.
        room_gib: Room for the KV cache on the GPU that has least.
        kv_tokens: Tokens that the cache has room for.
        max_model_len: Longest context.
        concurrency: Sequences of that length that have room.
    """

    weights_gib: float | None = None
    room_gib: float | None = None
    kv_tokens: int | None = None
    max_model_len: int | None = None
    concurrency: float | None = None


def read(log: str) -> Counted:
    """Read the last start out of a log: each worker's lines, up to the size of the cache."""
    ends = list(CACHE.finditer(log))
    if not ends:
        return Counted()
    last = ends[-1]
    start = log[ends[-2].end() if len(ends) > 1 else 0 : last.end()]
    loaded = [float(match[1]) for match in LOADED.finditer(start)]
    room = [float(match[1] or match[2]) for match in ROOM.finditer(start)]
    tokens, length, concurrency = last.groups()
    return Counted(max(loaded, default=None), min(room, default=None), int(tokens.replace(",", "")), int(length.replace(",", "")), float(concurrency))


def compare(plan: Mapping[str, Any], log: str, tolerance: float = 10.0) -> list[dict[str, Any]]:
    """Lay a plan beside what vLLM has counted.

    Args:
        plan: As ``report.plan`` returns it.
        log: Lines of vLLM's log, for instance of ``journalctl --unit vllm@NAME``.
        tolerance: Per cent that they may differ.

    Returns:
        For each figure that the log has, ``what``, ``planned``, ``counted``, ``error_percent`` and whether that is ``ok``. ValueError where the log
        has none of them.
    """
    counted, share = read(log), plan["per_gpu"]
    pairs: dict[str, tuple[float, float | None]] = {
        "weights of a GPU, GiB": (share["weights_mib"] / 1024, counted.weights_gib),
        "KV cache of a GPU, GiB": (share["kv_cache_mib"] / 1024, counted.room_gib),
        "KV cache, tokens": (plan["kv_tokens"], counted.kv_tokens),
        "longest context, tokens": (plan["max_model_len"], counted.max_model_len),
    }
    rows = []
    for what, (planned, real) in pairs.items():
        if real:
            error = 100 * (planned / real - 1)
            rows.append(
                {"what": what, "planned": round(planned, 2), "counted": real, "error_percent": round(error, 1), "ok": abs(error) <= tolerance}
            )
    if not rows:
        raise ValueError("the log does not say how large the KV cache is: vLLM has not started, or the lines are gone")
    return rows
