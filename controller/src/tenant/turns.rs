//! Turns of rolls, as plans and the fleet know them: who has one, and what is written of it.

use apiservice::names;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::Deployment;

use crate::tenant::objects;

/// How long a tenant that is not Ready after its roll keeps its place; twice as long for
/// each that has failed so and has not become Ready since.
pub const HOLD: SignedDuration = SignedDuration::from_mins(10);

/// How many places there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// In all.
    pub together: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { together: 4 }
    }
}

impl Limits {
    /// For the tenants of one DataStore: half of all, one at least.
    pub fn of_one_store(self) -> usize {
        self.together.div_ceil(2)
    }
}

/// Whose turn it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Turn {
    /// Nobody has asked: a plan that needs a turn says so, and is made again.
    #[default]
    Unasked,
    /// This tenant's.
    Given(Roll),
    /// It needs none: its pods are being rolled by somebody else already.
    NotNeeded,
    /// Others'.
    Waits(Wait),
}

/// A roll that was given a turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roll {
    /// When.
    pub at: Timestamp,
    /// How the tenant was.
    pub before: Before,
}

/// How a tenant was before a roll.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Before {
    /// Ready, and not being rolled: if it is not Ready after the roll, that is why.
    Ready,
    /// Not Ready, with pods that served.
    Trouble,
    /// No pod of it served: a roll cost it nothing, and may have been what it needed.
    Down,
}

/// Why others go first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wait {
    /// They are being rolled.
    ForOthers,
    /// These were Ready before their roll and are not after it.
    Halted(Vec<String>),
}

impl Roll {
    /// As the Deployment's annotation has it, in whole seconds.
    pub fn text(&self) -> String {
        let second = Timestamp::from_second(self.at.as_second()).unwrap_or(self.at);
        let before = match self.before {
            Before::Ready => "ready",
            Before::Trouble => "not-ready",
            Before::Down => "down",
        };
        format!("{second} {before}")
    }

    /// What [`Roll::text`] wrote.
    pub fn parse(text: &str) -> Option<Self> {
        let (at, before) = text.split_once(' ')?;
        Some(Roll {
            at: at.parse().ok()?,
            before: match before {
                "ready" => Before::Ready,
                "down" => Before::Down,
                _ => Before::Trouble,
            },
        })
    }

    /// The last roll of a Deployment by turn.
    pub fn of(live: &Deployment) -> Option<Self> {
        Self::parse(objects::annotation(&live.metadata, names::ANNOTATION_ROLL)?)
    }
}
