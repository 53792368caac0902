//! Files that an app sends by naming them.

use std::sync::{Arc, Mutex};

use super::gate::policy;
use super::protocols::{Http2, fetch, http2};
use super::support::*;
use crate::analysis::scorecard::Row;
use crate::model::weight::Side;

struct Site {
    rig: Rig,
    /// What the app was last asked.
    asked: Arc<Mutex<String>>,
    dir: tempfile::TempDir,
}

/// What the app answers: what stands behind `say=` in the query, `~` for the ends of lines.
fn said(head: &str) -> Vec<u8> {
    let target = head.split(' ').nth(1).expect("a target");
    let (_, lines) = target.split_once("say=").unwrap_or_default();
    let (status, fields) = lines.split_once('~').unwrap_or(("200", ""));
    let fields: String =
        fields.split('~').map(|line| format!("{}\r\n", line.replace('+', " "))).collect();
    let fields = fields.trim_end();
    let body = if fields.contains("content-length") { "" } else { "content-length: 0\r\n" };
    format!("HTTP/1.1 {status} X\r\n{body}{fields}\r\n\r\n").into_bytes()
}

impl Site {
    async fn new(lines: &str) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let root = dir.path().join("files");
        std::fs::create_dir_all(root.join("sub")).expect("a directory");
        let write =
            |name: &str, text: &[u8]| std::fs::write(root.join(name), text).expect("a file");
        write("a.pdf", b"0123456789");
        write("sub/ü b.txt", b"spaced");
        write("large.bin", &large());
        std::fs::write(dir.path().join("secret"), "secret").expect("a file");
        std::os::unix::fs::symlink("../secret", root.join("link")).expect("a link");
        std::os::unix::fs::symlink("a.pdf", root.join("near")).expect("a link");
        let asked = Arc::new(Mutex::new(String::new()));
        let log = Arc::clone(&asked);
        let address = answering(move |head, _| {
            *log.lock().expect("no panic") = head.to_owned();
            said(head)
        });
        let rig = Rig::new(side(1, &[endpoint(address.await)]));
        let root = root.display();
        let text = format!(
            "send_file = {{ \"/protected\" = \"{root}\", \"/app/files\" = \"{root}\" }}\n{lines}"
        );
        rig.publish(|entry| entry.policy = policy(&text));
        Self { rig, asked, dir }
    }

    async fn ask(&self, method: &str, say: &str, fields: &str) -> (String, String) {
        let mut client = Client::new(self.rig.http()).await;
        client.send(format!("{method} /x?say={say} HTTP/1.1\r\nhost: a\r\n{fields}\r\n")).await;
        let answer = if method == "HEAD" {
            (client.read_head().await, String::new())
        } else {
            client.read().await
        };
        for name in ["x-accel-redirect", "x-sendfile"] {
            assert_eq!(field(&answer.0, name), None, "{say}");
        }
        answer
    }
}

fn large() -> Vec<u8> {
    (0..300_000_u32).map(|n| b'a' + (n % 23) as u8).collect()
}

const PDF: &str = "200~x-accel-redirect:+/protected/a.pdf";

#[tokio::test]
async fn a_file_that_the_app_names_is_sent_in_place_of_its_answer() {
    let site = Site::new("").await;
    let more =
        "~set-cookie:+a=1~cache-control:+private~content-disposition:+attachment~etag:+x~x-own:+1";
    let (head, body) = site.ask("GET", &format!("{PDF}{more}"), "").await;
    assert_eq!((status(&head), body.as_str()), (200, "0123456789"));
    for (name, value) in [
        ("content-type", "application/pdf"),
        ("content-length", "10"),
        ("set-cookie", "a=1"),
        ("cache-control", "private"),
        ("content-disposition", "attachment"),
        ("x-own", "1"),
        ("accept-ranges", "bytes"),
    ] {
        assert_eq!(field(&head, name), Some(value), "{head}");
    }
    assert!(field(&head, "x-request-id").is_some() && field(&head, "last-modified").is_some());
    let tag = field(&head, "etag").expect("a tag").to_owned();
    assert_ne!(tag, "x", "the file's own");
    // The app's own type stands; names may have escapes, or be paths.
    let say = "200~content-type:+text/x~x-accel-redirect:+/protected/sub/%25C3%25BC%2520b.txt";
    let (head, body) = site.ask("GET", &say.replace("%25", "%"), "").await;
    assert_eq!((field(&head, "content-type"), body.as_str()), (Some("text/x"), "spaced"));
    assert_eq!(site.ask("GET", "200~x-sendfile:+/app/files/near", "").await.1, "0123456789");
    // Parts, conditions, HEAD; a POST may be answered with a file, too, which is then all of it.
    let (head, body) = site.ask("GET", PDF, "range: bytes=2-4\r\n").await;
    assert_eq!((status(&head), body.as_str()), (206, "234"));
    assert_eq!(field(&head, "content-range"), Some("bytes 2-4/10"));
    let same = format!("if-none-match: {tag}\r\n");
    let mut client = Client::new(site.rig.http()).await;
    client
        .send(format!("GET /x?say={PDF}~content-type:+text/x HTTP/1.1\r\nhost: a\r\n{same}\r\n"))
        .await;
    let head = client.read_head().await;
    assert_eq!((status(&head), field(&head, "etag")), (304, Some(&*tag)));
    assert_eq!((field(&head, "content-type"), field(&head, "content-length")), (None, None));
    assert_eq!(client.get("/y").await.1, "", "the connection goes on");
    let (head, _) = site.ask("GET", PDF, "range: bytes=10-\r\n").await;
    assert_eq!((status(&head), field(&head, "content-range")), (416, Some("bytes */10")));
    let (head, _) = site.ask("HEAD", PDF, "").await;
    assert_eq!((status(&head), field(&head, "content-length")), (200, Some("10")));
    let post = format!("range: bytes=0-1\r\n{same}content-length: 0\r\n");
    let (head, body) = site.ask("POST", PDF, &post).await;
    assert_eq!((status(&head), body.as_str()), (200, "0123456789"));
    let (head, body) = site.ask("GET", "200~x-accel-redirect:+/protected/large.bin", "").await;
    assert_eq!(field(&head, "content-length"), Some("300000"));
    assert!(body.into_bytes() == large());
    let mut client: Http2 = http2(site.rig.http()).await;
    let target = "http://a/x?say=200~x-accel-redirect:+/protected/large.bin";
    let request = http::Request::get(target).body(Default::default()).expect("sound");
    let (head, body) = fetch(&mut client, request).await;
    assert!(
        head.status == 200 && body == large() && !head.headers.contains_key("x-accel-redirect")
    );
    // All that the app answered was good.
    assert_eq!(site.rig.rows(Side::Stable, 11).await, [11, 0, 0, 0, 0]);
}

#[tokio::test]
async fn nothing_but_what_was_configured_is_sent_by_name() {
    let site = Site::new("").await;
    let secret = site.dir.path().join("secret").display().to_string();
    for (name, expected) in [
        ("/protected/none", 404),
        ("/protected/sub", 404),
        ("/protected/sub/", 404),
        ("/protected/link", 404),
        ("/protected/../secret", 404),
        ("/protected/%2e%2e/secret", 404),
        ("/protected/..%2fsecret", 404),
        ("/protected/sub/../../secret", 404),
        ("/protected/%00", 404),
        ("/etc/passwd", 502),
        (secret.as_str(), 502),
        ("//etc/passwd", 502),
        ("@app", 502),
    ] {
        for field in ["x-accel-redirect", "x-sendfile", "X-Accel-REDIRECT"] {
            let (head, body) = site.ask("GET", &format!("200~{field}:+{name}"), "").await;
            assert_eq!(status(&head), expected, "{field} {name}");
            assert!(!body.contains("secret") && !body.contains("root:"), "{name}: {body}");
            assert!(field_is_ours(&head), "{head}");
        }
    }
    // The app was asked each time, and answered well: what is missing is not held against it here.
    assert_eq!(site.rig.rows(Side::Stable, 39).await, [39, 0, 0, 0, 0]);
    // An error is the app's own answer, whatever it names besides.
    let (head, body) = site.ask("GET", &PDF.replace("200", "403"), "").await;
    assert_eq!((status(&head), body.as_str()), (403, ""));
    let (head, _) = site.ask("GET", &PDF.replace("200", "302"), "").await;
    assert_eq!(status(&head), 302);
}

fn field_is_ours(head: &str) -> bool {
    field(head, "x-request-id").is_some() && field(head, "content-type").is_some()
}

#[tokio::test]
async fn a_clients_word_about_how_an_app_sends_files_goes_no_further() {
    let lines = "request_headers.set = { X-Sendfile-Type = \"X-Accel-Redirect\" }\n\
        [[service.web.route]]\npath = \"/none\"\nsend_file = {}\n";
    let site = Site::new(lines).await;
    let theirs = "x-sendfile-type: X-Sendfile\r\nx-accel-mapping: /=/protected/\r\n";
    site.ask("GET", PDF, theirs).await;
    let asked = site.asked.lock().expect("no panic").clone();
    assert_eq!(field(&asked, "x-sendfile-type"), Some("X-Accel-Redirect"));
    assert_eq!(field(&asked, "x-accel-mapping"), None);
    // Where it is off, nobody looks: neither at what is said nor at what is answered.
    let mut client = Client::new(site.rig.http()).await;
    client.send(format!("GET /none?say={PDF} HTTP/1.1\r\nhost: a\r\n{theirs}\r\n")).await;
    let (head, body) = client.read().await;
    assert_eq!((field(&head, "x-accel-redirect"), body.as_str()), (Some("/protected/a.pdf"), ""));
    assert!(site.asked.lock().expect("no panic").contains("x-accel-mapping"));
}

#[tokio::test]
async fn what_the_app_says_besides_is_read_past() {
    let body = "x".repeat(200_000);
    let long = body.len();
    let answers = answering(move |head, _| {
        let text = if head.contains("/long") { body.as_str() } else { "ignored" };
        format!(
            "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nx-accel-redirect: /protected/a\r\n\r\n{text}",
            text.len()
        )
        .into_bytes()
    });
    let rig = Rig::new(side(1, &[endpoint(answers.await)]));
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("a"), "file").expect("a file");
    let text = format!("send_file = {{ \"/protected\" = \"{}\" }}\n", dir.path().display());
    rig.publish(|entry| entry.policy = policy(&text));
    let mut client = Client::new(rig.http()).await;
    for _ in 0..20 {
        assert_eq!(client.get("/short").await.1, "file");
    }
    assert_eq!(rig.rows(Side::Stable, 20).await, [20, 0, 0, 0, 0]);
    assert!(long > 64 * 1024);
    assert_eq!(client.get("/long").await.1, "file", "nobody waits for it");
    // It is broken off, by us.
    until(|| rig.count(Side::Stable, Row::Abandoned) == 1).await;
}
