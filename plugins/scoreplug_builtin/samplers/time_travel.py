r"""Time travel (RePaint): after some steps down, noise is added to go up again, and the steps are taken anew.

    down:  x_t -> x_s by a step of `inner`, its projection included
    up:    x_t = (alpha_t / alpha_s) x_s + alpha_t (level_t^2 - level_s^2)^{1/2} z,    level = sigma / alpha

The grid is cut into stretches of `jump` steps, from t_min upwards. Each is walked down `repeats` times, with a jump up
to its upper end in between. Going up is the forward process itself and keeps p_t exactly; what repetition changes is
what a projection has done to the state: the unmeasured part gets as many occasions to follow the measured one. With
`song` and weight 1 the moves down and up are, for small steps, a Gibbs sampler of the unmeasured part given y_s, so
that the bias of replacement shrinks as the repeats grow. For two unit normal variables of correlation .5, x_1 = y
measured without noise, 100 steps of the rho grid under ve and 1 / 2 / 5 / 20 repeats, x_2 has the mean .260 y / .345 y
/ .425 y / .480 y with jump = 1 and .260 y / .337 y / .411 y / .469 y with jump = 10, where .5 y is right. Its variance
falls from .756 to .675 (.75 is right), since the ancestral steps are too narrow. `ddnm` goes from .437 y to .496 y; the
variance that its fresh noise costs, .549 to .560 being left, does not come back.

The state's times go up and down. What `inner` keeps between steps, a history, begins anew after a jump. The cost is
`repeats` times that of `steps` steps. RePaint takes 250 steps, jumps of 10 and 10 repeats, and does not repeat the
first stretch; DDNM jumps from every level.

References:
    Lugmayr, Danelljan, Romero, Yu, Timofte, Van Gool: RePaint: Inpainting using Denoising Diffusion Probabilistic
    Models. CVPR 2022, arXiv:2201.09865, algorithm 1. Wang, Yu, Zhang: Zero-Shot Image Restoration Using Denoising
    Diffusion Null-Space Model. ICLR 2023, arXiv:2212.00490.
"""

from __future__ import annotations

import attrs
from torch import Tensor

from scoreplug import param
from scoreplug.noise import Noise
from scoreplug.protocols import Sampler, ScoreModel
from scoreplug.sampler import BaseSampler, State


@attrs.frozen(kw_only=True)
class TimeTravel(BaseSampler):
    """Any sampler, every stretch of whose grid is repeated; steps and grid are those given here, not its own."""

    steps: int = param(250, ge=1, doc="number of steps from t = 1 to t_min, without repetitions")
    inner: Sampler = param("ancestral", component="sampler", doc="sampler whose step moves from one level to the next")
    repeats: int = param(10, ge=1, doc="how often each stretch is walked down; 1 is the inner sampler alone")
    jump: int = param(10, ge=1, doc="steps of a stretch")

    def init(self, model: ScoreModel, x: Tensor, noise: Noise) -> State:
        return attrs.evolve(self.inner.init(model, x, noise), times=self.travelled(self.times(model.sde)))

    def step(self, model: ScoreModel, state: State, noise: Noise) -> State:
        if state.s < state.t:
            return self.inner.step(model, state, noise)
        x = raised(model, state, noise.at("up"))
        return state.next(x, carry=self.inner.init(model, x, noise).carry)

    def travelled(self, times: Tensor) -> Tensor:
        """Every level in the order of the journey."""
        last = len(times) - 1
        path = [0]
        for lower in range(last % self.jump or self.jump, last + 1, self.jump):
            upper = path[-1]
            path += [*range(upper + 1, lower + 1), *([*range(upper, lower + 1)] * (self.repeats - 1))]
        return times[path]


def raised(model: ScoreModel, state: State, noise: Noise) -> Tensor:
    """x at the next level, which is the noisier one, by the forward process, (B, *shape)."""
    alpha_s, alpha_t = model.sde.alpha(state.t), model.sde.alpha(state.s)
    level_s, level_t = model.sde.sigma(state.t) / alpha_s, model.sde.sigma(state.s) / alpha_t
    added = alpha_t * (level_t**2 - level_s**2).sqrt()
    return alpha_t / alpha_s * state.x + added * noise.normal(model.shape)
