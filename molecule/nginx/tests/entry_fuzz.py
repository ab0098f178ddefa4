"""Malformed requests in numbers, over HTTP/1.1 and HTTP/2, the same ones each time. Runs inside a host: it needs the standard library alone."""

from __future__ import annotations

import json
import random
import select
import socket
import ssl
import sys
import time

SECRET = "hush-fuzz"
FRAGMENTS = [
    b'"',
    b"\\",
    b"\xff\xfe",
    b"\xc3\xa4",
    b"#",
    b"?",
    b"%00",
    b"%zz",
    b"//",
    b"/../",
    b"{",
    b"'",
    b"\x7f",
    b"A" * 300,
    b";",
    b"<x>",
    b"$host",
]


def noise(chance: random.Random, fewest: int = 0) -> bytes:
    """Give some of the fragments."""
    return b"".join(chance.choice(FRAGMENTS) for _ in range(chance.randint(fewest, 3)))


def path(chance: random.Random) -> bytes:
    """Give a path, most of them with a secret in the query."""
    known = chance.choice([b"/v1/chat/completions", b"/v1/models", b"/application/x", b"/", b"/healthz", b"v1", b""])
    return known + noise(chance) + chance.choice([b"", b"?api_key=" + SECRET.encode() + noise(chance)])


def http_1(chance: random.Random, name: bytes) -> bytes:
    """Give a request that may be wrong anywhere."""
    method = chance.choice([b"GET", b"POST", b"TRACE", b"get", b"G\xffT", b"FOO-BAR", b"", b"CONNECT"])
    protocol = chance.choice([b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.0", b"HTTP/9.9", b"HTTP/0.9", b"HTP/1", b""])
    host = chance.choice([name, name, name, b"elsewhere" + noise(chance), name + b":10443", b""])
    lines = [method + b" " + path(chance) + b" " + protocol, b"Host: " + host, b"User-Agent: " + noise(chance), b"Connection: close"]
    lines += [
        chance.choice(
            [b"X Y: z", b"Content-Length: -1", b"Content-Length: 99999999999", b"Transfer-Encoding: gzip", b"Referer: /?" + SECRET.encode(), b":"]
        )
    ]
    return b"\r\n".join(lines) + b"\r\n\r\n"


def field(name: bytes, value: bytes) -> bytes:
    """Give a header in HPACK: a literal, not indexed, not compressed."""

    def text(data: bytes) -> bytes:
        if len(data) < 127:
            return bytes([len(data)]) + data
        rest, lengths = len(data) - 127, [127]
        while rest >= 128:
            lengths.append(rest % 128 + 128)
            rest //= 128
        return bytes([*lengths, rest]) + data

    return b"\0" + text(name) + text(value)


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Give a frame of HTTP/2."""
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def http_2(chance: random.Random, name: bytes, stream: int) -> bytes:
    """Give the frames of a request that may be wrong anywhere, and may be taken back at once."""
    fields = [
        (b":method", chance.choice([b"GET", b"POST", b"get", b"", b"G T", b"TRACE"])),
        (b":scheme", chance.choice([b"https", b"https", b"http", b"1", b""])),
        (b":path", path(chance)),
        (b":authority", chance.choice([name, name, name, b"elsewhere" + noise(chance), b""])),
        (b"user-agent", noise(chance)),
        (
            chance.choice([b"x-own", b"X-Upper", b":unknown", b"content-length", b"a b", b"connection", b"host"]),
            chance.choice([b"1", b"\n", noise(chance, 1)]),
        ),
    ]
    if chance.random() < 0.3:
        fields.pop(chance.randrange(4))
    if chance.random() < 0.2:
        fields.append(chance.choice(fields))
    if chance.random() < 0.2:
        chance.shuffle(fields)
    ended = chance.random() < 0.8
    sent = frame(1, 0x5 if ended else 0x4, stream, b"".join(field(*each) for each in fields))
    if not ended:
        sent += frame(0, chance.choice([0, 1]), stream, b"x" * chance.choice([0, 10]))
    if chance.random() < 0.02:
        # What ends the whole connection: a frame too large, a window of nothing, a piece of headers of no stream.
        sent += chance.choice(
            [
                frame(8, 0, stream, b"\0\0\0\0"),
                frame(9, 4, 0),
                frame(0, 8, stream, b"\xff"),
                frame(6, 0, 0, b"1"),
                frame(1, 5, stream, b"\xff\xff\xff"),
            ]
        )
    return sent + (frame(3, 0, stream, b"\0\0\0\x08") if chance.random() < 0.3 else b"")


def main() -> None:
    """Send as many requests as standard input says, as long as it says; print how many were sent in each version."""
    job = json.load(sys.stdin)
    chance, name, sent = random.Random(4711), job["name"].encode(), {"1": 0, "2": 0}  # noqa: S311
    until = time.monotonic() + job["seconds"]
    contexts = {version: ssl.create_default_context(cafile="/etc/sovereign/pki/ca.crt") for version in sent}
    contexts["1"].set_alpn_protocols(["http/1.1"])
    contexts["2"].set_alpn_protocols(["h2"])

    def speak(version: str, pieces: list[bytes], wait: float) -> None:
        with socket.create_connection((job["address"], 443), 10, (job["source"], 0)) as plain:
            try:
                with contexts[version].wrap_socket(plain, server_hostname=job["name"]) as connection:
                    if version == "2":
                        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0))
                    for piece in pieces:
                        connection.sendall(piece)
                        sent[version] += 1
                        # What it has to say is read, so that it does not wait; once it hangs up, nothing more is sent.
                        while select.select([connection], [], [], 0)[0]:
                            if not connection.recv(65536):
                                return
                    connection.settimeout(wait)
                    while connection.recv(65536):
                        pass
            except OSError:
                pass

    while sum(sent.values()) < job["requests"] and time.monotonic() < until:
        if sent["1"] * 4 < sent["2"]:
            speak("1", [http_1(chance, name)], 0.2)
        else:
            speak("2", [http_2(chance, name, stream) for stream in range(1, 120, 2)], 0.1)
    print(json.dumps(sent))


if __name__ == "__main__":
    main()
