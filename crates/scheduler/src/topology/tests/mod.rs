//! The indexes against the rules as they are written down, over any history of a small cluster.

mod rules;
mod world;

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::TopologySpreadConstraint;
use proptest::collection::vec;
use proptest::prelude::*;
use wharf_model::object::ObjectKey;

use self::rules::World;
use self::world::{Event, KEYS, Selector, Task, event, namespace, replica_set, service, task};
use crate::cycle::{Decision, Evaluation, Rotation, evaluate, schedule};
use crate::hints::{News, wakes};
use crate::plugins::Filter;
use crate::pod::PodInfo;
use crate::profile::{Plugin, PluginSet, Profile, SpreadDefaults};
use crate::snapshot::{NodeChange, Snapshot};

fn key(space: u8, name: String) -> ObjectKey {
    ObjectKey { namespace: format!("ns{space}").into(), name: name.into() }
}

fn compile(snapshot: &mut Snapshot, name: u8, task: &Task) -> Arc<PodInfo> {
    let mut pod = task.object(&format!("p{name}"));
    pod.metadata.uid = Some(format!("p{name}"));
    snapshot.compile(&pod)
}

fn apply(snapshot: &mut Snapshot, event: &Event) {
    match event {
        Event::Machine(name, machine) => {
            snapshot.set_node(&machine.object(*name));
        }
        Event::NoMachine(name) => snapshot.remove_node(&format!("n{name}")),
        Event::Run(name, on, task) => {
            let info = compile(snapshot, *name, task);
            snapshot.place(info, &format!("n{on}"));
        }
        Event::Stop(name) => {
            snapshot.displace(&format!("p{name}"));
        }
        Event::Namespace(name, labels) => {
            snapshot.set_namespace(&namespace(*name, labels));
        }
        Event::NoNamespace(name) => {
            snapshot.remove_namespace(&format!("ns{name}"));
        }
        Event::Service(space, name, labels) => {
            snapshot.set_service(&service(*space, *name, labels));
        }
        Event::NoService(space, name) => {
            snapshot.remove_service(&key(*space, format!("s{name}")));
        }
        Event::ReplicaSet(space, name, selector) => {
            snapshot.set_replica_set(&replica_set(*space, *name, selector));
        }
        Event::NoReplicaSet(space, name) => {
            snapshot.remove_replica_set(&key(*space, format!("rs{name}")));
        }
    }
}

/// The plugins that the rules are about.
fn profile() -> Profile {
    Profile {
        filters: vec![
            Plugin::PodTopologySpread,
            Plugin::InterPodAffinity,
            Plugin::NodeDeclaredFeatures,
        ],
        scores: [Plugin::PodTopologySpread, Plugin::InterPodAffinity, Plugin::ImageLocality]
            .map(|plugin| (plugin, 1))
            .into(),
        ..Profile::default()
    }
}

fn word(reason: &str) -> &'static str {
    match reason {
        "node(s) didn't match pod topology spread constraints" => "skew",
        "node(s) didn't match pod topology spread constraints (missing required label)" => {
            "no label"
        }
        "node(s) didn't match pod affinity rules" => "affinity",
        "node(s) didn't match pod anti-affinity rules" => "anti-affinity",
        "node(s) didn't satisfy existing pods anti-affinity rules" => "others",
        "node(s) didn't match Pod's required features" => "features",
        _ => "something else",
    }
}

fn number(snapshot: &Snapshot, node: crate::snapshot::NodeIndex) -> u8 {
    snapshot.node(node).facts.name[1..].parse().unwrap()
}

/// What an evaluation says by machine: refusals, and the scores of each plugin.
type Said = (BTreeMap<u8, Option<&'static str>>, BTreeMap<&'static str, BTreeMap<u8, i64>>);

fn said(snapshot: &Snapshot, pod: &PodInfo, evaluation: &Evaluation) -> Said {
    let refusals = evaluation.nodes.iter().map(|(node, refused)| {
        let refused = refused.as_ref().map(|rejection| {
            assert!(!rejection.explain(pod, *node, snapshot).is_empty());
            word(&rejection.reasons(pod)[0])
        });
        (number(snapshot, *node), refused)
    });
    let mut scores: BTreeMap<&'static str, BTreeMap<u8, i64>> = BTreeMap::new();
    for candidate in &evaluation.candidates {
        for (plugin, score) in &candidate.scores {
            let of_plugin = scores.entry(plugin.name()).or_default();
            of_plugin.insert(number(snapshot, candidate.node), *score);
        }
    }
    (refusals.collect(), scores)
}

fn expected(world: &World, task: &Task) -> Said {
    let refusals: BTreeMap<_, _> =
        world.machines.keys().map(|name| (*name, world.refusal(task, *name))).collect();
    let feasible: Vec<u8> =
        refusals.iter().filter(|(_, refused)| refused.is_none()).map(|(name, _)| *name).collect();
    let scores = if feasible.is_empty() { BTreeMap::new() } else { world.scores(task, &feasible) };
    (refusals, scores)
}

/// A cluster from what is left of a history, without the history.
fn scratch(world: &World) -> Snapshot {
    let mut snapshot = Snapshot::new();
    let all = world
        .running
        .iter()
        .map(|(name, (on, task))| Event::Run(*name, *on, task.clone()))
        .chain(
            world
                .services
                .iter()
                .map(|((space, name), labels)| Event::Service(*space, *name, labels.clone())),
        )
        .chain(
            world.replica_sets.iter().map(|((space, name), selector)| {
                Event::ReplicaSet(*space, *name, selector.clone())
            }),
        )
        .chain(
            world.namespaces.iter().map(|(name, labels)| Event::Namespace(*name, labels.clone())),
        )
        .chain(world.machines.iter().map(|(name, machine)| Event::Machine(*name, machine.clone())));
    all.for_each(|event| apply(&mut snapshot, &event));
    snapshot
}

/// A profile's default constraints.
fn list() -> impl Strategy<Value = Vec<TopologySpreadConstraint>> {
    let one = (any::<bool>(), 0..KEYS.len(), 1..3, any::<[bool; 2]>(), prop::option::of(1..4));
    let one = one.prop_map(|(required, key, skew, [ignores, honors], domains)| {
        TopologySpreadConstraint {
            max_skew: skew,
            topology_key: KEYS[key].to_owned(),
            when_unsatisfiable: if required { "DoNotSchedule" } else { "ScheduleAnyway" }
                .to_owned(),
            min_domains: domains.filter(|_| required),
            node_affinity_policy: ignores.then(|| "Ignore".to_owned()),
            node_taints_policy: honors.then(|| "Honor".to_owned()),
            ..TopologySpreadConstraint::default()
        }
    });
    vec(one, 0..3)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    /// Refusals and scores are those of the rules, and those of a cluster built from scratch,
    /// after any history.
    #[test]
    fn decisions_are_those_of_the_rules(
        history in vec(event(), 1..50), early in task(), late in task(),
    ) {
        let mut snapshot = Snapshot::new();
        let mut world = World::default();
        // One pod has been waiting all the time, the other has just come.
        let waiting = compile(&mut snapshot, 98, &early);
        for event in &history {
            apply(&mut snapshot, event);
            world.apply(event);
        }
        let come = compile(&mut snapshot, 99, &late);
        let mut anew = scratch(&world);
        for (info, task) in [(waiting, &early), (come, &late)] {
            let evaluation = evaluate(&snapshot, &info, &profile());
            let told = said(&snapshot, &info, &evaluation);
            prop_assert_eq!(&told, &expected(&world, task));
            let info = compile(&mut anew, 97, task);
            prop_assert_eq!(told, said(&anew, &info, &evaluate(&anew, &info, &profile())));
        }
    }

    /// A profile's own default constraints find the same by their counts as by a visit to every
    /// node, whenever the profile was told of.
    #[test]
    fn listed_defaults_are_counted_right(
        history in vec(event(), 1..50), early in task(), late in task(), lists in vec(list(), 1..3),
        told_at in 0..50usize,
    ) {
        let profiles: Vec<Profile> = lists.into_iter().map(|list| {
            let mut profile = profile();
            profile.arguments.spread_defaults = SpreadDefaults::List(list);
            profile
        }).collect();
        let mut snapshot = Snapshot::new();
        let mut world = World::default();
        let early = Task { constraints: Vec::new(), ..early };
        let late = Task { constraints: Vec::new(), ..late };
        let mut waiting = compile(&mut snapshot, 98, &early);
        for (at, event) in history.iter().enumerate() {
            if at == told_at % history.len() {
                for profile in &profiles {
                    snapshot.compile_profile(&mut profile.clone());
                }
                if told_at % 2 == 0 {
                    waiting = compile(&mut snapshot, 98, &early);
                }
            }
            apply(&mut snapshot, event);
            world.apply(event);
        }
        let come = compile(&mut snapshot, 99, &late);
        let mut anew = scratch(&world);
        for (info, task) in [(waiting, &early), (come, &late)] {
            let visitor = compile(&mut anew, 97, task);
            for profile in &profiles {
                let told = said(&snapshot, &info, &evaluate(&snapshot, &info, profile));
                let visited = said(&anew, &visitor, &evaluate(&anew, &visitor, profile));
                prop_assert_eq!(told, visited);
            }
        }
    }

    /// A trial without some pods of a node, or with one more, says what a cluster that is so says.
    #[test]
    fn trials_say_what_would_be_so(
        history in vec(event(), 10..50), task in task(), node in 0..5u8,
        leaves in vec(any::<bool>(), 10), joins in prop::option::of(task_that_counts()),
    ) {
        let mut snapshot = Snapshot::new();
        let mut world = World::default();
        for event in &history {
            let event = match event {
                Event::Run(name, on, task) => Event::Run(*name, *on, counting(task.clone())),
                other => other.clone(),
            };
            apply(&mut snapshot, &event);
            world.apply(&event);
        }
        let info = compile(&mut snapshot, 99, &counting(task));
        let more = joins.map(|task| compile(&mut snapshot, 98, &task));
        let name = format!("n{node}");
        let Some(index) = snapshot.find(&name) else { return Ok(()) };
        let mut changed = snapshot.clone();
        for plugin in [Plugin::PodTopologySpread, Plugin::InterPodAffinity] {
            let prepare = |snapshot| Filter::prepare(plugin, &info, &PROFILE, snapshot);
            let Some(mut filter) = prepare(&snapshot).unwrap().filter else { continue };
            for (pod, leaves) in snapshot.node(index).pods.iter().zip(&leaves) {
                if *leaves {
                    filter.pod_removed(pod, index, snapshot.node(index));
                    changed.displace(&pod.uid);
                }
            }
            if let Some(more) = &more {
                filter.pod_added(more, index, snapshot.node(index));
                changed.place(more.clone(), &name);
            }
            let now = prepare(&changed).unwrap().filter;
            let there = now.and_then(|filter| filter.check(index, changed.node(index)));
            let tried = filter.check(index, snapshot.node(index));
            // Which of several carriers is named first may differ.
            let kind = |refused: Option<crate::plugins::Rejection>| {
                refused.map(|rejection| rejection.reasons(&info).join(", "))
            };
            prop_assert_eq!(kind(tried), kind(there));
        }
    }

    /// Whatever happens: if a pod that was turned down would fit now, some news since has woken it.
    #[test]
    fn hints_never_strand_a_pod(history in vec(event(), 1..60), task in task()) {
        let mut snapshot = Snapshot::new();
        let mut tasks: BTreeMap<u8, Task> = BTreeMap::new();
        let waiting = compile(&mut snapshot, 99, &task);
        let mut asleep: Option<PluginSet> = None;
        for event in &history {
            let mut stir = |news: News<'_>, snapshot: &Snapshot| {
                if asleep.is_some_and(|by| wakes(by, &waiting, &news, snapshot)) {
                    asleep = None;
                }
            };
            match event {
                Event::Machine(name, machine) => {
                    let change = snapshot.set_node(&machine.object(*name));
                    let new = snapshot.node_named(&format!("n{name}")).unwrap();
                    match &change {
                        NodeChange::Added => stir(News::Node { old: None, new }, &snapshot),
                        NodeChange::Updated(old) => stir(News::Node { old: Some(old), new }, &snapshot),
                        NodeChange::Same => {}
                    }
                }
                Event::NoMachine(name) => {
                    let name = format!("n{name}");
                    if let Some(gone) = snapshot.node_named(&name).cloned() {
                        snapshot.remove_node(&name);
                        stir(News::NodeGone(&gone), &snapshot);
                    }
                }
                Event::Run(name, on, task) => {
                    let uid = format!("p{name}");
                    let stays = snapshot.placement(&uid).is_some_and(|node| node.facts.name == format!("n{on}"));
                    // Of a pod that stays where it is nothing changes but its labels and its end.
                    let task = match tasks.get(name) {
                        Some(old) if stays => Task { labels: task.labels.clone(), terminating: task.terminating, ..old.clone() },
                        _ => task.clone(),
                    };
                    let new = compile(&mut snapshot, *name, &Task { namespace: task.namespace, ..task.clone() });
                    tasks.insert(*name, task);
                    let old = snapshot.displace(&uid);
                    snapshot.place(new.clone(), &format!("n{on}"));
                    match old {
                        Some(old) if stays => stir(News::PodChanged { old: &old, new: &new }, &snapshot),
                        Some(old) => {
                            stir(News::PodGone(&old), &snapshot);
                            stir(News::PodPlaced(&new), &snapshot);
                        }
                        None => stir(News::PodPlaced(&new), &snapshot),
                    }
                }
                Event::Stop(name) => {
                    tasks.remove(name);
                    if let Some(gone) = snapshot.displace(&format!("p{name}")) {
                        stir(News::PodGone(&gone), &snapshot);
                    }
                }
                Event::Namespace(..) | Event::NoNamespace(_) => {
                    apply(&mut snapshot, event);
                    stir(News::Namespace, &snapshot);
                }
                _ => {
                    apply(&mut snapshot, event);
                    stir(News::Workloads, &snapshot);
                }
            }
            match schedule(&snapshot, &waiting, &PROFILE, &mut Rotation::default()) {
                Decision::Bind(_) => prop_assert!(asleep.is_none(), "asleep but it would fit"),
                // A pod is woken, tried in vain, and sleeps again.
                Decision::Unschedulable(answer) if asleep.is_none() && answer.diagnosis.nodes > 0 => {
                    asleep = Some(answer.diagnosis.plugins);
                }
                Decision::Unschedulable(_) => {}
            }
        }
    }

    /// Of pods placed one after the other none breaks a required constraint.
    #[test]
    fn nothing_placed_breaks_a_constraint(
        history in vec(event(), 5..30), tasks in vec(task(), 1..12),
    ) {
        let mut snapshot = Snapshot::new();
        let mut world = World::default();
        for event in &history {
            apply(&mut snapshot, event);
            world.apply(event);
        }
        for (name, task) in (20..).zip(tasks) {
            let info = compile(&mut snapshot, name, &task);
            let decision = schedule(&snapshot, &info, &PROFILE, &mut Rotation::default());
            let Decision::Bind(placement) = decision else { continue };
            let on = number(&snapshot, placement.node);
            prop_assert_eq!(world.refusal(&task, on), None);
            apply(&mut snapshot, &Event::Run(name, on, task.clone()));
            world.apply(&Event::Run(name, on, task));
        }
    }
}

static PROFILE: std::sync::LazyLock<Profile> = std::sync::LazyLock::new(Profile::default);

/// A task of which trials count what placements count: upstream's trials count pods that are being
/// deleted, and those that an empty selector selects, though they are not counted when placed.
fn counting(mut task: Task) -> Task {
    task.terminating = false;
    for constraint in &mut task.constraints {
        if matches!(constraint.selector, Selector::Everything) {
            constraint.selector = Selector::Exists("app");
        }
    }
    task
}

fn task_that_counts() -> impl Strategy<Value = Task> {
    task().prop_map(counting)
}
