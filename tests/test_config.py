"""Options and plans: JSON round trips and every refusal."""

import json

import pytest

from tvm_sparsewino.config import (
    ACTIVATIONS,
    ALGORITHMS,
    BUDGETS,
    CRITERIA,
    VERSION,
    CompileConfig,
    ConvShape,
    Epilogue,
    LayerPlan,
    PruneConfig,
)
from tvm_sparsewino.errors import ConfigError

SHAPE = ConvShape(2, 6, 13, 9, 4, 3, (0, 1, 2, 0), 2)

VALUES = [
    CompileConfig(),
    CompileConfig(winograd_for_dense=False, max_tile=6, min_channels=16, panel_vectors=16),
    PruneConfig(),
    PruneConfig(0.5, "authors", "global", 10, 20, 0.25, 5, False, "rows4", "plain", 1e-4, 10.0),
    SHAPE,
    Epilogue(),
    Epilogue(True, True, "leaky_relu", 0.125),
    LayerPlan("head", None, 0.0, "left", reason="stride 2"),
    LayerPlan("c1", SHAPE, 0.25, "sparse_winograd", 4, 3, 8, 8, 2, "why", 100, 50, 12.5, "rows2"),
]


@pytest.mark.parametrize("value", VALUES, ids=lambda v: type(v).__name__)
def test_json_round_trip(value):
    data = value.to_json()
    assert data["version"] == VERSION
    text = json.dumps(data)
    assert type(value).from_json(data) == value
    assert type(value).from_json(text) == value
    again = type(value).from_json(json.loads(text))
    assert again == value
    assert hash(again) == hash(value)


def test_shapes_of_every_filter_and_step():
    shape = ConvShape(2, 4, 11, 20, 6, 3, (1, 2, 0, 3), 2, 2, (1, 3), 5)
    assert (shape.stride, shape.dilation, shape.s, shape.taps) == ((2, 2), (1, 3), 5, 15)
    assert shape.extent == (3, 13)
    assert (shape.oh, shape.ow) == ((11 + 1 - 3) // 2 + 1, (20 + 5 - 13) // 2 + 1)
    assert shape.direct_flops == 2 * 6 * shape.oh * shape.ow * 2 * 2 * 15
    assert ConvShape.from_json(json.dumps(shape.to_json())) == shape


def test_equal_shapes_are_equal():
    assert ConvShape(1, 4, 8, 8, 6, 3, columns=3) == ConvShape(1, 4, 8, 8, 6, 3)
    assert ConvShape(1, 4, 8, 8, 6, 3, stride=(2, 2)) == ConvShape(1, 4, 8, 8, 6, 3, stride=2)


def test_shapes_written_before_strides_are_read():
    data = {"version": 1, "n": 1, "c": 4, "h": 8, "w": 9, "k": 6, "r": 3}
    shape = ConvShape.from_json({**data, "padding": [1, 0, 1, 0], "groups": 2})
    assert (shape.stride, shape.dilation, shape.s, shape.oh) == ((1, 1), (1, 1), 3, 8)


def test_reading_does_not_change_what_it_reads():
    data = VALUES[-1].to_json()
    before = json.dumps(data)
    LayerPlan.from_json(data)
    assert json.dumps(data) == before


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        (CompileConfig, {"version": VERSION + 1}, f"version {VERSION + 1}, this build reads"),
        (CompileConfig, {"version": None}, "version None"),
        (CompileConfig, {"speed": 1}, r"unknown fields \['speed'\]"),
        (CompileConfig, {"max_tile": 3}, "max_tile must be 2, 4 or 6, got 3"),
        (CompileConfig, {"max_tile": "4"}, "max_tile must be 2, 4 or 6, got '4'"),
        (CompileConfig, {"min_channels": 0}, "min_channels must be >= 1, got 0"),
        (CompileConfig, {"min_channels": "many"}, "CompileConfig: "),
        (CompileConfig, {"panel_vectors": -1}, "panel_vectors must be 0 .* to 16, got -1"),
        (CompileConfig, {"panel_vectors": 17}, "panel_vectors must be 0 .* to 16, got 17"),
        (PruneConfig, {"sparsity": 1.0}, r"sparsity must be in \[0, 1\), got 1.0"),
        (PruneConfig, {"sparsity": -0.1}, r"sparsity must be in \[0, 1\), got -0.1"),
        (PruneConfig, {"sparsity": float("nan")}, r"sparsity must be in \[0, 1\), got nan"),
        (PruneConfig, {"sparsity": "0.9"}, r"sparsity must be in \[0, 1\), got '0.9'"),
        (PruneConfig, {"initial_sparsity": 1}, r"initial_sparsity must be in \[0, 1\), got 1"),
        (PruneConfig, {"sparsity": 0.5, "initial_sparsity": 0.6}, "is above sparsity"),
        (PruneConfig, {"criterion": "random"}, "criterion must be one of .* got 'random'"),
        (PruneConfig, {"budget": "net"}, "budget must be one of .* got 'net'"),
        (PruneConfig, {"start_step": -1}, "steps must satisfy"),
        (PruneConfig, {"start_step": 9, "end_step": 8}, "steps must satisfy"),
        (PruneConfig, {"every": 0}, "every must be >= 1, got 0"),
        (PruneConfig, {"every": 2.5}, "every must be a whole number, got 2.5"),
        (PruneConfig, {"every": True}, "every must be a whole number, got True"),
        (PruneConfig, {"start_step": "0"}, "start_step must be a whole number, got '0'"),
        (PruneConfig, {"end_step": 20.0}, "end_step must be a whole number, got 20.0"),
        (PruneConfig, {"structure": "rows3"}, "structure must be one of .* got 'rows3'"),
        (PruneConfig, {"parameters": "raw"}, "parameters must be one of .* got 'raw'"),
        (PruneConfig, {"parameters": "plain"}, "ranks by measured scales.*'plain' would replace"),
        (PruneConfig, {"l1": -1}, "l1 must be >= 0, got -1"),
        (PruneConfig, {"l1": float("inf")}, "l1 must be >= 0, got inf"),
        (PruneConfig, {"max_threshold_factor": 1}, "must be 0 or >= 2, got 1"),
        (
            PruneConfig,
            {"max_threshold_factor": 2},
            "belongs to criterion 'authors', got 'activation'",
        ),
        (
            PruneConfig,
            {"structure": "balanced", "budget": "global"},
            "'balanced' needs budget 'layer'",
        ),
        (Epilogue, {"activation": "gelu"}, "unknown activation 'gelu'"),
        (LayerPlan, {"algorithm": "fft"}, "unknown algorithm 'fft'"),
        (LayerPlan, {"structure": "rows3"}, "unknown structure 'rows3'"),
        (LayerPlan, {"algorithm": "left"}, "only a sparse kernel has a structure, got 'rows2'"),
        (LayerPlan, {"density": 1.5}, "density must be in"),
        (LayerPlan, {"lanes": 5}, r"lanes must be one of \(0, 4, 8, 16\), got 5"),
        (
            LayerPlan,
            {"lanes": 8, "algorithm": "dense_direct", "structure": "unstructured"},
            "'dense_direct' kernels have no lanes, got 8",
        ),
        (LayerPlan, {"copied": True}, "'sparse_winograd' kernels have no copied, got True"),
        (LayerPlan, {"rows_at_once": 0}, "rows_at_once must be >= 1"),
        (LayerPlan, {"k_block": -1}, "must not be negative"),
        (LayerPlan, {"sharers": 2}, "only with split_k are panels shared out, got sharers 2"),
        (LayerPlan, {"split_k": True, "sharers": -1}, "only with split_k .* got sharers -1"),
        (CompileConfig, {"winograd_for_dense": "no"}, "must be a bool"),
        (LayerPlan, {"name": None, "drop": "name"}, "missing .* 'name'"),
        (ConvShape, {"drop": "k"}, "missing .* 'k'"),
        (ConvShape, {"stride": 0}, "stride must be one or two numbers >= 1, got 0"),
        (ConvShape, {"stride": [1, 2, 1]}, "stride must be one or two numbers >= 1"),
        (ConvShape, {"dilation": [1, 1.5]}, "dilation must be one or two numbers >= 1"),
        (ConvShape, {"dilation": "2"}, "dilation must be one or two numbers >= 1, got '2'"),
    ],
)
def test_refusals(kind, change, message):
    start = {CompileConfig: 0, PruneConfig: 2, ConvShape: 4, Epilogue: 5, LayerPlan: 8}
    data = VALUES[start[kind]].to_json() | change
    data.pop(data.pop("drop", ""), None)
    with pytest.raises(ConfigError, match=message):
        kind.from_json(data)


@pytest.mark.parametrize("text", ["", "{", "[1]", "3", '"text"', "null"])
@pytest.mark.parametrize("kind", [CompileConfig, LayerPlan])
def test_text_that_is_not_an_object_is_refused(kind, text):
    with pytest.raises(ConfigError, match=f"{kind.__name__}: expected a JSON object"):
        kind.from_json(text)


def test_a_plan_with_a_bad_shape_is_refused():
    data = VALUES[-1].to_json()
    with pytest.raises(ConfigError, match=r"ConvShape: unknown fields \['depth'\]"):
        LayerPlan.from_json(data | {"conv": data["conv"] | {"depth": 1}})
    with pytest.raises(ConfigError, match="ConvShape: expected a JSON object"):
        LayerPlan.from_json(data | {"conv": [1, 2]})


def test_every_listed_choice_is_accepted():
    for activation in ACTIVATIONS:
        assert Epilogue(activation=activation).activation == activation
    for algorithm in ALGORITHMS:
        assert LayerPlan("c", None, 1.0, algorithm).algorithm == algorithm
    for criterion in CRITERIA:
        for budget in BUDGETS:
            assert PruneConfig(criterion=criterion, budget=budget).budget == budget


def test_values_are_frozen():
    with pytest.raises(AttributeError):
        SHAPE.n = 3


def test_output_size_and_flops():
    assert (SHAPE.oh, SHAPE.ow) == (13 + 0 + 2 - 2, 9 + 1 + 0 - 2)
    # 2 images, 4 output channels, 13 x 8 outputs, 3 input channels per group, 9 taps.
    assert SHAPE.direct_flops == 2 * 4 * 13 * 8 * (2 * 3 * 9)
