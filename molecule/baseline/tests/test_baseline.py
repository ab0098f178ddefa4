"""What a host that went through the baseline does."""

from __future__ import annotations

from typing import Any

import pytest

pytestmark = pytest.mark.parametrize("name", ["debian13", "debian12"])


def test_chrony_follows_the_declared_servers_and_leaves_a_containers_clock_alone(on: Any, name: str) -> None:
    sources = on(name).check_output("chronyc -n sources -a")
    assert "debian.pool.ntp.org" in on(name).check_output("chronyc sources -a") or "^?" in sources
    assert " -x" in on(name).check_output("ps -o args= -C chronyd")


def test_a_firms_authority_is_trusted(on: Any, name: str) -> None:
    trusted = on(name).run("openssl verify -CApath /etc/ssl/certs /usr/local/share/ca-certificates/firm.crt")
    assert trusted.rc == 0, trusted.stderr


def test_services_get_the_limit_of_open_files(on: Any, name: str) -> None:
    assert "1048576" in on(name).check_output("systemctl show --property=DefaultLimitNOFILE")


def test_the_journal_survives_a_reboot(on: Any, name: str) -> None:
    on(name).run_expect([0], "logger --journald <<< 'MESSAGE=kept' || systemd-cat echo kept")
    assert "/var/log/journal" in on(name).check_output("journalctl --header | grep 'File path'")


def test_nothing_upgrades_itself_at_night(on: Any, name: str) -> None:
    assert 'APT::Periodic::Unattended-Upgrade "0";' in on(name).check_output("apt-config dump")
