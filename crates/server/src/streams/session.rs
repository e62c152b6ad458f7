//! Brings bytes from a socket to the state machines of [`super`], and back.

use std::collections::VecDeque;
use std::time::Duration;

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::{OwnedSemaphorePermit, watch};

use super::port_forward::{Forward, Next};
use super::remote_command::{Channel, Event, Wire, exit_status};
use crate::processes::{Input, Output, Process};
use crate::serve::stopped;

/// How long a client may take to make its streams; upstream's.
const STREAMS_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a client may take to take what it is sent before it is given up.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);
/// How long to wait, after the end was sent, for the client to close: cutting the connection could
/// cost it what it has not read yet.
const LINGER: Duration = Duration::from_secs(2);
/// Bytes read at once.
const READ_BYTES: usize = 32 * 1024;

type Socket = TokioIo<hyper::upgrade::Upgraded>;

/// What a session needs besides its formats.
pub(crate) struct Session {
    /// The connection, once the answer that hands it over was sent.
    pub(crate) upgrade: OnUpgrade,
    /// Ends all sessions.
    pub(crate) stop: watch::Receiver<bool>,
    /// Its place among the sessions there may be.
    pub(crate) slot: OwnedSemaphorePermit,
}

impl Session {
    /// Runs a process' streams from the start of the process to its end.
    pub(crate) async fn command(
        self,
        mut wire: Box<dyn Wire>,
        start: impl FnOnce() -> Result<Process, Value> + Send,
    ) {
        let Self { upgrade, mut stop, slot } = self;
        let Ok(upgraded) = upgrade.await else { return };
        let mut socket = TokioIo::new(upgraded);
        tokio::select! {
            _ = command(&mut socket, wire.as_mut(), start) => {}
            () = stopped(&mut stop) => {}
        }
        let _ = socket.shutdown().await;
        drop(slot);
    }

    /// Forwards ports until the client leaves.
    pub(crate) async fn forward(self, mut forward: Box<dyn Forward>) {
        let Self { upgrade, mut stop, slot } = self;
        let Ok(upgraded) = upgrade.await else { return };
        let mut socket = TokioIo::new(upgraded);
        tokio::select! {
            _ = forward_ports(&mut socket, forward.as_mut()) => {}
            () = stopped(&mut stop) => {}
        }
        let _ = socket.shutdown().await;
        drop(slot);
    }
}

/// The client has gone, or does not keep to its protocol.
struct Over;

async fn send(socket: &mut Socket, bytes: &[u8]) -> Result<(), Over> {
    let write = async {
        socket.write_all(bytes).await?;
        socket.flush().await
    };
    match tokio::time::timeout(WRITE_TIMEOUT, write).await {
        Ok(Ok(())) => Ok(()),
        _ => Err(Over),
    }
}

/// Reads once.
async fn read<'b>(socket: &mut Socket, buffer: &'b mut [u8]) -> Result<&'b [u8], Over> {
    match socket.read(buffer).await {
        Ok(0) | Err(_) => Err(Over),
        Ok(length) => Ok(&buffer[..length]),
    }
}

async fn command(
    socket: &mut Socket,
    wire: &mut dyn Wire,
    start: impl FnOnce() -> Result<Process, Value>,
) -> Result<(), Over> {
    let mut buffer = vec![0; READ_BYTES];
    let mut waiting = VecDeque::new();
    let ready = async {
        while !wire.is_ready() {
            let bytes = read(socket, &mut buffer).await?;
            take(socket_events(wire, bytes)?, socket, &mut waiting).await?;
        }
        Ok(())
    };
    tokio::time::timeout(STREAMS_TIMEOUT, ready).await.map_err(|_| Over)??;
    tokio::time::sleep(wire.settle()).await;
    let status = match start() {
        Ok(process) => run(socket, wire, process, &mut buffer, waiting).await?,
        Err(status) => status,
    };
    send(socket, &wire.finish(&status)).await?;
    let _ =
        tokio::time::timeout(LINGER, async { while read(socket, &mut buffer).await.is_ok() {} })
            .await;
    Ok(())
}

fn socket_events(wire: &mut dyn Wire, bytes: &[u8]) -> Result<Vec<Event>, Over> {
    let mut events = Vec::new();
    wire.take(bytes, &mut events).map_err(|_| Over)?;
    Ok(events)
}

/// Sends replies and keeps input for the process.
async fn take(
    events: Vec<Event>,
    socket: &mut Socket,
    waiting: &mut VecDeque<Input>,
) -> Result<(), Over> {
    for event in events {
        match event {
            Event::Input(input) => waiting.push_back(input),
            Event::Reply(bytes) => send(socket, &bytes).await?,
            Event::Gone => return Err(Over),
        }
    }
    Ok(())
}

/// Both ways at once. What the process has not taken yet holds the reading back, never the output.
async fn run(
    socket: &mut Socket,
    wire: &mut dyn Wire,
    process: Process,
    buffer: &mut [u8],
    mut waiting: VecDeque<Input>,
) -> Result<Value, Over> {
    let Process { input, mut output } = process;
    let mut takes_input = true;
    loop {
        tokio::select! {
            output = output.recv() => match output {
                Some(Output::Stdout(bytes)) => {
                    send(socket, &wire.output(Channel::Stdout, &bytes)).await?;
                }
                Some(Output::Stderr(bytes)) => {
                    send(socket, &wire.output(Channel::Stderr, &bytes)).await?;
                }
                Some(Output::Exit(code)) => return Ok(exit_status(code)),
                None => return Ok(exit_status(0)),
            },
            permit = input.reserve(), if takes_input && !waiting.is_empty() => match permit {
                Ok(permit) => {
                    if let Some(input) = waiting.pop_front() {
                        permit.send(input);
                    }
                }
                // It has ended, or reads nothing.
                Err(_) => takes_input = false,
            },
            bytes = read(socket, buffer), if waiting.is_empty() || !takes_input => {
                waiting.clear();
                let events = socket_events(wire, bytes?)?;
                take(events, socket, &mut waiting).await?;
            }
        }
    }
}

async fn forward_ports(socket: &mut Socket, forward: &mut dyn Forward) -> Result<(), Over> {
    send(socket, &forward.begin()).await?;
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let bytes = read(socket, &mut buffer).await?;
        let mut out = Vec::new();
        let next = forward.take(bytes, &mut out).map_err(|_| Over)?;
        send(socket, &out).await?;
        if next == Next::Over {
            return Ok(());
        }
    }
}
