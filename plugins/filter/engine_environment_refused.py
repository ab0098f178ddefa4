# Copyright (c) 2026, The sovereign.dify maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filter: which environment variables may not be given to a model server, and why."""

from __future__ import annotations

DOCUMENTATION = r"""
name: engine_environment_refused
short_description: Environment variables of vLLM that are refused
version_added: 0.1.0
author: The sovereign.dify maintainers (@sovereign-dify)
description:
  - Judges variables by a list of those that change only how fast a model answers, what memory it takes, or what is logged of its start. A list of
    what is allowed, because vLLM, NCCL and Python read hundreds of them, and get new ones with each release. Some load code
    (C(LD_PRELOAD), C(PYTHONPATH), C(VLLM_PLUGINS), C(NCCL_NET_PLUGIN)), some open the server up (C(VLLM_SERVER_DEV_MODE),
    C(VLLM_ALLOW_RUNTIME_LORA_UPDATING)), some move unauthenticated traffic to another network (C(NCCL_SOCKET_IFNAME)).
  - The list was made from vLLM 0.32 and NCCL 2.27.
options:
  _input: {description: Variables by name., type: dict, required: true}
"""

EXAMPLES = r"""
- name: Refuse what could load code
  ansible.builtin.assert:
    that: vllm_environment | sovereign.dify.engine_environment_refused | length == 0
"""

RETURN = r"""
_value: {description: A sentence for each variable that is refused., type: list, elements: str}
"""

from collections.abc import Callable, Mapping
from typing import Any

EFFECTS = {
    "threads and memory of the process": (
        "GOMP_SPINCOUNT KMP_AFFINITY KMP_BLOCKTIME KMP_FORKJOIN_BARRIER_PATTERN KMP_PLAIN_BARRIER_PATTERN KMP_REDUCTION_BARRIER_PATTERN KMP_TPAUSE "
        "MALLOC_ARENA_MAX MALLOC_TRIM_THRESHOLD_ MKL_NUM_THREADS OMP_NUM_THREADS OMP_PLACES OMP_PROC_BIND"
    ),
    "CUDA and PyTorch": (
        "CUBLAS_WORKSPACE_CONFIG CUDA_DEVICE_MAX_CONNECTIONS CUDA_DEVICE_ORDER CUDA_LAUNCH_BLOCKING CUDA_MODULE_LOADING NVIDIA_TF32_OVERRIDE "
        "PYTORCH_ALLOC_CONF PYTORCH_CUDA_ALLOC_CONF TORCHINDUCTOR_COMPILE_THREADS TORCH_COMPILE_DISABLE TORCH_NCCL_ASYNC_ERROR_HANDLING "
        "TORCH_NCCL_BLOCKING_WAIT"
    ),
    # NCCL, without plug-ins, files, and the choice of a network: that one is where the addresses of the cluster file are.
    "NCCL": (
        "NCCL_ALGO NCCL_BUFFSIZE NCCL_CROSS_NIC NCCL_CUMEM_ENABLE NCCL_DEBUG NCCL_DEBUG_SUBSYS NCCL_DMABUF_ENABLE NCCL_IB_DISABLE NCCL_IB_GID_INDEX "
        "NCCL_IB_HCA NCCL_IB_QPS_PER_CONNECTION NCCL_IB_RETRY_CNT NCCL_IB_SL NCCL_IB_TC NCCL_IB_TIMEOUT NCCL_IGNORE_CPU_AFFINITY NCCL_LAUNCH_MODE "
        "NCCL_MAX_CTAS NCCL_MAX_NCHANNELS NCCL_MIN_CTAS NCCL_MIN_NCHANNELS NCCL_NET_GDR_LEVEL NCCL_NET_GDR_READ NCCL_NSOCKS_PERTHREAD NCCL_NTHREADS "
        "NCCL_NVLS_ENABLE NCCL_P2P_DISABLE NCCL_P2P_LEVEL NCCL_PROTO NCCL_SHM_DISABLE NCCL_SOCKET_NTHREADS"
    ),
    "vLLM: kernels, layouts, caches, times": (
        "VLLM_ALLREDUCE_USE_FLASHINFER VLLM_ALLREDUCE_USE_SYMM_MEM VLLM_BATCH_INVARIANT VLLM_BLOCKSCALE_FP8_GEMM_FLASHINFER "
        "VLLM_CPU_ATTN_SPLIT_KV VLLM_CPU_INT4_W4A8 VLLM_CPU_KVCACHE_SPACE VLLM_CPU_NUM_OF_RESERVED_CPU VLLM_CPU_OMP_THREADS_BIND "
        "VLLM_DBO_COMM_SMS VLLM_DEEPEP_BUFFER_SIZE_MB VLLM_DEEP_GEMM_WARMUP VLLM_DISABLED_KERNELS VLLM_DISABLE_COMPILE_CACHE VLLM_DISABLE_PYNCCL "
        "VLLM_DISABLE_SHARED_EXPERTS_STREAM VLLM_ENABLE_CUDAGRAPH_GC VLLM_ENABLE_INDUCTOR_COORDINATE_DESCENT_TUNING "
        "VLLM_ENABLE_INDUCTOR_MAX_AUTOTUNE VLLM_ENGINE_READY_TIMEOUT_S VLLM_EXECUTE_MODEL_TIMEOUT_SECONDS VLLM_FASTSAFETENSORS_QUEUE_SIZE "
        "VLLM_FLASHINFER_ALLREDUCE_BACKEND VLLM_FLASHINFER_WORKSPACE_BUFFER_SIZE VLLM_FLOAT32_MATMUL_PRECISION VLLM_KV_CACHE_LAYOUT "
        "VLLM_LOG_STATS_INTERVAL VLLM_MARLIN_INPUT_DTYPE VLLM_MARLIN_USE_ATOMIC_ADD VLLM_MAX_AUDIO_CLIP_FILESIZE_MB "
        "VLLM_MAX_AUDIO_DECODE_DURATION_S VLLM_MAX_COMPLETION_PROMPTS VLLM_MAX_IMAGE_PIXELS VLLM_MAX_N_SEQUENCES VLLM_MAX_STOP_STRINGS "
        "VLLM_MAX_TOKENS_PER_EXPERT_FP4_MOE VLLM_MEDIA_LOADING_THREAD_COUNT VLLM_MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS VLLM_MLA_DISABLE "
        "VLLM_MOE_USE_DEEP_GEMM VLLM_MQ_MAX_CHUNK_BYTES_MB VLLM_PP_LAYER_PARTITION VLLM_REGEX_COMPILATION_TIMEOUT_S "
        "VLLM_RINGBUFFER_WARNING_INTERVAL VLLM_SKIP_P2P_CHECK VLLM_SSM_CONV_STATE_LAYOUT VLLM_TOOL_PARSE_REGEX_TIMEOUT_SECONDS "
        "VLLM_TRITON_JIT_WARMUP_NUM_THREADS VLLM_USE_DEEP_GEMM VLLM_USE_DEEP_GEMM_E8M0 VLLM_USE_FLASHINFER_MOE_INT4 VLLM_USE_FLASHINFER_SAMPLER "
        "VLLM_USE_FUSED_MOE_GROUPED_TOPK VLLM_USE_NCCL_SYMM_MEM VLLM_USE_TRITON_AWQ VLLM_USE_V2_MODEL_RUNNER VLLM_V1_OUTPUT_PROC_CHUNK_SIZE "
        "VLLM_WEIGHT_OFFLOADING_DISABLE_PIN_MEMORY VLLM_WORKER_MULTIPROC_METHOD"
    ),
}
"""Names by what they change."""

ALLOWED = frozenset(name for names in EFFECTS.values() for name in names.split())

LOGGED = {"VLLM_LOGGING_LEVEL": ("INFO", "WARNING", "ERROR")}
"""Variables with the only values that they may have: at DEBUG, what users ask is written into the log."""

REFUSED = {
    "CUDA_VISIBLE_DEVICES": "GPUs are planned by host",
    "GLOO_SOCKET_IFNAME": "processes meet on the network of the hosts' addresses, since nothing between them is authenticated",
    "NCCL_SOCKET_IFNAME": "processes meet on the network of the hosts' addresses, since nothing between them is authenticated",
    "VLLM_ALLOW_INSECURE_SERIALIZATION": "it opens the server up for development",
    "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "an adapter would be served under a name of its own, which no client's grant knows",
    "VLLM_API_KEY": "keys are checked by the model gateway",
    "VLLM_HOST_IP": "processes meet on the network of the hosts' addresses, since nothing between them is authenticated",
    "VLLM_LOGGING_CONFIG_PATH": "no manifest covers that file, which can load code",
    "VLLM_PLUGINS": "it loads code that no manifest covers",
    "VLLM_SERVER_DEV_MODE": "it opens the server up for development",
}
"""Why those that people try are refused. All others are, too."""


def engine_environment_refused(given: Mapping[str, Any]) -> list[str]:
    """Write a sentence for each variable that is refused.

    Args:
        given: Variables by name.

    Returns:
        Sentences; none if all variables are allowed.
    """
    sentences = []
    for name, value in given.items():
        if name in LOGGED and str(value) not in LOGGED[name]:
            sentences.append(f"The environment variable {name} is refused with the value {value}: give {', '.join(LOGGED[name])}.")
        elif name not in ALLOWED and name not in LOGGED:
            why = REFUSED.get(name, "it is not among those that change only speed and memory")
            sentences.append(f"The environment variable {name} is refused: {why}; remove it.")
    return sentences


class FilterModule:
    """Registers the filter with Ansible."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name it."""
        return {"engine_environment_refused": engine_environment_refused}
