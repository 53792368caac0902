//! It must be able to fail.

use super::*;

#[track_caller]
fn fails(file: &str, body: &str, at: usize, rule: &str) {
    let found = complaints(file, &format!("//! A room.\n{body}"), false);
    let told: Vec<String> = found.iter().map(ToString::to_string).collect();
    let wanted = format!("src/{file}:{at}: ");
    let hit = told.iter().any(|told| told.starts_with(&wanted) && told.contains(rule));
    assert!(hit, "{body:?} gave {told:?}");
}

#[track_caller]
fn passes(file: &str, body: &str) {
    assert_eq!(complaints(file, &format!("//! A room.\n{body}"), false), []);
}

#[test]
fn on_a_wall_between_rooms() {
    let rule = "may not import";
    fails("proxy/handler.rs", "use crate::controller::handle::Handle;", 2, rule);
    fails("controller/fleet.rs", "\nuse crate::{model::id, proxy::worker};", 3, rule);
    fails("model/id.rs", "fn f() -> crate::analysis::Verdict {}", 2, rule);
    fails("routing/table.rs", "use crate::analysis::judge::Judge;", 2, rule);
    fails("admin/api.rs", "use crate::controller::driver::Driver;", 2, rule);
    fails("store/redb.rs", "use super::super::proxy::tls;", 2, rule);
    passes("routing/table.rs", "use crate::analysis::scorecard::{Sample, Scorecard};");
    passes("admin/api.rs", "use crate::controller::{handle::Handle, status};");
    passes("proxy/a.rs", "// use crate::controller::x;\n#[cfg(test)]\nmod t { use crate::store; }");
}

#[test]
fn on_a_foreign_crate_away_from_home() {
    let rule = "lives in";
    fails("controller/driver.rs", "use bollard::Docker;", 2, rule);
    fails("runtime/process.rs", "fn f() { hyper::x() }", 2, rule);
    fails("routing/table.rs", "use arc_swap::ArcSwap;", 2, rule);
    fails("admin/server.rs", "use tokio_rustls::TlsAcceptor;", 2, rule);
    passes("routing/live.rs", "use arc_swap::ArcSwap;");
    passes("runtime/docker/mod.rs", "use bollard::Docker;");
    passes("store/mod.rs", "pub mod redb;");
}

#[test]
fn on_an_impure_room() {
    let rule = "is pure";
    fails("rollout/machine.rs", "use std::time::Instant;\nfn f() { Instant::now(); }", 3, rule);
    fails("analysis/judge.rs", "async fn f() {}", 2, rule);
    fails("config/raw.rs", "fn f() { std::fs::read(1) }", 2, rule);
    fails("config/load.rs", "fn f() { Instant::now() }", 2, rule);
    passes("config/load.rs", "fn f() { std::fs::read(1) }");
    fails("routing/split.rs", "use fastrand::Rng;", 2, rule);
    fails("model/id.rs", "use std::net::TcpStream;", 2, rule);
    passes("model/instance.rs", "use std::net::SocketAddr;");
    passes("proxy/worker.rs", "async fn f() { Instant::now(); }");
}

#[test]
fn on_a_file_that_is_long_or_silent() {
    fails("app.rs", &"\n".repeat(LINES), 501, "501 lines");
    let found = complaints("app.rs", "use std::fmt;", false);
    assert_eq!(found.len(), 1, "{found:?}");
}

#[test]
fn on_a_word_that_is_not_ours() {
    let rule = "is not our word";
    fails("app.rs", "pub struct PoolManager;", 2, rule);
    fails("app.rs", "fn pick_backend() {}", 2, rule);
    fails("app.rs", "mod utils;", 2, rule);
    fails("app.rs", "enum TargetState {}", 2, rule);
    passes("app.rs", "fn targeted(backend: u8) { let util = 1; }");
}
