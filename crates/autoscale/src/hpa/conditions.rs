//! The conditions of an autoscaler: replaced in place, so that their order is that of their first
//! appearance, and dated when their status turns.

use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscalerCondition as Condition;
use wharf_model::time::Time;

#[derive(Clone, Debug)]
pub(super) struct Conditions {
    list: Vec<Condition>,
    now: Time,
}

impl Conditions {
    pub(super) fn new(list: &[Condition], now: Time) -> Self {
        Self { list: list.to_vec(), now }
    }

    pub(super) fn set(
        &mut self,
        type_: &str,
        status: bool,
        reason: &str,
        message: impl Into<String>,
    ) {
        let status = if status { "True" } else { "False" };
        let at = self.list.iter().position(|known| known.type_ == type_).unwrap_or_else(|| {
            self.list.push(Condition { type_: type_.to_owned(), ..Condition::default() });
            self.list.len() - 1
        });
        let condition = &mut self.list[at];
        if condition.status != status {
            status.clone_into(&mut condition.status);
            condition.last_transition_time = Some(self.now.to_meta());
        }
        condition.reason = Some(reason.to_owned());
        condition.message = Some(message.into());
    }

    pub(super) fn remove(&mut self, type_: &str) {
        self.list.retain(|known| known.type_ != type_);
    }

    pub(super) fn is_true(&self, type_: &str) -> bool {
        self.list.iter().any(|known| known.type_ == type_ && known.status == "True")
    }

    pub(super) fn reason(&self, type_: &str) -> Option<&str> {
        self.list.iter().find(|known| known.type_ == type_)?.reason.as_deref()
    }

    pub(super) fn into_api(self) -> Option<Vec<Condition>> {
        (!self.list.is_empty()).then_some(self.list)
    }
}
