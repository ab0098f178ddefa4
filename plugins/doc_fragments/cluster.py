# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Generated from plugins/module_utils/cluster/spec.py by docs/generate.py; change it there.
"""Options of the inventory plugin."""

from __future__ import annotations


class ModuleDocFragment:
    """Keys of a cluster file."""

    DOCUMENTATION = r"""
options:
  plugin:
    description:
    - Says that this file is read by this plugin.
    type: str
    choices:
    - sovereign.dify.cluster
    required: true
  name:
    description:
    - Name of the cluster; part of the CA's name.
    type: str
    required: true
  domain:
    description:
    - 'DNS domain of the cluster: a host''s full name is C(<host>.<domain>).'
    type: str
    required: true
  sites:
    description:
    - The sites.
    - A mapping from site names to these keys.
    type: dict
    required: true
    suboptions:
      clearance:
        description:
        - Highest classification that may be placed on, or called from, the site.
        type: str
        choices:
        - public
        - internal
        - restricted
        required: true
      networks:
        description:
        - LAN networks. When given, every C(address) of the site must lie in one of them.
        type: list
        elements: str
        default: []
      admin_networks:
        description:
        - 'Networks that may open SSH: administrators'', and the controller''s or its jump host''s. Required on sites above C(public).'
        - 'Default: any on C(public) sites.'
        type: list
        elements: str
      client_networks:
        description:
        - Networks that may open the entry.
        - 'Default: any.'
        type: list
        elements: str
      egress:
        description:
        - What hosts may open outwards.
        - 'Default: DNS, NTP, HTTP and HTTPS: to anywhere, but on C(restricted) sites only to private ranges and the site''s own C(networks).'
        type: list
        elements: dict
        suboptions:
          to:
            description:
            - Destination networks.
            type: list
            elements: str
            required: true
          protocol:
            description:
            - Transport protocol.
            type: str
            choices:
            - tcp
            - udp
            required: true
          ports:
            description:
            - Destination ports.
            type: list
            elements: int
            required: true
          comment:
            description:
            - What it is for; lands in the rule set.
            type: str
      entry:
        description:
        - Where the clients of the site connect.
        type: dict
        suboptions:
          name:
            description:
            - DNS name of the entry.
            - 'Default: C(ai.<site>.<domain>).'
            type: str
          port:
            description:
            - TCP port of the entry.
            type: int
            default: 443
          address:
            description:
            - Virtual address of the entry, held by one host of the group C(keepalived) at a time.
            type: str
      external:
        description:
        - Data services of others that the site uses instead of its own.
        type: dict
        suboptions:
          postgresql:
            description:
            - PostgreSQL, in place of the group C(patroni).
            type: dict
            suboptions:
              host:
                description:
                - Name or address of the service; its certificate must bear it.
                type: str
                required: true
              port:
                description:
                - TCP port.
                - 'Default: the service''s usual one.'
                type: int
              read_host:
                description:
                - Name or address for reading alone.
                - 'Default: C(host).'
                type: str
          redis:
            description:
            - Redis, in place of the group C(redis).
            type: dict
            suboptions:
              host:
                description:
                - Name or address of the service; its certificate must bear it.
                type: str
                required: true
              port:
                description:
                - TCP port.
                - 'Default: the service''s usual one.'
                type: int
              tls:
                description:
                - 'Who speaks TLS to it: the C(proxy) on each host, the C(client) itself through the proxy, or C(none).'
                type: str
                choices:
                - proxy
                - client
                - none
                default: proxy
          rabbitmq:
            description:
            - RabbitMQ, in place of the group C(rabbitmq).
            type: dict
            suboptions:
              host:
                description:
                - Name or address of the service; its certificate must bear it.
                type: str
                required: true
              port:
                description:
                - TCP port.
                - 'Default: the service''s usual one.'
                type: int
              tls:
                description:
                - 'Who speaks TLS to it: the C(proxy) on each host, the C(client) itself through the proxy, or C(none).'
                type: str
                choices:
                - proxy
                - client
                - none
                default: proxy
          object_storage:
            description:
            - S3 (OSS and the like), in place of the group C(object_storage).
            type: dict
            suboptions:
              host:
                description:
                - Name or address of the service; its certificate must bear it.
                type: str
                required: true
              port:
                description:
                - TCP port.
                - 'Default: the service''s usual one.'
                type: int
              tls:
                description:
                - Whether the C(client) speaks TLS to it, or nobody (C(none)).
                type: str
                choices:
                - client
                - none
                default: client
              region:
                description:
                - Region that requests are signed for.
                type: str
                default: us-east-1
              addressing:
                description:
                - 'Where a request names its bucket: in the C(host) name, or in the C(path).'
                type: str
                choices:
                - host
                - path
                default: host
      images:
        description:
        - Where container images come from.
        type: dict
        suboptions:
          mirror:
            description:
            - 'Registry that is asked in place of all others: C(<mirror>/<path of the image>).'
            - 'Default: each image''s own registry.'
            type: str
          archives:
            description:
            - Directory on the controller of the archives that images are loaded from; relative to the file.
            type: str
            default: images
      dify:
        description:
        - Dify on the hosts of the group C(dify).
        type: dict
        suboptions:
          release:
            description:
            - Release.
            type: str
            choices:
            - 1.16.0
            required: true
          images:
            description:
            - The images of the release.
            type: dict
            required: true
            suboptions:
              api:
                description:
                - Of api, workers and beat (C(langgenius/dify-api)).
                type: dict
                required: true
                suboptions:
                  name:
                    description:
                    - Registry and path.
                    type: str
                    required: true
                  digest:
                    description:
                    - Digest that it is pulled by, whatever its tags say.
                    type: str
                  archive:
                    description:
                    - File in the directory of archives, as C(podman save) writes it, in place of a registry.
                    type: str
                  sha256:
                    description:
                    - Digest of that file.
                    type: str
              web:
                description:
                - Of the web console (C(langgenius/dify-web)).
                type: dict
                required: true
                suboptions:
                  name:
                    description:
                    - Registry and path.
                    type: str
                    required: true
                  digest:
                    description:
                    - Digest that it is pulled by, whatever its tags say.
                    type: str
                  archive:
                    description:
                    - File in the directory of archives, as C(podman save) writes it, in place of a registry.
                    type: str
                  sha256:
                    description:
                    - Digest of that file.
                    type: str
              plugin_daemon:
                description:
                - Of the plugin daemon (C(langgenius/dify-plugin-daemon), a tag that ends in C(-local)).
                type: dict
                required: true
                suboptions:
                  name:
                    description:
                    - Registry and path.
                    type: str
                    required: true
                  digest:
                    description:
                    - Digest that it is pulled by, whatever its tags say.
                    type: str
                  archive:
                    description:
                    - File in the directory of archives, as C(podman save) writes it, in place of a registry.
                    type: str
                  sha256:
                    description:
                    - Digest of that file.
                    type: str
              sandbox:
                description:
                - Of the sandbox (C(langgenius/dify-sandbox)).
                type: dict
                required: true
                suboptions:
                  name:
                    description:
                    - Registry and path.
                    type: str
                    required: true
                  digest:
                    description:
                    - Digest that it is pulled by, whatever its tags say.
                    type: str
                  archive:
                    description:
                    - File in the directory of archives, as C(podman save) writes it, in place of a registry.
                    type: str
                  sha256:
                    description:
                    - Digest of that file.
                    type: str
              ssrf_proxy:
                description:
                - Of the proxy that the code of users goes out through (C(ubuntu/squid)).
                type: dict
                required: true
                suboptions:
                  name:
                    description:
                    - Registry and path.
                    type: str
                    required: true
                  digest:
                    description:
                    - Digest that it is pulled by, whatever its tags say.
                    type: str
                  archive:
                    description:
                    - File in the directory of archives, as C(podman save) writes it, in place of a registry.
                    type: str
                  sha256:
                    description:
                    - Digest of that file.
                    type: str
          api:
            description:
            - Hosts of the api.
            - 'Default: all hosts of the group C(dify).'
            type: list
            elements: str
          websocket:
            description:
            - Hosts of the api's processes for WebSocket.
            - 'Default: those of C(api).'
            type: list
            elements: str
          worker:
            description:
            - Hosts of the workers; each runs every pool.
            - 'Default: all hosts of the group C(dify).'
            type: list
            elements: str
          beat:
            description:
            - Hosts one of which runs beat.
            - 'Default: those of C(worker).'
            type: list
            elements: str
          plugin_daemon:
            description:
            - Hosts one of which runs the plugin daemon.
            - 'Default: those of C(api).'
            type: list
            elements: str
          web:
            description:
            - Hosts of the web console.
            - 'Default: those of C(api).'
            type: list
            elements: str
      hosts:
        description:
        - The hosts of the site.
        - A mapping from host names to these keys.
        type: dict
        default: {}
        suboptions:
          address:
            description:
            - Address in the site; also C(ansible_host) unless that is set.
            type: str
            required: true
          wan_address:
            description:
            - Address at which gateways of other sites reach this host.
            type: str
          vpn_address:
            description:
            - Address in the VPN; needed with the group C(wireguard), refused without it.
            type: str
          groups:
            description:
            - Groups besides C(base_groups).
            type: list
            elements: str
            default: []
          gpus:
            description:
            - Number of GPUs. When given, models get disjoint GPUs in file order, and their number is checked.
            - 'Default: unknown.'
            type: int
          vars:
            description:
            - Any further variables of the host.
            type: dict
            default: {}
      hosts_from:
        description:
        - Hosts taken over from inventory sources that were loaded earlier.
        type: list
        elements: dict
        default: []
        suboptions:
          group:
            description:
            - Existing group whose hosts join the site.
            type: str
            required: true
          address_var:
            description:
            - Variable of those hosts that holds C(address).
            type: str
            default: ansible_host
          wan_address_var:
            description:
            - Variable that holds C(wan_address).
            - 'Default: none have one.'
            type: str
          vpn_address_var:
            description:
            - Variable that holds C(vpn_address).
            - 'Default: none have one.'
            type: str
          groups:
            description:
            - Groups besides C(base_groups).
            type: list
            elements: str
            default: []
  vpn:
    description:
    - The VPN between the sites. Leave it out when there is one site.
    - 'Default: no VPN.'
    type: dict
    suboptions:
      cidr:
        description:
        - Network of the VPN addresses; apart from every site network.
        type: str
        required: true
      port:
        description:
        - UDP port of every gateway.
        type: int
        default: 51820
      interface:
        description:
        - Interface name.
        type: str
        default: wg0
      mtu:
        description:
        - MTU inside the VPN.
        type: int
        default: 1420
      keepalive:
        description:
        - Seconds between keepalives, so that NAT on the way keeps its state; 0 sends none.
        type: int
        default: 25
      hubs:
        description:
        - Sites whose gateways peer with those of all other sites; the others meet only hubs.
        - 'Default: the sites of the highest clearance that have gateways.'
        type: list
        elements: str
  models:
    description:
    - The models, each with the hosts that serve it.
    - A mapping from model names to these keys.
    type: dict
    default: {}
    suboptions:
      classification:
        description:
        - Least clearance of sites that hold or call it.
        type: str
        choices:
        - public
        - internal
        - restricted
        required: true
      source:
        description:
        - Directory of the weights on the hosts.
        type: str
        required: true
      hosts:
        description:
        - Hosts in the group C(vllm) that serve it.
        type: list
        elements: str
        required: true
      tensor_parallel:
        description:
        - GPUs over which each layer of an instance is split.
        type: int
        default: 1
      pipeline_parallel:
        description:
        - Stages, each with layers of its own and C(tensor_parallel) GPUs, of one instance.
        type: int
        default: 1
      nodes:
        description:
        - 'Hosts that one instance is spread over: C(hosts) are taken in groups of this many, in their order, and the first of each group answers.'
        type: int
        default: 1
      callable_from:
        description:
        - Sites that may call it; narrows, never widens. The sites that host it are always among them.
        - 'Default: every site of enough clearance.'
        type: list
        elements: str
      port:
        description:
        - Port of its instances.
        - 'Default: derived from the name.'
        type: int
      quantization:
        description:
        - Quantization, in vLLM's words.
        - 'Default: what the model''s own configuration says.'
        type: str
        choices:
        - awq
        - awq_marlin
        - auto-round
        - bitsandbytes
        - compressed-tensors
        - experts_int8
        - fbgemm_fp8
        - fp8
        - gguf
        - gptq
        - gptq_marlin
        - hqq
        - modelopt
        - modelopt_fp4
        - moe_wna16
        - mxfp4
        - ptpc_fp8
        - quark
        - torchao
      dtype:
        description:
        - Type of weights and activations.
        type: str
        choices:
        - auto
        - float16
        - bfloat16
        - float32
        default: auto
      max_model_len:
        description:
        - Longest context in tokens.
        - 'Default: the model''s own.'
        type: int
      manifest_sha256:
        description:
        - Digest of the manifest of the weights.
        - 'Default: not checked.'
        type: str
      extra_args:
        description:
        - Further arguments of C(vllm serve), without the leading dashes.
        type: dict
        default: {}
  clients:
    description:
    - The API clients.
    - A mapping from client names to these keys.
    type: dict
    default: {}
    suboptions:
      sites:
        description:
        - Home sites, where it connects.
        type: list
        elements: str
        required: true
      models:
        description:
        - Models that it may call; each must be callable from every home site.
        type: list
        elements: str
        required: true
      tier:
        description:
        - Its tier.
        type: str
        default: standard
  tiers:
    description:
    - Limits and priority by tier, in addition to the two defaults or instead of them.
    - 'Default: C(vip: {rate: 50, burst: 100, priority: 0}), C(standard: {rate: 10, burst: 20, priority: 5}).'
    - A mapping from tier names to these keys.
    type: dict
    suboptions:
      rate:
        description:
        - Requests per second and key.
        type: int
        required: true
      burst:
        description:
        - Requests above the rate that are let through at once.
        type: int
        required: true
      priority:
        description:
        - Turn in the queue of a busy model server; 0 comes first, and within one priority who came first.
        - 'Default: C(vip): 0, others: 5.'
        type: int
  max_body_bytes:
    description:
    - 'Largest body of a request to a model, at every hop: the entry of its site, the gateway there, and the gateway of the site that serves it.
      An image is sent in base64, as four thirds of its size.'
    type: int
    default: 16777216
  ports:
    description:
    - Ports that more than one role has to know; each has a default.
    type: dict
    suboptions:
      model_gateway:
        description:
        - The model gateway, for its own site.
        type: int
        default: 8443
      model_gateway_vpn:
        description:
        - The model gateway, at its VPN address, for those of other sites.
        type: int
        default: 8444
      model_gateway_metrics:
        description:
        - The model gateway's metrics, on 127.0.0.1.
        type: int
        default: 8405
      exporters:
        description:
        - The hosts' exporters, for Prometheus.
        type: int
        default: 9447
      prometheus:
        description:
        - Prometheus.
        type: int
        default: 9090
      alertmanager:
        description:
        - Alertmanager.
        type: int
        default: 9093
      alertmanager_cluster:
        description:
        - Alertmanager's members among each other.
        type: int
        default: 9094
      grafana:
        description:
        - Grafana.
        type: int
        default: 3000
      status_page:
        description:
        - The status page.
        type: int
        default: 9448
      log_store:
        description:
        - The log store.
        type: int
        default: 9449
      local:
        description:
        - Ports on 127.0.0.1 of each host in the group C(service_proxy), at which its programs find the data services.
        type: dict
        suboptions:
          postgresql:
            description:
            - PostgreSQL, for reading and writing.
            type: int
            default: 5432
          postgresql_read:
            description:
            - PostgreSQL, for reading alone.
            type: int
            default: 5433
          pgpool:
            description:
            - Pgpool-II, where the host has it.
            type: int
            default: 5434
          pgbouncer:
            description:
            - PgBouncer, for reading and writing.
            type: int
            default: 6432
          pgbouncer_read:
            description:
            - PgBouncer, for reading alone.
            type: int
            default: 6433
          redis:
            description:
            - Redis.
            type: int
            default: 6379
          rabbitmq:
            description:
            - RabbitMQ.
            type: int
            default: 5672
          object_storage:
            description:
            - S3.
            type: int
            default: 9000
          object_storage_tls:
            description:
            - S3 with TLS, for clients that insist on it.
            type: int
            default: 9001
      dify:
        description:
        - Ports of Dify's services on its hosts' addresses, with mutual TLS.
        type: dict
        suboptions:
          api:
            description:
            - The api.
            type: int
            default: 9441
          websocket:
            description:
            - The web sockets.
            type: int
            default: 9442
          web:
            description:
            - The pages.
            type: int
            default: 9443
          plugin_daemon:
            description:
            - The plugin daemon, for Dify's other hosts.
            type: int
            default: 9444
          webhooks:
            description:
            - The plugin daemon's webhooks, for the entry.
            type: int
            default: 9446
  state_dir:
    description:
    - Directory on the controller for CA, secrets and keys; relative to the file.
    type: str
    default: .state
  base_groups:
    description:
    - Groups of every host.
    type: list
    elements: str
    default:
    - baseline
    - pki
    - firewall
  extra_groups:
    description:
    - 'Groups of your own besides this collection''s: hosts may be in them, and the contract lists their members.'
    type: list
    elements: str
    default: []
"""
