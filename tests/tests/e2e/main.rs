//! Steward as a whole, installed by helm on a cluster that runs pods: the life
//! of a tenant, what may happen to it, and what must not.
//!
//! One cluster serves all parts, one after the other: each would cost half a
//! minute to start. So the parts are run by this program's own main, which
//! speaks as cargo's test programs do; `cargo test --test e2e ready` runs one
//! part (and `rights` judges whatever was run before it).
//!
//! Settings (environment), beside those of [`tests::installed`]:
//! * `STEWARD_QUIET_SECONDS`: how long nothing is done while writes are counted (60).
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test program: what fails ends the part, with its text"
)]

mod audit;
mod autoscaler;
mod cases;
mod conformance;
mod database;
mod deletion;
mod drift;
mod dump;
mod etcd_setup;
mod exposure;
mod fight;
mod import;
mod isolation;
mod life;
mod listed;
mod migration;
mod overrides;
mod ready;
mod registration;
mod rights;
mod rollout;
mod serving;
mod sql;
mod stage;
mod story;
mod trouble;
mod tunnel;
mod workers;
mod write_limits;

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::process::ExitCode;
use std::time::Instant;

use futures::FutureExt;

use stage::{AUDIT_LOG, Stage};

type Part = for<'a> fn(&'a Stage) -> Pin<Box<dyn Future<Output = ()> + 'a>>;

/// In this order: the first compares the machine with what it was before any
/// tenant, `rights` judges all that was done, the last takes rights away.
const PARTS: [(&str, Part); 20] = [
    ("life", |stage| Box::pin(life::run(stage))),
    ("ready", |stage| Box::pin(ready::run(stage))),
    ("isolation", |stage| Box::pin(isolation::run(stage))),
    ("rollout", |stage| Box::pin(rollout::run(stage))),
    ("trouble_fight_bindings", |stage| {
        Box::pin(side_by_side(stage))
    }),
    ("cases", |stage| Box::pin(cases::run(stage))),
    ("workers", |stage| Box::pin(workers::run(stage))),
    ("tunnel", |stage| Box::pin(tunnel::run(stage))),
    ("exposure", |stage| Box::pin(exposure::run(stage))),
    ("sql", |stage| Box::pin(sql::run(stage))),
    ("nats", |stage| Box::pin(sql::nats(stage))),
    ("overrides", |stage| Box::pin(overrides::run(stage))),
    ("migration", |stage| Box::pin(migration::run(stage))),
    ("import", |stage| Box::pin(import::run(stage))),
    ("conformance", |stage| Box::pin(conformance::run(stage))),
    ("drift", |stage| Box::pin(drift::run(stage))),
    ("deletion", |stage| Box::pin(deletion::run(stage))),
    ("registration", |stage| Box::pin(registration::run(stage))),
    ("rights", |stage| Box::pin(rights::run(stage))),
    ("listed", |stage| Box::pin(listed::run(stage))),
];

/// Parts of which nothing is left in somebody's cluster, and what they need of ours.
const ONLY_IN_LAB: [(&str, &str); 10] = [
    ("rights", AUDIT_LOG),
    ("cases", cases::ADDRESSES),
    ("workers", workers::HOSTS),
    ("tunnel", workers::HOSTS),
    ("exposure", exposure::EDGE),
    ("sql", database::DATABASES),
    ("nats", database::DATABASES),
    ("overrides", database::DATABASES),
    ("migration", database::DATABASES),
    ("conformance", conformance::TESTS),
];

/// Run by `make test-long` and `make conformance`.
const IF_NAMED: [&str; 2] = ["migration", "conformance"];

/// All of them wait most of the time, and none touches another's tenants.
async fn side_by_side(stage: &Stage) {
    // Ten control planes that begin within a second take two cores for so long that the
    // controller, which is compiled for tests without optimisation, comes too late.
    trouble::run(stage).await;
    futures::join!(
        fight::run(stage),
        drift::inside(stage),
        autoscaler::run(stage)
    );
    futures::join!(trouble::split(stage), write_limits::run(stage));
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let list = arguments.iter().any(|it| it == "--list");
    let filters: Vec<&String> = arguments.iter().filter(|it| !it.starts_with('-')).collect();
    let wanted: Vec<_> = PARTS
        .into_iter()
        .filter(|(name, _)| match filters.is_empty() {
            true => !IF_NAMED.contains(name),
            false => filters.iter().any(|it| name.contains(&**it)),
        })
        .collect();
    if list {
        for (name, _) in &wanted {
            println!("{name}: test");
        }
        return ExitCode::SUCCESS;
    }
    println!("\nrunning {} tests", wanted.len());
    let started = Instant::now();
    let mut end = End::default();
    if !wanted.is_empty() {
        tokio::select! {
            all = run(&wanted) => end = all,
            () = interrupted() => {
                println!("interrupted");
                return ExitCode::FAILURE;
            }
        }
    }
    let word = if end.failed == 0 { "ok" } else { "FAILED" };
    println!(
        "\ntest result: {word}. {} passed; {} failed; {} ignored; 0 measured; {} filtered out; finished in {:.2}s\n",
        end.passed,
        end.failed,
        end.ignored,
        PARTS.len() - wanted.len(),
        started.elapsed().as_secs_f64(),
    );
    if end.failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// How many parts ended how; also steps are ignored.
#[derive(Default)]
struct End {
    passed: usize,
    failed: usize,
    ignored: usize,
}

async fn run(wanted: &[(&str, Part)]) -> End {
    let mut end = End::default();
    let started = Instant::now();
    let mut stage = Stage::set().await;
    println!(
        "Steward is installed after {:.0} s",
        started.elapsed().as_secs_f64()
    );
    for (name, part) in wanted {
        let needs = ONLY_IN_LAB.iter().find(|(part, _)| part == name);
        if needs.is_some_and(|(_, needs)| stage.lab(name, needs).is_none()) {
            continue;
        }
        let began = Instant::now();
        let went = AssertUnwindSafe(part(&stage)).catch_unwind().await;
        let took = began.elapsed().as_secs_f64();
        let word = if went.is_ok() { "ok" } else { "FAILED" };
        println!("test {name} ... {word} <{took:.1}s>");
        if went.is_ok() {
            end.passed += 1;
        } else {
            end.failed += 1;
            stage.explain(name);
            stage.calm().await;
        }
    }
    stage.measured();
    if end.failed > 0 {
        stage.keep_logs();
    }
    end.ignored = stage.ignored();
    if let Err(error) = stage.it.remove() {
        println!("Steward is not removed: {error}");
        end.failed += 1;
    }
    end
}

/// Ctrl-C, where more must be done than to end: the lab goes by itself.
async fn interrupted() {
    if std::env::var_os("TEST_KUBECONFIG").is_none() {
        return std::future::pending().await;
    }
    // No handler: Ctrl-C ends the process, and the next run removes what is left.
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending().await
    }
}
