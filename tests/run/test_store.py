"""The run directory and its chunks: complete, or not there."""

import errno
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from scoreplug.run.store import SUMS, ChunkStore, DamageWarning, RunFolder, damaged, write_atomic, write_sums

SAMPLES = np.arange(6.0).reshape(2, 1, 1, 3)


def test_a_chunk_comes_back_as_it_was(tmp_path):
    store = ChunkStore(tmp_path)
    store.save("key", SAMPLES, {"seconds": 1.5})

    found = store.load("key")

    np.testing.assert_array_equal(found.samples, SAMPLES, strict=True)
    assert (found.facts, found.frames) == ({"seconds": 1.5}, None)


def test_a_chunk_comes_back_with_what_was_seen_on_the_way(tmp_path):
    store = ChunkStore(tmp_path)
    store.save("key", SAMPLES, {}, {"frames": SAMPLES})

    np.testing.assert_array_equal(store.load("key").frames["frames"], SAMPLES, strict=True)


@pytest.mark.parametrize("left", [(), ("npz",), ("npz", "npy")])
def test_a_chunk_whose_record_is_not_there_yet_is_missing_without_a_word(tmp_path, left):
    """The record is written last: this is what a kill between the files leaves."""
    store = ChunkStore(tmp_path)
    store.save("key", SAMPLES, {}, {"frames": SAMPLES})
    for ending in {"npz", "npy", "json"} - set(left):
        (tmp_path / f"key.{ending}").unlink()

    assert store.load("key") is None


def flip(path, place):
    """Turn one bit of a file over."""
    content = bytearray(path.read_bytes())
    content[int(place * (len(content) - 1))] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("key.npy", lambda path: path.unlink()),
        ("key.npy", lambda path: path.write_bytes(path.read_bytes()[:-1])),
        ("key.npz", lambda path: path.unlink()),
        ("key.json", lambda path: path.write_text("{")),
        ("key.json", lambda path: path.write_text("[]")),
        ("key.json", lambda path: path.write_text("{}")),
        ("key.json", lambda path: path.write_text(path.read_text().replace("1.5", "2.5"))),
    ],
    ids=["no samples", "cut", "no frames", "half a record", "no record", "no checksum", "other facts"],
)
def test_a_damaged_chunk_is_named_and_counts_as_missing(tmp_path, name, damage):
    store = ChunkStore(tmp_path)
    store.save("key", SAMPLES, {"seconds": 1.5}, {"frames": SAMPLES})
    damage(tmp_path / name)

    with pytest.warns(DamageWarning, match=rf"{name}' is damaged .*computed again"):
        assert store.load("key") is None


@pytest.mark.parametrize("place", [0.0, 0.3, 0.5, 0.7, 1.0])
@pytest.mark.parametrize("name", ["key.npy", "key.npz", "key.json"])
def test_a_flipped_bit_is_found_wherever_it_is(tmp_path, name, place):
    store = ChunkStore(tmp_path)
    store.save("key", SAMPLES, {"seconds": 1.5}, {"frames": SAMPLES})
    flip(tmp_path / name, place)

    with pytest.warns(DamageWarning, match=f"{name}' is damaged"):
        assert store.load("key") is None


@pytest.mark.parametrize("place", [0.0, 0.5, 0.6, 0.99, 1.0])
@pytest.mark.parametrize("name", ["config.toml", "arrays.npz", SUMS])
def test_a_flipped_bit_in_a_run_directory_is_found(tmp_path, name, place):
    contents = {"config.toml": b"samples = 4\n", "arrays.npz": bytes(range(256))}
    for file, content in contents.items():
        write_atomic(tmp_path / file, content)
    write_sums(tmp_path, contents)
    assert damaged(tmp_path) == {}
    flip(tmp_path / name, place)

    # a flipped checksum accuses its file, a flipped name a file that is not there
    found = damaged(tmp_path)
    assert found if name == SUMS else list(found) == [name]


def test_the_checksums_are_those_of_sha256sum(tmp_path):
    write_atomic(tmp_path / "file", b"abc")
    write_sums(tmp_path, {"file": b"abc"})

    # FIPS 180-2, the example of one block
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad  file\n"
    assert (tmp_path / SUMS).read_text() == expected


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

    assert json.loads((tmp_path / "key.json").read_text())["facts"]["cost"] == {"evaluations": 3}


def test_a_full_disk_leaves_the_old_file_and_is_told_with_the_name(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / "file"
    write_atomic(path, b"old")
    monkeypatch.setattr(os, "fsync", full)

    with pytest.raises(OSError, match=r"No space left on device: '.*file'"):
        write_atomic(path, b"new")

    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_second_run_into_the_same_folder_is_refused_until_the_first_ends(tmp_path):
    first, second = RunFolder(tmp_path / "run"), RunFolder(tmp_path / "run")
    first.open()
    ChunkStore(first.chunks).save("key", SAMPLES, {})

    with pytest.raises(BlockingIOError, match=rf"is under way in .*process {os.getpid()} on .*choose another --out"):
        second.open()
    first.leave()
    second.open()

    assert ChunkStore(second.chunks).load("key") is not None
    second.leave()


def test_a_folder_that_was_completed_meanwhile_is_refused(tmp_path, monkeypatch):
    """Between its look at the folder and the lock, another run gets there."""
    second = RunFolder(tmp_path / "run")
    look, done = RunFolder.check, []

    def check_and_complete(self):
        look(self)
        if not done:
            done.append(True)
            first = RunFolder(tmp_path / "run")
            first.open()
            write_atomic(first.partial / "config.toml", b"")
            first.complete()

    monkeypatch.setattr(RunFolder, "check", check_and_complete)
    with pytest.raises(FileExistsError, match="is not empty"):
        second.open()

    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["config.toml"]


def test_the_lock_of_a_process_that_was_killed_holds_nobody_up(tmp_path):
    code = f"""
import os, signal
from scoreplug.run.store import RunFolder
RunFolder({str(tmp_path / "run")!r}).open()
os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", code], check=False)
    assert (tmp_path / "run.partial" / "lock").read_text().startswith("process ")

    folder = RunFolder(tmp_path / "run")
    folder.open()
    folder.leave()


def test_what_a_killed_process_was_writing_is_swept_away(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.chunks.mkdir(parents=True)
    for place in (folder.partial, folder.chunks):
        (place / f".key.npy.{'0' * 32}").write_bytes(b"half")
        (place / ".mine").write_bytes(b"")

    folder.open()

    assert sorted(p.name for p in folder.partial.rglob(".*")) == [".mine", ".mine"]
    folder.leave()


def test_a_kill_between_the_name_and_the_tidying_loses_nothing(tmp_path, monkeypatch):
    folder = RunFolder(tmp_path / "run")
    folder.open()
    folder.begin({"config.toml": b"", "plan.json": b"{}"})
    monkeypatch.setattr(RunFolder, "tidy", lambda self: None)

    folder.complete()
    monkeypatch.undo()
    left = {path.name for path in folder.path.iterdir()}
    folder.tidy()

    assert left == {"config.toml", "plan.json", SUMS, "chunks", "lock"}
    assert {path.name for path in folder.path.iterdir()} == {"config.toml", SUMS}
