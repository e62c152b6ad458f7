//! Building the snapshot anew once most of what it remembers is of the past.

use std::sync::Arc;

use compact_str::CompactString;
use k8s_openapi::api::core::v1::{Node, Pod};
use rustc_hash::FxHashMap;
use wharf_model::object::ObjectKey;
use wharf_ports::view::View;
use wharf_scheduler::PodInfo;

use super::Scheduler;
use super::feed::refeed;

/// Interned strings below which the snapshot is never built anew.
pub(super) const SYMBOLS_MIN: usize = 20_000;
/// How much the interned strings may grow before the snapshot is built anew: nodes and pods come
/// and go, and their names would stay for ever.
const SYMBOLS_GROWTH: usize = 4;

impl Scheduler {
    /// Builds the snapshot anew, and all that was compiled against it, when most of its strings
    /// are of objects long gone.
    pub(super) fn renew_snapshot(&mut self, view: &View) {
        let limit = SYMBOLS_MIN.max(self.symbols_at_build * SYMBOLS_GROWTH);
        if self.snapshot.symbols().len() <= limit {
            return;
        }
        let old = std::mem::take(&mut self.snapshot);
        // The order in which nodes are tried stays.
        for index in old.nodes() {
            if let Some(node) = view.get_cluster::<Node>(&old.node(*index).facts.name) {
                self.snapshot.set_node(node);
            }
        }
        refeed(&mut self.snapshot, view);
        self.snapshot.keep_given_up(&old);
        for profile in &mut self.profiles {
            self.snapshot.compile_profile(profile);
        }
        let mut compiled: FxHashMap<CompactString, Arc<PodInfo>> = FxHashMap::default();
        for pod in view.list::<Pod>() {
            if self.tracked.get(&ObjectKey::of(&pod.metadata)) != Some(&PodInfo::uid_of(pod)) {
                continue;
            }
            let info = self.snapshot.compile(pod);
            let assumed = self.assumed.get(&info.uid).map(|assumed| assumed.node.clone());
            let node = assumed.unwrap_or_else(|| info.node_name.clone());
            if node.is_empty() {
                if let Some(node) = old.nomination(&info.uid) {
                    self.snapshot.nominate(info.clone(), node);
                }
            } else {
                self.snapshot.place(info.clone(), &node);
            }
            compiled.insert(info.uid.clone(), info);
        }
        self.queue.replace(|pod| compiled.get(&pod.uid).cloned());
        self.assumed.replace(|uid| compiled.get(uid).cloned());
        self.extenders.replace(|uid| compiled.get(uid).cloned());
        self.groups.replace(|uid| compiled.get(uid).cloned());
        for reserver in &mut self.reservers {
            reserver.renew(&mut self.snapshot);
        }
        self.symbols_at_build = self.snapshot.symbols().len();
    }
}
