"""Work side by side: every task once, errors to the caller, no thread lost or left behind."""

import gc
import os
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from tvm_sparsewino import crew as module
from tvm_sparsewino.crew import Crew


def helpers():
    return [thread for thread in threading.enumerate() if thread.name == "sparsewino"]


@pytest.fixture
def crew():
    """A crew whose threads are gone before the next test."""
    made = Crew()
    yield made
    made._waiting.dismiss()
    wait_until(lambda: not helpers())


def wait_until(condition):
    end = time.monotonic() + 60
    while not condition():
        gc.collect()
        assert time.monotonic() < end
        time.sleep(0.001)


def noting(seen, barrier=None):
    def task(number):
        if barrier:
            barrier.wait(timeout=60)
        seen.append((number, threading.get_ident()))

    return lambda number: lambda: task(number)


@pytest.mark.parametrize(("count", "at_once"), [(0, 1), (1, 1), (5, 1), (2, 2), (7, 3), (2, 4)])
def test_every_task_is_carried_out_once(crew, count, at_once):
    seen = []
    crew.run(map(noting(seen), range(count)), at_once, 1)
    assert sorted(number for number, _ in seen) == list(range(count))


def test_tasks_run_at_the_same_time_on_threads_that_are_kept(crew):
    before, idents = threading.active_count(), []
    for _ in range(3):
        seen = []
        crew.run(map(noting(seen, threading.Barrier(3)), range(3)), 3, 1)
        idents.append({ident for _, ident in seen})
    assert threading.get_ident() in idents[0] and len(idents[0]) == 3
    assert idents[0] == idents[1] == idents[2]
    assert threading.active_count() == before + 2


def test_loops_of_every_task_have_their_threads(crew, monkeypatch):
    asked = []
    monkeypatch.setattr(module, "use_threads", lambda threads, most: asked.append((threads, most)))
    crew.run([lambda: None] * 2, 2, 1)
    crew.run([lambda: None] * 2, 2, 3)
    crew.run([lambda: None] * 2, 2, 1)
    assert asked == [(1, 1), (3, 3), (1, 1)]
    assert len(helpers()) == 2  # a pool of one cannot grow to three


@pytest.mark.parametrize("where", ["caller", "helper"])
def test_the_first_error_reaches_the_caller(crew, where):
    barrier, begun = threading.Barrier(2), []

    def task():
        begun.append(1)
        barrier.wait(timeout=60)
        if (threading.current_thread() in helpers()) == (where == "helper"):
            raise ValueError("broken")
        while len(begun) < 2:
            time.sleep(0.001)

    for _ in range(2):  # the threads live on
        begun.clear()
        with pytest.raises(ValueError, match="broken"):
            crew.run([task, task, lambda: time.sleep(0.001)], 2, 1)


def test_after_an_error_nothing_new_is_begun(crew):
    begun = []

    def task():
        begun.append(1)
        raise KeyError

    with pytest.raises(KeyError):
        crew.run([task] * 100, 2, 1)
    assert len(begun) <= 2


def test_a_thread_that_cannot_be_told_is_an_error(crew, monkeypatch):
    def refuse(threads, most):
        raise ValueError("no pool")

    monkeypatch.setattr(module, "use_threads", refuse)
    with pytest.raises(ValueError, match="no pool"):
        crew.run([lambda: time.sleep(0.01)] * 8, 2, 1)


def test_callers_do_not_wait_for_each_other(crew):
    """Each of four has a helper to itself: all eight tasks are under way at the same time."""
    barrier, seen = threading.Barrier(8), []
    make = noting(seen, barrier)
    callers = [threading.Thread(target=crew.run, args=([make(0), make(1)], 2, 1)) for _ in range(4)]
    for thread in callers:
        thread.start()
    for thread in callers:
        thread.join()
    assert len({ident for _, ident in seen}) == 8
    assert len(helpers()) == 4


def test_what_was_computed_is_not_kept(crew):
    import weakref

    class Large:
        pass

    large = Large()
    gone = weakref.ref(large)
    crew.run([lambda large=large: None, lambda: None], 2, 1)
    del large
    wait_until(lambda: gone() is None)
    assert helpers()


def test_threads_end_with_their_crew():
    crew = Crew()
    crew.run([lambda: None] * 3, 3, 1)
    assert len(helpers()) == 2
    del crew
    wait_until(lambda: not helpers())


def test_a_helper_that_outlives_its_crew_ends():
    crew, begun, go = Crew(), threading.Event(), threading.Event()

    def task():
        if threading.current_thread() in helpers():
            begun.set()
            go.wait(timeout=60)
        else:
            begun.wait(timeout=60)
            raise KeyboardInterrupt  # in run: it waits for the helper all the same

    def call():
        with pytest.raises(KeyboardInterrupt):
            crew.run([task] * 2, 2, 1)

    caller = threading.Thread(target=call)
    caller.start()
    begun.wait(timeout=60)
    crew._waiting.dismiss()
    go.set()
    caller.join()
    wait_until(lambda: not helpers())


def run_alone(program):
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return result.stdout.split()


def test_a_process_ends_with_threads_that_wait():
    program = """
    from tvm_sparsewino.crew import Crew
    crew = Crew()
    crew.run([lambda: None] * 4, 3, 2)
    print("done")
    """
    assert run_alone(program) == ["done"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_child_process_has_a_crew_of_its_own():
    program = """
    import os, threading
    from tvm_sparsewino.crew import Crew
    crew, barrier = Crew(), threading.Barrier(3)
    tasks = [lambda: barrier.wait(timeout=60)] * 3
    crew.run(tasks, 3, 1)
    child = os.fork()
    if child == 0:
        barrier.reset()
        crew.run(tasks, 3, 1)
        print("child", flush=True)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    crew.run(tasks, 3, 1)
    print("parent")
    """
    assert run_alone(program) == ["child", "parent"]
