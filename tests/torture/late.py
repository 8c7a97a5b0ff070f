"""Late calls: what was on its way when an engine was stopped or killed, sent under its old epoch.

Rules:
- They go through the bare stub: no client that knows about leases is in between.
- They name the sequences that every life of the name uses: one that is carried out although its
  epoch is over frees, or lengthens, a table of the life that has the name now.
- None is sent before the writes of its life have landed: as long as the server still honours the
  epoch, a late free is the engine's own, and says just that.
- Each is written down with when it was sent and what came of it. Whether it may have been carried
  out is for the oracle to say, which knows when the next lease of the name had begun.
"""

from contextlib import closing
from random import Random

import grpc

from kvblock.settings import CHANNEL_OPTIONS
from kvblock.v1 import kvblock_pb2 as pb
from kvblock.v1 import kvblock_pb2_grpc
from tests.torture.history import History
from tests.torture.setting import POOL, now_ns

TIMEOUT = 1.0
NO_ANSWER = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
REFUSED, CARRIED_OUT, UNANSWERED = "refused", "carried out", "unanswered"


class LateCaller:
    """Sends what a life still had to say under an epoch."""

    def __init__(self, address: str, name: str, life: int, epoch: int, history: History) -> None:
        self._address = address
        self._name = name
        self._life = life
        self._epoch = epoch
        self._history = history

    def send(self, random: Random, calls: int, sequences: int) -> None:
        """Make calls until one gets no answer; `sequences`: the ids are below that number."""
        with closing(grpc.insecure_channel(self._address, CHANNEL_OPTIONS)) as channel:
            stub = kvblock_pb2_grpc.KVBlockServiceStub(channel)
            for _ in range(calls):
                if self._one(stub, random, sequences) == UNANSWERED:
                    return

    def _one(
        self, stub: kvblock_pb2_grpc.KVBlockServiceStub, random: Random, sequences: int
    ) -> str:
        name, epoch = self._name, self._epoch
        first, second = random.sample(range(sequences), 2)
        roll, sent = random.random(), now_ns()
        code = grpc.StatusCode.OK
        try:
            if roll < 0.5:
                op = "free"
                free = pb.FreeRequest(pool=POOL, engine=name, epoch=epoch, sequence_id=first)
                stub.Free(free, timeout=TIMEOUT)
            elif roll < 0.9:
                op = "step"
                work = pb.EngineStep(free_sequence_ids=[first], allocate_sequence_ids=[second])
                step = pb.StepRequest(pool=POOL, engine=name, epoch=epoch, step=work)
                stub.Step(step, timeout=TIMEOUT)
            else:
                op = "allocate"
                more = pb.AllocateRequest(pool=POOL, engine=name, epoch=epoch, sequence_id=first)
                stub.Allocate(more, timeout=TIMEOUT)
        except grpc.RpcError as error:
            code = error.code()
        outcome = {
            grpc.StatusCode.OK: CARRIED_OUT,
            grpc.StatusCode.FAILED_PRECONDITION: REFUSED,
        }.get(code, UNANSWERED if code in NO_ANSWER else code.name)
        self._history.add(
            "late call", engine=name, life=self._life, epoch=epoch, op=op, sequence=first,
            sent=sent, outcome=outcome,
        )  # fmt: skip
        return outcome
