//! Judging what was recorded: the live judge fed from a file instead of a proxy.
//!
//! A recording is one [`Record`] per poll, as a line of JSON:
//!
//! ```json
//! {"at":41200,"epoch":3,"weight":500,"stable":{"success":[[412,90],[413,4]]},"canary":{"failure":[[96,1]]}}
//! ```
//!
//! `at` is milliseconds since any origin, `weight` the canary's in basis points, `epoch` a number that
//! changes when the weight does; each side has, by row, pairs of latency bucket and count. Records of
//! weight 0 before the first step are stable's history. The same file, judged with other limits, says
//! what those would have done. No I/O: whoever reads the file hands over one record at a time.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::criteria::Criteria;
use super::judge::Judge;
use super::scorecard::{Row, Sample};
use super::verdict::Verdict;
use crate::model::moment::Moment;
use crate::model::weight::Weight;

/// What both sides newly counted in one poll.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// When, in milliseconds.
    pub at: u64,
    /// Which weight; a new number begins a new step.
    pub epoch: u64,
    /// The canary's weight.
    pub weight: Weight,
    /// Stable's counts.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub stable: Counts,
    /// The canary's counts.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub canary: Counts,
}

/// By the word for a row: latency bucket and count, for buckets that are not empty.
pub type Counts = BTreeMap<String, Vec<(u16, u64)>>;

/// Why a record cannot be judged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRecord {
    /// A row nobody knows.
    #[error("{0:?} is no row; rows are success, rejected, failure, fault and abandoned")]
    Row(String),
    /// Time runs backwards.
    #[error("the record at {at} ms comes after one at {before} ms")]
    Order {
        /// This record's time.
        at: u64,
        /// The time of the one before.
        before: u64,
    },
}

/// A sample as it is recorded.
#[must_use]
pub fn counts(sample: &Sample) -> Counts {
    let mut counts = Counts::new();
    for row in Row::ALL {
        let cells = sample.row(row).counts().iter().enumerate();
        let cells = cells.filter(|(_, count)| **count > 0);
        let cells: Vec<(u16, u64)> = cells.map(|(bucket, count)| (bucket as u16, *count)).collect();
        if !cells.is_empty() {
            counts.insert(row.as_str().to_owned(), cells);
        }
    }
    counts
}

/// A recorded sample.
///
/// # Errors
/// When a row is not known.
pub fn sample(counts: &Counts) -> Result<Sample, InvalidRecord> {
    let mut sample = Sample::default();
    for (word, cells) in counts {
        let row = Row::ALL.into_iter().find(|row| row.as_str() == word);
        let row = row.ok_or_else(|| InvalidRecord::Row(word.clone()))?;
        for (bucket, count) in cells {
            sample.row_mut(row).add(usize::from(*bucket), *count);
        }
    }
    Ok(sample)
}

/// A recording under judgement.
#[derive(Debug)]
pub struct Replay {
    criteria: Criteria,
    history: Sample,
    judge: Option<Judge>,
    epoch: Option<u64>,
    at: u64,
}

/// What was known at the end of a poll.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// When, in milliseconds.
    pub at: u64,
    /// The canary's weight.
    pub weight: Weight,
    /// The combined evidence against the canary.
    pub evidence: f64,
    /// The evidence of each stream by name.
    pub streams: Vec<(String, f64)>,
    /// The verdict.
    pub verdict: Verdict,
    /// Whether a slot ended with this poll: the lines worth printing.
    pub slot_ended: bool,
}

impl Replay {
    /// Begins a replay with the limits to judge by.
    #[must_use]
    pub fn new(criteria: Criteria) -> Self {
        Self { criteria, history: Sample::default(), judge: None, epoch: None, at: 0 }
    }

    /// Judges one record; `None` while it is history.
    ///
    /// # Errors
    /// When the record names an unknown row, or is older than the one before.
    pub fn play(&mut self, record: &Record) -> Result<Option<Line>, InvalidRecord> {
        if record.at < self.at {
            return Err(InvalidRecord::Order { at: record.at, before: self.at });
        }
        let before = std::mem::replace(&mut self.at, record.at);
        let (stable, canary) = (sample(&record.stable)?, sample(&record.canary)?);
        if self.judge.is_none() && record.weight == Weight::ZERO {
            self.history.merge(&stable);
            return Ok(None);
        }
        let began = Moment(before);
        let judge = self
            .judge
            .get_or_insert_with(|| Judge::new(self.criteria.clone(), &self.history, began));
        if self.epoch != Some(record.epoch) {
            self.epoch = Some(record.epoch);
            judge.begin_step(record.weight, began);
        }
        let slots = judge.slots();
        let verdict = judge.observe(&stable, &canary, Moment(record.at));
        Ok(Some(Line {
            at: record.at,
            weight: record.weight,
            evidence: judge.evidence_against(),
            streams: judge.streams().collect(),
            verdict,
            slot_ended: judge.slots() > slots,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::super::simulation::{Behaviour, Dice, HEALTHY, Plan};
    use super::super::verdict::Finding;
    use super::*;

    fn recording() -> Vec<Record> {
        let mut dice = Dice::new(3);
        let bad =
            |_: f64, canary| Behaviour { errors: if canary { 0.3 } else { 0.001 }, ..HEALTHY };
        let plan =
            Plan { rps: 2.0, steps: &[], bake: 0.0, until: 0.0, criteria: Criteria::default() };
        let mut records = Vec::new();
        for poll in 0..100 {
            let weight =
                Weight::from_percent(if poll < 20 { 0.0 } else { 50.0 }).expect("a weight");
            let stable = counts(&plan.history(&bad, &mut dice));
            let swapped = |at: f64, canary: bool| bad(at, !canary);
            let canary = plan.history(&swapped, &mut dice);
            let canary = if poll < 20 { Counts::new() } else { counts(&canary) };
            records.push(Record { at: 100 * poll, epoch: poll / 20, weight, stable, canary });
        }
        records
    }

    #[test]
    fn a_recording_is_judged_as_the_live_rollout_was() {
        let mut first = Replay::new(Criteria::default());
        let mut second = Replay::new(Criteria::default());
        let mut last = None;
        for record in recording() {
            let text = serde_json::to_string(&record).expect("JSON");
            let read: Record = serde_json::from_str(&text).expect("a record");
            assert_eq!(read, record);
            let line = first.play(&record).expect("valid");
            assert_eq!(line, second.play(&read).expect("valid"));
            assert_eq!(line.is_none(), record.weight == Weight::ZERO);
            last = line;
        }
        let last = last.expect("a line");
        assert_eq!(last.verdict.result, Finding::Fail, "{}", last.verdict.sentence);
    }

    #[test]
    fn what_cannot_be_judged_is_named() {
        let mut replay = Replay::new(Criteria::default());
        let mut record = recording().remove(30);
        assert!(replay.play(&record).is_ok());
        record.at -= 1;
        assert!(matches!(replay.play(&record), Err(InvalidRecord::Order { .. })));
        record.at += 1;
        record.stable.insert("successes".to_owned(), Vec::new());
        assert_eq!(replay.play(&record), Err(InvalidRecord::Row("successes".to_owned())));
    }
}
