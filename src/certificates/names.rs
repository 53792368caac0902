//! Which names need a certificate, and from whom. Pure.

use std::collections::BTreeMap;

use crate::config::Config;
use crate::config::tls::{Challenge, Local};
use crate::routing::table::HostPattern;

/// Who signs a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signer {
    /// An authority that speaks ACME.
    Acme,
    /// The CA of this machine.
    Local,
}

impl Signer {
    /// As records and the status call it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Acme => "acme",
            Self::Local => "local",
        }
    }
}

/// Whether a name means this machine, whoever asks (RFC 6761, 6.3).
fn is_localhost(name: &str) -> bool {
    name == "localhost" || name.ends_with(".localhost")
}

/// Whether one of a certificate's names is for this one; `*.example.com` is for names one label
/// longer, and for itself.
#[must_use]
pub fn covers(of_certificate: &[String], name: &str) -> bool {
    let parent = name.split_once('.').map(|(_, parent)| format!("*.{parent}"));
    of_certificate.iter().any(|one| one == name || Some(one) == parent.as_ref())
}

/// Names that need a certificate, beside those that files have.
#[must_use]
pub fn wanted(config: &Config, files: &[Vec<String>]) -> BTreeMap<String, Signer> {
    let Some(tls) = &config.tls else { return BTreeMap::new() };
    let routes = config.services.iter().flat_map(|service| &service.routes);
    let mut names: Vec<String> = routes
        .filter_map(|route| match &route.host {
            HostPattern::Any => None,
            HostPattern::Exact(name) => Some(name.clone()),
            HostPattern::Below(name) => Some(format!("*.{name}")),
        })
        .collect();
    names.extend(config.acme.iter().flat_map(|acme| acme.hosts.iter().cloned()));
    let signer = |name: &str| {
        let is_address = name.starts_with('[') || name.parse::<std::net::IpAddr>().is_ok();
        if is_address || files.iter().any(|file| covers(file, name)) {
            return None;
        }
        let bare = name.trim_start_matches("*.");
        match &config.acme {
            Some(acme) if !is_localhost(bare) && bare.contains('.') => {
                let by_dns = !acme.dns_hook.is_empty()
                    && matches!(acme.challenge, Challenge::Auto | Challenge::Dns);
                (bare == name || by_dns).then_some(Signer::Acme)
            }
            _ if tls.local == Local::All => Some(Signer::Local),
            _ if tls.local == Local::Localhost && is_localhost(bare) => Some(Signer::Local),
            _ => None,
        }
    };
    names.into_iter().filter_map(|name| signer(&name).map(|signer| (name, signer))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(head: &str, hosts: &[&str]) -> Config {
        let text =
            format!("{head}\n[service.web]\nhost = {hosts:?}\nendpoints = [\"127.0.0.1:1\"]\n");
        let variables = BTreeMap::new();
        let input = crate::config::Input {
            name: std::path::Path::new("switchback.toml"),
            text: &text,
            variables: &variables,
            flags: &[],
            read: &|_| Err("no files".to_owned()),
        };
        crate::config::parse(&input).expect("valid").config
    }

    fn of(head: &str, hosts: &[&str], files: &[&str]) -> Vec<(String, Signer)> {
        let files: Vec<String> = files.iter().map(|name| (*name).to_owned()).collect();
        wanted(&config(head, hosts), &[files]).into_iter().collect()
    }

    #[test]
    fn every_host_has_one_signer() {
        let hosts = ["app.example.com", "*.example.com", "app.localhost", "intranet", "10.0.0.1"];
        let acme = "[acme]\nemail = \"a@example.com\"\n";
        let name = |name: &str, signer| (name.to_owned(), signer);
        let app = || name("app.example.com", Signer::Acme);
        let local = || name("app.localhost", Signer::Local);
        assert_eq!(of(acme, &hosts, &[]), [app(), local()], "no hook: no wildcard");
        let hook = format!("{acme}dns_hook = [\"/hook\"]\nhost = [\"more.example.org\"]\n");
        let wild = name("*.example.com", Signer::Acme);
        let more = name("more.example.org", Signer::Acme);
        assert_eq!(of(&hook, &hosts, &[]), [wild, app(), local(), more]);
        assert_eq!(of(acme, &hosts, &["*.example.com"]), [local()], "files come first");
        let all = "[tls]\nlocal = \"all\"\n";
        assert_eq!(of(all, &["intranet", "10.0.0.1"], &[]), [name("intranet", Signer::Local)]);
        assert_eq!(of("[tls]\ncert = \"a\"\nkey = \"b\"\n", &hosts, &["other"]), []);
    }
}
