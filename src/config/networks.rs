//! Lists of networks: written out, in files, or by the names of well-known ones.

use super::policy::Context;
use super::problem::{Place, Problem};
use super::raw::Value;
use super::reader::Section;
use crate::edge::addresses::AddressSet;
use crate::model::network::Network;

/// Lists that have a name.
const PRESETS: [(&str, &[&str]); 3] = [
    ("loopback", &["127.0.0.0/8", "::1"]),
    // RFC 1918, RFC 3927, RFC 4193, RFC 4291, and the shared space of RFC 6598 behind carriers' NATs.
    (
        "private",
        &[
            "10.0.0.0/8",
            "172.16.0.0/12",
            "192.168.0.0/16",
            "100.64.0.0/10",
            "169.254.0.0/16",
            "127.0.0.0/8",
            "fc00::/7",
            "fe80::/10",
            "::1",
        ],
    ),
    // As cloudflare.com/ips publishes them; unchanged since 2023.
    (
        "cloudflare",
        &[
            "173.245.48.0/20",
            "103.21.244.0/22",
            "103.22.200.0/22",
            "103.31.4.0/22",
            "141.101.64.0/18",
            "108.162.192.0/18",
            "190.93.240.0/20",
            "188.114.96.0/20",
            "197.234.240.0/22",
            "198.41.128.0/17",
            "162.158.0.0/15",
            "104.16.0.0/13",
            "104.24.0.0/14",
            "172.64.0.0/13",
            "131.0.72.0/22",
            "2400:cb00::/32",
            "2606:4700::/32",
            "2803:f800::/32",
            "2405:b500::/32",
            "2405:8100::/32",
            "2a06:98c0::/29",
            "2c0f:f248::/32",
        ],
    ),
];

/// Reads the networks of a key.
pub(super) fn read(section: &Section<'_>, name: &str, context: Context<'_>) -> AddressSet {
    AddressSet::new(&list(section, name, context))
}

/// The same as a list.
pub(super) fn list(section: &Section<'_>, name: &str, context: Context<'_>) -> Vec<Network> {
    let mut networks = Vec::new();
    let entries = section.each(name, "a network", |value| match value {
        Value::Text(text) => one(text),
        _ => one(""),
    });
    for found in entries {
        match found.value {
            Entry::Networks(some) => networks.extend(some),
            Entry::File(file) => {
                let path = context.base.join(&file);
                let place = found.place.unwrap_or_else(|| section.place.clone());
                match (context.file)(&path) {
                    Ok(text) => {
                        let source = path.display().to_string();
                        networks.extend(read_file(section, source, text));
                    }
                    Err(why) => {
                        let title = format!("a file of `{name}` cannot be read");
                        let expected = format!("{}: {why}", path.display());
                        section.wrong(name, &place, title, &expected);
                    }
                }
            }
        }
    }
    networks
}

enum Entry {
    Networks(Vec<Network>),
    File(String),
}

fn one(text: &str) -> Result<Entry, String> {
    if let Some(file) = text.strip_prefix("file:") {
        return Ok(Entry::File(file.to_owned()));
    }
    if let Some((_, list)) = PRESETS.iter().find(|(preset, _)| *preset == text) {
        return list
            .iter()
            .map(|text| Network::parse(text))
            .collect::<Result<_, _>>()
            .map(Entry::Networks);
    }
    match Network::parse(text) {
        Ok(network) => Ok(Entry::Networks(vec![network])),
        Err(_) if text.bytes().any(|b| b.is_ascii_alphabetic()) && !text.contains(':') => Err(
            "expected a network such as \"10.0.0.0/8\", \"file:NAME\", \"private\", \"loopback\" or \"cloudflare\""
                .to_owned(),
        ),
        Err(expected) => Err(expected),
    }
}

/// A network or an address per line; what follows `#` is for people.
fn read_file(section: &Section<'_>, source: String, text: String) -> Vec<Network> {
    let mut networks = Vec::new();
    let mut wrong = None;
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        let written = line.split('#').next().unwrap_or("").trim();
        if !written.is_empty() {
            match Network::parse(written) {
                Ok(network) => networks.push(network),
                Err(expected) => {
                    wrong.get_or_insert((start, start + line.trim_end().len(), expected));
                }
            }
        }
        start += line.len();
    }
    // One is enough: who mistook a file sees it by the first line.
    if let Some((start, end, expected)) = wrong {
        let source = section.report.source(source, text);
        let place = Place { source, span: start..end };
        section.report.add(Problem::error(place, "this is not a network").label(expected));
    }
    networks
}
