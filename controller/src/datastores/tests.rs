//! Parts of a pass over a DataStore.

mod fields;
pub(crate) mod testing;

use super::*;

/// A tenant is let go on the strength of its entry: it must not be lost, or its
/// user, its data and its name stay for ever.
#[test]
fn what_is_recorded_during_a_clean_up_is_kept() {
    let entry = |uid: &str| PendingCleanup {
        not_before: None,
        uid: uid.to_owned(),
        message: Some("before".to_owned()),
        ..PendingCleanup::default()
    };
    let mut store = DataStore::new("default", Default::default());
    let round = Round(BTreeMap::from([
        ("done".to_owned(), Cleaned::Whole),
        ("failed".to_owned(), Cleaned::Not("why".to_owned())),
        ("gone".to_owned(), Cleaned::Not("why".to_owned())),
        ("but claim".to_owned(), Cleaned::ButClaim),
    ]));
    assert!(round.left_of(&store).is_empty());
    store.status.get_or_insert_default().pending_cleanups =
        ["done", "failed", "meanwhile"].map(entry).into();
    let left = round.left_of(&store);
    let left: Vec<_> = left
        .iter()
        .map(|entry| (entry.uid.as_str(), entry.message.as_deref().unwrap()))
        .collect();
    assert_eq!(left, [("failed", "why"), ("meanwhile", "before")]);

    // A user is named until it is known that there may be no claim.
    let mut named = entry("but claim");
    named.user = Some("u".to_owned());
    store.status.get_or_insert_default().pending_cleanups = vec![named];
    assert!(round.goes_on() && round.left_of(&store)[0].user.is_none());
}

/// A clean-up that takes long each time does not keep the others from theirs.
#[test]
fn each_clean_up_is_the_first_in_some_round() {
    assert!(in_turn(Vec::<u8>::new(), 7).is_empty());
    assert_eq!(in_turn(vec![1, 2, 3], 4), [2, 3, 1]);
    let firsts = (100..103).map(|turn| in_turn(vec![1, 2, 3], turn)[0]);
    assert_eq!(firsts.collect::<BTreeSet<_>>(), BTreeSet::from([1, 2, 3]));
}

/// Pods are told from those of a tenant that has the name now.
#[test]
fn pods_of_the_tenant_before_are_older_than_this_one() {
    use k8s_openapi::api::core::v1::Pod;
    let at = |second| Time(jiff::Timestamp::from_second(second).unwrap());
    let pod = |second| {
        let mut pod = Pod::default();
        pod.metadata.creation_timestamp = Some(at(second));
        Arc::new(pod)
    };
    let pods = || vec![pod(1), pod(5), pod(9)];
    assert_eq!(before(pods(), None).len(), 3);
    assert_eq!(before(pods(), Some(&at(5))).len(), 1);
}

#[test]
fn the_finalizer_is_there_while_the_data_store_is_used() {
    let mut store: DataStore = serde_json::from_value(serde_json::json!({
        "apiVersion": "steward.butlerlabs.dev/v1alpha1",
        "kind": "DataStore",
        "metadata": {"name": "default"},
        "spec": {"driver": "etcd", "endpoints": ["etcd:2379"]},
    }))
    .unwrap();
    assert_eq!(
        finalizers(&store, true).unwrap(),
        [names::FINALIZER_DATA_STORE]
    );
    assert!(finalizers(&store, false).is_none());
    store.metadata.finalizers = Some(vec![names::FINALIZER_DATA_STORE.into(), "x".into()]);
    assert!(finalizers(&store, true).is_none());
    assert_eq!(finalizers(&store, false).unwrap(), ["x"]);
    store.metadata.deletion_timestamp = Some(Time(jiff::Timestamp::from_second(5).unwrap()));
    assert!(finalizers(&store, true).is_none(), "held while used");
    assert_eq!(finalizers(&store, false).unwrap(), ["x"]);
}
