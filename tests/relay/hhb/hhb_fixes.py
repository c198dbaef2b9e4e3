"""Repairs of hhb-tvm 3.2.3, the build of TVM 0.16 that these tests run on; for tests only.

What is wrong with it, and not with TVM:
1. Without ``-mtriple`` it generates code for riscv64.
2. ``tvmc run`` without a tracker fails: its RPC server's loader takes other arguments.
3. Its LLVM code generator tells LLVM that a vector access with a computed index touches only what
   the constant part of the index names. LLVM then moves loads over stores to the same address.
"""

import tvm
from tvm import tir
from tvm.target import Target, codegen

_DISTRIBUTION = "hhb-tvm"


def apply():
    """Repair it; in another build nothing happens."""
    from importlib import metadata

    if _DISTRIBUTION not in {d.metadata["Name"] for d in metadata.distributions()}:
        return
    _fix_triple()
    _fix_local_rpc()
    _fix_aliasing()


def _fix_triple():
    triple = tvm.get_global_func("tvm.codegen.llvm.GetProcessTriple")()
    original = Target.__init__

    def init(self, target, host=None):
        if isinstance(target, str) and target.split()[:1] == ["llvm"]:
            target = target if "-mtriple" in target else f"{target} -mtriple={triple}"
        elif isinstance(target, dict) and target.get("kind") == "llvm":
            target = {"mtriple": triple, **target}
        original(self, target, host)

    Target.__init__ = init
    codegen.llvm_get_system_triple = lambda: triple


def _fix_local_rpc():
    from tvm.rpc import server

    original = server._server_env

    def server_env(load_library, work_path=None):
        result = original(load_library, work_path)
        load = tvm.get_global_func("tvm.rpc.server.load_module")
        tvm.register_func("tvm.rpc.server.load_module", lambda name, *_: load(name), override=True)
        return result

    server._server_env = server_env


def _fix_aliasing():
    """Every PassContext lowers with :func:`hide_indices` last."""
    original = tvm.transform.PassContext.__init__

    def init(self, *args, **kwargs):
        names = ("opt_level", "required_pass", "disabled_pass", "instruments", "config")
        given = {**dict(zip(names, args, strict=False)), **kwargs}
        config = dict(given.get("config") or {})
        config["tir.add_lower_pass"] = [*config.get("tir.add_lower_pass", []), (3, hide_indices)]
        original(self, **{**given, "config": config})

    tvm.transform.PassContext.__init__ = init


@tir.transform.prim_func_pass(opt_level=0)
def hide_indices(func, _mod, _ctx):
    """Hide indices of buffers that are not only accessed at constant places."""
    computed = set()

    def look(node):
        if isinstance(node, (tir.BufferLoad, tir.BufferStore)) and _start(node) is None:
            computed.add(node.buffer.data)

    tir.stmt_functor.post_order_visit(func.body, look)

    def hide(node):
        if node.buffer.data not in computed:
            return None
        index = node.indices[-1]
        if isinstance(index, tir.Ramp):
            hidden = tir.Ramp(_hidden(index.base), index.stride, index.lanes)
        else:
            hidden = _hidden(index)
        indices = [*list(node.indices)[:-1], hidden]
        if isinstance(node, tir.BufferLoad):
            return tir.BufferLoad(node.buffer, indices)
        return tir.BufferStore(node.buffer, node.value, indices)

    kinds = ["tir.BufferLoad", "tir.BufferStore"]
    return func.with_body(tir.stmt_functor.ir_transform(func.body, None, hide, kinds))


def _start(access):
    """Where an access begins, if that is a constant."""
    index = access.indices[-1]
    base = index.base if isinstance(index, tir.Ramp) else index
    return base if isinstance(base, tir.IntImm) else None


def _hidden(index):
    """The same number, in which the code generator finds no constant part."""
    if index.dtype not in ("int32", "int64"):
        return index
    operands = tir.const(2, "uint32"), index, index
    return tir.call_llvm_pure_intrin(index.dtype, "llvm.expect", *operands)
