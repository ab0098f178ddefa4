# Copyright (c) 2026, The sovereign.dify maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The ways to split a model over GPUs: which sizes of tensor parallelism a model allows, and which GPUs would be taken."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum

from ansible_collections.sovereign.dify.plugins.module_utils.model_plan.architecture import Architecture
from ansible_collections.sovereign.dify.plugins.module_utils.model_plan.hardware import Gpu, Host
from ansible_collections.sovereign.dify.plugins.module_utils.model_plan.quantization import Form
from ansible_collections.sovereign.dify.plugins.module_utils.model_plan.weights import padded


class Link(IntEnum):
    """How the GPUs that share a layer reach each other, the best first."""

    ALONE = 0
    NVLINK = 1
    PCIE = 2
    NUMA = 3


@dataclass(frozen=True)
class Layout:
    """A way to split a model.

    Attributes:
        tensor_parallel: GPUs that share each layer.
        stages: GPUs of each stage of the pipeline.
        link: How the GPUs of the stage with the worst links reach each other.
    """

    tensor_parallel: int
    stages: tuple[tuple[Gpu, ...], ...]
    link: Link

    @property
    def pipeline_parallel(self) -> int:
        """Stages of the pipeline."""
        return len(self.stages)

    @property
    def gpus(self) -> tuple[Gpu, ...]:
        """All GPUs."""
        return tuple(gpu for stage in self.stages for gpu in stage)

    @property
    def hosts(self) -> tuple[str, ...]:
        """Names of the hosts, each once."""
        return tuple(dict.fromkeys(gpu.host for gpu in self.gpus))

    @property
    def preference(self) -> tuple[int, int, int, int]:
        """What makes one better than another: few GPUs, few hosts, good links, a short pipeline."""
        return len(self.gpus), len(self.hosts), max(self.link, Link.NVLINK), self.pipeline_parallel

    def title(self) -> str:
        """Say it in a few words."""
        split = f"tensor parallel {self.tensor_parallel}, pipeline parallel {self.pipeline_parallel}"
        return split if len(self.gpus) > 1 else "one GPU"


def layers_of(layers: int, stages: int) -> list[range]:
    """Divide layers into stages as vLLM does: what is left over goes to the middle and the stages before the last (``get_pp_indices``)."""
    sizes = [layers // stages] * stages
    for number in range(2, layers % stages + 2):
        sizes[-number] += 1
    begins = [sum(sizes[:stage]) for stage in range(stages)]
    return [range(begin, begin + size) for begin, size in zip(begins, sizes, strict=True)]


def faults(shape: Architecture, tensor_parallel: int, pipeline_parallel: int = 1) -> list[str]:
    """Tell why vLLM would refuse to split a model so; nothing if it would not."""
    found: list[str] = []
    if tensor_parallel > 1:
        found = [*_head_faults(shape, tensor_parallel), *_width_faults(shape, tensor_parallel), *_group_faults(shape, tensor_parallel)]
    if pipeline_parallel > shape.layers:
        found.append(f"{pipeline_parallel} stages, but the model has {shape.layers} layers")
    return found


def _head_faults(shape: Architecture, tensor_parallel: int) -> Iterator[str]:
    """Check attention heads and the vocabulary."""
    if shape.heads % tensor_parallel:
        yield f"{shape.heads} attention heads cannot be divided by tensor parallel {tensor_parallel}"
    if not shape.latent and shape.kv_heads % tensor_parallel and tensor_parallel % shape.kv_heads:
        yield f"{shape.kv_heads} heads of keys and values can neither be divided by tensor parallel {tensor_parallel} nor copied evenly"
    if padded(shape.vocabulary) % tensor_parallel:
        yield f"the vocabulary, padded to {padded(shape.vocabulary)}, cannot be divided by tensor parallel {tensor_parallel}"


def _width_faults(shape: Architecture, tensor_parallel: int) -> Iterator[str]:
    """Check the inner widths."""
    for what, width in _widths(shape).items():
        if width % tensor_parallel:
            yield f"{what} of {width} cannot be divided by tensor parallel {tensor_parallel}"


def _widths(shape: Architecture) -> dict[str, int]:
    """Give the inner widths that are divided."""
    widths = {}
    if not shape.experts or len(shape.experts.layers) < shape.layers:
        widths["the intermediate size"] = shape.intermediate
    if shape.experts:
        widths["the experts' intermediate size"] = shape.experts.intermediate
        if shape.experts.shared:
            widths["the shared expert's intermediate size"] = shape.experts.shared
    return widths


def _group_faults(shape: Architecture, tensor_parallel: int) -> Iterator[str]:
    """Check that each GPU gets whole groups or blocks of weights (``verify_group_size_divides_partition``, ``validate_fp8_block_shape``)."""
    quantization = shape.quantization
    if quantization is None or (quantization.form is Form.FP4 and quantization.method == "mxfp4"):  # those are padded
        return
    inputs = {"the attention's output": shape.heads * (shape.latent.value if shape.latent else shape.head), **_widths(shape)}
    unit, what = (quantization.group, "groups of {} weights") if quantization.group else (quantization.block[1], "blocks of {}")
    if unit:
        for name, width in inputs.items():
            if width % tensor_parallel == 0 and width // tensor_parallel % unit:
                share = width // tensor_parallel
                whole = what.format(unit)
                yield f"{quantization.method}: {name} of {width} gives {share} a GPU at tensor parallel {tensor_parallel}, not whole {whole}"


def layouts(shape: Architecture, hosts: Sequence[Host], *, tensor_parallel: int = 0, pipeline_parallel: int = 0) -> list[Layout]:
    """List the ways to split a model over some hosts' GPUs, the best first.

    Args:
        shape: The model.
        hosts: The hosts.
        tensor_parallel: GPUs that shall share each layer; 0 for any number.
        pipeline_parallel: Stages that the pipeline shall have; 0 for any number.
    """
    count = sum(len(host.gpus) for host in hosts)
    most = max((len(host.gpus) for host in hosts), default=0)
    widths = _stage_widths(shape, hosts)
    found: list[Layout] = []
    for tensor in [tensor_parallel] if tensor_parallel else range(1, most + 1):
        # A pipeline is for what links do not reach: its stages are as wide as those allow, unless something else was asked for.
        long = tensor_parallel or pipeline_parallel or tensor in widths
        for pipeline in [pipeline_parallel] if pipeline_parallel else range(1, count // tensor + 1 if long else 2):
            if not faults(shape, tensor, pipeline):
                found += _placements(hosts, tensor, pipeline)
    return sorted(found, key=lambda layout: layout.preference)


def _stage_widths(shape: Architecture, hosts: Sequence[Host]) -> set[int]:
    """Give how many GPUs the stages of a pipeline may have: what NVLink joins, or, without it, a NUMA node or a host; as far as the model allows."""
    gpus = [gpu for host in hosts for gpu in host.gpus if not gpu.mig]
    sizes = set(Counter((gpu.host, gpu.island) for gpu in gpus).values())
    if sizes <= {1}:
        sizes |= {*Counter((gpu.host, gpu.numa) for gpu in gpus).values(), *Counter(gpu.host for gpu in gpus).values()}
    return {max(tensor for tensor in range(1, size + 1) if not faults(shape, tensor)) for size in sizes}


def _placements(hosts: Sequence[Host], tensor: int, pipeline: int) -> Iterator[Layout]:
    """Place stages on GPUs: on the largest, on those that are alike, and, with MIG, on one instance."""
    whole = [Host(host.name, tuple(gpu for gpu in host.gpus if not gpu.mig)) for host in hosts]
    if tensor == pipeline == 1:
        # One GPU of each kind is enough to look at, the smallest first: the larger ones are left to others.
        kinds = {(gpu.memory_mib, gpu.name, gpu.capability): gpu for host in reversed(hosts) for gpu in reversed(host.gpus)}
        yield from (Layout(1, ((gpu,),), Link.ALONE) for dummy, gpu in sorted(kinds.items(), key=lambda item: item[0]))
        return
    seen = set()
    alike = dict.fromkeys((gpu.memory_mib, gpu.name) for host in whole for gpu in sorted(host.gpus, key=lambda gpu: gpu.memory_mib))
    for kind in [*sorted(alike), None]:
        chosen = [Host(host.name, tuple(gpu for gpu in host.gpus if kind in (None, (gpu.memory_mib, gpu.name)))) for host in whole]
        layout = _place(chosen, tensor, pipeline)
        if layout and layout.stages not in seen:
            seen.add(layout.stages)
            yield layout


def _place(hosts: Sequence[Host], tensor: int, pipeline: int) -> Layout | None:
    """Place stages, each inside a host, by the best links there are; None where there are not enough GPUs."""
    free = {host.name: sorted(host.gpus, key=lambda gpu: (-gpu.memory_mib, int(gpu.label.partition(":")[0]))) for host in hosts}
    # As few hosts as possible: those with most GPUs first.
    order = sorted(free, key=lambda name: (-len(free[name]), list(free).index(name)))
    stages: list[tuple[Gpu, ...]] = []
    worst = Link.ALONE
    for dummy in range(pipeline):
        options = [(link, order.index(name), gpus) for name in order for link, gpus in _sets(free[name], tensor)]
        used = {stage[0].host for stage in stages}
        if not options:
            return None
        link, _place_in_order, gpus = min(options, key=lambda option: (option[2][0].host not in used if used else False, option[0], option[1]))
        stages.append(gpus)
        worst = max(worst, link)
        free[gpus[0].host] = [gpu for gpu in free[gpus[0].host] if gpu not in gpus]
    return Layout(tensor, tuple(stages), worst)


def _sets(free: Sequence[Gpu], size: int) -> Iterator[tuple[Link, tuple[Gpu, ...]]]:
    """Give sets of GPUs of one host, at most one for each kind of link."""
    if size == 1:
        yield from ((Link.ALONE, (gpu,)) for gpu in free[:1])
        return
    for link, key in ((Link.NVLINK, lambda gpu: gpu.island), (Link.PCIE, lambda gpu: gpu.numa), (Link.NUMA, lambda gpu: 0)):
        sets: dict[object, list[Gpu]] = {}
        for gpu in free:
            sets.setdefault(key(gpu), []).append(gpu)
        enough = [gpus for gpus in sets.values() if len(gpus) >= size]
        if enough:
            # The set that leaves fewest behind, so that larger ones stay whole.
            best = min(enough, key=lambda gpus: (-gpus[size - 1].memory_mib, len(gpus)))
            yield link, tuple(best[:size])
            return
