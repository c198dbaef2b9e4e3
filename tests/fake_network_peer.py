"""A peer that reads networks: ``python fake_network_peer.py [HOW]``.

HOW is "zeros" (a wrong answer), "narrow" (a wrong shape), or "refuses".
"""

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks" / "peers"))

import serve

NAME = "fake"
HOW = " ".join(sys.argv[1:])


def versions():
    return {"fake": "1.0"}


def build_network(model, x, threads):
    assert Path(model).stat().st_size > 0
    if HOW == "refuses":
        raise ValueError("no such network")
    return lambda: np.zeros((len(x), 1 if HOW == "narrow" else 5), np.float32), f"threads={threads}"


if __name__ == "__main__":
    serve.serve(sys.modules[__name__])
