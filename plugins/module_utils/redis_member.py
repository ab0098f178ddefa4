# Copyright (c) 2026, The sovereign.dify maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""One member of a set of Redis servers that Sentinels watch: seeded once, then changed only while it runs.

What Redis and Sentinel write down themselves (who is followed, who leads, which fail-over was the last) is never written by anybody else.
Runs on managed hosts: the standard library only.
"""

from __future__ import annotations

import contextlib
import re
import shlex
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ansible_collections.sovereign.dify.plugins.module_utils.redis_client import Connection, RedisError, View, leader, passwords, views

Run = Callable[[list[str]], str]
"""Runs a command and gives what it printed; raises if it fails."""

SERVER, SENTINEL = "redis-server", "redis-sentinel"
# Which member of which set: arguments of every module here. Their documentation: plugins/doc_fragments/redis_member.py.
MEMBER: dict[str, dict[str, object]] = {
    "address": {"type": "str", "required": True},
    "members": {"type": "list", "elements": "str", "required": True},
    "name": {"type": "str", "required": True},
}
# What a running server cannot take up.
FIXED = {
    *("aclfile", "appenddirname", "appendfilename", "cluster-enabled", "daemonize", "databases", "dir", "io-threads", "logfile", "supervised"),
    *("syslog-enabled", "tcp-backlog", "unixsocket", "unixsocketperm"),
}
SECRET = ("auth", "pass")
UNITS = {"": 1, "b": 1, "k": 1000, "kb": 1024, "m": 1000**2, "mb": 1024**2, "g": 1000**3, "gb": 1024**3}
# Of the options that `sentinel <option> <name> <value>` sets, those that SENTINEL MASTER does not tell.
UNTOLD = {"auth-user", "auth-pass"}


class MemberError(Exception):
    """A member that cannot be brought to its wanted state; the message says why."""


@dataclass(frozen=True)
class Change:
    """One thing that is not as wanted."""

    what: str
    before: str
    after: str

    def line(self, value: str) -> str:
        """Give it with a value, which is hidden where it is a secret."""
        return f"{self.what}: {'(secret)' if any(word in self.what for word in SECRET) else value}\n"


@dataclass(frozen=True)
class Unit:
    """What systemd says of a unit."""

    running: bool
    enabled: bool
    outdated: bool
    started: int


def settings(text: str) -> dict[str, str]:
    r"""Read a configuration: ``{option: value}``, the values' quotes taken away.

    >>> settings('save ""\n# why\nbind 10.1.1.1 ::1\n')
    {'save': '', 'bind': '10.1.1.1 ::1'}
    """
    found = {}
    for line in text.splitlines():
        if line.strip() and not line.startswith("#"):
            option, *values = shlex.split(line)
            found[option.lower()] = " ".join(values)
    return found


def normal(value: str) -> str:
    """Write a value as CONFIG GET does: sizes in bytes, words in lower case where they are sizes.

    >>> normal("normal 0 64mb 60")
    'normal 0 67108864 60'
    """

    def plain(word: str) -> str:
        size = re.fullmatch(r"(\d+)([bkmg]{0,2})", word.lower())
        return str(int(size[1]) * UNITS[size[2]]) if size and size[2] in UNITS else word

    return " ".join(plain(word) for word in value.split())


def same(wanted: str, present: str) -> bool:
    """Tell whether a value is in force. Of options with several parts, such as the limits of output buffers, a part may be given."""
    left, right = normal(wanted), normal(present)
    return left == right or (" " in left and f" {left} " in f" {right} ")


def generation(acl: str) -> str:
    """Give the user that is in an ACL file only to say which one it is."""
    return next((line.split()[1] for line in acl.splitlines() if line.startswith("user generation-")), "")


def sentinel_lines(text: str) -> Iterator[list[str]]:
    """Give the words of each ``sentinel`` line of a configuration, without the first."""
    for line in text.splitlines():
        words = shlex.split(line, comments=True)
        if words and words[0] == "sentinel":
            yield words[1:]


@dataclass
class Member:
    """This host's Redis and Sentinel.

    Attributes:
        address: Own address.
        members: Addresses of all members; the first leads a set that begins.
        name: Name of the set at the Sentinels.
        run: Runs a command.
        port: Port of the servers.
        sentinel_port: Port of the Sentinels.
        ping_period: Milliseconds between two of this Sentinel's pings; None to leave it at what it is.
        root: Where the file system begins.
        sleep: Waits some seconds.
    """

    address: str
    members: Sequence[str]
    name: str
    run: Run
    port: int = 6379
    sentinel_port: int = 26379
    ping_period: int | None = None
    root: Path = Path("/")
    sleep: Callable[[float], None] = time.sleep
    done: list[Change] = field(default_factory=list)
    pending: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Find the files."""
        self.wanted = self.root / "etc/redis/sovereign.conf"
        self.wanted_sentinel = self.root / "etc/redis/sovereign-sentinel.conf"
        self.state = self.root / "var/lib/redis/redis.conf"
        self.state_sentinel = self.root / "var/lib/redis/sentinel.conf"
        self.sockets = {SERVER: self.root / "run/redis/redis-server.sock", SENTINEL: self.root / "run/sentinel/redis-sentinel.sock"}
        self.acls = {SERVER: self.root / "etc/redis/users.acl", SENTINEL: self.root / "etc/redis/sentinel.acl"}

    @property
    def quorum(self) -> int:
        """Sentinels that must agree that the master is down."""
        return len(self.members) // 2 + 1

    def passwords(self) -> list[str]:
        """Give the administrator's passwords, the one to use first."""
        return passwords(self.root / "etc/redis/admin.password")

    def connect(self, service: str) -> Connection:
        """Speak to one of this host's services."""
        return Connection.unix(str(self.sockets[service]), "admin", self.passwords())

    def views(self) -> list[View]:
        """Ask all Sentinels who leads."""
        return views(self.members, self.sentinel_port, self.name, self.passwords())

    def find_master(self) -> str:
        """Ask the running set who leads: the Sentinels, then the servers. Where nothing runs, the first member begins."""
        if known := leader(self.views()):
            return known
        leading = []
        for address in self.members:
            with contextlib.suppress(OSError, RedisError), Connection.tls(address, self.port, "admin", self.passwords()) as server:
                told = server.info("replication")
                if told["role"] == "master":
                    leading.append((int(told["connected_slaves"]), address))
                else:
                    leading.append((0, told["master_host"]))
        return max(leading)[1] if leading else self.members[0]

    def unit(self, service: str) -> Unit:
        """Ask systemd about a service."""
        asked = "ActiveState,UnitFileState,NeedDaemonReload,ExecMainStartTimestamp"
        told = dict(line.split("=", 1) for line in self.run(["systemctl", "show", "--timestamp=unix", f"--property={asked}", service]).splitlines())
        return Unit(
            running=told["ActiveState"] in {"active", "reloading", "activating"},
            enabled=told["UnitFileState"] == "enabled",
            outdated=told["NeedDaemonReload"] == "yes",
            started=int(told["ExecMainStartTimestamp"].removeprefix("@") or 0),
        )

    def bring_up(self, check_mode: bool, timeout: float = 60) -> None:
        """Bring both services to their wanted state; notes what was done, and what only a restart would take up.

        Raises:
            MemberError: with the reason.
        """
        seeds = {path: text for path, text in self.seeds() if not path.exists()}
        for path in seeds:
            self.done.append(Change(f"state of {path.name}", "absent", "seeded"))
        units = {service: self.unit(service) for service in (SERVER, SENTINEL)}
        begin = []
        for service, unit in units.items():
            if not unit.enabled:
                self.done.append(Change(f"{service} at boot", "disabled", "enabled"))
            # What runs without our socket was started by the package, and holds nothing of the set's.
            if not unit.running or seeds or not self.sockets[service].exists():
                self.done.append(Change(service, "running by itself" if unit.running else "stopped", "running in the set"))
                begin.append(service)
            elif self.foreign(service):
                self.done.append(Change(service, "running with users of another state directory", "running with the users of its file"))
                begin.append(service)
        if not check_mode:
            self.begin(seeds, units, begin, timeout)
        for service in units:
            if check_mode and service in begin:
                continue
            with self.connect(service) as connection:
                self.adjust_users(service, connection, check_mode)
        for service in units:
            if check_mode and service in begin:
                continue
            with self.connect(service) as connection:
                if service == SERVER:
                    self.adjust_server(connection, check_mode)
                else:
                    self.adjust_sentinel(connection, check_mode, timeout)
                    self.pace_sentinel(connection, check_mode)
            drop_in = self.root / f"etc/systemd/system/{service}.service.d/sovereign.conf"
            if service not in begin and drop_in.exists() and int(drop_in.stat().st_mtime) > units[service].started:
                self.pending.append(f"{service} was started before its unit was changed")

    def seeds(self) -> Iterator[tuple[Path, str]]:
        """Give the files that Redis and Sentinel keep themselves, as they begin.

        Raises:
            MemberError: data of another Redis would be lost.
        """
        if self.state.exists() and self.state_sentinel.exists():
            return
        dump = self.state.parent / "dump.rdb"
        # An empty data set has less than a hundred bytes.
        if not self.state.exists() and dump.exists() and dump.stat().st_size > 256:
            raise MemberError(
                f"{dump} holds data of a Redis that this role did not set up, which a new member would lose. Move it away, or load it afterwards."
            )
        master = self.find_master()
        follow = "" if master == self.address else f"replicaof {master} {self.port}\n"
        yield self.state, f"# Redis writes this file itself. Its settings: {self.wanted}, which is read after this one.\n{follow}"
        lines = [line for line in self.wanted_sentinel.read_text().splitlines(keepends=True) if not line.startswith("#")]
        monitor = f"sentinel monitor {self.name} {master} {self.port} {self.quorum}\n"
        plain = "".join(line for line in lines if not line.startswith("sentinel "))
        ours = "".join(line for line in lines if line.startswith("sentinel "))
        yield self.state_sentinel, f"# Sentinel writes this file itself; it was seeded once, and changes by SENTINEL SET.\n{plain}{monitor}{ours}"

    def begin(self, seeds: dict[Path, str], units: dict[str, Unit], services: list[str], timeout: float) -> None:
        """Seed, enable and start."""
        for path, text in seeds.items():
            path.touch(mode=0o640)
            path.write_text(text)
            shutil.chown(path, "redis", "redis")
        if any(unit.outdated for unit in units.values()) or seeds:
            self.run(["systemctl", "daemon-reload"])
        if services or not all(unit.enabled for unit in units.values()):
            self.run(["systemctl", "enable", "--quiet", *units])
        if services:
            self.run(["systemctl", "reset-failed", *services])
            # Loading a large data set takes longer than systemd's patience with us.
            self.run(["systemctl", "restart", "--no-block", *services])
        deadline = time.monotonic() + timeout
        for service in services:
            while not self.answers(service):
                if time.monotonic() > deadline:
                    journal = self.run(["journalctl", "--no-pager", "--output=cat", "--lines=20", f"--unit={service}"])
                    raise MemberError(f"{service} did not come up in {timeout:.0f} s. The end of its journal:\n{journal}")
                self.sleep(0.3)

    def foreign(self, service: str) -> bool:
        """Tell whether a running service has its users from another state directory.

        Such a service refuses every user of its file, so that nobody can have it read the file again. It refuses clients with the right passwords,
        too: only a restart helps. A service that refuses the administrator alone is another case: one password was changed without the former one.
        """
        if not self._refuses(service, "admin", self.passwords()):
            return False
        if service == SERVER:
            wanted = settings(self.wanted.read_text())
            return self._refuses(service, wanted["masteruser"], [wanted["masterauth"]])
        told = {words[0]: words[1] for words in sentinel_lines(self.wanted_sentinel.read_text()) if len(words) == 2}
        return self._refuses(service, told["sentinel-user"], [told["sentinel-pass"]])

    def _refuses(self, service: str, user: str, known: Sequence[str]) -> bool:
        try:
            Connection.unix(str(self.sockets[service]), user, known).close()
        except OSError:
            return False
        except RedisError as error:
            return str(error).startswith("WRONGPASS")
        return False

    def answers(self, service: str) -> bool:
        """Tell whether a service answers, even if it is still loading."""
        try:
            with self.connect(service) as connection:
                connection("PING")
        except OSError:
            return False
        except RedisError as error:
            return str(error).startswith(("LOADING", "MASTERDOWN"))
        return True

    def adjust_users(self, service: str, connection: Connection, check_mode: bool) -> None:
        """Have the users of the ACL file in force."""
        wanted = generation(self.acls[service].read_text())
        if wanted in connection("ACL", "USERS"):
            return
        self.done.append(Change(f"users of {service}", "older", "as in the file"))
        if not check_mode:
            connection("ACL", "LOAD")

    def adjust_server(self, connection: Connection, check_mode: bool) -> None:
        """Have the settings in force that a running server can take up.

        Raises:
            MemberError: a setting that this Redis does not know.
        """
        wanted = settings(self.wanted.read_text())
        present = connection.pairs("CONFIG", "GET", *wanted)
        if unknown := sorted(set(wanted) - set(present)):
            raise MemberError(f"this Redis knows no setting {', '.join(unknown)}: correct it before any restart of a member, which would fail")
        differences = [Change(option, present[option], value) for option, value in wanted.items() if not same(value, present[option])]
        self.pending += [f"{change.what} is {change.before or 'empty'}, shall be {change.after}" for change in differences if change.what in FIXED]
        changes = [change for change in differences if change.what not in FIXED]
        self.done += changes
        if changes and not check_mode:
            connection("CONFIG", "SET", *(word for change in changes for word in (change.what, change.after)))

    def adjust_sentinel(self, connection: Connection, check_mode: bool, timeout: float) -> None:
        """Have what is wanted of this Sentinel in force.

        A Sentinel logs in once a connection, and keeps a connection on which it was refused for as long as errors come back: it would call the
        other one down for ever. So a new password is used when all members know it, and connections on which it was refused are opened anew.

        Raises:
            MemberError: another member does not accept the new password in time.
        """
        told = connection.pairs("SENTINEL", "MASTER", self.name)
        common = connection.pairs("SENTINEL", "CONFIG", "GET", "*")
        for option, *values in sentinel_lines(self.state_sentinel.read_text()):
            if option in UNTOLD and values[0] == self.name:
                told[option] = values[1]
        wanted = [[self.name, "quorum", str(self.quorum)]]
        wanted += [
            [words[1], words[0], words[2]] if len(words) == 3 and words[1] == self.name else ["", *words]
            for words in sentinel_lines(self.wanted_sentinel.read_text())
            if words[0] in common or words[1] == self.name
        ]
        users = {option: value for dummy, option, value in wanted if option.endswith("-user")}
        for name, option, value in wanted:
            present = (told if name else common).get(option, "")
            if present == value and not (option == "sentinel-pass" and self._shut_out(connection, users["sentinel-user"], value)):
                continue
            self.done.append(Change(f"sentinel {option}", present, value))
            if not check_mode:
                if option in {"sentinel-pass", "auth-pass"}:
                    port = self.sentinel_port if option == "sentinel-pass" else self.port
                    self._until_accepted(port, users[option.replace("pass", "user")], value, timeout)
                connection(*(["SENTINEL", "SET", name] if name else ["SENTINEL", "CONFIG", "SET"]), option, value)

    def pace_sentinel(self, connection: Connection, check_mode: bool) -> None:
        """Have this Sentinel ping as often as is wanted. No file has that: its unit sets it at each start."""
        if self.ping_period is None:
            return
        present = str(connection.pairs("SENTINEL", "DEBUG")["PING-PERIOD"])
        if present != str(self.ping_period):
            self.done.append(Change("sentinel ping-period", present, str(self.ping_period)))
            if not check_mode:
                connection("SENTINEL", "DEBUG", "PING-PERIOD", self.ping_period)

    def _login(self, address: str, port: int, user: str, password: str) -> bool | None:
        """Tell whether a member accepts a password; None if it does not answer."""
        try:
            Connection.tls(address, port, user, [password]).close()
        except OSError:
            return None
        except RedisError as error:
            # While it loads its data it answers logins, too.
            return not str(error).startswith("WRONGPASS")
        return True

    def _until_accepted(self, port: int, user: str, password: str, timeout: float) -> None:
        """Wait for the other members' users to be as new as this one's. One that does not answer is not waited for."""
        deadline = time.monotonic() + timeout
        while refusing := [address for address in self.members if self._login(address, port, user, password) is False]:
            if time.monotonic() > deadline:
                raise MemberError(
                    f"after {timeout:.0f} s {', '.join(refusing)} did not accept the new password of {user} on port {port}, so this member goes "
                    "on with the former one. Run the role over all members at once: each has to know the password before any uses it"
                )
            self.sleep(0.3)

    def _shut_out(self, connection: Connection, user: str, password: str) -> list[str]:
        """Give the members whose Sentinels this one calls down although they accept its password."""
        told = [dict(zip(entry[::2], entry[1::2], strict=True)) for entry in connection("SENTINEL", "SENTINELS", self.name)]
        down = [entry["ip"] for entry in told if "s_down" in entry["flags"].split(",")]
        return [address for address in down if self._login(address, self.sentinel_port, user, password)]

    def hand_over(self, check_mode: bool, timeout: float = 30) -> bool:
        """Have another member lead, if this one does, without losing a write that was acknowledged.

        Sentinel's own fail-over leaves the former master writable until it is told; so writers have to wait before it begins, and this member is told
        at once that it follows.

        Returns:
            Whether this member led.

        Raises:
            MemberError: no replica has everything, or the Sentinels do not agree in time; writers go on here.
        """
        with self.connect(SERVER) as server, self.connect(SENTINEL) as sentinel:
            if server.info("replication")["role"] != "master":
                return False
            if check_mode:
                return True
            deadline = time.monotonic() + timeout
            # Should this process die, writers wait no longer than this.
            server("CLIENT", "PAUSE", int((timeout + 5) * 1000), "WRITE")
            try:
                self._until(lambda: self._has_a_full_copy(server), deadline, "no replica has everything that was written here")
                sentinel("SENTINEL", "FAILOVER", self.name)
                self._until(lambda: self._leads(sentinel) != self.address, deadline, "the Sentinels did not make another member the master")
                server("REPLICAOF", self._leads(sentinel), self.port)
                server("CONFIG", "REWRITE")
                # As the Sentinels do where it is they who tell a master to follow: who keeps its session would be refused each write.
                for kind in ("normal", "pubsub"):
                    server("CLIENT", "KILL", "TYPE", kind)
            finally:
                server("CLIENT", "UNPAUSE")
        return True

    def _until(self, true: Callable[[], bool], deadline: float, otherwise: str) -> None:
        while not true():
            if time.monotonic() > deadline:
                raise MemberError(f"{otherwise}; this member goes on leading")
            self.sleep(0.1)

    def _leads(self, sentinel: Connection) -> str:
        return str(sentinel("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.name)[0])

    @staticmethod
    def _has_a_full_copy(server: Connection) -> bool:
        told = server.info("replication")
        copies = [dict(part.split("=", 1) for part in value.split(",")) for key, value in told.items() if re.fullmatch(r"slave\d+", key)]
        return any(copy["state"] == "online" and copy["offset"] == told["master_repl_offset"] for copy in copies)

    def faults(self, min_replicas: int) -> tuple[list[str], dict[str, str]]:
        """Look whether this member does its part in a set that works.

        Returns:
            What is wrong, in words, and the facts: ``role`` of this member, address of the ``master``.
        """
        faults = []
        seen = self.views()
        master = leader(seen) or ""
        if missing := [address for address in self.members if address not in {view.sentinel for view in seen}]:
            faults.append(f"the Sentinels on {', '.join(missing)} do not answer")
        if doubts := [view.sentinel for view in seen if view.master != master]:
            faults.append(f"the Sentinels on {', '.join(doubts)} do not know yet that {master} leads")
        told: dict[str, str] = {}
        try:
            with Connection.tls(self.address, self.port, "admin", self.passwords()) as server:
                told = server.info("replication")
            with self.connect(SENTINEL) as sentinel:
                known = 1 + int(sentinel.pairs("SENTINEL", "MASTER", self.name)["num-other-sentinels"])
                sentinel("SENTINEL", "CKQUORUM", self.name)
        except (OSError, RedisError) as error:
            return [*faults, f"{error}"], {"role": told.get("role", "unknown"), "master": master}
        if known != len(self.members):
            faults.append(f"this Sentinel knows {known} Sentinels, not {len(self.members)}; of members that are gone, SENTINEL RESET forgets them")
        if told["role"] == "master":
            if master != self.address:
                faults.append(f"this server calls itself the master, but {master or 'nobody'} leads")
            if int(told["connected_slaves"]) < min_replicas:
                faults.append(f"{told['connected_slaves']} replicas follow, {min_replicas} must before anything may be written")
        elif told["master_host"] != master or told["master_link_status"] != "up":
            faults.append(f"this server follows {told['master_host']} (link {told['master_link_status']}), {master or 'nobody'} leads")
        role = {"slave": "replica"}.get(told["role"], told["role"])
        return faults, {"role": role, "master": master}
