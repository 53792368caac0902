"""What is sent: the vectors of the files beside this one, and what a generator makes of them.

    [name]
    send BYTES              as in a Python literal; {} is a word of the vector's own
    open                    it is no whole request on purpose: nothing ends it, and nothing is awaited
    switchback STATUS … < REQUEST | REQUEST
    nginx …                 the same for the peers, when it is not what we say
    haproxy …               more than once when it is now this, now that
    why …                   where a peer forwards what we refuse, or something else: which is right

Those in `http2.txt` are described in `frames.py`. `$G` and `$P` begin a GET and a POST with a host; `$Y9000` is as many letters.
"""

import pathlib
import random
import re
from dataclasses import dataclass, field

import frames

HERE = pathlib.Path(__file__).parent / "vectors"
WHO = ("switchback", "nginx", "haproxy")
SHORT = {
    "$G": r"GET /{} HTTP/1.1\r\nHost: a\r\n",
    "$P": r"POST /{} HTTP/1.1\r\nHost: a\r\n",
    "$Y9000": "y" * 9000,
}
# Sent behind a vector: a request of its own, if the vector ended where it seems to.
END = b"GET /end HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


@dataclass
class Vector:
    name: str
    file: str
    text: str = ""
    open: bool = False
    source: list = field(default_factory=list)
    # What it asks, if that is in HTTP/2.
    http2: "frames.Request | None" = None
    pinned: dict = field(default_factory=dict)
    why: str = ""

    def sent(self):
        """What is sent, with a word of its own still to be put in."""
        if self.http2:
            return self.http2
        text = self.text
        for short, long in SHORT.items():
            text = text.replace(short, long)
        return text.encode("latin-1").decode("unicode_escape").encode("latin-1")


def read():
    found = []
    for path in sorted(HERE.glob("*.txt")):
        for line in path.read_text().splitlines():
            word, _, rest = line.partition(" ")
            if line.startswith("[") and line.endswith("]"):
                found.append(Vector(line[1:-1], path.stem))
                if path.stem == "http2":
                    found[-1].http2 = frames.Request()
            elif word == "why":
                found[-1].why = rest
            elif word in WHO:
                # Several lines: one of them, as its reads fall.
                found[-1].pinned[word] = "\n".join(filter(None, (found[-1].pinned.get(word), rest)))
            elif line and not line.startswith("#"):
                found[-1].source.append(line)
                if word == "send":
                    found[-1].text = rest
                elif word == "open":
                    found[-1].open = True
                elif not (found[-1].http2 and found[-1].http2.take(line)):
                    raise SystemExit(f"{path}: {line!r} says nothing")
    return found


def write(vectors):
    """Writes what was recorded, with everything else as it is."""
    for path in sorted(HERE.glob("*.txt")):
        heading = re.match(r"((#.*\n)*\n)?", path.read_text()).group()
        parts = []
        for one in (one for one in vectors if one.file == path.stem):
            lines = [f"[{one.name}]", *one.source]
            lines += [f"{who} {said}" for who in WHO if who in one.pinned for said in one.pinned[who].split("\n")]
            parts.append("\n".join(lines + [f"why {one.why}"] * bool(one.why)))
        path.write_text(heading + "\n\n".join(parts) + "\n")


TOKENS = [
    *(bytes([one]) for one in b"\r\n\0\t \x0b\x0c\x1f\x7f\x80\x85\xa0\xff:;,=\"\\/?#@%&+-_.*()<>[]{}019afxX"),
    b"\r\n", b"\n\r", b"\r\r\n", b"\r\n\r\n", b"\n\n", b"\r\n ", b"\r\n\t", b" \r\n", b"%00", b"%0d%0a", b"%2e", b"//",
    b"chunked", b"identity", b"gzip, ", b", chunked", b"close", b"keep-alive", b"upgrade", b"0\r\n\r\n", b"1\r\nx\r\n",
    b"Transfer-Encoding: chunked\r\n", b"Content-Length: 5\r\n", b"Content-Length: 0\r\n", b"Transfer-Encoding:", b"TE: x\r\n",
    b"Host: b\r\n", b"Connection: close\r\n", b"Connection: content-length\r\n", b"Expect: 100-continue\r\n", b"HTTP/1.0",
    b"GET /inner HTTP/1.1\r\nHost: a\r\n\r\n", b"http://b", b"HEAD ", b"18446744073709551616", b"ffffffff", b"+5", b"0x5", b"\xc3\xa9",
]


def mutants(vectors, count, seed):
    """So many requests that nobody thought of, the same for the same seed."""
    chance = random.Random(seed)
    seeds = [(one.name, one.sent()) for one in vectors if 0 < len(one.text) < 2000]
    for number in range(count):
        name, sent = chance.choice(seeds)
        for _ in range(chance.choice((1, 1, 1, 2, 2, 3))):
            sent = mutate(chance, sent, seeds)
        yield Vector(f"{seed}:{number} of {name}", "mutants"), sent


def mutate(chance, sent, seeds):
    at = chance.randrange(len(sent) + 1)
    end = min(len(sent), at + chance.choice((1, 1, 2, 3, 8)))
    kind = chance.randrange(9)
    if kind <= 2:
        return sent[:at] + chance.choice(TOKENS) + sent[at:]
    if kind == 3:
        return sent[:at] + sent[end:]
    if kind == 4:
        return sent[:at] + chance.choice(TOKENS) + sent[end:]
    if kind == 5:
        return sent[:at] + sent[at:end].swapcase() + sent[end:]
    lines = sent.split(b"\r\n")
    one, other = chance.randrange(len(lines)), chance.randrange(len(lines))
    if kind == 6:
        lines.insert(one, lines[other])
    elif kind == 7:
        lines[one], lines[other] = lines[other], lines[one]
    else:
        lines.insert(one, chance.choice(chance.choice(seeds)[1].split(b"\r\n")))
    return b"\r\n".join(lines)
