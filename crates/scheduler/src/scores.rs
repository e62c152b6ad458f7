//! The scores of the nodes that would do: raw ones of every scorer, brought to one scale, weighted
//! and added up.

use smallvec::SmallVec;

use crate::cycle::{Candidate, Plan};
use crate::measure::{ExtensionPoint, Measure, Status};
use crate::memo::{Column, Page};
use crate::plugins::{MAX_SCORE, Scorer};
use crate::profile::Plugin;
use crate::snapshot::NodeIndex;

/// How many of the best nodes a placement tells of.
const BEST: usize = 5;

/// How the raw scores of a scorer become scores from 0 to [`MAX_SCORE`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scaling {
    /// They are such already.
    None,
    /// Upstream's default: the highest among the feasible nodes becomes [`MAX_SCORE`].
    Highest,
    /// The same turned round: less is better.
    HighestReversed,
}

/// A scaling among certain nodes.
#[derive(Clone, Debug)]
pub(crate) enum Scale {
    /// The score is the raw one.
    Same,
    /// The highest raw score becomes [`MAX_SCORE`].
    Highest(i64),
    /// It becomes 0, and 0 [`MAX_SCORE`].
    HighestReversed(i64),
    /// The scores by the raw ones.
    Table(Box<[i64]>),
}

impl Scaling {
    /// The rule for these raw scores.
    pub(crate) fn among(self, raw: impl Iterator<Item = i64>) -> Scale {
        let highest = || raw.fold(0, i64::max);
        match self {
            Self::None => Scale::Same,
            Self::Highest => Scale::Highest(highest()),
            Self::HighestReversed => Scale::HighestReversed(highest()),
        }
    }
}

impl Scale {
    /// The score for a raw one.
    #[inline]
    pub(crate) fn apply(&self, raw: i64) -> i64 {
        match self {
            Self::Same | Self::Highest(0) => raw,
            Self::Highest(highest) => MAX_SCORE * raw / highest,
            Self::HighestReversed(0) => MAX_SCORE,
            Self::HighestReversed(highest) => MAX_SCORE - MAX_SCORE * raw / highest,
            Self::Table(scores) => scores[raw as usize],
        }
    }
}

/// The scores of all feasible nodes.
pub(crate) struct Scores<'p> {
    feasible: &'p [NodeIndex],
    /// By place among the feasible nodes.
    totals: Vec<i64>,
    /// In the order of the profile, scorers with nothing to say left out.
    parts: SmallVec<[(Plugin, Part<'p>); 8]>,
}

/// One scorer's share.
enum Part<'p> {
    /// Weighted scores by place among the feasible nodes.
    Made(Vec<i64>),
    /// A column of the memo, with what makes weighted scores of it.
    Kept(&'p Column, Scale),
}

impl<'p> Scores<'p> {
    /// Scores the feasible nodes. A page, if there is one, has been asked about all of them.
    pub(crate) fn of(
        plan: &Plan<'_>,
        feasible: &'p [NodeIndex],
        page: Option<&'p Page>,
        measure: &mut Measure<'_>,
    ) -> Self {
        let mut scorers: SmallVec<[(Plugin, i64, Scorer<'_>); 8]> = SmallVec::new();
        for (plugin, weight) in &plan.profile.scores {
            let prepare =
                || Scorer::prepare(*plugin, plan.pod, plan.profile, plan.snapshot, feasible);
            let status = |scorer: &Option<Scorer<'_>>| match scorer {
                Some(_) => Status::Success,
                None => Status::Skip,
            };
            let scorer = measure.plugin(*plugin, ExtensionPoint::PreScore, prepare, status);
            if let Some(scorer) = scorer {
                measure.answered(*plugin, ExtensionPoint::PreScore, 1);
                measure.answered(*plugin, ExtensionPoint::Score, feasible.len());
                scorers.push((*plugin, *weight, scorer));
            }
        }
        measure.point(ExtensionPoint::PreScore, Status::Success);
        let mut scores = Self { feasible, totals: Vec::new(), parts: SmallVec::new() };
        scores.totals = match page {
            Some(page) => feasible.iter().map(|node| page.plain()[node.get()]).collect(),
            None => vec![0; feasible.len()],
        };
        let kept = page.map_or(&[][..], Page::columns);
        for (plugin, weight, scorer) in &scorers {
            match kept.iter().find(|column| column.plugin == *plugin) {
                Some(column) => scores.add_kept(column, scorer),
                None => scores.add_made(plan, *plugin, *weight, scorer),
            }
        }
        measure.point(ExtensionPoint::Score, Status::Success);
        // Each is asked about one node once more, for the time it takes.
        if let Some(first) = feasible.first().filter(|_| measure.is_sampled()) {
            for (plugin, _, scorer) in &scorers {
                let ask = || std::hint::black_box(scorer.score(*first, plan.snapshot.node(*first)));
                measure.plugin(*plugin, ExtensionPoint::Score, ask, |_| Status::Success);
            }
        }
        scores
    }

    fn add_kept(&mut self, column: &'p Column, scorer: &Scorer<'_>) {
        let feasible = self.feasible;
        let scale = if column.zero {
            scorer.scale(std::iter::empty())
        } else {
            scorer.scale(feasible.iter().map(|node| column.raw(*node)))
        };
        if !column.plain {
            // With nothing but zeros all nodes get the same.
            let same = column.zero.then(|| scale.apply(0));
            if same != Some(0) {
                for (node, total) in feasible.iter().zip(&mut self.totals) {
                    let score = same.unwrap_or_else(|| scale.apply(column.raw(*node)));
                    *total += column.weight * score;
                }
            }
        }
        self.parts.push((column.plugin, Part::Kept(column, scale)));
    }

    fn add_made(&mut self, plan: &Plan<'_>, plugin: Plugin, weight: i64, scorer: &Scorer<'_>) {
        let nodes = self.feasible.iter();
        let mut column: Vec<_> =
            nodes.map(|node| scorer.score(*node, plan.snapshot.node(*node))).collect();
        scorer.normalize(&mut column);
        for (score, total) in column.iter_mut().zip(&mut self.totals) {
            *score *= weight;
            *total += *score;
        }
        self.parts.push((plugin, Part::Made(column)));
    }

    /// Adds what extenders say, as it counts in the total.
    pub(crate) fn add_extenders(&mut self, score: impl Fn(NodeIndex) -> i64) {
        let column: Vec<_> = self.feasible.iter().map(|node| score(*node)).collect();
        for (score, total) in column.iter().zip(&mut self.totals) {
            *total = total.saturating_add(*score);
        }
        self.parts.push((Plugin::Extender, Part::Made(column)));
    }

    /// The best nodes, best first; of equals the one that was found first.
    pub(crate) fn best(&self) -> Vec<Candidate> {
        let mut leaders: SmallVec<[usize; BEST]> = SmallVec::new();
        let mut bar = i64::MIN;
        for (index, total) in self.totals.iter().enumerate() {
            if *total <= bar {
                continue;
            }
            let at = leaders.partition_point(|leader| self.totals[*leader] >= *total);
            leaders.truncate(BEST - 1);
            leaders.insert(at, index);
            if leaders.len() == BEST {
                bar = self.totals[leaders[BEST - 1]];
            }
        }
        leaders.iter().map(|index| self.candidate(*index)).collect()
    }

    /// All of them, in the order of the feasible nodes.
    pub(crate) fn all(&self) -> Vec<Candidate> {
        (0..self.feasible.len()).map(|index| self.candidate(index)).collect()
    }

    fn candidate(&self, index: usize) -> Candidate {
        let node = self.feasible[index];
        let score = |part: &Part<'_>| match part {
            Part::Made(column) => column[index],
            Part::Kept(column, scale) => column.weight * scale.apply(column.raw(node)),
        };
        Candidate {
            node,
            total: self.totals[index],
            scores: self.parts.iter().map(|(plugin, part)| (*plugin, score(part))).collect(),
        }
    }
}
