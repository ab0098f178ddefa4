"""Chat messages, inside the api's process, with the appetite for connections that was measured on Dify.

A chat holds one connection, idle in its transaction, from the query of its history to the end of its stream. Its generation takes a second
one for as long as the model answers; the naming of a new conversation takes a third for a model call of its own.
"""

from __future__ import annotations

import json
import logging
import queue
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from . import daemon, database, vectors
from .errors import ApiError
from .models import Models
from .services import Services

Json = dict[str, Any]
LOG = logging.getLogger(__name__)
PING_SECONDS = 10
DEFAULT_NAME = "New conversation"


@dataclass(frozen=True)
class Model:
    """A model with what calling it takes."""

    tenant: str
    provider: str
    name: str
    parameters: Json
    credentials: Json

    def ask(self, messages: list[Json], **parameters: Any) -> Iterator[str]:
        """Have it answer; yield its text as it comes."""
        return daemon.invoke(self.tenant, self.provider, self.name, self.credentials, messages, self.parameters | parameters)


class Chat:
    """One chat message and its answer."""

    def __init__(self, services: Services, app: Json, user: str, body: Json) -> None:
        """Open the connection that is held to the end, and read the conversation's history.

        Raises:
            ApiError: There is no such conversation, or no model.
        """
        self.services = services
        self.app = app
        self.user = user
        self.query: str = body["query"]
        self.trace = body.get("trace_session_id")
        self.conversation: str = body.get("conversation_id") or ""
        self.new = not self.conversation
        self.naming = self.new and bool(body.get("auto_generate_name", True))
        self.task = database.new_id()
        self.message = database.new_id()
        self.created = database.now()
        self.config: Json = json.loads(self.app["model_config"]) if self.app["model_config"] else {}
        self.model = self._model()
        self.items: queue.Queue[Json | None] = queue.Queue()
        self.stopped = threading.Event()
        self.namer: threading.Thread | None = None
        self.held = services.engine.connect()
        try:
            self.history = self._history()
        except BaseException:
            self.held.close()
            raise

    def stream(self) -> Iterator[Json | str]:
        """Yield the events of the answer as they come, and a ping after each 10 s of silence."""
        try:
            threading.Thread(target=self._generate, daemon=True).start()
            while True:
                try:
                    item = self.items.get(timeout=PING_SECONDS)
                except queue.Empty:
                    yield "ping"
                    continue
                if item is None:
                    break
                yield item
            if self.namer:
                self.namer.join()
        finally:
            # Also where the client has left: then the generation ends at its next piece.
            self.stopped.set()
            self.held.close()

    def whole(self) -> Json:
        """Return the answer of a blocking call.

        Raises:
            ApiError: The generation failed.
        """
        text = ""
        end: Json = {}
        for item in self.stream():
            if isinstance(item, str):
                continue
            if item["event"] == "error":
                raise ApiError(item["status"], item["code"], item["message"])
            text += item.get("answer", "")
            end = item
        head = {"event": "message", "mode": "chat", "answer": text, "metadata": end.get("metadata", {})}
        return head | {key: end[key] for key in ("task_id", "id", "message_id", "conversation_id", "created_at")}

    def _model(self) -> Model:
        models = Models(self.services)
        tenant = self.app["tenant_id"]
        config = self.config.get("model")
        if not config:
            default = models.default(tenant, "llm")
            if not default:
                raise ApiError(400, "provider_not_initialize", "No valid model provider credentials found.")
            config = {"provider": default["provider_name"], "name": default["model_name"]}
        credentials = models.lookup(tenant, config["provider"], config["name"])
        return Model(tenant, config["provider"], config["name"], config.get("completion_params") or {}, credentials)

    def _history(self) -> list[Json]:
        if self.new:
            # The transaction begins with this query, too: Dify looks for the conversation before it makes one.
            database.select(self.held, "SELECT 1 AS there FROM conversations WHERE id = ''")
            self.conversation = database.new_id()
            return []
        statement = "SELECT 1 AS there FROM conversations WHERE id = :id AND app_id = :app"
        if not database.first(self.held, statement, id=self.conversation, app=self.app["id"]):
            raise ApiError(404, "not_found", "Conversation Not Exists.")
        statement = "SELECT query, answer FROM messages WHERE conversation_id = :id AND answer <> '' ORDER BY created_at DESC LIMIT 10"
        rows = database.select(self.held, statement, id=self.conversation)
        parts = [({"role": "user", "content": row["query"]}, {"role": "assistant", "content": row["answer"]}) for row in reversed(rows)]
        return [part for pair in parts for part in pair]

    def _event(self, name: str, **values: Any) -> None:
        common = {"conversation_id": self.conversation, "message_id": self.message, "created_at": database.timestamp(self.created)}
        self.items.put({"event": name, **common, "task_id": self.task, "id": self.message, **values})

    def _generate(self) -> None:
        started = time.monotonic()
        try:
            with self.services.engine.connect() as connection:
                self._open(connection)
                if self.naming:
                    self.namer = threading.Thread(target=self._name, daemon=True)
                    self.namer.start()
                # From here to the end the connection is idle in this transaction.
                database.select(connection, "SELECT model_config FROM apps WHERE id = :id", id=self.app["id"])
                vectors.retrieve(self.config)
                text = ""
                for piece in self.model.ask([*self.history, {"role": "user", "content": self.query}]):
                    if self.stopped.is_set():
                        break
                    text += piece
                    self._event("message", answer=piece, from_variable_selector=None)
                statement = "UPDATE messages SET answer = :answer, status = :status WHERE id = :id"
                database.execute(connection, statement, answer=text, status="stopped" if self.stopped.is_set() else "normal", id=self.message)
                connection.commit()
            usage = {"total_tokens": 0, "latency": time.monotonic() - started}
            self._event("message_end", metadata={"usage": usage}, files=None)
        except ApiError as error:
            self._event("error", **error.body)
        except Exception as error:
            LOG.exception("internal server error.")
            self._event("error", code="internal_server_error", status=500, message=str(error))
        finally:
            self.items.put(None)

    def _open(self, connection: Any) -> None:
        if self.new:
            row = {"id": self.conversation, "app_id": self.app["id"], "name": DEFAULT_NAME, "from_end_user": self.user, "created_at": self.created}
            database.insert(connection, "conversations", row)
        row = {
            "id": self.message,
            "app_id": self.app["id"],
            "conversation_id": self.conversation,
            "query": self.query,
            "answer": "",
            "status": "normal",
            "created_at": self.created,
        }
        if self.services.version != "1.16.0":
            # The column that this release's migration adds.
            row["trace_session_id"] = self.trace
        database.insert(connection, "messages", row)
        connection.commit()

    def _name(self) -> None:
        try:
            with self.services.engine.connect() as connection:
                database.select(connection, "SELECT name FROM conversations WHERE id = :id", id=self.conversation)
                prompt = [{"role": "user", "content": f"Name this conversation in five words: {self.query[:200]}"}]
                name = "".join(self.model.ask(prompt, max_tokens=8)).strip()[:75] or DEFAULT_NAME
                database.execute(connection, "UPDATE conversations SET name = :name WHERE id = :id", name=name, id=self.conversation)
                connection.commit()
        except Exception:
            LOG.exception("generate conversation name failed, conversation_id: %s", self.conversation)
