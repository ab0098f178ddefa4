"""The api's client of the plugin daemon, with upstream's cap of 100 connections a process."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping
from typing import Any

import httpx

from .errors import ApiError
from .settings import SETTINGS

Json = dict[str, Any]


@functools.cache
def _client() -> Any:
    limits = httpx.Limits(max_keepalive_connections=50, max_connections=100)
    return httpx.Client(limits=limits, trust_env=False, timeout=SETTINGS.PLUGIN_DAEMON_TIMEOUT)


def _target(tenant: str, path: str, plugin: str | None) -> tuple[str, dict[str, str]]:
    headers = {"X-Api-Key": SETTINGS.PLUGIN_DAEMON_KEY} | ({"X-Plugin-ID": plugin} if plugin else {})
    return f"{SETTINGS.PLUGIN_DAEMON_URL.rstrip('/')}/plugin/{tenant}/{path}", headers


def manage(method: str, tenant: str, path: str, **arguments: Any) -> Any:
    """Ask the daemon's management for something and return its `data`.

    Raises:
        ApiError: It is not there, refuses the key, or says that it cannot.
    """
    url, headers = _target(tenant, f"management/{path}", None)
    try:
        answer = _client().request(method, url, headers=headers, **arguments)
    except httpx.RequestError as error:
        raise ApiError(400, "invalid_param", f"Failed to request plugin daemon, url: {url}") from error
    if answer.status_code != 200:
        raise ApiError(400, "plugin_error", f"plugin daemon: {answer.status_code} {answer.text[:300]}")
    body = answer.json()
    if body["code"] != 0:
        raise ApiError(400, "plugin_error", body["message"])
    return body["data"]


def dispatch(tenant: str, path: str, plugin: str, data: Mapping[str, Any]) -> Iterator[Json]:
    """Have a plugin do something; yield each `data` of its stream.

    Raises:
        ApiError: The daemon is not there, or the plugin failed.
    """
    url, headers = _target(tenant, f"dispatch/{path}", plugin)
    try:
        with _client().stream("POST", url, headers=headers, json={"data": data}) as answer:
            for line in answer.iter_lines():
                text = line.removeprefix("data:").strip()
                if not text:
                    continue
                try:
                    body = json.loads(text)
                    code, message, content = body["code"], body["message"], body["data"]
                except (ValueError, KeyError, TypeError) as error:
                    raise ApiError(500, "internal_server_error", f"plugin daemon: {text[:300]}") from error
                if code != 0:
                    raise ApiError(400, "completion_request_error", str(message))
                yield content
    except httpx.RequestError as error:
        raise ApiError(500, "internal_server_error", f"Request to Plugin Daemon Service failed: {error}") from error


def split_provider(provider: str) -> tuple[str, str]:
    """Return the id of the plugin and the provider's own name in it: `author/plugin/provider`, or one word for upstream's own plugins."""
    parts = provider.split("/")
    if len(parts) == 1:
        return f"langgenius/{provider}", provider
    if len(parts) != 3:
        raise ApiError(400, "invalid_param", f"Invalid provider name: {provider}")
    return "/".join(parts[:2]), parts[2]


def validate(tenant: str, provider: str, model: str, model_type: str, credentials: Mapping[str, Any]) -> None:
    """Have the plugin try a model's credentials.

    Raises:
        ApiError: They do not work.
    """
    plugin, name = split_provider(provider)
    data = {"provider": name, "model_type": model_type, "model": model, "credentials": credentials}
    try:
        results = list(dispatch(tenant, "model/validate_model_credentials", plugin, data))
    except ApiError as error:
        raise ApiError(400, "invalid_param", str(error)) from error
    if not results or not results[0].get("result"):
        raise ApiError(400, "invalid_param", "credentials validation failed")


def invoke(
    tenant: str, provider: str, model: str, credentials: Mapping[str, Any], messages: list[Json], parameters: Mapping[str, Any]
) -> Iterator[str]:
    """Have a model answer; yield its text as it comes."""
    plugin, name = split_provider(provider)
    data = {
        "provider": name,
        "model_type": "llm",
        "model": model,
        "credentials": credentials,
        # As Dify writes its messages out: a name is there, also where there is none.
        "prompt_messages": [{**message, "name": None} for message in messages],
        "model_parameters": parameters,
        "stream": True,
    }
    for chunk in dispatch(tenant, "llm/invoke", plugin, data):
        text: str = chunk["delta"]["message"]["content"]
        if text:
            yield text
