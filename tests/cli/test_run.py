"""`scoreplug run`: what it prints, what it writes, and how it says no."""

import json
import tomllib

import numpy as np
import pytest
import torch
from skimage.io import imsave

PRIOR = (
    *("--model", "gaussian", "--set", "model.image_shape=[1,8,8]", "--sde", "vp", "--operator", "inpainting"),
    *("--sampler", "em", "--set", "sampler.steps=3", "--samples", "2"),
)
TINY = (*PRIOR, "--set", "conditioner.form=norm")


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def written(here):
    return sorted(str(path.relative_to(here)) for path in here.rglob("*"))


def test_a_run_says_where_it_is_and_how_good(scoreplug, here):
    result = scoreplug("run", *TINY, "--out", "out")

    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0] == "run directory: out"
    assert [line.split("  ")[0] for line in lines[2:5]] == ["posterior mean", "average of samples", "pseudoinverse"]
    assert lines[5].startswith("4 network evaluations and 4 vjps per sample, ")
    assert "sampling" not in result.stderr  # no progress bar where nobody watches


def test_samples_that_miss_the_measurement_are_pointed_out(scoreplug, here):
    """The prior alone (unit variance) cannot fit data with noise of 0.01; with noise of 10 anything fits."""
    alone = (*PRIOR, "--conditioner", "none")
    missed = scoreplug("run", *alone, "--set", "input.noise_std=0.01", "--out", "missed")
    fitted = scoreplug("run", *alone, "--set", "input.noise_std=10.0", "--out", "fitted")

    assert "warning: the samples miss the measurement by" in missed.stderr
    assert (missed.exit_code, fitted.exit_code, fitted.stderr) == (0, 0, "")


def test_the_numbers_are_those_of_the_files(scoreplug, here):
    result = scoreplug("run", *TINY, "--out", "out")

    mean = json.loads((here / "out" / "metrics.json").read_text())["posterior_mean"]
    assert f"{mean['psnr']:.2f}" in result.stdout
    assert f"{mean['residual']:.2f}" in result.stdout


def test_the_default_folder_is_named_after_time_and_components(scoreplug, here):
    scoreplug("run", *TINY)

    (folder,) = (here / "runs").iterdir()
    assert folder.name[8] == "-"
    assert folder.name[15:] == "-gaussian-inpainting-dps-em"


def test_options_override_a_file_and_a_file_overrides_the_demo(scoreplug, here):
    (here / "c.toml").write_text('samples = 3\nseed = 5\n[sampler]\nname = "em"\nsteps = 7\n')

    result = scoreplug("run", "c.toml", *TINY, "--seed", "9", "--dry-run")

    config = tomllib.loads(result.stdout)
    assert (config["samples"], config["seed"], config["sampler"]["steps"]) == (2, 9, 3)
    assert config["conditioner"]["name"] == "dps"


def test_the_device_is_a_parameter_of_the_model(scoreplug, here):
    result = scoreplug("run", *TINY, "--device", "meta", "--dry-run", "--sde", "ve")

    assert result.exit_code == 1  # nothing can be computed there, which shows that the name arrived
    assert "meta" in result.stderr


def test_a_dry_run_tells_config_and_cost_and_writes_nothing(scoreplug, here):
    result = scoreplug("run", *TINY, "--dry-run", "--out", "out")

    assert result.exit_code == 0, result.stderr
    assert tomllib.loads(result.stdout)["operator"]["name"] == "inpainting"
    assert "# 2 samples in 1 chunks, to out" in result.stdout
    assert "# network evaluations: 4 per sample, 8 in all" in result.stdout
    assert "# vjps: 4 per sample, 8 in all" in result.stdout
    assert written(here) == []


def test_a_users_image_is_measured_and_reconstructed(scoreplug, here):
    imsave("x.png", np.arange(64, dtype=np.uint8).reshape(8, 8), check_contrast=False)

    result = scoreplug("run", *TINY, "--image", "x.png", "--set", "input.data_range=[0,255]", "--out", "out")

    assert result.exit_code == 0, result.stderr
    with np.load("out/arrays.npz") as arrays:
        np.testing.assert_allclose(arrays["truth"].flatten(), np.arange(64) / 255, rtol=1e-15)


def test_a_users_measurement_is_reconstructed(scoreplug, here):
    np.save("y.npy", np.full((8, 8), 0.5))

    options = ("--operator", "identity", "--measurement", "y.npy", "--set", "input.noise_std=0.1")
    result = scoreplug("run", *TINY, *options, "--out", "out")

    assert result.exit_code == 0, result.stderr
    assert result.stdout.splitlines()[2].split()[:4] == ["posterior", "mean", "-", "-"]


def test_a_slice_of_fastmri_is_reconstructed(scoreplug, here):
    import h5py

    kspace = np.random.default_rng(0).standard_normal((3, 8, 8, 8, 2)) @ [1e-6, 1e-6j]
    with h5py.File("f.h5", "w") as file:
        file["kspace"] = kspace.astype(np.complex64)

    options = ("--operator", "multi-coil-fourier", "--set", "operator.image=complex", "--measurement", "f.h5")
    units = ("--set", "input.slice=1", "--set", "input.scale=1e6", "--set", "input.noise_std=1e-7")
    result = scoreplug("run", *TINY, "--set", "model.image_shape=[2,8,8]", *options, *units, "--out", "out")

    assert result.exit_code == 0, result.output
    with np.load("out/arrays.npz") as arrays:
        # two of eight columns of each of the eight coils, and both parts
        assert arrays["measurement"].shape == (2, 8, 16)
        measured = set(arrays["measurement"][0].flatten())
    assert measured <= set((kspace[1].astype(np.complex64).real.astype(np.float64) * 1e6).flatten())


def test_another_file_drops_what_was_said_of_the_one_before(scoreplug, here):
    np.save("x.npy", np.eye(8))
    (here / "c.toml").write_text(
        '[input]\nmeasurement = "f.h5"\nkey = "k"\nslice = 3\naxis = 1\nscale = 2.0\nnoise_std = 0.1\n'
    )

    result = scoreplug("run", "c.toml", *TINY, "--image", "x.npy", "--dry-run")

    assert result.exit_code == 0, result.output
    assert tomllib.loads(result.stdout)["input"] == {"image": str(here / "x.npy"), "noise_std": 0.1, "seed": 0}


def test_a_checkpoint_stands_for_the_model_in_it(scoreplug, here):
    from scoreplug.checkpoint import write_checkpoint

    params = {"image_shape": [1, 4, 4], "precision": "float64"}
    metadata = {"scoreplug": json.dumps({"model": {"name": "openai-unet", "params": params}})}
    write_checkpoint("m.safetensors", {"x": torch.zeros(1)}, metadata)

    result = scoreplug("run", "--model", "m.safetensors", "--set", "model.precision=float32", "--dry-run")

    # the file is no network, so the run cannot start; it says so of the right model
    assert result.exit_code == 2
    assert "m.safetensors" in result.stderr


def no_pickle(path):
    torch.save({"weights": print}, path)


def cut(path):
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(1000)}, path)
    path.write_bytes(path.read_bytes()[:500])


BAD = {
    "unknown model": (("--model", "gausian"), "did you mean 'gaussian'"),
    "unknown operator": (("--operator", "inpaintng"), "did you mean 'inpainting'"),
    "unknown key": (("--set", "sampler.stpes=3"), "did you mean 'steps'"),
    "unknown role": (("--set", "sampelr.steps=3"), "did you mean 'sampler'"),
    "out of range": (("--set", "conditioner.scale=-1.0"), "scale must be >= 0 (got -1.0)"),
    "wrong type": (("--set", "sampler.steps=many"), "steps must be int (got 'many')"),
    "no samples": (("--samples", "0"), "samples must be >= 1, <= 1e+07 (got 0)"),
    "negative seed": (("--seed", "-1"), "seed must be >= 0"),
    "no assignment": (("--set", "steps"), "--set takes role.key=value"),
    "no config": (("absent.toml",), "cannot read the config 'absent.toml'"),
    "no slice": (("--image", "wide.npy", "--set", "input.slice=9"), "has slices 0 to 7 along axis 0 of (8, 9) (got 9)"),
    "no key": (("--image", "wide.npy", "--set", "input.key=a"), "leave out input.key (got 'a')"),
    "unknown format": (("--image", "code.pt"), "files end in .npy, .npz"),
    "image is a folder": (("--image", "."), "is a folder without DICOM files"),
    "no image": (("--image", "absent.png"), "there is no file"),
    "wrong shape": (("--image", "wide.npy"), "has shape (8, 9), and the model takes (1, 8, 8)"),
    "NaN": (("--image", "nan.npy"), "has 1 values that are NaN or infinite"),
    "wrong measurement": (
        ("--measurement", "wide.npy", "--set", "input.noise_std=0.1"),
        "has shape (8, 9), and the operator gives (48,)",
    ),
    "no noise": (("--measurement", "wide.npy"), "needs its noise_std"),
    "two inputs": (("--measurement", "wide.npy", "--image", "wide.npy"), "got image and measurement"),
    "truncated checkpoint": (
        ("--model", "openai-unet", "--set", "model.checkpoint=cut.safetensors"),
        "checkpoint 'cut.safetensors'",
    ),
    "code in a checkpoint": (("--model", "openai-unet", "--set", "model.checkpoint=code.pt"), "checkpoint 'code.pt'"),
    "checkpoint of nothing": (("--model", "cut.safetensors"), "checkpoint 'cut.safetensors'"),
    "folder is a file": (("--out", "wide.npy"), "is a file; choose another --out"),
    "folder below a file": (("--out", "wide.npy/out"), "wide.npy' is a file"),
    "folder is full": (("--out", "."), "is not empty"),
    "folder refused": (("--out", "/proc/out"), "cannot make the output folder '/proc/out'"),
}


@pytest.mark.parametrize("dry", [(), ("--dry-run",)], ids=["run", "dry run"])
@pytest.mark.parametrize("case", BAD)
def test_bad_input_gives_one_clear_message_and_leaves_nothing(scoreplug, here, case, dry):
    options, message = BAD[case]
    if dry and case == "folder refused":
        pytest.skip("what only the system can refuse is found when the folder is made")
    np.save("wide.npy", np.zeros((8, 9)))
    np.save("nan.npy", np.where(np.eye(8) * np.arange(8) == 3, np.nan, 0.0))
    no_pickle(here / "code.pt")
    cut(here / "cut.safetensors")
    before = written(here)

    result = scoreplug("run", *TINY, *options, *dry)

    assert result.exit_code == 2, result.output
    assert message in result.stderr
    assert "Traceback" not in result.output
    assert result.stderr.count("Error: ") == 1
    assert written(here) == before


def test_all_problems_are_told_at_once(scoreplug, here):
    result = scoreplug("run", *TINY, "--operator", "inpaintng", "--seed", "-1", "--set", "conditioner.scale=-1.0")

    assert "3 problems" in result.stderr
    assert all(word in result.stderr for word in ("seed", "inpaintng", "scale"))


def test_every_bad_setting_is_told_at_once(scoreplug, here):
    result = scoreplug("run", *TINY, "--set", "a", "--set", "b.c=[1")

    assert "2 problems" in result.stderr


def test_a_diverging_run_says_where_and_ends_with_code_1(scoreplug, here):
    result = scoreplug("run", *TINY, "--set", "conditioner.scale=1e308", "--out", "out")

    assert result.exit_code == 1
    assert "samples [0, 1] became NaN or infinite in step" in result.stderr
    assert "nothing is kept" in result.stderr
    assert written(here) == []


def test_a_traceback_is_there_for_the_asking(scoreplug, here):
    from scoreplug.run.config import ConfigError
    from scoreplug.run.runner import RunError

    wrong = scoreplug("--traceback", "run", *TINY, "--seed", "-1")
    diverged = scoreplug("--traceback", "run", *TINY, "--set", "conditioner.scale=1e308")

    assert isinstance(wrong.exception, ConfigError)
    assert isinstance(diverged.exception, RunError)


BROKEN = """
from scoreplug import SamplerSpec, hookimpl

@hookimpl
def scoreplug_components():
    yield SamplerSpec(name="broken", summary="cannot be imported", factory="no_such_module:Broken")
"""


def test_a_component_that_cannot_be_imported_is_named_with_its_plugin(scoreplug, here):
    (here / "broken_sampler.py").write_text(BROKEN)

    result = scoreplug("-p", "broken_sampler.py", "run", *TINY, "--sampler", "broken")

    assert result.exit_code in (1, 2)
    assert "broken_sampler.py" in result.stderr
    assert "no_such_module" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_broken_plugin_does_not_stop_a_run_that_does_not_need_it(scoreplug, here):
    (here / "bad_plugin.py").write_text("1 / 0")

    result = scoreplug("-p", "bad_plugin.py", "run", *TINY, "--dry-run")

    assert result.exit_code == 0
    assert "1 plugin failed to load" in result.stderr


def test_a_warning_is_one_line_without_its_place_in_the_code(scoreplug, here):
    import warnings

    from scoreplug.cli.run import plain_warnings

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        with plain_warnings():
            from click.testing import CliRunner

            with CliRunner().isolation() as (_, err, _):
                warnings.warn("beyond the range", stacklevel=1)

    assert err.getvalue() == b"warning: beyond the range\n"


def test_help_shows_the_examples(scoreplug):
    result = scoreplug("run", "--help")

    assert result.exit_code == 0
    assert "scoreplug run --operator inpainting --set operator.mask=random" in result.stdout


def test_an_executor_is_chosen_by_name(scoreplug, here):
    refused = scoreplug("run", *TINY, "--executor", "proces:2", "--out", "out")
    elsewhere = scoreplug("run", *TINY, "--executor", "concurrent.futures:ThreadPoolExecutor", "--out", "out")

    assert refused.exit_code == 2
    assert "--executor takes serial, process:N" in refused.stderr
    assert elsewhere.exit_code == 0, elsewhere.stderr
