//! Whether a node's request for a serving certificate may be approved. Pure.
//!
//! The signer of such certificates is the tenant's own authority, which clients trust for
//! the API server as well. So a request is approved only if the node asks for itself: its
//! name, and addresses that its Node object has, no other Node has, and the control plane
//! does not have. What a Node says of its addresses it says itself; the networks that the
//! tenant allows are the bound to that.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use apiservice::forms::subdomain_complaints;
use apiservice::pki::{self, RequestInfo};
use ipnet::IpNet;
use serde::Deserialize;

/// The signer of serving certificates of kubelets.
pub const SIGNER: &str = "kubernetes.io/kubelet-serving";
/// Nodes that have a certificate.
const NODES: &str = "system:nodes";
/// Before a node's name in the name of its user.
const NODE_USER: &str = "system:node:";
/// What a serving certificate of a kubelet may be for.
const USAGES: [&str; 3] = ["digital signature", "key encipherment", "server auth"];
/// Names in one request, and characters of it. A kubelet asks for a handful of names, with
/// a few hundred characters.
const NAMES: usize = 64;
const LENGTH: usize = 8 * 1024;
/// Bytes of its name, its uid, and the name of who asks.
const NAME: usize = 1024;

/// A CertificateSigningRequest, as far as it is read.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Request {
    pub metadata: Metadata,
    pub spec: RequestSpec,
    pub status: RequestStatus,
}

/// Of any object.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Metadata {
    pub name: String,
    pub uid: String,
    pub resource_version: String,
}

/// What is asked for, and by whom.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RequestSpec {
    /// PEM in base64.
    pub request: String,
    pub signer_name: String,
    pub username: String,
    pub groups: Vec<String>,
    pub usages: Vec<String>,
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct RequestStatus {
    pub conditions: Vec<RequestCondition>,
}

/// Approved, Denied or Failed.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct RequestCondition {
    #[serde(rename = "type")]
    pub kind: String,
}

impl Request {
    /// Whether what is remembered of it is as short as API servers have it.
    pub fn is_of_a_server(&self) -> bool {
        let Metadata {
            name,
            uid,
            resource_version,
        } = &self.metadata;
        let all = [name, uid, resource_version, &self.spec.username];
        all.iter().all(|it| it.len() <= NAME)
    }

    /// Nobody has approved or denied it.
    pub fn is_pending(&self) -> bool {
        self.spec.signer_name == SIGNER && self.status.conditions.is_empty()
    }
}

/// A Node, as far as it is read.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Node {
    pub metadata: Metadata,
    pub status: NodeStatus,
}

/// What a Node says of itself.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct NodeStatus {
    pub addresses: Vec<NodeAddress>,
}

/// One address or name of a Node.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct NodeAddress {
    pub address: String,
}

/// What nobody but the control plane may have, and where nodes may be.
#[derive(Clone, Debug, Default)]
pub struct Limits {
    /// Names in the API server's certificate and in what is published of it.
    pub reserved_names: Vec<String>,
    /// The same of its addresses.
    pub reserved_addresses: Vec<IpAddr>,
    /// Ranges of Services: no node is there.
    pub service_ranges: Vec<IpNet>,
    /// Networks of nodes; empty: any.
    pub allowed: Vec<IpNet>,
}

/// A request that is in order by itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Claim {
    /// The node that asks.
    pub node: String,
    /// What it asks for.
    info: RequestInfo,
}

impl Claim {
    /// How many names and addresses it asks for.
    pub fn names(&self) -> usize {
        self.info.dns_names.len() + self.info.ip_addresses.len()
    }
}

/// Why a request is not approved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Objection {
    /// It may be in order in a moment: the Node does not say yet which addresses it has.
    NotYet(String),
    /// It is not.
    Refused(String),
}

#[cfg(test)]
impl Claim {
    /// Of a node, for so many names.
    pub fn with_names(node: &str, names: usize) -> Self {
        let mut claim = Self::of(node);
        let names = (0..names).map(|number| format!("{number}.{node}"));
        claim.info.dns_names = names.collect();
        claim
    }

    /// Of a node, for nothing.
    pub fn of(node: &str) -> Self {
        let subject = pki::Subject {
            common_name: String::new(),
            organizations: Vec::new(),
        };
        let info = RequestInfo {
            subject,
            dns_names: Vec::new(),
            ip_addresses: Vec::new(),
            asks_for_more: false,
        };
        Claim {
            node: node.to_owned(),
            info,
        }
    }
}

fn refused<T>(why: impl Into<String>) -> Result<T, Objection> {
    Err(Objection::Refused(why.into()))
}

/// Who asks and for what, if a request is in order by itself.
///
/// # Errors
/// Says what is not in order.
pub fn claim(request: &Request, limits: &Limits) -> Result<Claim, Objection> {
    let spec = &request.spec;
    // Else it could not be written in a path, or be another one there.
    if !subdomain_complaints(&request.metadata.name).is_empty() {
        return refused("its name is not one that a kubelet gives");
    }
    let node = match spec.username.strip_prefix(NODE_USER) {
        Some(node) if spec.groups.iter().any(|it| it == NODES) => node,
        _ => return refused(format!("{:?} is not a node", spec.username)),
    };
    // It is written in logs, and no Node has another one.
    if !subdomain_complaints(node).is_empty() {
        return refused("the name of who asks is not one of a node");
    }
    if let Some(other) = spec.usages.iter().find(|it| !USAGES.contains(&it.as_str())) {
        return refused(format!("the usage {other:?} is not for serving"));
    }
    if !spec.usages.iter().any(|usage| usage == "server auth") {
        return refused("the usage \"server auth\" is missing");
    }
    if spec.request.len() > LENGTH {
        return refused(format!("it is longer than {LENGTH} characters"));
    }
    let info = match read(&spec.request) {
        Ok(info) => info,
        Err(why) => return refused(why),
    };
    let subject = &info.subject;
    if subject.common_name != spec.username || subject.organizations != [NODES] {
        return refused(format!(
            "its subject is not CN={:?} and O={NODES}",
            spec.username
        ));
    }
    if info.asks_for_more {
        return refused("it asks for more than host names and addresses");
    }
    let names = info.dns_names.len() + info.ip_addresses.len();
    if names == 0 || names > NAMES {
        return refused(format!(
            "it asks for {names} names and addresses: from 1 to {NAMES} are approved"
        ));
    }
    for name in &info.dns_names {
        // Clients compare without regard to case, so nothing but lower case is let in.
        if !subdomain_complaints(name).is_empty() {
            return refused(format!("the name {name:?} is no host name in lower case"));
        }
        let of_node = name == node
            || name
                .strip_prefix(node)
                .is_some_and(|it| it.starts_with('.'));
        if !of_node {
            return refused(format!("the name {name:?} is not the node's"));
        }
        if limits.reserved_names.iter().any(|it| covers(it, name)) {
            return refused(format!("the name {name:?} is the control plane's"));
        }
    }
    for address in &info.ip_addresses {
        if let Some(why) = objection(address.to_canonical(), limits) {
            return refused(format!("the address {address} {why}"));
        }
    }
    let node = node.to_owned();
    Ok(Claim { node, info })
}

/// Whether a name of a certificate is good for a host in lower case.
fn covers(name: &str, host: &str) -> bool {
    let name = plain(name);
    match name.strip_prefix("*.") {
        Some(domain) => host.split_once('.').is_some_and(|(_, rest)| rest == domain),
        None => name == host,
    }
}

/// As names are compared.
fn plain(name: &str) -> String {
    name.trim_end_matches('.').to_ascii_lowercase()
}

/// What is to be said against an address whoever asks for it.
fn objection(address: IpAddr, limits: &Limits) -> Option<&'static str> {
    if limits.reserved_addresses.contains(&address) {
        return Some("is the control plane's");
    }
    if address.is_loopback() || address.is_unspecified() || address.is_multicast() {
        return Some("is no node's");
    }
    let within = |ranges: &[IpNet]| ranges.iter().any(|range| range.contains(&address));
    if within(&limits.service_ranges) {
        return Some("is a Service's");
    }
    let allowed = limits.allowed.is_empty() || within(&limits.allowed);
    (!allowed).then_some("is outside allowedSubnets")
}

fn read(request: &str) -> Result<RequestInfo, String> {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let bytes = STANDARD
        .decode(request)
        .map_err(|error| error.to_string())?;
    let pem = String::from_utf8(bytes).map_err(|error| error.to_string())?;
    pki::request(&pem).map_err(|error| error.to_string())
}

/// Addresses of a Node that gets a certificate. A real one has a few; one with more keeps what
/// it has from others, and gets none.
const ADDRESSES: usize = 64;

/// Compares claims with what Nodes say of themselves, which come page by page. Each Node
/// is read once, whatever the number of claims.
#[derive(Debug, Default)]
pub struct Comparisons {
    claims: Vec<Compared>,
    /// The claims of a node, to an address, and to a name. What another Node has is taken
    /// out: its claims are decided.
    of_node: HashMap<String, Vec<usize>>,
    to_address: HashMap<IpAddr, Vec<usize>>,
    to_name: HashMap<String, Vec<usize>>,
}

#[derive(Debug)]
struct Compared {
    claim: Claim,
    /// What the node's own object has of the addresses.
    found: Option<Vec<IpAddr>>,
    /// Another node that has something of it.
    other: Option<String>,
}

impl Comparisons {
    /// Takes in a claim; its place in [`Comparisons::end`] is that of its coming.
    pub fn add(&mut self, claim: Claim) {
        let number = self.claims.len();
        let of_node = self.of_node.entry(claim.node.clone()).or_default();
        of_node.push(number);
        for address in &claim.info.ip_addresses {
            let to_address = self.to_address.entry(address.to_canonical()).or_default();
            to_address.push(number);
        }
        for name in &claim.info.dns_names {
            self.to_name.entry(name.clone()).or_default().push(number);
        }
        self.claims.push(Compared {
            claim,
            found: None,
            other: None,
        });
    }

    /// Takes in one Node.
    pub fn see(&mut self, node: &Node) {
        let name = &node.metadata.name;
        let said = &node.status.addresses;
        // Kept with each claim that it decides; no claim is of so long a name.
        let name = &name[..name.floor_char_boundary(NAME)];
        let parsed = || {
            let parsed = said.iter().filter_map(|it| it.address.parse().ok());
            parsed.map(|it: IpAddr| it.to_canonical())
        };
        if said.len() <= ADDRESSES {
            let addresses: HashSet<IpAddr> = parsed().collect();
            for number in self.of_node.get(name).into_iter().flatten() {
                let compared = &mut self.claims[*number];
                let asked = compared.claim.info.ip_addresses.iter();
                let asked = asked.map(IpAddr::to_canonical);
                compared.found = Some(asked.filter(|it| addresses.contains(it)).collect());
            }
        }
        for address in parsed() {
            take(&mut self.claims, self.to_address.get_mut(&address), name);
        }
        let names = said.iter().map(|it| plain(&it.address));
        for its in names.chain([plain(name)]) {
            take(&mut self.claims, self.to_name.get_mut(&its), name);
        }
    }

    /// What is to be said against each claim when all Nodes were seen.
    pub fn end(self) -> impl Iterator<Item = Result<(), Objection>> {
        self.claims.into_iter().map(Compared::end)
    }
}

/// Decides the claims of others than this node.
fn take(claims: &mut [Compared], to_it: Option<&mut Vec<usize>>, node: &str) {
    let Some(to_it) = to_it else {
        return;
    };
    to_it.retain(|number| {
        let compared = &mut claims[*number];
        let own = compared.claim.node == node;
        if !own {
            compared.other.get_or_insert_with(|| node.to_owned());
        }
        own
    });
}

impl Compared {
    fn end(self) -> Result<(), Objection> {
        let node = &self.claim.node;
        if let Some(other) = self.other {
            return refused(format!(
                "the Node {other:?} has one of its names or addresses"
            ));
        }
        let not_yet = |why: String| Err(Objection::NotYet(why));
        let Some(found) = self.found else {
            return not_yet(format!(
                "there is no Node {node:?} with at most {ADDRESSES} addresses"
            ));
        };
        let asked = &self.claim.info.ip_addresses;
        let missing = asked.iter().find(|it| !found.contains(&it.to_canonical()));
        match missing {
            Some(missing) => not_yet(format!("the Node {node:?} does not have {missing}")),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use base64::{Engine, engine::general_purpose::STANDARD};
    use rcgen::{CertificateParams, CustomExtension, DnType, KeyPair, SanType};

    use super::*;

    const NODE: &str = "worker-1";

    fn params(user: &str, names: &[&str], addresses: &[&str]) -> CertificateParams {
        let names: Vec<String> = names.iter().map(|it| (*it).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, user);
        params
            .distinguished_name
            .push(DnType::OrganizationName, NODES);
        let addresses = addresses
            .iter()
            .map(|it| SanType::IpAddress(it.parse().unwrap()));
        params.subject_alt_names.extend(addresses);
        params
    }

    fn asked(params: CertificateParams) -> Request {
        let key = KeyPair::generate().unwrap();
        let pem = params.serialize_request(&key).unwrap().pem().unwrap();
        Request {
            metadata: Metadata {
                name: "csr-x7f2p".to_owned(),
                ..Metadata::default()
            },
            spec: RequestSpec {
                request: STANDARD.encode(pem),
                signer_name: SIGNER.to_owned(),
                username: format!("{NODE_USER}{NODE}"),
                groups: vec![NODES.to_owned(), "system:authenticated".to_owned()],
                usages: vec!["digital signature".to_owned(), "server auth".to_owned()],
            },
            ..Request::default()
        }
    }

    fn request(names: &[&str], addresses: &[&str]) -> Request {
        asked(params(&format!("{NODE_USER}{NODE}"), names, addresses))
    }

    fn node(name: &str, addresses: &[&str]) -> Node {
        let mut node = Node::default();
        node.metadata.name = name.to_owned();
        let addresses = addresses.iter().map(|it| NodeAddress {
            address: (*it).to_owned(),
        });
        node.status.addresses = addresses.collect();
        node
    }

    fn limits() -> Limits {
        Limits {
            reserved_names: [
                "worker-1.api.example",
                "kubernetes",
                "*.any.example",
                "Worker-1.LOUD.example.",
            ]
            .map(str::to_owned)
            .to_vec(),
            reserved_addresses: vec!["10.0.0.1".parse().unwrap()],
            service_ranges: vec!["10.96.0.0/16".parse().unwrap()],
            allowed: Vec::new(),
        }
    }

    fn judged(request: &Request, limits: &Limits, nodes: &[Node]) -> Result<(), Objection> {
        let mut comparisons = Comparisons::default();
        comparisons.add(claim(request, limits)?);
        nodes.iter().for_each(|node| comparisons.see(node));
        comparisons.end().next().unwrap()
    }

    fn nodes() -> [Node; 3] {
        [
            node("worker-0", &["10.1.0.10", "worker-0"]),
            node(NODE, &["10.1.0.11", "fd00::11", NODE, "10.200.0.1"]),
            node(
                "worker-2",
                &["10.1.0.12", "10.1.0.13", "worker-2", "worker-1.two"],
            ),
        ]
    }

    fn refusal(request: &Request) -> String {
        match judged(request, &limits(), &nodes()) {
            Err(Objection::Refused(why)) => why,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_node_gets_a_certificate_for_itself() {
        for request in [
            request(&[NODE], &["10.1.0.11", "fd00::11"]),
            request(&[], &["10.1.0.11"]),
            request(&[NODE, "worker-1.example"], &[]),
            request(&[NODE], &["::ffff:10.1.0.11"]),
        ] {
            assert!(request.is_pending());
            assert_eq!(judged(&request, &limits(), &nodes()), Ok(()));
        }
    }

    /// Each may impersonate somebody, of whom the first is the worst.
    #[test]
    fn an_impostor_gets_none() {
        assert!(refusal(&request(&[NODE], &["10.0.0.1"])).contains("control plane's"));
        assert!(refusal(&request(&["kubernetes"], &[])).contains("not the node's"));
        let named_like_it = request(&["worker-1.api.example"], &[]);
        assert!(refusal(&named_like_it).contains("control plane's"));
        assert!(refusal(&request(&["worker-2"], &[])).contains("not the node's"));
        assert!(refusal(&request(&["worker-10"], &[])).contains("not the node's"));
        assert!(refusal(&request(&["*.worker-1"], &[])).contains("no host name"));
        let shouted = request(&["worker-1.API.example"], &[]);
        assert!(refusal(&shouted).contains("no host name"));
        assert!(refusal(&request(&["worker-1.api.example."], &[])).contains("no host name"));
        assert!(refusal(&request(&["worker-1.any.example"], &[])).contains("control plane's"));
        assert!(refusal(&request(&["worker-1.Loud.example"], &[])).contains("no host name"));
        assert!(refusal(&request(&["worker-1.loud.example"], &[])).contains("control plane's"));
        assert!(refusal(&request(&[NODE], &["10.1.0.12"])).contains("\"worker-2\" has"));
        assert!(refusal(&request(&["worker-1.two"], &[])).contains("\"worker-2\" has"));
        assert!(refusal(&request(&[NODE], &["10.96.0.1"])).contains("a Service's"));
        assert!(refusal(&request(&[NODE], &["127.0.0.1"])).contains("no node's"));
        assert!(refusal(&request(&[], &[])).contains("0 names"));
        let others = params("system:node:worker-2", &["worker-2"], &[]);
        assert!(refusal(&asked(others)).contains("its subject"));
        let mut admin = params(&format!("{NODE_USER}{NODE}"), &[NODE], &[]);
        admin.distinguished_name.remove(DnType::OrganizationName);
        admin
            .distinguished_name
            .push(DnType::OrganizationName, "system:masters");
        assert!(refusal(&asked(admin)).contains("its subject"));
        let mut uri = params(&format!("{NODE_USER}{NODE}"), &[NODE], &[]);
        let name = "spiffe://cluster/ns/a/sa/b".try_into().unwrap();
        uri.subject_alt_names.push(SanType::URI(name));
        assert!(refusal(&asked(uri)).contains("more than"));
    }

    #[test]
    fn only_a_node_and_only_for_serving() {
        let good = || request(&[NODE], &["10.1.0.11"]);
        let mut pod = good();
        pod.spec.username = "system:serviceaccount:a:b".to_owned();
        assert!(refusal(&pod).contains("is not a node"));
        let mut in_name = good();
        in_name.spec.groups = vec!["system:authenticated".to_owned()];
        assert!(refusal(&in_name).contains("is not a node"));
        let mut client = good();
        client.spec.usages.push("client auth".to_owned());
        assert!(refusal(&client).contains("\"client auth\""));
        for name in [" a", "a?", "a#", "a/b", "../nodes/a", ""] {
            let mut odd = good();
            odd.metadata.name = name.to_owned();
            assert!(refusal(&odd).contains("its name"), "{name}");
        }
        let mut long = good();
        long.spec.request.push_str(&"A".repeat(LENGTH));
        assert!(refusal(&long).contains("longer than"));
        let mut none = good();
        none.spec.usages = vec!["digital signature".to_owned()];
        assert!(refusal(&none).contains("\"server auth\""));
        let mut broken = good();
        broken.spec.request = STANDARD.encode("-----BEGIN");
        assert!(refusal(&broken).contains("certificate request"));
        let mut other = good();
        other.spec.signer_name = "kubernetes.io/kube-apiserver-client-kubelet".to_owned();
        assert!(!other.is_pending());
        let mut denied = good();
        denied.status.conditions = vec![RequestCondition {
            kind: "Denied".to_owned(),
        }];
        assert!(!denied.is_pending());
    }

    /// The signer takes the names of whichever it finds, so all are judged.
    #[test]
    fn a_second_list_of_names_is_not_overlooked() {
        let mut twice = params(&format!("{NODE_USER}{NODE}"), &[NODE], &[]);
        // OCTET STRING content of subjectAltName: a sequence with one DNS name.
        let name = b"kubernetes";
        let mut content = vec![0x30, 12, 0x82, 10];
        content.extend(name);
        let more = CustomExtension::from_oid_content(&[2, 5, 29, 17], content);
        twice.custom_extensions.push(more);
        assert!(refusal(&asked(twice)).contains("\"kubernetes\""));
    }

    #[test]
    fn what_a_node_does_not_say_yet_is_waited_for() {
        let asked = request(&[NODE], &["10.1.0.11"]);
        let judged = |nodes: &[Node]| judged(&asked, &limits(), nodes);
        assert!(matches!(judged(&[]), Err(Objection::NotYet(_))));
        let unknown = [node(NODE, &[NODE])];
        assert!(matches!(judged(&unknown), Err(Objection::NotYet(_))));
        assert_eq!(judged(&[node(NODE, &["10.1.0.11"])]), Ok(()));
    }

    /// Of a node that had too many addresses, others could get a certificate.
    #[test]
    fn a_node_with_many_addresses_keeps_them_and_gets_no_certificate() {
        let many: Vec<String> = (0..=ADDRESSES).map(|it| format!("10.3.0.{it}")).collect();
        let mut many: Vec<&str> = many.iter().map(String::as_str).collect();
        many.push("worker-1.many");
        let own = node(NODE, &["10.1.0.11", "10.3.0.7"]);
        let of_many = |request: &Request| {
            let nodes = [node("many", &many), own.clone()];
            judged(request, &limits(), &nodes)
        };
        let taken =
            |judged| matches!(judged, Err(Objection::Refused(why)) if why.contains("\"many\" has"));
        assert!(taken(of_many(&request(&[NODE], &["10.3.0.7"]))));
        assert!(taken(of_many(&request(&["worker-1.many"], &["10.1.0.11"]))));
        assert_eq!(of_many(&request(&[NODE], &["10.1.0.11"])), Ok(()));
        let itself = judged(
            &request(&[NODE], &["10.3.0.7"]),
            &limits(),
            &[node(NODE, &many)],
        );
        assert!(matches!(itself, Err(Objection::NotYet(_))), "{itself:?}");
    }

    /// What stands there is the tenant's word, and is written in logs.
    #[test]
    fn a_node_is_named_like_one() {
        for name in ["", "a\nb", "A", "a b", "a/b", &"a".repeat(254)] {
            let user = format!("{NODE_USER}{name}");
            let mut odd = asked(params(&user, &[], &["10.1.0.11"]));
            odd.spec.username = user;
            assert!(refusal(&odd).contains("who asks"), "{name}");
        }
        let mut stranger = request(&[NODE], &[]);
        stranger.spec.username = "some\nbody".to_owned();
        assert!(!refusal(&stranger).contains('\n'));
    }

    #[test]
    fn networks_bound_what_a_node_says_of_itself() {
        let limits = Limits {
            allowed: vec!["10.1.0.0/16".parse().unwrap()],
            ..limits()
        };
        let of = |address: &str| judged(&request(&[NODE], &[address]), &limits, &nodes());
        assert_eq!(of("10.1.0.11"), Ok(()));
        assert!(matches!(of("10.200.0.1"), Err(Objection::Refused(_))));
    }

    /// Whoever writes Nodes may write as much as fits.
    #[test]
    fn many_claims_and_many_addresses_are_compared_in_time() {
        let addresses: Vec<String> = (0..60).map(|it| format!("10.1.1.{it}")).collect();
        let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
        let claim = claim(&request(&[NODE], &addresses), &limits()).unwrap();
        let mut comparisons = Comparisons::default();
        for number in 0..2_000 {
            let node = format!("n{}", number / 16);
            let claim = claim.clone();
            comparisons.add(Claim { node, ..claim });
        }
        let began = std::time::Instant::now();
        let large: Vec<String> = (0..30_000)
            .map(|it| format!("10.2.{}.{}", it / 250, it % 250))
            .collect();
        let large = node(
            "large",
            &large.iter().map(String::as_str).collect::<Vec<_>>(),
        );
        for number in 0..20_000 {
            comparisons.see(&node(&format!("n{number}"), &addresses));
            // As many as come in the time of a turn: each is a page.
            if number < 100 {
                comparisons.see(&large);
            }
        }
        assert!(
            comparisons
                .end()
                .all(|it| matches!(it, Err(Objection::Refused(_))))
        );
        let took = began.elapsed();
        assert!(took < std::time::Duration::from_secs(20), "{took:?}");
    }
}
