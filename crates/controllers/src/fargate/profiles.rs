//! What becomes of profiles: `CREATING` for a few minutes, `ACTIVE`, and, once its deletion is asked
//! for, `DELETING` until its pods are gone. With the first profile the webhook's configuration appears.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhook, MutatingWebhookConfiguration, RuleWithOperations, WebhookClientConfig,
};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use wharf_fargate::{PROFILE_LABEL, admission, start};
use wharf_model::fargate::{
    FINALIZER, FargateProfile, ProfileCondition, ResourceMetadata, SYNCED, status,
};
use wharf_model::kinds::Kind;
use wharf_model::object::{Object, ObjectKey};
use wharf_model::time::Time;
use wharf_ports::cluster::{Change, Delete, Part, Write};
use wharf_ports::controller::{Context, Controller, Enqueue, Step, WorkKey};
use wharf_ports::view::View;

use super::FargateSettings;

/// How often to look whether the pods of a profile that goes are gone.
const WAIT_FOR_PODS: Duration = Duration::from_secs(5);

/// The controller.
pub(super) struct Profiles {
    settings: Arc<FargateSettings>,
}

impl Profiles {
    pub(super) fn new(settings: Arc<FargateSettings>) -> Self {
        Self { settings }
    }

    /// What a profile that stays should say, and when it will say more.
    fn reconcile(&self, profile: &FargateProfile, context: &Context<'_>) -> Step {
        let now = context.now;
        let mut draft = profile.clone();
        add_finalizer(&mut draft);
        let uid = profile.metadata.uid.as_deref().unwrap_or_default();
        let status = &mut draft.status;
        status.created_at.get_or_insert_with(|| now.to_meta());
        status.ack_resource_metadata.get_or_insert_with(|| self.known_as(&profile.spec.name, uid));
        let created = status.created_at.as_ref().map_or(now, Time::from);
        let active_at = created + start::profile_creation(self.settings.seed, uid);
        let mut step = Step::done();
        if status.status.as_deref() != Some(status::ACTIVE) {
            let is_active = active_at <= now;
            let word = if is_active { status::ACTIVE } else { status::CREATING };
            status.status = Some(word.to_owned());
            if !is_active {
                step.again = Some(active_at.since(now));
            }
        }
        let synced = status.status.as_deref() == Some(status::ACTIVE);
        set_synced(&mut draft, synced, now);
        if draft != *profile {
            step.write(Write::Update { object: Box::new(draft), part: Part::All });
        }
        if !has_configuration(context.view) {
            step.write(Write::Create(Box::new(configuration())));
        }
        step
    }

    /// Deletes the pods of a profile that goes, and lets it go after them.
    fn finalize(&self, profile: &FargateProfile, context: &Context<'_>) -> Step {
        // EKS refuses to delete a second profile meanwhile, and its controller asks again.
        if is_behind_another(profile, context.view) {
            return Step::again_after(WAIT_FOR_PODS);
        }
        let mut draft = profile.clone();
        let mut step = Step::done();
        let pods: Vec<&Arc<Object>> = pods_of(&profile.spec.name, context.view).collect();
        if pods.is_empty() {
            let finalizers = draft.metadata.finalizers.get_or_insert_default();
            finalizers.retain(|finalizer| finalizer != FINALIZER);
            if draft != *profile {
                step.write(Write::Update { object: Box::new(draft), part: Part::Main });
            }
            return step;
        }
        draft.status.status = Some(status::DELETING.to_owned());
        set_synced(&mut draft, false, context.now);
        if draft != *profile {
            step.write(Write::Update { object: Box::new(draft), part: Part::Status });
        }
        let staying = pods.iter().filter(|pod| pod.header().deleting.is_none());
        step.writes.extend(staying.map(|pod| Write::Delete(Delete::of(pod))));
        step.independent = true;
        step.again = Some(WAIT_FOR_PODS);
        step
    }

    fn known_as(&self, name: &str, uid: &str) -> ResourceMetadata {
        let FargateSettings { cluster_name, region, account, .. } = &*self.settings;
        ResourceMetadata {
            arn: Some(format!(
                "arn:aws:eks:{region}:{account}:fargateprofile/{cluster_name}/{name}/{uid}"
            )),
            owner_account_id: account.clone(),
            region: region.clone(),
        }
    }
}

impl Controller for Profiles {
    fn name(&self) -> &'static str {
        "fargate profiles"
    }

    fn reads(&self) -> Option<&'static [(&'static str, &'static str)]> {
        Some(&[
            ("eks.services.k8s.aws", "fargateprofiles"),
            ("admissionregistration.k8s.io", "mutatingwebhookconfigurations"),
            ("", "pods"),
        ])
    }

    fn observe(&mut self, change: &Change, view: &View, queue: &mut Enqueue) {
        let kind = Kind::of::<FargateProfile>();
        if change.kind() == kind {
            queue.now(WorkKey::object(kind, change.key()));
        } else if change.kind() == Kind::of::<MutatingWebhookConfiguration>() {
            let profiles = view.objects(kind).filter(|_| change.new.is_none());
            profiles.for_each(|profile| queue.now(WorkKey::object(kind, profile.key())));
        }
    }

    fn step(&mut self, key: &WorkKey, context: &mut Context<'_>) -> Step {
        match context.view.get::<FargateProfile>(&key.key) {
            Some(profile) if profile.is_deleting() => self.finalize(profile, context),
            Some(profile) => self.reconcile(profile, context),
            None => Step::done(),
        }
    }
}

/// Whether the deletion of another profile was asked for earlier, or at once with this one's.
fn is_behind_another(profile: &FargateProfile, view: &View) -> bool {
    let asked = |profile: &FargateProfile| {
        let at = profile.metadata.deletion_timestamp.as_ref().map(Time::from);
        at.map(|at| (at, profile.spec.name.clone()))
    };
    let own = asked(profile);
    view.list::<FargateProfile>().filter_map(asked).any(|other| Some(other) < own)
}

/// The pods that a profile has taken.
fn pods_of<'v>(profile: &str, view: &'v View) -> impl Iterator<Item = &'v Arc<Object>> {
    view.objects(Kind::of::<Pod>()).filter(move |object| {
        object.header().label(PROFILE_LABEL) == Some(profile)
            && object.typed::<Pod>().is_some_and(admission::is_admitted)
    })
}

fn add_finalizer(profile: &mut FargateProfile) {
    let finalizers = profile.metadata.finalizers.get_or_insert_default();
    if !finalizers.iter().any(|finalizer| finalizer == FINALIZER) {
        finalizers.push(FINALIZER.to_owned());
    }
}

fn set_synced(profile: &mut FargateProfile, synced: bool, now: Time) {
    let word = if synced { "True" } else { "False" };
    let conditions = &mut profile.status.conditions;
    match conditions.iter_mut().find(|condition| condition.type_ == SYNCED) {
        Some(condition) if condition.status == word => {}
        Some(condition) => {
            condition.status = word.to_owned();
            condition.last_transition_time = Some(now.to_meta());
        }
        None => conditions.push(ProfileCondition {
            type_: SYNCED.to_owned(),
            status: word.to_owned(),
            last_transition_time: Some(now.to_meta()),
            ..ProfileCondition::default()
        }),
    }
}

fn has_configuration(view: &View) -> bool {
    let kind = Kind::of::<MutatingWebhookConfiguration>();
    view.object(kind, &ObjectKey::cluster(admission::CONFIGURATION)).is_some()
}

/// The configuration as users see it: two webhooks for new pods, which run outside the cluster. Their
/// names and paths are not published.
fn configuration() -> MutatingWebhookConfiguration {
    let webhook = |name: &str, path: &str| MutatingWebhook {
        name: name.to_owned(),
        admission_review_versions: vec!["v1beta1".to_owned()],
        client_config: WebhookClientConfig {
            url: Some(format!("https://127.0.0.1:23445/{path}")),
            ..WebhookClientConfig::default()
        },
        failure_policy: Some("Ignore".to_owned()),
        rules: Some(vec![RuleWithOperations {
            api_groups: Some(vec![String::new()]),
            api_versions: Some(vec!["v1".to_owned()]),
            operations: Some(vec!["CREATE".to_owned()]),
            resources: Some(vec!["pods".to_owned()]),
            ..RuleWithOperations::default()
        }]),
        side_effects: "None".to_owned(),
        timeout_seconds: Some(5),
        ..MutatingWebhook::default()
    };
    MutatingWebhookConfiguration {
        metadata: ObjectMeta {
            name: Some(admission::CONFIGURATION.to_owned()),
            ..ObjectMeta::default()
        },
        webhooks: Some(vec![
            webhook("0500-amazon-eks-fargate-mutation.amazonaws.com", "mutate"),
            webhook("0500-amazon-eks-fargate-configmaps-admission.amazonaws.com", "logging"),
        ]),
    }
}
