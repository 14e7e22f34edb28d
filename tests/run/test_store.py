"""The run directory and its chunks: complete, or not there."""

import json

import numpy as np
import pytest

from scoreplug.run.store import ChunkStore, RunFolder, write_atomic

SAMPLES = np.arange(6.0).reshape(2, 1, 1, 3)


def test_a_chunk_comes_back_as_it_was(tmp_path):
    store = ChunkStore(tmp_path)
    store.save("key", SAMPLES, {"seconds": 1.5})

    samples, facts = store.load("key")

    np.testing.assert_array_equal(samples, SAMPLES, strict=True)
    assert facts == {"seconds": 1.5}


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "key.npy").unlink(),
        lambda folder: (folder / "key.json").unlink(),
        lambda folder: (folder / "key.npy").write_bytes((folder / "key.npy").read_bytes()[:-1]),
        lambda folder: (folder / "key.npy").write_bytes((folder / "key.npy").read_bytes()[:-1] + b"\x01"),
        lambda folder: (folder / "key.json").write_text("{"),
        lambda folder: (folder / "key.json").write_text("[]"),
        lambda folder: (folder / "key.json").write_text("{}"),
    ],
    ids=["no samples", "no facts", "cut", "changed", "half a record", "no record", "no checksum"],
)
def test_a_damaged_chunk_counts_as_missing(tmp_path, damage):
    store = ChunkStore(tmp_path)
    store.save("key", SAMPLES, {})
    damage(tmp_path)

    assert store.load("key") is None


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "file"
    write_atomic(path, b"old")

    with pytest.raises(TypeError):
        write_atomic(path, "not bytes")

    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_complete_run_has_its_name_and_no_chunks(tmp_path):
    folder = RunFolder(tmp_path / "a" / "run")
    folder.open()
    write_atomic(folder.partial / "file", b"")
    ChunkStore(folder.chunks).save("key", SAMPLES, {})

    folder.complete()

    assert [path.name for path in (tmp_path / "a").iterdir()] == ["run"]
    assert [path.name for path in folder.path.iterdir()] == ["file"]


def test_an_empty_folder_may_be_there_already(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    folder.open()
    folder.complete()

    assert folder.path.is_dir()


def test_leaving_keeps_finished_chunks_and_says_where(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.open()
    ChunkStore(folder.chunks).save("key", SAMPLES, {})

    sentence = folder.leave()

    assert str(folder.chunks) in sentence
    assert "(1)" in sentence
    assert ChunkStore(folder.chunks).load("key") is not None
    assert not folder.path.exists()


def test_leaving_without_finished_chunks_leaves_nothing(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.open()

    assert folder.leave() == "Nothing was finished, so nothing is kept"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("make", "name", "error", "message"),
    [
        (lambda root: (root / "run").write_text(""), "run", FileExistsError, "run' is a file; choose another --out"),
        (lambda root: (root / "f").write_text(""), "f/run", NotADirectoryError, "cannot make .*f' is a file"),
        (lambda root: (root / "run" / "x").mkdir(parents=True), "run", FileExistsError, "is not empty"),
    ],
    ids=["a file", "below a file", "not empty"],
)
def test_a_folder_that_cannot_be_used_is_refused_before_anything_is_written(tmp_path, make, name, error, message):
    make(tmp_path)
    before = sorted(tmp_path.rglob("*"))

    for attempt in (RunFolder(tmp_path / name).check, RunFolder(tmp_path / name).open):
        with pytest.raises(error, match=message):
            attempt()

    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_that_the_system_refuses_is_named():
    with pytest.raises(OSError, match="cannot make the output folder '/proc/run'"):  # not even the superuser may
        RunFolder("/proc/run").open()


def test_facts_are_plain_json(tmp_path):
    ChunkStore(tmp_path).save("key", SAMPLES, {"cost": {"evaluations": 3}})

    assert json.loads((tmp_path / "key.json").read_text())["cost"] == {"evaluations": 3}
