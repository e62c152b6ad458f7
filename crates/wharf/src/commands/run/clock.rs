//! Whose clock the controllers go by: the machine's, or that of the lab whose API they use, which
//! may run at another speed, stand still, or have begun at another time.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use wharf_model::time::Time;
use wharf_ports::clock::Clock;
use wharf_ports::error::StatusReason;
use wharf_remote::Server;

use crate::failure::Failure;
use crate::lab::clock::{ScaledClock, machine_time};

/// Where a lab tells its clock.
const PATH: &str = "/wharf/v1/clock";
/// How often a lab is asked.
const INTERVAL: Duration = Duration::from_secs(2);
/// How far this clock may be behind the lab's, in real time, before it is set: the lab tells whole
/// seconds, and the answer takes its time.
const LAG_MAX: Duration = Duration::from_secs(2);

/// The clock of a remote cluster.
pub(super) struct ClusterClock {
    clock: Arc<ScaledClock>,
    is_labs: bool,
}

/// What a lab's clock shows.
struct Shown {
    now: Time,
    speed: u32,
    paused: bool,
}

impl ClusterClock {
    /// The lab's clock if the server is a lab, else the machine's.
    pub(super) async fn of(server: &Server) -> Result<Self, Failure> {
        match server.get(PATH).await {
            Ok(body) => {
                let shown = read(&body).ok_or_else(|| {
                    Failure::failed(format!("the clock of {} cannot be read", server.url))
                })?;
                let clock = ScaledClock::starting_at(shown.now, shown.speed);
                clock.set_paused(shown.paused);
                Ok(Self { clock: Arc::new(clock), is_labs: true })
            }
            // Every other server knows no such path, or lets nobody ask for it.
            Err(error) if !matches!(error.reason, StatusReason::Timeout) => {
                let clock = ScaledClock::starting_at(machine_time(), 1);
                Ok(Self { clock: Arc::new(clock), is_labs: false })
            }
            Err(error) => Err(Failure::failed(error)),
        }
    }

    pub(super) fn is_labs(&self) -> bool {
        self.is_labs
    }

    pub(super) fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.clock) as Arc<dyn Clock>
    }

    pub(super) fn scaled(&self) -> Arc<ScaledClock> {
        Arc::clone(&self.clock)
    }

    /// Keeps up with the truth: the lab's clock, or the machine's, which may be set while this
    /// runs.
    pub(super) async fn follow(&self, server: &Server) -> Infallible {
        loop {
            tokio::time::sleep(INTERVAL).await;
            let shown = if self.is_labs {
                let Ok(body) = server.get(PATH).await else { continue };
                let Some(shown) = read(&body) else { continue };
                shown
            } else {
                Shown { now: machine_time(), speed: 1, paused: false }
            };
            let reading = self.clock.read();
            if reading.speed != shown.speed {
                self.clock.set_speed(shown.speed);
            }
            if reading.paused != shown.paused {
                self.clock.set_paused(shown.paused);
            }
            if reading.now + LAG_MAX * shown.speed < shown.now {
                self.clock.advance_to(shown.now);
            }
        }
    }
}

fn read(body: &[u8]) -> Option<Shown> {
    let value: Value = serde_json::from_slice(body).ok()?;
    let now: k8s_openapi::apimachinery::pkg::apis::meta::v1::Time =
        serde_json::from_value(value["now"].clone()).ok()?;
    Some(Shown {
        now: Time::from(&now),
        speed: u32::try_from(value["speed"].as_u64()?).ok()?,
        paused: value["paused"].as_bool()?,
    })
}
