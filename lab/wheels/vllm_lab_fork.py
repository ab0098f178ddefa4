"""A vLLM plugin for the lab: worker processes are forked from the server instead of each importing everything anew.

vLLM's CPU platform insists on `spawn`, because OpenMP's threads do not live through a fork. The lab's instances run
one OpenMP thread each (`OMP_NUM_THREADS=1`, `VLLM_CPU_OMP_THREADS_BIND=nobind`), so no such threads exist. What it
saves, of two-way tensor parallelism on two cores: half of a start's processor time and a third of the memory. It is in
the lab's wheelhouse only, and does nothing where OpenMP may have more threads; `VLLM_PLUGINS=` switches it off.
"""

import os
from typing import Any


def register() -> None:
    """Let the CPU platform set up everything as it does, then take back its choice of how processes begin."""
    from vllm.platforms import current_platform  # type: ignore[import-not-found]  # there only where this runs

    if not current_platform.is_cpu() or os.environ.get("OMP_NUM_THREADS") != "1":
        return
    platform = type(current_platform)
    original = platform.check_and_update_config

    def check_and_update_config(cls: type, vllm_config: Any) -> None:  # noqa: ANN401
        original(vllm_config)
        os.environ["VLLM_WORKER_MULTIPROC_METHOD"] = "fork"

    platform.check_and_update_config = classmethod(check_and_update_config)
