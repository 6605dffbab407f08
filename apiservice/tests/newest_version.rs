//! An administrator may accept versions that this build does not know. A test program
//! of its own: that is said once in a process.
#![allow(clippy::unwrap_used, reason = "tests")]

use apiservice::version::{MAX, Minor, accept_up_to, newest};
use serde_json::json;

#[test]
fn a_newer_version_is_accepted_on_an_administrators_word() {
    assert_eq!("v1.37".parse(), Ok(Minor(1, 37)));
    assert_eq!("1.37".parse(), Ok(Minor(1, 37)));
    for text in ["", "v1", "1.x", "v1.37.0"] {
        assert!(text.parse::<Minor>().is_err(), "{text}");
    }
    accept_up_to(Minor(MAX.0, MAX.1 + 1));
    assert_eq!(newest(), Minor(MAX.0, MAX.1 + 1));
    let errors = |version: String| {
        let mut tenant = json!({
            "apiVersion": "steward.butlerlabs.dev/v1alpha1",
            "kind": "TenantControlPlane",
            "metadata": {"name": "t", "namespace": "n"},
            "spec": {
                "kubernetes": {"version": version, "kubelet": {}},
                "controlPlane": {"service": {"serviceType": "LoadBalancer"}},
            },
        });
        let resource = apiservice::find("tenantcontrolplanes").unwrap();
        resource.default(&mut tenant);
        let errors = resource.validate(&tenant, None);
        errors.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(errors(format!("v1.{}.0", MAX.1 + 1)), Vec::<String>::new());
    let refused = errors(format!("v1.{}.0", MAX.1 + 2)).concat();
    let wanted = format!("the newest supported version is 1.{}", MAX.1 + 1);
    assert!(refused.contains(&wanted), "{refused}");
}
