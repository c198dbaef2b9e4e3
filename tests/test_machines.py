"""Virtual machines: one per call at a time, and outputs that no later call changes."""

import threading

import numpy as np
import pytest
from relax_networks import const, module
from tvm import relax

from tvm_sparsewino import driver, machines
from tvm_sparsewino._compat import runtime_tensor
from tvm_sparsewino.errors import ArtefactError
from tvm_sparsewino.schedules import cpu_features

CONSTANT = np.arange(6, dtype=np.float32).reshape(2, 3)


@pytest.fixture(scope="module")
def exe():
    """Computed, input, constant, a view of the input, and the computed one again."""

    def build(b, x):
        y = b.emit(relax.op.exp(x))
        view = b.emit(relax.op.reshape(x, (3, 2)))
        return b.emit(relax.Tuple([y, x, const(CONSTANT), view, y]))

    return driver.compile(module(build, (2, 3)), "llvm")


def test_outputs_are_the_callers(exe):
    """Whatever is written into them, the input stays and the next call is right."""
    runner = machines.Machines(exe._built, exe.description, exe._constants)
    x = np.ones((2, 3), np.float32)
    want = (np.exp(x), x, CONSTANT, x.reshape(3, 2), np.exp(x))
    for _ in range(4):
        tensor = runtime_tensor(x)
        outputs = runner([tensor])
        arrays = [np.from_dlpack(output) for output in outputs]
        for number, array in enumerate(arrays):
            np.testing.assert_allclose(array, want[number], rtol=1e-6)
            array[:] = 7 + number  # would show in an output that shares the memory
        assert [array.flat[0] for array in arrays] == [7, 8, 9, 10, 11]
        np.testing.assert_array_equal(tensor.numpy(), x)


def test_outputs_stay_when_later_calls_run(exe):
    runner = machines.Machines(exe._built, exe.description, exe._constants)
    kept = [runner([runtime_tensor(np.full((2, 3), n, np.float32))])[0] for n in range(5)]
    for number, output in enumerate(kept):
        np.testing.assert_allclose(output.numpy(), np.exp(number), rtol=1e-6)


def test_computed_outputs_are_not_copied(exe, monkeypatch):
    runner = machines.Machines(exe._built, exe.description, exe._constants)
    tensor = runtime_tensor(CONSTANT)
    runner([tensor])
    runner([tensor])
    copied, original = [], machines.copied_tensor
    monkeypatch.setattr(machines, "copied_tensor", lambda t: copied.append(t) or original(t))
    runner([tensor])
    assert len(copied) == 4  # all but the first


def test_as_many_machines_as_calls_at_the_same_time(exe, monkeypatch):
    made, inside, original = [], threading.Barrier(3), machines.virtual_machine

    class Machine:
        def __init__(self, built):
            made.append(built)
            self.machine = original(built)

        def __getitem__(self, name):
            function = self.machine[name]
            if name == "save_function":
                return function
            return lambda *tensors: [inside.wait(timeout=60), function(*tensors)][1]

    monkeypatch.setattr(machines, "virtual_machine", Machine)
    runner = machines.Machines(exe._built, exe.description, exe._constants)
    for _ in range(2):
        arguments = [runtime_tensor(CONSTANT)]
        threads = [threading.Thread(target=runner, args=(arguments,)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(made) == 3
    assert all(built is exe._built for built in made)  # code and weights are shared


def test_a_machine_that_raised_is_not_used_again(exe):
    runner = machines.Machines(exe._built, exe.description, exe._constants)
    with pytest.raises(Exception, match="match_cast error"):
        runner([runtime_tensor(np.ones((4, 5), np.float32))])
    assert runner._idle == []


def test_code_for_another_cpu_is_not_run(exe, monkeypatch):
    monkeypatch.setattr(cpu_features, "host_instruction_sets", frozenset)
    monkeypatch.setattr(machines, "missing_on_host", lambda features: ["avx512f"])
    with pytest.raises(ArtefactError, match="compiled for 'llvm'; this CPU lacks avx512f"):
        machines.Machines(exe._built, exe.description, exe._constants)([])
