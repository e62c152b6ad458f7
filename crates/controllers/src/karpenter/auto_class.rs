//! `nodeclass` of EKS Auto Mode: what a NodeClass selects in the simulated VPC, and whether it can be
//! used. The VPC's subnets are objects; a term with an id selects that one, a term with tags those of
//! the role it names, since the user's other tags exist only in their account.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use wharf_cloud::ec2::resource_id;
use wharf_model::auto_mode::{AutoNodeClass, Cluster, ComputeConfig, FINALIZER, is_auto_class};
use wharf_model::karpenter::conditions::{Conditioned, auto_node_class};
use wharf_model::karpenter::ec2nodeclass::{SecurityGroup, Subnet, SubnetSelectorTerm};
use wharf_model::karpenter::hash::AUTO_NODE_CLASS_HASH_VERSION;
use wharf_model::karpenter::{NodeClaim, events};
use wharf_model::kinds::Kind;
use wharf_model::labels;
use wharf_model::object::ObjectKey;
use wharf_model::random::fnv1a;
use wharf_model::subnet::Subnet as VpcSubnet;
use wharf_ports::cluster::{Change, Part, Write};
use wharf_ports::controller::{Context, Controller, Enqueue, Step, WorkKey};
use wharf_ports::view::View;

use super::class::is_auto_claim;
use super::events::{normal, report_transitions};
use super::shared::Shared;

/// How long a class waits before it looks again whether its NodeClaims are gone.
const WAIT_FOR_CLAIMS: Duration = Duration::from_mins(10);
/// The tag of subnets for load balancers that face the internet: public ones.
const PUBLIC_ROLE: &str = "kubernetes.io/role/elb";
/// The event of an object whose finalizer is gone.
pub(super) const FINALIZED: &str = "Finalized";

/// The controller.
pub(super) struct AutoClassController {
    shared: Arc<Shared>,
}

/// What EKS was told of Auto Mode's machines, if Auto Mode is on.
pub(super) fn auto_mode(view: &View) -> Option<&ComputeConfig> {
    view.list::<Cluster>()
        .filter(|cluster| cluster.metadata.deletion_timestamp.is_none())
        .find_map(Cluster::auto_mode)
}

/// The id of the security group that every cluster of EKS has.
pub(super) fn cluster_security_group(cluster: &str) -> String {
    resource_id(cluster, "sg", "cluster")
}

impl AutoClassController {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    fn reconcile(&self, class: &AutoNodeClass, context: &Context<'_>) -> Step {
        let mut draft = class.clone();
        let finalizers = draft.metadata.finalizers.get_or_insert_default();
        if !finalizers.iter().any(|finalizer| finalizer == FINALIZER) {
            finalizers.push(FINALIZER.to_owned());
        }
        let annotations = draft.metadata.annotations.get_or_insert_default();
        annotations.insert(labels::eks::NODE_CLASS_HASH.to_owned(), class.static_hash());
        annotations.insert(
            labels::eks::NODE_CLASS_HASH_VERSION.to_owned(),
            AUTO_NODE_CLASS_HASH_VERSION.to_owned(),
        );
        self.resolve(&mut draft, context.view);
        let has_subnets = !draft.status.subnets.is_empty();
        let mut set = draft.conditions_mut(context.now.timestamp());
        for condition in auto_node_class::DEPENDENTS {
            if auto_mode(context.view).is_none() {
                let message = "EKS Auto Mode is off: set computeConfig.enabled of the Cluster, with \
                               its load balancing and block storage";
                set.set_false(condition, "AutoModeDisabled", message);
            } else if *condition == auto_node_class::SUBNETS_READY && !has_subnets {
                let message = "SubnetSelector did not match any Subnets";
                set.set_false(condition, "SubnetsNotFound", message);
            } else {
                set.set_true(condition);
            }
        }
        let mut step = Step::done();
        if draft == *class {
            return step;
        }
        let after: Vec<Condition> = draft.status.conditions.clone();
        step.write(Write::Update { object: Box::new(draft), part: Part::All });
        report_transitions(&mut step, class, class.conditions(), &after);
        step
    }

    fn resolve(&self, class: &mut AutoNodeClass, view: &View) {
        let cluster = &self.shared.settings.cluster_name;
        class.status.subnets = self.subnets(&class.spec.subnet_selector_terms, view);
        let digits = fnv1a(cluster.as_bytes()) % 10_000_000_000;
        class.status.security_groups = vec![SecurityGroup {
            id: cluster_security_group(cluster),
            name: format!("eks-cluster-sg-{cluster}-{digits:010}"),
        }];
        class.status.instance_profile = match &class.spec.instance_profile {
            Some(profile) => profile.clone(),
            None => {
                let name = class.metadata.name.as_deref().unwrap_or_default();
                let region = self.shared.cloud.region().name;
                format!("eks-{region}-{cluster}-{}", fnv1a(name.as_bytes()))
            }
        };
    }

    fn subnets(&self, terms: &[SubnetSelectorTerm], view: &View) -> Vec<Subnet> {
        let mut selected: Vec<Subnet> = view
            .list::<VpcSubnet>()
            .filter(|subnet| terms.iter().any(|term| selects(term, subnet)))
            .map(|subnet| Subnet {
                id: subnet.metadata.name.clone().unwrap_or_default(),
                zone: subnet.spec.zone.clone(),
                zone_id: subnet.spec.zone_id.clone(),
            })
            .collect();
        selected.sort_by(|one, other| (&one.zone, &one.id).cmp(&(&other.zone, &other.id)));
        selected
    }

    fn finalize(&self, class: &AutoNodeClass, context: &Context<'_>) -> Step {
        let name = class.metadata.name.as_deref();
        let users: Vec<&str> = context
            .view
            .list::<NodeClaim>()
            .filter(|claim| is_auto_claim(claim))
            .filter(|claim| Some(claim.spec.node_class_ref.name.as_str()) == name)
            .filter_map(|claim| claim.metadata.name.as_deref())
            .collect();
        if !users.is_empty() {
            let message = format!("Waiting on NodeClaim termination for {}", users.join(", "));
            let mut step = Step::again_after(WAIT_FOR_CLAIMS);
            let event = normal(class, events::WAITING_ON_NODE_CLAIM_TERMINATION, message);
            self.shared.tell(&mut step, event, WAIT_FOR_CLAIMS, context.now);
            return step;
        }
        let mut draft = class.clone();
        let finalizers = draft.metadata.finalizers.get_or_insert_default();
        finalizers.retain(|finalizer| finalizer != FINALIZER);
        let mut step = Step::done();
        if draft != *class {
            step.write(normal(class, FINALIZED, format!("Finalized {FINALIZER}")));
            step.write(Write::Update { object: Box::new(draft), part: Part::Main });
        }
        step
    }
}

fn selects(term: &SubnetSelectorTerm, subnet: &VpcSubnet) -> bool {
    match (&term.id, &term.tags) {
        (Some(id), _) => subnet.metadata.name.as_ref() == Some(id),
        (None, Some(tags)) => subnet.spec.public == tags.contains_key(PUBLIC_ROLE),
        (None, None) => false,
    }
}

impl Controller for AutoClassController {
    fn name(&self) -> &'static str {
        "eks-auto-mode nodeclass"
    }

    fn observe(&mut self, change: &Change, view: &View, queue: &mut Enqueue) {
        let kind = Kind::of::<AutoNodeClass>();
        if change.kind() == kind {
            queue.now(WorkKey::object(kind, change.key()));
        } else if [Kind::of::<Cluster>(), Kind::of::<VpcSubnet>()].contains(&change.kind()) {
            for class in view.objects(kind) {
                queue.now(WorkKey::object(kind, class.key()));
            }
        }
        // A class that is being deleted waits for its last NodeClaim.
        let claim = change.old.as_ref().filter(|_| change.new.is_none());
        if let Some(claim) = claim.and_then(|object| object.typed::<NodeClaim>())
            && is_auto_class(&claim.spec.node_class_ref)
        {
            queue.now(WorkKey::object(kind, &ObjectKey::cluster(&claim.spec.node_class_ref.name)));
        }
    }

    fn step(&mut self, key: &WorkKey, context: &mut Context<'_>) -> Step {
        let Some(class) = context.view.get::<AutoNodeClass>(&key.key) else { return Step::done() };
        if class.metadata.deletion_timestamp.is_some() {
            return self.finalize(class, context);
        }
        self.reconcile(class, context)
    }
}
