"""Print whether this host holds the virtual address of the entry, and whether its own entry answers, so that it could.

``keepalived.py ADDRESS NAME PORT AUTHORITY TIMEOUT``
"""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import subprocess
import sys


def holds(address: str) -> bool:
    """Tell whether an interface of this host has the address."""
    said = subprocess.run(["ip", "-json", "address", "show", "to", address], capture_output=True, text=True, check=True, timeout=5).stdout
    return any(link.get("addr_info") for link in json.loads(said or "[]"))


def answers(name: str, port: int, authority: str, timeout: float) -> bool:
    """Ask this host's entry, as keepalived does.

    Args:
        name: Name of the entry.
        port: Its port.
        authority: File with the authorities that may have signed its certificate.
        timeout: Seconds that it may take.
    """
    try:
        context = ssl.create_default_context(cafile=authority)
        # As curl does: newer Pythons also ask for extensions that a firm's own authority may not write.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        with socket.create_connection(("127.0.0.1", port), timeout) as bare, context.wrap_socket(bare, server_hostname=name) as secure:
            secure.sendall(f"GET /healthz HTTP/1.1\r\nHost: {name}:{port}\r\nConnection: close\r\n\r\n".encode())
            response = http.client.HTTPResponse(secure)
            response.begin()
            return response.status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False


def report(address: str, held: bool, answered: bool) -> list[str]:
    """Give the metrics as lines of Prometheus' text format."""
    return [
        "# HELP sovereign_keepalived_holds Whether this host holds the virtual address.",
        "# TYPE sovereign_keepalived_holds gauge",
        f'sovereign_keepalived_holds{{address="{address}"}} {int(held)}',
        "# HELP sovereign_keepalived_entry_answers Whether this host's entry answers, without which it gives the address up.",
        "# TYPE sovereign_keepalived_entry_answers gauge",
        f'sovereign_keepalived_entry_answers{{address="{address}"}} {int(answered)}',
    ]


def main(address: str, name: str, port: str, authority: str, timeout: str) -> None:
    """Look, and print."""
    print("\n".join(report(address, holds(address), answers(name, int(port), authority, float(timeout)))))


if __name__ == "__main__":
    main(*sys.argv[1:])
