"""What the servers answer, to whom, and what they survive."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import time
from collections.abc import Callable
from typing import Any

import pytest
import yaml
from ansible_collections.sovereign.dify.plugins.module_utils.model_plan import checkpoint, report, vllm_log
from gateway_load import Load

from lab.substrate.steps import CACHE
from lab.testing import rerun, tls_faults

MODELS = ("double", "single")
CERTIFICATE = "--cert /etc/sovereign/pki/host.crt --key /etc/sovereign/pki/host.key"
# In TLS 1.3 a client hears of its refusal only after it has begun to talk: as an alert, or as a connection that is closed.
CURL_REFUSED_BY_SERVER = {35, 55, 56}
READY = "/usr/local/lib/sovereign/vllm_ready.py"


def play(variables: dict[str, Any] | None = None, tags: str = "vllm", skip: str = "") -> subprocess.CompletedProcess[str]:
    """Run the scenario's playbook once more, for the models' host alone."""
    return rerun("--limit=gpu", f"--tags={tags}", f"--skip-tags={skip}", **(variables or {}))


def show(on: Any, model: str, name: str) -> str:
    value: str = on("gpu").check_output(f"systemctl show --property={name} --value vllm@{model}.service")
    return value


def wait_until(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(1)


@pytest.fixture(scope="module")
def ports(contract: Any) -> dict[str, int]:
    return {model["name"]: model["port"] for model in contract("gpu")["node"]["models"]}


@pytest.fixture(scope="module")
def ask(on: Any, contract: Any, ports: dict[str, int]) -> Callable[..., Any]:
    """Give a function that asks a model's server from the gateway's host."""
    gpu = contract("gpu")["node"]

    def curl(model: str, path: str = "/v1/completions", body: dict[str, Any] | None = None, options: str = CERTIFICATE, host: str = "gateway") -> Any:
        url = f"https://{gpu['fqdn']}:{ports[model]}{path}"
        body = {"model": model, "prompt": "Good morning", "max_tokens": 4, **(body or {})}
        return on(host).run(
            f"curl --silent --show-error --no-buffer --max-time 60 --write-out '\\n%{{http_code}}' --cacert /etc/sovereign/pki/ca.crt {options}"
            f" --resolve {gpu['fqdn']}:{ports[model]}:{gpu['address']} --json '{json.dumps(body)}' {url}"
        )

    return curl


@pytest.mark.parametrize("model", MODELS)
def test_a_completion_names_the_model_that_answered(ask: Any, model: str) -> None:
    answer = ask(model)
    assert answer.rc == 0, answer.stderr
    body, status = answer.stdout.rsplit("\n", 1)
    assert status == "200"
    assert json.loads(body)["model"] == model
    assert json.loads(body)["usage"]["completion_tokens"] > 0


def test_a_chat_streams_chunk_by_chunk(ask: Any) -> None:
    answer = ask("double", "/v1/chat/completions", {"stream": True, "max_tokens": 16, "messages": [{"role": "user", "content": "Hello"}]})
    events = re.findall(r"^data: (.*)$", answer.stdout, flags=re.MULTILINE)
    assert events[-1] == "[DONE]"
    assert len(events) > 4
    assert {json.loads(event)["model"] for event in events[:-1]} == {"double"}


@pytest.mark.parametrize("model", MODELS)
def test_old_cipher_suites_are_refused(on: Any, contract: Any, ports: dict[str, int], model: str) -> None:
    faults = tls_faults(on("gateway"), f"{contract('gpu')['node']['address']}:{ports[model]}")
    # Python's server refuses by hanging up, without an alert.
    assert [fault for fault in faults if not (fault.startswith("old suites are not refused: ") and "unexpected eof while reading" in fault)] == []


def test_the_model_is_split_over_two_workers(on: Any) -> None:
    workers = [line for line in on("gpu").check_output("ps -e -o args").splitlines() if "Worker_TP" in line]
    assert len(workers) == 2, workers


def test_another_models_name_is_not_answered(ask: Any) -> None:
    assert ask("single").stdout.endswith("200")
    assert ask("single", body={"model": "double"}).stdout.endswith("404")


def test_without_a_client_certificate_nobody_is_answered(ask: Any) -> None:
    assert ask("single").rc == 0
    assert ask("single", options="").rc in CURL_REFUSED_BY_SERVER


def test_only_the_gateway_reaches_the_port(ask: Any, contract: Any, ports: dict[str, int]) -> None:
    assert ask("single").rc == 0
    address = contract("gpu")["node"]["address"]
    socket.create_connection((address, 22), timeout=5).close()  # This machine reaches the host, but it is no gateway.
    with pytest.raises(OSError, match="timed out"):
        socket.create_connection((address, ports["single"]), timeout=3)


def test_nothing_else_listens_outside_loopback(on: Any, ports: dict[str, int]) -> None:
    listening = on("gpu").check_output("ss --no-header --listening --tcp --numeric").splitlines()
    outside = {line.split()[3] for line in listening if not line.split()[3].startswith(("127.", "[::1]"))}
    assert {int(address.rsplit(":", 1)[1]) for address in outside} == {22, *ports.values()}


def test_it_runs_without_privileges_and_cannot_write_its_model(on: Any) -> None:
    pid = show(on, "single", "MainPID")
    status = on("gpu").check_output(f"cat /proc/{pid}/status")
    assert re.search(r"^CapBnd:\s+0+$", status, flags=re.MULTILINE)
    assert re.search(r"^NoNewPrivs:\s+1$", status, flags=re.MULTILINE)
    writable = on("gpu").check_output("find /var/lib/vllm -exec setpriv --reuid=vllm --regid=vllm --clear-groups test -w {} \\; -print")
    assert writable == ""


def test_users_words_are_not_in_the_journal(on: Any, ask: Any) -> None:
    ask("single", body={"prompt": "xyzzy secret"})
    journal = on("gpu").check_output("journalctl --unit=vllm@single --no-pager")
    assert "POST /v1/completions" in journal
    assert "xyzzy" not in journal


def test_the_manifest_is_one_that_sha256sum_can_check(on: Any) -> None:
    directory = on("gpu").check_output("sed --quiet 's/^model: //p' /etc/vllm/single.yaml")
    checked = on("gpu").run(f"cd {directory} && sha256sum --strict --check ../../.manifests/single.sha256")
    assert checked.rc == 0
    assert "model.safetensors: OK" in checked.stdout


def test_a_server_of_another_model_on_the_port_does_not_make_an_instance_ready(on: Any, contract: Any, ports: dict[str, int]) -> None:
    gpu = contract("gpu")["node"]
    arguments = f"--once --address {gpu['address']} --name {gpu['fqdn']} --tls /etc/sovereign/pki --port {ports['single']}"
    assert on("gpu").run(f"python3 {READY} {arguments} --model single").rc == 0
    refused = on("gpu").run(f"python3 {READY} {arguments} --model double")
    assert refused.rc == 1
    assert "it serves ['single'] instead of ['double']" in refused.stderr


def test_a_rerun_stops_what_is_not_declared_keeps_its_files_and_restarts_nothing_else(on: Any) -> None:
    gpu, before = on("gpu"), [show(on, model, "MainPID") for model in MODELS]
    # An instance that has been taken out of cluster.yml; what it runs does not matter.
    stand_in = "[Service]\nEnvironmentFile=\nExecStartPre=\nExecStart=\nExecStart=sleep infinity\nExecStartPost=\nWorkingDirectory=/\n"
    gpu.run_expect(
        [0], f"mkdir -p /run/systemd/system/vllm@old.service.d && printf '{stand_in}' > /run/systemd/system/vllm@old.service.d/stand-in.conf"
    )
    gpu.run_expect([0], "touch /etc/vllm/old.yaml /etc/vllm/old.env && cp -r /var/lib/vllm/models/single /var/lib/vllm/models/old")
    gpu.run_expect([0], "systemctl daemon-reload && systemctl enable --now vllm@old")
    run = play(skip="vllm_install")
    assert run.returncode == 0, run.stdout
    assert re.search(r"^gpu\s.*changed=1 ", run.stdout, flags=re.MULTILINE), run.stdout
    assert (show(on, "old", "ActiveState"), show(on, "old", "UnitFileState")) == ("inactive", "disabled")
    assert gpu.run("ls /etc/vllm/old.yaml /etc/vllm/old.env").rc != 0
    assert gpu.run("ls /var/lib/vllm/models/old/*/model.safetensors").rc == 0
    assert [show(on, model, "MainPID") for model in MODELS] == before
    gpu.run_expect([0], "rm -r /run/systemd/system/vllm@old.service.d /var/lib/vllm/models/old")


def test_a_renewed_certificate_is_used_without_a_restart(on: Any, ask: Any) -> None:
    def serial() -> str:
        shown = ask("single", "/version", options=f"{CERTIFICATE} --verbose --write-out '%{{certs}}'")
        return str(re.search(r"Serial Number:(\w+)", shown.stdout + shown.stderr)[1])  # type: ignore[index]

    process, served = show(on, "single", "MainPID"), serial()
    renewed = play(tags="pki_rotate")
    assert renewed.returncode == 0, renewed.stdout
    wait_until(lambda: serial() != served, 15)
    # Once more, because vLLM loses sight of a file that is replaced, the first time.
    # This time by a run that is cut once the certificate is in place, and the next one.
    served = serial()
    cut = play(tags="pki_rotate", skip="pki_service")
    assert cut.returncode == 0, cut.stdout
    assert serial() == served
    healed = play(skip="vllm_install")
    assert re.search(r"^gpu\s.*changed=1 ", healed.stdout, flags=re.MULTILINE), healed.stdout
    wait_until(lambda: serial() != served, 15)
    assert show(on, "single", "MainPID") == process


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        ("cp model.safetensors pytorch_model.bin", "pytorch_model.bin is a pickle"),
        ("printf x | dd of=model.safetensors bs=1 seek=5000000 conv=notrunc", "manifest_sha256 demands"),
    ],
)
def test_a_model_that_is_not_what_it_should_be_is_refused_and_the_one_in_use_serves_on(
    on: Any, ask: Any, ports: dict[str, int], spoil: str, message: str
) -> None:
    demanded = on("gpu").check_output("sha256sum /var/lib/vllm/models/.manifests/single.sha256").split()[0]
    on("gpu").run_expect([0], f"rm -rf /srv/spoilt && cp -r /srv/models/tiny /srv/spoilt && cd /srv/spoilt && {spoil}")
    model = {"name": "single", "port": ports["single"], "source": "/srv/spoilt", "manifest_sha256": demanded}
    refused = play({"vllm_models": [model]}, tags="vllm_configure")
    assert refused.returncode != 0
    assert message in refused.stdout, refused.stdout
    assert ask("single").stdout.endswith("200")


def test_what_cannot_work_or_must_not_is_refused_all_at_once_before_anything_is_done() -> None:
    variables = {
        "vllm_extra_args": {
            "trust_remote_code": True,
            "no-disable-fastapi-docs": True,
            "host": "0.0.0.0",  # noqa: S104
            "enable-log-requests": True,
            "lora_modules": ["secret=/srv/adapter"],
            "allowed-local-media-path": "/",
            "compilation-config": {"backend": "os.system"},
            "cudagraph-capture-sizes": "--enable-lora",
            "an-argument-of-a-later-release": True,
        },
        "vllm_environment": {"VLLM_SERVER_DEV_MODE": 1, "LD_PRELOAD": "/srv/x.so"},
        "__vllm_shm_mb": 4096,
        "__vllm_cpu_server_mb": 999999,
    }
    refused = play(variables, tags="preflight", skip="pki,firewall")
    assert refused.returncode != 0
    said = " ".join(refused.stdout.split())
    for message in (
        "argument trust_remote_code is refused: code that comes with weights is never run",
        "argument no-disable-fastapi-docs is refused: the role vllm sets it",
        "argument lora_modules is refused: an adapter would be served under a name of its own",
        "argument allowed-local-media-path is refused: clients could read files of the host",
        "argument compilation-config is refused: its key 'backend' may load code",
        "argument cudagraph-capture-sizes is refused: vLLM would read its value '--enable-lora' as another argument",
        "argument an-argument-of-a-later-release is refused: it is not among the arguments that change only",
        "argument host is refused",
        "argument enable-log-requests is refused: it writes what users ask",
        "VLLM_SERVER_DEV_MODE is refused: it opens the server up for development",
        "LD_PRELOAD is refused: it is not among those that change only speed and memory",
        "shm has 1024 MB",
        "The CPU build needs about",
    ):
        assert message in said, refused.stdout
    assert "changed=0" in refused.stdout


def test_a_gpu_build_without_a_gpu_is_refused() -> None:
    refused = play({"vllm_build": "cuda"}, tags="preflight", skip="pki,firewall")
    assert refused.returncode != 0
    assert "vllm_build is cuda, but no GPU can be used: " in " ".join(refused.stdout.split())


def test_a_model_that_does_not_fit_is_refused_with_the_sums_and_what_would() -> None:
    refused = play({"vllm_extra_args": {"enforce-eager": True, "kv-cache-memory-bytes": 1048576}}, tags="preflight", skip="pki,firewall")
    assert refused.returncode != 0
    said = " ".join(refused.stdout.split())
    assert re.search(r"single: .*KV cache", said), refused.stdout
    assert "would fit" in said, refused.stdout
    assert "changed=0" in refused.stdout


@pytest.mark.parametrize("model", MODELS)
def test_the_planned_kv_cache_is_what_vllm_counts(on: Any, model: str) -> None:
    directory = CACHE / "models/tiny"
    asked = report.arguments(yaml.safe_load(on("gpu").file(f"/etc/vllm/{model}.yaml").content_string))
    planned = report.plan(checkpoint.configuration(directory), [], {**asked, "cpu": {"memory_mib": 0}}, checkpoint.tensors(directory))
    rows = vllm_log.compare(planned, on("gpu").check_output(f"journalctl --unit=vllm@{model} --output=cat --no-pager"))
    print(rows)
    assert all(row["ok"] for row in rows)


def test_what_a_model_is_split_over_was_tried_before_and_a_hang_there_is_found(on: Any) -> None:
    assert json.loads(on("gpu").check_output("cat /var/lib/vllm/smoke/*.json"))["verdict"] == "good"
    smoke = "/opt/vllm/current/bin/python /usr/local/lib/sovereign/gpu_smoke.py --gpus 0,1 --backend gloo --timeout 20"
    # The second process stops as soon as it is there, as one does that hangs in the driver.
    stop = 'until pid=$(pgrep --full \'"[r]ank": 1,\' | tail -1) && [ -n "$pid" ]; do sleep 0.1; done; kill -STOP $pid'
    hung = on("gpu").run(f"{smoke} & {stop}; wait $!")
    assert hung.rc == 1, hung.stderr
    assert "hang" in hung.stderr


def test_a_failed_start_refuses_nobody_ends_the_run_early_and_heals(on: Any, ask: Any) -> None:
    with Load("single", clients=4) as load:
        failed = play({"vllm_extra_args": {"logprobs-mode": "no-such-mode"}}, skip="vllm_install,verify")
    assert failed.returncode != 0
    assert "did not come up" in failed.stdout
    assert "no-such-mode" in failed.stdout  # The end of the journal.
    # What had begun was answered to its end, and the other host takes the rest.
    assert len(load.answers) > 10
    assert not load.failed
    assert ask("double").stdout.endswith("200")  # Its turn had not come: it serves on.
    healed = play(skip="vllm_install")
    assert healed.returncode == 0, healed.stdout
    assert ask("single").stdout.endswith("200")
