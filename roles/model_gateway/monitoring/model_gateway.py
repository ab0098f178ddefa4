"""Print what the model gateway has refused, as its log says, and whether HAProxy runs the configuration that is written.

``model_gateway.py --models JSON --socket FILE --configuration FILE``: the classification of each model of the cluster, by its name.

HAProxy's own metrics count statuses, but know neither model nor client. Its log does. Each run reads the entries of the journal since the run before;
counts and the journal's cursor are kept in a file.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import socket
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MEMORY = Path(os.environ.get("STATE_DIRECTORY", "/var/lib/sovereign/textfiles")) / "model_gateway.json"
UNIT = "haproxy.service"
CURSOR = "-- cursor: "
PATIENCE = 6.0
"""Seconds that the journal may take. A backlog that takes longer is passed over, and counted."""
DIGEST = re.compile(r"^\s*setenv CONFIGURATION_DIGEST (\S+)$", re.MULTILINE)
# Statuses of refusals that are counted, as the log has them.
REFUSED = re.compile(r'"status":(?:401|403|404|429|503),')
NONE = "(none)"


@dataclass
class Seen:
    """What has been refused so far.

    Attributes:
        cursor: Place in the journal.
        lost: Times that a backlog was passed over.
        counts: Refusals by reason, client, site and model.
        last: When each of them was last seen, in seconds since 1970.
    """

    cursor: str = ""
    lost: int = 0
    counts: dict[tuple[str, str, str, str], int] = field(default_factory=dict)
    last: dict[tuple[str, str, str, str], float] = field(default_factory=dict)

    def add(self, line: str, models: Mapping[str, str]) -> None:
        """Take a line of the log."""
        if not REFUSED.search(line):
            return
        try:
            entry = json.loads(line)
        except ValueError:
            return
        if isinstance(entry, dict) and (refusal := classify(entry, models)):
            self.counts[refusal] = self.counts.get(refusal, 0) + 1
            self.last[refusal] = max(self.last.get(refusal, 0.0), float(entry["time"]))


def classify(entry: Mapping[str, Any], models: Mapping[str, str]) -> tuple[str, str, str, str] | None:
    """Say what a refusal was for.

    Args:
        entry: A line of the gateway's log.
        models: Classification of each model, by its name.

    Returns:
        Reason, client, site that it came from, and model; nothing if it is none of the refusals that are counted.
    """
    client, site, asked = (NONE if entry.get(name) in (None, "", "-") else str(entry[name]) for name in ("client", "site", "model"))
    # What clients ask for is any text: only names of models that exist become labels.
    model = asked if asked in models else "" if asked == NONE else "(unknown)"
    reason = {
        401: "invalid_key",
        403: "not_granted" if model else "not_a_peer",
        404: ("not_offered" if model in models else "unknown_model") if model else "",
        429: "rate",
        # HAProxy's own answer before any pool was chosen: too many large bodies. All others are a pool without servers.
        503: "large_bodies" if entry.get("pool") == entry.get("frontend") else "",
    }.get(entry["status"], "")
    return (reason, client, site, model) if reason else None


def read_memory(file: Path) -> Seen:
    """Read what was kept; nothing was if there is no such file, or it is damaged."""
    try:
        kept = json.loads(file.read_text(encoding="utf-8"))
        return Seen(
            kept["cursor"],
            kept["lost"],
            {tuple(key): count for *key, count in kept["counts"]},
            {tuple(key): moment for *key, moment in kept["last"]},
        )
    except (OSError, ValueError, KeyError, TypeError):
        return Seen()


def keep(file: Path, seen: Seen) -> None:
    """Write at one stroke what is known."""
    text = {
        "cursor": seen.cursor,
        "lost": seen.lost,
        "counts": [[*key, count] for key, count in seen.counts.items()],
        "last": [[*key, moment] for key, moment in seen.last.items()],
    }
    draft = file.with_suffix(".draft")
    draft.write_text(json.dumps(text), encoding="utf-8")
    draft.replace(file)


def read_journal(
    seen: Seen, models: Mapping[str, str], run: Callable[[list[str]], Iterator[str]], clock: Callable[[], float] = time.monotonic
) -> None:
    """Take what has come into the journal since the last time, and remember the place.

    The first run only takes the cursor, and counts nothing.

    Args:
        seen: What is known; it is changed.
        models: Classification of each model, by its name.
        run: Runs a program, and gives its lines as they come; the program ends with the iterator.
        clock: Seconds that always go on.
    """
    command = ["journalctl", "--quiet", "--no-pager", "--output=cat", "--show-cursor", f"--unit={UNIT}"]
    if seen.cursor:
        begun, place = clock(), ""
        for line in run([*command, f"--after-cursor={seen.cursor}"]):
            if line.startswith(CURSOR):
                place = line.removeprefix(CURSOR)
            else:
                seen.add(line, models)
            if clock() - begun > PATIENCE:
                break
        if place:
            seen.cursor = place
            return
        # A backlog that is too long, or a place in a journal that is gone.
        seen.lost += 1
    seen.cursor = next((line.removeprefix(CURSOR) for line in run([*command, "--lines=0"]) if line.startswith(CURSOR)), "")


def lines_of(command: list[str]) -> Iterator[str]:
    """Run a program, and give its lines as they come."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, errors="replace") as process:
        try:
            for line in process.stdout or ():
                yield line.rstrip("\n")
        finally:
            process.kill()


def loaded(path: str) -> str:
    """Ask HAProxy for the digest of the configuration that it runs; nothing if it does not answer."""
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(2)
            connection.connect(path)
            connection.sendall(b"show env CONFIGURATION_DIGEST\n")
            answer = b""
            while part := connection.recv(4096):
                answer += part
    except OSError:
        return ""
    return answer.decode(errors="replace").strip().removeprefix("CONFIGURATION_DIGEST=")


def quoted(text: str) -> str:
    """Give a text as the value of a label."""
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def report(seen: Seen, models: Mapping[str, str], written: str, running: str) -> list[str]:
    """Give the metrics as lines of Prometheus' text format."""

    def labelled(name: str, figures: Iterable[tuple[tuple[str, str, str, str], float]]) -> list[str]:
        lines = []
        for (reason, client, site, model), figure in sorted(figures):
            values = {"reason": reason, "client": client, "from_site": site, "model": model, "classification": models.get(model, "")}
            labels = ",".join(f'{label}="{quoted(value)}"' for label, value in values.items())
            lines.append(f"{name}{{{labels}}} {figure:.0f}")
        return lines

    lines = [
        "# HELP sovereign_model_gateway_refused_total Requests that were refused, by reason.",
        "# TYPE sovereign_model_gateway_refused_total counter",
        *labelled("sovereign_model_gateway_refused_total", seen.counts.items()),
        "# HELP sovereign_model_gateway_refused_last_seconds When it was refused last, in seconds since 1970.",
        "# TYPE sovereign_model_gateway_refused_last_seconds gauge",
        *labelled("sovereign_model_gateway_refused_last_seconds", seen.last.items()),
        "# HELP sovereign_model_gateway_log_lost_total Times that a part of the log was not read, since it was too long, or its place was lost.",
        "# TYPE sovereign_model_gateway_log_lost_total counter",
        f"sovereign_model_gateway_log_lost_total {seen.lost}",
    ]
    if running and (digest := DIGEST.search(written)):
        lines += [
            "# HELP sovereign_model_gateway_configuration_loaded Whether HAProxy runs the configuration that is written.",
            "# TYPE sovereign_model_gateway_configuration_loaded gauge",
            f"sovereign_model_gateway_configuration_loaded {int(digest[1] == running)}",
        ]
    return lines


def main() -> None:
    """Read what is new, keep it, and print all."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", type=json.loads, required=True, help="classification of each model, as a JSON object")
    parser.add_argument("--socket", required=True, help="HAProxy's socket")
    parser.add_argument("--configuration", type=Path, required=True)
    given = parser.parse_args()
    seen = read_memory(MEMORY)
    read_journal(seen, given.models, lines_of)
    # A refusal that has not come again for ten weeks is no series any more.
    for key in [key for key, moment in seen.last.items() if moment < time.time() - 70 * 86400]:
        del seen.last[key], seen.counts[key]
    keep(MEMORY, seen)
    print("\n".join(report(seen, given.models, given.configuration.read_text(encoding="utf-8"), loaded(given.socket))))


if __name__ == "__main__":
    main()
