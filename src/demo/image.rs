//! The demo's container image, made without a registry: our program and the shared libraries it runs
//! on, as a tar for the engine to import.
//!
//! The libraries are those that the kernel has mapped for this process, so that nothing has to be
//! parsed or guessed; a static build has none. A test is another program, on the same libraries.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

/// Where the program lies in the image.
pub const PROGRAM: &str = "/switchback";

/// A tar of the root file system of an image that holds `program`.
///
/// # Errors
/// When the program, the libraries or `/proc` cannot be read.
pub fn root_file_system(program: &Path) -> io::Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    archive.follow_symlinks(true);
    // Engines do not read the format for files with holes.
    archive.sparse(false);
    archive.append_path_with_name(program, PROGRAM.trim_start_matches('/'))?;
    for library in mapped_libraries(&std::fs::read_to_string("/proc/self/maps")?) {
        let name = library.strip_prefix("/").unwrap_or(&library).to_owned();
        archive.append_path_with_name(&library, name)?;
    }
    // The loader is asked for by the name in the program's header, which may be a link to what is
    // mapped.
    for loader in ["/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1"] {
        if Path::new(loader).exists() {
            archive.append_path_with_name(loader, loader.trim_start_matches('/'))?;
        }
    }
    archive.into_inner()
}

/// The shared libraries in a `/proc/PID/maps`.
fn mapped_libraries(maps: &str) -> BTreeSet<PathBuf> {
    maps.lines()
        .filter_map(|line| line.split_once('/').map(|(_, path)| format!("/{path}")))
        .filter(|path| path.contains(".so"))
        .map(PathBuf::from)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_read_from_the_maps() {
        let maps = "7f00-7f01 r-xp 0 08:01 1 /lib/x86_64-linux-gnu/libc.so.6\n\
                    7f02-7f03 r--p 0 08:01 1 /lib/x86_64-linux-gnu/libc.so.6\n\
                    5500-5501 r-xp 0 08:01 2 /usr/bin/switchback\n7ffe-7fff rw-p 0 0 0 [stack]\n";
        let libraries: Vec<_> = mapped_libraries(maps).into_iter().collect();
        assert_eq!(libraries, [PathBuf::from("/lib/x86_64-linux-gnu/libc.so.6")]);
    }
}
