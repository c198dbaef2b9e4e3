"""Networks made for one batch size, as networks of any: the same in every other way."""

import numpy as np
import pytest
import tvm
import tvm_ffi
from relax_networks import const, conv, evaluate, module, per_channel, winograd
from tvm import relax

from tvm_sparsewino.errors import ConfigError, ShapeError
from tvm_sparsewino.relay_passes.batch import batch_symbol, check_rows_apart, instances
from tvm_sparsewino.relay_passes.open_batch import opened
from tvm_sparsewino.relay_passes.operators import WINOGRAD

OP = relax.op
RNG = np.random.default_rng(3)
WEIGHT, COEFFICIENTS = RNG.standard_normal((4, 3, 3, 3)), RNG.standard_normal((36, 4, 4))
MATRIX = RNG.standard_normal((4, 5))


def network(batch):
    """Convolutions, a residual, pooling, reshapes to written-out shapes and a linear layer."""

    def build(b, x):
        y = b.emit(OP.nn.relu(conv(b, x, WEIGHT, name="first")))
        z = b.emit(OP.add(winograd(b, y, COEFFICIENTS), y))
        z = b.emit(OP.add(z, per_channel(np.arange(4))))
        wide = b.emit(OP.broadcast_to(b.emit(OP.mean(z, [2], True)), (batch, 4, 6, 6)))
        z = b.emit(OP.nn.max_pool2d(b.emit(OP.add(z, wide)), (6, 6)))
        flat = b.emit(OP.reshape(z, (batch, 4)))
        scores = b.emit(OP.matmul(flat, const(MATRIX)))
        pair = b.emit(relax.Tuple([scores, flat]))
        return b.emit(relax.TupleGetItem(pair, 0))

    return module(build, (batch, 3, 6, 6))


def sizes(variable):
    return [getattr(e, "name", None) or int(e) for e in variable.ty.shape.values]


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_an_opened_network_is_that_of_every_other_size(batch):
    func = opened(network(batch)["main"], ["x"], "n")
    check_rows_apart(func, batch_symbol(func))
    assert str(batch_symbol(func)) == "n"
    x = RNG.standard_normal((4, 3, 6, 6)).astype(np.float32)
    made = instances(tvm.IRModule({"main": func}), (4,), lambda size: f"of_{size}")
    four = tvm.IRModule({"main": made["of_4"].with_attr("global_symbol", "main")})
    np.testing.assert_allclose(evaluate(four, x), evaluate(network(4), x), rtol=1e-6)


def test_the_size_it_was_made_with_does_not_show():
    two, five = (opened(network(size)["main"], ["x"], "n") for size in (2, 5))
    assert tvm_ffi.structural_equal(two, five)


def test_names_and_attributes_stay():
    func = network(2)["main"].with_attr("layers", {"first": "stem"})
    names = [b.var.name for block in func.body.blocks for b in block.bindings]
    result = opened(func, ["x"], "n")
    assert [b.var.name for block in result.body.blocks for b in block.bindings] == names
    assert dict(result.attrs["layers"]) == {"first": "stem"}


def test_only_the_inputs_that_are_named_have_the_batch():
    mod = module(lambda b, x, y: b.emit(OP.add(x, y)), (1, 3), (1, 3))
    func = opened(mod["main"], ["x"], "n")
    assert [sizes(p)[0] for p in func.params] == ["n", 1]
    check_rows_apart(func, batch_symbol(func))
    func = opened(mod["main"], ["y"], "n")
    assert [sizes(p)[0] for p in func.params] == [1, "n"]


def test_instances_are_functions_beside_the_others():
    func = opened(network(2)["main"], ["x"], "n").with_attr("tir_var_lower_bound", {"n": 2})
    other = module(lambda b, x: b.emit(OP.abs(x)), (2, 3))["main"].with_attr("global_symbol", "f")
    mod = instances(tvm.IRModule({"main": func, "f": other}), (1, 3), lambda size: f"of_{size}")
    relax.analysis.well_formed(mod)
    assert {var.name_hint for var in mod.get_global_vars()} == {"f", "of_1", "of_3"}
    assert sizes(mod["of_3"].params[0]) == [3, 3, 6, 6]
    assert str(mod["of_3"].attrs["global_symbol"]) == "of_3"
    assert "tir_var_lower_bound" not in mod["of_3"].attrs
    with pytest.raises(ConfigError, match="the module has a function 'f' already"):
        instances(tvm.IRModule({"main": func, "f": other}), (1,), lambda _: "f")


REFUSED = {
    "reshape": (
        lambda b, x: b.emit(OP.reshape(x, (8,))),
        r"relax.reshape to \[8\] mixes the batch with another axis \(value 'lv'\)",
    ),
    "unknown": (
        lambda b, x: b.emit(OP.einsum([x, x], "ab,ab->ab")),
        "relax.einsum is not known to keep the rows of a batch apart",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_fits_one_batch_only_is_refused(name):
    build, text = REFUSED[name]
    with pytest.raises(ShapeError, match=text):
        opened(module(build, (2, 4))["main"], ["x"], "n")


def test_an_operator_that_takes_no_symbol_is_refused():
    def build(b, weight):
        call = winograd(b, const(np.ones((1, 4, 6, 6))), COEFFICIENTS)
        attrs = b.lookup_binding(call).attrs
        return b.emit(relax.Call(tvm.ir.Op.get(WINOGRAD), [call, weight], attrs))

    with pytest.raises(ShapeError, match=r"value 'lv' fits a batch of 36 only: .*weight has"):
        opened(module(build, (36, 4, 4))["main"], ["x"], "n")


def test_constants_with_rows_are_refused():
    mod = module(lambda b, x: b.emit(OP.add(x, const(np.ones((2, 4))))), (2, 4))
    func = opened(mod["main"], ["x"], "n")
    with pytest.raises(ShapeError, match=r"relax\.add has a shape that cannot be told"):
        check_rows_apart(func, batch_symbol(func))
