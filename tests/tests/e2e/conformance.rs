//! Kubernetes' own tests of conformance, against a tenant with two worker hosts. Run if it
//! is named: it takes long.
//!
//! Settings (environment):
//! * `FOCUS`: a regular expression; only tests whose whole names it fits are run.
//! * `PROCS`: how many run side by side (6).

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::json;
use tests::installed::tenant as manifest;
use tests::lab::images;
use tests::lab::programs::conformance::{E2E, GINKGO};

use crate::life::seconds;
use crate::stage::Stage;
use crate::tunnel;
use crate::workers::{CONFIGURED, Tenant, traces};

mod ginkgo;
mod left_out;
mod report;

use ginkgo::Ginkgo;
use left_out::LeftOut;
use report::Report;

/// What the part needs of ours.
pub const TESTS: &str = "worker hosts, and Kubernetes' tests";

const NAME: &str = "conformance";
const BESIDE: &str = "6";

pub async fn run(stage: &Stage) {
    let lab = stage.it.lab().unwrap();
    let directories = lab.directories();
    let archive = images::conformance::archive(directories);
    let built = E2E.is_built(directories) && GINKGO.is_built(directories) && archive.is_file();
    assert!(
        built,
        "Kubernetes' tests are not built; run: lab build --conformance"
    );
    let left_out = LeftOut::read();
    let machine_before = traces(lab);

    let mut manifest = manifest(NAME, 1);
    manifest["spec"]["addons"] = json!({"coreDNS": {}, "kubeProxy": {}, "konnectivity": {}});
    let began = Instant::now();
    stage.create(&manifest).await;
    let story = stage.tenant(NAME, 1).await;
    story
        .says(began, CONFIGURED, "ClusterConfigured", "True", "AsExpected")
        .await;
    let tenant = Tenant {
        stage,
        name: NAME,
        kubeconfig: stage.it.kubeconfig(NAME),
    };
    let hosts = [lab.worker(1).await.unwrap(), lab.worker(2).await.unwrap()];
    // What the API server asks of nodes, pods and Services goes through the tunnel.
    tunnel::cut(lab);
    for host in &hosts {
        tenant.joins(host).await;
        host.load_image(&archive).unwrap();
    }
    tunnel::connected(&tenant, "daemonset");
    tenant.available("kube-system", "coredns").await;
    stage.note("a tenant with two workers", seconds(began.elapsed()));

    let ginkgo = Ginkgo {
        program: GINKGO.path(directories, "ginkgo"),
        tests: E2E.path(directories, "e2e.test"),
        kubectl: lab.program("kubectl"),
        kubeconfig: tenant.kubeconfig.clone(),
        focus: setting("FOCUS"),
        skip: left_out.patterns(),
        output: output(),
    };
    let beside = setting("PROCS").unwrap_or_else(|| BESIDE.to_owned());
    let began = Instant::now();
    let mut report = Report::default();
    let mut ended_well = true;
    for (name, filter, beside) in [
        ("parallel", "Conformance && !Serial", &*beside),
        ("serial", "Conformance && Serial", "1"),
    ] {
        let (file, well) = ginkgo.run(name, filter, beside);
        report.add(&file);
        ended_well &= well;
    }
    let took = began.elapsed();

    tunnel::mend(lab);
    for host in hosts {
        host.remove().unwrap();
    }
    stage.remove(NAME).await;

    let all = ginkgo.focus.is_none();
    report.print(&left_out, took);
    println!("what was said: {}", ginkgo.output.display());
    stage.note("conformance tests passed", report.passed.len().to_string());
    stage.note("conformance tests took", minutes(took));
    assert!(!report.passed.is_empty(), "no test passed");
    assert!(
        report.failed.is_empty(),
        "{} tests failed",
        report.failed.len()
    );
    assert!(ended_well, "no test failed, but ginkgo did");
    if all {
        assert_eq!(report.outside(&left_out), 0, "tests were not run");
        left_out.judge(report.names());
    }
    assert_eq!(traces(lab), machine_before);
}

fn setting(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Where logs and reports stay for whoever reads them.
fn output() -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(NAME);
    let _ = std::fs::remove_dir_all(&path);
    std::fs::create_dir_all(&path).unwrap();
    path
}

fn minutes(took: Duration) -> String {
    format!("{:.0} min", took.as_secs_f64() / 60.0)
}
