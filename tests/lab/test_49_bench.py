"""What a model server gains by working on many requests at once, measured by the playbook that operators have for it."""

from __future__ import annotations

import json
import subprocess
import threading
from pathlib import Path
from typing import Any

from lab.testing import PROJECT, vllm_metric
from tests.lab.conftest import execute


class Running:
    """Asks vLLM again and again how many requests it works on together; continuous batching is why a model needs a server at all."""

    def __init__(self) -> None:
        """Nothing has been asked yet."""
        self.most = 0.0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._ask)

    def _ask(self) -> None:
        while not self._over.wait(0.2):
            self.most = max(self.most, vllm_metric("hq-gpu1", "assistant", "num_requests_running"))

    def __enter__(self) -> Running:
        """Begin."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End."""
        self._over.set()
        self._thread.join()


def bench(report: Path, **variables: object) -> subprocess.CompletedProcess[str]:
    """Run the benchmark on the on-premises model host."""
    # Answers longer than prompts, and short enough for two cores that the whole lab shares.
    given = {"bench_requests": 3, "bench_input_tokens": 32, "bench_output_tokens": 128, "bench_report": str(report), **variables}
    command = ["ansible-playbook", "-i", str(PROJECT / "inventories/lab"), "playbooks/ops/bench_models.yml", "--limit=hq-gpu1"]
    return subprocess.run([*command, f"--extra-vars={json.dumps(given)}"], cwd=PROJECT, capture_output=True, text=True, check=False, timeout=300)


def test_sixteen_at_a_time_are_worked_on_together(tmp_path: Path) -> None:
    # How much faster that is depends on who gets the busy cores; it is printed, and tests/benchmarks/batching.py measures it.
    with Running() as running:
        run = bench(tmp_path / "bench.json", model="assistant", bench_concurrency=[1, 16])
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr
    report: dict[str, Any] = json.loads((tmp_path / "bench.json").read_text())
    one, sixteen = report["rows"]
    for row in (one, sixteen):
        print({key: row[key] for key in ("host", "concurrency", "tokens_per_s", "gain", "ttft_p50_ms", "ttft_p99_ms", "itl_p50_ms", "e2e_p99_ms")})
    assert report["ok"] is True
    assert (one["concurrency"], one["requests"], sixteen["concurrency"], sixteen["requests"]) == (1, 3, 16, 48)
    assert running.most == sixteen["concurrency"]
    assert f"16 at a time give {sixteen['gain']} times the tokens per second of 1." in run.stdout
    # The way past the instance's own TLS was open for as long as it was needed.
    assert execute("hq-gpu1", "systemctl", "is-active", "bench-assistant", check=False).stdout.strip() == "inactive"


def test_a_model_that_there_is_not_is_refused_with_those_there_are(tmp_path: Path) -> None:
    run = bench(tmp_path / "bench.json", model="oracle")
    assert run.returncode != 0
    assert "one of assistant, faq, risk-scoring" in " ".join(run.stdout.split()), run.stdout
    assert not (tmp_path / "bench.json").exists()
