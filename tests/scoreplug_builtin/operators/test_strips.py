"""The matrix of radon: what symmetry leaves of it, and the products with it."""

import gc
import math
import weakref

import numpy as np
import pytest
import torch

from scoreplug import registry
from scoreplug_builtin.operators import _strips
from scoreplug_builtin.operators._strips import Projector, Symmetry, product, projector, strip_matrix

LIMITED = tuple(0.97 * i for i in range(20))
GEOMETRIES = {
    "even number": (16, 16, tuple(180 * i / 30 for i in range(30)), 23),
    "odd number": (16, 16, tuple(180 * i / 31 for i in range(31)), 23),
    "an odd side": (17, 16, tuple(180 * i / 36 for i in range(36)), 24),
    "oblong": (14, 33, tuple(180 * i / 36 for i in range(36)), 47),
    "full circle": (17, 17, tuple(360 * i / 72 for i in range(72)), 12),
    "each angle twice": (17, 17, 2 * tuple(180 * i / 24 for i in range(24)), 25),
    "negative": (17, 17, tuple(-360 + 6.0 * i for i in range(60)), 25),
    "limited": (16, 16, LIMITED, 23),
}


@pytest.fixture
def always(monkeypatch):
    """Symmetry is used however small the matrix is."""
    monkeypatch.setattr(_strips, "WORTHWHILE", 0)


def draw(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def relative(a, b):
    return float((a - b).norm() / b.norm())


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("name", GEOMETRIES)
def test_symmetry_changes_no_weight(name):
    """Both products are those with the matrix of all angles, one by one."""
    height, width, degrees, detectors = GEOMETRIES[name]
    M = torch.from_numpy(strip_matrix(height, width, degrees, detectors).toarray())
    P = Projector(height, width, degrees, detectors)
    x, y = draw(3, height, width), draw(3, len(degrees), detectors)

    # angles round at 360, to 6e-14 degrees, which moves a shadow by 2e-14 pixels; sums of some 500 terms
    assert relative(P.project(x).flatten(1), x.flatten(1) @ M.T) < 1e-13
    assert relative(P.backproject(y).flatten(1), y.flatten(1) @ M) < 1e-13


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize(
    ("name", "made", "positions"),
    [
        ("even number", 8, 4),
        ("odd number", 16, 2),
        ("an odd side", 10, 4),
        ("oblong", 19, 2),
        ("full circle", 10, 8),
        ("each angle twice", 7, 8),
        ("negative", 8, 8),
        ("limited", 20, 1),
    ],
)
def test_the_matrix_is_made_for_as_few_angles_as_symmetry_asks_for(name, made, positions):
    """n / 4 + 1 of n over half a circle, n / 8 + 1 over a full one, half of them if n is odd or the image oblong."""
    height, width, degrees, _ = GEOMETRIES[name]

    symmetry = Symmetry.of(height, width, degrees)

    assert (len(symmetry.degrees), len(symmetry.positions)) == (made, positions)
    assert all(0 <= theta <= 90 for theta in symmetry.degrees)


def test_a_small_matrix_is_made_as_it_is():
    """It is in the caches anyway, and turning images takes time."""
    degrees = tuple(180 * i / 30 for i in range(30))

    assert Symmetry.of(64, 64, degrees).degrees == degrees
    assert len(Symmetry.of(128, 128, degrees).degrees) == 8


@pytest.mark.usefixtures("always")
def test_positions_that_few_angles_ask_for_are_not_made():
    """Work is bounded: two angles at right angles share a matrix, and two others do not."""
    assert len(Symmetry.of(33, 33, (10.0, 100.0)).degrees) == 1
    assert len(Symmetry.of(33, 33, (10.0, 95.0)).positions) == 1


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("n", [1, 2, 5, 40])
def test_every_product_is_the_same_one(dtype, n):
    """A vector, a few columns, blocks of them, and sums over bags."""
    M = _strips._compressed_rows(strip_matrix(9, 8, (0.0, 20.0, 77.0), 13))
    matrix = _strips._converted(M, torch.zeros(1, dtype=dtype))
    x = draw(72, n, dtype=dtype)

    expected = matrix.to_dense().double() @ x.double()

    # some 20 terms per row, of one sign in the matrix
    torch.testing.assert_close(product(matrix, x).double(), expected, rtol=0, atol=50 * torch.finfo(dtype).eps)


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("size", [1, 2**14], ids=["one by one", "some"])
def test_a_batch_in_blocks_is_the_whole_batch(size, monkeypatch):
    """Blocks bound the memory; an image does not know which others are in its own."""
    P = Projector(16, 16, GEOMETRIES["even number"][2], 23)
    x, y = draw(7, 16, 16), draw(7, 30, 23)
    whole = P.project(x), P.backproject(y)

    monkeypatch.setattr(_strips, "BLOCK_BYTES", size)

    assert relative(P.project(x), whole[0]) < 1e-14
    assert relative(P.backproject(y), whole[1]) < 1e-14


def test_no_images_give_none():
    """An empty batch."""
    P = Projector(5, 5, (0.0, 10.0), 7)

    assert P.project(torch.zeros(0, 5, 5)).shape == (0, 2, 7)
    assert P.backproject(torch.zeros(0, 2, 7)).shape == (0, 5, 5)


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_the_adjoint_is_the_transpose_to_rounding(dtype):
    """<A x, y> = <x, A^T y>, also where weights are shared and columns are many."""
    A = registry.get_operator("radon", image_shape=(2, 16, 16), angles=30)
    x, y = draw(9, 2, 16, 16, dtype=dtype), draw(9, *A.output_shape, seed=1, dtype=dtype)

    forward, back = (A(x).double() * y.double()).sum(), (x.double() * A.adjoint(y).double()).sum()

    # two sums of 16 terms per value: a random walk of their roundings, far below 10 eps of the norms' product
    assert float(abs(forward - back)) < 10 * torch.finfo(dtype).eps * float(A(x).norm() * y.norm()) / math.sqrt(
        x.numel()
    )


@pytest.mark.usefixtures("always")
def test_gradients_of_any_order_are_products_with_the_pair():
    """d/dx |A x|^2 / 2 = A^T A x, and its derivative along v is A^T A v."""
    A = registry.get_operator("radon", image_shape=(1, 16, 16), angles=30)
    x, v = draw(2, 1, 16, 16).requires_grad_(), draw(2, 1, 16, 16, seed=1)

    (gradient,) = torch.autograd.grad((A(x) ** 2).sum() / 2, x, create_graph=True)
    (second,) = torch.autograd.grad(gradient, x, v)

    assert relative(gradient.detach(), A.adjoint(A(x.detach()))) < 1e-15
    assert relative(second, A.adjoint(A(v))) < 1e-15


def test_single_precision_shares_the_indices_of_double():
    """They are half of the memory of a matrix in single precision."""
    P = Projector(6, 7, (0.0, 20.0), 9)

    for single, double in zip(P.like(torch.zeros(1)), P.like(torch.zeros(1, dtype=torch.float64)), strict=True):
        assert single.col_indices().data_ptr() == double.col_indices().data_ptr()
        assert single.col_indices().dtype == torch.int32


def test_a_matrix_that_nobody_uses_is_let_go():
    """All but the last: matrices can be as large as the memory."""
    kept, gone = (projector(5, 5, (float(i),), 7) for i in (1, 2))
    kept_too, seen = projector(5, 5, (1.0,), 7), weakref.ref(gone)
    del gone
    gc.collect()

    assert kept_too is kept
    assert seen() is None


def test_weights_of_a_pixel_sum_to_its_area():
    """At any angle, if the detector sees it, and none is negative."""
    M = strip_matrix(9, 12, tuple(np.linspace(-200, 400, 37)), 21)

    sums = M.toarray().reshape(37, 21, -1).sum(1)

    np.testing.assert_allclose(sums, 1, rtol=0, atol=4e-14)  # three bins, less what is left out: 1e-14 each
    assert float(M.data.min()) > 0
