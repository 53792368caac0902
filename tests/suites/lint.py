"""What httplint says of answers: nothing that it does not say of the origin asked directly.

    python lint.py DIRECT THROUGH

Two ports; the origin is `origin.py`.
"""

import socket
import sys
import time

import httplint
from httplint import HttpResponseLinter

REQUESTS = {
    "a page": b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    "a large one": b"GET /large HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    "a head": b"HEAD / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    "chunks": b"GET /chunks HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    "not modified": b"GET /same HTTP/1.1\r\nHost: a\r\nIf-None-Match: \"1\"\r\nConnection: close\r\n\r\n",
    "a redirect": b"GET /moved HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    "nothing": b"GET /nothing HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    "cookies": b"GET /cookies HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
}


def answer(port, request):
    with socket.create_connection(("127.0.0.1", port), 20) as line:
        line.sendall(request)
        came = b""
        while piece := line.recv(65536):
            came += piece
    head, _, body = came.partition(b"\r\n\r\n")
    first, *fields = head.split(b"\r\n")
    return first, [tuple(part.strip() for part in field.split(b":", 1)) for field in fields], body


def notes(port, request):
    first, fields, body = answer(port, request)
    statuses.add(first.split(b" ")[1])
    linter = HttpResponseLinter()
    version, status, *reason = first.split(b" ", 2)
    linter.process_response_topline(version, status, reason[0] if reason else b"")
    linter.process_headers(fields)
    if not request.startswith(b"HEAD"):
        linter.feed_content(body)
    linter.finish_content(True)
    return {
        (type(note).__name__, note.level.name) for note in linter.notes if note.level.name in ("WARN", "BAD")
    }


direct, through = int(sys.argv[1]), int(sys.argv[2])
failed = False
for name, request in REQUESTS.items():
    statuses = set()
    new = notes(through, request) - notes(direct, request)
    if len(statuses) > 1:
        new.add(f"another status: {statuses}")
    failed |= bool(new)
    print(f"{'FAILED' if new else 'ok    '} {name}: {', '.join(map(str, sorted(new))) or 'no new warning'}")
print(f"httplint {getattr(httplint, '__version__', '')}")
sys.exit(failed)
