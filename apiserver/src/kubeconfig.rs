//! A kubeconfig, read from a file.

use std::path::Path;

use kube::Config;
use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};

/// Why a kubeconfig cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Without the decoder's words: they quote the file, which has tokens and keys, and a
    /// name that is not known may be a token itself.
    #[error("failed to parse kubeconfig YAML: line {line}, column {column}")]
    Yaml { line: u64, column: u64 },
    #[error(transparent)]
    Other(KubeconfigError),
}

impl From<KubeconfigError> for Error {
    fn from(error: KubeconfigError) -> Self {
        match error {
            KubeconfigError::Parse(error) => {
                let place = error.location();
                Error::Yaml {
                    line: place.map_or(0, |place| place.line()),
                    column: place.map_or(0, |place| place.column()),
                }
            }
            other => Error::Other(other),
        }
    }
}

/// What the current context of the file says.
///
/// # Errors
/// When the file, or another that it names, cannot be read or used.
pub async fn read(path: &Path) -> Result<Config, Error> {
    let kubeconfig = Kubeconfig::read_from(path)?;
    let options = KubeConfigOptions::default();
    Ok(Config::from_custom_kubeconfig(kubeconfig, &options).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A colon without a space behind it, a list that is none, an alias of nothing.
    #[tokio::test]
    async fn nothing_of_the_file_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("kubeconfig");
        for user in [
            "{token:hunter2}",
            "{token: [hunter2]}",
            "{token: *hunter2}",
            "hunter2",
            "{tokenFile: hunter2, token: {a: hunter2}}",
            "{token: \"hunter2}",
        ] {
            let text =
                format!("apiVersion: v1\nkind: Config\nusers:\n- name: hunter2\n  user: {user}\n");
            std::fs::write(&path, text).unwrap();
            let Err(error) = read(&path).await else {
                continue;
            };
            let told = format!("{error} {error:?}");
            assert!(!told.contains("hunter2"), "{told}");
        }
        std::fs::write(&path, "users:\n- name: a\n  user: [hunter2]\n").unwrap();
        let told = read(&path).await.unwrap_err().to_string();
        assert!(
            told.starts_with("failed to parse kubeconfig YAML: line 3, column "),
            "{told}"
        );
    }
}
