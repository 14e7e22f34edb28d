r"""What a network predicts, by the scheduler that it is saved with.

Each class here states the process that the network was trained under, and how x0 = E[x_0 | x] comes from the network F
at x = x_0 + level z:

* a chain (`DDPMScheduler` and its kin): F is asked about alpha x at the step with this level, with alpha^2 + sigma^2 =
  1 and sigma / alpha = level. "epsilon": x0 = x - level F. "v_prediction": x0 = alpha (alpha x) - sigma F. "sample": x0
  = F.
* `ScoreSdeVeScheduler`: F(x, level) is the score, x0 = x + level^2 F. Images lie in [0, 1].
* `KarrasVeScheduler`: the same network for images in [-1, 1], x0 = x + level^2 / 2 F((x + 1) / 2, level / 2).
* EDM schedulers: x0 = c_skip x + c_out F(c_in x, log(level) / 4), with a minus before c_out for "v_prediction".

Schedulers' clipping (`clip_sample`, `thresholding`) belongs to their samplers and is not done here.

References:
    Ho, Jain, Abbeel: Denoising Diffusion Probabilistic Models. NeurIPS 2020, arXiv:2006.11239.
    Salimans, Ho: Progressive Distillation for Fast Sampling of Diffusion Models. ICLR 2022, arXiv:2202.00512.
    Song, Sohl-Dickstein, Kingma, Kumar, Ermon, Poole: Score-Based Generative Modeling through Stochastic Differential
    Equations. ICLR 2021, arXiv:2011.13456.
    Karras, Aittala, Aila, Laine: Elucidating the Design Space of Diffusion-Based Generative Models. NeurIPS 2022,
    arXiv:2206.00364.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
from torch import Tensor

from scoreplug import SDE, registry
from scoreplug.model import broadcast
from scoreplug_diffusers.chain import Chain
from scoreplug_diffusers.folder import refuse

Network = Callable[[Tensor, Tensor], Tensor]
"""F(x, time): x (B, C, H, W), time () or (B,)."""

CHAINS = tuple(
    f"{name}Scheduler"
    for name in (
        *("DDPM", "DDPMParallel", "DDIM", "DDIMParallel", "DDIMInverse", "PNDM", "RePaint"),
        *("DPMSolverMultistep", "DPMSolverSinglestep", "DEISMultistep", "UniPCMultistep"),
        *("EulerDiscrete", "EulerAncestralDiscrete", "HeunDiscrete", "LMSDiscrete"),
        *("KDPM2Discrete", "KDPM2AncestralDiscrete"),
    )
)
EDMS = ("EDMEulerScheduler", "EDMDPMSolverMultistepScheduler")
SUPPORTED = (*CHAINS, "ScoreSdeVeScheduler", "KarrasVeScheduler", *EDMS)


@attrs.frozen(kw_only=True, eq=False)
class ChainNetwork:
    """A network of a chain of betas."""

    sde: Chain
    prediction: str
    data_range: tuple[float, float] = (-1.0, 1.0)
    data_std: float = 0.5

    @property
    def levels(self) -> tuple[float, float]:
        """The chain's, and one percent around them."""
        low, high = self.sde.log_levels[[0, -1]].exp().tolist()
        return 0.99 * low, 1.01 * high

    def denoise(self, network: Network, x: Tensor, level: Tensor) -> Tensor:
        alpha = 1 / (1 + level**2).sqrt()
        sigma = level * alpha
        alpha_, sigma_, level_ = (broadcast(c, x) for c in (alpha, sigma, level))

        output = network(alpha_ * x, self.sde.index(self.sde.time_of(level)))
        if self.prediction == "epsilon":
            return x - level_ * output
        if self.prediction == "v_prediction":
            return alpha_ * (alpha_ * x) - sigma_ * output
        return output


@attrs.frozen(kw_only=True, eq=False)
class ScoreNetwork:
    """A network that gives the score of images in [0, 1] under noise of its level."""

    sde: SDE
    levels: tuple[float, float]
    data_range: tuple[float, float] = (0.0, 1.0)
    data_std: float = 0.25

    def denoise(self, network: Network, x: Tensor, level: Tensor) -> Tensor:
        return x + broadcast(level, x) ** 2 * network(x, level)


@attrs.frozen(kw_only=True, eq=False)
class CentredScoreNetwork:
    """Such a network, for images in [-1, 1] (Karras et al., eq. 213)."""

    sde: SDE
    levels: tuple[float, float]
    data_range: tuple[float, float] = (-1.0, 1.0)
    data_std: float = 0.5

    def denoise(self, network: Network, x: Tensor, level: Tensor) -> Tensor:
        return x + broadcast(level, x) ** 2 / 2 * network((x + 1) / 2, level / 2)


@attrs.frozen(kw_only=True, eq=False)
class EDMNetwork:
    """A network in the preconditioning of EDM (Karras et al., table 1)."""

    sde: SDE
    levels: tuple[float, float]
    data_std: float
    sign: float
    data_range: tuple[float, float] = (-1.0, 1.0)

    def denoise(self, network: Network, x: Tensor, level: Tensor) -> Tensor:
        s, total = self.data_std, (level**2 + self.data_std**2).sqrt()
        c_skip, c_out, c_in = (broadcast(c, x) for c in ((s / total) ** 2, level * s / total, 1 / total))
        return c_skip * x + self.sign * c_out * network(c_in * x, level.log() / 4)


Parametrization = ChainNetwork | ScoreNetwork | CentredScoreNetwork | EDMNetwork


def parametrization(config: dict[str, Any]) -> Parametrization:
    """The parametrization that a scheduler's config describes.

    Raises:
        ParameterError: if the scheduler is not known, or its config makes no sense.
    """
    name = config.get("_class_name")
    if name in CHAINS:
        return _chain(name, config)
    if name == "ScoreSdeVeScheduler":
        return _score(
            ScoreNetwork, config, sigma_min=0.01, sigma_max=1348.0, t_min=_number(config, "sampling_eps", 1e-5)
        )
    if name == "KarrasVeScheduler":
        return _score(CentredScoreNetwork, config, sigma_min=0.02, sigma_max=100.0)
    if name in EDMS:
        return _edm(config)
    raise refuse(f"the pipeline's scheduler is a {name}, of which no prior is known; known are {', '.join(SUPPORTED)}")


def _chain(name: str, config: dict[str, Any]) -> ChainNetwork:
    import diffusers

    prediction = config.get("prediction_type", "epsilon")
    if prediction not in ("epsilon", "v_prediction", "sample"):
        raise refuse(
            f"the scheduler's prediction_type is {prediction!r}; known are 'epsilon', 'v_prediction' and 'sample'"
        )
    if config.get("timestep_type", "discrete") != "discrete" or config.get("use_flow_sigmas"):
        raise refuse("the scheduler tells the network a level or the time of a flow, not a step (timestep_type)")
    try:
        betas: Tensor = getattr(diffusers, name).from_config(config).betas
    except (ValueError, TypeError, NotImplementedError, ArithmeticError, RuntimeError) as error:
        raise refuse(f"diffusers cannot build the scheduler from its config: {error}") from error
    if betas.ndim != 1 or len(betas) < 2 or not bool(((betas > 0) & (betas <= 1)).all()):
        raise refuse("the scheduler's betas are not two or more numbers in (0, 1]")
    return ChainNetwork(sde=Chain.of_betas(betas), prediction=prediction)


def _score(
    make: type[ScoreNetwork | CentredScoreNetwork],
    config: dict[str, Any],
    *,
    sigma_min: float,
    sigma_max: float,
    t_min: float = 1e-5,
) -> ScoreNetwork | CentredScoreNetwork:
    low, high = _number(config, "sigma_min", sigma_min), _number(config, "sigma_max", sigma_max)
    sde = registry.get_sde("ve", sigma_min=low, sigma_max=high, t_min=t_min)
    return make(sde=sde, levels=(0.99 * low, 1.01 * high))


def _edm(config: dict[str, Any]) -> EDMNetwork:
    prediction = config.get("prediction_type", "epsilon")
    if prediction not in ("epsilon", "v_prediction"):
        raise refuse(f"the scheduler's prediction_type is {prediction!r}; EDM's are 'epsilon' and 'v_prediction'")
    low, high = _number(config, "sigma_min", 0.002), _number(config, "sigma_max", 80.0)
    sde = registry.get_sde("edm", sigma_min=low, sigma_max=high, rho=_number(config, "rho", 7.0))
    return EDMNetwork(
        sde=sde,
        levels=(0.99 * low, 1.01 * high),
        data_std=_number(config, "sigma_data", 0.5),
        sign=1.0 if prediction == "epsilon" else -1.0,
    )


def _number(config: dict[str, Any], key: str, default: float) -> float:
    value = config.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise refuse(f"the scheduler's {key} must be a number > 0 (got {value!r})")
    return float(value)
