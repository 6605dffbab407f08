use apiserver::{args::Args, run};
use apiservice::clock::Clock;
use clap::Parser;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    #[allow(clippy::disallowed_methods, reason = "the clock of the process")]
    let clock = Clock::new(jiff::Timestamp::now);
    let ended = run::runtime().map_err(run::Error::Runtime);
    match ended.and_then(|runtime| runtime.block_on(run::run(Args::parse(), clock))) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("steward-apiserver: {error}");
            std::process::ExitCode::FAILURE
        }
    }
}
