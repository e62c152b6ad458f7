//! Binding by an extender: `bindVerb`.

use compact_str::CompactString;
use serde_json::json;
use wharf_ports::cluster::Write;
use wharf_ports::controller::Step;

use super::super::Scheduler;
use super::super::assumed::Assumed;
use super::{answers, bind_verb};

impl Scheduler {
    /// Has an extender bind a pod, if one does. Returns whether it was asked.
    pub(in super::super) fn bind_by_extender(
        &mut self,
        assumed: &Assumed,
        step: &mut Step,
    ) -> bool {
        let pod = &assumed.entry.pod;
        let Some(extender) = self.extenders.next(0, pod, bind_verb) else { return false };
        let body = json!({
            "PodName": pod.key.name.as_str(),
            "PodNamespace": pod.key.namespace.as_str(),
            "PodUID": pod.uid.as_str(),
            "Node": assumed.node.as_str(),
        });
        let call = self.extenders.call(extender, bind_verb, body.to_string());
        self.extenders.binding.insert(call.id, (extender, pod.uid.clone()));
        step.extender.push(call);
        true
    }

    pub(super) fn take_binding(
        &mut self,
        extender: usize,
        uid: CompactString,
        result: &Result<String, String>,
        step: &mut Step,
    ) {
        let Some(assumed) = self.assumed.get(&uid) else { return };
        // Without an answer of its own nobody knows what it has done.
        let (error, certain) = match result {
            Err(error) => (error.clone(), false),
            Ok(body) => match answers::error_of(body) {
                Ok(()) => return,
                Err(error) => (error, true),
            },
        };
        if self.extenders.list[extender].ignorable {
            let pod = &assumed.entry.pod;
            step.write(Write::Bind {
                pod: pod.key.clone(),
                uid: uid.clone(),
                node: assumed.node.clone(),
            });
        } else {
            self.failed_bindings.push((uid, error, certain));
        }
    }
}
