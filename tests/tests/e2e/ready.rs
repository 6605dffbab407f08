//! Rule 15: Ready is lost within 15 seconds of whatever makes a tenant useless,
//! each with its own reason, and comes back.

use std::future::Future;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use apiservice::pki::{self, Entropy, Leaf, Subject, Usage, Validity};
use etcd_client::{AlarmAction, AlarmOptions, AlarmType, Client};
use serde_json::{Value, json};
use tests::installed::{SYSTEM, TENANTS, condition, object_path, tenant_path};
use tests::lab::process::ProcessId;
use tests::lab::{Lab, network};

use crate::life::seconds;
use crate::stage::{BACK, COMING, LOST, Stage};
use crate::story::{Story, is};

/// The tenant of this part; others use it as well.
pub const NAME: &str = "a";
/// The table with which routes are cut.
pub const CUT: &str = "e2e_cut";

/// What some steps need.
const PROCESSES: &str = "the node's processes";

/// How long something that must not happen is waited for.
const CALM: Duration = Duration::from_secs(15);

pub async fn run(stage: &Stage) {
    let story = stage.tenant(NAME, 1).await;
    rights(stage, &story).await;
    selector(stage, &story).await;
    certificate(stage, &story).await;
    writes(stage, &story).await;
    replica(stage, &story).await;
    route(stage, &story).await;
    space(stage, &story).await;
    database(stage, &story).await;
    one_of_two(stage, &story).await;
}

/// Breaks something, waits for Ready to go for `reason`, mends it (unless it
/// mends itself), and waits for Ready to come back.
async fn lost(
    stage: &Stage,
    story: &Story,
    what: &str,
    reason: &str,
    fault: impl Future<Output = ()>,
    mend: Option<impl Future<Output = ()>>,
) {
    let began = Instant::now();
    fault.await;
    let gone = story.says(began, LOST, "Ready", "False", reason).await;
    let others = reasons(story, began, reason);
    let from = match mend {
        None => began + gone,
        Some(mend) => {
            let mended = Instant::now();
            mend.await;
            mended
        }
    };
    let back = story.ready(from, BACK).await;
    stage.note(
        format!("Ready lost: {what}"),
        format!(
            "{} ({reason}{others}), back after {}",
            seconds(gone),
            seconds(back)
        ),
    );
}

/// What Ready gave as reasons on the way to the right one.
fn reasons(story: &Story, began: Instant, last: &str) -> String {
    let mut found = Vec::new();
    for moment in story.since(began) {
        if let Some([status, reason, _]) = condition(&moment.object, "Ready")
            && status != "True"
            && reason != last
            && !found.contains(&reason)
        {
            found.push(reason);
        }
    }
    if found.is_empty() {
        String::new()
    } else {
        format!("; before it {}", found.join(", "))
    }
}

/// The rights in etcd are taken away; Steward gives them back.
async fn rights(stage: &Stage, story: &Story) {
    let user = user(stage).await;
    let mut etcd = stage.it.etcd().await;
    let fault = async {
        let found = etcd.user_get(user.as_str()).await.unwrap();
        for role in found.roles() {
            etcd.user_revoke_role(user.as_str(), role.as_str())
                .await
                .unwrap();
        }
    };
    lost(
        stage,
        story,
        "the etcd role revoked",
        "DataStoreAccessRevoked",
        fault,
        None::<std::future::Ready<()>>,
    )
    .await;
}

/// The tenant's user in etcd.
async fn user(stage: &Stage) -> String {
    let tenant = stage.it.get(&tenant_path(NAME)).await.unwrap();
    let setup = &tenant["status"]["storage"]["setup"];
    setup["user"].as_str().unwrap().to_owned()
}

/// Somebody insists on another selector: what is repaired is broken again at
/// once. In the end the person gives in.
async fn selector(stage: &Stage, story: &Story) {
    let path = object_path(TENANTS, "services", NAME);
    let service = stage.it.get(&path).await.unwrap();
    let right = &service["spec"]["selector"];
    let wrong = json!({"spec": {"selector": {"steward.butlerlabs.dev/name": "nobody"}}});
    let fault = async {
        // Five times, faster than anybody: three repairs are made at once.
        for _ in 0..10 {
            stage.it.patch(&path, &wrong).await.unwrap();
            tokio::time::sleep(Duration::from_millis(400)).await;
        }
    };
    let mend = async {
        assert!(
            is(&story.last().unwrap(), "ObjectsOwned", "False", "Contested"),
            "after ten edits the Service is not Contested:\n{}",
            story.told(Instant::now())
        );
        drop(
            stage
                .it
                .patch(&path, &json!({"spec": {"selector": right}}))
                .await
                .unwrap(),
        );
    };
    lost(
        stage,
        story,
        "the Service's selector fought over",
        "ServiceSelectorChanged",
        fault,
        Some(mend),
    )
    .await;
    let service = stage.it.get(&path).await.unwrap();
    assert_eq!(&service["spec"]["selector"], right);
}

/// The pod is given a certificate of another authority for the same names.
async fn certificate(stage: &Stage, story: &Story) {
    let Some(lab) = stage.lab("ready::certificate", "the kubelet's files") else {
        return;
    };
    let tenant = stage.it.get(&tenant_path(NAME)).await.unwrap();
    let endpoint = tenant["status"]["controlPlaneEndpoint"].as_str().unwrap();
    let address = endpoint.rsplit_once(':').unwrap().0.parse().unwrap();
    let now = jiff::Timestamp::now();
    let validity = Validity {
        not_before: now - Duration::from_secs(60),
        not_after: now + Duration::from_secs(3600),
    };
    let authority = pki::authority("kubernetes", validity, &Entropy).unwrap();
    let leaf = Leaf {
        subject: Subject {
            common_name: "kube-apiserver".into(),
            organizations: vec![],
        },
        validity,
        usage: Usage::Server,
        dns_names: vec!["kubernetes".into()],
        ip_addresses: vec![address],
    };
    let foreign = pki::sign(&authority, &leaf, &Entropy).unwrap();
    let volume = pki_of(stage, lab).await;
    let files = ["apiserver.crt", "apiserver.key"].map(|name| volume.join(name));
    let own = files.clone().map(|file| std::fs::read(file).unwrap());
    let put = move |content: [&[u8]; 2]| {
        for (file, content) in files.iter().zip(content) {
            // The kubelet swaps the directory below the path; the next turn finds it.
            drop(std::fs::write(file, content));
        }
    };
    // The kubelet puts its own files back whenever it looks at the pod, so they are
    // swapped again until the fault has been seen.
    let again = {
        let put = put.clone();
        let content = [foreign.cert.clone(), foreign.key.clone()];
        tokio::spawn(async move {
            loop {
                put([content[0].as_bytes(), content[1].as_bytes()]);
                tokio::time::sleep(Duration::from_millis(250)).await;
            }
        })
    };
    let fault = std::future::ready(());
    let mend = async {
        again.abort();
        drop(again.await);
        put([&own[0], &own[1]]);
    };
    lost(
        stage,
        story,
        "the serving certificate swapped",
        "ServingCertificateMismatch",
        fault,
        Some(mend),
    )
    .await;
}

/// Where the only pod has its certificates, as the node sees it.
async fn pki_of(stage: &Stage, lab: &Lab) -> PathBuf {
    let pod = stage.pods_of(NAME).await.remove(0);
    let uid = pod["metadata"]["uid"].as_str().unwrap();
    let holder = lab.process("mounts").unwrap().id.pid;
    format!("/proc/{holder}/root/var/lib/kubelet/pods/{uid}/volumes/kubernetes.io~projected/etc-kubernetes-pki").into()
}

/// A broken webhook of the tenant's own refuses what the probe writes: told of, and
/// not the end of Ready, for somebody has to mend it.
async fn writes(stage: &Stage, story: &Story) {
    let kubeconfig = stage.it.kubeconfig(NAME);
    let user = |arguments: &[&str]| {
        let said = stage.it.kubectl_with(&kubeconfig, arguments);
        assert_eq!(said.code, 0, "{}", said.text());
    };
    let refuse = json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": "nobody"},
        "webhooks": [{
            "name": "nobody.example.com",
            "clientConfig": {"url": "https://127.0.0.1:1"},
            "rules": [{
                "apiGroups": ["*"],
                "apiVersions": ["*"],
                "resources": ["*"],
                "operations": ["CREATE", "UPDATE"],
            }],
            // Without its Leases the tenant's controller manager would end.
            "namespaceSelector": {"matchExpressions": [{
                "key": "kubernetes.io/metadata.name",
                "operator": "NotIn",
                "values": ["kube-system"],
            }]},
            "sideEffects": "None",
            "admissionReviewVersions": ["v1"],
        }],
    });
    let file = stage.it.files().join("refuse.json");
    std::fs::write(&file, refuse.to_string()).unwrap();
    let file = file.to_str().unwrap();
    let began = Instant::now();
    user(&["create", "-f", file]);
    let told = story
        .says(began, LOST, "WritesAdmitted", "False", "AdmissionRefuses")
        .await;
    tokio::time::sleep(CALM.saturating_sub(began.elapsed())).await;
    story.stayed_ready(began);
    // Who is to mend it needs a kubeconfig for that.
    let kubeconfig = stage.it.kubeconfig(NAME);
    let mender = |arguments: &[&str]| stage.it.kubectl_with(&kubeconfig, arguments);
    assert_ne!(mender(&["create", "configmap", "refused"]).code, 0);
    let mended = Instant::now();
    let said = mender(&["delete", "-f", file]);
    assert_eq!(said.code, 0, "{}", said.text());
    let back = story.says(mended, BACK, "WritesAdmitted", "True", "").await;
    story.stayed_ready(began);
    stage.note(
        "told: writes refused by the tenant's own webhook (Ready stays)",
        format!("{}, back after {}", seconds(told), seconds(back)),
    );
}

/// The only API server hangs: it takes connections and answers nothing.
async fn replica(stage: &Stage, story: &Story) {
    if stage.lab("ready::replica", PROCESSES).is_none() {
        return;
    }
    let pod = stage.pods_of(NAME).await.remove(0);
    let process = stage.processes(&pod, "kube-apiserver").remove(0);
    let what = "the only replica stopped";
    stopped(stage, story, what, "NoReplicaAvailable", process).await;
}

/// A process hangs for a while.
async fn stopped(stage: &Stage, story: &Story, what: &str, reason: &str, process: ProcessId) {
    let fault = async { process.signal("STOP") };
    let mend = async { process.signal("CONT") };
    lost(stage, story, what, reason, fault, Some(mend)).await;
}

/// First only the way to the published address, then every way.
async fn route(stage: &Stage, story: &Story) {
    let Some(lab) = stage.lab("ready::route", "the node's packet filter") else {
        return;
    };
    let tenant = stage.it.get(&tenant_path(NAME)).await.unwrap();
    let endpoint = tenant["status"]["controlPlaneEndpoint"].as_str().unwrap();
    let address = endpoint.rsplit_once(':').unwrap().0.to_owned();
    let service = stage.object("services", NAME).await.unwrap();
    let inside = service["spec"]["clusterIP"].as_str().unwrap().to_owned();
    let controller = stage
        .pods(SYSTEM, "app.kubernetes.io/component=controller")
        .await
        .remove(0);
    let controller = controller["status"]["podIP"].as_str().unwrap().to_owned();

    // It answered before, so it is lost; the Service still leads there, and
    // EndpointReachable says that this may be the controller's own view.
    let fault = async { cut(lab, &controller, &[&address]) };
    let mended = async {
        let last = story.last().unwrap();
        assert!(
            is(&last, "EndpointReachable", "Unknown", "EndpointRouteLost"),
            "EndpointReachable is not Unknown with EndpointRouteLost: {}",
            last["status"]["conditions"]
        );
        mend(lab);
    };
    lost(
        stage,
        story,
        "the way to the address cut",
        "EndpointRouteLost",
        fault,
        Some(mended),
    )
    .await;

    let fault = async { cut(lab, &controller, &[&address, &inside]) };
    let mend = async { mend(lab) };
    lost(
        stage,
        story,
        "every way cut",
        "EndpointUnreachable",
        fault,
        Some(mend),
    )
    .await;
}

fn cut(lab: &Lab, from: &str, to: &[&str]) {
    let to = to.join(", ");
    // Before kube-proxy rewrites the address.
    let rules = format!(
        "add table inet {CUT}
         add chain inet {CUT} cut {{ type filter hook prerouting priority -310; }}
         add rule inet {CUT} cut ip saddr {from} ip daddr {{ {to} }} drop"
    );
    network::inside(lab.directory(), &["nft", &rules]).unwrap();
}

fn mend(lab: &Lab) {
    let delete = ["nft", "delete", "table", "inet", CUT];
    network::inside(lab.directory(), &delete).unwrap();
}

/// etcd takes no writes for lack of space.
async fn space(stage: &Stage, story: &Story) {
    let mut etcd = stage.it.etcd().await;
    let mut other = etcd.clone();
    let began = Instant::now();
    let fault = async { no_space(&mut etcd, AlarmAction::Activate).await };
    let mend = async {
        // Known by the alarm itself, also if nobody writes.
        let told = |object: &Value| is(object, "DataStoreReady", "False", "DataStoreFull");
        story
            .until(began, LOST, "the DataStore is full", told)
            .await;
        no_space(&mut other, AlarmAction::Deactivate).await
    };
    lost(
        stage,
        story,
        "etcd's no-space alarm",
        "DataStoreFull",
        fault,
        Some(mend),
    )
    .await;
}

/// Raises etcd's no-space alarm, or disarms it if it is raised.
pub async fn no_space(etcd: &mut Client, action: AlarmAction) {
    let member = etcd.member_list().await.unwrap().members()[0].id();
    let mut of = AlarmOptions::new();
    of.with_member(member);
    etcd.alarm(action, AlarmType::Nospace, Some(of))
        .await
        .unwrap();
}

/// etcd hangs.
async fn database(stage: &Stage, story: &Story) {
    if stage.lab("ready::database", PROCESSES).is_none() {
        return;
    }
    let pod = stage.etcd_pod().await.unwrap();
    let process = stage.processes(&pod, "etcd").remove(0);
    let what = "etcd stopped";
    stopped(stage, story, what, "DataStoreUnreachable", process).await;
}

/// One of two: Ready stays, and a condition tells of it.
async fn one_of_two(stage: &Stage, story: &Story) {
    if stage.lab("ready::one_of_two", PROCESSES).is_none() {
        return;
    }
    drop(stage.tenant(NAME, 2).await);
    let pods = stage.pods_of(NAME).await;
    let process = stage.processes(&pods[0], "kube-apiserver").remove(0);
    let began = Instant::now();
    process.signal("STOP");
    let took = story
        .says(began, LOST, "ReplicasAvailable", "False", "")
        .await;
    tokio::time::sleep(CALM.saturating_sub(began.elapsed())).await;
    story.stayed_ready(began);
    let [_, _, said] = condition(&story.last().unwrap(), "ReplicasAvailable").unwrap();
    assert!(said.contains("1 of 2"), "{said}");
    process.signal("CONT");
    let back = story
        .says(began + took, COMING, "ReplicasAvailable", "True", "")
        .await;
    story.stayed_ready(began);
    let back = (began + took + back).duration_since(began);
    stage.note(
        "told: one of two replicas stopped (Ready stays)",
        format!("{}, all well after {}", seconds(took), seconds(back)),
    );
    drop(stage.tenant(NAME, 1).await);
}
