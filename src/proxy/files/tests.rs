//! What is in the kernel's memory is served without a thread. There is no runtime here: who wanted a thread
//! would panic.

use std::os::unix::fs::MetadataExt;
use std::task::{Context, Poll, Waker};

use futures_util::FutureExt as _;

use super::*;

const LARGE: usize = 1_000_000;

struct Shelf {
    files: Files,
    open: OpenFiles,
    clock: Clock,
    _dir: tempfile::TempDir,
}

impl Shelf {
    /// A page, and a large file; `None` where the kernel or the file system cannot be asked.
    fn new() -> Option<Self> {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join("index.html"), "a page").expect("a file");
        std::fs::write(dir.path().join("large"), large()).expect("a file");
        let files = Files {
            root: dir.path().to_owned(),
            index: "index.html".to_owned(),
            missing: Missing::NotFound,
        };
        let open = OpenFiles::default();
        let about = dir.path().metadata().expect("a directory");
        open.cached().learn(about.dev(), 0);
        let looked = look(dir.path(), "large", "", false, Way::Cached(open.cached()));
        let can = match looked {
            Ok(Looked::File(opened)) => open.cached().read(&opened.file, 0, 1).is_ok(),
            _ => false,
        };
        if !can {
            eprintln!("SKIPPED: this kernel or file system cannot be asked for what is in memory");
        }
        can.then(|| Self { files, open, clock: Clock::default(), _dir: dir })
    }

    fn find(&self, name: &str, is_directory: bool) -> Looked {
        let found = find(&self.open, &self.clock, &self.files, name, is_directory);
        found.now_or_never().expect("without waiting").expect("an answer")
    }

    fn part(&self, name: &str, from: u64, length: u64) -> ResponseBody {
        let Looked::File(opened) = self.find(name, false) else { panic!("no {name}") };
        let place = self.open.enter(0).expect("a place");
        let part = body::part(&self.open, &self.clock, *opened, (from, length), place);
        part.now_or_never().expect("without waiting").expect("a body")
    }
}

fn large() -> Vec<u8> {
    (0..LARGE).map(|n| (n % 253) as u8).collect()
}

#[test]
fn what_is_in_memory_takes_no_thread() {
    let Some(shelf) = Shelf::new() else { return };
    assert!(matches!(shelf.find("", true), Looked::File(_)));
    let ResponseBody::Full(page) = shelf.part("index.html", 2, 4) else { panic!("not at once") };
    assert_eq!(page, "page");
    // A small part of what is large, too.
    let ResponseBody::Full(part) = shelf.part("large", 900_000, 65_536) else {
        panic!("not at once")
    };
    assert!(part == large()[900_000..965_536]);
}

#[test]
fn a_large_file_is_read_by_the_worker() {
    let Some(shelf) = Shelf::new() else { return };
    let ResponseBody::File(mut body) = shelf.part("large", 1, LARGE as u64 - 1) else {
        panic!("at once")
    };
    let (mut context, mut read) = (Context::from_waker(Waker::noop()), Vec::new());
    while body.left() > 0 {
        match body.poll_frame(&mut context) {
            Poll::Ready(Some(Ok(frame))) => {
                read.extend_from_slice(&frame.into_data().expect("bytes"));
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(read == large()[1..]);
    assert!(matches!(body.poll_frame(&mut context), Poll::Ready(None)));
}
