"""Express a batch of a known size as calls of a function for fewer rows.

::

    main(x [4, c]): kernels for 4 rows
    -->
    batch_2(x [2, c]): kernels for 2 rows
    main(x [4, c]):
        first = batch_2(x[0:2])
        second = batch_2(x[2:4])
        concat(first, second)

The package itself calls ``batch_2``, from several threads; ``main`` is for whoever has TVM's
runtime only.
"""

from __future__ import annotations

from collections.abc import Sequence

from tvm import relax
from tvm.ir import GlobalVar, IRModule

_MAIN = "main"


def with_main(
    mod: IRModule, whole: relax.Function, entry: str, size: int, batched: Sequence[str]
) -> IRModule:
    """A module with "main" for the whole batch beside the function for a part of it.

    Args:
        mod: has the function for ``size`` rows, whose rows do not depend on each other, and no
            "main".
        whole: the network's function for all rows, which is only asked for its types.
        entry: the name of the function for ``size`` rows.
        size: divides the number of rows.
        batched: names of the inputs that begin with the batch.
    """
    others = {var: func for var, func in mod.functions.items() if var.name_hint != entry}
    builder = relax.BlockBuilder(IRModule(others, attrs=mod.attrs))
    params = [relax.Var(param.name, param.ty) for param in whole.params]
    rows = next(int(p.ty.shape.values[0]) for p in params if p.name in batched)
    part = builder.add_func(mod[entry], entry)
    with builder.function(_MAIN, params):
        with builder.dataflow():
            calls = [
                builder.emit(_call(builder, part, params, batched, start, size))
                for start in range(0, rows, size)
            ]
            result = builder.emit_output(_joined(builder, calls, whole.ret_ty))
        builder.emit_func_output(result)
    return builder.get()


def _call(
    builder: relax.BlockBuilder,
    part: GlobalVar,
    params: Sequence[relax.Var],
    batched: Sequence[str],
    start: int,
    size: int,
) -> relax.Call:
    def rows(param: relax.Var) -> relax.Var:
        if param.name not in batched:
            return param
        return builder.emit(relax.op.strided_slice(param, [0], [start], [start + size]))

    return relax.Call(part, [rows(param) for param in params])


def _joined(
    builder: relax.BlockBuilder, calls: Sequence[relax.Var], whole: relax.Type
) -> relax.Expr:
    """The outputs of all calls, each put together."""
    if not isinstance(whole, relax.TupleType):
        return relax.op.concat(calls, axis=0)
    fields = []
    for number in range(len(whole.fields)):
        parts = [builder.emit(relax.TupleGetItem(call, number)) for call in calls]
        fields.append(builder.emit(relax.op.concat(parts, axis=0)))
    return relax.Tuple(fields)
