"""Base classes of forward operators, and the fallbacks that make few primitives suffice.

A nonlinear operator gives `forward`; a linear one may add `transpose` (else autograd does it); one whose right
singular vectors are a known orthonormal basis adds `svd`, and has the Moore-Penrose inverse, its norm and all solves
exactly.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import attrs
import torch
from torch import Tensor

from scoreplug.noise import Noise


class BaseOperator:
    """Defaults for a forward operator that gives `forward`, `input_shape` and `output_shape`."""

    @property
    def input_shape(self) -> tuple[int, ...]:
        raise NotImplementedError

    @property
    def output_shape(self) -> tuple[int, ...]:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """A x for a batch whose shape has been checked."""
        raise NotImplementedError

    def __call__(self, x: Tensor) -> Tensor:
        """A x.

        Args:
            x: (B, *input_shape).

        Returns:
            (B, *output_shape).

        Raises:
            ValueError: if x has another shape.
        """
        _check_shape(self, x, self.input_shape, "input")
        return self.forward(x)

    def linearize(self, x: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """A(x) and the map v -> J^T v, with J the Jacobian of A at x, (B, *output_shape) -> (B, *input_shape)."""
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            y = self(x)
        return y.detach(), lambda v: torch.autograd.grad(y, x, v, retain_graph=True)[0]


class BaseLinearOperator(BaseOperator):
    """Defaults for a linear operator that gives `forward`: its adjoint, norm and solves."""

    def transpose(self, y: Tensor) -> Tensor:
        """A^T y for a batch whose shape has been checked; by autograd unless overridden."""
        with torch.enable_grad():
            x = torch.zeros(y.shape[0], *self.input_shape, dtype=y.dtype, device=y.device, requires_grad=True)
            return torch.autograd.grad(self.forward(x), x, y, create_graph=y.requires_grad)[0]

    def adjoint(self, y: Tensor) -> Tensor:
        """A^T y.

        Args:
            y: (B, *output_shape).

        Returns:
            (B, *input_shape).

        Raises:
            ValueError: if y has another shape.
        """
        _check_shape(self, y, self.output_shape, "output")
        return self.transpose(y)

    def linearize(self, x: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        return self(x), self.adjoint

    @functools.cached_property
    def norm(self) -> float:
        """The largest singular value, by power iteration on A^T A in float64 (from below, to a relative 1e-4)."""
        return power_iteration(self)

    def solve(self, r: Tensor, *, a: float | Tensor, b: float | Tensor) -> Tensor:
        """(a A A^T + b I)^{-1} r, by conjugate gradients (see `conjugate_gradient` for the tolerance).

        Args:
            r: (B, *output_shape).
            a: >= 0.
            b: > 0.
        """
        return conjugate_gradient(lambda v: a * self(self.adjoint(v)) + b * v, r)


class SpectralOperator(BaseLinearOperator):
    """Defaults for a linear operator that gives `forward`, `transpose` and `svd`: everything else is exact."""

    @property
    def svd(self) -> SVD:
        raise NotImplementedError

    @functools.cached_property
    def norm(self) -> float:
        return float(self.svd.singular_values.max())

    def pinv(self, y: Tensor) -> Tensor:
        """A^+ y = V S^+ U^T y, (B, *output_shape) -> (B, *input_shape)."""
        return self.svd.V(self.svd.inverse(y) * self.svd.Ut(y))

    def solve(self, r: Tensor, *, a: float | Tensor, b: float | Tensor) -> Tensor:
        """(a A A^T + b I)^{-1} r = U (a s^2 + b)^{-1} U^T r + (I - U U^T) r / b, exactly.

        The second term is zero where A reaches every y; b may then be 0.
        """
        svd = self.svd
        c = svd.Ut(r)
        s, a_, b_ = svd.singular_values.to(c), _per_sample(a, c), _per_sample(b, c)
        in_range = svd.U(torch.where(s > 0, 1 / (a_ * s**2 + b_), 0) * c)
        if self._has_full_row_rank:
            return in_range
        rest = r - svd.U(c)
        rest = rest - svd.U(svd.Ut(rest))  # twice is enough: 1/b would blow up what rounding left of A's range
        return in_range + rest / b

    @functools.cached_property
    def _has_full_row_rank(self) -> bool:
        return int((self.svd.singular_values > 0).sum()) == math.prod(self.output_shape)


@attrs.frozen(kw_only=True, eq=False)
class SVD:
    """A = U diag(s) V^T, as maps rather than matrices.

    Spectral coordinates have one shape on both sides, that of `singular_values`. The columns of V are orthonormal; with
    as many coordinates as x has entries V is square and orthogonal, with fewer the decomposition is thin, and A is 0 on
    what V does not reach. Where s = 0 the measurement says nothing: U^T y is zero there.

    Args:
        singular_values: s >= 0, float64, spectral shape.
        V: (B, *spectral) -> (B, *input_shape).
        Vt: its transpose, and inverse if V is square.
        U: (B, *spectral) -> (B, *output_shape); ignores coordinates with s = 0.
        Ut: its transpose.
    """

    singular_values: Tensor
    V: Callable[[Tensor], Tensor]
    Vt: Callable[[Tensor], Tensor]
    U: Callable[[Tensor], Tensor]
    Ut: Callable[[Tensor], Tensor]

    @classmethod
    def from_right(
        cls,
        singular_values: Tensor,
        V: Callable[[Tensor], Tensor],
        Vt: Callable[[Tensor], Tensor],
        operator: BaseLinearOperator,
    ) -> SVD:
        """From the right singular vectors alone: U = A V S^+. For singular values of one order of magnitude (masks,
        averages)."""

        def inverse(c: Tensor) -> Tensor:
            return _inverse(singular_values).to(c)

        return cls(
            singular_values=singular_values,
            V=V,
            Vt=Vt,
            U=lambda c: operator.forward(V(inverse(c) * c)),
            Ut=lambda y: (w := Vt(operator.transpose(y))) * inverse(w),
        )

    def inverse(self, like: Tensor) -> Tensor:
        """s^+ = 1/s where s > 0, else 0, in the type and on the device of `like`."""
        return _inverse(self.singular_values).to(like)


@attrs.frozen(kw_only=True, eq=False)
class FunctionOperator(BaseOperator):
    """Any differentiable torch callable as a forward operator."""

    function: Callable[[Tensor], Tensor]
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


@attrs.frozen(kw_only=True, eq=False)
class LinearFunctionOperator(BaseLinearOperator):
    """Any linear torch callable as a forward operator, with its adjoint or autograd's."""

    function: Callable[[Tensor], Tensor]
    adjoint_function: Callable[[Tensor], Tensor] | None = None
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)

    def transpose(self, y: Tensor) -> Tensor:
        return super().transpose(y) if self.adjoint_function is None else self.adjoint_function(y)


def from_function(
    function: Callable[[Tensor], Tensor],
    input_shape: tuple[int, ...],
    *,
    linear: bool = False,
    adjoint: Callable[[Tensor], Tensor] | None = None,
) -> BaseOperator:
    """Make an operator of any torch callable.

    Args:
        function: batched and differentiable, (B, *input_shape) -> (B, *output_shape).
        input_shape: shape of one x.
        linear: function is linear; it then has an adjoint, a norm and solves. Checked on two random vectors.
        adjoint: its transpose, if autograd's is too slow; implies nothing unless linear=True. Checked by a dot product.

    Raises:
        ValueError: if the function does not keep the batch, is not linear though linear=True, or adjoint is not its
            transpose.
    """
    draws = Noise(0, (0, 1, 2), dtype=torch.float64, device=torch.device("cpu")).at("from_function")
    x = draws.at("x").normal(tuple(input_shape))
    y = function(x).detach()
    if y.shape[:1] != x.shape[:1]:
        raise ValueError(f"function must map a batch to a batch: (3, ...) became {tuple(y.shape)}")
    shapes: dict[str, Any] = {"input_shape": tuple(input_shape), "output_shape": tuple(y.shape[1:])}
    if not linear:
        if adjoint is not None:
            raise ValueError("adjoint is given, but linear=False; only a linear operator has an adjoint")
        return FunctionOperator(function=function, **shapes)

    # float64 rounding of a sum over n terms is below n * 2.2e-16 of their size; 1e-8 leaves room for FFTs and solvers
    combined = function(2 * x[:1] - 3 * x[1:2]).detach()
    if not torch.allclose(combined, 2 * y[:1] - 3 * y[1:2], rtol=1e-8, atol=1e-8 * float(y.abs().max())):
        raise ValueError("function is not linear: f(2 x - 3 x') differs from 2 f(x) - 3 f(x'); pass linear=False")
    operator = LinearFunctionOperator(function=function, adjoint_function=adjoint, **shapes)
    v = draws.at("y").normal(operator.output_shape)
    forward, backward = (y * v).sum(), (x * operator.adjoint(v)).sum()
    if not torch.allclose(forward, backward, rtol=1e-8, atol=1e-8 * float(y.norm() * v.norm())):
        raise ValueError(
            f"adjoint is not the transpose of function: <A x, v> = {forward:.6g}, <x, A^T v> = {backward:.6g}"
        )
    return operator


@attrs.frozen(kw_only=True, eq=False)
class DenseSVDOperator(SpectralOperator):
    """A small linear operator with its singular value decomposition computed once from its matrix."""

    base: BaseLinearOperator
    svd: SVD

    @property
    def input_shape(self) -> tuple[int, ...]:
        return self.base.input_shape

    @property
    def output_shape(self) -> tuple[int, ...]:
        return self.base.output_shape

    def forward(self, x: Tensor) -> Tensor:
        return self.base.forward(x)

    def transpose(self, y: Tensor) -> Tensor:
        return self.base.transpose(y)


def with_dense_svd(operator: BaseLinearOperator, *, max_entries: int = 50_000_000) -> DenseSVDOperator:
    """The same operator with a dense singular value decomposition.

    Args:
        operator: any linear operator.
        max_entries: the largest matrix that is made; 5e7 entries are 0.4 GB.

    Raises:
        ValueError: if its matrix would have more entries.
    """
    n, m = math.prod(operator.input_shape), math.prod(operator.output_shape)
    if n * max(n, m) > max_entries:
        raise ValueError(
            f"a dense SVD of a {m} x {n} operator takes {n * max(n, m):.1e} entries, "
            f"more than max_entries={max_entries:.1e}"
        )
    return DenseSVDOperator(
        base=operator, svd=dense_svd(matrix_of(operator), operator.input_shape, operator.output_shape)
    )


def matrix_of(operator: BaseLinearOperator) -> Tensor:
    """The matrix of a linear operator, (m, n), float64, column by column."""
    n = math.prod(operator.input_shape)
    columns = [
        operator(block.reshape(-1, *operator.input_shape)).detach().flatten(1)
        for block in torch.split(torch.eye(n, dtype=torch.float64, device="cpu"), 256)
    ]
    return torch.cat(columns).T


def dense_svd(matrix: Tensor, input_shape: tuple[int, ...], output_shape: tuple[int, ...]) -> SVD:
    """The SVD of a matrix (m, n) that maps flattened x to flattened y. Singular values below n eps of the largest
    count as zero."""
    n = matrix.shape[1]
    U, s, Vt = torch.linalg.svd(matrix, full_matrices=matrix.shape[0] < n)  # V is square; U need not be
    k = len(s)
    s = torch.where(s > max(matrix.shape) * torch.finfo(matrix.dtype).eps * s.max(), s, torch.zeros_like(s))
    singular_values = torch.nn.functional.pad(s, (0, n - k))
    U = torch.nn.functional.pad(U[:, :k] * (s > 0), (0, n - k))
    return SVD(
        singular_values=singular_values,
        V=lambda c: (c @ Vt.to(c)).reshape(-1, *input_shape),
        Vt=lambda x: x.flatten(1) @ Vt.to(x).T,
        U=lambda c: (c @ U.to(c).T).reshape(-1, *output_shape),
        Ut=lambda y: y.flatten(1) @ U.to(y),
    )


def power_iteration(operator: BaseLinearOperator, *, tolerance: float = 1e-6, max_steps: int = 1000) -> float:
    """The largest singular value of a linear operator, by power iteration on A^T A in float64.

    The Rayleigh quotient grows monotonically to the norm squared; it stops when a step adds less than `tolerance` of
    it.
    """
    v = Noise(0, (0,), dtype=torch.float64, device=torch.device("cpu")).at("norm").normal(tuple(operator.input_shape))
    value = 0.0
    with torch.no_grad():
        for _ in range(max_steps):
            w = operator.adjoint(operator(v / v.norm()))
            previous, value = value, float(w.norm())
            if value <= previous * (1 + tolerance):
                break
            v = w
    return math.sqrt(value)


def conjugate_gradient(
    A: Callable[[Tensor], Tensor],
    b: Tensor,
    *,
    start: Tensor | None = None,
    tolerance: float | None = None,
    max_steps: int | None = None,
    strict: bool = True,
) -> Tensor:
    """Solve A v = b for a symmetric positive definite A, for each sample of a batch on its own (Hestenes and Stiefel
    1952).

    Args:
        A: (B, *shape) -> (B, *shape), acting on each sample alone.
        b: (B, *shape).
        start: a guess of v, (B, *shape); by default 0.
        tolerance: stop a sample at ||A v - b|| <= tolerance ||b||; by default 1e-10 in float64, 1e-5 in float32.
        max_steps: by default ten times the number of unknowns, at most 1000.
        strict: raise if some sample has not converged. Otherwise a sample stops where A proves not to be positive
            definite, or after max_steps, with what it has.

    Returns:
        v, (B, *shape).

    Raises:
        ArithmeticError: if b is not finite, or, if strict, some sample has not converged.
    """
    tolerance = (1e-10 if b.dtype == torch.float64 else 1e-5) if tolerance is None else tolerance
    max_steps = min(10 * b[0].numel(), 1000) if max_steps is None else max_steps

    def dot(u: Tensor, v: Tensor) -> Tensor:
        return (u * v).flatten(1).sum(1).reshape(-1, *(1 for _ in b.shape[1:]))

    if not bool(b.isfinite().all()):
        raise ArithmeticError("conjugate gradients cannot start: the right-hand side is not finite")
    v, r = (torch.zeros_like(b), b) if start is None else (start, b - A(start))
    p, rr = r, dot(r, r)
    goal = tolerance**2 * dot(b, b)
    broken = torch.zeros_like(rr, dtype=torch.bool)
    for _ in range(max_steps):
        # NaN is not convergence; what has converged stands still, whatever its batch mates do
        active = ~(rr <= goal) & ~broken
        if not bool(active.any()):
            break
        Ap = A(p)
        curvature = dot(p, Ap)
        if not strict:
            broken = broken | (active & ~(curvature > 0))
            active = active & ~broken
        step = torch.where(active, rr / curvature, 0)
        v, r = v + step * p, r - step * Ap
        rr_next = dot(r, r)
        p = r + torch.where(active, rr_next / rr, 0) * p
        rr = torch.where(active, rr_next, rr)
    open_ = ~(rr <= goal)
    if strict and bool(open_.any()):
        worst = float((rr / dot(b, b))[open_].max().sqrt())
        raise ArithmeticError(
            f"conjugate gradients stopped after {max_steps} steps "
            f"at a relative residual of {worst:.1e} > {tolerance:.1e}: the system is too ill-conditioned for "
            f"{str(b.dtype).removeprefix('torch.')}. Use an operator with a decomposition (scoreplug.operator."
            "with_dense_svd, if it is small), lower noise levels, or precision = float64"
        )
    return v


def least_squares(
    operator: BaseLinearOperator, y: Tensor, *, tolerance: float = 1e-10, max_steps: int = 2000
) -> Tensor:
    """A^+ y, the least-squares solution of smallest norm, by conjugate gradients on the normal equations (CGLS; Bjorck:
    Numerical Methods for Least Squares Problems. SIAM 1996, algorithm 7.4.1), for each sample of a batch on its own.

    The iteration starts from 0 and stays in the range of A^T. What it has not resolved when it stops is left out, so
    that a coarse tolerance regularises: components with small singular values come last.

    Args:
        operator: A.
        y: (B, *output_shape).
        tolerance: stop a sample at ||y - A x|| <= tolerance ||y||, or, if y is not in the range of A, at ||A^T (y - A
            x)|| <= tolerance |A| ||y - A x|| (Paige, Saunders 1982, doi:10.1145/355984.355989), with the largest
            ||A p|| / ||p|| met so far for |A|. No less than a hundred roundings of y's type.
        max_steps: how many steps it may take.

    Returns:
        x, (B, *input_shape).

    Raises:
        ArithmeticError: if y is not finite, or some sample has not converged.
    """
    if not bool(y.isfinite().all()):
        raise ArithmeticError("least squares cannot start: the right-hand side is not finite")

    def norm(u: Tensor) -> Tensor:
        return u.flatten(1).norm(dim=1)

    def times(c: Tensor, u: Tensor) -> Tensor:
        return c.reshape(-1, *(1 for _ in u.shape[1:])) * u

    tolerance = max(tolerance, 100 * torch.finfo(y.dtype).eps)
    r, g = y, operator.adjoint(y)
    x, p, gamma = torch.zeros_like(g), g, norm(g) ** 2
    scale, goal = torch.zeros_like(gamma), tolerance * norm(y)
    active = ~(gamma <= 0)  # NaN is not convergence; what has converged stands still, whatever its batch mates do
    for _ in range(max_steps):
        if not bool(active.any()):
            return x
        q = operator(p)
        step = torch.where(active, gamma / norm(q) ** 2, 0)
        x, r = x + times(step, p), r - times(step, q)
        g = operator.adjoint(r)
        gamma_next = norm(g) ** 2
        scale = torch.where(active, torch.maximum(scale, norm(q) / norm(p)), scale)
        p = g + times(torch.where(active, gamma_next / gamma, 0), p)
        gamma = torch.where(active, gamma_next, gamma)
        active = active & ~((norm(r) <= goal) | (gamma.sqrt() <= tolerance * scale * norm(r)))
    if bool(active.any()):
        residual = float((norm(r) / norm(y))[active].max())
        gradient = float((gamma.sqrt() / (scale * norm(r)))[active].max())
        raise ArithmeticError(
            f"least squares stopped after {max_steps} steps: |y - A x| is {residual:.1e} |y| and |A^T (y - A x)| is "
            f"{gradient:.1e} |A| |y - A x|, neither below the tolerance of {tolerance:.1e}, which asks for more than "
            "this operator's condition allows; use a larger one (the operator's pinv_tolerance)"
        )
    return x


def _per_sample(coefficient: float | Tensor, like: Tensor) -> float | Tensor:
    """One coefficient for all samples as it is, or one for each, to multiply (B, *shape) of `like`."""
    if isinstance(coefficient, Tensor) and coefficient.ndim > 0:
        return coefficient.reshape(-1, *(1 for _ in like.shape[1:]))
    return coefficient


def _inverse(s: Tensor) -> Tensor:
    return torch.where(s > 0, 1 / torch.where(s > 0, s, torch.ones_like(s)), torch.zeros_like(s))


def _check_shape(operator: BaseOperator, value: Tensor, shape: tuple[int, ...], side: str) -> None:
    if tuple(value.shape[1:]) != tuple(shape) or value.ndim != len(shape) + 1:
        raise ValueError(
            f"{type(operator).__name__} takes a batch (B, {', '.join(map(str, shape))}) as its {side} "
            f"(got {tuple(value.shape)})"
        )
