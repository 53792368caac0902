"""Requests in HTTP/2 that no library would send, and what a client is told.

    [name]
    field NAME VALUE        one more, as in a Python literal; first come the four pseudo-header fields
    replace NAME VALUE      another value for one of them
    without NAME            one of them is left out
    body BYTES
    trailer NAME VALUE

The fields are written in HPACK without a look at them: what a library refuses to send is what matters.
"""

import asyncio
from dataclasses import dataclass, field

from hpack import Decoder

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RESET, SETTINGS, PING, GOAWAY, CONTINUATION = 0, 1, 3, 4, 6, 7, 9
ERRORS = {0: "none", 1: "protocol", 2: "internal", 5: "closed", 7: "refused", 8: "cancel", 9: "compression", 11: "calm"}


def literal(text):
    return text.encode("latin-1").decode("unicode_escape").encode("latin-1")


def frame(kind, flags, stream, payload):
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def string(text):
    if len(text) < 127:
        return bytes([len(text)]) + text
    rest, more = len(text) - 127, bytearray([127])
    while rest >= 128:
        more.append(rest % 128 + 128)
        rest //= 128
    return bytes(more + bytes([rest])) + text


def block(fields):
    return b"".join(b"\0" + string(name) + string(value) for name, value in fields)


@dataclass
class Request:
    fields: list = field(
        default_factory=lambda: [(b":method", b"GET"), (b":scheme", b"http"), (b":authority", b"a"), (b":path", b"/{}")]
    )
    body: bytes = b""
    trailers: list = field(default_factory=list)

    def take(self, line):
        """One line of a vector's text. Whether it says something."""
        word, _, rest = line.partition(" ")
        name, _, value = rest.partition(" ")
        pair = literal(name), literal(value)
        if word == "field":
            self.fields.append(pair)
        elif word == "trailer":
            self.trailers.append(pair)
        elif word == "replace":
            self.fields = [pair if name == pair[0] else (name, value) for name, value in self.fields]
        elif word == "without":
            self.fields = [one for one in self.fields if one[0] != pair[0]]
        elif word == "body":
            self.body = literal(rest)
        else:
            return False
        return True

    def replace(self, this, that):
        put = lambda pairs: [(name.replace(this, that), value.replace(this, that)) for name, value in pairs]
        return Request(put(self.fields), self.body, put(self.trailers))

    def frames(self):
        more = self.body or self.trailers
        frames = frame(HEADERS, 4 if more else 5, 1, block(self.fields))
        if self.body:
            frames += frame(DATA, 0 if self.trailers else 1, 1, self.body)
        if self.trailers:
            frames += frame(HEADERS, 5, 1, block(self.trailers))
        return frames


async def ask(port, source, request, patience):
    """A status, or how it ended instead."""
    opening = asyncio.open_connection("127.0.0.1", port, local_addr=(source, 0))
    reader, writer = await asyncio.wait_for(opening, patience)
    told, decoder, fragments = [], Decoder(), b""

    async def read():
        nonlocal fragments
        while True:
            head = await reader.readexactly(9)
            payload = await reader.readexactly(int.from_bytes(head[:3], "big"))
            kind, flags, stream = head[3], head[4], int.from_bytes(head[5:], "big")
            if kind == SETTINGS and not flags & 1:
                writer.write(frame(SETTINGS, 1, 0, b""))
            elif kind == PING and not flags & 1:
                writer.write(frame(PING, 1, 0, payload))
            elif kind in (HEADERS, CONTINUATION) and stream == 1:
                fragments += payload
                if flags & 4:
                    fields, fragments = decoder.decode(fragments), b""
                    told.extend(str(value) for name, value in fields if name == ":status")
            elif kind == RESET and stream == 1:
                # What follows a whole answer only says that the rest is not wanted.
                return told.append(f"reset:{ERRORS.get(payload[3], payload[3])}")
            elif kind == GOAWAY:
                return told.append(f"goaway:{ERRORS.get(payload[7], payload[7])}")
            if kind in (DATA, HEADERS) and stream == 1 and flags & 1 and told:
                return None

    try:
        writer.write(PREFACE + frame(SETTINGS, 0, 0, b"") + request.frames())
        await asyncio.wait_for(read(), patience)
    except asyncio.IncompleteReadError:
        told.append("closed")
    except (asyncio.TimeoutError, ConnectionError):
        told.append("lost")
    finally:
        writer.close()
    return told
