//! Reads `[notify.NAME]` and `[[service.NAME.webhook]]`.

use std::path::Path;
use std::sync::Arc;

use super::Document;
use super::keys::NOTIFY;
use super::policy::ReadFile;
use super::problem::Problem;
use super::raw::Value;
use super::reader::{Report, Section};
use crate::model::id::ServiceName;
use crate::model::webhook::{Webhook, WebhookKind};

/// Who is told what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notify {
    /// Its name.
    pub name: String,
    /// Who, and how.
    pub to: Recipient,
    /// What.
    pub occasions: Vec<Occasion>,
    /// Of which services; all when empty.
    pub services: Vec<String>,
    /// The authorities to believe, PEM; `None` is this machine's.
    pub ca: Option<Arc<str>>,
}

/// Who is told, and how. Addresses and keys are secrets.
#[derive(Clone, PartialEq, Eq)]
pub enum Recipient {
    /// A chat on Telegram.
    Telegram {
        /// The server.
        api: String,
        /// The bot's token.
        token: String,
        /// The chat.
        chat: String,
    },
    /// A channel on Slack.
    Slack(String),
    /// A channel on Discord.
    Discord(String),
    /// A channel on Teams.
    Teams(String),
    /// People, by mail.
    Email(Box<Email>),
    /// A program.
    Webhook {
        /// Where.
        url: String,
        /// What the message is signed with.
        secret: Option<String>,
    },
}

/// How mail is sent.
#[derive(Clone, PartialEq, Eq)]
pub struct Email {
    /// The server.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Whether TLS begins with the first byte (`Some(true)`), by STARTTLS, or never (`None`).
    pub tls: Option<bool>,
    /// Name and password.
    pub login: Option<(String, String)>,
    /// The sender.
    pub from: String,
    /// The recipients.
    pub to: Vec<String>,
}

impl Recipient {
    /// The word in the configuration.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Telegram { .. } => "telegram",
            Self::Slack(_) => "slack",
            Self::Discord(_) => "discord",
            Self::Teams(_) => "teams",
            Self::Email(_) => "email",
            Self::Webhook { .. } => "webhook",
        }
    }
}

impl std::fmt::Debug for Recipient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Recipient({} …)", self.as_str())
    }
}

/// What people are told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Occasion {
    /// A rollout began.
    Started,
    /// The canary took a step.
    Step,
    /// It became stable.
    Promoted,
    /// It was taken back.
    RolledBack,
    /// Nothing goes on before somebody decides.
    NeedsPerson,
}

impl Occasion {
    const ALL: [Self; 5] =
        [Self::Started, Self::Step, Self::Promoted, Self::RolledBack, Self::NeedsPerson];

    /// The word in the configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Step => "step",
            Self::Promoted => "promoted",
            Self::RolledBack => "rolled_back",
            Self::NeedsPerson => "needs_person",
        }
    }
}

/// Reads everybody who is told something.
pub(super) fn read(
    document: &Document,
    base: &Path,
    file: ReadFile<'_>,
    report: &Report,
) -> Vec<Notify> {
    let Some(node) = document.table.entry("notify").map(|entry| &entry.node) else {
        return Vec::new();
    };
    let Value::Table(table) = &node.value else {
        let title = format!("`notify` is a table of tables, not {}", node.value.kind());
        report.add(Problem::error(node.place.clone(), title).label("write [notify.ops]"));
        return Vec::new();
    };
    let read = table.entries.iter().filter_map(|entry| {
        if ServiceName::new(&entry.key).is_err() {
            let title = format!("{:?} cannot name who is told", entry.key);
            let expected = "expected 1 to 63 of a-z, 0-9 and '-', a letter or digit at both ends";
            report.add(Problem::error(entry.place.clone(), title).label(expected));
            return None;
        }
        let Value::Table(table) = &entry.node.value else {
            let title = format!("`{}` is not a table", entry.key);
            let problem = Problem::error(entry.place.clone(), title);
            report.add(problem.label("they have names: write this below [notify.NAME]"));
            return None;
        };
        let path = format!("notify.{}", entry.key);
        let section = Section::new(path, entry.place.clone(), NOTIFY, Some(table), report);
        let reading = Reading { section: &section, base, file };
        Some(Notify {
            name: entry.key.clone(),
            to: reading.recipient()?,
            occasions: reading.occasions(),
            services: section.texts("services").into_iter().map(|found| found.value).collect(),
            ca: reading.file_of("ca").map(Into::into),
        })
    });
    read.collect()
}

struct Reading<'a> {
    section: &'a Section<'a>,
    base: &'a Path,
    file: ReadFile<'a>,
}

impl Reading<'_> {
    fn occasions(&self) -> Vec<Occasion> {
        let words = Occasion::ALL.map(Occasion::as_str);
        let found = self.section.each("events", "an event", |value| {
            let Value::Text(text) = value else { return Err(words.join(", ")) };
            let known = Occasion::ALL.into_iter().find(|occasion| occasion.as_str() == text);
            known.ok_or_else(|| match super::keys::nearest(text, words.into_iter()) {
                Some(near) => format!("did you mean {near:?}?"),
                None => format!("expected some of {}", words.join(", ")),
            })
        });
        found.into_iter().map(|found| found.value).collect()
    }

    /// What the file under a key says.
    fn file_of(&self, name: &str) -> Option<String> {
        let found = self.section.text(name)?;
        let path = found.path(self.base);
        match (self.file)(&path) {
            Ok(text) => Some(text),
            Err(why) => {
                let place = found.place.unwrap_or_else(|| self.section.place.clone());
                let title = format!("{} cannot be read", path.display());
                self.section.wrong(name, &place, title, &why);
                None
            }
        }
    }

    /// A secret, from its key or from the file that holds it.
    fn secret(&self, name: &str) -> Option<String> {
        let from = format!("{name}_file");
        let (written, place) = (self.section.text(name), self.section.place_of(&from));
        match (written, place) {
            (Some(_), Some(place)) => {
                let title = format!("`{name}` and `{from}` say the same thing");
                self.section.wrong(&from, &place, title, "leave one of them out");
                None
            }
            (Some(found), None) => Some(found.value),
            (None, Some(place)) => {
                let text = self.file_of(&from)?.trim().to_owned();
                if text.is_empty() {
                    let title = format!("the file of `{from}` is empty");
                    self.section.wrong(&from, &place, title, "expected the secret in it");
                    return None;
                }
                Some(text)
            }
            (None, None) => None,
        }
    }

    fn missing(&self, name: &str, expected: &str) {
        if self.section.lacks(name) && self.section.place_of(&format!("{name}_file")).is_none() {
            let title = format!("`{name}` is missing in [{}]", self.section.path);
            self.section
                .report
                .add(Problem::error(self.section.place.clone(), title).label(expected.to_owned()));
        }
    }

    fn needed(&self, name: &str, expected: &str) -> Option<String> {
        let found = self.section.text(name).map(|found| found.value);
        if found.is_none() {
            self.missing(name, expected);
        }
        found
    }

    fn secret_url(&self) -> Option<String> {
        let url = self.secret("url");
        match &url {
            None => self.missing("url", "expected the address that messages are posted to"),
            Some(url) if !is_url(url) => {
                let place =
                    self.section.place_of("url").or_else(|| self.section.place_of("url_file"));
                let place = place.unwrap_or_else(|| self.section.place.clone());
                let title = "`url` is not an address";
                self.section.wrong("url", &place, title, "expected https://… or http://…");
                return None;
            }
            Some(_) => {}
        }
        url
    }

    fn recipient(&self) -> Option<Recipient> {
        Some(match self.section.choice("kind") {
            "telegram" => {
                let token = self.secret("token");
                if token.is_none() {
                    self.missing("token", "expected the token that @BotFather gave");
                }
                let chat = self.needed("chat", "expected the chat's id, such as \"-1001234567\"");
                let own = self.section.written("url").is_some()
                    || self.section.written("url_file").is_some();
                let api =
                    if own { self.secret_url()? } else { "https://api.telegram.org".to_owned() };
                let api = api.trim_end_matches('/').to_owned();
                Recipient::Telegram { api, token: token?, chat: chat? }
            }
            "slack" => Recipient::Slack(self.secret_url()?),
            "discord" => Recipient::Discord(self.secret_url()?),
            "teams" => Recipient::Teams(self.secret_url()?),
            "email" => Recipient::Email(Box::new(self.email()?)),
            "webhook" => {
                let url = self.secret_url();
                Recipient::Webhook { url: url?, secret: self.secret("secret") }
            }
            _ => {
                self.missing(
                    "kind",
                    "expected \"telegram\", \"slack\", \"discord\", \"teams\", \"email\" or \"webhook\"",
                );
                return None;
            }
        })
    }

    fn email(&self) -> Option<Email> {
        let tls = match self.section.choice("smtp_tls") {
            "tls" => Some(true),
            "none" => None,
            _ => Some(false),
        };
        let usual = match tls {
            Some(true) => 465,
            Some(false) => 587,
            None => 25,
        };
        let server = self.needed("smtp", "expected the mail server, such as \"smtp.example.com\"");
        let from = self.needed("from", "expected an address, such as \"switchback@example.com\"");
        let to: Vec<String> =
            self.section.texts("to").into_iter().map(|found| found.value).collect();
        if to.is_empty() {
            self.missing("to", "expected an address, or a list of them");
            return None;
        }
        for (name, address) in
            to.iter().map(|to| ("to", to)).chain(from.iter().map(|a| ("from", a)))
        {
            if !is_address(address) {
                let place = self.section.place_of(name);
                let place = place.unwrap_or_else(|| self.section.place.clone());
                let title = format!("{address:?} is not an address");
                self.section.wrong(name, &place, title, "expected for example \"ops@example.com\"");
                return None;
            }
        }
        let password = self.secret("password");
        let login = match (self.section.text("user").map(|found| found.value), password) {
            (Some(user), Some(password)) => Some((user, password)),
            (Some(_), None) => {
                self.missing("password", "expected the password of `user`");
                return None;
            }
            (None, Some(_)) => {
                self.missing("user", "expected the name that the password belongs to");
                return None;
            }
            (None, None) => None,
        };
        if login.is_some() && tls.is_none() {
            let place = self.section.place_of("smtp_tls");
            let place = place.unwrap_or_else(|| self.section.place.clone());
            let title = "the password would travel in cleartext";
            let expected = "expected \"starttls\" or \"tls\" beside `user` and `password`";
            self.section.wrong("smtp_tls", &place, title, expected);
            return None;
        }
        let server = server?;
        let (host, port) = match server.rsplit_once(':') {
            Some((host, port)) => match port.parse() {
                Ok(port) => (host.to_owned(), port),
                Err(_) => {
                    let place = self.section.place_of("smtp");
                    let place = place.unwrap_or_else(|| self.section.place.clone());
                    let title = format!("{server:?} is not a mail server");
                    self.section.wrong("smtp", &place, title, "expected HOST or HOST:PORT");
                    return None;
                }
            },
            None => (server, usual),
        };
        Some(Email { host, port, tls, login, from: from?, to })
    }
}

/// Whether this can be posted to.
pub(super) fn is_url(url: &str) -> bool {
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    let host = rest.and_then(|rest| rest.split(['/', '?']).next()).unwrap_or_default();
    !host.is_empty() && url.bytes().all(|byte| byte.is_ascii_graphic())
}

fn is_address(text: &str) -> bool {
    let inner = text.rsplit_once('<').map_or(text, |(_, rest)| rest.trim_end_matches('>'));
    inner.split_once('@').is_some_and(|(user, host)| !user.is_empty() && !host.is_empty())
}

/// The webhooks of a service.
pub(super) fn read_webhooks(section: &Section<'_>) -> Vec<Webhook> {
    section.tables("webhook").iter().filter_map(read_webhook).collect()
}

fn read_webhook(section: &Section<'_>) -> Option<Webhook> {
    let word = section.choice("type");
    let kind = WebhookKind::ALL.into_iter().find(|kind| kind.as_str() == word);
    if kind.is_none() && section.lacks("type") {
        let title = format!("`type` is missing in [[{}]]", section.path);
        let problem = Problem::error(section.place.clone(), title);
        section.report.add(problem.label("expected for example \"confirm-promotion\""));
    }
    let url = section.text("url");
    if url.is_none() && section.lacks("url") {
        let title = format!("`url` is missing in [[{}]]", section.path);
        let problem = Problem::error(section.place.clone(), title);
        section.report.add(problem.label("expected the address that is asked"));
    }
    let (kind, url) = (kind?, url?);
    if !is_url(&url.value) {
        let place = url.place.unwrap_or_else(|| section.place.clone());
        section.wrong("url", &place, "`url` is not an address", "expected https://… or http://…");
        return None;
    }
    Some(Webhook {
        name: section.text("name").map_or_else(|| word.to_owned(), |found| found.value),
        kind,
        url: url.value,
        timeout: section.time_limit("timeout"),
        interval: section.time_limit("interval"),
        failures: section.integer("failures").map_or(1, |found| found.value as u32),
        wait: section.time_limit("wait"),
        metadata: section.map("metadata"),
    })
}
