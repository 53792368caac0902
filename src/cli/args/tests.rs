//! Command lines, good and bad.

use std::time::Duration;

use clap::{CommandFactory, Parser};

use super::daemon::*;

/// These verbs alone, as they will stand beside the others.
#[derive(Debug, Parser)]
#[command(name = "switchback")]
struct Line {
    #[command(subcommand)]
    verb: Daemon,
}

fn parse(line: &str) -> Result<Daemon, String> {
    let words = ["switchback"].into_iter().chain(line.split_whitespace());
    Line::try_parse_from(words).map(|line| line.verb).map_err(|error| error.to_string())
}

#[test]
fn the_definitions_hold_together() {
    Line::command().debug_assert();
}

#[test]
fn a_deploy_says_what_and_how() {
    let Ok(Daemon::Deploy(deploy)) = parse("deploy web:v2 --steps 1%,100% --bake 5m -d -o json")
    else {
        panic!("a deploy")
    };
    assert_eq!(deploy.services[0].service.as_str(), "web");
    assert_eq!(deploy.services[0].tag.as_deref(), Some("v2"));
    assert_eq!(deploy.steps.map(|steps| steps.count()), Some(2));
    assert_eq!(deploy.bake, Some(Duration::from_secs(300)));
    assert!(deploy.detach && deploy.output.is_json());
    let Ok(Daemon::Deploy(deploy)) = parse("deploy api --dry-run --command ./api --port {port}")
    else {
        panic!("a deploy")
    };
    let words = ["./api", "--port", "{port}"].map(str::to_owned).to_vec();
    assert_eq!((deploy.command, deploy.dry_run), (Some(words), true));
    let Ok(Daemon::Deploy(deploy)) = parse("deploy old --endpoints 10.0.0.1:1,10.0.0.2:1") else {
        panic!("a deploy")
    };
    assert_eq!(deploy.endpoints.map(|addresses| addresses.len()), Some(2));
}

#[test]
fn slips_are_usage_errors_that_say_what_was_expected() {
    for (line, words) in [
        ("deploy", "SERVICE[:TAG]"),
        ("deploy ghcr.io/acme/web:v2", "write SERVICE --image IMAGE"),
        ("deploy web:", "the tag after the colon is missing"),
        ("deploy Web", "is not a service name"),
        ("deploy web --steps 5%,50%", "add 100% at the end"),
        ("deploy web --bake 30", "needs a unit"),
        ("deploy web --endpoints db:1", "names are not looked up"),
        ("deploy web --image a --endpoints 10.0.0.1:1", "cannot be used with"),
        ("weight web 101%", "is not between 0% and 100%"),
        ("weight web 0.001%", "finer than 0.01%"),
        ("rollback web --to 0", "the number of a revision"),
        ("explain twelve", "the number of a rollout"),
        ("tester-cookie web both", "\"stable\" or \"canary\""),
        ("promote", "SERVICE"),
        ("status web -o yaml", "json"),
    ] {
        let said = parse(line).expect_err(line);
        assert!(said.contains(words), "{line}: {said}");
    }
}

#[test]
fn help_shows_examples_first_and_exit_codes() {
    for verb in ["deploy", "status", "run"] {
        let help = Line::command()
            .find_subcommand_mut(verb)
            .expect("a verb")
            .render_long_help()
            .to_string();
        let (examples, rest) = help.split_once("Usage:").expect("a usage");
        assert!(examples.contains(&format!("  switchback {verb}")), "{help}");
        assert!(rest.contains("3  rolled back by the analysis"), "{help}");
    }
    let help = Line::command().render_help().to_string();
    assert!(!help.contains("instance-shim") && !help.contains("sample-app"), "{help}");
}

#[test]
fn the_configuration_may_stand_before_the_verb() {
    for line in ["switchback -c a.toml status", "switchback status -c a.toml"] {
        let args = super::Args::try_parse_from(line.split(' ')).expect("a command line");
        let super::Verb::Daemon(Daemon::Status(status)) = args.verb else { panic!("a status") };
        assert_eq!(status.client.config.as_deref(), Some(std::path::Path::new("a.toml")), "{line}");
    }
    super::Args::command().debug_assert();
}
