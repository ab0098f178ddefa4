"""What Dify needs: who refuses is told from who does not answer, and what is full is named."""

from __future__ import annotations

from pathlib import Path

from ansible_collections.sovereign.dify.plugins.module_utils.dify_dependencies import (
    Dependency,
    RefusedError,
    UnreachableError,
    faults,
    shortages,
)


class Service:
    """Answers as scripted, and then well."""

    def __init__(self, *errors: Exception) -> None:
        """Raise these, one at each question, before it answers."""
        self.errors = list(errors)
        self.asked = 0

    def __call__(self) -> None:
        """Answer."""
        self.asked += 1
        if self.errors:
            raise self.errors.pop(0)


def test_nothing_is_said_of_services_that_serve() -> None:
    service = Service()
    assert faults([Dependency("Redis", service, "redis")], patience=60) == []
    assert service.asked == 1


def test_who_refuses_is_not_asked_again() -> None:
    service = Service(RefusedError("WRONGPASS invalid"), RefusedError("WRONGPASS invalid"))
    (fault,) = faults([Dependency("Redis (127.0.0.1:6379, user dify)", service, "redis")], patience=60, sleep=lambda seconds: None)
    assert service.asked == 1
    assert fault.startswith("Redis (127.0.0.1:6379, user dify) refuses Dify: WRONGPASS invalid.")
    assert "--tags=redis" in fault


def test_who_does_not_answer_is_waited_for() -> None:
    service = Service(UnreachableError("between\n two leaders"), UnreachableError("still"))
    waits: list[float] = []
    assert faults([Dependency("PostgreSQL", service, "patroni")], patience=60, sleep=waits.append) == []
    assert service.asked == 3
    assert len(waits) == 2


def test_who_never_answers_is_named_with_what_to_do_and_the_others_are_asked_once() -> None:
    broker, cache = Service(*[UnreachableError("refused\nby  nobody")] * 9), Service()
    told = faults([Dependency("Redis", cache, "redis"), Dependency("RabbitMQ", broker, "rabbitmq")], patience=0)
    assert told == [
        "RabbitMQ does not answer: refused by nobody. Where the service is this platform's, see how it is on its own hosts "
        "(playbooks/site.yml --tags=rabbitmq), and mend that first."
    ]
    assert cache.asked == 1


def test_a_full_directory_is_named_also_if_it_is_yet_to_come(tmp_path: Path) -> None:
    asked: list[Path] = []

    def free(path: Path) -> int:
        asked.append(path)
        return 12 * 1024 * 1024

    (told,) = shortages({str(tmp_path / "not/yet"): 512, str(tmp_path): 12}, free)
    assert told.startswith(f"{tmp_path}/not/yet has 12 MB free, and 512 are wanted")
    assert asked == [tmp_path, tmp_path]


def test_the_free_space_of_a_real_directory_is_measured(tmp_path: Path) -> None:
    assert shortages({str(tmp_path): 0}) == []
    assert shortages({str(tmp_path): 10**12})
