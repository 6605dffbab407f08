//! Whether a tenant may be about to come up, and is therefore looked at often.

use tokio::time::Instant;

use crate::cluster::name::NamespacedName;
use crate::context::Context;
use crate::process::timing;

/// What decides whether a tenant could have come up since.
#[derive(Default)]
pub struct Coming {
    inputs: Option<Vec<String>>,
    since: Option<Instant>,
}

impl Coming {
    /// Takes in what there is of the tenant: its pods, and whatever else is named.
    /// Whether that is news.
    pub fn note(&mut self, ctx: &Context, name: &NamespacedName, more: Option<String>) -> bool {
        let pods = ctx.caches.pods.of(name);
        let inputs = pods.iter().map(|pod| {
            let status = || pod.status.iter();
            let ready = status()
                .flat_map(|status| status.conditions.iter().flatten())
                .any(|condition| condition.type_ == "Ready" && condition.status == "True");
            let started = status()
                .flat_map(|status| status.container_statuses.iter().flatten())
                .all(|container| container.started == Some(true));
            let uid = pod.metadata.uid.as_deref().unwrap_or_default();
            format!("{uid} {ready} {started}")
        });
        let inputs: Vec<String> = inputs.chain(more).collect();
        let news = self.inputs.as_ref() != Some(&inputs);
        if news {
            self.inputs = Some(inputs);
            self.since = Some(Instant::now());
        }
        news
    }

    /// For a while after anything about it changed that could bring it up.
    pub fn is(&self) -> bool {
        self.since
            .is_some_and(|since| since.elapsed() < timing::COMING_FOR)
    }
}
