"""What a host that went through the baseline does."""

from __future__ import annotations

from typing import Any

import pytest

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
