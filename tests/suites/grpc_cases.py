"""The standard interop cases of gRPC, between the client and the server of `grpcio`.

    python grpc_cases.py serve PORT
    python grpc_cases.py ask PORT [AUTHORITY]

Sizes, metadata, codes and messages are those of gRPC's interop description. Messages are plain bytes: how
they are encoded is not a proxy's business.
"""

import sys
import threading
import time
from concurrent import futures

import grpc

SERVICE = "/grpc.testing.TestService/"
SPECIAL = "\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP 😈\t\n"
SIZES = [(27182, 31415), (8, 9), (1828, 2653), (45904, 58979)]
INITIAL, TRAILING = "x-grpc-test-echo-initial", "x-grpc-test-echo-trailing-bin"


class Service(grpc.GenericRpcHandler):
    def service(self, details):
        name = details.method.removeprefix(SERVICE)
        kinds = {
            "Unary": grpc.unary_unary_rpc_method_handler(self.unary),
            "Upload": grpc.stream_unary_rpc_method_handler(self.upload),
            "Download": grpc.unary_stream_rpc_method_handler(self.download),
            "Both": grpc.stream_stream_rpc_method_handler(self.both),
        }
        return kinds.get(name) if details.method.startswith(SERVICE) else None

    @staticmethod
    def echo(context):
        said = dict(context.invocation_metadata())
        if INITIAL in said:
            context.send_initial_metadata(((INITIAL, said[INITIAL]),))
        if TRAILING in said:
            context.set_trailing_metadata(((TRAILING, said[TRAILING]),))

    def unary(self, request, context):
        self.echo(context)
        word, _, rest = request.partition(b":")
        if word == b"status":
            code, _, message = rest.decode().partition(":")
            context.abort(list(grpc.StatusCode)[int(code)], message)
        return b"y" * int(rest) if word.startswith(b"size") else b""

    def upload(self, requests, context):
        return str(sum(len(request) for request in requests)).encode()

    def download(self, request, context):
        for size in request.split(b","):
            yield b"y" * int(size)

    def both(self, requests, context):
        self.echo(context)
        for request in requests:
            if request.startswith(b"sleep"):
                time.sleep(5)
            size = int(request.partition(b":")[0])
            yield b"y" * size


def serve(port):
    server = grpc.server(futures.ThreadPoolExecutor(16))
    server.add_generic_rpc_handlers((Service(),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    server.wait_for_termination()


class Cases:
    def __init__(self, port, authority):
        options = [("grpc.default_authority", authority)] if authority else []
        self.channel = grpc.insecure_channel(f"127.0.0.1:{port}", options)
        self.unary = self.channel.unary_unary(SERVICE + "Unary")
        self.uploading = self.channel.stream_unary(SERVICE + "Upload")
        self.downloading = self.channel.unary_stream(SERVICE + "Download")
        self.both = self.channel.stream_stream(SERVICE + "Both")

    def empty_unary(self):
        assert self.unary(b"", timeout=20) == b""

    def large_unary(self):
        assert len(self.unary(b"size" + b"x" * 271828 + b":314159", timeout=20)) == 314159

    def client_streaming(self):
        sizes = [27182, 8, 1828, 45904]
        assert self.uploading((b"x" * size for size in sizes), timeout=20) == b"74922"

    def server_streaming(self):
        sizes = [31415, 9, 2653, 58979]
        said = self.downloading(",".join(map(str, sizes)).encode(), timeout=20)
        assert [len(one) for one in said] == sizes

    def ping_pong(self):
        turn, asked = threading.Semaphore(1), []

        def requests():
            for size, wanted in SIZES:
                turn.acquire()
                asked.append(wanted)
                yield f"{wanted}:".encode() + b"x" * size

        answers = self.both(requests(), timeout=20)
        for at, (_, wanted) in enumerate(SIZES):
            assert len(next(answers)) == wanted
            # Nothing was sent ahead: the answer came before the next request.
            assert len(asked) == at + 1
            turn.release()
        assert next(answers, None) is None

    def empty_stream(self):
        assert list(self.both(iter(()), timeout=20)) == []

    def status_code_and_message(self, message="test status message"):
        try:
            self.unary(f"status:2:{message}".encode(), timeout=20)
        except grpc.RpcError as error:
            wanted = list(grpc.StatusCode)[2]
            assert (error.code(), error.details()) == (wanted, message), (error.code(), error.details())
        else:
            raise AssertionError("it succeeded")

    def special_status_message(self):
        self.status_code_and_message(SPECIAL)

    def unimplemented(self, method):
        try:
            self.channel.unary_unary(method)(b"", timeout=20)
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.UNIMPLEMENTED, error
        else:
            raise AssertionError("it succeeded")

    def unimplemented_method(self):
        self.unimplemented(SERVICE + "Nothing")

    def unimplemented_service(self):
        self.unimplemented("/grpc.testing.Nothing/Unary")

    def custom_metadata(self):
        said = ((INITIAL, "test_initial_metadata_value"), (TRAILING, b"\xab\xab\xab"))
        answer, call = self.unary.with_call(b"size:314159", timeout=20, metadata=said)
        assert len(answer) == 314159
        assert dict(call.initial_metadata())[INITIAL] == said[0][1]
        assert dict(call.trailing_metadata())[TRAILING] == said[1][1]
        call = self.both(iter([b"31415:"]), timeout=20, metadata=said)
        assert [len(one) for one in call] == [31415]
        assert dict(call.trailing_metadata())[TRAILING] == said[1][1]

    def cancel_after_begin(self):
        over = threading.Event()

        def requests():
            # Without an end: it could be answered before it is cancelled.
            over.wait(20)
            yield from ()

        call = self.uploading.future(requests(), timeout=20)
        call.cancel()
        over.set()
        assert call.cancelled() and call.code() == grpc.StatusCode.CANCELLED

    def cancel_after_first_response(self):
        over = threading.Event()

        def requests():
            yield b"31415:" + b"x" * 27182
            over.wait(20)

        call = self.both(requests(), timeout=20)
        assert len(next(call)) == 31415
        call.cancel()
        over.set()
        assert call.code() == grpc.StatusCode.CANCELLED

    def timeout_on_sleeping_server(self):
        try:
            list(self.both(iter([b"sleep"]), timeout=0.2))
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED, error
        else:
            raise AssertionError("it succeeded")


def ask(port, authority=None):
    cases, failed = Cases(port, authority), 0
    names = [name for name, value in vars(Cases).items() if not name.startswith("_") and name != "unimplemented"]
    grpc.channel_ready_future(cases.channel).result(20)
    for name in names:
        try:
            getattr(cases, name)()
            print(f"ok     {name}")
        except (AssertionError, grpc.RpcError) as error:
            failed += 1
            print(f"FAILED {name}: {error!r}")
    print(f"{len(names)} cases, {failed} failed", flush=True)
    sys.exit(bool(failed))


if sys.argv[1] == "serve":
    serve(sys.argv[2])
else:
    ask(*sys.argv[2:])
