"""Many callers of one network: every call its own answer, and no more threads than allowed."""

import threading

import numpy as np
import pytest
import torch
from relax_networks import module, winograd
from tvm import relax

import tvm_sparsewino
from tvm_sparsewino import driver, session
from tvm_sparsewino.errors import ConfigError, ShapeError

SHAPE = (1, 4, 8, 9)
CALLERS, CALLS = 4, 1000


@pytest.fixture(scope="module")
def exe():
    rng = np.random.default_rng(7)
    u = rng.standard_normal((36, 4, 4)) * (rng.random((36, 4, 4)) < 0.2)
    mod = module(lambda b, x: b.emit(relax.op.nn.relu(winograd(b, x, u.astype("float32")))), SHAPE)
    return driver.compile(mod, num_threads=1)


@pytest.fixture
def four(exe, monkeypatch):
    """The same for four threads, whatever this machine lends: nothing here starts any."""
    monkeypatch.setattr(exe, "num_threads", 4)
    monkeypatch.setattr(session, "use_threads", lambda threads: None)
    return exe


def test_nothing_is_copied(exe):
    call = exe.session()
    assert isinstance(call, tvm_sparsewino.Session)
    x = torch.rand(SHAPE)
    want = exe(x.numpy())
    y = torch.from_dlpack(call(x))
    np.testing.assert_array_equal(y.numpy(), want)
    (array,) = call.empty_inputs()
    array[:] = x
    np.testing.assert_array_equal(np.from_dlpack(call(array)), want)
    np.testing.assert_array_equal(exe(x), want)
    assert call.inputs == exe.inputs


def test_tuples_come_back_as_tuples():
    mod = module(lambda b, x: b.emit(relax.Tuple([b.emit(relax.op.exp(x))])), (2, 3))
    result = driver.compile(mod, "llvm").session()(torch.zeros(2, 3))
    assert isinstance(result, tuple)
    np.testing.assert_array_equal(result[0].numpy(), np.ones((2, 3)))


def test_inputs_that_do_not_fit(exe):
    call = exe.session()
    with pytest.raises(ShapeError, match=r"expected 1 inputs \['x'\], got 2"):
        call(torch.zeros(SHAPE), torch.zeros(SHAPE))
    with pytest.raises(ShapeError, match="input 'x' cannot be used without a copy"):
        call(torch.zeros(1, 8, 8, 9)[:, ::2])


def test_threads_are_divided(four):
    for callers, each in ((None, 1), (1, 4), (2, 2), (3, 1), (4, 1)):
        made = four.session(callers)
        assert (made.callers, made.threads_per_call) == (callers or 4, each)
    for callers in (0, 5, -1, 1.5):
        with pytest.raises(
            ConfigError, match=f"callers must be 1 to 4, the threads, got {callers}"
        ):
            four.session(callers)


def test_no_more_calls_at_a_time_than_callers(four, monkeypatch):
    inside, most, lock = [0], [0], threading.Lock()
    original, both = four._machines, threading.Barrier(2)

    def watched(tensors):
        with lock:
            inside[0] += 1
            most[0] = max(most[0], inside[0])
        both.wait(timeout=60)  # two are let in at a time, and both must come
        result = original(tensors)
        with lock:
            inside[0] -= 1
        both.wait(timeout=60)
        return result

    monkeypatch.setattr(four, "_machines", watched)
    call = four.session(callers=2)
    threads = [threading.Thread(target=call, args=(torch.zeros(SHAPE),)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [2]


def test_a_call_that_fails_gives_its_turn_back(four):
    call = four.session(callers=1)
    machines, call._machines = call._machines, lambda tensors: 1 / 0
    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            call(torch.zeros(SHAPE))
    call._machines = machines
    assert np.all(call(torch.zeros(SHAPE)).numpy() == 0)


def test_no_result_is_lost_or_mixed_up(four):
    """Every call of every thread gives that thread's own answer; results are kept for a while."""
    call = four.session()
    inputs = [torch.rand(SHAPE) for _ in range(CALLERS)]
    wanted = [call(x).numpy() for x in inputs]
    done, wrong, barrier = [0] * CALLERS, [], threading.Barrier(CALLERS)

    def work(number):
        barrier.wait(timeout=60)
        kept = []
        for _ in range(CALLS):
            kept = [*kept[-3:], call(inputs[number])]
            if not np.array_equal(np.from_dlpack(kept[0]), wanted[number]):
                wrong.append(number)
            done[number] += 1

    threads = [threading.Thread(target=work, args=(n,)) for n in range(CALLERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (wrong, done) == ([], [CALLS] * CALLERS)
