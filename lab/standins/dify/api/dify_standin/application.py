"""The application: Dify's routes on this stand-in's views."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import Any

import socketio
from flask import Flask, jsonify
from werkzeug.exceptions import HTTPException
from werkzeug.middleware.proxy_fix import ProxyFix

from . import commands, database, logs, realtime
from .accounts import Accounts
from .apps import Apps
from .errors import ApiError
from .models import Models
from .service_api import ServiceApi
from .services import Services
from .settings import SETTINGS
from .tasks import Tasks

LOG = logging.getLogger(__name__)
View = Callable[..., Any]


def create_app(celery_worker: bool = False) -> tuple[Any, Any, Any]:
    """Start a process's part of Dify.

    Args:
        celery_worker: Whether the process is a worker.

    Returns:
        The WSGI application with Socket.IO, the Flask application within, the Celery application.
    """
    logs.configure()
    services = Services.start(database.make_engine(celery_worker))
    tasks = Tasks(services)
    app = Flask("app")
    app.secret_key = services.secret
    if SETTINGS.RESPECT_XFORWARD_HEADERS_ENABLED:
        app.wsgi_app = ProxyFix(app.wsgi_app, x_port=1)
    accounts = Accounts(services)
    _console(app, services, accounts)
    _service(app, ServiceApi(services, tasks))
    _common(app, services)
    commands.register(app, services, tasks)
    LOG.info("stand-in for Dify %s, no part of Dify itself", services.version)
    return socketio.WSGIApp(realtime.make_server(accounts), app), app, tasks.celery


def _add(app: Any, rule: str, **views: View) -> None:
    for method, view in views.items():
        app.add_url_rule(rule, f"{method} {rule}", view, methods=[method])


def _common(app: Any, services: Services) -> None:
    def health() -> Any:
        return {"pid": os.getpid(), "status": "ok", "version": services.version}

    def db_pool_stat() -> Any:
        pool = services.engine.pool
        return {"pid": os.getpid(), "pool_size": pool.size(), "checked_out_connections": pool.checkedout(), "overflow_connections": pool.overflow()}

    def mark(response: Any) -> Any:
        response.headers["X-Version"] = services.version
        response.headers["X-Env"] = SETTINGS.DEPLOY_ENV
        return response

    def refuse(error: Exception) -> Any:
        if isinstance(error, ApiError):
            return jsonify(error.body), error.status
        if isinstance(error, HTTPException):
            return jsonify({"code": error.name.lower().replace(" ", "_"), "message": error.description, "status": error.code}), error.code
        LOG.exception("internal server error.")
        return jsonify({"code": "internal_server_error", "message": "Internal Server Error", "status": 500}), 500

    _add(app, "/health", GET=health)
    _add(app, "/db-pool-stat", GET=db_pool_stat)
    app.after_request(mark)
    app.register_error_handler(Exception, refuse)


def _service(app: Any, api: ServiceApi) -> None:
    guarded = api.guarded
    _add(app, "/v1/chat-messages", POST=guarded(api.chat_messages))
    _add(app, "/v1/workflows/run", POST=guarded(api.run_workflow))
    _add(app, "/v1/workflows/run/<run_id>", GET=guarded(api.workflow_run))
    _add(app, "/v1/parameters", GET=guarded(api.parameters))
    _add(app, "/v1/info", GET=guarded(api.info))
    _add(app, "/v1/files/upload", POST=guarded(api.upload))
    _add(app, "/v1/files/<file_id>/preview", GET=guarded(api.preview))
    _add(app, "/files/<file_id>/file-preview", GET=api.signed_preview)


def _console(app: Any, services: Services, accounts: Accounts) -> None:
    guarded = accounts.guarded
    _add(app, "/console/api/setup", GET=accounts.setup_status, POST=accounts.setup)
    _add(app, "/console/api/init", GET=accounts.init_status, POST=accounts.init)
    _add(app, "/console/api/login", POST=accounts.login)
    _add(app, "/console/api/logout", POST=accounts.logout)
    _add(app, "/console/api/refresh-token", POST=accounts.refresh)
    _add(app, "/console/api/account/profile", GET=guarded(accounts.profile))
    _add(app, "/console/api/workspaces", GET=guarded(accounts.workspaces))
    _add(app, "/console/api/workspaces/current", POST=guarded(accounts.workspace))
    _add(app, "/console/api/workspaces/info", POST=guarded(accounts.rename_workspace))

    models, current = Models(services), "/console/api/workspaces/current"
    # A provider's name has slashes in it.
    provider = f"{current}/model-providers/<path:provider>/models"
    _add(app, f"{current}/model-providers", GET=guarded(models.providers))
    _add(app, provider, GET=guarded(models.models), POST=guarded(models.save_model), DELETE=guarded(models.delete_model))
    _add(
        app,
        f"{provider}/credentials",
        GET=guarded(models.credentials),
        POST=guarded(models.create_credential),
        PUT=guarded(models.update_credential),
        DELETE=guarded(models.delete_credential),
    )
    _add(app, f"{provider}/credentials/validate", POST=guarded(models.validate_credential))
    _add(app, f"{current}/models/model-types/<model_type>", GET=guarded(models.available))
    _add(app, f"{current}/default-model", GET=guarded(models.default_model), POST=guarded(models.set_default_model))

    apps, one = Apps(services), "/console/api/apps/<app_id>"
    _add(app, f"{current}/plugin/list", GET=guarded(apps.plugins))
    _add(app, f"{current}/plugin/upload/pkg", POST=guarded(apps.upload_plugin))
    _add(app, f"{current}/plugin/install/pkg", POST=guarded(apps.install_plugins))
    _add(app, f"{current}/plugin/tasks", GET=guarded(apps.plugin_tasks))
    _add(app, f"{current}/plugin/tasks/<task_id>", GET=guarded(apps.plugin_task))
    _add(app, "/console/api/apps", GET=guarded(apps.list_apps), POST=guarded(apps.create_app))
    _add(app, one, GET=guarded(apps.get_app), DELETE=guarded(apps.delete_app))
    _add(app, f"{one}/model-config", POST=guarded(apps.set_model_config))
    _add(app, f"{one}/api-keys", GET=guarded(apps.list_keys), POST=guarded(apps.create_key))
    _add(app, f"{one}/api-keys/<key_id>", DELETE=guarded(apps.delete_key))
    _add(app, f"{one}/workflows/draft", GET=guarded(apps.get_draft), POST=guarded(apps.sync_draft))
    _add(app, f"{one}/workflows/publish", GET=guarded(apps.published), POST=guarded(apps.publish))
