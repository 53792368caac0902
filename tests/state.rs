//! The daemon's own state, taken to another host.

use std::fs;

use crate::support::daemon::{Daemon, Runs, SHORT};

const QUICK: &str = "steps = \"100%\"\n";

#[test]
fn another_host_goes_on_where_this_one_was() {
    let plan = format!("{SHORT}{QUICK}");
    let here = Daemon::begin(Runs::Processes, &plan).unwrap();
    let said = here.deploy("none", &["--env", "GREETING=hello"]);
    assert_eq!(said.code, 0, "{said:?}");
    let file = here.home().join("exported");
    let name = file.to_str().unwrap();
    let said = here.cli(&["state", "export", name]);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.stderr.contains("1 services with 2 revisions"), "{said:?}");
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&file).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600, "it has the environments of apps");
    let said = here.cli(&["state", "export", name]);
    assert!(said.code == 1 && said.stderr.contains("it exists already"), "{said:?}");

    let mut there = Daemon::configured(Runs::Processes, &plan).unwrap();
    for (bad, words) in [
        (fs::read(&file).unwrap()[..400].to_vec(), "damaged or cut off"),
        (fs::read(&file).unwrap()[..40].to_vec(), "is not what `switchback state export` writes"),
        (
            String::from_utf8(fs::read(&file).unwrap()).unwrap().replace("hello", "hallo").into(),
            "its state is another one",
        ),
        (
            b"{\"format\":7,\"written_by\":\"9.9.9\",\"written\":\"\",\"sha256\":\"\"}\n{}"
                .to_vec(),
            "use Switchback 9.9.9",
        ),
    ] {
        let damaged = there.home().join("damaged");
        fs::write(&damaged, bad).unwrap();
        let said = there.cli(&["state", "import", damaged.to_str().unwrap()]);
        assert_eq!(said.code, 1, "{said:?}");
        assert!(said.stderr.contains(words), "{words}: {said:?}");
    }
    let said = here.cli(&["state", "import", name]);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.stderr.contains("in use by another daemon"), "{said:?}");
    let said = there.cli(&["state", "import", name]);
    assert_eq!(said.code, 0, "{said:?}");
    let said = there.cli(&["state", "import", name]);
    assert!(said.code == 1 && said.stderr.contains("--replace"), "{said:?}");

    there.start();
    let web = there.wait("what was stable serves", |web| {
        web["stable"]["instances"][0]["healthy"] == true && web["stable"]["revision"] == 2
    });
    assert_eq!(web["rollout"], 2, "the history came too: {web:#}");
    there.until("an answer", || there.get("/").is_ok_and(|answer| answer.status == 200));
    assert_eq!(there.rollout(1)["outcome"], "promoted");
    let said = there.cli(&["rollback", "web", "--to", "1"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(there.rollout(3)["to"], 1);
    assert_eq!(here.service()["stable"]["revision"], 2, "here nothing changed");
}
