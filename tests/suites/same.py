"""The WebSocket suite against an origin directly and through the proxy: is the same said of every case?

    python same.py DIRECT THROUGH DIRECTORY [CASES]

Two addresses, and where reports go. A case has so much time; on a machine that is busy with other things
some do not finish, on either way, and say nothing: those, and those that differ, are asked again alone.
"""

import json
import subprocess
import sys

direct, through, directory = sys.argv[1:4]
# How pieces fall together on the way is chance; the suite passes both.
PASSED = {"OK", "NON-STRICT"}
ROUNDS = 3


def verdict(said):
    return "passed" if said in PASSED else said


def ask(address, name, cases, at_once):
    """What is said of each case; `None` of one that did not finish."""
    where = f"{directory}/{name}"
    chosen = [word for case in cases for word in ("-i", case)]
    subprocess.run(["kosoku", "-p", str(at_once), "-o", where, *chosen, address], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    report, found = next(iter(json.load(open(f"{where}/index.json")).values())), {}
    for case, said in report.items():
        result = json.load(open(f"{where}/{said['reportfile']}"))["result"] or ""
        finished = "did not finish" not in result
        found[case] = (verdict(said["behavior"]), said["behaviorClose"]) if finished else None
    return found


cases, one, other = sys.argv[4:], {}, {}
for round in range(ROUNDS):
    at_once = 4 if round == 0 else 1
    one.update(ask(direct, f"direct-{round}", cases, at_once))
    other.update(ask(through, f"through-{round}", cases, at_once))
    cases = [case for case in one if one[case] is None or one[case] != other.get(case)]
    print(f"{len(one)} cases, {len(cases)} to be asked again", flush=True)
    if not cases:
        break
for case in cases:
    print(f"{case}: direct {one[case]}, through the proxy {other.get(case)}")
good = sum(said is not None and said[0] in ("passed", "INFORMATIONAL") for said in other.values())
print(f"{len(one)} cases, {len(cases)} differ or do not finish, {good} pass")
sys.exit(bool(cases) or not one or one.keys() != other.keys())
