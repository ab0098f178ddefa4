# Copyright (c) 2026, The sovereign.dify maintainers
# SPDX-License-Identifier: GPL-3.0-or-later
"""Arguments of ``vllm serve`` that users may set: those that change how fast a model answers, what memory it takes, or how its answers are parsed.

A list of what is allowed, because vLLM gets new arguments with each release: some of them load code, read files, open ports, or serve further models
under names that no client's grant knows. The inventory plugin and the role vllm both judge by this list. It was made from vLLM 0.32.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping


@dataclasses.dataclass(frozen=True)
class Allowed:
    """An argument that may be set.

    Attributes:
        values: The only texts that it may have; empty where it takes a number, a switch, a list, or a name that only vLLM's own parsers know.
        keys: Keys of the mapping that it takes; empty where it takes none.
    """

    values: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Fault:
    """An argument that is refused.

    Attributes:
        name: The argument, as it was given.
        reason: Why it is refused.
        instead: Key of the model that stands for it; None if there is none.
        remedy: What to do.
    """

    name: str
    reason: str
    instead: str | None
    remedy: str


def _plain(names: str) -> dict[str, Allowed]:
    return dict.fromkeys(names.split(), Allowed())


SPEED = _plain(
    "all2all-backend async-scheduling attention-backend cpu-distributed-timeout-seconds cudagraph-capture-sizes dbo-decode-token-threshold "
    "dbo-prefill-token-threshold decode-context-parallel-size disable-cascade-attn disable-chunked-mm-input disable-custom-all-reduce "
    "disable-nccl-for-dp-synchronization distributed-timeout-seconds enable-chunked-prefill enable-dbo enable-eplb enable-expert-parallel "
    "enable-flashinfer-autotune enable-prefix-caching enforce-eager expert-placement-strategy linear-backend long-prefill-token-threshold "
    "max-cudagraph-capture-size max-parallel-loading-workers mm-encoder-attn-backend mm-encoder-tp-mode moe-backend numa-bind numa-bind-cpus "
    "numa-bind-nodes optimization-level performance-mode renderer-num-workers safetensors-load-strategy scheduler-reserve-full-isl skip-mm-profiling "
    "stream-interval use-tqdm-on-load video-pruning-rate"
) | {
    "attention-config": Allowed(keys=("backend", "flash_attn_version", "use_trtllm_attention", "disable_flashinfer_q_quantization")),
    "compilation-config": Allowed(
        keys=(
            *("mode", "compile_sizes", "compile_ranges_endpoints", "compile_mm_encoder", "cudagraph_mm_encoder", "cudagraph_mode"),
            *("cudagraph_capture_sizes", "cudagraph_num_of_warmups", "max_cudagraph_capture_size", "use_inductor_graph_partition"),
        )
    ),
    "distributed-executor-backend": Allowed(values=("mp", "uni")),
    "eplb-config": Allowed(keys=("window_size", "step_interval", "num_redundant_experts", "use_async")),
    "load-format": Allowed(values=("safetensors", "fastsafetensors", "mistral", "gguf", "bitsandbytes")),
    "model-impl": Allowed(values=("auto", "vllm", "transformers")),
    "prefix-caching-hash-algo": Allowed(values=("sha256", "sha256_cbor")),
    "scheduling-policy": Allowed(values=("priority", "fcfs")),
    "speculative-config": Allowed(
        keys=(
            *("method", "num_speculative_tokens", "prompt_lookup_max", "prompt_lookup_min", "disable_padded_drafter_batch"),
            *("suffix_decoding_max_tree_depth", "suffix_decoding_max_cached_requests", "suffix_decoding_max_spec_factor"),
        )
    ),
}

MEMORY = _plain(
    "block-size cpu-offload-gb disable-hybrid-kv-cache-manager disable-sliding-window gpu-memory-utilization kv-cache-dtype "
    "kv-cache-dtype-skip-layers kv-cache-memory-bytes language-model-only mamba-block-size mamba-cache-dtype mamba-cache-mode mamba-ssm-cache-dtype "
    "max-logprobs max-num-active-seqs max-num-batched-tokens max-num-queued-reqs max-num-queued-tokens max-num-scheduled-tokens max-num-seqs "
    "mm-processor-cache-gb mm-shm-cache-max-object-size-mb num-gpu-blocks-override"
) | {
    "limit-mm-per-prompt": Allowed(keys=("image", "video", "audio")),
    "mm-processor-cache-type": Allowed(values=("lru", "shm")),
}

PARSING = _plain(
    "chat-template-content-format enable-auto-tool-choice enable-force-include-usage enable-prompt-tokens-details "
    "exclude-tools-when-tool-choice-none interleave-mm-strings logprobs-mode reasoning-parser return-tokens-as-token-ids seed tool-call-parser "
    "tool-strict-level"
) | {
    "convert": Allowed(values=("auto", "none", "embed", "classify")),
    "config-format": Allowed(values=("auto", "hf", "mistral")),
    "default-chat-template-kwargs": Allowed(keys=("enable_thinking", "thinking", "reasoning_effort")),
    "generation-config": Allowed(values=("auto", "vllm")),
    "hf-overrides": Allowed(keys=("rope_scaling", "rope_parameters", "rope_theta", "is_matryoshka", "matryoshka_dimensions")),
    "mm-processor-kwargs": Allowed(keys=("min_pixels", "max_pixels", "num_crops", "max_dynamic_patch", "fps")),
    "override-generation-config": Allowed(
        keys=("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty", "max_new_tokens")
    ),
    "pooler-config": Allowed(keys=("pooling_type", "use_activation", "dimensions", "enable_chunked_processing", "max_embed_len")),
    "runner": Allowed(values=("auto", "generate", "pooling")),
    "structured-outputs-config": Allowed(
        keys=("backend", "disable_any_whitespace", "disable_additional_properties", "enable_in_reasoning", "reasoning_parser")
    ),
    "tokenizer-mode": Allowed(values=("auto", "hf", "slow", "mistral")),
}

EFFECTS: Mapping[str, Mapping[str, Allowed]] = {"speed": SPEED, "memory": MEMORY, "parsing and sampling": PARSING}
ALLOWED: Mapping[str, Allowed] = {name: allowed for group in EFFECTS.values() for name, allowed in group.items()}


def _family(names: str, why: str, instead: str | None = None) -> dict[str, tuple[str | None, str]]:
    return dict.fromkeys(names.split(), (instead, why))


REFUSED: Mapping[str, tuple[str | None, str]] = {
    **_family("trust-remote-code code-revision", "code that comes with weights is never run, by policy"),
    **_family(
        "io-processor-plugin logits-processors middleware model-class-overrides reasoning-parser-plugin scheduler-cls tool-parser-plugin tool-server "
        "worker-cls worker-extension-cls",
        "it loads code that no manifest covers",
    ),
    **_family(
        "default-mm-loras enable-lora lora-modules max-lora-rank max-loras",
        "an adapter would be served under a name of its own, which no client's grant knows",
    ),
    **_family("allowed-local-media-path", "clients could read files of the host"),
    **_family("chat-template", "no manifest covers that file; put it beside the weights as `chat_template.jinja`"),
    **_family("trust-request-chat-template trust-request-mm-kwargs", "clients could steer the server with a template or arguments of their own"),
    **_family("enable-mm-embeds enable-prompt-embeds", "clients could send tensors that the server unpacks"),
    **_family("enable-log-outputs enable-log-requests", "it writes what users ask, or are answered, into the log"),
    **_family("otlp-traces-endpoint kv-events-config kv-transfer-config", "it sends what the server works on to another host"),
    **_family("tensor-parallel-size", "the number of GPUs is planned by host", "tensor_parallel"),
    **_family("pipeline-parallel-size", "the number of GPUs is planned by host", "pipeline_parallel"),
    **_family("data-parallel-size data-parallel-rank device-ids", "the number of GPUs is planned by host; name more `hosts`"),
    **_family("nnodes", "hosts are planned by the cluster file", "nodes"),
    **_family("node-rank master-addr master-port headless", "hosts are planned by the cluster file"),
    **_family("model", "it decides what is served", "source"),
    **_family("tokenizer hf-config-path download-dir revision", "what is served is the directory `source`, whole, as its manifest has it"),
    **_family("served-model-name", "a model is served under its name in this file"),
    **_family("port", "ports are planned by host", "port"),
    **_family("host uds grpc root-path", "instances listen where only their gateways reach them"),
    **_family("dtype", "it is a key of the model", "dtype"),
    **_family("quantization", "it is a key of the model", "quantization"),
    **_family("max-model-len", "it is a key of the model", "max_model_len"),
    **_family("api-key", "keys are checked by the model gateway"),
    **_family("ssl-keyfile ssl-certfile ssl-ca-certs enable-ssl-refresh", "certificates come from the role pki"),
    **_family("ssl-cert-reqs", "clients are always asked for a certificate"),
    **_family("ssl-ciphers", "cipher suites are the whole platform's (vllm_tls)"),
    **_family("config disable-fastapi-docs disable-log-stats shutdown-timeout", "the role vllm sets it"),
}
"""Arguments that people try, and vLLM has: to the key of the model that replaces them (if one does), and why. All others are refused, too."""

_NOT_LISTED = "it is not among the arguments that change only speed, memory, parsing or sampling"
_REMOVE = "remove it; docs/cluster.md lists what may be given"


def normalised(name: str) -> str:
    """Return an argument's name as vLLM writes it: with dashes, without the ``no-`` that turns a switch off."""
    return name.lstrip("-").replace("_", "-").removeprefix("no-")


def faults(given: Mapping[str, object]) -> Iterator[Fault]:
    """Find what may not be given.

    Args:
        given: Arguments by name, with dashes or underscores. Text that is a template is judged by name only: whoever has rendered it judges again.

    Yields:
        A fault for each argument that is refused.
    """
    for name, value in given.items():
        known = normalised(name)
        allowed = ALLOWED.get(known)
        head = normalised(name.partition(".")[0])
        if name.startswith("-"):
            yield Fault(name, "names are given without the leading dashes", None, f"write `{name.lstrip('-')}`, if that is allowed")
        elif allowed is None and "." in name and head in ALLOWED and ALLOWED[head].keys:
            yield Fault(
                name, "a part of an argument is given as a mapping", None, f"write `{head}: {{{name.partition('.')[2].replace('-', '_')}: …}}`"
            )
        elif allowed is None:
            instead, why = REFUSED.get(head, (None, _NOT_LISTED))
            yield Fault(name, why, instead, f"give `{instead}` beside `extra_args`" if instead else _REMOVE)
        elif complaint := _complaint(allowed, value):
            yield Fault(name, *complaint)


def _complaint(allowed: Allowed, value: object) -> tuple[str, None, str] | None:
    """Return reason, nothing and remedy where an argument's value is refused."""
    if isinstance(value, str) and ("{{" in value or "{%" in value):
        return None
    if allowed.keys:
        if value is None:
            return None
        if not isinstance(value, Mapping):
            return "it takes a mapping", None, f"write a mapping of {_either(allowed.keys)}"
        wrong = [str(key) for key in value if str(key).replace("-", "_") not in allowed.keys]
        if wrong:
            return f"its key '{wrong[0]}' may load code, read files, or is not known to be harmless", None, f"give only {_either(allowed.keys)}"
        return _dashed(value.values())
    if isinstance(value, Mapping):
        return "it takes no mapping", None, "give a number, a switch, a text or a list"
    if allowed.values and value is not None and str(value) not in allowed.values:
        return f"its value '{value}' is not allowed", None, f"give {_either(allowed.values)}"
    return _dashed(value if isinstance(value, (list, tuple)) else [value])


def _dashed(values: Iterable[object]) -> tuple[str, None, str] | None:
    """Refuse texts that vLLM would read as an argument of their own: its configuration file becomes a command line."""
    for value in values:
        if isinstance(value, str) and value.startswith("-"):
            return f"vLLM would read its value '{value}' as another argument", None, "give a value that does not begin with a dash"
    return None


def _either(words: Iterable[str]) -> str:
    return ", ".join(f"`{word}`" for word in words)
