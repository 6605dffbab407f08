//! steward-apiserver as a process that tests can kill: cargo builds it beside
//! every test of this crate, which it does not do for programs of others.

use apiserver::{args::Args, run};
use apiservice::clock::Clock;
use clap::Parser;

#[tokio::main]
async fn main() -> std::process::ExitCode {
    #[allow(clippy::disallowed_methods, reason = "the clock of the process")]
    let clock = Clock::new(jiff::Timestamp::now);
    match run::run(Args::parse(), clock).await {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("served: {error}");
            std::process::ExitCode::FAILURE
        }
    }
}
