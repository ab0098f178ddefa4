#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""The planner's sums beside vLLM's own: weights that each worker holds and blocks and tokens of its KV cache, for models of many shapes.

Needs the image with vLLM's CPU build (`python lab/prepare.py`), two cores, 4 GB of memory and about four minutes:

    python tests/benchmarks/model_plan.py [--only gqa,mla-tp2]

Checkpoints are made of zeros by the names and shapes that the planner expects, so that vLLM's loader also proves those. Weights are compared as vLLM
has read and split them, before it packs them as this processor likes them. Ends with 1 where anything differs by more than 10 %.
"""

from __future__ import annotations

import argparse
import json
import os
import struct
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(PROJECT / "collections"))

from ansible_collections.sovereign.dify.plugins.filter.text_table import text_table  # noqa: E402
from ansible_collections.sovereign.dify.plugins.module_utils.model_plan import architecture, cache, checkpoint, tensors, weights  # noqa: E402
from ansible_collections.sovereign.dify.plugins.module_utils.model_plan.architecture import BYTES  # noqa: E402

IMAGE = "sovereign-dify-lab:bookworm-vllm"
PROGRAM = Path(__file__).resolve().parent / "model_plan"
FIXTURES = PROJECT / "tests/unit/fixtures/models"
MIB = 2**20
CACHE_BYTES, MAX_MODEL_LEN = 64 * MIB, 2048
TOLERANCE = 10.0

LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 512,
    "intermediate_size": 1536,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "vocab_size": 4096,
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def quantization(name: str) -> dict[str, Any]:
    """How a public checkpoint is quantised."""
    config: dict[str, Any] = json.loads((FIXTURES / f"{name}.json").read_text(encoding="utf-8"))
    return {"quantization_config": config["quantization_config"]}


def models() -> dict[str, dict[str, Any]]:
    """The configurations, by what is special about them."""
    mixture = {"num_experts_per_tok": 2, "moe_intermediate_size": 256}
    deepseek = {
        "architectures": ["DeepseekV3ForCausalLM"], "model_type": "deepseek_v3", "num_key_value_heads": 8, "head_dim": 32, "q_lora_rank": 128,
        "kv_lora_rank": 128, "qk_nope_head_dim": 64, "qk_rope_head_dim": 32, "v_head_dim": 64, "n_routed_experts": 8, "n_shared_experts": 1,
        "first_k_dense_replace": 1, "moe_layer_freq": 1, "n_group": 2, "topk_group": 1, "scoring_func": "sigmoid", "topk_method": "noaux_tc",
        "norm_topk_prob": True, "routed_scaling_factor": 2.5,
    }  # fmt: skip
    gemma = {
        "architectures": ["Gemma3ForCausalLM"], "model_type": "gemma3_text", "num_hidden_layers": 8, "sliding_window": 256,
        "query_pre_attn_scalar": 64, "hidden_activation": "gelu_pytorch_tanh", "rope_local_base_freq": 10000.0, "tie_word_embeddings": True,
    }  # fmt: skip
    phi = {"architectures": ["Phi3ForCausalLM"], "model_type": "phi3", "sliding_window": None, "original_max_position_embeddings": 4096}
    qwen = {"use_sliding_window": False, "sliding_window": 4096, "max_window_layers": 4}
    special: dict[str, dict[str, Any]] = {
        "gqa": {},
        "mha": {"num_key_value_heads": 8},
        "mqa": {"num_key_value_heads": 1},
        "tied": {"tie_word_embeddings": True},
        "wide": {"vocab_size": 50257},
        "fp32": {"torch_dtype": "float32"},
        "awq": quantization("llama-3.1-70b-awq"),
        "gptq": quantization("llama-3.1-70b-gptq"),
        "w4a16": quantization("llama-3.1-70b-w4a16"),
        "w8a8": quantization("llama-3.1-8b-w8a8"),
        "fp8": quantization("llama-3.1-8b-fp8-dynamic"),
        "sliding": {"architectures": ["MistralForCausalLM"], "model_type": "mistral", "sliding_window": 256},
        "gemma3": gemma,
        "qwen2": {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", **qwen},
        "qwen3": {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3"},
        "phi3": phi,
        "mixtral": {"architectures": ["MixtralForCausalLM"], "model_type": "mixtral", "num_local_experts": 4, "num_experts_per_tok": 2},
        "qwen3moe": {"architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "num_experts": 8, "decoder_sparse_step": 1, **mixture},
        "mla": {**deepseek, **mixture},
    }
    return {name: {**LLAMA, **changes} for name, changes in special.items()}


SPLIT = ("gqa", "mqa", "awq", "gptq", "w8a8", "gemma3", "mixtral", "qwen3moe", "mla")
"""Models that are also split over two workers."""


def write(directory: Path, config: Mapping[str, Any]) -> None:
    """Write a checkpoint of zeros."""
    directory.mkdir(parents=True)
    (directory / "config.json").write_text(json.dumps(config), encoding="utf-8")
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for tensor in tensors.expected(architecture.read(config)):
        header[tensor.name] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": [end, end + tensor.size]}
        end += tensor.size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with (directory / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)


def ask(root: Path) -> dict[str, Any]:
    """Let vLLM load what ``asked.json`` names, in one container without a network."""
    mounts = ["--volume", f"{root}:/models", "--volume", f"{PROGRAM}:/program:ro"]
    command = ["docker", "run", "--rm", "--network", "none", "--shm-size", "1g", "--user", f"{os.getuid()}", "--env", "HOME=/tmp", *mounts]
    program = ["--entrypoint", "/opt/vllm/current/bin/python", IMAGE, "/program/ask_vllm.py", "/models"]
    done = subprocess.run([*command, *program], capture_output=True, text=True, timeout=1800)
    answers = root / "answers.json"
    if not answers.is_file():
        raise SystemExit(f"vLLM did not even begin:\n{done.stderr[-3000:]}")
    told: dict[str, Any] = json.loads(answers.read_text(encoding="utf-8"))
    return told


def compare(directory: Path, told: Mapping[str, Any], workers: int) -> dict[str, Any]:
    """Work the same out, and lay it beside."""
    shape = architecture.read(checkpoint.configuration(directory))
    dtype = shape.served_as("auto", None)
    held = weights.gather(shape, checkpoint.tensors(directory), dtype).on_gpu(0, shape.layers, workers)
    if shape.latent:  # what vLLM multiplies latent vectors with is made after it has read the weights
        latent = shape.latent
        held -= shape.layers * shape.heads * (latent.nope + latent.value) * latent.kv_rank * BYTES[dtype] / workers
    first = told["workers"][0]
    kept = cache.plan(
        shape,
        range(shape.layers),
        tensor_parallel=workers,
        bytes_per_value=BYTES[dtype],
        block_tokens=first["block_size"],
        in_flight=told["in_flight"],
    )
    blocks = CACHE_BYTES // kept.block_bytes
    pairs = {
        "weights": (held / MIB, max(worker["weights"] for worker in told["workers"]) / MIB),
        "blocks": (blocks, min(worker["blocks"] for worker in told["workers"])),
        "tokens": (int(blocks / kept.blocks_of(MAX_MODEL_LEN) * MAX_MODEL_LEN), told["tokens"]),
    }
    row: dict[str, Any] = {}
    for name, (planned, counted) in pairs.items():
        row |= {f"{name}": round(planned, 2), f"vLLM's {name}": round(counted, 2)}
    row["largest error %"] = round(max(abs(100 * (planned / counted - 1)) for planned, counted in pairs.values()), 2)
    return row


def main() -> int:
    """Make the models, ask vLLM, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="models, separated by commas; `-tp2` behind a name for two workers")
    only = [name for name in parser.parse_args().only.split(",") if name]
    configurations = models()
    asked: dict[str, dict[str, Any]] = {name: {"model": name} for name in configurations}
    asked |= {f"{name}-tp2": {"model": name, "tensor_parallel_size": 2} for name in SPLIT}
    if unknown := sorted(set(only) - asked.keys()):
        parser.error(f"no model {', '.join(unknown)}; there are {', '.join(asked)}")
    chosen = {
        name: {"max_model_len": MAX_MODEL_LEN, "kv_cache_memory_bytes": CACHE_BYTES, **one} for name, one in asked.items() if not only or name in only
    }
    rows, failed = [], False
    with tempfile.TemporaryDirectory(prefix="model-plan-") as temporary:
        root = Path(temporary)
        for model in {str(one["model"]) for one in chosen.values()}:
            write(root / model, configurations[model])
        (root / "asked.json").write_text(json.dumps(chosen), encoding="utf-8")
        told = ask(root)
        for name, one in chosen.items():
            if "error" in told.get(name, {"error": "not reached"}):
                print(f"{name}: {told.get(name, {}).get('error', 'not reached')}", file=sys.stderr)
                failed = True
                continue
            row = compare(root / str(one["model"]), told[name], int(one.get("tensor_parallel_size", 1)))
            rows.append({"model": name, **row, "ok": row["largest error %"] <= TOLERANCE})
    if rows:
        print("\n".join(text_table(rows, list(rows[0]))))
    return int(failed or not rows or not all(row["ok"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
