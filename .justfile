# just --justfile .justfile RECIPE

# What must hold before a change goes in.
check:
    cargo fmt --all --check
    cargo clippy --locked --all-targets -- -D warnings
    cargo clippy --locked --all-targets --features http3 -- -D warnings
    RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --quiet
    cargo deny --config .deny.toml check

# All tests, or those whose name contains WHICH.
test WHICH="":
    cargo test --locked {{WHICH}}

# What is built in only when asked for.
test-http3:
    cargo test --locked --features http3 http3

# The rollout machine in a hostile world, one seed of it.
seed SEED:
    SWITCHBACK_SEED={{SEED}} cargo test --locked --lib simulation -- --nocapture

# All benchmarks, or one.
bench WHICH="":
    cargo bench --locked {{ if WHICH == "" { "" } else { "--bench " + WHICH } }}

# Four rollouts on this machine; more arguments go to the demo.
demo *ARGS:
    cargo run --release --locked -- demo {{ARGS}}
