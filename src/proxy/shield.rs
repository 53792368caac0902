//! Which failures of a canary stable answers, before the visitor sees them.
//!
//! The failure counts against the canary all the same: who was spared says nothing about the
//! revision. What may be sent twice is decided by the method and the service's `shield`; how often,
//! by its [budget]. A tester asked for one revision and gets what that revision says.
//!
//! [budget]: crate::routing::budget

use http::StatusCode;

use super::choice::Choice;
use super::clock::TICK;
use super::error::Failure;
use super::parcel::{Head, Parcel};
use super::route::Route;
use super::worker::Worker;
use crate::routing::settings::Shield;

/// Whether an answer is looked at a second time: everything else goes straight to the client.
#[inline]
pub fn is_doubtful(status: StatusCode) -> bool {
    status.is_server_error() || status == StatusCode::NOT_FOUND
}

/// Whether a request that got this failure from a canary may go to stable.
pub fn covers_failure(route: &Route, choice: &Choice, failure: &Failure, head: &Head) -> bool {
    let not_sent = matches!(failure, Failure::Connect(_) | Failure::ConnectTimeout);
    covers(route, choice, head, not_sent)
}

/// Whether a request that got this status from a canary may go to stable.
pub fn covers_status(route: &Route, choice: &Choice, status: StatusCode, head: &Head) -> bool {
    status.is_server_error() && is_error(route, status, head) && covers(route, choice, head, false)
}

/// By the rule of its path; where nothing is counted, by the service's.
fn is_error(route: &Route, status: StatusCode, head: &Head) -> bool {
    let settings = &route.service().settings;
    let rule = settings.rule(settings.exception(head.uri.path())).unwrap_or(&settings.errors);
    rule.is_error(status.as_u16())
}

fn covers(route: &Route, choice: &Choice, head: &Head, not_sent: bool) -> bool {
    let service = route.service();
    let may = match service.settings.shield {
        Shield::Off => false,
        Shield::Safe => not_sent || head.is_safe(),
        Shield::Idempotent => not_sent || head.is_idempotent(),
    };
    may && choice.is_observation() && service.stable.is_some()
}

/// Keeps the body of a request to a canary, if it may have to be sent again.
pub fn keep_body(route: &Route, choice: &Choice, parcel: &mut Parcel) {
    let room = route.service().settings.shield_body;
    if room > 0 && parcel.kept.is_none() && covers(route, choice, &parcel.head, false) {
        parcel.keep_body(room);
    }
}

/// Stable got a request of its own.
#[inline]
pub fn earn(worker: &Worker, route: &Route) {
    if let Some(budget) = &route.service().budget {
        budget.earn(worker.index, second(worker));
    }
}

/// Takes one from the budget. `false` when it is spent: the visitor sees the failure.
pub fn spend(worker: &Worker, route: &Route) -> bool {
    let service = route.service();
    let share = service.settings.shield_budget;
    service.budget.as_ref().is_some_and(|budget| budget.spend(worker.index, second(worker), share))
}

/// The second of the worker's clock.
pub fn second(worker: &Worker) -> u32 {
    let ticks: u64 = worker.clock.now();
    u32::try_from(ticks * TICK.as_millis() as u64 / 1_000).unwrap_or(u32::MAX)
}
