//! Is the canary worse, asked with copies: twins are two answers to one and the same request.
//!
//! A visitor's request is answered by stable, and a copy of it by the canary. Nothing is assigned by a
//! coin, so the streams of [`super::judge`] have nothing to bet on; but twins are compared with
//! each other, which says more than two requests of strangers do.
//!
//! A bet per question, on the mean of a bounded number (Waudby-Smith and Ramdas 2024): with `c` and
//! `s` in {0, 1} for "the canary showed the event" and "stable did", and the margin of the criteria,
//!
//! ```text
//! X = c − ratio × s          null: E[X] ≤ plus          wealth = Π (1 + λ (X − plus))
//! ```
//!
//! which for `0 ≤ λ ≤ 1 / (ratio + plus)` is never negative and on the null does not rise in
//! expectation, whatever the two answers have to do with each other. The wealth of several λ is
//! averaged, and that of the questions too; the whole reaches `1/α` with probability at most α, however
//! often anyone looks (Ville). Twins count in no order, so that the evidence follows from the counts
//! alone.
//!
//! Slow are twins of which the canary took more than the limit's multiple of what stable took, and
//! 2 ms more at least: were the canary at its limit, that would be half of them.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::criteria::{Criteria, RateMargin};
use super::scorecard::{Row, Sample, Scorecard};
use super::verdict::{Check, Finding, Verdict};
use super::wording::{chance, count, percent, time};

/// The α of the mirror, as a part of the rollout's own: what it adds to the chance that a healthy canary
/// is taken back is a tenth of what is allowed anyway.
const PART: f64 = 0.1;
/// Bets as parts of the highest that is allowed. Small ones win slowly and surely against a fault that
/// is rare, large ones at once where nearly everything fails.
const BETS: [f64; 5] = [0.02, 0.08, 0.25, 0.6, 0.95];
/// Half of all twins are slow where the canary is at its limit.
const HALF: RateMargin = RateMargin { ratio: 0.0, plus: 0.5 };
/// Twins that a pass takes at the least. Fewer are told as what they are: nothing.
const ENOUGH: u64 = 20;
const SLOW: &str = "mirror latency";

/// How an answer went, as far as twins are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answered {
    /// How it counts.
    pub row: Row,
    /// Microseconds to the headers, or until it was given up.
    pub micros: u64,
}

/// Whether the bodies of twins were the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bodies {
    /// Nobody compared them: not asked for, too long, encoded.
    Unknown,
    /// The same, but for what is masked.
    Same,
    /// Not the same.
    Different,
}

/// What twins showed: written by workers, read by the controller. Copies are few by their own limit, so
/// that all workers share one set of cells.
#[derive(Debug)]
pub struct Twins {
    stable: Scorecard,
    canary: Scorecard,
    cells: [AtomicU64; CELLS],
    /// Beyond stable's latency and so many microseconds, and beyond so many thousandths of it, an answer
    /// is slow.
    slow: (u64, u64),
}

const CELLS: usize = 11;

/// What a cell counts.
#[derive(Debug, Clone, Copy)]
enum Cell {
    /// Both failed; the canary alone; stable alone.
    BothFailed,
    CanaryFailed,
    StableFailed,
    /// The same of 4xx answers, where neither failed.
    BothRejected,
    CanaryRejected,
    StableRejected,
    /// Neither failed.
    Answered,
    /// Twins whose latencies were compared, and in which the canary was slow.
    Timed,
    Slow,
    /// Twins whose bodies were compared, and differed.
    Read,
    Different,
}

impl Twins {
    /// Nothing yet, for so many workers. What is slow follows from the criteria.
    #[must_use]
    pub fn new(criteria: &Criteria, workers: usize) -> Self {
        let margins = criteria.margins();
        let [.., last] = margins.promote_latency;
        Self {
            stable: Scorecard::new(workers),
            canary: Scorecard::new(workers),
            cells: Default::default(),
            slow: (margins.latency.plus as u64, (last.factor * 1e3) as u64),
        }
    }

    fn add(&self, cell: Cell) {
        self.cells[cell as usize].fetch_add(1, Relaxed);
    }

    /// Counts twins that were seen by this worker. `timed` is whether their latencies say anything: not
    /// while the canary warms up.
    pub fn record(
        &self,
        worker: usize,
        [stable, canary]: [Answered; 2],
        bodies: Bodies,
        timed: bool,
    ) {
        let both = |of: fn(Row) -> bool| (of(stable.row), of(canary.row));
        match both(Row::is_error) {
            (true, true) => self.add(Cell::BothFailed),
            (false, true) => self.add(Cell::CanaryFailed),
            (true, false) => self.add(Cell::StableFailed),
            (false, false) => {
                match both(|row| row == Row::Rejected) {
                    (true, true) => self.add(Cell::BothRejected),
                    (false, true) => self.add(Cell::CanaryRejected),
                    (true, false) => self.add(Cell::StableRejected),
                    (false, false) => {}
                }
                self.add(Cell::Answered);
                let (plus, thousandths) = self.slow;
                let limit = (stable.micros.saturating_mul(thousandths) / 1_000)
                    .max(stable.micros.saturating_add(plus));
                if timed {
                    self.add(Cell::Timed);
                }
                if timed && canary.micros > limit {
                    self.add(Cell::Slow);
                }
            }
        }
        match bodies {
            Bodies::Unknown => {}
            Bodies::Same => self.add(Cell::Read),
            Bodies::Different => {
                self.add(Cell::Read);
                self.add(Cell::Different);
            }
        }
        self.stable.record(worker, stable.row, stable.micros);
        self.canary.record(worker, canary.row, canary.micros);
    }

    /// What was counted so far.
    #[must_use]
    pub fn tally(&self) -> Tally {
        let cell = |cell: Cell| self.cells[cell as usize].load(Relaxed);
        let of = |both, canary, stable| Shown {
            both: cell(both),
            canary: cell(canary),
            stable: cell(stable),
        };
        Tally {
            failed: of(Cell::BothFailed, Cell::CanaryFailed, Cell::StableFailed),
            rejected: of(Cell::BothRejected, Cell::CanaryRejected, Cell::StableRejected),
            answered: cell(Cell::Answered),
            timed: cell(Cell::Timed),
            slow: cell(Cell::Slow),
            read: cell(Cell::Read),
            different: cell(Cell::Different),
            factor: self.slow.1 as f64 / 1e3,
            samples: [self.stable.sample(), self.canary.sample()],
        }
    }
}

/// Twins in which an event was shown by both, by the canary alone, and by stable alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Shown {
    /// By both.
    pub both: u64,
    /// By the canary alone.
    pub canary: u64,
    /// By stable alone.
    pub stable: u64,
}

impl Shown {
    fn all(self) -> u64 {
        self.both + self.canary + self.stable
    }
}

/// What twins showed, read at a moment.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Tally {
    /// Errors.
    pub failed: Shown,
    /// 4xx answers, where neither was an error.
    pub rejected: Shown,
    /// Twins in which neither answer was an error.
    pub answered: u64,
    /// Those of them whose latencies were compared.
    pub timed: u64,
    /// Those of these in which the canary was slow.
    pub slow: u64,
    /// Twins whose bodies were compared.
    pub read: u64,
    /// Those of them that differed.
    pub different: u64,
    /// The multiple of stable's latency beyond which an answer is slow.
    pub factor: f64,
    /// What each side took, stable's first.
    pub samples: [Sample; 2],
}

impl Tally {
    /// Twins.
    #[must_use]
    pub fn twins(&self) -> u64 {
        self.failed.all() + self.answered
    }

    /// The latency in the middle of each side's, in seconds.
    #[must_use]
    pub fn medians(&self) -> Option<[f64; 2]> {
        let [stable, canary] = &self.samples;
        let middle = |sample: &Sample| sample.latency().quantile(0.5).map(|micros| micros / 1e6);
        Some([middle(stable)?, middle(canary)?])
    }
}

/// The wealth of a bet against `E[c − ratio × s] ≤ plus`, after so many twins of each kind.
fn evidence(seen: Shown, twins: u64, margin: RateMargin) -> f64 {
    let RateMargin { ratio, plus } = margin;
    let neither = twins.saturating_sub(seen.all());
    // The worst that may come is −ratio where stable alone shows it.
    let most = 1.0 / (ratio + plus);
    let kinds =
        [(seen.both, 1.0 - ratio), (seen.canary, 1.0), (seen.stable, -ratio), (neither, 0.0)];
    let bet = |part: &f64| {
        let gain = |(number, x): &(u64, f64)| *number as f64 * (part * most * (x - plus)).ln_1p();
        kinds.iter().map(gain).sum::<f64>().exp()
    };
    BETS.iter().map(bet).sum::<f64>() / BETS.len() as f64
}

struct Question {
    name: &'static str,
    evidence: f64,
    canary: Option<f64>,
    stable: Option<f64>,
    limit: Option<f64>,
    sentence: String,
}

/// What the twins so far say. `different` is the part of the bodies that may differ.
#[must_use]
pub fn judge(criteria: &Criteria, different: f64, tally: &Tally) -> Verdict {
    let twins = tally.twins();
    if twins == 0 {
        return Verdict::unknown("no request was mirrored yet");
    }
    let questions = questions(criteria, different, tally);
    let whole = 1.0 / (criteria.alpha * PART);
    let number = questions.len().max(1) as f64;
    // Each is asked with its part of the money, so that the answers add up.
    let total: f64 = questions.iter().map(|question| question.evidence).sum::<f64>() / number;
    let loudest = questions.iter().max_by(|a, b| a.evidence.total_cmp(&b.evidence));
    let failed = loudest.filter(|_| total >= whole);
    let finding = |question: &Question| match failed {
        Some(failed) if failed.name == question.name => Finding::Fail,
        _ if twins < ENOUGH => Finding::Inconclusive,
        _ => Finding::Pass,
    };
    let checks: Vec<Check> = questions
        .iter()
        .map(|question| Check {
            name: question.name.to_owned(),
            result: finding(question),
            canary: question.canary,
            stable: question.stable,
            limit: question.limit,
            interval: None,
            requests: twins,
            sentence: question.sentence.clone(),
        })
        .collect();
    let nothing = if twins < ENOUGH { Finding::Inconclusive } else { Finding::Pass };
    let result = checks.iter().map(|check| check.result).fold(nothing, Finding::worst);
    let sentence = match failed {
        Some(failed) => format!(
            "mirror, before any visitor: {}: {} of happening by chance",
            failed.sentence,
            chance(total)
        ),
        None => summary(tally),
    };
    Verdict { result, checks, ..Verdict::unknown(&sentence) }
}

fn questions(criteria: &Criteria, different: f64, tally: &Tally) -> Vec<Question> {
    let (margins, twins) = (criteria.margins(), tally.twins());
    let part = |number: u64, of: u64| (of > 0).then(|| number as f64 / of as f64);
    let mut questions = Vec::new();
    if criteria.watches_errors() {
        let margin = margins.errors;
        for (name, seen, of, margin, what) in [
            ("mirror errors", tally.failed, twins, margin, "failed"),
            (
                "mirror rejected",
                tally.rejected,
                tally.answered,
                margins.rejected,
                "were answered 4xx",
            ),
        ] {
            let (canary, stable) = (seen.both + seen.canary, seen.both + seen.stable);
            let stable_part = part(stable, of);
            questions.push(Question {
                name,
                evidence: evidence(seen, of, margin),
                canary: part(canary, of),
                stable: stable_part,
                limit: stable_part.map(|stable| margin.ratio * stable + margin.plus),
                sentence: format!(
                    "{} of {} {what} on the canary, {} on stable",
                    count(canary),
                    copies(of),
                    count(stable)
                ),
            });
        }
    }
    if criteria.watches_latency() {
        let seen = Shown { canary: tally.slow, ..Shown::default() };
        let medians = tally.medians();
        let in_the_middle = medians.map_or_else(String::new, |[stable, canary]| {
            format!(", in the middle {} against {}", time(canary), time(stable))
        });
        questions.push(Question {
            name: SLOW,
            evidence: evidence(seen, tally.timed, HALF),
            canary: medians.map(|[_, canary]| canary),
            stable: medians.map(|[stable, _]| stable),
            limit: medians.map(|[stable, _]| stable * tally.factor),
            sentence: format!(
                "{} of {} took more than {}x as long as on stable{in_the_middle}",
                count(tally.slow),
                copies(tally.timed),
                tally.factor
            ),
        });
    }
    if tally.read > 0 {
        let seen = Shown { canary: tally.different, ..Shown::default() };
        let margin = RateMargin { ratio: 0.0, plus: different.clamp(1e-4, 1.0) };
        questions.push(Question {
            name: "mirror bodies",
            evidence: evidence(seen, tally.read, margin),
            canary: part(tally.different, tally.read),
            stable: None,
            limit: Some(different),
            sentence: format!(
                "{} of {} bodies were not those of stable, more than {} may be",
                count(tally.different),
                count(tally.read),
                percent(different)
            ),
        });
    }
    questions
}

fn copies(number: u64) -> String {
    format!("{} mirrored request{}", count(number), if number == 1 { "" } else { "s" })
}

/// One sentence on what was compared.
#[must_use]
pub fn summary(tally: &Tally) -> String {
    let (twins, failed) = (tally.twins(), tally.failed);
    if twins == 0 {
        return "no request was mirrored: nothing is shown by it".to_owned();
    }
    let mut text = format!(
        "{} compared: {} failed on the canary, {} on stable",
        copies(twins),
        count(failed.both + failed.canary),
        count(failed.both + failed.stable)
    );
    if let Some([stable, canary]) = tally.medians() {
        text += &format!("; in the middle {} against {}", time(canary), time(stable));
    }
    if tally.read > 0 {
        text += &format!("; {} of {} bodies differ", count(tally.different), count(tally.read));
    }
    text
}

#[cfg(test)]
mod tests;
