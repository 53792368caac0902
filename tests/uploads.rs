//! Request bodies that are read before an instance is asked for, by the configuration's word.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::support::daemon::{Daemon, LONG, PATIENCE, Runs};

/// Files without a name in the state directory that the daemon has open.
fn spooled(daemon: &Daemon) -> usize {
    let pid = daemon.pid().expect("a daemon").as_raw_nonzero();
    let open = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("a process");
    let state = daemon.state();
    let paths = open.flatten().filter_map(|file| std::fs::read_link(file.path()).ok());
    paths
        .filter(|path| path.starts_with(&state) && path.to_string_lossy().ends_with("(deleted)"))
        .count()
}

#[test]
fn a_slow_upload_lies_in_the_state_directory_until_it_is_whole() {
    let on_disk = "buffer_requests = \"1MiB\"\n";
    for (plan, expected) in [(on_disk, 1), ("", 0)] {
        let daemon = Daemon::begin(Runs::Processes, &format!("{LONG}{plan}")).unwrap();
        let mut visitor = TcpStream::connect(daemon.http).unwrap();
        visitor.set_read_timeout(Some(PATIENCE)).unwrap();
        let head =
            "POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 300000\r\n\r\n";
        visitor.write_all(head.as_bytes()).unwrap();
        visitor.write_all(&[b'x'; 200_000]).unwrap();
        if expected > 0 {
            daemon.until("it lies on disk", || spooled(&daemon) == expected);
        } else {
            daemon.until("it goes on", || daemon.get("/").is_ok_and(|answer| answer.status == 200));
            assert_eq!(spooled(&daemon), 0);
        }
        visitor.write_all(&[b'x'; 100_000]).unwrap();
        let mut answer = String::new();
        visitor.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        daemon.until("nothing is left", || spooled(&daemon) == 0);
    }
}
