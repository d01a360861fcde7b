"""Folders, manifests, splits and the record of them, from the path to the data set."""

import csv
import io
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imgrec import data
from imgrec.config import DataConfig
from imgrec.data import folder, index, manifest
from imgrec.data.dataset import Encoded, channel_statistics
from imgrec.data.view import DecodedSource, View
from imgrec.errors import UserError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("IMGREC_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def root(tmp_path):
    return tmp_path / "images"


def write(path, seed, size=(6, 5)):
    """A small image of its own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def fill(root, counts, start=0):
    """counts {"cat": 3} writes cat/0.png to cat/2.png."""
    seed = start
    for name, n in counts.items():
        for i in range(n):
            write(root / name / f"{i}.png", seed)
            seed += 1
    return root


def load(root, **fields):
    return folder.load(str(root), DataConfig(dataset=f"folder:{root}", threads=2, **fields))


def record(official):
    """path -> (label, split)"""
    lines = csv.DictReader(io.StringIO(official.info.record["splits.csv"]))
    return {line["path"]: (line["label"], line["split"]) for line in lines}


def splits(official):
    return {path: split for path, (_, split) in record(official).items()}


def refused(match, root, **fields):
    with pytest.raises(UserError, match=match):
        load(root, **fields)


TWO = {"cat": 60, "dog": 60}


def test_a_folder_of_classes(root):
    official = load(fill(root, TWO))
    info = official.info
    assert (info.class_names, info.num_classes) == (("cat", "dog"), 2)
    assert info.image_shape == (6, 5, 3) and info.name == f"folder:{root}"
    assert "120 image files" in info.source
    assert "10% test and 10% validation by content with seed 0" in info.source
    assert json.loads(info.record["classes.json"]) == {"cat": 0, "dog": 1}

    parts = {"train": official.train, "validation": official.validation, "test": official.test}
    seen = {}
    for name, part in parts.items():
        assert isinstance(part, Encoded)
        for row in range(len(part)):
            path = part.where(row)
            assert part.encoded(row) == Path(path).read_bytes()
            seen[path.removeprefix(f"{root}/")] = (info.class_names[part.labels()[row]], name)
        assert part.columns() == {}
    assert seen == record(official) and len(seen) == 120


def test_through_the_front_door_and_a_pickle(root):
    fill(root, TWO)
    write(root / "cat" / "large.png", 1000, (20, 30))
    config = DataConfig(dataset=f"folder:{root}", image_size=8, crop="inception", channels=1)
    dataset = data.load(config)
    assert dataset.info.image_shape == (8, 8, 1) and len(dataset.info.mean) == 1
    words = np.arange(4, dtype=np.uint64)
    batch = dataset.train.gather(np.arange(4), words)
    copy = pickle.loads(pickle.dumps(dataset.train))  # as worker processes get it
    assert (copy.gather(np.arange(4), words)["image"] == batch["image"]).all()
    assert (
        dataset.train.gather(np.arange(4), words + np.uint64(9))["image"] != batch["image"]
    ).any()
    with pytest.raises(UserError, match="differ in size"):
        data.load(DataConfig(dataset=f"folder:{root}"))


def test_nothing_depends_on_threads_or_memory(root):
    fill(root, TWO)
    infos = [load(root).info, load(root).info]
    infos.append(folder.load(str(root), DataConfig(dataset=f"folder:{root}", threads=1)).info)
    assert infos[0] == infos[1] == infos[2]


def test_the_second_start_decodes_nothing(root, monkeypatch):
    first = load(fill(root, TWO)).info
    monkeypatch.setattr(index, "_read", None)
    monkeypatch.setattr(folder, "channel_statistics", None)
    assert load(root).info == first


def test_mean_and_std_are_of_the_training_images(root):
    official = load(fill(root, TWO))
    source = DecodedSource(official.train, View(size=0, channels=3))
    assert (official.info.mean, official.info.std) == channel_statistics(source, len(source))
    images = np.stack([source[row]["image"] for row in range(len(source))]) / 255
    assert official.info.mean == pytest.approx(images.mean((0, 1, 2)))
    assert official.info.std == pytest.approx(images.std((0, 1, 2)))


def test_names_of_folders_and_files(root):
    fill(root, {"b": 40, "B": 40, "a b": 40})
    write(root / "b" / "deep" / "er" / "X.JPG", 900)
    write(root / ".hidden" / "0.png", 901)
    write(root / "b" / ".0.png", 902)
    write(root / "loose.png", 903)
    (root / "b" / "notes.txt").write_text("")
    (root / "b" / "clip.mp4").write_text("")
    info = (official := load(root)).info
    assert info.class_names == ("B", "a b", "b")
    assert record(official)["b/deep/er/X.JPG"][0] == "b" and len(record(official)) == 121
    assert "2 files of another kind ignored" in info.source
    assert "1 hidden file ignored" in info.source
    assert "1 image file without a class ignored" in info.source


def test_links_are_followed_but_not_in_circles(root, tmp_path):
    fill(tmp_path / "elsewhere", {"cats": 60})
    fill(root, {"dog": 60})
    (root / "cat").symlink_to(tmp_path / "elsewhere" / "cats")
    (root / "dog" / "again").symlink_to(root / "dog")
    write(tmp_path / "file.png", 999)
    (root / "dog" / "file.png").symlink_to(tmp_path / "file.png")
    official = load(root)
    assert len(record(official)) == 121
    assert record(official)["dog/file.png"][0] == "dog"


def test_numbers_are_sorted_as_numbers(root):
    assert load(fill(root, {"10": 40, "9": 40, "-1": 40})).info.class_names == ("-1", "9", "10")
    fill(root, {"x": 40}, start=500)
    assert load(root).info.class_names == ("-1", "10", "9", "x")


def test_adding_and_removing_files_moves_no_other(root):
    before = splits(load(fill(root, TWO)))
    fill(root, {"dog/more": 30, "emu": 60}, start=700)
    (root / "cat" / "7.png").unlink()
    (root / "cat" / "8.png").rename(root / "cat" / "renamed.png")
    after = splits(load(root))
    assert len(after) == 209 and after["cat/renamed.png"] == before["cat/8.png"]
    assert all(after[path] == split for path, split in before.items() if path in after)


def test_copies_of_an_image_stay_together(root):
    fill(root, TWO)
    for i in range(60):
        content = (root / "cat" / f"{i}.png").read_bytes()
        (root / "cat" / f"copy of {i}.png").write_bytes(content)
    (root / "dog" / "a cat.png").write_bytes(content)
    official = load(root)
    for i in range(60):
        assert splits(official)[f"cat/{i}.png"] == splits(official)[f"cat/copy of {i}.png"]
    assert (
        "61 repeat the bytes of others; 1 images lie under several labels" in official.info.source
    )


@pytest.mark.parametrize("validation", ["validation", "val", "Valid"])
def test_splits_by_folder_are_used_as_they_are(root, validation):
    for i, name in enumerate(("train", validation, "test")):
        fill(root / name, {"cat": 3 + i, "dog": 2}, start=100 * i)
    official = load(root)
    sizes = [len(part) for part in (official.train, official.validation, official.test)]
    assert sizes == [5, 6, 7] and "splits as given" in official.info.source
    assert splits(official)[f"{validation}/cat/1.png"] == "validation"
    assert load(root, split_seed=9).info.record == official.info.record
    assert load(root, validation="0", test="0").info.record == official.info.record


@pytest.mark.parametrize("given", ["validation", "test"])
def test_the_split_that_is_missing_is_cut_from_train(root, given):
    fill(root / "train", TWO)
    fill(root / given, {"cat": 4, "dog": 4}, start=500)
    official = load(root, test="20%", validation="20%")
    missing = {"validation": "test", "test": "validation"}[given]
    parts = splits(official)
    assert all((split == given) == path.startswith(given) for path, split in parts.items())
    assert 5 < sum(split == missing for split in parts.values()) < 50
    assert f"the rest as given, 20% {missing} by content" in official.info.source


def test_without_validation(root):
    assert load(fill(root, TWO), validation="0").validation is None


def test_an_image_in_two_given_splits_is_told_of(root):
    for i, name in enumerate(("train", "validation", "test")):
        fill(root / name, {"cat": 3, "dog": 3}, start=100 * i)
    (root / "test" / "cat" / "x.png").write_bytes((root / "train" / "cat" / "0.png").read_bytes())
    assert "1 images lie in several splits" in load(root).info.source


def test_train_may_be_a_class(root):
    fill(root, {"train": 60, "bus": 60})
    assert load(root).info.class_names == ("bus", "train")


def test_folders_that_can_be_read_in_two_ways_are_refused(root):
    fill(root, {"train/cat": 3, "train/dog": 3, "birds": 3})
    refused("train/ with folders in it.*birds/, which is no split", root)


def test_two_folders_of_one_split_are_refused(root):
    fill(root, {"train/cat": 3, "val/cat": 3, "validation/cat": 3})
    refused("val/ and validation/, which are both the validation split", root)


def test_what_is_not_there(root, tmp_path):
    refused("is not there.*folder:PATH", root)
    root.mkdir()
    refused("no image in a folder of its class; found: nothing", root)
    write(root / "1.png", 0)
    refused("found: 1 image file without a class.*one folder a class", root)
    refused("a file, and no manifest by its name; a manifest ends in .csv", root / "1.png")


def test_one_class_only(root):
    refused("images of one class only, 'cat'", fill(root, {"cat": 9}))


def test_a_class_folder_without_images(root):
    fill(root, TWO)
    (root / "emu").mkdir()
    refused("The class folder .*emu holds no image", root)


def test_a_class_without_images_in_a_split_and_the_seed_that_mends_it(root):
    fill(root, {"cat": 60, "dog": 4})
    with pytest.raises(UserError, match="needs images of every class") as refusal:
        load(root)
    text = str(refusal.value)
    assert "test has none of 'dog'" in text or "validation has none of 'dog'" in text
    seed = int(text.partition("--config.data.split_seed=")[2].split()[0])
    parts = splits(load(root, split_seed=seed))
    assert {parts[f"dog/{i}.png"] for i in range(4)} == {"train", "validation", "test"}


def test_fewer_images_than_splits(root):
    fill(root, {"cat": 60, "dog": 2})
    refused("'dog' has fewer than 3 images, one a split: add images", root)


def test_a_class_missing_in_a_given_split(root):
    for i, name in enumerate(("train", "validation", "test")):
        fill(root / name, {"cat": 3, "dog": 3}, start=100 * i)
    fill(root / "test", {"emu": 1}, start=900)
    refused("train has none of 'emu'.*\n.*validation has none of 'emu'\n.*as they are", root)


@pytest.mark.parametrize("field", ["test", "validation"])
def test_counts_are_refused(root, field):
    refused("not a share such as '10%'", fill(root, TWO), **{field: "20"})


def test_impossible_channels(root):
    refused("channels=2: image files become 1", fill(root, TWO), channels=2)


def spoil(root):
    whole = (root / "cat" / "0.png").read_bytes()
    (root / "cat" / "cut.png").write_bytes(whole[:50])
    (root / "dog" / "empty.jpg").write_bytes(b"")
    (root / "dog" / "text.gif").write_text("no image")


def test_bad_images_are_listed(root):
    spoil(fill(root, TWO))
    refused(
        "3 image files cannot be read:\n  cat/cut.png: .*\n  dog/empty.jpg: the file is empty\n"
        "  dog/text.gif: no image format.*\n.*--config.data.on_bad_image=skip",
        root,
    )


def test_bad_images_are_skipped_and_counted(root):
    before = splits(load(fill(root, TWO)))
    spoil(root)
    official = load(root, on_bad_image="skip")
    after = splits(official)
    assert (
        "120 image files" in official.info.source and "3 unreadable skipped" in official.info.source
    )
    assert {path for path, split in after.items() if split == "skipped"} == after.keys() - before
    assert {path: after[path] for path in before} == before
    assert sum(map(len, (official.train, official.validation, official.test))) == 120


def test_nothing_but_bad_images(root):
    for name in ("cat", "dog"):
        (root / name).mkdir(parents=True)
        (root / name / "0.png").write_bytes(b"")
    refused("2 image files cannot be read", root, on_bad_image="skip")


@pytest.mark.parametrize("what", ["gone", "cut"])
def test_a_file_that_breaks_later_is_named(root, what):
    dataset = data.load(DataConfig(dataset=f"folder:{fill(root, TWO)}"))
    path = root / "cat" / "0.png"
    names = [dataset.train.source.encoded.where(row) for row in range(len(dataset.train))]
    row = names.index(str(path))
    content = path.read_bytes()
    path.unlink()
    if what == "cut":
        path.write_bytes(content[:60])
    with pytest.raises(UserError, match=r"cat/0\.png c.*start"):
        dataset.train.gather(np.array([row]))


# Manifests.


def write_manifest(root, rows, kind=".csv"):
    path = root / f"manifest{kind}"
    columns = list(dict.fromkeys(name for row in rows for name in row))
    if kind == ".csv":
        with path.open("w", newline="") as file:
            table = csv.DictWriter(file, columns)
            table.writeheader()
            table.writerows(rows)
    elif kind == ".jsonl":
        path.write_text("\n".join(json.dumps(row) for row in rows) + "\n\n")
    else:
        parquet = pytest.importorskip("pyarrow.parquet")
        import pyarrow

        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


@pytest.fixture
def rows(root):
    """60 rows: labels 0 to 2, persons p0 to p19 of three images each."""
    fill(root, {"all": 60})
    return [
        {"path": f"all/{i}.png", "label": i % 3, "person": f"p{i // 3}", "age": i // 9}
        for i in range(60)
    ]


@pytest.mark.parametrize("kind", manifest.SUFFIXES)
def test_a_manifest_of_each_kind(root, rows, kind):
    official = load(write_manifest(root, rows, kind), test="20%", validation="20%", split_seed=1)
    assert official.info.class_names == ("0", "1", "2")
    by_path = {row["path"]: row for row in rows}
    for part in (official.train, official.validation, official.test):
        assert part.columns().keys() == {"person", "age"}
        for i in range(len(part)):
            row = by_path[part.where(i).removeprefix(f"{root}/")]
            assert part.labels()[i] == row["label"]
            assert part.columns()["person"][i] == row["person"]
            assert part.columns()["age"][i] == str(row["age"])
    assert record(official).keys() == by_path.keys()


def test_columns_arrive_with_the_split(root, rows):
    path = write_manifest(root, rows)
    config = DataConfig(dataset=f"folder:{path}", group="person", test="20%", validation="20%")
    dataset = data.load(config)
    parts = [set(s.columns()["person"]) for s in (dataset.train, dataset.validation, dataset.test)]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 20  # groups never part


@pytest.mark.parametrize("seed", range(4))
def test_groups_stay_when_images_are_added(root, rows, seed):
    few = [row for row in rows if row["age"] != 3]
    fields = {"group": "person", "test": "20%", "validation": "0", "split_seed": seed}
    before, after = (splits(load(write_manifest(root, part), **fields)) for part in (few, rows))
    assert all(after[path] == split for path, split in before.items())
    people = {row["path"]: row["person"] for row in rows}
    assert len({(people[path], split) for path, split in after.items()}) == 20


def test_rows_without_a_group_go_by_their_content(root, rows):
    for row in rows:
        row["person"] = ""
    path = write_manifest(root, rows)
    fields = {"test": "20%", "validation": "20%"}
    assert splits(load(path, group="person", **fields)) == splits(load(path, **fields))


def test_one_image_in_two_groups_is_refused_where_they_part(root, rows):
    (root / "all" / "59.png").write_bytes((root / "all" / "0.png").read_bytes())
    path = write_manifest(root, rows)
    outcomes = set()
    for seed in range(8):
        try:
            load(path, group="person", test="40%", validation="0", split_seed=seed)
            outcomes.add("kept")
        except UserError as error:
            assert "all/0.png and all/59.png are the same image" in str(error)
            outcomes.add("refused")
    assert outcomes == {"kept", "refused"}


def test_splits_in_a_manifest(root, rows):
    for i, row in enumerate(rows):
        row["split"] = ("Train", "val", "test", "train")[i // 15]
    official = load(write_manifest(root, rows))
    assert splits(official)["all/16.png"] == "validation" and len(official.train) == 30
    refused(
        "column 'age' has the value '1' both in train .all/9.png. and in validation .all/15.png.",
        write_manifest(root, rows),
        group="age",
    )
    rows[3]["split"] = "trian"
    refused("split in row 4 of .* 'trian'. Did you mean 'train'", write_manifest(root, rows))
    rows[3]["split"] = ""
    refused("Row 4 of .* has no split, and others have one", write_manifest(root, rows))


def test_groups_need_their_column(root, rows):
    path = write_manifest(root, rows)
    refused("Unknown group column of .* 'persn'. Did you mean 'person'", path, group="persn")
    refused("group='x' needs a column", fill(root / "f", TWO), group="x")


def test_rows_that_are_wrong(root, rows):
    def with_row(**changed):
        return write_manifest(root, [*rows, {**rows[0], **changed}])

    refused("names 1 file more than once:\n  all/0.png", with_row())
    refused(
        "1 of 61 files .* not there:\n  all/x.png\nPaths are relative to",
        with_row(path="all/x.png"),
    )
    refused("Row 61 of .* has no 'label'", with_row(path="all/y.png", label=""))
    refused("Row 61 of .* has no 'path'", with_row(path=" "))
    refused("has no rows", write_manifest(root, [{"path": ""}][:0]))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.csv", "file,label\na.png,cat\n", "Row 1 of .* has no 'path'.*found: file, label"),
        ("x.csv", "path,label\na,b.png,cat\n", "line 2 has not the 2 fields"),
        ("x.csv", "path,label\na.png\n", "line 2 has not the 2 fields"),
        ("x.csv", b"path,label\n\xff,cat\n", "cannot be read"),
        ("x.csv", "", "has no rows"),
        ("x.jsonl", '{"path": "a.png", "label": 1}\n{', "line 2 is no JSON"),
        ("x.jsonl", "[1]", "line 1 is no JSON object"),
        ("x.parquet", "hello", "cannot be read"),
    ],
)
def test_manifests_that_cannot_be_read(tmp_path, name, content, message):
    content = content.encode() if isinstance(content, str) else content
    (tmp_path / name).write_bytes(content)
    refused(message, tmp_path / name)


def test_parquet_without_pyarrow(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    (tmp_path / "x.parquet").write_bytes(b"")
    refused("needs pyarrow: pip install pyarrow. Or save the table as .csv", tmp_path / "x.parquet")


def test_a_manifest_needs_no_folder_of_its_own(root, rows, tmp_path):
    for row in rows:
        row["path"] = str(root / row["path"])
    path = write_manifest(tmp_path, rows)
    assert set(record(load(path, validation="20%", test="20%", split_seed=1))) == {
        row["path"] for row in rows
    }
