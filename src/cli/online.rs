//! From the arguments of verbs that are the daemon, or talk to it, to the verbs themselves.

use super::act::{self, Act};
use super::args::daemon::{self as args, Daemon};
use super::args::keeping::{State, StateVerb};
use super::args::watching::{Notify, NotifyVerb};
use super::client::{Client, DEFAULT_HOST};
use super::console::Console;
use super::exit::{Exit, Failure};
use super::{
    audit, checkpoint, demo, deploy, doctor, events, gates, history, logs, reload, run, source,
    state, stats, status, tester, together, top,
};
use crate::admin::together::ReturnRequest;
use crate::config::load::{environment, load, locate};

/// Runs a verb.
pub(super) fn run(verb: Daemon) -> Result<Exit, Failure> {
    match verb {
        Daemon::Run(args) => run::run(&args),
        Daemon::Demo(args) => Ok(demo::run(&args)),
        Daemon::TesterCookie(args) => tester::run(&args),
        Daemon::State(State { verb: StateVerb::Import(args) }) => state::import(&args),
        // Programs of their own; `cli::main` has started them.
        Daemon::InstanceShim(_) | Daemon::SampleApp(_) => Ok(Exit::Usage),
        asking => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(ask(asking, &mut Console::standard(None)))
        }
    }
}

async fn ask(verb: Daemon, console: &mut Console) -> Result<Exit, Failure> {
    let acting =
        |service: args::Service| act::Options { service: Some(service.0.to_string()), json: false };
    Ok(match verb {
        Daemon::Reload(args) => reload::run(&client(args.client)?, console).await,
        Daemon::Deploy(args) => {
            let client = client(args.client)?;
            let from = source::Where {
                build: args.build,
                git: args.git,
                reference: args.reference,
                force: args.force,
            };
            let mut services = args.services;
            let first = services.first().cloned();
            let options = deploy::Options {
                service: first.as_ref().map(|first| first.service.to_string()),
                tag: first.and_then(|first| first.tag),
                image: args.image,
                command: args.command,
                endpoints: args.endpoints,
                env: args.env.into_iter().collect(),
                strategy: args.strategy,
                steps: args.steps,
                bake: args.bake,
                by: gates::whoami(),
                override_freeze: args.override_freeze,
                origin: None,
                no_checkpoint: args.no_checkpoint,
                detach: args.detach,
                dry_run: args.dry_run,
                json: args.output.is_json(),
            };
            if from.is_some() {
                if let Some(tagged) = services.iter().find(|one| one.tag.is_some()) {
                    return Err(Failure::new(
                        Exit::Usage,
                        format!(
                            "what is built has its commit as its tag: write {}",
                            tagged.service
                        ),
                    ));
                }
                let names = services.drain(..).map(|one| one.service.to_string()).collect();
                source::run(&client, console, names, &from, &options).await
            } else if services.len() > 1 {
                together::run(&client, console, options, services).await
            } else {
                deploy::run(&client, console, options).await
            }
        }
        Daemon::Status(args) => {
            let options = status::Options {
                service: args.service.map(|service| service.0.to_string()),
                watch: args.watch,
                json: args.output.is_json(),
                sheet: args.sheet,
            };
            status::run(&client(args.client)?, console, options).await
        }
        Daemon::Promote(args) => {
            let verb = Act::Promote { full: args.full };
            act::run(&client(args.client)?, console, verb, acting(args.service)).await
        }
        Daemon::Abort(args) => {
            act::run(&client(args.client)?, console, Act::Abort, acting(args.service)).await
        }
        Daemon::Pause(args) => {
            act::run(&client(args.client)?, console, Act::Pause, acting(args.service)).await
        }
        Daemon::Resume(args) => {
            act::run(&client(args.client)?, console, Act::Resume, acting(args.service)).await
        }
        Daemon::Weight(args) => {
            let verb = Act::Weight(args.weight);
            act::run(&client(args.client)?, console, verb, acting(args.service)).await
        }
        Daemon::Maintenance(args) => {
            let on = args.state == "on";
            if !on && args.queue.is_some() {
                let sentence = "--queue belongs to `on`: who waits is let in by the end";
                return Err(Failure::new(Exit::Usage, sentence));
            }
            let verb = Act::Maintenance(on.then(|| args.queue.unwrap_or_default()));
            act::run(&client(args.client)?, console, verb, acting(args.service)).await
        }
        Daemon::Confirm(args) => {
            gates::confirm(&client(args.client)?, console, args.service.0.as_str()).await
        }
        Daemon::Freeze(args) => {
            let (service, until) = (args.service.map(|one| one.0.to_string()), args.until);
            let (client, which) = (client(args.client)?, gates::Which::of(service, args.all));
            gates::freeze(&client, console, which, &args.reason, until).await
        }
        Daemon::Unfreeze(args) => {
            let service = args.service.map(|one| one.0.to_string());
            let which = gates::Which::of(service, args.all);
            gates::unfreeze(&client(args.client)?, console, which).await
        }
        Daemon::Rollback(args) => {
            let mut names = args.services.iter().map(|service| service.0.to_string());
            if args.services.len() > 1 {
                if args.to.is_some() {
                    let sentence =
                        "--to takes one service at a time: revisions are numbered by service";
                    return Err(Failure::new(Exit::Usage, sentence));
                }
                let back =
                    ReturnRequest { services: names.collect(), no_checkpoint: args.no_checkpoint };
                return Ok(together::back(&client(args.client)?, console, &back).await);
            }
            let options = act::Rollback {
                service: names.next(),
                to: args.to.map(|revision| revision.0),
                no_checkpoint: args.no_checkpoint,
                ..act::Rollback::default()
            };
            act::rollback(&client(args.client)?, console, options).await
        }
        Daemon::Checkpoint(args) => {
            use super::args::keeping::CheckpointVerb as Verb;
            let at = match &args.verb {
                Verb::Create(args) => args.client.clone(),
                Verb::Ls(args) => args.client.clone(),
                Verb::Verify(args) => args.client.clone(),
                Verb::Restore(args) => args.client.clone(),
                Verb::Rm(args) => args.client.clone(),
            };
            checkpoint::run(&client(at)?, console, args).await
        }
        Daemon::State(State { verb: StateVerb::Export(args) }) => {
            state::export(&client(args.client.clone())?, console, &args).await
        }
        Daemon::Adopt(args) => {
            checkpoint::adopt(&client(args.client.clone())?, console, args).await
        }
        Daemon::Clean(args) => {
            checkpoint::clean(&client(args.client.clone())?, console, &args).await
        }
        Daemon::History(args) => {
            let service = Some(args.service.0.to_string());
            let options = history::Options { service, json: args.output.is_json() };
            history::run(&client(args.client)?, console, options).await
        }
        Daemon::Explain(args) => {
            let json = args.output.is_json();
            history::explain(&client(args.client)?, console, args.rollout.0, json).await
        }
        Daemon::Events(args) => {
            let json = args.output.is_json();
            let options = events::Options { service: None, follow: args.follow, json };
            events::run(&client(args.client)?, console, options).await
        }
        Daemon::Stats(args) => {
            let options = stats::Options {
                service: args.service.map(|service| service.0.to_string()),
                watch: args.watch,
                json: args.output.is_json(),
            };
            stats::run(&client(args.client)?, console, options).await
        }
        Daemon::Top(args) => {
            let options = status::Options {
                service: args.service.map(|service| service.0.to_string()),
                watch: false,
                json: args.output.is_json(),
                sheet: false,
            };
            top::run(&client(args.client)?, console, options).await
        }
        Daemon::Doctor(args) => {
            let (file, json) = (args.client.config.clone(), args.output.is_json());
            // A file that is bad is a finding here, and the usual socket is asked.
            let mut place = args.client.clone();
            let client = match client(args.client) {
                Ok(client) => client,
                Err(_) => {
                    place.config = None;
                    self::client(place)?
                }
            };
            doctor::run(&client, console, file.as_deref(), json).await
        }
        Daemon::Audit(args) => {
            let options = audit::Options {
                service: args.service.map(|service| service.0.to_string()),
                verb: args.verb,
                by: args.by,
                since: args.since,
                limit: args.limit,
                json: args.output.is_json(),
            };
            audit::run(&client(args.client)?, console, options).await
        }
        Daemon::Notify(Notify { verb: NotifyVerb::Test(args) }) => {
            let json = args.output.is_json();
            audit::notify_test(&client(args.client)?, console, args.name.as_deref(), json).await
        }
        Daemon::Logs(args) => {
            let options = logs::Options {
                service: Some(args.service.0.to_string()),
                revision: args.revision.map(|revision| revision.0),
                all: args.all,
                since: args.since,
                times: args.times,
                instance: args.instance,
                grep: args.grep,
                lines: args.lines,
                follow: args.follow,
                json: args.output.is_json(),
            };
            logs::run(&client(args.client)?, console, options).await
        }
        Daemon::Run(_)
        | Daemon::Demo(_)
        | Daemon::TesterCookie(_)
        | Daemon::State(_)
        | Daemon::InstanceShim(_)
        | Daemon::SampleApp(_) => Exit::Usage,
    })
}

/// The daemon that is meant: the one named, else the socket of the configuration, else the usual
/// one.
fn client(args: args::Client) -> Result<Client, Failure> {
    let host = match args.host {
        Some(host) => host,
        None => {
            let variables = environment();
            let located = locate(args.config.as_deref(), &variables);
            let read = located.and_then(|path| load(&path, &variables, &[]));
            match read {
                Ok(parsed) => format!("unix://{}", parsed.config.admin.socket.display()),
                // A file that was named must be right; one that happens to lie here need not be.
                Err(problems) if args.config.is_some() => return Err(problems.into()),
                Err(_) => DEFAULT_HOST.to_owned(),
            }
        }
    };
    Client::new(&host, args.token).map_err(|trouble| Failure::new(trouble.exit, trouble.sentence))
}
