//! `import`: brings tenants and DataStores of another operator here, with their uids.
//!
//! # Flow
//! `old.rs` says how the other operator calls things, `translate.rs` makes one of our objects
//! of one of its (pure), `proof.rs` says what the tenant's own objects prove of its place in the
//! datastore (pure), `owned.rs` how its objects change hands (pure). `place.rs` speaks to
//! datastores and `steps.rs` does everything for one object, in an order that can be ended at
//! any moment and begun anew:
//!
//! ```text
//! check     all that can be known before; our server is asked with a dry run
//! claim     the place in the datastore is claimed for the uid
//! create    here, with its uid, and paused
//! own       Secrets, ConfigMaps, Service: owner references and labels are ours
//! hand over pods and ReplicaSets get our label, the Service follows it, the Deployment goes
//!           without them
//! resume    the pause is taken off: the controller makes a Deployment, which takes the
//!           ReplicaSets for its old ones, and rolls
//! ```
//!
//! `finish.rs` removes what is left of the other operator, of those that are Ready here.
//!
//! # Guarantees
//! Nothing is written without `--write`. Status is read for names only, and what it names has to
//! be the same in the tenant's Secret, in the certificate of its user and in the datastore. What
//! is wrong with one object refuses that one and no other.

mod finish;
mod old;
mod owned;
mod place;
mod proof;
mod steps;
#[cfg(test)]
mod tests;
mod translate;

use std::fmt;

use kube::Client;
use serde_json::Value;

use crate::args::ImportArgs;
use crate::process::clock::Clock;
use old::{Api, Old};

/// Why nothing, or not everything, was imported.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{what}: {error}")]
    Api {
        what: String,
        #[source]
        error: Box<kube::Error>,
    },
    #[error("{0}")]
    Refused(String),
    #[error("{0} of {1} objects are refused; see above")]
    Some(usize, usize),
}

/// What becomes, or would become, of one object.
#[derive(Debug, PartialEq, Eq)]
pub struct Told {
    about: String,
    word: &'static str,
    more: Vec<String>,
}

impl Told {
    const REFUSED: &str = "refused";

    fn new(about: impl Into<String>, word: &'static str, more: Vec<String>) -> Self {
        let about = about.into();
        Self { about, word, more }
    }

    fn refused(about: impl Into<String>, why: Vec<String>) -> Self {
        Self::new(about, Self::REFUSED, why)
    }
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.about, self.word)?;
        self.more
            .iter()
            .try_for_each(|line| write!(f, "\n  {line}"))
    }
}

/// Does what the flags say and prints what became of each object.
pub async fn run(args: ImportArgs, client: Client, clock: Clock) -> Result<(), Error> {
    let api = Api::new(client);
    let old = Old::of(args.from);
    old.refuse_running(&api, &args.operator).await?;
    let all = Found::read(&api, &old, &args).await?;
    let mut told = Vec::new();
    if args.finish {
        finish::all(&api, &old, &all, &args, &mut told).await?;
    } else {
        steps::all(&api, &old, &all, &args, &clock, &mut told).await?;
    }
    for one in &told {
        #[allow(clippy::print_stdout, reason = "it is what was asked for")]
        {
            println!("{one}");
        }
    }
    let refused = told.iter().filter(|it| it.word == Told::REFUSED).count();
    match refused {
        0 => Ok(()),
        some => Err(Error::Some(some, told.len())),
    }
}

/// What the other operator has.
pub struct Found {
    data_stores: Vec<Value>,
    tenants: Vec<Value>,
}

impl Found {
    async fn read(api: &Api, old: &Old, args: &ImportArgs) -> Result<Self, Error> {
        let Some(file) = &args.file else {
            if old.is_our_group() {
                return Err(Error::Refused(
                    "its objects have our group, and are hidden by our server: they are read \
                     from a file, with --file"
                        .to_owned(),
                ));
            }
            return Ok(Self {
                data_stores: api.list(&old.path("datastores")).await?,
                tenants: api.list(&old.path("tenantcontrolplanes")).await?,
            });
        };
        let unread = |why: String| Error::Refused(format!("{}: {why}", file.display()));
        let text = std::fs::read(file).map_err(|error| unread(error.to_string()))?;
        let list: Value =
            serde_json::from_slice(&text).map_err(|error| unread(error.to_string()))?;
        let items = list["items"].as_array().cloned().unwrap_or_default();
        let of = |kind: &str| -> Vec<Value> {
            let items = items.iter();
            let items = items.filter(|it| it["kind"] == kind && it["apiVersion"] == old.version());
            items.cloned().collect()
        };
        Ok(Self {
            data_stores: of("DataStore"),
            tenants: of("TenantControlPlane"),
        })
    }
}
