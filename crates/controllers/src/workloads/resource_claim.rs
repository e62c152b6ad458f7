//! Claims on devices: made from templates for the pods that ask for them, and given back when no
//! pod uses them any more.
//!
//! Follows <https://kubernetes.io/docs/concepts/scheduling-eviction/dynamic-resource-allocation/>.
//! The scheduler allocates and reserves; this controller only ever takes away.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, PodResourceClaim, PodResourceClaimStatus};
use k8s_openapi::api::resource::v1::{
    ResourceClaim, ResourceClaimConsumerReference, ResourceClaimTemplate,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use wharf_model::kinds::Kind;
use wharf_model::object::{Object, ObjectKey};
use wharf_model::pod::is_terminal;
use wharf_model::random::Random;
use wharf_model::time::Time;
use wharf_ports::cluster::{Change, Delete, Part, Write};
use wharf_ports::controller::{Context, Controller, Enqueue, OnError, Step, WorkKey};
use wharf_ports::error::{ApiError, StatusReason};
use wharf_ports::event::EventType;
use wharf_ports::view::View;

use super::events::event;
use super::owners::controller_reference;

const COMPONENT: &str = "resource_claim";
/// Says for which of its pod's claims a claim was made.
const POD_CLAIM_NAME: &str = "resource.kubernetes.io/pod-claim-name";
/// Keeps a claim as long as devices are allocated for it.
const FINALIZER: &str = "resource.kubernetes.io/delete-protection";
/// How long a claim is given to show up before it is made again.
const RETRY: Duration = Duration::from_secs(10);

/// The ResourceClaim controller.
#[derive(Debug, Default)]
pub struct ResourceClaimController {
    /// Claims that were asked for and have not shown up, by pod and by the pod's name for them.
    creating: BTreeMap<(ObjectKey, String), Time>,
    /// Pods whose template is not there.
    waiting: BTreeSet<ObjectKey>,
}

impl ResourceClaimController {
    /// Makes the claims a pod asks for by template, and tells the pod what they are called.
    fn pod(&mut self, key: &ObjectKey, context: &mut Context<'_>) -> Step {
        let (view, now) = (context.view, context.now);
        let mut step = Step::done();
        self.waiting.remove(key);
        let object = view.object(Kind::of::<Pod>(), key);
        let Some((object, pod)) = object.and_then(|object| Some((object, object.typed::<Pod>()?)))
        else {
            self.creating.retain(|(pod, _), _| pod != key);
            return step;
        };
        if object.header().deleting.is_some() || is_terminal(pod) {
            return step;
        }
        let mut named = Vec::new();
        let spec = pod.spec.as_ref();
        for wanted in spec.and_then(|spec| spec.resource_claims.as_ref()).into_iter().flatten() {
            let Some(template) = wanted.resource_claim_template_name.as_deref() else { continue };
            let entry = (key.clone(), wanted.name.clone());
            if let Some(claim) = made_for(object, pod, &wanted.name, view) {
                self.creating.remove(&entry);
                named.push(PodResourceClaimStatus {
                    name: wanted.name.clone(),
                    resource_claim_name: Some(claim.key().name.to_string()),
                });
                continue;
            }
            if let Some(asked) = self.creating.get(&entry).filter(|asked| now < **asked + RETRY) {
                step.again = Some((*asked + RETRY).since(now));
                continue;
            }
            let template_key = ObjectKey::namespaced(&key.namespace, template);
            match view.get::<ResourceClaimTemplate>(&template_key) {
                Some(template) => {
                    let claim = claim(pod, wanted, template, context.random);
                    step.write(Write::Create(Box::new(claim)));
                    self.creating.insert(entry, now);
                    step.again = Some(RETRY);
                }
                None => {
                    self.waiting.insert(key.clone());
                    let text = format!(
                        "PodResourceClaim {}: resource claim template {template:?}: resourceclaimtemplate.resource.k8s.io {template:?} not found",
                        wanted.name
                    );
                    let reason = "FailedResourceClaimCreation";
                    step.write(event(object, EventType::Warning, COMPONENT, reason, text));
                }
            }
        }
        let status = pod.status.clone().unwrap_or_default();
        let told = status.resource_claim_statuses.as_deref().unwrap_or_default();
        if named.iter().any(|name| !told.contains(name)) {
            let mut pod = pod.clone();
            let told =
                pod.status.get_or_insert_default().resource_claim_statuses.get_or_insert_default();
            told.retain(|old| named.iter().all(|new| new.name != old.name));
            told.extend(named);
            told.sort_by(|left, right| left.name.cmp(&right.name));
            step.write(Write::Update { object: Box::new(pod), part: Part::Status });
        }
        step
    }
}

impl Controller for ResourceClaimController {
    fn name(&self) -> &'static str {
        "resourceclaim-controller"
    }

    fn observe(&mut self, change: &Change, view: &View, queue: &mut Enqueue) {
        let kind = change.kind();
        let (pods, claims) = (Kind::of::<Pod>(), Kind::of::<ResourceClaim>());
        if kind == pods {
            let Some(pod) = change.object().typed::<Pod>() else { return };
            let spec = pod.spec.as_ref();
            let wanted = spec.and_then(|spec| spec.resource_claims.as_deref()).unwrap_or_default();
            let status = pod.status.as_ref();
            let made = status.and_then(|status| status.extended_resource_claim_status.as_ref());
            if wanted.is_empty() && made.is_none() {
                return;
            }
            queue.now(WorkKey::object(pods, change.key()));
            if change.new.is_some() && !is_terminal(pod) {
                return;
            }
            for claim in view.objects_in(claims, &change.key().namespace) {
                if is_consumer(claim, change.object()) {
                    queue.now(WorkKey::object(claims, claim.key()));
                }
            }
        } else if kind == claims {
            queue.now(WorkKey::object(claims, change.key()));
            if let Some(owner) = change.object().header().controller()
                && owner.kind == pods.kind
            {
                let key = ObjectKey::namespaced(&change.key().namespace, &owner.name);
                queue.now(WorkKey::object(pods, &key));
            }
        } else if kind == Kind::of::<ResourceClaimTemplate>() && change.new.is_some() {
            for pod in self.waiting.iter().filter(|pod| pod.namespace == change.key().namespace) {
                queue.now(WorkKey::object(pods, pod));
            }
        }
    }

    fn step(&mut self, key: &WorkKey, context: &mut Context<'_>) -> Step {
        if key.kind == Some(Kind::of::<Pod>()) {
            return self.pod(&key.key, context);
        }
        release(&key.key, context.view)
    }

    fn refused(&mut self, key: &WorkKey, write: &Write, error: &ApiError) -> OnError {
        if matches!(write, Write::Create(_)) {
            self.creating.retain(|(pod, _), _| *pod != key.key);
        }
        if error.reason == StatusReason::NotFound { OnError::Forget } else { OnError::Retry }
    }
}

/// The claim that was made for a pod under a name. One that was late to show up may have been made
/// twice: then it stays the one that the pod has been told of, which may have its devices already.
fn made_for<'v>(object: &Object, pod: &Pod, name: &str, view: &'v View) -> Option<&'v Object> {
    let statuses = pod.status.as_ref().and_then(|status| status.resource_claim_statuses.as_ref());
    let told = statuses.into_iter().flatten().find(|told| told.name == name);
    let told = told.and_then(|told| told.resource_claim_name.as_deref());
    let made = view.owned_by(object.uid(), Kind::of::<ResourceClaim>()).filter(|claim| {
        let annotations =
            claim.typed::<ResourceClaim>().and_then(|claim| claim.metadata.annotations.as_ref());
        annotations.and_then(|all| all.get(POD_CLAIM_NAME)).is_some_and(|own| own == name)
    });
    made.min_by_key(|claim| told != Some(claim.key().name.as_str())).map(|claim| claim.as_ref())
}

fn claim(
    pod: &Pod,
    wanted: &PodResourceClaim,
    template: &ResourceClaimTemplate,
    random: &mut Random,
) -> ResourceClaim {
    let from = template.spec.metadata.clone().unwrap_or_default();
    let generate = format!("{}-{}-", pod.metadata.name.as_deref().unwrap_or_default(), wanted.name);
    let mut annotations = from.annotations.unwrap_or_default();
    annotations.insert(POD_CLAIM_NAME.to_owned(), wanted.name.clone());
    ResourceClaim {
        metadata: ObjectMeta {
            name: Some(random.generated_name(&generate)),
            generate_name: Some(generate),
            namespace: pod.metadata.namespace.clone(),
            labels: from.labels,
            annotations: Some(annotations),
            owner_references: Some(vec![controller_reference(pod)]),
            ..ObjectMeta::default()
        },
        spec: template.spec.spec.clone(),
        status: None,
    }
}

/// Takes those off a claim that use it no more; with the last of them the devices are given back.
fn release(key: &ObjectKey, view: &View) -> Step {
    let mut step = Step::done();
    let object = view.object(Kind::of::<ResourceClaim>(), key);
    let Some((object, claim)) =
        object.and_then(|object| Some((object, object.typed::<ResourceClaim>()?)))
    else {
        return step;
    };
    let status = claim.status.clone().unwrap_or_default();
    let before = status.reserved_for.unwrap_or_default();
    let users: Vec<ResourceClaimConsumerReference> =
        before.iter().filter(|user| is_in_use(user, key, view)).cloned().collect();
    let is_protected =
        claim.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == FINALIZER);
    let is_going = object.header().deleting.is_some();
    if users.len() < before.len() || (users.is_empty() && is_going && is_protected) {
        let mut claim = claim.clone();
        let status = claim.status.get_or_insert_default();
        let is_free = users.is_empty();
        status.reserved_for = (!is_free).then_some(users);
        if is_free && is_protected {
            status.allocation = None;
            status.devices = None;
            claim.metadata.finalizers.iter_mut().for_each(|all| all.retain(|one| one != FINALIZER));
        }
        step.write(Write::Update { object: Box::new(claim), part: Part::All });
    } else if users.is_empty() && !is_going && is_abandoned(object, view) {
        step.write(Write::Delete(Delete::of(object)));
    }
    step
}

/// Whether a consumer is a pod that is there and has not ended. What is no pod is left alone.
fn is_in_use(user: &ResourceClaimConsumerReference, claim: &ObjectKey, view: &View) -> bool {
    let is_pod =
        user.resource == "pods" && user.api_group.as_deref().unwrap_or_default().is_empty();
    let key = ObjectKey::namespaced(&claim.namespace, &user.name);
    !is_pod
        || view
            .get::<Pod>(&key)
            .is_some_and(|pod| pod.metadata.uid.as_deref() == Some(&user.uid) && !is_terminal(pod))
}

/// Whether a pod uses a claim or owns it.
fn is_consumer(claim: &Object, pod: &Object) -> bool {
    let status = claim.typed::<ResourceClaim>().and_then(|claim| claim.status.as_ref());
    let reserved = status.and_then(|status| status.reserved_for.as_deref());
    reserved.into_iter().flatten().any(|user| user.uid == pod.uid())
        || claim.header().owners.iter().any(|owner| owner.uid == pod.uid())
}

/// Whether a claim was made for a pod that has ended.
fn is_abandoned(claim: &Object, view: &View) -> bool {
    let Some(owner) = claim.header().controller().filter(|owner| owner.kind == "Pod") else {
        return false;
    };
    let key = ObjectKey::namespaced(&claim.key().namespace, &owner.name);
    view.object(Kind::of::<Pod>(), &key)
        .filter(|pod| pod.uid() == owner.uid)
        .and_then(|pod| pod.typed::<Pod>())
        .is_some_and(is_terminal)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::workloads::harness::World;

    fn world() -> World {
        let mut world = World::new(vec![Box::new(ResourceClaimController::default())]);
        world.apply(json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "p", "namespace": "default"},
            "spec": {"containers": [], "resourceClaims": [
                {"name": "gpu", "resourceClaimTemplateName": "one-gpu"}]}}));
        world.run_for(Duration::from_secs(1));
        world
    }

    fn add_template(world: &mut World) {
        let requests = json!([{"name": "r", "exactly": {"deviceClassName": "gpu"}}]);
        world.apply(json!({"apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaimTemplate",
            "metadata": {"name": "one-gpu", "namespace": "default"},
            "spec": {"metadata": {"labels": {"a": "b"}}, "spec": {"devices": {"requests": requests}}}}));
        world.run_for(Duration::from_secs(1));
    }

    #[test]
    fn a_pod_gets_its_claim_once_there_is_a_template() {
        let mut world = world();
        assert_eq!(world.list::<ResourceClaim>().len(), 0);
        assert_eq!(
            world.messages(),
            [
                "PodResourceClaim gpu: resource claim template \"one-gpu\": resourceclaimtemplate.resource.k8s.io \"one-gpu\" not found"
            ]
        );
        world.lag = 3;
        add_template(&mut world);
        let claims = world.list::<ResourceClaim>();
        assert_eq!(claims.len(), 1);
        let meta = claims[0].metadata.clone();
        assert!(meta.name.as_deref().is_some_and(|name| name.starts_with("p-gpu-")));
        assert_eq!(meta.annotations.map(|all| all[POD_CLAIM_NAME].clone()).as_deref(), Some("gpu"));
        let pod: &Pod = world.get("default", "p").expect("the pod");
        let told = pod.status.clone().and_then(|status| status.resource_claim_statuses);
        assert_eq!(told.map(|told| told[0].resource_claim_name.clone()), Some(meta.name));
        let writes = world.writes;
        world.run_for(Duration::from_secs(3_600));
        assert_eq!(world.writes, writes, "nothing happens, nothing is written");
    }

    #[test]
    fn a_pod_keeps_the_claim_that_it_was_told_of() {
        let mut world = world();
        add_template(&mut world);
        let told = |world: &World| {
            let pod: &Pod = world.get("default", "p").expect("the pod");
            pod.status
                .clone()
                .and_then(|it| it.resource_claim_statuses?[0].resource_claim_name.clone())
        };
        let first = told(&world).expect("it has been told");
        // One that was made for it as well, of a name before and of a name after the first one's.
        let claim = world.list::<ResourceClaim>()[0].clone();
        for name in ["p-gpu-", "p-gpu-zzzzzz"] {
            let mut second = serde_json::to_value(&claim).expect("JSON");
            let owners = second["metadata"]["ownerReferences"].clone();
            let annotations = second["metadata"]["annotations"].clone();
            second["metadata"] = json!({"name": name.trim_end_matches('-'), "namespace": "default",
                "ownerReferences": owners, "annotations": annotations});
            world.apply(second);
            world.run_for(Duration::from_secs(30));
            assert_eq!(told(&world).as_ref(), Some(&first));
        }
    }

    #[test]
    fn devices_are_given_back_when_the_last_pod_ends() {
        let mut world = world();
        add_template(&mut world);
        let key = ObjectKey::of(&world.list::<ResourceClaim>()[0].metadata);
        let uid = world.get::<Pod>("default", "p").and_then(|pod| pod.metadata.uid.clone());
        let consumer = |name: &str, uid: &str| ResourceClaimConsumerReference {
            api_group: None,
            resource: "pods".to_owned(),
            name: name.to_owned(),
            uid: uid.to_owned(),
        };
        world.edit::<ResourceClaim>(&key, |claim| {
            claim.metadata.finalizers = Some(vec![FINALIZER.to_owned()]);
            let status = claim.status.get_or_insert_default();
            status.allocation = Some(Default::default());
            let uid = uid.as_deref().unwrap_or_default();
            status.reserved_for = Some(vec![consumer("p", uid), consumer("gone", "x")]);
        });
        world.run_for(Duration::from_secs(1));
        let status = |world: &World| {
            let claim: &ResourceClaim = world.stored.get(&key).expect("the claim");
            let status = claim.status.clone().unwrap_or_default();
            (status.allocation.is_some(), status.reserved_for.map_or(0, |users| users.len()))
        };
        assert_eq!(status(&world), (true, 1));
        world.edit::<Pod>(&ObjectKey::namespaced("default", "p"), |pod| {
            pod.status.get_or_insert_default().phase = Some("Succeeded".to_owned());
        });
        world.run_for(Duration::from_secs(1));
        // Made for this pod, and needed no more.
        assert_eq!(world.list::<ResourceClaim>().len(), 0);
    }
}
