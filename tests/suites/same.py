"""Whether two reports of the WebSocket suite say the same of every case, but for how long it took.

    python same.py DIRECT THROUGH
"""

import json
import sys


# How pieces fall together on the way is chance; the suite passes both.
PASSED = {"OK", "NON-STRICT"}


def verdict(said):
    return "passed" if said in PASSED else said


def verdicts(directory):
    report = json.load(open(f"{directory}/index.json"))
    cases = next(iter(report.values()))
    return {case: (verdict(said["behavior"]), said["behaviorClose"]) for case, said in cases.items()}


direct, through = verdicts(sys.argv[1]), verdicts(sys.argv[2])
different = [case for case in direct if direct[case] != through.get(case)]
for case in different:
    print(f"{case}: direct {direct[case]}, through the proxy {through.get(case)}")
good = sum(said[0] in ("passed", "INFORMATIONAL") for said in through.values())
print(f"{len(direct)} cases, {len(different)} differ, {good} pass")
sys.exit(bool(different) or direct.keys() != through.keys())
