//! `provisioner`: batches pods that found no node, solves for machines, and creates NodeClaims.
//!
//! A claim that was created but is not yet in the view would be planned a second time; so would one
//! whose machine is not known yet. Both are waited for before the next solve.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use compact_str::CompactString;
use k8s_openapi::api::core::v1::{Node, Pod};
use serde_json::{Value, json};
use wharf_model::auto_mode::is_auto_class;
use wharf_model::karpenter::template::ClaimParts;
use wharf_model::karpenter::{NodeClaim, NodePool, NodeSelectorRequirementWithMinValues, events};
use wharf_model::kinds::Kind;
use wharf_model::labels;
use wharf_model::quantity::Quantity;
use wharf_model::random::Random;
use wharf_model::requirements::{Requirement, Requirements};
use wharf_model::time::Time;
use wharf_ports::cluster::{Change, Write};
use wharf_ports::controller::{Context, Controller, Enqueue, OnError, Step, WorkKey};
use wharf_ports::error::ApiError;
use wharf_ports::event::EventType;
use wharf_ports::reason::{Because, Reason};
use wharf_ports::view::View;
use wharf_provision::catalog::Catalog;
use wharf_provision::claim::PlannedClaim;
use wharf_provision::disruption::command::type_list;
use wharf_provision::failure::resources_text;
use wharf_provision::pod::{Origin, PodRequest};
use wharf_provision::pool::NODES;
use wharf_provision::solve::{Solution, Solver};

use super::events::{event, normal, told_by, warning};
use super::log::{self, Source};
use super::pods::{self, Budgets, Requests};
use super::shared::{Shared, TELL_AGAIN};
use super::snapshot::Snapshot;
use super::why::{claim_reason, pod_reason};

const NAME: &str = "provisioner";
const TRIGGER: &str = "trigger";
const SOLVE: &str = "solve";
/// A pod that still waits is looked at again after so long.
const RETRIGGER: Duration = Duration::from_secs(10);
/// How long to wait before looking again whether the cluster's state is known.
const UNSYNCED: Duration = Duration::from_secs(1);
/// A created claim that does not show up in the view for so long is taken to be lost.
const AWAIT_CLAIM: Duration = Duration::from_mins(1);
/// The same FailedScheduling event is not repeated for so long.
const FAILED_AGAIN: Duration = Duration::from_mins(5);

/// The controller.
pub(super) struct Provisioner {
    shared: Arc<Shared>,
    /// The open batch: when it was opened and when it was last triggered.
    window: Option<(Time, Time)>,
    /// Claims created by earlier solves that the view has not shown yet.
    awaited: BTreeMap<CompactString, Time>,
}

impl Provisioner {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, window: None, awaited: BTreeMap::new() }
    }

    /// Opens or extends the batch window.
    fn trigger(&mut self, now: Time) -> Step {
        let opened = self.window.map_or(now, |(opened, _)| opened);
        self.window = Some((opened, now));
        let mut step = Step::done();
        step.enqueue.push((WorkKey::singleton(SOLVE), self.shared.settings.batch_idle));
        step
    }

    fn solve(&mut self, context: &mut Context<'_>) -> Step {
        let now = context.now;
        let Some((opened, last)) = self.window else { return Step::done() };
        let settings = &self.shared.settings;
        let closes = (last + settings.batch_idle).min(opened + settings.batch_max);
        if now < closes {
            return Step::again_after(closes.since(now));
        }
        self.awaited.retain(|_, created| now.since(*created) < AWAIT_CLAIM);
        let shared = Arc::clone(&self.shared);
        let snapshot = Snapshot::gather(&shared, context.view, now);
        if !self.awaited.is_empty() || !snapshot.is_synced() {
            return Step::again_after(UNSYNCED);
        }
        self.window = None;
        let batch = batch(context.view, &snapshot, now);
        let mut step = Step::done();
        if batch.is_empty() {
            return step;
        }
        step.enqueue.push((WorkKey::singleton(TRIGGER), RETRIGGER));
        if snapshot.pools.is_empty() {
            let source = Source::singleton(NAME);
            log::info(&mut step, context, source, "no dynamic nodepools found", &[]);
            return step;
        }
        let mut solver = snapshot.solver(&shared, false, now);
        let solution = solver.solve(&batch);
        self.report_batch(&batch, &solution, context, &mut step);
        self.create(&snapshot, &solver, &batch, &solution, context, &mut step);
        self.nominate(&solver, &batch, &solution, context, &mut step);
        let is_auto = snapshot
            .pools
            .iter()
            .all(|ready| is_auto_class(&ready.pool.spec.template.spec.node_class_ref));
        self.report_failures(&batch, &solution, is_auto, context, &mut step);
        self.report_pools(&snapshot, &solver, now, &mut step);
        step
    }

    fn report_batch(
        &self,
        batch: &[PodRequest],
        solution: &Solution,
        context: &mut Context<'_>,
        step: &mut Step,
    ) {
        let pending: Vec<&PodRequest> =
            batch.iter().filter(|pod| pod.origin == Origin::Pending).collect();
        let source = Source::singleton(NAME);
        if !pending.is_empty() && !solution.claims.is_empty() {
            let names = log::list(pending.iter().map(|pod| pod.key.to_string()));
            let fields = [("Pods", json!(names))];
            log::info(step, context, source, "found provisionable pod(s)", &fields);
        }
        if !solution.claims.is_empty() {
            let pods: usize = solution.claims.iter().map(|claim| claim.pods.len()).sum();
            let fields = [("nodeclaims", json!(solution.claims.len())), ("pods", json!(pods))];
            let message = "computed new nodeclaim(s) to fit pod(s)";
            log::info(step, context, source, message, &fields);
        }
    }

    fn create(
        &mut self,
        snapshot: &Snapshot<'_>,
        solver: &Solver,
        batch: &[PodRequest],
        solution: &Solution,
        context: &mut Context<'_>,
        step: &mut Step,
    ) {
        for planned in &solution.claims {
            let pool = solver.pool(planned.pool);
            let object = snapshot
                .pools
                .iter()
                .map(|ready| ready.pool)
                .find(|candidate| candidate.metadata.name.as_deref() == Some(&*pool.name));
            let Some(object) = object else { continue };
            if let Some(exceeded) = exceeded_limit(object) {
                let fields = [("NodePool", json!({ "name": &*pool.name })), exceeded];
                let message = "resource usage exceeds limit";
                log::error(step, context, Source::singleton(NAME), message, &fields);
                continue;
            }
            let claim = claim_for(object, planned, &pool.catalog, context.random);
            let name = CompactString::from(claim.metadata.name.as_deref().unwrap_or_default());
            self.awaited.insert(name.clone(), context.now);
            let fields = created_fields(&pool.name, &name, planned, &pool.catalog);
            log::info(step, context, Source::singleton(NAME), "created nodeclaim", &fields);
            let until = context.now + self.nomination();
            self.shared.memory().nominate(&name, until);
            step.reasons.push(claim_reason(&name, planned, &pool.catalog, batch));
            step.write(Write::Create(Box::new(claim)));
            for pod in &planned.pods {
                let pod = &batch[*pod as usize];
                let place = format!("nodeclaim/{name}");
                let is_auto = is_auto_class(&object.spec.template.spec.node_class_ref);
                self.nominate_pod(pod, &place, is_auto, context.now, step);
                step.reasons.push(pod_reason(pod, &name, planned, &pool.catalog));
            }
        }
    }

    /// Protects the nodes that pods are expected on, and tells the pods.
    fn nominate(
        &self,
        solver: &Solver,
        batch: &[PodRequest],
        solution: &Solution,
        context: &mut Context<'_>,
        step: &mut Step,
    ) {
        let (mut nodes, mut count) = (Vec::new(), 0);
        for (pod, node) in &solution.on_nodes {
            let (pod, node) = (&batch[*pod as usize], &solver.nodes()[*node as usize]);
            if !node.node_claim.is_empty() {
                let until = context.now + self.nomination();
                self.shared.memory().nominate(&node.node_claim, until);
            }
            if !node.initialized {
                nodes.push(&node.name);
                count += 1;
            }
            let mut place = Vec::new();
            if !node.node_claim.is_empty() {
                place.push(format!("nodeclaim/{}", node.node_claim));
            }
            if node.name != node.node_claim {
                place.push(format!("node/{}", node.name));
            }
            let is_auto = node.labels.contains_key(labels::eks::NODE_CLASS);
            self.nominate_pod(pod, &place.join(", "), is_auto, context.now, step);
        }
        nodes.sort_unstable();
        nodes.dedup();
        if count > 0 && !solution.claims.is_empty() {
            let fields = [("nodes", json!(nodes.len())), ("pods", json!(count))];
            let message = "computed unready node(s) will fit pod(s)";
            log::info(step, context, Source::singleton(NAME), message, &fields);
        }
    }

    fn nominate_pod(
        &self,
        pod: &PodRequest,
        place: &str,
        is_auto: bool,
        now: Time,
        step: &mut Step,
    ) {
        let message = format!("Pod should schedule on: {place}");
        let regarding = wharf_ports::event::Regarding {
            kind: Kind::of::<Pod>(),
            key: pod.key.clone(),
            uid: pod.uid.clone(),
            field_path: String::new(),
        };
        let event = event(regarding, EventType::Normal, events::NOMINATED, message);
        let event = told_by(event, is_auto);
        self.shared.tell(step, event, TELL_AGAIN, now);
    }

    fn report_failures(
        &self,
        batch: &[PodRequest],
        solution: &Solution,
        is_auto: bool,
        context: &mut Context<'_>,
        step: &mut Step,
    ) {
        for (pod, why) in &solution.failed {
            let pod = &batch[*pod as usize];
            let why = why.to_string();
            let Some(object) = context.view.get::<Pod>(&pod.key) else { continue };
            let message = format!("Failed to schedule pod, {why}");
            let before = step.writes.len();
            let event = warning(object, events::FAILED_SCHEDULING, message);
            let event = told_by(event, is_auto);
            self.shared.tell(step, event, FAILED_AGAIN, context.now);
            if step.writes.len() == before {
                continue;
            }
            let (namespace, name) = (&*pod.key.namespace, &*pod.key.name);
            let fields =
                [("Pod", json!({ "name": name, "namespace": namespace })), ("error", json!(why))];
            log::error(step, context, Source::singleton(NAME), "could not schedule pod", &fields);
            step.reasons.push(Reason {
                kind: Kind::of::<Pod>(),
                key: pod.key.clone(),
                by: "provisioner",
                decision: "no machine can be found".to_owned(),
                because: vec![Because::new("FailedScheduling", why)],
            });
        }
    }

    fn report_pools(&self, snapshot: &Snapshot<'_>, solver: &Solver, now: Time, step: &mut Step) {
        for index in 0..solver.pools().len() {
            if solver.has_types(index) {
                continue;
            }
            let name = &solver.pool(index).name;
            let object = snapshot
                .pools
                .iter()
                .find(|ready| ready.pool.metadata.name.as_deref() == Some(name.as_str()));
            let Some(ready) = object else { continue };
            let message =
                "NodePool requirements filtered out all compatible available instance types";
            let event = normal(ready.pool, events::NO_COMPATIBLE_INSTANCE_TYPES, message);
            self.shared.tell(step, event, Duration::from_mins(1), now);
        }
    }

    /// How long a nomination protects a node: long enough for kube-scheduler to bind the pod.
    fn nomination(&self) -> Duration {
        (self.shared.settings.batch_max * 2).max(Duration::from_secs(10))
    }
}

impl Controller for Provisioner {
    fn name(&self) -> &'static str {
        NAME
    }

    fn observe(&mut self, change: &Change, _view: &View, queue: &mut Enqueue) {
        let kind = change.kind();
        let triggers = if kind == Kind::of::<Pod>() {
            let provisionable = |object: &Arc<wharf_model::object::Object>| {
                object.typed::<Pod>().is_some_and(pods::is_provisionable)
            };
            change.new.as_ref().is_some_and(provisionable)
                && !change.old.as_ref().is_some_and(provisionable)
        } else if kind == Kind::of::<Node>() {
            let disrupted = |object: &Arc<wharf_model::object::Object>| {
                object.typed::<Node>().is_some_and(is_disrupted)
            };
            change.new.as_ref().is_some_and(disrupted)
                && !change.old.as_ref().is_some_and(disrupted)
        } else {
            false
        };
        if triggers {
            queue.now(WorkKey::singleton(TRIGGER));
        } else if kind == Kind::of::<NodeClaim>() {
            self.awaited.remove(&change.key().name);
            if self.window.is_some() {
                // What the solve waits for may have happened.
                queue.now(WorkKey::singleton(SOLVE));
            }
        }
    }

    fn step(&mut self, key: &WorkKey, context: &mut Context<'_>) -> Step {
        if key.key.name == TRIGGER { self.trigger(context.now) } else { self.solve(context) }
    }

    fn refused(&mut self, _key: &WorkKey, write: &Write, _error: &ApiError) -> OnError {
        if let Write::Create(object) = write {
            let name = object.meta().name.as_deref().unwrap_or_default();
            self.awaited.remove(name);
        }
        // The rest of the round was dropped: open a batch at once for what is left of it.
        self.window = Some((Time::EPOCH, Time::EPOCH));
        OnError::Retry
    }
}

/// The pods that need a place: pending ones, and those of nodes that are going.
fn batch(view: &View, snapshot: &Snapshot<'_>, now: Time) -> Vec<PodRequest> {
    let mut requests = Requests::new(view);
    let mut batch: Vec<PodRequest> = view
        .list::<Pod>()
        .filter(|pod| pods::is_provisionable(pod))
        .filter_map(|pod| requests.of(pod, Origin::Pending))
        .collect();
    batch.extend(displaced(view, snapshot, &mut requests, now));
    batch
}

/// The pods of nodes that are going and whose pods may be evicted now.
pub(super) fn displaced(
    view: &View,
    snapshot: &Snapshot<'_>,
    requests: &mut Requests<'_>,
    now: Time,
) -> Vec<PodRequest> {
    let budgets = Budgets::of(view);
    let going = snapshot.nodes.iter().filter(|node| node.deleting && node.claim.is_some());
    going
        .flat_map(|node| &node.pods)
        .filter(|pod| pods::is_reschedulable(pod))
        .filter(|pod| !pods::forbids_disruption(pod, now) && budgets.against(pod).is_none())
        .filter_map(|pod| requests.of(pod, Origin::Deleting))
        .collect()
}

/// A NodeClaim for a planned one, with a name of its own.
pub(super) fn claim_for(
    pool: &NodePool,
    planned: &PlannedClaim,
    catalog: &Catalog,
    random: &mut Random,
) -> NodeClaim {
    let requirements = planned.requirements_with_types(catalog);
    let mut claim = pool.node_claim(ClaimParts {
        requirements: api_requirements(&requirements),
        requests: planned.requests.to_map(),
        ..ClaimParts::default()
    });
    let prefix = claim.metadata.generate_name.clone().unwrap_or_default();
    claim.metadata.name = Some(format!("{prefix}{}", random.name_suffix()));
    claim
}

/// The fields of the log line about a created NodeClaim.
pub(super) fn created_fields(
    pool: &str,
    name: &str,
    planned: &PlannedClaim,
    catalog: &Catalog,
) -> [(&'static str, Value); 4] {
    [
        ("NodePool", json!({ "name": pool })),
        ("NodeClaim", json!({ "name": name })),
        ("requests", requests_value(&planned.requests)),
        ("instance-types", json!(type_list(planned, catalog))),
    ]
}

fn api_requirements(requirements: &Requirements) -> Vec<NodeSelectorRequirementWithMinValues> {
    let entries = |requirement: &Requirement| {
        let min_values = requirement.min_values;
        let entries = requirement.to_node_selector_requirements().into_iter();
        entries
            .map(move |entry| NodeSelectorRequirementWithMinValues {
                key: entry.key,
                operator: entry.operator,
                values: entry.values.unwrap_or_default(),
                min_values,
            })
            .collect::<Vec<_>>()
    };
    requirements.iter().flat_map(entries).collect()
}

fn requests_value(requests: &wharf_model::resources::Resources) -> Value {
    serde_json::from_str(&resources_text(requests)).unwrap_or(Value::Null)
}

/// The first limit that a pool's present usage is over.
fn exceeded_limit(pool: &NodePool) -> Option<(&'static str, Value)> {
    pool.spec.limits.iter().find_map(|(name, limit)| {
        let used = pool.status.resources.get(name)?;
        let over = Quantity::try_from(used).ok()? > Quantity::try_from(limit).ok()?;
        (over && name != NODES).then(|| {
            let value =
                json!({ "resource-name": name, "usage": used.0, "limit": limit.to_string() });
            ("exceeded", value)
        })
    })
}

fn is_disrupted(node: &Node) -> bool {
    node.spec
        .iter()
        .flat_map(|spec| spec.taints.iter().flatten())
        .any(|taint| taint.key == labels::TAINT_DISRUPTED)
}
