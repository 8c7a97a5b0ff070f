"""What engines owe, against a model that hands out one block after the other."""

from hypothesis import given, settings
from hypothesis import strategies as st

from kvblock_service.core.recall import EngineLevel, owed
from tests.examples import examples

few = st.integers(0, 12)
levels = st.lists(st.tuples(few, few, few), max_size=6).map(
    lambda rows: [EngineLevel(f"e{at}", *row) for at, row in enumerate(rows)]
)


def naive(engines: list[EngineLevel], supply: int) -> dict[str, int]:
    """Block by block: who could still spare the most pays, the last one of these by name."""
    demand = sum(row.demand for row in engines)
    paid = dict.fromkeys((row.name for row in engines), 0)
    for _ in range(max(0, demand - supply)):
        able = [
            (min(row.idle, row.held) - row.demand - paid[row.name], row.name)
            for row in engines
            if paid[row.name] < demand - row.demand - supply
        ]
        left, name = max(able, default=(0, ""))
        if left <= 0:
            break
        paid[name] += 1
    return {name: blocks for name, blocks in paid.items() if blocks}


@settings(max_examples=examples(2000))
@given(engines=levels, supply=few)
def test_owed_is_what_the_model_says(engines: list[EngineLevel], supply: int) -> None:
    found = owed(engines, supply)
    assert found == naive(engines, supply)
    demands = {row.name: row.demand for row in engines}
    unmet = max(0, sum(demands.values()) - supply)
    assert sum(found.values()) <= unmet
    for row in engines:
        assert found.get(row.name, 0) <= min(row.idle, row.held)
        assert found.get(row.name, 0) <= max(0, unmet - row.demand)


@given(engines=levels, supply=few)
def test_order_of_the_engines_does_not_matter(engines: list[EngineLevel], supply: int) -> None:
    assert owed(engines[::-1], supply) == owed(engines, supply)


@settings(max_examples=examples(500))
@given(idle=st.lists(st.integers(0, 300), min_size=1, max_size=6), want=st.integers(0, 2000))
def test_lone_demander_gets_all_idle_blocks(idle: list[int], want: int) -> None:
    """And those who pay late owe what they owed: nobody pays for another's delay."""
    donors = {f"e{at}": blocks for at, blocks in enumerate(idle)}
    free, first = 0, None
    for _ in range(4 * len(donors)):
        rows = [EngineLevel(name, 0, blocks, blocks) for name, blocks in donors.items()]
        found = owed([*rows, EngineLevel("poor", want, 0, 0)], free)
        first = first or found
        if not found:
            break
        payer = min(found)
        assert found[payer] == first[payer]
        # In two parts: what is left to pay is what was owed and not paid.
        part = found[payer] // 2 or found[payer]
        donors[payer] -= part
        free += part
        first[payer] -= part
    for name in sorted(first or {}):
        donors[name] -= (first or {})[name]
        free += (first or {})[name]
    assert free == min(want, sum(idle))


def test_engine_that_has_paid_is_not_asked_again_under_the_same_demand() -> None:
    rows = [EngineLevel("a", 7, 0, 50), EngineLevel("b", 0, 5, 9), EngineLevel("c", 0, 9, 9)]
    assert owed(rows, 0) == {"b": 1, "c": 6}
    assert owed([rows[0], rows[1], EngineLevel("c", 0, 3, 3)], 6) == {"b": 1}
    assert owed([rows[0], EngineLevel("b", 0, 4, 8), rows[2]], 1) == {"c": 6}
    assert owed([rows[0], EngineLevel("b", 0, 4, 8), EngineLevel("c", 0, 3, 3)], 7) == {}


def test_the_idlest_pay_first() -> None:
    rows = [EngineLevel("a", 0, 10, 10), EngineLevel("b", 0, 4, 4), EngineLevel("c", 20, 0, 0)]
    assert owed(rows, 14) == {"a": 6}
    assert owed(rows, 12) == {"a": 7, "b": 1}
    assert owed(rows, 0) == {"a": 10, "b": 4}
    assert owed(rows, 20) == {}


def test_no_engine_owes_for_its_own_demand() -> None:
    assert owed([EngineLevel("a", 5, 90, 90)], 0) == {}
    assert owed([EngineLevel("a", 5, 90, 90), EngineLevel("b", 3, 0, 0)], 0) == {"a": 3}
    assert owed([EngineLevel("a", 5, 6, 90), EngineLevel("b", 3, 0, 0)], 0) == {"a": 1}
