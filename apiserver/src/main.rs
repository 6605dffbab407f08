use apiserver::{args::Args, run};
use apiservice::clock::Clock;
use clap::Parser;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> std::process::ExitCode {
    #[allow(clippy::disallowed_methods, reason = "the clock of the process")]
    let clock = Clock::new(jiff::Timestamp::now);
    match run::run(Args::parse(), clock).await {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("steward-apiserver: {error}");
            std::process::ExitCode::FAILURE
        }
    }
}
