"""Make an environment for every peer, outside of the tree.

    python benchmarks/peers/install.py [--at DIR] [NAME ...]

DIR is $SPARSEWINO_PEERS, or ~/.cache/tvm-sparsewino/peers. Each environment is made from the
Python that runs this (3.11 or older for DeepSparse) and holds what is pinned below; one that is
there with the same pins is kept. PyTorch is timed in the environment that runs this. DIR/peers.json
then tells the benchmark the commands. DeepSparse is closed and no longer maintained: it is for
comparison only.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import venv
from pathlib import Path

from serve import ENGINES

PINS = {
    "onnxruntime": ["onnxruntime==1.32.0", "onnx==1.23.2", "numpy==2.4.6"],
    "openvino": ["openvino==2026.4.1", "onnx==1.23.2", "numpy==2.4.6"],
    "ncnn": ["ncnn==1.0.20261020", "numpy==2.4.6"],
    "deepsparse": ["deepsparse==1.8.0", "onnx==1.14.1", "numpy==1.26.4"],
}
SERVE = Path(__file__).resolve().with_name("serve.py")
INDEX = "peers.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--at", type=Path, default=default_folder(), metavar="DIR")
    parser.add_argument("names", nargs="*", default=[], metavar="NAME", help=", ".join(ENGINES))
    arguments = parser.parse_args()
    unknown = set(arguments.names) - set(ENGINES)
    if unknown:
        parser.error(f"no peer {', '.join(sorted(unknown))}; there are {', '.join(ENGINES)}")
    arguments.at.mkdir(parents=True, exist_ok=True)
    for name in arguments.names or ENGINES:
        python = environment(arguments.at / name, PINS[name]) if name in PINS else sys.executable
        remember(arguments.at / INDEX, name, [str(python), str(SERVE), name])
        print(f"{name}: {python}")


def default_folder() -> Path:
    given = os.environ.get("SPARSEWINO_PEERS")
    return Path(given) if given else Path.home() / ".cache" / "tvm-sparsewino" / "peers"


def environment(folder: Path, pins: list[str]) -> Path:
    """The Python of an environment that holds ``pins``."""
    python, stamp = folder / "bin" / "python", folder / "pins.json"
    if not stamp.exists() or json.loads(stamp.read_text()) != pins:
        venv.create(folder, with_pip=True, clear=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--only-binary=:all:"]
        subprocess.run([*pip, *pins], check=True)
        stamp.write_text(json.dumps(pins))
    return python


def remember(index: Path, name: str, command: list[str]) -> None:
    """Add the command of a peer's process to the index of them all."""
    commands = json.loads(index.read_text()) if index.exists() else {}
    index.write_text(json.dumps({**commands, name: command}, indent=1) + "\n")


if __name__ == "__main__":
    main()
