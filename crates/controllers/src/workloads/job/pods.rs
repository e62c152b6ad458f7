//! A Job's pods: what is read off them, and what new ones look like.

use k8s_openapi::api::batch::v1::{Job, JobSpec};
use k8s_openapi::api::core::v1::{EnvVar, EnvVarSource, ObjectFieldSelector, Pod};
use wharf_model::labels::{
    JOB_COMPLETION_INDEX, JOB_INDEX_FAILURE_COUNT, JOB_INDEX_IGNORED_FAILURE_COUNT, JOB_TRACKING,
};
use wharf_model::object::Object;
use wharf_model::pod::{is_terminal, phase};
use wharf_model::random::Random;
use wharf_model::time::Time;
use wharf_ports::cluster::{Part, Write};

use super::policy;
use crate::workloads::owners::controller_reference;

/// The longest prefix of a generated name.
const GENERATE_NAME_MAX: usize = 58;

/// A pod of a Job.
#[derive(Clone, Copy)]
pub(super) struct JobPod<'v> {
    pub(super) object: &'v Object,
    pub(super) pod: &'v Pod,
    /// Its completion index, if it has one.
    pub(super) index: Option<i32>,
    /// Whether it has yet to be counted: its finalizer is there.
    pub(super) is_tracked: bool,
}

impl<'v> JobPod<'v> {
    pub(super) fn of(object: &'v Object) -> Option<Self> {
        let pod = object.typed::<Pod>()?;
        let annotations = pod.metadata.annotations.as_ref();
        let index = annotations.and_then(|all| all.get(JOB_COMPLETION_INDEX)?.parse().ok());
        let index = index.filter(|index| *index >= 0);
        Some(Self { object, pod, index, is_tracked: is_tracked(pod) })
    }

    pub(super) fn uid(&self) -> &'v str {
        self.object.uid()
    }

    pub(super) fn is_deleting(&self) -> bool {
        self.pod.metadata.deletion_timestamp.is_some()
    }

    pub(super) fn is_active(&self) -> bool {
        !is_terminal(self.pod) && !self.is_deleting()
    }

    pub(super) fn is_terminating(&self) -> bool {
        !is_terminal(self.pod) && self.is_deleting()
    }

    pub(super) fn has_succeeded(&self) -> bool {
        phase(self.pod) == "Succeeded"
    }

    /// Whether it counts as failed. A pod that is being deleted does, unless the Job waits for the
    /// outcome before it replaces pods.
    pub(super) fn has_failed(&self, spec: &JobSpec) -> bool {
        phase(self.pod) == "Failed"
            || (!replaces_failed_only(spec) && self.is_deleting() && !self.has_succeeded())
    }

    /// How many pods of its index failed before it, those that do not count left out.
    pub(super) fn failures_before(&self) -> i32 {
        self.count(JOB_INDEX_FAILURE_COUNT)
    }

    /// The same with all of them.
    pub(super) fn all_failures_before(&self) -> i32 {
        self.failures_before() + self.count(JOB_INDEX_IGNORED_FAILURE_COUNT)
    }

    fn count(&self, annotation: &str) -> i32 {
        let annotations = self.pod.metadata.annotations.as_ref();
        annotations.and_then(|all| all.get(annotation)?.parse().ok()).unwrap_or(0)
    }

    /// When it ended: when the last of its containers did, or as near to it as can be told.
    pub(super) fn finished_at(&self) -> Time {
        let status = self.pod.status.as_ref();
        let containers = status.and_then(|status| status.container_statuses.as_deref());
        let ends: Option<Vec<Time>> = containers.filter(|all| !all.is_empty()).and_then(|all| {
            let ended = |state: &k8s_openapi::api::core::v1::ContainerStatus| {
                let terminated = state.state.as_ref()?.terminated.as_ref()?;
                terminated.finished_at.as_ref().map(Time::from)
            };
            all.iter().map(ended).collect()
        });
        let last = ends.and_then(|ends| ends.into_iter().max());
        let meta = &self.pod.metadata;
        let deleted = meta.deletion_timestamp.as_ref().map(|at| {
            // The timestamp is when the grace period ends.
            let grace = meta.deletion_grace_period_seconds.unwrap_or(0);
            Time::from(at) - std::time::Duration::from_secs(u64::try_from(grace).unwrap_or(0))
        });
        let created = meta.creation_timestamp.as_ref().map(Time::from);
        last.or(deleted).or(created).unwrap_or_default()
    }

    /// Takes away what holds it.
    pub(super) fn release(&self) -> Write {
        let mut pod = self.pod.clone();
        if let Some(finalizers) = &mut pod.metadata.finalizers {
            finalizers.retain(|finalizer| finalizer != JOB_TRACKING);
        }
        Write::Update { object: Box::new(pod), part: Part::Main }
    }
}

/// Whether a pod holds the finalizer of Jobs.
pub(super) fn is_tracked(pod: &Pod) -> bool {
    pod.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == JOB_TRACKING)
}

/// Whether completions are counted by index.
pub(super) fn is_indexed(spec: &JobSpec) -> bool {
    spec.completion_mode.as_deref() == Some("Indexed")
}

/// Whether pods are replaced only once they have failed for good (`podReplacementPolicy: Failed`).
pub(super) fn replaces_failed_only(spec: &JobSpec) -> bool {
    spec.pod_replacement_policy.as_deref() == Some("Failed") || spec.pod_failure_policy.is_some()
}

/// A new pod of the Job; of an Indexed one with its index, in place of `replaced`.
pub(super) fn new_pod(
    job: &Job,
    index: Option<i32>,
    replaced: Option<&JobPod<'_>>,
    random: &mut Random,
) -> Pod {
    let spec = job.spec.clone().unwrap_or_default();
    let job_name = job.metadata.name.as_deref().unwrap_or_default();
    let from = spec.template.metadata.clone().unwrap_or_default();
    let mut pod = Pod { spec: spec.template.spec.clone(), ..Pod::default() };
    let meta = &mut pod.metadata;
    meta.labels = from.labels;
    meta.annotations = from.annotations;
    meta.finalizers = from.finalizers;
    meta.namespace.clone_from(&job.metadata.namespace);
    meta.owner_references = Some(vec![controller_reference(job)]);
    let finalizers = meta.finalizers.get_or_insert_default();
    if !finalizers.iter().any(|finalizer| finalizer == JOB_TRACKING) {
        finalizers.push(JOB_TRACKING.to_owned());
    }
    let mut generate = format!("{job_name}-");
    if let Some(index) = index {
        let tail = format!("-{index}-");
        let room = GENERATE_NAME_MAX.saturating_sub(tail.len()).min(job_name.len());
        generate = format!("{}{tail}", &job_name[..room]);
        let annotations = meta.annotations.get_or_insert_default();
        annotations.insert(JOB_COMPLETION_INDEX.to_owned(), index.to_string());
        if spec.backoff_limit_per_index.is_some() {
            let (counted, ignored) = policy::failures_with(&spec, replaced);
            annotations.insert(JOB_INDEX_FAILURE_COUNT.to_owned(), counted.to_string());
            if ignored > 0 {
                let annotation = JOB_INDEX_IGNORED_FAILURE_COUNT.to_owned();
                annotations.insert(annotation, ignored.to_string());
            }
        }
        let labels = meta.labels.get_or_insert_default();
        labels.insert(JOB_COMPLETION_INDEX.to_owned(), index.to_string());
        let spec = pod.spec.get_or_insert_default();
        spec.hostname = Some(format!("{job_name}-{index}"));
        let init = spec.init_containers.iter_mut().flatten();
        for container in init.chain(&mut spec.containers) {
            let env = container.env.get_or_insert_default();
            if env.iter().all(|variable| variable.name != INDEX_VARIABLE) {
                env.push(index_variable());
            }
        }
    }
    pod.metadata.name = Some(random.generated_name(&generate));
    pod.metadata.generate_name = Some(generate);
    pod
}

const INDEX_VARIABLE: &str = "JOB_COMPLETION_INDEX";

/// The variable by which a container knows its index: the value of a label.
fn index_variable() -> EnvVar {
    let field = ObjectFieldSelector {
        field_path: format!("metadata.labels['{JOB_COMPLETION_INDEX}']"),
        api_version: None,
    };
    EnvVar {
        name: INDEX_VARIABLE.to_owned(),
        value_from: Some(EnvVarSource { field_ref: Some(field), ..EnvVarSource::default() }),
        ..EnvVar::default()
    }
}
