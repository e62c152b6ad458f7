//! Recorded batches: pods and a pool in an empty cluster, and what is bought for them.
//!
//! The form is that of `wharf verify provision` (see docs/provisioning.md). A case holds no machine
//! types; the caller brings those of a catalogue.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;
use wharf_model::instance_type::{CapacityType, InstanceType};
use wharf_model::karpenter::NodePool;
use wharf_model::labels;
use wharf_model::money::Price;
use wharf_model::object::ObjectKey;
use wharf_model::requirements::{Malformed, Requirement, Requirements};
use wharf_model::resources::Resources;
use wharf_model::selector::Selector;
use wharf_model::time::Time;

use crate::catalog::Catalog;
use crate::pod::{Constraints, Origin, PodRequest};
use crate::pool::{Daemon, Pool};
use crate::solve::{Settings, Solver};
use crate::terms::{TopologyKind, TopologyTerm};

const MIB: i64 = 1 << 20;

/// A batch of pods and the pool that may buy for them.
#[derive(Clone, Debug, Deserialize)]
pub struct Case {
    /// What it is called.
    #[serde(default)]
    pub name: String,
    /// The region whose catalogue sells them.
    #[serde(default = "us_east_1")]
    pub region: String,
    /// The zones in which machines can be bought.
    pub zones: Vec<String>,
    /// The price of spot as a part of the list price; 0 for none.
    #[serde(default)]
    pub spot_factor: f64,
    /// The pool's manifest.
    pub nodepool: NodePool,
    /// Pods that every machine must hold besides.
    #[serde(default)]
    pub daemonsets: Vec<PodGroup>,
    /// The pods.
    pub pod_groups: Vec<PodGroup>,
}

/// Pods that are alike.
#[derive(Clone, Debug, Deserialize)]
pub struct PodGroup {
    /// What they are called.
    pub name: String,
    /// How many.
    #[serde(default = "one")]
    pub count: u32,
    /// Cpu request of each, in thousandths.
    #[serde(default)]
    pub cpu_m: i64,
    /// Memory request of each, in MiB.
    #[serde(default)]
    pub memory_mib: i64,
    /// Labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Node selector.
    #[serde(default)]
    pub node_selector: BTreeMap<String, String>,
    /// Spread constraints, DoNotSchedule.
    #[serde(default)]
    pub spread: Vec<Term>,
    /// Required affinity.
    #[serde(default)]
    pub affinity: Vec<Term>,
    /// Required anti-affinity.
    #[serde(default)]
    pub anti_affinity: Vec<Term>,
}

/// A spread constraint or a term of affinity.
#[derive(Clone, Debug, Deserialize)]
pub struct Term {
    /// The topology key.
    pub key: String,
    /// Of a spread: the skew.
    #[serde(default = "one")]
    pub max_skew: u32,
    /// The labels of the pods that are meant.
    #[serde(default)]
    pub selector: BTreeMap<String, String>,
}

/// What is bought.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Answer {
    /// What it costs.
    pub usd_per_hour: f64,
    /// The machines.
    pub machines: Vec<Machine>,
    /// The pods that found no place, by group.
    pub unplaced: BTreeMap<String, u32>,
}

/// A machine that is bought.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Machine {
    /// Its type.
    #[serde(rename = "type")]
    pub instance_type: String,
    /// Its zone.
    pub zone: String,
    /// How it is paid for.
    pub capacity_type: String,
    /// What it costs.
    pub usd_per_hour: f64,
    /// Its pods by group.
    pub pods: BTreeMap<String, u32>,
}

fn us_east_1() -> String {
    "us-east-1".to_owned()
}

const fn one() -> u32 {
    1
}

impl Case {
    /// A catalogue's types as this case sells them: in its zones, spot at its part of the list
    /// price.
    pub fn types(&self, mut types: Vec<InstanceType>) -> Vec<InstanceType> {
        let millionths = (self.spot_factor * 1e6).round() as u32;
        for machine in &mut types {
            machine
                .offerings
                .retain(|offering| self.zones.iter().any(|zone| *zone == offering.zone));
            let list = |zone: &str| {
                machine
                    .offerings
                    .iter()
                    .filter(|offering| offering.capacity_type == CapacityType::OnDemand)
                    .find(|offering| offering.zone == zone)
                    .map(|offering| offering.price)
            };
            let lists: BTreeMap<String, Price> =
                self.zones.iter().filter_map(|zone| Some((zone.clone(), list(zone)?))).collect();
            machine.offerings.retain_mut(|offering| {
                if offering.capacity_type != CapacityType::Spot {
                    return true;
                }
                let Some(list) = lists.get(offering.zone.as_str()) else { return false };
                offering.price = list.scale(millionths, 1_000_000);
                millionths > 0
            });
        }
        types.retain(|machine| !machine.offerings.is_empty());
        types
    }

    /// The pool, selling these types.
    ///
    /// # Errors
    /// If one of its requirements is malformed.
    pub fn pool(&self, types: Vec<InstanceType>) -> Result<Pool, Malformed> {
        let requirements = self.nodepool.template_requirements();
        let requirements = requirements.iter().map(|entry| {
            Requirement::parse(&entry.key, &entry.operator, &entry.values, entry.min_values)
        });
        let daemons = self.daemonsets.iter().flat_map(|group| {
            let daemon = Daemon {
                requests: group.requests(),
                alternatives: vec![Requirements::from_labels(&group.node_selector)],
                tolerations: Vec::new(),
                ports: Vec::new(),
            };
            std::iter::repeat_n(daemon, group.count as usize)
        });
        Ok(Pool {
            name: self.nodepool.metadata.name.as_deref().unwrap_or("default").into(),
            weight: self.nodepool.spec.weight.unwrap_or(0),
            catalog: Arc::new(Catalog::new(types)),
            requirements: requirements.collect::<Result<_, _>>()?,
            taints: self.nodepool.spec.template.spec.taints.clone(),
            remaining: Vec::new(),
            daemons: daemons.collect(),
        })
    }

    /// The pods, in the order of their groups.
    pub fn pods(&self) -> Vec<PodRequest> {
        let mut pods = Vec::new();
        for group in &self.pod_groups {
            let labels = Arc::new(group.labels.clone());
            let constraints = Arc::new(group.constraints());
            for number in 0..group.count {
                pods.push(PodRequest {
                    key: ObjectKey::namespaced("default", format!("{}-{number}", group.name)),
                    uid: format!("{:08}", pods.len()).into(),
                    created: Time::EPOCH,
                    requests: group.requests(),
                    labels: Arc::clone(&labels),
                    constraints: Arc::clone(&constraints),
                    origin: Origin::Pending,
                });
            }
        }
        pods
    }

    /// What is bought for the pods; `types` are a catalogue's.
    ///
    /// # Errors
    /// If the pool is malformed.
    pub fn answer(
        &self,
        types: Vec<InstanceType>,
        settings: Settings,
    ) -> Result<Answer, Malformed> {
        let pool = self.pool(self.types(types))?;
        let pods = self.pods();
        let mut solver = Solver::new(vec![pool], Vec::new(), settings);
        let solution = solver.solve(&pods);
        let mut group_of = Vec::with_capacity(pods.len());
        for (index, group) in self.pod_groups.iter().enumerate() {
            group_of.extend(std::iter::repeat_n(index, group.count as usize));
        }
        let by_group = |pods: &mut dyn Iterator<Item = u32>| {
            let mut counts: BTreeMap<String, u32> = BTreeMap::new();
            for pod in pods {
                let group = &self.pod_groups[group_of[pod as usize]];
                *counts.entry(group.name.clone()).or_default() += 1;
            }
            counts
        };
        let catalog = &solver.pool(0).catalog;
        let (mut machines, mut total) = (Vec::new(), Price::ZERO);
        for claim in &solution.claims {
            let (index, cell, price) = claim.launch(catalog);
            let cell = &catalog.cells()[cell];
            total = total.saturating_add(price);
            machines.push(Machine {
                instance_type: catalog.get(index).name.to_string(),
                zone: cell.zone.to_string(),
                capacity_type: cell.capacity_type.as_str().to_owned(),
                usd_per_hour: dollars(price),
                pods: by_group(&mut claim.pods.iter().copied()),
            });
        }
        Ok(Answer {
            usd_per_hour: dollars(total),
            machines,
            unplaced: by_group(&mut solution.failed.iter().map(|(pod, _)| *pod)),
        })
    }
}

impl PodGroup {
    fn requests(&self) -> Resources {
        Resources {
            cpu_milli: self.cpu_m,
            memory_bytes: self.memory_mib.saturating_mul(MIB),
            pods: 1,
            ..Resources::default()
        }
    }

    fn constraints(&self) -> Constraints {
        let spread = |term: &Term| TopologyKind::Spread {
            max_skew: i64::from(term.max_skew),
            min_domains: None,
            honor_affinity: true,
            honor_taints: false,
        };
        let spreads = self.spread.iter().map(|term| (spread(term), term));
        let affinity = self.affinity.iter().map(|term| (TopologyKind::Affinity, term));
        let anti = self.anti_affinity.iter().map(|term| (TopologyKind::AntiAffinity, term));
        let topology = spreads.chain(affinity).chain(anti).map(|(kind, term)| {
            Arc::new(TopologyTerm {
                kind,
                key: labels::normalize(&term.key).into(),
                namespaces: SmallVec::from_iter(["default".into()]),
                selector: Selector::from_map(&term.selector),
                preference: None,
            })
        });
        Constraints {
            selector: Requirements::from_labels(&self.node_selector),
            topology: topology.collect(),
            ..Constraints::default()
        }
    }
}

/// A price in dollars, to the last digit that floating point keeps apart.
pub fn dollars(price: Price) -> f64 {
    price.nano_dollars_per_hour() as f64 / 1e9
}
