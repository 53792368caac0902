//! A dump that is loaded again, on a real engine.

use std::fs;

use crate::archives::{create, engine, file, image, put, with_volume};

#[test]
fn a_dump_is_loaded_into_what_was_restored_before_anybody_meets_it() {
    let Some(host) = engine() else { return };
    let Some((volume, daemon)) = with_volume("dump", &image(&host), "") else { return };
    put(&daemon, "rows", "ten");
    let text = fs::read_to_string(daemon.config()).unwrap();
    let loads = |script: &str| {
        let command = "command = [\"cat\", \"/data/rows\"], ";
        let restore = format!("{command}restore_command = [\"sh\", \"-c\", {script:?}] }}");
        let dumps = "command = [\"sh\", \"-c\", \"echo dumped\"] }";
        assert!(text.contains(dumps), "{text}");
        daemon.configure(&text.replace(dumps, &restore));
        assert_eq!(daemon.cli(&["reload"]).code, 0);
    };
    loads("cat > /data/loaded");
    let id = create(&daemon, "");
    let before = volume.all();
    let said = daemon.cli(&["checkpoint", "verify", &id, "--restore-test"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.stdout.contains("the dump was loaded"), "{said:?}");
    assert_eq!((volume.all(), file(&daemon, "/loaded")), (before.clone(), String::new()));

    // One that fails: nothing of it stays, and what serves goes on.
    loads("echo no such table >&2; exit 7");
    let said = daemon.cli(&["checkpoint", "restore", "web", &id]);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.stderr.contains("sh exited with code 7: no such table"), "{said:?}");
    assert_eq!(volume.all(), before);
    assert_eq!(daemon.service()["stable"]["revision"], 1);

    loads("cat > /data/loaded");
    let said = daemon.cli(&["checkpoint", "restore", "web", &id]);
    assert_eq!(said.code, 0, "{said:?}");
    daemon.until("the loaded data", || file(&daemon, "/loaded") == "ten");
    // It serves: nobody frees it.
    let said = daemon.cli(&["clean", "--yes"]);
    assert!(said.code == 0 && !said.stdout.contains("volume"), "{said:?}");
    assert_eq!(file(&daemon, "/loaded"), "ten");

    for (wrong, says) in [
        ("backup = { restore_command = [\"cat\"] }", "it takes in what `command` printed"),
        ("backup = { command = [\"a\"], restore_command = [\"b\"] }", "name those that hold"),
    ] {
        let plain = text.lines().filter(|line| !line.starts_with("backup ="));
        let plain = plain.collect::<Vec<_>>().join("\n");
        let before = text.clone();
        daemon.configure(&plain.replace("[service.web]\n", &format!("[service.web]\n{wrong}\n")));
        let said = daemon.cli(&["check"]);
        daemon.configure(&before);
        assert_eq!(said.code, 7, "{said:?}");
        assert!(format!("{}{}", said.stdout, said.stderr).contains(says), "{wrong}: {said:?}");
    }
}
