//! The store against a plain model, across restarts, and against damaged files.

use std::collections::BTreeMap;
use std::path::Path;

use k8s_openapi::api::core::v1::ConfigMap;
use proptest::prelude::*;
use wharf_model::kinds::Kind;
use wharf_model::object::{ObjectKey, Revision};
use wharf_model::time::Time;
use wharf_ports::cluster::Change;
use wharf_store::{Expect, OpenError, PutError, Store, Visibility};

fn config_map(namespace: &str, name: &str, value: &str) -> Box<ConfigMap> {
    let mut map = ConfigMap {
        data: Some(BTreeMap::from([("k".to_owned(), value.to_owned())])),
        ..ConfigMap::default()
    };
    map.metadata.namespace = Some(namespace.to_owned());
    map.metadata.name = Some(name.to_owned());
    Box::new(map)
}

fn kind() -> Kind {
    Kind::of::<ConfigMap>()
}

fn value(object: &wharf_model::object::Object) -> String {
    let map = object.typed::<ConfigMap>().expect("a ConfigMap");
    map.data.as_ref().and_then(|data| data.get("k")).cloned().unwrap_or_default()
}

#[test]
fn expectations_are_checked() {
    let store = Store::ephemeral();
    let key = ObjectKey::namespaced("n", "a");
    let first = store.put(config_map("n", "a", "1"), Expect::Absent).expect("absent");
    assert_eq!(first.revision(), 1);
    assert!(matches!(
        store.put(config_map("n", "a", "2"), Expect::Absent),
        Err(PutError::Exists(_))
    ));
    assert!(matches!(
        store.put(config_map("n", "a", "2"), Expect::At(9)),
        Err(PutError::Changed(_))
    ));
    assert!(matches!(store.put(config_map("n", "b", "2"), Expect::At(1)), Err(PutError::Missing)));
    assert_eq!(store.revision(), 1, "a refused write takes no revision");
    store.put(config_map("n", "a", "2"), Expect::At(1)).expect("at its revision");
    let (last, revision) = store.remove(kind(), &key, Expect::Any).expect("there");
    assert_eq!((value(&last), revision), ("2".to_owned(), 3));
    assert!(matches!(store.remove(kind(), &key, Expect::Any), Err(PutError::Missing)));
}

#[test]
fn a_kind_that_asks_for_json_is_held_as_json_but_not_in_a_rehearsal() {
    let object = Store::ephemeral().put(config_map("n", "a", "1"), Expect::Any).expect("any");
    assert!(object.json().starts_with(b"{\"apiVersion\":\"v1\""));
    assert_eq!(value(&object), "1");
    let rehearsed = Store::rehearsal().put(config_map("n", "a", "1"), Expect::Any).expect("any");
    assert_eq!(rehearsed.header(), object.header());
}

#[test]
fn a_watch_that_fell_behind_is_told_so() {
    let store = Store::ephemeral();
    let mut watch = store.watch(Some(kind()), 0, Visibility::Durable).expect("from the start");
    for round in 0..8_193 {
        store.put(config_map("n", "a", &round.to_string()), Expect::Any).expect("any");
    }
    assert!(watch.drain(&mut Vec::new()).is_err());
    assert!(store.watch(Some(kind()), 0, Visibility::Durable).is_err());
    assert!(store.page(kind(), None, Some(0), None, None).is_err());
    assert!(store.watch(Some(kind()), 1, Visibility::Durable).is_ok());
}

#[test]
fn what_was_flushed_is_there_after_reopening() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    {
        let store = Store::open(directory.path()).expect("a new directory");
        for index in 0..100 {
            store
                .put(config_map("n", &format!("c{index}"), &index.to_string()), Expect::Absent)
                .expect("absent");
        }
        store.remove(kind(), &ObjectKey::namespaced("n", "c7"), Expect::Any).expect("there");
        store.set_clock(Time::from_seconds(1_234));
        store.flush().expect("a healthy disk");
    }
    let store = Store::open(directory.path()).expect("its own file");
    assert_eq!(store.revision(), 101);
    assert_eq!(store.count(kind()), 99);
    assert_eq!(store.clock_at_open(), Some(Time::from_seconds(1_234)));
    let object = store.get(kind(), &ObjectKey::namespaced("n", "c42")).expect("stored");
    assert_eq!((value(&object), object.revision()), ("42".to_owned(), 43));
    assert!(store.watch(Some(kind()), 5, Visibility::Durable).is_err(), "history begins anew");
    assert!(store.watch(None, 101, Visibility::Durable).is_ok());
    let next = store.put(config_map("n", "z", ""), Expect::Absent).expect("absent");
    assert_eq!(next.revision(), 102);
}

/// What a kill would leave behind: the files as they are.
fn image(of: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().expect("a temporary directory");
    for entry in std::fs::read_dir(of).expect("a directory") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().expect("a file");
        std::fs::copy(&path, copy.path().join(name)).expect("a readable file");
    }
    copy
}

#[test]
fn what_was_flushed_survives_a_kill() {
    let mut directory = tempfile::tempdir().expect("a temporary directory");
    for round in 0..4_u64 {
        let store = Store::open(directory.path()).expect("what was left behind");
        assert_eq!(store.revision(), round * 103);
        for index in 0..100 {
            let text = format!("{round}/{index}");
            store.put(config_map("n", &format!("c{index}"), &text), Expect::Any).expect("any");
        }
        for index in [7, 8, 9] {
            let key = ObjectKey::namespaced("n", format!("c{index}"));
            store.remove(kind(), &key, Expect::Any).expect("there");
        }
        store.set_clock(Time::from_seconds(i64::try_from(round).expect("a small number")));
        store.flush().expect("a healthy disk");
        let killed = image(directory.path());
        let left = Store::open(killed.path()).expect("what a kill leaves behind");
        assert_eq!(left.count(kind()), 97);
        let object = left.get(kind(), &ObjectKey::namespaced("n", "c42")).expect("stored");
        assert_eq!((value(&object), object.revision()), (format!("{round}/42"), round * 103 + 43));
        let seconds = left.clock_at_open().map(Time::as_seconds);
        assert_eq!(seconds.and_then(|seconds| u64::try_from(seconds).ok()), Some(round));
        drop(left);
        directory = killed;
    }
}

#[test]
fn a_second_opener_is_told_who_holds_it() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let _first = Store::open(directory.path()).expect("a new directory");
    let error = Store::open(directory.path()).expect_err("it is in use");
    assert!(matches!(error, OpenError::Locked(_)), "{error}");
}

#[test]
fn a_path_that_is_no_directory_is_unusable() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("file");
    std::fs::write(&file, "x").expect("a writable directory");
    let error = Store::open(&file).expect_err("not a directory");
    assert!(matches!(error, OpenError::Unusable { .. }), "{error}");
}

fn filled(directory: &Path) -> Vec<u8> {
    let store = Store::open(directory).expect("a new directory");
    for index in 0..200 {
        let text = format!("value-{index}-").repeat(20);
        store.put(config_map("n", &format!("c{index}"), &text), Expect::Any).expect("any");
    }
    store.flush().expect("a healthy disk");
    drop(store);
    std::fs::read(directory.join("wharf.redb")).expect("the data file")
}

#[test]
fn a_damaged_file_is_refused_or_read_right_but_never_read_wrong() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let whole = filled(directory.path());
    let file = directory.path().join("wharf.redb");
    let expected: Vec<String> = {
        let store = Store::open(directory.path()).expect("its own file");
        store.list(kind(), None).0.iter().map(|object| value(object)).collect()
    };
    for step in 0..40 {
        let mut damaged = whole.clone();
        let position = step * damaged.len() / 40;
        let end = (position + 64).min(damaged.len());
        damaged[position..end].fill(0xa5);
        std::fs::write(&file, &damaged).expect("a writable file");
        match Store::open(directory.path()) {
            Err(OpenError::Corrupt { .. } | OpenError::Newer { .. }) => {}
            Err(other) => panic!("damage at {position} was told as {other}"),
            Ok(store) => {
                let read: Vec<String> =
                    store.list(kind(), None).0.iter().map(|object| value(object)).collect();
                assert_eq!(read, expected, "damage at {position} went unseen");
            }
        }
    }
    std::fs::write(&file, b"not a data file at all").expect("a writable file");
    let error = Store::open(directory.path()).expect_err("rubbish");
    assert!(matches!(error, OpenError::Corrupt { .. }), "{error}");
    assert_eq!(std::fs::read(&file).expect("still there"), b"not a data file at all");
}

#[derive(Clone, Debug)]
enum Operation {
    Put(u8, u8),
    Remove(u8),
    Drain,
}

fn operations() -> impl Strategy<Value = Vec<Operation>> {
    let operation = prop_oneof![
        4 => (0..12_u8, any::<u8>()).prop_map(|(key, value)| Operation::Put(key, value)),
        2 => (0..12_u8).prop_map(Operation::Remove),
        1 => Just(Operation::Drain),
    ];
    proptest::collection::vec(operation, 1..80)
}

type Model = BTreeMap<ObjectKey, String>;

fn key(index: u8) -> ObjectKey {
    ObjectKey::namespaced(format!("ns{}", index % 3), format!("c{index}"))
}

fn replay(model: &mut Model, changes: &[Change]) {
    for change in changes {
        match &change.new {
            Some(object) => model.insert(object.key().clone(), value(object)),
            None => model.remove(change.key()),
        };
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    /// The store equals a sorted map at every revision, and a watch rebuilds it.
    #[test]
    fn equals_a_sorted_map(operations in operations()) {
        let store = Store::ephemeral();
        let mut watch = store.watch(None, 0, Visibility::Durable).expect("from the start");
        let (mut model, mut watched) = (Model::new(), Model::new());
        let mut past: Vec<(Revision, Model)> = vec![(0, Model::new())];
        for operation in operations {
            match operation {
                Operation::Put(index, v) => {
                    let key = key(index);
                    store.put(config_map(&key.namespace, &key.name, &v.to_string()), Expect::Any).expect("any");
                    model.insert(key, v.to_string());
                    past.push((store.revision(), model.clone()));
                }
                Operation::Remove(index) => {
                    let removed = store.remove(kind(), &key(index), Expect::Any).is_ok();
                    prop_assert_eq!(removed, model.remove(&key(index)).is_some());
                    if removed {
                        past.push((store.revision(), model.clone()));
                    }
                }
                Operation::Drain => {
                    let mut changes = Vec::new();
                    watch.drain(&mut changes).expect("within the window");
                    prop_assert!(changes.windows(2).all(|pair| pair[0].revision < pair[1].revision));
                    replay(&mut watched, &changes);
                    prop_assert_eq!(&watched, &model);
                }
            }
        }
        for (revision, then) in &past {
            let mut paged = Vec::new();
            let mut after = None;
            loop {
                let page = store.page(kind(), None, Some(*revision), after.as_ref(), Some(3)).expect("within the window");
                paged.extend(page.objects.iter().map(|object| (object.key().clone(), value(object))));
                prop_assert_eq!(paged.len() + page.remaining, then.len());
                if page.remaining == 0 { break; }
                after = page.objects.last().map(|object| object.key().clone());
            }
            prop_assert_eq!(&paged.into_iter().collect::<Model>(), then);
            let of_one = store.page(kind(), Some("ns1"), Some(*revision), None, None).expect("within the window");
            prop_assert_eq!(of_one.objects.len(), then.keys().filter(|key| key.namespace == "ns1").count());
        }
    }
}
