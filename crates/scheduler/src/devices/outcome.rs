//! What a search has found, as `status.allocation` of claims tells it.

use compact_str::CompactString;
use k8s_openapi::api::core::v1::{NodeSelector, NodeSelectorRequirement, NodeSelectorTerm};
use k8s_openapi::api::resource::v1::{
    AllocationResult, DeviceAllocationConfiguration, DeviceAllocationResult,
    DeviceRequestAllocationResult,
};
use wharf_model::quantity::Quantity;
use wharf_model::random::Random;

use super::allocate::{Search, Taken};
use super::objects::{Alternative, Claim};
use super::slices::{Device, Place};
use crate::node::NodeInfo;

/// Alternatives of a request that upstream's score tells apart.
const ALTERNATIVES_MAX: i64 = 8;

impl Search<'_> {
    /// What has been found, by claim. The time of the allocation is whoever's who writes it.
    pub(super) fn found(&self, node: &NodeInfo) -> Vec<AllocationResult> {
        let allocations = (0..self.claims.len()).map(|index| {
            let claim = self.claims[index];
            let chosen = self.chosen(index);
            let mut results = Vec::new();
            let mut selector = Selector::default();
            for (number, alternative) in &chosen {
                let chosen = &claim.requests[*number].alternatives[*alternative];
                for taken in
                    self.taken.iter().filter(|it| self.requests[it.request] == (index, *number))
                {
                    let device = self.devices[taken.device].device;
                    selector.add(device, node);
                    results.push(result(claim, chosen, device, taken, results.len()));
                }
            }
            let config = self.config(claim, &chosen);
            AllocationResult {
                allocation_timestamp: None,
                devices: Some(DeviceAllocationResult {
                    config: (!config.is_empty()).then_some(config),
                    results: (!results.is_empty()).then_some(results),
                }),
                node_selector: selector.finish(),
            }
        });
        allocations.collect()
    }

    /// The sum over prioritised lists of [`ALTERNATIVES_MAX`] less the place of what was chosen.
    pub(super) fn score(&self) -> i64 {
        let of_claim = |index: usize| {
            let claim = self.claims[index];
            let prioritised = |(number, _): &(usize, usize)| claim.requests[*number].is_prioritised;
            let chosen = self.chosen(index).into_iter().filter(prioritised);
            let place = |place| i64::try_from(place).unwrap_or(ALTERNATIVES_MAX);
            chosen.map(|(_, alternative)| ALTERNATIVES_MAX - place(alternative)).sum::<i64>()
        };
        let claims = self.claims.iter().enumerate();
        claims.filter(|(_, claim)| claim.is_prioritised()).map(|(index, _)| of_claim(index)).sum()
    }

    /// The requests of a claim, each with the alternative that was chosen.
    fn chosen(&self, claim: usize) -> Vec<(usize, usize)> {
        let mut chosen: Vec<(usize, usize)> = Vec::new();
        for taken in &self.taken {
            let (of, request) = self.requests[taken.request];
            if of == claim && chosen.last().is_none_or(|(last, _)| *last != request) {
                chosen.push((request, taken.alternative));
            }
        }
        chosen
    }

    /// What goes with the devices: a class's configuration once for all its requests, then the
    /// claim's, which upstream repeats for each request that it names.
    fn config(
        &self,
        claim: &Claim,
        chosen: &[(usize, usize)],
    ) -> Vec<DeviceAllocationConfiguration> {
        let mut config: Vec<DeviceAllocationConfiguration> = Vec::new();
        let mut of_classes: Vec<(&CompactString, std::ops::Range<usize>)> = Vec::new();
        for (request, alternative) in chosen {
            let chosen = &claim.requests[*request].alternatives[*alternative];
            let known = of_classes.iter().find(|(class, _)| **class == chosen.class);
            if let Some((_, range)) = known {
                for it in &mut config[range.clone()] {
                    it.requests.get_or_insert_default().push(chosen.name.to_string());
                }
                continue;
            }
            let start = config.len();
            let class = self.owners.class(&chosen.class);
            let of_class = class.into_iter().flat_map(|it| it.object.spec.config.iter().flatten());
            config.extend(of_class.map(|it| DeviceAllocationConfiguration {
                source: "FromClass".to_owned(),
                requests: Some(vec![chosen.name.to_string()]),
                opaque: it.opaque.clone(),
            }));
            of_classes.push((&chosen.class, start..config.len()));
        }
        for it in claim.spec.config.iter().flatten() {
            let names = it.requests.as_deref().unwrap_or_default();
            let times = if names.is_empty() {
                1
            } else {
                let named = |(request, alternative): &&(usize, usize)| {
                    let request = &claim.requests[*request];
                    let chosen = &request.alternatives[*alternative];
                    names.iter().any(|name| *name == request.name || *name == chosen.name)
                };
                chosen.iter().filter(named).count()
            };
            for _ in 0..times {
                config.push(DeviceAllocationConfiguration {
                    source: "FromClaim".to_owned(),
                    requests: it.requests.clone(),
                    opaque: it.opaque.clone(),
                });
            }
        }
        config
    }
}

fn result(
    claim: &Claim,
    chosen: &Alternative,
    device: &Device,
    taken: &Taken,
    index: usize,
) -> DeviceRequestAllocationResult {
    let share = taken.share.as_deref();
    let consumed = share.filter(|amounts| !amounts.is_empty()).map(|amounts| {
        let amounts = amounts.iter();
        amounts.map(|(name, amount)| (name.to_string(), Quantity::to_api(amount))).collect()
    });
    DeviceRequestAllocationResult {
        request: chosen.name.to_string(),
        driver: device.driver.to_string(),
        pool: device.pool.to_string(),
        device: device.name.to_string(),
        admin_access: chosen.admin.then_some(true),
        tolerations: (!chosen.tolerations.is_empty()).then(|| chosen.tolerations.clone()),
        binding_conditions: device.binding_conditions.clone(),
        binding_failure_conditions: device.binding_failure_conditions.clone(),
        share_id: share.map(|_| share_id(claim, index)),
        consumed_capacity: consumed,
    }
}

/// The name of a claim's share of a device: no other claim has the same, nor has this one for
/// another of its devices. Upstream draws it.
fn share_id(claim: &Claim, index: usize) -> String {
    Random::for_purpose(0, &format!("share {index} of {} {}", claim.key, claim.uid)).uuid()
}

/// The nodes that reach all of a claim's devices.
#[derive(Default)]
struct Selector {
    node: Option<String>,
    term: NodeSelectorTerm,
}

impl Selector {
    fn add(&mut self, device: &Device, node: &NodeInfo) {
        if device.binds_to_node {
            self.node = Some(node.facts.name.to_string());
        }
        match &device.place {
            Place::Nowhere | Place::Everywhere => {}
            Place::Node(_) => self.node = Some(node.facts.name.to_string()),
            // The API allows slices but one term.
            Place::Nodes(_, selector) => {
                for term in selector.node_selector_terms.iter().take(1) {
                    let add = |to: &mut Option<Vec<NodeSelectorRequirement>>,
                               from: &Option<Vec<_>>| {
                        for one in from.iter().flatten() {
                            let known = to.get_or_insert_default();
                            if !known.contains(one) {
                                known.push(one.clone());
                            }
                        }
                    };
                    add(&mut self.term.match_expressions, &term.match_expressions);
                    add(&mut self.term.match_fields, &term.match_fields);
                }
            }
        }
    }

    fn finish(self) -> Option<NodeSelector> {
        let term = match self.node {
            Some(node) => NodeSelectorTerm {
                match_fields: Some(vec![NodeSelectorRequirement {
                    key: "metadata.name".to_owned(),
                    operator: "In".to_owned(),
                    values: Some(vec![node]),
                }]),
                match_expressions: None,
            },
            None => self.term,
        };
        let is_empty = term.match_fields.is_none() && term.match_expressions.is_none();
        (!is_empty).then(|| NodeSelector { node_selector_terms: vec![term] })
    }
}
