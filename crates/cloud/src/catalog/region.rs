//! The commercial EC2 regions: their zones, zone ids, and how dear they are.
//!
//! Zone names are an account's own view and zone ids the physical zones; the mapping here is one
//! that accounts have, fixed so that runs repeat. Price factors of regions other than us-east-1
//! and ap-northeast-2 are rounded from what general-purpose types cost there in relation to
//! us-east-1; prices made with them are always marked as modelled.

use compact_str::{CompactString, format_compact};

/// A commercial EC2 region.
#[derive(Debug, PartialEq, Eq)]
pub struct Region {
    /// The name (`eu-central-1`).
    pub name: &'static str,
    /// The letter of each zone with the number in its zone id.
    zones: &'static [(u8, u8)],
    /// On-demand prices in relation to us-east-1: numerator and denominator.
    pub(crate) price_factor: (u32, u32),
}

/// A zone of a region.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Zone {
    /// The name in this account (`us-east-1a`).
    pub name: CompactString,
    /// The identity across accounts (`use1-az1`).
    pub id: CompactString,
}

/// The text names no region known here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown region {name:?}, {}", hint(nearest))]
pub struct UnknownRegion {
    /// What was asked for.
    pub name: String,
    /// Known regions with similar names, the most similar first; empty if none is similar.
    pub nearest: Vec<&'static str>,
}

const ABC: &[(u8, u8)] = &[(b'a', 1), (b'b', 2), (b'c', 3)];
const ABCD: &[(u8, u8)] = &[(b'a', 1), (b'b', 2), (b'c', 3), (b'd', 4)];
const ABCDEF: &[(u8, u8)] = &[(b'a', 1), (b'b', 2), (b'c', 3), (b'd', 4), (b'e', 5), (b'f', 6)];

/// Every region, sorted by name.
pub static REGIONS: &[Region] = &[
    region("af-south-1", ABC, 1_320),
    region("ap-east-1", ABC, 1_375),
    region("ap-east-2", ABC, 1_250),
    // The zone with id apne1-az3 takes no new accounts.
    region("ap-northeast-1", &[(b'a', 4), (b'c', 1), (b'd', 2)], 1_290),
    Region { name: "ap-northeast-2", zones: ABCD, price_factor: (86, 77) },
    region("ap-northeast-3", ABC, 1_290),
    region("ap-south-1", ABC, 1_050),
    region("ap-south-2", ABC, 1_050),
    region("ap-southeast-1", ABC, 1_250),
    region("ap-southeast-2", ABC, 1_250),
    region("ap-southeast-3", ABC, 1_250),
    region("ap-southeast-4", ABC, 1_250),
    region("ap-southeast-5", ABC, 1_125),
    region("ap-southeast-6", ABC, 1_250),
    region("ap-southeast-7", ABC, 1_125),
    region("ca-central-1", &[(b'a', 1), (b'b', 2), (b'd', 4)], 1_115),
    region("ca-west-1", ABC, 1_115),
    region("eu-central-1", ABC, 1_200),
    region("eu-central-2", ABC, 1_320),
    region("eu-north-1", ABC, 1_060),
    region("eu-south-1", ABC, 1_165),
    region("eu-south-2", ABC, 1_115),
    region("eu-west-1", ABC, 1_115),
    region("eu-west-2", ABC, 1_155),
    region("eu-west-3", ABC, 1_165),
    region("il-central-1", ABC, 1_170),
    region("me-central-1", ABC, 1_230),
    region("me-south-1", ABC, 1_230),
    region("mx-central-1", ABC, 1_050),
    region("sa-east-1", ABC, 1_595),
    Region { name: "us-east-1", zones: ABCDEF, price_factor: (1, 1) },
    region("us-east-2", ABC, 1_000),
    region("us-west-1", &[(b'a', 1), (b'c', 3)], 1_165),
    region("us-west-2", ABCD, 1_000),
];

const fn region(name: &'static str, zones: &'static [(u8, u8)], per_mille: u32) -> Region {
    Region { name, zones, price_factor: (per_mille, 1_000) }
}

impl Region {
    /// The region of that name, or the names that were perhaps meant.
    pub fn find(name: &str) -> Result<&'static Region, UnknownRegion> {
        match REGIONS.binary_search_by(|region| region.name.cmp(name)) {
            Ok(index) => Ok(&REGIONS[index]),
            Err(_) => Err(UnknownRegion { name: name.to_owned(), nearest: nearest(name) }),
        }
    }

    /// The zones by name.
    pub fn zones(&self) -> Vec<Zone> {
        self.zones.iter().map(|&(letter, number)| self.zone(letter, number)).collect()
    }

    /// The letters of the zones, in order.
    pub fn zone_letters(&self) -> impl Iterator<Item = char> + '_ {
        self.zones.iter().map(|&(letter, _)| char::from(letter))
    }

    fn zone(&self, letter: u8, number: u8) -> Zone {
        Zone {
            name: format_compact!("{}{}", self.name, char::from(letter)),
            id: format_compact!("{}-az{number}", self.short_name()),
        }
    }

    /// The abbreviation in zone ids: the area, one letter per compass point, the number
    /// (`ap-northeast-2` → `apne2`).
    fn short_name(&self) -> String {
        let mut parts = self.name.split('-');
        let mut short = parts.next().unwrap_or_default().to_owned();
        let direction = parts.next().unwrap_or_default();
        let points: &[&str] = match direction {
            "northeast" => &["n", "e"],
            "southeast" => &["s", "e"],
            other => &[&other[..other.len().min(1)]],
        };
        short.extend(points.iter().copied());
        short.extend(parts.next());
        short
    }
}

/// Known regions at most three edits away, nearest first, at most three.
fn nearest(name: &str) -> Vec<&'static str> {
    const EDITS_MAX: usize = 3;
    const NAMES_MAX: usize = 3;
    // A bound for the quadratic comparison; no region name is near this long.
    if name.len() > 64 {
        return Vec::new();
    }
    let lower = name.trim().to_ascii_lowercase();
    let mut near: Vec<(usize, &'static str)> = REGIONS
        .iter()
        .map(|region| (edit_distance(&lower, region.name), region.name))
        .filter(|(edits, _)| *edits <= EDITS_MAX)
        .collect();
    near.sort_unstable();
    let best = near.first().map_or(0, |(edits, _)| *edits);
    near.retain(|(edits, _)| *edits <= best + 1);
    near.into_iter().map(|(_, name)| name).take(NAMES_MAX).collect()
}

/// Insertions, deletions and substitutions of bytes that turn `left` into `right`.
pub(super) fn edit_distance(left: &str, right: &str) -> usize {
    let right = right.as_bytes();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (index, byte) in left.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = index + 1;
        for column in 1..row.len() {
            let substituted = diagonal + usize::from(byte != right[column - 1]);
            diagonal = row[column];
            row[column] = substituted.min(row[column] + 1).min(row[column - 1] + 1);
        }
    }
    row[right.len()]
}

fn hint(nearest: &[&str]) -> String {
    match nearest {
        [] => {
            let names: Vec<&str> = REGIONS.iter().map(|region| region.name).collect();
            format!("known are {}", names.join(", "))
        }
        [rest @ .., last] if !rest.is_empty() => {
            format!("did you mean {} or {last}?", rest.join(", "))
        }
        [only, ..] => format!("did you mean {only}?"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_are_sorted_and_found() {
        assert!(REGIONS.windows(2).all(|pair| pair[0].name < pair[1].name));
        for region in REGIONS {
            assert_eq!(Region::find(region.name), Ok(region));
            assert!(region.zones().len() >= 2, "{}", region.name);
            assert!(region.zones().windows(2).all(|pair| pair[0].name < pair[1].name));
        }
    }

    #[test]
    fn zones_have_the_ids_that_aws_gives() {
        let table = [
            ("us-east-1", "us-east-1a", "use1-az1"),
            ("us-east-1", "us-east-1f", "use1-az6"),
            ("us-west-2", "us-west-2d", "usw2-az4"),
            ("ap-northeast-2", "ap-northeast-2c", "apne2-az3"),
            ("ap-northeast-1", "ap-northeast-1a", "apne1-az4"),
            ("ap-southeast-1", "ap-southeast-1a", "apse1-az1"),
            ("ap-south-1", "ap-south-1b", "aps1-az2"),
            ("eu-central-1", "eu-central-1a", "euc1-az1"),
            ("ca-central-1", "ca-central-1d", "cac1-az4"),
            ("il-central-1", "il-central-1a", "ilc1-az1"),
        ];
        for (region, name, id) in table {
            let zones = Region::find(region).unwrap().zones();
            let zone = zones.iter().find(|zone| zone.name == name).unwrap();
            assert_eq!(zone.id, id);
        }
    }

    #[test]
    fn an_unknown_region_gets_a_hint() {
        let table = [
            (
                "us-eest-1",
                "unknown region \"us-eest-1\", did you mean us-east-1, us-west-1 or us-east-2?",
            ),
            (
                "eu-central1",
                "unknown region \"eu-central1\", did you mean eu-central-1 or eu-central-2?",
            ),
            ("us-east-1a", "unknown region \"us-east-1a\", did you mean us-east-1 or us-east-2?"),
            ("seoul", "unknown region \"seoul\", known are af-south-1, "),
        ];
        for (name, message) in table {
            let shown = Region::find(name).unwrap_err().to_string();
            assert!(shown.starts_with(message), "{shown}");
        }
        assert_eq!(Region::find("US-EAST-1").unwrap_err().nearest[0], "us-east-1");
        assert!(Region::find(&"x".repeat(10_000)).unwrap_err().nearest.is_empty());
        assert!(Region::find("").is_err());
    }

    #[test]
    fn edits_are_counted() {
        assert_eq!(edit_distance("kitten", "sitting"), 3);
        assert_eq!(edit_distance("", "abc"), 3);
        assert_eq!(edit_distance("same", "same"), 0);
    }
}
