//! What load balancers and target groups are called: the controller's rule, and AWS' for names in DNS.

use ring::digest::{Context, SHA256};
use wharf_model::random::{Random, fnv1a};

use super::ElbSettings;

/// The first hexadecimal digits of the SHA-256 of the parts one after the other.
pub(super) fn digest(parts: &[&str], digits: usize) -> String {
    let mut context = Context::new(&SHA256);
    parts.iter().for_each(|part| context.update(part.as_bytes()));
    let hex: String = context.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    hex[..digits.min(hex.len())].to_owned()
}

/// Letters and digits alone, at most so many.
fn cut(text: &str, most: usize) -> String {
    text.chars().filter(char::is_ascii_alphanumeric).take(most).collect()
}

/// The name for what belongs to a namespaced object; `hashed` is what its digest is of.
pub(super) fn of_object(namespace: &str, name: &str, hashed: &[&str]) -> String {
    format!("k8s-{}-{}-{}", cut(namespace, 8), cut(name, 8), digest(hashed, 10))
}

/// The name for what belongs to a group of Ingresses.
pub(super) fn of_group(group: &str, hashed: &[&str]) -> String {
    format!("k8s-{}-{}", cut(group, 17), digest(hashed, 10))
}

/// What AWS draws for a load balancer: digits for an application one, hexadecimal ones for a network
/// one. `token` tells this load balancer from an earlier one of its name.
pub(super) fn drawn(is_network: bool, name: &str, token: &str) -> String {
    let mut random = Random::new(fnv1a(token.as_bytes()), fnv1a(name.as_bytes()));
    if is_network { random.hex(16) } else { random.between(100_000_000, 2_099_999_999).to_string() }
}

/// A load balancer's name in DNS.
pub(super) fn dns(
    settings: &ElbSettings,
    is_network: bool,
    scheme: &str,
    name: &str,
    drawn: &str,
) -> String {
    let region = &settings.region;
    match (is_network, scheme) {
        (true, _) => format!("{name}-{drawn}.elb.{region}.amazonaws.com"),
        (false, "internal") => format!("internal-{name}-{drawn}.{region}.elb.amazonaws.com"),
        (false, _) => format!("{name}-{drawn}.{region}.elb.amazonaws.com"),
    }
}

/// What AWS knows a resource of Elastic Load Balancing by.
pub(super) fn arn(settings: &ElbSettings, resource: &str) -> String {
    let ElbSettings { region, account, .. } = settings;
    format!("arn:aws:elasticloadbalancing:{region}:{account}:{resource}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_rule() {
        // NIST's example of one block.
        assert_eq!(digest(&["a", "bc"], 10), "ba7816bf8f");
        let name = of_object("study-aews", "ingress-2048", &["c"]);
        assert!(name.starts_with("k8s-studyaew-ingress2-") && name.len() == 32, "{name}");
        let group = of_group("a-very-long-group.name-indeed", &["c"]);
        assert!(group.starts_with("k8s-averylonggroupnam-") && group.len() == 32, "{group}");
        let settings = ElbSettings::new("c", "eu-west-2", (1, 1));
        let host = |network, scheme| {
            dns(&settings, network, scheme, "k8s-a", &drawn(network, "k8s-a", "u"))
        };
        let public = host(false, "internet-facing");
        let digits = public
            .strip_prefix("k8s-a-")
            .and_then(|rest| rest.strip_suffix(".eu-west-2.elb.amazonaws.com"));
        assert!(
            digits.is_some_and(
                |digits| digits.len() >= 9 && digits.bytes().all(|b| b.is_ascii_digit())
            ),
            "{public}"
        );
        assert!(host(false, "internal").starts_with("internal-k8s-a-"));
        assert!(host(true, "internal").ends_with(".elb.eu-west-2.amazonaws.com"));
        assert_ne!(drawn(false, "a", "1"), drawn(false, "a", "2"));
    }
}
