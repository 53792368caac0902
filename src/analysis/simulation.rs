//! Traffic made up from a seed, and a rollout judged on it. For tests and the benchmark; the numbers
//! it gives are what the documentation promises.

use crate::analysis::criteria::Criteria;
use crate::analysis::judge::Judge;
use crate::analysis::normal::quantile;
use crate::analysis::scorecard::{Row, Sample};
use crate::analysis::verdict::{Finding, Verdict};
use crate::model::moment::Moment;
use crate::model::weight::Weight;

/// xorshift64* (Marsaglia 2003, Vigna 2016): enough for traffic.
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// Dice that fall the same way for the same seed.
    pub fn new(seed: u64) -> Self {
        let mut dice = Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        for _ in 0..8 {
            dice.roll();
        }
        dice
    }

    /// Uniform in (0, 1).
    pub fn roll(&mut self) -> f64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        ((self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
    }

    /// Poisson with the given mean, by multiplication in pieces; beyond 300, where a normal is within
    /// 2 % of it, a normal.
    pub fn poisson(&mut self, mean: f64) -> u64 {
        if mean > 300.0 {
            return (mean + mean.sqrt() * quantile(self.roll())).round().max(0.0) as u64;
        }
        let (mut left, mut count) = (mean, 0);
        while left > 0.0 {
            let piece = left.min(20.0);
            let mut product = self.roll();
            while product > (-piece).exp() {
                product *= self.roll();
                count += 1;
            }
            left -= piece;
        }
        count
    }
}

/// How one side behaves at some moment.
#[derive(Debug, Clone, Copy)]
pub struct Behaviour {
    /// The fraction of requests that fail.
    pub errors: f64,
    /// The fraction that is rejected.
    pub rejected: f64,
    /// Median latency, seconds.
    pub median: f64,
    /// Standard deviation of its logarithm.
    pub spread: f64,
    /// A fraction of requests that takes so many seconds more.
    pub tail: (f64, f64),
}

/// A usual service: 0.1 % errors, 20 ms, the spread on which the design's tables rest.
pub const HEALTHY: Behaviour =
    Behaviour { errors: 0.001, rejected: 0.01, median: 0.02, spread: 0.8, tail: (0.0, 0.0) };

impl Behaviour {
    /// Answers one request.
    pub fn answer(&self, dice: &mut Dice, sample: &mut Sample) {
        let mut seconds = self.median * (self.spread * quantile(dice.roll())).exp();
        if self.tail.0 > 0.0 && dice.roll() < self.tail.0 {
            seconds += self.tail.1;
        }
        let die = dice.roll();
        let row = if die < self.errors {
            Row::Failure
        } else if die < self.errors + self.rejected {
            Row::Rejected
        } else {
            Row::Success
        };
        sample.row_mut(row).record((seconds * 1e6) as u64);
    }
}

/// What happens: at a second since the start and a side, how that side behaves.
pub type Story<'a> = &'a dyn Fn(f64, bool) -> Behaviour;

/// How a rollout ended.
#[derive(Debug, Clone)]
pub struct Ending {
    /// The last verdict.
    pub verdict: Verdict,
    /// Seconds at which each step passed.
    pub passed: Vec<f64>,
    /// Seconds at which it ended.
    pub at: f64,
    /// Whether any poll asked for a hold.
    pub held: bool,
    /// Seconds at which the canary's first error was counted.
    pub first_error: f64,
    /// Canary requests in all, and those that failed.
    pub canary: (u64, u64),
}

impl Ending {
    /// Taken back.
    pub fn failed(&self) -> bool {
        self.verdict.result == Finding::Fail
    }
}

/// What is played.
#[derive(Debug, Clone)]
pub struct Plan<'a> {
    /// Requests a second.
    pub rps: f64,
    /// Percent of each step.
    pub steps: &'a [f64],
    /// The least time at a step, seconds.
    pub bake: f64,
    /// When to stop watching, seconds.
    pub until: f64,
    /// The limits.
    pub criteria: Criteria,
}

impl Plan<'_> {
    /// A minute of stable's history as the story has it at second zero.
    pub fn history(&self, story: Story<'_>, dice: &mut Dice) -> Sample {
        let mut history = Sample::default();
        let behaviour = story(-60.0, false);
        for _ in 0..(self.rps * 60.0) as u64 {
            behaviour.answer(dice, &mut history);
        }
        history
    }

    /// Plays a story to its end.
    pub fn play(&self, story: Story<'_>, seed: u64) -> Ending {
        let mut dice = Dice::new(seed);
        let history = self.history(story, &mut dice);
        let mut judge = Judge::new(self.criteria.clone(), &history, Moment(0));
        let mut steps = self.steps.iter();
        let weight = |percent: &f64| Weight::from_percent(*percent).unwrap_or_default();
        let mut share = steps.next().map(weight).unwrap_or_default();
        judge.begin_step(share, Moment(0));
        let (mut began, mut first_error) = (0.0, 0.0);
        let (mut passed, mut held, mut counts) = (Vec::new(), false, (0, 0));
        let mut polls = 0_u64;
        loop {
            polls += 1;
            let (now, at) = (Moment(polls * 100), polls as f64 / 10.0);
            let mut samples = [Sample::default(), Sample::default()];
            for _ in 0..dice.poisson(self.rps / 10.0) {
                let canary = dice.roll() < share.fraction();
                story(at, canary).answer(&mut dice, &mut samples[usize::from(canary)]);
            }
            counts.0 += samples[1].requests();
            if counts.1 == 0 {
                first_error = at;
            }
            counts.1 += samples[1].errors();
            let verdict = judge.observe(&samples[0], &samples[1], now);
            held |= verdict.hold.is_some();
            let next = verdict.result == Finding::Pass && at - began >= self.bake;
            if next {
                passed.push(at);
                if let Some(percent) = steps.next() {
                    share = weight(percent);
                    began = at;
                    judge.begin_step(share, now);
                    continue;
                }
            }
            if next || verdict.result == Finding::Fail || at >= self.until {
                return Ending { verdict, passed, at, held, first_error, canary: counts };
            }
        }
    }
}

/// The middle of some numbers, and the value that 95 % of them do not exceed.
pub fn median_and_p95(mut numbers: Vec<f64>) -> (f64, f64) {
    numbers.sort_by(f64::total_cmp);
    let pick = |q: f64| {
        let index = (numbers.len() as f64 * q) as usize;
        numbers.get(index.min(numbers.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
    };
    (pick(0.5), pick(0.95))
}
