"""Dify's capacity: what was measured is predicted, what cannot be safe is refused, and what is advised helps."""

from __future__ import annotations

import random
from dataclasses import asdict, replace
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.sovereign.dify.plugins.filter.capacity_plan import FilterModule, capacity_plan
from ansible_collections.sovereign.dify.plugins.filter.text_table import text_table
from ansible_collections.sovereign.dify.plugins.module_utils.dify_capacity import figures
from ansible_collections.sovereign.dify.plugins.module_utils.dify_capacity.advice import steps_of_plan, steps_of_settings
from ansible_collections.sovereign.dify.plugins.module_utils.dify_capacity.planner import plan
from ansible_collections.sovereign.dify.plugins.module_utils.dify_capacity.prediction import predict, refusals, spell, terms, total
from ansible_collections.sovereign.dify.plugins.module_utils.dify_capacity.reading import CapacityError, one_of
from ansible_collections.sovereign.dify.plugins.module_utils.dify_capacity.settings import Api, Host, Service, Settings, Wanted, Worker

# As it was measured: two cores, answers of 2 s in 20 chunks, conversations named.
LAB = [Host("lab", 2, 8192, ("api", "worker"))]
ONE_CORE_EACH = [Host("lab", 2, 8192, ("api",))]
MEASURED = Wanted(streams=10, answer_seconds=2, answer_chunks=20, knowledge_bases=0)
SITE = [Host("app1", 8, 16384, ("api", "worker")), Host("app2", 8, 16384, ("api", "worker"))]
WANTED = Wanted(streams=100, answer_seconds=10, answer_chunks=300, workflows_per_second=2, workflow_seconds=5)


def api(processes: int, connections: int, pool: int, overflow: int = 0) -> Settings:
    return Settings(Api({"lab": processes}, pool, overflow, connections=connections), max_connections=1000)


STOCK: dict[str, Any] = {
    "api": {"processes": {"lab": 1}, "connections": 10, "pool_size": 30, "max_overflow": 10},
    "workers": {"all": {"processes": {"lab": 1}, "pool_size": 30, "max_overflow": 10}},
    "plugin_daemon_connections": 30,
    "max_connections": 100,
}


def refused(settings: Settings, hosts: list[Host] = LAB, wanted: Wanted = MEASURED) -> str:
    return "\n".join(refusals(hosts, wanted, settings))


# What was measured, row by row; runs differed by 15 to 20 %.


def test_stock_carries_ten_streams_bound_by_its_connections() -> None:
    found = predict(ONE_CORE_EACH, MEASURED, api(1, 10, 30, 10))
    assert (found.streams, next(iter(found.limits))) == (10, "api slots")
    assert found.requests_per_second == pytest.approx(4.2, rel=0.2)


def test_stock_with_fifty_clients_does_no_more_and_is_safe_to_run() -> None:
    assert not refusals(ONE_CORE_EACH, replace(MEASURED, streams=50), api(1, 10, 30, 10))
    assert not predict(ONE_CORE_EACH, MEASURED, api(1, 10, 30, 10)).enough(replace(MEASURED, streams=50))


def test_a_single_client_has_its_answer_in_its_length_and_the_overhead() -> None:
    assert 1 / (MEASURED.answer_seconds + figures.OVERHEAD_S) == pytest.approx(0.47, rel=0.02)


def test_more_connections_over_the_stock_pool_carry_13_streams_bound_by_the_pool() -> None:
    found = predict(ONE_CORE_EACH, MEASURED, api(1, 200, 30, 10))
    assert (found.streams, next(iter(found.limits))) == (13, "pool / k")
    assert found.requests_per_second == pytest.approx(7.0, rel=0.2)


def test_without_naming_the_stock_pool_carries_20() -> None:
    assert predict(ONE_CORE_EACH, replace(MEASURED, naming=False), api(1, 200, 30, 10)).streams == 20


def test_more_connections_over_the_stock_pool_are_refused_because_fifty_clients_hung() -> None:
    text = refused(api(1, 50, 30, 10))
    assert "50 x 3 = 150 PostgreSQL connections, and its pool has 30 + 10 = 40" in text
    assert "give connections 13 at most, or pool_size and max_overflow of 150 together" in text


def test_with_a_large_pool_a_process_is_bound_by_its_core_at_12_5_requests_a_second() -> None:
    found = predict(ONE_CORE_EACH, MEASURED, api(1, 200, 250))
    assert next(iter(found.limits)) == "rate x T"
    assert found.requests_per_second == pytest.approx(12.5, rel=0.1)


def test_100_to_200_clients_of_one_process_are_refused_for_dify_s_own_limit() -> None:
    text = refused(api(1, 200, 250))
    assert "api.connections: 200 requests a process, but Dify opens 100 connections to the plugin daemon at most" in text
    assert "give 90 at most" in text


def test_two_processes_hold_the_fifty_clients_that_did_not_reach_a_limit() -> None:
    found = predict(ONE_CORE_EACH, MEASURED, api(2, 200, 250))
    assert found.streams >= 50
    assert found.requests_per_second >= 15.8


def test_a_transaction_pooler_of_60_is_refused_because_all_hung() -> None:
    text = refused(replace(api(2, 83, 250), pooler_size=60))
    assert "pooler_size: 60 server connections, but streams pin theirs and 528 may be pinned" in text


def test_short_answers_give_20_to_23_requests_a_second() -> None:
    short = replace(MEASURED, answer_chunks=1, naming=False)
    assert 20 <= figures.CORE_SHARE * 1000 / short.request_cpu_ms <= 23


@pytest.mark.parametrize(("concurrency", "processes", "runs"), [(4, 1, 1.86), (50, 1, 4.0), (50, 2, 8.0)])
def test_workflows_are_bound_by_concurrency_and_then_by_cores(concurrency: int, processes: int, runs: float) -> None:
    # Measured: 1.5 a second with four at a time, 4 to 5 with fifty.
    worker = Worker({"lab": processes}, 5, 10, concurrency=concurrency)
    found = predict(LAB, replace(MEASURED, workflow_seconds=2), replace(api(1, 10, 30), workers={"workflow": worker}))
    assert found.workflows_per_second == pytest.approx(runs, rel=0.01)


# What is refused.


def test_stock_defaults_are_refused_with_the_sum() -> None:
    with pytest.raises(AnsibleFilterError) as error:
        capacity_plan([asdict(LAB[0])], {"streams": 10, "answer_seconds": 2, "answer_chunks": 20}, STOCK)
    assert (
        "max_connections: PostgreSQL admits 100, and may be asked for api 40 + workers all 40 + plugin_daemon 30 + pgvector of api 20 + "
        "pgvector of workers all 40 + administration 10 = 180; set max_connections to 180 or more"
    ) in str(error.value)


def test_stock_defaults_are_more_than_100_even_without_a_reserve() -> None:
    assert "= 110;" in refused(one_of(Settings, {**STOCK, "administration": 0}, "declared"))


def test_the_sum_counts_everybody() -> None:
    settings = plan(SITE, WANTED)
    text = spell(terms(settings, WANTED))
    for what in (
        "api 3 x 117 = 351",
        "api_websocket 2 x 10 = 20",
        "workers dataset 2 x 15 = 30",
        "beat 2",
        "plugin_daemon 30",
        "pgvector of api 3 x 78 = 234",
        "pgvector of workers workflow 2 x 12 = 24",
        "pgvector of workers dataset 2 x 15 = 30",
    ):
        assert what in text
    assert text.endswith(f"administration 10 = {settings.max_connections}")


SEARCHING = replace(MEASURED, knowledge_bases=1)


def vectors(settings: Settings, wanted: Wanted = SEARCHING) -> dict[str, int]:
    return {term.what.removeprefix("pgvector of "): term.connections for term in terms(settings, wanted) if term.what.startswith("pgvector")}


def test_twenty_hybrid_searches_at_once_have_room_for_the_connections_that_they_took() -> None:
    # Measured: 15 new ones for 20 searches at once of a single process, whose pool of pgvector is said to hold 5.
    assert 15 <= vectors(api(1, 20, 60))["api"] == 40
    assert vectors(api(1, 20, 60), replace(SEARCHING, knowledge_bases=3))["api"] == 120
    assert vectors(api(1, 20, 60), MEASURED) == {}
    admitted = replace(api(1, 20, 60), max_connections=60 + figures.PLUGIN_DAEMON_CONNECTIONS + figures.ADMINISTRATION)
    assert not refusals(ONE_CORE_EACH, MEASURED, admitted)
    assert "pgvector of api 40 + administration 10 = 140; set max_connections to 140 or more" in refused(admitted, wanted=SEARCHING)


@pytest.mark.parametrize(
    ("queues", "concurrency", "held"),
    [
        # Ten threads a task; each has one of the pool's 15 before it has one to pgvector.
        (("dataset", "pipeline"), 1, 10),
        (("priority_dataset",), 4, 15),
        (("workflow_based_app_execution",), 20, 40),
        (("mail", "workflow"), 8, 16),
        (("mail", "retention"), 8, 0),
        # All queues: two tasks that fill the pool, and two that search.
        ((), 4, 15 + 4),
    ],
)
def test_workers_index_by_ten_threads_a_task_and_search_with_two(queues: tuple[str, ...], concurrency: int, held: int) -> None:
    worker = Worker({"lab": 1}, 5, 10, concurrency=concurrency, queues=queues)
    assert vectors(replace(api(1, 1, 3), workers={"some": worker})).get("workers some", 0) == held
    assert vectors(replace(api(1, 1, 3), workers={"some": worker}), MEASURED) == {}


def test_a_process_of_prefork_has_one_task_and_a_websocket_searches_nothing() -> None:
    prefork = Worker({"lab": 1}, 30, 10, concurrency=4, celery_pool="prefork", queues=("dataset",))
    settings = replace(api(1, 1, 3), workers={"some": prefork}, api_websocket=Service({"lab": 1}, 5, 5))
    assert vectors(settings) == {"api": 2, "workers some": 4 * 10}


def test_one_connection_too_few_is_refused_and_none_too_few_is_not() -> None:
    settings = plan(SITE, WANTED)
    assert not refusals(SITE, WANTED, settings)
    assert refusals(SITE, WANTED, replace(settings, max_connections=settings.max_connections - 1))


@pytest.mark.parametrize(("pool", "overflow"), [(0, 10), (30, -1)])
def test_a_pool_that_sqlalchemy_does_not_limit_is_refused(pool: int, overflow: int) -> None:
    assert "no limit at all" in refused(api(1, 10, pool, overflow))


def test_celery_under_gevent_is_counted_with_what_it_takes_and_prefork_by_process() -> None:
    gevent = Worker({"lab": 2}, 1, 0, concurrency=8)
    prefork = replace(gevent, celery_pool="prefork")
    assert (gevent.count, gevent.each) == (2, 15)
    assert (prefork.count, prefork.each) == (16, 1)
    assert replace(gevent, pool_size=30).each == 40
    assert prefork.megabytes("lab") == 8 * gevent.megabytes("lab")


def test_more_processes_than_a_host_has_memory_for_are_refused() -> None:
    assert "lab: its processes need 9472 MB, and it has 8192" in refused(api(16, 10, 30))


def test_processes_on_a_host_that_does_not_run_them_or_does_not_exist_are_refused() -> None:
    settings = replace(api(1, 10, 30), workers={"all": Worker({"lab": 1, "lap": 1}, 5, 10)})
    text = refused(settings, ONE_CORE_EACH)
    assert "workers.all.processes.lab: 1, but that host does not run 'worker'" in text
    assert "unknown host 'lap'; did you mean 'lab'?" in text


def test_a_pooler_as_large_as_the_pools_is_let_through() -> None:
    settings = replace(api(1, 20, 60), pooler_size=90, max_connections=100)
    assert not refusals(LAB, MEASURED, settings)
    assert "pooler 90 + administration 11 = 101" in refused(replace(settings, administration=11))


def test_every_mistake_in_what_was_written_is_told_at_once_with_its_place() -> None:
    hosts = [{"name": "a", "cores": 0, "memory_mb": "4096", "runs": ["apis"], "disk": 1}, {"name": "b"}]
    with pytest.raises(AnsibleFilterError) as error:
        capacity_plan(hosts, {"streams": 1, "answer_seconds": 2, "answer_chunks": 20})
    for told in (
        "hosts[0].cores: 0 is no number above 0; give one",
        "hosts[0].memory_mb: '4096' is no whole number of at least 1; give one, without quotes",
        "hosts[0].runs: unknown 'apis'; did you mean 'api'?",
        "hosts[0]: unknown key 'disk'; known:",
        "hosts[1]: memory_mb is missing; give it",
    ):
        assert told in str(error.value)


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        ({"streams": True, "answer_seconds": 2, "answer_chunks": 20}, "wanted.streams: True is no whole number"),
        ({"streams": 1, "answer_seconds": float("nan"), "answer_chunks": 20}, "wanted.answer_seconds: nan is no number above 0"),
        ({"streams": 1, "answer_seconds": 2, "answer_chunks": 20, "naming": "yes"}, "wanted.naming: 'yes' is neither true nor false"),
        ({"streams": 1, "answer_second": 2, "answer_chunks": 20}, "did you mean 'answer_seconds'?"),
        (None, "wanted: None is no mapping; give one of streams"),
    ],
)
def test_what_is_wanted_is_read_strictly(wanted: Any, told: str) -> None:
    with pytest.raises(AnsibleFilterError) as error:
        capacity_plan([asdict(host) for host in SITE], wanted)
    assert told in str(error.value)


def test_a_host_that_is_there_twice_and_no_host_at_all_are_refused() -> None:
    with pytest.raises(AnsibleFilterError, match="'lab' is there more than once"):
        capacity_plan([asdict(LAB[0])] * 2, asdict(MEASURED))
    with pytest.raises(AnsibleFilterError, match="no list of hosts"):
        capacity_plan([], asdict(MEASURED))


def test_hosts_that_are_too_small_or_run_no_workers_are_refused() -> None:
    with pytest.raises(CapacityError, match="none runs 'worker'"):
        plan(ONE_CORE_EACH, MEASURED)
    with pytest.raises(CapacityError, match=r"lab: .* \(api, worker\) needs 4570 MB, 1024 reserved among them, and it has 4569"):
        plan([replace(LAB[0], memory_mb=4569)], MEASURED)
    assert plan([replace(LAB[0], memory_mb=4570)], replace(MEASURED, streams=1)).api.count == 1


def test_a_postgresql_too_small_for_one_stream_each_is_refused_with_the_sum_and_what_it_names_is_enough() -> None:
    with pytest.raises(CapacityError, match=r"PostgreSQL admits 100, .* = (\d+); set max_connections to \1 or more") as error:
        plan(SITE, replace(WANTED, max_connections=100))
    named = int(str(error.value).split("set max_connections to ")[1].split()[0])
    assert plan(SITE, replace(WANTED, max_connections=named))
    with pytest.raises(CapacityError):
        plan(SITE, replace(WANTED, max_connections=named - 1))


# What is planned.


def test_a_plan_reaches_what_is_wanted_and_is_safe() -> None:
    settings = plan(SITE, WANTED)
    found = predict(SITE, WANTED, settings)
    assert found.enough(WANTED)
    assert found.streams == 100
    assert settings.api.connections * 3 == settings.api.each
    assert settings.api.connections <= figures.DAEMON_CAP


def test_hosts_may_run_one_kind_each() -> None:
    hosts = [Host("web", 4, 8192, ("api",)), Host("jobs", 4, 8192, ("worker",))]
    settings = plan(hosts, replace(WANTED, streams=20))
    assert set(settings.api.processes) == {"web"}
    assert {name for worker in settings.workers.values() for name in worker.processes} == {"jobs"}


def test_a_shared_host_carries_less_than_one_for_the_api_alone() -> None:
    much = replace(WANTED, streams=10000)
    shared = predict(SITE, much, plan(SITE, much)).streams
    apart = [*(replace(host, runs=("api",)) for host in SITE), Host("jobs", 8, 16384, ("worker",))]
    assert shared < predict(apart, much, plan(apart, much)).streams


def test_background_work_and_what_is_reserved_leave_fewer_cores_to_the_api() -> None:
    settings = plan(LAB, MEASURED)
    assert predict(LAB, MEASURED, settings).limits["cores"] == int(1.5 * MEASURED.streams_per_core)
    assert predict([replace(LAB[0], reserved_cores=1)], MEASURED, settings).limits["cores"] == int(0.5 * MEASURED.streams_per_core)


def test_the_larger_host_has_more_processes() -> None:
    hosts = [Host("small", 4, 16384, ("api",)), Host("large", 16, 65536, ("api",)), Host("jobs", 4, 8192, ("worker",))]
    processes = plan(hosts, replace(WANTED, streams=400)).api.processes
    assert processes["large"] >= 3 * processes["small"]


def test_every_queue_of_dify_is_consumed_by_exactly_one_pool() -> None:
    # As a default worker of Dify 1.16 names them, and one more that its tasks name.
    known = (
        "api_token dataset dataset_summary priority_dataset priority_pipeline pipeline mail ops_trace app_deletion app_rbac plugin workflow_storage "
        "conversation workflow schedule_poller schedule_executor triggered_workflow_dispatcher trigger_refresh_publisher trigger_refresh_executor "
        "retention workflow_based_app_execution workflow_archive"
    )
    assert sorted(queue for worker in plan(SITE, WANTED).workers.values() for queue in worker.queues) == sorted(known.split())


def test_workflows_have_two_processes_at_least_and_as_many_as_they_need() -> None:
    assert plan(LAB, MEASURED).workers["workflow"].count == 2
    busy = plan(SITE, replace(WANTED, streams=1, workflows_per_second=10, workflow_seconds=20)).workers["workflow"]
    assert busy.count == 6
    assert busy.count * busy.concurrency / 20.15 >= 10


def test_workflows_take_connections_and_cpu_of_the_api() -> None:
    settings = plan(SITE, WANTED)
    none = replace(WANTED, workflows_per_second=0)
    assert predict(SITE, none, settings).streams > predict(SITE, WANTED, settings).streams


def test_long_answers_are_bound_by_the_connections_to_the_plugin_daemon() -> None:
    slow = Wanted(streams=10000, answer_seconds=60, answer_chunks=100)
    settings = plan(SITE, slow)
    assert settings.api.connections == figures.DAEMON_USABLE + figures.SPARE_CONNECTIONS
    assert not refusals(SITE, slow, settings)


@pytest.mark.parametrize(
    ("host", "wanted", "limit"),
    [
        (Host("h", 2, 65536, ("api", "worker")), WANTED, "cores"),
        (Host("h", 64, 6144, ("api", "worker")), WANTED, "memory"),
        (Host("h", 64, 65536, ("api", "worker")), replace(WANTED, max_connections=300), "max_connections"),
    ],
)
def test_the_limit_that_comes_first_is_named(host: Host, wanted: Wanted, limit: str) -> None:
    found = capacity_plan([asdict(host)], asdict(replace(wanted, streams=5000)))
    assert (found["first_limit"], found["enough"]) == (limit, False)
    assert found["ceiling"] == found["supports"]["streams"]


def test_what_is_left_beyond_what_is_wanted_is_told() -> None:
    found = capacity_plan([asdict(host) for host in SITE], asdict(WANTED))
    assert found["first_limit"] == "cores"
    assert found["ceiling"] > found["supports"]["streams"] == 100
    assert capacity_plan([asdict(host) for host in SITE], asdict(replace(WANTED, streams=found["ceiling"])))["enough"]


def test_there_is_no_pooler_and_the_reason_has_the_size_that_it_would_need() -> None:
    found = capacity_plan([asdict(host) for host in SITE], asdict(WANTED))["pooler"]
    assert found["size"] is None
    assert f"would need {found['needed_if_there_was_one']} of them" in found["reason"]


def test_the_table_is_one_that_a_person_can_read() -> None:
    found = capacity_plan([asdict(host) for host in SITE], asdict(replace(WANTED, max_connections=400)))
    lines = text_table(found["table"], ["what", "value", "why"])
    assert len(lines) == len(found["table"]) + 1
    assert any("raise PostgreSQL's max_connections from 400 to" in line for line in lines)


def test_a_plan_can_be_declared_as_it_is_and_carries_the_same() -> None:
    hosts, wanted = [asdict(host) for host in SITE], asdict(WANTED)
    planned = capacity_plan(hosts, wanted)
    declared = capacity_plan(hosts, wanted, planned["settings"])
    assert declared["supports"] == planned["supports"]
    assert declared["settings"] == planned["settings"]
    assert declared["steps"] == []


def test_ansible_finds_it() -> None:
    assert FilterModule().filters() == {"capacity_plan": capacity_plan}


# What holds for any hosts.


def some(seed: int) -> tuple[list[Host], Wanted]:
    """Hosts and wants by chance; the first host runs both kinds."""
    chance = random.Random(seed)  # noqa: S311 - no secret
    kinds = [("api", "worker"), *(chance.choice([("api",), ("worker",), ("api", "worker")]) for _ in range(chance.randrange(5)))]
    hosts = [
        Host(f"h{n}", chance.choice([1, 2, 3, 4, 8, 16, 48]), chance.choice([5000, 6144, 8192, 16384, 65536]), runs) for n, runs in enumerate(kinds)
    ]
    wanted = Wanted(
        streams=chance.choice([1, 7, 40, 133, 500, 3000]),
        answer_seconds=chance.choice([0.01, 0.5, 2, 11.3, 60]),
        answer_chunks=chance.choice([1, 20, 300, 2000]),
        naming=chance.random() < 0.5,
        workflows_per_second=chance.choice([0, 0, 0.3, 2, 17]),
        workflow_seconds=chance.choice([0, 2, 31.5]),
        max_connections=chance.choice([None, None, 600, 1200]),
        knowledge_bases=chance.choice([0, 1, 3]),
        websocket=chance.random() < 0.5,
    )
    return hosts, wanted


SEEDS = range(90)


def planned(hosts: list[Host], wanted: Wanted) -> Settings | None:
    """A plan, or None where PostgreSQL cannot hold any."""
    try:
        return plan(hosts, wanted)
    except CapacityError:
        assert wanted.max_connections
        return None


def test_no_plan_is_one_that_would_be_refused() -> None:
    for seed in SEEDS:
        hosts, wanted = some(seed)
        settings = planned(hosts, wanted)
        if settings:
            assert refusals(hosts, wanted, settings) == [], seed
            assert total(terms(settings, wanted)) <= settings.max_connections, seed


def test_what_is_advised_reaches_what_is_wanted() -> None:
    advised = 0
    for seed in SEEDS:
        hosts, wanted = some(seed)
        settings = planned(hosts, wanted)
        if settings is None or predict(hosts, wanted, settings).enough(wanted):
            continue
        steps = steps_of_plan(hosts, wanted)
        assert steps, seed
        for step in steps:
            if step.path == "hosts":
                hosts = [*hosts, *step.value]
            else:
                wanted = replace(wanted, max_connections=step.value)
        better = plan(hosts, wanted)
        assert predict(hosts, wanted, better).enough(wanted), seed
        assert refusals(hosts, wanted, better) == [], seed
        advised += 1
    assert advised > 20


def test_what_is_advised_for_declared_settings_reaches_what_is_wanted() -> None:
    for seed in SEEDS:
        hosts, wanted = some(seed)
        declared = asdict(one_of(Settings, {**STOCK, "max_connections": 300}, "declared"))
        for service in (declared["api"], declared["workers"]["all"]):
            service["processes"] = {"h0": 1}
        settings = one_of(Settings, declared, "declared")
        assert refusals(hosts, wanted, settings) == []
        if predict(hosts, wanted, settings).enough(wanted):
            continue
        for step in steps_of_settings(hosts, wanted, settings):
            if step.path == "hosts":
                hosts = [*hosts, *step.value]
                continue
            *path, last = step.path.split(".")
            at = declared
            for name in path:
                at = at[name]
            at[last] = step.value
        better = one_of(Settings, declared, "declared")
        assert refusals(hosts, wanted, better) == [], seed
        assert predict(hosts, wanted, better).enough(wanted), seed


def test_more_cores_never_carry_less() -> None:
    for seed in SEEDS:
        hosts, wanted = some(seed)
        wanted = replace(wanted, max_connections=None)
        for index, host in enumerate(hosts):
            before = 0
            for cores in sorted(host.cores * factor + more for factor in (1, 4) for more in (0, 0.5, 1, 2, 5)):
                grown = [*hosts[:index], replace(host, cores=cores), *hosts[index + 1 :]]
                carried = min(wanted.streams, predict(grown, wanted, plan(grown, wanted)).streams)
                assert carried >= before, (seed, host.name, cores)
                before = carried


@pytest.mark.parametrize("key", ["memory_mb", "max_connections", "host"])
def test_more_memory_connections_or_hosts_never_carry_less(key: str) -> None:
    for seed in SEEDS:
        hosts, wanted = some(seed)
        if key == "memory_mb":
            wanted = replace(wanted, max_connections=None, workflows_per_second=0.0)
            after = [
                [replace(host, memory_mb=host.memory_mb + add) if not index else host for index, host in enumerate(hosts)] for add in (0, 500, 9000)
            ]
            carried = [predict(found, wanted, plan(found, wanted)).streams for found in after]
        elif key == "host":
            wanted = replace(wanted, max_connections=None)
            after = [[*hosts, *[Host(f"new{n}", 4, 8192, ("api",)) for n in range(count)]] for count in range(3)]
            carried = [predict(found, wanted, plan(found, wanted)).streams for found in after]
        else:
            after_wants = [replace(wanted, max_connections=admitted) for admitted in (3000, 3100, 4000, 8000)]
            carried = [predict(hosts, want, settings).streams if (settings := planned(hosts, want)) else 0 for want in after_wants]
        capped = [min(wanted.streams, count) for count in carried]
        assert capped == sorted(capped), (seed, carried)
