"""What holds for every linear operator of the registry, on shapes small enough for its matrix."""

import pickle

import numpy as np
import pytest
import torch

from scoreplug import registry
from scoreplug.operator import matrix_of
from scoreplug.protocols import HasPinv, HasSVD, LinearOperator

_GRID = torch.arange(240, dtype=torch.float64)
_ONE_SIDED = torch.zeros(5, 8)
_ONE_SIDED[1, 3:6] = 1
_ONE_SIDED[4, 7] = 1

_EXACT = {"pinv_tolerance": 1e-14, "svd_tolerance": 0.0}  # radon's defaults regularise

# name -> cases (id, image shape, parameters). A new linear operator needs a line here; the first test asks for it.
CASES = {
    "identity": [("plain", (2, 3, 5), {})],
    "matrix": [
        ("wide", (1, 3, 4), {"matrix": (_GRID[:60] ** 2).sin().reshape(5, 12)}),
        ("tall", (1, 3, 4), {"matrix": (_GRID**2).sin().reshape(20, 12)}),
        ("rank-2", (3, 2, 2), {"matrix": tuple(tuple(i * j + 1.0 for j in range(12)) for i in range(6))}),
    ],
    "inpainting": [
        ("box", (2, 5, 6), {}),
        ("half", (1, 5, 7), {"mask": "half", "side": "top"}),
        ("random", (3, 4, 5), {"mask": "random", "fraction": 0.4}),
        ("own", (2, 2, 3), {"mask": torch.tensor([[[1, 0, 1], [0, 0, 1]], [[0, 1, 1], [1, 0, 0]]])}),
    ],
    "downsampling": [
        ("by-2", (2, 4, 6), {"factor": 2}),
        ("by-3", (1, 3, 9), {"factor": 3}),
        ("by-1", (1, 3, 4), {"factor": 1}),
    ],
    "blur": [
        ("gaussian", (1, 5, 6), {"std": 0.7}),
        ("gaussian-even", (1, 6, 5), {"std": 0.6, "size": 4}),
        ("motion", (2, 7, 6), {"kernel": "motion", "length": 2.5, "angle": 30.0}),
        ("own", (2, 5, 8), {"kernel": ((1.0, -2.0, 0.5), (0.0, 3.0, 0.25))}),
        ("own-singular", (1, 4, 6), {"kernel": ((0.5, 0.5),)}),  # h = 0 at the highest frequency of the rows
        ("larger-than-image", (1, 3, 4), {"kernel": (_GRID[:42] / 7).cos().reshape(6, 7)}),
    ],
    "radon": [
        ("few", (1, 7, 5), _EXACT | {"angles": 4}),
        ("narrow", (2, 6, 6), _EXACT | {"angles": (0.0, 45.0, 90.0, 200.0), "detectors": 5}),
    ],
    "colorization": [
        ("mean", (3, 4, 5), {}),
        ("luma", (3, 4, 5), {"weights": (0.299, 0.587, 0.114)}),
        ("grey", (1, 4, 5), {}),
    ],
    "walsh-hadamard": [
        ("half", (1, 4, 8), {}),
        ("few", (2, 8, 4), {"fraction": 0.2, "seed": 3}),
        ("one-pixel", (1, 1, 1), {}),
    ],
    "multi-coil-fourier": [
        ("complex", (2, 5, 8), {"image": "complex", "coils": 3, "acceleration": 2.0}),
        ("real", (1, 6, 7), {"coils": 2, "mask": "equispaced", "acceleration": 2.0, "center_fraction": 0.3}),
        ("own", (1, 3, 4), {"maps": (_GRID[:48] / 5).sin().reshape(2, 2, 3, 4), "acceleration": 1.0}),
    ],
    "fourier": [
        ("real-random", (2, 5, 8), {"acceleration": 2.0}),
        ("real-equispaced", (1, 6, 7), {"mask": "equispaced", "acceleration": 2.0, "center_fraction": 0.3}),
        ("real-one-sided", (1, 5, 8), {"mask": _ONE_SIDED}),
        ("complex", (2, 5, 8), {"image": "complex", "acceleration": 2.0}),
        ("complex-full", (2, 4, 5), {"image": "complex", "acceleration": 1.0}),
    ],
}
LINEAR = [spec.name for spec in registry.list("operator") if "linear" in spec.provides]
ALL = [pytest.param(name, *case[1:], id=f"{name}-{case[0]}") for name in LINEAR for case in CASES.get(name, [])]
SPECTRAL = [p for p in ALL if "svd" in registry.spec("operator", p.values[0]).provides]


@pytest.fixture
def A(name, shape, params):
    return registry.get_operator(name, image_shape=shape, **params)


def draw(shape, n=3, seed=0, dtype=torch.float64):
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def basis(shape):
    """The identity matrix as a batch of n tensors of n entries."""
    n = int(np.prod(shape))
    return torch.eye(n, dtype=torch.float64).reshape(n, *shape)


def every_operator(test):
    return pytest.mark.parametrize(("name", "shape", "params"), ALL)(test)


def every_spectral_operator(test):
    return pytest.mark.parametrize(("name", "shape", "params"), SPECTRAL)(test)


def test_every_linear_operator_is_tested_here():
    """A name without a case would pass everything else unseen."""
    assert set(LINEAR) == set(CASES)


@every_operator
def test_has_the_capabilities_that_its_spec_declares(A, name):
    """The run refuses impossible combinations from the spec alone, so the spec must tell the truth."""
    provides = registry.spec("operator", name).provides

    assert isinstance(A, LinearOperator)
    assert isinstance(A, HasPinv) == ("pinv" in provides)
    assert isinstance(A, HasSVD) == ("svd" in provides)


# float64: 1e-10 is the library's promise, 1e5 above the rounding of a hundred terms. float32: 100 terms of 6e-8 each.
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-10), (torch.float32, 1e-5)], ids=["double", "single"])
@every_operator
def test_adjoint_is_the_transpose(A, dtype, bound):
    """<A x, y> = <x, A^T y> for any x and y."""
    x, y = draw(A.input_shape, seed=1, dtype=dtype), draw(A.output_shape, seed=2, dtype=dtype)

    Ax, Aty = A(x), A.adjoint(y)

    assert Ax.dtype == Aty.dtype == dtype
    assert Ax.shape == y.shape
    assert Aty.shape == x.shape
    forward, backward = (Ax * y).flatten(1).sum(1), (x * Aty).flatten(1).sum(1)
    scale = Ax.flatten(1).norm(dim=1) * y.flatten(1).norm(dim=1)
    assert ((forward - backward).abs() <= bound * scale).all()


@every_operator
def test_is_linear(A):
    """A(2 x - 3 x') = 2 A x - 3 A x'; an offset would leave -1 times itself."""
    x, x2 = draw(A.input_shape, seed=1), draw(A.input_shape, seed=2)

    # rounding of sums of at most a hundred terms of order one
    torch.testing.assert_close(A(2 * x - 3 * x2), 2 * A(x) - 3 * A(x2), rtol=1e-12, atol=1e-12 * A.norm)


@every_operator
def test_norm_is_the_largest_singular_value(A):
    """Power iteration approaches it from below, to better than 1e-3; the spectral ones have it to rounding."""
    expected = float(torch.linalg.svdvals(matrix_of(A))[0])

    assert expected * (1 - 1e-3) <= A.norm <= expected * (1 + 1e-12)


@every_operator
def test_gradient_is_the_adjoint(A):
    """d <A x, y> / dx = A^T y."""
    x, y = draw(A.input_shape, seed=1).requires_grad_(), draw(A.output_shape, seed=2)

    (gradient,) = torch.autograd.grad(A(x), x, y)

    torch.testing.assert_close(gradient, A.adjoint(y), rtol=1e-12, atol=1e-12 * A.norm)  # two orders of summation


@every_operator
def test_is_differentiable_twice(A):
    """The Hessian of |A x|^2 / 2 is A^T A."""
    x, v = draw(A.input_shape, seed=1).requires_grad_(), draw(A.input_shape, seed=2)

    (gradient,) = torch.autograd.grad((A(x) ** 2).sum() / 2, x, create_graph=True)
    (product,) = torch.autograd.grad(gradient, x, v)

    torch.testing.assert_close(product, A.adjoint(A(v)), rtol=1e-12, atol=1e-12 * A.norm**2)  # as above


@every_operator
def test_adjoint_is_differentiable(A):
    """d <x, A^T y> / dy = A x."""
    x, y = draw(A.input_shape, seed=1), draw(A.output_shape, seed=2).requires_grad_()

    (gradient,) = torch.autograd.grad(A.adjoint(y), y, x)

    torch.testing.assert_close(gradient, A(x), rtol=1e-12, atol=1e-12 * A.norm)  # as above


@every_operator
def test_linearize_gives_value_and_adjoint(A):
    """The Jacobian of a linear map is the map."""
    x, y = draw(A.input_shape, seed=1), draw(A.output_shape, seed=2)

    value, vjp = A.linearize(x)

    torch.testing.assert_close(value, A(x), rtol=0, atol=0)
    torch.testing.assert_close(vjp(y), A.adjoint(y), rtol=0, atol=0)


@pytest.mark.parametrize(("a", "b"), [(1.0, 0.3), (2.5, 1e-3)])
@every_operator
def test_solve_inverts_the_regularised_normal_matrix(A, a, b):
    """(a A A^T + b I) solve(r) = r; spectral operators by their basis, others by conjugate gradients."""
    M, r = matrix_of(A), draw(A.output_shape, seed=1)
    normal = a * M @ M.T + b * torch.eye(len(M), dtype=M.dtype)

    expected = torch.linalg.solve(normal, r.flatten(1).T).T.reshape(r.shape)

    # conjugate gradients stop at a residual of 1e-10 |r|: an error of 1e-10 |r| / b in a solution of up to |r| / b
    scale = float(expected.norm())
    torch.testing.assert_close(A.solve(r, a=a, b=b), expected, rtol=0, atol=1e-8 * scale)


@every_operator
def test_a_sample_does_not_depend_on_its_batch(A):
    """Sample 1 alone is sample 1 in a batch, to the rounding of other orders of summation."""
    x, y = draw(A.input_shape, seed=1), draw(A.output_shape, seed=2)

    close = {"rtol": 1e-12, "atol": 1e-12 * A.norm}
    torch.testing.assert_close(A(x)[1:2], A(x[1:2]), **close)
    torch.testing.assert_close(A.adjoint(y)[1:2], A.adjoint(y[1:2]), **close)
    # conjugate gradients stop each sample by itself, 1e-10 away from the solution
    torch.testing.assert_close(A.solve(y, a=1.0, b=0.3)[1:2], A.solve(y[1:2], a=1.0, b=0.3), rtol=1e-9, atol=1e-9)


@every_operator
def test_inputs_are_not_modified(A):
    """Callers keep what they pass."""
    x, y = draw(A.input_shape, seed=1), draw(A.output_shape, seed=2)
    kept_x, kept_y = x.clone(), y.clone()

    A(x)
    A.adjoint(y)
    A.solve(y, a=1.0, b=0.3)
    if isinstance(A, HasPinv):
        A.pinv(y)

    assert torch.equal(x, kept_x)
    assert torch.equal(y, kept_y)


@every_operator
def test_a_wrong_shape_is_refused(A):
    """A missing batch dimension or a transposed image must not be broadcast."""
    with pytest.raises(ValueError, match=r"takes a batch \(B, .*\) as its input"):
        A(draw(A.input_shape)[0])
    with pytest.raises(ValueError, match=r"takes a batch \(B, .*\) as its output"):
        A.adjoint(draw((*A.output_shape, 1)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["single", "double"])
@every_operator
def test_defaults_of_torch_do_not_matter(name, shape, params, dtype):
    """Every tensor is made with the type and device of the input: the device "meta" would lose all values."""
    x = draw(shape, seed=1, dtype=dtype)
    expected = registry.get_operator(name, image_shape=shape, **params)(x)
    default = torch.get_default_dtype()
    try:
        torch.set_default_dtype(torch.float64 if dtype == torch.float32 else torch.float32)
        with torch.device("meta"):
            A = registry.get_operator(name, image_shape=shape, **params)
            y = A(x)
            others = [A.adjoint(y), A.solve(y, a=1.0, b=0.3)]
            others += [A.pinv(y)] if isinstance(A, HasPinv) else []
            norm = A.norm
    finally:
        torch.set_default_dtype(default)

    assert torch.equal(y, expected)
    assert all(z.dtype == dtype and z.device == x.device for z in others)
    assert norm > 0


@every_operator
def test_the_global_generators_stand_still(name, shape, params):
    """Random masks and power iterations draw from sources of their own."""
    before = torch.get_rng_state(), np.random.get_state()[1].copy()

    A = registry.get_operator(name, image_shape=shape, **params)
    A(draw(A.input_shape))
    _ = A.norm

    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])


@every_operator
def test_survives_pickling(A):
    """A worker process gets a copy; what was computed lazily is computed again there."""
    x = draw(A.input_shape)
    y = A(x)
    _ = A.norm, getattr(A, "svd", None)

    copy = pickle.loads(pickle.dumps(A))

    assert torch.equal(copy(x), y)


@every_spectral_operator
def test_right_singular_vectors_are_an_orthonormal_basis(A):
    """V^T V = I, as maps and as matrices; V is square, or reaches all that A sees."""
    svd = A.svd
    V = svd.V(basis(svd.singular_values.shape)).flatten(1).T
    Vt = svd.Vt(basis(A.input_shape)).flatten(1).T
    eye = torch.eye(V.shape[1], dtype=V.dtype)

    # rounding of sums of a hundred products
    torch.testing.assert_close(V.T @ V, eye, rtol=0, atol=1e-13)
    torch.testing.assert_close(Vt, V.T, rtol=0, atol=1e-13)


@every_spectral_operator
def test_left_singular_vectors_are_orthonormal_where_something_is_seen(A):
    """U^T U is the projector on s > 0, and U^T is the transpose of U."""
    svd = A.svd
    U = svd.U(basis(svd.singular_values.shape)).flatten(1).T
    Ut = svd.Ut(basis(A.output_shape)).flatten(1).T
    seen = (svd.singular_values.flatten() > 0).to(U.dtype)

    torch.testing.assert_close(U.T @ U, torch.diag(seen), rtol=0, atol=1e-12)  # rounding over the smallest s, 0.01
    torch.testing.assert_close(Ut, U.T, rtol=0, atol=1e-12)


@every_spectral_operator
def test_svd_is_a_decomposition_of_the_operator(A):
    """A = U diag(s) V^T with s >= 0."""
    svd = A.svd
    U, V = (f(basis(svd.singular_values.shape)).flatten(1).T for f in (svd.U, svd.V))

    assert (svd.singular_values >= 0).all()
    assert svd.singular_values.dtype == torch.float64
    torch.testing.assert_close(
        U @ torch.diag(svd.singular_values.flatten()) @ V.T, matrix_of(A), rtol=0, atol=1e-13 * A.norm
    )


@every_spectral_operator
def test_pinv_is_the_moore_penrose_inverse(A):
    """As LAPACK computes it, and by Penrose's four conditions, which no other matrix meets."""
    M, P = matrix_of(A), A.pinv(basis(A.output_shape)).flatten(1).T

    # rounding times the square of the condition number, at most 1e4
    close = {"rtol": 0, "atol": 1e-8 * float(P.abs().max())}
    torch.testing.assert_close(P, torch.linalg.pinv(M), **close)
    torch.testing.assert_close(M @ P @ M, M, rtol=0, atol=1e-10 * A.norm)
    torch.testing.assert_close(P @ M @ P, P, **close)
    torch.testing.assert_close(M @ P, (M @ P).T, rtol=0, atol=1e-10)
    torch.testing.assert_close(P @ M, (P @ M).T, rtol=0, atol=1e-10)


@every_spectral_operator
def test_solve_keeps_single_precision_when_b_is_small(A):
    """What A^T sees of the solution must not carry rounding over b, as a difference of large terms would leave it."""
    b = 1e-6 * A.norm**2
    r = A(draw(A.input_shape, seed=1))  # a residual of exact data lies in the range of A

    expected = A.adjoint(A.solve(r, a=1.0, b=b))
    single = A.adjoint(A.solve(r.float(), a=1.0, b=b)).double()

    # float32 rounding, 6e-8, times the condition number of A^+
    s = A.svd.singular_values
    condition = float(A.norm / s[s > 0].min())
    assert float((single - expected).norm() / expected.norm()) < 1e-6 * condition
