//! CertificateSigningRequests go some time after they were decided: the controller manager's
//! `certificatesigningrequest-cleaner-controller`.

use std::time::Duration;

use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use wharf_model::kinds::Kind;
use wharf_model::time::Time;
use wharf_ports::cluster::{Change, Delete, Write};
use wharf_ports::controller::{Context, Controller, Enqueue, OnError, Step, WorkKey};
use wharf_ports::error::ApiError;
use wharf_ports::view::View;

/// How long a request is kept after it was issued, denied, or found to be wrong.
const KEPT_DECIDED: Duration = Duration::from_hours(1);
/// How long one is kept that nobody decides.
const KEPT_PENDING: Duration = Duration::from_hours(24);
/// Requests are looked through this often, so that they stay up to an hour longer.
const SWEEP: Duration = Duration::from_hours(1);

/// Removes old requests.
#[derive(Debug, Default)]
pub struct CertificateCleaner {
    /// Whether a sweep is on the queue: without requests there is none.
    waiting: bool,
}

impl Controller for CertificateCleaner {
    fn name(&self) -> &'static str {
        "certificatesigningrequest-cleaner-controller"
    }

    fn reads(&self) -> Option<&'static [(&'static str, &'static str)]> {
        Some(&[("certificates.k8s.io", "certificatesigningrequests")])
    }

    fn observe(&mut self, change: &Change, _view: &View, queue: &mut Enqueue) {
        if change.kind() == Kind::of::<CertificateSigningRequest>() && !self.waiting {
            self.waiting = true;
            queue.after(WorkKey::singleton("certificate signing requests"), SWEEP);
        }
    }

    fn step(&mut self, _key: &WorkKey, context: &mut Context<'_>) -> Step {
        let now = context.now;
        let mut step = Step { independent: true, ..Step::default() };
        let mut stays = false;
        for object in context.view.objects(Kind::of::<CertificateSigningRequest>()) {
            let Some(request) = object.typed::<CertificateSigningRequest>() else { continue };
            if is_over(request, object.header().created, now) {
                step.write(Write::Delete(Delete::of(object)));
            } else {
                stays = true;
            }
        }
        self.waiting = stays;
        step.again = stays.then_some(SWEEP);
        step
    }

    fn refused(&mut self, _key: &WorkKey, _write: &Write, _error: &ApiError) -> OnError {
        OnError::Forget
    }
}

fn is_over(request: &CertificateSigningRequest, created: Time, now: Time) -> bool {
    let status = request.status.as_ref();
    let conditions = status.and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let is_issued = status.is_some_and(|status| status.certificate.is_some());
    if conditions.is_empty() && !is_issued {
        return created + KEPT_PENDING <= now;
    }
    conditions.iter().any(|condition| {
        let counts = match condition.type_.as_str() {
            "Approved" => is_issued,
            "Denied" | "Failed" => true,
            _ => false,
        };
        // Clients date the update by clocks of their own; the transition is dated by the server.
        let at = condition.last_transition_time.as_ref().or(condition.last_update_time.as_ref());
        counts && at.map_or(created, Time::from) + KEPT_DECIDED <= now
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn requests_are_kept_as_long_as_upstream_keeps_them() {
        let at = |type_: &str| json!({"type": type_, "status": "True", "lastTransitionTime": "1970-01-01T01:00:00Z"});
        let (issued, none) = (json!("MA=="), json!(null));
        for (conditions, certificate, hours) in [
            (json!([]), &none, Some(24)),
            (json!([at("Approved")]), &issued, Some(2)),
            (json!([at("Approved")]), &none, None),
            (json!([at("Denied")]), &none, Some(2)),
            (json!([at("Approved"), at("Failed")]), &none, Some(2)),
        ] {
            let status: Value = json!({"conditions": conditions, "certificate": certificate});
            let request = json!({
                "spec": {"request": "MA==", "signerName": "a.b/c", "usages": []},
                "status": status,
            });
            let request: CertificateSigningRequest =
                serde_json::from_value(request).expect("a request");
            let first = (0..100).find(|hour| {
                is_over(&request, Time::EPOCH, Time::EPOCH + Duration::from_hours(*hour))
            });
            assert_eq!(first, hours, "{conditions} {certificate}");
        }
    }
}
