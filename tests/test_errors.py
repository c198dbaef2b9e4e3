"""The error family: one base, a built-in kind beside it, and context that keeps the kind."""

import pytest

from tvm_sparsewino import errors
from tvm_sparsewino.errors import SparseWinoError, in_context

BUILTIN = {
    errors.ConfigError: ValueError,
    errors.ShapeError: ValueError,
    errors.WeightsError: ValueError,
    errors.TargetError: ValueError,
    errors.ImportFailed: ValueError,
    errors.CompileFailed: RuntimeError,
    errors.ExportFailed: ValueError,
    errors.ArtefactError: OSError,
    errors.PruneError: ValueError,
    errors.TuneError: RuntimeError,
    errors.MissingExtra: ImportError,
}


def test_every_kind_is_listed_here():
    kinds = {v for v in vars(errors).values() if isinstance(v, type) and issubclass(v, Exception)}
    assert kinds - {SparseWinoError} == set(BUILTIN)


@pytest.mark.parametrize("kind", BUILTIN, ids=lambda kind: kind.__name__)
def test_context_keeps_kind_message_and_cause(kind):
    assert issubclass(kind, SparseWinoError) and issubclass(kind, BUILTIN[kind])
    with pytest.raises(kind) as caught, in_context("net.onnx"), in_context("layer conv1"):
        raise kind("weights are 3-D")
    assert type(caught.value) is kind
    assert str(caught.value) == "net.onnx: layer conv1: weights are 3-D"
    assert str(caught.value.__cause__) == "layer conv1: weights are 3-D"
    assert str(caught.value.__cause__.__cause__) == "weights are 3-D"


def test_context_leaves_other_errors_and_success_alone():
    with in_context("somewhere"):
        result = 1
    assert result == 1
    with pytest.raises(KeyError) as caught, in_context("somewhere"):
        raise KeyError("key")
    assert caught.value.args == ("key",)
