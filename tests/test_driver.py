"""Compile, run, save and load, with good and bad input."""

import dataclasses
import os
import threading

import numpy as np
import pytest
import tvm
from relax_networks import conv, module, winograd
from tvm import relax

import tvm_sparsewino
from tvm_sparsewino import driver, loading, reference
from tvm_sparsewino.config import CompileConfig
from tvm_sparsewino.cook_toom import cook_toom
from tvm_sparsewino.errors import ArtefactError, ConfigError, ShapeError, TargetError
from tvm_sparsewino.relay_passes import plan
from tvm_sparsewino.schedules import cpu_features

SHAPE = (1, 4, 8, 9)
F32 = 1e-5  # of the output's maximum: float32 sums of some dozen terms


@pytest.fixture(scope="module")
def network():
    """A sparse convolution with a sum and ReLU; its module and its function in float64."""
    rng = np.random.default_rng(7)
    u = rng.standard_normal((36, 4, 4)) * (rng.random((36, 4, 4)) < 0.2)
    u = u.astype("float32")

    def build(b, image, other):
        y = winograd(b, image, u, name="body")
        return b.emit(relax.op.nn.relu(b.emit(relax.op.add(y, other))))

    def function(image, other):
        y = reference.winograd_conv2d(image, u, cook_toom(4, 3), padding=(1, 1, 1, 1))
        return np.maximum(y + other, 0)

    return module(build, SHAPE, SHAPE, names=("image", "other")), function


@pytest.fixture(scope="module")
def exe(network):
    return driver.compile(network[0])


@pytest.fixture
def arrays(rng):
    return [rng.standard_normal(SHAPE).astype("float32") for _ in range(2)]


def check(got, want):
    assert (got.shape, got.dtype) == (want.shape, np.float32)
    assert np.abs(got - want).max() <= F32 * np.abs(want).max()


def test_positional_and_named_inputs(network, exe, arrays):
    want = network[1](*arrays)
    check(exe(*arrays), want)
    check(exe.run({"other": arrays[1], "image": arrays[0]}), want)
    assert [str(info) for info in (*exe.inputs, *exe.outputs)] == ["float32 [1, 4, 8, 9]"] * 3
    assert [layer.name for layer in exe.plan] == ["body"]
    assert exe.target.startswith("llvm -mcpu=")


def test_public_names_are_these():
    assert tvm_sparsewino.compile is driver.compile
    assert tvm_sparsewino.load is driver.load is loading.load
    assert tvm_sparsewino.import_torch is driver.import_torch


def test_results_belong_to_the_caller(exe, arrays):
    first = exe(*arrays)
    kept = first.copy()
    exe(*(-a for a in arrays))
    np.testing.assert_array_equal(first, kept)


def test_any_memory_layout_and_byte_order(network, exe, arrays):
    image, other = arrays
    want = exe(image, other)
    strided = np.zeros((1, 8, 8, 9), np.float32)
    strided[:, ::2] = image
    for same in (
        strided[:, ::2],
        np.asfortranarray(image),
        image[..., ::-1][..., ::-1],
        image.astype(">f4"),
        image.tolist() and np.ma.masked_array(image),
    ):
        np.testing.assert_array_equal(exe(same, other), want)
    image.flags.writeable = False
    np.testing.assert_array_equal(exe(image, other), want)


def test_nan_is_data(exe, arrays):
    image, other = arrays
    want = exe(image, other)
    other[0, 1, 2, 3] = np.nan
    got = exe(image, other)
    elsewhere = np.ones(SHAPE, bool)
    elsewhere[0, 1, 2, 3] = False
    np.testing.assert_array_equal(got[elsewhere], want[elsewhere])


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (
            lambda x: x[:, :3],
            r"input 'image': expected float32 \[1, 4, 8, 9\], got .*\[1, 3, 8, 9\]",
        ),
        (lambda x: x[0], r"got float32 \[4, 8, 9\]"),
        (lambda x: x.astype("float64"), r"got float64 \[1, 4, 8, 9\]"),
        (lambda x: x.astype("int32"), "got int32"),
        (lambda x: x.astype("float16"), "got float16"),
        (lambda x: np.float32(1), r"got float32 \[\]"),
        (lambda x: None, "got object"),
        (lambda x: "image", "got <U5"),
    ],
)
def test_inputs_that_do_not_fit_are_named(exe, arrays, change, text):
    with pytest.raises(ShapeError, match=text):
        exe(change(arrays[0]), arrays[1])


def test_missing_and_unknown_inputs(exe, arrays):
    with pytest.raises(ShapeError, match=r"expected 2 inputs \['image', 'other'\], got 1"):
        exe(arrays[0])
    for names in (["image"], ["image", "other", "third"], ["image", "others"]):
        with pytest.raises(ShapeError, match=r"expected the inputs \['image', 'other'\], got"):
            exe.run(dict.fromkeys(names, arrays[0]))


def test_threads_may_share_one_network(network, exe):
    """Every call of every thread must give that thread's own answer."""
    count, calls = 4, 25
    rng = np.random.default_rng(0)
    inputs = rng.standard_normal((count, 2, *SHAPE)).astype("float32")
    wanted = [exe(*pair) for pair in inputs]
    wrong, barrier = [], threading.Barrier(count)

    def work(number):
        barrier.wait()
        for _ in range(calls):
            if not np.array_equal(exe(*inputs[number]), wanted[number]):
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_tuples_come_back_as_tuples():
    mod = module(lambda b, x: b.emit(relax.Tuple([b.emit(relax.op.exp(x)), x])), (2, 3))
    x = np.ones((2, 3), np.float32)
    first, second = driver.compile(mod)(x)
    np.testing.assert_allclose(first, np.e, rtol=1e-6)
    np.testing.assert_array_equal(second, x)


# ---- compiling ---------------------------------------------------------------------------------


def test_options_reach_the_planner(rng):
    weight = rng.standard_normal((4, 4, 3, 3)).astype("float32")
    mod = module(lambda b, x: conv(b, x, weight, name="layer"), SHAPE)
    config = CompileConfig(min_channels=5)
    assert driver.compile(mod, "llvm", config).plan[0].algorithm == "left"
    assert driver.compile(mod, "llvm", config, plan=()).plan == ()


@pytest.mark.parametrize("density", [0.2, 1.0])
def test_a_plan_may_use_fewer_lanes_than_registers_have(rng, density):
    """The same bits: sums do not depend on how tiles are put into vectors."""
    weight = rng.standard_normal((8, 4, 3, 3)).astype("float32")
    weight[rng.random((8, 4)) >= density] = 0
    shape = (1, 4, 30, 30)
    mod = module(lambda b, x: conv(b, x, weight, name="layer"), shape)
    x = rng.standard_normal(shape).astype("float32")
    (planned,) = plan(mod, "llvm -mcpu=x86-64-v3")
    kind = {"algorithm": "sparse_winograd" if density < 1 else "dense_winograd", "m": 4}
    sizes = {"panel_vectors": 2, "k_block": 8, "channel_block": 4, "rows_at_once": 2}
    plans = [dataclasses.replace(planned, **kind, **sizes, lanes=n) for n in (0, 4, 8)]
    outputs = [driver.compile(mod, "llvm -mcpu=x86-64-v3", plan=[p])(x) for p in plans]
    for output in outputs[1:]:
        np.testing.assert_array_equal(output, outputs[0])
    want = reference.conv2d(x, weight, None, (1, 1, 1, 1))
    assert np.abs(outputs[1] - want).max() <= 2e-5 * np.abs(want).max()


def test_ir_is_dumped_into_a_new_folder(network, tmp_path):
    driver.compile(network[0], "llvm", dump_dir=tmp_path / "a" / "b")
    assert len(list((tmp_path / "a" / "b").glob("*.py"))) == 7


def test_compiling_for_another_cpu_works_and_running_is_refused(network, arrays, monkeypatch):
    exe = driver.compile(network[0], "llvm -mcpu=skylake-avx512")
    few = frozenset({"avx2", "fma"})
    monkeypatch.setattr(cpu_features, "host_instruction_sets", lambda: few)
    with pytest.raises(ArtefactError, match="compiled for 'llvm -mcpu=skylake-avx512'; this CPU"):
        exe(*arrays)


def test_bad_requests(network):
    mod = network[0]
    with pytest.raises(TargetError, match="'gpu'"):
        driver.compile(mod, "gpu")
    with pytest.raises(ConfigError, match="number of threads must be a positive integer, got 0"):
        driver.compile(mod, num_threads=0)
    with pytest.raises(ConfigError, match="has no function 'main'"):
        driver.compile(tvm.IRModule({"other": mod["main"].with_attr("global_symbol", "other")}))


def test_inputs_that_are_no_static_tensors():
    width = tvm.tirx.Var("width", "int64")
    absolute = relax.op.abs
    with pytest.raises(ShapeError, match=r"input 'x' has the symbolic shape .*width"):
        driver.compile(module(lambda b, x: b.emit(absolute(x)), (3, width)))
    unknown = relax.Var("x", relax.TensorType(ndim=2, dtype="float32"))
    with pytest.raises(ShapeError, match="input 'x' has an unknown shape"):
        driver.compile(function_of(unknown, unknown))
    pair = relax.Var("x", relax.TupleType([relax.TensorType((1,), "float32")] * 2))
    with pytest.raises(ShapeError, match="input 'x' must be a tensor"):
        driver.compile(function_of(pair, relax.TupleGetItem(pair, 0)))


def function_of(parameter, result):
    builder = relax.BlockBuilder()
    with builder.function("main", [parameter]):
        builder.emit_func_output(builder.emit(result))
    return builder.get()


# ---- files -------------------------------------------------------------------------------------


def test_saved_and_loaded(exe, arrays, tmp_path, capfd):
    path = tmp_path / "net.so"
    exe.save(path)
    again = driver.load(path)
    np.testing.assert_array_equal(again(*arrays), exe(*arrays))
    assert again.description == exe.description
    assert again.plan == exe.plan
    with pytest.raises(ArtefactError, match=r"copy\.so: loaded from .*net\.so; copy that file"):
        again.save(tmp_path / "copy.so")
    assert [p.name for p in tmp_path.iterdir()] == ["net.so"]
    assert capfd.readouterr() == ("", "")  # TVM's notes about every constant are held back


def test_what_else_is_written_to_stderr_passes(exe, tmp_path, capfd, monkeypatch):
    original = type(exe._built).export_library

    def noisy(built, path, **options):
        os.write(2, b"linker: something\n")
        original(built, path, **options)

    monkeypatch.setattr(type(exe._built), "export_library", noisy)
    exe.save(tmp_path / "net.so")
    assert capfd.readouterr().err == "linker: something\n"


def test_a_file_for_another_cpu_is_refused_before_it_is_loaded(exe, tmp_path, monkeypatch):
    path = tmp_path / "net.so"
    exe.save(path)
    monkeypatch.setattr(cpu_features, "host_instruction_sets", frozenset)
    monkeypatch.setattr(loading, "load_module", lambda _: pytest.fail("loaded"))
    with pytest.raises(ArtefactError, match=r"net\.so: compiled for .*; this CPU lacks .*avx"):
        driver.load(path)


def test_a_network_that_cannot_be_linked_leaves_nothing(exe, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CXX", "no-such-compiler")
    (tmp_path / "net.so").write_bytes(b"older")
    with pytest.raises(ArtefactError, match=r"net\.so: (TVM cannot link it|cannot be written)"):
        exe.save(tmp_path / "net.so")
    assert (tmp_path / "net.so").read_bytes() == b"older"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_library_that_does_not_load_is_an_error(exe, tmp_path, monkeypatch):
    exe.save(tmp_path / "net.so")

    def broken(path):
        raise OSError("cannot open shared object")

    monkeypatch.setattr(loading, "load_module", broken)
    with pytest.raises(ArtefactError, match="cannot be loaded: cannot open shared object"):
        driver.load(tmp_path / "net.so")
