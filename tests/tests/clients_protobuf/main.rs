//! Protobuf, judged by Kubernetes' own clients and decoder (`tests/programs/metadata`), for our
//! server and for CustomResourceDefinitions of the same schemas in a kube-apiserver of its own:
//! each byte that either sends is what Kubernetes itself writes of what it has read, what both
//! say is the same, and it is what they say in JSON.
#![allow(clippy::disallowed_methods, reason = "tests")]

mod clients;
mod objects;
mod pair;
mod refused;
#[allow(dead_code, reason = "programs that are started otherwise")]
#[path = "../clients_tools/tool.rs"]
mod tool;
mod watched;

use pair::Pair;

/// R4.1, R4.2, R4.4, R4.6, R4.9.
#[tokio::test(flavor = "multi_thread")]
async fn protobuf_is_what_kube_apiserver_makes_of_it() {
    let mut pair = Pair::start().await;
    objects::objects_are_read_alike(&mut pair);
    objects::lists_are_read_alike(&mut pair);
    objects::writes_are_answered_alike(&mut pair);
    refused::refusals_are_alike(&mut pair);
    watched::watches_are_alike(&mut pair);
    clients::metadata_clients_are_answered_in_protobuf(&mut pair);
    clients::informers_of_metadata_keep_up(&mut pair);
    clients::scales_are_read_and_written(&mut pair);
    clients::discovery_is_answered_in_protobuf(&mut pair);
    pair.end().await;
}
