# Copyright (c) 2026, The sovereign.dify maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Figures that plans are made of: their units, what they are of, and their source.

"Source" is vLLM's own, release 0.32.0; "measured" is one H100 80 GB (torch 2.11, CUDA 13, driver 580), or vLLM's CPU build; "seen" is what public
logs of that and earlier releases of vLLM show.
"""

from __future__ import annotations

UTILIZATION = 0.92
"""share of a GPU's memory: that vLLM takes. Source: ``gpu_memory_utilization`` in config/cache.py; it was 0.9 in earlier releases."""
BLOCK_TOKENS = 16
"""tokens: of a block of the KV cache. Source: ``DEFAULT_BLOCK_SIZE`` in config/cache.py."""
LATENT_BLOCK_TOKENS = 64
"""tokens: of a block with latent attention on GPUs. Source: block sizes of the FlashMLA and FlashInfer MLA backends."""
CPU_BLOCK_TOKENS = 128
"""tokens: of a block with the CPU build; 16 with latent attention on processors without AMX. Source: platforms/cpu.py."""
VOCABULARY_MULTIPLE = 64
"""tokens: that the vocabulary is padded to a multiple of. Source: ``DEFAULT_VOCAB_PADDING_SIZE`` in vocab_parallel_embedding.py."""
LARGE_GPU_MIB = 70 * 1024
"""MiB: from which vLLM takes larger batches, but on an A100. Source: ``get_batch_defaults`` in engine/arg_utils.py."""
LARGEST_GPU_MIB = 160 * 1024
"""MiB: from which it takes the largest. Source: the same."""
UNUSABLE_SHARE = 0.011
"""share of what nvidia-smi calls ``memory.total``: that CUDA does not offer. Measured: 0.6 % of an H100 (480 MiB, which nvidia-smi calls
``memory.reserved``). Seen: 0.9 % of an A100 80GB, 1.1 % of an L20 (44.52 of 44.99 GiB)."""
CONTEXT_MIB = 650
"""MiB: of the CUDA context of a process and the modules loaded with it. It lies outside of what vLLM may take, which must be free beside it.
Measured: 619 on an H100 with CUDA 13. Seen: 450 to 570 with older releases."""
COMMUNICATOR_MIB = 550
"""MiB: of NCCL's communicators and buffers for custom all-reduce, of each GPU that shares a layer with others. They, too, lie outside, as vLLM
measures what is free after it has made them. Measured: 492 for a communicator on an H100; custom all-reduce adds 16 (custom_all_reduce.py)."""
LIBRARIES_MIB = 350
"""MiB: that libraries (cuBLAS, attention) take on their first use for workspaces and modules. Measured: 98 for cuBLAS alone on an H100. Seen: 0.16 to
0.33 GiB beside its workspace ("non_torch_memory")."""
FLASHINFER_MIB = 394
"""MiB: of FlashInfer's workspace, where it computes the attention. Source: ``VLLM_FLASHINFER_WORKSPACE_BUFFER_SIZE`` in envs.py."""
GRAPH_LAYER_KIB = 128
"""KiB: of a captured CUDA graph for each layer. Measured on an H100: 60 to 190 for the part of a layer between two attentions, 60 to 120 for a layer
in a graph of a whole step. Seen: 0.5 to 0.7 GiB for all graphs of 8 B Llama, 1 to 1.5 GiB for those of 70 B."""
GRAPH_LARGEST = 512
"""sequences: of the largest batch with a CUDA graph: twice ``max_num_seqs``, at most this. Source: ``_set_cudagraph_sizes`` in config/vllm.py."""
GRAPH_LARGEST_BLACKWELL = 1024
"""sequences: the same on GPUs of compute capability 10. Source: the same."""
SLACK_SHARE = 0.01
"""share of weights and activations: for what torch's allocator rounds up and cannot hand back. Measured: 0.01 % of 15 GiB of weights."""
CPU_PROCESS_MIB = 1700
"""MiB: of a process of the CPU build beside weights and KV cache. Measured: 2.9 GB for one with a cache of 1 GiB, 1.6 GB for each further."""
