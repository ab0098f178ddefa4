"""Gunicorn's settings: nothing that gevent patches may be imported before it has patched it."""

from typing import Any

from gevent import events


def _patched(event: Any) -> None:
    if isinstance(event, events.GeventDidPatchBuiltinModulesEvent):
        from dify_standin.patches import patch_psycopg

        patch_psycopg()


events.subscribers.append(_patched)
