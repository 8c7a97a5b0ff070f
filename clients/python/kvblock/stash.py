"""The stash of a block pool: blocks that an engine holds ready, without any I/O.

Rules:
- A block of the engine is ready here, handed out to the scheduler, or on its way back in the one
  exchange that is open; never two of these. Only ready blocks are handed out.
- The most recently released block is handed out first, as the service does: its bytes are the
  warmest. What is given back is what was ready the longest.
- How many are held ready follows the demand: the deepest that an iteration has drawn, above what it
  gave back, fading by a sixteenth with each iteration that needs less. Between one and
  REFILL_ITERATIONS + SPARE_ITERATIONS of that nothing is exchanged, so that a steady engine makes
  no call at all. Fetched ahead is at most half of what the pool had free at the last exchange: what
  is refused counts as lacked, and others would give blocks for it.
- What others lack goes back first, and nothing is fetched ahead meanwhile. After a refusal all that
  is ready goes back: two engines that each hold a part of what they need would wait for ever.
- Several threads may take and give at once, without a lock: each block moves by operations that
  the interpreter carries out whole, leaving one place before it comes to the next. What such a race
  can touch otherwise is advice: the lowest level of an iteration, and what it lacked. An iteration
  may end meanwhile; all other methods are called by one thread at a time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

REFILL_ITERATIONS = 4
"""A refill is for so many iterations."""
SPARE_ITERATIONS = 4
"""Blocks for so many more may be ready before some go back."""
FADE = 16
"""The demand of an iteration fades by one part in so many with each that follows."""


class NotHandedOut(ValueError):
    """The scheduler has not what it releases: `block`, in that row, is what `problem` says."""

    def __init__(self, row: int, block: int, problem: str) -> None:
        super().__init__(f"blocks[{row}]: {block} {problem}")
        self.row, self.block, self.problem = row, block, problem


class Exchange(NamedTuple):
    """What one step is to do: how many blocks to acquire, and which to release."""

    acquire: int
    release: list[int]

    def __bool__(self) -> bool:
        return bool(self.acquire or self.release)


class Stash:
    """Ready blocks, and the numbers by which they become more or fewer.

    `ready_max` bounds how many are fetched ahead, `total` is how many the engine can have in all.
    `lacked` is how many blocks a request was for that could not be served, until one is served, or
    an iteration ends without any.
    """

    def __init__(self, ready_max: int, total: int) -> None:
        self.lacked = self._told = 0
        self._free: int | None = None
        self._total = total
        self._ready_max = ready_max
        self._ready: deque[int] = deque()
        self._handed_out: set[int] = set()
        self._open: Exchange | None = None
        self._demand = 0.0
        # Of this iteration: how many were ready at its start, and at the least; what was exchanged
        # meanwhile moves both.
        self._first = self._lowest = 0
        self._fetched = self._refused = False
        self._iterations = self._seen_iterations = 0

    @property
    def is_open(self) -> bool:
        """Whether an exchange was begun and not settled."""
        return self._open is not None

    @property
    def ready(self) -> int:
        """Blocks that can be handed out without a call."""
        return len(self._ready)

    @property
    def handed_out(self) -> int:
        """Blocks that the scheduler has."""
        return len(self._handed_out)

    def take(self, count: int) -> list[int] | None:
        """Hand out so many blocks; None when fewer are ready."""
        ready = self._ready
        if count == 1:
            try:
                block = ready.pop()
            except IndexError:
                return None
            self._handed_out.add(block)
            blocks = [block]
        else:
            taken = self._pop(count)
            if taken is None:
                return None
            self._handed_out.update(taken)
            blocks = taken
        left = len(ready)
        if left < self._lowest:
            self._lowest = left
        if self.lacked:
            self.lacked = 0
        return blocks

    def give(self, blocks: Sequence[int]) -> None:
        """Take blocks back, in order; raises NotHandedOut, and takes none then."""
        remove = self._handed_out.remove
        row = 0
        try:
            if len(blocks) == 1:
                remove(blocks[0])
                self._ready.append(blocks[0])
                return
            for block in blocks:
                remove(block)
                row += 1
        except KeyError:
            self._handed_out.update(blocks[:row])
            raise self._wrong(blocks, row) from None
        self._ready.extend(blocks)

    def end_iteration(self, owed: int) -> bool:
        """Note what the iteration needed; True: an exchange is due.

        One that fetched blocks has made its call, unless others lack some.
        """
        demand = self._demand - self._demand / FADE
        if demand < self._first - self._lowest:
            demand = self._first - self._lowest
        self._demand = demand if demand >= 1 else 0
        ready = self._first = self._lowest = len(self._ready)
        self._iterations += 1
        fetched, self._fetched = self._fetched, False
        if not self._refused:
            self.lacked = 0
        if self._open is not None:
            return False
        if self._told > self.lacked or (ready and (owed or self._refused)):
            return True
        if demand <= ready <= demand * REFILL_ITERATIONS and ready <= self._ready_max:
            # Most iterations end here.
            return False
        return not fetched and self._wanted(owed) != 0

    def rest(self) -> bool:
        """Let the demand fade if no iteration has ended since the last call; True: as there."""
        if self._iterations == self._seen_iterations:
            self._demand = self._demand // 2
        self._seen_iterations = self._iterations
        return self._open is None and self._wanted(1) < 0

    def begin(self, owed: int, need: int = 0) -> Exchange:
        """What the next step is to do: fetch for a request of `need` blocks, and settle the rest.

        It is open until `settle`, and there is one at a time. An empty one is open only if it has
        to tell that nothing is lacked any more.
        """
        assert self._open is None, "an exchange is open"
        ready = self._ready
        if need > len(ready):
            demand = max(self._demand, self._first - len(ready) + need)
            ahead = 0 if owed or self.lacked else self._ahead(demand)
            missing = need - len(ready)
            room = self._total - len(ready) - len(self._handed_out)
            exchange = Exchange(missing + max(0, min(ahead, room - missing)), [])
            self._fetched = True
        else:
            back = len(ready) if self._refused else min(owed, len(ready))
            self._refused = False
            wanted = self._wanted(owed)
            exchange = Exchange(max(0, wanted), self._oldest(max(back, -wanted)))
        if exchange or self._told > self.lacked:
            self._open = exchange
        return exchange

    def settle(self, acquired: Sequence[int], need: int = 0, free: int | None = None) -> None:
        """Close the exchange: these were acquired, and what was to be released is gone.

        `free`: how many blocks the pool has free; None: as many as it may be.
        """
        assert self._open is not None, "no exchange is open"
        self._free = free
        self._open = None
        self._ready.extend(reversed(acquired))
        self._move(len(acquired))
        if need > len(self._ready):
            self.lacked = need
            self._refused = True
        self._told = self.lacked

    def undo(self) -> None:
        """Close the exchange, of which nothing was carried out."""
        assert self._open is not None, "no exchange is open"
        self._ready.extendleft(reversed(self._open.release))
        self._move(len(self._open.release))
        self._open = None

    def empty(self) -> Exchange:
        """Give back all that is ready; as `begin`."""
        assert self._open is None, "an exchange is open"
        self._open = Exchange(0, self._oldest(len(self._ready)))
        return self._open

    @property
    def _deepest(self) -> int:
        """The most by which this iteration's takes were ahead of what it gave back."""
        return self._first - self._lowest

    def _ahead(self, demand: float) -> int:
        ahead = min(int(demand) * REFILL_ITERATIONS, self._ready_max)
        return ahead if self._free is None else min(ahead, self._free // 2)

    def _wanted(self, owed: int) -> int:
        """Blocks to fetch ahead; below 0: how many more than are needed are ready."""
        ready, demand = len(self._ready), int(max(self._demand, self._deepest))
        if ready > min(demand * (REFILL_ITERATIONS + SPARE_ITERATIONS), self._ready_max):
            return self._ahead(demand) - ready
        if owed or self.lacked or ready >= min(demand, self._ready_max):
            return 0
        room = self._total - ready - len(self._handed_out)
        return max(0, min(self._ahead(demand) - ready, room))

    def _pop(self, count: int) -> list[int] | None:
        """So many, the most recently released first; None, and no block, when fewer are ready."""
        ready = self._ready
        if len(ready) < count:
            return None
        pop = ready.pop
        blocks: list[int] = []
        try:
            for _ in range(count):
                blocks.append(pop())
        except IndexError:
            # Another thread took them meanwhile.
            ready.extend(reversed(blocks))
            return None
        return blocks

    def _oldest(self, count: int) -> list[int]:
        pop = self._ready.popleft
        blocks: list[int] = []
        try:
            for _ in range(count):
                blocks.append(pop())
        except IndexError:
            # Another thread took what was left.
            pass
        self._move(-len(blocks))
        return blocks

    def _move(self, count: int) -> None:
        self._first += count
        self._lowest += count

    def _wrong(self, blocks: Sequence[int], row: int) -> NotHandedOut:
        block = blocks[row]
        if block in blocks[:row]:
            return NotHandedOut(row, block, f"is a duplicate of entry {blocks.index(block)}")
        return NotHandedOut(row, block, "is not handed out")
