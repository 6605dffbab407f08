//! Tenants that are reached by their name, and changes of how a tenant is reached.

use std::sync::Arc;

use apiservice::v1alpha1::{
    Gateway as WantedGateway, Ingress as WantedIngress, IngressController, Konnectivity,
    ParentReference, ServiceType,
};
use k8s_openapi::api::core::v1::ServiceStatus;
use k8s_openapi::api::networking::v1::Ingress;
use serde_json::{Value, json};

use crate::cluster::kinds::ObjectKind;
use crate::cluster::routes::{Gateway, IngressRouteTcp, TlsRoute, TlsRouteV1Alpha2};
use crate::cluster::served::Optional;
use crate::report::for_nodes;
use crate::tenant::network::exposure::{self, Exposure};
use crate::tenant::plan::{Object, Outcome, Plan, Step};
use crate::tenant::testing::{Lab, brief, golden};
use crate::tenant::world::{PathFact, ProbeFailure, ProbeFailureKind as Kind};

fn ingress(hostname: &str, controller: IngressController) -> Option<WantedIngress> {
    Some(WantedIngress {
        ingress_class_name: Some("edge".to_owned()),
        hostname: Some(hostname.to_owned()),
        controller_type: Some(controller),
        ..WantedIngress::default()
    })
}

fn gateway(hostname: &str) -> Option<WantedGateway> {
    Some(WantedGateway {
        hostname: Some(hostname.to_owned()),
        parent_refs: vec![ParentReference {
            namespace: Some("edge".to_owned()),
            name: "public".to_owned(),
            ..ParentReference::default()
        }],
        ..WantedGateway::default()
    })
}

fn serve(lab: &mut Lab, kinds: [bool; 2]) {
    let all = [Optional::TlsRoute, Optional::TlsRouteV1Alpha2];
    for (kind, served) in all.into_iter().zip(kinds) {
        lab.world.optional.learn(kind, served);
    }
}

fn probe(lab: &mut Lab, address: &str, result: Result<(), Kind>) {
    lab.world.probe.endpoint = Some(PathFact {
        started: lab.world.now,
        address: address.to_owned(),
        result: result.map_err(|kind| ProbeFailure {
            kind,
            message: "no".to_owned(),
        }),
    });
}

fn of(lab: &Lab) -> Exposure {
    exposure::of(&lab.seen()).unwrap()
}

fn endpoint(lab: &Lab) -> String {
    let status = lab.world.tenant.status.as_ref().unwrap();
    status.control_plane_endpoint.clone().unwrap()
}

fn deleted(plan: &Plan) -> Vec<String> {
    let steps = plan.steps.iter();
    let keys = steps.filter_map(|step| match step {
        Step::DeleteFormer { key, .. } => Some(key.to_string()),
        _ => None,
    });
    keys.collect()
}

/// Pods come up and the probe gets through at the new place, which the status says then.
fn answers(lab: &mut Lab) {
    lab.run_pods();
    lab.later(5);
    let place = of(lab).published.to_string();
    probe(lab, &place, Ok(()));
    lab.pass();
    lab.later(11);
}

/// Ready at a load balancer.
fn balanced() -> Lab {
    let mut lab = Lab::ready();
    lab.spec().control_plane.service.service_type = ServiceType::LoadBalancer;
    lab.pass();
    let status = json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.7"}, {"ip": "2001:db8::7"}]}});
    lab.service_mut().status = serde_json::from_value::<ServiceStatus>(status).ok();
    lab.pass();
    answers(&mut lab);
    lab.pass();
    assert_eq!(endpoint(&lab), "192.0.2.7:6443");
    assert!(lab.plan().is_quiet(), "{}", brief(&lab.plan()));
    lab
}

/// Some load balancers report their addresses in another order each time, for all Services.
#[test]
fn an_address_stays_for_as_long_as_it_is_reported() {
    let mut lab = balanced();
    let report = |lab: &mut Lab, entries: Value| {
        let status = json!({"loadBalancer": {"ingress": entries}});
        lab.service_mut().status = serde_json::from_value(status).ok();
    };
    report(
        &mut lab,
        json!([{"ip": "2001:DB8::7"}, {"ip": "192.0.2.7"}]),
    );
    assert!(lab.plan().is_quiet(), "{}", brief(&lab.plan()));
    // What the status says may be lost; the pods announce it.
    let mut emptied = lab.clone();
    let status = emptied.tenant().status.as_mut().unwrap();
    status.control_plane_endpoint = None;
    assert_eq!(of(&emptied).published.to_string(), "192.0.2.7:6443");

    // A name that was told, beside an address.
    let mut named = lab.clone();
    let status = named.tenant().status.as_mut().unwrap();
    status.control_plane_endpoint = Some("lb.example.com:6443".to_owned());
    report(
        &mut named,
        json!([{"ip": "192.0.2.9"}, {"hostname": "lb.example.com"}]),
    );
    assert_eq!(of(&named).published.to_string(), "lb.example.com:6443");

    report(
        &mut lab,
        json!([{"ip": "192.0.2.9"}, {"ip": "2001:db8::7"}]),
    );
    let plan = lab.pass();
    assert!(plan.rolls, "the one in use is gone: {}", brief(&plan));
    assert_eq!(endpoint(&lab), "192.0.2.9:6443");

    // More than go into the certificate.
    let entry = |n: usize| json!({"ip": format!("192.0.2.{}", 100 + n)});
    let mut entries: Vec<Value> = (0..40).map(entry).collect();
    report(&mut lab, json!(entries));
    let names = of(&lab).names;
    entries[1..].reverse();
    report(&mut lab, json!(entries));
    assert_eq!(of(&lab).names, names);
}

/// `Ready` is about what serves: while a change rolls out and the pods of before serve, it
/// keeps the previous generation, also where the change is the place itself.
#[test]
fn a_place_that_is_not_there_yet_is_no_alarm() {
    for (kind, reason) in [
        (Kind::Untrusted, "ServingCertificateMismatch"),
        (Kind::Refused, "EndpointRouteLost"),
        (Kind::TimedOut, "EndpointRouteLost"),
    ] {
        let mut lab = balanced();
        let service = lab.world.probe.service.clone();
        lab.spec().control_plane.service.service_type = ServiceType::NodePort;
        lab.spec().network_profile.address = Some("198.51.100.7".to_owned());
        lab.tenant().metadata.generation = Some(99);
        lab.pass();
        lab.world.probe.service = service.map(|it| PathFact {
            result: Ok(()),
            ..it
        });
        lab.later(5);
        let place = of(&lab).published.to_string();
        probe(&mut lab, &place, Err(kind));
        let before = lab.world.tenant.status.clone();
        lab.pass();
        let after = lab.world.tenant.status.clone().unwrap();
        assert_eq!(
            lab.condition("Ready"),
            "True Ready",
            "{kind:?}: {}",
            lab.told()
        );
        assert_eq!(lab.condition("EndpointReachable"), "Unknown RollingOut");
        let events = crate::report::events(before.as_ref(), &after);
        assert!(events.iter().all(|event| !event.warning), "{events:?}");
        // A controller that has just begun has told nobody anything yet.
        let mut begun = lab.clone();
        begun.world.told = None;
        let status = crate::report::status(&begun.world, &Plan::default(), &[]);
        let ready = apiservice::condition::get(&status.conditions, "Ready").unwrap();
        assert_eq!(ready.status, "True", "{kind:?}: {}", ready.message);

        // Nor does it go on for ever, where pods do not come.
        let mut stuck = lab.clone();
        for _ in 0..3 {
            stuck.later(181);
            stuck.world.probe.service.as_mut().unwrap().started = stuck.world.now;
            probe(&mut stuck, &place, Err(kind));
            stuck.pass();
            assert_eq!(
                stuck.condition("Ready"),
                format!("False {reason}"),
                "{kind:?}"
            );
        }

        // All pods are made for it, and it does not answer for half a minute.
        lab.run_pods();
        lab.later(31);
        probe(&mut lab, &place, Err(kind));
        lab.pass();
        assert_eq!(
            lab.condition("Ready"),
            format!("False {reason}"),
            "{kind:?}"
        );
    }
}

fn service_type(lab: &Lab) -> String {
    let service = lab.world.service().unwrap();
    service.spec.as_ref().unwrap().type_.clone().unwrap()
}

/// As the API gives it: what names which port of the Service.
fn rules(lab: &Lab) -> Vec<(String, i64)> {
    let live = lab.world.owned.get::<Ingress>("tenant-1").unwrap();
    let value = serde_json::to_value(&**live).unwrap();
    let rules = value["spec"]["rules"].as_array().unwrap().iter();
    let of = |rule: &Value| {
        let port = &rule["http"]["paths"][0]["backend"]["service"]["port"]["number"];
        let host = rule["host"].as_str().unwrap().to_owned();
        (host, port.as_i64().unwrap())
    };
    rules.map(of).collect()
}

#[test]
fn an_ingress_leads_to_the_tenant_by_its_name() {
    let mut lab = Lab::ready();
    lab.spec().control_plane.ingress = ingress("t.example.com:8443", IngressController::Haproxy);
    lab.spec().addons.get_or_insert_default().konnectivity = Some(Konnectivity::default());
    let plan = lab.pass();
    assert!(plan.rolls && plan.roll.is_none(), "its spec asks for it");
    golden("ingress", &plan.to_string());
    assert!(lab.plan().is_quiet(), "{}", brief(&lab.plan()));
    answers(&mut lab);
    lab.pass();
    assert_eq!(endpoint(&lab), "t.example.com:8443");
    assert_eq!(lab.condition("Exposed"), "True AsExpected");
    let exposure = of(&lab);
    assert_eq!(exposure.clients, exposure.published);
    let agents = exposure.agents.unwrap().to_string();
    assert_eq!(agents, "t-konnectivity.example.com:8443");
    assert_eq!(exposure.advertise.to_string(), "10.0.0.10");
    for name in ["t.example.com", "t-konnectivity.example.com"] {
        assert!(exposure.needed.dns().iter().any(|it| it == name), "{name}");
    }
    let told = for_nodes(&lab.seen()).unwrap();
    assert_eq!(told.endpoint.to_string(), "t.example.com:8443");
    assert_eq!(told.agents.unwrap().to_string(), agents);
    assert_eq!(
        rules(&lab),
        [
            ("t.example.com".to_owned(), 6443),
            ("t-konnectivity.example.com".to_owned(), 8132)
        ]
    );
    let status = lab.world.tenant.status.clone().unwrap();
    let resources = status.kubernetes_resources.unwrap();
    assert_eq!(resources.ingress.unwrap().name, "tenant-1");
    // Another address for nodes does not lead past the proxy.
    lab.spec().network_profile.advertise_address = Some("203.0.113.7".to_owned());
    let exposure = of(&lab);
    assert_eq!(exposure.clients.to_string(), "t.example.com:8443");
    assert_eq!(exposure.advertise.to_string(), "203.0.113.7");
}

#[test]
fn annotations_of_the_user_win_over_those_of_a_controller() {
    let mut lab = Lab::ready();
    let mut wanted = ingress("t.example.com", IngressController::Nginx).unwrap();
    let key = "nginx.ingress.kubernetes.io/backend-protocol".to_owned();
    let given = wanted.additional_metadata.get_or_insert_default();
    given.annotations.insert(key.clone(), "GRPCS".to_owned());
    lab.spec().control_plane.ingress = Some(wanted);
    lab.pass();
    let live = lab.world.owned.get::<Ingress>("tenant-1").unwrap();
    let annotations = live.metadata.annotations.clone().unwrap();
    assert_eq!(annotations[&key], "GRPCS");
    let passes = &annotations["nginx.ingress.kubernetes.io/ssl-passthrough"];
    assert_eq!(passes, "true");
}

#[test]
fn traefik_has_a_kind_of_its_own() {
    let mut lab = Lab::ready();
    lab.spec().control_plane.ingress = ingress("t.example.com", IngressController::Traefik);
    lab.pass();
    assert_eq!(lab.condition("Exposed"), "Unknown RoutePending");
    lab.world.optional.learn(Optional::IngressRouteTcp, false);
    lab.pass();
    assert_eq!(lab.condition("Exposed"), "False KindNotServed");
    lab.world.optional.learn(Optional::IngressRouteTcp, true);
    lab.pass();
    lab.pass();
    assert_eq!(lab.condition("Exposed"), "Unknown RoutePending");
    probe(&mut lab, "t.example.com:443", Ok(()));
    lab.pass();
    assert_eq!(lab.condition("Exposed"), "True AsExpected");
    let live = lab.world.owned.get::<IngressRouteTcp>("tenant-1").unwrap();
    let value = serde_json::to_value(&live.spec).unwrap();
    let wanted = json!({
        "entryPoints": ["websecure"],
        "routes": [{
            "match": "HostSNI(`t.example.com`)",
            "services": [{"name": "tenant-1", "port": 6443}],
        }],
        "tls": {"passthrough": true},
    });
    assert_eq!(value, wanted);
    assert!(lab.world.owned.get::<Ingress>("tenant-1").is_none());
}

#[test]
fn routes_of_the_gateway_api_come_when_it_is_there_and_hold_nothing_up() {
    let mut lab = Lab::new();
    lab.spec().control_plane.gateway = gateway("t.example.com");
    lab.spec().addons.get_or_insert_default().konnectivity = Some(Konnectivity::default());
    for _ in 0..3 {
        lab.pass();
    }
    assert!(lab.world.deployment().is_some(), "nothing waits for it");
    assert_eq!(lab.condition("Exposed"), "Unknown RoutePending");
    serve(&mut lab, [false, false]);
    lab.run_pods();
    lab.later(90);
    probe(&mut lab, "t.example.com:6443", Err(Kind::Unresolvable));
    lab.world.probe.service = lab.world.probe.endpoint.clone().map(|fact| PathFact {
        address: "10.0.0.10:6443".to_owned(),
        result: Ok(()),
        ..fact
    });
    lab.pass();
    assert_eq!(lab.condition("Exposed"), "False KindNotServed");
    // It works inside, but nobody is led to the endpoint that the status names.
    assert_eq!(
        lab.condition("Ready"),
        "False KindNotServed",
        "{}",
        lab.told()
    );

    serve(&mut lab, [true, false]);
    let plan = lab.pass();
    golden("gateway", &plan.to_string());
    assert!(lab.plan().is_quiet(), "{}", brief(&lab.plan()));
    let outcomes = vec![Outcome::NotReached; 0];
    lab.report(&Plan::default(), &outcomes);
    assert_eq!(lab.condition("Exposed"), "False RoutePending");
    assert!(
        lab.told().contains("Gateway edge/public is not there"),
        "{}",
        lab.told()
    );
    let exposure = of(&lab);
    assert_eq!(exposure.agents.unwrap().to_string(), "t.example.com:8132");
    assert_eq!(exposure.published.to_string(), "t.example.com:6443");
}

#[test]
fn the_older_version_is_written_where_there_is_no_other() {
    let mut lab = Lab::ready();
    lab.spec().control_plane.gateway = gateway("t.example.com");
    serve(&mut lab, [false, true]);
    lab.pass();
    let live = lab.world.owned.get::<TlsRouteV1Alpha2>("tenant-1").unwrap();
    assert_eq!(live.spec.hostnames, ["t.example.com"]);
    assert!(lab.world.owned.get::<TlsRoute>("tenant-1").is_none());
    assert!(lab.plan().is_quiet(), "{}", brief(&lab.plan()));
}

fn public(port: i32, name: &str) -> Arc<Gateway> {
    let value = json!({
        "metadata": {"namespace": "edge", "name": "public"},
        "spec": {"listeners": [{"name": name, "port": port, "protocol": "TLS"}]},
        "status": {"conditions": [{
            "type": "Programmed", "status": "True", "reason": "Programmed", "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }]},
    });
    Arc::new(serde_json::from_value(value).unwrap())
}

#[test]
fn the_port_is_the_one_that_the_gateway_listens_on() {
    let mut lab = Lab::ready();
    lab.spec().control_plane.gateway = gateway("t.example.com");
    serve(&mut lab, [true, false]);
    lab.world.gateways = vec![public(443, "kube-apiserver")];
    lab.pass();
    let parents = |lab: &Lab| {
        let live = lab.world.owned.get::<TlsRoute>("tenant-1").unwrap();
        let parents = live.spec.parent_refs.iter();
        let of = |it: &crate::cluster::routes::RouteParent| {
            (it.section_name.clone().unwrap(), it.port.unwrap())
        };
        parents.map(of).collect::<Vec<_>>()
    };
    assert_eq!(parents(&lab), [("kube-apiserver".to_owned(), 443)]);
    assert_eq!(endpoint(&lab), "t.example.com:443");
    let said = |status: &str, reason: &str| {
        json!({"parents": [
            {
                "parentRef": {"namespace": "edge", "name": "public", "sectionName": "kube-apiserver"},
                "controllerName": "c", "conditions": [{
                    "type": "Accepted", "status": status, "reason": reason, "message": "m",
                    "lastTransitionTime": "2026-01-01T00:00:00Z",
                }],
            },
            // Of a parent that is not asked any more.
            {"parentRef": {"name": "other"}, "controllerName": "c", "conditions": [{
                "type": "Accepted", "status": "False", "reason": "r", "message": "",
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            }]},
        ]})
    };
    let of_other = |field: &str, value: Value| {
        let mut said = said("True", "Accepted");
        said["parents"][0]["parentRef"][field] = value;
        said
    };
    let mut of_before = said("True", "Accepted");
    of_before["parents"][0]["conditions"][0]["observedGeneration"] = json!(1);
    for (said, wanted) in [
        (of_other("namespace", json!("other")), "False RoutePending"),
        (of_other("kind", json!("Service")), "False RoutePending"),
        (of_other("group", json!("")), "False RoutePending"),
        (of_before, "False RoutePending"),
        (
            said("False", "NotAllowedByListeners"),
            "False RouteNotAccepted",
        ),
        (said("True", "Accepted"), "True AsExpected"),
    ] {
        let live: &mut TlsRoute = lab.world.owned.get_mut("tenant-1").unwrap();
        live.metadata.generation = Some(2);
        live.status = serde_json::from_value(said).unwrap();
        lab.pass();
        assert_eq!(lab.condition("Exposed"), wanted, "{}", lab.told());
    }
    let told = lab
        .world
        .tenant
        .status
        .clone()
        .unwrap()
        .kubernetes_resources
        .unwrap();
    let told = told.gateway.unwrap();
    assert_eq!(told.parents.len(), 1);
    assert_eq!(told.access_points[0].urls, ["https://t.example.com:443"]);
    assert_eq!(told.route_ref.unwrap().name, "tenant-1");

    lab.world.gateways = vec![public(443, "https")];
    lab.world
        .owned
        .get_mut::<TlsRoute>("tenant-1")
        .unwrap()
        .status = None;
    lab.pass();
    assert_eq!(endpoint(&lab), "t.example.com:443");
    assert!(
        lab.told().contains("no listener kube-apiserver") && lab.told().contains("port 443"),
        "{}",
        lab.told()
    );
    assert_eq!(parents(&lab), [("kube-apiserver".to_owned(), 443)]);
}

/// A policy of others must not keep certificates from being renewed.
#[test]
fn a_former_way_that_may_not_be_deleted_holds_nothing_up() {
    let mut lab = Lab::ready();
    lab.spec().control_plane.ingress = ingress("t.example.com", IngressController::Haproxy);
    lab.pass();
    answers(&mut lab);
    lab.pass();
    lab.spec().control_plane.ingress = None;
    lab.pass();
    answers(&mut lab);
    let plan = lab.plan();
    let is_former = |step: &Step| matches!(step, Step::DeleteFormer { .. });
    let former = plan.steps.iter().position(is_former).unwrap();
    let stage = plan.steps[former].stage();
    assert!(plan.steps.iter().all(|step| step.stage() <= stage));
    let deployment = lab.world.deployment().unwrap().clone();
    assert!(Step::Apply(Box::new(Object::Deployment(deployment))).stage() < stage);
    let refuses = |step: &Step| match step {
        Step::DeleteFormer { .. } => Outcome::Failed {
            reason: "Forbidden".to_owned(),
            message: "denied by policy".to_owned(),
            retry: true,
            finding: None,
        },
        _ => Outcome::Done,
    };
    let outcomes: Vec<_> = plan.steps.iter().map(refuses).collect();
    lab.report(&plan, &outcomes);
    assert_eq!(lab.condition("Exposed"), "Unknown RouteRefused");
    assert!(lab.told().contains("denied by policy"), "{}", lab.told());
    lab.pass();
    lab.pass();
    assert!(!lab.told().contains("Exposed"), "{}", lab.told());
}

#[test]
fn gateways_that_cannot_be_read_are_told() {
    let mut lab = Lab::ready();
    lab.spec().control_plane.gateway = gateway("t.example.com");
    serve(&mut lab, [true, false]);
    lab.world.gateways = vec![public(443, "kube-apiserver")];
    lab.pass();
    lab.world.gateways.clear();
    lab.world.gateways_known = false;
    lab.pass();
    assert_eq!(lab.condition("Exposed"), "Unknown RoutePending");
    assert!(lab.told().contains("port 443"), "{}", lab.told());
    assert_eq!(endpoint(&lab), "t.example.com:443");
}

/// Objects of before the rules that names are held to.
#[test]
fn a_stored_name_that_is_none_leads_nowhere() {
    for name in [
        "x`) || HostSNI(`*",
        "UPPER.example.com",
        "10.0.0.1",
        "a b",
        "[fd00::1]:443",
    ] {
        let mut lab = Lab::ready();
        lab.world.optional.learn(Optional::IngressRouteTcp, true);
        lab.spec().control_plane.ingress = ingress(name, IngressController::Traefik);
        lab.pass();
        assert!(lab.world.owned.get::<IngressRouteTcp>("tenant-1").is_none());
        assert_eq!(lab.condition("Exposed"), "False RouteIncomplete", "{name}");
        assert_eq!(endpoint(&lab), "10.0.0.10:6443");
        let plane = &mut lab.spec().control_plane;
        (plane.ingress, plane.gateway) = (None, gateway(name));
        serve(&mut lab, [true, false]);
        lab.pass();
        assert!(
            lab.world.owned.get::<TlsRoute>("tenant-1").is_none(),
            "{name}"
        );
    }
}

/// Gateways are made anew, and their kinds too: clients are not sent elsewhere meanwhile.
#[test]
fn a_gateway_that_is_away_moves_nobody() {
    let mut lab = Lab::ready();
    lab.spec().control_plane.gateway = gateway("t.example.com");
    lab.spec().addons.get_or_insert_default().konnectivity = Some(Konnectivity::default());
    serve(&mut lab, [true, false]);
    let both = |ports: [i32; 2]| {
        let mut gateway = (*public(ports[0], "kube-apiserver")).clone();
        let tunnel = &public(ports[1], "konnectivity-server").spec.listeners;
        gateway.spec.listeners.extend(tunnel.iter().cloned());
        Arc::new(gateway)
    };
    lab.world.gateways = vec![both([443, 8443])];
    lab.pass();
    answers(&mut lab);
    lab.pass();
    let places = |lab: &Lab| (of(lab).published.port, of(lab).agents.unwrap().port);
    assert_eq!(places(&lab), (443, 8443));
    assert!(lab.plan().is_quiet(), "{}", brief(&lab.plan()));

    lab.world.gateways.clear();
    assert!(lab.plan().is_quiet(), "{}", brief(&lab.plan()));
    assert_eq!(places(&lab), (443, 8443));
    // The kind goes, and its objects with it.
    lab.lose_all(ObjectKind::TlsRoute);
    serve(&mut lab, [false, false]);
    for _ in 0..2 {
        assert!(lab.pass().is_quiet());
        assert_eq!(places(&lab), (443, 8443));
    }
    serve(&mut lab, [true, false]);
    lab.pass();
    let live = lab.world.owned.get::<TlsRoute>("tenant-1").unwrap();
    assert_eq!(live.spec.parent_refs[0].port, Some(443));
    // And it listens elsewhere now.
    lab.world.gateways = vec![both([444, 8444])];
    lab.pass();
    assert_eq!(places(&lab), (444, 8444));
}

/// Where no Gateway was ever seen, its listeners have to have the Service's port.
#[test]
fn a_port_that_nobody_has_seen_is_the_one_of_the_service() {
    let mut lab = Lab::ready();
    lab.spec().control_plane.gateway = gateway("t.example.com");
    serve(&mut lab, [true, false]);
    lab.pass();
    answers(&mut lab);
    lab.pass();
    assert_eq!(endpoint(&lab), "t.example.com:6443");
    lab.spec().network_profile.port = 7443;
    lab.pass();
    assert_eq!(endpoint(&lab), "t.example.com:7443");
    lab.lose_all(ObjectKind::TlsRoute);
    lab.spec().network_profile.port = 8443;
    lab.pass();
    assert_eq!(endpoint(&lab), "t.example.com:8443");
}

/// A name with a typing error, or one that DNS does not have yet, cuts off no node.
#[test]
fn nodes_are_sent_to_a_new_place_when_it_answers() {
    let mut lab = balanced();
    let told = |lab: &Lab| {
        let told = lab.world.told.clone().unwrap();
        (told.endpoint.to_string(), told.agents.map(|it| it.host))
    };
    lab.spec().addons.get_or_insert_default().konnectivity = Some(Konnectivity::default());
    lab.pass();
    let before = ("192.0.2.7:6443".to_owned(), Some("192.0.2.7".to_owned()));
    assert_eq!(told(&lab), before);
    answers(&mut lab);
    lab.pass();
    let plane = &mut lab.spec().control_plane;
    plane.service.service_type = ServiceType::ClusterIP;
    plane.ingress = ingress("t.example.com", IngressController::Haproxy);
    for _ in 0..2 {
        lab.pass();
        assert_eq!(told(&lab), before);
        lab.run_pods();
        lab.later(60);
        probe(&mut lab, "t.example.com:443", Err(Kind::Unresolvable));
    }
    // Also while no pod serves, which opens the way to close what is not wanted.
    let mut down = lab.clone();
    down.world.pods.clear();
    down.pass();
    assert_eq!(told(&down), before);
    // A process that has told nothing yet does not know where nodes are.
    let mut fresh = lab.clone();
    fresh.world.told = None;
    fresh.pass();
    assert_eq!(fresh.world.told, None);
    answers(&mut lab);
    lab.pass();
    let after = ("t.example.com:443", "t-konnectivity.example.com");
    assert_eq!(told(&lab), (after.0.to_owned(), Some(after.1.to_owned())));
}

#[test]
fn a_load_balancer_stays_until_the_name_answers() {
    let mut lab = balanced();
    let plane = &mut lab.spec().control_plane;
    plane.service.service_type = ServiceType::ClusterIP;
    plane.ingress = ingress("t.example.com", IngressController::Haproxy);
    lab.pass();
    assert_eq!(endpoint(&lab), "t.example.com:443");
    let names = of(&lab).names;
    let has = |address: &str| names.ip().contains(&address.parse().unwrap());
    assert!(has("192.0.2.7") && has("2001:db8::7"), "{names:?}");
    assert_eq!(service_type(&lab), "LoadBalancer");
    // While the pods are replaced, and while the name leads nowhere yet.
    lab.run_pods();
    lab.later(5);
    for _ in 0..2 {
        lab.pass();
        assert_eq!(service_type(&lab), "LoadBalancer");
        probe(&mut lab, "t.example.com:443", Err(Kind::Refused));
    }
    answers(&mut lab);
    lab.pass();
    assert_eq!(service_type(&lab), "ClusterIP");
    lab.service_mut().status = None;
    lab.pass();
    assert!(!of(&lab).names.ip().contains(&"192.0.2.7".parse().unwrap()));
}

#[test]
fn an_ingress_stays_until_the_load_balancer_answers() {
    let mut lab = Lab::ready();
    lab.spec().control_plane.ingress = ingress("t.example.com", IngressController::Haproxy);
    lab.pass();
    answers(&mut lab);
    lab.pass();
    let plane = &mut lab.spec().control_plane;
    plane.ingress = None;
    plane.service.service_type = ServiceType::LoadBalancer;
    assert_eq!(deleted(&lab.pass()), [""; 0], "there is no address yet");
    let status = json!({"loadBalancer": {"ingress": [{"hostname": "lb.example.com"}]}});
    lab.service_mut().status = serde_json::from_value::<ServiceStatus>(status).ok();
    assert_eq!(deleted(&lab.pass()), [""; 0]);
    assert_eq!(endpoint(&lab), "lb.example.com:6443");
    assert!(of(&lab).names.dns().contains(&"t.example.com".to_owned()));
    answers(&mut lab);
    assert_eq!(deleted(&lab.pass()), ["Ingress tenants/tenant-1"]);
    assert!(!lab.told().contains("Exposed"), "{}", lab.told());
    lab.pass();
    assert!(!of(&lab).names.dns().contains(&"t.example.com".to_owned()));
}

#[test]
fn a_name_of_before_leads_to_the_tenant_until_the_new_one_answers() {
    let mut lab = Lab::ready();
    lab.spec().control_plane.ingress = ingress("old.example.com", IngressController::Haproxy);
    lab.pass();
    answers(&mut lab);
    lab.pass();
    lab.spec().control_plane.ingress = ingress("new.example.com", IngressController::Haproxy);
    lab.pass();
    let hosts = |lab: &Lab| rules(lab).into_iter().map(|it| it.0).collect::<Vec<_>>();
    assert_eq!(hosts(&lab), ["new.example.com", "old.example.com"]);
    assert!(of(&lab).names.dns().contains(&"old.example.com".to_owned()));
    assert!(lab.plan().is_quiet(), "{}", brief(&lab.plan()));
    answers(&mut lab);
    lab.pass();
    assert_eq!(hosts(&lab), ["new.example.com"]);
    assert!(!of(&lab).names.dns().contains(&"old.example.com".to_owned()));

    // From an Ingress to a Gateway, and from one name of that to another.
    serve(&mut lab, [true, false]);
    let plane = &mut lab.spec().control_plane;
    (plane.ingress, plane.gateway) = (None, gateway("g.example.com"));
    assert_eq!(deleted(&lab.pass()), [""; 0]);
    answers(&mut lab);
    assert_eq!(deleted(&lab.pass()), ["Ingress tenants/tenant-1"]);
    lab.spec().control_plane.gateway = gateway("h.example.com");
    lab.pass();
    let names = |lab: &Lab| {
        let live = lab.world.owned.get::<TlsRoute>("tenant-1").unwrap();
        live.spec.hostnames.clone()
    };
    assert_eq!(names(&lab), ["h.example.com", "g.example.com"]);
    answers(&mut lab);
    lab.pass();
    assert_eq!(names(&lab), ["h.example.com"]);
}

/// Where the controller stands, nothing may lead to the new place.
#[test]
fn what_cannot_be_probed_is_not_waited_for_without_end() {
    let mut lab = balanced();
    let plane = &mut lab.spec().control_plane;
    plane.service.service_type = ServiceType::ClusterIP;
    plane.ingress = ingress("t.example.com", IngressController::Haproxy);
    lab.pass();
    lab.run_pods();
    probe(&mut lab, "t.example.com:443", Err(Kind::Unresolvable));
    lab.world.probe.inside_since = Some(lab.world.now);
    let plan = lab.pass();
    assert!(plan.revisit.is_some());
    assert_eq!(service_type(&lab), "LoadBalancer");
    lab.later(301);
    lab.pass();
    assert_eq!(service_type(&lab), "ClusterIP");
}

/// A tenant that does not work keeps nothing open for anybody.
#[test]
fn ways_of_a_tenant_that_nobody_can_use_are_closed_at_once() {
    let mut lab = balanced();
    lab.world.pods.clear();
    lab.spec().control_plane.service.service_type = ServiceType::ClusterIP;
    lab.pass();
    assert_eq!(service_type(&lab), "ClusterIP");
}

#[test]
fn names_of_routes_that_are_not_wanted_are_nobodys_concern() {
    let mut lab = Lab::ready();
    lab.spec().control_plane.ingress = ingress("t.example.com", IngressController::Haproxy);
    lab.pass();
    let live: &mut Ingress = lab.world.owned.get_mut("tenant-1").unwrap();
    live.metadata.owner_references = None;
    lab.pass();
    assert_eq!(lab.condition("ObjectsOwned"), "False NameTaken");
    lab.spec().control_plane.ingress = None;
    let plan = lab.pass();
    assert_eq!(lab.condition("ObjectsOwned"), "True AsExpected");
    assert_eq!(deleted(&plan), [""; 0], "it is somebody else's");
}

#[test]
fn a_write_that_is_refused_is_told() {
    let mut lab = Lab::ready();
    lab.spec().control_plane.ingress = ingress("t.example.com", IngressController::Haproxy);
    let plan = lab.plan();
    let refuses = |step: &Step| match step {
        Step::Create(object) if object.kind() == ObjectKind::Ingress => Outcome::Failed {
            reason: "Forbidden".to_owned(),
            message: "admission webhook denied the request: host is taken".to_owned(),
            retry: true,
            finding: None,
        },
        _ => Outcome::Done,
    };
    let outcomes: Vec<_> = plan.steps.iter().map(refuses).collect();
    lab.report(&plan, &outcomes);
    assert_eq!(lab.condition("Exposed"), "False Forbidden");
    assert!(lab.told().contains("host is taken"), "{}", lab.told());
}

/// Everything that leads to a tenant goes with it.
#[test]
fn a_deletion_takes_them_away() {
    let mut lab = Lab::ready();
    lab.spec().control_plane.gateway = gateway("t.example.com");
    serve(&mut lab, [true, false]);
    lab.pass();
    let now = lab.world.now;
    lab.tenant().metadata.deletion_timestamp =
        Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(now));
    lab.pass();
    assert!(lab.world.owned.get::<TlsRoute>("tenant-1").is_none());
}

/// A proxy that refuses was reached: nobody is led further by it.
#[test]
fn a_proxy_that_does_not_know_the_name_is_no_ready_endpoint() {
    let mut lab = Lab::ready();
    lab.spec().control_plane.ingress = ingress("t.example.com", IngressController::Haproxy);
    lab.pass();
    lab.run_pods();
    lab.later(5);
    for (kind, wanted) in [
        (Kind::Refused, "False EndpointUnreachable"),
        (Kind::Untrusted, "False ServingCertificateMismatch"),
        // Where the name does not resolve, one cannot tell.
        (
            Kind::Unresolvable,
            "True EndpointNotReachableFromController",
        ),
    ] {
        let mut lab = lab.clone();
        probe(&mut lab, "t.example.com:443", Err(kind));
        lab.pass();
        assert_eq!(lab.condition("Ready"), wanted, "{}", lab.told());
    }
}

/// While pods listen on one port and others on another, both numbers lead to each.
#[test]
fn a_port_of_before_leads_to_all_pods_until_the_new_one_does() {
    let ports = |lab: &Lab| {
        let ports = lab.world.service().unwrap().spec.clone().unwrap().ports;
        let of = |it: k8s_openapi::api::core::v1::ServicePort| {
            let target = serde_json::to_value(it.target_port).unwrap();
            (it.port, it.node_port, target)
        };
        ports.unwrap().into_iter().map(of).collect::<Vec<_>>()
    };
    let mut lab = Lab::ready();
    let spec = lab.spec();
    spec.control_plane.service.service_type = ServiceType::NodePort;
    spec.network_profile.port = 30002;
    lab.pass();
    answers(&mut lab);
    lab.pass();
    assert_eq!(ports(&lab), [(30002, Some(30002), json!(30002))]);
    assert!(lab.plan().is_quiet(), "{}", brief(&lab.plan()));

    lab.spec().network_profile.port = 30003;
    lab.pass();
    let both = [
        (30003, Some(30003), json!("kube-apiserver")),
        (30002, Some(30002), json!("kube-apiserver")),
    ];
    assert_eq!(ports(&lab), both);
    // Pods of before answer at the new number.
    let place = of(&lab).published.to_string();
    assert_eq!(place, "10.0.0.10:30003");
    probe(&mut lab, &place, Ok(()));
    let status = lab.deployment_mut().status.as_mut().unwrap();
    (status.replicas, status.updated_replicas) = (Some(2), Some(1));
    lab.pass();
    assert_eq!(ports(&lab), both, "some listen elsewhere");
    // And once more while it goes on: from the number that serves.
    answers(&mut lab);
    lab.pass();
    assert_eq!(ports(&lab), [(30003, Some(30003), json!(30003))]);
    assert!(lab.plan().is_quiet(), "{}", brief(&lab.plan()));
}

#[test]
fn what_is_missing_of_a_route_is_told() {
    let mut lab = Lab::ready();
    lab.spec().control_plane.ingress = Some(WantedIngress::default());
    lab.pass();
    assert_eq!(lab.condition("Exposed"), "False RouteIncomplete");
    assert_eq!(endpoint(&lab), "10.0.0.10:6443", "as without it");
    assert_eq!(lab.condition("Ready"), "True Ready");
    let plane = &mut lab.spec().control_plane;
    let mut nowhere = gateway("t.example.com").unwrap();
    nowhere.parent_refs.clear();
    (plane.ingress, plane.gateway) = (None, Some(nowhere));
    serve(&mut lab, [true, false]);
    lab.pass();
    assert_eq!(lab.condition("Exposed"), "False RouteIncomplete");
}

/// A number that is no node port is never asked for as one.
#[test]
fn node_ports_of_before_stay_what_they_were() {
    let mut lab = Lab::ready();
    let spec = lab.spec();
    spec.control_plane.service.service_type = ServiceType::NodePort;
    spec.network_profile.port = 30002;
    lab.pass();
    answers(&mut lab);
    lab.pass();
    let spec = lab.spec();
    spec.control_plane.service.service_type = ServiceType::ClusterIP;
    spec.network_profile.port = 6443;
    lab.pass();
    let live = lab.world.service().unwrap().spec.clone().unwrap();
    assert_eq!(live.type_.as_deref(), Some("NodePort"), "clients are there");
    let ports: Vec<_> = live
        .ports
        .unwrap()
        .iter()
        .map(|it| (it.port, it.node_port))
        .collect();
    assert_eq!(ports, [(6443, None), (30002, Some(30002))]);
    answers(&mut lab);
    lab.pass();
    let live = lab.world.service().unwrap().spec.clone().unwrap();
    assert_eq!(live.type_.as_deref(), Some("ClusterIP"));
    let ports: Vec<_> = live
        .ports
        .unwrap()
        .iter()
        .map(|it| (it.port, it.node_port))
        .collect();
    assert_eq!(ports, [(6443, None)]);
}

/// The last success of the probe came on the way of before: it proves nothing.
#[test]
fn a_way_of_another_kind_by_the_same_name_is_proven_by_itself() {
    let mut lab = Lab::ready();
    lab.spec().control_plane.ingress = ingress("t.example.com", IngressController::Haproxy);
    lab.pass();
    answers(&mut lab);
    lab.pass();
    let is_there = |lab: &Lab| lab.world.owned.get::<Ingress>("tenant-1").is_some();
    let before = lab;

    // To Traefik, whose kind comes late.
    let mut lab = before.clone();
    lab.spec().control_plane.ingress = ingress("t.example.com", IngressController::Traefik);
    for served in [None, Some(false), Some(true)] {
        if let Some(served) = served {
            lab.world.optional.learn(Optional::IngressRouteTcp, served);
        }
        lab.later(400);
        assert_eq!(deleted(&lab.pass()), [""; 0], "{served:?}");
        let pods = std::mem::take(&mut lab.world.pods);
        let is_served = served == Some(true);
        assert!(is_served || deleted(&lab.plan()).is_empty(), "{served:?}");
        lab.world.pods = pods;
    }
    lab.nothing_for(400);
    let plan = lab.pass();
    assert_eq!(deleted(&plan), [""; 0], "no probe has begun since");
    assert!(plan.revisit.is_some());
    lab.later(1);
    assert_eq!(deleted(&lab.pass()), ["Ingress tenants/tenant-1"]);
    assert!(!is_there(&lab));

    // To a Gateway, which has to take the route.
    let mut lab = before;
    let plane = &mut lab.spec().control_plane;
    (plane.ingress, plane.gateway) = (None, gateway("t.example.com"));
    serve(&mut lab, [true, false]);
    lab.world.gateways = vec![public(443, "kube-apiserver")];
    lab.pass();
    assert_eq!(endpoint(&lab), "t.example.com:443", "as before");
    lab.later(400);
    assert_eq!(deleted(&lab.pass()), [""; 0], "nobody has taken it");
    let now = lab.world.now;
    let taken = json!({"parents": [{
        "parentRef": {"namespace": "edge", "name": "public", "sectionName": "kube-apiserver"},
        "controllerName": "c", "conditions": [{
            "type": "Accepted", "status": "True", "reason": "Accepted", "message": "",
            "lastTransitionTime": now.to_string(),
        }],
    }]});
    let live: &mut TlsRoute = lab.world.owned.get_mut("tenant-1").unwrap();
    live.status = serde_json::from_value(taken).unwrap();
    lab.later(11);
    assert_eq!(deleted(&lab.pass()), [""; 0], "the name may lead elsewhere");
    lab.later(301);
    assert_eq!(deleted(&lab.pass()), ["Ingress tenants/tenant-1"]);
}
