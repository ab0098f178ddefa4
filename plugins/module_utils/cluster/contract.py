# SPDX-License-Identifier: GPL-3.0-or-later
"""The contract: the variables ``cluster``, ``site`` and ``node`` that roles read. Names, addresses and ports are written down only here."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

from ansible_collections.sovereign.dify.plugins.module_utils.cluster.addresses import Address
from ansible_collections.sovereign.dify.plugins.module_utils.cluster.groups import Groups
from ansible_collections.sovereign.dify.plugins.module_utils.cluster.hosts import Host
from ansible_collections.sovereign.dify.plugins.module_utils.cluster.levels import Level
from ansible_collections.sovereign.dify.plugins.module_utils.cluster.plan import Plan, instance_hosts, model_port, ports, reserved_ports
from ansible_collections.sovereign.dify.plugins.module_utils.cluster.spec import (
    DEFAULT_PRIORITY,
    DEFAULT_TIERS,
    DIFY_DEFAULT_HOSTS,
    IMAGE_ARCHIVES,
    ClientSpec,
    ClusterSpec,
    DifyImagesSpec,
    ImageSpec,
    SiteSpec,
)

ANYWHERE = ["0.0.0.0/0", "::/0"]
PRIVATE = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"]
EXTERNAL = {"postgresql": (5432, "patroni"), "redis": (6379, "redis"), "rabbitmq": (5671, "rabbitmq"), "object_storage": (443, "object_storage")}
"""Services that somebody else may run: the usual port, and the group that runs our own."""
_PKI = "/etc/sovereign/pki"
PKI = {
    name: f"{_PKI}/{file}"
    for name, file in (("ca", "ca.crt"), ("cert", "host.crt"), ("key", "host.key"), ("pem", "host.pem"), ("peers", "peers.crt"))
}
"""Where the role pki puts a host's certificates: its site's authority, its own certificate, its key, both in one file, its peers' authorities."""
TLS_VERSIONS = ("TLSv1.2", "TLSv1.3")
"""What servers and clients of the platform speak, the oldest first."""
TLS_CIPHERS = tuple(
    f"ECDHE-{signature}-{cipher}" for cipher in ("AES256-GCM-SHA384", "CHACHA20-POLY1305", "AES128-GCM-SHA256") for signature in ("ECDSA", "RSA")
)
"""Suites of TLS 1.2, by OpenSSL's names: forward secrecy and authenticated encryption (AEAD) alone. Erlang knows these names, too."""
TLS_CIPHERSUITES = ("TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256", "TLS_AES_128_GCM_SHA256")
"""Suites of TLS 1.3."""
MEMBER_PORTS = {
    "etcd": 2379,
    "etcd_peer": 2380,
    "postgresql": 5432,
    "patroni": 8008,
    "pgbouncer": 6432,
    "redis": 6379,
    "redis_sentinel": 26379,
    "rabbitmq": 5671,
    "object_storage": 6280,
}
"""Where members of the data tier listen at their own addresses. No key of the file sets them."""
_EGRESS = (("udp", [53], "DNS"), ("tcp", [53], "DNS"), ("udp", [123], "NTP"), ("tcp", [80, 443], "HTTP and HTTPS"))


class Member(TypedDict):
    """A host as another host of its site sees it."""

    name: str
    fqdn: str
    address: str
    wan_address: str | None
    vpn_address: str | None


class Server(TypedDict):
    """An instance of a model."""

    name: str
    fqdn: str
    address: str
    port: int


class Gateway(TypedDict):
    """A gateway of another site."""

    name: str
    fqdn: str
    site: str
    vpn_address: str


class PeerGateway(TypedDict):
    """A gateway of the peer under which it stands."""

    name: str
    fqdn: str
    vpn_address: str


class SiteModel(TypedDict):
    """A model as seen from a site."""

    classification: str
    max_model_len: int | None
    servers: list[Server]
    gateways: list[Gateway]


class Peer(TypedDict):
    """What a site's VPN listener offers another site."""

    gateways: list[PeerGateway]
    models: list[str]
    clients: list[str]


class Egress(TypedDict):
    """What hosts may open outwards."""

    to: list[str]
    protocol: str
    ports: list[int]
    comment: str


class Endpoint(TypedDict):
    """A service that somebody else runs."""

    host: str
    port: int
    tls: str
    read_host: str


class ObjectStorage(TypedDict):
    """Where applications of a site find S3."""

    endpoint: str
    tls_endpoint: str | None
    authority: str | None
    region: str
    addressing: str


class Image(TypedDict):
    """A container image. ``reference`` is what units run, whichever way it came."""

    reference: str
    name: str
    digest: str | None
    archive: str | None
    sha256: str | None


class Dify(TypedDict):
    """Dify at a site."""

    release: str
    images: dict[str, Image]
    services: dict[str, list[Member]]


class SiteVars(TypedDict):
    """The variable ``site``."""

    name: str
    clearance: str
    networks: list[str]
    admin_networks: list[str]
    client_networks: list[str]
    egress: list[Egress]
    entry: dict[str, Any]
    external: dict[str, Endpoint | None]
    object_storage: ObjectStorage
    images: dict[str, Any]
    dify: Dify | None
    members: dict[str, list[Member]]
    models: dict[str, SiteModel]
    peers: dict[str, Peer]
    clients: dict[str, dict[str, Any]]


class VpnPeer(TypedDict):
    """A WireGuard peer."""

    name: str
    fqdn: str
    site: str
    vpn_address: str
    endpoint: str | None
    pair: str


class Instance(TypedDict):
    """A vLLM instance on a host. ``nodes`` are the hosts that it is spread over, ``rank`` is this one's place among them; the first answers."""

    name: str
    port: int
    source: str
    tensor_parallel: int
    pipeline_parallel: int
    rank: int
    nodes: list[Member]
    gpus: list[int]
    quantization: str | None
    dtype: str
    max_model_len: int | None
    manifest_sha256: str | None
    extra_args: Mapping[str, Any]


class NodeVars(TypedDict):
    """The variable ``node``."""

    name: str
    fqdn: str
    site: str
    address: str
    wan_address: str | None
    vpn_address: str | None
    gpus: int
    groups: list[str]
    vpn_peers: list[VpnPeer]
    models: list[Instance]


class Tls(TypedDict):
    """How servers and clients speak TLS. ``versions`` begins with the oldest, ``ciphers`` are of TLS 1.2, ``ciphersuites`` of TLS 1.3."""

    versions: list[str]
    ciphers: list[str]
    ciphersuites: list[str]


class ClusterVars(TypedDict):
    """The variable ``cluster``."""

    name: str
    domain: str
    file: str
    state_dir: str
    pki: dict[str, str]
    ports: dict[str, Any]
    vpn: dict[str, Any] | None
    tls: Tls
    tiers: dict[str, dict[str, int | None]]
    max_body_bytes: int
    sites: dict[str, dict[str, Any]]
    models: dict[str, dict[str, Any]]
    clients: dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Contract:
    """The contract of a whole cluster, ready to be set as variables."""

    cluster: ClusterVars
    sites: Mapping[str, SiteVars]
    nodes: Mapping[str, NodeVars]
    hosts: tuple[Host, ...]
    groups: tuple[str, ...]
    """All that exist, those of ``extra_groups`` too."""


def site_group(site: str) -> str:
    """Name of the group that holds a site's hosts."""
    return f"site_{site.replace('-', '_')}"


def entry_name(spec: ClusterSpec, site: str) -> str:
    """DNS name at which the clients of a site connect."""
    entry = spec.sites[site].entry
    return entry.name if entry and entry.name else f"ai.{site}.{spec.domain}"


def _texts(values: Iterable[object]) -> list[str]:
    return [str(value) for value in values]


def _or_none(address: Address | None) -> str | None:
    return str(address) if address else None


class _Builder:
    """Writes the contract of a plan without mistakes."""

    def __init__(self, plan: Plan, groups: Groups, file: Path) -> None:
        self.plan = plan
        self.spec = plan.spec
        self.groups = groups
        self.file = file
        self.platform_ports = ports(self.spec)
        reserved = reserved_ports(self.spec)
        self.ports = {name: model_port(name, model, reserved) for name, model in self.spec.models.items()}

    def build(self) -> Contract:
        return Contract(
            cluster=self.cluster(),
            sites={name: self.site(name, site) for name, site in self.spec.sites.items()},
            nodes={host.name: self.node(host) for host in self.plan.hosts},
            hosts=tuple(self.plan.hosts),
            groups=tuple(self.groups),
        )

    def cluster(self) -> ClusterVars:
        return {
            "name": self.spec.name,
            "domain": self.spec.domain,
            "file": str(self.file),
            "state_dir": self.path(self.spec.state_dir),
            "pki": {"directory": _PKI, **PKI},
            "ports": {**self.platform_ports, "members": MEMBER_PORTS},
            "vpn": self.vpn(),
            "tls": {"versions": list(TLS_VERSIONS), "ciphers": list(TLS_CIPHERS), "ciphersuites": list(TLS_CIPHERSUITES)},
            "tiers": self.tiers(),
            "max_body_bytes": self.spec.max_body_bytes,
            "sites": {
                name: {
                    "clearance": str(site.clearance),
                    "group": site_group(name),
                    "networks": _texts(site.networks),
                    "hub": name in self.plan.hubs,
                }
                for name, site in self.spec.sites.items()
            },
            "models": {
                name: {
                    "classification": str(model.classification),
                    "sites": sorted(self.plan.model_sites[name]),
                    "callable_from": sorted(self.plan.routes[name]),
                    "hosts": list(model.hosts),
                }
                for name, model in self.spec.models.items()
            },
            "clients": {name: {"sites": list(client.sites), **self.client(client)} for name, client in self.spec.clients.items()},
        }

    def path(self, given: str) -> str:
        """Resolve a path of the file, from its directory."""
        return os.path.normpath(self.file.parent / given)

    def vpn(self) -> dict[str, Any] | None:
        vpn = self.spec.vpn
        if vpn is None or vpn.cidr is None:
            return None
        return {
            "cidr": str(vpn.cidr),
            "prefix": vpn.cidr.prefix,
            "port": vpn.port,
            "interface": vpn.interface,
            "mtu": vpn.mtu,
            "keepalive": vpn.keepalive,
        }

    def tiers(self) -> dict[str, dict[str, int | None]]:
        tiers = {}
        for name, tier in {**DEFAULT_TIERS, **self.spec.tiers}.items():
            # Who gives the VIPs other limits does not mean to send them to the end of the queue.
            usual = DEFAULT_TIERS[name].priority if name in DEFAULT_TIERS else DEFAULT_PRIORITY
            tiers[name] = {"rate": tier.rate, "burst": tier.burst, "priority": usual if tier.priority is None else tier.priority}
        return tiers

    def site(self, name: str, site: SiteSpec) -> SiteVars:
        members = {host.name: self.member(host) for host in self.plan.hosts if host.site == name}
        return {
            "name": name,
            "clearance": str(site.clearance),
            "networks": _texts(site.networks),
            "admin_networks": ANYWHERE if site.admin_networks is None else _texts(site.admin_networks),
            "client_networks": ANYWHERE if site.client_networks is None else _texts(site.client_networks),
            "egress": self.egress(site),
            "entry": {
                "name": entry_name(self.spec, name),
                "port": site.entry.port if site.entry else 443,
                "address": _or_none(site.entry.address) if site.entry else None,
            },
            "external": self.external(site),
            "object_storage": self.object_storage(site),
            "images": {"mirror": site.images.mirror if site.images else None},
            "dify": self.dify(name, site, members),
            "members": {group: [members[host.name] for host in self.plan.members(name, group)] for group in self.groups},
            "models": {model: self.site_model(model, name) for model in self.spec.models if name in self.plan.routes[model]},
            "peers": {peer: self.peer(name, peer) for peer in self.plan.peer_sites(name) if self.plan.gateways(peer)},
            "clients": {client: self.client(spec) for client, spec in self.spec.clients.items() if name in spec.sites},
        }

    def egress(self, site: SiteSpec) -> list[Egress]:
        if site.egress is not None:
            return [
                {"to": _texts(rule.to), "protocol": str(rule.protocol), "ports": list(rule.ports), "comment": rule.comment} for rule in site.egress
            ]
        # A restricted site reaches nothing outside by default: mirrors, name and time servers are its own.
        to = [*PRIVATE, *_texts(site.networks)] if site.clearance == Level.RESTRICTED else ANYWHERE
        return [{"to": list(to), "protocol": protocol, "ports": list(ports), "comment": comment} for protocol, ports, comment in _EGRESS]

    def external(self, site: SiteSpec) -> dict[str, Endpoint | None]:
        found: dict[str, Endpoint | None] = {}
        for name, (port, dummy) in EXTERNAL.items():
            spec = getattr(site.external, name, None)
            if spec is None:
                found[name] = None
            else:
                host = str(spec.host)
                found[name] = {
                    "host": host,
                    "port": spec.port or port,
                    "tls": getattr(spec, "tls", "client"),
                    "read_host": getattr(spec, "read_host", None) or host,
                }
        return found

    def object_storage(self, site: SiteSpec) -> ObjectStorage:
        spec = site.external.object_storage if site.external else None
        if spec is None:
            local = self.platform_ports["local"]
            return {
                "endpoint": f"http://127.0.0.1:{local['object_storage']}",
                "tls_endpoint": f"https://127.0.0.1:{local['object_storage_tls']}",
                "authority": PKI["ca"],
                "region": "us-east-1",
                "addressing": "path",
            }
        # Through a proxy under another name it would refuse what its clients have signed.
        scheme, usual = ("http", 80) if spec.tls == "none" else ("https", 443)
        port = spec.port or EXTERNAL["object_storage"][0]
        endpoint = f"{scheme}://{spec.host}" + ("" if port == usual else f":{port}")
        return {
            "endpoint": endpoint,
            "tls_endpoint": endpoint if scheme == "https" else None,
            "authority": None,
            "region": spec.region,
            "addressing": spec.addressing,
        }

    def dify(self, name: str, site: SiteSpec, members: Mapping[str, Member]) -> Dify | None:
        spec = site.dify
        if spec is None:
            return None
        return {
            "release": str(spec.release),
            "images": {field.name: self.image(getattr(spec.images, field.name), site) for field in dataclasses.fields(DifyImagesSpec)},
            "services": {service: [members[host.name] for host in self.plan.dify_hosts(name, service)] for service in DIFY_DEFAULT_HOSTS},
        }

    def image(self, image: ImageSpec, site: SiteSpec) -> Image:
        archives = site.images.archives if site.images else IMAGE_ARCHIVES
        # What was loaded from an archive has no digest of a registry: its tag bears that of the archive instead.
        loaded = f"localhost/{str(image.name).rpartition('/')[2]}:sha256-{image.sha256}"
        return {
            "reference": f"{image.name}@{image.digest}" if image.digest else loaded,
            "name": str(image.name),
            "digest": image.digest,
            "archive": self.path(f"{archives}/{image.archive}") if image.archive else None,
            "sha256": image.sha256,
        }

    def client(self, client: ClientSpec) -> dict[str, Any]:
        return {"models": list(client.models), "tier": client.tier}

    def member(self, host: Host) -> Member:
        return {
            "name": host.name,
            "fqdn": host.fqdn,
            "address": str(host.address),
            "wan_address": _or_none(host.wan_address),
            "vpn_address": _or_none(host.vpn_address),
        }

    def site_model(self, model: str, site: str) -> SiteModel:
        route = self.plan.routes[model][site]
        return {
            "classification": str(self.spec.models[model].classification),
            "max_model_len": self.spec.models[model].max_model_len,
            "servers": [{"name": host.name, "fqdn": host.fqdn, "address": str(host.address), "port": self.ports[model]} for host in route.servers],
            "gateways": [{"name": host.name, "fqdn": host.fqdn, "site": host.site, "vpn_address": str(host.vpn_address)} for host in route.gateways],
        }

    def peer(self, site: str, peer: str) -> Peer:
        models = [name for name, sites in self.plan.model_sites.items() if site in sites and peer in self.plan.routes[name]]
        return {
            "gateways": [{"name": host.name, "fqdn": host.fqdn, "vpn_address": str(host.vpn_address)} for host in self.plan.gateways(peer)],
            "models": models,
            "clients": [name for name, client in self.spec.clients.items() if peer in client.sites and set(client.models) & set(models)],
        }

    def node(self, host: Host) -> NodeVars:
        gpus = self.plan.gpus(host)
        return {
            "name": host.name,
            "fqdn": host.fqdn,
            "site": host.site,
            "address": str(host.address),
            "wan_address": _or_none(host.wan_address),
            "vpn_address": _or_none(host.vpn_address),
            "gpus": host.gpus or 0,
            "groups": sorted(host.groups),
            "vpn_peers": [self.vpn_peer(host, peer) for peer in self.plan.vpn_peers(host)],
            "models": [self.instance(name, host, gpus[name]) for name in self.plan.host_models.get(host.name, [])],
        }

    def vpn_peer(self, host: Host, peer: Host) -> VpnPeer:
        port = self.spec.vpn.port if self.spec.vpn else 0
        return {
            "name": peer.name,
            "fqdn": peer.fqdn,
            "site": peer.site,
            "vpn_address": str(peer.vpn_address),
            "endpoint": peer.wan_address.endpoint(port) if peer.wan_address else None,
            "pair": "--".join(sorted((host.name, peer.name))),
        }

    def instance(self, name: str, host: Host, gpus: list[int]) -> Instance:
        model = self.spec.models[name]
        nodes = next(group for group in instance_hosts(model) if host.name in group)
        return {
            "name": name,
            "port": self.ports[name],
            "source": model.source,
            "tensor_parallel": model.tensor_parallel,
            "pipeline_parallel": model.pipeline_parallel,
            "rank": nodes.index(host.name),
            "nodes": [self.member(self.plan.host[node]) for node in nodes],
            "gpus": gpus,
            "quantization": model.quantization,
            "dtype": model.dtype,
            "max_model_len": model.max_model_len,
            "manifest_sha256": model.manifest_sha256,
            "extra_args": model.extra_args,
        }


def build(plan: Plan, groups: Groups, file: Path) -> Contract:
    """Write the contract of a plan that has no mistakes and was read from ``file``; relative paths in it start from the file's directory."""
    return _Builder(plan, groups, file).build()
