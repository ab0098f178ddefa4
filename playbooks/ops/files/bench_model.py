"""Measure one vLLM instance on its own host with vLLM's benchmark client, at one concurrency after another.

An instance speaks only to who shows a certificate, and the client (`vllm bench serve`, 0.32) has none to show. So this opens a port on loopback for
as long as it runs, and adds TLS to what comes there: from processes of its own user only, since nobody else on the host has any business with the
model.

Prints one JSON object, see ``main``. Run by vLLM's own interpreter, as the user who runs the instance; what the instance runs with is read from its
runtime directory.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import ssl
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

CHUNK = 65536
CONNECTIONS = Path("/proc/net/tcp")
# What the client calls a latency, and what the report does.
LATENCIES = {"ttft": "ttft", "itl": "itl", "e2el": "e2e"}
OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}


class BenchmarkError(Exception):
    """Why there is no result."""


@dataclass(frozen=True)
class Instance:
    """A running instance.

    Attributes:
        model: Name that it serves the model under.
        path: Directory of the model's files.
        address: Address that it listens on.
        port: Its port.
        name: Name that its certificate is verified against.
        context: TLS with the client certificate; nothing for plain HTTP.
    """

    model: str
    path: str
    address: str
    port: int
    name: str
    context: ssl.SSLContext | None

    @staticmethod
    def of(arguments: dict[str, Any], name: str) -> Instance:
        """Find one by the arguments that it was started with.

        Args:
            arguments: Those of `vllm serve`.
            name: Name in its certificate.
        """
        context = None
        if "ssl-certfile" in arguments:
            context = ssl.create_default_context(cafile=arguments["ssl-ca-certs"])
            context.load_cert_chain(arguments["ssl-certfile"], arguments["ssl-keyfile"])
        return Instance(arguments["served-model-name"], arguments["model"], arguments["host"], int(arguments["port"]), name, context)


@dataclass(frozen=True)
class Load:
    """What is asked.

    Attributes:
        requests: Requests for each of those that ask at a time.
        input_tokens: Length of a prompt.
        output_tokens: Length of an answer.
    """

    requests: int
    input_tokens: int
    output_tokens: int


def owner(client: tuple[str, int], server: tuple[str, int], table: Path = CONNECTIONS) -> int | None:
    """Tell which user holds the client's end of a connection over IPv4 on this host.

    Args:
        client: Its address and port.
        server: Address and port of the other end.
        table: The kernel's table of connections.

    Returns:
        The user's number; nothing if there is no such connection.
    """
    ends = [_as_in_table(*end) for end in (client, server)]
    for line in table.read_text().splitlines()[1:]:
        fields = line.split()
        if fields[1:3] == ends:
            return int(fields[7])
    return None


def _as_in_table(address: str, port: int) -> str:
    """Write an address as the kernel does: a word in the machine's byte order, and the port, in hexadecimal."""
    word = int.from_bytes(bytes(map(int, address.split("."))), sys.byteorder)
    return f"{word:08X}:{port:04X}"


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Pass on what comes until one end closes."""
    with suppress(OSError):
        while part := await reader.read(CHUNK):
            writer.write(part)
            await writer.drain()
    writer.close()


@asynccontextmanager
async def forwarder(instance: Instance) -> AsyncIterator[int]:
    """Offer an instance at a port of loopback, to processes of this user."""

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if owner(writer.get_extra_info("peername")[:2], writer.get_extra_info("sockname")[:2]) != os.getuid():
                return
            name = instance.name if instance.context else None
            far = await asyncio.open_connection(instance.address, instance.port, ssl=instance.context, server_hostname=name)
            await asyncio.gather(_pump(reader, far[1]), _pump(far[0], writer))
        except OSError as error:
            print(f"{instance.address}:{instance.port}: {error}", file=sys.stderr)
        finally:
            writer.close()

    server = await asyncio.start_server(forward, "127.0.0.1", 0)
    # Not waited for: connections end with the program, at the latest.
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def measure(vllm: str, instance: Instance, port: int, load: Load, concurrency: int, directory: Path) -> dict[str, Any]:
    """Run the benchmark client once.

    Args:
        vllm: Its program.
        instance: What is measured.
        port: Where the forwarder listens.
        load: What is asked.
        concurrency: Requests at a time.
        directory: Where the client may write.

    Returns:
        A row of the report; latencies in milliseconds.

    Raises:
        BenchmarkError: If the client fails.
    """
    options = {
        "backend": "openai",
        "base-url": f"http://127.0.0.1:{port}",
        "model": instance.model,
        "tokenizer": instance.path,
        "dataset-name": "random",
        "random-input-len": load.input_tokens,
        "random-output-len": load.output_tokens,
        # Prompts that the instance has not in its cache, from an earlier concurrency or an earlier run.
        "seed": int(time.time()) % 2**32,
        "temperature": 0,
        "num-prompts": concurrency * load.requests,
        # The first requests at a concurrency find neither connections nor, on a GPU, kernels for it.
        "num-warmups": concurrency,
        "max-concurrency": concurrency,
        "percentile-metrics": ",".join(LATENCIES),
        "metric-percentiles": "50,99",
        "result-dir": directory,
        "result-filename": "result.json",
    }
    words = [f"--{name}={value}" for name, value in options.items()]
    process = await asyncio.create_subprocess_exec(
        *(vllm, "bench", "serve", "--ignore-eos", "--disable-tqdm", "--save-result", "--save-detailed", *words),
        cwd=directory,
        env={**os.environ, **OFFLINE, "HOME": str(directory)},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, dummy = await process.communicate()
    result = directory / "result.json"
    if process.returncode or not result.exists():
        raise BenchmarkError(f"`vllm bench serve` ended with {process.returncode}:\n{said.decode(errors='replace')[-4000:]}")
    found = json.loads(result.read_text(encoding="utf-8"))
    result.unlink()
    return row(found, concurrency)


def row(found: dict[str, Any], concurrency: int) -> dict[str, Any]:
    """Make a row of the report of what the client has found."""
    errors = [error for error in found.get("errors", []) if error]
    measured = {f"{name}_p{percent}_ms": round(found[f"p{percent}_{metric}_ms"], 1) for metric, name in LATENCIES.items() for percent in (50, 99)}
    return {
        "concurrency": concurrency,
        "requests": found["completed"] + found["failed"],
        "failed": found["failed"],
        "tokens_per_s": round(found["output_throughput"], 1),
        **measured,
        "seconds": round(found["duration"], 1),
        "error": errors[0].strip().splitlines()[-1] if errors else "",
    }


async def benchmark(vllm: str, instance: Instance, load: Load, levels: list[int]) -> list[dict[str, Any]]:
    """Measure at one concurrency after another.

    Returns:
        The rows of the report, each with its ``gain``: tokens per second, in those of the first.
    """
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as directory:
        async with forwarder(instance) as port:
            for level in levels:
                rows.append(await measure(vllm, instance, port, load, level, Path(directory)))
    for one in rows:
        one["gain"] = round(one["tokens_per_s"] / rows[0]["tokens_per_s"], 2) if rows[0]["tokens_per_s"] else None
    return rows


def main(arguments: list[str]) -> int:
    """Measure, and print ``{"rows": […], "load": {…}}``.

    Returns:
        1 if there is no result; stderr says why.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vllm", default="/opt/vllm/current/bin/vllm", help="vLLM's program")
    parser.add_argument("--instance", type=Path, required=True, help="runtime directory of the instance, named like it")
    parser.add_argument("--name", required=True, help="name in the instance's certificate")
    parser.add_argument("--concurrency", type=json.loads, required=True, help="requests at a time, a JSON list")
    parser.add_argument("--requests", type=int, required=True, help="requests for each of those at a time")
    parser.add_argument("--input-tokens", type=int, required=True, help="length of a prompt")
    parser.add_argument("--output-tokens", type=int, required=True, help="length of an answer")
    options = parser.parse_args(arguments)
    started_with = options.instance / f"{options.instance.name}.yaml"
    if not started_with.exists():
        print(f"{started_with} does not exist: start the instance (systemctl start vllm@{options.instance.name}).", file=sys.stderr)
        return 1
    instance = Instance.of(yaml.safe_load(started_with.read_text(encoding="utf-8")), options.name)
    load = Load(options.requests, options.input_tokens, options.output_tokens)
    try:
        rows = asyncio.run(benchmark(options.vllm, instance, load, options.concurrency))
    except BenchmarkError as error:
        print(error, file=sys.stderr)
        return 1
    print(json.dumps({"rows": rows, "load": vars(load)}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
