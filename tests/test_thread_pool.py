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
    before = dict(os.environ)
    use_threads(3)
    print(get_global_func("runtime.NumThreads")())
    for count in (1, 2, 3, 3):
        use_threads(count)
        print(get_global_func("runtime.NumThreads")())
    print(os.sched_getaffinity(0) == some, dict(os.environ) == before)
    """
    assert python(program) == ["3", "1", "2", "3", "3", "True", "True"]


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
