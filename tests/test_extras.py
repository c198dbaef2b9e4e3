import json

import pytest

from tvm_sparsewino.errors import MissingExtra
from tvm_sparsewino.extras import require


def test_a_package_that_is_there_is_imported():
    assert require("json", "demo") is json


def test_a_missing_package_names_the_extra():
    with pytest.raises(MissingExtra, match=r"no_such_package is not.*'tvm-sparsewino\[demo\]'"):
        require("no_such_package", "demo")
