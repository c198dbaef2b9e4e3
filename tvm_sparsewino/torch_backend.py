"""``torch.compile(model, backend="sparsewino")``; PyTorch finds it by its entry point."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from . import driver
from .errors import ConfigError
from .extras import require
from .thread_pool import default_threads

_OPTIONS = ("target", "config", "num_threads", "fallback")


def sparsewino(
    graph_module: Any, example_inputs: Sequence[Any], options: Mapping[str, Any] | None = None
) -> Any:
    """Compile one graph that TorchDynamo captured, for inference.

    Args:
        graph_module: the graph.
        example_inputs: its inputs.
        options: ``target``, ``config`` and ``num_threads`` as for ``compile``; by default no more
            threads than PyTorch uses. ``fallback=True`` leaves what cannot be compiled to PyTorch,
            with a warning; otherwise it is an error.

    Raises:
        ConfigError: an unknown option.
    """
    options = dict(options or {})
    unknown = sorted(set(options) - set(_OPTIONS))
    if unknown:
        raise ConfigError(f"unknown options {unknown}; there are {list(_OPTIONS)}")
    torch = require("torch", "torch")
    dynamo = require("tvm_sparsewino.nn.dynamo", "torch")
    fallback = bool(options.pop("fallback", False))
    options.setdefault("num_threads", min(torch.get_num_threads(), default_threads()))

    def compile_program(program: Any) -> Any:
        # One call at a time with all the threads: PyTorch's callers wait for their result.
        exe = driver.compile(driver.import_exported_program(program), **options)
        return exe.session(callers=1)

    return dynamo.InferenceGraph(graph_module, example_inputs, compile_program, fallback)
