"""Rows to statements: means over seeds with their uncertainty, the ratio to the floor, and the best of each budget."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

import attrs

from scoreplug.bench.cell import Row
from scoreplug.bench.suite import ORACLE

BUDGETS = (20, 100, 1000, 10000)
"""Network evaluations per sample for which the best method is named."""

CRITERIA = ("sliced_wasserstein", "crps")
"""What methods are compared by: the first that a problem has. Both are 0 at best, and lower is better."""


@attrs.frozen
class Estimate:
    """A mean over `count` seeds; half is 1.96 sd / sqrt(count), None for one seed."""

    mean: float
    half: float | None
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Estimate:
        """Of at least one value."""
        n, mean = len(values), math.fsum(values) / len(values)
        if n == 1:
            return cls(mean, None, 1)
        std = math.hypot(*(value - mean for value in values)) / math.sqrt(n - 1)  # squares may overflow
        return cls(mean, 1.96 * std / math.sqrt(n), n)

    def __str__(self) -> str:
        return f"{self.mean:.3g}" + ("" if self.half is None else f" ± {self.half:.2g}")


@attrs.frozen(kw_only=True)
class Calibration:
    """Whether the truth is one more sample, over the seeds.

    Args:
        p_value: the smallest of the ranks' uniformity, times the number of statistics (Bonferroni).
        hpd_90: share of seeds whose truth lies in the 90 % region of highest density; None without a log posterior.
        tarp: area between expected coverage and credibility above 1/2, and its standard deviation: above 0 too wide,
            below 0 over-confident; None if A is not linear.
    """

    p_value: float
    hpd_90: float | None
    tarp: tuple[float, float] | None


@attrs.frozen(kw_only=True)
class Summary:
    """A method on a problem, over its seeds.

    Args:
        problem, method: labels.
        n: samples of each cell.
        budget: as asked.
        version: of scoreplug.
        comparable: not one of the references: exact samples or the oracle's.
        statuses: how many cells ended how.
        reasons: of those that are not ok, each once.
        estimates: of metrics, of the cost per sample and of the sampler's report. Over the seeds that gave a number;
            its count says how many.
        criterion: the metric that this problem is judged by, or empty.
        ratio: mean sliced Wasserstein distance over the mean floor; None without exact samples.
        calibration: of the ranks of the truth; None for fewer than 10 seeds.
    """

    problem: str
    method: str
    n: int
    budget: int | None
    version: str
    comparable: bool
    statuses: dict[str, int]
    reasons: tuple[str, ...]
    estimates: dict[str, Estimate]
    criterion: str
    ratio: float | None
    calibration: Calibration | None

    @property
    def complete(self) -> bool:
        """No seed is missing, nor its error: the mean is not one over survivors."""
        counted = self.error is None or self.error.count == sum(self.statuses.values())
        return set(self.statuses) == {"ok"} and counted

    @property
    def error(self) -> Estimate | None:
        """The criterion's estimate."""
        return self.estimates.get(self.criterion)

    @property
    def evaluations(self) -> float | None:
        """Network evaluations per sample."""
        found = self.estimates.get("evaluations")
        return None if found is None else found.mean

    @property
    def state(self) -> str:
        """How its cells ended, as "20 ok" or "18 ok, 2 diverged"."""
        return ", ".join(f"{count} {status}" for status, count in self.statuses.items())


def summaries(rows: Iterable[Row]) -> list[Summary]:
    """One summary for each problem, method, number of samples, budget and version, in the order of the rows."""
    groups: dict[tuple[str, str, int, int | None, str], list[Row]] = {}
    for row in rows:
        cell = row.cell
        group = (cell.problem_label, cell.method_label, cell.n, cell.budget, cell.versions["scoreplug"])
        groups.setdefault(group, []).append(row)
    return [_summary(group, found) for group, found in groups.items()]


def _summary(group: tuple[str, str, int, int | None, str], rows: Sequence[Row]) -> Summary:
    problem, method, n, budget, version = group
    cell, good = rows[0].cell, [row for row in rows if row.status == "ok"]
    numbers = [{**row.cost, **row.report, **row.metrics} for row in good]
    estimates = {}
    for name in dict.fromkeys(name for found in numbers for name in found):
        values = [v for found in numbers if (v := found.get(name)) is not None and math.isfinite(v)]
        if values:
            estimates[name] = Estimate.of(values)
    floor = estimates.get("sliced_wasserstein_floor")
    return Summary(
        problem=problem,
        method=method,
        n=n,
        budget=budget,
        version=version,
        comparable=not cell.is_exact and (cell.conditioner or {}).get("name") != ORACLE,
        statuses=dict(sorted(Counter(row.status for row in rows).items(), key=lambda item: item[0] != "ok")),
        reasons=tuple(dict.fromkeys(row.reason for row in rows if row.reason)),
        estimates=estimates,
        criterion=next((name for name in CRITERIA if name in estimates), ""),
        ratio=estimates["sliced_wasserstein"].mean / floor.mean if floor and floor.mean > 0 else None,
        calibration=_calibration(good, n),
    )


def _calibration(rows: Sequence[Row], n: int) -> Calibration | None:
    names = list(rows[0].ranks) if rows else []
    if len(rows) < 10 or not names:
        return None
    import numpy as np

    from scoreplug.bench.metrics import hpd_coverage_of_ranks, rank_uniformity, tarp_of_ranks

    ranks = {name: np.array([row.ranks[name] for row in rows]) for name in names}
    density, distance = ranks.get("log posterior"), ranks.get("distance")
    area = None if distance is None else tarp_of_ranks(distance, n)
    return Calibration(
        p_value=min(1.0, len(names) * min(rank_uniformity(found, n).ecdf_p_value for found in ranks.values())),
        hpd_90=None if density is None else hpd_coverage_of_ranks(density, n, levels=(0.9,))[0].covered,
        tarp=None if area is None else (area.atc, area.atc_std),
    )


def by_problem(found: Iterable[Summary]) -> dict[str, list[Summary]]:
    """Summaries by the problem that they are of, both in their order."""
    groups: dict[str, list[Summary]] = {}
    for s in found:
        groups.setdefault(s.problem, []).append(s)
    return groups


def best(found: Sequence[Summary], budgets: Sequence[int] = BUDGETS) -> list[tuple[str, int, Summary]]:
    """The method with the smallest mean error for each problem and budget, among those with no seed missing.

    The exact samples and the oracle do not compete. A budget is left out if it gives the same as the one before, or
    nothing.
    """
    chosen: list[tuple[str, int, Summary]] = []
    for problem, of_problem in by_problem(found).items():
        before = None
        for budget in budgets:
            within = [
                s
                for s in of_problem
                if s.comparable
                and s.complete
                and s.error is not None
                and s.evaluations is not None
                and s.evaluations <= budget
            ]
            winner = min(within, key=_error, default=None)
            if winner is not None and winner is not before:
                chosen.append((problem, budget, winner))
            before = winner
    return chosen


def relative(found: Sequence[Summary]) -> dict[int, float]:
    """Errors in units of the floor or, where none is known, of the problem's smallest error; by position in `found`."""
    values, least = {}, dict[str, float]()
    for s in found:
        least[s.problem] = min(_error(s), least.get(s.problem, math.inf))
    for i, s in enumerate(found):
        if s.error is None:
            continue
        smallest = least[s.problem]
        value = s.ratio if s.ratio is not None else (s.error.mean / smallest if smallest > 0 else None)
        if value is not None:
            values[i] = value
    return values


Column = tuple[str, Callable[[Summary], str]]

COLUMNS: tuple[Column, ...] = (
    ("problem", lambda s: s.problem),
    ("method", lambda s: s.method),
    ("n", lambda s: str(s.n)),
    ("budget", lambda s: "" if s.budget is None else str(s.budget)),
    ("cells", lambda s: s.state),
    ("SW", lambda s: _of(s, "sliced_wasserstein")),
    ("/ floor", lambda s: "" if s.ratio is None else f"{s.ratio:.3g}"),
    ("mode TV", lambda s: _of(s, "mode_weights_tv")),
    ("spread", lambda s: _of(s, "spread_ratio")),
    ("crps", lambda s: _of(s, "crps")),
    ("psnr mean", lambda s: _of(s, "psnr_mean")),
    ("cover 90", lambda s: _of(s, "coverage_90")),
    ("log Z err", lambda s: _of(s, "log_evidence_error")),
    ("SBC p", lambda s: "" if s.calibration is None else f"{s.calibration.p_value:.2g}"),
    ("HPD 90", lambda s: "" if s.calibration is None else _coverage(s.calibration.hpd_90)),
    ("TARP", lambda s: "" if s.calibration is None else _area(s.calibration.tarp)),
    ("evals", lambda s: "" if s.evaluations is None else f"{s.evaluations:g}"),
    ("vjps", lambda s: _mean(s, "vjps")),
    ("seconds", lambda s: _mean(s, "seconds")),
)
"""The table of a benchmark. Evaluations and vjps are per sample; seconds are of a cell."""


SHORT: tuple[Column, ...] = (
    ("method", lambda s: s.method),
    ("budget", lambda s: "" if s.budget is None else str(s.budget)),
    ("missing", lambda s: "" if s.complete else s.state),
    ("error", lambda s: "" if s.error is None else str(s.error)),
    *(column for column in COLUMNS if column[0] in ("/ floor", "mode TV", "spread", "psnr mean", "log Z err", "SBC p")),
    ("evals", lambda s: "" if s.evaluations is None else f"{s.evaluations:g}"),
)
"""The table of one problem, for a terminal."""


def table(found: Sequence[Summary], columns: Sequence[Column] = COLUMNS) -> tuple[list[str], list[list[str]]]:
    """Header and rows."""
    return [name for name, _ in columns], [[cell(s) for _, cell in columns] for s in found]


def _of(s: Summary, name: str) -> str:
    return str(s.estimates[name]) if name in s.estimates else ""


def _coverage(value: float | None) -> str:
    return "" if value is None else f"{value:.2g}"


def _area(value: tuple[float, float] | None) -> str:
    return "" if value is None else f"{value[0]:+.3f} ± {1.96 * value[1]:.3f}"


def _mean(s: Summary, name: str) -> str:
    return f"{s.estimates[name].mean:.3g}" if name in s.estimates else ""


def _error(s: Summary) -> float:
    return math.inf if s.error is None else s.error.mean
