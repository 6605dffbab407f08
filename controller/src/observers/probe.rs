//! Is a tenant usable? Read, write and watch through its published endpoint,
//! as a user with a fresh certificate of the group `steward:admin` would
//! (rule 15). If that path fails, the Service inside the management cluster
//! is tried as well, to tell a cut route from a dead server.

use std::{sync::Arc, time::Duration};

use apiservice::{
    names,
    pki::{self, Entropy, Leaf, Pair, Subject, Usage, Validity},
    v1alpha1::TenantControlPlane,
};
use futures::future::Either;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Secret;
use tokio::time::Instant;

use super::{
    PROBES,
    exercise::{exercise, has},
    first_start::FirstStart,
    pause,
};
use crate::{
    apply::{self, At},
    caches::Name,
    context::{Context, Key},
    requeue,
    tenant::{
        addons,
        plan::Bindings,
        world::{PathFact, ProbeFacts, ProbeFailure, ProbeFailureKind as Kind},
    },
    tenant_client::{Credentials, Tenant, failure},
};

/// A probe's certificate is used for this long.
const CERTIFICATE_FOR: Duration = Duration::from_secs(120);
/// It is valid for this long, and a little more.
const CERTIFICATE_AT_MOST: Duration = Duration::from_secs(270);

/// Probes one tenant until the task is ended.
pub async fn run(ctx: Arc<Context>, name: Name, uid: String) {
    let mut probe = Probe::default();
    let wake = ctx.facts.tenant(&uid).wake_probe;
    loop {
        let wait = probe.round(&ctx, &name, &uid).await;
        pause(wait, &wake).await;
    }
}

#[derive(Default)]
struct Probe {
    credentials: Option<Held>,
    bindings_seen: Option<Instant>,
    first_start: FirstStart,
    /// What decides whether the tenant could have come up since.
    inputs: Option<Vec<String>>,
    since: Option<Instant>,
}

struct Held {
    /// The authorities that it was made of.
    from: (Vec<u8>, Vec<u8>),
    until: Instant,
    /// As long as its authorities are missing, up to here.
    at_most: Instant,
    credentials: Credentials,
}

/// Address (with port) of a tenant's Service, and the name that the tenant's
/// certificate has for it.
pub type ByService = (String, String);

/// Where a tenant can be reached.
struct Paths {
    endpoint: Option<String>,
    service: Option<ByService>,
}

impl Probe {
    /// One look. Returns how long to wait for the next.
    async fn round(&mut self, ctx: &Context, name: &Name, uid: &str) -> Duration {
        let Some(tenant) = ctx.caches.tenants.get(name) else {
            return requeue::PROBE_DOWN;
        };
        if tenant.metadata.uid.as_deref() != Some(uid) {
            return requeue::PROBE_DOWN;
        }
        let asleep = tenant.spec.control_plane.deployment.replicas == 0;
        if asleep || tenant.metadata.deletion_timestamp.is_some() {
            self.publish(ctx, name, uid, ProbeFacts::default());
            return requeue::PROBE_DOWN;
        }
        let paths = paths(ctx, name, &tenant);
        self.note_inputs(ctx, name, &paths);
        let known = ctx.facts.tenant(uid).probe;
        let Some(endpoint) = paths.endpoint.clone() else {
            if known.endpoint.is_some() {
                self.publish(ctx, name, uid, ProbeFacts::default());
            }
            return requeue::PROBE_COMING;
        };
        let credentials = match self.credentials(ctx, name) {
            Ok(credentials) => credentials,
            Err(failure) => {
                let facts = ProbeFacts {
                    endpoint: Some(PathFact {
                        started: ctx.now(),
                        address: endpoint,
                        result: Err(failure),
                    }),
                    ..ProbeFacts::default()
                };
                self.publish(ctx, name, uid, facts);
                return requeue::PROBE_DOWN;
            }
        };
        let Some(credentials) = credentials else {
            let was_ready = tenant
                .status
                .as_ref()
                .is_some_and(|status| status.installed_version().is_some());
            if !was_ready || !ctx.caches.synced() {
                return requeue::PROBE_COMING;
            }
            let message =
                "it cannot be asked without the authorities that sign the certificate to \
                           ask with"
                    .to_owned();
            let facts = ProbeFacts {
                endpoint: Some(PathFact {
                    started: ctx.now(),
                    address: endpoint,
                    result: Err(failure(Kind::Unasked, message)),
                }),
                ..ProbeFacts::default()
            };
            self.publish(ctx, name, uid, facts);
            return requeue::PROBE_DOWN;
        };
        let before = known;
        let was_well = before
            .endpoint
            .as_ref()
            .is_some_and(|path| path.result.is_ok());
        let wanted = self.bindings_due(&before).then(addons::bindings);

        if !was_well {
            self.first_start
                .open(ctx, &tenant, paths.service.as_ref())
                .await;
        }
        let endpoint = endpoint.as_str();
        let look = || look_at(ctx, endpoint, None, &credentials, wanted.as_ref());
        let through_service = || async {
            let (address, host) = paths.service.as_ref()?;
            if address == endpoint {
                return None;
            }
            Some(
                look_at(ctx, address, Some(host), &credentials, None)
                    .await
                    .0,
            )
        };
        let mut bindings_problem = None;
        let ((mut fact, mut bindings), mut service_fact) = if was_well {
            (look().await, None)
        } else {
            side_by_side(look(), through_service()).await
        };
        if was_well && fact.result.is_err() {
            // Twice in a row, so that one lost packet takes no tenant's Ready.
            let seen;
            (seen, service_fact) = side_by_side(look(), through_service()).await;
            (fact, bindings) = seen;
        }
        if bindings == Some(false)
            && let Some(wanted) = ctx.facts.tenant(uid).wanted_bindings
        {
            match apply::bootstrap(
                ctx,
                &tenant,
                At {
                    socket: endpoint,
                    host: None,
                },
                &wanted,
            )
            .await
            {
                Ok(()) => {
                    tracing::info!(
                        tenant = name.to_string(),
                        "wrote the bindings in the tenant"
                    );
                    (fact, bindings) = look().await;
                }
                Err(failure) => bindings_problem = Some(failure.message),
            }
        }
        let well = fact.result.is_ok();
        if bindings.is_some() && well {
            self.bindings_seen = Some(Instant::now());
        }
        let facts = ProbeFacts {
            endpoint: Some(fact),
            service: service_fact,
            bindings: bindings.or(if well { before.bindings } else { None }),
            bindings_problem,
        };
        let missing = facts.bindings == Some(false);
        self.publish(ctx, name, uid, facts);
        let coming = self
            .since
            .is_some_and(|since| since.elapsed() < requeue::COMING_FOR);
        match (well, missing, coming) {
            (true, false, _) => requeue::PROBE_READY,
            (_, _, true) => requeue::PROBE_COMING,
            _ => requeue::PROBE_DOWN,
        }
    }

    fn bindings_due(&self, before: &ProbeFacts) -> bool {
        before.bindings != Some(true)
            || self
                .bindings_seen
                .is_none_or(|seen| seen.elapsed() > requeue::BINDINGS_EVERY)
    }

    /// A tenant counts as coming up for a while after anything about it changed
    /// that could bring it up.
    fn note_inputs(&mut self, ctx: &Context, name: &Name, paths: &Paths) {
        let mut inputs: Vec<String> = ctx
            .caches
            .pods
            .of(name)
            .iter()
            .map(|pod| {
                let ready = pod
                    .status
                    .iter()
                    .flat_map(|status| status.conditions.iter().flatten())
                    .any(|condition| condition.type_ == "Ready" && condition.status == "True");
                format!(
                    "{} {ready}",
                    pod.metadata.uid.as_deref().unwrap_or_default()
                )
            })
            .collect();
        inputs.extend(paths.endpoint.clone());
        if self.inputs.as_ref() != Some(&inputs) {
            self.inputs = Some(inputs);
            self.since = Some(Instant::now());
        }
    }

    /// A certificate of ours for the tenant, made anew every few minutes and
    /// whenever an authority changes. `None`: the authorities are not there.
    fn credentials(
        &mut self,
        ctx: &Context,
        name: &Name,
    ) -> Result<Option<Credentials>, ProbeFailure> {
        let authority = pair_of(ctx, name, &names::ca(&name.name));
        let signer = pair_of(ctx, name, &names::client_ca(&name.name));
        let (Some(authority), Some(signer)) = (authority, signer) else {
            let held = self.credentials.as_ref();
            let valid = held.filter(|held| Instant::now() < held.at_most);
            return Ok(valid.map(|held| held.credentials.clone()));
        };
        let from = (
            authority.cert.clone().into_bytes(),
            signer.cert.clone().into_bytes(),
        );
        if let Some(held) = &self.credentials
            && held.from == from
            && Instant::now() < held.until
        {
            return Ok(Some(held.credentials.clone()));
        }
        let client = client_certificate(
            &signer,
            "steward:controller",
            names::GROUP_ADMIN,
            ctx.now(),
            &ctx.entropy,
        )?;
        let credentials = Credentials::new(&authority.cert, &client)?;
        self.credentials = Some(Held {
            from,
            until: Instant::now() + CERTIFICATE_FOR,
            at_most: Instant::now() + CERTIFICATE_AT_MOST,
            credentials: credentials.clone(),
        });
        Ok(Some(credentials))
    }

    fn publish(&self, ctx: &Context, name: &Name, uid: &str, facts: ProbeFacts) {
        let well = facts
            .endpoint
            .as_ref()
            .is_some_and(|path| path.result.is_ok());
        let changed = ctx.facts.update_tenant(uid, |known| {
            let changed = !same(&known.probe, &facts);
            known.probe = facts;
            changed
        });
        // While a tenant is not Ready, each success may be the one that its
        // plan waits for.
        let waiting = well
            && ctx.caches.tenants.get(name).is_some_and(|tenant| {
                let status = tenant.status.as_ref();
                !status.is_some_and(|status| {
                    apiservice::condition::is_true(
                        &status.conditions,
                        apiservice::condition::tenant::READY,
                    )
                })
            });
        if changed || waiting {
            ctx.queue.add(Key::Tenant(name.clone()));
        }
    }
}

/// The same but for the time of the probe.
fn same(a: &ProbeFacts, b: &ProbeFacts) -> bool {
    let path = |fact: &Option<PathFact>| {
        fact.as_ref().map(|fact| {
            let result = fact.result.clone().map_err(|failure| failure.kind);
            (fact.address.clone(), result)
        })
    };
    path(&a.endpoint) == path(&b.endpoint)
        && path(&a.service) == path(&b.service)
        && a.bindings == b.bindings
        && a.bindings_problem == b.bindings_problem
}

fn paths(ctx: &Context, name: &Name, tenant: &TenantControlPlane) -> Paths {
    let endpoint = tenant
        .status
        .as_ref()
        .and_then(|status| status.control_plane_endpoint.clone())
        .filter(|endpoint| !endpoint.is_empty());
    let service = ctx
        .caches
        .services
        .get(&Name::new(&name.namespace, names::workload(&name.name)))
        .and_then(|service| {
            let spec = service.spec.as_ref()?;
            let ip = spec
                .cluster_ip
                .clone()
                .filter(|ip| !ip.is_empty() && ip != "None")?;
            let ports = spec.ports.as_ref()?;
            let port = ports
                .iter()
                .find(|port| port.name.as_deref() == Some(names::PORT_API_SERVER))
                .or_else(|| ports.first())?;
            let ip = if ip.contains(':') {
                format!("[{ip}]")
            } else {
                ip
            };
            let host = names::service_host(&name.name, &name.namespace);
            Some((format!("{ip}:{}", port.port), host))
        });
    Paths { endpoint, service }
}

/// An authority out of one of the tenant's Secrets.
pub fn pair_of(ctx: &Context, tenant: &Name, secret: &str) -> Option<Pair> {
    let secret = ctx
        .caches
        .secrets
        .get(&Name::new(&tenant.namespace, secret))?;
    let read = |key: &str, secret: &Secret| {
        let bytes = secret.data.as_ref()?.get(key)?.0.clone();
        String::from_utf8(bytes).ok()
    };
    Some(Pair {
        cert: read(names::key::CA_CRT, &secret)?,
        key: read(names::key::CA_KEY, &secret)?,
    })
}

/// A client certificate that is good for minutes.
pub fn client_certificate(
    signer: &Pair,
    user: &str,
    group: &str,
    now: Timestamp,
    entropy: &Entropy,
) -> Result<Pair, ProbeFailure> {
    let at = |seconds| {
        now.checked_add(SignedDuration::from_secs(seconds))
            .map_err(|error| failure(Kind::Unauthenticated, error.to_string()))
    };
    let leaf = Leaf {
        subject: Subject {
            common_name: user.into(),
            organizations: vec![group.into()],
        },
        usage: Usage::Client,
        dns_names: vec![],
        ip_addresses: vec![],
        validity: Validity {
            // Clocks of nodes differ a little.
            not_before: at(-60)?,
            not_after: at(300)?,
        },
    };
    pki::sign(signer, &leaf, entropy)
        .map_err(|error| failure(Kind::Unauthenticated, format!("cannot sign: {error}")))
}

/// Looks along both paths. What the Service path says is of interest only if
/// the endpoint does not even answer, and is waited for only then.
async fn side_by_side(
    look: impl Future<Output = (PathFact, Option<bool>)>,
    service: impl Future<Output = Option<PathFact>>,
) -> ((PathFact, Option<bool>), Option<PathFact>) {
    let (look, service) = (std::pin::pin!(look), std::pin::pin!(service));
    match futures::future::select(look, service).await {
        Either::Left((seen, service)) => {
            let fact = if on_the_way(&seen.0) {
                service.await
            } else {
                None
            };
            (seen, fact)
        }
        Either::Right((fact, look)) => {
            let seen = look.await;
            let fact = fact.filter(|_| on_the_way(&seen.0));
            (seen, fact)
        }
    }
}

/// True if the way to the tenant may be to blame, and not the tenant.
fn on_the_way(fact: &PathFact) -> bool {
    let kind = fact.result.as_ref().err().map(|failure| failure.kind);
    matches!(
        kind,
        Some(Kind::Unresolvable | Kind::Refused | Kind::TimedOut | Kind::Silent | Kind::Untrusted)
    )
}

async fn look_at(
    ctx: &Context,
    address: &str,
    host: Option<&str>,
    credentials: &Credentials,
    wanted: Option<&Bindings>,
) -> (PathFact, Option<bool>) {
    let started = ctx.now();
    let begun = Instant::now();
    let mut stage = Kind::TimedOut;
    let mut bindings = None;
    let work = async {
        let _permit = PROBES.acquire().await;
        let connect = Tenant::connect(address, host, credentials);
        let tenant = match tokio::time::timeout(requeue::CONNECT_DEADLINE, connect).await {
            Ok(connected) => connected?,
            Err(_) => {
                let message = format!("{address}: no connection in time");
                return Err(failure(Kind::TimedOut, message));
            }
        };
        stage = Kind::Silent;
        exercise(&tenant, started, &mut stage).await?;
        if let Some(wanted) = wanted {
            bindings = Some(has(&tenant, wanted).await?);
        }
        Ok(())
    };
    let result = match tokio::time::timeout(requeue::PROBE_DEADLINE, work).await {
        Ok(result) => result,
        Err(_) => {
            let seconds = requeue::PROBE_DEADLINE.as_secs();
            Err(failure(
                stage,
                format!("{address}: no answer within {seconds} s"),
            ))
        }
    };
    let milliseconds = begun.elapsed().as_millis();
    match &result {
        Ok(()) => tracing::trace!(address, milliseconds, "probe: well"),
        Err(failure) => {
            tracing::debug!(
                address,
                milliseconds,
                "probe: {:?}: {}",
                failure.kind,
                failure.message
            );
            if failure.kind == Kind::Forbidden {
                bindings = Some(false);
            }
        }
    }
    let fact = PathFact {
        started,
        address: address.to_owned(),
        result,
    };
    (fact, bindings)
}
