"""The loop of an engine over kvblock: block tables, preemption on a refusal, a lost lease.

    python examples/write_an_engine.py

It starts a server of its own. In place of a model it writes, for each token, which sequence and
which position it is, and looks at all of them when a sequence ends. It needs numpy and the `server`
extra.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field

import kvblock

POOL = "main:total=25,reserved=1,block_size=4,block_bytes=32,memory=shm"


@dataclass(eq=False)
class Sequence:
    """A request: `prompt` tokens come at once, the others one by one, until there are `length`."""

    number: int
    prompt: int
    length: int
    tokens: int = 0
    table: list[int] = field(default_factory=list)


class Engine:
    """Sequences that wait or run, under one lease."""

    def __init__(self, session: kvblock.Session, sequences: list[Sequence]) -> None:
        self.session, self.counts = session, Counter[str]()
        self.blocks = kvblock.BlockPool(session)
        self.memory = session.arena().numpy("uint64")[0]  # [total_blocks, token slots]
        self.waiting, self.running = deque(sequences), list[Sequence]()

    def iterate(self) -> None:
        """One iteration: give every running sequence room for its next token, then compute."""
        for sequence in self.running[:]:
            while sequence in self.running and not self.grow(sequence, sequence.tokens + 1):
                self.preempt(self.running[-1])  # the youngest gives way, which may be this one
        while self.waiting and self.grow(self.waiting[0], self.waiting[0].prompt):
            self.running.append(self.waiting.popleft())
        # Nothing is written unless the blocks are this engine's own at this moment.
        self.session.check_lease()
        for sequence in self.running:
            end = max(sequence.tokens + 1, sequence.prompt)
            for position in range(sequence.tokens, end):
                self.memory[self.slot(sequence, position)] = sequence.number << 32 | position
            sequence.tokens = end
        for sequence in [one for one in self.running if one.tokens == one.length]:
            for position in range(sequence.length):
                found = self.memory[self.slot(sequence, position)]
                assert found == sequence.number << 32 | position, "a token was overwritten"
            self.running.remove(sequence)
            self.leave(sequence, "finished")
        # The stash is settled with the server while the next iteration is on its way.
        self.blocks.flush()

    def grow(self, sequence: Sequence, tokens: int) -> bool:
        """Give a sequence blocks for so many tokens; whether there were as many."""
        missing = -(-tokens // self.session.block_size) - len(sequence.table)
        got = self.blocks.acquire(missing) if missing > 0 else []
        if isinstance(got, kvblock.Refused):
            return False
        sequence.table += got
        return True

    def preempt(self, sequence: Sequence) -> None:
        """Take a sequence's blocks; it begins again when there is room."""
        self.running.remove(sequence)
        self.waiting.appendleft(sequence)
        self.leave(sequence, "preempted")

    def leave(self, sequence: Sequence, why: str) -> None:
        """Let a sequence's blocks go."""
        self.blocks.release(sequence.table)
        sequence.table, sequence.tokens = [], 0
        self.counts[why] += 1

    def slot(self, sequence: Sequence, position: int) -> tuple[int, int]:
        """Where the token of a position is: its block, and its slot there."""
        block, slot = divmod(position, self.session.block_size)
        return sequence.table[block], slot


def main() -> None:
    """Serve some sequences, and lose the lease once."""
    left = [Sequence(number, 3 + number % 9, 20 + number) for number in range(12)]
    total, iterations, lost = Counter[str](), 0, 0
    with kvblock.EmbeddedServer([POOL]) as server, kvblock.connect(server.address) as kv:
        while left:
            with kv.session(engine="mine", recall=True) as session:
                engine = Engine(session, left)
                try:
                    while engine.waiting or engine.running:
                        engine.iterate()
                        iterations += 1
                        if iterations == 40:  # an operator takes its blocks
                            kv.reclaim_engine("mine", force=True)
                except kvblock.LeaseLostError:
                    # All blocks are gone, with all that was in them: everything begins again.
                    lost += 1
                left = [*engine.running, *engine.waiting]
                for sequence in left:
                    sequence.table, sequence.tokens = [], 0
                total += engine.counts
    print(f"{total['finished']} sequences finished, {total['preempted']} were preempted")
    print(f"{iterations} iterations, {lost} lease lost, no token was ever overwritten")


if __name__ == "__main__":
    main()
