//! What the port of health answers: whether everything is read, and all metrics.

use crate::context::Context;
use crate::process::health::Probed;

impl Probed for Context {
    fn unsynced(&self) -> Vec<&'static str> {
        self.caches.unsynced()
    }

    fn text(&self) -> String {
        self.metrics.refresh(self);
        self.metrics.encode()
    }
}
