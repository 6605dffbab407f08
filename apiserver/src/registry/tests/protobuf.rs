//! Answers and bodies in protobuf; Kubernetes' own decoder judges them in
//! `tests/tests/clients_protobuf`.

use bytes::Buf;
use futures::StreamExt;
use http::header;
use http_body_util::BodyExt;
use serde_json::json;

use super::harness::{Call, World};
use crate::protobuf::meta::{DeleteOptions, Preconditions};
use crate::protobuf::{self, MEDIA, MOST};

const LIST: &str =
    "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
const OBJECT: &str =
    "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";

/// R4.6, R4.9, R4.10: of a list its whole length is said, and its items are those of JSON.
#[tokio::test]
async fn lists_of_metadata() {
    let world = World::memory().await;
    for count in 0..3 {
        // From the second time on the lengths are known.
        for _ in 0..2 {
            let call = Call::tenants("").header(header::ACCEPT, LIST);
            let response = world.open_list(call).await;
            let headers = response.headers().clone();
            let bytes = response.into_body().collect().await.unwrap().to_bytes();
            assert_eq!(headers[header::CONTENT_TYPE], MEDIA);
            assert_eq!(headers[header::CONTENT_LENGTH], bytes.len().to_string());
            let list = protobuf::answer(&bytes).unwrap();
            let json = LIST.replace("vnd.kubernetes.protobuf", "json");
            let json = world
                .list(Call::tenants("").header(header::ACCEPT, &json))
                .await;
            assert_eq!(list, json.body);
            assert_eq!(list["items"].as_array().map(Vec::len), Some(count));
        }
        world.tenant(&format!("t{count}")).await;
    }
}

/// R3.22, R4.6: one frame for all who watch in the same form.
#[tokio::test]
async fn watchers_share_their_frames() {
    let world = World::memory().await;
    let watch = || {
        let call = Call::tenants("").query("watch=1");
        world.open_watch(call.header(header::ACCEPT, OBJECT))
    };
    let watches = [watch().await, watch().await];
    let json = OBJECT.replace("vnd.kubernetes.protobuf", "json");
    let json = Call::tenants("")
        .query("watch=1")
        .header(header::ACCEPT, &json);
    let mut beside = world.watch(json).await;
    world.tenant("a").await;
    let event = beside.next().await.unwrap();
    let before = world.registry.cache.frames.bytes();
    let mut frames = Vec::new();
    for watch in watches {
        assert_eq!(
            watch.headers()[header::CONTENT_TYPE],
            protobuf::watch::MEDIA
        );
        let mut stream = watch.into_body().into_data_stream();
        frames.push(stream.next().await.unwrap().unwrap());
    }
    assert_eq!(frames[0], frames[1]);
    let made = world.registry.cache.frames.bytes() - before;
    assert_eq!(made, frames[0].len());
    let mut frame = frames[0].clone();
    assert_eq!(frame.get_u32() as usize, frame.len());
    assert!(frame.starts_with(b"\x0a\x05ADDED\x12"));
    let object = frame.windows(4).position(|it| it == b"k8s\0").unwrap();
    assert_eq!(protobuf::answer(&frame[object..]).unwrap(), event["object"]);
}

/// R3.61, R3.63, R4.4.
#[tokio::test]
async fn options_of_deletions() {
    let world = World::memory().await;
    let uid = world.tenant("a").await.body["metadata"]["uid"].take();
    let delete = |uid: &str, dry_run: &str| {
        let options = DeleteOptions {
            preconditions: Some(Preconditions {
                uid: Some(uid.to_owned()),
                resource_version: None,
            }),
            dry_run: vec![dry_run.to_owned()],
            ..DeleteOptions::default()
        };
        protobuf::enveloped("meta.k8s.io/v1", "DeleteOptions", &options)
    };
    let uid = uid.as_str().unwrap();
    for (body, code) in [
        (delete("other", "All"), 409),
        (delete(uid, "Some"), 422),
        (b"k8s\0\x12".to_vec(), 400),
        (b"{}".to_vec(), 400),
        (delete(uid, "All"), 200),
    ] {
        let call = Call::tenants("a")
            .bytes(body)
            .header(header::CONTENT_TYPE, MEDIA);
        assert_eq!(world.delete(call).await.code, code);
    }
    assert_eq!(world.get(Call::tenants("a")).await.code, 200);
}

/// R3.74, R4.4.
#[tokio::test]
async fn scales() {
    let world = World::memory().await;
    world.tenant("a").await;
    let scale = |replicas: i64| {
        let scale = json!({"kind": "Scale", "apiVersion": "autoscaling/v1",
            "metadata": {"name": "a"}, "spec": {"replicas": replicas}});
        let call = Call::tenants("a")
            .part("scale")
            .bytes(protobuf::encode(&scale).unwrap());
        call.header(header::CONTENT_TYPE, MEDIA)
    };
    let put = world.update(scale(3)).await;
    assert_eq!((put.code, &put.body["spec"]["replicas"]), (200, &json!(3)));
    assert_eq!(world.update(scale(-1)).await.code, 422);
    // A tenant has no such form, and what is large is not read.
    let options = protobuf::enveloped("g/v1", "TenantControlPlane", &DeleteOptions::default());
    let tenant = Call::tenants("a")
        .bytes(options)
        .header(header::CONTENT_TYPE, MEDIA);
    let refused = world.update(tenant).await;
    assert_eq!(refused.code, 415, "{}", refused.body);
    let other = protobuf::enveloped("g/v1", "Other", &DeleteOptions::default());
    let other = Call::tenants("a").part("scale").bytes(other);
    let refused = world
        .update(other.header(header::CONTENT_TYPE, MEDIA))
        .await;
    assert_eq!(
        (refused.code, refused.message()),
        (
            400,
            "Other in version \"v1\" cannot be handled as a Scale: no kind \"Other\" is registered for version \"g/v1\""
        )
    );
    let limits = &world.registry.limits;
    let identity = crate::authn::Identity {
        user: "jane".to_owned(),
        uid: None,
        groups: Vec::new(),
        extra: Default::default(),
    };
    let large = axum::body::Body::from(vec![0; MOST + 1]);
    let media = crate::decode::Media::Protobuf;
    let failure = limits.read(&identity, media, large).await.unwrap_err();
    assert_eq!(
        failure.to_string(),
        format!("Request entity too large: limit is {MOST}")
    );
}
