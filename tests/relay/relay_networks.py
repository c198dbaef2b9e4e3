"""Small networks in Relay, and how to build and run them."""

import numpy as np
import tvm
from tvm import relay
from tvm.contrib import graph_executor

from tvm_sparsewino.schedules.target import parse_target

HOST = parse_target("native")
TOLERANCE = 1e-5  # of the output's largest value: what the Relay line may differ from others by


def module(build, *shapes):
    """The module of a function of float32 tensors x, y, z; ``build(*variables)`` returns it."""
    variables = [relay.var(n, shape=s) for n, s in zip("xyz", shapes, strict=False)]
    function = relay.Function(variables, build(*variables))
    return relay.transform.InferType()(tvm.IRModule.from_expr(function))


def const(array):
    return relay.const(np.asarray(array, np.float32))


def weight(rng, *shape, density=0.3):
    values = rng.standard_normal(shape)
    return np.where(rng.random(shape) < density, values, 0).astype(np.float32)


def array(rng, *shape):
    return rng.standard_normal(shape).astype(np.float32)


def built(mod, opt_level=3, params=None, target=None, **options):
    with tvm.transform.PassContext(opt_level=opt_level):
        return relay.build(mod, target=target or HOST.tvm_target(), params=params, **options)


def executed(lib, inputs):
    """The first output of a graph executor's library."""
    machine = graph_executor.GraphModule(lib["default"](tvm.cpu()))
    for name, value in inputs.items():
        machine.set_input(name, value)
    machine.run()
    return machine.get_output(0).numpy()


def run(mod, inputs, opt_level=3, params=None):
    return executed(built(mod, opt_level, params), inputs)


def close(got, wanted, tolerance=TOLERANCE):
    assert got.shape == wanted.shape
    assert np.isfinite(got).all()
    error = abs(got - wanted).max()
    assert error <= tolerance * abs(wanted).max(), f"error {error} of {abs(wanted).max()}"


def operators(mod):
    """Names of the operators that the network calls, in order."""
    found = []

    def look(expr):
        if isinstance(expr, relay.Call) and isinstance(expr.op, tvm.ir.Op):
            found.append(expr.op.name)

    relay.analysis.post_order_visit(mod["main"], look)
    return found
