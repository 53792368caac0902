"""An origin for the suites: answers every request of HTTP/1.1 with twelve bytes, `/medium` with 256 KiB, and `/large`
with 4 MiB."""

import asyncio
import sys

OTHERS = {
    b"/chunks": b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    b"/same": b'HTTP/1.1 304 Not Modified\r\netag: "1"\r\ncache-control: max-age=60\r\n\r\n',
    b"/moved": b"HTTP/1.1 302 Found\r\nlocation: /\r\ncontent-length: 0\r\n\r\n",
    b"/nothing": b"HTTP/1.1 204 No Content\r\n\r\n",
    b"/cookies": b"HTTP/1.1 200 OK\r\nset-cookie: a=b\r\nset-cookie: c=d; secure\r\ncontent-length: 0\r\n\r\n",
}
SMALL = b"hello, world"
PIECE = b"x" * (64 << 10)


async def serve(reader, writer):
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            length, chunked = 0, False
            for line in head.lower().split(b"\r\n"):
                if line.startswith(b"content-length:"):
                    length = int(line.split(b":")[1])
                chunked |= line.startswith(b"transfer-encoding:")
            while chunked:
                size = int((await reader.readline()).split(b";")[0], 16)
                if size:
                    await reader.readexactly(size + 2)
                    continue
                while (await reader.readline()).strip():
                    pass
                chunked = False
            if length:
                await reader.readexactly(length)
            if other := OTHERS.get(head.split(b" ")[1]):
                writer.write(other)
                await writer.drain()
                if b"connection: close" in head.lower():
                    return
                continue
            pieces = {b"/large": 64, b"/medium": 4}.get(head.split(b" ")[1], 0)
            length = pieces * len(PIECE) or len(SMALL)
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: %d\r\n\r\n" % length)
            if not head.startswith(b"HEAD "):
                # Piece by piece, as it is read: others are served meanwhile.
                for _ in range(pieces or 1):
                    writer.write(PIECE if pieces else SMALL)
                    await writer.drain()
            await writer.drain()
            if b"connection: close" in head.lower():
                return
    except (asyncio.IncompleteReadError, ConnectionError, ValueError):
        pass
    finally:
        writer.close()


async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", int(sys.argv[1]), limit=1 << 20)
    async with server:
        await server.serve_forever()


asyncio.run(main())
