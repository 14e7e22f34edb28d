"""Every example of the README and the docs runs, as a reader would run it."""

import contextlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from scoreplug import hookimpl
from scoreplug.cli import main
from scoreplug.registry.specs import ComponentSpec
from scoreplug.run.resolve import resolve
from scoreplug.run.runner import RunError, run
from scoreplug.testing import iter_checks

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"```(\w+)\n(.*?)```", re.S)
README = (ROOT / "README.md").read_text()


def blocks(page, language):
    return [body for kind, body in BLOCK.findall(page.read_text()) if kind == language]


def test_the_python_example_draws_posterior_samples():
    """Verbatim, but for the number of steps, so that it takes seconds."""
    (example,) = [body for body in blocks(ROOT / "README.md", "python") if "get_sampler" in body]
    names = {}

    exec(compile(example.replace("steps=100", "steps=3"), "README.md", "exec"), names)

    assert names["x"].shape == (8, 1, 64, 64)
    assert names["mean"].shape == names["std"].shape == (1, 64, 64)
    assert bool(names["x"].isfinite().all())


def test_the_plugin_example_declares_a_component():
    (example,) = [body for body in blocks(ROOT / "README.md", "python") if "hookimpl" in body]
    names = {}

    exec(compile(example, "README.md", "exec"), names)

    (spec,) = names["scoreplug_components"]()
    assert isinstance(spec, ComponentSpec)
    assert spec.name == "daps"
    assert hasattr(names["scoreplug_components"], f"{hookimpl.project_name}_impl")
    (toml,) = blocks(ROOT / "README.md", "toml")
    assert tomllib.loads(toml)["project"]["entry-points"]["scoreplug"] == {"daps": "scoreplug_daps.plugin"}


COMMANDS = [
    command
    for body in blocks(ROOT / "README.md", "bash")
    for line in body.splitlines()
    if (command := line.split("  #")[0].strip()).startswith("scoreplug ")
]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder that holds what the README's commands name."""
    monkeypatch.chdir(tmp_path)
    weights = ROOT / "plugins/scoreplug_builtin/models/weights"
    generator = np.random.default_rng(0)
    np.save("phantom.npy", generator.random((64, 64)).astype(np.float32))
    np.save("photo.npy", generator.random((64, 64)).astype(np.float32))
    np.save("sinogram.npy", generator.random((30, 91)).astype(np.float32))
    Path("my-prior").mkdir()
    shutil.copy(weights / "ellipses-64.safetensors", "my-prior/model.safetensors")
    shutil.copy(weights / "ellipses-64.toml", "config.toml")
    return tmp_path


def make_run(out, *, interrupted):
    """A run of two chunks, complete or stopped after the first one."""

    def stop(fraction):
        if interrupted and fraction > 0.5:
            raise KeyboardInterrupt

    table = {"samples": 2, "batch": 1, "sampler": {"name": "em", "steps": 2}}
    table |= {"model": {"name": "gaussian", "image_shape": [1, 8, 8], "covariance": 0.1}, "operator": "inpainting"}
    table |= {"conditioner": "jalal", "input": {"source": "ellipses", "relative_noise": 0.1}}
    with contextlib.suppress(RunError):
        run(resolve(table), out, progress=stop)
    assert out.exists() is not interrupted


@pytest.mark.parametrize("command", COMMANDS)
def test_the_commands_run(folder, command):
    """Verbatim, but with few steps and samples (run) and a budget of seconds (train), so that each takes seconds."""
    arguments = shlex.split(command)[1:]
    if arguments[0] == "run":
        if "config.toml" in arguments:
            Path("config.toml").write_text(
                'samples = 1\n[model]\nname = "ellipses-64"\n[sampler]\nname = "em"\nsteps = 2\n'
            )
        if "--resume" not in arguments:
            arguments += ["--set", "sampler.steps=2", "--samples", "1"]
    if "--resume" in arguments or arguments[0] == "rerun":
        make_run(Path("runs/NAME"), interrupted="--resume" in arguments)
    if arguments[0] == "train":
        arguments += ["--minutes", "0.02", "--set", "evaluation.images=2"]

    result = CliRunner().invoke(main, arguments)

    assert result.exit_code == 0, result.output
    assert result.output


def test_the_readmes_set_up_commands_are_marked_for_ci():
    for name in ("run", "test"):
        assert len(re.findall(rf"<!-- command: {name} -->\n```bash\n", README)) == 1


def test_every_local_link_leads_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_table_of_contents_is_the_registry():
    """The README's table names every component, and nothing else."""
    from scoreplug import registry

    for kind in ("model", "sde", "operator", "conditioner", "sampler", "problem"):
        (row,) = re.findall(rf"^\| {kind} \| (.*) \|$", README, re.M)
        assert set(re.findall(r"`([a-z0-9-]+)`", row)) == {spec.name for spec in registry.list(kind)}


def test_the_demo_is_one_command_without_arguments(tmp_path):
    """`scoreplug run --dry-run`, in a process of its own, from a folder that is not the checkout."""
    script = shutil.which("scoreplug", path=str(Path(sys.executable).parent))
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    result = subprocess.run([script, "run", "--dry-run"], cwd=tmp_path, env=environment, capture_output=True, text=True)

    assert result.returncode == 0, result.stderr
    config = tomllib.loads(result.stdout)
    assert (config["conditioner"]["name"], config["sampler"]["name"]) == ("dps", "pc")
    assert config["samples"] == 8
    assert config["operator"] == {**config["operator"], "name": "radon", "angles": 30}
    assert not list(tmp_path.iterdir())


MEASURED = {
    "reconstruction": "reconstruction",
    "conditioners": "conditioners",
    "metropolis": "line_integral",
    "overhead": "overhead",
    "unet-speed": "unet",
    "guidance-cost": "guidance",
    "operators-speed": "operators",
    "kills": "kills",
    "fuzzing": "fuzz",
    "peers": "peers",
    "predictor-corrector": "predictor_corrector",
}


@pytest.mark.parametrize(("page", "script"), MEASURED.items())
def test_a_page_is_what_its_benchmark_wrote(tmp_path, page, script):
    """The tables are rendered from the measured numbers, not typed."""
    rendered, docs = tmp_path / "page.md", ROOT / "docs"
    command = [sys.executable, str(ROOT / f"benchmarks/{script}.py"), "--render", str(docs / f"{page}.json")]
    subprocess.run([*command, "--out", str(rendered)], check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})

    assert rendered.read_text() == (docs / f"{page}.md").read_text()


def test_the_conformance_page_lists_every_check():
    page = (ROOT / "docs/conformance.md").read_text()

    rows = [f"| `{check.name}` | {', '.join(check.kinds)} | {check.states} |" for check in iter_checks()]
    assert [line for line in page.splitlines() if line.startswith("| `")] == rows
