"""Set-up, login and sessions of the console."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Callable
from typing import Any

import jwt
from cryptography.fernet import Fernet
from flask import g, make_response, request, session

from . import database
from .errors import ApiError
from .services import Services
from .settings import SETTINGS

PASSWORD = re.compile(r"(?=.*[a-zA-Z])(?=.*\d).{8,}")
HASH_ROUNDS = 10_000


def tenant_key(tenant: str) -> str:
    """Return the name in the storage of a tenant's key."""
    return f"privkeys/{tenant}/private.pem"


def _hash(password: str, salt: bytes) -> str:
    return base64.b64encode(hashlib.pbkdf2_hmac("sha256", password.encode(), salt, HASH_ROUNDS)).decode()


def payload() -> dict[str, Any]:
    """Return the request's JSON object.

    Raises:
        ApiError: It has none.
    """
    body = request.get_json(silent=True)
    if not isinstance(body, dict):
        raise ApiError(400, "bad_request", "Invalid JSON payload received or JSON payload is empty.")
    return body


def required(body: dict[str, Any], *names: str) -> list[Any]:
    """Return fields of a body.

    Raises:
        ApiError: One is missing.
    """
    for name in names:
        if body.get(name) in (None, ""):
            raise ApiError(400, "invalid_param", f"{name}: Field required")
    return [body[name] for name in names]


class Accounts:
    """The console's doors."""

    def __init__(self, services: Services) -> None:
        """Use the process's services."""
        self.services = services

    def setup_status(self) -> Any:
        """GET /console/api/setup: the one probe that asks the database."""
        with self.services.engine.connect() as connection:
            done = database.first(connection, "SELECT setup_at FROM dify_setups LIMIT 1")
        return {"step": "finished", "setup_at": done["setup_at"].isoformat()} if done else {"step": "not_started", "setup_at": None}

    def setup(self) -> Any:
        """POST /console/api/setup: the first account, its workspace and the workspace's key."""
        body = payload()
        email, name, password = required(body, "email", "name", "password")
        if len(name) > 30:
            raise ApiError(400, "invalid_param", "name: String should have at most 30 characters")
        if not PASSWORD.fullmatch(password):
            raise ApiError(400, "invalid_param", "Password must contain letters and numbers, and the length must be greater than 8.")
        if not self._init_validated():
            raise ApiError(401, "not_init_validated", "Init validation has not been completed yet.")
        tenant, salt, moment = database.new_id(), secrets.token_bytes(16), database.now()
        with self.services.engine.begin() as connection:
            if database.first(connection, "SELECT 1 AS there FROM dify_setups"):
                raise ApiError(
                    403, "already_setup", "Dify has been successfully installed. Please refresh the page or return to the dashboard homepage."
                )
            self.services.storage.save(tenant_key(tenant), Fernet.generate_key())
            database.insert(connection, "tenants", {"id": tenant, "name": f"{name}'s Workspace", "created_at": moment})
            account = {
                "id": database.new_id(),
                "tenant_id": tenant,
                "email": email.lower(),
                "name": name,
                "password": _hash(password, salt),
                "password_salt": base64.b64encode(salt).decode(),
                "interface_language": body.get("language") or "en-US",
                "created_at": moment,
            }
            database.insert(connection, "accounts", account)
            database.insert(connection, "dify_setups", {"version": self.services.version, "setup_at": moment})
        return {"result": "success"}, 201

    def init_status(self) -> Any:
        """GET /console/api/init."""
        return {"status": "finished" if self._init_validated() else "not_started"}

    def init(self) -> Any:
        """POST /console/api/init: the password that guards the set-up."""
        if not hmac.compare_digest(str(payload().get("password", "")), SETTINGS.INIT_PASSWORD):
            raise ApiError(401, "init_validate_failed", "Init validation failed. Please check the password and try again.")
        session["is_init_validated"] = True
        return {"result": "success"}, 201

    def _init_validated(self) -> bool:
        if not SETTINGS.INIT_PASSWORD or session.get("is_init_validated"):
            return True
        with self.services.engine.connect() as connection:
            return database.first(connection, "SELECT 1 AS there FROM dify_setups") is not None

    def login(self) -> Any:
        """POST /console/api/login: the password comes in base64, the tokens go as cookies."""
        self._require_setup()
        email, encoded = required(payload(), "email", "password")
        refused = ApiError(401, "authentication_failed", "Invalid email or password.")
        try:
            password = base64.b64decode(encoded, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            raise refused from None
        with self.services.engine.connect() as connection:
            account = database.first(connection, "SELECT * FROM accounts WHERE email = :email", email=email.lower())
        if not account or not hmac.compare_digest(_hash(password, base64.b64decode(account["password_salt"])), account["password"]):
            raise refused
        return self._with_tokens(account["id"])

    def refresh(self) -> Any:
        """POST /console/api/refresh-token: refresh tokens are in Redis, so that every node knows them."""
        token = request.cookies.get(self._cookie("refresh_token"), "")
        account = self.services.redis.getdel(f"refresh_token:{token}") if token else None
        if not account:
            raise ApiError(401, "unauthorized", "Invalid refresh token")
        return self._with_tokens(account.decode())

    def logout(self) -> Any:
        """POST /console/api/logout."""
        answer = make_response({"result": "success"})
        for name in ("access_token", "refresh_token", "csrf_token"):
            answer.delete_cookie(self._cookie(name))
        return answer

    def profile(self) -> Any:
        """GET /console/api/account/profile."""
        account = g.account
        shown = {key: account[key] for key in ("id", "name", "email", "interface_language")}
        return shown | {"created_at": database.timestamp(account["created_at"]), "is_password_set": True}

    def workspaces(self) -> Any:
        """GET /console/api/workspaces."""
        return {"workspaces": [self.workspace()]}

    def workspace(self) -> Any:
        """POST /console/api/workspaces/current: it only reads."""
        with self.services.engine.connect() as connection:
            tenant = database.first(connection, "SELECT * FROM tenants WHERE id = :id", id=g.account["tenant_id"]) or {}
        shown = {"id": tenant["id"], "name": tenant["name"], "plan": "sandbox", "status": "normal", "current": True}
        return shown | {"created_at": database.timestamp(tenant["created_at"])}

    def rename_workspace(self) -> Any:
        """POST /console/api/workspaces/info."""
        [name] = required(payload(), "name")
        with self.services.engine.begin() as connection:
            database.execute(connection, "UPDATE tenants SET name = :name WHERE id = :id", name=name, id=g.account["tenant_id"])
        return {"result": "success", "tenant": {"id": g.account["tenant_id"], "name": name}}

    def guarded(self, view: Callable[..., Any]) -> Callable[..., Any]:
        """Return a view that wants a session: the access token, and the same CSRF token as header and as cookie."""

        def guard(**arguments: Any) -> Any:
            self._require_setup()
            scheme, _, bearer = request.headers.get("Authorization", "").partition(" ")
            token = request.cookies.get(self._cookie("access_token")) or (bearer if scheme.lower() == "bearer" else "")
            who = self.verify(token)
            csrf = request.headers.get("X-CSRF-Token")
            if not csrf or csrf != request.cookies.get(self._cookie("csrf_token")) or self.verify(csrf) != who:
                raise ApiError(401, "unauthorized", "CSRF token is missing or invalid.")
            with self.services.engine.connect() as connection:
                account = database.first(connection, "SELECT * FROM accounts WHERE id = :id", id=who)
            if not account:
                raise ApiError(401, "unauthorized", "Invalid Authorization token.")
            g.account = account
            return view(**arguments)

        return guard

    def verify(self, token: str) -> str:
        """Return whose token it is.

        Raises:
            ApiError: Nobody's here: it is over, or another node's SECRET_KEY signed it.
        """
        try:
            who: str = jwt.decode(token, self.services.secret, algorithms=["HS256"])["sub"]
        except jwt.ExpiredSignatureError:
            raise ApiError(401, "unauthorized", "Token has expired.") from None
        except jwt.InvalidSignatureError:
            raise ApiError(401, "unauthorized", "Invalid token signature.") from None
        except (jwt.PyJWTError, KeyError):
            raise ApiError(401, "unauthorized", "Invalid token.") from None
        return who

    def _require_setup(self) -> None:
        with self.services.engine.connect() as connection:
            if not database.first(connection, "SELECT 1 AS there FROM dify_setups"):
                raise ApiError(
                    401, "not_setup", "Dify has not been initialized and installed yet. Please proceed with the installation process first."
                )

    def _with_tokens(self, account: str) -> Any:
        answer = make_response({"result": "success"})
        lifetime = SETTINGS.ACCESS_TOKEN_EXPIRE_MINUTES * 60
        claims = {"sub": account, "exp": int(time.time()) + lifetime}
        refresh = secrets.token_hex(64)
        self.services.redis.setex(f"refresh_token:{refresh}", 30 * 86400, account)
        common = {"path": "/", "domain": SETTINGS.COOKIE_DOMAIN.removeprefix(".") or None, "secure": SETTINGS.secure, "samesite": "Lax"}
        access = jwt.encode({**claims, "token_source": "console"}, self.services.secret, algorithm="HS256")
        answer.set_cookie(self._cookie("access_token"), access, httponly=True, max_age=lifetime, **common)
        answer.set_cookie(self._cookie("refresh_token"), refresh, httponly=True, max_age=30 * 86400, **common)
        csrf = jwt.encode(claims, self.services.secret, algorithm="HS256")
        answer.set_cookie(self._cookie("csrf_token"), csrf, max_age=lifetime, **common)
        return answer

    @staticmethod
    def _cookie(name: str) -> str:
        return f"__Host-{name}" if SETTINGS.secure and not SETTINGS.COOKIE_DOMAIN else name
