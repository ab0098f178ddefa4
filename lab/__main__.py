"""Bring the lab up, show it, take it down: ``python -m lab up|status|down``.

Molecule makes and removes the containers (scenario ``lab`` over ``inventories/lab``); the platform is put on them by the very
playbooks that users run. What this module adds is the order, and words for what came out of it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parent.parent
INVENTORY = PROJECT / "inventories/lab"
STATE = INVENTORY / ".state"
RECEIVER = {"host": "hq-client1", "address": "198.18.1.101", "port": "9099", "log": "/run/alert_receiver/log"}
"""Where the lab's alerts go (``alertmanager_receivers`` in ``inventories/lab/group_vars/alertmanager``)."""

STAND_INS = [
    ("GPU hosts", "containers; vLLM is the real server in its CPU build, forked (lab/README.md), tensor parallelism over two real processes"),
    ("the models", "a Llama checkpoint of 5 MB with random weights: the answers are noise, the protocol is real"),
    (
        "Dify",
        f"images of {os.environ['LAB_DIFY_IMAGES']}: the real one, if those are"
        if os.environ.get("LAB_DIFY_IMAGES")
        else "a stand-in that keeps its contract, without a line of it (lab/standins/dify); "
        "LAB_DIFY_IMAGES=registry, or a directory of archives, runs the real one",
    ),
    ("who is told of alerts", f"a webhook on {RECEIVER['host']} that notes them in {RECEIVER['log']}; Grafana: none, unless you have its package"),
]
REAL = (
    "systemd, nftables, WireGuard, HAProxy, nginx, PostgreSQL, Redis, RabbitMQ, OpenStack Swift, vLLM, podman, Celery, gunicorn, Prometheus, "
    "Alertmanager and the internal CA are the ones that production runs"
)


class LabError(Exception):
    """A step failed; the message says which, and what to do."""


def environment() -> dict[str, str]:
    """Environment of the tools: the project's own Python environment first, its ansible.cfg always."""
    return {
        **os.environ,
        "PATH": f"{PROJECT / '.venv/bin'}:{os.environ['PATH']}",
        "ANSIBLE_CONFIG": str(PROJECT / "ansible.cfg"),
    }


def step(title: str, command: list[str], advice: str) -> None:
    """Run one step in the open, so that its progress is seen.

    Args:
        title: What the step does, in a reader's words.
        command: Program and arguments.
        advice: What to do if it fails.

    Raises:
        LabError: the command failed.
    """
    print(f"\n=== {title}", flush=True)
    started = time.monotonic()
    code = subprocess.run(command, cwd=PROJECT, env=environment(), check=False).returncode
    if code:
        msg = f"{title}: exit code {code}.\n{advice}"
        raise LabError(msg)
    print(f"=== {title}: {time.monotonic() - started:.0f} s", flush=True)


def molecule(action: str) -> list[str]:
    """Command line of a Molecule action on the lab's scenario."""
    return ["molecule", action, "--scenario-name", "lab"]


def playbook(name: str, *arguments: str) -> list[str]:
    """Command line of one of the collection's playbooks over the lab."""
    return ["ansible-playbook", "--inventory", str(INVENTORY), f"playbooks/{name}", *arguments]


def receive_alerts() -> list[str]:
    """Command line that has a host of the lab's users take alerts, also after a restart."""
    program, container = "/usr/local/lib/alert_receiver.py", f"lab-{RECEIVER['host']}"
    unit = "\n".join(
        [
            *("[Service]", "DynamicUser=yes", "RuntimeDirectory=alert_receiver", "RuntimeDirectoryPreserve=yes", "Restart=always"),
            f"ExecStart=/usr/bin/python3 {program} {RECEIVER['address']} {RECEIVER['port']} {RECEIVER['log']}",
            *("[Install]", "WantedBy=multi-user.target", ""),
        ]
    )
    written = f"cat > /etc/systemd/system/alert_receiver.service <<'END'\n{unit}END"
    commands = f"{written}\nsystemctl daemon-reload\nsystemctl enable --now --quiet alert_receiver.service"
    copied = f"docker cp --quiet {PROJECT / 'lab/standins/alert_receiver.py'} {container}:{program}"
    return ["sh", "-ec", f'{copied}\ndocker exec {container} sh -ec "$1"', "sh", commands]


def up() -> None:
    """Create what is missing, converge, prove it with the smoke test, and say what there is."""
    # Molecule remembers that it created hosts and would not look again; create.yml itself is idempotent.
    subprocess.run(molecule("reset"), cwd=PROJECT, env=environment(), check=False, capture_output=True)
    step("Containers", molecule("create"), "Look at the failed task above; `make lab-down` removes what is half-made.")
    step("Receiver of alerts", receive_alerts(), "Look at the words above; `make lab-down` removes what is half-made.")
    step("Platform (playbooks/site.yml)", playbook("site.yml"), "Mend what the failed task says and run `make lab` again: it goes on from there.")
    step("Smoke test (playbooks/smoke.yml)", playbook("smoke.yml"), "The table above names the answers that were wrong.")
    status()


def down() -> None:
    """Remove the lab's containers, networks and generated secrets; caches of images, wheels and models stay."""
    step("Removing the lab", molecule("destroy"), "Containers and networks carry the label org.sovereign-dify.lab=lab: remove them with docker.")


def status() -> None:
    """Show hosts, what is real, the last smoke test, and a command to try."""
    command = ["docker", "ps", "--all", "--filter", "label=org.sovereign-dify.lab=lab", "--format", "{{.Names}}\t{{.Status}}"]
    listed = subprocess.run(command, capture_output=True, text=True, check=False)
    running = dict(line.split("\t", 1) for line in listed.stdout.splitlines())
    if not running:
        print("The lab is not up. `make lab` brings it up.")
        return
    inventory = subprocess.run(
        ["ansible-inventory", "--inventory", str(INVENTORY), "--list"], cwd=PROJECT, env=environment(), capture_output=True, text=True, check=True
    )
    hosts: dict[str, Any] = json.loads(inventory.stdout)["_meta"]["hostvars"]
    print("\nHosts")
    for name, variables in hosts.items():
        node = variables["node"]
        addresses = ", ".join(address for address in (node["address"], node.get("wan_address"), node.get("vpn_address")) if address)
        groups = " ".join(group for group in node["groups"] if group not in {"baseline", "pki", "firewall"})
        print(f"  {name:12} {addresses:42} {groups or 'a user of the platform':40} {running.get(f'lab-{name}', 'missing')}")
    print("\nReal\n  " + REAL)
    print("Stand-ins")
    for what, how in STAND_INS:
        print(f"  {what}: {how}")
    report = STATE / "reports/smoke.json"
    if report.exists():
        probes = json.loads(report.read_text())["probes"]
        print(f"\nSmoke test: {sum(probe['ok'] for probe in probes)} of {len(probes)} answers as wanted ({report.relative_to(PROJECT)})")
    edge = next(variables for variables in hosts.values() if variables.get("site", {}).get("name") == "edge")
    print(
        "\nTry it: from the edge, over TLS, answered on premises through the VPN\n"
        f"  curl -N --cacert {STATE.relative_to(PROJECT)}/pki/sites/edge/ca.crt \\\n"
        f"    --resolve {edge['site']['entry']['name']}:443:{edge['node']['wan_address']} \\\n"
        f'    -H "Authorization: Bearer $(cat {STATE.relative_to(PROJECT)}/secrets/model_gateway/web-chat)" \\\n'
        "    -H 'Content-Type: application/json' \\\n"
        f"    https://{edge['site']['entry']['name']}/v1/chat/completions \\\n"
        '    -d \'{"model": "assistant", "stream": true, "max_tokens": 32, "messages": [{"role": "user", "content": "Hello"}]}\'\n'
        '  The same with "model": "risk-scoring" is refused.\n'
    )


def main() -> int:
    """Parse the command line and run the wanted action."""
    actions = {"up": up, "down": down, "status": status}
    parser = argparse.ArgumentParser(prog="python -m lab", description=__doc__)
    parser.add_argument("action", choices=actions)
    try:
        actions[parser.parse_args().action]()
    except LabError as error:
        print(f"\nFAILED. {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
