//! The annotations that the simulation acts on, and which it does not.

use std::collections::BTreeMap;
use std::str::FromStr;

use serde_json::Value;
use wharf_model::balancing::HealthCheck;

/// The prefix of annotations of Ingresses.
pub(super) const INGRESS: &str = "alb.ingress.kubernetes.io/";
/// The prefix of annotations of Services.
pub(super) const SERVICE: &str = "service.beta.kubernetes.io/aws-load-balancer-";

/// Annotations of Ingresses that mean something here, or that mean nothing to a simulation.
const KNOWN: [&str; 20] = [
    "scheme",
    "target-type",
    "listen-ports",
    "group.name",
    "group.order",
    "load-balancer-name",
    "healthcheck-path",
    "healthcheck-port",
    "healthcheck-protocol",
    "healthcheck-interval-seconds",
    "healthcheck-timeout-seconds",
    "healthy-threshold-count",
    "unhealthy-threshold-count",
    "success-codes",
    "tags",
    "ip-address-type",
    "subnets",
    "backend-protocol",
    "certificate-arn",
    "manage-backend-security-group-rules",
];

/// The annotations of one object, of which those with a prefix count.
#[derive(Clone, Copy)]
pub(super) struct Annotations<'a> {
    all: Option<&'a BTreeMap<String, String>>,
    prefix: &'static str,
}

impl<'a> Annotations<'a> {
    pub(super) fn new(all: Option<&'a BTreeMap<String, String>>, prefix: &'static str) -> Self {
        Self { all, prefix }
    }

    pub(super) fn text(&self, name: &str) -> Option<&'a str> {
        let value = self.all?.get(&format!("{}{name}", self.prefix))?;
        Some(value.trim()).filter(|value| !value.is_empty())
    }

    /// One of a few words.
    pub(super) fn word(&self, name: &str, allowed: &[&str]) -> Result<Option<&'a str>, String> {
        let Some(value) = self.text(name) else { return Ok(None) };
        if allowed.contains(&value) {
            return Ok(Some(value));
        }
        Err(format!("unknown {name}: {value}, it is one of {}", allowed.join(", ")))
    }

    /// A number within bounds.
    pub(super) fn number<N: FromStr + PartialOrd + Copy + std::fmt::Display>(
        &self,
        name: &str,
        least: N,
        most: N,
    ) -> Result<Option<N>, String> {
        let Some(value) = self.text(name) else { return Ok(None) };
        match value.parse::<N>() {
            Ok(number) if least <= number && number <= most => Ok(Some(number)),
            Ok(_) => Err(format!("{name} must be within [{least}, {most}]: {value}")),
            Err(_) => Err(format!("failed to parse {name} annotation: {value} is no number")),
        }
    }

    /// `a=b,c=d`.
    pub(super) fn map(&self, name: &str) -> Result<BTreeMap<String, String>, String> {
        let mut map = BTreeMap::new();
        for pair in self.text(name).into_iter().flat_map(|text| text.split(',')) {
            let Some((key, value)) = pair.split_once('=') else {
                return Err(format!(
                    "failed to parse stringMap annotation, {}{name}: {pair}",
                    self.prefix
                ));
            };
            map.insert(key.trim().to_owned(), value.trim().to_owned());
        }
        Ok(map)
    }

    /// Annotations of Ingresses that the simulation does not act on.
    pub(super) fn unknown(&self) -> Vec<&'a str> {
        let names = self.all.into_iter().flatten().filter_map(|(key, _)| {
            key.strip_prefix(self.prefix).filter(|name| !KNOWN.contains(name)).map(|_| key.as_str())
        });
        names.collect()
    }

    /// How targets are checked.
    pub(super) fn health_check(&self) -> Result<HealthCheck, String> {
        let mut check = HealthCheck::default();
        if let Some(path) = self.text("healthcheck-path") {
            check.path = path.to_owned();
        }
        if let Some(port) = self.text("healthcheck-port") {
            check.port = port.to_owned();
        }
        if let Some(protocol) = self.word("healthcheck-protocol", &["HTTP", "HTTPS", "TCP"])? {
            check.protocol = protocol.to_owned();
        }
        let set = |field: &mut u32, name: &str, least, most| -> Result<(), String> {
            *field = self.number(name, least, most)?.unwrap_or(*field);
            Ok(())
        };
        set(&mut check.interval_seconds, "healthcheck-interval-seconds", 5, 300)?;
        set(&mut check.timeout_seconds, "healthcheck-timeout-seconds", 2, 120)?;
        set(&mut check.healthy_threshold, "healthy-threshold-count", 2, 10)?;
        set(&mut check.unhealthy_threshold, "unhealthy-threshold-count", 2, 10)?;
        if let Some(codes) = self.text("success-codes") {
            check.success_codes = codes.to_owned();
        }
        if check.timeout_seconds >= check.interval_seconds {
            return Err(format!(
                "the health check's timeout of {} s must be shorter than its interval of {} s",
                check.timeout_seconds, check.interval_seconds
            ));
        }
        Ok(check)
    }

    /// `[{"HTTP": 80}, {"HTTPS": 443}]`; by default HTTP at 80, or HTTPS at 443 with a certificate.
    pub(super) fn listen_ports(&self) -> Result<BTreeMap<i32, String>, String> {
        let Some(text) = self.text("listen-ports") else {
            let default =
                if self.text("certificate-arn").is_some() { (443, "HTTPS") } else { (80, "HTTP") };
            return Ok([(default.0, default.1.to_owned())].into());
        };
        let wrong = || {
            format!(
                "failed to parse listen-ports configuration: `{text}`, which reads like [{{\"HTTP\": 80}}]"
            )
        };
        let entries: Vec<BTreeMap<String, Value>> =
            serde_json::from_str(text).map_err(|_| wrong())?;
        if entries.is_empty() {
            return Err(format!("empty listen-ports configuration: `{text}`"));
        }
        let mut ports = BTreeMap::new();
        for (protocol, port) in entries.into_iter().flatten() {
            let port = port.as_i64().and_then(|port| i32::try_from(port).ok());
            let port = port.ok_or_else(wrong)?;
            if !(1..=65_535).contains(&port) {
                return Err(format!("listen port must be within [1, 65535]: {port}"));
            }
            if !["HTTP", "HTTPS"].contains(&protocol.as_str()) {
                return Err(format!("listen protocol must be HTTP or HTTPS: {protocol}"));
            }
            ports.insert(port, protocol);
        }
        Ok(ports)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| (format!("{INGRESS}{key}"), (*value).to_owned())).collect()
    }

    #[test]
    fn listen_ports_are_read_as_the_controller_does() {
        let read = |pairs: &[(&str, &str)]| {
            let map = given(pairs);
            Annotations::new(Some(&map), INGRESS).listen_ports().map(|ports| {
                ports
                    .into_iter()
                    .map(|(port, protocol)| format!("{protocol}:{port}"))
                    .collect::<Vec<_>>()
            })
        };
        assert_eq!(read(&[]), Ok(vec!["HTTP:80".to_owned()]));
        assert_eq!(read(&[("certificate-arn", "arn:x")]), Ok(vec!["HTTPS:443".to_owned()]));
        assert_eq!(
            read(&[("listen-ports", r#"[{"HTTP": 80}, {"HTTPS": 443}, {"HTTP": 8080}]"#)]),
            Ok(vec!["HTTP:80".to_owned(), "HTTPS:443".to_owned(), "HTTP:8080".to_owned()])
        );
        for (text, expected) in [
            ("[]", "empty listen-ports configuration: `[]`"),
            (r#"[{"HTTP": 0}]"#, "listen port must be within [1, 65535]: 0"),
            (r#"[{"TCP": 80}]"#, "listen protocol must be HTTP or HTTPS: TCP"),
        ] {
            assert_eq!(read(&[("listen-ports", text)]), Err(expected.to_owned()));
        }
        assert!(
            read(&[("listen-ports", "80")]).is_err_and(|error| error.contains("which reads like"))
        );
    }

    #[test]
    fn wrong_values_are_told_with_what_is_allowed() {
        let map = given(&[
            ("scheme", "public"),
            ("group.order", "2000"),
            ("wafv2-acl-arn", "x"),
            ("tags", "a"),
        ]);
        let read = Annotations::new(Some(&map), INGRESS);
        assert_eq!(
            read.word("scheme", &["internal", "internet-facing"]),
            Err("unknown scheme: public, it is one of internal, internet-facing".to_owned())
        );
        assert_eq!(
            read.number("group.order", 1, 1_000),
            Err("group.order must be within [1, 1000]: 2000".to_owned())
        );
        assert_eq!(read.unknown(), ["alb.ingress.kubernetes.io/wafv2-acl-arn"]);
        assert!(read.map("tags").is_err());
        let map = given(&[("healthcheck-interval-seconds", "5")]);
        assert!(
            Annotations::new(Some(&map), INGRESS)
                .health_check()
                .is_err_and(|error| error.contains("shorter"))
        );
    }
}
