# Copyright (c) 2026, The sovereign.dify maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Why a plan is as it is, in words."""

from __future__ import annotations

from collections.abc import Sequence

from ansible_collections.sovereign.dify.plugins.module_utils.model_plan.hardware import Host
from ansible_collections.sovereign.dify.plugins.module_utils.model_plan.layouts import Layout, Link, faults
from ansible_collections.sovereign.dify.plugins.module_utils.model_plan.planner import (
    GIB,
    NATIVE_FP8_CAPABILITY,
    Outcome,
    Planner,
    incapable,
    possible,
)
from ansible_collections.sovereign.dify.plugins.module_utils.model_plan.quantization import native_capability

LINKS = {
    Link.PCIE: "by PCIe alone: no NVLink joins them, so every layer waits for it twice a token; vLLM's documentation advises a pipeline there",
    Link.NUMA: "over PCIe and between NUMA nodes, the slowest way there is: every layer waits for it twice a token",
}


def reasons(planner: Planner, hosts: Sequence[Host], best: Outcome | None) -> list[str]:
    """Say why it is so."""
    shape, wish = planner.shape, planner.wish
    said = [note for host in hosts for note in host.notes]
    if not shape.known:
        source = "its files" if planner.tensors is not None else "its configuration, as if it were like Llama"
        said.append(f"the model type {shape.model_type!r} is not one that this planner knows: it goes by {source}")
    if best is None:
        return [*said, *_impossible(planner, hosts)]
    said += [_verdict(planner, best), *_remarks(planner, hosts, best)]
    if wish.tensor_parallel or wish.pipeline_parallel:
        given = ", ".join(
            f"{name} {size}" for name, size in (("tensor parallel", wish.tensor_parallel), ("pipeline parallel", wish.pipeline_parallel)) if size
        )
        said.append(f"{given} was given, not chosen")
    return said


def _impossible(planner: Planner, hosts: Sequence[Host]) -> list[str]:
    """Say why there is no way to split the model at all."""
    shape, wish = planner.shape, planner.wish
    gpus = [gpu for host in hosts for gpu in host.gpus]
    most = max(len(host.gpus) for host in hosts)
    if wish.tensor_parallel and (found := faults(shape, wish.tensor_parallel, wish.pipeline_parallel or 1)):
        sizes = ", ".join(map(str, possible(shape, max(most, 2 * wish.tensor_parallel))))
        return [*found, f"tensor parallel can be {sizes}"]
    pipeline_only = wish.pipeline_parallel > 1 and faults(shape, 1, wish.pipeline_parallel)
    if pipeline_only:
        return list(pipeline_only)
    wanted = (wish.tensor_parallel or 1) * (wish.pipeline_parallel or 1)
    if any(gpu.mig for gpu in gpus) and wanted > 1:
        return [
            f"MIG instances cannot share a model: NCCL has neither P2P nor CUDA IPC between them, so {wanted} of them are not one larger GPU. "
            "Give the model one instance that is large enough, or whole GPUs"
        ]
    if (wish.tensor_parallel or 1) > most:
        return [f"tensor parallel {wish.tensor_parallel} stays inside a host, and no host has more than {most} GPUs: use a pipeline across hosts"]
    if wanted > len(gpus):
        return [f"{wanted} GPUs are asked for (tensor parallel times pipeline parallel), {len(gpus)} are there"]
    incapabilities = dict.fromkeys(reason for gpu in gpus if (reason := incapable(shape, [gpu], wish)))
    return list(incapabilities) or ["no way to split the model over these GPUs"]


def _verdict(planner: Planner, best: Outcome) -> str:
    """Say whether it fits, with the numbers."""
    wish, share, kept = planner.wish, best.tightest, best.cache
    where = f"{best.layout.title()} on {_named(best)}"
    parts = (
        f"weights {share.weights / GIB:.1f} GiB, activations {share.activations / GIB:.1f} GiB and overhead {share.overhead / GIB:.1f} GiB "
        f"of the {share.budget / GIB:.1f} GiB that vLLM may take of {share.gpu.title()}"
    )
    wanted = f"{wish.sequences} sequence{'s' if wish.sequences > 1 else ''} of {wish.sequence_tokens} tokens"
    if best.problem:
        return f"does not fit {where}: {best.problem}"
    need = best.needed * share.block / GIB
    if share.room <= 0:
        return f"does not fit {where}: {parts}: {-share.room / GIB:.1f} GiB too much before any KV cache"
    if not best.fits:
        return f"does not fit {where}: {parts} leave {share.room / GIB:.1f} GiB for the KV cache; {wanted} need {need:.1f} GiB"
    tokens = int(best.blocks / kept.blocks_of(wish.max_model_len) * wish.max_model_len)
    return f"fits {where}: {parts} leave {share.room / GIB:.1f} GiB for {tokens} tokens of KV cache; {wanted} need {need:.1f} GiB"


def _named(best: Outcome) -> str:
    """Name the GPUs of a layout."""
    by_host: dict[str, list[str]] = {}
    for gpu in best.layout.gpus:
        by_host.setdefault(gpu.host, []).append(("MIG " if gpu.mig else "") + gpu.label)
    return "; ".join(f"{host}: {', '.join(labels)}" for host, labels in by_host.items())


def _remarks(planner: Planner, hosts: Sequence[Host], best: Outcome) -> list[str]:
    """Say what else is worth knowing of a layout."""
    shape, wish, layout = planner.shape, planner.wish, best.layout
    remarks = []
    tensor = layout.tensor_parallel
    if len(layout.gpus) > 1:
        remarks += _smaller(planner, hosts, best)
    if tensor > 1 and layout.link is Link.NVLINK:
        remarks.append("the GPUs that share layers are joined by NVLink")
    if layout.link in LINKS:
        remarks.append(f"the GPUs that share layers reach each other {LINKS[layout.link]}")
    if layout.pipeline_parallel > 1:
        remarks.append(_pipeline(layout, hosts))
    if not shape.latent and tensor > shape.kv_heads:
        copies = tensor // shape.kv_heads
        remarks.append(
            f"{shape.kv_heads} heads of keys and values on {tensor} GPUs: each is held {copies} times, so the KV cache is not divided further"
        )
    if shape.latent and tensor > 1:
        remarks.append(f"latent attention: each of the {tensor} GPUs holds the whole KV cache of its layers")
    sizes = sorted({gpu.memory_mib for gpu in layout.gpus})
    if len(sizes) > 1:
        remarks.append(f"GPUs of several sizes: the smallest ({sizes[0] / 1024:.0f} GiB) decides, what larger ones have more stays unused")
    if any(gpu.mig for host in hosts for gpu in host.gpus):
        remarks.append("a MIG instance counts as a GPU of its size, and cannot share a model with others (no P2P between instances)")
    remarks += _types(planner, best)
    if any(shape.windows) and not all(shape.windows) and not shape.chunk:
        kept = sum(1 for window in shape.windows if window)
        remarks.append(
            f"{kept} of {shape.layers} layers look back {max(shape.windows)} tokens only and keep no more than that and the steps under way"
        )
    if shape.multimodal and planner.tensors is None:
        remarks.append("the tower for images or sound is not counted: its size is known from the model's files alone")
    if wish.sequences > best.batch.sequences:
        remarks.append(f"{wish.sequences} sequences at a time need max_num_seqs of as much; it is {best.batch.sequences}")
    return remarks


def _pipeline(layout: Layout, hosts: Sequence[Host]) -> str:
    """Say why there is a pipeline."""
    stages = layout.pipeline_parallel
    if len(layout.hosts) > 1:
        return f"a pipeline of {stages} stages over {len(layout.hosts)} hosts: tensor parallel stays inside a host, hidden states travel between them"
    if layout.link <= Link.NVLINK and _linked(hosts):
        return f"a pipeline of {stages} stages: tensor parallel stays where NVLink reaches, or the model cannot be divided further"
    if layout.tensor_parallel == 1:
        return (
            f"a pipeline of {stages} stages, because no NVLink joins the GPUs: it needs little of PCIe, and vLLM's documentation advises it; "
            f"tensor parallel {stages} would answer a single request sooner where PCIe is fast: set it to have it"
        )
    return f"a pipeline of {stages} stages, each of GPUs that are close to each other"


def _linked(hosts: Sequence[Host]) -> bool:
    """Tell whether any GPUs are joined by NVLink."""
    islands = [(gpu.host, gpu.island) for host in hosts for gpu in host.gpus]
    return len(set(islands)) < len(islands)


def _smaller(planner: Planner, hosts: Sequence[Host], best: Outcome) -> list[str]:
    """Say why one GPU is not enough."""
    if planner.wish.tensor_parallel or planner.wish.pipeline_parallel:
        return []
    alone = [outcome for outcome in planner.candidates(hosts) if len(outcome.layout.gpus) < len(best.layout.gpus)]
    if not alone:
        return []
    closest = max(alone, key=lambda one: (len(one.layout.gpus), one.blocks))
    return [f"fewer are not enough: {_verdict(planner, closest)}"]


def _types(planner: Planner, best: Outcome) -> list[str]:
    """Say what becomes of types that GPUs do not have."""
    shape, remarks = planner.shape, []
    lowest = min(gpu.capability for gpu in best.layout.gpus)
    have = f"compute capability {lowest[0]}.{lowest[1]}"
    if shape.quantization and (native := native_capability(shape.quantization)) and lowest < native[0]:
        remarks.append(
            f"{native[1]} multiplications begin with compute capability {native[0][0]}.{native[0][1]}; with {have} the weights are only stored so "
            "(Marlin): they are as small, but not faster"
        )
    if planner.wish.kv_cache_dtype.startswith("fp8") and lowest < NATIVE_FP8_CAPABILITY:
        remarks.append(f"with {have}, FlashInfer alone reads a KV cache in fp8: vLLM must have it, and the model must suit it")
    if planner.wish.dtype == "auto" and shape.dtype == "bfloat16" and best.dtype != "bfloat16":
        remarks.append(f"{have} has no bfloat16: vLLM computes in {best.dtype}")
    return remarks
