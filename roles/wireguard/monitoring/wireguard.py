"""Print when each peer of the VPN has last shaken hands, and how much has passed.

``wireguard.py INTERFACE CONFIGURATION KEEPALIVE PEERS``: PEERS is a JSON object of the sites of the declared peers, by their names.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

# As the role writes it: the peer's name in a comment before its section.
PEER = re.compile(r"^# (?P<name>\S+)\n\[Peer\]\nPublicKey = (?P<key>\S+)$", re.MULTILINE)


def names(configuration: str) -> dict[str, str]:
    """Give the names of peers by their public keys."""
    return {found["key"]: found["name"] for found in PEER.finditer(configuration)}


def report(interface: str, keepalive: int, sites: Mapping[str, str], known: Mapping[str, str], dump: str | None) -> list[str]:
    """Give the metrics as lines of Prometheus' text format.

    Args:
        interface: Name of the interface.
        keepalive: Seconds between two packets that keep a session fresh; 0 where there are none.
        sites: Sites of the declared peers, by their names.
        known: Names of peers by their public keys.
        dump: What ``wg show INTERFACE dump`` prints, or nothing where there is no such interface.
    """
    seen: dict[str, tuple[int, int, int]] = {}
    for line in (dump or "").splitlines()[1:]:
        fields = line.split("\t")
        key, (handshake, received, sent) = fields[0], fields[4:7]
        if key in known:
            seen[known[key]] = (int(handshake), int(received), int(sent))
    peers = {peer: seen.get(peer, (0, 0, 0)) for peer in sorted(sites)}
    labels = {peer: f'{{interface="{interface}",peer="{peer}",peer_site="{sites[peer]}"}}' for peer in peers}
    return [
        "# HELP sovereign_wireguard_up Whether the interface exists.",
        "# TYPE sovereign_wireguard_up gauge",
        f'sovereign_wireguard_up{{interface="{interface}"}} {int(dump is not None)}',
        "# HELP sovereign_wireguard_keepalive_seconds Seconds between two packets that keep a session fresh; 0 where there are none.",
        "# TYPE sovereign_wireguard_keepalive_seconds gauge",
        f'sovereign_wireguard_keepalive_seconds{{interface="{interface}"}} {keepalive}',
        "# HELP sovereign_wireguard_last_handshake_seconds Time of the last handshake in seconds since 1970; 0 where there was none.",
        "# TYPE sovereign_wireguard_last_handshake_seconds gauge",
        *(f"sovereign_wireguard_last_handshake_seconds{labels[peer]} {peers[peer][0]}" for peer in peers),
        "# HELP sovereign_wireguard_received_bytes_total Bytes received from a peer.",
        "# TYPE sovereign_wireguard_received_bytes_total counter",
        *(f"sovereign_wireguard_received_bytes_total{labels[peer]} {peers[peer][1]}" for peer in peers),
        "# HELP sovereign_wireguard_sent_bytes_total Bytes sent to a peer.",
        "# TYPE sovereign_wireguard_sent_bytes_total counter",
        *(f"sovereign_wireguard_sent_bytes_total{labels[peer]} {peers[peer][2]}" for peer in peers),
    ]


def main(interface: str, configuration: str, keepalive: str, peers: str) -> None:
    """Look, and print."""
    done = subprocess.run(["wg", "show", interface, "dump"], capture_output=True, text=True, check=False, timeout=8)
    known = names(Path(configuration).read_text(encoding="utf-8"))
    print("\n".join(report(interface, int(keepalive), json.loads(peers), known, done.stdout if done.returncode == 0 else None)))


if __name__ == "__main__":
    main(*sys.argv[1:])
