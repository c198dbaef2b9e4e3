"""The operator as PyTorch sees it, and export with one node per Winograd layer."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from tvm import relax
from tvm.ir import Op

from tvm_sparsewino.errors import ImportFailed, ShapeError
from tvm_sparsewino.nn import WinogradConv2d, convert, functional
from tvm_sparsewino.nn.export import (
    FrozenWinogradConv2d,
    exported_program,
    prepare_for_export,
)
from tvm_sparsewino.nn.models import FFDNet
from tvm_sparsewino.relay_passes.import_torch import import_exported_program

OPERATOR = torch.ops.sparsewino.winograd_conv2d.default


def operands(n=2, c=4, h=7, w=9, k=6, m=4, r=3, groups=2):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(n, c, h, w, generator=generator)
    u = torch.randn((m + r - 1) ** 2, k, c // groups, generator=generator)
    return x, u, torch.randn(k, generator=generator), m, r, [1, 0, 2, 1], groups


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("grad", [True, False])
def test_operator_obeys_pytorch_s_rules(layout, bias, grad):
    x, u, b, *spec = operands()
    x = x.contiguous(memory_format=layout).requires_grad_(grad)
    b = b.requires_grad_(grad) if bias else None
    # opcheck raises on the first rule that is broken: schema, fake shapes, autograd, tracing.
    torch.library.opcheck(OPERATOR, (x, u.requires_grad_(grad), b, *spec))


def test_operator_is_the_function():
    x, u, b, m, r, padding, groups = operands()
    for tensor in (x, u, b):
        tensor.requires_grad_()
    want = functional.winograd_conv2d(x, u, b, m, r, tuple(padding), groups)
    have = OPERATOR(x, u, b, m, r, padding, groups)
    assert torch.equal(have, want)
    wanted = torch.autograd.grad(want.square().sum(), (x, u, b))
    for a, c in zip(torch.autograd.grad(have.square().sum(), (x, u, b)), wanted, strict=True):
        assert torch.equal(a, c)


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_operator_checks_its_operands(device):
    x, u, b, *spec = (t.to(device) if isinstance(t, torch.Tensor) else t for t in operands())
    with pytest.raises(ShapeError, match="do not fit 2 groups of 2"):
        OPERATOR(x[:, :3], u, b, *spec)


@pytest.mark.parametrize("mode", ["zeros", "circular"])
def test_compiled_layers_train_alike(mode):
    torch.manual_seed(2)
    layer = WinogradConv2d(3, 4, 3, 2, padding=1, padding_mode=mode)
    layer.set_mask(torch.rand(layer.weight.shape) < 0.5)
    x = torch.randn(2, 3, 8, 8)
    want = layer(x)
    want.square().sum().backward()
    gradient, layer.weight.grad = layer.weight.grad, None
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    have = compiled(x)
    have.square().sum().backward()
    assert torch.equal(have, want)
    assert torch.allclose(layer.weight.grad, gradient, rtol=1e-5, atol=1e-6)


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.again = nn.Conv2d(6, 6, 3, padding=(1, 0), groups=2, bias=False)
        self.wrap = nn.Conv2d(6, 4, 5, padding=2, padding_mode="circular")
        self.down = nn.Conv2d(4, 4, 3, stride=2)

    def forward(self, x):
        x = self.again(self.norm(self.first(x)).relu())
        return self.down(self.wrap(self.again(x)))


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(3)
    model = convert(Network(), 4)
    generator = torch.Generator().manual_seed(4)
    for layer in (model.first, model.again):
        layer.set_scale(torch.rand(36, 1, layer.weight.shape[2], generator=generator) + 0.5)
        layer.set_mask(torch.rand(layer.weight.shape, generator=generator) < 0.4)
    return model


def winograd_nodes(program):
    return [node for node in program.graph.nodes if node.target is OPERATOR]


def test_one_node_and_one_weight_per_layer(network):
    program = exported_program(network, (torch.randn(1, 3, 12, 17),))
    nodes = winograd_nodes(program)
    assert [node.args[3:] for node in nodes] == [
        (4, 3, [1, 1, 1, 1], 1),
        (4, 3, [1, 0, 1, 0], 2),
        (4, 3, [1, 0, 1, 0], 2),
        (4, 5, [0, 0, 0, 0], 1),  # its circular padding comes before
    ]
    stored = program.graph_signature.inputs_to_buffers
    names = [stored[node.args[1].name] for node in nodes]
    assert names == ["first.weight", "again.weight", "again.weight", "wrap.weight"]
    for name in ("first", "again"):
        weight = program.state_dict[f"{name}.weight"]
        assert torch.equal(weight, getattr(network, name).winograd_weight)
        assert 0.5 < (weight == 0).float().mean() < 0.7
    assert nodes[1].args[2] is None
    # Nothing of the parametrisation is left in the program.
    assert not [n for n in program.state_dict if "scale" in n or "mask" in n]


def test_the_program_computes_the_network(network):
    x = torch.randn(1, 3, 12, 17, generator=torch.Generator().manual_seed(5))
    flags = [module.training for module in network.modules()]
    program = exported_program(network, (x,))
    want = prepare_for_export(network)(x)
    assert torch.equal(program.module()(x), want)
    assert [module.training for module in network.modules()] == flags
    network.eval()
    assert torch.equal(network(x), want)
    network.train()


def test_prepare_shares_what_was_shared_and_takes_a_bare_layer():
    layer = WinogradConv2d(3, 3, 3, 4, padding=1)
    model = prepare_for_export(nn.ModuleDict({"a": layer, "b": layer, "c": nn.Identity()}))
    assert model["a"] is model["b"]
    assert isinstance(model["a"], FrozenWinogradConv2d)
    x = torch.randn(1, 3, 8, 8)
    assert torch.equal(prepare_for_export(layer)(x), layer(x))


def test_ffdnet_exports_with_the_level_as_input():
    torch.manual_seed(6)
    model = convert(FFDNet(width=8, depth=3), 4)
    example = (torch.rand(1, 3, 9, 12), torch.full((1, 1, 1, 1), 0.1))
    program = exported_program(model, example)
    assert len(winograd_nodes(program)) == 3
    level = torch.full((1, 1, 1, 1), 0.2)
    assert torch.equal(program.module()(example[0], level), model(example[0], level))


class Undecided(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


def test_a_model_that_cannot_be_exported():
    with pytest.raises(ImportFailed, match=r"Undecided cannot be exported: ."):
        exported_program(Undecided(), (torch.ones(2),))


def test_example_must_be_a_tuple():
    with pytest.raises(ImportFailed, match="tuple of arguments, got Tensor"):
        exported_program(nn.ReLU(), torch.ones(2))


def test_tvm_takes_the_program_whole():
    model = convert(FFDNet(width=8, depth=3), 4)
    program = exported_program(model, (torch.rand(1, 3, 8, 12), torch.full((1, 1, 1, 1), 0.1)))
    shapes = []

    def visit(expr):
        if isinstance(expr, relax.Call) and expr.op == Op.get("sparsewino.winograd_conv2d"):
            shapes.append(tuple(int(size) for size in expr.args[1].ty.shape))

    relax.analysis.post_order_visit(import_exported_program(program)["main"], visit)
    assert shapes == [(36, 8, 13), (36, 8, 8), (36, 12, 8)]
