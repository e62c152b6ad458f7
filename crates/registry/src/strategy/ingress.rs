//! Ingresses and their classes:
//! <https://kubernetes.io/docs/reference/kubernetes-api/service-resources/ingress-v1/>.

use std::net::IpAddr;

use k8s_openapi::api::networking::v1::{
    HTTPIngressPath, Ingress, IngressBackend, IngressClass, IngressSpec, IngressStatus,
};
use wharf_model::names;
use wharf_model::time::Time;

use super::Rules;
use super::pod::defaults::fill;
use super::pod::validate::one_of;
use crate::field::{Errors, Json, Path};

const SPEC: Path<'static> = Path::root("spec");
/// The annotation that named the class before the field did.
const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";
const PATH_TYPES: [&str; 3] = ["Exact", "ImplementationSpecific", "Prefix"];
const PATH_NEVER_HOLDS: [&str; 5] = ["//", "/./", "/../", "%2f", "%2F"];
const PATH_NEVER_ENDS: [&str; 2] = ["/..", "/."];
const CONTROLLER_MAX: usize = 250;

impl Rules for Ingress {
    const GENERATION: bool = true;

    fn prepare_create(&mut self, _now: Time) {
        let mut status = IngressStatus::default();
        status.load_balancer.get_or_insert_default();
        self.status = Some(status);
    }

    fn starts_generation(&self, old: &Self) -> bool {
        self.spec != old.spec
    }

    fn take_status(&mut self, from: &Self) {
        self.status.clone_from(&from.status);
    }

    fn validate(&self, errors: &mut Errors) {
        let none = IngressSpec::default();
        let spec = self.spec.as_ref().unwrap_or(&none);
        validate_spec(spec, errors);
        let annotation = self.metadata.annotations.as_ref().and_then(|it| it.get(CLASS_ANNOTATION));
        if let (Some(old), Some(class)) = (annotation, &spec.ingress_class_name)
            && self.metadata.generation.unwrap_or(1) == 1
            && old != class
        {
            let path = Path::root("annotations");
            let detail = "must match `ingressClassName` when both are specified";
            errors.invalid(&path.child(CLASS_ANNOTATION), old, detail);
        }
    }
}

fn validate_spec(spec: &IngressSpec, errors: &mut Errors) {
    let rules = spec.rules.as_deref().unwrap_or_default();
    if rules.is_empty() && spec.default_backend.is_none() {
        let detail = "either `defaultBackend` or `rules` must be specified";
        errors.invalid(&SPEC, &Json(&spec.rules), detail);
    }
    if let Some(default) = &spec.default_backend {
        backend(&SPEC.child("defaultBackend"), default, errors);
    }
    let path = SPEC.child("rules");
    for (index, rule) in rules.iter().enumerate() {
        let path = path.index(index);
        let host = rule.host.as_deref().unwrap_or_default();
        if !host.is_empty() {
            let path = path.child("host");
            if host.parse::<IpAddr>().is_ok() {
                errors.invalid(&path, host, "must be a DNS name, not an IP address");
            }
            errors.invalid_each(&path, host, host_messages(host));
        }
        if let Some(http) = &rule.http {
            let path = path.child("http");
            let path = path.child("paths");
            if http.paths.is_empty() {
                errors.required(&path, "");
            }
            for (index, one) in http.paths.iter().enumerate() {
                self::http_path(&path.index(index), one, errors);
            }
        }
    }
    let path = SPEC.child("tls");
    for (index, tls) in spec.tls.iter().flatten().enumerate() {
        let path = path.index(index);
        let hosts = path.child("hosts");
        for (index, host) in tls.hosts.iter().flatten().enumerate() {
            errors.invalid_each(&hosts.index(index), host, host_messages(host));
        }
        let secret = tls.secret_name.as_deref().unwrap_or_default();
        if !secret.is_empty() {
            let messages = names::dns_1123_subdomain(secret);
            errors.invalid_each(&path.child("secretName"), secret, messages);
        }
    }
    if let Some(class) = &spec.ingress_class_name {
        let messages = names::dns_1123_subdomain(class);
        errors.invalid_each(&SPEC.child("ingressClassName"), class, messages);
    }
}

/// What is wrong with a host, whose first label may be a `*`.
fn host_messages(host: &str) -> Vec<String> {
    if !host.contains('*') {
        return names::dns_1123_subdomain(host);
    }
    let rest = host.strip_prefix("*.");
    if rest.is_some_and(|rest| names::dns_1123_subdomain(rest).is_empty()) {
        return Vec::new();
    }
    vec![
        "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character (e.g. '*.example.com', regex used for validation is '\\*\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')".to_owned(),
    ]
}

fn http_path(path: &Path<'_>, of: &HTTPIngressPath, errors: &mut Errors) {
    let text = of.path.as_deref().unwrap_or_default();
    let field = path.child("path");
    match of.path_type.as_str() {
        "" => {
            errors.required(&path.child("pathType"), "pathType must be specified");
            return;
        }
        "Exact" | "Prefix" => {
            if !text.starts_with('/') {
                errors.invalid(&field, text, "must be an absolute path");
            }
            for part in PATH_NEVER_HOLDS.into_iter().filter(|part| text.contains(part)) {
                errors.invalid(&field, text, format!("must not contain '{part}'"));
            }
            for end in PATH_NEVER_ENDS.into_iter().filter(|end| text.ends_with(end)) {
                errors.invalid(&field, text, format!("cannot end with '{end}'"));
            }
        }
        "ImplementationSpecific" => {
            if !text.is_empty() && !text.starts_with('/') {
                errors.invalid(&field, text, "must be an absolute path");
            }
        }
        other => errors.not_supported(&path.child("pathType"), other, &PATH_TYPES),
    }
    backend(&path.child("backend"), &of.backend, errors);
}

fn backend(path: &Path<'_>, backend: &IngressBackend, errors: &mut Errors) {
    let service = match (&backend.service, &backend.resource) {
        (Some(_), Some(_)) => {
            errors.invalid(path, "", "cannot set both resource and service backends");
            return;
        }
        (None, None) => {
            errors.invalid(path, "", "resource or service backend is required");
            return;
        }
        (None, Some(resource)) => {
            let path = path.child("resource");
            for (field, value) in [("kind", &resource.kind), ("name", &resource.name)] {
                if value.is_empty() {
                    errors.required(&path.child(field), "");
                }
            }
            return;
        }
        (Some(service), None) => service,
    };
    let field = path.child("service");
    if service.name.is_empty() {
        errors.required(&field.child("name"), "");
    } else {
        let messages = names::dns_1035_label(&service.name);
        errors.invalid_each(&field.child("name"), &service.name, messages);
    }
    let port = field.child("port");
    let name = service.port.as_ref().and_then(|port| port.name.as_deref()).unwrap_or_default();
    let number = service.port.as_ref().and_then(|port| port.number).unwrap_or_default();
    match (name, number) {
        ("", 0) => errors.required(path, "port name or number is required"),
        ("", number) => {
            for message in names::port_number(i64::from(number)) {
                errors.invalid(&port.child("number"), &number, message);
            }
        }
        (name, 0) => errors.invalid_each(&port.child("name"), name, names::port_name(name)),
        _ => errors.invalid(path, "", "cannot set both port name & port number"),
    }
}

impl Rules for IngressClass {
    const GENERATION: bool = true;

    fn set_defaults(&mut self) {
        if let Some(parameters) = self.spec.as_mut().and_then(|spec| spec.parameters.as_mut()) {
            fill(&mut parameters.scope, "Cluster");
        }
    }

    fn starts_generation(&self, old: &Self) -> bool {
        self.spec != old.spec
    }

    fn validate(&self, errors: &mut Errors) {
        let spec = self.spec.as_ref();
        let controller = spec.and_then(|spec| spec.controller.as_deref()).unwrap_or_default();
        let path = SPEC.child("controller");
        if controller.is_empty() {
            errors.required(&path, "");
        } else if controller.len() > CONTROLLER_MAX {
            errors.too_long(&path, CONTROLLER_MAX);
        } else {
            domain_prefixed(&path, controller, errors);
        }
        let Some(parameters) = spec.and_then(|spec| spec.parameters.as_ref()) else { return };
        let path = SPEC.child("parameters");
        for (field, value) in [("kind", &parameters.kind), ("name", &parameters.name)] {
            if value.is_empty() {
                errors.required(&path.child(field), "");
            }
        }
        let scope = parameters.scope.as_deref();
        one_of(&path.child("scope"), scope, &["Cluster", "Namespace"], errors);
        let namespace = parameters.namespace.as_deref().unwrap_or_default();
        match scope {
            Some("Namespace") if namespace.is_empty() => errors
                .required(&path.child("namespace"), "`parameters.scope` is set to 'Namespace'"),
            Some("Cluster") if !namespace.is_empty() => {
                errors.forbidden(&path.child("namespace"), "`parameters.scope` is set to 'Cluster'")
            }
            _ => {}
        }
    }

    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        let controller = |class: &Self| class.spec.as_ref().and_then(|it| it.controller.clone());
        errors.immutable(&SPEC.child("controller"), &controller(self), &controller(old));
        self.validate(errors);
    }
}

/// `acme.io/foo`.
fn domain_prefixed(path: &Path<'_>, value: &str, errors: &mut Errors) {
    let Some((domain, rest)) =
        value.split_once('/').filter(|(a, b)| !a.is_empty() && !b.is_empty())
    else {
        let detail = "must be a domain-prefixed path (such as \"acme.io/foo\")";
        errors.invalid(path, value, detail);
        return;
    };
    errors.invalid_each(path, domain, names::dns_1123_subdomain(domain));
    let allowed = |c: char| c.is_ascii_alphanumeric() || "/-._~%!$&'()*+,;=:".contains(c);
    if !rest.chars().all(allowed) {
        errors.invalid(
            path,
            rest,
            "Invalid path (regex used for validation is '[A-Za-z0-9/\\-._~%!$&'()*+,;=:]+')",
        );
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use wharf_model::kinds::Kind;

    use super::*;

    fn said(spec: Value) -> String {
        let value = json!({"metadata": {"name": "x", "namespace": "n"}, "spec": spec});
        let ingress: Ingress = serde_json::from_value(value).expect("it decodes");
        let mut errors = Errors::default();
        ingress.validate(&mut errors);
        let refused = errors.into_result(Kind::of::<Ingress>(), "x").err();
        refused.map_or_else(String::new, |error| {
            error.message.trim_start_matches("Ingress.networking.k8s.io \"x\" is invalid: ").into()
        })
    }

    #[test]
    fn ingresses_are_refused_in_upstreams_words() {
        let service = json!({"service": {"name": "s", "port": {"number": 80}}});
        let path = |path: Value| json!({"rules": [{"http": {"paths": [path]}}]});
        let good = json!({"path": "/", "pathType": "Prefix", "backend": service});
        assert_eq!(said(path(good)), "");
        assert_eq!(said(json!({"defaultBackend": service})), "");
        for (spec, expected) in [
            (
                json!({}),
                "spec: Invalid value: null: either `defaultBackend` or `rules` must be specified",
            ),
            (
                path(json!({"path": "/", "pathType": "", "backend": service})),
                "spec.rules[0].http.paths[0].pathType: Required value: pathType must be specified",
            ),
            (
                path(json!({"path": "a", "pathType": "Exact", "backend": service})),
                "spec.rules[0].http.paths[0].path: Invalid value: \"a\": must be an absolute path",
            ),
            (
                path(json!({"path": "/a//b", "pathType": "Prefix", "backend": service})),
                "spec.rules[0].http.paths[0].path: Invalid value: \"/a//b\": must not contain '//'",
            ),
            (
                path(json!({"path": "/", "pathType": "Regex", "backend": service})),
                "spec.rules[0].http.paths[0].pathType: Unsupported value: \"Regex\": supported values: \"Exact\", \"ImplementationSpecific\", \"Prefix\"",
            ),
            (
                path(json!({"path": "/", "pathType": "Prefix", "backend": {}})),
                "spec.rules[0].http.paths[0].backend: Invalid value: \"\": resource or service backend is required",
            ),
            (
                json!({"defaultBackend": {"service": {"name": "s"}}}),
                "spec.defaultBackend: Required value: port name or number is required",
            ),
            (
                json!({"defaultBackend": {"service": {"name": "s", "port": {"number": 80, "name": "http"}}}}),
                "spec.defaultBackend: Invalid value: \"\": cannot set both port name & port number",
            ),
            (
                json!({"rules": [{"host": "10.0.0.1"}]}),
                "spec.rules[0].host: Invalid value: \"10.0.0.1\": must be a DNS name, not an IP address",
            ),
        ] {
            assert_eq!(said(spec), expected);
        }
        assert!(
            said(json!({"rules": [{"host": "a.*"}]})).contains("a wildcard DNS-1123 subdomain")
        );
        assert_eq!(said(json!({"rules": [{"host": "*.a"}]})), "");
    }

    #[test]
    fn a_class_keeps_its_controller() {
        let class = |controller: &str| -> IngressClass {
            let value = json!({"metadata": {"name": "x"}, "spec": {"controller": controller}});
            serde_json::from_value(value).expect("it decodes")
        };
        let mut errors = Errors::default();
        class("ingress.k8s.aws/alb").validate(&mut errors);
        assert!(errors.is_empty());
        class("alb").validate(&mut errors);
        class("a.io/b").validate_update(&class("a.io/c"), &mut errors);
        let error = errors.into_result(Kind::of::<IngressClass>(), "x").expect_err("two");
        assert!(error.message.contains("spec.controller: Invalid value: \"alb\": must be a domain-prefixed path (such as \"acme.io/foo\")"), "{error}");
        assert!(error.message.contains("field is immutable"), "{error}");
    }
}
