"""A real server on a Unix socket, with a journal, that SIGKILL ends again and again.

Rules:
- Commands go over bare stubs, so that nothing but the server makes a repeat exact; what the server
  has is read with the Python client.
- An answer is lost as it is in a crash: the server is killed while the call is on its way, or after
  the answer is here, which is thrown away. The next server gets the same call.
- Time is the host's. Leases are long, and one that has to run out is short; a round that lets
  blocks wait in quarantine lasts until they are free, so that no round depends on how long it took.
- Errors are compared by reason, and by what they say of the block or the epoch.
"""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Any

import grpc

import kvblock
from kvblock.v1 import kvblock_pb2 as pb
from kvblock_service.core.commands import (
    REJECTIONS,
    Allocate,
    Attach,
    Command,
    Detach,
    EndQuarantine,
    Expire,
    Free,
    Outcome,
    Reclaim,
    RefusalReason,
    Renew,
    Step,
)
from tests.integration.sessions.wire import PATIENCE, Wire, problem_of
from tests.property.comparison import Shown, shown_by_model
from tests.property.model import ModelPool
from tests.torture.rounds.drawing import Terms
from tests.torture.rounds.messages import outcome_of, request_of, session_of, told_by, told_of
from tests.torture.rounds.subject import (
    ENGINES_MAX,
    RESERVED,
    SEQUENCES_MAX,
    TOTAL,
    is_invalid,
)
from tests.waiting import happens

TTL_MS, TTL_MIN_MS, QUARANTINE_MS = 3_600_000, 500, 100
SNAPSHOT_RECORDS = 100
POOL = f"main:total={TOTAL},reserved={RESERVED},quarantine={QUARANTINE_MS / 1000:g}"
ARGUMENTS = (
    *("--engines-max", str(ENGINES_MAX), "--lease-ttl-min", f"{TTL_MIN_MS / 1000:g}"),
    *("--snapshot-records", str(SNAPSHOT_RECORDS), "--log-level", "error"),
)


class OverWire:
    """See `Subject`; the server ends with the block."""

    terms = Terms(
        (TTL_MS,), (QUARANTINE_MS,), {"lost answer": 8, "restart": 2, "kill": 2}, restarts=0.02
    )

    def __init__(self, random: Random, state_dir: Path, sequences_max: int = SEQUENCES_MAX) -> None:
        self.counts: Counter[str] = Counter()
        self.model = ModelPool(TOTAL, ENGINES_MAX, sequences_max, RESERVED)
        self._random = random
        limits = ("--sequences-per-engine-max", str(sequences_max))
        self._arguments = ["--state-dir", str(state_dir), *ARGUMENTS, *limits]

    def __enter__(self) -> "OverWire":
        self._start()
        # What epochs begin with is the server's to say; the model's were none so far.
        attached = self._wire.kv.AttachEngine(pb.AttachEngineRequest(), timeout=PATIENCE)
        epoch = self.model.epochs = attached.lease.epoch
        self._wire.kv.DetachEngine(pb.DetachEngineRequest(epoch=epoch), timeout=PATIENCE)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._let_go()
        code = self._server.stop()
        assert error is not None or code == 0, self._server.stderr

    def carry_out(self, command: Command) -> Outcome | None:
        """See `Subject`."""
        before = self._state()
        if is_invalid(command):
            problem = problem_of(lambda: self._call(command))
            assert problem.reason == "INVALID_FIELD", problem
            expected = None
        else:
            expected = self._expected(command)
            if isinstance(expected, REJECTIONS):
                self._compare_problem(command, expected)
            else:
                answer = outcome_of(self._call(command), expected)
                assert answer == expected, f"{command} is answered {answer}, not {expected}"
        if expected is None or isinstance(expected, REJECTIONS):
            assert self._state() == before, f"{expected}, and not unchanged"
        self._wait_for_quarantines()
        return expected

    def lose_answer(self, command: Command) -> Outcome | None:
        """See `Subject`."""
        is_answered = self._random.random() < 0.5
        self._send_and_kill(command, is_answered=is_answered)
        self.counts["killed after the answer" if is_answered else "killed before the answer"] += 1
        self._start_again()
        return self.carry_out(command)

    def restart(self) -> None:
        """See `Subject`."""
        self._server.process.kill()
        self._start_again()

    def snapshot(self) -> None:
        """See `Subject`: the server does so by itself, every SNAPSHOT_RECORDS records."""

    def kill(self, engine: str) -> None:
        """See `Subject`: its lease runs out in this round, and its blocks are free at the end."""
        epoch = self.model.epoch(engine)
        self.carry_out(Attach(engine, epoch, "", False, TTL_MIN_MS, QUARANTINE_MS))
        if self._random.random() < 0.3:
            self.restart()
        happens(lambda: engine not in self._client_epochs())
        self.model.apply(Expire(engine, epoch, QUARANTINE_MS))
        if self._random.random() < 0.3:
            self.restart()
        self._wait_for_quarantines()

    def pass_time(self, milliseconds: int) -> None:
        """See `Subject`: time passes by itself."""

    def end_quarantines(self) -> None:
        """See `Subject`: they have ended by the end of each round."""
        assert not self.model.batches

    def check(self, *, whole: bool) -> None:
        """See `Subject`; all is compared each time."""
        del whole
        self._wait_for_quarantines()
        expected = shown_by_model(self.model)
        acquired = {name: sorted(blocks) for name, blocks in expected.acquired.items()}
        assert self._shown() == expected._replace(acquired=acquired)
        assert self._wire.clean(), "the Audit is not clean"

    def _wait_for_quarantines(self) -> None:
        if not self.model.batches:
            return
        happens(lambda: not self._wire.pool().quarantined_blocks)
        for batch in list(self.model.batches):
            self.model.apply(EndQuarantine(batch))

    def _expected(self, command: Command) -> Outcome:
        """What the model says of a command; a step of a session comes behind a resumed attach."""
        if isinstance(command, Step) and command.step_id:
            resume = Attach(command.engine, command.epoch, "", False, 0, QUARANTINE_MS)
            outcome = self.model.apply(resume)
            if isinstance(outcome, REJECTIONS):
                return outcome
        return self.model.apply(command)

    def _compare_problem(self, command: Command, expected: Outcome) -> None:
        try:
            problem = problem_of(lambda: self._call(command))
        except AssertionError as error:
            raise AssertionError(f"{expected} is expected: {error}") from error
        found, told = told_by(problem, expected), told_of(expected)
        assert found == told, f"{command} fails with {problem}, not {expected}"

    def _call(self, command: Command) -> Any:
        """The answer to a command; raises RpcError."""
        if isinstance(command, Step) and command.step_id:
            return self._session_step(command)
        return self._sender(command)(request_of(command), timeout=PATIENCE)

    def _sender(self, command: Command) -> Any:
        kv = self._wire.kv
        senders: dict[type, Any] = {
            Allocate: kv.Allocate,
            Attach: kv.AttachEngine,
            Detach: kv.DetachEngine,
            Free: kv.FreeReturningCount,
            Reclaim: self._wire.admin.ReclaimEngine,
            Renew: kv.RenewLease,
            Step: kv.Step,
        }
        return senders[type(command)]

    def _session_step(self, command: Step) -> Any:
        """A step of a session on a stream of its own, which breaks off behind it."""
        call: Any = self._wire.kv.Session(iter(session_of(command)), timeout=PATIENCE)
        try:
            next(call)
            return next(call).stepped
        finally:
            call.cancel()

    def _send_and_kill(self, command: Command, *, is_answered: bool) -> None:
        if isinstance(command, Step) and command.step_id:
            call: Any = self._wire.kv.Session(iter(session_of(command)), timeout=PATIENCE)
            wait: Callable[[], object] = lambda: (next(call), next(call))  # noqa: E731
        else:
            call = self._sender(command).future(request_of(command), timeout=PATIENCE)
            wait = call.exception
        if is_answered:
            try:
                wait()
            except grpc.RpcError:
                self.counts["errors lost"] += 1
        self._server.process.kill()
        call.cancel()

    def _start(self) -> None:
        self._server = kvblock.EmbeddedServer([POOL], self._arguments)
        self._server.start()
        self._wire = Wire(self._server.address)
        self._client = kvblock.connect(self._server.address, timeout=PATIENCE)

    def _start_again(self) -> None:
        self._let_go()
        self._server.process.wait()
        self._server.stop()
        self._start()
        self.model.restart()

    def _let_go(self) -> None:
        self._client.close()
        self._wire.channel.close()

    def _client_epochs(self) -> dict[str, int]:
        return {row.engine: row.epoch for row in self._client.list_engines() if row.epoch}

    def _state(self) -> object:
        """All that a command changes, but not how long leases last, and what engines lack."""
        return self._wire.pool().revision, self._shown()

    def _shown(self) -> Shown:
        """What the server has, as it shows it."""
        kv = self._client
        tables: dict[str, dict[int, list[int]]] = {}
        dropped: dict[tuple[str, int], int] = {}
        for row in kv.list_sequences(with_block_numbers=True):
            tables.setdefault(row.engine, {})[row.sequence_id] = row.block_numbers
            if row.first_index:
                dropped[row.engine, row.sequence_id] = row.first_index
        acquired: dict[str, list[int]] = {}
        held = [kvblock.BlockState.HELD]
        for block in kv.list_blocks(states=held):
            if block.sequence_id is None:
                acquired.setdefault(block.engine, []).append(block.block_number)
        quarantined = [kvblock.BlockState.QUARANTINED]
        pool = self._wire.pool()
        refused = {RefusalReason(one.reason): one.count for one in pool.refusals}
        return Shown(
            tables,
            acquired,
            dropped,
            self._client_epochs(),
            pool.free_blocks,
            [block.block_number for block in kv.list_blocks(states=quarantined)],
            pool.allocated_blocks_total,
            pool.freed_blocks_total,
            pool.reclaimed_blocks_total,
            pool.expired_leases_total,
            dict.fromkeys(RefusalReason, 0) | refused,
        )
