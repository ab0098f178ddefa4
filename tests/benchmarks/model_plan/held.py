"""What a worker of vLLM holds, asked from within: imported into each worker as its extension."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from vllm.model_executor.model_loader import base_loader

PAGE = os.sysconf("SC_PAGE_SIZE")
LOADED: dict[str, int] = {}
process = base_loader.process_weights_after_loading


def resident() -> int:
    """Bytes of main memory that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


def size(tensors: Any) -> int:
    """Bytes of tensors, each storage once."""
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors if tensor.numel()}
    return sum(storages.values())


def look_first(model: torch.nn.Module, *others: Any, **more: Any) -> Any:
    """Weigh the model as it was read and split, then let vLLM pack it as this machine's processor likes it."""
    LOADED["weights"] = size([*model.parameters(), *model.buffers()])
    return process(model, *others, **more)


base_loader.process_weights_after_loading = look_first


class Report:
    """Methods that a worker gets."""

    def report(self) -> dict[str, Any]:
        """What this worker holds and has planned."""
        runner = self.model_runner  # type: ignore[attr-defined]
        cache = self.cache_config  # type: ignore[attr-defined]
        groups = runner.kv_cache_config.kv_cache_groups
        return {
            "weights": LOADED["weights"],
            "packed": size([*runner.get_model().parameters(), *runner.get_model().buffers()]),
            "resident": resident(),
            "blocks": cache.num_gpu_blocks,
            "block_size": cache.block_size,
            "groups": [[len(group.layer_names), type(group.kv_cache_spec).__name__] for group in groups],
            "cache": sum(tensor.numel() * tensor.element_size() for tensor in runner.kv_caches if isinstance(tensor, torch.Tensor)),
        }
