"""What operators rely on: gateways that die and return, keys that stay secret, mistakes that are not put into force."""

from __future__ import annotations

import json
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import sleep
from typing import Any

from entry_client import ADDRESS, HERE, NAME, chat, crowd, exchange, http, inside, key_of
from entry_fuzz import SECRET

from lab.testing import rerun

RUNNING = "../../playbooks/running.yml"
MUTUAL = "curl --silent --noproxy '*' --cacert /etc/sovereign/pki/ca.crt --cert /etc/sovereign/pki/host.crt --key /etc/sovereign/pki/host.key"


def served(on: Any) -> int:
    """Requests that the stand-in on debian12 has answered since it was started."""
    lines = on("debian12").check_output(f"{MUTUAL} https://198.18.26.12:8443/metrics").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("stub_completed_total"))


def test_a_gateway_that_dies_is_left_out_and_taken_back(on: Any) -> None:
    stub = on("debian12")
    vip = {"key": key_of("core-banking"), "pace": 20, "body": chat().decode()}
    with ThreadPoolExecutor() as pool:
        crowded = pool.submit(crowd, "debian13", 6, 4, vip=vip)
        sleep(3)
        stub.check_output("systemctl kill --signal=KILL stub")
    met = crowded.result()["vip"]
    # A request that was under way may not be sent again; there was at most one on each connection.
    failed = [asked for asked, _, status in met.outcomes if status != 200]
    assert met.statuses <= {200, 502}
    assert len(failed) <= 4, failed
    assert all(asked - failed[0] < 1 for asked in failed)
    stub.check_output("systemctl start stub && sleep 6")
    assert crowd("debian13", 2, 4, vip=vip)["vip"].statuses == {200}
    assert served(on) > 0


def test_a_gateway_that_hangs_holds_only_the_requests_it_already_has(on: Any) -> None:
    stub = on("debian12")
    exchange("debian13", http(chat(), key=key_of("core-banking")))
    stub.check_output("systemctl kill --signal=STOP stub")
    try:
        # Connections that were open may each hold one request; a client that gives up and asks again soon gets through, each time.
        waits = []
        for _ in range(12):
            answer = exchange("debian13", http(chat(), key=key_of("core-banking")), timeout=3)
            waits.append((answer.status, round(answer.seconds, 1)))
    finally:
        stub.check_output("systemctl kill --signal=CONT stub")
    assert [status for status, _ in waits[-4:]] == [200] * 4, waits
    assert sum(status == 200 for status, _ in waits) >= 8, waits


def test_the_whole_entry_without_gateways_says_so(on: Any) -> None:
    for name in ("backend", "debian12"):
        on(name).check_output("systemctl stop stub")
    try:
        for _ in range(6):  # each of them is left out after two
            answer = exchange("debian13", http(chat(), key=key_of("core-banking")))
            assert (answer.status, answer.code) == (502, "bad_gateway")
        assert answer.headers["retry-after"]
        assert exchange("debian13", http(path="/healthz", method="GET")).status == 200
    finally:
        for name in ("backend", "debian12"):
            on(name).check_output("systemctl start stub && timeout 20 sh -c 'until ss -Hltn sport = 8443 | grep -q .; do sleep 0.05; done'")
    # A gateway that is back is asked at once where there is no other. nginx by itself answers 502 to everybody for five seconds more.
    assert exchange("debian13", http(chat(), key=key_of("core-banking"))).status == 200


def test_a_port_that_something_else_holds_is_refused_with_its_name_and_nothing_is_changed(on: Any) -> None:
    host = on("debian13")
    state = "sha256sum /etc/nginx/nginx.conf; systemctl show --property=MainPID,ActiveEnterTimestamp nginx; ss -tln sport = :443"
    before = host.check_output(state)
    host.check_output("systemd-run --unit=somebody --collect python3 -m http.server --bind 127.0.0.1 4443")
    host.check_output("timeout 10 sh -c 'until ss -H -tln sport = :4443 | grep -q LISTEN; do sleep 0.1; done'")
    try:
        run = rerun("--limit=debian13", "--tags=nginx", nginx_port=4443)
    finally:
        host.check_output("systemctl stop somebody")
    assert run.returncode != 0
    assert re.search(r"127\.0\.0\.1:4443 is held by python3 \(pid \d+, unit somebody\.service\)", " ".join(run.stdout.split())), run.stdout
    assert host.check_output(state) == before


def test_keys_are_nowhere_and_only_root_reads_the_pepper(on: Any, entry: str) -> None:
    host = on(entry)
    host.check_output("journalctl --sync")
    for client in ("core-banking", "branch-desk", "back-office"):
        key = key_of(client)
        assert exchange(entry, http(chat(), key=key)).status == 200
        assert host.run("grep --recursive --quiet --fixed-strings --devices=skip -e %s /etc /var/log /var/lib/nginx /run/systemd", key).rc == 1
        assert host.run("journalctl --output=cat | grep --quiet --fixed-strings -e %s", key).rc == 1
    readers = "setpriv --reuid=%s --regid=%s --groups=ssl-cert,adm cat /etc/nginx/clients.conf"
    assert host.run(readers, "www-data", "www-data").rc != 0
    assert host.run(readers, "nobody", "nogroup").rc != 0
    assert "core-banking" in host.check_output("cat /etc/nginx/clients.conf")


def test_every_line_of_the_log_is_json_and_holds_no_query_whatever_was_asked(on: Any, entry: str) -> None:
    host = on(entry)
    since = host.check_output("journalctl --sync; date +@%s")
    fuzz = Path(__file__).with_name("entry_fuzz.py").read_text(encoding="utf-8")
    sent = inside(fuzz, {"name": NAME, "address": ADDRESS[entry], "source": HERE, "requests": 5000, "seconds": 150}, 180)
    assert sum(sent.values()) >= 5000
    # An error on the way to a gateway, and a body that is too large: operators read both, without the query.
    large = f"POST /v1/chat/completions?api_key={SECRET} HTTP/1.1\r\nHost: {NAME}\r\nReferer: /?{SECRET}\r\nContent-Length: 200000000\r\n\r\n"
    assert exchange(entry, large.encode()).status == 413
    host.check_output("sleep 1; journalctl --sync")
    lines = host.run("journalctl --output=cat --identifier=nginx --since=%s", since).stdout_bytes.splitlines()
    logged = [json.loads(line.decode()) for line in lines if line.startswith(b"{")]
    assert len(logged) > 300
    assert all(isinstance(entry["status"], int) for entry in logged)
    errors = [line for line in lines if not line.startswith(b"{")]
    assert any(
        b"client intended to send too large body: 200000000 bytes" in line and b'"POST /v1/chat/completions?... HTTP/1.1"' in line for line in errors
    )
    journal = host.run("journalctl --output=cat --since=%s", since).stdout_bytes
    assert SECRET.encode() not in journal
    assert host.run("grep --recursive --quiet --fixed-strings --devices=skip -e %s /var/log/nginx /var/lib/nginx", SECRET).rc == 1


def test_a_mistake_is_refused_before_it_is_put_into_force(on: Any) -> None:
    host, config = on("debian13"), "/etc/nginx/nginx.conf"
    before = host.file(config).sha256sum
    run = rerun("--limit=debian13", "--tags=nginx_configure,nginx_service", nginx_access_log="syslog:server=")
    assert run.returncode != 0
    assert "is refused, and nothing has been changed" in run.stdout
    assert "nginx.conf" in run.stdout
    assert host.file(config).sha256sum == before
    host.check_output("nginx -t -q")
    assert exchange("debian13", http(chat(), key=key_of("core-banking"))).status == 200


def test_a_run_that_was_cut_before_the_reload_is_noticed_and_healed(on: Any) -> None:
    # What such a run leaves: files as they are wanted, and an nginx that still runs others.
    host, config = on("debian13"), "/etc/nginx/nginx.conf"
    other = f'cp -a {config} {config}.kept && sed --in-place \'s/return 200 "[0-9a-f]*"/return 200 "other"/\' {config} && systemctl reload nginx'
    host.check_output(f"{other} && mv {config}.kept {config} && sleep 1")
    for run in (rerun("--limit=debian13", "--tags=verify"), rerun("--limit=debian13", playbook=RUNNING)):
        assert run.returncode != 0
        assert "nginx on debian13 does not run the configuration that is written there" in run.stdout
    run = rerun("--limit=debian13", "--tags=nginx")
    assert run.returncode == 0, run.stdout
    running = host.check_output("curl --silent --fail --noproxy '*' http://127.0.0.1:8406/generation")
    assert f'return 200 "{running}"' in host.file(config).content_string
    assert rerun("--limit=debian13", playbook=RUNNING).returncode == 0
    # Somebody's own change, loaded by hand.
    host.check_output(f"cp -a {config} {config}.kept && sed --in-place 's/{running}/other/' {config} && systemctl reload nginx && sleep 1")
    try:
        assert "nginx on debian13 does not run the configuration that the inventory declares" in rerun("--limit=debian13", "--tags=verify").stdout
    finally:
        host.check_output(f"mv {config}.kept {config} && systemctl reload nginx")


def test_a_new_key_and_a_renewed_certificate_come_into_force_without_a_restart(on: Any) -> None:
    serial = "openssl s_client -connect 198.18.26.11:443 -servername ai.nginx.test </dev/null 2>/dev/null | openssl x509 -noout -serial"
    shown, process = on("backend").check_output(serial), on("debian13").check_output("systemctl show --property=MainPID nginx")
    old, new = key_of("core-banking"), f"sk-core-banking-{'n' * 43}"
    keys = {client: [key_of(client)] for client in ("branch-desk", "back-office")} | {"core-banking": [old, new]}
    run = rerun("--limit=debian13", "--tags=nginx_configure,nginx_service", nginx_keys=keys)
    assert run.returncode == 0, run.stdout
    assert new not in run.stdout
    met = crowd("debian13", 2, old={"key": old, "pace": 15}, new={"key": new, "pace": 15})
    assert met["old"].statuses == met["new"].statuses == {200}
    # The other way, and a new certificate with it.
    run = rerun("--limit=debian13", "--tags=nginx_configure,nginx_service,pki_rotate")
    assert run.returncode == 0, run.stdout
    assert 429 in crowd("debian13", 2, new={"key": new, "pace": 40})["new"].statuses
    assert on("backend").check_output(serial) != shown
    # With its new certificate the entry is known to the gateways, too.
    assert exchange("debian13", http(chat(), key=old)).status == 200
    assert on("debian13").check_output("systemctl show --property=MainPID nginx") == process
