#!/usr/bin/python3
"""Stand-in for Grafana's server: its settings, what it is provisioned with, and the part of its API that the role and its tests use.

As Grafana does, it keeps the password of admin that it finds at its first start, expands ``$__file{…}``, reads dashboards anew while it runs, and
data sources when it starts. Beside that, ``/api/ds/query?uid=…&expr=…`` asks a data source.
"""

from __future__ import annotations

import base64
import configparser
import json
import re
import ssl
import sys
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

TLS = {"TLS1.2": ssl.TLSVersion.TLSv1_2, "TLS1.3": ssl.TLSVersion.TLSv1_3}


def expanded(text: str) -> str:
    """Put in what lies in files."""
    return re.sub(r"\$__file\{([^}]*)\}", lambda found: Path(found[1]).read_text(encoding="utf-8").strip(), text)


class Settings:
    """``grafana.ini`` over the defaults of the command line."""

    def __init__(self, arguments: list[str]) -> None:
        """Read both."""
        options = dict(argument.removeprefix("--").split("=", 1) for argument in arguments if argument.startswith("--"))
        self.given = configparser.RawConfigParser(delimiters=("=",), comment_prefixes=("#", ";"))
        for argument in arguments:
            if argument.startswith("cfg:default."):
                name, value = argument.removeprefix("cfg:default.").split("=", 1)
                section, key = name.rsplit(".", 1)
                self.given.read_dict({section: {key: value}})
        if not self.given.read(options["config"]):
            raise SystemExit(f"no settings in {options['config']}")

    def __call__(self, section: str, name: str) -> str:
        """Give a setting."""
        return expanded(self.given[section][name])


class Source:
    """A data source of the kind prometheus."""

    def __init__(self, text: str) -> None:
        """Read an entry of a file of data sources, as the role writes it."""

        def field(name: str) -> str:
            found = re.search(rf"^\s*{name}: (.+)$", text, re.MULTILINE)
            return expanded(found[1].strip()) if found else ""

        self.uid, self.url, self.name = field("uid"), field("url"), field("serverName")
        if field("tlsAuth") != "true" or field("tlsAuthWithCACert") != "true" or field("type") != "prometheus":
            raise SystemExit(f"{self.uid}: no data source with mutual TLS")
        self.context = ssl.create_default_context(cadata=field("tlsCACert"))
        with tempfile.NamedTemporaryFile("w") as pair:
            pair.write(f"{pem(text, 'tlsClientCert')}\n{pem(text, 'tlsClientKey')}\n")
            pair.flush()
            self.context.load_cert_chain(pair.name)

    def ask(self, expr: str) -> tuple[int, dict[str, object]]:
        """Ask a question; give Prometheus' status and answer."""
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=self.context))
        body = urllib.parse.urlencode({"query": expr}).encode()
        try:
            with opener.open(f"{self.url}/api/v1/query", body, timeout=10) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, {"message": error.read().decode(errors="replace")}
        except OSError as error:
            return 502, {"message": str(error)}


def pem(text: str, name: str) -> str:
    """Give the content of the file that a secret of a data source names."""
    found = re.search(rf"^\s*{name}: (\$__file\{{[^}}]*\}})\s*$", text, re.MULTILINE)
    if not found:
        raise SystemExit(f"no {name}")
    return expanded(found[1])


def main() -> None:
    """Read, and serve."""
    settings = Settings(sys.argv[2:])
    provisioning = Path(settings("paths", "provisioning"))
    text = "\n".join(path.read_text(encoding="utf-8") for path in sorted((provisioning / "datasources").glob("*.yml")))
    sources = {source.uid: source for source in map(Source, re.split(r"^- ", text, flags=re.MULTILINE)[1:])}
    providers = "\n".join(path.read_text(encoding="utf-8") for path in sorted((provisioning / "dashboards").glob("*.yml")))
    places = [Path(place) for place in re.findall(r"^\s*path: (.+)$", providers, re.MULTILINE)]
    kept = Path(settings("paths", "data"), "password_of_admin")
    if not kept.exists():
        kept.write_text(settings("security", "admin_password"), encoding="utf-8")
        kept.chmod(0o600)
    login = "Basic " + base64.b64encode(f"{settings('security', 'admin_user')}:{kept.read_text(encoding='utf-8')}".encode()).decode()
    settings("security", "secret_key")

    class Api(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            place, _, query = self.path.partition("?")
            status, answer = self.open_to_all(place) if place in ("/api/health", "/metrics") else self.for_users(place, urllib.parse.parse_qs(query))
            body = answer.encode() if isinstance(answer, str) else json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "text/plain" if isinstance(answer, str) else "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def open_to_all(self, place: str) -> tuple[int, object]:
            return (200, "grafana_stand_in 1\n") if place == "/metrics" else (200, {"database": "ok", "version": "13.2.3"})

        def for_users(self, place: str, query: dict[str, list[str]]) -> tuple[int, object]:
            if self.headers.get("Authorization") != login:
                return 401, {"message": "Unauthorized"}
            if place == "/api/search":
                boards = [json.loads(path.read_text(encoding="utf-8")) for place in places for path in sorted(place.glob("*.json"))]
                return 200, [{"uid": board["uid"], "title": board["title"], "type": "dash-db"} for board in boards]
            if found := re.fullmatch(r"/api/datasources/uid/([^/]+)/health", place):
                status, answer = sources[found[1]].ask("1+1") if found[1] in sources else (404, {"message": "no such data source"})
                return (200, {"status": "OK"}) if status == 200 else (400, {"status": "ERROR", **answer})
            if place == "/api/ds/query":
                return sources[query["uid"][0]].ask(query["expr"][0])
            return 404, {"message": "Not found"}

        def log_message(self, *words: object) -> None:
            pass

    server = ThreadingHTTPServer((settings("server", "http_addr"), int(settings("server", "http_port"))), Api)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = TLS[settings("server", "min_tls_version")]
    context.set_ciphers("ECDHE+AESGCM:ECDHE+CHACHA20")
    context.load_cert_chain(settings("server", "cert_file"), settings("server", "cert_key"))
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    server.serve_forever()


if __name__ == "__main__":
    main()
