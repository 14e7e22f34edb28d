"""Figures of merit of image samples: of each and of their mean, against the same facts in one place."""

import math
import sys
import types

import numpy as np
import pytest
import torch

from scoreplug import Measurement, registry
from scoreplug.bench.metrics import crps, image_metrics, interval_coverage, lpips, spread_skill
from scoreplug.bench.metrics.images import _network

SHAPE = (1, 12, 12)


def problem(shape=SHAPE, noise_std=0.1):
    truth = torch.linspace(0, 1, math.prod(shape), dtype=torch.float64).reshape(shape)
    return Measurement(registry.get_operator("identity", image_shape=shape), truth, noise_std), truth


def test_samples_and_their_mean_are_judged_apart_and_none_is_picked():
    """Off by +-0.1 and +-0.2: 20 and 13.98 dB, on average 16.99 and not the best; the mean is exact."""
    measurement, truth = problem()
    x = truth + torch.tensor([0.1, -0.1, 0.2, -0.2])[:, None, None, None]

    found = image_metrics(x, measurement, truth, (0.0, 1.0))

    assert found["psnr"] == pytest.approx(-10 * math.log10(0.1 * 0.2), rel=1e-6)
    assert found["psnr_mean"] > 100  # float32 offsets
    assert found["residual"] == pytest.approx(1.5, rel=1e-6)
    assert found["residual_mean"] == pytest.approx(0, abs=1e-6)
    assert found["ssim"] < found["ssim_mean"]


def test_what_concerns_all_samples_is_that_of_the_metrics_of_forecasts():
    measurement, truth = problem()
    x = truth + 0.1 * torch.from_numpy(np.random.default_rng(0).standard_normal((19, *SHAPE)))

    found = image_metrics(x, measurement, truth, (0.0, 1.0))

    half, most = interval_coverage(x, truth, level=0.5), interval_coverage(x, truth, level=0.9)
    assert found["crps"] == crps(x, truth)
    assert found["spread_skill"] == spread_skill(x, truth)
    assert (found["coverage_50"], found["target_50"]) == (half.covered, half.target)
    assert (found["coverage_90"], found["target_90"], found["width_90"]) == (most.covered, most.target, most.width)


def test_psnr_is_relative_to_the_range():
    """Twice the range is 6.02 dB."""
    measurement, truth = problem()
    one, two = (image_metrics(truth[None] + 0.1, measurement, truth, limits) for limits in [(0.0, 1.0), (-1.0, 1.0)])

    assert two["psnr"] - one["psnr"] == pytest.approx(20 * math.log10(2), rel=1e-9)


def test_nothing_is_clipped():
    """The truth ends at 1; a sample at 1.5 everywhere above it is off by what it is off."""
    measurement, truth = problem()

    assert image_metrics(truth[None] + 0.5, measurement, truth, (0.0, 1.0))["psnr"] == pytest.approx(6.0206, abs=1e-4)


def test_what_cannot_be_told_is_none():
    measurement, truth = problem(shape=(1, 8, 8), noise_std=0.0)

    found = image_metrics(truth[None], measurement, truth, (0.0, 1.0))

    missing = {key for key, value in found.items() if value is None}
    assert missing == {
        *("ssim", "ssim_mean", "residual", "residual_mean", "lpips", "lpips_mean", "crps", "spread_skill"),
        *("coverage_50", "target_50", "coverage_90", "target_90", "width_90"),
    }


@pytest.fixture
def packages(monkeypatch, tmp_path):
    """Stand-ins of lpips and torchvision: the network is the mean absolute difference."""

    class Network(torch.nn.Module):
        def forward(self, x, y):
            seen.append((x, y))
            return (x - y).abs().mean(dim=(1, 2, 3), keepdim=True)

    seen = []
    fake = types.SimpleNamespace(LPIPS=lambda net, verbose: Network())
    entry = types.SimpleNamespace(url="https://example.org/models/alexnet-owt-7be5be79.pth")
    models = types.SimpleNamespace(AlexNet_Weights=types.SimpleNamespace(IMAGENET1K_V1=entry))
    monkeypatch.setitem(sys.modules, "lpips", fake)
    monkeypatch.setitem(sys.modules, "torchvision", types.SimpleNamespace(models=models))
    monkeypatch.setitem(sys.modules, "torchvision.models", models)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    _network.cache_clear()
    yield types.SimpleNamespace(weights=tmp_path / "checkpoints" / "alexnet-owt-7be5be79.pth", seen=seen)
    _network.cache_clear()


def test_lpips_sees_three_channels_between_minus_one_and_one(packages):
    """Samples off by a quarter and by a half of the range are 1/2 and 1 away on [-1, 1]; the average is 3/4."""
    packages.weights.parent.mkdir()
    packages.weights.touch()
    truth = torch.full((1, 32, 32), 2.0)
    x = truth + torch.tensor([1.0, 2.0])[:, None, None, None]

    assert lpips(x, truth, (2.0, 6.0)) == pytest.approx(0.75, rel=1e-6)
    assert all(image.shape == (1, 3, 32, 32) for pair in packages.seen for image in pair)
    assert packages.seen[0][1].unique().tolist() == [-1.0]
    assert lpips(x[:, :, :31], truth[:, :31], (2.0, 6.0)) is None
    assert lpips(x.expand(-1, 2, -1, -1), truth.expand(2, -1, -1), (2.0, 6.0)) is None


def test_lpips_without_local_weights_is_none_and_downloads_nothing(packages):
    assert lpips(np.zeros((1, 1, 32, 32)), np.zeros((1, 32, 32)), (0.0, 1.0)) is None
    assert not packages.seen


def test_lpips_without_its_package_is_none(packages, monkeypatch):
    packages.weights.parent.mkdir()
    packages.weights.touch()
    monkeypatch.setitem(sys.modules, "lpips", None)  # import raises ModuleNotFoundError

    assert lpips(np.zeros((1, 1, 32, 32)), np.zeros((1, 32, 32)), (0.0, 1.0)) is None


def test_what_does_not_fit_is_refused():
    measurement, truth = problem()

    with pytest.raises(ValueError, match="low < high"):
        image_metrics(truth[None], measurement, truth, (1.0, 1.0))
    with pytest.raises(ValueError, match="do not fit"):
        image_metrics(truth, measurement, truth, (0.0, 1.0))
