//! The machine in a hostile world, by seed: crashes at any moment, a disk that fails, completions
//! that are late, doubled or never come, people who say anything at any time.
//!
//! `SWITCHBACK_SEED=17 cargo test simulation` repeats one seed.

use std::collections::VecDeque;
use std::time::Duration;

use super::chance::Chance;
use super::world::World;
use super::*;
use crate::rollout::command::Command;

const SEEDS: u64 = 256;
const EVENTS: u32 = 3_200;
/// How many lines of a failing seed's trace are shown.
const TRACE: usize = 60;

#[test]
fn no_seed_breaks_the_law() {
    if let Ok(seed) = std::env::var("SWITCHBACK_SEED") {
        let [ended, promoted, _] = live(seed.parse().expect("a seed is a number"));
        println!("{ended} rollouts ended, {promoted} of them promoted");
        return;
    }
    let mut all = [0; 3];
    for seed in 0..SEEDS {
        for (sum, more) in all.iter_mut().zip(live(seed)) {
            *sum += more;
        }
    }
    let [ended, promoted, forgotten] = all;
    // A simulator in which nothing ever happens proves nothing.
    println!("{ended} rollouts ended, {promoted} of them promoted, {forgotten} returns forgotten");
    assert!(u64::from(promoted) > 4 * SEEDS, "only {promoted} promoted");
    assert!(u64::from(ended - promoted) > 4 * SEEDS, "only {} went back", ended - promoted);
    assert!(u64::from(forgotten) > SEEDS / 8, "only {forgotten} returns were forgotten");
}

/// What was done, told when the seed fails.
struct Trace {
    seed: u64,
    lines: VecDeque<Line>,
}

struct Line {
    now: Moment,
    act: Act,
    rollout: Option<(RolloutId, u32, Weight, Weight, Phase)>,
}

impl Trace {
    fn note(&mut self, world: &World, act: Act) {
        if self.lines.len() == TRACE {
            self.lines.pop_front();
        }
        let rollout = world.rollout.as_ref().map(|rollout| {
            let phase = rollout.phase.clone();
            (rollout.id, rollout.attempt, rollout.weight, rollout.settled, phase)
        });
        self.lines.push_back(Line { now: world.now, act, rollout });
    }
}

/// What the world was like, and then what happened.
impl Drop for Trace {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("seed {}; repeat with SWITCHBACK_SEED={}", self.seed, self.seed);
            for Line { now, act, rollout } in &self.lines {
                eprint!("{:>9} ms ", now.0);
                if let Some((id, attempt, wanted, settled, phase)) = rollout {
                    eprint!("rollout {id} #{attempt} wants {wanted} has {settled} {phase:?} ");
                }
                eprintln!("← {act:?}");
            }
        }
    }
}

/// One thing that the world does.
#[derive(Debug, Clone, Copy)]
enum Act {
    Tick,
    Jump,
    Weigh,
    Deliver,
    Repeat,
    Forge,
    FinishLaunch,
    Write,
    FailWrite,
    Say,
    Together,
    Lose,
    Retire,
    Crash,
}

/// How often each comes, in a hundred and something.
const ACTS: [(Act, u64); 14] = [
    (Act::Tick, 20),
    (Act::Jump, 2),
    (Act::Weigh, 22),
    (Act::Deliver, 18),
    (Act::Repeat, 4),
    (Act::Forge, 4),
    (Act::FinishLaunch, 4),
    (Act::Write, 24),
    (Act::FailWrite, 4),
    (Act::Say, 4),
    (Act::Together, 14),
    (Act::Lose, 1),
    (Act::Retire, 1),
    (Act::Crash, 2),
];

fn live(seed: u64) -> [u32; 3] {
    let mut chance = Chance::new(seed);
    let mut world = World::new();
    let mut trace = Trace { seed, lines: VecDeque::new() };
    let all = ACTS.iter().map(|(_, often)| often).sum();
    for _ in 0..EVENTS {
        if world.settle() {
            world.deploy(&mut chance);
            world.sweep();
        }
        let mut drawn = chance.below(all);
        let mut act = Act::Tick;
        for (candidate, often) in ACTS {
            if drawn < often {
                act = candidate;
                break;
            }
            drawn -= often;
        }
        trace.note(&world, act);
        happen(&mut world, act, &mut chance);
        world.sweep();
    }
    finish(&mut world, &mut trace, &mut chance);
    [world.ended, world.promoted, world.forgotten]
}

fn happen(world: &mut World, act: Act, chance: &mut Chance) {
    match act {
        Act::Tick => pass_time(world, Duration::from_millis(chance.below(4_000)), chance),
        Act::Jump => pass_time(world, Duration::from_secs(chance.below(7_200)), chance),
        Act::Weigh => {
            let verdict = weighed(chance);
            world.step(Event::Sampled(verdict), chance);
        }
        Act::Deliver => {
            let at = usize::try_from(chance.below(8)).unwrap_or(0);
            world.deliver(at, chance);
        }
        Act::Repeat => {
            if let Some(event) = world.delivered.clone() {
                world.step(event, chance);
            }
        }
        Act::Forge => forge(world, chance),
        Act::FinishLaunch => world.finish_launch(chance),
        Act::Write => world.answer_write(false, chance),
        Act::FailWrite => world.answer_write(true, chance),
        Act::Say => say(world, chance),
        Act::Together => {
            world.step(Event::Together, chance);
        }
        Act::Lose => world.lose(chance),
        Act::Retire => world.retire_warm(),
        Act::Crash => world.crash(chance),
    }
}

/// Time passes and the machine is told; a deadline that passed must have done something.
fn pass_time(world: &mut World, duration: Duration, chance: &mut Chance) {
    world.now = world.now.after(duration);
    let due = world.rollout.as_ref().and_then(Rollout::deadline);
    let before = world.rollout.as_ref().map(|rollout| rollout.attempt);
    world.step(Event::Tick { diagnosis: None }, chance);
    // Five seconds beyond a step's deadline belong to the judge.
    if due.is_some_and(|due| world.now >= due.after(Duration::from_secs(5))) {
        let after = world.rollout.as_ref().map(|rollout| rollout.attempt);
        assert_ne!(before, after, "a deadline passed and nothing happened");
    }
}

fn weighed(chance: &mut Chance) -> Verdict {
    let result = match chance.below(20) {
        0 => Finding::Fail,
        1..=8 => Finding::Inconclusive,
        _ => Finding::Pass,
    };
    let hold = chance.one_in(20).then(|| "both sides are worse".to_owned());
    Verdict { result, hold, ..Verdict::unknown("as drawn") }
}

/// A completion that nobody asked for: of another attempt. It must be ignored and change nothing.
fn forge(world: &mut World, chance: &mut Chance) {
    let Some(rollout) = &world.rollout else { return };
    let before = rollout.clone();
    let attempt = match chance.below(3) {
        0 => rollout.attempt.wrapping_sub(1),
        1 => rollout.attempt.wrapping_sub(2),
        _ => rollout.attempt + 1,
    };
    let sentence = "forged".to_owned();
    let event = match chance.below(9) {
        0 => Event::Launched { attempt, instances: Vec::new() },
        1 => Event::LaunchFailed { attempt, sentence },
        2 => Event::Ready { attempt },
        3 => Event::Drained { attempt },
        4 => Event::Stopped { attempt },
        5 => Event::Switched { attempt },
        6 => Event::Saved { attempt },
        7 => Event::Smoked { attempt, failure: None },
        _ => Event::Unsaved { attempt, sentence },
    };
    assert!(!world.step(event.clone(), chance), "{event:?} was not ignored");
    assert_eq!(world.rollout.as_ref(), Some(&before), "{event:?} changed something");
}

/// Somebody says something; what is not admitted must change nothing.
fn say(world: &mut World, chance: &mut Chance) {
    let Some(rollout) = &world.rollout else { return };
    let command = match chance.below(10) {
        0 => Command::Abort,
        1 => Command::Promote { full: true },
        2 | 3 => Command::Promote { full: false },
        4 | 5 => Command::Pause,
        6 | 7 => Command::Resume,
        _ => {
            let basis_points = u16::try_from(chance.below(10_001)).unwrap_or(0);
            Command::Weight(Weight::from_basis_points(basis_points).unwrap_or_default())
        }
    };
    let before = rollout.clone();
    let admitted = rollout.admit(command).is_ok();
    let taken = world.step(Event::Command(command), chance);
    assert_eq!(admitted, taken, "{command:?} in {:?}", before.phase);
    if !admitted {
        assert_eq!(world.rollout.as_ref(), Some(&before), "{command:?} was refused");
    }
}

/// Calm comes: the disk works, time passes, verdicts pass, and whoever paused goes on. Everything
/// ends, and nothing is left behind, not even after one more crash.
fn finish(world: &mut World, trace: &mut Trace, chance: &mut Chance) {
    for _ in 0..10_000 {
        if world.settle() {
            break;
        }
        let act = *chance.pick(&[Act::Tick, Act::Deliver, Act::Write, Act::FinishLaunch]);
        trace.note(world, act);
        happen(world, act, chance);
        world.step(
            Event::Sampled(Verdict { result: Finding::Pass, ..Verdict::unknown("") }),
            chance,
        );
        let phase = world.rollout.as_ref().map(|rollout| rollout.phase.clone());
        world.step(Event::Together, chance);
        if matches!(phase, Some(Phase::Paused { .. })) {
            world.step(Event::Command(Command::Resume), chance);
        }
        world.sweep();
    }
    assert!(world.rollout.is_none(), "the rollout never ended");
    trace.note(world, Act::Crash);
    world.crash(chance);
    world.sweep();
    while !world.settle() {
        happen(world, Act::Write, chance);
        happen(world, Act::Tick, chance);
    }
    world.sweep_instances();
}
