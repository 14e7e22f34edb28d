"""The page on posterior correctness, from the rows of `scoreplug bench`.

scoreplug bench mixture --executor process:2 --out bench/mixture
scoreplug bench quick --executor process:2 --out bench/quick
scoreplug bench budgets --executor process:2 --out bench/budgets
scoreplug bench nonlinear --executor process:2 --out bench/nonlinear
scoreplug bench calibration --executor process:2 --out bench/calibration
cp bench/mixture/rows.jsonl docs/bench/mixture.jsonl    # and so on
python benchmarks/posterior.py --render docs/bench --out docs/posterior.md
"""

import argparse
import textwrap
from pathlib import Path

from scoreplug.bench.store import read_rows
from scoreplug.bench.table import best, summaries

HEAD = """# How far from the posterior?

PSNR cannot see a wrong mode weight or a collapsed variance. `scoreplug bench` measures methods on problems whose
posterior is known. This page is
rendered from rows that are committed beside it (`docs/bench/*.jsonl`); `scoreplug bench --reproduce KEY --out
docs/bench/quick.jsonl` computes any of
them again and compares, and a test does so for three.

Error: the mean sliced Wasserstein distance W1 over 100 directions between the method's samples and five exact sets of
the same size. Floor: the same
between pairs of exact sets; a ratio of 1 is a method that cannot be told from exact samples. Mode TV: total variation
between the found and the true
weights of the modes. log Z: error of the estimated log evidence, mean ± 1.96 standard errors, in nats. Evaluations of
the network are per sample.

"""

MIXTURE = """## The sampling floor is reached

The Gaussian mixture of Cardoso et al. (ICLR 2024): 25 modes in d dimensions, d_y random linear measurements, 20 draws
of the problem for d = 8 and 80,
5 for d = 800, {n} samples each. *Oracle* is the exact score of the posterior under the same kind of sampler: what the
integrator costs. *mmps + smc*
sees the prior's score alone. Its twist is Bayes' rule with Tweedie's mean and covariance, and its transitions carry
Tweedie's covariance too, which
DDPM's leave out; particles are resampled along a space-filling curve. The start of the process is twice as wide as
the data's radius.

| d, d_y | floor | exact samples | oracle, 100 steps | mmps + smc, 100 steps | mode TV | log Z |
|---|---|---|---|---|---|---|
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--render", type=Path, required=True, metavar="FOLDER", help="where the rows are")
    parser.add_argument("--out", type=Path, required=True, metavar="PAGE")
    options = parser.parse_args()
    sections = (mixture, quick, budgets, nonlinear, calibration)
    parts = [HEAD, *(section(options.render / f"{section.__name__}.jsonl") for section in sections)]
    options.out.write_text("\n".join(filled(part) for part in parts))


def filled(part):
    """Paragraphs in lines of 150 characters; tables and titles as they are."""
    blocks = part.strip().split("\n\n")
    return "\n\n".join(b if b[0] in "|#" else textwrap.fill(b, 150, break_on_hyphens=False) for b in blocks) + "\n"


def mixture(path):
    """The nine cells of the published grid."""
    found = summaries(read_rows(path))
    lines = [MIXTURE.format(n=found[0].n).rstrip()]
    for problem in dict.fromkeys(s.problem for s in found):
        exact, oracle, smc = (
            next(s for s in found if s.problem == problem and s.method.startswith(start))
            for start in ("exact", "oracle", "mmps / smc")
        )
        floor = smc.estimates["sliced_wasserstein_floor"].mean
        lines.append(
            f"| {problem.removeprefix('mixture ').replace('-', ', ')} | {floor:.3f} | {of(exact)} | {of(oracle)} "
            f"| **{of(smc)}** | {smc.estimates['mode_weights_tv'].mean:.3f} | {smc.estimates['log_evidence_error']} |"
        )
    return "\n".join(lines) + "\n\nRatios to the floor in parentheses.\n"


def of(summary):
    """Error and ratio."""
    return f"{summary.error.mean:.3f} ({summary.ratio:.2f})"


def quick(path):
    """Many combinations, at two budgets."""
    found = summaries(read_rows(path))
    problems = list(dict.fromkeys(s.problem for s in found))
    seeds = max(s.error.count for s in found if s.error)
    lines = [
        "## Conditioners and samplers, with 20 and 100 evaluations\n",
        f"`scoreplug bench quick`: {found[0].n} samples, {seeds} draws of each problem, default parameters unless "
        "given. Ratio of the error to the floor, at 20 / 100 evaluations per sample; smaller is better, 1 is the "
        "floor. A dash is a method that does not fit into the budget, or diverged. tmpd takes row sums of A C A^T for "
        "its diagonal, which on some mixtures are negative and count as 0; smc weighs such proposals down, and cannot "
        "mend them.\n",
        "| method | vjp | " + " | ".join(problems) + " |",
        "|---|---|" + "---|" * len(problems),
    ]
    for method in dict.fromkeys(s.method for s in found):
        rows = [s for s in found if s.method == method]
        vjps = max((s.estimates["vjps"].mean for s in rows if "vjps" in s.estimates), default=0)
        cells = [" / ".join(ratio(s) for s in rows if s.problem == problem) for problem in problems]
        lines.append(f"| {method} | {'yes' if vjps else ''} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", *winners(found)])


def ratio(summary):
    if summary.ratio is None or not summary.complete:
        return "-"
    return f"{summary.ratio:.2f}" if summary.ratio < 1000 else f"{summary.ratio:.0e}"


def winners(found):
    """The best method of each budget, and the best that takes no derivative of the network."""
    free = [s for s in found if s.estimates.get("vjps") is None or s.estimates["vjps"].mean == 0]
    lines = ["| problem | evaluations | best | ratio | best without derivatives | ratio |", "|---|---|---|---|---|---|"]
    columns = sorted({s.budget for s in found if s.budget})
    for problem in dict.fromkeys(s.problem for s in found):
        first, other = {}, {}
        for budget in columns:
            first = {b: s for p, b, s in best(found) if p == problem and b == budget} or first
            other = {b: s for p, b, s in best(free) if p == problem and b == budget} or other
            lines.append(f"| {problem} | {budget} | {named(first, budget)} | {named(other, budget)} |")
    return lines


def named(winner, budget):
    """The method and its ratio; a winner that more evaluations do not beat says how many it takes."""
    ((found, summary),) = winner.items()
    fewer = "" if found == budget else f", with {found} still"
    return f"{summary.method}{fewer} | {summary.ratio:.2f}"


def budgets(path):
    """What more evaluations buy."""
    found = summaries(read_rows(path))
    columns = sorted({s.budget for s in found if s.budget})
    seeds = max(s.error.count for s in found if s.error)
    lines = [
        "## What more evaluations buy\n",
        f"`scoreplug bench budgets`: {found[0].n} samples, {seeds} draws. Ratio of the error to the floor by "
        "evaluations per sample. A method with a bias converges to it; particles converge to the posterior as they "
        "become many, not as steps do.\n",
        "| problem | method | " + " | ".join(str(budget) for budget in columns) + " |",
        "|---|---|" + "---|" * len(columns),
    ]
    for problem in dict.fromkeys(s.problem for s in found):
        for method in dict.fromkeys(s.method for s in found if s.budget):
            rows = {s.budget: s for s in found if s.method == method and s.problem == problem}
            cells = [ratio(rows[budget]) if budget in rows else "" for budget in columns]
            lines.append(f"| {problem} | {method} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", *winners(found)])


def nonlinear(path):
    """Posteriors of nonlinear operators, known by quadrature."""
    found = summaries(read_rows(path))
    problems, columns = list(dict.fromkeys(s.problem for s in found)), sorted({s.budget for s in found if s.budget})
    lines = [
        "## Nonlinear measurements\n",
        f"`scoreplug bench nonlinear`: y = |x|, y = x^2 and y = |x_1 + i x_2| with noise, {found[0].n} samples, 10 "
        "draws of each problem. Ratio of the error to the floor, at "
        f"{' / '.join(map(str, columns))} evaluations per sample.\n",
        "| method | " + " | ".join(problems) + " |",
        "|---|" + "---|" * len(problems),
    ]
    for method in dict.fromkeys(s.method for s in found):
        cells = [" / ".join(ratio(s) for s in found if (s.method, s.problem) == (method, p)) for p in problems]
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def calibration(path):
    """Whether the truth is one more sample."""
    found = summaries(read_rows(path))
    seeds = max(s.error.count for s in found if s.error)
    lines = [
        "## Calibration\n",
        f"`scoreplug bench calibration`: one prior and one operator, {seeds} pairs of truth and measurement, "
        f"{found[0].n} samples of each posterior with 100 evaluations. For exact samples the truth is one more sample. "
        "SBC: p-value of the ranks of the truth (four projections, log posterior, distance to a reconstruction from y "
        f"alone) being uniform, corrected for their number (.006 at least). HPD 90: share of truths "
        "in the 90 % region of highest density. TARP: area between expected coverage and credibility above one half; "
        "above 0 samples are too wide, below 0 too sure. A wrong spread and a wrong place can cancel in one statistic: "
        "look at all of them, and at the ratio to the floor.\n",
        "| problem | method | ratio | SBC p | HPD 90 | TARP |",
        "|---|---|---|---|---|---|",
    ]
    for s in found:
        area, std = s.calibration.tarp
        lines.append(
            f"| {s.problem} | {s.method} | {ratio(s)} | {s.calibration.p_value:.2g} | {s.calibration.hpd_90:.2f} "
            f"| {area:+.3f} ± {1.96 * std:.3f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
