//! Tools that people run against an API such as ours, by the libraries that they are made of:
//! Flux, Argo CD, Helm 3 and 4, controller-runtime, Python. One cluster for all, whose
//! kube-apiserver serves our API from a process of its own.
#![allow(clippy::disallowed_methods, reason = "tests")]

mod argocd;
mod cluster;
mod controller_runtime;
mod flux;
mod helm;
mod python;
mod tool;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use tests::lab::directories::Directories;
use tests::lab::programs::{ARGO_CD, CONTROLLER_RUNTIME, FLUX, HELM, HELM_4};
use tests::served::Served;

/// One that fails does not hide the others.
#[tokio::test(flavor = "multi_thread")]
async fn tools_work_with_our_kinds() {
    let directories = Directories::from_environment().unwrap();
    let interpreter = build(&directories);
    let mut served = Served::process().await;
    let parts: [(&str, &dyn Fn()); 6] = [
        ("Flux", &|| flux::flux_keeps_tenants(&served)),
        ("Argo CD", &|| argocd::argo_cd_keeps_tenants(&served)),
        ("Helm 3", &|| {
            helm::helm_keeps_tenants(&served, &HELM, "helm")
        }),
        ("Helm 4", &|| {
            helm::helm_keeps_tenants(&served, &HELM_4, "helm4");
            helm::helm_4_waits_for_what_is_ready(&served);
        }),
        ("controller-runtime", &|| {
            controller_runtime::a_controller_works_on_our_kind(&served);
        }),
        ("Python", &|| {
            python::python_reads_and_writes(&served, &interpreter);
        }),
    ];
    let mut failed = Vec::new();
    for (name, part) in parts {
        let began = Instant::now();
        if catch_unwind(AssertUnwindSafe(part)).is_err() {
            failed.push(name);
        }
        println!("{name}: {:?}", began.elapsed());
    }
    python::python_goes_on_watching(&mut served, &interpreter).await;
    assert!(failed.is_empty(), "failed: {failed:?}");
}

/// Everything that the cache does not hold; Python's interpreter.
fn build(directories: &Directories) -> std::path::PathBuf {
    let _lock = directories.lock_cache(&mut |_| {}).unwrap();
    for program in [&HELM, &CONTROLLER_RUNTIME, &FLUX, &HELM_4, &ARGO_CD] {
        let built = program.build(directories, &mut |line| println!("{line}"));
        built.unwrap();
    }
    tests::lab::python::interpreter(directories).unwrap()
}
