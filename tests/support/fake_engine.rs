//! An engine that misbehaves: HTTP over a unix socket, answered by hand.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;
use tokio::task::JoinHandle;

/// What is done with a request.
#[derive(Debug, Clone)]
pub enum Act {
    /// Answer with this status and JSON body.
    Answer(u16, String),
    /// Never answer.
    Hang,
    /// Announce more than is sent, and close.
    BreakOff,
}

/// The engine; gone when dropped.
#[derive(Debug)]
pub struct FakeEngine {
    _home: TempDir,
    /// Its socket.
    pub socket: PathBuf,
    asked: Arc<Mutex<Vec<String>>>,
    serving: JoinHandle<()>,
}

impl FakeEngine {
    /// An engine that acts upon the path of each request.
    pub fn start(act: impl Fn(&str) -> Act + Send + Sync + 'static) -> Self {
        let home = tempfile::tempdir().unwrap();
        let socket = home.path().join("docker.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (heard, act) = (Arc::clone(&asked), Arc::new(act));
        let serving = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (heard, act) = (Arc::clone(&heard), Arc::clone(&act));
                tokio::spawn(async move {
                    let mut request = Vec::new();
                    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
                        if stream.read_buf(&mut request).await.unwrap_or(0) == 0 {
                            return;
                        }
                    }
                    let text = String::from_utf8_lossy(&request);
                    let path = text.split(' ').nth(1).unwrap_or_default().to_owned();
                    heard.lock().unwrap().push(path.clone());
                    let answer = match act(&path) {
                        Act::Hang => return std::future::pending().await,
                        Act::Answer(status, body) => format!(
                            "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
                            body.len()
                        ),
                        Act::BreakOff => {
                            "HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n{\"Id\"".to_owned()
                        }
                    };
                    let _gone = stream.write_all(answer.as_bytes()).await;
                });
            }
        });
        Self { _home: home, socket, asked, serving }
    }

    /// An engine of these API versions that acts upon everything else.
    pub fn of_version(
        newest: &'static str,
        oldest: &'static str,
        act: impl Fn(&str) -> Act + Send + Sync + 'static,
    ) -> Self {
        Self::start(move |path| match path {
            "/version" => Act::Answer(
                200,
                format!(r#"{{"ApiVersion":"{newest}","MinAPIVersion":"{oldest}"}}"#),
            ),
            other => act(other),
        })
    }

    /// In the words of `DOCKER_HOST`.
    pub fn url(&self) -> String {
        format!("unix://{}", self.socket.display())
    }

    /// The paths asked for so far.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

impl Drop for FakeEngine {
    fn drop(&mut self) {
        self.serving.abort();
    }
}
