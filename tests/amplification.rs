//! No request of 10 KiB or less has the proxy hold more than a mebibyte.
//!
//! A real daemon, a hundred of each request at a time, held open; and what they had it hold at most, by
//! the kernel's own mark (`VmHWM`), which is set back before each. What is allocated and given back
//! counts too, if it was used. A connection of up to 10 KiB with many requests at a time on it may hold
//! more, by their number.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use crate::support::app;
use crate::support::daemon::{Daemon, PATIENCE};

/// Connections at a time.
const CONNECTIONS: u64 = 100;
/// Bytes that each may have the proxy hold.
const LIMIT: u64 = 1 << 20;
/// The same for each of many requests at a time on one connection: buffers both ways, and what they
/// say.
const LIMIT_OF_MANY: u64 = 64 * 1024;
/// Bytes of a request.
const MOST: usize = 10 * 1024;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// A length in HPACK, and the text.
fn string(text: &[u8], out: &mut Vec<u8>) {
    if text.len() < 127 {
        out.push(text.len() as u8);
    } else {
        let mut rest = text.len() - 127;
        out.push(127);
        while rest >= 128 {
            out.push((rest % 128 + 128) as u8);
            rest /= 128;
        }
        out.push(rest as u8);
    }
    out.extend_from_slice(text);
}

/// A field as a literal; `first` is 0x40 when the table is to keep it.
fn literal(first: u8, name: &str, value: &str, out: &mut Vec<u8>) {
    out.push(first);
    string(name.as_bytes(), out);
    string(value.as_bytes(), out);
}

/// `GET` of a path, by numbers of the static table: the attacker's bytes are few.
fn pseudo(path: &str) -> Vec<u8> {
    let mut block = vec![0x82, 0x86, 0x04];
    string(path.as_bytes(), &mut block);
    block.push(0x01);
    string(b"a", &mut block);
    block
}

/// One field in the table, said again `times` times by a byte on each of so many streams.
fn bomb(value: usize, times: usize, streams: u32) -> Vec<u8> {
    let mut all = PREFACE.to_vec();
    let mut opening = pseudo("/");
    literal(0x40, "x", &"y".repeat(value), &mut opening);
    all.extend(frame(1, 5, 1, &opening));
    for n in 1..=streams {
        all.extend(frame(1, 5, 2 * n + 1, &[pseudo("/"), vec![0x80 | 62; times]].concat()));
    }
    all
}

/// Each with how many requests it begins at a time: what costs least comes first, because what is held
/// once is given back late.
fn corpus() -> Vec<(&'static str, u64, Vec<u8>)> {
    let get = "GET / HTTP/1.1\r\nHost: a\r\n";
    let post = "POST / HTTP/1.1\r\nHost: a\r\n";
    let fields = |count: usize| {
        (0..count).fold(String::new(), |mut all, n| {
            write!(all, "x-{n}: {}\r\n", "y".repeat(85)).unwrap();
            all
        })
    };
    let upgrade = "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
                   sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let chunked = "transfer-encoding: chunked\r\n\r\n";
    let mut text = vec![
        ("nothing", String::new()),
        ("a plain request", format!("{get}\r\n")),
        ("one long field", format!("{get}x: {}\r\n\r\n", "y".repeat(8_000))),
        ("an unfinished field", format!("{get}x: {}", "y".repeat(8_000))),
        ("a long target", format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(8_000))),
        ("a path of dots", format!("GET {} HTTP/1.1\r\nHost: a\r\n\r\n", "/a/..".repeat(1_600))),
        ("a path of slashes", format!("GET {} HTTP/1.1\r\nHost: a\r\n\r\n", "/".repeat(8_000))),
        ("a hundred fields", format!("{get}{}\r\n", fields(98))),
        ("three hundred fields", format!("{get}{}\r\n", "x: y\r\n".repeat(300))),
        ("two thousand fields", format!("{get}{}\r\n", "x:\r\n".repeat(2_000))),
        ("an unfinished section", format!("{get}{}", fields(98))),
        ("a chain", format!("{get}x-forwarded-for: {}\r\n\r\n", "1.1.1.1,".repeat(990))),
        ("tokens of Connection", format!("{get}connection: {}\r\n\r\n", "x-y,".repeat(1_990))),
        (
            "codings that are asked for",
            format!("{get}accept-encoding: {}\r\n\r\n", "br,".repeat(2_600)),
        ),
        ("ranges", format!("{get}range: bytes={}0-\r\n\r\n", "0-,".repeat(2_600))),
        ("cookies", format!("{get}cookie: {}\r\n\r\n", "a=b; ".repeat(1_590))),
        ("a password", format!("{get}authorization: Basic {}\r\n\r\n", "eHg6".repeat(1_990))),
        ("two hundred requests", format!("{get}\r\n").repeat(379)),
        ("two hundred large answers", "GET /large HTTP/1.1\r\nHost: a\r\n\r\n".repeat(300)),
        ("a large answer that is not read", "GET /large HTTP/1.1\r\nHost: a\r\n\r\n".into()),
        (
            "a body that does not come",
            format!("{post}content-length: 9223372036854775807\r\n\r\nx"),
        ),
        ("a chunk that does not come", format!("{post}{chunked}ffffffffffffffff\r\nx")),
        ("tiny chunks", format!("{post}{chunked}{}", "1\r\nx\r\n".repeat(1_650))),
        ("an endless extension", format!("{post}{chunked}1;{}", "x".repeat(9_000))),
        ("extensions", format!("{post}{chunked}{}", "1;abcdef\r\nx\r\n".repeat(700))),
        ("trailers", format!("{post}{chunked}0\r\n{}", fields(95))),
        (
            "an expectation",
            format!("{post}expect: 100-continue\r\ncontent-length: 1000000\r\n\r\n"),
        ),
        ("an upgrade", format!("{get}{upgrade}\r\n")),
        ("bytes behind an upgrade", format!("{get}{upgrade}\r\n{}", "z".repeat(9_000))),
        ("empty lines", "\r\n".repeat(5_000)),
        ("no protocol", "\0".repeat(10_000)),
    ];
    text.push(("a preface alone", String::from_utf8_lossy(&PREFACE[..24]).into_owned()));
    let mut all: Vec<_> =
        text.into_iter().map(|(name, text)| (name, 1, text.into_bytes())).collect();
    let h2 = |frames: Vec<u8>| [PREFACE, &frames].concat();
    let mut large = pseudo("/");
    literal(0, "x", &"y".repeat(8_000), &mut large);
    let mut crumbs = pseudo("/");
    literal(0x40, "cookie", "a=b", &mut crumbs);
    crumbs.extend([0x80 | 62; 9_000]);
    let many = |path: &str| (0..100).flat_map(|n| frame(1, 5, 2 * n + 1, &pseudo(path))).collect();
    let empty = frame(9, 0, 1, &[]).repeat(900);
    all.extend([
        ("a large head by HTTP/2", 1, h2(frame(1, 5, 1, &large))),
        ("an unfinished block", 1, h2(frame(1, 1, 1, &large))),
        ("crumbs by the thousand", 1, h2(frame(1, 5, 1, &crumbs))),
        ("empty continuations", 1, h2([frame(1, 1, 1, &pseudo("/")), empty].concat())),
        ("pings", 1, h2(frame(6, 0, 0, &[0; 8]).repeat(590))),
        ("settings", 1, h2(frame(4, 0, 0, &[0, 4, 0, 0, 0, 1]).repeat(650))),
        ("unknown frames", 1, h2(frame(0xbe, 0, 0, &[0; 9_000]))),
        ("an HPACK bomb", 2, bomb(3_900, 5_000, 1)),
        ("small fields on ten streams", 11, bomb(1, 900, 10)),
        ("an HPACK bomb on a hundred streams", 100, bomb(3_900, 7, 99)),
        ("a hundred streams", 100, h2(many("/"))),
        ("a hundred large answers that are not read", 100, h2(many("/large"))),
    ]);
    all
}

/// An instance that answers at once, `/large` with 4 MiB, and grants upgrades.
fn origin() -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::Builder::new()
                .stack_size(128 * 1024)
                .spawn(move || serve(stream))
                .unwrap();
        }
    });
    address
}

fn serve(mut stream: TcpStream) {
    let (mut buffer, mut filled) = (vec![0; 64 * 1024], 0);
    while let Ok(read @ 1..) = stream.read(&mut buffer[filled..]) {
        filled += read;
        let Some(end) = buffer[..filled].windows(4).position(|end| end == b"\r\n\r\n") else {
            continue;
        };
        let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
        // Nothing of these requests has a body that ends: what follows is awaited and thrown away.
        buffer.copy_within(end + 4..filled, 0);
        filled -= end + 4;
        let answered = if head.contains("upgrade: websocket") {
            stream.write_all(b"HTTP/1.1 101 S\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n")
        } else if head.contains("transfer-encoding") || head.contains("content-length") {
            Ok(())
        } else if head.starts_with("GET /large ") {
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", 4 << 20);
            stream
                .write_all(head.as_bytes())
                .and_then(|()| (0..64).try_for_each(|_| stream.write_all(&[b'x'; 64 * 1024])))
        } else {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        };
        if answered.is_err() {
            return;
        }
        if filled == buffer.len() {
            filled = 0;
        }
    }
}

/// Bytes of the process's memory by the kernel's `name`.
fn memory(pid: i32, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim_start_matches(':').trim().split(' ').next().unwrap().parse::<u64>().unwrap() * 1024
}

/// What each of a hundred such connections has the daemon hold at most, beyond what it held when it
/// was new: what it kept of those before counts as well.
fn cost(daemon: &Daemon, pid: i32, new: u64, request: &[u8]) -> u64 {
    // The mark is set back to what is held now.
    std::fs::write(format!("/proc/{pid}/clear_refs"), "5").unwrap();
    let mut held = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut stream = TcpStream::connect(daemon.http).unwrap();
        stream.set_write_timeout(Some(Duration::from_secs(5))).unwrap();
        // Whoever is refused is not read to the end.
        let _ = stream.write_all(request);
        held.push(stream);
    }
    // Until it takes no more.
    let (mut most, mut since, began) = (0, Instant::now(), Instant::now());
    while since.elapsed() < Duration::from_millis(300) && began.elapsed() < PATIENCE {
        let now = memory(pid, "VmHWM");
        if now > most {
            (most, since) = (now, Instant::now());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    drop(held);
    most.saturating_sub(new) / CONNECTIONS
}

#[test]
fn a_small_request_costs_no_more_than_a_mebibyte() {
    let daemon = app::over(&[origin()], "retries = 0\n");
    let pid = daemon.pid().unwrap().as_raw_nonzero().get();
    let (new, mut worst) = (memory(pid, "VmRSS"), Vec::new());
    for (name, count, request) in corpus() {
        assert!(request.len() <= MOST, "{name} has {} bytes", request.len());
        let each = cost(&daemon, pid, new, &request);
        println!("{name}, {} bytes: {} KiB", request.len(), each / 1024);
        if each > LIMIT.max(count * LIMIT_OF_MANY) {
            worst.push(format!("{name}: {} KiB", each / 1024));
        }
    }
    assert!(worst.is_empty(), "these cost more than a mebibyte: {worst:?}");
    // And it still serves.
    assert_eq!(daemon.get("/").unwrap().status, 200);
}
