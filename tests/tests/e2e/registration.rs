//! What our API server keeps in the cluster for itself (rule 24), and who may ask
//! it past kube-apiserver.

use std::path::Path;
use std::time::{Duration, Instant};

use rustls::pki_types::{CertificateDer, pem::PemObject};
use serde_json::json;
use tests::installed::{SYSTEM, decoded, object_path, tenant, tenants_path};
use tests::served::{API_SERVICE, GROUP_VERSION, eventually};

use crate::audit::{API_SERVER, CONTROLLER, Request};
use crate::etcd_setup;
use crate::life::seconds;
use crate::ready;
use crate::stage::Stage;

/// It looks every ten seconds.
const LOOKED_AT: Duration = Duration::from_secs(30);
const SERVING: &str = "steward-apiserver-serving";
/// May read metrics, and nothing else.
const SCRAPER: &str = r#"
apiVersion: v1
kind: ServiceAccount
metadata: {name: scraper, namespace: tenants}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: steward-e2e-scraper, labels: {steward.butlerlabs.dev/made-by-tests: "true"}}
rules:
- {nonResourceURLs: [/metrics], verbs: [get]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: steward-e2e-scraper, labels: {steward.butlerlabs.dev/made-by-tests: "true"}}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: steward-e2e-scraper}
subjects: [{kind: ServiceAccount, name: scraper, namespace: tenants}]
"#;

pub async fn run(stage: &Stage) {
    scraper(stage).await;
    namespace(stage).await;
    spoilt(stage).await;
    restarted(stage).await;
    renewed(stage).await;
}

/// A token that kube-apiserver has not seen before us.
/// R1.29, R2.31.
async fn scraper(stage: &Stage) {
    stage.it.apply(SCRAPER);
    let token = stage
        .it
        .kubectl(&["-n", "tenants", "create", "token", "scraper"]);
    let (address, _forward) = stage.it.way_to("steward-apiserver", 443).await;
    let server = format!("--server=https://{address}");
    let ask = |token: &str, path: &str| {
        let token = format!("--token={token}");
        let how = [
            "--insecure-skip-tls-verify",
            &server,
            &token,
            "get",
            "--raw",
            path,
        ];
        stage.it.kubectl_with(Path::new("/dev/null"), &how)
    };
    let said = ask(token.trim(), "/metrics");
    assert!(said.stdout.contains("# TYPE "), "{}", said.text());
    let said = ask(
        token.trim(),
        &format!("{GROUP_VERSION}/tenantcontrolplanes"),
    );
    assert!(
        said.code != 0 && said.stderr.contains("Forbidden"),
        "{}",
        said.text()
    );
    let said = ask("nobody", "/metrics");
    assert_ne!(said.code, 0, "{}", said.text());
    for object in [
        "clusterrolebinding/steward-e2e-scraper",
        "clusterrole/steward-e2e-scraper",
    ] {
        stage.it.kubectl(&["delete", object]);
    }
    stage
        .it
        .kubectl(&["-n", "tenants", "delete", "serviceaccount", "scraper"]);
}

/// R7.4.
async fn namespace(stage: &Stage) {
    let mut manifest = tenant("lost", 1);
    manifest["metadata"]["namespace"] = json!("nowhere");
    let path = tenants_path().replace("/tenants/", "/nowhere/");
    match stage.it.post(&path, &manifest).await {
        Err(kube::Error::Api(status)) => {
            assert_eq!(status.code, 404, "{status:?}");
            assert_eq!(status.message, "namespaces \"nowhere\" not found");
        }
        other => panic!("{other:?}"),
    }
}

/// The authority in the APIService and the certificate in the Secret are taken
/// away: both come back, and the API answers.
/// R9.16, R9.17.
async fn spoilt(stage: &Stage) {
    let api_service = format!("/apis/apiregistration.k8s.io/v1/apiservices/{API_SERVICE}");
    let secret = object_path(SYSTEM, "secrets", SERVING);
    let before = stage.it.get(&api_service).await.unwrap();
    let began = Instant::now();
    let nothing = json!({"spec": {"caBundle": null, "insecureSkipTLSVerify": true}});
    stage.it.patch(&api_service, &nothing).await.unwrap();
    stage
        .it
        .patch(&secret, &json!({"data": {"tls.crt": "YnJva2Vu"}}))
        .await
        .unwrap();
    let right = || async {
        let now = stage.it.get(&api_service).await.ok()?;
        let pair = stage.it.get(&secret).await.ok()?;
        let well = now["spec"]["caBundle"].is_string()
            && now["spec"]["insecureSkipTLSVerify"] != true
            && pair["data"]["tls.crt"] != "YnJva2Vu";
        well.then_some(())
    };
    stage
        .it
        .until(
            "registration and certificate are put right",
            LOOKED_AT,
            right,
        )
        .await;
    stage.note(
        "registration and serving certificate put right",
        seconds(began.elapsed()),
    );
    let now = stage.it.get(&api_service).await.unwrap();
    assert_eq!(now["metadata"]["uid"], before["metadata"]["uid"]);
    let list = ["get", "tcp", "-A"];
    eventually("the API answers", LOOKED_AT, || {
        stage.it.try_kubectl(&list).code == 0
    })
    .await;
}

/// Both of our programs are replaced: tenants go on, and nothing is written
/// because of it but what says who leads and where the store is.
async fn restarted(stage: &Stage) {
    let story = stage.tenant(ready::NAME, 1).await;
    let pod = stage.pods_of(ready::NAME).await.remove(0);
    let audit = stage.audit("registration::writes");
    let began = Instant::now();
    for program in ["deploy/steward-controller", "deploy/steward-apiserver"] {
        stage
            .it
            .kubectl(&["-n", SYSTEM, "rollout", "restart", program]);
    }
    for program in ["deploy/steward-controller", "deploy/steward-apiserver"] {
        stage
            .it
            .kubectl(&["-n", SYSTEM, "rollout", "status", program, "--timeout=90s"]);
    }
    // The new leader has looked at everything.
    tokio::time::sleep(Duration::from_secs(10)).await;
    story.stayed_ready(began);
    let now = stage.pods_of(ready::NAME).await.remove(0);
    assert_eq!(now["metadata"]["uid"], pod["metadata"]["uid"]);
    assert_eq!(
        now["status"]["containerStatuses"],
        pod["status"]["containerStatuses"]
    );
    let count = audit.map(|audit| few(&audit.since(&[CONTROLLER, API_SERVER])));
    let count = count.map_or("their writes are not counted".into(), |count| {
        format!("{count} writes, of the Lease and the store's floor")
    });
    stage.note("both programs restarted", count);
}

/// How many writes there are, none but of who leads and where the store is.
fn few(requests: &[Request]) -> usize {
    let writes: Vec<_> = requests.iter().filter(|it| it.writes()).collect();
    let own = |it: &Request| {
        it.object_ref
            .as_ref()
            .is_some_and(|it| it.resource == "leases" || it.name == "steward-apiserver-store")
    };
    let lines: Vec<_> = writes
        .iter()
        .filter(|it| !own(it))
        .map(|it| it.line())
        .collect();
    assert!(
        lines.is_empty(),
        "written because of a restart:\n{}",
        lines.join("\n")
    );
    writes.len()
}

/// The CronJob of the chart's etcd: certificates that are not due stay; one for other
/// names is signed by the same authority, and etcd serves it without being restarted.
async fn renewed(stage: &Stage) {
    // The kubelet looks at mounted Secrets once a minute and a half at most.
    const MOUNTED: Duration = Duration::from_secs(150);
    let server = object_path(SYSTEM, "secrets", "steward-etcd-server");
    let before = stage.it.get(&server).await.unwrap();
    let etcd = stage.etcd_pod().await.unwrap();
    let story = stage.tenant(ready::NAME, 1).await;

    etcd_setup::run(stage, "renewal-of-nothing", |_| {}).await;
    let now = stage.it.get(&server).await.unwrap();
    assert_eq!(now["data"], before["data"], "nothing was due");

    let began = Instant::now();
    let other = |arguments: &mut Vec<String>| {
        arguments.push("--endpoints=etcd.other.test:2379".to_owned());
    };
    etcd_setup::run(stage, "renewal-of-names", other).await;
    let after = stage.it.get(&server).await.unwrap();
    assert_eq!(after["data"]["ca.crt"], before["data"]["ca.crt"]);
    assert_ne!(after["data"]["tls.crt"], before["data"]["tls.crt"]);
    let wanted = decoded(&after["data"]["tls.crt"]);
    let wanted = CertificateDer::from_pem_slice(&wanted).unwrap();
    let served = || async { (stage.it.served_by_etcd().await? == wanted).then_some(()) };
    stage
        .it
        .until("etcd serves the new certificate", MOUNTED, served)
        .await;
    let took = seconds(began.elapsed());
    stage.note("etcd serves a renewed certificate", took);
    let now = stage.etcd_pod().await.unwrap();
    assert_eq!(now["metadata"]["uid"], etcd["metadata"]["uid"]);
    assert_eq!(
        now["status"]["containerStatuses"], etcd["status"]["containerStatuses"],
        "etcd was restarted"
    );
    // Long enough for a probe of everything.
    tokio::time::sleep(Duration::from_secs(10)).await;
    story.stayed_ready(began);
}
