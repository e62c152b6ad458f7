//! `KubeSchedulerConfiguration` files (`kubescheduler.config.k8s.io/v1`), in YAML or JSON: profiles
//! with their plugins and arguments, extenders, backoff.
//!
//! Fields, defaults, merging and validation are upstream's. What upstream accepts is accepted;
//! fields that mean nothing here (ports, profiling, the client's connection) are checked and kept.
//! Everything else is refused with one line that names the field and what is allowed.

mod affinity;
mod args;
mod extender;
mod field;
mod plugins;

use std::time::Duration;

use serde_json::Value;

use crate::profile::{Plugin, Profile};
use field::{Field, Wrong};
use plugins::{Plugins, Point};

pub use extender::{Extender, ExtenderTls, ManagedResource};

const GROUP: &str = "kubescheduler.config.k8s.io";
/// The API version of configuration files.
pub const API_VERSION: &str = "kubescheduler.config.k8s.io/v1";
/// Their kind.
pub const KIND: &str = "KubeSchedulerConfiguration";

/// A scheduler's configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Configuration {
    /// The profiles, in the order of the file; at least one, no name twice.
    pub profiles: Vec<Profile>,
    /// The programs that are asked over HTTP, those that may fail last.
    pub extenders: Vec<Extender>,
    /// The first wait of a pod that could not be scheduled.
    pub pod_initial_backoff: Duration,
    /// The longest.
    pub pod_max_backoff: Duration,
    /// Upstream's number of workers. One pod's decision runs on one core here.
    pub parallelism: u32,
    /// How to reach the API server, for a scheduler that runs beside one.
    pub client_connection: ClientConnection,
    /// How to be one of several schedulers of which one works.
    pub leader_election: LeaderElection,
}

/// How to reach the API server.
#[derive(Clone, Debug, PartialEq)]
pub struct ClientConnection {
    /// The kubeconfig file; empty for the usual places.
    pub kubeconfig: String,
    /// Requests a second.
    pub qps: f64,
    /// Requests at once beyond that.
    pub burst: i64,
}

/// How to be one of several schedulers of which one works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaderElection {
    /// Whether to stand for election at all.
    pub leader_elect: bool,
    /// How long others wait before they take over.
    pub lease_duration: Duration,
    /// How long the leader tries to renew before it gives up.
    pub renew_deadline: Duration,
    /// Between two tries.
    pub retry_period: Duration,
    /// Where the lease is.
    pub resource_namespace: String,
    /// What it is called.
    pub resource_name: String,
}

/// Why a configuration cannot be used: one line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The text is neither YAML nor JSON.
    #[error("{file}:{line}:{column}: {says}")]
    Syntax {
        /// The file.
        file: String,
        /// Where, from 1; 0 if it is not known.
        line: u64,
        /// Where in the line, from 1.
        column: u64,
        /// What the parser says.
        says: String,
    },
    /// A field is wrong.
    #[error("{file}: {path}: {says}")]
    Field {
        /// The file.
        file: String,
        /// The field.
        path: String,
        /// What is wrong with it and what is allowed.
        says: String,
    },
}

impl Default for Configuration {
    /// Upstream's defaults: one profile.
    fn default() -> Self {
        Self {
            profiles: vec![Profile::default()],
            extenders: Vec::new(),
            pod_initial_backoff: Duration::from_secs(1),
            pod_max_backoff: Duration::from_secs(10),
            parallelism: 16,
            client_connection: ClientConnection {
                kubeconfig: String::new(),
                qps: 50.0,
                burst: 100,
            },
            leader_election: LeaderElection {
                leader_elect: true,
                lease_duration: Duration::from_secs(15),
                renew_deadline: Duration::from_secs(10),
                retry_period: Duration::from_secs(2),
                resource_namespace: "kube-system".to_owned(),
                resource_name: "kube-scheduler".to_owned(),
            },
        }
    }
}

impl From<Profile> for Configuration {
    /// The default configuration with one profile.
    fn from(profile: Profile) -> Self {
        Self { profiles: vec![profile], ..Self::default() }
    }
}

/// Reads a configuration from its text; `file` is for messages.
///
/// # Errors
/// If the text is not YAML or JSON, or a field is unknown, missing or out of bounds.
pub fn load(text: &str, file: &str) -> Result<Configuration, ConfigError> {
    let options = serde_saphyr::options! { with_snippet: false };
    let value: Value = serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let place = error.location();
        let says = error.render_with_formatter(&serde_saphyr::UserMessageFormatter);
        let says = says.lines().next().unwrap_or_default();
        ConfigError::Syntax {
            file: file.to_owned(),
            line: place.map_or(0, |place| place.line()),
            column: place.map_or(0, |place| place.column()),
            // The place is told once.
            says: says.split(" at line ").next().unwrap_or(says).to_owned(),
        }
    })?;
    read(&Field::root(&value)).map_err(|Wrong { path, says }| {
        let path = if path.is_empty() { "the file".to_owned() } else { path };
        ConfigError::Field { file: file.to_owned(), path, says }
    })
}

fn read(root: &Field<'_>) -> Result<Configuration, Wrong> {
    let root = root.only(&[
        "apiVersion",
        "kind",
        "parallelism",
        "leaderElection",
        "clientConnection",
        "enableProfiling",
        "enableContentionProfiling",
        "percentageOfNodesToScore",
        "podInitialBackoffSeconds",
        "podMaxBackoffSeconds",
        "profiles",
        "extenders",
        "delayCacheUntilActive",
    ])?;
    for (name, wanted) in [("apiVersion", API_VERSION), ("kind", KIND)] {
        let given = root.required_text(name)?;
        if given != wanted {
            return Err(root.wrong_at(name, format!("{given:?} is not known; write {wanted}")));
        }
    }
    for name in ["enableProfiling", "enableContentionProfiling", "delayCacheUntilActive"] {
        root.flag(name)?;
    }
    let defaults = Configuration::default();
    let seconds = |name: &str, default: Duration| -> Result<Duration, Wrong> {
        let number = root.number(name, 1..=i64::from(i32::MAX))?;
        Ok(number.map_or(default, |number| Duration::from_secs(number.unsigned_abs())))
    };
    let pod_initial_backoff = seconds("podInitialBackoffSeconds", defaults.pod_initial_backoff)?;
    let pod_max_backoff = seconds("podMaxBackoffSeconds", defaults.pod_max_backoff)?;
    if pod_max_backoff < pod_initial_backoff {
        return Err(root.wrong_at(
            "podMaxBackoffSeconds",
            format!(
                "{} is less than podInitialBackoffSeconds, which is {}",
                pod_max_backoff.as_secs(),
                pod_initial_backoff.as_secs()
            ),
        ));
    }
    let parallelism = root.number("parallelism", 1..=i64::from(i32::MAX))?;
    let extenders = extender::read(&root)?;
    let mut profiles = profiles(&root)?;
    for extender in &extenders {
        let ignored = extender.managed_resources.iter().filter(|m| m.ignored_by_scheduler);
        let ignored: Vec<_> = ignored.map(|managed| managed.name.clone()).collect();
        for profile in &mut profiles {
            profile.arguments.ignored_resources.extend_from_slice(&ignored);
        }
    }
    Ok(Configuration {
        profiles,
        extenders,
        pod_initial_backoff,
        pod_max_backoff,
        parallelism: parallelism
            .and_then(|number| u32::try_from(number).ok())
            .unwrap_or(defaults.parallelism),
        client_connection: client_connection(&root, defaults.client_connection)?,
        leader_election: leader_election(&root, defaults.leader_election)?,
    })
}

fn profiles(root: &Field<'_>) -> Result<Vec<Profile>, Wrong> {
    let percentage = root.number("percentageOfNodesToScore", 0..=100)?.unwrap_or(0);
    let fields = root.items("profiles")?;
    if fields.is_empty() {
        let percentage_of_nodes_to_score = u32::try_from(percentage).unwrap_or(0);
        return Ok(vec![Profile { percentage_of_nodes_to_score, ..Profile::default() }]);
    }
    let mut profiles: Vec<Profile> = Vec::new();
    for field in &fields {
        let field = field.only(&[
            "schedulerName",
            "percentageOfNodesToScore",
            "plugins",
            "pluginConfig",
        ])?;
        let name = match field.text_at("schedulerName")?.filter(|name| !name.is_empty()) {
            Some(name) => name,
            None if fields.len() == 1 => "default-scheduler",
            None => {
                return Err(
                    field.wrong_at("schedulerName", "is required where there are several profiles")
                );
            }
        };
        if profiles.iter().any(|other| other.scheduler_name == name) {
            return Err(
                field.wrong_at("schedulerName", format!("{name:?} is another profile's name too"))
            );
        }
        let own = field.number("percentageOfNodesToScore", 0..=100)?;
        let plugins = match field.get("plugins") {
            Some(plugins) => Plugins::read(&plugins)?,
            None => Plugins::defaults(),
        };
        let mut profile = Profile {
            scheduler_name: name.into(),
            percentage_of_nodes_to_score: u32::try_from(own.unwrap_or(percentage)).unwrap_or(0),
            ..of_plugins(&plugins)
        };
        args::read(&field, &mut profile)?;
        profiles.push(profile);
    }
    // One queue sorts the pods of all profiles. There is but one plugin that sorts, so the
    // profiles cannot differ in it.
    Ok(profiles)
}

/// A profile with these plugins.
fn of_plugins(plugins: &Plugins) -> Profile {
    Profile {
        pre_enqueue: plugins.set(Point::PreEnqueue),
        filters: plugins.list(Point::Filter),
        preemption: plugins.set(Point::PostFilter).contains(Plugin::DefaultPreemption),
        tells_of_claims: plugins.set(Point::PostFilter).contains(Plugin::DynamicResources),
        scores: plugins.scores(),
        reserve: plugins.list(Point::Reserve),
        permit: plugins.list(Point::Permit),
        pre_bind: plugins.list(Point::PreBind),
        ..Profile::default()
    }
}

fn client_connection(
    root: &Field<'_>,
    defaults: ClientConnection,
) -> Result<ClientConnection, Wrong> {
    let Some(field) = root.get("clientConnection") else { return Ok(defaults) };
    let field = field.only(&["kubeconfig", "acceptContentTypes", "contentType", "qps", "burst"])?;
    for name in ["acceptContentTypes", "contentType"] {
        field.text_at(name)?;
    }
    // Upstream's defaults stand in for zeros.
    Ok(ClientConnection {
        kubeconfig: field.text_at("kubeconfig")?.unwrap_or_default().to_owned(),
        qps: field.rate("qps")?.filter(|qps| *qps != 0.0).unwrap_or(defaults.qps),
        burst: field
            .number("burst", 0..=i64::from(i32::MAX))?
            .filter(|burst| *burst != 0)
            .unwrap_or(defaults.burst),
    })
}

fn leader_election(root: &Field<'_>, defaults: LeaderElection) -> Result<LeaderElection, Wrong> {
    let Some(field) = root.get("leaderElection") else { return Ok(defaults) };
    let field = field.only(&[
        "leaderElect",
        "leaseDuration",
        "renewDeadline",
        "retryPeriod",
        "resourceLock",
        "resourceName",
        "resourceNamespace",
    ])?;
    let span = |name: &str, default: Duration| -> Result<Duration, Wrong> {
        Ok(field.duration(name)?.filter(|span| !span.is_zero()).unwrap_or(default))
    };
    let text = |name: &str, default: String| -> Result<String, Wrong> {
        let given = field.text_at(name)?.filter(|text| !text.is_empty());
        Ok(given.map_or(default, str::to_owned))
    };
    let read = LeaderElection {
        leader_elect: field.flag("leaderElect")?.unwrap_or(defaults.leader_elect),
        lease_duration: span("leaseDuration", defaults.lease_duration)?,
        renew_deadline: span("renewDeadline", defaults.renew_deadline)?,
        retry_period: span("retryPeriod", defaults.retry_period)?,
        resource_namespace: text("resourceNamespace", defaults.resource_namespace)?,
        resource_name: text("resourceName", defaults.resource_name)?,
    };
    if !read.leader_elect {
        return Ok(read);
    }
    if text("resourceLock", "leases".to_owned())? != "leases" {
        return Err(field.wrong_at("resourceLock", "there is no other lock than leases"));
    }
    if read.lease_duration <= read.renew_deadline {
        return Err(field.wrong_at("leaseDuration", "has to be longer than renewDeadline"));
    }
    if read.renew_deadline <= read.retry_period {
        return Err(field.wrong_at("renewDeadline", "has to be longer than retryPeriod"));
    }
    Ok(read)
}

#[cfg(test)]
mod tests;
