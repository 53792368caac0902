//! User instructions per request: the difference of two request counts, so that start and end
//! cancel. Unlike time it repeats to a fraction of a per cent on any machine.
//!
//! Threads are counted apart, and only the one that works for requests counts: probes and verdicts go
//! by the clock, which under callgrind stands nearly still.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::load::H2load;
use crate::peers::{Kind, Setup, Site, us};
use crate::process::Cores;
use crate::report::{Better, Report, Series};
use crate::{Options, Result};

/// Connections over which requests are sent: enough that the proxy never waits.
const CONNECTIONS: u64 = 16;
/// The figure's name.
pub const FIGURE: &str = "instructions per request";

/// Measures plain work of all proxies.
pub fn measure(options: &Options, site: &Site, report: &mut Report) -> Result<()> {
    report.section("User instructions per request: HTTP/1.1 keep-alive (callgrind)");
    let mut plain = Series::new(FIGURE, "", Better::Lower);
    for kind in Kind::ALL {
        plain.add(kind, per_request(options, site, &Setup::of(kind), &[])?);
    }
    let ours = plain.median(Kind::Switchback).unwrap_or(f64::NAN);
    report.add(plain);
    if options.quick {
        return Ok(());
    }
    let mut ids = Series::new("nginx makes request ids too", "", Better::Lower);
    ids.add(Kind::Switchback, ours);
    let with_ids = Setup { ids: true, ..Setup::of(Kind::Nginx) };
    ids.add(Kind::Nginx, per_request(options, site, &with_ids, &[])?);
    report.add(ids);
    Ok(())
}

/// User instructions per request over HTTP/1.1 keep-alive with a small body, which has these fields
/// besides a browser's.
pub fn per_request(options: &Options, site: &Site, setup: &Setup, fields: &[&str]) -> Result<f64> {
    let (few, many) = if options.quick { (300, 1_300) } else { (500, 3_500) };
    // Both at the same time: what they count, they count apart, and nobody's time is measured.
    let (first, second) = std::thread::scope(|scope| {
        let first = scope.spawn(|| count(site, setup, fields, few));
        let second = count(site, setup, fields, many);
        (first.join(), second)
    });
    let first = first.map_err(|_| "a count's thread panicked")??;
    Ok((second? as f64 - first as f64) / (many - few) as f64)
}

fn callgrind(folder: &Path) -> [String; 4] {
    [
        "valgrind".to_owned(),
        "--tool=callgrind".to_owned(),
        "--separate-threads=yes".to_owned(),
        format!("--callgrind-out-file={}/out", folder.display()),
    ]
}

/// Instructions for so many requests.
fn count(site: &Site, setup: &Setup, fields: &[&str], requests: u64) -> Result<u64> {
    let folder = folder(site, &format!("{}-{requests}", setup.kind))?;
    let proxy = site.start(&Setup {
        wrapper: callgrind(&folder).to_vec(),
        cores: Cores::All,
        ..setup.clone()
    })?;
    let url = format!("http://127.0.0.1:{}/", proxy.http);
    let load = H2load { url: &url, requests, connections: CONNECTIONS, streams: 1, http1: true };
    load.run_with(fields)?;
    proxy.process.stop(Duration::from_secs(40));
    // Our worker is the thread that handles requests; the peers have one thread.
    let handles =
        if setup.kind == Kind::Switchback { " switchback::proxy::handler::handle" } else { "" };
    counted(&folder, handles).ok_or_else(|| format!("callgrind left no counts of {}", setup.kind))
}

/// The sum in the files of threads that have called this function.
fn counted(folder: &Path, function: &str) -> Option<u64> {
    let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let texts = files.filter_map(|file| std::fs::read_to_string(file.path()).ok());
    texts
        .filter(|text| text.contains(function))
        .filter_map(|text| total(&text))
        .reduce(|a, b| a + b)
}

/// Instructions of one turn of a part of ours that no setting switches off: `--alone PART TURNS`.
pub fn alone(site: &Site, part: &str) -> Result<f64> {
    let count = |turns: u64| -> Result<u64> {
        let folder = folder(site, &format!("alone-{part}-{turns}"))?;
        let wrapper = callgrind(&folder);
        let mut command = Command::new(&wrapper[0]);
        command.args(&wrapper[1..]).arg(us()?).args(["--alone", part, &turns.to_string()]);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let status = command.status().map_err(|error| format!("valgrind: {error}"))?;
        let all = counted(&folder, "").filter(|_| status.success());
        all.ok_or_else(|| format!("callgrind left no counts of {part}"))
    };
    const TURNS: u64 = 20_000;
    Ok((count(2 * TURNS)? as f64 - count(TURNS)? as f64) / TURNS as f64)
}

/// Where counts are left: `CALLGRIND_DIR` keeps them for `callgrind_annotate`.
fn folder(site: &Site, name: &str) -> Result<PathBuf> {
    let name = format!("callgrind-{name}");
    let folder = match std::env::var_os("CALLGRIND_DIR") {
        Some(kept) => Path::new(&kept).join(name),
        None => site.file(&name),
    };
    if folder.is_dir() {
        std::fs::remove_dir_all(&folder).map_err(|error| error.to_string())?;
    }
    std::fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
    Ok(folder)
}

/// The sum in a file of counts.
fn total(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| {
        line.strip_prefix("totals: ").or_else(|| line.strip_prefix("summary: "))
    })?;
    line.split_whitespace().next()?.parse().ok()
}
