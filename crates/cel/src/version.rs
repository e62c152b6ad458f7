//! Semantic versions (<https://semver.org>), as far as comparing them goes.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

/// A semantic version. What is built from (`+…`) says nothing about its order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// Major, minor and patch.
    pub numbers: [u64; 3],
    pre_release: Vec<Identifier>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Identifier {
    // A number precedes every text.
    Number(u64),
    Text(String),
}

/// The text is not a semantic version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a semantic version such as 1.2.3 or 1.2.3-beta.1")]
pub struct NotAVersion;

impl FromStr for Version {
    type Err = NotAVersion;

    fn from_str(text: &str) -> Result<Self, NotAVersion> {
        let (text, build) = text.split_once('+').map_or((text, None), |(a, b)| (a, Some(b)));
        if build.is_some_and(|build| !build.split('.').all(is_word)) {
            return Err(NotAVersion);
        }
        let (core, pre_release) =
            text.split_once('-').map_or((text, None), |(core, rest)| (core, Some(rest)));
        let mut parts = core.split('.').map(number);
        let mut numbers = [0; 3];
        for place in &mut numbers {
            *place = parts.next().flatten().ok_or(NotAVersion)?;
        }
        if parts.next().is_some() {
            return Err(NotAVersion);
        }
        let identifiers = pre_release.into_iter().flat_map(|text| text.split('.'));
        let pre_release = identifiers
            .map(|word| match number(word) {
                Some(number) => Ok(Identifier::Number(number)),
                // Digits that are no number have a leading zero or are too many.
                None if is_word(word) && !word.bytes().all(|byte| byte.is_ascii_digit()) => {
                    Ok(Identifier::Text(word.to_owned()))
                }
                None => Err(NotAVersion),
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { numbers, pre_release })
    }
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let plain = text.len() == 1 || !text.starts_with('0');
    (digits && plain).then(|| text.parse().ok())?
}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        let released = |version: &Self| version.pre_release.is_empty();
        self.numbers
            .cmp(&other.numbers)
            // What precedes a release is less than it.
            .then_with(|| released(self).cmp(&released(other)))
            .then_with(|| self.pre_release.cmp(&other.pre_release))
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [major, minor, patch] = self.numbers;
        write!(f, "{major}.{minor}.{patch}")?;
        for (index, identifier) in self.pre_release.iter().enumerate() {
            f.write_str(if index == 0 { "-" } else { "." })?;
            match identifier {
                Identifier::Number(number) => write!(f, "{number}")?,
                Identifier::Text(text) => f.write_str(text)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_as_the_specification_says() {
        let ascending = [
            "0.9.10",
            "1.0.0-alpha",
            "1.0.0-alpha.1",
            "1.0.0-alpha.beta",
            "1.0.0-beta",
            "1.0.0-beta.2",
            "1.0.0-beta.11",
            "1.0.0-rc.1",
            "1.0.0",
            "1.0.1",
            "1.10.0",
        ];
        let versions: Vec<Version> = ascending.iter().map(|text| text.parse().unwrap()).collect();
        assert!(versions.is_sorted_by(|one, other| one < other));
        for (version, text) in versions.iter().zip(ascending) {
            assert_eq!(version.to_string(), text);
        }
        assert_eq!("1.0.0+a".parse::<Version>(), "1.0.0+b".parse());
        for text in [
            "", "1", "1.2", "1.2.3.4", "01.2.3", "1.2.-3", "1.2.3-", "1.2.3-01", "v1.2.3", "1.2.3+",
        ] {
            assert!(text.parse::<Version>().is_err(), "{text}");
        }
    }
}
