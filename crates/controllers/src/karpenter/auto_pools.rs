//! What EKS keeps of Auto Mode in a cluster: its own NodePools and their NodeClass. They are there as
//! the cluster's computeConfig says, and as EKS made them: what is changed is put back, what is deleted
//! comes again. A pool that is switched off goes with its nodes, which are drained.

use std::sync::Arc;

use wharf_model::auto_mode::pools::{self, BUILT_IN};
use wharf_model::auto_mode::{AutoNodeClass, Cluster, ComputeConfig, DEFAULT_CLASS, is_auto_class};
use wharf_model::karpenter::{NodeClaim, NodePool};
use wharf_model::kinds::{Kind, Resource};
use wharf_model::object::ObjectKey;
use wharf_model::subnet::Subnet;
use wharf_ports::cluster::{Change, Delete, Part, Write};
use wharf_ports::controller::{Context, Controller, Enqueue, Step, WorkKey};
use wharf_ports::reason::{Because, Reason};
use wharf_ports::view::View;

use super::auto_class::{auto_mode, cluster_security_group};
use super::shared::Shared;

const NAME: &str = "eks-auto-mode";
const KEEP: &str = "keep";

/// The controller.
pub(super) struct AutoPools {
    shared: Arc<Shared>,
}

impl AutoPools {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    fn keep_class(&self, compute: Option<&ComputeConfig>, view: &View, step: &mut Step) {
        let wanted = compute.filter(|compute| !compute.node_pools.is_empty());
        let present = view.get_cluster::<AutoNodeClass>(DEFAULT_CLASS);
        let Some(compute) = wanted else {
            if present.is_some_and(|class| pools::is_managed(&class.metadata)) {
                delete::<AutoNodeClass>(view, DEFAULT_CLASS, step);
            }
            return;
        };
        let role = compute.node_role_arn.as_deref().unwrap_or_default();
        let private = view.list::<Subnet>().filter(|subnet| !subnet.spec.public);
        let mut subnets: Vec<String> =
            private.filter_map(|subnet| subnet.metadata.name.clone()).collect();
        subnets.sort_unstable();
        let group = cluster_security_group(&self.shared.settings.cluster_name);
        let made = pools::default_class(role, subnets, group);
        let Some(class) = present else {
            step.write(Write::Create(Box::new(made)));
            return;
        };
        let mut draft = class.clone();
        draft.spec = made.spec;
        relabel(&mut draft.metadata, &made.metadata);
        if draft != *class && class.metadata.deletion_timestamp.is_none() {
            step.reasons.push(put_back::<AutoNodeClass>(DEFAULT_CLASS));
            step.write(Write::Update { object: Box::new(draft), part: Part::Main });
        }
    }

    fn keep_pool(compute: Option<&ComputeConfig>, name: &str, view: &View, step: &mut Step) {
        let is_wanted =
            compute.is_some_and(|compute| compute.node_pools.iter().any(|pool| pool == name));
        let present = view.get_cluster::<NodePool>(name);
        if !is_wanted {
            if present.is_some_and(|pool| pools::is_managed(&pool.metadata)) {
                delete::<NodePool>(view, name, step);
            }
            return;
        }
        let Some(made) = pools::built_in(name) else { return };
        let Some(pool) = present else {
            step.write(Write::Create(Box::new(made)));
            return;
        };
        // A pool of that name for other machines was there before: whose it is cannot be changed.
        let is_other = !is_auto_class(&pool.spec.template.spec.node_class_ref);
        if is_other || pool.metadata.deletion_timestamp.is_some() {
            return;
        }
        let mut draft = pool.clone();
        draft.spec = made.spec;
        relabel(&mut draft.metadata, &made.metadata);
        if draft != *pool {
            step.reasons.push(put_back::<NodePool>(name));
            step.write(Write::Update { object: Box::new(draft), part: Part::Main });
        }
    }
}

impl Controller for AutoPools {
    fn name(&self) -> &'static str {
        NAME
    }

    fn observe(&mut self, change: &Change, _view: &View, queue: &mut Enqueue) {
        let kind = change.kind();
        let key = change.key();
        let concerned = kind == Kind::of::<Cluster>()
            || kind == Kind::of::<Subnet>()
            || (kind == Kind::of::<NodePool>() && BUILT_IN.contains(&key.name.as_str()))
            || (kind == Kind::of::<AutoNodeClass>() && key.name == DEFAULT_CLASS)
            // A claim of a pool that was on its way when Auto Mode was switched off.
            || (kind == Kind::of::<NodeClaim>() && change.old.is_none());
        if concerned {
            queue.now(WorkKey::singleton(KEEP));
        }
    }

    fn step(&mut self, _key: &WorkKey, context: &mut Context<'_>) -> Step {
        let view = context.view;
        let mut step = Step::done();
        // Each is kept for itself: a refusal of one keeps no other from being right.
        step.independent = true;
        if view.list::<Cluster>().next().is_none() {
            return step;
        }
        let compute = auto_mode(view);
        self.keep_class(compute, view, &mut step);
        for name in BUILT_IN {
            Self::keep_pool(compute, name, view, &mut step);
        }
        if compute.is_none() {
            let claims = view.list::<NodeClaim>();
            for claim in claims.filter(|claim| is_auto_class(&claim.spec.node_class_ref)) {
                delete::<NodeClaim>(
                    view,
                    claim.metadata.name.as_deref().unwrap_or_default(),
                    &mut step,
                );
            }
        }
        step
    }
}

/// Gives an object the labels that EKS puts on what is its own; the user's stay.
fn relabel(
    metadata: &mut k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta,
    made: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta,
) {
    let labels = metadata.labels.get_or_insert_default();
    labels.extend(made.labels.clone().unwrap_or_default());
}

fn put_back<T: Resource>(name: &str) -> Reason {
    Reason {
        kind: T::kind(),
        key: ObjectKey::cluster(name),
        by: NAME,
        decision: "put back as EKS keeps it".to_owned(),
        because: vec![Because::new(
            "built in",
            "EKS Auto Mode's own objects cannot be changed; switch them in the Cluster's computeConfig, or make a pool of your own",
        )],
    }
}

fn delete<T: Resource>(view: &View, name: &str, step: &mut Step) {
    let object = view.object(T::kind(), &ObjectKey::cluster(name));
    if let Some(object) = object.filter(|object| object.header().deleting.is_none()) {
        step.write(Write::Delete(Delete::of(object)));
    }
}
