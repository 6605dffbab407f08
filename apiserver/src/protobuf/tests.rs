//! What `tests/tests/clients_protobuf` judges with Kubernetes' own decoder is judged here as
//! far as that goes without it.

use bytes::{Buf, BytesMut};
use serde_json::json;

use super::envelope::{MAGIC, field};
use super::meta::PartialObjectMetadataList;
use super::*;
use crate::object::weight;

fn object() -> Value {
    json!({
        "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1",
        "metadata": {
            "name": "a", "namespace": "n", "uid": "u", "resourceVersion": "7", "generation": 3,
            "creationTimestamp": "2026-01-02T03:04:05Z", "deletionTimestamp": "2026-01-02T03:04:06Z",
            "deletionGracePeriodSeconds": 0, "labels": {"": "", "é": "\u{0}"},
            "annotations": {"a": "x", "b": ""}, "finalizers": ["f/a", "f/b"],
            "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "q",
                "controller": true, "blockOwnerDeletion": false}],
            "managedFields": [{"manager": "m", "operation": "Apply", "apiVersion": "v1",
                "time": "2026-01-02T03:04:05Z", "fieldsType": "FieldsV1", "subresource": "status",
                "fieldsV1": {"f:a": {".": {}, "k:{\"b\":\"<&>\"}": {}}}}],
        },
    })
}

/// R4.6: the bytes that Kubernetes writes, empty fields included.
#[test]
fn metadata_is_written_as_kubernetes_does() {
    let bytes = encode(&json!({
        "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1",
        "metadata": {"name": "a", "labels": {"b": ""}, "creationTimestamp": "1970-01-01T00:00:01Z"},
    }));
    let meta = "0a0161 1200 1a00 2200 2a00 3200 3800 42040801 1000 5a05 0a0162 1200";
    let type_meta = format!(
        "0a0e{}1215{}",
        hex::encode("meta.k8s.io/v1"),
        hex::encode("PartialObjectMetadata")
    );
    let expected = format!("6b387300 0a27{type_meta} 121e 0a1c {meta} 1a00 2200");
    assert_eq!(hex::encode(bytes.unwrap()), expected.replace(' ', ""));
}

/// R4.9: all that JSON says is said.
#[test]
fn nothing_of_the_metadata_is_lost() {
    assert_eq!(answer(&encode(&object()).unwrap()).unwrap(), object());
}

/// R4.6.
#[test]
fn statuses_and_scales_go_there_and_back() {
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {"continue": "c"},
        "status": "Failure", "message": "m", "reason": "Invalid", "code": 422,
        "details": {"name": "n", "group": "g", "kind": "k", "uid": "u", "retryAfterSeconds": 2,
            "causes": [{"reason": "r", "message": "m", "field": "f"}]}});
    assert_eq!(answer(&encode(&status).unwrap()).unwrap(), status);
    let scale = json!({"kind": "Scale", "apiVersion": "autoscaling/v1",
        "metadata": {"name": "a", "resourceVersion": "7"}, "spec": {"replicas": 3},
        "status": {"replicas": 2, "selector": "a=b"}});
    let bytes = encode(&scale).unwrap();
    let mut read = scale.clone();
    // Nobody is named as a manager.
    read["metadata"]["managedFields"] = json!([]);
    assert_eq!(answer(&bytes).unwrap(), read);
    assert_eq!(decode(&bytes).unwrap(), read);
    assert_eq!(encode(&json!({"kind": "Config", "apiVersion": "v1"})), None);
}

/// R4.4, R4.6: as typed clients send them.
#[test]
fn options_of_deletions_are_read() {
    let options = DeleteOptions {
        grace_period_seconds: Some(0),
        preconditions: Some(meta::Preconditions {
            uid: Some("u".to_owned()),
            resource_version: None,
        }),
        propagation_policy: Some("Orphan".to_owned()),
        dry_run: vec!["All".to_owned()],
        orphan_dependents: None,
    };
    let mut bytes = enveloped("meta.k8s.io/v1", "DeleteOptions", &options);
    let expected = json!({"kind": "DeleteOptions", "apiVersion": "meta.k8s.io/v1",
        "gracePeriodSeconds": 0, "preconditions": {"uid": "u"}, "propagationPolicy": "Orphan",
        "dryRun": ["All"]});
    assert_eq!(decode(&bytes).unwrap(), expected);
    // A field that is yet to come.
    bytes.extend_from_slice(&[0xfa, 0x01, 1, 0]);
    assert_eq!(decode(&bytes).unwrap(), expected);
}

/// R4.4.
#[test]
fn what_is_no_such_object_is_refused() {
    let text = |bytes: &[u8]| decode(bytes).unwrap_err().text;
    assert_eq!(
        text(b"{}"),
        "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]"
    );
    assert_eq!(text(MAGIC), "empty body");
    let bytes = enveloped("meta.k8s.io/v1", "DeleteOptions", &DeleteOptions::default());
    // A length that is longer than what is there.
    assert!(text(&bytes[..10]).contains("buffer underflow"));
    // A wire type that is another one: a number for the message.
    let number = [MAGIC, &[0x10, 1]].concat();
    assert!(
        text(&number).contains("invalid wire type"),
        "{}",
        text(&number)
    );
    let tenant = enveloped("g/v1", "TenantControlPlane", &DeleteOptions::default());
    let refused = decode(&tenant).unwrap_err();
    assert_eq!(
        (refused.kind.as_str(), refused.version.as_str()),
        ("TenantControlPlane", "v1")
    );
    assert_eq!(
        refused.text,
        "no kind \"TenantControlPlane\" is registered for version \"g/v1\""
    );
}

/// Two bytes of a body become a map; it is weighed as that, and the most that may be sent
/// is less than any body may be.
#[test]
fn the_heaviest_bodies_are_not_heavier_than_they_are_weighed() {
    // Labels, annotations, owners, finalizers, managers, each empty, as often as fits.
    for piece in [
        &[0x5a, 0][..],
        &[0x62, 0],
        &[0x6a, 0],
        &[0x72, 0],
        &[0x8a, 0x01, 0],
    ] {
        let metadata = piece.repeat((MOST - 64) / piece.len());
        let mut unknown = Unknown::of("autoscaling/v1", "Scale");
        let mut scale = BytesMut::new();
        field(1, metadata.len(), &mut scale);
        scale.extend_from_slice(&metadata);
        unknown.raw = scale.freeze();
        let body = [MAGIC, &unknown.encode_to_vec()].concat();
        assert!(body.len() <= MOST);
        let message = Scale::decode(unknown.raw.clone()).unwrap();
        let structs = size_of::<meta::OwnerReference>() * message.metadata.owner_references.len()
            + size_of::<meta::ManagedFieldsEntry>() * message.metadata.managed_fields.len()
            + size_of::<meta::Text>()
                * (message.metadata.labels.len() + message.metadata.annotations.len())
            + size_of::<String>() * message.metadata.finalizers.len();
        // Before it is tidied it is heaviest.
        let value = serde_json::to_value(&message).unwrap();
        let tree = weight::of(&value, usize::MAX).unwrap();
        let most = crate::decode::weigh(crate::decode::Media::Protobuf, &body, weight::BODY_TREE);
        assert!(
            3 * structs + tree <= most.unwrap(),
            "{piece:?}: {structs} {tree}"
        );
    }
    let more = vec![0; weight::BODY_TREE / WEIGHT + 1];
    let media = crate::decode::Media::Protobuf;
    assert!(crate::decode::weigh(media, &more, weight::BODY_TREE).is_err());
}

/// R4.6: a list in pieces is the list, also without items.
#[test]
fn a_list_in_pieces_is_the_list() {
    let item: PartialObjectMetadata = serde_json::from_value(object()).unwrap();
    for count in [0, 1, 3] {
        let list = PartialObjectMetadataList {
            metadata: meta::ListMeta {
                resource_version: "9".to_owned(),
                continue_token: "c".to_owned(),
                remaining_item_count: Some(2),
                ..Default::default()
            },
            items: vec![item.clone(); count],
        };
        let items = count * list::entry_len(item.encoded_len());
        let (head, tail) = list::around("meta.k8s.io/v1", &list.metadata, items);
        let items = list::entry(&item).repeat(count);
        let pieces = [&head[..], &items, &tail].concat();
        let whole = enveloped("meta.k8s.io/v1", "PartialObjectMetadataList", &list);
        assert_eq!(hex::encode(&pieces), hex::encode(whole));
        let items = answer(&pieces).unwrap()["items"].take();
        assert_eq!(items, Value::from(vec![object(); count]));
    }
}

/// R3.22, R4.6.
#[test]
fn a_frame_has_its_length_before_it() {
    let object = vec![7; 300];
    let mut frame = watch::frame("ADDED", &object);
    assert_eq!(frame.get_u32() as usize, frame.len());
    let expected = [&b"\x0a\x05ADDED\x12\xaf\x02\x0a\xac\x02"[..], &object].concat();
    assert_eq!(frame, expected);
}

/// R2.7 to R2.9, R2.15: each document has its form.
#[test]
fn discovery_is_written() {
    use apiservice::discovery::{aggregated, api_group, api_group_list, api_resource_list};
    for document in [
        aggregated(),
        api_group(),
        api_group_list(),
        api_resource_list(),
    ] {
        let bytes = encode(&document).unwrap();
        let kind = document["kind"].as_str().unwrap();
        assert_eq!(Unknown::read(&bytes).unwrap().type_meta.kind, kind);
        assert!(
            bytes.windows(4).any(|it| it == b"tcp\0" || it == b"v1al"),
            "{kind}"
        );
    }
}
