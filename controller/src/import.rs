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
mod found;
mod old;
mod owned;
mod place;
mod proof;
mod steps;
#[cfg(test)]
mod tests;
mod told;
mod translate;

use kube::Client;

use crate::args::ImportArgs;
use crate::process::clock::Clock;
use found::Found;
use old::{Api, Old};
pub use told::Error;
use told::Told;

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
