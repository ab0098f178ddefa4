# Copyright (c) 2026, The sovereign.dify maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Whether a model fits GPUs, and how it is best split over them: the sums that vLLM 0.32 does when it starts, done before anything is started.

- ``architecture`` reads ``config.json``; ``quantization`` what it says of quantised weights; ``tensors`` lists the tensors such a model has.
- ``checkpoint`` reads a model's directory; ``weights`` adds up what one GPU holds of its tensors.
- ``cache`` counts KV cache blocks as vLLM does; ``activations`` what a step needs beside weights and cache.
- ``hardware`` describes hosts and GPUs; ``layouts`` lists the ways to split a model over them, ``planner`` chooses, ``advice`` says what would fit.
- ``figures`` holds the constants and where each comes from.
- ``main_memory`` does the same for the CPU build; ``reasons`` says why a plan is as it is.
- ``report`` is the door for modules and filters: dictionaries in, a dictionary out. ``vllm_log`` reads what vLLM itself has counted.

Runs on managed hosts: the standard library only.
"""
