//! Versions of Kubernetes as users write them.

use std::fmt;
use std::str::FromStr;

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

impl KubernetesVersion {
    /// Major and minor version.
    pub fn minor(&self) -> Minor {
        Minor(self.0.major, self.0.minor)
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
