//! Helm 3, which patches, and Helm 4, which applies and waits for what kstatus says.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;
use tests::lab::programs::{GoProgram, HELM_4};
use tests::served::{Said, Served, contains, run};

use crate::cluster::{data_store, edit, finalizer, get, managers, namespace, report, tenant};

/// A release of one chart, in the namespace of its name.
struct Release<'a> {
    helm: PathBuf,
    served: &'a Served,
    name: &'a str,
    chart: PathBuf,
}

impl<'a> Release<'a> {
    fn new(served: &'a Served, program: &GoProgram, name: &'a str) -> Self {
        namespace(served, name);
        let chart = served.files().join(name);
        write_chart(&chart, name);
        Self {
            helm: program.path(served.lab.directories(), program.name),
            served,
            name,
            chart,
        }
    }

    fn try_helm(&self, verb: &str, more: &[&str]) -> Said {
        let home = self.chart.join("home");
        let mut command = Command::new(&self.helm);
        command
            .args([verb, self.name, "--namespace", self.name, "--kubeconfig"])
            .arg(self.served.lab.kubeconfig())
            .args(more)
            .env("HOME", &home)
            .env_remove("XDG_CACHE_HOME")
            .env_remove("XDG_CONFIG_HOME")
            .env_remove("XDG_DATA_HOME");
        if ["install", "upgrade"].contains(&verb) {
            command.arg(&self.chart);
        }
        run(&mut command)
    }

    #[track_caller]
    fn helm(&self, verb: &str, more: &[&str]) {
        let said = self.try_helm(verb, more);
        assert_eq!(said.code, 0, "{verb} {more:?}: {}", said.text());
    }

    fn tenant(&self) -> Value {
        get(self.served, self.name, "tenant")
    }

    #[track_caller]
    fn has(&self, replicas: u32) {
        let spec = &self.tenant()["spec"];
        assert_eq!(spec["controlPlane"]["deployment"]["replicas"], replicas);
    }
}

/// It asks discovery for our kind, as charts that support more than one do.
fn write_chart(chart: &Path, name: &str) {
    std::fs::create_dir_all(chart.join("templates")).unwrap();
    let write = |file: &str, text: String| std::fs::write(chart.join(file), text).unwrap();
    write(
        "Chart.yaml",
        "apiVersion: v2\nname: tenants\nversion: 1.0.0\n".into(),
    );
    write("values.yaml", "replicas: 2\nstore: true\n".into());
    let replicas =
        tenant(name, "tenant", 2, "").replace("replicas: 2", "replicas: {{ .Values.replicas }}");
    let known = "steward.butlerlabs.dev/v1alpha1/TenantControlPlane";
    write(
        "templates/tenant.yaml",
        format!(
            "{{{{- if .Capabilities.APIVersions.Has \"{known}\" }}}}{replicas}{{{{- end }}}}\n"
        ),
    );
    write(
        "templates/datastore.yaml",
        format!(
            "{{{{- if .Values.store }}}}\n{}{{{{- end }}}}\n",
            data_store(name)
        ),
    );
}

/// R8.41.
pub fn helm_keeps_tenants(served: &Served, program: &GoProgram, name: &str) {
    let release = Release::new(served, program, name);
    let wait = ["--wait", "--timeout=30s"];
    release.helm("install", &wait);
    release.has(2);
    let first = release.tenant();
    served.kubectl(&["get", "datastore", name]);

    // What Steward's controller writes is no conflict, and is kept.
    finalizer(served, name, "tenant", true);
    report(served, (name, "tenant"), &[("Ready", "True", "Ready")], 0);
    let reported = release.tenant();
    release.helm("upgrade", &wait);
    assert_eq!(release.tenant(), reported, "nothing has changed");

    release.helm("upgrade", &["--set=replicas=3"]);
    release.has(3);
    assert_eq!(release.tenant()["status"], reported["status"]);
    // By hand, and taken back by the next upgrade that says something about it.
    edit(
        served,
        name,
        "tenant",
        r#"{"metadata":{"labels":{"by":"hand"}}}"#,
    );
    release.helm("rollback", &["1"]);
    release.has(2);
    let after = release.tenant();
    assert_eq!(after["metadata"]["labels"]["by"], "hand", "{after}");
    assert_eq!(after["metadata"]["uid"], first["metadata"]["uid"]);
    let manager = if name == "helm" {
        "helm/Update/"
    } else {
        "helm/Apply/"
    };
    assert!(
        managers(&after).iter().any(|it| it == manager),
        "{:?}",
        managers(&after)
    );

    // What left the chart is deleted.
    release.helm("upgrade", &["--set=store=false"]);
    contains(
        &served.try_kubectl(&["get", "datastore", name]).stderr,
        "(NotFound)",
    );

    // An end that the controller holds up, and one that it does not.
    let held = release.try_helm("uninstall", &["--wait", "--timeout=2s", "--keep-history"]);
    assert_ne!(held.code, 0, "{}", held.text());
    assert_ne!(
        release.tenant()["metadata"]["deletionTimestamp"],
        Value::Null
    );
    finalizer(served, name, "tenant", false);
    assert_eq!(release.tenant(), Value::Null);
    release.try_helm("uninstall", &[]);
    release.helm("install", &["--replace"]);
    release.helm("uninstall", &wait);
    assert_eq!(release.tenant(), Value::Null);
}

/// R8.41, R8.44: it waits until a generation is Ready, and for no other reason.
pub fn helm_4_waits_for_what_is_ready(served: &Served) {
    let release = Release::new(served, &HELM_4, "waits");
    release.helm("install", &[]);
    report(
        served,
        ("waits", "tenant"),
        &[("Ready", "True", "Ready")],
        0,
    );
    let late = release.try_helm("upgrade", &["--set=replicas=3", "--wait", "--timeout=3s"]);
    assert_ne!(late.code, 0, "{}", late.text());
    contains(&late.text(), "InProgress");

    let began = Instant::now();
    let shortly = Duration::from_secs(2);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(shortly);
            report(
                served,
                ("waits", "tenant"),
                &[("Ready", "True", "Ready")],
                0,
            );
        });
        release.helm("upgrade", &["--set=replicas=4", "--wait", "--timeout=30s"]);
    });
    assert!(began.elapsed() > shortly, "it waited for nothing");
    release.has(4);
    release.helm("uninstall", &["--wait", "--timeout=30s"]);
}
