"""Print whether an alarm of etcd is raised, which its metrics do not say: ``alarms.py PORT``, that of ``/health`` on 127.0.0.1."""

from __future__ import annotations

import http.client
import json
import sys

TIMEOUT_S = 8.0
ALARMS = ("NOSPACE", "CORRUPT")


def health(port: int) -> str:
    """Give what etcd answers to ``/health``, with whatever status.

    Raises:
        OSError: nobody answers in time.
    """
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().read().decode()
    finally:
        connection.close()


def report(answer: str) -> list[str]:
    """Give the metrics as lines of Prometheus' text format.

    Args:
        answer: Such as ``{"health":"false","reason":"ALARM NOSPACE"}``. etcd names one reason; an alarm comes before all others.
    """
    reason = str(json.loads(answer).get("reason", ""))
    return [
        "# HELP sovereign_etcd_alarm Whether an alarm is raised: the quota is used up, or members hold different data.",
        "# TYPE sovereign_etcd_alarm gauge",
        *(f'sovereign_etcd_alarm{{alarm="{alarm}"}} {int(reason == f"ALARM {alarm}")}' for alarm in ALARMS),
    ]


def main(port: str) -> None:
    """Ask, and print. An etcd that does not run is told of by its job."""
    try:
        answer = health(int(port))
    except ConnectionRefusedError:
        return
    print("\n".join(report(answer)))


if __name__ == "__main__":
    main(*sys.argv[1:])
