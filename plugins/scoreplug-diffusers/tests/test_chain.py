from __future__ import annotations

import torch
from scoreplug_diffusers.chain import Chain

from scoreplug import registry


def test_the_chain_of_ho_et_al_is_the_built_in_process():
    ours = Chain.of_betas(torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64))
    theirs = registry.get_sde("ddpm")
    t = torch.tensor([1e-3, 0.0123, 0.5, 0.98765, 1.0], dtype=torch.float64)
    for what in ("alpha", "sigma", "drift", "diffusion"):
        torch.testing.assert_close(getattr(ours, what)(t), getattr(theirs, what)(t), rtol=1e-9, atol=1e-12)


def test_time_is_the_inverse_of_the_level_outside_the_chain_too():
    chain = Chain.of_betas(torch.linspace(1e-3, 0.2, 50))
    t = torch.tensor([0.005, 0.02, 0.3333, 1.0, 1.01], dtype=torch.float64)
    torch.testing.assert_close(chain.time_of(chain.sigma(t) / chain.alpha(t)), t, rtol=1e-9, atol=1e-12)


def test_indices_are_steps_and_stay_within_the_chain():
    chain = Chain.of_betas(torch.full((4,), 0.1))
    t = torch.tensor([0.1, 0.25, 0.625, 1.0, 1.2], dtype=torch.float64)
    assert chain.index(t).tolist() == [0.0, 0.0, 1.5, 3.0, 3.0]
    assert chain.t_min == 0.25
