//! `make bench`: how long a tenant takes to start, and what our API server
//! does in a second, each beside kube-apiserver in the same run.
//!
//! # Guarantees
//! * Ours and the peer take turns, so that both meet the same machine.
//! * Nothing is left on the machine, however the run ends: each part has a
//!   cluster of its own, which goes with this process.
//! * stdout is the table, stderr the progress; `bench/results.json` in the
//!   target directory holds the same figures.
//!
//! # Flow
//! [`tenant_start`] on an installation by helm ([`installation`]) against
//! [`bare`]; [`create`], [`list`] and [`watch`] on two servers
//! [`side_by_side`]; [`report`].
#![allow(
    clippy::disallowed_methods,
    reason = "a program of its own: it owns its tasks, its clock and its settings"
)]

mod bare;
mod create;
mod failure;
mod installation;
mod list;
mod machine;
mod observer;
mod phases;
mod report;
mod requests;
mod side_by_side;
mod tenant_start;
mod watch;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;

use failure::{Doing, Failure, Result};
use report::Report;
use tests::chart;

/// Measures Steward beside kube-apiserver.
#[derive(Debug, Parser)]
#[command(name = "steward-bench")]
pub struct Settings {
    /// Parts to run, by a piece of their names: tenant-start, create,
    /// list-memory, watch. Without any: all.
    parts: Vec<String>,
    /// Starts of each kind.
    #[arg(long, default_value_t = 20)]
    pairs: usize,
    /// Few and small, to see that it works; its figures mean nothing.
    #[arg(long)]
    quick: bool,
    /// How tenants are reached: LoadBalancer, NodePort or ClusterIP.
    #[arg(long, default_value = "LoadBalancer")]
    service_type: String,
    /// A target directory whose release programs and images are used as they
    /// are, instead of building them.
    #[arg(long)]
    prebuilt: Option<PathBuf>,
    /// cargo gives it to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

impl Settings {
    /// `full`, or `quick` where that was asked for.
    fn count(&self, full: usize, quick: usize) -> usize {
        if self.quick { quick } else { full }
    }

    fn wants(&self, part: &str) -> bool {
        self.parts.is_empty() || self.parts.iter().any(|piece| part.contains(piece.as_str()))
    }
}

/// What is measured.
pub struct Built {
    /// `steward-apiserver`, as in the image.
    pub api_server: PathBuf,
    /// Archives `steward-apiserver.tar` and `steward-controller.tar` with tag `dev`.
    pub images: PathBuf,
}

const PARTS: [&str; 4] = ["tenant-start", "create", "list-memory", "watch"];

#[tokio::main]
async fn main() -> ExitCode {
    let settings = Settings::parse();
    // Memory is compared, too.
    tests::lab::go::by_default();
    let end = tokio::select! {
        end = run(&settings) => end,
        _ = tokio::signal::ctrl_c() => Err(Failure::Said("interrupted; nothing is left".into())),
    };
    match end {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("bench: {failure}");
            ExitCode::FAILURE
        }
    }
}

async fn run(settings: &Settings) -> Result<()> {
    let parts: Vec<_> = PARTS
        .into_iter()
        .filter(|part| settings.wants(part))
        .collect();
    if parts.is_empty() {
        let known = PARTS.join(", ");
        return Err(Failure::Said(format!("no such part; there are: {known}")));
    }
    let target = target_directory()?;
    let output = target.join("bench");
    std::fs::create_dir_all(&output).doing(|| format!("create {}", output.display()))?;
    let built = build(settings, &target)?;
    let mut report = Report::default();
    for part in parts {
        eprintln!("== {part}");
        match part {
            "tenant-start" => tenant_start::run(settings, &built, &output, &mut report).await?,
            "create" => create::run(settings, &built, &mut report).await?,
            "list-memory" => list::run(settings, &built, &mut report).await?,
            _ => watch::run(settings, &built, &mut report).await?,
        }
        // After each part: what was measured outlives a failure of the next.
        report.write(&output.join("results.json"))?;
    }
    println!("{}", machine::describe());
    if settings.quick {
        println!("--quick: these figures mean nothing.");
    }
    print!("{}", report.tables());
    eprintln!("also in {}", output.join("results.json").display());
    Ok(())
}

/// This program is `TARGET/PROFILE/deps/NAME`.
fn target_directory() -> Result<PathBuf> {
    let me = std::env::current_exe().doing(|| "find this program".into())?;
    let target = me.ancestors().nth(3).map(Path::to_owned);
    target.ok_or_else(|| Failure::Said(format!("{} is in no target directory", me.display())))
}

fn build(settings: &Settings, target: &Path) -> Result<Built> {
    let images = match &settings.prebuilt {
        Some(given) => given.join("images"),
        None => {
            eprintln!("== images (up to 10 min when nothing is built yet)");
            chart::build_images(target, Path::new(env!("CARGO_BIN_EXE_lab")), "release")?
        }
    };
    let target = settings.prebuilt.as_deref().unwrap_or(target);
    Ok(Built {
        api_server: target.join("release/steward-apiserver"),
        images,
    })
}
