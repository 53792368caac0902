//! `switchback run`: the proxy and the controller in the foreground.
//!
//! Signals: HUP reloads; TERM, INT and QUIT drain and stop, a second one stops now; USR1 and USR2
//! are taken and answered with a line in the log, because their default would end the process.

use std::path::Path;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::exit::Exit;
use crate::app::{House, OpenError};
use crate::config::Config;
use crate::config::load;
use crate::controller::driver::Leave;

/// What a stop gives requests in flight: shorter than the 90 s after which systemd kills.
const DRAIN: Duration = Duration::from_secs(30);

/// Opens the house and keeps it open until a signal says to close. `flags` are `--set` words.
pub fn run(config: Config, path: &Path, flags: &[String]) -> Exit {
    // Two threads: one may be busy with a large answer while the other drives rollouts. The data
    // plane has its own.
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "the control plane cannot start");
            return Exit::Error;
        }
    };
    let (path, flags) = (path.to_owned(), flags.to_vec());
    let read = Box::new(move || {
        load::load(&path, &load::environment(), &flags)
            .map(|parsed| parsed.config)
            .map_err(|problems| problems.to_string())
    });
    runtime.block_on(async {
        match House::open(config, read).await {
            Ok(house) => serve(house).await,
            Err(error) => {
                tracing::error!("cannot start: {error}");
                match error {
                    OpenError::Tls(_) => Exit::Invalid,
                    _ => Exit::Error,
                }
            }
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
    for (scheme, list) in [("http", &addresses.http), ("https", &addresses.https)] {
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
            _ = usr1.recv() => tracing::info!("logs go to stderr: nothing to reopen"),
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
