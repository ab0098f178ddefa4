"""What a host behind the firewall lets in and out, and how it survives mistakes."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from lab.testing import rerun

Probe = Callable[[str, str, int], str]

DEBIAN12 = {"IPv4": "198.18.21.12", "IPv6": "fd00:198:18:21::c"}
families = pytest.mark.parametrize("family", ["IPv4", "IPv6"])


def counted(host: Any, counter: str) -> int:
    """Packets that a named counter has seen."""
    match = re.search(r"packets (\d+)", host.check_output(f"nft list counter inet sovereign {counter}"))
    assert match
    return int(match[1])


@pytest.fixture(scope="module")
def stream(on: Any, wait_for_listener: Callable[[Any, int], None]) -> Iterator[Callable[[], bool]]:
    """Keep one connection from debian13 to debian12 busy; tells whether that same connection still moves data."""
    server = (
        "import socketserver\n"
        "class Echo(socketserver.StreamRequestHandler):\n"
        "    def handle(self):\n"
        "        for line in self.rfile: self.wfile.write(line)\n"
        "socketserver.TCPServer(('', 8084), Echo).serve_forever()\n"
    )
    client = (
        "import socket, time\n"
        "s = socket.create_connection(('198.18.21.12', 8084))\n"
        "f = s.makefile('rw')\n"
        "while True:\n"
        "    f.write('x\\n'); f.flush(); f.readline(); open('/tmp/beats', 'a').write('x'); time.sleep(0.1)\n"
    )
    on("debian12").check_output("systemd-run --unit=echo --collect python3 -c %s", server)
    wait_for_listener(on("debian12"), 8084)
    # Not restarted by systemd: a cut connection ends it for good.
    on("debian13").check_output("rm -f /tmp/beats; systemd-run --unit=beat --collect python3 -c %s", client)

    def alive() -> bool:
        beats = int(on("debian13").check_output("stat --format=%s /tmp/beats"))
        grows = f"until test $(stat --format=%s /tmp/beats) -gt {beats}; do sleep 0.1; done"
        return bool(on("debian13").run(f"timeout 15 sh -c '{grows}'").rc == 0)

    on("debian13").check_output("timeout 20 sh -c 'until test -s /tmp/beats; do sleep 0.1; done'")
    assert alive()
    yield alive
    on("debian13").run("systemctl stop beat")
    on("debian12").run("systemctl stop echo")


@families
def test_only_declared_ports_are_reachable(on: Any, probe: Probe, family: str) -> None:
    denied = counted(on("debian12"), "input_denied")
    assert probe("debian13", DEBIAN12[family], 8081) == "open"
    assert probe("debian13", DEBIAN12[family], 8080) == "TimeoutError timed out"
    assert counted(on("debian12"), "input_denied") > denied


@families
def test_a_rule_for_no_peers_opens_nothing(probe: Probe, family: str) -> None:
    assert probe("debian12", DEBIAN12[family], 8082) == "open"
    assert probe("debian13", DEBIAN12[family], 8082) != "open"


@families
def test_only_declared_destinations_are_reachable_and_the_rest_is_refused_at_once(on: Any, probe: Probe, family: str) -> None:
    denied, arrived = counted(on("debian13"), "output_denied"), counted(on("debian12"), "input_denied")
    assert probe("debian13", DEBIAN12[family], 8081) == "open"
    # debian12 would let it in: it is debian13 that does not let it out.
    refused = probe("debian13", DEBIAN12[family], 8090)
    assert refused.startswith(("OSError", "PermissionError", "ConnectionRefusedError")), refused
    assert counted(on("debian13"), "output_denied") > denied
    assert counted(on("debian12"), "input_denied") == arrived


def test_neighbours_answer_pings_and_strangers_cannot_be_pinged(on: Any) -> None:
    assert on("debian13").run("ping -c 1 -W 2 198.18.21.12").rc == 0
    assert on("debian13").run("ping -c 1 -W 2 203.0.113.1").rc != 0


def test_names_of_containers_still_resolve(on: Any) -> None:
    assert "198.18.21.12" in on("debian13").check_output("getent ahostsv4 mol-firewall-debian12")


def test_a_table_that_somebody_edited_is_found_and_repaired(play: Any, probe: Probe, on: Any, stream: Callable[[], bool]) -> None:
    on("debian12").check_output("nft insert rule inet sovereign input accept")
    assert probe("debian13", DEBIAN12["IPv4"], 8080) == "open"
    run = play("firewall_service")
    assert run.returncode == 0, run.stdout + run.stderr
    assert "somebody had changed or removed it" in run.stdout + run.stderr
    assert probe("debian13", DEBIAN12["IPv4"], 8080) != "open"
    assert stream()


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("tcp dport nonsense accept", r"rules\.d/pki\.nft:\d+:\d+: Error"),
        ("jump nowhere", r"rules\.d/pki\.nft:\d+:\d+: Error"),
        ("}\n}\ntable inet other {\nchain x {", "tables other than inet sovereign"),
        ("}\n}\nflush ruleset\ntable inet sovereign {\nchain x {", "tables other than inet sovereign"),
    ],
)
def test_a_bad_file_is_refused_before_anything_is_applied(play: Any, on: Any, line: str, reason: str) -> None:
    host = on("debian12")
    live = host.check_output("nft --stateless list table inet sovereign")
    fragment = host.check_output("cat /etc/sovereign/firewall/rules.d/pki.nft")
    try:
        broken = fragment.replace("chain declared_input_lan {", "chain declared_input_lan {\n" + line, 1)
        host.check_output("printf '%%s\\n' %s > /etc/sovereign/firewall/rules.d/pki.nft", broken)
        run = play("firewall_service")
    finally:
        host.check_output("printf '%%s\\n' %s > /etc/sovereign/firewall/rules.d/pki.nft", fragment)
    assert run.returncode != 0
    assert re.search(reason, run.stdout), run.stdout
    assert host.check_output("nft --stateless list table inet sovereign") == live


def test_a_bad_declaration_is_refused_with_all_its_mistakes(play: Any, on: Any) -> None:
    before = on("debian12").check_output("cat /etc/sovereign/firewall/rules.d/firewall.nft")
    run = play("firewall_configure", firewall_rules=[{"from": ["300.1.2.3"], "protocol": "tcp", "ports": [0]}])
    assert run.returncode != 0
    assert "300.1.2.3" in run.stdout
    assert "port 0" in run.stdout
    assert on("debian12").check_output("cat /etc/sovereign/firewall/rules.d/firewall.nft") == before


@pytest.mark.parametrize("wrong", [{"firewall_ssh_networks": ["203.0.113.0/24"]}, {"firewall_ssh_port": 23}], ids=str)
def test_rules_that_would_cut_this_run_are_refused_before_anything_is_written(play: Any, on: Any, wrong: dict[str, Any]) -> None:
    files = "cat /etc/sovereign/firewall/base.nft /etc/sovereign/firewall/ruleset.nft"
    before = on("debian12").check_output(files)
    run = play("firewall_configure,firewall_service", **wrong)
    assert run.returncode != 0
    assert "this run, which came from 198.18.21.1 to 198.18.21.12 port 22" in " ".join(run.stdout.split()), run.stdout
    assert on("debian12").check_output(files) == before


@pytest.fixture
def other_port(on: Any, play: Any, wait_for_listener: Callable[[Any, int], None]) -> Iterator[int]:
    """Have debian12 answer SSH on another port only, behind no firewall, as a host that the platform has not seen yet."""
    host = on("debian12")
    host.check_output("cp /etc/default/ssh /tmp/ssh.default; echo 'SSHD_OPTS=\"-p 2222\"' > /etc/default/ssh; systemctl restart ssh")
    wait_for_listener(host, 2222)
    host.check_output("systemctl stop sovereign-firewall")
    yield 2222
    host.check_output("systemctl stop sovereign-firewall; cp /tmp/ssh.default /etc/default/ssh; systemctl restart ssh")
    wait_for_listener(host, 22)
    assert play("firewall_configure,firewall_service").returncode == 0


def test_ssh_is_opened_at_the_port_that_this_run_came_to(play: Any, on: Any, other_port: int) -> None:
    # It succeeds only when a new connection comes through the rules.
    run = play("firewall_configure,firewall_service", ansible_port=other_port)
    assert run.returncode == 0, run.stdout
    assert f"tcp dport {other_port} " in on("debian12").check_output("nft list chain inet sovereign ssh")
    # No port is open that nobody asked for.
    assert "tcp dport 22 " not in on("debian12").check_output("nft list chain inet sovereign ssh")


def test_rules_that_lock_ansible_out_are_taken_back(play: Any, on: Any, stream: Callable[[], bool]) -> None:
    host = on("debian12")
    live = host.check_output("nft --stateless list table inet sovereign")
    # What a mistake in the role itself would do; in the declared networks and port it is found before.
    host.check_output("sed -i 's/tcp dport 22 /tcp dport 23 /; s/tcp sport 22 /tcp sport 23 /' /etc/sovereign/firewall/base.nft")
    run = play("firewall_service", firewall_rollback_timeout=6)
    assert run.returncode != 0
    assert "gone back to the rules of before" in run.stdout, run.stdout
    assert host.check_output("nft --stateless list table inet sovereign") == live
    # What a reboot would load is what was confirmed, too.
    assert "dport 23" not in host.check_output("cat /etc/sovereign/firewall/ruleset.nft")
    run = play("firewall_configure,firewall_service")
    assert run.returncode == 0, run.stdout
    assert host.check_output("nft --stateless list table inet sovereign") == live
    assert stream()


def test_a_run_that_ended_between_writing_and_applying_is_found_and_completed(play: Any, on: Any, probe: Probe) -> None:
    host, fragment = on("debian12"), "/etc/sovereign/firewall/rules.d/pki.nft"
    host.check_output(f"mv {fragment} /tmp/pki.nft")
    assert play("firewall_service").returncode == 0
    # As that run left it: the fragment is written, and nothing has applied it.
    host.check_output(f"mv /tmp/pki.nft {fragment}")
    assert probe("debian13", DEBIAN12["IPv4"], 8081) != "open"
    preflight = "../../playbooks/preflight.yml"
    for run in (play("verify"), rerun("--limit=localhost,debian12", playbook=preflight)):
        assert run.returncode != 0
        assert "not what the files declare" in " ".join(run.stdout.split()), run.stdout
    # The role that declares the rules, and nothing else, runs again.
    run = play("untagged")
    assert run.returncode == 0, run.stdout
    assert probe("debian13", DEBIAN12["IPv4"], 8081) == "open"
    run = rerun("--limit=localhost,debian12", playbook=preflight)
    assert run.returncode == 0, run.stdout


def test_rules_of_a_role_that_the_host_has_left_are_removed(play: Any, probe: Probe, on: Any) -> None:
    # What the role vllm would have left behind on a host that is not in that group any more.
    on("debian12").check_output("cd /etc/sovereign/firewall/rules.d && sed 's/8081, 8084/8083/; s/8080-8084/9/; s/pki/vllm/' pki.nft > vllm.nft")
    assert play("firewall_service").returncode == 0
    assert probe("debian13", DEBIAN12["IPv4"], 8083) == "open"
    run = play("firewall_configure,firewall_service")
    assert run.returncode == 0, run.stdout
    assert probe("debian13", DEBIAN12["IPv4"], 8083) == "TimeoutError timed out"


def test_the_unit_minds_its_own_table(on: Any, probe: Probe) -> None:
    host = on("debian12")
    host.check_output("nft add table inet foreign")
    host.check_output("systemctl restart sovereign-firewall")
    assert probe("debian13", DEBIAN12["IPv4"], 8080) != "open"
    host.check_output("systemctl stop sovereign-firewall")
    assert probe("debian13", DEBIAN12["IPv4"], 8080) == "open"
    assert "198.18.21.11" in host.check_output("getent ahostsv4 mol-firewall-debian13")
    host.check_output("systemctl start sovereign-firewall")
    assert probe("debian13", DEBIAN12["IPv4"], 8080) != "open"
    host.check_output("nft delete table inet foreign")


def test_a_rebooted_host_is_behind_its_firewall(on: Any, probe: Probe, wait_for_listener: Callable[[Any, int], None]) -> None:
    subprocess.run(["docker", "restart", "--time=5", "mol-firewall-debian13"], check=True, capture_output=True, timeout=60)
    on("debian13").check_output("timeout 20 sh -c 'until systemctl is-system-running --wait | grep -q running; do sleep 0.2; done'")
    for port in (8081, 8082):
        on("debian13").check_output(f"systemd-run --collect python3 -m http.server {port}")
        wait_for_listener(on("debian13"), port)
    assert probe("debian12", "198.18.21.11", 8081) == "open"
    assert probe("debian12", "198.18.21.11", 8082) == "TimeoutError timed out"
