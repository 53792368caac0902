//! `switchback run`: the proxy and the controller in the foreground.
//!
//! Signals: HUP reloads; TERM, INT and QUIT drain and stop, a second one stops now; USR2 hands over to
//! a new process of the same path and arguments, which may be another version; USR1 opens the
//! access log anew.

use std::time::Duration;

use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::args::daemon::Run;
use super::exit::{Exit, Failure};
use crate::app::handover::{Failed, Heritage, Leaving};
use crate::app::{House, OpenError};
use crate::config::{LogFormat, load};
use crate::controller::closing::Leave;
use crate::telemetry::logging::{self, Format};

/// What a stop gives requests in flight: shorter than the 90 s after which systemd kills.
const DRAIN: Duration = Duration::from_secs(30);

/// Opens the house and keeps it open until a signal says to close.
pub(super) fn run(args: &Run) -> Result<Exit, Failure> {
    let variables = load::environment();
    let path = load::locate(args.source.config.as_deref(), &variables)?;
    let parsed = load::load(&path, &variables, &args.source.settings)?;
    if !parsed.warnings.list.is_empty() {
        super::output::talk(&parsed.warnings.render(true));
    }
    let config = parsed.config;
    let format = match (args.log_format.as_deref(), config.log.format) {
        (Some("text"), _) | (None, LogFormat::Text) => Format::Text,
        (Some("json"), _) | (None, LogFormat::Json) => Format::Json,
        _ => Format::by_terminal(),
    };
    logging::init(format, &config.log.filter)
        .map_err(|error| Failure::new(Exit::Invalid, error))?;
    // This thread alone: rollouts are driven by one of their own, the data plane has its workers, and
    // several would wake each other for every request to the API.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let flags = args.source.settings.clone();
    let read = Box::new(move || {
        load::load(&path, &load::environment(), &flags)
            .map(|parsed| parsed.config)
            .map_err(|problems| problems.to_string())
    });
    runtime.block_on(async {
        let heritage = match Heritage::take() {
            Ok(heritage) => heritage,
            Err(error) => {
                let said = format!(
                    "nothing was handed over by the process that started this one: {error}"
                );
                return Err(Failure::new(Exit::Error, said));
            }
        };
        match House::inherit(config, read, heritage).await {
            Ok(house) => Ok(serve(house).await),
            Err(error @ OpenError::Tls(_)) => Err(Failure::new(Exit::Invalid, error)),
            Err(error) => Err(Failure::new(Exit::Error, error)),
        }
    })
}

async fn serve(mut house: House) -> Exit {
    let taken = (
        signal(SignalKind::hangup()),
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
        signal(SignalKind::quit()),
        signal(SignalKind::user_defined1()),
        signal(SignalKind::user_defined2()),
    );
    let (Ok(mut hup), Ok(mut term), Ok(mut int), Ok(mut quit), Ok(mut usr1), Ok(mut usr2)) = taken
    else {
        tracing::error!("signals cannot be taken");
        return Exit::Error;
    };
    let addresses = house.addresses();
    for (scheme, list) in
        [("http", &addresses.http), ("https", &addresses.https), ("tcp", &addresses.tcp)]
    {
        for address in list {
            tracing::info!("listening on {scheme}://{address}");
        }
    }
    if let Some(address) = house.admin() {
        tracing::info!("admin API on http://{address}");
    }
    tell_systemd(&[NotifyState::Ready]);
    loop {
        tokio::select! {
            _ = hup.recv() => match house.reload().await {
                Ok(said) => tracing::info!("reloaded: {said}"),
                Err(error) => tracing::error!("not reloaded, the running configuration stays: {error}"),
            },
            _ = usr1.recv() => match house.reopen_log() {
                true => tracing::info!("the access log is opened anew"),
                false => tracing::info!("there is no access log in a file: nothing to reopen"),
            },
            _ = usr2.recv() => {
                if std::process::id() == 1 {
                    // The container ends with its first process, and the heir with it.
                    tracing::warn!(
                        "the first process of a container cannot hand over: start another container instead"
                    );
                    continue;
                }
                tracing::info!("handing over to a new process");
                match house.hand_over().await {
                    Ok(leaving) => return leave(leaving, (&mut term, &mut int, &mut quit)).await,
                    Err(Failed::Stayed(stayed)) => {
                        house = stayed.house;
                        tracing::error!("not handed over, this process serves on: {}", stayed.why);
                    }
                    Err(Failed::Lost(why)) => {
                        tracing::error!("not handed over: {why}");
                        return Exit::Error;
                    }
                }
            }
            () = stop(&mut term, &mut int, &mut quit) => break,
        }
    }
    tracing::info!("stopping: requests in flight get {DRAIN:?}; a second signal stops now");
    tokio::select! {
        () = house.close(DRAIN, Leave::Containers) => tracing::info!("stopped"),
        () = stop(&mut term, &mut int, &mut quit) => tracing::warn!("stopped at once"),
    }
    Exit::Done
}

/// Ends in favour of the heir.
async fn leave(
    leaving: Leaving,
    (term, int, quit): (&mut Signal, &mut Signal, &mut Signal),
) -> Exit {
    let heir = leaving.heir;
    tell_systemd(&[NotifyState::MainPid(heir)]);
    tracing::info!("process {heir} serves; open connections get {DRAIN:?} to end here");
    tokio::select! {
        () = leaving.finish(DRAIN) => tracing::info!("handed over"),
        () = stop(term, int, quit) => tracing::warn!("stopped at once; process {heir} serves on"),
    }
    Exit::Done
}

/// Tells systemd, or whoever speaks its protocol, if it started us.
fn tell_systemd(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "systemd cannot be told how this process stands");
    }
}

async fn stop(term: &mut Signal, int: &mut Signal, quit: &mut Signal) {
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
        _ = quit.recv() => {}
    }
}
