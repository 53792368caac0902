//! What is said about files that are wrong: every message, word for word.
//!
//! `bad.txt` is a list of files after `=====`, each followed after `-----` by what is said about it.
//! `$ NAME=value` lines before a file are variables, `--set` lines are flags.

use super::problem::{Finding, Severity};
use super::*;

const CASES: &str = include_str!("bad.txt");

fn lines(problems: &Problems) -> String {
    let line = |finding: Finding| {
        let at = match (&finding.file, finding.line, finding.column) {
            (Some(file), Some(line), Some(column)) => {
                let file = if file == "conf/switchback.toml" { "" } else { file };
                format!("{file}:{line}:{column}: ")
            }
            _ => String::new(),
        };
        let warning = if finding.severity == Severity::Warning { "warning: " } else { "" };
        let help = finding.help.map(|help| format!(" -> {help}")).unwrap_or_default();
        format!("{warning}{at}{}{help}\n", finding.message)
    };
    problems.findings().into_iter().map(line).collect()
}

#[test]
fn what_is_wrong_is_said_in_words_that_help() {
    let mut otherwise = Vec::new();
    for case in CASES.split("=====\n").skip(1) {
        let (input, said) = case.split_once("-----\n").expect("-----");
        let mut variables = Vec::new();
        let mut flags = Vec::new();
        let mut text = String::new();
        for line in input.lines() {
            if let Some(variable) = line.strip_prefix("$ ") {
                variables.push(variable.split_once('=').expect("NAME=value"));
            } else if let Some(flag) = line.strip_prefix("--set ") {
                flags.push(flag);
            } else {
                text.push_str(&format!("{line}\n"));
            }
        }
        let problems = match read_with(&text, &variables, &flags) {
            Ok(parsed) => parsed.warnings,
            Err(problems) => problems,
        };
        assert!(!problems.list.is_empty(), "nothing is wrong with\n{input}");
        let found = lines(&problems);
        if found != said {
            otherwise.push(format!("{input}-----\n{found}"));
        }
    }
    assert!(otherwise.is_empty(), "said otherwise:\n=====\n{}", otherwise.join("=====\n"));
}

#[test]
fn hosts_that_share_a_cookie_belong_together() {
    let service = |name: &str, hosts: &str| {
        format!(
            "[service.{name}]\nhost = {hosts}\nimage = \"x\"\nport = 1\ngroup = \"shop\"\n\
             affinity = \"cookie\"\naffinity_domain = \"example.com\"\n"
        )
    };
    let (web, api) = ("[\"example.com\", \"*.shop.example.com\"]", "\"api.example.com\"");
    let text = service("web", web) + &service("api", api);
    let parsed = read_with(&text, &[], &[]).expect("it is valid");
    assert_eq!(lines(&parsed.warnings), "");
    for service in &parsed.config.services {
        let cookie = Affinity::Cookie("switchback-shop.example.com".to_owned());
        assert_eq!(service.settings.affinity, cookie, "one that no single host has");
        assert_eq!(service.settings.affinity_domain.as_deref(), Some("example.com"));
    }
}

fn drawn(text: &str, variables: &[(&str, &str)]) -> String {
    let problems = read_with(text, variables, &[]).expect_err("something is wrong");
    problems.to_string()
}

#[test]
fn a_problem_is_drawn_below_its_line() {
    let expected = r#"error: `bake` is not a duration
 --> conf/switchback.toml:6:8
  |
6 | bake = "30"  # seconds
  |        ^^^^ a duration needs a unit: "30s" for seconds, or ms, m, h, d"#;
    assert_eq!(drawn(&format!("\n{WEB}bake = \"30\"  # seconds\n"), &[]), expected);
}

#[test]
fn two_places_are_drawn_together() {
    let text = format!("{WEB}[service.api]\nhost = [\"x\", \"*\"]\nimage = \"api\"\nport = 1\n");
    let expected = r#"error: requests for * lead to two services, web and api
 --> conf/switchback.toml:6:14
  |
2 | host = "*"
  |        --- first written here
...
6 | host = ["x", "*"]
  |              ^^^ taken already
  |
  = help: give one of them another `host`, or a `path` of its own"#;
    assert_eq!(drawn(&text, &[]), expected);
}

#[test]
fn a_secret_is_not_drawn() {
    let text = format!("[admin]\ntoken = \"hunter2\"\n{WEB}env_file = \"bad.env\"\n");
    let said = drawn(&text, &[]);
    assert!(!said.contains("hunter2"), "{said}");
    assert!(said.contains("--> conf/switchback.toml:2:9"), "{said}");
    assert!(said.contains("--> conf/bad.env:2:1"), "{said}");
    for line in [
        "tester_secret = hunter2",
        "tester_secert = \"hunter2\"",
        "env = { A = 1, PASSWORD = \"hunter2\" }",
        "env.PASSWORD = hunter2",
        "[service.web.env]\nPASSWORD = hunter2",
        "[service.web.env]\nA = 12345678\nhunter2 = \"x\"\nB = true",
        "env = { A = \"hunter2\" }\n[service.b]\nhost = \"b\"\nendpoints = \"1.1.1.1:1\"\nenv = { A = \"hunter2\" }",
    ] {
        let said = drawn(&format!("{WEB}{line}\n"), &[]);
        assert!(!said.contains("hunter2") && !said.contains("1234"), "{said}");
    }
    let said = drawn(WEB, &[("SWITCHBACK_ADMIN_TOKEN", "hunter2")]);
    assert!(!said.contains("hunter2") && said.contains("environment:1:24"), "{said}");
}

#[test]
fn no_text_makes_it_panic() {
    // Every prefix of a full file, and the file with any one byte replaced, is read or refused.
    for end in (0..EXAMPLE.len()).step_by(7) {
        if let Some(prefix) = EXAMPLE.get(..end) {
            let _ = read_with(prefix, &[], &[]).map_err(|problems| problems.to_string());
        }
    }
    let text = format!("{WEB}[listen]\nhttp = [\"1.1.1.1:1\"]\nkeep_alive = \"é\"\n");
    for at in 0..text.len() {
        for byte in ["\"", "[", "]", "=", "\n", "{", "é", "\0", "*"] {
            if let (Some(before), Some(after)) = (text.get(..at), text.get(at + 1..)) {
                let text = format!("{before}{byte}{after}");
                let _ = read_with(&text, &[], &[]).map_err(|problems| problems.to_string());
            }
        }
    }
}
