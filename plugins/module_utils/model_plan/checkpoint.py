# Copyright (c) 2026, The sovereign.dify maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A model's directory: its configuration, and the headers of its safetensors files."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

from ansible_collections.sovereign.dify.plugins.module_utils.model_plan.architecture import TOKENIZER_LIMIT
from ansible_collections.sovereign.dify.plugins.module_utils.model_plan.errors import PlanError
from ansible_collections.sovereign.dify.plugins.module_utils.model_plan.tensors import BITS, Tensor

INDEX = "model.safetensors.index.json"
LARGEST_HEADER = 100_000_000


def configuration(directory: Path) -> dict[str, Any]:
    """Read ``config.json``, with the quantisation that older checkpoints keep in a file of its own and the limit of the tokeniser.

    Raises:
        PlanError: there is none, or it is not JSON.
    """
    config = _json(directory / "config.json")
    for name in ("quantize_config.json", "quant_config.json", "hf_quant_config.json"):
        if "quantization_config" not in config and (directory / name).is_file():
            own = _json(directory / name)
            method = "modelopt" if name.startswith("hf_") else "awq" if name.startswith("quant_config") else "gptq"
            config["quantization_config"] = {"quant_method": method, **own}
    if (directory / "tokenizer_config.json").is_file():
        config[TOKENIZER_LIMIT] = _json(directory / "tokenizer_config.json").get("model_max_length")
    return config


def tensors(directory: Path) -> list[Tensor]:
    """Read what tensors the files hold: those that the index names, or all of them.

    Raises:
        PlanError: there is none, or one is missing, cut short or not safetensors.
    """
    index = directory / INDEX
    if index.is_file():
        names = sorted(set(_json(index).get("weight_map", {}).values()))
        files = [directory / name for name in names]
        if missing := [path.name for path in files if not path.is_file()]:
            raise PlanError(f"{directory}: {INDEX} names {len(names)} files, of which {len(missing)} are missing ({missing[0]} …): copy them, too")
    else:
        files = sorted(directory.glob("*.safetensors"))
    if not files:
        raise PlanError(f"{directory} holds no *.safetensors files: they have not been copied, or the model is in another format")
    return [tensor for path in files for tensor in _header(path)]


def _header(path: Path) -> list[Tensor]:
    """Read a file's header: its length in eight bytes, and that much JSON."""
    size = path.stat().st_size
    with path.open("rb") as file:
        begin = file.read(8)
        length = struct.unpack("<Q", begin)[0] if len(begin) == 8 else 0
        if not 2 <= length <= min(LARGEST_HEADER, size - 8):
            raise PlanError(f"{path} is not a safetensors file, or is cut short ({size} bytes): copy it again")
        try:
            header = json.loads(file.read(length))
        except ValueError as error:
            raise PlanError(f"{path}: its header is not JSON ({error}): copy it again") from error
    entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
    if unknown := sorted({entry["dtype"] for entry in entries.values()} - BITS.keys()):
        raise PlanError(f"{path} holds tensors of types that are not known: {', '.join(unknown)}")
    end = max((entry["data_offsets"][1] for entry in entries.values()), default=0)
    if 8 + length + end > size:
        raise PlanError(f"{path} is cut short: its tensors need {8 + length + end} bytes, it has {size}. Copy it again")
    return [Tensor(name, entry["dtype"], tuple(entry["shape"])) for name, entry in entries.items()]


def _json(path: Path) -> dict[str, Any]:
    """Read a file of JSON."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise PlanError(f"{path} cannot be read: {error.strerror}. A model's directory holds config.json and *.safetensors") from error
    except ValueError as error:
        raise PlanError(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise PlanError(f"{path} is not a JSON object")
    return content
