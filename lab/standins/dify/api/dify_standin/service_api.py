"""The service API that applications call with their keys: chat messages, workflow runs, files."""

from __future__ import annotations

import functools
import hashlib
import hmac
import json
import logging
import mimetypes
import time
from collections.abc import Callable, Iterator
from pathlib import PurePath
from typing import Any

from flask import Response, g, request, stream_with_context

from . import chat, database, workflow
from .accounts import payload, required
from .errors import ApiError
from .services import Services
from .settings import SETTINGS
from .tasks import Tasks

Json = dict[str, Any]
LOG = logging.getLogger(__name__)
SIGNATURE_SECONDS = 300


def server_sent(events: Iterator[Json | str]) -> Iterator[str]:
    """Yield events in the form of server-sent events; a plain word is an event without data."""
    for event in events:
        yield f"event: {event}\n\n" if isinstance(event, str) else f"data: {json.dumps(event, ensure_ascii=False)}\n\n"


class ServiceApi:
    """Routes below /v1, and /files."""

    def __init__(self, services: Services, tasks: Tasks) -> None:
        """Use the process's services."""
        self.services = services
        self.tasks = tasks

    def guarded(self, view: Callable[..., Any]) -> Callable[..., Any]:
        """Return a view that wants an app's key."""

        def guard(**arguments: Any) -> Any:
            scheme, _, token = request.headers.get("Authorization", "").partition(" ")
            if scheme.lower() != "bearer":
                raise ApiError(401, "unauthorized", "Authorization header must be provided and start with 'Bearer'")
            with self.services.engine.connect() as connection:
                statement = "SELECT apps.* FROM apps JOIN api_tokens ON api_tokens.app_id = apps.id WHERE api_tokens.token = :token"
                app = database.first(connection, statement, token=token)
            if not app:
                raise ApiError(401, "unauthorized", "Access token is invalid")
            g.app = app
            return view(**arguments)

        return guard

    def chat_messages(self) -> Any:
        """POST /v1/chat-messages."""
        body = payload()
        user, _query = required(body, "user", "query")
        self._mode(body, "chat", "not_chat_app", "Please check if your app mode matches the right API route.")
        leave = self._enter()
        try:
            message = chat.Chat(self.services, g.app, user, body)
            if body.get("response_mode") != "streaming":
                answer = message.whole()
                leave()
                return answer
        except BaseException:
            leave()
            raise
        return self._streamed(message.stream(), leave)

    def run_workflow(self) -> Any:
        """POST /v1/workflows/run: a blocking run in this process, a streaming one by a worker and the event bus."""
        body = payload()
        required(body, "user")
        self._mode(body, "workflow", "not_workflow_app", "Please check if your app mode matches the right API route.")
        if not isinstance(body.get("inputs"), dict):
            raise ApiError(400, "invalid_param", "inputs: Input should be a valid dictionary")
        if not g.app["workflow_version"]:
            raise ApiError(400, "invalid_param", "Workflow not published")
        app, run_id, inputs = g.app, database.new_id(), body["inputs"]
        leave = self._enter()
        if body.get("response_mode") != "streaming":
            try:
                data = workflow.Run(self.services, run_id, app, inputs, lambda _event: None).execute()
            finally:
                leave()
            return {"task_id": run_id, "workflow_run_id": run_id, "data": data}
        send = functools.partial(self.tasks.enqueue_workflow, run_id, app, inputs)
        return self._streamed(self.services.bus.events(workflow.topic(run_id), "workflow_finished", send), leave)

    def workflow_run(self, run_id: str) -> Any:
        """GET /v1/workflows/run/ID."""
        with self.services.engine.connect() as connection:
            row = database.first(connection, "SELECT * FROM workflow_runs WHERE id = :id AND app_id = :app", id=run_id, app=g.app["id"])
        if not row:
            raise ApiError(404, "not_found", "Workflow run not found.")
        shown = {key: row[key] for key in ("id", "status", "error")} | {
            "inputs": json.loads(row["inputs"]),
            "outputs": json.loads(row["outputs"] or "{}"),
        }
        return shown | {"created_at": database.timestamp(row["created_at"]), "finished_at": database.timestamp(row["finished_at"])}

    def parameters(self) -> Any:
        """GET /v1/parameters."""
        return {"opening_statement": "", "user_input_form": [], "system_parameters": {"file_size_limit": SETTINGS.UPLOAD_FILE_SIZE_LIMIT}}

    def info(self) -> Any:
        """GET /v1/info."""
        return {key: g.app[key] for key in ("name", "description", "mode")}

    def upload(self) -> Any:
        """POST /v1/files/upload."""
        if "file" not in request.files:
            raise ApiError(400, "no_file_uploaded", "Please upload your file.")
        file = request.files["file"]
        if not file.filename:
            raise ApiError(400, "filename_not_exists_error", "The specified filename does not exist.")
        content: bytes = file.read()
        if len(content) > SETTINGS.UPLOAD_FILE_SIZE_LIMIT * 1024 * 1024:
            raise ApiError(413, "file_too_large", "File size exceeded.")
        suffix = PurePath(file.filename).suffix.removeprefix(".").lower()
        file_id = database.new_id()
        row = {
            "id": file_id,
            "tenant_id": g.app["tenant_id"],
            "storage_key": f"upload_files/{g.app['tenant_id']}/{file_id}.{suffix}",
            "name": file.filename,
            "size": len(content),
            "extension": suffix,
            "mime_type": file.mimetype or mimetypes.guess_type(file.filename)[0] or "application/octet-stream",
            "created_by": request.form.get("user", ""),
            "created_at": database.now(),
        }
        self.services.storage.save(row["storage_key"], content)
        with self.services.engine.begin() as connection:
            database.insert(connection, "upload_files", row)
        shown = {key: row[key] for key in ("id", "name", "size", "extension", "mime_type", "created_by")}
        moment = str(int(time.time()))
        nonce = database.new_id()
        query = f"timestamp={moment}&nonce={nonce}&sign={self._signature(file_id, moment, nonce)}"
        return shown | {
            "created_at": database.timestamp(row["created_at"]),
            "source_url": f"{SETTINGS.FILES_URL}/files/{file_id}/file-preview?{query}",
        }, 201

    def preview(self, file_id: str) -> Any:
        """GET /v1/files/ID/preview."""
        return self._content(file_id)

    def signed_preview(self, file_id: str) -> Any:
        """GET /files/ID/file-preview: whoever has the signature, which every node must be able to check."""
        moment, nonce, sign = (request.args.get(name, "") for name in ("timestamp", "nonce", "sign"))
        fresh = moment.isdigit() and time.time() - int(moment) < SIGNATURE_SECONDS
        if not fresh or not hmac.compare_digest(sign, self._signature(file_id, moment, nonce)):
            raise ApiError(404, "not_found", "File not found or signature is invalid")
        return self._content(file_id)

    def _signature(self, file_id: str, moment: str, nonce: str) -> str:
        message = f"file-preview|{file_id}|{moment}|{nonce}"
        return hmac.new(self.services.secret.encode(), message.encode(), hashlib.sha256).hexdigest()

    def _content(self, file_id: str) -> Any:
        with self.services.engine.connect() as connection:
            row = database.first(connection, "SELECT * FROM upload_files WHERE id = :id", id=file_id)
        if not row:
            raise ApiError(404, "not_found", "File not found or signature is invalid")
        try:
            return Response(self.services.storage.load(row["storage_key"]), mimetype=row["mime_type"])
        except FileNotFoundError:
            raise ApiError(404, "not_found", "File not found or signature is invalid") from None

    @staticmethod
    def _mode(body: Json, mode: str, code: str, message: str) -> None:
        if body.get("response_mode") not in (None, "blocking", "streaming"):
            raise ApiError(400, "invalid_param", "response_mode: Input should be 'blocking' or 'streaming'")
        if g.app["mode"] != mode:
            raise ApiError(400, code, message)

    def _enter(self) -> Callable[[], None]:
        """Count a request to the app and return what counts it off; over the limit of active ones it is refused."""
        limits = [limit for limit in (SETTINGS.APP_DEFAULT_ACTIVE_REQUESTS, SETTINGS.APP_MAX_ACTIVE_REQUESTS) if limit]
        if not limits:
            return lambda: None
        key, request_id = f"dify:rate_limit:{g.app['id']}:active_requests", database.new_id()
        if self.services.redis.hlen(key) >= min(limits):
            raise ApiError(
                429,
                "too_many_requests",
                f"Too many requests. Please try again later. The current maximum concurrent requests allowed is {min(limits)}.",
            )
        self.services.redis.hset(key, request_id, str(time.time()))
        return lambda: self.services.redis.hdel(key, request_id)

    @staticmethod
    def _streamed(events: Iterator[Json | str], leave: Callable[[], None]) -> Any:
        def lines() -> Iterator[str]:
            try:
                yield from server_sent(events)
            except Exception:
                # The answer has begun: all that is left to do is to end it, without its last event.
                LOG.exception("a stream broke")
            finally:
                leave()

        return Response(stream_with_context(lines()), mimetype="text/event-stream")
