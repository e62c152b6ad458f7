//! `nodeclaim.lifecycle`: a NodeClaim's way from the launch of its machine to a node ready for pods.
//!
//! A launch carries the claim's uid as its token, so asking again after a restart gives the same
//! machine.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use compact_str::CompactString;
use k8s_openapi::api::core::v1::Node;
use serde_json::json;
use wharf_model::instance_type::CapacityType;
use wharf_model::karpenter::conditions::{self, Conditioned, node_claim, reason};
use wharf_model::karpenter::{NodeClaim, TERMINATION_FINALIZER, events};
use wharf_model::kinds::Kind;
use wharf_model::labels;
use wharf_model::object::ObjectKey;
use wharf_model::requirements::Requirements;
use wharf_model::resources::Resources;
use wharf_model::time::Time;
use wharf_ports::cloud::{CloudEvent, CloudRequest, LaunchError, LaunchRequest, Launched};
use wharf_ports::cluster::{Change, Delete, Part, Write};
use wharf_ports::controller::{Context, Controller, Enqueue, Step, WorkKey};
use wharf_ports::reason::{Because, Reason};
use wharf_ports::view::View;

use super::class::{NodeClass, is_auto_claim};
use super::events::{report_transitions, warning};
use super::launch;
use super::log::{self, Source};
use super::registration;
use super::shared::Shared;
use super::snapshot::claim_of_node;

pub(super) const NAME: &str = "nodeclaim.lifecycle";
/// A claim that is not launched after so long is given up.
const LAUNCH_TIMEOUT: Duration = Duration::from_mins(5);
/// A claim whose node has not joined after so long is given up.
const REGISTRATION_TIMEOUT: Duration = Duration::from_mins(15);
/// A launch that was not answered is asked for again after so long; the token makes it harmless.
const ASK_AGAIN: Duration = Duration::from_mins(1);
/// A launch that failed for a passing reason is tried again after so long.
const TRY_AGAIN: Duration = Duration::from_secs(5);
/// Condition messages are cut here.
const MESSAGE_MAX: usize = 300;
/// EC2's codes that mean "not here, not now".
const OUT_OF_CAPACITY: [&str; 8] = [
    "InsufficientInstanceCapacity",
    "MaxSpotInstanceCountExceeded",
    "VcpuLimitExceeded",
    "UnfulfillableCapacity",
    "Unsupported",
    "InsufficientFreeAddressesInSubnet",
    "MaxFleetCountExceeded",
    "ReservationCapacityExceeded",
];

/// The controller.
pub(super) struct Lifecycle {
    shared: Arc<Shared>,
    /// Launches asked for, by the claim's uid.
    asked: BTreeMap<CompactString, Asked>,
}

struct Asked {
    at: Time,
    capacity_type: CapacityType,
    answer: Option<Result<Box<Launched>, LaunchError>>,
}

/// How a step goes on after a part of it.
enum Next {
    /// With the next part.
    On,
    /// The claim is given up.
    Delete,
}

impl Lifecycle {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, asked: BTreeMap::new() }
    }

    fn reconcile(&mut self, claim: &NodeClaim, context: &mut Context<'_>) -> Step {
        let mut step = Step::done();
        let mut draft = claim.clone();
        let finalizers = draft.metadata.finalizers.get_or_insert_default();
        if !finalizers.iter().any(|finalizer| finalizer == TERMINATION_FINALIZER) {
            finalizers.push(TERMINATION_FINALIZER.to_owned());
        }
        draft.conditions_mut(context.now.timestamp());
        let next = self.launch(&mut draft, context, &mut step);
        if let Next::Delete = next {
            self.forget(claim);
            delete(&mut step, context, claim);
            return step;
        }
        registration::register(&mut draft, context, &mut step);
        registration::initialize(&mut draft, context, &mut step);
        if draft != *claim {
            let after = draft.status.conditions.clone();
            step.write(Write::Update { object: Box::new(draft.clone()), part: Part::All });
            report_transitions(&mut step, claim, claim.conditions(), &after);
        }
        self.live(&draft, context, &mut step);
        step
    }

    fn forget(&mut self, claim: &NodeClaim) {
        self.asked.remove(claim.metadata.uid.as_deref().unwrap_or_default());
    }

    /// Asks for the machine and takes the answer in.
    fn launch(
        &mut self,
        claim: &mut NodeClaim,
        context: &mut Context<'_>,
        step: &mut Step,
    ) -> Next {
        if claim.is_true(node_claim::LAUNCHED) {
            return Next::On;
        }
        let uid = CompactString::from(claim.metadata.uid.as_deref().unwrap_or_default());
        let asked = self.asked.get(&uid);
        let age = asked.map(|asked| context.now.since(asked.at));
        match asked.and_then(|asked| Some((asked.capacity_type, asked.answer.clone()?))) {
            Some((_, Ok(launched))) => {
                self.launched(claim, &launched, context, step);
                return Next::On;
            }
            Some((capacity_type, Err(error))) => {
                if let Some(pools) = out_of_capacity(&error) {
                    self.note_shortage(claim, capacity_type, &pools, &error, context.now, step);
                    return Next::Delete;
                }
                let message = cut(&format!("launching nodeclaim, {error}"));
                let mut set = claim.conditions_mut(context.now.timestamp());
                set.set_unknown(node_claim::LAUNCHED, reason::LAUNCH_FAILED, &message);
                if age.is_some_and(|age| age < TRY_AGAIN) {
                    again(step, TRY_AGAIN);
                    return Next::On;
                }
            }
            None if age.is_some_and(|age| age < ASK_AGAIN) => {
                again(step, ASK_AGAIN - age.unwrap_or_default());
                return Next::On;
            }
            None => {}
        }
        self.ask(claim, uid, context, step)
    }

    fn ask(
        &mut self,
        claim: &NodeClaim,
        uid: CompactString,
        context: &mut Context<'_>,
        step: &mut Step,
    ) -> Next {
        let name = &claim.spec.node_class_ref.name;
        let class = NodeClass::of(context.view, &claim.spec.node_class_ref);
        let Some(class) = class.filter(|class| class.is_ready()) else {
            let message = format!(
                "NodeClaim {} event: resolving nodeclass, {name} is not ready",
                claim.metadata.name.as_deref().unwrap_or_default()
            );
            step.write(warning(claim, events::NODE_CLASS_NOT_READY, message));
            return Next::Delete;
        };
        let catalog = self.shared.instance_types(class, context.now);
        let seller = launch::Seller {
            cloud: &self.shared.cloud,
            cluster: &self.shared.settings.cluster_name,
            now: context.now,
        };
        let Some(request) = launch::request(claim, class, &catalog, &seller) else {
            let error =
                "creating instance, all requested instance types were unavailable during launch";
            self.report_shortage(claim, error, step);
            return Next::Delete;
        };
        let capacity_type = request.capacity_type.parse().unwrap_or(CapacityType::OnDemand);
        step.reasons.push(ask_reason(claim, &request));
        step.cloud.push(CloudRequest::Launch(Box::new(request)));
        self.asked.insert(uid, Asked { at: context.now, capacity_type, answer: None });
        again(step, ASK_AGAIN);
        Next::On
    }

    fn note_shortage(
        &self,
        claim: &NodeClaim,
        capacity_type: CapacityType,
        pools: &[(String, String)],
        error: &LaunchError,
        now: Time,
        step: &mut Step,
    ) {
        let mut memory = self.shared.memory();
        for (instance_type, zone) in pools {
            let offering = (capacity_type, instance_type.as_str().into(), zone.as_str().into());
            memory.mark_unavailable(offering, now);
        }
        drop(memory);
        let text = match is_auto_claim(claim) {
            true => auto_shortage(error),
            false => format!("creating instance, {error}"),
        };
        self.report_shortage(claim, &text, step);
    }

    fn report_shortage(&self, claim: &NodeClaim, error: &str, step: &mut Step) {
        let name = claim.metadata.name.as_deref().unwrap_or_default();
        let message = format!("NodeClaim {name} event: {error}");
        step.write(warning(claim, events::INSUFFICIENT_CAPACITY_ERROR, message));
        let key = ObjectKey::cluster(name);
        step.reasons.push(Reason {
            kind: Kind::of::<NodeClaim>(),
            key,
            by: "provisioner",
            decision: "given up: the cloud is out of capacity".to_owned(),
            because: vec![Because::new("InsufficientCapacityError", error)],
        });
    }

    /// Takes a launch's answer into the claim.
    fn launched(
        &self,
        claim: &mut NodeClaim,
        launched: &Launched,
        context: &mut Context<'_>,
        step: &mut Step,
    ) {
        let chosen = &launched.chosen;
        let class = NodeClass::of(context.view, &claim.spec.node_class_ref);
        let mut provided: BTreeMap<String, String> = BTreeMap::new();
        if let Some(class) = class {
            let catalog = self.shared.instance_types(class, context.now);
            provided.extend(launch::type_labels(&catalog, &chosen.instance_type));
        }
        let region = self.shared.cloud.region().name;
        for (key, value) in [
            (labels::INSTANCE_TYPE, chosen.instance_type.as_str()),
            (labels::TOPOLOGY_ZONE, &chosen.zone),
            (labels::TOPOLOGY_ZONE_ID, &chosen.zone_id),
            (labels::TOPOLOGY_REGION, region),
            (labels::CAPACITY_TYPE, &launched.capacity_type),
        ] {
            provided.insert(key.to_owned(), value.to_owned());
        }
        // The user's labels win over the provider's.
        let requirements = launch::claim_requirements(claim);
        provided.extend(custom_labels(&requirements, is_auto_claim(claim), context));
        provided.extend(claim.metadata.labels.take().unwrap_or_default());
        let arch = provided.get(labels::ARCH).map_or("amd64", String::as_str);
        let image = class.map(|class| class.image_for(arch));
        claim.status.image_id = image.unwrap_or_else(|| launched.image_id.clone());
        claim.metadata.labels = Some(provided);
        if let Some(class) = class {
            let annotations = claim.metadata.annotations.get_or_insert_default();
            for key in class.hash_keys() {
                let stamp = class.metadata().annotations.as_ref().and_then(|map| map.get(key));
                annotations.extend(stamp.map(|stamp| (key.to_owned(), stamp.clone())));
            }
        }
        let provider_id = format!("aws:///{}/{}", chosen.zone, launched.instance_id);
        claim.status.provider_id.clone_from(&provider_id);
        claim.status.capacity = quantities(&chosen.capacity);
        claim.status.allocatable = quantities(&chosen.allocatable);
        if let Some(class) = class.filter(|class| class.is_auto()) {
            let offered = Resources::from_map(&claim.status.allocatable);
            claim.status.allocatable = class.planned(&offered).to_map();
        }
        claim.conditions_mut(context.now.timestamp()).set_true(node_claim::LAUNCHED);
        let name = claim.metadata.name.clone().unwrap_or_default();
        let fields = [
            ("provider-id", json!(provider_id)),
            ("instance-type", json!(chosen.instance_type)),
            ("zone", json!(chosen.zone)),
            ("capacity-type", json!(launched.capacity_type)),
            ("allocatable", json!(chosen.allocatable)),
        ];
        log::info(step, context, Source::node_claim(NAME, &name), "launched nodeclaim", &fields);
        step.reasons.push(Reason {
            kind: Kind::of::<NodeClaim>(),
            key: ObjectKey::cluster(&name),
            by: "provisioner",
            decision: format!(
                "launched {} ({}) in {} for {}",
                chosen.instance_type,
                launched.capacity_type,
                chosen.zone,
                chosen.price.per_hour()
            ),
            because: vec![Because::new("instance", launched.instance_id.clone())],
        });
    }

    /// Gives a claim up that takes too long.
    fn live(&mut self, claim: &NodeClaim, context: &Context<'_>, step: &mut Step) {
        let since = |condition: &str| {
            conditions::get(claim.conditions(), condition)
                .filter(|condition| condition.status != conditions::TRUE)
                .map(|condition| Time::from(&condition.last_transition_time))
        };
        let launch = since(node_claim::LAUNCHED).map(|since| since + LAUNCH_TIMEOUT);
        let registration = since(node_claim::REGISTERED).map(|since| since + REGISTRATION_TIMEOUT);
        let Some(deadline) = launch.into_iter().chain(registration).min() else { return };
        if deadline <= context.now {
            self.forget(claim);
            delete(step, context, claim);
        } else {
            again(step, deadline.since(context.now));
        }
    }
}

impl Controller for Lifecycle {
    fn name(&self) -> &'static str {
        NAME
    }

    fn observe(&mut self, change: &Change, view: &View, queue: &mut Enqueue) {
        let kind = Kind::of::<NodeClaim>();
        if change.kind() == kind {
            if change.new.is_none()
                && let Some(claim) = change.object().typed::<NodeClaim>()
            {
                self.forget(claim);
            }
            queue.now(WorkKey::object(kind, change.key()));
        } else if change.kind() == Kind::of::<Node>() {
            let node = change.object().typed::<Node>();
            let claim = node.and_then(|node| claim_of_node(view, node));
            if let Some(claim) = claim.filter(|claim| !claim.is_true(node_claim::INITIALIZED)) {
                queue.now(WorkKey::object(kind, &ObjectKey::of(&claim.metadata)));
            }
        }
    }

    fn observe_cloud(&mut self, event: &CloudEvent, _view: &View, queue: &mut Enqueue) {
        let (token, claim, answer) = match event {
            CloudEvent::Launched(launched) => {
                (&launched.token, &launched.node_claim, Ok(launched.clone()))
            }
            CloudEvent::LaunchFailed { token, node_claim, error } => {
                (token, node_claim, Err(error.clone()))
            }
            CloudEvent::Terminated { .. } | CloudEvent::MicroVmFailed { .. } => return,
        };
        if let Some(asked) = self.asked.get_mut(token.as_str()) {
            asked.answer = Some(answer);
            queue.now(WorkKey::object(Kind::of::<NodeClaim>(), &ObjectKey::cluster(claim)));
        }
    }

    fn step(&mut self, key: &WorkKey, context: &mut Context<'_>) -> Step {
        let Some(claim) = context.view.get::<NodeClaim>(&key.key) else { return Step::done() };
        if claim.metadata.deletion_timestamp.is_some() {
            self.forget(claim);
            return Step::done();
        }
        self.reconcile(claim, context)
    }
}

/// A refused launch in the words of EKS Auto Mode, which names the fleet's errors by their codes.
fn auto_shortage(error: &LaunchError) -> String {
    let (code, message) = match error {
        LaunchError::InsufficientCapacity { message, .. } => {
            ("InsufficientInstanceCapacity", message)
        }
        LaunchError::Api { code, message } => (code.as_str(), message),
    };
    format!(
        "creating nodeclaim, creating instance, insufficient capacity, with fleet error(s), {code}: \
         {message}"
    )
}

/// The pools that were out of capacity; `None` if something else went wrong.
fn out_of_capacity(error: &LaunchError) -> Option<Vec<(String, String)>> {
    match error {
        LaunchError::InsufficientCapacity { pools, .. } => Some(pools.clone()),
        LaunchError::Api { code, .. } if OUT_OF_CAPACITY.contains(&code.as_str()) => {
            Some(Vec::new())
        }
        LaunchError::Api { .. } => None,
    }
}

/// The labels that a claim's requirements give its node besides the provider's: of custom keys any
/// value they allow, a random number where any will do.
fn custom_labels(
    requirements: &Requirements,
    is_auto: bool,
    context: &mut Context<'_>,
) -> Vec<(String, String)> {
    let is_well_known: fn(&str) -> bool =
        if is_auto { labels::is_well_known_to_auto_mode } else { labels::is_well_known };
    let custom = requirements
        .iter()
        .filter(|requirement| !is_well_known(&requirement.key))
        .filter(|requirement| labels::restriction(&requirement.key).is_none());
    custom
        .filter_map(|requirement| {
            let random = &mut *context.random;
            let value = requirement.any(|range| {
                let span = range.end.saturating_sub(range.start).clamp(1, i64::from(u32::MAX));
                range.start + i64::from(random.below(u32::try_from(span).unwrap_or(u32::MAX)))
            })?;
            Some((requirement.key.to_string(), value.to_string()))
        })
        .collect()
}

fn ask_reason(claim: &NodeClaim, request: &LaunchRequest) -> Reason {
    const SHOWN: usize = 5;
    let mut because: Vec<Because> = request
        .overrides
        .iter()
        .take(SHOWN)
        .map(|offer| {
            Because::new(
                offer.instance_type.clone(),
                format!("{} in {}", offer.price.per_hour(), offer.zone),
            )
        })
        .collect();
    if request.overrides.len() > SHOWN {
        let more = request.overrides.len() - SHOWN;
        because.push(Because::new("more", format!("{more} dearer offerings were named as well")));
    }
    Reason {
        kind: Kind::of::<NodeClaim>(),
        key: ObjectKey::of(&claim.metadata),
        by: "provisioner",
        decision: format!("asked the cloud for the cheapest {} offering", request.capacity_type),
        because,
    }
}

fn quantities(
    amounts: &BTreeMap<String, String>,
) -> BTreeMap<String, k8s_openapi::apimachinery::pkg::api::resource::Quantity> {
    let quantity =
        |amount: &String| k8s_openapi::apimachinery::pkg::api::resource::Quantity(amount.clone());
    amounts.iter().map(|(name, amount)| (name.clone(), quantity(amount))).collect()
}

fn delete(step: &mut Step, context: &Context<'_>, claim: &NodeClaim) {
    let key = ObjectKey::of(&claim.metadata);
    if let Some(object) = context.view.object(Kind::of::<NodeClaim>(), &key) {
        step.write(Write::Delete(Delete::of(object)));
    }
}

/// Looks again after `delay`, or earlier if that was asked for.
fn again(step: &mut Step, delay: Duration) {
    step.again = Some(step.again.map_or(delay, |earlier| earlier.min(delay)));
}

fn cut(message: &str) -> String {
    match message.char_indices().nth(MESSAGE_MAX) {
        Some((end, _)) => format!("{}...", &message[..end]),
        None => message.to_owned(),
    }
}
