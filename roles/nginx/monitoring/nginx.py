"""Print whether nginx runs the configuration that is written, which certificate it shows, and how many connections it can take.

``nginx.py --status URL --configuration FILE --connections N --address ADDRESS --port PORT --name NAME --certificate FILE``
"""

from __future__ import annotations

import argparse
import re
import socket
import ssl
import subprocess
import urllib.request
from pathlib import Path

# As the role writes it, behind `location = /generation`.
GENERATION = re.compile(r'location = /generation \{[^}]*return 200 "([^"]*)"')
CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
PATIENCE = 3.0


def loaded(status: str) -> str:
    """Ask nginx which configuration it runs; nothing if it does not answer."""
    try:
        # Never through a proxy.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"{status}/generation", timeout=PATIENCE) as answer:
            return str(answer.read().decode())
    except OSError:
        return ""


def shown(address: str, port: int, name: str) -> bytes:
    """Give the certificate (DER) that nginx shows; nothing if it does not answer. Whether it is good is not asked here."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with socket.create_connection((address, port), PATIENCE) as bare, context.wrap_socket(bare, server_hostname=name) as secure:
            return secure.getpeercert(binary_form=True) or b""
    except OSError:
        return b""


def end_of(certificate: bytes) -> int:
    """Give the end of a certificate's validity in seconds since 1970."""
    said = subprocess.run(["openssl", "x509", "-inform", "DER", "-noout", "-enddate"], input=certificate, capture_output=True, check=True, timeout=5)
    return ssl.cert_time_to_seconds(said.stdout.decode().strip().removeprefix("notAfter="))


def report(configuration: str, running: str, connections: int, certificate: str, served: bytes) -> list[str]:
    """Give the metrics as lines of Prometheus' text format.

    Args:
        configuration: The configuration that is written.
        running: What nginx says that it runs.
        connections: Connections of all workers.
        certificate: Certificates (PEM) that are configured.
        served: The certificate (DER) that is shown.
    """
    lines = ["# HELP sovereign_nginx_connections_limit Connections that the workers can take.", "# TYPE sovereign_nginx_connections_limit gauge"]
    lines.append(f"sovereign_nginx_connections_limit {connections}")
    if running and (written := GENERATION.search(configuration)):
        lines += [
            "# HELP sovereign_nginx_configuration_loaded Whether nginx runs the configuration that is written.",
            "# TYPE sovereign_nginx_configuration_loaded gauge",
            f"sovereign_nginx_configuration_loaded {int(written[1] == running)}",
        ]
    if served and (first := CERTIFICATE.search(certificate)):
        lines += [
            "# HELP sovereign_nginx_certificate_loaded Whether nginx shows the certificate that is written.",
            "# TYPE sovereign_nginx_certificate_loaded gauge",
            f"sovereign_nginx_certificate_loaded {int(ssl.PEM_cert_to_DER_cert(first[0]) == served)}",
            "# HELP sovereign_nginx_certificate_not_after_seconds End of the validity of the certificate that is shown, in seconds since 1970.",
            "# TYPE sovereign_nginx_certificate_not_after_seconds gauge",
            f"sovereign_nginx_certificate_not_after_seconds {end_of(served)}",
        ]
    return lines


def main() -> None:
    """Look, and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--status", required=True, help="URL of nginx's status pages")
    parser.add_argument("--configuration", type=Path, required=True)
    parser.add_argument("--connections", type=int, required=True, help="of all workers")
    parser.add_argument("--address", required=True, help="address that nginx listens at")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--name", required=True, help="name that clients ask for")
    parser.add_argument("--certificate", type=Path, required=True)
    given = parser.parse_args()
    configuration, certificate = given.configuration.read_text(encoding="utf-8"), given.certificate.read_text(encoding="utf-8")
    served = shown(given.address, given.port, given.name)
    print("\n".join(report(configuration, loaded(given.status), given.connections, certificate, served)))


if __name__ == "__main__":
    main()
