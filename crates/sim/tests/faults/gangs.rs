//! Gangs on too few machines, with other pods that want the same room.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::scheduling::v1alpha2::PodGroup;
use wharf_model::kinds::Kind;
use wharf_model::object::ObjectKey;
use wharf_model::time::Time;
use wharf_scheduler::config::{Configuration, load};
use wharf_store::Store;

use crate::trial::Trial;

/// How long a part of a gang may be on its nodes without the rest: as long as the plugin holds
/// places for one that is incomplete.
const PARTLY_MAX: Duration = Duration::from_secs(300);

const GROUPS: usize = 3;

/// One gang of the world.
struct Gang {
    name: String,
    replicas: u32,
    scaled: bool,
}

/// Gangs come, go, and come back on machines that do not hold all of them; in the end there is room
/// for all, and all run.
pub(crate) fn run(seed: u64) -> Trial {
    let mut trial = Trial::new(seed, heeding_groups());
    for _ in 0..2 + trial.draw(3) {
        trial.add_machine();
    }
    trial.apply(&deployment("plain", "", 0, 1, 0));
    let mut gangs = Vec::new();
    for _ in 0..10 {
        match trial.draw(6) {
            0 | 1 if gangs.len() < GROUPS => gangs.push(create(&mut trial, gangs.len())),
            0 | 1 => {
                let which = trial.draw(GROUPS as u32) as usize;
                let gang = &mut gangs[which];
                gang.scaled = !gang.scaled;
                trial.scale(&gang.name, if gang.scaled { gang.replicas } else { 0 });
            }
            2 | 3 => {
                let replicas = trial.draw(14);
                trial.scale("plain", replicas);
            }
            4 if trial.draw(3) == 0 => {
                trial.add_machine();
            }
            _ => {}
        }
        let seconds = u64::from(trial.draw(150));
        trial.run_for_seconds(seconds);
    }
    trial.scale("plain", 3);
    trial.run_for_minutes(1);
    trial.nobody_is_stranded();
    let mut expected = 3;
    for gang in &gangs {
        trial.scale(&gang.name, gang.replicas);
        expected += gang.replicas as usize;
    }
    // With another machine for every three cores there is room for all of them.
    for _ in 0..expected.div_ceil(2) {
        trial.add_machine();
    }
    trial.run_for_minutes(12);
    assert_eq!(trial.running(), expected, "all gangs run {}", trial.describe());
    trial.scale("plain", 0);
    for gang in &gangs {
        trial.scale(&gang.name, 0);
    }
    trial.run_for_minutes(4);
    assert_eq!(trial.pods(), 0, "nothing is left {}", trial.describe());
    trial
}

/// A gang and its pods, in one order or the other.
fn create(trial: &mut Trial, index: usize) -> Gang {
    let name = format!("gang-{index}");
    let needed = 2 + trial.draw(5);
    let replicas = needed + trial.draw(2);
    let grace = [0, 5, 30][trial.draw(3) as usize];
    let cpu = 1 + trial.draw(2);
    let group = format!(
        "
apiVersion: scheduling.k8s.io/v1alpha2
kind: PodGroup
metadata: {{name: {name}}}
spec: {{schedulingPolicy: {{gang: {{minCount: {needed}}}}}}}
"
    );
    let membership = format!("schedulingGroup: {{podGroupName: {name}}}");
    let pods = deployment(&name, &membership, replicas, cpu, grace);
    let pause = u64::from(trial.draw(20));
    let [first, second] = if trial.draw(2) == 0 { [&group, &pods] } else { [&pods, &group] };
    trial.apply(first);
    trial.run_for_seconds(pause);
    trial.apply(second);
    Gang { name, replicas, scaled: true }
}

fn deployment(name: &str, more: &str, replicas: u32, cpu: u32, grace: u32) -> String {
    format!(
        "
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      {more}
      terminationGracePeriodSeconds: {grace}
      containers:
        - name: c
          image: registry.k8s.io/pause:3.10
          resources: {{requests: {{cpu: {cpu}}}}}
"
    )
}

fn heeding_groups() -> Configuration {
    let text = "{apiVersion: kubescheduler.config.k8s.io/v1, kind: KubeSchedulerConfiguration,
        profiles: [{plugins: {multiPoint: {enabled: [{name: GangScheduling}]}}}]}";
    load(text, "test").expect("it is valid")
}

/// All or nothing, with a timeout.
#[derive(Default)]
pub(crate) struct GangInvariants {
    /// Since when some of a gang's pods are on nodes, but fewer than it needs.
    partly: BTreeMap<ObjectKey, Time>,
}

impl GangInvariants {
    /// No gang is incomplete for longer than the plugin has patience.
    pub(crate) fn check_patience(&self, now: Time) {
        for (group, since) in &self.partly {
            let span = now.since(*since);
            assert!(span <= PARTLY_MAX, "gang {group} runs partly for {span:?}");
        }
    }

    /// Looks which gangs are incomplete now. One whose pods are not even there, or are being
    /// deleted, is its owner's doing.
    pub(crate) fn check(&mut self, store: &Store, now: Time) {
        let mut groups: BTreeMap<ObjectKey, (usize, usize)> = BTreeMap::new();
        for object in store.list(Kind::of::<Pod>(), Some("default")).0 {
            let Some(pod) = object.typed::<Pod>() else { panic!("a pod that does not decode") };
            let Some(spec) = &pod.spec else { continue };
            let group = spec.scheduling_group.as_ref();
            let group = group.and_then(|group| group.pod_group_name.as_deref());
            let Some(group) = group else { continue };
            if pod.metadata.deletion_timestamp.is_some() {
                continue;
            }
            let key = ObjectKey::namespaced("default", group);
            let (members, placed) = groups.entry(key).or_default();
            *members += 1;
            *placed += usize::from(spec.node_name.is_some());
        }
        let mut partly = BTreeMap::new();
        for (key, (members, placed)) in groups {
            let Some(group) = store.get(Kind::of::<PodGroup>(), &key) else {
                assert_eq!(placed, 0, "pods of {key} are placed though nobody knows the group");
                continue;
            };
            let gang = group.typed::<PodGroup>().expect("a PodGroup").spec.clone();
            let needed = gang.scheduling_policy.gang.map_or(0, |gang| gang.min_count);
            let needed = usize::try_from(needed).expect("it is positive");
            if (1..needed).contains(&placed) && members >= needed {
                let since = self.partly.get(&key).copied().unwrap_or(now);
                partly.insert(key, since);
            }
        }
        self.partly = partly;
    }
}
