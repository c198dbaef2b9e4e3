"""Linear layers of whole networks: found, planned, replaced, saved."""

import json

import numpy as np
import pytest
import torch
import tvm
from relax_networks import const, evaluate, module, operators
from rich.console import Console
from tvm import relax

from tvm_sparsewino import driver
from tvm_sparsewino._compat import make_target
from tvm_sparsewino.cli.inspect import plan_table
from tvm_sparsewino.config import CompileConfig, Epilogue, LayerPlan
from tvm_sparsewino.config_linear import LinearPlan, LinearShape, plan_from_json
from tvm_sparsewino.cost_linear import predict_dense_linear, predict_sparse_linear
from tvm_sparsewino.errors import ConfigError, ShapeError
from tvm_sparsewino.planner_linear import plan_linear
from tvm_sparsewino.relay_passes.linear_ops import packed_linear
from tvm_sparsewino.relay_passes.plan_layers import plan
from tvm_sparsewino.relay_passes.rewrite_linear import RewriteLinears
from tvm_sparsewino.schedules.target import parse_target

CPU = parse_target("llvm")
F32 = 1e-5  # of the output's maximum: sums of some dozen terms


def matmul(b, x, weight, transposed=True):
    w = const(weight)
    w = b.emit(relax.op.permute_dims(w, [1, 0])) if transposed else w
    return b.emit(relax.op.matmul(x, w))


@pytest.fixture
def weight(rng):
    return (rng.standard_normal((7, 12)) * (rng.random((7, 12)) < 0.5)).astype("float32")


def compiled(mod, plans):
    return RewriteLinears(plans, CPU)(mod)


@pytest.mark.parametrize("transposed", [True, False])
@pytest.mark.parametrize("bias_first", [True, False])
def test_product_bias_and_activation_become_one_operator(weight, transposed, bias_first, rng):
    bias = rng.standard_normal(7).astype("float32")

    def build(b, x):
        y = matmul(b, x, weight if transposed else weight.T, transposed)
        y = relax.op.add(const(bias), y) if bias_first else relax.op.add(y, const(bias[None]))
        return b.emit(relax.op.nn.relu(b.emit(y)))

    mod = module(build, (3, 12))
    (layer,) = plan(mod, CPU)
    assert (layer.linear, layer.density) == (LinearShape(3, 12, 7), (weight != 0).mean())
    after = compiled(mod, [layer])
    assert operators(after) == ["sparsewino.linear"]
    x = rng.standard_normal((3, 12)).astype("float32")
    want = np.maximum(x @ weight.T + bias, 0)
    assert np.abs(evaluate(after, x) - want).max() <= F32 * want.max()


@pytest.mark.parametrize(
    ("call", "epilogue"),
    [
        (relax.op.nn.relu6, Epilogue(activation="relu6")),
        (lambda x: relax.op.nn.leakyrelu(x, 0.125), Epilogue(False, False, "leaky_relu", 0.125)),
    ],
)
def test_activations(weight, call, epilogue):
    mod = module(lambda b, x: b.emit(call(matmul(b, x, weight))), (3, 12))
    after = compiled(mod, plan(mod, CPU))
    (found,) = [b.value for block in after["main"].body.blocks for b in block.bindings][:1]
    assert Epilogue.from_json(str(found.attrs["epilogue"])) == epilogue


def test_what_others_use_stays_outside(weight, rng):
    def build(b, x):
        y = matmul(b, x, weight)
        return b.emit(relax.op.add(y, b.emit(relax.op.nn.relu(y))))

    mod = module(build, (3, 12))
    after = compiled(mod, plan(mod, CPU))
    assert operators(after) == ["sparsewino.linear", "relax.nn.relu", "relax.add"]
    x = rng.standard_normal((3, 12)).astype("float32")
    y = x @ weight.T
    want = y + np.maximum(y, 0)
    assert np.abs(evaluate(after, x) - want).max() <= F32 * np.abs(want).max()


def test_an_addition_that_is_no_bias_stays_outside(weight):
    for other in (np.ones((3, 1)), np.ones((3, 7)), np.ones((2, 3, 7))):
        mod = module(
            lambda b, x, o=other: b.emit(relax.op.add(matmul(b, x, weight), const(o))), (3, 12)
        )
        after = compiled(mod, plan(mod, CPU))
        assert operators(after) == ["sparsewino.linear", "relax.add"]


def test_leading_dimensions_and_vectors(weight, rng):
    for shape in ((2, 3, 12), (12,)):
        mod = module(lambda b, x: matmul(b, x, weight), shape)
        after = compiled(mod, plan(mod, CPU))
        assert operators(after) == ["sparsewino.linear"]
        x = rng.standard_normal(shape).astype("float32")
        want = x @ weight.T
        assert np.abs(evaluate(after, x) - want).max() <= F32 * np.abs(want).max()


def test_products_of_computed_tensors_are_no_layers():
    mod = module(lambda b, x, y: b.emit(relax.op.matmul(x, y)), (3, 4), (4, 5))
    assert plan(mod, CPU) == ()


def test_a_symbolic_batch_is_left(weight):
    n = tvm.tirx.Var("n", "int64")
    mod = module(lambda b, x: matmul(b, x, weight), (n, 12))
    (layer,) = plan(mod, CPU)
    assert layer.algorithm == "left" and "symbolic shape" in layer.reason
    tvm.ir.assert_structural_equal(compiled(mod, [layer]), mod)


def test_a_layer_beyond_32_bit_indices_is_left(weight):
    mod = module(lambda b, x: matmul(b, x, weight), (2**27, 12))
    (layer,) = plan(mod, CPU)
    assert layer.algorithm == "left" and "too large for 32-bit indices" in layer.reason


def test_a_layer_called_twice_has_two_names(weight):
    square = np.eye(12, dtype=np.float32)
    names = {"a": "fc", "b": "fc"}

    def build(b, x):
        y = b.emit(relax.op.matmul(x, const(square)), name_hint="a")
        return b.emit(relax.op.matmul(y, const(square)), name_hint="b")

    mod = module(build, (3, 12))
    mod["main"] = mod["main"].with_attr("sparsewino.layer_names", names)
    assert [p.name for p in plan(mod, CPU)] == ["fc", "fc:2"]


def test_plans_that_do_not_fit_are_refused(weight):
    mod = module(lambda b, x: matmul(b, x, weight), (3, 12))
    (layer,) = plan(mod, CPU)
    other = LinearPlan(layer.name, LinearShape(1, 12, 7), 1.0, "dense_linear")
    with pytest.raises(ConfigError, match=f"layer '{layer.name}': the plan was made for"):
        compiled(mod, [other])
    symbolic = module(lambda b, x: matmul(b, x, weight), (tvm.tirx.Var("n", "int64"), 12))
    with pytest.raises(
        ConfigError, match=r"the plan says .*_linear, but its data has the symbolic"
    ):
        compiled(symbolic, [LinearPlan(layer.name, LinearShape(1, 12, 7), 1.0, "dense_linear")])


def test_operands_that_do_not_fit_are_refused():
    shape = LinearShape(2, 3, 4)
    chosen = LinearPlan("fc", shape, 1.0, "dense_linear")

    def call(data, epilogue, bias=None):
        variable = relax.Var("x", relax.TensorType(data, "float32"))
        packed = [const(np.zeros(24))]
        options = {"plan": chosen, "epilogue": epilogue, "lanes": 8, "vector_registers": 16}
        made = packed_linear(variable, packed, bias, **options)
        return relax.BlockBuilder().normalize(made)

    with pytest.raises(ShapeError, match=r"layer 'fc'.*2 rows of 3 features, got \(3, 3\)"):
        call((3, 3), Epilogue())
    with pytest.raises(ShapeError, match="takes 1 operands after the weights"):
        call((2, 3), Epilogue(bias=True))
    with pytest.raises(ShapeError, match=r"bias must be \[8\], got \(4,\)"):
        call((2, 3), Epilogue(bias=True), const(np.zeros(4)))


# ---- the choice --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sizes", [(1, 512, 1000), (1, 2048, 1000), (1, 25088, 4096), (16, 512, 1000)]
)
def test_the_choice_follows_the_density(sizes):
    shape = LinearShape(*sizes)
    rng = np.random.default_rng(0)
    for density, want in ((1.0, "dense_linear"), (0.1, "sparse_linear")):
        small = LinearShape(shape.n, shape.c, 100)
        weight = (rng.random((100, shape.c)) < density).astype("float32")
        got = plan_linear("fc", small, weight, CPU)
        assert got.algorithm == want
        assert f"{want.replace('_', ' ')} is predicted at" in got.reason
    assert predict_sparse_linear(shape, 0.0, 8, 16) < predict_sparse_linear(shape, 0.5, 8, 16)
    assert predict_sparse_linear(shape, 1.0, 8, 16) > predict_dense_linear(shape, 8, 16)


@pytest.mark.parametrize("sizes", [(1, 8, 2), (1, 1, 1), (4, 3, 5), (16, 20, 7)])
def test_layers_without_zeros_are_dense(sizes):
    shape = LinearShape(*sizes)
    plan = plan_linear("fc", shape, np.ones((shape.k, shape.c), np.float32), CPU)
    assert plan.algorithm == "dense_linear"
    assert plan.flops_done == shape.direct_flops


def test_threads_change_the_time_but_not_the_choice(rng):
    shape = LinearShape(1, 600, 500)
    weight = (rng.random((500, 600)) < 0.1).astype("float32")
    one, two = (plan_linear("fc", shape, weight, CPU, threads) for threads in (1, 2))
    assert one.algorithm == two.algorithm
    assert two.cost_cycles < one.cost_cycles


# ---- plans as JSON, the driver, the table ------------------------------------------------------


def test_plans_survive_json():
    layer = LinearPlan("fc", LinearShape(1, 2, 3), 0.5, "sparse_linear", "why", 12, 6, 1.5)
    assert plan_from_json(json.loads(json.dumps(layer.to_json()))) == layer
    left = LinearPlan("fc", None, 1.0, "left", "why")
    assert plan_from_json(left.to_json()) == left
    conv = LayerPlan("conv", None, 1.0, "left")
    assert plan_from_json(conv.to_json()) == conv


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"algorithm": "magic"}, "unknown algorithm of a linear layer 'magic'"),
        ({"density": 2.0}, "density must be in"),
        ({"linear": None}, "dense_linear needs the layer's shape"),
        ({"linear": {"n": 0, "c": 1, "k": 1}}, "sizes must be >= 1"),
    ],
)
def test_bad_plans_are_refused(change, message):
    good = LinearPlan("fc", LinearShape(1, 2, 3), 1.0, "dense_linear").to_json()
    with pytest.raises(ConfigError, match=message):
        plan_from_json({**good, **change})


def test_compiled_saved_loaded_and_listed(weight, rng, tmp_path):
    mod = module(lambda b, x: matmul(b, x, weight), (2, 12))
    exe = driver.compile(mod, "native", CompileConfig())
    exe.save(tmp_path / "net.so")
    again = driver.load(tmp_path / "net.so")
    assert again.plan == exe.plan and isinstance(again.plan[0], LinearPlan)
    x = rng.standard_normal((2, 12)).astype("float32")
    want = x @ weight.T
    assert np.abs(again(x) - want).max() <= F32 * np.abs(want).max()
    console = Console(width=200, record=True)
    console.print(plan_table(exe.plan))
    assert "2x 12>7" in console.export_text()


class Classifier(torch.nn.Module):
    """A convolution and linear layers, one of them called twice; a product of activations."""

    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(2, 3, 3)
        self.features = torch.nn.Sequential(torch.nn.Linear(12, 12), torch.nn.ReLU())
        self.head = torch.nn.Linear(12, 5, bias=False)

    def forward(self, x):
        y = self.features(self.features(torch.flatten(self.conv(x), 1)))
        return self.head(y) * torch.matmul(y, y.T).sum()


def test_layers_have_the_names_of_their_modules():
    network, x = Classifier().eval(), torch.randn(2, 2, 4, 4)
    exe = driver.compile(driver.import_torch(network, (x,)), "native")
    names = [layer.name for layer in exe.plan]
    assert names == ["conv", "features.0", "features.0:2", "head"]
    want = network(x).detach().numpy()
    assert np.abs(exe(x.numpy()) - want).max() <= F32 * np.abs(want).max()


def test_by_tvms_own_pipeline(weight, rng):
    mod = module(lambda b, x: matmul(b, x, weight), (1, 12))
    after = compiled(mod, plan(mod, CPU))
    with make_target({"kind": "llvm"}):
        x = rng.standard_normal((1, 12)).astype("float32")
        assert np.abs(evaluate(after, x) - x @ weight.T).max() <= F32 * 10
