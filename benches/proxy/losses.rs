//! Requests that are lost while weights and revisions change under load: none may be.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::load::wrk;
use crate::peers::{Kind, Running, Setup, Site};
use crate::report::{Better, Report, Series};
use crate::{Options, Result};

/// The row with what was lost.
pub const LOST: &str = "requests lost while weights and revisions change";
/// Connections of the load, of which none ever waits for another.
const CONNECTIONS: u32 = 64;
/// How long the load's program runs before it is begun again.
const STRETCH: Duration = Duration::from_secs(5);
/// Weights that each revision gets before it is promoted.
const WEIGHTS: u32 = 10;
/// How long it may take in all. A machine that is slower than that has shown less, and says so.
const PATIENCE: Duration = Duration::from_secs(120);

/// What was changed.
#[derive(Debug, Default, Clone, Copy)]
struct Changed {
    weights: u32,
    revisions: u32,
}

/// Sends requests for as long as it takes to change weights a thousand times and revisions a hundred.
pub fn measure(options: &Options, site: &Site, report: &mut Report) -> Result<()> {
    report.section("Losses under load");
    let revisions = if options.quick { 10 } else { 100 };
    let proxy = site.start(&Setup::of(Kind::Switchback))?;
    let over = AtomicBool::new(false);
    let (changed, answered, lost) = std::thread::scope(|scope| {
        let changes = scope.spawn(|| {
            let changed = change(&proxy, &site.sides(), revisions);
            over.store(true, Ordering::Relaxed);
            changed
        });
        let url = format!("http://127.0.0.1:{}/", proxy.http);
        let (mut answered, mut lost) = (0, 0);
        let loaded = loop {
            match wrk(&url, CONNECTIONS, STRETCH, false, None::<&Path>) {
                Ok(seen) => (answered, lost) = (answered + seen.requests, lost + seen.lost),
                Err(error) => break Err(error),
            }
            if over.load(Ordering::Relaxed) {
                break Ok(());
            }
        };
        let changed = changes.join().map_err(|_| "the thread that changes things panicked")??;
        loaded.map(|()| (changed, answered, lost))
    })?;
    for (name, value, better) in [
        ("changes of weights", f64::from(changed.weights), Better::Higher),
        ("changes of revisions", f64::from(changed.revisions), Better::Higher),
        ("requests answered meanwhile", answered as f64, Better::Higher),
        (LOST, lost as f64, Better::Lower),
    ] {
        let mut series = Series::new(name, "", better);
        series.add(Kind::Switchback, value);
        report.add(series);
    }
    if changed.revisions < revisions {
        report.note(&format!("the machine was too slow for {revisions} changes of revisions"));
    }
    Ok(())
}

/// Gives each revision ten weights, and promotes it.
fn change(proxy: &Running, sides: &[String; 2], revisions: u32) -> Result<Changed> {
    let began = Instant::now();
    let mut changed = Changed::default();
    // The canary is the second side; who is promoted next is the first again.
    let mut next = sides.iter().cycle();
    while changed.revisions < revisions && began.elapsed() < PATIENCE {
        for turn in 0..WEIGHTS {
            proxy.weigh(5.0 + 9.0 * f64::from(turn))?;
            changed.weights += 1;
        }
        proxy.promote()?;
        proxy.until("the promotion", |web| web["phase"] == "promoted")?;
        changed.revisions += 1;
        let endpoint = next.next().cloned().unwrap_or_default();
        proxy.deploy(&json!({ "endpoints": [endpoint] }))?;
        proxy.until("the canary's weight", |web| web["weights"]["canary"] == 5.0)?;
    }
    Ok(changed)
}
