//! One run of the program: its flags, what it remembers, and its polls.

use std::time::Duration;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{ConfigMap, Container, Node, Pod, ReplicationController};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use wharf_autoscale::cpa::container::flags_of;
use wharf_autoscale::cpa::flags::{Flags, Target, TargetKind};
use wharf_autoscale::cpa::{ClusterSize, Parameters};
use wharf_model::kinds::{Kind, Resource};
use wharf_model::object::{Object, ObjectKey};
use wharf_model::time::Time;
use wharf_ports::cluster::{Part, Write};
use wharf_ports::controller::Step;
use wharf_ports::error::ApiError;
use wharf_ports::reason::{Because, Reason};
use wharf_ports::view::View;

use super::Run;
use super::log::Log;

/// A running program.
#[derive(Debug)]
pub(super) struct Program {
    pub(super) run: Run,
    log: Log,
    /// `None` when it has ended: after too many failures, or by its flags, which the kubelet sees.
    flags: Option<Flags>,
    /// When it looks next.
    next: Time,
    /// What it goes by, with the version of the ConfigMap that said so. None after a mistake there:
    /// then nothing is scaled until it is mended.
    parameters: Option<(String, Parameters)>,
    /// The ConfigMap has been asked for and is not seen yet.
    creating: bool,
    /// Failures in a row.
    failures: u32,
    /// Whether the last poll has writes under way that may still be refused.
    open: bool,
    /// What was refused since the last step.
    refusal: Option<(&'static str, String)>,
}

impl Program {
    /// Starts it.
    pub(super) fn start(
        run: Run,
        pod: &Pod,
        container: &Container,
        now: Time,
        step: &mut Step,
    ) -> Self {
        let flags = flags_of(pod, container).ok();
        let log = Log::new(
            &run,
            flags.as_ref().map_or(0, |flags| flags.verbosity),
            flags.as_ref().is_some_and(|flags| flags.logs_everything),
        );
        if let Some(flags) = &flags {
            let text = format!("Scaling Namespace: {}, Target: {}", flags.namespace, flags.target);
            log.info(step, now, 0, "autoscaler.go:49", &text);
        }
        Self {
            next: now,
            run,
            log,
            flags,
            parameters: None,
            creating: false,
            failures: 0,
            open: false,
            refusal: None,
        }
    }

    /// Whether it waits for a ConfigMap that is being made.
    pub(super) fn awaits(&self, config_map: &ObjectKey) -> bool {
        self.creating
            && self.flags.as_ref().is_some_and(|flags| config_map_of(flags) == *config_map)
    }

    /// Does what is due, and says when to look again.
    pub(super) fn go_on(&mut self, view: &View, now: Time, step: &mut Step) -> Option<Time> {
        if let Some((place, text)) = self.refusal.take() {
            self.log.error(step, now, place, &text);
            self.fail(now, step);
        }
        let flags = self.flags.clone()?;
        let made = self.creating && view.get::<ConfigMap>(&config_map_of(&flags)).is_some();
        if made {
            self.creating = false;
            let text =
                format!("Created ConfigMap {} in namespace {}", flags.config_map, flags.namespace);
            self.log.info(step, now, 0, "k8sclient.go:173", &text);
        }
        if made || self.next <= now {
            if !made {
                self.next = self.next_tick(flags.poll_period, now);
            }
            if std::mem::take(&mut self.open) {
                self.failures = 0;
            }
            match self.poll(&flags, view, now, step) {
                Ok(()) => self.open = true,
                Err((place, text)) => {
                    self.log.error(step, now, place, &text);
                    self.fail(now, step);
                }
            }
        }
        self.flags.as_ref().map(|_| self.next)
    }

    /// A write of the last poll was refused.
    pub(super) fn refused(&mut self, write: &Write, error: &ApiError) {
        let Some(flags) = &self.flags else { return };
        let (kind, key) = write.subject();
        if kind == Kind::of::<ConfigMap>() {
            if self.creating && key == config_map_of(flags) {
                self.creating = false;
                self.open = false;
                let text = format!("Error syncing configMap with apiserver: {error}");
                self.refusal = Some(("autoscaler_server.go:129", text));
            }
        } else if flags.targets.iter().any(|target| key_of(flags, target) == (kind, key.clone())) {
            self.open = false;
            self.refusal = Some(("autoscaler_server.go:154", format!("Update failure: {error}")));
        }
    }

    /// Counts a failed poll; after too many the program ends.
    fn fail(&mut self, now: Time, step: &mut Step) {
        self.failures += 1;
        let max = self.flags.as_ref().map_or(0, |flags| flags.max_sync_failures);
        if max > 0 && self.failures == max {
            let text = format!(
                "Maximum number of api server polling attempts ({max}) have been reached. Exiting application."
            );
            self.log.error(step, now, "autoscaler_server.go:111", &text);
            self.flags = None;
        }
    }

    /// Ticks count from the start of the container, so that a restart of the simulation keeps them.
    fn next_tick(&self, period: Duration, now: Time) -> Time {
        let period = period.as_nanos().max(1);
        let passed = now.since(self.run.started).as_nanos() / period + 1;
        let offset = u64::try_from(passed * period).unwrap_or(u64::MAX);
        self.run.started + Duration::from_nanos(offset)
    }

    /// One poll. The error is told in the log, with its place in the program.
    fn poll(
        &mut self,
        flags: &Flags,
        view: &View,
        now: Time,
        step: &mut Step,
    ) -> Result<(), (&'static str, String)> {
        let counted = |node: &&Node| {
            let labels = node.metadata.labels.as_ref();
            flags.node_labels.matches(&labels.cloned().unwrap_or_default())
        };
        let size = ClusterSize::of(view.list::<Node>().filter(counted));
        self.log.info(
            step,
            now,
            4,
            "autoscaler_server.go:123",
            &format!(
                "Total nodes {:5}, schedulable nodes: {:5}",
                size.nodes, size.schedulable_nodes
            ),
        );
        self.log.info(
            step,
            now,
            4,
            "autoscaler_server.go:124",
            &format!(
                "Total cores {:5}, schedulable cores: {:5}",
                size.cores, size.schedulable_cores
            ),
        );
        let key = config_map_of(flags);
        let Some(config_map) = view.get::<ConfigMap>(&key) else {
            return self.create(flags, now, step);
        };
        let version = config_map.metadata.resource_version.clone().unwrap_or_default();
        if self.parameters.as_ref().is_none_or(|(known, _)| *known != version) {
            self.read(config_map, version, now, step)?;
        }
        let Some((_, parameters)) = &self.parameters else { return Ok(()) };
        let replicas = parameters.replicas(size);
        let text = format!("Expected replica count: {replicas:3}");
        self.log.info(step, now, 4, "autoscaler_server.go:149", &text);
        let mode = parameters.mode();
        for target in &flags.targets {
            let (kind, key) = key_of(flags, target);
            let Some(object) = view.object(kind, &key) else {
                let error = ApiError::not_found(kind, &target.name);
                return Err(("autoscaler_server.go:154", format!("Update failure: {error}")));
            };
            let Some((before, write)) = scale(object, target.kind, replicas) else { continue };
            let text = format!(
                "Cluster status: SchedulableNodes[{}], TotalNodes[{}], SchedulableCores[{}], TotalCores[{}]",
                size.schedulable_nodes, size.nodes, size.schedulable_cores, size.cores
            );
            self.log.info(step, now, 0, "k8sclient.go:312", &text);
            let text = format!(
                "Replicas are not as expected : updating {}/{} from {before} to {replicas}",
                target.kind.word(),
                target.name
            );
            self.log.info(step, now, 0, "k8sclient.go:318", &text);
            step.write(write);
            step.reasons.push(Reason {
                kind,
                key,
                by: "cluster-proportional-autoscaler",
                decision: format!("from {before} to {replicas} replicas"),
                because: vec![
                    Because::new("nodes", size.schedulable_nodes.to_string()),
                    Because::new("cores", size.schedulable_cores.to_string()),
                    Because::new("mode", format!("{mode} in configmap {}", flags.config_map)),
                ],
            });
        }
        Ok(())
    }

    /// Makes the ConfigMap, if there is something to make it of. The poll goes on when it is there.
    fn create(
        &mut self,
        flags: &Flags,
        now: Time,
        step: &mut Step,
    ) -> Result<(), (&'static str, String)> {
        let error = ApiError::not_found(Kind::of::<ConfigMap>(), &flags.config_map);
        let Some(data) = &flags.default_params else {
            let text = format!("Error syncing configMap with apiserver: {error}");
            return Err(("autoscaler_server.go:129", text));
        };
        let text = format!("ConfigMap not found: {error}, will create one with default params");
        self.log.info(step, now, 0, "autoscaler_server.go:169", &text);
        step.write(Write::Create(Box::new(ConfigMap {
            metadata: ObjectMeta {
                name: Some(flags.config_map.clone()),
                namespace: Some(flags.namespace.clone()),
                ..ObjectMeta::default()
            },
            data: Some(data.clone()),
            ..ConfigMap::default()
        })));
        self.creating = true;
        Ok(())
    }

    /// Reads the parameters anew.
    fn read(
        &mut self,
        config_map: &ConfigMap,
        version: String,
        now: Time,
        step: &mut Step,
    ) -> Result<(), (&'static str, String)> {
        let data = config_map.data.clone().unwrap_or_default();
        let before = self.parameters.take();
        let known = before.as_ref().map(|(_, parameters)| parameters.mode());
        let parameters = Parameters::read(&data).map_err(|error| {
            ("autoscaler_server.go:138", format!("Error ensuring controller: {}", error.told()))
        })?;
        let mode = parameters.mode();
        let same = known == Some(mode);
        if !same {
            let text = format!("Set control mode to {mode}");
            self.log.info(step, now, 1, "plugin.go:50", &text);
        }
        let old = before.filter(|_| same).map(|(version, _)| version).unwrap_or_default();
        let (place, text) = match parameters {
            Parameters::Ladder(_) => (
                "ladder_controller.go:73",
                format!(
                    "Detected ConfigMap version change (old: {old} new: {version}) - rebuilding lookup entries"
                ),
            ),
            Parameters::Linear(_) => (
                "linear_controller.go:60",
                format!("ConfigMap version change (old: {old} new: {version}) - rebuilding params"),
            ),
        };
        self.log.info(step, now, 0, place, &text);
        let told = format!("Params from apiserver: \n{}", data[mode]);
        self.log.info(step, now, 2, place, &told);
        self.parameters = Some((version, parameters));
        Ok(())
    }
}

fn config_map_of(flags: &Flags) -> ObjectKey {
    ObjectKey::namespaced(flags.namespace.as_str(), flags.config_map.as_str())
}

fn key_of(flags: &Flags, target: &Target) -> (Kind, ObjectKey) {
    let kind = match target.kind {
        TargetKind::Deployment => Kind::of::<Deployment>(),
        TargetKind::ReplicationController => Kind::of::<ReplicationController>(),
        TargetKind::ReplicaSet => Kind::of::<ReplicaSet>(),
    };
    (kind, ObjectKey::namespaced(flags.namespace.as_str(), target.name.as_str()))
}

/// How many replicas the target has and the write that gives it others; `None` if it has as many.
fn scale(object: &Object, kind: TargetKind, replicas: i32) -> Option<(i32, Write)> {
    fn change<T: Resource + Clone>(
        object: &Object,
        replicas: i32,
        field: impl FnOnce(&mut T) -> &mut Option<i32>,
    ) -> Option<(i32, Write)> {
        let mut changed = object.typed::<T>()?.clone();
        let before = field(&mut changed).replace(replicas).unwrap_or(1);
        let write = Write::Update { object: Box::new(changed), part: Part::Main };
        (before != replicas).then_some((before, write))
    }
    match kind {
        TargetKind::Deployment => change::<Deployment>(object, replicas, |it| {
            &mut it.spec.get_or_insert_default().replicas
        }),
        TargetKind::ReplicationController => {
            change::<ReplicationController>(object, replicas, |it| {
                &mut it.spec.get_or_insert_default().replicas
            })
        }
        TargetKind::ReplicaSet => change::<ReplicaSet>(object, replicas, |it| {
            &mut it.spec.get_or_insert_default().replicas
        }),
    }
}
