//! `demo`: the whole story on this machine.

use super::args::daemon as args;
use super::exit::Exit;
use super::output;
use crate::demo::{self, DemoRuntime, Options, Show, Story};
use crate::telemetry::logging;

/// Gives the demo. Ends well only if every story ended as it should.
pub(super) fn run(args: &args::Demo) -> Exit {
    // The demo says by itself what happens; only what goes wrong is logged.
    let filter = std::env::var("SWITCHBACK_LOG").unwrap_or_else(|_| "error".to_owned());
    if let Err(error) = logging::init(logging::Format::by_terminal(), &filter) {
        output::talk(&error.to_string());
        return Exit::Usage;
    }
    let runtime =
        match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => {
                output::talk(&format!("the demo cannot start: {error}"));
                return Exit::Error;
            }
        };
    let options = Options {
        runtime: match args.runtime {
            args::DemoRuntime::Process => DemoRuntime::Process,
            args::DemoRuntime::Docker => DemoRuntime::Docker,
        },
        rate: demo::RATE,
    };
    let mut show = Show::new(args.json);
    match runtime.block_on(demo::run(options, &mut show)) {
        Ok(outcomes) => {
            let told = Story::ALL.iter().zip(&outcomes);
            let as_told = told.filter(|(story, outcome)| outcome.is_as_told(**story)).count();
            if as_told == Story::ALL.len() { Exit::Done } else { Exit::Error }
        }
        Err(error) => {
            output::talk(&error.to_string());
            Exit::Error
        }
    }
}
