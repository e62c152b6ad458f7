//! `nodeclass`: what an EC2NodeClass selects in the simulated VPC, and whether it can be used.
//!
//! The VPC's subnets are `Subnet` objects; besides, there is one security group for nodes and the images
//! of each family. A term with the id of one of them selects that; any other term (tags, an id of the
//! user's own account) selects every private subnet, since what it names exists only there.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use wharf_cloud::ec2::resource_id;
use wharf_model::karpenter::conditions::{Conditioned, ec2_node_class};
use wharf_model::karpenter::ec2nodeclass::{Ami, SecurityGroup, Subnet};
use wharf_model::karpenter::hash::EC2_NODE_CLASS_HASH_VERSION;
use wharf_model::karpenter::{
    EC2NodeClass, NODE_CLASS_TERMINATION_FINALIZER, NodeClaim,
    NodeSelectorRequirementWithMinValues, events,
};
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

/// The controller.
pub(super) struct NodeClassController {
    shared: Arc<Shared>,
}

impl NodeClassController {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    fn reconcile(&self, class: &EC2NodeClass, context: &Context<'_>) -> Step {
        let mut draft = class.clone();
        add_finalizer(&mut draft);
        let annotations = draft.metadata.annotations.get_or_insert_default();
        annotations.insert(labels::EC2NODECLASS_HASH.to_owned(), class.static_hash(None));
        annotations.insert(
            labels::EC2NODECLASS_HASH_VERSION.to_owned(),
            EC2_NODE_CLASS_HASH_VERSION.to_owned(),
        );
        self.resolve(&mut draft, context.view);
        let mut set = draft.conditions_mut(context.now.timestamp());
        for condition in ec2_node_class::DEPENDENTS {
            set.set_true(condition);
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

    fn resolve(&self, class: &mut EC2NodeClass, view: &View) {
        let cluster = &self.shared.settings.cluster_name;
        let id = |prefix: &str, of: &str| resource_id(cluster, prefix, of);
        class.status.subnets = if view.count(Kind::of::<VpcSubnet>()) == 0 {
            let zones = self.shared.cloud.zones().into_iter();
            let subnet = |zone: wharf_cloud::catalog::Zone| Subnet {
                id: id("subnet", &zone.name),
                zone: zone.name.to_string(),
                zone_id: zone.id.to_string(),
            };
            zones.map(subnet).collect()
        } else {
            selected_subnets(class, view)
        };
        class.status.security_groups =
            vec![SecurityGroup { id: id("sg", "node"), name: format!("{cluster}-node") }];
        let family = class.ami_family().to_ascii_lowercase();
        class.status.amis = ["amd64", "arm64"].iter().map(|arch| ami(&family, arch, &id)).collect();
        class.status.instance_profile = match &class.spec.instance_profile {
            Some(profile) => profile.clone(),
            None => {
                let name = class.metadata.name.as_deref().unwrap_or_default();
                format!("{cluster}_{}", fnv1a(name.as_bytes()))
            }
        };
    }

    fn finalize(&self, class: &EC2NodeClass, context: &Context<'_>) -> Step {
        let name = class.metadata.name.as_deref();
        let users: Vec<&NodeClaim> = context
            .view
            .list::<NodeClaim>()
            .filter(|claim| !is_auto_claim(claim))
            .filter(|claim| Some(claim.spec.node_class_ref.name.as_str()) == name)
            .collect();
        if !users.is_empty() {
            let names: Vec<&str> =
                users.iter().filter_map(|claim| claim.metadata.name.as_deref()).collect();
            let message = format!("Waiting on NodeClaim termination for {}", names.join(", "));
            let mut step = Step::again_after(WAIT_FOR_CLAIMS);
            let event = normal(class, events::WAITING_ON_NODE_CLAIM_TERMINATION, message);
            self.shared.tell(&mut step, event, WAIT_FOR_CLAIMS, context.now);
            return step;
        }
        let mut draft = class.clone();
        let finalizers = draft.metadata.finalizers.get_or_insert_default();
        finalizers.retain(|finalizer| finalizer != NODE_CLASS_TERMINATION_FINALIZER);
        let mut step = Step::done();
        if draft != *class {
            step.write(Write::Update { object: Box::new(draft), part: Part::Main });
        }
        step
    }
}

impl Controller for NodeClassController {
    fn name(&self) -> &'static str {
        "karpenter nodeclass"
    }

    fn observe(&mut self, change: &Change, view: &View, queue: &mut Enqueue) {
        let kind = Kind::of::<EC2NodeClass>();
        if change.kind() == kind {
            queue.now(WorkKey::object(kind, change.key()));
        }
        if change.kind() == Kind::of::<VpcSubnet>() {
            view.objects(kind).for_each(|class| queue.now(WorkKey::object(kind, class.key())));
        }
        // A class that is being deleted waits for its last NodeClaim.
        let claim = change.old.as_ref().filter(|_| change.new.is_none());
        if let Some(claim) = claim.and_then(|object| object.typed::<NodeClaim>()) {
            let key = ObjectKey::cluster(&claim.spec.node_class_ref.name);
            if view.object(kind, &key).is_some() {
                queue.now(WorkKey::object(kind, &key));
            }
        }
    }

    fn step(&mut self, key: &WorkKey, context: &mut Context<'_>) -> Step {
        let Some(class) = context.view.get::<EC2NodeClass>(&key.key) else { return Step::done() };
        if class.metadata.deletion_timestamp.is_some() {
            return self.finalize(class, context);
        }
        self.reconcile(class, context)
    }
}

/// The subnets that a class selects, by zone.
fn selected_subnets(class: &EC2NodeClass, view: &View) -> Vec<Subnet> {
    let ids: Vec<&str> =
        class.spec.subnet_selector_terms.iter().filter_map(|term| term.id.as_deref()).collect();
    let is_there = |id: &str| view.get_cluster::<VpcSubnet>(id).is_some();
    let is_elsewhere = class
        .spec
        .subnet_selector_terms
        .iter()
        .any(|term| term.id.as_deref().is_none_or(|id| !is_there(id)));
    let any_private = view.list::<VpcSubnet>().any(|subnet| !subnet.spec.public);
    let mut subnets: Vec<Subnet> = view
        .list::<VpcSubnet>()
        .filter(|subnet| {
            let is_named = subnet.metadata.name.as_deref().is_some_and(|name| ids.contains(&name));
            is_named || (is_elsewhere && subnet.spec.public != any_private)
        })
        .map(|subnet| Subnet {
            id: subnet.metadata.name.clone().unwrap_or_default(),
            zone: subnet.spec.zone.clone(),
            zone_id: subnet.spec.zone_id.clone(),
        })
        .collect();
    subnets.sort_by(|one, other| (&one.zone, &one.id).cmp(&(&other.zone, &other.id)));
    subnets
}

fn add_finalizer(class: &mut EC2NodeClass) {
    let finalizers = class.metadata.finalizers.get_or_insert_default();
    if !finalizers.iter().any(|finalizer| finalizer == NODE_CLASS_TERMINATION_FINALIZER) {
        finalizers.push(NODE_CLASS_TERMINATION_FINALIZER.to_owned());
    }
}

/// The image of a family for an architecture, named as Amazon names them.
fn ami(family: &str, arch: &str, id: &impl Fn(&str, &str) -> String) -> Ami {
    let machine = if arch == "arm64" { "arm64" } else { "x86_64" };
    let name = match family {
        "bottlerocket" => {
            let machine = if arch == "arm64" { "aarch64" } else { machine };
            format!("bottlerocket-aws-k8s-1.36-{machine}-v1.50.0")
        }
        "custom" => format!("custom-{machine}"),
        family => format!("amazon-eks-node-{family}-{machine}-standard-1.36-v20260811"),
    };
    Ami {
        id: id("ami", &name),
        deprecated: false,
        name,
        requirements: vec![NodeSelectorRequirementWithMinValues {
            key: labels::ARCH.to_owned(),
            operator: "In".to_owned(),
            values: vec![arch.to_owned()],
            min_values: None,
        }],
    }
}

/// The id of a node class's image for an architecture.
pub(super) fn image_for(class: &EC2NodeClass, arch: &str) -> String {
    let wants = |ami: &&Ami| {
        ami.requirements.iter().any(|requirement| requirement.values.iter().any(|v| v == arch))
    };
    class.status.amis.iter().find(wants).map(|ami| ami.id.clone()).unwrap_or_default()
}
