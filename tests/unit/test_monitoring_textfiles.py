"""Programs of roles that print metrics, and what the rules make of them: what is told, and what is not."""

from __future__ import annotations

import datetime
import hashlib
import json
import re
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.role_program import PROJECT, load_file

HOST = load_file("roles/baseline/monitoring/host.py")
SECRETS = load_file("roles/baseline/monitoring/secret_files.py")
CERTIFICATES = load_file("roles/pki/monitoring/certificates.py")
FIREWALL = load_file("roles/firewall/monitoring/firewall.py")
WIREGUARD = load_file("roles/wireguard/monitoring/wireguard.py")
KEEPALIVED = load_file("roles/keepalived/monitoring/keepalived.py")
NGINX = load_file("roles/nginx/monitoring/nginx.py")
GATEWAY = load_file("roles/model_gateway/monitoring/model_gateway.py")
GPUS = load_file("roles/nvidia_driver/monitoring/nvidia_gpus.py")

SAMPLE = re.compile(r'([a-z_]+)(?:\{((?:[a-z_]+="(?:[^"\\\n]|\\["\\n])*",?)*)\})? (-?[0-9.e+]+)')


def samples(lines: Sequence[str]) -> dict[str, float]:
    """Give what was printed by series, and check that it is Prometheus' text format: each metric with its type, and once."""
    found: dict[str, float] = {}
    typed = set()
    for line in lines:
        if line.startswith("# TYPE "):
            typed.add(line.split()[2])
        elif not line.startswith("# HELP "):
            match = SAMPLE.fullmatch(line)
            assert match, line
            series = line.rpartition(" ")[0]
            assert match[1] in typed, line
            assert series not in found, line
            found[series] = float(match[3])
    return found


# host.py


@pytest.mark.parametrize(
    ("running", "images", "newest"),
    [
        ("6.12.9+deb13-amd64", ["vmlinuz-6.12.9+deb13-amd64", "vmlinuz-6.12.10+deb13-amd64"], "6.12.10+deb13-amd64"),
        ("6.12.10+deb13-amd64", ["vmlinuz-6.12.9+deb13-amd64", "vmlinuz-6.12.10+deb13-amd64"], "6.12.10+deb13-amd64"),
        # One of another flavour is another kernel.
        ("6.1.0-25-cloud-amd64", ["vmlinuz-6.1.0-25-cloud-amd64", "vmlinuz-6.1.0-40-amd64"], "6.1.0-25-cloud-amd64"),
        ("6.8.0-45-generic", ["vmlinuz-6.8.0-45-generic", "vmlinuz-6.8.0-101-generic", "vmlinuz-old"], "6.8.0-101-generic"),
        # That of the machine around a container.
        ("6.18.44-fc-v657", [], "6.18.44-fc-v657"),
        ("unheard", ["vmlinuz-6.12.9+deb13-amd64"], "unheard"),
    ],
)
def test_a_host_waits_for_a_restart_when_a_newer_kernel_is_installed(running: str, images: list[str], newest: str) -> None:
    assert HOST.newest(running, images) == newest
    told = samples(HOST.report(running, images, required=False, own_clock=True))
    assert told['sovereign_restart_required{reason="kernel"}'] == (newest != running)
    assert told['sovereign_restart_required{reason="packages"}'] == 0
    assert told["sovereign_own_clock"] == 1


# secret_files.py


def test_secrets_are_told_of_that_others_reach(tmp_path: Path) -> None:
    modes = {"etc/dify/a.env": 0o600, "etc/dify/b.env": 0o640, "etc/dify/c.env": 0o644, "etc/dify/d.env": 0o602, "etc/closed/e.env": 0o644}
    for name, mode in modes.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        path.chmod(mode)
    (tmp_path / "etc/closed").chmod(0o750)
    # As their packages have them, but the last one.
    for name, sum_of in {"e": b"shipped", "f": b"shipped", "g": b"other"}.items():
        (tmp_path / f"etc/dify/{name}.env").write_text("shipped")
        (tmp_path / f"etc/dify/{name}.env").chmod(0o644)
        (tmp_path / "var/lib/dpkg").mkdir(parents=True, exist_ok=True)
        with (tmp_path / "var/lib/dpkg/status").open("a") as status:
            checksum = hashlib.md5(sum_of, usedforsecurity=False).hexdigest()
            status.write(f"Package: {name}\nConffiles:\n /etc/dify/{name}.env {checksum}\nDescription: x\n")
    tmp_path.chmod(0o755)
    told = samples(SECRETS.report(("etc/**/*.env", "etc/none/*"), tmp_path))
    assert told == {
        "sovereign_secret_files": 8,
        f'sovereign_secret_file_exposed{{path="{tmp_path}/etc/dify/c.env",others_may="read"}}': 1,
        f'sovereign_secret_file_exposed{{path="{tmp_path}/etc/dify/d.env",others_may="write"}}': 1,
        f'sovereign_secret_file_exposed{{path="{tmp_path}/etc/dify/g.env",others_may="read"}}': 1,
    }


# certificates.py


def certificate(name: str, key: ec.EllipticCurvePrivateKey, signer: ec.EllipticCurvePrivateKey, issuer: str, end: datetime.datetime) -> bytes:
    """Make a certificate (PEM)."""
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC))
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=name == issuer, path_length=None), critical=True)
    )
    return builder.sign(signer, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def private(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Give a key as PEM."""
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


@pytest.fixture
def pki(tmp_path: Path) -> Path:
    """A host's directory, with a certificate that has expired, which is told by its end alone."""
    authority, own = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    end = datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC)
    ca = certificate("lab authority, hq", authority, authority, "lab authority, hq", end)
    host = certificate("gw1.lab.internal", own, authority, "lab authority, hq", datetime.datetime(2021, 1, 1, tzinfo=datetime.UTC))
    for name, content in {"ca.crt": ca, "host.crt": host, "host.key": private(own), "host.pem": host + private(own), "peers.crt": ca + ca}.items():
        (tmp_path / name).write_bytes(content)
    return tmp_path


def test_ends_of_certificates_are_told_for_each_of_a_file(pki: Path) -> None:
    told = samples(CERTIFICATES.report(pki))
    assert told['sovereign_certificate_not_after_seconds{file="host.crt",number="1",subject="gw1.lab.internal"}'] == 1609459200
    assert told['sovereign_certificate_not_after_seconds{file="peers.crt",number="2",subject="lab authority, hq"}'] == 1893456000
    assert [value for series, value in told.items() if "fits_key" in series or "verifies" in series] == [1, 1, 1]


def test_a_certificate_beside_another_key_is_told(pki: Path) -> None:
    (pki / "host.key").write_bytes(private(ec.generate_private_key(ec.SECP256R1())))
    told = samples(CERTIFICATES.report(pki))
    assert told['sovereign_certificate_fits_key{file="host.crt"}'] == 0
    assert told['sovereign_certificate_verifies{file="host.crt"}'] == 1


def test_a_certificate_of_another_authority_is_told(pki: Path) -> None:
    other = ec.generate_private_key(ec.SECP256R1())
    (pki / "ca.crt").write_bytes(certificate("other", other, other, "other", datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC)))
    (pki / "peers.crt").unlink()
    told = samples(CERTIFICATES.report(pki))
    assert told['sovereign_certificate_verifies{file="host.crt"}'] == 0
    assert not [series for series in told if "peers" in series]


# firewall.py


class Kernel:
    """Answers as nft does.

    Attributes:
        listing: The table; nothing where it does not exist.
        rehearsed: What the ruleset makes.
        rehearsals: How often that was tried.
    """

    def __init__(self, listing: str, rehearsed: str) -> None:
        """Remember both."""
        self.listing, self.rehearsed, self.rehearsals = listing, rehearsed, 0

    def run(self, command: list[str]) -> tuple[int, str, str]:
        """Run a command."""
        if command[0] == "unshare":
            self.rehearsals += 1
            return 0, self.rehearsed, ""
        if "--json" in command:
            return 0, json.dumps({"nftables": [{"metainfo": {}}, {"counter": {"name": "input_denied", "packets": 7, "bytes": 420}}]}), ""
        return (0, self.listing, "") if self.listing else (1, "", "Error: No such file or directory")


@pytest.mark.parametrize(
    ("listing", "rehearsed", "in_force", "confirmed"), [("table a", "table a", 1, 1), ("table b", "table a", 1, 0), ("", "table a", 0, 0)]
)
def test_a_table_is_compared_with_the_ruleset_of_the_boot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, listing: str, rehearsed: str, in_force: int, confirmed: int
) -> None:
    kernel = Kernel(listing, rehearsed)
    monkeypatch.setattr(FIREWALL, "run", kernel.run)
    ruleset, memory = tmp_path / "ruleset.nft", tmp_path / "firewall.json"
    ruleset.write_text("rules")
    for _ in range(3):
        told = samples(FIREWALL.report("inet sovereign", ruleset, memory))
        assert told["sovereign_firewall_in_force"] == in_force
        assert told["sovereign_firewall_as_confirmed"] == confirmed
        assert told.get('sovereign_firewall_packets_total{counter="input_denied"}') == (7 if listing else None)
    # Loaded once, and again only when something has changed.
    assert kernel.rehearsals == in_force
    ruleset.write_text("other rules")
    FIREWALL.report("inet sovereign", ruleset, memory)
    assert kernel.rehearsals == 2 * in_force


def test_a_firewall_that_does_not_answer_is_no_firewall_that_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FIREWALL, "run", lambda dummy: (1, "", "Operation not permitted"))
    with pytest.raises(FIREWALL.NftError, match="Operation not permitted"):
        FIREWALL.report("inet sovereign", tmp_path / "ruleset.nft", tmp_path / "firewall.json")


# wireguard.py

VPN = """[Interface]
PrivateKey = P0

# edge-gw1
[Peer]
PublicKey = K1
PresharedKey = S1

# edge-gw2
[Peer]
PublicKey = K2
"""
DUMP = "P0\tK0\t51820\toff\nK1\tS1\t198.18.9.21:51820\t10.9.0.2/32\t1796053323\t92\t328\t25\nK9\t(none)\t(none)\t(none)\t0\t0\t0\toff\n"


def test_peers_are_told_by_name_those_too_that_the_interface_does_not_know() -> None:
    told = samples(WIREGUARD.report("wg0", 25, {"edge-gw1": "edge", "edge-gw3": "branch"}, WIREGUARD.names(VPN), DUMP))
    assert told['sovereign_wireguard_up{interface="wg0"}'] == 1
    assert told['sovereign_wireguard_last_handshake_seconds{interface="wg0",peer="edge-gw1",peer_site="edge"}'] == 1796053323
    assert told['sovereign_wireguard_received_bytes_total{interface="wg0",peer="edge-gw1",peer_site="edge"}'] == 92
    assert told['sovereign_wireguard_last_handshake_seconds{interface="wg0",peer="edge-gw3",peer_site="branch"}'] == 0
    assert len(told) == 2 + 3 * 2


def test_an_interface_that_is_gone_is_told() -> None:
    told = samples(WIREGUARD.report("wg0", 25, {"edge-gw1": "edge"}, {}, None))
    assert told['sovereign_wireguard_up{interface="wg0"}'] == 0


def test_names_of_peers_are_read_as_the_role_writes_them() -> None:
    template = (PROJECT / "roles/wireguard/templates/wg.conf.j2").read_text(encoding="utf-8")
    assert "# {{ peer.name }}\n[Peer]\nPublicKey = {{ public_keys[peer.name] }}\n" in template
    assert WIREGUARD.names(VPN) == {"K1": "edge-gw1", "K2": "edge-gw2"}


# keepalived.py


def test_an_entry_that_does_not_answer_is_no_error(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        assert not KEEPALIVED.answers("ai.lab.internal", free.getsockname()[1], str(tmp_path / "none.crt"), 1)
    told = samples(KEEPALIVED.report("10.10.1.10", held=True, answered=False))
    assert told == {'sovereign_keepalived_holds{address="10.10.1.10"}': 1, 'sovereign_keepalived_entry_answers{address="10.10.1.10"}': 0}


# nginx.py

STATUS = 'location = /generation {\n            default_type text/plain;\n            return 200 "abc";\n        }'


def test_what_nginx_runs_and_shows_is_compared_with_what_is_written(pki: Path) -> None:
    text = (pki / "host.crt").read_text()
    served = x509.load_pem_x509_certificate(text.encode()).public_bytes(serialization.Encoding.DER)
    told = samples(NGINX.report(STATUS, "abc", 8192, text, served))
    assert told["sovereign_nginx_configuration_loaded"] == told["sovereign_nginx_certificate_loaded"] == 1
    assert told["sovereign_nginx_certificate_not_after_seconds"] == 1609459200
    told = samples(NGINX.report(STATUS, "abd", 8192, (pki / "ca.crt").read_text(), served))
    assert told["sovereign_nginx_configuration_loaded"] == told["sovereign_nginx_certificate_loaded"] == 0
    # Of an nginx that does not answer, its exporter tells.
    assert samples(NGINX.report(STATUS, "", 8192, text, b"")) == {"sovereign_nginx_connections_limit": 8192}


def test_the_generation_is_read_as_the_role_writes_it() -> None:
    template = (PROJECT / "roles/nginx/templates/nginx.conf.j2").read_text(encoding="utf-8")
    found = NGINX.GENERATION.search(template)
    assert found
    assert found[1] == "{{ __nginx_generation }}"


# nginx_log.mtail

MTAIL = PROJECT / "roles/nginx/monitoring/nginx_log.mtail"


def mtail_patterns() -> dict[str, re.Pattern[str]]:
    """Give the named patterns of the program; their language is also Python's."""
    found = re.findall(r"^const (\w+) /(.+)/$", MTAIL.read_text(encoding="utf-8"), re.MULTILINE)
    assert {name for name, dummy in found} == {"HEAD", "PLACE", "RESULT", "TIME", "OF_GATEWAY", "OF_DIFY", "ANSWERED"}
    return {name: re.compile(text.replace(r"\/", "/")) for name, text in found}


def log_line(**values: str) -> str:
    """Give a line of the access log, as nginx's configuration has its format."""
    template = (PROJECT / "roles/nginx/templates/nginx.conf.j2").read_text(encoding="utf-8")
    found = re.search(r"log_format entry escape=json '(.+)';", template)
    assert found
    known = {
        "msec": "1796052633.979", "entry_status": "200", "request_length": "192", "bytes_sent": "123", "request_time": "0.055", "connection": "1",
        "connection_requests": "1", "upstream_header_time": "-, 0.054", "upstream_response_time": "0.000, 0.154", "entry_path": "/", **values,
    }  # fmt: skip
    return re.sub(r"\$(\w+)", lambda name: known.get(name[1], name[1]), found[1])


def test_the_log_is_read_as_nginx_writes_it() -> None:
    patterns = mtail_patterns()
    whole = re.compile("".join(patterns[name].pattern for name in ("HEAD", "PLACE", "RESULT", "TIME")))
    line = log_line(entry_client="web-chat", entry_tier="standard", request_method="POST", entry_path='/a\\"b', limit_req_status="PASSED")
    found = whole.match(line)
    assert found
    assert found.groupdict() == {
        "client": "web-chat", "tier": "standard", "method": "POST", "status": "200", "limit": "PASSED", "bytes_in": "192", "bytes_out": "123",
        "seconds": "0.055",
    }  # fmt: skip
    answered = patterns["ANSWERED"].search(line)
    assert answered
    assert answered.groupdict() == {"first_byte": "0.054", "whole": "0.154"}
    # Nobody has answered: a refusal, or a server that was not there.
    assert not patterns["ANSWERED"].search(log_line(upstream_header_time="", upstream_response_time=""))
    assert not patterns["ANSWERED"].search(log_line(upstream_header_time="-", upstream_response_time="0.001"))


def test_a_path_cannot_pass_itself_off_as_another_field() -> None:
    patterns = mtail_patterns()
    whole = re.compile("".join(patterns[name].pattern for name in ("HEAD", "PLACE", "RESULT", "TIME")))
    found = whole.match(log_line(entry_client="web-chat", entry_path='/x\\",\\"status\\":500,\\"limit\\":\\"REJECTED'))
    assert found
    assert (found["client"], found["status"]) == ("web-chat", "200")


@pytest.mark.parametrize(
    ("path", "of_model"),
    [
        ("/v1/chat/completions", True),
        ("/v1/embeddings", True),
        ("/v1/models", False),
        ("/v1/chat-messages", True),
        ("/console/api/apps/1/workflows/draft/run", True),
        ("/console/api/datasets/1/hit-testing", True),
        ("/v1/workflows/run", True),
        ("/mcp/server/1/mcp", True),
        ("/e/abc/hook", True),
        ("/console/api/apps", False),
        ("/v1/chat-messages/1/stop", False),
        ("/files/upload", False),
    ],
)
def test_paths_behind_which_a_model_answers_are_known(path: str, of_model: bool) -> None:
    patterns = mtail_patterns()
    line = log_line(entry_path=path)
    assert bool(patterns["OF_GATEWAY"].search(line) or patterns["OF_DIFY"].search(line)) == of_model


# model_gateway.py

MODELS = {"assistant": "public", "risk-scoring": "restricted"}


def refused(status: int, **values: str) -> dict[str, Any]:
    """Give a line of the gateway's log."""
    usual = {"time": 1796052780.5, "frontend": "site", "client": "web-chat", "site": "edge", "model": "-", "status": status, "pool": "site"}
    return {**usual, **values}


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        (refused(401, client="-"), ("invalid_key", "(none)", "edge", "")),
        (refused(403, model="risk-scoring"), ("not_granted", "web-chat", "edge", "risk-scoring")),
        (refused(403, client="-", site="-", frontend="vpn", pool="vpn"), ("not_a_peer", "(none)", "(none)", "")),
        (refused(404, model="risk-scoring"), ("not_offered", "web-chat", "edge", "risk-scoring")),
        # Whatever a client may think of becomes no label.
        (refused(404, model='a"b'), ("unknown_model", "web-chat", "edge", "(unknown)")),
        # A path that nobody serves.
        (refused(404), None),
        (refused(429), ("rate", "web-chat", "edge", "")),
        (refused(503), ("large_bodies", "web-chat", "edge", "")),
        (refused(503, pool="model_assistant", model="assistant"), None),
        (refused(200, pool="model_assistant", model="assistant"), None),
    ],
)
def test_refusals_of_the_gateway_are_told_apart(entry: dict[str, Any], told: tuple[str, str, str, str] | None) -> None:
    assert GATEWAY.classify(entry, MODELS) == told


def test_each_refusal_is_counted_once_and_over_restarts(tmp_path: Path) -> None:
    asked: list[list[str]] = []
    lines: list[list[str]] = [
        ["-- cursor: c1"],
        ["Server model_assistant/hq-gpu1 is DOWN", json.dumps(refused(403, model="risk-scoring"), separators=(",", ":")), "-- cursor: c2"],
        [json.dumps(refused(403, model="risk-scoring", time="1796052999.1"), separators=(",", ":")), "{broken", "-- cursor: c3"],
    ]

    def run(command: list[str]) -> Iterator[str]:
        asked.append(command)
        return iter(lines[len(asked) - 1])

    memory = tmp_path / "model_gateway.json"
    for _ in range(3):
        seen = GATEWAY.read_memory(memory)
        GATEWAY.read_journal(seen, MODELS, run, lambda: 0.0)
        GATEWAY.keep(memory, seen)
    assert [command[-1] for command in asked] == ["--lines=0", "--after-cursor=c1", "--after-cursor=c2"]
    told = samples(GATEWAY.report(GATEWAY.read_memory(memory), MODELS, "", ""))
    labels = '{reason="not_granted",client="web-chat",from_site="edge",model="risk-scoring",classification="restricted"}'
    assert told["sovereign_model_gateway_refused_total" + labels] == 2
    assert told["sovereign_model_gateway_refused_last_seconds" + labels] == 1796052999
    assert told["sovereign_model_gateway_log_lost_total"] == 0


def test_a_backlog_that_is_too_long_is_passed_over_and_told() -> None:
    moments = iter(range(100))
    seen = GATEWAY.Seen("c1")
    line = json.dumps(refused(429), separators=(",", ":"))
    GATEWAY.read_journal(
        seen, MODELS, lambda command: iter(["-- cursor: end"] if "--lines=0" in command else [line] * 50), lambda: float(next(moments))
    )
    assert (seen.cursor, seen.lost) == ("end", 1)
    assert 0 < seen.counts["rate", "web-chat", "edge", ""] < 50


def test_a_place_in_a_journal_that_is_gone_is_told() -> None:
    seen = GATEWAY.Seen("c1")
    GATEWAY.read_journal(seen, MODELS, lambda command: iter(["-- cursor: end"] if "--lines=0" in command else []), lambda: 0.0)
    assert (seen.cursor, seen.lost) == ("end", 1)


def test_a_damaged_memory_is_none(tmp_path: Path) -> None:
    memory = tmp_path / "model_gateway.json"
    for text in ("", "[]", '{"cursor": "c"}', "garbage"):
        memory.write_text(text)
        assert GATEWAY.read_memory(memory) == GATEWAY.Seen()


def test_the_digest_is_read_as_the_role_writes_it() -> None:
    written = (
        (PROJECT / "roles/model_gateway/templates/configuration.cfg.j2").read_text(encoding="utf-8").replace("{{ __model_gateway_digest }}", "d1")
    )
    for running, same in (("d1", 1), ("d2", 0)):
        assert samples(GATEWAY.report(GATEWAY.Seen(), MODELS, written, running))["sovereign_model_gateway_configuration_loaded"] == same


def test_the_gateways_log_has_the_fields_that_are_read() -> None:
    template = (PROJECT / "roles/model_gateway/templates/haproxy.cfg.j2").read_text(encoding="utf-8")
    found = re.search(r"log-format '(\{.+\})'", template)
    assert found
    assert {"time", "frontend", "site", "client", "model", "pool", "status"} <= set(re.findall(r'"(\w+)":', found[1]))
    assert GATEWAY.REFUSED.search(found[1].replace("%ST", "403"))


# nvidia_gpus.py

SMI = """<?xml version="1.0" ?>
<!DOCTYPE nvidia_smi_log SYSTEM "nvsmi_device_v13.dtd">
<nvidia_smi_log>
  <driver_version>580.95.05</driver_version>
  <attached_gpus>2</attached_gpus>
  <gpu id="00000000:17:00.0">
    <product_name>NVIDIA H200</product_name>
    <uuid>GPU-1</uuid>
    <gpu_recovery_action>None</gpu_recovery_action>
    <clocks_event_reasons>
      <clocks_event_reason_hw_slowdown>Not Active</clocks_event_reason_hw_slowdown>
      <clocks_event_reason_sw_power_cap>Active</clocks_event_reason_sw_power_cap>
    </clocks_event_reasons>
    <fb_memory_usage><total>143771 MiB</total><reserved>560 MiB</reserved><used>130000 MiB</used><free>13211 MiB</free></fb_memory_usage>
    <utilization><gpu_util>87 %</gpu_util></utilization>
    <ecc_errors>
      <volatile><dram_uncorrectable>9</dram_uncorrectable></volatile>
      <aggregate>
        <sram_correctable>4</sram_correctable><sram_uncorrectable_parity>1</sram_uncorrectable_parity>
        <sram_uncorrectable_secded>2</sram_uncorrectable_secded><dram_correctable>0</dram_correctable><dram_uncorrectable>3</dram_uncorrectable>
        <sram_threshold_exceeded>No</sram_threshold_exceeded>
      </aggregate>
    </ecc_errors>
    <remapped_rows><remapped_row_pending>Yes</remapped_row_pending><remapped_row_failure>No</remapped_row_failure></remapped_rows>
    <temperature>
      <gpu_temp>61 C</gpu_temp><gpu_temp_tlimit>24 C</gpu_temp_tlimit><gpu_temp_slow_tlimit_threshold>-2 C</gpu_temp_slow_tlimit_threshold>
    </temperature>
    <gpu_power_readings><instant_power_draw>650.12 W</instant_power_draw><current_power_limit>700.00 W</current_power_limit></gpu_power_readings>
    <supported_clocks><supported_graphics_clock>1980 MHz</supported_graphics_clock></supported_mem_clock></supported_clocks>
  </gpu>
  <gpu id="00000000:65:00.0">
    <product_name>NVIDIA A100-SXM4-80GB</product_name>
    <uuid>GPU-2</uuid>
    <gpu_reset_status><reset_required>No</reset_required></gpu_reset_status>
    <clocks_throttle_reasons><clocks_throttle_reason_hw_slowdown>Active</clocks_throttle_reason_hw_slowdown></clocks_throttle_reasons>
    <fb_memory_usage><total>81920 MiB</total><used>50 MiB</used></fb_memory_usage>
    <utilization><gpu_util>N/A</gpu_util></utilization>
    <ecc_errors><aggregate><sram_uncorrectable>N/A</sram_uncorrectable></aggregate></ecc_errors>
    <remapped_rows>N/A</remapped_rows>
    <temperature>
      <gpu_temp>27 C</gpu_temp><gpu_temp_tlimit>N/A</gpu_temp_tlimit><gpu_temp_slow_threshold>89 C</gpu_temp_slow_threshold>
    </temperature>
    <power_readings><power_draw>67.03 W</power_draw><power_limit>500.00 W</power_limit></power_readings>
  </gpu>
</nvidia_smi_log>
"""
FIRST, SECOND = "0000:17:00.0", "0000:65:00.0"


def test_figures_of_gpus_are_read_of_new_drivers_and_old_ones() -> None:
    told = samples(GPUS.report([FIRST, SECOND], GPUS.parse(SMI), GPUS.Xids(), 2))
    first = {series.partition("{")[0].removeprefix("sovereign_gpu_"): value for series, value in told.items() if FIRST in series}
    assert told["sovereign_gpus_answering"] == told["sovereign_gpus_expected"] == 2
    assert first["utilization_ratio"] == 0.87
    assert first["memory_used_bytes"] / first["memory_total_bytes"] == pytest.approx(0.904, abs=0.001)
    assert (first["temperature_celsius"], first["thermal_margin_celsius"]) == (61, 26)
    assert (first["ecc_uncorrected_total"], first["ecc_corrected_total"]) == (6, 4)
    assert (first["row_remap_pending"], first["row_remap_failed"], first["reset_required"]) == (1, 0, 0)
    assert (first["power_watts"], first["power_limit_watts"]) == (650.12, 700)
    assert told[f'sovereign_gpu_throttled{{gpu="{FIRST}",reason="sw_power_cap"}}'] == 1
    assert told[f'sovereign_gpu_throttled{{gpu="{SECOND}",reason="hw_slowdown"}}'] == 1
    assert told[f'sovereign_gpu_thermal_margin_celsius{{gpu="{SECOND}"}}'] == 62
    assert told[f'sovereign_gpu_power_watts{{gpu="{SECOND}"}}'] == 67.03
    assert told[f'sovereign_gpu_info{{gpu="{SECOND}",index="1",model="NVIDIA A100-SXM4-80GB",uuid="GPU-2"}}'] == 1
    # What it does not have is no nought.
    for figure in ("utilization_ratio", "ecc_uncorrected_total", "row_remap_failed"):
        assert f'sovereign_gpu_{figure}{{gpu="{SECOND}"}}' not in told


def one(gpu: str) -> str:
    """Give what nvidia-smi prints of one GPU."""
    return f'<nvidia_smi_log><gpu id="0000{gpu}"><uuid>x</uuid></gpu></nvidia_smi_log>'


def test_a_gpu_that_is_lost_hides_no_other() -> None:
    asked = []

    def run(command: Sequence[str], dummy: float) -> str | None:
        asked.append(list(command))
        return one(SECOND) if command[-1] == SECOND else None

    answered = GPUS.ask([FIRST, SECOND], run, lambda: 0.0)
    assert list(answered) == [SECOND]
    told = samples(GPUS.report([FIRST, SECOND], answered, GPUS.Xids(), None))
    assert told[f'sovereign_gpu_answers{{gpu="{FIRST}"}}'] == 0
    assert told[f'sovereign_gpu_answers{{gpu="{SECOND}"}}'] == 1
    assert told["sovereign_gpus_expected"] == 2
    assert len(asked) == 3


def test_asking_ends_in_time_even_if_each_gpu_hangs() -> None:
    now = [0.0]

    def run(dummy: Sequence[str], seconds: float) -> str | None:
        now[0] += seconds
        return None

    assert GPUS.ask([f"0000:{number:02x}:00.0" for number in range(16)], run, lambda: now[0]) == {}
    assert now[0] <= GPUS.PATIENCE


def test_gpus_are_found_on_the_bus(tmp_path: Path) -> None:
    for name, vendor, kind in ((FIRST, "0x10de", "0x030200"), ("0000:18:00.0", "0x10de", "0x068000"), ("0000:00:02.0", "0x8086", "0x030000")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "vendor").write_text(f"{vendor}\n")
        (tmp_path / name / "class").write_text(f"{kind}\n")
    assert GPUS.on_bus(tmp_path) == [FIRST]


def test_a_program_that_waits_in_the_kernel_is_seen(tmp_path: Path) -> None:
    for pid, text in ((1, "1 (systemd) S 0"), (7, "7 (nvidia-smi) S 1"), (8, "8 (a) D b) D 1")):
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / "stat").write_text(text)
    assert not GPUS.hangs(tmp_path)
    (tmp_path / "7" / "stat").write_text("7 (nvidia-smi) D 1")
    assert GPUS.hangs(tmp_path)


def test_errors_of_the_driver_are_read_once(tmp_path: Path) -> None:
    memory = tmp_path / "nvidia_gpus.json"
    said: list[str | None] = [
        f"1796052780.123456 gpu1 kernel: NVRM: Xid (PCI:{FIRST[:-2]}): 79, GPU has fallen off the bus.\n-- cursor: c1\n",
        "1796052790.5 gpu1 kernel: eth0: link up\n-- cursor: c2\n",
        None,
    ]
    places = []

    def run(command: Sequence[str], dummy: float) -> str | None:
        places.append(command[-1])
        return said[len(places) - 1]

    for _ in range(3):
        known = GPUS.xids(memory, run)
        assert known.last == {(FIRST, "79"): 1796052780}
    assert places == ["--boot", "--after-cursor=c1", "--after-cursor=c2"]
    assert known.cursor == ""
    told = samples(GPUS.report([FIRST], {}, known, None))
    assert told[f'sovereign_gpu_xid_last_seconds{{gpu="{FIRST}",xid="79"}}'] == 1796052780


# What is printed, and what is asked for.

ROLES = ["baseline", "firewall", "keepalived", "model_gateway", "nginx", "nvidia_driver", "pki", "wireguard"]


def rules_of(role: str) -> str:
    """Give all expressions of a role's rules."""
    document = yaml.safe_load((PROJECT / "roles" / role / "monitoring/rules.yml").read_text(encoding="utf-8"))
    return "\n".join(rule["expr"] for group in document["groups"] for rule in group["rules"])


@pytest.mark.parametrize("role", ROLES)
def test_rules_ask_for_nothing_that_no_program_prints(role: str) -> None:
    asked = set(re.findall(r"\bsovereign_[a-z_]+", rules_of(role)))
    printed = "".join(path.read_text(encoding="utf-8") for path in PROJECT.glob("roles/*/monitoring/*.py"))
    figures = {f"sovereign_gpu_{name}" for name in GPUS.FIGURES}
    assert asked
    assert {name for name in asked if name not in printed} <= figures
    counted = set(re.findall(r"\bnginx_entry_[a-z_]+", rules_of(role)))
    assert {re.sub(r"_(bucket|sum|count)$", "", name) for name in counted} <= set(re.findall(r"nginx_entry_\w+", MTAIL.read_text(encoding="utf-8")))


@pytest.mark.parametrize("role", [*ROLES, "dify", "vllm"])
def test_each_alert_has_its_place_in_the_runbook(role: str) -> None:
    files = [PROJECT / "roles" / role / "monitoring" / name for name in ("rules.yml", "log_rules.yml")]
    documents = [yaml.safe_load(file.read_text(encoding="utf-8")) for file in files if file.is_file()]
    alerts = [rule for document in documents for group in document["groups"] for rule in group["rules"] if "alert" in rule]
    headings = re.findall(r"^## (\w+)$", (PROJECT / f"docs/runbooks/{role}.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert headings == list(dict.fromkeys(rule["alert"] for rule in alerts))
    for rule in alerts:
        assert rule["annotations"]["runbook"] == f"docs/runbooks/{role}.md#{rule['alert'].lower()}"
        assert rule["labels"]["severity"] in {"critical", "warning", "info"}
