"""What a host that went through the baseline does."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest

from lab.testing import changed, rerun

QUIET = ["-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "ControlMaster=no"]

pytestmark = pytest.mark.parametrize("name", ["debian13", "debian12"])


def test_chrony_follows_the_declared_servers_and_leaves_a_containers_clock_alone(on: Any, name: str) -> None:
    # -N shows sources by the names they were declared with, resolved or not.
    assert "2.debian.pool.ntp.org" in on(name).check_output("chronyc -N sources -a")
    assert " -x" in on(name).check_output("ps -o args= -C chronyd")


def test_a_firms_authority_is_trusted(on: Any, name: str) -> None:
    trusted = on(name).run("openssl verify -CApath /etc/ssl/certs /usr/local/share/ca-certificates/firm.crt")
    assert trusted.rc == 0, trusted.stderr


def test_services_get_the_limit_of_open_files(on: Any, name: str) -> None:
    assert "1048576" in on(name).check_output("systemctl show --property=DefaultLimitNOFILE")


def test_the_journal_survives_a_reboot(on: Any, name: str) -> None:
    on(name).check_output("systemd-cat echo kept")
    on(name).check_output("journalctl --sync")
    assert "kept" in on(name).check_output("journalctl --directory=/var/log/journal --output=cat")


def test_nothing_upgrades_itself_at_night(on: Any, name: str) -> None:
    assert 'APT::Periodic::Unattended-Upgrade "0";' in on(name).check_output("apt-config dump")


def test_sshd_takes_keys_and_no_passwords_and_only_authenticated_ciphers(on: Any, name: str, contract: Any) -> None:
    address = contract(name)["node"]["address"]
    # The server itself says which ways it takes.
    asked = subprocess.run(
        ["ssh", *QUIET, "-o", "PreferredAuthentications=none", f"root@{address}", "true"], capture_output=True, text=True, check=False, timeout=30
    )
    assert "(publickey)" in asked.stderr, asked.stderr
    weak = subprocess.run(["ssh", *QUIET, "-c", "aes256-ctr", f"root@{address}", "true"], capture_output=True, text=True, check=False, timeout=30)
    assert "no matching cipher found" in weak.stderr, weak.stderr
    assert "logingracetime 60" in on(name).check_output("sshd -T").splitlines()


def test_a_settings_file_that_sshd_refuses_is_not_put_in_place(on: Any, name: str) -> None:
    before = on(name).check_output("cat /etc/ssh/sshd_config.d/10-sovereign.conf")
    run = rerun(f"--limit={name}", "--tags=baseline_configure,baseline_service", baseline_sshd_settings={"PermitRootLogin": "sometimes"})
    assert run.returncode != 0
    assert "unsupported option" in run.stdout, run.stdout
    assert on(name).check_output("cat /etc/ssh/sshd_config.d/10-sovereign.conf") == before


def test_a_run_that_logs_in_with_a_password_is_not_locked_out(name: str) -> None:
    run = rerun(f"--limit={name}", "--tags=baseline_configure", ansible_ssh_pass="secret")
    assert run.returncode != 0
    assert "would refuse the password that Ansible logs in with. Give the host a key" in " ".join(run.stdout.split()), run.stdout


def test_a_host_believes_no_router_and_no_stranger_also_after_a_run_that_was_cut(on: Any, name: str) -> None:
    # Docker shows a container its own network's settings to read alone; on a machine they can be written.
    on(name).check_output("mount --bind /proc/sys/net /proc/sys/net && mount -o remount,bind,rw /proc/sys/net")
    try:
        on(name).check_output("sysctl -w net.ipv4.conf.eth0.rp_filter=2 net.ipv4.conf.eth0.accept_redirects=1 net.ipv6.conf.eth0.accept_ra=1")
        before = on(name).check_output("sysctl -n net.ipv4.tcp_keepalive_time")
        # It writes its files, and loads none of them.
        assert changed(rerun(f"--limit={name}", "--tags=baseline_configure", baseline_sysctl={"net.ipv4.tcp_keepalive_time": 121}))[name] > 0
        assert on(name).check_output("sysctl -n net.ipv4.tcp_keepalive_time") == before
        assert changed(rerun(f"--limit={name}", "--tags=baseline_service"))[name] > 0
        for key, value in {
            "ipv4.tcp_keepalive_time": "121",
            "ipv4.conf.eth0.rp_filter": "1",
            "ipv4.conf.all.accept_redirects": "0",
            "ipv4.conf.eth0.accept_redirects": "0",
            "ipv4.conf.eth0.accept_source_route": "0",
            "ipv6.conf.eth0.accept_ra": "0",
        }.items():
            assert on(name).check_output(f"sysctl -n net.{key}") == value, key
        again = [changed(rerun(f"--limit={name}", "--tags=baseline_configure,baseline_service"))[name] > 0 for _ in range(2)]
        assert again == [True, False]
        assert on(name).check_output("sysctl -n net.ipv4.tcp_keepalive_time") == "120"
    finally:
        on(name).check_output("umount /proc/sys/net")
