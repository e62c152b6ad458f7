//! Extended resources that a DeviceClass stands for: a pod asks for `example.com/gpu` as ever, and on
//! nodes that do not offer it themselves it is given devices of the class, by a claim that the
//! scheduler makes for it
//! (<https://kubernetes.io/docs/concepts/scheduling-eviction/dynamic-resource-allocation/#extended-resource>).

use std::collections::BTreeMap;

use compact_str::CompactString;
use k8s_openapi::api::core::v1::{Container, ContainerExtendedResourceRequest, Pod};
use k8s_openapi::api::resource::v1::{DeviceRequest, ExactDeviceRequest, ResourceClaim};
use smallvec::SmallVec;
use wharf_model::object::ObjectKey;
use wharf_model::pod::is_sidecar;
use wharf_model::quantity::Quantity;

use super::Devices;
use super::objects::Claim;
use crate::node::NodeInfo;
use crate::pod::PodInfo;
use crate::symbols::Symbols;

/// The names under which a class can always be asked for begin with this.
const IMPLICIT: &str = "deviceclass.resource.kubernetes.io/";
/// Marks the claims that the scheduler makes.
const ANNOTATION: &str = "resource.kubernetes.io/extended-resource-claim";

/// What the containers of a pod ask for of resources that classes may stand for.
#[derive(Clone, Debug, PartialEq)]
pub struct ExtendedResources {
    containers: Box<[Asks]>,
}

/// What a container asks for.
#[derive(Clone, Debug, PartialEq)]
struct Asks {
    name: CompactString,
    /// Whether it ends before the others begin.
    is_short_lived: bool,
    /// Resource, its place among all that the container asks for, and the amount.
    resources: Box<[(CompactString, usize, i64)]>,
}

/// The claim that a pod needs on a node for its extended resources, and what each container gets of
/// it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ExtendedClaim {
    /// What stands for the claim while there is none.
    pub key: ObjectKey,
    /// The claim's requests.
    pub requests: Vec<DeviceRequest>,
    /// Which containers get which of them.
    pub mappings: Vec<ContainerExtendedResourceRequest>,
}

/// Whether a claim is one that the scheduler made for a pod's extended resources.
pub fn is_extended_resource_claim(claim: &ResourceClaim) -> bool {
    let annotations = claim.metadata.annotations.as_ref();
    annotations.and_then(|all| all.get(ANNOTATION)).is_some_and(|value| value == "true")
}

/// The claim that is made for a pod.
pub fn extended_resource_claim(pod: &PodInfo, plan: &ExtendedClaim) -> ResourceClaim {
    use k8s_openapi::api::resource::v1::{DeviceClaim, ResourceClaimSpec};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
    ResourceClaim {
        metadata: ObjectMeta {
            namespace: Some(pod.key.namespace.to_string()),
            generate_name: Some(format!("{}-extended-resources-", pod.key.name)),
            annotations: Some([(ANNOTATION.to_owned(), "true".to_owned())].into()),
            owner_references: Some(vec![OwnerReference {
                api_version: "v1".to_owned(),
                kind: "Pod".to_owned(),
                name: pod.key.name.to_string(),
                uid: pod.uid.to_string(),
                controller: Some(true),
                block_owner_deletion: None,
            }]),
            ..ObjectMeta::default()
        },
        spec: ResourceClaimSpec {
            devices: Some(DeviceClaim {
                requests: Some(plan.requests.clone()),
                ..DeviceClaim::default()
            }),
        },
        status: None,
    }
}

impl ExtendedResources {
    /// `None` if the pod asks for nothing of the kind.
    pub(crate) fn new(pod: &Pod) -> Option<Box<Self>> {
        let spec = pod.spec.as_ref()?;
        let init = spec.init_containers.as_deref().unwrap_or_default();
        let first = init.iter().map(|container| Asks::new(container, !is_sidecar(container)));
        let then = spec.containers.iter().map(|container| Asks::new(container, false));
        let containers: Box<[Asks]> = first.chain(then).collect();
        let any = containers.iter().any(|container| !container.resources.is_empty());
        any.then(|| Box::new(Self { containers }))
    }

    fn names(&self) -> impl Iterator<Item = &CompactString> {
        self.containers.iter().flat_map(|it| it.resources.iter().map(|(name, _, _)| name))
    }

    /// One request for each container and resource. Containers that end before others begin use
    /// what those will have, and share what they need beyond it.
    fn ask(&self, classes: &BTreeMap<CompactString, CompactString>) -> ExtendedClaim {
        let mut claim = ExtendedClaim::default();
        for (resource, class) in classes {
            let mut own: Vec<Option<DeviceRequest>> = vec![None; self.containers.len()];
            for (index, container) in self.containers.iter().enumerate() {
                if !container.is_short_lived {
                    let asked = container.ask(index, resource, class, &[]);
                    own[index] = asked.request;
                    claim.mappings.extend(asked.mappings);
                }
            }
            let mut largest: Option<DeviceRequest> = None;
            let mut mappings = Vec::new();
            let mut names: Vec<String> = Vec::new();
            for (index, container) in self.containers.iter().enumerate() {
                if !container.is_short_lived {
                    continue;
                }
                let asked = container.ask(index, resource, class, &own[index..]);
                mappings.extend(asked.mappings);
                if let Some(request) = asked.request {
                    names.push(request.name.clone());
                    if largest.as_ref().is_none_or(|known| count(known) < count(&request)) {
                        largest = Some(request);
                    }
                }
            }
            if let Some(largest) = &largest {
                for mapping in &mut mappings {
                    if names.contains(&mapping.request_name) {
                        mapping.request_name.clone_from(&largest.name);
                    }
                }
            }
            claim.mappings.extend(mappings);
            claim.requests.extend(largest.into_iter().chain(own.into_iter().flatten()));
        }
        claim.requests.sort_by(|left, right| left.name.cmp(&right.name));
        claim
    }
}

/// What a container asks for of one resource.
#[derive(Default)]
struct Asked {
    request: Option<DeviceRequest>,
    mappings: Vec<ContainerExtendedResourceRequest>,
}

impl Asks {
    fn new(container: &Container, is_short_lived: bool) -> Self {
        let asked = container.resources.as_ref().and_then(|it| it.requests.as_ref());
        let resources = asked.into_iter().flatten().enumerate();
        let resources = resources.filter_map(|(place, (name, amount))| {
            let amount = Quantity::parse(&amount.0).ok()?.value_ceil();
            (is_extended(name) && amount > 0).then(|| (name.into(), place, amount))
        });
        Self {
            name: container.name.as_str().into(),
            is_short_lived,
            resources: resources.collect(),
        }
    }

    fn ask(
        &self,
        index: usize,
        resource: &str,
        class: &str,
        reusable: &[Option<DeviceRequest>],
    ) -> Asked {
        let mut asked = Asked::default();
        let wanted = self.resources.iter().find(|(name, _, _)| name == resource);
        let Some((_, place, amount)) = wanted else { return asked };
        let mapping = |request: &str| ContainerExtendedResourceRequest {
            container_name: self.name.to_string(),
            request_name: request.to_owned(),
            resource_name: resource.to_owned(),
        };
        let mut sum = 0;
        for request in reusable.iter().flatten() {
            sum += count(request);
            asked.mappings.push(mapping(&request.name));
            if sum >= *amount {
                return asked;
            }
        }
        let name = format!("container-{index}-request-{place}");
        asked.mappings.push(mapping(&name));
        asked.request = Some(DeviceRequest {
            name,
            exactly: Some(ExactDeviceRequest {
                device_class_name: class.to_owned(),
                allocation_mode: Some("ExactCount".to_owned()),
                count: Some(amount - sum),
                ..ExactDeviceRequest::default()
            }),
            first_available: None,
        });
        asked
    }
}

fn count(request: &DeviceRequest) -> i64 {
    request.exactly.as_ref().and_then(|exactly| exactly.count).unwrap_or(0)
}

/// Whether a class may stand for a resource.
fn is_extended(name: &str) -> bool {
    let Some((domain, _)) = name.split_once('/') else { return false };
    name.starts_with(IMPLICIT)
        || !(domain == "kubernetes.io"
            || domain.ends_with(".kubernetes.io")
            || name.starts_with("requests."))
}

impl Devices {
    /// The class that stands for a resource: of several that name it, the newest, and of those the
    /// first by name.
    pub(crate) fn class_for(&self, resource: &str) -> Option<&str> {
        if let Some(class) = self.standing_for.get(resource) {
            return Some(class);
        }
        let class = resource.strip_prefix(IMPLICIT)?;
        self.classes.get_key_value(class).map(|(name, _)| name.as_str())
    }

    /// Whether classes stand for anything that a pod asks for.
    pub(crate) fn stand_for(&self, pod: &PodInfo) -> bool {
        let extended = pod.extended.as_deref();
        extended.is_some_and(|all| all.names().any(|name| self.class_for(name).is_some()))
    }

    /// How many devices of the class that stands for a resource a node reaches, and how many of these
    /// somebody has, for scores. None where no class does, there is no device, or a selector of the
    /// class fails. As upstream counts, whatever pool and generation they are of.
    pub(crate) fn totals(
        &self,
        resource: &str,
        node: &NodeInfo,
        symbols: &Symbols,
    ) -> Option<(i64, i64)> {
        let class = self.class(self.class_for(resource)?)?;
        let (mut all, mut taken) = (0, 0);
        for slice in self.slices_for(node) {
            let answers: SmallVec<[_; 4]> = class
                .selectors
                .iter()
                .map(|selector| slice.answers.of(selector, slice.devices.len()))
                .collect();
            for (place, device) in slice.devices.iter().enumerate() {
                if !device.place.reaches(node, symbols) {
                    continue;
                }
                let fits = answers.iter().try_fold(true, |fits, column| {
                    if fits { column.at(place, &device.variables) } else { Ok(false) }
                });
                if fits.ok()? {
                    let is_taken = self.is_taken(device.id) || self.shares(device.id).is_some();
                    all += 1;
                    taken += i64::from(is_taken);
                }
            }
        }
        (all > 0).then_some((all, taken))
    }

    /// What a pod needs of classes on a node: what the node does not offer itself.
    pub(crate) fn extended_claim(
        &self,
        pod: &PodInfo,
        node: &NodeInfo,
    ) -> Option<(ExtendedClaim, Claim)> {
        let extended = pod.extended.as_deref()?;
        let classes: BTreeMap<CompactString, CompactString> = extended
            .names()
            .filter(|name| node.facts.allocatable.get(name) == 0)
            .filter_map(|name| Some((name.clone(), self.class_for(name)?.into())))
            .collect();
        if classes.is_empty() {
            return None;
        }
        let mut plan = extended.ask(&classes);
        // No claim has such a name.
        let name = format!("<extended-resources> of {}", pod.key.name);
        plan.key = ObjectKey::namespaced(&pod.key.namespace, &name);
        let claim = Claim::for_requests(plan.key.clone(), pod.uid.clone(), &plan.requests);
        Some((plan, claim))
    }

    /// The claim that was made for a pod at an earlier try.
    pub(crate) fn stale_claim(&self, pod: &PodInfo) -> Option<&Claim> {
        let key = self.made_for.get(&pod.uid)?;
        self.claims.get(key).map(AsRef::as_ref)
    }

    /// Finds out anew which classes stand for which resources.
    pub(super) fn refresh_extended(&mut self) {
        self.standing_for.clear();
        let mut classes: Vec<_> = self.classes.iter().collect();
        classes.sort_by_key(|(name, class)| {
            let created = class.object.metadata.creation_timestamp.as_ref().map(|time| time.0);
            (std::cmp::Reverse(created), (*name).clone())
        });
        for (name, class) in classes {
            if let Some(resource) = &class.object.spec.extended_resource_name {
                self.standing_for.entry(resource.into()).or_insert_with(|| name.clone());
            }
        }
    }
}
