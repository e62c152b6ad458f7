//! Validation of names, label keys and label values, with the API server's error texts.
//!
//! Each check returns what is wrong as a list of messages, empty if nothing is: the API server
//! puts each into a cause of its own. Rules:
//! <https://kubernetes.io/docs/concepts/overview/working-with-objects/names/>.

/// The longest label value, DNS label and name part of a label key.
pub const LABEL_LEN_MAX: usize = 63;
/// The longest DNS subdomain, the form of most object names.
pub const SUBDOMAIN_LEN_MAX: usize = 253;
/// The longest name of a container or service port.
pub const PORT_NAME_LEN_MAX: usize = 15;

const EMPTY: &str = "must be non-empty";

const SUBDOMAIN_MESSAGE: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const LABEL_MESSAGE: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const DNS_1035_MESSAGE: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
const QUALIFIED_NAME_MESSAGE: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const LABEL_VALUE_MESSAGE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
const C_IDENTIFIER_MESSAGE: &str = "a valid C identifier must start with alphabetic character or '_', followed by a string of alphanumeric characters or '_' (e.g. 'my_name',  or 'MY_NAME',  or 'MyName', regex used for validation is '[A-Za-z_][A-Za-z0-9_]*')";
const CONFIG_KEY_MESSAGE: &str = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')";

/// A qualified name, the form of label keys, annotation keys, taint keys and resource names:
/// a name with an optional DNS subdomain and a slash before it.
pub fn qualified_name(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    let name = match value.split_once('/') {
        None => value,
        Some((_, name)) if name.contains('/') => {
            return vec![format!(
                "a qualified name {QUALIFIED_NAME_MESSAGE} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
            )];
        }
        Some(("", name)) => {
            errors.push(format!("prefix part {EMPTY}"));
            name
        }
        Some((prefix, name)) => {
            let prefix_errors = dns_1123_subdomain(prefix);
            errors.extend(prefix_errors.iter().map(|error| format!("prefix part {error}")));
            name
        }
    };
    if name.is_empty() {
        errors.push(format!("name part {EMPTY}"));
    } else if name.len() > LABEL_LEN_MAX {
        errors.push(format!("name part {}", too_long(LABEL_LEN_MAX)));
    }
    if !is_name(name) {
        errors.push(format!("name part {QUALIFIED_NAME_MESSAGE}"));
    }
    errors
}

/// A label value: empty, or a name of at most 63 characters.
pub fn label_value(value: &str) -> Vec<String> {
    let shape = value.is_empty() || is_name(value);
    check(value, LABEL_LEN_MAX, shape, LABEL_VALUE_MESSAGE)
}

/// A DNS subdomain by RFC 1123, the form of most object names.
pub fn dns_1123_subdomain(value: &str) -> Vec<String> {
    check(value, SUBDOMAIN_LEN_MAX, is_subdomain(value), SUBDOMAIN_MESSAGE)
}

/// A DNS label by RFC 1123, the form of namespace and container names.
pub fn dns_1123_label(value: &str) -> Vec<String> {
    // A subdomain that is not a label can only have dots too many.
    let message = if is_subdomain(value) { "must not contain dots" } else { LABEL_MESSAGE };
    check(value, LABEL_LEN_MAX, is_dns_label(value), message)
}

/// A DNS label by RFC 1035, the form of Service names before Kubernetes 1.34.
pub fn dns_1035_label(value: &str) -> Vec<String> {
    let shape = is_dns_label(value) && value.starts_with(|c: char| c.is_ascii_lowercase());
    check(value, LABEL_LEN_MAX, shape, DNS_1035_MESSAGE)
}

/// An identifier of the language C, the form of names of devices' attributes; of any length.
pub fn c_identifier(value: &str) -> Vec<String> {
    let is_letter = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_';
    let shape = value.bytes().next().is_some_and(is_letter)
        && value.bytes().all(|byte| is_letter(byte) || byte.is_ascii_digit());
    check(value, usize::MAX, shape, C_IDENTIFIER_MESSAGE)
}

/// A key of a ConfigMap or Secret.
pub fn config_key(value: &str) -> Vec<String> {
    let shape = !value.is_empty() && value.bytes().all(is_name_byte);
    let mut errors = check(value, SUBDOMAIN_LEN_MAX, shape, CONFIG_KEY_MESSAGE);
    match value {
        "." => errors.push("must not be '.'".to_owned()),
        ".." => errors.push("must not be '..'".to_owned()),
        _ if value.starts_with("..") => errors.push("must not start with '..'".to_owned()),
        _ => {}
    }
    errors
}

/// The name of a port.
pub fn port_name(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if value.len() > PORT_NAME_LEN_MAX {
        errors.push(too_long(PORT_NAME_LEN_MAX));
    }
    if value.is_empty() || !value.bytes().all(|b| is_dns_byte(b) || b == b'-') {
        errors.push(
            "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".to_owned(),
        );
    }
    if !value.bytes().any(|b| b.is_ascii_lowercase()) {
        errors.push("must contain at least one letter (a-z)".to_owned());
    }
    if value.contains("--") {
        errors.push("must not contain consecutive hyphens".to_owned());
    }
    if value.starts_with('-') || value.ends_with('-') {
        errors.push("must not begin or end with a hyphen".to_owned());
    }
    errors
}

/// The number of a port.
pub fn port_number(port: i64) -> Vec<String> {
    if (1..=65535).contains(&port) {
        Vec::new()
    } else {
        vec!["must be between 1 and 65535, inclusive".to_owned()]
    }
}

/// A name that is only a segment of an URL path, the form of RBAC names.
pub fn path_segment(value: &str) -> Vec<String> {
    if value == "." || value == ".." {
        return vec![format!("may not be '{value}'")];
    }
    ["/", "%"]
        .into_iter()
        .filter(|illegal| value.contains(illegal))
        .map(|illegal| format!("may not contain '{illegal}'"))
        .collect()
}

fn check(value: &str, len_max: usize, shape: bool, message: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if value.len() > len_max {
        errors.push(too_long(len_max));
    }
    if !shape {
        errors.push(message.to_owned());
    }
    errors
}

fn too_long(len_max: usize) -> String {
    format!("must be no more than {len_max} characters")
}

/// `([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]`
fn is_name(value: &str) -> bool {
    let bytes = value.as_bytes();
    bytes.iter().copied().all(is_name_byte)
        && bytes.first().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.last().is_some_and(u8::is_ascii_alphanumeric)
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.')
}

/// `[a-z0-9]([-a-z0-9]*[a-z0-9])?`
fn is_dns_label(value: &str) -> bool {
    let bytes = value.as_bytes();
    bytes.iter().all(|byte| is_dns_byte(*byte) || *byte == b'-')
        && bytes.first().copied().is_some_and(is_dns_byte)
        && bytes.last().copied().is_some_and(is_dns_byte)
}

fn is_subdomain(value: &str) -> bool {
    value.split('.').all(is_dns_label)
}

fn is_dns_byte(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: usize = 64;

    #[test]
    fn good_names_pass_everywhere_they_may() {
        for (value, qualified, subdomain, label, dns_1035, label_value_ok) in [
            ("a", true, true, true, true, true),
            ("web-1", true, true, true, true, true),
            ("1-web", true, true, true, false, true),
            ("a.b", true, true, false, false, true),
            ("A_b.C", true, false, false, false, true),
            ("", false, false, false, false, true),
            ("-a", false, false, false, false, false),
            ("a-", false, false, false, false, false),
            ("a..b", true, false, false, false, true),
            ("example.com/a", true, false, false, false, false),
            ("example.com/", false, false, false, false, false),
            ("/a", false, false, false, false, false),
            ("a/b/c", false, false, false, false, false),
            ("Example.com/a", false, false, false, false, false),
            ("a b", false, false, false, false, false),
            ("ä", false, false, false, false, false),
        ] {
            assert_eq!(qualified_name(value).is_empty(), qualified, "{value}");
            assert_eq!(dns_1123_subdomain(value).is_empty(), subdomain, "{value}");
            assert_eq!(dns_1123_label(value).is_empty(), label, "{value}");
            assert_eq!(dns_1035_label(value).is_empty(), dns_1035, "{value}");
            assert_eq!(label_value(value).is_empty(), label_value_ok, "{value}");
        }
        let long = "a".repeat(LONG);
        assert_eq!(label_value(&long), ["must be no more than 63 characters"]);
        assert_eq!(qualified_name(&long), ["name part must be no more than 63 characters"]);
        assert!(dns_1123_subdomain(&long).is_empty());
    }

    #[test]
    fn messages_are_the_api_servers() {
        let subdomain = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
        assert_eq!(dns_1123_subdomain("Web"), [subdomain]);
        assert_eq!(dns_1123_label("a.b"), ["must not contain dots"]);
        assert_eq!(
            dns_1123_label("Web"),
            [
                "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
            ]
        );
        assert_eq!(
            qualified_name("/_"),
            [
                "prefix part must be non-empty",
                "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
            ]
        );
        assert_eq!(qualified_name("A/a"), [format!("prefix part {subdomain}")]);
    }

    #[test]
    fn ports_keys_and_segments() {
        assert!(port_name("http").is_empty());
        assert_eq!(port_name("80"), ["must contain at least one letter (a-z)"]);
        assert_eq!(port_name("a--b"), ["must not contain consecutive hyphens"]);
        assert_eq!(port_number(0), ["must be between 1 and 65535, inclusive"]);
        assert!(port_number(65535).is_empty());
        assert!(config_key("app.properties").is_empty());
        assert_eq!(config_key(".."), ["must not be '..'"]);
        assert_eq!(config_key("a/b"), [CONFIG_KEY_MESSAGE]);
        assert!(path_segment("system:node").is_empty());
        assert_eq!(path_segment("a/b"), ["may not contain '/'"]);
    }
}
