import pytest

from tvm_sparsewino.timing import median_alternating


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
