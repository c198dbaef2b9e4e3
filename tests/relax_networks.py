"""Small networks in Relax, and how to run them, shared by the tests of passes and driver."""

import numpy as np
import tvm
from tvm import relax

from tvm_sparsewino._compat import make_target, runtime_tensor, virtual_machine
from tvm_sparsewino.cook_toom import cook_toom, points_to_text
from tvm_sparsewino.relay_passes import ops


def const(array):
    return relax.const(np.asarray(array, np.float32))


def module(build, *shapes, names="xyz"):
    """The module of a function of float32 tensors; ``build(builder, *variables)`` returns it."""
    params = [
        relax.Var(n, relax.TensorType(s, "float32")) for n, s in zip(names, shapes, strict=False)
    ]
    builder = relax.BlockBuilder()
    with builder.function("main", params):
        with builder.dataflow():
            result = build(builder, *params)
            output = builder.emit_output(result)
        builder.emit_func_output(output)
    return builder.get()


def conv(builder, x, weight, padding=1, name="conv", **attrs):
    call = relax.op.nn.conv2d(x, const(weight), padding=padding, **attrs)
    return builder.emit(call, name_hint=name)


def winograd(builder, x, weight, m=4, r=3, padding=(1, 1, 1, 1), groups=1, bias=None, name="conv"):
    call = ops.winograd_conv2d(
        x,
        const(weight),
        None if bias is None else const(bias),
        m=m,
        r=r,
        points=points_to_text(cook_toom(m, r).points),
        padding=padding,
        groups=groups,
    )
    return builder.emit(call, name_hint=name)


def per_channel(values):
    return const(np.asarray(values).reshape(1, -1, 1, 1))


def evaluate(mod, *arrays, pipeline="default"):
    """What ``main`` returns for the arrays, compiled for the baseline CPU."""
    built = tvm.compile(mod, make_target({"kind": "llvm"}), relax_pipeline=pipeline)
    return virtual_machine(built)["main"](*map(runtime_tensor, arrays)).numpy()


def operators(mod):
    """Names of the operators that ``main`` calls, in order."""
    bindings = [b for block in mod["main"].body.blocks for b in block.bindings]
    return [b.value.op.name for b in bindings if isinstance(b.value, relax.Call)]
