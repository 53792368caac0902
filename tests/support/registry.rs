//! A registry of container images on loopback: as much of the OCI distribution protocol as a pull asks
//! for. Engines take loopback for a registry without TLS.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::json;

const MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

type Contents = Arc<Mutex<HashMap<String, Vec<u8>>>>;

/// A registry; serves until the test process ends.
pub struct Registry {
    pub address: SocketAddr,
    contents: Contents,
}

impl Registry {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let contents = Contents::default();
        let serves = Arc::clone(&contents);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let contents = Arc::clone(&serves);
                std::thread::spawn(move || answer(stream, &contents));
            }
        });
        Self { address, contents }
    }

    /// The name under which an engine pulls.
    pub fn name(&self, repository: &str) -> String {
        format!("{}/{repository}", self.address)
    }

    /// Puts an image of one layer under a tag, in place of what was there; its digest.
    pub fn put(&self, repository: &str, tag: &str, root: &[u8], command: &[&str]) -> String {
        let layer = digest(root);
        let config = json!({
            "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
            "os": "linux",
            "config": {"Cmd": command, "Env": ["PATH=/bin"]},
            "rootfs": {"type": "layers", "diff_ids": [layer]},
        });
        let config = serde_json::to_vec(&config).unwrap();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {
                "mediaType": "application/vnd.docker.container.image.v1+json",
                "size": config.len(), "digest": digest(&config),
            },
            "layers": [{
                "mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip",
                "size": root.len(), "digest": layer,
            }],
        });
        let manifest = serde_json::to_vec(&manifest).unwrap();
        let name = digest(&manifest);
        let mut contents = self.contents.lock().unwrap();
        contents.insert(format!("/v2/{repository}/blobs/{layer}"), root.to_vec());
        contents.insert(format!("/v2/{repository}/blobs/{}", digest(&config)), config);
        contents.insert(format!("/v2/{repository}/manifests/{name}"), manifest.clone());
        contents.insert(format!("/v2/{repository}/manifests/{tag}"), manifest);
        name
    }

    /// Forgets everything.
    pub fn clear(&self) {
        self.contents.lock().unwrap().clear();
    }
}

impl Drop for Registry {
    /// What was pulled from here is of no use to anybody else.
    fn drop(&mut self) {
        if let Some(host) = super::engine::engine() {
            super::engine::remove_images(&host, &format!("{}/", self.address));
        }
    }
}

fn digest(bytes: &[u8]) -> String {
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    let mut text = "sha256:".to_owned();
    for byte in hash.as_ref() {
        write!(text, "{byte:02x}").unwrap();
    }
    text
}

fn answer(stream: TcpStream, contents: &Contents) {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    if reader.read_line(&mut line).is_err() {
        return;
    }
    let mut words = line.split_whitespace();
    let (method, path) = (words.next().unwrap_or(""), words.next().unwrap_or("").to_owned());
    let is_head = method == "HEAD";
    let mut field = String::new();
    while reader.read_line(&mut field).is_ok_and(|read| read > 2) {
        field.clear();
    }
    let found = match path.as_str() {
        "/v2/" => Some(b"{}".to_vec()),
        _ => contents.lock().unwrap().get(&path).cloned(),
    };
    let (status, body) = found.map_or(("404 Not Found", b"{}".to_vec()), |body| ("200 OK", body));
    let kind = if path.contains("/manifests/") { MANIFEST } else { "application/octet-stream" };
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\
         docker-content-digest: {}\r\nconnection: close\r\n\r\n",
        body.len(),
        digest(&body),
    );
    let stream = reader.get_mut();
    let _gone = stream.write_all(head.as_bytes());
    if !is_head {
        let _gone = stream.write_all(&body);
    }
}
