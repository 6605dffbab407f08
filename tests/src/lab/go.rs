//! How programs written in Go run here.

use std::sync::OnceLock;

/// The variable with which Go is told how often to collect garbage.
pub const VARIABLE: &str = "GOGC";

/// By so many percent the heap may grow between two collections. With Go's own 100 a
/// kube-apiserver that starts spends a third to a half of its time on them, for its heap is
/// small and grows; with this it takes 100 MiB more.
const GROWTH: &str = "400";

static CHOSEN: OnceLock<String> = OnceLock::new();

/// What is started and built from now on runs as by Go's default: for those who compare
/// memory, before they start anything.
pub fn by_default() {
    // A second time it is that already.
    let _ = CHOSEN.set("100".to_owned());
}

/// What the variable is set to: by the environment of this process, or else to what suits
/// tests.
pub fn growth() -> String {
    let given = || std::env::var(VARIABLE).unwrap_or_else(|_| GROWTH.to_owned());
    CHOSEN.get_or_init(given).clone()
}

/// The same for an image.
pub fn environment() -> Vec<String> {
    vec![format!("{VARIABLE}={}", growth())]
}
