"""TVM's threads, in processes of their own: a pool cannot be remade."""

import os
import subprocess
import sys
import textwrap
import threading

import pytest

from tvm_sparsewino import thread_pool
from tvm_sparsewino.errors import ConfigError


def python(program, **environment):
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("TVM_", "OMP_"))}
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        check=True,
        env=inherited | environment,
    )
    return result.stdout.split()


def test_any_number_in_any_order_and_no_core_is_taken():
    program = """
    import os, tvm
    from tvm_ffi import get_global_func
    from tvm_sparsewino.thread_pool import use_threads
    some = {max(os.sched_getaffinity(0))}
    os.sched_setaffinity(0, some)
    before = os.environ.get("TVM_BIND_THREADS")
    use_threads(3)
    print(get_global_func("runtime.NumThreads")())
    for count in (1, 2, 3, 3):
        use_threads(count)
        print(get_global_func("runtime.NumThreads")())
    print(os.sched_getaffinity(0) == some, os.environ.get("TVM_BIND_THREADS") == before)
    """
    assert python(program) == ["3", "1", "2", "3", "3", "True", "True"]


@pytest.mark.parametrize("environment", [{}, {"TVM_NUM_THREADS": "1"}, {"OMP_NUM_THREADS": "1"}])
@pytest.mark.parametrize("threads", [1, 2])
def test_loops_run_on_as_many_threads_as_asked_for(environment, threads):
    """Every task of a parallel loop notes its thread, by the CPU time that thread has used."""
    program = f"""
    import os
    import numpy as np
    from tvm_sparsewino import _compat
    from tvm_sparsewino._compat import T
    from tvm_sparsewino.schedules.target import parse_target
    from tvm_sparsewino.thread_pool import default_threads, use_threads
    before = default_threads()
    use_threads({threads})
    with _compat.prim_func("busy") as builder:
        out = _compat.arg("out", (2,), "float32")
        with T.parallel(0, 2) as i:
            with T.serial(0, 200_000_000):
                T.buffer_store(out, out[i] * _compat.tir.const(0.5, "float32"), [i])
    busy = _compat.build_module(builder.get(), parse_target("native").tvm_target())["busy"]
    out = _compat.runtime_tensor(np.ones(2, np.float32))
    def used():
        names = os.listdir("/proc/self/task")
        read = lambda n: open(f"/proc/self/task/{{n}}/stat").read().rsplit(")", 1)[1].split()
        return {{n: int(read(n)[11]) for n in names}}
    start = used()
    busy(out)
    ticks = sorted(t - start.get(n, 0) for n, t in used().items())
    print(sum(t > 0.25 * sum(ticks) for t in ticks), sum(ticks) >= 20, default_threads() == before)
    """
    assert python(program, **environment) == [str(threads), "True", "True"]


def test_a_pool_that_tvm_made_before_is_no_silent_limit():
    program = """
    import os, tvm
    from tvm_ffi import get_global_func
    from tvm_sparsewino.errors import ConfigError
    from tvm_sparsewino.thread_pool import settled_threads, use_threads
    get_global_func("runtime.NumThreads")()
    try:
        use_threads(2)
    except ConfigError as error:
        print(str(error).replace(" ", "_"))
    os.environ["TVM_NUM_THREADS"] = "2"
    print(settled_threads(None), settled_threads(1))
    """
    message, *threads = python(program, TVM_NUM_THREADS="1")
    assert "2_threads_were_asked_for" in message
    assert message.endswith("set_TVM_NUM_THREADS=2_before_TVM_first_runs")
    assert threads == ["1", "1"]  # the default takes what there is


def test_fewer_threads_for_a_while():
    program = """
    from tvm_ffi import get_global_func
    from tvm_sparsewino.thread_pool import fewer_threads, threads_in_use, use_threads
    count = get_global_func("runtime.NumThreads")
    print(threads_in_use())
    use_threads(3)
    for fewer in (1, 2, 5):
        with fewer_threads(fewer):
            print(count(), threads_in_use())
    try:
        with fewer_threads(1):
            raise KeyError
    except KeyError:
        print(count(), threads_in_use())
    """
    assert python(program) == ["1", "1", "1", "2", "2", "3", "3", "3", "3"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_child_process_does_not_wait_for_threads_that_it_has_not():
    """TVM's workers do not survive a fork, its pool does; other threads have pools of their own."""
    program = """
    import os, threading
    from tvm_ffi import get_global_func
    from tvm_sparsewino.thread_pool import threads_in_use, use_threads
    count = get_global_func("runtime.NumThreads")
    use_threads(2)
    child = os.fork()
    if child == 0:
        use_threads(2)
        print(count(), threads_in_use(), flush=True)
        def other():
            use_threads(2)
            print(count(), threads_in_use(), flush=True)
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    use_threads(2)
    print(count(), threads_in_use())
    """
    assert python(program) == ["1", "1", "2", "2", "2", "2"]


def test_the_environment_is_as_it_was_whoever_changes_it(monkeypatch):
    """Pools that several threads make at the same time."""
    monkeypatch.setenv("TVM_NUM_THREADS", "7")
    monkeypatch.setattr(thread_pool, "_current", threading.local())
    inside, most = [0], [0]

    def configure(threads):
        inside[0] += 1
        most[0] = max(most[0], inside[0])
        threading.Event().wait(0.002)
        inside[0] -= 1
        return threads

    monkeypatch.setattr(thread_pool, "configure_thread_pool", configure)
    threads = [threading.Thread(target=thread_pool.use_threads, args=(1, 1)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert os.environ["TVM_NUM_THREADS"] == "7" and most == [1]


@pytest.mark.parametrize(("users", "expected"), [(None, "0"), ("1", "1")])
def test_threads_are_bound_only_if_the_user_says_so(monkeypatch, users, expected):
    seen = {}

    def configure(threads):
        seen.update(os.environ)
        return threads

    monkeypatch.setattr(thread_pool, "configure_thread_pool", configure)
    monkeypatch.setattr(thread_pool, "_current", threading.local())
    monkeypatch.delenv("TVM_BIND_THREADS", raising=False)
    if users:
        monkeypatch.setenv("TVM_BIND_THREADS", users)
    thread_pool.use_threads(64)
    assert (seen["TVM_BIND_THREADS"], seen["TVM_NUM_THREADS"]) == (expected, "64")
    assert os.environ.get("TVM_BIND_THREADS") == users


@pytest.mark.parametrize("number", [0, -1, 1.5, "2", None])
def test_numbers_that_are_none(number):
    with pytest.raises(ConfigError, match="must be a positive integer"):
        thread_pool.use_threads(number)


def test_the_default_is_a_variable_or_all_cores(monkeypatch):
    monkeypatch.setenv("TVM_NUM_THREADS", "7")
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert thread_pool.default_threads() == 7
    monkeypatch.delenv("TVM_NUM_THREADS")
    assert thread_pool.default_threads() == 5
    monkeypatch.delenv("OMP_NUM_THREADS")
    for value in ("", "0", "many"):
        monkeypatch.setenv("TVM_NUM_THREADS", value)
        assert thread_pool.default_threads() == thread_pool.available_cores() >= 1


def test_cores_where_the_system_does_not_tell(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert thread_pool.available_cores() == 1
