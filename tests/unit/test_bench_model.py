"""The benchmark of an instance: who gets through to it, and what is made of what vLLM's client finds."""

from __future__ import annotations

import asyncio
import datetime
import json
import os
import ssl
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.role_program import load_file

bench_model = load_file("playbooks/ops/files/bench_model.py")

NAME = "gpu1.lab.internal"
LOAD = bench_model.Load(requests=3, input_tokens=32, output_tokens=128)
# As vLLM 0.32 writes it, for what is made of it.
FOUND = {"completed": 5, "failed": 1, "output_throughput": 100.04, "duration": 2.0, "errors": ["", "Traceback ...\nBad Request\n"]} | {
    f"p{percent}_{metric}_ms": percent + 0.04 for metric in ("ttft", "itl", "e2el") for percent in (50, 99)
}


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """Give a directory with a certificate of its own issuing, as an instance has it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, NAME)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(NAME)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    (tmp_path / "host.crt").write_bytes(pem)
    (tmp_path / "ca.crt").write_bytes(pem)
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (tmp_path / "host.key").write_bytes(private)
    return tmp_path


def asked_through_the_forwarder(certificate: Path, name: str = NAME) -> tuple[bytes, list[str]]:
    """Send a line through a forwarder to a server that wants a certificate; give what came back, and whom the server has seen."""
    seen: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(dict(entry[0] for entry in writer.get_extra_info("peercert")["subject"])["commonName"])
        writer.write(b"answer to " + await reader.readline())
        writer.close()

    async def ask() -> bytes:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(certificate / "ca.crt"))
        context.load_cert_chain(certificate / "host.crt", certificate / "host.key")
        context.verify_mode = ssl.CERT_REQUIRED
        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
        arguments = {
            "served-model-name": "tiny",
            "model": "/srv/models/tiny",
            "host": "127.0.0.1",
            "port": server.sockets[0].getsockname()[1],
            "ssl-ca-certs": str(certificate / "ca.crt"),
            "ssl-certfile": str(certificate / "host.crt"),
            "ssl-keyfile": str(certificate / "host.key"),
        }
        async with bench_model.forwarder(bench_model.Instance.of(arguments, name)) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"question\n")
            answer = b""
            with suppress(ConnectionResetError):
                answer = await reader.read()
            writer.close()
        server.close()
        return answer

    return asyncio.run(asyncio.wait_for(ask(), 10)), seen


def test_what_this_user_asks_arrives_under_the_hosts_certificate(certificate: Path) -> None:
    assert asked_through_the_forwarder(certificate) == (b"answer to question\n", [NAME])


def test_other_users_of_the_host_are_turned_away(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = os.getuid() + 1
    monkeypatch.setattr(bench_model.os, "getuid", lambda: other)
    assert asked_through_the_forwarder(certificate) == (b"", [])


def test_a_server_of_another_name_is_asked_nothing(certificate: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert asked_through_the_forwarder(certificate, "gpu2.lab.internal") == (b"", [])
    assert "gpu2.lab.internal" in capsys.readouterr().err


def test_the_owner_of_a_connection_is_read_from_the_kernels_table(tmp_path: Path) -> None:
    table = tmp_path / "tcp"
    line = "{}: 0100007F:{:04X} 0100007F:{:04X} 01 00000000:00000000 00:00000000 00000000 {:5}        0 1 1 0 20 4 30 10 -1\n"
    # Both ends of one connection are there.
    table.write_text("heading\n" + line.format(0, 8000, 50000, 0) + line.format(1, 50000, 8000, 999) + line.format(2, 50001, 8001, 7))
    assert bench_model.owner(("127.0.0.1", 50000), ("127.0.0.1", 8000), table) == 999
    assert bench_model.owner(("127.0.0.1", 50001), ("127.0.0.1", 8000), table) is None


def client(directory: Path, script: str) -> str:
    """Stand in for vLLM's program."""
    path = directory / "vllm"
    path.write_text(f"#!/usr/bin/env python3\nimport json, os, sys\ngiven = dict(word[2:].partition('=')[::2] for word in sys.argv[3:])\n{script}\n")
    path.chmod(0o755)
    return str(path)


INSTANCE = bench_model.Instance("tiny", "/srv/models/tiny", "127.0.0.1", 1, NAME, None)


def benchmark(vllm: str, levels: list[int]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = asyncio.run(bench_model.benchmark(vllm, INSTANCE, LOAD, levels))
    return rows


def test_each_concurrency_is_measured_offline_with_its_share_of_requests_and_its_gain_is_told(tmp_path: Path) -> None:
    vllm = client(
        tmp_path,
        f"found = {FOUND!r}\n"
        "assert sys.argv[1:3] == ['bench', 'serve'] and os.environ['HF_HUB_OFFLINE'] == '1', sys.argv\n"
        "assert given['tokenizer'] == '/srv/models/tiny' and given['base-url'].startswith('http://127.0.0.1:'), given\n"
        "found |= {'output_throughput': 50.0 * int(given['max-concurrency']), 'completed': int(given['num-prompts']), 'failed': 0, 'errors': []}\n"
        "json.dump(found, open(f\"{given['result-dir']}/{given['result-filename']}\", 'w'))",
    )
    rows = benchmark(vllm, [1, 4])
    assert [(row["concurrency"], row["requests"], row["tokens_per_s"], row["gain"]) for row in rows] == [(1, 3, 50.0, 1.0), (4, 12, 200.0, 4.0)]


def test_a_row_holds_what_a_reader_wants_to_know() -> None:
    assert bench_model.row(FOUND, 16) == {
        "concurrency": 16,
        "requests": 6,
        "failed": 1,
        "tokens_per_s": 100.0,
        "ttft_p50_ms": 50.0,
        "ttft_p99_ms": 99.0,
        "itl_p50_ms": 50.0,
        "itl_p99_ms": 99.0,
        "e2e_p50_ms": 50.0,
        "e2e_p99_ms": 99.0,
        "seconds": 2.0,
        "error": "Bad Request",
    }


def test_a_client_that_fails_is_quoted(tmp_path: Path) -> None:
    with pytest.raises(bench_model.BenchmarkError, match=r"ended with 3:\nno tokenizer"):
        benchmark(client(tmp_path, "print('no tokenizer'); sys.exit(3)"), [1])
    with pytest.raises(bench_model.BenchmarkError, match="ended with 0"):
        benchmark(client(tmp_path, ""), [1])


def test_nothing_answered_is_no_gain(tmp_path: Path) -> None:
    found = FOUND | {"output_throughput": 0.0}
    vllm = client(tmp_path, f"json.dump({found!r}, open(f\"{{given['result-dir']}}/{{given['result-filename']}}\", 'w'))")
    assert benchmark(vllm, [1])[0]["gain"] is None


def test_an_instance_that_does_not_run_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = [f"--instance={tmp_path / 'assistant'}", f"--name={NAME}", f"--concurrency={json.dumps([1])}", "--requests=1"]
    assert bench_model.main([*options, "--input-tokens=8", "--output-tokens=8"]) == 1
    assert "systemctl start vllm@assistant" in capsys.readouterr().err
