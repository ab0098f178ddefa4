# Copyright (c) 2026, The sovereign.dify maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The largest body that each hop on the way to a model takes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypedDict


class Hop(TypedDict):
    """A host on the way to a model.

    Keys:
        name: Name of the host.
        site: Its site.
        entry: Largest body in bytes that its nginx takes; None where it has none.
        gateway: Largest body in bytes that its model gateway takes; None where it has none.
        peers: Names of the hosts whose gateways its own gateway asks for models of other sites.
    """

    name: str
    site: str
    entry: int | None
    gateway: int | None
    peers: list[str]


def smaller_hops(hops: Sequence[Hop]) -> list[str]:
    """Find the hops that take less than the one before them: what they refuse has come a long way for nothing.

    Model servers are not among them: vLLM has no limit of its own.

    Args:
        hops: All hosts with an nginx or a model gateway.

    Returns:
        A sentence for each pair of hops that does not fit; none if all do.
    """
    by_name = {hop["name"]: hop for hop in hops}
    return [
        f"The model gateway on {after['name']} takes bodies of up to {after['gateway']} bytes, but {before} passes up to {limit} bytes on to it."
        for before, limit, after in _steps(hops, by_name)
        if after["gateway"] is not None and int(after["gateway"]) < limit
    ]


def _steps(hops: Sequence[Hop], by_name: dict[str, Hop]) -> Iterator[tuple[str, int, Hop]]:
    """Each hop in words, its limit, and the one behind it."""
    for hop in hops:
        if hop["entry"] is not None:
            yield from ((f"nginx on {hop['name']}", int(hop["entry"]), other) for other in hops if other["site"] == hop["site"])
        if hop["gateway"] is not None:
            yield from ((f"the one on {hop['name']}", int(hop["gateway"]), by_name[peer]) for peer in hop["peers"] if peer in by_name)
