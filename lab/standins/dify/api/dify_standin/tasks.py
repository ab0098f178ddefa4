"""Celery as Dify sets it up, the tasks, and their ledger.

Every task leaves a row in `standin_tasks`: written when it is sent, marked when it starts and when it ends. A task that was sent and never
ended is a lost one; one that started twice ran twice. As with Dify, a message is acknowledged when its task starts (no `acks_late`).
"""

from __future__ import annotations

import functools
import json
import os
import socket
import time
from datetime import timedelta
from typing import Any

from celery import Celery, current_task

from . import database, workflow
from .services import Services
from .settings import QUEUES, SETTINGS, WORKFLOW_QUEUE

Json = dict[str, Any]
WORKFLOW_TASK = "tasks.app_generate.workflow_execute_task.workflow_based_app_execution_task"
WORK_TASK = "tasks.standin.work"
# Between two ticks of beat: a second beat shows after this time.
TICK_SECONDS = 5


class Ledger:
    """The rows of tasks."""

    def __init__(self, services: Services) -> None:
        """Use the process's services."""
        self.services = services

    def sent(self, task_id: str, queue: str, name: str) -> None:
        """Write down a task before its message goes out."""
        row = {"id": task_id, "queue": queue, "name": name, "enqueued_at": database.now()}
        with self.services.engine.begin() as connection:
            database.insert(connection, "standin_tasks", row)

    def started(self, task_id: str, queue: str, name: str) -> None:
        """Mark a task as started, here and by this release; beat's have no row before."""
        statement = """INSERT INTO standin_tasks (id, queue, name, enqueued_at, started_at, starts, worker, version)
            VALUES (:id, :queue, :name, :now, :now, 1, :worker, :version)
            ON CONFLICT (id) DO UPDATE SET started_at = :now, starts = standin_tasks.starts + 1, worker = :worker, version = :version"""
        values = {
            "id": task_id,
            "queue": queue,
            "name": name,
            "now": database.now(),
            "worker": socket.gethostname(),
            "version": self.services.version,
        }
        with self.services.engine.begin() as connection:
            database.execute(connection, statement, **values)

    def finished(self, task_id: str) -> None:
        """Mark a task as ended."""
        with self.services.engine.begin() as connection:
            database.execute(connection, "UPDATE standin_tasks SET finished_at = :now WHERE id = :id", now=database.now(), id=task_id)


class Tasks:
    """The Celery application and its tasks."""

    def __init__(self, services: Services) -> None:
        """Set Celery up as Dify does."""
        self.services = services
        self.ledger = Ledger(services)
        self.celery: Any = Celery("app", broker=SETTINGS.CELERY_BROKER_URL or None, backend=SETTINGS.CELERY_BACKEND)
        self.celery.conf.update(
            result_backend=SETTINGS.celery_result_backend,
            broker_transport_options=SETTINGS.transport_options,
            broker_connection_retry_on_startup=True,
            worker_hijack_root_logger=False,
            timezone="UTC",
            task_ignore_result=True,
            beat_schedule=schedule(),
        )
        if SETTINGS.CELERY_BACKEND == "redis":
            self.celery.conf.update(result_backend_transport_options=SETTINGS.transport_options)
        self.celery.set_default()

        # Functions, not methods: Celery takes a method's `self` for an argument.
        def work(seconds: float, name: str = "work", sender: str = "") -> None:
            self._work(seconds, f"{name} of {sender}" if sender else name)

        def run_workflow(parameters: str) -> None:
            self._run_workflow(json.loads(parameters))

        self.work = self.celery.task(work, name=WORK_TASK)
        self.run_workflow = self.celery.task(run_workflow, name=WORKFLOW_TASK, queue=WORKFLOW_QUEUE)

    def enqueue(self, queue: str, seconds: float) -> str:
        """Send a task that takes a time, and return its id."""
        task_id = database.new_id()
        self.ledger.sent(task_id, queue, "work")
        self.work.apply_async(kwargs={"seconds": seconds}, queue=queue, task_id=task_id)
        return task_id

    def enqueue_workflow(self, run_id: str, app: Json, inputs: Json) -> None:
        """Send a streaming run to the workers."""
        self.ledger.sent(run_id, WORKFLOW_QUEUE, "workflow")
        parameters = json.dumps({"run_id": run_id, "app_id": app["id"], "inputs": inputs})
        self.run_workflow.apply_async(args=[parameters], task_id=run_id)

    def _work(self, seconds: float, name: str) -> None:
        asked = current_task.request
        self.ledger.started(asked.id, asked.delivery_info["routing_key"], name)
        time.sleep(seconds)
        self.ledger.finished(asked.id)

    def _run_workflow(self, wanted: Json) -> None:
        self.ledger.started(wanted["run_id"], WORKFLOW_QUEUE, "workflow")
        with self.services.engine.connect() as connection:
            app = database.first(connection, "SELECT * FROM apps WHERE id = :id", id=wanted["app_id"])
        if app is None:
            raise ValueError(f"App not found: {wanted['app_id']}")
        emit = functools.partial(self.services.bus.publish, workflow.topic(wanted["run_id"]))
        workflow.Run(self.services, wanted["run_id"], app, wanted["inputs"], emit).execute()
        self.ledger.finished(wanted["run_id"])


def schedule() -> dict[str, Json]:
    """Return what beat sends: two of Dify's periodic tasks with their switches, and a tick that shows a second beat within seconds.

    Raises:
        ValueError: The queue monitor is switched on, which reads the queues out of a Redis broker.
    """
    if SETTINGS.ENABLE_DATASETS_QUEUE_MONITOR and not SETTINGS.CELERY_BROKER_URL.startswith("redis"):
        raise ValueError("ENABLE_DATASETS_QUEUE_MONITOR needs a Redis broker")
    wanted = {"tick": ("schedule_executor", timedelta(seconds=TICK_SECONDS))}
    if SETTINGS.ENABLE_WORKFLOW_SCHEDULE_POLLER_TASK:
        wanted["workflow_schedule_task"] = ("schedule_poller", timedelta(minutes=SETTINGS.WORKFLOW_SCHEDULE_POLLER_INTERVAL))
    if SETTINGS.ENABLE_API_TOKEN_LAST_USED_UPDATE_TASK:
        wanted["batch_update_api_token_last_used"] = ("api_token", timedelta(minutes=SETTINGS.API_TOKEN_LAST_USED_UPDATE_INTERVAL))
    sender = f"{socket.gethostname()}:{os.getpid()}"
    return {
        name: {"task": WORK_TASK, "schedule": every, "options": {"queue": queue}, "kwargs": {"seconds": 0, "name": name, "sender": sender}}
        for name, (queue, every) in wanted.items()
    }


def known_queue(queue: str) -> str:
    """Return the name of a queue that Dify has.

    Raises:
        ValueError: It is none.
    """
    if queue not in QUEUES:
        raise ValueError(f"Dify has no queue {queue}; there are {', '.join(QUEUES)}")
    return queue
