//! A client of HTTP/1.1 that shows everything: one connection, one request at a time.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// An answer.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub fields: Vec<(String, String)>,
    pub body: String,
}

impl Answer {
    /// The first field of this name, which is written in small letters.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str())
    }
}

/// A connection.
#[derive(Debug)]
pub struct Connection<S>(BufReader<S>);

impl Connection<TcpStream> {
    pub fn open(to: SocketAddr, patience: Duration) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&to, patience)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(patience))?;
        Ok(Self(BufReader::new(stream)))
    }
}

impl Connection<UnixStream> {
    pub fn unix(to: &Path, patience: Duration) -> io::Result<Self> {
        let stream = UnixStream::connect(to)?;
        stream.set_read_timeout(Some(patience))?;
        Ok(Self(BufReader::new(stream)))
    }
}

impl<S: Read + Write> Connection<S> {
    /// Sends a request and reads its answer; whether the connection may be used again.
    pub fn ask(
        &mut self,
        method: &str,
        path: &str,
        fields: &[(&str, &str)],
        body: &str,
    ) -> io::Result<(Answer, bool)> {
        let mut head = format!("{method} {path} HTTP/1.1\r\n");
        if !fields.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            head.push_str("host: story\r\n");
        }
        for (name, value) in fields {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if !body.is_empty() {
            head.push_str(&format!("content-length: {}\r\n", body.len()));
        }
        head.push_str("\r\n");
        head.push_str(body);
        self.0.get_mut().write_all(head.as_bytes())?;
        let first = self.line()?;
        let status = first.split(' ').nth(1).and_then(|word| word.parse().ok());
        let status = status.ok_or_else(|| io::Error::other(format!("no answer: {first:?}")))?;
        let mut fields = Vec::new();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                break;
            }
            if let Some((name, value)) = line.split_once(':') {
                fields.push((name.to_ascii_lowercase(), value.trim().to_owned()));
            }
        }
        let mut answer = Answer { status, fields, body: String::new() };
        let mut body = Vec::new();
        let mut again = answer.field("connection") != Some("close");
        if let Some(length) = answer.field("content-length") {
            let length = length.parse().map_err(io::Error::other)?;
            body.resize(length, 0);
            self.0.read_exact(&mut body)?;
        } else if answer.field("transfer-encoding") == Some("chunked") {
            loop {
                let size = self.line()?;
                let size = usize::from_str_radix(&size, 16).map_err(io::Error::other)?;
                let before = body.len();
                body.resize(before + size, 0);
                self.0.read_exact(&mut body[before..])?;
                self.line()?;
                if size == 0 {
                    break;
                }
            }
        } else if !matches!(status, 204 | 304) {
            self.0.read_to_end(&mut body)?;
            again = false;
        }
        answer.body = String::from_utf8_lossy(&body).into_owned();
        Ok((answer, again))
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.0.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim_end().to_owned())
    }
}

/// One request on a connection of its own.
pub fn get(to: SocketAddr, path: &str, fields: &[(&str, &str)]) -> io::Result<Answer> {
    let mut connection = Connection::open(to, Duration::from_secs(20))?;
    connection.ask("GET", path, fields, "").map(|(answer, _)| answer)
}
