//! How the demo is shown: live on a terminal, as lines on a pipe, as JSON for programs.

use std::io::{IsTerminal as _, Write as _};
use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::Instant;

use super::story::{Outcome, Story};
use crate::controller::handle::Handle;
use crate::controller::status::{ServiceStatus, SideStatus};

/// How often the live view is drawn: smooth for an eye, nothing for a processor.
const REDRAW: Duration = Duration::from_millis(200);

/// Where the demo is shown.
#[derive(Debug)]
pub struct Show {
    style: Style,
    begun: Instant,
    last_event: u64,
    drawn: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Style {
    Live,
    Lines,
    Json,
}

impl Show {
    /// A show for whoever reads stdout.
    #[must_use]
    pub fn new(json: bool) -> Self {
        let style = match (json, std::io::stdout().is_terminal()) {
            (true, _) => Style::Json,
            (false, true) => Style::Live,
            (false, false) => Style::Lines,
        };
        Self { style, begun: Instant::now(), last_event: 0, drawn: 0 }
    }

    /// Says something in passing.
    pub fn say(&mut self, sentence: &str) {
        self.line(sentence);
    }

    /// Begins.
    pub fn begin(&mut self, address: SocketAddr, rate: u32) {
        self.line(&format!(
            "the proxy listens on http://{address}; visitors send {rate} requests/s to it"
        ));
        self.line("four releases follow: one good, three bad in different ways");
    }

    /// A story begins.
    pub fn story(&mut self, story: Story) {
        let number = Story::ALL.iter().position(|one| *one == story).map_or(0, |at| at + 1);
        self.line("");
        self.line(&format!("{number}. {}", story.title()));
    }

    /// Shows what happens while a story is told.
    pub async fn follow<T>(&mut self, handle: Handle, telling: impl Future<Output = T>) -> T {
        tokio::pin!(telling);
        let mut redraws = tokio::time::interval(REDRAW);
        loop {
            tokio::select! {
                told = &mut telling => {
                    self.erase();
                    self.events(&handle);
                    return told;
                }
                _ = redraws.tick() => {
                    self.erase();
                    self.events(&handle);
                    if let (Style::Live, Some(service)) = (self.style, handle.services().first()) {
                        self.draw(service);
                    }
                }
            }
        }
    }

    /// A story is over.
    pub fn outcome(&mut self, story: Story, outcome: &Outcome) {
        match self.style {
            Style::Json => {
                if let Ok(json) = serde_json::to_string(outcome) {
                    println!("{json}");
                }
            }
            Style::Live | Style::Lines => {
                let mark = if outcome.is_as_told(story) { "✔" } else { "✖" };
                let zero = outcome.seconds_to_zero.map_or_else(String::new, |seconds| {
                    format!(", {seconds:.2} s from the first bad answer to canary weight 0")
                });
                self.line(&format!(
                    "   {mark} {}{zero}; {} of {} requests failed for a visitor",
                    outcome.outcome.replace('_', " "),
                    outcome.failed_for_users,
                    outcome.requests,
                ));
            }
        }
        let _ = std::io::stdout().flush();
    }

    /// The table at the end.
    pub fn table(&mut self, outcomes: &[Outcome]) {
        self.line("");
        self.line("story    outcome       to weight 0   requests   failed for users   took");
        for outcome in outcomes {
            let zero = outcome
                .seconds_to_zero
                .map_or_else(|| "–".to_owned(), |seconds| format!("{seconds:.2} s"));
            self.line(&format!(
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
                let first = event.message.lines().next().unwrap_or_default();
                let at = self.begun.elapsed().as_secs_f64();
                self.line(&format!("   {at:5.1}s  {first}"));
            }
        }
    }

    fn line(&self, text: &str) {
        match self.style {
            // stdout is for the objects alone.
            Style::Json => eprintln!("{text}"),
            Style::Live | Style::Lines => println!("{text}"),
        }
    }

    fn erase(&mut self) {
        if self.drawn > 0 {
            // Up so many lines, then clear to the end of the screen.
            print!("\x1b[{}A\x1b[J", self.drawn);
            self.drawn = 0;
        }
    }

    fn draw(&mut self, service: &ServiceStatus) {
        let lines = view(service);
        for line in &lines {
            println!("{line}");
        }
        self.drawn = lines.len();
        let _ = std::io::stdout().flush();
    }
}

/// The live view of a service: a table of both sides, the verdict, the time left.
fn view(service: &ServiceStatus) -> Vec<String> {
    const BAR: usize = 40;
    let canary = service.weights.canary;
    let filled = (canary / 100.0 * BAR as f64).round() as usize;
    let bar = format!("{}{}", "━".repeat(filled), "╌".repeat(BAR - filled.min(BAR)));
    let left = service.seconds_left.map_or_else(String::new, |left| format!("  {left:.0} s left"));
    let step = service.step.map_or_else(
        || service.phase.replace('_', " "),
        |step| format!("step {step}/{}", service.steps.len()),
    );
    let mut lines = vec![
        format!("   ▸ {canary:>5.1}%  {bar}  {step}{left}"),
        "            share    rps   errors      p50      p95      p99".to_owned(),
    ];
    for (name, side) in [("stable", &service.stable), ("canary", &service.canary)] {
        if let Some(line) = side.as_ref().and_then(|side| row(name, side)) {
            lines.push(line);
        }
    }
    if let Some(verdict) = &service.verdict {
        lines.push(format!("     {}", verdict.sentence));
    }
    lines
}

fn row(name: &str, side: &SideStatus) -> Option<String> {
    let traffic = side.traffic?;
    let time = |seconds: Option<f64>| {
        seconds.map_or_else(|| "–".to_owned(), |seconds| format!("{:.1}ms", seconds * 1e3))
    };
    Some(format!(
        "     {name} {:>5.1}% {:>6.0} {:>7.2}% {:>8} {:>8} {:>8}",
        traffic.share,
        traffic.requests_per_second,
        traffic.error_rate * 100.0,
        time(traffic.p50),
        time(traffic.p95),
        time(traffic.p99),
    ))
}
