"""A visitor by HTTP/3, in a library that nobody here wrote.

    python ask.py PORT

Asks again and again until its standard input ends, goes elsewhere when it is told to, and then says in
JSON what it met: answers by status, what failed and how, and on how many connections.
"""

import asyncio
import collections
import json
import ssl
import sys
import threading

from aioquic.asyncio.client import connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.buffer import Buffer, BufferReadError
from aioquic.h3.connection import H3_ALPN, FrameType, H3Connection, StreamType
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ConnectionTerminated, StreamDataReceived, StreamReset

PATIENCE = 30
PAUSE = 0.02
REJECTED = "reset 0x10b"
UPLOAD = 300_000


def farewell(control):
    """From which request on a client was told to go elsewhere, in all that came on the control stream."""
    told, buffer = None, Buffer(data=bytes(control))
    try:
        buffer.pull_uint_var()
        while True:
            kind, payload = buffer.pull_uint_var(), buffer.pull_bytes(buffer.pull_uint_var())
            if kind == FrameType.GOAWAY:
                told = Buffer(data=payload).pull_uint_var()
    except BufferReadError:
        return told


class Visitor(QuicConnectionProtocol):
    def __init__(self, *arguments, **words):
        super().__init__(*arguments, **words)
        self.http = H3Connection(self._quic)
        # The library reads over a farewell.
        self.streams, self.told = collections.defaultdict(bytearray), None
        self.waiting = {}
        self.ended = None

    def quic_event_received(self, event):
        if isinstance(event, ConnectionTerminated):
            self.ended = f"closed {event.error_code:#x} {event.reason_phrase}".strip()
            for answer, _ in self.waiting.values():
                if not answer.done():
                    answer.set_exception(ConnectionError(self.ended))
        elif isinstance(event, StreamReset) and event.stream_id in self.waiting:
            answer, _ = self.waiting[event.stream_id]
            if not answer.done():
                answer.set_exception(ConnectionError(f"reset {event.error_code:#x}"))
        if isinstance(event, StreamDataReceived) and event.stream_id % 4 == 3:
            stream = self.streams[event.stream_id]
            stream.extend(event.data)
            if stream[:1] == bytes([StreamType.CONTROL]):
                self.told = farewell(stream)
        for event in self.http.handle_event(event):
            if not isinstance(event, (HeadersReceived, DataReceived)) or event.stream_id not in self.waiting:
                continue
            answer, parts = self.waiting[event.stream_id]
            if isinstance(event, HeadersReceived):
                parts[0].update(event.headers)
            else:
                parts[1].extend(event.data)
            if event.stream_ended and not answer.done():
                answer.set_result(parts)

    async def ask(self, method, path, body=b"", fields=()):
        stream = self._quic.get_next_available_stream_id()
        answer = asyncio.get_running_loop().create_future()
        self.waiting[stream] = (answer, ({}, bytearray()))
        head = [(b":method", method), (b":scheme", b"https"), (b":authority", b"localhost"), (b":path", path)]
        self.http.send_headers(stream, head + list(fields), end_stream=not body)
        if body:
            self.http.send_data(stream, body, end_stream=True)
        self.transmit()
        try:
            fields, data = await asyncio.wait_for(answer, PATIENCE)
            return int(fields[b":status"])
        except ConnectionError as error:
            # It was not begun, so it may be asked again (RFC 9114, 5.2 and 4.1.1).
            if REJECTED in str(error) or self.told is not None and stream >= self.told:
                return None
            raise
        finally:
            del self.waiting[stream]


def configuration():
    config = QuicConfiguration(is_client=True, alpn_protocols=H3_ALPN, server_name="localhost")
    config.verify_mode = ssl.CERT_NONE
    return config


async def visit(port, over):
    met = {"connections": 0, "statuses": collections.Counter(), "failed": [], "uploaded": 0, "again": 0}
    while not over.is_set():
        try:
            async with connect("127.0.0.1", port, configuration=configuration(), create_protocol=Visitor) as visitor:
                met["connections"] += 1
                count = 0
                while not over.is_set() and visitor.told is None and visitor.ended is None:
                    count += 1
                    if count % 50 == 1:
                        length = (b"content-length", str(UPLOAD).encode())
                        status = await visitor.ask(b"POST", b"/", bytes(UPLOAD), [length])
                        met["uploaded"] += UPLOAD
                    else:
                        status = await visitor.ask(b"GET", b"/?" + str(count).encode())
                    if status is None:
                        met["again"] += 1
                        break
                    met["statuses"][status] += 1
                    await asyncio.sleep(PAUSE)
        except (ConnectionError, asyncio.TimeoutError) as error:
            met["failed"].append(repr(error))
            await asyncio.sleep(PAUSE)
    return met


async def main():
    over = asyncio.Event()
    loop = asyncio.get_running_loop()

    def wait():
        sys.stdin.read()
        loop.call_soon_threadsafe(over.set)

    threading.Thread(target=wait, daemon=True).start()
    print(json.dumps(await visit(int(sys.argv[1]), over)))


asyncio.run(main())
