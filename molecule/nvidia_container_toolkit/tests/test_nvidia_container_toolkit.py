"""The specification of devices follows the driver. What writes it is a stand-in, to which /dev/null is a GPU; podman reads it in earnest."""

from __future__ import annotations

from typing import Any

from lab.testing import changed, rerun

SPECIFICATION = "/var/run/cdi/nvidia.yaml"
RUN = "podman run --rm --network=none --cgroups=disabled --device nvidia.com/gpu={device} --rootfs /:O"


def test_podman_gives_a_container_the_device_and_the_drivers_library(on: Any) -> None:
    host = on("gpu1")
    assert host.run("test -e /dev/nvidia0").rc != 0
    listed = host.check_output(f"{RUN.format(device=0)} sh -c 'stat --format=%t:%T /dev/nvidia0; cat /opt/libnvidia-ml.so.580.95.05'")
    assert listed.split() == ["1:3", "stand-in"]
    refused = host.run(f"{RUN.format(device=7)} true")
    assert refused.rc != 0
    assert "nvidia.com/gpu=7" in refused.stderr


def test_it_is_written_again_after_the_host_starts_and_when_what_writes_it_changes(on: Any) -> None:
    host = on("gpu1")
    assert host.check_output("systemctl is-enabled nvidia-cdi-refresh.service nvidia-cdi-refresh.path").split() == ["enabled"] * 2
    host.check_output(f"rm {SPECIFICATION} && touch /usr/bin/nvidia-ctk")
    host.check_output(f"for i in $(seq 50); do test -s {SPECIFICATION} && exit; sleep 0.1; done; exit 1")


def test_a_run_that_was_cut_after_it_had_written_the_drop_in_is_finished_by_the_next(on: Any) -> None:
    host = on("gpu1")
    outdated = "systemctl show --property=NeedDaemonReload --value nvidia-cdi-refresh.service"
    host.check_output("echo '# as a run writes it' >> /etc/systemd/system/nvidia-cdi-refresh.service.d/sovereign.conf")
    assert host.check_output(outdated) == "yes"
    assert [changed(rerun("--tags=nvidia_container_toolkit_service", "--limit=gpu1"))["gpu1"] for _ in range(2)] == [1, 0]
    assert host.check_output(outdated) == "no"
