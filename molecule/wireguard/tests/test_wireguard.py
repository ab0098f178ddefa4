"""What crosses the tunnels, what does not, and what survives changes of them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lab.testing import changed

VPN = {"hub1": "198.19.22.11", "hub2": "198.19.22.12", "spoke": "198.19.22.71"}
PAIRS = [("hub1", "spoke"), ("hub2", "spoke"), ("spoke", "hub1"), ("spoke", "hub2")]
STATE = Path(os.environ["MOLECULE_SCENARIO_DIRECTORY"]) / "inventory/.state"

pairs = pytest.mark.parametrize(("source", "target"), PAIRS)


def public_key(on: Any, name: str) -> str:
    return str(on(name).check_output("wg show wg0 public-key"))


def handshakes(on: Any, name: str) -> dict[str, int]:
    """Give the times of a host's last handshakes by its peers' public keys."""
    lines = on(name).check_output("wg show wg0 latest-handshakes").splitlines()
    return {key: int(time) for key, time in (line.split() for line in lines)}


def connects(on: Any, source: str, address: str, port: int, sender: str = "") -> bool:
    attempt = f"socket.create_connection(('{address}', {port}), 2, source_address=('{sender}', 0))"
    return bool(on(source).run(f'python3 -c "import socket; {attempt}"').rc == 0)


def shakes_hands(on: Any, source: str, target: str) -> None:
    on(source).check_output(f"timeout 15 sh -c 'until ping -c 1 -W 1 {VPN[target]}; do sleep 0.2; done'")
    assert handshakes(on, source)[public_key(on, target)] > 0


@pairs
def test_peers_shake_hands_and_ping_each_other(on: Any, source: str, target: str) -> None:
    shakes_hands(on, source, target)


def test_inside_the_tunnel_only_declared_ports_are_reachable(on: Any) -> None:
    assert connects(on, "spoke", VPN["hub1"], 5001)
    assert not connects(on, "spoke", VPN["hub1"], 5002)
    # The same program on the same host, without the tunnel's interface in between.
    assert connects(on, "hub1", VPN["hub1"], 5002)


WAYS = {"lan": ("198.18.22.71", "198.18.22.11"), "wan": ("198.18.32.71", "198.18.32.11"), "vpn": (VPN["spoke"], VPN["hub1"])}


@pytest.mark.parametrize(
    ("port", "open_at"),
    [(22, ["lan"]), (5003, ["lan"]), (5004, ["lan", "wan"])],
    ids=["ssh", "a rule for the LAN", "a rule for the LAN and the WAN"],
)
def test_a_port_is_open_only_where_its_rule_is_meant_for(on: Any, port: int, open_at: list[str]) -> None:
    assert [way for way, (sender, address) in WAYS.items() if connects(on, "spoke", address, port, sender)] == open_at


def test_the_lan_address_cannot_be_reached_through_the_wan(on: Any) -> None:
    address = WAYS["lan"][1]
    assert connects(on, "spoke", address, 22)
    on("spoke").check_output(f"ip route add {address}/32 via {WAYS['wan'][1]} src {WAYS['wan'][0]}")
    try:
        for port in (22, 5003, 5004):
            assert not connects(on, "spoke", address, port)
    finally:
        on("spoke").check_output(f"ip route delete {address}/32")
    # They came to the host, and were dropped for the interface that they came through.
    assert "packets 0 " not in on("hub1").check_output("nft list counter inet sovereign input_elsewhere")


def test_a_peer_cannot_send_from_an_address_that_is_not_its_own(on: Any) -> None:
    # The firewall would let the whole network of the VPN in at this port: it is WireGuard that does not.
    on("spoke").check_output("ip address add 198.19.22.99/32 dev lo")
    try:
        assert connects(on, "spoke", VPN["hub1"], 5001, sender=VPN["spoke"])
        assert not connects(on, "spoke", VPN["hub1"], 5001, sender="198.19.22.99")
    finally:
        on("spoke").check_output("ip address delete 198.19.22.99/32 dev lo")


def test_hosts_that_are_no_peers_do_not_meet_through_a_third(on: Any) -> None:
    assert connects(on, "hub1", VPN["spoke"], 5001)
    assert not connects(on, "hub1", VPN["hub2"], 5001)
    # Not by asking the spoke to forward either.
    on("hub1").check_output(f"wg set wg0 peer {public_key(on, 'spoke')} allowed-ips {VPN['spoke']}/32,{VPN['hub2']}/32")
    try:
        assert not connects(on, "hub1", VPN["hub2"], 5001)
    finally:
        on("hub1").check_output(f"wg set wg0 peer {public_key(on, 'spoke')} allowed-ips {VPN['spoke']}/32")


@pytest.mark.parametrize("name", VPN)
def test_the_private_key_is_for_root_on_its_host_alone(on: Any, name: str) -> None:
    for path in ("/etc/wireguard/wg0.key", "/etc/wireguard/wg0.conf"):
        assert on(name).check_output(f"stat --format='%U %a' {path}") == "root 600"
    private = on(name).check_output("cat /etc/wireguard/wg0.key")
    kept = [path for path in STATE.rglob("*") if path.is_file()]
    assert STATE / f"wireguard/{name}.pub" in kept
    assert not [path for path in kept if private in path.read_text()]


def test_a_run_over_one_host_keeps_its_peers_and_shows_no_secret(play: Any, on: Any) -> None:
    secrets = [on("spoke").check_output("cat /etc/wireguard/wg0.key"), *(path.read_text().strip() for path in STATE.glob("secrets/wireguard/*"))]
    before = handshakes(on, "spoke")
    run = play("spoke", "wireguard", "-vvv", "--diff")
    assert run.returncode == 0, run.stdout
    assert "changed=0" in run.stdout
    assert set(handshakes(on, "spoke")) == set(before)
    assert len(secrets) == 3
    assert not [secret for secret in secrets if secret in run.stdout + run.stderr]


def test_peers_come_and_go_without_cutting_others(play: Any, on: Any, stream: Callable[[], bool]) -> None:
    # A host whose key nobody has seen: as on the first run over a part of the hosts.
    (STATE / "wireguard/hub2.pub").unlink()
    run = play("spoke", "wireguard_configure")
    assert run.returncode == 0, run.stdout
    assert "not known yet: hub2" in " ".join(run.stdout.split())
    # That run was cut before it reloaded anything: the file alone is the next one's reason to.
    assert len(handshakes(on, "spoke")) == 2
    assert changed(play("spoke", "wireguard_service"))["spoke"] == 1
    assert set(handshakes(on, "spoke")) == {public_key(on, "hub1")}
    assert stream()

    # Meanwhile hub2 has lost its tunnel's program, and with it the interface; systemd still takes the unit for active.
    on("hub2").check_output("kill -9 $(pidof wireguard-go)")
    assert play("hub2", "wireguard_configure,wireguard_service").returncode == 0
    assert play("spoke", "wireguard_configure,wireguard_service").returncode == 0
    shakes_hands(on, "spoke", "hub2")
    assert stream()


def test_a_peer_removed_by_hand_comes_back(play: Any, on: Any) -> None:
    on("hub2").check_output(f"wg set wg0 peer {public_key(on, 'spoke')} remove")
    run = play("hub2", "wireguard_configure,wireguard_service")
    assert run.returncode == 0, run.stdout
    shakes_hands(on, "hub2", "spoke")


def test_keys_are_not_rotated_behind_the_peers_backs(play: Any, on: Any) -> None:
    before = public_key(on, "hub1")
    run = play("hub1", "wireguard_rotate")
    assert run.returncode != 0
    assert "Run without --limit" in " ".join(run.stdout.split())
    assert public_key(on, "hub1") == before


def test_rotation_replaces_every_key_and_peers_meet_again(play: Any, on: Any, stream: Callable[[], bool]) -> None:
    before = {name: public_key(on, name) for name in VPN}
    run = play("all", "wireguard_rotate")
    assert run.returncode == 0, run.stdout
    for name in VPN:
        assert public_key(on, name) != before[name]
    for source, target in PAIRS:
        shakes_hands(on, source, target)
    # New sessions, and the old connection inside them.
    assert stream()


def test_a_new_mtu_restarts_the_tunnel_also_after_a_run_that_was_cut_and_a_dead_peer_is_only_warned_of(play: Any, on: Any) -> None:
    on("hub2").check_output("systemctl stop wg-quick@wg0")
    assert play("spoke", "wireguard_configure", wireguard_mtu=1380).returncode == 0
    assert "mtu 1420" in on("spoke").check_output("ip link show wg0")
    run = play("spoke", "wireguard", wireguard_mtu=1380, wireguard_handshake_wait=3)
    assert run.returncode == 0, run.stdout
    assert "No handshake with hub2" in " ".join((run.stdout + run.stderr).split())
    assert "No handshake with hub1" not in " ".join((run.stdout + run.stderr).split())
    assert "mtu 1380" in on("spoke").check_output("ip link show wg0")
    on("hub2").check_output("systemctl start wg-quick@wg0")
    again = [changed(play("spoke", "wireguard_configure,wireguard_service"))["spoke"] > 0 for _ in range(2)]
    assert again == [True, False]
    assert "mtu 1420" in on("spoke").check_output("ip link show wg0")


def test_the_tunnel_comes_up_at_boot(on: Any) -> None:
    subprocess.run(["docker", "restart", "--time=5", "mol-wireguard-spoke"], check=True, capture_output=True, timeout=60)
    on("spoke").check_output("timeout 30 sh -c 'until systemctl is-active wg-quick@wg0; do sleep 0.2; done'")
    for source, target in PAIRS:
        shakes_hands(on, source, target)
