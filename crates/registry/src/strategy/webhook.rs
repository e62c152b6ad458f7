//! Webhook configurations. They are kept and shown; no webhook is called: those of EKS and of the
//! Vertical Pod Autoscaler are part of the registry, and no pod here could answer a call.

use std::collections::BTreeSet;

use k8s_openapi::api::admissionregistration::v1::{MutatingWebhook, MutatingWebhookConfiguration};
use wharf_model::names;

use super::Rules;
use crate::field::{Errors, Path};

const ROOT: Path<'static> = Path::root("webhooks");
/// A webhook's name has at least so many parts between dots.
const NAME_PARTS_MIN: usize = 3;

impl Rules for MutatingWebhookConfiguration {
    const GENERATION: bool = true;

    fn set_defaults(&mut self) {
        for webhook in self.webhooks.iter_mut().flatten() {
            webhook.failure_policy.get_or_insert_with(|| "Fail".to_owned());
            webhook.match_policy.get_or_insert_with(|| "Equivalent".to_owned());
            webhook.reinvocation_policy.get_or_insert_with(|| "Never".to_owned());
            webhook.namespace_selector.get_or_insert_default();
            webhook.object_selector.get_or_insert_default();
            webhook.timeout_seconds.get_or_insert(10);
            if let Some(service) = &mut webhook.client_config.service {
                service.port.get_or_insert(443);
            }
            for rule in webhook.rules.iter_mut().flatten() {
                rule.scope.get_or_insert_with(|| "*".to_owned());
            }
        }
    }

    fn starts_generation(&self, old: &Self) -> bool {
        self.webhooks != old.webhooks
    }

    fn validate(&self, errors: &mut Errors) {
        let mut seen = BTreeSet::new();
        for (index, webhook) in self.webhooks.iter().flatten().enumerate() {
            let path = ROOT.index(index);
            if !seen.insert(&webhook.name) {
                errors.duplicate(&path.child("name"), &webhook.name);
            }
            validate_webhook(webhook, &path, errors);
        }
    }
}

fn validate_webhook(webhook: &MutatingWebhook, path: &Path<'_>, errors: &mut Errors) {
    let name = path.child("name");
    if webhook.name.is_empty() {
        errors.required(&name, "");
    } else {
        errors.invalid_each(&name, &webhook.name, names::dns_1123_subdomain(&webhook.name));
        if webhook.name.split('.').count() < NAME_PARTS_MIN {
            errors.invalid(
                &name,
                &webhook.name,
                "should be a domain with at least three segments separated by dots",
            );
        }
    }
    let config = &webhook.client_config;
    if config.url.is_some() == config.service.is_some() {
        errors.required(&path.child("clientConfig"), "exactly one of url or service is required");
    }
    let versions = path.child("admissionReviewVersions");
    if webhook.admission_review_versions.is_empty() {
        errors.required(&versions, "must specify one of v1, v1beta1");
    }
    let effects = path.child("sideEffects");
    match webhook.side_effects.as_str() {
        "None" | "NoneOnDryRun" => {}
        "" => errors.required(&effects, "must specify one of None, NoneOnDryRun"),
        other => errors.not_supported(&effects, other, &["None", "NoneOnDryRun"]),
    }
    for (field, value, allowed) in [
        ("failurePolicy", &webhook.failure_policy, &["Fail", "Ignore"]),
        ("matchPolicy", &webhook.match_policy, &["Equivalent", "Exact"]),
        ("reinvocationPolicy", &webhook.reinvocation_policy, &["IfNeeded", "Never"]),
    ] {
        if let Some(value) = value
            && !allowed.contains(&value.as_str())
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
