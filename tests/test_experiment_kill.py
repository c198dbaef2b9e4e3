"""A run that is killed at any moment ends as one that was not."""

import json
import os
import random
import signal
import subprocess
import sys
import time

ARGUMENTS = (
    *("--set", "batch=32", "--set", "save_every=5", "--set", "cost=false"),
    *("--set", 'network_options={"widths":[4,6],"hidden":16}', "--set", "prune.every=2"),
    *("--set", "dense.epochs=1", "--set", "tune.epochs=1", "--set", "prune.tile=2"),
)


def start(folder, *more):
    program = "import sys; from tvm_sparsewino.cli.main import main; sys.exit(main())"
    command = [sys.executable, "-c", program, "train", "--out", str(folder), *ARGUMENTS, *more]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )


def finish(process):
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors.decode()


def test_a_run_that_is_killed_ends_as_if_it_had_not_been(tmp_path):
    finish(start(tmp_path / "whole"))
    want = json.loads((tmp_path / "whole" / "record.json").read_text())
    killed = tmp_path / "killed"
    draw = random.Random(7)
    # Once in the dense phase, once while pruning, a random moment after the first checkpoint.
    for number, phase in enumerate(("dense", ".")):
        process = start(killed, *(("--resume",) if number else ()))
        while not (killed / phase / "checkpoint.pt").exists() and process.poll() is None:
            time.sleep(0.005)
        time.sleep(draw.uniform(0, 0.1))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        assert not (killed / "record.json").exists()
    finish(start(killed, "--resume"))
    have = json.loads((killed / "record.json").read_text())
    assert have["fingerprint"] == want["fingerprint"]
    for name in ("accuracy", "test_loss", "zeros", "id"):
        assert have[name] == want[name]
    for phase in ("dense", "tune"):
        lines = [
            [{k: v for k, v in row.items() if "seconds" not in k} for row in x["curves"][phase]]
            for x in (have, want)
        ]
        assert lines[0] == lines[1]
