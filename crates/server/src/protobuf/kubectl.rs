//! The decoder against what kubectl sends, whole and damaged.

use proptest::prelude::*;
use serde_json::json;

use super::*;

/// A command, the body it sends, and the object in it.
struct Case {
    command: &'static str,
    body: Vec<u8>,
    object: Value,
}

fn cases() -> Vec<Case> {
    let text = include_str!("../../tests/data/kubectl-protobuf.txt");
    text.split("\n\n")
        .skip(1)
        .map(|case| {
            let lines: Vec<&str> = case.lines().collect();
            let [command, _path, body, object] = lines[..] else { panic!("four lines: {case}") };
            let body = (0..body.len())
                .step_by(2)
                .map(|at| u8::from_str_radix(&body[at..at + 2], 16).expect("hexadecimal"))
                .collect();
            Case { command, body, object: serde_json::from_str(object).expect("JSON") }
        })
        .collect()
}

#[test]
fn bodies_read_as_the_json_that_kubectl_prints() {
    for case in cases() {
        let object =
            to_json(&case.body).unwrap_or_else(|error| panic!("{}: {error}", case.command));
        assert_eq!(object, case.object, "{}", case.command);
    }
}

#[test]
fn a_body_that_was_cut_off_is_refused() {
    for case in cases() {
        // The last four bytes are the envelope's encoding and content type, both empty.
        let whole = case.body.len() - 4;
        assert_eq!(to_json(&case.body[..whole]).expect("whole"), case.object);
        // Between its two other fields the envelope can be cut as if it had only the first.
        let bare = json!({"apiVersion": case.object["apiVersion"], "kind": case.object["kind"]});
        let mut bare_count = 0;
        for end in 0..whole {
            match to_json(&case.body[..end]) {
                Ok(object) => {
                    assert_eq!(object, bare, "{} to {end}", case.command);
                    bare_count += 1;
                }
                Err(error) => assert_eq!(error.reason.code(), 400, "{} to {end}", case.command),
            }
        }
        assert_eq!(bare_count, 1, "{}", case.command);
    }
}

#[test]
fn every_entry_of_the_table_is_read() {
    let lines = include_str!("../../data/protobuf-fields.txt").lines();
    let mut count = 0;
    for line in lines.filter(|line| !line.starts_with('#')) {
        let (name, fields) = line.split_once(": ").expect("a name and fields");
        let message = messages().get(name).expect("read");
        assert_eq!(message.len(), fields.split(", ").count(), "{name}");
        count += 1;
    }
    assert_eq!(messages().len(), count, "a message stands there twice");
}

/// A field's entry on the wire, of a number below 16 and bytes below 128.
fn entry(number: u8, content: &[u8]) -> Vec<u8> {
    let length = u8::try_from(content.len()).expect("short");
    assert!(number < 16 && length < 0x80);
    [&[number << 3 | 2, length], content].concat()
}

fn read_one(name: &str, raw: &[u8]) -> Value {
    let mut object = Map::new();
    message(name, raw, &mut object, 0).unwrap_or_else(|failure| panic!("{failure}"));
    object.into()
}

#[test]
fn special_values_read_as_their_json() {
    // 2023-11-14T22:13:20Z with 123456789 ns, and -1.
    let time =
        [&[0x08, 0x80, 0xe2, 0xcf, 0xaa, 0x06, 0x10][..], &[0x95, 0x9a, 0xef, 0x3a]].concat();
    let minus_one = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
    let check = |name: &str, raw: &[u8], expected: Value| {
        assert_eq!(read_one(name, raw), expected, "{name}");
    };
    check("core/Taint", &entry(4, &time), json!({"timeAdded": "2023-11-14T22:13:20Z"}));
    check("core/Taint", &entry(4, b""), json!({}));
    let lease = json!({"acquireTime": "2023-11-14T22:13:20.123456Z"});
    check("coordination/LeaseSpec", &entry(3, &time), lease);
    let value = [&[0x10][..], &minus_one].concat();
    check("scheduling/PriorityClass", &value, json!({"value": -1}));
    check(
        "core/EmptyDirVolumeSource",
        &[&entry(1, b"")[..], &entry(2, &entry(1, b"1Gi"))].concat(),
        json!({"sizeLimit": "1Gi"}),
    );
    check(
        "core/Volume",
        &[entry(1, b"v"), entry(2, &entry(2, b""))].concat(),
        json!({"name": "v", "emptyDir": {}}),
    );
    let reference = [entry(1, &entry(1, b"s")), entry(2, b"k"), vec![0x18, 0]].concat();
    check(
        "core/SecretKeySelector",
        &reference,
        json!({"name": "s", "key": "k", "optional": false}),
    );
    let fields = entry(7, &entry(1, br#"{"f:data":{}}"#));
    check("meta/ManagedFieldsEntry", &fields, json!({"fieldsV1": {"f:data": {}}}));
    let extra =
        entry(4, &[entry(1, b"k"), entry(2, &[entry(1, b"a"), entry(1, b"b")].concat())].concat());
    check("authentication/UserInfo", &extra, json!({"extra": {"k": ["a", "b"]}}));
    // A map's entry may lack its value, and its time may be none.
    check("core/ConfigMap", &entry(2, &entry(1, b"k")), json!({"data": {"k": ""}}));
    let pods = entry(2, &[entry(1, b"p"), entry(2, b"")].concat());
    check("policy/PodDisruptionBudgetStatus", &pods, json!({"disruptedPods": {"p": null}}));
    // Numbers one by one and packed.
    let groups = [&[0x20, 1, 0x20, 2][..], &entry(4, &[3, 0x80, 1])].concat();
    check("core/PodSecurityContext", &groups, json!({"supplementalGroups": [1, 2, 3, 128]}));
}

#[test]
fn only_fields_that_json_leaves_out_lose_their_zeros() {
    // Pointers in Go, which are there only when set.
    let pod = read_one("core/PodSpec", &[0x20, 0, 0xa8, 0x01, 0, 0xc8, 0x01, 0]);
    assert_eq!(
        pod,
        json!({
            "terminationGracePeriodSeconds": 0, "automountServiceAccountToken": false, "priority": 0,
        })
    );
    // Left out by `omitempty`: hostNetwork, restartPolicy, nodeName.
    assert_eq!(read_one("core/PodSpec", &[0x58, 0, 0x1a, 0, 0x52, 0]), json!({}));
    // Written without `omitempty`.
    let port = read_one("core/ContainerPort", &[0x0a, 0, 0x10, 0, 0x18, 0]);
    assert_eq!(port, json!({"containerPort": 0}));
    let variable = read_one("core/EnvVar", &[0x0a, 0, 0x12, 0]);
    assert_eq!(variable, json!({"name": ""}));
}

#[test]
fn unknown_fields_are_passed_over() {
    let raw = [&[0xf8, 0x07, 5, 0xf9, 0x07][..], &[0; 8], &[0xfd, 0x07], &[0; 4], &entry(1, b"n")];
    assert_eq!(read_one("core/EnvVar", &raw.concat()), json!({"name": "n"}));
}

proptest! {
    #[test]
    fn a_damaged_body_never_panics(
        case in any::<prop::sample::Index>(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let cases = cases();
        let mut body = case.get(&cases).body.clone();
        for (at, byte) in damage {
            let at = at.index(body.len());
            body[at] = byte;
        }
        if let Err(error) = to_json(&body) {
            prop_assert!(matches!(error.reason.code(), 400 | 415), "{error}");
        }
    }

    /// Bytes as any message, so that every form of a field meets bytes that do not fit it.
    #[test]
    fn no_message_panics(
        name in any::<prop::sample::Index>(),
        raw in prop::collection::vec(any::<u8>(), 0..60),
    ) {
        let names: Vec<&str> = messages().keys().copied().collect();
        let name = *name.get(&names);
        let _ = message(name, &raw, &mut Map::new(), 0);
    }

    /// Fields of any message with contents of every wire type.
    #[test]
    fn no_field_panics(
        name in any::<prop::sample::Index>(),
        fields in prop::collection::vec(
            (any::<prop::sample::Index>(), any::<Option<u64>>(), prop::collection::vec(any::<u8>(), 0..20)),
            0..8,
        ),
    ) {
        let names: Vec<&str> = messages().keys().copied().collect();
        let name = *name.get(&names);
        let numbers: Vec<u32> = messages()[name].keys().copied().collect();
        let mut raw = Vec::new();
        for (number, varint, bytes) in fields {
            if numbers.is_empty() {
                break;
            }
            let key = u64::from(*number.get(&numbers)) << 3;
            let mut put = |mut number: u64| {
                while number > 0x7f {
                    raw.push(number.to_le_bytes()[0] | 0x80);
                    number >>= 7;
                }
                raw.push(number.to_le_bytes()[0]);
            };
            if let Some(number) = varint {
                put(key);
                put(number);
            } else {
                put(key | 2);
                put(bytes.len() as u64);
                raw.extend(bytes);
            }
        }
        let _ = message(name, &raw, &mut Map::new(), 0);
    }
}
