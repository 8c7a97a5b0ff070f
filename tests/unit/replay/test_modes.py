import pytest

from kvblock_replay.modes import Mode, make_setup


def test_shared_is_one_pool_for_all() -> None:
    setup = make_setup(Mode.SHARED, 3, 100, 8)
    assert setup.definitions() == ("shared:total=100,block_size=8,device=0",)
    assert [setup.pool_of(engine) for engine in range(3)] == ["shared"] * 3
    assert make_setup(Mode.SHARED, 3, 100, 8, "mine").pools == ("mine",)


def test_engines_with_caches_have_one_pool_too() -> None:
    hoard, recall = (make_setup(mode, 3, 100, 8) for mode in (Mode.HOARD, Mode.RECALL))
    assert hoard.definitions() == ("hoard:total=100,block_size=8,device=0",)
    assert recall.definitions() == ("recall:total=100,block_size=8,device=0",)
    assert (hoard.layout.caches, hoard.layout.recall) == (True, False)
    assert (recall.layout.caches, recall.layout.recall) == (True, True)


@pytest.mark.parametrize(
    ("engines", "blocks", "shares"), [(3, 3, (1, 1, 1)), (3, 11, (4, 4, 3)), (1, 7, (7,))]
)
def test_split_gives_even_shares_and_what_is_left_to_the_first(
    engines: int, blocks: int, shares: tuple[int, ...]
) -> None:
    setup = make_setup(Mode.SPLIT, engines, blocks, 8)
    assert setup.layout.pool_blocks == shares
    assert setup.pools == tuple(f"split-{index}" for index in range(engines))
    assert [setup.pool_of(engine) for engine in range(engines)] == list(setup.pools)
