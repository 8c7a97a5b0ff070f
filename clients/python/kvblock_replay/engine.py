"""A continuous-batching engine in virtual time: its queue, its batch, and its Step.

Rules:
  - One iteration makes one Step, with policy IN_ORDER_UNTIL_REFUSED: it frees what ended or was
    preempted in the iteration before, then grows the running sequences, oldest first, then admits
    from the head of the queue, first come, first served.
  - Before a running sequence gains a token it needs a slot for every token that it has: prompt and
    generated ones. It takes a block when they fill its last one. The last token that is generated
    is never computed on, so it needs no slot. The iteration that computes a prompt also generates
    the first token.
  - A sequence whose growth was refused pauses for that iteration; the others run. Then the
    newest sequences are preempted until the blocks that they give back cover the refused growth.
    They return to the head of the queue, keep the tokens that they generated, and are computed
    anew, those tokens included, when they are admitted again. A Step that frees preempted
    sequences admits nobody.
  - An engine that has its pool alone admits while the prompt's blocks fit. One that shares it also
    keeps to a dynamic threshold, as switches do whose ports share one packet memory: what it then
    holds must be at most BORROWING times what is then free, counted from what its last Step
    answered. The first sequence of a batch is exempt. Without such a rule whoever frees blocks
    takes them again in the same Step, so that one engine ends up with nearly all of them and the
    others starve.
  - An engine that caches keeps the blocks of ended sequences until it needs them itself, or owes
    them. It needs them when fewer are free than its batch and its queue want, what its rule for
    admission leaves free included. It gives up whole sequences, the oldest first, and before it
    preempts anything. To its rule for admission they are free. What a cache is good for is not
    simulated: no prompt finds its prefix there. So what is compared is what caches cost others.
  - The only running sequence of an engine cannot help itself: it waits for other engines to free
    blocks, and is preempted after PATIENCE refusals in a row.

Why a replay ends: no generated token is ever lost and their number is finite, so it is enough that
one more is always generated. Every Step in which anything runs generates one. An engine with two or
more sequences that is refused preempts, frees in its next Step, and grows in that same Step. An
engine with one gives it up in the end. So if no engine could run anything, all would come to hold
nothing, and the next to admit would be served: its batch is empty, so no threshold binds it, and
a request larger than its pool was never queued.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import astuple, dataclass
from itertools import islice

from kvblock_replay.cost import (
    BORROWING,
    ITERATION_NS,
    PATIENCE,
    PREFILL_TOKENS_MAX,
    RUNNING_MAX,
    blocks_needed,
    iteration_ns,
)
from kvblock_replay.trace import Request


class Sequence:
    """One request on its way through an engine."""

    __slots__ = ("admissions", "arrival_ns", "blocks", "generated", "goal", "prompt", "sequence_id")

    def __init__(self, sequence_id: int, request: Request) -> None:
        self.sequence_id = sequence_id
        self.arrival_ns, self.prompt, self.goal = request
        self.generated = 0
        self.blocks = 0
        self.admissions = 0


@dataclass(slots=True)
class Plan:
    """The Step of one iteration, and what each of its parts is for."""

    free: list[int]
    growing: list[Sequence]
    admitting: list[Sequence]
    num_blocks: list[int]
    """Blocks for each of `growing`, then for each of `admitting`."""
    want: int = 0
    """Blocks that have to be free for these, and to admit all of the queue that the batch has room
    for."""

    @property
    def allocate(self) -> list[int]:
        """The ids of the sequences that ask for blocks."""
        return [sequence.sequence_id for sequence in (*self.growing, *self.admitting)]


@dataclass(slots=True)
class Counts:
    """What engines have done so far."""

    finished: int = 0
    prompt_tokens: int = 0
    """Of the finished requests."""
    generated_tokens: int = 0
    preemptions: int = 0
    recomputed_tokens: int = 0
    """Tokens that were computed again after preemptions."""

    @classmethod
    def of(cls, several: Iterable[Counts]) -> Counts:
        """The sums of several engines."""
        return cls(*(sum(values) for values in zip(*map(astuple, several), strict=True)))


class Engine:
    """The state of one engine between two iterations."""

    def __init__(
        self, block_size: int, pool_blocks: int, *, shares_pool: bool, caches: bool = False
    ) -> None:
        self.counts = Counts()
        self.last_finish_ns = 0
        self.waits_ns: list[int] = []
        """From arrival to first admission, of every request that was admitted."""
        self.cached_blocks = 0
        """Blocks of ended sequences that it keeps."""
        self.owed_blocks = 0
        """How many of them it gives back with its next Step."""
        self._caches = caches
        self._cache: deque[tuple[int, int]] = deque()
        self._block_size = block_size
        self._shares_pool = shares_pool
        self._known_free = pool_blocks
        self._queue: deque[Sequence] = deque()
        self._running: list[Sequence] = []
        self._ended: list[int] = []
        self._preempted: list[int] = []
        self._refusals_in_a_row = 0

    def arrive(self, sequence: Sequence) -> None:
        """Put a request at the end of the queue."""
        self._queue.append(sequence)

    def plan(self) -> Plan | None:
        """Answer the next Step, or None when there is nothing to do.

        The frees are handed over with it: each Plan has to be carried out and passed to `apply`.
        """
        if not (self.has_work or self.owed_blocks):
            return None
        growing = [
            sequence
            for sequence in self._running
            if sequence.prompt + sequence.generated > sequence.blocks * self._block_size
        ]
        admitting = [] if self._preempted else self._candidates(len(growing))
        num_blocks = [1] * len(growing)
        num_blocks += [self._blocks_to_admit(sequence) for sequence in admitting]
        free = self._ended + self._preempted
        self._ended, self._preempted = [], []
        asked = sum(num_blocks)
        want = max(asked, self._wanted(len(growing)))
        free += self._evict(max(self.owed_blocks, want - self._known_free))
        return Plan(free, growing, admitting, num_blocks, want)

    @property
    def has_work(self) -> bool:
        """Whether it has anything to do but to give back what it owes."""
        return bool(self._running or self._queue or self._ended or self._preempted)

    def _evict(self, blocks: int) -> list[int]:
        """Give up so many blocks of the cache, whole sequences, the oldest first."""
        self.owed_blocks = 0
        evicted = []
        while blocks > 0 and self._cache:
            sequence_id, size = self._cache.popleft()
            evicted.append(sequence_id)
            blocks -= size
            self.cached_blocks -= size
        return evicted

    def apply(self, plan: Plan, granted: int, free_blocks: int, now_ns: int) -> int:
        """Run the iteration that began at `now_ns` with what its Step was answered.

        The first `granted` of the plan's requests were served, and `free_blocks` were free
        afterwards. Answers how long the iteration lasts, in nanoseconds.
        """
        self._known_free = free_blocks
        for sequence in plan.growing[:granted]:
            sequence.blocks += 1
        still = plan.growing[granted:]
        if still:
            self._preempt(still)
        else:
            self._refusals_in_a_row = 0
        prefilled = self._admit(plan, granted, now_ns)
        served = [sequence for sequence in self._running if sequence not in still]
        if not served:
            return ITERATION_NS
        duration = iteration_ns(len(served), prefilled)
        self._generate(served, now_ns + duration)
        return duration

    def _candidates(self, growing: int) -> list[Sequence]:
        """Choose whom to try to admit, beside `growing` blocks for the running ones."""
        room = RUNNING_MAX - len(self._running)
        held = growing + sum(sequence.blocks for sequence in self._running)
        free = self._known_free + self.cached_blocks - growing
        tokens = 0
        chosen: list[Sequence] = []
        for sequence in self._queue:
            tokens += sequence.prompt + sequence.generated
            blocks = self._blocks_to_admit(sequence)
            held += blocks
            free -= blocks
            if len(chosen) == room or (chosen and tokens > PREFILL_TOKENS_MAX):
                break
            if self._shares_pool and held > blocks and held > BORROWING * free:
                break
            chosen.append(sequence)
        return chosen

    def _wanted(self, growing: int) -> int:
        """How many blocks have to be free to admit all of the queue that the batch has room for."""
        room = RUNNING_MAX - len(self._running)
        blocks = growing + sum(self._blocks_to_admit(one) for one in islice(self._queue, room))
        held = blocks + sum(sequence.blocks for sequence in self._running)
        return blocks - (-held // BORROWING) if self._shares_pool else blocks

    def _blocks_to_admit(self, sequence: Sequence) -> int:
        return blocks_needed(sequence.prompt + sequence.generated, self._block_size)

    def _admit(self, plan: Plan, granted: int, now_ns: int) -> int:
        """Move the served ones of the queue to the batch and answer the tokens to compute."""
        prefilled = 0
        first = len(plan.growing)
        for sequence, blocks in zip(
            plan.admitting[: max(0, granted - first)], plan.num_blocks[first:], strict=False
        ):
            self._queue.popleft()
            self._running.append(sequence)
            sequence.blocks = blocks
            sequence.admissions += 1
            tokens = sequence.prompt + sequence.generated
            prefilled += tokens
            if sequence.admissions == 1:
                self.waits_ns.append(now_ns - sequence.arrival_ns)
            else:
                self.counts.recomputed_tokens += tokens
        return prefilled

    def _preempt(self, still: list[Sequence]) -> None:
        """Give up the newest sequences until those that stand still can grow."""
        if self._cache:
            # Others have taken what was free: its own cache goes before its own sequences.
            self.owed_blocks = max(self.owed_blocks, len(still))
            return
        if len(self._running) == 1:
            self._refusals_in_a_row += 1
            if self._refusals_in_a_row >= PATIENCE:
                self._give_up_newest()
            return
        gained = 0
        lacking = len(still)
        while gained < lacking and len(self._running) > 1:
            newest = self._running[-1]
            lacking -= newest in still
            gained += newest.blocks
            self._give_up_newest()

    def _give_up_newest(self) -> None:
        newest = self._running.pop()
        self._preempted.append(newest.sequence_id)
        self._queue.appendleft(newest)
        self.counts.preemptions += 1
        self._refusals_in_a_row = 0

    def _generate(self, served: list[Sequence], end_ns: int) -> None:
        ended = 0
        for sequence in served:
            if sequence.generated < sequence.goal:
                sequence.generated += 1
            if sequence.generated == sequence.goal:
                ended += 1
                self._end(sequence)
                self.counts.prompt_tokens += sequence.prompt
                self.counts.generated_tokens += sequence.generated
                sequence.blocks = 0
        if ended:
            self._running = [s for s in self._running if s.blocks]
            self.counts.finished += ended
            self.last_finish_ns = end_ns

    def _end(self, sequence: Sequence) -> None:
        """Free the blocks of a sequence with the next Step, or keep them in the cache."""
        if self._caches:
            self._cache.append((sequence.sequence_id, sequence.blocks))
            self.cached_blocks += sequence.blocks
        else:
            self._ended.append(sequence.sequence_id)
