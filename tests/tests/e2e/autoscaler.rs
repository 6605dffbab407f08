//! Kubernetes' own autoscaler changes a tenant's replicas through the subresource
//! `scale`. Its bounds need no metrics.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::installed::TENANTS;

use crate::life::seconds;
use crate::stage::{COMING, Stage};
use crate::story::is;

const NAME: &str = "scaled";
const PATH: &str = "/apis/autoscaling/v2/namespaces/tenants/horizontalpodautoscalers";
/// It looks every 15 s and reads what kinds there are every 30 s.
const NOTICED: Duration = Duration::from_secs(90);

/// R1.36, R8.15, R8.17.
pub async fn run(stage: &Stage) {
    let story = stage.tenant(NAME, 1).await;
    let autoscaler = json!({
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": NAME, "namespace": TENANTS},
        "spec": {
            "scaleTargetRef": {
                "apiVersion": "steward.butlerlabs.dev/v1alpha1",
                "kind": "TenantControlPlane",
                "name": NAME,
            },
            "minReplicas": 2,
            "maxReplicas": 3,
        },
    });
    let began = Instant::now();
    stage.it.post(PATH, &autoscaler).await.unwrap();
    let path = format!("{PATH}/{NAME}");
    let scaled = async || {
        let autoscaler = stage.it.get(&path).await.ok()?;
        let conditions = autoscaler["status"]["conditions"].as_array()?;
        let able = conditions
            .iter()
            .any(|it| it["type"] == "AbleToScale" && it["status"] == "True");
        (able && autoscaler["status"]["desiredReplicas"] == 2).then_some(())
    };
    let what = "the autoscaler has scaled the tenant";
    let (_, took) = stage.it.until(what, NOTICED, scaled).await;
    stage.note("an autoscaler's two replicas are asked for", seconds(took));
    let two = |object: &Value| {
        object["spec"]["controlPlane"]["deployment"]["replicas"] == 2
            && object["status"]["kubernetesResources"]["deployment"]["replicas"] == 2
            && is(object, "ReplicasAvailable", "True", "")
    };
    story
        .until(began, NOTICED + COMING, "two replicas", two)
        .await;
    story.stayed_ready(began);
    stage.it.delete(&path).await.unwrap();
    stage.remove(NAME).await;
}
