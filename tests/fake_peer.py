"""A peer made of NumPy that speaks the real protocol: ``python fake_peer.py [HOW]``.

HOW is "right" (default), "wrong" (its answer), "refuses" (every chain), "narrow" (a shape), "dies"
(when asked to run) or "dies late" (when timed).
"""

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks" / "peers"))

import serve

NAME = "fake"
HOW = " ".join(sys.argv[1:]) or "right"


def versions():
    return {"fake": "1.0"}


def build(x, layers, threads):
    print("what a library prints")
    if HOW == "refuses":
        raise ValueError("no such chain")
    calls = []

    def call():
        calls.append(1)
        if HOW == "dies" or (HOW == "dies late" and len(calls) > 1):
            print("killed by itself", file=sys.stderr, flush=True)
            sys.stderr.flush()
            raise SystemExit(3)
        return network(x, layers) + (HOW == "wrong")

    return call, f"threads={threads}"


def network(x, layers):
    for weight, bias in layers:
        padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
        x = np.einsum("nchwij,kcij->nkhw", windows, weight, optimize=True) + bias[:, None, None]
        x = np.maximum(x, 0)
    return x[:, :1] if HOW == "narrow" else x


if __name__ == "__main__":
    serve.serve(sys.modules[__name__])
