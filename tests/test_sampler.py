"""The base class of samplers: grids, loop, chunks and refusals."""

import warnings

import attrs
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from scoreplug import BaseModel, Noise, registry
from scoreplug.model import combination, kernel, rates
from scoreplug.sampler import LevelRangeWarning, time_grid

SDES = [spec.name for spec in registry.list("sde")]


@pytest.mark.parametrize("grid", ["uniform", "quadratic", "rho"])
@pytest.mark.parametrize("name", SDES)
def test_grids_fall_from_one_to_t_min(name, grid):
    sde = registry.get_sde(name)

    times = time_grid(sde, 9, grid)

    assert times.shape == (10,)
    assert times.dtype == torch.float64
    assert times[0] == 1
    assert times[-1] == sde.t_min
    assert bool((times.diff() < 0).all())


@pytest.mark.parametrize("name", SDES)
def test_the_rho_grid_is_that_of_karras(name):
    """level_i = (max^(1/rho) + i/N (min^(1/rho) - max^(1/rho)))^rho."""
    sde = registry.get_sde(name)

    levels = sde.level(time_grid(sde, 6, "rho", 7.0))

    high, low = float(levels[0]), float(levels[-1])
    expected = [(high ** (1 / 7) + i / 6 * (low ** (1 / 7) - high ** (1 / 7))) ** 7 for i in range(7)]
    torch.testing.assert_close(levels, torch.tensor(expected, dtype=torch.float64), rtol=1e-6, atol=0)


def test_the_quadratic_grid_is_uniform_in_the_root():
    roots = time_grid(registry.get_sde("vp"), 8, "quadratic").sqrt()

    torch.testing.assert_close(roots.diff(), roots.diff()[:1].expand(8), rtol=1e-9, atol=0)


def prior():
    return registry.get_model("gaussian", image_shape=(1, 2, 2), covariance=0.5)


def test_chunks_of_samples_are_the_samples_of_one_batch():
    sampler, model = registry.get_sampler("pc", steps=5), prior()
    whole = sampler.sample(model, 5, seed=9)

    for indices in [(0, 1), (2, 3, 4)]:
        noise = Noise(9, indices, dtype=model.dtype, device=model.device)
        *_, state = sampler.trajectory(model, noise)
        torch.testing.assert_close(state.x, whole[list(indices)], rtol=1e-12, atol=1e-12)


def test_the_callback_sees_every_state():
    seen = []
    registry.get_sampler("em", steps=5).sample(prior(), 1, callback=lambda state: seen.append(state.index))

    assert seen == [0, 1, 2, 3, 4, 5, 5]  # five steps, and the denoised end


def test_a_step_is_a_pure_function():
    sampler, model = registry.get_sampler("pc", steps=5), prior()
    noise = Noise(0, (0,), dtype=model.dtype, device=model.device)
    state = sampler.begin(model, noise.at("x").normal(model.shape), noise)
    before = state.x.clone()

    first, second = sampler.step(model, state, noise), sampler.step(model, state, noise)

    assert torch.equal(first.x, second.x)
    assert torch.equal(state.x, before)


@pytest.mark.parametrize("n", [0, -3])
def test_at_least_one_sample(n):
    with pytest.raises(ValueError, match=r"n must be at least 1 \(got"):
        registry.get_sampler("em", steps=2).sample(prior(), n)


@attrs.frozen(kw_only=True, eq=False)
class Limited(BaseModel):
    """A prior made for levels up to 80."""

    base: BaseModel

    sde = property(lambda self: self.base.sde)
    shape = property(lambda self: self.base.shape)
    dtype = property(lambda self: self.base.dtype)
    device = property(lambda self: self.base.device)
    level_range = property(lambda self: (0.002, 80.0))

    def denoise(self, x, t):
        return self.base.denoise(x, t)


def test_asking_a_prior_beyond_its_noise_levels_warns():
    sampler, model = registry.get_sampler("em", steps=2), Limited(base=prior())

    with pytest.warns(LevelRangeWarning, match="made for noise levels 0.002 to 80, but the process runs from 152"):
        sampler.sample(model, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sampler.sample(model.under(registry.get_sde("ve")), 1)


def test_a_start_that_does_not_cover_the_data_is_warned_about():
    """Two modes 400 apart: VP's noise level at t = 1 is 152, EDM's as one likes."""
    means = ((200.0, 0.0), (-200.0, 0.0))
    model = registry.get_model("gaussian-mixture", image_shape=(1, 1, 2), means=means)

    assert model.radius == pytest.approx(200 + 2**0.5)
    with pytest.warns(LevelRangeWarning, match=r"data reach 201 from 0, .* noise of level 152"):
        registry.get_sampler("em", steps=1).sample(model, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        registry.get_sampler("em", steps=1).sample(model.under(registry.get_sde("edm", sigma_max=400.0)), 1)


@pytest.mark.parametrize("name", ["em", "ancestral", "pc", "dpm-solver"])
def test_a_step_costs_no_more_than_twenty_operators(name):
    """Of torch, beside the model's: arithmetic on x and the check for NaN, once the levels are known."""

    @attrs.frozen(kw_only=True, eq=False)
    class Identity(BaseModel):
        sde: object = registry.get_sde("vp")
        shape: tuple = (1, 4, 4)
        dtype: torch.dtype = torch.float32
        device: torch.device = torch.device("cpu")

        def denoise(self, x, t):
            return x

    class Count(TorchDispatchMode):
        calls = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            Count.calls += 1
            return func(*args, **(kwargs or {}))

    model, sampler = Identity(), registry.get_sampler(name, steps=12)
    sampler.sample(model, 1)
    noise = Noise(0, (0,), dtype=model.dtype, device=model.device)
    trajectory = sampler.trajectory(model, noise)
    next(trajectory), next(trajectory)

    with Count():
        for _ in range(8):
            next(trajectory)

    assert Count.calls <= 8 * 20


@pytest.mark.parametrize("sde", [spec.name for spec in registry.list("sde")])
def test_the_numbers_of_a_level_are_the_processs(sde):
    process, t = registry.get_sde(sde), torch.tensor(0.4, dtype=torch.float64)

    assert kernel(process, t) == (float(process.alpha(t)), float(process.sigma(t)))
    assert rates(process, t) == (float(process.drift(t)), float(process.diffusion(t)))


def test_a_combination_takes_numbers_and_one_coefficient_for_each_sample():
    x, z = torch.arange(6.0).reshape(2, 3), torch.ones(2, 3)
    each = torch.tensor([[2.0], [3.0]])

    torch.testing.assert_close(combination((0.5, x), (-2.0, z), (each, x)), 0.5 * x - 2 * z + each * x)
