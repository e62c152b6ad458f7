//! Where things are in the Kubernetes API.

use wharf_model::kinds::Kind;
use wharf_model::object::ObjectKey;

/// The path of all objects of a kind, or of those of one namespace.
pub(crate) fn collection(kind: Kind, namespace: &str) -> String {
    let root = if kind.group.is_empty() {
        format!("/api/{}", kind.version)
    } else {
        format!("/apis/{}/{}", kind.group, kind.version)
    };
    if kind.namespaced && !namespace.is_empty() {
        format!("{root}/namespaces/{}/{}", escaped(namespace), kind.plural)
    } else {
        format!("{root}/{}", kind.plural)
    }
}

/// The path of one object.
pub(crate) fn object(kind: Kind, key: &ObjectKey) -> String {
    format!("{}/{}", collection(kind, &key.namespace), escaped(&key.name))
}

/// The path of a subresource of one object.
pub(crate) fn subresource(kind: Kind, key: &ObjectKey, name: &str) -> String {
    format!("{}/{name}", object(kind, key))
}

/// A text as one segment of a path or one value of a query.
pub(crate) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                out.push(char::from(byte));
            }
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::apps::v1::Deployment;
    use k8s_openapi::api::core::v1::{Node, Pod};

    use super::*;

    #[test]
    fn paths_are_the_apis() {
        let key = ObjectKey::namespaced("shop", "web");
        assert_eq!(collection(Kind::of::<Pod>(), ""), "/api/v1/pods");
        assert_eq!(object(Kind::of::<Pod>(), &key), "/api/v1/namespaces/shop/pods/web");
        assert_eq!(
            subresource(Kind::of::<Deployment>(), &key, "status"),
            "/apis/apps/v1/namespaces/shop/deployments/web/status"
        );
        assert_eq!(object(Kind::of::<Node>(), &ObjectKey::cluster("n")), "/api/v1/nodes/n");
    }

    #[test]
    fn what_is_no_name_cannot_leave_its_segment() {
        assert_eq!(escaped("a/../b?c=d&é"), "a%2F..%2Fb%3Fc%3Dd%26%C3%A9");
    }
}
