# Copyright (c) 2026, The sovereign.dify maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What would fit where a model does not: each advice has been planned with, and holds by itself."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from ansible_collections.sovereign.dify.plugins.module_utils.model_plan.hardware import Gpu, Host
from ansible_collections.sovereign.dify.plugins.module_utils.model_plan.planner import GIB, NATIVE_FP8_CAPABILITY, Outcome, Planner
from ansible_collections.sovereign.dify.plugins.module_utils.model_plan.quantization import IN_FLIGHT, Form, Quantization

CHASSIS = 8
"""GPUs that a host usually has at most."""
SHORTEST = 1024
"""tokens: of a context below which nobody is helped."""
SMALL_STEP = 2048
"""tokens: of a step as vLLM takes it on smaller GPUs."""
AWQ = Quantization("awq", Form.AWQ, 4, 128, symmetric=False)
LINKED = re.compile(r"SXM|HBM3|H200|B200|B300|GB200|GB300")


@dataclass(frozen=True)
class Advice:
    """Something to change.

    Attributes:
        what: Option to change: ``max_model_len``, ``concurrent_sequences``, ``max_num_batched_tokens``, ``kv_cache_dtype``,
            ``quantization``, ``gpus``, ``memory_mib`` or, with the CPU build, ``kv_cache_mib``.
        value: What to set it to, or how much of it.
        text: It in words.
    """

    what: str
    value: int | str
    text: str


def advise(planner: Planner, hosts: Sequence[Host], outcome: Outcome | None) -> list[Advice]:
    """List what would make a model fit.

    Args:
        planner: The model and the wish.
        hosts: The hosts that it does not fit.
        outcome: The layout on them that comes closest; None where none is possible.
    """
    found: list[Advice] = []
    if outcome:
        found += [*_less(planner, outcome), *_smaller_steps(planner, hosts, outcome), *_smaller_cache(planner, hosts, outcome)]
        found += _smaller_weights(planner, hosts)
    gpus = [gpu for host in hosts for gpu in host.gpus]
    if gpus:
        found += [*_more(planner, gpus), *_larger(planner, hosts)]
    return found


def _less(planner: Planner, outcome: Outcome) -> Iterator[Advice]:
    """Ask for a shorter context, or for fewer sequences."""
    wish, kept, blocks = planner.wish, outcome.cache, outcome.blocks
    if outcome.problem:
        return
    longest = kept.longest(blocks, wish.sequences, wish.max_model_len)
    longest = longest // SHORTEST * SHORTEST
    where = outcome.layout.title()
    alone = kept.longest(blocks, 1, wish.max_model_len) // SHORTEST * SHORTEST
    sequences = (blocks - 1) // kept.blocks_of(wish.sequence_tokens)
    if wish.sequence_tokens == wish.max_model_len and SHORTEST <= longest < wish.max_model_len:
        yield Advice("max_model_len", longest, f"shorten the context to {longest} tokens, for {wish.sequences} sequences ({where})")
    elif alone >= SHORTEST and not sequences:
        yield Advice("max_model_len", alone, f"shorten the context to {alone} tokens, and serve one sequence at a time ({where})")
    if sequences and alone >= wish.max_model_len // SHORTEST * SHORTEST:
        yield Advice("concurrent_sequences", sequences, f"serve {sequences} sequences of {wish.sequence_tokens} tokens at a time ({where})")


def _smaller_steps(planner: Planner, hosts: Sequence[Host], outcome: Outcome) -> Iterator[Advice]:
    """Take smaller steps: layers with a window keep blocks for the tokens under way, and activations grow with them."""
    if planner.wish.batched_tokens or outcome.batch.tokens <= SMALL_STEP:
        return
    best = Planner(planner.shape, replace(planner.wish, batched_tokens=SMALL_STEP), planner.tensors).best(hosts)
    if best and best.fits:
        text = (
            f"take steps of {SMALL_STEP} tokens in place of {outcome.batch.tokens}: smaller, and slower with long questions ({best.layout.title()})"
        )
        yield Advice("max_num_batched_tokens", SMALL_STEP, text)


def _smaller_cache(planner: Planner, hosts: Sequence[Host], outcome: Outcome) -> Iterator[Advice]:
    """Halve the cache."""
    capable = min(gpu.capability for gpu in outcome.layout.gpus) >= NATIVE_FP8_CAPABILITY
    if planner.wish.kv_cache_dtype == "auto" and capable:
        best = Planner(planner.shape, replace(planner.wish, kv_cache_dtype="fp8"), planner.tensors).best(hosts)
        if best and best.fits:
            yield Advice("kv_cache_dtype", "fp8", f"keep the KV cache in fp8, half its size ({best.layout.title()}); check the answers' quality")


def _smaller_weights(planner: Planner, hosts: Sequence[Host]) -> Iterator[Advice]:
    """Quantise the weights, where they are not."""
    shape = planner.shape
    if shape.quantization and shape.quantization.bits <= 4:
        return
    capability = min(gpu.capability for host in hosts for gpu in host.gpus)
    options = [("fp8", "8 bits (fp8)", IN_FLIGHT["fp8"])] if capability >= NATIVE_FP8_CAPABILITY and not shape.quantization else []
    options.append(("awq", "4 bits (an AWQ or GPTQ checkpoint)", AWQ))
    partly: list[Advice] = []
    for name, words, quantization in options:
        other = Planner(shape.with_quantization(quantization), planner.wish)
        best = other.best(hosts)
        if not best:
            continue
        text = f"quantise the weights to {words}: {other.weights(best.dtype).size / GIB:.1f} GiB of weights"
        if best.fits:
            yield Advice("quantization", name, f"{text} ({best.layout.title()})")
            return
        partly += [Advice("quantization", name, f"{text}, and {less.text}") for less in _less(other, best)]
    # The least that must be given up beside it comes last: fewer bits leave more room.
    yield from partly[-1:]


def _more(planner: Planner, gpus: Sequence[Gpu]) -> Iterator[Advice]:
    """Take more of the largest GPU, as many in a host as there usually are."""
    model = max(gpus, key=lambda gpu: (not gpu.mig, gpu.memory_mib))
    if model.mig:
        return
    wish = replace(planner.wish, tensor_parallel=0, pipeline_parallel=0)
    other = Planner(planner.shape, wish, planner.tensors)
    # A single GPU does not tell whether its kind comes with NVLink, but its name does.
    linked = sum(gpu.island == model.island and gpu.host == model.host for gpu in gpus) > 1 or (len(gpus) == 1 and bool(LINKED.search(model.name)))
    for count in (2, 4, 8, 16, 24, 32, 48, 64):
        if count <= len(gpus):
            continue
        sizes = [CHASSIS] * (count // CHASSIS) + [count % CHASSIS] * bool(count % CHASSIS)
        hosts = [_host(model, f"host {number}", size, linked=linked) for number, size in enumerate(sizes, start=1)]
        best = other.best(hosts)
        if best and best.fits:
            spread = f" in {len(best.layout.hosts)} hosts" if len(best.layout.hosts) > 1 else " in one host"
            kind = f"{model.name or 'GPU'}, {model.memory_mib / 1024:.0f} GiB"
            needed = len(best.layout.gpus)
            yield Advice("gpus", needed, f"take {needed} GPUs ({kind} each){spread}: {best.layout.title()}")
            return


def _host(model: Gpu, name: str, count: int, *, linked: bool) -> Host:
    """Make up a host with some GPUs of a kind."""
    return Host(name, tuple(replace(model, host=name, label=str(number), island=0 if linked else number) for number in range(count)))


def _larger(planner: Planner, hosts: Sequence[Host]) -> Iterator[Advice]:
    """Take GPUs with more memory, as many as there are."""
    for gib in (16, 24, 32, 40, 48, 80, 96, 141, 180, 192, 288):
        larger = [Host(host.name, tuple(replace(gpu, memory_mib=max(gpu.memory_mib, gib * 1024)) for gpu in host.gpus)) for host in hosts]
        best = planner.best(larger)
        if best and best.fits:
            count = len(best.layout.gpus)
            those = "a GPU" if count == 1 else f"{count} GPUs"
            yield Advice("memory_mib", gib * 1024, f"take {those} with {gib} GiB of memory{' each' if count > 1 else ''} ({best.layout.title()})")
            return
