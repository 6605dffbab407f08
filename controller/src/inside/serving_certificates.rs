//! Approves nodes' requests for serving certificates, where the tenant asks for it. One
//! task a tenant; it has a connection to the tenant's API, with rights for nothing else,
//! and watches the requests there.

pub mod judge;

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use apiservice::endpoint::Endpoint;
use apiservice::names;
use apiservice::pki;
use apiservice::v1alpha1::TenantControlPlane;
use http::Method;
use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, Error as _, SeqAccess, Visitor};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

use self::judge::{Claim, Comparisons, Limits, Node, Objection, Request};
use crate::cluster::name::NamespacedName;
use crate::context::Context;
use crate::inside::connection::{Address, Read, Tenant, failure};
use crate::inside::identity;
use crate::inside::rbac::{cluster_role, cluster_role_binding, group, rule};
use crate::inside::read_write_watch::expect;
use crate::inside::ways::{Way, Ways, is_left_alone};
use crate::process::lanes::Lanes;
use crate::process::observers::LOOKS;
use crate::process::timing;
use crate::report::diagnose::quote;
use crate::tenant::ran;
use crate::tenant::world::{ProbeFailure, ProbeFailureKind as Kind};

const REQUESTS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
/// What is asked for: requests of this signer only.
const SELECTOR: &str = "fieldSelector=spec.signerName%3Dkubernetes.io%2Fkubelet-serving";
const NODES: &str = "/api/v1/nodes";
/// Reason in an approval, as Steward writes it.
const APPROVED: &str = "StewardAutoApproved";
/// Reason of the Event about a request that is not approved.
const NOT_APPROVED: &str = "ServingCertificateNotApproved";

/// Objects of one page, and bytes of it: more than one object of any API server has.
const PAGE: usize = 50;
const BYTES: usize = 4 << 20;
/// Bytes of what is kept of a page until the next one: its version, and where that begins.
const TOKEN: usize = 4 * 1024;
/// Requests of one tenant that are looked at in a turn. What nobody approves is removed
/// after a day by the tenant's controller manager.
const REQUESTS_AT_ONCE: usize = 10_000;
/// Of them, those of one node and of all nodes that are compared with Nodes in a turn.
const OF_ONE_NODE: usize = 16;
const OF_ALL_NODES: usize = 2_000;
/// Names and addresses in all that these ask for. Each takes some hundred bytes.
const NAMES: usize = 4 * OF_ALL_NODES;
/// Nodes of one tenant that are compared with.
const NODES_AT_ONCE: usize = 20_000;
/// The role and the binding of whoever approves.
pub fn rights() -> [Value; 2] {
    let name = names::GROUP_SERVING_CERTIFICATES;
    let mut sign = rule("certificates.k8s.io", &["signers"], &["approve"]);
    sign["resourceNames"] = json!([judge::SIGNER]);
    let requests = ["certificatesigningrequests"];
    let approval = ["certificatesigningrequests/approval"];
    let rules = json!([
        rule("certificates.k8s.io", &requests, &["list", "watch"]),
        rule("certificates.k8s.io", &approval, &["patch"]),
        sign,
        rule("", &["nodes"], &["list"]),
    ]);
    [
        cluster_role(name, rules),
        cluster_role_binding(name, name, json!([group(name)])),
    ]
}

/// Approves requests of one tenant until the task is ended.
pub async fn run(ctx: Arc<Context>, name: NamespacedName, uid: String) {
    let mut approver = Approver {
        ctx: &ctx,
        name: &name,
        uid: &uid,
        lanes: Lanes::of(1),
        told: BTreeSet::new(),
        budget: Budget::new(),
        resume: String::new(),
    };
    let mut failures = 0;
    loop {
        let Some((tenant, way)) = approver.way() else {
            tokio::time::sleep(timing::APPROVAL_ASKED_EVERY).await;
            continue;
        };
        match approver.session(&tenant, &way).await {
            Ok(()) => failures = 0,
            Err(failure) => {
                failures += 1;
                let tenant = name.to_string();
                tracing::debug!(tenant, "requests for certificates: {}", failure.message);
            }
        }
        let (first, slowest) = timing::OBSERVER_AGAIN;
        tokio::time::sleep(timing::observer_backoff(first, slowest, failures.max(1))).await;
    }
}

/// One page of a list.
#[derive(Deserialize)]
#[serde(bound = "T: Deserialize<'de>")]
struct Page<T> {
    metadata: PageMetadata,
    #[serde(default = "Vec::new", deserialize_with = "of_a_page")]
    items: Vec<T>,
}

/// No more objects than were asked for: an empty one has two bytes, and takes hundreds.
fn of_a_page<'de, D, T>(reader: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    struct Items<T>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>> Visitor<'de> for Items<T> {
        type Value = Vec<T>;

        fn expecting(&self, words: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(words, "at most {PAGE} objects")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut given: A) -> Result<Vec<T>, A::Error> {
            let mut items = Vec::new();
            while let Some(item) = given.next_element()? {
                if items.len() == PAGE {
                    return Err(A::Error::invalid_length(PAGE + 1, &self));
                }
                items.push(item);
            }
            Ok(items)
        }

        /// As a server in Go writes an empty list.
        fn visit_unit<E>(self) -> Result<Vec<T>, E> {
            Ok(Vec::new())
        }
    }

    reader.deserialize_any(Items(PhantomData))
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PageMetadata {
    resource_version: String,
    r#continue: String,
}

/// What a turn came to.
struct Turn {
    /// The state that was read.
    version: String,
    /// Something may be in order in a moment.
    waits: bool,
}

struct Approver<'a> {
    ctx: &'a Context,
    name: &'a NamespacedName,
    uid: &'a str,
    lanes: Lanes,
    /// Requests (by uid) that were told of as not approved.
    told: BTreeSet<String>,
    budget: Budget,
    /// Where the next turn goes on, if the last one did not come to the end of the list.
    resume: String,
}

impl Approver<'_> {
    /// The tenant and a way to it, if it asks for approval and can be asked.
    fn way(&self) -> Option<(Arc<TenantControlPlane>, Way)> {
        let tenant = self.ctx.caches.tenants.get(self.name)?;
        tenant.spec.approved_subnets()?;
        if tenant.metadata.uid.as_deref() != Some(self.uid)
            || is_left_alone(&tenant)
            || !ran::may_have_run(&self.ctx.caches, &tenant)
        {
            return None;
        }
        let probe = self.ctx.facts.tenant(self.uid).probe;
        let way = Ways::of(self.ctx, self.name, &tenant).open(&probe)?;
        Some((tenant, way))
    }

    /// One connection: turns, each after something was asked for.
    async fn session(
        &mut self,
        tenant: &TenantControlPlane,
        way: &Way,
    ) -> Result<(), ProbeFailure> {
        let ctx = self.ctx;
        let generation = tenant.metadata.generation;
        let work = async {
            let credentials = identity::serving_certificates(ctx, self.name)?;
            let host = way.host.as_deref();
            let address = Address::of(&self.name.namespace, &way.address).await;
            let connect = Tenant::connect(address, host, &credentials, &self.lanes);
            let connect = timeout(timing::CONNECT_DEADLINE, connect).await;
            let late = |_| failure(Kind::TimedOut, "no connection in time");
            let connection = connect.map_err(late)??;
            let end = Instant::now() + timing::APPROVAL_SESSION;
            let mut idle = 0;
            loop {
                // A change of the spec begins anew with what it says.
                let goes_on = ctx.caches.tenants.get(self.name).is_some_and(|current| {
                    current.metadata.generation == generation && !is_left_alone(&current)
                });
                if Instant::now() >= end || !goes_on {
                    return Ok(());
                }
                // A wait for others is no silence of the tenant.
                let look = LOOKS.take(&self.name.namespace).await;
                let late = |_| failure(Kind::Silent, "the tenant's API does not answer");
                let turn = timeout(timing::APPROVAL_TURN, self.turn(&connection, tenant)).await;
                drop(look);
                let turn = turn.map_err(late)??;
                tokio::time::sleep(timing::APPROVAL_PAUSE).await;
                let (first, slowest) = timing::APPROVAL_AGAIN;
                let patience = match turn.waits {
                    true => Instant::now() + timing::observer_backoff(first, slowest, idle + 1),
                    false => end,
                };
                idle = match news(&connection, &turn.version, patience).await? {
                    true => 0,
                    false => idle + 1,
                };
            }
        };
        let held = ctx.leadership.hold(work).await;
        held.unwrap_or(Ok(()))
    }

    /// Reads the requests and approves those that are in order.
    async fn turn(
        &mut self,
        connection: &Tenant,
        tenant: &TenantControlPlane,
    ) -> Result<Turn, ProbeFailure> {
        let Some(limits) = limits(self.ctx, self.name, tenant) else {
            return Err(failure(
                Kind::Unasked,
                "the certificate of the API server is not there",
            ));
        };
        let mut pending = Pending::default();
        let mut refusals = Refusals::new(&self.told);
        let see = |request: Request| {
            if !request.is_pending() || !request.is_of_a_server() {
                return;
            }
            match judge::claim(&request, &limits) {
                Ok(claim) => pending.add(Asked::of(request), claim),
                Err(Objection::Refused(why) | Objection::NotYet(why)) => {
                    refusals.add(&Asked::of(request), &why);
                }
            }
        };
        let listed = pages(
            connection,
            (REQUESTS, SELECTOR),
            REQUESTS_AT_ONCE,
            std::mem::take(&mut self.resume),
            see,
        );
        let listed = listed.await?;
        self.resume = listed.rest;
        let Pending {
            all, claims, more, ..
        } = pending;
        let mut comparisons = claims;
        if !all.is_empty() {
            let see = |node: Node| comparisons.see(&node);
            let nodes = pages(connection, (NODES, ""), NODES_AT_ONCE, String::new(), see).await?;
            if !nodes.rest.is_empty() {
                let message = format!("more than {NODES_AT_ONCE} nodes");
                return Err(failure(Kind::Read, message));
            }
        }
        let mut waits = more || !self.resume.is_empty();
        for (request, judged) in all.iter().zip(comparisons.end()) {
            let why = match judged {
                Ok(()) => match self.approve(connection, request).await {
                    Ok(()) => continue,
                    Err(failure) if is_about_one(failure.kind) => failure.message,
                    Err(failure) => return Err(failure),
                },
                Err(Objection::NotYet(why)) => why,
                Err(Objection::Refused(why)) => {
                    refusals.add(request, &why);
                    continue;
                }
            };
            let tenant = self.name.to_string();
            let request = &request.name;
            tracing::debug!(tenant, request, "not approved yet: {}", quote(&why));
            waits = true;
        }
        let Refusals { there, events, .. } = refusals;
        self.told = there;
        self.tell(tenant, events).await;
        Ok(Turn {
            version: listed.version,
            waits,
        })
    }

    /// Tells of what is not approved, as often as the management cluster can bear.
    async fn tell(&mut self, tenant: &TenantControlPlane, events: Vec<String>) {
        for message in self.budget.afford(events) {
            let name = self.name.to_string();
            tracing::warn!(tenant = name, "not approved: {message}");
            let events = &self.ctx.events;
            events.tell(tenant, true, NOT_APPROVED, &message).await;
        }
    }

    async fn approve(&self, connection: &Tenant, request: &Asked) -> Result<(), ProbeFailure> {
        let patch = json!({
            "metadata": {"uid": request.uid, "resourceVersion": request.version},
            "status": {"conditions": [{
                "type": "Approved",
                "status": "True",
                "reason": APPROVED,
                "message": "It is a node's request for its own name and addresses.",
            }]},
        });
        let path = format!("{REQUESTS}/{}/approval", request.name);
        let content = "application/merge-patch+json";
        let answer = connection.call(Method::PATCH, &path, content, Some(&patch));
        let answer = answer.await?;
        if matches!(answer.status.as_u16(), 404 | 409) {
            // Somebody else was faster.
            return Ok(());
        }
        expect(&answer, Kind::Write)?;
        let tenant = self.name.to_string();
        let node = &request.user;
        let request = &request.name;
        tracing::info!(
            tenant,
            request,
            "approved the serving certificate of {node}"
        );
        Ok(())
    }
}

/// Whether a refusal to approve may be about this one request, which must not hold up the
/// others: it is too large with its approval, or the tenant's admission is against it.
fn is_about_one(refusal: Kind) -> bool {
    matches!(refusal, Kind::Write | Kind::Storage | Kind::Forbidden)
}

/// A request, as far as it is remembered.
struct Asked {
    name: String,
    uid: String,
    version: String,
    user: String,
}

impl Asked {
    fn of(request: Request) -> Self {
        Asked {
            name: request.metadata.name,
            uid: request.metadata.uid,
            version: request.metadata.resource_version,
            user: request.spec.username,
        }
    }
}

/// Requests that are in order by themselves, and what each claims.
#[derive(Default)]
struct Pending {
    all: Vec<Asked>,
    claims: Comparisons,
    of_node: HashMap<String, usize>,
    names: usize,
    /// There are more, for a later turn.
    more: bool,
}

impl Pending {
    /// Takes in a request, if there is room: one node that asks again and again does not
    /// keep the others waiting.
    fn add(&mut self, request: Asked, claim: Claim) {
        let of_node = self.of_node.entry(claim.node.clone()).or_default();
        let names = self.names + claim.names();
        if *of_node >= OF_ONE_NODE || self.all.len() >= OF_ALL_NODES || names > NAMES {
            self.more = true;
            return;
        }
        *of_node += 1;
        self.names = names;
        self.all.push(request);
        self.claims.add(claim);
    }
}

/// Events, each with a line of the log, that may still be written, and since when.
struct Budget {
    left: usize,
    refilled: Instant,
}

impl Budget {
    fn new() -> Self {
        Budget {
            left: EVENTS,
            refilled: Instant::now(),
        }
    }

    /// As many of these as may be written now.
    fn afford(&mut self, mut events: Vec<String>) -> Vec<String> {
        if self.refilled.elapsed() >= timing::APPROVAL_EVENTS {
            *self = Self::new();
        }
        events.truncate(self.left);
        self.left -= events.len();
        events
    }
}

/// A name as the tenant's API says it, on one line and no longer than a name of Kubernetes.
fn shown(name: &str) -> String {
    let mut whole = String::new();
    for letter in name.chars() {
        match letter {
            '"' | '\'' | '\\' => whole.push(letter),
            _ => whole.extend(letter.escape_debug()),
        }
    }
    match whole.len() <= SHOWN {
        true => whole,
        false => format!("{}…", &whole[..whole.floor_char_boundary(SHOWN)]),
    }
}

/// Bytes of a name in an Event: of a node's user, these are all. With what is quoted beside two
/// of them, an Event has room for it.
const SHOWN: usize = 12 + 253;

/// Requests that are not approved.
struct Refusals<'a> {
    /// Those of before, by uid.
    told: &'a BTreeSet<String>,
    there: BTreeSet<String>,
    /// About a few of those that are new.
    events: Vec<String>,
}

/// Events in [`timing::APPROVAL_EVENTS`], and of one turn.
const EVENTS: usize = 10;
const EVENTS_OF_A_TURN: usize = 3;
/// Requests that are remembered as told of.
const TOLD: usize = 1_000;

impl<'a> Refusals<'a> {
    fn new(told: &'a BTreeSet<String>) -> Self {
        Refusals {
            told,
            there: BTreeSet::new(),
            events: Vec::new(),
        }
    }

    fn add(&mut self, request: &Asked, why: &str) {
        if self.there.len() >= TOLD {
            return;
        }
        if !self.told.contains(&request.uid) && self.events.len() < EVENTS_OF_A_TURN {
            self.events.push(format!(
                "CertificateSigningRequest {} of {} is not approved: {}. Approve or deny it with \
                 kubectl certificate.",
                shown(&request.name),
                shown(&request.user),
                shown(&quote(why))
            ));
        }
        self.there.insert(request.uid.clone());
    }
}

/// What a tenant's nodes may not have, and where they may be. `None`: it is not known
/// which names the API server has.
fn limits(ctx: &Context, name: &NamespacedName, tenant: &TenantControlPlane) -> Option<Limits> {
    let secret = NamespacedName::new(&name.namespace, names::api_server(&name.name));
    let secret = ctx.caches.secrets.get(&secret)?;
    let held = secret.data.as_ref()?.get(names::key::API_SERVER_CRT)?;
    let held = pki::inspect(std::str::from_utf8(&held.0).ok()?).ok()?;
    let mut limits = Limits {
        reserved_names: held.dns_names,
        reserved_addresses: held.ip_addresses,
        ..Limits::default()
    };
    let endpoint = tenant.status.as_ref()?.control_plane_endpoint.as_deref();
    let endpoint = endpoint.and_then(|endpoint| endpoint.parse::<Endpoint>().ok());
    if let Some(Endpoint { host, .. }) = endpoint {
        match host.parse() {
            Ok(address) => limits.reserved_addresses.push(address),
            Err(_) => limits.reserved_names.push(host),
        }
    }
    let ranges = tenant.spec.network_profile.service_ranges();
    limits.service_ranges = ranges.iter().filter_map(|it| it.parse().ok()).collect();
    let allowed = tenant.spec.approved_subnets()?;
    // All of them: one that is left out would let in any address.
    limits.allowed = allowed
        .iter()
        .map(|range| range.parse().ok())
        .collect::<Option<_>>()?;
    Some(limits)
}

/// A list that was read.
#[derive(Debug)]
struct Listed {
    version: String,
    /// Where to go on; empty at the end of the list.
    rest: String,
}

/// Reads a list page by page, up to so many objects. The list goes on at `next` if that is
/// not empty.
async fn pages<T: DeserializeOwned>(
    connection: &Tenant,
    (path, selector): (&str, &str),
    most: usize,
    mut next: String,
    mut see: impl FnMut(T),
) -> Result<Listed, ProbeFailure> {
    let (mut limit, mut seen) = (PAGE, 0);
    loop {
        let from = match next.is_empty() {
            true => String::new(),
            false => format!("&continue={next}"),
        };
        let query = format!("{path}?limit={limit}&{selector}{from}");
        let page: Page<T> = match connection.read(&query, BYTES).await? {
            Read::There(page) => page,
            Read::TooLarge if limit > 1 => {
                limit = 1;
                continue;
            }
            Read::TooLarge => {
                let message = format!("an object of more than {BYTES} bytes in {path}");
                return Err(failure(Kind::Read, message));
            }
        };
        if page
            .metadata
            .resource_version
            .len()
            .max(page.metadata.r#continue.len())
            > TOKEN
        {
            return Err(failure(Kind::Read, format!("{path} has no version")));
        }
        seen += page.items.len();
        page.items.into_iter().for_each(&mut see);
        next = page.metadata.r#continue;
        if next.is_empty() || seen > most {
            return Ok(Listed {
                version: page.metadata.resource_version,
                rest: next,
            });
        }
        limit = PAGE;
    }
}

/// Waits until somebody has asked for a certificate, or for so long; whether somebody has.
async fn news(connection: &Tenant, version: &str, until: Instant) -> Result<bool, ProbeFailure> {
    let seconds = timing::APPROVAL_SESSION.as_secs();
    let path = format!(
        "{REQUESTS}?watch=true&{SELECTOR}&resourceVersion={version}&timeoutSeconds={seconds}"
    );
    let wait = async {
        let mut events = connection.watch(&path).await?;
        while let Some(event) = events.next().await? {
            let conditions = event["object"]["status"]["conditions"].as_array();
            let decided = conditions.is_some_and(|all| !all.is_empty());
            // What was decided is no news, nor what is gone; an error is.
            if !decided && event["type"] != "DELETED" {
                return Ok(true);
            }
        }
        Ok(false)
    };
    let waited = tokio::time::timeout_at(until, wait).await;
    waited.unwrap_or(Ok(false))
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use super::*;
    use crate::inside::connection::tests::{Answers, tenant};

    fn asked(node: &str, number: usize) -> (Asked, Claim) {
        let mut request = Request::default();
        request.metadata.uid = format!("{node}-{number}");
        request.spec.username = node.to_owned();
        (Asked::of(request), Claim::of(node))
    }

    #[test]
    fn a_request_is_bounded_and_one_node_leaves_room_to_others() {
        let mut pending = Pending::default();
        for number in 0..1_000 {
            let (request, claim) = asked("busy", number);
            pending.add(request, claim);
        }
        assert_eq!(pending.all.len(), OF_ONE_NODE);
        assert!(pending.more);
        for number in 0..OF_ALL_NODES {
            let (request, claim) = asked(&number.to_string(), 0);
            pending.add(request, claim);
        }
        assert_eq!(pending.all.len(), OF_ALL_NODES);
        let mut pending = Pending::default();
        for number in 0..OF_ALL_NODES {
            let claim = Claim::with_names(&number.to_string(), 64);
            pending.add(asked(&number.to_string(), 0).0, claim);
        }
        assert!(pending.more);
        assert_eq!(pending.all.len(), NAMES / 64);
        let told = BTreeSet::from(["busy-0".to_owned()]);
        let mut refusals = Refusals::new(&told);
        for number in 0..100 {
            refusals.add(&asked("busy", number).0, &"x".repeat(100_000));
        }
        assert_eq!(refusals.events.len(), EVENTS_OF_A_TURN);
        assert!(refusals.events.iter().all(|it| it.len() < 1024));
        assert_eq!(refusals.there.len(), 100);
    }

    /// What a tenant's API says is no second line of the log, and leaves room to what is to be
    /// done about it.
    #[test]
    fn what_a_tenant_says_of_a_request_is_short_and_on_one_line() {
        let told = BTreeSet::new();
        let mut refusals = Refusals::new(&told);
        let mut request = asked("n", 0).0;
        request.name = "a\nb\u{1b}".repeat(250);
        request.user = "\u{202e}ä\n".repeat(200);
        refusals.add(&request, &"\u{1b}ä".repeat(10_000));
        let event = &refusals.events[0];
        assert!(!event.contains(char::is_control), "{event}");
        assert!(event.len() < 1024, "{}", event.len());
        assert!(event.ends_with("Approve or deny it with kubectl certificate."));
        assert_eq!(shown("system:node:a-1.example"), "system:node:a-1.example");
        assert_eq!(shown("the \"a\\n\""), "the \"a\\n\"");
    }

    /// The lines of the log were not counted.
    #[tokio::test(start_paused = true)]
    async fn what_is_told_has_a_budget() {
        let mut budget = Budget::new();
        let mut told = 0;
        let few = || vec![String::new(); EVENTS_OF_A_TURN];
        for _ in 0..100 {
            told += budget.afford(few()).len();
        }
        assert_eq!(told, EVENTS);
        tokio::time::advance(timing::APPROVAL_EVENTS).await;
        assert_eq!(budget.afford(few()).len(), EVENTS_OF_A_TURN);
    }

    /// What is remembered of requests and pages, thousands of them, is as short as with any
    /// API server.
    #[tokio::test]
    async fn names_and_versions_are_short() {
        let request = |change: fn(&mut Request)| {
            let mut request = Request::default();
            change(&mut request);
            request.is_of_a_server()
        };
        assert!(request(|it| it.metadata.name = "a".repeat(253)));
        assert!(!request(|it| it.metadata.name = "a".repeat(5_000)));
        assert!(!request(|it| it.metadata.uid = "a".repeat(5_000)));
        assert!(!request(
            |it| it.metadata.resource_version = "a".repeat(5_000)
        ));
        assert!(!request(|it| it.spec.username = "a".repeat(5_000)));
        let answers: Answers = |_, path| {
            static PAGES: LazyLock<[String; 2]> = LazyLock::new(|| {
                ["resourceVersion", "continue"].map(|field| {
                    json!({"metadata": {field: "x".repeat(TOKEN + 1)}, "items": []}).to_string()
                })
            });
            match path.starts_with("/version") {
                true => (200, &PAGES[0]),
                false => (200, &PAGES[1]),
            }
        };
        let tenant = tenant(answers).await;
        for path in ["/version", "/continue"] {
            let read = pages(&tenant, (path, "s"), 1, String::new(), |_: Request| {});
            assert_eq!(read.await.unwrap_err().kind, Kind::Read, "{path}");
        }
    }

    #[test]
    fn a_refused_approval_holds_up_no_other() {
        let refused = |code: u16, message: &str| {
            let answer = crate::inside::connection::Answer {
                status: http::StatusCode::from_u16(code).unwrap(),
                body: json!({"message": message}),
            };
            is_about_one(expect(&answer, Kind::Write).unwrap_err().kind)
        };
        assert!(refused(500, "etcdserver: request is too large"));
        assert!(refused(403, "denied by a policy"));
        assert!(refused(422, "is invalid"));
        assert!(!refused(401, "Unauthorized"));
    }

    #[tokio::test]
    async fn large_objects_are_read_one_at_a_time() {
        const FIRST: &str = r#"{"metadata":{"resourceVersion":"7","continue":"n"},
            "items":[{"metadata":{"name":"a"}}]}"#;
        const LAST: &str = r#"{"metadata":{"resourceVersion":"7"},
            "items":[{"metadata":{"name":"b"}}]}"#;
        let answers: Answers = |_, path| {
            static LONG: LazyLock<String> = LazyLock::new(|| "x".repeat(BYTES + 1));
            match path {
                "/l?limit=50&s" => (200, LONG.as_str()),
                "/l?limit=1&s" => (200, FIRST),
                "/l?limit=50&s&continue=n" => (200, LAST),
                "/none?limit=50&s" => (403, r#"{"message":"no"}"#),
                _ => (200, LONG.as_str()),
            }
        };
        let tenant = tenant(answers).await;
        let mut seen = Vec::new();
        let read = async |path, most, seen: &mut Vec<String>| {
            let see = |request: Request| seen.push(request.metadata.name);
            pages(&tenant, (path, "s"), most, String::new(), see).await
        };
        let found = read("/l", 10, &mut seen).await.unwrap();
        assert_eq!((found.version.as_str(), found.rest.as_str()), ("7", ""));
        assert_eq!(seen, ["a", "b"]);
        let cut = read("/l", 0, &mut Vec::new()).await.unwrap();
        assert_eq!(cut.rest, "n");
        let refused = read("/none", 10, &mut Vec::new()).await.err().unwrap();
        assert_eq!(
            (refused.kind, refused.message.as_str()),
            (Kind::Forbidden, "no")
        );
        assert_eq!(
            read("/long", 10, &mut Vec::new()).await.unwrap_err().kind,
            Kind::Read
        );
    }
}
