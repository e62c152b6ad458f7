//! Webhook configurations. They are kept and shown; no webhook is called: those of EKS and of the
//! Vertical Pod Autoscaler are part of the registry, and no pod here could answer a call.

use std::collections::BTreeSet;

use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhook, MutatingWebhookConfiguration, ValidatingWebhook,
    ValidatingWebhookConfiguration, WebhookClientConfig,
};
use wharf_model::names;

use super::Rules;
use crate::field::{Errors, Path};

const ROOT: Path<'static> = Path::root("webhooks");
/// A webhook's name has at least so many parts between dots.
const NAME_PARTS_MIN: usize = 3;

/// The defaults that webhooks of both kinds have.
macro_rules! set_defaults {
    ($webhook:expr) => {
        $webhook.failure_policy.get_or_insert_with(|| "Fail".to_owned());
        $webhook.match_policy.get_or_insert_with(|| "Equivalent".to_owned());
        $webhook.namespace_selector.get_or_insert_default();
        $webhook.object_selector.get_or_insert_default();
        $webhook.timeout_seconds.get_or_insert(10);
        if let Some(service) = &mut $webhook.client_config.service {
            service.port.get_or_insert(443);
        }
        for rule in $webhook.rules.iter_mut().flatten() {
            rule.scope.get_or_insert_with(|| "*".to_owned());
        }
    };
}

impl Rules for MutatingWebhookConfiguration {
    const GENERATION: bool = true;

    fn set_defaults(&mut self) {
        for webhook in self.webhooks.iter_mut().flatten() {
            set_defaults!(webhook);
            webhook.reinvocation_policy.get_or_insert_with(|| "Never".to_owned());
        }
    }

    fn starts_generation(&self, old: &Self) -> bool {
        self.webhooks != old.webhooks
    }

    fn validate(&self, errors: &mut Errors) {
        validate(self.webhooks.iter().flatten().map(Webhook::from), errors);
    }
}

impl Rules for ValidatingWebhookConfiguration {
    const GENERATION: bool = true;

    fn set_defaults(&mut self) {
        for webhook in self.webhooks.iter_mut().flatten() {
            set_defaults!(webhook);
        }
    }

    fn starts_generation(&self, old: &Self) -> bool {
        self.webhooks != old.webhooks
    }

    fn validate(&self, errors: &mut Errors) {
        validate(self.webhooks.iter().flatten().map(Webhook::from), errors);
    }
}

/// What webhooks of both kinds have.
struct Webhook<'a> {
    name: &'a str,
    config: &'a WebhookClientConfig,
    versions: &'a [String],
    side_effects: &'a str,
    failure_policy: Option<&'a str>,
    match_policy: Option<&'a str>,
    /// Of those that change objects.
    reinvocation_policy: Option<&'a str>,
    timeout_seconds: Option<i32>,
}

impl<'a> From<&'a MutatingWebhook> for Webhook<'a> {
    fn from(of: &'a MutatingWebhook) -> Self {
        Self {
            name: &of.name,
            config: &of.client_config,
            versions: &of.admission_review_versions,
            side_effects: &of.side_effects,
            failure_policy: of.failure_policy.as_deref(),
            match_policy: of.match_policy.as_deref(),
            reinvocation_policy: of.reinvocation_policy.as_deref(),
            timeout_seconds: of.timeout_seconds,
        }
    }
}

impl<'a> From<&'a ValidatingWebhook> for Webhook<'a> {
    fn from(of: &'a ValidatingWebhook) -> Self {
        Self {
            name: &of.name,
            config: &of.client_config,
            versions: &of.admission_review_versions,
            side_effects: &of.side_effects,
            failure_policy: of.failure_policy.as_deref(),
            match_policy: of.match_policy.as_deref(),
            reinvocation_policy: None,
            timeout_seconds: of.timeout_seconds,
        }
    }
}

fn validate<'a>(webhooks: impl Iterator<Item = Webhook<'a>>, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for (index, webhook) in webhooks.enumerate() {
        let path = ROOT.index(index);
        if !seen.insert(webhook.name) {
            errors.duplicate(&path.child("name"), webhook.name);
        }
        validate_webhook(&webhook, &path, errors);
    }
}

fn validate_webhook(webhook: &Webhook<'_>, path: &Path<'_>, errors: &mut Errors) {
    let name = path.child("name");
    if webhook.name.is_empty() {
        errors.required(&name, "");
    } else {
        errors.invalid_each(&name, webhook.name, names::dns_1123_subdomain(webhook.name));
        if webhook.name.split('.').count() < NAME_PARTS_MIN {
            errors.invalid(
                &name,
                webhook.name,
                "should be a domain with at least three segments separated by dots",
            );
        }
    }
    if webhook.config.url.is_some() == webhook.config.service.is_some() {
        errors.required(&path.child("clientConfig"), "exactly one of url or service is required");
    }
    let versions = path.child("admissionReviewVersions");
    if webhook.versions.is_empty() {
        errors.required(&versions, "must specify one of v1, v1beta1");
    }
    let effects = path.child("sideEffects");
    match webhook.side_effects {
        "None" | "NoneOnDryRun" => {}
        "" => errors.required(&effects, "must specify one of None, NoneOnDryRun"),
        other => errors.not_supported(&effects, other, &["None", "NoneOnDryRun"]),
    }
    for (field, value, allowed) in [
        ("failurePolicy", webhook.failure_policy, &["Fail", "Ignore"]),
        ("matchPolicy", webhook.match_policy, &["Equivalent", "Exact"]),
        ("reinvocationPolicy", webhook.reinvocation_policy, &["IfNeeded", "Never"]),
    ] {
        if let Some(value) = value
            && !allowed.contains(&value)
        {
            errors.not_supported(&path.child(field), value, allowed);
        }
    }
    if let Some(seconds) = webhook.timeout_seconds
        && !(1..=30).contains(&seconds)
    {
        let detail = "the timeout value must be between 1 and 30 seconds";
        errors.invalid(&path.child("timeoutSeconds"), &seconds, detail);
    }
}
