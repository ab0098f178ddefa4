"""What the certificates are good for, and what is refused: each refusal beside the same request that is allowed."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from shutil import rmtree
from typing import Any

import pytest

from lab.testing import PROJECT, changed, rerun

SERVER = "198.18.23.11"
OWN = "--cert /etc/sovereign/pki/host.crt --key /etc/sovereign/pki/host.key"
TRUST = "--cacert /etc/sovereign/pki/ca.crt"
CURL_CERTIFICATE_REFUSED = 60
# In TLS 1.3 a client hears of its refusal only after it has begun to talk: as an alert, or as a connection that is closed.
CURL_REFUSED_BY_SERVER = {35, 55, 56}


def run_role(*arguments: str) -> str:
    """Run the scenario's playbook once more; it must succeed."""
    run = rerun(*arguments)
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


@pytest.fixture
def call(on: Any) -> Any:
    """Give a function that asks the TLS server from a host (the client's), by the server's name unless told otherwise."""

    def ask(options: str = f"{TRUST} {OWN}", at: str = "server.pki.test", host: str = "client") -> Any:
        return on(host).run(f"curl --silent --show-error --max-time 5 --resolve {at}:4433:{SERVER} {options} https://{at}:4433/")

    return ask


@pytest.fixture
def foreign(on: Any) -> Iterator[str]:
    """Make an authority of the same name on the client's host, and a certificate for it."""
    host = on("client")
    host.run_expect(
        [0],
        "mkdir -p /root/foreign && cd /root/foreign"
        " && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj '/CN=mol-pki internal authority, hq'"
        " -keyout ca.key -out ca.crt"
        " && openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /OU=hq/CN=client.pki.test -keyout client.key -out client.csr"
        " && openssl x509 -req -in client.csr -CA ca.crt -CAkey ca.key -CAcreateserial -out client.crt",
    )
    yield "/root/foreign"
    host.run_expect([0], "rm -r /root/foreign")


def certificate(on: Any, name: str, field: str) -> str:
    shown: str = on(name).check_output(f"openssl x509 -noout -{field} -in /etc/sovereign/pki/host.crt")
    return shown


@pytest.mark.parametrize("at", ["server.pki.test", "nginx.hq.pki.test", "ai.hq.pki.test", SERVER])
def test_a_server_is_verified_by_its_name_its_services_name_the_entrys_name_and_its_address(call: Any, at: str) -> None:
    answer = call(at=at)
    assert answer.rc == 0, answer.stderr
    assert "Client certificate" in answer.stdout


def test_a_server_is_refused_under_a_name_that_is_not_its_own(call: Any) -> None:
    assert call(at="client.pki.test").rc == CURL_CERTIFICATE_REFUSED


def test_the_hosts_own_trust_store_knows_the_authority(call: Any) -> None:
    assert call(options=OWN).rc == 0


def test_a_client_without_a_certificate_is_refused(call: Any) -> None:
    assert call().rc == 0
    assert call(options=TRUST).rc in CURL_REFUSED_BY_SERVER


def test_a_certificate_of_another_authority_is_refused_even_if_it_bears_the_same_name(call: Any, foreign: str) -> None:
    assert call().rc == 0
    assert call(options=f"{TRUST} --cert {foreign}/client.crt --key {foreign}/client.key").rc in CURL_REFUSED_BY_SERVER
    assert call(options=f"--cacert {foreign}/ca.crt {OWN}").rc == CURL_CERTIFICATE_REFUSED


def test_the_authority_cannot_sign_for_domains_that_are_not_the_clusters(on: Any) -> None:
    shown = on("client").check_output("openssl x509 -noout -text -in /etc/sovereign/pki/ca.crt")
    assert "Name Constraints: critical" in shown
    assert "DNS:pki.test" in shown
    assert "pathlen:0" in shown


@pytest.mark.parametrize("name", ["server", "client"])
def test_a_services_user_reads_the_key_only_as_a_member_of_the_group(on: Any, name: str) -> None:
    for file in ("host.key", "host.pem"):
        path = f"/etc/sovereign/pki/{file}"
        assert on(name).run(f"setpriv --reuid=nobody --regid=nogroup --clear-groups cat {path}").rc != 0
        assert on(name).run(f"setpriv --reuid=nobody --regid=nogroup --groups=ssl-cert cat {path}").rc == 0


def test_no_hosts_key_is_on_the_controller_and_the_authoritys_is_encrypted(contract: Any) -> None:
    state = Path(contract("server")["cluster"]["state_dir"]) / "pki"
    keys = {path for path in state.rglob("*") if path.is_file() and "PRIVATE KEY" in path.read_text(errors="replace")}
    assert keys == {state / "sites/edge/ca.key", state / "sites/hq/ca.key"}
    assert all("ENCRYPTED PRIVATE KEY" in key.read_text() for key in keys)
    assert all(key.stat().st_mode & 0o077 == 0 for key in keys)


def test_a_certificate_near_its_end_is_renewed_and_its_user_reloaded(on: Any, call: Any) -> None:
    serial, process = certificate(on, "server", "serial"), on("server").check_output("systemctl show --property=MainPID tls-echo")
    key = on("server").file("/etc/sovereign/pki/host.key").sha256sum
    # A run that is cut once it has put them in place; the next one finishes it.
    run_role("--limit=server", "--extra-vars=pki_renew_before_days=398", "--tags=pki_configure")
    assert certificate(on, "server", "serial") != serial
    assert on("server").check_output("systemctl show --property=MainPID tls-echo") == process
    run_role("--limit=server", "--tags=pki_service")
    assert on("server").file("/etc/sovereign/pki/host.key").sha256sum == key
    assert on("server").check_output("systemctl show --property=MainPID tls-echo") != process
    answer = call()
    assert answer.rc == 0, answer.stderr


def test_rotation_makes_a_new_key_and_certificate(on: Any, call: Any) -> None:
    key, serial = on("client").file("/etc/sovereign/pki/host.key").sha256sum, certificate(on, "client", "serial")
    run_role("--tags=pki_rotate", "--limit=client")
    assert on("client").file("/etc/sovereign/pki/host.key").sha256sum != key
    assert certificate(on, "client", "serial") != serial
    assert call().rc == 0


def test_a_new_name_is_signed_at_the_next_run(on: Any, call: Any) -> None:
    assert call(at="extra.pki.test").rc == CURL_CERTIFICATE_REFUSED
    run_role("--limit=server", "--extra-vars={pki_extra_names: [extra.pki.test]}", "--skip-tags=pki_install")
    assert call(at="extra.pki.test").rc == 0


def test_an_expired_certificate_is_refused_and_the_next_run_heals_it(on: Any, call: Any) -> None:
    assert call().rc == 0
    run_role("--limit=client", "--extra-vars={pki_validity_days: 0, pki_renew_before_days: 398}", "--skip-tags=pki_install,verify")
    assert call().rc in CURL_REFUSED_BY_SERVER
    run_role("--skip-tags=pki_install")
    answer = call()
    assert answer.rc == 0, answer.stderr


def test_a_name_outside_the_authoritys_domains_is_refused_before_anything_is_done(on: Any) -> None:
    serial = certificate(on, "client", "serial")
    with pytest.raises(AssertionError, match="pki_ca_permitted_domains"):
        run_role("--limit=client", "--extra-vars={pki_extra_names: [www.example.org]}")
    assert certificate(on, "client", "serial") == serial


def test_a_host_of_another_site_is_neither_answered_nor_believed(call: Any) -> None:
    assert call().rc == 0
    # Its trust in the server's authority taken care of, so that it is its own certificate that is refused.
    stolen = call(options=f"--cacert /etc/sovereign/pki/peers.crt {OWN}", host="edge")
    assert stolen.rc in CURL_REFUSED_BY_SERVER, stolen.stderr
    assert "Client certificate" not in stolen.stdout
    assert call(host="edge").rc == CURL_CERTIFICATE_REFUSED


def test_hosts_in_the_vpn_know_their_peers_authority_and_others_do_not(on: Any) -> None:
    verify = "openssl verify -no-CApath -no-CAstore -CAfile /etc/sovereign/pki/peers.crt /etc/sovereign/pki/host.crt"
    for one, other in (("server", "edge"), ("edge", "server")):
        authority = on(other).file("/etc/sovereign/pki/ca.crt").content_string
        assert on(one).file("/etc/sovereign/pki/peers.crt").content_string == authority
        # Peers alone: a gateway's listener for peers lets no host of its own site in.
        assert on(one).run(verify).rc != 0
    assert not on("client").file("/etc/sovereign/pki/peers.crt").exists


def test_a_platform_with_one_authority_for_all_sites_moves_to_one_for_each_and_is_answered_all_the_while(on: Any, call: Any, contract: Any) -> None:
    state = Path(contract("server")["cluster"]["state_dir"])
    pki, playbook = state / "pki", str(PROJECT / "playbooks/ops/split_authority.yml")
    # Gone already, if this test was cut.
    rmtree(pki / "sites", ignore_errors=True)
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-days", "3650"]  # noqa: RUF005
        + ["-subj", "/CN=mol-pki internal authority", "-passout", f"file:{state / 'secrets/pki/ca'}"]
        + ["-keyout", str(pki / "ca.key"), "-out", str(pki / "ca.crt")],
        check=True,
        capture_output=True,
    )

    def step(name: str) -> subprocess.CompletedProcess[str]:
        return rerun("--skip-tags=pki_install", playbook=playbook, step=name)

    def edge() -> int:
        return int(call(options=f"--cacert /etc/sovereign/pki/peers.crt {OWN}", host="edge").rc)

    run_role("--skip-tags=pki_install")
    # What moving is for.
    assert (call().rc, edge()) == (0, 0)
    refused = step("sign")
    assert refused.returncode != 0
    assert "run step=trust" in refused.stdout
    assert not (pki / "sites").exists()
    for name in ("trust", "sign"):
        done = step(name)
        assert done.returncode == 0, done.stdout + done.stderr
        assert call().rc == 0
        # From the moment on at which it has a certificate of its own site's authority.
        assert (edge() == 0) == (name == "trust")
    done = step("drop")
    assert done.returncode == 0, done.stdout + done.stderr
    assert call().rc == 0
    assert edge() in CURL_REFUSED_BY_SERVER
    for left in ("ca.key", "retired.crt"):
        (pki / left).unlink()
    assert changed(rerun("--check")) == {"client": 0, "edge": 0, "server": 0}
