"""What was interrupted goes on from its folder alone, or is refused with the reason; nothing finished is lost."""

import contextlib
import errno
import json
import os
import pathlib
import shutil
import subprocess

import numpy as np
import pytest

from scoreplug.run import provenance, runner
from scoreplug.run.plan import SerialExecutor
from scoreplug.run.resolve import resolve
from scoreplug.run.resume import interrupted
from scoreplug.run.runner import RunError, RunInterruptedError, run
from scoreplug.run.store import DamageWarning

TABLE = {
    "samples": 6,
    "batch": 2,
    "model": {"name": "gaussian", "image_shape": [1, 8, 8], "covariance": 0.1},
    "operator": "inpainting",
    "conditioner": "dps",
    "sampler": {"name": "pc", "steps": 5},
    "input": {"source": "ellipses", "relative_noise": 0.1},
}


def config(**changes):
    return resolve({**TABLE, **changes})


class Stops(SerialExecutor):
    """Is interrupted, or fails, after so many chunks."""

    def __init__(self, chunks, error=KeyboardInterrupt):
        self.left, self.error = chunks, error

    def submit(self, fn, /, *args, **kwargs):
        if self.left == 0:
            raise self.error
        self.left -= 1
        return super().submit(fn, *args, **kwargs)


@pytest.fixture(autouse=True)
def without_pictures(monkeypatch):
    """They take longer than the sampling, and no array depends on them."""
    monkeypatch.setattr(runner, "figure", lambda result: b"")
    monkeypatch.setattr(runner, "report", lambda result, picture: "")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    return run(config(), tmp_path_factory.mktemp("undisturbed") / "run").arrays


@pytest.fixture
def stopped(tmp_path):
    """The folder of a run that was interrupted after two of three chunks."""
    with pytest.raises(RunInterruptedError, match="interrupted"):
        run(config(), tmp_path / "run", executor=Stops(2))
    return tmp_path / "run"


def partial(path):
    return path.with_name(f"{path.name}.partial")


def flip(path, place):
    content = bytearray(path.read_bytes())
    content[int(place * (len(content) - 1))] ^= 1
    path.write_bytes(content)


def equal(one, other):
    assert set(one) == set(other)
    for name, array in one.items():
        np.testing.assert_array_equal(array, other[name], err_msg=name, strict=True)


def test_the_message_of_an_interrupted_run_is_the_command_that_goes_on(tmp_path):
    with pytest.raises(RunInterruptedError) as caught:
        run(config(), tmp_path / "my run", executor=Stops(1))

    assert f"`scoreplug run --resume '{tmp_path}/my run'` goes on from there" in str(caught.value)


@pytest.mark.parametrize("name", ["run", "run.partial"])
def test_a_run_goes_on_from_its_folder_alone(stopped, undisturbed, name):
    folder, found = interrupted(stopped.with_name(name))
    result = run(found, folder.path)

    assert found == config()
    assert result.cost["chunks_reused"] == 2
    equal(result.arrays, undisturbed)
    assert not partial(stopped).exists()


def test_it_goes_on_from_within(stopped, monkeypatch):
    monkeypatch.chdir(partial(stopped))

    assert interrupted(type(stopped)())[0].path == stopped


@pytest.mark.parametrize("ending", ["json", "npy", "npz"])
@pytest.mark.parametrize("how", ["flipped", "deleted"])
def test_a_damaged_chunk_is_named_and_computed_again(stopped, undisturbed, ending, how):
    file = next((partial(stopped) / "chunks").glob(f"*.{ending}"))
    if how == "flipped":
        flip(file, 0.5)
    else:
        file.unlink()
    # without its record a chunk was never finished, and there is nothing to be named
    told = (
        contextlib.nullcontext()
        if (ending, how) == ("json", "deleted")
        else pytest.warns(DamageWarning, match=rf"{file.name}' is damaged .* computed again")
    )

    folder, found = interrupted(stopped)
    with told:
        result = run(found, folder.path)

    assert result.cost["chunks_reused"] == 1
    equal(result.arrays, undisturbed)


@pytest.mark.parametrize("name", ["config.toml", "plan.json"])
@pytest.mark.parametrize("place", [0.0, 0.4, 1.0])
def test_a_damaged_config_is_refused_and_the_chunks_are_there_for_who_states_it_again(
    stopped, undisturbed, name, place
):
    flip(partial(stopped) / name, place)

    with pytest.raises(ValueError, match=rf"'{name}' is damaged .*its checksum is another one.*give its config"):
        interrupted(stopped)

    result = run(config(), stopped)
    assert result.cost["chunks_reused"] == 2
    equal(result.arrays, undisturbed)


@pytest.mark.parametrize("name", ["config.toml", "plan.json", "SHA256SUMS"])
def test_a_missing_file_is_named(stopped, name):
    (partial(stopped) / name).unlink()

    with pytest.raises(ValueError, match=rf"'{name}' is damaged \(No such file.*give its config"):
        interrupted(stopped)


def test_a_flipped_bit_in_the_checksums_is_refused(stopped):
    flip(partial(stopped) / "SHA256SUMS", 0.3)

    with pytest.raises(ValueError, match="is damaged"):
        interrupted(stopped)


def test_a_run_that_was_killed_before_it_began_says_so(tmp_path):
    (tmp_path / "run.partial" / "chunks").mkdir(parents=True)

    with pytest.raises(FileNotFoundError, match="stopped before anything was computed; give its config or options"):
        interrupted(tmp_path / "run")

    run(config(), tmp_path / "run")


def test_a_complete_run_is_not_resumed_and_its_leftovers_go(tmp_path):
    run(config(samples=1), tmp_path / "run")
    (tmp_path / "run" / "chunks").mkdir()

    with pytest.raises(FileNotFoundError, match=r"is complete; `scoreplug rerun .*run` computes it again"):
        interrupted(tmp_path / "run")

    assert not (tmp_path / "run" / "chunks").exists()


def test_other_folders_are_no_runs(tmp_path):
    (tmp_path / "other").mkdir()

    with pytest.raises(FileNotFoundError, match="is no run directory: it has no config"):
        interrupted(tmp_path / "other")
    with pytest.raises(FileNotFoundError, match=r"there is no interrupted run in '.*nowhere.partial'"):
        interrupted(tmp_path / "nowhere.partial")


def test_chunks_of_another_version_are_not_taken_up(stopped, undisturbed, monkeypatch):
    before = provenance.version
    monkeypatch.setattr(provenance, "version", lambda name: "9.9" if name == "torch" else before(name))

    with pytest.raises(
        ValueError, match=r"of other versions: torch .*, now 9\.9; `scoreplug run .* computes everything"
    ):
        interrupted(stopped)
    with pytest.warns(UserWarning, match=r"2 chunks of other versions are computed again \(torch"):
        result = run(config(), stopped)

    assert result.cost["chunks_reused"] == 0
    equal(result.arrays, undisturbed)


def test_a_file_that_has_changed_is_named(tmp_path):
    image = tmp_path / "my image.npy"
    np.save(image, np.zeros((8, 8)))
    chosen = config(input={"image": str(image), "noise_std": 0.1})
    with pytest.raises(RunInterruptedError):
        run(chosen, tmp_path / "run", executor=Stops(1))
    np.save(image, np.ones((8, 8)))

    with pytest.raises(ValueError, match=r"files have changed since .*: '.*/my image.npy'; put them back"):
        interrupted(tmp_path / "run")


def test_more_samples_of_the_same_run_take_up_what_is_there(stopped):
    result = run(config(samples=8), stopped)

    assert result.cost["chunks_reused"] == 2


def test_another_config_in_the_same_folder_starts_anew(stopped):
    other = config(sampler={"name": "pc", "steps": 6})
    result = run(other, stopped)

    assert result.cost["chunks_reused"] == 0
    assert result.config == other


def test_two_runs_at_once_do_not_write_to_one_folder(tmp_path):
    class Greedy(SerialExecutor):
        def submit(self, fn, /, *args, **kwargs):
            with pytest.raises(BlockingIOError, match="a run is under way"):
                run(config(), tmp_path / "run")
            return super().submit(fn, *args, **kwargs)

    assert run(config(), tmp_path / "run", executor=Greedy()).cost["chunks_reused"] == 0


def test_what_diverges_keeps_the_others(tmp_path):
    """One sample of a chunk is lost; the chunk before is finished, and the others of its own are kept as they were."""
    import torch

    from scoreplug.sampler import DivergenceError

    x = torch.arange(64.0).reshape(1, 1, 8, 8)
    lost = DivergenceError("samples [2] grew", step=3, steps=5, level=0.5, samples=(2,), survivors=(3,), x=x)
    with pytest.raises(
        RunError, match=r"samples \[2\] grew.* The others .*samples \[3\], are kept in .*diverged.npz"
    ) as e:
        run(config(), tmp_path / "run", executor=Stops(1, lost))

    assert "Finished chunks (1) are kept" in str(e.value)
    with np.load(tmp_path / "run.partial" / "diverged.npz") as kept:
        np.testing.assert_array_equal(kept["x"], x)
        assert (kept["survivors"], kept["samples"], kept["step"], kept["level"]) == (3, 2, 3, 0.5)
    folder, found = interrupted(tmp_path / "run")
    result = run(found, folder.path)
    assert result.cost["chunks_reused"] == 1
    assert not (tmp_path / "run" / "diverged.npz").exists()


@contextlib.contextmanager
def small_disk(folder, size="1m"):
    """A file system of its own, where that may be had."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a tmpfs")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_is_told_in_one_line_and_costs_no_finished_chunk(tmp_path, undisturbed):
    with small_disk(tmp_path / "disk") as disk:
        filler = disk / "filler"

        def fill(fraction):
            if fraction and list(disk.glob("run.partial/chunks/*.json")):
                with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
                    while True:
                        file.write(bytes(4096))

        with pytest.raises(RunError, match=r"No space left on device: '.*'\. Finished chunks \(1\) are kept") as caught:
            run(config(), disk / "run", progress=fill)
        assert "\n" not in str(caught.value)
        filler.unlink()

        folder, found = interrupted(disk / "run")
        result = run(found, folder.path)

        assert result.cost["chunks_reused"] == 1
        equal(result.arrays, undisturbed)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EIO], ids=["full", "read-only", "broken"])
@pytest.mark.parametrize("name", [".npy", ".json", "arrays.npz", "report.html", "SHA256SUMS"])
def test_a_disk_that_fails_at_any_file_loses_nothing(tmp_path, undisturbed, monkeypatch, name, code):
    """At the last file of that name that a run writes."""
    replace = pathlib.Path.replace
    last = {".npy": 3, ".json": 7, "arrays.npz": 1, "report.html": 1, "SHA256SUMS": 2}[name]
    seen = []

    def fails(self, target):
        seen.append(target) if str(target).endswith(name) else None
        if len(seen) == last:
            raise OSError(code, os.strerror(code))
        return replace(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(pathlib.Path, "replace", fails)
        with pytest.raises(RunError, match=rf"{os.strerror(code)}: '.*{name}'. Finished chunks \(\d\) are kept"):
            run(config(), tmp_path / "run")
    assert not list(tmp_path.rglob(".*"))

    folder, found = interrupted(tmp_path / "run")
    result = run(found, folder.path)

    assert result.cost["chunks_reused"] == (2 if name == ".npy" else 3)
    equal(result.arrays, undisturbed)


def test_a_disk_that_is_read_only_is_refused_before_anything_is_computed(tmp_path, stopped):
    with small_disk(tmp_path / "disk") as disk:
        shutil.copytree(partial(stopped), disk / "run.partial")
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)

        for name in ("run", "new"):
            with pytest.raises(PermissionError, match=r"cannot make the output folder .* or it is read-only"):
                run(config(), disk / name, executor=Stops(0, AssertionError("it computed")))
        with pytest.raises(PermissionError, match="read-only"):
            interrupted(disk / "run")


def test_a_folder_that_is_taken_away_is_named(tmp_path):
    def remove(fraction):
        if fraction == pytest.approx(1 / 3):
            shutil.rmtree(tmp_path / "run.partial" / "chunks", ignore_errors=True)

    with pytest.raises(RunError, match=r"No such file or directory: '.*run.partial/chunks/"):
        run(config(), tmp_path / "run", progress=remove)


def test_the_plan_says_versions_and_files(stopped):
    record = json.loads((partial(stopped) / "plan.json").read_text())

    assert {"scoreplug", "torch"} <= set(record["versions"])
    assert record["files"] == {}
    assert not os.path.exists(stopped)
