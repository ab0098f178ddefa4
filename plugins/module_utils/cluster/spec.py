# SPDX-License-Identifier: GPL-3.0-or-later
# ruff: noqa: RUF009 (`key` wraps `dataclasses.field`)
"""Every key of a cluster file, declared once.

Validation, docs/cluster.md, docs/cluster.schema.json and the plugin's documentation all come from these declarations. A scalar may be ``None`` and a
container empty even where the key is required: then its mistake has already been reported.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ansible_collections.sovereign.dify.plugins.module_utils.cluster.addresses import Address, Network
from ansible_collections.sovereign.dify.plugins.module_utils.cluster.kinds import (
    Choice,
    EngineArguments,
    Free,
    ListOf,
    MapOf,
    Scale,
    Text,
    Whole,
    ip_address,
    ip_network,
)
from ansible_collections.sovereign.dify.plugins.module_utils.cluster.levels import Level
from ansible_collections.sovereign.dify.plugins.module_utils.cluster.sections import Section, key
from ansible_collections.sovereign.dify.plugins.module_utils.dify_release import RELEASES

PLUGIN = "sovereign.dify.cluster"
MODEL_PORTS = range(8100, 8900)
BASE_GROUPS = ("baseline", "pki", "firewall")
IMAGE_ARCHIVES = "images"
"""Directory of image archives beside the cluster file."""

_LABEL = r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"

SITE_NAME = Text("site name", r"[a-z][a-z0-9-]*", "use lower-case letters, digits and '-', starting with a letter")
HOST_NAME = Text("host name", rf"(?=.{{1,253}}$){_LABEL}(\.{_LABEL})*", "use letters, digits and '-' as in DNS (RFC 1123)")
MODEL_NAME = Text("model name", r"[a-z0-9][a-z0-9._-]*", "use lower-case letters, digits, '.', '_' and '-', starting with a letter or digit")
CLIENT_NAME = Text("client name", r"[a-z0-9][a-z0-9._-]*", "use lower-case letters, digits, '.', '_' and '-', starting with a letter or digit")
TIER_NAME = Text("tier name", r"[a-z][a-z0-9_-]*", "use lower-case letters, digits, '_' and '-', starting with a letter")
# References: whether the name exists is the better question than whether it is well formed.
SITE, HOST, MODEL, TIER, GROUP = (Text(f"{what} name") for what in ("site", "host", "model", "tier", "group"))
VARIABLE = Text("variable name", r"[A-Za-z_][A-Za-z0-9_]*", "use letters, digits and '_'")
DNS_NAME = Text(
    "DNS name", rf"(?=.{{1,253}}$){_LABEL}(\.{_LABEL})*", "use labels of letters, digits and '-', joined by single dots, no dot at either end"
)
ABSOLUTE_PATH = Text("absolute path", r"/[^\n]*", "start it with '/'")


_OWN_VARIABLES = dict.fromkeys(("cluster", "site", "node"), (None, "the inventory computes it"))


@dataclass(frozen=True)
class VpnSpec:
    """The WireGuard network between the sites."""

    cidr: Network | None = key(ip_network(), "Network of the VPN addresses; apart from every site network.", required=True)
    port: int = key(Whole(1, 65535), "UDP port of every gateway.", default=51820)
    interface: str = key(
        Text("interface name", r"[A-Za-z][A-Za-z0-9_-]{0,14}", "use at most 15 letters, digits, '_' and '-'"), "Interface name.", default="wg0"
    )
    mtu: int = key(Whole(1280, 9000), "MTU inside the VPN.", default=1420)
    keepalive: int = key(Whole(0, 65535), "Seconds between keepalives, so that NAT on the way keeps its state; 0 sends none.", default=25)
    hubs: tuple[str, ...] | None = key(
        ListOf(SITE, 1),
        "Sites whose gateways peer with those of all other sites; the others meet only hubs.",
        shown="the sites of the highest clearance that have gateways",
    )


@dataclass(frozen=True)
class EgressSpec:
    """One thing that the hosts of a site may open outwards."""

    to: tuple[Network, ...] = key(ListOf(ip_network(), 1), "Destination networks.", required=True)
    protocol: str | None = key(Choice(("tcp", "udp"), "protocol"), "Transport protocol.", required=True)
    ports: tuple[int, ...] = key(ListOf(Whole(1, 65535), 1), "Destination ports.", required=True)
    comment: str = key(Text("comment"), "What it is for; lands in the rule set.", default="")


@dataclass(frozen=True)
class EntrySpec:
    """Where the clients of a site connect."""

    name: str | None = key(DNS_NAME, "DNS name of the entry.", shown="`ai.<site>.<domain>`")
    port: int = key(Whole(1, 65535), "TCP port of the entry.", default=443)
    address: Address | None = key(ip_address(), "Virtual address of the entry, held by one host of the group `keepalived` at a time.")


def _port(default: int, meaning: str) -> Any:  # noqa: ANN401 - as `key`
    """Declare a port."""
    return key(Whole(1, 65535), meaning, default=default)


@dataclass(frozen=True)
class LocalPortsSpec:
    """Ports on 127.0.0.1 of each host in the group `service_proxy`, at which its programs find the data services."""

    postgresql: int = _port(5432, "PostgreSQL, for reading and writing.")
    postgresql_read: int = _port(5433, "PostgreSQL, for reading alone.")
    pgpool: int = _port(5434, "Pgpool-II, where the host has it.")
    pgbouncer: int = _port(6432, "PgBouncer, for reading and writing.")
    pgbouncer_read: int = _port(6433, "PgBouncer, for reading alone.")
    redis: int = _port(6379, "Redis.")
    rabbitmq: int = _port(5672, "RabbitMQ.")
    object_storage: int = _port(9000, "S3.")
    object_storage_tls: int = _port(9001, "S3 with TLS, for clients that insist on it.")


@dataclass(frozen=True)
class DifyPortsSpec:
    """Ports of Dify's services on its hosts' addresses, with mutual TLS."""

    api: int = _port(9441, "The api.")
    websocket: int = _port(9442, "The web sockets.")
    web: int = _port(9443, "The pages.")
    plugin_daemon: int = _port(9444, "The plugin daemon, for Dify's other hosts.")
    webhooks: int = _port(9446, "The plugin daemon's webhooks, for the entry.")


@dataclass(frozen=True)
class PortsSpec:
    """Ports that more than one role has to know."""

    model_gateway: int = _port(8443, "The model gateway, for its own site.")
    model_gateway_vpn: int = _port(8444, "The model gateway, at its VPN address, for those of other sites.")
    model_gateway_metrics: int = _port(8405, "The model gateway's metrics, on 127.0.0.1.")
    exporters: int = _port(9447, "The hosts' exporters, for Prometheus.")
    prometheus: int = _port(9090, "Prometheus.")
    alertmanager: int = _port(9093, "Alertmanager.")
    alertmanager_cluster: int = _port(9094, "Alertmanager's members among each other.")
    grafana: int = _port(3000, "Grafana.")
    status_page: int = _port(9448, "The status page.")
    log_store: int = _port(9449, "The log store.")
    local: LocalPortsSpec | None = key(Section(LocalPortsSpec, "local port"), LocalPortsSpec.__doc__ or "")
    dify: DifyPortsSpec | None = key(Section(DifyPortsSpec, "port of Dify"), DifyPortsSpec.__doc__ or "")


@dataclass(frozen=True)
class HostSpec:
    """One host. Group name = role name = feature switch."""

    address: Address | None = key(ip_address(), "Address in the site; also `ansible_host` unless that is set.", required=True)
    wan_address: Address | None = key(ip_address(), "Address at which gateways of other sites reach this host.")
    vpn_address: Address | None = key(ip_address(), "Address in the VPN; needed with the group `wireguard`, refused without it.")
    groups: tuple[str, ...] = key(ListOf(GROUP), "Groups besides `base_groups`.", default=())
    gpus: int | None = key(
        Whole(0, 64), "Number of GPUs. When given, models get disjoint GPUs in file order, and their number is checked.", shown="unknown"
    )
    vars: Mapping[str, Any] = key(Free("host variables", _OWN_VARIABLES), "Any further variables of the host.", default={})


@dataclass(frozen=True)
class HostsFromSpec:
    """Hosts that an inventory source loaded earlier has already declared."""

    group: str = key(GROUP, "Existing group whose hosts join the site.", required=True)
    address_var: str = key(VARIABLE, "Variable of those hosts that holds `address`.", default="ansible_host")
    wan_address_var: str | None = key(VARIABLE, "Variable that holds `wan_address`.", shown="none have one")
    vpn_address_var: str | None = key(VARIABLE, "Variable that holds `vpn_address`.", shown="none have one")
    groups: tuple[str, ...] = key(ListOf(GROUP), "Groups besides `base_groups`.", default=())


@dataclass(frozen=True)
class EndpointSpec:
    """A service that somebody else runs."""

    host: str | None = key(DNS_NAME, "Name or address of the service; its certificate must bear it.", required=True)
    port: int | None = key(Whole(1, 65535), "TCP port.", shown="the service's usual one")


@dataclass(frozen=True)
class TlsEndpointSpec(EndpointSpec):
    """One to which the proxy on each host may speak TLS for its clients."""

    tls: str = key(
        Choice(("proxy", "client", "none"), "way of TLS"),
        "Who speaks TLS to it: the `proxy` on each host, the `client` itself through the proxy, or `none`.",
        default="proxy",
    )


@dataclass(frozen=True)
class PostgresqlEndpointSpec(EndpointSpec):
    """A PostgreSQL that somebody else runs. Its clients speak TLS to it themselves."""

    read_host: str | None = key(DNS_NAME, "Name or address for reading alone.", shown="`host`")


@dataclass(frozen=True)
class ObjectStorageEndpointSpec(EndpointSpec):
    """An S3 that somebody else runs. Its clients talk to it themselves: they sign the name that they talk to."""

    tls: str = key(Choice(("client", "none"), "way of TLS"), "Whether the `client` speaks TLS to it, or nobody (`none`).", default="client")
    region: str = key(
        Text("region", r"[a-z0-9][a-z0-9-]*", "use lower-case letters, digits and '-'"), "Region that requests are signed for.", default="us-east-1"
    )
    addressing: str = key(
        Choice(("host", "path"), "way of addressing"), "Where a request names its bucket: in the `host` name, or in the `path`.", default="host"
    )


@dataclass(frozen=True)
class ExternalSpec:
    """Data services that a site uses instead of its own (managed ones: RDS, OSS and the like)."""

    postgresql: PostgresqlEndpointSpec | None = key(Section(PostgresqlEndpointSpec, "endpoint"), "PostgreSQL, in place of the group `patroni`.")
    redis: TlsEndpointSpec | None = key(Section(TlsEndpointSpec, "endpoint"), "Redis, in place of the group `redis`.")
    rabbitmq: TlsEndpointSpec | None = key(Section(TlsEndpointSpec, "endpoint"), "RabbitMQ, in place of the group `rabbitmq`.")
    object_storage: ObjectStorageEndpointSpec | None = key(
        Section(ObjectStorageEndpointSpec, "endpoint"), "S3 (OSS and the like), in place of the group `object_storage`."
    )


@dataclass(frozen=True)
class ImagesSpec:
    """Where the container images of a site come from."""

    mirror: str | None = key(
        Text("registry", r"[A-Za-z0-9.-]+(:[0-9]+)?(/[a-z0-9._/-]+)?", "give a host, with a port and a path where it has them, and no scheme"),
        "Registry that is asked in place of all others: `<mirror>/<path of the image>`.",
        shown="each image's own registry",
    )
    archives: str = key(
        Text("path"), "Directory on the controller of the archives that images are loaded from; relative to the file.", default=IMAGE_ARCHIVES
    )


@dataclass(frozen=True)
class ImageSpec:
    """One image, pinned: either by `digest`, or as an `archive` with its checksum."""

    name: str | None = key(
        Text(
            "image name",
            r"[a-z0-9.-]+(:[0-9]+)?(/[a-z0-9][a-z0-9._-]*)+",
            "give registry and path without a tag, as in docker.io/langgenius/dify-api",
        ),
        "Registry and path.",
        required=True,
    )
    digest: str | None = key(
        Text("digest", r"sha256:[0-9a-f]{64}", "give sha256: and 64 lower-case hexadecimal digits"),
        "Digest that it is pulled by, whatever its tags say.",
    )
    archive: str | None = key(Text("path"), "File in the directory of archives, as `podman save` writes it, in place of a registry.")
    sha256: str | None = key(Text("SHA-256 digest", r"[0-9a-f]{64}", "give 64 lower-case hexadecimal digits"), "Digest of that file.")


_IMAGE = Section(ImageSpec, "image", {"tag": ("digest", "a tag may point to something else tomorrow"), "image": ("name", "the image without a tag")})


@dataclass(frozen=True)
class DifyImagesSpec:
    """The images of a release."""

    api: ImageSpec | None = key(_IMAGE, "Of api, workers and beat (`langgenius/dify-api`).", required=True)
    web: ImageSpec | None = key(_IMAGE, "Of the web console (`langgenius/dify-web`).", required=True)
    plugin_daemon: ImageSpec | None = key(
        _IMAGE, "Of the plugin daemon (`langgenius/dify-plugin-daemon`, a tag that ends in `-local`).", required=True
    )
    sandbox: ImageSpec | None = key(_IMAGE, "Of the sandbox (`langgenius/dify-sandbox`).", required=True)
    ssrf_proxy: ImageSpec | None = key(_IMAGE, "Of the proxy that the code of users goes out through (`ubuntu/squid`).", required=True)


@dataclass(frozen=True)
class DifySpec:
    """Dify at a site: its release, and which hosts of the group `dify` run what. Each of them runs a sandbox and its proxy."""

    release: str | None = key(Choice(tuple(RELEASES), "release"), "Release.", required=True)
    images: DifyImagesSpec | None = key(Section(DifyImagesSpec, "images of Dify"), "The images of the release.", required=True)
    api: tuple[str, ...] | None = key(ListOf(HOST, 1), "Hosts of the api.", shown="all hosts of the group `dify`")
    websocket: tuple[str, ...] | None = key(ListOf(HOST, 1), "Hosts of the api's processes for WebSocket.", shown="those of `api`")
    worker: tuple[str, ...] | None = key(ListOf(HOST, 1), "Hosts of the workers; each runs every pool.", shown="all hosts of the group `dify`")
    beat: tuple[str, ...] | None = key(ListOf(HOST, 1), "Hosts one of which runs beat.", shown="those of `worker`")
    plugin_daemon: tuple[str, ...] | None = key(ListOf(HOST, 1), "Hosts one of which runs the plugin daemon.", shown="those of `api`")
    web: tuple[str, ...] | None = key(ListOf(HOST, 1), "Hosts of the web console.", shown="those of `api`")


DIFY_DEFAULT_HOSTS = {"api": "", "websocket": "api", "worker": "", "beat": "worker", "plugin_daemon": "api", "web": "api"}
"""Services of Dify that are placed, and the one whose hosts they have where they are not; nothing means all hosts of the group."""


@dataclass(frozen=True)
class SiteSpec:
    """A place with hosts, on premises or cloud."""

    clearance: Level | None = key(Scale(), "Highest classification that may be placed on, or called from, the site.", required=True)
    networks: tuple[Network, ...] = key(
        ListOf(ip_network()), "LAN networks. When given, every `address` of the site must lie in one of them.", default=()
    )
    admin_networks: tuple[Network, ...] | None = key(
        ListOf(ip_network(), 1),
        "Networks that may open SSH: administrators', and the controller's or its jump host's. Required on sites above `public`.",
        shown="any on `public` sites",
    )
    client_networks: tuple[Network, ...] | None = key(ListOf(ip_network()), "Networks that may open the entry.", shown="any")
    egress: tuple[EgressSpec, ...] | None = key(
        ListOf(Section(EgressSpec, "egress rule")),
        "What hosts may open outwards.",
        shown="DNS, NTP, HTTP and HTTPS: to anywhere, but on `restricted` sites only to private ranges and the site's own `networks`",
    )
    entry: EntrySpec | None = key(Section(EntrySpec, "entry"), "Where the clients of the site connect.")
    external: ExternalSpec | None = key(
        Section(ExternalSpec, "external services", {"postgres": ("postgresql", "the service's full name")}),
        "Data services of others that the site uses instead of its own.",
    )
    images: ImagesSpec | None = key(Section(ImagesSpec, "sources of images"), "Where container images come from.")
    dify: DifySpec | None = key(
        Section(
            DifySpec,
            "Dify",
            {
                "version": ("release", "the word for it"),
                "workers": ("worker", "services have their own names"),
                "scheduler": ("beat", "services have their own names"),
                "daemon": ("plugin_daemon", "services have their own names"),
                "sandbox": (None, "it runs on every host of the group `dify`"),
                "replicas": (None, "how many processes a host runs is set by the role's variables `dify_api` and `dify_worker_pools`"),
            },
        ),
        "Dify on the hosts of the group `dify`.",
    )
    hosts: Mapping[str, HostSpec] = key(
        MapOf(
            HOST_NAME,
            Section(
                HostSpec,
                "host",
                {
                    "ip": ("address", "one word for addresses"),
                    "ansible_host": ("address", "it is set from `address`; put another one under `vars`"),
                    "private_ip": ("address", "one word for addresses"),
                    "public_ip": ("wan_address", "the address that gateways of other sites see"),
                    "vpn_ip": ("vpn_address", "one word for addresses"),
                    "roles": ("groups", "a group switches the role of the same name on"),
                    "gpu_count": ("gpus", "the number of GPUs"),
                    "models": (None, "a model names its hosts, not the host its models"),
                },
            ),
        ),
        "The hosts of the site.",
        default={},
    )
    hosts_from: tuple[HostsFromSpec, ...] = key(
        ListOf(Section(HostsFromSpec, "earlier group")), "Hosts taken over from inventory sources that were loaded earlier.", default=()
    )


@dataclass(frozen=True)
class ModelSpec:
    """One model and where it runs. Its port is 8100 + crc32(name) % 800, so that adding a model moves no other."""

    classification: Level | None = key(Scale(), "Least clearance of sites that hold or call it.", required=True)
    source: str = key(ABSOLUTE_PATH, "Directory of the weights on the hosts.", required=True)
    hosts: tuple[str, ...] = key(ListOf(HOST, 1), "Hosts in the group `vllm` that serve it.", required=True)
    tensor_parallel: int = key(Whole(1, 64), "GPUs over which each layer of an instance is split.", default=1)
    pipeline_parallel: int = key(Whole(1, 64), "Stages, each with layers of its own and `tensor_parallel` GPUs, of one instance.", default=1)
    nodes: int = key(
        Whole(1, 64),
        "Hosts that one instance is spread over: `hosts` are taken in groups of this many, in their order, and the first of each group answers.",
        default=1,
    )
    callable_from: tuple[str, ...] | None = key(
        ListOf(SITE, 1),
        "Sites that may call it; narrows, never widens. The sites that host it are always among them.",
        shown="every site of enough clearance",
    )
    port: int | None = key(Whole(MODEL_PORTS[0], MODEL_PORTS[-1]), "Port of its instances.", shown="derived from the name")
    quantization: str | None = key(
        Choice(
            (
                "awq",
                "awq_marlin",
                "auto-round",
                "bitsandbytes",
                "compressed-tensors",
                "experts_int8",
                "fbgemm_fp8",
                "fp8",
                "gguf",
                "gptq",
                "gptq_marlin",
                "hqq",
                "modelopt",
                "modelopt_fp4",
                "moe_wna16",
                "mxfp4",
                "ptpc_fp8",
                "quark",
                "torchao",
            ),
            "quantization",
        ),
        "Quantization, in vLLM's words.",
        shown="what the model's own configuration says",
    )
    dtype: str = key(Choice(("auto", "float16", "bfloat16", "float32"), "dtype"), "Type of weights and activations.", default="auto")
    max_model_len: int | None = key(Whole(1), "Longest context in tokens.", shown="the model's own")
    manifest_sha256: str | None = key(
        Text("SHA-256 digest", r"[0-9a-f]{64}", "give 64 lower-case hexadecimal digits"),
        "Digest of the manifest of the weights.",
        shown="not checked",
    )
    extra_args: Mapping[str, Any] = key(EngineArguments(), "Further arguments of `vllm serve`, without the leading dashes.", default={})


@dataclass(frozen=True)
class ClientSpec:
    """An API client, its home sites and the models that it may call."""

    sites: tuple[str, ...] = key(ListOf(SITE, 1), "Home sites, where it connects.", required=True)
    models: tuple[str, ...] = key(ListOf(MODEL, 1), "Models that it may call; each must be callable from every home site.", required=True)
    tier: str = key(TIER, "Its tier.", default="standard")


@dataclass(frozen=True)
class TierSpec:
    """Limits of the clients of one tier, and when it is their turn."""

    rate: int | None = key(Whole(1), "Requests per second and key.", required=True)
    burst: int | None = key(Whole(1), "Requests above the rate that are let through at once.", required=True)
    priority: int | None = key(
        Whole(0, 9), "Turn in the queue of a busy model server; 0 comes first, and within one priority who came first.", shown="`vip`: 0, others: 5"
    )


DEFAULT_TIERS = {"vip": TierSpec(rate=50, burst=100, priority=0), "standard": TierSpec(rate=10, burst=20, priority=5)}
DEFAULT_PRIORITY = DEFAULT_TIERS["standard"].priority


_MODEL_SECTION = Section(
    ModelSpec,
    "model",
    {
        "tensor_parallel_size": ("tensor_parallel", "the option of vLLM under a shorter name"),
        "tp": ("tensor_parallel", "written out"),
        "pipeline_parallel_size": ("pipeline_parallel", "the option of vLLM under a shorter name"),
        "pp": ("pipeline_parallel", "written out"),
        "nnodes": ("nodes", "the option of vLLM, written out"),
        "path": ("source", "the directory of the weights"),
        "model": ("source", "the directory of the weights"),
        "allowed_sites": ("callable_from", "the word that says what is allowed"),
        "sites": ("hosts", "a model names the hosts that serve it; its sites follow from them"),
        "trust_remote_code": (None, "code that comes with weights is never run, by policy"),
        "gpu_ids": (None, "GPUs are allocated from the host's `gpus`"),
    },
)


@dataclass(frozen=True)
class ClusterSpec:
    """The whole file."""

    plugin: str = key(Choice((PLUGIN,), "plugin"), "Says that this file is read by this plugin.", required=True)
    name: str = key(
        Text("cluster name", r"[a-z0-9][a-z0-9-]*", "use lower-case letters, digits and '-'"),
        "Name of the cluster; part of the CA's name.",
        required=True,
    )
    domain: str = key(DNS_NAME, "DNS domain of the cluster: a host's full name is `<host>.<domain>`.", required=True)
    sites: Mapping[str, SiteSpec] = key(MapOf(SITE_NAME, Section(SiteSpec, "site"), 1), "The sites.", required=True)
    vpn: VpnSpec | None = key(
        Section(VpnSpec, "VPN", {"subnet": ("cidr", "the network of the VPN"), "network": ("cidr", "the network of the VPN")}),
        "The VPN between the sites. Leave it out when there is one site.",
        shown="no VPN",
    )
    models: Mapping[str, ModelSpec] = key(MapOf(MODEL_NAME, _MODEL_SECTION), "The models, each with the hosts that serve it.", default={})
    clients: Mapping[str, ClientSpec] = key(MapOf(CLIENT_NAME, Section(ClientSpec, "client")), "The API clients.", default={})
    tiers: Mapping[str, TierSpec] = key(
        MapOf(TIER_NAME, Section(TierSpec, "tier")),
        "Limits and priority by tier, in addition to the two defaults or instead of them.",
        default={},
        shown="`vip: {rate: 50, burst: 100, priority: 0}`, `standard: {rate: 10, burst: 20, priority: 5}`",
    )
    max_body_bytes: int = key(
        Whole(65536, 67108864),
        "Largest body of a request to a model, at every hop: the entry of its site, the gateway there, and the gateway of the site that serves it. "
        "An image is sent in base64, as four thirds of its size.",
        default=16777216,
    )
    ports: PortsSpec | None = key(Section(PortsSpec, "port"), "Ports that more than one role has to know; each has a default.")
    state_dir: str = key(Text("path"), "Directory on the controller for CA, secrets and keys; relative to the file.", default=".state")
    base_groups: tuple[str, ...] = key(ListOf(GROUP), "Groups of every host.", default=BASE_GROUPS)
    extra_groups: tuple[str, ...] = key(
        ListOf(GROUP), "Groups of your own besides this collection's: hosts may be in them, and the contract lists their members.", default=()
    )


CLUSTER = Section(ClusterSpec, "cluster", {"hosts": ("sites", "hosts belong to sites"), "wireguard": ("vpn", "one word for the VPN")})
