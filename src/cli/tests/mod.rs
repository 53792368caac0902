//! The verbs against the real API over real sockets, with a driver that only acts the part.

mod deploys;
mod says;

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::client::Client;
use super::console::Console;
use super::exit::Exit;
use super::{act, deploy, status};
use crate::admin::fake::{Fake, Levers};

/// Long enough for a machine under load; only a failing test waits so long.
const PATIENCE: Duration = Duration::from_secs(20);

/// What was said on one stream.
#[derive(Clone, Default)]
pub(super) struct Said(Arc<Mutex<Vec<u8>>>);

impl Write for Said {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("unpoisoned").write(bytes)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Said {
    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().expect("unpoisoned")).into_owned()
    }

    async fn until(&self, text: &str) {
        let shown = async {
            while !self.text().contains(text) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let waited = tokio::time::timeout(PATIENCE, shown).await;
        assert!(waited.is_ok(), "{text:?} not in:\n{}", self.text());
    }
}

/// A console that is no terminal, and what it says on stdout and stderr.
pub(super) fn written() -> (Console, Said, Said) {
    let (out, err) = (Said::default(), Said::default());
    (Console::over(Box::new(out.clone()), Box::new(err.clone()), false), out, err)
}

/// A person at a shell.
struct Shell {
    fake: Fake,
    client: Client,
    out: Said,
    err: Said,
    console: Console,
}

impl Shell {
    async fn new() -> Self {
        Self::with(Fake::start().await, false)
    }

    async fn on_a_terminal() -> Self {
        Self::with(Fake::start().await, true)
    }

    fn with(fake: Fake, live: bool) -> Self {
        let client = Client::new(&format!("unix://{}", fake.socket.display()), None);
        let (out, err) = (Said::default(), Said::default());
        let console = Console::over(Box::new(out.clone()), Box::new(err.clone()), live);
        Self { fake, client: client.expect("a client"), out, err, console }
    }

    fn levers(&self) -> Levers {
        self.fake.levers.clone()
    }

    /// What was said since the last call: stdout, stderr.
    fn said(&self) -> (String, String) {
        let take = |said: &Said| {
            let bytes = std::mem::take(&mut *said.0.lock().expect("unpoisoned"));
            String::from_utf8(bytes).expect("text")
        };
        (take(&self.out), take(&self.err))
    }

    async fn deploy(&mut self, options: deploy::Options) -> Exit {
        deploy::run(&self.client, &mut self.console, options).await
    }

    async fn act(&mut self, act: act::Act) -> (Exit, String, String) {
        let options = act::Options { service: Some("web".into()), json: false };
        let exit = act::run(&self.client, &mut self.console, act, options).await;
        let (out, err) = self.said();
        (exit, out, err)
    }

    async fn status(&mut self, service: Option<&str>, json: bool) -> (Exit, String, String) {
        let service = service.map(str::to_owned);
        let options = status::Options { service, json, ..Default::default() };
        let exit = status::run(&self.client, &mut self.console, options).await;
        let (out, err) = self.said();
        (exit, out, err)
    }
}

/// A rollout that goes well, then ends in some way.
fn story(levers: &Levers, outcome: &str, cause: Option<&str>) {
    levers.happen("phase", Some(("launching", 0.0)), "starting 1 instance of revision 4");
    levers.happen("instance", None, "web-4-1 listens on 172.17.0.3:3000");
    levers.happen("phase", Some(("baking", 5.0)), "the canary takes 5% of traffic");
    levers.happen("phase", Some(("baking", 25.0)), "the canary takes 25% of traffic");
    let phase = if outcome == "promoted" { "promoted" } else { "rolled_back" };
    levers.end(phase, outcome, cause, "it ended");
}
