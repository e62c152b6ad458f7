//! The controller of Services of type LoadBalancer.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{LoadBalancerIngress, LoadBalancerStatus, Service};
use rustc_hash::FxHashMap;
use wharf_model::balancing::{LoadBalancer, TargetGroup, TargetGroupBinding};
use wharf_model::kinds::Kind;
use wharf_model::object::{Object, ObjectKey};
use wharf_model::subnet::Subnet;
use wharf_ports::cluster::{Change, Part, Write};
use wharf_ports::controller::{Context, Controller, Enqueue, Step, WorkKey};
use wharf_ports::event::EventType;
use wharf_ports::view::View;

use super::ElbSettings;
use super::service_model::{build, id, is_wanted};
use super::stack;
use crate::workloads::event;

const COMPONENT: &str = "service";
/// Keeps a Service until its load balancer is gone.
const FINALIZER: &str = "service.k8s.aws/resources";

/// The controller.
pub(super) struct Services {
    settings: Arc<ElbSettings>,
    /// What was last told of each Service.
    told: FxHashMap<ObjectKey, String>,
}

impl Services {
    pub(super) fn new(settings: Arc<ElbSettings>) -> Self {
        Self { settings, told: FxHashMap::default() }
    }

    fn reconcile(&mut self, object: &Object, service: &Service, context: &Context<'_>) -> Step {
        let mut step = Step::done();
        if !has_finalizer(service) {
            let mut draft = service.clone();
            draft.metadata.finalizers.get_or_insert_default().push(FINALIZER.to_owned());
            step.write(Write::Update { object: Box::new(draft), part: Part::Main });
        }
        let stack = match build(service, &self.settings, context.view) {
            Ok(stack) => stack,
            Err(error) => {
                let message = format!("Failed build model due to {error}");
                let before = self.told.insert(object.key().clone(), message.clone());
                if before.as_ref() != Some(&message) {
                    let kind = EventType::Warning;
                    step.write(event(object, kind, COMPONENT, "FailedBuildModel", message));
                }
                return step;
            }
        };
        let deployment = stack::deploy(&stack, &self.settings, context.view, context.now);
        let is_changed = !deployment.writes.is_empty();
        step.writes.extend(deployment.writes);
        let wanted = vec![LoadBalancerIngress {
            hostname: Some(deployment.dns_name),
            ..LoadBalancerIngress::default()
        }];
        let is_new = points(service) != Some(&wanted);
        if is_new {
            step.writes.push(with_points(service, Some(wanted)));
        }
        let before = self.told.insert(object.key().clone(), String::new());
        if is_new || is_changed || before.is_some_and(|before| !before.is_empty()) {
            let message = "Successfully reconciled";
            step.write(event(
                object,
                EventType::Normal,
                COMPONENT,
                "SuccessfullyReconciled",
                message,
            ));
        }
        step
    }

    fn clean_up(&mut self, service: &Service, context: &Context<'_>) -> Step {
        let mut step = Step::done();
        let key = ObjectKey::of(&service.metadata);
        self.told.remove(&key);
        if !has_finalizer(service) {
            return step;
        }
        step.writes = stack::tear_down(&id(&key), context.view, context.now);
        if points(service).is_some() && service.metadata.deletion_timestamp.is_none() {
            step.writes.push(with_points(service, None));
        }
        let mut draft = service.clone();
        draft.metadata.finalizers.get_or_insert_default().retain(|held| held != FINALIZER);
        step.write(Write::Update { object: Box::new(draft), part: Part::Main });
        step
    }
}

impl Controller for Services {
    fn name(&self) -> &'static str {
        "load balancers of services"
    }

    fn reads(&self) -> Option<&'static [(&'static str, &'static str)]> {
        Some(&[
            ("", "services"),
            ("elbv2.k8s.aws", "targetgroupbindings"),
            ("sim.wharf.dev", "loadbalancers"),
            ("sim.wharf.dev", "targetgroups"),
            ("sim.wharf.dev", "subnets"),
        ])
    }

    fn observe(&mut self, change: &Change, view: &View, queue: &mut Enqueue) {
        let (kind, of) = (change.kind(), Kind::of::<Service>());
        if kind == of {
            let mut versions = change.old.iter().chain(&change.new);
            if versions.any(|object| object.typed::<Service>().is_some_and(concerns)) {
                queue.now(WorkKey::object(of, change.key()));
            }
        } else if kind == Kind::of::<Subnet>()
            || (change.new.is_none()
                && (kind == Kind::of::<TargetGroupBinding>()
                    || kind == Kind::of::<TargetGroup>()
                    || kind == Kind::of::<LoadBalancer>()))
        {
            for service in view.list::<Service>().filter(|service| concerns(service)) {
                queue.now(WorkKey::object(of, &ObjectKey::of(&service.metadata)));
            }
        }
    }

    fn step(&mut self, key: &WorkKey, context: &mut Context<'_>) -> Step {
        let Some((object, service)) = context
            .view
            .object(Kind::of::<Service>(), &key.key)
            .and_then(|object| Some((object, object.typed::<Service>()?)))
        else {
            self.told.remove(&key.key);
            return Step::done();
        };
        if is_wanted(service) {
            self.reconcile(object, service, context)
        } else {
            self.clean_up(service, context)
        }
    }
}

fn concerns(service: &Service) -> bool {
    is_wanted(service) || has_finalizer(service)
}

fn has_finalizer(service: &Service) -> bool {
    service.metadata.finalizers.iter().flatten().any(|held| held == FINALIZER)
}

fn points(service: &Service) -> Option<&Vec<LoadBalancerIngress>> {
    service.status.as_ref()?.load_balancer.as_ref()?.ingress.as_ref()
}

fn with_points(service: &Service, points: Option<Vec<LoadBalancerIngress>>) -> Write {
    let mut draft = service.clone();
    let status = draft.status.get_or_insert_default();
    status.load_balancer = Some(LoadBalancerStatus { ingress: points });
    Write::Update { object: Box::new(draft), part: Part::Status }
}
