//! How the demo is shown: live on a terminal, as lines on a pipe, as JSON for programs.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::Instant;

use super::story::{Outcome, Story};
use crate::cli::console::{Console, Line, Look};
use crate::cli::live;
use crate::controller::handle::Handle;

/// How often the live view is drawn: smooth for an eye, nothing for a processor.
const REDRAW: Duration = Duration::from_millis(200);

/// Where the demo is shown.
pub struct Show {
    console: Console,
    json: bool,
    begun: Instant,
    last_event: u64,
}

impl Show {
    /// A show for whoever reads stdout. With `json`, stdout gets one object per story and nothing
    /// else; the talk goes to stderr.
    #[must_use]
    pub fn new(json: bool) -> Self {
        let console = Console::standard(None);
        Self { console, json, begun: Instant::now(), last_event: 0 }
    }

    /// Says something in passing.
    pub fn say(&mut self, sentence: &str) {
        self.line(Line::new().plain(sentence));
    }

    /// Begins.
    pub fn begin(&mut self, address: SocketAddr, rate: u32) {
        self.say(&format!(
            "the proxy listens on http://{address}; visitors send {rate} requests/s to it"
        ));
        self.say("four releases follow: one good, three bad in different ways");
    }

    /// A story begins.
    pub fn story(&mut self, story: Story) {
        let number = Story::ALL.iter().position(|one| *one == story).map_or(0, |at| at + 1);
        self.say("");
        self.line(Line::new().and(Look::Strong, &format!("{number}. {}", story.title())));
    }

    /// Shows what happens while a story is told.
    pub async fn follow<T>(&mut self, handle: Handle, telling: impl Future<Output = T>) -> T {
        tokio::pin!(telling);
        let mut redraws = tokio::time::interval(REDRAW);
        loop {
            tokio::select! {
                told = &mut telling => {
                    self.console.clear();
                    self.events(&handle);
                    return told;
                }
                _ = redraws.tick() => {
                    self.events(&handle);
                    if let (true, Some(service)) = (self.console.is_live(), handle.services().first()) {
                        let (signs, width) = (self.console.signs(), self.console.width());
                        self.console.draw(&live::block(service, signs, width));
                    }
                }
            }
        }
    }

    /// A story is over.
    pub fn outcome(&mut self, story: Story, outcome: &Outcome) {
        if self.json {
            self.console.json(outcome);
            return;
        }
        let signs = self.console.signs();
        let (sign, look) = if outcome.is_as_told(story) {
            (signs.good, Look::Good)
        } else {
            (signs.bad, Look::Bad)
        };
        let zero = outcome.seconds_to_zero.map_or_else(String::new, |seconds| {
            format!(", {seconds:.2} s from the first bad answer to canary weight 0")
        });
        let said = format!(
            " {}{zero}; {} of {} requests failed for a visitor",
            outcome.outcome.replace('_', " "),
            outcome.failed_for_users,
            outcome.requests,
        );
        self.line(Line::new().plain("   ").and(look, sign).plain(&said));
    }

    /// The table at the end.
    pub fn table(&mut self, outcomes: &[Outcome]) {
        self.say("");
        self.say("story    outcome       to weight 0   requests   failed for users     took");
        for outcome in outcomes {
            let zero = outcome
                .seconds_to_zero
                .map_or_else(|| "-".to_owned(), |seconds| format!("{seconds:.2} s"));
            self.say(&format!(
                "{:<8} {:<13} {:>11} {:>10} {:>18} {:>6.1} s",
                outcome.story,
                outcome.outcome.replace('_', " "),
                zero,
                outcome.requests,
                outcome.failed_for_users,
                outcome.seconds,
            ));
        }
    }

    fn events(&mut self, handle: &Handle) {
        let (events, _) = handle.events_after(self.last_event);
        for event in events {
            self.last_event = event.id;
            let telling = matches!(event.kind.as_str(), "phase" | "instance");
            if telling && !event.message.starts_with("last output") {
                let at = self.begun.elapsed().as_secs_f64();
                self.say(&format!("   {at:5.1}s  {}", event.message));
            }
        }
    }

    fn line(&mut self, line: Line) {
        if self.json { self.console.talk(line) } else { self.console.data(line) }
    }
}
