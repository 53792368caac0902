//! The binary: exit codes, and what a process can have only one of.

use std::process::ExitCode;

/// A proxy allocates per request and frees on other threads; mimalloc is made for that.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // It fails only when a provider is installed already, which is as good.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    switchback::cli::main()
}
