//! Sets of completion indexes as Jobs write them: `1,3-5,7`
//! (<https://kubernetes.io/docs/concepts/workloads/controllers/job/#completion-mode>).

use std::fmt;

/// Indexes as ranges in rising order, none of which touches the next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Indexes {
    ranges: Vec<(i32, i32)>,
}

/// Why a text is no set of indexes, in upstream's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IndexesError {
    /// A part like `1-2-3`.
    #[error(
        "the fragment {0:?} violates the requirement that an index interval can have at most two parts separated by '-'"
    )]
    TooManyParts(String),
    /// Not a number.
    #[error("cannot convert string to integer for index: {0:?}")]
    NotANumber(String),
    /// Not below the number of completions.
    #[error("too large index: {0:?}")]
    TooLarge(String),
    /// Not after what comes before it.
    #[error("non-increasing order, previous: {previous}, current: {current}")]
    NotIncreasing {
        /// The index before.
        previous: i32,
        /// The index that ought to be greater.
        current: i32,
    },
}

impl Indexes {
    /// Reads the indexes of a Job with so many completions.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn parse(text: &str, completions: i32) -> Result<Self, IndexesError> {
        let mut indexes = Self::default();
        if text.is_empty() {
            return Ok(indexes);
        }
        let mut last: Option<i32> = None;
        for part in text.split(',') {
            let (first, end) = interval(part, completions)?;
            if let Some(previous) = last.filter(|previous| *previous >= first) {
                return Err(IndexesError::NotIncreasing { previous, current: first });
            }
            indexes.push(first, end);
            last = Some(end);
        }
        Ok(indexes)
    }

    /// Reads what a status says, as far as it can be read and is below `completions`: a Job whose
    /// completions were lowered keeps the indexes that are left.
    pub fn of_status(text: &str, completions: i32) -> Self {
        let mut indexes = Self::default();
        for part in text.split(',') {
            let Ok((first, end)) = interval(part, i32::MAX) else { continue };
            if first < completions {
                indexes.push(first, end.min(completions - 1));
            }
        }
        indexes
    }

    /// Whether an index is among them.
    pub fn contains(&self, index: i32) -> bool {
        let at = self.ranges.partition_point(|(_, last)| *last < index);
        self.ranges.get(at).is_some_and(|(first, _)| *first <= index)
    }

    /// How many there are.
    pub fn count(&self) -> i32 {
        self.ranges.iter().map(|(first, last)| last - first + 1).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// How many of them are in `other` too.
    pub fn count_common(&self, other: &Self) -> i32 {
        self.iter().filter(|index| other.contains(*index)).map(|_| 1).sum()
    }

    /// Each of them, in rising order.
    pub fn iter(&self) -> impl Iterator<Item = i32> {
        self.ranges.iter().flat_map(|(first, last)| *first..=*last)
    }

    /// Adds one.
    pub fn insert(&mut self, index: i32) {
        let at = self.ranges.partition_point(|(_, last)| *last < index);
        if self.ranges.get(at).is_some_and(|(first, _)| *first <= index) {
            return;
        }
        let joins_before = at > 0 && self.ranges[at - 1].1 + 1 == index;
        let joins_after = self.ranges.get(at).is_some_and(|(first, _)| index + 1 == *first);
        match (joins_before, joins_after) {
            (true, true) => {
                self.ranges[at - 1].1 = self.ranges[at].1;
                self.ranges.remove(at);
            }
            (true, false) => self.ranges[at - 1].1 = index,
            (false, true) => self.ranges[at].0 = index,
            (false, false) => self.ranges.insert(at, (index, index)),
        }
    }

    /// Adds a range that begins after all there are.
    fn push(&mut self, first: i32, last: i32) {
        match self.ranges.last_mut() {
            Some(before) if before.1 + 1 == first => before.1 = last,
            _ => self.ranges.push((first, last)),
        }
    }
}

impl Extend<i32> for Indexes {
    fn extend<I: IntoIterator<Item = i32>>(&mut self, indexes: I) {
        for index in indexes {
            self.insert(index);
        }
    }
}

impl fmt::Display for Indexes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, (first, last)) in self.ranges.iter().enumerate() {
            if position > 0 {
                f.write_str(",")?;
            }
            // Two neighbours are not worth a range: upstream writes `3,4` and `3-5`.
            match last - first {
                0 => write!(f, "{first}")?,
                1 => write!(f, "{first},{last}")?,
                _ => write!(f, "{first}-{last}")?,
            }
        }
        Ok(())
    }
}

/// `4` or `4-7`, all below the number of completions.
fn interval(text: &str, completions: i32) -> Result<(i32, i32), IndexesError> {
    let mut parts = text.split('-');
    let first = parts.next().unwrap_or_default();
    let last = parts.next();
    if parts.next().is_some() {
        return Err(IndexesError::TooManyParts(text.to_owned()));
    }
    let number = |text: &str| {
        let index = text.parse::<i32>().map_err(|_| IndexesError::NotANumber(text.to_owned()))?;
        if index >= completions {
            return Err(IndexesError::TooLarge(text.to_owned()));
        }
        Ok(index)
    };
    let first = number(first)?;
    let Some(last) = last else { return Ok((first, first)) };
    let last = number(last)?;
    if first >= last {
        return Err(IndexesError::NotIncreasing { previous: first, current: last });
    }
    Ok((first, last))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn texts_are_upstreams() {
        for (text, expected) in [
            ("", Ok("")),
            ("0", Ok("0")),
            ("1,3-5,7", Ok("1,3-5,7")),
            ("3,4", Ok("3,4")),
            ("3-4", Ok("3,4")),
            ("0,1,2,3", Ok("0-3")),
            ("a", Err("cannot convert string to integer for index: \"a\"")),
            (
                "1-2-3",
                Err(
                    "the fragment \"1-2-3\" violates the requirement that an index interval can have at most two parts separated by '-'",
                ),
            ),
            ("10", Err("too large index: \"10\"")),
            ("2-10", Err("too large index: \"10\"")),
            ("5-3", Err("non-increasing order, previous: 5, current: 3")),
            ("5,4", Err("non-increasing order, previous: 5, current: 4")),
        ] {
            let read = Indexes::parse(text, 10).map(|indexes| indexes.to_string());
            let read = read.map_err(|error| error.to_string());
            assert_eq!(read, expected.map(str::to_owned).map_err(str::to_owned), "{text}");
        }
        assert_eq!(Indexes::of_status("1,3-9", 5).to_string(), "1,3,4");
        assert_eq!(Indexes::of_status("x,2", 5).to_string(), "2");
    }

    proptest! {
        #[test]
        fn they_are_a_set(values in prop::collection::vec(0..60_i32, 0..80)) {
            let mut indexes = Indexes::default();
            indexes.extend(values.iter().copied());
            let set: BTreeSet<i32> = values.into_iter().collect();
            prop_assert_eq!(indexes.iter().collect::<Vec<_>>(), set.iter().copied().collect::<Vec<_>>());
            prop_assert_eq!(usize::try_from(indexes.count()).unwrap(), set.len());
            for index in 0..60 {
                prop_assert_eq!(indexes.contains(index), set.contains(&index));
            }
            prop_assert_eq!(&Indexes::parse(&indexes.to_string(), 60).unwrap(), &indexes);
            prop_assert_eq!(&Indexes::of_status(&indexes.to_string(), 60), &indexes);
        }
    }
}
