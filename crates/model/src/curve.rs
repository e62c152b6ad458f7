//! Values that change over time as somebody wrote down: what annotations say of usage and load.
//!
//! ```text
//! 250m                                             the same always
//! sine mean=500m amplitude=200m period=10m         around a mean; phase=2m30s begins later in it
//! steps 0s=100m 5m=500m 10m=100m repeat=15m        from each time on another value
//! trace inline=0s,100m;60s,500m repeat=2m          the same as rows
//! trace configmap=usage key=cpu.csv                rows `TIME,VALUE` from a ConfigMap
//! ```
//! Times are Go durations or plain seconds, values are quantities.

use std::f64::consts::TAU;
use std::time::Duration;

use crate::duration::parse as parse_duration;
use crate::quantity::Quantity;

/// The most rows of a trace.
const ROWS_MAX: usize = 100_000;
/// How often a smooth curve is looked at.
const SMOOTH: Duration = Duration::from_secs(5);

/// A value as a function of the time since some beginning.
#[derive(Clone, Debug, PartialEq)]
pub enum Curve {
    /// The same always.
    Constant(f64),
    /// Around a mean.
    Sine {
        /// The mean.
        mean: f64,
        /// How far above and below.
        amplitude: f64,
        /// How long a wave is.
        period: Duration,
        /// Where in the wave it begins.
        phase: Duration,
    },
    /// From each time on another value; zero before the first.
    Steps {
        /// Times and values, in their order.
        points: Vec<(Duration, f64)>,
        /// After how long it begins anew.
        repeat: Option<Duration>,
    },
}

/// Why a text is not a curve.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CurveError {
    /// It is none of the forms.
    #[error("{0:?} is not a curve; there are a quantity, \"sine\", \"steps\" and \"trace\"")]
    Form(String),
    /// A field is missing.
    #[error("{form} needs {field}=")]
    Missing {
        /// `sine`, `steps` or `trace`.
        form: &'static str,
        /// The field.
        field: &'static str,
    },
    /// A field is unknown or cannot be read.
    #[error("{field:?} of {form} cannot be read; {allowed}")]
    Field {
        /// `sine`, `steps` or `trace`.
        form: &'static str,
        /// As it was written.
        field: String,
        /// What may be written.
        allowed: &'static str,
    },
    /// A row cannot be read.
    #[error(
        "row {row} of {origin} is {text:?}; a row is TIME,VALUE such as 90s,250m, and times rise"
    )]
    Row {
        /// Its number from 1.
        row: usize,
        /// Where it is.
        origin: String,
        /// The row.
        text: String,
    },
    /// There are no rows, or too many.
    #[error("{origin} has {rows} rows; there must be 1 to {ROWS_MAX}")]
    Rows {
        /// Where they are.
        origin: String,
        /// How many.
        rows: usize,
    },
    /// The ConfigMap or its key is not there.
    #[error("there is no key {key:?} in a ConfigMap {name:?}")]
    NoConfigMap {
        /// The ConfigMap.
        name: String,
        /// The key.
        key: String,
    },
}

impl Curve {
    /// Reads a curve. `configmap` gives the text of a key of a ConfigMap.
    ///
    /// # Errors
    /// What is wrong, and where.
    pub fn parse(
        text: &str,
        configmap: &dyn Fn(&str, &str) -> Option<String>,
    ) -> Result<Self, CurveError> {
        let text = text.trim();
        if let Ok(value) = Quantity::parse(text) {
            return Ok(Self::Constant(value.as_f64()));
        }
        let (form, fields) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        match form {
            "sine" => sine(fields),
            "steps" => steps(fields),
            "trace" => trace(fields, configmap),
            _ => Err(CurveError::Form(text.to_owned())),
        }
    }

    /// The ConfigMap that a curve's text names, so that its changes can be heeded.
    pub fn configmap(text: &str) -> Option<&str> {
        let fields = text.trim().strip_prefix("trace")?;
        fields.split_whitespace().find_map(|field| field.strip_prefix("configmap="))
    }

    /// The value after so long; never negative.
    pub fn at(&self, since: Duration) -> f64 {
        match self {
            Self::Constant(value) => *value,
            Self::Sine { mean, amplitude, period, phase } => {
                let turns = (since + *phase).as_secs_f64() / period.as_secs_f64();
                mean + amplitude * (turns.fract() * TAU).sin()
            }
            Self::Steps { points, repeat } => {
                let since = within(since, *repeat);
                let passed = points.partition_point(|(from, _)| *from <= since);
                passed.checked_sub(1).map_or(0.0, |index| points[index].1)
            }
        }
        .max(0.0)
    }

    /// After how long since the beginning it changes next.
    pub fn changes(&self, since: Duration) -> Option<Duration> {
        match self {
            Self::Constant(_) => None,
            Self::Sine { .. } => Some(since + SMOOTH),
            Self::Steps { points, repeat } => {
                let inside = within(since, *repeat);
                let passed = points.partition_point(|(from, _)| *from <= inside);
                let next = points.get(passed).map(|(from, _)| *from).or(*repeat)?;
                // A point beyond the repetition is never reached.
                Some(since + (repeat.map_or(next, |repeat| next.min(repeat)) - inside))
            }
        }
    }
}

fn within(since: Duration, repeat: Option<Duration>) -> Duration {
    match repeat {
        Some(repeat) => {
            let nanos = since.as_nanos() % repeat.as_nanos().max(1);
            Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
        }
        None => since,
    }
}

fn time(text: &str) -> Option<Duration> {
    let text = text.trim();
    let nanos = parse_duration(text).ok().or_else(|| {
        let seconds: f64 = text.parse().ok()?;
        (seconds.is_finite() && seconds < 1e9).then_some((seconds * 1e9) as i64)
    })?;
    u64::try_from(nanos).ok().map(Duration::from_nanos)
}

fn value(text: &str) -> Option<f64> {
    let value = Quantity::parse(text.trim()).ok()?;
    (!value.is_negative()).then(|| value.as_f64())
}

fn sine(fields: &str) -> Result<Curve, CurveError> {
    const FORM: &str = "sine";
    let (mut mean, mut amplitude, mut period, mut phase) = (None, None, None, Duration::ZERO);
    for field in fields.split_whitespace() {
        let wrong = || CurveError::Field {
            form: FORM,
            field: field.to_owned(),
            allowed: "there are mean=QUANTITY, amplitude=QUANTITY, period=DURATION and phase=DURATION",
        };
        match field.split_once('=').ok_or_else(wrong)? {
            ("mean", text) => mean = Some(value(text).ok_or_else(wrong)?),
            ("amplitude", text) => amplitude = Some(value(text).ok_or_else(wrong)?),
            ("period", text) => {
                let positive = time(text).filter(|period| !period.is_zero());
                period = Some(positive.ok_or_else(wrong)?);
            }
            ("phase", text) => phase = time(text).ok_or_else(wrong)?,
            _ => return Err(wrong()),
        }
    }
    let missing = |field| CurveError::Missing { form: FORM, field };
    Ok(Curve::Sine {
        mean: mean.ok_or_else(|| missing("mean"))?,
        amplitude: amplitude.ok_or_else(|| missing("amplitude"))?,
        period: period.ok_or_else(|| missing("period"))?,
        phase,
    })
}

fn steps(fields: &str) -> Result<Curve, CurveError> {
    let (mut points, mut repeat) = (Vec::new(), None);
    for field in fields.split_whitespace() {
        let wrong = || CurveError::Field {
            form: "steps",
            field: field.to_owned(),
            allowed: "there are DURATION=QUANTITY in rising order and repeat=DURATION",
        };
        let (name, text) = field.split_once('=').ok_or_else(wrong)?;
        if name == "repeat" {
            repeat = Some(time(text).filter(|time| !time.is_zero()).ok_or_else(wrong)?);
            continue;
        }
        let point = (time(name).ok_or_else(wrong)?, value(text).ok_or_else(wrong)?);
        if points.last().is_some_and(|(last, _)| *last >= point.0) {
            return Err(wrong());
        }
        points.push(point);
    }
    if points.is_empty() {
        return Err(CurveError::Missing { form: "steps", field: "0s" });
    }
    Ok(Curve::Steps { points, repeat })
}

fn trace(
    fields: &str,
    configmap: &dyn Fn(&str, &str) -> Option<String>,
) -> Result<Curve, CurveError> {
    const FORM: &str = "trace";
    let (mut inline, mut name, mut key, mut repeat) = (None, None, None, None);
    for field in fields.split_whitespace() {
        let wrong = || CurveError::Field {
            form: FORM,
            field: field.to_owned(),
            allowed: "there are inline=ROWS, configmap=NAME, key=KEY and repeat=DURATION",
        };
        match field.split_once('=').ok_or_else(wrong)? {
            ("inline", text) => inline = Some(text),
            ("configmap", text) => name = Some(text),
            ("key", text) => key = Some(text),
            ("repeat", text) => {
                repeat = Some(time(text).filter(|time| !time.is_zero()).ok_or_else(wrong)?);
            }
            _ => return Err(wrong()),
        }
    }
    let (rows, origin) = match (inline, name) {
        (Some(inline), _) => (inline.replace(';', "\n"), "the inline trace".to_owned()),
        (None, Some(name)) => {
            let key = key.ok_or(CurveError::Missing { form: FORM, field: "key" })?;
            let text = configmap(name, key);
            let missing = || CurveError::NoConfigMap { name: name.to_owned(), key: key.to_owned() };
            (text.ok_or_else(missing)?, format!("{key} in ConfigMap {name}"))
        }
        (None, None) => return Err(CurveError::Missing { form: FORM, field: "configmap" }),
    };
    Ok(Curve::Steps { points: read_rows(&rows, &origin)?, repeat })
}

/// Rows `TIME,VALUE`. Empty lines, comments (`#`) and a heading are passed over.
fn read_rows(text: &str, origin: &str) -> Result<Vec<(Duration, f64)>, CurveError> {
    let mut points: Vec<(Duration, f64)> = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        let is_heading = index == 0 && line.starts_with("time,");
        if line.is_empty() || line.starts_with('#') || is_heading {
            continue;
        }
        let point = line.split_once(',').and_then(|(at, text)| Some((time(at)?, value(text)?)));
        let rises = |point: &(Duration, f64)| points.last().is_none_or(|last| last.0 < point.0);
        let point = point.filter(rises).ok_or_else(|| CurveError::Row {
            row: index + 1,
            origin: origin.to_owned(),
            text: line.chars().take(80).collect(),
        })?;
        points.push(point);
    }
    if points.is_empty() || points.len() > ROWS_MAX {
        return Err(CurveError::Rows { origin: origin.to_owned(), rows: points.len() });
    }
    Ok(points)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Result<Curve, CurveError> {
        Curve::parse(text, &|name, key| {
            let rows = match key {
                "good" => "time,cpu\n0,100m\n\n# then\n90s,1\n",
                "bad" => "0,100m\n60,lots\n",
                "back" => "60,1\n30,2\n",
                _ => return None,
            };
            (name == "usage").then(|| rows.to_owned())
        })
    }

    fn at(text: &str, seconds: u64) -> f64 {
        let curve = parse(text).expect("a curve");
        (curve.at(Duration::from_secs(seconds)) * 1e6).round() / 1e6
    }

    #[test]
    fn every_form_has_its_values() {
        for (text, values) in [
            ("250m", [(0, 0.25), (9_999, 0.25)]),
            ("sine mean=2 amplitude=1 period=60s", [(15, 3.0), (45, 1.0)]),
            ("sine mean=2 amplitude=1 period=60s phase=15s", [(0, 3.0), (30, 1.0)]),
            ("sine mean=1 amplitude=5 period=60s", [(45, 0.0), (0, 1.0)]),
            ("steps 0s=100m 5m=500m", [(299, 0.1), (300, 0.5)]),
            ("steps 10s=1 20s=2 repeat=30s", [(9, 0.0), (50, 2.0)]),
            ("trace inline=0,1;60,3 repeat=2m", [(59, 1.0), (180, 3.0)]),
            ("trace configmap=usage key=good", [(89, 0.1), (90, 1.0)]),
        ] {
            for (seconds, value) in values {
                assert_eq!(at(text, seconds), value, "{text} after {seconds}s");
            }
        }
        assert_eq!(Curve::configmap("trace configmap=usage key=good"), Some("usage"));
        assert_eq!(Curve::configmap("250m"), None);
    }

    #[test]
    fn what_is_wrong_is_told_in_one_line() {
        for (text, expected) in [
            (
                "lots",
                "\"lots\" is not a curve; there are a quantity, \"sine\", \"steps\" and \"trace\"",
            ),
            ("sine mean=1 period=1m", "sine needs amplitude="),
            (
                "sine mean=1 amplitude=1 period=0s",
                "\"period=0s\" of sine cannot be read; there are mean=QUANTITY, amplitude=QUANTITY, period=DURATION and phase=DURATION",
            ),
            (
                "steps 5m=1 0s=2",
                "\"0s=2\" of steps cannot be read; there are DURATION=QUANTITY in rising order and repeat=DURATION",
            ),
            (
                "trace configmap=usage key=bad",
                "row 2 of bad in ConfigMap usage is \"60,lots\"; a row is TIME,VALUE such as 90s,250m, and times rise",
            ),
            (
                "trace configmap=usage key=back",
                "row 2 of back in ConfigMap usage is \"30,2\"; a row is TIME,VALUE such as 90s,250m, and times rise",
            ),
            ("trace configmap=usage key=none", "there is no key \"none\" in a ConfigMap \"usage\""),
            ("trace", "trace needs configmap="),
        ] {
            assert_eq!(parse(text).expect_err(text).to_string(), expected);
        }
    }

    proptest! {
        /// Between two changes a stepped curve keeps its value, and changes lie ahead.
        #[test]
        fn changes_are_told(
            gaps in proptest::collection::vec((1_u64..100, 0_u32..5), 1..8),
            repeat in proptest::option::of(1_u64..500),
            since in 0_u64..2_000,
        ) {
            let mut from = 0;
            let points = gaps.iter().map(|(gap, value)| {
                from += gap;
                (Duration::from_secs(from), f64::from(*value))
            }).collect();
            let curve = Curve::Steps { points, repeat: repeat.map(Duration::from_secs) };
            let now = Duration::from_secs(since);
            if let Some(next) = curve.changes(now) {
                prop_assert!(next > now);
                for second in since..next.as_secs() {
                    prop_assert_eq!(curve.at(now), curve.at(Duration::from_secs(second)));
                }
            }
        }

        #[test]
        fn no_text_panics(text in "(sine|steps|trace)?( (mean|period|amplitude|inline|repeat|[0-9]{1,20}s?)=[-0-9a-zA-Z,;.]{0,12}){0,5}|\\PC{0,40}") {
            let _ = parse(&text);
        }
    }
}
