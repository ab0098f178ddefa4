"""The console's model providers: what the plugins offer, the models registered with them, the default model."""

from __future__ import annotations

import json
from typing import Any

from cryptography.fernet import Fernet, InvalidToken
from flask import g, request

from . import daemon, database
from .accounts import payload, required, tenant_key
from .errors import ApiError
from .services import Services

Json = dict[str, Any]
HIDDEN = "[__HIDDEN__]"
MODEL_TYPES = ("llm", "text-embedding", "rerank", "speech2text", "moderation", "tts")


def obfuscated(token: str) -> str:
    """Return a secret as it is shown."""
    return "*" * 20 if len(token) <= 8 else f"{token[:6]}{'*' * 12}{token[-2:]}"


class Models:
    """Routes below /console/api/workspaces/current that are about models, and the lookup of credentials for calls."""

    def __init__(self, services: Services) -> None:
        """Use the process's services."""
        self.services = services

    def providers(self) -> Any:
        """GET model-providers."""
        wanted = request.args.get("model_type")
        tenant = g.account["tenant_id"]
        with self.services.engine.connect() as connection:
            rows = database.select(
                connection, "SELECT * FROM provider_model_credentials WHERE tenant_id = :tenant ORDER BY created_at", tenant=tenant
            )
        return {
            "data": [
                self._provider(tenant, entity, [row for row in rows if row["provider_name"] == self._full_name(entity)])
                for entity in self._offered(tenant)
                if not wanted or wanted in entity["declaration"]["supported_model_types"]
            ]
        }

    def models(self, provider: str) -> Any:
        """GET model-providers/PROVIDER/models."""
        return {"data": [self._model(row) for row in self._rows(provider)]}

    def save_model(self, provider: str) -> Any:
        """POST model-providers/PROVIDER/models: choose the credential that a model uses; there is one, so this only checks it."""
        body = payload()
        self._model_of(body)
        if body.get("config_from") == "custom-model" and body.get("credential_id") not in {row["id"] for row in self._rows(provider)}:
            raise ApiError(400, "invalid_param", "credential_id is required when configuring a custom-model")
        return {"result": "success"}

    def delete_model(self, provider: str) -> Any:
        """DELETE model-providers/PROVIDER/models."""
        model, model_type = self._model_of(payload())
        self._delete("", provider=provider, model=model, model_type=model_type)
        return "", 204

    def credentials(self, provider: str) -> Any:
        """GET model-providers/PROVIDER/models/credentials: one model's, its secrets hidden."""
        model, model_type = self._model_of(dict(request.args))
        rows = [row for row in self._rows(provider) if (row["model_name"], row["model_type"]) == (model, model_type)]
        wanted = request.args.get("credential_id")
        current = next((row for row in rows if not wanted or row["id"] == wanted), None)
        return {
            "credentials": self._shown(provider, self._decrypt(current)) if current else {},
            "current_credential_id": current["id"] if current else None,
            "current_credential_name": current["credential_name"] if current else None,
            "load_balancing": {"enabled": False, "configs": []},
            "available_credentials": [self._credential(row) for row in rows],
        }

    def create_credential(self, provider: str) -> Any:
        """POST model-providers/PROVIDER/models/credentials: tried on the model itself before it is kept."""
        body = payload()
        model, model_type = self._model_of(body)
        credentials = body.get("credentials")
        if not isinstance(credentials, dict):
            raise ApiError(400, "invalid_param", "credentials: Field required")
        name = body.get("name") or model
        rows = self._rows(provider)
        if any((row["model_name"], row["model_type"], row["credential_name"]) == (model, model_type, name) for row in rows):
            raise ApiError(400, "invalid_param", f"Model credential with name '{name}' already exists for {model}.")
        tenant = g.account["tenant_id"]
        self._secrets(provider)
        daemon.validate(tenant, provider, model, model_type, credentials)
        row = {
            "id": database.new_id(),
            "tenant_id": tenant,
            "provider_name": provider,
            "model_name": model,
            "model_type": model_type,
            "credential_name": name,
            "encrypted_config": self._encrypt(tenant, credentials),
            "created_at": database.now(),
        }
        with self.services.engine.begin() as connection:
            database.insert(connection, "provider_model_credentials", row)
        return {"result": "success"}, 201

    def update_credential(self, provider: str) -> Any:
        """PUT model-providers/PROVIDER/models/credentials: a secret given as it is shown stays what it was."""
        body = payload()
        model, model_type = self._model_of(body)
        credentials, wanted = required(body, "credentials", "credential_id")
        row = next((row for row in self._rows(provider) if row["id"] == wanted), None)
        if not row:
            raise ApiError(400, "invalid_param", "Credential record not found.")
        known = self._decrypt(row)
        for name in self._secrets(provider):
            if credentials.get(name) in (HIDDEN, obfuscated(known.get(name, ""))):
                credentials[name] = known.get(name, "")
        tenant = g.account["tenant_id"]
        daemon.validate(tenant, provider, model, model_type, credentials)
        statement = "UPDATE provider_model_credentials SET encrypted_config = :config, credential_name = :name WHERE id = :id"
        with self.services.engine.begin() as connection:
            database.execute(
                connection, statement, config=self._encrypt(tenant, credentials), name=body.get("name") or row["credential_name"], id=wanted
            )
        return {"result": "success"}

    def delete_credential(self, provider: str) -> Any:
        """DELETE model-providers/PROVIDER/models/credentials."""
        body = payload()
        model, model_type = self._model_of(body)
        [wanted] = required(body, "credential_id")
        if not self._delete(" AND id = :id", provider=provider, model=model, model_type=model_type, id=wanted):
            raise ApiError(400, "invalid_param", "Credential record not found.")
        return "", 204

    def validate_credential(self, provider: str) -> Any:
        """POST model-providers/PROVIDER/models/credentials/validate."""
        body = payload()
        model, model_type = self._model_of(body)
        try:
            daemon.validate(g.account["tenant_id"], provider, model, model_type, body.get("credentials") or {})
        except ApiError as error:
            return {"result": "error", "error": str(error)}
        return {"result": "success"}

    def available(self, model_type: str) -> Any:
        """GET models/model-types/TYPE: providers that have a model of the type."""
        tenant = g.account["tenant_id"]
        found = []
        for entity in self._offered(tenant):
            models = [self._model(row) for row in self._rows(self._full_name(entity)) if row["model_type"] == model_type]
            if models:
                head = {"tenant_id": tenant, "provider": self._full_name(entity), "label": entity["declaration"]["label"], "status": "active"}
                found.append(head | {"models": models})
        return {"data": found}

    def default_model(self) -> Any:
        """GET default-model."""
        wanted = request.args.get("model_type", "")
        if wanted not in MODEL_TYPES:
            raise ApiError(400, "invalid_param", f"model_type: Input should be one of {', '.join(MODEL_TYPES)}")
        row = self.default(g.account["tenant_id"], wanted)
        if not row:
            return {"data": None}
        return {"data": {"model": row["model_name"], "model_type": wanted, "provider": {"provider": row["provider_name"]}}}

    def set_default_model(self) -> Any:
        """POST default-model."""
        tenant = g.account["tenant_id"]
        statement = """INSERT INTO tenant_default_models (tenant_id, model_type, provider_name, model_name)
            VALUES (:tenant, :model_type, :provider, :model)
            ON CONFLICT (tenant_id, model_type) DO UPDATE SET provider_name = :provider, model_name = :model"""
        for wanted in payload().get("model_settings", []):
            if wanted.get("provider") is None:
                continue
            self.lookup(tenant, wanted["provider"], wanted["model"])
            with self.services.engine.begin() as connection:
                database.execute(connection, statement, tenant=tenant, **{key: wanted[key] for key in ("model_type", "provider", "model")})
        return {"result": "success"}

    def default(self, tenant: str, model_type: str) -> Json | None:
        """Return the tenant's default model of a type."""
        with self.services.engine.connect() as connection:
            statement = "SELECT * FROM tenant_default_models WHERE tenant_id = :tenant AND model_type = :model_type"
            return database.first(connection, statement, tenant=tenant, model_type=model_type)

    def lookup(self, tenant: str, provider: str, model: str) -> Json:
        """Return the credentials that a model is called with.

        Raises:
            ApiError: The model is not registered, or the tenant's key is not where this node looks for it.
        """
        with self.services.engine.connect() as connection:
            statement = """SELECT * FROM provider_model_credentials
                WHERE tenant_id = :tenant AND provider_name = :provider AND model_name = :model ORDER BY created_at LIMIT 1"""
            row = database.first(connection, statement, tenant=tenant, provider=provider, model=model)
        if not row:
            raise ApiError(400, "provider_not_initialize", f"Model {model} credentials is not initialized.")
        return self._decrypt(row)

    def _offered(self, tenant: str) -> list[Json]:
        found: list[Json] = daemon.manage("GET", tenant, "models", params={"page": 1, "page_size": 256})
        return found

    @staticmethod
    def _full_name(entity: Json) -> str:
        return f"{entity['plugin_id']}/{entity['provider']}"

    def _secrets(self, provider: str) -> list[str]:
        for entity in self._offered(g.account["tenant_id"]):
            if self._full_name(entity) == provider:
                schema = entity["declaration"]["model_credential_schema"]["credential_form_schemas"]
                return [field["variable"] for field in schema if field["type"] == "secret-input"]
        raise ApiError(400, "invalid_param", f"Provider {provider} does not exist.")

    def _shown(self, provider: str, credentials: Json) -> Json:
        return credentials | {name: obfuscated(credentials[name]) for name in self._secrets(provider) if credentials.get(name)}

    def _rows(self, provider: str) -> list[Json]:
        with self.services.engine.connect() as connection:
            statement = "SELECT * FROM provider_model_credentials WHERE tenant_id = :tenant AND provider_name = :provider ORDER BY created_at"
            return database.select(connection, statement, tenant=g.account["tenant_id"], provider=provider)

    def _delete(self, more: str, **values: Any) -> int:
        statement = "DELETE FROM provider_model_credentials WHERE tenant_id = :tenant AND provider_name = :provider AND model_name = :model"
        with self.services.engine.begin() as connection:
            return database.execute(connection, f"{statement} AND model_type = :model_type{more}", tenant=g.account["tenant_id"], **values)

    def _fernet(self, tenant: str) -> Any:
        try:
            return Fernet(self.services.storage.load(tenant_key(tenant)))
        except FileNotFoundError:
            raise ApiError(400, "invalid_param", f"Private key not found, tenant_id: {tenant}") from None

    def _encrypt(self, tenant: str, credentials: Json) -> str:
        encrypted: bytes = self._fernet(tenant).encrypt(json.dumps(credentials).encode())
        return encrypted.decode()

    def _decrypt(self, row: Json) -> Json:
        try:
            credentials: Json = json.loads(self._fernet(row["tenant_id"]).decrypt(row["encrypted_config"].encode()))
        except InvalidToken:
            raise ApiError(400, "invalid_param", "Incorrect decryption.") from None
        return credentials

    @staticmethod
    def _model_of(body: Json) -> tuple[str, str]:
        model, model_type = required(body, "model", "model_type")
        if model_type not in MODEL_TYPES:
            raise ApiError(400, "invalid_param", f"model_type: Input should be one of {', '.join(MODEL_TYPES)}")
        return model, model_type

    @staticmethod
    def _credential(row: Json) -> Json:
        return {"credential_id": row["id"], "credential_name": row["credential_name"]}

    @staticmethod
    def _model(row: Json) -> Json:
        return {
            "model": row["model_name"],
            "model_type": row["model_type"],
            "label": {"en_US": row["model_name"], "zh_Hans": row["model_name"]},
            "fetch_from": "customizable-model",
            "model_properties": {"mode": "chat"},
            "status": "active",
            "deprecated": False,
            "load_balancing_enabled": False,
            "provider": {"provider": row["provider_name"]},
        }

    def _provider(self, tenant: str, entity: Json, rows: list[Json]) -> Json:
        declaration = entity["declaration"]
        custom: dict[tuple[str, str], Json] = {}
        for row in rows:
            first = {"model": row["model_name"], "model_type": row["model_type"], "credentials": None} | {
                "current_credential_id": row["id"],
                "current_credential_name": row["credential_name"],
                "available_model_credentials": [],
                "unadded_to_model_list": False,
            }
            known = custom.setdefault((row["model_name"], row["model_type"]), first)
            known["available_model_credentials"].append(self._credential(row))
        return {
            "tenant_id": tenant,
            "provider": self._full_name(entity),
            "label": declaration["label"],
            "supported_model_types": declaration["supported_model_types"],
            "configurate_methods": declaration["configurate_methods"],
            "provider_credential_schema": declaration.get("provider_credential_schema"),
            "model_credential_schema": declaration["model_credential_schema"],
            "preferred_provider_type": "custom",
            "custom_configuration": {
                "status": "active" if rows else "no-configure",
                "current_credential_id": None,
                "current_credential_name": None,
                "available_credentials": [],
                "custom_models": list(custom.values()),
                "can_added_models": [],
            },
            "system_configuration": {"enabled": False, "current_quota_type": None, "quota_configurations": []},
        }
