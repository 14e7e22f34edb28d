"""The discrete chain against the original's tables and steps, and against what must hold of any chain."""

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from scoreplug_builtin.models._discrete import (
    DiscreteSchedule,
    denoised,
    grey_value_log_likelihood,
    kept_steps,
    kl,
)

GOLDEN = Path(__file__).parents[2] / "golden"
CHAINS = {"linear": DiscreteSchedule.linear, "cosine": DiscreteSchedule.cosine}


def load(name: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    with safe_open(GOLDEN / f"{name}.safetensors", "pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}, file.metadata()


STEPS, _ = load("diffusion_steps")
RESPACING, _ABOUT = load("diffusion_respacing")
RESPACED = json.loads(_ABOUT["cases"])
P = sorted({key.removesuffix(".pred_xstart") for key in STEPS if key.endswith(".pred_xstart")})


def p_of(key: str):
    """The transition that a golden key like "linear.p.epsilon.learned_range.clip" names."""
    chain, _, prediction, variance, clip = key.split(".")
    output = STEPS["model_output"] if variance.startswith("learned") else STEPS["model_output"][:, :3]
    prediction = {"start_x": "x0"}.get(prediction, prediction)
    return CHAINS[chain]().p(
        STEPS["x"], STEPS["t"], output, prediction=prediction, variance=variance, clip=clip == "clip"
    )


def assert_golden(value: Tensor, key: str, *, conditioning: float = 1.0) -> None:
    """Equal to float32 rounding: ten operations of 6e-8 each, relative to the largest value of the same sample.

    Per sample, since the four samples are at very different levels.
    """
    expected = STEPS[key]
    scale = expected.abs().reshape(4, -1).amax(1).clamp(min=1e-30).reshape(-1, *(1 for _ in expected.shape[1:]))
    torch.testing.assert_close(
        value / scale, expected / scale, rtol=0, atol=6e-7 * conditioning, msg=lambda text: f"{key}: {text}"
    )


# Tables ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chain", CHAINS)
def test_tables_equal_the_original(chain):
    golden, _ = load(f"diffusion_schedule_{chain}")
    schedule = CHAINS[chain]()
    tables = {
        "betas": schedule.betas,
        "alphas_cumprod": schedule.alpha_bar,
        "alphas_cumprod_prev": schedule.alpha_bar_previous,
        "alphas_cumprod_next": schedule.alpha_bar_next,
        "sqrt_alphas_cumprod": schedule.alpha_bar.sqrt(),
        "sqrt_one_minus_alphas_cumprod": (1 - schedule.alpha_bar).sqrt(),
        "log_one_minus_alphas_cumprod": (1 - schedule.alpha_bar).log(),
        "sqrt_recip_alphas_cumprod": (1 / schedule.alpha_bar).sqrt(),
        "sqrt_recipm1_alphas_cumprod": (1 / schedule.alpha_bar - 1).sqrt(),
        "posterior_variance": schedule.posterior_variance,
        "posterior_log_variance_clipped": schedule.posterior_log_variance,
        "posterior_mean_coef1": schedule.posterior_mean_x0,
        "posterior_mean_coef2": schedule.posterior_mean_x,
    }

    assert tables.keys() == golden.keys()
    for name, table in tables.items():
        # Products of 1000 factors in float64 round by 1000 x 1e-16; 1 - alpha_bar and the cosine chain's first betas of
        # 4e-5 lose four or five digits more.
        torch.testing.assert_close(table, golden[name], rtol=1e-10, atol=1e-14, msg=lambda text, n=name: f"{n}: {text}")


@pytest.mark.parametrize("case", [case for case in RESPACED if f"{case}.betas" in RESPACING])
def test_respaced_tables_equal_the_original(case):
    about = RESPACED[case]
    schedule = CHAINS[about["schedule"]](about["steps"]).respaced(about["timestep_respacing"])

    assert len(schedule.betas) == about["num_timesteps"]
    for name, table in {
        "betas": schedule.betas,
        "alphas_cumprod": schedule.alpha_bar,
        "alphas_cumprod_prev": schedule.alpha_bar_previous,
        "posterior_variance": schedule.posterior_variance,
        "posterior_log_variance_clipped": schedule.posterior_log_variance,
    }.items():
        # As above; the chain of 4000 cosine steps begins with betas of 1e-5.
        torch.testing.assert_close(
            table, RESPACING[f"{case}.{name}"], rtol=1e-9, atol=1e-14, msg=lambda text, n=name: f"{n}: {text}"
        )


@pytest.mark.parametrize("case", [case for case in RESPACED if case.startswith("linear")])
def test_the_network_is_told_the_step_of_the_original_chain(case):
    about = RESPACED[case]
    schedule = DiscreteSchedule.linear(about["steps"]).respaced(about["timestep_respacing"])
    golden = {key: RESPACING[f"{case}.{key}"] for key in ("timestep_map", "query_index", "model_timesteps")}

    assert torch.equal(schedule.timestep_map, golden["timestep_map"])
    told = schedule.network_index(golden["query_index"], rescaled=about["rescale_timesteps"])
    assert torch.equal(told, golden["model_timesteps"])


def test_kept_steps_of_ddim_begin_at_zero_and_miss_the_last():
    assert kept_steps(1000, "ddim50") == tuple(range(0, 1000, 20))


def test_kept_steps_of_sections_are_spread_over_each_section():
    assert kept_steps(10, "2,3") == (0, 4, 5, 7, 9)
    assert kept_steps(7, "1,1") == (0, 4)  # the remainder goes to the first section


@pytest.mark.parametrize(
    ("spacing", "message"),
    [
        ("ddim600", r"no whole stride takes 600 of 1000 steps \(got 'ddim600'\)"),
        ("600,1", r"section 0 has 500 steps, of which 600 cannot be kept"),
        ("10,x", r"'ddimN' or positive numbers like '10,15,20' \(got '10,x'\)"),
        ("0", r"positive numbers"),
        ("ddim", r"positive numbers"),
    ],
)
def test_impossible_spacings_are_refused(spacing, message):
    with pytest.raises(ValueError, match=message):
        DiscreteSchedule.linear().respaced(spacing)


@pytest.mark.parametrize("betas", [[0.1], [0.1, 0.0], [0.1, 1.1]])
def test_impossible_betas_are_refused(betas):
    with pytest.raises(ValueError, match=r"two or more numbers in \(0, 1\]"):
        DiscreteSchedule(
            betas=torch.tensor(betas, dtype=torch.float64), timestep_map=torch.arange(len(betas)), original_steps=2
        )


# Levels ---------------------------------------------------------------------------------------------------------------


def level_vp(t: float) -> Tensor:
    """sigma / alpha of the VP process with beta(t) = 0.1 + 19.9 t."""
    return torch.tensor(math.sqrt(math.expm1(0.1 * t + 19.9 * t**2 / 2)), dtype=torch.float64)


@pytest.mark.parametrize(("t", "index"), [(0.01, 9.33), (0.1, 99.39), (0.5, 498.40), (0.9, 896.33), (1.0, 995.64)])
def test_index_of_the_continuous_process(t, index):
    """Worked out by hand from the two formulas; the tables there are rounded to 0.01."""
    assert DiscreteSchedule.linear().index_of_level(level_vp(t)).item() == pytest.approx(index, abs=0.005)


@pytest.mark.parametrize("chain", CHAINS)
def test_index_of_a_level_of_the_chain_is_its_own(chain):
    schedule = CHAINS[chain]()
    level = ((1 - schedule.alpha_bar) / schedule.alpha_bar).sqrt()

    # alpha_bar near 1 keeps 12 digits of 1 - alpha_bar, and one index is 1 % of it at least
    torch.testing.assert_close(
        schedule.index_of_level(level), torch.arange(1000, dtype=torch.float64), rtol=0, atol=1e-8
    )


def test_index_between_two_levels_is_linear_in_log_alpha_bar():
    schedule = DiscreteSchedule.linear()
    a, b = schedule.alpha_bar[300].log(), schedule.alpha_bar[301].log()
    alpha_bar = torch.exp(0.75 * a + 0.25 * b)

    index = schedule.index_of_level(((1 - alpha_bar) / alpha_bar).sqrt())

    assert index.item() == pytest.approx(300.25, abs=1e-9)


def test_levels_outside_the_chain_get_its_ends():
    index = DiscreteSchedule.linear().index_of_level(torch.tensor([0.0, 1e-4, 1e4, 1e300], dtype=torch.float64))

    assert index.tolist() == [0, 0, 999, 999]


# Steps ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chain", CHAINS)
def test_forward_chain_equals_the_original(chain):
    schedule, t = CHAINS[chain](), STEPS["t"]
    x, x0, noise = STEPS["x"], STEPS["x0"], STEPS["noise"]
    q, posterior = schedule.q(x0, t), schedule.q_posterior(x0, x, t)

    assert_golden(schedule.q_sample(x0, t, noise), f"{chain}.q_sample")
    assert_golden(q.mean, f"{chain}.q.mean")
    assert_golden(q.variance, f"{chain}.q.variance")
    assert_golden(q.log_variance, f"{chain}.q.log_variance")
    assert_golden(posterior.mean, f"{chain}.q_posterior.mean")
    assert_golden(posterior.variance, f"{chain}.q_posterior.variance")
    assert_golden(posterior.log_variance, f"{chain}.q_posterior.log_variance_clipped")
    assert_golden(schedule.x0_from_eps(x, noise, t), f"{chain}.x0_from_eps")
    assert_golden(schedule.eps_from_x0(x, x0, t), f"{chain}.eps_from_x0")


@pytest.mark.parametrize("key", P)
def test_reverse_step_equals_the_original(key):
    p = p_of(key)

    assert_golden(p.x0, f"{key}.pred_xstart")
    assert_golden(p.mean, f"{key}.mean")
    assert_golden(p.variance, f"{key}.variance", conditioning=10)  # exp(log variance), where the logarithm is about -10
    assert_golden(p.log_variance, f"{key}.log_variance")
    assert_golden(p.draw(STEPS["t"], STEPS["noise"]), f"{key}.ancestral")


def assert_ddim_golden(value: Tensor, key: str, eps: Tensor, *, direct: Tensor, drawn: Tensor) -> None:
    """Equal to the rounding of the original, which subtracts alpha_bar from 1 in float32.

    The difference d is off by three roundings of 6e-8, so sqrt(d) by 3 x 6e-8 / (2 sqrt(d)): at t = 1, d = 1e-4, that
    is a thousandth of it. It multiplies eps, and in the variance `drawn` the fresh noise, whose values are below 4.
    """
    expected = STEPS[key]
    error = 9e-8 * (eps.abs().amax((1, 2, 3)) / direct.sqrt() + 4 / drawn.sqrt())
    allowed = 2e-6 * expected.abs().amax((1, 2, 3)) + torch.where(direct > 0, error, 0)

    assert ((value - expected).abs().amax((1, 2, 3)) <= allowed).all(), key


@pytest.mark.parametrize("key", [key for key in P if f"{key}.ddim_eta0.0" in STEPS])
@pytest.mark.parametrize("stochasticity", [0.0, 0.5, 1.0])
def test_ddim_step_equals_the_original(key, stochasticity):
    schedule = CHAINS[key.split(".")[0]]()
    x, t, noise, x0 = STEPS["x"], STEPS["t"], STEPS["noise"], p_of(key).x0

    value = schedule.ddim(x, x0, t, noise, stochasticity=stochasticity)

    drawn = schedule.posterior_variance[t]
    direct = (1 - schedule.alpha_bar_previous[t]) - stochasticity**2 * drawn
    eps = schedule.eps_from_x0(x, x0, t)
    assert_ddim_golden(value, f"{key}.ddim_eta{stochasticity}", eps, direct=direct, drawn=drawn)


@pytest.mark.parametrize("key", [key for key in P if f"{key}.ddim_reverse" in STEPS])
def test_reversed_ddim_step_equals_the_original(key):
    schedule = CHAINS[key.split(".")[0]]()
    x, t, x0 = STEPS["x"], STEPS["t"], p_of(key).x0

    value = schedule.ddim_reverse(x, x0, t)

    direct = 1 - schedule.alpha_bar_next[t]
    eps = schedule.eps_from_x0(x, x0, t)
    assert_ddim_golden(value, f"{key}.ddim_reverse", eps, direct=direct, drawn=direct)


@pytest.mark.parametrize("key", [key for key in P if f"{key}.ancestral_cond" in STEPS])
def test_guided_steps_equal_the_original(key):
    schedule = CHAINS[key.split(".")[0]]()
    x, t, noise, gradient = STEPS["x"], STEPS["t"], STEPS["noise"], STEPS["cond_grad"]
    p = p_of(key)
    x0 = schedule.guided_x0(x, p.x0, t, gradient)

    assert_golden(p.guided(gradient).draw(t, noise), f"{key}.ancestral_cond")
    value, direct = schedule.ddim(x, x0, t, noise, stochasticity=0.0), 1 - schedule.alpha_bar_previous[t]
    eps = schedule.eps_from_x0(x, x0, t)
    assert_ddim_golden(value, f"{key}.ddim_eta0.0_cond", eps, direct=direct, drawn=direct)


@pytest.mark.parametrize("chain", CHAINS)
@pytest.mark.parametrize("loss", ["mse", "rescaled_mse"])
def test_training_loss_equals_the_original(chain, loss):
    schedule = CHAINS[chain]()
    mse, bound = schedule.hybrid_loss(
        STEPS["x0"], STEPS["t"], STEPS["noise"], STEPS["model_output"], rescale=loss == "rescaled_mse"
    )

    assert_golden(mse, f"{chain}.train.{loss}.mse")
    assert_golden(bound, f"{chain}.train.{loss}.vb", conditioning=20)  # differences of means divided by sigma = 0.01
    assert_golden(mse + bound, f"{chain}.train.{loss}.loss", conditioning=20)


@pytest.mark.parametrize("chain", CHAINS)
def test_prior_bound_equals_the_original(chain):
    # exp(log variance) - 1 - log variance with variance = 1 - 4e-5 cancels: its float32 rounding is 6e-8 absolute
    torch.testing.assert_close(CHAINS[chain]().prior_bound(STEPS["x0"]), STEPS[f"{chain}.prior_bpd"], rtol=0, atol=2e-7)


# What must hold of any chain ------------------------------------------------------------------------------------------


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("chain", CHAINS)
def test_posterior_is_bayes_rule(chain):
    """q(x_{t-1} | x_0) q(x_t | x_{t-1}) = q(x_t | x_0) q(x_{t-1} | x_t, x_0), as densities in one dimension."""

    def log_normal(x: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
        return -((x - mean) ** 2) / (2 * variance) - variance.log() / 2

    schedule, t = CHAINS[chain](), torch.tensor([1, 20, 500, 998])
    x0, x, before = normal(4, 1, seed=0), normal(4, 1, seed=1), normal(4, 1, seed=2)
    beta = schedule.betas[t][:, None]
    posterior, earlier, later = schedule.q_posterior(x0, x, t), schedule.q(x0, t - 1), schedule.q(x0, t)

    left = log_normal(before, earlier.mean, earlier.variance) + log_normal(x, (1 - beta).sqrt() * before, beta)
    right = log_normal(x, later.mean, later.variance) + log_normal(before, posterior.mean, posterior.variance)

    # float64; squares divided by variances down to 1e-4, themselves of 12 digits: 1e4 x 1e-12
    torch.testing.assert_close(left, right, rtol=1e-8, atol=0)


@pytest.mark.parametrize("prediction", ["epsilon", "x0", "v"])
def test_every_prediction_of_the_truth_gives_x0(prediction):
    x0, eps = normal(2, 3, seed=0), normal(2, 3, seed=1)
    alpha, sigma = torch.tensor(0.6, dtype=torch.float64), torch.tensor(0.8, dtype=torch.float64)
    output = {"epsilon": eps, "x0": x0, "v": alpha * eps - sigma * x0}[prediction]

    # three operations in float64
    torch.testing.assert_close(
        denoised(prediction, output, alpha * x0 + sigma * eps, alpha, sigma), x0, rtol=1e-14, atol=1e-14
    )


def test_deterministic_steps_keep_the_noise():
    """With eta = 0 and the true x0, DDIM goes along x_t = alpha x_0 + sigma eps with the same eps, both ways."""
    schedule, t = DiscreteSchedule.linear(), torch.tensor([500])
    x0, eps = normal(1, 3, seed=0), normal(1, 3, seed=1)
    x = schedule.q_sample(x0, t, eps)

    forth, back = schedule.ddim_reverse(x, x0, t), schedule.ddim(x, x0, t, eps, stochasticity=0.0)

    # float64, and divided by sigma = 0.96
    torch.testing.assert_close(forth, schedule.q_sample(x0, t + 1, eps), rtol=1e-13, atol=0)
    torch.testing.assert_close(back, schedule.q_sample(x0, t - 1, eps), rtol=1e-13, atol=0)


def test_divergence_is_that_of_the_closed_form():
    """KL(N(0, 1) || N(1, e)) = (log e - 1 + (1 + 1) / e) / 2 = 1 / e."""
    zero, one = torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)

    assert kl(zero, zero, one, one).item() == pytest.approx(math.exp(-1), abs=1e-15)
    assert kl(one, zero, one, zero).item() == 0


def test_grey_values_have_total_probability_one():
    grey = (torch.arange(256, dtype=torch.float64) / 127.5) - 1
    for mean, log_variance in ((0.0, -2.0), (-1.2, -6.0), (0.99, 1.0)):
        mass = grey_value_log_likelihood(grey, torch.tensor(mean), torch.tensor(log_variance)).exp()

        # neighbouring cells share their border to rounding; cells without mass are raised to 1e-12
        assert mass.sum().item() == pytest.approx(1, abs=1e-9)


def test_the_bound_trains_the_variance_alone():
    output = STEPS["model_output"].clone().requires_grad_()
    _, bound = DiscreteSchedule.linear().hybrid_loss(STEPS["x0"], STEPS["t"], STEPS["noise"], output, rescale=False)
    (gradient,) = torch.autograd.grad(bound.sum(), output)

    assert not gradient[:, :3].any()
    assert gradient[:, 3:].any()
