"""Origins that write down what they read: one line of JSON for each request that they took.

    python origins.py wire|http.server|h11|waitress|gunicorn|aiohttp PORT FILE
    RECORD=FILE python -m uvicorn|hypercorn|granian ... origins:asgi

Each record has the method, the target, the body's digest and length, the request's id and the chain that
the proxy told, and the number of the connection. `wire` is lenient on purpose, and writes the raw head
down as well: it shows what came, not what should have come.
"""

import asyncio
import hashlib
import http.server
import json
import os
import socketserver
import sys
import threading

lock = threading.Lock()
connections = 0


def number():
    global connections
    with lock:
        connections += 1
        return connections


def record(method, target, body, fields, **more):
    """`fields` maps lower-case names to values."""
    line = {
        "method": method,
        "target": target,
        "length": len(body),
        "digest": hashlib.sha256(body).hexdigest()[:16],
        "id": fields.get("x-request-id"),
        "client": fields.get("x-forwarded-for"),
        **more,
    }
    text = json.dumps(line) + "\n"
    with lock:
        # In one write each, also with several threads.
        fd = os.open(record.file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        os.write(fd, text.encode())
        os.close(fd)


record.file = os.environ.get("RECORD")
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n"


async def wire(reader, writer):
    """Takes bytes for what they most probably are, however they are written."""
    connection = number()
    try:
        while True:
            raw = await reader.readuntil(b"\r\n\r\n")
            lines = raw.split(b"\r\n")
            method, _, target = lines[0].decode("latin-1").partition(" ")
            target = target.rpartition(" ")[0]
            fields, length, chunked = {}, 0, False
            for line in lines[1:]:
                name, _, value = line.decode("latin-1").partition(":")
                fields[name.lower()] = value.strip()
                if name.lower() == "content-length":
                    length = int(value)
                chunked |= name.lower() == "transfer-encoding"
            body, framing = b"", b""
            if chunked:
                while True:
                    line = await reader.readline()
                    framing += line
                    size = int(line.split(b";")[0], 16)
                    if not size:
                        break
                    body += await reader.readexactly(size)
                    framing += await reader.readexactly(2)
                while (line := await reader.readline()) != b"\r\n":
                    if not line:
                        return
                    framing += line
                framing += line
            elif length:
                body = await reader.readexactly(length)
            more = {"raw": raw.decode("latin-1"), "framing": framing.decode("latin-1")}
            record(method, target, body, fields, connection=connection, **more)
            writer.write(OK + (b"" if method == "HEAD" else b"ok"))
            await writer.drain()
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError, ValueError):
        pass
    finally:
        writer.close()


class Server(http.server.BaseHTTPRequestHandler):
    """What the standard library reads. It knows no chunks: they are undone here."""

    protocol_version = "HTTP/1.1"

    def setup(self):
        super().setup()
        self.connection_number = number()

    def answer(self):
        body = b""
        if self.headers.get("transfer-encoding", "").lower() == "chunked":
            while size := int(self.rfile.readline().split(b";")[0], 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            while self.rfile.readline().strip():
                pass
        elif length := int(self.headers.get("content-length", 0)):
            body = self.rfile.read(length)
            if len(body) < length:
                self.close_connection = True
                return
        fields = {name.lower(): value for name, value in self.headers.items()}
        # It makes one slash of several at the beginning (bpo-43223): the line itself is not changed.
        target = self.requestline.split(" ")[1]
        record(self.command, target, body, fields, connection=self.connection_number)
        self.send_response(200)
        self.send_header("content-length", "2")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(b"ok")

    def __getattr__(self, name):
        if name.startswith("do_"):
            return self.answer
        raise AttributeError(name)

    def log_message(self, *_):
        pass


async def by_h11(reader, writer):
    import h11

    connection, count = h11.Connection(h11.SERVER), number()
    try:
        while True:
            request, body = None, b""
            while True:
                event = connection.next_event()
                if event is h11.NEED_DATA:
                    connection.receive_data(await reader.read(65536))
                elif isinstance(event, h11.Request):
                    request = event
                elif isinstance(event, h11.Data):
                    body += bytes(event.data)
                elif isinstance(event, h11.EndOfMessage):
                    break
                else:
                    return
            fields = {name.decode(): value.decode("latin-1") for name, value in request.headers}
            record(request.method.decode(), request.target.decode(), body, fields, connection=count)
            writer.write(connection.send(h11.Response(status_code=200, headers=[("content-length", "2")])))
            if request.method != b"HEAD":
                writer.write(connection.send(h11.Data(data=b"ok")))
            writer.write(connection.send(h11.EndOfMessage()))
            await writer.drain()
            connection.start_next_cycle()
    except h11.RemoteProtocolError:
        writer.write(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
    except (h11.LocalProtocolError, ConnectionError):
        pass
    finally:
        writer.close()


async def asgi(scope, receive, send):
    if scope["type"] == "lifespan":
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        return await send({"type": "lifespan.shutdown.complete"})
    if scope["type"] != "http":
        return
    body = b""
    while True:
        event = await receive()
        if event["type"] == "http.disconnect":
            return
        body += event.get("body", b"")
        if not event.get("more_body"):
            break
    fields = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
    target = scope["raw_path"].partition(b"?")[0] if scope.get("raw_path") else scope["path"].encode()
    target = target.decode("latin-1")
    if scope["query_string"]:
        target += "?" + scope["query_string"].decode("latin-1")
    record(scope["method"], target, body, fields)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else b"ok"})


def wsgi(environ, start):
    body = environ["wsgi.input"].read()
    fields = {
        name[5:].lower().replace("_", "-"): value for name, value in environ.items() if name.startswith("HTTP_")
    }
    target = environ.get("RAW_URI") or environ.get("REQUEST_URI")
    record(environ["REQUEST_METHOD"], target, body, fields)
    start("200 OK", [("content-length", "2")])
    return [] if environ["REQUEST_METHOD"] == "HEAD" else [b"ok"]


async def listen(serve, port):
    server = await asyncio.start_server(serve, "127.0.0.1", port, limit=1 << 20)
    async with server:
        await server.serve_forever()


def by_aiohttp(port):
    from aiohttp import web

    async def answer(request):
        body = await request.read()
        fields = {name.lower(): value for name, value in request.headers.items()}
        record(request.method, request._message.path, body, fields)
        return web.Response(body=b"ok")

    async def serve():
        runner = web.ServerRunner(web.Server(answer))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        await asyncio.Event().wait()

    asyncio.run(serve())


def main():
    kind, port, record.file = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    if kind == "wire":
        asyncio.run(listen(wire, port))
    elif kind == "h11":
        asyncio.run(listen(by_h11, port))
    elif kind == "http.server":
        class Threads(socketserver.ThreadingMixIn, http.server.HTTPServer):
            daemon_threads = True
            request_queue_size = 256

        Threads(("127.0.0.1", port), Server).serve_forever()
    elif kind == "waitress":
        import waitress

        waitress.serve(wsgi, host="127.0.0.1", port=port, threads=8, _quiet=True, clear_untrusted_proxy_headers=False)
    elif kind == "aiohttp":
        by_aiohttp(port)
    else:
        sys.exit(f"there is no origin {kind}")


if __name__ == "__main__":
    main()
