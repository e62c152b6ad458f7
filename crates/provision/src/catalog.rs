//! A node class's instance types compiled for search: label columns, amounts in columns, offerings
//! as bits.
//!
//! Compiled once per node class and shared by every pool and simulation. A question such as "which
//! types satisfy this requirement" then costs one look-up per distinct value and one bit per type,
//! and "which of these hold so much" one comparison per remaining type; nothing is allocated per
//! pod and type.

use std::sync::Arc;

use compact_str::CompactString;
use fixedbitset::FixedBitSet;
use rustc_hash::FxHashMap;
use smallvec::SmallVec;
use wharf_model::instance_type::{CapacityType, InstanceType};
use wharf_model::labels;
use wharf_model::money::Price;
use wharf_model::requirements::Requirement;
use wharf_model::resources::Resources;

/// A set of instance types: bits by their position in a [`Catalog`].
pub type TypeSet = FixedBitSet;

/// A set of cells: which ways to buy are meant, one bit each.
pub type Cells = u64;

/// At most so many different ways to buy (capacity type × zone) are told apart: the bits of
/// [`Cells`]. The largest region has 6 zones and 3 capacity types; offerings beyond are not used.
pub const CELLS_MAX: usize = 64;

/// A way to buy a type: the same for every type that is sold so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cell {
    /// How it is paid for.
    pub capacity_type: CapacityType,
    /// Zone name.
    pub zone: CompactString,
    /// Zone id.
    pub zone_id: CompactString,
}

/// The four resources that every type has, as a column entry.
pub(crate) type Core = [i64; 4];

/// The compiled instance types of a node class.
#[derive(Debug)]
pub struct Catalog {
    types: Vec<InstanceType>,
    by_name: FxHashMap<Arc<str>, u32>,
    columns: Vec<LabelColumn>,
    cells: Vec<Cell>,
    /// Per type: the cells in which it can be launched now.
    available: Vec<Cells>,
    /// Per type and cell: the price; meaningless where the type is not sold.
    prices: Vec<Price>,
    /// Per type: the cells in which it is sold, whether available or not.
    sold: Vec<Cells>,
    allocatable: Vec<Core>,
}

/// One label key over all types: which of its distinct value lists each type has.
#[derive(Debug)]
struct LabelColumn {
    key: &'static str,
    lists: Vec<SmallVec<[CompactString; 1]>>,
    /// Per type: index into `lists`, or [`ABSENT`].
    entry: Vec<u16>,
}

const ABSENT: u16 = u16::MAX;

impl Catalog {
    /// Compiles types. Their order is kept; names must be unique.
    pub fn new(types: Vec<InstanceType>) -> Self {
        let mut cells: Vec<Cell> = Vec::new();
        for offering in types.iter().flat_map(|machine| &machine.offerings) {
            let same = |cell: &Cell| {
                cell.capacity_type == offering.capacity_type && cell.zone == offering.zone
            };
            if !cells.iter().any(same) && cells.len() < CELLS_MAX {
                cells.push(Cell {
                    capacity_type: offering.capacity_type,
                    zone: offering.zone.clone(),
                    zone_id: offering.zone_id.clone(),
                });
            }
        }
        cells.sort_by(|a, b| (a.capacity_type, &a.zone).cmp(&(b.capacity_type, &b.zone)));
        let mut catalog = Self {
            by_name: FxHashMap::default(),
            columns: label_columns(&types),
            available: vec![0; types.len()],
            sold: vec![0; types.len()],
            prices: vec![Price::ZERO; types.len() * cells.len()],
            allocatable: types.iter().map(|machine| core(&machine.allocatable)).collect(),
            cells,
            types: Vec::new(),
        };
        for (index, machine) in types.iter().enumerate() {
            catalog.by_name.insert(machine.name.clone(), index as u32);
            for offering in &machine.offerings {
                let cell = catalog.cells.iter().position(|cell| {
                    cell.capacity_type == offering.capacity_type && cell.zone == offering.zone
                });
                let Some(cell) = cell else { continue };
                catalog.sold[index] |= 1 << cell;
                catalog.prices[index * catalog.cells.len() + cell] = offering.price;
                if offering.available {
                    catalog.available[index] |= 1 << cell;
                }
            }
        }
        catalog.types = types;
        catalog
    }

    /// How many types there are.
    pub fn len(&self) -> usize {
        self.types.len()
    }

    /// Whether there is no type.
    pub fn is_empty(&self) -> bool {
        self.types.is_empty()
    }

    /// A type by position.
    pub fn get(&self, index: u32) -> &InstanceType {
        &self.types[index as usize]
    }

    /// A type's position.
    pub fn find(&self, name: &str) -> Option<u32> {
        self.by_name.get(name).copied()
    }

    /// The set of all types.
    pub fn all(&self) -> TypeSet {
        let mut all = TypeSet::with_capacity(self.len());
        all.insert_range(..);
        all
    }

    /// The ways to buy, in the order of [`Cells`]' bits: by capacity type, then zone.
    pub fn cells(&self) -> &[Cell] {
        &self.cells
    }

    /// Every cell.
    pub fn all_cells(&self) -> Cells {
        if self.cells.len() == CELLS_MAX { Cells::MAX } else { (1 << self.cells.len()) - 1 }
    }

    /// The cells that satisfy a requirement on zone, zone id or capacity type; every cell for any
    /// other key.
    pub fn cells_where(&self, requirement: &Requirement) -> Cells {
        let value: fn(&Cell) -> &str = match requirement.key.as_str() {
            labels::CAPACITY_TYPE => |cell| cell.capacity_type.as_str(),
            labels::TOPOLOGY_ZONE => |cell| &cell.zone,
            labels::TOPOLOGY_ZONE_ID => |cell| &cell.zone_id,
            _ => return self.all_cells(),
        };
        self.cells
            .iter()
            .enumerate()
            .filter(|(_, cell)| requirement.has(value(cell)))
            .fold(0, |cells, (bit, _)| cells | 1 << bit)
    }

    /// Takes away from `set` the types that cannot satisfy a requirement. A key that no type has
    /// takes none away: it is the pool's own label.
    pub fn retain_where(&self, set: &mut TypeSet, requirement: &Requirement) {
        let Some(column) = self.column(&requirement.key) else { return };
        // A type without the label has it as DoesNotExist, which only a negative requirement meets.
        let absent = requirement.operator().is_negative();
        let admitted: SmallVec<[bool; 64]> = column
            .lists
            .iter()
            .map(|list| list.iter().any(|value| requirement.has(value)))
            .collect();
        for (index, entry) in column.entry.iter().enumerate() {
            let keep = admitted.get(usize::from(*entry)).copied().unwrap_or(absent);
            if !keep {
                set.set(index, false);
            }
        }
    }

    /// Whether one type can satisfy a requirement.
    pub fn satisfies(&self, index: u32, requirement: &Requirement) -> bool {
        let Some(column) = self.column(&requirement.key) else { return true };
        match column.lists.get(usize::from(column.entry[index as usize])) {
            Some(list) => list.iter().any(|value| requirement.has(value)),
            None => requirement.operator().is_negative(),
        }
    }

    /// How many different values of `key`, of those the requirement admits, the types in `set` have.
    pub fn distinct_values(&self, set: &TypeSet, requirement: &Requirement) -> usize {
        let Some(column) = self.column(&requirement.key) else { return 0 };
        let mut lists: SmallVec<[bool; 64]> = SmallVec::from_elem(false, column.lists.len());
        for index in set.ones() {
            if let Some(seen) = lists.get_mut(usize::from(column.entry[index])) {
                *seen = true;
            }
        }
        let mut values: Vec<&str> = std::iter::zip(&column.lists, lists)
            .filter(|(_, seen)| *seen)
            .flat_map(|(list, _)| list.iter().map(CompactString::as_str))
            .filter(|value| requirement.has(value))
            .collect();
        values.sort_unstable();
        values.dedup();
        values.len()
    }

    /// The values of `key` that the types of `set` have, bought in `cells`.
    pub fn values_of(&self, key: &str, set: &TypeSet, cells: Cells) -> Vec<CompactString> {
        let of_cell: fn(&Cell) -> &str = match key {
            labels::CAPACITY_TYPE => |cell| cell.capacity_type.as_str(),
            labels::TOPOLOGY_ZONE => |cell| &cell.zone,
            labels::TOPOLOGY_ZONE_ID => |cell| &cell.zone_id,
            _ => {
                let Some(column) = self.column(key) else { return Vec::new() };
                let mut lists: Vec<u16> = set.ones().map(|index| column.entry[index]).collect();
                lists.sort_unstable();
                lists.dedup();
                let lists = lists.iter().filter_map(|list| column.lists.get(usize::from(*list)));
                let mut values: Vec<CompactString> = lists.flatten().cloned().collect();
                values.sort_unstable();
                values.dedup();
                return values;
            }
        };
        let sold = set.ones().fold(0, |all, index| all | self.available[index] & cells);
        let mut values: Vec<CompactString> =
            bits(sold).map(|cell| of_cell(&self.cells[cell]).into()).collect();
        values.sort_unstable();
        values.dedup();
        values
    }

    /// The cells in which a type can be launched now.
    pub fn available(&self, index: u32) -> Cells {
        self.available[index as usize]
    }

    /// A type's price in a cell, available there or not; `None` where it is not sold.
    pub fn price(&self, index: u32, cell: usize) -> Option<Price> {
        (self.sold[index as usize] >> cell & 1 == 1)
            .then(|| self.prices[index as usize * self.cells.len() + cell])
    }

    /// A type's cheapest available price in `cells`.
    pub fn cheapest(&self, index: u32, cells: Cells) -> Option<Price> {
        self.prices_in(index, cells).min()
    }

    /// The most a launch of the type in `cells` may cost: the dearest offering of the capacity type
    /// that would be used (the first available in the order reserved, spot, on-demand), since where
    /// it lands within that is the provider's choice. `None` if it is not available.
    pub fn worst_launch_price(&self, index: u32, cells: Cells) -> Option<Price> {
        CapacityType::ALL.into_iter().find_map(|capacity_type| {
            self.prices_in(index, cells & self.cells_of(capacity_type)).max()
        })
    }

    /// The cells of a capacity type.
    pub fn cells_of(&self, capacity_type: CapacityType) -> Cells {
        let same = |cell: &Cell| cell.capacity_type == capacity_type;
        self.cells.iter().enumerate().fold(
            0,
            |cells, (bit, cell)| {
                if same(cell) { cells | 1 << bit } else { cells }
            },
        )
    }

    /// What a node of a type in a zone costs, bought so; `None` if the type is not sold so.
    pub fn node_price(&self, name: &str, capacity_type: CapacityType, zone: &str) -> Option<Price> {
        let cell = self
            .cells
            .iter()
            .position(|cell| cell.capacity_type == capacity_type && cell.zone == zone)?;
        self.price(self.find(name)?, cell)
    }

    /// The types of `set` that are available in `cells`, cheapest first, equal prices by name.
    pub fn by_price(&self, set: &TypeSet, cells: Cells) -> Vec<u32> {
        let mut priced: Vec<(Price, u32)> = set
            .ones()
            .filter_map(|index| Some((self.cheapest(index as u32, cells)?, index as u32)))
            .collect();
        priced.sort_unstable_by(|a, b| {
            a.0.cmp(&b.0).then_with(|| self.get(a.1).name.cmp(&self.get(b.1).name))
        });
        priced.into_iter().map(|(_, index)| index).collect()
    }

    pub(crate) fn allocatable(&self) -> &[Core] {
        &self.allocatable
    }

    fn prices_in(&self, index: u32, cells: Cells) -> impl Iterator<Item = Price> {
        let row = index as usize * self.cells.len();
        bits(self.available[index as usize] & cells).map(move |cell| self.prices[row + cell])
    }

    fn column(&self, key: &str) -> Option<&LabelColumn> {
        self.columns.binary_search_by(|column| column.key.cmp(key)).ok().map(|at| &self.columns[at])
    }
}

/// The positions of the bits that are set.
pub(crate) fn bits(mut cells: Cells) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let bit = cells.trailing_zeros();
        cells &= cells.wrapping_sub(1);
        (bit < Cells::BITS).then_some(bit as usize)
    })
}

pub(crate) fn core(resources: &Resources) -> Core {
    [resources.cpu_milli, resources.memory_bytes, resources.ephemeral_storage_bytes, resources.pods]
}

fn label_columns(types: &[InstanceType]) -> Vec<LabelColumn> {
    let mut keys: Vec<&'static str> =
        types.iter().flat_map(|machine| &machine.labels).map(|label| label.key).collect();
    keys.sort_unstable();
    keys.dedup();
    keys.into_iter().map(|key| label_column(key, types)).collect()
}

fn label_column(key: &'static str, types: &[InstanceType]) -> LabelColumn {
    let mut seen: FxHashMap<&[CompactString], u16> = FxHashMap::default();
    let mut lists = Vec::new();
    let entry = types
        .iter()
        .map(|machine| {
            let values = machine.label_values(key);
            if values.is_empty() {
                return ABSENT;
            }
            *seen.entry(values).or_insert_with(|| {
                lists.push(SmallVec::from(values));
                (lists.len() - 1).min(usize::from(ABSENT) - 1) as u16
            })
        })
        .collect();
    LabelColumn { key, lists, entry }
}
