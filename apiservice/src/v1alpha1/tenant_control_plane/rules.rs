//! What the schema of a TenantControlPlane cannot say, in two parts: rules that
//! CEL can say and that are published, and checks that it cannot.

use serde_json::Value;

use crate::field::Errors;
use crate::rule::{Holds, Rule, at};

use super::checks;

const SPEC: &[&str] = &["spec"];

fn is_load_balancer(spec: &Value) -> bool {
    at(spec, &["controlPlane", "service", "serviceType"]).is_some_and(|kind| kind == "LoadBalancer")
}

fn class(spec: &Value) -> Option<&Value> {
    at(spec, &["networkProfile", "loadBalancerClass"])
}

fn is_empty_or(value: &Value, parses: fn(&str) -> bool) -> bool {
    value
        .as_str()
        .is_some_and(|text| text.is_empty() || parses(text))
}

fn is_ip(text: &str) -> bool {
    text.parse::<std::net::IpAddr>().is_ok()
}

fn is_cidr(text: &str) -> bool {
    text.parse::<ipnet::IpNet>().is_ok()
}

fn all_cidrs(value: &Value) -> bool {
    let list = value.as_array().map(Vec::as_slice).unwrap_or_default();
    list.iter().all(|one| one.as_str().is_some_and(is_cidr))
}

fn is_kept(old: &Value, new: &Value, field: &str) -> bool {
    at(old, &[field]).is_none() || at(new, &[field]).is_some()
}

/// The published rules.
pub(super) const RULES: &[Rule] = &[
    Rule {
        path: SPEC,
        blame: &[],
        cel: "!has(oldSelf.dataStore) || has(self.dataStore)",
        message: "dataStore cannot be removed once it is set; name the DataStore to use",
        holds: Holds::Since(|old, new| is_kept(old, new, "dataStore")),
    },
    Rule {
        path: SPEC,
        blame: &[],
        cel: "!has(oldSelf.dataStoreSchema) || has(self.dataStoreSchema)",
        message: "dataStoreSchema cannot be removed once it is set",
        holds: Holds::Since(|old, new| is_kept(old, new, "dataStoreSchema")),
    },
    Rule {
        path: SPEC,
        blame: &[],
        cel: "!has(oldSelf.dataStoreUsername) || has(self.dataStoreUsername)",
        message: "dataStoreUsername cannot be removed once it is set",
        holds: Holds::Since(|old, new| is_kept(old, new, "dataStoreUsername")),
    },
    Rule {
        path: &["spec", "dataStoreSchema"],
        blame: &[],
        cel: "self == oldSelf",
        message: "dataStoreSchema cannot be changed: the data would stay under the old name",
        holds: Holds::Since(|old, new| old == new),
    },
    Rule {
        path: &["spec", "dataStoreUsername"],
        blame: &[],
        cel: "self == oldSelf",
        message: "dataStoreUsername cannot be changed",
        holds: Holds::Since(|old, new| old == new),
    },
    Rule {
        path: SPEC,
        blame: &[],
        cel: "!has(self.networkProfile) || !has(self.networkProfile.loadBalancerSourceRanges) || size(self.networkProfile.loadBalancerSourceRanges) == 0 || self.controlPlane.service.serviceType == 'LoadBalancer'",
        message: "networkProfile.loadBalancerSourceRanges needs controlPlane.service.serviceType LoadBalancer",
        holds: Holds::Now(|spec| {
            let ranges = at(spec, &["networkProfile", "loadBalancerSourceRanges"]);
            let empty = ranges.and_then(Value::as_array).is_none_or(Vec::is_empty);
            empty || is_load_balancer(spec)
        }),
    },
    Rule {
        path: SPEC,
        blame: &[],
        cel: "!has(self.networkProfile) || !has(self.networkProfile.loadBalancerClass) || self.controlPlane.service.serviceType == 'LoadBalancer'",
        message: "networkProfile.loadBalancerClass needs controlPlane.service.serviceType LoadBalancer",
        holds: Holds::Now(|spec| class(spec).is_none() || is_load_balancer(spec)),
    },
    Rule {
        path: SPEC,
        blame: &[],
        cel: "self.controlPlane.service.serviceType != 'LoadBalancer' || oldSelf.controlPlane.service.serviceType != 'LoadBalancer' || (has(self.networkProfile) && has(self.networkProfile.loadBalancerClass)) == (has(oldSelf.networkProfile) && has(oldSelf.networkProfile.loadBalancerClass))",
        message: "networkProfile.loadBalancerClass can be set or removed only while controlPlane.service.serviceType changes to or from LoadBalancer",
        holds: Holds::Since(|old, new| {
            !is_load_balancer(new)
                || !is_load_balancer(old)
                || class(new).is_some() == class(old).is_some()
        }),
    },
    Rule {
        path: &["spec", "networkProfile", "loadBalancerClass"],
        blame: &[],
        cel: "self == oldSelf",
        message: "loadBalancerClass cannot be changed: a Service keeps its class for life",
        holds: Holds::Since(|old, new| old == new),
    },
    Rule {
        path: &["spec", "networkProfile", "clusterDomain"],
        blame: &[],
        cel: "self == oldSelf",
        message: "clusterDomain cannot be changed: nodes, certificates and tokens carry it",
        holds: Holds::Since(|old, new| old == new),
    },
    Rule {
        path: &["spec", "networkProfile", "address"],
        blame: &[],
        cel: "self == '' || isIP(self)",
        message: "address must be an IP address, or empty for the one of the Service",
        holds: Holds::Now(|address| is_empty_or(address, is_ip)),
    },
    Rule {
        path: &["spec", "networkProfile", "advertiseAddress"],
        blame: &[],
        cel: "self == '' || isIP(self)",
        message: "advertiseAddress must be an IP address, or empty",
        holds: Holds::Now(|address| is_empty_or(address, is_ip)),
    },
    Rule {
        path: &["spec", "networkProfile", "serviceCidr"],
        blame: &[],
        cel: "self == '' || isCIDR(self)",
        message: "serviceCidr must be a network such as 10.96.0.0/16, or empty",
        holds: Holds::Now(|range| is_empty_or(range, is_cidr)),
    },
    Rule {
        path: &["spec", "networkProfile", "podCidr"],
        blame: &[],
        cel: "self == '' || isCIDR(self)",
        message: "podCidr must be a network such as 10.244.0.0/16, or empty",
        holds: Holds::Now(|range| is_empty_or(range, is_cidr)),
    },
    Rule {
        path: &["spec", "networkProfile", "serviceCidrs"],
        blame: &[],
        cel: "self.all(range, isCIDR(range))",
        message: "each of serviceCidrs must be a network such as 10.96.0.0/16",
        holds: Holds::Now(all_cidrs),
    },
    Rule {
        path: &["spec", "networkProfile", "podCidrs"],
        blame: &[],
        cel: "self.all(range, isCIDR(range))",
        message: "each of podCidrs must be a network such as 10.244.0.0/16",
        holds: Holds::Now(all_cidrs),
    },
    Rule {
        path: &["spec", "networkProfile", "loadBalancerSourceRanges"],
        blame: &[],
        cel: "self.all(range, isCIDR(range))",
        message: "each of loadBalancerSourceRanges must be a network such as 192.0.2.0/24",
        holds: Holds::Now(all_cidrs),
    },
    Rule {
        path: &["spec", "controlPlane"],
        blame: &[],
        cel: "!(has(self.ingress) && has(self.gateway))",
        message: "ingress and gateway cannot be used together; remove one of them",
        holds: Holds::Now(|plane| {
            at(plane, &["ingress"]).is_none() || at(plane, &["gateway"]).is_none()
        }),
    },
    Rule {
        path: &["spec", "controlPlane", "gateway"],
        blame: &[],
        cel: "!has(self.parentRefs) || self.parentRefs.all(parent, !has(parent.port) && !has(parent.sectionName))",
        message: "parentRefs must not have port or sectionName; both are chosen by the controller",
        holds: Holds::Now(|gateway| {
            let parents = at(gateway, &["parentRefs"]).and_then(Value::as_array);
            parents.into_iter().flatten().all(|parent| {
                at(parent, &["port"]).is_none() && at(parent, &["sectionName"]).is_none()
            })
        }),
    },
    Rule {
        path: &["spec", "controlPlane", "service"],
        blame: &[],
        cel: "!has(self.allocateLoadBalancerNodePorts) || self.serviceType == 'LoadBalancer'",
        message: "allocateLoadBalancerNodePorts needs serviceType LoadBalancer",
        holds: Holds::Now(|service| {
            at(service, &["allocateLoadBalancerNodePorts"]).is_none()
                || service["serviceType"] == "LoadBalancer"
        }),
    },
    Rule {
        path: &["spec", "addons", "konnectivity", "agent"],
        blame: &[],
        cel: "!has(self.replicas) || (self.mode == 'DaemonSet' ? self.replicas == 0 : self.replicas > 0)",
        message: "replicas must be left out or 0 with mode DaemonSet, and left out or above 0 with mode Deployment",
        holds: Holds::Now(
            |agent| match at(agent, &["replicas"]).and_then(Value::as_i64) {
                None => true,
                Some(replicas) if agent["mode"] == "DaemonSet" => replicas == 0,
                Some(replicas) => replicas > 0,
            },
        ),
    },
];

/// A string of names with commas in `admissionControllers` becomes a list
/// (rule 6).
pub(super) fn normalize(object: &mut Value) {
    let Some(plugins) = object.pointer_mut("/spec/kubernetes/admissionControllers") else {
        return;
    };
    if let Value::String(text) = plugins {
        let names = text
            .split(',')
            .map(str::trim)
            .filter(|name| !name.is_empty());
        *plugins = names.map(Value::from).collect();
    }
}

/// The checks that are not published.
pub(super) fn check(new: &Value, old: Option<&Value>) -> Errors {
    checks::check(new, old)
}

/// The checks that are made whatever else is wrong.
pub(super) fn check_parts(new: &Value, old: Option<&Value>) -> Errors {
    checks::check_parts(new, old)
}
