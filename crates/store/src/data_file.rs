//! The data file: the newest version of each object, in a redb database. It is behind by what the
//! [log](crate::log) holds, and takes that in a segment at a time, each as one transaction.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use redb::{
    Database, DatabaseError, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition,
};
use wharf_model::kinds::Kind;
use wharf_model::object::{Object, ObjectKey, Revision};
use wharf_model::time::Time;

use crate::disk::OpenError;
use crate::log::Reader;

/// Newest version of every object: `group/plural NUL namespace NUL name` to revision (8 bytes,
/// little endian), CRC-32 of the rest (4 bytes), JSON.
const OBJECTS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("objects");
/// `format`, `revision` and `clock`, each a little-endian 64-bit integer.
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");

/// Format of the data directory; raised when a reader of the old one would misread the new one.
/// 2: a log is in front of the data file.
pub(crate) const FORMAT: u64 = 2;
/// redb's page cache. The state lives in our memory; the cache only helps when segments are taken
/// in.
const CACHE_BYTES: usize = 4 << 20;
const HEAD_BYTES: usize = 12;

/// The data file.
pub(crate) struct DataFile {
    database: Database,
    path: PathBuf,
}

/// How far the data file has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Standing {
    /// The last revision it has taken in.
    pub(crate) revision: Revision,
    /// The cluster's time then.
    pub(crate) clock: Option<Time>,
}

impl DataFile {
    /// Opens or creates the file in a directory.
    pub(crate) fn open(directory: &Path) -> Result<(Self, Standing), OpenError> {
        let path = directory.join("wharf.redb");
        let opened = guarded(&path, || {
            let database = Database::builder()
                .set_cache_size(CACHE_BYTES)
                .create(&path)
                .map_err(|error| cannot_open(directory, &path, error))?;
            let (standing, format) = standing(&database, &path)?;
            if format < FORMAT {
                mark(&database).map_err(|error| corrupt(&path, error.to_string()))?;
            }
            Ok((database, standing))
        });
        let (database, standing) = opened?;
        Ok((Self { database, path }, standing))
    }

    /// Gives out everything it holds.
    pub(crate) fn load(&self, restore: &mut dyn FnMut(Restored)) -> Result<(), OpenError> {
        guarded(&self.path, || objects(&self.database, &self.path, restore))
    }

    /// Takes in what a segment of the log holds, as one transaction.
    pub(crate) fn take_in(&self, segment: &Reader) -> Result<(), Box<redb::Error>> {
        let boxed = |error: redb::Error| Box::new(error);
        let transaction = self.database.begin_write().map_err(|error| boxed(error.into()))?;
        {
            let mut objects =
                transaction.open_table(OBJECTS).map_err(|error| boxed(error.into()))?;
            // The order of keys touches each page once.
            for record in segment.newest() {
                let value = segment
                    .value(record)
                    .map_err(|error| boxed(redb::StorageError::Io(error).into()))?;
                match value {
                    Some(value) => objects.insert(&*record.key, value.as_slice()),
                    None => objects.remove(&*record.key),
                }
                .map_err(|error| boxed(error.into()))?;
            }
            let mut meta = transaction.open_table(META).map_err(|error| boxed(error.into()))?;
            let clock = segment.clock.map(|clock| ("clock", clock.as_nanos().cast_unsigned()));
            let revision = Some(("revision", segment.last));
            for (name, value) in [revision, clock].into_iter().flatten() {
                meta.insert(name, value).map_err(|error| boxed(error.into()))?;
            }
        }
        transaction.commit().map_err(|error| boxed(error.into()))
    }
}

/// redb checks what it reads but may still panic on a file damaged in the middle.
fn guarded<T>(path: &Path, read: impl FnOnce() -> Result<T, OpenError>) -> Result<T, OpenError> {
    catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|_| {
        Err(OpenError::Corrupt {
            path: path.to_owned(),
            what: "its pages do not fit together".to_owned(),
        })
    })
}

fn cannot_open(directory: &Path, path: &Path, error: DatabaseError) -> OpenError {
    match error {
        DatabaseError::DatabaseAlreadyOpen => OpenError::Locked(directory.to_owned()),
        DatabaseError::Storage(redb::StorageError::Io(error))
            if error.kind() != io::ErrorKind::InvalidData
                && error.kind() != io::ErrorKind::UnexpectedEof =>
        {
            OpenError::Unusable { path: directory.to_owned(), error }
        }
        error => OpenError::Corrupt { path: path.to_owned(), what: error.to_string() },
    }
}

/// The key of an object, in the data file and in the log.
pub(crate) fn write_key(object: &Object, key: &mut Vec<u8>) {
    let kind = object.kind();
    let name = object.key();
    let parts =
        [kind.group, "/", kind.plural, "\0", name.namespace.as_str(), "\0", name.name.as_str()];
    parts.into_iter().for_each(|part| key.extend_from_slice(part.as_bytes()));
}

/// The value of an object, in the data file and in the log.
pub(crate) fn write_value(object: &Object, value: &mut Vec<u8>) {
    let begin = value.len();
    value.extend_from_slice(&object.revision().to_le_bytes());
    value.extend_from_slice(&[0; HEAD_BYTES - 8]);
    object.write_json(value);
    let sum = crc32fast::hash(&value[begin + HEAD_BYTES..]);
    value[begin + 8..begin + HEAD_BYTES].copy_from_slice(&sum.to_le_bytes());
}

fn begin_read(database: &Database, path: &Path) -> Result<ReadTransaction, OpenError> {
    database.begin_read().map_err(|error| corrupt(path, error.to_string()))
}

fn corrupt(path: &Path, what: String) -> OpenError {
    OpenError::Corrupt { path: path.to_owned(), what }
}

/// Marks the file with the format, so that no older Wharf overlooks the log.
fn mark(database: &Database) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    transaction.open_table(META)?.insert("format", FORMAT)?;
    Ok(transaction.commit()?)
}

/// How far a file has come, and its format; 0 for a new one.
fn standing(database: &Database, path: &Path) -> Result<(Standing, u64), OpenError> {
    let transaction = begin_read(database, path)?;
    let meta = match transaction.open_table(META) {
        Ok(meta) => meta,
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok((Standing::default(), 0)),
        Err(error) => return Err(corrupt(path, error.to_string())),
    };
    let number = |name: &str| match meta.get(name) {
        Ok(value) => Ok(value.map(|value| value.value())),
        Err(error) => Err(corrupt(path, error.to_string())),
    };
    let found = number("format")?.unwrap_or_default();
    if found > FORMAT {
        return Err(OpenError::Newer { path: path.to_owned(), found });
    }
    let standing = Standing {
        revision: number("revision")?.unwrap_or_default(),
        clock: number("clock")?.map(|nanos| Time::from_nanos(nanos.cast_signed())),
    };
    Ok((standing, found))
}

fn objects(
    database: &Database,
    path: &Path,
    restore: &mut dyn FnMut(Restored),
) -> Result<(), OpenError> {
    let transaction = begin_read(database, path)?;
    let table = match transaction.open_table(OBJECTS) {
        Ok(table) => table,
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(()),
        Err(error) => return Err(corrupt(path, error.to_string())),
    };
    for entry in table.iter().map_err(|error| corrupt(path, error.to_string()))? {
        let (key, value) = entry.map_err(|error| corrupt(path, error.to_string()))?;
        let restored =
            read(key.value(), Some(value.value())).map_err(|what| corrupt(path, what))?;
        restored.into_iter().for_each(&mut *restore);
    }
    Ok(())
}

/// What is read from disk.
#[derive(Debug)]
pub(crate) enum Restored {
    /// An object as it is now.
    There(Arc<Object>),
    /// An object that is no longer there.
    Gone(Kind, ObjectKey),
}

/// One stored object, without a value one that was removed; `None` for a kind that this Wharf does
/// not know, which stays on disk.
pub(crate) fn read(key: &[u8], value: Option<&[u8]>) -> Result<Option<Restored>, String> {
    let unreadable = || format!("unreadable key {}", name(key));
    let text = std::str::from_utf8(key).map_err(|_| unreadable())?;
    let mut parts = text.split('\0');
    let resource = parts.next().unwrap_or_default();
    let (group, plural) = resource.split_once('/').ok_or_else(unreadable)?;
    let Some(kind) = Kind::by_resource(group, plural) else { return Ok(None) };
    match value {
        Some(value) => {
            read_value(kind, key, value).map(|object| Some(Restored::There(Arc::new(object))))
        }
        None => {
            let mut part = || parts.next().ok_or_else(unreadable);
            Ok(Some(Restored::Gone(kind, ObjectKey::namespaced(part()?, part()?))))
        }
    }
}

fn read_value(kind: Kind, key: &[u8], value: &[u8]) -> Result<Object, String> {
    let (Some((revision, rest)), true) =
        (value.split_first_chunk::<8>(), value.len() >= HEAD_BYTES)
    else {
        return Err(format!("{} is cut short", name(key)));
    };
    let (sum, json) = rest.split_at(HEAD_BYTES - 8);
    if crc32fast::hash(json).to_le_bytes() != sum {
        return Err(format!("{} does not match its checksum", name(key)));
    }
    Object::from_json(kind, Bytes::copy_from_slice(json), Revision::from_le_bytes(*revision))
        .map_err(|error| format!("{}: {error}", name(key)))
}

fn name(key: &[u8]) -> String {
    String::from_utf8_lossy(key).replace('\0', " ")
}
