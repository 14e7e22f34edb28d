"""The spread that networks state: the held-out curve of their checkpoint, or that of white images."""

import pytest
import torch

from scoreplug import registry

SMALL = {
    "image_shape": (1, 8, 8),
    "model_channels": 32,
    "channel_mult": (1,),
    "num_res_blocks": 1,
    "attention_levels": (),
    "num_heads": 1,
}


def test_a_shipped_prior_states_its_held_out_curve():
    prior = registry.get_model("ellipses-64")
    curve = prior.description["curve"]
    levels = torch.tensor([point["level"] for point in curve], dtype=torch.float64)
    errors = torch.tensor([point["rmse"] for point in curve], dtype=torch.float64)

    t = prior.sde.time_of(levels)

    torch.testing.assert_close(prior.spread(t), errors, rtol=1e-9, atol=0)  # time_of and level are inverse to 1e-12
    between = (levels[3] * levels[4]).sqrt()  # halfway in log level, where the logarithm is the mean
    torch.testing.assert_close(
        prior.spread(prior.sde.time_of(between)), (errors[3] * errors[4]).sqrt(), rtol=1e-9, atol=0
    )
    # below the curve a constant share of the level, above it constant
    low = prior.spread(prior.sde.time_of(levels[0] / 2))
    torch.testing.assert_close(low, errors[0] / 2, rtol=1e-9, atol=0)
    torch.testing.assert_close(prior.spread(prior.sde.time_of(2 * levels[-1])), errors[-1], rtol=1e-9, atol=0)


def test_it_is_the_same_under_every_sde():
    prior = registry.get_model("digits-32")
    ve = prior.under(registry.get_sde("ve"))
    t = torch.tensor(0.4, dtype=torch.float64)

    torch.testing.assert_close(ve.spread(ve.sde.time_of(prior.sde.level(t))), prior.spread(t), rtol=1e-9, atol=0)


@pytest.mark.parametrize(
    ("params", "s"),
    [({"prediction": "edm", "data_std": 0.3}, 0.3), ({"prediction": "epsilon"}, 0.5)],
    ids=["edm", "epsilon"],
)
def test_without_a_curve_it_is_that_of_white_images(params, s):
    model = registry.get_model("openai-unet", **SMALL, **params)
    t = torch.tensor([0.1, 0.5, 1.0], dtype=torch.float64)

    level = model.sde.level(t)
    expected = (1 / (1 / level**2 + 1 / s**2)).sqrt()  # precisions add
    torch.testing.assert_close(model.spread(t), expected, rtol=1e-12, atol=0)
