//! User instructions per request: the difference of two request counts, so that start and end
//! cancel. Unlike time it repeats to a fraction of a per cent on any machine.
//!
//! Threads are counted apart, and the one that works for requests is the one whose count differs
//! most: probes and verdicts go by the clock, which under callgrind stands nearly still.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::Result;
use crate::load::H2load;
use crate::peers::{Kind, Site};

/// Connections over which requests are sent: enough that the proxy never waits.
const CONNECTIONS: u64 = 16;

/// User instructions per request over HTTP/1.1 keep-alive with a small body.
pub fn per_request(site: &Site, kind: Kind, ids: bool, few: u64, many: u64) -> Result<f64> {
    let (first, second) = (count(site, kind, ids, few)?, count(site, kind, ids, many)?);
    let most = second
        .iter()
        .map(|(thread, instructions)| {
            *instructions as f64 - first.get(thread).copied().unwrap_or(0) as f64
        })
        .fold(0.0, f64::max);
    Ok(most / (many - few) as f64)
}

/// Instructions by thread for so many requests.
fn count(site: &Site, kind: Kind, ids: bool, requests: u64) -> Result<HashMap<String, u64>> {
    let folder = folder(site, kind, requests)?;
    let wrapper = [
        "valgrind".to_owned(),
        "--tool=callgrind".to_owned(),
        "--separate-threads=yes".to_owned(),
        format!("--callgrind-out-file={}/out", folder.display()),
    ];
    let proxy = site.start_under(kind, ids, &wrapper)?;
    let url = format!("http://127.0.0.1:{}/", proxy.http);
    let load = H2load { url: &url, requests, connections: CONNECTIONS, streams: 1, http1: true };
    load.run()?;
    proxy.process.stop(Duration::from_secs(40));
    let mut counts = HashMap::new();
    for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
        if let (Some(thread), Some(count)) = (thread(&entry.path()), total(&entry.path())) {
            counts.insert(thread, count);
        }
    }
    if counts.is_empty() { Err(format!("callgrind left no counts of {kind}")) } else { Ok(counts) }
}

/// Where the counts are left: `CALLGRIND_DIR` keeps them for `callgrind_annotate`.
fn folder(site: &Site, kind: Kind, requests: u64) -> Result<PathBuf> {
    let name = format!("callgrind-{kind}-{requests}");
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

/// The thread of a file: `out-01`, or `out` of a program that has one.
fn thread(file: &Path) -> Option<String> {
    file.file_name()?.to_str()?.strip_prefix("out").map(|rest| match rest {
        "" => "-01".to_owned(),
        rest => rest.to_owned(),
    })
}

/// The sum in a file of counts.
fn total(file: &Path) -> Option<u64> {
    let text = std::fs::read_to_string(file).ok()?;
    let line = text.lines().find_map(|line| {
        line.strip_prefix("totals: ").or_else(|| line.strip_prefix("summary: "))
    })?;
    line.split_whitespace().next()?.parse().ok()
}
