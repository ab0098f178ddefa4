"""Fixtures of the end-to-end tests: questions asked from inside the lab's own hosts."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lab.testing import PROJECT, host_variables

if TYPE_CHECKING:
    from tests.lab.platform import Console

STATE = PROJECT / "inventories/lab/.state"
PROBE_SOURCE = (PROJECT / "plugins/module_utils/openai_probe.py").read_text()
CA = "/tmp/lab-ca.crt"  # noqa: S108 - a path inside a lab container
REFUSED = (401, 403, 404)
CLUSTER = next(iter(host_variables().values()))["cluster"]
PORTS = CLUSTER["ports"]
"""As the contract has them."""


def container(host: str) -> str:
    """Name of the container of a lab host."""
    return f"lab-{host}"


def execute(host: str, *command: str, stdin: str = "", timeout: float = 120, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a command inside a lab host."""
    run = subprocess.run(
        ["docker", "exec", "-i", container(host), *command], input=stdin, capture_output=True, text=True, timeout=timeout, check=False
    )
    if check and run.returncode:
        pytest.fail(f"{host}: {' '.join(command)[:200]}: exit code {run.returncode}\n{run.stdout}\n{run.stderr}")
    return run


def python(host: str, source: str, timeout: float = 120) -> Any:
    """Run a Python program (standard library only) inside a lab host and return the JSON it prints."""
    return json.loads(execute(host, "python3", "-", stdin=source, timeout=timeout).stdout)


def api_key(client: str) -> str:
    """Key of an API client, as its owner was given it."""
    return (STATE / "secrets/model_gateway" / client).read_text().strip()


@pytest.fixture(scope="session", autouse=True)
def authority() -> None:
    """Give the lab's users the authorities of all sites to verify servers with."""
    authorities = "".join(path.read_text() for path in sorted((STATE / "pki/sites").glob("*/ca.crt")))
    for host in ("hq-client1", "wan-client1", "hq-gw1", "hq-gw2", "edge-gw1", "hq-gpu1"):
        execute(host, "sh", "-c", f"cat > {CA}", stdin=authorities)


Ask = Callable[..., dict[str, Any]]


@pytest.fixture(scope="session")
def ask() -> Ask:
    """Ask a model from inside a lab host: ``ask(host, url, address, model, key, max_tokens=…)`` gives the probe's outcome and event times."""

    def _ask(host: str, url: str, address: str, model: str, key: str, max_tokens: int = 16, timeout: float = 60) -> dict[str, Any]:
        program = (
            f"{PROBE_SOURCE}\nimport json\n"
            f"print(json.dumps(asdict(ask(Probe('test', {url!r}, {model!r}, {key!r}, {address!r}, 200, {max_tokens}), {CA!r}, {timeout}))))\n"
        )
        outcome: dict[str, Any] = python(host, program, timeout=timeout + 30)
        return outcome

    return _ask


CURL = ["curl", "--silent", "--show-error", "--max-time", "60", "--output", "/dev/stdout", "--write-out", "\n%{http_code}"]


@pytest.fixture(scope="session")
def curl() -> Callable[..., tuple[int, str]]:
    """Send a raw request from inside a lab host with curl; gives the status (0 if none came) and the body."""

    def _curl(host: str, *arguments: str, stdin: str = "") -> tuple[int, str]:
        run = execute(host, *CURL, *arguments, stdin=stdin, check=False)
        body, _, code = run.stdout.rpartition("\n")
        return int(code or 0), body or run.stderr

    return _curl


@pytest.fixture(scope="session")
def entry() -> Callable[[str], tuple[str, str]]:
    """URL and address of a site's entry, by the host that serves it."""

    def _entry(host: str) -> tuple[str, str]:
        variables = host_variables()[host]
        address = variables["node"]["wan_address"] if variables["site"]["name"] == "edge" else variables["node"]["address"]
        return f"https://{variables['site']['entry']['name']}", address

    return _entry


@pytest.fixture(scope="session")
def console() -> Console:
    """Give a session with Dify's console."""
    from tests.lab.platform import Console

    return Console()


@pytest.fixture(scope="session")
def workflow_key(console: Console) -> str:
    """Give a key of a workflow that runs code in the sandbox and asks a model."""
    return console.workflow()


@pytest.fixture(scope="session")
def brief_workflow(console: Console) -> str:
    """Give a key of a workflow that runs code in the sandbox and asks a model which answers at once."""
    console.stub()
    return console.workflow("brisk")


def wait_until(condition: Callable[[], bool], what: str, limit: float = 60, pause: float = 0.5) -> float:
    """Wait for a condition and return the seconds it took; fail with its name when it does not come."""
    started = time.monotonic()
    while time.monotonic() - started < limit:
        if condition():
            return time.monotonic() - started
        time.sleep(pause)
    pytest.fail(f"not within {limit} s: {what}")


@pytest.fixture
def edge_without_vpn() -> Iterator[None]:
    """Cut the edge off the VPN for the length of a test, and mend it."""
    execute("edge-gw1", "systemctl", "stop", f"wg-quick@{CLUSTER['vpn']['interface']}")
    try:
        yield
    finally:
        execute("edge-gw1", "systemctl", "start", f"wg-quick@{CLUSTER['vpn']['interface']}")


@pytest.fixture
def state_dir() -> Path:
    """Directory on the controller with the lab's generated secrets."""
    return STATE
