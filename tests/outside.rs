//! Programs elsewhere that have a say in a rollout.

use crate::support::daemon::{Daemon, Runs, SHORT};
use crate::support::receiver::Receiver;

fn webhook(kind: &str, receiver: &Receiver, more: &str) -> String {
    format!(
        "[[service.web.webhook]]\ntype = \"{kind}\"\nurl = \"http://{}/{kind}\"\n\
         interval = \"200ms\"\n{more}",
        receiver.address
    )
}

fn begun(webhooks: &str) -> Daemon {
    let plan = format!("{SHORT}steps = \"50% 100%\"\n{webhooks}");
    Daemon::begin(Runs::Processes, &plan).unwrap()
}

#[test]
fn nothing_goes_on_before_everybody_said_yes() {
    let (first, last, told) = (Receiver::begin(), Receiver::begin(), Receiver::begin());
    let mut daemon = begun(
        &[
            webhook("confirm-rollout", &first, "metadata = { team = \"shop\" }\n"),
            webhook("pre-rollout", &told, ""),
            webhook("rollout", &told, ""),
            webhook("confirm-promotion", &last, "name = \"qa\"\n"),
            webhook("post-rollout", &told, ""),
            webhook("event", &told, ""),
        ]
        .concat(),
    );
    first.always(403);
    last.always(403);
    let calls = first.heard().len();
    daemon.deploy_until("none", &[], "launching");
    daemon.until("it was asked again and again", || first.heard().len() > calls + 2);
    let web = daemon.service();
    assert_eq!(web["phase"], "launching", "{web:#}");
    let asked = &web["webhooks"][0];
    assert_eq!((&asked["name"], &asked["state"]), (&"confirm-rollout".into(), &"no".into()));
    assert!(asked["said"].as_str().unwrap().contains("answered 403"), "{web:#}");
    let payload = first.heard().pop().unwrap().json();
    assert_eq!(payload["name"], "web");
    assert_eq!(payload["metadata"]["team"], "shop");
    assert_eq!((&payload["phase"], &payload["canaryWeight"]), (&"Waiting".into(), &0.0.into()));
    first.always(200);
    daemon.wait("the gate", |web| web["phase"] == "paused" && web["gated"] == true);
    // The gate is asked on after the daemon died.
    daemon.kill();
    daemon.start();
    daemon.wait("the gate again", |web| {
        web["phase"] == "paused" && web["webhooks"].to_string().contains("\"qa\"")
    });
    let shown = daemon.cli(&["status", "web"]).stdout;
    assert!(shown.contains("qa (confirm-promotion)"), "{shown}");
    last.always(200);
    daemon
        .wait("the promotion", |web| web["phase"] == "promoted" && web["stable"]["revision"] == 2);
    let of = |kind: &str| {
        told.heard().into_iter().filter(|heard| heard.path == format!("/{kind}")).count()
    };
    daemon.until("post-rollout", || of("post-rollout") > 0);
    assert!(of("pre-rollout") > 0 && of("rollout") > 0, "{:?}", told.heard());
    let events = told.heard().into_iter().filter(|heard| heard.path == "/event");
    let said: Vec<String> =
        events.map(|heard| heard.json()["metadata"]["eventMessage"].to_string()).collect();
    assert!(said.iter().any(|text| text.contains("the canary takes 50%")), "{said:?}");
    assert!(daemon.metrics().contains(
        "switchback_webhook_calls_total{service=\"web\",type=\"confirm-promotion\",result=\"yes\"} 1"
    ));
    // A return to a former revision asks nobody.
    first.always(403);
    assert_eq!(daemon.cli(&["rollback", "web"]).code, 0);
}

#[test]
fn a_no_before_visitors_and_at_a_step_takes_the_canary_back() {
    let receiver = Receiver::begin();
    let daemon = begun(&webhook("pre-rollout", &receiver, "failures = 2\nname = \"load\"\n"));
    receiver.always(500);
    let said = daemon.deploy("none", &[]);
    assert_eq!(said.code, 3, "{said:?}");
    let cause = said.last()["cause"].as_str().unwrap().to_owned();
    assert!(cause.contains("webhook load (pre-rollout): 127.0.0.1"), "{cause}");
    assert!(cause.contains("answered 500"), "{cause}");
    drop(daemon);

    let receiver = Receiver::begin();
    let daemon = begun(&webhook("rollout", &receiver, "failures = 2\n"));
    receiver.always(500);
    let said = daemon.deploy("none", &["--bake", "20s"]);
    assert_eq!(said.code, 3, "{said:?}");
    let cause = said.last()["cause"].as_str().unwrap().to_owned();
    assert!(cause.contains("answered 500: so (2 times in a row)"), "{cause}");
}

#[test]
fn a_webhook_can_call_the_canary_back_and_can_refuse_its_begin() {
    let receiver = Receiver::begin();
    let daemon = begun(&webhook("rollback", &receiver, ""));
    receiver.always(404);
    daemon.deploy_until("none", &["--bake", "20s"], "baking");
    daemon.until("it was asked", || receiver.heard().len() > 2);
    assert_eq!(daemon.service()["phase"], "baking");
    receiver.always(200);
    let web = daemon.wait("the way back", |web| web["phase"] == "rolled_back");
    assert!(web["notes"].to_string().contains("the canary must go back"), "{web:#}");
    drop(daemon);

    let receiver = Receiver::begin();
    let daemon = begun(&webhook("confirm-rollout", &receiver, "wait = \"1s\"\n"));
    receiver.always(403);
    let said = daemon.deploy("none", &[]);
    assert_eq!(said.code, 3, "{said:?}");
    let cause = said.last()["cause"].as_str().unwrap().to_owned();
    assert!(cause.contains("no yes within 1s"), "{cause}");
}
