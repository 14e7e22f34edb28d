"""`scoreplug rerun`, and `scoreplug run --resume` at the command line."""

import json
import shutil

import numpy as np
import pytest

from scoreplug.run import runner

TINY = (
    *("--model", "gaussian", "--set", "model.image_shape=[1,8,8]", "--sde", "vp", "--operator", "inpainting"),
    *("--sampler", "em", "--set", "sampler.steps=3", "--samples", "2", "--set", "batch=1"),
    *("--set", "conditioner.form=norm"),
)


@pytest.fixture(autouse=True)
def without_pictures(monkeypatch):
    """They take longer than the sampling, and no array depends on them."""
    monkeypatch.setattr(runner, "figure", lambda result: b"")
    monkeypatch.setattr(runner, "report", lambda result, picture: "")


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def done(scoreplug, here):
    result = scoreplug("run", *TINY, "--out", "out")
    assert result.exit_code == 0, result.output
    return here / "out"


def rewrite(folder, **changes):
    """Other arrays, vouched for by their checksums."""
    from scoreplug.run.compare import read_arrays
    from scoreplug.run.store import to_npz, write_sums

    content = to_npz(read_arrays(folder) | changes)
    (folder / "arrays.npz").write_bytes(content)
    names = ("config.toml", "provenance.json")
    write_sums(folder, {"arrays.npz": content} | {name: (folder / name).read_bytes() for name in names})


def test_a_rerun_gives_the_same_bits_and_leaves_nothing(scoreplug, done, tmp_path_factory, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path_factory.mktemp("temporary")))
    result = scoreplug("rerun", "out", "--tolerance", "0")

    assert result.exit_code == 0, result.output
    assert result.stdout == "reproduced: 6 arrays are the same to the bit\n"
    import tempfile

    assert not list(done.parent.glob("*.partial"))
    import os

    assert os.listdir(tempfile.gettempdir()) == []


def test_the_second_run_can_be_kept(scoreplug, done):
    assert scoreplug("rerun", "out", "--out", "again").exit_code == 0

    assert (done.with_name("again") / "arrays.npz").is_file()


@pytest.mark.parametrize(("change", "code"), [(1e-9, 0), (0.5, 1)])
def test_a_difference_is_placed_measured_and_explained(scoreplug, done, change, code):
    from scoreplug.run.compare import read_arrays

    samples = read_arrays(done)["samples"]
    samples = samples + change * np.abs(samples).max() * (np.arange(2) == 1)[:, None, None, None]
    provenance = json.loads((done / "provenance.json").read_text())
    provenance["packages"]["torch"] = "1.0"
    (done / "provenance.json").write_text(json.dumps(provenance))
    rewrite(done, samples=samples)

    result = scoreplug("rerun", "out")

    assert result.exit_code == code, result.output
    row = next(line.split() for line in result.stdout.splitlines() if line.startswith("samples"))
    assert row[1:3] == ["128", "64"]
    assert float(row[3]) == pytest.approx(change, rel=0.5)  # of the largest value, which the change moves itself
    assert row[4:6] == ["sample", "1,"]
    assert "package torch: 1.0 before" in result.stdout
    assert ("samples differ by more than 1e-06" in result.stderr) == bool(code)


@pytest.mark.parametrize("name", ["config.toml", "arrays.npz"])
def test_a_flipped_bit_is_named_before_anything_is_computed(scoreplug, done, name):
    content = bytearray((done / name).read_bytes())
    content[len(content) // 2] ^= 1
    (done / name).write_bytes(content)

    result = scoreplug("rerun", "out")

    assert result.exit_code == 2
    assert f"'out/{name}' is damaged (its checksum is another one); there is nothing to compare with" in result.stderr


@pytest.mark.parametrize("name", ["metrics.json", "SHA256SUMS", "trajectory.npz"])
def test_damage_that_is_no_hindrance_is_told(scoreplug, done, name):
    (done / name).unlink()

    result = scoreplug("rerun", "out")

    assert result.exit_code == 0
    assert f"'out/{name}' is damaged or missing" in result.stderr


def test_what_is_no_complete_run_is_refused(scoreplug, done):
    shutil.move("out", "half.partial")

    for name in ("half", "half.partial"):
        result = scoreplug("rerun", name)
        assert result.exit_code == 2
        assert "is no complete run directory; `scoreplug run --resume half` completes the run there" in result.stderr
    (done.parent / "empty").mkdir()
    assert "has no config.toml and no arrays.npz" in scoreplug("rerun", "empty").stderr


def stop_after_one(monkeypatch):
    """Interrupt a run when its first chunk is stored."""
    from scoreplug.run.store import ChunkStore

    save = ChunkStore.save

    def saves_and_stops(self, *args, **kwargs):
        save(self, *args, **kwargs)
        raise KeyboardInterrupt

    monkeypatch.setattr(ChunkStore, "save", saves_and_stops)


def test_an_interrupted_run_prints_the_command_that_goes_on(scoreplug, here):
    with pytest.MonkeyPatch.context() as patch:
        stop_after_one(patch)
        stopped = scoreplug("run", *TINY, "--out", "out")
    command = stopped.stderr.partition("`scoreplug ")[2].partition("`")[0].split()

    resumed = scoreplug(*command, "--executor", "serial")

    assert (stopped.exit_code, stopped.stdout) == (130, "")
    assert stopped.stderr.startswith("interrupted. Finished chunks (1) are kept in '")
    assert command == ["run", "--resume", "out"]
    assert resumed.exit_code == 0, resumed.output
    assert json.loads((here / "out" / "cost.json").read_text())["chunks_reused"] == 1


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--samples", "3"), "--samples"),
        (("--out", "x"), "--out"),
        (("c.toml",), "CONFIG"),
        (("--dry-run",), "--dry-run"),
    ],
)
def test_resuming_takes_no_option_that_would_make_another_run(scoreplug, here, options, named):
    result = scoreplug("run", "--resume", "out", *options)

    assert result.exit_code == 2
    assert f"takes only --executor beside it (got {named})" in " ".join(result.stderr.split())


def test_a_complete_run_is_not_resumed(scoreplug, done):
    result = scoreplug("run", "--resume", "out")

    assert result.exit_code == 2
    assert "the run in 'out' is complete; `scoreplug rerun out` computes it again and compares" in result.stderr
