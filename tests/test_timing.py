import pytest

from tvm_sparsewino.timing import fastest, median_alternating


def test_candidates_take_turns():
    calls = []
    seconds = median_alternating(
        {name: lambda name=name: calls.append(name) for name in "ab"}, repeats=3, warmup=2
    )
    assert calls == ["a", "b"] * 5
    assert {name: len(values) for name, values in seconds.items()} == {"a": 3, "b": 3}
    assert all(value >= 0 for values in seconds.values() for value in values)


@pytest.mark.parametrize(("repeats", "warmup"), [(0, 1), (1, -1)])
def test_counts_that_are_none(repeats, warmup):
    with pytest.raises(ValueError, match="needs repeats >= 1 and warmup >= 0"):
        median_alternating({}, repeats, warmup)


def test_the_fastest_of_warm_calls():
    """Every call is timed right after one of the same; the clock here counts calls."""
    calls, durations = [], {"a": iter([5, 4, 5, 2, 5, 3]), "b": iter([1, 9, 1, 7, 1, 8])}
    now = [0.0]

    def call(name):
        calls.append(name)
        now[0] += next(durations[name])

    found = fastest({name: lambda n=name: call(n) for name in "ab"}, 3, lambda: now[0])
    assert found == {"a": 2, "b": 7}
    assert "".join(calls) == "aabb" * 3
