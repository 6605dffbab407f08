//! Figures: percentiles, the table and the file.

use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use crate::failure::{Doing, Result};

/// What a figure is given in, and whether less of it is better.
#[derive(Clone, Copy)]
pub struct Unit(&'static str, bool);

pub const SECONDS: Unit = Unit("s", true);
pub const MILLISECONDS: Unit = Unit("ms", true);
pub const MEBIBYTES: Unit = Unit("MiB", true);
pub const CREATES: Unit = Unit("creates/s", false);

/// One line: ours beside the peer's.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    pub name: String,
    pub unit: &'static str,
    pub ours: f64,
    pub peer: f64,
    /// Ours divided by the peer's.
    pub ratio: f64,
    pub peer_name: &'static str,
    /// Whether a ratio below 1 is the better one.
    #[serde(skip)]
    less_is_better: bool,
}

/// All lines of a run.
#[derive(Default)]
pub struct Report(Vec<Row>);

impl Report {
    /// A figure, ours and the peer's.
    pub fn add(
        &mut self,
        name: &str,
        Unit(unit, less_is_better): Unit,
        ours: f64,
        peer: f64,
        peer_name: &'static str,
    ) {
        let row = Row {
            name: name.to_owned(),
            unit,
            ours,
            peer,
            ratio: ours / peer,
            peer_name,
            less_is_better,
        };
        eprintln!(
            "   {name}: {} {unit}, peer {} ({:.2})",
            figure(ours),
            figure(peer),
            row.ratio
        );
        self.0.push(row);
    }

    /// Writes all lines as JSON.
    pub fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(&self.0).doing(|| "encode the results".into())?;
        std::fs::write(path, text + "\n").doing(|| format!("write {}", path.display()))
    }

    /// All lines as tables in Markdown, one for each peer, aligned for a terminal.
    pub fn tables(&self) -> String {
        let mut peers: Vec<&str> = self.0.iter().map(|row| row.peer_name).collect();
        peers.dedup();
        let mut text = String::new();
        for peer in peers {
            let header = ["What", "Unit", "Steward", "Peer", "Ratio", "Better"];
            let mut lines = vec![header.map(str::to_owned)];
            lines.extend(
                self.0
                    .iter()
                    .filter(|row| row.peer_name == peer)
                    .map(|row| {
                        [
                            row.name.clone(),
                            row.unit.to_owned(),
                            figure(row.ours),
                            figure(row.peer),
                            format!("{:.2}", row.ratio),
                            if row.less_is_better { "less" } else { "more" }.to_owned(),
                        ]
                    }),
            );
            text.push_str(&format!("\nPeer: {peer}.\n\n{}", markdown(&lines)));
        }
        text
    }
}

/// Lines as a table in Markdown; the first is the header.
pub fn markdown<const N: usize>(lines: &[[String; N]]) -> String {
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max();
    let widths: [usize; N] = std::array::from_fn(|column| width(column).unwrap_or(0));
    let mut text = String::new();
    for (number, line) in lines.iter().enumerate() {
        for (cell, width) in line.iter().zip(widths) {
            text.push_str(&format!("| {cell:width$} "));
        }
        text.push_str("|\n");
        if number == 0 {
            widths
                .iter()
                .for_each(|width| text.push_str(&format!("|-{}-", "-".repeat(*width))));
            text.push_str("|\n");
        }
    }
    text
}

/// Three significant digits, or all before the point.
pub fn figure(value: f64) -> String {
    match value.abs() {
        it if it >= 100.0 => format!("{value:.0}"),
        it if it >= 10.0 => format!("{value:.1}"),
        it if it >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// Measured values of one kind.
#[derive(Clone, Debug, Default)]
pub struct Values(Vec<f64>);

impl Values {
    /// The smallest value that `percent` of all do not exceed; NaN of none.
    pub fn percentile(&self, percent: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let rank = (percent / 100.0 * sorted.len() as f64).ceil() as usize;
        sorted
            .get(rank.saturating_sub(1))
            .copied()
            .unwrap_or(f64::NAN)
    }

    pub fn push(&mut self, value: f64) {
        self.0.push(value);
    }
}

impl Extend<f64> for Values {
    fn extend<T: IntoIterator<Item = f64>>(&mut self, values: T) {
        self.0.extend(values);
    }
}

impl FromIterator<f64> for Values {
    fn from_iter<T: IntoIterator<Item = f64>>(values: T) -> Self {
        Self(values.into_iter().collect())
    }
}

/// A duration in milliseconds.
pub fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}
