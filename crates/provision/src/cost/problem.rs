//! The packing problem without Kubernetes: classes of equal pods, kinds of machines, amounts.

use smallvec::SmallVec;

/// So many resources are told apart: the four that every type has, and extended ones.
pub(crate) const DIMS_MAX: usize = 8;

/// So many different sets of machines that pods may use are told apart.
pub(crate) const SETS_MAX: usize = 128;

/// An amount of each resource.
pub(crate) type Amounts = [i64; DIMS_MAX];

/// Equal pods.
#[derive(Clone, Debug)]
pub(crate) struct Class {
    /// What each asks for.
    pub(crate) need: Amounts,
    /// Which machines it may use: a bit of [`Kind::sets`].
    pub(crate) set: u8,
    /// How many there are.
    pub(crate) count: u32,
    /// What it has to do with other pods on the same machine.
    pub(crate) hosts: SmallVec<[HostRule; 2]>,
}

/// What a class has to do with a group of pods on its machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct HostRule {
    /// The group.
    pub(crate) group: u32,
    /// The most pods of the group that it tolerates on its machine, itself included.
    pub(crate) most: u32,
    /// Whether it is of the group.
    pub(crate) counts: bool,
}

/// A machine that can be bought.
#[derive(Clone, Debug)]
pub(crate) struct Kind {
    /// Index of the pool.
    pub(crate) pool: usize,
    /// Index of the type in the pool's catalogue.
    pub(crate) index: u32,
    /// Price in nano-dollars an hour.
    pub(crate) price: i64,
    /// What it has for pods.
    pub(crate) room: Amounts,
    /// The sets it belongs to.
    pub(crate) sets: u128,
}

/// Which classes go on which kinds of machines?
#[derive(Clone, Debug, Default)]
pub(crate) struct Problem {
    /// How many resources count.
    pub(crate) dims: usize,
    pub(crate) classes: Vec<Class>,
    /// By price, cheapest first.
    pub(crate) kinds: Vec<Kind>,
    /// How many groups host rules name.
    pub(crate) groups: usize,
}

/// A machine with pods.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Bin {
    pub(crate) kind: u32,
    /// Classes and how many of each.
    pub(crate) content: Vec<(u32, u32)>,
}

impl Class {
    /// Whether it minds who else is on its machine.
    pub(crate) fn is_particular(&self) -> bool {
        self.hosts.iter().any(|rule| rule.most < u32::MAX)
    }

    /// Classes with the same are weighed alike; they should follow each other.
    pub(crate) fn kinship(&self) -> (u8, bool, Amounts) {
        (self.set, self.is_particular(), self.need)
    }
}

impl Problem {
    /// Takes away kinds that another is at least as good as in every respect.
    pub(crate) fn drop_dominated(&mut self) {
        self.kinds.sort_by_key(|kind| kind.price);
        let dims = self.dims;
        let mut kept: Vec<Kind> = Vec::new();
        for kind in std::mem::take(&mut self.kinds) {
            let as_good = |other: &Kind| {
                kind.sets & !other.sets == 0 && (0..dims).all(|at| kind.room[at] <= other.room[at])
            };
            if !kept.iter().any(as_good) {
                kept.push(kind);
            }
        }
        self.kinds = kept;
    }

    /// What a bin's content needs, and the sets its pods are of.
    pub(crate) fn load(&self, content: &[(u32, u32)]) -> (Amounts, u128) {
        let mut total = [0; DIMS_MAX];
        let mut sets = 0;
        for (class, count) in content {
            let class = &self.classes[*class as usize];
            for (total, need) in total.iter_mut().zip(&class.need) {
                *total += need * i64::from(*count);
            }
            sets |= 1 << class.set;
        }
        (total, sets)
    }

    /// The cheapest kind that holds so much for pods of these sets.
    pub(crate) fn cheapest(&self, load: &Amounts, sets: u128) -> Option<u32> {
        let holds = |kind: &Kind| {
            sets & !kind.sets == 0 && (0..self.dims).all(|at| load[at] <= kind.room[at])
        };
        self.kinds.iter().position(holds).map(|at| at as u32)
    }

    /// What bins cost together.
    pub(crate) fn cost(&self, bins: &[Bin]) -> i64 {
        bins.iter().map(|bin| self.kinds[bin.kind as usize].price).sum()
    }
}
