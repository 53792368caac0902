//! `analyze`: judges a recorded rollout again, by the code that judged it live.

use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal};

use super::args::offline::Analyze;
use super::exit::{Exit, Failure};
use super::output::{self, Table};
use crate::analysis::criteria::Criteria;
use crate::analysis::replay::{Entry, Line, Replay};
use crate::analysis::verdict::Finding;

/// Runs the verb.
pub fn run(args: &Analyze) -> Result<Exit, Failure> {
    let read: Box<dyn BufRead> = match &args.file {
        Some(file) => {
            let opened = File::open(file)
                .map_err(|error| failure(format!("{}: {error}", file.display())))?;
            Box::new(BufReader::new(opened))
        }
        None if io::stdin().is_terminal() => {
            let sentence =
                "name a recording, or hand one over: `switchback analyze < samples.jsonl`";
            return Err(Failure::new(Exit::Usage, sentence));
        }
        None => Box::new(io::stdin().lock()),
    };
    let mut judged = Judged::new(args);
    for (index, line) in read.lines().enumerate() {
        let line = line.map_err(|error| failure(error.to_string()))?;
        if !line.trim().is_empty() {
            judged.take(&line).map_err(|why| failure(format!("line {}: {why}", index + 1)))?;
        }
        if judged.is_over() {
            break;
        }
    }
    judged.tell()
}

fn failure(sentence: String) -> Failure {
    Failure::new(Exit::Error, sentence)
}

/// A recording and what became of it so far.
struct Judged<'a> {
    args: &'a Analyze,
    replay: Option<Replay>,
    began: Option<u64>,
    table: Option<Table>,
    last: Option<Line>,
    epoch: Option<u64>,
    recorded: Option<(String, Option<String>)>,
}

impl<'a> Judged<'a> {
    fn new(args: &'a Analyze) -> Self {
        let (replay, began, table, last) = (None, None, None, None);
        Self { args, replay, began, table, last, epoch: None, recorded: None }
    }

    /// The limits to judge by: those that were asked for, with the certainty of those recorded.
    fn criteria(&self, recorded: Option<Criteria>) -> Criteria {
        let recorded = recorded.unwrap_or_default();
        let mut criteria = match &self.args.plan {
            Some(asked) => Criteria { limits: asked.limits.clone(), margins: None, ..recorded },
            None => recorded,
        };
        criteria.alpha = self.args.alpha.unwrap_or(criteria.alpha);
        criteria
    }

    fn take(&mut self, line: &str) -> Result<(), String> {
        let entry: Entry =
            serde_json::from_str(line).map_err(|error| what_is_wrong(line, &error))?;
        match entry {
            Entry::Opening(opening) => {
                if self.replay.is_some() {
                    return Err("a second recording begins here: give one at a time".to_owned());
                }
                let mut replay = Replay::new(self.criteria(Some(opening.criteria.clone())));
                replay.open(&opening).map_err(|error| error.to_string())?;
                self.replay = Some(replay);
            }
            Entry::Record(record) => {
                let criteria = self.criteria(None);
                let replay = self.replay.get_or_insert_with(|| Replay::new(criteria));
                let judged = replay.play(&record).map_err(|error| error.to_string())?;
                let began = *self.began.get_or_insert(record.at);
                if let Some(line) = judged {
                    let is_new = self.epoch != Some(record.epoch);
                    self.epoch = Some(record.epoch);
                    let is_over = line.verdict.result == Finding::Fail;
                    if line.slot_ended || is_new || is_over {
                        self.show(&line, began)?;
                    }
                    self.last = Some(line);
                }
            }
            Entry::Ending(ending) => self.recorded = Some((ending.ended, ending.sentence)),
        }
        Ok(())
    }

    fn show(&mut self, line: &Line, began: u64) -> Result<(), String> {
        if self.args.output.is_json() {
            return output::json_line(line).map_err(|error| error.to_string());
        }
        let table = self.table.get_or_insert_with(|| {
            let streams = line.streams.iter().map(|(name, _)| name.as_str());
            let names: Vec<&str> =
                ["time", "weight"].into_iter().chain(streams).chain(["all", "finding"]).collect();
            Table::new(&names)
        });
        let seconds = (line.at - began.min(line.at)) as f64 / 1e3;
        let finding = match line.verdict.result {
            Finding::Pass => "pass",
            Finding::Inconclusive if line.verdict.hold.is_some() => "hold",
            Finding::Inconclusive => "inconclusive",
            Finding::Fail => "fail",
        };
        let first = [format!("{seconds:.1}s"), line.weight.to_string()];
        let worths = line.streams.iter().map(|(_, worth)| *worth).chain([line.evidence]);
        let worths = worths.map(worth);
        table.row(first.into_iter().chain(worths).chain([finding.to_owned()]));
        Ok(())
    }

    /// Once taken back, nothing that follows changes it.
    fn is_over(&self) -> bool {
        self.last.as_ref().is_some_and(|line| line.verdict.result == Finding::Fail)
            && self.recorded.is_none()
    }

    fn tell(self) -> Result<Exit, Failure> {
        if let Some(table) = &self.table {
            output::data(&table.render())?;
        }
        let Some(last) = self.last else {
            let sentence = "there is nothing to judge: no record has a canary with weight";
            return Err(failure(sentence.to_owned()));
        };
        let seconds = (last.at - self.began.unwrap_or(last.at)) as f64 / 1e3;
        let (exit, decision) = match last.verdict.result {
            Finding::Fail => (Exit::RolledBack, "rolled back"),
            Finding::Pass => (Exit::Done, "passed"),
            Finding::Inconclusive => (Exit::Done, "undecided"),
        };
        output::talk(&format!("{decision} after {seconds:.1}s: {}", last.verdict.sentence));
        if let Some((ended, sentence)) = self.recorded {
            let why = sentence.map_or_else(String::new, |sentence| format!(": {sentence}"));
            output::talk(&format!("recorded as {}{why}", ended.replace('_', " ")));
        }
        Ok(exit)
    }
}

/// A worth as people compare them.
fn worth(worth: f64) -> String {
    match worth {
        w if w >= 1e6 => format!("{w:.1e}"),
        w if w >= 100.0 => format!("{w:.0}"),
        w if w >= 0.095 => format!("{w:.2}"),
        w => format!("{w:.1e}"),
    }
}

fn what_is_wrong(line: &str, error: &serde_json::Error) -> String {
    match serde_json::from_str::<serde_json::Value>(line) {
        Err(broken) => format!("not JSON: {broken}"),
        Ok(_) => format!(
            "neither the first line of a recording, nor a record with at, epoch and weight, nor the last \
             ({error})"
        ),
    }
}
