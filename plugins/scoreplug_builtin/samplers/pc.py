r"""Predictor-corrector sampling.

At every level: corrector moves at t, which pull the samples towards p_t, then one predictor step t -> s.

References:
    Song, Sohl-Dickstein, Kingma, Kumar, Ermon, Poole: Score-Based Generative Modeling through Stochastic Differential
    Equations. ICLR 2021, arXiv:2011.13456, section 4.2 and appendix G, algorithm 1; the order corrector, predictor is
    that of the authors' code.
"""

from __future__ import annotations

import attrs
from torch import Tensor

from scoreplug import param
from scoreplug.noise import Noise
from scoreplug.param import ParameterError
from scoreplug.protocols import Corrector, Sampler, ScoreModel
from scoreplug.sampler import BaseSampler, State


@attrs.frozen(kw_only=True)
class PredictorCorrector(BaseSampler):
    """Any sampler as the predictor, any corrector; steps and grid are those given here, not the predictor's own."""

    predictor: Sampler = param("em", component="sampler", doc="sampler whose step moves from one level to the next")
    corrector: Corrector = param("langevin", component="sampler", doc="sampler with moves at a fixed level")

    def __attrs_post_init__(self) -> None:
        if not isinstance(self.corrector, Corrector):
            raise ParameterError(
                "pc", [f"corrector must have moves at a fixed level, like 'langevin' (got {self.corrector!r})"]
            )

    def init(self, model: ScoreModel, x: Tensor, noise: Noise) -> State:
        return attrs.evolve(self.predictor.init(model, x, noise), times=self.times(model.sde))

    def step(self, model: ScoreModel, state: State, noise: Noise) -> State:
        x = self.corrector.correct(model, state.x, state.t, noise.at("corrector"))
        return self.predictor.step(model, attrs.evolve(state, x=x), noise.at("predictor"))
