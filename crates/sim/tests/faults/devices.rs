//! Pods that want devices of which there are too few: each its own by template, or several of them
//! one together.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, PodSpec};
use k8s_openapi::api::resource::v1::{ResourceClaim, ResourceSlice};
use wharf_model::kinds::Kind;
use wharf_model::object::{Object, ObjectKey};
use wharf_ports::cluster::{Delete, Write};
use wharf_scheduler::config::Configuration;
use wharf_store::Store;

use crate::trial::Trial;

const OWN: [&str; 2] = ["one", "two"];
const SHARED: &str = "shared";

/// Deployments grow and shrink while there are not devices for all; in the end all are given back.
pub(crate) fn run(seed: u64) -> Trial {
    let mut trial = Trial::new(seed, Configuration::default());
    trial.apply(CLASS);
    let machines = 2 + trial.draw(2) as usize;
    let mut devices = 0;
    for _ in 0..machines {
        let node = trial.add_machine();
        let count = 1 + trial.draw(3);
        devices += count;
        trial.apply(&slice(&node, count));
    }
    for (index, name) in OWN.iter().enumerate() {
        trial.apply(&template(name, index + 1));
        let claim = format!("resourceClaimTemplateName: {name}");
        let grace = trial.draw(10);
        trial.apply(&deployment(name, &claim, grace));
    }
    trial.apply(&claim(SHARED));
    trial.apply(&deployment(SHARED, &format!("resourceClaimName: {SHARED}"), 0));
    for _ in 0..8 {
        let name = [OWN[0], OWN[0], OWN[1], SHARED][trial.draw(4) as usize];
        let replicas = trial.draw(6);
        trial.scale(name, replicas);
        let seconds = u64::from(trial.draw(120));
        trial.run_for_seconds(seconds);
    }
    trial.run_for_minutes(1);
    trial.nobody_is_stranded();
    trial.scale(OWN[1], 0);
    trial.scale(SHARED, 0);
    // All devices, or fewer if there are more pods than all machines hold.
    trial.scale(OWN[0], devices);
    trial.run_for_minutes(12);
    assert_eq!(trial.running(), devices as usize, "all devices are used {}", trial.describe());
    trial.scale(OWN[0], 0);
    trial.scale(SHARED, 2);
    trial.run_for_minutes(12);
    assert_eq!(trial.running(), 2, "two share one {}", trial.describe());
    trial.scale(SHARED, 0);
    trial.run_for_minutes(6);
    assert_eq!(trial.pods(), 0, "no pod is left {}", trial.describe());
    let allocated = |claim: &ResourceClaim| {
        claim.status.as_ref().is_some_and(|status| status.allocation.is_some())
    };
    assert_eq!(trial.count(allocated), 0, "no device is left with a claim");
    trial
}

/// More pods than devices, where pods go away before their claim shows what it has got. That no
/// device is given out twice is checked after every step.
pub(crate) fn run_with_late_watches(seed: u64) -> Trial {
    let mut trial = Trial::with_watches(seed, Configuration::default(), true);
    trial.apply(CLASS);
    for _ in 0..2 {
        let node = trial.add_machine();
        trial.apply(&slice(&node, 2));
    }
    trial.apply(&template(OWN[0], 1));
    let claim = format!("resourceClaimTemplateName: {}", OWN[0]);
    trial.apply(&deployment(OWN[0], &claim, 0));
    trial.scale(OWN[0], 6);
    trial.run_for_minutes(2);
    trial.meddle(Some(delete_on_the_way));
    for _ in 0..8 {
        // Somebody's device becomes free for one of those who wait.
        if let Some(pod) = user(&trial, |spec| spec.node_name.is_some()) {
            let delete = Delete::of(&pod).with_grace(0);
            trial.registry.apply(Write::Delete(delete)).expect("there");
        }
        trial.run_for_seconds(15);
    }
    trial.meddle(None);
    trial.run_for_minutes(6);
    assert_eq!(trial.running(), 4, "all devices are used {}", trial.describe());
    trial
}

/// Sometimes deletes a pod whose claim has just got its device, before the pod is bound and before
/// the scheduler hears of the claim.
fn delete_on_the_way(trial: &mut Trial) {
    if trial.is_stalled() || trial.draw(4) == 0 {
        return;
    }
    let Some(pod) = user(trial, |spec| spec.node_name.is_none()) else { return };
    trial.stall(Kind::of::<ResourceClaim>(), 3);
    trial.registry.apply(Write::Delete(Delete::of(&pod).with_grace(0))).expect("there");
}

/// A pod for which a claim is reserved.
fn user(trial: &Trial, wanted: impl Fn(&PodSpec) -> bool) -> Option<Arc<Object>> {
    let (claims, _) = trial.registry.store().list(Kind::of::<ResourceClaim>(), Some("default"));
    let claims = claims.iter().filter_map(|claim| claim.typed::<ResourceClaim>());
    let users = claims.flat_map(|claim| claim.status.iter().flat_map(|it| &it.reserved_for));
    users.flatten().find_map(|user| {
        let key = ObjectKey::namespaced("default", &user.name);
        let object = trial.registry.get(Kind::of::<Pod>(), &key).ok()?;
        let spec = object.typed::<Pod>().and_then(|pod| pod.spec.as_ref())?;
        wanted(spec).then(|| object.clone())
    })
}

const CLASS: &str = r#"
apiVersion: resource.k8s.io/v1
kind: DeviceClass
metadata: {name: gpu}
spec:
  selectors:
    - cel: {expression: 'device.driver == "gpu.example.com"'}
"#;

fn slice(node: &str, count: u32) -> String {
    let devices: Vec<_> = (0..count).map(|index| format!("{{name: gpu-{index}}}")).collect();
    format!(
        "
apiVersion: resource.k8s.io/v1
kind: ResourceSlice
metadata: {{name: {node}}}
spec:
  driver: gpu.example.com
  nodeName: {node}
  pool: {{name: {node}, generation: 1, resourceSliceCount: 1}}
  devices: [{}]
",
        devices.join(", ")
    )
}

fn template(name: &str, count: usize) -> String {
    format!(
        "
apiVersion: resource.k8s.io/v1
kind: ResourceClaimTemplate
metadata: {{name: {name}}}
spec:
  spec:
    devices:
      requests: [{{name: gpu, exactly: {{deviceClassName: gpu, count: {count}}}}}]
"
    )
}

fn claim(name: &str) -> String {
    format!(
        "
apiVersion: resource.k8s.io/v1
kind: ResourceClaim
metadata: {{name: {name}}}
spec:
  devices:
    requests: [{{name: gpu, exactly: {{deviceClassName: gpu}}}}]
"
    )
}

fn deployment(name: &str, claim: &str, grace: u32) -> String {
    format!(
        "
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}}}
spec:
  replicas: 0
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      terminationGracePeriodSeconds: {grace}
      resourceClaims: [{{name: gpu, {claim}}}]
      containers:
        - name: c
          image: registry.k8s.io/pause:3.10
          resources: {{requests: {{cpu: 100m}}, claims: [{{name: gpu}}]}}
"
    )
}

/// No device is given out twice, and a pod is on a node only with its devices, which are that
/// node's.
pub(crate) fn check(store: &Store) {
    let mut claims = BTreeMap::new();
    let mut taken: BTreeMap<[String; 3], ObjectKey> = BTreeMap::new();
    for object in store.list(Kind::of::<ResourceClaim>(), None).0 {
        let claim = object.typed::<ResourceClaim>().expect("it decodes").clone();
        for device in devices_of(&claim) {
            if let Some(other) = taken.insert(device.clone(), object.key().clone()) {
                panic!("device {device:?} is {other}'s and {}'s", object.key());
            }
        }
        claims.insert(object.key().clone(), claim);
    }
    if claims.is_empty() {
        return;
    }
    let offered = offered(store);
    for object in store.list(Kind::of::<Pod>(), Some("default")).0 {
        let pod = object.typed::<Pod>().expect("it decodes");
        let Some(spec) = &pod.spec else { continue };
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        let (Some(node), None | Some("Pending" | "Running")) = (&spec.node_name, phase) else {
            continue;
        };
        for own in spec.resource_claims.iter().flatten() {
            let made = pod.status.iter().flat_map(|it| it.resource_claim_statuses.iter().flatten());
            let made = made.into_iter().find(|made| made.name == own.name);
            let made = made.and_then(|made| made.resource_claim_name.clone());
            let name = own.resource_claim_name.clone().or(made);
            let name = name.unwrap_or_else(|| panic!("{} has no claim", object.key()));
            let key = ObjectKey::namespaced("default", name.as_str());
            let claim = claims.get(&key);
            let claim = claim.unwrap_or_else(|| panic!("{} lost claim {key}", object.key()));
            let users = claim.status.iter().flat_map(|it| it.reserved_for.iter().flatten());
            let is_user = users.into_iter().any(|user| user.uid == object.uid());
            assert!(is_user, "{} runs without its reservation of {key}", object.key());
            let devices = devices_of(claim);
            assert!(!devices.is_empty(), "{} runs without the devices of {key}", object.key());
            for device in devices {
                assert_eq!(offered.get(&device), Some(node), "{device:?} of {}", object.key());
            }
        }
    }
}

fn devices_of(claim: &ResourceClaim) -> BTreeSet<[String; 3]> {
    let allocation = claim.status.as_ref().and_then(|status| status.allocation.as_ref());
    let results = allocation.and_then(|allocation| allocation.devices.as_ref()?.results.as_ref());
    let results = results.into_iter().flatten();
    results.map(|it| [it.driver.clone(), it.pool.clone(), it.device.clone()]).collect()
}

/// Every device with its node.
fn offered(store: &Store) -> BTreeMap<[String; 3], String> {
    let mut offered = BTreeMap::new();
    for object in store.list(Kind::of::<ResourceSlice>(), None).0 {
        let spec = &object.typed::<ResourceSlice>().expect("it decodes").spec;
        for device in spec.devices.iter().flatten() {
            let key = [spec.driver.clone(), spec.pool.name.clone(), device.name.clone()];
            offered.insert(key, spec.node_name.clone().unwrap_or_default());
        }
    }
    offered
}
