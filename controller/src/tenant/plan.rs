//! A plan: what is to be done for one tenant, in which order, and what is
//! being waited for. Plans are values; `apply` is the only one to carry them
//! out.

use std::fmt;

use apiservice::names;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
pub use storage::tenancy::Claim;
use storage::tenancy::Password;

pub use crate::cluster::kinds::{Object, ObjectKey, ObjectKind};

/// What a tenant is given in its database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Its names.
    pub claim: Claim,
    /// With what its user proves who it is, where the driver has passwords.
    pub password: Option<Password>,
}

/// The steps of one pass.
///
/// Steps are sorted by [`Step::stage`]. Steps of one stage do not depend on
/// each other and may run at the same time; a stage is entered only if no step
/// of an earlier one failed.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// In the order of their stages.
    pub steps: Vec<Step>,
    /// When time alone will change the plan (a certificate to renew, a silence
    /// that becomes a complaint).
    pub revisit: Option<Timestamp>,
    /// The Deployment was compared with the manifest: nothing that its pods need
    /// is missing.
    pub compared: bool,
    /// The pods are to be rolled for a reason other than the tenant's spec, which takes
    /// a turn (rule 29).
    pub roll: Option<FleetRoll>,
    /// The pods are rolled at once, for the tenant's spec or for another reason of its own.
    pub rolls: bool,
}

/// A roll that takes a turn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FleetRoll {
    /// It must begin by then, whosever turn it is.
    pub by: Option<Timestamp>,
}

/// One thing to do, or one thing that is being waited for.
#[derive(Clone, Debug)]
pub enum Step {
    /// Put [`apiservice::names::FINALIZER`] on the tenant.
    AddFinalizer,
    /// Create an object that must not exist: if it does, nothing changes and
    /// the outcome is [`Outcome::Failed`] with [`EXISTS`]. Key material is only
    /// ever made this way, so that a late cache cannot replace it.
    Create(Box<Object>),
    /// Server-side apply, forced, as `steward-controller`. Where the object
    /// carries a `metadata.resourceVersion`, it is a precondition.
    Apply(Box<Object>),
    /// Ask for an object that ought to be there and is not in the cache, which
    /// holds objects by their labels: it may have lost them. Found and ours, it
    /// is put into the cache ([`Outcome::Done`]); nothing is written.
    Recheck(ObjectKey),
    /// Delete, with the uid as precondition, in the background.
    Delete {
        /// What.
        key: ObjectKey,
        /// The precondition.
        uid: String,
    },
    /// Delete what the garbage collector would delete after the tenant as well,
    /// so that nothing is left when the tenant has gone. A refusal delays
    /// nothing.
    DeleteBestEffort {
        /// What.
        key: ObjectKey,
        /// The precondition.
        uid: String,
    },
    /// Delete what led clients to the tenant before, after all else: a refusal holds
    /// nothing up.
    DeleteFormer {
        /// What.
        key: ObjectKey,
        /// The precondition.
        uid: String,
    },
    /// Claim schema and user, then make role, user and grant (rule 17).
    Grant(Grant),
    /// Take the user's rights away.
    RevokeAccess(Claim),
    /// Delete the tenant's data and count that nothing is left.
    DropData(Claim),
    /// Note in the tenant's status that nothing of it is left in the database but the
    /// claim, before that is released: whoever finds no claim later knows why.
    NoteEmpty(Claim),
    /// Give the names back.
    ReleaseClaim(Claim),
    /// Record on the DataStore that this claim is to be cleaned up later (rule 18).
    DeferDeletion {
        /// What was claimed.
        claim: Claim,
        /// Name of the DataStore.
        data_store: String,
        /// The tenant is known to have something there.
        known: bool,
        /// Why it cannot be done now.
        why: String,
    },
    /// Take these Secrets out of annotation
    /// [`apiservice::names::ANNOTATION_REPLACE_LOST_KEYS`]: it was carried out.
    ClearReplaceRequest(Vec<String>),
    /// Nothing to do but to wait; shown in a condition.
    Wait(Waiting),
    /// Take our finalizer off the tenant.
    ReleaseFinalizer,
    /// Tell whoever looks at the tenant's events.
    Event(EventStep),
}

/// Reason of the outcome of a [`Step::Create`] whose object exists.
pub const EXISTS: &str = "AlreadyExists";

/// What holds a tenant up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Type of the condition that shows it.
    pub condition: &'static str,
    /// Reason of that condition.
    pub reason: &'static str,
    /// What is missing and what to do about it.
    pub message: String,
    /// Known to need a person, as opposed to time.
    pub problem: bool,
    /// The message in parts, where it is about one object.
    pub finding: Option<Box<Finding>>,
}

/// What is said about one object, in parts: the same about several is told once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// About which.
    pub object: ObjectKey,
    /// What.
    pub said: Said,
    /// What to do about it.
    pub remedy: Option<&'static str>,
}

/// What is said about an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// Goes on after its name: `exists and ...`.
    Does(String),
    /// A sentence of its own.
    Sentence(String),
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.said {
            Said::Does(what) => write!(f, "{} {what}", self.object)?,
            Said::Sentence(what) => write!(f, "{}: {what}", self.object)?,
        }
        match self.remedy {
            Some(remedy) => write!(f, " {remedy}"),
            None => Ok(()),
        }
    }
}

/// An event on the tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventStep {
    /// Trouble, as opposed to news.
    pub warning: bool,
    /// One word for machines.
    pub reason: &'static str,
    /// A sentence for people.
    pub message: String,
}

/// What became of a step; same index as the step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Carried out, and something changed.
    Done,
    /// Carried out, and everything was as wanted.
    Unchanged,
    /// Not carried out, or nobody knows.
    Failed {
        /// A reason for a condition.
        reason: String,
        /// The answer of the API or database.
        message: String,
        /// Worth trying again without a change from outside.
        retry: bool,
        /// The message in parts, where it is about one object.
        finding: Option<Box<Finding>>,
    },
    /// An earlier stage failed.
    NotReached,
}

impl Step {
    /// Steps of a lower stage come first; steps of one stage are independent.
    pub fn stage(&self) -> u8 {
        match self {
            Step::AddFinalizer
            | Step::Recheck(_)
            | Step::Delete { .. }
            | Step::DeleteBestEffort { .. }
            | Step::Event(_)
            | Step::Wait(_) => 0,
            Step::Create(object) | Step::Apply(object) => match object.as_ref() {
                // What leads to pods holds nothing up: whoever takes it may not be there.
                Object::Deployment(_)
                | Object::Ingress(_)
                | Object::TlsRoute(_)
                | Object::TlsRouteV1Alpha2(_)
                | Object::IngressRouteTcp(_) => 3,
                Object::Secret(secret) if is_credential(secret) => 2,
                _ => 1,
            },
            Step::Grant(_) | Step::RevokeAccess(_) => 1,
            Step::ClearReplaceRequest(_) => 1,
            Step::DropData(_) | Step::DeleteFormer { .. } => 4,
            Step::NoteEmpty(_) => 5,
            Step::ReleaseClaim(_) | Step::DeferDeletion { .. } => 6,
            Step::ReleaseFinalizer => 7,
        }
    }
}

/// Credentials for the database are handed out only after the grant: a name
/// that turns out to be another tenant's must not come with a certificate for
/// it (rule 17).
fn is_credential(secret: &Secret) -> bool {
    let component = secret
        .metadata
        .labels
        .as_ref()
        .and_then(|it| it.get(names::LABEL_COMPONENT));
    component.is_some_and(|component| {
        component == names::component::DATASTORE_CERTIFICATE
            || component == names::component::DATASTORE_CONFIG
    })
}

impl Plan {
    /// Adds a step.
    pub fn push(&mut self, step: Step) {
        self.steps.push(step);
    }

    /// Adds a Secret to the one step that says whose keys were replaced.
    pub fn replaced(&mut self, secret: String) {
        for step in &mut self.steps {
            if let Step::ClearReplaceRequest(secrets) = step {
                return secrets.push(secret);
            }
        }
        self.push(Step::ClearReplaceRequest(vec![secret]));
    }

    /// The Secret of this name that the plan writes, if it does.
    pub fn secret(&self, name: &str) -> Option<&Secret> {
        self.steps.iter().find_map(|step| match step {
            Step::Create(object) | Step::Apply(object) => match object.as_ref() {
                Object::Secret(secret) if secret.metadata.name.as_deref() == Some(name) => {
                    Some(secret)
                }
                _ => None,
            },
            _ => None,
        })
    }

    /// Asks to be made again at `at` at the latest.
    pub fn revisit_at(&mut self, at: Timestamp) {
        self.revisit = Some(self.revisit.map_or(at, |earlier| earlier.min(at)));
    }

    /// Asks for a turn to roll the pods, which must begin by `by` at the latest.
    pub fn roll_by(&mut self, by: Option<Timestamp>) {
        let roll = self.roll.get_or_insert_default();
        roll.by = match (roll.by, by) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
    }

    /// Takes in the plan for another of the tenant's places.
    pub fn absorb(&mut self, other: Plan) {
        self.steps.extend(other.steps);
        if let Some(at) = other.revisit {
            self.revisit_at(at);
        }
        if let Some(roll) = other.roll {
            self.roll_by(roll.by);
        }
    }

    /// Sorts by stage; steps of one stage keep their order.
    pub fn sorted(mut self) -> Self {
        self.steps.sort_by_key(Step::stage);
        self
    }

    /// Nothing would be written anywhere.
    pub fn is_quiet(&self) -> bool {
        self.steps
            .iter()
            .all(|step| matches!(step, Step::Wait(_) | Step::Recheck(_)))
    }
}
