"""Runs where vLLM's CPU build is: loads each model of a directory and writes what vLLM itself counts, as JSON."""

from __future__ import annotations

import gc
import json
import os
import sys
import time
import traceback
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
os.environ |= {
    "PYTHONPATH": str(HERE),
    # Both in this process where there is one worker, so that Python and vLLM are imported once for all models.
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "TORCH_COMPILE_DISABLE": "1",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
}

from vllm import LLM  # noqa: E402
from vllm.distributed import cleanup_dist_env_and_memory  # noqa: E402


def ask(directory: Path, asked: dict[str, Any]) -> dict[str, Any]:
    """Load a model and let its workers report."""
    begin = time.monotonic()
    workers = asked.get("tensor_parallel_size", 1)
    os.environ["VLLM_CPU_OMP_THREADS_BIND"] = "nobind" if workers == 1 else "|".join(str(core % (os.cpu_count() or 1)) for core in range(workers))
    llm = LLM(
        model=str(directory),
        skip_tokenizer_init=True,
        enforce_eager=True,
        load_format="safetensors",
        worker_extension_cls="held.Report",
        distributed_executor_backend="uni" if workers == 1 else "mp",
        **asked,
    )
    config = llm.llm_engine.vllm_config
    told = {
        "workers": llm.collective_rpc("report"),
        "tokens": config.cache_config.kv_cache_size_tokens,
        "concurrency": config.cache_config.kv_cache_max_concurrency,
        "batched_tokens": config.scheduler_config.max_num_batched_tokens,
        "in_flight": config.max_in_flight_tokens,
        "dtype": str(config.model_config.dtype),
        "seconds": round(time.monotonic() - begin, 1),
    }
    llm.llm_engine.engine_core.shutdown()
    del llm
    cleanup_dist_env_and_memory()
    gc.collect()
    return told


def main() -> None:
    """Ask about every model."""
    root = Path(sys.argv[1])
    answers: dict[str, Any] = {}
    for name, asked in json.loads((root / "asked.json").read_text()).items():
        try:
            answers[name] = ask(root / asked.pop("model", name), asked)
        except Exception as error:  # the other models are asked all the same
            answers[name] = {"error": f"{type(error).__name__}: {error}", "trace": traceback.format_exc()}
        (root / "answers.json").write_text(json.dumps(answers, indent=1))


if __name__ == "__main__":
    main()
