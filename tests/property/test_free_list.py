"""The free list against a plain list: the last block in it is the next one out."""

import random
from array import array

from kvblock_service.core.free_list import FreeList

TOTAL = 60
ROUNDS = 20_000


def test_the_free_list_is_a_stack(seed: int) -> None:
    draw = random.Random(seed)
    free_list = FreeList(TOTAL)
    stack = list(reversed(range(TOTAL)))
    held: list[int] = []
    for _ in range(ROUNDS):
        turn = draw.randrange(5)
        if turn < 2:
            count = draw.randrange(min(len(stack), 12) + 1)
            taken = [stack.pop() for _ in range(count)]
            assert free_list.take(count) == taken
            held += taken
        else:
            draw.shuffle(held)
            count = draw.randrange(min(len(held), 12) + 1)
            blocks, held = held[:count], held[count:]
            stack += blocks
            if turn == 2:
                free_list.give_blocks(array("I", blocks))
            elif turn == 3:
                assert free_list.give(list(blocks)) == [1] * count
            else:
                tables = [array("I", blocks[: count // 2]), None, *blocks[count // 2 :]]
                counts = [count // 2, 0] + [1] * (count - count // 2)
                assert free_list.give(tables) == counts
        assert len(free_list) == len(stack)
