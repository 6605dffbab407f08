//! CREATE (contract 3.6): one write to the store.

use std::sync::Arc;

use axum::body::Body;
use http::{Response, StatusCode};
use rand::RngExt;
use serde_json::Value;
use storage::{Expect, Held};

use crate::accept::{self, Answer};
use crate::admission::{self, Part};
use crate::authz::{Permit, verb};
use crate::decode;
use crate::object::{self, meta, set_meta};
use crate::options::{Write, WriteKind};
use crate::quota;
use crate::registry::{Registry, Request, read_failure, write_failure};
use crate::respond;
use crate::status::{Failure, Subject};

/// Attempts to find a free generated name (R3.36).
const ATTEMPTS: usize = 8;
/// Characters of a generated name before the random ones.
const MAX_BASE: usize = 58;
/// No vowels and no look-alikes.
const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// Answers 201 with the stored object.
pub async fn run(
    registry: &Registry,
    permit: Permit<verb::Create>,
    request: &Request,
) -> Result<Response<Body>, Failure> {
    let query = request.query();
    let accept = accept::negotiate(&request.headers, &query, Answer::Object)?;
    let resource = permit.resource();
    let media = decode::media(&request.headers)?;
    let options = Write::parse(query, WriteKind::Create)?;
    let warnings = &request.warnings;
    let mut object = decode::object(
        resource,
        media,
        &request.body,
        options.field_validation,
        warnings,
    )?;
    admission::match_namespace(resource, &mut object, permit.namespace())?;
    admission::prepare_create(resource, &mut object, warnings)?;
    if let Some(namespace) = permit.namespace() {
        let name = meta(&object, "name");
        admission::namespace_lifecycle(registry, resource, namespace, name).await?;
    }
    let now = registry.clock.now();
    set_meta(
        &mut object,
        "uid",
        Some(Value::from(uuid::Uuid::new_v4().to_string())),
    );
    set_meta(
        &mut object,
        "creationTimestamp",
        Some(Value::from(object::time(now))),
    );
    set_meta(&mut object, "generation", Some(Value::from(1)));

    let generated = meta(&object, "name").is_empty() && !meta(&object, "generateName").is_empty();
    let mut attempt = 0;
    let stored = loop {
        attempt += 1;
        if generated {
            let name = generate(meta(&object, "generateName"));
            set_meta(&mut object, "name", Some(Value::from(name)));
        }
        admission::validate(resource, &object, None, Part::Main, warnings)?;
        let borrowed = admission::borrows(resource, &object, None)?;
        admission::borrowed(registry, permit.identity(), resource, &object, borrowed).await?;
        match put(
            registry,
            &permit,
            request,
            &object,
            options.dry_run,
            generated,
        )
        .await
        {
            Err(Failure::AlreadyExists { .. }) if generated && attempt < ATTEMPTS => {}
            result => break result?,
        }
    };
    if let Some(revision) = stored {
        object::set_version(&mut object, revision);
    }
    Ok(respond::object(
        resource,
        &object,
        &accept,
        StatusCode::CREATED,
        now,
    ))
}

/// Writes the object; the revision, or nothing if it was a dry run.
async fn put(
    registry: &Registry,
    permit: &Permit<verb::Create>,
    request: &Request,
    object: &Value,
    dry_run: bool,
    generated: bool,
) -> Result<Option<u64>, Failure> {
    let resource = permit.resource();
    let name = meta(object, "name");
    let key = object::key(resource, permit.namespace(), name);
    let bytes = object::encode(object)?;
    let exists = |current: Option<storage::Entry>| {
        let current = current.and_then(|entry| object::decode(resource, &entry).ok());
        Failure::AlreadyExists {
            subject: Subject::of(resource, name),
            deleting: current.as_ref().is_some_and(object::deleting),
            generated,
        }
    };
    if dry_run {
        registry.quota.fits(bytes.len())?;
        let (current, _) = registry.store.get(&key).await.map_err(read_failure)?;
        return match current {
            None => Ok(None),
            current => Err(exists(current)),
        };
    }
    let write = quota::Write {
        resource,
        namespace: permit.namespace(),
        name,
        before: None,
        after: bytes.len(),
    };
    let room = Arc::new(registry.admit(write).await?);
    let held = Held::new((request.held.clone(), room.clone()));
    match registry.put(&key, bytes, Expect::Absent, held).await {
        Ok(entry) => {
            room.written(entry.modified.0);
            Ok(Some(entry.modified.0))
        }
        Err(storage::Error::Conflict { current }) => Err(exists(current)),
        Err(error) => Err(write_failure(resource, name, error)),
    }
}

fn generate(base: &str) -> String {
    let mut end = base.len().min(MAX_BASE);
    while !base.is_char_boundary(end) {
        end -= 1;
    }
    let mut name = base[..end].to_owned();
    let mut rng = rand::rng();
    for _ in 0..5 {
        name.push(char::from(ALPHABET[rng.random_range(0..ALPHABET.len())]));
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_names() {
        let name = generate("tenant-");
        assert_eq!(name.len(), 12);
        assert!(name.starts_with("tenant-"));
        assert_eq!(generate(&"x".repeat(100)).len(), 63);
        assert_ne!(generate("a"), generate("a"));
    }
}
