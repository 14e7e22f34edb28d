"""The inpainting operator."""

import numpy as np
import pytest
import torch

from scoreplug import registry


def inpainting(image_shape=(1, 4, 6), **params):
    return registry.get_operator("inpainting", image_shape=image_shape, **params)


def numbered(shape):
    """An image whose pixel k has the value k."""
    return torch.arange(int(np.prod(shape)), dtype=torch.float64).reshape(1, *shape)


def hidden(A):
    return {tuple(p) for p in (~A.observed).nonzero().tolist()}


def test_measures_the_observed_pixels_in_their_order():
    """Row by row, channel after channel, and nothing else."""
    A = inpainting((2, 2, 2), mask=torch.tensor([[1, 0], [0, 1]]))

    assert A.output_shape == (4,)
    assert A(numbered((2, 2, 2))).tolist() == [[0, 3, 4, 7]]
    assert A.adjoint(torch.tensor([[5.0, 6.0, 7.0, 8.0]])).tolist() == [[[[5, 0], [0, 6]], [[7, 0], [0, 8]]]]


def test_a_box_hides_its_pixels():
    """top, left, height, width."""
    assert hidden(inpainting(box=(1, 3, 2, 3))) == {(0, r, c) for r in (1, 2) for c in (3, 4, 5)}


def test_the_default_box_is_half_as_large_as_the_image_and_central():
    """Rows 1-2 of 4, columns 1-3 of 6: a box of odd width cannot be central to better than half a pixel."""
    assert hidden(inpainting()) == {(0, r, c) for r in (1, 2) for c in (1, 2, 3)}
    assert hidden(inpainting((1, 8, 8))) == {(0, r, c) for r in (2, 3, 4, 5) for c in (2, 3, 4, 5)}


@pytest.mark.parametrize(
    ("side", "rows", "columns"),
    [
        ("left", range(5), range(3)),
        ("right", range(5), range(4, 7)),
        ("top", range(2), range(7)),
        ("bottom", range(3, 5), range(7)),
    ],
)
def test_half_hides_the_named_side(side, rows, columns):
    """Of an odd number the middle stays."""
    A = inpainting((1, 5, 7), mask="half", side=side)

    assert hidden(A) == {(0, r, c) for r in rows for c in columns}


def test_a_random_mask_has_the_exact_fraction_in_all_channels():
    """round(0.3 * 100) pixels, the same ones in each channel."""
    A = inpainting((3, 10, 10), mask="random", fraction=0.3)

    assert A.output_shape == (90,)
    assert torch.equal(A.observed[0], A.observed[1])
    assert torch.equal(A.observed[0], A.observed[2])


def test_a_random_mask_follows_its_seed():
    """The same seed gives the same mask, another one another."""
    masks = [inpainting((1, 10, 10), mask="random", seed=seed).observed for seed in (0, 0, 1)]

    assert torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[0], masks[2])


def test_a_random_mask_favours_no_part_of_the_image():
    """Over 200 seeds each pixel is seen about 0.3 of the times."""
    seen = sum(inpainting((1, 6, 6), mask="random", seed=s, fraction=0.3).observed.double() for s in range(200)) / 200

    # binomial standard deviation sqrt(0.3 * 0.7 / 200) = 0.032; 5 of them over 36 pixels fail by chance once in 5e4
    assert (seen - round(0.3 * 36) / 36).abs().max() < 0.16


@pytest.mark.parametrize("kind", ["npy", "bool", "per-channel"])
def test_an_own_mask_is_used(kind, tmp_path):
    """From a file, as booleans, and for each channel."""
    mask = torch.tensor([[1, 0, 0], [1, 1, 0]])
    np.save(tmp_path / "mask.npy", mask.numpy())
    source = {"npy": str(tmp_path / "mask.npy"), "bool": mask.bool(), "per-channel": torch.stack([mask, 1 - mask])}[
        kind
    ]

    A = inpainting((2, 2, 3), mask=source)

    second = [7, 8, 11] if kind == "per-channel" else [6, 9, 10]
    assert A(numbered((2, 2, 3))).tolist() == [[0, 3, 4, *second]]


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"mask": "bxo"}, r"mask must be 'box', 'half', 'random', or a path .*\(got 'bxo'\); did you mean 'box'\?"),
        ({"mask": torch.full((4, 6), 0.5)}, "mask must hold 0 and 1 only, 1 for what is measured .*0.5"),
        ({"mask": torch.ones(6, 4)}, r"mask must have the image's height and width \(4, 6\) \(got \(6, 4\)\)"),
        ({"mask": torch.ones(3, 4, 6)}, r"mask must be \(4, 6\) or \(1, 4, 6\) \(got \(3, 4, 6\)\)"),
        ({"mask": torch.ones(6)}, r"mask must be \(4, 6\) or \(1, 4, 6\) \(got \(6,\)\)"),
        ({"mask": torch.zeros(4, 6)}, "mask observes no pixel"),
        ({"box": (0, 0, 4, 6)}, "mask observes no pixel"),
        ({"box": (2, 0, 3, 1)}, r"box must lie in the image of 4 x 6 pixels \(got \(2, 0, 3, 1\)"),
        ({"box": (-1, 0, 3, 1)}, "box must be >= 0"),
        ({"mask": "random", "fraction": 1e-9}, "mask observes no pixel"),
        ({"fraction": 1.5}, "fraction must be > 0, <= 1"),
        ({"side": "rigth"}, "did you mean 'right'"),
        ({"image_shape": (4, 6)}, "image_shape must be"),
    ],
)
def test_a_mask_that_makes_no_sense_is_refused(params, message):
    """At construction, with the value that was given."""
    with pytest.raises(ValueError, match=message):
        inpainting(**params)
