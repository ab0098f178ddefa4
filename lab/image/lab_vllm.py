"""Starts vLLM's CPU build with a third of the work, in a lab: imported by each Python of its release, by a `.pth` beside it.

vLLM's processes are forked from its server, as they are on GPUs: on a processor it would start each of them as a new Python, which loads the same
five thousand modules again. And what vLLM finds out about a model's class, by one more Python at the first start of each instance, was found out
when the image was made.
"""

import multiprocessing
import os
import shutil
from multiprocessing.context import BaseContext
from pathlib import Path

KNOWN = Path(__file__).with_suffix(".known")
get_context = multiprocessing.get_context


def forking(method: str | None = None) -> BaseContext:
    """Give the means to start processes by forking, where a new Python for each was asked for."""
    return get_context("fork" if method == "spawn" else method)


multiprocessing.get_context = forking  # type: ignore[assignment]

if KNOWN.exists() and "VLLM_CACHE_ROOT" in os.environ:
    cache = Path(os.environ["VLLM_CACHE_ROOT"], "modelinfos")
    if not cache.exists():
        shutil.copytree(KNOWN, cache)
