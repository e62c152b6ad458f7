//! From Ingresses to a stack: one load balancer for an Ingress, or for a group of them.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::networking::v1::{HTTPIngressPath, Ingress, IngressBackend, IngressClass};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use wharf_model::balancing::{IngressClassParams, IngressClassParamsSpec, Listener, ListenerRule};
use wharf_model::object::ObjectKey;
use wharf_ports::view::View;

use super::annotations::{Annotations, INGRESS};
use super::stack::{Stack, StackId, WantedGroup, subnets};
use super::{ElbSettings, names};

/// The controller of classes that the AWS Load Balancer Controller serves.
pub const CONTROLLER: &str = "ingress.k8s.aws/alb";
/// The controller of classes that EKS Auto Mode serves.
pub const AUTO_MODE_CONTROLLER: &str = "eks.amazonaws.com/alb";

const SCHEMES: [&str; 2] = ["internal", "internet-facing"];
const TARGET_TYPES: [&str; 2] = ["instance", "ip"];
/// Application load balancers are in two zones at least.
const ZONES_MIN: usize = 2;
const NAME_MAX: usize = 32;
const GROUP_NAME_MAX: usize = 63;
const ORDER_MAX: i64 = 1_000;

/// An Ingress of a class that is served here.
pub(super) struct Member<'v> {
    pub(super) ingress: &'v Ingress,
    key: ObjectKey,
    is_auto_mode: bool,
    params: IngressClassParamsSpec,
}

impl<'v> Member<'v> {
    /// The Ingress, if its class is one that is served here.
    pub(super) fn of(ingress: &'v Ingress, view: &'v View) -> Option<Self> {
        let annotation =
            || ingress.metadata.annotations.as_ref()?.get("kubernetes.io/ingress.class");
        let name = ingress.spec.as_ref().and_then(|spec| spec.ingress_class_name.as_ref());
        let class = view.get_cluster::<IngressClass>(name.or_else(annotation)?)?;
        let spec = class.spec.as_ref()?;
        let is_auto_mode = match spec.controller.as_deref()? {
            CONTROLLER => false,
            AUTO_MODE_CONTROLLER => true,
            _ => return None,
        };
        let params = spec.parameters.as_ref().filter(|of| of.kind == "IngressClassParams");
        let params = params.and_then(|of| view.get_cluster::<IngressClassParams>(&of.name));
        Some(Self {
            ingress,
            key: ObjectKey::of(&ingress.metadata),
            is_auto_mode,
            params: params.map(|params| params.spec.clone()).unwrap_or_default(),
        })
    }

    pub(super) fn annotations(&self) -> Annotations<'v> {
        Annotations::new(self.ingress.metadata.annotations.as_ref(), INGRESS)
    }

    /// The stack that it belongs to.
    pub(super) fn id(&self) -> StackId {
        let name = self.group().unwrap_or_else(|| self.key.to_string());
        StackId { owner: "ingress.k8s.aws", name }
    }

    /// The group's name, if it is in one. Auto Mode knows no groups by annotation.
    pub(super) fn group(&self) -> Option<String> {
        let by_class = self.params.group.as_ref().map(|group| group.name.clone());
        let by_annotation = || {
            self.annotations().text("group.name").filter(|_| !self.is_auto_mode).map(str::to_owned)
        };
        by_class.or_else(by_annotation).filter(|name| is_group_name(name))
    }

    /// Keeps the Ingress until its load balancer is gone.
    pub(super) fn finalizer(&self) -> String {
        match self.group() {
            Some(group) => format!("group.ingress.k8s.aws/{group}"),
            None => "ingress.k8s.aws/resources".to_owned(),
        }
    }

    fn order(&self) -> Result<i64, String> {
        let order = self.annotations().number("group.order", 0, ORDER_MAX)?;
        Ok(order.unwrap_or(0))
    }

    fn target_type(&self) -> Result<String, String> {
        if let Some(of_class) = &self.params.target_type {
            return Ok(of_class.clone());
        }
        let default = if self.is_auto_mode { "ip" } else { "instance" };
        Ok(self.annotations().word("target-type", &TARGET_TYPES)?.unwrap_or(default).to_owned())
    }

    fn scheme(&self) -> Result<Option<String>, String> {
        if let Some(of_class) = &self.params.scheme {
            return Ok(Some(of_class.clone()));
        }
        Ok(self.annotations().word("scheme", &SCHEMES)?.map(str::to_owned))
    }
}

fn is_group_name(name: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
    name.len() <= GROUP_NAME_MAX && !name.is_empty() && name.chars().all(inner)
}

/// The stack of Ingresses that share a load balancer.
///
/// # Errors
/// The controller's words, which follow `Failed build model due to`.
pub(super) fn build(
    members: &[Member<'_>],
    settings: &ElbSettings,
    view: &View,
) -> Result<Stack, String> {
    let Some(first) = members.first() else { return Err("there is no Ingress".to_owned()) };
    let mut ordered = Vec::new();
    for member in members {
        let told = member.annotations().text("group.name").filter(|_| !member.is_auto_mode);
        if let Some(name) = told.filter(|name| !is_group_name(name)) {
            return Err(format!(
                "ingress: {}: invalid group.name {name:?}: it has at most {GROUP_NAME_MAX} lower case letters, digits, - and .",
                member.key
            ));
        }
        let order = member.order().map_err(|error| format!("ingress: {}: {error}", member.key))?;
        ordered.push((order, &member.key, member));
    }
    ordered.sort_by(|a, b| (a.0, a.1).cmp(&(b.0, b.1)));
    let id = first.id();
    let scheme = one_of(&ordered, "scheme", |member| member.scheme())?;
    let scheme = scheme.unwrap_or_else(|| "internal".to_owned());
    let given = one_of(&ordered, "load balancer name", |member| {
        Ok(member.annotations().text("load-balancer-name").map(str::to_owned))
    })?;
    if let Some(name) = given.as_ref().filter(|name| name.len() > NAME_MAX) {
        return Err(format!("load balancer name cannot be longer than 32 characters: {name}"));
    }
    let hashed = [settings.cluster_name.as_str(), id.name.as_str(), scheme.as_str()];
    let name = given.unwrap_or_else(|| match first.group() {
        Some(group) => names::of_group(&group, &hashed),
        None => names::of_object(&first.key.namespace, &first.key.name, &hashed),
    });
    let subnets = subnets(&scheme, ZONES_MIN, view)?;
    let mut rules: BTreeMap<i32, (String, Vec<ListenerRule>, Option<ListenerRule>)> =
        BTreeMap::new();
    let mut builder = Builder { settings, view, id: &id, groups: BTreeMap::new() };
    let mut tags = BTreeMap::new();
    for (_, key, member) in &ordered {
        let told = |error: String| format!("ingress: {key}: {error}");
        tags.extend(member.annotations().map("tags").map_err(told)?);
        let ports = member.annotations().listen_ports().map_err(told)?;
        let (own, default) = builder.rules(member).map_err(told)?;
        for (port, protocol) in ports {
            let entry = rules.entry(port).or_insert_with(|| (protocol.clone(), Vec::new(), None));
            if entry.0 != protocol {
                return Err(format!(
                    "conflicting protocol for port {port}: {} | {protocol}",
                    entry.0
                ));
            }
            entry.1.extend(own.iter().cloned());
            if let Some(default) = &default
                && entry.2.replace(default.clone()).is_some()
            {
                return Err("multiple ingress defines default backend".to_owned());
            }
        }
    }
    let fixed = || ListenerRule { fixed_response: Some(404), ..ListenerRule::default() };
    let listeners = rules
        .into_iter()
        .map(|(port, (protocol, mut rules, default))| {
            rules.push(default.unwrap_or_else(fixed));
            Listener { port, protocol, rules }
        })
        .collect();
    Ok(Stack {
        name,
        is_network: false,
        scheme,
        subnets,
        listeners,
        groups: builder.groups.into_values().collect(),
        tags,
        token: first.ingress.metadata.uid.clone().unwrap_or_default(),
        id,
    })
}

/// A setting that members of a group must not disagree about.
fn one_of(
    members: &[(i64, &ObjectKey, &Member<'_>)],
    what: &str,
    of: impl Fn(&Member<'_>) -> Result<Option<String>, String>,
) -> Result<Option<String>, String> {
    let mut found = BTreeSet::new();
    for (_, key, member) in members {
        found.extend(of(member).map_err(|error| format!("ingress: {key}: {error}"))?);
    }
    if found.len() > 1 {
        let all: Vec<String> = found.into_iter().collect();
        return Err(format!("conflicting {what}: {}", all.join(" | ")));
    }
    Ok(found.pop_first())
}

/// Collects target groups while rules are made.
struct Builder<'a> {
    settings: &'a ElbSettings,
    view: &'a View,
    id: &'a StackId,
    groups: BTreeMap<String, WantedGroup>,
}

impl Builder<'_> {
    /// The rules of an Ingress in the order in which they are tried, and its default.
    fn rules(
        &mut self,
        member: &Member<'_>,
    ) -> Result<(Vec<ListenerRule>, Option<ListenerRule>), String> {
        let mut rules = Vec::new();
        let Some(spec) = &member.ingress.spec else { return Ok((rules, None)) };
        for rule in spec.rules.iter().flatten() {
            let host = rule.host.clone().filter(|host| !host.is_empty());
            let mut paths: Vec<&HTTPIngressPath> =
                rule.http.iter().flat_map(|http| &http.paths).collect();
            // Exact ones first, then prefixes from the longest on; others stay in their order.
            paths.sort_by_key(|path| match path.path_type.as_str() {
                "Exact" => (0, 0),
                "Prefix" => (1, usize::MAX - path.path.as_deref().map_or(0, str::len)),
                _ => (2, 0),
            });
            for path in paths {
                let action = self.action(member, &path.backend)?;
                rules.push(ListenerRule { host: host.clone(), paths: patterns(path), ..action });
            }
        }
        let default = spec.default_backend.as_ref();
        let default = default.map(|backend| self.action(member, backend)).transpose()?;
        Ok((rules, default))
    }

    /// What becomes of requests for a backend.
    fn action(
        &mut self,
        member: &Member<'_>,
        backend: &IngressBackend,
    ) -> Result<ListenerRule, String> {
        let Some(of) = &backend.service else {
            return Err("resource backends are not supported".to_owned());
        };
        let port = of.port.as_ref();
        let named = port.and_then(|port| port.name.clone()).filter(|name| !name.is_empty());
        if named.as_deref() == Some("use-annotation") {
            return Err(format!(
                "actions by annotation ({INGRESS}actions.{}) are not simulated",
                of.name
            ));
        }
        let port = match named {
            Some(name) => IntOrString::String(name),
            None => IntOrString::Int(port.and_then(|port| port.number).unwrap_or_default()),
        };
        let key = ObjectKey::namespaced(&member.key.namespace, &of.name);
        // The controller answers for a Service that is not there yet.
        let Some(service) = self.view.get::<Service>(&key) else {
            return Ok(ListenerRule { fixed_response: Some(503), ..ListenerRule::default() });
        };
        let group = self.group(member, &key, service, port)?;
        Ok(ListenerRule { target_group: Some(group), ..ListenerRule::default() })
    }

    fn group(
        &mut self,
        member: &Member<'_>,
        key: &ObjectKey,
        service: &Service,
        port: IntOrString,
    ) -> Result<String, String> {
        let spec = service.spec.clone().unwrap_or_default();
        let of = spec.ports.iter().flatten().find(|of| match &port {
            IntOrString::Int(number) => of.port == *number,
            IntOrString::String(name) => of.name.as_ref() == Some(name),
        });
        let text = match &port {
            IntOrString::Int(number) => number.to_string(),
            IntOrString::String(name) => name.clone(),
        };
        let Some(of) = of else {
            return Err(format!("unable to find port {text} on service {key}"));
        };
        // What the Service says of its own targets wins over the Ingress.
        let own = Annotations::new(service.metadata.annotations.as_ref(), INGRESS);
        let target_type = match own.word("target-type", &TARGET_TYPES)? {
            Some(own) => own.to_owned(),
            None => member.target_type()?,
        };
        let target_port = if target_type == "instance" {
            let port = of.node_port.filter(|port| *port > 0);
            port.ok_or("TargetGroup port is empty. When using Instance targets, your service must be of type 'NodePort' or 'LoadBalancer'")?
        } else {
            match &of.target_port {
                Some(IntOrString::Int(number)) => *number,
                None => of.port,
                // A name may be another number in each pod.
                Some(IntOrString::String(_)) => 1,
            }
        };
        let health =
            if own.text("healthcheck-path").is_some() { own } else { member.annotations() };
        let ingress = member.key.to_string();
        let hashed = [
            self.settings.cluster_name.as_str(),
            &self.id.name,
            &ingress,
            key.name.as_str(),
            &text,
            &target_type,
        ];
        let name = names::of_object(&key.namespace, &key.name, &hashed);
        let wanted = WantedGroup {
            name: name.clone(),
            service: key.clone(),
            service_port: port,
            target_type,
            protocol: own
                .text("backend-protocol")
                .or(member.annotations().text("backend-protocol"))
                .unwrap_or("HTTP")
                .to_owned(),
            port: target_port,
            health_check: health.health_check()?,
        };
        self.groups.insert(name.clone(), wanted);
        Ok(name)
    }
}

/// The patterns of a path as listeners know them.
fn patterns(path: &HTTPIngressPath) -> Vec<String> {
    let text = path.path.as_deref().unwrap_or_default();
    match path.path_type.as_str() {
        "Prefix" => match text.trim_end_matches('/') {
            "" => vec!["/*".to_owned()],
            text => vec![text.to_owned(), format!("{text}/*")],
        },
        _ if text.is_empty() => vec!["/*".to_owned()],
        _ => vec![text.to_owned()],
    }
}
