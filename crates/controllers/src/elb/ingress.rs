//! The controller of Ingresses.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::networking::v1::{
    Ingress, IngressClass, IngressLoadBalancerIngress, IngressLoadBalancerStatus,
};
use rustc_hash::FxHashMap;
use wharf_model::balancing::{IngressClassParams, LoadBalancer, TargetGroup, TargetGroupBinding};
use wharf_model::kinds::Kind;
use wharf_model::object::{Object, ObjectKey};
use wharf_model::subnet::Subnet;
use wharf_ports::cluster::{Change, Part, Write};
use wharf_ports::controller::{Context, Controller, Enqueue, Step, WorkKey};
use wharf_ports::event::EventType;
use wharf_ports::view::View;

use super::ElbSettings;
use super::ingress_model::{Member, build};
use super::stack::{self, StackId};
use crate::workloads::event;

const COMPONENT: &str = "ingress";

/// The controller.
pub(super) struct Ingresses {
    settings: Arc<ElbSettings>,
    /// The stack that each Ingress was in at the last look.
    known: FxHashMap<ObjectKey, StackId>,
    /// What was last told of each Ingress: nobody wants to hear the same at every look.
    told: FxHashMap<ObjectKey, String>,
}

impl Ingresses {
    pub(super) fn new(settings: Arc<ElbSettings>) -> Self {
        Self { settings, known: FxHashMap::default(), told: FxHashMap::default() }
    }

    fn queue_all<'v>(view: &'v View, queue: &mut Enqueue, of: impl Fn(&'v Ingress) -> bool) {
        let kind = Kind::of::<Ingress>();
        for ingress in view.list::<Ingress>().filter(|ingress| of(ingress)) {
            queue.now(WorkKey::object(kind, &ObjectKey::of(&ingress.metadata)));
        }
    }

    /// Looks at the stack that an Ingress is in, with all that are in it.
    fn reconcile(&mut self, id: &StackId, context: &Context<'_>, step: &mut Step) {
        let (view, now) = (context.view, context.now);
        let members: Vec<(&Arc<Object>, Member<'_>)> = view
            .objects(Kind::of::<Ingress>())
            .filter_map(|object| Some((object, Member::of(object.typed()?, view)?)))
            .filter(|(_, member)| member.id() == *id)
            .collect();
        let (going, staying): (Vec<_>, Vec<_>) =
            members.into_iter().partition(|(object, _)| object.header().deleting.is_some());
        let (objects, members): (Vec<_>, Vec<_>) = staying.into_iter().unzip();
        if members.is_empty() {
            step.writes.extend(stack::tear_down(id, view, now));
        } else {
            step.writes.extend(members.iter().filter_map(with_finalizer));
            match build(&members, &self.settings, view) {
                Ok(stack) => {
                    let deployment = stack::deploy(&stack, &self.settings, view, now);
                    let is_changed = !deployment.writes.is_empty();
                    step.writes.extend(deployment.writes);
                    for (object, member) in objects.iter().zip(&members) {
                        self.tell_deployed(object, member, &deployment.dns_name, is_changed, step);
                    }
                }
                Err(error) => {
                    let message = format!("Failed build model due to {error}");
                    for object in objects {
                        if self.told.insert(object.key().clone(), message.clone()).as_ref()
                            != Some(&message)
                        {
                            let kind = EventType::Warning;
                            step.write(event(
                                object,
                                kind,
                                COMPONENT,
                                "FailedBuildModel",
                                message.clone(),
                            ));
                        }
                    }
                }
            }
        }
        // Only once nothing of theirs is left.
        for (object, member) in &going {
            self.told.remove(object.key());
            step.writes.extend(without_finalizer(member));
        }
    }

    fn tell_deployed(
        &mut self,
        object: &Arc<Object>,
        member: &Member<'_>,
        dns_name: &str,
        is_changed: bool,
        step: &mut Step,
    ) {
        let mut draft = member.ingress.clone();
        let wanted = vec![IngressLoadBalancerIngress {
            hostname: Some(dns_name.to_owned()),
            ..IngressLoadBalancerIngress::default()
        }];
        let status = draft.status.get_or_insert_default();
        let balancer: &mut IngressLoadBalancerStatus = status.load_balancer.get_or_insert_default();
        let is_new = balancer.ingress.as_ref() != Some(&wanted);
        if is_new {
            balancer.ingress = Some(wanted);
            step.write(Write::Update { object: Box::new(draft), part: Part::Status });
        }
        let before = self.told.insert(object.key().clone(), "deployed".to_owned());
        let was_failing = before.is_some_and(|before| before != "deployed");
        if is_new || is_changed || was_failing {
            let message = "Successfully reconciled";
            step.write(event(
                object,
                EventType::Normal,
                COMPONENT,
                "SuccessfullyReconciled",
                message,
            ));
        }
        let ignored = member.annotations().unknown();
        if is_new && !ignored.is_empty() {
            let message =
                format!("Annotations that the simulation does not act on: {}", ignored.join(", "));
            step.write(event(object, EventType::Warning, COMPONENT, "NotSimulated", message));
        }
    }
}

impl Controller for Ingresses {
    fn name(&self) -> &'static str {
        "load balancers of ingresses"
    }

    fn reads(&self) -> Option<&'static [(&'static str, &'static str)]> {
        Some(&[
            ("", "services"),
            ("networking.k8s.io", "ingresses"),
            ("networking.k8s.io", "ingressclasses"),
            ("elbv2.k8s.aws", "ingressclassparams"),
            ("elbv2.k8s.aws", "targetgroupbindings"),
            ("sim.wharf.dev", "loadbalancers"),
            ("sim.wharf.dev", "targetgroups"),
            ("sim.wharf.dev", "subnets"),
        ])
    }

    fn observe(&mut self, change: &Change, view: &View, queue: &mut Enqueue) {
        let kind = change.kind();
        if kind == Kind::of::<Ingress>() {
            queue.now(WorkKey::object(kind, change.key()));
        } else if kind == Kind::of::<IngressClass>()
            || kind == Kind::of::<IngressClassParams>()
            || kind == Kind::of::<Subnet>()
        {
            Self::queue_all(view, queue, |_| true);
        } else if kind == Kind::of::<Service>() {
            let namespace = change.key().namespace.as_str();
            Self::queue_all(view, queue, |ingress| {
                ingress.metadata.namespace.as_deref() == Some(namespace)
            });
        } else if change.new.is_none()
            && (kind == Kind::of::<TargetGroupBinding>()
                || kind == Kind::of::<TargetGroup>()
                || kind == Kind::of::<LoadBalancer>())
        {
            Self::queue_all(view, queue, |_| true);
        }
    }

    fn step(&mut self, key: &WorkKey, context: &mut Context<'_>) -> Step {
        let mut step = Step::done();
        let ingress = context.view.get::<Ingress>(&key.key);
        let id = ingress.and_then(|ingress| Member::of(ingress, context.view)).map(|it| it.id());
        let before = match &id {
            Some(id) => self.known.insert(key.key.clone(), id.clone()),
            None => self.known.remove(&key.key),
        };
        // The group that it has left, too.
        if let Some(before) = before.filter(|before| Some(before) != id.as_ref()) {
            self.reconcile(&before, context, &mut step);
        }
        match id {
            Some(id) => self.reconcile(&id, context, &mut step),
            None => self.told.retain(|told, _| *told != key.key),
        }
        step
    }
}

/// Writes the Ingress with its finalizer, unless it has it. One of another group is replaced.
fn with_finalizer(member: &Member<'_>) -> Option<Write> {
    let finalizer = member.finalizer();
    let held = member.ingress.metadata.finalizers.as_deref().unwrap_or_default();
    if held.contains(&finalizer) {
        return None;
    }
    let mut draft = member.ingress.clone();
    let finalizers = draft.metadata.finalizers.get_or_insert_default();
    finalizers.retain(|held| !is_ours(held));
    finalizers.push(finalizer);
    Some(Write::Update { object: Box::new(draft), part: Part::Main })
}

fn without_finalizer(member: &Member<'_>) -> Option<Write> {
    let mut draft = member.ingress.clone();
    let finalizers = draft.metadata.finalizers.get_or_insert_default();
    finalizers.retain(|held| !is_ours(held));
    (draft.metadata.finalizers != member.ingress.metadata.finalizers)
        .then(|| Write::Update { object: Box::new(draft), part: Part::Main })
}

fn is_ours(finalizer: &str) -> bool {
    finalizer == "ingress.k8s.aws/resources" || finalizer.starts_with("group.ingress.k8s.aws/")
}
