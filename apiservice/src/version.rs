//! Versions of Kubernetes as users write them.

use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;

/// A version of Kubernetes: `v1.36.3`, `1.36.3`, `v1.37.0-alpha.1`.
///
/// Ordered as semantic versions are. Prints with the `v`, as image tags have it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KubernetesVersion(semver::Version);

/// The text is not a version of Kubernetes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "must be a version of Kubernetes with three numbers, for example v{}.0",
    MAX
)]
pub struct ParseError;

/// Major and minor version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Minor(pub u64, pub u64);

/// The newest minor version that this build knows how to run.
pub const MAX: Minor = Minor(1, 36);

/// See [`accept_up_to`].
static ACCEPTED: OnceLock<Minor> = OnceLock::new();

/// What goes with a version of Kubernetes, out of a table with the newest first: the entry
/// of its minor version or of the next older one; the last for what is older than all, and
/// the first for what cannot be read. The table is not empty.
pub fn fitting<T: Copy, const N: usize>(table: &[(Minor, T); N], kubernetes: &str) -> T {
    const { assert!(N > 0) };
    let minor = kubernetes.parse::<KubernetesVersion>();
    let minor = minor.map_or(table[0].0, |version| version.minor());
    let entry = table.iter().find(|(since, _)| *since <= minor);
    entry.unwrap_or(&table[N - 1]).1
}

/// The newest minor version that is accepted: [`MAX`], unless an administrator has
/// widened it.
pub fn newest() -> Minor {
    *ACCEPTED.get_or_init(|| MAX)
}

/// Accepts versions that this build does not know, on the administrator's word. Once in
/// a process, at its start; a version older than [`MAX`] changes nothing.
pub fn accept_up_to(minor: Minor) {
    let _ = ACCEPTED.set(minor.max(MAX));
}

impl FromStr for Minor {
    type Err = String;

    /// `v1.37` or `1.37`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let numbers = text.strip_prefix('v').unwrap_or(text).split_once('.');
        let minor = numbers
            .and_then(|(major, minor)| Some(Minor(major.parse().ok()?, minor.parse().ok()?)));
        minor.ok_or_else(|| format!("must be a minor version, for example v{MAX}"))
    }
}

impl KubernetesVersion {
    /// Major and minor version.
    pub fn minor(&self) -> Minor {
        Minor(self.0.major, self.0.minor)
    }

    /// Neither an alpha, nor a beta, nor a release candidate.
    pub fn is_release(&self) -> bool {
        self.0.pre.is_empty()
    }

    /// The tag of the components' images, without a suffix of the user's.
    pub fn tag(&self) -> String {
        // A tag cannot hold the "+" before build metadata.
        self.to_string().replace('+', "_")
    }
}

impl FromStr for KubernetesVersion {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let version = semver::Version::parse(text.strip_prefix('v').unwrap_or(text))
            .map_err(|_| ParseError)?;
        if version.major == 0 {
            return Err(ParseError);
        }
        Ok(Self(version))
    }
}

impl fmt::Display for KubernetesVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v{}", self.0)
    }
}

impl fmt::Display for Minor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_v_is_optional_and_three_numbers_are_not() {
        let version: KubernetesVersion = "1.29.0".parse().unwrap();
        assert_eq!(version, "v1.29.0".parse().unwrap());
        assert_eq!(version.tag(), "v1.29.0");
        assert_eq!(version.minor(), Minor(1, 29));
        for bad in ["", "v", "1.29", "latest", "vv1.29.0", "1.29.0.1", "v0.1.0"] {
            assert_eq!(bad.parse::<KubernetesVersion>(), Err(ParseError), "{bad}");
        }
    }

    #[test]
    fn order_is_by_number() {
        let parse = |text: &str| text.parse::<KubernetesVersion>().unwrap();
        assert!(parse("v1.9.0") < parse("1.10.0"));
        assert!(parse("1.36.0-rc.1") < parse("1.36.0"));
    }
}
