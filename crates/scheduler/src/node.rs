//! One node as decisions see it: what it says of itself and what its pods use.

use std::sync::Arc;

use compact_str::CompactString;
use k8s_openapi::api::core::v1::{Node, Taint as ApiTaint};
use smallvec::SmallVec;
use wharf_model::resources::Resources;
use wharf_model::{labels, taints};

use crate::pod::{HostPort, PodInfo};
use crate::requests::NonZero;
use crate::shape::Shape;
use crate::symbols::{Labels, Symbol, Symbols};

/// A node with the pods on it.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeInfo {
    /// What the Node object says.
    pub facts: Arc<NodeFacts>,
    /// What its pods ask for together; `pods` is their number.
    pub requested: Resources,
    /// The same of cpu and memory with the defaults for scoring.
    pub non_zero: NonZero,
    /// Pods on it, assumed ones included.
    pub pods: Vec<Arc<PodInfo>>,
    /// Host ports its pods hold, one entry per pod and port.
    pub ports: SmallVec<[HostPort; 2]>,
    /// How many volumes its pods use, counted once per pod: never fewer than are attached for them.
    pub(crate) volume_uses: u32,
    /// How many volume uses are within the limits of its drivers, whatever they are of.
    pub(crate) volume_room: u32,
}

/// What a Node object says, as far as scheduling goes.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeFacts {
    /// Name.
    pub name: CompactString,
    /// The name as a symbol.
    pub symbol: Symbol,
    /// What pods may use.
    pub allocatable: Resources,
    /// Labels.
    pub labels: Labels,
    /// Taints.
    pub taints: SmallVec<[Taint; 2]>,
    /// Whether it is cordoned.
    pub unschedulable: bool,
    /// Region and zone; nodes without both share one zone.
    pub zone: (Symbol, Symbol),
    /// The images it has with their sizes in bytes, sorted, each name once.
    pub images: Box<[(Symbol, i64)]>,
    /// The features it declares.
    pub features: Box<[Symbol]>,
}

/// A taint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taint {
    /// Key.
    pub key: Symbol,
    /// Value.
    pub value: Symbol,
    /// Effect.
    pub effect: Effect,
}

/// What a taint does to pods that do not tolerate it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// They are not placed there.
    NoSchedule,
    /// They are rather placed elsewhere.
    PreferNoSchedule,
    /// They are not placed there and those there are evicted.
    NoExecute,
    /// A word the API would have refused.
    Unknown,
}

impl Effect {
    /// The effect with that name.
    pub fn parse(text: &str) -> Self {
        match text {
            taints::NO_SCHEDULE => Self::NoSchedule,
            taints::PREFER_NO_SCHEDULE => Self::PreferNoSchedule,
            taints::NO_EXECUTE => Self::NoExecute,
            _ => Self::Unknown,
        }
    }

    /// Its name.
    pub fn word(self) -> &'static str {
        match self {
            Self::NoSchedule => taints::NO_SCHEDULE,
            Self::PreferNoSchedule => taints::PREFER_NO_SCHEDULE,
            Self::NoExecute => taints::NO_EXECUTE,
            Self::Unknown => "",
        }
    }
}

impl Taint {
    fn new(taint: &ApiTaint, symbols: &mut Symbols) -> Self {
        Self {
            key: symbols.intern(&taint.key),
            value: symbols.intern(taint.value.as_deref().unwrap_or_default()),
            effect: Effect::parse(&taint.effect),
        }
    }

    /// As kubectl prints it.
    pub(crate) fn display(&self, symbols: &Symbols) -> String {
        let value = Some(symbols.text(self.value).to_owned());
        let effect = self.effect.word().to_owned();
        let key = symbols.text(self.key).to_owned();
        taints::display(&ApiTaint { key, value, effect, time_added: None })
    }
}

impl NodeInfo {
    /// A node without pods.
    pub fn new(node: &Node, symbols: &mut Symbols) -> Self {
        Self::empty(NodeFacts::new(node, symbols))
    }

    /// A node of which these facts are known, without pods.
    pub fn empty(facts: impl Into<Arc<NodeFacts>>) -> Self {
        Self {
            facts: facts.into(),
            requested: Resources::default(),
            non_zero: NonZero::default(),
            pods: Vec::new(),
            ports: SmallVec::new(),
            volume_uses: 0,
            volume_room: u32::MAX,
        }
    }

    /// Counts a pod in.
    pub fn add(&mut self, pod: Arc<PodInfo>) {
        self.take_up(&pod);
        self.volume_uses += pod.volumes.as_ref().map_or(0, |volumes| volumes.uses_in_all());
        self.pods.push(pod);
    }

    /// Counts a pod out. Does nothing if this very copy of it is not here.
    pub fn remove(&mut self, pod: &Arc<PodInfo>) {
        // Comparing pointers looks at nothing of the other pods. The others keep their order.
        if let Some(index) = self.pods.iter().position(|other| Arc::ptr_eq(other, pod)) {
            self.pods.remove(index);
            self.give_up(pod);
            self.volume_uses -= pod.volumes.as_ref().map_or(0, |volumes| volumes.uses_in_all());
        }
    }

    /// The node with what its pods use, but without the list of them: all that node-local filters
    /// look at.
    pub(crate) fn without_pods(&self) -> Self {
        Self {
            facts: self.facts.clone(),
            requested: self.requested.clone(),
            non_zero: self.non_zero,
            pods: Vec::new(),
            ports: self.ports.clone(),
            volume_uses: self.volume_uses,
            volume_room: self.volume_room,
        }
    }

    /// Counts what a pod uses, without listing the pod.
    pub(crate) fn take_up(&mut self, pod: &Shape) {
        self.requested.add(&pod.amounts.requests);
        self.non_zero.cpu_milli += pod.amounts.non_zero.cpu_milli;
        self.non_zero.memory_bytes += pod.amounts.non_zero.memory_bytes;
        self.ports.extend(pod.host_ports.iter().copied());
    }

    /// Takes back what [`NodeInfo::take_up`] counted.
    pub(crate) fn give_up(&mut self, pod: &Shape) {
        self.requested.subtract(&pod.amounts.requests);
        // An extended resource nobody uses any more leaves no trace.
        self.requested.extended.retain(|(_, amount)| *amount != 0);
        self.non_zero.cpu_milli -= pod.amounts.non_zero.cpu_milli;
        self.non_zero.memory_bytes -= pod.amounts.non_zero.memory_bytes;
        for port in &pod.host_ports {
            if let Some(index) = self.ports.iter().position(|held| held == port) {
                self.ports.swap_remove(index);
            }
        }
    }
}

impl NodeFacts {
    /// Reads a Node.
    pub fn new(node: &Node, symbols: &mut Symbols) -> Self {
        let name = node.metadata.name.as_deref().unwrap_or_default();
        let spec = node.spec.as_ref();
        let allocatable = node.status.as_ref().and_then(|status| {
            let list = status.allocatable.as_ref().or(status.capacity.as_ref())?;
            Some(Resources::from_map(list).counted_by_scheduler())
        });
        let zone = zone(node, symbols);
        Self {
            name: name.into(),
            symbol: symbols.intern(name),
            allocatable: allocatable.unwrap_or_default(),
            labels: symbols.intern_labels(node.metadata.labels.iter().flatten()),
            taints: spec
                .iter()
                .flat_map(|spec| spec.taints.iter().flatten())
                .map(|taint| Taint::new(taint, symbols))
                .collect(),
            unschedulable: spec.is_some_and(|spec| spec.unschedulable == Some(true)),
            zone,
            images: images(node, symbols),
            features: node
                .status
                .iter()
                .flat_map(|status| status.declared_features.iter().flatten())
                .map(|feature| symbols.intern(feature))
                .collect(),
        }
    }

    /// What is known of a node that pods name but nobody has told of: its name.
    pub fn unknown(name: &str, symbols: &mut Symbols) -> Self {
        Self {
            name: name.into(),
            symbol: symbols.intern(name),
            allocatable: Resources::default(),
            labels: Labels::default(),
            taints: SmallVec::new(),
            unschedulable: false,
            zone: (Symbol::EMPTY, Symbol::EMPTY),
            images: Box::default(),
            features: Box::default(),
        }
    }
}

/// The images of a node by each of their names; of equal names the first counts.
fn images(node: &Node, symbols: &mut Symbols) -> Box<[(Symbol, i64)]> {
    let images = node.status.iter().flat_map(|status| status.images.iter().flatten());
    let mut named: Vec<_> = images
        .flat_map(|image| {
            let size = image.size_bytes.unwrap_or(0);
            image.names.iter().flatten().map(move |name| (name, size))
        })
        .map(|(name, size)| (symbols.intern(name), size))
        .collect();
    named.sort_by_key(|(name, _)| *name);
    named.dedup_by_key(|(name, _)| *name);
    named.into_boxed_slice()
}

/// Region and zone of a node; the beta labels win over the stable ones, as upstream has it.
fn zone(node: &Node, symbols: &mut Symbols) -> (Symbol, Symbol) {
    let own = node.metadata.labels.as_ref();
    let mut find = |names: [&str; 2]| {
        let value = own.and_then(|labels| names.iter().find_map(|name| labels.get(*name)));
        symbols.intern(value.map(String::as_str).unwrap_or_default())
    };
    (
        find([labels::TOPOLOGY_REGION_BETA, labels::TOPOLOGY_REGION]),
        find([labels::TOPOLOGY_ZONE_BETA, labels::TOPOLOGY_ZONE]),
    )
}
