r"""The methods of azula and deepinv on our Gaussian mixtures, beside ours: the tables of docs/peers.md.

    python benchmarks/peers.py --cells 8-1 8-2 8-4 80-1 80-2 80-4 --seeds 5 --out docs/peers.json
    python benchmarks/peers.py --cells 800-1 800-2 800-4 --seeds 2 --out docs/peers.json
    python benchmarks/peers.py --render docs/peers.json --out docs/peers.md

Needs azula and deepinv beside scoreplug, but not to render. Each library runs through its public classes, with our
mixture as its denoiser, on the same data and with 100 evaluations of the denoiser per sample. A row that is there
already is not run again.
"""

from __future__ import annotations

import argparse
import functools
import importlib.metadata
import json
import math
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import torch
from torch import Tensor

from scoreplug import registry
from scoreplug.bench import metrics
from scoreplug.run.cost import Cost, counted_model

BUDGET = 100
REFERENCES = tuple(range(2**32, 2**32 + 5))  # seeds of the exact sets, none that a method runs with
FIRST_SEED = 2  # problems 0 and 1 chose what the adapted rows change
LIBRARIES = ("scoreplug", "azula", "deepinv")

# name of a row, its title
METHODS = {
    "posterior": "the posterior's own denoiser",
    "prior": "none: samples of the prior",
    "dps": "DPS",
    "pigdm": "PiGDM",
    "tmpd": "TMPD",
    "mmps": "MMPS",
    "diffpir": "DiffPIR",
    "ddrm": "DDRM",
    "tds": "SMC (TDS)",
}


# --- ours ---------------------------------------------------------------------------------------------------------

OURS = {
    "dps": {},
    "pigdm": {},
    "tmpd": {},
    "mmps": {},
    "diffpir": {"noise": "fresh", "eta": 0.1**0.5},
    "ddrm": {"noise": "fresh", "eta": 0.85},
}
# what a conditioner is given in the adapted rows
OURS_ADAPTED = {"dps": {"scale": 0.03}, "pigdm": {"compat": "authors", "prior_std": 1e4}}


def scoreplug_runs(problem: Any, n: int, seed: int) -> dict[tuple[str, str], Callable[[], tuple[Tensor, float]]]:
    """The last evaluation is the final denoising, so that there is one step less."""

    def run(
        model: Any, name: str, conditioner: str | None, given: dict[str, Any] | None = None, **params: Any
    ) -> tuple[Tensor, float]:
        cost = Cost()
        model = counted_model(model, cost)
        if conditioner is not None:
            model = registry.get_conditioner(conditioner, **(given or {})).condition(model, problem.measurement)
        x = registry.get_sampler(name, steps=BUDGET - 1, **params).sample(model, n, seed=seed)
        return x, cost.evaluations / n

    ancestral = functools.partial(run, name="ancestral", grid="rho")
    runs = {
        ("posterior", "default"): lambda: ancestral(problem.oracle, conditioner=None),
        ("prior", "default"): lambda: ancestral(problem.prior, conditioner=None),
    }
    for name, params in OURS.items():
        runs[name, "default"] = functools.partial(ancestral, problem.prior, conditioner=name, **params)
    for name, given in OURS_ADAPTED.items():
        runs[name, "adapted"] = functools.partial(ancestral, problem.prior, conditioner=name, given=given)
    runs["tds", "default"] = lambda: run(problem.prior, "smc", "mmps")
    return runs


# --- theirs -------------------------------------------------------------------------------------------------------


@attrs.define(eq=False)
class Scaled:
    """The problem in the unit of a peer, x = centre + scale u, with a count of its denoiser's evaluations."""

    problem: Any
    centre: Tensor
    scale: float
    calls: int = 0

    @classmethod
    def unit_variance(cls, problem: Any) -> Scaled:
        """The mean 0 and the average variance 1 of the prior."""
        moments = problem.prior.moments
        variance = float(moments.covariance().diagonal(dim1=-2, dim2=-1).mean())
        return cls(problem, moments.mean[0], math.sqrt(variance))

    @classmethod
    def image_range(cls, problem: Any) -> Scaled:
        """The range [0, 1]: the modes lie within 16 of 0 in every coordinate, and have the standard deviation 1."""
        return cls(problem, torch.full((problem.dimension,), -20.0, dtype=torch.float64), 40.0)

    @property
    def matrix(self) -> Tensor:
        return self.problem.measurement.operator.matrix

    @property
    def y(self) -> Tensor:
        return (self.problem.measurement.data - self.matrix @ self.centre) / self.scale

    @property
    def noise_std(self) -> float:
        return self.problem.measurement.noise_std / self.scale

    def denoise(self, u: Tensor, level: Tensor, *, posterior: bool = False) -> Tensor:
        """E[u_0 | u_0 + level z = u], in float64 inside and in u's precision outside."""
        self.calls += 1
        model = self.problem.oracle if posterior else self.problem.prior
        t = model.sde.time_of(level.detach().double().flatten()[0] * self.scale)
        x = self.centre + self.scale * u.double().flatten(1)
        x0 = model.denoise(x.reshape(-1, *model.shape), t).flatten(1)
        return ((x0 - self.centre) / self.scale).reshape(u.shape).to(u)

    def apply(self, u: Tensor) -> Tensor:
        """A u, (B, m)."""
        return u.flatten(1) @ self.matrix.T.to(u)

    def data_unit(self, u: Tensor) -> Tensor:
        """x, (B, 1, 1, d)."""
        return (self.centre + self.scale * u.double().flatten(1)).reshape(-1, 1, 1, self.problem.dimension)


def azula_runs(problem: Any, n: int, seed: int) -> dict[tuple[str, str], Callable[[], tuple[Tensor, float]]]:
    """Unit variance, their VP schedule, and DDIM with eta = 1 around their denoisers, as in their tutorials."""
    from azula.denoise import Denoiser, DiracPosterior
    from azula.guidance import DiffPIRDenoiser, DPSSampler, MMPSDenoiser, PGDMSampler, TDSSampler, TMPDenoiser
    from azula.linalg.covariance import IsotropicCovariance
    from azula.noise import VPSchedule
    from azula.sample import DDIMSampler

    class Mixture(Denoiser):
        def __init__(self, scaled: Scaled, *, posterior: bool = False) -> None:
            super().__init__()
            self.scaled, self.posterior, self.schedule = scaled, posterior, VPSchedule()

        def forward(self, x_t: Tensor, t: Tensor, **kwargs: Any) -> DiracPosterior:
            alpha, sigma = self.schedule(t)
            return DiracPosterior(
                mean=self.scaled.denoise(x_t / alpha, sigma / alpha, posterior=self.posterior).to(x_t)
            )

    common = {"steps": BUDGET, "silent": True, "dtype": torch.float64}
    m = problem.measured

    def run(make: Callable[[Scaled, Any, dict], Any], *, posterior: bool = False) -> tuple[Tensor, float]:
        torch.manual_seed(seed)
        scaled = Scaled.unit_variance(problem)
        sampler = make(scaled, Mixture(scaled, posterior=posterior), {"y": scaled.y, "A": scaled.apply})
        u = sampler(sampler.init((n, problem.dimension), dtype=torch.float64))
        return scaled.data_unit(u), scaled.calls

    def ddim(denoiser: Any) -> Any:
        return DDIMSampler(denoiser, eta=1.0, **common)

    def mmps(**params: Any) -> Callable:
        return lambda s, D, data: ddim(
            MMPSDenoiser(D, **data, cov_y=IsotropicCovariance(torch.tensor(s.noise_std**2)), **params)
        )

    def diffpir(**params: Any) -> Callable:
        return lambda s, D, data: ddim(DiffPIRDenoiser(D, **data, var_y=s.noise_std**2, **params))

    def pgdm(**params: Any) -> Callable:
        return lambda s, D, data: PGDMSampler(
            D, **data, A_inv=lambda y: y @ torch.linalg.pinv(s.matrix).T, **params, **common
        )

    def tds(*, full: bool) -> Callable:
        """Their tutorial's twist, whose variance is level^2 diag(A A^T); or that of unit variance, and all of A A^T."""

        def make(s: Scaled, D: Any, data: dict) -> Any:
            gram, noise = s.matrix @ s.matrix.T, s.noise_std**2 * torch.eye(m, dtype=torch.float64)

            def twist(x: Tensor, level: Tensor) -> Tensor:
                S = noise + (level**2 / (1 + level**2) * gram if full else level**2 * gram.diagonal().diag())
                normal = torch.distributions.MultivariateNormal(s.apply(x), S, validate_args=False)
                return normal.log_prob(s.y)

            return TDSSampler(D, twist, **common)

        return make

    return {
        ("posterior", "default"): lambda: run(lambda s, D, data: ddim(D), posterior=True),
        ("dps", "default"): lambda: run(lambda s, D, data: DPSSampler(D, **data, **common)),
        ("dps", "adapted"): lambda: run(lambda s, D, data: DPSSampler(D, **data, zeta=math.sqrt(n), **common)),
        ("pigdm", "default"): lambda: run(pgdm()),
        ("pigdm", "adapted"): lambda: run(pgdm(eta=1.0)),
        ("tmpd", "default"): lambda: run(lambda s, D, data: ddim(TMPDenoiser(D, **data, var_y=s.noise_std**2))),
        ("mmps", "default"): lambda: run(mmps()),
        ("mmps", "adapted"): lambda: run(mmps(iterations=m)),
        ("diffpir", "default"): lambda: run(diffpir()),
        ("diffpir", "adapted"): lambda: run(diffpir(lmbda=1.0, iterations=m + 1)),
        ("tds", "default"): lambda: run(tds(full=False)),
        ("tds", "adapted"): lambda: run(tds(full=True)),
    }


def deepinv_runs(problem: Any, n: int, seed: int) -> dict[tuple[str, str], Callable[[], tuple[Tensor, float]]]:
    """The range [0, 1] of its denoisers, and DDPM on its VP process from t = 1 to 0, the default of its DPS."""
    import deepinv
    from deepinv.sampling import DDPMSolver, PosteriorDiffusion, VariancePreservingDiffusion
    from deepinv.sampling.noisy_datafidelity import MomentMatchingDataFidelity, PiGDMDataFidelity

    d, m = problem.dimension, problem.measured

    class Mixture(deepinv.models.Denoiser):
        def __init__(self, scaled: Scaled, *, posterior: bool = False) -> None:
            super().__init__()
            self.scaled, self.posterior = scaled, posterior

        def forward(self, x: Tensor, sigma: Any, **kwargs: Any) -> Tensor:
            return self.scaled.denoise(x, torch.as_tensor(sigma), posterior=self.posterior)

    def linear(s: Scaled) -> Any:
        return deepinv.physics.LinearPhysics(
            A=lambda u, **_: s.apply(u).reshape(-1, 1, 1, m),
            A_adjoint=lambda v, **_: (v.flatten(1) @ s.matrix.to(v)).reshape(-1, 1, 1, d),
            img_size=(1, 1, d),
            noise_model=deepinv.physics.GaussianNoise(sigma=s.noise_std),
        )

    def decomposed(s: Scaled) -> Any:
        """Coordinates beyond the m singular values are 0 in y."""
        U, values, Vh = torch.linalg.svd(s.matrix, full_matrices=True)

        def times(matrix: Tensor) -> Callable:
            return lambda v: (v.flatten(1) @ matrix.T.to(v)).reshape(len(v), 1, 1, -1)

        pad = torch.nn.functional.pad
        return deepinv.physics.DecomposablePhysics(
            U=lambda v: times(U)(v[..., :m]),
            U_adjoint=lambda v: pad(times(U.T)(v), (0, d - m)),
            V=times(Vh.T),
            V_adjoint=times(Vh),
            mask=pad(values, (0, d - m)).reshape(1, 1, 1, d).float(),
            img_size=(1, 1, d),
            noise_model=deepinv.physics.GaussianNoise(sigma=s.noise_std),
        )

    def run(make: Callable[[Any, Any, Scaled], Any], *, unit: bool = False, posterior: bool = False, svd: bool = False):
        torch.manual_seed(seed)
        scaled = Scaled.unit_variance(problem) if unit else Scaled.image_range(problem)
        denoiser, physics = Mixture(scaled, posterior=posterior), (decomposed if svd else linear)(scaled)
        u = make(denoiser, physics, scaled)(scaled.y.float().reshape(1, 1, 1, m).repeat(n, 1, 1, 1), physics)
        return scaled.data_unit(u.detach()), scaled.calls

    def solver() -> Any:
        return DDPMSolver(timesteps=torch.linspace(1, 0, BUDGET + 1, dtype=torch.float64))

    def diffusion(fidelity: Any, denoiser: Any, **params: Any) -> Callable:
        model = PosteriorDiffusion(
            data_fidelity=fidelity,
            denoiser=denoiser,
            sde=VariancePreservingDiffusion(alpha=1.0),
            solver=solver(),
            **params,
        )
        return lambda y, physics: model(y, physics, x_init=(n, 1, 1, d))

    def dps(**params: Any) -> Callable:
        def make(D: Any, physics: Any, s: Scaled) -> Callable:
            model = deepinv.sampling.DPS(D, num_steps=BUDGET + 1, **params)
            return lambda y, physics: model(y, physics, x_init=(n, 1, 1, d))

        return make

    def pigdm(**params: Any) -> Callable:
        unit = {"minus_one_one": False} if params else {}
        return lambda D, physics, s: diffusion(PiGDMDataFidelity(D, **params), D, **unit)

    def mmps(**params: Any) -> Callable:
        return lambda D, physics, s: diffusion(MomentMatchingDataFidelity(D, **params), D)

    def diffpir(**params: Any) -> Callable:
        return lambda D, physics, s: deepinv.sampling.DiffPIR(
            D, deepinv.optim.data_fidelity.L2(), sigma=s.noise_std, **params
        )

    exact = {"cg_max_iter": 2 * m, "cg_tol": 1e-8}
    return {
        ("posterior", "default"): lambda: run(lambda D, physics, s: diffusion(None, D), posterior=True),
        ("dps", "default"): lambda: run(dps()),
        ("dps", "adapted"): lambda: run(dps(weight=100.0)),
        ("pigdm", "default"): lambda: run(pigdm()),
        ("pigdm", "adapted"): lambda: run(pigdm(**exact), unit=True),
        ("mmps", "default"): lambda: run(mmps()),
        ("mmps", "adapted"): lambda: run(mmps(**exact)),
        ("ddrm", "default"): lambda: run(lambda D, physics, s: deepinv.sampling.DDRM(D), svd=True),
        ("diffpir", "default"): lambda: run(diffpir()),
        ("diffpir", "adapted"): lambda: run(diffpir(lambda_=2.0)),
    }


RUNS = {"scoreplug": scoreplug_runs, "azula": azula_runs, "deepinv": deepinv_runs}


# --- measuring ----------------------------------------------------------------------------------------------------


def measured(problem: Any, exact: list[Tensor], run: Callable[[], tuple[Tensor, float]]) -> dict[str, Any]:
    """Distance and mode weights of one run's samples."""
    try:
        x, evaluations = run()
    except ArithmeticError as error:
        return {"failed": f"{type(error).__name__}: {error}"}
    bad = int((~x.flatten(1).isfinite().all(1)).sum())
    if bad:
        return {"failed": f"{bad} of {len(x)} samples are not finite", "evaluations": evaluations}
    weights = metrics.mode_weights_tv(problem.modes(x), problem.mode_weights)
    return {
        "sw": float(np.mean([metrics.sliced_wasserstein(x, each) for each in exact])),
        "tv": weights.tv,
        "tv_floor": weights.tv_floor,
        "evaluations": evaluations,
    }


def floor(exact: list[Tensor]) -> float:
    """The mean distance between two exact sets."""
    pairs = [metrics.sliced_wasserstein(a, b) for i, a in enumerate(exact) for b in exact[:i]]
    return float(np.mean(pairs))


# --- the page -----------------------------------------------------------------------------------------------------

HEADER = """# The same cells in azula and deepinv

The problem is `gaussian-mixture` of `scoreplug bench`: 25 modes with unit covariance on a grid of spacing 8, in d
dimensions, measured by a random d_y x d matrix with noise. Its posterior is known exactly, and so is the denoiser,
which every library is given: what remains is what a method and its implementation do. The y, the {n} samples and the
{budget} evaluations of the denoiser per sample are the same for all{except_evaluations}.
The versions are {versions}.

An entry is the sliced Wasserstein distance to the exact posterior, in units of a mode's standard deviation: its mean
over seeds (each a new operator, noise level and y) and the standard error of that mean; in brackets the mean total
variation between the shares of the modes and their posterior weights. *floor* is the same between two exact sets of {n}
samples. The seeds are few and differ much from each other: differences below two standard errors say nothing. The first
row replaces prior and guidance by the exact posterior's denoiser, so that only the integrator is left. Derivatives are
not in the budget: per evaluation MMPS takes up to d_y vjps here and one per solver iteration in the others, TMPD two,
DPS and PiGDM one, DDRM and DiffPIR none.

Each library is used through its public classes. scoreplug has its default parameters, `ancestral` on the grid "rho";
for DDRM and DiffPIR with the fresh noise that they were published with. azula has the data in zero mean and unit
variance, its `VPSchedule`, its own sampler for DPS, PGDM and TDS, and `DDIMSampler` with eta = 1 for the others, as
in its mixture tutorial. deepinv has the data in [0, 1], the range that it documents, and the variance-preserving
process with `DDPMSolver`, which are the defaults of its `DPS`. *default* leaves every parameter of a method as
documented; *adapted* changes what the list below says, and was chosen on the problems of seeds 0 and 1, which are not
in the tables. The problem is one of our own suite, which our methods were developed beside.

Reading. Solved exactly, MMPS is the same in all three libraries within the errors, and its bias is the method's. Our
SMC takes that bias away, to within .1 of the floor in eight cells of nine (.62 for .36 with d = 80 and d_y = 1);
azula's comes within .2 with four measured values, and not with one or two. PiGDM with the guidance in the score is the
closest of all where d = 80 and d = 800; where d = 8 azula's is, by more than the errors only for four values. DPS with
its default parameters is worse than samples of the prior here in four cells, and not far from them in azula and deepinv
in any; adapted, ours is the closest in seven cells of nine, and within the errors in all. Our TMPD blows up on single
problems, azula's is far off for four values. DiffPIR and DDRM find the weights of the modes in no
library.
"""

ADAPTED = """
What *adapted* changes:

* scoreplug: DPS `scale` = .03, the best on the whole of .01, .03, .06, .1, .3 and 1; PiGDM `compat` = "authors" with
  `prior_std` = 1e4, which is the update that azula has: A^+ (y - A x0), added to the state while eps is kept.
* azula: DPS `zeta` = sqrt({n}), which undoes the norm over the batch; PGDM `eta` = 1; MMPS as many GMRES iterations
  as measured values; DiffPIR `lmbda` = 1 and enough iterations to solve; TDS a twist with the variance level^2 / (1 +
  level^2) A A^T of unit variance, where its tutorial has level^2 diag(A A^T). TMPD has no parameter.
* deepinv: DPS `weight` = 100, the best on the whole of 3, 10, 30, 100 and 300 (`guidance` = "annealed" with weights
  of 1 to 30 was worse); PiGDM data in unit variance, `minus_one_one` = False, and conjugate gradients to convergence;
  MMPS the latter; DiffPIR `lambda_` = 2, which is Bayes' rule in its units. DDRM has no such entry: data in unit
  variance and other `sigmas`, geometric or linear from up to twice the data's radius, were not consistently better.
"""

REASONS = """
## Why they differ

What the sources do, and, where it says *measured*, what a change of that one thing did on a problem of seed 0 or 1.
The rest has not been taken apart.

* The posterior's denoiser. The grids of azula and deepinv are uniform in t, and the last level that they evaluate is
  .4 and .9 standard deviations of a mode; ours is .003.
* DPS, scoreplug. The default `scale` = 1 is the authors' for 1000 DDPM steps, and a step of 100 on the "rho" grid moves
  the state 7 to 21 times as far at the levels .16 to 27 (measured on 80-2 of seed 0: 8.48 with scale 1, 1.29 with .1,
  .10 with .03).
* DPS, azula. One norm is taken over the batch, which divides the guidance of each of 500 samples by about sqrt(500)
  (measured on 8-1 of seed 0: a hundred batches of one have .51, as many samples with `zeta` = sqrt(500) .40, and with
  the default 12.27).
* DPS, deepinv. The gradient of the norm is added to the score, so that the step's gain multiplies it; with `weight` = 1
  the samples are nearly the prior's.
* PiGDM, azula. The guidance is A^+ (y - A x0) without the noise level and r_t, added to the state while eps is kept:
  noisy data are taken as exact. Ours in that form (*adapted*) is the same as theirs with the same `eta` = 1 (*adapted*)
  within the errors in every cell: what differs is the form, not the code. It is no worse than the score's where d = 8,
  and worse where d = 80, in both libraries. azula's default has no noise in its steps besides (`eta` = 0), which is
  closer at (8, 4).
* PiGDM, deepinv. r_t^2 = level^2 / (1 + level^2) is that of a prior of unit variance; in [0, 1] this one has .08. Ours
  asks the prior for its own error (measured on 80-2 of seeds 0 and 1: with the r_t of a normal prior of the same
  variance ours has 4.92 and 3.81, deepinv's adapted row 4.65 and 3.96, ours as it is 1.97 and 1.13).
* TMPD. Row sums of A C A^T stand for variances, and may be negative: then azula's pull turns around, and ours takes
  them as 0. Measured on 80-4 of seeds 0 and 1: azula 10.67 and 6.15, with that change .20 and .34, ours .11 and .28; on
  8-4 of seed 0 9.37, 2.33 and 2.64. That is no cure where the noise is small, since such a pull is stiff: on 8-4 of
  seed 1 azula has 5.03, with that change 3e7, and ours 7e5; on 80-2 of seed 1 14.47, 35.56 and 13.70. The mean of ours
  on 80-4 is that of one seed with 259. For one measured value the method is MMPS.
* MMPS, azula. One GMRES iteration by default, exact for one measured value alone.
* MMPS, deepinv. Three iterations of conjugate gradients, exact up to three measured values and enough for
  four here, in float32.
* DiffPIR. The spread of x_0 given x_t is taken as level^2, as if the prior were flat, in every library. azula has
  `lmbda` = 10 besides, and deepinv returns the last noisy state, not its denoised estimate.
* DDRM. y acts in the measured coordinates alone. deepinv starts at the level 1 of [0, 1], 40 in our unit, steps
  linearly down, and divides its noise by sqrt(2).
* SMC, azula. The twist has one variance for all x, where ours has the covariance of MMPS; the weights of the last step
  are not used; and all particles are resampled independently at every step (measured: ours with the ancestral kernel
  and such resampling has .29 and .30 on 80-2 of seeds 0 and 1 and .55 on 8-4 of seed 0, ours as it is .10, .12 and .44,
  azula .22, .23 and 1.12, adapted .21, .23 and .61).
"""


def with_error(values: list[float]) -> str:
    """The mean and its standard error."""
    mean = f"{np.mean(values):.2f}"
    return mean if len(values) < 2 else f"{mean} ± {np.std(values, ddof=1) / math.sqrt(len(values)):.2f}"


def entry(rows: list[dict[str, Any]]) -> str:
    if not rows:
        return ""
    fine = [row for row in rows if "failed" not in row]
    if not fine:
        return f"failed {len(rows)}/{len(rows)}"
    text = f"{with_error([row['sw'] for row in fine])} ({np.mean([row['tv'] for row in fine]):.2f})"
    return text if len(fine) == len(rows) else f"{text}, failed {len(rows) - len(fine)}/{len(rows)}"


def exceptions(rows: list[dict[str, Any]]) -> str:
    """Who had another number of evaluations."""
    found = {
        f"{row['library']}'s {METHODS[row['method']]} has {row['evaluations']:g}"
        for row in rows
        if row.get("evaluations", BUDGET) != BUDGET
    }
    return f" ({'; '.join(sorted(found))})" if found else ""


def render(results: dict[str, Any]) -> str:
    """The page, from the file that runs of this script have written."""
    rows = results["rows"]
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    page = HEADER.format(n=results["n"], budget=BUDGET, except_evaluations=exceptions(rows), versions=versions)
    columns = [(library, form) for library in LIBRARIES for form in ("default", "adapted")]
    for cell in dict.fromkeys(row["cell"] for row in rows):
        here = [row for row in rows if row["cell"] == cell]
        seeds = {row["seed"] for row in here}
        floors = [value for key, value in results["floors"].items() if key.split("/")[0] == cell]
        tv_floor = np.mean([row["tv_floor"] for row in here if "tv_floor" in row])
        d, measured_values = cell.split("-")
        page += f"\n## d = {d}, d_y = {measured_values}\n\n"
        page += f"{len(seeds)} seeds; floor {np.mean(floors):.2f} ({tv_floor:.2f}).\n\n"
        page += (
            "| method | scoreplug | scoreplug, adapted | azula | azula, adapted | deepinv | deepinv, adapted |\n"
            "|---|---|---|---|---|---|---|\n"
        )
        for method, title in METHODS.items():
            found = [
                [r for r in here if (r["method"], r["library"], r["form"]) == (method, *column)] for column in columns
            ]
            page += f"| {title} | " + " | ".join(entry(each) or "-" for each in found) + " |\n"
    return page + ADAPTED.format(n=results["n"]) + REASONS


def dumped(results: dict[str, Any]) -> str:
    """JSON with one row a line."""
    rows = ",\n".join(json.dumps(row) for row in results["rows"])
    return json.dumps({**results, "rows": []}, indent=1).replace('"rows": []', f'"rows": [\n{rows}\n]') + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", nargs="+", default=["8-1"], help="dimension and measured values, such as 80-2")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--samples", type=int, default=500)
    parser.add_argument("--libraries", nargs="+", choices=LIBRARIES, default=LIBRARIES)
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--render", type=Path, help="write the page of these results instead")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    if options.render:
        options.out.write_text(render(json.loads(options.render.read_text())))
        return
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    results = {"n": options.samples, "versions": {}, "floors": {}, "rows": []}
    if options.out.exists():
        results = json.loads(options.out.read_text())
    if results["n"] != options.samples:
        parser.error(f"{options.out} holds runs with {results['n']} samples; give another --out or --samples")
    results["versions"] = {name: importlib.metadata.version(name) for name in (*LIBRARIES, "torch")}
    for seed in range(FIRST_SEED, FIRST_SEED + options.seeds):
        for cell in options.cells:
            d, m = map(int, cell.split("-"))
            problem = registry.get_problem("gaussian-mixture", dimension=d, measured=m, seed=seed)
            exact = [problem.exact_samples(options.samples, seed=reference) for reference in REFERENCES]
            results["floors"].setdefault(f"{cell}/{seed}", floor(exact))
            for library in options.libraries:
                for (method, form), run in RUNS[library](problem, options.samples, seed).items():
                    key = {"cell": cell, "seed": seed, "library": library, "method": method, "form": form}
                    if method not in options.methods or any(key.items() <= row.items() for row in results["rows"]):
                        continue
                    started = time.perf_counter()
                    row = {**key, **measured(problem, exact, run)}
                    results["rows"].append(row)
                    options.out.write_text(dumped(results))
                    shown = row.get("failed") or f"{row['sw']:.2f} ({row['tv']:.2f})"
                    print(
                        f"{cell}, seed {seed}, {library} {method} {form}: {shown}, "
                        f"{time.perf_counter() - started:.1f} s",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
