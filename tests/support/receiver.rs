//! Programs that are told something: an HTTP server that keeps what it is sent and answers as it is
//! told to, and a mail server.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::Value;

/// What came.
#[derive(Debug, Clone)]
pub struct Heard {
    pub path: String,
    pub fields: Vec<(String, String)>,
    pub body: String,
}

impl Heard {
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str())
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// An HTTP server.
#[derive(Debug, Clone)]
pub struct Receiver {
    pub address: SocketAddr,
    heard: Arc<Mutex<Vec<Heard>>>,
    /// What is answered.
    always: Arc<Mutex<u16>>,
}

impl Receiver {
    pub fn begin() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let receiver = Self {
            address: listener.local_addr().unwrap(),
            heard: Arc::default(),
            always: Arc::new(Mutex::new(200)),
        };
        let this = receiver.clone();
        // It ends with the process.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let this = this.clone();
                std::thread::spawn(move || this.converse(stream));
            }
        });
        receiver
    }

    fn converse(&self, stream: TcpStream) -> Option<()> {
        stream.set_read_timeout(Some(Duration::from_secs(60))).ok()?;
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let path = line.split(' ').nth(1)?.to_owned();
        let mut fields = Vec::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).ok()?;
            let Some((name, value)) = line.trim_end().split_once(": ") else { break };
            fields.push((name.to_ascii_lowercase(), value.to_owned()));
        }
        let length = fields.iter().find(|(name, _)| name == "content-length");
        let length: usize = length.and_then(|(_, value)| value.parse().ok()).unwrap_or(0);
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        let body = String::from_utf8(body).ok()?;
        self.heard.lock().unwrap().push(Heard { path, fields, body });
        let status = *self.always.lock().unwrap();
        let answer =
            format!("HTTP/1.1 {status} So\r\nContent-Length: 2\r\nConnection: close\r\n\r\nso");
        reader.get_mut().write_all(answer.as_bytes()).ok()
    }

    /// Answers this from now on.
    pub fn always(&self, status: u16) {
        *self.always.lock().unwrap() = status;
    }

    pub fn heard(&self) -> Vec<Heard> {
        self.heard.lock().unwrap().clone()
    }

    /// What came with a member of its JSON that is this.
    pub fn with(&self, member: &str, value: &str) -> Vec<Heard> {
        let heard = self.heard().into_iter();
        heard.filter(|heard| heard.json()[member] == value).collect()
    }
}

/// A mail server that speaks STARTTLS and takes one name and password.
#[derive(Debug, Clone)]
pub struct Mailbox {
    pub address: SocketAddr,
    /// The authority of its certificate, PEM.
    pub ca: String,
    mails: Arc<Mutex<Vec<String>>>,
}

impl Mailbox {
    pub fn begin() -> Self {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let key = rustls::pki_types::PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key.into())
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mailbox = Self {
            address: listener.local_addr().unwrap(),
            ca: made.cert.pem(),
            mails: Arc::default(),
        };
        let (this, config) = (mailbox.clone(), Arc::new(config));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (this, config) = (this.clone(), Arc::clone(&config));
                std::thread::spawn(move || this.converse(stream, config));
            }
        });
        mailbox
    }

    /// Mails that were taken, as they came.
    pub fn mails(&self) -> Vec<String> {
        self.mails.lock().unwrap().clone()
    }

    fn converse(&self, mut stream: TcpStream, config: Arc<ServerConfig>) -> std::io::Result<()> {
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        stream.write_all(b"220 localhost\r\n")?;
        // In cleartext only STARTTLS is allowed.
        loop {
            let mut line = Vec::new();
            let mut byte = [0];
            while !line.ends_with(b"\n") {
                stream.read_exact(&mut byte)?;
                line.push(byte[0]);
            }
            if line.starts_with(b"EHLO") {
                stream.write_all(b"250-localhost\r\n250 STARTTLS\r\n")?;
            } else if line.starts_with(b"STARTTLS") {
                stream.write_all(b"220 go\r\n")?;
                break;
            } else {
                stream.write_all(b"530 first STARTTLS\r\n")?;
            }
        }
        let connection = ServerConnection::new(config).map_err(std::io::Error::other)?;
        let mut reader = BufReader::new(StreamOwned::new(connection, stream));
        let mut known = false;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            let answer: &[u8] = match line.split([' ', '\r']).next().unwrap_or_default() {
                "EHLO" => b"250-localhost\r\n250 AUTH PLAIN\r\n",
                // The name `story` and the password `a-secret-of-mail`.
                "AUTH" if line.trim_end().ends_with("AHN0b3J5AGEtc2VjcmV0LW9mLW1haWw=") => {
                    known = true;
                    b"235 welcome\r\n"
                }
                "AUTH" => b"535 who are you\r\n",
                _ if !known => b"530 say who you are\r\n",
                "DATA" => {
                    reader.get_mut().write_all(b"354 say\r\n")?;
                    let mut mail = String::new();
                    while !mail.ends_with("\r\n.\r\n") {
                        reader.read_line(&mut mail)?;
                    }
                    self.mails.lock().unwrap().push(mail);
                    b"250 taken\r\n"
                }
                "QUIT" => b"221 bye\r\n",
                _ => b"250 so\r\n",
            };
            reader.get_mut().write_all(answer)?;
        }
    }
}
