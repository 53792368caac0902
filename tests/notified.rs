//! Who is told what happens: a program, a mailbox, chats; and what they answer by a link.

use aws_lc_rs::hmac;

use crate::support::daemon::{Daemon, Runs, SHORT, free_address};
use crate::support::http::Answer;
use crate::support::load::Load;
use crate::support::receiver::{Mailbox, Receiver};

/// A daemon that tells, with an admin API by TCP and these tables.
fn telling(plan: &str, more: &str) -> (Daemon, std::net::SocketAddr) {
    let daemon = Daemon::configured(Runs::Processes, plan).unwrap();
    let admin = free_address();
    let file = daemon.file(plan);
    let listens = format!("listen = \"{admin}\"\npublic_url = \"http://{admin}\"\n");
    let file = file.replacen("listen = \"off\"\n", &listens, 1);
    daemon.configure(&format!("{file}\n{more}"));
    (daemon, admin)
}

fn ask(admin: std::net::SocketAddr, method: &str, url: &str) -> Answer {
    let path = url.strip_prefix(&format!("http://{admin}")).expect("a link of ours");
    let patience = crate::support::daemon::PATIENCE;
    let mut connection = crate::support::http::Connection::open(admin, patience).unwrap();
    // A name that is none of the machine's own, as behind a proxy.
    let fields = [("host", "ops.example.com"), ("connection", "close")];
    connection.ask(method, path, &fields, "").unwrap().0
}

fn is_signed(heard: &crate::support::receiver::Heard, secret: &str) -> bool {
    let signature = heard.field("x-switchback-signature").expect("a signature");
    let (at, tag) = signature.strip_prefix("t=").unwrap().split_once(",v1=").unwrap();
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let said = format!("{at}.{}", heard.body);
    let tag: Vec<u8> = (0..tag.len())
        .step_by(2)
        .map(|n| u8::from_str_radix(&tag[n..n + 2], 16).unwrap())
        .collect();
    hmac::verify(&key, said.as_bytes(), &tag).is_ok()
}

#[test]
fn a_gate_is_passed_by_a_link_that_acts_once() {
    let receiver = Receiver::begin();
    let plan = format!("{SHORT}steps = \"50% 100%\"\ngates = [\"50%\"]\n");
    let more = format!(
        "[notify.ops]\nkind = \"webhook\"\nurl = \"http://{}/hook?key=hidden\"\n\
         secret = \"a-key-for-signing\"\nevents = [\"started\", \"promoted\", \"needs_person\"]\n",
        receiver.address
    );
    let (mut daemon, admin) = telling(&plan, &more);
    daemon.start();
    daemon.wait("the first revision", |web| web["phase"] == "promoted");
    daemon.until("told of the first", || !receiver.with("event", "promoted").is_empty());
    daemon.deploy_until("none", &[], "paused");
    daemon.until("somebody is asked", || !receiver.with("event", "needs_person").is_empty());
    let asked = receiver.with("event", "needs_person").remove(0);
    assert!(is_signed(&asked, "a-key-for-signing"), "{asked:?}");
    assert_eq!(asked.path, "/hook?key=hidden");
    let json = asked.json();
    assert_eq!(
        (&json["service"], &json["to"], &json["weight"]),
        (&"web".into(), &2.into(), &50.0.into())
    );
    assert!(json["title"].as_str().unwrap().contains("needs a person"), "{json:#}");
    let link = json["links"]["promote"].as_str().unwrap().to_owned();
    let back = json["links"]["rollback"].as_str().unwrap().to_owned();

    // What draws previews changes nothing.
    for method in ["GET", "GET"] {
        let page = ask(admin, method, &link);
        assert_eq!(page.status, 200, "{page:?}");
        assert_eq!(page.field("cache-control"), Some("no-store"));
        assert_eq!(page.field("referrer-policy"), Some("no-referrer"));
        assert!(page.body.contains("<form method=\"post\">"), "{page:?}");
    }
    assert_eq!(daemon.service()["phase"], "paused");
    // The name opens nothing but links.
    let api = ask(admin, "GET", &format!("http://{admin}/api/v1/services"));
    assert_eq!(api.status, 403, "{api:?}");
    let forged = link.replace("/links/", "/links/A");
    assert_eq!(ask(admin, "POST", &forged).status, 404);

    // It outlives the daemon, acts once, and that outlives the daemon too.
    daemon.kill();
    daemon.start();
    daemon.wait("the gate again", |web| web["phase"] == "paused");
    let done = ask(admin, "POST", &link);
    assert!(done.status == 200 && done.body.contains("revision 2 goes on"), "{done:?}");
    daemon
        .wait("the promotion", |web| web["phase"] == "promoted" && web["stable"]["revision"] == 2);
    let again = ask(admin, "POST", &link);
    assert!(again.status == 410 && again.body.contains("used already"), "{again:?}");
    daemon.kill();
    daemon.start();
    assert_eq!(ask(admin, "POST", &link).status, 410);
    assert_eq!(ask(admin, "GET", &link).status, 410);

    // The other link of that message is about a canary that is stable now: it goes back to the former.
    daemon.wait("the daemon knows", |web| web["stable"]["revision"] == 2);
    let done = ask(admin, "POST", &back);
    assert!(done.status == 200 && done.body.contains("back to revision 1"), "{done:?}");
    daemon.wait("the way back", |web| web["stable"]["revision"] == 1 && web["phase"] == "promoted");

    let audit = daemon.cli(&["audit", "-n", "100", "-o", "json"]);
    let by_link: Vec<_> = audit
        .lines()
        .into_iter()
        .filter(|entry| entry["who"].as_str().unwrap().contains("the link sent to ops"))
        .map(|entry| {
            format!("{} {}", entry["verb"].as_str().unwrap(), entry["outcome"].as_str().unwrap())
        })
        .collect();
    assert_eq!(by_link, ["promote done", "rollback done"], "{audit:?}");
    let record = daemon.rollout(2).to_string();
    assert!(record.contains("the link sent to ops said: promote"), "{record}");
    // Neither the address's secret nor the key is told anywhere.
    let shown = daemon.cli(&["config", "show"]).stdout + &daemon.log() + &audit.stdout;
    assert!(!shown.contains("hidden") && !shown.contains("a-key-for-signing"), "{shown}");
}

#[test]
fn a_mailbox_hears_of_a_rollback_with_reason_and_figures() {
    let mailbox = Mailbox::begin();
    let port = mailbox.address.port();
    let (mut daemon, _) = telling("", "");
    let (password, ca) = (daemon.home().join("password"), daemon.home().join("ca.pem"));
    std::fs::write(&password, "a-secret-of-mail\n").unwrap();
    std::fs::write(&ca, &mailbox.ca).unwrap();
    let mail = format!(
        "[notify.mail]\nkind = \"email\"\nsmtp = \"localhost:{port}\"\nuser = \"story\"\n\
         password_file = {password:?}\nca = {ca:?}\nfrom = \"Switchback <daemon@story.test>\"\n\
         to = [\"ann@story.test\", \"bob@story.test\"]\nevents = \"rolled_back\"\n"
    );
    let plan = "steps = \"50% 100%\"\nbake = \"20s\"\nbake_max = \"60s\"\n";
    let file = daemon.file(plan);
    daemon.configure(&format!("{file}\n{mail}"));
    daemon.start();
    daemon.wait("the first revision", |web| web["phase"] == "promoted");
    let tested = daemon.cli(&["notify", "test", "mail"]);
    assert!(
        tested.code == 0 && tested.stdout.contains("mail: the message was taken"),
        "{tested:?}"
    );
    assert!(mailbox.mails()[0].contains("Subject: Switchback: a test"), "{:?}", mailbox.mails());

    let load = Load::begin(daemon.http, 50);
    assert_eq!(daemon.deploy("errors:0.3", &[]).code, 3);
    drop(load);
    daemon.until("a mail", || mailbox.mails().len() > 1);
    let mails = mailbox.mails();
    assert_eq!(mails.len(), 2, "{mails:?}");
    for part in [
        "Subject: web: revision 2 was rolled back",
        "To: ann@story.test, bob@story.test",
        "all traffic is on revision 1",
        "switchback explain 2",
        "errors",
    ] {
        assert!(mails[1].contains(part), "{part:?} in {}", mails[1]);
    }
    // A wrong password is told by the test, and is not shown.
    std::fs::write(&password, "another-secret\n").unwrap();
    assert_eq!(daemon.cli(&["reload"]).code, 0);
    let tested = daemon.cli(&["notify", "test"]);
    assert!(tested.code == 1 && tested.stdout.contains("who are you"), "{tested:?}");
    assert!(!tested.stdout.contains("another-secret"), "{tested:?}");
}

#[test]
fn who_is_down_holds_nobody_up_and_hears_of_it_later() {
    let (well, ill) = (Receiver::begin(), Receiver::begin());
    ill.always(503);
    let nobody = free_address();
    let more = format!(
        "[notify.well]\nkind = \"slack\"\nurl = \"http://{}/well\"\n\
         [notify.ill]\nkind = \"discord\"\nurl = \"http://{}/ill\"\n\
         [notify.gone]\nkind = \"teams\"\nurl = \"http://{nobody}/gone\"\n\
         [notify.elsewhere]\nkind = \"webhook\"\nurl = \"http://{}/x\"\nservices = \"api\"\n",
        well.address, ill.address, well.address
    );
    let (mut daemon, _) = telling(SHORT, &more);
    daemon.start();
    daemon.wait("the first revision", |web| web["phase"] == "promoted");
    assert_eq!(daemon.deploy("none", &[]).code, 0, "nobody is waited for");
    daemon.until("who is well was told", || {
        well.heard().iter().any(|heard| heard.body.contains("revision 2 was promoted"))
    });
    assert!(well.heard().iter().all(|heard| heard.path == "/well"), "{:?}", well.heard());
    let status = daemon.status();
    let of = |name: &str| {
        let all = status["notify"].as_array().unwrap();
        all.iter().find(|one| one["name"] == name).unwrap().clone()
    };
    assert!(of("well")["trouble"].is_null(), "{status:#}");
    assert!(of("ill")["trouble"].as_str().unwrap().contains("503"), "{status:#}");
    assert!(of("gone")["waiting"].as_u64().unwrap() >= 3, "{status:#}");
    let shown = daemon.cli(&["status"]).stdout;
    assert!(shown.contains("[notify.ill] takes no messages"), "{shown}");
    let metrics = daemon.metrics();
    for line in [
        "switchback_notify_up{recipient=\"ill\"} 0",
        "switchback_notify_up{recipient=\"well\"} 1",
        "switchback_notifications_total{recipient=\"well\",result=\"sent\"} 4",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line} in {metrics}");
    }
    // It comes back, and hears what it missed, in order, each once.
    ill.always(204);
    let taken = || {
        let heard = ill.heard().into_iter();
        let mut titles: Vec<String> =
            heard.map(|heard| heard.json()["content"].as_str().unwrap().to_owned()).collect();
        // Tries that failed come again.
        titles.dedup();
        titles
    };
    daemon.until("what it missed", || {
        taken().iter().any(|title| title.contains("revision 2 was promoted"))
    });
    let titles = taken();
    assert_eq!(titles.len(), 4, "{titles:?}");
    assert!(titles[0].contains("revision 1 begins"), "{titles:?}");
}

#[test]
fn a_chat_that_says_never_is_not_asked_again() {
    let telegram = Receiver::begin();
    telegram.always(401);
    let more = format!(
        "[notify.phone]\nkind = \"telegram\"\nurl = \"http://{}\"\ntoken = \"123:hidden-token\"\n\
         chat = \"-1001\"\n",
        telegram.address
    );
    let (mut daemon, _) = telling(SHORT, &more);
    daemon.start();
    daemon.wait("the first revision", |web| web["phase"] == "promoted");
    daemon.until("two refusals", || daemon.status()["notify"][0]["lost"] == 2);
    assert_eq!(telegram.heard().len(), 2, "each once: {:?}", telegram.heard());
    let heard = telegram.heard().remove(0);
    assert_eq!(heard.path, "/bot123:hidden-token/sendMessage");
    assert_eq!(heard.json()["chat_id"], "-1001");
    let tested = daemon.cli(&["notify", "test", "nobody"]);
    assert!(tested.code == 1 && tested.stderr.contains("nobody is called"), "{tested:?}");
    assert!(!daemon.log().contains("hidden-token"), "{}", daemon.log());
}

#[test]
fn teams_gets_a_card_that_its_workflows_understand() {
    let teams = Receiver::begin();
    let more = format!(
        "[notify.team]\nkind = \"teams\"\nurl = \"http://{}/workflows/abc?sig=hidden\"\n\
         events = [\"promoted\", \"rolled_back\", \"needs_person\"]\n",
        teams.address
    );
    let plan = format!("{SHORT}steps = \"50% 100%\"\ngates = [\"50%\"]\n");
    let (mut daemon, admin) = telling(&plan, &more);
    daemon.start();
    daemon.wait("the first revision", |web| web["phase"] == "promoted");
    daemon.deploy_until("none", &[], "paused");
    daemon.until("two cards", || teams.heard().len() == 2);
    for heard in teams.heard() {
        assert_eq!(heard.path, "/workflows/abc?sig=hidden");
        assert_eq!(heard.field("content-type"), Some("application/json"));
        assert!(heard.body.len() < 28 * 1024, "Teams takes no more");
        let json = heard.json();
        assert_eq!(json["type"], "message", "{json:#}");
        let attachments = json["attachments"].as_array().unwrap();
        assert_eq!(attachments.len(), 1, "{json:#}");
        assert_eq!(attachments[0]["contentType"], "application/vnd.microsoft.card.adaptive");
        let card = &attachments[0]["content"];
        assert_eq!(card["$schema"], "http://adaptivecards.io/schemas/adaptive-card.json");
        assert_eq!(card["type"], "AdaptiveCard");
        let version = card["version"].as_str().unwrap();
        assert!(version.parse::<f64>().unwrap() <= 1.5, "Teams draws no newer ones: {version}");
        for block in card["body"].as_array().unwrap() {
            assert_eq!((&block["type"], &block["wrap"]), (&"TextBlock".into(), &true.into()));
            assert!(!block["text"].as_str().unwrap().is_empty(), "{card:#}");
        }
    }
    // The second asks a person, who can act from the card.
    let card = teams.heard()[1].json()["attachments"][0]["content"].clone();
    assert!(card["body"][0]["text"].as_str().unwrap().contains("needs a person"), "{card:#}");
    let actions = card["actions"].as_array().unwrap();
    assert!(actions.iter().all(|action| action["type"] == "Action.OpenUrl"), "{card:#}");
    let title = |action: &&serde_json::Value| action["title"] == "Approve";
    let link = actions.iter().find(title).unwrap()["url"].as_str().unwrap().to_owned();
    assert_eq!(ask(admin, "POST", &link).status, 200);
    daemon
        .wait("the promotion", |web| web["phase"] == "promoted" && web["stable"]["revision"] == 2);
    daemon.until("a third card", || teams.heard().len() == 3);
    assert!(!daemon.log().contains("sig=hidden"), "the address is a secret");
}
