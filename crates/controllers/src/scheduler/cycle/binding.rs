//! The way to a node once it is chosen: Reserve, PreBind, the binding, and back when one of them
//! fails. Nothing here waits: a pod that has to stands among the assumed ones until news or time
//! moves it on.

use compact_str::CompactString;
use k8s_openapi::api::core::v1::Pod;
use wharf_model::kinds::Kind;
use wharf_model::object::ObjectKey;
use wharf_model::time::Time;
use wharf_ports::cluster::Write;
use wharf_ports::controller::{Context, Step};
use wharf_ports::view::View;
use wharf_scheduler::{ExtensionPoint, News, Plugin, Status};

use super::super::assumed::{Assumed, BINDING_MAX, DOUBTED_MAX, Stage};
use super::super::metrics::{Outcome, Readiness};
use super::super::queue::Wake;
use super::super::reserve::{PreBind, Refusal, Waiting, WriteOutcome};
use super::super::{Confirmed, Scheduler, writes};

impl Scheduler {
    /// Reserve: every plugin of the profile sets aside what the pod needs. `None` if one refuses;
    /// then the pod has been turned down.
    pub(super) fn reserve(
        &mut self,
        mut assumed: Assumed,
        context: &Context<'_>,
        step: &mut Step,
    ) -> Option<Assumed> {
        let (begun, profile) = (self.metrics.clock(), assumed.entry.profile);
        let point = ExtensionPoint::Reserve;
        let mut last = begun;
        for plugin in self.profiles[profile].reserve.clone() {
            let Some(reserver) = self.reservers.iter_mut().find(|it| it.plugin() == plugin) else {
                continue;
            };
            let pod = &assumed.entry.pod;
            let reserved = reserver.reserve(pod, &assumed.node, &mut self.snapshot, context.view);
            let (status, now) = (status_of(&reserved), self.metrics.clock());
            let took = now.saturating_sub(std::mem::replace(&mut last, now));
            self.metrics.execution(self.cycles, plugin, point, status, took);
            match reserved {
                Ok(work) => {
                    assumed.reserved.insert(plugin);
                    if work {
                        assumed.work.insert(plugin);
                    }
                }
                Err(refusal) => {
                    self.metrics.point(point, status, profile, last.saturating_sub(begun));
                    self.take_back(assumed, plugin, "Reserve", refusal, context, step);
                    return None;
                }
            }
        }
        if self.metrics.has_clock() {
            self.metrics.point(point, Status::Success, profile, last.saturating_sub(begun));
        }
        Some(assumed)
    }

    /// PreBind and Bind, as far as they get now.
    pub(in super::super) fn go_on(
        &mut self,
        mut assumed: Assumed,
        context: &Context<'_>,
        step: &mut Step,
    ) {
        let Context { view, now, .. } = *context;
        let mut patience = None;
        let mut sooner: Option<Time> = None;
        for plugin in assumed.work.iter().collect::<Vec<_>>() {
            let profile = &self.profiles[assumed.entry.profile];
            let reserver = self.reservers.iter_mut().find(|it| it.plugin() == plugin);
            let Some(reserver) = reserver.filter(|_| profile.pre_bind.contains(&plugin)) else {
                assumed.work.remove(plugin);
                continue;
            };
            let pod = &assumed.entry.pod;
            let done = reserver.pre_bind(pod, &assumed.node, &mut self.snapshot, view, now);
            let readiness = match &done {
                PreBind::Done => Some(Readiness::Success),
                PreBind::Waits(_) => None,
                PreBind::Failed(_) => Some(Readiness::Failure),
            };
            if let Some(readiness) = readiness {
                for driver in reserver.drivers_awaited(pod, view) {
                    let began = if assumed.stage == Stage::PreBind { assumed.since } else { now };
                    let profile = assumed.entry.profile;
                    self.metrics.devices_awaited(profile, driver, readiness, now.since(began));
                }
            }
            match done {
                PreBind::Done => assumed.work.remove(plugin),
                PreBind::Waits(Waiting { writes, since, event }) => {
                    let own = reserver.patience(profile);
                    patience = patience.max(Some(own));
                    sooner = sooner.into_iter().chain(since.map(|since| since + own)).min();
                    let told = event.zip(self.object_of(&assumed.entry.pod, view));
                    step.writes.extend(told.map(|((reason, note), object)| {
                        let scheduler = self.name_of(assumed.entry.profile);
                        writes::waits(object, reason, note, scheduler)
                    }));
                    step.writes.extend(writes);
                }
                PreBind::Failed(refusal) => {
                    self.take_back(assumed, plugin, "PreBind", refusal, context, step);
                    return;
                }
            }
        }
        match patience {
            Some(patience) => {
                let began = if assumed.stage == Stage::PreBind { assumed.since } else { now };
                let end = began + patience;
                assumed.wait(Stage::PreBind, now, sooner.map_or(end, |sooner| end.min(sooner)));
                self.announce_node(&assumed, view, step);
            }
            None => {
                if self.metrics.has_clock() {
                    let began = if assumed.stage == Stage::PreBind { assumed.since } else { now };
                    let (point, took) = (ExtensionPoint::PreBind, now.since(began));
                    self.metrics.point(point, Status::Success, assumed.entry.profile, took);
                }
                assumed.wait(Stage::Binding, now, now + BINDING_MAX);
                if !self.bind_by_extender(&assumed, step) {
                    let pod = &assumed.entry.pod;
                    step.write(Write::Bind {
                        pod: pod.key.clone(),
                        uid: pod.uid.clone(),
                        node: assumed.node.clone(),
                    });
                }
            }
        }
        self.assumed.insert(assumed);
    }

    /// Says ahead of a long wait where the pod is going, so that others see the room taken.
    pub(in super::super) fn announce_node(&self, assumed: &Assumed, view: &View, step: &mut Step) {
        let object = self.object_of(&assumed.entry.pod, view);
        step.writes.extend(object.and_then(|object| writes::nominated(object, &assumed.node)));
    }

    /// Looks again at pods in PreBind that something has happened to.
    pub(in super::super) fn go_on_with_touched(&mut self, context: &Context<'_>, step: &mut Step) {
        for uid in std::mem::take(&mut self.touched) {
            if self.assumed.get(&uid).is_some_and(|assumed| assumed.stage == Stage::PreBind)
                && let Some(assumed) = self.assumed.remove(&uid)
            {
                self.go_on(assumed, context, step);
            }
        }
    }

    /// Notes which pods in PreBind a change concerns. Returns whether there are any.
    pub(in super::super) fn touch(&mut self, kind: Kind, key: &ObjectKey) -> bool {
        if self.reservers.is_empty() || !self.assumed.any_waiting() {
            return false;
        }
        let before = self.touched.len();
        self.touched.extend(self.reservers.iter().flat_map(|it| it.concerned(kind, key)));
        self.touched.len() > before
    }

    /// Tells plugins what became of a write. Returns whether one of them waits for that.
    pub(in super::super) fn written(&mut self, write: &Write, outcome: WriteOutcome) -> bool {
        if !matches!(write, Write::Update { .. } | Write::Create(_)) {
            return false;
        }
        let awaited = self
            .reservers
            .iter_mut()
            .fold(false, |awaited, it| it.written(write, outcome) | awaited);
        if awaited && matches!(write, Write::Create(_)) {
            // Nothing else is made before a binding but claims for extended resources.
            self.metrics.claim_made(matches!(outcome, WriteOutcome::Done(_)));
        }
        awaited
    }

    /// Gives back what pods have left behind, as far as it is clear what has become of it.
    pub(in super::super) fn settle(&mut self, context: &Context<'_>, step: &mut Step) {
        for at in 0..self.reservers.len() {
            if !self.reservers[at].is_unsettled() {
                continue;
            }
            let settled = self.reservers[at].settle(&mut self.snapshot, context.view, context.now);
            step.writes.extend(settled.writes);
            for news in settled.news {
                self.wake(&News::Devices(&news));
            }
        }
    }

    /// Whether something that a pod has left behind waits for being settled.
    pub(in super::super) fn is_unsettled(&self) -> bool {
        self.reservers.iter().any(|it| it.is_unsettled())
    }

    /// Ends what has waited too long, and what was refused since the last step.
    pub(in super::super) fn end_assumptions(&mut self, context: &Context<'_>, step: &mut Step) {
        for (uid, message, certain) in std::mem::take(&mut self.failed_bindings) {
            let Some(mut assumed) = self.assumed.remove(&uid) else { continue };
            if certain {
                let refusal = Refusal::Error(message);
                self.take_back(assumed, Plugin::DefaultBinder, "Bind", refusal, context, step);
            } else {
                assumed.doubt = Some(message);
                assumed.wait(Stage::Binding, context.now, context.now + DOUBTED_MAX);
                self.assumed.insert(assumed);
            }
        }
        for uid in self.assumed.ended(context.now) {
            let Some(assumed) = self.assumed.get(&uid) else { continue };
            let waited = context.now.since(assumed.since);
            let text =
                wharf_model::duration::format(i64::try_from(waited.as_nanos()).unwrap_or(i64::MAX));
            let stage = assumed.stage;
            if stage == Stage::Permit {
                let message = format!(
                    "rejected due to timeout after waiting {text} at plugin GangScheduling"
                );
                self.give_up(&uid, &message, context, step);
                continue;
            }
            let Some(assumed) = self.assumed.remove(&uid) else { continue };
            match stage {
                Stage::PreBind => {
                    let plugin = assumed.work.iter().next().unwrap_or(Plugin::DefaultBinder);
                    let reserver = self.reservers.iter_mut().find(|it| it.plugin() == plugin);
                    let (pod, profile) = (&assumed.entry.pod, assumed.entry.profile);
                    let drivers =
                        reserver.iter().flat_map(|it| it.drivers_awaited(pod, context.view));
                    for driver in drivers {
                        self.metrics.devices_awaited(profile, driver, Readiness::Timeout, waited);
                    }
                    let said = reserver.and_then(|it| it.give_up(pod, &mut self.snapshot));
                    let text = match said {
                        Some(text) => text.to_owned(),
                        None => format!("not done after waiting {text}"),
                    };
                    let refusal = Refusal::Error(text);
                    self.take_back(assumed, plugin, "PreBind", refusal, context, step);
                }
                Stage::Binding | Stage::Permit => {
                    let message = assumed.doubt.clone();
                    let message =
                        message.unwrap_or_else(|| format!("no answer after waiting {text}"));
                    let refusal = Refusal::Error(message);
                    self.take_back(assumed, Plugin::DefaultBinder, "Bind", refusal, context, step);
                }
            }
        }
    }

    /// Unreserve and forget: the pod does not go to its node, others may have the room, and it is
    /// turned down by the plugin that refused.
    pub(in super::super) fn take_back(
        &mut self,
        assumed: Assumed,
        plugin: Plugin,
        point: &str,
        refusal: Refusal,
        context: &Context<'_>,
        step: &mut Step,
    ) {
        self.unreserve(&assumed);
        self.vacate(&assumed.entry.pod.uid);
        let outcome = match refusal {
            Refusal::Error(_) => Outcome::Error,
            Refusal::Rejected(_) | Refusal::Pending(_) => Outcome::Unschedulable,
        };
        self.metrics.attempt(assumed.entry.profile, outcome, assumed.took);
        match refusal {
            Refusal::Error(error) => {
                let failed = match point {
                    "PreBind" => Some(ExtensionPoint::PreBind),
                    "Bind" => Some(ExtensionPoint::Bind),
                    _ => None,
                };
                if let Some(failed) = failed {
                    let took = context.now.since(assumed.since);
                    self.metrics.point(failed, Status::Error, assumed.entry.profile, took);
                }
                let message = format!("running {point} plugin {:?}: {error}", plugin.name());
                self.fail_with_error(assumed.entry, &message, context, step);
            }
            Refusal::Rejected(message) => {
                let by = plugin.into();
                let wake = assumed.wake(by);
                self.reject(assumed.entry, by, &message, wake, context, step);
            }
            Refusal::Pending(message) => {
                let by = plugin.into();
                let wake = if assumed.wake(by) == Wake::No { Wake::No } else { Wake::Now };
                let mut entry = assumed.entry;
                entry.pending_by = by;
                self.reject(entry, by, &message, wake, context, step);
            }
        }
    }

    /// Gives back what plugins have set aside, the last one first.
    pub(in super::super) fn unreserve(&mut self, assumed: &Assumed) {
        if assumed.reserved.is_empty() {
            return;
        }
        let order = self.profiles[assumed.entry.profile].reserve.clone();
        for plugin in order.into_iter().rev().filter(|it| assumed.reserved.contains(*it)) {
            if let Some(reserver) = self.reservers.iter_mut().find(|it| it.plugin() == plugin) {
                reserver.unreserve(&assumed.entry.pod, &mut self.snapshot);
            }
        }
    }

    /// Announces the pods that are now where this scheduler sent them.
    pub(in super::super) fn announce(&mut self, view: &View, now: Time, step: &mut Step) {
        for Confirmed { key, entry, node, since } in std::mem::take(&mut self.confirmed) {
            let latency = now.since(entry.ready_since.unwrap_or(now));
            let (point, took) = (ExtensionPoint::Bind, now.since(since));
            self.metrics.point(point, Status::Success, entry.profile, took);
            self.metrics.scheduled(entry.attempts, latency);
            if let Some(object) = view.object(Kind::of::<Pod>(), &key) {
                step.write(writes::scheduled(object, &node, self.name_of(entry.profile)));
            }
        }
    }

    /// The cluster shows an assumed pod bound to a node, or bound elsewhere by somebody else.
    /// Returns whether that is to be announced.
    pub(in super::super) fn confirm(
        &mut self,
        key: &ObjectKey,
        uid: &CompactString,
        node: &str,
    ) -> bool {
        let Some(assumed) = self.assumed.remove(uid) else { return false };
        if assumed.node != node {
            self.unreserve(&assumed);
            return false;
        }
        for reserver in &mut self.reservers {
            if assumed.reserved.contains(reserver.plugin()) {
                reserver.bound(&assumed.entry.pod, &mut self.snapshot);
            }
        }
        self.metrics.attempt(assumed.entry.profile, Outcome::Scheduled, assumed.took);
        let Assumed { entry, node, since, .. } = assumed;
        self.confirmed.push(Confirmed { key: key.clone(), entry, node, since });
        true
    }
}

/// What came of a plugin's part, in upstream's words.
fn status_of<T>(done: &Result<T, Refusal>) -> Status {
    match done {
        Ok(_) => Status::Success,
        Err(Refusal::Error(_)) => Status::Error,
        Err(Refusal::Rejected(_) | Refusal::Pending(_)) => Status::Unschedulable,
    }
}
