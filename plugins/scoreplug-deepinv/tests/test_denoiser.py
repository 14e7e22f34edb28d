from __future__ import annotations

import attrs
import pytest
import torch
from deepinv.models import DnCNN, DRUNet, TVDenoiser
from safetensors.torch import save_file

from scoreplug import registry, testing

TINY = {"in_channels": 1, "out_channels": 1, "nc": (4, 4, 4, 4), "nb": 1}
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def tiny(seed: int = 0) -> DRUNet:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return DRUNet(**TINY, pretrained=None).eval()


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def prior_of(denoiser, **params):
    return registry.get_model("deepinv-denoiser", denoiser=denoiser, **{"image_shape": (1, 16, 16), **params})


def at_level(model, level: float) -> torch.Tensor:
    return model.sde.time_of(torch.tensor(level, dtype=torch.float64))


@pytest.mark.parametrize("level", [0.01, 0.1, 0.2])
def test_denoise_is_deepinvs_under_ve_and_under_vp(level):
    network = tiny()
    model, x = prior_of(network), draw(2, 1, 16, 16)
    expected = network(x, level)
    torch.testing.assert_close(model.denoise(x, at_level(model, level)), expected, **CLOSE)
    vp = model.under(registry.get_sde("vp"))
    t = at_level(vp, level)
    torch.testing.assert_close(vp.denoise(vp.sde.alpha(t) * x, t), expected, **CLOSE)


def test_the_score_is_tweedies():
    model, x, level = prior_of(tiny()), draw(2, 1, 16, 16), 0.1
    t = at_level(model, level)
    torch.testing.assert_close(model.score(x, t), (model.denoise(x, t) - x) / level**2, rtol=1e-4, atol=1e-3)


def test_every_sample_is_denoised_at_its_own_level():
    network = tiny()
    model, x = prior_of(network), draw(2, 1, 16, 16)
    found = model.denoise(x, torch.stack([at_level(model, 0.05), at_level(model, 0.15)]))
    expected = torch.cat([network(x[:1], 0.05), network(x[1:], 0.15)])
    torch.testing.assert_close(found, expected, **CLOSE)


def test_its_own_process_stays_between_its_levels_and_samplers_warn_outside():
    model = prior_of(TVDenoiser(n_it_max=3), sigma_min=0.01, sigma_max=0.3)
    assert (model.sde.sigma_min, model.sde.sigma_max) == (0.01, 0.3)
    assert model.level_range == (pytest.approx(0.0099), pytest.approx(0.303))
    assert (model.data_range, model.radius) == ((0.0, 1.0), 16.0)
    sampler = registry.get_sampler("ancestral", steps=2)
    with pytest.warns(UserWarning, match="made for noise levels 0.0099 to 0.303"):
        sampler.sample(model.under(registry.get_sde("ve")), 1)
    with pytest.warns(UserWarning, match="the data reach 16 from 0"):
        sampler.sample(model, 1)


@pytest.mark.parametrize("kind", ["safetensors", "pt"])
def test_weights_come_from_a_file(tmp_path, kind):
    network = tiny(seed=7)
    path = tmp_path / f"weights.{kind}"
    save_file(network.state_dict(), path) if kind == "safetensors" else torch.save(network.state_dict(), path)
    model, x = prior_of("DRUNet", params=TINY, checkpoint=str(path)), draw(2, 1, 16, 16)
    torch.testing.assert_close(model.denoise(x, at_level(model, 0.1)), network(x, 0.1), **CLOSE)


def test_files_with_code_or_of_another_network_are_refused(tmp_path):
    path = tmp_path / "weights.pt"
    torch.save(tiny(), path)
    with pytest.raises(ValueError, match="holds code"):
        prior_of("DRUNet", params=TINY, checkpoint=str(path))
    torch.save({"a": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match="its tensors are not those of DRUNet"):
        prior_of("DRUNet", params=TINY, checkpoint=str(path))
    with pytest.raises(ValueError, match="there is no such file"):
        prior_of("DRUNet", params=TINY, checkpoint=str(tmp_path / "nowhere.pt"))


def test_nothing_is_downloaded_unless_asked_for(monkeypatch):
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", lambda *a, **k: pytest.fail("a download"))
    with pytest.warns(UserWarning, match="DRUNet has fresh weights"):
        prior_of("DRUNet", params=TINY)
    asked = []

    def fetched(url: str, *args, **kwargs):
        asked.append(url)
        return DnCNN(in_channels=1, out_channels=1, pretrained=None).state_dict()

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", fetched)
    prior_of("DnCNN", params={"in_channels": 1, "out_channels": 1, "pretrained": "download"})
    assert len(asked) == 1


def test_fresh_weights_are_those_of_the_seed_and_move_no_generator():
    before = torch.get_rng_state()
    one, again, other = (prior_of("DRUNet", params=TINY, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    x, t = draw(1, 1, 16, 16), at_level(one, 0.1)
    assert torch.equal(one.denoise(x, t), again.denoise(x, t))
    assert not torch.equal(one.denoise(x, t), other.denoise(x, t))


def test_a_denoiser_that_is_given_is_left_as_it_was():
    network = tiny().train()
    prior_of(network, precision="float64")
    assert network.training
    assert {(p.dtype, p.requires_grad) for p in network.parameters()} == {(torch.float32, True)}


@pytest.mark.parametrize(
    ("params", "match"),
    [
        ({"denoiser": "DRUNett"}, "deepinv.models has no 'DRUNett'; did you mean 'DRUNet'"),
        ({"denoiser": 3}, "denoiser must be a torch module or its name"),
        ({"denoiser": "DRUNet", "params": {"depth": 3}}, "cannot be built with params .*depth"),
        ({"denoiser": "DRUNet", "params": {"pretrained": "w.pt"}}, "give a file of weights as checkpoint"),
        ({"denoiser": "DRUNet", "params": {"pretrained": "download"}, "checkpoint": "w.pt"}, "two sources"),
        ({"denoiser": tiny(), "checkpoint": "w.pt"}, "an object was given"),
        ({"denoiser": tiny(), "image_shape": (3, 16, 16)}, r"does not take images of shape \(3, 16, 16\)"),
        ({"denoiser": torch.nn.Bilinear(1, 1, 1)}, "Bilinear does not take images"),
        ({"denoiser": tiny(), "sigma_min": 0.5}, "sigma_max must be > sigma_min"),
    ],
)
def test_what_cannot_be_a_prior_is_refused_with_the_reason(params, match):
    with pytest.raises(ValueError, match=match):
        prior_of(**params)


def test_the_conformance_kit_passes():
    report = testing.run_checks("deepinv-denoiser", "model")
    assert report.ok, [attrs.asdict(result) for result in report.failures]
