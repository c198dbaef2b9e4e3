"""The pipeline as TVM's users reach it, and the scheduling of what has no kernel."""

import numpy as np
import pytest
import torch
import tvm
from relax_networks import conv, evaluate, module, winograd
from tvm import relax, tirx

from tvm_sparsewino import reference
from tvm_sparsewino._compat import IS_SCHEDULED, make_target, runtime_tensor, virtual_machine
from tvm_sparsewino.config import CompileConfig
from tvm_sparsewino.cook_toom import cook_toom
from tvm_sparsewino.driver import compile as compile_module
from tvm_sparsewino.driver import import_torch
from tvm_sparsewino.errors import TargetError
from tvm_sparsewino.relay_passes import SparsifyConvs, plan, sparsewino_pipeline
from tvm_sparsewino.relay_passes.schedule_rest import ScheduleRest
from tvm_sparsewino.schedules.target import parse_target

SHAPE = (1, 4, 9, 8)
BASELINE = make_target({"kind": "llvm"})
F32 = 1e-5  # of the output's maximum: float32 sums of some dozen terms


@pytest.fixture
def network(rng):
    """Two convolutions and a pooling layer, an input, and what the network returns."""
    u = rng.standard_normal((36, 4, 4)).astype("float32") * (rng.random((36, 4, 4)) < 0.2)
    weight = rng.standard_normal((5, 4, 1, 1)).astype("float32")
    x = rng.standard_normal(SHAPE).astype("float32")

    def build(b, v):
        y = b.emit(relax.op.nn.relu(winograd(b, v, u.astype("float32"))))
        return b.emit(relax.op.nn.max_pool2d(conv(b, y, weight, padding=0), (2, 2), (2, 2)))

    y = np.maximum(reference.winograd_conv2d(x, u, cook_toom(4, 3), padding=(1, 1, 1, 1)), 0)
    y = reference.conv2d(y, weight)[:, :, :8]
    return module(build, SHAPE), x, y.reshape(1, 5, 4, 2, 4, 2).max((3, 5))


def check(got, want):
    assert got.shape == want.shape
    assert np.abs(got - want).max() <= F32 * np.abs(want).max()


def test_by_its_bare_name(network):
    mod, x, want = network
    built = tvm.compile(mod, BASELINE, relax_pipeline="sparsewino")
    check(virtual_machine(built)["main"](runtime_tensor(x)).numpy(), want)


def test_with_options_and_a_plan(network, tmp_path):
    mod, x, want = network
    plans = plan(mod, "llvm")
    pipeline = relax.get_pipeline("sparsewino", config=CompileConfig(max_tile=2), plan=plans)
    check(evaluate(mod, x, pipeline=pipeline), want)
    left = relax.get_pipeline("sparsewino", plan=(), dump_dir=tmp_path)
    check(evaluate(mod, x, pipeline=left), want)
    assert "sparse_winograd_conv2d" not in (tmp_path / "02_sparsify.py").read_text()


def test_the_pass_alone_in_tvms_own_pipeline(network):
    mod, x, want = network
    sparse = SparsifyConvs(plan(mod, "llvm"), "llvm")(mod)
    check(evaluate(sparse, x, pipeline="default"), want)


def test_every_phase_is_dumped(network, tmp_path):
    mod, x, _ = network
    evaluate(mod, x, pipeline=sparsewino_pipeline(dump_dir=tmp_path))
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [
        "00_input.py",
        "01_prepare.py",
        "02_sparsify.py",
        "03_legalize.py",
        "04_fuse.py",
        "05_schedule_rest.py",
        "06_lower.py",
    ]
    texts = [(tmp_path / name).read_text() for name in names]
    assert "sparsewino.winograd_conv2d" in texts[1]
    assert "sparsewino.sparse_winograd_conv2d" in texts[2]
    assert "sparsewino.sparse_winograd_conv2d" not in texts[3]
    assert "T.parallel" in texts[3]  # of the kernel


def test_layers_that_differ_in_their_zeros_share_a_kernel(rng, tmp_path):
    """Their packed arrays have other lengths; compiling the kernel once is enough."""
    shape = (36, 8, 8)

    def build(b, v):
        for _ in range(3):
            u = rng.standard_normal(shape) * (rng.random(shape) < 0.05)
            v = b.emit(relax.op.nn.relu(winograd(b, v, u.astype("float32"))))
        return v

    mod = module(build, (1, 8, 9, 8))
    with BASELINE:
        sparsewino_pipeline(dump_dir=tmp_path)(mod)
    lowered = (tmp_path / "03_legalize.py").read_text()
    assert lowered.count("def sparse_winograd") == 1
    assert lowered.count("R.call_tir(cls.sparse_winograd") == 3


def test_a_target_of_another_kind_is_refused(network):
    with pytest.raises(TargetError, match="kind 'c'"), tvm.target.Target({"kind": "c"}):
        sparsewino_pipeline()(network[0])


def test_without_a_target_the_host_is_meant(network, tmp_path):
    mod, _, _ = network
    lanes = parse_target("native").lanes
    sparsewino_pipeline(dump_dir=tmp_path)(mod)
    assert f'"lanes": {lanes}' in (tmp_path / "02_sparsify.py").read_text()


# ---- what has no kernel ------------------------------------------------------------------------


def scheduled(mod, lanes=4):
    """``mod`` lowered, fused and scheduled, and its functions that the pass changed."""
    passes = (
        relax.transform.LegalizeOps(),
        relax.transform.AnnotateTIROpPattern(),
        relax.transform.FuseOps(),
        relax.transform.FuseTIR(),
    )
    before = tvm.transform.Sequential(passes)(mod)
    after = ScheduleRest(lanes)(before)
    functions = [f for f in after.functions.values() if not isinstance(f, relax.Function)]
    return before, functions


def text_of(build, *shapes):
    _, functions = scheduled(module(build, *shapes))
    assert all(bool(f.attrs[IS_SCHEDULED]) for f in functions)
    return "\n".join(f.script() for f in functions)


def test_an_elementwise_chain_is_one_parallel_vectorised_loop():
    text = text_of(lambda b, x: b.emit(relax.op.exp(b.emit(relax.op.abs(x)))), (8, 32, 32))
    assert text.count("T.parallel") == text.count("T.vectorized(") == 1
    assert "T.exp(T.fabs(" in text


def test_a_reduction_keeps_its_innermost_loop_over_the_last_axis():
    weight = np.ones((8, 16, 3, 3), np.float32)
    text = text_of(lambda b, x: conv(b, x, weight), (1, 16, 16, 16))
    assert text.count("T.parallel") == 2  # padding, and the convolution
    assert text.count("T.vectorized(") == 2  # zeros and sums; padded rows hold 18
    # Channels, rows and columns of the filter, then vectors of a row.
    assert "for rc, ry, rx, xx_0 in T.grid(" in text[text.rindex("T.parallel") :]


def test_small_work_stays_on_one_thread():
    text = text_of(lambda b, x: b.emit(relax.op.abs(x)), (2, 3, 8))
    assert "T.parallel" not in text
    assert "T.vectorized(" in text


def test_awkward_extents_are_not_vectorised_by_hand():
    assert "T.vectorized" not in text_of(lambda b, x: b.emit(relax.op.abs(x)), (7, 33, 33))


def test_contiguous_loops_become_one():
    """Rows of 33 numbers are no whole vectors, 8 maps of them are."""
    text = text_of(lambda b, x: b.emit(relax.op.abs(x)), (8, 33, 33))
    assert "in T.parallel(T.int64(2178))" in text and "in T.vectorized(T.int64(4))" in text


def test_what_differs_per_channel_keeps_its_loop():
    def build(b, x):
        factor = relax.const(np.arange(32, dtype=np.float32).reshape(32, 1, 1))
        return b.emit(relax.op.multiply(x, factor))

    text = text_of(build, (32, 6, 22))
    assert "in T.parallel(T.int64(32))" in text and "in range(T.int64(33))" in text


def test_steps_share_the_outer_loops_of_the_last(tmp_path):
    def build(b, x):
        # Windows without gaps have a kernel of their own.
        options = {"strides": (2, 2), "padding": (2, 2), "dilation": (2, 2)}
        return b.emit(relax.op.nn.max_pool2d(x, (3, 3), **options))

    with BASELINE:
        sparsewino_pipeline(dump_dir=tmp_path)(module(build, (1, 16, 40, 40)))
    text = (tmp_path / "05_schedule_rest.py").read_text()
    assert text.count("T.parallel") == 1 and "in T.parallel(T.int64(16))" in text


@pytest.mark.parametrize("operator", [relax.op.sum, relax.op.nn.softmax])
def test_extents_that_are_not_known_are_left_alone(operator):
    m = tirx.Var("m", "int64")
    assert "T.unroll" not in text_of(lambda b, x: b.emit(operator(x, axis=1)), (4, m))


def test_rows_that_are_no_whole_vectors_are_put_together(tmp_path):
    """As few as together are: a remainder of a remainder would keep vectors apart."""
    with BASELINE:
        mod = module(lambda b, x: b.emit(relax.op.nn.relu(x)), (1, 40, 12, 14))
        sparsewino_pipeline(dump_dir=tmp_path)(mod)
    text = (tmp_path / "05_schedule_rest.py").read_text()
    assert "in T.parallel(T.int64(40))" in text and "in T.vectorized(T.int64(4))" in text
    assert "% T.int64(168)" not in text


def test_enlarged_rows_are_interleaved(tmp_path):
    def build(b, x):
        options = {"method": "nearest_neighbor", "rounding_method": "round"}
        return b.emit(relax.op.image.resize2d(x, relax.ShapeExpr((20, 24)), **options))

    with BASELINE:
        sparsewino_pipeline(dump_dir=tmp_path)(module(build, (1, 16, 10, 12)))
    text = (tmp_path / "05_schedule_rest.py").read_text()
    assert "in T.unroll(T.int64(2))" in text and "T.vectorized" not in text


def test_finished_functions_stay(network):
    mod, _, _ = network
    before, _ = scheduled(mod)
    marked = before.clone()
    for name, func in before.functions.items():
        if not isinstance(func, relax.Function):
            marked.update_func(name, func.with_attr(IS_SCHEDULED, True))
    tvm.ir.assert_structural_equal(ScheduleRest(4)(marked), marked)


class Rest(torch.nn.Module):
    """One of everything that networks put between convolutions."""

    def forward(self, x, level):
        y = torch.nn.functional.pixel_unshuffle(x, 2)
        y = torch.cat([y, level.reshape(1, 1, 1, 1).expand(1, 1, 6, 9)], 1)
        y = torch.nn.functional.max_pool2d(y, 3, 1, 1) + torch.nn.functional.avg_pool2d(y, 1)
        y = torch.nn.functional.interpolate(y[:, :12], scale_factor=2) * x.mean((2, 3)).sum()
        return torch.softmax(torch.nn.functional.pixel_shuffle(y, 2), dim=-1)


def test_the_rest_of_a_network_computes_the_same(rng):
    x = rng.standard_normal((1, 3, 12, 18)).astype("float32")
    level = np.array([0.25], np.float32)
    tensors = torch.from_numpy(x), torch.from_numpy(level)
    exe = compile_module(import_torch(Rest(), tensors), "native")
    assert exe.plan == ()
    with torch.no_grad():
        check(exe(x, level), Rest()(*tensors).numpy())
