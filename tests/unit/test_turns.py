"""Which of the jobs of a run of all tests begins next."""

from __future__ import annotations

from tests.__main__ import Turns


def test_two_heavy_ones_run_at_once_only_when_nothing_else_is_left() -> None:
    turns = Turns(["dify", "vllm", "etcd", "pki"], heavy={"dify", "vllm"})
    assert [turns.begin(), turns.begin()] == ["dify", "etcd"]
    turns.end("etcd")
    assert turns.begin() == "pki"
    assert turns.begin() == "vllm"
    assert turns.begin() is None


def test_the_next_heavy_one_begins_when_the_former_has_ended() -> None:
    turns = Turns(["dify", "vllm", "etcd"], heavy={"dify", "vllm"})
    assert turns.begin() == "dify"
    turns.end("dify")
    assert [turns.begin(), turns.begin()] == ["vllm", "etcd"]
