//! Keys of what is told to people and asked of other programs: `[notify.NAME]`,
//! `[[service.NAME.webhook]]`.

use super::Shape::{Choice, Duration, Integer, Map, Secret, Text, TextOrList};
use super::{Key, key};

/// `[notify.NAME]`.
pub const NOTIFY: &[Key] = &[
    key(
        "kind",
        Choice(&["telegram", "slack", "discord", "teams", "email", "webhook"]),
        "",
        "What understands the message. Needed.",
    ),
    key(
        "url",
        Secret,
        "",
        "The incoming webhook's address (slack, discord, teams, webhook); for telegram another server than its own.",
    ),
    key("url_file", Text, "", "File that holds `url`, relative to this file."),
    key("token", Secret, "", "The bot's token (telegram)."),
    key("token_file", Text, "", "File that holds `token`."),
    key("chat", Text, "", "The chat that is written to (telegram)."),
    key(
        "secret",
        Secret,
        "",
        "Key of the signature X-Switchback-Signature: t=SECONDS,v1=HMAC-SHA256 of \"SECONDS.BODY\" (webhook).",
    ),
    key("secret_file", Text, "", "File that holds `secret`."),
    key("smtp", Text, "", "Mail server, HOST or HOST:PORT (email)."),
    key(
        "smtp_tls",
        Choice(&["starttls", "tls", "none"]),
        r#""starttls""#,
        "TLS by STARTTLS (port 587), from the first byte (465), or none (25, on this machine only).",
    ),
    key("user", Text, "", "Name at the mail server."),
    key("password", Secret, "", "Password at the mail server."),
    key("password_file", Text, "", "File that holds `password`."),
    key("from", Text, "", "Sender's address (email)."),
    key("to", TextOrList, "", "Recipients' addresses (email)."),
    key("ca", Text, "", "PEM file with the authorities to believe instead of this machine's."),
    key(
        "events",
        TextOrList,
        r#"["started", "promoted", "rolled_back", "needs_person"]"#,
        "What is told: also \"step\".",
    ),
    key("services", TextOrList, "[]", "Services that are told of; all when empty."),
];

/// `[[service.NAME.webhook]]`.
pub const WEBHOOK: &[Key] = &[
    key(
        "type",
        Choice(&[
            "confirm-rollout",
            "pre-rollout",
            "rollout",
            "confirm-traffic-increase",
            "confirm-promotion",
            "post-rollout",
            "rollback",
            "event",
        ]),
        "",
        "When it is asked: types and payload are Flagger's. Needed.",
    ),
    key("url", Secret, "", "Where it is: http:// or https://. Needed; never shown."),
    key("name", Text, "", "What it is called in status; its type otherwise."),
    key("timeout", Duration, r#""10s""#, "For one try."),
    key("interval", Duration, r#""10s""#, "From one try to the next."),
    key(
        "failures",
        Integer(1, 1_000),
        "3",
        "Failures in a row that take the canary back (pre-rollout, rollout).",
    ),
    key(
        "wait",
        Duration,
        r#""1h""#,
        "How long confirm-rollout may take; the other confirmations wait like gates (`gate_timeout`).",
    ),
    key("metadata", Map, "", "Names and texts that are sent along."),
];
