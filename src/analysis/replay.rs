//! Judging what was recorded: the live judge fed from a file instead of a proxy.
//!
//! A recording is lines of JSON. The first says what was judged, by which limits, and what stable did
//! before ([`Opening`]); then there is a [`Record`] per poll, ten a second; the last says how it ended:
//!
//! ```json
//! {"recording":1,"service":"web","rollout":7,"criteria":{…},"attempt":0,"history":{"success":[[412,9012]]}}
//! {"at":41200,"epoch":1,"began":41130,"weight":500,"stable":{"success":[[412,90],[413,4]]},"canary":{"failure":[[96,1]]}}
//! {"at":41300,"epoch":1,"weight":500,"stable":{"success":[[412,88]]}}
//! {"ended":"rolled_back","sentence":"errors 40 % …"}
//! ```
//!
//! `at` is milliseconds since any origin, `weight` the canary's in basis points, `epoch` a number that
//! changes when a step begins (at `began`, where that is written); each side has, by row, pairs of
//! latency bucket and count. `compared` is there when the canary was compared with a part of stable,
//! `instances` when stable's were compared with each other, and `resumed` says that the daemon was
//! started again and went on from what it had written down. A first line may be missing: records of
//! weight 0 before the first step are then stable's history. The same file, judged with other limits,
//! says what those would have done. No I/O: whoever reads the file hands over one line at a time.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::criteria::Criteria;
use super::judge::Judge;
use super::scorecard::{Row, Sample};
use super::verdict::Verdict;
use crate::model::moment::Moment;
use crate::model::weight::Weight;

/// The version of the format that is written.
pub const VERSION: u32 = 1;

/// The first line: what was judged, and from what it began.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Opening {
    /// The version of the format.
    pub recording: u32,
    /// The service.
    pub service: String,
    /// The rollout's number.
    pub rollout: u64,
    /// The limits it was judged by.
    pub criteria: Criteria,
    /// How often the revision was judged before.
    #[serde(default)]
    pub attempt: u32,
    /// What stable did before.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub history: Counts,
}

/// The last line: how it ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ending {
    /// `promoted`, `rolled_back`, `aborted`.
    pub ended: String,
    /// Why, when it went back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sentence: Option<String>,
}

/// A line of a recording.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Entry {
    /// The first.
    Opening(Box<Opening>),
    /// A poll.
    Record(Record),
    /// The last.
    Ending(Ending),
}

/// What both sides newly counted in one poll.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// When, in milliseconds.
    pub at: u64,
    /// Which weight; a new number begins a new step.
    pub epoch: u64,
    /// When that step began, or the daemon went on; the time of the record before, where it is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub began: Option<u64>,
    /// The daemon was started again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub resumed: bool,
    /// The canary's weight.
    pub weight: Weight,
    /// The weight of what the canary is compared with; all the rest, where it is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compared: Option<Weight>,
    /// Stable's counts, or those of the part that the canary is compared with.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub stable: Counts,
    /// The canary's counts.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub canary: Counts,
    /// The counts of each of stable's instances, where they are compared.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub instances: Vec<Counts>,
    /// As how many clients those of stable and of the canary count, where clients are assigned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clients: Option<[f64; 2]>,
}

/// By the word for a row: latency bucket and count, for buckets that are not empty.
pub type Counts = BTreeMap<String, Vec<(u16, u64)>>;

/// Why a record cannot be judged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRecord {
    /// A row nobody knows.
    #[error("{0:?} is no row; rows are success, rejected, failure, fault, abandoned and repeated")]
    Row(String),
    /// A format of the future.
    #[error("this is a recording of version {0}; version {VERSION} can be judged")]
    Version(u32),
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
    attempt: u32,
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
        let history = Sample::default();
        Self { criteria, attempt: 0, history, judge: None, epoch: None, at: 0 }
    }

    /// Takes in a first line. Its limits are left to whoever began the replay.
    ///
    /// # Errors
    /// When its version is not known, or it names an unknown row.
    pub fn open(&mut self, opening: &Opening) -> Result<(), InvalidRecord> {
        if opening.recording != VERSION {
            return Err(InvalidRecord::Version(opening.recording));
        }
        self.attempt = opening.attempt;
        self.history = sample(&opening.history)?;
        Ok(())
    }

    /// Judges one record; `None` while it is history.
    ///
    /// # Errors
    /// When the record names an unknown row, or is older than the one before.
    pub fn play(&mut self, record: &Record) -> Result<Option<Line>, InvalidRecord> {
        if record.at < self.at && !record.resumed {
            return Err(InvalidRecord::Order { at: record.at, before: self.at });
        }
        let before = std::mem::replace(&mut self.at, record.at);
        let (stable, canary) = (sample(&record.stable)?, sample(&record.canary)?);
        if self.judge.is_none() && record.weight == Weight::ZERO {
            self.history.merge(&stable);
            return Ok(None);
        }
        let instances: Result<Vec<Sample>, _> = record.instances.iter().map(sample).collect();
        let instances = instances?;
        let began = Moment(record.began.unwrap_or(before));
        let (criteria, attempt) = (&self.criteria, self.attempt);
        let judge = self
            .judge
            .get_or_insert_with(|| Judge::again(criteria.clone(), &self.history, attempt, began));
        if record.resumed {
            *judge = Judge::resume(criteria.clone(), &judge.memory(), began);
        }
        if self.epoch != Some(record.epoch) {
            self.epoch = Some(record.epoch);
            let compared = record.compared.unwrap_or(record.weight.complement());
            judge.begin_step_beside(record.weight, compared, began);
        }
        let slots = judge.slots();
        judge.observe_instances(&instances);
        judge.observe_clients(record.clients.unwrap_or_default());
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
            records.push(Record {
                at: 100 * poll,
                epoch: poll / 20,
                began: None,
                resumed: false,
                weight,
                compared: None,
                stable,
                canary,
                instances: Vec::new(),
                clients: None,
            });
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
    fn lines_are_told_apart() {
        let opening = Opening {
            recording: VERSION,
            service: "web".to_owned(),
            rollout: 3,
            criteria: "p99 > 300ms".parse().expect("limits"),
            attempt: 1,
            history: Counts::new(),
        };
        let ending = Ending { ended: "promoted".to_owned(), sentence: None };
        let record = recording().remove(40);
        for entry in [
            Entry::Opening(Box::new(opening.clone())),
            Entry::Record(record.clone()),
            Entry::Ending(ending),
        ] {
            let text = serde_json::to_string(&entry).expect("JSON");
            assert_eq!(serde_json::from_str::<Entry>(&text).expect("an entry"), entry, "{text}");
        }
        let mut replay = Replay::new(opening.criteria.clone());
        assert_eq!(
            replay.open(&Opening { recording: 2, ..opening.clone() }),
            Err(InvalidRecord::Version(2))
        );
        replay.open(&opening).expect("a first line");
        let line = replay.play(&record).expect("valid").expect("a line");
        assert!(line.evidence <= 0.6, "a second attempt begins with half: {}", line.evidence);
    }

    /// A daemon that was started again goes on from its memory; so does the replay.
    #[test]
    fn a_restart_is_replayed() {
        let criteria = Criteria::default();
        let mut live: Option<Judge> = None;
        let mut replay = Replay::new(criteria.clone());
        let mut history = Sample::default();
        for (index, mut record) in recording().into_iter().enumerate() {
            let (stable, canary) =
                (sample(&record.stable).expect("rows"), sample(&record.canary).expect("rows"));
            if record.weight == Weight::ZERO {
                history.merge(&stable);
            } else {
                let judge = live.get_or_insert_with(|| {
                    let mut judge = Judge::new(criteria.clone(), &history, Moment(1_900));
                    judge.begin_step(record.weight, Moment(1_900));
                    judge
                });
                if index == 47 {
                    let memory = judge.memory();
                    *judge = Judge::resume(criteria.clone(), &memory, Moment(record.at - 30));
                    record.resumed = true;
                    record.began = Some(record.at - 30);
                }
                record.epoch = 1;
                judge.observe(&stable, &canary, Moment(record.at));
            }
            let line = replay.play(&record).expect("valid");
            if let (Some(judge), Some(line)) = (&live, line) {
                assert!((line.evidence / judge.evidence_against() - 1.0).abs() < 1e-9, "{index}");
            }
        }
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
