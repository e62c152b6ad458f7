//! The flags of a Prometheus as a source, named as the Vertical Pod Autoscaler's are.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use wharf_controllers::vpa::Storage;

use crate::failure::Failure;
use crate::prometheus::{self, Client, HistorySettings, Settings, Source, Sources};

/// The most values of one series that Prometheus gives in one answer.
const POINTS_MAX: u64 = 11_000;

/// What autoscalers have of a Prometheus.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Prometheus, for autoscalers")]
pub(crate) struct PrometheusArgs {
    /// Custom and external metrics for HorizontalPodAutoscalers: a file of rules with queries
    #[arg(long, value_name = "FILE")]
    prometheus_rules: Option<PathBuf>,
    /// With what the VerticalPodAutoscaler's recommender begins
    #[arg(long, value_enum, default_value_t, value_name = "STORAGE")]
    storage: StorageChoice,
    /// Where Prometheus is
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:9090")]
    prometheus_address: String,
    /// How long one answer may take
    #[arg(long, value_name = "SPAN", default_value = "5m", value_parser = span)]
    prometheus_query_timeout: Duration,
    /// The job under which cAdvisor is scraped; empty for any
    #[arg(long, value_name = "NAME", default_value = "kubernetes-cadvisor")]
    prometheus_cadvisor_job_name: String,
    /// A bearer token for Prometheus
    #[arg(long, value_name = "TOKEN", conflicts_with_all = ["username", "prometheus_bearer_token_file"])]
    prometheus_bearer_token: Option<String>,
    /// A file with a bearer token for Prometheus
    #[arg(long, value_name = "FILE", conflicts_with = "username")]
    prometheus_bearer_token_file: Option<PathBuf>,
    /// Certificate authorities to trust instead of the system's
    #[arg(long, value_name = "FILE", conflicts_with = "prometheus_insecure")]
    prometheus_ca_file: Option<PathBuf>,
    /// Trust whoever answers
    #[arg(long)]
    prometheus_insecure: bool,
    /// User name at Prometheus [default: $PROMETHEUS_USERNAME]
    #[arg(long, value_name = "NAME")]
    username: Option<String>,
    /// Password at Prometheus [default: $PROMETHEUS_PASSWORD]
    #[arg(long, value_name = "PASSWORD")]
    password: Option<String>,
    /// How far back
    #[arg(long, value_name = "SPAN", default_value = "8d", value_parser = span)]
    history_length: Duration,
    /// In steps of
    #[arg(long, value_name = "SPAN", default_value = "1h", value_parser = span)]
    history_resolution: Duration,
    /// The metric that has the labels of pods
    #[arg(long, value_name = "QUERY", default_value = "up{job=\"kubernetes-pods\"}")]
    metric_for_pod_labels: String,
    /// With what the names of those labels begin there
    #[arg(long, value_name = "PREFIX", default_value = "pod_label_")]
    pod_label_prefix: String,
    /// What it calls the namespace
    #[arg(long, value_name = "LABEL", default_value = "kubernetes_namespace", value_parser = label)]
    pod_namespace_label: String,
    /// What it calls the pod
    #[arg(long, value_name = "LABEL", default_value = "kubernetes_pod_name", value_parser = label)]
    pod_name_label: String,
    /// What cAdvisor's metrics call the namespace
    #[arg(long, value_name = "LABEL", default_value = "namespace", value_parser = label)]
    container_namespace_label: String,
    /// What they call the pod
    #[arg(long, value_name = "LABEL", default_value = "pod_name", value_parser = label)]
    container_pod_name_label: String,
    /// What they call the container
    #[arg(long, value_name = "LABEL", default_value = "name", value_parser = label)]
    container_name_label: String,
}

/// With what the recommender begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum StorageChoice {
    /// Its own checkpoints
    #[default]
    Checkpoint,
    /// Usage that Prometheus has kept; checkpoints where that fails
    Prometheus,
}

impl PrometheusArgs {
    /// With what the recommender begins.
    pub(crate) fn storage(&self) -> Storage {
        match self.storage {
            StorageChoice::Checkpoint => Storage::Checkpoint,
            StorageChoice::Prometheus => Storage::Prometheus,
        }
    }

    /// What Prometheus is asked for.
    pub(crate) fn sources(&self) -> Result<Sources, Failure> {
        Ok(Sources { history: self.history()?, metrics: self.metrics()? })
    }

    fn metrics(&self) -> Result<Option<Source>, Failure> {
        let Some(file) = &self.prometheus_rules else { return Ok(None) };
        let name = file.display().to_string();
        let text = std::fs::read_to_string(file)
            .map_err(|error| Failure::bad_input(format!("{name}: {error}")))?;
        let rules = prometheus::load(&text, &name).map_err(Failure::bad_input)?;
        Ok(Some(Source::new(self.client()?, rules)))
    }

    /// Whom to ask for history, and for what; `None` if nobody is asked.
    fn history(&self) -> Result<Option<(Client, HistorySettings)>, Failure> {
        if self.storage == StorageChoice::Checkpoint {
            return Ok(None);
        }
        let (length, resolution) = (self.history_length, self.history_resolution);
        if resolution.as_secs() == 0 || length < resolution {
            return Err(Failure::bad_input(
                "--history-resolution must be at least 1s and at most --history-length",
            ));
        }
        let points = length.as_secs() / resolution.as_secs();
        if points > POINTS_MAX {
            return Err(Failure::bad_input(format!(
                "--history-length in steps of --history-resolution are {points} values, and Prometheus gives at most {POINTS_MAX}; make the steps longer"
            )));
        }
        let settings = HistorySettings {
            length,
            resolution,
            job: self.prometheus_cadvisor_job_name.clone(),
            container_namespace: self.container_namespace_label.clone(),
            container_pod: self.container_pod_name_label.clone(),
            container: self.container_name_label.clone(),
            pod_labels: self.metric_for_pod_labels.clone(),
            pod_label_prefix: self.pod_label_prefix.clone(),
            pod_namespace: self.pod_namespace_label.clone(),
            pod: self.pod_name_label.clone(),
        };
        Ok(Some((self.client()?, settings)))
    }

    /// The Prometheus.
    fn client(&self) -> Result<Client, Failure> {
        let has_token =
            self.prometheus_bearer_token.is_some() || self.prometheus_bearer_token_file.is_some();
        let or_env = |given: &Option<String>, name: &str| {
            given.clone().or_else(|| std::env::var(name).ok()).filter(|text| !text.is_empty())
        };
        let user = or_env(&self.username, "PROMETHEUS_USERNAME").filter(|_| !has_token);
        let password = or_env(&self.password, "PROMETHEUS_PASSWORD").unwrap_or_default();
        let settings = Settings {
            address: self.prometheus_address.clone(),
            timeout: self.prometheus_query_timeout,
            user: user.map(|user| (user, password)),
            token: self.prometheus_bearer_token.clone(),
            token_file: self.prometheus_bearer_token_file.clone(),
            ca_file: self.prometheus_ca_file.clone(),
            insecure: self.prometheus_insecure,
        };
        Client::new(settings)
            .map_err(|error| Failure::bad_input(format!("--prometheus-address: {error}")))
    }
}

/// A duration as Prometheus writes it: `8d`, `1h30m`, in this order.
fn span(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a duration; write it as 8d, 1h or 5m30s");
    let units =
        [("y", 31_536_000_000), ("w", 604_800_000), ("d", 86_400_000), ("h", 3_600_000_u64)];
    let units = units.iter().chain(&[("ms", 1), ("m", 60_000), ("s", 1_000)]);
    let units: Vec<(&str, u64)> = units.copied().collect();
    let (mut rest, mut millis, mut largest) = (text, 0_u64, u64::MAX);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).filter(|end| *end > 0);
        let (number, after) = rest.split_at(digits.ok_or_else(wrong)?);
        let unit = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(unit);
        let of = units.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?.1;
        let number: u64 = number.parse().map_err(|_| wrong())?;
        if of >= largest {
            return Err(wrong());
        }
        largest = of;
        let more = number.checked_mul(of).and_then(|more| millis.checked_add(more));
        millis = more.ok_or_else(wrong)?;
        rest = after;
    }
    if text.is_empty() { Err(wrong()) } else { Ok(Duration::from_millis(millis)) }
}

/// The name of a metric's label.
fn label(text: &str) -> Result<String, String> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if text.chars().all(is_part) && text.starts_with(|c: char| !c.is_ascii_digit()) {
        Ok(text.to_owned())
    } else {
        Err("write the name of a metric's label: letters, digits and _".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_prometheus() {
        for (text, seconds) in [
            ("8d", Some(691_200)),
            ("1h30m", Some(5_400)),
            ("5m", Some(300)),
            ("1w", Some(604_800)),
            ("0s", Some(0)),
            ("", None),
            ("8", None),
            ("d", None),
            ("1m1h", None),
            ("1h1h", None),
            ("1.5h", None),
            ("99999999999999999y", None),
        ] {
            assert_eq!(span(text).ok().map(|span| span.as_secs()), seconds, "{text}");
        }
        assert_eq!(span("1s500ms"), Ok(Duration::from_millis(1_500)));
    }
}
