//! The log in front of the data file: what was written lately, in the order of revisions.
//!
//! A group of changes is one append and one sync, which is all that a writer waits for. A log is
//! cut into segments, one file each, named by the first revision they hold; the data file takes
//! in a whole segment at a time, and the segment goes.
//!
//! A group begins at a multiple of [`BLOCK`], so that no block of an earlier, acknowledged group is
//! ever written again. It has a head (mark, CRC-32 of the rest, length of the records, their
//! number, the first one's revision, the clock) and one record per change: lengths of key and
//! value, key, value, as the data file has them; all numbers little endian. Revisions have no
//! gaps, so that neither a group from elsewhere nor a missing one can go unnoticed.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use wharf_model::object::Revision;
use wharf_model::time::Time;

/// Groups begin at multiples of this: the unit in which disks write.
const BLOCK: usize = 4096;
/// How far ahead a segment is filled with zeros: a write into a file that is long enough costs the
/// sync no change of the file's length.
const AHEAD_BYTES: usize = 1 << 20;
/// What a group begins with.
const MARK: u32 = u32::from_le_bytes(*b"whlg");
const HEAD_BYTES: usize = 40;
const RECORD_HEAD_BYTES: usize = 8;
/// The length that says that there is no value: the object was removed.
const REMOVED: u32 = u32::MAX;
/// The clock of a group without one.
const NO_CLOCK: i64 = i64::MIN;

/// Something that appends.
pub(crate) type Append<'a> = &'a dyn Fn(&mut Vec<u8>);

/// A group in the making.
#[derive(Debug, Default)]
pub(crate) struct Group {
    bytes: Vec<u8>,
    count: u32,
}

impl Group {
    /// Begins anew.
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        // A burst of large objects must not be paid for ever after.
        self.bytes.shrink_to(AHEAD_BYTES);
        self.bytes.resize(HEAD_BYTES, 0);
        self.count = 0;
    }

    /// How long it is so far.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Adds a change. Both append to what they are given; no `value` is a removal.
    pub(crate) fn add(&mut self, key: Append<'_>, value: Option<Append<'_>>) {
        let head = self.bytes.len();
        self.bytes.extend_from_slice(&[0; RECORD_HEAD_BYTES]);
        key(&mut self.bytes);
        let value_at = self.bytes.len();
        let key_length = length(value_at - head - RECORD_HEAD_BYTES);
        let value_length = match value {
            Some(value) => {
                value(&mut self.bytes);
                length(self.bytes.len() - value_at)
            }
            None => REMOVED,
        };
        self.bytes[head..head + 4].copy_from_slice(&key_length.to_le_bytes());
        self.bytes[head + 4..head + 8].copy_from_slice(&value_length.to_le_bytes());
        self.count += 1;
    }

    /// The finished group, whose first change has the revision `first`.
    fn finish(&mut self, first: Revision, clock: Option<Time>) -> &[u8] {
        let records = length(self.bytes.len() - HEAD_BYTES);
        let clock = clock.map_or(NO_CLOCK, Time::as_nanos);
        self.bytes[..4].copy_from_slice(&MARK.to_le_bytes());
        self.bytes[8..12].copy_from_slice(&records.to_le_bytes());
        self.bytes[12..16].copy_from_slice(&self.count.to_le_bytes());
        self.bytes[16..24].copy_from_slice(&first.to_le_bytes());
        self.bytes[24..32].copy_from_slice(&clock.to_le_bytes());
        let sum = crc32fast::hash(&self.bytes[8..]);
        self.bytes[4..8].copy_from_slice(&sum.to_le_bytes());
        self.bytes.resize(self.bytes.len().next_multiple_of(BLOCK), 0);
        &self.bytes
    }
}

/// Objects are bounded by the size of a request and groups by their writer, far below 4 GiB.
fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("invariant: a group is shorter than 4 GiB")
}

/// The segment that is being written.
#[derive(Debug)]
pub(crate) struct Segment {
    file: File,
    path: PathBuf,
    end: u64,
    filled: u64,
}

impl Segment {
    /// A new one, for changes from revision `first` on.
    pub(crate) fn create(directory: &Path, first: Revision) -> io::Result<Self> {
        let path = directory.join(format!("changes-{first:020}.log"));
        let file = OpenOptions::new().write(true).create_new(true).open(&path)?;
        // Only now will the file itself be there after a crash.
        File::open(directory)?.sync_all()?;
        Ok(Self { file, path, end: 0, filled: 0 })
    }

    /// Appends a group and waits until it would survive a crash.
    pub(crate) fn append(
        &mut self,
        group: &mut Group,
        first: Revision,
        clock: Option<Time>,
    ) -> io::Result<()> {
        let bytes = group.finish(first, clock);
        let end = self.end + bytes.len() as u64;
        if end > self.filled {
            self.file.write_all_at(&vec![0; AHEAD_BYTES], end)?;
            self.filled = end + AHEAD_BYTES as u64;
        }
        self.file.write_all_at(bytes, self.end)?;
        self.file.sync_data()?;
        self.end = end;
        Ok(())
    }

    /// How long it is.
    pub(crate) fn len(&self) -> u64 {
        self.end
    }

    /// Its file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

/// The segments in a directory, in the order of their revisions.
pub(crate) fn segments(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let digits = name.strip_prefix("changes-").and_then(|name| name.strip_suffix(".log"));
        if digits.is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_digit())) {
            found.push(path);
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// Why a segment cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    /// The system refused.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// What is there is not what was written.
    #[error("{0}")]
    Damaged(String),
}

/// Where a record is in its segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    /// The key.
    pub(crate) key: Box<[u8]>,
    /// Where the value begins.
    pub(crate) at: u64,
    /// How long it is; `None` for a removal.
    pub(crate) length: Option<usize>,
}

/// A segment that is being read.
#[derive(Debug)]
pub(crate) struct Reader {
    file: File,
    /// The last revision it holds, or the one before its first.
    pub(crate) last: Revision,
    /// The last clock it holds.
    pub(crate) clock: Option<Time>,
    /// Its changes after the revision asked for, in their order.
    pub(crate) records: Vec<Record>,
}

impl Reader {
    /// Reads the changes after revision `after`, which are all checked: a group that was not
    /// written to its end is left out, as nobody was told that it is there.
    pub(crate) fn open(path: &Path, after: Revision) -> Result<Self, ReadError> {
        let file = File::open(path)?;
        let size = file.metadata()?.len();
        let mut reader = Self { file, last: after, clock: None, records: Vec::new() };
        let mut at = 0;
        while let Some(group) = reader.group(at, size)? {
            if group.first > reader.last + 1 {
                return Err(ReadError::Damaged(format!(
                    "the changes from revision {} to {} are missing",
                    reader.last + 1,
                    group.first - 1
                )));
            }
            reader.take(&group, at)?;
            at += (HEAD_BYTES + group.records.len()).next_multiple_of(BLOCK) as u64;
        }
        reader.refuse_later_groups(at, size)?;
        Ok(reader)
    }

    /// The last record of each key, in the order of keys.
    pub(crate) fn newest(&self) -> impl Iterator<Item = &Record> {
        let mut records: Vec<_> = self.records.iter().enumerate().collect();
        records.sort_unstable_by(|(left_at, left), (right_at, right)| {
            left.key.cmp(&right.key).then(right_at.cmp(left_at))
        });
        records.dedup_by(|(_, earlier), (_, last)| earlier.key == last.key);
        records.into_iter().map(|(_, record)| record)
    }

    /// The value of a record; `None` for a removal.
    pub(crate) fn value(&self, record: &Record) -> io::Result<Option<Vec<u8>>> {
        let Some(length) = record.length else { return Ok(None) };
        let mut value = vec![0; length];
        self.file.read_exact_at(&mut value, record.at)?;
        Ok(Some(value))
    }

    fn group(&self, at: u64, size: u64) -> io::Result<Option<Found>> {
        if at + HEAD_BYTES as u64 > size {
            return Ok(None);
        }
        let mut head = [0; HEAD_BYTES];
        self.file.read_exact_at(&mut head, at)?;
        let word =
            |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let long = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
        let records_at = at + HEAD_BYTES as u64;
        if word(0) != MARK || records_at + u64::from(word(8)) > size {
            return Ok(None);
        }
        let mut records = vec![0; word(8) as usize];
        self.file.read_exact_at(&mut records, records_at)?;
        let mut sum = crc32fast::Hasher::new();
        sum.update(&head[8..]);
        sum.update(&records);
        if sum.finalize() != word(4) {
            return Ok(None);
        }
        let clock = long(24).cast_signed();
        let clock = (clock != NO_CLOCK).then(|| Time::from_nanos(clock));
        Ok(Some(Found { first: long(16), count: word(12), clock, records }))
    }

    fn take(&mut self, group: &Found, at: u64) -> Result<(), ReadError> {
        let unreadable = || ReadError::Damaged(format!("the group at byte {at} is unreadable"));
        self.clock = group.clock.or(self.clock);
        let mut rest = &group.records[..];
        let mut position = at + HEAD_BYTES as u64;
        for revision in (group.first..).take(group.count as usize) {
            let (key_length, after) = rest.split_first_chunk::<4>().ok_or_else(unreadable)?;
            let (value_length, after) = after.split_first_chunk::<4>().ok_or_else(unreadable)?;
            let key_length = u32::from_le_bytes(*key_length) as usize;
            let value_length = u32::from_le_bytes(*value_length);
            let length = (value_length != REMOVED).then_some(value_length as usize);
            let (key, after) = after.split_at_checked(key_length).ok_or_else(unreadable)?;
            let (_, after) = after.split_at_checked(length.unwrap_or(0)).ok_or_else(unreadable)?;
            let value_at = position + (RECORD_HEAD_BYTES + key_length) as u64;
            position = value_at + length.unwrap_or(0) as u64;
            rest = after;
            if revision > self.last {
                self.last = revision;
                self.records.push(Record { key: key.into(), at: value_at, length });
            }
        }
        Ok(())
    }

    /// A group is begun only when all before it are on disk: one that follows something unreadable
    /// says that this was damaged later.
    fn refuse_later_groups(&self, mut at: u64, size: u64) -> Result<(), ReadError> {
        let damaged = at;
        while at < size {
            if self.group(at, size)?.is_some_and(|group| group.first > self.last + 1) {
                return Err(ReadError::Damaged(format!(
                    "what is at byte {damaged} does not match its checksum"
                )));
            }
            at += BLOCK as u64;
        }
        Ok(())
    }
}

/// A group as it was found.
struct Found {
    first: Revision,
    count: u32,
    clock: Option<Time>,
    records: Vec<u8>,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Change = (Vec<u8>, Option<Vec<u8>>);

    fn group_of(changes: &[Change]) -> Group {
        let mut group = Group::default();
        group.clear();
        for (key, value) in changes {
            let write = |out: &mut Vec<u8>| out.extend_from_slice(value.as_deref().unwrap_or(b""));
            let is_there = value.is_some();
            group.add(&|out| out.extend_from_slice(key), is_there.then_some(&write));
        }
        group
    }

    /// Writes groups from revision `first` on; returns the segment and where each group ends.
    fn written(directory: &Path, first: Revision, groups: &[Vec<Change>]) -> (PathBuf, Vec<u64>) {
        let mut segment = Segment::create(directory, first).unwrap();
        let mut next = first;
        let mut ends = Vec::new();
        for changes in groups {
            let clock = Some(Time::from_nanos(next.cast_signed()));
            segment.append(&mut group_of(changes), next, clock).unwrap();
            next += changes.len() as u64;
            ends.push(segment.end);
        }
        (segment.path, ends)
    }

    fn read(path: &Path, after: Revision) -> Result<Vec<Change>, ReadError> {
        let reader = Reader::open(path, after)?;
        let changes = reader.records.iter();
        Ok(changes.map(|record| (record.key.to_vec(), reader.value(record).unwrap())).collect())
    }

    fn groups() -> impl Strategy<Value = Vec<Vec<Change>>> {
        let value = prop_oneof![
            Just(None),
            proptest::collection::vec(any::<u8>(), 0..40).prop_map(Some),
            (4000..4200_usize).prop_map(|length| Some(vec![7; length])),
        ];
        let change = (proptest::collection::vec(any::<u8>(), 1..6), value);
        proptest::collection::vec(proptest::collection::vec(change, 1..5), 1..6)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

        /// A crash leaves some of the last group's blocks, in any order: what is read is all groups
        /// before it, and it too if all of it is there.
        #[test]
        fn a_group_is_there_wholly_or_not_at_all(
            groups in groups(),
            lost in proptest::collection::vec(any::<bool>(), 8),
            skipped in 0..4_usize,
        ) {
            let directory = tempfile::tempdir().unwrap();
            let (path, ends) = written(directory.path(), 5, &groups);
            let all: Vec<Change> = groups.concat();
            let skipped = skipped.min(all.len());
            prop_assert_eq!(&read(&path, 4 + skipped as u64).unwrap(), &all[skipped..]);

            let begin = ends.iter().rev().nth(1).copied().unwrap_or(0);
            let end = *ends.last().unwrap();
            let file = OpenOptions::new().write(true).open(&path).unwrap();
            let mut is_whole = true;
            for (block, _) in lost.iter().enumerate().filter(|(_, lost)| **lost) {
                let at = begin + (block * BLOCK) as u64;
                if at < end {
                    file.write_all_at(&[0; BLOCK], at).unwrap();
                    is_whole = false;
                }
            }
            let last = if is_whole { 0 } else { groups.last().unwrap().len() };
            let found = read(&path, 4).unwrap();
            // A block of nothing but zeros can be lost without harm.
            prop_assert!(found == all[..all.len() - last] || found == all);
        }

        /// The newest record of each key is what a map would hold.
        #[test]
        fn the_newest_of_each_key_counts(groups in groups()) {
            let directory = tempfile::tempdir().unwrap();
            let (path, _) = written(directory.path(), 1, &groups);
            let reader = Reader::open(&path, 0).unwrap();
            let expected: std::collections::BTreeMap<_, _> = groups.concat().into_iter().collect();
            let newest = reader.newest();
            let found: Vec<Change> =
                newest.map(|record| (record.key.to_vec(), reader.value(record).unwrap())).collect();
            prop_assert_eq!(found, expected.into_iter().collect::<Vec<_>>());
        }
    }

    fn small(key: u8) -> Vec<Change> {
        vec![(vec![key], Some(vec![key; 10]))]
    }

    #[test]
    fn damage_before_the_last_group_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let (path, ends) = written(directory.path(), 1, &[small(1), small(2), small(3)]);
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        file.write_all_at(b"x", ends[0] + 50).unwrap();
        let error = read(&path, 0).unwrap_err();
        assert_eq!(error.to_string(), "what is at byte 4096 does not match its checksum");
    }

    #[test]
    fn missing_changes_are_told() {
        let directory = tempfile::tempdir().unwrap();
        let (path, _) = written(directory.path(), 7, &[small(1)]);
        let error = read(&path, 2).unwrap_err();
        assert_eq!(error.to_string(), "the changes from revision 3 to 6 are missing");
        assert_eq!(read(&path, 9).unwrap(), [], "nothing is newer");
    }

    #[test]
    fn a_lone_clock_is_kept() {
        let directory = tempfile::tempdir().unwrap();
        let (path, _) = written(directory.path(), 3, &[small(1), Vec::new()]);
        let reader = Reader::open(&path, 2).unwrap();
        assert_eq!((reader.last, reader.clock), (3, Some(Time::from_nanos(4))));
        assert_eq!(segments(directory.path()).unwrap(), [path]);
    }
}
