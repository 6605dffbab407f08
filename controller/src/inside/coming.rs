//! Whether a tenant may be about to come up, and is therefore looked at often.

use std::time::Duration;

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

    /// How long to wait between looks, while the tenant may be coming up; `None` once that is
    /// over. A twentieth of the time so far: where many start at once, looking as often as at
    /// first would slow all of them down.
    pub fn pace(&self) -> Option<Duration> {
        let since = self.since?.elapsed();
        let pace = (since / timing::PROBE_PART).max(timing::PROBE_COMING);
        (since < timing::COMING_FOR).then(|| pace.min(timing::PROBE_DOWN))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_takes_long_is_looked_at_less_often() {
        let mut coming = Coming::default();
        assert_eq!(coming.pace(), None);
        coming.since = Some(Instant::now());
        assert_eq!(coming.pace(), Some(timing::PROBE_COMING));
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(coming.pace(), Some(timing::PROBE_COMING));
        tokio::time::advance(Duration::from_secs(18)).await;
        assert_eq!(coming.pace(), Some(Duration::from_secs(1)));
        tokio::time::advance(Duration::from_secs(40)).await;
        assert_eq!(coming.pace(), Some(timing::PROBE_DOWN));
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(coming.pace(), None);
    }
}
