//! The subscriber of a process: lines of its log, and spans if they are asked for.

use std::io::IsTerminal;
use std::path::Path;

use tracing_subscriber::fmt::writer::BoxMakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use crate::{Component, Error, Exporting, start};

/// Where lines of the log go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    Stdout,
    Stderr,
}

/// What is written into the log, and how.
#[derive(Clone, Copy, Debug)]
pub struct Lines<'a> {
    /// For example `info,apiserver=debug`.
    pub filter: &'a str,
    /// One JSON object a line, instead of text for people.
    pub json: bool,
    /// Where to.
    pub to: Stream,
}

/// Makes the subscriber of the process, with spans if there is a `TracingConfiguration`. One
/// that is there already stands, as where tests start several servers in one process.
///
/// # Errors
/// A filter that cannot be read, and see [`start`].
pub fn install(
    lines: Lines<'_>,
    spans: Option<&Path>,
    component: Component,
) -> Result<Option<Exporting>, Error> {
    let filter = EnvFilter::builder().parse(lines.filter)?;
    let (writer, ansi) = match lines.to {
        Stream::Stdout => (
            BoxMakeWriter::new(std::io::stdout),
            std::io::stdout().is_terminal(),
        ),
        Stream::Stderr => (
            BoxMakeWriter::new(std::io::stderr),
            std::io::stderr().is_terminal(),
        ),
    };
    let layer = tracing_subscriber::fmt::layer()
        .with_ansi(ansi)
        .with_writer(writer);
    let layer = match lines.json {
        true => layer.json().boxed(),
        false => layer.boxed(),
    };
    let subscriber = tracing_subscriber::registry();
    let Some(file) = spans else {
        // Without the filter of each layer a line that nobody wants costs less.
        let _ = subscriber.with(layer).with(filter).try_init();
        return Ok(None);
    };
    let (spans, exporting) = start(file, component)?;
    let layer = layer.with_filter(filter);
    let _ = subscriber.with(layer).with(spans).try_init();
    Ok(Some(exporting))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_that_cannot_be_read_is_refused() {
        let lines = Lines {
            filter: "a=b=c",
            json: true,
            to: Stream::Stderr,
        };
        let component = Component {
            service: "test",
            instance: String::new(),
            crates: &[],
        };
        let refused = install(lines, None, component);
        let told = refused
            .err()
            .map(|error| error.to_string())
            .unwrap_or_default();
        assert!(told.starts_with("cannot read the log filter"), "{told}");
    }
}
