//! EndpointSlices: endpoints stay in the slice they are in, new ones fill up what has room, and what is
//! empty goes. A slice's name follows from its Service, so that a creation repeated is refused as such.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use wharf_model::kinds::Kind;
use wharf_model::object::ObjectKey;
use wharf_model::random::{Random, fnv1a};
use wharf_ports::cluster::{Delete, Part, Propagation, Write};

use super::members::{Port, is_headless};
use crate::workloads::controller_reference;

/// The label that names a slice's Service.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// The label that names who writes a slice.
pub const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
/// The name of this controller there.
pub const MANAGER: &str = "endpointslice-controller.k8s.io";
/// The label of what belongs to a Service without an address.
pub(super) const HEADLESS: &str = "service.kubernetes.io/headless";
/// The most endpoints in a slice: `--max-endpoints-per-slice`.
pub const ENDPOINTS_MAX: usize = 100;

/// What to write so that a Service's slices have these endpoints: first what is new, then what changes,
/// last what goes, so that no endpoint is ever in none.
pub(super) fn plan(
    service: &Service,
    mut wanted: BTreeMap<Vec<Port>, Vec<Endpoint>>,
    existing: &[&EndpointSlice],
) -> Vec<Write> {
    if wanted.is_empty() {
        // A Service without a pod has one empty slice.
        wanted.insert(Vec::new(), Vec::new());
    }
    let labels = labels(service);
    let (mut made, mut updates, mut deletes) = (Vec::new(), Vec::new(), Vec::new());
    for slice in existing.iter().filter(|slice| !wanted.contains_key(&ports_of(slice))) {
        deletes.push(delete(slice));
    }
    for (ports, endpoints) in wanted {
        let own = existing.iter().copied().filter(|slice| ports_of(slice) == ports);
        let is_placeholder = endpoints.is_empty();
        let (kept, new) = assign(endpoints, own);
        let mut has_placeholder = false;
        for (slice, endpoints) in kept {
            if endpoints.is_empty() && (!is_placeholder || has_placeholder) {
                deletes.push(delete(slice));
                continue;
            }
            has_placeholder = true;
            let held = slice.endpoints.as_deref().unwrap_or_default();
            if endpoints != held || slice.metadata.labels.as_ref() != Some(&labels) {
                let mut draft = slice.clone();
                draft.endpoints = Some(endpoints);
                draft.metadata.labels = Some(labels.clone());
                updates.push(Write::Update { object: Box::new(draft), part: Part::Main });
            }
        }
        if is_placeholder && !has_placeholder {
            made.push((ports.clone(), Vec::new()));
        }
        made.extend(new.into_iter().map(|endpoints| (ports.clone(), endpoints)));
    }
    let taken: BTreeSet<&str> =
        existing.iter().filter_map(|slice| slice.metadata.name.as_deref()).collect();
    let names = (0..).map(|number| name_of(service, number));
    let free = names.filter(|name| !taken.contains(name.as_str()));
    let creations = made.into_iter().zip(free).map(|((ports, endpoints), name)| {
        Write::Create(Box::new(slice(service, name, &labels, &ports, endpoints)))
    });
    creations.chain(updates).chain(deletes).collect()
}

/// A slice that there is, and the endpoints it will have.
type Kept<'s> = (&'s EndpointSlice, Vec<Endpoint>);

/// Endpoints stay where they are; others fill up what has room, and what is left gets slices of its own.
fn assign<'s>(
    endpoints: Vec<Endpoint>,
    existing: impl Iterator<Item = &'s EndpointSlice>,
) -> (Vec<Kept<'s>>, Vec<Vec<Endpoint>>) {
    let uid = |endpoint: &Endpoint| {
        endpoint.target_ref.as_ref().and_then(|of| of.uid.clone()).unwrap_or_default()
    };
    let mut rest: BTreeMap<String, Endpoint> =
        endpoints.into_iter().map(|endpoint| (uid(&endpoint), endpoint)).collect();
    let mut kept: Vec<Kept<'s>> = existing
        .map(|slice| {
            let held = slice.endpoints.iter().flatten().take(ENDPOINTS_MAX);
            (slice, held.filter_map(|held| rest.remove(&uid(held))).collect())
        })
        .collect();
    let mut rest: Vec<Endpoint> = rest.into_values().collect();
    rest.reverse();
    for (_, endpoints) in kept.iter_mut().filter(|(_, endpoints)| !endpoints.is_empty()) {
        while endpoints.len() < ENDPOINTS_MAX
            && let Some(endpoint) = rest.pop()
        {
            endpoints.push(endpoint);
        }
    }
    // A slice that has lost all its own is as good as a new one.
    for (_, endpoints) in kept.iter_mut().filter(|(_, endpoints)| endpoints.is_empty()) {
        while endpoints.len() < ENDPOINTS_MAX
            && let Some(endpoint) = rest.pop()
        {
            endpoints.push(endpoint);
        }
    }
    rest.reverse();
    (kept, rest.chunks(ENDPOINTS_MAX).map(<[Endpoint]>::to_vec).collect())
}

fn ports_of(slice: &EndpointSlice) -> Vec<Port> {
    slice.ports.iter().flatten().map(Port::from_api).collect()
}

fn delete(slice: &EndpointSlice) -> Write {
    Write::Delete(Delete {
        kind: Kind::of::<EndpointSlice>(),
        key: ObjectKey::of(&slice.metadata),
        uid: slice.metadata.uid.as_deref().map(Into::into),
        revision: None,
        grace_seconds: None,
        propagation: Propagation::Background,
    })
}

/// The Service's own labels, and those that say what the slice is.
fn labels(service: &Service) -> BTreeMap<String, String> {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.insert(SERVICE_NAME.to_owned(), service.metadata.name.clone().unwrap_or_default());
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    labels.remove(HEADLESS);
    if is_headless(service) {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    labels
}

/// `web-x2k9p`: as generated names read, but drawn from the Service and a number.
fn name_of(service: &Service, number: u64) -> String {
    let uid = service.metadata.uid.as_deref().unwrap_or_default();
    let suffix = Random::new(number, fnv1a(uid.as_bytes())).name_suffix();
    format!("{}-{suffix}", service.metadata.name.as_deref().unwrap_or_default())
}

fn slice(
    service: &Service,
    name: String,
    labels: &BTreeMap<String, String>,
    ports: &[Port],
    endpoints: Vec<Endpoint>,
) -> EndpointSlice {
    EndpointSlice {
        metadata: ObjectMeta {
            name: Some(name),
            generate_name: service.metadata.name.as_ref().map(|name| format!("{name}-")),
            namespace: service.metadata.namespace.clone(),
            labels: Some(labels.clone()),
            owner_references: Some(vec![controller_reference(service)]),
            ..ObjectMeta::default()
        },
        address_type: "IPv4".to_owned(),
        endpoints: Some(endpoints),
        ports: Some(ports.iter().map(Port::to_api).collect()),
    }
}
