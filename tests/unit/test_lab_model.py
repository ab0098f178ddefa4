"""The lab's tiny checkpoints: what is packed in them, read back by the layouts' own rules, is the model that was meant."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.substrate import model
from lab.substrate.tensors import Matrix

PROJECTIONS = ["model.layers.0.self_attn.k_proj", "model.layers.0.self_attn.o_proj", "model.layers.1.mlp.down_proj"]
LETTERS = {"F32": "f", "F16": "e", "I32": "I", "I8": "b", "F8_E4M3": "B"}
# Where each of eight neighbouring outputs lies in AWQ's word, in steps of four bits from the lowest.
AWQ_PLACES = [0, 4, 1, 5, 2, 6, 3, 7]

Grid = list[list[float]]
# The weight of a projection as (value, largest error that rounding may leave), a row an output.
Read = list[list[tuple[float, float]]]


class Checkpoint:
    """One checkpoint's files."""

    def __init__(self, directory: Path) -> None:  # noqa: D107
        self.configuration: dict[str, Any] = json.loads((directory / "config.json").read_text())
        self.content = (directory / "model.safetensors").read_bytes()
        (length,) = struct.unpack_from("<Q", self.content)
        self.header: dict[str, Any] = json.loads(self.content[8 : 8 + length])
        self.begin = 8 + length

    def __getitem__(self, name: str) -> Grid:
        """Return a tensor's values, row by row."""
        entry = self.header[name]
        height, width = entry["shape"] if len(entry["shape"]) == 2 else [1, *entry["shape"]]
        first, last = entry["data_offsets"]
        values = struct.unpack(f"<{height * width}{LETTERS[entry['dtype']]}", self.content[self.begin + first : self.begin + last])
        return [list(values[row * width : (row + 1) * width]) for row in range(height)]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model, "MODELS", tmp_path_factory.mktemp("models"))
        assert model.prepare() is not None
        yield model.MODELS


@pytest.fixture(scope="module")
def meant() -> dict[str, Matrix]:
    return model.weights(model.vocabulary())


def nibble(word: float, place: int) -> int:
    return int(word) >> 4 * place & 15


def read_awq(files: Checkpoint, name: str) -> Read:
    words, zeros, scales = (files[f"{name}.{part}"] for part in ("qweight", "qzeros", "scales"))
    size = files.configuration["quantization_config"]["group_size"]

    def value(output: int, index: int) -> tuple[float, float]:
        word, place, group = output // 8, AWQ_PLACES[output % 8], index // size
        scale = scales[group][output]
        return (nibble(words[index][word], place) - nibble(zeros[group][word], place)) * scale, 0.51 * scale

    return [[value(output, index) for index in range(len(words))] for output in range(len(scales[0]))]


def read_gptq(files: Checkpoint, name: str) -> Read:
    words, zeros, scales = (files[f"{name}.{part}"] for part in ("qweight", "qzeros", "scales"))
    (order,) = files[f"{name}.g_idx"]

    def value(output: int, index: int) -> tuple[float, float]:
        group = int(order[index])
        scale = scales[group][output]
        zero = nibble(zeros[group][output // 8], output % 8) + 1
        return (nibble(words[index // 8][output], index % 8) - zero) * scale, 0.51 * scale

    return [[value(output, index) for index in range(len(order))] for output in range(len(scales[0]))]


def read_int8(files: Checkpoint, name: str) -> Read:
    scales = files[f"{name}.weight_scale"]
    return [[(code * scale, 0.501 * scale) for code in row] for row, (scale,) in zip(files[f"{name}.weight"], scales, strict=True)]


def read_fp8(files: Checkpoint, name: str) -> Read:
    def value(code: float, scale: float) -> tuple[float, float]:
        sign, exponent, fraction = int(code) >> 7, int(code) >> 3 & 15, int(code) & 7
        assert (exponent, fraction) != (15, 7), "not a number"
        size = math.ldexp(1 + fraction / 8, exponent - 7) if exponent else math.ldexp(fraction / 8, -6)
        step = math.ldexp(1, max(exponent, 1) - 7 - 3)
        return (-size if sign else size) * scale, 0.501 * step * scale

    return [[value(code, scale) for code in row] for row, (scale,) in zip(files[f"{name}.weight"], files[f"{name}.weight_scale"], strict=True)]


@pytest.mark.parametrize("projection", PROJECTIONS)
@pytest.mark.parametrize(("form", "read"), [("awq", read_awq), ("gptq", read_gptq), ("w8a8", read_int8), ("fp8", read_fp8)])
def test_packed_weights_are_the_model_s_own(
    made: Path, meant: dict[str, Matrix], form: str, read: Callable[[Checkpoint, str], Read], projection: str
) -> None:
    found = read(Checkpoint(made / f"tiny-{form}"), projection)
    wanted = meant[f"{projection}.weight"].rows()
    assert (len(found), len(found[0])) == meant[f"{projection}.weight"].shape
    wrong = [
        (output, index, value, wanted[output][index])
        for output, row in enumerate(found)
        for index, (value, bound) in enumerate(row)
        if abs(value - wanted[output][index]) > bound
    ]
    assert not wrong, f"{len(wrong)} weights are off, the first (output, input, found, meant): {wrong[0]}"


@pytest.mark.parametrize("form", ["awq", "gptq", "w8a8", "fp8"])
def test_only_projections_are_quantised(made: Path, form: str) -> None:
    names = Checkpoint(made / f"tiny-{form}").header
    plain = {name for name, entry in names.items() if name.endswith(".weight") and entry["dtype"] == "F32"}
    assert plain == {name for name in Checkpoint(made / "tiny").header if name.endswith(".weight") and "_proj." not in name}


@pytest.mark.parametrize("form", ["awq", "gptq"])
def test_groups_fit_each_of_two_gpus(made: Path, form: str) -> None:
    configuration = Checkpoint(made / f"tiny-{form}").configuration
    for inputs in (configuration["hidden_size"], configuration["intermediate_size"]):
        assert inputs // 2 % configuration["quantization_config"]["group_size"] == 0


def test_what_is_written_is_not_written_again(made: Path) -> None:
    assert model.prepare() is None
    (made / "tiny-gptq" / model.STAMP).write_text("another recipe's")
    done = model.prepare()
    assert done is not None
    assert done.split(" in ")[0] == "wrote tiny-gptq"
