//! The binary.

use std::path::Path;
use std::process::ExitCode;

use switchback::demo::{self, DemoRuntime, Options, Show};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["instance-shim", "--dir", dir] => switchback::runtime::shim::main(Path::new(dir)),
        ["sample-app", "--port", port] => demo::sample::main(port.parse().unwrap_or(3000)),
        ["demo", rest @ ..] => {
            let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
                .unwrap();
            let docker = rest.contains(&"docker");
            let mut show = Show::new(rest.contains(&"--json"));
            let options = Options {
                runtime: if docker { DemoRuntime::Docker } else { DemoRuntime::Process },
                rate: 1000,
            };
            match runtime.block_on(demo::run(options, &mut show)) {
                Ok(_) => ExitCode::SUCCESS,
                Err(e) => {
                    eprintln!("{e}");
                    ExitCode::FAILURE
                }
            }
        }
        _ => {
            eprintln!("usage: switchback instance-shim --dir DIR");
            ExitCode::from(2)
        }
    }
}
