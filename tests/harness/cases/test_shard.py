"""Shards: each case in exactly one, none much larger than the others, few moved by an addition."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bootproof.harness.cases.shard import SLACK, Shard, distribute, empty, parse

COSTS = st.dictionaries(st.text(max_size=20), st.integers(0, 1 << 40), max_size=60)


@given(COSTS, st.integers(1, 12))
def test_every_name_is_in_exactly_one_shard(costs: dict[str, int], count: int) -> None:
    found = distribute(costs, count)
    assert found.keys() == costs.keys()
    assert set(found.values()) <= set(range(1, count + 1))


@given(COSTS, st.integers(1, 12))
def test_the_order_of_the_names_means_nothing(costs: dict[str, int], count: int) -> None:
    backwards = dict(reversed(costs.items()))
    assert distribute(backwards, count) == distribute(costs, count)


@given(COSTS, st.integers(1, 12))
def test_no_shard_is_overfull(costs: dict[str, int], count: int) -> None:
    """More than the limit only by what no shard had room for."""
    loads = _loads(costs, count)
    equal = sum(costs.values()) / count
    assert max(loads, default=0) <= equal * (1 + SLACK) + max(costs.values(), default=0)


@pytest.mark.parametrize(("cases", "count"), [(60, 2), (60, 4), (150, 4), (150, 8), (600, 8)])
def test_balance_and_stability_of_a_real_matrix(cases: int, count: int) -> None:
    """Costs as boots have them: refusals, and boots of different kernels."""
    dice = random.Random(cases)
    choices = [30, 1300, 1300, 1500, 2100, 2600]
    costs = {f"x86_64-case-{number}": dice.choice(choices) for number in range(cases)}
    before = distribute(costs, count)
    loads = _loads(costs, count)
    assert max(loads) <= sum(costs.values()) / count * (1 + SLACK)
    for number in range(20):
        after = distribute(costs | {f"added-{number}": dice.choice(choices)}, count)
        moved = [name for name in costs if before[name] != after[name]]
        assert len(moved) <= cases * 0.15  # where dealing them out in turn moves nearly all


def test_a_measurement_that_differs_a_little_moves_little() -> None:
    dice = random.Random(1)
    costs = {f"case-{number}": dice.choice([1300, 1500, 2600]) for number in range(150)}
    again = {name: cost + dice.randrange(10) for name, cost in costs.items()}
    before, after = distribute(costs, 4), distribute(again, 4)
    assert sum(before[name] != after[name] for name in costs) <= 15


def _loads(costs: dict[str, int], count: int) -> list[int]:
    loads = [0] * count
    for name, shard in distribute(costs, count).items():
        loads[shard - 1] += costs[name]
    return loads


def test_as_users_write_it() -> None:
    assert parse("2/4") == Shard(2, 4)
    assert str(Shard(2, 4)) == "2/4"


@pytest.mark.parametrize("text", ["", "1", "0/4", "5/4", "1/0", "-1/4", "1/4/4", "a/b", "1/99999"])
def test_what_is_no_shard(text: str) -> None:
    with pytest.raises(ValueError, match="is no shard; write it like 1/4"):
        parse(text)


def test_a_shard_that_nothing_goes_to() -> None:
    """Where one case costs more than all the others, there may be more cases than shards."""
    found = distribute({"a": 1000, "b": 1, "c": 1}, 5)
    absent = min({1, 2, 3, 4, 5} - set(found.values()))
    most = len(set(found.values()))
    said = empty(Shard(absent, 5), found)
    assert said.startswith(f"--shard {absent}/5: is empty: there are 3 cases for 5 shards")
    assert said.endswith(f"; make at most {most}")
    uneven = {"a": 1, "b": 1, "c": 2, "d": 1}
    told = empty(Shard(3, 3), uneven)
    assert (
        told
        == "--shard 3/3: is empty: there are 4 cases for 3 shards and they fill 2; make at most 2"
    )
