//! `pods/NAME/exec`, `attach` and `portforward`: who may have a stream, and which.
//!
//! Everything that can be refused before the connection is handed over is refused with a `Status`.
//! What the kubelet would refuse afterwards reaches clients over WebSocket as the end of the process,
//! and clients over SPDY as the answer to their request, as upstream.

use std::sync::Arc;

use hyper::header::{CONNECTION, HeaderMap, HeaderName, HeaderValue, UPGRADE};
use hyper::upgrade::OnUpgrade;
use hyper::{Response, StatusCode};
use k8s_openapi::api::core::v1::Pod;
use serde_json::Value;
use wharf_model::object::Object;
use wharf_ports::error::{ApiError, StatusReason};

use super::log::container;
use super::{Call, Target, list};
use crate::api::{Api, typed_response};
use crate::body::Body;
use crate::processes::{Process, ProcessCall};
use crate::query::Query;
use crate::status::bad_request;
use crate::streams::port_forward::{
    CHANNEL_PROTOCOL, ChannelForward, Connect, Forward, SPDY_PROTOCOL, SpdyForward,
    TUNNEL_PROTOCOL, TunneledForward,
};
use crate::streams::remote_command::{
    SPDY_PROTOCOLS, SpdyWire, WEBSOCKET_PROTOCOLS, Wanted, WebSocketWire, Wire, internal_error,
};
use crate::streams::session::Session;
use crate::streams::websocket;

const STREAM_PROTOCOL: HeaderName = HeaderName::from_static("x-stream-protocol-version");
const ACCEPTED_PROTOCOLS: HeaderName =
    HeaderName::from_static("x-accepted-stream-protocol-versions");
/// Ports of one request over WebSocket channels: their numbers are bytes.
const PORTS_MAX: usize = 100;

/// How a client wants its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Transport {
    WebSocket,
    Spdy,
}

/// Answers `exec` and `attach`.
pub(super) async fn command(
    api: &Arc<Api>,
    call: &Call<'_>,
    target: Target,
    name: &str,
) -> Result<Response<Body>, ApiError> {
    let object = list::find(api, call, target).await?;
    let pod = pod_of(&object)?;
    let asked = call.query.get("container").filter(|name| !name.is_empty());
    let container = container(pod, asked)?;
    has_host(pod)?;
    let transport = transport(&call.head.headers)?;
    let wanted = wanted(&call.query)?;
    let call_of = ProcessCall {
        pod: Arc::clone(&object),
        container: container.clone(),
        stdin: wanted.stdin,
        tty: wanted.tty,
    };
    let command: Vec<String> = call.query.all("command").map(str::to_owned).collect();
    let is_exec = name == "exec";
    if is_exec && command.is_empty() {
        return Err(bad_request("you must specify at least one command for the container"));
    }
    let missing = (!runs(pod, &container)).then(|| {
        let key = object.key();
        if is_exec {
            format!("container not found ({container:?})")
        } else {
            format!("container {container} not found in pod {}_{}", key.name, key.namespace)
        }
    });
    let (protocol, wire): (_, Box<dyn Wire>) = match transport {
        Transport::WebSocket => {
            let protocol =
                chosen(&call.head.headers, "sec-websocket-protocol", &WEBSOCKET_PROTOCOLS)
                    .ok_or_else(|| no_protocol(&WEBSOCKET_PROTOCOLS))?;
            (protocol, Box::new(WebSocketWire::default()))
        }
        Transport::Spdy => {
            if let Some(missing) = missing {
                return Ok(plain(StatusCode::INTERNAL_SERVER_ERROR, missing));
            }
            let headers = &call.head.headers;
            let Some(protocol) = chosen(headers, STREAM_PROTOCOL.as_str(), &SPDY_PROTOCOLS) else {
                return Ok(forbidden(&SPDY_PROTOCOLS));
            };
            (protocol, Box::new(SpdyWire::new(wanted)))
        }
    };
    let (response, session) = hand_over(api, call, transport, protocol)?;
    let processes = Arc::clone(&api.parts.processes);
    let start = move || -> Result<Process, Value> {
        if let Some(missing) = missing {
            return Err(internal_error(&format!("unable to upgrade connection: {missing}")));
        }
        let started = if is_exec {
            let exec = processes.exec(call_of, command);
            exec.map_err(|why| format!("error executing command in container: {why}"))
        } else {
            let attach = processes.attach(call_of);
            attach.map_err(|why| format!("error attaching to container: {why}"))
        };
        started.map_err(|why| match transport {
            // Told by the kubelet, and once more by the API server that translates.
            Transport::WebSocket => internal_error(&format!("Internal error occurred: {why}")),
            Transport::Spdy => internal_error(&why),
        })
    };
    tokio::spawn(session.command(wire, start));
    Ok(response)
}

/// Answers `portforward`.
pub(super) async fn forward(
    api: &Arc<Api>,
    call: &Call<'_>,
    target: Target,
) -> Result<Response<Body>, ApiError> {
    let object = list::find(api, call, target).await?;
    has_host(pod_of(&object)?)?;
    let transport = transport(&call.head.headers)?;
    let processes = Arc::clone(&api.parts.processes);
    let connect: Connect = {
        let (store, object) = (api.store.clone(), Arc::clone(&object));
        Box::new(move |port| {
            // The pod as it is when somebody connects: it may have ended since.
            let newest = store.get(object.kind(), object.key());
            let there = newest.filter(|newest| newest.uid() == object.uid());
            let key = object.key();
            let pod = there.ok_or_else(|| {
                format!("error forwarding port {port} to pod {}: pod not found", key.name)
            })?;
            processes.connect(&pod, port)
        })
    };
    let headers = &call.head.headers;
    let (protocol, forward): (_, Box<dyn Forward>) = match transport {
        Transport::Spdy => {
            let Some(protocol) = chosen(headers, STREAM_PROTOCOL.as_str(), &[SPDY_PROTOCOL]) else {
                return Ok(forbidden(&[SPDY_PROTOCOL]));
            };
            (protocol, Box::new(SpdyForward::new(connect)))
        }
        Transport::WebSocket => {
            let known = [TUNNEL_PROTOCOL, CHANNEL_PROTOCOL];
            let protocol = chosen(headers, "sec-websocket-protocol", &known);
            match protocol.ok_or_else(|| no_protocol(&known))? {
                TUNNEL_PROTOCOL => (TUNNEL_PROTOCOL, Box::new(TunneledForward::new(connect))),
                protocol => {
                    let ports = ports(&call.query)?;
                    (protocol, Box::new(ChannelForward::new(ports, &connect)))
                }
            }
        }
    };
    let (response, session) = hand_over(api, call, transport, protocol)?;
    tokio::spawn(session.forward(forward));
    Ok(response)
}

fn pod_of(object: &Object) -> Result<&Pod, ApiError> {
    object
        .typed::<Pod>()
        .ok_or_else(|| bad_request(format!("pod {} cannot be read", object.key().name)))
}

fn has_host(pod: &Pod) -> Result<(), ApiError> {
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or_default();
    if node.is_empty() {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        return Err(bad_request(format!("pod {name} does not have a host assigned")));
    }
    Ok(())
}

/// Whether the container runs now.
fn runs(pod: &Pod, container: &str) -> bool {
    let status = pod.status.as_ref();
    let mut statuses = status
        .into_iter()
        .flat_map(|status| [&status.container_statuses, &status.init_container_statuses])
        .flatten()
        .flatten();
    statuses
        .find(|status| status.name == container)
        .and_then(|status| status.state.as_ref())
        .is_some_and(|state| state.running.is_some())
}

fn wanted(query: &Query<'_>) -> Result<Wanted, ApiError> {
    let flag = |name| query.flag(name).unwrap_or(false);
    let (stdin, stdout, tty) = (flag("stdin"), flag("stdout"), flag("tty"));
    // A terminal has one output.
    let stderr = flag("stderr") && !tty;
    if !(stdin || stdout || stderr) {
        return Err(bad_request("you must specify at least 1 of stdin, stdout, stderr"));
    }
    Ok(Wanted { stdin, stdout, stderr, tty })
}

fn ports(query: &Query<'_>) -> Result<Vec<u16>, ApiError> {
    let mut ports = Vec::new();
    for text in query.all("ports").flat_map(|text| text.split(',')) {
        match text.parse::<u16>() {
            Ok(port @ 1..) if ports.len() < PORTS_MAX => ports.push(port),
            Ok(1..) => return Err(bad_request(format!("at most {PORTS_MAX} ports are forwarded"))),
            _ => return Err(bad_request(format!("unable to parse {text:?} as a port"))),
        }
    }
    if ports.is_empty() {
        return Err(bad_request("query parameter \"ports\" is required"));
    }
    Ok(ports)
}

fn transport(headers: &HeaderMap) -> Result<Transport, ApiError> {
    let has = |name: &HeaderName, wanted: &str| {
        let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|v| v.trim().eq_ignore_ascii_case(wanted))
    };
    match has(&CONNECTION, "upgrade") {
        true if has(&UPGRADE, "websocket") => Ok(Transport::WebSocket),
        true if has(&UPGRADE, "spdy/3.1") => Ok(Transport::Spdy),
        _ => Err(bad_request("Upgrade request required")),
    }
}

/// The first of the client's protocols that is known here.
fn chosen(headers: &HeaderMap, name: &str, known: &[&'static str]) -> Option<&'static str> {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    let mut asked = values.flat_map(|value| value.split(',')).map(str::trim);
    asked.find_map(|asked| known.iter().copied().find(|known| *known == asked))
}

fn no_protocol(known: &[&str]) -> ApiError {
    bad_request(format!(
        "no subprotocol of Sec-WebSocket-Protocol is known; there are {}",
        known.join(", ")
    ))
}

/// What upstream answers a client over SPDY whose protocols it does not know.
fn forbidden(known: &[&'static str]) -> Response<Body> {
    let mut response =
        plain(StatusCode::FORBIDDEN, "unable to upgrade: no protocol is known".to_owned());
    for known in known {
        response.headers_mut().append(ACCEPTED_PROTOCOLS, HeaderValue::from_static(known));
    }
    response
}

fn plain(code: StatusCode, text: String) -> Response<Body> {
    let mut response = typed_response(text.into(), "text/plain; charset=utf-8");
    *response.status_mut() = code;
    response
}

/// The answer that ends HTTP on this connection, and what goes on with it afterwards.
fn hand_over(
    api: &Arc<Api>,
    call: &Call<'_>,
    transport: Transport,
    protocol: &'static str,
) -> Result<(Response<Body>, Session), ApiError> {
    let upgrade = call.head.extensions.get::<OnUpgrade>().cloned();
    let upgrade = upgrade.ok_or_else(|| bad_request("Upgrade request required"))?;
    let slot = Arc::clone(&api.sessions).try_acquire_owned().map_err(|_| {
        ApiError::new(
            StatusReason::TooManyRequests,
            "too many streams are open; close some of exec, attach and port-forward",
        )
    })?;
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    match transport {
        Transport::WebSocket => {
            let key = call.head.headers.get("sec-websocket-key");
            let key = key
                .and_then(|key| key.to_str().ok())
                .ok_or_else(|| bad_request("Sec-WebSocket-Key is missing"))?;
            let accept = HeaderValue::from_str(&websocket::accept(key))
                .map_err(|_| bad_request("Sec-WebSocket-Key is not valid"))?;
            headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
            headers.insert("sec-websocket-accept", accept);
            headers.insert("sec-websocket-protocol", HeaderValue::from_static(protocol));
        }
        Transport::Spdy => {
            headers.insert(UPGRADE, HeaderValue::from_static("SPDY/3.1"));
            headers.insert(STREAM_PROTOCOL, HeaderValue::from_static(protocol));
        }
    }
    let session = Session { upgrade, stop: api.parts.stop.clone(), slot };
    Ok((response, session))
}
