"""Dify's two ways to Redis: the client for locks and counters, which knows Sentinel, and the event bus, which does not."""

from __future__ import annotations

import json
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import redis
from redis.backoff import ExponentialWithJitterBackoff
from redis.retry import Retry
from redis.sentinel import Sentinel

from .settings import SETTINGS

PING = "ping"
IDLE_SECONDS = 300.0
PING_SECONDS = 10.0


def _health() -> dict[str, Any]:
    backoff = ExponentialWithJitterBackoff(base=SETTINGS.REDIS_RETRY_BACKOFF_BASE, cap=SETTINGS.REDIS_RETRY_BACKOFF_CAP)
    errors = (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError, OSError)
    return {
        "retry": Retry(backoff, SETTINGS.REDIS_RETRY_RETRIES, supported_errors=errors),
        "socket_timeout": SETTINGS.REDIS_SOCKET_TIMEOUT,
        "socket_connect_timeout": SETTINGS.REDIS_SOCKET_CONNECT_TIMEOUT,
        "health_check_interval": SETTINGS.REDIS_HEALTH_CHECK_INTERVAL,
        **_keepalive(),
    }


def _keepalive() -> dict[str, Any]:
    options = {
        socket.TCP_KEEPIDLE: SETTINGS.REDIS_KEEPALIVE_IDLE,
        socket.TCP_KEEPINTVL: SETTINGS.REDIS_KEEPALIVE_INTERVAL,
        socket.TCP_KEEPCNT: SETTINGS.REDIS_KEEPALIVE_COUNT,
    }
    return {"socket_keepalive": SETTINGS.REDIS_KEEPALIVE, "socket_keepalive_options": options}


def _tls() -> dict[str, Any]:
    if not SETTINGS.REDIS_USE_SSL:
        return {}
    return {"ssl": True, "ssl_cert_reqs": getattr(ssl, SETTINGS.REDIS_SSL_CERT_REQS), "ssl_ca_certs": SETTINGS.REDIS_SSL_CA_CERTS or None}


def make_client() -> Any:
    """Return the client for everything but events; through Sentinel it passes no TLS parameters, as Dify's does not."""
    common = {
        "username": SETTINGS.REDIS_USERNAME or None,
        "password": SETTINGS.REDIS_PASSWORD or None,
        "db": SETTINGS.REDIS_DB,
        "protocol": SETTINGS.REDIS_SERIALIZATION_PROTOCOL,
        **_health(),
    }
    if not SETTINGS.REDIS_USE_SENTINEL:
        return redis.Redis(host=SETTINGS.REDIS_HOST, port=SETTINGS.REDIS_PORT, **common, **_tls())
    if not SETTINGS.REDIS_SENTINELS or not SETTINGS.REDIS_SENTINEL_SERVICE_NAME:
        raise ValueError("REDIS_SENTINELS and REDIS_SENTINEL_SERVICE_NAME must be set when REDIS_USE_SENTINEL is True")
    nodes = [(host, int(port)) for host, port in (node.split(":") for node in SETTINGS.REDIS_SENTINELS.split(","))]
    sentinels = Sentinel(
        nodes,
        sentinel_kwargs={
            "socket_timeout": SETTINGS.REDIS_SENTINEL_SOCKET_TIMEOUT,
            "username": SETTINGS.REDIS_SENTINEL_USERNAME or None,
            "password": SETTINGS.REDIS_SENTINEL_PASSWORD or None,
            **_keepalive(),
        },
    )
    return sentinels.master_for(SETTINGS.REDIS_SENTINEL_SERVICE_NAME, **common)


def prefixed(name: str) -> str:
    """Return a key's name under REDIS_KEY_PREFIX."""
    return f"{SETTINGS.REDIS_KEY_PREFIX}:{name}" if SETTINGS.REDIS_KEY_PREFIX else name


class EventBus:
    """Events from workers to the api that streams them, over Redis by pub/sub, sharded pub/sub or streams."""

    def __init__(self, client: Any, kind: str) -> None:
        """Use a client; `kind` is one of EVENT_BUS_REDIS_CHANNEL_TYPE's."""
        self.client = client
        self.kind = kind

    @classmethod
    def from_settings(cls) -> EventBus:
        """Return the bus of the settings; nothing connects yet."""
        return cls(redis.Redis.from_url(SETTINGS.event_bus_url, **_health()), SETTINGS.EVENT_BUS_REDIS_CHANNEL_TYPE)

    def publish(self, topic: str, event: Mapping[str, Any]) -> None:
        """Send an event to whoever listens to the topic."""
        key, payload = prefixed(topic), json.dumps(event)
        if self.kind == "streams":
            self.client.xadd(key, {"data": payload}, maxlen=10000)
            self.client.expire(key, SETTINGS.EVENT_BUS_STREAMS_RETENTION_SECONDS)
        elif self.kind == "sharded":
            self.client.spublish(key, payload)
        else:
            self.client.publish(key, payload)

    def events(self, topic: str, last: str, on_subscribe: Callable[[], None]) -> Iterator[dict[str, Any] | str]:
        """Yield what arrives on a topic.

        Args:
            topic: Its name.
            last: The event after which the iteration ends.
            on_subscribe: Called when nothing can be missed any more.

        Yields:
            PING at once and every 10 s of silence, and the events. Ends, too, after 300 s of silence.
        """
        yield PING
        silent = 0.0
        source = self._stream(prefixed(topic), on_subscribe) if self.kind == "streams" else self._channel(prefixed(topic), on_subscribe)
        for message in source:
            if message is None:
                silent += 1
                if silent > IDLE_SECONDS:
                    return
                if silent % PING_SECONDS == 0:
                    yield PING
                continue
            silent = 0.0
            event: dict[str, Any] = json.loads(message)
            yield event
            if event.get("event") == last:
                return

    def _channel(self, key: str, on_subscribe: Callable[[], None]) -> Iterator[bytes | None]:
        with self.client.pubsub() as channel:
            (channel.ssubscribe if self.kind == "sharded" else channel.subscribe)(key)
            # The server's word that the subscription stands: what is published before it is lost.
            channel.get_message(timeout=SETTINGS.REDIS_SOCKET_TIMEOUT)
            on_subscribe()
            while True:
                message = channel.get_message(ignore_subscribe_messages=True, timeout=1)
                yield message["data"] if message else None

    def _stream(self, key: str, on_subscribe: Callable[[], None]) -> Iterator[bytes | None]:
        on_subscribe()
        seen: bytes | str = "0-0"
        while True:
            found = self.client.xread({key: seen}, block=1000)
            if not found:
                yield None
                continue
            # RESP 3 answers a mapping, RESP 2 pairs.
            entries = next(iter(found.values()))[0] if isinstance(found, dict) else found[0][1]
            for entry, fields in entries:
                seen = entry
                yield fields[b"data"]
