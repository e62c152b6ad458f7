//! The `default` ServiceAccount of every namespace
//! (<https://kubernetes.io/docs/concepts/security/service-accounts/>).

use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use wharf_model::kinds::Kind;
use wharf_model::object::ObjectKey;
use wharf_ports::cluster::{Change, Write};
use wharf_ports::controller::{Context, Controller, Enqueue, OnError, Step, WorkKey};
use wharf_ports::error::{ApiError, StatusReason};
use wharf_ports::view::View;

const NAME: &str = "default";

/// The service account controller.
#[derive(Debug, Default)]
pub struct ServiceAccountController;

impl Controller for ServiceAccountController {
    fn name(&self) -> &'static str {
        "serviceaccount-controller"
    }

    fn observe(&mut self, change: &Change, _view: &View, queue: &mut Enqueue) {
        let kind = Kind::of::<Namespace>();
        if change.kind() == kind {
            queue.now(WorkKey::object(kind, change.key()));
        } else if change.kind() == Kind::of::<ServiceAccount>() && change.new.is_none() {
            let namespace = ObjectKey::cluster(&change.key().namespace);
            queue.now(WorkKey::object(kind, &namespace));
        }
    }

    fn step(&mut self, key: &WorkKey, context: &mut Context<'_>) -> Step {
        let name = &key.key.name;
        let namespace = context.view.object(Kind::of::<Namespace>(), &key.key);
        let active = namespace.is_some_and(|namespace| namespace.header().deleting.is_none());
        let account = ObjectKey::namespaced(name, NAME);
        if !active || context.view.object(Kind::of::<ServiceAccount>(), &account).is_some() {
            return Step::done();
        }
        let mut account = ServiceAccount::default();
        account.metadata.name = Some(NAME.to_owned());
        account.metadata.namespace = Some(name.to_string());
        let mut step = Step::done();
        step.write(Write::Create(Box::new(account)));
        step
    }

    fn refused(&mut self, _key: &WorkKey, _write: &Write, error: &ApiError) -> OnError {
        match error.reason {
            // It is there, or its namespace is going.
            StatusReason::AlreadyExists | StatusReason::NotFound | StatusReason::Forbidden => {
                OnError::Forget
            }
            _ => OnError::Retry,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;
    use crate::workloads::harness::World;
    use wharf_ports::cluster::Propagation;

    #[test]
    fn every_namespace_has_its_account() {
        let mut world = World::new(vec![Box::new(ServiceAccountController)]);
        world.apply(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team"}}));
        world.run_for(Duration::from_secs(1));
        assert!(world.get::<ServiceAccount>("team", "default").is_some());
        let key = ObjectKey::namespaced("team", "default");
        world.delete::<ServiceAccount>(&key, Propagation::Background);
        world.run_for(Duration::from_secs(1));
        assert!(world.get::<ServiceAccount>("team", "default").is_some());
        assert_eq!(world.writes, 2);
    }
}
