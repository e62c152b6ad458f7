//! Measurements in the form Prometheus reads: counts, gauges and histograms as text.
//!
//! What is measured lives with who measures; here is how a histogram counts and how all of it is
//! written. Format: <https://prometheus.io/docs/instrumenting/exposition_formats/>.

use std::fmt::{Display, Write as _};

/// The media type of the text.
pub const MEDIA_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// How often something was how large.
#[derive(Clone, Debug, PartialEq)]
pub struct Histogram {
    bounds: Vec<f64>,
    /// One for each bound, not summed up, and one for what is beyond the last.
    counts: Vec<u64>,
    sum: f64,
}

impl Histogram {
    /// An empty one with `count` bounds, each `factor` times the one before.
    pub fn exponential(first: f64, factor: f64, count: usize) -> Self {
        let bounds: Vec<_> =
            std::iter::successors(Some(first), |bound| Some(bound * factor)).take(count).collect();
        Self { counts: vec![0; bounds.len() + 1], bounds, sum: 0.0 }
    }

    /// Counts a value.
    pub fn observe(&mut self, value: f64) {
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        self.counts[bucket] += 1;
        self.sum += value;
    }

    /// How many values there were.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}

/// The text, family by family.
#[derive(Debug, Default)]
pub struct Exposition(String);

impl Exposition {
    /// Begins a family: what follows until the next one are its samples.
    pub fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    /// A sample.
    pub fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.0.push_str(name);
        self.labels(labels, None);
        let _ = writeln!(self.0, " {value}");
    }

    /// The samples of a histogram.
    pub fn histogram(&mut self, name: &str, labels: &[(&str, &str)], histogram: &Histogram) {
        let mut below = 0;
        for (bound, count) in histogram.bounds.iter().zip(&histogram.counts) {
            below += count;
            let _ = write!(self.0, "{name}_bucket");
            self.labels(labels, Some(&bound.to_string()));
            let _ = writeln!(self.0, " {below}");
        }
        let _ = write!(self.0, "{name}_bucket");
        self.labels(labels, Some("+Inf"));
        let _ = writeln!(self.0, " {}", histogram.count());
        self.sample(&format!("{name}_sum"), labels, histogram.sum);
        self.sample(&format!("{name}_count"), labels, histogram.count());
    }

    /// The whole text.
    pub fn into_text(self) -> String {
        self.0
    }

    fn labels(&mut self, labels: &[(&str, &str)], bound: Option<&str>) {
        let bound = bound.map(|bound| ("le", bound));
        let mut before = '{';
        for (name, value) in labels.iter().copied().chain(bound) {
            self.0.push(before);
            before = ',';
            let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(self.0, "{name}=\"{value}\"");
        }
        if before == ',' {
            self.0.push('}');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn histograms_are_written_summed_up() {
        let mut histogram = Histogram::exponential(1.0, 2.0, 3);
        for value in [0.5, 1.0, 3.0, 9.0] {
            histogram.observe(value);
        }
        let mut text = Exposition::default();
        text.family("x", "histogram", "Help.");
        text.histogram("x", &[("a", "b\"c")], &histogram);
        assert_eq!(
            text.into_text(),
            "# HELP x Help.\n# TYPE x histogram\n\
             x_bucket{a=\"b\\\"c\",le=\"1\"} 2\nx_bucket{a=\"b\\\"c\",le=\"2\"} 2\n\
             x_bucket{a=\"b\\\"c\",le=\"4\"} 3\nx_bucket{a=\"b\\\"c\",le=\"+Inf\"} 4\n\
             x_sum{a=\"b\\\"c\"} 13.5\nx_count{a=\"b\\\"c\"} 4\n"
        );
    }
}
