//! Starts the controller or one of its subcommands.

use controller::args::{Args, Command};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    let args = Args::from_command_line();
    match controller::run::main(args.command.unwrap_or(Command::Run(Box::new(args.run)))) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            eprintln!("steward-controller: {error}");
            std::process::ExitCode::FAILURE
        }
    }
}
