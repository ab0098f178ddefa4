"""Every kind of certificate at every port that demands one, by TLS alone: with the firewalls of the servers' hosts off."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from lab.testing import host_variables
from tests.lab.conftest import PORTS, execute, python

CALLER = "hq-client1"
# Units of model servers look at the address, too: only gateways get as far as the handshake.
GATEWAY = "hq-gw1"
OFF = ("hq-app1", "hq-db1", "hq-gpu1")
OWN_SITE = ("hq-gw1", "hq-app1", "hq-db1", "hq-db2", "hq-gpu1")
STOLEN = "edge-gw1"
MEMBERS = PORTS["members"]
PATRONI_PORT = MEMBERS["patroni"]
# Those of PostgreSQL, PgBouncer, the entry and the gateways are not among them: they ask for a password or a key, and for no certificate.
DATA_PORTS = (*(MEMBERS[name] for name in ("etcd", "rabbitmq", "object_storage", "redis", "redis_sentinel")), PATRONI_PORT, 25672)
MESH_PORTS = (6200, 6201, 6202, 6203)
DIFY_PORTS = {name: port for name, port in PORTS["dify"].items() if name != "webhooks"}
WEBHOOKS_PORT = PORTS["dify"]["webhooks"]
# Where the server looks at the name as well: for members alone.
BY_NAME = {("hq-db1", port) for port in MESH_PORTS}
ETCD_PEERS_PORT = MEMBERS["etcd_peer"]

# Nothing is sent: a server that has taken the certificate waits, or greets; one that has refused it says so, or hangs up.
PROGRAM = """
import json, os, socket, ssl, tempfile
from concurrent.futures import ThreadPoolExecutor

def attempt(job):
    # A busy model server may take longer over a handshake than one waits for it.
    return next((said for said in (once(*job) for _ in range(3)) if said != "no answer"), "no answer")

def once(name, server):
    host, address, port = server
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if name != "none":
        with tempfile.NamedTemporaryFile("w") as file:
            file.write(CERTIFICATES[name])
            file.flush()
            context.load_cert_chain(file.name)
    try:
        with socket.create_connection((address, port), timeout=5) as plain:
            plain.settimeout(10)
            with context.wrap_socket(plain, server_hostname=host + ".lab.internal") as session:
                session.settimeout(2)
                return "taken" if session.recv(1) else "refused"
    except socket.timeout:
        return "taken" if "session" in locals() else "no answer"
    except ConnectionRefusedError:
        return "no answer"
    except (ssl.SSLError, ConnectionError) as error:
        return "refused"

jobs = [(name, server) for name in ["none", *CERTIFICATES] for server in SERVERS]
print(json.dumps([[name, server[0], server[2], found] for (name, server), found in zip(jobs, ThreadPoolExecutor(8).map(attempt, jobs))]))
"""


def servers() -> list[tuple[str, str, int]]:
    """Host, address and port of each server that demands a certificate, one host of each kind."""
    address = {host: host_variables()[host]["node"]["address"] for host in OFF}
    models = [int(model["port"]) for model in host_variables()["hq-gpu1"]["node"]["models"]]
    services = host_variables()["hq-app1"]["site"]["dify"]["services"]
    dify = [port for service, port in DIFY_PORTS.items() if any(member["name"] == "hq-app1" for member in services.get(service, []))]
    ports = {"hq-app1": (*dify, WEBHOOKS_PORT), "hq-db1": DATA_PORTS + MESH_PORTS, "hq-gpu1": tuple(models)}
    return [(host, address[host], port) for host in OFF for port in ports[host]]


@pytest.fixture
def firewalls_off() -> Iterator[None]:
    """Take the table away on the servers' hosts for the length of a test; a host that was killed meanwhile has it again when it boots."""
    try:
        for host in OFF:
            execute(host, "systemctl", "stop", "sovereign-firewall")
        yield
    finally:
        for host in OFF:
            execute(host, "systemctl", "start", "sovereign-firewall")


def found(caller: str, names: tuple[str, ...], asked: list[tuple[str, str, int]]) -> dict[tuple[str, str, int], str]:
    """Show hosts' certificates, and none, to servers; give what came of it.

    Args:
        caller: Host to ask from.
        names: Hosts whose certificates are shown.
        asked: Servers, as :func:`servers` gives them.
    """
    certificates = {host: execute(host, "cat", "/etc/sovereign/pki/host.pem").stdout for host in names}
    given = json.dumps(json.dumps([certificates, asked]))
    answers: list[Any] = python(caller, f"import json\nCERTIFICATES, SERVERS = json.loads({given})\n{PROGRAM}")
    return {(name, host, port): said for name, host, port, said in answers}


@pytest.mark.usefixtures("firewalls_off")
def test_a_certificate_stolen_at_the_edge_opens_nothing_on_premises_by_tls_alone() -> None:
    wanted = {}
    for host, _, port in servers():
        # Patroni tells everybody how it is; only what changes something needs a certificate. One that is shown must be good all the same.
        wanted["none", host, port] = "taken" if port == PATRONI_PORT else "refused"
        wanted[STOLEN, host, port] = "refused"
        for own in OWN_SITE:
            of_service = own.startswith("hq-db") or (host, port) not in BY_NAME
            wanted[own, host, port] = "taken" if of_service else "refused"
    names = (*OWN_SITE, STOLEN)
    seen = found(CALLER, names, [server for server in servers() if server[0] != "hq-gpu1"])
    seen |= found(GATEWAY, names, [server for server in servers() if server[0] == "hq-gpu1"])
    assert {key: said for key, said in seen.items() if said != wanted[key]} == {}
    assert seen.keys() == wanted.keys()


@pytest.mark.usefixtures("firewalls_off")
def test_etcd_takes_a_peer_only_by_a_certificate_that_bears_the_address_it_comes_from() -> None:
    server = ("hq-db1", host_variables()["hq-db1"]["node"]["address"], ETCD_PEERS_PORT)
    seen = found("hq-db2", ("hq-db2", "hq-db3", "hq-gpu1", STOLEN), [server])
    assert {name: said for (name, _, _), said in seen.items()} == {
        "none": "refused",
        "hq-db2": "taken",
        "hq-db3": "refused",
        "hq-gpu1": "refused",
        STOLEN: "refused",
    }
