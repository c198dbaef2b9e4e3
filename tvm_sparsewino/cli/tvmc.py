"""``sparsewino-tvmc``: tvmc with the composite target "sparsewino" and our ONNX files.

Exit codes are tvmc's: 0 fine, 2 bad arguments, 4 failed, 5 a package is missing.
"""

from __future__ import annotations

import sys

from ..errors import MissingExtra
from ..tvmc import OPTIONS, TARGET, install

_EXTRA_MISSING = 5


def main() -> int:
    """Run tvmc with this package installed in it; returns the exit code."""
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(_help(), flush=True)
    try:
        install()
    except MissingExtra as error:
        print(f"sparsewino-tvmc: {error}", file=sys.stderr)
        return _EXTRA_MISSING
    from tvm.driver.tvmc import main as tvmc

    return tvmc._main(sys.argv[1:])


def _help() -> str:
    width = max(map(len, OPTIONS))
    options = [f"  -{name:<{width}}  {meaning}" for name, (_, meaning) in OPTIONS.items()]
    return "\n".join(
        (
            "sparsewino-tvmc is tvmc in which convolutions run on sparse kernels where the target",
            "says so:",
            f'  sparsewino-tvmc compile --target "{TARGET}, llvm -mcpu=skylake-avx512" \\',
            "      model.onnx -o model.tar",
            "  sparsewino-tvmc run -i inputs.npz -o outputs.npz model.tar",
            "What it compiles, any tvmc can run. It reads plain ONNX files, whose zeros count, and",
            "those with Winograd layers. Options go behind the name, as in",
            f'--target "{TARGET} -min_sparsity=0.5, llvm":',
            *options,
            "Files lie in the current folder: tvmc takes no / in a target.",
            "The rest is tvmc's own:",
            "",
        )
    )
