//! StatefulSets whose claims wait for their first pods: volumes that are made where the pod goes,
//! and local ones that are there already, on machines that attach only a few.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::CSINode;
use wharf_model::ebs;
use wharf_model::kinds::{Kind, Resource};
use wharf_model::object::ObjectKey;
use wharf_scheduler::config::Configuration;
use wharf_store::Store;

use crate::trial::Trial;

const SETS: [&str; 3] = ["made", "made-too", "local"];
/// How many volumes a machine attaches.
const ATTACHED_MAX: i32 = 2;

/// Sets grow and shrink while there is not room for all of their volumes; in the end everything is
/// given back.
pub(crate) fn run(seed: u64) -> Trial {
    let mut trial = Trial::new(seed, Configuration::default());
    trial.apply(LOCAL_CLASS);
    for index in 0..2 + trial.draw(2) {
        let node = add_machine(&mut trial);
        for disk in 0..1 + trial.draw(2) {
            trial.apply(&local_volume(&format!("local-{index}-{disk}"), &node));
        }
    }
    trial.run_for_seconds(30);
    for set in SETS {
        let grace = trial.draw(10);
        let keeps = trial.draw(2) == 0;
        trial.apply(&stateful_set(set, grace, keeps));
    }
    // One of each finds room, whatever else happens.
    for set in SETS {
        trial.scale(set, 1);
    }
    trial.run_for_minutes(15);
    assert_eq!(trial.running(), SETS.len(), "one of each runs {}", trial.describe());
    for _ in 0..6 {
        let set = SETS[trial.draw(3) as usize];
        let replicas = trial.draw(6);
        trial.scale(set, replicas);
        let seconds = u64::from(trial.draw(200));
        trial.run_for_seconds(seconds);
    }
    trial.run_for_minutes(1);
    trial.nobody_is_stranded();
    for set in SETS {
        trial.delete::<StatefulSet>(set);
    }
    trial.run_for_minutes(6);
    assert_eq!(trial.pods(), 0, "no pod is left {}", trial.describe());
    let (claims, _) = trial.registry.store().list(Kind::of::<PersistentVolumeClaim>(), None);
    for claim in claims {
        trial.delete::<PersistentVolumeClaim>(&claim.key().name);
    }
    trial.run_for_minutes(20);
    assert_eq!(trial.count::<PersistentVolumeClaim>(|_| true), 0, "no claim is left");
    let made = |volume: &PersistentVolume| is_attached(volume);
    assert_eq!(trial.count(made), 0, "what was made for claims goes with them");
    trial
}

/// A machine that says how many volumes it attaches before its kubelet would say something else.
fn add_machine(trial: &mut Trial) -> String {
    let node = trial.add_machine();
    trial.apply(&format!(
        "
apiVersion: storage.k8s.io/v1
kind: CSINode
metadata:
  name: {node}
  annotations: {{storage.alpha.kubernetes.io/migrated-plugins: {}}}
spec:
  drivers:
    - name: {}
      nodeID: {node}
      topologyKeys: [{}]
      allocatable: {{count: {ATTACHED_MAX}}}
",
        ebs::IN_TREE,
        ebs::DRIVER,
        ebs::TOPOLOGY_KEYS.join(", ")
    ));
    node
}

const LOCAL_CLASS: &str = "
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: local}
provisioner: kubernetes.io/no-provisioner
volumeBindingMode: WaitForFirstConsumer
";

fn local_volume(name: &str, node: &str) -> String {
    format!(
        "
apiVersion: v1
kind: PersistentVolume
metadata: {{name: {name}}}
spec:
  capacity: {{storage: 20Gi}}
  accessModes: [ReadWriteOnce]
  persistentVolumeReclaimPolicy: Retain
  storageClassName: local
  local: {{path: /mnt/{name}}}
  nodeAffinity:
    required:
      nodeSelectorTerms:
        - matchExpressions:
            - {{key: kubernetes.io/hostname, operator: In, values: [{node}]}}
"
    )
}

fn stateful_set(name: &str, grace: u32, keeps: bool) -> String {
    let class = if name == "local" { "local" } else { "gp2" };
    let scaled = if keeps { "Retain" } else { "Delete" };
    format!(
        "
apiVersion: apps/v1
kind: StatefulSet
metadata: {{name: {name}}}
spec:
  replicas: 0
  serviceName: {name}
  podManagementPolicy: Parallel
  persistentVolumeClaimRetentionPolicy: {{whenDeleted: Retain, whenScaled: {scaled}}}
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      terminationGracePeriodSeconds: {grace}
      containers:
        - name: c
          image: registry.k8s.io/pause:3.10
          resources: {{requests: {{cpu: 500m}}}}
          volumeMounts: [{{name: data, mountPath: /data}}]
  volumeClaimTemplates:
    - metadata: {{name: data}}
      spec:
        accessModes: [ReadWriteOnce]
        storageClassName: {class}
        resources: {{requests: {{storage: 10Gi}}}}
"
    )
}

fn is_attached(volume: &PersistentVolume) -> bool {
    let csi = volume.spec.as_ref().and_then(|spec| spec.csi.as_ref());
    csi.is_some_and(|csi| csi.driver == ebs::DRIVER)
}

/// Claims and volumes belong together one to one and for good, and pods run where theirs are.
#[derive(Default)]
pub(crate) struct VolumeInvariants {
    /// The volume of each claim, by the claim's uid.
    bound: BTreeMap<String, String>,
    /// Pods that were on a node when looked at last, by uid: where a pod goes is judged once.
    placed: BTreeSet<String>,
}

impl VolumeInvariants {
    pub(crate) fn check(&mut self, store: &Store) {
        self.claims_have_one_volume_each(store);
        self.pods_are_where_their_volumes_are(store);
    }

    fn claims_have_one_volume_each(&mut self, store: &Store) {
        let mut claimed: BTreeMap<String, ObjectKey> = BTreeMap::new();
        for object in store.list(Kind::of::<PersistentVolumeClaim>(), None).0 {
            let claim = object.typed::<PersistentVolumeClaim>().expect("it decodes");
            let Some(volume) = volume_of(claim) else {
                assert!(!self.bound.contains_key(object.uid()), "{} lost its volume", object.key());
                continue;
            };
            let first = self.bound.entry(object.uid().to_owned()).or_insert_with(|| volume.clone());
            assert_eq!(*first, volume, "claim {} changed its volume", object.key());
            if let Some(other) = claimed.insert(volume.clone(), object.key().clone()) {
                panic!("volume {volume} is bound to {other} and {}", object.key());
            }
            // The volume is kept for the claim before the claim is told, but may have been lost.
            if let Some(volume) = find::<PersistentVolume>(store, &ObjectKey::cluster(&volume)) {
                let kept = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
                let kept = kept.and_then(|kept| kept.uid.as_deref());
                assert_eq!(kept, Some(object.uid()), "the volume of {} is another's", object.key());
            }
        }
    }

    fn pods_are_where_their_volumes_are(&mut self, store: &Store) {
        let mut attached: BTreeMap<String, BTreeSet<ObjectKey>> = BTreeMap::new();
        let mut placed = BTreeSet::new();
        for object in store.list(Kind::of::<Pod>(), Some("default")).0 {
            let pod = object.typed::<Pod>().expect("it decodes");
            let Some(spec) = &pod.spec else { continue };
            let Some(node_name) = &spec.node_name else { continue };
            placed.insert(object.uid().to_owned());
            let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
            if matches!(phase, Some("Succeeded" | "Failed")) {
                continue;
            }
            let is_new = !self.placed.contains(object.uid());
            let node = find::<Node>(store, &ObjectKey::cluster(node_name));
            for claim in spec.volumes.iter().flatten() {
                let Some(claim) = &claim.persistent_volume_claim else { continue };
                let key = ObjectKey::namespaced("default", claim.claim_name.as_str());
                let Some(claim) = find::<PersistentVolumeClaim>(store, &key) else { continue };
                let volume = volume_of(&claim);
                assert!(!is_new || volume.is_some(), "{} has no volume for {key}", object.key());
                let volume = volume.map(|name| ObjectKey::cluster(&name));
                let Some(volume) = volume.and_then(|key| find::<PersistentVolume>(store, &key))
                else {
                    continue;
                };
                if let Some(node) = node.as_ref().filter(|_| is_new) {
                    assert!(reaches(node, &volume), "{} is away from its volume", object.key());
                }
                if is_attached(&volume) {
                    attached.entry(node_name.clone()).or_default().insert(key);
                }
            }
        }
        self.placed = placed;
        for (node, volumes) in attached {
            let Some(own) = find::<CSINode>(store, &ObjectKey::cluster(&node)) else { continue };
            let driver = own.spec.drivers.iter().find(|driver| driver.name == ebs::DRIVER);
            let limit = driver.and_then(|driver| driver.allocatable.as_ref()?.count);
            let limit = limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX);
            assert!(volumes.len() <= limit, "{node} attaches {volumes:?}, but {limit} at most");
        }
    }
}

fn find<T: Resource + Clone>(store: &Store, key: &ObjectKey) -> Option<T> {
    store.get(T::kind(), key)?.typed::<T>().cloned()
}

fn volume_of(claim: &PersistentVolumeClaim) -> Option<String> {
    let name = claim.spec.as_ref()?.volume_name.clone()?;
    (!name.is_empty()).then_some(name)
}

/// Whether the node has a value of each label that the volume's affinity names. The volumes of this
/// world say it with `In` alone.
fn reaches(node: &Node, volume: &PersistentVolume) -> bool {
    let affinity = volume.spec.as_ref().and_then(|spec| spec.node_affinity.as_ref());
    let Some(required) = affinity.and_then(|affinity| affinity.required.as_ref()) else {
        return true;
    };
    let labels = node.metadata.labels.clone().unwrap_or_default();
    required.node_selector_terms.iter().any(|term| {
        term.match_expressions.iter().flatten().all(|expression| {
            assert_eq!(expression.operator, "In", "no other is made");
            let own = labels.get(&expression.key);
            own.is_some_and(|own| expression.values.iter().flatten().any(|value| value == own))
        })
    })
}
