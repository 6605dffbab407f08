//! CREATE (contract 3.6): one write to the store.

use axum::body::Body;
use http::{Response, StatusCode};
use rand::RngExt;

use crate::accept::{self, Answer};
use crate::admission;
use crate::authz::{Permit, verb};
use crate::decode;
use crate::object::{self, meta};
use crate::options::{Write, WriteKind};
use crate::registry::write::{Writer, Written};
use crate::registry::{Registry, Request};
use crate::respond;
use crate::status::{Failure, Subject};
use crate::stored;

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
    let mut object = request
        .object(resource, media, options.field_validation)
        .await?;
    admission::match_namespace(resource, &mut object, permit.namespace())?;
    let writer = Writer::new(registry, &permit, request, options.dry_run);
    let mut new = writer.prepare_create(object).await?;
    let of = |field| meta(new.object(), field);
    let generated = of("name").is_empty() && !of("generateName").is_empty();
    let mut attempt = 0;
    let stored = loop {
        attempt += 1;
        if generated {
            let name = generate(meta(new.object(), "generateName"));
            new.set_name(name);
        }
        let admitted = writer.admit_create(&mut new).await?;
        match registry.put(admitted).await? {
            Written::At(revision) => break Some(revision),
            Written::Nothing => break None,
            Written::Conflict(_) if generated && attempt < ATTEMPTS => {}
            Written::Conflict(current) => {
                let current = current.and_then(|entry| stored::decode(resource, &entry).ok());
                return Err(Failure::AlreadyExists {
                    subject: Subject::of(resource, meta(new.object(), "name")),
                    deleting: current.as_ref().is_some_and(object::deleting),
                    generated,
                });
            }
        }
    };
    let now = new.created();
    Ok(respond::object(
        resource,
        &new.into_object(stored),
        &accept,
        StatusCode::CREATED,
        now,
    ))
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

    /// R3.36.
    #[test]
    fn generated_names() {
        let name = generate("tenant-");
        assert_eq!(name.len(), 12);
        assert!(name.starts_with("tenant-"));
        assert_eq!(generate(&"x".repeat(100)).len(), 63);
        assert_ne!(generate("a"), generate("a"));
    }
}
