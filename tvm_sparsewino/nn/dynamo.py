"""Graphs that ``torch.compile`` captures, run by something else; for inference."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from ..constants import ALIGNMENT
from ..errors import ImportFailed, SparseWinoError
from .export import exported_program

# Makes of a program something to call with its tensor inputs, which returns one DLPack tensor or
# a tuple of them.
Compile = Callable[[torch.export.ExportedProgram], Callable[..., Any]]


class InferenceGraph:
    """One captured graph: compiled when it is first called, again for other shapes and weights.

    Parameters and buffers become constants. A change of them, also in place, is noticed at the next
    call.

    Args:
        graph_module: what TorchDynamo captured.
        example_inputs: the graph's inputs, parameters and buffers among them.
        compile_program: compiles one program of static shapes.
        fallback: run in PyTorch, with a warning, what cannot be compiled.
    """

    def __init__(
        self,
        graph_module: fx.GraphModule,
        example_inputs: Sequence[Any],
        compile_program: Compile,
        fallback: bool = False,
    ) -> None:
        placeholders = [node for node in graph_module.graph.nodes if node.op == "placeholder"]
        pairs = zip(placeholders, example_inputs, strict=True)
        self._fixed = [_is_fixed(node, example) for node, example in pairs]
        self._graph_module = graph_module
        self._compile = compile_program
        self._fallback = fallback
        self._lock = threading.Lock()
        self._compiled: dict[tuple[Any, ...], Callable[..., Any]] = {}
        self._weights: tuple[Any, ...] = ()

    def __call__(self, *args: Any) -> tuple[Any, ...]:
        """Run the graph; the result is the graph's tuple of outputs.

        Raises:
            ImportFailed: gradients are asked for, a tensor is not on the CPU, or the graph cannot
                be compiled; names the reason.
        """
        _check_inference(args)
        call = self._callable(args)
        if call is None:
            return self._graph_module(*args)
        inputs = [arg for arg, fixed in zip(args, self._fixed, strict=True) if not fixed]
        result = call(*(_usable(arg) for arg in inputs if isinstance(arg, Tensor)))
        results = result if isinstance(result, tuple) else (result,)
        return tuple(torch.from_dlpack(tensor) for tensor in results)

    def _callable(self, args: Sequence[Any]) -> Callable[..., Any] | None:
        """What runs the graph for such arguments; None where PyTorch must."""
        weights = tuple(_state(arg) for arg, fixed in zip(args, self._fixed, strict=True) if fixed)
        key = tuple(_kind(arg) for arg in args)
        with self._lock:
            if weights != self._weights:
                self._compiled.clear()
                self._weights = weights
            if key not in self._compiled:
                self._compiled[key] = self._made(args)
            return self._compiled[key]

    def _made(self, args: Sequence[Any]) -> Callable[..., Any] | None:
        try:
            return self._compile(program_of(self._graph_module, args, self._fixed))
        except SparseWinoError as error:
            if not self._fallback:
                raise
            warnings.warn(f"a graph is left to PyTorch: {error}", RuntimeWarning, stacklevel=2)
            return None


def program_of(
    graph_module: fx.GraphModule, args: Sequence[Any], fixed: Sequence[bool]
) -> torch.export.ExportedProgram:
    """A captured graph as a program of its tensor inputs, all else constant.

    Args:
        graph_module: the graph.
        args: values of all its inputs; they give the shapes.
        fixed: which of the inputs are constants; whatever is no tensor is one, too.

    Raises:
        ImportFailed: the graph is random, changes tensors in place, or PyTorch cannot export it.
    """
    with torch.inference_mode(False), torch.no_grad():  # tensors made here must count changes
        bound = _bind(graph_module, args, fixed)
        inputs = [a for a, f in zip(args, fixed, strict=True) if not f and isinstance(a, Tensor)]
        program = exported_program(bound, tuple(_usable(tensor) for tensor in inputs))
        signature = _functional(program).graph_signature
    if signature.buffers_to_mutate or signature.user_inputs_to_mutate:
        raise ImportFailed("the model changes buffers or inputs in place; call model.eval()")
    for node in program.graph.nodes:
        tags = getattr(node.target, "tags", ()) if node.op == "call_function" else ()
        if torch.Tag.nondeterministic_seeded in tags:
            raise ImportFailed(f"{node.target} is random; call model.eval()")
    return program


def _functional(program: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
    """The program with changes in place as outputs; operators stay what they are."""
    with warnings.catch_warnings():
        # PyTorch 2.13 warns about its own tree specs when it copies a program.
        warnings.simplefilter("ignore", FutureWarning)
        return program.run_decompositions({})


def _bind(
    graph_module: fx.GraphModule, args: Sequence[Any], fixed: Sequence[bool]
) -> fx.GraphModule:
    """The graph with constants in place of fixed inputs and of all that follows from them."""
    values = _known_values(graph_module, args, fixed)
    graph, holder, copies = fx.Graph(), torch.nn.Module(), {}

    def copied(node: fx.Node) -> Any:
        if node not in copies:  # a known value that is used
            value = values[node]
            if not isinstance(value, Tensor):
                return value
            name = f"constant_{len(copies)}"
            holder.register_buffer(name, value)
            copies[node] = graph.get_attr(name)
        return copies[node]

    for node in graph_module.graph.nodes:
        if node not in values:
            copies[node] = graph.node_copy(node, copied)
            if node.op == "get_attr":
                setattr(holder, str(node.target), getattr(graph_module, str(node.target)))
    return fx.GraphModule(holder, graph)


def _known_values(
    graph_module: fx.GraphModule, args: Sequence[Any], fixed: Sequence[bool]
) -> dict[fx.Node, Any]:
    """Values of the nodes that depend on constants only, such as U = Q / scale."""
    interpreter = fx.Interpreter(graph_module, garbage_collect_values=False)
    values, originals = interpreter.env, []
    remaining = iter(zip(args, fixed, strict=True))
    for node in graph_module.graph.nodes:
        if node.op == "placeholder":
            value, is_fixed = next(remaining)
            if isinstance(value, Tensor) and is_fixed:
                values[node] = value.detach().clone()
                originals.append(values[node])
            elif not isinstance(value, Tensor):
                values[node] = value
        elif node.op.startswith("call") and _follows(node, values):
            values[node] = interpreter.run_node(node)
    if any(tensor._version for tensor in originals):
        raise ImportFailed("the model changes its parameters or buffers; call model.eval()")
    return values


def _follows(node: fx.Node, values: dict[fx.Node, Any]) -> bool:
    """Whether a node has operands and all of them are known; without, it might be random."""
    return bool(node.all_input_nodes) and all(used in values for used in node.all_input_nodes)


def _is_fixed(node: fx.Node, example: Any) -> bool:
    """Whether an input of the graph is a parameter or buffer of the model."""
    static = (node.meta.get("tensor_dict") or {}).get("_dynamo_static_input_type")
    return isinstance(example, torch.nn.Parameter) or static is not None


def _check_inference(args: Sequence[Any]) -> None:
    tensors = [arg for arg in args if isinstance(arg, Tensor)]
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
        raise ImportFailed(
            'torch.compile(backend="sparsewino") is for inference and computes no gradients: '
            "call the model under torch.no_grad() or torch.inference_mode()"
        )
    for tensor in tensors:
        if tensor.device.type != "cpu":
            raise ImportFailed(f"a tensor is on {tensor.device}; only the CPU is supported")


def _state(weight: Tensor) -> tuple[Any, ...]:
    """What changes when a parameter does, also in place."""
    if weight.is_inference():
        raise ImportFailed(
            "a parameter was made under torch.inference_mode(), where changes cannot be noticed; "
            "make the model outside of it"
        )
    return weight.data_ptr(), weight._version, tuple(weight.shape)


def _kind(arg: Any) -> Any:
    return (tuple(arg.shape), arg.dtype) if isinstance(arg, Tensor) else arg


def _usable(tensor: Tensor) -> Tensor:
    """The tensor itself where compiled code can read its memory, else a copy."""
    tensor = tensor.detach().contiguous()
    return tensor.clone() if tensor.data_ptr() % ALIGNMENT else tensor
