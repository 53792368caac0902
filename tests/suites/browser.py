"""A real Chromium over TLS: HTTP/2, WebSocket, event streams, uploads and downloads.

    python browser.py serve PORT
    python browser.py ask URL DIRECTORY [CHROMIUM [SPKI]]

The page that the origin serves does what is asked of it and sends what it found back to the origin, which
writes it to DIRECTORY/found.
"""

import asyncio
import collections
import hashlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time
import urllib.parse

MEGABYTE = 1 << 20
PAGE = """<!doctype html><title>browser</title><script>
const say = async (found) => fetch("/found", {method: "POST", body: JSON.stringify(found)});
const within = (promise) => Promise.race([promise, new Promise((_, no) => setTimeout(() => no("too late"), 20000))]);
const digest = async (bytes) => [...new Uint8Array(await crypto.subtle.digest("SHA-256", bytes))]
  .map((byte) => byte.toString(16).padStart(2, "0")).join("");
const tries = {
  async protocol() {
    await (await fetch("/small")).text();
    for (;;) {
      // It is told a little later.
      const [entry] = performance.getEntriesByName(location.origin + "/small");
      if (entry) return entry.nextHopProtocol;
      await new Promise((yes) => setTimeout(yes, 50));
    }
  },
  async many() {
    const all = await Promise.all([...Array(200).keys()].map((n) => fetch("/small?" + n).then((r) => r.text())));
    return all.every((text) => text === "small");
  },
  async websocket() {
    const socket = new WebSocket(location.origin.replace("http", "ws") + "/socket");
    socket.binaryType = "arraybuffer";
    await new Promise((yes, no) => { socket.onopen = yes; socket.onerror = () => no("refused"); });
    for (const size of [0, 1, 125, 126, 65535, 65536, 1000000]) {
      const sent = new Uint8Array(size).map((_, at) => at % 251);
      const back = new Promise((yes) => { socket.onmessage = (event) => yes(event.data); });
      socket.send(sent);
      if (await digest(sent) !== await digest(await back)) return "another message came back";
    }
    const closed = new Promise((yes) => { socket.onclose = (event) => yes(event.code); });
    socket.close();
    return await closed;
  },
  events: () => new Promise((yes, no) => {
    const seen = [], source = new EventSource("/events");
    source.onmessage = (event) => {
      seen.push([event.data, Math.round(performance.now())]);
      if (seen.length < 3) return;
      source.close();
      // They are sent 400 ms apart: held back, they would come together.
      yes(seen.map(([data]) => data).join() === "0,1,2" && seen[2][1] - seen[0][1] > 300);
    };
    source.onerror = () => no("broken");
  }),
  async upload() {
    const bytes = new Uint8Array(8 << 20).map((_, at) => at % 253);
    const said = await (await fetch("/upload", {method: "POST", body: bytes})).text();
    return said === await digest(bytes);
  },
  async download() {
    const answer = await fetch("/download");
    return await digest(await answer.arrayBuffer()) === answer.headers.get("x-digest");
  },
};
(async () => {
  const found = {};
  for (const [name, act] of Object.entries(tries)) {
    try { found[name] = await within(act()); } catch (error) { found[name] = "failed: " + error; }
  }
  await say(found);
})();
</script>"""
WANTED = {"protocol": "h2", "many": True, "websocket": 1000, "events": True, "upload": True, "download": True}


def serve(port, directory):
    from aiohttp import web

    async def socket(request):
        line = web.WebSocketResponse(max_msg_size=16 * MEGABYTE)
        await line.prepare(request)
        async for message in line:
            await line.send_bytes(message.data)
        return line

    async def events(request):
        answer = web.StreamResponse(headers={"content-type": "text/event-stream", "cache-control": "no-store"})
        await answer.prepare(request)
        for n in range(3):
            await answer.write(b"data: %d\n\n" % n)
            await asyncio.sleep(0.4)
        return answer

    async def upload(request):
        digest = hashlib.sha256()
        async for piece in request.content.iter_any():
            digest.update(piece)
        return web.Response(text=digest.hexdigest())

    async def download(_):
        body = bytes(at % 249 for at in range(249)) * 65_536
        return web.Response(body=body, headers={"x-digest": hashlib.sha256(body).hexdigest()})

    async def found(request):
        pathlib.Path(directory, "found").write_bytes(await request.read())
        return web.Response(text="thanks")

    async def small(_):
        return web.Response(text="small")

    async def page(_):
        return web.Response(text=PAGE, content_type="text/html")

    app = web.Application(client_max_size=64 * MEGABYTE)
    app.add_routes([
        web.get("/", page), web.get("/small", small), web.get("/socket", socket), web.get("/events", events),
        web.post("/upload", upload), web.get("/download", download), web.post("/found", found),
    ])
    web.run_app(app, host="127.0.0.1", port=port, print=None)


def told(log):
    """Why requests failed, by the browser's own log: (how often, its word for it)."""
    try:
        text = log.read_text(errors="replace")
    except OSError:
        return []
    # Ended before its last line, it is no JSON; the names of errors stand at its beginning.
    names = dict((number, name) for name, number in re.findall(r'"(ERR_\w+)":(-\d+)', text))
    failed = collections.Counter(re.findall(r'"net_error":(-\d+)', text))
    return [(times, names.get(number, number)) for number, times in failed.most_common()]


def ask(url, directory, program="chromium", spki=None):
    """Asks once, and once more if the machine's network changed meanwhile: a browser then gives up whatever is on its
    way (ERR_NETWORK_CHANGED), because somebody plugged a cable, or started a container."""
    # By HTTP/3, but for the WebSocket, when the certificate's key is said: SHA-256, in Base64.
    all_wanted = WANTED | ({"protocol": "h3"} if spki else {})
    found, why = ask_once(url, directory, program, "first", spki)
    if found != all_wanted and any(name == "ERR_NETWORK_CHANGED" for _, name in why):
        print("the network of this machine changed while it was asked:", why, "- asked again", flush=True)
        found, why = ask_once(url, directory, program, "second", spki)
    for name, wanted in all_wanted.items():
        print(f"{'ok    ' if found.get(name) == wanted else 'FAILED'} {name}: {found.get(name, 'nothing was said')}")
    if found != all_wanted:
        print("the browser says:", why)
    version = subprocess.run([shutil.which(program) or program, "--version"], capture_output=True, text=True).stdout.strip()
    print(version)
    sys.exit(found != all_wanted)


def ask_once(url, directory, program, turn, spki):
    said, log = pathlib.Path(directory, "found"), pathlib.Path(directory, f"net-{turn}.json")
    said.unlink(missing_ok=True)
    profile = pathlib.Path(directory, f"profile-{turn}")
    command = [
        shutil.which(program) or program, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
        "--no-first-run", "--ignore-certificate-errors", f"--user-data-dir={profile}", "--remote-debugging-port=0",
        f"--log-net-log={log}", url,
    ]
    if spki:
        # Over QUIC a certificate that nobody knows is taken by its key alone.
        origin = urllib.parse.urlsplit(url).netloc
        command[1:1] = [
            f"--origin-to-force-quic-on={origin}", f"--ignore-certificate-errors-spki-list={spki}",
            # It would try ::1 first, and by QUIC for long.
            "--host-resolver-rules=MAP localhost 127.0.0.1",
        ]
        command.remove("--ignore-certificate-errors")
    browser = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 180
        while not said.exists() and browser.poll() is None and time.monotonic() < end:
            time.sleep(0.2)
        time.sleep(0.5)
    finally:
        browser.terminate()
        try:
            browser.wait(20)
        except subprocess.TimeoutExpired:
            browser.kill()
    if keep := os.environ.get("NET_LOG"):
        shutil.copy(log, keep)
    return json.loads(said.read_text()) if said.exists() else {}, told(log)


if sys.argv[1] == "serve":
    serve(int(sys.argv[2]), sys.argv[3])
else:
    ask(*sys.argv[2:])
