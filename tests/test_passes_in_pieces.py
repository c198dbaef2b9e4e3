""" "main" as calls of the function for fewer rows."""

import pytest
from relax_networks import module
from tvm import relax

from tvm_sparsewino.relay_passes.in_pieces import with_main
from tvm_sparsewino.signature import batched_inputs, with_batches


def built(outputs, rows, size):
    """A network of one or two outputs, with "main" for ``rows`` rows in pieces of ``size``."""

    def body(b, x):
        y = b.emit(relax.op.exp(x))
        return y if outputs == 1 else b.emit(relax.Tuple([y, b.emit(relax.op.negative(x))]))

    mod = module(body, (rows, 3))
    whole, parts = mod["main"], with_batches(mod, (size,))[1]
    return whole, with_main(parts, whole, f"batch_{size}", size, batched_inputs(whole))


def values(func, operator):
    bound = [b.value for block in func.body.blocks for b in block.bindings]
    return [v for v in bound if getattr(getattr(v, "op", None), "name", "") == operator]


@pytest.mark.parametrize("outputs", [1, 2])
@pytest.mark.parametrize(("rows", "size"), [(6, 2), (3, 1), (5, 5)])
def test_every_row_is_taken_once_and_in_order(outputs, rows, size):
    whole, mod = built(outputs, rows, size)
    func = mod["main"]
    assert relax.analysis.well_formed(mod) is not False  # or it raises
    assert str(func.ret_ty) == str(whole.ret_ty)
    assert [str(p.ty) for p in func.params] == [str(p.ty) for p in whole.params]
    slices = values(func, "relax.strided_slice")
    starts = [int(call.args[2].fields[0].value) for call in slices]
    assert starts == list(range(0, rows, size))
    assert len(values(func, "relax.concat")) == outputs


def test_other_functions_stay():
    mod = module(lambda b, x: b.emit(relax.op.exp(x)), (4, 3))
    other = module(lambda b, x: b.emit(relax.op.exp(x)), (4, 3))["main"]
    mod["other"] = other.with_attr("global_symbol", "other")
    whole = mod["main"]
    result = with_main(with_batches(mod, (2,))[1], whole, "batch_2", 2, ["x"])
    assert {var.name_hint for var in result.get_global_vars()} == {"main", "batch_2", "other"}
