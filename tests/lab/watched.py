"""What Prometheus and Alertmanager of the lab's site hq say, asked from the hosts that may ask."""

from __future__ import annotations

import json
import re
import time
from functools import cache
from typing import Any
from urllib.parse import quote

import yaml

from lab.__main__ import RECEIVER
from lab.testing import PROJECT, host_variables
from tests.lab.conftest import PORTS, execute, python

PKI = "/etc/sovereign/pki"
MEMBERS = [name for name, variables in host_variables().items() if "prometheus" in variables["node"]["groups"]]
WATCHED = [name for name, variables in host_variables().items() if "exporters" in variables["node"]["groups"]]
"""Hosts of the site that has a Prometheus."""
ROLES = sorted({group for name in WATCHED for group in host_variables()[name]["node"]["groups"]})


def api(path: str, member: str = MEMBERS[0]) -> Any:
    """Ask a member's API; give the data of its answer.

    Args:
        path: Below ``/api/v1/``, with a query.
        member: The host to ask.
    """
    url = f"https://{host_variables()[member]['node']['address']}:{PORTS['prometheus']}/api/v1/{path}"
    shown = ("--cacert", f"{PKI}/ca.crt", "--cert", f"{PKI}/host.pem")
    answer = json.loads(execute(member, "curl", "--silent", "--max-time", "20", *shown, url).stdout)
    assert answer["status"] == "success", answer
    return answer["data"]


# Runs inside a member: so many questions take a process each otherwise.
SERIES = """
import json, ssl, urllib.parse, urllib.request
from concurrent.futures import ThreadPoolExecutor
context = ssl.create_default_context(cafile=f"{PKI}/ca.crt")
context.load_cert_chain(f"{PKI}/host.pem")

def count(expression):
    asked = urllib.parse.urlencode({"query": expression, "start": END - SECONDS, "end": END, "step": 60})
    with urllib.request.urlopen(f"{URL}/api/v1/query_range?{asked}", context=context, timeout=30) as answer:
        return len(json.load(answer)["data"]["result"])

print(json.dumps(list(ThreadPoolExecutor(2).map(count, EXPRESSIONS))))
"""


def series(expressions: list[str], seconds: int, member: str = MEMBERS[0]) -> dict[str, int]:
    """Count the series that each expression has had in the last seconds.

    Args:
        expressions: Questions.
        seconds: How far to look back.
        member: The host to ask.
    """
    node = host_variables()[member]["node"]
    given = {
        "PKI": PKI,
        "URL": f"https://{node['address']}:{PORTS['prometheus']}",
        "END": time.time(),
        "SECONDS": seconds,
        "EXPRESSIONS": expressions,
    }
    counted = python(member, "".join(f"{name} = {value!r}\n" for name, value in given.items()) + SERIES, timeout=300)
    return dict(zip(expressions, counted, strict=True))


def query(expression: str, member: str = MEMBERS[0]) -> list[dict[str, Any]]:
    """Ask for a vector: labels, with the value as ``value``."""
    found = api(f"query?query={quote(expression)}", member)["result"]
    return [{**entry["metric"], "value": float(entry["value"][1])} for entry in found]


def firing(member: str = MEMBERS[0]) -> set[tuple[str, str]]:
    """Name and host of the alerts that fire, without the sign of life."""
    found = query('ALERTS{alertstate="firing", alertname!="Watchdog"}', member)
    return {(alert["alertname"], alert.get("instance", "")) for alert in found}


def told() -> list[dict[str, Any]]:
    """What the lab's receiver of alerts was sent, in its order: time, path, body."""
    lines = execute(RECEIVER["host"], "cat", RECEIVER["log"], check=False).stdout.splitlines()
    return [json.loads(line) for line in lines]


@cache
def panels() -> dict[str, list[str]]:
    """What each panel of the site's dashboards asks, by role and title, with everything selected."""
    found = {}
    for path in sorted(PROJECT.glob("roles/*/monitoring/dashboard.yml")):
        role = path.parts[-3]
        rows = yaml.safe_load(path.read_text(encoding="utf-8"))["rows"] if role in ROLES else []
        for row in rows:
            for panel in row["panels"]:
                if {row.get("role", role), panel.get("role", role)} <= set(ROLES):
                    found[f"{role}: {panel['title']}"] = [re.sub(r"\$\w+", ".*", asked["expr"]) for asked in panel["queries"]]
    return found
