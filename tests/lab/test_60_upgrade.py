"""An upgrade of Dify under load. The last of all: what comes after it would meet another release than cluster.yml names."""

from __future__ import annotations

import json
import subprocess

from lab.testing import PROJECT
from tests.lab.conftest import execute, wait_until
from tests.lab.platform import HOSTS, Console, Steady, chat, flask, leader, ledger, workflow

TO = "1.16.1"


def test_an_upgrade_under_load_fails_no_request_and_loses_no_task(console: Console, workflow_key: str) -> None:
    chat_key = console.chat()
    sent = set(flask("enqueue", "--queue", "dataset", "--count", "200", "--seconds", "3").split())
    # With pauses: the upgrade needs some of the two cores, too.
    chats = Steady(lambda: chat(chat_key, "blocking", timeout=60), clients=2, pause=2)
    flows = Steady(lambda: workflow(workflow_key, "blocking", timeout=60), clients=1, pause=1)
    try:
        command = ["ansible-playbook", "-i", str(PROJECT / "inventories/lab"), "playbooks/ops/upgrade_dify.yml"]
        variables = f"--extra-vars={json.dumps({'lab_dify_tag': TO})}"
        run = subprocess.run([*command, variables], cwd=PROJECT, capture_output=True, text=True, check=False, timeout=1200)
    finally:
        answers = [*chats.end(), *flows.end()]
    assert run.returncode == 0, run.stdout[-6000:] + run.stderr
    failed = [answer for answer in answers if not answer.ok]
    wait_until(lambda: all(row["finished_at"] for row in ledger() if row["id"] in sent), "every task has ended", 120)
    rows = [row for row in ledger() if row["id"] in sent]
    again = [row for row in rows if row["starts"] != 1]
    print(
        f"\nupgrade under load: {len(answers)} blocking requests, {len(failed)} failed: {failed[:2]}; {len(rows)} tasks, {len(again)} of them twice"
    )
    assert len(answers) > 20
    assert not failed
    assert len(rows) == 200
    assert not again
    for host in HOSTS:
        assert execute(host, "podman", "exec", "dify_api_1", "cat", "/app/api/VERSION").stdout.strip() == TO
    ran = "psql -Atd dify -c 'select count(*) from standin_migrations'"
    assert execute(next(leader("patroni")), "su", "-s", "/bin/sh", "postgres", "-c", ran).stdout.strip() == "2"
