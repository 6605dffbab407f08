//! Tenants with a database that kine is needed for.

use apiservice::names::{container, key};
use apiservice::v1alpha1::{Component, Driver};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Container, PodSpec};

use crate::cluster::chosen;
use crate::tenant::backing::facts::CredentialsFact;
use crate::tenant::plan::{Grant, Plan, Step};
use crate::tenant::testing::{Lab, golden};

const CONFIG: &str = "tenant-1-datastore-config";

fn placed(driver: Driver) -> Lab {
    let mut lab = Lab::with(driver);
    for _ in 0..3 {
        lab.pass();
    }
    lab
}

fn pod(lab: &Lab) -> PodSpec {
    let spec = lab.world.deployment().expect("a Deployment").spec.clone();
    spec.unwrap().template.spec.unwrap()
}

fn named<'a>(pod: &'a PodSpec, name: &str) -> &'a Container {
    let mut all = pod
        .containers
        .iter()
        .chain(pod.init_containers.iter().flatten());
    all.find(|it| it.name == name).unwrap()
}

fn in_secret(lab: &mut Lab, key: &str) -> String {
    let data = lab.secret_mut(CONFIG).data.clone().unwrap();
    String::from_utf8(data[key].0.clone()).unwrap()
}

fn grant(plan: &Plan) -> Option<&Grant> {
    plan.steps.iter().find_map(|step| match step {
        Step::Grant(grant) => Some(grant),
        _ => None,
    })
}

fn set_password(lab: &mut Lab, password: &str) {
    let data = lab.secret_mut(CONFIG).data.as_mut().unwrap();
    let bytes = ByteString(password.as_bytes().to_vec());
    data.insert(key::DB_PASSWORD.to_owned(), bytes);
}

/// features 2.8, 4.2: what the original puts into pod and Secret.
#[test]
fn a_tenant_in_postgresql_has_kine_beside_its_api_server() {
    let mut lab = placed(Driver::PostgreSQL);
    let pod = pod(&lab);
    let names: Vec<&str> = pod.containers.iter().map(|it| it.name.as_str()).collect();
    assert_eq!(
        names,
        [
            container::API_SERVER,
            container::SCHEDULER,
            container::CONTROLLER_MANAGER,
        ]
    );
    let beside: Vec<_> = pod.init_containers.iter().flatten().collect();
    assert_eq!(beside.len(), 1);
    assert_eq!(beside[0].restart_policy.as_deref(), Some("Always"));
    let server = named(&pod, container::API_SERVER).args.clone().unwrap();
    let storage: Vec<&String> = server
        .iter()
        .filter(|it| it.starts_with("--etcd"))
        .collect();
    // The same keys as in etcd: what is encrypted for them can be moved as it is.
    assert_eq!(
        storage,
        [
            "--etcd-prefix=/tenants_tenant_1",
            "--etcd-servers=unix:///uds/kine"
        ]
    );
    let kine = named(&pod, container::KINE);
    assert_eq!(kine.command.as_deref(), Some(&["/bin/kine".to_owned()][..]));
    let arguments = kine.args.clone().unwrap();
    for wanted in [
        "--listen-address=unix:///uds/kine",
        "--ca-file=/certs/ca.crt",
    ] {
        assert!(arguments.iter().any(|it| it == wanted), "{arguments:?}");
    }
    assert!(
        !arguments.iter().any(|it| it.contains("endpoint")),
        "{arguments:?}"
    );
    let mounts = |of: &Container| -> Vec<String> {
        let all = of.volume_mounts.iter().flatten();
        all.map(|it| format!("{}:{}", it.name, it.mount_path))
            .collect()
    };
    assert_eq!(mounts(kine), ["kine-uds:/uds", "kine-certs:/certs"]);
    assert!(mounts(named(&pod, container::API_SERVER)).contains(&"kine-uds:/uds".to_owned()));
    for volume in mounts(kine) {
        let name = volume.split(':').next().unwrap();
        assert!(
            pod.volumes.iter().flatten().any(|it| it.name == name),
            "{name}"
        );
    }
    // No file of the pod is left that only etcd has.
    let whole = serde_json::to_string(&pod).unwrap();
    assert!(!whole.contains("etcd/server"), "{whole}");

    assert_eq!(
        in_secret(&mut lab, key::DB_CONNECTION_STRING),
        "db-0.example:5432"
    );
    assert_eq!(in_secret(&mut lab, key::DB_SCHEMA), "tenants_tenant_1");
    let user = in_secret(&mut lab, key::DB_USER);
    assert!(user.starts_with("tenants_tenant_1_"), "{user}");
    // The password is nowhere but in the Secret.
    assert!(!whole.contains(&in_secret(&mut lab, key::DB_PASSWORD)));
    let certificate = lab
        .secret_mut("tenant-1-datastore-certificate")
        .data
        .clone();
    assert!(certificate.unwrap().keys().eq(["ca.crt"]));
    assert!(grant(&lab.plan()).is_none(), "nothing is left to do");
}

/// The pass that makes the Deployment, to be read.
#[test]
fn golden_of_the_deployment() {
    let mut lab = Lab::with(Driver::PostgreSQL);
    lab.pass();
    golden("fresh_postgresql", &lab.plan().to_string());
}

#[test]
fn the_user_of_mysql_is_short_enough() {
    let mut lab = placed(Driver::MySQL);
    let user = in_secret(&mut lab, key::DB_USER);
    assert!(user.len() <= 32, "{user}");
    let kine = named(&pod(&lab), container::KINE).clone();
    let endpoint = kine
        .env
        .iter()
        .flatten()
        .find(|it| it.name == "KINE_ENDPOINT");
    assert_eq!(
        endpoint.unwrap().value.as_deref(),
        Some("mysql://$(DB_USER):$(DB_PASSWORD)@tcp(db-0.example:5432)/tenants_tenant_1")
    );
}

/// BUG of the original: a password that was made anew never reached the database.
#[test]
fn whatever_becomes_of_the_secret_the_database_is_told() {
    let mut lab = placed(Driver::PostgreSQL);
    let first = in_secret(&mut lab, key::DB_PASSWORD);

    // Edited: that is the password from now on.
    set_password(&mut lab, "chosen-by-somebody");
    let plan = lab.pass();
    let told = grant(&plan).expect("the database is told");
    assert_eq!(
        told.password.as_ref().unwrap().expose(),
        "chosen-by-somebody"
    );
    assert_eq!(in_secret(&mut lab, key::DB_PASSWORD), "chosen-by-somebody");
    assert!(grant(&lab.plan()).is_none());

    // Not one that can be used, or none at all.
    for bad in ["", "p@ss word/with:all"] {
        set_password(&mut lab, bad);
        let plan = lab.pass();
        let told = grant(&plan).expect("the database is told").password.clone();
        let said = plan.to_string().contains("PasswordReplaced");
        assert_eq!(said, !bad.is_empty(), "{plan}");
        let now = in_secret(&mut lab, key::DB_PASSWORD);
        assert_eq!(told.unwrap().expose(), now);
        assert!(now != bad && now != first);
        assert!(grant(&lab.plan()).is_none());
    }

    lab.world
        .owned
        .remove(crate::cluster::kinds::ObjectKind::Secret, CONFIG);
    let before = lab.world.store.password.clone();
    let plan = lab.pass();
    let told = grant(&plan).expect("the database is told").password.clone();
    assert_eq!(
        told.as_ref().unwrap().expose(),
        in_secret(&mut lab, key::DB_PASSWORD)
    );
    assert_ne!(told, before);
    let password = told.unwrap();
    let printed = format!("{plan} {:?}", grant(&plan).unwrap());
    assert!(!printed.contains(password.expose()), "{printed}");
}

/// A controller that has just begun does not know what the database has, and takes it
/// that the Secret is right until it has looked.
#[test]
fn a_start_of_the_controller_changes_nothing() {
    let mut lab = placed(Driver::PostgreSQL);
    lab.world.store.password = None;
    assert!(grant(&lab.plan()).is_none());
}

/// Our own client certificate goes to the pods where nobody can be signed for.
#[test]
fn client_certificates() {
    let mut lab = Lab::with(Driver::PostgreSQL);
    let store = std::sync::Arc::make_mut(lab.world.data_store.as_mut().unwrap());
    let tls = store.spec.tls_config.as_mut().unwrap();
    tls.client_certificate = Some(Default::default());
    let CredentialsFact::Known(known) = &mut lab.world.store.credentials else {
        panic!("they are known")
    };
    std::sync::Arc::make_mut(known).client = Some(apiservice::pki::Pair {
        cert: "cert".into(),
        key: "key".into(),
    });
    for _ in 0..3 {
        lab.pass();
    }
    let secret = lab
        .secret_mut("tenant-1-datastore-certificate")
        .data
        .clone();
    assert!(
        secret
            .unwrap()
            .keys()
            .eq(["ca.crt", "server.crt", "server.key"])
    );
    let arguments = named(&pod(&lab), container::KINE).args.clone().unwrap();
    for wanted in [
        "--cert-file=/certs/server.crt",
        "--key-file=/certs/server.key",
    ] {
        assert!(arguments.iter().any(|it| it == wanted), "{arguments:?}");
    }

    // With a key of the authority the tenant has one of its own.
    let mut lab = Lab::with(Driver::PostgreSQL);
    let etcd = Lab::new().world.store.credentials;
    let (CredentialsFact::Known(known), CredentialsFact::Known(signer)) =
        (&mut lab.world.store.credentials, etcd)
    else {
        panic!("they are known")
    };
    std::sync::Arc::make_mut(known).authority = signer.authority.clone();
    std::sync::Arc::make_mut(known).authority_key = signer.authority_key.clone();
    let store = std::sync::Arc::make_mut(lab.world.data_store.as_mut().unwrap());
    let tls = store.spec.tls_config.as_mut().unwrap();
    tls.certificate_authority.private_key = Some(Default::default());
    for _ in 0..3 {
        lab.pass();
    }
    let secret = lab.secret_mut("tenant-1-datastore-certificate").clone();
    let signed = crate::tenant::objects::text(&secret, key::DATASTORE_CRT).unwrap();
    let signed = apiservice::pki::inspect(&signed).unwrap();
    assert_eq!(
        signed.subject.common_name,
        in_secret(&mut lab, key::DB_USER)
    );
}

/// Pods that are given a copy of our client certificate keep it until another one is found
/// to work and it is their turn: whatever starts meanwhile needs what was there.
#[test]
fn another_client_certificate_is_tried_as_well() {
    use crate::tenant::backing::facts::{StoreProblem, StoreProblemKind};
    use crate::tenant::turns::{Turn, Wait};
    let pair = |text: &str| apiservice::pki::Pair {
        cert: format!("cert {text}"),
        key: format!("key {text}"),
    };
    let give = |lab: &mut Lab, client: Option<apiservice::pki::Pair>| {
        let store = std::sync::Arc::make_mut(lab.world.data_store.as_mut().unwrap());
        let tls = store.spec.tls_config.as_mut().unwrap();
        tls.client_certificate = client.is_some().then(Default::default);
        let CredentialsFact::Known(known) = &mut lab.world.store.credentials else {
            panic!("they are known")
        };
        std::sync::Arc::make_mut(known).client = client;
    };
    let refused = || {
        Some(Err(StoreProblem {
            kind: StoreProblemKind::Unauthenticated,
            message: "bad certificate".to_owned(),
        }))
    };
    let rest = || {
        let mut lab = Lab::with(Driver::PostgreSQL);
        give(&mut lab, Some(pair("one")));
        for _ in 0..3 {
            lab.pass();
        }
        lab.bring_ready();
        assert!(lab.plan().is_quiet(), "{}", lab.plan());
        lab
    };
    for other in [Some(pair("two")), None] {
        let mut lab = rest();
        let secret = lab.secret_mut("tenant-1-datastore-certificate").clone();
        give(&mut lab, other.clone());
        for trial in [None, refused()] {
            lab.world.store.trial = trial;
            assert!(lab.pass().is_quiet(), "{other:?}: {}", lab.plan());
        }
        lab.world.store.trial = Some(Ok(()));
        lab.turn = Turn::Waits(Wait::ForOthers);
        assert!(lab.pass().is_quiet(), "{other:?}: {}", lab.plan());
        assert_eq!(*lab.secret_mut("tenant-1-datastore-certificate"), secret);
        lab.turn = Turn::Unasked;
        lab.pass();
        assert_ne!(*lab.secret_mut("tenant-1-datastore-certificate"), secret);
        let arguments = named(&pod(&lab), container::KINE).args.clone().unwrap();
        let has = arguments.iter().any(|it| it.starts_with("--cert-file="));
        assert_eq!(has, other.is_some(), "{arguments:?}");
    }
}

/// The user's own resources and arguments of kine.
#[test]
fn what_the_spec_says_of_kine() {
    let mut lab = Lab::with(Driver::PostgreSQL);
    let deployment = &mut lab.spec().control_plane.deployment;
    let resources = serde_json::json!({"limits": {"memory": "64Mi"}});
    let resources = serde_json::from_value(resources).unwrap();
    deployment.resources.get_or_insert_default().kine = Some(resources);
    let extra = deployment.extra_args.get_or_insert_default();
    extra.kine = vec!["--poll-batch-size=100".to_owned()];
    for _ in 0..3 {
        lab.pass();
    }
    let pod = pod(&lab);
    let kine = named(&pod, container::KINE);
    assert!(
        kine.args
            .as_ref()
            .unwrap()
            .contains(&"--poll-batch-size=100".to_owned())
    );
    let limits = kine.resources.as_ref().unwrap().limits.as_ref().unwrap();
    assert_eq!(limits["memory"].0, "64Mi");
    let server = crate::tenant::workload::containers::image(&lab.world, Component::ApiServer);
    assert_ne!(kine.image.as_ref(), Some(&server));
}

mod assigned {
    use apiservice::assignment::{Assigned, Unassigned};
    use apiservice::condition::{self, reason, tenant as types};

    use super::*;

    fn unplaced() -> Lab {
        let mut lab = Lab::new();
        lab.spec().data_store = None;
        lab
    }

    fn decided(name: &str) -> Assigned {
        Assigned {
            data_store: name.to_owned(),
            message: format!("Assigned to DataStore {name}: it is the only one."),
        }
    }

    fn told(lab: &Lab) -> [String; 2] {
        let status = lab.world.tenant.status.as_ref().unwrap();
        let found = condition::get(&status.conditions, types::DATA_STORE_READY).unwrap();
        [found.reason.clone(), found.message.clone()]
    }

    /// After a crash between the two nobody would know where to look for the claim.
    #[test]
    fn nothing_is_claimed_before_the_status_says_where() {
        let mut lab = unplaced();
        lab.world.assignment = Some(Ok(decided("default")));
        let plan = lab.pass();
        assert!(grant(&plan).is_none(), "{plan}");
        let storage = lab
            .world
            .tenant
            .status
            .as_ref()
            .unwrap()
            .storage
            .clone()
            .unwrap();
        assert_eq!(storage.data_store_name.as_deref(), Some("default"));
        assert_eq!(storage.assignment, Some(decided("default").message));
        assert_eq!(
            chosen::choose(&lab.world.tenant).as_deref(),
            Some("default")
        );

        lab.world.assignment = None;
        let plan = lab.pass();
        assert!(grant(&plan).is_some(), "{plan}");
        let storage = lab
            .world
            .tenant
            .status
            .as_ref()
            .unwrap()
            .storage
            .clone()
            .unwrap();
        assert_eq!(
            storage.assignment,
            Some(decided("default").message),
            "it stays"
        );
    }

    #[test]
    fn where_there_is_no_place_it_is_said_what_to_do() {
        let mut lab = unplaced();
        lab.world.data_store = None;
        let why = "0/1 DataStores are available: 1 is not Ready.".to_owned();
        lab.world.assignment = Some(Err(Unassigned(why)));
        let plan = lab.pass();
        assert!(grant(&plan).is_none(), "{plan}");
        let [reason, message] = told(&lab);
        assert_eq!(reason, reason::DATA_STORE_NOT_ASSIGNED);
        assert_eq!(
            message,
            "0/1 DataStores are available: 1 is not Ready. Provide a DataStore that can take the \
             tenant, or name one in spec.dataStore."
        );
        assert_eq!(chosen::choose(&lab.world.tenant), None);
    }

    /// A name in the spec is the user's own choice, and where data is is where it is.
    #[test]
    fn what_counts() {
        let mut lab = unplaced();
        lab.world.assignment = Some(Ok(decided("default")));
        lab.pass();
        assert!(chosen::is_assigned(&lab.world.tenant));
        lab.spec().data_store = Some("other".to_owned());
        assert_eq!(chosen::choose(&lab.world.tenant).as_deref(), Some("other"));
        assert!(!chosen::is_assigned(&lab.world.tenant));
        lab.spec().data_store = None;
        lab.world.assignment = None;
        for _ in 0..3 {
            lab.pass();
        }
        assert!(!chosen::is_assigned(&lab.world.tenant), "its data is there");
        lab.spec().data_store = Some("other".to_owned());
        assert_eq!(
            chosen::choose(&lab.world.tenant).as_deref(),
            Some("default")
        );
    }
}

/// A slip in a DataStore reaches no pod: neither its arguments nor its volumes.
#[test]
fn tls_that_does_not_work_is_given_to_nobody() {
    use crate::tenant::backing::facts::{StoreProblem, StoreProblemKind};
    let mut lab = Lab::with(Driver::PostgreSQL);
    let store = std::sync::Arc::make_mut(lab.world.data_store.as_mut().unwrap());
    store.spec.tls_config = None;
    let CredentialsFact::Known(known) = &mut lab.world.store.credentials else {
        panic!("they are known")
    };
    let known = std::sync::Arc::make_mut(known);
    let authority = std::mem::take(&mut known.authority);
    for _ in 0..3 {
        lab.pass();
    }
    let before = pod(&lab);
    assert!(
        named(&before, container::KINE)
            .args
            .iter()
            .flatten()
            .all(|it| !it.contains("ca-file"))
    );
    lab.deployment_mut().status = serde_json::from_value(serde_json::json!({
        "replicas": 1, "readyReplicas": 1, "updatedReplicas": 1,
    }))
    .unwrap();

    let store = std::sync::Arc::make_mut(lab.world.data_store.as_mut().unwrap());
    store.spec.tls_config = Some(Default::default());
    let CredentialsFact::Known(known) = &mut lab.world.store.credentials else {
        panic!("they are known")
    };
    std::sync::Arc::make_mut(known).authority = authority;
    lab.world.store.trial = Some(Err(StoreProblem {
        kind: StoreProblemKind::Unreachable,
        message: "the certificate comes from another authority".into(),
    }));
    lab.pass();
    assert_eq!(pod(&lab), before);

    lab.world.store.trial = Some(Ok(()));
    lab.pass();
    let after = pod(&lab);
    assert!(
        named(&after, container::KINE)
            .args
            .iter()
            .flatten()
            .any(|it| it.contains("ca-file"))
    );
    let secret = lab
        .secret_mut("tenant-1-datastore-certificate")
        .data
        .clone();
    assert!(secret.unwrap().contains_key("ca.crt"), "in the same pass");
}

fn pod_annotation(lab: &Lab) -> Option<String> {
    let template = lab.world.deployment()?.spec.clone()?.template;
    let annotations = template.metadata?.annotations?;
    annotations
        .get(apiservice::names::ANNOTATION_STORAGE_BEGUN)
        .cloned()
}

/// Rule 17: in an empty database nodes would find that nothing should run on them.
#[test]
fn lost_data_is_not_replaced_by_none() {
    use apiservice::condition::{self, reason, tenant as types};
    let lost = || {
        Some(crate::tenant::backing::facts::AccessFact::Lost(
            "database \"a\" does not exist".into(),
        ))
    };
    let mut lab = placed(Driver::PostgreSQL);
    lab.world.store.access = lost();
    assert!(grant(&lab.plan()).is_some(), "it never served");
    lab.bring_ready();
    lab.world.store.access = lost();
    let plan = lab.pass();
    assert!(grant(&plan).is_none(), "{plan}");
    let status = lab.world.tenant.status.clone().unwrap();
    for kind in [types::DATA_STORE_READY, types::READY] {
        let found = condition::get(&status.conditions, kind).unwrap();
        assert_eq!(
            (found.status.as_str(), found.reason.as_str()),
            ("False", reason::DATA_NOT_FOUND)
        );
        assert!(
            found.message.contains("database \"a\" does not exist"),
            "{}",
            found.message
        );
    }
    let uid = lab.world.uid().to_owned();
    let annotations = lab.tenant().metadata.annotations.get_or_insert_default();
    annotations.insert(apiservice::names::ANNOTATION_START_EMPTY.to_owned(), uid);
    let pods = pod_annotation(&lab);
    lab.later(10);
    lab.turn = crate::tenant::turns::Turn::Waits(crate::tenant::turns::Wait::ForOthers);
    let plan = lab.pass();
    assert!(grant(&plan).is_some(), "somebody decided");
    // What runs still has in mind what was there.
    let begun = pod_annotation(&lab);
    assert_ne!(begun, pods);
    lab.pass();
    assert_eq!(pod_annotation(&lab), begun, "once");
}

/// The database has the new password at once, so pods do not wait for their turn.
#[test]
fn another_password_waits_for_nobody() {
    use crate::tenant::turns::{Turn, Wait};
    let mut lab = placed(Driver::PostgreSQL);
    lab.bring_ready();
    let noted = |lab: &Lab| {
        let template = lab
            .world
            .deployment()
            .unwrap()
            .spec
            .clone()
            .unwrap()
            .template;
        let annotations = template.metadata.unwrap().annotations.unwrap();
        annotations[apiservice::names::ANNOTATION_STORAGE_CONFIG].clone()
    };
    let before = noted(&lab);
    lab.turn = Turn::Waits(Wait::ForOthers);
    set_password(&mut lab, "chosen-by-somebody");
    lab.pass();
    assert_ne!(noted(&lab), before);
}

#[test]
fn a_paused_secret_is_not_put_right() {
    let mut lab = placed(Driver::PostgreSQL);
    let annotations = lab
        .secret_mut(CONFIG)
        .metadata
        .annotations
        .get_or_insert_default();
    annotations.insert(
        apiservice::names::ANNOTATION_PAUSED.to_owned(),
        String::new(),
    );
    set_password(&mut lab, "short");
    let plan = lab.pass();
    assert!(grant(&plan).is_none(), "{plan}");
    assert_eq!(in_secret(&mut lab, key::DB_PASSWORD), "short");
    assert!(plan.to_string().contains("is paused"), "{plan}");
}
