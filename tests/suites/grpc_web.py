"""Calls of gRPC-Web between the client and the server of `sonora`, which knows nothing of this proxy.

    python grpc_web.py serve PORT
    python grpc_web.py ask ADDRESS [SOCKET SERVICE]

The server speaks HTTP/1.1 and HTTP/2 without TLS on its port. Unary calls and streams are asked in binary by
sonora's client, and as text; statuses come with messages that have to be escaped. With the admin API's socket
and a service's name, what was counted is compared with the statuses that were answered.
"""

import base64
import http.client
import socket
import sys

import grpc

SERVICE = "/grpc.testing.TestService/"
MESSAGE = "no: ☺ 100%"
# Those that a server is blamed for (OpenTelemetry, RPC spans).
SERVERS = {2, 4, 12, 13, 14, 15}


class Service(grpc.GenericRpcHandler):
    def service(self, details):
        if details.method == SERVICE + "Unary":
            return grpc.unary_unary_rpc_method_handler(self.unary, bytes, bytes)
        if details.method == SERVICE + "Download":
            return grpc.unary_stream_rpc_method_handler(self.download, bytes, bytes)
        return None

    def unary(self, request, context):
        code = int(request)
        if code:
            context.abort(list(grpc.StatusCode)[code], MESSAGE)
        return b"y" * 100_000

    def download(self, request, context):
        for size in request.split(b","):
            yield b"y" * int(size)


def serve(port):
    import asyncio

    from hypercorn.asyncio import serve as run
    from hypercorn.config import Config
    from sonora.wsgi import grpcWSGI

    app, config = grpcWSGI(enable_cors=False), Config()
    app.add_generic_rpc_handlers((Service(),))
    config.bind = [f"127.0.0.1:{port}"]
    asyncio.run(run(app, config, mode="wsgi"))


def by_text(address, method, request):
    """The messages and the trailers of a call as text."""
    call = base64.b64encode(b"\0" + len(request).to_bytes(4, "big") + request)
    host, port = address.split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=60)
    kind = {"content-type": "application/grpc-web-text", "accept": "application/grpc-web-text"}
    connection.request("POST", SERVICE + method, call, kind)
    answer = connection.getresponse()
    text, body = answer.read(), b""
    # Each piece may have a padding of its own.
    for at in range(0, len(text), 4):
        body += base64.b64decode(text[at : at + 4])
    assert answer.status == 200, answer.status
    # Where there is nothing else to say, the status is in the header.
    messages, trailers = [], {"grpc-status": answer.getheader("grpc-status")}
    while body:
        flags, length = body[0], int.from_bytes(body[1:5], "big")
        message, body = body[5 : 5 + length], body[5 + length :]
        if flags & 0x80:
            lines = message.decode().strip().splitlines()
            trailers |= {k.strip().lower(): v.strip() for k, v in (line.split(":", 1) for line in lines)}
        else:
            messages.append(message)
    return messages, trailers


def counted(path, service):
    connection = http.client.HTTPConnection("localhost")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(path)
    connection.request("GET", "/metrics")
    rows = {}
    for line in connection.getresponse().read().decode().splitlines():
        if line.startswith("switchback_requests_total{") and f'service="{service}"' in line:
            labels, value = line.rsplit(" ", 1)
            outcome = labels.split('outcome="')[1].split('"')[0]
            rows[outcome] = rows.get(outcome, 0) + int(float(value))
    return rows


def ask(address, admin=None, service=None):
    from sonora.client import insecure_web_channel

    wanted = {"success": 0, "rejected": 0, "failure": 0}

    def expect(code):
        wanted["success" if not code else "failure" if code in SERVERS else "rejected"] += 1

    with insecure_web_channel(f"http://{address}") as channel:
        unary = channel.unary_unary(SERVICE + "Unary", bytes, bytes)
        download = channel.unary_stream(SERVICE + "Download", bytes, bytes)
        for code in range(17):
            said = list(grpc.StatusCode)[code]
            try:
                assert unary(str(code).encode()) == b"y" * 100_000 and code == 0
            except grpc.RpcError as error:
                assert (error.code(), error.details()) == (said, MESSAGE), error
            expect(code)
            messages, trailers = by_text(address, "Unary", str(code).encode())
            assert trailers["grpc-status"] == str(code), trailers
            assert [len(one) for one in messages] == ([100_000] if code == 0 else []), code
            expect(code)
        sizes = [1, 0, 300_000, 7]
        call = ",".join(map(str, sizes)).encode()
        assert [len(one) for one in download(call)] == sizes
        expect(0)
        assert [len(one) for one in by_text(address, "Download", call)[0]] == sizes
        expect(0)
    print(f"{sum(wanted.values())} calls, each as its server said")
    if admin:
        found = counted(admin, service)
        assert {k: found.get(k, 0) for k in wanted} == wanted, (found, wanted)
        print(f"counted: {wanted}")


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(int(sys.argv[2]))
    else:
        ask(*sys.argv[2:])
