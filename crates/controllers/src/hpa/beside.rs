//! What else has a part in an autoscaler's decisions: the Vertical Pod Autoscalers of the same
//! workload, and forecasts.

use std::collections::BTreeSet;
use std::time::Duration;

use compact_str::CompactString;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::PodSpec;
use rustc_hash::FxHashMap;
use wharf_autoscale::coordinate;
use wharf_autoscale::predict::{self, Forecast, History, Settings};
use wharf_model::duration;
use wharf_model::object::{Object, ObjectKey};
use wharf_model::random::fnv1a;
use wharf_model::time::Time;
use wharf_model::vpa::VerticalPodAutoscaler;
use wharf_ports::cluster::{Part, Write};
use wharf_ports::reason::Because;
use wharf_ports::view::View;

use super::target::{self, Target};

/// Turns forecasts on.
pub const PREDICT: &str = "autoscaling.wharf.dev/predict";
/// After how long load comes back (`24h`).
pub const PREDICT_SEASON: &str = "autoscaling.wharf.dev/predict-season";
/// How far ahead the floor is raised (`5m`).
pub const PREDICT_AHEAD: &str = "autoscaling.wharf.dev/predict-ahead";

/// What has been asked for, kept by the controller: it outlives a restart.
pub const PREDICT_HISTORY: &str = "autoscaling.wharf.dev/predict-history";

/// Into how many parts a season is told apart: five minutes of a day.
const BUCKETS: u32 = 288;
/// Finer than the passes are there is nothing to tell apart.
const BUCKET_MIN: Duration = Duration::from_secs(15);

/// The Vertical Pod Autoscalers by namespace, kind and name of their targets.
#[derive(Debug, Default)]
pub(super) struct Vertical(FxHashMap<(CompactString, CompactString, CompactString), Keys>);
type Keys = BTreeSet<ObjectKey>;

impl Vertical {
    /// Takes in a change of one.
    pub(super) fn take(&mut self, old: Option<&Object>, new: Option<&Object>) {
        if let Some((place, key)) = old.and_then(filed)
            && let Some(keys) = self.0.get_mut(&place)
        {
            keys.remove(&key);
            if keys.is_empty() {
                self.0.remove(&place);
            }
        }
        if let Some((place, key)) = new.and_then(filed) {
            self.0.entry(place).or_default().insert(key);
        }
    }

    /// The template against whose requests utilisation is measured and the resources for which it
    /// is, where such an autoscaler sizes the pods by the same resource; and what there is to say
    /// of it.
    pub(super) fn base<'v>(
        &self,
        autoscaler: &HorizontalPodAutoscaler,
        target: &Target,
        view: &'v View,
    ) -> Option<(&'v PodSpec, Vec<&'static str>, Because)> {
        let target_kind = CompactString::const_new(target.kind.kind);
        let place = (target.key.namespace.clone(), target_kind, target.key.name.clone());
        let keys = self.0.get(&place)?;
        let template = target::template(target, view)?;
        for key in keys {
            let Some(vertical) = view.get::<VerticalPodAutoscaler>(key) else { continue };
            let shared = coordinate::shared(&autoscaler.spec, vertical, template);
            if !shared.is_empty() {
                let resources = shared.join(" and ");
                let text = format!(
                    "vpa/{} sizes the pods by {resources}, too: utilisation is measured against the requests in the template, and running pods keep their size while the count moves",
                    key.name
                );
                return Some((template, shared, Because::new("coordination", text)));
            }
        }
        None
    }
}

fn filed(object: &Object) -> Option<((CompactString, CompactString, CompactString), ObjectKey)> {
    let target = object.typed::<VerticalPodAutoscaler>()?.spec.target_ref.as_ref()?;
    let key = object.key();
    let place = (key.namespace.clone(), target.kind.as_str().into(), target.name.as_str().into());
    Some((place, key.clone()))
}

/// How an autoscaler wants to be forecast, `None` if it does not; and what is wrong with what it says
/// of that. What cannot be read counts as not said.
pub(super) fn settings(autoscaler: &HorizontalPodAutoscaler) -> (Option<Settings>, Option<String>) {
    let Some(annotations) = &autoscaler.metadata.annotations else { return (None, None) };
    let mut problem = None;
    match annotations.get(PREDICT).map(String::as_str) {
        None | Some("false") => return (None, None),
        Some("true") => {}
        Some(other) => {
            let text =
                format!("annotation {PREDICT} is {other:?}; allowed are \"true\" and \"false\"");
            return (None, Some(text));
        }
    }
    let standard = Settings::default();
    let mut said = |name: &str, otherwise: Duration| {
        let Some(text) = annotations.get(name) else { return otherwise };
        let nanos = duration::parse(text).ok().and_then(|nanos| u64::try_from(nanos).ok());
        nanos.filter(|nanos| *nanos > 0).map(Duration::from_nanos).unwrap_or_else(|| {
            let counts = duration::human(i64::try_from(otherwise.as_nanos()).unwrap_or(i64::MAX));
            problem.get_or_insert_with(|| {
                format!("annotation {name} is {text:?}; allowed are spans such as 24h or 5m, and {counts} counts")
            });
            otherwise
        })
    };
    let season = said(PREDICT_SEASON, standard.season);
    let ahead = said(PREDICT_AHEAD, standard.ahead);
    let settings = Settings {
        season,
        bucket: (season / BUCKETS).max(BUCKET_MIN),
        ahead,
        seasons_max: standard.seasons_max,
    };
    (Some(settings), problem)
}

/// What was asked for of an autoscaler's workload, and how far that is on the object.
#[derive(Default)]
pub(super) struct Remembered {
    pub(super) history: History,
    /// Whether the annotation has been read.
    is_read: bool,
    /// The round of checkpoints that the annotation is of.
    round: Option<i64>,
    /// Whether a checkpoint is to be written by the step after this one. What is written together
    /// with a status would be of a version that is not there any more.
    pub(super) is_due: bool,
}

impl Remembered {
    /// Takes up what the annotation has, the first time.
    pub(super) fn read(
        &mut self,
        autoscaler: &HorizontalPodAutoscaler,
        settings: &Settings,
        now: Time,
    ) {
        if std::mem::replace(&mut self.is_read, true) {
            return;
        }
        let annotations = autoscaler.metadata.annotations.as_ref();
        let kept = annotations.and_then(|annotations| annotations.get(PREDICT_HISTORY));
        // What cannot be read counts as not there, and is written over.
        if let Some(history) = kept.and_then(|text| History::restore(settings, text, now)) {
            self.round = history.last_round(draw(autoscaler));
            self.history = history;
        }
    }

    /// Takes in what metrics ask for.
    pub(super) fn observe(
        &mut self,
        autoscaler: &HorizontalPodAutoscaler,
        settings: &Settings,
        now: Time,
        asked: i32,
        floor: Option<i32>,
    ) {
        self.history.observe(settings, now, asked, floor);
        self.is_due |= self.round != Some(predict::round(settings, now, draw(autoscaler)));
    }

    /// The write that keeps the history on the object as it was seen: if that has changed meanwhile,
    /// it is refused, and the next pass tries again.
    pub(super) fn keep(&mut self, autoscaler: &HorizontalPodAutoscaler) -> Write {
        self.is_due = false;
        self.round = self.history.last_round(draw(autoscaler));
        let mut object = autoscaler.clone();
        let annotations = object.metadata.annotations.get_or_insert_default();
        annotations.insert(PREDICT_HISTORY.to_owned(), self.history.checkpoint());
        Write::Update { object: Box::new(object), part: Part::Main }
    }

    /// The checkpoint was refused.
    pub(super) fn not_kept(&mut self) {
        self.round = None;
    }
}

fn draw(autoscaler: &HorizontalPodAutoscaler) -> u64 {
    fnv1a(autoscaler.metadata.uid.as_deref().unwrap_or_default().as_bytes())
}

/// What a forecast says, and what forecasts have been worth.
pub(super) fn told(forecast: Option<Forecast>, history: &History) -> Because {
    let worth = history.worth();
    let text = match forecast {
        None => "learns: no season has passed yet".to_owned(),
        Some(Forecast { floor, seasons }) => format!(
            "at least {floor} will be asked for, by {seasons} seasons; so far {} pod-seconds of demand found their pods ready in {} rises, for {} pod-seconds more than metrics asked for",
            worth.ready_pod_seconds, worth.hits, worth.extra_pod_seconds
        ),
    };
    let whole = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let mut numbers = vec![
        ("readyPodSeconds", whole(worth.ready_pod_seconds)),
        ("extraPodSeconds", whole(worth.extra_pod_seconds)),
        ("rises", i64::from(worth.hits)),
    ];
    if let Some(forecast) = forecast {
        numbers.push(("floor", i64::from(forecast.floor)));
        numbers.push(("seasons", i64::from(forecast.seasons)));
    }
    Because::told("prediction", text, numbers)
}
