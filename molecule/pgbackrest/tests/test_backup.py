"""What is archived and backed up, by whom, and what happens when nobody takes it."""

from __future__ import annotations

from typing import Any

from backed_up import ADDRESS, PGBACKREST, STANZA, Cluster, restore, said

from lab.testing import changed, rerun


def test_the_log_is_in_the_repository_from_its_first_segment_on(cluster: Cluster, on: Any) -> None:
    listed = on("db1").check_output(f"{PGBACKREST} repo-ls --recurse archive/mol-pgbackrest-hq")
    assert "000000010000000000000001-" in listed


def test_nobody_else_can_read_it(cluster: Cluster, on: Any) -> None:
    cluster.sql("CREATE TABLE IF NOT EXISTS account (owner text)", "INSERT INTO account VALUES ('Rosalind Franklin')")
    held = "grep --recursive --binary --files-with-matches --fixed-strings 'Rosalind Franklin' "
    assert on(cluster.leader()).run(f"{held} /var/lib/postgresql/17/main/pg_wal").rc == 0
    cluster.archive()
    assert on("s3").run(f"{held} /srv/node").rc == 1
    kinds = (
        on("s3").check_output("find /srv/node/d1/objects -name '*.data' -exec od --address-radix=n --format=x1 --read-bytes=4 {} \\;").splitlines()
    )
    begins = {" ".join(kind.split()) for kind in kinds}
    # OpenSSL's "Salt", but neither what zstd makes nor the "[bac" of pgBackRest's own lists.
    assert "53 61 6c 74" in begins
    assert not begins & {"28 b5 2f fd", "5b 62 61 63"}
    assert on("db1").run("setpriv --reuid=nobody --regid=nogroup --groups=ssl-cert cat /etc/pgbackrest/pgbackrest.conf").rc != 0


def test_who_leads_backs_up_and_nobody_else(cluster: Cluster, on: Any) -> None:
    before = len(cluster.backups())
    for host in ADDRESS:
        on(host).check_output("systemctl is-active pgbackrest-backup.timer")
        on(host).check_output("systemctl start pgbackrest-backup@auto.service")
    found = cluster.backups()
    assert len(found) == before + 1
    assert found[-1]["type"] == "diff"
    journal = on(cluster.follower()).check_output("journalctl --sync; journalctl --output=cat --unit=pgbackrest-backup@auto")
    assert f"{cluster.leader()} leads and backs up; nothing to do here" in journal


def test_a_run_that_was_cut_before_the_timer_knew_its_new_time_is_finished_by_the_next(on: Any) -> None:
    def times() -> list[str]:
        calendar = on("db1").check_output("systemctl show --property=TimersCalendar --value pgbackrest-backup.timer")
        return [time for time in ("01:30:00", "02:45:00") if time in calendar]

    schedule: dict[str, Any] = {"pgbackrest_schedule": "*-*-* 02:45:00"}
    try:
        changed(rerun("--tags=pgbackrest_configure", "--limit=db1", **schedule))
        assert times() == ["01:30:00"]
        assert changed(rerun("--tags=pgbackrest", "--limit=db1", **schedule)) == {"db1": 1}
        assert times() == ["02:45:00"]
        assert changed(rerun("--tags=pgbackrest", "--limit=db1", **schedule)) == {"db1": 0}
    finally:
        changed(rerun("--tags=pgbackrest", "--limit=db1"))


def test_a_new_leader_goes_on(cluster: Cluster, on: Any) -> None:
    old, new, before = cluster.leader(), cluster.follower(), len(cluster.backups())
    on(old).check_output(f"bash --login -c 'timeout 60 patronictl switchover --leader {old} --candidate {new} --force'")
    cluster.wait_until_whole()
    run = rerun(playbook="../../playbooks/ops/backup.yml", backup_type="incr")
    assert run.returncode == 0, run.stdout
    assert cluster.leader() == new
    assert len(cluster.backups()) == before + 1
    assert cluster.backups()[-1]["label"] in run.stdout
    assert "backup command end" in on(new).check_output("journalctl --sync; journalctl --output=cat --unit=pgbackrest-backup@incr")


def test_a_wrong_passphrase_is_refused_and_the_right_one_stays(cluster: Cluster) -> None:
    run = rerun("--tags=pgbackrest", pgbackrest_cipher_passphrase="another-one-of-enough-characters")
    assert run.returncode != 0
    assert "was encrypted with another passphrase" in said(run)
    garbled = rerun("--tags=pgbackrest_configure", pgbackrest_settings={"process-max": "many", "io-timeout": 5})
    assert garbled.returncode != 0
    assert "'many' is not valid" in said(garbled)
    cluster.archive()


def test_a_repository_that_is_away_is_told_and_does_not_fill_the_disk(cluster: Cluster, on: Any) -> None:
    leader = cluster.leader()
    on("s3").check_output("systemctl stop swift-proxy")
    try:
        segment = cluster.close_segment()
        cluster.wait_until(lambda: cluster.waiting() > 0, 10)
        run = rerun("--tags=pgbackrest_service", "--limit=" + leader)
        assert run.returncode != 0
        assert "cannot use its repository" in said(run)
        # The queue may hold ten.
        for _ in range(12):
            cluster.close_segment()
        dropped = f"journalctl --sync; journalctl --unit=patroni --output=cat | grep --quiet \"dropped WAL file '{segment}'\""
        cluster.wait_until(lambda: on(leader).run(dropped).rc == 0, 90)
        assert cluster.waiting() <= 11
    finally:
        on("s3").check_output("systemctl start swift-proxy")
    cluster.wait_until(lambda: on(leader).run(f"{PGBACKREST} repo-ls").rc == 0, 60)
    # There is a gap now, which no restore gets across. The next run closes it by a backup.
    cluster.archive()
    refused = restore(restore_confirm=STANZA)
    assert refused.returncode != 0
    assert f"the archived log has a gap: {segment}" in said(refused)
    before = len(cluster.backups())
    run = rerun("--tags=verify")
    assert run.returncode == 0, run.stdout
    cluster.wait_for_backups(before + 1)
    assert cluster.backups()[-1]["archive"]["start"] > segment
