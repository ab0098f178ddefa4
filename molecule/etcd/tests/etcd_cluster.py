"""The cluster, as its members and a stranger see it, and what can be done to it from outside."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from time import monotonic, sleep
from typing import Any

CLUSTER = "mol-etcd"
ADDRESS = {"one": "198.18.42.11", "two": "198.18.42.12", "three": "198.18.42.13"}
PKI = "/etc/sovereign/pki"


class Cluster:
    """Asks etcd by its own client, from inside a host and with the host's certificate."""

    def __init__(self, on: Callable[[str], Any]) -> None:
        """Keep the way to the hosts."""
        self.on = on

    def run(self, host: str, *words: str, member: str | None = None) -> Any:
        """Run etcdctl on ``host``, asking ``member`` (the host itself if not given)."""
        certificate = f"--cacert {PKI}/ca.crt --cert {PKI}/host.crt --key {PKI}/host.key"
        command = f"timeout 10 etcdctl --endpoints https://{ADDRESS[member or host]}:2379 {certificate} --dial-timeout 2s --command-timeout 4s "
        return self.on(host).run(f"ETCDCTL_API=3 {command} {' '.join(words)}")

    def write(self, host: str, key: str, value: str) -> bool:
        """Write through ``host``; whether it was acknowledged."""
        return bool(self.run(host, "put", key, value).rc == 0)

    def read(self, host: str, key: str) -> str:
        """Read through ``host``, with the consent of most members."""
        answer = self.run(host, "get", "--print-value-only", key)
        assert answer.rc == 0, answer.stderr
        return str(answer.stdout.strip())

    def leader(self) -> str:
        """Name of the member that leads now."""
        for host in ADDRESS:
            answer = self.run(host, "endpoint", "status", "--write-out", "json")
            if answer.rc == 0:
                status = json.loads(answer.stdout)[0]["Status"]
                if status["leader"] == status["header"]["member_id"]:
                    return host
        raise AssertionError("nobody leads")

    def wait(self, host: str, seconds: float = 30) -> float:
        """Wait until ``host`` serves; give the seconds it took."""
        begun = monotonic()
        while self.run(host, "endpoint", "health").rc != 0:
            assert monotonic() - begun < seconds, f"{host} is not healthy after {seconds} s"
            sleep(0.5)
        return monotonic() - begun

    def started(self) -> dict[str, str]:
        """When each member's process was started: what changes if anything restarts one."""
        return {host: str(self.on(host).check_output("systemctl show --property=ExecMainStartTimestampMonotonic --value etcd")) for host in ADDRESS}


def docker(*words: str) -> None:
    """Do something to a container from outside, as a power switch would."""
    subprocess.run(["docker", *words], check=True, capture_output=True, timeout=60)
