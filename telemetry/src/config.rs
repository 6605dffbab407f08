//! Reading a TracingConfiguration, as kube-apiserver reads it (R9.13).

use std::io::Read;
use std::path::Path;

use apiservice::field::{self, Path as Field};
use serde::Deserialize;

/// Versions under which k8s.io/apiserver has registered the kind.
const VERSIONS: [&str; 3] = [
    "apiserver.config.k8s.io/v1",
    "apiserver.config.k8s.io/v1beta1",
    "apiserver.config.k8s.io/v1alpha1",
];
const KIND: &str = "TracingConfiguration";
/// The most that a rate may be.
pub const MILLION: u32 = 1_000_000;
/// Where a collector listens unless the configuration says otherwise.
pub const DEFAULT: &str = "localhost:4317";
/// Bytes of the file.
const FILE_BYTES: u64 = 64 * 1024;
/// Schemes of an endpoint, as gRPC names them.
const SCHEMES: [&str; 3] = ["dns", "unix", "unix-abstract"];

/// Why a file cannot be used, in the words of kube-apiserver.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("unable to read tracing configuration from {file:?}: {why}")]
    Read { file: String, why: std::io::Error },
    #[error("unable to read tracing configuration from {0:?}: it has more than {FILE_BYTES} bytes")]
    Long(String),
    #[error("unable to decode tracing configuration data: {0}")]
    Decode(String),
}

/// What the file says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Configuration {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    endpoint: Option<String>,
    sampling_rate_per_million: Option<i32>,
}

impl Configuration {
    /// Of a million traces that begin here, how many are sampled. 0: only those that a caller
    /// has begun.
    pub fn rate(&self) -> u32 {
        let rate = self.sampling_rate_per_million.unwrap_or_default();
        u32::try_from(rate).unwrap_or_default()
    }

    /// Where the collector is, as it was written.
    pub fn endpoint(&self) -> &str {
        self.endpoint.as_deref().unwrap_or(DEFAULT)
    }
}

/// Reads a file.
///
/// # Errors
/// Why it cannot be read, or what is wrong with it.
pub fn read(file: &Path) -> Result<Configuration, crate::Error> {
    let name = || file.display().to_string();
    let unread = |why| Error::Read { file: name(), why };
    let mut text = String::new();
    let opened = std::fs::File::open(file).map_err(unread)?;
    let mut bounded = opened.take(FILE_BYTES + 1);
    bounded.read_to_string(&mut text).map_err(unread)?;
    if text.len() as u64 > FILE_BYTES {
        return Err(Error::Long(name()).into());
    }
    let config = parse(&text)?;
    let errors = validate(&config);
    match errors.is_empty() {
        true => Ok(config),
        false => Err(crate::Error::Invalid(errors.summary())),
    }
}

/// The words are ours: those of the reader quote the file.
fn parse(text: &str) -> Result<Configuration, Error> {
    let unread = |error: serde_saphyr::Error| Error::Decode(unread(&error));
    let config: Configuration = serde_saphyr::from_str(text).map_err(unread)?;
    if config.kind.is_empty() || config.api_version.is_empty() {
        let missing = match config.kind.is_empty() {
            true => "Kind",
            false => "apiVersion",
        };
        return Err(Error::Decode(format!("Object '{missing}' is missing")));
    }
    if config.kind != KIND || !VERSIONS.contains(&config.api_version.as_str()) {
        return Err(Error::Decode(format!(
            "no kind {:?} is registered for version {:?}",
            config.kind, config.api_version
        )));
    }
    Ok(config)
}

fn unread(error: &serde_saphyr::Error) -> String {
    use serde_saphyr::Error as E;
    let at = error.location();
    let place = at.map_or_else(String::new, |at| format!("line {}: ", at.line()));
    let what = match error.without_snippet() {
        E::SerdeUnknownField { field, .. } => {
            format!("strict decoding error: unknown field {field:?}")
        }
        E::DuplicateMappingKey { .. } => {
            "strict decoding error: a key is already set in map".to_owned()
        }
        _ => "it is not a TracingConfiguration".to_owned(),
    };
    format!("{place}{what}")
}

fn validate(config: &Configuration) -> field::Errors {
    let mut errors = field::Errors::new();
    if let Some(rate) = config.sampling_rate_per_million {
        let path = Field::new("samplingRatePerMillion");
        if rate < 0 {
            let why = "sampling rate must be positive";
            errors.push(field::Error::invalid(&path, rate, why));
        }
        if i64::from(rate) > i64::from(MILLION) {
            let why = "sampling rate per million must be less than or equal to one million";
            errors.push(field::Error::invalid(&path, rate, why));
        }
    }
    if let Some(endpoint) = &config.endpoint
        && let Err(why) = crate::endpoint::place(endpoint)
    {
        let path = Field::new("endpoint");
        errors.push(field::Error::invalid(&path, endpoint.as_str(), why));
    }
    errors
}

/// The scheme of an endpoint and what follows it; `dns` if none is said.
///
/// # Errors
/// In Kubernetes' words.
pub(crate) fn scheme(endpoint: &str) -> Result<(&str, &str), String> {
    // Kubernetes takes what has no `//` for HOST:PORT, and so for a name.
    let Some((scheme, rest)) = endpoint.split_once("//") else {
        return Ok(("dns", endpoint));
    };
    let scheme = scheme.strip_suffix(':').unwrap_or(scheme);
    match SCHEMES.contains(&scheme) {
        true => Ok((scheme, rest)),
        false => Err(format!(
            "unsupported scheme: {scheme}.  Options are none, dns, unix, or unix-abstract.  \
             See https://github.com/grpc/grpc/blob/master/doc/naming.md"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "apiVersion: apiserver.config.k8s.io/v1\nkind: TracingConfiguration\n";

    fn said(text: &str) -> Result<Configuration, String> {
        let file = std::env::temp_dir().join(format!("tracing-{}", std::process::id()));
        let file = file.with_extension(format!("{:?}", std::thread::current().id()));
        std::fs::write(&file, text).unwrap();
        let read = read(&file).map_err(|error| error.to_string());
        std::fs::remove_file(&file).unwrap();
        read
    }

    /// R9.13: what is left out has the meaning that it has in Kubernetes.
    #[test]
    fn a_file_is_read_as_kube_apiserver_reads_it() {
        let config = said(HEAD).unwrap();
        assert_eq!((config.rate(), config.endpoint()), (0, "localhost:4317"));
        for version in VERSIONS {
            let text = format!(
                "apiVersion: {version}\nkind: TracingConfiguration\nendpoint: a.b:1\nsamplingRatePerMillion: 7\n"
            );
            let config = said(&text).unwrap();
            assert_eq!((config.rate(), config.endpoint()), (7, "a.b:1"));
        }
    }

    /// R9.13.
    #[test]
    fn what_is_wrong_is_said_in_kubernetes_words() {
        let decode = "failed to read tracing config: unable to decode tracing configuration data: ";
        let invalid = "failed to validate tracing configuration: ";
        for (text, expected) in [
            (
                "samplingRatePerMillion: -1",
                format!(
                    "{invalid}samplingRatePerMillion: Invalid value: -1: sampling rate must be positive"
                ),
            ),
            (
                "samplingRatePerMillion: 1000001\nendpoint: http://a",
                format!(
                    "{invalid}[samplingRatePerMillion: Invalid value: 1000001: sampling rate per million must be less than or equal to one million, \
                     endpoint: Invalid value: \"http://a\": unsupported scheme: http.  Options are none, dns, unix, or unix-abstract.  \
                     See https://github.com/grpc/grpc/blob/master/doc/naming.md]"
                ),
            ),
            (
                "endpoints: a",
                format!("{decode}line 3: strict decoding error: unknown field \"endpoints\""),
            ),
            (
                "endpoint: [secret]",
                format!("{decode}line 3: it is not a TracingConfiguration"),
            ),
        ] {
            assert_eq!(said(&format!("{HEAD}{text}\n")), Err(expected), "{text}");
        }
        let other = "apiVersion: v1\nkind: Pod\n";
        let expected = format!("{decode}no kind \"Pod\" is registered for version \"v1\"");
        assert_eq!(said(other), Err(expected));
        assert_eq!(
            said("kind: x"),
            Err(format!("{decode}Object 'apiVersion' is missing"))
        );
        let long = "#".repeat(FILE_BYTES as usize + 1);
        assert!(said(&long).unwrap_err().contains("more than 65536 bytes"));
    }
}
