"""The C++ program runs compiled networks like Python does, and refuses what Python refuses."""

import re
import shutil
import subprocess

import numpy as np
import pytest
from relax_networks import module, winograd
from tvm import relax

from tvm_sparsewino import batch_choice, driver, native
from tvm_sparsewino.cli.main import main
from tvm_sparsewino.errors import ArtefactError
from tvm_sparsewino.schedules.cpu_features import _INSTRUCTION_SETS

SHAPE = (1, 4, 8, 9)
needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="no g++ on this machine")


def shipped(folder, *arguments):
    """Run the program in ``folder`` with nothing of the environment it was built in."""
    return subprocess.run(
        ["./run_model", *arguments], cwd=folder, env={}, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def exe():
    rng = np.random.default_rng(7)
    u = rng.standard_normal((36, 4, 4)) * (rng.random((36, 4, 4)) < 0.2)

    def build(b, image, other):
        y = winograd(b, image, u.astype("float32"))
        flat = b.emit(relax.op.sum(y, axis=[1, 2, 3]))
        return b.emit(relax.Tuple([b.emit(relax.op.add(y, other)), flat]))

    return driver.compile(module(build, SHAPE, SHAPE, names=("image", "other")))


@pytest.fixture(scope="module")
def folder(exe, tmp_path_factory):
    """A clean folder: program, libraries, a network, its inputs, and networks that are unfit."""
    folder = tmp_path_factory.mktemp("ship")
    assert main(["runner", str(folder)]) == 0
    exe.save(folder / "net.so")
    rng = np.random.default_rng(3)
    for name in ("a.npy", "b.npy"):
        np.save(folder / name, rng.standard_normal(SHAPE).astype("float32"))
    data = (folder / "net.so").read_bytes()
    altered = bytearray(data)
    altered[1000] ^= 1
    (folder / "cut.so").write_bytes(data[:5000])
    (folder / "altered.so").write_bytes(altered)
    mod = module(lambda b, x: winograd(b, x, np.ones((36, 4, 4), np.float32)), SHAPE)
    other = driver.compile(mod, "llvm")
    features = (*other.description.features, "avx1024")
    object.__setattr__(other.description, "features", features)
    other.save(folder / "other.so")
    return folder


@needs_compiler
def test_it_gives_what_python_gives(exe, folder):
    done = shipped(folder, "net.so", "a.npy", "b.npy", "sum.npy", "flat.npy")
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    want = exe(np.load(folder / "a.npy"), np.load(folder / "b.npy"))
    for name, array in zip(("sum.npy", "flat.npy"), want, strict=True):
        np.testing.assert_array_equal(np.load(folder / name), array)


@needs_compiler
def test_a_size_of_an_open_batch(folder):
    build = module(lambda b, x: winograd(b, x, np.ones((36, 4, 4), np.float32)), SHAPE)
    exe = driver.compile(build, "llvm", batches=(1, 3))
    exe.save(folder / "open.so")
    x = np.random.default_rng(5).standard_normal((3, *SHAPE[1:])).astype("float32")
    np.save(folder / "three.npy", x)
    np.save(folder / "two.npy", x[:2])
    done = shipped(folder, "open.so", "three.npy", "out.npy")
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    np.testing.assert_array_equal(np.load(folder / "out.npy"), exe(x))
    done = shipped(folder, "open.so", "two.npy", "x.npy")
    assert done.returncode == 4
    assert "with a first size of 1, 3, got {'descr': '<f4'" in done.stderr


@needs_compiler
def test_a_batch_in_pieces(folder, monkeypatch):
    monkeypatch.setattr(batch_choice, "call_cycles", lambda plans, threads: plans[0].conv.n ** 1.5)
    shape = (3, *SHAPE[1:])
    build = module(lambda b, x: winograd(b, x, np.ones((36, 4, 4), np.float32)), shape)
    exe = driver.compile(build, "llvm")
    assert exe.description.batches == (1,)
    exe.save(folder / "pieces.so")
    x = np.random.default_rng(5).standard_normal(shape).astype("float32")
    np.save(folder / "whole.npy", x)
    np.save(folder / "one.npy", x[:1])
    done = shipped(folder, "pieces.so", "whole.npy", "out.npy")
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    np.testing.assert_array_equal(np.load(folder / "out.npy"), exe(x))
    done = shipped(folder, "pieces.so", "one.npy", "x.npy")
    assert done.returncode == 4 and "one.npy: expected {'descr': '<f4'" in done.stderr


@needs_compiler
def test_the_folder_holds_all_that_is_needed(folder):
    programs = {path.name for path in folder.iterdir() if path.suffix not in (".npy", ".so")}
    assert programs == {"run_model"}
    assert {"libtvm_runtime.so", "libtvm_ffi.so"} < {path.name for path in folder.iterdir()}


@needs_compiler
@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        ([], 2, "usage: run_model MODEL.so INPUT.npy... OUTPUT.npy..."),
        (["net.so", "a.npy"], 2, "net.so takes 2 inputs and gives 2 outputs, got 1 files"),
        (["no.so", "a.npy"], 4, "no.so: cannot be read"),
        (["a.npy", "a.npy"], 4, "a.npy: not a compiled network, or cut off"),
        (["cut.so", "a.npy"], 4, "cut.so: not a compiled network, or cut off"),
        (["altered.so", "a.npy"], 4, "altered.so: the file is damaged: its checksum does not"),
        (["other.so", "a.npy", "x.npy"], 4, "other.so: this CPU lacks avx1024"),
        (["net.so", "a.npy", "no.npy", "x.npy", "y.npy"], 4, "no.npy: cannot be read"),
        (["net.so", "a.npy", "net.so", "x.npy", "y.npy"], 4, "net.so: not a .npy file"),
        (["net.so", "a.npy", "wide.npy", "x.npy", "y.npy"], 4, "wide.npy: expected {'descr': '<f4"),
        (["net.so", "a.npy", "short.npy", "x.npy", "y.npy"], 4, "holds more or fewer bytes"),
        (["net.so", "a.npy", "b.npy", "no/x.npy", "y.npy"], 4, "no/x.npy: cannot be written"),
    ],
)
def test_what_does_not_fit_is_named(folder, arguments, code, text):
    np.save(folder / "wide.npy", np.zeros(SHAPE))
    (folder / "short.npy").write_bytes((folder / "a.npy").read_bytes()[:-4])
    done = shipped(folder, *arguments)
    assert done.returncode == code
    assert text in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (folder / "x.npy").exists()


def test_features_have_the_same_names_as_in_python():
    """What Linux calls otherwise than LLVM must be in the program's table."""
    text = (native.SOURCES / "artefact.h").read_text()
    table = dict(re.findall(r'\{"([\w.]+)", "(\w+)"\}', text))
    assert table == {name: flag for name, flag in _INSTRUCTION_SETS.items() if name != flag}


def test_no_compiler(tmp_path, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ArtefactError, match="ship: no C\\+\\+ compiler 'no-such-compiler'"):
        native.build(tmp_path / "ship")


@pytest.mark.skipif(shutil.which("false") is None, reason="no false on this machine")
def test_a_compiler_that_fails(tmp_path, monkeypatch):
    monkeypatch.setenv("CXX", "false")
    with pytest.raises(ArtefactError, match="ship: false fails"):
        native.build(tmp_path / "ship")


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtefactError, match=r"file: cannot be written: File exists"):
        native.build(tmp_path / "file")
