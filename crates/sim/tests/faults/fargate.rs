//! Pods on Fargate that come, go, and lose their nodes: each has one machine, which goes with it.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Node, Pod};
use wharf_model::instance::{Instance, InstanceState};
use wharf_model::kinds::Kind;
use wharf_ports::cluster::{Delete, Write};
use wharf_scheduler::config::Configuration;
use wharf_store::Store;

use crate::trial::Trial;

const PROFILE: &str = "
apiVersion: eks.services.k8s.aws/v1alpha1
kind: FargateProfile
metadata: {name: vms, namespace: kube-system}
spec: {name: vms, selectors: [{namespace: default, labels: {on: fargate}}]}
";

const DEPLOYMENT: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: vm}
spec:
  replicas: 0
  selector: {matchLabels: {app: vm}}
  template:
    metadata: {labels: {app: vm, on: fargate}}
    spec:
      terminationGracePeriodSeconds: 5
      containers: [{name: c, image: 'registry.k8s.io/pause:3.7', resources: {requests: {cpu: 300m}}}]
";

/// Pods come and go; in the end those that are wanted run, and then nothing is left that costs.
pub(crate) fn run(seed: u64) -> Trial {
    let mut trial = Trial::new(seed, Configuration::default());
    trial.apply(PROFILE);
    trial.run_for_minutes(8);
    trial.apply(DEPLOYMENT);
    for _ in 0..8 {
        match trial.draw(5) {
            0..3 => {
                let replicas = trial.draw(6);
                trial.scale("vm", replicas);
            }
            3 => lose(&mut trial, Kind::of::<Pod>()),
            _ => lose(&mut trial, Kind::of::<Node>()),
        }
        let seconds = u64::from(trial.draw(90));
        trial.run_for_seconds(seconds);
    }
    trial.scale("vm", 4);
    // A machine that lost its node before its pod came is given up after ten minutes.
    trial.run_for_minutes(25);
    assert_eq!(trial.running(), 4, "all run {}", trial.describe());
    assert_eq!(trial.count::<Instance>(is_up), 4, "on one machine each {}", trial.describe());
    trial.scale("vm", 0);
    trial.run_for_minutes(5);
    assert_eq!(trial.pods(), 0, "nothing is left {}", trial.describe());
    assert_eq!(trial.count::<Instance>(is_up), 0, "and nothing costs {}", trial.describe());
    assert_eq!(trial.count::<Node>(|_| true), 0, "nor is a node left {}", trial.describe());
    trial
}

/// Somebody deletes an object of a kind: a pod of ours, or any node.
fn lose(trial: &mut Trial, kind: Kind) {
    let (objects, _) = trial.registry.store().list(kind, None);
    let is_ours = |namespace: &str| namespace.is_empty() || namespace == "default";
    let ours: Vec<_> =
        objects.into_iter().filter(|object| is_ours(&object.key().namespace)).collect();
    if let Some(count) = u32::try_from(ours.len()).ok().filter(|count| *count > 0) {
        let chosen = trial.draw(count) as usize;
        trial.registry.apply(Write::Delete(Delete::of(&ours[chosen]))).expect("it is there");
    }
}

/// No pod has two machines.
pub(crate) fn check(store: &Store) {
    let mut machines: BTreeMap<String, u32> = BTreeMap::new();
    for object in store.list(Kind::of::<Instance>(), None).0 {
        let Some(machine) = object.typed::<Instance>().filter(|machine| is_up(machine)) else {
            continue;
        };
        if let Some(vm) = &machine.spec.micro_vm {
            *machines.entry(vm.pod_uid.clone()).or_default() += 1;
        }
    }
    for (pod, count) in machines {
        assert_eq!(count, 1, "machines of pod {pod}");
    }
}

fn is_up(machine: &Instance) -> bool {
    matches!(machine.status.state, InstanceState::Pending | InstanceState::Running)
}
