"""The command line: what it writes and prints, and its exit codes."""

import json
import sys
import types

import numpy as np
import pytest
import torch
from torch import nn

from tvm_sparsewino import driver
from tvm_sparsewino.cli import main as cli
from tvm_sparsewino.nn.export import exported_program
from tvm_sparsewino.nn.layers import WinogradConv2d


class Net(nn.Module):
    """A Winograd layer, 90 % zeros, and one that is left."""

    def __init__(self):
        super().__init__()
        self.body = WinogradConv2d(8, 8, 3, m=4, padding=1)
        self.head = nn.Conv2d(8, 2, 1)
        generator = torch.Generator().manual_seed(3)
        self.body.set_mask(torch.rand(self.body.weight.shape, generator=generator) < 0.1)

    def forward(self, image):
        return self.head(torch.relu(self.body(image)))


X = np.linspace(-1, 1, 8 * 10 * 9, dtype=np.float32).reshape(1, 8, 10, 9)


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(1)
    return Net().eval()


@pytest.fixture(scope="module")
def folder(net, tmp_path_factory):
    """An exported network, the same compiled, and an input."""
    folder = tmp_path_factory.mktemp("cli")
    torch.export.save(exported_program(net, (torch.from_numpy(X),)), folder / "net.pt2")
    command = ["compile", str(folder / "net.pt2"), "-o", str(folder / "net.so")]
    assert cli.main([*command, "--dump-ir", str(folder / "ir")]) == 0
    np.savez(folder / "in.npz", image=X)
    return folder


def run(capsys, *arguments):
    """Exit code, standard output and standard error."""
    try:
        code = cli.main([str(a) for a in arguments])
    except SystemExit as stop:  # argparse
        code = stop.code
    return (code, *capsys.readouterr())


def test_compile_run_and_inspect(net, folder, tmp_path, capsys):
    assert len(list((folder / "ir").iterdir())) == 7
    out = tmp_path / "out.npz"
    code, text, _ = run(
        capsys, "run", folder / "net.so", "-i", folder / "in.npz", "-o", out, "--repeat", 2
    )
    assert code == 0
    assert "output_0: float32 [1, 2, 10, 9]" in text
    with torch.no_grad():
        want = net(torch.from_numpy(X)).numpy()
    got = np.load(out)["output_0"]
    assert np.abs(got - want).max() <= 1e-5 * np.abs(want).max()  # float32 against float32
    code, text, _ = run(capsys, "run", folder / "net.so", "-i", folder / "in.npz", "--threads", 1)
    assert (code, "1 threads" in text) == (0, True)


def test_one_array_will_do_for_one_input(folder, tmp_path, capsys):
    np.save(tmp_path / "x.npy", X)
    assert run(capsys, "run", folder / "net.so", "-i", tmp_path / "x.npy")[0] == 0


def test_the_plan_as_a_table(folder, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    code, text, _ = run(capsys, "inspect", folder / "net.so")
    assert code == 0
    row = next(line for line in text.splitlines() if " body " in line)
    for word in ("8>8 3x3 10x9", "winograd", "4", "trained as Winograd coefficients"):
        assert word in row
    assert "its filter is 1x1" in text
    assert "input image: float32 [1, 8, 10, 9]" in text
    assert "fewer" in text


def test_the_plan_as_json(folder, capsys):
    _, text, _ = run(capsys, "inspect", folder / "net.so", "--json")
    data = json.loads(text)
    assert [layer["name"] for layer in data["plan"]] == ["body", "head"]
    body = data["plan"][0]
    assert body["conv"]["k"] == 8
    assert body["flops_direct"] > body["flops_done"] > 0
    assert data["features"]


def test_options_of_compile(folder, tmp_path, capsys):
    command = ["compile", folder / "net.pt2", "-o", tmp_path / "net.so", "--target", "llvm"]
    code, text, _ = run(capsys, *command, "--no-winograd-for-dense", "--max-tile", 2)
    assert code == 0
    assert "2 of 2 layers run on our kernels" in text
    assert driver.load(tmp_path / "net.so").target == "llvm"


def test_tune_and_compile_with_the_records(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    records = tmp_path / "records.jsonl"
    options = ["--records", records, "--threads", 1]
    code, text, _ = run(capsys, "tune", folder / "net.pt2", *options, "--budget", 1e-9)
    assert code == 0
    row = next(line for line in text.splitlines() if " body " in line)
    assert "winograd m=4" in row and "1.00x" in row
    assert f"{records}: 2 records added" in text
    command = ["compile", folder / "net.pt2", "-o", tmp_path / "net.so", *options]
    code, text, _ = run(capsys, *command)
    assert (code, f"{records}: holds for 2 of 2 of them" in text) == (0, True)
    plan = driver.load(tmp_path / "net.so").plan
    assert "ms, the fastest of 1 plans" in plan[0].reason
    assert "must be a positive number of seconds" in failed(
        capsys, "tune", folder / "net.pt2", "--records", records, "--budget", 0
    )
    assert "cannot be read" in failed(
        capsys, "compile", folder / "net.pt2", "-o", tmp_path / "n.so", "--records", "nowhere"
    )


def test_ffdnet_by_name(tmp_path, capsys, monkeypatch):
    from tvm_sparsewino.nn import models
    from tvm_sparsewino.nn.weights_io import save_model

    def small(_=None):
        torch.manual_seed(0)
        return models.FFDNet(width=4, depth=3).eval()

    monkeypatch.setattr(models, "load_ffdnet", small)
    command = ["compile", "ffdnet", "--size", "16x12", "-o", tmp_path / "net.so"]
    code, text, _ = run(capsys, *command)
    assert (code, "3 of 3 layers" in text) == (0, True)
    inputs = driver.load(tmp_path / "net.so").inputs
    assert [info.shape for info in inputs] == [(1, 3, 12, 16), (1,)]
    # With weights of a file; the real network's shapes do not fit this one.
    save_model(small(), tmp_path / "small.safetensors")
    code, _, err = run(capsys, *command, "--weights", tmp_path / "small.safetensors")
    assert (code, "small.safetensors" in err) == (4, True)


# ---- exit codes --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("fly",),
        ("compile", "net.pt2"),
        ("compile", "net.pt2", "-o", "x.so", "--max-tile", "3"),
        ("compile", "ffdnet", "-o", "x.so", "--size", "640"),
        ("run", "net.so", "-i", "x.npy", "--repeat", "0"),
        ("train", "lenet", "--out", "x"),
    ],
)
def test_bad_arguments_are_2(arguments, capsys):
    code, _, err = run(capsys, *arguments)
    assert code == 2
    assert err.startswith("usage: sparsewino")


def failed(capsys, *arguments):
    """The message of a command that failed with one line."""
    code, _, err = run(capsys, *arguments)
    assert code == 4
    assert err.startswith("sparsewino: error: ")
    assert err.count("\n") == 1
    return err


def test_errors_are_4_and_one_line(folder, tmp_path, capsys):
    compiled, out = folder / "net.so", tmp_path / "out.so"
    assert "no such file" in failed(capsys, "compile", tmp_path / "no.pt2", "-o", out)
    assert "cannot read '.tflite'" in failed(capsys, "compile", "net.tflite", "-o", out)
    assert "a name without suffix" in failed(capsys, "compile", "net", "-o", out)
    pt2 = folder / "net.pt2"
    assert "'cuda'" in failed(capsys, "compile", pt2, "-o", out, "--target", "cuda")
    assert "must end with .so" in failed(capsys, "compile", pt2, "-o", tmp_path / "net.dll")
    assert "cannot be read" in failed(capsys, "inspect", tmp_path / "no.so")
    assert "not a compiled network" in failed(capsys, "inspect", pt2)
    assert "not a compiled network" in failed(capsys, "run", pt2, "-i", "x.npy")
    assert "no.npz: there is no such file" in failed(capsys, "run", compiled, "-i", "no.npz")
    (tmp_path / "text.npz").write_text("hello")
    assert "text.npz: not an .npy or" in failed(
        capsys, "run", compiled, "-i", tmp_path / "text.npz"
    )
    np.save(tmp_path / "objects.npy", np.array([{}]), allow_pickle=True)
    assert "not an .npy or" in failed(capsys, "run", compiled, "-i", tmp_path / "objects.npy")
    np.savez(tmp_path / "names.npz", picture=X)
    message = failed(capsys, "run", compiled, "-i", tmp_path / "names.npz")
    assert "expected the inputs ['image'], got ['picture']" in message
    np.save(tmp_path / "shape.npy", X[:, :3])
    message = failed(capsys, "run", compiled, "-i", tmp_path / "shape.npy")
    assert "input 'image': expected float32 [1, 8, 10, 9], got float32 [1, 3, 10, 9]" in message
    inputs = ("-i", folder / "in.npz")
    message = failed(capsys, "run", compiled, *inputs, "-o", tmp_path / "no" / "out.npz")
    assert "cannot be written" in message
    message = failed(capsys, "run", compiled, *inputs, "--threads", "-1")
    assert "must be a positive integer" in message
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "names.npz",
        "objects.npy",
        "shape.npy",
        "text.npz",
    ]


def test_v_shows_where(tmp_path, capsys):
    code, _, err = run(capsys, "inspect", tmp_path / "no.so", "-v")
    assert code == 4
    assert "Traceback" in err
    assert "read_description" in err


def test_a_missing_package_is_5_and_named(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    code, _, err = run(capsys, "compile", tmp_path / "net.pt2", "-o", tmp_path / "net.so")
    assert code == 5
    assert "pip install 'tvm-sparsewino[torch]'" in err


def test_the_version(capsys):
    from tvm_sparsewino import __version__

    assert run(capsys, "--version") == (0, f"sparsewino {__version__}\n", "")


def test_every_command_explains_itself(capsys):
    code, text, _ = run(capsys, "--help")
    assert code == 0
    for command in cli.COMMANDS:
        assert command in text
        code, own, _ = run(capsys, command, "--help")
        assert (code, "--verbose" in own) == (0, True)


# ---- training ----------------------------------------------------------------------------------


@pytest.fixture
def recipe(monkeypatch):
    """A stand-in for the training module that notes how it is called."""
    calls = []

    class Config:
        def __init__(self, **options):
            self.options = options

    def train(config, out, resume):
        calls.append((config.options, out.name, resume))
        return out / "weights.safetensors"

    module = types.SimpleNamespace(FFDNetTraining=Config, train_ffdnet=train)
    monkeypatch.setitem(sys.modules, "tvm_sparsewino.nn.ffdnet_training", module)
    return calls


def test_train_passes_on_what_was_given(recipe, tmp_path, capsys):
    new = tmp_path / "new"
    code, text, _ = run(capsys, "train", "ffdnet", "--out", new, "--steps", 7, "--sparsity", 0.5)
    assert (code, text) == (0, f"{new / 'weights.safetensors'}\n")
    assert recipe == [({"sparsity": 0.5, "steps": 7}, "new", False)]


def test_a_run_is_never_overwritten(recipe, tmp_path, capsys):
    (tmp_path / "checkpoint").write_text("")
    assert "is not empty: add --resume" in failed(capsys, "train", "ffdnet", "--out", tmp_path)
    assert run(capsys, "train", "ffdnet", "--out", tmp_path, "--resume")[0] == 0
    assert recipe == [({}, tmp_path.name, True)]


def test_results_need_a_folder(recipe, tmp_path, capsys):
    (tmp_path / "x").write_text("")
    for more in ((), ("--resume",)):
        assert "x is a file" in failed(capsys, "train", "ffdnet", "--out", tmp_path / "x", *more)
    assert recipe == []


def test_a_classifier_is_trained_from_a_file_and_settings(tmp_path, capsys):
    config = tmp_path / "c.json"
    config.write_text('{"network_options": {"widths": [3, 4], "hidden": 8}, "cost": false}')
    rest = ("--set", "dense.epochs=0.2", "--set", "prune.method=dense", "--set", "seed=3")
    out = tmp_path / "out"
    code, text, _ = run(capsys, "train", "--config", config, "--out", out, *rest)
    lines = text.splitlines()
    assert (code, lines[0], lines[-1]) == (0, "seed 3", str(out / "record.json"))
    assert lines[1].startswith("lenet5 digits dense seed 3: accuracy ")
    matrix = tmp_path / "m.json"
    matrix.write_text(f'{{"base": {config.read_text()}, "runs": [{{"prune.method": "dense"}}]}}')
    args = ("train", "--matrix", matrix, "--out", tmp_path / "all", *rest)
    code, text, _ = run(capsys, *args)
    assert (code, text.splitlines()[-1]) == (0, str(tmp_path / "all" / "records.jsonl"))


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (("ffdnet", "--set", "seed=1"), "ffdnet has no --set"),
        (("classifier", "--steps", "3"), "classifier has no --steps"),
        (("--config", "a.json", "--matrix", "b.json"), "give one of them"),
        (("--records", "a.jsonl"), "--records is of a --matrix"),
        (("--data", "nowhere", "--set", "data=mnist"), "nowhere has no train-images"),
        (("--data", "5", "--set", "data=mnist"), "5 has no train-images"),
        (("--data", 'a"b', "--set", "data=mnist"), 'a"b has no train-images'),
    ],
)
def test_training_options_that_do_not_fit(arguments, match, tmp_path, capsys):
    assert match in failed(capsys, "train", *arguments, "--out", tmp_path / "new")
