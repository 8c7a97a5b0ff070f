"""Plays lines to a driver on a client, and compares what it answers."""

import time
from collections.abc import Callable
from typing import Any, TypeAlias

import pytest

from tests.conformance.cases import Json
from tests.conformance.client_answers import answered, check_error, expected, in_form, part
from tests.conformance.client_driving import LACKS, ClientDriver
from tests.conformance.client_lines import EXPECTED
from tests.waiting import LAST_RESORT

Act: TypeAlias = Callable[[Json], None]


def nothing(_: Json) -> None:
    """A world in which nothing happens."""
    raise AssertionError("here the world does nothing")


class Player:
    """`fill` puts epochs, addresses and files in place of what stands for them in a line."""

    def __init__(
        self,
        driver: ClientDriver,
        fill: Callable[[Json], Json],
        act: Act = nothing,
        learn: Callable[[Json], None] = lambda _: None,
    ) -> None:
        self._driver = driver
        self._fill = fill
        self._act = act
        self._learn = learn

    def play(self, *lines: Json) -> None:
        """Have each line answered as it has to be."""
        for line in lines:
            if "do" in line:
                self._play(line)
            else:
                self._act(line)

    def end(self) -> None:
        """Let go of everything that lines have made."""
        self._driver.let_go()

    def _play(self, line: Json) -> None:
        deadline = time.monotonic() + LAST_RESORT
        while True:
            sent = self._fill({key: one for key, one in line.items() if key not in EXPECTED})
            self._driver.send(sent)
            for happening in line.get("meanwhile", ()):
                self._act(happening)
            answer = self._driver.receive()
            try:
                self._check(line, answer)
            except AssertionError:
                if not line.get("until") or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
            else:
                return

    def _check(self, line: Json, answer: Json) -> None:
        language = self._driver.language
        error = answer.get("error")
        if line["do"] in LACKS.get(language, ()):
            assert error is not None, f"{language} has {line['do']}, and is said not to"
            assert error["kind"] == "unsupported"
            pytest.skip(f"{language} has no {line['do']}")
        if "error" in line:
            assert error is not None, answer
            check_error(self._filled(line["error"]), error)
            return
        assert error is None, error
        found: Any = answer["ok"]
        if isinstance(found, dict) and "lease" in found:
            self._learn(found)
        if "ok" in line:
            assert answered(line, found) == expected(line, self._filled(line["ok"]))
        if "has" in line:
            assert part(in_form(line, found), in_form(line, self._filled(line["has"]))), found

    def _filled(self, value: Json | None) -> Json:
        return self._fill(value or {})
