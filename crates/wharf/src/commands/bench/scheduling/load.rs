//! The load: several clients that create objects over connections they keep.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::{Value, json};

use super::objects::{self, MEASURED};
use crate::client::Connection;
use crate::failure::Failure;
use crate::kubeconfig::Access;

/// How long what comes and goes stays, and stays away. Upstream has a second, in runs that take
/// twenty times as long.
const CHURN: Duration = Duration::from_millis(50);

/// Creates `count` objects, given by their index as path and body, with so many clients at once.
/// Ends early, and in order, once `stop` is set.
pub(super) fn create_all(
    access: &Access,
    clients: usize,
    count: usize,
    object: &(dyn Fn(usize) -> (String, Value) + Sync),
    stop: &AtomicBool,
) -> Result<(), Failure> {
    let next = AtomicUsize::new(0);
    let failure = Mutex::new(None);
    let client = || -> Result<(), Failure> {
        let mut connection = open(access)?;
        while !stop.load(Ordering::Relaxed) {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= count {
                break;
            }
            let (path, body) = object(index);
            send(&mut connection, "POST", &path, &body.to_string())?;
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        for _ in 0..clients.clamp(1, count.max(1)) {
            scope.spawn(|| {
                if let Err(error) = client() {
                    stop.store(true, Ordering::Relaxed);
                    failure.lock().get_or_insert(error);
                }
            });
        }
    });
    failure.into_inner().map_or(Ok(()), Err)
}

/// Lets a node, a service and a pod that fits nowhere come and go until `stop` is set.
pub(super) fn churn(access: &Access, stop: &AtomicBool) -> Result<(), Failure> {
    let mut connection = open(access)?;
    let node =
        objects::named_node("churn-node", json!({"cpu": "4", "memory": "32Gi", "pods": "110"}));
    let mut pod = objects::pod("churn-pod", MEASURED);
    pod["spec"]["priorityClassName"] = json!("high");
    pod["spec"]["containers"][0]["resources"]["requests"] = json!({"cpu": "9", "memory": "500Mi"});
    let objects = [
        ("/api/v1/nodes".to_owned(), node),
        objects::service("churn-service"),
        (format!("/api/v1/namespaces/{MEASURED}/pods"), pod),
    ];
    while !stop.load(Ordering::Relaxed) {
        for (path, object) in &objects {
            send(&mut connection, "POST", path, &object.to_string())?;
        }
        std::thread::sleep(CHURN);
        for (path, object) in &objects {
            let name = object["metadata"]["name"].as_str().unwrap_or_default();
            let path = format!("{path}/{name}?gracePeriodSeconds=0");
            send(&mut connection, "DELETE", &path, "")?;
        }
        std::thread::sleep(CHURN);
    }
    Ok(())
}

fn open(access: &Access) -> Result<Connection, Failure> {
    Connection::open(access)
        .map_err(|error| Failure::failed(format!("no connection to the lab: {error}")))
}

fn send(connection: &mut Connection, method: &str, path: &str, body: &str) -> Result<(), Failure> {
    let answer = connection
        .ask(method, path, body)
        .map_err(|error| Failure::failed(format!("{method} {path}: {error}")))?;
    if (200..300).contains(&answer.code) {
        return Ok(());
    }
    Err(Failure::failed(format!("{method} {path}: answered {}: {}", answer.code, answer.body)))
}
