"""What becomes of requests while instances hang, are restarted, come, move and go. Run after the other tests: it ends with other models."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ansible_collections.sovereign.dify.plugins.module_utils.model_plan.processor import AVX512, flags
from edited import run_with
from gateway_load import Load, ask

from lab.testing import host_variables

READY_S = 300
OUT_OF_ROTATION_S = 30
# More than twice as long as an instance may stand still. For the ten minutes of an evening: OVERLOAD_SECONDS=600.
OVERLOAD_S = float(os.environ.get("OVERLOAD_SECONDS", "35"))
RESTART_MODELS = "../../playbooks/ops/restart_models.yml"
DOUBLE = "double: {classification: restricted, source: /srv/models/tiny, tensor_parallel: 2, max_model_len: 1024, hosts: [gpu]}"
# vLLM's library for processors without AVX-512 has no kernel for weights of four bits: such a model loads, and its engine dies of the first question.
FOUR_BITS = flags() >= AVX512
AWQ, GPTQ = ("tiny-awq, quantization: awq", "tiny-gptq") if FOUR_BITS else ("tiny-w8a8", "tiny-w8a8")
QUANTISED = f"""awq: {{classification: public, source: /srv/models/{AWQ}, tensor_parallel: 2, max_model_len: 1024, hosts: [gpu]}}
  gptq: {{classification: public, source: /srv/models/{GPTQ}, max_model_len: 1024, port: 8777, hosts: [gpu2]}}
  w8a8: {{classification: public, source: /srv/models/tiny-w8a8, max_model_len: 1024, hosts: [gpu2]}}"""
# On its second host one that leaves still has its port, while its part on the first host has nobody in its way.
SPREAD = """wide: {classification: restricted, source: /srv/models/tiny, tensor_parallel: 2, nodes: 2, max_model_len: 1024,
    port: 8777, hosts: [gpu, gpu2]}
  w8a8: {classification: public, source: /srv/models/tiny-w8a8, max_model_len: 1024, hosts: [gpu]}"""
CLIENT = "models: [double, single]"
# Where each runs, and what vLLM says of how it multiplies.
EIGHT_BITS = "Selected CPUInt8ScaledMMLinearKernel for CompressedTensorsW8A8Int8"
KERNELS = {
    "awq": ("gpu", "Using CPUWNA16LinearKernel for AutoAWQMarlinLinearMethod" if FOUR_BITS else EIGHT_BITS),
    "gptq": ("gpu2", "Using CPUWNA16LinearKernel for AutoGPTQLinearMethod" if FOUR_BITS else EIGHT_BITS),
    "w8a8": ("gpu2", EIGHT_BITS),
}
WORDS = re.compile(r"( [a-z]+)+")


def show(on: Any, host: str, model: str, name: str) -> str:
    value: str = on(host).check_output(f"systemctl show --property={name} --value vllm@{model}.service")
    return value


def wait_until(condition: Callable[[], bool], seconds: float) -> float:
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds, "it did not happen in time"
        time.sleep(0.5)
    return time.monotonic() - began


def processes(on: Any, host: str, model: str, title: str) -> list[str]:
    """Processes of an instance by their title."""
    group = show(on, host, model, "ControlGroup")
    listed: str = on(host).check_output(f"grep -l -e ':{group}$' /proc/[0-9]*/cgroup | cut -d/ -f3 | xargs ps -o pid=,args= -p")
    return [line.split()[0] for line in listed.splitlines() if title in line]


def in_rotation(on: Any, model: str, server: str) -> bool:
    """Whether the gateway gives a server requests."""
    statistics = on("gateway").check_output("curl --silent 'http://127.0.0.1:8405/;csv'")
    (row,) = re.findall(rf"^model_{model},{server},.*$", statistics, re.MULTILINE)
    return row.split(",")[17].startswith("UP")


def stop_at_work(on: Any, host: str, model: str, process: str) -> None:
    """Stop a process of an instance while requests run: one that is stopped between two requests hangs idle, which is another case.

    Looking and stopping are one command on the host: on a busy machine two of them are seconds apart.
    """
    node = host_variables()[host]["node"]
    (port,) = [instance["port"] for instance in node["models"] if instance["name"] == model]
    shown = "--cert /etc/sovereign/pki/host.crt --key /etc/sovereign/pki/host.key --cacert /etc/sovereign/pki/ca.crt"
    running = f"curl --silent {shown} https://{node['address']}:{port}/metrics | sed -n 's/^vllm:num_requests_running{{.*}} \\([0-9]*\\).*/\\1/p'"
    look = f'for turn in $(seq 300); do [ "$({running})" -gt 1 ] && exec kill -STOP {process}; sleep 0.1; done; exit 1'
    on(host).run_expect([0], look)


def test_two_instances_are_restarted_one_after_the_other_and_nobody_notices(on: Any, tmp_path: Path) -> None:
    before = {host: show(on, host, "single", "MainPID") for host in ("gpu", "gpu2")}
    with Load("single", clients=4) as load:
        run = run_with(tmp_path, {}, "--extra-vars", '{"models": ["single"]}', playbook=RESTART_MODELS)
    assert run.returncode == 0, run.stdout
    assert all(show(on, host, "single", "MainPID") != process for host, process in before.items())
    print(f"restart of two instances: {len(load.answers)} requests, {len(load.failed)} failed")
    assert len(load.answers) > 40
    assert not load.failed


def test_an_instance_with_three_times_the_requests_that_it_takes_is_left_alone(on: Any) -> None:
    process = show(on, "gpu", "double", "MainPID")
    with Load("double", clients=48, tokens=100, pause=0.0, timeout=120) as load:
        time.sleep(OVERLOAD_S)
    waiting = max(answer.ended - answer.began for answer in load.answers)
    print(f"overloaded for {OVERLOAD_S:.0f} s: {len(load.answers)} answers, the slowest after {waiting:.1f} s, {len(load.failed)} failed")
    # Where others take the processors, the gateway's look at it may be late once: who comes in that moment is refused. It is not restarted for that.
    assert len(load.failed) <= 0.02 * len(load.answers), load.failed
    assert len(load.answers) > load.clients
    assert show(on, "gpu", "double", "MainPID") == process
    assert "double is restarted" not in on("gpu").check_output("journalctl --unit=vllm-watchdog --no-pager --output=cat")


def test_an_instance_that_hangs_with_requests_in_flight_is_out_of_rotation_and_comes_back(on: Any) -> None:
    wait_until(lambda: in_rotation(on, "single", "gpu2"), READY_S)
    process, restarts = show(on, "gpu2", "single", "MainPID"), int(show(on, "gpu2", "single", "NRestarts"))
    (worker,) = processes(on, "gpu2", "single", "VLLM::Worker")
    # Long answers, so that it is seldom without one.
    with Load("single", clients=4, tokens=600, pause=0.1, timeout=120) as load:
        wait_until(lambda: len(load.answers) > 3, 90)
        began = time.monotonic()
        stop_at_work(on, "gpu2", "single", worker)
        seconds = wait_until(lambda: not in_rotation(on, "single", "gpu2"), OUT_OF_ROTATION_S)
        out = time.monotonic()
        time.sleep(5)
    back = wait_until(lambda: in_rotation(on, "single", "gpu2"), READY_S)
    print(f"hung with requests in flight: out of rotation after {seconds:.1f} s, back {back:.0f} s later; {len(load.answers)} requests")
    assert show(on, "gpu2", "single", "MainPID") != process
    assert int(show(on, "gpu2", "single", "NRestarts")) == restarts + 1
    journal = on("gpu2").check_output("journalctl --unit=vllm-watchdog --no-pager --output=cat")
    why = r"nothing has changed for 1\d s while \d+ requests run or wait"
    assert re.search(rf"single is restarted: {why}. .*{worker} VLLM::Worker: T \(stopped\)", journal), journal
    # Those that were in flight there are lost; nobody else is.
    assert all(answer.began < out and answer.ended > began for answer in load.failed)
    assert len(load.failed) <= 2 * load.clients
    assert int(show(on, "gpu", "single", "NRestarts")) == 0


def test_an_idle_instance_that_hangs_is_found_and_spoilt_files_are_not_served(on: Any, tmp_path: Path) -> None:
    gpu = on("gpu")
    files = gpu.check_output("sed --quiet 's/^SOVEREIGN_FILES=\"\\(.*\\)\"$/\\1/p' /etc/vllm/double.env")
    gpu.run_expect([0], f"printf x | dd of={files}/model.safetensors bs=1 seek=1000000 conv=notrunc")
    (engine,) = processes(on, "gpu", "double", "VLLM::EngineCore")
    gpu.run_expect([0], f"kill -STOP {engine}")
    seconds = wait_until(lambda: show(on, "gpu", "double", "ActiveState") != "active", 60)
    print(f"hung while idle: killed after {seconds:.0f} s")
    assert "double is restarted: idle, it does not answer a question" in gpu.check_output("journalctl --unit=vllm-watchdog --no-pager --output=cat")
    wait_until(lambda: "model.safetensors is not what the manifest says" in gpu.check_output("journalctl --unit=vllm@double --no-pager"), 30)
    assert ask("double").status == 503
    run = run_with(tmp_path, {}, "--limit=gpu", "--tags=vllm", "--skip-tags=vllm_install")
    assert run.returncode == 0, run.stdout
    assert "was not what its manifest says; it is made anew" in " ".join(run.stderr.split())
    wait_until(lambda: in_rotation(on, "double", "gpu"), 30)
    assert ask("double").whole


def test_models_come_and_go_by_an_edit_and_a_rerun(on: Any, tmp_path: Path) -> None:
    process = show(on, "gpu", "single", "MainPID")
    edits = {DOUBLE: QUANTISED, CLIENT: "models: [awq, gptq, w8a8, single]"}
    with Load("single") as load:
        run = run_with(tmp_path, edits, "--skip-tags=vllm_install")
    assert run.returncode == 0, run.stdout
    assert not load.failed
    assert ask("double").status == 404
    assert show(on, "gpu", "double", "ActiveState") == "inactive"
    for model, (host, kernel) in KERNELS.items():
        answer = ask(model, max_tokens=8, temperature=0)
        assert answer.whole, answer
        # Weights that were unpacked wrongly give no words.
        assert WORDS.fullmatch(json.loads(answer.text)["choices"][0]["text"]), answer.text
        assert kernel in on(host).check_output(f"journalctl --unit=vllm@{model} --no-pager")
    assert show(on, "gpu", "single", "MainPID") == process


def test_a_model_of_four_bits_is_refused_where_the_processor_has_no_kernel_for_it(tmp_path: Path) -> None:
    four_bits = "awq: {classification: public, source: /srv/models/tiny-awq, max_model_len: 1024, hosts: [gpu]}"
    edits = {DOUBLE: four_bits, CLIENT: "models: [awq, single]"}
    run = run_with(tmp_path, edits, "--tags=preflight", "--skip-tags=pki,firewall")
    assert (run.returncode == 0) is FOUR_BITS, run.stdout
    assert ("vLLM has no kernel for it on a processor without AVX-512" in " ".join(run.stdout.split())) is not FOUR_BITS, run.stdout


def test_a_model_over_two_hosts_answers_and_another_moves_without_being_missed(on: Any, tmp_path: Path) -> None:
    edits = {DOUBLE: SPREAD, CLIENT: "models: [wide, w8a8, single]"}
    with Load("w8a8") as load:
        # One host after another: the first one's part waits for the second one's, which must not have to wait for it.
        run = run_with(tmp_path, edits, "--skip-tags=vllm_install", "--forks=1")
    assert run.returncode == 0, run.stdout
    # One instance alone: what is refused is what a busy machine's gateway takes for dead for a moment, not the time that the new one takes to start.
    assert len(load.answers) > 50
    assert len(load.failed) <= 0.05 * len(load.answers), load.failed
    assert show(on, "gpu2", "w8a8", "ActiveState") == "inactive"
    answer = ask("wide", max_tokens=8)
    assert answer.whole, answer
    assert [len(processes(on, host, "wide", "VLLM::Worker_TP")) for host in ("gpu", "gpu2")] == [1, 1]
    again = run_with(tmp_path, edits, "--skip-tags=vllm_install")
    assert re.search(r"^gpu\s.*changed=0 ", again.stdout, flags=re.MULTILINE), again.stdout
    assert re.search(r"^gpu2\s.*changed=0 ", again.stdout, flags=re.MULTILINE), again.stdout


def test_a_model_over_two_hosts_that_loses_one_of_them_comes_back(on: Any) -> None:
    leader = show(on, "gpu", "wide", "MainPID")
    on("gpu2").run_expect([0], "systemctl kill --signal=SIGKILL vllm@wide")
    back = wait_until(lambda: show(on, "gpu", "wide", "MainPID") not in {leader, "0"} and show(on, "gpu", "wide", "ActiveState") == "active", READY_S)
    print(f"one of two hosts lost: both answer again after {back:.0f} s")
    wait_until(lambda: ask("wide").whole, 30)
