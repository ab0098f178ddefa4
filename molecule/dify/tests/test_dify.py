"""Dify on two hosts: everything answers, every queue has its consumers, and of what there is one there is never two."""

from __future__ import annotations

import json
import re
import runpy
import time
from typing import Any

import pytest

from lab.testing import PROJECT, changed, docker, rerun, tls_faults

APPS = ("app1", "app2")
LEASE = 45
ENTRY = "https://ai.hq.dify.test"


@pytest.fixture
def ask(on: Any) -> Any:
    """Ask the entry as a browser would, from its own host; give status and body."""

    def request(path: str, *options: str) -> tuple[int, str]:
        command = f"curl --silent --cacert /etc/sovereign/pki/ca.crt --resolve ai.hq.dify.test:443:198.18.72.21 {' '.join(options)}"
        printed = on("gw").check_output(f"{command} --write-out '\\n%{{http_code}}' '{ENTRY}{path}'")
        body, _, status = printed.rpartition("\n")
        return int(status), body

    return request


def holders(on: Any, service: str, hosts: tuple[str, ...] = APPS) -> list[str]:
    return [host for host in hosts if on(host).run(f"systemctl is-active --quiet dify_{service}").rc == 0]


def processes(on: Any, host: str) -> str:
    """Give the processes of what there is one of in the site, as far as they are on this host."""
    found: str = on(host).run("pgrep --full --list-full '[c]elery .*beat|daemon[.]py'").stdout
    return found


def wait_for(condition: Any, seconds: float) -> float:
    begun = time.monotonic()
    while not condition():
        assert time.monotonic() - begun < seconds
        time.sleep(1)
    return time.monotonic() - begun


def test_all_units_run_on_both_hosts(on: Any) -> None:
    for host in APPS:
        listed = on(host).check_output("systemctl list-units --plain --no-legend 'dify_*.service'")
        states = {line.split()[0]: line.split()[2] for line in listed.splitlines()}
        assert {name: state for name, state in states.items() if state != "active"} == {}
        assert {"dify_api_1.service", "dify_websocket.service", "dify_web.service", "dify_sandbox.service", "dify_ssrf_proxy.service"} <= set(states)
        assert {"dify_workers.service", "dify_requests.service"} <= set(states)


def test_the_entry_leads_each_path_to_its_service(ask: Any) -> None:
    status, body = ask("/console/api/setup")
    assert status == 200
    assert "step" in json.loads(body)
    # The web console sends a browser on to its first page.
    assert ask("/")[0] in (200, 307)
    assert ask("/v1/chat-messages", "--request POST --json '{}'")[0] == 401
    assert ask("/socket.io/?EIO=4&transport=polling")[0] in (200, 400)
    # The gateway's, not Dify's.
    assert ask("/v1/models")[0] == 401
    # What Dify asks of itself is nobody else's to ask.
    assert "inner" not in ask("/inner/api/invoke/llm", "--request POST --json '{}'")[1]


@pytest.mark.parametrize(("unit", "path"), [("dify_web", "/"), ("dify_websocket", "/socket.io/?EIO=4&transport=polling")])
def test_what_is_down_on_one_host_is_served_by_the_other(on: Any, ask: Any, unit: str, path: str) -> None:
    on("app1").check_output(f"systemctl stop {unit}")
    try:
        # Checks see it within a second or two.
        time.sleep(8)
        assert {ask(path)[0] for dummy in range(8)} <= {200, 307}
    finally:
        on("app1").check_output(f"systemctl start {unit}")


def test_a_request_is_in_the_proxys_log_by_the_entrys_id_and_without_its_query(on: Any, ask: Any) -> None:
    mark = f"logged-{time.time_ns():x}"
    # What a client writes into a path cannot end the text that it stands in.
    ask('/console/api/"quoted?api_key=hunter22', f"--path-as-is --header 'X-Request-ID: {mark}'")

    def logged() -> list[dict[str, Any]]:
        lines = "".join(on(host).run("journalctl --unit dify_proxy --output cat --since -5min").stdout for host in APPS).splitlines()
        return [said for line in lines if line.startswith("{") and (said := json.loads(line))["request_id"] == mark]

    wait_for(logged, 10)
    [one] = logged()
    assert (one["frontend"], one["method"], one["path"]) == ("api", "GET", '/console/api/"quoted')
    assert one["server"].startswith("dify_api_")
    assert min(one["queue_ms"], one["connect_ms"], one["first_byte_ms"]) >= 0
    assert one["queue_ms"] + one["connect_ms"] + one["first_byte_ms"] <= one["total_ms"]
    assert "hunter22" not in json.dumps(one)


def test_a_reload_of_the_proxy_asks_no_plugin_daemon_where_there_is_none(on: Any) -> None:
    asked = "for n in $(seq 150); do curl --silent --output /dev/null --write-out '%{http_code} ' http://127.0.0.1:5003/health/check; done"
    for host in APPS:
        assert set(on(host).check_output(f"(sleep 0.5; systemctl reload dify_proxy) & {asked}; wait").split()) == {"200"}


HELD = """
import socket
held = socket.create_connection(("127.0.0.1", 5001), 30)
head = ["POST /console/api/login HTTP/1.1", "Host: localhost", "Content-Type: application/json", "Content-Length: 100", "", ""]
held.sendall("\\r\\n".join(head).encode())
print(len(held.recv(1)))
"""


def test_a_request_that_lasts_longer_than_any_may_is_ended_and_told_of(on: Any) -> None:
    watch = "/usr/local/lib/sovereign/dify_requests.py --socket /run/dify_proxy/admin.sock"
    assert f"{watch} --longest 1260" in on("app1").check_output("systemctl show --property=ExecStart dify_requests")
    # It waits for a body that does not come, at one of the apis, and holds a place there.
    on("app1").check_output(f"nohup python3 -c '{HELD}' >/run/held 2>&1 </dev/null & sleep 5")
    assert on("app1").check_output("cat /run/held") == ""
    told = "".join(on(host).run(f"runuser -u haproxy -- timeout 5 python3 -B {watch} --longest 3").stdout for host in APPS)
    assert re.fullmatch(r"<4>ended 1 request\(s\) at api/dify_api_\d that had lasted for up to \d+ s, .*\n", told), told
    wait_for(lambda: on("app1").check_output("cat /run/held"), 10)


def test_every_queue_is_a_quorum_queue_with_consumers(on: Any) -> None:
    listed = json.loads(on("data").check_output("rabbitmqctl --quiet --formatter json list_queues --vhost dify name type consumers"))
    queues = {queue["name"]: queue for queue in listed}
    releases = runpy.run_path(str(PROJECT / "plugins/module_utils/dify_release.py"))["RELEASES"]
    for name in releases["1.16.0"].queues:
        assert "quorum" in queues[name]["type"], name
        assert queues[name]["consumers"] >= 2, f"{name}: one on each host at least"


def test_nobody_reaches_a_host_of_dify_but_its_peers(on: Any) -> None:
    for port in (5002, 3128, 9441):
        assert on("data").run(f"timeout 3 bash -c '</dev/tcp/198.18.72.31/{port}'").rc != 0
    assert on("gw").run("timeout 3 bash -c '</dev/tcp/198.18.72.31/9441'").rc == 0
    assert on("gw").run("curl --silent --insecure https://198.18.72.31:9441/healthz").rc != 0, "without a certificate"


@pytest.mark.parametrize("port", [9441, 9442, 9443, 9444, 9446])
def test_old_cipher_suites_are_refused(on: Any, port: int) -> None:
    assert tls_faults(on("app1"), f"198.18.72.31:{port}") == []


def test_code_of_users_reaches_the_proxy_and_nothing_else(on: Any) -> None:
    inside = "podman exec dify_sandbox timeout 3 bash -c"
    assert on("app1").run(f"{inside} '</dev/tcp/10.89.77.1/3128'").rc == 0
    for target in ("198.18.72.11/5432", "10.89.77.1/6379", "10.89.77.1/22", "198.18.72.21/443"):
        assert on("app1").run(f"{inside} '</dev/tcp/{target}'").rc != 0, target
    refused = on("app1").check_output(
        "curl --silent --output /dev/null --write-out '%{http_code}' --proxy http://127.0.0.1:3128 http://198.18.72.11:8008/"
    )
    assert refused == "403"


def test_secrets_are_equal_on_both_hosts_and_read_by_root_alone(on: Any) -> None:
    of = {host: on(host).check_output("grep -E '^(SECRET_KEY|PLUGIN_DAEMON_KEY|CODE_EXECUTION_API_KEY)=' /etc/dify/dify_api_1.env") for host in APPS}
    assert of["app1"] == of["app2"]
    assert on("app1").check_output("stat -c %a:%U /etc/dify/dify_api_1.env /etc/dify/conninfo").split() == ["600:root", "600:root"]


@pytest.mark.parametrize("account", ["nobody", "second"])
def test_no_account_of_the_host_reads_what_processes_have_in_their_environment(on: Any, account: str) -> None:
    host = on("app1")
    # The image's own account has this number, and so has whoever comes second to a host.
    host.check_output("id second >/dev/null 2>&1 || useradd --uid 1001 --shell /bin/sh second")
    seen = "tr '\\000' ' ' < ${file%environ}cmdline | grep --only-matching --extended-regexp 'celery|gunicorn|sleep' | head -n 1"
    found = f"for file in $(grep --files-with-matches --text SECRET_KEY= /proc/[0-9]*/environ 2>/dev/null); do {seen}; done | sort -u"
    try:
        assert {"celery", "gunicorn"} <= set(host.check_output(found).split()), "what is protected is no longer there"
        own = f"env SECRET_KEY=own sleep 60 & sleep 0.2; {found}; kill $!"
        assert host.check_output("runuser -u %s -- sh -c %s", account, own).split() == ["sleep"]
    finally:
        host.run("userdel second")


def test_podman_writes_no_secret_down(on: Any) -> None:
    host = on("app1")
    found = "grep --quiet --text --fixed-strings -e %s /var/lib/containers/storage/db.sql*"
    assert host.run(found, "MODE=api").rc == 0, "this is where it writes environments"
    for name in ("SECRET_KEY", "DB_PASSWORD", "REDIS_PASSWORD"):
        value = host.check_output(f"sed -n s/^{name}=//p /etc/dify/dify_api_1.env")
        assert len(value) >= 20
        assert host.run(found, value).rc == 1
        assert value not in host.check_output("podman inspect dify_api_1")
        # The container has it, and so has what is run in there later.
        assert host.check_output(f"podman exec dify_api_1 printenv {name} 2>/dev/null") == value


def test_byte_code_of_the_image_is_read_and_never_written(on: Any) -> None:
    host = on("app1")
    (place,) = set(host.check_output("sed -n 's/^Volume=\\(.*\\):.var.cache.bytecode:ro$/\\1/p' /etc/containers/systemd/*.container").split())
    assert host.file(f"{place}/complete").exists
    assert int(host.check_output(f"find {place} -name '*.pyc' | wc -l")) > 100
    script = "import flask, sys; print(flask.__cached__); open(sys.argv[1], 'w')"
    done = host.run(f"podman exec dify_api_1 python3 -c {script!r} /var/cache/bytecode/mine")
    assert done.stdout.startswith("/var/cache/bytecode/")
    assert "Read-only file system" in done.stderr


def test_the_database_was_migrated_once_and_remembers_by_which_image(on: Any) -> None:
    image = on("app1").check_output("sed -n s/^Image=//p /etc/containers/systemd/dify_api_1.container")
    assert on("data").check_output("runuser -u postgres -- psql -qAtd dify -c 'SELECT image FROM sovereign.migration'") == image


def test_a_misspelt_setting_is_refused_before_anything_changes() -> None:
    run = rerun("--tags=preflight", "--limit=dify", dify_settings={"api": {"SQLALCHEMY_POOL_RECYCEL": 60}})
    assert run.returncode != 0
    assert "did you mean SQLALCHEMY_POOL_RECYCLE?" in " ".join(run.stdout.split())


PROXY = "127.0.0.1"
SHORT = {"start": 300, "drain": 30, "request": 630, "queue": 10, "dependencies": 1}
WRONG = {
    "dify_postgresql": {
        "host": PROXY,
        "address": PROXY,
        "port": 5432,
        "sslmode": "verify-full",
        "authority": "/etc/sovereign/pki/ca.crt",
        "database": "dify",
        "user": "dify",
        "password": "wrong",
        "plugin_database": "dify_plugin",
        "plugin_user": "dify_plugin",
        "plugin_password": "wrong",
    },
    "dify_redis": {"host": PROXY, "port": 6379, "user": "dify", "password": "wrong"},
    "dify_rabbitmq": {"host": PROXY, "port": 5672, "vhost": "dify", "user": "dify", "password": "wrong"},
    "dify_s3": {
        "endpoint": "{{ site.object_storage.endpoint }}",
        "region": "{{ site.object_storage.region }}",
        "addressing": "path",
        "access_key": "dify",
        "secret_key": "wrong",
        "bucket": "dify",
        "plugin_bucket": "dify-plugins",
    },
}


def refusal(on: Any, **variables: Any) -> str:
    """Run the role, which must refuse and change nothing; give what it said."""
    files = "find /etc/dify /etc/containers/systemd -type f | sort | xargs sha256sum"
    units = "systemctl show --property=ActiveEnterTimestampMonotonic --value 'dify_*' | sort"
    before = {host: on(host).check_output(f"{files}; {units}") for host in APPS}
    run = rerun("--tags=dify", "--limit=dify", **{"dify_timeouts": SHORT, **variables})
    assert run.returncode != 0
    assert {host: on(host).check_output(f"{files}; {units}") for host in APPS} == before
    assert "Nothing has been changed on app" in run.stdout
    return " ".join(run.stdout.split())


def test_wrong_secrets_are_told_by_service_and_change_nothing(on: Any) -> None:
    told = refusal(on, **WRONG)
    named = (
        "PostgreSQL (127.0.0.1:5432, database dify,",
        "PostgreSQL (127.0.0.1:5432, database dify_plugin,",
        "Redis (",
        "RabbitMQ (",
        "Object storage (",
    )
    for name in named:
        assert name in told, name
    assert told.count("refuses Dify") >= 6
    assert "--tags=rabbitmq makes them the same" in told


@pytest.mark.parametrize(("unit", "name"), [("rabbitmq-server", "RabbitMQ"), ("patroni", "PostgreSQL")])
def test_a_service_that_is_down_is_told_with_the_last_lines_of_what_stands_between(on: Any, unit: str, name: str) -> None:
    on("data").check_output(f"systemctl stop {unit}")
    stopped = time.monotonic()
    try:
        told = refusal(on)
        if unit == "patroni":
            # Nobody gives more time: what there is one of dies, with every process of its container, before anybody else could have its lease.
            wait_for(lambda: not any(processes(on, host) for host in APPS), LEASE)
            print(f"\nbeat and plugin daemon were dead {time.monotonic() - stopped:.0f} s after PostgreSQL")
            assert time.monotonic() - stopped < LEASE
    finally:
        on("data").check_output(f"systemctl start {unit}")
    for service in ("beat", "plugin_daemon"):
        wait_for(lambda service=service: len(holders(on, service)) == 1, 90)
    assert f"{name} (127.0.0.1:" in told
    assert "does not answer" in told
    assert "The end of the journal of service_proxy.service" in told
    assert re.search(r"is DOWN|failed, reason: Layer4", told), told
    assert changed(rerun("--tags=dify", "--limit=dify")) == {"app1": 0, "app2": 0}


def database(on: Any, statement: str) -> str:
    """Run a statement in Dify's database."""
    printed: str = on("data").check_output(f'runuser -u postgres -- psql -qAtd dify -c "{statement}"')
    return printed


def test_a_migration_that_fails_leaves_units_images_and_schema_as_they_were(on: Any) -> None:
    (image,) = database(on, "SELECT image FROM sovereign.migration").split()
    (version,) = database(on, "SELECT version_num FROM alembic_version").split()
    database(on, "UPDATE sovereign.migration SET image = 'newer'; UPDATE alembic_version SET version_num = 'ffffffffffff'")
    files = "find /etc/dify /etc/containers/systemd -type f | sort | xargs sha256sum; systemctl show --property=MainPID --value 'dify_api*'"
    before = {host: on(host).check_output(files) for host in APPS}
    try:
        told = " ".join(rerun("--tags=dify", "--limit=dify", dify_settings={"api": {"LOG_LEVEL": "DEBUG"}}).stdout.split())
        assert "The database is newer than this image" in told
        assert "Can't locate revision" in told
        # Without the host that migrates, too.
        told = " ".join(rerun("--tags=dify", "--limit=app2", dify_settings={"api": {"LOG_LEVEL": "DEBUG"}}).stdout.split())
        assert "database was migrated by newer" in told
        assert {host: on(host).check_output(files) for host in APPS} == before
        assert database(on, "SELECT version_num FROM alembic_version") == "ffffffffffff"
    finally:
        for table, column, value in (("sovereign.migration", "image", image), ("alembic_version", "version_num", version)):
            database(on, f"UPDATE {table} SET {column} = '{value}'")  # noqa: S608 - what it was before


def test_a_full_disk_is_told_before_anything_is_written(on: Any) -> None:
    at = "/var/lib/dify/plugin_daemon"
    (holder,) = holders(on, "plugin_daemon")
    (other,) = set(APPS) - {holder}
    on(other).check_output(f"mount -t tmpfs -o size=300m none {at} && fallocate -l 299m {at}/full")
    try:
        told = refusal(on, dify_free_mb={at: 256})
    finally:
        on(other).check_output(f"umount {at}")
    assert f"{at} has 1 MB free, and 256 are wanted" in told


def test_a_change_restarts_what_it_concerns_and_nothing_else_and_one_number_scales_out_and_in(on: Any) -> None:
    since = "systemctl show --property=ActiveEnterTimestampMonotonic --value"
    before = {unit: on("app1").check_output(f"{since} {unit}") for unit in ("dify_web", "dify_worker_priority_1")}
    # With two processes on each host they get less each: there are connections to PostgreSQL for that.
    api = {"processes": 2, "connections": 4, "pool_size": 6, "max_overflow": 6, "memory_mb": 1024}
    up = "curl --silent http://127.0.0.1:9445/metrics | grep --count '^haproxy_server_status{proxy=.api.,server=.dify_api_[0-9]*.,state=.UP.} 1'"
    steps: list[tuple[int, Any]] = [(2, {"dify_settings": {"web": {"TOP_K_MAX_VALUE": 11}}, "dify_api": api}), (1, {})]
    # A run that is cut once it has written the files; the next one finds that the proxy has not loaded its own.
    try:
        cut = rerun("--tags=dify_configure", "--limit=dify", **steps[0][1])
        assert cut.returncode == 0, cut.stdout
        assert {on(host).run(up).stdout.strip() for host in APPS} == {"1"}
        for processes, variables in steps:
            run = rerun("--tags=dify", "--limit=dify", **variables)
            assert changed(run)["app1"] >= 1
            for host in APPS:
                wait_for(lambda host=host, wanted=str(processes): on(host).run(up).stdout.strip() == wanted, 30)
                known = on(host).run("ls /etc/dify/dify_api_2.env /etc/containers/systemd/dify_api_2.container").stdout.split()
                assert len(known) == 2 * (processes - 1)
    except BaseException:
        # Another attempt begins with what is declared.
        rerun("--tags=dify", "--limit=dify")
        raise
    assert on("app1").run("systemctl is-active --quiet dify_api_2").rc != 0
    assert on("app1").check_output(f"{since} dify_web") != before["dify_web"]
    assert on("app1").check_output(f"{since} dify_worker_priority_1") == before["dify_worker_priority_1"]
    assert changed(rerun("--tags=dify", "--limit=dify")) == {"app1": 0, "app2": 0}


@pytest.mark.parametrize("service", ["beat", "plugin_daemon"])
def test_there_is_one_and_a_supervisor_that_ends_hands_over_at_once(on: Any, service: str) -> None:
    (holder,) = holders(on, service)
    (other,) = set(APPS) - {holder}
    on(holder).check_output(f"systemctl stop dify_lease@{service}")
    try:
        assert holders(on, service) in ([], [other])
        wait_for(lambda: holders(on, service) == [other], 60)
    finally:
        on(holder).check_output(f"systemctl start dify_lease@{service}")


def test_a_supervisor_that_hangs_loses_its_beat_before_the_lease_ends(on: Any) -> None:
    (holder,) = holders(on, "beat")
    on(holder).check_output("systemctl kill --signal=STOP dify_lease@beat")
    begun = time.monotonic()
    while time.monotonic() - begun < LEASE + 30:
        assert len(holders(on, "beat")) <= 1
        time.sleep(1)
    assert len(holders(on, "beat")) == 1


def test_a_plugin_daemon_that_hangs_begins_again_on_its_host(on: Any) -> None:
    (holder,) = holders(on, "plugin_daemon")
    on(holder).check_output("systemctl kill --signal=STOP dify_plugin_daemon")
    health = "curl --silent --fail --max-time 2 http://127.0.0.1:5002/health/check"
    assert on(holder).run(health).rc != 0
    took = wait_for(lambda: on(holder).run(health).rc == 0, 150)
    print(f"\nthe plugin daemon answers again {took:.0f} s after it was stopped")
    # It answers a moment before systemd has seen that it does.
    wait_for(lambda: holders(on, "plugin_daemon") == [holder], 30)


def test_they_move_when_their_host_dies(on: Any) -> None:
    (holder,) = holders(on, "beat")
    (other,) = set(APPS) - {holder}
    docker("kill", f"mol-dify-{holder}")
    try:
        took = wait_for(lambda: holders(on, "beat", (other,)) == [other] and holders(on, "plugin_daemon", (other,)) == [other], LEASE + 60)
        print(f"\nbeat and plugin daemon moved {took:.0f} s after their host's death")
    finally:
        docker("start", f"mol-dify-{holder}")
        wait_for(lambda: on(holder).run("systemctl is-active --quiet dify_sandbox").rc == 0, 60)
        wait_for(lambda: on(holder).run("systemctl is-active --quiet dify_api_1").rc == 0, 180)
    assert holders(on, "beat") == [other]
