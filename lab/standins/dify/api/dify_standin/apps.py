"""The console's apps, their API keys and workflows, and the plugins of the workspace."""

from __future__ import annotations

import hashlib
import json
import secrets
from typing import Any

from flask import g, request

from . import daemon, database, workflow
from .accounts import payload, required
from .errors import ApiError
from .services import Services

Json = dict[str, Any]
MODES = ("chat", "agent-chat", "advanced-chat", "workflow", "completion")
MAX_KEYS = 10


class Apps:
    """Routes below /console/api/apps and /console/api/workspaces/current/plugin."""

    def __init__(self, services: Services) -> None:
        """Use the process's services."""
        self.services = services

    def list_apps(self) -> Any:
        """GET apps, a page of them."""
        page, limit = request.args.get("page", 1, int), request.args.get("limit", 20, int)
        mode, name = request.args.get("mode", "all"), request.args.get("name", "")
        statement = (
            """SELECT * FROM apps WHERE tenant_id = :tenant AND (:mode = 'all' OR mode = :mode) AND name ILIKE :name ORDER BY created_at DESC"""
        )
        with self.services.engine.connect() as connection:
            rows = database.select(connection, statement, tenant=g.account["tenant_id"], mode=mode, name=f"%{name}%")
        shown = rows[(page - 1) * limit : page * limit]
        return {"page": page, "limit": limit, "total": len(rows), "has_more": page * limit < len(rows), "data": [self._shown(row) for row in shown]}

    def create_app(self) -> Any:
        """POST apps."""
        body = payload()
        name, mode = required(body, "name", "mode")
        if mode not in MODES:
            raise ApiError(400, "invalid_param", f"mode: Input should be one of {', '.join(MODES)}")
        if mode not in ("chat", "workflow"):
            raise ApiError(501, "not_implemented", f"the stand-in has apps of the modes chat and workflow, not {mode}")
        row = {
            "id": database.new_id(),
            "tenant_id": g.account["tenant_id"],
            "name": name,
            "mode": mode,
            "description": body.get("description") or "",
            "enable_api": True,
            "created_at": database.now(),
        }
        with self.services.engine.begin() as connection:
            database.insert(connection, "apps", row)
        return self._shown(row), 201

    def get_app(self, app_id: str) -> Any:
        """GET apps/ID."""
        return self._shown(self._app(app_id))

    def delete_app(self, app_id: str) -> Any:
        """DELETE apps/ID."""
        self._app(app_id)
        with self.services.engine.begin() as connection:
            database.execute(connection, "DELETE FROM api_tokens WHERE app_id = :id", id=app_id)
            database.execute(connection, "DELETE FROM apps WHERE id = :id", id=app_id)
        return "", 204

    def set_model_config(self, app_id: str) -> Any:
        """POST apps/ID/model-config."""
        body = payload()
        if self._app(app_id)["mode"] != "chat":
            raise ApiError(404, "app_not_found", "App not found.")
        if not isinstance(body.get("model"), dict):
            raise ApiError(400, "invalid_param", "model is required")
        required(body["model"], "provider", "name")
        with self.services.engine.begin() as connection:
            database.execute(connection, "UPDATE apps SET model_config = :config WHERE id = :id", config=json.dumps(body), id=app_id)
        return {"result": "success"}

    def list_keys(self, app_id: str) -> Any:
        """GET apps/ID/api-keys."""
        self._app(app_id)
        with self.services.engine.connect() as connection:
            rows = database.select(connection, "SELECT * FROM api_tokens WHERE app_id = :id ORDER BY created_at", id=app_id)
        return {"data": [self._key(row) for row in rows]}

    def create_key(self, app_id: str) -> Any:
        """POST apps/ID/api-keys."""
        self._app(app_id)
        row = {"id": database.new_id(), "app_id": app_id, "token": f"app-{secrets.token_urlsafe(24)[:24]}", "created_at": database.now()}
        with self.services.engine.begin() as connection:
            if len(database.select(connection, "SELECT id FROM api_tokens WHERE app_id = :id", id=app_id)) >= MAX_KEYS:
                raise ApiError(400, "bad_request", f"Cannot create more than {MAX_KEYS} API keys for this resource type.")
            database.insert(connection, "api_tokens", row)
        return self._key(row), 201

    def delete_key(self, app_id: str, key_id: str) -> Any:
        """DELETE apps/ID/api-keys/ID."""
        with self.services.engine.begin() as connection:
            if not database.execute(connection, "DELETE FROM api_tokens WHERE app_id = :app AND id = :id", app=app_id, id=key_id):
                raise ApiError(404, "not_found", "API key not found")
        return "", 204

    def get_draft(self, app_id: str) -> Any:
        """GET apps/ID/workflows/draft."""
        return self._workflow(app_id, "draft") or self._refuse("draft_workflow_not_exist", "Draft workflow need to be initialized.")

    def sync_draft(self, app_id: str) -> Any:
        """POST apps/ID/workflows/draft: refused where the sender has not seen the draft that is there."""
        body = payload()
        [graph] = required(body, "graph")
        text = json.dumps(graph, sort_keys=True)
        unique = hashlib.sha256(text.encode()).hexdigest()
        draft = self._workflow(app_id, "draft")
        if draft and draft["hash"] != body.get("hash"):
            raise ApiError(400, "draft_workflow_not_sync", "Workflow graph might have been modified, please refresh and resubmit.")
        with self.services.engine.begin() as connection:
            database.execute(connection, "DELETE FROM workflows WHERE app_id = :app AND version = 'draft'", app=app_id)
            row: Json = {"id": database.new_id(), "app_id": app_id, "version": "draft", "graph": text, "hash": unique, "created_at": database.now()}
            database.insert(connection, "workflows", row)
        return {"result": "success", "hash": unique, "updated_at": database.timestamp(row["created_at"])}

    def published(self, app_id: str) -> Any:
        """GET apps/ID/workflows/publish: null where nothing is published."""
        app = self._app(app_id)
        return (
            json.dumps(self._workflow(app_id, app["workflow_version"]) if app.get("workflow_version") else None),
            200,
            {"Content-Type": "application/json"},
        )

    def publish(self, app_id: str) -> Any:
        """POST apps/ID/workflows/publish."""
        draft = self._workflow(app_id, "draft")
        if not draft:
            raise ApiError(400, "invalid_param", "No valid workflow found.")
        workflow.order(draft["graph"])
        moment = database.now()
        row = {
            "id": database.new_id(),
            "app_id": app_id,
            "version": str(moment),
            "graph": json.dumps(draft["graph"]),
            "hash": draft["hash"],
            "created_at": moment,
        }
        with self.services.engine.begin() as connection:
            database.insert(connection, "workflows", row)
            database.execute(connection, "UPDATE apps SET workflow_version = :version WHERE id = :id", version=row["version"], id=app_id)
        return {"result": "success", "created_at": database.timestamp(moment)}

    def plugins(self) -> Any:
        """GET workspaces/current/plugin/list."""
        args = {"page": request.args.get("page", 1, int), "page_size": request.args.get("page_size", 256, int)}
        found = daemon.manage("GET", g.account["tenant_id"], "list", params=args)
        return {"plugins": found["list"], "total": found["total"]}

    def upload_plugin(self) -> Any:
        """POST workspaces/current/plugin/upload/pkg."""
        if "pkg" not in request.files:
            raise ApiError(400, "bad_request", "The file pkg is missing.")
        files = {"dify_pkg": ("dify_pkg", request.files["pkg"].read(), "application/octet-stream")}
        return daemon.manage("POST", g.account["tenant_id"], "install/upload/package", files=files, data={"verify_signature": "false"})

    def install_plugins(self) -> Any:
        """POST workspaces/current/plugin/install/pkg."""
        [wanted] = required(payload(), "plugin_unique_identifiers")
        data = {"plugin_unique_identifiers": wanted, "source": "package", "metas": [{} for _ in wanted]}
        return daemon.manage("POST", g.account["tenant_id"], "install/identifiers", json=data)

    def plugin_tasks(self) -> Any:
        """GET workspaces/current/plugin/tasks."""
        return {"tasks": daemon.manage("GET", g.account["tenant_id"], "install/tasks", params={"page": 1, "page_size": 256})}

    def plugin_task(self, task_id: str) -> Any:
        """GET workspaces/current/plugin/tasks/ID."""
        return {"task": daemon.manage("GET", g.account["tenant_id"], f"install/tasks/{task_id}")}

    def _app(self, app_id: str) -> Json:
        with self.services.engine.connect() as connection:
            row = database.first(connection, "SELECT * FROM apps WHERE id = :id AND tenant_id = :tenant", id=app_id, tenant=g.account["tenant_id"])
        return row or self._refuse("app_not_found", "App not found.")

    def _workflow(self, app_id: str, version: str) -> Json | None:
        if self._app(app_id)["mode"] != "workflow":
            self._refuse("app_not_found", "App not found.")
        with self.services.engine.connect() as connection:
            row = database.first(connection, "SELECT * FROM workflows WHERE app_id = :app AND version = :version", app=app_id, version=version)
        return row and {"id": row["id"], "graph": json.loads(row["graph"]), "hash": row["hash"], "version": row["version"], "features": {}}

    @staticmethod
    def _refuse(code: str, message: str) -> Json:
        raise ApiError(404, code, message)

    @staticmethod
    def _key(row: Json) -> Json:
        return {"id": row["id"], "type": "app", "token": row["token"], "last_used_at": None, "created_at": database.timestamp(row["created_at"])}

    @staticmethod
    def _shown(row: Json) -> Json:
        config = json.loads(row["model_config"]) if row.get("model_config") else None
        shown = {key: row[key] for key in ("id", "name", "mode", "description", "enable_api")}
        return shown | {"enable_site": False, "model_config": config, "created_at": database.timestamp(row["created_at"])}
