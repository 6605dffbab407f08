//! Addresses, ranges, names and endpoints that Kubernetes would refuse later
//! are refused when they are written.
#![allow(clippy::disallowed_methods, reason = "tests")]

use serde_json::{Value, json};

/// A tenant of which `networkProfile` is the given one.
fn tenant(profile: &str) -> Value {
    let profile: Value = serde_saphyr::from_str(profile).unwrap();
    let mut object = json!({
        "apiVersion": "steward.butlerlabs.dev/v1alpha1", "kind": "TenantControlPlane",
        "metadata": {"name": "t", "namespace": "n"},
        "spec": {
            "controlPlane": {"service": {"serviceType": "ClusterIP"}},
            "kubernetes": {"version": "v1.36.3", "kubelet": {}},
            "networkProfile": profile,
        },
    });
    apiservice::find("tenantcontrolplanes")
        .unwrap()
        .default(&mut object);
    object
}

fn errors(plural: &str, new: &Value, old: Option<&Value>) -> Vec<String> {
    let resource = apiservice::find(plural).unwrap();
    let errors = resource.validate(new, old);
    errors.iter().map(ToString::to_string).collect()
}

/// Each profile draws exactly these errors when it is new, and none when it
/// was stored before and something else changes.
fn table(rows: &[(&str, &[&str])]) {
    for (profile, wanted) in rows {
        let object = tenant(profile);
        let found = errors("tenantcontrolplanes", &object, None);
        let wanted: Vec<String> = wanted
            .iter()
            .map(|text| format!("spec.networkProfile.{text}"))
            .collect();
        assert_eq!(found, wanted, "{profile}");
        let mut changed = object.clone();
        changed["spec"]["controlPlane"]["deployment"]["replicas"] = 0.into();
        let found = errors("tenantcontrolplanes", &changed, Some(&object));
        assert_eq!(found, [""; 0], "{profile}, unchanged");
    }
}

#[test]
fn the_dns_service_has_an_address_of_its_own_inside_the_range() {
    table(&[
        ("{serviceCidr: 172.30.64.0/20, podCidr: 172.29.0.0/16}", &[]),
        (
            "{serviceCidrs: ['fd00:66::/112'], podCidrs: ['fd00:67::/56']}",
            &[],
        ),
        (
            "{serviceCidr: 172.30.64.0/20, dnsServiceIPs: [172.30.64.53]}",
            &[],
        ),
        ("{serviceCidr: 10.67.0.0/28}", &[]),
        (
            "{serviceCidr: 10.67.0.0/29}",
            &[
                r#"serviceCidr: Invalid value: "10.67.0.0/29": subnet with 8 address(es) is too small, the minimum is 10"#,
            ],
        ),
        (
            "{serviceCidrs: [10.67.0.0/24, 'fd00:66::/124']}",
            &[
                r#"serviceCidrs[1]: Invalid value: "fd00:66::/124": has no room for the address of the DNS Service, fd00:66::10; choose a larger range, or set dnsServiceIPs"#,
            ],
        ),
        (
            "{serviceCidr: 10.67.0.0/24, dnsServiceIPs: [10.67.0.0, 10.67.0.255, 10.67.0.1, 10.67.0.9, 10.67.0.9, 10.96.0.10]}",
            &[
                r#"dnsServiceIPs[0]: Invalid value: "10.67.0.0": must not be the network address in the range of Service addresses 10.67.0.0/24"#,
                r#"dnsServiceIPs[1]: Invalid value: "10.67.0.255": must not be the broadcast address in the range of Service addresses 10.67.0.0/24"#,
                r#"dnsServiceIPs[2]: Invalid value: "10.67.0.1": must not be the address of the Service kubernetes in the range of Service addresses 10.67.0.0/24"#,
                r#"dnsServiceIPs[4]: Duplicate value: "10.67.0.9""#,
                r#"dnsServiceIPs[5]: Invalid value: "10.96.0.10": must be inside the range of Service addresses 10.67.0.0/24"#,
            ],
        ),
    ]);
}

#[test]
fn ranges_are_networks_of_their_own() {
    table(&[
        ("{serviceCidr: 10.243.0.0/16, podCidr: 10.244.0.0/16}", &[]),
        (
            "{serviceCidr: 10.67.0.5/24}",
            &[
                r#"serviceCidr: Invalid value: "10.67.0.5/24": must not have bits set beyond the prefix length; the network is 10.67.0.0/24"#,
            ],
        ),
        (
            "{podCidr: 10.68.1.0/16}",
            &[
                r#"podCidr: Invalid value: "10.68.1.0/16": must not have bits set beyond the prefix length; the network is 10.68.0.0/16"#,
            ],
        ),
        (
            "{podCidr: 10.68.0.0/29}",
            &[
                r#"podCidr: Invalid value: "10.68.0.0/29": subnet with 8 address(es) is too small, the minimum is 14"#,
            ],
        ),
        (
            "{podCidr: 10.68.0.0/25}",
            &[
                "podCidr: Invalid value: \"10.68.0.0/25\": pod subnet mask (25) must not be larger than the node subnet mask (24): no node would get a range",
            ],
        ),
        (
            "{podCidrs: [10.68.0.0/16, 'fd00::/40']}",
            &[
                "podCidrs[1]: Invalid value: \"fd00::/40\": pod subnet mask (40) and node-mask (64) difference is greater than 16",
            ],
        ),
        (
            "{serviceCidr: '::ffff:10.96.0.0/112', podCidr: 10.96.0.0/16}",
            &[
                r#"serviceCidr: Invalid value: "::ffff:10.96.0.0/112": must not be an IPv4-mapped IPv6 address"#,
            ],
        ),
        (
            "{serviceCidr: 10.244.8.0/24}",
            &[
                r#"podCidr: Invalid value: "10.244.0.0/16": overlaps with the range of Service addresses 10.244.8.0/24; choose ranges apart from each other"#,
            ],
        ),
        (
            "{serviceCidr: 10.244.0.0/16}",
            &[
                r#"podCidr: Invalid value: "10.244.0.0/16": overlaps with the range of Service addresses 10.244.0.0/16; choose ranges apart from each other"#,
            ],
        ),
        (
            "{podCidr: 10.0.0.0/8}",
            &[
                r#"podCidr: Invalid value: "10.0.0.0/8": overlaps with the range of Service addresses 10.96.0.0/16; choose ranges apart from each other"#,
            ],
        ),
        (
            "{serviceCidrs: [10.168.0.0/16, 'fd00:68::/112'], podCidrs: [10.169.0.0/16, 'fd00:68::/56']}",
            &[
                r#"podCidrs[1]: Invalid value: "fd00:68::/56": overlaps with the range of Service addresses fd00:68::/112; choose ranges apart from each other"#,
            ],
        ),
        (
            "{podCidrs: [10.168.0.0/16, 10.168.0.0/16]}",
            &[
                "podCidrs: Invalid value: two ranges must be of different IP families: one IPv4, one IPv6",
            ],
        ),
    ]);
}

#[test]
fn who_sets_the_ranges_of_nodes_sets_what_fits() {
    let mut object = tenant("{podCidr: 10.68.0.0/25}");
    object["spec"]["controlPlane"]["deployment"]["extraArgs"] =
        json!({"controllerManager": ["--node-cidr-mask-size=28"]});
    assert_eq!(errors("tenantcontrolplanes", &object, None), [""; 0]);
}

#[test]
fn old_versions_take_no_large_range_of_services() {
    let mut object = tenant("{serviceCidrs: ['fd00:66::/64'], podCidrs: ['fd00:67::/56']}");
    assert_eq!(errors("tenantcontrolplanes", &object, None), [""; 0]);
    object["spec"]["kubernetes"]["version"] = "v1.30.0".into();
    assert_eq!(
        errors("tenantcontrolplanes", &object, None),
        [
            "spec.networkProfile.serviceCidrs[0]: Invalid value: \"fd00:66::/64\": specified service subnet is too large; for 128-bit addresses, the mask must be >= 108"
        ]
    );
}

#[test]
fn addresses_are_ones_that_nodes_reach() {
    const NO_IP: &str = "address must be an IP address, or empty for the one of the Service";
    table(&[
        ("{address: '2001:db8::70', certSANs: ['2001:db8::71']}", &[]),
        ("{address: ''}", &[]),
    ]);
    for (address, complaint) in [
        ("192.0.2.70:6443", NO_IP),
        ("192.0.2.70/32", NO_IP),
        ("api.example.test", NO_IP),
        ("[2001:db8::70]", NO_IP),
        ("192.0.2.070", NO_IP),
        (" 192.0.2.70", NO_IP),
        ("fe80::1%eth0", NO_IP),
        ("0.0.0.0", "may not be unspecified (0.0.0.0 or ::)"),
        ("::", "may not be unspecified (0.0.0.0 or ::)"),
        (
            "127.0.0.1",
            "may not be in the loopback range (127.0.0.0/8, ::1/128)",
        ),
        (
            "::1",
            "may not be in the loopback range (127.0.0.0/8, ::1/128)",
        ),
        (
            "169.254.1.1",
            "may not be in the link-local range (169.254.0.0/16, fe80::/10)",
        ),
        (
            "fe80::1",
            "may not be in the link-local range (169.254.0.0/16, fe80::/10)",
        ),
        (
            "224.0.0.5",
            "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)",
        ),
        (
            "239.1.2.3",
            "may not be in the multicast range (224.0.0.0/4, ff00::/8)",
        ),
        (
            "::ffff:192.0.2.70",
            "must not be an IPv4-mapped IPv6 address",
        ),
    ] {
        let profile = format!("{{address: '{address}'}}");
        let wanted = format!("address: Invalid value: \"{address}\": {complaint}");
        table(&[(&profile, &[&wanted])]);
    }
}

#[test]
fn domains_and_names_are_dns_names() {
    table(&[
        ("{clusterDomain: corp.example.test}", &[]),
        ("{certSANs: ['*.example.test', 10.0.0.3, a1.test]}", &[]),
    ]);
    for domain in [
        ".example.test",
        "Corp.Example.Test",
        "a..b",
        "corp.example.test.",
    ] {
        let object = tenant(&format!("{{clusterDomain: {domain}}}"));
        let found = errors("tenantcontrolplanes", &object, None);
        let start = format!(
            "spec.networkProfile.clusterDomain: Invalid value: {domain:?}: a lowercase RFC 1123 subdomain must consist of"
        );
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with(&start), "{found:?}");
    }
    for name in ["10.0.0.300", "*.10.0.0.3"] {
        let profile = format!("{{certSANs: ['{name}']}}");
        let wanted = format!(
            "certSANs[0]: Invalid value: \"{name}\": must be an IP address, a DNS name in lower case, or a DNS name with *. before it"
        );
        table(&[(&profile, &[&wanted])]);
        // A name that joins it is judged alone.
        let old = tenant(&profile);
        let new = tenant(&format!("{{certSANs: ['{name}', b.test]}}"));
        assert_eq!(errors("tenantcontrolplanes", &new, Some(&old)), [""; 0]);
    }
}

#[test]
fn ranges_that_are_not_used_or_do_not_meet_draw_a_warning() {
    let warnings = |profile: &str| {
        let resource = apiservice::find("tenantcontrolplanes").unwrap();
        resource.warnings(&tenant(profile), None)
    };
    // The default in the singular field is nobody's wish.
    assert_eq!(warnings("{podCidrs: [10.87.0.0/16]}"), [""; 0]);
    assert_eq!(
        warnings("{podCidr: 10.87.0.0/16, podCidrs: [10.87.0.0/16]}"),
        [""; 0]
    );
    assert_eq!(
        warnings("{serviceCidr: 10.67.0.0/16, serviceCidrs: [10.68.0.0/16]}"),
        [
            "spec.networkProfile.serviceCidr: 10.67.0.0/16 is not used, for spec.networkProfile.serviceCidrs wins with 10.68.0.0/16; set only one of the two"
        ]
    );
    assert_eq!(
        warnings("{serviceCidrs: ['fd00:66::/112']}"),
        [
            "spec.networkProfile: the first range of Service addresses, fd00:66::/112, and the first of pod addresses, 10.244.0.0/16, are of different IP families; most Services will reach no pod"
        ]
    );
}

#[test]
fn endpoints_are_host_and_port() {
    const FORM: &str = "must be host:port, for example etcd.example.com:2379";
    let store = |endpoints: &[&str]| {
        json!({
            "apiVersion": "steward.butlerlabs.dev/v1alpha1", "kind": "DataStore",
            "metadata": {"name": "s"},
            "spec": {
                "driver": "PostgreSQL", "endpoints": endpoints,
                "basicAuth": {"username": {"content": "dQ=="}, "password": {"content": "cA=="}},
            },
        })
    };
    for (endpoint, complaint) in [
        ("[2001:db8::85]:2379", ""),
        ("etcd-0.example.test:2379", ""),
        ("Etcd_0.example.test.:2379", ""),
        ("192.0.2.85:2379", ""),
        (
            "https://etcd-0.example.test:2379",
            "must be host:port without a scheme, for example etcd.example.com:2379",
        ),
        ("etcd-0.example.test", FORM),
        (
            "2001:db8::85:2379",
            "must have an IPv6 address in brackets, for example [2001:db8::1]:2379",
        ),
        (
            "[etcd]:2379",
            "must have an IPv6 address between the brackets, for example [2001:db8::1]:2379",
        ),
        ("etcd-0.example.test:2379/", FORM),
        ("etcd-0.example.test:70000", FORM),
        ("etcd-0.example.test:+2379", FORM),
        ("192.0.2.300:2379", FORM),
        (":2379", FORM),
        ("a b:2379", FORM),
        (
            " etcd-0.example.test:2379",
            "must not begin or end with a blank",
        ),
        (
            "etcd-0.example.test:2379 ",
            "must not begin or end with a blank",
        ),
    ] {
        let object = store(&["ok.test:1", endpoint]);
        let mut wanted = Vec::new();
        if !complaint.is_empty() {
            wanted.push(format!(
                "spec.endpoints[1]: Invalid value: \"{endpoint}\": {complaint}"
            ));
        }
        assert_eq!(errors("datastores", &object, None), wanted);
        let more = store(&["ok.test:1", endpoint, "more.test:1"]);
        assert_eq!(errors("datastores", &more, Some(&object)), [""; 0]);
    }
    let twice = store(&["a.test:1", "a.test:1"]);
    assert_eq!(
        errors("datastores", &twice, None),
        [r#"spec.endpoints[1]: Duplicate value: "a.test:1""#]
    );
    let more = store(&["a.test:1", "a.test:1", "b.test:1"]);
    assert_eq!(errors("datastores", &more, Some(&twice)), [""; 0]);
}

#[test]
fn a_null_is_a_value_of_a_patch_and_faults_are_told_together() {
    const PATCHES: &str = "spec.kubernetes.kubelet.configurationJSONPatches";
    let patches: Value = serde_saphyr::from_str(
        "
- {op: add, path: maxPods, value: 250}
- {op: jump, path: /a}
- {op: move, path: /a}
- {op: add, path: /b}
- {op: add, path: /c, value: null}
",
    )
    .unwrap();
    let resource = apiservice::find("tenantcontrolplanes").unwrap();
    let mut object = tenant("{}");
    object["spec"]["kubernetes"]["kubelet"]["configurationJSONPatches"] = patches.clone();
    resource.default(&mut object);
    let found = resource.validate(&object, None);
    let mut fields: Vec<&str> = found.iter().map(|error| error.field.as_str()).collect();
    fields.sort_unstable();
    assert_eq!(
        fields,
        [
            "<nil>".to_owned(),
            format!("{PATCHES}[0].path"),
            format!("{PATCHES}[1].op"),
            format!("{PATCHES}[2].from"),
            format!("{PATCHES}[3].value"),
        ]
    );

    object["spec"]["kubernetes"]["kubelet"]["configurationJSONPatches"] =
        json!([patches[0], patches[4]]);
    object["spec"]["kubernetes"]["kubelet"]["configurationJSONPatches"][0]["path"] =
        "/maxPods".into();
    resource.default(&mut object);
    assert_eq!(errors("tenantcontrolplanes", &object, None), [""; 0]);
    let typed: apiservice::v1alpha1::TenantControlPlane = serde_json::from_value(object).unwrap();
    let back = serde_json::to_value(&typed.spec.kubernetes.kubelet).unwrap();
    let back = &back["configurationJSONPatches"];
    assert_eq!(back[0]["value"], json!(250));
    assert_eq!(back[1].get("value"), Some(&Value::Null), "kept");
}

#[test]
fn a_number_that_is_too_large_is_told_once() {
    let mut object = tenant("{}");
    object["spec"]["controlPlane"]["deployment"]["replicas"] = 3_000_000_000_u64.into();
    assert_eq!(
        errors("tenantcontrolplanes", &object, None),
        [
            r#"<nil>: Invalid value: "": Checked value must be of type integer with format int32 in spec.controlPlane.deployment.replicas"#
        ]
    );
}
