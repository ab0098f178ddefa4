"""What the tests of this scenario need beside the entries: an application that is not a model gateway."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

# Tells what has arrived; where WebSocket is asked for, agrees and sends back what it gets.
APPLICATION = """
import asyncio

async def serve(reader, writer):
    head = await reader.readuntil(b"\\r\\n\\r\\n")
    if b"upgrade: websocket" in head.lower():
        writer.write(b"HTTP/1.1 101 Switching Protocols\\r\\nUpgrade: websocket\\r\\nConnection: Upgrade\\r\\n\\r\\n")
        while part := await reader.read(100):
            writer.write(b"echo " + part)
    else:
        length = next((int(line[15:]) for line in head.lower().split(b"\\r\\n") if line.startswith(b"content-length:")), 0)
        await reader.readexactly(length)
        writer.write(b"HTTP/1.1 200 OK\\r\\nContent-Length: %d\\r\\nConnection: close\\r\\n\\r\\n" % len(head) + head)
    writer.close()

async def main():
    async with await asyncio.start_server(serve, "198.18.26.21", 8081) as server:
        await server.serve_forever()

asyncio.run(main())
"""


@pytest.fixture(scope="session")
def application(on: Any) -> Iterator[None]:
    """An application behind debian12's entry."""
    backend = on("backend")
    backend.check_output("systemd-run --unit=application --collect python3 -c %s", APPLICATION)
    backend.check_output("timeout 10 sh -c 'until ss --listening --tcp --numeric --no-header sport = :8081 | grep -q LISTEN; do sleep 0.1; done'")
    yield
    backend.check_output("systemctl stop application")


@pytest.fixture(params=["debian13", "debian12"])
def entry(request: pytest.FixtureRequest) -> str:
    """Each host with an entry: two versions of nginx."""
    return str(request.param)
