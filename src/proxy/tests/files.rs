//! Files of a directory as answers.

use std::path::Path;

use super::gate::policy;
use super::protocols::{fetch, http2};
use super::support::*;
use crate::telemetry::traffic::Count;

struct Site {
    rig: Rig,
    dir: tempfile::TempDir,
}

impl Site {
    /// A rig whose route for `/assets` has these lines and the files of a directory.
    async fn new(lines: &str) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let root = dir.path().join("public");
        let write = |name: &str, text: &[u8]| {
            let path = root.join(name);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
            std::fs::write(path, text).expect("a file");
        };
        write("index.html", b"<h1>home</h1>");
        write("assets/app.css", b"body { color: red }");
        write("assets/sub/index.html", b"sub");
        write("assets/.env", b"SECRET=1");
        write("assets/a b.txt", b"spaced");
        write("assets/large.bin", &large());
        std::fs::write(dir.path().join("secret"), "secret").expect("a file");
        std::os::unix::fs::symlink("../../secret", root.join("assets/link")).expect("a link");
        std::os::unix::fs::symlink("../..", root.join("assets/upwards")).expect("a link");
        let pipe = root.join("assets/pipe");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &pipe,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR,
            0,
        )
        .expect("a pipe");
        let rig = Rig::new(side(1, &[endpoint(saying("app").await)]));
        let text = format!(
            "[[service.web.route]]\npath = \"/assets\"\nfiles = {:?}\n{lines}",
            root.display().to_string()
        );
        rig.publish(|entry| entry.policy = policy(&text));
        Self { rig, dir }
    }

    async fn ask(&self, method: &str, target: &str, fields: &str) -> (String, String) {
        let mut client = Client::new(self.rig.http()).await;
        client.send(format!("{method} {target} HTTP/1.1\r\nhost: a\r\n{fields}\r\n")).await;
        if method == "HEAD" {
            (client.read_head().await, String::new())
        } else {
            client.read().await
        }
    }
}

fn large() -> Vec<u8> {
    (0..300_000_u32).map(|n| b'a' + (n % 23) as u8).collect()
}

#[tokio::test]
async fn files_are_answers() {
    let site = Site::new("").await;
    let (head, body) = site.ask("GET", "/assets/app.css", "").await;
    assert_eq!((status(&head), body.as_str()), (200, "body { color: red }"));
    assert_eq!(field(&head, "content-type"), Some("text/css; charset=utf-8"));
    assert_eq!(field(&head, "accept-ranges"), Some("bytes"));
    assert!(field(&head, "x-request-id").is_some());
    let tag = field(&head, "etag").expect("a tag").to_owned();
    let modified = field(&head, "last-modified").expect("a date").to_owned();
    for fields in [
        format!("if-none-match: {tag}\r\n"),
        format!("if-none-match: W/{tag}\r\n"),
        format!("if-modified-since: {modified}\r\n"),
    ] {
        let mut client = Client::new(site.rig.http()).await;
        client.send(format!("GET /assets/app.css HTTP/1.1\r\nhost: a\r\n{fields}\r\n")).await;
        let head = client.read_head().await;
        assert_eq!((status(&head), field(&head, "etag")), (304, Some(&*tag)), "{fields}");
        // The connection goes on: there was no body.
        assert_eq!(client.get("/x").await.1, "app");
    }
    let (head, _) = site.ask("HEAD", "/assets/app.css", "").await;
    assert_eq!((status(&head), field(&head, "content-length")), (200, Some("19")));
    assert_eq!(site.ask("GET", "/assets/a%20b.txt", "").await.1, "spaced");
    assert_eq!(site.ask("GET", "/assets/sub/", "").await.1, "sub");
    let (head, _) = site.ask("GET", "//assets//sub?x=y", "").await;
    assert_eq!((status(&head), field(&head, "location")), (308, Some("/assets/sub/?x=y")));
    let (head, _) = site.ask("POST", "/assets/app.css", "content-length: 0\r\n").await;
    assert_eq!((status(&head), field(&head, "allow")), (405, Some("GET, HEAD")));
    // The rest is the app's.
    assert_eq!(site.ask("GET", "/other", "").await.1, "app");
    // Changed, it is another version.
    std::fs::write(site.dir.path().join("public/assets/app.css"), "new").expect("a file");
    let (head, body) =
        site.ask("GET", "/assets/app.css", &format!("if-none-match: {tag}\r\n")).await;
    assert_eq!((status(&head), body.as_str()), (200, "new"));
}

#[tokio::test]
async fn nothing_else_is_shown() {
    let site = Site::new("").await;
    // First by threads that may wait, then from what the kernel has in memory: that begins when a device
    // is known.
    hides(&site).await;
    assert_eq!(site.ask("GET", "/assets/app.css", "").await.1, "body { color: red }");
    hides(&site).await;
}

async fn hides(site: &Site) {
    for target in [
        "/assets/../../secret",
        "/assets/%2e%2e/%2e%2e/secret",
        "/assets/..%2f..%2fsecret",
        "/assets/link",
        "/assets/.env",
        "/assets/none",
        "/assets/app.css/",
        "/assets/app.css/x",
        "/assets/%00",
        "/assets/app.css%00.html",
        "/assets/%2e%2e%5c%2e%2e%5csecret",
        "/assets/..%5c..%5csecret",
        "/assets/%252e%252e/secret",
        "/assets/%c0%ae%c0%ae/%c0%ae%c0%ae/secret",
        "/assets/sub/..;/..;/..;/secret",
        "/assets//..//..//secret",
        "/assets/%2fetc%2fpasswd",
        "/assets/.%65nv",
        "/assets/%2eenv",
        "/assets/pipe",
        "/assets/upwards/secret",
        "/x/..%2fassets/link",
    ] {
        let (head, body) = site.ask("GET", target, "").await;
        assert!(matches!(status(&head), 400 | 404) || body == "app", "{target}: {head}");
        assert!(!body.contains("ecret") && !body.contains("SECRET"), "{target}: {body}");
    }
}

#[tokio::test]
async fn large_files_come_in_parts_and_piece_by_piece() {
    let site = Site::new("").await;
    let (head, body) = site.ask("GET", "/assets/large.bin", "").await;
    assert_eq!(field(&head, "content-length"), Some("300000"));
    assert_eq!(field(&head, "content-type"), Some("application/octet-stream"));
    assert!(body.into_bytes() == large());
    let mut client = http2(site.rig.http()).await;
    let request = http::Request::get("http://a/assets/large.bin");
    let (head, body) = fetch(&mut client, request.body(Default::default()).expect("sound")).await;
    assert_eq!(head.status, 200);
    assert!(body == large());
    for (range, from, to) in
        [("0-9", 0, 10), ("100000-299999", 100_000, 300_000), ("-5", 299_995, 300_000)]
    {
        let (head, body) =
            site.ask("GET", "/assets/large.bin", &format!("range: bytes={range}\r\n")).await;
        assert_eq!(status(&head), 206, "{range}");
        let expected = format!("bytes {from}-{}/300000", to - 1);
        assert_eq!(field(&head, "content-range"), Some(&*expected));
        assert!(body.into_bytes() == large()[from..to], "{range}");
    }
    // Many parts are the whole, once.
    let many = format!("range: bytes={}-1\r\n", "0-,".repeat(2_500));
    let (head, body) = site.ask("GET", "/assets/large.bin", &many).await;
    assert_eq!((status(&head), body.len()), (200, 300_000));
    let (head, _) = site.ask("HEAD", "/assets/large.bin", "range: bytes=0-9\r\n").await;
    assert_eq!((status(&head), field(&head, "content-length")), (200, Some("300000")));
    let (head, _) = site.ask("GET", "/assets/large.bin", "range: bytes=300000-\r\n").await;
    assert_eq!((status(&head), field(&head, "content-range")), (416, Some("bytes */300000")));
    let (head, body) = site.ask("GET", "/assets/app.css", "range: bytes=5-5\r\n").await;
    assert_eq!((status(&head), body.as_str()), (206, "{"));
}

/// Has the kernel forget what it read of a file: it is on the disk alone.
fn forget(file: &Path) {
    let file = std::fs::File::open(file).expect("a file");
    file.sync_all().expect("written");
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).expect("forgotten");
}

#[tokio::test]
async fn what_is_on_the_disk_alone_is_read_from_there() {
    let site = Site::new("").await;
    let assets = site.dir.path().join("public/assets");
    for _ in 0..3 {
        for name in ["app.css", "large.bin"] {
            forget(&assets.join(name));
        }
        assert_eq!(site.ask("GET", "/assets/app.css", "").await.1, "body { color: red }");
        assert!(site.ask("GET", "/assets/large.bin", "").await.1.into_bytes() == large());
        forget(&assets.join("large.bin"));
        let (head, body) = site.ask("GET", "/assets/large.bin", "range: bytes=7-40006\r\n").await;
        assert_eq!(status(&head), 206);
        assert!(body.into_bytes() == large()[7..40_007]);
    }
}

#[tokio::test]
async fn what_is_missing_may_be_the_apps_or_another_page() {
    let app = Site::new("missing = \"app\"\n").await;
    assert_eq!(app.ask("GET", "/assets/none", "").await.1, "app");
    assert_eq!(app.ask("POST", "/assets/app.css", "content-length: 0\r\n").await.1, "app");
    assert_eq!(app.ask("GET", "/assets/app.css", "").await.1, "body { color: red }");
    let page = Site::new("missing = \"/index.html\"\ncompress = true\n").await;
    let (head, body) = page.ask("GET", "/assets/some/route", "").await;
    assert_eq!((status(&head), body.as_str()), (200, "<h1>home</h1>"));
    assert_eq!(field(&head, "content-type"), Some("text/html; charset=utf-8"));
    // What the app makes of a path is made of a file's path too.
    let stripped = Site::new("strip_prefix = \"/assets\"\n").await;
    let (head, body) = stripped.ask("GET", "/assets/", "").await;
    assert_eq!((status(&head), body.as_str()), (200, "<h1>home</h1>"));
    assert_eq!(status(&stripped.ask("GET", "/assets/app.css", "").await.0), 404);
    until(|| stripped.rig.total(Count::Answered) == 2).await;
}

/// Streams that take nothing once kept every file of a worker from everybody, for as long as they liked.
#[tokio::test]
async fn clients_that_take_nothing_do_not_keep_files_from_others() {
    let site = Site::new("").await;
    let mut greedy = super::stalled::shut(site.rig.http()).await;
    let mut held = Vec::new();
    for _ in 0..crate::proxy::files::MOST {
        held.push(super::stalled::ask(&mut greedy, "/assets/large.bin").await);
    }
    assert!(held.iter().all(|answer| answer.status() == 200));
    let mut body = String::new();
    let served = async {
        while body.is_empty() {
            let (head, said) = site.ask("GET", "/assets/large.bin", "").await;
            match status(&head) {
                200 => body = said,
                _ => tokio::time::sleep(std::time::Duration::from_millis(50)).await,
            }
        }
    };
    tokio::time::timeout(LONG, served).await.expect("a place in time");
    assert!(body.into_bytes() == large());
}

#[tokio::test]
async fn a_file_that_shrinks_is_broken_off() {
    let site = Site::new("").await;
    let path = site.dir.path().join("public/assets/huge.bin");
    let file = std::fs::File::create(&path).expect("a file");
    file.set_len(64 << 20).expect("room");
    let mut client = Client::new(site.rig.http()).await;
    client.send("GET /assets/huge.bin HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert_eq!(status(&client.read_head().await), 200);
    // What is added is no part of what was announced.
    let grown = site.dir.path().join("public/assets/grown.bin");
    std::fs::write(&grown, vec![b'a'; 200_000]).expect("a file");
    let mut other = Client::new(site.rig.http()).await;
    other.send("GET /assets/grown.bin HTTP/1.1\r\nhost: a\r\n\r\n").await;
    other.read_head().await;
    let mut grows = std::fs::File::options().append(true).open(&grown).expect("a file");
    std::io::Write::write_all(&mut grows, &[b'b'; 700_000]).expect("a larger file");
    assert_eq!(other.read_body(200_000).await.len(), 200_000);
    assert_eq!(other.get("/x").await.1, "app", "and the connection goes on");
    file.set_len(0).expect("to shrink");
    assert!(client.read_to_end().await.len() < 64 << 20, "less than was announced, and the end");
    assert!(Path::new(&path).exists());
}
