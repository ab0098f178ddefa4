"""Socket.IO for people who edit a workflow together; nodes reach each other through the event bus's Redis."""

from __future__ import annotations

from collections.abc import Mapping
from http.cookies import SimpleCookie
from typing import Any

import socketio

from .accounts import Accounts
from .errors import ApiError
from .redis_clients import prefixed
from .settings import SETTINGS


def make_server(accounts: Accounts) -> Any:
    """Return the Socket.IO server; its events have Dify's names."""
    manager = socketio.RedisManager(SETTINGS.event_bus_url, channel=prefixed("socketio"))
    server = socketio.Server(async_mode="gevent", client_manager=manager, cors_allowed_origins="*")

    def connect(sid: str, environ: Mapping[str, Any], auth: Mapping[str, Any] | None = None) -> bool:
        cookies = SimpleCookie(environ.get("HTTP_COOKIE", ""))
        token = (auth or {}).get("session_token") or next(
            (cookies[name].value for name in ("access_token", "__Host-access_token") if name in cookies), ""
        )
        try:
            server.save_session(sid, {"user_id": accounts.verify(token)})
        except ApiError:
            return False
        return True

    def user_connect(sid: str, data: Mapping[str, Any]) -> tuple[dict[str, Any], int]:
        workflow = data.get("workflow_id")
        if not workflow:
            return {"msg": "workflow_id is required"}, 400
        server.enter_room(sid, workflow)
        user = server.get_session(sid)["user_id"]
        server.save_session(sid, {"user_id": user, "workflow_id": workflow})
        server.emit("online_users", {"workflow_id": workflow, "users": [{"user_id": user, "sid": sid}]}, room=workflow)
        return {"msg": "connected", "user_id": user, "sid": sid, "isLeader": False}, 200

    def collaboration_event(sid: str, data: Mapping[str, Any]) -> tuple[dict[str, Any], int]:
        known = server.get_session(sid)
        if "workflow_id" not in known:
            return {"msg": "unauthorized"}, 401
        server.emit(
            "collaboration_update",
            {"type": data.get("type"), "userId": known["user_id"], "data": data.get("data")},
            room=known["workflow_id"],
            skip_sid=sid,
        )
        return {"msg": "event_broadcasted"}, 200

    for name, handler in {"connect": connect, "user_connect": user_connect, "collaboration_event": collaboration_event}.items():
        server.on(name, handler=handler)
    return server
