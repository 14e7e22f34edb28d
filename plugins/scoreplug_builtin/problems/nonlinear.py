r"""Nonlinear measurements of one or two numbers: the posterior by quadrature, with everything known to rounding.

    p(x) = sum_k w_k N(m_k, s_k^2 I),    x of one or two pixels
    y = A(x) + sigma_y n,    A(x) = |x|, x^2, sign(x), pixel by pixel, or |x_1 + i x_2|
    p(x | y) = p(x) p(y | x) / p(y),    p(y) = int p(x) p(y | x) dx

Such measurements leave several modes (the signs of x), or a ring (the phase): what a linear operator never does to a
Gaussian. |x_1 + i x_2| is phase retrieval at its smallest; |F x| with the Fourier transform of two pixels is "abs"
turned by 45 degrees.

"sign" has the gradient 0 wherever it has one. A method that follows the gradient of |y - A(x)|^2 learns nothing from
it, and draws from the prior; one that weighs, accepts or rejects samples by p(y | x) can be right.

The score of p_t(x | y) comes from the conditional mean, u = x_0 and l = sigma_t / alpha_t:

    E[x_0 | x_t, y] = int u p(u | y) N(u; x_t / alpha_t, l^2 I) du / int p(u | y) N(u; x_t / alpha_t, l^2 I) du

How the integrals are done. Gauss-Legendre rules of 8 nodes on panels of two widths of the narrowest feature, which is
a component's s_k or the likelihood's: sigma_y over the slope of A. Panels end at 0, where |x| has its kink and sign(x)
its jump, and at 8 s_k beyond the outermost means, which leaves out 1e-15 of p(x). Where l is smaller than that width
the fixed nodes do not resolve the kernel any more; a rule of the same kind around x_t / alpha_t, from -9 l to 9 l in
panels of 3 l, takes their place, so that there is no smallest level. It is off by 5e-6 l or less while l alpha_t
|score| < 4, so for all x_t but those that neither the process nor the reverse process visits. `quadrature_error`
states what halving the panels changes of log p(y): below 1e-8 but for |x_1 + i x_2| with y < sigma_y, whose cone at 0
is not smooth, with 1e-5.

Exact samples invert the distribution function of cells of 1/8 of the narrowest width, one coordinate after the other.
Within a cell they are uniform, which adds at most 1/700 of the narrowest variance.

References:
    Davis, Rabinowitz: Methods of Numerical Integration. Academic Press 1984, section 2.7.
    Devroye: Non-Uniform Random Variate Generation. Springer 1986, sections II.2 and XI.1.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Literal

import attrs
import numpy as np
import torch
from torch import Tensor

from scoreplug import param
from scoreplug.measurement import Measurement
from scoreplug.model import BaseModel
from scoreplug.noise import Noise
from scoreplug.operator import FunctionOperator
from scoreplug.protocols import SDE
from scoreplug_builtin.models.gaussian_mixture import GaussianMixture
from scoreplug_builtin.problems._linear import generator

ORDER = 8  # nodes of a panel
PANEL = 2.0  # its length in narrowest widths
CELLS = 16  # of a panel, for exact samples
REACH = 8.0  # standard deviations of a component that the grid covers
LOCAL_REACH = 9.0  # standard deviations of the kernel that the moving grid covers
MOST_NODES = 2048  # per side in two dimensions: the table then takes 34 MB
CHUNK = 2**20  # points of the plane that are evaluated at once


@attrs.frozen(kw_only=True, eq=False)
class NonlinearProblem:
    """One or two numbers of a small Gaussian mixture, measured by a nonlinear operator, in float64.

    The components have means U(-1.5, 1.5), standard deviations U(0.2, 0.5) and weights in proportion to U(0.5, 1.5).

    Raises:
        ValueError: for "modulus" in one dimension, and if a grid would be too large.
    """

    dimension: Literal[1, 2] = param(1, doc="number of pixels")
    operator: Literal["abs", "square", "sign", "modulus"] = param(
        "abs", doc="A: |x|, x^2 or sign(x), pixel by pixel, or |x_1 + i x_2|"
    )
    components: int = param(4, ge=1, doc="of the prior")
    noise_std: float = param(0.2, gt=0.0, doc="standard deviation of the noise in y")
    seed: int = param(0, ge=0, doc="which prior")
    draw: int = param(0, ge=0, doc="which pair of x and y under it")
    sde: SDE = param("vp", component="sde", doc="the forward process that prior and oracle are asked under")

    def __attrs_post_init__(self) -> None:
        if self.operator == "modulus" and self.dimension == 1:
            raise ValueError("the modulus |x_1 + i x_2| takes two numbers: use dimension=2, or 'abs' for one number")
        if self.dimension == 2 and len(self._rule[0]) > MOST_NODES:
            raise ValueError(
                f"noise_std={self.noise_std!r} makes this posterior so narrow that the plane would take "
                f"{len(self._rule[0])} nodes on each side, more than {MOST_NODES}; use more noise, or dimension=1"
            )

    @functools.cached_property
    def prior(self) -> GaussianMixture:
        """The mixture under the process."""
        rng = generator(*self._address, self.seed, "prior")
        means, stds, weights = (torch.from_numpy(rng.random(size)) for size in self._sizes)
        return GaussianMixture(
            image_shape=self._shape,
            means=3 * means - 1.5,
            weights=0.5 + weights,
            covariances=(0.2 + 0.3 * stds) ** 2,
            sde=self.sde,
        )

    @functools.cached_property
    def measurement(self) -> Measurement:
        """y."""
        clean = _OPERATORS[self.operator](self.truth[None])
        operator = FunctionOperator(
            function=_OPERATORS[self.operator], input_shape=self._shape, output_shape=tuple(clean.shape[1:])
        )
        y = clean + self.noise_std * self._noise("n").normal(operator.output_shape)
        return Measurement(operator, y[0], self.noise_std)

    @functools.cached_property
    def truth(self) -> Tensor:
        """x ~ p(x)."""
        noise, prior = self._noise("x"), self.prior
        shares = prior.log_weights.exp().cumsum(0)
        k = torch.searchsorted(shares, noise.at("mode").uniform()).clamp(max=self.components - 1)
        std = prior.normals.eigenvalues[k if len(prior.normals.eigenvalues) > 1 else 0 * k].sqrt()
        x = prior.normals.mean[k] + std * noise.at("z").normal((self.dimension,))
        return x[0].reshape(self._shape)

    def exact_samples(self, n: int, *, seed: int = 0) -> Tensor:
        """n independent draws of p(x | y), (n, *shape); draw i of a seed is the same whatever n is."""
        noise = Noise(seed, range(n), dtype=torch.float64, device=torch.device("cpu"))
        u = noise.at(*self._address, "exact", self.seed, self.draw).uniform((self.dimension,))
        first = _invert(self._marginal[None], self._cells, u[:, 0])
        if self.dimension == 1:
            return first.reshape(n, *self._shape)

        middles = (self._cells[1:] + self._cells[:-1]) / 2
        second = []
        for x, v in zip(*(torch.split(part, max(1, CHUNK // len(middles))) for part in (first, u[:, 1])), strict=True):
            conditional = self.log_joint(_pairs(x[:, None], middles.expand(len(x), -1))).reshape(len(x), -1)
            second.append(_invert(conditional, self._cells, v))
        return torch.stack([first, torch.cat(second)], dim=1).reshape(n, *self._shape)

    @functools.cached_property
    def log_evidence(self) -> float:
        """log p(y), in nats, to `quadrature_error`."""
        return float(self._log_masses.flatten().logsumexp(0))

    @functools.cached_property
    def quadrature_error(self) -> float:
        """What panels of half the length change of log p(y), in nats."""
        nodes, weights = self._rule_of(self._panels * 2)
        return abs(float(self._masses_at(nodes, weights).flatten().logsumexp(0)) - self.log_evidence)

    @functools.cached_property
    def oracle(self) -> QuadraturePosterior:
        """The posterior under the process."""
        return QuadraturePosterior(problem=self, sde=self.sde)

    @functools.cached_property
    def moments(self) -> tuple[Tensor, Tensor]:
        """E[x | y], (d,), and Cov[x | y], (d, d)."""
        x = self._points(self._rule[0])
        w = (self._log_masses.flatten() - self.log_evidence).exp()
        mean = w @ x
        return mean, torch.einsum("i,ij,ik->jk", w, x - mean, x - mean)

    def log_posterior(self, x: Tensor) -> Tensor:
        """log p(x | y), (B,), in nats."""
        return self.log_joint(x.flatten(1).double()) - self.log_evidence

    def log_joint(self, x: Tensor) -> Tensor:
        """log p(x) + log p(y | x), (B,), for x of shape (B, d)."""
        one = torch.ones((), dtype=x.dtype)
        log_prior = (self.prior.log_weights + self.prior.normals.at(x, one, 0 * one).log_density()).logsumexp(1)
        r = self.measurement.residual(x.reshape(-1, *self._shape)).flatten(1) / self.noise_std
        return log_prior - 0.5 * (r**2 + math.log(2 * math.pi * self.noise_std**2)).sum(1)

    @functools.cached_property
    def width(self) -> float:
        """The narrowest width that p(x | y) can have in any direction, to a factor of sqrt(2)."""
        narrowest = float(self.prior.normals.eigenvalues.min().sqrt())
        slope = 1.0
        if self.operator == "sign":
            return narrowest
        if self.operator == "square":  # d x^2 / dx = 2 |x|, where x^2 is not farther than 8 sigma_y from y
            slope = 2 * math.sqrt(max(float(self.measurement.data.max()), 0) + 8 * self.noise_std)
        return min(narrowest, self.noise_std / slope)

    @functools.cached_property
    def _panels(self) -> int:
        """How many panels there are on the longer side of 0."""
        return math.ceil(max(-self._box[0], self._box[1]) / (PANEL * self.width))

    @functools.cached_property
    def _box(self) -> tuple[float, float]:
        """The interval that holds all components, about 0."""
        normals = self.prior.normals
        reach = REACH * normals.eigenvalues.sqrt()
        return float((normals.mean - reach).min()), float((normals.mean + reach).max())

    def _edges(self, panels: int) -> Tensor:
        """Ends of the panels, 0 among them."""
        low, high = self._box
        left, right = (math.ceil(panels * abs(end) / max(-low, high)) for end in (low, high))
        below = torch.linspace(low, 0, left + 1, dtype=torch.float64)
        above = torch.linspace(0, high, right + 1, dtype=torch.float64)
        return torch.cat([below, above[1:]])

    def _rule_of(self, panels: int) -> tuple[Tensor, Tensor]:
        return _gauss_legendre(self._edges(panels))

    @functools.cached_property
    def _rule(self) -> tuple[Tensor, Tensor]:
        """Nodes and weights of one coordinate, (G,) each."""
        return self._rule_of(self._panels)

    @functools.cached_property
    def _log_masses(self) -> Tensor:
        """Logarithm of weight times p(x) p(y | x) at the nodes, (G,) or (G, G)."""
        return self._masses_at(*self._rule)

    def _masses_at(self, nodes: Tensor, weights: Tensor) -> Tensor:
        values = torch.cat([self.log_joint(x) for x in torch.split(self._points(nodes), CHUNK)])
        table = values.reshape((len(nodes),) * self.dimension)
        for axis in range(self.dimension):
            table = table + weights.log().reshape(-1, *(1 for _ in range(axis)))
        return table

    def _points(self, nodes: Tensor) -> Tensor:
        """The grid of those nodes in every coordinate, (G^d, d)."""
        return nodes[:, None] if self.dimension == 1 else torch.cartesian_prod(nodes, nodes)

    @functools.cached_property
    def _cells(self) -> Tensor:
        """Ends of the cells that exact samples are drawn in."""
        return self._edges(self._panels * CELLS)

    @functools.cached_property
    def _marginal(self) -> Tensor:
        """log p(x_1, y) in the middle of each cell."""
        middles = (self._cells[1:] + self._cells[:-1]) / 2
        if self.dimension == 1:
            return self.log_joint(middles[:, None])
        nodes, weights = self._rule
        rows = []
        for x in torch.split(middles, max(1, CHUNK // len(nodes))):
            joint = self.log_joint(_pairs(x[:, None], nodes.expand(len(x), -1))).reshape(len(x), -1)
            rows.append((joint + weights.log()).logsumexp(1))
        return torch.cat(rows)

    @property
    def _shape(self) -> tuple[int, int, int]:
        return (1, 1, self.dimension)

    @property
    def _sizes(self) -> tuple[tuple[int, ...], ...]:
        return (self.components, self.dimension), (self.components,), (self.components,)

    @property
    def _address(self) -> tuple[str | int, ...]:
        return ("nonlinear problem", self.dimension, self.components)

    def _noise(self, what: str) -> Noise:
        noise = Noise(self.seed, (self.draw,), dtype=torch.float64, device=torch.device("cpu"))
        return noise.at(*self._address, what)


@attrs.frozen(kw_only=True, eq=False)
class QuadraturePosterior(BaseModel):
    """The score model of p(x | y), by quadrature over x_0."""

    problem: NonlinearProblem
    sde: SDE

    @property
    def shape(self) -> tuple[int, ...]:
        return self.problem.prior.shape

    @property
    def dtype(self) -> torch.dtype:
        return torch.float64

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    def denoise(self, x: Tensor, t: Tensor) -> Tensor:
        """E[x_0 | x_t = x, y]."""
        u, _, _ = self._kernel(x, t)
        return (u + self._at(x, t)[1]).reshape(x.shape).to(x)

    def score(self, x: Tensor, t: Tensor) -> Tensor:
        """(E[x_0 | x_t = x, y] - x / alpha) / (alpha l^2), without the cancellation."""
        _, level, alpha = self._kernel(x, t)
        return (self._at(x, t)[1] / (alpha * level**2)).reshape(x.shape).to(x)

    def log_density(self, x: Tensor, t: Tensor) -> Tensor:
        """log p_t(x | y), (B,), in nats."""
        _, _, alpha = self._kernel(x, t)
        log_mass = self._at(x, t)[0] - self.problem.log_evidence
        return (log_mass - self.problem.dimension * alpha[:, 0].log()).to(x)

    def _kernel(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x / alpha, (B, d), sigma / alpha and alpha, (B, 1)."""
        alpha, sigma = (c.double().expand(len(x)).reshape(-1, 1) for c in (self.sde.alpha(t), self.sde.sigma(t)))
        return x.flatten(1).double() / alpha, sigma / alpha, alpha

    def _at(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """log int p(u, y) N(u; x / alpha, l^2 I) du, (B,), and E[u - x / alpha | x, y], (B, d)."""
        u, level, _ = self._kernel(x, t)
        fixed = level[:, 0] >= self.problem.width
        if bool(fixed.all()):
            return self._fixed(u, level)
        if not bool(fixed.any()):
            return self._moving(u, level)
        order = torch.cat([fixed.nonzero()[:, 0], (~fixed).nonzero()[:, 0]]).argsort()
        parts = [self._fixed(u[fixed], level[fixed]), self._moving(u[~fixed], level[~fixed])]
        log_mass, shift = (torch.cat([part[i] for part in parts])[order] for i in (0, 1))
        return log_mass, shift

    def _fixed(self, u: Tensor, level: Tensor) -> tuple[Tensor, Tensor]:
        """On the problem's nodes."""
        nodes, _ = self.problem._rule
        log_masses = self.problem._log_masses
        offset = nodes - u[:, :, None]
        log_kernel = _log_kernel(offset, level[:, :, None])
        if self.problem.dimension == 1:
            joint = log_masses + log_kernel[:, 0]
            return joint.logsumexp(1), (joint.softmax(1) * offset[:, 0]).sum(1, keepdim=True)

        # The kernel is a product, so that the sum over the plane is a matrix product. Scaled by the largest values it
        # underflows only for x far from where the posterior has mass; these are summed by their logarithms.
        top_mass, top_kernel = log_masses.max(), log_kernel.amax(2, keepdim=True)
        masses, kernel = (log_masses - top_mass).exp(), (log_kernel - top_kernel).exp()
        rows = kernel[:, 0] @ masses
        total = (rows * kernel[:, 1]).sum(1)
        far = total < 1e-200
        total = torch.where(far, 1, total)
        first = (((kernel[:, 0] * offset[:, 0]) @ masses) * kernel[:, 1]).sum(1)
        second = (rows * kernel[:, 1] * offset[:, 1]).sum(1)
        log_mass = total.log() + top_mass + top_kernel.sum((1, 2))
        shift = torch.stack([first, second], dim=1) / total[:, None]
        if not bool(far.any()):
            return log_mass, shift
        sums = [self._by_logarithms(o, k) for o, k in zip(offset[far], log_kernel[far], strict=True)]
        index = far.nonzero()[:, 0]
        return (
            log_mass.index_copy(0, index, torch.stack([s[0] for s in sums])),
            shift.index_copy(0, index, torch.stack([s[1] for s in sums])),
        )

    def _by_logarithms(self, offset: Tensor, log_kernel: Tensor) -> tuple[Tensor, Tensor]:
        """The same for one sample, whose offset and kernel are (2, G)."""
        joint = self.problem._log_masses + log_kernel[0][:, None] + log_kernel[1]
        log_mass = joint.flatten().logsumexp(0)
        w = (joint - log_mass).exp()
        return log_mass, torch.stack([w.sum(1) @ offset[0], w.sum(0) @ offset[1]])

    def _moving(self, u: Tensor, level: Tensor) -> tuple[Tensor, Tensor]:
        """On nodes around x / alpha, broken at 0: kernel and posterior are both smooth on a panel."""
        centre = u.detach()  # the derivative in u is the kernel's; where the nodes lie does not matter
        low, high = centre - LOCAL_REACH * level, centre + LOCAL_REACH * level
        edges = low[:, :, None] + (high - low)[:, :, None] * torch.linspace(0, 1, 7, dtype=torch.float64)
        kink = torch.zeros_like(centre).clamp(low, high)
        nodes, weights = _gauss_legendre(torch.cat([edges, kink[:, :, None]], dim=2).sort(2).values)
        offset = nodes - u[:, :, None]
        log_weights = weights.log() + _log_kernel(offset, level[:, :, None])
        if self.problem.dimension == 1:
            joint = log_weights[:, 0] + self.problem.log_joint(nodes.reshape(-1, 1)).reshape(len(u), -1)
            return joint.logsumexp(1), (joint.softmax(1) * offset[:, 0]).sum(1, keepdim=True)

        log_masses, shifts = [], []
        size = max(1, CHUNK // nodes.shape[2] ** 2)
        for x, o, w in zip(*(torch.split(part, size) for part in (nodes, offset, log_weights)), strict=True):
            joint = self.problem.log_joint(_pairs(x[:, 0], x[:, 1])).reshape(len(x), x.shape[2], -1)
            joint = joint + w[:, 0, :, None] + w[:, 1, None, :]
            log_mass = joint.flatten(1).logsumexp(1)
            share = (joint - log_mass[:, None, None]).exp()
            log_masses.append(log_mass)
            shifts.append(torch.stack([(share.sum(2) * o[:, 0]).sum(1), (share.sum(1) * o[:, 1]).sum(1)], dim=1))
        return torch.cat(log_masses), torch.cat(shifts)


def _square(x: Tensor) -> Tensor:
    return x**2


def _modulus(x: Tensor) -> Tensor:
    return torch.linalg.vector_norm(x.flatten(1), dim=1, keepdim=True)


_OPERATORS: dict[str, Callable[[Tensor], Tensor]] = {
    "abs": torch.abs,
    "square": _square,
    "sign": torch.sign,
    "modulus": _modulus,
}


def _gauss_legendre(edges: Tensor) -> tuple[Tensor, Tensor]:
    """Nodes and weights on the panels between neighbouring edges, (..., P + 1) -> (..., P ORDER)."""
    points, weights = (torch.from_numpy(v) for v in np.polynomial.legendre.leggauss(ORDER))
    half = (edges[..., 1:] - edges[..., :-1])[..., None] / 2
    middle = (edges[..., 1:] + edges[..., :-1])[..., None] / 2
    return (middle + half * points).flatten(-2), (half * weights).flatten(-2)


def _log_kernel(offset: Tensor, level: Tensor) -> Tensor:
    """log N(offset; 0, level^2) in each coordinate."""
    return -0.5 * (offset / level) ** 2 - (level * math.sqrt(2 * math.pi)).log()


def _pairs(first: Tensor, second: Tensor) -> Tensor:
    """All pairs of a row of each, (B, P) and (B, Q) -> (B P Q, 2)."""
    shape = (len(first), first.shape[1], second.shape[1])
    return torch.stack([first[:, :, None].expand(shape), second[:, None].expand(shape)], dim=3).reshape(-1, 2)


def _invert(log_density: Tensor, edges: Tensor, u: Tensor) -> Tensor:
    """The u-quantile, (B,), of densities that are constant between edges, (B or 1, cells)."""
    widths = edges[1:] - edges[:-1]
    masses = (log_density - log_density.amax(1, keepdim=True)).exp() * widths
    upper = masses.cumsum(1).expand(len(u), -1)
    target = (u * upper[:, -1])[:, None]
    cell = torch.searchsorted(upper.contiguous(), target, right=True).clamp(max=len(widths) - 1)
    mass = masses.expand(len(u), -1).gather(1, cell)
    below = upper.gather(1, cell) - mass
    share = ((target - below) / mass.clamp_min(torch.finfo(mass.dtype).tiny)).clamp(0, 1)
    return (edges[:-1][cell] + share * widths[cell])[:, 0]
