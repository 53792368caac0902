//! The world is not as the mathematics has it: sides without traffic, clocks that jump, bursts, clients
//! who are all alike on one side. Whatever comes, a healthy canary stays and a bad one does not pass.

use super::clients::alike;
use super::criteria::{Criteria, Unit};
use super::judge::Judge;
use super::normal::quantile;
use super::scorecard::Sample;
use super::simulation::{Behaviour, Dice, HEALTHY, Plan};
use super::verdict::{Finding, Verdict};
use crate::model::moment::Moment;
use crate::model::weight::Weight;

fn weight(percent: f64) -> Weight {
    Weight::from_percent(percent).expect("a weight")
}

/// So many requests that behave so.
fn some(count: u64, behaviour: Behaviour, dice: &mut Dice) -> Sample {
    let mut sample = Sample::default();
    for _ in 0..count {
        behaviour.answer(dice, &mut sample);
    }
    sample
}

/// A judge at a step of this weight, that knows a minute of a healthy stable.
fn judge_at(criteria: Criteria, percent: f64, dice: &mut Dice) -> Judge {
    let mut judge = Judge::new(criteria, &some(6_000, HEALTHY, dice), Moment(0));
    judge.begin_step(weight(percent), Moment(0));
    judge
}

#[test]
fn a_canary_that_nobody_asks_is_not_blamed() {
    for percent in [5.0, 25.0, 50.0] {
        let mut dice = Dice::new(3);
        let mut judge = judge_at(Criteria::default(), percent, &mut dice);
        for poll in 1..=1_200_u64 {
            // A minute without a request, and then as many as were configured.
            let canary = if poll <= 600 { 0 } else { percent as u64 / 5 };
            let canary = some(canary, HEALTHY, &mut dice);
            let stable = some(20 - percent as u64 / 5, HEALTHY, &mut dice);
            let verdict = judge.observe(&stable, &canary, Moment(poll * 100));
            assert_ne!(verdict.result, Finding::Fail, "{percent} %, {poll}: {}", verdict.sentence);
            if poll == 600 {
                assert_eq!(verdict.result, Finding::Inconclusive, "{}", verdict.sentence);
            }
        }
        let against = judge.evidence_against();
        assert!(against < 10.0, "{percent} %: {against}");
    }
}

#[test]
fn a_canary_is_not_blamed_for_an_incident_that_nobody_else_was_asked_in() {
    let mut dice = Dice::new(5);
    let mut judge = judge_at(Criteria::default(), 20.0, &mut dice);
    judge.begin_step_beside(weight(20.0), weight(20.0), Moment(0));
    for poll in 1..=1_200_u64 {
        // What it is compared with answers nothing for half a minute, in which one in ten fails.
        let quiet = (300..600).contains(&poll);
        let both = Behaviour { errors: if quiet { 0.1 } else { 0.001 }, ..HEALTHY };
        let stable = some(if quiet { 0 } else { 10 }, both, &mut dice);
        let canary = some(10, both, &mut dice);
        let verdict = judge.observe(&stable, &canary, Moment(poll * 100));
        assert_ne!(verdict.result, Finding::Fail, "{poll}: {}", verdict.sentence);
    }
}

#[test]
fn where_everything_fails_from_the_first_request_nothing_is_concluded() {
    let down = Behaviour { errors: 1.0, ..HEALTHY };
    for (rate, percent) in [(2.0, 5.0), (2.0, 50.0), (20.0, 5.0), (20.0, 50.0), (300.0, 25.0)] {
        for seed in 1..=5 {
            let mut dice = Dice::new(seed);
            // Nothing is known of stable.
            let mut judge = Judge::new(Criteria::default(), &Sample::default(), Moment(0));
            judge.begin_step(weight(percent), Moment(0));
            for poll in 1..=600_u64 {
                let of_canary = dice.poisson(rate / 10.0 * percent / 100.0);
                let of_stable = dice.poisson(rate / 10.0 * (1.0 - percent / 100.0));
                let canary = some(of_canary, down, &mut dice);
                let stable = some(of_stable, down, &mut dice);
                let verdict = judge.observe(&stable, &canary, Moment(poll * 100));
                let told = format!("{rate}/s at {percent} %, {poll}: {}", verdict.sentence);
                assert_eq!(verdict.result, Finding::Inconclusive, "{told}");
            }
        }
    }
}

#[test]
fn a_clock_that_jumps_decides_nothing() {
    let mut dice = Dice::new(7);
    let mut judge = judge_at(Criteria::default(), 25.0, &mut dice);
    let mut clock = 1_000_000_u64;
    let mut passed = false;
    for poll in 1..=900_u64 {
        clock = match poll {
            // A laptop that slept; a clock that was set back; one that stood still.
            300 => clock + 3_600_000,
            500 => clock - 20_000,
            700 => clock,
            _ => clock + 100,
        };
        let canary = some(5, HEALTHY, &mut dice);
        let verdict = judge.observe(&some(15, HEALTHY, &mut dice), &canary, Moment(clock));
        assert_ne!(verdict.result, Finding::Fail, "{poll}: {}", verdict.sentence);
        passed |= verdict.result == Finding::Pass;
    }
    assert!(passed, "slots went on");
    // And a bad one is still found.
    let bad = Behaviour { errors: 0.2, ..HEALTHY };
    let found = (1..=300_u64).any(|poll| {
        let (stable, canary) = (some(15, HEALTHY, &mut dice), some(5, bad, &mut dice));
        judge.observe(&stable, &canary, Moment(clock + poll * 100)).result == Finding::Fail
    });
    assert!(found);
}

#[test]
fn bursts_are_no_evidence() {
    for seed in 1..=10 {
        let mut dice = Dice::new(seed);
        let mut judge = judge_at(Criteria::default(), 25.0, &mut dice);
        for poll in 1..=1_200_u64 {
            // Now and then all at once, and of those one in five fails, wherever.
            let burst = poll.is_multiple_of(70);
            let all = if burst { 300.0 } else { 0.5 };
            let both = Behaviour {
                errors: if burst { 0.2 } else { 0.001 },
                median: if burst { 0.2 } else { 0.02 },
                ..HEALTHY
            };
            let (c, b) = (dice.poisson(all * 0.25), dice.poisson(all * 0.75));
            let canary = some(c, both, &mut dice);
            let stable = some(b, both, &mut dice);
            let verdict = judge.observe(&stable, &canary, Moment(poll * 100));
            assert_ne!(verdict.result, Finding::Fail, "{seed}, {poll}: {}", verdict.sentence);
        }
    }
}

fn endings(canary: Behaviour, rps: f64, until: f64) -> Vec<super::simulation::Ending> {
    let steps = &[5.0, 25.0, 50.0, 100.0];
    let plan = Plan { rps, steps, bake: 1.0, until, criteria: Criteria::default() };
    let story = move |_: f64, is_canary: bool| if is_canary { canary } else { HEALTHY };
    (1..=6).map(|seed| plan.play(&story, seed)).collect()
}

#[test]
fn slowness_on_one_route_does_not_pass() {
    // A route that has two requests in a hundred: p95, which is watched, hardly shows it, and p99 does.
    for end in endings(Behaviour { tail: (0.02, 0.5), ..HEALTHY }, 500.0, 60.0) {
        assert!(end.passed.is_empty(), "{}", end.verdict.sentence);
    }
    // One in ten: p95 lies there.
    for end in endings(Behaviour { tail: (0.1, 0.5), ..HEALTHY }, 500.0, 60.0) {
        assert!(end.failed() && end.passed.is_empty(), "{}", end.verdict.sentence);
    }
}

#[test]
fn a_canary_that_knows_no_routes_is_taken_back() {
    for (rejected, rps) in [(1.0, 500.0), (0.5, 500.0), (1.0, 20.0)] {
        for end in endings(Behaviour { rejected, errors: 0.0, ..HEALTHY }, rps, 120.0) {
            let told = format!("{rejected} at {rps}/s: {} s: {}", end.at, end.verdict.sentence);
            assert!(end.failed() && end.passed.is_empty(), "{told}");
        }
    }
}

/// Clients who stay on their side, each with a pace and a speed of its own, on a canary that equals
/// stable but for its 4xx answers and its speed. The last verdict, the evidence, whether it passed.
fn clients(
    count: u64,
    percent: f64,
    (rejected, slower): (f64, f64),
    seed: u64,
) -> (Verdict, f64, bool) {
    let criteria = Criteria { unit: Unit::Session, ..Criteria::default() };
    let mut dice = Dice::new(seed);
    let mut judge = judge_at(criteria, percent, &mut dice);
    let clients: Vec<(usize, f64, f64)> = (0..count)
        .map(|_| {
            let side = usize::from(dice.roll() < percent / 100.0);
            let pace = (0.7 * quantile(dice.roll())).exp();
            (side, pace, (0.3 * quantile(dice.roll())).exp())
        })
        .collect();
    let (mut passed, mut last, mut asked) = (false, None, [[0_u64; 256]; 2]);
    for second in 1..=120_u64 {
        let mut samples = [Sample::default(), Sample::default()];
        for (client, (side, pace, speed)) in clients.iter().enumerate() {
            let is_canary = *side == 1;
            let rejected = if is_canary { rejected } else { HEALTHY.rejected };
            let median = 0.02 * speed * if is_canary { slower } else { 1.0 };
            let behaviour = Behaviour { median, rejected, errors: 0.0, ..HEALTHY };
            for _ in 0..dice.poisson(*pace) {
                behaviour.answer(&mut dice, &mut samples[*side]);
                asked[*side][client % 256] += 1;
            }
        }
        judge.observe_clients(asked.map(|of| alike(of.into_iter())));
        let verdict = judge.observe(&samples[0], &samples[1], Moment(second * 1_000));
        passed |= verdict.result == Finding::Pass;
        let is_over = verdict.result == Finding::Fail;
        last = Some(verdict);
        if is_over {
            break;
        }
    }
    (last.expect("a verdict"), judge.evidence_against(), passed)
}

#[test]
fn few_clients_who_stay_take_nothing_back() {
    for (count, percent) in [(10, 25.0), (30, 5.0), (30, 25.0), (200, 5.0), (200, 25.0)] {
        let ends: Vec<_> =
            (1..=30).map(|seed| clients(count, percent, (0.01, 1.0), seed)).collect();
        let failed = ends.iter().filter(|(verdict, ..)| verdict.result == Finding::Fail).count();
        let loud = ends.iter().filter(|(_, against, _)| *against >= 10.0).count();
        let passed = ends.iter().filter(|(.., passed)| *passed).count();
        println!(
            "{count} clients at {percent} %: {failed} of 30 taken back, {loud} loud, {passed} passed"
        );
        for (verdict, ..) in ends.iter().filter(|(v, ..)| v.result == Finding::Fail) {
            println!("{}", verdict.sentence);
        }
        assert_eq!(failed, 0);
    }
}

#[test]
fn many_clients_who_stay_show_that_all_is_slower() {
    for (slower, percent) in [(1.6, 25.0), (2.5, 5.0)] {
        let ends = (1..=10).map(|seed| clients(400, percent, (0.01, slower), seed));
        let failed = ends.filter(|(verdict, ..)| verdict.result == Finding::Fail).count();
        println!("x{slower} at {percent} %: {failed} of 10");
        assert!(failed >= 9, "x{slower} at {percent} %: {failed} of 10");
    }
}

#[test]
fn a_canary_that_refuses_its_clients_does_not_pass() {
    for seed in 1..=5 {
        let (verdict, _, passed) = clients(200, 25.0, (1.0, 1.0), seed);
        assert!(!passed && verdict.sentence.contains("4xx"), "{}", verdict.sentence);
    }
}
