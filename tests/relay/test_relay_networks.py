"""The same networks as on the Relax line: the same plans and outputs, in every executor."""

import json
import subprocess
import sys

import numpy as np
import pytest
import tvm
from relay_networks import HOST, built, close, executed, operators, run
from tvm import relay

from tvm_sparsewino.relay import import_onnx, sparsify

NETWORKS = ("classifier", "winograd", "inlined")


@pytest.fixture(scope="module")
def sparse(relax_side):
    """Name -> module and plan, rewritten for the host."""
    return {name: sparsify(import_onnx(relax_side.path(name))) for name in NETWORKS}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_plan_is_that_of_the_relax_line(relax_side, sparse, name):
    ours = [json.loads(json.dumps(layer.to_json())) for layer in sparse[name][1]]
    assert ours == relax_side.plan(name)
    assert not [layer for layer in ours if layer["algorithm"] == "left"]


@pytest.mark.parametrize("name", NETWORKS)
def test_outputs_are_those_of_the_relax_line(relax_side, sparse, name):
    got = run(sparse[name][0], relax_side.inputs(name))
    close(got, relax_side.outputs(name)["relax"])
    # Another engine's direct sums beside ours by Winograd.
    close(got, relax_side.outputs(name)["onnxruntime"], 1e-4)


def test_no_convolution_is_left(sparse):
    for mod, _ in sparse.values():
        names = operators(mod)
        assert "nn.conv2d" not in names and "nn.batch_norm" not in names
        assert "nn.bias_add" not in names and "nn.relu" not in names


def test_without_optimisations(relax_side, sparse):
    got = run(sparse["classifier"][0], relax_side.inputs("classifier"), opt_level=0)
    close(got, relax_side.outputs("classifier")["relax"])


def test_virtual_machine(relax_side, sparse):
    executable = relay.vm.compile(sparse["classifier"][0], HOST.tvm_target())
    machine = tvm.runtime.vm.VirtualMachine(executable, tvm.cpu())
    got = machine.run(relax_side.inputs("classifier")["x"]).numpy()
    close(got, relax_side.outputs("classifier")["relax"])


def test_ahead_of_time(relax_side, sparse, tmp_path):
    lib = built(sparse["classifier"][0], executor=relay.backend.Executor("aot"))
    lib.export_library(str(tmp_path / "aot.so"))
    loaded = tvm.runtime.load_module(str(tmp_path / "aot.so"))
    machine = tvm.runtime.executor.AotModule(loaded["default"](tvm.cpu()))
    for name, value in relax_side.inputs("classifier").items():
        machine.set_input(name, tvm.nd.array(value))
    machine.run()
    close(machine.get_output(0).numpy(), relax_side.outputs("classifier")["relax"])


ALONE = """
import sys
import numpy as np

class Refuse:
    def find_spec(self, name, path=None, target=None):
        assert not name.startswith("tvm_sparsewino"), name

sys.meta_path.insert(0, Refuse())
import tvm
from tvm.contrib import graph_executor

machine = graph_executor.GraphModule(tvm.runtime.load_module(sys.argv[1])["default"](tvm.cpu()))
machine.set_input(**np.load(sys.argv[2]))
machine.run()
np.save(sys.argv[3], machine.get_output(0).numpy())
"""


def test_the_library_runs_without_this_package(relax_side, sparse, tmp_path):
    lib, out = tmp_path / "net.so", tmp_path / "out.npy"
    built(sparse["winograd"][0]).export_library(str(lib))
    inputs = relax_side.folder / "winograd.npz"
    subprocess.run([sys.executable, "-c", ALONE, lib, inputs, out], check=True)
    close(np.load(out), relax_side.outputs("winograd")["relax"])


def test_a_rewritten_module_survives_json(relax_side, sparse):
    loaded = tvm.ir.load_json(tvm.ir.save_json(sparse["winograd"][0]))
    assert tvm.ir.structural_equal(loaded, sparse["winograd"][0])
    close(run(loaded, relax_side.inputs("winograd")), relax_side.outputs("winograd")["relax"])


def test_winograd_layers_without_a_plan_compute_their_dense_meaning(relax_side):
    mod = import_onnx(relax_side.path("winograd"))
    assert operators(mod).count("sparsewino.winograd_conv2d") == 3
    close(run(mod, relax_side.inputs("winograd")), relax_side.outputs("winograd")["relax"])


def test_weights_from_a_file_by_name(relax_side):
    """The plain network with the file's layers is the network that the file came from."""
    import onnx

    mod, params = relay.frontend.from_onnx(onnx.load(relax_side.path("plain")), freeze_params=False)
    mod, plan = sparsify(mod, params, weights=relax_side.folder / "weights.safetensors")
    assert [layer.name for layer in plan] == [p["name"] for p in relax_side.plan("named")]
    got = executed(built(mod), relax_side.inputs("plain"))
    close(got, relax_side.outputs("named")["relax"])
