//! The object that is sent and the one that is asked for are the same: name, namespace and
//! version.

use apiservice::field::{self, Path};
use apiservice::{Resource, Scope};
use serde_json::Value;

use crate::object::{meta, set_meta};
use crate::status::Failure;

/// The namespace of the URL wins; another one in the body is an error (R3.3).
pub fn match_namespace(
    resource: &Resource,
    object: &mut Value,
    namespace: Option<&str>,
) -> Result<(), Failure> {
    let namespace = namespace.filter(|_| resource.scope == Scope::Namespaced);
    match (namespace, meta(object, "namespace")) {
        (None, _) => {
            // R3.78: a cluster-scoped object has none.
            set_meta(object, "namespace", None);
            Ok(())
        }
        (Some(namespace), "") => {
            set_meta(object, "namespace", Some(Value::from(namespace)));
            Ok(())
        }
        (Some(namespace), present) if present == namespace => Ok(()),
        _ => Err(Failure::BadRequest(
            "the namespace of the provided object does not match the namespace sent on the request"
                .to_owned(),
        )),
    }
}

/// The name of the URL and of the body are one (R3.3).
pub fn match_name(object: &Value, name: &str) -> Result<(), Failure> {
    match meta(object, "name") {
        "" => Err(Failure::BadRequest(format!(
            "the name of the object ({name} based on URL) was undeterminable: name must be provided"
        ))),
        present if present == name => Ok(()),
        present => Err(Failure::BadRequest(format!(
            "the name of the object ({present}) does not match the name on the URL ({name})"
        ))),
    }
}

/// The resourceVersion of an update as a revision: it must be there (R3.47).
pub fn required_version(resource: &Resource, object: &Value) -> Result<u64, Failure> {
    let text = meta(object, "resourceVersion");
    let path = Path::new("metadata.resourceVersion");
    let error = match text.parse::<u64>() {
        Ok(version) if version > 0 => return Ok(version),
        _ if text.is_empty() || text == "0" => {
            field::Error::invalid(&path, 0, "must be specified for an update")
        }
        _ => field::Error::invalid(
            &path,
            text,
            format!("strconv.ParseUint: parsing {text:?}: invalid syntax"),
        ),
    };
    Err(Failure::Invalid {
        kind: resource.plural.to_owned(),
        group: apiservice::GROUP.to_owned(),
        name: meta(object, "name").to_owned(),
        errors: error.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn tenants() -> &'static Resource {
        apiservice::find("tenantcontrolplanes").unwrap()
    }

    /// R3.3, R3.78.
    #[test]
    fn names_and_namespaces_of_the_url_win() {
        let stores = apiservice::find("datastores").unwrap();
        let mut store = json!({"metadata": {"name": "a", "namespace": "n"}});
        match_namespace(stores, &mut store, None).unwrap();
        assert!(store["metadata"].get("namespace").is_none(), "{store}");
        let mut object = json!({"metadata": {"name": "a"}});
        match_namespace(tenants(), &mut object, Some("n")).unwrap();
        assert_eq!(meta(&object, "namespace"), "n");
        assert!(match_namespace(tenants(), &mut object, Some("m")).is_err());
        assert!(match_name(&object, "a").is_ok());
        assert_eq!(
            match_name(&object, "b").unwrap_err().to_string(),
            "the name of the object (a) does not match the name on the URL (b)"
        );
        assert_eq!(
            match_name(&json!({"metadata": {}}), "b")
                .unwrap_err()
                .to_string(),
            "the name of the object (b based on URL) was undeterminable: name must be provided"
        );
    }

    /// R3.47.
    #[test]
    fn an_update_needs_a_version() {
        let object = json!({"metadata": {"name": "a"}});
        assert_eq!(
            required_version(tenants(), &object)
                .unwrap_err()
                .to_string(),
            "tenantcontrolplanes.steward.butlerlabs.dev \"a\" is invalid: metadata.resourceVersion: Invalid value: 0: must be specified for an update"
        );
    }
}
