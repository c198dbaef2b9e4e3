"""tvmc with this package in it: a composite target and a reader of our ONNX files.

tvmc has no entry points for either, so :func:`install` puts them into its registries, in the
process that asks for it. Nothing of tvmc is changed on disk.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable, Mapping
from typing import Any

from . import relay
from ._compat import require_relay
from .config import CompileConfig
from .errors import ConfigError, SparseWinoError
from .extras import require
from .files import replacing

TARGET = "sparsewino"
_TRUTH = {"0": False, "1": True, "false": False, "true": True}


def install() -> None:
    """Register the composite target and the ONNX reader; a second call changes nothing.

    Raises:
        MissingExtra: TVM has no Relay; the message names the versions.
    """
    require_relay()
    from tvm.driver.tvmc import compiler, composite_target, frontends

    if TARGET in composite_target.REGISTERED_CODEGEN:
        return
    composite_target.REGISTERED_CODEGEN[TARGET] = {
        "config_key": None,
        "pass_pipeline": sparsify_for_tvmc,
    }
    compiler.target_from_cli = _with_cpu(compiler.target_from_cli)
    place = frontends.ALL_FRONTENDS.index(frontends.OnnxFrontend)
    frontends.ALL_FRONTENDS[place] = _onnx_frontend(frontends.OnnxFrontend)


def sparsify_for_tvmc(mod: Any, params: Any, mod_name: str = "default", **options: str) -> Any:
    """The pass pipeline of the composite target; ``options`` are texts from the command line.

    Raises:
        TVMCException: an unknown option or value, or a module that cannot be rewritten.
    """
    from tvm.driver.tvmc import TVMCException

    del mod_name  # tvmc tells it to every pipeline
    try:
        arguments, report = _arguments(options)
        result, plan = relay.sparsify(mod, params, **arguments)
        if report:
            _write_report(report, plan)
        return result
    except SparseWinoError as error:
        raise TVMCException(f"{TARGET}: {error}") from error


def _write_report(path: str, plan: Any) -> None:
    text = json.dumps([layer.to_json() for layer in plan], indent=1) + "\n"
    try:
        with replacing(path) as temporary:
            temporary.write_text(text)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror or error}") from error


# ---- options -----------------------------------------------------------------------------------


def _truth(text: str) -> bool:
    return _TRUTH[str(text).lower()]


# Option -> how to read it, and what it means.
OPTIONS: dict[str, tuple[Callable[[str], Any], str]] = {
    "min_sparsity": (
        float,
        "leave convolutions with a smaller share of zeros to TVM, 0 to 1 (0: leave none)",
    ),
    "weights": (str, "take layers, by name, from this file of Winograd weights"),
    "threads": (int, "cores that will work together (1)"),
    "max_tile": (int, "largest tile of layers with ordinary weights: 2, 4 or 6 (4)"),
    "winograd_for_dense": (_truth, "run unpruned 3x3 and 5x5 layers by Winograd, 0 or 1 (1)"),
    "min_channels": (int, "leave convolutions with fewer channels to TVM (1)"),
    "panel_vectors": (int, "vectors of tiles per panel, 0 lets the planner choose (0)"),
    "mcpu": (str, "plan for this CPU (that of the llvm target)"),
    "report": (str, "write what becomes of every convolution, and why, to this JSON file"),
}
_CONFIG = ("max_tile", "winograd_for_dense", "min_channels", "panel_vectors")


def _arguments(options: Mapping[str, str]) -> tuple[dict[str, Any], str]:
    """What :func:`relay.sparsify` takes, and where the report goes.

    Raises:
        ConfigError: an unknown option, or a value that cannot be read.
    """
    values: dict[str, Any] = {}
    for name, text in options.items():
        if name not in OPTIONS:
            raise ConfigError(f"there is no option {name!r}, only {sorted(OPTIONS)}")
        try:
            values[name] = OPTIONS[name][0](text)
        except (KeyError, ValueError) as error:
            raise ConfigError(f"option {name}: {text!r} cannot be read") from error
    config = CompileConfig(**{n: values.pop(n) for n in _CONFIG if n in values})
    mcpu, report = values.pop("mcpu", None), values.pop("report", "")
    values["target"] = "native" if mcpu is None else f"llvm -mcpu={mcpu}" if mcpu else "llvm"
    return {**values, "config": config}, report


# ---- tvmc's registries -------------------------------------------------------------------------


def _with_cpu(original: Callable[..., Any]) -> Callable[..., Any]:
    """tvmc's reader of targets, which tells our target the CPU of the one beside it."""

    @functools.wraps(original)
    def target_from_cli(*args: Any, **kwargs: Any) -> Any:
        target, extra = original(*args, **kwargs)
        for codegen in extra:
            if codegen["name"] == TARGET and target.kind.name == "llvm":
                codegen["opts"].setdefault("mcpu", str(target.attrs.get("mcpu", "")))
        return target, extra

    return target_from_cli


def _onnx_frontend(original: type) -> type:
    """tvmc's ONNX frontend, which leaves files with our operator to us."""

    class OnnxFrontend(original):
        """Reads ONNX files, those with Winograd layers as well."""

        def load(self, path: str, shape_dict: Any = None, **kwargs: Any) -> Any:
            """The module and its parameters; TVMCException says why there are none."""
            if not _has_winograd_layers(path):
                return super().load(path, shape_dict=shape_dict, **kwargs)
            from tvm.driver.tvmc import TVMCException

            try:
                return relay.import_onnx(path, shape_dict), {}
            except SparseWinoError as error:
                raise TVMCException(str(error)) from error

    return OnnxFrontend


def _has_winograd_layers(path: str | os.PathLike[str]) -> bool:
    require("onnx", "onnx")
    return require("tvm_sparsewino.onnx_io.metadata", "onnx").has_winograd_layers(path)
