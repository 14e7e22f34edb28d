"""Noise: per sample, addressed, independent of everything but seed, sample and address."""

import pytest
import torch

from scoreplug import Noise

CPU = torch.device("cpu")


def source(samples=(0, 1, 2), seed=0, dtype=torch.float64):
    return Noise(seed, samples, dtype=dtype, device=CPU)


def test_a_sample_has_the_same_noise_in_any_batch():
    alone, batch = source((5,)), source(range(8))

    assert torch.equal(alone.at("step", 3).normal((2, 3))[0], batch.at("step", 3).normal((2, 3))[5])


def test_a_draw_is_addressed_not_consumed():
    noise = source()

    first = noise.at("z").normal((4,))
    noise.at("other").normal((1000,))

    assert torch.equal(noise.at("z").normal((4,)), first)
    assert torch.equal(noise.at("a", 1).normal((4,)), noise.at("a").at(1).normal((4,)))


@pytest.mark.parametrize(
    "other",
    [source().at("w"), source(seed=1).at("z"), source().at("z", 0), source().at(0), source((3, 4, 5)).at("z")],
    ids=["label", "seed", "deeper", "number", "samples"],
)
def test_seeds_samples_and_addresses_give_independent_draws(other):
    a, b = source().at("z").normal((5000,)).flatten(), other.normal((5000,)).flatten()

    # correlation of n = 15000 independent pairs is N(0, 1/n): five sigma
    assert abs(float((a * b).mean())) < 5 / 15000**0.5


def test_an_address_of_numbers_is_not_one_of_words():
    assert not torch.equal(source().at(1).normal((4,)), source().at("1").normal((4,)))


def test_the_draws_are_standard_normal_and_uniform():
    n = 200_000
    z, u = source((0,)).at("z").normal((n,)), source((0,)).at("u").uniform((n,))

    assert abs(float(z.mean())) < 5 / n**0.5
    assert abs(float(z.var()) - 1) < 5 * (2 / n) ** 0.5
    assert abs(float((z**4).mean()) - 3) < 5 * (96 / n) ** 0.5  # Var z^4 = 105 - 9
    assert float(u.min()) >= 0
    assert float(u.max()) < 1
    assert abs(float(u.mean()) - 0.5) < 5 / (12 * n) ** 0.5


def test_float32_draws_are_the_float64_draws_rounded():
    assert torch.equal(source(dtype=torch.float32).normal((50,)), source().normal((50,)).float())


@pytest.mark.parametrize("seed", [-1, 2**64, 1.0, True, None])
def test_a_seed_is_a_64_bit_integer(seed):
    with pytest.raises(ValueError, match=r"seed must be an integer in \[0, 2\^64\)"):
        source(seed=seed)


def test_the_largest_seed_and_seed_zero_are_seeds():
    assert not torch.equal(source(seed=0).normal((4,)), source(seed=2**64 - 1).normal((4,)))


def test_the_stream_is_this_one():
    """Golden values: a change of generator, key, counter or hash would silently change every published sample."""
    z = Noise(7, (3,), dtype=torch.float64, device=CPU).at("step", 2, "z").normal((3,))[0]

    torch.testing.assert_close(z, torch.tensor(GOLDEN, dtype=torch.float64), rtol=0, atol=1e-15)


# By numpy alone: Philox with the key (7, 3) and the counter (0, 0, *blake2b of the address's repr).
GOLDEN = [0.4780579194107088, -1.0083904591840802, 2.6416827588353056]
