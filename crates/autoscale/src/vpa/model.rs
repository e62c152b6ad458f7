//! The recommender's model of one autoscaler's pods.

use std::collections::BTreeMap;

use compact_str::CompactString;
use wharf_model::selector::Selector;
use wharf_model::time::Time;

use super::container::{Bump, Container};
use super::estimate::estimate;
use super::policy::{Policies, round_up};
use super::state::State;
use super::{Amount, Amounts, Checkpoint, Config, Recommendation};

/// Labels of a pod, by which usage is aggregated.
type Labels = BTreeMap<String, String>;

/// What an autoscaler is about.
#[derive(Clone, Debug)]
pub struct Target {
    /// The pods of its workload.
    pub selector: Selector,
    /// Its policies.
    pub policies: Policies,
}

/// A pod as the recommender sees it.
#[derive(Clone, Debug, Default)]
pub struct ObservedPod {
    /// Its name.
    pub name: CompactString,
    /// Its labels.
    pub labels: Labels,
    /// Its containers.
    pub containers: Vec<ObservedContainer>,
}

/// A container of a pod.
#[derive(Clone, Debug, Default)]
pub struct ObservedContainer {
    /// Its name.
    pub name: CompactString,
}

/// Usage of all containers an autoscaler is about.
///
/// Usage is aggregated by container name and the pod's whole set of labels, and stays when the
/// pods go: what replaces them starts with it.
#[derive(Clone, Debug)]
pub struct Model {
    config: Config,
    target: Target,
    pods: BTreeMap<CompactString, Pod>,
    states: BTreeMap<(CompactString, Labels), State>,
    /// What was kept from before a restart, by container.
    loaded: BTreeMap<CompactString, State>,
}

#[derive(Clone, Debug, Default)]
struct Pod {
    labels: Labels,
    containers: BTreeMap<CompactString, Container>,
}

impl Model {
    /// A model without pods.
    pub fn new(config: Config, target: Target) -> Self {
        Self {
            config,
            target,
            pods: BTreeMap::new(),
            states: BTreeMap::new(),
            loaded: BTreeMap::new(),
        }
    }

    /// Takes in what the autoscaler is about now.
    pub fn set_target(&mut self, target: Target) {
        self.target = target;
    }

    /// Takes in a pod as it is now.
    pub fn set_pod(&mut self, pod: &ObservedPod) {
        let known = self.pods.entry(pod.name.clone()).or_default();
        known.labels.clone_from(&pod.labels);
        for container in &pod.containers {
            known.containers.entry(container.name.clone()).or_default();
            self.states
                .entry((container.name.clone(), pod.labels.clone()))
                .or_insert_with(|| State::new(&self.config));
        }
    }

    /// Forgets a pod; its usage stays.
    pub fn remove_pod(&mut self, name: &str) {
        self.pods.remove(name);
    }

    /// A sample of cpu in millicores. One of a pod or container that is not known is dropped.
    pub fn add_cpu(&mut self, pod: &str, container: &str, millicores: Amount, at: Time) {
        if let Some((container, state)) =
            Self::find(&mut self.pods, &mut self.states, pod, container)
        {
            container.add_cpu(state, millicores, at);
        }
    }

    /// A sample of memory in bytes.
    pub fn add_memory(&mut self, pod: &str, container: &str, bytes: Amount, at: Time) {
        let interval = self.bump(container).interval;
        if let Some((container, state)) =
            Self::find(&mut self.pods, &mut self.states, pod, container)
        {
            container.add_memory(state, bytes, at, false, interval);
        }
    }

    /// A kill for memory of a container that asked for `request` bytes then.
    pub fn add_oom(&mut self, pod: &str, container: &str, request: Amount, at: Time) {
        let bump = self.bump(container);
        if let Some((container, state)) =
            Self::find(&mut self.pods, &mut self.states, pod, container)
        {
            container.add_oom(state, request, at, bump);
        }
    }

    /// Whether a pod is known with these labels and at least these containers.
    pub fn knows<'c>(
        &self,
        name: &str,
        labels: &BTreeMap<String, String>,
        mut containers: impl Iterator<Item = &'c str>,
    ) -> bool {
        self.pods.get(name).is_some_and(|pod| {
            pod.labels == *labels && containers.all(|name| pod.containers.contains_key(name))
        })
    }

    /// The pods that are known.
    pub fn pods(&self) -> impl Iterator<Item = &str> {
        self.pods.keys().map(CompactString::as_str)
    }

    /// Forgets what was kept from before a restart.
    pub fn forget_loaded(&mut self) {
        self.loaded.clear();
    }

    /// Forgets usage that is too old to count, and containers that never used anything and of which
    /// no pod is left.
    pub fn forget_old(&mut self, now: Time) {
        let pods = &self.pods;
        let config = &self.config;
        self.states.retain(|(container, labels), state| match state.last {
            Some(last) => now <= last + config.memory_interval * config.memory_intervals,
            None => pods
                .values()
                .any(|pod| pod.labels == *labels && pod.containers.contains_key(container)),
        });
    }

    /// How much is known of a container: samples of cpu, and when the first and the last were taken.
    pub fn history(&self, container: &str) -> (u64, Option<Time>, Option<Time>) {
        self.by_container()
            .get(container)
            .map_or((0, None, None), |state| (state.samples, state.first, state.last))
    }

    /// Whether the selector matches any pod.
    pub fn has_pods(&self) -> bool {
        self.pods.values().any(|pod| self.target.selector.matches(&pod.labels))
    }

    /// What each container should ask for, by name. Empty when nothing is known of any.
    pub fn recommend(&self) -> Vec<Recommendation> {
        let mut states = self.by_container();
        let policies = &self.target.policies;
        states.retain(|container, _| !policies.is_off(container));
        let share = 1.0 / states.len() as f64;
        let round = |amounts: Amounts| Amounts {
            cpu: round_up(amounts.cpu, self.config.round_to.cpu),
            memory: round_up(amounts.memory, self.config.round_to.memory),
        };
        states
            .into_iter()
            .map(|(container, state)| {
                let estimated = estimate(&state, &self.config, share);
                let control = |amounts| policies.control(&container, round(amounts));
                let mut recommendation = Recommendation {
                    target: control(estimated.target),
                    lower: control(estimated.lower),
                    upper: control(estimated.upper),
                    uncapped: control(estimated.target),
                    container,
                };
                policies.process(&mut recommendation, &self.config);
                recommendation
            })
            .collect()
    }

    /// What to keep of each container. Peaks of open intervals are left out: they will be seen
    /// again.
    pub fn checkpoints(&self, now: Time) -> BTreeMap<CompactString, Checkpoint> {
        let mut states = self.by_container();
        for pod in self.pods.values() {
            if !self.target.selector.matches(&pod.labels) {
                continue;
            }
            for (name, container) in &pod.containers {
                if let (Some(state), Some((peak, end))) =
                    (states.get_mut(name), container.open_peak(now))
                {
                    state.subtract_peak(peak, end);
                }
            }
        }
        states.into_iter().map(|(name, state)| (name, state.checkpoint())).collect()
    }

    /// Starts from what was kept of a container.
    pub fn load(&mut self, container: &str, checkpoint: &Checkpoint) {
        self.loaded.insert(container.into(), State::load(checkpoint, &self.config));
    }

    fn by_container(&self) -> BTreeMap<CompactString, State> {
        let mut merged: BTreeMap<CompactString, State> = BTreeMap::new();
        let own = self
            .states
            .iter()
            .filter(|((_, labels), _)| self.target.selector.matches(labels))
            .map(|((container, _), state)| (container, state));
        for (container, state) in own.chain(&self.loaded) {
            merged
                .entry(container.clone())
                .or_insert_with(|| State::new(&self.config))
                .merge(state);
        }
        merged
    }

    fn find<'m>(
        pods: &'m mut BTreeMap<CompactString, Pod>,
        states: &'m mut BTreeMap<(CompactString, Labels), State>,
        pod: &str,
        container: &str,
    ) -> Option<(&'m mut Container, &'m mut State)> {
        let pod = pods.get_mut(pod)?;
        let state = states.get_mut(&(container.into(), pod.labels.clone()))?;
        Some((pod.containers.get_mut(container)?, state))
    }

    fn bump(&self, container: &str) -> Bump {
        let config = &self.config;
        let policy = self.target.policies.of(container).filter(|_| config.per_vpa_config);
        Bump {
            interval: policy
                .and_then(|policy| policy.memory_interval)
                .unwrap_or(config.memory_interval),
            ratio: policy.and_then(|policy| policy.oom_bump_ratio).unwrap_or(config.oom_bump_ratio),
            least: policy.and_then(|policy| policy.oom_bump_least).unwrap_or(config.oom_bump_least),
        }
    }
}
