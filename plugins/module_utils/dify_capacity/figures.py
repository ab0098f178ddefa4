# SPDX-License-Identifier: GPL-3.0-or-later
"""Figures that plans are made of: their units, what they are of, and their source.

"Measured" is measured with Dify 1.16's own processes, on two cores that everything shared, one run a point: within 15 to 20 %.
"""

from __future__ import annotations

from collections.abc import Mapping

from ansible_collections.sovereign.dify.plugins.module_utils.dify_release import RELEASES

STREAM_CONNECTIONS = 2
"""PostgreSQL connections: of a chat stream at its peak. Measured: 1.98."""
NAMED_STREAM_CONNECTIONS = 3
"""PostgreSQL connections: of a chat stream at its peak, while its conversation is given a name. Measured: 2.7 to 3.2."""
REQUEST_CPU_MS = 35.0
"""ms of CPU: of an api process for each chat request. Measured."""
CHUNK_CPU_MS = 0.5
"""ms of CPU: of an api process for each chunk of an answer. Measured."""
NAMING_CPU_MS = 16.0
"""ms of CPU: of an api process for giving a conversation its name. Measured."""
WORKFLOW_API_CPU_MS = 75.0
"""ms of CPU: of an api process for each run of a workflow. Measured: 55 to 75."""
POSTGRESQL_CPU_MS = 17.0
"""ms of CPU: of PostgreSQL for each chat request. Measured: 7 to 17."""
CORE_SHARE = 0.8
"""share of a core: that an api process can be loaded with before answers are late. Measured; taken for all cores of a host, too."""
OVERHEAD_S = 0.15
"""seconds: that a request takes beside its answer. Measured: the first event of a single client."""
WORKFLOW_RATE = 4.0
"""runs a second: of workflows by one Celery process, which has one core. Measured: 4 to 5."""
WORKFLOW_CONCURRENCY = 50
"""runs at a time: in one Celery process, the most that was tried. Measured."""
DAEMON_CAP = 100
"""connections: of an api process to the plugin daemon; hard-coded in Dify, and met when measuring."""
DAEMON_USABLE = 90
"""streams: of an api process below that cap, with room for other calls. Measured: about 90."""
MASTER_MB = 48
"""MB: of gunicorn's master. Measured."""
API_PROCESS_MB = 525
"""MB: of an api process under load. Measured: 571 with its master."""
WORKER_PROCESS_MB = 480
"""MB: of a Celery process, or of beat. Measured: 460 to 480."""
GEVENT_POOL = 5
"""PostgreSQL connections: pool of a Celery process under gevent, whatever is set. Dify's issue 30536; SQLAlchemy's default."""
GEVENT_OVERFLOW = 10
"""PostgreSQL connections: overflow there. SQLAlchemy's default, taken because the setting may be ignored like that of the pool."""
WEBSOCKET_POOL = 5
"""PostgreSQL connections: pool and again overflow of an api_websocket process, which looks up who connects. Assumed."""
BEAT_POOL = 1
"""PostgreSQL connections: pool and again overflow of beat, which only sends tasks. Assumed."""
PLUGIN_DAEMON_CONNECTIONS = 30
"""PostgreSQL connections: of the plugin daemon. Its default (`DB_MAX_OPEN_CONNS`)."""
RETRIEVAL_CONNECTIONS = 2
"""PostgreSQL connections: to pgvector of a hybrid search in one knowledge base, one for each half. Dify opens them anew for each search; its source.
Measured: 15 new ones for 20 such searches at once. Each picture that is searched by beside the text takes one more, not counted here."""
INDEXING_CONNECTIONS = 10
"""PostgreSQL connections: to pgvector of a task that indexes a document, one for each of its threads; its source. A thread has one of SQLAlchemy's
pool before, so that a process has no more than that pool."""
ADMINISTRATION = 10
"""PostgreSQL connections: for Patroni, backups, metrics, a migration and people. Three are PostgreSQL's `superuser_reserved_connections`; assumed."""
SPARE_CONNECTIONS = 2
"""connections: of an api process that streams leave to `/health` and short requests. Assumed."""
TASK_CONCURRENCY = 4
"""tasks at a time: in a Celery process. Dify's default; with two connections a task, well within the pool that gevent leaves."""
WORKFLOW_PROCESSES = 2
"""processes: of the pool for workflows in a site, at least, so that one slow run does not hold up all. Dify's issue 35305."""
BACKGROUND_CORES = 0.5
"""cores: on a host with workers, for indexing and the other tasks in the background. Assumed."""
RESERVED_MB = 1024
"""MB: on a host, for its system, service_proxy and the container engine. Assumed."""

_OWN: Mapping[str, tuple[str, ...]] = {
    "workflow": ("workflow_based_app_execution",),
    "priority": ("priority_dataset", "priority_pipeline"),
    "dataset": ("dataset", "dataset_summary", "pipeline"),
}
QUEUES: Mapping[str, tuple[str, ...]] = {
    **_OWN,
    "general": tuple(name for name in RELEASES["1.16.0"].queues if not any(name in queues for queues in _OWN.values())),
}
"""Celery's queues in Dify 1.16, by the pool of workers that consumes them. Streaming workflows have one of their own, and work that must not
wait behind bulk indexing."""
INDEXING_QUEUES = frozenset({*QUEUES["priority"], *QUEUES["dataset"]})
"""Queues whose tasks index documents."""
SEARCHING_QUEUES = frozenset({*QUEUES["workflow"], "workflow"})
"""Queues whose tasks run workflows, which search knowledge bases."""
