"""What users and the command line call: import, export, compile and tune networks; load them."""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import tvm
from tvm.ir import IRModule

from ._autoload import autoload
from ._version import __version__
from .artefact import Description
from .batch_choice import planned, with_plan
from .building import build
from .config import CompileConfig
from .config_linear import AnyPlan
from .errors import ConfigError, ImportFailed, TargetError, in_context
from .executable import Executable
from .extras import require
from .fingerprint import weights_digest
from .loading import load
from .machines import ENTRY
from .memory import release_freed
from .records import Record, Records, read_records
from .relay_passes.import_onnx import import_onnx_graph
from .relay_passes.import_torch import import_exported_program
from .relay_passes.open_batch import opened_alike
from .relay_passes.pipeline import sparsewino_pipeline
from .relay_passes.plan_layers import as_cpu_target
from .relay_passes.plan_layers import plan as plan_layers
from .schedules.cpu_features import instruction_sets, missing_on_host
from .schedules.target import CpuTarget
from .signature import signature
from .thread_pool import settled_threads
from .tuner.measure import LocalMachine, Machine
from .tuner.network import Layer, layers_to_tune, tune_layers
from .tuner.remote import remote_machine
from .tuner.search import Found
from .tuner.version import kernel_version

__all__ = [
    "ENTRY",
    "compile",
    "export_onnx",
    "import_exported",
    "import_onnx",
    "import_torch",
    "load",
    "read_exported",
    "tune",
]


# ONNX networks compute shapes from shapes. So a network with an open batch is imported with two
# batch sizes, and the two modules must be equal except for the size.
_TRIAL_BATCHES = (3, 5)


def import_torch(model: Any, example: tuple[Any, ...], dynamic_shapes: Any = None) -> IRModule:
    """Import a PyTorch model in evaluation mode, with its parameters as constants.

    Args:
        model: a ``torch.nn.Module``; it is not changed.
        example: the positional arguments to export it with; they fix all static shapes.
        dynamic_shapes: as for ``torch.export.export``. Only the first dimension of inputs may stay
            open, as in ``({0: torch.export.Dim("batch")},)``; the example then needs at least two
            rows.

    Returns:
        a module in Relax whose function is called "main".

    Raises:
        ImportFailed: the model cannot be exported, has an operator that TVM cannot import, or
            holds data that is not float32.
        MissingExtra: PyTorch is not installed.
    """
    require("torch", "torch")
    export = require("tvm_sparsewino.nn.export", "torch")
    return import_exported_program(export.exported_program(model, example, dynamic_shapes))


def import_exported(path: str | os.PathLike[str]) -> IRModule:
    """Import a file that ``torch.export.save`` wrote (.pt2); as :func:`import_torch` otherwise.

    Raises:
        ImportFailed: the file is missing or not such a file, or as :func:`import_torch`.
        MissingExtra: PyTorch is not installed.
    """
    program = read_exported(path)
    with in_context(str(path)):
        return import_exported_program(program)


def read_exported(path: str | os.PathLike[str]) -> Any:
    """Read the ``torch.export.ExportedProgram`` that ``torch.export.save`` wrote to a file (.pt2).

    Raises:
        ImportFailed: the file is missing or not such a file.
        MissingExtra: PyTorch is not installed.
    """
    torch = require("torch", "torch")
    require("tvm_sparsewino.nn.operator", "torch")  # the file may hold our operator
    with in_context(str(path)):
        if not Path(path).is_file():
            raise ImportFailed("there is no such file")
        try:
            return torch.export.load(path)
        except Exception as error:  # PyTorch documents no kinds for a file that is something else
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise ImportFailed(f"not an exported PyTorch program: {reason}") from error


def import_onnx(
    model: str | os.PathLike[str] | Any, shapes: Mapping[str, Sequence[int | str]] | None = None
) -> IRModule:
    """Import an ONNX model, with its weights as constants.

    Winograd layers that :func:`export_onnx` wrote, in either form, are recognised; a warning names
    those that another tool has changed. The file is data: nothing in it is executed.

    Args:
        model: a file, or an ``onnx.ModelProto``, which is not changed.
        shapes: input name -> shape, for inputs whose shapes the model leaves open. A first
            dimension may stay open; it is the batch, and a shape gives a name for it.

    Returns:
        a module in Relax whose function is called "main".

    Raises:
        ImportFailed: the file is missing, damaged or of a version that cannot be read, or has
            operators that cannot be imported (all are named).
        ShapeError: shapes are missing or do not fit the model, or a batch cannot stay open.
        MissingExtra: onnx is not installed.
    """
    require("onnx", "onnx")
    loading = require("tvm_sparsewino.onnx_io.loading", "onnx")
    with in_context(str(model) if isinstance(model, str | os.PathLike) else "the ONNX model"):
        graph = loading.load_graph(model, shapes, _TRIAL_BATCHES[0])
        module = import_onnx_graph(graph)
        if graph.batch:
            release_freed()
            other = import_onnx_graph(loading.load_graph(model, shapes, _TRIAL_BATCHES[1]))
            with in_context(f"the batch {graph.batch!r} cannot stay open; give it a number"):
                module = opened_alike(module, other, graph.batched, graph.batch)
    release_freed()
    return module


def export_onnx(
    model: Any,
    example: tuple[Any, ...],
    path: str | os.PathLike[str],
    *,
    inline: bool = False,
    dynamic: Mapping[str, Mapping[int, str]] | None = None,
    opset: int | None = None,
) -> None:
    """Write a PyTorch model, in evaluation mode, to an ONNX file.

    Each Winograd layer becomes one node ``tvm.sparsewino::WinogradConv2d``. The file defines that
    operator by standard operators, so that other runtimes can execute it. Above 2 GiB the weights
    go to a second file, ``path`` + ".data".

    Args:
        model: a ``torch.nn.Module``, which is not changed, or a ``torch.export.ExportedProgram``.
        example: the positional arguments to export a module with; a program has its own.
        path: the file to write.
        inline: write the standard operators instead of the nodes, for runtimes that reject
            functions, such as OpenVINO.
        dynamic: input name -> dimension -> symbol, for sizes that stay open, such as
            ``{"x": {0: "batch", 2: "height", 3: "width"}}``.
        opset: version of ONNX's operators; PyTorch's choice if None.

    Raises:
        ExportFailed: PyTorch cannot export the model, or the file cannot be written.
        MissingExtra: PyTorch, onnx or onnxscript is not installed.
    """
    for name, extra in (("torch", "torch"), ("onnx", "onnx"), ("onnxscript", "onnx")):
        require(name, extra)
    emitting = require("tvm_sparsewino.onnx_io.emitting", "onnx")
    writing = require("tvm_sparsewino.onnx_io.writing", "onnx")
    export = require("tvm_sparsewino.nn.onnx_export", "torch")
    proto = export.onnx_model(model, example, emitting.winograd_emitter(), opset, dynamic)
    with in_context(str(path)):
        writing.save(writing.finish(proto, inline), path)


def compile(
    mod: IRModule,
    target: str | CpuTarget = "native",
    config: CompileConfig | None = None,
    num_threads: int | None = None,
    plan: Iterable[AnyPlan] | None = None,
    dump_dir: str | os.PathLike[str] | None = None,
    records: str | os.PathLike[str] | None = None,
    batches: Iterable[int] | None = None,
) -> Executable:
    """Compile a network for a CPU.

    With an open batch, one function is compiled for each of a few batch sizes, and a call with any
    number of rows is put together from those. A batch of a known size whose rows do not depend on
    each other is compiled in the same way if that is predicted to be faster;
    ``description.choice`` of the result says what was chosen, and why.

    Args:
        mod: a module in Relax whose function "main" takes and returns tensors of static shapes; the
            first dimension of inputs may be a symbol: an open batch.
        target: "native", "llvm" or "llvm -mcpu=NAME".
        config: options; the defaults if None.
        num_threads: threads that a call uses. None means TVM_NUM_THREADS, else OMP_NUM_THREADS,
            else all cores this process may use; fewer if TVM made a smaller pool before.
        plan: one plan per convolution and linear layer of ``mod``; made here if None. With a given
            plan, a batch of a known size runs at once.
        dump_dir: a folder that gets the module after every phase; made if missing.
        records: a file that :func:`tune` wrote. A layer that was measured with these kernels, this
            target and this number of threads gets the plan that was fastest; the plan's reason
            says so.
        batches: batch sizes to compile kernels for. They open the batch even if ``mod`` has a
            number for it: it is the first dimension of the first input, and of the other inputs
            whose first dimension is the same. If None: 1, 4 and 16 where the batch is open.

    Raises:
        TargetError: an unknown target.
        ShapeError: a symbolic shape that is no batch, or rows of an open batch that depend on each
            other; names the layer, the input or the operator.
        ConfigError: a plan that does not fit, a plan and records at once, a bad number of threads,
            or batch sizes that are not distinct positive numbers.
        TuneError: the records cannot be read.
        CompileFailed: an operator that TVM cannot compile.
    """
    autoload()
    cpu = as_cpu_target(target)
    threads = settled_threads(num_threads)  # first: folding constants makes TVM's pool
    if plan is not None and records is not None:
        raise ConfigError("a plan was given, which leaves nothing for records to decide")
    known = read_records(records, kernel_version()) if records is not None else None
    if plan is None:
        chosen = planned(mod, batches, partial(_plan, cpu, config), threads, known)
    else:
        chosen = with_plan(mod, batches, tuple(plan), threads)
    inputs, outputs, returns_tuple = signature(chosen.func)
    if dump_dir is not None:
        Path(dump_dir).mkdir(parents=True, exist_ok=True)
    pipeline = sparsewino_pipeline(config, chosen.plans, dump_dir)
    built, constants = build(chosen.network, cpu.tvm_target(), pipeline)
    description = Description(
        inputs=inputs,
        outputs=outputs,
        returns_tuple=returns_tuple,
        target=cpu.text,
        features=instruction_sets(cpu.features()),
        plan=chosen.plans,
        weights=weights_digest(mod),
        constants=dict(constants.used),
        versions={"tvm-sparsewino": __version__, "apache-tvm": _tvm_version()},
        batches=chosen.batches,
        threads=chosen.threads,
        choice=chosen.choice,
    )
    return Executable(built, description, constants, threads)


def tune(
    mod: IRModule,
    records: str | os.PathLike[str],
    target: str | CpuTarget = "native",
    config: CompileConfig | None = None,
    num_threads: int | None = None,
    budget: float = 30.0,
    rpc_tracker: str | None = None,
    rpc_key: str | None = None,
    report: Callable[[Layer, Found], Any] = lambda layer, found: None,
    batches: Iterable[int] | None = None,
) -> list[Record]:
    """Measure the candidate plans of every convolution; ``compile(..., records=...)`` uses them.

    Args:
        mod: as for :func:`compile`.
        records: a file that gets one line per distinct convolution, as soon as it is measured; its
            earlier lines stay.
        target: as for :func:`compile`; required for a remote machine.
        config: options that decide which plans are allowed; the defaults if None.
        num_threads: as for :func:`compile`; required for a remote machine.
        budget: seconds for each distinct convolution.
        rpc_tracker: "HOST:PORT" of TVM's RPC tracker that lends the machine to measure on; this
            machine if None.
        rpc_key: the key under which the machine's server is registered.
        report: called after each convolution with the layer and what was found.
        batches: as for :func:`compile`; each size is tuned.

    Returns:
        the records that were added.

    Raises:
        TargetError: an unknown target, or one that this machine, measuring itself, cannot run.
        ShapeError: a symbolic shape that is no batch; names the layer or the input.
        ConfigError: a bad number of threads, of seconds or of batch sizes, or a remote machine
            without key, target or threads.
        TuneError: a file that cannot be read or written, no such tracker or key, or a layer that
            cannot be measured.
    """
    autoload()
    cpu, config = as_cpu_target(target), config or CompileConfig()
    if not budget > 0:
        raise ConfigError(f"budget must be a positive number of seconds, got {budget!r}")
    if Path(records).exists():
        read_records(records, kernel_version())  # refuse a damaged file before measuring for it
    threads = _threads_of_machine(cpu, target, num_threads, rpc_tracker, rpc_key)
    chosen = planned(mod, batches, partial(_plan, cpu, config), threads)
    layers = layers_to_tune(chosen.network, cpu, config, chosen.threads)
    with _machine(cpu, chosen.threads, rpc_tracker, rpc_key) as machine:
        return tune_layers(layers, cpu, chosen.threads, machine, records, budget, report)


def _threads_of_machine(
    cpu: CpuTarget,
    target: str | CpuTarget,
    num_threads: int | None,
    rpc_tracker: str | None,
    rpc_key: str | None,
) -> int:
    """Threads to measure with, on a machine that can run code for ``cpu``.

    Raises:
        TargetError, ConfigError: as :func:`tune`.
    """
    if rpc_tracker is None:
        threads = settled_threads(num_threads)
        missing = missing_on_host(instruction_sets(cpu.features()))
        if missing:
            raise TargetError(f"{cpu.text!r} needs {', '.join(missing)}, which this CPU lacks")
        return threads
    if not rpc_key or target == "native" or num_threads is None:
        raise ConfigError("a remote machine needs its key, its target and the number of threads")
    return num_threads


def _machine(
    cpu: CpuTarget, threads: int, rpc_tracker: str | None, rpc_key: str | None
) -> AbstractContextManager[Machine]:
    """This machine, or the one that a tracker lends."""
    if rpc_tracker is None:
        return nullcontext(LocalMachine(cpu, threads))
    return remote_machine(rpc_tracker, rpc_key, cpu, threads)


def _plan(
    cpu: CpuTarget,
    config: CompileConfig | None,
    network: IRModule,
    threads: int,
    records: Records | None,
) -> tuple[AnyPlan, ...]:
    return plan_layers(network, cpu, config, threads, records)


def _tvm_version() -> str:
    try:
        return importlib.metadata.version("apache-tvm")
    except importlib.metadata.PackageNotFoundError:
        return str(tvm.__version__)
