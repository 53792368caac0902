//! The origin: answers from memory, by path, and swallows what is posted.

use std::io::Write as _;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::Result;

/// Bytes of the small body: a small JSON document.
const SMALL: usize = 96;

/// Listens on two ports, says which, and serves until it is ended.
pub fn main() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    runtime.block_on(async {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let (stable, canary) = (
            TcpListener::bind(any).await.map_err(fail)?,
            TcpListener::bind(any).await.map_err(fail)?,
        );
        let ports = [&stable, &canary].map(|listener| listener.local_addr().map(|a| a.port()));
        let [Ok(first), Ok(second)] = ports else { return Err("a port without number".into()) };
        println!("{first} {second}");
        std::io::stdout().flush().map_err(fail)?;
        let answers: &'static Answers = Box::leak(Box::new(Answers::new()));
        tokio::join!(accept(stable, answers), accept(canary, answers));
        Ok(())
    })
}

/// Serves on one port of all addresses, on the load's cores, as an instance that a runtime launched.
pub fn instance(mut arguments: impl Iterator<Item = String>) -> Result<()> {
    let port = arguments.next().and_then(|port| port.parse().ok());
    let port: u16 = port.ok_or("--instance needs a port")?;
    let count = std::thread::available_parallelism().map_or(1, usize::from);
    let mut cores = rustix::thread::CpuSet::new();
    (1.min(count - 1)..count).for_each(|core| cores.set(core));
    // Where it may not choose, it runs where it is put.
    let _ = rustix::thread::sched_setaffinity(None, &cores);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    runtime.block_on(async {
        let listener = TcpListener::bind(("0.0.0.0", port)).await.map_err(fail)?;
        accept(listener, Box::leak(Box::new(Answers::new()))).await;
        Ok(())
    })
}

#[expect(clippy::needless_pass_by_value, reason = "as `map_err` hands it over")]
fn fail(error: std::io::Error) -> String {
    format!("the origin cannot listen: {error}")
}

/// The answers, head and body in one piece.
struct Answers {
    small: Vec<u8>,
    medium: Vec<u8>,
    large: Vec<u8>,
}

impl Answers {
    fn new() -> Self {
        let answer = |bytes: usize| {
            let mut text = format!(
                "HTTP/1.1 200 OK\r\nserver: origin\r\ndate: Thu, 01 Jan 2026 00:00:00 GMT\r\n\
                 content-type: application/json\r\ncache-control: no-store\r\n\
                 content-length: {bytes}\r\n\r\n"
            )
            .into_bytes();
            text.resize(text.len() + bytes, b'x');
            text
        };
        Self { small: answer(SMALL), medium: answer(64 * 1024), large: answer(1024 * 1024) }
    }

    fn to(&self, head: &[u8]) -> &[u8] {
        let path = head.split(|byte| *byte == b' ').nth(1).unwrap_or_default();
        match path {
            b"/64k" => &self.medium,
            b"/1m" => &self.large,
            _ => &self.small,
        }
    }
}

async fn accept(listener: TcpListener, answers: &'static Answers) {
    loop {
        if let Ok((stream, _)) = listener.accept().await {
            let _ = stream.set_nodelay(true);
            tokio::spawn(serve(stream, answers));
        }
    }
}

async fn serve(mut stream: TcpStream, answers: &'static Answers) {
    let mut buffer = vec![0; 64 * 1024];
    let mut filled = 0;
    loop {
        let end = loop {
            if let Some(end) = end_of_head(&buffer[..filled]) {
                break end;
            }
            match stream.read(&mut buffer[filled..]).await {
                Ok(read @ 1..) => filled += read,
                _ => return,
            }
        };
        let mut body = length(&buffer[..end]);
        let answer = answers.to(&buffer[..end]);
        // What is here of the body, and what is behind it.
        let here = body.min(filled - end);
        buffer.copy_within(end + here..filled, 0);
        filled -= end + here;
        body -= here;
        while body > 0 {
            let room = buffer.len().min(body);
            match stream.read(&mut buffer[..room]).await {
                Ok(read @ 1..) => body -= read,
                _ => return,
            }
        }
        if stream.write_all(answer).await.is_err() {
            return;
        }
    }
}

fn end_of_head(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4)
}

/// The announced length of a message's body.
pub fn length(head: &[u8]) -> usize {
    let field = b"content-length:";
    head.split(|byte| *byte == b'\n')
        .find(|line| line.len() > field.len() && line[..field.len()].eq_ignore_ascii_case(field))
        .and_then(|line| std::str::from_utf8(&line[field.len()..]).ok()?.trim().parse().ok())
        .unwrap_or(0)
}
