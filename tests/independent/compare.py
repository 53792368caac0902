"""Compares the analysis with code that others wrote: savvi (Lindon & Malek), ville, and SciPy.

Reads cases with our numbers as JSON from stdin, computes each with theirs, prints the largest
difference of every kind, and exits with 1 when one is too large or a kind has no cases.
"""

import json
import sys
import types

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import betaln, xlog1py, xlogy

# savvi imports these for pictures and for intervals of several dimensions; neither is used here.
for name in ("matplotlib", "matplotlib.pyplot", "cvxpy", "py_markdown_table", "py_markdown_table.markdown_table"):
    sys.modules[name] = types.ModuleType(name)
sys.modules["cvxpy"].Variable = sys.modules["cvxpy"].Constraint = object
sys.modules["py_markdown_table.markdown_table"].markdown_table = None

from savvi.multinomial import Multinomial  # noqa: E402
from ville import BernoulliCS  # noqa: E402


def savvi_odds(configured, concentration, batches):
    """The evidence of savvi's sample ratio mismatch test, batch by batch."""
    test = Multinomial(0.05, np.array([configured, 1.0 - configured]), concentration)
    odds = []
    for batch in batches:
        test.update(np.array(batch))
        odds.append(np.log(test.odds))
    return odds


def share(case):
    """The guard on the split: a Dirichlet-multinomial test, in their words and in ours."""
    theirs = savvi_odds(case["configured"], case["concentration"], case["batches"])
    theirs, ours = np.array(theirs), np.array(case["ln_evidence"])
    # They keep the odds themselves, which end at 1e308.
    known = np.isfinite(theirs) & (theirs < 700.0)
    assert known.sum() > 20, "too little to compare"
    return np.max(np.abs(theirs - ours)[known])


def errors_only(case):
    """Bets on errors alone, one for each believed share, mixed with savvi's prior, are savvi's test."""
    theirs = savvi_odds(case["configured"], case["concentration"], case["batches"])[-1]
    believed, gains = np.array(case["believed"]), np.array(case["gains"])
    a, b = case["concentration"] * case["configured"], case["concentration"] * (1.0 - case["configured"])
    ln = xlogy(a - 1.0, believed) + xlog1py(b - 1.0, -believed) - betaln(a, b) + gains
    ours = np.log(np.trapezoid(np.exp(ln - ln.max()), believed)) + ln.max()
    return abs(ours - theirs)


def one_sample(case):
    """The interval of a rate: ville's beta-binomial mixture with the same prior."""
    sequence = BernoulliCS(alpha=case["alpha"], prior=(0.5, 0.5), intersect=False)
    sequence.update(np.repeat([1.0, 0.0], [case["events"], case["others"]]))
    low, high = sequence.interval()
    return max(abs(low - case["low"]), abs(high - case["high"]))


def divergence(p, q):
    return xlogy(p, p / q) + xlogy(1.0 - p, (1.0 - p) / (1.0 - q))


def projection(case):
    """The point of the null's boundary that is nearest to an expert's belief. How much nearer SciPy
    comes than we do: never more than rounding."""
    share, canary, stable = case["share"], case["canary"], case["stable"]
    ratio, plus = case["ratio"], case["plus"]

    def distance(b):
        return share * divergence(canary, ratio * b + plus) + (1.0 - share) * divergence(stable, b)

    edges = sorted((stable, min(max((canary - plus) / ratio, 1e-12), (1.0 - plus) / ratio - 1e-12)))
    found = minimize_scalar(distance, bounds=edges, method="bounded", options={"xatol": 1e-14})
    on_boundary = abs(case["null_canary"] - (ratio * case["null_stable"] + plus))
    return max(distance(case["null_stable"]) - found.fun, on_boundary, 0.0)


def main():
    cases = json.load(sys.stdin)
    failed = False
    for kind, compare, most in (
        ("share", share, 1e-8),
        ("errors_only", errors_only, 1e-6),
        ("one_sample", one_sample, 1e-6),
        ("projection", projection, 1e-12),
    ):
        differences = [compare(case) for case in cases[kind]]
        worst = max(differences, default=float("inf"))
        verdict = "agrees" if worst <= most else "DIFFERS"
        failed |= not worst <= most
        print(f"{kind}: {len(differences)} cases, largest difference {worst:.1e} (at most {most:.0e}): {verdict}")
    sys.exit(1 if failed else 0)


main()
