//! The filter of `wharf catalog`: which machine types a person means.
//!
//! A filter is a few terms separated by spaces or commas, all of which must hold. A term is a part
//! of a type's name (`c5a`, or with wildcards `c5a.*`) or a comparison (`arch=arm64`, `cpu>=8`,
//! `memory<=32Gi`, `category=c|m`, `karpenter.k8s.aws/instance-size=large`).

use super::attributes::{ATTRIBUTES, Attribute, Candidate, ReadNumber, ReadTexts, Unit};
use super::labels::LABEL_KEYS;
use super::region::edit_distance;

/// A longer filter is refused: nobody types it.
const LENGTH_MAX: usize = 2_000;
/// Labels that may be named by their last part alone (`instance-size`).
const LABEL_PREFIX: &str = "karpenter.k8s.aws/";

/// Terms that must all hold; none holds for every type.
#[derive(Debug)]
pub(super) struct Filter(Vec<Term>);

/// Why a filter cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// The left side of a comparison names nothing that a type has.
    #[error("filter {term:?}: unknown key {key:?}, {hint}")]
    UnknownKey {
        /// The whole term.
        term: String,
        /// Its left side.
        key: String,
        /// The key that was perhaps meant, or all of them.
        hint: String,
    },
    /// The right side is not what the key is compared with.
    #[error("filter {term:?}: {value:?} is not {expected}")]
    BadValue {
        /// The whole term.
        term: String,
        /// Its right side.
        value: String,
        /// What belongs there.
        expected: &'static str,
    },
    /// A text compared by size.
    #[error("filter {term:?}: {key} is a text, compare it with = or !=")]
    NotOrdered {
        /// The whole term.
        term: String,
        /// Its left side.
        key: String,
    },
    /// The filter is longer than any that a person types.
    #[error("the filter is {length} characters long, at most {LENGTH_MAX} are read")]
    TooLong {
        /// Its length in bytes.
        length: usize,
    },
}

#[derive(Debug)]
enum Term {
    /// A glob over the whole name; a text without wildcards was made `*text*`.
    Name(String),
    Text {
        read: ReadText,
        negated: bool,
        globs: Vec<String>,
    },
    Number {
        read: ReadNumber,
        operator: Operator,
        values: Vec<i64>,
    },
    /// A label whose value is a number, by size.
    LabelNumber {
        key: String,
        operator: Operator,
        value: i64,
    },
}

#[derive(Debug)]
enum ReadText {
    Attribute(ReadTexts),
    Label(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// Two-character operators first, so that `>=` is not read as `>`.
const OPERATORS: [(&str, Operator); 7] = [
    (">=", Operator::GreaterOrEqual),
    ("<=", Operator::LessOrEqual),
    ("!=", Operator::NotEqual),
    ("==", Operator::Equal),
    (">", Operator::Greater),
    ("<", Operator::Less),
    ("=", Operator::Equal),
];

impl Filter {
    pub(super) fn parse(text: &str) -> Result<Filter, FilterError> {
        if text.len() > LENGTH_MAX {
            return Err(FilterError::TooLong { length: text.len() });
        }
        let terms = text.split(|c: char| c == ',' || c.is_whitespace());
        terms.filter(|term| !term.is_empty()).map(Term::parse).collect::<Result<_, _>>().map(Filter)
    }

    pub(super) fn matches(&self, candidate: Candidate<'_>) -> bool {
        self.0.iter().all(|term| term.matches(candidate))
    }
}

impl Term {
    fn parse(term: &str) -> Result<Term, FilterError> {
        let position = term.find(['=', '<', '>', '!']);
        let Some((key, rest)) = position.map(|position| term.split_at(position)) else {
            let wild = term.contains(['*', '?']);
            let text = term.to_ascii_lowercase();
            return Ok(Term::Name(if wild { text } else { format!("*{text}*") }));
        };
        let operator = OPERATORS.iter().find(|(sign, _)| rest.starts_with(sign));
        let bad = |value: &str, expected| {
            let (term, value) = (term.to_owned(), value.to_owned());
            FilterError::BadValue { term, value, expected }
        };
        let Some((sign, operator)) = operator else {
            return Err(bad(rest, "one of = != < <= > >= with a value after it"));
        };
        let (operator, value) = (*operator, &rest[sign.len()..]);
        if value.is_empty() || value.contains(['=', '<', '>', '!']) {
            return Err(bad(value, "a value to compare with"));
        }
        let key = key.to_ascii_lowercase();
        let known = ATTRIBUTES
            .iter()
            .find(|(name, others, _)| *name == key || others.contains(&key.as_str()));
        let read = match known {
            Some((_, _, Attribute::Number(unit, read))) => {
                let values = value
                    .split('|')
                    .map(|value| unit.parse(value).ok_or_else(|| bad(value, unit.expected())));
                let values: Vec<i64> = values.collect::<Result<_, _>>()?;
                if values.len() > 1 && !matches!(operator, Operator::Equal | Operator::NotEqual) {
                    return Err(bad(value, "one value, as an order needs"));
                }
                return Ok(Term::Number { read: *read, operator, values });
            }
            Some((_, _, Attribute::Text(read))) => ReadText::Attribute(*read),
            None => match label_key(&key) {
                Some(label) => ReadText::Label(label),
                None => {
                    let hint = key_hint(&key);
                    return Err(FilterError::UnknownKey { term: term.to_owned(), key, hint });
                }
            },
        };
        let negated = match (operator, &read) {
            (Operator::Equal, _) => false,
            (Operator::NotEqual, _) => true,
            (_, ReadText::Label(key)) => {
                let number = Unit::Count.parse(value);
                let number = number.ok_or_else(|| bad(value, Unit::Count.expected()))?;
                return Ok(Term::LabelNumber { key: key.clone(), operator, value: number });
            }
            _ => return Err(FilterError::NotOrdered { term: term.to_owned(), key }),
        };
        let globs = value.split('|').map(str::to_ascii_lowercase).collect();
        Ok(Term::Text { read, negated, globs })
    }

    fn matches(&self, candidate: Candidate<'_>) -> bool {
        match self {
            Term::Name(glob) => glob_matches(glob, candidate.machine.name),
            Term::Text { read, negated, globs } => {
                let mut found = false;
                let mut compare = |value: &str| {
                    found |= globs.iter().any(|glob| glob_matches(glob, value));
                };
                match read {
                    ReadText::Attribute(read) => read(candidate, &mut compare),
                    ReadText::Label(key) => {
                        let values = candidate.instance_type.label_values(key);
                        values.iter().for_each(|value| compare(value));
                    }
                }
                found != *negated
            }
            Term::LabelNumber { key, operator, value } => {
                let mut values = candidate.instance_type.label_values(key).iter();
                values.any(|text| text.parse().is_ok_and(|number| operator.holds(number, *value)))
            }
            Term::Number { read, operator, values } => {
                let number = read(candidate);
                match operator {
                    Operator::NotEqual => !number.is_some_and(|n| values.contains(&n)),
                    // What is not known is neither small nor large.
                    _ => number.is_some_and(|number| {
                        values.iter().any(|value| operator.holds(number, *value))
                    }),
                }
            }
        }
    }
}

impl Operator {
    fn holds(self, left: i64, right: i64) -> bool {
        match self {
            Operator::Equal => left == right,
            Operator::NotEqual => left != right,
            Operator::Less => left < right,
            Operator::LessOrEqual => left <= right,
            Operator::Greater => left > right,
            Operator::GreaterOrEqual => left >= right,
        }
    }
}

/// The label that a key names in full or by its last part, if machine types have it.
fn label_key(key: &str) -> Option<String> {
    let known = |key: &str| LABEL_KEYS.contains(&key);
    let with_prefix = format!("{LABEL_PREFIX}{key}");
    if known(key) { Some(key.to_owned()) } else { Some(with_prefix).filter(|key| known(key)) }
}

fn key_hint(key: &str) -> String {
    let near = ATTRIBUTES
        .iter()
        .flat_map(|(name, others, _)| std::iter::once(name).chain(others.iter()))
        .map(|name| (edit_distance(key, name), *name))
        .filter(|(edits, name)| *edits <= 2 && *edits < name.len())
        .min();
    match near {
        Some((_, name)) => format!("did you mean {name}?"),
        None => {
            let names: Vec<&str> = ATTRIBUTES.iter().map(|(name, ..)| *name).collect();
            format!("known are {} and label keys", names.join(", "))
        }
    }
}

/// `*` stands for any text, `?` for any one byte; everything else for itself. Takes at most the
/// product of both lengths, since only the last `*` is ever tried again.
fn glob_matches(glob: &str, text: &str) -> bool {
    let (glob, text) = (glob.as_bytes(), text.as_bytes());
    let (mut at_glob, mut at_text) = (0, 0);
    let mut retry = None;
    while at_text < text.len() {
        match glob.get(at_glob) {
            Some(b'*') => {
                retry = Some((at_glob + 1, at_text));
                at_glob += 1;
            }
            Some(&byte) if byte == b'?' || byte == text[at_text] => {
                at_glob += 1;
                at_text += 1;
            }
            _ => {
                let Some((after_star, from)) = retry else { return false };
                retry = Some((after_star, from + 1));
                (at_glob, at_text) = (after_star, from + 1);
            }
        }
    }
    glob[at_glob..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::super::{Catalog, NodeSettings};
    use super::*;
    use proptest::prelude::*;

    fn names(filter: &str) -> Vec<&'static str> {
        let catalog = Catalog::load("us-east-1").unwrap();
        let filter = Filter::parse(filter).unwrap();
        let settings = NodeSettings::default();
        let mut names = Vec::new();
        for machine in catalog.machines() {
            let instance_type = catalog.instance_type(machine.name, &settings).unwrap();
            let (on_demand, _) = catalog.on_demand_price(machine);
            let candidate = Candidate { machine, instance_type: &instance_type, on_demand };
            if filter.matches(candidate) {
                names.push(machine.name);
            }
        }
        names
    }

    #[test]
    fn names_match_by_part_or_glob() {
        assert_eq!(names("").len(), 1_340);
        assert_eq!(names("c5a.2xlarge"), ["c5a.2xlarge"]);
        assert_eq!(names("C5A.*").len(), 8);
        assert!(names("c5a").contains(&"c5ad.large"));
        assert!(names("c5a.*").iter().all(|name| name.starts_with("c5a.")));
        assert_eq!(names("t?.nano"), ["t2.nano", "t3.nano"]);
        assert!(names("nosuchtype").is_empty());
    }

    #[test]
    fn every_term_must_hold() {
        assert_eq!(
            names("arch=arm64 family=c7g cpu>=8 memory<=32Gi"),
            ["c7g.2xlarge", "c7g.4xlarge"]
        );
        assert_eq!(
            names("category=c|m,generation=5,size=large,manufacturer=amd"),
            ["c5a.large", "c5ad.large", "m5a.large", "m5ad.large"]
        );
        assert_eq!(names("price<0.005"), ["t3a.nano", "t4g.nano"]);
        assert_eq!(names("gpu=h100").len(), 2);
        assert_eq!(names("gpus>=8 nvme>=20000").len(), 4);
        assert_eq!(names("metal=true burstable=true").len(), 0);
        assert_eq!(names("instance-size=metal instance-category=a"), ["a1.metal"]);
        assert_eq!(names("karpenter.k8s.aws/instance-family=a1 name!=*.metal").len(), 5);
        assert_eq!(names("instance-gpu-count>4 instance-gpu-name=b*").len(), 2);
        assert_eq!(names("kubernetes.io/arch=arm64").len(), names("arch=arm64").len());
        assert_eq!(names("capacity-type=spot family=t2").len(), names("family=t2").len() - 1);
        assert_eq!(names("topology.kubernetes.io/zone=us-east-1a name=c5a.large"), ["c5a.large"]);
        assert_eq!(names("spot=false family=t2"), ["t2.nano"]);
        assert_eq!(names("zone=e c5a").len(), 0);
        assert_eq!(names("zone=use1-az1 name=c5a.large"), ["c5a.large"]);
        // An unknown bandwidth is neither below nor above, and it differs from every number.
        assert!(!names("network<100000").contains(&"t2.nano"));
        assert!(names("network!=100000").contains(&"t2.nano"));
    }

    #[test]
    fn bad_filters_get_one_clear_error() {
        let table = [
            (
                "example.com/tier=gold",
                "filter \"example.com/tier=gold\": unknown key \"example.com/tier\", known are name",
            ),
            ("instance-cpu>big", "filter \"instance-cpu>big\": \"big\" is not a whole number"),
            (
                "cpus>=8 memroy>=1Gi",
                "filter \"memroy>=1Gi\": unknown key \"memroy\", did you mean memory?",
            ),
            (
                "colour=red",
                "filter \"colour=red\": unknown key \"colour\", known are name, arch, cpu, ",
            ),
            ("cpu>=many", "filter \"cpu>=many\": \"many\" is not a whole number"),
            (
                "memory>=32",
                "filter \"memory>=32\": \"32\" is not an amount of memory with its unit, such as 32Gi or 512Mi",
            ),
            (
                "price<cheap",
                "filter \"price<cheap\": \"cheap\" is not a price in dollars per hour, such as 0.308",
            ),
            ("arch>arm64", "filter \"arch>arm64\": arch is a text, compare it with = or !="),
            ("arch=", "filter \"arch=\": \"\" is not a value to compare with"),
            (
                "cpu!8",
                "filter \"cpu!8\": \"!8\" is not one of = != < <= > >= with a value after it",
            ),
            ("cpu=>8", "filter \"cpu=>8\": \">8\" is not a value to compare with"),
            ("cpu>2|4", "filter \"cpu>2|4\": \"2|4\" is not one value, as an order needs"),
            ("=8", "filter \"=8\": unknown key \"\", known are name"),
        ];
        for (filter, message) in table {
            let error = Filter::parse(filter).unwrap_err().to_string();
            assert!(error.starts_with(message), "{error}");
        }
        let long = "x".repeat(3_000);
        assert_eq!(Filter::parse(&long).unwrap_err(), FilterError::TooLong { length: 3_000 });
    }

    proptest! {
        #[test]
        fn globs_agree_with_the_plain_definition(glob in "[ab*?]{0,8}", text in "[ab]{0,8}") {
            fn plain(glob: &[u8], text: &[u8]) -> bool {
                match glob.split_first() {
                    None => text.is_empty(),
                    Some((b'*', rest)) => {
                        (0..=text.len()).any(|skipped| plain(rest, &text[skipped..]))
                    }
                    Some((byte, rest)) => text.split_first().is_some_and(|(first, left)| {
                        (*byte == b'?' || byte == first) && plain(rest, left)
                    }),
                }
            }
            prop_assert_eq!(glob_matches(&glob, &text), plain(glob.as_bytes(), text.as_bytes()));
        }

        #[test]
        fn no_filter_panics(text in "\\PC{0,40}") {
            let _ = Filter::parse(&text);
        }
    }
}
