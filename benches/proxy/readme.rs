//! The README's section about cost, written anew from a run: `--write`.

use std::path::Path;

use crate::Result;

/// Between these lines of the README stands what a run has measured.
const BEGIN: &str = "<!-- measured by `cargo bench --bench proxy -- --write` -->";
const END: &str = "<!-- end of what was measured -->";
/// Where the picture is, from the README.
const PICTURE: &str = "benches/proxy.svg";

/// Writes a table into the README, and the picture beside this program.
pub fn write(title: &str, table: &str, picture: &str) -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let file = root.join("README.md");
    let fail = |error: std::io::Error| format!("{}: {error}", file.display());
    let text = std::fs::read_to_string(&file).map_err(fail)?;
    let text = replaced(&text, title, table).ok_or_else(|| {
        format!("{} has no lines {BEGIN:?} and {END:?} to write between", file.display())
    })?;
    std::fs::write(root.join(PICTURE), picture).map_err(|error| format!("{PICTURE}: {error}"))?;
    std::fs::write(&file, text).map_err(fail)?;
    println!("README.md and {PICTURE} are written");
    Ok(())
}

/// The README with this between its two lines.
fn replaced(text: &str, title: &str, table: &str) -> Option<String> {
    let (before, rest) = text.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    let table = table.trim_end();
    let picture = format!("![CPU per request, as a multiple of nginx's]({PICTURE})");
    Some(format!("{before}{BEGIN}\n\n{picture}\n\n{title}.\n\n{table}\n\n{END}{after}"))
}
