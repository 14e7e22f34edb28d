"""The base classes of operators and their generic fallbacks."""

import math

import attrs
import pytest
import torch

from scoreplug.operator import (
    SVD,
    BaseLinearOperator,
    BaseOperator,
    SpectralOperator,
    conjugate_gradient,
    dense_svd,
    from_function,
    least_squares,
    matrix_of,
    power_iteration,
    with_dense_svd,
)
from scoreplug.protocols import HasPinv, HasSVD, LinearOperator


def draw(shape, n=3, seed=0):
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def random_matrix(m, n, seed=0):
    return draw((m, n), n=1, seed=seed)[0]


def times(matrix, output_shape):
    """x -> M vec(x), as any torch callable might be written."""
    return lambda x: (x.flatten(1) @ matrix.to(x).T).reshape(-1, *output_shape)


def spd(n, smallest, seed=0):
    """A symmetric matrix with eigenvalues between `smallest` and 1."""
    Q, _ = torch.linalg.qr(random_matrix(n, n, seed))
    return Q @ torch.diag(torch.linspace(smallest, 1, n, dtype=torch.float64)) @ Q.T


M = random_matrix(6, 12)
LINEAR = from_function(times(M, (2, 3)), (3, 4), linear=True)


def test_a_callable_becomes_an_operator():
    """With the callable's values and shapes, and the vjp of its Jacobian at x."""
    A = from_function(lambda x: x.flatten(1).cumsum(1) ** 2, (2, 3))
    x, v = draw((2, 3)), draw((6,), seed=1)

    y, vjp = A.linearize(x)

    assert (A.input_shape, A.output_shape) == ((2, 3), (6,))
    assert not isinstance(A, LinearOperator)
    torch.testing.assert_close(y, x.flatten(1).cumsum(1) ** 2, rtol=0, atol=0)
    # J = 2 diag(s) C with s the cumulative sums: J^T v sums 2 s v from the end
    expected = (2 * x.flatten(1).cumsum(1) * v).flip(1).cumsum(1).flip(1).reshape(3, 2, 3)
    torch.testing.assert_close(vjp(v), expected, rtol=1e-13, atol=1e-13)  # sums of six terms
    torch.testing.assert_close(vjp(2 * v), 2 * expected, rtol=1e-13, atol=1e-13)  # the graph serves twice


def test_linearize_does_not_touch_its_argument():
    """x keeps its flag and its history."""
    A = from_function(torch.sin, (2,))
    x = draw((2,))

    with torch.no_grad():
        _, vjp = A.linearize(x)

    assert not x.requires_grad
    torch.testing.assert_close(vjp(torch.ones_like(x)), x.cos(), rtol=1e-15, atol=1e-16)  # one function


def test_a_linear_callable_gets_its_adjoint_from_autograd():
    """M^T, differentiable in turn."""
    v = draw((2, 3)).requires_grad_()

    back = LINEAR.adjoint(v)

    torch.testing.assert_close(back, (v.flatten(1) @ M).reshape(3, 3, 4), rtol=1e-13, atol=1e-13)  # sums of six terms
    (gradient,) = torch.autograd.grad(back, v, x := draw((3, 4)))
    torch.testing.assert_close(gradient, LINEAR(x), rtol=1e-13, atol=1e-13)


def test_a_given_adjoint_is_used():
    """It is asked instead of autograd."""
    calls = []

    def adjoint(y):
        calls.append(y.shape[0])
        return (y.flatten(1) @ M).reshape(-1, 3, 4)

    A = from_function(times(M, (2, 3)), (3, 4), linear=True, adjoint=adjoint)
    calls.clear()
    A.adjoint(draw((2, 3)))

    assert calls == [3]


@pytest.mark.parametrize(
    "function", [lambda x: x**2, lambda x: x + 1, lambda x: x.abs()], ids=["square", "affine", "absolute-value"]
)
def test_what_is_not_linear_is_refused_as_linear(function):
    """An offset counts: A 0 = 0."""
    with pytest.raises(ValueError, match="function is not linear"):
        from_function(function, (2, 3), linear=True)


@pytest.mark.parametrize("factor", [-1.0, 1.001], ids=["sign", "scale"])
def test_a_wrong_adjoint_is_refused(factor):
    """<A x, v> = <x, A^T v> fails for anything else."""
    with pytest.raises(ValueError, match=r"adjoint is not the transpose of function: <A x, v> = .*, <x, A\^T v> = "):
        from_function(times(M, (6,)), (12,), linear=True, adjoint=lambda y: factor * y @ M)


def test_an_adjoint_of_a_nonlinear_function_is_refused():
    """It has none."""
    with pytest.raises(ValueError, match="adjoint is given, but linear=False"):
        from_function(torch.sin, (2,), adjoint=torch.cos)


@pytest.mark.parametrize("function", [lambda x: x.sum(), lambda x: x[0]], ids=["scalar", "first"])
def test_a_function_that_drops_the_batch_is_refused(function):
    """Samples must stay apart."""
    with pytest.raises(ValueError, match="function must map a batch to a batch"):
        from_function(function, (2, 3))


def test_the_base_classes_say_what_is_missing():
    """An operator without a forward map is no operator."""
    for missing in (lambda: BaseOperator().input_shape, lambda: BaseOperator().output_shape):
        with pytest.raises(NotImplementedError):
            missing()
    with pytest.raises(NotImplementedError):
        BaseOperator().forward(draw((2,)))
    with pytest.raises(NotImplementedError):
        _ = SpectralOperator().svd


def test_a_wrong_shape_is_named():
    """Both the expected and the given one."""
    with pytest.raises(
        ValueError, match=r"LinearFunctionOperator takes a batch \(B, 3, 4\) as its input \(got \(3, 4\)\)"
    ):
        LINEAR(draw((3, 4))[0])
    with pytest.raises(ValueError, match=r"takes a batch \(B, 2, 3\) as its output \(got \(3, 3, 2\)\)"):
        LINEAR.adjoint(draw((3, 2)))


@pytest.mark.parametrize("gap", [0.5, 0.05, 0.0], ids=str)
def test_power_iteration_finds_the_norm_from_below(gap):
    """Also when the second singular value is close to the first, or equal."""
    U, V = (torch.linalg.qr(random_matrix(8, 8, seed))[0] for seed in (1, 2))
    s = torch.tensor([3.0, 3.0 * (1 - gap), *[0.5] * 6], dtype=torch.float64)
    A = from_function(times(U @ torch.diag(s) @ V.T, (8,)), (8,), linear=True)

    assert 3 * (1 - 1e-4) <= power_iteration(A) <= 3 * (1 + 1e-14)  # the promised accuracy; rounding above


def test_the_norm_of_zero_is_zero():
    """There is nothing to iterate on."""
    assert power_iteration(from_function(lambda x: 0 * x, (4,), linear=True)) == 0


@attrs.frozen(kw_only=True, eq=False)
class Counted(BaseLinearOperator):
    calls: list[int]
    input_shape: tuple[int, ...] = (12,)
    output_shape: tuple[int, ...] = (6,)

    def forward(self, x):
        self.calls.append(1)
        return x @ M.T


def test_the_norm_is_computed_once():
    """It takes many products."""
    A = Counted(calls=[])
    first, n = A.norm, len(A.calls)

    assert A.norm == first
    assert len(A.calls) == n > 0


@pytest.mark.parametrize("n", [12, 300], ids=["one-block", "two-blocks"])
def test_matrix_of_is_the_matrix(n):
    """Column by column, in blocks of 256."""
    matrix = random_matrix(4, n)

    # one product with a column of the identity is exact up to the order of adding zeros
    torch.testing.assert_close(matrix_of(from_function(times(matrix, (4,)), (n,), linear=True)), matrix, rtol=0, atol=0)


@pytest.mark.parametrize("shape", [(6, 12), (12, 6), (7, 7)], ids=["wide", "tall", "square"])
@pytest.mark.parametrize("rank", ["full", 3], ids=["full-rank", "rank-3"])
def test_dense_svd_is_a_decomposition(shape, rank):
    """A = U S V^T, V orthogonal, U^T U the projector on s > 0; singular values of rounding size count as zero."""
    m, n = shape
    matrix = random_matrix(m, n) if rank == "full" else random_matrix(m, rank) @ random_matrix(rank, n, seed=1)
    svd = dense_svd(matrix, (n,), (m,))
    eye_n, eye_m = (torch.eye(k, dtype=torch.float64) for k in (n, m))

    V, U, Ut = svd.V(eye_n).T, svd.U(eye_n).T, svd.Ut(eye_m).T

    seen = (svd.singular_values > 0).double()
    # LAPACK's backward error is a few eps times the norm, here below 10
    close = {"rtol": 0, "atol": 1e-13}
    assert int(seen.sum()) == (min(m, n) if rank == "full" else rank)
    torch.testing.assert_close(U @ torch.diag(svd.singular_values) @ V.T, matrix, **close)
    torch.testing.assert_close(V.T @ V, eye_n, **close)
    torch.testing.assert_close(svd.Vt(eye_n).T, V.T, **close)
    torch.testing.assert_close(U.T @ U, torch.diag(seen), **close)
    torch.testing.assert_close(Ut, U.T, **close)


def test_with_dense_svd_adds_capabilities_and_keeps_the_operator():
    """A linear callable then has a pseudo-inverse."""
    A = with_dense_svd(LINEAR)
    x, y = draw((3, 4)), draw((2, 3), seed=1)

    assert isinstance(A, HasSVD)
    assert isinstance(A, HasPinv)
    assert not isinstance(LINEAR, HasSVD)
    torch.testing.assert_close(A(x), LINEAR(x), rtol=0, atol=0)
    torch.testing.assert_close(A.adjoint(y), LINEAR.adjoint(y), rtol=0, atol=0)
    # rounding times the condition number, about 5
    expected = (y.flatten(1) @ torch.linalg.pinv(M).T).reshape(3, 3, 4)
    torch.testing.assert_close(A.pinv(y), expected, rtol=0, atol=1e-13)
    assert A.norm == pytest.approx(float(torch.linalg.matrix_norm(M, 2)), rel=1e-14)


@pytest.mark.parametrize(("m", "n"), [(4, 100), (100, 4)], ids=["wide", "tall"])
def test_a_matrix_that_is_too_large_is_refused(m, n):
    """Before it is made. V is n x n, so that a wide matrix counts n^2."""
    A = from_function(times(random_matrix(m, n), (m,)), (n,), linear=True)
    entries = n * max(m, n)

    with pytest.raises(ValueError, match=rf"a dense SVD of a {m} x {n} operator takes .* more than max_entries"):
        with_dense_svd(A, max_entries=entries - 1)
    assert with_dense_svd(A, max_entries=entries).output_shape == (m,)


@pytest.mark.parametrize("shape", [(6, 12), (12, 6), (7, 7)], ids=["wide", "tall", "square"])
def test_both_solves_agree_with_lapack(shape):
    """Conjugate gradients and the spectral formula, where A reaches every y and where it does not."""
    m, n = shape
    matrix, r, a, b = random_matrix(m, n), draw((m,), seed=1), 1.7, 0.2
    A = from_function(times(matrix, (m,)), (n,), linear=True)

    expected = torch.linalg.solve(a * matrix @ matrix.T + b * torch.eye(m, dtype=torch.float64), r.T).T

    # conjugate gradients: residual 1e-10 |r|, |r| about 3, over b; spectral: rounding times the condition number, 300
    torch.testing.assert_close(A.solve(r, a=a, b=b), expected, rtol=0, atol=2e-9)
    torch.testing.assert_close(with_dense_svd(A).solve(r, a=a, b=b), expected, rtol=0, atol=1e-12)


def test_solve_takes_tensors():
    """a and b are often functions of t."""
    a, b = torch.tensor(1.7, dtype=torch.float64), torch.tensor(0.2, dtype=torch.float64)
    r = draw((2, 3))

    for A in (LINEAR, with_dense_svd(LINEAR)):
        torch.testing.assert_close(A.solve(r, a=a, b=b), A.solve(r, a=1.7, b=0.2), rtol=1e-14, atol=0)


def test_solve_without_noise_where_every_y_is_reached():
    """b = 0 leaves (a A A^T)^-1, which exists: the spectral formula divides by b nowhere."""
    A, r = with_dense_svd(LINEAR), draw((2, 3))

    expected = torch.linalg.solve(2 * M @ M.T, r.flatten(1).T).T.reshape(3, 2, 3)

    torch.testing.assert_close(A.solve(r, a=2.0, b=0.0), expected, rtol=1e-11, atol=0)  # condition number squared, 1e2


def test_conjugate_gradient_solves():
    """To the residual that it promises."""
    A, b = spd(20, 1e-3), draw((4, 5))

    v = conjugate_gradient(lambda u: (u.flatten(1) @ A).reshape(u.shape), b)

    residual = (v.flatten(1) @ A - b.flatten(1)).norm(dim=1) / b.flatten(1).norm(dim=1)
    assert (residual <= 1.1e-10).all()  # the recursive residual drifts from the true one by rounding, far below 1e-11


def test_conjugate_gradient_is_per_sample():
    """An easy sample stands still while a hard one goes on, and a zero one stays zero."""
    A = spd(20, 1e-3)
    hard, easy, zero = (
        draw((20,), n=1),
        torch.linalg.eigh(A).eigenvectors[:, 3][None],
        torch.zeros(1, 20, dtype=torch.float64),
    )

    together = conjugate_gradient(lambda u: u @ A, torch.cat([hard, easy, zero]))
    alone = [conjugate_gradient(lambda u: u @ A, b) for b in (hard, easy, zero)]

    # the same steps; products of matrices of other sizes may round otherwise, amplified by the condition number
    torch.testing.assert_close(together, torch.cat(alone), rtol=0, atol=1e-10)
    assert (together[2] == 0).all()


def test_a_converged_sample_takes_no_further_step():
    """Its value after the batch's last step is the one it had when it converged, to the last bit."""
    scale = torch.tensor([[1.0], [1000.0]], dtype=torch.float64)
    A = torch.diag(torch.linspace(0.01, 1, 20, dtype=torch.float64))
    b = torch.zeros(2, 20, dtype=torch.float64)
    b[0, 7] = 1.0  # an eigenvector: one step
    b[1] = 1.0

    first_step = conjugate_gradient(lambda u: u * A.diagonal(), b[:1], max_steps=1)
    v = conjugate_gradient(lambda u: u * A.diagonal() * scale, b)

    assert torch.equal(v[:1], first_step)


def test_single_precision_converges_to_its_own_tolerance():
    """1e-5, since 1e-10 is below the rounding of float32."""
    A, b = spd(20, 0.1).float(), draw((20,)).float()

    v = conjugate_gradient(lambda u: u @ A, b)

    assert v.dtype == torch.float32
    assert ((v @ A - b).norm(dim=1) / b.norm(dim=1) <= 2e-5).all()  # rounding, 6e-8 times the condition number, on top


def test_what_does_not_converge_raises():
    """A partial solution is not a solution; the message has the worst residual, though a zero sample has none."""
    A, b = spd(20, 1e-6), torch.cat([draw((20,)), torch.zeros(1, 20, dtype=torch.float64)])

    with pytest.raises(
        ArithmeticError, match=r"stopped after 3 steps at a relative residual of \d\.\de[-+]\d+ > 1.0e-10"
    ):
        conjugate_gradient(lambda u: u @ A, b, max_steps=3)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_right_hand_side_that_is_not_finite_raises(bad):
    """NaN compares as converged and infinity as its own tolerance; both would come back as zeros."""
    b = draw((20,))
    b[1, 2] = bad

    with pytest.raises(ArithmeticError, match="the right-hand side is not finite"):
        conjugate_gradient(lambda u: u, b)


def test_an_operator_that_returns_nan_raises():
    """It must not be taken for convergence."""
    with pytest.raises(ArithmeticError, match="stopped after 5 steps"):
        conjugate_gradient(lambda u: u * math.nan, draw((4,)), max_steps=5)


def linear(matrix):
    """A matrix as an operator without a decomposition."""
    m, n = matrix.shape
    return from_function(times(matrix, (m,)), (n,), linear=True)


@pytest.mark.parametrize("shape", [(6, 12), (12, 6), (7, 7)], ids=["wide", "tall", "square"])
@pytest.mark.parametrize("rank", ["full", 3], ids=["full-rank", "rank-3"])
def test_least_squares_is_the_pseudoinverse(shape, rank):
    """The solution of smallest norm, also of a matrix without full rank and of data outside its range."""
    m, n = shape
    matrix = random_matrix(m, n) if rank == "full" else random_matrix(m, rank) @ random_matrix(rank, n, seed=1)
    y = draw((m,), seed=2)

    x = least_squares(linear(matrix), y, tolerance=1e-13)

    expected = y @ torch.linalg.pinv(matrix).T
    # |A^T r| <= 1e-13 |A| |r|: an error of 1e-13 times the square of the condition number, here below 1e4
    torch.testing.assert_close(x, expected, rtol=0, atol=1e-9 * float(expected.norm()))


def test_least_squares_meets_data_that_can_be_met():
    """|A x - y| <= 1e-10 |y| by default."""
    A = linear(spd(20, 1e-3))
    y = A(draw((20,)))

    x = least_squares(A, y)

    # the recursive residual drifts from the true one by rounding, far below 1e-11
    assert ((A(x) - y).norm(dim=1) <= 1.1e-10 * y.norm(dim=1)).all()


def test_least_squares_stops_early_at_a_coarse_tolerance():
    """Few steps, and the components with small singular values are left out: the norm grows with the accuracy."""
    calls = []
    A = from_function(lambda x: (calls.append(1), x @ spd(20, 1e-3).to(x))[1], (20,), linear=True)
    y, steps, norms = draw((20,), n=1), [], []

    for tolerance in (0.3, 1e-2, 1e-6):
        calls.clear()
        norms.append(float(least_squares(A, y, tolerance=tolerance).norm()))
        steps.append(len(calls))

    assert steps == sorted(set(steps))
    assert norms == sorted(set(norms))


def test_least_squares_is_per_sample():
    """An easy sample stands still while a hard one goes on, and what has no solution but zero stays zero."""
    matrix = torch.diag(torch.tensor([1.0, 0.5, 0.1, 0.01, 0.0], dtype=torch.float64))
    hard, easy, unseen, zero = torch.zeros(4, 1, 5, dtype=torch.float64)
    hard[0] = 1.0
    easy[0, 1] = 1.0
    unseen[0, 4] = 1.0  # A^T y = 0

    together = least_squares(linear(matrix), torch.cat([hard, easy, unseen, zero]))
    alone = [least_squares(linear(matrix), y) for y in (hard, easy, unseen, zero)]

    # the same steps; products of matrices of other sizes may round otherwise, times the condition number of 100 squared
    torch.testing.assert_close(together, torch.cat(alone), rtol=0, atol=1e-11)
    assert torch.equal(together[1], 2 * easy[0])  # an eigenvector: one step, exact in binary, and none after it
    assert (together[2:] == 0).all()


def test_least_squares_does_not_write_to_its_argument():
    """Callers keep what they pass."""
    y = draw((6,))
    kept = y.clone()

    least_squares(linear(M), y)

    assert torch.equal(y, kept)


def test_least_squares_in_single_precision_asks_for_no_more_than_it_has():
    """A tolerance below a hundred roundings is raised to that."""
    A, y = linear(M), draw((6,)).float()

    x = least_squares(A, y, tolerance=1e-15)

    assert x.dtype == torch.float32
    # 100 eps, and as much for the drift of the recursive residual; A reaches every y
    assert ((A(x) - y).norm(dim=1) <= 200 * torch.finfo(torch.float32).eps * y.norm(dim=1)).all()


def test_least_squares_says_what_it_could_not_reach():
    """Both residuals, the tolerance, and the parameter to change; the last step counts."""
    A = linear(torch.diag(torch.tensor([1.0, 0.5, 0.25], dtype=torch.float64)))
    y = torch.ones(1, 3, dtype=torch.float64)

    with pytest.raises(
        ArithmeticError,
        match=r"stopped after 2 steps: \|y - A x\| is \d\.\de-\d+ \|y\| and .* tolerance of 1.0e-10, .* pinv_tolerance",
    ):
        least_squares(A, y, max_steps=2)
    # three singular values take three steps, and rounding no more than 1e-15
    torch.testing.assert_close(
        least_squares(A, y, max_steps=3), y * torch.tensor([[1.0, 2.0, 4.0]]), rtol=1e-13, atol=0
    )


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_least_squares_needs_finite_data(bad):
    """NaN compares as converged; it would come back as zeros."""
    y = draw((6,))
    y[1, 2] = bad

    with pytest.raises(ArithmeticError, match="least squares cannot start: the right-hand side is not finite"):
        least_squares(linear(M), y)


@pytest.mark.parametrize("good", [0, 1], ids=["at-once", "later"])
def test_least_squares_does_not_take_nan_for_convergence(good):
    """An operator that breaks down, in its first product or after it, is not solved."""
    calls = []

    def breaks(x):
        calls.append(1)
        return x * (math.nan if len(calls) > 5 else 1) * torch.linspace(0.1, 1, 4, dtype=x.dtype)

    A = from_function(breaks, (4,), linear=True, adjoint=breaks)
    calls[:] = [1] * (5 - good)

    with pytest.raises(ArithmeticError, match=r"least squares stopped after 3 steps: .* is nan"):
        least_squares(A, draw((4,)), max_steps=3)


@pytest.mark.parametrize("unit", [1e-6, 1e6], ids=str)
def test_least_squares_does_not_depend_on_units(unit):
    """(c A)^+ = A^+ / c: the norm of A enters the stop for data outside its range."""
    matrix, y = random_matrix(12, 6), draw((12,), seed=1)

    x, scaled = (least_squares(linear(c * matrix), y, tolerance=1e-6) for c in (1.0, unit))

    # the same steps; rounding times the square of a condition number of 5
    torch.testing.assert_close(unit * scaled, x, rtol=0, atol=1e-12)


@attrs.frozen(kw_only=True, eq=False)
class Thin(SpectralOperator):
    """U diag(s) V^T with fewer coordinates than x or y have entries."""

    U: torch.Tensor
    s: torch.Tensor
    V: torch.Tensor
    input_shape: tuple[int, ...] = (9,)
    output_shape: tuple[int, ...] = (7,)

    def forward(self, x):
        return (x @ self.V.to(x) * self.s.to(x)) @ self.U.to(x).T

    def transpose(self, y):
        return (y @ self.U.to(y) * self.s.to(y)) @ self.V.to(y).T

    @property
    def svd(self):
        return SVD(
            singular_values=self.s,
            V=lambda c: c @ self.V.T,
            Vt=lambda x: x @ self.V,
            U=lambda c: c @ self.U.T,
            Ut=lambda y: y @ self.U,
        )


def test_a_thin_decomposition_gives_all_that_a_square_one_does():
    """Three coordinates, for x of 9 entries and y of 7: inverse, norm and solves are those of the matrix."""
    U, V = (torch.linalg.qr(random_matrix(k, 3, seed))[0] for k, seed in ((7, 1), (9, 2)))
    A = Thin(U=U, s=torch.tensor([2.0, 1.0, 0.5], dtype=torch.float64), V=V)
    matrix, y = matrix_of(A), draw((7,), seed=3)

    normal = 1.7 * matrix @ matrix.T + 0.2 * torch.eye(7, dtype=torch.float64)

    # rounding times condition numbers of 4 and 35
    torch.testing.assert_close(A.pinv(y), y @ torch.linalg.pinv(matrix, rtol=1e-10).T, rtol=0, atol=1e-13)
    torch.testing.assert_close(A.solve(y, a=1.7, b=0.2), torch.linalg.solve(normal, y.T).T, rtol=0, atol=1e-12)
    assert A.norm == 2.0
    assert not A._has_full_row_rank
