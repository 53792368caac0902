//! Files that change while they are served, and the local CA.

use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use super::support::*;

async fn until(what: &str, mut is: impl AsyncFnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !is().await {
        assert!(tokio::time::Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_read_again_when_they_change() {
    let (dir, files) =
        (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("one"));
    let (certificate, key) = write_pair(files.path(), "app.example", (-1, 90));
    let text =
        format!("[tls]\ncert = {certificate:?}\nkey = {key:?}\n{}", service(&["app.example"]));
    let rig = Rig::new(dir.path(), config(&text));
    let first = rig.shown("app.example").await.expect("a certificate");
    let status = rig.status("app.example");
    assert_eq!((status.state.as_str(), status.note), ("serving", None));
    assert!(matches!(status.days_left, Some(89 | 90)));
    // A certificate without its key yet: the former serves, and it is told.
    let key_before = std::fs::read(&key).expect("a key");
    write_pair(files.path(), "app.example", (-80, 10));
    let key_after = std::fs::read(&key).expect("a key");
    std::fs::write(&key, &key_before).expect("written");
    let failing = rig.until("app.example", "failing").await;
    assert!(failing.note.expect("a note").contains("does not belong"));
    assert_eq!(rig.shown("app.example").await, Some(first.clone()));
    // The key comes: no signal, no reload.
    std::fs::write(&key, &key_after).expect("written");
    let status = rig.until("app.example", "serving").await;
    assert_ne!(rig.shown("app.example").await, Some(first));
    let note = status.note.expect("ten days are few");
    let days = ["expires in 9 days", "expires in 10 days"];
    let is_told = days.iter().any(|days| note.contains(days));
    assert!(is_told && note.contains("cert.pem"), "{note}");
    // Others could read the key.
    write_pair(files.path(), "app.example", (-1, 90));
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).expect("mode");
    until("the key is loose", async || {
        rig.status("app.example").note.is_some_and(|note| note.contains("chmod 600"))
    })
    .await;
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_local_ca_signs_what_nobody_else_would() {
    let dir = tempfile::tempdir().expect("a directory");
    let text = format!("[tls]\nlocal = \"all\"\n{}", service(&["app.localhost", "intranet"]));
    let rig = Rig::new(dir.path(), config(&text));
    rig.until("app.localhost", "serving").await;
    rig.until("intranet", "serving").await;
    let file = dir.path().join("local-ca.pem");
    let authority = std::fs::read_to_string(&file).expect("laid out");
    assert!(!authority.contains("PRIVATE"));
    assert!(rig.is_trusted("app.localhost", &authority).await);
    assert!(rig.is_trusted("intranet", &authority).await);
    assert!(!rig.is_trusted("elsewhere.example", &authority).await);
    let shown = rig.shown("app.localhost").await;
    rig.end().await;
    std::fs::remove_file(&file).expect("removed");
    let again = Rig::new(dir.path(), config(&text));
    assert_eq!(again.shown("app.localhost").await, shown, "kept");
    assert_eq!(std::fs::read_to_string(&file).expect("laid out again"), authority);
    again.end().await;
}
