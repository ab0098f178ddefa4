"""Error messages of nginx on their way to the journal: what is left out, and what stays."""

from __future__ import annotations

import pytest

from tests.role_program import load

ERRORS = load("nginx", "nginx_errors")
FRAME = b"<187>Nov 29 05:38:04 nginx: "


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        (
            b'[error] 1#1: *1 failed, request: "POST /v1/x?api_key=hush HTTP/1.1", upstream: "https://10.1.1.1/v1/x?api_key=hush", host: "ai"',
            '[error] 1#1: *1 failed, request: "POST /v1/x?... HTTP/1.1", upstream: "https://10.1.1.1/v1/x?...", host: "ai"',
        ),
        (b'x, request: "GET /?a="hush" HTTP/2.0", host: "ai", referrer: "https://ai/?hush"', 'x, request: "GET /?... HTTP/2.0", host: "ai"'),
        (b'x, request: "GET /?a=1?hush=2"', 'x, request: "GET /?..."'),
        (b'open() "/srv/a" failed (2: No such file or directory)', 'open() "/srv/a" failed (2: No such file or directory)'),
        (b"\xff and\na line", "\\xff and\\x0aa line"),
    ],
)
def test_queries_and_referrers_are_left_out_and_all_else_stays(written: bytes, kept: str) -> None:
    assert ERRORS.cleaned(FRAME + written) == f"<3>{kept}"


def test_a_message_in_another_form_is_a_warning_without_its_query() -> None:
    assert ERRORS.cleaned(b"GET /?hush") == "<4>GET /?..."
