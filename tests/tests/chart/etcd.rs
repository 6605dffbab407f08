//! What becomes of a pod of the chart's etcd that does not become Ready.

use std::time::Duration;

use tests::chart::{Access, SYSTEM};
use tests::served::eventually;

use super::{CHART, helm, object};

/// The StatefulSet of the first chart has kept its policy, which cannot be changed. Made
/// anew around its pod, as `troubleshoot.md` says, it is `Parallel`, and the next upgrade
/// replaces the pod, which is never Ready where there are no nodes.
pub async fn a_pod_that_is_not_ready_is_replaced(access: &Access) {
    assert_eq!(policy(access), "OrderedReady");
    let orphan = ["delete", "statefulset", "steward-etcd", "--cascade=orphan"];
    let orphan = [&["-n", SYSTEM][..], &orphan].concat();
    access.kubectl(&orphan).unwrap();
    upgrade(access, "wrong");
    assert_eq!(policy(access), "Parallel");
    upgrade(access, "right");
    // What is there already is asked: the chart's own value is still empty.
    assert_eq!(policy(access), "Parallel");
    let image = "jsonpath={.spec.containers[0].image}";
    let image = ["-n", SYSTEM, "get", "pod", "steward-etcd-0", "-o", image];
    let what = "the pod is replaced by one with the right image";
    eventually(what, Duration::from_secs(60), || {
        let said = access.kubectl(&image);
        said.is_ok_and(|image| image.ends_with(":right"))
    })
    .await;
}

fn policy(access: &Access) -> String {
    let there = object(access, &["statefulset/steward-etcd"]);
    let policy = there["spec"]["podManagementPolicy"].as_str();
    policy.unwrap().to_owned()
}

fn upgrade(access: &Access, tag: &str) {
    let values = format!("etcd.enabled=true,etcd.image.tag={tag}");
    let upgrade = ["upgrade", "steward", CHART, "--namespace", SYSTEM];
    let how = ["--reset-values", "--set", values.as_str()];
    helm(access, &[&upgrade[..], &how].concat());
}
