"""Print whether the host's firewall is in force, whether it is the one that was confirmed last, and what it has denied.

``firewall.py TABLE RULESET``: family and name of the table, and the file that the boot loads it from.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

MEMORY = Path(os.environ.get("STATE_DIRECTORY", "/var/lib/sovereign/textfiles")) / "firewall.json"
# In a network of its own, where what is loaded touches no packet.
REHEARSAL = ("unshare", "--net", "--", "sh", "-c", 'nft --file "$0" && exec nft --stateless list table $1')


class NftError(Exception):
    """Nft says neither what there is nor that there is nothing."""


def run(command: list[str]) -> tuple[int, str, str]:
    """Run a program: its exit status, what it printed, and what it complained of."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=8, env={**os.environ, "LC_ALL": "C"})
    return done.returncode, done.stdout, done.stderr


def live(table: str) -> str:
    """Give the text of a table, without the values of its counters; nothing where it does not exist.

    Raises:
        NftError: nft fails otherwise.
    """
    code, said, complaint = run(["nft", "--stateless", "list", "table", *table.split()])
    if code and "No such file or directory" not in complaint:
        raise NftError(complaint.strip())
    return "" if code else said


def digest(text: str) -> str:
    """Give a short name for a text."""
    return hashlib.sha256(text.encode()).hexdigest()


def as_confirmed(listing: str, table: str, ruleset: Path, memory: Path) -> bool:
    """Tell whether a table is what a ruleset makes. The answer is remembered for as long as neither changes.

    Args:
        listing: The table as it is.
        table: Family and name.
        ruleset: The ruleset.
        memory: File that the answer is kept in.

    Raises:
        NftError: the ruleset cannot be loaded.
    """
    try:
        key = digest(listing) + digest(ruleset.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return False
    try:
        known = json.loads(memory.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        known = {}
    if known.get("key") == key:
        return bool(known["same"])
    code, said, complaint = run([*REHEARSAL, str(ruleset), table])
    if code:
        raise NftError(complaint.strip())
    same = said == listing
    draft = memory.with_suffix(".draft")
    draft.write_text(json.dumps({"key": key, "same": same}), encoding="utf-8")
    draft.replace(memory)
    return same


def counters(table: str) -> list[str]:
    """Give a line for each named counter of a table."""
    code, said, complaint = run(["nft", "--json", "list", "counters", "table", *table.split()])
    if code:
        raise NftError(complaint.strip())
    found = {str(entry["counter"]["name"]): entry["counter"]["packets"] for entry in json.loads(said)["nftables"] if "counter" in entry}
    return [f'sovereign_firewall_packets_total{{counter="{name}"}} {packets}' for name, packets in sorted(found.items())]


def report(table: str, ruleset: Path, memory: Path = MEMORY) -> list[str]:
    """Give the metrics as lines of Prometheus' text format."""
    listing = live(table)
    lines = [
        "# HELP sovereign_firewall_in_force Whether the platform's table is loaded.",
        "# TYPE sovereign_firewall_in_force gauge",
        f"sovereign_firewall_in_force {int(bool(listing))}",
        "# HELP sovereign_firewall_as_confirmed Whether it is the ruleset that was confirmed last, which a boot loads.",
        "# TYPE sovereign_firewall_as_confirmed gauge",
        f"sovereign_firewall_as_confirmed {int(bool(listing) and as_confirmed(listing, table, ruleset, memory))}",
    ]
    if listing:
        lines += [
            "# HELP sovereign_firewall_packets_total Packets by the counter that they met.",
            "# TYPE sovereign_firewall_packets_total counter",
            *counters(table),
        ]
    return lines


if __name__ == "__main__":
    print("\n".join(report(sys.argv[1], Path(sys.argv[2]))))
