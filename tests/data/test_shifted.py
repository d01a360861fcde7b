import numpy as np
import pytest
from PIL import Image

from imgrec import data
from imgrec.config import DataConfig
from imgrec.data import shifted, synsets
from imgrec.data.shifted import Part
from imgrec.errors import UserError

RNG = np.random.default_rng(0)


def write_cifar_c(folder, kinds=("fog", "snow", "spatter"), n=4, classes=10):
    folder.mkdir(parents=True)
    labels = np.tile(RNG.integers(0, classes, n), 5).astype(np.uint8)
    np.save(folder / "labels.npy", labels)
    images = {}
    for kind in kinds:
        images[kind] = RNG.integers(0, 256, (5 * n, 32, 32, 3), dtype=np.uint8)
        np.save(folder / f"{kind}.npy", images[kind])
    return images, labels


@pytest.mark.parametrize(
    ("name", "folder", "classes"),
    [("cifar10_c", "CIFAR-10-C", 10), ("cifar100_c", "CIFAR-100-C", 100)],
)
def test_a_corrupted_cifar_is_blocks_of_one_severity(tmp_path, name, folder, classes):
    images, labels = write_cifar_c(tmp_path / folder, classes=classes)
    found = shifted.load(name, tmp_path)
    assert set(found.parts) == {
        Part(kind, severity) for kind in ("fog", "snow", "spatter") for severity in range(1, 6)
    }
    for (kind, severity), source in found.parts.items():
        rows = slice(4 * (severity - 1), 4 * severity)
        np.testing.assert_array_equal(source.gather(np.arange(4))["image"], images[kind][rows])
        np.testing.assert_array_equal(source.labels(), labels[rows])
    assert (found.base, found.profile) == (name.removesuffix("_c"), "cifar_c")
    assert len(found.class_names) == classes
    np.testing.assert_array_equal(found.classes, np.unique(labels))
    assert "gaussian_noise" in found.notes[0]
    assert "fog" not in found.notes[0]
    assert "4 images a severity; the published set has 10,000" in found.notes[1]
    # The files are mapped, not read.
    base = found.parts[Part("fog", 1)].images
    while base.base is not None and not isinstance(base, np.memmap):
        base = base.base
    assert isinstance(base, np.memmap)


def test_the_folder_of_a_set_may_be_the_root_itself(tmp_path):
    write_cifar_c(tmp_path / "CIFAR-10-C")
    assert len(shifted.load("cifar10_c", tmp_path / "CIFAR-10-C").parts) == 15


def test_the_kinds_are_those_of_the_corruptions():
    from imgrec import corruptions

    assert shifted.CORRUPTIONS == corruptions.PUBLISHED
    assert shifted.FOR_VALIDATION == corruptions.EXTRA
    assert corruptions.names("mnist_c") == shifted.MNIST_CORRUPTIONS


def write_mnist_c(root, kinds=("identity", "fog", "zigzag"), n=6):
    images, labels = {}, np.arange(n) % 10
    for kind in kinds:
        folder = root / "mnist_c" / kind
        folder.mkdir(parents=True)
        images[kind] = RNG.integers(0, 256, (n, 28, 28, 1), dtype=np.uint8)
        np.save(folder / "test_images.npy", images[kind])
        np.save(folder / "test_labels.npy", labels)
    return images


def test_mnist_c_has_its_clean_images_beside_it(tmp_path):
    images = write_mnist_c(tmp_path, kinds=("identity", "shot_noise", "zigzag"))
    found = shifted.load("mnist_c", tmp_path)
    assert set(found.parts) == {Part("shot_noise", 1), Part("zigzag", 1)}
    np.testing.assert_array_equal(found.parts[Part("zigzag", 1)][2]["image"], images["zigzag"][2])
    np.testing.assert_array_equal(found.clean[3]["image"], images["identity"][3])
    assert (found.base, found.profile, found.image_shape) == ("mnist", "mnist_c", (28, 28, 1))


@pytest.mark.parametrize(
    ("name", "version", "inside"),
    [("cifar10_1", "v6", "CIFAR-10.1/datasets"), ("cifar10_1_v4", "v4", ".")],
)
def test_cifar_10_1(tmp_path, name, version, inside):
    folder = tmp_path / inside
    folder.mkdir(parents=True, exist_ok=True)
    images = RNG.integers(0, 256, (7, 32, 32, 3), dtype=np.uint8)
    np.save(folder / f"cifar10.1_{version}_data.npy", images)
    np.save(folder / f"cifar10.1_{version}_labels.npy", np.arange(7, dtype=np.int32))
    found = shifted.load(name, tmp_path)
    (part,) = found.parts.values()
    np.testing.assert_array_equal(part.images, images)
    np.testing.assert_array_equal(found.classes, np.arange(7))
    assert (found.base, found.profile) == ("cifar10", "")


def write_photographs(folder, classes, each=2):
    """A folder a class; the colour of an image is its class's place in the list."""
    for place, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for i in range(each):
            image = Image.new("RGB", (20 + place, 16), (10 * place, 0, i))
            image.save(folder / name / f"{i}.jpeg", quality=95)


def test_the_numbers_of_imagenet_v2_are_not_sorted_as_text(tmp_path):
    folder = tmp_path / "imagenetv2-matched-frequency-format-val"
    numbers = ["0", "1", "2", "10", "11", "100"]
    write_photographs(folder, numbers)
    config = DataConfig(root=str(tmp_path), image_size=8)
    found = data.load_shifted("imagenet_v2", config)
    (source,) = found.parts.values()
    batch = source.gather(np.arange(len(source)))
    red = np.round(batch["image"][..., 0].mean(axis=(1, 2)) / 10).astype(int)
    np.testing.assert_array_equal(batch["label"], np.array([int(n) for n in numbers])[red])
    np.testing.assert_array_equal(found.classes, [0, 1, 2, 10, 11, 100])
    assert found.image_shape == (8, 8, 3)
    assert "6 classes; the published set has 1,000" in found.notes[0]


@pytest.mark.parametrize(
    ("name", "folder"),
    [("imagenet_a", "imagenet-a"), ("imagenet_r", "imagenet-r"), ("imagenet_sketch", "sketch")],
)
def test_wordnet_ids_are_labels_of_imagenet(tmp_path, name, folder):
    wnids = synsets.wnids()
    chosen = [wnids[3], wnids[999], wnids[42]]
    write_photographs(tmp_path / folder, chosen)
    (tmp_path / folder / "README.txt").write_text("no class")
    (tmp_path / folder / "n99999999").mkdir()
    found = shifted.load(name, tmp_path)
    (source,) = found.parts.values()
    assert sorted(source.labels().tolist()) == [3, 3, 42, 42, 999, 999]
    for row in range(6):
        assert source.where(row).split("/")[-2] == wnids[source.labels()[row]]
    np.testing.assert_array_equal(found.classes, [3, 42, 999])
    assert found.class_names == synsets.class_names()
    assert "n99999999" in found.notes[0]


def test_images_are_seen_as_the_models_own(tmp_path):
    write_cifar_c(tmp_path / "CIFAR-10-C")
    plain = data.load_shifted("cifar10_c", DataConfig(root=str(tmp_path)))
    assert isinstance(plain.parts[Part("fog", 1)], data.ArraySource)
    large = data.load_shifted("cifar10_c", DataConfig(root=str(tmp_path), image_size=48))
    assert large.image_shape == (48, 48, 3)
    assert large.parts[Part("fog", 2)].gather(np.arange(2))["image"].shape == (2, 48, 48, 3)
    with pytest.raises(UserError, match="have 3 channels and are not turned into 1"):
        data.load_shifted("cifar10_c", DataConfig(root=str(tmp_path), channels=1))
    write_photographs(tmp_path / "imagenet-a", synsets.wnids()[:2])
    with pytest.raises(UserError, match="'imagenet_a' differ in size"):
        data.load_shifted("imagenet_a", DataConfig(root=str(tmp_path)))


@pytest.mark.parametrize("name", shifted.names())
def test_what_is_missing_and_where_it_belongs_is_said(tmp_path, name):
    (tmp_path / "something_else").mkdir()
    with pytest.raises(UserError, match=rf"files of '{name}' are not in .*IMGREC_DATA"):
        shifted.load(name, tmp_path)
    with pytest.raises(UserError, match=rf"files of '{name}' are not in"):
        shifted.load(name, tmp_path / "nowhere")


def test_an_unknown_set_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"Unknown shifted set 'cifar_c'.*'cifar10_c'"):
        shifted.load("cifar_c", tmp_path)


def rewrite(name, value):
    return lambda folder: np.save(folder / name, value)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (rewrite("labels.npy", np.zeros(18, np.int64)), r"expected uint8\[18, 32, 32, 3\]"),
        (rewrite("labels.npy", np.full(20, 10)), "labels from 10 to 10, expected 0 to 9"),
        (rewrite("labels.npy", np.zeros(20)), "float64.*expected whole numbers"),
        (rewrite("labels.npy", np.zeros(0, int)), "expected whole numbers on one axis"),
        (rewrite("fog.npy", np.zeros((20, 32, 32, 3))), r"float64\[20, 32, 32, 3\]"),
        (lambda folder: (folder / "fog.npy").write_bytes(b"x"), "no .npy file"),
        (lambda folder: (folder / "fog.npy").write_bytes(b""), "no .npy file"),
        (lambda folder: [p.unlink() for p in folder.glob("[fs]*.npy")], "no corrupted images"),
    ],
)
def test_damaged_files_are_named(tmp_path, damage, message):
    write_cifar_c(tmp_path / "CIFAR-10-C")
    damage(tmp_path / "CIFAR-10-C")
    with pytest.raises(UserError, match=message):
        shifted.load("cifar10_c", tmp_path)


def test_blocks_must_be_equal(tmp_path):
    folder = tmp_path / "CIFAR-10-C"
    folder.mkdir()
    np.save(folder / "labels.npy", np.zeros(7, np.int64))
    np.save(folder / "fog.npy", np.zeros((7, 32, 32, 3), np.uint8))
    with pytest.raises(UserError, match="7 images are not 5 equal blocks"):
        shifted.load("cifar10_c", tmp_path)
