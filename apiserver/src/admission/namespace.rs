//! NamespaceLifecycle (contract 7.1).

use apiservice::Resource;

use crate::authz;
use crate::namespaces::{Namespaces, State};
use crate::status::{Cause, Failure, Subject};

/// R7.4: nothing is created in a namespace that is missing or going away, nor in one
/// in which this installation has no rights.
pub async fn namespace_lifecycle(
    namespaces: &Namespaces,
    resource: &Resource,
    namespace: &str,
    name: &str,
) -> Result<(), Failure> {
    let subject = Subject::of(resource, name);
    if !namespaces.serves(namespace) {
        let why = format!(
            "namespace {namespace} is not one of those in which this installation of Steward \
             may have tenants; its administrator adds it to tenantNamespaces in the values of \
             the chart"
        );
        return Err(authz::refused(subject, &why));
    }
    match namespaces.state(namespace).await {
        State::Active => Ok(()),
        State::Missing => Err(Failure::NotFound(Subject::new("", "namespaces", namespace))),
        State::Terminating => {
            let why = format!(
                "unable to create new content in namespace {namespace} because it is being terminated"
            );
            let mut failure = authz::refused(subject, &why);
            if let Failure::Forbidden { causes, .. } = &mut failure {
                causes.push(Cause {
                    reason: "NamespaceTerminating".to_owned(),
                    message: format!("namespace {namespace} is being terminated"),
                    field: "metadata.namespace".to_owned(),
                });
            }
            Err(failure)
        }
        State::Unknown => Err(authz::refused(subject, "not yet ready to handle request")),
    }
}
