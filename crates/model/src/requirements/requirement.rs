//! One requirement: the values a label may have.

use std::fmt;

use compact_str::CompactString;
use k8s_openapi::api::core::v1::NodeSelectorRequirement;
use smallvec::SmallVec;

use super::Malformed;
use crate::labels;

/// The values a label of a node may have.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Requirement {
    /// The label's key, never a beta one.
    pub key: CompactString,
    /// The values allowed or excluded.
    pub values: Values,
    /// The least integer allowed. Bounds occur only beside excluded values: a set of allowed ones
    /// has been reduced to those within the bounds.
    pub gte: Option<i64>,
    /// The greatest integer allowed.
    pub lte: Option<i64>,
    /// How many different values must stay possible.
    pub min_values: Option<u32>,
}

/// A set of label values or its complement; sorted, each value once.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Values {
    /// These alone. None of them means the label must not be there.
    Allowed(SmallVec<[CompactString; 1]>),
    /// Every value but these.
    Excluded(SmallVec<[CompactString; 1]>),
}

/// The operators of node requirements. Kubernetes has the first six, Karpenter all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operator {
    /// One of the values.
    In,
    /// None of the values, or no label.
    NotIn,
    /// Any value.
    Exists,
    /// No label.
    DoesNotExist,
    /// A larger integer.
    Gt,
    /// A smaller integer.
    Lt,
    /// An integer at least as large.
    Gte,
    /// An integer at most as large.
    Lte,
}

type Set = SmallVec<[CompactString; 1]>;

impl Operator {
    /// Reads the API's name of an operator.
    pub fn parse(text: &str) -> Option<Operator> {
        Some(match text {
            "In" => Operator::In,
            "NotIn" => Operator::NotIn,
            "Exists" => Operator::Exists,
            "DoesNotExist" => Operator::DoesNotExist,
            "Gt" => Operator::Gt,
            "Lt" => Operator::Lt,
            "Gte" => Operator::Gte,
            "Lte" => Operator::Lte,
            _ => return None,
        })
    }

    /// The API's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Operator::In => "In",
            Operator::NotIn => "NotIn",
            Operator::Exists => "Exists",
            Operator::DoesNotExist => "DoesNotExist",
            Operator::Gt => "Gt",
            Operator::Lt => "Lt",
            Operator::Gte => "Gte",
            Operator::Lte => "Lte",
        }
    }

    /// Whether a node without the label satisfies it.
    pub fn is_negative(self) -> bool {
        matches!(self, Operator::NotIn | Operator::DoesNotExist)
    }
}

impl fmt::Display for Operator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Values {
    /// The allowed values, if this is a finite set.
    pub fn allowed(&self) -> Option<&[CompactString]> {
        match self {
            Values::Allowed(values) => Some(values),
            Values::Excluded(_) => None,
        }
    }

    fn set(&self) -> &[CompactString] {
        match self {
            Values::Allowed(values) | Values::Excluded(values) => values,
        }
    }
}

impl Requirement {
    /// A requirement by a set operator. Bounds have [`Requirement::bounded`]; given one here, its
    /// values are left out and any value is allowed.
    pub fn new(
        key: &str,
        operator: Operator,
        values: impl IntoIterator<Item = impl AsRef<str>>,
    ) -> Requirement {
        let set = || {
            let values = values.into_iter();
            sorted(values.map(|value| CompactString::from(value.as_ref())).collect())
        };
        let values = match operator {
            Operator::In => Values::Allowed(set()),
            Operator::NotIn => Values::Excluded(set()),
            Operator::DoesNotExist => Values::Allowed(Set::new()),
            Operator::Exists | Operator::Gt | Operator::Lt | Operator::Gte | Operator::Lte => {
                Values::Excluded(Set::new())
            }
        };
        Requirement {
            key: labels::normalize(key).into(),
            values,
            gte: None,
            lte: None,
            min_values: None,
        }
    }

    /// Any integer from `gte` to `lte`, both included.
    pub fn bounded(key: &str, gte: Option<i64>, lte: Option<i64>) -> Requirement {
        Requirement { gte, lte, ..Requirement::new(key, Operator::Exists, [""; 0]) }
    }

    /// From the API's form.
    pub fn parse(
        key: &str,
        operator: &str,
        values: &[String],
        min_values: Option<u32>,
    ) -> Result<Requirement, Malformed> {
        let parsed = Operator::parse(operator).ok_or_else(|| Malformed::Operator {
            key: key.to_owned(),
            operator: operator.to_owned(),
        })?;
        let bound = || {
            let [value] = values else { return None };
            value.parse::<i64>().ok()
        };
        let bound = || {
            bound().ok_or_else(|| Malformed::Bound {
                key: key.to_owned(),
                operator: operator.to_owned(),
            })
        };
        // Beyond the last integer there is none: the bounds then cross and allow nothing.
        let above =
            |n: i64| n.checked_add(1).map_or((Some(i64::MAX), Some(i64::MIN)), |n| (Some(n), None));
        let below =
            |n: i64| n.checked_sub(1).map_or((Some(i64::MAX), Some(i64::MIN)), |n| (None, Some(n)));
        let requirement = match parsed {
            Operator::Gt => above(bound()?),
            Operator::Lt => below(bound()?),
            Operator::Gte => (Some(bound()?), None),
            Operator::Lte => (None, Some(bound()?)),
            operator => {
                return Ok(Requirement { min_values, ..Requirement::new(key, operator, values) });
            }
        };
        let (gte, lte) = requirement;
        Ok(Requirement { min_values, ..Requirement::bounded(key, gte, lte) })
    }

    /// The operator that tells this best: bounds alone read as Exists.
    pub fn operator(&self) -> Operator {
        match &self.values {
            Values::Allowed(values) if values.is_empty() => Operator::DoesNotExist,
            Values::Allowed(_) => Operator::In,
            Values::Excluded(values) if values.is_empty() => Operator::Exists,
            Values::Excluded(_) => Operator::NotIn,
        }
    }

    /// Whether the label may have this value.
    pub fn has(&self, value: &str) -> bool {
        let listed = contains(self.values.set(), value);
        let wanted = matches!(self.values, Values::Allowed(_));
        listed == wanted && within(value, self.gte, self.lte)
    }

    /// What satisfies both. The larger `min_values` stays.
    pub fn intersection(&self, other: &Requirement) -> Requirement {
        let gte = self.gte.max(other.gte);
        let lte = min_bound(self.lte, other.lte);
        let min_values = self.min_values.max(other.min_values);
        let within_bounds = |value: &&CompactString| within(value, gte, lte);
        let with_values = |values: Values| {
            let bounded = matches!(values, Values::Excluded(_));
            Requirement {
                key: self.key.clone(),
                values,
                gte: gte.filter(|_| bounded),
                lte: lte.filter(|_| bounded),
                min_values,
            }
        };
        if crossed(gte, lte) {
            return with_values(Values::Allowed(Set::new()));
        }
        with_values(match (&self.values, &other.values) {
            (Values::Excluded(left), Values::Excluded(right)) => {
                let both = left.iter().chain(right);
                Values::Excluded(sorted(both.filter(within_bounds).cloned().collect()))
            }
            (Values::Allowed(allowed), limit) | (limit, Values::Allowed(allowed)) => {
                let wanted = matches!(limit, Values::Allowed(_));
                let kept = allowed.iter().filter(|value| contains(limit.set(), value) == wanted);
                Values::Allowed(kept.filter(within_bounds).cloned().collect())
            }
        })
    }

    /// Whether anything satisfies both: [`Requirement::intersection`] without making it. As
    /// upstream, two complements always have a common value unless their bounds cross.
    pub fn has_intersection(&self, other: &Requirement) -> bool {
        let gte = self.gte.max(other.gte);
        let lte = min_bound(self.lte, other.lte);
        if crossed(gte, lte) {
            return false;
        }
        match (&self.values, &other.values) {
            (Values::Excluded(_), Values::Excluded(_)) => true,
            (Values::Allowed(allowed), limit) | (limit, Values::Allowed(allowed)) => {
                let wanted = matches!(limit, Values::Allowed(_));
                allowed
                    .iter()
                    .any(|value| contains(limit.set(), value) == wanted && within(value, gte, lte))
            }
        }
    }

    /// How many values are possible; none if without end.
    pub fn len(&self) -> Option<usize> {
        self.values.allowed().map(<[CompactString]>::len)
    }

    /// Whether no value is possible: the label must not be there.
    pub fn is_empty(&self) -> bool {
        self.len() == Some(0)
    }

    /// Some possible value: the first allowed one, else an integer that `choose` picks from the
    /// half-open range it is given, as Karpenter does with a random number for a custom label that
    /// need only exist. None if no value is possible.
    pub fn any(&self, choose: impl FnOnce(std::ops::Range<i64>) -> i64) -> Option<CompactString> {
        match &self.values {
            Values::Allowed(values) => values.first().cloned(),
            Values::Excluded(_) if crossed(self.gte, self.lte) => None,
            Values::Excluded(_) => {
                let from = self.gte.unwrap_or(self.lte.unwrap_or(0).min(0));
                let to = self.lte.map_or(i64::MAX, |lte| lte.saturating_add(1));
                // A half-open range cannot hold the last integer.
                let chosen = if from < to { choose(from..to) } else { from };
                Some(CompactString::from(chosen.to_string()))
            }
        }
    }

    /// The API's form: one entry, or two if both bounds are set.
    pub fn to_node_selector_requirements(&self) -> Vec<NodeSelectorRequirement> {
        let entry = |operator: Operator, values: Vec<String>| NodeSelectorRequirement {
            key: self.key.to_string(),
            operator: operator.as_str().to_owned(),
            values: (!values.is_empty()).then_some(values),
        };
        let bounds = [(Operator::Gte, self.gte), (Operator::Lte, self.lte)];
        let mut entries: Vec<NodeSelectorRequirement> = bounds
            .into_iter()
            .filter_map(|(operator, bound)| Some(entry(operator, vec![bound?.to_string()])))
            .collect();
        // Upstream leaves excluded values out beside bounds; keeping them loses nothing.
        if entries.is_empty() || !self.values.set().is_empty() {
            let values = self.values.set().iter().map(ToString::to_string);
            entries.push(entry(self.operator(), values.collect()));
        }
        entries
    }
}

impl fmt::Display for Requirement {
    /// As Karpenter prints it: `key In [a b]`, of more than five values the first five.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 5;
        let values = self.values.set();
        write!(f, "{} {}", self.key, self.operator())?;
        if !values.is_empty() {
            let mut shown = values[..values.len().min(SHOWN)].join(" ");
            if values.len() > SHOWN {
                shown += &format!(" and {} others", values.len() - SHOWN);
            }
            write!(f, " [{shown}]")?;
        }
        if let Some(gte) = self.gte {
            write!(f, " >={gte}")?;
        }
        if let Some(lte) = self.lte {
            write!(f, " <={lte}")?;
        }
        if let Some(min_values) = self.min_values {
            write!(f, " minValues {min_values}")?;
        }
        Ok(())
    }
}

fn sorted(mut values: Set) -> Set {
    values.sort_unstable();
    values.dedup();
    values
}

fn contains(sorted: &[CompactString], value: &str) -> bool {
    sorted.binary_search_by(|entry| entry.as_str().cmp(value)).is_ok()
}

/// Whether a value is within the bounds; with a bound set, what is no integer is not.
fn within(value: &str, gte: Option<i64>, lte: Option<i64>) -> bool {
    if gte.is_none() && lte.is_none() {
        return true;
    }
    value
        .parse::<i64>()
        .is_ok_and(|value| gte.is_none_or(|gte| gte <= value) && lte.is_none_or(|lte| value <= lte))
}

fn crossed(gte: Option<i64>, lte: Option<i64>) -> bool {
    gte.zip(lte).is_some_and(|(gte, lte)| gte > lte)
}

fn min_bound(left: Option<i64>, right: Option<i64>) -> Option<i64> {
    match (left, right) {
        (Some(left), Some(right)) => Some(left.min(right)),
        (left, right) => left.or(right),
    }
}
