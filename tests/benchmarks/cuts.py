"""Cut a scenario's first run at each of its places: ``python tests/benchmarks/cuts.py pki [--places 8] [--seed 1] [--in-a-row]``.

Two runs over fresh hosts go to their end. What both have left the same on the hosts (files, units that run or have failed) is what every run has to
leave; keys and what is made of them differ, and are compared by their owners and modes. Then, each time on fresh hosts, the run is killed straight
after one of the tasks that change something; the next one must go to its end, the one after it must change nothing, and the hosts must be as after an
uninterrupted run. ``--places`` takes so many of the places by chance, not all.
``--in-a-row`` takes fresh hosts once: each run is killed straight after the first task that changes something, until one has nothing more to change.
That cuts at every place, and what is lost at any of them is missing at the end; but which place lost it has to be found without this option. Then a
knob of the role is changed (``KNOBS``): once without a cut, and back; once more, again with a cut after each change. Both have to leave the same.
Exit code 1 otherwise.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from lab.cut import Cut, cut
from tests.__main__ import containers

PROJECT = Path(__file__).resolve().parents[2]
LOOK = r"""
find /etc /usr/local /var/lib/sovereign -xdev \( -type f -o -type l \) -printf '%p %m %u:%g ' \
    -exec sh -c 'sha256sum < "$1" 2>/dev/null || echo -' _ {} \;
systemctl list-units --all --plain --no-legend --state=active,failed --type=service,socket,timer,path,target | awk '{print $1, $3, $4}'
"""
# What every command leaves: caches, what the records say of invocations, which have other names each time, and what a socket starts for a while.
PASSING = re.compile(
    r"^(/etc/(ld\.so\.cache|machine-id|resolv\.conf|hosts|hostname|mtab|.*~ |\.updated)|/var/lib/sovereign/loaded/|session-|user|init\.scope|run-"
    r"|netavark-dhcp-proxy)"
)

# A knob of each role that has one whose change rewrites what a service has loaded.
KNOBS: dict[str, dict[str, Any]] = {
    "baseline": {"baseline_nofile_limit": 524288, "baseline_journal_max_use": "2G", "baseline_unattended_upgrades": True},
    "firewall": {"firewall_log_denied": True, "firewall_dhcp": False},
    "wireguard": {"wireguard_allow_ping": False},
    "etcd": {"etcd_compaction_retention": "2h"},
    "patroni": {"patroni_ttl": 24, "patroni_max_connections": 460},
    "pgbouncer": {"pgbouncer_pool_size": 21, "pgbouncer_database_connections": 41},
    "redis": {"redis_down_after": 3, "redis_failover_timeout": 40},
    "rabbitmq": {"rabbitmq_disk_free_limit_mb": 1024},
    "object_storage": {"object_storage_workers": 2, "object_storage_max_connections": 3000},
    "service_proxy": {"service_proxy_max_connections": 3000, "service_proxy_check_interval": 1200},
    "pgpool": {"pgpool_sessions": 31},
    "pgbackrest": {"pgbackrest_retention_full": 5, "pgbackrest_schedule": "*-*-* 02:30:00"},
    "nvidia_driver": {"nvidia_driver_drift_interval": "10min"},
    "vllm": {"vllm_stall_timeout": 20},
    "model_gateway": {"model_gateway_max_connections": 3000},
    "dify": {"dify_lease_seconds": 60},
    "nginx": {"nginx_worker_connections": 2048, "nginx_hsts_seconds": 600},
    "keepalived": {"keepalived_check_timeout": 3, "keepalived_interval": 2},
}


class Scenario:
    """A scenario's hosts and its playbook.

    Attributes:
        name: Its name.
    """

    def __init__(self, name: str) -> None:
        """Find its hosts."""
        self.name = name
        self.directory = PROJECT / "molecule" / name
        inventory = [f"--inventory={self.directory}/inventory", f"--inventory={PROJECT}/molecule/shared/substrate.yml"]
        self.command = ["ansible-playbook", f"{self.directory}/converge.yml", *inventory]
        self.environment = {
            "MOLECULE_SCENARIO_DIRECTORY": str(self.directory),
            "MOLECULE_PROJECT_DIRECTORY": str(PROJECT),
            "MOLECULE_SCENARIO_NAME": name,
            "ANSIBLE_CONFIG": str(PROJECT / "ansible.cfg"),
            "ANSIBLE_COLLECTIONS_PATH": str(PROJECT / "collections"),
            "ANSIBLE_CACHE_PLUGIN_CONNECTION": str(PROJECT / f".cache/facts-{name}"),
            "ANSIBLE_NOCOLOR": "1",
        }

    def molecule(self, action: str) -> None:
        """Have Molecule make the hosts, or take them away."""
        command = ["molecule", action, "--scenario-name", self.name]
        done = subprocess.run(command, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)}:\n{done.stdout}")

    def fresh(self) -> None:
        """Have fresh hosts."""
        self.molecule("destroy")
        self.molecule("create")

    def run(self, at: int = 0, knob: dict[str, Any] | None = None) -> Cut:
        """Run the playbook, to its end or to a place, with another value of a knob."""
        return cut([*self.command, *(["--extra-vars", json.dumps(knob)] if knob else [])], at, self.environment)

    def look(self) -> dict[str, str]:
        """Give what there is on the hosts: for each file and unit, by host, what it is."""
        found = {}
        for container in containers(self.name):
            said = subprocess.run(["docker", "exec", container, "sh", "-c", LOOK], capture_output=True, text=True, check=True)
            for line in said.stdout.splitlines():
                name, dummy, state = line.partition(" ")
                if not PASSING.match(line):
                    found[f"{container} {name}"] = state
        return found


def differences(found: dict[str, str], first: dict[str, str], second: dict[str, str]) -> list[str]:
    """Tell in what hosts differ from what two uninterrupted runs have left alike.

    Args:
        found: From ``Scenario.look``.
        first: Likewise, of the first uninterrupted run.
        second: Of the second one.
    """
    complaints = [f"{name} is not there" for name in first.keys() & second.keys() - found.keys()]
    complaints += [f"{name} ({found[name]}) is not there otherwise" for name in found.keys() - first.keys() - second.keys()]
    for name in found.keys() & first.keys() & second.keys():
        wanted, is_so = first[name], found[name]
        if wanted != second[name]:  # made of a key, or of the time
            wanted, is_so = (" ".join(state.split()[:2]) for state in (wanted, is_so))
        if wanted != is_so:
            complaints.append(f"{name} is {is_so}, not {wanted}")
    return sorted(complaints)


def tried(scenario: Scenario, number: int, first: dict[str, str], second: dict[str, str]) -> list[str]:
    """Cut a run on fresh hosts, go on, and tell what is wrong.

    Args:
        scenario: The scenario.
        number: After which task.
        first: What an uninterrupted run has left.
        second: What another one has left.
    """
    scenario.fresh()
    killed = scenario.run(number)
    if killed.code != -signal.SIGKILL:
        return [f"it was not cut, and ended with exit code {killed.code}:\n{killed.said[-3000:]}"]
    return finished(scenario, first, second)


def finished(scenario: Scenario, first: dict[str, str], second: dict[str, str], knob: dict[str, Any] | None = None) -> list[str]:
    """Go on after a cut, and tell what is wrong.

    Args:
        scenario: The scenario.
        first: What an uninterrupted run has left.
        second: What another one has left.
        knob: Values that the run had.
    """
    next_one, again = scenario.run(knob=knob), scenario.run(knob=knob)
    complaints = [f"the next run ended with exit code {next_one.code}:\n{next_one.said[-3000:]}"] if next_one.code else []
    if changed := re.findall(r"^\S+ +: ok=.* changed=[1-9].*$", again.said, re.MULTILINE):
        complaints += [f"the run after it changed something ({', '.join(name for dummy, name in again.changing)}): {changed[0]}"]
    return complaints + differences(scenario.look(), first, second)


def in_a_row(scenario: Scenario, knob: dict[str, Any] | None = None) -> list[tuple[int, str]]:
    """Cut one run after the other, each after the first task that changes something; give where.

    Args:
        scenario: The scenario.
        knob: Values that the runs have.
    """
    places: list[tuple[int, str]] = []
    at = 1
    for _ in range(200):
        killed = scenario.run(at, knob)
        if killed.code != -signal.SIGKILL:
            return places
        place = killed.changing[-1]
        # What changes something each time, such as a step of the scenario itself, is passed by the run after.
        at = place[0] + 1 if place in places else 1
        places.append(place)
    raise SystemExit(f"It was cut {len(places)} times and still changes something: {places[-3:]}")


def told(scenario: Scenario, what: str, changing: int, first: dict[str, str], second: dict[str, str], knob: dict[str, Any] | None = None) -> bool:
    """Cut in a row, go on, and print what came of it; give whether something is wrong.

    Args:
        scenario: The scenario.
        what: What is run.
        changing: How many tasks change something in an uninterrupted run.
        first: What such a run has left.
        second: What another one has left.
        knob: Values that the runs have.
    """
    started = time.monotonic()
    cuts = in_a_row(scenario, knob)
    complaints = finished(scenario, first, second, knob)
    print(f"{scenario.name}, {what}: {changing} tasks change something; cut {len(cuts)} times, at {len(set(cuts))} places, then", end=" ")
    print(f"{'; '.join(complaints) or 'finished'} ({time.monotonic() - started:.0f} s)")
    print(f"  {', '.join(name for _, name in dict.fromkeys(cuts))}", flush=True)
    return bool(complaints)


def main() -> int:
    """Cut at each place, and print what was seen."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scenario")
    parser.add_argument("--places", type=int, default=0, help="how many, by chance; 0 for all")
    parser.add_argument("--seed", default=time.strftime("%G-%V"))
    parser.add_argument("--in-a-row", action="store_true", help="on the same hosts, each run after its first change")
    options = parser.parse_args()
    os.environ["MOLECULE_COMMAND_BORDERS"] = "0"
    scenario = Scenario(options.scenario)
    looks = []
    for _ in range(2):
        scenario.fresh()
        whole = scenario.run()
        if whole.code:
            raise SystemExit(f"The run fails without being cut:\n{whole.said[-5000:]}")
        looks.append(scenario.look())
    if options.in_a_row:
        scenario.fresh()
        bad: int = told(scenario, "fresh", len(whole.changing), *looks)
        if knob := KNOBS.get(options.scenario):
            changed = scenario.run(knob=knob)
            if changed.code or not changed.changing:
                raise SystemExit(f"{json.dumps(knob)} changes nothing, or fails:\n{changed.said[-5000:]}")
            look = scenario.look()
            scenario.run()
            bad += told(scenario, json.dumps(knob), len(changed.changing), look, look, knob)
        scenario.molecule("destroy")
        return int(bad > 0)
    # After the last one nothing is left to be done.
    places = list(whole.changing)
    if options.places and options.places < len(places):
        places = sorted(random.Random(options.seed).sample(places, options.places))  # noqa: S311 - no secret
    print(f"{options.scenario}: {len(whole.changing)} tasks change something; cut after {len(places)} of them", flush=True)
    bad = 0
    for number, name in places:
        started = time.monotonic()
        complaints = tried(scenario, number, looks[0], looks[1])
        bad += bool(complaints)
        print(f"  {number:3} {name}: {'; '.join(complaints) or 'finished by the next run'} ({time.monotonic() - started:.0f} s)", flush=True)
    scenario.molecule("destroy")
    print(f"{len(places) - bad} of {len(places)} were finished by the next run")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
