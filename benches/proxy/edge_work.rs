//! What nginx does without an app, and we too: files of a directory, as they are and compressed.

use std::fmt::Write as _;

use crate::load::wrk;
use crate::peers::{Kind, Running, Setup, Site};
use crate::report::{Better, Report, Series};
use crate::work::{measured, weigh_idle};
use crate::{Options, Result};

/// Each with its file and how many ask for it at a time.
const FILES: [(&str, &str, u32); 4] = [
    ("a file of 1 KiB", "small.bin", 16),
    ("a file of 64 KiB", "medium.bin", 16),
    ("a file of 1 MiB", "large.bin", 8),
    // A tenth of it is left.
    ("a page of 64 KiB, gzip at 5", "page.html", 16),
];

/// Measures CPU per answer, in rounds that alternate.
pub fn measure(options: &Options, site: &Site, report: &mut Report) -> Result<()> {
    if !FILES.iter().any(|(name, ..)| options.wants(name)) {
        return Ok(());
    }
    report.section("Files of a directory: CPU per answer, nginx with `sendfile on`");
    let folder = site.file("files");
    let fail = |error: std::io::Error| format!("no files to serve: {error}");
    std::fs::create_dir_all(&folder).map_err(fail)?;
    let mut page = String::from("<!doctype html><title>a page</title>\n");
    let mut line = 0_u32;
    while page.len() < 64 * 1024 {
        line += 1;
        let _ = writeln!(page, "<p id=\"n{line}\">Line {line} of a page, {:x}.</p>", line * 7_919);
    }
    page.truncate(64 * 1024);
    for (name, bytes) in [
        ("small.bin", vec![b'x'; 1024]),
        ("medium.bin", vec![b'x'; 64 * 1024]),
        ("large.bin", vec![b'x'; 1024 * 1024]),
        ("page.html", page.into_bytes()),
    ] {
        std::fs::write(folder.join(name), bytes).map_err(fail)?;
    }
    let here = folder.display();
    let setup = |kind| Setup {
        split: false,
        nginx: format!(
            "location /files/ {{\nalias {here}/;\nsendfile on;\ntypes {{ text/html html; }}\n\
             gzip on;\ngzip_comp_level 5;\n}}\n"
        ),
        service: format!(
            "[[service.web.route]]\npath = \"/files\"\nstrip_prefix = \"/files\"\n\
             files = \"{here}\"\ncompress = \"gzip\"\n"
        ),
        ..Setup::of(kind)
    };
    let mut running = [Kind::Nginx, Kind::Switchback]
        .into_iter()
        .map(|kind| site.start(&setup(kind)))
        .collect::<Result<Vec<Running>>>()?;
    weigh_idle(&mut running)?;
    for (name, file, connections) in FILES.into_iter().filter(|(name, ..)| options.wants(name)) {
        let mut cpu = Series::new(name, "µs", Better::Lower);
        let mut throughput = Series::new(&format!("{name}, throughput"), "/s", Better::Higher);
        for _ in 0..options.rounds {
            for proxy in &running {
                let url = format!("http://127.0.0.1:{}/files/{file}", proxy.http);
                let of = measured(proxy, || wrk(&url, connections, options.round, false, None))?;
                cpu.add(proxy.kind, of.cpu);
                throughput.add(proxy.kind, of.throughput);
            }
        }
        report.add(cpu);
        report.add(throughput);
    }
    Ok(())
}
