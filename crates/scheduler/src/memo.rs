//! What nodes have answered, kept from one decision to the next.
//!
//! Most pending pods are one of many of the same [`Shape`], and between two decisions a node or two
//! has changed. What node-local filters and scorers say of a shape is therefore kept in flat lists
//! with an entry for every node, one [`Page`] per shape and priority, and forgotten node by node as
//! the snapshot's journal tells. Entries are made when they are first asked for. A decision becomes
//! a scan over integers; plugins that look beyond the node are asked as ever, after it.
//!
//! Nothing here decides: with a memo, without one, or with one of another cluster the decisions
//! are the same. A page holds what [`Plan::check_with`] has said with the local filters, nominated
//! pods of at least the page's priority counted in, so that the node and the shape are all it
//! depends on.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::cycle::Plan;
use crate::journal::Bookmark;
use crate::node::NodeInfo;
use crate::plugins::Rejection;
use crate::pod::PodInfo;
use crate::preemption::{Cost, Outcome};
use crate::profile::{Plugin, Profile};
use crate::shape::Shape;
use crate::snapshot::{NodeIndex, Snapshot};

/// The memory that pages may take up, if nothing else is asked for. Of 5,000 nodes this holds some
/// three hundred shapes.
const BYTES_MAX: usize = 64 << 20;
/// The most pages, however small: to find the one to give up all are looked at.
const PAGES_MAX: usize = 1024;
/// How many shapes are known by sight. A page is made for the second pod of a shape: there may be
/// no second one.
const SEEN_MAX: usize = 4096;
/// How many uses of a page count. What is hot now is soon worth more than what was once; and of shapes
/// that take turns, one in so many turns takes a page from another.
const USES_COUNTED: u8 = 62;
/// By how many uses more another shape must have been seen before it takes a page from a shape. With
/// one, shapes that take turns would take each other's pages before their turn comes again.
const USES_MARGIN: u8 = 2;
/// After so many decisions all counts are halved.
const DECISIONS_PER_AGE: u64 = 4096;
/// Pods for which fewer nodes come into question are decided without: there is nothing to gain.
const NODES_MIN: usize = 16;

/// Answers of nodes to shapes of pods. Serves one profile well; under another it starts anew.
#[derive(Clone, Debug)]
pub struct Memo {
    bytes_max: usize,
    profile: Option<Profile>,
    /// By the address of the shape, which the page keeps alive, and the priority.
    places: FxHashMap<(usize, i32), usize>,
    pages: Vec<Page>,
    /// Shapes and priorities of pods without a page, and how often they have been seen. A shape that
    /// is gone may be taken for another in its place, which then gets its page too soon.
    seen: FxHashMap<(usize, i32), u8>,
    uses: u64,
}

/// The answers to one shape of pods with one priority.
#[derive(Clone, Debug)]
pub(crate) struct Page {
    shape: Arc<Shape>,
    priority: i32,
    /// Whether classes of devices stand for resources that the pods ask for: then what is left of
    /// these is told by more than the node.
    by_class: bool,
    bookmark: Bookmark,
    /// When it was last used.
    used: u64,
    /// How often it was used of late.
    uses: u8,
    /// How many nodes had to be asked.
    asked: u64,
    /// By node.
    verdicts: Vec<Verdict>,
    rejections: Vec<Rejection>,
    /// By node, where it fits: the sum of weighted scores that need no scaling.
    plain: Vec<i64>,
    columns: Vec<Column>,
    outcomes: Outcomes,
    /// By node, where it is refused: by how much it falls short. Empty until somebody asks.
    shortfalls: Vec<i64>,
}

/// What is remembered of one scorer, its raw scores as a rule.
#[derive(Clone, Debug)]
pub(crate) struct Column {
    pub(crate) plugin: Plugin,
    pub(crate) weight: i64,
    /// Whether they are scores already.
    pub(crate) plain: bool,
    /// By node, where it fits.
    raw: Vec<i64>,
    /// Whether all of them are and were 0.
    pub(crate) zero: bool,
}

/// What a node's local filters say, in a byte: beyond these two, the place of the refusal among the
/// page's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Verdict(u8);

impl Verdict {
    pub(crate) const UNKNOWN: Self = Self(0);
    pub(crate) const FITS: Self = Self(1);
    const REFUSED: u8 = 2;

    /// The refusal in a place. More than a byte can tell apart are not remembered.
    fn refused(place: usize) -> Self {
        let place = u8::try_from(place).ok().and_then(|place| place.checked_add(Self::REFUSED));
        place.map_or(Self::UNKNOWN, Self)
    }
}

/// What evictions would bring. Nothing is held until somebody asks.
#[derive(Clone, Debug, Default)]
struct Outcomes {
    /// By node: what is known in a byte. Beyond these three, the place of the refusal.
    marks: Vec<u8>,
    /// By node, where there would be room: at what cost.
    costs: Vec<Cost>,
    rejections: Vec<Rejection>,
    /// The disruption budgets to which that holds.
    budget_changes: u64,
}

/// What evictions on a node would bring is not known.
const MARK_UNKNOWN: u8 = 0;
/// There is nobody to evict.
const MARK_NO_VICTIMS: u8 = 1;
/// They would make room.
const MARK_ROOM: u8 = 2;
/// The first mark of a refusal.
const MARK_REFUSED: u8 = 3;

/// Stands for a shortfall that is not known; none is negative.
const SHORTFALL_UNKNOWN: i64 = i64::MIN;

impl Memo {
    /// One that remembers nothing yet, and will take up some 64 MiB at most.
    pub fn new() -> Self {
        Self::with_bytes_max(BYTES_MAX)
    }

    /// One that will take up about so many bytes at most, or what a single shape takes.
    pub fn with_bytes_max(bytes_max: usize) -> Self {
        Self {
            bytes_max,
            profile: None,
            places: FxHashMap::default(),
            pages: Vec::new(),
            seen: FxHashMap::default(),
            uses: 0,
        }
    }

    /// How many times a node has been asked because its answer was not known, pages that have gone
    /// left out: what the memo could not save.
    pub fn asked(&self) -> u64 {
        self.pages.iter().map(|page| page.asked).sum()
    }

    /// The page for a plan's pod, up to date; `None` if it is not worth one.
    pub(crate) fn page(&mut self, plan: &Plan<'_>) -> Option<&mut Page> {
        // A pod that names its node asks more of it than its shape tells.
        if plan.nodes().len() < NODES_MIN || !plan.pod.node_name.is_empty() {
            return None;
        }
        if self.profile.as_ref() != Some(plan.profile) {
            *self = Self::with_bytes_max(self.bytes_max);
            self.profile = Some(plan.profile.clone());
        }
        self.uses += 1;
        if self.uses.is_multiple_of(DECISIONS_PER_AGE) {
            self.age();
        }
        let key = (Arc::as_ptr(&plan.pod.shape).addr(), plan.pod.priority);
        let place = match self.places.get(&key) {
            Some(place) => *place,
            None => {
                let seen = self.see(key);
                let place = self.place_for(plan, seen)?;
                self.seen.remove(&key);
                self.places.insert(key, place);
                self.pages[place].uses = seen.min(USES_COUNTED) - 1;
                place
            }
        };
        let page = &mut self.pages[place];
        if page.by_class != plan.snapshot.devices.stand_for(plan.pod) {
            // Other filters and scorers than before look at nothing but the node.
            page.begin_anew(plan);
        }
        page.used = self.uses;
        page.uses = (page.uses + 1).min(USES_COUNTED);
        page.catch_up(plan.snapshot);
        Some(page)
    }

    /// The page of a pod's shape, if there is one, up to date.
    pub(crate) fn known_page(&mut self, pod: &PodInfo, snapshot: &Snapshot) -> Option<&mut Page> {
        if !pod.node_name.is_empty() {
            return None;
        }
        let place = self.places.get(&(Arc::as_ptr(&pod.shape).addr(), pod.priority))?;
        let page = &mut self.pages[*place];
        page.catch_up(snapshot);
        (page.by_class == snapshot.devices.stand_for(pod)).then_some(page)
    }

    /// Counts a pod of a shape without a page. Tells how many of them there were.
    fn see(&mut self, key: (usize, i32)) -> u8 {
        if self.seen.len() == SEEN_MAX && !self.seen.contains_key(&key) {
            self.seen.clear();
        }
        let seen = self.seen.entry(key).or_insert(0);
        *seen = seen.saturating_add(1);
        *seen
    }

    fn age(&mut self) {
        self.pages.iter_mut().for_each(|page| page.uses /= 2);
        self.seen.retain(|_, seen| {
            *seen /= 2;
            *seen > 0
        });
    }

    /// A place with a new page for a shape of which so many pods were seen: that of the least used
    /// page, if there are enough pages. `None` if those are worth more.
    fn place_for(&mut self, plan: &Plan<'_>, seen: u8) -> Option<usize> {
        if seen < 2 {
            return None;
        }
        let mut held: usize = self.pages.iter().map(Page::bytes).sum();
        // Pages grow with the cluster, and with what is asked of them.
        while held > self.bytes_max && self.pages.len() > 1 {
            held -= self.drop_page(self.least());
        }
        let more = plan.snapshot.slots() * Page::bytes_per_node(plan.local_scorers().len());
        let fits = self.pages.is_empty() || held + more <= self.bytes_max;
        if fits && self.pages.len() < PAGES_MAX {
            self.pages.push(Page::new(plan));
            return Some(self.pages.len() - 1);
        }
        let place = self.least();
        let page = &mut self.pages[place];
        if seen < page.uses + USES_MARGIN {
            return None;
        }
        self.places.remove(&page.key());
        page.begin_anew(plan);
        Some(place)
    }

    /// The page that was used least, and of equals least recently.
    fn least(&self) -> usize {
        let pages = self.pages.iter().enumerate();
        pages.min_by_key(|(_, page)| (page.uses, page.used)).map_or(0, |(place, _)| place)
    }

    /// Drops a page; tells how many bytes it held.
    fn drop_page(&mut self, place: usize) -> usize {
        let page = self.pages.swap_remove(place);
        self.places.remove(&page.key());
        if let Some(moved) = self.pages.get(place) {
            self.places.insert(moved.key(), place);
        }
        page.bytes()
    }
}

impl Default for Memo {
    fn default() -> Self {
        Self::new()
    }
}

impl Page {
    fn new(plan: &Plan<'_>) -> Self {
        let mut page = Self {
            shape: plan.pod.shape.clone(),
            priority: plan.pod.priority,
            by_class: false,
            bookmark: plan.snapshot.journal().end(),
            used: 0,
            uses: 0,
            asked: 0,
            verdicts: Vec::new(),
            rejections: Vec::new(),
            plain: Vec::new(),
            columns: Vec::new(),
            outcomes: Outcomes::default(),
            shortfalls: Vec::new(),
        };
        page.begin_anew(plan);
        page
    }

    /// Makes the page one for another pod; its lists keep their memory.
    fn begin_anew(&mut self, plan: &Plan<'_>) {
        self.shape = plan.pod.shape.clone();
        self.priority = plan.pod.priority;
        self.by_class = plan.snapshot.devices.stand_for(plan.pod);
        self.bookmark = plan.snapshot.journal().end();
        self.asked = 0;
        let mut spare = std::mem::take(&mut self.columns).into_iter().map(|column| column.raw);
        self.columns = plan
            .local_scorers()
            .iter()
            .map(|(plugin, weight, scorer)| Column {
                plugin: *plugin,
                weight: *weight,
                plain: scorer.remembers_scores(),
                raw: spare.next().unwrap_or_default(),
                zero: true,
            })
            .collect();
        self.forget_all();
        self.resize(plan.snapshot.slots());
    }

    /// What a page with so many columns holds of one node before anything special is asked.
    fn bytes_per_node(columns: usize) -> usize {
        size_of::<Verdict>() + (1 + columns) * size_of::<i64>()
    }

    /// About how much memory it takes up.
    fn bytes(&self) -> usize {
        self.verdicts.len() * Self::bytes_per_node(self.columns.len())
            + self.shortfalls.len() * size_of::<i64>()
            + self.outcomes.marks.len() * (size_of::<u8>() + size_of::<Cost>())
    }

    fn key(&self) -> (usize, i32) {
        (Arc::as_ptr(&self.shape).addr(), self.priority)
    }

    fn forget_all(&mut self) {
        self.rejections.clear();
        self.columns.iter_mut().for_each(|column| column.zero = true);
        self.verdicts.fill(Verdict::UNKNOWN);
        self.outcomes.forget_all();
        self.shortfalls.fill(SHORTFALL_UNKNOWN);
    }

    fn resize(&mut self, nodes: usize) {
        self.verdicts.resize(nodes, Verdict::UNKNOWN);
        self.plain.resize(nodes, 0);
        for column in &mut self.columns {
            column.raw.resize(nodes, 0);
        }
        self.outcomes.resize(nodes);
        if !self.shortfalls.is_empty() {
            self.shortfalls.resize(nodes, SHORTFALL_UNKNOWN);
        }
    }

    /// Forgets what is no longer so.
    fn catch_up(&mut self, snapshot: &Snapshot) {
        if self.verdicts.len() != snapshot.slots() {
            self.resize(snapshot.slots());
        }
        if self.outcomes.budget_changes != snapshot.budget_changes() {
            self.outcomes.budget_changes = snapshot.budget_changes();
            self.outcomes.forget_all();
        }
        let Some(changes) = snapshot.journal().since(&mut self.bookmark) else {
            self.forget_all();
            return;
        };
        for node in changes {
            self.verdicts[node.get()] = Verdict::UNKNOWN;
            self.outcomes.forget(node);
            if let Some(shortfall) = self.shortfalls.get_mut(node.get()) {
                *shortfall = SHORTFALL_UNKNOWN;
            }
        }
    }

    /// What a node's local filters say. `plan` is of a pod for which this page is.
    #[inline]
    pub(crate) fn verdict(&mut self, plan: &Plan<'_>, node: NodeIndex) -> Option<Rejection> {
        match self.verdicts[node.get()] {
            Verdict::FITS => None,
            Verdict::UNKNOWN => self.ask(plan, node),
            refused => Some(self.rejection(refused)),
        }
    }

    /// What they are known to say.
    #[inline]
    pub(crate) fn known(&self, node: NodeIndex) -> Verdict {
        self.verdicts[node.get()]
    }

    /// The refusal for which a verdict stands.
    pub(crate) fn rejection(&self, refused: Verdict) -> Rejection {
        self.rejections[usize::from(refused.0 - Verdict::REFUSED)]
    }

    #[cold]
    fn ask(&mut self, plan: &Plan<'_>, node: NodeIndex) -> Option<Rejection> {
        self.asked += 1;
        let info = plan.snapshot.node(node);
        let refused = plan.check_with(info, node, plan.local_filters());
        self.verdicts[node.get()] = match refused {
            None => {
                self.score(plan, node);
                Verdict::FITS
            }
            Some(rejection) => {
                let known = self.rejections.iter().position(|known| *known == rejection);
                let verdict = Verdict::refused(known.unwrap_or(self.rejections.len()));
                if known.is_none() && verdict != Verdict::UNKNOWN {
                    self.rejections.push(rejection);
                }
                verdict
            }
        };
        refused
    }

    /// Notes the scores of a node that fits.
    pub(crate) fn score(&mut self, plan: &Plan<'_>, node: NodeIndex) {
        let info = plan.snapshot.node(node);
        self.plain[node.get()] = 0;
        for (column, (_, _, scorer)) in self.columns.iter_mut().zip(plan.local_scorers()) {
            let raw = scorer.remembered(node, info);
            column.raw[node.get()] = raw;
            column.zero &= raw == 0;
            if column.plain {
                self.plain[node.get()] += column.weight * raw;
            }
        }
    }

    /// The columns of a node that fits.
    pub(crate) fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// By node, where it fits: the sum of weighted scores that need no scaling.
    pub(crate) fn plain(&self) -> &[i64] {
        &self.plain
    }

    /// What evictions on a node would bring, worked out by `ask` if it is not known.
    #[inline]
    pub(crate) fn outcome(&mut self, node: NodeIndex, ask: impl FnOnce() -> Outcome) -> Outcome {
        self.outcomes.get(node).unwrap_or_else(|| {
            let outcome = ask();
            self.outcomes.set(node, outcome, self.verdicts.len());
            outcome
        })
    }

    /// The first of these nodes that falls short by least. All have refused with such a refusal as
    /// `alike` tells, by which `shortfall` goes.
    pub(crate) fn closest(
        &mut self,
        nodes: impl Iterator<Item = NodeIndex>,
        alike: impl Fn(Rejection) -> bool,
        shortfall: impl Fn(&NodeInfo) -> i64,
        snapshot: &Snapshot,
    ) -> Option<NodeIndex> {
        if self.shortfalls.is_empty() {
            self.shortfalls.resize(self.verdicts.len(), SHORTFALL_UNKNOWN);
        }
        // What is kept belongs to the refusal that is kept, and not to one of another kind that
        // the node gave this pod for reasons of its own.
        let mut kept = [false; 1 << 8];
        for (verdict, rejection) in
            kept[usize::from(Verdict::REFUSED)..].iter_mut().zip(&self.rejections)
        {
            *verdict = alike(*rejection);
        }
        let mut best: Option<(i64, NodeIndex)> = None;
        // Thousands of them in a few runs: a loop inside the iterator is twice as fast as one
        // around it.
        nodes.for_each(|node| {
            let known = &mut self.shortfalls[node.get()];
            let short = match *known {
                _ if !kept[usize::from(self.verdicts[node.get()].0)] => {
                    shortfall(snapshot.node(node))
                }
                SHORTFALL_UNKNOWN => {
                    *known = shortfall(snapshot.node(node));
                    *known
                }
                known => known,
            };
            if best.is_none_or(|(least, _)| short < least) {
                best = Some((short, node));
            }
        });
        best.map(|(_, node)| node)
    }
}

impl Outcomes {
    /// What is known of a node.
    #[inline]
    fn get(&self, node: NodeIndex) -> Option<Outcome> {
        match self.marks.get(node.get()).copied().unwrap_or(MARK_UNKNOWN) {
            MARK_UNKNOWN => None,
            MARK_NO_VICTIMS => Some(Outcome::NoVictims),
            MARK_ROOM => Some(Outcome::Room(self.costs[node.get()])),
            refused => Some(Outcome::Refused(self.rejections[usize::from(refused - MARK_REFUSED)])),
        }
    }

    #[cold]
    fn set(&mut self, node: NodeIndex, outcome: Outcome, nodes: usize) {
        if self.marks.is_empty() {
            self.marks.resize(nodes, MARK_UNKNOWN);
            self.costs.resize(nodes, Cost::default());
        }
        self.marks[node.get()] = match outcome {
            Outcome::NoVictims => MARK_NO_VICTIMS,
            Outcome::Room(cost) => {
                self.costs[node.get()] = cost;
                MARK_ROOM
            }
            Outcome::Refused(rejection) => self.mark_of(rejection),
        };
    }

    /// The mark of a refusal. More than a byte can tell apart are not remembered.
    fn mark_of(&mut self, rejection: Rejection) -> u8 {
        let known = self.rejections.iter().position(|known| *known == rejection);
        let place = known.unwrap_or(self.rejections.len());
        let mark = u8::try_from(place).ok().and_then(|place| place.checked_add(MARK_REFUSED));
        if known.is_none() && mark.is_some() {
            self.rejections.push(rejection);
        }
        mark.unwrap_or(MARK_UNKNOWN)
    }

    fn forget(&mut self, node: NodeIndex) {
        if let Some(mark) = self.marks.get_mut(node.get()) {
            *mark = MARK_UNKNOWN;
        }
    }

    fn forget_all(&mut self) {
        self.marks.fill(MARK_UNKNOWN);
        self.rejections.clear();
    }

    fn resize(&mut self, nodes: usize) {
        if !self.marks.is_empty() {
            self.marks.resize(nodes, MARK_UNKNOWN);
            self.costs.resize(nodes, Cost::default());
        }
    }
}

impl Column {
    /// The raw score of a node that fits.
    #[inline]
    pub(crate) fn raw(&self, node: NodeIndex) -> i64 {
        self.raw[node.get()]
    }
}
