//! What policies decide.

use super::super::addresses::AddressSet;
use super::super::facts::facts;
use super::super::matcher::PathMatch;
use super::super::rate::{AtOnce, Rate};
use super::super::rules::{Access, RouteSpec};
use super::super::template::Template;
use super::*;
use crate::model::network::Network;

fn set(networks: &[&str]) -> AddressSet {
    let parse = |text: &&str| Network::parse(text).expect("a network");
    AddressSet::new(&networks.iter().map(parse).collect::<Vec<_>>())
}

fn policy(base: Rules, routes: Vec<RouteSpec>) -> Policy {
    Policy::new(Spec { base, routes }, None, &Seed::new(), Instant::now())
}

fn admit(rule: &Rule, facts: &Facts<'_>) -> Result<Vec<Flight>, Box<Reply>> {
    rule.admit(facts, &HeaderMap::new(), 443, Instant::now())
}

fn below(prefix: &str, rules: Rules) -> RouteSpec {
    let matcher =
        Matcher { paths: vec![PathMatch::Prefix(prefix.to_owned())], ..Matcher::default() };
    RouteSpec { matcher, rules, ..RouteSpec::default() }
}

#[test]
fn who_may_come() {
    let access = |allow: Option<&[&str]>, deny: &[&str]| Access {
        allow: allow.map(set),
        deny: set(deny),
        methods: Vec::new(),
        certificate: false,
    };
    for (access, admitted) in [
        (access(None, &[]), true),
        (access(Some(&["203.0.113.0/24"]), &[]), true),
        (access(Some(&["203.0.113.0/24"]), &["203.0.113.7"]), false),
        (access(Some(&["10.0.0.0/8"]), &[]), false),
        (access(Some(&[]), &[]), false),
        (access(None, &["203.0.113.7"]), false),
        (access(None, &["203.0.113.8"]), true),
    ] {
        let policy = policy(Rules { access: access.clone(), ..Rules::default() }, Vec::new());
        let facts = facts("a/");
        let got = admit(policy.rule(&facts, &HeaderMap::new()), &facts);
        assert_eq!(got.is_ok(), admitted, "{access:?}");
        if let Err(reply) = got {
            assert_eq!(reply.status, 403);
        }
    }
}

#[test]
fn cleartext_goes_to_https_but_for_challenges() {
    for (request, port, location) in [
        ("a.example/x?y", 443, Some("https://a.example/x?y")),
        ("a.example:80/x", 8443, Some("https://a.example:8443/x")),
        ("[::1]:80/", 443, Some("https://[::1]/")),
        ("a.example/.well-known/acme-challenge/token", 443, None),
        ("a.example/", 0, None),
        ("/", 443, None),
    ] {
        assert_eq!(to_https(&facts(request), port).as_deref(), location, "{request}");
    }
    let secure = Facts { secure: true, ..facts("a/") };
    assert_eq!(to_https(&secure, 443), None);
}

#[test]
fn one_host_is_the_canonical_one() {
    let rules = Rules { canonical_host: Some("a.example".to_owned()), ..Rules::default() };
    let policy = policy(rules, Vec::new());
    for (request, location) in [
        ("www.a.example:8080/x?y", Some("http://a.example:8080/x?y")),
        ("A.Example./x", None),
        ("a.example:8080/", None),
        ("/", None),
    ] {
        let facts = facts(request);
        let got = admit(policy.rule(&facts, &HeaderMap::new()), &facts);
        assert_eq!(got.err().and_then(|reply| reply.location).as_deref(), location, "{request}");
    }
}

#[test]
fn the_first_route_that_fits_decides() {
    let redirect = Act::Redirect {
        status: StatusCode::MOVED_PERMANENTLY,
        to: Template::parse("/new{path}").expect("a template"),
    };
    let gone = Act::Respond { status: StatusCode::GONE, body: None };
    let policy = policy(
        Rules::default(),
        vec![
            below("/old", Rules { act: redirect, ..Rules::default() }),
            below("/old/x", Rules::default()),
            below("/gone", Rules { act: gone, ..Rules::default() }),
        ],
    );
    let reply = |request: &str| {
        let facts = facts(request);
        policy.rule(&facts, &HeaderMap::new()).reply(&facts)
    };
    let moved = reply("a/old/x?y").expect("an answer");
    assert_eq!((moved.status.as_u16(), moved.location.as_deref()), (301, Some("/new/old/x")));
    assert_eq!(reply("a/gone").expect("an answer").status, 410);
    assert_eq!(reply("a/other"), None);
}

#[test]
fn methods_that_are_not_listed_are_named() {
    let access =
        Access { methods: vec![http::Method::POST, http::Method::PUT], ..Access::default() };
    let policy = policy(Rules { access, ..Rules::default() }, Vec::new());
    let facts = facts("a/");
    let reply = admit(policy.rule(&facts, &HeaderMap::new()), &facts).expect_err("GET");
    assert_eq!((reply.status.as_u16(), reply.allow.as_deref()), (405, Some("POST, PUT")));
}

#[test]
fn limits_are_shared_with_the_service_unless_a_route_has_its_own() {
    let limits = |rate: &str| Limits {
        rates: vec![Rate::parse(rate).expect("a rate")],
        ..Limits::default()
    };
    let base = Rules { limits: limits("1/h burst 2"), ..Rules::default() };
    let own = RouteSpec {
        own_limits: true,
        ..below("/own", Rules { limits: limits("1/h burst 1"), ..Rules::default() })
    };
    let spec = Spec { base: base.clone(), routes: vec![own, below("/shared", base)] };
    let (seed, now) = (Seed::new(), Instant::now());
    let first = Policy::new(spec.clone(), None, &seed, now);
    let ask = |policy: &Policy, request: &str| {
        let facts = facts(request);
        admit(policy.rule(&facts, &HeaderMap::new()), &facts).map_err(|reply| reply.status.as_u16())
    };
    assert!(ask(&first, "a/own").is_ok());
    assert_eq!(ask(&first, "a/own").err(), Some(429));
    assert!(ask(&first, "a/").is_ok() && ask(&first, "a/shared").is_ok());
    assert_eq!(ask(&first, "a/").err(), Some(429));
    // A reload that changes something else forgets nothing.
    let mut spec = spec;
    spec.base.security_headers = true;
    let second = Policy::new(spec.clone(), Some(&first), &seed, now);
    assert_eq!((ask(&second, "a/").err(), ask(&second, "a/own").err()), (Some(429), Some(429)));
    // One that changes a limit begins anew with that one.
    spec.base.limits = limits("1/h burst 3");
    let third = Policy::new(spec, Some(&second), &seed, now);
    assert!(ask(&third, "a/").is_ok());
    assert_eq!(ask(&third, "a/own").err(), Some(429));
}

#[test]
fn limits_tell_clients_apart_as_they_say_and_spare_whom_they_say() {
    let rate = |text: &str| Rate::parse(text).expect("a rate");
    let limits = Limits {
        rates: vec![rate("1/h burst 1 by header:x-api-key"), rate("1/h burst 100 by everyone")],
        at_once: vec![AtOnce::parse("1").expect("a limit")],
        exempt: set(&["10.0.0.0/8"]),
    };
    let policy = policy(Rules { limits, ..Rules::default() }, Vec::new());
    let ask = |client: [u8; 4], key: Option<&'static str>| {
        let mut headers = HeaderMap::new();
        headers.extend(key.map(|key| {
            (http::HeaderName::from_static("x-api-key"), HeaderValue::from_static(key))
        }));
        let facts = Facts { client: client.into(), ..facts("a/") };
        let rule = policy.rule(&facts, &headers);
        rule.admit(&facts, &headers, 0, Instant::now())
    };
    let first = ask([1, 1, 1, 1], Some("a")).expect("the first");
    let second = ask([1, 1, 1, 1], Some("b")).expect_err("one at a time");
    assert_eq!((second.status.as_u16(), second.retry_after), (429, Some(1)));
    drop(first);
    assert!(ask([1, 1, 1, 1], Some("b")).is_ok());
    let third = ask([2, 2, 2, 2], Some("a")).expect_err("the key's rate");
    assert_eq!((third.status.as_u16(), third.retry_after), (429, Some(3_600)));
    assert!(ask([3, 3, 3, 3], None).is_ok() && ask([3, 3, 3, 3], None).is_err());
    // A key that spells an address uses up nothing of whoever has that.
    assert!(ask([9, 9, 9, 9], Some("!\"#$")).is_ok());
    assert!(ask([b'!', b'"', b'#', b'$'], None).is_ok());
    for _ in 0..300 {
        assert!(ask([10, 1, 1, 1], Some("a")).is_ok());
    }
    let last = (0..=99_u8).filter_map(|n| ask([4, 4, 4, n], None).err()).next_back();
    assert_eq!(last.expect("everyone's rate").status.as_u16(), 503);
}

#[test]
fn a_page_for_one_status_comes_before_one_for_its_class() {
    let page = |first, last, body: &'static str| Page {
        statuses: (first, last),
        body: Bytes::from_static(body.as_bytes()),
        kind: HeaderValue::from_static("text/html"),
    };
    let pages = vec![page(500, 599, "class"), page(502, 502, "one")];
    let policy = policy(Rules { pages, ..Rules::default() }, Vec::new());
    let said = |status: u16| {
        let status = StatusCode::from_u16(status).expect("a status");
        policy.base.page(status).map(|page| page.body.clone())
    };
    assert_eq!(said(502).as_deref(), Some(b"one".as_slice()));
    assert_eq!(said(503).as_deref(), Some(b"class".as_slice()));
    assert_eq!(said(404), None);
}

#[test]
fn nothing_to_do_is_no_policy() {
    assert!(Spec::default().is_empty());
    let https = Spec { base: Rules { to_https: true, ..Rules::default() }, routes: Vec::new() };
    assert!(https.is_empty());
    let preset = Rules { security_headers: true, ..Rules::default() };
    assert!(!Spec { base: preset, routes: Vec::new() }.is_empty());
    let routed = Spec { base: Rules::default(), routes: vec![RouteSpec::default()] };
    assert!(!routed.is_empty());
}
