"""Matrices of a checkpoint, and how they are stored: number types and the file format safetensors."""

import array
import json
import struct
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

# How `struct` packs each type. Of I32 the bits count, not a sign; of F8_E4M3 it sees the finished bytes.
LETTERS = {"F32": "f", "F16": "e", "I32": "I", "I8": "b", "F8_E4M3": "B"}


class Matrix(NamedTuple):
    """Numbers row by row; a weight has a row an output and a column an input, a norm is one row."""

    shape: tuple[int, ...]
    values: "array.array[float]"  # quoted: arrays of a type need Python 3.12 to run

    def rows(self) -> list["array.array[float]"]:
        """Return the rows of a matrix with two dimensions."""
        count, width = self.shape
        return [self.values[row * width : (row + 1) * width] for row in range(count)]


class Stored(NamedTuple):
    """One tensor as the file holds it: safetensors' name of its number type, its shape, its values little-endian."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes


def store(dtype: str, shape: tuple[int, ...], values: Sequence[float]) -> Stored:
    """Pack values as `dtype`, a key of LETTERS."""
    return Stored(dtype, shape, struct.pack(f"<{len(values)}{LETTERS[dtype]}", *values))


def safetensors(tensors: Mapping[str, Stored]) -> bytes:
    """Return the tensors in the safetensors format: length of the header, header in JSON, values."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    body = bytearray()
    for name, (dtype, shape, data) in sorted(tensors.items()):
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [len(body), len(body) + len(data)]}
        body += data
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # the values begin at a multiple of 8
    return struct.pack("<Q", len(text)) + text + body
