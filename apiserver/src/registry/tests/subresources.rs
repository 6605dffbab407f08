use serde_json::json;

use super::harness::{Call, World};

/// R3.72.
#[tokio::test]
async fn status_is_all_that_a_status_write_changes() {
    for world in World::each().await {
        let created = world.tenant("a").await;
        let mut object = created.body.clone();
        object["spec"]["controlPlane"]["deployment"]["replicas"] = json!(9);
        object["metadata"]["labels"] = json!({"x": "y"});
        object["status"] = json!({"controlPlaneEndpoint": "1.2.3.4:6443"});
        let written = world
            .update(Call::tenants("a").part("status").body(object.clone()))
            .await;
        assert_eq!(written.code, 200, "{}", written.body);
        assert_eq!(
            written.body["status"]["controlPlaneEndpoint"],
            "1.2.3.4:6443"
        );
        assert_eq!(written.body["spec"], created.body["spec"]);
        assert_eq!(
            written.body["metadata"]["labels"],
            created.body["metadata"]["labels"]
        );
        assert_eq!(written.body["metadata"]["generation"], 1);
        let stale = world
            .update(Call::tenants("a").part("status").body(object))
            .await;
        assert_eq!(stale.code, 409);
        let patch =
            json!({"status": {"controlPlaneEndpoint": "x:1"}, "spec": {"controlPlane": null}});
        let patched = world
            .patch(Call::tenants("a").part("status").body(patch))
            .await;
        assert_eq!(patched.code, 200, "{}", patched.body);
        assert_eq!(patched.body["status"]["controlPlaneEndpoint"], "x:1");
        assert_eq!(patched.body["spec"], created.body["spec"]);
        let main = world
            .patch(Call::tenants("a").body(json!({"status": {"controlPlaneEndpoint": "y"}})))
            .await;
        assert_eq!(main.version(), patched.version());
        assert_eq!(
            world.get(Call::tenants("a").part("status")).await.body,
            patched.body
        );
    }
}

/// R3.74, R8.20.
#[tokio::test]
async fn scale() {
    for world in World::each().await {
        let created = world.tenant("a").await;
        let status = json!({"status": {"kubernetesResources": {"deployment": {"replicas": 1, "selector": "a=b"}}}});
        let status = world
            .patch(Call::tenants("a").part("status").body(status))
            .await;
        assert_eq!(status.code, 200, "{}", status.body);
        let read = world.get(Call::tenants("a").part("scale")).await;
        assert_eq!(read.body["kind"], "Scale");
        assert_eq!(read.body["apiVersion"], "autoscaling/v1");
        assert_eq!(read.body["spec"]["replicas"], 2);
        assert_eq!(
            read.body["status"],
            json!({"replicas": 1, "selector": "a=b"})
        );
        assert_eq!(
            read.body["metadata"]["uid"],
            created.body["metadata"]["uid"]
        );

        let patched = world
            .patch(
                Call::tenants("a")
                    .part("scale")
                    .body(json!({"spec": {"replicas": 3}})),
            )
            .await;
        assert_eq!(patched.body["spec"]["replicas"], 3, "{}", patched.body);
        let main = world.get(Call::tenants("a")).await;
        assert_eq!(
            main.body["spec"]["controlPlane"]["deployment"]["replicas"],
            3
        );
        assert_eq!(main.body["metadata"]["generation"], 2);

        let stale = world
            .update(Call::tenants("a").part("scale").body(read.body.clone()))
            .await;
        assert_eq!(stale.code, 409);
        assert!(stale.message().starts_with(
            "Operation cannot be fulfilled on tenantcontrolplanes.steward.butlerlabs.dev \"a\""
        ));
        let mut free = read.body.clone();
        free["metadata"]
            .as_object_mut()
            .unwrap()
            .remove("resourceVersion");
        free["spec"]["replicas"] = json!(0);
        let free = world
            .update(Call::tenants("a").part("scale").body(free))
            .await;
        assert_eq!(
            (free.code, &free.body["spec"]),
            (200, &json!({})),
            "0 is not written"
        );
        let negative = json!({"metadata": {"name": "a"}, "spec": {"replicas": -1}});
        assert_eq!(
            world
                .update(Call::tenants("a").part("scale").body(negative))
                .await
                .code,
            422
        );
    }
}
