"""Which environment variables a model server may be given."""

from __future__ import annotations

import pytest
from ansible_collections.sovereign.dify.plugins.filter.engine_environment_refused import ALLOWED, LOGGED, REFUSED, engine_environment_refused


def test_what_changes_only_speed_memory_or_the_log_of_the_start_is_allowed() -> None:
    assert engine_environment_refused({"NCCL_DEBUG": "INFO", "NCCL_IB_HCA": "mlx5", "OMP_NUM_THREADS": 1, "VLLM_LOGGING_LEVEL": "WARNING"}) == []


@pytest.mark.parametrize(
    "name",
    [
        *REFUSED,
        *("LD_PRELOAD", "LD_LIBRARY_PATH", "PYTHONPATH", "PYTHONSTARTUP", "PATH", "HF_HUB_OFFLINE", "HF_TOKEN"),
        *("NCCL_NET_PLUGIN", "NCCL_TUNER_PLUGIN", "NCCL_CONF_FILE", "NCCL_DEBUG_FILE", "CUDA_INJECTION64_PATH", "VLLM_NCCL_SO_PATH"),
        *("VLLM_LORA_RESOLVER_CACHE_DIR", "VLLM_MEDIA_CONNECTOR", "VLLM_USAGE_STATS_SERVER", "VLLM_MODEL_REDIRECT_PATH", "vllm_plugins"),
        *("VLLM_A_SWITCH_OF_A_LATER_RELEASE", "omp_num_threads", ""),
    ],
)
def test_everything_else_is_refused_by_name(name: str) -> None:
    assert name not in ALLOWED
    assert name not in LOGGED
    (sentence,) = engine_environment_refused({name: 1})
    assert f"The environment variable {name} is refused: " in sentence


@pytest.mark.parametrize("level", ["DEBUG", "debug", "NOTSET", ""])
def test_a_log_level_that_shows_what_users_ask_is_refused(level: str) -> None:
    (sentence,) = engine_environment_refused({"VLLM_LOGGING_LEVEL": level})
    assert sentence.endswith("give INFO, WARNING, ERROR.")
