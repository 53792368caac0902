"""slowhttptest in its four modes, while somebody else asks: is he served, and how late?

    python slow.py PORT SECONDS

Fails when the service is not available, when a request of the other fails, and when his 99th percentile is
more than twice what it was in calm, or PATIENCE seconds (0.05) where that is more: below that it is the
machine's.
"""

import os
import re
import subprocess
import sys
import time

from innocent import Innocent

port, seconds = int(sys.argv[1]), sys.argv[2]
patience = float(os.environ.get("PATIENCE", "0.05"))
calm = Innocent(port)
time.sleep(8)
calm = calm.end()
print(f"calm: p99 {calm * 1000:.1f} ms")
failed = False
for mode, name in (("-H", "slow heads"), ("-B", "slow bodies"), ("-R", "ranges"), ("-X", "slow readers")):
    other = Innocent(port)
    # Strangers are on other machines: what they do themselves takes no core from him.
    command = ["nice", "-n", "19", "slowhttptest", mode, "-c", "500", "-r", "200", "-l", seconds, "-i", "5", "-p", str(max(3, round(patience))), "-u", f"http://127.0.0.1:{port}/medium"]
    said = subprocess.run(command, capture_output=True, text=True, errors="replace").stdout
    said = re.sub(r"\x1b\[[0-9;]*m", "", said)
    available = "YES" in (re.findall(r"service available: *(\w+)", said) or ["nothing said"])[-1]
    p99 = other.end()
    bad = not available or other.failures or p99 > max(2 * calm, patience)
    failed |= bool(bad)
    print(
        f"{'FAILED' if bad else 'ok    '} {name}: service available {available}, p99 of another {p99 * 1000:.1f} ms, "
        f"{len(other.times)} requests, {other.failures} failures",
        flush=True,
    )
sys.exit(failed)
