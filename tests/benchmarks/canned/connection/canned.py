# SPDX-License-Identifier: GPL-3.0-or-later
"""Connection: reaches no host, and answers for one at once."""

from __future__ import annotations

import ast
import base64
import hashlib
import json
import re
import time
from typing import Any

from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.connection import ConnectionBase

DOCUMENTATION = """
name: canned
short_description: Answer at once, without a host
description:
  - Answers each module as a Debian 13 host would, in check mode, on which everything is as it is wanted. Nothing is run. Which module it
    is, and what it is asked, is read in what Ansible sends.
  - What nobody has written an answer for makes the host unreachable, with its name.
options:
  host:
    description: The host's name.
    vars: [{name: inventory_hostname}]
  state:
    description: The identity of the state directory that hosts are marked with.
    env: [{name: CANNED_STATE}]
  key:
    description: The digest of the public key that belongs to the hosts' certificates.
    env: [{name: CANNED_KEY}]
extends_documentation_fragment: [connection_pipelining]
"""

Answer = dict[str, Any]
GIB = 1 << 30
NAMED = re.compile(rb"^module_fqn='(?:ansible_collections\.(?P<collection>\w+\.\w+)\.plugins|ansible)\.modules\.(?P<name>\w+)',$", re.MULTILINE)
GIVEN = re.compile(rb"^params=(?P<text>.*),$", re.MULTILINE)
SHELL = (
    (re.compile("echo FOUND"), "FOUND\n/usr/bin/python3.13\nENDFOUND\n"),
    (re.compile(r"echo ~(\w+) "), r"/home/\1\n"),
    (re.compile(r"mkdir .*echo (ansible-tmp-[\d.-]+)=.*echo (\S+) "), r"\1=\2\n"),
    (re.compile(r"rm -f -r \S+/ansible-tmp-"), ""),
)
"""What Ansible has a host's shell do around modules, and what that prints: find Python, and make and remove a directory for files to come."""

AS_WANTED: dict[str, Answer] = {
    "ansible.builtin.file": {},
    "ansible.builtin.get_url": {},
    "ansible.builtin.group": {},
    "ansible.builtin.user": {},
    "sovereign.dify.apt_packages": {"installed": [], "held": [], "old": False},
    "sovereign.dify.config_files": {"changed_files": []},
    "sovereign.dify.container_images": {"missing": [], "shortages": []},
    "sovereign.dify.container_units": {"removed": [], "started": [], "restarted": [], "stale": []},
    "sovereign.dify.dify_bytecode": {"removed": []},
    "sovereign.dify.dify_migration": {"former": ""},
    "sovereign.dify.dify_setup": {"changes": []},
    "sovereign.dify.firewall_rules": {"written": False, "applied": True},
    "sovereign.dify.haproxy_info": {"servers": [], "differences": []},
    "sovereign.dify.model_plan": {"plans": [], "table": ""},
    "sovereign.dify.nftables_table": {"pending": False, "drift": False, "ready": True},
    "sovereign.dify.pgbackrest_stanza": {},
    "sovereign.dify.port_owners": {},
    "sovereign.dify.postgresql_databases": {},
    "sovereign.dify.rabbitmq_definitions": {},
    "sovereign.dify.rabbitmq_node": {"changes": [], "pending": []},
    "sovereign.dify.redis_member": {"changes": [], "pending": []},
    "sovereign.dify.s3_buckets": {},
    "sovereign.dify.service_units": {"steps": [], "due": {}},
    "sovereign.dify.swift_ring": {"changed_files": []},
    "sovereign.dify.swift_ring_info": {"report": {"ip": "", "devices": [], "hash": "", "rings": {}}},
    "sovereign.dify.swift_ring_plan": {"rings": {}, "changes": [], "notes": []},
    "sovereign.dify.unit_instances": {
        name: [] for name in ("removed", "enabled", "started", "restarted", "stale", "blocked", "undeclared", "in_the_way", "groups")
    },
    "sovereign.dify.wireguard_config": {"action": ""},
    "sovereign.dify.wireguard_info": {"kernel": True, "tun": True, "up": True, "peers": [], "silent": []},
}
"""What modules return beside ``changed: false`` where everything is as it is wanted."""


class UnansweredError(Exception):
    """Nobody has written an answer."""


def public_key(host: str) -> str:
    """Give what stands for the public key that a host has in the VPN."""
    return base64.b64encode(hashlib.sha256(host.encode()).digest()).decode()


class Host:
    """What a host answers with that is not the same on all.

    Attributes:
        name: Its name.
        address: Its address.
        state: The identity of the state directory that it is marked with.
        key: The digest of its public key.
    """

    def __init__(self, name: str, address: str, state: str, key: str) -> None:
        """Take what is known of it."""
        self.name, self.address, self.state, self.key = name, address, state, key
        self.machine_id = hashlib.sha256(name.encode()).hexdigest()[:32]

    def answer(self, module: str, arguments: Answer) -> Answer:
        """Give what a module returns.

        Raises:
            UnansweredError: nobody has written what.
        """
        if module in AS_WANTED:
            return {"changed": False, **AS_WANTED[module]}
        answer = getattr(self, module.rpartition(".")[2], None)
        if answer is None:
            raise UnansweredError(module)
        return {"changed": False, **answer(arguments)}

    def setup(self, arguments: Answer) -> Answer:
        """Give about as many facts as a server has, with eight disks and four network interfaces."""
        features = dict.fromkeys(("rx_checksumming", "tx_checksumming", "scatter_gather", "tcp_segmentation_offload", "rx_vlan_offload"), "on")
        links: dict[str, Answer] = {
            f"ens{number}": {
                "active": not number,
                "device": f"ens{number}",
                "features": features,
                "macaddress": f"02:00:00:00:00:0{number}",
                "mtu": 1500,
            }
            for number in range(4)
        }
        links["ens0"]["ipv4"] = {"address": self.address, "broadcast": "", "netmask": "255.255.0.0", "network": "10.0.0.0", "prefix": "16"}
        found = {
            **links,
            "lo": {"active": True, "device": "lo", "features": features, "ipv4": {"address": "127.0.0.1", "netmask": "255.0.0.0"}, "mtu": 65536},
            "all_ipv4_addresses": [self.address],
            "all_ipv6_addresses": [],
            "architecture": "x86_64",
            "default_ipv4": {"address": self.address, "interface": "ens0", "gateway": "10.0.0.1"},
            "devices": {
                f"nvme{number}n1": {"host": "", "model": "NVMe SSD 3.84TB", "partitions": {}, "rotational": "0", "size": "3.49 TB", "vendor": None}
                for number in range(8)
            },
            "distribution": "Debian",
            "distribution_major_version": "13",
            "distribution_release": "trixie",
            "distribution_version": "13.1",
            "env": {"HOME": "/root", "LANG": "C.UTF-8", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "PWD": "/root", "USER": "root"},
            "fqdn": self.name,
            "hostname": self.name,
            "interfaces": ["lo", *links],
            "kernel": "6.12.48+deb13-amd64",
            "local": {"sovereign": {"state": self.state}},
            "machine_id": self.machine_id,
            "memfree_mb": 480_000,
            "memtotal_mb": 515_000,
            "mounts": [
                {"mount": mount, "device": "/dev/nvme0n1p2", "fstype": "ext4", "options": "rw", "size_total": 900 * GIB, "size_available": 800 * GIB}
                for mount in ("/", "/var", "/srv")
            ],
            "os_family": "Debian",
            "pkg_mgr": "apt",
            "processor": [text for number in range(64) for text in (str(number), "GenuineIntel", "Intel(R) Xeon(R) Platinum 8462Y+")],
            "processor_vcpus": 64,
            "python": {"executable": "/usr/bin/python3.13", "type": "cpython", "version": {"major": 3, "minor": 13, "micro": 5}},
            "service_mgr": "systemd",
            "system": "Linux",
            "virtualization_role": "host",
            "virtualization_type": "kvm",
        }
        return {"ansible_facts": {f"ansible_{name}": value for name, value in found.items()}}

    def host_info(self, arguments: Answer) -> Answer:
        """Tell of a host with as many packages as one has, but with none of the roles': each of these asks once more."""
        return {
            "clock": time.time(),
            "before": arguments["before"],
            "packages": {f"package-{number}": "1.2.3-4+deb13u1" for number in range(500)},
            "held": [],
            "listening": [{"address": "0.0.0.0", "port": 22, "process": "sshd", "pid": 600, "unit": "ssh.service"}],  # noqa: S104
            "firewall": {},
            "machine_id": self.machine_id,
            "session": {"client": f"{self.address.rpartition('.')[0]}.254", "address": self.address, "port": 22},
        }

    def stat(self, arguments: Answer) -> Answer:
        """Find any file."""
        return {"stat": {"exists": True, "isreg": True, "isdir": False, "islnk": False, "path": arguments["path"], "mode": "0644"}}

    def command(self, arguments: Answer) -> Answer:
        """Run nothing, as check mode does; what is asked in check mode, too, is answered."""
        if arguments["_ansible_check_mode"]:
            return {"skipped": True, "rc": 0, "msg": "Command would have run if not in check mode"}
        words = " ".join(arguments.get("argv") or [arguments["_raw_params"]])
        podman = {"host": {"logDriver": "journald"}, "store": {"graphDriverName": "overlay", "graphRoot": "/var/lib/containers/storage"}}
        said = {
            "findmnt ": f"{64 * GIB}",
            "openssl pkey ": f"{self.key}  -",
            "sed --quiet ": "",
            "podman info ": json.dumps(podman),
            "getent passwd ": "dify_api:x:980:980::/nonexistent:/usr/sbin/nologin\ndify_api\ncompiled",
        }
        for part, text in said.items():
            if part in words:
                return {"changed": True, "rc": 0, "stdout": text, "stderr": "", "cmd": words}
        raise UnansweredError(words)

    def uri(self, arguments: Answer) -> Answer:
        """Answer as the services of this host."""
        path = arguments["url"].partition("//")[2].partition("/")[2]
        said: dict[str, Answer] = {
            "cluster": {"json": {"members": [{"name": self.name, "role": "leader"}]}},
            "primary": {},
            "generation": {"content": ""},
        }
        if path not in said:
            raise UnansweredError(arguments["url"])
        return {"status": 200, "url": arguments["url"], **said[path]}

    def gpu_info(self, arguments: Answer) -> Answer:
        """Tell of eight GPUs that NVLink connects."""
        return {
            "gpus": [
                {
                    "index": number,
                    "uuid": f"GPU-{self.machine_id}-{number}",
                    "name": "NVIDIA H200",
                    "memory_mib": 143_771,
                    "compute_capability": "9.0",
                }
                for number in range(8)
            ],
            "driver": {"version": "580.95.05", "library": "580.95.05"},
            "nvlink_groups": [list(range(8))],
            "reason": "",
            "problems": [],
        }

    def model_stage(self, arguments: Answer) -> Answer:
        """Have all models."""
        models = {
            model["name"]: {"path": f"{arguments['root']}/{model['name']}", "manifest": "", "manifest_sha256": "", "bytes": 0, "changed": False}
            for model in arguments["models"]
        }
        return {"models": models, "obsolete": [], "undeclared": []}

    def patroni_config(self, arguments: Answer) -> Answer:
        """Lead."""
        return {"leader": self.name, "members": [], "pending_restart": [], "unmanaged": [], "patch": {}}

    def wireguard_key(self, arguments: Answer) -> Answer:
        """Have a key."""
        return {"public_key": public_key(self.name)}


class Connection(ConnectionBase):
    """Answers."""

    transport = "canned"
    has_pipelining = True

    def _connect(self) -> Connection:
        self._connected = True
        return self

    def exec_command(self, cmd: str, in_data: bytes | None = None, sudoable: bool = True) -> tuple[int, bytes, bytes]:
        """Answer what would run on the host."""
        self._connect()
        if in_data is None:
            for pattern, printed in SHELL:
                if asked := pattern.search(cmd):
                    return 0, asked.expand(printed).encode(), b""
        named, given = NAMED.search(in_data or b""), GIVEN.search(in_data or b"")
        if not named or not given:
            raise AnsibleConnectionFailure(f"Nobody has written what a host answers to {cmd}")
        module = f"{(named['collection'] or b'ansible.builtin').decode()}.{named['name'].decode()}"
        arguments = json.loads(ast.literal_eval(given["text"].decode()))["ANSIBLE_MODULE_ARGS"]
        name, state, key = map(self.get_option, ("host", "state", "key"))
        host = Host(name, self._play_context.remote_addr, state, key)
        try:
            return 0, json.dumps(host.answer(module, arguments)).encode(), b""
        except UnansweredError as error:
            raise AnsibleConnectionFailure(f"Nobody has written what a host answers to {module}: {error}") from error

    def put_file(self, in_path: str, out_path: str) -> None:
        """Refuse: there is no host."""
        raise AnsibleConnectionFailure(f"There is no host to bring {in_path} to")

    def fetch_file(self, in_path: str, out_path: str) -> None:
        """Refuse: there is no host."""
        raise AnsibleConnectionFailure(f"There is no host to fetch {in_path} from")

    def close(self) -> None:
        """Have nothing to close."""
        self._connected = False
