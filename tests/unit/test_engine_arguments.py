"""Which arguments of ``vllm serve`` may be given."""

from __future__ import annotations

import pytest
from ansible_collections.sovereign.dify.plugins.filter.engine_arguments_refused import engine_arguments_refused
from ansible_collections.sovereign.dify.plugins.module_utils.cluster.engine_arguments import ALLOWED, REFUSED
from ansible_collections.sovereign.dify.plugins.module_utils.model_plan.report import ARGUMENTS


@pytest.mark.parametrize(
    "given",
    [
        {"max-num-seqs": 64, "kv_cache_dtype": "fp8", "seed": 0, "gpu-memory-utilization": 0.9},
        {"no-enable-prefix-caching": True, "enable_chunked_prefill": False, "enforce-eager": None},
        {"compilation-config": {"cudagraph_mode": "PIECEWISE", "cudagraph-capture-sizes": [1, 2, 4]}},
        {"speculative-config": {"method": "ngram", "num_speculative_tokens": 4, "prompt_lookup_max": 4}},
        {"tool-call-parser": "hermes", "reasoning-parser": "qwen3", "enable-auto-tool-choice": True},
        {"limit-mm-per-prompt": {"image": 2, "video": 0}, "cudagraph-capture-sizes": [1, 2]},
        # Judged when it is rendered.
        {"seed": "{{ 3 + 4 }}", "compilation-config": "{{ my_config }}", "runner": "{% if true %}pooling{% endif %}"},
    ],
)
def test_what_changes_only_speed_memory_or_parsing_is_allowed(given: dict[str, object]) -> None:
    assert engine_arguments_refused(given) == []


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_what_people_try_is_refused_however_it_is_written(name: str) -> None:
    assert name not in ALLOWED
    for written in (name, name.replace("-", "_"), f"--{name}", f"no-{name}", f"no_{name.replace('-', '_')}", f"{name}.x", f"{name}+", f"{name}=1"):
        (sentence,) = engine_arguments_refused({written: True})
        assert f" {written} is refused: " in sentence, sentence


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"lora_modules": [{"name": "x", "path": "/srv/x"}]}, "no client's grant knows; remove it; docs/cluster.md lists"),
        ({"an-argument-of-a-later-release": 1}, "it is not among the arguments that change only speed"),
        ({"seed=1 --enable-lora": 1}, "it is not among"),
        ({"Seed": 1}, "it is not among"),
        ({"max-num": 1}, "it is not among"),
        ({"tensor_parallel_size": 2}, "give `tensor_parallel` beside `extra_args`"),
        ({"--seed": 1}, "write `seed`"),
        ({"compilation-config.cudagraph-mode": "NONE"}, "write `compilation-config: {cudagraph_mode: …}`"),
        ({"compilation_config.backend": "os.system"}, "a part of an argument is given as a mapping"),
        ({"compilation-config": {"backend": "os.system"}}, "its key 'backend'"),
        ({"compilation-config": {"inductor_passes": {"post_grad": "os.system"}}}, "its key 'inductor_passes'"),
        ({"compilation-config": '{"backend": "os.system"}'}, "it takes a mapping"),
        ({"compilation-config": {"mode": "--enable-lora"}}, "as another argument"),
        ({"speculative-config": {"model": "/srv/other"}}, "its key 'model'"),
        ({"structured-outputs-config": {"reasoning_parser_plugin": "/srv/x.py"}}, "its key 'reasoning_parser_plugin'"),
        ({"hf_overrides": {"auto_map": {}}}, "its key 'auto_map'"),
        ({"default-chat-template-kwargs": {"chat_template": "x"}}, "its key 'chat_template'"),
        ({"load-format": "pt"}, "its value 'pt' is not allowed; give `safetensors`"),
        ({"distributed-executor-backend": "some.module.Class"}, "is not allowed"),
        ({"generation-config": "/etc"}, "is not allowed"),
        ({"cudagraph-capture-sizes": "--enable-lora"}, "vLLM would read its value '--enable-lora' as another argument"),
        ({"cudagraph-capture-sizes": [1, "--enable-lora"]}, "as another argument"),
        ({"seed": {"x": 1}}, "it takes no mapping"),
    ],
)
def test_what_could_do_more_is_refused_with_the_reason_and_what_to_do(given: dict[str, object], said: str) -> None:
    (sentence,) = engine_arguments_refused(given)
    assert said in sentence, sentence


def test_the_plan_of_memory_reads_only_what_may_be_given_or_is_a_key_of_the_model() -> None:
    keys_of_the_model = {"tensor-parallel-size", "pipeline-parallel-size", "max-model-len", "dtype", "quantization"}
    assert set(ARGUMENTS) - keys_of_the_model <= set(ALLOWED)
