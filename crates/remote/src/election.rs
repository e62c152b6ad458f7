//! Leader election by a Lease, as client-go does it: whoever writes its name into the Lease and
//! keeps renewing it leads; others take over when it has not been renewed for the lease's duration.
//!
//! How long ago a Lease was renewed is measured by this machine's own clock, from when it was seen
//! to change: the clocks of the copies need not agree. Correct as long as the leader stops acting
//! when it cannot renew, for which [`Election::keep`] returns before others may take over.

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use tokio::time::Instant;
use wharf_model::kinds::Kind;
use wharf_model::object::{ObjectKey, Typed as _};
use wharf_ports::clock::Clock;
use wharf_ports::error::{ApiError, StatusReason};

use crate::api::{Again, Api, Failure, Request};
use crate::backoff::Backoff;
use crate::connect::Server;
use crate::limiter::Rate;
use crate::{Log, path, requests};

/// How a Lease is held. The defaults are those of upstream's components.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseSettings {
    /// Namespace and name of the Lease.
    pub key: ObjectKey,
    /// Who this copy is: unique among the copies.
    pub identity: String,
    /// How long others wait after a renewal.
    pub duration: Duration,
    /// How long the leader tries to renew before it gives up.
    pub renew_deadline: Duration,
    /// The pause between tries.
    pub retry_period: Duration,
}

impl LeaseSettings {
    /// 15 s, 10 s and 2 s, as upstream.
    pub fn new(key: ObjectKey, identity: String) -> Self {
        Self {
            key,
            identity,
            duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry_period: Duration::from_secs(2),
        }
    }
}

/// The Lease is no longer held: whoever acted on its strength must stop.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the lease {lease} is lost ({why}); stopping, so that no two copies act at once")]
pub struct LeaseLost {
    lease: String,
    why: String,
}

/// One copy's part in an election.
pub struct Election {
    api: Api,
    settings: LeaseSettings,
    clock: Arc<dyn Clock>,
    log: Log,
    backoff: Backoff,
    /// The Lease as last seen, and when it was first seen so.
    seen: Option<(Lease, Instant)>,
}

impl Election {
    /// A part in the election for `settings.key`. `clock` tells wall time, for people who read the
    /// Lease.
    pub fn new(
        server: &Server,
        settings: LeaseSettings,
        clock: Arc<dyn Clock>,
        seed: u64,
        log: Log,
    ) -> Self {
        // A renewal must not wait behind other requests.
        let api = server.api.with_own_limit(Rate::UNLIMITED);
        let backoff = Backoff::new(seed, &format!("lease {}", settings.identity));
        Self { api, settings, clock, log, backoff, seen: None }
    }

    /// Waits until this copy leads.
    ///
    /// # Errors
    /// If this copy may not read or write the Lease, which waiting cannot mend.
    pub async fn acquire(&mut self) -> Result<(), ApiError> {
        let mut told: Option<String> = None;
        loop {
            match self.try_once().await {
                Ok(Standing::Leader) => {
                    (self.log)(format!(
                        "leading as {} (lease {})",
                        self.settings.identity, self.settings.key
                    ));
                    return Ok(());
                }
                Ok(Standing::Follower(leader)) => {
                    if told.as_deref() != Some(leader.as_str()) {
                        (self.log)(format!(
                            "waiting for the lease {}, held by {leader}",
                            self.settings.key
                        ));
                        told = Some(leader);
                    }
                }
                Err(error)
                    if matches!(
                        error.reason,
                        StatusReason::Forbidden
                            | StatusReason::Unauthorized
                            | StatusReason::NotFound
                            | StatusReason::Invalid
                    ) =>
                {
                    return Err(error);
                }
                Err(error) => {
                    (self.log)(format!("cannot ask for the lease {}: {error}", self.settings.key));
                }
            }
            let pause = self.pause();
            tokio::time::sleep(pause).await;
        }
    }

    /// Renews the Lease for as long as that works.
    pub async fn keep(&mut self) -> LeaseLost {
        let lost = |settings: &LeaseSettings, why: String| LeaseLost {
            lease: settings.key.to_string(),
            why,
        };
        let mut renewed = Instant::now();
        loop {
            let pause = self.settings.retry_period;
            tokio::time::sleep(pause).await;
            let left = self.settings.renew_deadline.saturating_sub(renewed.elapsed());
            let why = match tokio::time::timeout(left, self.try_once()).await {
                Ok(Ok(Standing::Leader)) => {
                    renewed = Instant::now();
                    continue;
                }
                Ok(Ok(Standing::Follower(leader))) => {
                    return lost(&self.settings, format!("{leader} has it"));
                }
                Ok(Err(error)) => error.message,
                Err(_) => "no answer in time".to_owned(),
            };
            if renewed.elapsed() >= self.settings.renew_deadline {
                return lost(&self.settings, why);
            }
        }
    }

    /// Gives the Lease up, so that another copy need not wait for its end.
    pub async fn release(&mut self) {
        let Some((lease, _)) = self.seen.clone() else { return };
        let mut lease = lease;
        let spec = lease.spec.get_or_insert_default();
        if spec.holder_identity.as_deref() != Some(&self.settings.identity) {
            return;
        }
        spec.holder_identity = Some(String::new());
        spec.lease_duration_seconds = Some(1);
        spec.renew_time = Some(self.clock.now().to_micro());
        // If it does not arrive, the Lease ends by itself.
        let _ = tokio::time::timeout(self.settings.retry_period, self.put(lease)).await;
    }

    async fn try_once(&mut self) -> Result<Standing, ApiError> {
        let path = path::object(Kind::of::<Lease>(), &self.settings.key);
        let there = match self.api.call(&Request::get(path).with(Again::Never)).await {
            Ok(body) => Some(read(&body)?),
            Err(Failure::Refused(error)) if error.reason == StatusReason::NotFound => None,
            Err(failure) => return Err(failure.into_error()),
        };
        let Some(there) = there else {
            let mut lease = Lease::default();
            lease.metadata.name = Some(self.settings.key.name.to_string());
            lease.metadata.namespace = Some(self.settings.key.namespace.to_string());
            self.claim(&mut lease, true, 0);
            let request = requests::create(&lease).with(Again::Never);
            return match self.api.call(&request).await {
                Ok(body) => {
                    self.see(read(&body)?);
                    Ok(Standing::Leader)
                }
                Err(Failure::Refused(error)) if error.reason == StatusReason::AlreadyExists => {
                    Ok(Standing::Follower("another copy".to_owned()))
                }
                Err(failure) => Err(failure.into_error()),
            };
        };
        self.see(there.clone());
        let spec = there.spec.clone().unwrap_or_default();
        let holder = spec.holder_identity.clone().unwrap_or_default();
        let is_mine = holder == self.settings.identity;
        if !is_mine && !holder.is_empty() && !self.has_ended(&spec) {
            return Ok(Standing::Follower(holder));
        }
        let mut lease = there;
        self.claim(&mut lease, !is_mine, spec.lease_transitions.unwrap_or(0));
        match self.put(lease).await {
            Ok(()) => Ok(Standing::Leader),
            // Another copy was faster; who it was is seen at the next look.
            Err(error) if error.reason == StatusReason::Conflict && !is_mine => {
                Ok(Standing::Follower("another copy".to_owned()))
            }
            Err(error) => Err(error),
        }
    }

    async fn put(&mut self, lease: Lease) -> Result<(), ApiError> {
        let path = path::object(Kind::of::<Lease>(), &self.settings.key);
        let request =
            Request::send(Method::PUT, path, "application/json", lease.encode()).with(Again::Never);
        let body = self.api.call(&request).await.map_err(Failure::into_error)?;
        self.see(read(&body)?);
        Ok(())
    }

    /// Notes a Lease, and the moment if it is not as it was.
    fn see(&mut self, lease: Lease) {
        if self.seen.as_ref().is_none_or(|(known, _)| known.spec != lease.spec) {
            self.seen = Some((lease, Instant::now()));
        } else if let Some((known, _)) = &mut self.seen {
            *known = lease;
        }
    }

    /// Whether the Lease has not been renewed for its whole duration.
    fn has_ended(&self, spec: &LeaseSpec) -> bool {
        let seconds = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
        let duration = seconds.map_or(self.settings.duration, Duration::from_secs);
        self.seen.as_ref().is_some_and(|(_, since)| since.elapsed() > duration)
    }

    fn claim(&self, lease: &mut Lease, is_new: bool, transitions: i32) {
        let now = self.clock.now().to_micro();
        let spec = lease.spec.get_or_insert_default();
        if is_new {
            spec.acquire_time = Some(now.clone());
            let is_first = spec.holder_identity.is_none();
            spec.lease_transitions = Some(transitions + i32::from(!is_first));
        }
        spec.holder_identity = Some(self.settings.identity.clone());
        let seconds = self.settings.duration.as_secs();
        spec.lease_duration_seconds = Some(i32::try_from(seconds).unwrap_or(i32::MAX));
        spec.renew_time = Some(now);
    }

    /// The pause between two tries, with client-go's jitter of up to 1.2 times as much again.
    fn pause(&mut self) -> Duration {
        let period = self.settings.retry_period;
        period + self.backoff.below(period * 6 / 5)
    }
}

enum Standing {
    Leader,
    Follower(String),
}

fn read(body: &[u8]) -> Result<Lease, ApiError> {
    serde_json::from_slice(body).map_err(|error| {
        ApiError::new(StatusReason::InternalError, format!("the lease cannot be read: {error}"))
    })
}
