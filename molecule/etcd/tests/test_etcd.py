"""What Patroni relies on: agreement, a loss survived, nobody let in who has no business there, reruns that touch nothing."""

from __future__ import annotations

import re
import threading
import uuid
from collections.abc import Callable
from time import monotonic, sleep
from typing import Any

from etcd_cluster import ADDRESS, CLUSTER, PKI, Cluster, docker

from lab.testing import PROJECT, changed, rerun, tls_faults


def test_what_is_written_through_one_member_is_read_through_every_other(cluster: Cluster) -> None:
    value = uuid.uuid4().hex
    assert cluster.write("one", "said", value)
    assert {cluster.read(host, "said") for host in ADDRESS} == {value}


def test_without_a_certificate_there_is_no_answer(on: Any, cluster: Cluster) -> None:
    url, mutual = f"https://{ADDRESS['two']}:2379/version", f"--cert {PKI}/host.crt --key {PKI}/host.key"
    ask = f"curl --silent --show-error --noproxy '*' --max-time 5 --cacert {PKI}/ca.crt"
    assert "etcdserver" in on("one").check_output(f"{ask} {mutual} {url}")
    assert "certificate required" in on("one").run(f"{ask} {url}").stderr
    assert on("one").run(f"{ask} http://{ADDRESS['two']}:2379/version").rc != 0


def test_the_gateway_that_patroni_asks_answers(on: Any) -> None:
    ask = f"curl --silent --show-error --noproxy '*' --max-time 5 --cacert {PKI}/ca.crt --cert {PKI}/host.crt --key {PKI}/host.key"
    answer = on("one").check_output(f"{ask} --data %s https://{ADDRESS['two']}:2379/v3/cluster/member/list", "{}")
    assert all(f"{address}:2380" in answer for address in ADDRESS.values())


def test_members_meet_under_tls_only_and_strangers_do_not(on: Any) -> None:
    """The members' own port, asked by a member and by a stranger."""
    ask = f"curl --http1.1 --silent --show-error --noproxy '*' --max-time 5 --cacert {PKI}/ca.crt --cert {PKI}/host.crt --key {PKI}/host.key"
    url = f"https://{ADDRESS['three']}:2380/members"
    assert "peerURLs" in on("one").check_output(f"{ask} {url}")
    refused = on("stranger").run(f"{ask} {url}")
    assert refused.rc != 0
    assert "peerURLs" not in refused.stdout


def test_a_certificate_of_another_site_is_refused_by_tls(on: Any) -> None:
    """No firewall stands between these hosts, and the other site's host does not check the server: its own certificate is what is refused."""
    ask = f"curl --http1.1 --silent --show-error --insecure --noproxy '*' --max-time 5 --cert {PKI}/host.crt --key {PKI}/host.key"
    for url, of_service in ((f"https://{ADDRESS['two']}:2379/version", "stranger"), (f"https://{ADDRESS['two']}:2380/members", "one")):
        assert on(of_service).run(f"{ask} {url}").rc == 0
        refused = on("edge").run(f"{ask} {url}")
        # Refused in the handshake: by an alert, or by a connection that is closed.
        assert refused.rc in {35, 55, 56}
        assert refused.stdout == ""


def test_older_tls_is_refused(on: Any) -> None:
    probe = f"openssl s_client -connect {ADDRESS['one']}:2379 -cert {PKI}/host.crt -key {PKI}/host.key -CAfile {PKI}/ca.crt -verify_return_error"
    assert on("two").run(f"{probe} -tls1_3 </dev/null").rc == 0
    assert on("two").run(f"{probe} -tls1_2 </dev/null").rc != 0


def test_old_cipher_suites_are_refused(on: Any) -> None:
    for port in (2379, 2380):
        assert tls_faults(on("two"), f"{ADDRESS['one']}:{port}", ["TLSv1.3"]) == []


def test_metrics_are_for_the_host_itself(on: Any) -> None:
    assert "etcd_server_has_leader 1" in on("one").check_output("curl --silent --fail --noproxy '*' http://127.0.0.1:2381/metrics")
    assert on("two").run(f"curl --silent --noproxy '*' --max-time 3 http://{ADDRESS['one']}:2381/metrics").rc != 0


def test_root_need_only_type_etcdctl(on: Any) -> None:
    assert "is healthy" in on("one").run("bash --login -c 'etcdctl endpoint health --cluster 2>&1'").stdout


def test_the_leaders_host_is_lost_and_writes_go_on(cluster: Cluster, killed: Callable[[str], None]) -> None:
    leader = cluster.leader()
    rest = [host for host in ADDRESS if host != leader]
    assert cluster.write(leader, "before", "kept")
    killed(leader)
    begun = monotonic()
    while not cluster.write(rest[0], "after", "written"):
        assert monotonic() - begun < 10, "no write in 10 s"
        sleep(0.1)
    print(f"\ngap after the loss of the leader's host: {monotonic() - begun:.1f} s")
    assert cluster.read(rest[1], "before") == "kept"
    # Who is left is left alone by a rerun, which fails for the lost host and for nobody else.
    run = rerun(f"--limit={','.join(rest)}")
    assert run.returncode == 0, run.stdout
    assert set(re.findall(r"changed=(\d+)", run.stdout)) == {"0"}, run.stdout
    docker("start", f"mol-etcd-{leader}")
    print(f"the lost member is back after {cluster.wait(leader):.1f} s")
    assert cluster.read(leader, "after") == "written"


def test_settings_that_need_a_restart_are_written_and_reported_and_nobody_is_restarted(cluster: Cluster, on: Any) -> None:
    before = cluster.started()
    run = rerun("--tags=etcd", etcd_quota_bytes=3221225472)
    assert run.returncode == 0, run.stdout
    assert "playbooks/ops/rolling_restart.yml" in run.stdout
    # Said again by the next run, though that one changes nothing.
    again = rerun("--tags=verify", etcd_quota_bytes=3221225472)
    assert "playbooks/ops/rolling_restart.yml" in again.stdout
    assert cluster.started() == before
    on("two").check_output("systemctl restart etcd")
    cluster.wait("two")
    metric = "curl --silent --noproxy '*' http://127.0.0.1:2381/metrics | awk '/^etcd_server_quota_backend_bytes/ {printf \"%d\", $2}'"
    assert on("two").check_output(metric) == "3221225472"
    # And back.
    run = rerun("--tags=etcd")
    assert "etcd on two still runs with older settings" in run.stdout
    assert "etcd on one still runs with older settings" not in run.stdout
    on("two").check_output("systemctl restart etcd")
    cluster.wait("two")


def test_a_member_that_has_lost_its_data_is_not_let_in_under_its_old_identity(cluster: Cluster, on: Any) -> None:
    """How it joins anew is the lab's to show, where a host is replaced with all that it has."""
    two, before, data = on("two"), cluster.started(), "/var/lib/etcd/sovereign"
    two.check_output(f"systemctl stop etcd && mv {data} {data}.lost")
    try:
        run = rerun("--tags=etcd", "--limit=two")
        assert run.returncode != 0
        assert "playbooks/ops/remove_member.yml -e member=two" in " ".join(run.stdout.split())
        assert cluster.write("one", "meanwhile", "written")
        # Nothing is removed by a slip.
        refused = rerun(playbook=str(PROJECT / "playbooks/ops/remove_member.yml"), member="two", confirm="tow")
        assert refused.returncode != 0
        assert "confirm is tow" in refused.stdout
    finally:
        two.check_output(f"systemctl stop etcd; rm -rf {data} && mv {data}.lost {data} && systemctl start etcd")
    cluster.wait("two")
    assert cluster.read("two", "meanwhile") == "written"
    after = cluster.started()
    assert {host: after[host] for host in ("one", "three")} == {host: before[host] for host in ("one", "three")}


def test_packages_are_upgraded_one_member_after_another_and_writes_go_on(cluster: Cluster, on: Any) -> None:
    before, newer = cluster.started(), {}
    for host in ADDRESS:
        docker("cp", str(PROJECT / "lab/repack.py"), f"{CLUSTER}-{host}:/root/repack.py")
        newer[host] = on(host).check_output("python3 /root/repack.py etcd-server")
    looked = rerun("--check", playbook=str(PROJECT / "playbooks/ops/rolling_upgrade.yml"), service="etcd")
    assert looked.returncode == 0, looked.stdout
    assert f"-> {newer['one']}" in looked.stdout
    assert cluster.started() == before
    failed, over = [], threading.Event()

    def write() -> None:
        number = 0
        while not over.is_set():
            number += 1
            if not any(cluster.write(host, "upgrade", str(number)) for host in ADDRESS):
                failed.append(number)
            # Each write starts programs, and the members share two cores with whoever upgrades them.
            over.wait(0.2)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        changed(rerun(playbook=str(PROJECT / "playbooks/ops/rolling_upgrade.yml"), service="etcd"))
    finally:
        over.set()
        writer.join()
    assert failed == []
    after = cluster.started()
    assert all(after[host] != before[host] for host in ADDRESS)
    for host in ADDRESS:
        assert on(host).check_output("dpkg-query --show --showformat='${Version} ${db:Status-Want}' etcd-server") == f"{newer[host]} hold"
    # Nothing is left to do, and nobody is restarted for it.
    again = rerun(playbook=str(PROJECT / "playbooks/ops/rolling_upgrade.yml"), service="etcd")
    assert set(changed(again).values()) == {0}
    assert cluster.started() == after


def test_a_renewed_certificate_is_shown_without_a_restart(cluster: Cluster, on: Any) -> None:
    ask = f"-connect {ADDRESS['one']}:2379 -cert {PKI}/host.crt -key {PKI}/host.key </dev/null 2>/dev/null | openssl x509 -noout -serial"
    shown, before = on("two").check_output(f"openssl s_client {ask}"), cluster.started()
    run = rerun("--tags=pki_rotate", "--limit=one")
    assert run.returncode == 0, run.stdout
    assert on("two").check_output(f"openssl s_client {ask}") != shown
    assert cluster.started() == before
    assert cluster.write("one", "renewed", "yes")
