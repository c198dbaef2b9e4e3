"""The systems a user would pick instead, and where their environments lie.

``benchmarks/peers/install.py`` makes an environment for each, outside of this package, and writes
``peers.json`` beside them: the command of the worker process per environment.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import ConfigError

FOLDER_VARIABLE = "SPARSEWINO_PEERS"
INDEX = "peers.json"


@dataclass(frozen=True)
class Peer:
    """One contestant that is not ours.

    Attributes:
        name: as in options and records.
        environment: which environment runs it.
        density: share of nonzero weights (spatial) that it is given.
        dense_rival: whether it counts as one of the dense peers that we are measured by.
    """

    name: str
    environment: str
    density: float = 1.0
    dense_rival: bool = False


PEERS = (
    Peer("torch", "torch", dense_rival=True),
    Peer("onnxruntime", "onnxruntime", dense_rival=True),
    Peer("openvino", "openvino", dense_rival=True),
    Peer("ncnn", "ncnn"),
    Peer("deepsparse", "deepsparse"),
    Peer("deepsparse-sparse90", "deepsparse", density=0.1),
)
DENSE_RIVALS = tuple(peer.name for peer in PEERS if peer.dense_rival)
SPARSE_RIVALS = ("deepsparse", "deepsparse-sparse90")


def default_folder() -> Path:
    """Where the environments lie unless an option says otherwise."""
    given = os.environ.get(FOLDER_VARIABLE)
    return Path(given) if given else Path.home() / ".cache" / "tvm-sparsewino" / "peers"


def choose_peers(names: Sequence[str]) -> list[Peer]:
    """The peers of these names; "all" and "none" are names, too.

    Raises:
        ConfigError: an unknown name.
    """
    by_name = {peer.name: peer for peer in PEERS}
    if list(names) in (["all"], ["none"]):
        return list(PEERS) if list(names) == ["all"] else []
    for name in names:
        if name not in by_name:
            raise ConfigError(f"no peer {name!r}; there are all, none, {', '.join(by_name)}")
    return [by_name[name] for name in dict.fromkeys(names)]


def peer_commands(peers: Sequence[Peer], folder: Path) -> dict[str, list[str]]:
    """The command of every peer's process, by the peer's name.

    Raises:
        ConfigError: the folder has no environments, or not that of one of these peers.
    """
    if not peers:
        return {}
    hint = "make them with benchmarks/peers/install.py, or choose others with --peers"
    try:
        commands = json.loads((folder / INDEX).read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"no environments of peers in {folder}: {hint}") from error
    for peer in peers:
        if peer.environment not in commands:
            raise ConfigError(f"peer {peer.name!r} has no environment in {folder}: {hint}")
    return {peer.name: commands[peer.environment] for peer in peers}
