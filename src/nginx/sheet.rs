//! What is written: tables in order, keys that this version has, and a list of what is left.

use std::collections::BTreeSet;

use super::Imported;
use crate::config::keys;

/// A table and its lines.
#[derive(Debug, Default)]
struct Table {
    header: String,
    lines: Vec<(String, String)>,
    comments: Vec<String>,
}

/// What is written so far.
#[derive(Debug, Default)]
pub struct Sheet {
    tables: Vec<Table>,
    /// Lists that grow: table, key, texts.
    lists: Vec<(String, String, Vec<String>, usize)>,
    certificates: Vec<(String, String)>,
    /// Routes of services, in order: the table of the service, and their lines.
    routes: Vec<(String, Vec<(String, String)>)>,
    left: BTreeSet<(usize, String)>,
}

/// A text in quotes.
#[must_use]
pub fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// One text, or a list of them.
#[must_use]
pub fn listed<T: AsRef<str>>(texts: &[T]) -> String {
    match texts {
        [one] => quoted(one.as_ref()),
        many => {
            let all: Vec<String> = many.iter().map(|text| quoted(text.as_ref())).collect();
            format!("[{}]", all.join(", "))
        }
    }
}

impl Sheet {
    fn table(&mut self, header: &str) -> &mut Table {
        let at = self.tables.iter().position(|table| table.header == header);
        let at = at.unwrap_or_else(|| {
            self.tables.push(Table { header: header.to_owned(), ..Table::default() });
            self.tables.len() - 1
        });
        &mut self.tables[at]
    }

    /// Writes a key, once: what was written first stays. `value` is TOML. A key that this version does
    /// not have is left.
    pub fn set(&mut self, header: &str, name: &str, value: &str, line: usize) {
        if keys::find(&format!("{header}.{name}")).is_none() {
            let what =
                format!("would be `{name} = {value}` in [{header}], which this version lacks");
            self.leave(line, &what);
            return;
        }
        let lines = &mut self.table(header).lines;
        match lines.iter().find(|(known, _)| known == name) {
            None => lines.push((name.to_owned(), value.to_owned())),
            Some((_, known)) if known == value => {}
            Some((_, known)) => {
                let what = format!("`{name} = {value}` in [{header}]: it is {known} already");
                self.leave(line, &what);
            }
        }
    }

    /// Writes a line that is the user's own name and value.
    pub fn put(&mut self, header: &str, name: &str, value: &str) {
        let lines = &mut self.table(header).lines;
        if !lines.iter().any(|(known, _)| known == name) {
            lines.push((name.to_owned(), value.to_owned()));
        }
    }

    /// A route of a service, behind those that it has; once.
    pub fn route(&mut self, header: &str, lines: Vec<(String, String)>) {
        let route = (header.to_owned(), lines);
        if !self.routes.contains(&route) {
            self.routes.push(route);
        }
    }

    /// Whether there is a certificate.
    #[must_use]
    pub fn has_certificate(&self) -> bool {
        !self.certificates.is_empty()
    }

    /// Whether a key was written.
    #[must_use]
    pub fn has(&self, header: &str, name: &str) -> bool {
        let table = self.tables.iter().find(|table| table.header == header);
        table.is_some_and(|table| table.lines.iter().any(|(known, _)| known == name))
    }

    /// Whether a list was begun.
    #[must_use]
    pub fn gathers(&self, header: &str, name: &str) -> bool {
        self.lists.iter().any(|list| list.0 == header && list.1 == name)
    }

    /// Adds a text to a list.
    pub fn gather(&mut self, header: &str, name: &str, text: &str, line: usize) {
        // The table stands where its first key came.
        if keys::find(&format!("{header}.{name}")).is_some() {
            self.table(header);
        }
        let known =
            |list: &&mut (String, String, Vec<String>, usize)| list.0 == header && list.1 == name;
        match self.lists.iter_mut().find(known) {
            Some((_, _, texts, _)) if texts.iter().any(|one| one == text) => {}
            Some((_, _, texts, _)) => texts.push(text.to_owned()),
            None => {
                let texts = vec![text.to_owned()];
                self.lists.push((header.to_owned(), name.to_owned(), texts, line));
            }
        }
    }

    /// A certificate and its key.
    pub fn certificate(&mut self, cert: &str, key: &str) {
        let pair = (cert.to_owned(), key.to_owned());
        if !self.certificates.contains(&pair) {
            self.certificates.push(pair);
        }
    }

    fn close_lists(&mut self) {
        for (header, name, mut texts, line) in std::mem::take(&mut self.lists) {
            if header == "listen" {
                // One address for all of both families takes the port of the other too.
                let both = texts.clone();
                texts.retain(|text| {
                    let port = text.strip_prefix("0.0.0.0:");
                    !port.is_some_and(|port| both.contains(&format!("[::]:{port}")))
                });
            }
            self.set(&header, &name, &listed(&texts), line);
        }
        let has = |tables: &[Table], name: &str| {
            let of = tables.iter().find(|table| table.header == "listen");
            of.is_some_and(|table| table.lines.iter().any(|(known, _)| known == name))
        };
        if has(&self.tables, "https") && !has(&self.tables, "http") {
            self.set("listen", "http", "\"off\"", 0);
        }
        if let Some((cert, key)) = self.certificates.first().cloned() {
            self.set("tls", "cert", &quoted(&cert), 0);
            self.set("tls", "key", &quoted(&key), 0);
        }
    }

    /// A sentence before a table.
    pub fn comment(&mut self, header: &str, text: &str) {
        self.table(header).comments.push(text.to_owned());
    }

    /// Something is not carried over.
    pub fn leave(&mut self, line: usize, what: &str) {
        self.left.insert((line, what.to_owned()));
    }

    /// All of it. The tables of the daemon come first.
    #[must_use]
    pub fn finish(mut self) -> Imported {
        self.close_lists();
        let mut tables = self.tables;
        let place = |table: &Table| match table.header.as_str() {
            header if header.starts_with("service.") || header.starts_with("tcp.") => 2,
            "tls" => 1,
            _ => 0,
        };
        tables.sort_by_key(place);
        let mut toml = String::new();
        for table in tables {
            if !toml.is_empty() {
                toml.push('\n');
            }
            for comment in table.comments {
                toml.push_str(&format!("# {comment}\n"));
            }
            toml.push_str(&format!("[{}]\n", table.header));
            for (name, value) in table.lines {
                toml.push_str(&format!("{name} = {value}\n"));
            }
            if table.header == "tls" {
                for (cert, key) in self.certificates.iter().skip(1) {
                    let (cert, key) = (quoted(cert), quoted(key));
                    toml.push_str(&format!("\n[[tls.certificate]]\ncert = {cert}\nkey = {key}\n"));
                }
            }
        }
        for (header, lines) in self.routes {
            toml.push_str(&format!("\n[[{header}.route]]\n"));
            for (name, value) in lines {
                toml.push_str(&format!("{name} = {value}\n"));
            }
        }
        let left = self.left.into_iter().map(|(line, what)| format!("line {line}: {what}"));
        Imported { toml, left: left.collect() }
    }
}
