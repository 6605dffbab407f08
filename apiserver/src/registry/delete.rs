//! DELETE (contract 3.10).

use apiservice::{Resource, told};
use axum::body::Body;
use http::{Response, StatusCode};
use serde_json::Value;

use crate::accept::{self, Answer};
use crate::authz::{Permit, verb};
use crate::decode::{self, Unreadable};
use crate::object::{self, meta};
use crate::options::{Delete, Propagation};
use crate::registry::get;
use crate::registry::write::{Writer, Written};
use crate::registry::{Registry, Request};
use crate::respond;
use crate::status::{self, Failure, Subject};

const ATTEMPTS: usize = 64;
const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";

/// Answers with a Status if the object is gone, with the object if not.
pub async fn run(
    registry: &Registry,
    permit: Permit<verb::Delete>,
    request: &Request,
) -> Result<Response<Body>, Failure> {
    let accept = accept::negotiate(&request.headers, &request.query(), Answer::Object)?;
    let options = request.read(|| options(request)).await?;
    let name = get::name(&permit)?;
    let resource = permit.resource();
    match one(
        registry,
        request,
        &permit,
        permit.namespace(),
        name,
        &options,
    )
    .await?
    {
        Outcome::Gone(object) => {
            let subject = Subject::of(resource, name);
            let status = status::deleted(&subject, meta(&object, "uid"));
            Ok(respond::raw(&status, &accept, StatusCode::OK))
        }
        Outcome::Kept(object) => {
            let code = match options.orphan_dependents {
                Some(false) => StatusCode::ACCEPTED,
                _ => StatusCode::OK,
            };
            Ok(respond::object(
                resource,
                &object,
                &accept,
                code,
                registry.clock.now(),
            ))
        }
    }
}

/// DeleteOptions of the body, or of the query if there is no body.
pub fn options(request: &Request) -> Result<Delete, Failure> {
    if request.body.is_empty() {
        return Delete::from_query(request.query());
    }
    let media = decode::any_media(&request.headers)?;
    let parsed = decode::parse(media, &request.body).map_err(|error| match error {
        // The decoder's text alone, as by Kubernetes.
        Unreadable::Message(_) => error.or(|text| Failure::BadRequest(text.to_owned())),
        error => error.unrecognized("DeleteOptions", &request.body),
    })?;
    Delete::from_body(&parsed.value)
}

/// What became of the object.
pub enum Outcome {
    /// It is deleted; this is what it was.
    Gone(Value),
    /// Its finalizers hold it.
    Kept(Value),
}

/// Deletes one object, or marks it as being deleted.
pub async fn one<V>(
    registry: &Registry,
    request: &Request,
    permit: &Permit<V>,
    namespace: Option<&str>,
    name: &str,
    options: &Delete,
) -> Result<Outcome, Failure> {
    let resource = permit.resource();
    let writer = Writer::new(registry, permit, request, options.dry_run)
        .within(namespace)
        .deleting(options);
    for _ in 0..ATTEMPTS {
        let unreadable = |failure| unreadable_gone(options, failure, name);
        let old = writer.read_or(name, unreadable).await?;
        check_preconditions(resource, name, old.object(), options)?;
        let finalizers = match meta(old.object(), "uid") {
            "" => Vec::new(),
            _ => finalizers(old.object(), options.propagation),
        };
        let gone = finalizers.is_empty();
        let (admitted, mut object) = writer.admit_delete(old, finalizers).await?;
        match registry.put(admitted).await? {
            Written::Conflict(_) => {}
            Written::At(_) | Written::Nothing if gone => return Ok(Outcome::Gone(object)),
            Written::At(revision) => {
                object::set_version(&mut object, revision.0);
                return Ok(Outcome::Kept(object));
            }
            Written::Nothing => return Ok(Outcome::Kept(object)),
        }
    }
    Err(Failure::modified(Subject::of(resource, name)))
}

/// What a delete takes an object for that cannot be read: it has no finalizers that
/// anybody could see to, so it goes at once. A precondition cannot be judged and keeps it.
fn unreadable_gone(options: &Delete, unreadable: Failure, name: &str) -> Result<Value, Failure> {
    if options.uid.is_some() || options.resource_version.is_some() {
        return Err(unreadable);
    }
    tracing::warn!(name, %unreadable, "deleting an object that cannot be read");
    Ok(serde_json::json!({"metadata": {"name": name}}))
}

/// R3.63: uid and resourceVersion, if given, are those of the object.
///
/// # Errors
/// 409 if they are not.
pub fn check_preconditions(
    resource: &Resource,
    name: &str,
    object: &Value,
    options: &Delete,
) -> Result<(), Failure> {
    let conflict = |message: String| Failure::Conflict {
        subject: Subject::new(apiservice::GROUP, resource.kind, name),
        message,
    };
    let (uid, version) = (meta(object, "uid"), meta(object, "resourceVersion"));
    if let Some(wanted) = options.uid.as_deref().filter(|wanted| *wanted != uid) {
        let wanted = told::short(wanted, told::MAX_PATH);
        return Err(conflict(format!(
            "the UID in the precondition ({wanted}) does not match the UID in record ({uid}). The object might have been deleted and then recreated"
        )));
    }
    if let Some(wanted) = options
        .resource_version
        .as_deref()
        .filter(|wanted| *wanted != version)
    {
        let wanted = told::short(wanted, told::MAX_PATH);
        return Err(conflict(format!(
            "the ResourceVersion in the precondition ({wanted}) does not match the ResourceVersion in record ({version}). The object might have been modified"
        )));
    }
    Ok(())
}

/// The finalizers that the object has from now on (R3.65).
fn finalizers(object: &Value, propagation: Option<Propagation>) -> Vec<String> {
    let present = object::finalizers(object);
    let has = |name: &str| present.iter().any(|finalizer| finalizer == name);
    let (orphan, foreground) = match propagation {
        Some(Propagation::Orphan) => (true, false),
        Some(Propagation::Foreground) => (false, true),
        Some(Propagation::Background) => (false, false),
        // Nobody said: what is there stays; the default is background.
        None => (has(ORPHAN), has(FOREGROUND)),
    };
    if orphan == has(ORPHAN) && foreground == has(FOREGROUND) {
        return present;
    }
    let own = present
        .into_iter()
        .filter(|finalizer| finalizer != ORPHAN && finalizer != FOREGROUND);
    let added = [(orphan, ORPHAN), (foreground, FOREGROUND)];
    let added = added.into_iter().filter(|(wanted, _)| *wanted);
    own.chain(added.map(|(_, name)| name.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// R3.65.
    #[test]
    fn garbage_collector_finalizers() {
        use Propagation::{Background, Foreground, Orphan};
        let cases: &[(&[&str], Option<Propagation>, &[&str])] = &[
            (&[], None, &[]),
            (&[], Some(Background), &[]),
            (&[], Some(Foreground), &["foregroundDeletion"]),
            (&["a/b"], Some(Orphan), &["a/b", "orphan"]),
            (&["orphan"], None, &["orphan"]),
            (&["orphan", "a/b"], Some(Background), &["a/b"]),
            (&["orphan"], Some(Foreground), &["foregroundDeletion"]),
            (
                &["foregroundDeletion", "a/b"],
                Some(Foreground),
                &["foregroundDeletion", "a/b"],
            ),
        ];
        for (present, propagation, expected) in cases {
            let object = json!({"metadata": {"finalizers": present}});
            assert_eq!(
                finalizers(&object, *propagation),
                *expected,
                "{present:?} {propagation:?}"
            );
        }
    }
}
