"""Tuning on another machine: TVM's tracker and server, as processes on this machine's loopback."""

import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
from relax_networks import module, winograd

from tvm_sparsewino import driver
from tvm_sparsewino.config import CompileConfig, ConvShape
from tvm_sparsewino.errors import TuneError
from tvm_sparsewino.planner import plan_of, winograd_options
from tvm_sparsewino.records import read_records
from tvm_sparsewino.schedules.target import parse_target
from tvm_sparsewino.tuner import remote
from tvm_sparsewino.tuner.measure import LocalMachine, Problem
from tvm_sparsewino.tuner.network import layers_to_tune
from tvm_sparsewino.tuner.remote import RemoteMachine, remote_machine
from tvm_sparsewino.tuner.version import kernel_version

HOST = parse_target("native")
KEY = "board"
START_SECONDS = 180  # each process imports TVM once or twice, beside other tests


@pytest.fixture(scope="module")
def tracker(tmp_path_factory):
    """A tracker with one server; gives its "HOST:PORT"."""
    if importlib.util.find_spec("tornado") is None:
        pytest.skip("TVM's tracker needs tornado")
    ports = free_ports(2)
    address = f"127.0.0.1:{ports[0]}"
    commands = (
        ["rpc_tracker", *listen(ports[0])],
        ["rpc_server", *listen(ports[1]), "--tracker", address, "--key", KEY],
    )
    started = []
    log = (tmp_path_factory.mktemp("rpc") / "log").open("w+")
    try:
        for command in commands:
            started.append(start(command, log))
            wait_until(lambda: reachable(address), started[-1], log)
        wait_until(lambda: registered(address), started[-1], log)
        yield address
    finally:
        for process in reversed(started):
            os.killpg(process.pid, signal.SIGKILL)  # with the workers that it has started
            process.wait()
        log.close()


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for s in sockets:
        s.bind(("127.0.0.1", 0))
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def listen(port):
    return ["--host", "127.0.0.1", "--port", str(port), "--port-end", str(port + 1)]


def start(command, log):
    # The server's own pool of threads, whatever these tests' one is.
    environment = {**os.environ, "TVM_NUM_THREADS": "2"}
    return subprocess.Popen(
        [sys.executable, "-m", f"tvm.exec.{command[0]}", *command[1:]],
        stdout=log,
        stderr=subprocess.STDOUT,
        env=environment,
        start_new_session=True,
    )


def wait_until(done, process, log):
    end = time.monotonic() + START_SECONDS
    while not done():
        state = "does not answer" if process.poll() is None else "has ended"
        if state == "has ended" or time.monotonic() > end:
            log.seek(0)
            pytest.fail(f"{process.args[2]} {state}: {log.read()}")
        time.sleep(0.2)


def reachable(address):
    host, port = address.split(":")
    try:
        socket.create_connection((host, int(port)), 1).close()
    except OSError:
        return False
    return True


def registered(address):
    from tvm import rpc

    host, port = address.split(":")
    session = rpc.connect_tracker(host, int(port))
    servers = session.summary()["server_info"]
    session.close()
    return bool(servers)


@pytest.fixture
def network(rng):
    u = rng.standard_normal((16, 8, 8)).astype("float32")
    u[rng.random(u.shape) < 0.8] = 0
    return module(lambda b, x: winograd(b, x, u, m=2, name="layer"), (1, 8, 12, 11))


def test_a_borrowed_machine_computes_what_this_one_does(tracker, network):
    (layer,) = layers_to_tune(network, HOST, CompileConfig(), 1)
    plan = plan_of("", layer.problem.shape, layer.options[0])
    here = LocalMachine(HOST, 1).kernel(layer.problem, plan)
    here.seconds()
    with remote_machine(tracker, KEY, HOST, 1) as machine:
        there = machine.kernel(layer.problem, plan)
        assert there.seconds() > 0
        assert np.array_equal(there.output(), here.output())
        assert np.abs(there.output()).max() > 0


def test_a_network_is_tuned_over_the_tracker(tracker, network, tmp_path):
    path = tmp_path / "records.jsonl"
    (record,) = driver.tune(
        network,
        path,
        HOST.text,
        num_threads=2,
        budget=1e-9,
        rpc_tracker=tracker,
        rpc_key=KEY,
    )
    assert record.key.threads == 2
    assert read_records(path, kernel_version()).find(record.key) == record


def test_a_busy_server_is_waited_for_and_named(tracker, monkeypatch):
    monkeypatch.setattr(remote, "_BUSY_SECONDS", 0.1)
    with remote_machine(tracker, KEY, HOST, 1) as machine:
        with (
            pytest.raises(TuneError, match=r"every server of .* with the key 'board' is busy"),
            remote_machine(tracker, KEY, HOST, 1),
        ):
            pass
        del machine
    monkeypatch.undo()
    with remote_machine(tracker, KEY, HOST, 1):
        pass


def test_an_unknown_key_is_named(tracker):
    with (
        pytest.raises(TuneError, match="no server with the key 'phone'; it has board"),
        remote_machine(tracker, "phone", HOST, 1),
    ):
        pass


@pytest.mark.parametrize("address", ["localhost", "9190", ":9190", "host:port"])
def test_an_address_that_is_none(address):
    with (
        pytest.raises(TuneError, match="the tracker must be HOST:PORT, got "),
        remote_machine(address, KEY, HOST, 1),
    ):
        pass


def test_no_tracker_there():
    address = f"127.0.0.1:{free_ports(1)[0]}"
    with (
        pytest.raises(TuneError, match=f"the tracker {address}: .*refused"),
        remote_machine(address, KEY, HOST, 1),
    ):
        pass


def test_a_machine_that_goes_away(rng):
    class Gone:
        def upload(self, data, target):
            raise RuntimeError("Traceback\nRPCError: connection closed")

    u = rng.standard_normal((16, 8, 8)).astype("float32")
    problem = Problem(ConvShape(1, 8, 6, 6, 8, 3), u, 2)
    plan = plan_of("", problem.shape, winograd_options(problem.shape, u, 2, HOST)[0])
    with pytest.raises(TuneError, match="the remote machine: RPCError: connection closed"):
        RemoteMachine(Gone(), HOST).kernel(problem, plan)
