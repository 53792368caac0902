"""The same raw bytes through Switchback, nginx and HAProxy: who reads which requests out of them?

    python run.py --switchback PROGRAM [--origins wire,h11,node,…] [--mutants N] [--seed N] [--peers] [--record]

Behind Switchback stand origins that others wrote. What each of them read is compared, request by request,
with the access log and with what the other origins read: as many requests, with the same method, target
and body. What is forwarded must have one reading only, whatever came. Behind nginx and HAProxy stands the
lenient origin, to see where they differ from us: each difference is pinned beside its vector.

Every vector comes from an address of its own (127.0.0.0/8), by which it is known everywhere.
"""

import argparse
import asyncio
import collections
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

import frames
import vectors

HERE = pathlib.Path(__file__).parent
PATIENCE = 60
# A client that has heard nothing new for so long, of what is not to end by itself, goes; and so many at once.
HASTE = 0.5, 24
# On a busy machine an answer takes longer than that: what differs from what is pinned is asked again in calm.
CALM = 8, 4
ORIGINS = ("wire", "http.server", "h11", "uvicorn", "hypercorn", "granian", "gunicorn", "waitress", "aiohttp", "node")
# What the head of a forwarded request must look like, to have one reading only.
LINE = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+ [!-~]+ HTTP/1\.1")
FIELD = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+): ((?:[!-~\x80-\xff](?:[\t -~\x80-\xff]*[!-~\x80-\xff])?)?)")
FRAMING = re.compile(r"(?:[1-9a-f][0-9a-f]*\r\n\r\n)*0\r\n(?:[!#$%&'*+.^`|~0-9A-Za-z-]+: [\t -~\x80-\xff]*\r\n)*\r\n")


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


class Scene:
    """Processes, and the directory they write to."""

    def __init__(self):
        self.home = pathlib.Path(tempfile.mkdtemp(prefix="differential-"))
        self.running = []

    def run(self, name, *command, **more):
        log = open(self.home / f"{name}.log", "wb")
        self.running.append(subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, **more))
        return self.running[-1]

    def await_port(self, port, name):
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            try:
                return socket.create_connection(("127.0.0.1", port), 1).close()
            except OSError:
                time.sleep(0.05)
        raise SystemExit(f"{name} does not listen: {(self.home / f'{name}.log').read_text()}")

    def end(self):
        for one in reversed(self.running):
            one.send_signal(signal.SIGTERM)
        for one in self.running:
            try:
                one.wait(20)
            except subprocess.TimeoutExpired:
                one.kill()
        self.running.clear()

    def origin(self, kind, name):
        """Its port; what it reads goes to a file of this name."""
        port, file, here = free_port(), self.home / f"{name}.records", str(HERE)
        file.touch()
        python, environment = sys.executable, {**os.environ, "RECORD": str(file), "PYTHONPATH": here}
        app = {
            "uvicorn": ["uvicorn", "--http", "httptools", "--port", port, "--log-level", "error", "origins:asgi"],
            "hypercorn": ["hypercorn", "-b", f"127.0.0.1:{port}", "--log-level", "error", "origins:asgi"],
            "granian": ["granian", "--interface", "asgi", "--port", port, "--no-access-log", "--http", "1", "origins:asgi"],
            "gunicorn": ["gunicorn", "-b", f"127.0.0.1:{port}", "-k", "gthread", "--threads", "16", "--log-level", "error",
                         "--keep-alive", "10", "origins:wsgi"],
        }
        if kind == "node":
            command = [shutil.which("node"), HERE / "origin.mjs", port, file]
        elif kind in app:
            command = [python, "-m", *app[kind]]
        else:
            command = [python, HERE / "origins.py", kind, port, file]
        self.run(name, *map(str, command), env=environment)
        self.await_port(port, name)
        return port

    def switchback(self, program, origin, name):
        port, home = free_port(), self.home / name
        home.mkdir()
        (home / "switchback.toml").write_text(
            f'[listen]\nhttp = "127.0.0.1:{port}"\nworkers = 1\n[admin]\nsocket = "{home}/admin.sock"\nlisten = "off"\n'
            f'[state]\ndir = "{home}/state"\n[access_log]\nto = "{home}/access.log"\n[service.web]\nhost = "*"\n'
            f'retries = 0\nendpoints = ["127.0.0.1:{origin}"]\nprobe.kind = "tcp"\n'
        )
        self.run(name, program, "run", "--log-format", "json", "-c", str(home / "switchback.toml"))
        self.await_port(port, name)
        end = time.monotonic() + PATIENCE
        while "promoted" not in (self.home / f"{name}.log").read_text():
            if time.monotonic() > end:
                raise SystemExit((self.home / f"{name}.log").read_text())
            time.sleep(0.05)
        return port

    def nginx(self, origin, name):
        (port, http2), home = (free_port(), free_port()), self.home / name
        home.mkdir()
        (home / "nginx.conf").write_text(
            f"daemon off; worker_processes 1; pid {home}/pid; error_log {home}/error.log;\nevents {{ worker_connections 4096; }}\n"
            f"http {{ access_log off; client_body_temp_path {home}/b; proxy_temp_path {home}/p; fastcgi_temp_path {home}/f;\n"
            f"uwsgi_temp_path {home}/u; scgi_temp_path {home}/s; upstream o {{ server 127.0.0.1:{origin}; keepalive 64; }}\n"
            f"server {{ listen 127.0.0.1:{port}; listen 127.0.0.1:{http2} http2; location / {{ proxy_pass http://o; proxy_http_version 1.1;\n"
            "proxy_set_header Connection \"\"; proxy_set_header Host $http_host; proxy_set_header X-Forwarded-For $remote_addr; } } }\n"
        )
        self.run(name, shutil.which("nginx") or "/usr/sbin/nginx", "-c", str(home / "nginx.conf"), "-p", str(home))
        self.await_port(port, name)
        return port, http2

    def haproxy(self, origin, name):
        (port, http2), home = (free_port(), free_port()), self.home / name
        home.mkdir()
        (home / "haproxy.cfg").write_text(
            "defaults\n mode http\n timeout client 30s\n timeout server 30s\n timeout connect 5s\n timeout http-request 10s\n"
            f" option forwardfor\nfrontend f\n bind 127.0.0.1:{port}\n bind 127.0.0.1:{http2} proto h2\n default_backend b\nbackend b\n"
            f" server o 127.0.0.1:{origin}\n"
        )
        self.run(name, shutil.which("haproxy") or "/usr/sbin/haproxy", "-db", "-f", str(home / "haproxy.cfg"))
        self.await_port(port, name)
        return port, http2


def versions_are_pinned():
    """What peers do is pinned by version."""
    for name, option, version in (("nginx", "-v", "nginx/1.22."), ("haproxy", "-v", "version 2.6.")):
        program = shutil.which(name) or f"/usr/sbin/{name}"
        said = subprocess.run([program, option], capture_output=True, text=True)
        if version not in said.stdout + said.stderr:
            print(f"SKIPPED: what {name} does is pinned for {version}, here is {said.stdout or said.stderr}")
            return False
    return True


def address(number):
    return f"127.{1 + (number >> 16)}.{number >> 8 & 255}.{number & 255}"


async def ask(port, number, sent, is_open, quiet):
    """The statuses that a client is told."""
    opening = asyncio.open_connection("127.0.0.1", port, local_addr=(address(number), 0))
    reader, writer = await asyncio.wait_for(opening, PATIENCE)
    came, ended = b"", False
    try:
        writer.write(sent)
        end = time.monotonic() + PATIENCE
        while not ended:
            # What ends by itself is awaited; what cannot, only for a while.
            patience = quiet if is_open or came else end - time.monotonic()
            more = await asyncio.wait_for(reader.read(65536), patience)
            came, ended = came + more, not more
    except (asyncio.TimeoutError, ConnectionError):
        pass
    finally:
        writer.close()
    return re.findall(rb"(?:^|\n|ok)HTTP/1\.[01] (\d{3})", came), ended


async def ask_all(port, everything, by_http2, only, pace):
    quiet, at_once = pace
    turns, told = asyncio.Semaphore(at_once), {}

    async def one(number, vector, sent):
        async with turns:
            if isinstance(sent, frames.Request):
                told[number] = await frames.ask(by_http2, address(number), sent, PATIENCE)
            else:
                statuses, _ = await ask(port, number, sent, vector.open, quiet)
                told[number] = [status.decode() for status in statuses]

    asked = ((number, *one) for number, one in enumerate(everything, 1) if only is None or number in only)
    await asyncio.gather(*(one(*this) for this in asked))
    return told


def lines(path):
    with open(path) as file:
        return [json.loads(line) for line in file]


def by_client(records):
    """Records by the number of the vector they came from; `None` for those of nobody."""
    found = collections.defaultdict(list)
    for record in records:
        match = re.fullmatch(r"127\.(\d+)\.(\d+)\.(\d+)", record.get("client") or "")
        a, b, c = map(int, match.groups()) if match else (0, 0, 0)
        found[((a - 1) << 16 | b << 8 | c) if match and a else None].append(record)
    return found


def reading(record):
    # ASGI does not tell an empty query from none.
    return record["method"], record["target"].removesuffix("?"), record["length"], record["digest"]


def said(told, records, number):
    """A vector's outcome as it is pinned."""
    word = f"v{number}"
    requests = [
        f"{record['method']} {record['target'].replace(word, '{}')}" + (f" {record['length']}" if record["length"] else "")
        for record in records
    ]
    return (" ".join(told) or "-") + " <" + "".join(f" {'|' * bool(at)}{' ' * bool(at)}{one}" for at, one in enumerate(requests))


def complaints_of_form(record):
    """What is not beyond doubt in a head that was forwarded."""
    first, *fields = record["raw"][:-4].split("\r\n")
    if not LINE.fullmatch(first):
        yield f"the line {first!r}"
    names = []
    for line in fields:
        match = FIELD.fullmatch(line)
        if not match:
            yield f"the field {line!r}"
            continue
        name, value = match.groups()
        names.append(name.lower())
        if name.lower() == "content-length" and not re.fullmatch("[0-9]+", value):
            yield f"the length {value!r}"
        if name.lower() == "transfer-encoding" and value != "chunked":
            yield f"the coding {value!r}"
        if "_" in name:
            yield f"the name {name}"
    for name in ("host", "content-length", "transfer-encoding", "x-forwarded-for", "x-request-id"):
        if names.count(name) > 1 or (name in ("host", "x-request-id") and name not in names):
            yield f"{names.count(name)} times {name}"
    if "content-length" in names and "transfer-encoding" in names:
        yield "a length and a coding"
    if "transfer-encoding" in names and not FRAMING.fullmatch(record["framing"]):
        yield f"the chunks {record['framing']!r}"


# We forward what a peer does not, or in other words: that needs a reason.
NEED_A_REASON = ("it refuses what we forward", "it reads otherwise")


def difference(ours, theirs):
    """What kind of difference there is between two outcomes as they are pinned."""
    (said, ours), (their_word, theirs) = ours.split(" <"), theirs.split(" <")
    if ours == theirs:
        return "the same" if said == their_word else "it says so with another status"
    if not ours:
        return "it forwards what we refuse"
    if not theirs:
        return "it refuses what we forward"
    if theirs.startswith(ours) or ours.startswith(theirs):
        return "it goes on longer" if len(theirs) > len(ours) else "it refuses what we forward"
    return "it reads otherwise"


class Judge:
    """Compares, and gathers what is wrong."""

    def __init__(self, everything):
        self.everything, self.wrong, self.notes = everything, [], collections.Counter()
        # Of what differs from what is pinned: the vector's number, and how.
        self.doubts = []

    def complain(self, number, what):
        vector, sent = self.everything[number - 1] if number else (None, b"")
        self.wrong.append(f"{vector.name if vector else 'nobody'}: {what}\n    {sent!r}")

    def agree(self, kind, told, records, log):
        """An origin and the access log, request by request."""
        logged = collections.defaultdict(list)
        for line in log:
            logged[line["request_id"]].append(line)
        read = collections.Counter(record["id"] for record in records)
        for number, ours in by_client(records).items():
            for record in ours:
                lines = logged.get(record["id"], [])
                if number is None or len(lines) != 1 or read[record["id"]] != 1:
                    self.complain(number, f"{kind} read {record} where the log has {lines}")
                    continue
                line = lines[0]
                target = line["path"] + ("?" + line["query"] if "query" in line else "")
                if (record["method"], record["target"]) != (line["method"], target) and not same_target(record, line, target):
                    self.complain(number, f"{kind} read {record['method']} {record['target']} where the log has {line}")
                if kind == "wire":
                    for what in complaints_of_form(record):
                        self.complain(number, f"forwarded with {what}")
        for line in log:
            if "instance" in line and not read[line["request_id"]]:
                number = next(iter(by_client([line])))
                if line["status"] == 200:
                    self.complain(number, f"{kind} did not read what the log has: {line}")
                else:
                    self.notes[f"{kind} refuses what it is sent ({line['status']})"] += 1
                    self.refusals.setdefault(kind, {})[number] = line["status"]

    refusals = {}

    def same(self, kind, records, first):
        """An origin and the lenient one."""
        refused = self.refusals.get(kind, {})
        theirs, ours = by_client(records), by_client(first)
        for number in theirs.keys() | ours.keys():
            if number in refused:
                continue
            here, there = [reading(one) for one in theirs[number]], [reading(one) for one in ours[number]]
            # What a client broke off at the end arrives or not.
            if here != there and here != there[: len(here)] and there != here[: len(there)]:
                self.complain(number, f"{kind} read {here} where others read {there}")
            elif len(here) != len(there):
                self.notes[f"{kind} read {len(here) - len(there):+} of what was broken off"] += 1

    def pinned(self, who, told, records):
        read = by_client(records)
        for number, (vector, _) in enumerate(self.everything, 1):
            if vector.file == "mutants" or number not in told:
                continue
            now = said(told[number], read[number], number)
            yield vector, number, now

    def check(self, who, told, records):
        for vector, number, now in self.pinned(who, told, records):
            expected = vector.pinned.get(who, vector.pinned["switchback"]).split("\n")
            if now not in expected:
                self.doubts.append((number, f"{who} said {now!r}, pinned is {' or '.join(map(repr, expected))}"))
            if who != "switchback":
                kinds = [difference(vector.pinned["switchback"], one) for one in expected]
                self.notes[f"{who}, {' or '.join(kinds)}"] += 1
                if any(kind in NEED_A_REASON for kind in kinds) and not vector.why:
                    self.complain(number, f"{who} is pinned with {kinds!r} and no `why`")


def same_target(record, line, target):
    """Absolute-form and an empty path are made origin-form (RFC 9112, 3.2.2)."""
    return record["method"] == line["method"] and target.removesuffix("?") == record["target"].removesuffix("?")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--switchback", required=True)
    parser.add_argument("--origins", default=",".join(ORIGINS))
    parser.add_argument("--mutants", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--peers", action="store_true", help="ask nginx and HAProxy too")
    parser.add_argument("--record", action="store_true", help="write what happens as what is to happen")
    parser.add_argument("--keep", action="store_true", help="leave the directory with logs and records")
    arguments = parser.parse_args()
    known = vectors.read()
    everything = [(one, one.sent() if one.open or one.http2 else one.sent() + vectors.END) for one in known]
    everything += [(one, sent + vectors.END) for one, sent in vectors.mutants(known, arguments.mutants, arguments.seed)]
    everything = [(one, sent.replace(b"{}", b"v%d" % number)) for number, (one, sent) in enumerate(everything, 1)]
    judge = Judge(everything)
    in_scene(judge, arguments, everything, known, None, CALM if arguments.record else HASTE)
    doubts, judge.doubts, notes = judge.doubts, [], judge.notes
    if doubts:
        print(f"asked again, in calm: {len(doubts)}")
        judge.notes = collections.Counter()
        in_scene(judge, arguments, everything, known, {number for number, _ in doubts}, CALM)
        judge.notes = notes
    for doubt in judge.doubts:
        judge.complain(*doubt)
    for note, count in sorted(judge.notes.items()):
        print(f"{note}: {count}")
    for what in judge.wrong[:200]:
        print(f"WRONG {what}")
    print(f"{len(known)} vectors, {arguments.mutants} mutants of seed {arguments.seed}, {len(judge.wrong)} wrong")
    sys.exit(bool(judge.wrong))


def in_scene(judge, arguments, everything, known, only, pace):
    scene = Scene()
    try:
        asyncio.run(play(scene, judge, arguments, everything, known, only, pace))
    finally:
        scene.end()
        if not arguments.keep:
            shutil.rmtree(scene.home, ignore_errors=True)


async def play(scene, judge, arguments, everything, known, only, pace):
    kinds = arguments.origins.split(",")
    assert kinds[0] == "wire", "the lenient origin is what others are compared with"
    ports = {}
    for kind in kinds:
        if kind == "node" and not shutil.which("node"):
            print("SKIPPED: there is no node here")
            continue
        port = scene.switchback(arguments.switchback, scene.origin(kind, f"{kind}-origin"), kind)
        ports[kind] = port, port
    peers = {}
    if arguments.peers and versions_are_pinned():
        peers["nginx"] = scene.nginx(scene.origin("wire", "nginx-origin"), "nginx")
        peers["haproxy"] = scene.haproxy(scene.origin("wire", "haproxy-origin"), "haproxy")
    began = time.monotonic()
    told = dict(zip([*ports, *peers], await asyncio.gather(*(ask_all(port, everything, http2, only, pace) for port, http2 in [*ports.values(), *peers.values()]))))
    print(f"asked for {time.monotonic() - began:.0f} s")
    # Logs are written to their ends when their writers end: the proxies before the origins.
    scene.end()
    wire = lines(scene.home / "wire-origin.records")
    for kind in ports:
        records = lines(scene.home / f"{kind}-origin.records")
        judge.agree(kind, told[kind], records, lines(scene.home / kind / "access.log"))
        judge.same(kind, records, wire)
        log = (scene.home / f"{kind}.log").read_text()
        if "panicked" in log or '"level":"ERROR"' in log:
            judge.wrong.append(f"the proxy before {kind} logged an error: {log}")
    everyone = {"switchback": (told["wire"], wire)}
    for peer in peers:
        everyone[peer] = told[peer], lines(scene.home / f"{peer}-origin.records")
    if arguments.record:
        for who, (their_told, records) in everyone.items():
            for vector, _, now in judge.pinned(who, their_told, records):
                if now in vector.pinned.get(who, "").split("\n"):
                    continue
                vector.pinned[who] = now
                if who != "switchback" and now == vector.pinned["switchback"]:
                    del vector.pinned[who]
        vectors.write(known)
    for who, (their_told, records) in everyone.items():
        judge.check(who, their_told, records)


if __name__ == "__main__":
    main()
