"""Print until when the certificates of a host are valid, and whether they fit their keys and their authority.

``certificates.py DIRECTORY``: it has ``ca.crt``, ``host.crt``, ``host.key``, ``host.pem`` and, where the host meets other sites, ``peers.crt``.
"""

from __future__ import annotations

import re
import ssl
import subprocess
import sys
from pathlib import Path

CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
COMMON_NAME = re.compile(r"CN=((?:\\.|[^\\,+])*)")


def openssl(arguments: list[str], text: str = "") -> str:
    """Run openssl.

    Args:
        arguments: Its arguments.
        text: Its standard input.

    Returns:
        What it prints; nothing if it fails.
    """
    done = subprocess.run(["openssl", *arguments], input=text, capture_output=True, text=True, check=False, timeout=8)
    return done.stdout if done.returncode == 0 else ""


def quoted(text: str) -> str:
    """Give a text as the value of a label."""
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def validity(file: Path) -> list[str]:
    """Give a line for each certificate of a file: the end of its validity in seconds since 1970; 0 for what is none."""
    lines = []
    for number, text in enumerate(CERTIFICATE.findall(file.read_text(encoding="utf-8")), start=1):
        said = openssl(["x509", "-noout", "-enddate", "-subject", "-nameopt", "RFC2253,-esc_msb,utf8"], text)
        values = dict(line.split("=", 1) for line in said.splitlines() if "=" in line)
        end = ssl.cert_time_to_seconds(values["notAfter"]) if "notAfter" in values else 0
        name = COMMON_NAME.search(values.get("subject", ""))
        subject = re.sub(r"\\(.)", r"\1", name[1]) if name else ""
        labels = f'file="{file.name}",number="{number}",subject="{quoted(subject)}"'
        lines.append(f"sovereign_certificate_not_after_seconds{{{labels}}} {end}")
    return lines


def fits(certificate: Path, key: Path) -> bool:
    """Tell whether a key is that of the first certificate of a file."""
    public = openssl(["x509", "-noout", "-pubkey", "-in", str(certificate)])
    return bool(public) and public == openssl(["pkey", "-pubout", "-in", str(key)])


def verified(certificate: Path, authority: Path) -> bool:
    """Tell whether an authority, or one below it that comes along, has signed a certificate. Its validity is told elsewhere."""
    return bool(openssl(["verify", "-no_check_time", "-CAfile", str(authority), "-untrusted", str(certificate), str(certificate)]))


def report(directory: Path) -> list[str]:
    """Give the metrics as lines of Prometheus' text format."""
    files = [directory / name for name in ("host.crt", "ca.crt", "peers.crt") if name != "peers.crt" or (directory / name).exists()]
    return [
        "# HELP sovereign_certificate_not_after_seconds End of a certificate's validity in seconds since 1970.",
        "# TYPE sovereign_certificate_not_after_seconds gauge",
        *(line for file in files for line in validity(file)),
        "# HELP sovereign_certificate_fits_key Whether the first certificate of a file is that of the host's key.",
        "# TYPE sovereign_certificate_fits_key gauge",
        f'sovereign_certificate_fits_key{{file="host.crt"}} {int(fits(directory / "host.crt", directory / "host.key"))}',
        f'sovereign_certificate_fits_key{{file="host.pem"}} {int(fits(directory / "host.pem", directory / "host.key"))}',
        "# HELP sovereign_certificate_verifies Whether the host's certificate is signed by an authority that the host trusts.",
        "# TYPE sovereign_certificate_verifies gauge",
        f'sovereign_certificate_verifies{{file="host.crt"}} {int(verified(directory / "host.crt", directory / "ca.crt"))}',
    ]


if __name__ == "__main__":
    print("\n".join(report(Path(sys.argv[1]))))
