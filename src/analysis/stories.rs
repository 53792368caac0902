//! Whole rollouts, simulated: what the judge promises, asserted.
//!
//! Few runs, fixed seeds; `benches/analysis.rs` runs the same stories often enough for tables.

use super::criteria::{Criteria, Unit};
use super::judge::{Judge, Memory};
use super::normal::quantile;
use super::scorecard::{Row, Sample};
use super::simulation::{Behaviour, Dice, Ending, HEALTHY, Plan, median_and_p95};
use super::verdict::Finding;
use crate::model::moment::Moment;
use crate::model::weight::Weight;

const STEPS: &[f64] = &[5.0, 25.0, 50.0, 100.0];

fn plan(rps: f64, until: f64) -> Plan<'static> {
    Plan { rps, steps: STEPS, bake: 1.0, until, criteria: Criteria::default() }
}

/// A canary with a fault from the first second, beside a healthy stable.
fn fault(canary: Behaviour) -> impl Fn(f64, bool) -> Behaviour {
    move |_, is_canary| if is_canary { canary } else { HEALTHY }
}

fn play_all(
    name: &str,
    plan: &Plan<'_>,
    story: &dyn Fn(f64, bool) -> Behaviour,
    runs: u64,
) -> Vec<Ending> {
    let endings: Vec<Ending> = (1..=runs).map(|seed| plan.play(story, seed)).collect();
    let failed: Vec<f64> = endings.iter().filter(|end| end.failed()).map(|end| end.at).collect();
    let errors = endings.iter().map(|end| end.canary.1 as f64).collect();
    let since: Vec<f64> =
        endings.iter().filter(|end| end.failed()).map(|end| end.at - end.first_error).collect();
    let times: Vec<f64> = endings.iter().filter_map(|end| end.passed.last().copied()).collect();
    println!(
        "{name}: {}/{} taken back, median {:.1} s, p95 {:.1} s, {:.1?} since the first error, {:.0} failed requests; passed {:?}: {}",
        failed.len(),
        runs,
        median_and_p95(failed.clone()).0,
        median_and_p95(failed.clone()).1,
        median_and_p95(since),
        median_and_p95(errors).0,
        median_and_p95(times),
        endings[0].verdict.sentence,
    );
    endings
}

fn median_failure(endings: &[Ending]) -> f64 {
    assert!(endings.iter().all(Ending::failed), "some were not taken back");
    median_and_p95(endings.iter().map(|end| end.at).collect()).0
}

#[test]
fn a_dead_canary_is_taken_back_within_a_second() {
    let dead = fault(Behaviour { errors: 1.0, ..HEALTHY });
    let endings = play_all("dead, 1000/s", &plan(1000.0, 60.0), &dead, 10);
    assert!(endings.iter().all(|end| end.failed() && end.at <= 1.0));
    let endings = play_all("dead, 20/s", &plan(20.0, 60.0), &dead, 40);
    assert!(median_failure(&endings) <= 4.0);
}

#[test]
fn five_percent_errors_are_seen_within_six_seconds() {
    let errors = fault(Behaviour { errors: 0.05, ..HEALTHY });
    let endings = play_all("0.1 to 5 %, 1000/s", &plan(1000.0, 120.0), &errors, 20);
    assert!(median_failure(&endings) <= 6.0);
    play_all("0.1 to 5 %, 20/s", &plan(20.0, 900.0), &errors, 10);
}

#[test]
fn half_as_slow_again_is_seen_within_ten_seconds() {
    let slow = fault(Behaviour { median: HEALTHY.median * 1.5, ..HEALTHY });
    let endings = play_all("x1.5, 1000/s", &plan(1000.0, 120.0), &slow, 20);
    assert!(median_failure(&endings) <= 10.0);
    let slow = fault(Behaviour { median: HEALTHY.median * 3.0, ..HEALTHY });
    let endings = play_all("x3, 1000/s", &plan(1000.0, 120.0), &slow, 20);
    assert!(median_failure(&endings) <= 6.0);
    play_all("x3, 20/s", &plan(20.0, 600.0), &slow, 10);
}

#[test]
fn a_healthy_canary_is_promoted_in_under_three_minutes() {
    let healthy = |_, _| HEALTHY;
    let endings = play_all("healthy, 1000/s", &plan(1000.0, 400.0), &healthy, 15);
    for ending in &endings {
        assert!(!ending.failed(), "{}", ending.verdict.sentence);
    }
    let mut steps = vec![Vec::new(); STEPS.len()];
    for ending in &endings {
        assert_eq!(ending.passed.len(), STEPS.len(), "{}", ending.verdict.sentence);
        let mut before = 0.0;
        for (step, at) in steps.iter_mut().zip(&ending.passed) {
            step.push(at - before);
            before = *at;
        }
    }
    for (percent, times) in STEPS.iter().zip(steps) {
        println!("  step {percent} %: {:?} s (median, p95)", median_and_p95(times));
    }
    let totals = endings.iter().map(|end| end.at).collect();
    assert!(median_and_p95(totals).0 < 180.0);
}

#[test]
fn an_incident_that_both_sides_share_takes_nothing_back() {
    let shared = |at: f64, _| {
        let errors = if (10.0..40.0).contains(&at) { 0.10 } else { 0.001 };
        Behaviour { errors, ..HEALTHY }
    };
    for rps in [1000.0, 20.0] {
        let long = Plan { bake: 20.0, ..plan(rps, 130.0) };
        let endings = play_all(&format!("shared incident, {rps}/s"), &long, &shared, 10);
        for ending in endings {
            assert!(!ending.failed(), "{}", ending.verdict.sentence);
            assert!(ending.held || rps < 100.0);
        }
    }
    let outage = |at: f64, _| {
        let errors = if (10.0..20.0).contains(&at) { 1.0 } else { 0.001 };
        Behaviour { errors, ..HEALTHY }
    };
    let long = Plan { bake: 20.0, ..plan(1000.0, 60.0) };
    for ending in play_all("shared outage, 1000/s", &long, &outage, 10) {
        assert!(!ending.failed(), "{}", ending.verdict.sentence);
    }
}

#[test]
fn a_slowness_that_both_sides_share_holds() {
    let shared = |at: f64, _| {
        let factor = if (10.0..40.0).contains(&at) { 3.0 } else { 1.0 };
        Behaviour { median: HEALTHY.median * factor, ..HEALTHY }
    };
    let long = Plan { bake: 20.0, ..plan(200.0, 60.0) };
    for ending in play_all("shared slowness, 200/s", &long, &shared, 5) {
        assert!(!ending.failed() && ending.held, "{}", ending.verdict.sentence);
    }
}

#[test]
fn no_worse_is_not_taken_back() {
    let healthy = |_, _| HEALTHY;
    let stay = Plan { steps: &[5.0], bake: 1e9, ..plan(20.0, 600.0) };
    let endings = play_all("A/A, 20/s", &stay, &healthy, 20);
    assert!(endings.iter().all(|end| !end.failed()));
    let bursts = |at: f64, _| Behaviour {
        errors: if ((at / 7.0) as u64).is_multiple_of(3) { 0.04 } else { 0.002 },
        median: 0.02 * (1.0 + 0.5 * (at / 20.0).sin()),
        ..HEALTHY
    };
    let stay = Plan { steps: &[25.0], bake: 1e9, ..plan(200.0, 120.0) };
    let endings = play_all("A/A in bursts, 200/s", &stay, &bursts, 20);
    assert!(endings.iter().all(|end| !end.failed()));
}

#[test]
fn a_limit_that_stable_breaks_too_holds() {
    let both = |_, _| Behaviour { errors: 0.03, ..HEALTHY };
    let stay = Plan { steps: &[25.0], ..plan(200.0, 60.0) };
    for ending in play_all("both over the limit", &stay, &both, 10) {
        assert!(!ending.failed() && ending.held, "{}", ending.verdict.sentence);
        assert!(ending.passed.is_empty());
    }
}

#[test]
fn a_time_limit_is_held_against_the_canary() {
    let slow = fault(Behaviour { tail: (0.05, 0.6), ..HEALTHY });
    let criteria = "p99 > 500ms".parse().expect("limits");
    let stay = Plan { criteria, ..plan(200.0, 120.0) };
    let endings = play_all("5 % take 600 ms more", &stay, &slow, 10);
    assert!(median_failure(&endings) < 60.0);
    assert!(endings.iter().all(|end| end.verdict.checks.iter().any(|check| check.name == "p99")));
}

#[test]
fn a_fault_at_full_weight_is_taken_back() {
    for (name, canary) in [
        ("5 % errors", Behaviour { errors: 0.05, ..HEALTHY }),
        ("x3 slower", Behaviour { median: HEALTHY.median * 3.0, ..HEALTHY }),
        ("dead", Behaviour { errors: 1.0, ..HEALTHY }),
    ] {
        let story = move |at: f64, is_canary| if is_canary && at > 30.0 { canary } else { HEALTHY };
        let late = Plan { steps: &[50.0, 100.0], bake: 29.0, ..plan(1000.0, 90.0) };
        let endings = play_all(&format!("at 100 %: {name}"), &late, &story, 5);
        assert!(median_failure(&endings) < 40.0);
    }
}

/// Feeds the same traffic to a judge that is never interrupted and to one that is killed at a slot's
/// end; both are then worth the same. What came in between is a bet of zero.
#[test]
fn a_judge_that_was_killed_goes_on_where_it_was() {
    let traffic = |index: u64| {
        let (mut stable, mut canary) = (Sample::default(), Sample::default());
        for request in 0..95 {
            stable.row_mut(Row::Success).record(9_000 + (index * 37 + request * 101) % 9_000);
        }
        stable.row_mut(Row::Failure).record(u64::from(index.is_multiple_of(3)) + 1);
        for request in 0..5 {
            canary.row_mut(Row::Success).record(9_500 + (index * 53 + request * 997) % 9_000);
        }
        if index.is_multiple_of(11) {
            canary.row_mut(Row::Failure).record(5_000);
        }
        (stable, canary)
    };
    let criteria: Criteria = "errors > 2% or p95 > 1.5x or p99 > 900ms".parse().expect("limits");
    for killed_at in [10, 40, 120] {
        let mut judge = Judge::new(criteria.clone(), &Sample::default(), Moment(0));
        judge.begin_step(Weight::from_percent(5.0).expect("a weight"), Moment(0));
        let mut again: Option<Judge> = None;
        for poll in 1..200_u64 {
            let (stable, canary) = traffic(poll);
            judge.observe(&stable, &canary, Moment(poll * 100));
            if let Some(again) = &mut again {
                // Another process, another clock.
                again.observe(&stable, &canary, Moment(poll * 100 + 777_000));
                let (ours, theirs) = (judge.evidence_against(), again.evidence_against());
                assert!((ours / theirs - 1.0).abs() < 1e-4, "{poll}: {ours} against {theirs}");
            }
            if poll == killed_at {
                let text = serde_json::to_string(&judge.memory()).expect("JSON");
                let memory: Memory = serde_json::from_str(&text).expect("a memory");
                assert_eq!(memory.slots, judge.slots());
                again =
                    Some(Judge::resume(criteria.clone(), &memory, Moment(poll * 100 + 777_000)));
            }
        }
    }
}

#[test]
fn the_slot_under_way_is_lost_and_nothing_else() {
    let mut judge = Judge::new(Criteria::default(), &Sample::default(), Moment(0));
    judge.begin_step(Weight::from_percent(50.0).expect("a weight"), Moment(0));
    let mut canary = Sample::default();
    canary.row_mut(Row::Failure).add(100, 2);
    let mut stable = Sample::default();
    stable.row_mut(Row::Success).add(100, 5);
    judge.observe(&stable, &canary, Moment(1_000));
    let settled = judge.evidence_against();
    judge.observe(&stable, &canary, Moment(1_100));
    assert!(judge.evidence_against() > settled);
    let again = Judge::resume(Criteria::default(), &judge.memory(), Moment(5));
    assert!((again.evidence_against() / settled - 1.0).abs() < 1e-9);
}

#[test]
fn a_second_attempt_begins_with_half() {
    let judge = Judge::again(Criteria::default(), &Sample::default(), 1, Moment(0));
    assert!((judge.evidence_against() - 0.5).abs() < 1e-12);
    let judge = Judge::resume(Criteria::default(), &judge.memory(), Moment(0));
    assert!((judge.evidence_against() - 0.5).abs() < 1e-12);
}

#[test]
fn no_traffic_is_inconclusive() {
    let mut judge = Judge::new(Criteria::default(), &Sample::default(), Moment(0));
    let nothing = Sample::default();
    assert_eq!(judge.observe(&nothing, &nothing, Moment(100)).result, Finding::Inconclusive);
    for percent in [5.0, 100.0, 0.0] {
        judge.begin_step(Weight::from_percent(percent).expect("a weight"), Moment(200));
        let verdict = judge.observe(&nothing, &nothing, Moment(300));
        assert_eq!(verdict.result, Finding::Inconclusive, "{verdict:?}");
        assert_eq!(verdict.sentence, "no canary requests yet");
    }
}

#[test]
fn a_split_that_is_not_the_configured_one_holds() {
    let mut judge = Judge::new(Criteria::default(), &Sample::default(), Moment(0));
    judge.begin_step(Weight::from_percent(5.0).expect("a weight"), Moment(0));
    let (mut stable, mut canary) = (Sample::default(), Sample::default());
    stable.row_mut(Row::Success).add(200, 9_000);
    canary.row_mut(Row::Success).add(200, 1_000);
    let verdict = judge.observe(&stable, &canary, Moment(100));
    assert!(verdict.hold.is_some_and(|hold| hold.contains("10 % of the requests where 5 %")));
    assert_eq!(verdict.result, Finding::Inconclusive);
}

/// Clients who stay on their side, each with a coin of its own; some of them meet an error at every
/// request. `broken` is the fraction of them on each side.
fn clients(criteria: &Criteria, seed: u64, broken: [f64; 2]) -> bool {
    let mut dice = Dice::new(seed);
    let mut history = Sample::default();
    history.row_mut(Row::Failure).add(100, 20);
    history.row_mut(Row::Success).add(100, 9_980);
    let mut judge = Judge::new(criteria.clone(), &history, Moment(0));
    judge.begin_step(Weight::from_percent(25.0).expect("a weight"), Moment(0));
    // Who came, on which side, whether broken, whether that was noticed before.
    let mut met: Vec<(usize, bool, bool)> = Vec::new();
    for second in 1..=120_u64 {
        let mut samples = [Sample::default(), Sample::default()];
        for _ in 0..15 {
            let side = usize::from(dice.roll() < 0.25);
            met.push((side, dice.roll() < broken[side], false));
        }
        for (side, is_broken, noticed) in &mut met {
            // A request every two seconds; who is broken tries again and again.
            let row = match (*is_broken, *noticed) {
                (false, _) => Row::Success,
                (true, false) => Row::Failure,
                (true, true) if criteria.unit == Unit::Session => Row::Repeated,
                (true, true) => Row::Failure,
            };
            if dice.roll() < 0.5 {
                *noticed |= *is_broken;
                samples[*side].row_mut(row).add(100, 1);
            }
        }
        let verdict = judge.observe(&samples[0], &samples[1], Moment(second * 1_000));
        if verdict.result == Finding::Fail {
            return true;
        }
    }
    false
}

#[test]
fn a_few_broken_clients_take_nothing_back_where_clients_are_the_unit() {
    let of = |unit| Criteria { unit, ..Criteria::of(Criteria::default().limits[..1].to_vec()) };
    let wrong = |unit| (1..=60).filter(|seed| clients(&of(unit), *seed, [0.01, 0.01])).count();
    let (sessions, requests) = (wrong(Unit::Session), wrong(Unit::Request));
    println!("taken back of 60: {sessions} by clients, {requests} by requests");
    assert!(sessions <= 2, "{sessions}");
    assert!(requests > 5, "by requests it would be wrong, or this shows nothing: {requests}");
    let worse = (1..=20).filter(|seed| clients(&of(Unit::Session), *seed, [0.01, 0.2])).count();
    assert!(worse >= 18, "{worse} of 20 were found");
}

#[test]
fn instances_that_differ_raise_what_latency_must_show() {
    let criteria = Criteria { compares_instances: true, ..Criteria::default() };
    let play = |spread: bool| {
        let mut history = Sample::default();
        let latency = |dice: &mut Dice, factor: f64| {
            (20_000.0 * factor * (0.3 * quantile(dice.roll())).exp()) as u64
        };
        let mut dice = Dice::new(4);
        for _ in 0..5_000 {
            history.row_mut(Row::Success).record(latency(&mut dice, 1.0));
        }
        let mut judge = Judge::new(criteria.clone(), &history, Moment(0));
        judge.begin_step(Weight::from_percent(25.0).expect("a weight"), Moment(0));
        (1..=60_u64).find(|second| {
            let mut each = vec![Sample::default(); 3];
            let (mut stable, mut canary) = (Sample::default(), Sample::default());
            for (index, instance) in each.iter_mut().enumerate() {
                // One of three instances is slow, of the same revision.
                let factor = if spread && index == 2 { 1.6 } else { 1.0 };
                for _ in 0..25 {
                    instance.row_mut(Row::Success).record(latency(&mut dice, factor));
                }
                stable.merge(instance);
            }
            for _ in 0..25 {
                canary.row_mut(Row::Success).record(latency(&mut dice, 1.6));
            }
            judge.observe_instances(&each);
            let verdict = judge.observe(&stable, &canary, Moment(second * 1_000));
            verdict.result == Finding::Fail
        })
    };
    assert!(play(false).is_some_and(|second| second < 15), "{:?}", play(false));
    assert_eq!(play(true), None, "one of stable's own instances is as slow");
}

/// Errors of a fresh part of stable, at the share that the two have of each other.
#[test]
fn a_part_of_stable_is_compared_at_its_own_share() {
    let weight = |percent: f64| Weight::from_percent(percent).expect("a weight");
    let play = |canary_errors: u64| {
        let mut judge = Judge::new(Criteria::default(), &Sample::default(), Moment(0));
        judge.begin_step_beside(weight(10.0), weight(10.0), Moment(0));
        let mut last = None;
        for poll in 1..=300_u64 {
            let (mut stable, mut canary) = (Sample::default(), Sample::default());
            stable.row_mut(Row::Success).add(300, 50);
            canary.row_mut(Row::Success).add(300, 50 - canary_errors);
            canary.row_mut(Row::Failure).add(300, canary_errors);
            last = Some(judge.observe(&stable, &canary, Moment(poll * 100)));
        }
        last.expect("a verdict")
    };
    let healthy = play(0);
    assert_eq!(healthy.result, Finding::Pass, "{}", healthy.sentence);
    assert_eq!(healthy.hold, None, "half of what is compared is the canary's, as configured");
    assert_eq!(play(3).result, Finding::Fail);
}
