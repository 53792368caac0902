//! Whole archives, and every way in which one can be bad.

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};

use super::ArchiveError;
use super::format::{About, Entry, FORMAT, HEAD, Head, MANIFEST, Manifest, PIECE, SUM};
use super::reader::{head, verify, walk};
use super::shelf::{Listed, Shelf, expired};
use super::writer::Writer;
use crate::model::id::{RevisionId, ServiceName};

fn about(created: &str) -> Head {
    Head {
        format: FORMAT,
        written_by: "0.1.0".to_owned(),
        service: ServiceName::new("web").expect("a name"),
        revision: RevisionId(3),
        runs: "web:v3".to_owned(),
        created: created.to_owned(),
        note: Some("before the migration".to_owned()),
        automatic: false,
    }
}

const WHEN: &str = "2026-11-21T10:15:00.000Z";

/// A tar with one file.
fn tar_of(path: &str, text: &[u8]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(text.len() as u64);
    header.set_mode(0o644);
    // Written by hand: the library's own way refuses what must be refused here.
    header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
    header.set_cksum();
    tar.append(&header, text).expect("appended");
    tar.into_inner().expect("a tar")
}

/// More than a piece, and nothing that compresses well.
fn noise(length: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(7);
    (0..length).map(|_| random.u8(..)).collect()
}

fn write(dir: &Path, parts: &[(&str, About, &[u8])]) -> (PathBuf, Manifest) {
    let path = dir.join("a.tar.zst");
    let mut writer = Writer::create(&path, about(WHEN)).expect("begun");
    for (name, about, bytes) in parts {
        writer.part(name, about.clone(), &mut &bytes[..], &mut |_| {}).expect("a part");
    }
    let manifest = writer.finish().expect("finished");
    (path, manifest)
}

fn image() -> About {
    About::Image { id: "sha256:1".to_owned() }
}

fn volume() -> About {
    About::Volume { source: "data".to_owned(), at: "/data".to_owned() }
}

/// An archive of a stranger's making: entries as they are given.
fn forge(dir: &Path, entries: &[(&str, &[u8])]) -> PathBuf {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, bytes) in entries {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(tar::EntryType::Regular);
        header.set_cksum();
        tar.append(&header, *bytes).expect("appended");
    }
    let path = dir.join("forged.tar.zst");
    let bytes = zstd::encode_all(&tar.into_inner().expect("a tar")[..], 1).expect("compressed");
    fs::write(&path, bytes).expect("written");
    path
}

fn json(head: &Head) -> Vec<u8> {
    serde_json::to_vec(head).expect("JSON")
}

fn refused(path: &Path) -> (String, String) {
    match verify(path, &mut |_| {}).expect_err("it is bad") {
        error @ ArchiveError::Damaged { .. } => {
            let told = error.to_string();
            let ArchiveError::Damaged { part, .. } = error else { unreachable!() };
            (part, told)
        }
        other => (String::new(), other.to_string()),
    }
}

#[test]
fn what_is_written_is_read_again_in_pieces() {
    let dir = tempfile::tempdir().expect("a directory");
    let big = tar_of("data.bin", &noise(2 * PIECE + 100));
    let parts: [(&str, About, &[u8]); 4] = [
        ("configuration.toml", About::Configuration, b"[service.web]"),
        ("image.tar", image(), &big),
        ("volume-0.tar", volume(), &tar_of("a", b"b")),
        ("dump", About::Dump { command: vec!["true".to_owned()] }, b""),
    ];
    let (path, manifest) = write(dir.path(), &parts);
    assert_eq!(manifest.parts.len(), 4);
    assert_eq!(manifest.parts[1].bytes, big.len() as u64);
    assert_eq!(head(&path).expect("a head"), about(WHEN));
    let mut read: Vec<(String, Vec<u8>)> = Vec::new();
    let same = walk(&path, &mut |name, part| {
        let mut bytes = Vec::new();
        part.read_to_end(&mut bytes)?;
        read.push((name.to_owned(), bytes));
        Ok(())
    });
    assert_eq!(same.expect("whole"), manifest);
    let expected: Vec<_> = parts.iter().map(|(n, _, b)| ((*n).to_owned(), b.to_vec())).collect();
    assert_eq!(read, expected);
    // Of a part that nobody reads, the sum is checked all the same.
    assert_eq!(walk(&path, &mut |_, _| Ok(())).expect("whole"), manifest);
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&path).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_file_that_was_cut_off_is_refused_wherever_that_was() {
    let dir = tempfile::tempdir().expect("a directory");
    let image_tar = tar_of("data.bin", &noise(PIECE));
    let parts: [(&str, About, &[u8]); 2] =
        [("image.tar", image(), &image_tar), ("volume-0.tar", volume(), &tar_of("a", b"b"))];
    let (path, _) = write(dir.path(), &parts);
    let whole = fs::read(&path).expect("read");
    for share in [3, 50, 90] {
        fs::write(&path, &whole[..whole.len() * share / 100]).expect("cut");
        let (part, told) = refused(&path);
        assert_eq!(part, "image.tar", "{share} %: {told}");
        assert!(told.contains("damaged in its part \"image.tar\""), "{told}");
    }
    // Without its last bytes only the end of the stream is missing.
    fs::write(&path, &whole[..whole.len() - 2]).expect("cut");
    assert!(!refused(&path).1.is_empty());
    fs::write(&path, b"").expect("cut");
    assert!(refused(&path).1.contains("is not an archive of a checkpoint"));
    fs::write(&path, &whole).expect("mended");
    verify(&path, &mut |_| {}).expect("whole again");
}

#[test]
fn a_flipped_bit_is_found_and_its_part_named() {
    let dir = tempfile::tempdir().expect("a directory");
    let image_tar = tar_of("data.bin", &noise(PIECE / 2));
    let parts: [(&str, About, &[u8]); 2] =
        [("configuration.toml", About::Configuration, b"x"), ("image.tar", image(), &image_tar)];
    let (path, _) = write(dir.path(), &parts);
    let whole = fs::read(&path).expect("read");
    let mut random = fastrand::Rng::with_seed(11);
    for _ in 0..40 {
        let mut bad = whole.clone();
        let at = random.usize(bad.len() / 4..bad.len() * 3 / 4);
        bad[at] ^= 1 << random.u8(..8);
        fs::write(&path, &bad).expect("damaged");
        let (part, told) = refused(&path);
        assert_eq!(part, "image.tar", "byte {at}: {told}");
    }
}

#[test]
fn what_was_changed_with_care_is_found_by_its_sum() {
    let dir = tempfile::tempdir().expect("a directory");
    let parts: [(&str, About, &[u8]); 1] = [("revision.json", About::Revision, b"{\"a\":1}")];
    let (_, manifest) = write(dir.path(), &parts);
    let manifest = serde_json::to_vec(&manifest).expect("JSON");
    let (first, last) = ((HEAD, json(&about(WHEN))), (MANIFEST, manifest));
    let forged = |piece: &[u8], name: &str| {
        let sum = super::format::hex(digest(&SHA256, &last.1).as_ref());
        let entries =
            [(first.0, &first.1[..]), (name, piece), (last.0, &last.1[..]), (SUM, sum.as_bytes())];
        forge(dir.path(), &entries)
    };
    let (part, told) = refused(&forged(b"{\"a\":2}", "revision.json/000000"));
    assert_eq!(part, "revision.json", "{told}");
    assert!(told.contains("its SHA-256 is"), "{told}");
    let (part, told) = refused(&forged(b"{\"a\":1}", "revision.json/000001"));
    assert_eq!(part, "revision.json", "{told}");
    assert!(told.contains("its piece 0 is not there"), "{told}");
    let (part, told) = refused(&forged(b"{\"a\":1}", "dump/000000"));
    assert_eq!(part, "revision.json", "{told}");
    assert!(told.contains("it is not there"), "{told}");
    verify(&forged(b"{\"a\":1}", "revision.json/000000"), &mut |_| {}).expect("as it was");
    // A manifest that was made to fit, but for its own sum.
    let mut other = last.1.clone();
    let at = other.windows(7).position(|part| part == b"web:v3\"").expect("what runs");
    other[at + 5] = b'4';
    let entries = [(first.0, &first.1[..]), ("revision.json/000000", &b"{\"a\":1}"[..])];
    let sum = super::format::hex(digest(&SHA256, &last.1).as_ref());
    let path =
        forge(dir.path(), &[entries[0], entries[1], (MANIFEST, &other[..]), (SUM, sum.as_bytes())]);
    let (part, told) = refused(&path);
    assert_eq!(part, MANIFEST, "{told}");
    assert!(told.contains("its SHA-256 is another one"), "{told}");
}

#[test]
fn a_name_that_leads_out_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let first = json(&about(WHEN));
    for name in ["../../etc/cron.d/x", "/etc/passwd", "image.tar/../../x", "else/000000", "x"] {
        let path = forge(dir.path(), &[(HEAD, &first), (name, b"x")]);
        let (part, told) = refused(&path);
        assert_eq!(part, name, "{told}");
        assert_eq!(Entry::parse(name), None, "{name}");
    }
    // The same within a volume.
    for name in ["../escape", "/etc/passwd", "a/../../b"] {
        let (path, _) = write(dir.path(), &[("volume-0.tar", volume(), &tar_of(name, b"x"))]);
        let (part, told) = refused(&path);
        assert_eq!(part, "volume-0.tar", "{told}");
        assert!(told.contains("leads out of it"), "{told}");
        fs::remove_file(path).expect("removed");
    }
}

#[test]
fn another_format_and_other_files_are_told_apart() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut later: serde_json::Value = serde_json::from_slice(&json(&about(WHEN))).expect("JSON");
    later["format"] = 2.into();
    later["written_by"] = "9.1.0".into();
    later["revision"] = "another shape".into();
    let path = forge(dir.path(), &[(HEAD, later.to_string().as_bytes())]);
    let told = refused(&path).1;
    assert!(told.contains("has format 2") && told.contains("use Switchback 9.1.0"), "{told}");
    fs::write(&path, b"PK\x03\x04 something else").expect("written");
    assert!(refused(&path).1.contains("is not an archive of a checkpoint"));
}

#[test]
fn nothing_half_written_stays() {
    struct Fails(usize);
    impl Read for Fails {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            self.0 = self.0.checked_sub(1).ok_or_else(|| std::io::Error::other("gone"))?;
            buffer.fill(1);
            Ok(buffer.len())
        }
    }
    let dir = tempfile::tempdir().expect("a directory");
    let shelf = Shelf::new(dir.path());
    let (id, path) = shelf.place(&about(WHEN)).expect("a place");
    assert_eq!(id, "web-20261121-101500-r3");
    let mut writer = Writer::create(&path, about(WHEN)).expect("begun");
    assert_eq!(shelf.place(&about(WHEN)).expect("a place").0, "web-20261121-101500-r3-2");
    let error = writer.part("image.tar", image(), &mut Fails(3), &mut |_| {}).expect_err("broken");
    assert_eq!(error.to_string(), "image.tar could not be read: gone");
    assert!(shelf.unfinished().len() == 1 && shelf.list(None).expect("a list").is_empty());
    drop(writer);
    assert_eq!(fs::read_dir(dir.path()).expect("a directory").count(), 0);
}

#[test]
fn ids_are_no_paths() {
    let dir = tempfile::tempdir().expect("a directory");
    let shelf = Shelf::new(&dir.path().join("shelf"));
    fs::File::create(dir.path().join("x.tar.zst"))
        .expect("a file")
        .write_all(b"x")
        .expect("written");
    for id in ["../x", "a/../../x", "", "..", "x"] {
        assert!(matches!(shelf.find(id), Err(ArchiveError::NotFound { .. })), "{id}");
    }
    let named = dir.path().join("x.tar.zst");
    assert_eq!(shelf.find(named.to_str().expect("text")).expect("a path"), named);
}

#[test]
fn a_disk_too_small_is_found_out_before() {
    let dir = tempfile::tempdir().expect("a directory");
    let shelf = Shelf::new(&dir.path().join("not/yet/there"));
    shelf.has_room(1).expect("room for a byte");
    let told = shelf.has_room(u64::MAX / 2).expect_err("no disk is so large").to_string();
    assert!(told.contains("MB are free"), "{told}");
}

#[test]
fn automatic_archives_go_by_count_and_by_age() {
    let now: jiff::Timestamp = "2026-11-21T12:00:00Z".parse().expect("a time");
    let day = Duration::from_secs(24 * 60 * 60);
    let one = |days: i64, automatic: bool| {
        let created = now - jiff::SignedDuration::from_hours(24 * days + 1);
        Listed {
            id: format!("{days}-{automatic}"),
            path: PathBuf::new(),
            bytes: 1,
            head: Some(Head { automatic, ..about(&created.to_string()) }),
            trouble: None,
        }
    };
    let listed = [one(0, true), one(1, false), one(2, true), one(3, true), one(40, true)];
    assert_eq!(expired(&listed, 10, 30 * day, now), ["40-true"]);
    assert_eq!(expired(&listed, 2, 365 * day, now), ["3-true", "40-true"]);
    let unreadable = Listed { head: None, ..one(50, true) };
    assert_eq!(expired(&[one(99, true), one(100, false), unreadable], 1, day, now), [""; 0]);
}
