"""Somebody who means no harm, and what he has to wait for while others attack the proxy. His origin is his
own: how one origin bears what passes to it is not asked here."""

import socket
import threading
import time


class Innocent:
    """A client that asks and asks, and takes the time."""

    def __init__(self, port):
        self.port, self.times, self.failures, self.over = port, [], 0, False
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        request = b"GET / HTTP/1.1\r\nhost: others.localhost\r\n\r\n"
        connection = None
        while not self.over:
            began = time.monotonic()
            try:
                if connection is None:
                    connection = socket.create_connection(("127.0.0.1", self.port), timeout=10)
                connection.sendall(request)
                answer = b""
                while not answer.endswith(b"hello, world"):
                    piece = connection.recv(4096)
                    if not piece:
                        raise ConnectionError
                    answer += piece
                if b"connection: close" in answer:
                    connection = None
            except OSError:
                self.failures += 1
                connection = None
            self.times.append(time.monotonic() - began)
            time.sleep(0.002)

    def end(self):
        self.over = True
        self.thread.join(20)
        return sorted(self.times)[int(len(self.times) * 0.99)] if self.times else float("inf")
