"""Planning models on GPUs: what fits, how it is split, and what is said of it; with the configurations of public models."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.sovereign.dify.plugins.filter.model_plan import model_plan
from ansible_collections.sovereign.dify.plugins.module_utils.model_plan import (
    activations,
    architecture,
    cache,
    checkpoint,
    layouts,
    processor,
    quantization,
    tensors,
    vllm_log,
    weights,
)
from ansible_collections.sovereign.dify.plugins.module_utils.model_plan.errors import PlanError
from ansible_collections.sovereign.dify.plugins.module_utils.model_plan.hardware import read_host
from ansible_collections.sovereign.dify.plugins.module_utils.model_plan.report import arguments, deal, plan, summary

FIXTURES = Path(__file__).parent / "fixtures/models"
H100, H200, A100, A100_40 = ("NVIDIA H100 80GB HBM3", 81559, "9.0"), ("NVIDIA H200", 143771, "9.0"), ("NVIDIA A100-SXM4-80GB", 81920, "8.0"), (
    "NVIDIA A100-SXM4-40GB", 40960, "8.0",
)  # fmt: skip
L40S, L4, T4, V100, RTX3090 = ("NVIDIA L40S", 46068, "8.9"), ("NVIDIA L4", 23034, "8.9"), ("Tesla T4", 15360, "7.5"), (
    "Tesla V100-SXM2-16GB", 16384, "7.0",
), ("NVIDIA GeForce RTX 3090", 24576, "8.6")  # fmt: skip

Kind = tuple[str, int, str]


def config(name: str, **changes: Any) -> dict[str, Any]:
    """The configuration of a public model."""
    read: dict[str, Any] = json.loads((FIXTURES / f"{name}.json").read_text(encoding="utf-8"))
    return {**read, **changes}


def shape(name: str, **changes: Any) -> architecture.Architecture:
    return architecture.read(config(name, **changes))


def host(*kinds: Kind, links: str = "all", numa: str = "", name: str = "gpu1") -> dict[str, Any]:
    """A host as the module ``gpu_info`` tells it.

    ``links``: ``all`` joined by NVLink, ``none``, or the size of each group; ``numa`` the node of each GPU, all 0 by default.
    """
    gpus = [
        {"index": index, "name": product, "memory_mib": memory, "compute_capability": capability, "numa_node": int(numa[index]) if numa else 0}
        for index, (product, memory, capability) in enumerate(kinds)
    ]
    size = {"all": len(gpus), "none": 1}.get(links) or int(links)
    return {"name": name, "gpus": gpus, "nvlink_groups": [list(range(begin, begin + size)) for begin in range(0, len(gpus), size)]}


def mig(*instances: int) -> dict[str, Any]:
    """A host with one H100 that is cut into instances of so many MiB."""
    cut = [{"index": number, "memory_mib": memory, "profile": f"{memory // 10000}g"} for number, memory in enumerate(instances)]
    product, memory, capability = H100
    return {
        "name": "gpu1",
        "gpus": [{"index": 0, "name": product, "memory_mib": memory, "compute_capability": capability, "mig": True, "mig_instances": cut}],
        "nvlink_groups": [[0]],
    }


def said(result: dict[str, Any]) -> str:
    """Everything that a plan says."""
    return "\n".join([*result["reasons"], *(one["text"] for one in result["alternatives"])])


def split(result: dict[str, Any]) -> tuple[int | None, int | None]:
    return result["tensor_parallel"], result["pipeline_parallel"]


# What configurations say.


@pytest.mark.parametrize(
    ("name", "parameters"),
    {
        "llama-3.1-8b": 8_030_261_248,
        "llama-3.2-1b": 1_235_814_400,
        "llama-3.1-70b": 70_553_706_496,
        "llama-3.1-405b": 405_853_388_800,
        "qwen2.5-7b": 7_615_616_512,
        "qwen2.5-72b": 72_706_203_648,
        "qwen3-235b-a22b": 235_093_634_560,
        "mixtral-8x7b": 46_702_792_704,
        "mixtral-8x22b": 140_630_071_296,
        "mistral-7b-v0.1": 7_241_732_096,
        "gemma-2-9b": 9_241_705_984,
        "phi-3-mini-4k": 3_821_079_552,
        "deepseek-v3": 671_026_419_200,
        "gpt-oss-120b": 116_829_156_672,
    }.items(),
)
def test_the_parameters_of_public_models_are_those_that_were_published(name: str, parameters: int) -> None:
    counted = weights.foresee(shape(name), "bfloat16").parameters
    assert counted == pytest.approx(parameters, rel=0 if "oss" not in name and "deep" not in name else 1e-3)


@pytest.mark.parametrize("name", ["llama-3.2-1b", "llama-3.1-405b-fp8", "qwen3-235b-a22b", "deepseek-v3", "gpt-oss-120b", "gemma-3-27b"])
def test_layers_that_are_alike_are_looked_at_once_and_it_comes_to_the_same(name: str) -> None:
    one_by_one, alike = weights.gather(shape(name), tensors.expected(shape(name)), "bfloat16"), weights.foresee(shape(name), "bfloat16")
    assert (alike.size, alike.parameters) == (one_by_one.size, one_by_one.parameters)
    assert alike.on_gpu(3, 9, 4) == pytest.approx(one_by_one.on_gpu(3, 9, 4))


@pytest.mark.parametrize(
    ("name", "parameters"), {"llama-3.1-70b-awq": 70.55e9, "llama-3.1-70b-gptq": 70.55e9, "llama-3.1-70b-w4a16": 70.55e9}.items()
)
def test_packed_weights_stand_for_as_many_parameters_and_take_35_to_42_gb(name: str, parameters: float) -> None:
    held = weights.gather(shape(name), tensors.expected(shape(name)), "bfloat16")
    assert held.parameters == pytest.approx(parameters, rel=0.001)
    assert 35e9 < held.size < 42e9


@pytest.mark.parametrize(
    ("name", "kib"),
    {"llama-3-70b": 320, "llama-3.1-8b": 128, "llama-3.1-405b": 504, "qwen2.5-72b": 320, "qwen3-235b-a22b": 188, "mixtral-8x7b": 128}.items(),
)
def test_a_token_of_a_model_takes_the_known_kv_cache(name: str, kib: int) -> None:
    assert plan(config(name), [host(*[H100] * 8)])["kv_bytes_per_token"] == kib * 1024


def test_latent_attention_keeps_one_vector_of_576_values_a_token_in_each_layer() -> None:
    assert plan(config("deepseek-v3"), [host(*[H200] * 8)], {"max_model_len": 8192})["kv_bytes_per_token"] == 61 * 576 * 2


def test_what_a_configuration_does_not_say_is_filled_in_as_transformers_does() -> None:
    gemma2, gemma3, mistral, qwen = shape("gemma-2-9b"), shape("gemma-3-27b"), shape("mistral-7b-v0.1"), shape("qwen2.5-72b")
    assert (gemma2.windows[:3], gemma2.tied) == ((4096, 0, 4096), True)
    assert [layer for layer, window in enumerate(gemma3.windows) if not window][:2] == [5, 11]
    assert (set(mistral.windows), set(qwen.windows)) == ({4096}, {0})
    assert (shape("gpt-oss-120b").windows[:2], shape("phi-3-mini-4k").windows[0]) == ((128, 0), 2047)


@pytest.mark.parametrize(
    ("changes", "longest", "usual"),
    [
        ({}, 131072, 131072),
        ({"rope_scaling": {"rope_type": "linear", "factor": 2.0}}, 262144, 262144),
        ({"rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}}, 131072, 131072),
        ({"rope_scaling": {"type": "longrope"}, "original_max_position_embeddings": 4096}, 131072, 4096),
        ({architecture.TOKENIZER_LIMIT: 8192, "rope_scaling": None}, 8192, 8192),
    ],
)
def test_the_longest_context_is_that_which_vllm_derives(changes: dict[str, Any], longest: int, usual: int) -> None:
    read = shape("llama-3.1-8b", **changes)
    assert (read.positions, read.usual) == (longest, usual)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"num_hidden_layers": None}, "config.json has no num_hidden_layers"),
        ({"layer_types": ["linear_attention", "full_attention"] * 16}, "layers of the kind linear_attention keep a state"),
        ({"mamba_d_state": 16}, "state space layers keep a state"),
        ({"max_position_embeddings": None}, "has no max_position_embeddings"),
        ({"kv_lora_rank": 512, "index_topk": 2048}, "sparse attention keeps caches of several kinds"),
        ({"quantization_config": {"quant_method": "exl9"}}, "quant_method is 'exl9' .* it knows awq"),
    ],
)
def test_a_model_that_nobody_can_count_is_refused_in_words(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(PlanError, match=complaint):
        shape("llama-3.1-8b", **changes)


def test_a_method_of_quantisation_must_be_that_of_the_files_or_one_that_vllm_can_do_by_itself() -> None:
    with pytest.raises(PlanError, match=r"the files are not quantised"):
        plan(config("llama-3.1-8b"), [host(H100)], {"quantization": "awq"})
    with pytest.raises(PlanError, match=r"quantization is 'gptq', but config.json says 'awq'"):
        plan(config("llama-3.1-70b-awq"), [host(H100)], {"quantization": "gptq"})
    halved = plan(config("llama-3.1-8b"), [host(H100)], {"quantization": "fp8"})
    assert halved["weights_mib"] < 0.6 * plan(config("llama-3.1-8b"), [host(H100)])["weights_mib"]


def test_modules_that_are_not_quantised_are_found_by_name_by_pattern_and_by_expression() -> None:
    skips = quantization.Quantization("fp8", quantization.Form.FP8, 8, skipped=("lm_head", "model.layers.*.self_attn", "re:.*mlp.gate$"))
    assert [skips.keeps(name) for name in ("lm_head", "model.layers.3.self_attn.q_proj", "model.layers.3.mlp.gate")] == [True] * 3
    assert not skips.keeps("model.layers.3.mlp.gate_proj")


# What fits.


def test_8b_fits_one_gpu_and_the_verdict_has_the_numbers() -> None:
    result = plan(config("llama-3.1-8b"), [host(H100)], {"max_model_len": 32768, "concurrent_sequences": 8})
    assert (result["fits"], split(result), result["gpus"]) == (True, (1, 1), [{"host": "gpu1", "gpu": "0", "stage": 0}])
    assert "fits one GPU on gpu1: 0: weights 15.0 GiB" in said(result)
    assert "8 sequences of 32768 tokens need 32.0 GiB" in said(result)
    share = result["per_gpu"]
    assert share["total_mib"] <= share["available_mib"] < 0.92 * share["memory_mib"]
    assert share["weights_mib"] + share["kv_cache_mib"] + share["activations_mib"] + share["overhead_mib"] == pytest.approx(share["total_mib"], abs=3)


def test_70b_does_not_fit_one_gpu_and_what_would_is_said_with_numbers() -> None:
    result = plan(config("llama-3.1-70b"), [host(H100)], {"max_model_len": 8192, "concurrent_sequences": 4})
    assert not result["fits"]
    assert "does not fit one GPU on gpu1: 0: weights 131.4 GiB" in said(result)
    assert "too much before any KV cache" in said(result)
    advice = {one["what"]: one for one in result["alternatives"]}
    assert advice["gpus"]["value"] == 4
    assert "take 4 GPUs (NVIDIA H100 80GB HBM3, 80 GiB each) in one host: tensor parallel 4" in said(result)
    assert (advice["quantization"]["value"], advice["memory_mib"]["value"]) == ("awq", 180 * 1024)
    assert "quantise the weights to 4 bits" in said(result)


def test_a_context_that_is_too_long_is_shortened_to_what_fits_and_that_does_fit() -> None:
    wish = {"max_model_len": 131072, "concurrent_sequences": 4}
    result = plan(config("llama-3.1-8b"), [host(RTX3090)], wish)
    advice = {one["what"]: one["value"] for one in result["alternatives"]}
    assert not result["fits"]
    assert 8000 < advice["max_model_len"] < 16384
    assert "shorten the context to" in said(result)
    assert plan(config("llama-3.1-8b"), [host(RTX3090)], {**wish, "max_model_len": advice["max_model_len"]})["fits"]


def test_too_many_sequences_are_reduced_to_what_fits_and_that_does_fit() -> None:
    wish = {"max_model_len": 32768, "concurrent_sequences": 64}
    result = plan(config("llama-3.1-8b"), [host(H100)], wish)
    advice = {one["what"]: one["value"] for one in result["alternatives"]}
    assert (result["fits"], advice["concurrent_sequences"]) == (False, 13)
    assert "serve 13 sequences of 32768 tokens at a time" in said(result)
    assert plan(config("llama-3.1-8b"), [host(H100)], {**wish, "concurrent_sequences": 13})["fits"]
    assert not plan(config("llama-3.1-8b"), [host(H100)], {**wish, "concurrent_sequences": 14})["fits"]


def test_quantised_weights_are_advised_with_what_must_be_given_up_beside_them() -> None:
    wish = {"max_model_len": 32768, "concurrent_sequences": 4}
    result = plan(config("llama-3.1-70b"), [host(H100)], wish)
    assert "4 bits (an AWQ or GPTQ checkpoint): 37.1 GiB of weights, and serve 3 sequences of 32768 tokens at a time (one GPU)" in said(result)
    assert plan(config("llama-3.1-70b-awq"), [host(H100)], {**wish, "concurrent_sequences": 3})["fits"]
    assert not plan(config("llama-3.1-70b-awq"), [host(H100)], wish)["fits"]


def test_a_cache_in_fp8_is_advised_where_it_is_enough_and_holds_twice_as_many_tokens() -> None:
    wish = {"max_model_len": 32768, "concurrent_sequences": 24}
    result = plan(config("llama-3.1-8b"), [host(H100)], wish)
    assert "keep the KV cache in fp8, half its size" in said(result)
    halved = plan(config("llama-3.1-8b"), [host(H100)], {**wish, "kv_cache_dtype": "fp8"})
    assert halved["fits"]
    assert halved["kv_tokens"] == pytest.approx(2 * result["kv_tokens"], rel=0.001)


def test_sequences_may_be_shorter_than_the_longest_context() -> None:
    wish = {"max_model_len": 131072, "concurrent_sequences": 32}
    assert not plan(config("llama-3.1-8b"), [host(H100)], wish)["fits"]
    shorter = plan(config("llama-3.1-8b"), [host(H100)], {**wish, "sequence_tokens": 8192})
    assert shorter["fits"]
    assert "32 sequences of 8192 tokens" in said(shorter)


def test_a_context_longer_than_the_model_was_made_for_is_refused() -> None:
    with pytest.raises(PlanError, match=r"max_model_len is 16384, but config.json allows 8192"):
        plan(config("llama-3-70b"), [host(*[H100] * 4)], {"max_model_len": 16384})


def test_the_smallest_gpu_that_is_enough_is_taken() -> None:
    result = plan(config("llama-3.1-8b"), [host(H100, RTX3090, links="none")], {"max_model_len": 8192})
    assert result["gpus"] == [{"host": "gpu1", "gpu": "1", "stage": 0}]


# How it is split.


def test_70b_takes_four_gpus_with_nvlink_by_tensor_parallel_and_says_why_not_two() -> None:
    result = plan(config("llama-3.1-70b"), [host(*[H100] * 8)], {"max_model_len": 16384, "concurrent_sequences": 4})
    assert (result["fits"], split(result), len(result["gpus"])) == (True, (4, 1), 4)
    assert "the GPUs that share layers are joined by NVLink" in said(result)
    assert "fewer are not enough: does not fit tensor parallel 2" in said(result)


def test_28_heads_cannot_be_divided_by_8_and_the_sizes_that_can_be_are_named() -> None:
    result = plan(config("qwen2.5-7b"), [host(*[H100] * 8)], {"tensor_parallel": 8})
    assert (result["fits"], result["tensor_parallel"]) == (False, None)
    assert "28 attention heads cannot be divided by tensor parallel 8" in said(result)
    assert "tensor parallel can be 1, 2, 4" in said(result)


def test_kv_heads_that_neither_divide_nor_can_be_copied_evenly_forbid_a_size() -> None:
    found = layouts.faults(shape("qwen2.5-7b"), 7)
    assert "4 heads of keys and values can neither be divided by tensor parallel 7 nor copied evenly" in found


def test_more_gpus_than_kv_heads_hold_copies_and_the_cache_is_not_divided_further() -> None:
    result = plan(config("qwen3-235b-a22b"), [host(*[H100] * 8)], {"max_model_len": 16384, "concurrent_sequences": 4})
    assert (result["fits"], split(result)) == (True, (8, 1))
    assert "4 heads of keys and values on 8 GPUs: each is held 2 times" in said(result)
    one, eight = (cache.layer_bytes(shape("qwen3-235b-a22b"), size, 2) for size in (4, 8))
    assert one == eight == 2 * 128 * 2


def test_two_groups_of_four_with_nvlink_get_a_stage_each() -> None:
    result = plan(config("mixtral-8x22b"), [host(*[A100_40] * 8, links="4", numa="00001111")], {"max_model_len": 32768})
    assert (result["fits"], split(result)) == (False, (4, 2)) or (result["fits"], split(result)) == (True, (4, 2))
    stages = {stage: {gpu["gpu"] for gpu in result["gpus"] if gpu["stage"] == stage} for stage in (0, 1)}
    assert sorted(map(sorted, stages.values())) == [["0", "1", "2", "3"], ["4", "5", "6", "7"]]
    assert "tensor parallel stays where NVLink reaches" in said(result)


def test_tensor_parallel_beyond_nvlink_is_said_to_be_slow_where_it_is_asked_for() -> None:
    result = plan(config("llama-3.1-70b"), [host(*[A100] * 8, links="4", numa="00001111")], {"max_model_len": 8192, "tensor_parallel": 8})
    assert (result["fits"], split(result)) == (True, (8, 1))
    assert "over PCIe and between NUMA nodes, the slowest way there is" in said(result)
    assert "tensor parallel 8 was given, not chosen" in said(result)


def test_gpus_with_pcie_alone_get_a_pipeline_and_why_is_said() -> None:
    result = plan(config("llama-3.1-70b-awq"), [host(*[L40S] * 4, links="none", numa="0011")], {"max_model_len": 32768, "concurrent_sequences": 4})
    assert (result["fits"], split(result)) == (True, (1, 2))
    assert "because no NVLink joins the GPUs" in said(result)


def test_tensor_parallel_by_pcie_is_done_when_asked_for_and_said_and_stays_in_a_numa_node() -> None:
    result = plan(config("llama-3.1-70b-awq"), [host(*[L40S] * 4, links="none", numa="0101")], {"max_model_len": 8192, "tensor_parallel": 2})
    assert [gpu["gpu"] for gpu in result["gpus"]] in (["0", "2"], ["1", "3"])
    assert "reach each other by PCIe alone" in said(result)


def test_gpus_of_several_sizes_the_smallest_decides() -> None:
    kinds = [A100, A100_40]
    result = plan(config("llama-3.1-70b-awq"), [host(*kinds)], {"max_model_len": 32768, "tensor_parallel": 2})
    alike = plan(config("llama-3.1-70b-awq"), [host(A100_40, A100_40)], {"max_model_len": 32768, "tensor_parallel": 2})
    assert (result["fits"], result["kv_tokens"]) == (True, alike["kv_tokens"])
    assert "GPUs of several sizes: the smallest (40 GiB) decides" in said(result)


def test_gpus_that_are_alike_are_preferred_to_a_mixture() -> None:
    kinds = [RTX3090, A100_40, RTX3090, A100_40]
    result = plan(config("qwen2.5-72b-awq"), [host(*kinds)], {"max_model_len": 8192, "concurrent_sequences": 2})
    assert (result["fits"], sorted(gpu["gpu"] for gpu in result["gpus"])) == (True, ["1", "3"])


def test_405b_goes_over_two_hosts_tensor_parallel_inside_and_a_pipeline_between() -> None:
    nodes = [host(*[H100] * 8, name="gpu1"), host(*[H100] * 8, name="gpu2")]
    result = plan(config("llama-3.1-405b"), nodes, {"max_model_len": 32768, "concurrent_sequences": 4})
    assert (result["fits"], split(result)) == (True, (8, 2))
    assert {(gpu["host"], gpu["stage"]) for gpu in result["gpus"]} == {("gpu1", 0), ("gpu2", 1)}
    assert "a pipeline of 2 stages over 2 hosts: tensor parallel stays inside a host" in said(result)


def test_405b_does_not_fit_one_host_and_two_are_advised() -> None:
    result = plan(config("llama-3.1-405b"), [host(*[H100] * 8)], {"max_model_len": 32768, "concurrent_sequences": 4})
    assert not result["fits"]
    assert "weights 94.5 GiB" in said(result)
    assert "take 16 GPUs (NVIDIA H100 80GB HBM3, 80 GiB each) in 2 hosts: tensor parallel 8, pipeline parallel 2" in said(result)
    assert "quantise the weights to 8 bits (fp8)" in said(result)


def test_405b_in_fp8_fits_one_host() -> None:
    result = plan(config("llama-3.1-405b-fp8"), [host(*[H100] * 8)], {"max_model_len": 32768, "concurrent_sequences": 4})
    assert (result["fits"], split(result)) == (True, (8, 1))


def test_tensor_parallel_stays_inside_a_host() -> None:
    nodes = [host(*[H100] * 4, name="gpu1"), host(*[H100] * 4, name="gpu2")]
    result = plan(config("llama-3.1-70b"), nodes, {"tensor_parallel": 8})
    assert not result["fits"]
    assert "tensor parallel 8 stays inside a host, and no host has more than 4 GPUs: use a pipeline across hosts" in said(result)


def test_layers_are_divided_as_vllm_does() -> None:
    assert [len(stage) for stage in layouts.layers_of(126, 4)] == [31, 32, 32, 31]
    assert [len(stage) for stage in layouts.layers_of(61, 2)] == [31, 30]
    assert [len(stage) for stage in layouts.layers_of(10, 3)] == [3, 4, 3]


def test_a_tied_embedding_is_held_twice_by_a_pipeline() -> None:
    held = weights.gather(shape("llama-3.2-1b"), tensors.expected(shape("llama-3.2-1b")), "bfloat16")
    halves = held.on_gpu(0, 8, 1) + held.on_gpu(8, 16, 1)
    embedding, rotary = 128256 * 2048 * 2, 131072 * 64 * 2
    assert halves == held.size + embedding + rotary


def test_a_pipeline_and_a_size_that_need_more_gpus_than_there_are_do_not_fit() -> None:
    result = plan(config("llama-3.1-8b"), [host(H100, H100)], {"tensor_parallel": 2, "pipeline_parallel": 2})
    assert (result["fits"], "4 GPUs are asked for" in said(result)) == (False, True)


# Quantised weights, and types that GPUs do not have.


def test_groups_of_quantised_weights_must_not_be_cut() -> None:
    result = plan(config("qwen2.5-72b-unpadded-gptq"), [host(H100, H100)], {"max_model_len": 8192, "tensor_parallel": 2})
    assert not result["fits"]
    assert "gptq: the intermediate size of 29568 gives 14784 a GPU at tensor parallel 2, not whole groups of 128 weights" in said(result)
    assert "tensor parallel can be 1" in said(result)


def test_the_padded_checkpoint_can_be_split() -> None:
    result = plan(config("qwen2.5-72b-awq"), [host(*[A100_40] * 2)], {"max_model_len": 8192, "tensor_parallel": 2})
    assert (result["fits"], split(result)) == (True, (2, 1))


def test_blocks_of_fp8_weights_must_not_be_cut() -> None:
    assert not layouts.faults(shape("deepseek-v3"), 16)
    assert any("not whole blocks of 128" in fault for fault in layouts.faults(shape("deepseek-v3"), 32))


def test_fp8_on_ampere_is_only_a_way_to_store() -> None:
    result = plan(config("llama-3.1-8b-fp8-dynamic"), [host(A100_40)], {"max_model_len": 8192})
    assert result["fits"]
    assert "FP8 multiplications begin with compute capability 8.9; with compute capability 8.0 the weights are only stored so (Marlin)" in said(
        result
    )
    assert "Marlin" not in said(plan(config("llama-3.1-8b-fp8-dynamic"), [host(L4)], {"max_model_len": 8192}))


def test_a_cache_in_fp8_needs_ampere_and_there_flashinfer() -> None:
    wish = {"kv_cache_dtype": "fp8", "max_model_len": 2048}
    result = plan(config("phi-3-mini-4k"), [host(T4)], wish)
    assert (result["fits"], "a KV cache in fp8 needs 8.0 or more: set kv_cache_dtype auto" in said(result)) == (False, True)
    ampere, hopper = (plan(config("llama-3.1-8b"), [host(kind)], wish) for kind in (A100, H100))
    assert "with compute capability 8.0, FlashInfer alone reads a KV cache in fp8" in said(ampere)
    assert (ampere["fits"], hopper["fits"], "FlashInfer" in said(hopper)) == (True, True, False)


def test_without_bfloat16_vllm_falls_back_to_float16_unless_the_model_cannot() -> None:
    result = plan(config("phi-3-mini-4k"), [host(T4)], {"max_model_len": 2048, "max_num_seqs": 32})
    assert (result["fits"], result["dtype"]) == (True, "float16")
    assert "compute capability 7.5 has no bfloat16: vLLM computes in float16" in said(result)
    assert shape("gemma-2-9b").served_as("auto", (7, 5)) == "float32"


def test_bfloat16_that_is_asked_for_needs_ampere() -> None:
    result = plan(config("phi-3-mini-4k"), [host(T4)], {"dtype": "bfloat16"})
    assert (result["fits"], "bfloat16 needs compute capability 8.0 (Ampere), these GPUs have 7.5" in said(result)) == (False, True)


def test_gemma_in_float16_is_refused() -> None:
    result = plan(config("gemma-2-9b"), [host(H100)], {"dtype": "float16"})
    assert "vLLM refuses gemma2 in float16 (numerically unstable)" in said(result)


def test_volta_is_too_old() -> None:
    result = plan(config("phi-3-mini-4k"), [host(V100)])
    assert (result["fits"], "has compute capability 7.0, vLLM needs 7.5 (Turing) or more" in said(result)) == (False, True)


def test_mxfp4_needs_ampere_and_fits_one_h100() -> None:
    assert "mxfp4 needs 8.0 or more" in said(plan(config("gpt-oss-120b"), [host(*[T4] * 8)]))
    result = plan(config("gpt-oss-120b"), [host(H100)], {"max_model_len": 32768, "max_num_seqs": 64})
    assert (result["fits"], split(result)) == (True, (1, 1))


@pytest.mark.parametrize(
    ("declared", "bits", "form"),
    [
        (config("llama-3.1-70b-awq"), 4, quantization.Form.AWQ),
        (config("llama-3.1-70b-gptq"), 4, quantization.Form.GPTQ),
        (config("llama-3.1-70b-w4a16"), 4, quantization.Form.PACKED),
        (config("llama-3.1-8b-w8a8"), 8, quantization.Form.INT8),
        (config("llama-3.1-8b-fp8-dynamic"), 8, quantization.Form.FP8),
        (config("deepseek-v3"), 8, quantization.Form.FP8_BLOCKS),
        ({"quantization_config": {"quant_method": "modelopt", "quantization": {"quant_algo": "NVFP4", "group_size": 16}}}, 4, quantization.Form.FP4),
        ({"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}, 4, quantization.Form.NF4),
    ],
)
def test_every_way_of_quantisation_is_read(declared: dict[str, Any], bits: int, form: quantization.Form) -> None:
    read = quantization.read(declared)
    assert read is not None
    assert (read.bits, read.form) == (bits, form)


# Mixtures of experts and latent attention.


def test_all_experts_must_be_held_although_a_token_meets_two() -> None:
    result = plan(config("mixtral-8x7b"), [host(H100)], {"max_model_len": 8192})
    assert (result["fits"], "weights 87.0 GiB" in said(result)) == (False, True)
    assert split(plan(config("mixtral-8x7b"), [host(H100, H100)], {"max_model_len": 8192})) == (2, 1)


def test_deepseek_fits_eight_h200_and_each_holds_the_whole_cache() -> None:
    result = plan(config("deepseek-v3"), [host(*[H200] * 8)], {"max_model_len": 65536, "concurrent_sequences": 8})
    assert (result["fits"], split(result)) == (True, (8, 1))
    assert "latent attention: each of the 8 GPUs holds the whole KV cache" in said(result)
    assert not plan(config("deepseek-v3"), [host(*[H100] * 8)], {"max_model_len": 8192})["fits"]


def test_layers_that_predict_further_tokens_are_not_counted() -> None:
    model = shape("llama-3.1-8b")
    more = [*tensors.expected(model), tensors.Tensor("model.layers.32.mlp.up_proj.weight", "BF16", (14336, 4096))]
    assert weights.gather(model, more, "bfloat16").size == weights.gather(model, tensors.expected(model), "bfloat16").size


# Windows.


def test_a_model_that_looks_back_a_window_keeps_no_more_than_that_and_what_is_under_way() -> None:
    kept = cache.plan(shape("mistral-7b-v0.1"), range(32), tensor_parallel=1, bytes_per_value=2, block_tokens=16, in_flight=4096)
    assert kept.blocks_of(32768) == -(-(4095 + 4096) // 16) + 1
    assert kept.blocks_of(100) == 8


def test_layers_of_two_kinds_are_divided_into_groups_of_as_many_as_vllm_does() -> None:
    groups = cache.groups_of(shape("gemma-3-27b"))
    assert [(len(group.layers), group.window) for group in groups] == [(9, 1024)] * 4 + [(8, 1024)] * 2 + [(10, 0)]
    assert [len(group.layers) for group in cache.groups_of(shape("gemma-2-9b"))] == [21, 21]


def test_smaller_steps_are_advised_where_windows_keep_blocks_for_what_is_under_way() -> None:
    wish = {"max_model_len": 16384, "concurrent_sequences": 4}
    result = plan(config("gemma-3-27b"), [host(H100)], wish)
    assert (result["fits"], "52 of 62 layers look back 1024 tokens only" in said(result)) == (False, True)
    assert "take steps of 2048 tokens in place of 8192" in said(result)
    assert plan(config("gemma-3-27b"), [host(H100)], {**wish, "max_num_batched_tokens": 2048})["fits"]


def test_a_tower_for_images_is_counted_when_the_files_are_there() -> None:
    model = config("gemma-3-27b")
    tower = tensors.Tensor("vision_tower.vision_model.encoder.layers.0.mlp.fc1.weight", "BF16", (2**20, 512))
    with_files = plan(model, [host(H100)], {"max_model_len": 8192}, [*tensors.expected(architecture.read(model)), tower])
    without = plan(model, [host(H100)], {"max_model_len": 8192})
    assert with_files["weights_mib"] == without["weights_mib"] + 1024
    assert "the tower for images or sound is not counted" in said(without)


# MIG.


def test_a_mig_instance_is_a_gpu_of_its_size() -> None:
    result = plan(config("llama-3.1-8b"), [mig(9984, 20096)], {"max_model_len": 8192})
    assert (result["fits"], result["gpus"]) == (True, [{"host": "gpu1", "gpu": "0:1", "stage": 0}])
    assert "a MIG instance counts as a GPU of its size, and cannot share a model with others" in said(result)


def test_mig_instances_cannot_be_joined() -> None:
    result = plan(config("llama-3.1-8b"), [mig(20096, 20096, 20096)], {"tensor_parallel": 2})
    assert not result["fits"]
    assert "MIG instances cannot share a model: NCCL has neither P2P nor CUDA IPC between them" in said(result)


def test_a_model_that_is_too_large_for_any_instance_is_not_spread_over_several() -> None:
    result = plan(config("llama-3.1-8b"), [mig(9984, 9984, 9984)], {"max_model_len": 4096})
    assert (result["fits"], split(result)) == (False, (1, 1))
    assert "too much before any KV cache" in said(result)
    assert {one["what"] for one in result["alternatives"]} >= {"quantization", "memory_mib"}


def test_mig_without_instances_can_run_nothing() -> None:
    with pytest.raises(PlanError, match=r"GPU 0 of gpu1 has MIG on, but no instances"):
        plan(config("llama-3.1-8b"), [mig()])


# What vLLM may take.


def test_the_share_that_vllm_takes_is_respected() -> None:
    wish = {"max_model_len": 8192}
    less, more = (plan(config("llama-3.1-8b"), [host(H100)], {**wish, "gpu_memory_utilization": share}) for share in (0.5, 0.9))
    assert less["per_gpu"]["available_mib"] == pytest.approx(more["per_gpu"]["available_mib"] * 5 / 9, abs=2)
    assert less["kv_tokens"] < more["kv_tokens"]


def test_a_share_that_leaves_nothing_for_context_and_communicators_is_refused() -> None:
    result = plan(config("llama-3.1-8b"), [host(H100)], {"gpu_memory_utilization": 1.0})
    assert not result["fits"]
    assert "less is free than gpu_memory_utilization 1.0 asks for; set it to 0.99 at most" in said(result)


def test_steps_are_as_large_as_vllm_takes_them_on_such_a_gpu() -> None:
    batches = [activations.default_batch(memory, name, 8192) for name, memory, _capability in (H100, A100, L4, ("NVIDIA B200", 183359, "10.0"))]
    assert [(batch.tokens, batch.sequences) for batch in batches] == [(8192, 1024), (2048, 256), (2048, 256), (16384, 1024)]


def test_eager_mode_saves_the_graphs() -> None:
    with_graphs, without = (
        plan(config("llama-3.1-8b"), [host(H100)], {"enforce_eager": eager})["per_gpu"]["overhead_mib"] for eager in (False, True)
    )
    assert 100 < with_graphs - without < 1000


# The CPU build.


def test_the_cpu_build_counts_main_memory_and_blocks_of_128() -> None:
    result = plan(config("llama-3.2-1b"), [], {"max_model_len": 8192, "cpu": {"memory_mib": 16384, "kv_cache_mib": 4096}})
    assert (result["fits"], result["kv_tokens"]) == (True, 131072)
    short = plan(config("llama-3.2-1b"), [], {"max_model_len": 8192, "concurrent_sequences": 32, "cpu": {"memory_mib": 4096, "kv_cache_mib": 4096}})
    assert not short["fits"]
    assert "a KV cache of 4.0 GiB has 1024 blocks; 32 sequences of 8192 tokens need 2049" in said(short)
    assert "there are 4.0 GiB" in said(short)
    assert "give the KV cache 9 GiB" in said(short)
    whatever = plan(config("llama-3.2-1b"), [], {"max_model_len": 8192, "cpu": {"memory_mib": 16384}})
    assert (whatever["fits"], 9000 < whatever["per_gpu"]["kv_cache_mib"] < 12000) == (True, True)
    with pytest.raises(PlanError, match="main memory leaves nothing for a KV cache"):
        plan(config("llama-3.2-1b"), [], {"cpu": {"memory_mib": 2048}})


def test_a_processor_without_avx512_gets_no_model_that_dies_there_of_its_first_question(tmp_path: Path) -> None:
    older, newer = ["fpu", "avx2"], ["fpu", "avx2", "avx512f", "avx512cd", "avx512bw", "avx512dq", "avx512vl"]
    for name in ("llama-3.1-70b-awq", "llama-3.1-70b-gptq", "llama-3.1-70b-w4a16"):
        (reason,) = processor.lacks(config(name), {}, older)
        assert "no kernel for it on a processor without AVX-512" in reason, name
        # Another processor than x86 has no such flags.
        assert [len(processor.lacks(config(name), {}, flags)) for flags in (newer, newer[:-1], [])] == [0, 1, 0], name
    assert processor.lacks(config("llama-3.2-1b"), {"kv_cache_dtype": "auto"}, older) == []
    (reason,) = processor.lacks(config("llama-3.2-1b"), {"kv_cache_dtype": "fp8"}, older)
    assert "a KV cache of FP8 needs a processor with AVX-512" in reason
    for text, flags in (("processor\t: 0\nflags\t\t: fpu avx2\n", {"fpu", "avx2"}), ("Features\t: fp asimd\n", set())):
        (tmp_path / "cpuinfo").write_text(text)
        assert processor.flags(tmp_path / "cpuinfo") == flags


# The door.


def test_a_type_that_is_not_known_is_taken_for_llama_and_that_is_said() -> None:
    result = plan(config("llama-3.1-8b", model_type="novel"), [host(H100)])
    assert (result["fits"], "the model type 'novel' is not one that this planner knows" in said(result)) == (True, True)


def test_arguments_of_vllm_are_read_with_dashes_and_underscores() -> None:
    assert arguments({"max-num-seqs": 16, "gpu_memory_utilization": 0.8, "port": 1}) == {"max_num_seqs": 16, "gpu_memory_utilization": 0.8}


def test_models_on_one_host_get_gpus_of_their_own() -> None:
    params = {"host": "gpu1", "gpu_info": host(H100, H100, links="none"), "nodes": []}
    first = {"name": "a", **plan(config("llama-3.1-8b"), deal({"gpus": []}, params, []))}
    assert [node["use"] for node in deal({"gpus": []}, params, [first])] == [["1"]]
    with pytest.raises(PlanError, match=r"another model has GPU 0 of gpu1 \(a\) already"):
        deal({"gpus": ["0"]}, params, [first])
    second = {"name": "b", **plan(config("llama-3.1-8b"), deal({"gpus": []}, params, [first]))}
    with pytest.raises(PlanError, match="no GPU is given for gpu1"):
        plan(config("llama-3.1-8b"), deal({"gpus": []}, params, [first, second]))


def test_an_instance_over_several_hosts_is_planned_with_as_many_of_this_kind() -> None:
    params = {"host": "gpu1", "gpu_info": host(*[H100] * 8), "nodes": []}
    nodes = deal({"gpus": [], "nodes": [{"name": "gpu1"}, {"name": "gpu2"}]}, params, [])
    result = plan(config("llama-3.1-405b"), nodes, {"max_model_len": 8192, "tensor_parallel": 8, "pipeline_parallel": 2})
    assert (result["fits"], {gpu["host"] for gpu in result["gpus"]}) == (True, {"gpu1", "gpu1, node 2"})


def test_gpus_that_are_not_there_are_named() -> None:
    with pytest.raises(PlanError, match="gpu1 has no GPU 5; it has 0, 1"):
        read_host(host(H100, H100), ["5"])
    with pytest.raises(PlanError, match=r"compute_capability of GPU 0 of gpu1 is None; give it as '9.0'"):
        read_host({"name": "gpu1", "gpus": [{"index": 0, "memory_mib": 1}]})


def test_the_filter_plans_from_a_configuration_alone() -> None:
    result = model_plan(config("llama-3.1-8b"), [host(H100)], {"max_model_len": 8192})
    assert result["fits"]
    assert "Model x: does not fit one GPU" in summary({"name": "x", **model_plan(config("llama-3.1-70b"), [host(H100)])})


# Directories.


def write(directory: Path, model: dict[str, Any], *, cut: int = 0) -> None:
    """Write a checkpoint of zeros."""
    (directory / "config.json").write_text(json.dumps(model))
    header: dict[str, Any] = {}
    end = 0
    for tensor in tensors.expected(architecture.read(model)):
        header[tensor.name] = {"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [end, end + tensor.size]}
        end += tensor.size
    text = json.dumps(header).encode()
    with (directory / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end - cut)


SMALL = {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 320}


@pytest.mark.parametrize("name", ["llama-3.1-8b", "llama-3.1-70b-awq", "llama-3.1-70b-gptq", "llama-3.1-8b-w8a8"])
def test_a_directory_is_read_and_its_files_weigh_what_is_expected(tmp_path: Path, name: str) -> None:
    model = config(name, **SMALL)
    write(tmp_path, model)
    read = checkpoint.tensors(tmp_path)
    assert checkpoint.configuration(tmp_path) == model
    by_files, by_shape = (weights.gather(shape(name, **SMALL), one, "bfloat16") for one in (read, tensors.expected(shape(name, **SMALL))))
    assert (by_files.size, by_files.parameters) == (by_shape.size, by_shape.parameters)


def test_a_directory_that_is_not_complete_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"config.json cannot be read: No such file"):
        checkpoint.configuration(tmp_path)
    with pytest.raises(PlanError, match=r"holds no \*.safetensors files"):
        checkpoint.tensors(tmp_path)
    write(tmp_path, config("llama-3.1-8b", **SMALL), cut=100)
    with pytest.raises(PlanError, match="is cut short: its tensors need"):
        checkpoint.tensors(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"garbage that is no header")
    with pytest.raises(PlanError, match="is not a safetensors file"):
        checkpoint.tensors(tmp_path)
    (tmp_path / checkpoint.INDEX).write_text(json.dumps({"weight_map": {"a": "model-1.safetensors"}}))
    with pytest.raises(PlanError, match=r"names 1 files, of which 1 are missing \(model-1.safetensors"):
        checkpoint.tensors(tmp_path)


def test_older_checkpoints_keep_their_quantisation_in_a_file_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config("llama-3.1-8b")))
    (tmp_path / "quantize_config.json").write_text(json.dumps({"bits": 4, "group_size": 32, "desc_act": True}))
    read = quantization.read(checkpoint.configuration(tmp_path))
    assert read is not None
    assert (read.method, read.group, read.act_order) == ("gptq", 32, True)


# vLLM's log.

LOG = """
INFO [model_runner.py:425] Model loading took 14.99 GiB memory and 4.1 seconds
INFO [gpu_worker.py:744] Available KV cache memory: 50.00 GiB
INFO [kv_cache_utils.py:2327] GPU KV cache size: 409,600 tokens, Maximum concurrency for 8,192 tokens per request: 50.00x
INFO [model_runner.py:425] Model loading took 14.98 GiB memory and 4.1 seconds
INFO [gpu_worker.py:744] Available KV cache memory: 55.10 GiB
INFO [kv_cache_utils.py:2327] GPU KV cache size: 451,376 tokens, Maximum concurrency for 8,192 tokens per request: 55.10x
"""


def test_a_plan_is_laid_beside_what_vllm_counted_when_it_last_started() -> None:
    result = plan(config("llama-3.1-8b"), [host(H100)], {"max_model_len": 8192})
    rows = vllm_log.compare(result, LOG)
    assert [row["counted"] for row in rows] == [14.98, 55.1, 451376, 8192]
    assert all(row["ok"] for row in rows)
    assert not all(row["ok"] for row in vllm_log.compare({**result, "kv_tokens": 1000}, LOG))
    with pytest.raises(ValueError, match="the log does not say how large the KV cache is"):
        vllm_log.compare(result, "INFO nothing of the kind")


def test_the_line_of_the_cpu_build_is_understood() -> None:
    counted = vllm_log.read(
        "INFO Explicitly set (0.06/18.84) GiB for KV cache on node 0.\n"
        "INFO CPU KV cache size: 32,768 tokens, Maximum concurrency for 2,048 tokens per request: 16.00x"
    )
    assert (counted.kv_tokens, counted.max_model_len, counted.concurrency, counted.room_gib, counted.weights_gib) == (32768, 2048, 16.0, 0.06, None)


# vLLM 0.24 (PyTorch 2.11, CUDA 13.0) on one H200, 26 November 2026, weights made up by `--load-format dummy`: what it said, as it said it.
ON_AN_H200: dict[str, tuple[str, dict[str, Any], dict[str, Any], str]] = {
    "eager": (
        "llama-3.1-8b",
        {},
        {"max_model_len": 8192, "enforce_eager": True},
        """
Model loading took 15.0 GiB and 1.403494 seconds
Available KV cache memory: 111.67 GiB
GPU KV cache size: 914,784 tokens
Maximum concurrency for 8,192 tokens per request: 111.67x
""",
    ),
    "with graphs": (
        "llama-3.1-8b",
        {},
        {"max_model_len": 8192},
        """
Model loading took 15.0 GiB and 1.667631 seconds
Available KV cache memory: 111.61 GiB
GPU KV cache size: 914,304 tokens
Maximum concurrency for 8,192 tokens per request: 111.61x
""",
    ),
    "60 % of the GPU": (
        "qwen2.5-7b",
        {},
        {"max_model_len": 32768, "enforce_eager": True, "gpu_memory_utilization": 0.6, "max_num_seqs": 64},
        """
Model loading took 14.29 GiB memory and 0.373145 seconds
Available KV cache memory: 67.16 GiB
GPU KV cache size: 1,257,568 tokens
Maximum concurrency for 32,768 tokens per request: 38.38x
""",
    ),
    "experts, half of the layers": (
        "mixtral-8x7b",
        {"num_hidden_layers": 16},
        {"max_model_len": 16384, "enforce_eager": True},
        """
Model loading took 43.75 GiB memory and 0.229340 seconds
Available KV cache memory: 81.3 GiB
GPU KV cache size: 1,332,032 tokens
Maximum concurrency for 16,384 tokens per request: 81.30x
""",
    ),
}


@pytest.mark.parametrize("name", ON_AN_H200)
def test_a_plan_is_what_vllm_counts_on_a_real_gpu(name: str) -> None:
    model, changes, asked, log = ON_AN_H200[name]
    config = json.loads((FIXTURES / f"{model}.json").read_text(encoding="utf-8")) | changes
    h200 = {"index": 0, "name": "NVIDIA H200", "memory_mib": 143771, "compute_capability": "9.0", "numa_node": 0, "mig": False, "mig_instances": []}
    rows = vllm_log.compare(plan(config, [{"name": "h200", "gpus": [h200], "nvlink_groups": [[0]]}], asked), log, tolerance=2)
    assert len(rows) == 4
    assert all(row["ok"] for row in rows), rows
