//! How programs written in Go run here.

/// The variable with which Go is told how often to collect garbage.
pub const VARIABLE: &str = "GOGC";

/// By so many percent the heap may grow between two collections. With Go's own 100 a
/// kube-apiserver that starts spends a third to a half of its time on them, for its heap is
/// small and grows; with this it takes 100 MiB more.
const GROWTH: &str = "400";

/// What it is set to: by the environment of this process, or else to what suits tests.
/// Whoever compares memory says `GOGC=100`.
pub fn growth() -> String {
    std::env::var(VARIABLE).unwrap_or_else(|_| GROWTH.to_owned())
}

/// The same for an image.
pub fn environment() -> Vec<String> {
    vec![format!("{VARIABLE}={}", growth())]
}
