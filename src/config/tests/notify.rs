//! Who is told what happens, and the programs that have a say.

use super::*;
use crate::config::notify::{Occasion, Recipient};
use crate::model::webhook::WebhookKind;

fn refused(text: &str) -> String {
    let problems = read_with(&format!("{WEB}{text}"), &[], &[]).expect_err("a problem");
    problems.to_string()
}

#[test]
fn everybody_is_read_with_what_they_need() {
    let text = r#"
        [notify.ops]
        kind = "slack"
        url = "https://hooks.example.com/T0/secret-of-slack"
        events = "step"
        services = ["web"]
        [notify.mail]
        kind = "email"
        smtp = "smtp.example.com"
        from = "Switchback <s@example.com>"
        to = ["a@example.com", "b@example.com"]
        [notify.phone]
        kind = "telegram"
        chat = "-1"
    "#;
    let variables = [("SWITCHBACK_NOTIFY_PHONE_TOKEN", "1:secret-of-telegram")];
    let parsed = parsed(&format!("{WEB}{text}"), &variables, &[]);
    let [ops, mail, phone] = parsed.config.notify.as_slice() else { panic!("three") };
    assert_eq!((ops.occasions.as_slice(), ops.services.len()), ([Occasion::Step].as_slice(), 1));
    let Recipient::Email(email) = &mail.to else { panic!("{mail:?}") };
    assert_eq!((email.port, email.tls, email.to.len()), (587, Some(false), 2));
    assert_eq!(mail.occasions.len(), 4, "the default");
    let Recipient::Telegram { api, token, .. } = &phone.to else { panic!("{phone:?}") };
    assert_eq!(
        (api.as_str(), token.as_str()),
        ("https://api.telegram.org", "1:secret-of-telegram")
    );
    let shown = show::toml(&parsed.document) + &show::json(&parsed.document).to_string();
    assert!(!shown.contains("secret-of") && shown.contains("***"), "{shown}");
    assert!(!format!("{:?}", parsed.config.notify).contains("secret-of"));
}

#[test]
fn what_is_missing_or_makes_no_sense_is_said() {
    for (text, parts) in [
        ("[notify.ops]\n", ["`kind` is missing in [notify.ops]", "telegram"]),
        ("[notify.ops]\nkind = \"slak\"\nurl = \"https://x\"\n", ["one of telegram", "slack"]),
        ("[notify.ops]\nkind = \"slack\"\n", ["`url` is missing", "posted to"]),
        (
            "[notify.ops]\nkind = \"slack\"\nurl = \"hooks\"\n",
            ["`url` is not an address", "https://"],
        ),
        (
            "[notify.ops]\nkind = \"slack\"\nurl_file = \"none\"\n",
            ["none cannot be read", "no such file"],
        ),
        ("[notify.ops]\nkind = \"telegram\"\nchat = \"1\"\n", ["`token` is missing", "BotFather"]),
        (
            "[notify.ops]\nkind = \"slack\"\nurl = \"https://x\"\nevents = [\"promotd\"]\n",
            ["\"promotd\" in `events` is not an event", "did you mean \"promoted\"?"],
        ),
        (
            "[notify.m]\nkind = \"email\"\nsmtp = \"x\"\nfrom = \"a\"\nto = \"b@x\"\n",
            ["\"a\" is not an address", "ops@example.com"],
        ),
        (
            "[notify.m]\nkind = \"email\"\nsmtp = \"x\"\nfrom = \"a@x\"\nto = \"b@x\"\nuser = \"u\"\n\
             password = \"hunter22\"\nsmtp_tls = \"none\"\n",
            ["the password would travel in cleartext", "starttls"],
        ),
        (
            "[notify.\"No Name\"]\nkind = \"slack\"\nurl = \"https://x\"\n",
            ["\"No Name\" cannot name who is told", "1 to 63"],
        ),
    ] {
        let said = refused(text);
        for part in parts {
            assert!(said.contains(part), "{part:?} in {said}");
        }
        assert!(!said.contains("hunter22"), "{said}");
    }
}

#[test]
fn webhooks_have_a_say_and_their_addresses_are_secrets() {
    let webhook = "[[service.web.webhook]]\ntype = \"confirm-promotion\"\n\
                   url = \"https://gate.example.com/secret-of-gate\"\nmetadata = { a = \"b\" }\n";
    let parsed = parsed(&format!("{WEB}{webhook}"), &[], &[]);
    let plan = &parsed.config.services[0].plan;
    let [webhook] = plan.webhooks.as_slice() else { panic!("{plan:?}") };
    assert_eq!(
        (webhook.kind, webhook.name.as_str()),
        (WebhookKind::ConfirmPromotion, "confirm-promotion")
    );
    assert!(plan.is_gated(3) && !plan.is_gated_by_a_person(3) && !plan.is_gated(2));
    let shown = show::toml(&parsed.document) + &show::json(&parsed.document).to_string();
    assert!(!shown.contains("secret-of-gate"), "{shown}");
    let said = refused("[[service.web.webhook]]\nurl = \"https://x\"\n");
    assert!(said.contains("`type` is missing in [[service.web.webhook]]"), "{said}");
    let said = refused("[[service.web.webhook]]\ntype = \"rollout\"\n");
    assert!(said.contains("`url` is missing"), "{said}");
}

#[test]
fn a_public_address_is_one() {
    let url = |text: &str| format!("[admin]\npublic_url = {text:?}\n{WEB}");
    let config = read(&url("https://ops.example.com/"));
    assert_eq!(config.admin.public_url.as_deref(), Some("https://ops.example.com"));
    let problems = read_with(&url("ops.example.com"), &[], &[]).expect_err("a problem");
    assert!(problems.to_string().contains("`public_url` is not an address"), "{problems}");
}
