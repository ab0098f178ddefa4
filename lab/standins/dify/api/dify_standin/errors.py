"""Refusals in the form of Dify's answers."""

from __future__ import annotations

from typing import Any


class ApiError(Exception):
    """A refusal with a status, Dify's code for it and words."""

    def __init__(self, status: int, code: str, message: str) -> None:
        """Keep what the answer needs."""
        super().__init__(message)
        self.status = status
        self.body: dict[str, Any] = {"code": code, "message": message, "status": status}
