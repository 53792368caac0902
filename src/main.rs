//! The binary.

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let words: Vec<_> = std::env::args_os().skip(1).collect();
    match words.as_slice() {
        [verb, flag, dir] if verb == "instance-shim" && flag == "--dir" => {
            switchback::runtime::shim::main(Path::new(dir))
        }
        _ => {
            eprintln!("usage: switchback instance-shim --dir DIR");
            ExitCode::from(2)
        }
    }
}
