//! `setup-etcd`: makes an etcd ready for tenants. Every step is skipped when
//! it was done before, so that it can be run again at any time, by as many at
//! once as like to. Run again, it renews the certificates that are due; etcd reads
//! its own anew for each connection, and the controller those of a DataStore.
//!
//! # Guarantees
//! The authority is made once and never replaced. Secrets that others made are
//! read and not written.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use apiservice::{
    pki::{self, Entropy, Leaf, Pair, Subject, Usage, Validity},
    v1alpha1::DataStore,
};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    ByteString, api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::json;
use storage::tenancy::{self, Connection, TenancyError};
use tokio::time::Instant;

use crate::args::SetupEtcdArgs;
use crate::cluster::managers::FIELD_MANAGER;
use crate::process::clock::Clock;
use crate::process::timing;
use crate::tenant::pki::terms::AUTHORITY_LIFE;
use crate::tenant::pki::terms::{BadTerms, SKEW, Span, Terms};

const CA_CRT: &str = "ca.crt";
const CA_KEY: &str = "ca.key";
const TLS_CRT: &str = "tls.crt";
const TLS_KEY: &str = "tls.key";
const LABEL_MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// An authority that ends within this is spoken of.
const WARNING: SignedDuration = SignedDuration::from_hours(90 * 24);

/// Why the set-up did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A call to the management cluster failed.
    #[error("{what}: {source}")]
    Api {
        what: String,
        #[source]
        source: Box<kube::Error>,
    },
    /// A certificate could not be made.
    #[error("certificates: {0}")]
    Certificates(#[from] pki::Error),
    /// A Secret is there but not what it must be.
    #[error(
        "Secret {namespace}/{name} has no key {key}; delete it if no tenant uses this etcd, else restore the key"
    )]
    Incomplete {
        namespace: String,
        name: String,
        key: &'static str,
    },
    /// Settings that lead to renewals without end.
    #[error("certificates: {0}")]
    Terms(#[from] BadTerms),
    /// The authority is gone, and what it signed is in use.
    #[error(
        "Secret {namespace}/{client} with the authority of this etcd does not exist: restore it from a backup. If no tenant uses this etcd, delete {server} too, and run the set-up again to make new ones"
    )]
    AuthorityLost {
        namespace: String,
        client: String,
        server: String,
    },
    /// A certificate of ours is not signed by the authority.
    #[error(
        "the certificate in Secret {0} is not signed by the authority of this etcd, and nothing is changed: restore the one that signed it, or put a certificate of this one there"
    )]
    OtherAuthority(String),
    /// What is signed would not hold.
    #[error("the authority of this etcd ended at {0}: replace it")]
    Ended(Timestamp),
    /// Somebody writes the Secrets again and again.
    #[error("the Secrets in {0} keep being changed by others")]
    Contested(String),
    /// The etcd does not become ready.
    #[error("etcd at {endpoints}: {source}")]
    Etcd {
        endpoints: String,
        #[source]
        source: TenancyError,
    },
    /// Our own API does not answer.
    #[error("the API of Steward does not accept the DataStore {name} in time: {source}")]
    DataStore {
        name: String,
        #[source]
        source: Box<kube::Error>,
    },
    /// The manifest of the DataStore cannot be made.
    #[error("DataStore: {0}")]
    Manifest(#[from] serde_json::Error),
}

/// Does all steps.
pub async fn etcd(args: SetupEtcdArgs, client: Client, clock: Clock) -> Result<(), Error> {
    let until = Instant::now() + Duration::from_secs(args.timeout);
    let entropy = Entropy;
    let secrets: Api<Secret> = Api::namespaced(client.clone(), &args.common.namespace);
    let terms = args.certificates.terms()?;
    let (authority, root) = certificates(&args, &terms, &secrets, &clock, &entropy).await?;
    tracing::info!("certificates are there");
    warn_of_the_end(&authority, clock.now());
    if args.renew_only {
        return Ok(());
    }
    authentication(&args, &authority, &root, until).await?;
    tracing::info!("etcd authenticates its clients");
    if !args.data_store.is_empty() {
        data_store(&args, &client, until).await?;
    }
    tracing::info!("etcd is ready for tenants");
    Ok(())
}

/// How often another run may be faster before this one gives up.
const ATTEMPTS: usize = 5;

/// Sees to it that both Secrets are there and their certificates are not about to
/// end; the authority and root's certificate.
async fn certificates(
    args: &SetupEtcdArgs,
    terms: &Terms,
    secrets: &Api<Secret>,
    clock: &Clock,
    entropy: &Entropy,
) -> Result<(Pair, Pair), Error> {
    for _ in 0..ATTEMPTS {
        let read = |name| async move { secrets.get_opt(name).await.map_err(failed(name)) };
        // In this order: what makes the second makes the first before it.
        let server = read(&args.server_secret).await?;
        let client = read(&args.client_secret).await?;
        let now = clock.now();
        let wanted = wanted(args, terms, client.as_ref(), server.as_ref(), now, entropy)?;
        let client = write(secrets, &args.client_secret, client.as_ref(), wanted.client).await?;
        if !client {
            continue;
        }
        if write(secrets, &args.server_secret, server.as_ref(), wanted.server).await? {
            return Ok((wanted.authority, wanted.root));
        }
    }
    Err(Error::Contested(args.common.namespace.clone()))
}

/// What the two Secrets have to hold.
struct Wanted {
    authority: Pair,
    root: Pair,
    /// What is to be written into the Secret of the authority and of root, if
    /// anything.
    client: Option<Values>,
    /// The same for the Secret of the server.
    server: Option<Values>,
}

type Values = Vec<(&'static str, String)>;

/// Decides from what is there. The authority is made once, before anything is
/// signed; later it is read, never replaced.
fn wanted(
    args: &SetupEtcdArgs,
    terms: &Terms,
    client: Option<&Secret>,
    server: Option<&Secret>,
    now: Timestamp,
    entropy: &Entropy,
) -> Result<Wanted, Error> {
    let validity = |authority: &Pair| {
        let end = pki::inspect(&authority.cert)?.not_after;
        terms.validity(now, end).ok_or(Error::Ended(end))
    };
    let root_leaf = |authority: &Pair| {
        Ok::<_, Error>(Leaf {
            subject: Subject {
                common_name: "root".into(),
                organizations: vec![],
            },
            usage: Usage::Client,
            dns_names: vec![],
            ip_addresses: vec![],
            validity: validity(authority)?,
        })
    };
    let (authority, root, client_values) = match client {
        None if args.renew_only || server.is_some() => {
            return Err(Error::AuthorityLost {
                namespace: args.common.namespace.clone(),
                client: args.client_secret.clone(),
                server: args.server_secret.clone(),
            });
        }
        None => {
            let validity = Validity {
                not_before: now.checked_sub(SKEW).unwrap_or(now),
                not_after: now.checked_add(AUTHORITY_LIFE).unwrap_or(now),
            };
            let authority = pki::authority("steward-etcd", validity, entropy)?;
            let root = pki::sign(&authority, &root_leaf(&authority)?, entropy)?;
            let values = vec![
                (CA_CRT, authority.cert.clone()),
                (CA_KEY, authority.key.clone()),
                (TLS_CRT, root.cert.clone()),
                (TLS_KEY, root.key.clone()),
            ];
            (authority, root, Some(values))
        }
        Some(secret) => {
            let read = |key| text(args, &args.client_secret, secret, key);
            let pair = |cert, key| {
                Ok::<_, Error>(Pair {
                    cert: read(cert)?,
                    key: read(key)?,
                })
            };
            let authority = pair(CA_CRT, CA_KEY)?;
            let root = pair(TLS_CRT, TLS_KEY)?;
            if is_due(terms, secret, &root, &authority, now)? {
                let root = pki::sign(&authority, &root_leaf(&authority)?, entropy)?;
                let values = vec![(TLS_CRT, root.cert.clone()), (TLS_KEY, root.key.clone())];
                (authority, root, Some(values))
            } else {
                (authority, root, None)
            }
        }
    };
    let (mut dns_names, mut ip_addresses) = alternative_names(args);
    let due = match server {
        None => true,
        Some(secret) => {
            let read = |key| text(args, &args.server_secret, secret, key);
            let pair = Pair {
                cert: read(TLS_CRT)?,
                key: read(TLS_KEY)?,
            };
            let held = pki::inspect(&pair.cert)?;
            let lacks = dns_names.iter().any(|name| !held.dns_names.contains(name))
                || ip_addresses
                    .iter()
                    .any(|one| !held.ip_addresses.contains(one));
            // What it is called by others, or with other arguments, it stays.
            for name in held.dns_names {
                if !dns_names.contains(&name) {
                    dns_names.push(name);
                }
            }
            for address in held.ip_addresses {
                if !ip_addresses.contains(&address) {
                    ip_addresses.push(address);
                }
            }
            is_due(terms, secret, &pair, &authority, now)? || lacks && is_ours(secret)
        }
    };
    let server_values = match due {
        false => None,
        true => {
            let leaf = Leaf {
                subject: Subject {
                    common_name: args.service.clone(),
                    organizations: vec![],
                },
                usage: Usage::Both,
                dns_names,
                ip_addresses,
                validity: validity(&authority)?,
            };
            let pair = pki::sign(&authority, &leaf, entropy)?;
            Some(vec![
                (CA_CRT, authority.cert.clone()),
                (TLS_CRT, pair.cert),
                (TLS_KEY, pair.key),
            ])
        }
    };
    Ok(Wanted {
        authority,
        root,
        client: client_values,
        server: server_values,
    })
}

/// Whether we made a Secret. What others put in its place is theirs to renew.
fn is_ours(secret: &Secret) -> bool {
    let labels = secret.metadata.labels.as_ref();
    let by = labels.and_then(|labels| labels.get(LABEL_MANAGED_BY));
    by.is_some_and(|by| by == "steward")
}

/// Whether a certificate of ours is to be made anew for its age.
///
/// # Errors
/// If it is ours and another authority has signed it: nobody knows which one
/// clients and members trust.
fn is_due(
    terms: &Terms,
    secret: &Secret,
    pair: &Pair,
    authority: &Pair,
    now: Timestamp,
) -> Result<bool, Error> {
    if !is_ours(secret) {
        return Ok(false);
    }
    let signer = pki::inspect(&authority.cert)?.not_after;
    let held = pki::inspect(&pair.cert)?;
    let span = Span {
        not_before: held.not_before,
        not_after: held.not_after,
    };
    let moment = span.moment(now);
    if pki::verify(&pair.cert, &authority.cert, Usage::Client, moment).is_err() {
        return Err(Error::OtherAuthority(
            secret.metadata.name.clone().unwrap_or_default(),
        ));
    }
    Ok(terms.renews(now, &span, signer, 0.0))
}

/// Says when the authority ends, if that is near: it is not renewed.
fn warn_of_the_end(authority: &Pair, now: Timestamp) {
    let end = pki::inspect(&authority.cert).map(|info| info.not_after);
    if let Ok(end) = end
        && end.duration_since(now) < WARNING
    {
        tracing::warn!("the authority of this etcd ends at {end} and is not renewed: replace it");
    }
}

/// Every name by which a member may be called.
fn alternative_names(args: &SetupEtcdArgs) -> (Vec<String>, Vec<IpAddr>) {
    let namespace = &args.common.namespace;
    let service = &args.service;
    let mut names = vec!["localhost".to_owned()];
    let mut addresses = vec![IpAddr::from([127, 0, 0, 1])];
    let hosts = (0..args.members).map(|member| format!("{service}-{member}.{service}"));
    for host in hosts.chain([service.clone(), format!("{service}-client")]) {
        names.push(format!("{host}.{namespace}.svc.{}", args.cluster_domain));
        names.push(format!("{host}.{namespace}.svc"));
        names.push(format!("{host}.{namespace}"));
        names.push(host);
    }
    for endpoint in &args.endpoints {
        let host = endpoint
            .rsplit_once(':')
            .map_or(endpoint.as_str(), |parts| parts.0);
        match host.trim_matches(['[', ']']).parse() {
            Ok(address) => addresses.push(address),
            Err(_) => names.push(host.to_owned()),
        }
    }
    (names, addresses)
}

fn failed(name: &str) -> impl Fn(kube::Error) -> Error + Copy + use<'_> {
    move |source| Error::Api {
        what: format!("Secret {name}"),
        source: Box::new(source),
    }
}

/// Creates a Secret, or changes these values of the one that was read. False if
/// somebody else was faster.
async fn write(
    secrets: &Api<Secret>,
    name: &str,
    found: Option<&Secret>,
    values: Option<Values>,
) -> Result<bool, Error> {
    let Some(values) = values else {
        return Ok(true);
    };
    let values = values.into_iter();
    let data: BTreeMap<_, _> = values
        .map(|(key, value)| (key.to_owned(), ByteString(value.into_bytes())))
        .collect();
    let written = match found {
        None => {
            let label = (LABEL_MANAGED_BY.to_owned(), "steward".to_owned());
            let secret = Secret {
                metadata: ObjectMeta {
                    name: Some(name.to_owned()),
                    labels: Some(BTreeMap::from([label])),
                    ..ObjectMeta::default()
                },
                data: Some(data),
                ..Secret::default()
            };
            secrets.create(&PostParams::default(), &secret).await
        }
        Some(found) => {
            let patch = json!({
                "metadata": {"resourceVersion": found.metadata.resource_version},
                "data": data,
            });
            let patch = Patch::Merge(patch);
            secrets.patch(name, &PatchParams::default(), &patch).await
        }
    };
    match written {
        Ok(_) => {
            let what = if found.is_some() { "renewed" } else { "made" };
            tracing::info!("{what} the certificate in Secret {name}");
            Ok(true)
        }
        Err(kube::Error::Api(status))
            if ["AlreadyExists", "Conflict"].contains(&status.reason.as_str()) =>
        {
            Ok(false)
        }
        Err(error) => Err(failed(name)(error)),
    }
}

fn text(
    args: &SetupEtcdArgs,
    name: &str,
    secret: &Secret,
    key: &'static str,
) -> Result<String, Error> {
    secret
        .data
        .as_ref()
        .and_then(|data| String::from_utf8(data.get(key)?.0.clone()).ok())
        .filter(|value| !value.is_empty())
        .ok_or_else(|| Error::Incomplete {
            namespace: args.common.namespace.clone(),
            name: name.to_owned(),
            key,
        })
}

fn endpoints(args: &SetupEtcdArgs) -> Vec<String> {
    if !args.endpoints.is_empty() {
        return args.endpoints.clone();
    }
    (0..args.members)
        .map(|member| {
            format!(
                "{service}-{member}.{service}.{}.svc.{}:{}",
                args.common.namespace,
                args.cluster_domain,
                args.port,
                service = args.service,
            )
        })
        .collect()
}

/// Waits for etcd and turns authentication on.
async fn authentication(
    args: &SetupEtcdArgs,
    authority: &Pair,
    root: &Pair,
    until: Instant,
) -> Result<(), Error> {
    let connection = Connection {
        driver: "etcd".into(),
        endpoints: endpoints(args),
        ca_pem: Some(authority.cert.clone().into_bytes()),
        client_cert: Some(root.cert.clone().into_bytes()),
        client_key: Some(root.key.clone().into_bytes()),
        username: None,
        password: None,
        deadline: timing::STORE_REQUEST,
    };
    let mut told = false;
    loop {
        let Err(source) = tenancy::etcd::bootstrap(connection.clone()).await else {
            return Ok(());
        };
        let worth_repeating = matches!(
            source,
            TenancyError::Unreachable(_) | TenancyError::Other(_)
        );
        if !worth_repeating || Instant::now() >= until {
            return Err(Error::Etcd {
                endpoints: connection.endpoints.join(", "),
                source,
            });
        }
        if !told {
            tracing::info!("waiting for etcd: {source}");
            told = true;
        }
        tokio::time::sleep(timing::SETUP_EVERY).await;
    }
}

/// Waits for our API and posts the DataStore unless one of that name exists.
async fn data_store(args: &SetupEtcdArgs, client: &Client, until: Instant) -> Result<(), Error> {
    let reference = |key: &str| {
        json!({"secretReference": {
            "name": args.client_secret,
            "namespace": args.common.namespace,
            "keyPath": key,
        }})
    };
    let store: DataStore = serde_json::from_value(json!({
        "apiVersion": apiservice::api_version(),
        "kind": "DataStore",
        "metadata": {"name": args.data_store},
        "spec": {
            "driver": "etcd",
            "endpoints": endpoints(args),
            "tlsConfig": {
                "certificateAuthority": {
                    "certificate": reference(CA_CRT),
                    "privateKey": reference(CA_KEY),
                },
                "clientCertificate": {
                    "certificate": reference(TLS_CRT),
                    "privateKey": reference(TLS_KEY),
                },
            },
        },
    }))?;
    let api: Api<DataStore> = Api::all(client.clone());
    let mut told = false;
    loop {
        let named = PostParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PostParams::default()
        };
        let post = async {
            if api.get_opt(&args.data_store).await?.is_some() {
                return Ok(false);
            }
            api.create(&named, &store).await.map(|_| true)
        };
        let error = match post.await {
            Ok(true) => {
                tracing::info!("created DataStore {}", args.data_store);
                return Ok(());
            }
            Ok(false) => return Ok(()),
            Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => return Ok(()),
            Err(error) => error,
        };
        // A path that nobody serves yet is a 404; a refusal stays one.
        let worth_repeating = match &error {
            kube::Error::Api(status) => {
                status.code == 404 || status.code == 429 || status.code >= 500
            }
            _ => true,
        };
        if !worth_repeating || Instant::now() >= until {
            return Err(Error::DataStore {
                name: args.data_store.clone(),
                source: Box::new(error),
            });
        }
        if !told {
            tracing::info!("waiting for the API of Steward: {error}");
            told = true;
        }
        tokio::time::sleep(timing::SETUP_EVERY).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Args, Command};
    use clap::Parser;

    fn args(more: &[&str]) -> SetupEtcdArgs {
        let line = ["steward-controller", "setup-etcd", "--namespace=ops"];
        let args = Args::parse_from(line.iter().chain(more));
        match args.command {
            Some(Command::SetupEtcd(args)) => *args,
            _ => panic!("setup-etcd expected"),
        }
    }

    #[test]
    fn endpoints_are_the_members_unless_named() {
        assert_eq!(
            endpoints(&args(&["--members=2"])),
            [
                "steward-etcd-0.steward-etcd.ops.svc.cluster.local:2379",
                "steward-etcd-1.steward-etcd.ops.svc.cluster.local:2379",
            ]
        );
        assert_eq!(
            endpoints(&args(&["--endpoints=10.0.0.1:1"])),
            ["10.0.0.1:1"]
        );
    }

    #[test]
    fn the_certificate_covers_every_endpoint() {
        let args = args(&["--endpoints=10.0.0.1:1,[fd00::1]:2,etcd.example:3"]);
        let (names, addresses) = alternative_names(&args);
        for name in [
            "steward-etcd-0.steward-etcd.ops.svc.cluster.local",
            "steward-etcd-client.ops.svc",
            "etcd.example",
        ] {
            assert!(names.iter().any(|one| one == name), "{name}");
        }
        for address in ["10.0.0.1", "fd00::1", "127.0.0.1"] {
            assert!(addresses.contains(&address.parse().unwrap()), "{address}");
        }
    }

    const DAY: i64 = 24;

    fn at(hours: i64) -> Timestamp {
        let start = Timestamp::from_second(1_767_225_600).unwrap();
        start + SignedDuration::from_hours(hours)
    }

    /// The two Secrets, and what a run makes of them.
    #[derive(Clone, Default)]
    struct Cluster {
        client: Option<Secret>,
        server: Option<Secret>,
    }

    impl Cluster {
        fn made() -> Self {
            let mut cluster = Self::default();
            assert_eq!(cluster.run(at(0), &[]).unwrap(), "client server");
            cluster
        }

        /// Which of them are written.
        fn run(&mut self, now: Timestamp, more: &[&str]) -> Result<String, Error> {
            let args = args(more);
            let terms = args.certificates.terms()?;
            let (client, server) = (self.client.as_ref(), self.server.as_ref());
            let wanted = wanted(&args, &terms, client, server, now, &Entropy)?;
            let mut written = Vec::new();
            for (name, values, secret) in [
                ("client", wanted.client, &mut self.client),
                ("server", wanted.server, &mut self.server),
            ] {
                let Some(values) = values else { continue };
                written.push(name);
                let label = (LABEL_MANAGED_BY.to_owned(), "steward".to_owned());
                let secret = secret.get_or_insert_default();
                secret.metadata.name = Some(name.to_owned());
                secret
                    .metadata
                    .labels
                    .get_or_insert_default()
                    .extend([label]);
                let values = values.into_iter();
                let data = secret.data.get_or_insert_default();
                data.extend(values.map(|(key, value)| (key.to_owned(), ByteString(value.into()))));
            }
            Ok(written.join(" "))
        }

        fn value(secret: &Option<Secret>, key: &str) -> String {
            let data = secret.as_ref().unwrap().data.as_ref().unwrap();
            String::from_utf8(data[key].0.clone()).unwrap()
        }

        /// Both certificates hold by the authority that both Secrets have.
        fn holds(&self, now: Timestamp) -> bool {
            let authority = Self::value(&self.client, CA_CRT);
            assert_eq!(authority, Self::value(&self.server, CA_CRT));
            let both = [(&self.client, Usage::Client), (&self.server, Usage::Both)];
            both.iter().all(|(secret, usage)| {
                let pair = Pair {
                    cert: Self::value(secret, TLS_CRT),
                    key: Self::value(secret, TLS_KEY),
                };
                pki::key_matches(&pair) && pki::verify(&pair.cert, &authority, *usage, now).is_ok()
            })
        }
    }

    #[test]
    fn certificates_are_renewed_and_the_authority_stays() {
        let mut cluster = Cluster::made();
        let authority = [CA_CRT, CA_KEY].map(|key| Cluster::value(&cluster.client, key));
        let mut renewals = 0;
        for week in 1..52 * 9 {
            let now = at(week * 7 * DAY);
            assert!(cluster.holds(now), "week {week}");
            renewals += usize::from(!cluster.run(now, &["--renew-only"]).unwrap().is_empty());
            assert!(cluster.holds(now), "week {week}");
        }
        assert!((8..=10).contains(&renewals), "{renewals}");
        let after = [CA_CRT, CA_KEY].map(|key| Cluster::value(&cluster.client, key));
        assert_eq!(authority, after);
    }

    #[test]
    fn both_are_renewed_in_their_window_and_only_then() {
        let mut cluster = Cluster::made();
        assert_eq!(cluster.run(at(334 * DAY), &[]).unwrap(), "");
        assert_eq!(cluster.run(at(336 * DAY), &[]).unwrap(), "client server");
        assert_eq!(cluster.run(at(336 * DAY), &[]).unwrap(), "");
        assert_eq!(cluster.run(at(337 * DAY), &[]).unwrap(), "");
        let ended = at(336 * DAY + 400 * DAY);
        assert!(!cluster.holds(ended));
        assert_eq!(
            cluster.run(ended, &["--renew-only"]).unwrap(),
            "client server"
        );
        assert!(cluster.holds(ended));
        // The settings are used.
        let window = ["--certificate-renewal-window=180d"];
        assert_eq!(
            Cluster::made().run(at(190 * DAY), &window).unwrap(),
            "client server"
        );
        let bad = ["--certificate-renewal-window=300d"];
        assert!(matches!(
            Cluster::made().run(at(0), &bad),
            Err(Error::Terms(_))
        ));
    }

    #[test]
    fn a_name_that_is_missing_is_added() {
        let mut cluster = Cluster::made();
        let more = ["--endpoints=etcd.example:3"];
        assert_eq!(cluster.run(at(DAY), &more).unwrap(), "server");
        // Neither run takes the other's names away.
        assert_eq!(cluster.run(at(2 * DAY), &[]).unwrap(), "");
        assert_eq!(cluster.run(at(2 * DAY), &more).unwrap(), "");
        let other = ["--endpoints=10.0.0.1:1"];
        assert_eq!(cluster.run(at(2 * DAY), &other).unwrap(), "server");
        assert_eq!(cluster.run(at(2 * DAY), &more).unwrap(), "");
        let held = pki::inspect(&Cluster::value(&cluster.server, TLS_CRT)).unwrap();
        for name in ["etcd.example", "steward-etcd-client.ops.svc"] {
            assert!(held.dns_names.iter().any(|one| one == name), "{name}");
        }
    }

    #[test]
    fn an_authority_that_is_lost_is_not_made_anew() {
        let mut cluster = Cluster::made();
        cluster.client = None;
        for more in [&[][..], &["--renew-only"]] {
            let lost = cluster.run(at(DAY), more).unwrap_err();
            assert!(matches!(lost, Error::AuthorityLost { .. }), "{lost}");
            assert!(
                lost.to_string().contains("restore it from a backup"),
                "{lost}"
            );
        }
        let nothing = Cluster::default().run(at(0), &["--renew-only"]);
        assert!(matches!(nothing, Err(Error::AuthorityLost { .. })));
        // The server's is made again by the authority that there is.
        let mut cluster = Cluster::made();
        cluster.server = None;
        assert_eq!(cluster.run(at(DAY), &["--renew-only"]).unwrap(), "server");
        assert!(cluster.holds(at(DAY)));
        // What another authority signed is not overwritten.
        cluster.client = Cluster::made().client;
        let other = cluster.run(at(400 * DAY), &[]).unwrap_err();
        assert!(matches!(other, Error::OtherAuthority(name) if name == "server"));
    }

    #[test]
    fn what_others_made_is_left_alone() {
        let mut cluster = Cluster::made();
        for secret in [&mut cluster.client, &mut cluster.server] {
            secret.as_mut().unwrap().metadata.labels = None;
        }
        let more = ["--endpoints=etcd.example:3"];
        assert_eq!(cluster.run(at(400 * DAY), &more).unwrap(), "");
    }

    #[test]
    fn the_end_of_the_authority_is_no_loop_and_an_error() {
        let mut cluster = Cluster::made();
        let life = 3650 * DAY;
        let mut renewals = 0;
        for day in 3600..3650 {
            renewals += usize::from(!cluster.run(at(day * DAY), &[]).unwrap().is_empty());
        }
        assert!(renewals <= 1, "{renewals}");
        let held = pki::inspect(&Cluster::value(&cluster.server, TLS_CRT)).unwrap();
        assert_eq!(held.not_after, at(life));
        cluster.server = None;
        let ended = cluster.run(at(life + 1), &[]).unwrap_err();
        assert!(matches!(ended, Error::Ended(_)), "{ended}");
    }
}
