"""Which instances of vLLM are restarted, and which are only busy: against reports of an engine that a test makes up."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.role_program import load

vllm_ready = load("vllm", "vllm_ready")
vllm_watchdog = load("vllm", "vllm_watchdog")

STALL = 15.0


def metrics(running: float = 0, waiting: float = 0, tokens: float = 0, cache: float = 0) -> str:
    labels = '{engine="0",model_name="m"}'
    return (
        "# HELP vllm:num_requests_running Number of requests\n"
        f"vllm:num_requests_running{labels} {running}\nvllm:num_requests_waiting{labels} {waiting}\n"
        f"vllm:generation_tokens_total{labels} {tokens}\nvllm:kv_cache_usage_perc{labels} {cache}\n"
        # Not the engine's: it changes by being looked at.
        'http_requests_total{handler="/metrics"} 17\nprocess_cpu_seconds_total 3.5\n'
    )


class Instance:
    """An instance whose engine says what a test sets, by a clock that only moves when it is looked at."""

    def __init__(self) -> None:
        """Begin idle and well."""
        self.now = 1000.0
        self.report: Callable[[], str] = metrics
        self.answers: Callable[[], Any] = lambda: "answered"
        self.asked = 0
        self.patient = vllm_watchdog.Patient("m", STALL, self.metrics, self.canary, lambda: self.now)

    def metrics(self, timeout: float) -> str:
        """Answer as `/metrics` does."""
        return self.report()

    def canary(self) -> str:
        """Answer a question."""
        self.asked += 1
        return str(self.answers())

    def watch(self, seconds: float) -> tuple[float, str]:
        """Look until something must be done, at most for some seconds; say after how long, and what."""
        began = self.now
        while self.now - began < seconds:
            self.now += vllm_watchdog.POLL_S
            if reason := self.patient.look():
                return self.now - began, reason
        return self.now - began, ""


@pytest.fixture
def instance() -> Instance:
    return Instance()


def fails(error: Exception) -> Callable[[], Any]:
    def raise_it() -> Any:
        raise error

    return raise_it


def test_a_report_holds_what_the_engine_says_and_nothing_of_the_server_around_it() -> None:
    report = vllm_ready.read_report(metrics(running=2, waiting=3, tokens=7))
    assert report.requests == 5
    assert {name.partition("{")[0] for name in report.values} == {
        "vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:generation_tokens_total", "vllm:kv_cache_usage_perc",
    }  # fmt: skip


def test_an_engine_that_stands_still_while_requests_run_is_found_in_time(instance: Instance) -> None:
    instance.watch(60)
    instance.report = lambda: metrics(running=1, tokens=40)
    seconds, reason = instance.watch(60)
    assert seconds <= STALL + 2 * vllm_watchdog.POLL_S
    assert reason.endswith("while 1 requests run or wait")


def test_a_busy_engine_is_left_alone_however_long_its_queue(instance: Instance) -> None:
    instance.answers = fails(AssertionError("a busy instance is not asked"))
    instance.report = lambda: metrics(running=16, waiting=500, tokens=instance.now)
    assert instance.watch(3600)[1] == ""


def test_reading_a_long_prompt_counts_as_work(instance: Instance) -> None:
    instance.report = lambda: metrics(running=1, cache=instance.now / 1e6)  # No token yet, but the cache fills.
    assert instance.watch(600)[1] == ""


def test_work_that_comes_slowly_counts_as_work(instance: Instance) -> None:
    instance.report = lambda: metrics(running=1, tokens=instance.now // (STALL - 3))
    assert instance.watch(600)[1] == ""


def test_an_idle_engine_is_asked_and_stays_if_it_answers(instance: Instance) -> None:
    assert instance.watch(60)[1] == ""
    assert 6 <= instance.asked <= 12


@pytest.mark.parametrize(
    "error", [vllm_ready.CanaryError("no answer"), vllm_ready.StartingError("refused"), vllm_ready.HopelessError("another model")]
)
def test_an_idle_engine_that_fails_two_questions_is_found_in_time(instance: Instance, error: Exception) -> None:
    instance.watch(30)

    def late() -> Any:
        instance.now += vllm_watchdog.CANARY_SHARE * STALL
        raise error

    instance.answers = late
    seconds, reason = instance.watch(60)
    assert seconds <= 24
    assert reason == f"idle, it does not answer a question: {error}"


def test_one_question_that_fails_is_forgiven(instance: Instance) -> None:
    instance.watch(30)
    answers = iter([False] + [True] * 100)
    instance.answers = lambda: next(answers) or fails(vllm_ready.CanaryError("no answer"))()
    assert instance.watch(60)[1] == ""


def test_a_question_that_waits_behind_new_work_is_no_failure(instance: Instance) -> None:
    instance.watch(30)
    tokens = iter(range(1000))
    instance.answers = fails(vllm_ready.CanaryError("no answer"))
    # Work comes while the question waits: the report after it is another.
    instance.report = lambda: metrics(tokens=next(tokens) // 2)
    assert instance.watch(60)[1] == ""


def test_a_server_that_does_not_answer_at_all_is_found(instance: Instance) -> None:
    instance.watch(30)
    instance.report = fails(ConnectionRefusedError("refused"))
    seconds, reason = instance.watch(120)
    assert 2 * STALL <= seconds <= 2 * STALL + 3 * vllm_watchdog.POLL_S
    assert "has not answered for" in reason


def test_certificates_that_are_refused_are_no_reason_for_a_restart(instance: Instance) -> None:
    instance.report = fails(ssl.SSLError("certificate has expired"))
    assert instance.watch(600)[1] == ""


def test_a_host_that_was_frozen_blames_nobody(instance: Instance) -> None:
    instance.report = lambda: metrics(running=1, tokens=3)
    instance.watch(STALL - 4)
    instance.now += 3600
    instance.report = lambda: metrics(running=1, tokens=3 + instance.now)
    assert instance.watch(60)[1] == ""


def test_a_host_that_was_frozen_in_the_middle_of_a_look_blames_nobody(instance: Instance) -> None:
    instance.watch(30)

    def frozen() -> str:
        instance.now += 3600
        instance.report = metrics
        raise TimeoutError

    instance.report = frozen
    assert instance.watch(60)[1] == ""


def test_a_follower_that_has_lost_its_leader_is_found_but_not_for_a_moment() -> None:
    clock, joined = [0.0], [True]
    follower = vllm_watchdog.Follower("m", "198.18.24.11", lambda: joined[0], lambda: clock[0])

    def look(seconds: float) -> str:
        clock[0] += seconds
        return str(follower.look())

    assert look(1) == ""
    joined[0] = False
    assert look(1) == ""
    joined[0] = True
    assert look(5) == ""
    joined[0] = False
    assert look(100) == ""
    assert look(vllm_watchdog.ALONE_S + 1) == "it has no connection with its leader 198.18.24.11 any more"


def test_the_environment_is_the_one_that_it_was_started_with(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m/m.env").write_text('# Ansible managed\nSOVEREIGN_PORT="8123"\nSOVEREIGN_LEADER=""\n')
    assert vllm_ready.environment_of("m", tmp_path) == {"SOVEREIGN_PORT": "8123", "SOVEREIGN_LEADER": ""}


def test_processes_of_a_control_group_are_found_by_what_systemd_calls_it(tmp_path: Path) -> None:
    for number, line in {
        "11": "0::/system.slice/vllm@m.service",
        "12": "1:name=systemd:/system.slice/vllm@m.service",
        "13": "0::/init.scope",
    }.items():
        (tmp_path / number).mkdir()
        (tmp_path / number / "cgroup").write_text(f"{line}\n")
        (tmp_path / number / "status").write_text("Name:\tVLLM::Worker\nState:\tT (stopped)\n")
    found = sorted(vllm_watchdog.processes_in("/system.slice/vllm@m.service", tmp_path))
    assert [process.name for process in found] == ["11", "12"]
    assert vllm_watchdog.describe(found) == "11 VLLM::Worker: T (stopped), 12 VLLM::Worker: T (stopped)"
