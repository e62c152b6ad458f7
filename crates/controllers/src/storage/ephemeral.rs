//! Generic ephemeral volumes: a claim for each, made for the pod and gone with it
//! (<https://kubernetes.io/docs/concepts/storage/ephemeral-volumes/#generic-ephemeral-volumes>).

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, PersistentVolumeClaimTemplate, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use wharf_model::kinds::Kind;
use wharf_model::object::ObjectKey;
use wharf_model::storage::ephemeral_claim_name;
use wharf_ports::cluster::{Change, Write};
use wharf_ports::controller::{Context, Controller, Enqueue, OnError, Step, WorkKey};
use wharf_ports::error::{ApiError, StatusReason};
use wharf_ports::view::View;

use crate::workloads::controller_reference;

/// The controller of generic ephemeral volumes.
#[derive(Debug)]
pub(super) struct EphemeralVolumes;

impl Controller for EphemeralVolumes {
    fn name(&self) -> &'static str {
        "ephemeral-volume-controller"
    }

    fn observe(&mut self, change: &Change, _view: &View, queue: &mut Enqueue) {
        let pod = Kind::of::<Pod>();
        if change.kind() == pod {
            let is_new = change.old.is_none();
            if is_new && templates(change.object().typed::<Pod>()).next().is_some() {
                queue.now(WorkKey::object(pod, change.key()));
            }
        } else if change.kind() == Kind::of::<PersistentVolumeClaim>()
            && change.new.is_none()
            && let Some(owner) = change.object().header().controller()
            && owner.kind == pod.kind
        {
            let key = ObjectKey::namespaced(&change.key().namespace, &owner.name);
            queue.now(WorkKey::object(pod, &key));
        }
    }

    fn step(&mut self, key: &WorkKey, context: &mut Context<'_>) -> Step {
        let mut step = Step { independent: true, ..Step::default() };
        let Some(pod) = context.view.get::<Pod>(&key.key) else { return step };
        if pod.metadata.deletion_timestamp.is_some() {
            return step;
        }
        for (volume, template) in templates(Some(pod)) {
            let name = ephemeral_claim_name(&key.key.name, volume);
            let claim = ObjectKey::namespaced(&key.key.namespace, &name);
            // One that somebody else made is not taken over; the pod waits.
            if context.view.object(Kind::of::<PersistentVolumeClaim>(), &claim).is_none() {
                step.write(Write::Create(Box::new(self::claim(pod, name, template))));
            }
        }
        step
    }

    fn refused(&mut self, _key: &WorkKey, _write: &Write, error: &ApiError) -> OnError {
        if error.reason == StatusReason::AlreadyExists { OnError::Forget } else { OnError::Retry }
    }
}

/// The volumes of a pod that are made from a template.
fn templates(pod: Option<&Pod>) -> impl Iterator<Item = (&str, &PersistentVolumeClaimTemplate)> {
    let spec = pod.and_then(|pod| pod.spec.as_ref());
    spec.and_then(|spec| spec.volumes.as_ref()).into_iter().flatten().filter_map(|volume| {
        let template = volume.ephemeral.as_ref()?.volume_claim_template.as_ref()?;
        Some((volume.name.as_str(), template))
    })
}

fn claim(
    pod: &Pod,
    name: String,
    template: &PersistentVolumeClaimTemplate,
) -> PersistentVolumeClaim {
    let from = template.metadata.clone().unwrap_or_default();
    PersistentVolumeClaim {
        metadata: ObjectMeta {
            name: Some(name),
            namespace: pod.metadata.namespace.clone(),
            labels: from.labels,
            annotations: from.annotations,
            owner_references: Some(vec![controller_reference(pod)]),
            ..ObjectMeta::default()
        },
        spec: Some(template.spec.clone()),
        status: None,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;
    use crate::workloads::harness::World;

    #[test]
    fn a_pod_gets_a_claim_of_its_own() {
        let mut world = World::new(vec![Box::new(EphemeralVolumes)]);
        let template =
            json!({"metadata": {"labels": {"a": "b"}}, "spec": {"storageClassName": "s"}});
        world.apply(json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "p", "namespace": "default"},
            "spec": {"containers": [], "volumes": [
                {"name": "v", "ephemeral": {"volumeClaimTemplate": template}},
                {"name": "w", "emptyDir": {}}]}}));
        world.run_for(Duration::from_secs(1));
        let claims = world.list::<PersistentVolumeClaim>();
        assert_eq!(claims.len(), 1);
        let meta = &claims[0].metadata;
        assert_eq!(meta.name.as_deref(), Some("p-v"));
        assert_eq!(meta.labels.as_ref().map(|labels| labels["a"].as_str()), Some("b"));
        assert_eq!(meta.owner_references.as_ref().map(|owners| owners[0].name.as_str()), Some("p"));
        assert_eq!(world.writes, 1);
    }
}
