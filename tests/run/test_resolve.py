"""From a table to a config that says everything, or to every reason why not."""

import subprocess
import sys
import tomllib

import pytest

from scoreplug.run.config import ConfigError
from scoreplug.run.resolve import resolve

TABLE = {
    "model": {"name": "gaussian", "image_shape": [1, 8, 8]},
    "operator": "inpainting",
    "conditioner": "dps",
    "sampler": {"name": "pc", "steps": 5},
    "input": {"source": "ellipses", "noise_std": 0.1},
}


def test_defaults_become_explicit():
    config = resolve(TABLE)

    assert config.sampler.params["steps"] == 5
    assert config.sampler.params["corrector"] == "langevin"
    assert config.conditioner.params["scale"] == 1.0


def test_what_the_run_fills_in_is_not_written():
    assert "image_shape" not in resolve(TABLE).operator.params


def test_resolving_twice_changes_nothing():
    once = resolve({**TABLE, "sde": "ve", "sampler": {"name": "pc", "corrector": {"snr": 0.1}}})

    assert resolve(tomllib.loads(once.to_toml())) == once


def test_parameters_of_an_unnamed_inner_component_belong_to_the_default_one():
    corrector = resolve({**TABLE, "sampler": {"name": "pc", "corrector": {"snr": 0.1}}}).sampler.params["corrector"]

    assert corrector["name"] == "langevin"
    assert corrector["snr"] == 0.1


def test_file_names_become_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    config = resolve({**TABLE, "input": {"image": "x.npy", "noise_std": 0.1}})

    assert config.input.image == str(tmp_path / "x.npy")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "gausian"}, "unknown model 'gausian'; did you mean 'gaussian'"),
        ({"sde": "vpp"}, "unknown sde 'vpp'; did you mean 'vp'"),
        ({"operator": "dps"}, "unknown operator 'dps'; 'dps' is the name of a conditioner"),
        ({"input": {"source": "elipses", "noise_std": 0.1}}, "no image source 'elipses'; did you mean 'ellipses'?"),
        ({"sampler": {"name": "pc", "seps": 3}}, "sampler 'pc': unknown parameter 'seps'; did you mean 'steps'?"),
        ({"sampler": {"name": "pc", "steps": 0}}, "sampler 'pc': steps must be >= 1 (got 0)"),
        ({"sampler": {"name": "pc", "steps": 1.7}}, "sampler 'pc': steps must be int (got 1.7)"),
        (
            {"sampler": {"name": "pc", "corrector": "langvin"}},
            "pc': corrector: unknown sampler 'langvin'; did",
        ),
        ({"sampler": {"name": "pc", "corrector": {"snr": 9}}}, "pc': corrector: sampler 'langevin': snr must be"),
        ({"sampler": {"name": "pc", "corrector": 3}}, "pc': corrector: a sampler is a name, or a table"),
        ({"model": "gaussian"}, "model 'gaussian': image_shape is required"),
        ({"model": "none.safetensors"}, "checkpoint 'none.safetensors': there is no such file"),
    ],
    ids=lambda value: str(value)[:50],
)
def test_a_wrong_name_or_parameter_is_explained(change, message):
    with pytest.raises(ConfigError) as caught:
        resolve({**TABLE, **change})

    assert message in str(caught.value)


def test_all_problems_of_all_components_come_at_once():
    with pytest.raises(ConfigError) as caught:
        resolve({**TABLE, "seed": -1, "operator": "inpaintin", "conditioner": {"name": "dps", "scale": -1.0}, "x": 1})

    assert [problem.split()[0] for problem in caught.value.problems] == ["unknown", "seed", "unknown", "conditioner"]


PICKY = """
from scoreplug import ConditionerSpec, SamplerSpec, hookimpl

@hookimpl
def scoreplug_components():
    return [
        ConditionerSpec(name="picky", summary="needs an svd", factory="nowhere:Picky", needs=("linear", "svd")),
        SamplerSpec(name="choosy", summary="needs a density", factory="nowhere:Choosy", needs=("log-density",)),
    ]
"""


def test_an_impossible_combination_is_refused_before_torch_is_imported(tmp_path):
    plugin = tmp_path / "picky_plugin.py"
    plugin.write_text(PICKY)
    code = f"""
import sys
from scoreplug.cli import main
try:
    main(["-p", {str(plugin)!r}, "run", "--operator", "hdr", "--conditioner", "picky", "--sampler", "choosy"])
except SystemExit as end:
    print(end.code, "torch" in sys.modules)
"""

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.split() == ["2", "False"]
    assert (
        "conditioner 'picky' needs an operator with linear, svd; 'hdr' provides nothing beyond the protocol. Use"
        in done.stderr
    )
    assert "an operator that provides it (identity" in done.stderr
    assert "sampler 'choosy' needs a model with log-density; 'ellipses-64' provides nothing" in done.stderr
    assert "sampler 'choosy' needs a conditioner with log-density; 'picky' gives its posterior nothing" in done.stderr
    assert "a sampler without that need (em" in done.stderr
    assert "a model that provides it (gaussian, gaussian-mixture, energy)" in done.stderr


def test_a_network_without_weights_is_refused():
    with pytest.raises(ConfigError, match=r"'openai-unet' has no weights: name their file with model\.checkpoint"):
        resolve({**TABLE, "model": {"name": "openai-unet", "image_shape": [1, 8, 8]}})
