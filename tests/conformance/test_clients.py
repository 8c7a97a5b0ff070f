"""Every vector that a client can be made to send, through the drivers on the clients."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TypeAlias

import pytest
import yaml
from _pytest.mark import ParameterSet

from tests.conformance.bench import Bench, bench
from tests.conformance.cases import Case, Json
from tests.conformance.client_driving import ASKED, LANGUAGES, QUICK, ClientDriver, why_missing
from tests.conformance.client_lines import sessions, unary
from tests.conformance.client_playing import Player
from tests.conformance.client_world import Script, World, load
from tests.waiting import happens

GetClient: TypeAlias = Callable[[str], ClientDriver]
KNOWN: dict[str, dict[str, str]] = (
    yaml.safe_load(Path(__file__).with_name("known_failing.yaml").read_text()) or {}
)
"""The vectors that a client does not pass yet, with the reason, by language."""
KNOWN_MAX = 2
UNARY = list(unary())
SESSIONS = [] if QUICK else list(sessions())
SCRIPTS = [] if QUICK else list(load())


def by_language(names: list[str], rows: list[object]) -> list[ParameterSet]:
    """Each vector once for each language."""
    return [
        pytest.param(language, row, id=f"{name}-{language}", marks=known(language, name))
        for language in ASKED
        for name, row in zip(names, rows, strict=True)
    ]


def known(language: str, name: str) -> list[pytest.MarkDecorator]:
    """A vector that is known to fail has to fail."""
    reason = KNOWN.get(language, {}).get(name)
    return [pytest.mark.xfail(reason=reason, strict=True)] if reason else []


def of_cases(rows: list[tuple[Case, list[Json]]]) -> list[ParameterSet]:
    return by_language([case.name for case, _ in rows], list(rows))


@pytest.fixture(scope="session")
def client_named(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GetClient]:
    """The driver of a language, which all its vectors share."""
    folder = tmp_path_factory.getbasetemp()
    with ExitStack() as stack:
        made: dict[str, ClientDriver] = {}

        def get(language: str) -> ClientDriver:
            if language not in made:
                why = why_missing(language)
                assert why is None, f"missing: {why}"
                made[language] = ClientDriver(language, folder / f"client-{language}")
                stack.callback(made[language].end)
            return made[language]

        yield get


@pytest.mark.parametrize(("language", "row"), of_cases(UNARY))
def test_call(
    language: str,
    row: tuple[Case, list[Json]],
    desk: Bench,
    client_named: GetClient,
    tmp_path: Path,
) -> None:
    case, lines = row
    driver = client_named(language)
    if case.access is None:
        with desk.scene(case):
            play(driver, desk, case, lines)
        return
    file = tmp_path / "access.toml"
    file.touch(mode=0o600)
    file.write_text(case.access)
    with bench("--access-file", str(file)) as guarded:
        guarded.do(case.before)
        play(driver, guarded, case, lines, looks=False)


@pytest.mark.parametrize(("language", "row"), of_cases(SESSIONS))
def test_session(
    language: str,
    row: tuple[Case, list[Json]],
    desk: Bench,
    client_named: GetClient,
    tmp_path: Path,
) -> None:
    test_call(language, row, desk, client_named, tmp_path)


@pytest.mark.parametrize(
    ("language", "script"), by_language([one.name for one in SCRIPTS], list(SCRIPTS))
)
def test_client(language: str, script: Script, client_named: GetClient, tmp_path: Path) -> None:
    driver = client_named(language)
    if script.client_env:
        driver = driver.with_environment(script.client_env)
    with World(script) as world:
        player = Player(driver, world.filled, world.act, world.learn)
        connect = {"do": "connect", "as": "c", "address": "$address", "timeout": 30}
        try:
            player.play(connect | script.connect, *script.lines)
        finally:
            player.end()
    if script.client_env:
        driver.end()


def play(
    driver: ClientDriver, desk: Bench, case: Case, lines: list[Json], *, looks: bool = True
) -> None:
    """Have the lines answered, and look at what became of the server's state."""
    before = desk.stats() if looks else None
    player = Player(driver, desk.filled)
    player.play({"do": "connect", "as": "c", "address": desk.address, "timeout": 60}, *lines)
    player.end()
    if before is not None:
        # The server notices the end of a stream by and by.
        happens(lambda: sorted(desk.streaming()) == sorted(case.attached))
        after = desk.stats()
        if case.error.code != "OK" and not case.changes:
            assert after == before
        if case.method == "Session":
            assert after.pools[0].revision - before.pools[0].revision == case.changes
        desk.audit()


def test_few_failures_are_known_and_each_is_that_of_a_vector() -> None:
    names = {case.name for case, _ in [*UNARY, *sessions()]} | {one.name for one in load()}
    for language, failures in KNOWN.items():
        assert language in LANGUAGES
        assert len(failures) <= KNOWN_MAX, language
        assert failures.keys() <= names
