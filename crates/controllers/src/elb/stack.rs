//! What one load balancer is made of, and what to write so that the world has it. Plain functions of the
//! world as it is seen: a write that was lost, or done already, does no harm.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::json;
use wharf_model::balancing::{
    DELETED, HealthCheck, Listener, LoadBalancer, LoadBalancerSpec, PROVISIONING, ServiceReference,
    TargetGroup, TargetGroupBinding, TargetGroupBindingSpec, TargetGroupSpec,
};
use wharf_model::kinds::Kind;
use wharf_model::object::ObjectKey;
use wharf_model::subnet::Subnet;
use wharf_model::time::Time;
use wharf_ports::cluster::{Delete, Part, Write};
use wharf_ports::view::View;

use super::{ElbSettings, names};

/// The tag that names the cluster.
const TAG_CLUSTER: &str = "elbv2.k8s.aws/cluster";
/// Keeps a binding until its targets are taken out.
pub(super) const BINDING_FINALIZER: &str = "elbv2.k8s.aws/resources";

/// Whose stack it is: an Ingress, a group of them, or a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct StackId {
    /// `ingress.k8s.aws` or `service.k8s.aws`.
    pub(super) owner: &'static str,
    /// `namespace/name`, or the group's name.
    pub(super) name: String,
}

impl StackId {
    /// The tag and label that says so.
    pub(super) fn tag(&self) -> String {
        format!("{}/stack", self.owner)
    }

    /// As a label's value, which holds no slash.
    fn label_value(&self) -> String {
        self.name.replace('/', "_").chars().take(63).collect()
    }
}

/// What one load balancer is made of.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Stack {
    pub(super) id: StackId,
    /// The load balancer's name.
    pub(super) name: String,
    pub(super) is_network: bool,
    pub(super) scheme: String,
    pub(super) subnets: Vec<String>,
    /// Their rules name target groups.
    pub(super) listeners: Vec<Listener>,
    pub(super) groups: Vec<WantedGroup>,
    pub(super) tags: BTreeMap<String, String>,
    /// Tells this load balancer from an earlier one of its name.
    pub(super) token: String,
}

/// A target group with its binding.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct WantedGroup {
    pub(super) name: String,
    pub(super) service: ObjectKey,
    pub(super) service_port: IntOrString,
    pub(super) target_type: String,
    pub(super) protocol: String,
    pub(super) port: i32,
    pub(super) health_check: HealthCheck,
}

/// What to write for a stack.
pub(super) struct Deployment {
    pub(super) writes: Vec<Write>,
    /// The load balancer's name in DNS.
    pub(super) dns_name: String,
}

/// What to write so that the world has a stack, and nothing else of its.
pub(super) fn deploy(stack: &Stack, settings: &ElbSettings, view: &View, now: Time) -> Deployment {
    let mut writes = Vec::new();
    let mut tags = stack.tags.clone();
    tags.insert(TAG_CLUSTER.to_owned(), settings.cluster_name.clone());
    tags.insert(stack.id.tag(), stack.id.name.clone());
    for wanted in &stack.groups {
        let suffix = names::digest(&[&settings.cluster_name, &wanted.name, "targets"], 16);
        let arn = names::arn(settings, &format!("targetgroup/{}/{suffix}", wanted.name));
        writes.extend(group(wanted, &arn, &tags, view));
        writes.extend(binding(wanted, &arn, &stack.id, settings, view));
    }
    let own: Vec<&LoadBalancer> = of_stack(&stack.id, view).collect();
    let current =
        own.iter().find(|it| it.spec.name == stack.name && it.spec.scheme == stack.scheme);
    let drawn = names::drawn(stack.is_network, &stack.name, &stack.token);
    let mut spec = current.map(|it| it.spec.clone()).unwrap_or_else(|| LoadBalancerSpec {
        name: stack.name.clone(),
        type_: if stack.is_network { "network" } else { "application" }.to_owned(),
        scheme: stack.scheme.clone(),
        dns_name: names::dns(settings, stack.is_network, &stack.scheme, &stack.name, &drawn),
        arn: {
            let kind = if stack.is_network { "net" } else { "app" };
            let suffix = names::digest(&[&stack.name, &stack.token], 16);
            names::arn(settings, &format!("loadbalancer/{kind}/{}/{suffix}", stack.name))
        },
        price_nanos_per_hour: settings.price.nano_dollars_per_hour(),
        ..LoadBalancerSpec::default()
    });
    tags.insert(format!("{}/resource", stack.id.owner), "LoadBalancer".to_owned());
    spec.subnets.clone_from(&stack.subnets);
    spec.listeners.clone_from(&stack.listeners);
    spec.tags = tags;
    let dns_name = spec.dns_name.clone();
    match current {
        Some(current) if current.spec == spec => {}
        Some(current) => {
            let changed = LoadBalancer { spec, ..(*current).clone() };
            writes.push(Write::Update { object: Box::new(changed), part: Part::Main });
        }
        None => {
            let mut created = LoadBalancer { spec, ..LoadBalancer::default() };
            created.metadata.name = Some(format!("{}-{drawn}", stack.name).to_ascii_lowercase());
            created.status.state = PROVISIONING.to_owned();
            created.status.created_at_nanos = Some(now.as_nanos());
            writes.push(Write::Create(Box::new(created)));
        }
    }
    let others = own.into_iter().filter(|it| it.spec.dns_name != dns_name);
    writes.extend(others.map(|other| deleted(other, now)));
    let names: BTreeSet<&str> = stack.groups.iter().map(|group| group.name.as_str()).collect();
    writes.extend(leftovers(&stack.id, &names, view));
    Deployment { writes, dns_name }
}

/// What to write so that nothing of a stack is left.
pub(super) fn tear_down(id: &StackId, view: &View, now: Time) -> Vec<Write> {
    let balancers = of_stack(id, view).map(|balancer| deleted(balancer, now));
    balancers.chain(leftovers(id, &BTreeSet::new(), view)).collect()
}

/// The load balancers of a stack that are not deleted.
fn of_stack<'v>(id: &StackId, view: &'v View) -> impl Iterator<Item = &'v LoadBalancer> {
    let (tag, name) = (id.tag(), id.name.clone());
    view.list::<LoadBalancer>().filter(move |balancer| {
        balancer.spec.tags.get(&tag) == Some(&name) && balancer.status.state != DELETED
    })
}

/// A deleted load balancer is kept for the ledger: it has to be paid.
fn deleted(balancer: &LoadBalancer, now: Time) -> Write {
    let mut draft = balancer.clone();
    draft.status.state = DELETED.to_owned();
    draft.status.deleted_at_nanos = Some(now.as_nanos());
    Write::Update { object: Box::new(draft), part: Part::Status }
}

fn group(
    wanted: &WantedGroup,
    arn: &str,
    tags: &BTreeMap<String, String>,
    view: &View,
) -> Option<Write> {
    let spec = TargetGroupSpec {
        arn: arn.to_owned(),
        target_type: wanted.target_type.clone(),
        protocol: wanted.protocol.clone(),
        port: wanted.port,
        health_check: wanted.health_check.clone(),
        tags: tags.clone(),
    };
    match view.get_cluster::<TargetGroup>(&wanted.name) {
        Some(existing) if existing.spec == spec => None,
        Some(existing) => {
            let changed = TargetGroup { spec, ..existing.clone() };
            Some(Write::Update { object: Box::new(changed), part: Part::Main })
        }
        None => {
            let mut created = TargetGroup { spec, ..TargetGroup::default() };
            created.metadata.name = Some(wanted.name.clone());
            Some(Write::Create(Box::new(created)))
        }
    }
}

fn binding(
    wanted: &WantedGroup,
    arn: &str,
    id: &StackId,
    settings: &ElbSettings,
    view: &View,
) -> Option<Write> {
    let spec = TargetGroupBindingSpec {
        target_group_arn: Some(arn.to_owned()),
        target_type: Some(wanted.target_type.clone()),
        service_ref: ServiceReference {
            name: wanted.service.name.to_string(),
            port: Some(wanted.service_port.clone()),
        },
        networking: Some(
            json!({"ingress": [{"ports": [{"port": wanted.port, "protocol": "TCP"}]}]}),
        ),
        ip_address_type: Some("ipv4".to_owned()),
        vpc_id: Some(settings.vpc_id.clone()),
        ..TargetGroupBindingSpec::default()
    };
    let key = ObjectKey::namespaced(&wanted.service.namespace, &wanted.name);
    match view.get::<TargetGroupBinding>(&key) {
        Some(existing) if existing.spec == spec => None,
        Some(existing) => {
            let changed = TargetGroupBinding { spec, ..existing.clone() };
            Some(Write::Update { object: Box::new(changed), part: Part::Main })
        }
        None => {
            let metadata = ObjectMeta {
                name: Some(wanted.name.clone()),
                namespace: Some(wanted.service.namespace.to_string()),
                labels: Some([(id.tag(), id.label_value())].into()),
                finalizers: Some(vec![BINDING_FINALIZER.to_owned()]),
                ..ObjectMeta::default()
            };
            let created = TargetGroupBinding { metadata, spec, ..TargetGroupBinding::default() };
            Some(Write::Create(Box::new(created)))
        }
    }
}

/// Deletions of target groups and bindings of a stack that it no longer has.
fn leftovers(id: &StackId, names: &BTreeSet<&str>, view: &View) -> Vec<Write> {
    let (tag, value) = (id.tag(), id.label_value());
    let bindings = view.objects(Kind::of::<TargetGroupBinding>()).filter(|object| {
        let header = object.header();
        header.label(&tag) == Some(value.as_str())
            && header.deleting.is_none()
            && !names.contains(header.key.name.as_str())
    });
    let groups = view.objects(Kind::of::<TargetGroup>()).filter(|object| {
        object
            .typed::<TargetGroup>()
            .is_some_and(|group| group.spec.tags.get(&tag) == Some(&id.name))
            && !names.contains(object.key().name.as_str())
    });
    bindings.chain(groups).map(|object| Write::Delete(Delete::of(object))).collect()
}

/// The subnets of a load balancer: in each zone that of the lowest id with the role for the scheme.
///
/// # Errors
/// The words of the controller, where there are too few.
pub(super) fn subnets(scheme: &str, zones_min: usize, view: &View) -> Result<Vec<String>, String> {
    let is_public = scheme == "internet-facing";
    let role = if is_public { "kubernetes.io/role/elb" } else { "kubernetes.io/role/internal-elb" };
    let mut by_zone: BTreeMap<&str, String> = BTreeMap::new();
    for subnet in view.list::<Subnet>().filter(|subnet| subnet.spec.public == is_public) {
        // In the order of their ids.
        let id = subnet.metadata.name.clone().unwrap_or_default();
        by_zone.entry(&subnet.spec.zone).or_insert(id);
    }
    match by_zone.len() {
        0 => Err(format!(
            "couldn't auto-discover subnets: unable to resolve at least one subnet (0 match VPC and tags: [{role}])"
        )),
        count if count < zones_min => Err(format!(
            "couldn't auto-discover subnets: subnets count less than minimal required count: {count} < {zones_min}"
        )),
        _ => Ok(by_zone.into_values().collect()),
    }
}
