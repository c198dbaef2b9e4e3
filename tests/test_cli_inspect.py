"""What ``sparsewino inspect`` says of a plan, beside its table (see test_cli.py)."""

from tvm_sparsewino.cli.inspect import plan_table, where_time_goes
from tvm_sparsewino.config import ConvShape, LayerPlan

SHAPE = ConvShape(1, 8, 9, 9, 8, 3)


def layer(name, algorithm, density, cycles):
    m = 4 if "winograd" in algorithm else 0
    return LayerPlan(name, SHAPE, density, algorithm, m, cost_cycles=cycles)


PLAN = (
    layer("stem", "dense_direct", 1.0, 6e6),
    layer("body", "sparse_winograd", 0.1, 1e6),
    layer("wide", "dense_winograd", 0.8, 3e6),
    layer("odd", "left", 1.0, 0.0),
)


def test_where_the_time_goes():
    assert where_time_goes(PLAN) == [
        "predicted: 10 Mcycles of all layers; most in 'stem' 60%, 'wide' 30%, 'body' 10%, 'odd' 0%",
        "no kernel, left as they are: 1 layers, 0% of it: odd",
        "dense since they have no zeros: 1 layers, 60% of it: stem",
        "dense though they have zeros, since that is faster: 1 layers, 30% of it: wide",
    ]


def test_many_layers_are_not_all_named():
    many = [layer(f"conv{i}", "dense_direct", 1.0, 1e6) for i in range(11)]
    assert where_time_goes(many)[1].endswith("conv7 and 3 more")


def test_nothing_planned():
    assert where_time_goes(()) == []


def test_shares_are_in_the_table():
    table = plan_table(PLAN)
    (shares,) = [column for column in table.columns if column.header == "share"]
    assert list(shares.cells) == ["60.0%", "10.0%", "30.0%", ""]


def test_fewer_lanes_than_registers_have_are_shown():
    narrow = LayerPlan("body", SHAPE, 0.1, "sparse_winograd", 4, panel_vectors=9, lanes=8)
    table = plan_table((narrow, PLAN[1]))
    (panels,) = [column for column in table.columns if column.header == "panel"]
    assert list(panels.cells) == ["9 x 8", "0"]
