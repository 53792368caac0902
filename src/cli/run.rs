//! `switchback run`: the proxy and the controller in the foreground.
//!
//! Signals: HUP reloads; TERM, INT and QUIT drain and stop, a second one stops now; USR1 opens
//! the access log anew; USR2 is taken and answered with a line in the log, because its default would
//! end the process.

use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::args::daemon::Run;
use super::exit::{Exit, Failure};
use crate::app::{House, OpenError};
use crate::config::{LogFormat, load};
use crate::controller::driver::Leave;
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
    // Two threads: one may be busy with a large answer while the other drives rollouts. The data
    // plane has its own.
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let flags = args.source.settings.clone();
    let read = Box::new(move || {
        load::load(&path, &load::environment(), &flags)
            .map(|parsed| parsed.config)
            .map_err(|problems| problems.to_string())
    });
    runtime.block_on(async {
        match House::open(config, read).await {
            Ok(house) => Ok(serve(house).await),
            Err(error @ OpenError::Tls(_)) => Err(Failure::new(Exit::Invalid, error)),
            Err(error) => Err(Failure::new(Exit::Error, error)),
        }
    })
}

async fn serve(house: House) -> Exit {
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
    loop {
        tokio::select! {
            _ = hup.recv() => match house.handle().reload().await {
                Ok(said) => tracing::info!("reloaded: {said}"),
                Err(error) => tracing::error!("not reloaded, the running configuration stays: {error}"),
            },
            _ = usr1.recv() => match house.reopen_log() {
                true => tracing::info!("the access log is opened anew"),
                false => tracing::info!("there is no access log in a file: nothing to reopen"),
            },
            _ = usr2.recv() => tracing::warn!(
                "this version cannot replace its own binary; stop and start it instead"
            ),
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

async fn stop(term: &mut Signal, int: &mut Signal, quit: &mut Signal) {
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
        _ = quit.recv() => {}
    }
}
